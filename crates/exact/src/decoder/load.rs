//! Decoders of each family from their tensors, by the names that Hugging Face's files have.

use super::{Decoder, DecoderConfig, Layer, LoadError, Positions, Residual, Sizes};
use crate::{
    cache::Shape,
    config::{Activation, BloomConfig, GptNeoxConfig, LlamaConfig},
    layers::{Attention, Linear, Mlp, Norm},
    matmul::Matrix,
    rope::{Rope, RopeConfig},
    tensors::{Loader, Safetensors, TensorSource},
};

impl Decoder {
    /// Loads the weights of `config`. Weights keep the format that the source has them in. Biases,
    /// and norms of queries and keys, are used if the source has them.
    ///
    /// # Errors
    /// [`LoadError::Weights`] if a tensor is missing, of another shape, or not finite;
    /// [`LoadError::Config`] if the rotary positions cannot be computed.
    pub fn load(config: &DecoderConfig, source: &dyn TensorSource) -> Result<Self, LoadError> {
        match config {
            DecoderConfig::Llama(config) => llama(config, &Loader(source)),
            DecoderConfig::GptNeox(config) => gpt_neox(config, &Loader(source)),
            DecoderConfig::Bloom(config) => bloom(config, &Loader(source)),
        }
    }

    /// [`Decoder::load`] from the bytes of one safetensors file.
    ///
    /// # Errors
    /// As [`Decoder::load`], and if the file is malformed.
    pub fn from_safetensors(config: &DecoderConfig, file: &[u8]) -> Result<Self, LoadError> {
        Self::load(config, &Safetensors::new(&[file])?)
    }
}

/// Llama and its relatives: RMS norm, rotary positions, grouped-query attention, SwiGLU; with biases
/// (Qwen 2) and norms of queries and keys (Qwen 3) where the weights have them.
fn llama(config: &LlamaConfig, weights: &Loader<'_>) -> Result<Decoder, LoadError> {
    let LlamaConfig { hidden_size: hidden, intermediate_size: ffn, heads, kv_heads, head_dim, .. } = *config;
    let LlamaConfig { vocab_size, context_tokens, rms_norm_eps: epsilon, .. } = *config;
    let rope = rope(&config.rope(), head_dim, head_dim, context_tokens)?;
    let layers = (0..config.layers).map(|index| {
        let name = |part: &str| format!("model.layers.{index}.{part}");
        let linear = |part: &str, n, k| Linear::load(weights, &name(part), n, k);
        Ok(Layer {
            attention_norm: Norm::rms(weights, &name("input_layernorm"), hidden, epsilon)?,
            attention: Attention {
                query: linear("self_attn.q_proj", heads * head_dim, hidden)?,
                key: linear("self_attn.k_proj", kv_heads * head_dim, hidden)?,
                value: linear("self_attn.v_proj", kv_heads * head_dim, hidden)?,
                output: linear("self_attn.o_proj", hidden, heads * head_dim)?,
                query_norm: Norm::optional_rms(weights, &name("self_attn.q_norm"), head_dim, epsilon)?,
                key_norm: Norm::optional_rms(weights, &name("self_attn.k_norm"), head_dim, epsilon)?,
            },
            mlp_norm: Norm::rms(weights, &name("post_attention_layernorm"), hidden, epsilon)?,
            mlp: Mlp::Gated {
                gate: linear("mlp.gate_proj", ffn, hidden)?,
                up: linear("mlp.up_proj", ffn, hidden)?,
                down: linear("mlp.down_proj", hidden, ffn)?,
            },
        })
    });
    Ok(Decoder {
        layers: layers.collect::<Result<_, LoadError>>()?,
        embedding: weights.matrix("model.embed_tokens.weight", vocab_size, hidden)?,
        embedding_norm: None,
        norm: Norm::rms(weights, "model.norm", hidden, epsilon)?,
        head: head(weights, "lm_head.weight", config.tied, vocab_size, hidden)?,
        positions: Positions::Rotary(rope),
        residual: Residual::Serial,
        sizes: Sizes { vocab_size, hidden_size: hidden, heads, shape: Shape { kv_heads, head_dim }, context_tokens },
    })
}

/// GPT-NeoX (Pythia): layer norms, partly rotated heads, GELU, residuals in parallel or in turn.
fn gpt_neox(config: &GptNeoxConfig, weights: &Loader<'_>) -> Result<Decoder, LoadError> {
    let GptNeoxConfig { vocab_size, hidden_size: hidden, intermediate_size: ffn, heads, .. } = *config;
    let GptNeoxConfig { context_tokens, rotary_dim, layer_norm_eps: epsilon, activation, .. } = *config;
    let head_dim = hidden / heads;
    let rope = rope(&RopeConfig::plain(config.rope_theta), head_dim, rotary_dim, context_tokens)?;
    let layer = JointLayer { heads, head_dim, ffn, epsilon, by_head: config.qkv_by_head, activation };
    let layers = (0..config.layers).map(|index| layer.load(weights, &format!("gpt_neox.layers.{index}"), "attention"));
    Ok(Decoder {
        layers: layers.collect::<Result<_, LoadError>>()?,
        embedding: weights.matrix("gpt_neox.embed_in.weight", vocab_size, hidden)?,
        embedding_norm: None,
        norm: Norm::layer(weights, "gpt_neox.final_layer_norm", hidden, epsilon)?,
        head: head(weights, "embed_out.weight", config.tied, vocab_size, hidden)?,
        positions: Positions::Rotary(rope),
        residual: if config.parallel_residual { Residual::Parallel } else { Residual::Serial },
        sizes: layer.sizes(vocab_size, context_tokens),
    })
}

/// Bloom: a norm after the embedding, layer norms, ALiBi, GELU by tanh.
fn bloom(config: &BloomConfig, weights: &Loader<'_>) -> Result<Decoder, LoadError> {
    let BloomConfig { vocab_size, hidden_size: hidden, heads, context_tokens, layer_norm_eps: epsilon, .. } = *config;
    let (head_dim, ffn) = (hidden / heads, 4 * hidden);
    let (by_head, activation) = (config.qkv_by_head, Activation::GeluTanh);
    let layer = JointLayer { heads, head_dim, ffn, epsilon, by_head, activation };
    let layers =
        (0..config.layers).map(|index| layer.load(weights, &format!("transformer.h.{index}"), "self_attention"));
    Ok(Decoder {
        layers: layers.collect::<Result<_, LoadError>>()?,
        embedding: weights.matrix("transformer.word_embeddings.weight", vocab_size, hidden)?,
        embedding_norm: Some(Norm::layer(weights, "transformer.word_embeddings_layernorm", hidden, epsilon)?),
        norm: Norm::layer(weights, "transformer.ln_f", hidden, epsilon)?,
        head: head(weights, "lm_head.weight", config.tied, vocab_size, hidden)?,
        positions: Positions::Alibi(config.alibi_slopes()),
        residual: Residual::Serial,
        sizes: layer.sizes(vocab_size, context_tokens),
    })
}

fn rope(config: &RopeConfig, head_dim: usize, rotary_dim: usize, context_tokens: usize) -> Result<Rope, LoadError> {
    if !config.is_valid(rotary_dim) {
        return Err(LoadError::Config("the rotary positions cannot be computed".into()));
    }
    Ok(Rope::new(config, head_dim, rotary_dim, context_tokens))
}

/// The head if it is not the embedding.
fn head(weights: &Loader<'_>, name: &str, tied: bool, n: usize, k: usize) -> Result<Option<Matrix>, LoadError> {
    (!tied).then(|| weights.matrix(name, n, k)).transpose()
}

/// The layers that GPT-NeoX and Bloom have in common: layer norms, an MLP without a gate, and one
/// projection for queries, keys and values.
struct JointLayer {
    heads: usize,
    head_dim: usize,
    ffn: usize,
    epsilon: f32,
    /// Whether the projection's rows go head by head (q, k, v of the first head, then of the second, …)
    /// instead of all queries, all keys, all values.
    by_head: bool,
    activation: Activation,
}

impl JointLayer {
    fn sizes(&self, vocab_size: usize, context_tokens: usize) -> Sizes {
        let Self { heads, head_dim, .. } = *self;
        let shape = Shape { kv_heads: heads, head_dim };
        Sizes { vocab_size, hidden_size: heads * head_dim, heads, shape, context_tokens }
    }

    fn load(&self, weights: &Loader<'_>, prefix: &str, attention: &str) -> Result<Layer, LoadError> {
        let Self { heads, head_dim, ffn, epsilon, activation, .. } = *self;
        let hidden = heads * head_dim;
        let name = |part: &str| format!("{prefix}.{part}");
        let linear = |part: &str, n, k| Linear::load(weights, &name(part), n, k);
        Ok(Layer {
            attention_norm: Norm::layer(weights, &name("input_layernorm"), hidden, epsilon)?,
            attention: self.attention(weights, &name(attention))?,
            mlp_norm: Norm::layer(weights, &name("post_attention_layernorm"), hidden, epsilon)?,
            mlp: Mlp::Plain {
                up: linear("mlp.dense_h_to_4h", ffn, hidden)?,
                activation,
                down: linear("mlp.dense_4h_to_h", hidden, ffn)?,
            },
        })
    }

    fn attention(&self, weights: &Loader<'_>, prefix: &str) -> Result<Attention, LoadError> {
        let (head_dim, hidden) = (self.head_dim, self.heads * self.head_dim);
        let joint = format!("{prefix}.query_key_value");
        let part = |which: usize| {
            let row = |row: usize| match self.by_head {
                true => (row / head_dim * 3 + which) * head_dim + row % head_dim,
                false => which * hidden + row,
            };
            let rows: Vec<_> = (0..hidden).map(row).collect();
            Linear::load_rows(weights, &joint, [3 * hidden, hidden], &rows)
        };
        let [query, key, value] = [part(0)?, part(1)?, part(2)?];
        weights.done(&format!("{joint}.weight"))?;
        let output = Linear::load(weights, &format!("{prefix}.dense"), hidden, hidden)?;
        Ok(Attention { query, key, value, output, query_norm: None, key_norm: None })
    }
}
