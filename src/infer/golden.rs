//! Whether a file still answers as it did when it was written.

use super::model::Model;
use super::session::Session;
use crate::{Batch, Error, Result};

impl Model {
    /// Computes the logits of the texts that the file carries and compares them, bit for bit, with those of
    /// when it was written; compares the data with their hash. Reads the whole file.
    ///
    /// # Errors
    /// [`Error::File`] if they differ: the file is damaged, or this CPU or build computes otherwise.
    pub fn check_golden(&self) -> Result<()> {
        let Some(metadata) = self.metadata() else { return Ok(()) };
        self.check_data()?;
        let mut session = Session::new(self);
        for (place, golden) in metadata.golden.iter().enumerate() {
            let logits = session.logits(&Batch::from_texts([golden.text()]))?;
            let bits: Vec<u32> = logits.iter().map(|logit| logit.to_bits()).collect();
            if bits != golden.logits {
                let expected: Vec<f32> = golden.logits.iter().map(|&bits| f32::from_bits(bits)).collect();
                let problem =
                    format!("golden text {place} gives {logits:?}, and gave {expected:?} when written");
                let mend = "report it with the output of `limbeck kernels`: this build computes otherwise";
                return Err(Error::file(self.path(), problem, mend));
            }
        }
        Ok(())
    }
}
