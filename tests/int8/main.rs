//! The inference session: against the reference in f32, and int8 against f32, against itself on every kernel
//! row, in every batch, and beside a dense network whose deleted parts are zeros.
#![cfg(feature = "train")]

mod blocks;
#[path = "../common/mod.rs"]
mod common;
mod int4;
#[allow(dead_code, reason = "its slopes are for compression")]
#[path = "../oracle/mod.rs"]
mod oracle;
mod pairs;
mod qat;
mod reference;

use common::{distance, shared};
use limbeck::infer::{Model, PartTimes, Session};
use limbeck::models::config::{Architecture, LayerConfig, ModelConfig, Pooling, Sizes};
use limbeck::nn::ParamSpec;
use limbeck::quantize::layout::Layout as MatrixLayout;
use limbeck::quantize::{Extras, Form, Quantization, quantize};
use limbeck::{Batch, Result};
use limbeck_kernels::Kernels;
use limbeck_kernels::random::{SplitMix64, mix};
use oracle::Oracle;
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::path::Path;

/// The system's allocator, which counts what each thread asks for.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: every call is handed to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// Numbers in [-1, 1) that depend on a name and a place alone.
fn random(name: &str, len: usize) -> Vec<f32> {
    let mut random = SplitMix64::new(name.bytes().fold(0, |key, byte| mix(key ^ u64::from(byte))));
    (0..len).map(|_| random.signed_unit()).collect()
}

/// Values that keep activations in a natural range.
fn values(spec: &ParamSpec) -> Result<Vec<f32>> {
    use limbeck::nn::Role;
    let spread = match spec.role {
        Role::Embedding | Role::Bias | Role::Beta => 0.5,
        Role::Weight => 1.7 / (spec.cols.max(1) as f32).sqrt(),
        Role::Gamma => 0.3,
    };
    let centre = if spec.role == Role::Gamma { 1.0 } else { 0.0 };
    Ok(random(&spec.name, spec.len()).into_iter().map(|x| centre + spread * x).collect())
}

fn config(architecture: Architecture, pooling: Pooling, layers: Vec<LayerConfig>) -> ModelConfig {
    ModelConfig {
        architecture,
        token_types: if architecture == Architecture::Bert { 2 } else { 0 },
        layers,
        pooling,
        ..ModelConfig::distilbert(
            Sizes { vocab: 97, positions: 40, hidden: 36, heads: 4, intermediate: 19, layers: 0 },
            ["a", "b", "c"],
        )
    }
}

fn pruned_layers() -> Vec<LayerConfig> {
    [(vec![], 5), (vec![1], 0), (vec![0, 1, 3], 17)]
        .map(|(heads, intermediate)| LayerConfig { heads, intermediate })
        .to_vec()
}

fn texts(lengths: &[usize], vocab: usize) -> Vec<Vec<u32>> {
    let text = |(place, &length): (usize, &usize)| {
        let ids = random(&format!("text {place}"), length);
        ids.into_iter().map(|x| ((x + 1.0) / 2.0 * vocab as f32) as u32).collect()
    };
    lengths.iter().enumerate().map(text).collect()
}

fn int8(config: &ModelConfig, quantization: Quantization) -> Model {
    let path = Path::new("test model");
    let quantized = quantize(path, config, values, quantization, &Extras::default()).unwrap();
    quantized.image.into_model(path).unwrap()
}

fn bits(logits: &[f32]) -> Vec<u32> {
    logits.iter().map(|logit| logit.to_bits()).collect()
}

/// Every family and pooling, dense and pruned; words that are narrower than the network, and narrow networks; factored
/// matrices, with keys and values of the last layer whole, or one of them, or none; shared layers, factored and not.
fn configs() -> Vec<ModelConfig> {
    let families = [
        (Architecture::DistilBert, Pooling::FirstToken),
        (Architecture::DistilBert, Pooling::Mean),
        (Architecture::Bert, Pooling::Pooler),
        (Architecture::Bert, Pooling::FirstToken),
        (Architecture::Bert, Pooling::Mean),
    ];
    let nothing_left = LayerConfig { heads: vec![], intermediate: 0 };
    let layers = [pruned_layers(), vec![LayerConfig::dense(4, 19); 2], vec![nothing_left]];
    let whole = families.iter().flat_map(|&(a, p)| layers.clone().map(|layers| config(a, p, layers)));
    let factored = families[..3]
        .iter()
        .zip([10, 16, 1])
        .map(|(&(a, p), size)| ModelConfig { embedding_size: Some(size), ..config(a, p, pruned_layers()) });
    // Heads that are wider together than the network, as where hidden features were deleted.
    let narrow = families[1..4].iter().zip([20, 33, 7]);
    let narrow = narrow.map(|(&(a, p), hidden)| ModelConfig { hidden, ..config(a, p, layers[1].clone()) });
    let thin = [[9, 1, 2, 3, 4, 5], [7, 0, 0, 8, 9, 0], [10, 11, 12, 13, 5, 6]];
    let last = [[10, 0, 0, 13, 5, 0], [0, 0, 12, 0, 0, 6], [5; 6]];
    let ranks = families.iter().zip([thin[2], last[0], last[1], last[0], last[2]]);
    let ranks = ranks.map(|(&(a, p), last)| ModelConfig {
        ranks: vec![thin[0], thin[1], last],
        ..config(a, p, pruned_layers())
    });
    let four = |heads: &[usize], intermediate| vec![LayerConfig { heads: heads.to_vec(), intermediate }; 4];
    let shared = families.iter().zip([0, 0, 3, 0, 4]).map(|(&(a, p), rank)| ModelConfig {
        shared: if a == Architecture::Bert { vec![0, 0, 2, 2] } else { vec![0; 4] },
        ranks: if rank == 0 { vec![] } else { vec![[rank; 6]; 4] },
        ..config(a, p, four(&[0, 2, 3], 17))
    });
    whole.chain(factored).chain(narrow).chain(ranks).chain(shared).collect()
}

const FORMS: [Quantization; 6] = [
    Quantization::NONE,
    Quantization::INT8,
    Quantization { weights: Form::Int8Tensor, ..Quantization::NONE },
    Quantization { weights: Form::F32, ..Quantization::INT8 },
    INT4,
    Quantization { weights: Form::Bf16, embeddings: Form::F16, ..Quantization::NONE },
];

const INT4: Quantization = Quantization { weights: Form::Int4, embeddings: Form::Int4, ..Quantization::INT8 };

#[test]
fn logits_are_the_same_bits_on_every_row_in_every_batch_and_alone() {
    // More tokens than go through the network together, and lengths on both sides of sixteen.
    let texts = texts(&[1, 40, 15, 16, 17, 2, 40, 33, 40, 40, 40, 3, 40, 40, 1], 97);
    let all = Batch::from_texts(texts.iter().map(Vec::as_slice));
    for config in configs() {
        for quantization in FORMS {
            let model = int8(&config, quantization);
            let expected = bits(Session::new(&model).logits(&all).unwrap());
            assert_eq!(expected.len(), texts.len() * 3);
            assert!(expected.iter().all(|&logit| f32::from_bits(logit).is_finite()));
            for kernels in Kernels::available() {
                let mut session = Session::with(&model, kernels, 1);
                assert_eq!(bits(session.logits(&all).unwrap()), expected, "{} {config:?}", kernels.isa());
                for (text, expected) in texts.iter().zip(expected.chunks(3)) {
                    let alone = session.logits(&Batch::from_texts([text.as_slice()])).unwrap();
                    assert_eq!(bits(alone), expected, "a text of {} alone on {}", text.len(), kernels.isa());
                }
            }
        }
    }
}

/// Wherever the rows of a text are divided, and with more threads than tokens.
#[test]
fn any_number_of_threads_gives_the_same_bits() {
    let texts = texts(&[1, 40, 15, 2, 1, 33, 40, 1], 97);
    let all = Batch::from_texts(texts.iter().map(Vec::as_slice));
    for config in configs() {
        for quantization in [Quantization::NONE, Quantization::INT8] {
            let model = int8(&config, quantization);
            let mut alone = Session::new(&model);
            for threads in [2, 5] {
                let mut session = Session::with_threads(&model, threads);
                for batch in std::iter::once(all.clone())
                    .chain(texts.iter().map(|text| Batch::from_texts([text.as_slice()])))
                {
                    let expected = bits(alone.logits(&batch).unwrap());
                    assert_eq!(
                        bits(session.logits(&batch).unwrap()),
                        expected,
                        "{threads} threads, {config:?}"
                    );
                }
            }
        }
    }
}

/// More tokens than go through a network at once, token types, blocks, and times.
#[test]
fn threads_share_one_pass_after_the_other() {
    let texts = texts(&[[40, 7, 33].as_slice(); 12].concat(), 97);
    let mut batch = Batch::from_texts(texts.iter().map(Vec::as_slice));
    batch.token_types = (0..batch.ids.len()).map(|place| (place % 7 == 3) as u8).collect();
    let config = config(Architecture::Bert, Pooling::Pooler, vec![LayerConfig::dense(4, 19); 2]);
    let model = int8(&config, Quantization { layout: MatrixLayout::Blocks, ..Quantization::INT8 });
    let expected = bits(Session::new(&model).logits(&batch).unwrap());
    for kernels in Kernels::available() {
        let mut session = Session::with(&model, kernels, 3);
        let mut times = PartTimes::new(model.classifier());
        assert_eq!(bits(session.logits_timed(&batch, &mut times).unwrap()), expected, "{}", kernels.isa());
        assert!(times.spent.iter().all(|spent| !spent.is_zero()));
    }
}

/// int8 is rounding and nothing else: the session is many times nearer to exact arithmetic with the same rounding
/// than that is to f32, or it is as near as f32's own errors allow. They are not equal, since a value within 1e-6 of
/// the middle between two steps may round to the other one, and attention, which rounds what it reads and its
/// weights, carries one such value of a key into every row: how far is measured, by oracles with errors of that size.
/// Says whether the first was the case.
fn compare_with_oracle(model: &Model, oracle: impl Fn() -> Oracle, texts: &[&[u32]], exact: &[f32]) -> bool {
    let logits = |oracle: Oracle| -> Vec<f32> {
        texts.iter().flat_map(|ids| oracle.logits(ids)).map(|logit| logit as f32).collect()
    };
    let rounded = logits(oracle());
    let mut session = Session::new(model);
    let ours = session.logits(&Batch::from_texts(texts.iter().copied())).unwrap();
    let (error, loss) = (distance(ours, &rounded), distance(exact, &rounded));
    let carried =
        (0..6).map(|seed| distance(&logits(oracle().with_noise(seed)), &rounded)).fold(0.0, f64::max);
    println!(
        "from the oracle {error:.1e}, which is {loss:.1e} from f32, and {carried:.1e} from itself with f32's errors"
    );
    assert!(
        error <= (0.1 * loss).max(1.5 * carried),
        "{error} from the oracle; {loss} from f32, {carried} carried"
    );
    error <= 0.1 * loss
}

#[test]
fn sessions_compute_what_the_formulas_say() {
    let texts = texts(&[1, 7, 40, 12], 97);
    let texts: Vec<&[u32]> = texts.iter().map(Vec::as_slice).collect();
    let batch = Batch::from_texts(texts.iter().copied());
    let mut near = 0;
    for config in configs() {
        let exact =
            Session::new(&Model::from_values(&config, values).unwrap()).logits(&batch).unwrap().to_vec();
        let oracle = Oracle::new(&config, values, false);
        let formulas: Vec<f32> =
            texts.iter().flat_map(|ids| oracle.logits(ids)).map(|logit| logit as f32).collect();
        let worst = distance(&exact, &formulas);
        assert!(worst <= 2e-5, "{worst} with {config:?}");
        let model = int8(&config, Quantization::NONE);
        assert_eq!(bits(Session::new(&model).logits(&batch).unwrap()), bits(&exact), "f32 from a file");
        let model = int8(&config, Quantization::INT8);
        near +=
            usize::from(compare_with_oracle(&model, || Oracle::new(&config, values, true), &texts, &exact));
    }
    assert!(near >= configs().len() * 2 / 3, "only {near} are near: errors hide what is compared");
}

/// The values of the dense network that computes what the pruned one does: zeros where parts were deleted.
fn with_zeros(pruned: &ModelConfig, spec: &ParamSpec) -> Vec<f32> {
    let (_, specs) = limbeck::models::Classifier::new(pruned);
    let small = specs.iter().find(|small| small.name == spec.name).unwrap();
    let held = values(small).unwrap();
    if (small.rows, small.cols) == (spec.rows, spec.cols) {
        return held;
    }
    let layer: usize = spec.name.split('.').find_map(|part| part.parse().ok()).unwrap();
    let layer = &pruned.layers[layer];
    let size = pruned.head_size;
    let is_head = spec.name.contains("attention");
    let kept: Vec<usize> = if is_head {
        layer.heads.iter().flat_map(|head| head * size..(head + 1) * size).collect()
    } else {
        (0..layer.intermediate).collect()
    };
    let mut dense = vec![0.0; spec.len()];
    for row in 0..small.rows {
        for col in 0..small.cols {
            let to_row = if small.rows == spec.rows { row } else { kept[row] };
            let to_col = if small.cols == spec.cols { col } else { kept[col] };
            dense[to_row * spec.cols + to_col] = held[row * small.cols + col];
        }
    }
    dense
}

#[test]
fn what_is_deleted_is_as_if_it_were_zero() {
    let batch = Batch::from_texts(texts(&[1, 7, 40, 12], 97).iter().map(Vec::as_slice));
    for (architecture, pooling) in
        [(Architecture::DistilBert, Pooling::FirstToken), (Architecture::Bert, Pooling::Mean)]
    {
        let pruned = config(architecture, pooling, pruned_layers());
        let dense = pruned.dense();
        for quantization in [Quantization::NONE, Quantization::INT8] {
            let small = int8(&pruned, quantization.clone());
            let path = Path::new("dense");
            let zeros = |spec: &ParamSpec| Ok(with_zeros(&pruned, spec));
            let large = quantize(path, &dense, zeros, quantization.clone(), &Extras::default()).unwrap();
            assert!(small.parameters().map(|p| p.bytes).sum::<usize>() < large.image.bytes().len());
            let large = large.image.into_model(path).unwrap();
            // A product with zeros adds exact zeros, and zeros never set a scale: equal to the bit.
            assert_eq!(
                bits(Session::new(&small).logits(&batch).unwrap()),
                bits(Session::new(&large).logits(&batch).unwrap()),
                "{quantization:?}"
            );
        }
    }
}

#[test]
fn nothing_is_allocated_after_the_first_batch() {
    let long = Batch::from_texts(texts(&[40; 12], 97).iter().map(Vec::as_slice));
    let short = Batch::from_texts(texts(&[1, 5, 40, 17], 97).iter().map(Vec::as_slice));
    for config in configs() {
        for quantization in FORMS {
            let model = int8(&config, quantization.clone());
            let mut session = Session::new(&model);
            session.logits(&long).unwrap();
            let before = ALLOCATIONS.get();
            for batch in [&short, &long, &short] {
                session.logits(batch).unwrap();
            }
            assert_eq!(ALLOCATIONS.get() - before, 0, "{quantization:?} {config:?}");
        }
    }
}

#[test]
fn texts_that_the_model_cannot_read_are_errors() {
    let model = int8(&config(Architecture::Bert, Pooling::Pooler, pruned_layers()), Quantization::INT8);
    let mut session = Session::new(&model);
    let ids = [5; 41];
    let mut wrong_type = Batch::from_texts([&ids[..2]]);
    wrong_type.token_types = vec![0, 2];
    for (batch, word) in [
        (Batch::from_texts([&ids[..]]), "41 tokens"),
        (Batch::from_texts([&ids[..3], &[]]), "text 1"),
        (Batch::from_texts([&[1, 97][..]]), "token id 97"),
        (wrong_type, "token type 2"),
    ] {
        let error = session.logits(&batch).unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
    }
    assert!(session.logits(&Batch::new()).unwrap().is_empty());
    assert_eq!(session.logits(&Batch::from_texts([&ids[..40]])).unwrap().len(), 3);
}
