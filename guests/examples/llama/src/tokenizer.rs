//! Byte-level BPE, as `tokenizer.json` has it: text is cut into words as GPT-2 does it, words into bytes, and
//! the bytes that were merged most often in training are merged again, in that order.

use serde::Deserialize;
use std::collections::BTreeMap;

/// The parts of `tokenizer.json` that are needed.
#[derive(Debug, Deserialize)]
pub struct File {
    added_tokens: Vec<Added>,
    model: Model,
}

#[derive(Debug, Deserialize)]
struct Added {
    id: u32,
    content: String,
}

#[derive(Debug, Deserialize)]
struct Model {
    vocab: BTreeMap<String, u32>,
    merges: Vec<Merge>,
}

/// Written in two ways.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Merge {
    Pair([String; 2]),
    Text(String),
}

pub struct Tokenizer {
    special: BTreeMap<String, u32>,
    /// The token of each byte.
    bytes: [u32; 256],
    /// The bytes of each token.
    texts: BTreeMap<u32, Vec<u8>>,
    /// What two tokens become, and how early.
    merges: BTreeMap<(u32, u32), (usize, u32)>,
}

/// The letter that stands for a byte: itself where it is visible, one from 0x100 on where it is not.
fn letters() -> Vec<char> {
    let visible = |byte: u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    let mut next = 0x100;
    let letter = |byte: u8| {
        if visible(byte) {
            return char::from(byte);
        }
        next += 1;
        char::from_u32(next - 1).expect("letters of Latin Extended")
    };
    (0..=255).map(letter).collect()
}

impl Tokenizer {
    pub fn new(File { added_tokens, model: Model { vocab, merges } }: File) -> Self {
        let letters = letters();
        let byte =
            |letter: char| letters.iter().position(|other| *other == letter).and_then(|byte| u8::try_from(byte).ok());
        let token = |text: &str| vocab.get(text).copied().unwrap_or(0);
        let mut bytes = [0; 256];
        for (token_of, letter) in bytes.iter_mut().zip(&letters) {
            *token_of = token(letter.encode_utf8(&mut [0; 4]));
        }
        let texts = vocab.iter().map(|(text, token)| (*token, text.chars().filter_map(byte).collect())).collect();
        let pair = |(rank, merge): (usize, Merge)| {
            let (one, other) = match merge {
                Merge::Pair([one, other]) => (one, other),
                Merge::Text(text) => text.split_once(' ').map(|(one, other)| (one.to_owned(), other.to_owned()))?,
            };
            Some(((token(&one), token(&other)), (rank, token(&format!("{one}{other}")))))
        };
        Self {
            special: added_tokens.into_iter().map(|added| (added.content, added.id)).collect(),
            bytes,
            texts,
            merges: merges.into_iter().enumerate().filter_map(pair).collect(),
        }
    }

    /// The special token of this text.
    pub fn special(&self, text: &str) -> Option<u32> {
        self.special.get(text).copied()
    }

    /// What a token says; special ones say nothing.
    pub fn bytes(&self, token: u32) -> &[u8] {
        if self.special.values().any(|special| *special == token) {
            return &[];
        }
        self.texts.get(&token).map_or(&[], Vec::as_slice)
    }

    /// Adds the tokens of a text; none of them is special.
    pub fn encode(&self, text: &str, tokens: &mut Vec<u32>) {
        let mut rest = text;
        while !rest.is_empty() {
            let (word, others) = rest.split_at(word_len(rest));
            self.encode_word(word, tokens);
            rest = others;
        }
    }

    fn encode_word(&self, word: &str, tokens: &mut Vec<u32>) {
        let mut parts: Vec<u32> = word.bytes().map(|byte| self.bytes[usize::from(byte)]).collect();
        loop {
            let pairs = parts.windows(2).enumerate();
            let merges = pairs.filter_map(|(at, pair)| self.merges.get(&(pair[0], pair[1])).map(|merge| (*merge, at)));
            let Some(((_, token), at)) = merges.min() else { break };
            parts.splice(at..at + 2, [token]);
        }
        tokens.extend(parts);
    }
}

/// Bytes of the first word: `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`.
fn word_len(text: &str) -> usize {
    for ending in ["'s", "'t", "'re", "'ve", "'m", "'ll", "'d"] {
        if text.starts_with(ending) {
            return ending.len();
        }
    }
    let letter = |c: char| c.is_alphabetic();
    let number = |c: char| c.is_numeric();
    let other = |c: char| !c.is_whitespace() && !letter(c) && !number(c);
    let space = usize::from(text.starts_with(' '));
    for class in [&letter as &dyn Fn(char) -> bool, &number, &other] {
        let run = text[space..].find(|c| !class(c)).unwrap_or(text.len() - space);
        if run > 0 {
            return space + run;
        }
    }
    let spaces = text.find(|c: char| !c.is_whitespace()).unwrap_or(text.len());
    // The last space before a word belongs to that word.
    match text[..spaces].char_indices().next_back() {
        Some((last, _)) if spaces < text.len() && last > 0 => last,
        _ => spaces,
    }
}
