//! What distinguishes two recipes, in words for whoever mixed them up.

use super::check::number;
use super::{Recipe, Schedule};
use crate::stages::Stage;
use std::collections::BTreeMap;
use toml::{Table, Value};

impl Recipe {
    /// What identifies the recipe as far as `stage` and those before it read it: every key that can change the numbers of
    /// their artifacts, and its value, a line each. That leaves out `name`, `threads`, `[bench]`, `[controls]`, every
    /// `checkpoint_every` (from whichever state a run goes on, it ends in the same bytes), and the keys of later stages, which
    /// may have other defaults in another version.
    pub fn identity(&self, stage: Stage) -> String {
        let undecided = self.without_effect(stage);
        let deciding = self.values().into_iter().filter(|(key, _)| !is_among(&undecided, key));
        deciding.map(|(key, value)| format!("{key} = {value}\n")).collect()
    }

    /// All keys, dotted, and their values, in order.
    pub(super) fn values(&self) -> BTreeMap<String, Value> {
        let mut values = BTreeMap::new();
        flatten("", self.canonical().parse().expect("canonical text is TOML"), &mut values);
        values
    }

    /// Keys and tables that decide nothing up to `stage`.
    fn without_effect(&self, stage: Stage) -> Vec<&'static str> {
        let mut keys = vec!["name", "threads", "bench", "controls"];
        keys.extend([
            "train.checkpoint_every",
            "prune.train.checkpoint_every",
            "distill.train.checkpoint_every",
        ]);
        if stage < Stage::Quantize {
            // What a student is trained to be rounded to decides its weights; how those are laid out only where precision
            // is chosen, by the bytes that it saves.
            match (stage, self.distill.quantized > 0.0) {
                (Stage::Distill, true) if self.quantize.chooses() => {}
                (Stage::Distill, true) => keys.push("quantize.layout"),
                _ => keys.push("quantize"),
            }
        }
        if stage < Stage::Distill {
            // Gradual pruning has the teacher and the loss of distillation.
            match (stage, self.prune.schedule) {
                (Stage::Prune, Schedule::Cubic | Schedule::Iterative) => {
                    keys.extend(["distill.train", "distill.quantized"]);
                }
                _ => keys.push("distill"),
            }
        }
        if stage < Stage::Prune {
            keys.push("prune");
        }
        keys
    }

    /// The keys that decide `stage` or one before it and differ in `other`, another recipe's canonical text: each as
    /// `train.steps = 4 there, 5 here`. Tables that others inherit from come first. Empty if `other` is no recipe.
    pub fn differences(&self, other: &str, stage: Stage) -> Vec<String> {
        let Ok(other) = Recipe::parse(other, "recipe.toml".as_ref(), &[]) else { return Vec::new() };
        let undecided = [self, &other].map(|recipe| recipe.without_effect(stage));
        let [here, there] = [self, &other].map(Recipe::values);
        let mut keys: Vec<&String> = here.keys().chain(there.keys()).collect();
        keys.sort_by_key(|key| (key.matches('.').count(), key.as_str()));
        keys.dedup();
        keys.retain(|key| !undecided.iter().all(|undecided| is_among(undecided, key)));
        let shown = |value: Option<&Value>| match value {
            None => "unset".to_owned(),
            Some(Value::Float(value)) => number(*value),
            Some(value) => value.to_string(),
        };
        keys.into_iter()
            .map(|key| (key, there.get(key), here.get(key)))
            .filter(|(_, there, here)| there != here)
            .map(|(key, there, here)| format!("{key} = {} there, {} here", shown(there), shown(here)))
            .collect()
    }
}

/// Whether a dotted key is one of `keys`, or in a table that is.
fn is_among(keys: &[&str], key: &str) -> bool {
    keys.iter()
        .any(|outer| key.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with('.')))
}

/// All values of a table under their dotted keys.
fn flatten(prefix: &str, table: Table, values: &mut BTreeMap<String, Value>) {
    for (key, value) in table {
        let key = if prefix.is_empty() { key } else { format!("{prefix}.{key}") };
        match value {
            Value::Table(inner) => flatten(&key, inner, values),
            value => _ = values.insert(key, value),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_name_deciding_keys_and_both_values() {
        let parse = |set: &[&str]| {
            let set: Vec<String> = set.iter().map(|s| s.to_string()).collect();
            Recipe::parse("", "test.toml".as_ref(), &set).unwrap()
        };
        let mine = parse(&["train.batch=8", "model.dropout=0.5", "name=mine", "threads=1", "bench.texts=3"]);
        let theirs = parse(&["data.labels=[\"a\"]"]);
        assert_eq!(
            mine.differences(&theirs.canonical(), Stage::Quantize),
            [
                "data.labels = [\"a\"] there, \"\" here",
                "model.dropout = unset there, 0.5 here",
                "train.batch = 32 there, 8 here",
                "distill.train.batch = 32 there, 8 here",
                "prune.train.batch = 32 there, 8 here",
            ]
        );
        let renamed = parse(&[
            "name=other",
            "threads=2",
            "bench.repeat=9",
            "train.checkpoint_every=3",
            "controls.int8=true",
        ]);
        let default = Recipe::default();
        assert!(renamed.differences(&default.canonical(), Stage::Quantize).is_empty());
        assert_eq!(renamed.identity(Stage::Quantize), default.identity(Stage::Quantize));
        assert_ne!(mine.identity(Stage::Train), default.identity(Stage::Train));
        assert!(mine.differences("[", Stage::Quantize).is_empty());
    }

    #[test]
    fn a_key_decides_its_own_stage_and_those_after_it() {
        for (set, first) in [
            ("seed=9", Stage::Train),
            ("data.max_tokens=9", Stage::Train),
            ("model.pooling=mean", Stage::Train),
            // What inherits it is other, too.
            ("train.batch=9", Stage::Train),
            ("prune.heads=0.5", Stage::Prune),
            ("prune.train.batch=9", Stage::Prune),
            ("distill.train.batch=9", Stage::Distill),
            ("distill.alpha=0.5", Stage::Distill),
            ("distill.teacher=other", Stage::Distill),
            ("quantize.weights=tensor", Stage::Quantize),
        ] {
            let changed = Recipe::parse("", "test.toml".as_ref(), &[set.to_owned()]).unwrap();
            for stage in Stage::ALL {
                let same = changed.identity(stage) == Recipe::default().identity(stage);
                assert_eq!(same, stage < first, "{set} and {stage:?}");
            }
        }
        let gradual = |set: &str| {
            Recipe::parse("[prune]\nschedule = 'cubic'", "test.toml".as_ref(), &[set.to_owned()]).unwrap()
        };
        let same = |stage, set: &str| gradual(set).identity(stage) == gradual("seed=1").identity(stage);
        assert!(!same(Stage::Prune, "distill.alpha=0.5"), "it has distillation's loss");
        assert!(same(Stage::Train, "distill.alpha=0.5") && same(Stage::Prune, "distill.train.batch=9"));
        // Of keys that decide in one of two recipes only, both values are told.
        let told = gradual("distill.alpha=0.5").differences(&Recipe::default().canonical(), Stage::Prune);
        assert_eq!(
            told,
            ["distill.alpha = 0.7 there, 0.5 here", "prune.schedule = \"once\" there, \"cubic\" here"]
        );
        let other =
            gradual("distill.train.batch=9").differences(&Recipe::default().canonical(), Stage::Prune);
        assert_eq!(other, ["prune.schedule = \"once\" there, \"cubic\" here"]);
    }
}
