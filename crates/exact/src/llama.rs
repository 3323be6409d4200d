//! The Llama architecture and its relatives: RMS norm, rotary positions, grouped-query attention,
//! SwiGLU; with biases (Qwen2) and norms of queries and keys (Qwen3) where the weights have them.
//!
//! This file has the model's weights, `config` its numbers; `forward` has the computation.

pub use crate::tensors::LoadError;
use crate::{
    cache::{KvCache, Shape},
    config::Config,
    math,
    matmul::Matrix,
    rope::Rope,
    tensors::{Loader, Safetensors, TensorSource},
};

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
        let rope = config.rope();
        if !rope.is_valid(head_dim) {
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
            rope: Rope::new(&rope, head_dim, config.context_tokens),
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

/// SHA-256 over the canonical bits of logits, for comparing runs on different machines.
#[derive(Clone, Default)]
pub struct LogitsHasher(sha2::Sha256);

impl LogitsHasher {
    /// Takes in more logits.
    pub fn update(&mut self, logits: &[f32]) {
        use sha2::Digest as _;
        for logit in logits {
            self.0.update(math::canonical_bits(*logit).to_le_bytes());
        }
    }

    /// The digest of all.
    pub fn finish(self) -> [u8; 32] {
        sha2::Digest::finalize(self.0).into()
    }
}

/// The digest of `logits` alone.
pub fn logits_digest(logits: &[f32]) -> [u8; 32] {
    let mut hasher = LogitsHasher::default();
    hasher.update(logits);
    hasher.finish()
}
