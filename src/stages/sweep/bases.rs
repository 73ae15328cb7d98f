//! The recipes that a sweep varies: one, or several side by side.

use super::super::Recipe;
use super::super::recipe::read;
use super::SweepTable;
use crate::{Error, Result, files};
use std::path::Path;
use toml::{Table, Value};

/// A recipe that is varied.
pub(super) struct Base {
    /// What its settings are called after; `None` where it is the only one.
    pub name: Option<String>,
    /// Its text, with the sweep file's own keys.
    pub text: String,
    /// What the text says.
    pub recipe: Recipe,
}

/// The recipes that `wanted` names, each with the keys of `own` laid over it. `origin` is the sweep file.
pub(super) fn read(wanted: &SweepTable, own: &Table, origin: &Path, typed: &[String]) -> Result<Vec<Base>> {
    let given = [!wanted.base.is_empty(), !wanted.recipes.is_empty(), !wanted.whole.is_empty()];
    if given.iter().filter(|given| **given).count() > 1 {
        let problem = "has more than one of `base`, `recipes` and `whole`";
        return Err(Error::setting("sweep", problem, "base = one recipe, or recipes = a list of several"));
    }
    if wanted.recipes.is_empty() && wanted.whole.is_empty() {
        let tree =
            if wanted.base.is_empty() { Table::new() } else { open(&wanted.base, origin, "sweep.base")? };
        return Ok(vec![base(None, tree, own, origin, typed)?]);
    }
    // The sweep has a name of its own, which is none of its recipes'.
    let own: Table = own
        .iter()
        .filter(|(key, _)| *key != "name")
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    let opened = wanted.recipes.iter().map(|path| open(path, origin, "sweep.recipes"));
    let mut bases: Vec<Base> = Vec::new();
    for tree in opened.chain(wanted.whole.iter().cloned().map(Ok)) {
        let tree = tree?;
        let Some(name) = tree.get("name").and_then(Value::as_str).map(str::to_owned) else {
            return Err(Error::setting(
                "sweep.recipes",
                "a recipe has no name",
                "give each its `name = \"…\"`",
            ));
        };
        if bases.iter().any(|other| other.name.as_deref() == Some(&name)) {
            let problem = format!("two recipes are called {name}");
            return Err(Error::setting("sweep.recipes", problem, "give each a `name` of its own"));
        }
        bases.push(base(Some(name), tree, &own, origin, typed)?);
    }
    Ok(bases)
}

fn base(name: Option<String>, mut tree: Table, own: &Table, origin: &Path, typed: &[String]) -> Result<Base> {
    overlay(&mut tree, own.clone());
    let text = toml::to_string(&tree).expect("it was TOML");
    // By itself, so that what is wrong without any setting is not said of a trial.
    let place = || name.as_ref().map(|name| format!("in recipe {name}"));
    let recipe = Recipe::parse(&text, origin, typed).map_err(|error| match place() {
        Some(place) => super::said_of(error, &place),
        None => error,
    })?;
    Ok(Base { name, text, recipe })
}

fn open(path: &str, origin: &Path, key: &str) -> Result<Table> {
    let path = origin.parent().unwrap_or(Path::new("")).join(path);
    let tree = read::tree(&files::read_to_string(&path)?, &path)?;
    match tree.contains_key("sweep") {
        true => Err(Error::setting(key, format!("{} is a sweep itself", path.display()), "name a recipe")),
        false => Ok(tree),
    }
}

/// Puts the keys of `over` into `tree`, table by table.
fn overlay(tree: &mut Table, over: Table) {
    for (key, value) in over {
        match (tree.get_mut(&key), value) {
            (Some(Value::Table(under)), Value::Table(over)) => overlay(under, over),
            (_, value) => drop(tree.insert(key, value)),
        }
    }
}
