//! Which column is what: from the options, the file's name and the first row.

use super::options::{Column, Format, TableOptions};
use super::records::{Record, Records};
use crate::{Error, Result};
use serde_json::{Map, Value};
use std::path::Path;

/// How a table is written, with nothing left open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    pub format: Format,
    pub header: bool,
    pub label: Column,
    /// Those of a second sentence last.
    pub texts: Vec<Column>,
}

/// The key of the columns of a text, or of a pair's first sentence.
pub(super) const TEXT: &str = "data.text_columns";
/// The key of the columns of a pair's second sentence.
pub(super) const SECOND: &str = "data.second_columns";
/// The key of the column of labels.
const LABEL: &str = "data.label_column";

const LABEL_NAMES: [&str; 6] = ["label", "labels", "class", "category", "quality", "gold_label"];
const TEXT_NAMES: [&str; 17] = [
    "text",
    "sentence",
    "sentence1",
    "sentence2",
    "question",
    "question1",
    "question2",
    "premise",
    "hypothesis",
    "title",
    "description",
    "content",
    "review",
    "#1 string",
    "#2 string",
    "text_a",
    "text_b",
];

impl Layout {
    /// What the options leave open, from the file's name and first record.
    pub fn find(path: &Path, options: &TableOptions) -> Result<Layout> {
        let format = options.format.map_or_else(|| format_of(path), Ok)?;
        let first = Records::open(path, format)?.next()?;
        match first {
            None => Err(Error::file(path, "the table is empty", "check that the file is complete")),
            Some((_, Record::Object(object))) => Layout::of_object(path, options, &object),
            Some((_, Record::Cells(cells))) => Layout::of_cells(path, format, options, &cells),
        }
    }

    fn of_object(path: &Path, options: &TableOptions, object: &Map<String, Value>) -> Result<Layout> {
        let names: Vec<&str> = object.keys().map(String::as_str).collect();
        let label = options.label.clone().or_else(|| known(&names, &LABEL_NAMES).next());
        let texts = match &options.texts {
            Some(texts) => texts.clone(),
            None => known(&names, &TEXT_NAMES).filter(|text| label.as_ref() != Some(text)).collect(),
        };
        Layout::checked(path, (Format::JsonLines, false), label, texts, options, &names)
    }

    fn of_cells(path: &Path, format: Format, options: &TableOptions, cells: &[String]) -> Result<Layout> {
        let names: Vec<&str> = cells.iter().map(|cell| strip(cell)).collect();
        if names.len() < 2 {
            let separator = if format == Format::Csv { "commas" } else { "tabs" };
            let mend = format!("a table has a label and a text, separated by {separator}");
            return Err(Error::file(path, "the table has one column", mend));
        }
        let named = known(&names, &LABEL_NAMES).next();
        let header = options.header.unwrap_or(named.is_some());
        let label = options.label.clone().or(if header { named } else { Some(Column::Index(0)) });
        let texts = match (&options.texts, header, format) {
            (Some(texts), _, _) => texts.clone(),
            (None, true, _) => {
                let is_label = |text: &Column| match (&label, text) {
                    (Some(Column::Index(place)), Column::Name(name)) => {
                        names.get(*place) == Some(&name.as_str())
                    }
                    (label, text) => label.as_ref() == Some(text),
                };
                known(&names, &TEXT_NAMES).filter(|text| !is_label(text)).collect()
            }
            (None, false, Format::Tsv) if names.len() > 2 => Vec::new(),
            (None, false, _) => {
                (0..names.len()).map(Column::Index).filter(|text| Some(text) != label.as_ref()).collect()
            }
        };
        Layout::checked(path, (format, header), label, texts, options, &names)
    }

    fn checked(
        path: &Path,
        (format, header): (Format, bool),
        label: Option<Column>,
        mut texts: Vec<Column>,
        options: &TableOptions,
        names: &[&str],
    ) -> Result<Layout> {
        let unclear = |key: &str, what: &str| {
            let first: String = format!("{names:?}").chars().take(300).collect();
            Error::setting(
                key,
                format!("{} does not tell which column is {what}", path.display()),
                format!("name it; the first row is {first}"),
            )
        };
        let label = label.ok_or_else(|| unclear(LABEL, "the label"))?;
        let second = &options.second;
        set_apart(&mut texts, second, options.texts.is_some())?;
        if texts.is_empty() {
            return Err(unclear(TEXT, "the text"));
        }
        if format == Format::JsonLines
            && [&label]
                .into_iter()
                .chain(&texts)
                .chain(second)
                .any(|column| matches!(column, Column::Index(_)))
        {
            return Err(by_name(path, names));
        }
        let named = header || format == Format::JsonLines;
        let keys = texts.iter().map(|text| (TEXT, text)).chain(second.iter().map(|text| (SECOND, text)));
        for (key, column) in keys.chain([(LABEL, &label)]) {
            check_exists(path, (key, column), names.len(), named, &label)?;
        }
        texts.extend_from_slice(second);
        Ok(Layout { format, header, label, texts })
    }
}

/// Leaves the first sentence the columns that are not the second's.
fn set_apart(texts: &mut Vec<Column>, second: &[Column], are_given: bool) -> Result<()> {
    match texts.iter().find(|column| second.contains(column)) {
        Some(twice) if are_given => {
            let problem = format!("names {twice}, which data.text_columns gives to the first sentence");
            Err(Error::setting(SECOND, problem, "name the second sentence's columns alone"))
        }
        // What was found by its name, and is known better.
        _ => {
            texts.retain(|column| !second.contains(column));
            Ok(())
        }
    }
}

/// Whether a table of so many columns, which may have names, has the one that a key asks for.
fn check_exists(
    path: &Path,
    (key, column): (&str, &Column),
    columns: usize,
    named: bool,
    label: &Column,
) -> Result<()> {
    match column {
        Column::Index(index) if *index >= columns => {
            let problem = format!(
                "{} has {columns} columns, counted from 0, so that there is no column {index}",
                path.display()
            );
            let others = (0..columns).filter(|&other| *label != Column::Index(other));
            let mend = match key {
                LABEL => format!("as --set {LABEL}=0"),
                _ => format!("as --set '{key}={:?}'", others.collect::<Vec<_>>()),
            };
            Err(Error::setting(key, problem, format!("name the ones it has, {mend}")))
        }
        Column::Name(name) if !named => {
            let problem = format!("{} has no header that would name {name:?}", path.display());
            Err(Error::setting("data.header", problem, "give the column's number, or header = true"))
        }
        _ => Ok(()),
    }
}

/// The columns of a JSON object have no numbers: an error that gives their names as they can be typed.
fn by_name(path: &Path, names: &[&str]) -> Error {
    let guess = |among: &[&str]| -> Vec<&str> {
        names.iter().copied().filter(|name| among.contains(&name.to_lowercase().as_str())).collect()
    };
    let label = guess(&LABEL_NAMES).first().or(names.first()).copied().unwrap_or("label");
    let texts = match guess(&TEXT_NAMES) {
        texts if texts.is_empty() => names.iter().copied().filter(|name| *name != label).collect(),
        texts => texts,
    };
    let problem = format!("{} is JSON, whose members have names and no numbers", path.display());
    let mend =
        format!("name them, as --set 'data.label_column={label:?}' --set 'data.text_columns={texts:?}'");
    Error::setting(TEXT, problem, mend)
}

/// The columns whose names are among some.
fn known(names: &[&str], among: &[&str]) -> impl Iterator<Item = Column> {
    names
        .iter()
        .filter(|name| among.contains(&name.to_lowercase().as_str()))
        .map(|name| Column::Name((*name).to_owned()))
}

fn format_of(path: &Path) -> Result<Format> {
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or("").to_lowercase();
    match extension.as_str() {
        "csv" => Ok(Format::Csv),
        "tsv" | "txt" => Ok(Format::Tsv),
        "jsonl" | "json" | "ndjson" => Ok(Format::JsonLines),
        _ if !path.exists() => Err(Error::file(path, "there is no such file", "check the path")),
        _ => Err(Error::file(
            path,
            "the name does not tell how the table is written",
            "call it .csv, .tsv or .jsonl",
        )),
    }
}

/// The place of a column in a header.
pub(super) fn place(path: &Path, key: &str, column: &Column, names: &[String]) -> Result<Column> {
    let Column::Name(name) = column else { return Ok(column.clone()) };
    let mut found = (0..names.len()).filter(|&place| strip(&names[place]) == name);
    let first = found.next();
    if let (Some(first), Some(second)) = (first, found.next()) {
        let problem = format!("{} has two columns {name:?}", path.display());
        return Err(Error::setting(
            key,
            problem,
            format!("name the column by its number, {first} or {second}"),
        ));
    }
    first.map(Column::Index).ok_or_else(|| {
        let problem = format!("{} has no column {name:?}", path.display());
        Error::setting(key, problem, format!("its columns are {names:?}"))
    })
}

/// A name without the byte-order mark that some files begin with.
fn strip(name: &str) -> &str {
    name.strip_prefix('\u{feff}').unwrap_or(name).trim()
}
