//! Classes: their names, and which value in a table means which.

use crate::{Error, Result, files};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// More values than this are no classes: the wrong column was taken.
pub(super) const MAX_CLASSES: usize = 1_000;

/// The classes of a task. Found in its training table, used for all of its tables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Labels {
    names: Vec<String>,
    by_value: BTreeMap<String, usize>,
}

impl Labels {
    /// Makes classes of the values that a label column holds, and of their names if there are any.
    ///
    /// Without names the values are the names, numbers in their order and other values alphabetically. With
    /// names the values are either those names or, where none is, numbers from 0 or from 1 (AG News counts from 1).
    /// With `first`, the number of the first class, they are numbers from there.
    ///
    /// # Errors
    /// A sentence that says how values and names do not fit.
    pub fn new(
        values: &BTreeSet<String>,
        names: Option<&[String]>,
        first: Option<usize>,
    ) -> std::result::Result<Labels, String> {
        let numbers: Option<BTreeSet<u64>> = values.iter().map(|value| value.parse().ok()).collect();
        let Some(names) = names else {
            let mut names: Vec<String> = values.iter().cloned().collect();
            if numbers.is_some() {
                names.sort_by_key(|value| value.parse::<u64>().ok());
            }
            let by_value = names.iter().cloned().zip(0..).collect();
            return Ok(Labels { names, by_value });
        };
        let named: BTreeMap<String, usize> = names.iter().cloned().zip(0..).collect();
        if named.len() != names.len() {
            return Err(format!("a class is named twice in {names:?}"));
        }
        if names.iter().any(|name| name.trim().is_empty()) {
            return Err(format!("a class has no name in {names:?}"));
        }
        if let Some(first) = first {
            if first > 1 {
                return Err(format!("data.first_label is {first}; classes are counted from 0 or from 1"));
            }
            let labels = Labels::numbered(names, first);
            return match values.iter().find(|value| labels.index_of(value).is_none()) {
                None => Ok(labels),
                Some(stray) => Err(format!(
                    "the label {stray:?} is none of {:?}, the numbers of {names:?} from {first}",
                    labels.values()
                )),
            };
        }
        if values.iter().all(|value| named.contains_key(value)) {
            return Ok(Labels { names: names.to_vec(), by_value: named });
        }
        // Once some values are names all must be: another's number beside them would become a wrong class.
        if values.iter().any(|value| named.contains_key(value))
            && let Some(stray) = values.iter().find(|value| !named.contains_key(*value))
        {
            return Err(format!("{stray:?} is none of the names {names:?}, which other labels are"));
        }
        match numbers.and_then(|numbers| numbered_from(&numbers, names.len())) {
            Some(first) => Ok(Labels::numbered(names, first)),
            None => {
                let shown: Vec<&String> = values.iter().take(8).collect();
                Err(match from_0_or_1(values, names.len()) {
                    true => format!(
                        "the labels {shown:?} do not tell whether {names:?} are counted from 0 or from 1"
                    ),
                    false => format!(
                        "the values {shown:?} are neither the names {names:?} nor numbers from 0 or 1"
                    ),
                })
            }
        }
    }

    /// Classes that the label column has by their numbers, from `first`.
    fn numbered(names: &[String], first: usize) -> Labels {
        let by_value = (0..names.len()).map(|index| ((index + first).to_string(), index)).collect();
        Labels { names: names.to_vec(), by_value }
    }

    /// Names of the classes, in the order of the logits.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// The class that a value in a label column means.
    pub fn index_of(&self, value: &str) -> Option<usize> {
        self.by_value.get(value).copied()
    }

    /// The value that means a class in the label column: its name, or its number there.
    pub fn value_of(&self, class: usize) -> Option<&str> {
        self.by_value.iter().find(|(_, index)| **index == class).map(|(value, _)| value.as_str())
    }

    /// The values that mean a class, for error messages.
    pub(super) fn values(&self) -> Vec<&str> {
        self.by_value.keys().map(String::as_str).take(12).collect()
    }

    /// Everything that decides which value means what, for the cache's key.
    pub(super) fn description(&self) -> String {
        format!("{:?} {:?}", self.names, self.by_value)
    }
}

/// Whether numbers count `classes` classes from 0 or from 1. Only a 0 or a `classes` among them tells.
fn numbered_from(numbers: &BTreeSet<u64>, classes: usize) -> Option<usize> {
    let (smallest, largest) = (*numbers.first()?, *numbers.last()?);
    match smallest {
        0 if largest < classes as u64 => Some(0),
        1.. if largest == classes as u64 => Some(1),
        _ => None,
    }
}

/// Whether values could be numbers of `classes` classes both from 0 and from 1.
pub(super) fn from_0_or_1(values: &BTreeSet<String>, classes: usize) -> bool {
    values.iter().all(|value| value.parse().is_ok_and(|number: usize| (1..classes).contains(&number)))
}

/// Reads a `classes.txt`: one name a line, blank lines at the end ignored.
///
/// # Errors
/// [`Error::Io`]; [`Error::File`] if it is empty or a line is blank.
pub fn read_classes(path: &Path) -> Result<Vec<String>> {
    let text = files::read_to_string(path)?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let names: Vec<String> = text.trim_end().lines().map(|line| line.trim().to_owned()).collect();
    match names.iter().position(String::is_empty) {
        _ if names.is_empty() => Err(Error::file(path, "it names no class", "write one name on each line")),
        Some(line) => Err(Error::File {
            path: path.to_owned(),
            line: Some(line + 1),
            problem: "the line is blank".to_owned(),
            mend: "write one name on each line".to_owned(),
        }),
        None => Ok(names),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(values: &[&str], names: Option<&[&str]>) -> std::result::Result<Labels, String> {
        let values = values.iter().map(|&value| value.to_owned()).collect();
        let names = names.map(|names| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>());
        Labels::new(&values, names.as_deref(), None)
    }

    #[test]
    fn values_are_matched_with_names() {
        let news = ["World", "Sports", "Business", "Sci/Tech"];
        let from_one = labels(&["1", "2", "3", "4"], Some(&news)).unwrap();
        assert_eq!(
            (from_one.index_of("1"), from_one.index_of("4"), from_one.index_of("0")),
            (Some(0), Some(3), None)
        );
        let from_zero = labels(&["0", "3"], Some(&news)).unwrap();
        assert_eq!(
            (from_zero.index_of("0"), from_zero.index_of("3"), from_zero.index_of("4")),
            (Some(0), Some(3), None)
        );
        let named = labels(&["Sports"], Some(&news)).unwrap();
        assert_eq!((named.index_of("World"), named.index_of("1")), (Some(0), None));
        assert_eq!(from_one.names(), news);
        assert_eq!(
            (from_one.value_of(0), from_one.value_of(3), from_one.value_of(4)),
            (Some("1"), Some("4"), None)
        );

        let plain = labels(&["10", "9", "2"], None).unwrap();
        assert_eq!(plain.names(), ["2", "9", "10"]);
        assert_eq!(labels(&["pos", "neg"], None).unwrap().index_of("neg"), Some(0));
    }

    #[test]
    fn the_first_number_can_be_said() {
        let news = ["World", "Sports", "Business", "Sci/Tech"].map(str::to_owned);
        let from = |values: &[&str], names: &[String], first: usize| {
            let values = values.iter().map(|&value| value.to_owned()).collect();
            Labels::new(&values, Some(names), Some(first))
        };
        for first in [0, 1] {
            let labels = from(&["1", "2", "3"], &news, first).unwrap();
            assert_eq!(labels.index_of("2"), Some(2 - first));
        }
        assert!(labels(&["1", "3"], Some(&["a", "b", "c", "d"])).unwrap_err().contains("from 0 or from 1"));
        assert!(from(&["0", "1"], &news, 1).unwrap_err().contains("\"0\" is none of [\"1\""));
        assert!(from(&["4"], &news, 0).is_err() && from(&["World"], &news, 0).is_err());
        assert!(from(&["2"], &news, 2).is_err() && from(&["0"], &[], usize::MAX).is_err());
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let news = ["World", "Sports", "Business", "Sci/Tech"];
        // 2 and 3 alone could count from 0 or from 1: guessing would shift every class.
        for values in [&["2", "3"][..], &["0", "4"], &["1", "5"], &["World", "7"], &[""], &["-1", "0"]] {
            let problem = labels(values, Some(&news)).unwrap_err();
            assert!(problem.contains("World"), "{problem}");
        }
        // Classes that are called by numbers: 0 is none of them, and 1 must not become the class "2".
        let numbers = ["1", "2", "3", "4"];
        let problem = labels(&["0", "1", "2", "3"], Some(&numbers)).unwrap_err();
        assert!(problem.starts_with("\"0\" is none of the names [\"1\""), "{problem}");
        assert_eq!(labels(&["4", "1"], Some(&numbers)).unwrap().index_of("1"), Some(0));
        let problem = labels(&["1", "4"], Some(&["0", "1", "2", "3"])).unwrap_err();
        assert!(problem.starts_with("\"4\" is none"), "{problem}");
        assert!(labels(&["a"], Some(&["a", "a"])).unwrap_err().contains("twice"));
        assert!(labels(&["a"], Some(&["a", " "])).unwrap_err().contains("no name"));
    }
}
