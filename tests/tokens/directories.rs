//! A model directory's tokenizer: which of its files and settings count, and what is refused.

use crate::common::shared;
use limbeck::tokenizer::Tokenizer;
use std::fs;

#[test]
fn the_file_s_padding_and_truncation_do_not_count() {
    let Some(model) = shared("models/minilm-l6-distil") else { return };
    let tokenizer = Tokenizer::from_directory(&model).unwrap();
    assert_eq!(tokenizer.encode("word", 512).len(), 3, "no padding to 128");
    assert_eq!(tokenizer.encode(&"word ".repeat(600), 512).len(), 512, "no truncation to 128");
    assert_eq!(tokenizer.encode(&"word ".repeat(600), 4), [101, 2773, 2773, 102]);
}

/// What our own tokenizer does not do is left to the crate: here an added token that is matched after
/// normalization.
#[test]
fn a_tokenizer_with_rules_of_its_own() {
    let Some(model) = shared("models/minilm-l6-distil") else { return };
    let mut by_crate = tokenizers::Tokenizer::from_file(model.join("tokenizer.json")).unwrap();
    by_crate.add_tokens([tokenizers::AddedToken::from("New York", false)]).unwrap();
    let root = tempfile::tempdir().unwrap();
    fs::write(root.path().join("tokenizer.json"), by_crate.to_string(false).unwrap()).unwrap();
    let tokenizer = Tokenizer::from_directory(root.path()).unwrap();
    assert!(tokenizer.pack().unwrap_err().contains("New York"));
    assert_eq!(tokenizer.vocab(), 30_523);
    assert_eq!(tokenizer.encode("in NEW YORK now", 512), [101, 1999, 30_522, 2085, 102]);
    assert_eq!(tokenizer.encode("in NEW YORK now", 4), [101, 1999, 30_522, 102]);
    let plain = Tokenizer::from_directory(&model).unwrap();
    assert_ne!(plain.content_hash(), tokenizer.content_hash());
}

#[test]
fn directories_without_a_usable_tokenizer() {
    let root = tempfile::tempdir().unwrap();
    let refusal = |name: &str, text: &str| {
        fs::write(root.path().join(name), text).unwrap();
        let message = Tokenizer::from_directory(root.path()).err().expect("unusable").to_string();
        fs::remove_file(root.path().join(name)).unwrap();
        message
    };
    assert!(refusal("readme.txt", "").contains("no tokenizer"));
    assert!(refusal("vocab.txt", "[PAD]\n[UNK]\n[CLS]\n").contains("no [SEP]"));
    assert!(refusal("vocab.txt", "").contains("no [UNK]"));
    assert!(refusal("tokenizer.json", "{}").contains("tokenizer.json"));
    let twice = refusal("vocab.txt", "[PAD]\n[UNK]\n[CLS]\n[SEP]\na\n\n\na\n");
    assert!(twice.contains("vocab.txt, line 8: the piece \"a\" stands on line 5 already"), "{twice}");
    let shared = r###"{"version":"1.0","added_tokens":[],"model":{"type":"WordPiece","unk_token":"[UNK]",
        "continuing_subword_prefix":"##","max_input_chars_per_word":100,
        "vocab":{"[UNK]":0,"[CLS]":1,"[SEP]":2,"b":3,"a":3}}}"###;
    let shared = refusal("tokenizer.json", shared);
    assert!(shared.contains("tokenizer.json: the pieces \"a\" and \"b\" both have the id 3"), "{shared}");
    let bpe = r#"{"version":"1.0","added_tokens":[],"model":{"type":"BPE","vocab":{"a":0},"merges":[]}}"#;
    assert!(refusal("tokenizer.json", bpe).contains("not WordPiece"));
}

#[test]
fn a_vocab_txt_follows_its_tokenizer_config() {
    let root = tempfile::tempdir().unwrap();
    fs::write(root.path().join("vocab.txt"), "[PAD]\n[UNK]\n[CLS]\n[SEP]\nUp\nup\nÜp\r\n").unwrap();
    let encode = || Tokenizer::from_directory(root.path()).unwrap().encode("Up Üp", 8);
    assert_eq!(encode(), [2, 5, 5, 3], "BERT's default lowers the case and strips accents");
    let config = root.path().join("tokenizer_config.json");
    fs::write(&config, r#"{"do_lower_case": false}"#).unwrap();
    assert_eq!(encode(), [2, 4, 6, 3]);
    fs::write(&config, r#"{"do_lower_case": false, "strip_accents": true}"#).unwrap();
    assert_eq!(encode(), [2, 4, 4, 3]);
    fs::write(&config, r#"{"do_lower_case": "no"}"#).unwrap();
    assert!(Tokenizer::from_directory(root.path()).err().unwrap().to_string().contains("do_lower_case"));
}
