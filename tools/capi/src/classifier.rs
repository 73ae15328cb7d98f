//! One model, and sessions for as many threads as ask at once.
//!
//! A session belongs to one text at a time. Whoever predicts takes an idle one, or makes one if there is none, and puts
//! it back: there are as many as threads ever predicted at once, and none is made or grown once all have met their
//! longest text. The lock is held for a push or a pop, never for a prediction.

use limbeck::infer::{Model, Session};
use limbeck::models::{highest, probabilities};
use limbeck::tokenizer::WordPiece;
use limbeck::{Batch, Error, Result};
use std::ffi::{CStr, CString};
use std::mem::MaybeUninit;
use std::path::Path;
use std::ptr::NonNull;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A model that reads text. Shared by any number of threads; opaque to C.
pub struct Classifier {
    // Borrow from `model`, so stand before it: fields are dropped in this order.
    idle: Mutex<Vec<Worker>>,
    tokenizer: WordPiece<&'static [u8]>,
    labels: Vec<CString>,
    model: Owned,
}

/// What one thread predicts with.
struct Worker {
    session: Session<'static>,
    batch: Batch,
    ids: Vec<u32>,
}

/// A model on the heap, where it stays until this is dropped.
struct Owned(NonNull<Model>);

// SAFETY: as a `Box` of a model, which is `Send` and `Sync` (asserted below).
unsafe impl Send for Owned {}
// SAFETY: as above.
unsafe impl Sync for Owned {}

const _: () = {
    const fn shared<T: Send + Sync>() {}
    shared::<Model>();
    shared::<Classifier>();
};

impl Owned {
    fn new(model: Model) -> Owned {
        Owned(NonNull::from(Box::leak(Box::new(model))))
    }

    /// The model. `'static` stands for "until this is dropped": what borrows it must be dropped before.
    fn get(&self) -> &'static Model {
        // SAFETY: it lives until `drop`, and nothing ever borrows it mutably.
        unsafe { self.0.as_ref() }
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        // SAFETY: from `Box::leak`, and freed nowhere else.
        drop(unsafe { Box::from_raw(self.0.as_ptr()) });
    }
}

impl Classifier {
    /// Opens a `.limbeck` file.
    ///
    /// # Errors
    /// Those of [`Model::open`]; [`Error::File`] if it carries no tokenizer, or a label has a zero byte, which would
    /// end it in C.
    pub fn open(path: &Path) -> Result<Classifier> {
        let model = Owned::new(Model::open(path)?);
        let config = model.get().config();
        let wrong = |problem: &str| Error::file(path, problem, "export the model again from its directory");
        let tokenizer = model.get().tokenizer().ok_or_else(|| wrong("it carries no tokenizer"))?;
        let labels: Result<Vec<CString>, _> =
            config.labels.iter().map(|label| CString::new(&**label)).collect();
        let labels = labels.map_err(|_| wrong("a label holds a zero byte"))?;
        Ok(Classifier { idle: Mutex::default(), tokenizer, labels, model })
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
            session: Session::new(self.model.get()),
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
        tokenizer: &WordPiece<&[u8]>,
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
