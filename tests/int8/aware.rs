//! Quantization-aware training: a forward pass that rounds gives the logits of the file.

use super::{FORMS, INT4, bits, configs, int8, texts, values};
use limbeck::Batch;
use limbeck::backend::Cpu;
use limbeck::compress::quantize::{Form, Quantization};
use limbeck::infer::Session;
use limbeck::models::Classifier;
use limbeck::params::ParamStore;
use limbeck::train::learner::logits;
use limbeck_kernels::Kernels;

#[test]
fn training_computes_what_the_file_will_to_the_bit() {
    let lengths: Vec<usize> = [1, 40, 15, 16, 17, 2, 33, 3, 97 % 40].into_iter().cycle().take(20).collect();
    let texts = texts(&lengths, 97);
    let batch = Batch::from_texts(texts.iter().map(Vec::as_slice));
    let forms = FORMS.into_iter().chain([Quantization { weights: Form::Int4, ..Quantization::INT8 }]);
    // Those without matrices in int8 compute in f32, where the order of sums is training's own.
    let forms: Vec<Quantization> = forms.filter(|form| form.weights.is_integer()).collect();
    assert!(forms.contains(&INT4) && forms.len() >= 4);
    for config in configs() {
        let (model, specs) = Classifier::new(&config);
        for form in &forms {
            let file = int8(&config, *form);
            let expected = bits(Session::new(&file).logits(&batch).unwrap());
            for kernels in Kernels::available() {
                let cpu = Cpu::new(kernels);
                let mut params = ParamStore::new(&cpu, &specs, values).unwrap();
                let exact = logits(&cpu, &model, &params, &batch).unwrap();
                params.round(Some(form.rounding()));
                let rounded = logits(&cpu, &model, &params, &batch).unwrap();
                assert_eq!(bits(&rounded), expected, "{form:?} on {} {config:?}", kernels.isa());
                assert_ne!(bits(&exact), expected, "rounding is not for nothing");
                params.round(None);
                assert_eq!(bits(&logits(&cpu, &model, &params, &batch).unwrap()), bits(&exact));
            }
        }
    }
}
