//! rten on ONNX Runtime's dynamic int8 file, or any ONNX file: `peer-rten MODEL.onnx THREADS`.

use limbeck_peers_protocol::{Failure, forward, padded, ready, serve, texts};
use rten::{ModelOptions, RunOptions, ThreadPool};
use rten_tensor::NdTensor;
use rten_tensor::prelude::*;
use std::sync::Arc;

fn main() -> Result<(), Failure> {
    let mut typed = std::env::args().skip(1);
    let (Some(path), Some(threads)) = (typed.next(), typed.next()) else {
        return Err("usage: peer-rten MODEL.onnx THREADS".into());
    };
    let mut options = ModelOptions::with_all_ops();
    options.prepack_weights(true);
    let model = options.load_file(&path)?;
    let pool = Arc::new(ThreadPool::with_num_threads(threads.parse()?));
    let (input, mask_input, output) =
        (model.node_id("input_ids")?, model.node_id("attention_mask")?, model.node_id("logits")?);
    ready("0.27.0");
    serve(|request| {
        let texts = texts(request)?;
        let (ids, mask, longest) = padded(&texts);
        let tensor = |values: Vec<u32>| {
            let values = values.into_iter().map(|value| value as i32).collect::<Vec<_>>();
            NdTensor::from_data([texts.len(), longest], values)
        };
        let (ids, mask) = (tensor(ids), tensor(mask));
        forward(request, texts.len(), || {
            let mut options = RunOptions::default();
            options.thread_pool = Some(pool.clone());
            let inputs = vec![(input, ids.view().into()), (mask_input, mask.view().into())];
            let [logits] = model.run_n(inputs, [output], Some(options))?;
            let logits: NdTensor<f32, 2> = logits.try_into()?;
            Ok(logits.to_vec())
        })
    });
    Ok(())
}
