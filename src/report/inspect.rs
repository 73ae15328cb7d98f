//! Looks into a model: what each part holds, costs and takes.

use super::inspection::{Decoupled, Inspection, MatrixBlocks, Part};
use super::latency::Latency;
use crate::checkpoint::{HfDirectory, find};
use crate::infer::{Model, PartTimes, Session};
use crate::models::ModelConfig;
use crate::models::parts::Kind;
use crate::nn::ParamSpec;
use crate::{Batch, Error, Result};
use std::path::Path;
use std::time::{Duration, Instant};

/// Untimed passes before, and the bounds of how many are timed: as many as fit into [`PATIENCE`].
const WARMUP: usize = 3;
const PASSES: std::ops::RangeInclusive<usize> = 10..=200;
const PATIENCE: Duration = Duration::from_secs(2);

/// Tokens of the text unless another length is asked for: usual in measurements, and what most texts fit into.
const TOKENS: usize = 128;

/// Inspects a Hugging Face directory or a `.limbeck` file. Times are medians over passes of one text of `tokens`
/// tokens on one thread; by default of 128, or as many as the model reads.
///
/// # Errors
/// Those of [`Model::open`]; [`Error::Setting`] if the model cannot read a text of that length.
pub fn inspect(path: &Path, tokens: Option<usize>) -> Result<Inspection> {
    let directory = path.is_dir().then(|| HfDirectory::open(path)).transpose()?;
    let model = match &directory {
        Some(directory) => Model::from_directory(directory)?,
        None => Model::open(path)?,
    };
    let config = model.config();
    let tokens = tokens.unwrap_or(TOKENS.min(config.positions));
    if tokens == 0 || tokens > config.positions {
        let problem = format!("{tokens} tokens; the model reads 1 to {}", config.positions);
        return Err(Error::setting("--seq", problem, "choose another length"));
    }
    let mut times = times(&model, tokens)?.into_iter();
    // Parameters in the order of their ids: what each takes in the file.
    let stored: Vec<(&ParamSpec, usize)> = model
        .parameters()
        .map(|stored| {
            let bytes = directory.as_ref().and_then(|directory| bytes_in(directory, stored.spec));
            (stored.spec, bytes.unwrap_or(stored.bytes))
        })
        .collect();
    let kept_layers = if config.deleted_layers.is_empty() { Vec::new() } else { config.kept_layers() };
    let part = |part: crate::models::parts::Part| {
        let sum = |of: fn(&(&ParamSpec, usize)) -> usize| -> u64 {
            part.params.iter().map(|id| of(&stored[id.index()]) as u64).sum()
        };
        let parameters = sum(|(spec, _)| spec.len());
        let zeros: usize = part.params.iter().map(|&id| model.zeros_of(id)).sum();
        Part {
            name: name(part.kind, &kept_layers, config),
            parameters,
            bytes: sum(|(_, bytes)| *bytes),
            sparsity: zeros as f64 / parameters.max(1) as f64,
            remaining: part.remaining,
            multiply_adds: part.kind.multiply_adds(config, tokens),
            multiply_adds_left: model.multiply_adds(part.kind, tokens),
            ms_p50: times.next(),
        }
    };
    let all = model.classifier().parts();
    let ids = all.iter().flat_map(|part| part.params.clone());
    let matrices = ids.filter_map(|id| {
        let [zero, blocks] = model.zero_blocks_of(id)?;
        Some(MatrixBlocks { name: stored[id.index()].0.name.clone(), blocks, zero })
    });
    let matrices = matrices.collect();
    let sentences = [tokens.div_ceil(2), tokens / 2];
    let of_pair = |prepared| -> u64 {
        all.iter().map(|part| part.kind.multiply_adds_of_pair(config, sentences, prepared)).sum()
    };
    let decoupled = (config.decoupled > 0).then(|| Decoupled {
        layers: config.decoupled,
        of: config.layers.len(),
        sentences,
        multiply_adds: of_pair(false),
        prepared: of_pair(true),
    });
    let parts = all.into_iter().map(part).collect();
    Ok(Inspection { model: path.display().to_string(), tokens, parts, matrices, decoupled })
}

/// A part's name; where layers were deleted (`kept_layers` is not empty), with the place that its layer had before, and where
/// it uses another layer's parameters, with that layer.
fn name(kind: Kind, kept_layers: &[usize], config: &ModelConfig) -> String {
    let (Kind::Attention(layer) | Kind::FeedForward(layer)) = kind else { return kind.name() };
    let mut name = kind.name();
    if let Some(original) = kept_layers.get(layer) {
        name += &format!(" (was layer {original})");
    }
    let owner = config.owner(layer);
    if owner != layer {
        name += &format!(" (that of layer {owner})");
    }
    name
}

/// Bytes of a parameter in a directory's file.
fn bytes_in(directory: &HfDirectory, spec: &ParamSpec) -> Option<usize> {
    let tensors = &directory.tensors;
    let name = find(&spec.name, |name| tensors.shape(name).is_some())?;
    tensors.bytes(&name).ok().map(<[u8]>::len)
}

/// Median milliseconds of each part.
fn times(model: &Model, tokens: usize) -> Result<Vec<f64>> {
    // Any ids do: a dense network's time does not depend on them.
    let ids: Vec<u32> = (0..tokens).map(|place| (7919 * place % model.config().vocab) as u32).collect();
    let batch = Batch::from_texts([ids.as_slice()]);
    let mut session = Session::new(model);
    let mut times = PartTimes::new(model.classifier());
    for _ in 0..WARMUP {
        session.logits(&batch)?;
    }
    let mut timings = vec![Vec::new(); times.spent.len()];
    let start = Instant::now();
    for pass in 0..*PASSES.end() {
        if pass >= *PASSES.start() && start.elapsed() > PATIENCE {
            break;
        }
        times.clear();
        session.logits_timed(&batch, &mut times)?;
        timings.iter_mut().zip(&times.spent).for_each(|(timings, &spent)| timings.push(spent));
    }
    Ok(timings.iter_mut().map(|timings| Latency::of(timings).ms_p50).collect())
}
