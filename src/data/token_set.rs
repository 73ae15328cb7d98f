//! The token ids of labelled texts, mapped from a cache or held in memory.

use super::Example;
use super::cache::Cache;
use crate::Text;
use crate::files;
use crate::tokenizer::Encode;

/// Texts as token ids, with their classes.
pub struct TokenSet {
    pub(super) storage: Storage,
    pub(super) labels: Vec<String>,
    pub(super) label_values: Vec<String>,
    pub(super) content_hash: String,
    pub(super) texts_hash: String,
}

pub(super) enum Storage {
    Mapped(Cache),
    /// Of sentences, no pairs.
    Owned {
        offsets: Vec<u64>,
        classes: Vec<u32>,
        ids: Vec<u32>,
    },
}

impl TokenSet {
    /// Encodes texts that are in memory, a sentence each.
    ///
    /// # Panics
    /// If a label is not below `labels.len()`.
    pub fn from_examples(
        examples: &[Example],
        labels: &[String],
        tokenizer: &dyn Encode,
        max_tokens: usize,
    ) -> TokenSet {
        let texts: Vec<&str> = examples.iter().map(|example| example.text.as_str()).collect();
        let (mut offsets, mut ids) = (vec![0], Vec::new());
        for text in tokenizer.encode_batch(&texts, max_tokens) {
            ids.extend(text);
            offsets.push(ids.len() as u64);
        }
        assert!(examples.iter().all(|example| example.label < labels.len()), "a label has no name");
        let classes: Vec<u32> = examples.iter().map(|example| example.label as u32).collect();
        let described = format!("{} {max_tokens} {labels:?} {examples:?}", tokenizer.content_hash());
        TokenSet {
            storage: Storage::Owned { offsets, classes, ids },
            labels: labels.to_vec(),
            label_values: labels.to_vec(),
            content_hash: files::sha256(described.as_bytes()),
            texts_hash: files::sha256(format!("{labels:?} {examples:?}").as_bytes()),
        }
    }

    /// Number of texts.
    pub fn len(&self) -> usize {
        self.classes().len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The ids of a text, `[CLS]` and `[SEP]` included.
    ///
    /// # Panics
    /// If `index` is not below [`TokenSet::len`].
    pub fn tokens(&self, index: usize) -> &[u32] {
        let offsets = self.offsets();
        &self.ids()[offsets[index] as usize..offsets[index + 1] as usize]
    }

    /// A text as batches take it: its ids, and how many of them are its first sentence's.
    ///
    /// # Panics
    /// If `index` is not below [`TokenSet::len`].
    pub fn text(&self, index: usize) -> Text<'_> {
        let ids = self.tokens(index);
        match &self.storage {
            Storage::Mapped(cache) => Text { ids, first: cache.first_lens()[index] as usize },
            Storage::Owned { .. } => ids.into(),
        }
    }

    /// The class of a text.
    ///
    /// # Panics
    /// If `index` is not below [`TokenSet::len`].
    pub fn label(&self, index: usize) -> usize {
        self.classes()[index] as usize
    }

    /// Names of the classes, in the order of the logits.
    pub fn labels(&self) -> &[String] {
        &self.labels
    }

    /// What stands for each class in the table's label column: its name, or a number.
    pub fn label_values(&self) -> &[String] {
        &self.label_values
    }

    /// SHA-256, in hexadecimal, of everything the ids and labels were made from: texts, tokenizer, settings.
    pub fn content_hash(&self) -> &str {
        &self.content_hash
    }

    /// SHA-256, in hexadecimal, of the texts and labels themselves, whoever reads them.
    pub fn texts_hash(&self) -> &str {
        &self.texts_hash
    }

    fn offsets(&self) -> &[u64] {
        match &self.storage {
            Storage::Mapped(cache) => cache.offsets(),
            Storage::Owned { offsets, .. } => offsets,
        }
    }

    fn classes(&self) -> &[u32] {
        match &self.storage {
            Storage::Mapped(cache) => cache.classes(),
            Storage::Owned { classes, .. } => classes,
        }
    }

    fn ids(&self) -> &[u32] {
        match &self.storage {
            Storage::Mapped(cache) => cache.ids(),
            Storage::Owned { ids, .. } => ids,
        }
    }
}
