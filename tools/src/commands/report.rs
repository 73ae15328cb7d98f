//! `limbeck report`: the table of a finished run as Markdown, by itself or between the markers of a document.
//!
//! The document's markers are `<!-- table:NAME begin -->` and `<!-- table:NAME end -->`, NAME being the recipe's
//! name. Tables in documents are made so, and never typed.

use super::stages::REPORT;
use crate::cli::Report;
use crate::failure::Failure;
use crate::output::Output;
use limbeck::report::Table;
use limbeck::{Error, files};
use std::fs;
use std::path::{Path, PathBuf};

pub fn report(typed: &Report) -> Result<(), Failure> {
    let table = Table::load(&report_of(&typed.run)?)?;
    match &typed.into {
        Some(document) => Ok(Document::open(document, &table.recipe)?.put(&table.markdown())?),
        None => {
            let mut output = Output::new();
            output.text(table.markdown())?;
            output.flush()
        }
    }
}

/// The report in a run's directory; without one, an error that says what to give instead.
fn report_of(run: &Path) -> limbeck::Result<PathBuf> {
    let holds = |folder: &Path| folder.join(REPORT).is_file();
    let path = run.join(REPORT);
    if !run.exists() || path.exists() {
        return Ok(path);
    }
    if run.join("sweep.toml").is_file() {
        let mend = format!("`limbeck sweep report {}` has the report of all its trials", run.display());
        return Err(Error::file(run, "this is a sweep, and no run", mend));
    }
    if let Some(parent) = run.parent().filter(|parent| holds(parent)) {
        let mend = format!("give {}", parent.display());
        return Err(Error::file(run, "this is a part of a run: the report is of the whole", mend));
    }
    if !run.is_dir() {
        return Err(Error::file(run, "this is a file", "give the directory of a run"));
    }
    let mut runs: Vec<PathBuf> =
        fs::read_dir(run).map_err(Error::io("read", run))?.flatten().map(|entry| entry.path()).collect();
    runs.retain(|path| holds(path));
    runs.sort();
    match runs.as_slice() {
        [] => {
            let mend = "give the directory of a finished run (`limbeck run --out DIR`); an unfinished one is finished \
                        by `limbeck run` with its recipe and --resume";
            Err(Error::file(run, "there is no report.json in it", mend))
        }
        [first, rest @ ..] => {
            let more = if rest.is_empty() { "" } else { ", or another run in it" };
            let mend = format!("give {}{more}", first.display());
            Err(Error::file(run, "this directory holds runs and is none", mend))
        }
    }
}

/// A document, and where in it a table stands.
pub(super) struct Document {
    path: PathBuf,
    name: String,
}

impl Document {
    /// Looks for the markers of the table `name`.
    ///
    /// # Errors
    /// The document cannot be read, or has no such markers.
    pub fn open(path: &Path, name: &str) -> limbeck::Result<Document> {
        let document = Document { path: path.to_owned(), name: name.to_owned() };
        document.parts()?;
        Ok(document)
    }

    /// What stands before the table and behind it.
    fn parts(&self) -> limbeck::Result<[String; 2]> {
        let text = files::read_to_string(&self.path)?;
        let [begin, end] = ["begin", "end"].map(|end| format!("<!-- table:{} {end} -->", self.name));
        let place = text.find(&begin).map(|at| at + begin.len()).zip(text.find(&end));
        let Some((from, to)) = place.filter(|(from, to)| from <= to) else {
            let mend = format!("put the lines {begin} and {end} where the table shall stand");
            return Err(Error::file(&self.path, "it has no markers for this table", mend));
        };
        Ok([&text[..from], &text[to..]].map(str::to_owned))
    }

    /// Replaces what is between the markers.
    ///
    /// # Errors
    /// As [`Document::open`]; a full disk.
    pub fn put(&self, table: &str) -> limbeck::Result<()> {
        let [before, behind] = self.parts()?;
        files::replace_bytes(&self.path, format!("{before}\n{table}{behind}").as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_without_a_report_is_told_from_one_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let refusal = |name: &str| report_of(&at(name)).unwrap_err().to_string();
        fs::create_dir_all(at("runs/demo/baseline")).unwrap();
        assert!(
            refusal("runs/demo")
                .contains("there is no report.json in it; give the directory of a finished run")
        );
        fs::write(at("runs/demo/report.json"), "{}").unwrap();
        assert_eq!(report_of(&at("runs/demo")).unwrap(), at("runs/demo/report.json"));
        let run = format!("give {}", at("runs/demo").display());
        assert!(refusal("runs").ends_with(&run) && refusal("runs/demo/baseline").ends_with(&run));
        assert!(refusal("runs/demo/report.json").ends_with(&run));
        fs::write(at("notes"), "").unwrap();
        assert!(refusal("notes").contains("this is a file; give the directory"));
    }

    #[test]
    fn a_table_replaces_what_is_between_its_markers() {
        let folder = tempfile::tempdir().unwrap();
        let document = folder.path().join("README.md");
        fs::write(&document, "a\n<!-- table:x begin -->\nold\n<!-- table:x end -->\nb\n").unwrap();
        Document::open(&document, "x").unwrap().put("new\n").unwrap();
        let expected = "a\n<!-- table:x begin -->\nnew\n<!-- table:x end -->\nb\n";
        assert_eq!(fs::read_to_string(&document).unwrap(), expected);
        let error = Document::open(&document, "y").map(drop).unwrap_err().to_string();
        assert!(error.contains("table:y"), "{error}");
    }
}
