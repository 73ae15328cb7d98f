//! The order in which training meets its texts: a function of seed and epoch alone.

use limbeck_kernels::random::mix;

/// Shuffles texts anew each epoch and cuts them into batches.
#[derive(Clone, Debug)]
pub struct Order {
    seed: u64,
    texts: usize,
    batch: usize,
    epoch: Option<(u64, Vec<u32>)>,
}

impl Order {
    /// `texts` texts in batches of `batch`, of which the last of an epoch may be smaller.
    pub fn new(seed: u64, texts: usize, batch: usize) -> Order {
        assert!(batch > 0, "a batch holds at least one text");
        Order { seed, texts, batch, epoch: None }
    }

    /// Batches in an epoch.
    pub fn batches(&self) -> u64 {
        self.texts.div_ceil(self.batch) as u64
    }

    /// The texts of batch `step` of the whole training, steps counted from 0.
    pub fn batch(&mut self, step: u64) -> &[u32] {
        let (epoch, place) = (step / self.batches(), (step % self.batches()) as usize);
        if self.epoch.as_ref().is_none_or(|(current, _)| *current != epoch) {
            self.epoch = Some((epoch, shuffled(self.texts, mix(mix(self.seed) ^ epoch))));
        }
        let (_, texts) = self.epoch.as_ref().expect("set above");
        &texts[place * self.batch..((place + 1) * self.batch).min(self.texts)]
    }
}

/// The numbers below `n` in an order that depends on `key` (Fisher and Yates).
pub fn shuffled(n: usize, key: u64) -> Vec<u32> {
    let mut order: Vec<u32> = (0..n as u32).collect();
    for last in (1..n).rev() {
        // The product's high half is uniform below last + 1, up to a bias of 2⁻³².
        let pick = (u128::from(mix(key ^ last as u64)) * (last as u128 + 1)) >> 64;
        order.swap(last, pick as usize);
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_epoch_meets_every_text_once() {
        let mut order = Order::new(7, 103, 10);
        assert_eq!(order.batches(), 11);
        let epochs: Vec<Vec<u32>> = (0..2)
            .map(|epoch| (0..11).flat_map(|b| order.batch(epoch * 11 + b).to_vec()).collect())
            .collect();
        for epoch in &epochs {
            let mut sorted = epoch.clone();
            sorted.sort_unstable();
            assert!(sorted.into_iter().eq(0..103));
        }
        assert_ne!(epochs[0], epochs[1]);
        assert_eq!(order.batch(3), &epochs[0][30..40]);
    }
}
