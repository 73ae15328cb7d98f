//! Whether a recipe's values can be meant: ranges, and keys that need each other.

use super::{HeadImportance, Prune, Recipe, Schedule, Source, Train};
use crate::{Error, Result};

/// Checks every value of `recipe`; the first that cannot be meant is the error.
pub(super) fn recipe(recipe: &Recipe) -> Result<()> {
    data(recipe)?;
    model(recipe)?;
    train("train", &recipe.train)?;
    train("prune.train", &recipe.prune.train)?;
    train("distill.train", &recipe.distill.train)?;
    prune(&recipe.prune)?;
    let distill = &recipe.distill;
    positive("distill.temperature", distill.temperature)?;
    fraction("distill.alpha", distill.alpha)?;
    if distill.teacher.is_empty() {
        return Err(Error::setting("distill.teacher", "is empty", "\"baseline\", or the path of a model"));
    }
    at_least_one("bench.texts", recipe.bench.texts)?;
    at_least_one("bench.repeat", recipe.bench.repeat)
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
    if data.max_tokens < 3 {
        let problem = format!("is {}", data.max_tokens);
        return Err(Error::setting("data.max_tokens", problem, "[CLS], one piece and [SEP] make 3 at least"));
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
    at_least_one("model.layers", model.layers)?;
    at_least_one("model.hidden", model.hidden)?;
    at_least_one("model.heads", model.heads)?;
    at_least_one("model.intermediate", model.intermediate)?;
    if !model.hidden.is_multiple_of(model.heads) {
        return Err(Error::setting(
            "model.hidden",
            format!("is {}, which {} heads do not divide", model.hidden, model.heads),
            "choose a multiple of model.heads",
        ));
    }
    if model.vocab < 32 {
        let problem = format!("is {}", model.vocab);
        return Err(Error::setting("model.vocab", problem, "32 at least, to hold an alphabet"));
    }
    if model.positions < recipe.data.max_tokens {
        return Err(Error::setting(
            "model.positions",
            format!("is {}, less than data.max_tokens = {}", model.positions, recipe.data.max_tokens),
            "raise it, or lower data.max_tokens",
        ));
    }
    Ok(())
}

fn prune(prune: &Prune) -> Result<()> {
    fraction("prune.heads", prune.heads)?;
    fraction("prune.units", prune.units)?;
    fraction("prune.weights", prune.weights)?;
    fraction("prune.classifier", prune.classifier)?;
    at_least_one("prune.samples", prune.samples)?;
    at_least_one("prune.events", prune.events)?;
    if prune.schedule == Schedule::Once {
        return Ok(());
    }
    if prune.train.epochs == 0.0 && prune.train.steps == 0 {
        return Err(Error::setting(
            "prune.schedule",
            "\"cubic\" prunes while it trains, and [prune.train] trains nothing",
            "use \"once\", or raise prune.train.epochs",
        ));
    }
    if prune.heads > 0.0 && prune.head_importance == HeadImportance::Attention {
        return Err(Error::setting(
            "prune.head_importance",
            "\"attention\" is measured before pruning, and \"cubic\" measures while it trains",
            "use \"gradient\", or prune.schedule = \"once\"",
        ));
    }
    Ok(())
}

/// `table` is the dotted name of the table that `train` was read from.
fn train(table: &str, train: &Train) -> Result<()> {
    let key = |name: &str| format!("{table}.{name}");
    at_least_zero(&key("epochs"), train.epochs)?;
    at_least_one(&key("batch"), train.batch)?;
    positive(&key("learning_rate"), train.learning_rate)?;
    fraction(&key("warmup"), train.warmup)?;
    at_least_zero(&key("weight_decay"), train.weight_decay)?;
    at_least_zero(&key("clip"), train.clip)?;
    below_one(&key("beta1"), train.beta1)?;
    below_one(&key("beta2"), train.beta2)?;
    positive(&key("eps"), train.eps)
}

/// All these hold the value to a condition that NaN fails.
fn hold(key: &str, held: bool, value: f64, mend: &str) -> Result<()> {
    if held { Ok(()) } else { Err(Error::setting(key, format!("is {value}"), mend)) }
}

fn fraction(key: &str, value: f64) -> Result<()> {
    hold(key, (0.0..=1.0).contains(&value), value, "it is a fraction, from 0 to 1 (60 % is 0.6)")
}

fn below_one(key: &str, value: f64) -> Result<()> {
    hold(key, (0.0..1.0).contains(&value), value, "from 0 to less than 1")
}

fn positive(key: &str, value: f64) -> Result<()> {
    hold(key, value > 0.0 && value.is_finite(), value, "a number above 0")
}

fn at_least_zero(key: &str, value: f64) -> Result<()> {
    hold(key, value >= 0.0 && value.is_finite(), value, "0 or more")
}

fn at_least_one(key: &str, value: usize) -> Result<()> {
    if value >= 1 { Ok(()) } else { Err(Error::setting(key, "is 0", "1 or more")) }
}
