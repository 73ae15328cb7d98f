//! Tables of labelled texts: which column is what, and reading them row by row.

use super::labels::{self, Labels, MAX_CLASSES};
use super::layout::{self, Layout};
use super::options::{Classes, Column, TableOptions};
use super::records::{Record, Records};
use crate::{Error, Result};
use serde_json::Value;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// A row of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Index of its class.
    pub label: usize,
    /// Its text columns, joined by spaces.
    pub text: String,
    /// The columns of its second sentence, joined by spaces.
    pub second: Option<String>,
    /// The line it begins on, from 1.
    pub line: usize,
}

/// A table of which every row has been checked.
#[derive(Clone, Debug)]
pub struct TableSource {
    path: PathBuf,
    layout: Layout,
    /// How many of the layout's last text columns are a second sentence's.
    seconds: usize,
    labels: Labels,
    content_hash: String,
    rows: Range<usize>,
}

impl TableSource {
    /// Reads the whole table once: checks every row, counts them, hashes the file and finds the classes.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::File`] with the line for a row that cannot be read (invalid UTF-8, another
    /// number of columns, an unknown label), and for a table without rows; [`Error::Setting`] if columns
    /// must be named.
    pub fn open(path: &Path, options: &TableOptions) -> Result<TableSource> {
        let (layout, seconds) = (Layout::find(path, options)?, options.second.len());
        // Each value, and the first line that has it.
        let mut values = BTreeMap::new();
        let mut count = 0;
        let mut rows = Cells::open(path, &layout, seconds)?;
        while let Some((line, label, _)) = rows.next()? {
            count += 1;
            if let Classes::Known(labels) = &options.classes {
                index_of(labels, &label, &rows.records, line)?;
            } else if !values.contains_key(&label) {
                if label.is_empty() {
                    let mend = "mend the row, or check which column holds the label";
                    return Err(rows.records.error(line, "the label is empty", mend));
                }
                if values.len() == MAX_CLASSES {
                    let problem = format!("there are over {MAX_CLASSES} different labels, as {label:?}");
                    return Err(rows.records.error(line, problem, "check which column holds the label"));
                }
                values.insert(label, line);
            }
        }
        let content_hash = rows.records.finish()?;
        if count == 0 {
            return Err(Error::file(path, "the table has no rows", "check that the file is complete"));
        }
        let labels = match &options.classes {
            Classes::Known(labels) => labels.clone(),
            Classes::Named(names) => labels_of(path, &values, Some(names), options.first_label)?,
            Classes::Found if options.first_label.is_some() => {
                let problem = "counts classes that have names, and data.labels names none";
                return Err(Error::setting("data.first_label", problem, "leave it out, or name the classes"));
            }
            Classes::Found => labels_of(path, &values, None, None)?,
        };
        Ok(TableSource { path: path.to_owned(), layout, seconds, labels, content_hash, rows: 0..count })
    }

    /// Whether each text is two sentences.
    pub fn has_pairs(&self) -> bool {
        self.seconds > 0
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its classes.
    pub fn labels(&self) -> &Labels {
        &self.labels
    }

    /// The rows that are taken, of all that the file has.
    pub fn rows(&self) -> Range<usize> {
        self.rows.clone()
    }

    /// SHA-256 of the file's content, in hexadecimal.
    pub fn content_hash(&self) -> &str {
        &self.content_hash
    }

    /// The first `count` rows of those that are taken.
    #[must_use]
    pub fn first(&self, count: usize) -> TableSource {
        let end = self.rows.start + count.min(self.rows.len());
        TableSource { rows: self.rows.start..end, ..self.clone() }
    }

    /// Reads the rows that are taken.
    ///
    /// # Errors
    /// [`Error::Io`], here and from the iterator; [`Error::File`] from the iterator if a row is not what it was when
    /// the table was checked. [`RowReader::finish`] notices every change.
    pub fn read(&self) -> Result<RowReader<'_>> {
        Ok(RowReader { source: self, cells: Cells::open(&self.path, &self.layout, self.seconds)?, next: 0 })
    }

    /// Everything about this table that decides which texts and labels come out.
    pub(super) fn description(&self) -> String {
        let pairs = if self.seconds > 0 { format!(" second {}", self.seconds) } else { String::new() };
        format!(
            "{} {:?} {} {:?}{pairs}",
            self.content_hash,
            self.layout,
            self.labels.description(),
            self.rows
        )
    }
}

/// The classes that a table's values mean. `values` holds the first line of each; an error names that of the first
/// one that can be no class.
fn labels_of(
    path: &Path,
    values: &BTreeMap<String, usize>,
    names: Option<&[String]>,
    first: Option<usize>,
) -> Result<Labels> {
    let found = values.keys().cloned().collect();
    Labels::new(&found, names, first).map_err(|problem| {
        let names = names.unwrap_or_default();
        if first.is_some() {
            return Error::file(path, problem, "mend the table, or data.first_label");
        }
        if labels::from_0_or_1(&found, names.len()) {
            let mend = "say which with --set data.first_label=0 or --set data.first_label=1";
            return Error::file(path, problem, mend);
        }
        let mixed = values.keys().any(|value| names.contains(value));
        let number = |value: &str| !mixed && value.parse().is_ok_and(|number: usize| number <= names.len());
        let strays = values.iter().filter(|(value, _)| !names.contains(value) && !number(value));
        let stray = strays.min_by_key(|(_, line)| **line);
        Error::File {
            path: path.to_owned(),
            line: stray.map(|(_, line)| *line),
            problem: match stray {
                Some((value, _)) => format!("the label is {value:?}; {problem}"),
                None => problem,
            },
            mend: "name the classes as the label column has them, in the order of their numbers".to_owned(),
        }
    })
}

/// The rows of a table, as a stream.
pub struct RowReader<'a> {
    source: &'a TableSource,
    cells: Cells,
    next: usize,
}

impl Iterator for RowReader<'_> {
    type Item = Result<Row>;

    fn next(&mut self) -> Option<Result<Row>> {
        while self.next < self.source.rows.end {
            let taken = self.source.rows.contains(&self.next);
            self.next += 1;
            match self.cells.next() {
                Ok(Some(_)) if !taken => {}
                Ok(Some((line, label, [text, second]))) => {
                    let label = index_of(&self.source.labels, &label, &self.cells.records, line);
                    let second = self.source.has_pairs().then_some(second);
                    return Some(label.map(|label| Row { label, text, second, line }));
                }
                Ok(None) => {
                    let problem = "the file has become shorter since it was checked";
                    self.next = self.source.rows.end;
                    return Some(Err(Error::file(
                        &self.source.path,
                        problem,
                        "leave it alone while it is read",
                    )));
                }
                Err(error) => return Some(Err(error)),
            }
        }
        None
    }
}

impl RowReader<'_> {
    /// Reads the rest of the file and compares its hash with that of when it was checked: only after this do the
    /// rows belong to [`TableSource::content_hash`].
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::File`] if the file has changed.
    pub fn finish(self) -> Result<()> {
        if self.cells.records.digest()? == self.source.content_hash {
            return Ok(());
        }
        let problem = "the file has changed since it was checked";
        Err(Error::file(&self.source.path, problem, "leave it alone while it is read, and run again"))
    }
}

fn index_of(labels: &Labels, value: &str, records: &Records, line: usize) -> Result<usize> {
    labels.index_of(value).ok_or_else(|| {
        let problem = format!("label {value:?} is none of {:?}", labels.values());
        records.error(line, problem, "mend the row, or check which column holds the label")
    })
}

/// Label and text of each record, by a layout.
struct Cells {
    records: Records,
    label: Column,
    texts: Vec<Column>,
    /// Of which the last so many are a second sentence's.
    seconds: usize,
}

impl Cells {
    /// Opens the file, passes over a header and turns names into places.
    fn open(path: &Path, layout: &Layout, seconds: usize) -> Result<Cells> {
        let mut records = Records::open(path, layout.format)?;
        let (mut label, mut texts) = (layout.label.clone(), layout.texts.clone());
        if layout.header
            && let Some((_, Record::Cells(names))) = records.next()?
        {
            label = layout::place(path, "data.label_column", &label, &names)?;
            let firsts = texts.len() - seconds;
            for (place, text) in texts.iter_mut().enumerate() {
                let key = if place < firsts { layout::TEXT } else { layout::SECOND };
                *text = layout::place(path, key, text, &names)?;
            }
        }
        if let Some(place) = texts.iter().position(|text| *text == label) {
            let key = if place < texts.len() - seconds { layout::TEXT } else { layout::SECOND };
            let problem = format!("{label} of {} holds the label", path.display());
            return Err(Error::setting(key, problem, "name the columns of the text alone"));
        }
        Ok(Cells { records, label, texts, seconds })
    }

    /// The next row: its line, its label's value, its sentences, the second of which may be empty.
    fn next(&mut self) -> Result<Option<(usize, String, [String; 2])>> {
        let Some((line, record)) = self.records.next()? else { return Ok(None) };
        let label = self.cell(line, &record, &self.label)?.trim().to_owned();
        let joined = |columns: &[Column]| -> Result<String> {
            let cells: Vec<String> =
                columns.iter().map(|column| self.cell(line, &record, column)).collect::<Result<_>>()?;
            Ok(cells.join(" "))
        };
        let (first, second) = self.texts.split_at(self.texts.len() - self.seconds);
        Ok(Some((line, label, [joined(first)?, joined(second)?])))
    }

    fn cell(&self, line: usize, record: &Record, column: &Column) -> Result<String> {
        let found = match (record, column) {
            (Record::Cells(cells), Column::Index(index)) => cells.get(*index).cloned(),
            (Record::Object(object), Column::Name(name)) => match object.get(name) {
                Some(Value::String(text)) => Some(text.clone()),
                Some(value @ (Value::Number(_) | Value::Bool(_))) => Some(value.to_string()),
                _ => None,
            },
            _ => None,
        };
        found.ok_or_else(|| {
            let key = match self.texts.iter().rev().position(|text| text == column) {
                _ if *column == self.label => "data.label_column",
                Some(from_last) if from_last < self.seconds => layout::SECOND,
                _ => layout::TEXT,
            };
            let (problem, mend) = match (column, record) {
                (Column::Name(name), Record::Object(object)) => {
                    let members: Vec<&String> = object.keys().take(12).collect();
                    let problem = format!("there is no text or number {name:?}, the line has {members:?}");
                    (problem, format!("mend the line, or name another with --set {key}=…"))
                }
                (column, _) => {
                    let problem = format!("there is no {column}");
                    (problem, format!("columns are counted from 0; name another with --set {key}=…"))
                }
            };
            self.records.error(line, problem, mend)
        })
    }
}
