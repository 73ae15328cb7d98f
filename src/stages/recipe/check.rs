//! Whether a recipe's values can be meant: ranges, and keys that need each other.

use super::{
    BlockImportance, Distill, Importance, LayerMapChoice, Prune, Recipe, Schedule, Source, Train,
    WeightImportance,
};
use crate::backend::cpu::threads::check_threads;
use crate::models::config::limits;
use crate::{Error, Result};

/// Passes over the texts: more would be years.
const EPOCHS: f64 = 1e6;
/// Optimizer steps, for the same reason.
const STEPS: u64 = 1_000_000_000_000;
/// Texts of a step, or that are measured.
const TEXTS: usize = 1 << 20;
/// Pruning events, or repetitions of a measurement.
const TIMES: usize = 1 << 16;
/// Features of a linear model: more would be gigabytes.
const BUCKETS: usize = 1 << 24;
/// AdaGrad's step, which no weight takes a longer one than: logits of thousands tell nothing apart that those of tens do not.
const NGRAM_STEP: [f64; 2] = [1e-9, 1000.0];
/// Sides of a block: whole parts of a register of the packed layout, or several of them.
const SIDES: [usize; 4] = [4, 8, 16, 32];

/// Characters of a run's name: it names the run's directory.
const NAME: usize = 100;
/// What logits may be divided by: at less or more, the teacher's probabilities are all 0 and 1, or all equal.
const TEMPERATURE: [f64; 2] = [0.01, 1000.0];
/// What a term of the loss may count.
const TERM: [f64; 2] = [0.0, 1e6];
/// What may be added to AdamW's denominator: less is 0 in 32 bits, where it has to keep 0 / 0 away.
const EPS: [f64; 2] = [1e-30, 1.0];
/// More would make weights grow, with any learning rate that is one.
const WEIGHT_DECAY: f64 = 1000.0;

/// Checks every value of `recipe`; the first that cannot be meant is the error.
pub(super) fn recipe(recipe: &Recipe) -> Result<()> {
    name(&recipe.name)?;
    check_threads(recipe.threads)?;
    data(recipe)?;
    model(recipe)?;
    train("train", &recipe.train)?;
    train("prune.train", &recipe.prune.train)?;
    train("distill.train", &recipe.distill.train)?;
    prune(&recipe.prune)?;
    positions(recipe)?;
    distill(&recipe.distill)?;
    quantize(recipe)?;
    size("bench.texts", recipe.bench.texts, 1, TEXTS)?;
    size("bench.repeat", recipe.bench.repeat, 1, TIMES)?;
    size("bench.warmup", recipe.bench.warmup, 0, TEXTS)?;
    let controls = &recipe.controls;
    size("controls.ngram_buckets", controls.ngram_buckets, 1, BUCKETS)?;
    size("controls.ngram_epochs", controls.ngram_epochs, 1, TIMES)?;
    range("controls.ngram_learning_rate", controls.ngram_learning_rate, NGRAM_STEP)?;
    fraction("controls.ngram_l2", controls.ngram_l2)
}

fn distill(distill: &Distill) -> Result<()> {
    range("distill.temperature", distill.temperature, TEMPERATURE)?;
    fraction("distill.alpha", distill.alpha)?;
    fraction("distill.quantized", distill.quantized)?;
    let teachers = distill.teacher.names();
    if teachers.is_empty() || teachers.iter().any(String::is_empty) {
        return Err(Error::setting("distill.teacher", "is empty", "\"baseline\", or the path of a model"));
    }
    let weights = &distill.teacher_weights;
    if !weights.is_empty() && weights.len() != teachers.len() {
        let problem = format!("has {} weights for {} teachers", weights.len(), teachers.len());
        return Err(Error::setting("distill.teacher_weights", problem, "give one for each, or none"));
    }
    weights.iter().try_for_each(|weight| positive("distill.teacher_weights", *weight))?;
    range("distill.hidden", distill.hidden, TERM)?;
    range("distill.cosine", distill.cosine, TERM)?;
    range("distill.attention", distill.attention, TERM)?;
    range("distill.relations", distill.relations, TERM)?;
    size("distill.relation_heads", distill.relation_heads, 1, limits::HEADS)?;
    match &distill.layer_map {
        LayerMapChoice::Pairs(pairs) if pairs.is_empty() => {
            let mend = "name pairs of layers, or one of \"original\", \"uniform\", \"last\" and \"search\"";
            Err(Error::setting("distill.layer_map", "is an empty list", mend))
        }
        _ => Ok(()),
    }
}

fn quantize(recipe: &Recipe) -> Result<()> {
    let quantize = &recipe.quantize;
    range("quantize.budget", quantize.budget, [0.0, 100.0])?;
    size("quantize.samples", quantize.samples, 2, TEXTS)?;
    if quantize.chooses() && recipe.data.validation == 0 {
        let problem = "is 0, and \"auto\" of quantize.weights or quantize.embeddings measures accuracy on held-out rows";
        return Err(Error::setting(
            "data.validation",
            problem,
            "hold out some rows, as 2000, or name a kind",
        ));
    }
    Ok(())
}

/// Without --out the run's directory has this name, and reports hold it between the markers of a comment.
fn name(name: &str) -> Result<()> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if (1..=NAME).contains(&name.chars().count()) && !name.starts_with('.') && name.chars().all(plain) {
        return Ok(());
    }
    let mut shown: String = name.chars().take(NAME).collect();
    if shown.len() < name.len() {
        shown.push('…');
    }
    let mend = format!("1 to {NAME} letters (a to z), digits, '-', '_' and '.', not beginning with '.'");
    Err(Error::setting("name", format!("is {shown:?}"), mend))
}

fn data(recipe: &Recipe) -> Result<()> {
    let data = &recipe.data;
    if data.source == Source::Demo {
        for (key, path) in [("data.dir", &data.dir), ("model.path", &recipe.model.path)] {
            if !path.is_empty() {
                let problem = "the demo makes its own texts and its own encoder, and reads no file";
                return Err(Error::setting(key, problem, "leave it out, or set data.source = \"files\""));
            }
        }
    }
    if data.source == Source::Files {
        for (key, value) in [("data.train", &data.train), ("data.test", &data.test)] {
            if value.is_empty() {
                return Err(Error::setting(key, "is empty", "name a file in data.dir"));
            }
        }
    }
    if data.text_columns.is_empty() {
        return Err(Error::setting("data.text_columns", "is empty", "name at least one column"));
    }
    // [CLS], one piece and [SEP]; a second sentence has another piece and another [SEP].
    let least = if data.second_columns.is_empty() { 3 } else { 5 };
    size("data.max_tokens", data.max_tokens, least, limits::POSITIONS)?;
    if data.source == Source::Demo && !data.second_columns.is_empty() {
        let problem = "the demo makes its own texts, and each is one sentence";
        return Err(Error::setting(
            "data.second_columns",
            problem,
            "leave it out, or set data.source = \"files\"",
        ));
    }
    if recipe.prune.decouple > 0 && data.second_columns.is_empty() {
        let problem = "keeps the sentences of pairs apart, and each text is one sentence";
        return Err(Error::setting("prune.decouple", problem, "0, or name data.second_columns"));
    }
    if data.limit != 0 && data.validation >= data.limit {
        return Err(Error::setting(
            "data.validation",
            format!("holds out {} of the {} rows that data.limit leaves", data.validation, data.limit),
            "hold out fewer, or raise data.limit",
        ));
    }
    Ok(())
}

fn model(recipe: &Recipe) -> Result<()> {
    let model = &recipe.model;
    let dropouts = [
        ("model.dropout", model.dropout),
        ("model.attention_dropout", model.attention_dropout),
        ("model.classifier_dropout", model.classifier_dropout),
    ];
    for (key, rate) in dropouts {
        if let Some(rate) = rate {
            below_one(key, rate)?;
        }
    }
    if !model.path.is_empty() {
        return Ok(());
    }
    size("model.layers", model.layers, 1, limits::LAYERS)?;
    size("model.hidden", model.hidden, 1, limits::HIDDEN)?;
    size("model.heads", model.heads, 1, limits::HEADS)?;
    size("model.intermediate", model.intermediate, 1, limits::INTERMEDIATE)?;
    // Enough to hold an alphabet.
    size("model.vocab", model.vocab, 32, limits::VOCAB)?;
    size("model.positions", model.positions, 3, limits::POSITIONS)?;
    if !model.hidden.is_multiple_of(model.heads) {
        return Err(Error::setting(
            "model.hidden",
            format!("is {}, which {} heads do not divide", model.hidden, model.heads),
            "choose a multiple of model.heads",
        ));
    }
    // Texts of files are read by a model that is there, and which says itself how long they may be.
    if recipe.data.source == Source::Demo && model.positions < recipe.data.max_tokens {
        return Err(Error::setting(
            "model.positions",
            format!("is {}, less than data.max_tokens = {}", model.positions, recipe.data.max_tokens),
            "raise it, or lower data.max_tokens",
        ));
    }
    let mend = "lower model.hidden, model.layers, model.intermediate, model.vocab or model.positions";
    model.encoder(model.vocab).validate().map_err(|problem| Error::setting("model", problem, mend))
}

fn prune(prune: &Prune) -> Result<()> {
    layers(prune)?;
    fraction("prune.heads", prune.heads)?;
    fraction("prune.units", prune.units)?;
    fraction("prune.hidden", prune.hidden)?;
    fraction("prune.weights", prune.weights)?;
    fraction("prune.classifier", prune.classifier)?;
    size("prune.vocabulary", prune.vocabulary, 0, limits::VOCAB)?;
    size("prune.embedding_size", prune.embedding_size, 0, limits::HIDDEN)?;
    size("prune.share", prune.share, 0, limits::LAYERS)?;
    fraction("prune.rank", prune.rank)?;
    size("prune.decouple", prune.decouple, 0, limits::LAYERS - 1)?;
    size("prune.samples", prune.samples, 1, usize::MAX)?;
    size("prune.events", prune.events, 1, TIMES)?;
    below_one("prune.rewind_to", prune.rewind_to)?;
    blocks(prune)?;
    let schedule = match prune.schedule {
        Schedule::Once => return Ok(()),
        Schedule::Cubic => "cubic",
        Schedule::Iterative => "iterative",
    };
    if prune.train.epochs == 0.0 && prune.train.steps == 0 {
        return Err(Error::setting(
            "prune.schedule",
            format!("\"{schedule}\" prunes while it trains, and [prune.train] trains nothing"),
            "use \"once\", or raise prune.train.epochs",
        ));
    }
    if prune.heads > 0.0 && prune.head_importance == Importance::Attention {
        return Err(Error::setting(
            "prune.head_importance",
            format!("\"attention\" is measured before pruning, and \"{schedule}\" measures while it trains"),
            "use \"gradient\", or prune.schedule = \"once\"",
        ));
    }
    Ok(())
}

fn positions(recipe: &Recipe) -> Result<()> {
    let (kept, most) = (recipe.prune.positions, recipe.data.max_tokens);
    size("prune.positions", kept, 0, limits::POSITIONS)?;
    if kept > 0 && kept < most {
        let problem = format!("is {kept}, less than data.max_tokens = {most}");
        return Err(Error::setting("prune.positions", problem, "raise it, or lower data.max_tokens"));
    }
    Ok(())
}

fn layers(prune: &Prune) -> Result<()> {
    fraction("prune.layers", prune.layers)?;
    if prune.layers > 0.0 && !prune.keep_layers.is_empty() {
        let problem = "is a fraction, and prune.keep_layers says which layers stay";
        return Err(Error::setting("prune.layers", problem, "give one of the two"));
    }
    if !prune.keep_layers.is_sorted_by(|a, b| a < b) {
        let problem = format!("is {:?}", prune.keep_layers);
        return Err(Error::setting("prune.keep_layers", problem, "ascending, each layer once"));
    }
    Ok(())
}

fn blocks(prune: &Prune) -> Result<()> {
    fraction("prune.blocks", prune.blocks)?;
    if !prune.block_shape.iter().all(|side| SIDES.contains(side)) {
        let problem = format!("is {:?}", prune.block_shape);
        let mend =
            format!("[outputs, inputs], each one of {SIDES:?}; [16, 4] is a register of the int8 layout");
        return Err(Error::setting("prune.block_shape", problem, mend));
    }
    if prune.blocks > 0.0 && prune.weights > 0.0 {
        let problem =
            "masks weights beside prune.blocks: a network's masks are of single weights or of blocks";
        return Err(Error::setting("prune.weights", problem, "set one of the two to 0"));
    }
    let of_blocks = match prune.block_importance {
        BlockImportance::Magnitude => None,
        BlockImportance::Movement => Some("movement"),
        BlockImportance::Gradient => Some("gradient"),
        BlockImportance::Fisher => Some("fisher"),
    };
    let of_weights = match prune.weight_importance {
        WeightImportance::Magnitude => None,
        WeightImportance::Movement => Some("movement"),
        WeightImportance::Fisher => Some("fisher"),
    };
    watched(prune, "block", prune.blocks, of_blocks)?;
    watched(prune, "weight", prune.weights, of_weights)
}

/// Whether an importance that is watched while a network trains has something to be watched in.
fn watched(prune: &Prune, what: &str, fraction: f64, importance: Option<&str>) -> Result<()> {
    let Some(importance) = importance.filter(|_| fraction > 0.0) else { return Ok(()) };
    if prune.schedule == Schedule::Once {
        return Err(Error::setting(
            format!("prune.{what}_importance"),
            format!("\"{importance}\" is watched while a network trains, and \"once\" trains nothing"),
            "use \"magnitude\", or prune.schedule = \"cubic\"",
        ));
    }
    if prune.events < 2 && (prune.heads > 0.0 || prune.units > 0.0) {
        return Err(Error::setting(
            "prune.events",
            format!("is 1, and \"{importance}\" of {what}s is watched after heads and units are deleted"),
            "2 or more",
        ));
    }
    Ok(())
}

/// `table` is the dotted name of the table that `train` was read from.
fn train(table: &str, train: &Train) -> Result<()> {
    let key = |name: &str| format!("{table}.{name}");
    let epochs = (0.0..=EPOCHS).contains(&train.epochs);
    hold(&key("epochs"), epochs, train.epochs, &format!("a number from 0 to {EPOCHS}"))?;
    if train.steps > STEPS {
        let problem = format!("is {}", train.steps);
        return Err(Error::setting(key("steps"), problem, format!("a whole number from 0 to {STEPS}")));
    }
    size(&key("batch"), train.batch, 1, TEXTS)?;
    positive(&key("learning_rate"), train.learning_rate)?;
    fraction(&key("warmup"), train.warmup)?;
    range(&key("weight_decay"), train.weight_decay, [0.0, WEIGHT_DECAY])?;
    let clips = train.clip == 0.0 || is_positive(train.clip);
    hold(&key("clip"), clips, train.clip, &format!("0 for never, or {POSITIVE}"))?;
    below_one(&key("beta1"), train.beta1)?;
    below_one(&key("beta2"), train.beta2)?;
    range(&key("eps"), train.eps, EPS)
}

/// All these hold the value to a condition that NaN fails.
fn hold(key: &str, held: bool, value: f64, mend: &str) -> Result<()> {
    if held { Ok(()) } else { Err(Error::setting(key, format!("is {}", number(value)), mend)) }
}

/// A number as one would type it.
pub(in crate::stages) fn number(value: f64) -> String {
    let plain = value == 0.0 || (1e-6..1e15).contains(&value.abs()) || !value.is_finite();
    if plain { value.to_string() } else { format!("{value:e}") }
}

fn fraction(key: &str, value: f64) -> Result<()> {
    hold(key, (0.0..=1.0).contains(&value), value, "it is a fraction, from 0 to 1 (60 % is 0.6)")
}

fn below_one(key: &str, value: f64) -> Result<()> {
    // 32 bits may round it to 1.
    hold(key, (0.0..1.0).contains(&value) && (value as f32) < 1.0, value, "from 0 to less than 1")
}

const POSITIVE: &str = "a number above 0 (from 1e-37 to 1e38: it is used in 32 bits)";

fn is_positive(value: f64) -> bool {
    value > 0.0 && (value as f32).is_normal()
}

fn positive(key: &str, value: f64) -> Result<()> {
    hold(key, is_positive(value), value, POSITIVE)
}

fn range(key: &str, value: f64, [least, most]: [f64; 2]) -> Result<()> {
    let mend = format!("a number from {} to {}", number(least), number(most));
    hold(key, (least..=most).contains(&value), value, &mend)
}

fn size(key: &str, value: usize, least: usize, most: usize) -> Result<()> {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    let range = match most {
        usize::MAX => format!("a whole number, {least} or more"),
        most => format!("a whole number from {least} to {most}"),
    };
    Err(Error::setting(key, format!("is {value}"), range))
}
