//! The plan of a sweep: which recipes are tried, and what each trial is called.
//!
//! ```text
//! sweep file ──┬─ [sweep]          base or recipes · seeds · trials · grid · random · ablate
//!              └─ everything else  the recipe that is varied, over that of `base`, or over each of `recipes`
//!        ──► settings (recipes × grid × draws, or a recipe without each of its terms) × seeds ──► [`Trial`]s
//! ```
//!
//! A trial's name says its settings, and depends on nothing else in the file: so a sweep may grow while it runs, and
//! what was tried before is found again. A draw depends on the sweep's seed, its key and its number alone, so that
//! more draws, or more keys, leave it as it is.

mod bases;
mod draw;
mod names;

use super::Recipe;
use super::recipe::{TERMS, read};
use crate::{Error, Result, files};
use bases::Base;
use serde::{Deserialize, Serialize};
use std::path::Path;
use toml::{Table, Value};

/// What an ablation calls the recipe that nothing is removed from.
pub const WHOLE: &str = "whole";

/// More would be a slip of the hand.
const MOST_TRIALS: usize = 10_000;

/// Keys that are no settings of a trial.
const FIXED: [(&str, &str); 3] = [
    ("seed", "list seeds in sweep.seeds"),
    ("name", "trials are named after their settings"),
    ("threads", "it changes no result; give --threads"),
];

/// `[sweep]`: which variants of a recipe are tried. It stands in a recipe, or in a file of its own with a `base`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SweepTable {
    /// A recipe, relative to this file, whose keys are taken where this file does not say otherwise. Default: empty.
    pub base: String,
    /// Several recipes instead of one, as `["agnews-10x.toml", "agnews-20x.toml"]`: each is tried, under its own name, and
    /// each with all that this file says beside `[sweep]`, which may be other data. Default none.
    pub recipes: Vec<String>,
    /// Every setting is tried with each of these seeds. Default: the recipe's seed alone.
    pub seeds: Vec<u64>,
    /// How often `[sweep.random]` is drawn; every draw is tried at every point of the grid. Default 0.
    pub trials: usize,
    /// The seed of the draws. Default 1.
    pub seed: u64,
    /// Instead of a grid: the recipe as it is, and without each of its terms. `--ablate` sets it. Default false.
    pub ablate: bool,
    /// Recipe keys, each with a list of values: all combinations are tried, as `"prune.heads" = [0.2, 0.4]`.
    pub grid: Table,
    /// Recipe keys, each with a list to choose from, or `{ low, high, scale }`: whole numbers if both ends are, three
    /// significant digits if not; `scale = "log"` draws the logarithm uniformly. Default scale `"linear"`.
    pub random: Table,
    /// What `recipes` named, in full: as a sweep's directory keeps it. Default none.
    pub whole: Vec<Table>,
}

impl Default for SweepTable {
    fn default() -> Self {
        SweepTable {
            base: String::new(),
            recipes: Vec::new(),
            seeds: Vec::new(),
            trials: 0,
            seed: 1,
            ablate: false,
            grid: Table::new(),
            random: Table::new(),
            whole: Vec::new(),
        }
    }
}

/// One recipe of a sweep.
#[derive(Clone, Debug)]
pub struct Trial {
    /// Its name, and that of its run's directory: the setting's and the seed.
    pub id: String,
    /// The name of what is tried, which trials of other seeds share.
    pub setting: String,
    /// Its seed.
    pub seed: u64,
    /// The recipe keys that are set, each with its value in TOML.
    pub settings: Vec<(String, String)>,
    /// The whole recipe.
    pub recipe: Recipe,
}

/// A sweep file, read, and all its trials.
#[derive(Clone, Debug)]
pub struct Sweep {
    /// The recipe that is varied.
    pub recipe: Recipe,
    /// Whether it is an ablation: its first setting is then the whole recipe.
    pub ablation: bool,
    /// All trials, seed by seed. Never empty; ids differ.
    pub trials: Vec<Trial>,
    canonical: String,
}

/// What errors are said of: the keys of a sweep file as they stand in it.
#[derive(Deserialize)]
struct File {
    sweep: SweepTable,
}

/// A setting: its name, and the keys that it sets.
type Setting = (String, Vec<(String, Value)>);

impl Sweep {
    /// Reads the sweep file at `path` and applies `overrides`, as [`Recipe::load`] does; they may be of `[sweep]`, too.
    ///
    /// # Errors
    /// Those of [`Recipe::load`], of the file, its base or one of its trials, which is then named; a `[sweep]` that
    /// tries nothing, or has keys or ranges that make no sense.
    pub fn load(path: &Path, overrides: &[String]) -> Result<Sweep> {
        Sweep::parse(&files::read_to_string(path)?, path, overrides)
    }

    /// Reads a sweep from `text`; `origin` is what errors call it, and what the base is relative to.
    ///
    /// # Errors
    /// As [`Sweep::load`].
    pub fn parse(text: &str, origin: &Path, overrides: &[String]) -> Result<Sweep> {
        let mut tree = read::tree(text, origin)?;
        let (of_sweep, of_recipe): (Vec<String>, Vec<String>) =
            overrides.iter().cloned().partition(|assignment| assignment.starts_with("sweep."));
        for assignment in &of_sweep {
            read::assign(&mut tree, assignment)?;
        }
        let own = tree.remove("sweep").unwrap_or_else(|| Value::Table(Table::new()));
        let File { sweep: wanted } = Table::from_iter([("sweep".to_owned(), own)])
            .try_into()
            .map_err(|error| read::explain(&error))?;
        for assignment in &of_recipe {
            not_varied(&wanted, assignment)?;
            read::assign(&mut tree, assignment)?;
        }
        let bases = bases::read(&wanted, &tree, origin, &of_recipe)?;
        if wanted.ablate && bases.len() > 1 {
            let problem = "removes the terms of one recipe, and sweep.recipes names several";
            return Err(Error::setting("sweep.ablate", problem, "sweep one of them"));
        }
        let mut recipe = bases[0].recipe.clone();
        let seeds = if wanted.seeds.is_empty() { vec![recipe.seed] } else { wanted.seeds.clone() };
        let settings: Vec<Vec<Setting>> =
            bases.iter().map(|base| settings(&wanted, base)).collect::<Result<_>>()?;
        let count: usize = settings.iter().map(Vec::len).sum();
        if count.saturating_mul(seeds.len()) > MOST_TRIALS {
            let problem = format!("makes {count} settings with {} seeds", seeds.len());
            return Err(Error::setting("sweep", problem, format!("at most {MOST_TRIALS} trials")));
        }
        let mut trials: Vec<Trial> = Vec::new();
        for seed in seeds {
            for (base, settings) in bases.iter().zip(&settings) {
                for setting in settings {
                    trials.push(trial(&base.text, origin, &of_recipe, setting, seed)?);
                }
            }
        }
        let mut seen = std::collections::HashSet::new();
        trials.retain(|trial| seen.insert(trial.id.clone()));
        if bases[0].name.is_some() {
            let stem = || origin.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into());
            recipe.name = tree.get("name").and_then(Value::as_str).map_or_else(stem, str::to_owned);
        }
        let ablation = wanted.ablate;
        let canonical = canonical(wanted, tree, bases, &recipe.name);
        Ok(Sweep { recipe, ablation, trials, canonical })
    }

    /// The sweep as one file without a base, all overrides applied: it makes the same trials.
    pub fn canonical(&self) -> &str {
        &self.canonical
    }
}

/// Refuses `key=value` of a key that the sweep gives its own values, which would go before it.
fn not_varied(wanted: &SweepTable, assignment: &str) -> Result<()> {
    let key = assignment.split_once('=').map_or(assignment, |(key, _)| key).trim();
    let problem = "the sweep gives it its own values";
    if key == "seed" && !wanted.seeds.is_empty() {
        return Err(Error::setting(key, problem, "--set 'sweep.seeds=[...]' names others"));
    }
    let is_it = |other: &String| read::names(other) == read::names(key);
    if wanted.grid.keys().any(is_it) || wanted.random.keys().any(is_it) {
        return Err(Error::setting(
            key,
            problem,
            "take it out of [sweep.grid] and [sweep.random], or leave --set out",
        ));
    }
    Ok(())
}

/// The file that [`Sweep::canonical`] returns: of one recipe its keys and `[sweep]`, of several `[sweep.whole]`.
fn canonical(wanted: SweepTable, own: Table, bases: Vec<Base>, name: &str) -> String {
    let mut wanted = SweepTable { base: String::new(), recipes: Vec::new(), whole: Vec::new(), ..wanted };
    let mut tree = own;
    for base in bases {
        let whole: Table = base.text.parse().expect("it was written as TOML");
        match base.name {
            None => tree = whole,
            Some(_) => wanted.whole.push(whole),
        }
    }
    if !wanted.whole.is_empty() {
        tree.insert("name".to_owned(), Value::String(name.to_owned()));
    }
    tree.insert("sweep".to_owned(), Value::try_from(wanted).expect("tables, numbers and strings"));
    toml::to_string(&tree).expect("it was TOML")
}

fn settings(wanted: &SweepTable, base: &Base) -> Result<Vec<Setting>> {
    let grid = draw::grid(&wanted.grid)?;
    let random = draw::random(&wanted.random, wanted.trials, wanted.seed)?;
    let drawn: Vec<&String> = random.first().into_iter().flatten().map(|(key, _)| key).collect();
    let of_grid = grid.iter().map(|(key, _)| ("grid", key));
    for (table, key) in of_grid.chain(drawn.iter().map(|key| ("random", *key))) {
        if let Some((_, mend)) = FIXED.iter().find(|(fixed, _)| fixed == key) {
            return Err(Error::setting(format!("sweep.{table}.{key}"), "is no setting of a trial", *mend));
        }
    }
    if let Some((key, _)) = grid.iter().find(|(key, _)| drawn.contains(&key)) {
        let key = format!("sweep.random.{key}");
        return Err(Error::setting(key, "is in the grid, too", "leave it out of one of the two"));
    }
    if wanted.ablate {
        if !grid.is_empty() || !random.is_empty() {
            let problem = "removes the terms of one recipe, and [sweep.grid] or [sweep.random] makes many";
            return Err(Error::setting("sweep.ablate", problem, "leave one of the two out"));
        }
        return ablation(&base.recipe);
    }
    if grid.is_empty() && random.is_empty() && wanted.seeds.is_empty() && base.name.is_none() {
        let mend = "give [sweep.grid], [sweep.random] with sweep.trials, sweep.recipes or sweep.seeds; or try --ablate";
        return Err(Error::setting("sweep", "there is nothing to try", mend));
    }
    let mut points: Vec<Vec<(String, Value)>> = vec![Vec::new()];
    for (key, values) in grid {
        if points.len().saturating_mul(values.len()) > MOST_TRIALS {
            return Err(Error::setting(
                "sweep.grid",
                "has too many points",
                format!("at most {MOST_TRIALS} trials"),
            ));
        }
        let with = |point: &Vec<(String, Value)>, value: &Value| {
            let mut point = point.clone();
            point.push((key.clone(), value.clone()));
            point
        };
        points = points.iter().flat_map(|point| values.iter().map(|value| with(point, value))).collect();
    }
    let draws = if random.is_empty() { vec![Vec::new()] } else { random };
    if points.len().saturating_mul(draws.len()) > MOST_TRIALS {
        return Err(Error::setting(
            "sweep.trials",
            "makes too many trials",
            format!("at most {MOST_TRIALS}"),
        ));
    }
    let all = points.iter().flat_map(|point| draws.iter().map(|draw| [&point[..], &draw[..]].concat()));
    let named = |settings: Vec<(String, Value)>| {
        (names::setting(&settings, base.name.as_deref(), &base.recipe.name), settings)
    };
    Ok(all.map(named).collect())
}

/// The whole recipe, and the recipe without each of the terms that it has.
fn ablation(recipe: &Recipe) -> Result<Vec<Setting>> {
    let mut all = vec![(WHOLE.to_owned(), Vec::new())];
    for term in TERMS.iter().filter(|term| term.is_used(recipe)) {
        let mut off = Vec::new();
        for assignment in term.off() {
            let (key, value) = assignment.split_once('=').expect("key=value, in a table of ours");
            off.push((key.to_owned(), read::value(value)));
        }
        all.push((format!("without-{}", term.name), off));
    }
    if all.len() == 1 {
        return Err(Error::setting(
            "sweep.ablate",
            "the recipe has no term to remove",
            "give another recipe",
        ));
    }
    Ok(all)
}

fn trial(text: &str, origin: &Path, typed: &[String], setting: &Setting, seed: u64) -> Result<Trial> {
    let (name, values) = setting;
    let id = names::trial(name, seed);
    let settings: Vec<(String, String)> =
        values.iter().map(|(key, value)| (key.clone(), value.to_string())).collect();
    let set = settings.iter().map(|(key, value)| format!("{key}={value}"));
    let own = [format!("seed={seed}"), format!("name=\"{id}\"")];
    let overrides: Vec<String> = typed.iter().cloned().chain(set).chain(own).collect();
    let recipe =
        Recipe::parse(text, origin, &overrides).map_err(|error| said_of(error, &format!("in trial {id}")))?;
    Ok(Trial { id, setting: name.clone(), seed, settings, recipe })
}

/// An error of a setting, and where that stands.
fn said_of(error: Error, place: &str) -> Error {
    match error {
        Error::Setting { key, problem, mend } => {
            Error::Setting { key, problem: format!("{problem} ({place})"), mend }
        }
        other => other,
    }
}

#[cfg(test)]
mod tests;
