//! Checks of a `tokenizer.json` before the library reads it.
//!
//! The library trusts its files: some malformed ones make it panic, some ask for randomness, some
//! for texts that grow without end. Only parts that real models use are let through, with the
//! bounds that those parts need.

use serde_json::{Map, Value};
use std::collections::BTreeSet;

/// Longest token, bytes.
pub(super) const TOKEN_BYTES_MAX: usize = 4096;
/// Most parts of a normalizer, pre-tokenizer, decoder or post-processor.
const PARTS_MAX: usize = 32;
/// Longest text that a part may insert, bytes.
const INSERT_BYTES_MAX: usize = 64;
/// Longest regular expression, bytes.
const REGEX_BYTES_MAX: usize = 4096;

const NORMALIZERS: &[&str] = &[
    "Sequence",
    "NFC",
    "NFD",
    "NFKC",
    "NFKD",
    "Lowercase",
    "StripAccents",
    "Strip",
    "Replace",
    "Prepend",
    "BertNormalizer",
];
const PRE_TOKENIZERS: &[&str] = &[
    "Sequence",
    "ByteLevel",
    "Split",
    "Digits",
    "Metaspace",
    "Whitespace",
    "WhitespaceSplit",
    "Punctuation",
    "BertPreTokenizer",
];
const POST_PROCESSORS: &[&str] =
    &["Sequence", "ByteLevel", "TemplateProcessing", "BertProcessing", "RobertaProcessing"];
const DECODERS: &[&str] =
    &["Sequence", "ByteLevel", "WordPiece", "Metaspace", "Replace", "ByteFallback", "Fuse", "Strip"];

/// Checks `value` and sets what must hold for every model: no truncation or padding, and special
/// tokens matched as they are written, not after normalisation, which could make one out of a text
/// that does not contain it. Returns the added tokens with their numbers.
pub(super) fn check(value: &mut Value, vocab_size: usize) -> Result<Vec<(String, u32)>, String> {
    let root = value.as_object_mut().ok_or("not an object")?;
    root.insert("truncation".into(), Value::Null);
    root.insert("padding".into(), Value::Null);
    for (field, known) in [
        ("normalizer", NORMALIZERS),
        ("pre_tokenizer", PRE_TOKENIZERS),
        ("post_processor", POST_PROCESSORS),
        ("decoder", DECODERS),
    ] {
        match root.get(field) {
            None | Some(Value::Null) => {}
            Some(part) => {
                let mut left = PARTS_MAX;
                check_part(part, known, &mut left).map_err(|why| format!("{field}: {why}"))?;
            }
        }
    }
    let model = root.get("model").and_then(Value::as_object).ok_or("model: missing")?;
    check_model(model, vocab_size).map_err(|why| format!("model: {why}"))?;
    match root.get_mut("added_tokens") {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Array(tokens)) if tokens.len() <= vocab_size => {
            tokens.iter_mut().map(|token| check_added(token, vocab_size)).collect()
        }
        Some(_) => Err("added_tokens: not an array of tokens of the vocabulary".into()),
    }
}

fn check_added(token: &mut Value, vocab_size: usize) -> Result<(String, u32), String> {
    let wrong = || String::from("added_tokens: one has no text, or no number in the vocabulary");
    let token = token.as_object_mut().ok_or_else(wrong)?;
    let text = token.get("content").and_then(Value::as_str).ok_or_else(wrong)?.to_owned();
    let id = token.get("id").and_then(Value::as_u64).and_then(|id| u32::try_from(id).ok()).ok_or_else(wrong)?;
    if text.is_empty() || text.len() > TOKEN_BYTES_MAX || id as usize >= vocab_size {
        return Err(wrong());
    }
    if token.get("special") == Some(&Value::Bool(true)) || super::looks_like_marker(&text) {
        token.insert("normalized".into(), Value::Bool(false));
    }
    Ok((text, id))
}

fn check_part(part: &Value, known: &[&str], left: &mut usize) -> Result<(), String> {
    *left = left.checked_sub(1).ok_or_else(|| format!("more than {PARTS_MAX} parts"))?;
    let part = part.as_object().ok_or("a part is not an object")?;
    let kind = part.get("type").and_then(Value::as_str).ok_or("a part has no type")?;
    if !known.contains(&kind) {
        return Err(format!("{kind:?} is not supported"));
    }
    let length = |field: &str| part.get(field).and_then(Value::as_str).map(str::len);
    match kind {
        "Sequence" => {
            let lists = ["normalizers", "pretokenizers", "processors", "decoders"];
            let parts = lists.iter().find_map(|list| part.get(*list)).and_then(Value::as_array);
            parts.ok_or("a sequence without parts")?.iter().try_for_each(|part| check_part(part, known, left))
        }
        "Replace" if length("content").is_none_or(|bytes| bytes > INSERT_BYTES_MAX) => {
            Err("the content of a replacement is too long".into())
        }
        "Prepend" if length("prepend").is_none_or(|bytes| bytes == 0 || bytes > INSERT_BYTES_MAX) => {
            Err("what is prepended is empty or too long".into())
        }
        // Any more of them would run over short texts' ends in the library.
        "Strip" if part.get("stop").and_then(Value::as_u64).is_some_and(|stop| stop > 0) => {
            Err("stripping the ends of tokens is not supported".into())
        }
        "Replace" | "Split" => check_pattern(part.get("pattern")),
        _ => Ok(()),
    }
}

fn check_pattern(pattern: Option<&Value>) -> Result<(), String> {
    let pattern = pattern.and_then(|pattern| pattern.get("Regex").or_else(|| pattern.get("String")));
    match pattern.and_then(Value::as_str) {
        Some(pattern) if (1..=REGEX_BYTES_MAX).contains(&pattern.len()) => Ok(()),
        _ => Err("a pattern is empty or too long".into()),
    }
}

fn check_model(model: &Map<String, Value>, vocab_size: usize) -> Result<(), String> {
    let vocab = model.get("vocab").and_then(Value::as_object).ok_or("no vocabulary")?;
    let mut ids = BTreeSet::new();
    for (text, id) in vocab {
        let id = id.as_u64().and_then(|id| usize::try_from(id).ok());
        if text.is_empty() || text.len() > TOKEN_BYTES_MAX {
            return Err(format!("token {id:?} has no text, or one of more than {TOKEN_BYTES_MAX} bytes"));
        }
        if !id.is_some_and(|id| id < vocab_size && ids.insert(id)) {
            return Err(format!("token {text:?} has a number that is taken, or beyond the model's vocabulary"));
        }
    }
    let empty = |field: &str| model.get(field).and_then(Value::as_str).is_none_or(str::is_empty);
    // Files without a type are old ones of this kind.
    match model.get("type").and_then(Value::as_str).unwrap_or("BPE") {
        "BPE" => {
            if model.get("dropout").and_then(Value::as_f64).is_some_and(|dropout| dropout != 0.0) {
                return Err("dropout makes tokens random".into());
            }
            if !empty("continuing_subword_prefix") || !empty("end_of_word_suffix") {
                return Err("marks at the ends of subwords are not supported".into());
            }
            let merges = model.get("merges").and_then(Value::as_array).ok_or("no merges")?;
            let mut joined = String::new();
            for merge in merges {
                let parts = match merge {
                    Value::String(merge) => merge.split_once(' '),
                    Value::Array(pair) => match pair.as_slice() {
                        [Value::String(a), Value::String(b)] => Some((a.as_str(), b.as_str())),
                        _ => None,
                    },
                    _ => None,
                };
                let (a, b) = parts.ok_or_else(|| format!("{merge} is not a merge"))?;
                joined.clear();
                joined.push_str(a);
                joined.push_str(b);
                if ![a, b, joined.as_str()].iter().all(|part| vocab.contains_key(*part)) {
                    return Err(format!("merge {merge} is not of tokens of the vocabulary"));
                }
            }
            Ok(())
        }
        "WordPiece" => match model.get("unk_token").and_then(Value::as_str) {
            Some(unknown) if vocab.contains_key(unknown) => Ok(()),
            _ => Err("no token for unknown words".into()),
        },
        other => Err(format!("{other:?} is not supported, only \"BPE\" and \"WordPiece\"")),
    }
}
