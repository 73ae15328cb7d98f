//! The token cache: a file that is used where it lies.
//!
//! ```text
//! header    magic, version, byte order, rows, tokens, classes, key [32], digest [32]: 128 bytes
//! offsets   u64 [rows + 1]      where each text begins among the ids
//! classes   u32 [rows]
//! first_lens u32 [rows]         tokens of each text's first sentence: all, unless it is a pair
//! ids       u32 [tokens]
//! ```
//!
//! Numbers are in the byte order of the machine: a cache can always be made again, and is never sent
//! anywhere. The digest is SHA-256 of the header before it and of the SHA-256 of each of the parts behind it, which
//! are written side by side. The header is written last, so that a file without a good one is no cache; a file that
//! is damaged in any way is made again rather than complained about.

use crate::{Error, Result, Text, files};
use memmap2::Mmap;
use sha2::{Digest, Sha256};
use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::Path;

const MAGIC: [u8; 8] = *b"LBTOKENS";
const VERSION: u32 = 3;
const BYTE_ORDER: u32 = 0x0102_0304;
const HEADER: usize = 128;

/// What a cache is of: SHA-256 of texts, tokenizer and settings.
pub(super) type Key = [u8; 32];

/// SHA-256 of offsets, classes, first_lens and ids.
type Digests = [[u8; 32]; 4];

/// Counts that determine where everything lies.
#[derive(Clone, Copy)]
struct Counts {
    rows: u64,
    tokens: u64,
    classes: u64,
}

impl Counts {
    fn header(self, key: &Key, parts: &Digests) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        let fields: [&[u8]; 7] = [
            &MAGIC,
            &VERSION.to_ne_bytes(),
            &BYTE_ORDER.to_ne_bytes(),
            &self.rows.to_ne_bytes(),
            &self.tokens.to_ne_bytes(),
            &self.classes.to_ne_bytes(),
            key,
        ];
        let mut place = 0;
        for field in fields {
            bytes[place..place + field.len()].copy_from_slice(field);
            place += field.len();
        }
        let mut digest = Sha256::new_with_prefix(&bytes[..HEADER - 32]);
        parts.iter().for_each(|part| digest.update(part));
        bytes[HEADER - 32..].copy_from_slice(&digest.finalize());
        bytes
    }

    /// The counts and where all lies, if the file is whole, of this version and machine, and for this key.
    fn of(file: &[u8], key: &Key) -> Option<(Counts, [Range<usize>; 4])> {
        let found = file.first_chunk::<HEADER>()?;
        let number = |place: usize| Some(u64::from_ne_bytes(*found[place..].first_chunk()?));
        let counts = Counts { rows: number(16)?, tokens: number(24)?, classes: number(32)? };
        let places = counts.places()?;
        // Another key or version is seen without reading the file.
        if places[3].end != file.len()
            || counts.header(key, &Digests::default())[..HEADER - 32] != found[..HEADER - 32]
        {
            return None;
        }
        let digests = places.each_ref().map(|part| Sha256::digest(&file[part.clone()]).into());
        (counts.header(key, &digests) == *found).then_some((counts, places))
    }

    /// Where offsets, classes, first_lens and ids lie; `None` if the counts are beyond any file.
    fn places(self) -> Option<[Range<usize>; 4]> {
        let rows = usize::try_from(self.rows).ok()?;
        let offsets_end = rows.checked_add(1)?.checked_mul(8)?.checked_add(HEADER)?;
        let classes_end = rows.checked_mul(4)?.checked_add(offsets_end)?;
        let firsts_end = rows.checked_mul(4)?.checked_add(classes_end)?;
        let ids_end = usize::try_from(self.tokens).ok()?.checked_mul(4)?.checked_add(firsts_end)?;
        Some([HEADER..offsets_end, offsets_end..classes_end, classes_end..firsts_end, firsts_end..ids_end])
    }
}

/// A cache that is mapped and has been checked.
pub(super) struct Cache {
    map: Mmap,
    places: [Range<usize>; 4],
}

impl Cache {
    /// Maps the cache for a key. `None` if there is none, or if it is damaged or cut short.
    /// `vocab` is the number of token ids: a larger id in the file is damage.
    pub fn open(path: &Path, key: &Key, vocab: usize) -> Option<Cache> {
        let map = files::map(path).ok()?;
        let (counts, places) = Counts::of(&map, key)?;
        let cache = Cache { map, places };
        let offsets = cache.offsets();
        let whole =
            offsets.first() == Some(&0) && offsets.last() == Some(&counts.tokens) && offsets.is_sorted();
        let known = cache.classes().iter().all(|&class| u64::from(class) < counts.classes)
            && cache.ids().iter().all(|&id| (id as usize) < vocab);
        let split = cache.first_lens().iter().zip(offsets.array_windows());
        let split = split.into_iter().all(|(&first, [start, end])| u64::from(first) <= end - start);
        (whole && known && split).then_some(cache)
    }

    pub fn offsets(&self) -> &[u64] {
        // SAFETY: any bytes are a number.
        let (before, numbers, after) = unsafe { self.map[self.places[0].clone()].align_to() };
        assert!(
            before.is_empty() && after.is_empty(),
            "a map is aligned to pages, the offsets to 8 bytes in it"
        );
        numbers
    }

    pub fn classes(&self) -> &[u32] {
        numbers(&self.map[self.places[1].clone()])
    }

    pub fn first_lens(&self) -> &[u32] {
        numbers(&self.map[self.places[2].clone()])
    }

    pub fn ids(&self) -> &[u32] {
        numbers(&self.map[self.places[3].clone()])
    }
}

fn numbers(bytes: &[u8]) -> &[u32] {
    // SAFETY: any bytes are a number.
    let (before, numbers, after) = unsafe { bytes.align_to() };
    assert!(before.is_empty() && after.is_empty(), "a map is aligned to pages, the parts to 4 bytes in it");
    numbers
}

/// A part of the file that is hashed while it is written.
struct Part {
    file: BufWriter<File>,
    hash: Sha256,
}

impl Part {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.hash.update(bytes);
        self.file.write_all(bytes)
    }

    fn finish(self) -> std::io::Result<[u8; 32]> {
        self.file.into_inner().map_err(std::io::IntoInnerError::into_error)?;
        Ok(self.hash.finalize().into())
    }
}

/// Writes a cache from its first text to its last: memory does not grow with their number.
pub(super) struct CacheWriter<'a> {
    path: &'a Path,
    temporary: files::Temporary,
    offsets: Part,
    classes: Part,
    first_lens: Part,
    ids: Part,
    counts: Counts,
    written: u64,
}

impl<'a> CacheWriter<'a> {
    /// Begins the cache of `rows` texts at `path`; nothing is there before [`CacheWriter::finish`].
    pub fn create(path: &'a Path, rows: usize, classes: usize) -> Result<CacheWriter<'a>> {
        let temporary = files::Temporary::file(path)?;
        let counts = Counts { rows: rows as u64, tokens: 0, classes: classes as u64 };
        let places = counts.places().expect("the rows were counted in a file");
        let at = |place: usize| -> std::io::Result<Part> {
            let mut file = OpenOptions::new().write(true).open(&temporary.path)?;
            file.seek(SeekFrom::Start(place as u64))?;
            Ok(Part { file: BufWriter::with_capacity(1 << 16, file), hash: Sha256::new() })
        };
        let [offsets, classes, first_lens, ids] =
            places.map(|place| at(place.start).map_err(Error::io("write", path)));
        let mut writer = CacheWriter {
            path,
            offsets: offsets?,
            classes: classes?,
            first_lens: first_lens?,
            ids: ids?,
            counts,
            written: 0,
            temporary,
        };
        writer.offset()?;
        Ok(writer)
    }

    fn offset(&mut self) -> Result<()> {
        self.offsets.write(&self.counts.tokens.to_ne_bytes()).map_err(Error::io("write", self.path))
    }

    /// Adds a text.
    pub fn push(&mut self, class: u32, Text { ids, first }: Text<'_>) -> Result<()> {
        self.classes.write(&class.to_ne_bytes()).map_err(Error::io("write", self.path))?;
        self.first_lens.write(&(first as u32).to_ne_bytes()).map_err(Error::io("write", self.path))?;
        for id in ids {
            self.ids.write(&id.to_ne_bytes()).map_err(Error::io("write", self.path))?;
        }
        self.counts.tokens += ids.len() as u64;
        self.written += 1;
        self.offset()
    }

    /// Writes the header and gives the file its name.
    pub fn finish(self, key: &Key) -> Result<()> {
        assert_eq!(self.written, self.counts.rows, "a cache has the rows that it was made for");
        let CacheWriter { path, temporary, offsets, classes, first_lens, ids, counts, .. } = self;
        let header = || -> std::io::Result<()> {
            let digests = [offsets.finish()?, classes.finish()?, first_lens.finish()?, ids.finish()?];
            let mut file = OpenOptions::new().write(true).open(&temporary.path)?;
            file.write_all(&counts.header(key, &digests))?;
            file.sync_all()
        };
        header().map_err(Error::io("write", path))?;
        temporary.rename(path)
    }
}
