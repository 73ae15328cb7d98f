//! `limbeck report`: the table of a finished run as Markdown, by itself or between the markers of a document.
//!
//! The document's markers are `<!-- table:NAME begin -->` and `<!-- table:NAME end -->`, NAME being the recipe's
//! name. Tables in documents are made so, and never typed.

use crate::cli::Report;
use crate::failure::Failure;
use crate::output::Output;
use limbeck::report::Table;
use limbeck::{Error, files};
use std::fs;
use std::path::Path;

pub fn report(typed: &Report) -> Result<(), Failure> {
    let table = Table::load(&typed.run.join("report.json"))?;
    match &typed.into {
        Some(document) => Ok(insert(document, &table.recipe, &table.markdown())?),
        None => {
            let mut output = Output::new();
            output.text(table.markdown())?;
            output.flush()
        }
    }
}

/// Replaces what is between the markers of `name`.
fn insert(document: &Path, name: &str, table: &str) -> limbeck::Result<()> {
    let text = fs::read_to_string(document).map_err(Error::io("read", document))?;
    let (begin, end) = (format!("<!-- table:{name} begin -->"), format!("<!-- table:{name} end -->"));
    let place = text.find(&begin).map(|at| at + begin.len()).zip(text.find(&end));
    let Some((from, to)) = place.filter(|(from, to)| from <= to) else {
        let mend = format!("put the lines {begin} and {end} where the table shall stand");
        return Err(Error::file(document, "it has no markers for this table", mend));
    };
    let new = format!("{}\n{table}{}", &text[..from], &text[to..]);
    files::replace_bytes(document, new.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_replaces_what_is_between_its_markers() {
        let folder = tempfile::tempdir().unwrap();
        let document = folder.path().join("README.md");
        fs::write(&document, "a\n<!-- table:x begin -->\nold\n<!-- table:x end -->\nb\n").unwrap();
        insert(&document, "x", "new\n").unwrap();
        let expected = "a\n<!-- table:x begin -->\nnew\n<!-- table:x end -->\nb\n";
        assert_eq!(fs::read_to_string(&document).unwrap(), expected);
        let error = insert(&document, "y", "new\n").unwrap_err().to_string();
        assert!(error.contains("table:y"), "{error}");
    }
}
