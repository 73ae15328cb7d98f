//! What settings and trials are called: readable, and the same whatever else is tried.

use super::draw::plain;
use crate::files;
use toml::Value;

/// Longest name of a setting; `_seed-` and the seed follow, and a recipe's name ends at 100.
const LONGEST: usize = 72;

/// `heads-0.4_alpha-0.3`; a key has its last part, or all of it where two would look the same. Without settings the
/// recipe's name. Where several recipes are varied, `among` them is this one, and its name comes first.
pub(super) fn setting(settings: &[(String, Value)], among: Option<&str>, recipe: &str) -> String {
    if settings.is_empty() {
        return shortened(among.unwrap_or(recipe).to_owned());
    }
    let last = |key: &str| key.rsplit('.').next().unwrap_or_default().to_owned();
    let pair = |(key, value): &(String, Value)| {
        let alike = settings.iter().filter(|(other, _)| last(other) == last(key)).count();
        let name = if alike > 1 { key.clone() } else { last(key) };
        format!("{}-{}", word(&name, "-._"), word(&plain(value), "-."))
    };
    let all: Vec<String> = among.map(str::to_owned).into_iter().chain(settings.iter().map(pair)).collect();
    shortened(all.join("_"))
}

/// A setting's name and a seed.
pub(super) fn trial(setting: &str, seed: u64) -> String {
    format!("{setting}_seed-{seed}")
}

/// A key or a value as a part of a file's name: letters, digits and `others`. What cannot stand in one is `-`, and then its hash
/// tells it from others.
fn word(value: &str, others: &str) -> String {
    let fits = |c: char| c.is_ascii_alphanumeric() || others.contains(c);
    if !value.is_empty() && value.chars().all(fits) {
        return value.to_owned();
    }
    let kept: String = value.chars().map(|c| if fits(c) { c } else { '-' }).collect();
    format!("{}-{}", kept.trim_matches(['-', '.']), &files::sha256(value.as_bytes())[..6])
}

/// A name that is too long has its end replaced by its hash.
fn shortened(name: String) -> String {
    if name.len() <= LONGEST {
        return name;
    }
    let kept: String = name.chars().take(LONGEST - 9).collect();
    format!("{kept}-{}", &files::sha256(name.as_bytes())[..8])
}
