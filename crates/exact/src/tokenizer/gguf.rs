//! The `tokenizer.json` that a GGUF file's vocabulary was made from.
//!
//! Three kinds of vocabulary are read, by the names that GGUF gives them: `gpt2` (byte-level BPE),
//! `llama` (SentencePiece BPE) and `bert` (WordPiece). For `gpt2` the file only names the way in
//! which texts are cut into words before the merges; the ways are known by the models that first
//! used them, and an unknown one is refused, since any guess would be wrong somewhere.

use super::json::TOKEN_BYTES_MAX;
use crate::{
    gguf::{Gguf, GgufError},
    tensors::LoadError,
};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// Most tokens of a vocabulary.
const TOKENS_MAX: usize = 1 << 20;
/// Most bytes of all tokens together; those of the largest vocabularies are about 2 MiB.
const VOCABULARY_BYTES_MAX: usize = 8 << 20;
/// Longest SentencePiece token, bytes. Real ones have up to 93.
const PIECE_BYTES_MAX: usize = 512;

/// GGUF's classes of tokens.
const UNKNOWN: i32 = 2;
const CONTROL: i32 = 3;
const USER_DEFINED: i32 = 4;

struct Vocabulary<'a> {
    tokens: Vec<&'a str>,
    types: Vec<i32>,
}

/// Builds the tokenizer's JSON.
pub(super) fn tokenizer_json(gguf: &Gguf<'_>) -> Result<Value, LoadError> {
    let key = "tokenizer.ggml.model";
    let vocabulary = Vocabulary::read(gguf)?;
    match gguf.str(key)?.ok_or_else(|| GgufError::key(key, "missing"))? {
        "gpt2" => byte_level_bpe(gguf, &vocabulary),
        "llama" => sentencepiece_bpe(gguf, &vocabulary),
        "bert" => word_piece(gguf, &vocabulary),
        other => {
            let why = format!("{other:?} is not read: gpt2, llama and bert are");
            Err(GgufError::key(key, why).into())
        }
    }
}

impl<'a> Vocabulary<'a> {
    fn read(gguf: &Gguf<'a>) -> Result<Self, LoadError> {
        let key = "tokenizer.ggml.tokens";
        let wrong = |why: String| LoadError::from(GgufError::key(key, why));
        let tokens = gguf.strs(key)?.ok_or_else(|| wrong("missing".into()))?;
        if tokens.is_empty() || tokens.len() > TOKENS_MAX {
            return Err(wrong(format!("{} tokens, not 1 to {TOKENS_MAX}", tokens.len())));
        }
        if tokens.iter().map(|token| token.len()).sum::<usize>() > VOCABULARY_BYTES_MAX {
            return Err(wrong(format!("more than {VOCABULARY_BYTES_MAX} bytes together")));
        }
        let mut seen = BTreeSet::new();
        for (id, token) in tokens.iter().enumerate() {
            if token.is_empty() || token.len() > TOKEN_BYTES_MAX {
                return Err(wrong(format!("token {id} is empty or longer than {TOKEN_BYTES_MAX} bytes")));
            }
            if !seen.insert(*token) {
                return Err(wrong(format!("token {id}, {token:?}, is there twice")));
            }
        }
        let key = "tokenizer.ggml.token_type";
        let types = match gguf.i32s(key)? {
            Some(types) if types.len() == tokens.len() => types,
            Some(types) => {
                return Err(GgufError::key(key, format!("{} types for {} tokens", types.len(), tokens.len())).into());
            }
            // Old files have none; the tokens around a text are special all the same.
            None => {
                let mut types = vec![1; tokens.len()];
                for name in ["bos", "eos"] {
                    let id = gguf.u32(&format!("tokenizer.ggml.{name}_token_id"))?;
                    if let Some(token_type) = id.and_then(|id| types.get_mut(id as usize)) {
                        *token_type = CONTROL;
                    }
                }
                types
            }
        };
        Ok(Self { tokens, types })
    }

    fn is_special(&self, id: usize) -> bool {
        [UNKNOWN, CONTROL].contains(&self.types[id])
    }

    /// Special tokens and those that users added, which are found in texts before anything else.
    fn added(&self) -> Vec<Value> {
        let added = |(id, token): (usize, &&str)| {
            let special = self.is_special(id);
            (special || self.types[id] == USER_DEFINED).then(|| {
                json!({"id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": false,
                    "normalized": false, "special": special})
            })
        };
        self.tokens.iter().enumerate().filter_map(added).collect()
    }

    fn numbered(&self) -> Map<String, Value> {
        self.tokens.iter().enumerate().map(|(id, token)| ((*token).to_owned(), Value::from(id))).collect()
    }
}

fn document(
    vocabulary: &Vocabulary<'_>,
    normalizer: Value,
    pre_tokenizer: Value,
    decoder: Value,
    model: Value,
) -> Value {
    json!({"version": "1.0", "added_tokens": vocabulary.added(), "normalizer": normalizer,
        "pre_tokenizer": pre_tokenizer, "post_processor": null, "decoder": decoder, "model": model})
}

fn bpe(
    vocab: Map<String, Value>,
    merges: Vec<Value>,
    unknown: Option<&str>,
    byte_fallback: bool,
    ignore: bool,
) -> Value {
    json!({"type": "BPE", "dropout": null, "unk_token": unknown, "continuing_subword_prefix": null,
        "end_of_word_suffix": null, "fuse_unk": unknown.is_some(), "byte_fallback": byte_fallback,
        "ignore_merges": ignore, "vocab": vocab, "merges": merges})
}

const LLAMA_3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN_2: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const TEKKEN: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const BLOOM: &str = r" ?[^(\s|.,!?…。，、।۔،)]+";
/// GPT-2's, without its last alternative, as llama.cpp's default has it.
const GPT_2_SHORT: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)";

/// How texts become words: the normalizer, the parts before the byte level, whether that one cuts
/// as GPT-2's does, and whether a word that is a token needs no merges.
struct PreTokenizer {
    normalizer: Value,
    parts: Vec<Value>,
    gpt_2: bool,
    ignore_merges: bool,
}

fn pre_tokenizer(name: &str) -> Option<PreTokenizer> {
    let split =
        |regex: &str| json!({"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": false});
    let plain = |parts: Vec<Value>| PreTokenizer {
        normalizer: Value::Null,
        gpt_2: parts.is_empty(),
        parts,
        ignore_merges: false,
    };
    let composed = |parts| PreTokenizer { normalizer: json!({"type": "NFC"}), ..plain(parts) };
    Some(match name {
        "llama-bpe" | "llama3" | "llama-v3" | "falcon3" => {
            PreTokenizer { ignore_merges: true, ..plain(vec![split(LLAMA_3)]) }
        }
        "tekken" => PreTokenizer { ignore_merges: true, ..plain(vec![split(TEKKEN)]) },
        "qwen2" | "deepseek-r1-qwen" => composed(vec![split(QWEN_2)]),
        "gpt-2" | "phi-2" => plain(Vec::new()),
        // GPT-NeoX's tokenizer, under the names of the first models that took it over.
        "mpt" | "olmo" => composed(Vec::new()),
        "smollm" | "starcoder" | "refact" => {
            PreTokenizer { gpt_2: true, ..plain(vec![json!({"type": "Digits", "individual_digits": true})]) }
        }
        "bloom" => plain(vec![split(BLOOM)]),
        "default" => plain([r"[\p{P}\$\+<=>\^~\|]+", GPT_2_SHORT, r"\p{N}+", "[0-9][0-9][0-9]"].map(split).to_vec()),
        _ => return None,
    })
}

fn byte_level_bpe(gguf: &Gguf<'_>, vocabulary: &Vocabulary<'_>) -> Result<Value, LoadError> {
    let key = "tokenizer.ggml.pre";
    let name = gguf.str(key)?.unwrap_or("default");
    let pre =
        pre_tokenizer(name).ok_or_else(|| GgufError::key(key, format!("the pre-tokenizer {name:?} is unknown")))?;
    let key = "tokenizer.ggml.add_space_prefix";
    if gguf.bool(key)? == Some(true) {
        return Err(GgufError::key(key, "not supported for this kind of vocabulary").into());
    }
    let key = "tokenizer.ggml.merges";
    let lines = gguf.strs(key)?.ok_or_else(|| GgufError::key(key, "missing"))?;
    let special: BTreeSet<&str> =
        (0..vocabulary.tokens.len()).filter(|id| vocabulary.is_special(*id)).map(|id| vocabulary.tokens[id]).collect();
    let mut merges = Vec::with_capacity(lines.len());
    for line in lines {
        // A merge's first part may itself start with a space.
        let at = line.char_indices().skip(1).find(|(_, char)| *char == ' ').map(|(at, _)| at);
        let at = at.ok_or_else(|| GgufError::key(key, format!("{line:?} is not a merge")))?;
        let (a, b) = (&line[..at], &line[at + 1..]);
        if !special.contains(format!("{a}{b}").as_str()) && !special.contains(a) && !special.contains(b) {
            merges.push(json!([a, b]));
        }
    }
    let byte_level =
        |regex: bool| json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": regex});
    let mut parts = pre.parts;
    parts.push(byte_level(pre.gpt_2));
    let model = bpe(vocabulary.numbered(), merges, None, false, pre.ignore_merges);
    let pre_tokenizer = json!({"type": "Sequence", "pretokenizers": parts});
    Ok(document(vocabulary, pre.normalizer, pre_tokenizer, byte_level(true), model))
}

/// SentencePiece joins the pair whose result scores highest; the same as merges in falling order of
/// score, which is how transformers converts such vocabularies.
fn sentencepiece_bpe(gguf: &Gguf<'_>, vocabulary: &Vocabulary<'_>) -> Result<Value, LoadError> {
    let key = "tokenizer.ggml.scores";
    let scores = gguf.f32s(key)?.ok_or_else(|| GgufError::key(key, "missing"))?;
    if scores.len() != vocabulary.tokens.len() || scores.iter().any(|score| score.is_nan()) {
        return Err(GgufError::key(key, "not one number for each token").into());
    }
    let key = "tokenizer.ggml.tokens";
    if let Some(id) = vocabulary.tokens.iter().position(|token| token.len() > PIECE_BYTES_MAX) {
        return Err(GgufError::key(key, format!("token {id} is longer than {PIECE_BYTES_MAX} bytes")).into());
    }
    let unknown = gguf.u32("tokenizer.ggml.unknown_token_id")?.unwrap_or(0) as usize;
    let unknown = *vocabulary.tokens.get(unknown).ok_or_else(|| GgufError::key(key, "no unknown token"))?;
    let byte_fallback = vocabulary.tokens.contains(&"<0x00>");
    let prefix = gguf.bool("tokenizer.ggml.add_space_prefix")?.unwrap_or(true);
    let spaces = json!({"type": "Replace", "pattern": {"String": " "}, "content": "▁"});
    let normalizer = match prefix {
        true => json!({"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}, spaces]}),
        false => spaces,
    };
    let mut decoders = vec![
        json!({"type": "Replace", "pattern": {"String": "▁"}, "content": " "}),
        json!({"type": "ByteFallback"}),
        json!({"type": "Fuse"}),
    ];
    if prefix {
        decoders.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
    }
    let merges = merges_of_scores(vocabulary, &scores);
    let model = bpe(vocabulary.numbered(), merges, Some(unknown), byte_fallback, false);
    Ok(document(vocabulary, normalizer, Value::Null, json!({"type": "Sequence", "decoders": decoders}), model))
}

fn merges_of_scores(vocabulary: &Vocabulary<'_>, scores: &[f32]) -> Vec<Value> {
    let usable = |id: &usize| !vocabulary.is_special(*id);
    let ids: BTreeMap<&str, usize> =
        (0..vocabulary.tokens.len()).filter(usable).map(|id| (vocabulary.tokens[id], id)).collect();
    let mut merges = Vec::new();
    for id in (0..vocabulary.tokens.len()).filter(usable) {
        let token = vocabulary.tokens[id];
        let splits = token.char_indices().skip(1).map(|(at, _)| token.split_at(at));
        let mut pairs: Vec<(usize, usize)> = splits.filter_map(|(a, b)| Some((*ids.get(a)?, *ids.get(b)?))).collect();
        pairs.sort_unstable();
        merges.extend(pairs.into_iter().map(|(a, b)| (scores[id], vocabulary.tokens[a], vocabulary.tokens[b])));
    }
    // A stable sort: among equals, the order of the vocabulary stays.
    let length = |text: &str| text.chars().count();
    merges.sort_by(|(score_a, a, b), (score_b, c, d)| {
        let scores = score_b.partial_cmp(score_a).expect("no score is NaN");
        scores.then_with(|| length(c).cmp(&length(a))).then_with(|| length(d).cmp(&length(b)))
    });
    merges.into_iter().map(|(_, a, b)| json!([a, b])).collect()
}

/// GGUF marks the starts of words, WordPiece their continuations.
fn word_piece(gguf: &Gguf<'_>, vocabulary: &Vocabulary<'_>) -> Result<Value, LoadError> {
    let key = "tokenizer.ggml.tokens";
    let piece = |token: &str| match token.strip_prefix('▁') {
        _ if token.starts_with('[') && token.ends_with(']') => token.to_owned(),
        Some(start) => start.to_owned(),
        None => format!("##{token}"),
    };
    let pieces: Vec<String> = vocabulary.tokens.iter().map(|token| piece(token)).collect();
    let special = |names: &[&str], text: &str| -> Result<(usize, String), LoadError> {
        for name in names {
            if let Some(id) = gguf.u32(&format!("tokenizer.ggml.{name}_token_id"))? {
                let token = pieces.get(id as usize).ok_or_else(|| GgufError::key(name, "not in the vocabulary"))?;
                return Ok((id as usize, token.clone()));
            }
        }
        let id = pieces.iter().position(|piece| piece == text);
        Ok((id.ok_or_else(|| GgufError::key(key, format!("no {text}")))?, text.to_owned()))
    };
    let (_, unknown) = special(&["unknown"], "[UNK]")?;
    let (cls_id, cls) = special(&["cls", "bos"], "[CLS]")?;
    // The key is misspelt in the format itself; some files have it right.
    let (sep_id, sep) = special(&["seperator", "separator", "eos"], "[SEP]")?;
    let added: Vec<Value> = pieces
        .iter()
        .enumerate()
        .filter(|(id, piece)| {
            vocabulary.is_special(*id)
                || [&unknown, &cls, &sep].contains(piece)
                || ["[PAD]", "[MASK]"].contains(&piece.as_str())
        })
        .map(|(id, piece)| {
            json!({"id": id, "content": piece, "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": true})
        })
        .collect();
    let vocab: Map<String, Value> = pieces.iter().enumerate().map(|(id, piece)| (piece.clone(), id.into())).collect();
    if vocab.len() != pieces.len() {
        return Err(GgufError::key(key, "two tokens are the same").into());
    }
    let lowercase = gguf.bool("tokenizer.ggml.normalizer.lowercase")?.unwrap_or(true);
    Ok(json!({"version": "1.0", "added_tokens": added,
        "normalizer": {"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
            "strip_accents": null, "lowercase": lowercase},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {"type": "BertProcessing", "sep": [sep, sep_id], "cls": [cls, cls_id]},
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": true},
        "model": {"type": "WordPiece", "unk_token": unknown, "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100, "vocab": vocab}}))
}
