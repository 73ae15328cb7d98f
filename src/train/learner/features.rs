//! How a learner comes to have a feature teacher.

use super::super::feature_teacher::{FeatureDistillation, FeatureTeacher};
use super::Learner;
use crate::Result;
use crate::checkpoint::fresh;
use crate::data::TokenSet;
use crate::models::Classifier;
use crate::models::config::Activation;
use crate::nn::{Linear, ParamBuilder, ParamId};
use crate::ops::Backend;
use crate::params::{Param, ParamStore};

impl<B: Backend> Learner<B> {
    /// Has the network learn from the layers of a teacher. `texts` are the training texts as the teacher reads them, if
    /// its vocabulary is another: each of as many tokens. Projections, where there are any, are drawn from `seed`.
    ///
    /// # Errors
    /// No memory.
    ///
    /// # Panics
    /// If a layer does not exist, or there is a feature teacher already.
    pub fn distill_features(
        &mut self,
        teacher: (Classifier, ParamStore<B>),
        features: FeatureDistillation,
        texts: Option<TokenSet>,
        seed: u64,
    ) -> Result<()> {
        assert!(self.feature_teacher.is_none(), "one feature teacher at a time");
        let (model, params) = teacher;
        for [student, teacher] in features.layers.iter().chain([&features.relation_layers]) {
            assert!(*student < self.model.layers.len() && *teacher < model.layers.len(), "layers that exist");
        }
        let [from, to] = [&self.model, &model].map(|model| model.config.hidden);
        let mut declare = ParamBuilder::default();
        let mut projections = Vec::new();
        if features.weights.compares_states() && from != to {
            for state in 0..=features.layers.len() {
                let name = format!("distill.projection.{state}");
                projections.push(Linear::new(&mut declare, &name, from, to, Activation::Identity));
            }
        }
        let first = self.params.len() as u32;
        for projection in &mut projections {
            for id in [&mut projection.weight].into_iter().chain(&mut projection.bias) {
                *id = ParamId(id.0 + first);
            }
        }
        self.params.extend(&self.backend, &declare.specs, |spec| Ok(fresh(spec, seed)))?;
        self.optimizer.extend(&self.backend, &self.params)?;
        self.feature_teacher = Some(FeatureTeacher { model, params, texts, features, projections });
        Ok(())
    }

    /// The parameters of the network itself, without those of projections.
    pub fn network(&self) -> impl Iterator<Item = (ParamId, &Param<B>)> {
        let projections =
            self.feature_teacher.as_ref().map_or(0, |feature_teacher| 2 * feature_teacher.projections.len());
        self.params.iter().take(self.params.len() - projections)
    }
}
