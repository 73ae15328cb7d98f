//! Compiles every CUDA source for every type, as C++ behind `cpp/machine.h`, into a libcuda.so.1, and a
//! libnvrtc.so.13 and a libcublasLt.so.13 beside it; and `faults`, a program for tests of the emulation itself.

use limbeck_kernels::cuda::{HEADERS, SOURCES};
use std::fmt::Write as _;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Command;

fn main() {
    println!("cargo:rerun-if-changed=cpp");
    println!("cargo:rerun-if-changed=../cuda");
    let out = PathBuf::from(std::env::var("OUT_DIR").expect("cargo sets it"));
    let types = ["float", "Bf16", "F16"];
    let wrapped: Vec<PathBuf> = types
        .iter()
        .map(|name| {
            let path = out.join(format!("kernels_{name}.cpp"));
            std::fs::write(&path, wrapper(name)).expect("the build directory can be written");
            path
        })
        .collect();
    let machine = ["fiber.cpp", "machine.cpp", "warp.cpp", "hopper.cpp", "numbers.cpp"];
    let of_machine =
        |more: &str| machine.into_iter().chain([more]).map(|name| Path::new("cpp").join(name)).collect();
    let driver: Vec<PathBuf> = [of_machine("driver.cpp"), vec!["cpp/stream.cpp".into()], wrapped].concat();
    let built = library(&out, "libnccl.so.2", &["cpp/nccl.cpp".into()])
        && library(&out, "libcuda.so.1", &driver)
        && library(&out, "libnvrtc.so.13", &["cpp/nvrtc.cpp".into()])
        && library(&out, "libcublasLt.so.13", &["cpp/cublaslt.cpp".into(), "cpp/numbers.cpp".into()])
        && program(&out, "faults", &of_machine("faults.cpp"));
    if built {
        println!("cargo:rustc-env=EMULATION={}", out.display());
    } else {
        println!("cargo:warning=no C++ compiler: CUDA kernels are not emulated, and their tests say so");
    }
}

/// All sources for one type, each in a namespace, and their lines in the driver's list.
fn wrapper(real: &str) -> String {
    let mut text = format!("#include \"machine.h\"\n#define Real {real}\n");
    for (header, _) in HEADERS {
        writeln!(text, "#include \"{header}\"").expect("a string grows");
    }
    text += "#undef KERNEL\n#define KERNEL(threads) inline void\n";
    for source in SOURCES.iter().filter(|source| source.types.contains(&real)) {
        let name = source.name;
        writeln!(text, "namespace {name}_{real} {{\n#include \"{name}.cu\"\n}}").expect("a string grows");
        for kernel in source.kernels() {
            let kernel = kernel.name;
            let [entry, keep] =
                ["entry", "keep"].map(|with| format!("emulation::{with}<{name}_{real}::{kernel}>"));
            writeln!(
                text,
                "static emulation::Listed list_{kernel}({{\"{name}\", \"{real}\", \"{kernel}\", {entry}, {keep}}});"
            )
            .expect("a string grows");
        }
    }
    text
}

/// Links a shared library; false if there is no compiler.
fn library(out: &Path, name: &str, files: &[PathBuf]) -> bool {
    link(out, name, files, &["-shared", &format!("-Wl,-soname,{name}")])
}

/// Links a program; false if there is no compiler.
fn program(out: &Path, name: &str, files: &[PathBuf]) -> bool {
    link(out, name, files, &[])
}

fn link(out: &Path, name: &str, files: &[PathBuf], options: &[&str]) -> bool {
    let Ok(compiler) = cc::Build::new().cpp(true).opt_level(2).warnings(false).try_get_compiler() else {
        return false;
    };
    let objects: Vec<(PathBuf, Option<std::process::Child>)> = files
        .iter()
        .map(|file| {
            let object = out.join(file.file_name().expect("a file")).with_extension("o");
            let mut command: Command = compiler.to_command();
            command.args([
                "-std=c++17",
                "-O2",
                "-fPIC",
                "-fvisibility=hidden",
                "-fno-strict-aliasing",
                "-ffp-contract=off",
            ]);
            if file.starts_with(out) {
                // Kernels: a vector that is not aligned is an error on a device. machine.cpp has what is called then.
                command.args(["-fsanitize=alignment", "-fno-sanitize-recover=alignment"]);
            }
            command.args(["-Icpp", "-I../cuda", "-Wno-unknown-pragmas", "-c", "-o"]).arg(&object).arg(file);
            match command.spawn() {
                Ok(child) => (object, Some(child)),
                Err(error) if error.kind() == ErrorKind::NotFound => (object, None),
                Err(error) => panic!("cannot run the C++ compiler: {error}"),
            }
        })
        .collect();
    let mut link = compiler.to_command();
    link.args(options).arg("-pthread").arg("-o").arg(out.join(name));
    for (object, child) in objects {
        let Some(mut child) = child else { return false };
        let status = child.wait().expect("a compiler that was started");
        assert!(status.success(), "{} does not compile for the emulation", object.display());
        link.arg(object);
    }
    assert!(link.status().expect("a compiler that ran before").success(), "{name} does not link");
    true
}
