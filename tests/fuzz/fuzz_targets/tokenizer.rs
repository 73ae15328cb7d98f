//! A packed vocabulary, and a text for it: the vocabulary ends at the first line feed from behind.
#![no_main]

use libfuzzer_sys::fuzz_target;
use limbeck::tokenizer::WordPiece;

fuzz_target!(|input: &[u8]| {
    let end = input.iter().rposition(|byte| *byte == b'\n').unwrap_or(input.len());
    let text = String::from_utf8_lossy(input.get(end + 1..).unwrap_or_default());
    if let Ok(tokenizer) = WordPiece::from_bytes(&input[..end]) {
        for most in [2, 3, 16, 512] {
            let ids = tokenizer.encode(&text, most);
            assert!(ids.len() <= most && ids.iter().all(|id| (*id as usize) < tokenizer.vocab()));
        }
        let (first, second) = text.split_once('\t').unwrap_or((&text, &text));
        assert!(tokenizer.encode_pair(first, second, 16).ids.len() <= 16);
    }
    // The whole of the input as pieces, which are packed, and then as a text.
    #[cfg(feature = "train")]
    if let Ok(all) = std::str::from_utf8(input) {
        let pieces: Vec<&str> = all.lines().collect();
        if let Ok(packed) = WordPiece::pack(&pieces, limbeck::tokenizer::Rules::bert(true)) {
            let tokenizer = WordPiece::from_bytes(packed).expect("what was packed can be read");
            tokenizer.encode(all, 512);
        }
    }
});
