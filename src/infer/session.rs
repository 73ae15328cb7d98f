//! Predictions with a shared model, by one thread or by a few that share each pass.

use super::arena::Arena;
use super::run::{Pass, Run, Scratch, Var};
use super::shared::ModelRef;
use super::shared_rows::SharedRows;
use super::timing::{PartTimes, Timed};
use crate::error::not_finite;
use crate::team::{Member, Team};
use crate::{Batch, Error, Result};
use limbeck_kernels::Kernels;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Tokens that go through the network together on each thread, unless one text alone is longer: enough for the products
/// to read each weight once for many tokens, few enough that activations stay in the second and third cache.
const TOKENS: usize = 288;

/// Runs a [`Model`](super::Model). Its memory grows to the longest input met, and stays: after one batch of a size, batches of that
/// size or below allocate nothing.
pub struct Session<'m> {
    model: ModelRef<'m>,
    kernels: Kernels,
    team: Team,
    shared_rows: SharedRows,
    /// One for each member of the team.
    workspaces: Vec<Mutex<Workspace>>,
    pub(super) logits: Vec<f32>,
}

/// What one thread works with.
#[derive(Default)]
struct Workspace {
    arena: Arena,
    scratch: Scratch,
    /// What the last pass left here: the logits of its texts, or states of its tokens.
    result: Vec<f32>,
}

impl<'m> Session<'m> {
    /// A session on the calling thread, with the kernels that this CPU or `LIMBECK_ISA` chose when the model was opened.
    pub fn new(model: impl Into<ModelRef<'m>>) -> Session<'m> {
        Session::with_threads(model, 1)
    }

    /// A session of so many threads, the calling one among them, that share the tokens of every pass: even a text alone
    /// is answered sooner. Logits are the same bits with any number. Between calls the others wait, awake for the
    /// fraction of a millisecond in which the next call may come. Without the feature `parallel` there is one thread.
    pub fn with_threads(model: impl Into<ModelRef<'m>>, threads: usize) -> Session<'m> {
        let model = model.into();
        let kernels = model.kernels;
        Session::with(model, kernels, threads)
    }

    /// As [`Session::with_threads`], with these kernels. Logits are the same bits with any.
    pub fn with(model: impl Into<ModelRef<'m>>, kernels: Kernels, threads: usize) -> Session<'m> {
        let (model, team) = (model.into(), Team::new(threads));
        let workspaces = (0..team.members()).map(|_| Mutex::default()).collect();
        Session { model, kernels, team, shared_rows: SharedRows::default(), workspaces, logits: Vec::new() }
    }

    /// The kernels that it runs on.
    pub fn kernels(&self) -> Kernels {
        self.kernels
    }

    /// The model.
    pub fn model(&self) -> &ModelRef<'m> {
        &self.model
    }

    /// Logits of each text: `[texts, labels]`. A text's logits do not depend on the others in the batch.
    ///
    /// # Errors
    /// [`Error::File`], with the model's name, if a text is empty or longer than the model's positions, or holds
    /// an id or a token type that the model does not have; if a logit is no finite number.
    ///
    /// # Panics
    /// If the batch's offsets do not cover its ids, a first sentence is empty or longer than its text, or there are token
    /// types, but not one for each token.
    pub fn logits(&mut self, batch: &Batch) -> Result<&[f32]> {
        self.pass(batch, None)
    }

    /// As [`Session::logits`]; adds to `times` what each part of the network took.
    ///
    /// # Errors
    /// As [`Session::logits`].
    pub fn logits_timed(&mut self, batch: &Batch, times: &mut PartTimes) -> Result<&[f32]> {
        self.pass(batch, Some(times))
    }

    fn pass(&mut self, batch: &Batch, mut times: Option<&mut PartTimes>) -> Result<&[f32]> {
        let model = self.model.clone();
        let classifier = &model.classifier;
        self.each_pass(batch, |session, texts| match times.as_deref_mut() {
            None => session.run(batch, texts, 0, |run| classifier.forward(run)),
            Some(times) => session.run_timed(batch, texts, times),
        })
    }

    /// The logits of a batch, whose texts `pass` runs, as many at a time as belong into a pass, and leaves the result at
    /// the workspaces.
    pub(super) fn each_pass(
        &mut self,
        batch: &Batch,
        mut pass: impl FnMut(&mut Self, Range<usize>),
    ) -> Result<&[f32]> {
        self.check(batch)?;
        let labels = self.model.config().labels.len();
        let mut logits = std::mem::take(&mut self.logits);
        logits.clear();
        logits.reserve(batch.texts() * labels);
        let tokens = TOKENS * self.team.members();
        let mut first = 0;
        while first < batch.texts() {
            let start = batch.offsets[first];
            let more = batch.offsets[first + 1..].iter().take_while(|&&end| end - start <= tokens).count();
            let texts = first..first + more.max(1);
            pass(self, texts.clone());
            self.results(&mut logits);
            first = texts.end;
        }
        self.logits = logits;
        self.check_finite(labels)?;
        Ok(&self.logits)
    }

    /// Appends what the last pass left, in the order of its rows: these are divided in the order of the texts.
    pub(super) fn results(&self, into: &mut Vec<f32>) {
        self.workspaces.iter().for_each(|workspace| into.extend_from_slice(&lock(workspace).result));
    }

    /// NaN and infinity anywhere in a network reach its logits (norms and quantized rows pass them on), so that one
    /// look here finds damage and overflow that were not looked for when the model was opened.
    fn check_finite(&self, labels: usize) -> Result<()> {
        let Some(place) = self.logits.iter().position(|logit| !logit.is_finite()) else { return Ok(()) };
        let problem = format!(
            "text {} of the batch has the logit {} for class {}",
            place / labels,
            not_finite(self.logits[place]),
            place % labels
        );
        let mend = "the weights are damaged or overflow: fetch the file again, or make the model again";
        Err(Error::file(self.model.path(), problem, mend))
    }

    /// One pass of `network` over some texts of a batch, without the first `skip` tokens of each.
    pub(super) fn run(
        &mut self,
        batch: &Batch,
        texts: Range<usize>,
        skip: usize,
        network: impl Fn(&mut Run<'_>) -> Result<Var> + Sync,
    ) {
        self.on_members(batch, texts, skip, |_, run| network(run));
    }

    /// One pass of the whole network, whose parts' times are added to `times`. Member 0 alone looks at the clock: the others do the
    /// same at the same time.
    fn run_timed(&mut self, batch: &Batch, texts: Range<usize>, times: &mut PartTimes) {
        let (model, times) = (self.model.clone(), Mutex::new(times));
        let classifier = &model.classifier;
        self.on_members(batch, texts, 0, |member, exec| match member.index() {
            0 => classifier.forward(&mut Timed { exec, times: *lock(&times), last: 0, layers: 0 }),
            _ => classifier.forward(exec),
        });
    }

    /// Has each member run its part of a pass, and keep what comes of it in its workspace: of a whole network the logits of those of
    /// the pass's texts whose first token lies there.
    fn on_members(
        &mut self,
        batch: &Batch,
        texts: Range<usize>,
        skip: usize,
        part: impl Fn(&Member<'_>, &mut Run<'_>) -> Result<Var> + Sync,
    ) {
        let tokens = batch.offsets[texts.end] - batch.offsets[texts.start] - texts.len() * skip;
        let widest = self.model.widest();
        self.shared_rows.divide(tokens, widest, self.team.members());
        self.team.run(&|member| {
            let Workspace { arena, scratch, result } = &mut *lock(&self.workspaces[member.index()]);
            arena.reserve(self.shared_rows.rows(member).len(), widest, self.model.quantizes);
            let (texts, shared_rows) = (texts.clone(), &self.shared_rows);
            let pass = Pass { model: &self.model, kernels: self.kernels, batch, texts, skip, shared_rows };
            let mut run = Run::new(&pass, member, arena, scratch);
            let made = part(member, &mut run).expect("operations on memory do not fail");
            result.clear();
            result.extend_from_slice(run.values(&made));
        });
    }

    pub(super) fn check(&self, batch: &Batch) -> Result<()> {
        let config = self.model.config();
        let wrong = |problem: String, mend: &str| Err(Error::file(self.model.path(), problem, mend));
        let whole = batch.offsets.first() == Some(&0) && batch.offsets.last() == Some(&batch.ids.len());
        assert!(whole && batch.offsets.is_sorted(), "the offsets of a batch cover its ids");
        assert!(batch.first_lens.len() == batch.texts(), "a text of a batch has a first sentence");
        for (place, ends) in batch.offsets.windows(2).enumerate() {
            let tokens = ends[1] - ends[0];
            if tokens == 0 {
                return wrong(
                    format!("text {place} of the batch has no tokens"),
                    "begin each text with [CLS]",
                );
            }
            if tokens > config.positions {
                let problem =
                    format!("text {place} of the batch has {tokens} tokens, the model {}", config.positions);
                return wrong(problem, "cut it when it is tokenized");
            }
            let first = batch.first_lens[place];
            assert!((1..=tokens).contains(&first), "a first sentence begins its text");
            if first < tokens && config.token_types == 1 && batch.token_types.is_empty() {
                let problem =
                    format!("text {place} of the batch is a pair, and the model has one token type");
                return wrong(problem, "use a model that was trained on pairs");
            }
        }
        if let Some(id) = batch.ids.iter().find(|&&id| id as usize >= config.vocab) {
            let problem = format!("token id {id} is not among its {}", config.vocab);
            return wrong(problem, "use the tokenizer that the model was trained with");
        }
        assert!(
            batch.token_types.is_empty() || batch.token_types.len() == batch.ids.len(),
            "a token type for each token, or none at all"
        );
        if let Some(kind) = batch.token_types.iter().find(|&&kind| kind as usize >= config.token_types.max(1))
        {
            let problem = format!("token type {kind} is not among its {}", config.token_types);
            return wrong(problem, "leave token types away");
        }
        Ok(())
    }
}

/// What a thread that panicked left behind is memory, whose content nobody relies on.
fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
