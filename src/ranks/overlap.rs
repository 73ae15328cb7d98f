//! Sums over ranks while something else is computed: a thread talks to the others, and the one that computes hands it buckets.
//!
//! ```text
//! computes   ── bucket 0 ── bucket 1 ─────── bucket 2 ──┐
//! talks          └ sums 0 ─────┴ sums 1 ──────┴ sums 2 ─┴▶ all buckets, summed
//! ```
//!
//! Every rank hands over the same buckets in the same order, whatever is ready first where: each sums its own first bucket with the
//! others' first, and so on, so that none waits for a sum that another has not come to. A bucket is summed as one message, element by
//! element in the order of ranks, so that its bits are those of a sum that nobody overlapped.

use super::{ProcessGroup, Watch};
use crate::{Error, Result};
use std::ops::DerefMut;
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

/// Takes a bucket over, to be summed.
pub type Submit<'g, S> = dyn FnMut(Vec<S>) -> Result<()> + 'g;

/// Buckets in the order in which they were handed over.
pub struct SummedBuckets<S> {
    /// Their sums over ranks.
    pub buckets: Vec<Vec<S>>,
    /// How many sums had begun when the computation ended.
    pub begun: usize,
}

/// Tells the others that this rank will not come any more, unless it is told that all went well.
pub(crate) struct Failing<'r>(Option<&'r dyn ProcessGroup>);

impl<'r> Failing<'r> {
    pub(crate) fn unless_told(ranks: &'r dyn ProcessGroup) -> Failing<'r> {
        Failing(Some(ranks))
    }

    pub(crate) fn went_well(mut self) {
        self.0 = None;
    }
}

impl Drop for Failing<'_> {
    fn drop(&mut self) {
        if let Some(ranks) = self.0 {
            ranks.abort();
        }
    }
}

/// Ranks that are talked to by one thread alone, so that nothing is overlapped: for tests and benches to compare with.
#[doc(hidden)]
pub struct OneThread<R>(pub R);

impl<R: ProcessGroup> ProcessGroup for OneThread<R> {
    fn rank(&self) -> usize {
        self.0.rank()
    }

    fn size(&self) -> usize {
        self.0.size()
    }

    fn sum(&self, values: &mut [f32]) -> Result<()> {
        self.0.sum(values)
    }

    fn sum_f64(&self, values: &mut [f64]) -> Result<()> {
        self.0.sum_f64(values)
    }

    fn broadcast(&self, bytes: &mut Vec<u8>) -> Result<()> {
        self.0.broadcast(bytes)
    }

    fn any_thread(&self) -> bool {
        false
    }

    fn abort(&self) {
        self.0.abort();
    }

    fn watch(&self) -> Result<Option<Watch>> {
        self.0.watch()
    }

    fn leave(&self) {
        self.0.leave();
    }
}

/// Runs `compute`, which hands over buckets, and sums each over ranks while it goes on; gives back what it gave.
///
/// Where ranks are talked to by one thread alone ([`ProcessGroup::any_thread`]), sums are made when it has ended.
///
/// # Errors
/// Those of `compute`, of which the other ranks learn; [`Error::Ranks`].
pub fn while_summing<S: DerefMut<Target = [f32]> + Send, T>(
    ranks: &dyn ProcessGroup,
    compute: impl FnOnce(&mut Submit<'_, S>) -> Result<T>,
) -> Result<(T, SummedBuckets<S>)> {
    let failing = Failing::unless_told(ranks);
    let mut flat = Vec::new();
    if !ranks.any_thread() {
        let mut buckets = Vec::new();
        let computed = compute(&mut |bucket| {
            buckets.push(bucket);
            Ok(())
        })?;
        buckets.iter_mut().try_for_each(|bucket| sum(ranks, bucket, &mut flat))?;
        failing.went_well();
        return Ok((computed, SummedBuckets { buckets, begun: 0 }));
    }
    let begun = &AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let (to_sum, queue) = mpsc::channel::<Vec<S>>();
        let summing = scope.spawn(move || {
            let mut buckets = Vec::new();
            for mut bucket in queue {
                begun.fetch_add(1, Ordering::Relaxed);
                sum(ranks, &mut bucket, &mut flat)?;
                buckets.push(bucket);
            }
            Ok::<_, Error>(buckets)
        });
        // The thread ends early if another rank is gone. What it says of that is the error then, not that nobody takes buckets.
        let mut gone = false;
        let computed = compute(&mut |bucket| {
            to_sum.send(bucket).map_err(|_| {
                gone = true;
                Error::Ranks {
                    problem: "sums have ended".into(),
                    mend: "see what the other ranks say".into(),
                }
            })
        });
        let begun = begun.load(Ordering::Relaxed);
        drop(to_sum);
        let computed = match computed {
            Err(error) if !gone => {
                drop(failing);
                return Err(error);
            }
            computed => computed,
        };
        let buckets = summing.join().unwrap_or_else(|panic| resume_unwind(panic))?;
        let computed = computed?;
        failing.went_well();
        Ok((computed, SummedBuckets { buckets, begun }))
    })
}

/// Sums a bucket, by way of `flat`.
fn sum<S: DerefMut<Target = [f32]>>(
    ranks: &dyn ProcessGroup,
    bucket: &mut [S],
    flat: &mut Vec<f32>,
) -> Result<()> {
    if let [one] = bucket {
        return ranks.sum(one);
    }
    flat.clear();
    bucket.iter().for_each(|part| flat.extend_from_slice(part));
    ranks.sum(flat)?;
    let mut rest = &flat[..];
    for part in bucket {
        let (sums, others) = rest.split_at(part.len());
        part.copy_from_slice(sums);
        rest = others;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ranks::Tcp;
    use crate::ranks::tcp::tests::{as_ranks, as_three};
    use std::sync::{Condvar, Mutex};
    use std::time::Duration;

    /// Ranks whose sums are counted when they are done.
    struct Counted<'r> {
        ranks: &'r Tcp,
        done: Mutex<usize>,
        one_more: Condvar,
    }

    impl<'r> Counted<'r> {
        fn new(ranks: &'r Tcp) -> Counted<'r> {
            Counted { ranks, done: Mutex::new(0), one_more: Condvar::new() }
        }

        /// Waits until so many sums are done; fails when none comes.
        fn wait_for(&self, count: usize) {
            let done = self.done.lock().unwrap();
            let waited =
                self.one_more.wait_timeout_while(done, Duration::from_secs(60), |done| *done < count);
            assert!(!waited.unwrap().1.timed_out(), "{count} sums while the computation goes on");
        }
    }

    impl ProcessGroup for Counted<'_> {
        fn rank(&self) -> usize {
            self.ranks.rank()
        }

        fn size(&self) -> usize {
            self.ranks.size()
        }

        fn abort(&self) {
            self.ranks.abort();
        }

        fn sum(&self, values: &mut [f32]) -> Result<()> {
            self.ranks.sum(values)?;
            *self.done.lock().unwrap() += 1;
            self.one_more.notify_all();
            Ok(())
        }

        fn sum_f64(&self, values: &mut [f64]) -> Result<()> {
            self.ranks.sum_f64(values)
        }

        fn broadcast(&self, bytes: &mut Vec<u8>) -> Result<()> {
            self.ranks.broadcast(bytes)
        }
    }

    fn buckets(rank: usize) -> Vec<Vec<Vec<f32>>> {
        let part = |seed: usize, len: usize| {
            (0..len).map(|i| ((seed * 31 + i * 7 + rank * 13) % 101) as f32 * 0.1).collect::<Vec<f32>>()
        };
        vec![
            vec![part(1, 5), part(2, 300), vec![]],
            vec![part(3, 70_000)],
            vec![vec![]],
            vec![part(4, 3), part(5, 1)],
        ]
    }

    /// The computation goes on only when the sum of what it has handed over is there, on two ranks and on three.
    #[test]
    fn sums_are_made_while_the_computation_goes_on() {
        for size in [2, 3] {
            as_ranks(size, |ranks| {
                let counted = Counted::new(ranks);
                let ((), SummedBuckets { begun, .. }) = while_summing(&counted, |submit| {
                    for (place, bucket) in buckets(ranks.rank()).into_iter().enumerate() {
                        submit(bucket)?;
                        counted.wait_for(place + 1);
                    }
                    Ok(())
                })
                .unwrap();
                assert_eq!(begun, 4);
            });
        }
    }

    #[test]
    fn sums_are_those_that_nobody_overlapped_to_the_bit() {
        let summed = |ranks: &dyn ProcessGroup| {
            let all = while_summing(ranks, |submit| {
                buckets(ranks.rank()).into_iter().try_for_each(&mut *submit)?;
                Ok(7)
            });
            let (seven, SummedBuckets { buckets, begun }) = all.unwrap();
            assert!(seven == 7 && (ranks.any_thread() || begun == 0));
            buckets
        };
        let overlapped = as_three(|ranks| summed(ranks));
        let behind = as_ranks(3, |ranks| summed(&OneThread(Counted::new(ranks))));
        let one_by_one = as_three(|ranks| {
            let mut buckets = buckets(ranks.rank());
            buckets.iter_mut().flatten().try_for_each(|part| ranks.sum(part)).unwrap();
            buckets
        });
        assert!(overlapped == one_by_one && behind == one_by_one);
    }

    /// One fails before its second bucket: the others, which wait for that, are told so.
    #[test]
    fn a_computation_that_fails_ends_those_of_all() {
        for failing in 0..3 {
            let found = as_three(|ranks| {
                let result = while_summing(ranks, |submit| {
                    for (place, bucket) in buckets(ranks.rank()).into_iter().enumerate() {
                        if place == 1 && ranks.rank() == failing {
                            return Err(Error::device("the device is gone", "mend it"));
                        }
                        submit(bucket)?;
                    }
                    Ok(())
                });
                result.map(|_| ()).unwrap_err().to_string()
            });
            for (rank, said) in found.iter().enumerate() {
                let expected = if rank == failing { "the device is gone" } else { "has stopped" };
                assert!(said.contains(expected), "{failing} fails, {rank} says {said:?}");
            }
        }
    }

    #[test]
    fn a_computation_that_panics_ends_those_of_all() {
        let found = as_three(|ranks| {
            let run = || {
                while_summing(ranks, |submit| {
                    submit(vec![vec![1.0; 10]])?;
                    assert!(ranks.rank() != 2, "rank 2 panics");
                    submit(vec![vec![1.0; 10]])
                })
            };
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run));
            result.map(|result| result.map(|_| ()).unwrap_err().to_string()).ok()
        });
        assert!(found[2].is_none());
        assert!(found[..2].iter().all(|said| said.as_ref().unwrap().contains("has stopped")), "{found:?}");
    }
}
