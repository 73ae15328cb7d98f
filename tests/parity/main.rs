//! The engine against PyTorch: logits, hidden states, every gradient, AdamW steps and a loss curve, from the
//! reference files that `make_reference.py` wrote with transformers. On each row of the CPU's kernels, and on a GPU in f32;
//! without one, small networks in the emulation.
#![cfg(feature = "train")]

#[path = "../common/mod.rs"]
mod common;
#[cfg(feature = "cuda")]
#[allow(dead_code, reason = "tests/cuda needs all of it")]
#[path = "../cuda/device.rs"]
mod device;
mod mlm;

use common::{distance, largest_difference, magnitude, query_of_key_bias, worst};
use limbeck::Batch;
use limbeck::autograd::{Grads, Tape};
use limbeck::backend::Cpu;
#[cfg(feature = "cuda")]
use limbeck::backend::cuda::Storage;
use limbeck::checkpoint::{HfDirectory, TensorFile, parse_config, read_values};
use limbeck::models::{Classifier, ModelConfig, Rows};
use limbeck::nn::{ParamId, ParamSpec};
use limbeck::ops::{Backend, loss};
use limbeck::params::ParamStore;
use limbeck::tensor::Tensor;
use limbeck::train::learner::gradients;
use limbeck::train::{AdamW, AdamWSettings, Examples, Learner};
#[cfg(feature = "cuda")]
use limbeck_emulation::Order;
use limbeck_kernels::{Isa, Kernels};
use std::path::Path;

fn close(what: &str, found: &[f32], expected: &[f32], bound: f64) {
    let difference = distance(found, expected);
    println!("{what}: {difference:.1e}");
    assert!(difference <= bound, "{what}: {difference:.2e} is more than {bound:.0e}");
}

/// A reference file.
struct Reference(TensorFile);

impl Reference {
    fn open(name: &str) -> Option<Reference> {
        let path = common::shared(&format!("reference/{name}.safetensors"))?;
        Some(Reference(TensorFile::open(&path).unwrap()))
    }

    /// Tensors whose names begin so.
    fn count(&self, prefix: &str) -> usize {
        self.0.names().filter(|name| name.starts_with(prefix)).count()
    }

    fn floats(&self, name: &str) -> Vec<f32> {
        let mut values = Vec::new();
        self.0.read_f32(name, &mut values).unwrap();
        values
    }

    fn ints(&self, name: &str) -> Vec<i32> {
        let bytes = self.0.bytes(name).unwrap();
        bytes.chunks_exact(4).map(|b| i32::from_le_bytes(b.try_into().unwrap())).collect()
    }

    /// The padded inputs as a ragged batch, and where each of its tokens is in the padded one.
    fn batch(&self, prefix: &str) -> (Batch, Vec<usize>) {
        let (ids, mask) =
            (self.ints(&format!("{prefix}input_ids")), self.ints(&format!("{prefix}attention_mask")));
        let name = format!("{prefix}token_type_ids");
        let types = self.0.shape(&name).map(|_| self.ints(&name));
        let width = self.0.shape(&format!("{prefix}input_ids")).unwrap()[1];
        let (mut batch, mut places) = (Batch::new(), Vec::new());
        for text in 0..ids.len() / width {
            let real: Vec<usize> = (text * width..(text + 1) * width).filter(|&i| mask[i] == 1).collect();
            let tokens: Vec<u32> = real.iter().map(|&i| ids[i] as u32).collect();
            batch.push(&tokens, text as u64);
            if let Some(types) = &types {
                batch.token_types.extend(real.iter().map(|&i| types[i] as u8));
            }
            places.extend(real);
        }
        (batch, places)
    }
}

/// Rows of a padded tensor that are real tokens.
fn unpad(padded: &[f32], places: &[usize], hidden: usize) -> Vec<f32> {
    places.iter().flat_map(|&i| &padded[i * hidden..(i + 1) * hidden]).copied().collect()
}

fn config_of(reference: &Reference) -> ModelConfig {
    let text = reference.0.metadata().get("config").expect("the reference's configuration");
    // The architecture stands in model_type, which to_dict() writes too.
    parse_config(Path::new("reference"), text).unwrap()
}

fn adamw(weight_decay: f64) -> AdamWSettings {
    AdamWSettings { beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay, decay_all: true, clip: 0.0 }
}

/// A key bias's gradient is rounding noise: at most this share of that of the query bias beside it.
const NOISE: f64 = 1e-6;

/// Every gradient against the reference's; parameters that it knows nothing of must have none.
fn compare_gradients<B: Backend>(store: &ParamStore<B>, device: &B, grads: &Grads<B>, reference: &Reference) {
    let found = |id| grads.param(id).expect("every parameter matters").download(device).unwrap();
    for (id, param) in store.iter() {
        let name = &param.spec.name;
        if reference.0.shape(&format!("grad/{name}")).is_none() {
            assert!(grads.param(id).is_none(), "{name} does not matter");
            continue;
        }
        let expected = |name: &str| reference.floats(&format!("grad/{name}"));
        match query_of_key_bias(name) {
            None => close(&format!("gradient of {name}"), &found(id), &expected(name), 1e-4),
            Some(query) => {
                let beside = magnitude(&expected(&query));
                for (whose, gradient) in [("found", found(id)), ("expected", expected(name))] {
                    let noise = magnitude(&gradient) / beside;
                    println!("gradient of {name}, {whose}: {noise:.1e} of the query's");
                    assert!(noise <= NOISE, "{name}, {whose}: {noise:.1e} of the query's");
                }
            }
        }
    }
}

fn tiny(name: &str) {
    let Some(reference) = Reference::open(name) else { return };
    for kernels in Kernels::available() {
        println!("{name} on {}", kernels.isa());
        tiny_on(&Cpu::new(kernels), &reference);
    }
    #[cfg(feature = "cuda")]
    device::in_orders(&[Storage::F32], &[Order::Ascending], |cuda, what| {
        println!("{name} on {what}");
        tiny_on(cuda, &reference);
    });
}

fn tiny_on<B: Backend>(device: &B, reference: &Reference) {
    let config = config_of(reference);
    let (model, specs) = Classifier::new(&config);
    let values = |spec: &ParamSpec| Ok(reference.floats(&format!("weight/{}", spec.name)));
    let params = ParamStore::new(device, &specs, values).unwrap();
    let (batch, places) = reference.batch("input/");
    let labels: Vec<usize> = reference.ints("input/labels").into_iter().map(|l| l as usize).collect();
    let logits = reference.floats("output/logits");

    // Every hidden state, with all rows of the last layer; then the logits without them.
    let mut tape = Tape::evaluating(device, &params, &batch);
    let (output, taps) = model.forward_with_taps(&mut tape, Rows::All).unwrap();
    close("logits, all rows", &output.tensor().download(device).unwrap(), &logits, 2e-5);
    let states = std::iter::once(&taps.embedded).chain(taps.layers.iter().map(|layer| &layer.hidden));
    for (i, state) in states.enumerate() {
        let expected = unpad(&reference.floats(&format!("output/hidden.{i}")), &places, config.hidden);
        close(&format!("hidden {i}"), &state.tensor().download(device).unwrap(), &expected, 2e-5);
    }
    let mut tape = Tape::evaluating(device, &params, &batch);
    let output = model.forward(&mut tape).unwrap();
    close("logits", &output.tensor().download(device).unwrap(), &logits, 2e-5);

    // Loss and gradients.
    let examples = Examples { batch, labels, teacher: None };
    let (found, grads) = gradients(device, &model, &params, &examples, None, None).unwrap();
    close("loss", &[found.total as f32], &reference.floats("output/loss"), 2e-5);
    assert_eq!(reference.count("grad/"), params.len(), "a gradient for each parameter");
    compare_gradients(&params, device, &grads, reference);

    // Three steps of AdamW.
    let optimizer = AdamW::new(device, &params, adamw(0.01)).unwrap();
    let mut learner = Learner { backend: device.clone(), model, params, optimizer, feature_teacher: None };
    for expected in reference.floats("output/losses3") {
        let step = learner.step(&examples, None, 1e-3, None).unwrap();
        close("loss of a step", &[step.loss as f32], &[expected], 1e-4);
    }
    assert_eq!(reference.count("after3/"), learner.params.len(), "values for each parameter");
    let mut compared = 0;
    for (_, param) in learner.params.iter() {
        // AdamW makes whole steps of noise too, in either direction, so nothing can be said of where a key bias
        // goes. Where it goes does not matter: it changes no score but by the same for all.
        if query_of_key_bias(&param.spec.name).is_some() {
            continue;
        }
        let expected = reference.floats(&format!("after3/{}", param.spec.name));
        let difference = largest_difference(&param.value().download(device).unwrap(), &expected);
        println!("{} after 3 steps: {difference:.1e}", param.spec.name);
        assert!(difference <= 1e-5, "{} after 3 steps: {difference:.2e}", param.spec.name);
        compared += 1;
    }
    assert_eq!(compared, learner.params.len() - config.layers.len(), "all but a key bias a layer");
}

#[test]
fn distilbert_equals_transformers() {
    tiny("tiny/distilbert_classifier");
}

#[test]
fn bert_equals_transformers() {
    tiny("tiny/bert_classifier");
}

#[test]
fn distillation_losses_equal_pytorch() {
    let Some(reference) = Reference::open("tiny/distillation_losses") else { return };
    let labels: Vec<usize> = reference.ints("labels").into_iter().map(|l| l as usize).collect();
    let how = loss::Distillation { temperature: 4.0, alpha: 0.7 };
    let (student, teacher) = (reference.floats("student_logits"), reference.floats("teacher_logits"));
    let found = loss::distillation(&student, &labels, &teacher, how);
    close("divergence", &[found.distillation as f32], &reference.floats("kd_loss"), 1e-6);
    close("total", &[found.total as f32], &reference.floats("total_loss"), 1e-6);
    close("gradient", &found.gradient, &reference.floats("grad_student_logits"), 1e-6);
}

#[test]
fn the_pretrained_encoder_equals_transformers() {
    let Some(reference) = Reference::open("minilm_agnews") else { return };
    let Some(path) = common::shared("models/minilm-l6-distil") else { return };
    let directory = HfDirectory::open(&path).unwrap();
    let kernels = Kernels::select().unwrap();
    // Fourteen steps of it take a quarter of an hour without SIMD; f32 gives the same bits on every row.
    let learns = kernels.isa() != Isa::Scalar;
    if !learns {
        common::say("the scalar row: gradients and loss curve of the pretrained encoder are NOT compared");
    }
    encoder_on(&Cpu::new(kernels), &directory, &reference, learns);
    #[cfg(feature = "cuda")]
    device::in_orders(&[Storage::F32], &[Order::Ascending], |cuda, _| {
        // The emulation would take hours.
        if !device::in_emulation() {
            encoder_on(cuda, &directory, &reference, true);
        }
    });
}

/// The encoder's logits and hidden states, and where it `learns` its gradients and twelve steps.
fn encoder_on<B: Backend>(device: &B, directory: &HfDirectory, reference: &Reference, learns: bool) {
    let mut config = directory.config.clone();
    config.labels = (0..4).map(|i| i.to_string()).collect();
    let (model, specs) = Classifier::new(&config);
    let mut values = read_values(directory, &specs, true, 0).unwrap();
    for (spec, values) in specs.iter().zip(&mut values).filter(|(spec, _)| spec.name.contains("classifier")) {
        *values = reference.floats(&format!("head/{}", spec.name));
    }
    let mut values = values.into_iter();
    let params = ParamStore::new(device, &specs, |_| Ok(values.next().unwrap())).unwrap();
    let (batch, _) = reference.batch("");
    let labels: Vec<usize> = reference.ints("labels").into_iter().map(|l| l as usize).collect();

    let mut tape = Tape::evaluating(device, &params, &batch);
    let (output, taps) = model.forward_with_taps(&mut tape, Rows::All).unwrap();
    close("logits", &output.tensor().download(device).unwrap(), &reference.floats("logits"), 2e-5);
    let states = std::iter::once(&taps.embedded).chain(taps.layers.iter().map(|layer| &layer.hidden));
    let first = batch.text(0).len() * config.hidden;
    for (i, state) in states.enumerate() {
        let found = state.tensor().download(device).unwrap();
        close(&format!("hidden {i}"), &found[..first], &reference.floats(&format!("hidden.{i}.row0")), 2e-5);
    }

    if !learns {
        return;
    }
    let examples = Examples { batch, labels, teacher: None };
    let (_, grads) = gradients(device, &model, &params, &examples, None, None).unwrap();
    let names: Vec<String> =
        serde_json::from_str(&reference.0.metadata()["grad_norms_order"]).expect("a list of names");
    let norms = reference.floats("grad_norms");
    assert_eq!((names.len(), norms.len()), (params.len(), params.len()), "a norm for each parameter");
    let expected_of =
        |name: &str| norms[names.iter().position(|other| other == name).expect("the same names")];
    for (id, param) in params.iter() {
        let name = &param.spec.name;
        let found = norm(grads.param(id).expect("every parameter matters"), device);
        match query_of_key_bias(name) {
            None => close(&format!("gradient norm of {name}"), &[found as f32], &[expected_of(name)], 1e-4),
            Some(query) => {
                let noise = found / f64::from(expected_of(&query));
                println!("gradient norm of {name}: {noise:.1e} of the query's");
                assert!(noise <= NOISE, "{name}: {noise:.1e} of the query's");
            }
        }
    }

    let optimizer = AdamW::new(device, &params, adamw(0.01)).unwrap();
    let mut learner = Learner { backend: device.clone(), model, params, optimizer, feature_teacher: None };
    for (step, expected) in reference.floats("loss_curve_lr5e-5").into_iter().enumerate() {
        let found = learner.step(&examples, None, 5e-5, None).unwrap().loss;
        let difference = (found - f64::from(expected)).abs();
        assert!(difference <= 1e-3 * f64::from(expected), "step {step}: {found} {expected}");
    }
}

fn norm<B: Backend>(gradient: &Tensor<B>, device: &B) -> f64 {
    gradient.download(device).unwrap().iter().map(|g| f64::from(*g).powi(2)).sum::<f64>().sqrt()
}

#[test]
fn ids_are_in_order() {
    // The order of parameters is what makes a ParamId; the head comes last.
    let Some(reference) = Reference::open("tiny/distilbert_classifier") else { return };
    let (model, specs) = Classifier::new(&config_of(&reference));
    assert_eq!(model.embeddings.words, ParamId(0));
    assert_eq!(specs.last().unwrap().name, "classifier.bias");
}

#[test]
fn no_bound_holds_for_nan() {
    assert_eq!(worst([1.0, 3.0, 2.0]), 3.0);
    for place in 0..3 {
        let mut found = [0.0_f32; 3];
        found[place] = f32::NAN;
        assert!(largest_difference(&found, &[0.0; 3]).is_nan() && distance(&found, &[1.0; 3]).is_nan());
        assert!(distance(&[1.0; 3], &found).is_nan());
    }
}
