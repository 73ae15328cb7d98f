//! The classes' names in a `config.json`: `"id2label": {"0": "World", "1": "Sports"}`.
//!
//! Read from the text and not from a map of it: of a key that stands there twice a map keeps the last, and a model
//! would answer with the wrong name.

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// The names in the order of their ids, which must be 0, 1, 2, …; none if the object is absent, null or empty.
///
/// # Errors
/// A sentence, if an id is missing or there twice, or a name is blank or there twice.
pub(super) fn label_names(config: &str) -> Result<Vec<String>, String> {
    let Config { id2label } = serde_json::from_str(config).map_err(|error| error.to_string())?;
    let (mut by_id, mut seen) = (BTreeMap::new(), BTreeSet::new());
    for (id, name) in id2label.unwrap_or_default().0 {
        if name.trim().is_empty() {
            return Err(format!("class {id} has no name"));
        }
        if !seen.insert(name.clone()) {
            return Err(format!("two classes are called {name:?}"));
        }
        if by_id.insert(id, name).is_some() {
            return Err(format!("class {id} is there twice"));
        }
    }
    match by_id.keys().enumerate().find(|&(place, &id)| place != id) {
        Some((place, _)) => Err(format!("class {place} of {} is missing", by_id.len())),
        None => Ok(by_id.into_values().collect()),
    }
}

/// The one key that is read here.
#[derive(Deserialize)]
struct Config {
    id2label: Option<Names>,
}

/// The members of an object, in order, with repeated keys still repeated.
#[derive(Default)]
struct Names(Vec<(usize, String)>);

impl<'de> Deserialize<'de> for Names {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Names, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Names;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of class names")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Names, A::Error> {
                let mut names = Names::default();
                while let Some(entry) = map.next_entry()? {
                    names.0.push(entry);
                }
                Ok(names)
            }
        }
        deserializer.deserialize_map(Members)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(object: &str) -> String {
        label_names(&format!(r#"{{"model_type": "bert", "id2label": {object}}}"#)).unwrap_err()
    }

    #[test]
    fn names_come_in_the_order_of_their_ids() {
        let text = r#"{"id2label": {"1": "b", "0": "a", "10": "k", "2": "c", "3": "d", "4": "e", "5": "f",
            "6": "g", "7": "h", "8": "i", "9": "j"}}"#;
        assert_eq!(label_names(text).unwrap().concat(), "abcdefghijk");
        for none in [r#"{}"#, r#"{"id2label": null}"#, r#"{"id2label": {}}"#] {
            assert!(label_names(none).unwrap().is_empty());
        }
    }

    #[test]
    fn names_that_would_mislead_are_refused() {
        assert_eq!(refusal(r#"{"0": "a", "1": "a"}"#), "two classes are called \"a\"");
        assert_eq!(refusal(r#"{"0": "a", "1": " "}"#), "class 1 has no name");
        assert_eq!(refusal(r#"{"0": "a", "0": "b"}"#), "class 0 is there twice");
        assert_eq!(refusal(r#"{"0": "a", "2": "b"}"#), "class 1 of 2 is missing");
        assert_eq!(refusal(r#"{"1": "a", "2": "b"}"#), "class 0 of 2 is missing");
        for object in [r#"["a"]"#, r#"{"-1": "a"}"#, r#"{"x": "a"}"#, r#"{"0": 7}"#] {
            refusal(object);
        }
    }
}
