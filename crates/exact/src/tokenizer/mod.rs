//! From text to tokens and back, for `tokenizer.json` and for the vocabularies inside GGUF files.
//!
//! Both come to the same [`Tokenizer`]: a GGUF vocabulary is first written as the `tokenizer.json`
//! that its maker had, so that a model has the same tokens whichever file it came in.
//!
//! A prompt is read in two ways. In the markers that a template writes, special tokens are
//! recognised. In what strangers wrote they are plain letters: a text never yields a special token,
//! and this is checked on every text, whatever the vocabulary's maker had in mind.

mod gguf;
mod json;

use crate::{generate::PromptPart, gguf::Gguf, tensors::LoadError};
use std::collections::BTreeSet;
use tokenizers::{AddedToken, Tokenizer};

/// Largest `tokenizer.json`, bytes. Those of vocabularies with 262,000 tokens are about 33 MiB.
pub const JSON_BYTES_MAX: usize = 64 << 20;

/// Why a text has no tokens, or tokens no text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenizeError {
    #[error("the text cannot be tokenized: {0}")]
    Text(String),
    #[error("token {0} is not in the vocabulary")]
    UnknownToken(u32),
    #[error("a plain text would become the special token {0}")]
    SpecialToken(u32),
}

/// A model's tokenizer in both readings.
#[derive(Clone, Debug)]
pub struct TextTokenizer {
    tokenizer: Tokenizer,
    /// The same, to which special tokens are plain text.
    plain: Tokenizer,
    /// Tokens that no plain text may become.
    special: BTreeSet<u32>,
    /// Their texts.
    markers: Vec<String>,
    vocab_size: usize,
}

impl TextTokenizer {
    /// Reads a `tokenizer.json` for a model of `vocab_size` tokens.
    ///
    /// # Errors
    /// [`LoadError::Tokenizer`] if it is malformed, too large, has tokens that the model has not, or
    /// parts that are not known to give the same tokens everywhere.
    pub fn from_json(json: &[u8], vocab_size: usize) -> Result<Self, LoadError> {
        if json.len() > JSON_BYTES_MAX {
            let why = format!("{} bytes, at most {JSON_BYTES_MAX} are read", json.len());
            return Err(LoadError::Tokenizer(why));
        }
        let fail = |error: serde_json::Error| LoadError::Tokenizer(error.to_string());
        let value = serde_json::from_slice(json).map_err(fail)?;
        Self::from_value(value, vocab_size).map_err(LoadError::Tokenizer)
    }

    /// Builds the tokenizer of a GGUF file for a model of `vocab_size` tokens.
    ///
    /// # Errors
    /// What about the vocabulary is missing, malformed or not supported.
    pub fn from_gguf(gguf: &Gguf<'_>, vocab_size: usize) -> Result<Self, LoadError> {
        Self::from_value(gguf::tokenizer_json(gguf)?, vocab_size).map_err(LoadError::Tokenizer)
    }

    fn from_value(mut value: serde_json::Value, vocab_size: usize) -> Result<Self, String> {
        let expected = json::check(&mut value, vocab_size)?;
        // The checks cover what is known to panic in the library; what is not known stays here.
        let read = std::panic::catch_unwind(|| serde_json::from_value::<Tokenizer>(value));
        let tokenizer = read.map_err(|_| "malformed")?.map_err(|error| error.to_string())?;
        for (text, id) in &expected {
            if tokenizer.token_to_id(text) != Some(*id) {
                return Err(format!("the added token {text:?} does not have its number {id}"));
            }
        }
        let unknown = unknown_token(&tokenizer);
        let mut added: Vec<(u32, AddedToken)> = tokenizer.get_added_tokens_decoder().into_iter().collect();
        added.sort_unstable_by_key(|(id, _)| *id);
        added.retain(|(_, token)| token.special || looks_like_marker(&token.content));
        let mut plain = tokenizer.clone();
        let markers = added.iter().map(|(_, token)| token.content.clone()).collect();
        let special = added.iter().map(|(id, _)| *id).filter(|id| Some(*id) != unknown).collect();
        let hidden = added.into_iter().map(|(_, token)| AddedToken { special: true, ..token });
        plain.add_special_tokens(hidden).map_err(|error| error.to_string())?;
        plain.set_encode_special_tokens(true);
        Ok(Self { tokenizer, plain, special, markers, vocab_size })
    }

    /// The tokens of a prompt: its parts' tokens, one part after the other.
    ///
    /// # Errors
    /// If the tokenizer fails, or a [`PromptPart::Text`] would become a special token.
    pub fn encode(&self, prompt: &[PromptPart]) -> Result<Vec<u32>, TokenizeError> {
        let mut tokens = Vec::new();
        for part in prompt {
            match part {
                PromptPart::Markers(text) => tokens.extend(self.ids(&self.tokenizer, text, false)?),
                PromptPart::Text(text) => {
                    let ids = self.ids(&self.plain, text, false)?;
                    if let Some(id) = ids.iter().find(|id| self.special.contains(id)) {
                        return Err(TokenizeError::SpecialToken(*id));
                    }
                    tokens.extend(ids);
                }
            }
        }
        Ok(tokens)
    }

    /// The tokens of a plain text with those that the model expects around it, such as `[CLS]` and
    /// `[SEP]`: what embedding models take.
    ///
    /// # Errors
    /// If the tokenizer fails, or the text would become a special token.
    pub fn encode_whole(&self, text: &str) -> Result<Vec<u32>, TokenizeError> {
        self.encode(&[PromptPart::Text(text.to_owned())])?;
        self.ids(&self.plain, text, true)
    }

    fn ids(&self, tokenizer: &Tokenizer, text: &str, around: bool) -> Result<Vec<u32>, TokenizeError> {
        let encoding = tokenizer.encode_fast(text, around).map_err(|error| TokenizeError::Text(error.to_string()))?;
        let ids = encoding.get_ids();
        match ids.iter().find(|id| **id as usize >= self.vocab_size) {
            Some(id) => Err(TokenizeError::UnknownToken(*id)),
            None => Ok(ids.to_vec()),
        }
    }

    /// Whether the vocabulary's maker has every text start with this token.
    pub fn adds_first(&self, token: u32) -> bool {
        self.tokenizer.encode_fast("", true).is_ok_and(|encoding| encoding.get_ids().first() == Some(&token))
    }

    /// The text of an answer; special tokens are left out.
    ///
    /// # Errors
    /// If the tokenizer fails.
    pub fn decode(&self, tokens: &[u32]) -> Result<String, TokenizeError> {
        self.tokenizer.decode(tokens, true).map_err(|error| TokenizeError::Text(error.to_string()))
    }

    /// The text of one token as the vocabulary writes it.
    pub fn token_text(&self, token: u32) -> Option<String> {
        self.tokenizer.id_to_token(token)
    }

    /// Texts that become special tokens, or tokens that look like markers, in [`PromptPart::Markers`].
    pub fn markers(&self) -> &[String] {
        &self.markers
    }

    /// The tokenizer that recognises special tokens.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// The tokenizer to which special tokens are plain text.
    pub fn plain(&self) -> &Tokenizer {
        &self.plain
    }
}

/// The token of what the vocabulary cannot say, which plain texts may well become.
fn unknown_token(tokenizer: &Tokenizer) -> Option<u32> {
    use tokenizers::ModelWrapper::{BPE, WordPiece};
    let text = match tokenizer.get_model() {
        BPE(model) => model.unk_token.clone()?,
        WordPiece(model) => model.unk_token.clone(),
        _ => return None,
    };
    tokenizer.token_to_id(&text)
}

/// Whether an added token that its vocabulary does not call special is one in all likelihood: many
/// fine-tuned models add the markers of their templates as ordinary words.
fn looks_like_marker(text: &str) -> bool {
    let between = |open: char, close: char| text.len() > 2 && text.starts_with(open) && text.ends_with(close);
    between('<', '>') || (between('[', ']') && !text.contains(' '))
}
