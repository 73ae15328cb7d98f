//! `limbeck bench gemm` and `LIMBECK_GEMM`, on the emulation of a GPU: its libraries stand first on the library path, so that a real
//! GPU, if there is one, is not asked.

use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// The program with the libraries of `folder`.
fn limbeck(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_limbeck"));
    // Kernels "compiled" for the emulation are not to be met by a GPU.
    command.env("LD_LIBRARY_PATH", folder).env("LIMBECK_CACHE", env!("CARGO_TARGET_TMPDIR"));
    command.env_remove("LIMBECK_GEMM");
    command.stdin(Stdio::null());
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Sizes that the emulation makes in a moment.
const TINY: [&str; 12] = [
    "bench",
    "gemm",
    "--tokens",
    "24",
    "--hidden",
    "40",
    "--intermediate",
    "72",
    "--square",
    "48",
    "--repeat",
    "2",
];

#[test]
fn every_product_is_measured_by_all_that_make_it() {
    let Some(folder) = limbeck_emulation::folder() else { return };
    // What the worst of 512 sums may be off by, in units of a typical one: rounding of a result that is four times as large.
    for (precision, most) in [("bf16", 4.0 / 256.0), ("f16", 4.0 / 2048.0), ("f32", 1e-5)] {
        let output = limbeck(folder).args(TINY).args(["--precision", precision, "--json"]).output().unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
        let json: Value = serde_json::from_slice(&output.stdout).unwrap();
        let rows = json["rows"].as_array().unwrap();
        // Three products of three layers and the square, each by all; but wgmma has no f32.
        let makers = if precision == "f32" { 2 } else { 3 };
        assert_eq!(rows.len(), 10 * makers, "{json:#}");
        for row in rows {
            let number = |key: &str| row[key].as_f64().unwrap_or_else(|| panic!("{key} of {row:#}"));
            let error = number("error");
            // A weight's gradient is f32 whatever activations are.
            let most = if row["product"] == "weight gradient" { 1e-5 } else { most };
            assert!(error <= most && (error > 0.0 || precision == "f32"), "{precision}: {row:#}");
            assert!(number("ms") > 0.0 && number("of_peak") > 0.0 && number("of_peak") <= 1.0, "{row:#}");
            if row["made_by"] == "cublaslt" {
                assert_eq!(number("of_cublaslt"), 1.0);
            }
        }
        assert_eq!((json["cublaslt"].as_u64(), json["precision"].as_str()), (Some(130_000), Some(precision)));
    }
}

#[test]
fn the_table_has_a_line_for_each_and_the_mean() {
    let Some(folder) = limbeck_emulation::folder() else { return };
    let output = limbeck(folder).args(TINY).output().unwrap();
    let printed = text(&output.stdout);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(printed.matches("  cublaslt  ").count(), 10, "{printed}");
    assert_eq!(printed.matches("  own  ").count(), 10, "{printed}");
    assert_eq!(printed.matches("  wgmma  ").count(), 10, "{printed}");
    assert!(printed.contains("expand weight gradient") && printed.contains("24 × 72 × 40"), "{printed}");
    for name in ["own", "wgmma"] {
        assert!(printed.contains(&format!("\n{name}: ")) && printed.contains("geometric mean"), "{printed}");
    }
}

#[test]
fn without_the_library_there_are_our_kernels_and_asking_for_it_is_an_error() {
    let Some(folder) = limbeck_emulation::folder() else { return };
    let without = tempfile::tempdir().unwrap();
    for name in ["libcuda.so.1", "libnvrtc.so.13"] {
        std::fs::copy(folder.join(name), without.path().join(name)).unwrap();
    }
    let output = limbeck(without.path()).args(TINY).arg("--json").output().unwrap();
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    // Where the real one is installed, no path of ours hides it.
    if json["cublaslt"].is_null() {
        let rows = json["rows"].as_array().unwrap();
        assert!(rows.len() == 20 && rows.iter().all(|row| row["made_by"] != "cublaslt"), "{json:#}");
        let asked = limbeck(without.path()).env("LIMBECK_GEMM", "cublaslt").args(TINY).output().unwrap();
        refused(&asked, 2, &["LIMBECK_GEMM", "there is no cuBLASLt", "nvidia-cublas"]);
    }
    let misspelt = limbeck(folder).env("LIMBECK_GEMM", "cublas").args(TINY).output().unwrap();
    refused(&misspelt, 2, &["LIMBECK_GEMM", "\"cublas\"", "own or cublaslt or wgmma"]);
    let broken = limbeck(folder).env("EMULATED_CUBLASLT_BROKEN", "1").args(TINY).output().unwrap();
    refused(&broken, 1, &["cuBLASLt could not begin", "LIMBECK_GEMM=own"]);
}

#[test]
fn wgmma_is_for_sm_90_alone() {
    let Some(folder) = limbeck_emulation::folder() else { return };
    let ampere = || {
        let mut command = limbeck(folder);
        command.env("EMULATED_CAPABILITY", "80").args(TINY);
        command
    };
    let output = ampere().arg("--json").output().unwrap();
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    let rows = json["rows"].as_array().unwrap();
    assert!(rows.len() == 20 && rows.iter().all(|row| row["made_by"] != "wgmma"), "{json:#}");
    let asked = ampere().env("LIMBECK_GEMM", "wgmma").output().unwrap();
    refused(&asked, 2, &["LIMBECK_GEMM", "the GPU is sm_80", "sm_90"]);
}

#[test]
fn without_a_gpu_it_says_what_was_looked_for() {
    let Some(folder) = limbeck_emulation::folder() else { return };
    let output = limbeck(folder).env("EMULATED_NO_DEVICE", "1").args(TINY).output().unwrap();
    refused(&output, 1, &["the CUDA driver finds no GPU", "nvidia-smi", "where there is an NVIDIA GPU"]);
}

fn refused(output: &Output, code: i32, words: &[&str]) {
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{said}");
    assert!(output.stdout.is_empty(), "errors belong on standard error");
    words.iter().for_each(|word| assert!(said.contains(word), "{word} in {said}"));
}
