//! From word ids to hashed features.

use limbeck_kernels::random::mix;

/// What a linear model sees of a text: buckets, ascending, and their values, whose squares sum to 1.
///
/// Each word and each pair of neighbours counts in the bucket of its hash (Weinberger et al., 2009); the counts are
/// scaled to length 1, so that a long text does not shout.
#[derive(Clone, Debug, Default)]
pub struct Features {
    buckets: Vec<u32>,
    values: Vec<f32>,
}

impl Features {
    /// Takes on the features of a text, among `buckets` of them; the room of former ones is used again.
    pub fn refill(&mut self, words: &[u32], buckets: usize) {
        // The product's high half is uniform below `buckets`.
        let bucket = |hash: u64| ((u128::from(hash) * buckets as u128) >> 64) as u32;
        let pair = |pair: &[u32]| mix(mix(u64::from(pair[0])) ^ u64::from(pair[1]));
        self.buckets.clear();
        self.buckets.extend(words.iter().map(|word| bucket(mix(u64::from(*word)))));
        self.buckets.extend(words.windows(2).map(|words| bucket(pair(words))));
        self.buckets.sort_unstable();
        self.values.clear();
        let mut last = None;
        for &bucket in &self.buckets {
            match self.values.last_mut() {
                Some(count) if last == Some(bucket) => *count += 1.0,
                _ => self.values.push(1.0),
            }
            last = Some(bucket);
        }
        self.buckets.dedup();
        let length = self.values.iter().map(|count| count * count).sum::<f32>().sqrt();
        self.values.iter_mut().for_each(|count| *count /= length);
    }

    /// Buckets with their values.
    pub fn iter(&self) -> impl Iterator<Item = (usize, f32)> {
        self.buckets.iter().zip(&self.values).map(|(bucket, value)| (*bucket as usize, *value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(words: &[u32], buckets: usize) -> Vec<(usize, f32)> {
        let mut features = Features::default();
        features.refill(&[9; 40], buckets);
        features.refill(words, buckets);
        features.iter().collect()
    }

    #[test]
    fn counts_have_length_one_and_order_matters() {
        // Two words, of which one twice, and two pairs.
        let features = of(&[7, 7, 8], 1 << 20);
        let mut values: Vec<f32> = features.iter().map(|(_, value)| *value).collect();
        values.sort_by(f32::total_cmp);
        let one = 1.0 / 7.0_f32.sqrt();
        assert!(values.len() == 4 && values[3] == 2.0 * values[0] && (values[0] - one).abs() <= 1e-6);
        assert!(features.windows(2).all(|pair| pair[0].0 < pair[1].0));
        assert_ne!(of(&[7, 8], 1 << 20), of(&[8, 7], 1 << 20));
        assert!(of(&[], 1 << 20).is_empty());
        assert_eq!(of(&[7, 8, 9], 1), [(0, 1.0)]);
    }
}
