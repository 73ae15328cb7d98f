//! `limbeck bench`: latency of models against each other, interleaved, on texts of one length. With `--train`,
//! the time of a training step ([`train`]); with `--interactive`, at another program's word ([`interactive`]). `limbeck bench
//! gemm`: matrix products on a GPU ([`gemm`]).

mod gemm;
mod interactive;
mod train;

use super::BUILD;
use crate::cli::{self, Bench, BenchCommand};
use crate::engine::{self, TextModel};
use crate::failure::Failure;
use crate::output::Output;
use limbeck::backend::cpu::threads::set_threads;
use limbeck::report::cells::{aligned, milliseconds};
use limbeck::report::latency::{Call, Plan, WallClock, interleaved};
use limbeck::report::{Latency, Machine};
use limbeck::{Error, Text};
use limbeck_kernels::Kernels;
use serde_json::json;
use std::time::Instant;

/// Texts a call, untimed and timed calls, unless others are asked for.
const BATCH: u32 = 1;
const WARMUP: u32 = 10;
const REPEAT: u32 = 100;
/// Tokens a text unless others are asked for, and unless a model reads fewer.
const SEQ: usize = 128;

pub fn bench(typed: &Bench) -> Result<(), Failure> {
    if let Some(BenchCommand::Gemm(typed)) = &typed.command {
        return gemm::gemm(typed);
    }
    if typed.train {
        return train::train(typed);
    }
    if typed.data.is_some() {
        return Err(Failure::Usage("--data: is for --train; latency is measured on made-up texts".into()));
    }
    let (kernels, threads) = (Kernels::select()?, cli::threads(typed.threads));
    set_threads(threads)?;
    let mut models = Vec::with_capacity(typed.model.len());
    for path in &typed.model {
        let model = engine::open(path, threads)?;
        if let Some(seq) = typed.seq
            && model.positions() < seq as usize
        {
            let problem = format!(
                "--seq {seq}: {} reads {1} tokens; give --seq {1} at most",
                path.display(),
                model.positions()
            );
            return Err(Failure::Usage(problem));
        }
        models.push(model);
    }
    // One length for all of them: times of texts of different lengths are no comparison.
    let shortest = models.iter().map(|model| model.positions()).fold(SEQ, usize::min);
    let seq = typed.seq.map_or(shortest, |seq| seq as usize);
    if typed.interactive {
        return match models.as_mut_slice() {
            [model] => serve(typed, seq, &mut **model, kernels, threads),
            _ => Err(Failure::Usage("--interactive: give one model".into())),
        };
    }
    let texts: Vec<Vec<u32>> = models.iter().map(|model| text(seq, model.vocab())).collect();
    let mut calls: Vec<Call<'_, Error>> = Vec::with_capacity(models.len());
    for (model, ids) in models.iter_mut().zip(&texts) {
        let batch = vec![Text::from(ids.as_slice()); batch_of(typed)];
        calls.push(Box::new(move |_| model.logits(&batch).map(drop)));
    }
    let (repeat, warmup) = (typed.repeat.unwrap_or(REPEAT), typed.warmup.unwrap_or(WARMUP));
    let plan = Plan { inputs: 1, repeat: repeat as usize, warmup: warmup as usize };
    let latencies = interleaved(plan, &mut WallClock::default(), &mut calls)?;
    drop(calls);
    print(typed, seq, &latencies, &Machine::here(kernels, threads, BUILD))
}

fn batch_of(typed: &Bench) -> usize {
    typed.batch.unwrap_or(BATCH) as usize
}

/// A text of `seq` tokens, the same for every model of a vocabulary: `[CLS]` and `[SEP]` as BERT numbers them,
/// and between them ids from all over the embedding table, as words have them. Ids of a vocabulary too small
/// for BERT's numbers come from all of it.
fn text(seq: usize, vocab: usize) -> Vec<u32> {
    const FIRST_WORD: usize = 1000;
    let id = |place: usize| match place {
        _ if vocab <= FIRST_WORD => 7919 * place % vocab,
        0 => 101,
        _ if place + 1 == seq => 102,
        _ => FIRST_WORD + 7919 * place % (vocab - FIRST_WORD),
    };
    (0..seq).map(|place| id(place) as u32).collect()
}

/// One call at each word of another program.
fn serve(
    typed: &Bench,
    seq: usize,
    model: &mut dyn TextModel,
    kernels: Kernels,
    threads: usize,
) -> Result<(), Failure> {
    let ids = text(seq, model.vocab());
    let batch = vec![Text::from(ids.as_slice()); batch_of(typed)];
    let about = json!({
        "name": "limbeck",
        "version": BUILD.version,
        "kernels": kernels.isa().name(),
        "threads": threads,
        "file_bytes": model.file_bytes(),
    });
    interactive::serve(&about, || {
        let start = Instant::now();
        let logits = model.logits(&batch)?;
        let seconds = start.elapsed().as_secs_f64();
        Ok(json!({ "seconds": seconds, "tokens": batch.len() * ids.len(), "logits": logits }))
    })
}

fn print(typed: &Bench, seq: usize, latencies: &[Latency], machine: &Machine) -> Result<(), Failure> {
    let mut output = Output::new();
    let per_second = |latency: &Latency| 1e3 * batch_of(typed) as f64 / latency.ms_p50;
    if typed.json {
        let rows = typed.model.iter().zip(latencies).map(|(model, latency)| {
            json!({
                "model": model.display().to_string(),
                "latency_ms_p50": latency.ms_p50,
                "latency_ms_p95": latency.ms_p95,
                "latency_ms_p99": latency.ms_p99,
                "latency_ms_mean": latency.ms_mean,
                "texts_per_second": per_second(latency),
            })
        });
        let rows: Vec<_> = rows.collect();
        let (batch, repeat) = (batch_of(typed), latencies[0].calls);
        output.json(
            &json!({ "rows": rows, "batch": batch, "seq": seq, "repeat": repeat, "machine": machine }),
        )?;
        return output.flush();
    }
    output.text(format!(
        "{machine}\nbatch {}, {} tokens a text, {} calls\n\n",
        batch_of(typed),
        seq,
        latencies[0].calls
    ))?;
    let mut lines = vec![["model", "p50 ms", "p95 ms", "p99 ms", "texts/s", "speed-up"].map(str::to_owned)];
    for (model, latency) in typed.model.iter().zip(latencies) {
        lines.push([
            model.display().to_string(),
            milliseconds(latency.ms_p50),
            milliseconds(latency.ms_p95),
            milliseconds(latency.ms_p99),
            format!("{:.1}", per_second(latency)),
            format!("{:.2}×", latencies[0].ms_p50 / latency.ms_p50),
        ]);
    }
    output.text(aligned(&lines))?;
    output.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The numbers that `tools/compare/inference.py` gives its peer.
    #[test]
    fn the_text_is_the_one_that_peers_read() {
        let ids = text(128, 30_522);
        let between = |j: u32| 1000 + 7919 * j % (30_522 - 1000);
        assert_eq!((ids.len(), ids[0], ids[127]), (128, 101, 102));
        assert!((1..127).all(|j| ids[j as usize] == between(j)));
        assert!(
            [3, 500, 1000, 1001]
                .iter()
                .all(|&vocab| { text(64, vocab).iter().all(|&id| (id as usize) < vocab) })
        );
    }
}
