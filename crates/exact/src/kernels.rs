//! The engines' steps, one by one, for programs that put them together themselves: guests in the sandbox.
//! They are the engines' own, so they give the engines' bits (`NUMERICS.md`).
//!
//! All slices are row-major. Whoever calls sees to their lengths: what does not fit panics.

pub use crate::{
    activation::Activations,
    config::Activation,
    math::softmax,
    matmul::Matrix,
    sampler::{Sampler, Sampling},
};
use crate::{
    attention::{self, Heads, Rows},
    cache::{KvCache, Shape},
    plan::Plan,
    rope::{Rope, RopeConfig},
    vector,
};

/// `x[i] = x[i] + y[i]`.
///
/// # Panics
/// If the lengths differ.
pub fn add(x: &mut [f32], y: &[f32]) {
    assert_eq!(x.len(), y.len(), "as many elements");
    vector::add(x, y);
}

/// Adds `bias` to each row.
///
/// # Panics
/// If rows are not as long as it.
pub fn add_bias(rows: &mut [f32], bias: &[f32]) {
    assert_rows(rows, bias);
    vector::add_bias(rows, bias);
}

/// RMS norm of each row, in place.
///
/// # Panics
/// If rows are not as long as `weight`.
pub fn rms_norm(rows: &mut [f32], weight: &[f32], epsilon: f32, plan: &Plan) {
    assert_rows(rows, weight);
    vector::rms_norm_rows(rows, weight, epsilon, plan);
}

/// Layer norm of each row, in place.
///
/// # Panics
/// If rows are not as long as `weight` and `bias`.
pub fn layer_norm(rows: &mut [f32], weight: &[f32], bias: &[f32], epsilon: f32, plan: &Plan) {
    assert_rows(rows, weight);
    assert_eq!(weight.len(), bias.len(), "as many elements");
    vector::layer_norm_rows(rows, weight, bias, epsilon, plan);
}

fn assert_rows(rows: &[f32], row: &[f32]) {
    assert!(!row.is_empty() && rows.len().is_multiple_of(row.len()), "whole rows");
}

/// `gate[i] = SiLU(gate[i]) · up[i]`.
///
/// # Panics
/// If the lengths differ.
pub fn silu_multiply(gate: &mut [f32], up: &[f32], plan: &Plan) {
    assert_eq!(gate.len(), up.len(), "as many elements");
    vector::silu_multiply(gate, up, plan);
}

/// `values[i] = activation(values[i])`.
pub fn gelu(activation: Activation, values: &mut [f32], plan: &Plan) {
    vector::gelu(activation, values, plan);
}

/// Rotary positions for heads of one size.
pub struct Rotary {
    rope: Rope,
    head_dim: usize,
    context_tokens: usize,
}

impl Rotary {
    /// For heads of `head_dim` elements, of which the first `rotary_dim` are rotated; `None` if these are
    /// no numbers to compute with.
    pub fn new(config: &RopeConfig, head_dim: usize, rotary_dim: usize, context_tokens: usize) -> Option<Self> {
        let fits = head_dim > 0 && rotary_dim <= head_dim && rotary_dim.is_multiple_of(2) && rotary_dim > 0;
        if !fits || !config.is_valid(rotary_dim) {
            return None;
        }
        Some(Self { rope: Rope::new(config, head_dim, rotary_dim, context_tokens), head_dim, context_tokens })
    }

    /// Most memory that its tables come to take, bytes.
    pub fn bytes_max(rotary_dim: usize, context_tokens: usize) -> usize {
        context_tokens.next_multiple_of(64).saturating_mul(rotary_dim).saturating_mul(size_of::<f32>())
    }

    /// Whether rows of `width` elements, the first at `position`, can be rotated.
    pub fn fits(&self, width: usize, position: usize, rows: usize) -> bool {
        width > 0
            && width.is_multiple_of(self.head_dim)
            && position.checked_add(rows).is_some_and(|end| end <= self.context_tokens)
    }

    /// Rotates the heads of consecutive tokens, one row of `width` elements each, in place.
    ///
    /// # Panics
    /// Unless it [`Rotary::fits`].
    pub fn rotate(&self, rows: &mut [f32], width: usize, position: usize) {
        assert!(self.fits(width, position, rows.len() / width.max(1)), "heads and positions that there are");
        for (index, row) in rows.chunks_exact_mut(width).enumerate() {
            self.rope.rotate(row, position + index);
        }
    }
}

/// What one sequence remembers in every layer, and attention over it.
#[derive(Clone, Debug)]
pub struct Memory {
    cache: KvCache,
    /// Tokens that each layer has; all have those that are counted.
    filled: Vec<usize>,
    scratch: Vec<f32>,
}

impl Memory {
    /// Of `layers` layers whose keys and values have `kv_heads` heads of `head_dim` elements.
    pub fn new(layers: usize, kv_heads: usize, head_dim: usize) -> Self {
        let shape = Shape { kv_heads, head_dim };
        Self { cache: KvCache::new(layers, shape), filled: vec![0; layers], scratch: Vec::new() }
    }

    /// Tokens that all layers have seen.
    pub fn tokens(&self) -> usize {
        self.cache.tokens()
    }

    /// Memory of one of its layers for so many tokens, bytes.
    pub fn layer_bytes(&self, tokens: usize) -> usize {
        self.cache.shape().cache_bytes(tokens)
    }

    /// Tokens that a layer has; `None` if there is no such layer.
    pub fn filled(&self, layer: usize) -> Option<usize> {
        self.filled.get(layer).copied()
    }

    /// Elements of a token's key, and of its value.
    pub fn width(&self) -> usize {
        self.cache.shape().kv_heads * self.cache.shape().head_dim
    }

    /// Elements of a head.
    pub fn head_dim(&self) -> usize {
        self.cache.shape().head_dim
    }

    /// Whether `rows` tokens of `heads` query heads can go through layer `layer` now.
    pub fn fits(&self, layer: usize, heads: usize, rows: usize) -> bool {
        let kv_heads = self.cache.shape().kv_heads;
        rows > 0
            && heads > 0
            && heads.is_multiple_of(kv_heads)
            && self.filled.get(layer).is_some_and(|filled| *filled >= self.tokens())
    }

    /// Takes keys and values of the tokens after those counted, and writes what each of them sees of itself
    /// and all before it. `query` and `out` are `[rows][heads][head_dim]`, `key` and `value`
    /// `[rows][kv_heads][head_dim]`.
    ///
    /// # Panics
    /// Unless it [`Memory::fits`], and the lengths do.
    pub fn attend(
        &mut self,
        layer: usize,
        heads: usize,
        [query, key, value]: [&[f32]; 3],
        out: &mut [f32],
        plan: &Plan,
    ) {
        let shape = self.cache.shape();
        let width = shape.kv_heads * shape.head_dim;
        let (position, count) = (self.tokens(), key.len() / width);
        assert!(self.fits(layer, heads, count), "a layer that is there");
        assert!(key.len() == count * width && value.len() == key.len(), "keys and values of the shape");
        assert!(query.len() == count * heads * shape.head_dim && out.len() == query.len(), "queries of the shape");
        for (index, (key, value)) in key.chunks_exact(width).zip(value.chunks_exact(width)).enumerate() {
            self.cache.put(layer, position + index, key, value);
        }
        self.filled[layer] = self.filled[layer].max(position + count);
        let rows = std::iter::once(Rows { pages: self.cache.pages(layer), position, count, row: 0 });
        attention::attend(&Heads::new(shape, heads), rows, query, out, &mut self.scratch, plan);
    }

    /// Counts tokens that all layers have seen; says whether they have.
    pub fn advance(&mut self, tokens: usize) -> bool {
        let seen = self.tokens().checked_add(tokens).filter(|seen| self.filled.iter().all(|filled| filled >= seen));
        if seen.is_some() {
            self.cache.advance(tokens);
        }
        seen.is_some()
    }
}
