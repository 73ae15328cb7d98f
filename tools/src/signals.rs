//! SIGINT and SIGTERM: the first asks the running stage to save and stop, the second stops at once.

use crate::failure::Failure;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// A flag that the first signal sets. Commands that have nothing to save do not call this, and die as
/// the system's default has it.
pub fn stop_flag() -> Result<Arc<AtomicBool>, Failure> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        // In this order: a signal that finds the flag set exits with the shell's code for it, and only
        // then is the flag set.
        flag::register_conditional_shutdown(signal, 128 + signal, stop.clone())
            .and_then(|_| flag::register(signal, stop.clone()))
            .map_err(|error| limbeck::Error::io("handle", Path::new("signals"))(error))?;
    }
    Ok(stop)
}
