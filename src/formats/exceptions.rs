//! Parameters that become something else than most.

use super::Form;
use std::borrow::Cow;

/// Forms by name. A name may hold `*`, which stands for any characters; of several that match a parameter the longest
/// decides, of equally long ones the last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exceptions(Cow<'static, [(String, Form)]>);

impl Exceptions {
    /// Every parameter is as most are.
    pub const NONE: Exceptions = Exceptions(Cow::Borrowed(&[]));

    /// These names and forms.
    pub fn new(exceptions: Vec<(String, Form)>) -> Exceptions {
        Exceptions(Cow::Owned(exceptions))
    }

    /// Names, or patterns, and forms, as they were given.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Form)> {
        self.0.iter().map(|(pattern, form)| (pattern.as_str(), *form))
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What a parameter of this name becomes, if it is an exception.
    pub fn form(&self, name: &str) -> Option<Form> {
        let matching = self.iter().filter(|(pattern, _)| matches(pattern, name));
        matching.max_by_key(|(pattern, _)| pattern.len()).map(|(_, form)| form)
    }
}

/// Whether a name is what a pattern stands for.
pub fn matches(pattern: &str, name: &str) -> bool {
    let Some((head, rest)) = pattern.split_once('*') else { return pattern == name };
    let Some(mut left) = name.strip_prefix(head) else { return false };
    let (middle, tail) = rest.rsplit_once('*').map_or((None, rest), |(middle, tail)| (Some(middle), tail));
    // Each part as early as possible, which leaves most for those behind it.
    for part in middle.into_iter().flat_map(|middle| middle.split('*')) {
        let Some(place) = left.find(part) else { return false };
        left = &left[place + part.len()..];
    }
    left.ends_with(tail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_characters() {
        for (pattern, name, expected) in [
            ("a.b", "a.b", true),
            ("a.b", "a.bc", false),
            ("a*", "a", true),
            ("*", "", true),
            ("*.weight", "layer.0.weight", true),
            ("*.weight", "layer.0.bias", false),
            ("layer.*.ffn.*.weight", "layer.10.ffn.lin2.weight", true),
            ("layer.*.ffn.*.weight", "layer.10.lin2.weight", false),
            ("a*a", "a", false),
            ("a*a", "aa", true),
            ("*ab*ab*", "xabxab", true),
            ("*ab*ab*", "xabb", false),
            ("**", "é", true),
            ("*é", "aé", true),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn the_longest_pattern_decides() {
        let exceptions = Exceptions::new(vec![
            ("*.layer.1.*".into(), Form::Int8Tensor),
            ("*".into(), Form::Int4),
            ("x.layer.1.q".into(), Form::Int8),
        ]);
        assert_eq!(exceptions.form("x.layer.1.q"), Some(Form::Int8));
        assert_eq!(exceptions.form("x.layer.1.k"), Some(Form::Int8Tensor));
        assert_eq!(exceptions.form("y"), Some(Form::Int4));
        assert_eq!(Exceptions::NONE.form("y"), None);
    }
}
