//! Token ids against ids that others made: every AG News test text, every SQuAD question, every character,
//! and random text.
#![cfg(feature = "train")]

#[path = "../common/mod.rs"]
mod common;
mod directories;

use common::shared;
use limbeck::checkpoint::TensorFile;
use limbeck::tokenizer::{Encode, Pair as SentencePair, Rules, Tokenizer, WordPiece};
use proptest::prelude::*;
use std::fs;
use std::path::PathBuf;
use tokenizers::TruncationParams;
use tokenizers::models::wordpiece::WordPiece as ReferenceModel;
use tokenizers::normalizers::BertNormalizer;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::processors::bert::BertProcessing;
use tokenizers::utils::truncation::truncate_encodings;

/// The tokenizers crate, set up without our code.
fn reference(pieces: &[String], rules: Rules) -> tokenizers::Tokenizer {
    let vocabulary = ReferenceModel::read_bytes(pieces.join("\n").as_bytes()).unwrap();
    let mut tokenizer =
        tokenizers::Tokenizer::new(ReferenceModel::builder().vocab(vocabulary).build().unwrap());
    let Rules { clean_text, space_ideographs, strip_accents, lower_case } = rules;
    let normalizer = BertNormalizer::new(clean_text, space_ideographs, Some(strip_accents), lower_case);
    tokenizer.with_normalizer(Some(normalizer)).unwrap();
    tokenizer.with_pre_tokenizer(Some(BertPreTokenizer));
    let specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"];
    let specials = specials.into_iter().filter(|special| pieces.iter().any(|piece| piece == special));
    tokenizer
        .add_special_tokens(specials.map(|special| tokenizers::AddedToken::from(special, true)))
        .unwrap();
    tokenizer
}

/// The reference's ids between `[CLS]` and `[SEP]`, cut.
fn reference_ids(tokenizer: &tokenizers::Tokenizer, text: &str, max_tokens: usize) -> Vec<u32> {
    let ids = tokenizer.encode(text, false).unwrap();
    let id = |token| tokenizer.token_to_id(token).unwrap();
    let kept = ids.get_ids().len().min(max_tokens.saturating_sub(2));
    [&[id("[CLS]")], &ids.get_ids()[..kept], &[id("[SEP]")]].concat()
}

fn integers(file: &TensorFile, name: &str) -> Vec<u32> {
    file.bytes(name).unwrap().as_chunks().0.iter().map(|&word| u32::from_le_bytes(word)).collect()
}

#[test]
fn every_ag_news_test_text() {
    let Some(model) = shared("models/minilm-l6-distil") else { return };
    let Some(table) = shared("data/ag_news/test.csv") else { return };
    let Some(reference) = shared("reference/tokens_agnews.safetensors") else { return };
    let reference = TensorFile::open(&reference).unwrap();
    let (ids, offsets) = (integers(&reference, "ids"), integers(&reference, "offsets"));
    let mut reader = csv::ReaderBuilder::new().has_headers(false).from_path(table).unwrap();
    let texts: Vec<String> =
        reader.records().map(|row| row.unwrap()).map(|row| format!("{} {}", &row[1], &row[2])).collect();
    assert_eq!(texts.len(), 7_600);
    assert_eq!(offsets.len(), 7_601);

    let tokenizer = Tokenizer::from_directory(&model).unwrap();
    let packed = tokenizer.pack().unwrap();
    let wordpiece = WordPiece::from_bytes(packed.as_slice()).unwrap();
    let by_tokenizer = tokenizer.encode_batch(&texts.iter().map(String::as_str).collect::<Vec<_>>(), 512);
    for (row, text) in texts.iter().enumerate() {
        let expected = &ids[offsets[row] as usize..offsets[row + 1] as usize];
        assert_eq!(by_tokenizer[row], expected, "row {row}, Tokenizer: {text}");
        assert_eq!(wordpiece.encode(text, 512), expected, "row {row}, our own: {text}");
    }
}

/// The tokenizers crate, set up as transformers sets it up for pairs: BERT's template.
fn for_pairs(mut reference: tokenizers::Tokenizer) -> tokenizers::Tokenizer {
    let special = |token: &str| (token.to_owned(), reference.token_to_id(token).unwrap());
    let template = BertProcessing::new(special("[SEP]"), special("[CLS]"));
    reference.with_post_processor(Some(template)).with_padding(None);
    reference.with_truncation(None).unwrap();
    reference
}

/// Whole sentences are read first and cut then: from version 0.23 on the crate cuts each to the room for both before it compares
/// them, which may give the odd piece to the other sentence.
fn check_pair(
    reference: &tokenizers::Tokenizer,
    found: &SentencePair,
    sentences: [&str; 2],
    max_tokens: usize,
) {
    let [first, second] = sentences.map(|sentence| reference.encode(sentence, false).unwrap());
    let room = TruncationParams { max_length: max_tokens - 3, ..TruncationParams::default() };
    let (first, second) = truncate_encodings(first, Some(second), &room).unwrap();
    let expected = reference.post_process(first, second, true).unwrap();
    assert_eq!(found.ids, expected.get_ids(), "{sentences:?}");
    let second = expected.get_type_ids().iter().filter(|kind| **kind == 1).count();
    assert_eq!(found.ids.len() - found.first, second, "{sentences:?}");
}

/// As transformers reads them, also where one sentence or both have to be cut.
#[test]
fn every_pair_of_glue() {
    let Some(model) = shared("models/minilm-l6-distil") else { return };
    let tokenizer = Tokenizer::from_directory(&model).unwrap();
    let packed = tokenizer.pack().unwrap();
    let wordpiece = WordPiece::from_bytes(packed.as_slice()).unwrap();
    let plain = tokenizers::Tokenizer::from_file(model.join("tokenizer.json")).unwrap();
    let reference = for_pairs(plain);
    for (table, columns) in [("MRPC/dev.tsv", [3, 4]), ("RTE/dev.tsv", [1, 2])] {
        let Some(table) = shared(&format!("data/glue/{table}")) else { return };
        let text = fs::read_to_string(table).unwrap();
        let rows: Vec<Vec<&str>> = text.lines().skip(1).map(|line| line.split('\t').collect()).collect();
        let pairs: Vec<[&str; 2]> = rows.iter().map(|row| columns.map(|column| row[column])).collect();
        assert!(pairs.len() > 270);
        for max_tokens in [512, 64, 33, 5] {
            for (pair, found) in pairs.iter().zip(tokenizer.encode_pairs(&pairs, max_tokens)) {
                check_pair(&reference, &found, *pair, max_tokens);
                assert_eq!(wordpiece.encode_pair(pair[0], pair[1], max_tokens), found);
            }
        }
    }
}

#[test]
fn every_squad_question() {
    let Some(vocabulary) = shared("data/vocab/bert-base-uncased-vocab.txt") else { return };
    let Some(parity) = shared("data/tokenizer_parity") else { return };
    let parse = |name: &str| -> serde_json::Value {
        serde_json::from_slice(&fs::read(parity.join(name)).unwrap()).unwrap()
    };
    let (questions, ids) = (parse("question_tokens.json"), parse("tokenized_questions.json"));
    let pieces: Vec<String> = fs::read_to_string(vocabulary).unwrap().lines().map(str::to_owned).collect();
    let tokenizer = Tokenizer::from_pieces(&pieces, Rules::bert(true)).unwrap();
    let packed = WordPiece::pack(&pieces, Rules::bert(true)).unwrap();
    let wordpiece = WordPiece::from_bytes(packed.as_slice()).unwrap();
    let (questions, ids) = (questions.as_array().unwrap(), ids.as_array().unwrap());
    assert_eq!((questions.len(), ids.len()), (10_570, 10_570));
    for (question, expected) in questions.iter().zip(ids) {
        let text = question["original"].as_str().unwrap();
        let mut expected: Vec<u32> =
            expected.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect();
        expected.insert(0, 101);
        expected.push(102);
        let found = wordpiece.encode(text, 512);
        assert_eq!(found, expected, "our own: {text}");
        assert_eq!(tokenizer.encode(text, 512), expected, "Tokenizer: {text}");
        let words = question["wordpiece"].as_array().unwrap().iter().map(|piece| piece.as_str().unwrap());
        assert!(words.eq(found[1..found.len() - 1].iter().map(|&id| wordpiece.piece(id).unwrap())), "{text}");
    }
}

/// A small vocabulary in which many characters have a piece, so that a character that is kept, removed,
/// split off or decomposed differently gives other ids and not just `[UNK]`.
fn pieces_with(extra: impl IntoIterator<Item = char>) -> Vec<String> {
    let specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "ab", "##ab", "abc", "##b"];
    let mut pieces: Vec<String> = specials.map(str::to_owned).to_vec();
    for c in ('a'..='z').chain(extra) {
        pieces.push(c.to_string());
        pieces.push(format!("##{c}"));
    }
    pieces
}

/// Both tokenizers with the same vocabulary.
struct Pair {
    reference: tokenizers::Tokenizer,
    wordpiece: WordPiece<Vec<u8>>,
}

impl Pair {
    fn new(pieces: &[String], rules: Rules) -> Pair {
        let packed = WordPiece::pack(pieces, rules).unwrap();
        Pair { reference: reference(pieces, rules), wordpiece: WordPiece::from_bytes(packed).unwrap() }
    }

    fn check(&self, text: &str, max_tokens: usize) {
        let found = self.wordpiece.encode(text, max_tokens);
        let beginning = || text.chars().take(300).collect::<String>();
        assert_eq!(found, reference_ids(&self.reference, text, max_tokens), "{:?}", beginning());
        assert!(found.len() <= max_tokens.max(2) && found.first() == Some(&2) && found.last() == Some(&3));
    }
}

const ALL_RULES: [Rules; 4] = [
    Rules { clean_text: true, space_ideographs: true, strip_accents: true, lower_case: true },
    Rules { clean_text: true, space_ideographs: true, strip_accents: false, lower_case: false },
    Rules { clean_text: true, space_ideographs: false, strip_accents: true, lower_case: false },
    Rules { clean_text: false, space_ideographs: true, strip_accents: false, lower_case: true },
];

/// Marks are put in order after controls are removed, not around them; other controls than ASCII's, too.
#[test]
fn what_is_removed_parts_no_marks() {
    for rules in ALL_RULES {
        let pair = Pair::new(&pieces_with(['\u{8d4}', '\u{1d16d}']), rules);
        for control in ['\u{0}', '\u{7f}', '\u{ad}', '\u{200b}', 'b', ' ', '\t'] {
            pair.check(&format!("\u{8d4}{control}\u{1d16d}a"), usize::MAX);
        }
    }
}

/// Every scalar value, between letters and after a mark that canonical ordering moves. In steps of a
/// thousand, whose characters (and what they decompose to and are lowered to) are the vocabulary.
#[test]
fn every_character() {
    use unicode_normalization::UnicodeNormalization;
    let all: Vec<char> = ('\0'..=char::MAX).collect();
    // Planes 4 to 13 have no characters at all; they are sampled.
    let assigned = |c: &char| !(0x4_0000..0xe_0000).contains(&u32::from(*c)) || u32::from(*c) % 997 == 0;
    let all: Vec<char> = all.into_iter().filter(assigned).collect();
    for rules in ALL_RULES {
        for block in all.chunks(1_000) {
            let parts = block
                .iter()
                .flat_map(|c| [*c].into_iter().chain(c.nfd()).flat_map(|c| c.to_lowercase().chain([c])));
            let mut parts: Vec<char> = parts.filter(|c| !c.is_whitespace()).collect();
            parts.push('\u{1d165}');
            parts.sort_unstable();
            parts.dedup();
            let pair = Pair::new(&pieces_with(parts), rules);
            // U+1D165 is no nonspacing mark but has a combining class: it shows the order.
            let texts = block.iter().flat_map(|c| [format!("a{c}b "), format!("a\u{1d165}{c}\u{1d165}b ")]);
            pair.check(&texts.collect::<String>(), usize::MAX);
        }
    }
}

#[test]
fn adversarial_texts() {
    let Some(vocabulary) = shared("data/vocab/bert-base-uncased-vocab.txt") else { return };
    let Some(cased) = shared("data/vocab/bert-base-cased-vocab.txt") else { return };
    let read = |path: PathBuf| -> Vec<String> {
        fs::read_to_string(path).unwrap().lines().map(str::to_owned).collect()
    };
    let (uncased, cased) = (read(vocabulary), read(cased));
    let texts = [
        "".to_owned(),
        " \t\r\n\u{a0}\u{3000}\u{2028}".to_owned(),
        "\u{0}\u{fffd}\u{200b}\u{feff}\u{85}".to_owned(),
        "a\u{0}b\u{fffd}c\u{200d}d\u{ad}e".to_owned(),
        "Emoji 👩‍👩‍👧‍👦 🏳️‍🌈 👍🏽 and ☃️ too!".to_owned(),
        "中文字符mixed漢字 ㄅ 日本語テキスト 한국어 텍스트 豈 𠀀".to_owned(),
        "Café naïve ÅNGSTRÖM Ǆ İstanbul ẞ Σίσυφος ﬁ Ⅷ".to_owned(),
        "e\u{301}\u{327} a\u{328}\u{301} q\u{307}\u{323} \u{301}alone".to_owned(),
        "हिन्दी العَرَبِيَّة עִבְרִית ไทย".to_owned(),
        "[CLS] text [SEP] [MASK][UNK][PAD] [mask] [ CLS ] [[CLS]] [CLS".to_owned(),
        "[SEP]\u{301}x Łódź [MASK]ed un[MASK]ed".to_owned(),
        "##ing ## # ##a a##b".to_owned(),
        "don't e-mail@x.y $1,000.00 \u{201c}quoted\u{201d} \u{2014} \u{2026}".to_owned(),
        "x".repeat(99) + " " + &"x".repeat(100) + " " + &"x".repeat(101) + " " + &"é".repeat(100),
        "unaffable ".repeat(10_000),
        "y".repeat(100_000),
        "\u{301}".repeat(100_000) + "a",
        "\u{1d165}\u{327}\u{1d16e}".repeat(2_000),
        "中".repeat(1_000),
        "!".repeat(1_000),
        "\u{1f468}\u{200d}".repeat(1_000),
        "\u{10ffff}\u{e000}\u{fdd0}\u{ffff}\u{378}".to_owned(),
    ];
    for (pieces, lower_case) in [(uncased, true), (cased, false)] {
        let rules = Rules::bert(lower_case);
        let tokenizer = Tokenizer::from_pieces(&pieces, rules).unwrap();
        let by_crate = reference(&pieces, rules);
        let packed = WordPiece::pack(&pieces, rules).unwrap();
        assert_eq!(tokenizer.pack().unwrap(), packed);
        let wordpiece = WordPiece::from_bytes(packed.as_slice()).unwrap();
        for text in &texts {
            for max_tokens in [0, 2, 3, 5, 128, 512, usize::MAX] {
                let expected = reference_ids(&by_crate, text, max_tokens);
                assert_eq!(tokenizer.encode(text, max_tokens), expected);
                let found = wordpiece.encode(text, max_tokens);
                assert_eq!(found, expected, "{:?}", text.chars().take(80).collect::<String>());
                assert!(found.len() <= max_tokens.max(2));
            }
        }
        let empty = wordpiece.encode("", 512);
        assert_eq!(empty.len(), 2);
        assert_eq!((wordpiece.piece(empty[0]), wordpiece.piece(empty[1])), (Some("[CLS]"), Some("[SEP]")));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Letters, marks, spaces, controls, ideographs and specials in any order.
    #[test]
    fn random_texts(
        parts in prop::collection::vec(prop_oneof![
            6 => "[a-z]{1,4}",
            2 => "[ \t\n\u{a0}\u{3000}]",
            3 => "\\PC",
            2 => any::<char>().prop_map(String::from),
            2 => "[\u{300}-\u{36f}\u{591}-\u{5bd}\u{8d0}-\u{8ff}\u{1d165}-\u{1d172}\u{302a}-\u{302f}\u{16ff0}]{1,4}",
            1 => "[\u{4e00}-\u{4e20}\u{f900}-\u{f910}\u{ac00}-\u{ac10}]",
            1 => "\\[(CLS|SEP|MASK|PAD|UNK)\\]?",
            1 => "[!-/\u{2010}-\u{2040}]",
        ], 0..40),
        max_tokens in 0_usize..40,
        rules in prop::sample::select(ALL_RULES.to_vec()),
    ) {
        let text = parts.concat();
        let mut seen: Vec<char> = text.chars().filter(|c| !c.is_whitespace()).take(12).collect();
        seen.sort_unstable();
        seen.dedup();
        let pair = Pair::new(&pieces_with(seen), rules);
        pair.check(&text, max_tokens);
        pair.check(&text, usize::MAX);
    }

    #[test]
    fn random_pairs(first in "\\PC{0,20}", second in "[ab ]{0,30}", max_tokens in 3_usize..24) {
        let both = Pair::new(&pieces_with([]), Rules::bert(true));
        let reference = for_pairs(both.reference.clone());
        for [first, second] in [[&first, &second], [&second, &first]] {
            let found = both.wordpiece.encode_pair(first, second, max_tokens);
            check_pair(&reference, &found, [first, second], max_tokens);
        }
    }

    /// Vocabularies with overlapping pieces of a two-letter alphabet: longest first, and `[UNK]` for the
    /// whole word.
    #[test]
    fn random_vocabularies(
        pieces in prop::collection::vec("(##)?[ab]{1,4}", 0..12),
        words in prop::collection::vec("[ab]{1,9}", 0..12),
    ) {
        let specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"].map(str::to_owned);
        let pieces: Vec<String> = specials.into_iter().chain(pieces).collect();
        Pair::new(&pieces, Rules::bert(true)).check(&words.join(" "), 512);
    }

    /// Whatever the bytes, an answer and never a panic.
    #[test]
    fn damaged_vocabularies(place in 0_usize..4000, byte: u8, cut in 0_usize..4000, text in "\\PC{0,20}") {
        let mut bytes = WordPiece::pack(&pieces_with(['é', '中']), Rules::bert(true)).unwrap();
        let length = bytes.len();
        bytes[place % length] = byte;
        if cut % 3 == 0 {
            bytes.truncate(length - cut % length);
        }
        if let Ok(wordpiece) = WordPiece::from_bytes(bytes) {
            let _ = wordpiece.encode(&text, 16);
        }
    }
}
