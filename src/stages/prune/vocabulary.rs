//! The vocabulary that a recipe leaves a network: chosen on the training texts, its effect measured on all.

use crate::compress::Keep;
use crate::compress::delete;
use crate::compress::vocabulary::{Effect, Reading, TooFew, Words, choose};
use crate::data::TokenSet;
use crate::ops::Backend;
use crate::stages::recipe::tables::Prune;
use crate::stages::{Corpus, StageContext};
use crate::tokenizer::{Tokenizer, WordPiece};
use crate::train::Learner;
use crate::{Error, Result, Text};
use serde::Serialize;
use std::ops::Range;
use std::sync::Arc;

const KEY: &str = "prune.vocabulary";

/// The key of an artifact's metadata that has [`Effects`], as JSON.
const EFFECTS: &str = "limbeck.vocabulary";

/// What a recipe's vocabulary does to the texts of its run.
#[derive(Clone, Debug, Serialize)]
struct Effects {
    /// Before and after.
    pieces: [usize; 2],
    training: Effect,
    held_out: Effect,
    test: Effect,
}

/// A corpus that is read with fewer pieces.
pub struct TrimmedCorpus {
    /// The texts as the smaller vocabulary reads them.
    pub corpus: Corpus,
    /// The ids that stay, ascending.
    kept: Vec<u32>,
    effects: Effects,
}

/// The corpus as the recipe's vocabulary reads it, its choice and its effects told; `None` if all pieces stay.
///
/// # Errors
/// [`Error::Setting`] if the vocabulary is too small for the texts' characters, or the tokenizer none that can be made
/// smaller; what reading the texts returns; a signal.
pub fn trim(context: &StageContext<'_>, whole: &Corpus) -> Result<Option<TrimmedCorpus>> {
    let Some((kept, tokenizer)) = chosen(&context.recipe.prune, whole)? else { return Ok(None) };
    let corpus = whole.read_by(tokenizer)?;
    let reading = |corpus: &Corpus| word_piece(&corpus.tokenizer).map(Reading::of);
    let readings = [&reading(whole)?, &reading(&corpus)?];
    let most = context.recipe.data.max_tokens;
    let effect = |texts: [&TokenSet; 2], rows: Range<usize>| {
        let mut effect = Effect::default();
        rows.for_each(|i| effect.add(texts.map(|texts| texts.tokens(i)), readings, &kept, most));
        effect
    };
    let train = [&whole.train, &corpus.train];
    let effects = Effects {
        pieces: [whole.tokenizer.vocab(), kept.len()],
        training: effect(train, whole.train_rows()),
        held_out: effect(train, whole.held_out()),
        test: effect([&whole.test, &corpus.test], 0..whole.test.len()),
    };
    effects.lines().iter().for_each(|line| context.progress.message(line));
    context.check_stop()?;
    Ok(Some(TrimmedCorpus { corpus, kept, effects }))
}

/// Whether the recipe's vocabulary can read its training texts, told before the first step; and the tokenizer that will read
/// them, if some pieces go.
///
/// # Errors
/// As [`trim`].
pub fn check(settings: &Prune, corpus: &Corpus) -> Result<Option<Tokenizer>> {
    Ok(chosen(settings, corpus)?.map(|(_, tokenizer)| tokenizer))
}

impl TrimmedCorpus {
    /// Leaves a network, and its optimizer, the embeddings of the pieces that stay.
    ///
    /// # Errors
    /// The device's.
    pub fn apply<B: Backend>(&self, learner: &mut Learner<B>) -> Result<()> {
        let pieces = self.kept.iter().map(|&id| id as usize).collect();
        let keep = Keep { pieces, ..Keep::all(&learner.model.config) };
        delete(learner, &keep).map(drop)
    }

    /// What an artifact says of its vocabulary: a key and a value for its metadata.
    pub fn record(&self) -> (String, String) {
        let effects = serde_json::to_string(&self.effects).expect("numbers are JSON");
        (EFFECTS.to_owned(), effects)
    }
}

impl Effects {
    /// For people.
    fn lines(&self) -> Vec<String> {
        let [before, after] = self.pieces;
        let sets = [("training", &self.training), ("held-out", &self.held_out), ("test", &self.test)];
        let lines = sets.into_iter().filter(|(_, effect)| effect.texts > 0).map(|(name, effect)| {
            let percent = |part: u64, all: u64| 100.0 * part as f64 / all.max(1) as f64;
            let more = effect.tokens[1] as f64 - effect.tokens[0] as f64;
            let [unknown, known] = [1, 0].map(|i| percent(effect.unknown[i], effect.words[i]));
            let [with, without] = [1, 0].map(|i| percent(effect.texts_with_unknown[i], effect.texts));
            format!(
                "vocabulary: {name} texts become {:.1} % longer ({:.1} tokens a text), {:.2} % of their words are \
                 spelled otherwise; [UNK] are {unknown:.3} % of words (before {known:.3} %), in {with:.2} % of texts \
                 (before {without:.2} %)",
                100.0 * effect.longer(),
                more / effect.texts as f64,
                percent(effect.respelled, effect.compared),
            )
        });
        std::iter::once(format!("vocabulary: {before} pieces become {after}")).chain(lines).collect()
    }
}

/// The ids that stay, and the tokenizer that has them; `None` if all stay.
fn chosen(settings: &Prune, corpus: &Corpus) -> Result<Option<(Vec<u32>, Tokenizer)>> {
    let most = settings.vocabulary;
    if most == 0 {
        return Ok(None);
    }
    let vocabulary = word_piece(&corpus.tokenizer)?;
    let (mut words, reading) = (Words::default(), Reading::of(vocabulary));
    for Text { ids, first } in corpus.train_rows().map(|text| corpus.train.text(text)) {
        words.add(&ids[..first], &reading);
        if first < ids.len() {
            // Between the first sentence's [SEP] and its own.
            words.add(&ids[first - 1..], &reading);
        }
    }
    let kept = choose(vocabulary, &words, most).map_err(|TooFew { least }| {
        let problem = format!(
            "is {most}; the special tokens and the characters of the training texts are {least} pieces"
        );
        Error::setting(KEY, problem, format!("{least} or more, or 0 to keep all pieces"))
    })?;
    if kept.len() == corpus.tokenizer.vocab() {
        return Ok(None);
    }
    let tokenizer = corpus.tokenizer.keep(&kept).map_err(refused)?;
    Ok(Some((kept, tokenizer)))
}

fn word_piece(tokenizer: &Tokenizer) -> Result<&WordPiece<Arc<[u8]>>> {
    tokenizer.word_piece().map_err(refused)
}

fn refused(problem: String) -> Error {
    let problem = format!("the model's tokenizer cannot be made smaller: {problem}");
    Error::setting(KEY, problem, "0, which keeps all pieces")
}
