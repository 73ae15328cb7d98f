//! `limbeck.h` is what cbindgen makes of `src/lib.rs`.

use std::path::Path;

fn header() -> String {
    let config = cbindgen::Config {
        header: Some(
            "/* limbeck: text in, label out. Made from tools/capi/src/lib.rs; do not edit. */".into(),
        ),
        include_guard: Some("LIMBECK_H".into()),
        language: cbindgen::Language::C,
        cpp_compat: true,
        no_includes: true,
        sys_includes: vec!["stddef.h".into(), "stdint.h".into()],
        usize_is_size_t: true,
        ..cbindgen::Config::default()
    };
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs");
    let bindings = cbindgen::Builder::new().with_config(config).with_src(source).generate().unwrap();
    let mut text = Vec::new();
    bindings.write(&mut text);
    String::from_utf8(text).unwrap()
}

fn path() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("limbeck.h")
}

#[test]
fn the_header_is_that_of_the_source() {
    let kept = std::fs::read_to_string(path()).unwrap();
    assert!(kept == header(), "write it again: cargo test -p limbeck-capi --test header -- --ignored");
}

/// `cargo test -p limbeck-capi --test header -- --ignored`
#[test]
#[ignore = "writes the header"]
fn write_the_header() {
    std::fs::write(path(), header()).unwrap();
}
