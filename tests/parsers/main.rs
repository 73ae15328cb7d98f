//! Bytes from anywhere: each parser answers with a value or an [`Error`], and never panics. `tests/fuzz` asks the same
//! of the same parsers for longer. Tables are in `tests/data.rs`, JSON itself in `src/json`.
#![cfg(feature = "train")]

use limbeck::checkpoint::{TensorFile, config_to_json, parse_config};
use limbeck::controls::{Features, Linear};
use limbeck::infer::{Model, Session};
use limbeck::models::ModelConfig;
use limbeck::models::config::Sizes;
use limbeck::stages::{Recipe, Sweep};
use limbeck::tokenizer::{Rules, Tokenizer, WordPiece};
use limbeck::{Batch, Error};
use proptest::prelude::*;
use proptest::sample::Index;
use std::fs;
use std::path::Path;

/// One change to a file.
#[derive(Clone, Debug)]
enum Change {
    Flip(Index, u8),
    Put(Index, Vec<u8>),
    Cut(Index, usize),
    /// A part of it once more, somewhere else.
    Copy(Index, Index, usize),
    End(Index),
}

/// A few changes. What is put in are the bytes at which parsers turn off, and any others.
fn changes() -> impl Strategy<Value = Vec<Change>> {
    let bytes = prop_oneof![
        prop::collection::vec(any::<u8>(), 1..5),
        prop::sample::select(vec![
            "\"",
            "\\",
            "{",
            "}",
            "[",
            "]",
            "=",
            "\n",
            "\0",
            "\u{feff}",
            "9999999999",
            "-1",
            "1e999",
            "##"
        ])
        .prop_map(|text| text.as_bytes().to_vec()),
    ];
    let change = prop_oneof![
        (any::<Index>(), 0..8_u8).prop_map(|(place, bit)| Change::Flip(place, bit)),
        (any::<Index>(), bytes).prop_map(|(place, bytes)| Change::Put(place, bytes)),
        (any::<Index>(), 1..40_usize).prop_map(|(place, len)| Change::Cut(place, len)),
        (any::<Index>(), any::<Index>(), 1..40_usize).prop_map(|(from, to, len)| Change::Copy(from, to, len)),
        any::<Index>().prop_map(Change::End),
    ];
    prop::collection::vec(change, 0..6)
}

fn changed(file: &[u8], changes: &[Change]) -> Vec<u8> {
    let mut file = file.to_vec();
    for change in changes {
        let place = |index: &Index| index.index(file.len() + 1);
        let end = |from: usize, len: usize| (from + len).min(file.len());
        match change {
            Change::Flip(index, bit) if place(index) < file.len() => {
                let place = place(index);
                file[place] ^= 1 << bit;
            }
            Change::Flip(..) => {}
            Change::Put(index, bytes) => {
                let place = place(index);
                file.splice(place..place, bytes.iter().copied()).for_each(drop);
            }
            Change::Cut(index, len) => {
                let from = place(index);
                let to = end(from, *len);
                file.drain(from..to);
            }
            Change::Copy(from, to, len) => {
                let (from, to) = (place(from), place(to));
                let part = file[from..end(from, *len)].to_vec();
                file.splice(to..to, part).for_each(drop);
            }
            Change::End(index) => {
                let place = place(index);
                file.truncate(place);
            }
        }
    }
    file
}

fn config() -> ModelConfig {
    let sizes = Sizes { vocab: 9, positions: 12, hidden: 8, heads: 2, intermediate: 12, layers: 2 };
    ModelConfig::distilbert(sizes, ["no", "yes"])
}

/// An error has something to say; a value was worth its checks.
fn said<T>(answer: Result<T, Error>) -> Option<T> {
    answer.map_err(|error| assert!(!error.to_string().is_empty())).ok()
}

const PIECES: [&str; 9] = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "un", "##aff", "##able", "\u{e4}"];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn config_json(changes in changes()) {
        let file = changed(config_to_json(&config()).to_string().as_bytes(), &changes);
        if let Some(config) = said(parse_config(Path::new("config.json"), &String::from_utf8_lossy(&file))) {
            // What is read is written and read again as the same.
            let again = config_to_json(&config).to_string();
            assert_eq!(parse_config(Path::new("config.json"), &again).unwrap(), config);
        }
    }

    #[test]
    fn vocab_txt(changes in changes(), text in ".{0,20}") {
        let root = tempfile::tempdir().unwrap();
        let vocabulary = PIECES.join("\n").into_bytes();
        fs::write(root.path().join("vocab.txt"), changed(&vocabulary, &changes)).unwrap();
        if let Some(tokenizer) = said(Tokenizer::from_directory(root.path())) {
            let ids = tokenizer.encode(&text, 8);
            assert!(ids.len() <= 8 && ids.iter().all(|id| (*id as usize) < tokenizer.vocab()));
        }
    }

    #[test]
    fn packed_vocabulary(changes in changes(), text in "(un|aff|able|\\[MASK\\]|\\[SEP\\]| |\\PC){0,9}", most in 2..20_usize) {
        let file = changed(&WordPiece::pack(&PIECES, Rules::bert(true)).unwrap(), &changes);
        if let Ok(tokenizer) = WordPiece::from_bytes(file) {
            let ids = tokenizer.encode(&text, most);
            assert!(ids.len() <= most && ids.iter().all(|id| (*id as usize) < tokenizer.vocab()));
            let pair = tokenizer.encode_pair(&text, &text, most.max(5));
            assert!(pair.ids.len() <= most.max(5) && (1..=pair.ids.len()).contains(&pair.first));
            let _ = (0..tokenizer.vocab() as u32 + 2).filter_map(|id| tokenizer.piece(id)).count();
        }
    }

    #[test]
    fn recipe(changes in changes(), overrides in prop::collection::vec("(train|prune|data|x)\\.[a-z_]{1,6}=[-0-9a-z\"\\[\\].]{0,6}", 0..3)) {
        let file = changed(Recipe::default().canonical().as_bytes(), &changes);
        let text = String::from_utf8_lossy(&file);
        if let Some(recipe) = said(Recipe::parse(&text, Path::new("recipe.toml"), &overrides)) {
            assert_eq!(Recipe::parse(&recipe.canonical(), Path::new("again"), &[]).unwrap(), recipe);
        }
    }

    #[test]
    fn sweep(changes in changes(), overrides in prop::collection::vec("sweep\\.[a-z.]{1,6}=[-0-9a-z\"\\[\\].]{0,6}", 0..2)) {
        let text = "[train]\nbatch = 8\n[sweep]\nseeds = [1, 2]\ntrials = 3\n[sweep.grid]\n\"prune.heads\" = [0.2, 0.4]\n\
                    [sweep.random]\n\"distill.alpha\" = { low = 0.3, high = 1.0, scale = \"log\" }\n";
        let file = changed(text.as_bytes(), &changes);
        let text = String::from_utf8_lossy(&file);
        if let Some(sweep) = said(Sweep::parse(&text, Path::new("sweep.toml"), &overrides)) {
            let again = Sweep::parse(sweep.canonical(), Path::new("again"), &[]).unwrap();
            let ids = |sweep: &Sweep| sweep.trials.iter().map(|trial| trial.id.clone()).collect::<Vec<_>>();
            assert_eq!(ids(&again), ids(&sweep));
            assert!(!sweep.trials.is_empty());
        }
    }

    #[test]
    fn linear_control(changes in changes()) {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("ngrams.safetensors");
        Linear::new(&["no".to_owned(), "yes".to_owned()], 6).save(&path, &Default::default()).unwrap();
        fs::write(&path, changed(&fs::read(&path).unwrap(), &changes)).unwrap();
        if let Some(model) = said(Linear::open(&path)) {
            let (mut features, mut logits) = (Features::default(), Vec::new());
            features.refill(&[1, 2, 3], model.buckets());
            model.logits(&features, &mut logits);
            assert_eq!(logits.len(), model.classes());
        }
    }

    #[test]
    fn safetensors(changes in changes()) {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("model.safetensors");
        let header = br#"{"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[2,1],"data_offsets":[0,8]},
            "b.bias":{"dtype":"BF16","shape":[2],"data_offsets":[8,12]},"c":{"dtype":"F16","shape":[],"data_offsets":[12,14]}}"#;
        let header = changed(header, &changes);
        fs::write(&path, [&(header.len() as u64).to_le_bytes(), &header[..], &[0x3c; 14]].concat()).unwrap();
        if let Some(file) = said(TensorFile::open(&path)) {
            for name in file.names() {
                let _ = said(file.read_f32(name, &mut Vec::new()));
            }
        }
    }

    /// Whatever is cut, put in or copied; `tests/limbeck_file` has every bit and every length.
    #[test]
    fn limbeck_file(changes in changes()) {
        const TINY: &[u8] = include_bytes!("../fixtures/tiny.limbeck");
        let file = changed(TINY, &changes);
        prop_assume!(!file.is_empty());
        let mut map = memmap2::MmapMut::map_anon(file.len()).unwrap();
        map.copy_from_slice(&file);
        let model = Model::from_map(Path::new("x.limbeck"), map.make_read_only().unwrap());
        if let Some(model) = said(model) {
            let _ = said(Session::new(&model).logits(&Batch::from_texts([&[2, 5, 3][..]])).map(<[f32]>::to_vec));
            assert!(file == TINY || model.check_golden().is_err(), "a change that no hash shows");
        }
    }
}
