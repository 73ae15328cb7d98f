//! A model that is part of the program, as `include_model!` puts it there. Of the engine's tests the one that the
//! inference build (`--no-default-features`) has as well.

use limbeck::infer::{Model, Session};
use limbeck::{Batch, include_model};
use std::sync::Arc;

static TINY: &[u8] = include_model!("fixtures/tiny.limbeck");

#[test]
fn a_model_is_part_of_the_program() {
    assert_eq!(TINY.as_ptr().addr() % 64, 0, "as its tensors must lie");
    let model = Model::from_bytes(TINY).unwrap();
    // The logits of when the file was written, whichever CPU and build wrote it, bit for bit.
    assert!(model.metadata().unwrap().golden.len() >= 3);
    model.check_golden().unwrap();
    let ids = model.tokenizer().unwrap().encode("Unaffable.", 12);
    assert_eq!(ids, [2, 5, 6, 7, 8, 3]);
    let mut session = Session::new(&model);
    let alone = session.logits(&Batch::from_texts([ids.as_slice()])).unwrap().to_vec();
    assert!(alone.len() == model.config().labels.len() && alone.iter().all(|logit| logit.is_finite()));
    let other = session.logits(&Batch::from_texts([&[2, 3][..], &ids])).unwrap();
    assert_eq!(other[alone.len()..], alone, "and beside another text");
    assert_ne!(other[..alone.len()], alone);
}

#[test]
fn a_model_can_be_included_within_a_function() {
    let model = Model::from_bytes(include_model!("fixtures/tiny.limbeck")).unwrap();
    assert_eq!(model.config().labels, ["no", "yes"]);
}

#[test]
fn threads_with_sessions_of_their_own_share_one_model() {
    fn shared<T: Send + Sync>(model: T) -> T {
        model
    }
    let model = shared(Model::from_bytes(TINY).unwrap());
    let texts: Vec<Vec<u32>> = (0..10).map(|i| [2].into_iter().chain(5..5 + i % 4).collect()).collect();
    let logits = |text: &[u32], session: &mut Session<'_>| -> Vec<u32> {
        let logits = session.logits(&Batch::from_texts([text])).unwrap();
        logits.iter().map(|logit| logit.to_bits()).collect()
    };
    let mut alone = Session::new(&model);
    let expected: Vec<Vec<u32>> = texts.iter().map(|text| logits(text, &mut alone)).collect();
    std::thread::scope(|scope| {
        for first in 0..4 {
            let (model, texts, expected) = (&model, &texts, &expected);
            scope.spawn(move || {
                let mut session = Session::new(model);
                for place in (0..500).map(|i| (3 * first + i) % texts.len()) {
                    assert_eq!(logits(&texts[place], &mut session), expected[place], "text {place}");
                }
            });
        }
    });
}

/// What is made of a shared model lives as long as anybody has it.
#[test]
fn what_shares_a_model_keeps_it() {
    let model = Arc::new(Model::from_bytes(TINY).unwrap());
    let batch = Batch::from_texts([&[2, 5, 6, 3][..]]);
    let expected = Session::new(&model).logits(&batch).unwrap().to_vec();
    let ids = model.tokenizer().unwrap().encode("aa bc", 9);
    let (mut session, tokenizer) = (Session::new(Arc::clone(&model)), model.shared_tokenizer().unwrap());
    let weak = Arc::downgrade(&model);
    drop(model);
    let answered = std::thread::spawn(move || session.logits(&batch).unwrap().to_vec()).join().unwrap();
    assert_eq!(answered, expected);
    assert_eq!(tokenizer.encode("aa bc", 9), ids);
    drop(tokenizer);
    assert!(weak.upgrade().is_none());
}

#[test]
fn the_readme_shows_the_example() {
    let example = include_str!("../tools/embed/src/main.rs");
    let readme = include_str!("../README.md");
    let shown = readme.split("```rust\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    assert!(
        shown.contains("Model::open") && example.contains(shown.trim_end()),
        "README.md shows another program"
    );
}

/// However many threads share the texts, and however few tokens there are.
#[test]
fn threads_answer_as_one_does() {
    let model = Model::from_bytes(TINY).unwrap();
    let texts: Vec<Vec<u32>> = (0..10).map(|i| [2].into_iter().chain(5..5 + i % 4).collect()).collect();
    let texts: Vec<&[u32]> = texts.iter().map(Vec::as_slice).collect();
    for threads in [0, 1, 2, 3, 16] {
        let mut session = Session::with_threads(&model, threads);
        for count in [0, 1, 2, 7, 10, 3] {
            let batch = Batch::from_texts(texts[..count].iter().copied());
            let expected = Session::new(&model).logits(&batch).unwrap().to_vec();
            assert_eq!(session.logits(&batch).unwrap(), expected, "{count} texts, {threads} threads");
        }
        let error = session.logits(&Batch::from_texts([&[2][..], &[99], &[2]])).unwrap_err().to_string();
        assert!(error.contains("token id 99"), "{error}");
    }
}

#[cfg(feature = "train")]
mod writing {
    use limbeck::models::ModelConfig;
    use limbeck::models::config::{DropoutConfig, LayerConfig, Sizes};
    use limbeck::quantize::{Extras, Quantization, golden_texts, quantize};
    use limbeck::tokenizer::{Rules, WordPiece};
    use std::path::Path;

    const PIECES: [&str; 9] = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "un", "##aff", "##able", "."];

    /// Writes the file that is embedded above. Only a new version of the format asks for it:
    /// `cargo test --release -p limbeck --test embedded -- --ignored`
    #[test]
    #[ignore = "writes the file that the other tests read"]
    fn write_the_file() {
        let config = ModelConfig {
            layers: vec![LayerConfig { heads: vec![1], intermediate: 7 }],
            dropout: DropoutConfig { hidden: 0.1, attention: 0.1, classifier: 0.1 },
            ..ModelConfig::distilbert(
                Sizes {
                    vocab: PIECES.len(),
                    positions: 12,
                    hidden: 8,
                    heads: 2,
                    intermediate: 12,
                    layers: 0,
                },
                ["no", "yes"],
            )
        };
        let extras = Extras {
            vocabulary: Some(WordPiece::pack(&PIECES, Rules::bert(true)).unwrap()),
            golden: golden_texts(&config),
            ..Extras::default()
        };
        let values = |spec: &limbeck::nn::ParamSpec| {
            let start = spec.name.bytes().map(usize::from).sum::<usize>();
            Ok((0..spec.len()).map(|place| ((start + 31 * place) % 97) as f32 / 97.0 - 0.4).collect())
        };
        let made = quantize(Path::new("tiny"), &config, values, Quantization::INT8, &extras).unwrap();
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tiny.limbeck");
        made.image.write(&path).unwrap();
    }
}
