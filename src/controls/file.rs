//! A linear classifier as a safetensors file: `weight` `[buckets, classes]`, `bias` `[classes]`, and in the metadata
//! what it is, the names of its classes, and what it was made from.

use super::Linear;
use crate::checkpoint::{Dtype, TensorFile, TensorToWrite, Values, write_tensors};
use crate::{Error, Result};
use std::collections::BTreeMap;
use std::path::Path;

/// The key that says what the file is, and what it says.
const KIND: (&str, &str) = ("limbeck.control", "n-grams, version 1");
/// The key of the classes' names, a list in JSON.
const LABELS: &str = "limbeck.labels";

impl Linear {
    /// Writes the model as a whole; `origin` says what it was made from.
    ///
    /// # Errors
    /// A full disk; a weight that is no number.
    pub fn save(&self, path: &Path, origin: &BTreeMap<String, String>) -> Result<()> {
        let mut metadata = origin.clone();
        metadata.insert(KIND.0.to_owned(), KIND.1.to_owned());
        metadata.insert(LABELS.to_owned(), serde_json::json!(self.labels).to_string());
        let (shape, classes) = ([self.buckets, self.classes()], [self.classes()]);
        let tensors = [
            TensorToWrite { name: "weight", shape: &shape, values: Values::F32(&self.weight) },
            TensorToWrite { name: "bias", shape: &classes, values: Values::F32(&self.bias) },
        ];
        write_tensors(path, &tensors, Dtype::F32, &metadata)
    }

    /// Reads a model.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::File`] or [`Error::Tensor`] if it is not whole, or no such model.
    pub fn open(path: &Path) -> Result<Linear> {
        let file = TensorFile::open(path)?;
        let mend = "remove it, for `limbeck run --resume` to make again";
        let refuse = |problem: String| Error::file(path, problem, mend);
        if file.metadata().get(KIND.0).map(String::as_str) != Some(KIND.1) {
            return Err(refuse(format!("it is no linear classifier of limbeck's ({}: {})", KIND.0, KIND.1)));
        }
        file.check().map_err(|error| error.with_mend(mend))?;
        let labels = file.metadata().get(LABELS).map_or("", String::as_str);
        let labels: Vec<String> = serde_json::from_str(labels)
            .map_err(|error| refuse(format!("{LABELS} is no list of names: {error}")))?;
        let shape = |name: &str| file.shape(name).unwrap_or_default().to_vec();
        let buckets = match shape("weight")[..] {
            [buckets, classes]
                if (1..=u32::MAX as usize).contains(&buckets)
                    && classes == labels.len()
                    && classes > 0
                    && shape("bias") == [classes] =>
            {
                buckets
            }
            _ => {
                let problem = format!(
                    "weight is {:?} and bias {:?}, for {} classes",
                    shape("weight"),
                    shape("bias"),
                    labels.len()
                );
                return Err(refuse(problem));
            }
        };
        let (mut weight, mut bias) = (Vec::new(), Vec::new());
        file.read_f32("weight", &mut weight)?;
        file.read_f32("bias", &mut bias)?;
        Ok(Linear { labels, buckets, weight, bias })
    }

    /// What the file at `path` says it was made from, if it is one.
    pub fn origin(path: &Path) -> Option<BTreeMap<String, String>> {
        Some(TensorFile::open(path).ok()?.metadata().clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn model() -> Linear {
        let labels = ["good \"x\"".to_owned(), "bad".to_owned()];
        let mut model = Linear::new(&labels, 5);
        model.weight.iter_mut().zip(0_u8..).for_each(|(weight, i)| *weight = f32::from(i) - 4.5);
        model.bias = vec![0.25, -0.25];
        model
    }

    #[test]
    fn what_is_saved_is_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ngrams.safetensors");
        let origin = BTreeMap::from([("limbeck.seed".to_owned(), "7".to_owned())]);
        model().save(&path, &origin).unwrap();
        assert_eq!(Linear::open(&path).unwrap(), model());
        assert_eq!(Linear::origin(&path).unwrap()["limbeck.seed"], "7");
        let mut broken = model();
        broken.weight[3] = f32::NAN;
        let error = broken.save(&path, &origin).unwrap_err().to_string();
        assert!(error.contains("tensor weight: element 3 is NaN"), "{error}");
        assert_eq!(Linear::open(&path).unwrap(), model(), "the old one is unharmed");
    }

    #[test]
    fn bad_files_are_errors() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ngrams.safetensors");
        let refused = || Linear::open(&path).unwrap_err().to_string();
        assert!(refused().contains("there is no such file"));
        model().save(&path, &BTreeMap::new()).unwrap();
        let whole = fs::read(&path).unwrap();
        for end in 0..whole.len() {
            fs::write(&path, &whole[..end]).unwrap();
            refused();
        }
        for place in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[place] ^= 1 << (place % 8);
            fs::write(&path, &damaged).unwrap();
            if let Ok(model) = Linear::open(&path) {
                assert_eq!(model.weight.len(), model.buckets() * model.classes());
                assert_eq!(model.bias.len(), model.classes());
            }
        }
        let put = |labels: &str, weight: [usize; 2], bias: usize, kind: &str| {
            let metadata = [(KIND.0, kind), (LABELS, labels)]
                .map(|(key, text)| (key.to_owned(), text.to_owned()))
                .into();
            let (values, of_bias) = (vec![0.0; weight[0] * weight[1]], vec![0.0; bias]);
            let tensors = [
                TensorToWrite { name: "weight", shape: &weight, values: Values::F32(&values) },
                TensorToWrite { name: "bias", shape: &[bias], values: Values::F32(&of_bias) },
            ];
            write_tensors(&path, &tensors, Dtype::F32, &metadata).unwrap();
            refused()
        };
        assert!(
            put("[\"a\", \"b\"]", [5, 3], 2, KIND.1).contains("weight is [5, 3] and bias [2], for 2 classes")
        );
        assert!(put("[\"a\", \"b\"]", [5, 2], 3, KIND.1).contains("bias [3]"));
        assert!(put("[]", [5, 0], 0, KIND.1).contains("for 0 classes"));
        assert!(put("3", [5, 2], 2, KIND.1).contains("no list of names"));
        assert!(put("[\"a\", \"b\"]", [5, 2], 2, "other").contains("no linear classifier"));
    }
}
