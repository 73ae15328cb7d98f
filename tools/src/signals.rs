//! SIGINT and SIGTERM: the first asks the running stage to save and stop, the second stops at once. SIGXFSZ: a write
//! beyond `ulimit -f` fails like one on a full disk, rather than kill the program.

use crate::failure::Failure;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// Has writes beyond the limit on a file's size fail, so that what was begun is removed and the file is named. The
/// system's default is to kill the program.
pub fn survive_file_size_limit() -> Result<(), Failure> {
    #[cfg(unix)]
    flag::register(signal_hook::consts::signal::SIGXFSZ, Arc::new(AtomicBool::new(false)))
        .map_err(refused)?;
    Ok(())
}

fn refused(error: std::io::Error) -> Failure {
    limbeck::Error::io("handle", Path::new("signals"))(error).into()
}

/// A flag that the first signal sets. Commands that have nothing to save do not call this, and die as
/// the system's default has it.
pub fn stop_flag() -> Result<Arc<AtomicBool>, Failure> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        // In this order: a signal that finds the flag set exits with the shell's code for it, and only
        // then is the flag set.
        flag::register_conditional_shutdown(signal, 128 + signal, stop.clone())
            .and_then(|_| flag::register(signal, stop.clone()))
            .map_err(refused)?;
    }
    Ok(stop)
}
