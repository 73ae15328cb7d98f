//! A table of texts; the first byte says in which format.
#![no_main]

use libfuzzer_sys::fuzz_target;
use limbeck::data::{TableOptions, TableSource};

fuzz_target!(|input: &[u8]| {
    let Some((first, content)) = input.split_first() else { return };
    let ending = [".csv", ".tsv", ".jsonl"][usize::from(*first) % 3];
    let file = tempfile::Builder::new().suffix(ending).tempfile().unwrap();
    std::fs::write(file.path(), content).unwrap();
    if let Ok(table) = TableSource::open(file.path(), &TableOptions::default()) {
        let classes = table.labels().names().len();
        for row in table.read().into_iter().flatten().flatten() {
            assert!(row.label < classes);
        }
    }
});
