//! The tape; that networks run on it, as [`Exec`](crate::nn::Exec), is in `exec`.

mod exec;

use super::Grads;
use super::buckets::Ready;
use super::var_id::VarId;
use crate::Batch;
use crate::Result;
use crate::nn::{LayerNorm, Linear, ParamId};
use crate::ops::dropout::{DropoutSeed, DropoutSite};
use crate::ops::vocabulary::{self, Task, Teacher};
use crate::ops::{Backend, norm, select};
use crate::params::ParamStore;
use crate::ranks::ProcessGroup;
use crate::tensor::Tensor;
use std::cell::{OnceCell, RefCell};
use std::rc::Rc;

/// A result of an operation.
pub struct Var<B: Backend> {
    id: VarId,
    tensor: Tensor<B>,
    /// Its rows in int8, once somebody has asked for them.
    rows: Rc<OnceCell<B::Rows>>,
}

impl<B: Backend> Clone for Var<B> {
    fn clone(&self) -> Self {
        Var { id: self.id, tensor: self.tensor.clone(), rows: Rc::clone(&self.rows) }
    }
}

impl<B: Backend> Var<B> {
    /// Its place on the tape.
    pub fn id(&self) -> VarId {
        self.id
    }

    /// Its value.
    pub fn tensor(&self) -> &Tensor<B> {
        &self.tensor
    }

    /// Its rows in int8: made once, however many layers read them.
    ///
    /// # Errors
    /// The device's.
    pub fn rows(&self, backend: &B) -> Result<&B::Rows> {
        if let Some(rows) = self.rows.get() {
            return Ok(rows);
        }
        let rows = backend.round_rows(&self.tensor)?;
        Ok(self.rows.get_or_init(|| rows))
    }
}

/// What forward and backward passes may look at.
pub struct Context<'a, B: Backend> {
    /// The device.
    pub backend: &'a B,
    /// The parameters as they were in the forward pass.
    pub params: &'a ParamStore<B>,
    /// The texts.
    pub batch: &'a Batch,
}

/// The backward pass of one operation. It owns what the forward pass saved, runs once, and *adds* the
/// gradients of its inputs and parameters to `grads`.
pub trait Node<B: Backend> {
    /// Parameters to whose gradients `backward` may add, one entry for each addition. A bucket is summed over ranks when all
    /// additions to it have been made or left out.
    fn params(&self) -> Vec<ParamId> {
        Vec::new()
    }

    /// `dy` is the gradient of the operation's result.
    ///
    /// # Errors
    /// The device's.
    fn backward(self: Box<Self>, at: &Context<'_, B>, dy: &Tensor<B>, grads: &mut Grads<B>) -> Result<()>;
}

/// An operation's result, and its node if one was recorded.
pub type Recorded<B> = (Tensor<B>, Option<Box<dyn Node<B>>>);

/// A loss's derivative by a variable.
pub type OutputGrad<B> = (Var<B>, Tensor<B>);

/// The node that made a variable.
type Entry<B> = (VarId, Box<dyn Node<B>>);

/// Runs operations over one batch, and records them if there will be a backward pass.
pub struct Tape<'a, B: Backend> {
    backend: &'a B,
    params: &'a ParamStore<B>,
    batch: &'a Batch,
    dropout_seed: Option<DropoutSeed>,
    sites: u32,
    vars: u32,
    nodes: Option<Vec<Entry<B>>>,
    retained: RefCell<Vec<VarId>>,
    attended: Option<Vec<[Var<B>; 3]>>,
    inputs: Option<Vec<(Linear, Var<B>)>>,
    /// Gradients of parameters that a loss knew as soon as it was computed.
    known: Vec<(ParamId, Tensor<B>)>,
}

impl<'a, B: Backend> Tape<'a, B> {
    /// A tape that records. Without `dropout_seed` there is no dropout.
    pub fn recording(
        backend: &'a B,
        params: &'a ParamStore<B>,
        batch: &'a Batch,
        dropout_seed: Option<DropoutSeed>,
    ) -> Self {
        Tape { nodes: Some(Vec::new()), dropout_seed, ..Tape::evaluating(backend, params, batch) }
    }

    /// A tape that keeps nothing: for evaluation, and for teachers.
    pub fn evaluating(backend: &'a B, params: &'a ParamStore<B>, batch: &'a Batch) -> Self {
        Tape {
            backend,
            params,
            batch,
            dropout_seed: None,
            sites: 0,
            vars: 0,
            nodes: None,
            retained: RefCell::default(),
            attended: None,
            inputs: None,
            known: Vec::new(),
        }
    }

    /// A value from outside. No node makes it, so its gradient is kept through the backward pass.
    pub fn leaf(&mut self, value: Tensor<B>) -> Var<B> {
        self.push((value, None))
    }

    /// Keeps the gradient of `var` through the backward pass, for [`Grads::var`].
    pub fn retain(&self, var: &Var<B>) {
        self.retained.borrow_mut().push(var.id);
    }

    /// Keeps queries, keys and values of every attention from here on, for [`Tape::take_attended`].
    pub fn keep_attended(&mut self) {
        self.attended = Some(Vec::new());
    }

    /// What attention was handed, `[query, key, value]`, in the order of the layers; nothing is kept any more.
    pub fn take_attended(&mut self) -> Vec<[Var<B>; 3]> {
        self.attended.take().unwrap_or_default()
    }

    /// Keeps what every linear layer reads from here on, for [`Tape::take_inputs`].
    pub fn keep_inputs(&mut self) {
        self.inputs = Some(Vec::new());
    }

    /// Linear layers and what they read, in the order in which they ran; nothing is kept any more.
    pub fn take_inputs(&mut self) -> Vec<(Linear, Var<B>)> {
        self.inputs.take().unwrap_or_default()
    }

    /// Gradients of the loss whose derivatives by some variables are given, each by a pair: by the network's output, and
    /// by whatever else the loss looks at. Those of one variable add up.
    ///
    /// # Errors
    /// The device's.
    ///
    /// # Panics
    /// If the tape does not record.
    pub fn backward(self, derivatives: impl IntoIterator<Item = OutputGrad<B>>) -> Result<Grads<B>> {
        let backend = self.backend;
        let mut grads = self.walk(derivatives, |_, _| Ok(()))?;
        grads.make_deferred(backend)?;
        Ok(grads)
    }

    /// As [`Tape::backward`], the gradients of parameters summed over ranks, each bucket of them as soon as nothing more is added to it.
    ///
    /// # Errors
    /// The device's, of which the other ranks learn; [`Error::Ranks`](crate::Error::Ranks).
    ///
    /// # Panics
    /// If the tape does not record.
    pub fn backward_all_reduce(
        self,
        derivatives: impl IntoIterator<Item = OutputGrad<B>>,
        ranks: &dyn ProcessGroup,
    ) -> Result<Grads<B>> {
        if !ranks.is_distributed() {
            return self.backward(derivatives);
        }
        let (backend, params) = (self.backend, self.params);
        let lens: Vec<usize> = params.iter().map(|(_, param)| param.value().shape().len()).collect();
        let mut ready = Ready::after(&lens, self.nodes.iter().flatten().flat_map(|(_, node)| node.params()));
        let shape = |id: ParamId| params.value(id).shape();
        let (mut grads, summed) = backend.while_summing(ranks, |give| {
            self.walk(derivatives, |grads, done| {
                ready.done(done);
                grads.hand_over(backend, &mut ready, shape, give)
            })
        })?;
        grads.take_back(backend, ranks, summed, shape)?;
        Ok(grads)
    }

    /// Runs all nodes from the last to the first; before them, and after each, `after` is told what nothing more will be added to
    /// by it.
    fn walk(
        self,
        derivatives: impl IntoIterator<Item = OutputGrad<B>>,
        mut after: impl FnMut(&mut Grads<B>, &[ParamId]) -> Result<()>,
    ) -> Result<Grads<B>> {
        let at = Context { backend: self.backend, params: self.params, batch: self.batch };
        let mut grads = Grads::new(self.params.len(), self.vars as usize, &self.retained.borrow());
        for (id, gradient) in self.known {
            grads.put_param(self.backend, id, gradient)?;
        }
        for (var, dy) in derivatives {
            grads.put_var(self.backend, var.id, dy)?;
        }
        after(&mut grads, &[])?;
        for (var, node) in self.nodes.expect("a tape that records").into_iter().rev() {
            let params = node.params();
            if let Some(dy) = grads.take_var(var) {
                node.backward(&at, &dy, &mut grads)?;
            }
            after(&mut grads, &params)?;
        }
        Ok(grads)
    }

    /// Rows of `x`, ascending: `[rows, n]`.
    ///
    /// # Errors
    /// The device's.
    pub fn select(&mut self, x: &Var<B>, rows: &[u32]) -> Result<Var<B>> {
        let y = select::forward(&self.at(), x, rows, self.records())?;
        Ok(self.push(y))
    }

    /// `norm(x)`, over each row.
    ///
    /// # Errors
    /// The device's.
    pub fn norm(&mut self, norm: &LayerNorm, x: &Var<B>) -> Result<Var<B>> {
        let y = norm::forward(&self.at(), norm, x, None, None, self.records())?;
        Ok(self.push(y))
    }

    /// The loss of a head over a vocabulary that reads `h` (`[rows, hidden]`), against a word for each row, without a result of all rows
    /// ([`vocabulary`]); and, if the tape records, `scale` times its gradient by `h`, for [`Tape::backward`], which knows of those by the
    /// head's parameters.
    ///
    /// # Errors
    /// The device's.
    pub fn vocabulary_loss(
        &mut self,
        layer: &Linear,
        h: &Var<B>,
        targets: &[u32],
        teacher: Option<Teacher<'_, B>>,
        scale: f64,
    ) -> Result<(B::Pending, Option<OutputGrad<B>>)> {
        let task = Task { layer, h: h.tensor(), targets, teacher, scale };
        let (pending, gradients) = vocabulary::loss(&self.at(), &task, self.records())?;
        let by_h = gradients.map(|gradients| {
            self.known.extend(gradients.params);
            (h.clone(), gradients.h)
        });
        Ok((pending, by_h))
    }

    fn push(&mut self, (tensor, node): Recorded<B>) -> Var<B> {
        let id = VarId(self.vars);
        self.vars += 1;
        if let (Some(nodes), Some(node)) = (&mut self.nodes, node) {
            nodes.push((id, node));
        }
        Var { id, tensor, rows: Rc::default() }
    }

    /// The key of the next place where dropout acts, if it does.
    fn site(&mut self, rate: f32) -> Option<DropoutSite> {
        self.sites += 1;
        let dropout_seed = self.dropout_seed.as_ref().filter(|_| rate > 0.0)?;
        Some(DropoutSite { seed: *dropout_seed, place: self.sites, rate })
    }

    fn at(&self) -> Context<'a, B> {
        Context { backend: self.backend, params: self.params, batch: self.batch }
    }

    fn records(&self) -> bool {
        self.nodes.is_some()
    }
}
