//! What is known of a table before it is read.

use super::labels::Labels;
use std::fmt;

/// How a table is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Comma-separated, cells may be quoted; backslashes mean nothing.
    Csv,
    /// Tab-separated, quotes mean nothing, as GLUE's files are.
    Tsv,
    /// One JSON object on each line.
    JsonLines,
}

/// A column of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Column {
    /// By its place, from 0.
    Index(usize),
    /// By its name in the header, or the name of a JSON member.
    Name(String),
}

impl fmt::Display for Column {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Column::Index(place) => write!(f, "column {place} (from 0)"),
            Column::Name(name) => write!(f, "{name:?}"),
        }
    }
}

/// Where class names come from.
#[derive(Clone, Debug, Default)]
pub enum Classes {
    /// From the values in the label column.
    #[default]
    Found,
    /// These names; the column has them, or numbers from 0 or 1.
    Named(Vec<String>),
    /// As in another table of the same task.
    Known(Labels),
}

/// What is known of a table; everything left open is found out from its name and its first row.
#[derive(Clone, Debug, Default)]
pub struct TableOptions {
    /// By default from the file's extension: `.csv`, `.tsv` and `.txt`, `.jsonl` and `.json`.
    pub format: Option<Format>,
    /// Whether the first row holds names. By default whether one of its cells is `label` or the like.
    pub header: Option<bool>,
    /// The column of the label. By default the one with such a name, or the first one.
    pub label: Option<Column>,
    /// The columns of the text, joined by spaces. By default those with such names; without a header all but
    /// the label in a csv file, and the second of two in a tsv file.
    pub texts: Option<Vec<Column>>,
    /// The columns of a second sentence, joined by spaces; `texts` are then the first one's. None: a text is one
    /// sentence.
    pub second: Vec<Column>,
    /// The classes.
    pub classes: Classes,
    /// The number of the first class, where the label column has numbers and [`Classes::Named`] names. By default
    /// found out: 0 or 1.
    pub first_label: Option<usize>,
}
