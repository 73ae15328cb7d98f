//! Numbers as they are typed, and what they may be.

use limbeck::backend::cpu::threads::check_threads;

/// The most texts and calls of a measurement, as in recipes: more would be a slip of the hand.
pub(super) const MAX_COUNT: i64 = 65_536;

/// Reads a difference of accuracies, in points.
pub(super) fn points(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(points) if f64::is_finite(points) => Ok(points),
        _ => Err("a number of points, as 0.5".to_owned()),
    }
}

/// Reads a number of threads that this machine has a use for.
pub(super) fn thread_count(text: &str) -> Result<usize, String> {
    let threads = text.parse().map_err(|_| "a whole number, 0 or more".to_owned())?;
    check_threads(threads).map_err(|error| error.to_string())?;
    Ok(threads)
}

/// As many threads as were asked for; 0 means all that this process may use.
pub fn threads(asked: usize) -> usize {
    match asked {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        n => n,
    }
}
