//! Decoders: transformers that continue text, each token seeing those before it. Llama and its
//! relatives, GPT-NeoX and Bloom differ in norms, positions, MLPs and in where residuals are added.
//!
//! This file has the weights, `load` has them read, `forward` has the computation.

mod forward;
mod load;

pub use crate::tensors::LoadError;
pub use forward::{Scratch, Sequence};

use crate::{
    cache::{KvCache, Shape},
    config::DecoderConfig,
    layers::{Attention, Mlp, Norm, matrix_bytes},
    math,
    matmul::Matrix,
    rope::Rope,
};

/// The weights of one layer.
struct Layer {
    attention_norm: Norm,
    attention: Attention,
    mlp_norm: Norm,
    mlp: Mlp,
}

/// How a token knows where it stands.
enum Positions {
    Rotary(Rope),
    /// Slopes by head.
    Alibi(Vec<f32>),
}

/// What a layer adds to a token's vector.
#[derive(Clone, Copy)]
enum Residual {
    /// `y = x + attention(norm(x))`, then `y + mlp(norm(y))`.
    Serial,
    /// `(x + attention(norm(x))) + mlp(norm(x))`, both from what came in.
    Parallel,
}

/// The numbers that a pass needs.
#[derive(Clone, Copy)]
struct Sizes {
    vocab_size: usize,
    hidden_size: usize,
    heads: usize,
    shape: Shape,
    context_tokens: usize,
}

/// A loaded model: read-only, shared by any number of generations.
pub struct Decoder {
    sizes: Sizes,
    /// `vocab_size` × `hidden_size`; the head too if there is no other.
    embedding: Matrix,
    embedding_norm: Option<Norm>,
    layers: Vec<Layer>,
    norm: Norm,
    head: Option<Matrix>,
    positions: Positions,
    residual: Residual,
}

impl Decoder {
    /// Tokens that it knows, and logits that it gives.
    pub fn vocab_size(&self) -> usize {
        self.sizes.vocab_size
    }

    /// Longest sequence, tokens.
    pub fn context_tokens(&self) -> usize {
        self.sizes.context_tokens
    }

    /// A cache that has seen nothing.
    pub fn cache(&self) -> KvCache {
        KvCache::new(self.layers.len(), self.sizes.shape)
    }

    /// Memory that the matrices take.
    pub fn bytes(&self) -> usize {
        self.embedding.bytes()
            + self.head.as_ref().map_or(0, Matrix::bytes)
            + self.layers.iter().map(|layer| matrix_bytes(&layer.attention, &layer.mlp)).sum::<usize>()
    }

    /// Memory that a sequence of `tokens` tokens takes in its cache.
    pub fn cache_bytes(&self, tokens: usize) -> usize {
        self.layers.len() * self.sizes.shape.cache_bytes(tokens)
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
