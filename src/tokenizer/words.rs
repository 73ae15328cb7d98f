//! Words, without a vocabulary: what BERT's tokenizer makes of a text before it looks for pieces.

use super::unicode::{is_chinese, is_mark, is_punctuation, is_removed};
use unicode_normalization::char::decompose_canonical;

/// Calls `each` with the words of a text: lower-cased, without accents; a punctuation mark, or an ideograph, is one by
/// itself. As BERT's rules for lower case have it, but for the order of marks that are no accents.
pub fn words(text: &str, mut each: impl FnMut(&str)) {
    let mut word = String::new();
    let mut push = |c: char, alone: bool| {
        if (c.is_whitespace() || alone) && !word.is_empty() {
            each(&word);
            word.clear();
        }
        if alone {
            each(c.encode_utf8(&mut [0; 4]));
        } else if !c.is_whitespace() {
            word.push(c);
        }
    };
    for c in text.chars() {
        if c.is_ascii() {
            if !c.is_ascii_control() || c.is_ascii_whitespace() {
                push(c.to_ascii_lowercase(), is_punctuation(c));
            }
        } else if !is_removed(c) {
            decompose_canonical(c, |part| {
                if !is_mark(part) {
                    part.to_lowercase().for_each(|c| push(c, is_punctuation(c) || is_chinese(c)));
                }
            });
        }
    }
    push(' ', false);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Vec<String> {
        let mut found = Vec::new();
        words(text, |word| found.push(word.to_owned()));
        found
    }

    #[test]
    fn words_are_lowered_stripped_and_set_apart() {
        assert_eq!(of("Don't  STOP,\tÉcole\u{200b}s\n"), ["don", "'", "t", "stop", ",", "ecoles"]);
        assert_eq!(of("中文x «ok»"), ["中", "文", "x", "«", "ok", "»"]);
        assert_eq!(of("a\u{0}b\u{7f} \u{3000}c"), ["ab", "c"]);
        assert!(of("").is_empty() && of(" \t\n").is_empty());
    }
}
