//! Rows of cells from csv and tsv files, objects from jsonl files, with the lines they began on.

use super::options::Format;
use crate::files::{self, hexadecimal};
use crate::{Error, Result};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// A longer line, or row of a csv file, is taken for a file that has none.
const MAX_RECORD: u64 = 64 << 20;

const TO_UTF8: &str = "convert the file to UTF-8";

/// A file that is hashed while it is read.
struct Hashing {
    file: File,
    hash: Sha256,
    /// Bytes that may be read until it is an error.
    left: u64,
}

impl Hashing {
    fn new(file: File) -> Hashing {
        Hashing { file, hash: Sha256::new(), left: u64::MAX }
    }
}

impl Read for Hashing {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read(buffer)?;
        self.left = self.left.checked_sub(count as u64).ok_or(io::ErrorKind::FileTooLarge)?;
        self.hash.update(&buffer[..count]);
        Ok(count)
    }
}

enum Source {
    /// Quoted cells; records may span lines.
    Csv {
        reader: csv::Reader<Hashing>,
        record: csv::ByteRecord,
        last: (u64, usize),
    },
    Lines {
        reader: BufReader<Hashing>,
        buffer: Vec<u8>,
        line: usize,
    },
}

/// The records of a table, one after the other.
pub(super) struct Records {
    path: PathBuf,
    format: Format,
    source: Source,
    /// Columns of the first row, which all rows must have.
    columns: Option<usize>,
}

/// One record.
pub(super) enum Record {
    /// The cells of a csv or tsv row.
    Cells(Vec<String>),
    /// The members of a jsonl line.
    Object(Map<String, Value>),
}

impl Records {
    pub fn open(path: &Path, format: Format) -> Result<Records> {
        let file = Hashing::new(files::open(path)?);
        let source = match format {
            Format::Csv => {
                let reader = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(file);
                Source::Csv { reader, record: csv::ByteRecord::new(), last: (0, 1) }
            }
            Format::Tsv | Format::JsonLines => {
                let reader = BufReader::with_capacity(1 << 17, file);
                Source::Lines { reader, buffer: Vec::new(), line: 0 }
            }
        };
        Ok(Records { path: path.to_owned(), format, source, columns: None })
    }

    pub fn error(&self, line: usize, problem: impl Into<String>, mend: impl Into<String>) -> Error {
        Error::File { path: self.path.clone(), line: Some(line), problem: problem.into(), mend: mend.into() }
    }

    /// The next record and its line; `None` at the end. Blank lines are passed over.
    pub fn next(&mut self) -> Result<Option<(usize, Record)>> {
        if matches!(self.source, Source::Csv { .. }) { self.next_csv() } else { self.next_line() }
    }

    fn next_csv(&mut self) -> Result<Option<(usize, Record)>> {
        let Source::Csv { reader, record, last } = &mut self.source else {
            unreachable!("seen by the caller")
        };
        reader.get_mut().left = MAX_RECORD;
        let more = reader.read_byte_record(record);
        let (byte, line) = record.position().map_or((0, 0), |place| (place.byte(), place.line() as usize));
        match more.map_err(csv::Error::into_kind) {
            Ok(true) => *last = (byte, line),
            Ok(false) => return Ok(None),
            Err(csv::ErrorKind::Io(source)) if source.kind() == io::ErrorKind::FileTooLarge => {
                let mend = "look for a quote that is opened here and not closed";
                return Err(self.error(line, "the row has over 64 MiB", mend));
            }
            Err(csv::ErrorKind::Io(source)) => return Err(Error::io("read", &self.path)(source)),
            Err(kind) => {
                return Err(Error::file(&self.path, format!("{kind:?}"), "check that this is a csv file"));
            }
        }
        let cells: std::result::Result<Vec<String>, _> =
            record.iter().map(|cell| std::str::from_utf8(cell).map(str::to_owned)).collect();
        match cells {
            Ok(cells) => self.cells(line, cells).map(Some),
            Err(_) => Err(self.error(line, "the row is not UTF-8", TO_UTF8)),
        }
    }

    fn next_line(&mut self) -> Result<Option<(usize, Record)>> {
        loop {
            let Source::Lines { reader, buffer, line } = &mut self.source else {
                unreachable!("seen by the caller")
            };
            buffer.clear();
            let read = reader.by_ref().take(MAX_RECORD).read_until(b'\n', buffer);
            if read.map_err(Error::io("read", &self.path))? == 0 {
                return Ok(None);
            }
            *line += 1;
            let line = *line;
            if buffer.len() as u64 == MAX_RECORD && !buffer.ends_with(b"\n") {
                return Err(self.error(line, "the line has over 64 MiB", "check that this is a text table"));
            }
            let Ok(text) = std::str::from_utf8(buffer) else {
                return Err(self.error(line, "the line is not UTF-8", TO_UTF8));
            };
            let text = text.strip_suffix('\n').unwrap_or(text);
            let text = text.strip_suffix('\r').unwrap_or(text);
            let text = text.strip_prefix('\u{feff}').filter(|_| line == 1).unwrap_or(text);
            if text.is_empty() {
                continue;
            }
            if self.format == Format::Tsv {
                let cells = text.split('\t').map(str::to_owned).collect();
                return self.cells(line, cells).map(Some);
            }
            let object = serde_json::from_str(text).map_err(|error| {
                self.error(line, format!("not a JSON object: {error}"), "write one JSON object on each line")
            })?;
            return Ok(Some((line, Record::Object(object))));
        }
    }

    /// Checks the number of cells against the first row's.
    fn cells(&mut self, line: usize, cells: Vec<String>) -> Result<(usize, Record)> {
        let columns = *self.columns.get_or_insert(cells.len());
        if cells.len() != columns {
            let (found, separator) = (cells.len(), if self.format == Format::Csv { "comma" } else { "tab" });
            let problem = format!("{found} columns, the first row has {columns}");
            let mend = format!("look for a stray {separator} or quote on this line or before it");
            return Err(self.error(line, problem, mend));
        }
        Ok((line, Record::Cells(cells)))
    }

    /// After the last record: SHA-256 of the file's content. A csv file that ends inside of quotes has lost
    /// rows.
    pub fn finish(self) -> Result<String> {
        if let Source::Csv { last: (byte, line), .. } = self.source {
            let mut tail = files::open(&self.path)?;
            tail.seek(SeekFrom::Start(byte)).map_err(Error::io("read", &self.path))?;
            if ends_in_quotes(BufReader::new(tail)).map_err(Error::io("read", &self.path))? {
                let problem = "a quote that is opened here is not closed before the file ends";
                return Err(self.error(line, problem, "close it, or double it if it belongs to the text"));
            }
        }
        self.digest()
    }

    /// SHA-256 of the file's content, of which what has not been read yet is read now.
    pub fn digest(self) -> Result<String> {
        let mut hashing = match self.source {
            Source::Lines { reader, .. } => reader.into_inner(),
            Source::Csv { reader, .. } => reader.into_inner(),
        };
        hashing.left = u64::MAX;
        io::copy(&mut hashing, &mut io::sink()).map_err(Error::io("read", &self.path))?;
        Ok(hexadecimal(&hashing.hash.finalize()))
    }
}

/// Whether a csv text, read from the beginning of a record, ends inside of quotes. A quote opens only where a cell
/// begins: within one it is a character like any other.
fn ends_in_quotes(mut text: impl BufRead) -> io::Result<bool> {
    enum At {
        CellStart,
        Plain,
        Quoted,
        /// Behind a quote inside of quotes: their end, or the first half of a doubled one.
        Quote,
    }
    if text.fill_buf()?.starts_with(b"\xef\xbb\xbf") {
        text.consume(3);
    }
    let mut at = At::CellStart;
    for byte in text.bytes() {
        at = match (at, byte?) {
            (At::CellStart | At::Quote, b'"') => At::Quoted,
            (At::Quoted, b'"') => At::Quote,
            (At::Quoted, _) => At::Quoted,
            (_, b',' | b'\n' | b'\r') => At::CellStart,
            _ => At::Plain,
        };
    }
    Ok(matches!(at, At::Quoted))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_count_where_a_cell_begins() {
        for (text, expected) in [
            ("", false),
            ("2,a 27\" monitor", false),
            ("2,\"a\"\n", false),
            ("2,\"a \"\"b\"\"\"", false),
            ("2,\"a\" \"b\n", false),
            ("\n\"2\",\"a", true),
            ("2,\"a\"\"\n", true),
            ("2,\"a, 27\"\" monitor", true),
            ("\u{feff}\"2", true),
        ] {
            assert_eq!(ends_in_quotes(text.as_bytes()).unwrap(), expected, "{text:?}");
        }
    }

    /// The rest of a large file is not kept for the sake of one quote.
    #[test]
    fn a_quote_that_is_not_closed_ends_at_the_largest_row() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("large.csv");
        let mut text = b"1,a\n2,\"b\n".to_vec();
        text.resize(MAX_RECORD as usize + (1 << 20), b'c');
        std::fs::write(&path, text).unwrap();
        let mut records = Records::open(&path, Format::Csv).unwrap();
        assert!(records.next().unwrap().is_some());
        let error = records.next().map(drop).unwrap_err().to_string();
        assert!(error.contains("line 2: the row has over 64 MiB; look for a quote"), "{error}");
    }

    #[test]
    fn a_disk_that_fails_ends_the_search() {
        struct Broken;
        impl Read for Broken {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::Error::other("broken"))
            }
        }
        let text = b"2,\"a".chain(Broken);
        assert!(ends_in_quotes(BufReader::new(text)).is_err());
    }
}
