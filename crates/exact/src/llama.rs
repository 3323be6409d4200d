//! The Llama architecture and its relatives: RMS norm, rotary positions, grouped-query attention,
//! SwiGLU; with biases (Qwen2) and norms of queries and keys (Qwen3) where the weights have them.
//!
//! This file has the model's numbers and weights; `forward` has the computation.

pub use crate::tensors::LoadError;
use crate::{
    cache::{KvCache, Shape},
    math,
    matmul::Matrix,
    rope::{Rope, RopeConfig},
    tensors::{Loader, Safetensors, TensorSource},
};
use serde::Deserialize;

/// The numbers of `config.json` that matter to the computation.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    pub vocab_size: usize,
    pub hidden_size: usize,
    pub intermediate_size: usize,
    pub layers: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
    /// Longest sequence, prompt and completion together, tokens.
    pub context_tokens: usize,
    pub rms_norm_eps: f32,
    pub rope: RopeConfig,
    /// Whether the output head is the embedding.
    pub tied: bool,
    /// Tokens that end an answer.
    pub eos: Vec<u32>,
}

/// `config.json` as Hugging Face writes it; unknown fields are other tools' business, but fields
/// that would change the computation and that we do not compute are refused.
#[derive(Deserialize)]
struct HfConfig {
    model_type: String,
    vocab_size: usize,
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    max_position_embeddings: usize,
    rms_norm_eps: f64,
    #[serde(default = "theta_default")]
    rope_theta: f64,
    #[serde(default)]
    tie_word_embeddings: bool,
    #[serde(default)]
    hidden_act: Option<String>,
    #[serde(default)]
    rope_scaling: Option<serde_json::Value>,
    eos_token_id: Eos,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Eos {
    One(u32),
    Many(Vec<u32>),
}

fn theta_default() -> f64 {
    10_000.0
}

impl Config {
    /// Reads and checks `config.json`.
    ///
    /// # Errors
    /// [`LoadError::Config`] if it is malformed, out of bounds, or asks for what is not computed here.
    pub fn parse(json: &[u8]) -> Result<Self, LoadError> {
        let fail = |why: String| Err(LoadError::Config(why));
        let hf: HfConfig = serde_json::from_slice(json).map_err(|error| LoadError::Config(error.to_string()))?;
        if hf.model_type != "llama" {
            return fail(format!("model_type is {:?}, only \"llama\" runs here", hf.model_type));
        }
        if hf.rope_scaling.is_some_and(|value| !value.is_null()) {
            return fail("rope_scaling is not supported".into());
        }
        if hf.hidden_act.as_deref().is_some_and(|act| act != "silu") {
            return fail("hidden_act must be \"silu\"".into());
        }
        for (name, value, max) in [
            ("vocab_size", hf.vocab_size, 1 << 20),
            ("hidden_size", hf.hidden_size, 1 << 16),
            ("intermediate_size", hf.intermediate_size, 1 << 18),
            ("num_hidden_layers", hf.num_hidden_layers, 512),
            ("num_attention_heads", hf.num_attention_heads, 1 << 10),
            ("max_position_embeddings", hf.max_position_embeddings, 1 << 20),
        ] {
            if value == 0 || value > max {
                return fail(format!("{name} = {value} is not between 1 and {max}"));
            }
        }
        let heads = hf.num_attention_heads;
        let kv_heads = hf.num_key_value_heads.unwrap_or(heads);
        if kv_heads == 0 || !heads.is_multiple_of(kv_heads) {
            return fail(format!("{heads} heads cannot share {kv_heads} key-value heads"));
        }
        let head_dim = hf.head_dim.unwrap_or(hf.hidden_size / heads);
        if head_dim == 0 || head_dim > 1024 || !head_dim.is_multiple_of(2) {
            return fail(format!("head_dim = {head_dim} is not an even number up to 1024"));
        }
        let epsilon_fits = hf.rms_norm_eps > 0.0 && hf.rms_norm_eps < 1.0;
        if !epsilon_fits || !(1.0..=1e12).contains(&hf.rope_theta) {
            return fail("rms_norm_eps or rope_theta is out of range".into());
        }
        let eos = match hf.eos_token_id {
            Eos::One(token) => vec![token],
            Eos::Many(tokens) => tokens,
        };
        if eos.is_empty() || eos.iter().any(|token| *token as usize >= hf.vocab_size) {
            return fail("eos_token_id is not in the vocabulary".into());
        }
        #[allow(clippy::cast_possible_truncation)] // rounding to f32 is what the contract says
        let rms_norm_eps = hf.rms_norm_eps as f32;
        Ok(Self {
            vocab_size: hf.vocab_size,
            hidden_size: hf.hidden_size,
            intermediate_size: hf.intermediate_size,
            layers: hf.num_hidden_layers,
            heads,
            kv_heads,
            head_dim,
            context_tokens: hf.max_position_embeddings,
            rms_norm_eps,
            rope: RopeConfig::plain(hf.rope_theta),
            tied: hf.tie_word_embeddings,
            eos,
        })
    }
}

/// A matrix and what may be added to its products.
pub(crate) struct Linear {
    pub matrix: Matrix,
    pub bias: Option<Vec<f32>>,
}

/// The weights of one layer.
pub(crate) struct Layer {
    pub attention_norm: Vec<f32>,
    pub query: Linear,
    pub key: Linear,
    pub value: Linear,
    pub output: Linear,
    /// Norms of each head's query and key, before they are rotated.
    pub query_norm: Option<Vec<f32>>,
    pub key_norm: Option<Vec<f32>>,
    pub mlp_norm: Vec<f32>,
    pub gate: Linear,
    pub up: Linear,
    pub down: Linear,
}

/// A loaded model: read-only, shared by any number of generations.
pub struct Llama {
    pub(crate) config: Config,
    /// `vocab_size` × `hidden_size`; the head too if there is no other.
    pub(crate) embedding: Matrix,
    pub(crate) layers: Vec<Layer>,
    pub(crate) norm: Vec<f32>,
    pub(crate) head: Option<Matrix>,
    pub(crate) rope: Rope,
}

impl Llama {
    /// Loads the weights of `config`, by their Hugging Face names. Weights keep the format that the
    /// source has them in. Biases, and norms of queries and keys, are used if the source has them.
    ///
    /// # Errors
    /// [`LoadError::Weights`] if a tensor is missing, of another shape, or not finite;
    /// [`LoadError::Config`] if the rotary positions cannot be computed.
    pub fn load(config: Config, source: &dyn TensorSource) -> Result<Self, LoadError> {
        let Config { hidden_size: hidden, intermediate_size: ffn, heads, kv_heads, head_dim, .. } = config;
        if !config.rope.is_valid(head_dim) {
            return Err(LoadError::Config("the rotary positions cannot be computed".into()));
        }
        let weights = Loader(source);
        let layers = (0..config.layers).map(|index| {
            let name = |part: &str| format!("model.layers.{index}.{part}.weight");
            let linear = |part: &str, n, k| {
                let bias = weights.optional_vector(&format!("model.layers.{index}.{part}.bias"), n)?;
                Ok::<_, LoadError>(Linear { matrix: weights.matrix(&name(part), n, k)?, bias })
            };
            Ok(Layer {
                attention_norm: weights.vector(&name("input_layernorm"), hidden)?,
                query: linear("self_attn.q_proj", heads * head_dim, hidden)?,
                key: linear("self_attn.k_proj", kv_heads * head_dim, hidden)?,
                value: linear("self_attn.v_proj", kv_heads * head_dim, hidden)?,
                output: linear("self_attn.o_proj", hidden, heads * head_dim)?,
                query_norm: weights.optional_vector(&name("self_attn.q_norm"), head_dim)?,
                key_norm: weights.optional_vector(&name("self_attn.k_norm"), head_dim)?,
                mlp_norm: weights.vector(&name("post_attention_layernorm"), hidden)?,
                gate: linear("mlp.gate_proj", ffn, hidden)?,
                up: linear("mlp.up_proj", ffn, hidden)?,
                down: linear("mlp.down_proj", hidden, ffn)?,
            })
        });
        let head = (!config.tied).then(|| weights.matrix("lm_head.weight", config.vocab_size, hidden)).transpose()?;
        Ok(Self {
            layers: layers.collect::<Result<_, LoadError>>()?,
            embedding: weights.matrix("model.embed_tokens.weight", config.vocab_size, hidden)?,
            norm: weights.vector("model.norm.weight", hidden)?,
            rope: Rope::new(&config.rope, head_dim, config.context_tokens),
            head,
            config,
        })
    }

    /// [`Llama::load`] from the bytes of one safetensors file.
    ///
    /// # Errors
    /// As [`Llama::load`], and if the file is malformed.
    pub fn from_safetensors(config: Config, file: &[u8]) -> Result<Self, LoadError> {
        Self::load(config, &Safetensors::new(&[file])?)
    }

    /// The model's numbers.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// A cache that has seen nothing.
    pub fn cache(&self) -> KvCache {
        let Config { layers, kv_heads, head_dim, .. } = self.config;
        KvCache::new(layers, Shape { kv_heads, head_dim })
    }

    /// Memory that the matrices take.
    pub fn bytes(&self) -> usize {
        let layer = |layer: &Layer| {
            let Layer { query, key, value, output, gate, up, down, .. } = layer;
            [query, key, value, output, gate, up, down].iter().map(|linear| linear.matrix.bytes()).sum::<usize>()
        };
        self.embedding.bytes()
            + self.head.as_ref().map_or(0, Matrix::bytes)
            + self.layers.iter().map(layer).sum::<usize>()
    }
}

/// SHA-256 over the canonical bits of `logits`, for comparing runs on different machines.
pub fn logits_digest(logits: &[f32]) -> [u8; 32] {
    use sha2::{Digest as _, Sha256};
    let mut hasher = Sha256::new();
    for logit in logits {
        hasher.update(math::canonical_bits(*logit).to_le_bytes());
    }
    hasher.finalize().into()
}
