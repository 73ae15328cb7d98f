//! Latencies that can be compared: all variants take turns on each input.
//!
//! A machine drifts: clocks change with heat, neighbours come and go. Timing one variant after the other
//! books that drift to whichever ran last. Here each input is given to every variant in turn before the
//! next input, and the turn starts with another variant each time, so that neither drift nor warm caches
//! favour one. Every timing counts; none is dropped as an outlier, because users meet them too.

use std::time::{Duration, Instant};

/// Tells the time since some fixed moment; tests bring their own.
pub trait Clock {
    /// Never goes back.
    fn now(&mut self) -> Duration;
}

/// The operating system's monotonic clock.
#[derive(Debug)]
pub struct WallClock(Instant);

impl Default for WallClock {
    fn default() -> Self {
        WallClock(Instant::now())
    }
}

impl Clock for WallClock {
    fn now(&mut self) -> Duration {
        self.0.elapsed()
    }
}

/// How long and how often to time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Inputs, given to the variants as 0, 1, …
    pub inputs: usize,
    /// Times each input is timed.
    pub repeat: usize,
    /// Untimed calls of each variant before.
    pub warmup: usize,
}

/// Percentiles of one variant's timings, in milliseconds: nearest rank, that is, measured values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Latency {
    /// Half of the calls were at most so slow.
    pub ms_p50: f64,
    /// 95 % of the calls were at most so slow.
    pub ms_p95: f64,
    /// 99 % of the calls were at most so slow.
    pub ms_p99: f64,
    /// Mean.
    pub ms_mean: f64,
    /// Calls timed.
    pub calls: usize,
}

impl Latency {
    /// Of `timings`, which are sorted here. Panics if there are none.
    pub fn of(timings: &mut [Duration]) -> Latency {
        assert!(!timings.is_empty(), "no timing");
        timings.sort_unstable();
        let rank = |percent: usize| (timings.len() * percent).div_ceil(100).max(1) - 1;
        let ms = |timing: Duration| timing.as_secs_f64() * 1e3;
        Latency {
            ms_p50: ms(timings[rank(50)]),
            ms_p95: ms(timings[rank(95)]),
            ms_p99: ms(timings[rank(99)]),
            ms_mean: timings.iter().copied().map(ms).sum::<f64>() / timings.len() as f64,
            calls: timings.len(),
        }
    }
}

/// Something to time: called with the index of an input.
pub type Call<'a, E> = Box<dyn FnMut(usize) -> Result<(), E> + 'a>;

/// Times `variants` against each other as `plan` says; the answers are in their order. The first error
/// ends it. Panics if the plan has no input or no repetition.
pub fn interleaved<E>(
    plan: Plan,
    clock: &mut dyn Clock,
    variants: &mut [Call<'_, E>],
) -> Result<Vec<Latency>, E> {
    assert!(plan.inputs > 0 && plan.repeat > 0, "nothing to time");
    for call in 0..plan.warmup {
        for variant in variants.iter_mut() {
            variant(call % plan.inputs)?;
        }
    }
    let count = variants.len();
    let mut timings = vec![Vec::with_capacity(plan.inputs * plan.repeat); count];
    for round in 0..plan.repeat {
        for input in 0..plan.inputs {
            for turn in 0..count {
                let variant = (round + input + turn) % count;
                let start = clock.now();
                variants[variant](input)?;
                timings[variant].push(clock.now().saturating_sub(start));
            }
        }
    }
    Ok(timings.iter_mut().map(|timings| Latency::of(timings)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::{Cell, RefCell};
    use std::rc::Rc;

    /// A clock that stands still unless a variant moves it.
    struct HandClock(Rc<Cell<Duration>>);

    impl Clock for HandClock {
        fn now(&mut self) -> Duration {
            self.0.get()
        }
    }

    /// Nearest ranks, as `numpy.percentile(…, method="inverted_cdf")`.
    #[test]
    fn percentiles_are_nearest_ranks() {
        let mut timings: Vec<Duration> = (1..=200).rev().map(Duration::from_millis).collect();
        let found = Latency::of(&mut timings);
        assert_eq!((found.ms_p50, found.ms_p95, found.ms_p99, found.ms_mean), (100.0, 190.0, 198.0, 100.5));
        let mut few = [5, 1, 9, 7].map(Duration::from_millis);
        let found = Latency::of(&mut few);
        assert_eq!((found.ms_p50, found.ms_p95, found.ms_p99, found.calls), (5.0, 9.0, 9.0, 4));
    }

    #[test]
    fn variants_take_turns_and_only_their_own_time_counts() {
        let time = Rc::new(Cell::new(Duration::ZERO));
        let order = RefCell::new(String::new());
        let variant = |name: char, ms: u64| -> Call<'_, ()> {
            let (time, order) = (time.clone(), &order);
            Box::new(move |input| {
                order.borrow_mut().push(name);
                time.set(time.get() + Duration::from_millis(ms + input as u64));
                Ok(())
            })
        };
        let mut variants = [variant('a', 10), variant('b', 20)];
        let plan = Plan { inputs: 3, repeat: 2, warmup: 1 };
        let found = interleaved(plan, &mut HandClock(time.clone()), &mut variants).unwrap();
        assert_eq!(*order.borrow(), "ab".to_owned() + "abbaab" + "baabba");
        assert_eq!((found[0].ms_p50, found[0].ms_p99, found[0].calls), (11.0, 12.0, 6));
        assert_eq!((found[1].ms_p50, found[1].ms_mean), (21.0, 21.0));
    }

    #[test]
    fn the_first_error_ends_it() {
        let mut variants: [Call<'_, &str>; 1] =
            [Box::new(|input| if input == 1 { Err("one") } else { Ok(()) })];
        let plan = Plan { inputs: 2, repeat: 1, warmup: 0 };
        assert_eq!(interleaved(plan, &mut WallClock::default(), &mut variants), Err("one"));
    }
}
