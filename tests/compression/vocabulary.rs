//! A network with fewer word pieces and positions computes what it did for texts without the others, and its tokenizer is a plain
//! WordPiece that any program can read.

use crate::common::shared;
use crate::network::{bits, config, examples, id, learner, states, text};
use limbeck::Batch;
use limbeck::compress::Keep;
use limbeck::compress::delete;
use limbeck::compress::vocabulary::{Reading, Words, choose};
use limbeck::models::config::{Architecture, Pooling};
use limbeck::tokenizer::{Rules, Tokenizer, WordPiece};
use limbeck_kernels::random::SplitMix64;
use std::fs;

#[test]
fn texts_of_kept_pieces_and_positions_have_the_same_logits_to_the_bit() {
    for (architecture, pooling) in
        [(Architecture::DistilBert, Pooling::FirstToken), (Architecture::Bert, Pooling::Mean)]
    {
        let config = config(architecture, pooling, 0.0);
        let (whole, mut small) = (learner(&config), learner(&config));
        let texts: Vec<Vec<u32>> = (0..12).map(text).collect();
        let mut kept: Vec<u32> = texts.iter().flatten().copied().collect();
        kept.sort_unstable();
        kept.dedup();
        assert!(kept.len() < config.vocab, "some go: {}", kept.len());
        let pieces: Vec<usize> = kept.iter().map(|&id| id as usize).collect();
        let positions = texts.iter().map(Vec::len).max().unwrap();
        delete(&mut small, &Keep { pieces: pieces.clone(), positions, ..Keep::all(&config) }).unwrap();
        assert_eq!(small.model.config.vocab, kept.len());
        assert!(positions < config.positions && small.model.config.positions == positions);

        let renumbered: Vec<Vec<u32>> = texts
            .iter()
            .map(|text| text.iter().map(|id| kept.binary_search(id).unwrap() as u32).collect())
            .collect();
        let batch = |texts: &[Vec<u32>]| Batch::from_texts(texts.iter().map(Vec::as_slice));
        let expected = whole.logits(&batch(&texts)).unwrap();
        let found = small.logits(&batch(&renumbered)).unwrap();
        assert_eq!(bits(&found), bits(&expected), "{architecture:?}");
    }
}

#[test]
fn rows_and_moments_stay_with_their_pieces_and_positions() {
    let config = config(Architecture::DistilBert, Pooling::FirstToken, 0.0);
    let mut learner = learner(&config);
    (0..3).for_each(|step| _ = learner.step(&examples(step * 4..step * 4 + 4), None, 1e-2, None).unwrap());
    let table = |kind: &str| format!("distilbert.embeddings.{kind}_embeddings.weight");
    let ids = [table("word"), table("position")].map(|name| id(&learner, &name));
    let before = ids.map(|id| states(&learner, id));
    let pieces: Vec<usize> = (0..config.vocab).filter(|piece| piece % 3 != 1).collect();
    let positions = 5;
    delete(&mut learner, &Keep { pieces: pieces.clone(), positions, ..Keep::all(&config) }).unwrap();
    for ((id, before), kept) in ids.into_iter().zip(&before).zip([&pieces, &(0..positions).collect()]) {
        for (found, before) in states(&learner, id).iter().zip(before) {
            let rows = kept.iter().flat_map(|row| &before[row * config.hidden..][..config.hidden]);
            assert!(found.iter().eq(rows));
        }
        assert!(before[2].iter().any(|&v| v != 0.0), "there were moments");
    }
    // Nothing else is another.
    let expected = limbeck::models::ModelConfig { vocab: pieces.len(), positions, ..config };
    assert_eq!(learner.model.config, expected);
}

/// Texts of random characters, many of them rare.
fn noise(random: &mut SplitMix64, count: usize) -> Vec<String> {
    let pools = [
        "abcdefghijklmnopqrstuvwxyz",
        "EÀéüßñİ 0123456789",
        ".,;:!?-#[]()'\"",
        "北京市 カナ ✓ \u{301}\u{0}\t\n[MASK] [SEP]",
    ];
    let pools = pools.map(|pool| pool.chars().collect::<Vec<char>>());
    let character = |random: &mut SplitMix64| {
        let pool = &pools[[0, 0, 0, 0, 1, 2, 3][random.below(7)]];
        if random.below(6) == 0 { ' ' } else { pool[random.below(pool.len())] }
    };
    (0..count).map(|_| (0..random.below(60)).map(|_| character(random)).collect()).collect()
}

#[test]
fn any_text_is_read_by_a_smaller_tokenizer_and_kept_pieces_as_before() {
    let Some(model) = shared("models/minilm-l6-distil") else { return };
    let whole = Tokenizer::from_directory(&model).unwrap();
    let own = whole.word_piece().unwrap();
    let mut random = SplitMix64::new(3);
    let train_rows = noise(&mut random, 300);
    let (mut words, reading) = (Words::default(), Reading::of(own));
    train_rows.iter().for_each(|text| words.add(&own.encode(text, 512), &reading));
    let least = choose(own, &words, 0).unwrap_err().least;
    let folder = tempfile::tempdir().unwrap();
    for most in [least, least + 100, least + 400, 30_522] {
        let kept = choose(own, &words, most).unwrap();
        assert!(kept.len() <= most && kept.len() < 2_000, "{} of at most {most}", kept.len());
        let small = whole.keep(&kept).unwrap();
        assert_eq!(small.vocab(), kept.len());
        let pieces = small.word_piece().unwrap();
        let mut same = 0;
        for text in train_rows.iter().chain(&noise(&mut random, 300)) {
            let (before, after) = (whole.encode(text, 512), small.encode(text, 512));
            assert!(after.iter().all(|&id| (id as usize) < kept.len()), "{text:?}");
            if before.iter().all(|id| kept.binary_search(id).is_ok()) {
                same += 1;
                assert!(after.iter().map(|&id| kept[id as usize]).eq(before.iter().copied()), "{text:?}");
            } else if let Some(place) = after.iter().position(|&id| id == pieces.unknown()) {
                assert!(place > 0 && after.len() > 2);
            }
        }
        assert!(same > 0);
        // Words of the training rows stay words: none becomes [UNK] that was not.
        for text in &train_rows {
            let unknown = |ids: Vec<u32>, id: u32| ids.into_iter().filter(|&found| found == id).count();
            let (before, after) = (
                unknown(whole.encode(text, 512), own.unknown()),
                unknown(small.encode(text, 512), pieces.unknown()),
            );
            assert!(after <= before, "{text:?}: {after} of {before}");
        }
        // What is saved reads back as the same function, and packs to it.
        let directory = folder.path().join(most.to_string());
        small.save(&directory, 64, true).unwrap();
        let again = Tokenizer::from_directory(&directory).unwrap();
        assert_eq!((again.content_hash(), again.file()), (small.content_hash(), "vocab.txt"));
        let packed = WordPiece::from_bytes(small.pack().unwrap()).unwrap();
        assert!(train_rows.iter().all(|text| packed.encode(text, 40) == again.encode(text, 40)));
        let config: serde_json::Value =
            serde_json::from_slice(&fs::read(directory.join("tokenizer_config.json")).unwrap()).unwrap();
        assert_eq!((&config["model_max_length"], &config["do_lower_case"]), (&64.into(), &true.into()));
        assert!(
            directory.join("special_tokens_map.json").exists() && !directory.join("tokenizer.json").exists()
        );
    }
}

#[test]
fn what_a_vocab_txt_cannot_say_is_refused() {
    let pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "##a"];
    let clean = Rules { clean_text: false, ..Rules::bert(true) };
    let refused = Tokenizer::from_pieces(&pieces, clean).unwrap().keep(&[0, 1, 2, 3, 4]).err().unwrap();
    assert!(refused.contains("control characters"), "{refused}");
    let folder = tempfile::tempdir().unwrap();
    let added = r###"{"version":"1.0","truncation":null,"padding":null,"added_tokens":[
        {"id":0,"content":"[UNK]","single_word":false,"lstrip":false,"rstrip":false,"normalized":false,"special":true},
        {"id":1,"content":"[CLS]","single_word":false,"lstrip":false,"rstrip":false,"normalized":false,"special":true},
        {"id":2,"content":"[SEP]","single_word":false,"lstrip":false,"rstrip":false,"normalized":false,"special":true},
        {"id":4,"content":"[E1]","single_word":false,"lstrip":false,"rstrip":false,"normalized":false,"special":true}],
        "normalizer":{"type":"BertNormalizer","clean_text":true,"handle_chinese_chars":true,"strip_accents":null,"lowercase":true},
        "pre_tokenizer":{"type":"BertPreTokenizer"},"post_processor":null,"decoder":null,
        "model":{"type":"WordPiece","unk_token":"[UNK]","continuing_subword_prefix":"##","max_input_chars_per_word":100,
        "vocab":{"[UNK]":0,"[CLS]":1,"[SEP]":2,"a":3,"[E1]":4}}}"###;
    fs::write(folder.path().join("tokenizer.json"), added).unwrap();
    let refused = Tokenizer::from_directory(folder.path()).unwrap().keep(&[0, 1, 2, 3]).err().unwrap();
    assert!(refused.contains("the added token [E1]"), "{refused}");
}
