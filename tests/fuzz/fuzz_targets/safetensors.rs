//! A safetensors file: its header, and every tensor that it says there is; and the same as a linear control.
#![no_main]

use libfuzzer_sys::fuzz_target;
use limbeck::checkpoint::TensorFile;
use limbeck::controls::Linear;
use std::io::Write;

fuzz_target!(|bytes: &[u8]| {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    let _ = Linear::open(file.path());
    if let Ok(file) = TensorFile::open(file.path()) {
        for name in file.names() {
            let _ = file.read_f32(name, &mut Vec::new());
        }
    }
});
