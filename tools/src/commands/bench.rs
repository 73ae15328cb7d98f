//! `limbeck bench`: latency of models against each other, interleaved, on texts of one length.

use super::BUILD;
use crate::cli::{self, Bench};
use crate::engine;
use crate::failure::Failure;
use crate::output::Output;
use limbeck::Error;
use limbeck::report::latency::{Call, Plan, WallClock, interleaved};
use limbeck::report::table::aligned;
use limbeck::report::{Latency, Machine};
use limbeck_kernels::Kernels;
use serde_json::json;

pub fn bench(typed: &Bench) -> Result<(), Failure> {
    let (kernels, threads) = (Kernels::select()?, cli::threads(typed.threads));
    let mut models = Vec::with_capacity(typed.model.len());
    for path in &typed.model {
        let model = engine::open(path, threads)?;
        if model.positions() < typed.seq as usize {
            let problem =
                format!("--seq {}: {} reads {} tokens", typed.seq, path.display(), model.positions());
            return Err(Failure::Usage(problem));
        }
        models.push(model);
    }
    // Real words, so that any model's tokenizer yields ids that are in its vocabulary; cut to one length.
    let words = "the price of oil rose again on friday ".repeat(typed.seq as usize);
    let texts: Vec<Vec<u32>> = models.iter().map(|model| model.encode(&words, typed.seq as usize)).collect();
    let mut calls: Vec<Call<'_, Error>> = Vec::with_capacity(models.len());
    for (model, ids) in models.iter_mut().zip(&texts) {
        let batch = vec![ids.as_slice(); typed.batch as usize];
        calls.push(Box::new(move |_| model.logits(&batch).map(drop)));
    }
    let plan = Plan { inputs: 1, repeat: typed.repeat as usize, warmup: typed.warmup as usize };
    let latencies = interleaved(plan, &mut WallClock::default(), &mut calls)?;
    drop(calls);
    print(typed, &latencies, &Machine::here(kernels, threads, BUILD))
}

fn print(typed: &Bench, latencies: &[Latency], machine: &Machine) -> Result<(), Failure> {
    let mut output = Output::new();
    let per_second = |latency: &Latency| 1e3 * f64::from(typed.batch) / latency.ms_p50;
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
        let (batch, seq, repeat) = (typed.batch, typed.seq, typed.repeat);
        output.json(
            &json!({ "rows": rows, "batch": batch, "seq": seq, "repeat": repeat, "machine": machine }),
        )?;
        return output.flush();
    }
    output.text(format!(
        "{machine}\nbatch {}, {} tokens a text, {} calls\n\n",
        typed.batch, typed.seq, typed.repeat
    ))?;
    let mut lines = vec![["model", "p50 ms", "p95 ms", "p99 ms", "texts/s", "speed-up"].map(str::to_owned)];
    for (model, latency) in typed.model.iter().zip(latencies) {
        lines.push([
            model.display().to_string(),
            format!("{:.3}", latency.ms_p50),
            format!("{:.3}", latency.ms_p95),
            format!("{:.3}", latency.ms_p99),
            format!("{:.1}", per_second(latency)),
            format!("{:.2}×", latencies[0].ms_p50 / latency.ms_p50),
        ]);
    }
    output.text(aligned(&lines))?;
    output.flush()
}
