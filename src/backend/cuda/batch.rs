//! What kernels read of a batch, in device memory: made once, for all operations on the batch.

use super::lengths::Lengths;
use super::{Cuda, Memory};
use crate::{Batch, Result};
use std::sync::{Arc, Mutex};

/// Batches kept: those of a step (the texts, and their sentences apart), and of a teacher beside it.
const KEPT: usize = 4;

/// What operations have uploaded for others to use.
#[derive(Default)]
pub(super) struct Scope {
    batches: Mutex<Vec<Arc<DeviceBatch>>>,
    /// The last one.
    key: Mutex<Option<(u64, Arc<Memory>)>>,
}

/// A batch's texts in device memory.
pub struct DeviceBatch {
    offsets_on_host: Vec<usize>,
    samples_on_host: Vec<u64>,
    /// Where each text begins, and where the last one ends: `int[texts + 1]`.
    pub offsets: Memory,
    /// The text of each token: `int[tokens]`.
    pub text_of_token: Memory,
    /// The number that keys each text's dropout: `u64[texts]`.
    pub samples: Memory,
    /// The texts by length.
    pub lengths: Lengths,
}

/// How rows of an activation belong to texts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowLayout {
    /// A row a token.
    Tokens,
    /// A row a text.
    Texts,
}

impl RowLayout {
    /// How the rows of an activation of `rows` rows belong to the texts of `batch`.
    pub fn of(batch: &Batch, rows: usize) -> RowLayout {
        if rows == batch.tokens() {
            return RowLayout::Tokens;
        }
        assert_eq!(rows, batch.texts(), "activations have a row for each token or one for each text");
        RowLayout::Texts
    }
}

impl Cuda {
    /// A step's part of the keys of dropout, in device memory: one `u64`.
    ///
    /// # Errors
    /// [`crate::Error::Device`].
    pub fn step_key(&self, key: u64) -> Result<Arc<Memory>> {
        let mut last = self.scope.key.lock().expect("nothing panics while it holds the key");
        if let Some((_, memory)) = last.as_ref().filter(|(of, _)| *of == key) {
            return Ok(Arc::clone(memory));
        }
        let memory = Arc::new(self.upload_all(&[key])?);
        *last = Some((key, Arc::clone(&memory)));
        Ok(memory)
    }

    /// `batch` in device memory: as it was uploaded before, if it was.
    ///
    /// # Errors
    /// [`crate::Error::Device`].
    pub fn batch(&self, batch: &Batch) -> Result<Arc<DeviceBatch>> {
        let mut batches = self.scope.batches.lock().expect("nothing panics while it holds the list");
        let same = |kept: &Arc<DeviceBatch>| {
            kept.offsets_on_host == batch.offsets && kept.samples_on_host == batch.samples
        };
        if let Some(place) = batches.iter().position(same) {
            return Ok(Arc::clone(&batches[place]));
        }
        let offsets: Vec<i32> = batch.offsets.iter().map(|&offset| offset as i32).collect();
        let of_text = |text: usize| std::iter::repeat_n(text as i32, batch.text(text).len());
        let text_of_token: Vec<i32> = (0..batch.texts()).flat_map(of_text).collect();
        let uploaded = Arc::new(DeviceBatch {
            offsets: self.upload_all(&offsets)?,
            text_of_token: self.upload_all(&text_of_token)?,
            samples: self.upload_all(&batch.samples)?,
            lengths: Lengths::of(self, batch)?,
            offsets_on_host: batch.offsets.clone(),
            samples_on_host: batch.samples.clone(),
        });
        if batches.len() == KEPT {
            batches.remove(0);
        }
        batches.push(Arc::clone(&uploaded));
        Ok(uploaded)
    }
}
