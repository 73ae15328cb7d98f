//! A teacher's logits: computed once for all training texts, kept on disk.

use super::evaluate::for_logits;
use super::learner::Learner;
use super::progress::Progress;
use crate::checkpoint::{Dtype, TensorFile, TensorToWrite, Values, write_tensors};
use crate::data::TokenSet;
use crate::ops::Backend;
use crate::{Error, Result};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::AtomicBool;

const LOGITS: &str = "logits";

/// The logits of `texts` under a teacher, `[texts, classes]`: from the file at `path` if it was made from the
/// same teacher (`teacher_hash`) and the same texts, and computed by the same kernels in the same precision (`computed_by`), else
/// computed and written there.
///
/// # Errors
/// A signal, a full disk, and the device's.
pub fn logits<B: Backend>(
    teacher: impl FnOnce() -> Result<Learner<B>>,
    [teacher_hash, computed_by]: [&str; 2],
    texts: &TokenSet,
    path: &Path,
    progress: &dyn Progress,
    stop: &AtomicBool,
) -> Result<Vec<f32>> {
    let origin = BTreeMap::from([
        ("teacher".to_owned(), teacher_hash.to_owned()),
        ("texts".to_owned(), texts.content_hash().to_owned()),
        ("computed_by".to_owned(), computed_by.to_owned()),
    ]);
    let mut values = Vec::new();
    if let Ok(file) = TensorFile::open(path)
        && origin.iter().all(|(key, value)| file.metadata().get(key) == Some(value))
        && file.check().is_ok()
        && file.read_f32(LOGITS, &mut values).is_ok()
    {
        return Ok(values);
    }
    let teacher = teacher()?;
    values.clear();
    progress.begin("teacher", texts.len() as u64);
    let classes = teacher.model.config.labels.len();
    for_logits(&teacher, texts, 0..texts.len(), |_, logits| {
        values.extend_from_slice(logits);
        progress.advance((logits.len() / classes) as u64);
        Error::if_stopped(stop)
    })?;
    progress.end();
    let shape = [texts.len(), classes];
    let tensor = TensorToWrite { name: LOGITS, shape: &shape, values: Values::F32(&values) };
    write_tensors(path, &[tensor], Dtype::F32, &origin)?;
    Ok(values)
}
