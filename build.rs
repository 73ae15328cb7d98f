//! For musl: an empty `libdl.a`. CUDA's libraries are opened by name, so what opens them asks for `-ldl`; musl keeps those
//! functions in its libc and the archive for form's sake, and the musl that comes with Rust has no such archive. In a
//! static binary they answer that nothing can be opened, and limbeck says that there is no CUDA.

use std::env::var;
use std::path::Path;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    if var("CARGO_FEATURE_CUDA").is_ok() && var("CARGO_CFG_TARGET_ENV").is_ok_and(|env| env == "musl") {
        let out = var("OUT_DIR").expect("cargo sets it");
        std::fs::write(Path::new(&out).join("libdl.a"), "!<arch>\n")
            .expect("the build directory can be written");
        println!("cargo:rustc-link-search=native={out}");
    }
}
