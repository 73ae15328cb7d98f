//! What distinguishes two recipes, in words for whoever mixed them up.

use super::Recipe;
use toml::{Table, Value};

/// Keys and tables that change no artifact's numbers.
const NEUTRAL: [&str; 3] = ["name", "threads", "bench"];
/// A key of each training that changes none either: from whichever state a run goes on, it ends in the same bytes.
const NEUTRAL_IN_TRAINING: &str = ".checkpoint_every";

impl Recipe {
    /// What identifies the recipe: its canonical text without the keys that change no artifact's numbers, which are
    /// `name`, `threads`, `[bench]` and every `checkpoint_every`.
    pub fn identity(&self) -> String {
        let Recipe { name, threads, bench, train, .. } = Recipe::default();
        let mut deciding = Recipe { name, threads, bench, ..self.clone() };
        for training in [&mut deciding.train, &mut deciding.prune.train, &mut deciding.distill.train] {
            training.checkpoint_every = train.checkpoint_every;
        }
        deciding.canonical()
    }

    /// The keys that decide a run and differ in `other`, another recipe's canonical text: each as
    /// `train.steps = 4 there, 5 here`. Tables that others inherit from come first. Empty if `other` is no TOML.
    pub fn differences(&self, other: &str) -> Vec<String> {
        let read = |text: &str| {
            let mut keys = Vec::new();
            flatten("", text.parse::<Table>().ok()?, &mut keys);
            keys.retain(|(key, _)| {
                let first = key.split('.').next().unwrap_or(key);
                !NEUTRAL.contains(&first) && !key.ends_with(NEUTRAL_IN_TRAINING)
            });
            Some(keys)
        };
        let (Some(here), Some(there)) = (read(&self.canonical()), read(other)) else { return Vec::new() };
        let value =
            |keys: &[(String, Value)], key: &str| keys.iter().find(|(k, _)| k == key).map(|(_, v)| v.clone());
        let mut keys: Vec<&String> = here.iter().chain(&there).map(|(key, _)| key).collect();
        keys.sort_by_key(|key| (key.matches('.').count(), key.as_str()));
        keys.dedup();
        let shown = |value: Option<Value>| value.map_or("unset".to_owned(), |value| value.to_string());
        keys.into_iter()
            .map(|key| (key, value(&there, key), value(&here, key)))
            .filter(|(_, there, here)| there != here)
            .map(|(key, there, here)| format!("{key} = {} there, {} here", shown(there), shown(here)))
            .collect()
    }
}

/// All values of a table under their dotted keys.
fn flatten(prefix: &str, table: Table, keys: &mut Vec<(String, Value)>) {
    for (key, value) in table {
        let key = if prefix.is_empty() { key } else { format!("{prefix}.{key}") };
        match value {
            Value::Table(inner) => flatten(&key, inner, keys),
            value => keys.push((key, value)),
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
            mine.differences(&theirs.canonical()),
            [
                "data.labels = [\"a\"] there, \"\" here",
                "model.dropout = unset there, 0.5 here",
                "train.batch = 32 there, 8 here",
                "distill.train.batch = 32 there, 8 here",
                "prune.train.batch = 32 there, 8 here",
            ]
        );
        let renamed = parse(&["name=other", "threads=2", "bench.repeat=9", "train.checkpoint_every=3"]);
        assert!(renamed.differences(&Recipe::default().canonical()).is_empty());
        assert_eq!(renamed.identity(), Recipe::default().identity());
        assert_ne!(mine.identity(), Recipe::default().identity());
        assert!(mine.differences("[").is_empty());
    }
}
