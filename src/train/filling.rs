//! Batches filled up to sizes that come again.
//!
//! Texts that teach nothing go behind those of the batch, as many and with as many tokens as make the next of few sizes. They have
//! no label, so that no loss and no gradient knows of them; and since batches are ragged, no other text does.

use super::examples::Examples;

/// The most tokens of a text that fills up: those of the smallest class of attention.
const LONGEST: usize = 32;

/// The least and the most that sizes are apart; in between a sixteenth of the tokens.
const STEPS: [usize; 2] = [32, 256];

/// `examples` with texts that fill it up, of a network that reads so many `positions`. None where texts are too short for that.
pub(super) fn filled(examples: &Examples, positions: usize) -> Option<Examples> {
    let tokens = examples.batch.tokens();
    let longest = LONGEST.min(positions);
    if longest < 2 {
        return None;
    }
    let [least, most] = STEPS;
    let step = (tokens.next_power_of_two() / 16).clamp(least, most);
    // As many as hold what can be missing, each of one token at least: for one size always the same.
    let texts = (step - 1).div_ceil(longest - 1);
    let missing = (tokens + texts).next_multiple_of(step) - tokens;
    let mut filled = examples.clone();
    for text in 0..texts {
        let ids = vec![0; missing * (text + 1) / texts - missing * text / texts];
        // The number keys their dropout: any but a text's will do.
        filled.batch.push(&ids, u64::MAX - text as u64);
    }
    if !examples.batch.token_types.is_empty() {
        filled.batch.token_types.resize(filled.batch.tokens(), 0);
    }
    Some(filled)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Batch;

    #[test]
    fn sizes_are_few_and_texts_are_short() {
        for positions in [2, 9, 32, 512] {
            let mut sizes = std::collections::BTreeSet::new();
            for tokens in (1..3000).step_by(7) {
                let mut batch = Batch::new();
                batch.push(&vec![5; tokens], 3);
                let examples = Examples { batch, labels: vec![1], teacher: None };
                let filled = filled(&examples, positions).unwrap();
                assert_eq!((&filled.labels, &filled.teacher), (&examples.labels, &None));
                assert_eq!(filled.batch.text(0), 0..tokens);
                for text in 1..filled.batch.texts() {
                    let length = filled.batch.text(text).len();
                    assert!((1..=LONGEST.min(positions)).contains(&length), "{tokens}: {length}");
                }
                let size = filled.batch.tokens();
                assert!(size <= tokens + tokens / 8 + 64 + filled.batch.texts(), "{tokens}: {size}");
                sizes.insert((size, filled.batch.texts()));
            }
            assert!(sizes.len() <= 48, "{positions}: {sizes:?}");
        }
        let examples = Examples { batch: Batch::from_texts([&vec![1]]), labels: vec![0], teacher: None };
        assert!(filled(&examples, 1).is_none());
    }
}
