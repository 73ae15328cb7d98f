//! The token cache: it holds what encoding gives, is found by what it was made of, and survives no damage.
#![cfg(feature = "train")]

use limbeck::Error;
use limbeck::data::{Classes, Column, Example, TableOptions, TableSource, TokenSet, demo};
use limbeck::tokenizer::{Rules, Tokenizer, WordPiece};
use std::fs;
use std::path::Path;

fn small_tokenizer() -> Tokenizer {
    let demo = demo::generate(3, 500, 1);
    Tokenizer::from_pieces(&demo.pieces, Rules::bert(true)).unwrap()
}

/// A table of `count` generated notes, one of them empty.
fn notes(path: &Path, count: usize) -> Vec<Example> {
    let mut notes = demo::generate(5, count, 0).train;
    notes[0].text.clear();
    let text: String = notes.iter().map(|note| format!("{}\t{}\n", note.label, note.text)).collect();
    fs::write(path, text).unwrap();
    notes
}

#[test]
fn the_cache_holds_what_encoding_gives() {
    let root = tempfile::tempdir().unwrap();
    let (path, cache) = (root.path().join("notes.tsv"), root.path().join("cache"));
    let notes = notes(&path, 9_001);
    let tokenizer = small_tokenizer();
    let source = TableSource::open(&path, &TableOptions::default()).unwrap();
    for _ in ["written", "found"] {
        let set = TokenSet::prepare(&source, &tokenizer, 16, &cache).unwrap();
        assert_eq!(set.len(), notes.len());
        for (index, note) in notes.iter().enumerate() {
            assert_eq!(set.tokens(index), tokenizer.encode(&note.text, 16), "{}", note.text);
            assert_eq!(set.label(index), note.label);
        }
        assert_eq!(set.tokens(0).len(), 2, "a text of no characters is [CLS] [SEP]");
        assert_eq!(set.labels(), ["0", "1", "2", "3"]);
        assert_eq!(fs::read_dir(&cache).unwrap().count(), 1, "one cache, and no temporary file");
    }
    let set = TokenSet::prepare(&source.first(7), &tokenizer, 16, &cache).unwrap();
    assert_eq!((set.len(), set.tokens(6)), (7, tokenizer.encode(&notes[6].text, 16).as_slice()));
    assert!(matches!(TokenSet::prepare(&source, &tokenizer, 2, &cache), Err(Error::Setting { .. })));

    let in_memory = TokenSet::from_examples(&notes[..50], set.labels(), &tokenizer, 16);
    assert_eq!(in_memory.len(), 50);
    assert!((0..50).all(|index| in_memory.tokens(index) == tokenizer.encode(&notes[index].text, 16)));
}

#[test]
fn pairs_keep_where_their_second_sentence_begins() {
    let root = tempfile::tempdir().unwrap();
    let (path, cache) = (root.path().join("pairs.tsv"), root.path().join("cache"));
    let notes = demo::generate(5, 300, 0).train;
    let sentences: Vec<[&str; 2]> =
        notes.chunks(2).map(|pair| [pair[0].text.as_str(), pair[1].text.as_str()]).collect();
    let mut text = "sentence1\tsentence2\tlabel\n".to_owned();
    for (i, [first, second]) in sentences.iter().enumerate() {
        text += &format!("{first}\t{second}\t{}\n", i % 2);
    }
    fs::write(&path, text).unwrap();
    let tokenizer = small_tokenizer();
    let column = |name: &str| vec![Column::Name(name.to_owned())];
    let options = TableOptions { second: column("sentence2"), ..TableOptions::default() };
    let source = TableSource::open(&path, &options).unwrap();
    assert!(source.has_pairs());
    for _ in ["written", "found"] {
        let set = TokenSet::prepare(&source, &tokenizer, 12, &cache).unwrap();
        assert_eq!(set.len(), sentences.len());
        for (index, [first, second]) in sentences.iter().enumerate() {
            let expected = tokenizer.encode_pair(first, second, 12);
            assert_eq!(set.text(index), expected.text());
            assert_eq!(set.label(index), index % 2);
        }
        assert_eq!(fs::read_dir(&cache).unwrap().count(), 1);
    }
    // The same columns joined are other texts, and another cache.
    let joined = TableSource::open(&path, &TableOptions::default()).unwrap();
    let joined = TokenSet::prepare(&joined, &tokenizer, 12, &cache).unwrap();
    assert_eq!(joined.text(3).first, joined.tokens(3).len());
    assert_eq!(fs::read_dir(&cache).unwrap().count(), 2);
    // Four tokens have no room for a piece of each sentence.
    assert!(matches!(TokenSet::prepare(&source, &tokenizer, 4, &cache), Err(Error::Setting { .. })));
    let refused = |second: &str, texts: Option<Vec<Column>>| {
        let options = TableOptions { second: column(second), texts, ..TableOptions::default() };
        TableSource::open(&path, &options).unwrap_err().to_string()
    };
    assert!(refused("sentence3", None).contains("data.second_columns"));
    let twice = refused("sentence2", Some(column("sentence2")));
    assert!(twice.contains("gives to the first sentence"), "{twice}");
}

#[test]
fn the_key_is_everything_that_decides() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("notes.tsv");
    notes(&path, 40);
    let prepare = |options: &TableOptions, tokenizer: &Tokenizer, max_tokens| {
        let source = TableSource::open(&path, options).unwrap();
        TokenSet::prepare(&source, tokenizer, max_tokens, root.path()).unwrap().content_hash().to_owned()
    };
    let plain = TableOptions::default();
    let tokenizer = small_tokenizer();
    let first = prepare(&plain, &tokenizer, 16);
    assert_eq!(prepare(&plain, &tokenizer, 16), first);
    let names = ["a", "b", "c", "d"].map(str::to_owned).to_vec();
    let named = TableOptions { classes: Classes::Named(names), ..TableOptions::default() };
    let specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"];
    let other = Tokenizer::from_pieces(&specials, Rules::bert(true)).unwrap();
    let mut hashes = vec![
        first,
        prepare(&plain, &tokenizer, 17),
        prepare(&named, &tokenizer, 16),
        prepare(&plain, &other, 16),
    ];
    let twice = TableOptions { texts: Some(vec![Column::Index(1); 2]), ..TableOptions::default() };
    hashes.push(prepare(&twice, &tokenizer, 16));
    fs::write(&path, fs::read_to_string(&path).unwrap() + "1\tone more\n").unwrap();
    hashes.push(prepare(&plain, &tokenizer, 16));
    hashes.sort();
    hashes.dedup();
    assert_eq!(hashes.len(), 6);
}

#[test]
fn a_damaged_cache_is_made_again() {
    let root = tempfile::tempdir().unwrap();
    let (path, cache) = (root.path().join("notes.tsv"), root.path().join("cache"));
    notes(&path, 40);
    let tokenizer = small_tokenizer();
    let source = TableSource::open(&path, &TableOptions::default()).unwrap();
    drop(TokenSet::prepare(&source, &tokenizer, 16, &cache).unwrap());
    let file = fs::read_dir(&cache).unwrap().next().unwrap().unwrap().path();
    let good = fs::read(&file).unwrap();
    // Each part: the header, its digest, the first and a middle offset, a class, the last id, the length.
    let last = good.len() - 1;
    for place in [0, 9, 16, 24, 41, 100, 128, 128 + 8 * 20 + 3, 128 + 8 * 41 + 3, last] {
        let mut damaged = good.clone();
        damaged[place] ^= 0x81;
        fs::write(&file, &damaged).unwrap();
        drop(TokenSet::prepare(&source, &tokenizer, 16, &cache).unwrap());
        assert!(fs::read(&file).unwrap() == good, "byte {place} was changed");
    }
    // The lowest bit of each number behind the header: another class, another id, all of them possible.
    for place in (128..good.len()).step_by(4) {
        let mut damaged = good.clone();
        damaged[place] ^= 1;
        fs::write(&file, &damaged).unwrap();
        drop(TokenSet::prepare(&source, &tokenizer, 16, &cache).unwrap());
        assert!(fs::read(&file).unwrap() == good, "the low bit at {place} was changed");
    }
    for length in [0, 5, 127, 128, 300, last] {
        fs::write(&file, &good[..length]).unwrap();
        drop(TokenSet::prepare(&source, &tokenizer, 16, &cache).unwrap());
        assert!(fs::read(&file).unwrap() == good, "cut to {length} bytes");
    }
}

/// A `.limbeck` file's tokenizer fills a cache of its own, with the same ids.
#[test]
fn any_tokenizer_can_fill_a_cache() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("notes.tsv");
    let notes = notes(&path, 40);
    let tokenizer = small_tokenizer();
    let packed = WordPiece::from_bytes(tokenizer.pack().unwrap()).unwrap();
    let source = TableSource::open(&path, &TableOptions::default()).unwrap();
    let by_crate = TokenSet::prepare(&source, &tokenizer, 16, root.path()).unwrap();
    let by_file = TokenSet::prepare(&source, &packed, 16, root.path()).unwrap();
    assert_ne!(by_crate.content_hash(), by_file.content_hash());
    assert!((0..notes.len()).all(|index| by_crate.tokens(index) == by_file.tokens(index)));
}

/// Between the two readings: rows that are gone, and rows of which only the content differs, in either format,
/// among those that are taken or behind them.
#[test]
fn a_table_that_changes_is_noticed() {
    for (name, separator) in [("notes.tsv", '\t'), ("notes.csv", ',')] {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join(name);
        let table = |texts: &[&str]| -> String {
            texts.iter().enumerate().map(|(row, text)| format!("{}{separator}{text}\n", row % 2)).collect()
        };
        for (edited, expected) in [
            (table(&["a"]), "shorter"),
            (table(&["a", "b", "c", "e"]), "changed"),
            (table(&["x", "b", "c", "d"]), "changed"),
            (table(&["a", "b", "c", "d", "e"]), "changed"),
        ] {
            fs::write(&path, table(&["a", "b", "c", "d"])).unwrap();
            let source = TableSource::open(&path, &TableOptions::default()).unwrap().first(3);
            fs::write(&path, edited).unwrap();
            let prepared = TokenSet::prepare(&source, &small_tokenizer(), 16, root.path());
            let error = prepared.err().unwrap().to_string();
            assert!(error.contains(expected) && error.contains(name), "{error}");
            assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1, "no half-written cache remains");
        }
    }
}
