//! The numbers of a model that decide what is computed, from Hugging Face's `config.json` or from
//! the metadata of a GGUF file.
//!
//! Configs come from strangers. Every number is bounded on its own and with the others, so that
//! nothing computed from them can overflow or ask for absurd memory. A setting that would change
//! the computation and is not computed here is refused by name: a model that runs with other maths
//! than its maker's would give wrong answers that all machines agree on.

mod bert;
mod gguf;
mod hf;
mod others;
mod rope;

pub use bert::{BertConfig, Pooling};
pub use others::{Activation, BloomConfig, GptNeoxConfig};

use crate::{
    gguf::Gguf,
    rope::{RopeConfig, RopePairs},
    tensors::LoadError,
};
#[cfg(feature = "text")]
use crate::{template::TokenizerConfig, tokenizer::TextTokenizer};

/// Most of each number; see [`LlamaConfig::check`].
pub(crate) const VOCAB_MAX: usize = 1 << 20;
pub(crate) const HIDDEN_MAX: usize = 1 << 16;
pub(crate) const FFN_MAX: usize = 1 << 18;
pub(crate) const LAYERS_MAX: usize = 512;
pub(crate) const HEADS_MAX: usize = 1 << 10;
pub(crate) const HEAD_DIM_MAX: usize = 1 << 10;
pub(crate) const CONTEXT_MAX: usize = 1 << 20;
/// Most elements of one matrix: far above real ones, far below overflow.
const MATRIX_ELEMENTS_MAX: usize = if usize::BITS < 64 { 1 << 28 } else { 1 << 34 };

/// The numbers of a model of the Llama family.
#[derive(Clone, Debug, PartialEq)]
pub struct LlamaConfig {
    pub vocab_size: usize,
    pub hidden_size: usize,
    pub intermediate_size: usize,
    pub layers: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
    /// Longest sequence, prompt and completion together, tokens. Where attention slides over a
    /// window, the window: within it every token sees all earlier ones, as is computed here.
    pub context_tokens: usize,
    pub rms_norm_eps: f32,
    pub rope_theta: f64,
    /// What each of the `head_dim / 2` rotary frequencies is divided by, rounded once to f32, which
    /// is how GGUF files store it; empty if nothing is.
    pub rope_divisors: Vec<f32>,
    /// Whether rotary pairs are elements 2i and 2i + 1 of a head (GGUF's `llama`, whose query and
    /// key rows are permuted for it), instead of i and i + `head_dim / 2`.
    pub rope_interleaved: bool,
    /// Whether query, key and value projections have biases (Qwen 2).
    pub qkv_bias: bool,
    /// Whether queries and keys are normed by head before the rotation (Qwen 3).
    pub qk_norm: bool,
    /// Whether the output head is the embedding.
    pub tied: bool,
    pub special: SpecialTokens,
}

/// The tokens that begin and end texts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpecialTokens {
    /// The token before every text, if the vocabulary has one.
    pub bos: Option<u32>,
    /// Whether `bos` goes before a plain text. Chat templates write theirs themselves.
    pub add_bos: bool,
    /// Tokens that end an answer, ascending, at least one.
    pub eos: Vec<u32>,
}

/// The numbers of a model that continues text, of any family.
#[derive(Clone, Debug, PartialEq)]
pub enum DecoderConfig {
    Llama(LlamaConfig),
    GptNeox(GptNeoxConfig),
    Bloom(BloomConfig),
}

impl DecoderConfig {
    /// Reads and checks `config.json`, whose `model_type` decides the family.
    ///
    /// # Errors
    /// [`LoadError::Config`] if it is malformed, out of bounds, or asks for what is not computed here.
    pub fn parse(json: &[u8]) -> Result<Self, LoadError> {
        Ok(match hf::model_type(json)?.as_str() {
            "gpt_neox" => Self::GptNeox(GptNeoxConfig::parse(json)?),
            "bloom" => Self::Bloom(BloomConfig::parse(json)?),
            _ => Self::Llama(LlamaConfig::parse(json)?),
        })
    }

    /// Reads and checks the metadata of a GGUF file, whose `general.architecture` decides the family.
    ///
    /// # Errors
    /// What is missing, out of bounds, or not computed here.
    pub fn from_gguf(gguf: &Gguf<'_>) -> Result<Self, LoadError> {
        Ok(match gguf.str("general.architecture")? {
            Some("gptneox") => Self::GptNeox(GptNeoxConfig::from_gguf(gguf)?),
            Some("bloom") => Self::Bloom(BloomConfig::from_gguf(gguf)?),
            _ => Self::Llama(LlamaConfig::from_gguf(gguf)?),
        })
    }

    /// Tokens that the model knows.
    pub fn vocab_size(&self) -> usize {
        match self {
            Self::Llama(config) => config.vocab_size,
            Self::GptNeox(config) => config.vocab_size,
            Self::Bloom(config) => config.vocab_size,
        }
    }

    /// The tokens that begin and end texts.
    pub fn special(&self) -> &SpecialTokens {
        match self {
            Self::Llama(config) => &config.special,
            Self::GptNeox(config) => &config.special,
            Self::Bloom(config) => &config.special,
        }
    }
}

/// A number out of bounds: the field's name in the file, and what is wrong.
#[derive(Debug)]
pub(crate) struct Wrong {
    pub field: &'static str,
    pub why: String,
}

impl Wrong {
    pub(crate) fn new(field: &'static str, why: impl Into<String>) -> Self {
        Self { field, why: why.into() }
    }

    /// As an error about `config.json`.
    pub(crate) fn in_json(self) -> LoadError {
        LoadError::Config(format!("{}: {}", self.field, self.why))
    }

    /// As an error about GGUF metadata. Fields are named as in `config.json`, which both kinds of
    /// file are brought to before they are checked.
    pub(crate) fn in_gguf(self) -> LoadError {
        LoadError::Config(format!("(from GGUF metadata) {}: {}", self.field, self.why))
    }
}

/// Checks that each number is between 1 and its most.
pub(crate) fn within(bounds: &[(&'static str, usize, usize)]) -> Result<(), Wrong> {
    match bounds.iter().find(|(_, value, max)| *value == 0 || value > max) {
        Some((field, value, max)) => Err(Wrong::new(field, format!("{value} is not between 1 and {max}"))),
        None => Ok(()),
    }
}

/// Whether a matrix would have too many elements.
pub(crate) fn too_large(n: usize, k: usize) -> bool {
    n.checked_mul(k).is_none_or(|elements| elements > MATRIX_ELEMENTS_MAX)
}

/// Checks the epsilon of a norm and rounds it.
pub(crate) fn epsilon(field: &'static str, value: f64) -> Result<f32, Wrong> {
    #[allow(clippy::cast_possible_truncation)] // rounding to f32 is what the contract says
    let rounded = value as f32;
    if value < 1.0 && rounded > 0.0 { Ok(rounded) } else { Err(Wrong::new(field, format!("{value} is out of range"))) }
}

pub(crate) fn theta(value: f64) -> Result<f64, Wrong> {
    if (1.0..=1e12).contains(&value) {
        Ok(value)
    } else {
        Err(Wrong::new("rope_theta", format!("{value} is out of range")))
    }
}

impl LlamaConfig {
    /// Its rotary positions.
    pub fn rope(&self) -> RopeConfig {
        let divisors = self.rope_divisors.iter().map(|divisor| f64::from(*divisor)).collect::<Vec<_>>();
        RopeConfig {
            pairs: if self.rope_interleaved { RopePairs::Interleaved } else { RopePairs::Halves },
            factors: (!divisors.is_empty()).then_some(divisors),
            ..RopeConfig::plain(self.rope_theta)
        }
    }

    /// Checks all numbers, each and jointly.
    fn check(&self) -> Result<(), Wrong> {
        within(&[
            ("vocab_size", self.vocab_size, VOCAB_MAX),
            ("hidden_size", self.hidden_size, HIDDEN_MAX),
            ("intermediate_size", self.intermediate_size, FFN_MAX),
            ("num_hidden_layers", self.layers, LAYERS_MAX),
            ("num_attention_heads", self.heads, HEADS_MAX),
            ("num_key_value_heads", self.kv_heads, HEADS_MAX),
            ("head_dim", self.head_dim, HEAD_DIM_MAX),
            ("max_position_embeddings", self.context_tokens, CONTEXT_MAX),
        ])?;
        if !self.heads.is_multiple_of(self.kv_heads) {
            let why = format!("{} heads cannot share {} key-value heads", self.heads, self.kv_heads);
            return Err(Wrong::new("num_key_value_heads", why));
        }
        if !self.head_dim.is_multiple_of(2) {
            return Err(Wrong::new("head_dim", format!("{} is odd", self.head_dim)));
        }
        if self.heads * self.head_dim > HIDDEN_MAX {
            return Err(Wrong::new("head_dim", format!("heads × head_dim is above {HIDDEN_MAX}")));
        }
        let widest = self.vocab_size.max(self.intermediate_size).max(self.heads * self.head_dim);
        if too_large(widest, self.hidden_size) {
            return Err(Wrong::new("hidden_size", format!("a matrix would have above {MATRIX_ELEMENTS_MAX} elements")));
        }
        epsilon("rms_norm_eps", f64::from(self.rms_norm_eps))?;
        theta(self.rope_theta)?;
        let divisors = &self.rope_divisors;
        if !divisors.is_empty() && divisors.len() != self.head_dim / 2 {
            return Err(Wrong::new(
                "rope_scaling",
                format!("{} divisors for {} pairs", divisors.len(), self.head_dim / 2),
            ));
        }
        if divisors.iter().any(|divisor| !(1e-6..=1e6).contains(divisor)) {
            return Err(Wrong::new("rope_scaling", "a divisor of a frequency is out of range"));
        }
        self.special.check(self.vocab_size)
    }
}

impl SpecialTokens {
    /// Those of `config.json`; what begins a text is known from the tokenizer.
    fn from_hf(bos: Option<u32>, eos: Option<hf::Tokens>) -> Self {
        let mut eos = eos.map(hf::Tokens::into_vec).unwrap_or_default();
        eos.sort_unstable();
        eos.dedup();
        Self { bos, add_bos: false, eos }
    }

    fn check(&self, vocab_size: usize) -> Result<(), Wrong> {
        let inside = |token: &u32| usize::try_from(*token).is_ok_and(|token| token < vocab_size);
        if self.eos.is_empty() || self.eos.len() > 64 || !self.eos.iter().all(inside) {
            return Err(Wrong::new("eos_token_id", "not 1 to 64 tokens of the vocabulary"));
        }
        if !self.bos.iter().all(inside) {
            return Err(Wrong::new("bos_token_id", "not in the vocabulary"));
        }
        if self.add_bos && self.bos.is_none() {
            return Err(Wrong::new("bos_token_id", "a text is to start with a token that is not named"));
        }
        Ok(())
    }

    /// Adds the tokens that end an answer from `generation_config.json`, where instruction-tuned
    /// models often name more of them than in `config.json`.
    ///
    /// # Errors
    /// [`LoadError::Config`] if it is malformed or names a token outside the vocabulary.
    pub fn add_generation_config(&mut self, json: &[u8], vocab_size: usize) -> Result<(), LoadError> {
        #[derive(serde::Deserialize)]
        struct Generation {
            eos_token_id: Option<hf::Tokens>,
        }
        let fail = |why: String| LoadError::Config(format!("generation_config.json: {why}"));
        let generation: Generation = serde_json::from_slice(json).map_err(|error| fail(error.to_string()))?;
        self.eos.extend(generation.eos_token_id.map(hf::Tokens::into_vec).unwrap_or_default());
        self.eos.sort_unstable();
        self.eos.dedup();
        self.check(vocab_size).map_err(|wrong| fail(format!("{}: {}", wrong.field, wrong.why)))
    }

    /// Sets whether texts start with `bos`, as `tokenizer_config.json` says, or, where it is silent,
    /// as the tokenizer itself does.
    #[cfg(feature = "text")]
    pub fn set_add_bos(&mut self, config: &TokenizerConfig, tokenizer: &TextTokenizer) {
        let adds = |bos| config.add_bos_token.unwrap_or_else(|| tokenizer.adds_first(bos));
        self.add_bos = self.bos.is_some_and(adds);
    }
}
