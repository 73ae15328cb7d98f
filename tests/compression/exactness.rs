//! What may not change a result: leaving out rows that nobody reads, a text's place in its batch, threads.

use crate::common::{distance, largest_difference, query_of_key_bias};
use crate::network::{bits, config, download, examples, learner, learner_on};
use limbeck::Batch;
use limbeck::autograd::{Grads, Tape};
use limbeck::backend::Cpu;
use limbeck::models::config::{Architecture, Pooling};
use limbeck::models::{ModelConfig, Rows};
use limbeck::ops::dropout::DropoutSeed;
use limbeck::tensor::Tensor;
use limbeck::train::{Examples, Learner};
use limbeck_kernels::Kernels;
use limbeck_kernels::gemm::Precision;

/// Logits, and gradients of a functional of them.
fn forward_and_back(
    learner: &Learner<Cpu>,
    batch: &Batch,
    rows: Rows,
    noise: DropoutSeed,
) -> (Vec<f32>, Grads<Cpu>) {
    let mut tape = Tape::recording(&learner.backend, &learner.params, batch, Some(noise));
    let (logits, taps) = learner.model.forward_with_taps(&mut tape, rows).unwrap();
    drop(taps);
    let dy = crate::network::random("functional", logits.tensor().shape().len());
    let dy = Tensor::upload(&learner.backend, &dy, logits.tensor().shape()).unwrap();
    (download(learner, logits.tensor()), tape.backward([(logits, dy)]).unwrap())
}

#[test]
fn a_last_layer_of_first_tokens_gives_the_whole_layer_s_logits_and_gradients() {
    for (architecture, pooling) in [
        (Architecture::DistilBert, Pooling::FirstToken),
        (Architecture::Bert, Pooling::FirstToken),
        (Architecture::Bert, Pooling::Pooler),
    ] {
        // With dropout: the rows that are left meet the same.
        let learner = learner(&config(architecture, pooling, 0.2));
        let (batch, noise) = (examples(0..7).batch, DropoutSeed { seed: 1, step: 4 });
        let (logits, grads) = forward_and_back(&learner, &batch, Rows::Needed, noise);
        let (all_logits, all_grads) = forward_and_back(&learner, &batch, Rows::All, noise);
        assert_eq!(bits(&logits), bits(&all_logits), "{architecture:?} {pooling:?}");
        for (id, param) in learner.params.iter() {
            let of =
                |grads: &Grads<Cpu>| download(&learner, grads.param(id).expect("every parameter matters"));
            let (found, expected) = (of(&grads), of(&all_grads));
            // The gradient of a key's bias is zero but for rounding.
            let error = if query_of_key_bias(&param.spec.name).is_some() {
                largest_difference(&found, &expected)
            } else {
                distance(&found, &expected)
            };
            assert!(error <= 1e-6, "{architecture:?} {pooling:?} {}: {error:.1e}", param.spec.name);
        }
    }
}

/// The logits of each text of a batch in training, and the first layer's output rows.
fn with_dropout(learner: &Learner<Cpu>, batch: &Batch, noise: DropoutSeed) -> Vec<(Vec<f32>, Vec<f32>)> {
    let mut tape = Tape::recording(&learner.backend, &learner.params, batch, Some(noise));
    let (logits, taps) = learner.model.forward_with_taps(&mut tape, Rows::Needed).unwrap();
    let (logits, hidden) =
        (download(learner, logits.tensor()), download(learner, taps.layers[0].hidden.tensor()));
    let (classes, width) = (learner.model.config.labels.len(), learner.model.config.hidden);
    let of_text = |text: usize| {
        let rows = batch.text(text);
        let logits = logits[text * classes..(text + 1) * classes].to_vec();
        (logits, hidden[rows.start * width..rows.end * width].to_vec())
    };
    (0..batch.texts()).map(of_text).collect()
}

#[test]
fn a_text_meets_the_same_dropout_in_every_batch() {
    let learner = learner(&config(Architecture::DistilBert, Pooling::FirstToken, 0.3));
    let noise = DropoutSeed { seed: 8, step: 2 };
    let of = |samples: &[u64], noise: DropoutSeed| {
        with_dropout(&learner, &examples(samples.iter().copied()).batch, noise)
    };
    let together = of(&[1, 2, 3, 4, 6, 8], noise);
    for (place, sample) in [1, 2, 3, 4, 6, 8].into_iter().enumerate() {
        assert_eq!(of(&[sample], noise)[0], together[place], "text {sample} alone");
        assert_eq!(of(&[8, 5, sample, 7], noise)[2], together[place], "text {sample} among others");
    }
    // The key is (seed, step, sample), each of which matters.
    for other in [DropoutSeed { seed: 9, ..noise }, DropoutSeed { step: 3, ..noise }] {
        assert_ne!(of(&[2], other)[0], together[1]);
    }
    let renumbered = Batch { samples: vec![99], ..examples([2]).batch };
    assert_ne!(with_dropout(&learner, &renumbered, noise)[0], together[1]);
}

/// Parameters after three steps on `threads` threads.
fn trained(config: &ModelConfig, precision: Precision, threads: usize) -> Vec<Vec<u32>> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
    pool.install(|| {
        let cpu = Cpu::new(Kernels::select().unwrap()).with_precision(precision);
        let mut learner = learner_on(cpu, config);
        for step in 0..3 {
            // More tokens than one task of any sum has.
            let examples: Examples = examples(step * 140..step * 140 + 140);
            assert!(examples.batch.tokens() > 600);
            learner.step(&examples, Some(DropoutSeed { seed: 3, step }), 1e-3, None).unwrap();
        }
        learner.params.iter().map(|(_, param)| bits(&download(&learner, param.value()))).collect()
    })
}

#[test]
fn weights_do_not_depend_on_the_number_of_threads() {
    let config = config(Architecture::Bert, Pooling::Mean, 0.1);
    for precision in [Precision::F32, Precision::Bf16] {
        let alone = trained(&config, precision, 1);
        for threads in [2, 3] {
            assert!(trained(&config, precision, threads) == alone, "{precision:?} on {threads} threads");
        }
    }
}
