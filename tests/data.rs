//! Tables in their original formats, and what is wrong with broken ones.
#![cfg(feature = "train")]

mod common;

use common::shared;
use limbeck::Result;
use limbeck::data::{Classes, Column, Example, Format, TableOptions, TableSource, read_classes};
use proptest::prelude::*;
use std::fs;
use std::path::Path;

/// Opens a table of the given content.
fn table(name: &str, content: impl AsRef<[u8]>, options: &TableOptions) -> Result<Vec<Example>> {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join(name);
    fs::write(&path, content).unwrap();
    let source = TableSource::open(&path, options)?;
    examples(&source)
}

fn examples(source: &TableSource) -> Result<Vec<Example>> {
    source.read()?.map(|row| row.map(|row| Example { label: row.label, text: row.text })).collect()
}

fn found(name: &str, content: impl AsRef<[u8]>) -> Result<Vec<Example>> {
    table(name, content, &TableOptions::default())
}

fn refusal(name: &str, content: impl AsRef<[u8]>) -> String {
    found(name, content).expect_err("the table is broken").to_string()
}

fn pairs(rows: &[(usize, &str)]) -> Vec<Example> {
    rows.iter().map(|&(label, text)| Example { label, text: text.to_owned() }).collect()
}

fn histogram(source: &TableSource) -> Vec<usize> {
    let mut counts = vec![0; source.labels().names().len()];
    examples(source).unwrap().iter().for_each(|example| counts[example.label] += 1);
    counts
}

#[test]
fn ag_news() {
    let Some(folder) = shared("data/ag_news") else { return };
    let classes = Classes::Named(read_classes(&folder.join("classes.txt")).unwrap());
    let options = TableOptions { classes, ..TableOptions::default() };
    let train = TableSource::open(&folder.join("train.csv"), &options).unwrap();
    assert_eq!(train.rows(), 0..50_030);
    assert_eq!(histogram(&train), [12_465, 12_465, 12_582, 12_518], "the counts of data/README.md");
    assert_eq!(train.labels().names(), ["World", "Sports", "Business", "Sci/Tech"]);
    let known = TableOptions { classes: Classes::Known(train.labels().clone()), ..TableOptions::default() };
    let test = TableSource::open(&folder.join("test.csv"), &known).unwrap();
    assert_eq!(histogram(&test), [1_900; 4]);

    assert_eq!(train.first(8_000).rows(), 0..8_000);
    let all = examples(&train).unwrap();
    assert_eq!(examples(&train.first(3)).unwrap(), all[..3]);
    assert!(all[0].text.starts_with("Blast hits Thai fireworks factory An explosion at a fireworks factory"));
    assert!(all.iter().any(|example| example.text.contains('\\')), "backslashes belong to the texts");
}

#[test]
fn glue() {
    let Some(folder) = shared("data") else { return };
    let open = |path: &str, options: TableOptions| TableSource::open(&folder.join(path), &options).unwrap();
    let columns = |label, text| TableOptions {
        label: Some(Column::Index(label)),
        texts: Some(vec![Column::Index(text)]),
        ..TableOptions::default()
    };
    for (path, rows) in [("sst2/train.tsv", 67_349), ("sst2/dev.tsv", 872)] {
        let sst2 = open(path, TableOptions::default());
        assert_eq!((sst2.rows().len(), sst2.labels().names().len()), (rows, 2), "{path}");
    }
    for (path, rows) in [("glue/CoLA/train.tsv", 8_551), ("glue/CoLA/dev.tsv", 1_043)] {
        assert_eq!(open(path, columns(1, 3)).rows().len(), rows, "{path}");
    }
    for (path, rows) in [
        ("glue/MRPC/train.tsv", 3_668),
        ("glue/MRPC/dev.tsv", 408),
        ("glue/MRPC/msr_paraphrase_test.txt", 1_725),
    ] {
        let mrpc = open(path, TableOptions::default());
        assert_eq!(
            (mrpc.rows().len(), mrpc.labels().names()),
            (rows, &["0".to_owned(), "1".to_owned()][..]),
            "{path}"
        );
    }
    let rte = open("glue/RTE/train.tsv", TableOptions::default());
    assert_eq!((rte.rows().len(), rte.labels().names().len()), (2_490, 2));
    assert_eq!(rte.labels().names(), ["entailment", "not_entailment"]);
    assert_eq!(open("glue/WNLI/train.tsv", TableOptions::default()).rows().len(), 635);
    let imdb = open("imdb/train.tsv", columns(0, 2));
    assert_eq!(histogram(&imdb), [12_500, 12_500]);
}

#[test]
fn formats() {
    let expected = pairs(&[(1, "say \"hi\", twice\nor more \\n it"), (0, "plain")]);
    assert_eq!(
        found("a.csv", "2,\"say \"\"hi\"\", twice\nor more \\n it\"\r\n1,plain\r\n").unwrap(),
        expected
    );
    assert_eq!(
        found(
            "a.jsonl",
            r#"{"text": "say \"hi\", twice\nor more \\n it", "label": "b"}
{"label": "a", "text": "plain", "other": null}"#
        )
        .unwrap(),
        expected
    );
    let tsv = "\u{feff}sentence\tlabel\r\n\"unbalanced\t1\r\n\t0\r\n";
    assert_eq!(found("a.tsv", tsv).unwrap(), pairs(&[(1, "\"unbalanced"), (0, "")]), "empty texts are texts");
    assert_eq!(
        found("a.csv", "\u{feff}label,title,description\nx,\"a, b\",c\n").unwrap(),
        pairs(&[(0, "a, b c")])
    );
    // A quote within a cell means nothing, in the last row as in any other.
    let inches = [(0, "a 24\" monitor"), (1, "a 27\" monitor")];
    assert_eq!(found("a.csv", "1,a 24\" monitor\n2,a 27\" monitor\n").unwrap(), pairs(&inches));
    assert_eq!(
        found("a.jsonl", "{\"label\": 1, \"text\": \"\"}\n\n{\"label\": 0, \"text\": \"b\"}\n").unwrap(),
        pairs(&[(1, ""), (0, "b")])
    );
    let by_name = TableOptions {
        format: Some(Format::Csv),
        label: Some(Column::Name("stars".to_owned())),
        texts: Some(vec![Column::Name("b".to_owned()), Column::Name("a".to_owned())]),
        header: Some(true),
        ..TableOptions::default()
    };
    assert_eq!(
        table("a.data", "a,b,stars\n1,2,9\n3,4,8\n", &by_name).unwrap(),
        pairs(&[(1, "2 1"), (0, "4 3")])
    );
}

#[test]
fn broken_tables_are_refused_by_line() {
    for name in ["t.csv", "t.tsv", "t.jsonl"] {
        assert!(refusal(name, "").contains("empty"), "{name}");
        assert!(refusal(name, "\n\n").contains("empty"), "{name}");
    }
    assert!(refusal("t.csv", "label,text\n").contains("no rows"));
    assert!(refusal("t.csv", "1\n2\n").contains("one column"));
    assert!(refusal("t.tsv", "1,a\n2,b\n").contains("tabs"));
    assert!(refusal("t.csv", "1,a\n2,b,c\n").contains("line 2: 3 columns, the first row has 2"));
    assert!(refusal("t.csv", "1,a\n2,\"b\n3,c\n").contains("line 2: a quote"));
    assert!(refusal("t.csv", "1,a\n2,\"b\n3,27\"\" c").contains("line 2: a quote"));
    assert!(refusal("t.tsv", "1\ta\n2\n").contains("line 2: 1 columns"));
    assert!(refusal("t.csv", b"1,a\n2,\xff\n").contains("line 2: the row is not UTF-8"));
    assert!(refusal("t.tsv", b"1\ta\n2\t\xc3\n").contains("line 2: the line is not UTF-8"));
    assert!(refusal("t.jsonl", "{\"text\":\"a\",\"label\":1}\n[]\n").contains("line 2: not a JSON object"));
    assert!(
        refusal("t.jsonl", "{\"text\":\"a\",\"label\":1}\n{\"text\":\"a\"}\n")
            .contains("line 2: there is no text or number \"label\", the line has [\"text\"]; mend the line, or name another with --set data.label_column")
    );
    assert!(refusal("t.jsonl", "{\"text\":[],\"label\":1}\n").contains("line 1"));
    assert!(refusal("t.jsonl", "{\"words\":\"a\",\"label\":1}\n").contains("data.text_columns"));
    assert!(refusal("t.tsv", "a\tb\tc\n").contains("data.text_columns"));
    assert!(refusal("t.parquet", "PAR1").contains(".csv, .tsv or .jsonl"));
    let many: String = (0..1_001).map(|row| format!("text {row},a\n")).collect();
    assert!(refusal("t.csv", many).contains("line 1001: there are over 1000 different labels"));
    assert!(
        TableSource::open(Path::new("absent.csv"), &TableOptions::default())
            .unwrap_err()
            .to_string()
            .contains("absent.csv")
    );
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("t.csv");
    fs::create_dir(&folder).unwrap();
    assert!(
        TableSource::open(&folder, &TableOptions::default()).unwrap_err().to_string().contains("directory")
    );

    let named = |names: &[&str]| TableOptions {
        classes: Classes::Named(names.iter().map(|&name| name.to_owned()).collect()),
        ..TableOptions::default()
    };
    let error = table("t.csv", "1,a\n5,b\n", &named(&["x", "y", "z", "w"])).unwrap_err().to_string();
    assert!(error.contains("\"5\"") && error.contains("\"w\""), "{error}");
    let error = table("t.csv", "1,a\n2,b\n0,c\n", &named(&["1", "2"])).unwrap_err().to_string();
    assert!(error.contains("line 3: the label is \"0\""), "{error}");
    let path = root.path().join("known.csv");
    fs::write(&path, "1,a\n2,b\n").unwrap();
    let labels = TableSource::open(&path, &TableOptions::default()).unwrap().labels().clone();
    let known = TableOptions { classes: Classes::Known(labels), ..TableOptions::default() };
    let error = table("t.csv", "1,a\n2,b\n3,c\n", &known).unwrap_err().to_string();
    assert!(error.contains("line 3: label \"3\" is none of [\"1\", \"2\"]"), "{error}");
    let numbers = TableOptions {
        label: Some(Column::Index(0)),
        texts: Some(vec![Column::Index(1)]),
        ..TableOptions::default()
    };
    for (line, expected) in [
        (
            r#"{"id":3,"text":"a","label":1}"#,
            r#"data.label_column="label"' --set 'data.text_columns=["text"]'"#,
        ),
        (r#"{"y":0,"words":"a"}"#, r#"data.label_column="y"' --set 'data.text_columns=["words"]'"#),
    ] {
        let error = table("t.jsonl", line, &numbers).unwrap_err().to_string();
        assert!(error.contains("t.jsonl is JSON") && error.contains(expected), "{error}");
    }
    for (options, expected) in [
        (
            TableOptions { label: Some(Column::Index(2)), ..TableOptions::default() },
            "there is no column 2; name the ones it has, as --set data.label_column=0",
        ),
        (
            TableOptions { label: Some(Column::Name("y".to_owned())), ..TableOptions::default() },
            "data.header",
        ),
        (
            TableOptions {
                label: Some(Column::Name("y".to_owned())),
                header: Some(true),
                texts: Some(vec![Column::Index(0)]),
                ..TableOptions::default()
            },
            "has no column \"y\"",
        ),
    ] {
        let error = table("t.csv", "1,a\n2,b\n", &options).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

/// The first would be taken without a word.
#[test]
fn two_columns_of_one_name_are_refused() {
    let name = |name: &str| Column::Name(name.to_owned());
    let texts = Some(vec![name("text")]);
    let options =
        TableOptions { header: Some(true), label: Some(name("label")), texts, ..TableOptions::default() };
    let error = table("t.csv", "label,text,text\n1,a,b\n", &options).unwrap_err().to_string();
    assert!(error.contains("has two columns \"text\"; name the column by its number, 1 or 2"), "{error}");
}

/// A label that stands in the text would be learnt, and nothing else.
#[test]
fn the_label_is_no_text() {
    let name = |name: &str| Column::Name(name.to_owned());
    let rows = "id,text,label\n1,a,x\n2,b,y\n";
    let header = |label, texts| TableOptions { header: Some(true), label, texts, ..TableOptions::default() };
    let by_place = Some(vec![Column::Index(1), Column::Index(2)]);
    for (file, rows, options, key) in [
        ("t.csv", rows, header(Some(name("label")), by_place.clone()), "data.text_columns"),
        ("t.csv", rows, header(Some(Column::Index(2)), Some(vec![name("label")])), "data.text_columns"),
        (
            "t.csv",
            "1,a\n2,b\n",
            TableOptions { texts: Some(vec![Column::Index(0)]), ..TableOptions::default() },
            "data.text_columns",
        ),
        (
            "t.csv",
            rows,
            TableOptions {
                second: vec![Column::Index(2)],
                ..header(Some(name("label")), Some(vec![name("text")]))
            },
            "data.second_columns",
        ),
        (
            "t.jsonl",
            "{\"text\": \"a\", \"label\": \"x\"}\n",
            TableOptions { texts: Some(vec![name("text"), name("label")]), ..TableOptions::default() },
            "data.text_columns",
        ),
    ] {
        let error = table(file, rows, &options).unwrap_err().to_string();
        assert!(error.starts_with(key) && error.contains("holds the label"), "{error}");
    }
    // What is found by its name leaves the label out.
    let titled = "title,text\nx,a\ny,b\n";
    for label in [name("title"), Column::Index(0)] {
        let found = table("t.csv", titled, &header(Some(label), None)).unwrap();
        assert!(found.iter().map(|example| (example.label, example.text.as_str())).eq([(0, "a"), (1, "b")]));
    }
    let titled = "{\"title\":\"x\",\"text\":\"a\"}\n{\"title\":\"y\",\"text\":\"b\"}\n";
    let options = TableOptions { label: Some(name("title")), ..TableOptions::default() };
    let found = table("t.jsonl", titled, &options).unwrap();
    assert!(found.iter().map(|example| (example.label, example.text.as_str())).eq([(0, "a"), (1, "b")]));
}

#[test]
fn classes_files() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("classes.txt");
    let read = |text: &str| {
        fs::write(&path, text).unwrap();
        read_classes(&path)
    };
    assert_eq!(read("\u{feff}World\r\nSci/Tech\r\n\n").unwrap(), ["World", "Sci/Tech"]);
    assert!(read("a\n\nb\n").unwrap_err().to_string().contains("line 2"));
    assert!(read("\n").unwrap_err().to_string().contains("no class"));
}

proptest! {
    /// Whatever the bytes, an answer and never a panic; and what was checked can be read.
    #[test]
    fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..200), name in "t\\.(csv|tsv|jsonl)") {
        let _ = found(&name, bytes);
    }

    #[test]
    fn any_table_like_text(text in r#"([01],("?[ab\\ ]{0,3}"?)\n|[01]\t[a"]\t?[ab]\n|\{"label":(1|"a"|\[\]),"text":"[ab]{0,2}"\}\n){0,6}"#, name in "t\\.(csv|tsv|jsonl)") {
        let _ = found(&name, text);
    }

    /// What the csv crate writes is what we read.
    #[test]
    fn any_texts(rows in prop::collection::vec((0_usize..3, "[a-c \",\n\\\\é]{0,8}", "[x\"',]{0,3}"), 1..20)) {
        let mut writer = csv::Writer::from_writer(Vec::new());
        for (label, title, text) in &rows {
            writer.write_record([&label.to_string(), title, text]).unwrap();
        }
        let options = TableOptions { header: Some(false), ..TableOptions::default() };
        let read = table("t.csv", writer.into_inner().unwrap(), &options).unwrap();
        prop_assert_eq!(read.len(), rows.len());
        for (example, (_, title, text)) in read.iter().zip(&rows) {
            prop_assert_eq!(&example.text, &format!("{title} {text}"));
        }
    }
}
