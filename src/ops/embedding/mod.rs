//! `y[t] = words[id[t]] + positions[place of t in its text] + token_types[type[t]]`: `[tokens, hidden]`.
//!
//! The gradient of a table's row is the sum of `dy` over the tokens that read it, in the order of the
//! tokens. Saved: nothing. Where words are narrower than the network, they and the other tables are looked up apart
//! ([`Read`]): a linear layer stands between them.

mod cpu;
#[cfg(feature = "cuda")]
mod cuda;

use crate::Batch;
use crate::Result;
use crate::autograd::{Context, Grads, Node, Recorded};
use crate::backend::Device;
use crate::nn::{Embeddings, ParamId};
use crate::ops::Backend;
use crate::tensor::Tensor;

/// One table, and which of its rows each token reads.
pub struct Lookup<'a, D: Device> {
    /// `[entries, hidden]`.
    pub table: &'a Tensor<D>,
    /// `[tokens]`.
    pub rows: &'a [u32],
}

/// Embedding tables on a device.
pub trait EmbeddingOps: Device {
    /// The sum of the rows that each token reads.
    ///
    /// # Errors
    /// The device's.
    fn gather(&self, lookups: &[Lookup<'_, Self>]) -> Result<Tensor<Self>>;

    /// Adds each row of `dy` to the row of `dtable` that the token read; without `accumulate`, the rest of
    /// `dtable` is zero afterwards.
    ///
    /// # Errors
    /// The device's.
    fn scatter(
        &self,
        dy: &Tensor<Self>,
        rows: &[u32],
        dtable: &mut Tensor<Self>,
        accumulate: bool,
    ) -> Result<()>;
}

/// Which of the tables are looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Read {
    /// All, and summed.
    All,
    /// The words alone.
    Words,
    /// All but the words.
    Others,
}

struct Saved {
    tables: Vec<(ParamId, Vec<u32>)>,
}

/// Looks the batch's tokens up.
///
/// # Errors
/// The device's.
///
/// # Panics
/// If an id, a type or a length is beyond its table: the tokenizer and the loader keep to them.
pub fn forward<B: Backend>(
    at: &Context<'_, B>,
    embeddings: &Embeddings,
    read: Read,
    record: bool,
) -> Result<Recorded<B>> {
    let tables = rows(embeddings, read, at.batch);
    let lookups: Vec<_> =
        tables.iter().map(|(id, rows)| Lookup { table: at.params.value(*id), rows }).collect();
    for lookup in &lookups {
        let beyond = lookup.rows.iter().find(|row| **row as usize >= lookup.table.rows());
        assert!(beyond.is_none(), "row {beyond:?} is beyond a table of {}", lookup.table.rows());
    }
    let forms: Vec<_> = tables.iter().map(|(id, _)| at.params.form(*id)).collect();
    let y = match forms.iter().any(Option::is_some) {
        false => at.backend.gather(&lookups)?,
        true => at.backend.rounded_gather(&lookups, &forms)?,
    };
    Ok((y, record.then(|| Box::new(Saved { tables }) as Box<dyn Node<B>>)))
}

/// The rows that the batch's tokens read of each table.
fn rows(embeddings: &Embeddings, read: Read, batch: &Batch) -> Vec<(ParamId, Vec<u32>)> {
    let mut tables = Vec::new();
    if read != Read::Others {
        tables.push((embeddings.words, batch.ids.clone()));
    }
    if read == Read::Words {
        return tables;
    }
    let places = (0..batch.texts()).flat_map(|text| 0..batch.text(text).len() as u32).collect();
    tables.push((embeddings.positions, places));
    if let Some(types) = embeddings.token_types {
        let of_text =
            |text| (0..batch.text(text).len()).map(move |place| batch.token_type(text, place).into());
        tables.push((types, (0..batch.texts()).flat_map(of_text).collect()));
    }
    tables
}

impl<B: Backend> Node<B> for Saved {
    fn params(&self) -> Vec<ParamId> {
        self.tables.iter().map(|(table, _)| *table).collect()
    }

    fn backward(self: Box<Self>, at: &Context<'_, B>, dy: &Tensor<B>, grads: &mut Grads<B>) -> Result<()> {
        for (table, rows) in &self.tables {
            let shape = at.params.value(*table).shape();
            grads.with_param(at.backend, *table, shape, |dtable, accumulate| {
                at.backend.scatter(dy, rows, dtable, accumulate)
            })?;
        }
        Ok(())
    }
}
