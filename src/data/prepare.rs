//! From a table to its token cache.

use super::cache::{Cache, CacheWriter, Key};
use super::table::{Row, TableSource};
use super::token_set::{Storage, TokenSet};
use crate::tokenizer::Encode;
use crate::{Error, Result, files};
use sha2::{Digest, Sha256};
use std::path::Path;

/// Texts that are encoded together: enough for all threads, little enough to hold.
const CHUNK_ROWS: usize = 4_096;
const CHUNK_BYTES: usize = 8 << 20;

impl TokenSet {
    /// The token ids of a table, each text or pair cut to `max_tokens`: from the cache in `cache_dir`, or encoded on
    /// all threads and put there. The cache is found by what it was made of, so another tokenizer or an
    /// edited table never meets an old cache; a damaged one is made again.
    ///
    /// # Errors
    /// [`Error::Setting`] if `max_tokens` is below 3, which leaves no room for text; [`Error::Io`]; what
    /// reading the table returns; [`Error::File`] if the table has changed since it was opened.
    pub fn prepare(
        source: &TableSource,
        tokenizer: &dyn Encode,
        max_tokens: usize,
        cache_dir: &Path,
    ) -> Result<TokenSet> {
        let pairs = source.has_pairs();
        if max_tokens < 3 + 2 * usize::from(pairs) {
            let text = if pairs { "[CLS], two sentences and a [SEP] each" } else { "[CLS], text and [SEP]" };
            let problem = format!("{max_tokens} tokens have no room for {text}");
            return Err(Error::setting("data.max_tokens", problem, "128 is usual"));
        }
        let texts = source.description();
        let described = format!("token cache 1\n{texts}\n{}\n{max_tokens}", tokenizer.content_hash());
        let key: Key = Sha256::digest(described.as_bytes()).into();
        let content_hash = files::hexadecimal(&key);
        let path = cache_dir.join(format!("{}.tokens", &content_hash[..32]));
        let cache = match Cache::open(&path, &key, tokenizer.vocab()) {
            Some(cache) => cache,
            None => {
                write(source, tokenizer, max_tokens, &path, &key)?;
                let lost = || {
                    Error::file(&path, "the cache could not be read back", "check the disk, and run again")
                };
                Cache::open(&path, &key, tokenizer.vocab()).ok_or_else(lost)?
            }
        };
        let labels = source.labels().names().to_vec();
        let value = |class| source.labels().value_of(class).unwrap_or_default().to_owned();
        let label_values = (0..labels.len()).map(value).collect();
        let texts_hash = files::sha256(texts.as_bytes());
        Ok(TokenSet { storage: Storage::Mapped(cache), labels, label_values, content_hash, texts_hash })
    }
}

fn write(
    source: &TableSource,
    tokenizer: &dyn Encode,
    max_tokens: usize,
    path: &Path,
    key: &Key,
) -> Result<()> {
    let mut writer = CacheWriter::create(path, source.rows().len(), source.labels().names().len())?;
    let mut rows = source.read()?;
    loop {
        let chunk = chunk(&mut rows)?;
        if chunk.is_empty() {
            // A cache is found by the hash of what was checked: it may hold nothing else.
            rows.finish()?;
            return writer.finish(key);
        }
        if source.has_pairs() {
            let pairs: Vec<[&str; 2]> =
                chunk.iter().map(|row| [&*row.text, row.second.as_deref().unwrap_or_default()]).collect();
            for (row, pair) in chunk.iter().zip(tokenizer.encode_pairs(&pairs, max_tokens)) {
                writer.push(row.label as u32, pair.text())?;
            }
        } else {
            let texts: Vec<&str> = chunk.iter().map(|row| row.text.as_str()).collect();
            for (row, ids) in chunk.iter().zip(tokenizer.encode_batch(&texts, max_tokens)) {
                writer.push(row.label as u32, ids.as_slice().into())?;
            }
        }
    }
}

/// The next rows, at least one unless there are no more.
fn chunk(rows: &mut impl Iterator<Item = Result<Row>>) -> Result<Vec<Row>> {
    let mut chunk = Vec::new();
    let mut bytes = 0;
    while chunk.len() < CHUNK_ROWS && bytes < CHUNK_BYTES {
        let Some(row) = rows.next().transpose()? else { break };
        bytes += row.text.len() + row.second.as_ref().map_or(0, String::len);
        chunk.push(row);
    }
    Ok(chunk)
}
