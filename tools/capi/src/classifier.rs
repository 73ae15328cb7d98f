//! One model, and sessions for as many threads as ask at once.
//!
//! A session belongs to one text at a time. Whoever predicts takes an idle one, or makes one if there is none, and puts
//! it back: there are as many as threads ever predicted at once, and none is made or grown once all have met their
//! longest text. The lock is held for a push or a pop, never for a prediction.

use limbeck::infer::{Model, Session, SharedVocabulary};
use limbeck::models::{highest, probabilities};
use limbeck::tokenizer::WordPiece;
use limbeck::{Batch, Error, Result};
use std::ffi::{CStr, CString};
use std::mem::MaybeUninit;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A model that reads text. Shared by any number of threads; opaque to C.
pub struct Classifier {
    model: Arc<Model>,
    tokenizer: WordPiece<SharedVocabulary>,
    labels: Vec<CString>,
    idle: Mutex<Vec<Worker>>,
}

/// What one thread predicts with.
struct Worker {
    session: Session<'static>,
    batch: Batch,
    ids: Vec<u32>,
}

const _: () = {
    const fn shared<T: Send + Sync>() {}
    shared::<Classifier>();
};

impl Classifier {
    /// Opens a `.limbeck` file.
    ///
    /// # Errors
    /// Those of [`Model::open`]; [`Error::File`] if it carries no tokenizer, or a label has a zero byte, which would
    /// end it in C.
    pub fn open(path: &Path) -> Result<Classifier> {
        let model = Arc::new(Model::open(path)?);
        let wrong = |problem: &str| Error::file(path, problem, "export the model again from its directory");
        let tokenizer = model.shared_tokenizer().ok_or_else(|| wrong("it carries no tokenizer"))?;
        let labels: Result<Vec<CString>, _> =
            model.config().labels.iter().map(|label| CString::new(&**label)).collect();
        let labels = labels.map_err(|_| wrong("a label holds a zero byte"))?;
        Ok(Classifier { model, tokenizer, labels, idle: Mutex::default() })
    }

    /// Names of the classes, in the order of the logits.
    pub fn labels(&self) -> &[CString] {
        &self.labels
    }

    /// A class's name.
    pub fn label(&self, class: usize) -> Option<&CStr> {
        self.labels.get(class).map(CString::as_c_str)
    }

    /// The class of a text, or of a pair of sentences, cut to what the model can read; its logits and probabilities go into those of the slices
    /// that are there, each as long as there are labels.
    ///
    /// # Errors
    /// Those of [`Session::logits`].
    pub fn predict(
        &self,
        text: &str,
        second: Option<&str>,
        logits: Option<&mut [MaybeUninit<f32>]>,
        probable: Option<&mut [MaybeUninit<f32>]>,
    ) -> Result<usize> {
        let idle = self.idle().pop();
        let mut worker = idle.unwrap_or_else(|| Worker {
            session: Session::new(Arc::clone(&self.model)),
            batch: Batch::new(),
            ids: Vec::new(),
        });
        let answer = worker.predict(&self.tokenizer, text, second, logits, probable);
        self.idle().push(worker);
        answer
    }

    /// A panic under the lock leaves a whole list of whole sessions.
    fn idle(&self) -> MutexGuard<'_, Vec<Worker>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Worker {
    fn predict(
        &mut self,
        tokenizer: &WordPiece<SharedVocabulary>,
        text: &str,
        second: Option<&str>,
        logits: Option<&mut [MaybeUninit<f32>]>,
        probable: Option<&mut [MaybeUninit<f32>]>,
    ) -> Result<usize> {
        let positions = self.session.model().config().positions;
        self.batch.clear();
        if let Some(second) = second {
            self.batch.push(tokenizer.encode_pair(text, second, positions).text(), 0);
        } else {
            self.ids.clear();
            tokenizer.encode_into(text, positions, &mut self.ids);
            self.batch.push(&self.ids, 0);
        }
        let found = self.session.logits(&self.batch)?;
        if let Some(logits) = logits {
            logits.write_copy_of_slice(found);
        }
        if let Some(probable) = probable {
            probable.write_copy_of_slice(&probabilities(found));
        }
        Ok(highest(found))
    }
}
