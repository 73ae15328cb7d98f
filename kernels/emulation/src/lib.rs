//! For tests: has `cudarc` find a driver, an NVRTC and a cuBLASLt that need no GPU, and run limbeck's CUDA kernels on the CPU.
//!
//! `cpp/machine.*` is the CUDA machine (threads as fibers, blocks over host threads), `cpp/warp.cpp` what a warp's instructions
//! mean, `cpp/hopper.cpp` what a warpgroup's and the copies of sm_90 do, `cpp/driver.cpp` and `cpp/stream.cpp` a libcuda over host memory, which does what is asked of a stream when
//! somebody waits for it, `cpp/nvrtc.cpp` an NVRTC that compiles nothing: the kernels are in the
//! driver already, compiled from the very sources that a GPU's NVRTC gets. `cpp/cublaslt.cpp` multiplies as its descriptors say. Nothing here says anything about speed.

use libloading::{Library, Symbol};
use std::io::Write;
use std::path::Path;
use std::sync::{Once, OnceLock};

/// Order in which the threads of a block run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// From the first to the last.
    Ascending,
    /// From the last to the first.
    Descending,
    /// By a seed above 1.
    Shuffled(i32),
}

/// Orders that a kernel's result must not depend on.
pub const ORDERS: [Order; 3] = [Order::Ascending, Order::Descending, Order::Shuffled(7)];

static LOADED: OnceLock<Option<Loaded>> = OnceLock::new();

struct Loaded {
    driver: Library,
    cublaslt: Library,
}

/// Where the libraries are, for other processes to have on their library path; none where there was no C++ compiler, which is
/// said aloud.
///
/// # Panics
/// If there are none and `LIMBECK_REQUIRE_EMULATION` is set.
pub fn folder() -> Option<&'static Path> {
    let folder = option_env!("EMULATION").map(Path::new);
    if folder.is_none() {
        const ABSENT: &str = "no C++ compiler built the emulation of a GPU: no CUDA kernel was tested in it";
        assert!(std::env::var_os("LIMBECK_REQUIRE_EMULATION").is_none(), "{ABSENT}");
        static SAID: Once = Once::new();
        SAID.call_once(|| {
            // Not eprintln!, which the test harness keeps to itself when a test passes.
            let _ = std::io::stderr().write_all(format!("\n*** SKIPPED: {ABSENT} ***\n\n").as_bytes());
        });
    }
    folder
}

/// Puts the stand-in libraries in the place of the real ones, for this process: to be called before anything looks for CUDA.
/// False where there are none, as [`folder`] says.
pub fn load() -> bool {
    loaded().is_some()
}

/// Has kernels launched by this thread run in `order` from now on.
///
/// # Panics
/// If [`load`] has not succeeded.
pub fn set_order(order: Order) {
    let order = match order {
        Order::Ascending => 0,
        Order::Descending => 1,
        Order::Shuffled(seed) => seed.max(2),
    };
    let loaded = loaded().expect("emulation::load succeeded");
    // SAFETY: the library is ours (cpp/driver.cpp), and so is the function's type.
    unsafe {
        let set: Symbol<'_, unsafe extern "C" fn(i32)> =
            loaded.driver.get(b"emulation_set_order").expect("in cpp/driver.cpp");
        set(order);
    }
}

/// Products of warpgroups (wgmma) that kernels of this thread have made.
///
/// # Panics
/// If [`load`] has not succeeded.
pub fn warpgroup_products() -> u64 {
    let loaded = loaded().expect("emulation::load succeeded");
    // SAFETY: the library is ours (cpp/driver.cpp), and so is the function's type.
    unsafe {
        let made: Symbol<'_, unsafe extern "C" fn() -> u64> =
            loaded.driver.get(b"emulation_warpgroup_products").expect("in cpp/driver.cpp");
        made()
    }
}

/// Kernels that this process has not launched in each kind of [`Order`]: source, type of activations, name, and the kinds that
/// lack.
///
/// # Panics
/// If [`load`] has not succeeded.
pub fn not_launched() -> Vec<String> {
    let loaded = loaded().expect("emulation::load succeeded");
    let mut text = vec![0; 1 << 16];
    // SAFETY: the library is ours (cpp/driver.cpp), and so is the function's type; it writes no more than it is told.
    let size = unsafe {
        let write: Symbol<'_, unsafe extern "C" fn(*mut u8, usize) -> usize> =
            loaded.driver.get(b"emulation_not_launched").expect("in cpp/driver.cpp");
        write(text.as_mut_ptr(), text.len())
    };
    text.truncate(size.min(text.len()) - 1);
    String::from_utf8_lossy(&text).lines().map(str::to_owned).collect()
}

/// Products that this thread has had cuBLASLt make.
///
/// # Panics
/// If [`load`] has not succeeded.
pub fn products_made() -> u64 {
    let loaded = loaded().expect("emulation::load succeeded");
    // SAFETY: the library is ours (cpp/cublaslt.cpp), and so is the function's type.
    unsafe {
        let made: Symbol<'_, unsafe extern "C" fn() -> u64> =
            loaded.cublaslt.get(b"emulation_products_made").expect("in cpp/cublaslt.cpp");
        made()
    }
}

/// Graphs that this thread has launched.
///
/// # Panics
/// If [`load`] has not succeeded.
pub fn graphs_launched() -> u64 {
    let loaded = loaded().expect("emulation::load succeeded");
    // SAFETY: the library is ours (cpp/stream.cpp), and so is the function's type.
    unsafe {
        let launched: Symbol<'_, unsafe extern "C" fn() -> u64> =
            loaded.driver.get(b"emulation_graphs_launched").expect("in cpp/stream.cpp");
        launched()
    }
}

fn loaded() -> Option<&'static Loaded> {
    let loaded = LOADED.get_or_init(|| {
        // SAFETY: the libraries are ours (cpp/), and run nothing but constructors that fill a list.
        let open = |name: &str| unsafe { Library::new(folder()?.join(name)).ok() };
        // A library that is loaded is found by its soname, whatever its folder: cudarc asks for these names.
        std::mem::forget(open("libnvrtc.so.13")?);
        Some(Loaded { cublaslt: open("libcublasLt.so.13")?, driver: open("libcuda.so.1")? })
    });
    loaded.as_ref()
}
