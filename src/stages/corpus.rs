//! The texts of a run, tokenized.

use super::recipe::tables::{self, Format, Source};
use super::{Recipe, StageContext};
use crate::checkpoint::HfDirectory;
use crate::data::{self, Classes, Example, TableOptions, TableSource, TokenSet, demo, read_classes};
use crate::tokenizer::{Encode, Rules, Tokenizer};
use crate::{Error, Result};
use std::fmt::Debug;
use std::ops::{Deref, Range};
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// Notes of the demo.
const DEMO: [usize; 2] = [6000, 1000];

/// Classes named in a message; more would bury it.
const NAMED: usize = 4;

/// More than one of so many tokens that no piece spells is a warning.
const UNKNOWN: usize = 5;

/// Texts of a run and what tokenized them.
pub struct Corpus {
    /// Of the model that training starts from, unless the corpus was [`Corpus::read_by`] another.
    pub tokenizer: Tokenizer,
    /// Training texts, the held-out ones last.
    pub train: TokenSet,
    /// Test texts.
    pub test: TokenSet,
    held_out: usize,
    texts: Rc<Texts>,
}

/// The corpus that a network reads.
pub enum CorpusOf<'a> {
    /// The run's.
    Run(&'a Corpus),
    /// The same texts, read with the network's own, smaller vocabulary.
    Own(Box<Corpus>),
}

impl Deref for CorpusOf<'_> {
    type Target = Corpus;

    fn deref(&self) -> &Corpus {
        match self {
            CorpusOf::Run(corpus) => corpus,
            CorpusOf::Own(corpus) => corpus,
        }
    }
}

/// The texts themselves, for any tokenizer to read.
struct Texts {
    source: TextSource,
    max_tokens: usize,
}

#[allow(clippy::large_enum_variant, reason = "a run has one of it")]
enum TextSource {
    Memory { train: Vec<Example>, test: Vec<Example>, labels: Vec<String> },
    Files { train: TableSource, test: TableSource, cache: PathBuf },
}

#[derive(Clone, Copy)]
enum Part {
    Train,
    Test,
}

impl Corpus {
    /// Reads and tokenizes what the recipe asks for, or finds it in the cache.
    ///
    /// # Errors
    /// Whatever is wrong with the files, with file and line.
    pub fn open(context: &StageContext<'_>) -> Result<Corpus> {
        context.ranks.first_then(|| Corpus::open_here(context))
    }

    fn open_here(context: &StageContext<'_>) -> Result<Corpus> {
        let data = &context.recipe.data;
        let (tokenizer, source) = match data.source {
            Source::Demo => demo_texts(context.recipe)?,
            Source::Files => file_texts(context)?,
        };
        let texts = Rc::new(Texts { source, max_tokens: data.max_tokens });
        let corpus = Corpus::new(texts, tokenizer, data.validation)?;
        if corpus.held_out >= corpus.train.len() {
            let problem =
                format!("{} of {} training texts are held out", corpus.held_out, corpus.train.len());
            return Err(Error::setting("data.validation", problem, "hold out fewer, or raise data.limit"));
        }
        Ok(corpus)
    }

    /// The same texts, as another tokenizer reads them.
    ///
    /// # Errors
    /// A file that has changed since it was opened; a full disk.
    pub fn read_by(&self, tokenizer: Tokenizer) -> Result<Corpus> {
        Corpus::new(Rc::clone(&self.texts), tokenizer, self.held_out)
    }

    /// The texts as the network at `path` reads them: with its own tokenizer, if that is another than this one.
    ///
    /// # Errors
    /// Whatever is wrong with its tokenizer; those of [`Corpus::read_by`].
    pub fn as_read_by_model(&self, path: &Path) -> Result<CorpusOf<'_>> {
        let tokenizer = HfDirectory::open(path)?.tokenizer()?;
        if tokenizer.content_hash() == self.tokenizer.content_hash() {
            return Ok(CorpusOf::Run(self));
        }
        Ok(CorpusOf::Own(Box::new(self.read_by(tokenizer)?)))
    }

    /// The training texts, as another tokenizer reads them.
    ///
    /// # Errors
    /// As [`Corpus::read_by`].
    pub fn train_read_by(&self, tokenizer: &dyn Encode) -> Result<TokenSet> {
        self.texts.tokens(Part::Train, tokenizer)
    }

    /// The test texts, as another tokenizer reads them.
    ///
    /// # Errors
    /// As [`Corpus::read_by`].
    pub fn test_read_by(&self, tokenizer: &dyn Encode) -> Result<TokenSet> {
        self.texts.tokens(Part::Test, tokenizer)
    }

    /// What makes training on these texts pointless, if anything does, for people.
    pub fn warnings(&self) -> Vec<String> {
        let (names, train_rows) = (self.train.labels(), self.train_rows());
        let mut counts = vec![0_usize; names.len()];
        train_rows.clone().for_each(|text| counts[self.train.label(text)] += 1);
        let missing: Vec<&String> =
            names.iter().zip(&counts).filter(|(_, count)| **count == 0).map(|(name, _)| name).collect();
        let mut warnings = Vec::new();
        if names.len() - missing.len() == 1 {
            warnings
                .push("data: all training texts are of one class: there is nothing to tell apart".to_owned());
        } else if !missing.is_empty() {
            warnings.push(format!("data: no training text is of the classes {}", first_few(&missing)));
        }
        match self.tokenizer.word_piece() {
            Ok(vocabulary) => {
                let specials: Vec<u32> = vocabulary.specials().collect();
                let (mut all, mut unknown) = (0, 0);
                for id in train_rows.flat_map(|text| self.train.tokens(text)) {
                    unknown += usize::from(*id == vocabulary.unknown());
                    all += usize::from(*id == vocabulary.unknown() || !specials.contains(id));
                }
                if unknown > all / UNKNOWN {
                    warnings.push(format!(
                        "data: {unknown} of {all} tokens of the training texts are [UNK]: is the model's tokenizer of this language?"
                    ));
                }
            }
            Err(problem) => warnings.push(format!(
                "data: the last stage will refuse this run, for a .limbeck file cannot hold the model's tokenizer: {problem}; the \
                 stages before it can be exported as hf"
            )),
        }
        warnings
    }

    fn new(texts: Rc<Texts>, tokenizer: Tokenizer, held_out: usize) -> Result<Corpus> {
        let (train, test) = (texts.tokens(Part::Train, &tokenizer)?, texts.tokens(Part::Test, &tokenizer)?);
        Ok(Corpus { tokenizer, train, test, held_out, texts })
    }

    /// The texts to learn from.
    pub fn train_rows(&self) -> Range<usize> {
        0..self.train.len() - self.held_out
    }

    /// The texts that choose the best weights.
    pub fn held_out(&self) -> Range<usize> {
        self.train.len() - self.held_out..self.train.len()
    }
}

impl Texts {
    fn tokens(&self, part: Part, tokenizer: &dyn Encode) -> Result<TokenSet> {
        match &self.source {
            TextSource::Memory { train, test, labels } => {
                let examples = match part {
                    Part::Train => train,
                    Part::Test => test,
                };
                Ok(TokenSet::from_examples(examples, labels, tokenizer, self.max_tokens))
            }
            TextSource::Files { train, test, cache } => {
                let table = match part {
                    Part::Train => train,
                    Part::Test => test,
                };
                TokenSet::prepare(table, tokenizer, self.max_tokens, cache)
            }
        }
    }
}

/// Some names of classes, and how many there are if those are not all.
pub(super) fn first_few(labels: &[impl Debug]) -> String {
    match labels.len() {
        0..=NAMED => format!("{labels:?}"),
        all => format!("{:?} and {} more", &labels[..NAMED], all - NAMED),
    }
}

fn demo_texts(recipe: &Recipe) -> Result<(Tokenizer, TextSource)> {
    let demo::Demo { mut train, mut test, labels, pieces } = demo::generate(recipe.seed, DEMO[0], DEMO[1]);
    let pieces = &pieces[..pieces.len().min(recipe.model.vocab)];
    let tokenizer = Tokenizer::from_pieces(pieces, Rules::bert(true))?;
    for (examples, limit) in [(&mut train, recipe.data.limit), (&mut test, recipe.data.test_limit)] {
        examples.truncate(if limit == 0 { usize::MAX } else { limit });
    }
    Ok((tokenizer, TextSource::Memory { train, test, labels }))
}

fn file_texts(context: &StageContext<'_>) -> Result<(Tokenizer, TextSource)> {
    let (data, model) = (&context.recipe.data, &context.recipe.model);
    if data.dir.is_empty() {
        return Err(Error::setting("data.dir", "no directory is given", "give one with --data DIR"));
    }
    if model.path.is_empty() {
        return Err(Error::setting("model.path", "no model is given", "give one with --model PATH"));
    }
    let tokenizer = HfDirectory::open(Path::new(&model.path))?.tokenizer()?;
    let train = table(data, &data.train, named_classes(data)?)?;
    let test = table(data, &data.test, Classes::Known(train.labels().clone()))?;
    let first = |table: TableSource, limit: usize| if limit == 0 { table } else { table.first(limit) };
    let (train, test) = (first(train, data.limit), first(test, data.test_limit));
    Ok((tokenizer, TextSource::Files { train, test, cache: context.cache() }))
}

/// The test file of a recipe, tokenized for a model that knows these classes and reads so many positions.
///
/// # Errors
/// Whatever is wrong with the file, with its line.
pub fn test_texts(
    recipe: &Recipe,
    tokenizer: &dyn Encode,
    labels: &[String],
    positions: usize,
    cache: &Path,
) -> Result<TokenSet> {
    let data = &recipe.data;
    let source = table(data, &data.test, Classes::Named(labels.to_vec()))?;
    let source = if data.test_limit == 0 { source } else { source.first(data.test_limit) };
    TokenSet::prepare(&source, tokenizer, data.max_tokens.min(positions), cache)
}

/// Opens one table of the corpus.
fn table(data: &tables::Data, file: &str, classes: Classes) -> Result<TableSource> {
    let column = |column: &tables::Column| match column {
        tables::Column::Number(place) => data::Column::Index(*place),
        tables::Column::Name(name) => data::Column::Name(name.clone()),
    };
    let options = TableOptions {
        format: match data.format {
            Format::Auto => None,
            Format::Csv => Some(data::Format::Csv),
            Format::Tsv => Some(data::Format::Tsv),
            Format::Jsonl => Some(data::Format::JsonLines),
        },
        header: Some(data.header),
        label: Some(column(&data.label_column)),
        texts: Some(data.text_columns.iter().map(column).collect()),
        second: data.second_columns.iter().map(column).collect(),
        classes,
        first_label: data.first_label,
    };
    TableSource::open(&Path::new(&data.dir).join(file), &options)
}

fn named_classes(data: &tables::Data) -> Result<Classes> {
    match &data.labels {
        tables::Labels::Names(names) if names.is_empty() => Ok(Classes::Found),
        tables::Labels::Names(names) => Ok(Classes::Named(names.clone())),
        tables::Labels::File(name) if name.is_empty() => Ok(Classes::Found),
        tables::Labels::File(name) => {
            let path: PathBuf = Path::new(&data.dir).join(name);
            Ok(Classes::Named(read_classes(&path)?))
        }
    }
}
