//! The parameters of a network: names, values, and masks. Layers hold ids; everything else is here.

use crate::Result;
use crate::backend::Device;
use crate::formats::Form;
use crate::nn::{Linear, ParamId, ParamSpec};
use crate::ops::linear::{LinearOps, Orientation};
use crate::ops::rounded::{Rounded, Rounding};
use crate::tensor::{Shape, Tensor};
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

/// Which elements of a parameter are kept: one byte each, 1 or 0.
///
/// A masked element is exactly zero, as are its gradient and its moments, and stays so: the optimizer
/// forces it and [`Learner::assert_masks`] checks it.
///
/// [`Learner::assert_masks`]: crate::train::Learner::assert_masks
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mask(pub Arc<[u8]>);

impl Mask {
    /// Keeps what is not zero.
    pub fn of_nonzero(values: &[f32]) -> Mask {
        Mask(values.iter().map(|&value| u8::from(value != 0.0)).collect())
    }

    /// Elements kept.
    pub fn kept(&self) -> usize {
        self.0.iter().filter(|&&kept| kept != 0).count()
    }

    /// Checks that what is masked in `values`, called `name`, is exactly zero.
    ///
    /// # Panics
    /// If it is not.
    pub(crate) fn assert_zero(&self, values: &[f32], name: impl FnOnce() -> String) {
        let leak = values.iter().zip(&*self.0).position(|(value, kept)| *kept == 0 && *value != 0.0);
        assert!(leak.is_none(), "{}: the masked element {leak:?} is not zero", name());
    }
}

/// One parameter.
pub struct Param<D: Device> {
    /// Name, purpose and size.
    pub spec: ParamSpec,
    /// Elements that are not pruned, if any are.
    pub mask: Option<Mask>,
    value: Tensor<D>,
}

impl<D: Device> Param<D> {
    /// The value: `[rows, cols]`.
    pub fn value(&self) -> &Tensor<D> {
        &self.value
    }
}

/// A weight in the forms that products read; those of other parameters are empty.
struct Forms<D: LinearOps> {
    /// Packed in floats, once for each [`Orientation`] unless one serves both.
    packs: [Option<Rc<D::Packed>>; 2],
    /// Whether a pack is of an earlier value: then it lends its memory to the next.
    stale: [bool; 2],
    /// In int8; never of an earlier value.
    rounded: Option<Rc<Rounded<D>>>,
}

impl<D: LinearOps> Default for Forms<D> {
    fn default() -> Self {
        Forms { packs: [None, None], stale: [true; 2], rounded: None }
    }
}

impl<D: LinearOps> Forms<D> {
    fn invalidate_packs(&mut self) {
        self.stale = [true; 2];
        if D::SHARED_PACKS {
            self.packs = [None, None];
        }
        self.rounded = None;
    }
}

/// All parameters of one network, in the order of declaration.
pub struct ParamStore<D: LinearOps> {
    params: Vec<Param<D>>,
    /// One for each parameter.
    forms: RefCell<Vec<Forms<D>>>,
    /// What forward passes round parameters to, if they do.
    rounding: Option<Rounding>,
}

impl<D: LinearOps> ParamStore<D> {
    /// Parameters with these values, one vector of `spec.len()` elements for each spec.
    ///
    /// # Errors
    /// The device's: no memory.
    pub fn new(
        device: &D,
        specs: &[ParamSpec],
        mut values: impl FnMut(&ParamSpec) -> Result<Vec<f32>>,
    ) -> Result<Self> {
        let mut params = Vec::with_capacity(specs.len());
        for spec in specs {
            let value = Tensor::upload(device, &values(spec)?, Shape::new(spec.rows, spec.cols))?;
            params.push(Param { spec: spec.clone(), mask: None, value });
        }
        let forms = RefCell::new(specs.iter().map(|_| Forms::default()).collect());
        Ok(ParamStore { params, forms, rounding: None })
    }

    /// Appends parameters, as [`ParamStore::new`] makes them.
    ///
    /// # Errors
    /// The device's: no memory.
    pub fn extend(
        &mut self,
        device: &D,
        specs: &[ParamSpec],
        values: impl FnMut(&ParamSpec) -> Result<Vec<f32>>,
    ) -> Result<()> {
        let more = ParamStore::new(device, specs, values)?;
        self.params.extend(more.params);
        self.forms.get_mut().extend(more.forms.into_inner());
        Ok(())
    }

    /// Parameters, in order.
    pub fn iter(&self) -> impl Iterator<Item = (ParamId, &Param<D>)> {
        self.params.iter().enumerate().map(|(i, param)| (ParamId(i as u32), param))
    }

    /// How many parameters (tensors) there are.
    pub fn len(&self) -> usize {
        self.params.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.params.is_empty()
    }

    /// One parameter.
    pub fn get(&self, id: ParamId) -> &Param<D> {
        &self.params[id.index()]
    }

    /// The value of a parameter.
    pub fn value(&self, id: ParamId) -> &Tensor<D> {
        &self.params[id.index()].value
    }

    /// What a linear layer adds to its outputs: `[outputs]`, zeros if it has no bias.
    ///
    /// # Errors
    /// The device's.
    pub fn bias(&self, device: &D, layer: &Linear) -> Result<Tensor<D>> {
        if let Some(id) = layer.bias {
            return Ok(self.value(id).clone());
        }
        let shape = Shape::vector(layer.outputs);
        Ok(Tensor::from_buffer(device.zeros(shape.len())?, shape))
    }

    /// The value of a parameter, to change; packed copies of it are stale from here on.
    pub fn value_mut(&mut self, id: ParamId) -> (&mut Tensor<D>, Option<&Mask>) {
        self.forms.get_mut()[id.index()].invalidate_packs();
        let param = &mut self.params[id.index()];
        (&mut param.value, param.mask.as_ref())
    }

    /// All values, to change, and what goes with each; packed copies are stale from here on.
    pub fn values_mut(&mut self) -> impl Iterator<Item = (&ParamSpec, &mut Tensor<D>, Option<&Mask>)> {
        self.invalidate_packs();
        self.params.iter_mut().map(|param| (&param.spec, &mut param.value, param.mask.as_ref()))
    }

    /// Replaces a parameter's mask and zeroes what it drops.
    ///
    /// # Errors
    /// The device's.
    pub fn set_mask(&mut self, device: &D, id: ParamId, mask: Mask) -> Result<()> {
        let shape = self.value(id).shape();
        assert_eq!(mask.0.len(), shape.len(), "a mask has a byte for each element");
        let mut values = self.value(id).download(device)?;
        values.iter_mut().zip(&*mask.0).filter(|(_, kept)| **kept == 0).for_each(|(value, _)| *value = 0.0);
        *self.value_mut(id).0 = Tensor::upload(device, &values, shape)?;
        self.params[id.index()].mask = Some(mask);
        Ok(())
    }

    /// Has forward passes compute with parameters rounded to few bits, and activations to int8, or no longer
    /// ([`rounded`](crate::ops::rounded)).
    pub fn round(&mut self, rounding: Option<Rounding>) {
        if self.rounding != rounding {
            self.rounding = rounding;
            self.invalidate_packs();
        }
    }

    /// What a parameter is rounded to in forward passes, if it is.
    pub fn form(&self, id: ParamId) -> Option<Form> {
        self.rounding.as_ref().and_then(|rounding| rounding.of(&self.get(id).spec))
    }

    /// Whether forward passes compute with anything that is rounded to few bits.
    pub fn rounds(&self) -> bool {
        self.rounding.is_some()
    }

    /// Has forward passes pack all weights again, though they have not changed.
    pub(crate) fn invalidate_packs(&mut self) {
        self.forms.get_mut().iter_mut().for_each(Forms::invalidate_packs);
    }

    /// Whether forward passes multiply in int8.
    pub fn rounds_weights(&self) -> bool {
        self.rounding.as_ref().is_some_and(|rounding| rounding.weights.is_integer())
    }

    /// A weight that forward passes round, from the cache if it has not changed since; `None` if they do not.
    ///
    /// # Errors
    /// The device's.
    pub fn rounded(&self, device: &D, id: ParamId) -> Result<Option<Rc<Rounded<D>>>> {
        let Some(form) = self.form(id) else { return Ok(None) };
        let place = &mut self.forms.borrow_mut()[id.index()].rounded;
        if place.is_none() {
            *place = Some(Rc::new(device.round_weight(self.value(id), form)?));
        }
        Ok(place.clone())
    }

    /// The weight packed for one kind of product in floats, from the cache if the weight has not changed since. One that
    /// is rounded is packed as what it was rounded to.
    ///
    /// # Errors
    /// The device's.
    pub fn packed(&self, device: &D, id: ParamId, orientation: Orientation) -> Result<Rc<D::Packed>> {
        let rounded = self.rounded(device, id)?;
        let (forms, o) = (
            &mut self.forms.borrow_mut()[id.index()],
            if D::SHARED_PACKS { 0 } else { orientation as usize },
        );
        let cached = forms.packs[o].take();
        let fresh = !forms.stale[o] && cached.as_ref().is_some_and(|pack| device.fits(pack));
        let pack = match cached {
            Some(pack) if fresh => pack,
            stale => {
                let recycle = stale.and_then(Rc::into_inner);
                let value = rounded.as_ref().map_or(self.value(id), |rounded| &rounded.values);
                Rc::new(device.pack_weight(value, orientation, recycle)?)
            }
        };
        forms.packs[o] = Some(Rc::clone(&pack));
        forms.stale[o] = false;
        Ok(pack)
    }

    /// Checks that every masked element is exactly zero.
    ///
    /// # Panics
    /// If one is not: a mask that leaks is a bug, never a matter of input.
    ///
    /// # Errors
    /// The device's.
    pub fn assert_masks(&self, device: &D) -> Result<()> {
        for param in &self.params {
            if let Some(mask) = &param.mask {
                mask.assert_zero(&param.value.download(device)?, || param.spec.name.clone());
            }
        }
        Ok(())
    }

    /// Which parameter is to blame for a loss that is not finite, as a sentence: the first that is not finite
    /// itself, or else the one with the largest value, through which the network overflows.
    ///
    /// # Errors
    /// The device's.
    pub fn blame(&self, device: &D) -> Result<String> {
        let mut largest = (0.0_f32, "none");
        for param in &self.params {
            let name = &param.spec.name;
            for value in param.value.download(device)? {
                if !value.is_finite() {
                    return Ok(format!("{name} is the first parameter that is not finite"));
                }
                if value.abs() > largest.0 {
                    largest = (value.abs(), name);
                }
            }
        }
        let (value, name) = largest;
        Ok(format!("every parameter is finite, and the largest value, {value:.1e}, is in {name}"))
    }

    /// Elements of all parameters, and how many of them are not zero.
    ///
    /// # Errors
    /// The device's.
    pub fn count(&self, device: &D) -> Result<(usize, usize)> {
        let (mut all, mut nonzero) = (0, 0);
        for param in &self.params {
            let values = param.value.download(device)?;
            all += values.len();
            nonzero += values.iter().filter(|value| **value != 0.0).count();
        }
        Ok((all, nonzero))
    }
}
