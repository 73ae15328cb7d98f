//! limbeck inside another program: `limbeck-embed model.limbeck < texts`, a label a line.
//!
//! The file is mapped, not read. To make it part of the program, use
//! `Model::from_bytes(limbeck::include_model!("model.limbeck"))` for `Model::open`.

use limbeck::infer::{Model, Session};
use limbeck::{Batch, Error};
use std::io::{self, BufRead, Write};
use std::path::Path;
use std::process::ExitCode;

fn classify(path: &Path) -> Result<(), Error> {
    let model = Model::open(path)?;
    let mend = "export it from a directory that has one";
    let tokenizer = model.tokenizer().ok_or_else(|| Error::file(path, "it carries no tokenizer", mend))?;
    let mut session = Session::new(&model);
    for line in io::stdin().lock().lines() {
        let text = line.map_err(Error::io("read", Path::new("standard input")))?;
        let ids = tokenizer.encode(&text, model.config().positions);
        let logits = session.logits(&Batch::from_texts([ids.as_slice()]))?;
        let label = model.config().label(logits);
        writeln!(io::stdout(), "{label}").map_err(Error::io("write to", Path::new("standard output")))?;
    }
    Ok(())
}

fn main() -> ExitCode {
    let Some(path) = std::env::args_os().nth(1) else {
        eprintln!("usage: limbeck-embed model.limbeck < texts");
        return ExitCode::from(2);
    };
    classify(Path::new(&path)).map_or_else(
        |error| {
            eprintln!("{error}");
            ExitCode::FAILURE
        },
        |()| ExitCode::SUCCESS,
    )
}
