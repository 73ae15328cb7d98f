//! Which gradients are summed over ranks together, and when they are ready.
//!
//! Parameters are declared in the order in which text flows through them, so that a backward pass is done with the last ones first:
//! buckets take parameters from the end (Li et al., arXiv:2006.15704). What is in which depends on sizes alone, so that it is the same on
//! every rank, and buckets are handed over in their order even where a later one is ready first.

use crate::nn::ParamId;

/// Buckets of a network; fewer would leave nothing to sum while something is computed.
const BUCKETS: usize = 8;
/// Gradients of a bucket, at most but for one that is larger by itself: 16 MiB, more of which no network sums any faster.
const MAX_BUCKET: usize = 4 << 20;
/// At least: below, a sum takes as long as a message does.
const MIN_BUCKET: usize = 1 << 10;

/// Parameters by bucket, in the order in which buckets are handed over.
pub(super) fn buckets(lens: &[usize]) -> Vec<Vec<ParamId>> {
    let enough = (lens.iter().sum::<usize>() / BUCKETS).clamp(MIN_BUCKET, MAX_BUCKET);
    let (mut buckets, mut bucket, mut size) = (Vec::new(), Vec::new(), 0);
    for (id, len) in lens.iter().enumerate().rev() {
        if size > 0 && size + len > MAX_BUCKET {
            buckets.push(std::mem::take(&mut bucket));
            size = 0;
        }
        bucket.push(ParamId(id as u32));
        size += len;
        if size >= enough {
            buckets.push(std::mem::take(&mut bucket));
            size = 0;
        }
    }
    buckets.extend((!bucket.is_empty()).then_some(bucket));
    buckets
}

/// Buckets that are still to be handed over, and what each waits for.
pub(super) struct Ready {
    buckets: std::vec::IntoIter<Vec<ParamId>>,
    /// Nodes that are still to add to a parameter's gradient.
    uses: Vec<u32>,
}

impl Ready {
    /// Of parameters of these lengths, to whose gradients nobody adds.
    pub(super) fn new(lens: &[usize]) -> Ready {
        Ready { buckets: buckets(lens).into_iter(), uses: vec![0; lens.len()] }
    }

    /// Of parameters to whose gradients nodes are still to add, one for each of `uses`.
    pub(super) fn after(lens: &[usize], uses: impl Iterator<Item = ParamId>) -> Ready {
        let mut ready = Ready::new(lens);
        uses.for_each(|id| ready.uses[id.index()] += 1);
        ready
    }

    /// A node that adds to these has run, or will not.
    pub(super) fn done(&mut self, params: &[ParamId]) {
        params.iter().for_each(|id| self.uses[id.index()] -= 1);
    }

    /// The next bucket, if all of it is ready.
    pub(super) fn take(&mut self) -> Option<Vec<ParamId>> {
        let next = self.buckets.as_slice().first()?;
        if next.iter().all(|id| self.uses[id.index()] == 0) { self.buckets.next() } else { None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_have_every_parameter_once_from_the_last_to_the_first() {
        // DistilBERT's, whose table of words is a bucket by itself.
        let layer = [
            589_824, 768, 589_824, 768, 589_824, 768, 589_824, 768, 768, 768, 2_359_296, 3_072, 2_359_296,
            768, 768, 768,
        ];
        let mut distilbert = vec![23_440_896, 393_216, 768, 768];
        distilbert.extend(std::iter::repeat_n(layer, 6).flatten());
        for lens in
            [distilbert, vec![], vec![0, 0], vec![5; 300], vec![1 << 23, 3, 1 << 23], vec![900, 900, 200]]
        {
            let found = buckets(&lens);
            let ids: Vec<usize> = found.iter().flatten().map(|id| id.index()).collect();
            assert!(ids.iter().copied().eq((0..lens.len()).rev()), "{lens:?}");
            for (place, bucket) in found.iter().enumerate() {
                let size: usize = bucket.iter().map(|id| lens[id.index()]).sum();
                let alone = bucket.iter().filter(|id| lens[id.index()] > 0).count() <= 1;
                assert!(size <= MAX_BUCKET || alone, "{size} in {bucket:?}");
                assert!(
                    size >= MIN_BUCKET
                        || place + 1 == found.len()
                        || size + lens[found[place + 1][0].index()] > MAX_BUCKET
                );
            }
        }
    }

    #[test]
    fn a_bucket_that_is_ready_waits_for_those_before_it() {
        let lens = [2_000, 2_000, 2_000];
        let [first, second, third] = [0, 1, 2].map(ParamId);
        let mut ready = Ready { uses: vec![1, 2, 1], ..Ready::new(&lens) };
        assert_eq!(ready.take(), None);
        ready.done(&[second]);
        ready.done(&[first]);
        assert_eq!(ready.take(), None);
        ready.done(&[third]);
        assert_eq!((ready.take(), ready.take()), (Some(vec![third]), None));
        ready.done(&[second]);
        assert_eq!([ready.take(), ready.take(), ready.take()], [Some(vec![second]), Some(vec![first]), None]);
    }
}
