//! Configs of the other families that continue text, GPT-NeoX (Pythia) and Bloom, and what they
//! share with [`super::bert`].

use super::{
    SpecialTokens, Wrong, epsilon,
    gguf::{Must, Section, special_tokens},
    hf::Tokens,
    within,
};
use crate::{gguf::Gguf, gguf::GgufError, tensors::LoadError};
use serde::Deserialize;
use serde_json::Value;

/// The nonlinearity of the feed-forward layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// `x·Φ(x)`, by the error function.
    Gelu,
    /// Its approximation by tanh.
    GeluTanh,
}

impl Activation {
    pub(super) fn parse(name: &str) -> Result<Self, Wrong> {
        match name {
            "gelu" => Ok(Self::Gelu),
            "gelu_new" | "gelu_fast" | "gelu_pytorch_tanh" => Ok(Self::GeluTanh),
            other => Err(Wrong::new("hidden_act", format!("{other:?} is not computed here"))),
        }
    }
}

/// Bounds that all families share.
pub(super) fn check_sizes(
    vocab: usize,
    hidden: usize,
    ffn: usize,
    layers: usize,
    heads: usize,
    context: usize,
) -> Result<(), Wrong> {
    within(&[
        ("vocab_size", vocab, super::VOCAB_MAX),
        ("hidden_size", hidden, super::HIDDEN_MAX),
        ("intermediate_size", ffn, super::FFN_MAX),
        ("num_hidden_layers", layers, super::LAYERS_MAX),
        ("num_attention_heads", heads, super::HEADS_MAX),
        ("max_position_embeddings", context, super::CONTEXT_MAX),
    ])?;
    if !hidden.is_multiple_of(heads) || hidden / heads > super::HEAD_DIM_MAX {
        return Err(Wrong::new("hidden_size", format!("{hidden} cannot be split into {heads} heads")));
    }
    if super::too_large(vocab.max(ffn).max(3 * hidden), hidden) {
        return Err(Wrong::new("hidden_size", "a matrix would be too large"));
    }
    Ok(())
}

pub(super) fn from_json<'a, T: Deserialize<'a>>(json: &'a [u8], model_type: &str) -> Result<T, LoadError> {
    #[derive(Deserialize)]
    struct Typed {
        model_type: String,
        quantization_config: Option<Value>,
    }
    let fail = |error: serde_json::Error| LoadError::Config(error.to_string());
    let typed: Typed = serde_json::from_slice(json).map_err(fail)?;
    if typed.model_type != model_type {
        return Err(Wrong::new("model_type", format!("{:?} is not {model_type:?}", typed.model_type)).in_json());
    }
    if typed.quantization_config.is_some() {
        return Err(Wrong::new("quantization_config", "use the unquantised weights").in_json());
    }
    serde_json::from_slice(json).map_err(fail)
}

/// A section of the expected architecture with nothing in it but `keys`.
pub(super) fn section<'a>(
    gguf: &'a Gguf<'a>,
    architecture: &str,
    keys: &[(&str, Must)],
) -> Result<Section<'a>, LoadError> {
    let section = Section::new(gguf)?;
    if section.architecture != architecture {
        let why = format!("{:?} is not {architecture:?}", section.architecture);
        return Err(GgufError::key("general.architecture", why).into());
    }
    section.refuse_other_maths(keys)?;
    Ok(section)
}

const SIZES: [(&str, Must); 6] = [
    ("context_length", Must::Any),
    ("embedding_length", Must::Any),
    ("block_count", Must::Any),
    ("feed_forward_length", Must::Any),
    ("attention.head_count", Must::Any),
    ("attention.layer_norm_epsilon", Must::Any),
];

pub(super) fn keys(more: &[(&'static str, Must)]) -> Vec<(&'static str, Must)> {
    SIZES.iter().chain(more).copied().collect()
}

/// The epsilon of a GGUF file's layer norms.
pub(super) fn gguf_epsilon(section: &Section<'_>) -> Result<f32, LoadError> {
    let name = "attention.layer_norm_epsilon";
    let value = section.float(name)?.ok_or_else(|| GgufError::key(&section.key(name), "missing"))?;
    epsilon("layer_norm_eps", value).map_err(Wrong::in_gguf)
}

/// The numbers of a GPT-NeoX model: layer norms with biases, partly rotated heads, attention and
/// feed-forward in parallel or in turn.
#[derive(Clone, Debug, PartialEq)]
pub struct GptNeoxConfig {
    pub vocab_size: usize,
    pub hidden_size: usize,
    pub intermediate_size: usize,
    pub layers: usize,
    pub heads: usize,
    pub context_tokens: usize,
    pub layer_norm_eps: f32,
    /// Elements of a head that are rotated, the first ones; pairs are i and i + half of them.
    pub rotary_dim: usize,
    pub rope_theta: f64,
    /// `x + attention(norm₁ x) + mlp(norm₂ x)` instead of one after the other.
    pub parallel_residual: bool,
    pub activation: Activation,
    pub tied: bool,
    /// Whether the joint projection's rows go head by head (q, k, v of head 0, then of head 1, …),
    /// as in Hugging Face's files, instead of all queries, all keys, all values, as in GGUF's.
    pub qkv_by_head: bool,
    pub special: SpecialTokens,
}

#[derive(Deserialize)]
struct HfGptNeox {
    vocab_size: usize,
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    max_position_embeddings: usize,
    layer_norm_eps: f64,
    hidden_act: String,
    rotary_pct: Option<f64>,
    rotary_emb_base: Option<f64>,
    rope_theta: Option<f64>,
    rope_scaling: Option<Value>,
    rope_parameters: Option<RopeParameters>,
    attention_bias: Option<bool>,
    use_parallel_residual: Option<bool>,
    tie_word_embeddings: Option<bool>,
    bos_token_id: Option<u32>,
    eos_token_id: Tokens,
}

/// Where newer files have what older ones have in fields of their own.
#[derive(Deserialize, Default)]
struct RopeParameters {
    rope_type: Option<String>,
    rope_theta: Option<f64>,
    partial_rotary_factor: Option<f64>,
}

impl GptNeoxConfig {
    /// Reads and checks `config.json`.
    ///
    /// # Errors
    /// [`LoadError::Config`] if it is malformed, out of bounds, or asks for what is not computed here.
    pub fn parse(json: &[u8]) -> Result<Self, LoadError> {
        let hf: HfGptNeox = from_json(json, "gpt_neox")?;
        let read = || {
            let rope = hf.rope_parameters.unwrap_or_default();
            if hf.rope_scaling.is_some() || rope.rope_type.is_some_and(|kind| kind != "default") {
                return Err(Wrong::new("rope_scaling", "not computed here for gpt_neox"));
            }
            if hf.attention_bias == Some(false) {
                return Err(Wrong::new("attention_bias", "only true is computed here for gpt_neox"));
            }
            let percent = rope.partial_rotary_factor.or(hf.rotary_pct).unwrap_or(0.25);
            if !(0.0..=1.0).contains(&percent) {
                return Err(Wrong::new("rotary_pct", format!("{percent} is not between 0 and 1")));
            }
            let head_dim = hf.hidden_size.checked_div(hf.num_attention_heads).unwrap_or(0).min(super::HIDDEN_MAX);
            #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
            // a part of a number below 2^16, cut off as transformers does
            let rotary_dim = (head_dim as f64 * percent) as usize;
            Ok(Self {
                vocab_size: hf.vocab_size,
                hidden_size: hf.hidden_size,
                intermediate_size: hf.intermediate_size,
                layers: hf.num_hidden_layers,
                heads: hf.num_attention_heads,
                context_tokens: hf.max_position_embeddings,
                layer_norm_eps: epsilon("layer_norm_eps", hf.layer_norm_eps)?,
                rotary_dim,
                rope_theta: rope.rope_theta.or(hf.rotary_emb_base).or(hf.rope_theta).unwrap_or(10_000.0),
                parallel_residual: hf.use_parallel_residual.unwrap_or(true),
                activation: Activation::parse(&hf.hidden_act)?,
                tied: hf.tie_word_embeddings.unwrap_or(false),
                qkv_by_head: true,
                special: SpecialTokens::from_hf(hf.bos_token_id, Some(hf.eos_token_id)),
            })
        };
        read().and_then(Self::checked).map_err(Wrong::in_json)
    }

    /// Reads and checks the metadata of a GGUF file. The files do not name the activation: it is
    /// transformers' default, the exact [`Activation::Gelu`].
    ///
    /// # Errors
    /// What is missing, out of bounds, or not computed here.
    pub fn from_gguf(gguf: &Gguf<'_>) -> Result<Self, LoadError> {
        let more = [("rope.dimension_count", Must::Any), ("rope.freq_base", Must::Any), ("vocab_size", Must::Any)];
        let section = section(gguf, "gptneox", &keys(&[&more[..], &[("use_parallel_residual", Must::Any)]].concat()))?;
        let config = Self {
            vocab_size: section.vocab_size()?,
            hidden_size: section.required("embedding_length")?,
            intermediate_size: section.required("feed_forward_length")?,
            layers: section.required("block_count")?,
            heads: section.required("attention.head_count")?,
            context_tokens: section.required("context_length")?,
            layer_norm_eps: gguf_epsilon(&section)?,
            rotary_dim: section.required("rope.dimension_count")?,
            rope_theta: section.float("rope.freq_base")?.unwrap_or(10_000.0),
            parallel_residual: gguf.bool(&section.key("use_parallel_residual"))?.unwrap_or(true),
            activation: Activation::Gelu,
            tied: gguf.tensor("output.weight")?.is_none(),
            qkv_by_head: false,
            special: special_tokens(gguf)?,
        };
        config.checked().map_err(Wrong::in_gguf)
    }

    fn checked(self) -> Result<Self, Wrong> {
        let Self { vocab_size, hidden_size, intermediate_size, layers, heads, context_tokens, .. } = self;
        check_sizes(vocab_size, hidden_size, intermediate_size, layers, heads, context_tokens)?;
        if self.rotary_dim > hidden_size / heads || !self.rotary_dim.is_multiple_of(2) {
            return Err(Wrong::new("rotary_pct", format!("{} rotated elements do not fit a head", self.rotary_dim)));
        }
        super::theta(self.rope_theta)?;
        self.special.check(vocab_size)?;
        Ok(self)
    }
}

/// The numbers of a Bloom model: positions by ALiBi, a norm after the embedding, tanh-GELU.
#[derive(Clone, Debug, PartialEq)]
pub struct BloomConfig {
    pub vocab_size: usize,
    pub hidden_size: usize,
    pub layers: usize,
    pub heads: usize,
    /// The length it was trained for, tokens: ALiBi knows no end, but the model does.
    pub context_tokens: usize,
    pub layer_norm_eps: f32,
    /// See [`GptNeoxConfig::qkv_by_head`].
    pub qkv_by_head: bool,
    pub tied: bool,
    pub special: SpecialTokens,
}

#[derive(Deserialize)]
struct HfBloom {
    vocab_size: usize,
    #[serde(alias = "n_embed")]
    hidden_size: usize,
    #[serde(alias = "num_hidden_layers")]
    n_layer: usize,
    #[serde(alias = "num_attention_heads")]
    n_head: usize,
    layer_norm_epsilon: f64,
    seq_length: Option<usize>,
    apply_residual_connection_post_layernorm: Option<bool>,
    tie_word_embeddings: Option<bool>,
    bos_token_id: Option<u32>,
    eos_token_id: Tokens,
}

impl BloomConfig {
    /// Reads and checks `config.json`.
    ///
    /// # Errors
    /// [`LoadError::Config`] if it is malformed, out of bounds, or asks for what is not computed here.
    pub fn parse(json: &[u8]) -> Result<Self, LoadError> {
        let hf: HfBloom = from_json(json, "bloom")?;
        let read = || {
            if hf.apply_residual_connection_post_layernorm == Some(true) {
                return Err(Wrong::new("apply_residual_connection_post_layernorm", "not computed here"));
            }
            Ok(Self {
                vocab_size: hf.vocab_size,
                hidden_size: hf.hidden_size,
                layers: hf.n_layer,
                heads: hf.n_head,
                context_tokens: hf.seq_length.unwrap_or(2048),
                layer_norm_eps: epsilon("layer_norm_epsilon", hf.layer_norm_epsilon)?,
                qkv_by_head: true,
                tied: hf.tie_word_embeddings.unwrap_or(true),
                special: SpecialTokens::from_hf(hf.bos_token_id, Some(hf.eos_token_id)),
            })
        };
        read().and_then(Self::checked).map_err(Wrong::in_json)
    }

    /// Reads and checks the metadata of a GGUF file.
    ///
    /// # Errors
    /// What is missing, out of bounds, or not computed here.
    pub fn from_gguf(gguf: &Gguf<'_>) -> Result<Self, LoadError> {
        let more = [("attention.head_count_kv", Must::Any), ("vocab_size", Must::Any)];
        let section = section(gguf, "bloom", &keys(&more))?;
        let (hidden_size, heads) = (section.required("embedding_length")?, section.required("attention.head_count")?);
        for (name, expected) in
            [("feed_forward_length", hidden_size.saturating_mul(4)), ("attention.head_count_kv", heads)]
        {
            if section.uniform(name)?.is_some_and(|value| value != expected) {
                return Err(GgufError::key(&section.key(name), format!("not {expected}")).into());
            }
        }
        let config = Self {
            vocab_size: section.vocab_size()?,
            hidden_size,
            layers: section.required("block_count")?,
            heads,
            context_tokens: section.required("context_length")?,
            layer_norm_eps: gguf_epsilon(&section)?,
            qkv_by_head: false,
            tied: gguf.tensor("output.weight")?.is_none(),
            special: special_tokens(gguf)?,
        };
        config.checked().map_err(Wrong::in_gguf)
    }

    fn checked(self) -> Result<Self, Wrong> {
        let Self { vocab_size, hidden_size, layers, heads, context_tokens, .. } = self;
        check_sizes(vocab_size, hidden_size, hidden_size.saturating_mul(4), layers, heads, context_tokens)?;
        self.special.check(vocab_size)?;
        Ok(self)
    }

    /// ALiBi's slope of each head, in f64 and rounded once: a score is raised by slope × position.
    pub fn alibi_slopes(&self) -> Vec<f32> {
        let whole = if self.heads.is_power_of_two() { self.heads } else { self.heads.next_power_of_two() / 2 };
        #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation)]
        // numbers of heads are small; rounding to f32 is what the contract says
        let slope = |of: usize, power: usize| libm::exp2(-8.0 / of as f64 * power as f64) as f32;
        let first = (1..=whole).map(|power| slope(whole, power));
        // The heads beyond a power of two take every other slope of twice as many.
        let rest = (0..self.heads - whole).map(|i| slope(2 * whole, 2 * i + 1));
        first.chain(rest).collect()
    }
}
