//! The texts of a run, tokenized.

use super::recipe::tables::{self, Format, Source};
use super::{Recipe, StageContext};
use crate::checkpoint::HfDirectory;
use crate::data::{self, Classes, TableOptions, TableSource, TokenSet, demo, read_classes};
use crate::tokenizer::{Encode, Rules, Tokenizer};
use crate::{Error, Result};
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Notes of the demo.
const DEMO: [usize; 2] = [6000, 1000];

/// Texts of a run and what tokenized them.
pub struct Corpus {
    /// Of the model that training starts from.
    pub tokenizer: Tokenizer,
    /// Training texts, the held-out ones last.
    pub train: TokenSet,
    /// Test texts.
    pub test: TokenSet,
    held_out: usize,
}

impl Corpus {
    /// Reads and tokenizes what the recipe asks for, or finds it in the cache.
    ///
    /// # Errors
    /// Whatever is wrong with the files, with file and line.
    pub fn open(context: &StageContext<'_>) -> Result<Corpus> {
        let recipe = context.recipe;
        let corpus = match recipe.data.source {
            Source::Demo => demo_corpus(recipe)?,
            Source::Files => file_corpus(context)?,
        };
        if corpus.held_out >= corpus.train.len() {
            let problem =
                format!("{} of {} training texts are held out", corpus.held_out, corpus.train.len());
            return Err(Error::setting("data.validation", problem, "hold out fewer, or raise data.limit"));
        }
        Ok(corpus)
    }

    /// The texts to learn from.
    pub fn lessons(&self) -> Range<usize> {
        0..self.train.len() - self.held_out
    }

    /// The texts that choose the best weights.
    pub fn held_out(&self) -> Range<usize> {
        self.train.len() - self.held_out..self.train.len()
    }
}

fn demo_corpus(recipe: &Recipe) -> Result<Corpus> {
    let corpus = demo::generate(recipe.seed, DEMO[0], DEMO[1]);
    let pieces = &corpus.pieces[..corpus.pieces.len().min(recipe.model.vocab)];
    let tokenizer = Tokenizer::from_pieces(pieces, Rules::bert(true))?;
    let cut = |examples: &[data::Example], limit: usize| {
        let kept = if limit == 0 { examples.len() } else { limit.min(examples.len()) };
        TokenSet::from_examples(&examples[..kept], &corpus.labels, &tokenizer, recipe.data.max_tokens)
    };
    let (train, test) = (cut(&corpus.train, recipe.data.limit), cut(&corpus.test, recipe.data.test_limit));
    Ok(Corpus { train, test, tokenizer, held_out: recipe.data.validation })
}

fn file_corpus(context: &StageContext<'_>) -> Result<Corpus> {
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
    let cache = context.cache();
    let prepare = |table: &TableSource| TokenSet::prepare(table, &tokenizer, data.max_tokens, &cache);
    let train = prepare(&first(train, data.limit))?;
    let test = prepare(&first(test, data.test_limit))?;
    Ok(Corpus { train, test, tokenizer, held_out: data.validation })
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
