//! From text to a TOML tree to a [`Recipe`], with errors that name the key.

use super::{Recipe, tables::PRUNE_EPOCHS};
use crate::{Error, Result};
use std::path::Path;
use toml::{Table, Value};

/// Parses `text`.
pub(in crate::stages) fn tree(text: &str, origin: &Path) -> Result<Table> {
    text.parse::<Table>().map_err(|error| Error::File {
        path: origin.to_owned(),
        line: error.span().map(|span| 1 + text[..span.start].matches('\n').count()),
        problem: match error.message() {
            large if large.contains("i128") => format!("a whole number beyond {}", i64::MAX),
            message => one_line(message),
        },
        mend: "a recipe is TOML: [table] headers and key = value lines, texts in quotes".into(),
    })
}

/// Applies one `a.b.c=value`. The value is read as TOML where it is TOML and as a string where it is not,
/// so that paths and names need no quotes. A whole number that TOML cannot hold becomes the last that it can, and
/// the key is returned with the text that was given.
pub(in crate::stages) fn assign(tree: &mut Table, assignment: &str) -> Result<Option<(String, String)>> {
    let Some((key, text)) = assignment.split_once('=') else {
        return Err(Error::setting(
            assignment,
            "has no value",
            "write --set key=value, as --set data.limit=8000",
        ));
    };
    let (key, text) = (key.trim(), text.trim());
    let mut parents = names(key);
    let name = parents.pop().unwrap_or_default();
    let mut table = tree;
    for parent in &parents {
        let entry = table.entry(parent.as_str()).or_insert_with(|| Value::Table(Table::new()));
        let Value::Table(next) = entry else {
            return Err(Error::setting(key, format!("{parent} is a value, not a table"), "shorten the key"));
        };
        table = next;
    }
    if is_too_large(text) {
        table.insert(name, Value::Integer(if text.starts_with('-') { i64::MIN } else { i64::MAX }));
        return Ok(Some((key.to_owned(), text.to_owned())));
    }
    table.insert(name, value(text));
    Ok(None)
}

/// The names between the dots of a key. One with dots of its own stands in quotes, as in TOML.
pub(in crate::stages) fn names(key: &str) -> Vec<String> {
    let quoted = key.contains(['"', '\'']).then(|| format!("{key} = 0").parse::<Table>().ok()).flatten();
    let Some(mut table) = quoted else { return key.split('.').map(str::to_owned).collect() };
    let mut names = Vec::new();
    while let Some((name, Value::Table(next))) =
        table.iter().next().map(|(name, next)| (name.clone(), next.clone()))
    {
        names.push(name);
        table = next;
    }
    names.extend(table.into_iter().map(|(name, _)| name));
    names
}

/// Refuses numbers that are too large for TOML: with the error that the numbers in their place led to, which knows
/// the key's range, or else with that of any number.
pub(super) fn refuse_large_numbers(parsed: Result<Recipe>, numbers: &[(String, String)]) -> Result<Recipe> {
    let given =
        |key: &str| numbers.iter().find(|(name, _)| name == key).map(|(_, text)| format!("is {text}"));
    match (parsed, numbers.first()) {
        (Err(Error::Setting { key, problem, mend }), _) => {
            let problem = given(&key).unwrap_or(problem);
            Err(Error::setting(key, problem, mend))
        }
        (Ok(_), Some((key, text))) => {
            let range = format!("whole numbers go from {} to {}", i64::MIN, i64::MAX);
            Err(Error::setting(key, format!("is {text}"), range))
        }
        (parsed, _) => parsed,
    }
}

/// Whether `text` is a whole number that TOML cannot hold: it would be taken for a text.
fn is_too_large(text: &str) -> bool {
    let digits = text.trim_start_matches(['+', '-']);
    !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) && text.parse::<i64>().is_err()
}

/// `text` as a TOML value, or else as a string.
pub(in crate::stages) fn value(text: &str) -> Value {
    let parsed = format!("value = {text}").parse::<Table>().ok();
    let only = parsed.filter(|table| table.len() == 1);
    only.and_then(|mut table| table.remove("value")).unwrap_or_else(|| Value::String(text.to_owned()))
}

/// Fills `[prune.train]` and `[distill.train]` from `[train]`, save for how long they last.
pub(super) fn inherit(tree: &mut Table) {
    let Some(Value::Table(mut base)) = tree.get("train").cloned() else { return };
    base.remove("epochs");
    base.remove("steps");
    for stage in ["prune", "distill"] {
        let stage = tree.entry(stage).or_insert_with(|| Value::Table(Table::new()));
        let Value::Table(stage) = stage else { continue };
        let train = stage.entry("train").or_insert_with(|| Value::Table(Table::new()));
        let Value::Table(train) = train else { continue };
        for (key, value) in &base {
            train.entry(key).or_insert_with(|| value.clone());
        }
    }
}

/// Turns the tree into a recipe.
pub(super) fn recipe(mut tree: Table) -> Result<Recipe> {
    // `Train` has one default length; that of `[prune.train]` differs.
    if let Some(train) = tree.get_mut("prune").and_then(|prune| prune.get_mut("train"))
        && let Value::Table(train) = train
    {
        train.entry("epochs").or_insert(Value::Float(PRUNE_EPOCHS));
    }
    tree.try_into().map_err(|error: toml::de::Error| explain(&error))
}

/// serde's message, with the key that it is about and the mend.
///
/// serde names the key of a wrong value ("in `train.batch`") and, for an unknown key, the keys that exist;
/// both come as text, in which all names stand between backticks.
pub(in crate::stages) fn explain(error: &toml::de::Error) -> Error {
    let shown = error.to_string();
    let place = shown.lines().find_map(|line| line.strip_prefix("in `")?.strip_suffix('`')).unwrap_or("");
    let message = error.message();
    let mut names = message.split('`').skip(1).step_by(2);
    if message.starts_with("unknown field")
        && let Some(unknown) = names.next()
    {
        let known: Vec<&str> = names.collect();
        let key = if place.is_empty() { unknown.to_owned() } else { format!("{place}.{unknown}") };
        let mend = match nearest(unknown, &known) {
            Some(name) => format!("did you mean {name}?"),
            None => format!("known here: {}", known.join(", ")),
        };
        return Error::setting(key, "there is no such key", mend);
    }
    if message.starts_with("unknown variant")
        && let Some(unknown) = names.next()
    {
        let known: Vec<&str> = names.collect();
        let mend = match nearest(unknown, &known) {
            Some(name) => format!("did you mean \"{name}\"?"),
            None => format!("known: {}", known.join(", ")),
        };
        return Error::setting(place, format!("\"{unknown}\" is not one of its values"), mend);
    }
    let key = if place.is_empty() { "recipe" } else { place };
    if let Some(number) =
        message.strip_prefix("invalid value: integer `").and_then(|rest| rest.split('`').next())
    {
        return Error::setting(key, format!("is {number}"), "a whole number, 0 or more");
    }
    let problem = one_line(message).replace("usize", "a whole number").replace("u64", "a whole number");
    let problem = problem.replace("f64", "a number");
    Error::setting(key, problem, "give a value of that kind (a text that looks like a number needs quotes)")
}

/// The name nearest to `typed` by edit distance, if it is near enough to be a slip of the finger.
fn nearest<'a>(typed: &str, known: &[&'a str]) -> Option<&'a str> {
    let near = 1 + typed.chars().count() / 3;
    known.iter().map(|name| (distance(typed, name), *name)).filter(|(d, _)| *d <= near).min().map(|(_, n)| n)
}

/// Levenshtein's distance: insertions, deletions and replacements between `a` and `b`.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, to) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

fn one_line(message: &str) -> String {
    message.split_whitespace().collect::<Vec<_>>().join(" ")
}
