//! Blocks of zeros, left out of a file, change no bit of its answers.

use crate::{bits, configs, texts, values};
use limbeck::infer::{Model, Session};
use limbeck::nn::{ParamSpec, Role};
use limbeck::quantize::layout::Layout;
use limbeck::quantize::{Extras, Form, Quantization, quantize};
use limbeck::{Batch, Result};
use limbeck_kernels::Kernels;
use std::path::Path;

/// Values of which a part of the 16×4 blocks are zero in every matrix.
pub fn with_zero_blocks(spec: &ParamSpec) -> Result<Vec<f32>> {
    let mut values = values(spec)?;
    if spec.role == Role::Weight {
        for (place, value) in values.iter_mut().enumerate() {
            let block = place / spec.cols / 16 * spec.cols.div_ceil(4) + place % spec.cols / 4;
            *value *= f32::from(u8::from(block % 5 < 2));
        }
    }
    Ok(values)
}

#[test]
fn blocks_that_are_left_out_are_as_if_they_were_zero() {
    let texts = texts(&[1, 7, 40, 12], 97);
    let batch = Batch::from_texts(texts.iter().map(Vec::as_slice));
    let forms = [Form::Int8, Form::Int4];
    for (config, weights) in configs().into_iter().flat_map(|config| forms.map(|form| (config.clone(), form)))
    {
        let open = |layout: Layout| {
            let (path, quantization) =
                (Path::new("blocks"), Quantization { layout, weights, ..Quantization::INT8 });
            let made = quantize(path, &config, with_zero_blocks, quantization, &Extras::default()).unwrap();
            (made.losses, made.image.into_model(path).unwrap())
        };
        let ((_, dense), (losses, blocks)) = (open(Layout::Dense), open(Layout::Blocks));
        let matrices = losses.iter().filter(|loss| loss.layout.is_some_and(|times| times.blocks)).count();
        assert!(matrices > 0 && blocks.metadata().unwrap().settings.block_sparse == matrices);
        assert_eq!(dense.zeros(), blocks.zeros());
        let bytes = |model: &Model| model.parameters().map(|stored| stored.bytes).sum::<usize>();
        assert!(
            weights == Form::Int4 || bytes(&blocks) < bytes(&dense),
            "whole panels of what has few outputs"
        );
        let expected = bits(Session::new(&dense).logits(&batch).unwrap());
        for kernels in Kernels::available() {
            let mut session = Session::with(&blocks, kernels, 1);
            assert_eq!(
                bits(session.logits(&batch).unwrap()),
                expected,
                "{} {weights:?} {config:?}",
                kernels.isa()
            );
        }
        blocks.check_data().unwrap();
        // Whichever layout is the faster one, the logits are the same.
        let (_, chosen) = open(Layout::Faster);
        assert_eq!(bits(Session::new(&chosen).logits(&batch).unwrap()), expected);
    }
}
