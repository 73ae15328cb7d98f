//! Feature-based distillation: a student learns a teacher's hidden states, attention and relations of tokens.
//!
//! For each batch the teacher runs on a tape that keeps no records; what the terms compare is tapped from both
//! networks, and each term gives its value and the gradients by the student's tapped variables, which enter the
//! student's backward pass beside that of the logits:
//!
//! ```text
//! batch ─▶ student's tape ─ embedded, hidden, q k v ─┐
//!      └─▶ teacher's tape ─ embedded, hidden, q k v ─┴▶ terms ─▶ values, (variable, gradient) pairs ─▶ Tape::backward
//! ```
//!
//! A value is the mean over the layers that are compared. Where a network's last layer computes the first token only,
//! that row is what is compared: it is all that the logits are made of. Relations alone need every token's query there,
//! and project it.
//!
//! Where widths differ, a learnt linear layer takes the student's states to the teacher's width, one for each layer that
//! is compared. These projections lie behind the network's own parameters in the learner's store: the same optimizer
//! steps them, gradients are clipped with theirs, and the saved state of a training holds them; artifacts do not.

use super::examples::BatchShard;
use super::terms::Terms;
use crate::autograd::{Tape, Var};
use crate::data::TokenSet;
use crate::models::config::Pooling;
use crate::models::{Classifier, ModelConfig, Rows, Taps};
use crate::nn::{Exec, Linear};
use crate::ops::Backend;
use crate::ops::relation::{Map, even};
use crate::params::ParamStore;
use crate::tensor::Tensor;
use crate::{Batch, Result};
use std::borrow::Cow;

/// What of a teacher's layers a student learns. Layers are counted from 0.
#[derive(Clone, Debug, PartialEq)]
pub struct FeatureDistillation {
    /// How much each term counts; 0 or more.
    pub weights: Terms<f64>,
    /// `[student's, teacher's]` layers whose states and attention are compared; the embeddings' outputs are, too.
    pub layers: Vec<[usize; 2]>,
    /// The layers whose relations are compared.
    pub relation_layers: [usize; 2],
    /// Parts that queries, keys and values are cut into; 1 or more.
    pub relation_heads: usize,
}

/// A batch on which a student is compared with its teacher, and what has come of it.
struct Compared<'c, B: Backend> {
    backend: &'c B,
    batch: &'c Batch,
    /// What the loss is multiplied by.
    scale: f64,
    among: BatchShard<'c>,
    values: Terms<Option<f64>>,
    seeds: OutputGrads<B>,
}

impl<B: Backend> Compared<'_, B> {
    /// This process's part of `share`, of a term that has a row for each text or each token; and the same of a loss that is scaled.
    fn shares(&self, share: f64, rows: usize) -> (f64, f64) {
        let share = share * self.among.share(self.batch, rows);
        (share, self.scale * share)
    }
}

/// A teacher, and what is learnt from its layers.
pub struct FeatureTeacher<B: Backend> {
    pub(super) model: Classifier,
    pub(super) params: ParamStore<B>,
    /// The texts as the teacher reads them, if that is not as the student does.
    pub(super) texts: Option<TokenSet>,
    pub(super) features: FeatureDistillation,
    /// From the student's width to the teacher's: of the embeddings, then of each pair of layers; none where they are
    /// equal.
    pub(super) projections: Vec<Linear>,
}

/// Gradients of the terms by variables of the student's tape.
type OutputGrads<B> = Vec<(Var<B>, Tensor<B>)>;

/// What is tapped of one network.
struct Tapped<'n, 't, 'p, B: Backend> {
    tape: &'t mut Tape<'p, B>,
    model: &'n Classifier,
    embedded: Var<B>,
    hidden: Vec<Var<B>>,
    attended: Vec<[Var<B>; 3]>,
}

impl<B: Backend> Tapped<'_, '_, '_, B> {
    /// The embeddings' output, or that of a layer.
    fn state(&self, layer: Option<usize>) -> Var<B> {
        layer.map_or(&self.embedded, |layer| &self.hidden[layer]).clone()
    }

    /// Queries, keys and values of every token.
    fn projected(&mut self, layer: usize, tokens: usize) -> Result<[Var<B>; 3]> {
        let [query, key, value] = self.attended[layer].clone();
        if query.tensor().rows() == tokens {
            return Ok([query, key, value]);
        }
        let input = self.state(layer.checked_sub(1));
        let query = self.model.layers[layer].attention.query.forward(self.tape, &input)?;
        Ok([query, key, value])
    }
}

impl<B: Backend> FeatureTeacher<B> {
    /// What the student's tape is to keep, before its forward pass.
    pub(super) fn prepare(&self, tape: &mut Tape<'_, B>) {
        if self.features.weights.compares_attention() {
            tape.keep_attended();
        }
    }

    /// How much each term counts.
    pub(super) fn weights(&self) -> &Terms<f64> {
        &self.features.weights
    }

    /// The terms' values for a batch that `student` has run on `tape`, this process's share of them, and `scale` times their gradients.
    pub(super) fn teach(
        &self,
        backend: &B,
        tape: &mut Tape<'_, B>,
        student: &Classifier,
        taps: &Taps<Var<B>>,
        batch: &Batch,
        (scale, among): (f64, BatchShard<'_>),
    ) -> Result<(Terms<Option<f64>>, OutputGrads<B>)> {
        let reading = self.reading(batch);
        let mut own = Tape::evaluating(backend, &self.params, &reading);
        self.prepare(&mut own);
        let (mut embedded, mut hidden) = (None, Vec::new());
        self.model.forward_each(
            &mut own,
            self.rows(&student.config),
            |first| embedded = Some(first.clone()),
            |layer| hidden.push(layer.hidden),
        )?;
        let attended = own.take_attended();
        let embedded = embedded.expect("the forward pass begins with it");
        let teacher = &mut Tapped { tape: &mut own, model: &self.model, embedded, hidden, attended };
        let attended = tape.take_attended();
        let hidden = taps.layers.iter().map(|layer| layer.hidden.clone()).collect();
        let student = &mut Tapped { tape, model: student, embedded: taps.embedded.clone(), hidden, attended };
        let (values, seeds) = (Terms::default(), Vec::new());
        let mut compared = Compared { backend, batch, scale, among, values, seeds };
        if self.features.weights.compares_states() {
            self.compare_states(student, teacher, &mut compared)?;
        }
        if self.features.weights.attention > 0.0 {
            self.compare_attention(student, teacher, &mut compared)?;
        }
        if self.features.weights.relations > 0.0 {
            self.compare_relations(student, teacher, &mut compared)?;
        }
        Ok((compared.values, compared.seeds))
    }

    /// The batch as the teacher reads it.
    fn reading<'b>(&self, batch: &'b Batch) -> Cow<'b, Batch> {
        let Some(texts) = &self.texts else { return Cow::Borrowed(batch) };
        let mut own = Batch::new();
        batch.samples.iter().for_each(|&text| own.push(texts.text(text as usize), text));
        assert_eq!(own.offsets, batch.offsets, "a text has as many tokens for both");
        Cow::Owned(own)
    }

    /// Which rows of its last layer the teacher has to compute: the first tokens' suffice if only the student's last
    /// layer, which has no others, is compared with it.
    fn rows(&self, student: &ModelConfig) -> Rows {
        let [last, own] = [student, &self.model.config].map(|config| config.layers.len() - 1);
        let first_only = |layer: usize| layer == last && student.pooling != Pooling::Mean;
        let needed = |[student, teacher]: &[usize; 2]| *teacher != own || first_only(*student);
        if self.features.layers.iter().all(needed) { Rows::Needed } else { Rows::All }
    }

    fn compare_states(
        &self,
        student: &mut Tapped<'_, '_, '_, B>,
        teacher: &mut Tapped<'_, '_, '_, B>,
        compared: &mut Compared<'_, B>,
    ) -> Result<()> {
        let layers = self.features.layers.iter().map(|pair| pair.map(Some));
        let pairs: Vec<[Option<usize>; 2]> = std::iter::once([None, None]).chain(layers).collect();
        let (weights, share) = (self.weights(), 1.0 / pairs.len() as f64);
        for (i, [of_student, of_teacher]) in pairs.into_iter().enumerate() {
            let (mut x, mut y) = (student.state(of_student), teacher.state(of_teacher));
            if x.tensor().rows() < y.tensor().rows() {
                y = teacher.tape.first_tokens(&y)?;
            }
            if let Some(projection) = self.projections.get(i) {
                x = student.tape.linear(projection, &x)?;
            }
            let (a, b) = (x.tensor(), y.tensor());
            let (share, scaled) = compared.shares(share, a.rows());
            if weights.hidden > 0.0 {
                let (value, gradient) = compared.backend.mean_square(a, b, scaled * weights.hidden)?;
                *compared.values.hidden.get_or_insert(0.0) += share * value;
                compared.seeds.push((x.clone(), gradient));
            }
            if weights.cosine > 0.0 {
                let (value, gradient) = compared.backend.cosine(a, b, scaled * weights.cosine)?;
                *compared.values.cosine.get_or_insert(0.0) += share * value;
                compared.seeds.push((x.clone(), gradient));
            }
        }
        Ok(())
    }

    fn compare_attention(
        &self,
        student: &Tapped<'_, '_, '_, B>,
        teacher: &Tapped<'_, '_, '_, B>,
        compared: &mut Compared<'_, B>,
    ) -> Result<()> {
        let maps = |&[s, t]: &[usize; 2]| maps([&student.model.config, &teacher.model.config], [s, t]);
        let pairs = self.features.layers.iter().map(|pair| (pair, maps(pair)));
        // A layer that has no heads left has no attention.
        let pairs: Vec<_> = pairs.filter(|(_, maps)| !maps.is_empty()).collect();
        let (share, mut value) = (1.0 / pairs.len().max(1) as f64, 0.0);
        for ([of_student, of_teacher], maps) in pairs {
            let [query, key, _] = &student.attended[*of_student];
            let [own_query, own_key, _] = &teacher.attended[*of_teacher];
            // Of a layer that keeps sentences apart, each is like the teacher's attention within it.
            let texts = student.model.layers[*of_student].attention.attend.texts(compared.batch);
            let (share, scaled) = compared.shares(share, query.tensor().rows());
            let (of_pair, [dq, dk]) = compared.backend.relation(
                &texts,
                [query.tensor(), key.tensor()],
                [own_query.tensor(), own_key.tensor()],
                &maps,
                scaled * self.weights().attention,
            )?;
            value += share * of_pair;
            compared.seeds.extend([(query.clone(), dq), (key.clone(), dk)]);
        }
        compared.values.attention = Some(value);
        Ok(())
    }

    fn compare_relations(
        &self,
        student: &mut Tapped<'_, '_, '_, B>,
        teacher: &mut Tapped<'_, '_, '_, B>,
        compared: &mut Compared<'_, B>,
    ) -> Result<()> {
        let ([of_student, of_teacher], tokens) = (self.features.relation_layers, compared.batch.tokens());
        let mine = student.projected(of_student, tokens)?;
        let theirs = teacher.projected(of_teacher, tokens)?;
        let (share, mut value) = (1.0 / mine.len() as f64, 0.0);
        for (x, y) in mine.into_iter().zip(theirs) {
            let (a, b) = (x.tensor(), y.tensor());
            let [of_x, of_y] = [a, b].map(|x| even(x.cols(), self.features.relation_heads));
            let maps: Vec<Map> =
                of_x.into_iter().zip(of_y).map(|(x, y)| Map { student: vec![x], teacher: vec![y] }).collect();
            let (share, scaled) = compared.shares(share, a.rows());
            let weight = scaled * self.weights().relations;
            let (of_x, [da, db]) =
                compared.backend.relation(compared.batch, [a, a], [b, b], &maps, weight)?;
            value += share * of_x;
            compared.seeds.extend([(x.clone(), da), (x, db)]);
        }
        compared.values.relations = Some(value);
        Ok(())
    }
}

/// Which heads of two layers are compared: those of the same original index where the networks had as many at first and
/// the teacher has all that the student has, or else the mean over all heads of each. None if either has none.
fn maps(configs: [&ModelConfig; 2], layers: [usize; 2]) -> Vec<Map> {
    let [mine, theirs] = [0, 1].map(|i| &configs[i].layers[layers[i]].heads);
    if mine.is_empty() || theirs.is_empty() {
        return Vec::new();
    }
    let columns = |network: usize, place: usize| {
        let size = configs[network].head_size;
        place * size..(place + 1) * size
    };
    let same = |head: &usize| theirs.iter().position(|own| own == head);
    let places: Option<Vec<usize>> = mine.iter().map(same).collect();
    match places.filter(|_| configs[0].original_heads == configs[1].original_heads) {
        Some(places) => {
            let map =
                |(mine, theirs)| Map { student: vec![columns(0, mine)], teacher: vec![columns(1, theirs)] };
            places.into_iter().enumerate().map(map).collect()
        }
        None => vec![Map {
            student: (0..mine.len()).map(|place| columns(0, place)).collect(),
            teacher: (0..theirs.len()).map(|place| columns(1, place)).collect(),
        }],
    }
}
