//! Tables of texts: empty, with too few columns, with labels or bytes that mean nothing.

use crate::fixture::{Folder, TABLE, limbeck, succeeds};
use std::fs;

/// Training on such a table, and evaluating on it, must be refused with these words.
#[track_caller]
fn refused(folder: &Folder, content: &[u8], words: &[&str]) {
    fs::write(folder.path("data/train.csv"), content).unwrap();
    let words = |file| [&[file][..], words].concat();
    folder.refused(&mut folder.run("model", "data", "out", &[]), &words("data/train.csv"));
    fs::write(folder.path("data/train.csv"), TABLE).unwrap();
    fs::write(folder.path("broken.csv"), content).unwrap();
    let cache = tempfile::tempdir().unwrap();
    let mut eval =
        limbeck(&["eval", "--quiet", "--threads", "1", "--set", "data.text_columns=[1]", "--data"]);
    eval.env("LIMBECK_CACHE", cache.path()).arg(folder.path("broken.csv")).arg(folder.path("model"));
    folder.refused(&mut eval, &words("broken.csv"));
    fs::write(folder.path("broken.csv"), TABLE).unwrap();
    succeeds(&mut eval);
}

#[test]
fn tables_that_cannot_be_learnt_from() {
    let folder = Folder::new();
    refused(&folder, b"", &["empty", "; "]);
    refused(&folder, b"\n\n", &["; "]);
    refused(&folder, b"1,a b\n2\n1,c\n", &["line 2: ", "; "]);
    refused(&folder, b"a text\nanother\n", &["one column", "; "]);
    refused(&folder, b"1,a b\n2,c\n3,d\n", &["line 3", "\"3\"", "; "]);
    refused(&folder, b"1,a b\nseven,c\n", &["line 2", "seven", "; "]);
    refused(&folder, b"1,a b\n2,caf\xe9\n", &["line 2: ", "UTF-8", "; "]);
    refused(&folder, b"1,a b\n2,\"never closed\n1,d\n", &["line 2: ", "; "]);
}

#[test]
fn tables_that_are_not_there() {
    let folder = Folder::new();
    folder.refused(&mut folder.run("model", "nowhere", "out", &[]), &["nowhere"]);
    fs::remove_file(folder.path("data/test.csv")).unwrap();
    folder.refused(&mut folder.run("model", "data", "out", &[]), &["data/test.csv"]);
    let mut holds_out = folder.run("model", "data", "out", &["--set", "data.validation=6"]);
    fs::write(folder.path("data/test.csv"), TABLE).unwrap();
    folder.refused(&mut holds_out, &["data.validation: 6 of 6 training texts are held out; "]);
    let mut long = folder.run("model", "data", "out", &["--set", "data.max_tokens=17"]);
    folder.refused(&mut long, &["data.max_tokens: 17 tokens, and the model has 16 positions; lower it"]);
}

#[test]
fn a_mistyped_path_does_not_occupy_the_run_s_directory() {
    let folder = Folder::new();
    crate::fixture::refused(&mut folder.run("nowhere", "data", "out", &[]), &["nowhere"]);
    crate::fixture::refused(&mut folder.run("model", "nowhere", "out", &[]), &["nowhere"]);
    succeeds(&mut folder.run("model", "data", "out", &[]));
}

#[test]
fn texts_that_nothing_can_be_learnt_from_are_doubted() {
    let folder = Folder::new();
    let doubts = |table: &str, labels: &str, out: &str| {
        fs::write(folder.path("data/train.csv"), table).unwrap();
        fs::write(folder.path("data/test.csv"), table).unwrap();
        let output = succeeds(&mut folder.stage("train", "model", "data", out, &["--set", labels]));
        String::from_utf8(output.stderr).unwrap()
    };
    let two = "data.labels=[\"bad\", \"good\"]";
    assert!(!doubts(TABLE, two, "none").contains("data: "));
    let one = doubts("bad,a b c\nbad,d e\n", two, "one");
    assert!(
        one.contains("data: all training texts are of one class: there is nothing to tell apart"),
        "{one}"
    );
    let three = doubts("bad,a\ngood,b\n", "data.labels=[\"bad\", \"good\", \"odd\"]", "three");
    assert!(three.contains("data: no training text is of the classes [\"odd\"]"), "{three}");
    let foreign = doubts("bad,\u{3b1} \u{3b2} a\ngood,\u{3b3}\n", two, "foreign");
    assert!(foreign.contains("data: 3 of 4 tokens of the training texts are [UNK]: "), "{foreign}");
}
