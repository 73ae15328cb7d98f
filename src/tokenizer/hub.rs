//! The tokenizer of a Hugging Face directory, over the tokenizers crate.

use super::wordpiece::SPECIALS;
use super::{Encode, Pair, Rules, WordPiece, vocabulary};
use crate::{Error, Result, files};
use serde_json::Value;
use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use tokenizers::models::wordpiece::WordPiece as WordPieceModel;
use tokenizers::normalizers::BertNormalizer;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::{AddedToken, Model, ModelWrapper, NormalizerWrapper, PreTokenizerWrapper};

/// The files that make up a tokenizer; those that are there are kept and saved again.
const FILES: [&str; 5] =
    ["tokenizer.json", "vocab.txt", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"];

/// A text-to-ids function as a model directory describes it, and the files that describe it.
#[derive(Clone)]
pub struct Tokenizer {
    tokenizer: tokenizers::Tokenizer,
    /// The same function, eight times as fast, where it is plain BERT.
    own: Option<WordPiece<Arc<[u8]>>>,
    cls: u32,
    sep: u32,
    vocab: usize,
    content_hash: String,
    files: Vec<(&'static str, Vec<u8>)>,
}

impl Tokenizer {
    /// Reads `tokenizer.json`, or `vocab.txt` and what `tokenizer_config.json` says of it (`do_lower_case`,
    /// `strip_accents`, `tokenize_chinese_chars`; without it BERT's defaults, which lower the case). Padding
    /// and truncation that the file asks for are ignored: here the caller says how long a text may be.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::File`] if there is no tokenizer, it cannot be parsed, it is not WordPiece, `[UNK]`,
    /// `[CLS]` or `[SEP]` is missing, or a piece has two ids or an id two pieces.
    pub fn from_directory(directory: &Path) -> Result<Tokenizer> {
        let mut found = Vec::new();
        for name in FILES {
            let path = directory.join(name);
            if path.exists() {
                found.push((name, files::read(&path)?));
            }
        }
        let content =
            |name: &str| found.iter().find(|(known, _)| *known == name).map(|(_, bytes)| bytes.as_slice());
        let (path, tokenizer) = if let Some(json) = content(FILES[0]) {
            let path = directory.join(FILES[0]);
            let tokenizer = tokenizers::Tokenizer::from_bytes(json).map_err(|error| {
                Error::file(
                    &path,
                    format!("not a tokenizer: {error}"),
                    "fetch the file again, or delete it if there is a vocab.txt",
                )
            })?;
            (path, tokenizer)
        } else if let Some(text) = content(FILES[1]) {
            let path = directory.join(FILES[1]);
            let rules = read_rules(&directory.join(FILES[2]), content(FILES[2]))?;
            let text = std::str::from_utf8(text)
                .map_err(|error| Error::file(&path, format!("not UTF-8: {error}"), "fetch the file again"))?;
            let pieces: Vec<&str> = text.lines().map(str::trim_end).collect();
            check_unique(&path, &pieces)?;
            (path, build(&pieces, rules))
        } else {
            let mend = "fetch the model's tokenizer.json, or its vocab.txt";
            return Err(Error::file(directory, "there is no tokenizer", mend));
        };
        Tokenizer::checked(tokenizer, &path, found)
    }

    /// A BERT tokenizer with the given pieces, by id. It is saved as `vocab.txt` and `tokenizer_config.json`.
    ///
    /// # Errors
    /// [`Error::File`] if `[UNK]`, `[CLS]` or `[SEP]` is missing, or a piece holds a line end.
    pub fn from_pieces(pieces: &[impl AsRef<str>], rules: Rules) -> Result<Tokenizer> {
        let pieces: Vec<&str> = pieces.iter().map(AsRef::as_ref).collect();
        let path = Path::new(FILES[1]);
        if let Some(piece) =
            pieces.iter().find(|piece| piece.trim_end() != **piece || piece.contains(['\n', '\r']))
        {
            return Err(Error::file(path, format!("{piece:?} does not fit into a line"), "leave it out"));
        }
        let config = config_of(rules, serde_json::json!({ "tokenizer_class": "BertTokenizer" }));
        let vocabulary: String = pieces.iter().flat_map(|piece| [*piece, "\n"]).collect();
        let files = vec![(FILES[1], vocabulary.into_bytes()), (FILES[2], config)];
        Tokenizer::checked(build(&pieces, rules), path, files)
    }

    /// The tokenizer with some of the pieces, `kept` being their ids, ascending: piece `kept[i]` gets the id `i`, and
    /// words whose piece is gone are cut into smaller ones. It is saved as `vocab.txt` and `tokenizer_config.json`, with
    /// what else the latter said.
    ///
    /// # Errors
    /// A sentence that names what keeps this tokenizer from being written as a `vocab.txt`.
    ///
    /// # Panics
    /// If an id is not one of the tokenizer's.
    pub fn keep(&self, kept: &[u32]) -> std::result::Result<Tokenizer, String> {
        let own = self.word_piece()?;
        let rules = own.rules();
        if !rules.clean_text {
            return Err("it keeps control characters".to_owned());
        }
        let piece = |id: u32| own.piece(id).expect("an id of this tokenizer");
        let specials: HashSet<&str> = own.specials().map(piece).collect();
        let usual = |piece: &str| SPECIALS.contains(&piece);
        let other = (0..own.vocab() as u32).map(piece).find(|piece| usual(piece) != specials.contains(piece));
        if let Some(other) = other {
            return Err(match usual(other) {
                true => format!("it reads {other} in a text as any other word"),
                false => format!("it has the added token {other}"),
            });
        }
        let pieces: Vec<&str> = kept.iter().map(|&id| piece(id)).collect();
        let mut smaller = Tokenizer::from_pieces(&pieces, rules).map_err(|error| error.to_string())?;
        for (name, bytes) in &self.files {
            let config = || serde_json::from_slice(bytes).unwrap_or_default();
            match *name {
                "tokenizer_config.json" => smaller.files[1].1 = config_of(rules, config()),
                // It has names only; what else there is has ids.
                "special_tokens_map.json" => smaller.files.push((name, bytes.clone())),
                _ => {}
            }
        }
        Ok(smaller)
    }

    /// The same function over a packed vocabulary.
    ///
    /// # Errors
    /// As [`Tokenizer::pack`].
    pub fn word_piece(&self) -> std::result::Result<&WordPiece<Arc<[u8]>>, String> {
        self.own.as_ref().ok_or_else(|| self.pack().err().unwrap_or_else(|| "it cannot be packed".to_owned()))
    }

    fn checked(
        mut tokenizer: tokenizers::Tokenizer,
        path: &Path,
        files: Vec<(&'static str, Vec<u8>)>,
    ) -> Result<Tokenizer> {
        const MEND: &str = "use the tokenizer that the model was trained with";
        let unknown = match tokenizer.get_model() {
            ModelWrapper::WordPiece(model) => model.unk_token.clone(),
            _ => {
                return Err(Error::file(
                    path,
                    "the tokenizer is not WordPiece, the only kind BERT has",
                    MEND,
                ));
            }
        };
        let id = |token: &str| {
            let missing = || Error::file(path, format!("the vocabulary has no {token}"), MEND);
            tokenizer.token_to_id(token).ok_or_else(missing)
        };
        if tokenizer.get_model().token_to_id(&unknown).is_none() {
            return Err(Error::file(path, format!("the vocabulary has no {unknown}"), MEND));
        }
        let (cls, sep) = (id("[CLS]")?, id("[SEP]")?);
        let vocab = check_ids(path, tokenizer.get_vocab(true))?;
        tokenizer.with_padding(None);
        let text = tokenizer
            .with_truncation(None)
            .and_then(|tokenizer| tokenizer.to_string(false))
            .map_err(|error| Error::file(path, error.to_string(), MEND))?;
        let own = pack(&tokenizer).and_then(|bytes| WordPiece::from_bytes(bytes.into())).ok();
        Ok(Tokenizer { tokenizer, own, cls, sep, vocab, content_hash: files::sha256(text.as_bytes()), files })
    }

    /// One more than the largest id.
    pub fn vocab(&self) -> usize {
        self.vocab
    }

    /// The name of the file that has the pieces: `tokenizer.json` or `vocab.txt`.
    pub fn file(&self) -> &'static str {
        self.files[0].0
    }

    /// SHA-256 of everything that decides the ids.
    pub fn content_hash(&self) -> &str {
        &self.content_hash
    }

    /// The ids of a text: `[CLS]`, at most `max_tokens - 2` pieces, `[SEP]`. `max_tokens` is at least 2.
    pub fn encode(&self, text: &str, max_tokens: usize) -> Vec<u32> {
        if let Some(own) = &self.own {
            return own.encode(text, max_tokens);
        }
        let pieces = self.pieces(text);
        let kept = pieces.len().min(max_tokens.saturating_sub(2));
        let mut ids = Vec::with_capacity(kept + 2);
        ids.push(self.cls);
        ids.extend_from_slice(&pieces[..kept]);
        ids.push(self.sep);
        ids
    }

    /// The ids of two sentences: [`Encode::encode_pair`].
    pub fn encode_pair(&self, first: &str, second: &str, max_tokens: usize) -> Pair {
        if let Some(own) = &self.own {
            return own.encode_pair(first, second, max_tokens);
        }
        let pieces = [first, second].map(|text| self.pieces(text));
        Pair::new([self.cls, self.sep], pieces.each_ref().map(Vec::as_slice), max_tokens)
    }

    fn pieces(&self, text: &str) -> Vec<u32> {
        let pieces = self.tokenizer.encode_fast(text, false);
        let pieces = pieces.expect("WordPiece fails only without an unknown token, which was seen");
        pieces.get_ids().to_vec()
    }

    /// Writes the files that this tokenizer was read from into a directory, which is created if need be. The configuration
    /// says what transformers' tokenizers must not give a network: more tokens than it has `positions`, and types of tokens
    /// where it has no `token_types`.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn save(&self, directory: &Path, positions: usize, token_types: bool) -> Result<()> {
        self.files.iter().try_for_each(|(name, bytes)| {
            let config = (*name == FILES[2]).then(|| serde_json::from_slice(bytes));
            let Some(Ok(Value::Object(mut config))) = config else {
                return files::replace_bytes(&directory.join(name), bytes);
            };
            let unchanged = config.clone();
            // "No limit" is a number too: 10 to the power of 30.
            if config
                .get("model_max_length")
                .and_then(Value::as_f64)
                .is_none_or(|most| most > positions as f64)
            {
                config.insert("model_max_length".into(), positions.into());
            }
            if !token_types {
                config.insert("model_input_names".into(), serde_json::json!(["input_ids", "attention_mask"]));
            }
            if config == unchanged {
                return files::replace_bytes(&directory.join(name), bytes);
            }
            let text = format!("{:#}\n", Value::Object(config));
            files::replace_bytes(&directory.join(name), text.as_bytes())
        })
    }

    /// The vocabulary and rules as [`WordPiece::from_bytes`] reads them.
    ///
    /// # Errors
    /// A sentence that names what [`WordPiece`] does not do: other normalizers, tokens with their own
    /// spacing.
    pub fn pack(&self) -> std::result::Result<Vec<u8>, String> {
        pack(&self.tokenizer)
    }
}

impl Encode for Tokenizer {
    fn encode(&self, text: &str, max_tokens: usize) -> Vec<u32> {
        self.encode(text, max_tokens)
    }

    fn encode_pair(&self, first: &str, second: &str, max_tokens: usize) -> Pair {
        self.encode_pair(first, second, max_tokens)
    }

    fn vocab(&self) -> usize {
        self.vocab
    }

    fn content_hash(&self) -> String {
        self.content_hash.clone()
    }
}

/// Refuses a `vocab.txt` with a piece on two lines: a line was lost or added, and all ids behind it are others.
fn check_unique(path: &Path, pieces: &[&str]) -> Result<()> {
    let mut first = HashMap::new();
    for (id, piece) in pieces.iter().enumerate().filter(|(_, piece)| !piece.is_empty()) {
        if let Some(former) = first.insert(piece, id) {
            let problem = format!("the piece {piece:?} stands on line {} already", former + 1);
            let (path, mend) = (path.to_owned(), "fetch the file again".to_owned());
            return Err(Error::File { path, line: Some(id + 1), problem, mend });
        }
    }
    Ok(())
}

/// One more than the largest id; no two pieces may share one.
fn check_ids(path: &Path, vocabulary: HashMap<String, u32>) -> Result<usize> {
    let mut by_id: Vec<(u32, String)> = vocabulary.into_iter().map(|(piece, id)| (id, piece)).collect();
    by_id.sort_unstable();
    if let Some([(id, first), (_, second)]) =
        by_id.array_windows().find(|[first, second]| first.0 == second.0)
    {
        let problem = format!("the pieces {first:?} and {second:?} both have the id {id}");
        return Err(Error::file(path, problem, "fetch the file again"));
    }
    Ok(by_id.last().map_or(0, |(id, _)| *id as usize + 1))
}

fn pack(tokenizer: &tokenizers::Tokenizer) -> std::result::Result<Vec<u8>, String> {
    let ModelWrapper::WordPiece(model) = tokenizer.get_model() else {
        return Err("the tokenizer is not WordPiece".to_owned());
    };
    let plain = model.unk_token == "[UNK]"
        && model.continuing_subword_prefix == vocabulary::CONTINUATION
        && model.max_input_chars_per_word == 100;
    let Some(NormalizerWrapper::BertNormalizer(normalizer)) = tokenizer.get_normalizer() else {
        return Err("its normalizer is not BertNormalizer".to_owned());
    };
    let bert = matches!(tokenizer.get_pre_tokenizer(), Some(PreTokenizerWrapper::BertPreTokenizer(_)));
    if !plain || !bert {
        return Err("its model or pre-tokenizer is not BERT's".to_owned());
    }
    let by_piece = model.get_vocab();
    let ids = by_piece.values().max().map_or(0, |&id| id as usize + 1);
    // Ids come from a file: compared before anything of their size is allocated.
    if ids > vocabulary::MAX_PIECES {
        return Err(vocabulary::too_many(ids));
    }
    let mut pieces = vec![""; ids];
    by_piece.iter().for_each(|(piece, &id)| pieces[id as usize] = piece);
    let mut specials = Vec::new();
    for (id, token) in tokenizer.get_added_tokens_decoder() {
        let spaced = token.single_word || token.lstrip || token.rstrip || token.normalized;
        if spaced || pieces.get(id as usize) != Some(&token.content.as_str()) {
            return Err(format!("the added token {} has rules of its own", token.content));
        }
        specials.push(id);
    }
    specials.sort_unstable();
    let rules = Rules {
        clean_text: normalizer.clean_text,
        space_ideographs: normalizer.handle_chinese_chars,
        strip_accents: normalizer.strip_accents.unwrap_or(normalizer.lowercase),
        lower_case: normalizer.lowercase,
    };
    vocabulary::pack(&pieces, &specials, rules)
}

/// The reference tokenizer over a plain list of pieces.
fn build(pieces: &[&str], rules: Rules) -> tokenizers::Tokenizer {
    let vocabulary = WordPieceModel::read_bytes(pieces.join("\n").as_bytes()).expect("memory can be read");
    let model = WordPieceModel::builder().vocab(vocabulary).build().expect("this model reads no file");
    let mut tokenizer = tokenizers::Tokenizer::new(model);
    let Rules { clean_text, space_ideographs, strip_accents, lower_case } = rules;
    let normalizer = BertNormalizer::new(clean_text, space_ideographs, Some(strip_accents), lower_case);
    tokenizer.with_normalizer(Some(normalizer)).expect("no added token is there to be normalized again");
    tokenizer.with_pre_tokenizer(Some(BertPreTokenizer));
    let specials = SPECIALS.into_iter().filter(|special| pieces.contains(special));
    let added = tokenizer.add_special_tokens(specials.map(|special| AddedToken::from(special, true)));
    added.expect("the names of the special tokens make a small automaton");
    tokenizer
}

/// A `tokenizer_config.json` for a `vocab.txt` with these rules, and with what `config` says beside them.
fn config_of(rules: Rules, mut config: Value) -> Vec<u8> {
    if !config.is_object() {
        config = serde_json::json!({ "tokenizer_class": "BertTokenizer" });
    }
    config["do_lower_case"] = rules.lower_case.into();
    config["strip_accents"] = rules.strip_accents.into();
    config["tokenize_chinese_chars"] = rules.space_ideographs.into();
    // It holds ids, which are others in a smaller vocabulary; the special tokens are found by their names.
    config.as_object_mut().map(|config| config.remove("added_tokens_decoder"));
    format!("{config:#}\n").into_bytes()
}

/// What `tokenizer_config.json` says of a `vocab.txt`.
fn read_rules(path: &Path, json: Option<&[u8]>) -> Result<Rules> {
    let Some(json) = json else { return Ok(Rules::bert(true)) };
    let config: Value = serde_json::from_slice(json)
        .map_err(|error| Error::file(path, format!("not JSON: {error}"), "fetch the file again"))?;
    let flag = |key: &str| match config.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Bool(value)) => Ok(Some(*value)),
        Some(value) => Err(Error::file(path, format!("\"{key}\" is {value}"), "make it true or false")),
    };
    let lower_case = flag("do_lower_case")?.unwrap_or(true);
    Ok(Rules {
        clean_text: true,
        space_ideographs: flag("tokenize_chinese_chars")?.unwrap_or(true),
        strip_accents: flag("strip_accents")?.unwrap_or(lower_case),
        lower_case,
    })
}
