//! Matrices, norms, attention and chance: the host's strict kernels, on weights that stay outside the
//! guest's memory. Vectors are the guest's own; rows of one matrix follow one another.
//!
//! Open tensors and rotary positions in `init`: they are there in every run.

use crate::{len, raw};

/// A matrix of the package's weights, or a vector, which is a matrix of one row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tensor {
    handle: u32,
    rows: usize,
    columns: usize,
}

impl Tensor {
    /// The tensor of this name in the package's weights; `None` if there is none that can be computed with.
    pub fn open(name: &str) -> Option<Self> {
        // SAFETY: the host reads the name, as long as it is; the rest touches no memory.
        unsafe {
            let handle = u32::try_from(raw::tensor_open(name.as_ptr(), len(name.as_bytes()))).ok()?;
            let (rows, columns) = (raw::tensor_rows(handle) as usize, raw::tensor_columns(handle) as usize);
            Some(Self { handle, rows, columns })
        }
    }

    /// Outputs.
    pub fn rows(self) -> usize {
        self.rows
    }

    /// Inputs.
    pub fn columns(self) -> usize {
        self.columns
    }

    /// Writes one row.
    ///
    /// # Panics
    /// If `out` is not as long as it.
    pub fn row(self, row: u32, out: &mut [f32]) {
        assert_eq!(out.len(), self.columns, "a row");
        // SAFETY: the host writes a row.
        unsafe { raw::tensor_row(self.handle, row, out.as_mut_ptr()) }
    }

    /// `y = x · Wᵀ`, for each row of `x`.
    ///
    /// # Panics
    /// If the lengths do not fit.
    pub fn multiply(self, x: &[f32], y: &mut [f32]) {
        let rows = x.len() / self.columns;
        assert!(x.len() == rows * self.columns && y.len() == rows * self.rows, "rows of the matrix");
        // SAFETY: the host reads and writes as many rows as there are.
        unsafe { raw::matmul(self.handle, x.as_ptr(), count(rows), y.as_mut_ptr()) }
    }

    /// RMS norm of each row of `x` with this vector as weight, in place.
    pub fn rms_norm(self, x: &mut [f32], epsilon: f32) {
        // SAFETY: the host reads and writes as many rows as there are.
        unsafe { raw::rms_norm(self.handle, x.as_mut_ptr(), self.rows_of(x), epsilon) }
    }

    /// Layer norm of each row of `x` with this vector as weight and `bias`, in place.
    pub fn layer_norm(self, bias: Tensor, x: &mut [f32], epsilon: f32) {
        // SAFETY: the host reads and writes as many rows as there are.
        unsafe { raw::layer_norm(self.handle, bias.handle, x.as_mut_ptr(), self.rows_of(x), epsilon) }
    }

    /// Adds this vector to each row of `x`.
    pub fn add_to(self, x: &mut [f32]) {
        // SAFETY: the host reads and writes as many rows as there are.
        unsafe { raw::add_bias(self.handle, x.as_mut_ptr(), self.rows_of(x)) }
    }

    fn rows_of(self, x: &[f32]) -> u32 {
        assert!(self.rows == 1 && x.len().is_multiple_of(self.columns), "rows of the vector's length");
        count(x.len() / self.columns)
    }
}

/// The products of several matrices with the same `x`, one after another in `y`: fewer calls.
///
/// # Panics
/// If the lengths do not fit.
pub fn multiply_all<const N: usize>(tensors: [Tensor; N], x: &[f32], y: &mut [f32]) {
    let outputs: usize = tensors.iter().map(|tensor| tensor.rows).sum();
    let rows = tensors.first().map_or(0, |tensor| x.len() / tensor.columns);
    let fits = tensors.iter().all(|tensor| x.len() == rows * tensor.columns);
    assert!(fits && y.len() == rows * outputs, "rows of the matrices");
    let handles = tensors.map(|tensor| tensor.handle);
    // SAFETY: the host reads as many handles and rows, and writes as many rows, as there are.
    unsafe { raw::matmul_many(handles.as_ptr(), len(&handles), x.as_ptr(), count(rows), y.as_mut_ptr()) }
}

fn count(rows: usize) -> u32 {
    u32::try_from(rows).expect("memory has 32-bit addresses")
}

/// `x[i] = x[i] + y[i]`.
pub fn add(x: &mut [f32], y: &[f32]) {
    assert_eq!(x.len(), y.len(), "as many elements");
    // SAFETY: the host reads and writes as many elements as there are.
    unsafe { raw::add(x.as_mut_ptr(), y.as_ptr(), len(x)) }
}

/// `gate[i] = SiLU(gate[i]) · up[i]`.
pub fn silu_multiply(gate: &mut [f32], up: &[f32]) {
    assert_eq!(gate.len(), up.len(), "as many elements");
    // SAFETY: the host reads and writes as many elements as there are.
    unsafe { raw::silu_multiply(gate.as_mut_ptr(), up.as_ptr(), len(gate)) }
}

/// GELU of each element, by the error function or approximated by tanh.
pub fn gelu(x: &mut [f32], by_tanh: bool) {
    // SAFETY: the host reads and writes as many elements as there are.
    unsafe { raw::gelu(x.as_mut_ptr(), len(x), by_tanh.into()) }
}

/// Softmax over all elements.
pub fn softmax(x: &mut [f32]) {
    // SAFETY: the host reads and writes as many elements as there are.
    unsafe { raw::softmax(x.as_mut_ptr(), len(x)) }
}

/// Rotary positions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rotary(u32);

impl Rotary {
    /// For heads of `head_dim` elements, whose element i turns together with i + `head_dim` / 2; `None` if
    /// these are no numbers to compute with.
    pub fn open(theta: f64, head_dim: usize, context_tokens: usize) -> Option<Self> {
        let (head_dim, context) = (count(head_dim), count(context_tokens));
        // SAFETY: without factors it touches no memory.
        let handle = unsafe { raw::rope_open(theta, head_dim, head_dim, context, 0, std::ptr::null()) };
        u32::try_from(handle).ok().map(Self)
    }

    /// Rotates the heads of consecutive tokens, a row of `width` elements each; the first is at `position`.
    pub fn rotate(self, x: &mut [f32], width: usize, position: usize) {
        assert!(width > 0 && x.len().is_multiple_of(width), "whole rows");
        // SAFETY: the host reads and writes as many rows as there are.
        unsafe { raw::rope(self.0, x.as_mut_ptr(), count(x.len() / width), count(width), count(position)) }
    }
}

/// What a sequence remembers: keys and values of its tokens, which the host keeps.
#[derive(Debug)]
pub struct Memory {
    handle: u32,
    tokens: usize,
    kv_width: usize,
    head_dim: usize,
}

impl Memory {
    /// Of an empty sequence; `None` if there cannot be such a memory.
    pub fn open(layers: usize, kv_heads: usize, head_dim: usize) -> Option<Self> {
        // SAFETY: it touches no memory.
        let handle = unsafe { raw::memory_open(count(layers), count(kv_heads), count(head_dim)) };
        let kv_width = kv_heads * head_dim;
        Some(Self { handle: u32::try_from(handle).ok()?, tokens: 0, kv_width, head_dim })
    }

    /// Tokens that all layers have seen.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// Takes keys and values of the tokens after those counted into a layer, and writes what each of them
    /// sees. `query` and `out` have `heads` heads for each token, `key` and `value` as many as there were opened.
    pub fn attend(&mut self, layer: usize, heads: usize, [query, key, value]: [&[f32]; 3], out: &mut [f32]) {
        let rows = key.len() / self.kv_width;
        assert!(key.len() == rows * self.kv_width && value.len() == key.len(), "keys and values");
        assert!(query.len() == rows * heads * self.head_dim && out.len() == query.len(), "queries");
        let (layer, heads, rows) = (count(layer), count(heads), count(rows));
        let (query, key, value) = (query.as_ptr(), key.as_ptr(), value.as_ptr());
        // SAFETY: the host reads and writes as many rows as there are.
        unsafe { raw::attend(self.handle, layer, heads, rows, query, key, value, out.as_mut_ptr()) }
    }

    /// Counts tokens that have gone through all layers.
    pub fn advance(&mut self, tokens: usize) {
        // SAFETY: it touches no memory.
        unsafe { raw::memory_advance(self.handle, count(tokens)) }
        self.tokens += tokens;
    }
}

/// How a token is chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// 0 takes the likeliest token always.
    pub temperature: f32,
    /// Only this many likeliest tokens, 0 for all.
    pub top_k: u32,
    /// Only tokens at least this much as likely as the likeliest; 0 for all.
    pub min_p: f32,
    /// Only the likeliest tokens whose probabilities reach this sum; 1 for all.
    pub top_p: f32,
    /// Divides positive and multiplies negative logits of tokens seen before; 1 for none.
    pub repetition_penalty: f32,
    /// Taken from the logits of the answer's tokens, once for each.
    pub presence_penalty: f32,
    /// Taken from the logits of the answer's tokens, for every time they occur.
    pub frequency_penalty: f32,
}

impl Default for Sampling {
    fn default() -> Self {
        Self {
            temperature: 0.0,
            top_k: 0,
            min_p: 0.0,
            top_p: 1.0,
            repetition_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
        }
    }
}

/// A source of chance that the run's seed determines. Not in `init`.
#[derive(Debug)]
pub struct Sampler(u32);

impl Sampler {
    /// `None` if these are no numbers to choose by.
    pub fn open(sampling: &Sampling) -> Option<Self> {
        let words = [
            sampling.temperature.to_bits(),
            sampling.top_k,
            sampling.min_p.to_bits(),
            sampling.top_p.to_bits(),
            sampling.repetition_penalty.to_bits(),
            sampling.presence_penalty.to_bits(),
            sampling.frequency_penalty.to_bits(),
        ];
        // SAFETY: the host reads seven words.
        u32::try_from(unsafe { raw::sampler_open(words.as_ptr()) }).ok().map(Self)
    }

    /// Chooses the token that comes after those of prompt and answer.
    pub fn next(&mut self, logits: &[f32], prompt: &[u32], answer: &[u32]) -> u32 {
        let (prompt_tokens, answer_tokens) = (len(prompt), len(answer));
        let (prompt, answer) = (prompt.as_ptr(), answer.as_ptr());
        // SAFETY: the host reads as many logits and tokens as there are.
        unsafe { raw::sample(self.0, logits.as_ptr(), len(logits), prompt, prompt_tokens, answer, answer_tokens) }
    }
}
