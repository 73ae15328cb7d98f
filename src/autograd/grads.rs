//! Gradients, collected: those of parameters until the optimizer takes them, those of results in between
//! until the node that made the result takes them.

use super::buckets::Ready;
use super::var_id::VarId;
use crate::Result;
use crate::backend::Device;
use crate::nn::ParamId;
use crate::ops::linear::{LinearOps, WeightGradient};
use crate::ranks::{ProcessGroup, Submit, SummedBuckets};
use crate::tensor::{Shape, Tensor};

/// Gradients of a loss.
pub struct Grads<D: Device> {
    params: Vec<Option<Tensor<D>>>,
    vars: Vec<Option<Tensor<D>>>,
    retained: Vec<bool>,
    /// What the loss was multiplied by.
    scale: f64,
    /// Weight gradients that are not made yet: `dz` and `x` of each.
    deferred: Vec<(ParamId, [Tensor<D>; 2])>,
    /// Which gradients have been handed over to be summed over ranks: nothing may be added to them.
    handed: Vec<bool>,
    /// Which of those there were.
    present: Vec<f64>,
    /// Sums over ranks that had begun when the backward pass ended, and all of them.
    overlap: Option<[usize; 2]>,
}

impl<D: Device> Grads<D> {
    pub(super) fn new(params: usize, vars: usize, retained: &[VarId]) -> Grads<D> {
        let mut keep = vec![false; vars];
        retained.iter().for_each(|var| keep[var.index()] = true);
        Grads {
            params: vec![None; params],
            vars: vec![None; vars],
            retained: keep,
            scale: 1.0,
            deferred: Vec::new(),
            handed: vec![false; params],
            present: vec![0.0; params],
            overlap: None,
        }
    }

    /// Of gradients that were summed over ranks in buckets: how many buckets' sums had begun when the backward pass ended, and how many
    /// there are. What has begun on a GPU has been launched.
    pub fn overlap(&self) -> Option<[usize; 2]> {
        self.overlap
    }

    /// Where the gradient of a parameter is, or will be.
    fn place(&mut self, id: ParamId) -> &mut Option<Tensor<D>> {
        assert!(!self.handed[id.index()], "a node adds to parameter {id:?} and does not name it");
        &mut self.params[id.index()]
    }

    /// What the loss, and so each gradient, has been multiplied by.
    pub fn scale(&self) -> f64 {
        self.scale
    }

    /// These, of a loss that was multiplied by `scale`.
    pub fn scaled(self, scale: f64) -> Grads<D> {
        Grads { scale, ..self }
    }

    /// The gradient of a parameter; `None` if the loss does not depend on it.
    pub fn param(&self, id: ParamId) -> Option<&Tensor<D>> {
        self.params[id.index()].as_ref()
    }

    /// The gradient of a parameter, to change.
    pub fn param_mut(&mut self, id: ParamId) -> Option<&mut Tensor<D>> {
        self.params[id.index()].as_mut()
    }

    /// The gradient of a leaf, or of a result that the tape was told to retain.
    pub fn var(&self, id: VarId) -> Option<&Tensor<D>> {
        self.vars[id.index()].as_ref()
    }

    pub(super) fn take_var(&mut self, id: VarId) -> Option<Tensor<D>> {
        if self.retained[id.index()] { self.vars[id.index()].clone() } else { self.vars[id.index()].take() }
    }

    /// What has been collected for `id`, to be added to and put back with [`Grads::put_var`]; `None` if
    /// nothing has, or if somebody else still reads it.
    pub fn take_partial(&mut self, id: VarId) -> Option<Tensor<D>> {
        let mut partial = self.vars[id.index()].take()?;
        if partial.unique().is_some() {
            Some(partial)
        } else {
            self.vars[id.index()] = Some(partial);
            None
        }
    }

    /// Puts back what [`Grads::take_partial`] took, added to; or adds `gradient` to what is there.
    ///
    /// # Errors
    /// The device's.
    pub fn put_var(&mut self, device: &D, id: VarId, gradient: Tensor<D>) -> Result<()> {
        let place = &mut self.vars[id.index()];
        *place = Some(match place.take() {
            None => gradient,
            Some(there) => sum(device, there, gradient)?,
        });
        Ok(())
    }

    /// Adds a gradient to a parameter's.
    ///
    /// # Errors
    /// The device's.
    pub(super) fn put_param(&mut self, device: &D, id: ParamId, gradient: Tensor<D>) -> Result<()> {
        let place = self.place(id);
        *place = Some(match place.take() {
            None => gradient,
            Some(there) => sum(device, there, gradient)?,
        });
        Ok(())
    }

    /// Lets `write` write or add to a parameter's gradient: it is given the tensor, and whether the tensor
    /// already holds a part to be kept.
    ///
    /// # Errors
    /// The device's, and those of `write`.
    pub fn with_param(
        &mut self,
        device: &D,
        id: ParamId,
        shape: Shape,
        write: impl FnOnce(&mut Tensor<D>, bool) -> Result<()>,
    ) -> Result<()> {
        let place = self.place(id);
        let accumulate = place.is_some();
        let tensor = match place {
            Some(tensor) => tensor,
            None => place.insert(Tensor::from_buffer(device.empty(shape.len())?, shape)),
        };
        write(tensor, accumulate)
    }

    /// As [`Grads::with_param`], for two parameters that one pass writes.
    ///
    /// # Errors
    /// The device's, and those of `write`.
    pub fn with_params(
        &mut self,
        device: &D,
        params: [(ParamId, Shape); 2],
        write: impl FnOnce([&mut Tensor<D>; 2], bool) -> Result<()>,
    ) -> Result<()> {
        let [accumulate, other] = params.map(|(id, _)| self.params[id.index()].is_some());
        assert_eq!(accumulate, other, "whoever writes one writes both");
        let mut take = |(id, shape): (ParamId, Shape)| match self.place(id).take() {
            Some(tensor) => Ok(tensor),
            None => device.empty(shape.len()).map(|buffer| Tensor::from_buffer(buffer, shape)),
        };
        let (mut first, mut second) = (take(params[0])?, take(params[1])?);
        write([&mut first, &mut second], accumulate)?;
        self.params[params[0].0.index()] = Some(first);
        self.params[params[1].0.index()] = Some(second);
        Ok(())
    }

    /// No gradients, for so many parameters: what a rank without texts starts from.
    pub fn none(params: usize) -> Grads<D> {
        Grads::new(params, 0, &[])
    }

    /// Leaves the gradient `dzᵀ·x` of a weight to be made with others.
    pub(crate) fn defer(&mut self, id: ParamId, dz: Tensor<D>, x: Tensor<D>) {
        self.place(id);
        self.deferred.push((id, [dz, x]));
    }

    /// The gradients of all parameters, in their order, to change.
    pub fn params_mut(&mut self) -> impl Iterator<Item = Option<&mut Tensor<D>>> {
        self.params.iter_mut().map(Option::as_mut)
    }

    /// The first parameter whose gradient is not finite.
    ///
    /// # Errors
    /// The device's.
    pub fn first_not_finite(&self, device: &D) -> Result<Option<ParamId>> {
        for (i, gradient) in self.params.iter().enumerate() {
            if let Some(gradient) = gradient
                && !device.sum_squares(gradient.buffer())?.is_finite()
            {
                return Ok(Some(ParamId(i as u32)));
            }
        }
        Ok(None)
    }
}

impl<D: LinearOps> Grads<D> {
    /// Sums the gradients of parameters over ranks, if there are several; a rank that has none where others do adds zeros, shaped as
    /// `shape` says.
    ///
    /// # Errors
    /// [`Error::Ranks`](crate::Error::Ranks); the device's.
    pub fn sum_over_ranks(
        &mut self,
        device: &D,
        ranks: &dyn ProcessGroup,
        shape: impl Fn(ParamId) -> Shape,
    ) -> Result<()> {
        if !ranks.is_distributed() {
            return Ok(());
        }
        let lens: Vec<usize> = (0..self.params.len()).map(|id| shape(ParamId(id as u32)).len()).collect();
        let mut ready = Ready::new(&lens);
        let ((), summed) =
            device.while_summing(ranks, |submit| self.hand_over(device, &mut ready, &shape, submit))?;
        self.take_back(device, ranks, summed, shape)
    }

    /// Hands over the gradients of the buckets that are ready, zeros for those that there are not.
    pub(super) fn hand_over(
        &mut self,
        device: &D,
        ready: &mut Ready,
        shape: impl Fn(ParamId) -> Shape,
        submit: &mut Submit<'_, D::Buffer>,
    ) -> Result<()> {
        while let Some(bucket) = ready.take() {
            let all = std::mem::take(&mut self.deferred);
            let (now, later) = all.into_iter().partition(|(id, _)| bucket.contains(id));
            self.deferred = now;
            self.make_deferred(device)?;
            self.deferred = later;
            let mut buffers = Vec::with_capacity(bucket.len());
            for id in bucket {
                let gradient = self.place(id).take();
                self.handed[id.index()] = true;
                self.present[id.index()] = f64::from(u8::from(gradient.is_some()));
                buffers.push(match gradient {
                    Some(gradient) => gradient.into_buffer().expect("a gradient that nobody else has"),
                    None => device.zeros(shape(id).len())?,
                });
            }
            submit(buffers)?;
        }
        Ok(())
    }

    /// Takes back what was summed, but for what no rank had a gradient of.
    pub(super) fn take_back(
        &mut self,
        device: &D,
        ranks: &dyn ProcessGroup,
        summed: SummedBuckets<D::Buffer>,
        shape: impl Fn(ParamId) -> Shape,
    ) -> Result<()> {
        self.overlap = Some([summed.begun, summed.buckets.len()]);
        // It is here that a rank which is gone is noticed when sums are a GPU's, before anything waits for them.
        ranks.sum_f64(&mut self.present).inspect_err(|_| device.abort(ranks))?;
        // Of parameters in the order in which they were handed over: from the last to the first.
        let ids = (0..self.params.len()).rev();
        for (id, buffer) in ids.zip(summed.buckets.into_iter().flatten()) {
            let shape = shape(ParamId(id as u32));
            self.params[id] = (self.present[id] > 0.0).then(|| Tensor::from_buffer(buffer, shape));
        }
        self.handed.fill(false);
        Ok(())
    }

    /// Makes the weight gradients that were left for the end: all at once, but for those of a weight that is used again, which add to
    /// the first.
    ///
    /// # Errors
    /// The device's.
    pub(super) fn make_deferred(&mut self, device: &D) -> Result<()> {
        let mut left = std::mem::take(&mut self.deferred);
        while !left.is_empty() {
            let (mut now, mut later) = (Vec::new(), Vec::new());
            for one in left {
                let again = now.iter().any(|(id, _): &(ParamId, [Tensor<D>; 2])| *id == one.0);
                if again { later.push(one) } else { now.push(one) }
            }
            self.make(device, &now)?;
            left = later;
        }
        Ok(())
    }

    /// Makes weight gradients of different parameters.
    fn make(&mut self, device: &D, wanted: &[(ParamId, [Tensor<D>; 2])]) -> Result<()> {
        let mut places = Vec::with_capacity(wanted.len());
        for (id, [dz, x]) in wanted {
            let there = self.params[id.index()].take();
            let (accumulate, shape) = (there.is_some(), Shape::new(dz.cols(), x.cols()));
            let dw = match there {
                Some(there) => there,
                None => Tensor::from_buffer(device.empty(shape.len())?, shape),
            };
            places.push((dw, accumulate));
        }
        let pairs = wanted.iter().zip(&mut places);
        let mut gradients: Vec<WeightGradient<'_, D>> = pairs
            .map(|((_, [dz, x]), (dw, accumulate))| WeightGradient { dz, x, dw, accumulate: *accumulate })
            .collect();
        device.weight_gradients(&mut gradients)?;
        for ((id, _), (dw, _)) in wanted.iter().zip(places) {
            self.params[id.index()] = Some(dw);
        }
        Ok(())
    }
}

/// `a + b`, in the storage of whichever is nobody else's.
fn sum<D: Device>(device: &D, mut a: Tensor<D>, mut b: Tensor<D>) -> Result<Tensor<D>> {
    if let Some(buffer) = a.unique() {
        device.add(b.buffer(), buffer)?;
        return Ok(a);
    }
    if let Some(buffer) = b.unique() {
        device.add(a.buffer(), buffer)?;
        return Ok(b);
    }
    let mut copy = device.zeros(a.shape().len())?;
    device.add(a.buffer(), &mut copy)?;
    device.add(b.buffer(), &mut copy)?;
    Ok(Tensor::from_buffer(copy, a.shape()))
}
