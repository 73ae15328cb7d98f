//! Masked language models: logits, the loss and every gradient, the head's by chunks of the vocabulary's logits.

#[cfg(feature = "cuda")]
use crate::device;
use crate::{Reference, close, compare_gradients, config_of, unpad};
use limbeck::autograd::Tape;
use limbeck::backend::Cpu;
#[cfg(feature = "cuda")]
use limbeck::backend::cuda::Storage;
use limbeck::models::Classifier;
use limbeck::models::mlm::MlmHead;
use limbeck::nn::{Exec, ParamBuilder, ParamSpec};
use limbeck::ops::Backend;
use limbeck::params::ParamStore;
#[cfg(feature = "cuda")]
use limbeck_emulation::Order;
use limbeck_kernels::Kernels;

fn masked(name: &str) {
    let Some(reference) = Reference::open(name) else { return };
    for kernels in Kernels::available() {
        println!("{name} on {}", kernels.isa());
        masked_on(&Cpu::new(kernels), &reference);
    }
    #[cfg(feature = "cuda")]
    device::in_orders(&[Storage::F32], &[Order::Ascending], |cuda, what| {
        println!("{name} on {what}");
        masked_on(cuda, &reference);
    });
}

fn masked_on<B: Backend>(device: &B, reference: &Reference) {
    let config = config_of(reference);
    let (batch, places) = reference.batch("input/");
    let labels = reference.ints("input/labels");
    let of_tokens = places.iter().map(|&place| labels[place]).zip(0..).filter(|(label, _)| *label >= 0);
    let (words, tokens): (Vec<u32>, Vec<u32>) = of_tokens.map(|(label, token)| (label as u32, token)).unzip();
    assert_eq!(
        words.len(),
        labels.iter().filter(|label| **label >= 0).count(),
        "only real tokens have a label"
    );
    assert!(!words.is_empty() && words.len() < places.len(), "some tokens are masked, others are not");
    let (model, specs) = Classifier::new(&config);
    let mut declare = ParamBuilder { specs };
    let head = MlmHead::new(&mut declare, &model).unwrap();
    // A classifier's own head is no part of a language model.
    let values = |spec: &ParamSpec| {
        let name = format!("weight/{}", spec.name);
        Ok(reference.0.shape(&name).map_or_else(|| vec![0.0; spec.len()], |_| reference.floats(&name)))
    };
    let params = ParamStore::new(device, &declare.specs, values).unwrap();

    let mut tape = Tape::evaluating(device, &params, &batch);
    let states = model.states(&mut tape).unwrap();
    let all: Vec<u32> = (0..places.len() as u32).collect();
    let read = head.read(&mut tape, &states, &all).unwrap();
    let logits = tape.linear(&head.projector, &read).unwrap();
    let expected = unpad(&reference.floats("output/logits"), &places, config.vocab);
    close("logits", &logits.tensor().download(device).unwrap(), &expected, 2e-5);

    let mut tape = Tape::recording(device, &params, &batch, None);
    let states = model.states(&mut tape).unwrap();
    let (pending, by_h) = head.loss(&mut tape, &states, [&tokens, &words], None, 1.0).unwrap();
    let loss = device.losses(pending).unwrap();
    close("loss", &[loss.total as f32], &reference.floats("output/loss"), 2e-5);
    assert_eq!(reference.count("grad/"), reference.count("weight/"), "a gradient for each parameter");
    let known = params.iter().filter(|(_, p)| reference.0.shape(&format!("grad/{}", p.spec.name)).is_some());
    assert_eq!(known.count(), reference.count("grad/"), "each under the same name");
    compare_gradients(&params, device, &tape.backward(by_h).unwrap(), reference);
}

#[test]
fn masked_distilbert_equals_transformers() {
    masked("tiny/distilbert_masked_lm");
}

#[test]
fn masked_bert_equals_transformers() {
    masked("tiny/bert_masked_lm");
}
