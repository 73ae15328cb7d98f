//! Learning which word stood where a text has a mask: the loss of [`MlmHead`], over the tape.

use crate::Result;
use crate::autograd::{OutputGrad, Tape, Var};
use crate::models::mlm::MlmHead;
use crate::ops::Backend;
use crate::ops::loss::{Distillation, LossOps};
use crate::ops::vocabulary::Teacher;
use crate::params::ParamStore;

/// A loss that the host need not know yet, and, of a tape that records, its gradient by a variable.
pub type MlmLoss<B> = (<B as LossOps>::Pending, Option<OutputGrad<B>>);

impl MlmHead {
    /// What the projector reads of the tokens at `places` (ascending) of `states`: `[places, hidden]`.
    ///
    /// # Errors
    /// The device's.
    pub fn read<B: Backend>(
        &self,
        tape: &mut Tape<'_, B>,
        states: &Var<B>,
        places: &[u32],
    ) -> Result<Var<B>> {
        let states = tape.select(states, places)?;
        let transformed = self.transform.forward(tape, &states)?;
        tape.norm(&self.norm, &transformed)
    }

    /// The mean loss over the tokens at `places` of `states`, where `words` stood, one each; and `scale` times its gradient. With a
    /// teacher its distribution over words is learned too: it is the teacher's head and parameters, and what [`MlmHead::read`] made
    /// of the same tokens there.
    ///
    /// # Errors
    /// The device's.
    pub fn loss<B: Backend>(
        &self,
        tape: &mut Tape<'_, B>,
        states: &Var<B>,
        [places, words]: [&[u32]; 2],
        teacher: Option<(&MlmHead, &ParamStore<B>, &Var<B>, Distillation)>,
        scale: f64,
    ) -> Result<MlmLoss<B>> {
        let h = self.read(tape, states, places)?;
        let teacher = teacher.map(|(head, params, h, how)| Teacher {
            params,
            layer: &head.projector,
            h: h.tensor(),
            how,
        });
        tape.vocabulary_loss(&self.projector, &h, words, teacher, scale)
    }
}
