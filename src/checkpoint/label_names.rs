//! The classes' names in a `config.json`: `"id2label": {"0": "World", "1": "Sports"}`.
//!
//! Every member is looked at: of a key that stands there twice a map would keep one, and a model answer with the wrong
//! name.

use crate::json::Json;
use std::collections::{BTreeMap, BTreeSet};

/// The names in the order of their ids, which must be 0, 1, 2, …; none if the object is absent, null or empty.
///
/// # Errors
/// A sentence, if an id is missing or there twice, or a name is blank or there twice.
pub(super) fn label_names(config: &Json<'_>) -> Result<Vec<String>, String> {
    let members = match config.get("id2label") {
        None | Some(Json::Null) => &[][..],
        Some(Json::Object(members)) => members,
        Some(other) => return Err(format!("{other} is no object of class names")),
    };
    let (mut by_id, mut seen) = (BTreeMap::new(), BTreeSet::new());
    for (id, name) in members {
        let id: usize = id.parse().map_err(|_| format!("the id {id:?} is no whole number"))?;
        let name = name.text().ok_or_else(|| format!("{name} is no name"))?.to_owned();
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

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(object: &str) -> String {
        label_names(&Json::parse(&format!(r#"{{"model_type": "bert", "id2label": {object}}}"#)).unwrap())
            .unwrap_err()
    }

    #[test]
    fn names_come_in_the_order_of_their_ids() {
        let text = r#"{"id2label": {"1": "b", "0": "a", "10": "k", "2": "c", "3": "d", "4": "e", "5": "f",
            "6": "g", "7": "h", "8": "i", "9": "j"}}"#;
        assert_eq!(label_names(&Json::parse(text).unwrap()).unwrap().concat(), "abcdefghijk");
        for none in [r#"{}"#, r#"{"id2label": null}"#, r#"{"id2label": {}}"#] {
            assert!(label_names(&Json::parse(none).unwrap()).unwrap().is_empty());
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
