//! Every CUDA source compiles, for every type of activations and architecture that it is for, no kernel spills registers to memory, and
//! no products of warpgroups wait for one another because the compiler could not see that they need not.
//!
//! NVRTC needs no GPU: `.ci/run` fetches it. Where it is not on the library path the test says loudly that it was skipped, or fails
//! if `LIMBECK_REQUIRE_NVRTC` is set. What each kernel uses is printed: `cargo test --test cuda_compile -- --nocapture`.
#![cfg(feature = "cuda")]

mod common;

use limbeck::backend::cuda::Storage;
use limbeck::backend::cuda::compile::{Target, compile};
use limbeck_kernels::cuda::{SOURCES, Source};

const ARCHITECTURES: [&str; 3] = ["sm_80", "sm_90", "sm_90a"];

/// What the compiler says of one kernel.
#[derive(Debug)]
struct Usage {
    kernel: String,
    registers: u32,
    spilled: bool,
}

/// Reads `Compiling entry function 'x'`, `0 bytes spill stores`, `Used 24 registers`.
fn usages(log: &str) -> Vec<Usage> {
    let mut found: Vec<Usage> = Vec::new();
    for line in log.lines() {
        if let Some((_, rest)) = line.split_once("entry function '") {
            let kernel = rest.split('\'').next().unwrap().to_owned();
            found.push(Usage { kernel, registers: 0, spilled: false });
        }
        let Some(last) = found.last_mut() else { continue };
        if line.contains("bytes spill stores") {
            last.spilled = !line.contains(" 0 bytes spill stores, 0 bytes spill loads");
        }
        if let Some((_, rest)) = line.split_once("Used ") {
            last.registers = rest.split(' ').next().unwrap().parse().unwrap();
        }
    }
    found
}

/// Whether the compiler has put waits between products of warpgroups, or has ignored that registers change hands.
fn slow(log: &str) -> bool {
    log.contains("Potential Performance Loss")
}

fn check(source: &Source, storage: Storage, architecture: &str) -> String {
    let target = Target { storage, architecture: architecture.into() };
    let compiled = compile(source, &target).unwrap_or_else(|error| panic!("{error}"));
    assert!(!slow(&compiled.log), "{} on {architecture}:\n{}", source.name, compiled.log);
    let found = usages(&compiled.log);
    let declared: Vec<&str> = source.kernels().map(|kernel| kernel.name).collect();
    for name in &declared {
        assert!(
            found.iter().any(|usage| usage.kernel == *name),
            "{name} is not in the log:\n{}",
            compiled.log
        );
    }
    let mut lines = String::new();
    for Usage { kernel, registers, spilled } in &found {
        assert!(!spilled, "{kernel} of {} spills on {architecture}:\n{}", source.name, compiled.log);
        lines += &format!(
            "{architecture} {:5} {:12} {kernel:28} {registers:3} registers\n",
            storage.name(),
            source.name
        );
    }
    lines
}

#[test]
fn every_kernel_compiles_and_none_spills() {
    // SAFETY: loads the library, if it is there.
    if !unsafe { cudarc::nvrtc::sys::is_culib_present() } {
        assert!(
            std::env::var_os("LIMBECK_REQUIRE_NVRTC").is_none(),
            "there is no libnvrtc on the library path"
        );
        common::say("SKIPPED: there is no libnvrtc on the library path, so CUDA kernels were not compiled");
        return;
    }
    for source in SOURCES {
        for storage in Storage::ALL.into_iter().filter(|storage| source.types.contains(&storage.name())) {
            for architecture in ARCHITECTURES.into_iter().filter(|architecture| source.is_for(architecture)) {
                print!("{}", check(source, storage, architecture));
            }
        }
    }
}

#[test]
fn the_log_is_read() {
    let log = "ptxas info    : Compiling entry function 'a' for 'sm_80'\nptxas info    : Function properties for a\n    8 bytes stack frame, 4 bytes spill stores, 4 bytes spill loads\nptxas info    : Used 24 registers, 380 bytes cmem[0]\n";
    let found = usages(log);
    assert_eq!(
        (found.len(), found[0].kernel.as_str(), found[0].registers, found[0].spilled),
        (1, "a", 24, true)
    );
    let warning =
        "ptxas info    : (C7514) Potential Performance Loss: wgmma.mma_async instructions are serialized";
    assert!(!slow(log) && slow(warning));
}
