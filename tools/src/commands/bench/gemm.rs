//! `limbeck bench gemm`: how fast a network's matrix products are on a GPU, and how exact, by everything that makes them.

use super::super::BUILD;
use crate::cli::BenchGemm;
use crate::engine;
use crate::failure::Failure;
use crate::output::Output;
use limbeck::Error;
use limbeck::backend::Cuda;
use limbeck::backend::cuda::{GemmBackend, Kind, Options, probe};
use limbeck::ops::linear::cuda::bench::{Case, Measured, Rounds, cases, measure, square};
use limbeck::report::cells::{aligned, dash, milliseconds, share, times};
use serde_json::{Value, json};

/// Calls of a turn: launching one takes microseconds, which others hide.
const CALLS: usize = 10;

/// A product as one of those that make it does it.
struct Row {
    case: Case,
    measured: Measured,
    /// Of the library's rate; none where there is no library.
    of_library: Option<f64>,
    /// Of the largest rate of the run.
    of_peak: f64,
}

impl Row {
    fn rate(&self) -> f64 {
        teraflops(&self.case, &self.measured)
    }
}

/// There is nothing to measure on another device.
fn without_gpu(error: Error) -> Error {
    match error {
        Error::Device { problem, mend } => {
            let mend = mend.replace("use --device cpu", "run it where there is an NVIDIA GPU");
            Error::Device { problem, mend }
        }
        other => other,
    }
}

pub fn gemm(typed: &BenchGemm) -> Result<(), Failure> {
    let gpu = probe::probe().map_err(without_gpu)?.swap_remove(0);
    let options = Options { cache: Some(engine::usual_cache().join("cuda")), ..Options::default() };
    let cuda = Cuda::open(&options).map_err(without_gpu)?;
    let rounds = Rounds { timed: typed.repeat as usize, warmup: typed.warmup as usize, calls: CALLS };
    let rows = rows(&cuda, typed, rounds)?;
    let library = cuda.library_version()?;
    let driver = probe::driver_version()?;
    let mut output = Output::new();
    if typed.json {
        let rows: Vec<Value> = rows.iter().map(row_json).collect();
        output.json(&json!({
            "rows": rows,
            "peak": "the largest rate of the run",
            "gpu": { "name": gpu.name, "capability": [gpu.capability.0, gpu.capability.1], "memory_bytes": gpu.memory },
            "driver": driver,
            "cublaslt": library,
            "precision": typed.precision.name(),
            "tokens": typed.tokens,
            "turns": rounds.timed,
            "calls": rounds.calls,
            "build": BUILD,
        }))?;
        return output.flush();
    }
    let library = dash(library, |version| version.to_string());
    output.text(format!(
        "{gpu}; CUDA driver {driver}, cuBLASLt {library}\nlimbeck {}, commit {}, {}\n{}, {} turns of {CALLS} calls\n\n",
        BUILD.version,
        BUILD.commit,
        BUILD.rustc,
        typed.precision.name(),
        rounds.timed
    ))?;
    output.text(table(&rows))?;
    output.text("Of peak: of the largest rate in this table.\n")?;
    for products in GemmBackend::ALL.into_iter().filter(|products| *products != GemmBackend::CublasLt) {
        if let Some(mean) = mean_of_library(&rows, products) {
            output.text(format!(
                "{products}: {} of cuBLASLt, the geometric mean over the layers.\n",
                share(mean)
            ))?;
        }
    }
    output.flush()
}

fn rows(cuda: &Cuda, typed: &BenchGemm, rounds: Rounds) -> Result<Vec<Row>, Failure> {
    let storage = typed.precision.storage();
    let [tokens, hidden, intermediate] =
        [typed.tokens, typed.hidden, typed.intermediate].map(|size| size as usize);
    let mut all = cases(tokens, hidden, intermediate, storage);
    all.extend((typed.square > 0).then(|| square(typed.square as usize, storage)));
    let mut rows = Vec::new();
    for case in all {
        let measured = measure(cuda, &case, rounds)?;
        let library = measured.iter().find(|measured| measured.products == GemmBackend::CublasLt).copied();
        rows.extend(measured.into_iter().map(|measured| {
            let ratio = |library: Measured| library.time.as_secs_f64() / measured.time.as_secs_f64();
            Row { case, measured, of_library: library.map(ratio), of_peak: 0.0 }
        }));
    }
    let peak = rows.iter().map(Row::rate).fold(0.0, f64::max);
    rows.iter_mut().for_each(|row| row.of_peak = row.rate() / peak);
    Ok(rows)
}

fn teraflops(case: &Case, measured: &Measured) -> f64 {
    2.0 * case.product.multiply_adds() as f64 / measured.time.as_secs_f64() * 1e-12
}

/// Of the products of layers that both have made.
fn mean_of_library(rows: &[Row], products: GemmBackend) -> Option<f64> {
    let made = rows.iter().filter(|row| row.measured.products == products && row.case.layer != "square");
    let logs: Vec<f64> = made.filter_map(|row| row.of_library).map(f64::ln).collect();
    (!logs.is_empty()).then(|| (logs.iter().sum::<f64>() / logs.len() as f64).exp())
}

fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::Forward => "forward",
        Kind::InputGradient => "input gradient",
        Kind::WeightGradient => "weight gradient",
    }
}

fn row_json(row: &Row) -> Value {
    let product = &row.case.product;
    json!({
        "layer": row.case.layer,
        "product": kind(product.kind),
        "rows": product.rows,
        "outputs": product.outputs,
        "inputs": product.inputs,
        "made_by": row.measured.products.name(),
        "ms": row.measured.time.as_secs_f64() * 1e3,
        "teraflops": row.rate(),
        "of_cublaslt": row.of_library,
        "of_peak": row.of_peak,
        "error": row.measured.error,
    })
}

fn table(rows: &[Row]) -> String {
    let mut lines = vec![
        ["product", "rows × outputs × inputs", "made by", "ms", "TFLOP/s", "of cuBLASLt", "of peak", "error"]
            .map(str::to_owned),
    ];
    for row in rows {
        let product = &row.case.product;
        lines.push([
            format!("{} {}", row.case.layer, kind(product.kind)),
            format!("{} × {} × {}", product.rows, product.outputs, product.inputs),
            row.measured.products.name().to_owned(),
            milliseconds(row.measured.time.as_secs_f64() * 1e3),
            format!("{:.1}", row.rate()),
            dash(row.of_library, times),
            share(row.of_peak),
            format!("{:.1e}", row.measured.error),
        ]);
    }
    aligned(&lines)
}
