//! int8 or int4, matrix by matrix: as many in int4 as an accuracy allows.
//!
//! Parameters are put in the order of the damage that they do alone, [`MatrixSensitivity::divergence`], for each byte that they
//! save. The file is then the smallest whose accuracy is enough among those that have the first of them in int4, found by
//! bisection: a dozen evaluations of some hundred texts rather than one for each subset. That accuracies fall as more
//! become int4 is assumed; where they waver, what is found is enough, and another number of them may be, too.

use super::sensitivity::{MatrixSensitivity, Sensitivity};
use crate::Result;

/// Those that int4 makes smaller and whose divergence is known, least damage for a byte first.
pub fn order(sensitivity: &Sensitivity) -> Vec<&MatrixSensitivity> {
    let damage = |parameter: &MatrixSensitivity| Some(parameter.divergence? / parameter.saved() as f64);
    let mut ordered: Vec<(f64, &MatrixSensitivity)> = sensitivity
        .parameters
        .iter()
        .filter(|parameter| parameter.saved() > 0)
        .filter_map(|parameter| Some((damage(parameter)?, parameter)))
        .collect();
    // Of equal ones the earlier in the network.
    ordered.sort_by(|a, b| a.0.total_cmp(&b.0));
    ordered.into_iter().map(|(_, parameter)| parameter).collect()
}

/// The largest number, from 0 to `most`, that is `enough`, if it is for all below it; 0 is not asked for.
///
/// # Errors
/// Those of `enough`.
pub fn largest(most: usize, mut enough: impl FnMut(usize) -> Result<bool>) -> Result<usize> {
    let (mut low, mut high) = (0, most + 1);
    // All of them first: often that is the answer.
    let mut next = most;
    while low + 1 < high {
        if enough(next)? {
            low = next;
        } else {
            high = next;
        }
        next = low + (high - low) / 2;
    }
    Ok(low)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quantize::sensitivity::FormStats;

    #[test]
    fn bisection_finds_the_last_that_is_enough() {
        for most in 0..20 {
            for last in 0..=most {
                let mut asked = Vec::new();
                let found = largest(most, |count| {
                    asked.push(count);
                    Ok(count <= last)
                });
                assert_eq!(found.unwrap(), last, "of {most}");
                let bits = usize::BITS - most.leading_zeros();
                assert!(asked.len() <= bits as usize + 2 && !asked.contains(&0), "{asked:?}");
                asked.sort_unstable();
                assert!(asked.windows(2).all(|pair| pair[0] < pair[1]), "each once: {asked:?}");
            }
        }
    }

    #[test]
    fn least_damage_for_a_byte_goes_first() {
        let parameter = |name: &str, bytes: [usize; 2], divergence| MatrixSensitivity {
            name: name.into(),
            rows: 1,
            cols: 1,
            int8: FormStats { bytes: bytes[0], ..FormStats::default() },
            int4: FormStats { bytes: bytes[1], ..FormStats::default() },
            static_scales: None,
            divergence,
        };
        let sensitivity = Sensitivity {
            texts: 1,
            parameters: vec![
                parameter("unknown", [100, 50], None),
                parameter("costly", [100, 50], Some(1.0)),
                parameter("blocks", [40, 50], Some(0.0)),
                parameter("large", [1000, 500], Some(2.0)),
                parameter("small", [100, 50], Some(0.1)),
            ],
        };
        let names: Vec<&str> = order(&sensitivity).iter().map(|parameter| parameter.name.as_str()).collect();
        assert_eq!(names, ["small", "large", "costly"]);
    }
}
