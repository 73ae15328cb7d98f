//! A `.limbeck` file: opened, and if it can be, asked; then once more with the header's hash made right, so that
//! what stands behind it is reached.
#![no_main]

use libfuzzer_sys::fuzz_target;
use limbeck::Batch;
use limbeck::files::sha256;
use limbeck::infer::{Model, Session};
use std::path::Path;

/// Where the digits of the header's hash stand.
const DIGITS: std::ops::Range<usize> = 42..106;

fn seal(file: &mut [u8]) {
    let Some((length, _)) = file.split_first_chunk() else { return };
    let end = usize::try_from(u64::from_le_bytes(*length)).unwrap_or(usize::MAX).saturating_add(8);
    if (DIGITS.end..=file.len()).contains(&end) {
        let hash = sha256(&[&file[..DIGITS.start], &file[DIGITS.end..end]].concat());
        file[DIGITS].copy_from_slice(hash.as_bytes());
    }
}

fn ask(file: &[u8]) {
    let mut map = memmap2::MmapMut::map_anon(file.len()).unwrap();
    map.copy_from_slice(file);
    let Ok(model) = Model::from_map(Path::new("fuzz.limbeck"), map.make_read_only().unwrap()) else { return };
    let ids = model.tokenizer().map_or(vec![0, 0, 0], |tokenizer| tokenizer.encode("unaffable. x", 12));
    let _ = Session::new(&model).logits(&Batch::from_texts([&ids[..], &[0]]));
    let _ = (model.check_golden(), model.zeros());
}

fuzz_target!(|file: &[u8]| {
    if file.is_empty() {
        return;
    }
    ask(file);
    let mut sealed = file.to_vec();
    seal(&mut sealed);
    ask(&sealed);
});
