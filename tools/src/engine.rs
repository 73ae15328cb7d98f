//! Where the command line meets the library: opening models, reading texts, running stages.
//!
//! What predicts or is measured, be it a directory, a file, a control or a network on a GPU, commands open here and see as one kind.

mod gpu;
mod ngrams;

use gpu::OnGpu;
use limbeck::checkpoint::{HfDirectory, WEIGHTS};
use limbeck::data::TokenSet;
use limbeck::infer::{Model, Prepared, Session};
use limbeck::models::highest;
use limbeck::quantize::sensitivity::Sensitivity;
use limbeck::report::measure::{self, MeasuredModel, Texts};
use limbeck::stages::{self, Control, Corpus, Progress, Recipe, ScanContext, Stage, StageContext};
use limbeck::tokenizer::Encode;
use limbeck::{Batch, Error, Result, Text};
use ngrams::NGrams;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// A model that reads text.
pub trait TextModel: MeasuredModel {
    /// Names of the classes, in the order of the logits.
    fn labels(&self) -> &[String];
    /// Longest text it can read, in tokens.
    fn positions(&self) -> usize;
    /// One more than the largest token id.
    fn vocab(&self) -> usize;
    /// What makes its token ids.
    fn tokenizer(&self) -> &dyn Encode;
    /// Computes once what is the same for all pairs with this first sentence, if there is such a thing: only the time that
    /// [`MeasuredModel::logits`] takes changes.
    ///
    /// # Errors
    /// Whatever the model cannot compute.
    fn prepare(&mut self, first: &[u32]) -> Result<()> {
        let _ = first;
        Ok(())
    }
}

/// Opens a Hugging Face directory, a `.limbeck` file, or the linear model that a run keeps as a control, to predict on
/// so many threads.
pub fn open(model: &Path, threads: usize) -> Result<Box<dyn TextModel>> {
    if model.is_file() && model.extension().is_some_and(|extension| extension == "safetensors") {
        return Ok(Box::new(NGrams::open(model)?));
    }
    Ok(Box::new(Deployed::open(model, threads)?))
}

/// Opens a Hugging Face directory on GPU 0.
pub fn open_on_gpu(model: &Path) -> Result<Box<dyn TextModel>> {
    Ok(Box::new(OnGpu::open(model, usual_cache().join("cuda"))?))
}

/// Threads that the latencies of a run's report are measured with.
pub const LATENCY_THREADS: usize = 1;

/// The test texts of `recipe`, as `model` reads them.
pub fn texts(recipe: &Recipe, model: &dyn TextModel) -> Result<Tokenized> {
    in_cache(|cache| stages::test_texts(recipe, model.tokenizer(), model.labels(), model.positions(), cache))
        .map(Tokenized)
}

/// What few bits do to each matrix of a model directory, on the first texts of the file that `recipe` has as `data.test`.
pub fn sensitivity(
    model: &Path,
    recipe: &Recipe,
    texts: usize,
    progress: &dyn Progress,
    stop: &AtomicBool,
) -> Result<Sensitivity> {
    in_cache(|cache| stages::sensitivity(model, recipe, texts, &ScanContext { cache, progress, stop }))
}

/// Whether a directory is to blame for an error, rather than its disk.
fn is_no_place(error: &io::Error) -> bool {
    use io::ErrorKind::{NotADirectory, NotFound, PermissionDenied, ReadOnlyFilesystem};
    [NotADirectory, NotFound, PermissionDenied, ReadOnlyFilesystem].contains(&error.kind())
}

/// Hands `read` the directory where token ids are kept between calls.
fn in_cache<T>(read: impl Fn(&Path) -> Result<T>) -> Result<T> {
    match cache() {
        Cache::Named(cache) => read(&cache).map_err(|error| match error {
            Error::Io { path, action, source } if path.starts_with(&cache) && is_no_place(&source) => {
                let problem = format!("cannot {action} {}: {source}", path.display());
                Error::variable("LIMBECK_CACHE", problem, "name a directory that can be written, or unset it")
            }
            other => other,
        }),
        // A home that cannot be written, as a container's, is no reason to fail.
        Cache::Usual(cache) => match read(&cache) {
            Err(Error::Io { path, .. }) if path.starts_with(&cache) => read(&temporary_cache()),
            other => other,
        },
    }
}

/// An artifact of a run, and the run's test texts as it reads them.
pub struct Variant {
    /// Its name in the table.
    pub name: &'static str,
    /// The artifact.
    pub model: Box<dyn TextModel>,
    /// By its own tokenizer; shared with other artifacts of the same.
    pub texts: Rc<Tokenized>,
}

impl Variant {
    /// As what measures it wants it.
    pub fn measured(&mut self) -> measure::Variant<'_> {
        measure::Variant { name: self.name.to_owned(), subject: &mut *self.model, texts: &*self.texts }
    }

    /// Multiply-adds for a text of the test texts' mean length, if it is a network.
    pub fn multiply_adds(&self) -> Option<u64> {
        let tokens: usize = (0..self.texts.len()).map(|text| self.texts.text(text).ids.len()).sum();
        self.model.multiply_adds(tokens / self.texts.len().max(1))
    }
}

/// The artifacts of all stages, baseline first, and the controls that the recipe asks for.
pub fn variants(context: &StageContext<'_>) -> Result<Vec<Variant>> {
    let stages = Stage::ALL.into_iter().map(Stage::variant);
    let controls =
        Control::ALL.into_iter().filter(|control| control.is_wanted(context)).map(Control::variant);
    let mut opener = Opener { context, corpus: Corpus::open(context)?, read: Vec::new() };
    stages.chain(controls).filter_map(|name| opener.open(name).transpose()).collect()
}

/// One row of a run's table by itself: the artifact of a stage, or a control. `None` if there is no such row.
pub fn variant(context: &StageContext<'_>, name: &str) -> Result<Option<Variant>> {
    Opener { context, corpus: Corpus::open(context)?, read: Vec::new() }.open(name)
}

/// Opens what is in a run's table; variants with the same tokenizer share their texts.
struct Opener<'a> {
    context: &'a StageContext<'a>,
    corpus: Corpus,
    /// By the hash of the tokenizer.
    read: Vec<(String, Rc<Tokenized>)>,
}

impl Opener<'_> {
    fn open(&mut self, name: &str) -> Result<Option<Variant>> {
        let stage = Stage::ALL.into_iter().find(|stage| stage.variant() == name);
        let control = Control::ALL.into_iter().find(|control| control.variant() == name);
        let (name, path) = match (stage, control) {
            (Some(stage), _) => (stage.variant(), self.context.artifact(stage)),
            (None, Some(control)) => (control.variant(), control.path(self.context)),
            (None, None) => return Ok(None),
        };
        let model: Box<dyn TextModel> = match control {
            Some(Control::NGrams) => Box::new(NGrams::open(&path)?),
            _ => {
                let mut model = Deployed::open(&path, self.context.threads)?;
                model.timed = Some(Session::with_threads(Arc::clone(&model.model), LATENCY_THREADS));
                Box::new(model)
            }
        };
        let texts = self.texts(model.tokenizer())?;
        Ok(Some(Variant { name, model, texts }))
    }

    fn texts(&mut self, tokenizer: &dyn Encode) -> Result<Rc<Tokenized>> {
        let hash = tokenizer.content_hash();
        if let Some((_, texts)) = self.read.iter().find(|(known, _)| *known == hash) {
            return Ok(Rc::clone(texts));
        }
        let texts = Rc::new(Tokenized(self.corpus.test_read_by(tokenizer)?));
        self.read.push((hash, Rc::clone(&texts)));
        Ok(texts)
    }
}

/// Where tokenized files are kept between calls.
enum Cache {
    /// Where the user wants them, and nowhere else.
    Named(PathBuf),
    /// Where such files belong, if that can be written.
    Usual(PathBuf),
}

fn cache() -> Cache {
    let given = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(cache) = given("LIMBECK_CACHE") {
        return Cache::Named(cache);
    }
    let usual = given("XDG_CACHE_HOME")
        .map(|cache| cache.join("limbeck"))
        .or_else(|| given("HOME").map(|home| home.join(".cache/limbeck")));
    Cache::Usual(usual.unwrap_or_else(temporary_cache))
}

/// Where files are kept that can be made again.
pub fn usual_cache() -> PathBuf {
    match cache() {
        Cache::Named(cache) | Cache::Usual(cache) => cache,
    }
}

fn temporary_cache() -> PathBuf {
    std::env::temp_dir().join("limbeck")
}

/// Texts with labels, ready to be predicted.
pub struct Tokenized(TokenSet);

impl Tokenized {
    /// What stands for each class in the data: its name, or a number.
    pub fn label_values(&self) -> &[String] {
        self.0.label_values()
    }
}

impl Texts for Tokenized {
    fn len(&self) -> usize {
        self.0.len()
    }
    fn text(&self, i: usize) -> Text<'_> {
        self.0.text(i)
    }
    fn label(&self, i: usize) -> usize {
        self.0.label(i)
    }
    fn hash(&self) -> Option<&str> {
        Some(self.0.texts_hash())
    }
}

/// How large a file is.
fn bytes_of(path: &Path) -> Result<u64> {
    Ok(fs::metadata(path).map_err(Error::io("read", path))?.len())
}

/// A model from its file, with a session on so many threads.
struct Deployed {
    model: Arc<Model>,
    file_bytes: u64,
    /// The file's own vocabulary, or what lies beside the weights.
    tokenizer: Box<dyn Encode>,
    session: Session<'static>,
    /// What [`MeasuredModel::logits`] computes with, if it is to have other threads.
    timed: Option<Session<'static>>,
    prepared: Option<Prepared<'static>>,
    batch: Batch,
}

impl Deployed {
    fn open(path: &Path, threads: usize) -> Result<Deployed> {
        let beside = path.is_dir().then(|| HfDirectory::open(path)?.tokenizer()).transpose()?;
        let model = Arc::new(Model::open(path)?);
        let tokenizer: Box<dyn Encode> = match (beside, model.shared_tokenizer()) {
            (Some(tokenizer), _) => Box::new(tokenizer),
            (None, Some(vocabulary)) => Box::new(vocabulary),
            (None, None) => {
                let mend = "quantize it again from a directory with a tokenizer";
                return Err(Error::file(path, "the file has no vocabulary", mend));
            }
        };
        let session = Session::with_threads(Arc::clone(&model), threads);
        let file_bytes = bytes_of(&if path.is_dir() { path.join(WEIGHTS) } else { path.to_owned() })?;
        let batch = Batch::new();
        Ok(Deployed { model, file_bytes, tokenizer, session, timed: None, prepared: None, batch })
    }
}

impl MeasuredModel for Deployed {
    fn classes(&self) -> usize {
        self.model.config().labels.len()
    }

    fn predict(&mut self, texts: &[Text<'_>], classes: &mut Vec<usize>) -> Result<()> {
        let count = self.classes();
        self.batch.refill(texts.iter().copied());
        classes.extend(self.session.logits(&self.batch)?.chunks(count).map(highest));
        Ok(())
    }

    fn logits(&mut self, texts: &[Text<'_>]) -> Result<&[f32]> {
        self.batch.refill(texts.iter().copied());
        let session = self.timed.as_mut().unwrap_or(&mut self.session);
        match &self.prepared {
            Some(prepared) if texts.iter().all(|text| prepared.begins(text)) => {
                session.logits_after(prepared, &self.batch)
            }
            _ => session.logits(&self.batch),
        }
    }

    fn file_bytes(&self) -> u64 {
        self.file_bytes
    }

    fn parameters(&self) -> u64 {
        self.model.parameters().map(|stored| stored.spec.len() as u64).sum()
    }

    fn sparsity(&self) -> f64 {
        self.model.zeros() as f64 / self.parameters().max(1) as f64
    }

    fn multiply_adds(&self, tokens: usize) -> Option<u64> {
        let parts = self.model.classifier().parts().into_iter();
        Some(parts.map(|part| self.model.multiply_adds(part.kind, tokens)).sum())
    }
}

impl TextModel for Deployed {
    fn labels(&self) -> &[String] {
        &self.model.config().labels
    }

    fn positions(&self) -> usize {
        self.model.config().positions
    }

    fn vocab(&self) -> usize {
        self.model.config().vocab
    }

    fn tokenizer(&self) -> &dyn Encode {
        &*self.tokenizer
    }

    fn prepare(&mut self, first: &[u32]) -> Result<()> {
        if self.model.config().decoupled > 0 {
            self.prepared = Some(self.session.prepare(first)?);
        }
        Ok(())
    }
}
