//! Steps of several ranks: gradients are summed while others are still computed, and the bits are those of sums that were not.

use crate::fixture::learner_of;
use limbeck::Batch;
use limbeck::autograd::Tape;
use limbeck::models::config::{DropoutConfig, LayerConfig, ModelConfig, Sizes};
use limbeck::ops::dropout::DropoutSeed;
use limbeck::ops::loss::LossOps;
use limbeck::ranks::{Launch, OneThread, ProcessGroup, Tcp};
use limbeck::train::BatchShard;
use limbeck::train::{Examples, Learner};
use std::net::TcpListener;

/// Runs `each` as so many ranks.
fn as_ranks<T: Send>(size: usize, each: impl Fn(Tcp) -> T + Sync) -> Vec<T> {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let run = |rank| {
        let address = format!("127.0.0.1:{port}");
        let launch = Launch { rank, size, local_rank: 0, address, by_mpi: false };
        each(Tcp::join(&launch).unwrap())
    };
    let run = &run;
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..size).map(|rank| scope.spawn(move || run(rank))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

fn config(hidden: usize, layers: usize) -> ModelConfig {
    ModelConfig {
        layers: vec![LayerConfig { heads: vec![0, 1], intermediate: 2 * hidden }; layers],
        dropout: DropoutConfig { hidden: 0.1, attention: 0.1, classifier: 0.1 },
        ..ModelConfig::distilbert(
            Sizes { vocab: 400, positions: 40, hidden, heads: 2, intermediate: 2 * hidden, layers: 0 },
            ["a", "b", "c"],
        )
    }
}

/// Texts of a step, from one to another.
fn examples(step: usize, texts: std::ops::Range<usize>) -> Examples {
    let mut batch = Batch::new();
    for text in texts.clone() {
        let ids: Vec<u32> =
            (0..5 + 7 * text % 30).map(|i| ((i * 31 + text * 17 + step * 7) % 400) as u32).collect();
        batch.push(&ids, (100 * step + text) as u64);
    }
    Examples { batch, labels: texts.map(|text| text % 3).collect(), teacher: None }
}

/// Every parameter after a few steps, of which the last has a text for all ranks but the last.
fn trained(ranks: &dyn ProcessGroup) -> Vec<Vec<f32>> {
    let mut learner = learner_of(&config(24, 2), 1.0);
    for (step, texts) in [7, 9, ranks.size() - 1].into_iter().enumerate() {
        let part = ranks.part(texts);
        let share = part.len() as f64 / texts as f64;
        let among = BatchShard { ranks, texts: share, tokens: share };
        let noise = DropoutSeed { seed: 1, step: step as u64 };
        learner.step_sharded(&examples(step, part), among, Some(noise), 1e-2, None).unwrap();
    }
    let Learner { backend, params, .. } = &learner;
    params.iter().map(|(_, param)| param.value().download(backend).unwrap()).collect()
}

#[test]
fn overlapped_sums_train_the_same_bits() {
    for size in [2, 3] {
        let overlapped = as_ranks(size, |ranks| trained(&ranks));
        assert!(overlapped.iter().all(|rank| *rank == overlapped[0]), "all ranks are one network");
        let behind = as_ranks(size, |ranks| trained(&OneThread(ranks)));
        assert!(overlapped == behind, "sums of {size} ranks behind the backward pass");
    }
}

/// Two ranks over sockets: sums begin while the backward pass goes on.
#[test]
fn sums_begin_before_the_backward_pass_ends() {
    let found = as_ranks(2, |ranks| {
        let Learner { backend, model, params, .. } = learner_of(&config(192, 4), 1.0);
        let Examples { batch, labels, .. } = examples(ranks.rank(), 0..30);
        let mut tape = Tape::recording(&backend, &params, &batch, None);
        let logits = model.forward(&mut tape).unwrap();
        let (_, slope) = backend.loss(logits.tensor(), &labels, None, 0.5).unwrap();
        let grads = tape.backward_all_reduce([(logits, slope)], &ranks).unwrap();
        grads.overlap().expect("sums over ranks")
    });
    for (rank, [begun, buckets]) in found.into_iter().enumerate() {
        println!("rank {rank}: {begun} of {buckets} sums had begun when the backward pass ended");
        assert!(buckets >= 6, "{buckets} buckets");
        assert!(begun >= 1, "nothing was summed while something was computed");
    }
}

/// One whose backward pass fails, here by a panic, ends those of the others.
#[test]
fn a_backward_pass_that_fails_ends_those_of_all() {
    let found = as_ranks(3, |ranks| {
        let Learner { backend, model, params, .. } = learner_of(&config(24, 2), 1.0);
        let Examples { batch, labels, .. } = examples(0, 0..4);
        let mut tape = Tape::recording(&backend, &params, &batch, None);
        let (logits, taps) = model.forward_with_taps(&mut tape, limbeck::models::Rows::Needed).unwrap();
        let (_, slope) = backend.loss(logits.tensor(), &labels, None, 0.5).unwrap();
        let mut derivatives = vec![(logits.clone(), slope.clone())];
        if ranks.rank() == 1 {
            // The gradient of another result, which does not fit the embeddings'.
            derivatives.push((taps.embedded, slope));
        }
        let run = || tape.backward_all_reduce(derivatives, &ranks).map(|_| ()).unwrap_err().to_string();
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).ok()
    });
    assert!(found[1].is_none(), "{found:?}");
    for rank in [0, 2] {
        assert!(found[rank].as_ref().unwrap().contains("has stopped"), "{found:?}");
    }
}
