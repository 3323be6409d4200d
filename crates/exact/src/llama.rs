//! The Llama architecture on the strict kernels: RMS norm, rotary positions, grouped-query attention,
//! SwiGLU. The order of every sum is fixed (`NUMERICS.md`), so prompts may be fed in any pieces.

use crate::{
    config::Config,
    gguf::GgufError,
    math::{self, dot, f16_to_f32, rms_norm, silu, softmax},
    matmul::{Packed, Plan},
};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};

/// Tokens that one pass through the layers carries: bounds the scratch memory of long prompts.
const CHUNK_TOKENS: usize = 64;

/// Why a model was not loaded. Model files come from strangers: nothing in them may panic.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error("config.json: {0}")]
    Config(String),
    #[error("model.safetensors: {0}")]
    Weights(String),
    #[error("tokenizer.json: {0}")]
    Tokenizer(String),
    #[error(transparent)]
    Gguf(#[from] GgufError),
    #[error("chat template: {0}")]
    Template(String),
}

struct Layer {
    attention_norm: Vec<f32>,
    query: Packed,
    key: Packed,
    value: Packed,
    output: Packed,
    mlp_norm: Vec<f32>,
    gate: Packed,
    up: Packed,
    down: Packed,
}

/// A loaded model: read-only, shared by any number of generations.
pub struct Llama {
    config: Config,
    /// `vocab_size` × `hidden_size`, row-major.
    embedding: Vec<f32>,
    layers: Vec<Layer>,
    norm: Vec<f32>,
    head: Packed,
    rope: Rope,
}

/// Keys and values of the tokens seen so far.
#[derive(Clone, Debug)]
pub struct KvCache {
    /// Per layer, `tokens × kv_heads × head_dim`, keys already rotated.
    keys: Vec<Vec<f32>>,
    values: Vec<Vec<f32>>,
    tokens: usize,
}

impl KvCache {
    /// Tokens seen so far.
    pub fn tokens(&self) -> usize {
        self.tokens
    }
}

/// Cosines and sines: `context_tokens × head_dim/2`, computed in f64 by pure Rust and rounded once.
struct Rope {
    cos: Vec<f32>,
    sin: Vec<f32>,
    half: usize,
}

impl Rope {
    fn new(config: &Config) -> Self {
        let half = config.head_dim / 2;
        let (mut cos, mut sin) = (Vec::new(), Vec::new());
        #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation)]
        // positions and dimensions are far below 2^52; rounding to f32 is the contract
        for position in 0..config.context_tokens {
            for i in 0..half {
                let frequency = libm::pow(config.rope_theta, -((2 * i) as f64) / config.head_dim as f64);
                let angle = position as f64 * frequency;
                cos.push(libm::cos(angle) as f32);
                sin.push(libm::sin(angle) as f32);
            }
        }
        Self { cos, sin, half }
    }

    /// Rotates one head in place: pairs are element i and element i + half.
    fn rotate(&self, head: &mut [f32], position: usize) {
        let at = position * self.half;
        let (first, second) = head.split_at_mut(self.half);
        for i in 0..self.half {
            let (cos, sin) = (self.cos[at + i], self.sin[at + i]);
            let (a, b) = (first[i], second[i]);
            first[i] = a * cos - b * sin;
            second[i] = b * cos + a * sin;
        }
    }
}

/// Tensors of a file, read as f32.
struct Weights<'a>(SafeTensors<'a>);

impl Weights<'_> {
    fn floats(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, LoadError> {
        let fail = |why: String| LoadError::Weights(format!("{name}: {why}"));
        let tensor: TensorView = self.0.tensor(name).map_err(|error| fail(error.to_string()))?;
        if tensor.shape() != shape {
            return Err(fail(format!("shape {:?}, config.json asks for {shape:?}", tensor.shape())));
        }
        let data = tensor.data();
        let values: Vec<f32> = match tensor.dtype() {
            Dtype::F32 => data.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect(),
            Dtype::F16 => data.as_chunks::<2>().0.iter().map(|bytes| f16_to_f32(u16::from_le_bytes(*bytes))).collect(),
            Dtype::BF16 => {
                let wide = |bytes: &[u8; 2]| f32::from_bits(u32::from(u16::from_le_bytes(*bytes)) << 16);
                data.as_chunks::<2>().0.iter().map(wide).collect()
            }
            other => return Err(fail(format!("{other:?} weights are not supported: use F32, F16 or BF16"))),
        };
        if values.iter().any(|value| !value.is_finite()) {
            return Err(fail("a weight is not a finite number".into()));
        }
        Ok(values)
    }

    fn matrix(&self, name: &str, n: usize, k: usize) -> Result<Packed, LoadError> {
        let rows = self.floats(name, &[n, k])?;
        Ok(Packed::pack(n, k, |row, column| rows[row * k + column]))
    }
}

impl Llama {
    /// Loads the weights of `config` from the bytes of a safetensors file with the usual names.
    ///
    /// # Errors
    /// [`LoadError::Weights`] if a tensor is missing, of another shape or type, or not finite.
    pub fn from_safetensors(config: Config, file: &[u8]) -> Result<Self, LoadError> {
        if config.qkv_bias || config.qk_norm || config.rope_interleaved || !config.rope_divisors.is_empty() {
            return Err(LoadError::Config("biases, norms of queries and scaled rotations are not computed yet".into()));
        }
        let weights = Weights(SafeTensors::deserialize(file).map_err(|error| LoadError::Weights(error.to_string()))?);
        let Config { hidden_size: hidden, intermediate_size: ffn, heads, kv_heads, head_dim, .. } = config;
        let embedding = weights.floats("model.embed_tokens.weight", &[config.vocab_size, hidden])?;
        let head = if config.tied {
            Packed::pack(config.vocab_size, hidden, |row, column| embedding[row * hidden + column])
        } else {
            weights.matrix("lm_head.weight", config.vocab_size, hidden)?
        };
        let layers = (0..config.layers).map(|index| {
            let name = |part: &str| format!("model.layers.{index}.{part}.weight");
            Ok(Layer {
                attention_norm: weights.floats(&name("input_layernorm"), &[hidden])?,
                query: weights.matrix(&name("self_attn.q_proj"), heads * head_dim, hidden)?,
                key: weights.matrix(&name("self_attn.k_proj"), kv_heads * head_dim, hidden)?,
                value: weights.matrix(&name("self_attn.v_proj"), kv_heads * head_dim, hidden)?,
                output: weights.matrix(&name("self_attn.o_proj"), hidden, heads * head_dim)?,
                mlp_norm: weights.floats(&name("post_attention_layernorm"), &[hidden])?,
                gate: weights.matrix(&name("mlp.gate_proj"), ffn, hidden)?,
                up: weights.matrix(&name("mlp.up_proj"), ffn, hidden)?,
                down: weights.matrix(&name("mlp.down_proj"), hidden, ffn)?,
            })
        });
        Ok(Self {
            layers: layers.collect::<Result<_, LoadError>>()?,
            norm: weights.floats("model.norm.weight", &[hidden])?,
            rope: Rope::new(&config),
            embedding,
            head,
            config,
        })
    }

    /// The model's numbers.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// A cache that has seen nothing.
    pub fn cache(&self) -> KvCache {
        KvCache { keys: vec![Vec::new(); self.config.layers], values: vec![Vec::new(); self.config.layers], tokens: 0 }
    }

    /// Feeds `tokens` (at least one) and returns the logits after the last, `vocab_size` of them.
    /// Feeding them in pieces gives the same bits.
    ///
    /// # Panics
    /// If there is no token, one is not in the vocabulary, or the context is exceeded: callers check.
    pub fn forward(&self, cache: &mut KvCache, tokens: &[u32], plan: Plan) -> Vec<f32> {
        assert!(!tokens.is_empty(), "at least one token");
        assert!(cache.tokens + tokens.len() <= self.config.context_tokens, "within the context");
        let mut last = Vec::new();
        for chunk in tokens.chunks(CHUNK_TOKENS) {
            last = self.layers_forward(cache, chunk, plan);
        }
        let mut normed = vec![0.0; self.config.hidden_size];
        rms_norm(&last, &self.norm, self.config.rms_norm_eps, &mut normed);
        let mut logits = vec![0.0; self.config.vocab_size];
        self.head.multiply(&normed, 1, &mut logits, plan);
        logits
    }

    /// Runs a chunk through all layers; returns the last token's residual stream.
    fn layers_forward(&self, cache: &mut KvCache, tokens: &[u32], plan: Plan) -> Vec<f32> {
        let Config { hidden_size: hidden, intermediate_size: ffn, heads, kv_heads, head_dim, .. } = self.config;
        let (m, first) = (tokens.len(), cache.tokens);
        let mut x = Vec::with_capacity(m * hidden);
        for token in tokens {
            x.extend_from_slice(&self.embedding[*token as usize * hidden..][..hidden]);
        }
        let mut normed = vec![0.0; m * hidden];
        let mut query = vec![0.0; m * heads * head_dim];
        let mut key = vec![0.0; m * kv_heads * head_dim];
        let mut value = vec![0.0; m * kv_heads * head_dim];
        let mut attended = vec![0.0; m * heads * head_dim];
        let mut projected = vec![0.0; m * hidden];
        let (mut gate, mut up) = (vec![0.0; m * ffn], vec![0.0; m * ffn]);
        for (layer, (keys, values)) in self.layers.iter().zip(cache.keys.iter_mut().zip(&mut cache.values)) {
            self.norm_rows(&x, &layer.attention_norm, &mut normed);
            layer.query.multiply(&normed, m, &mut query, plan);
            layer.key.multiply(&normed, m, &mut key, plan);
            layer.value.multiply(&normed, m, &mut value, plan);
            for row in 0..m {
                for head in query[row * heads * head_dim..][..heads * head_dim].chunks_exact_mut(head_dim) {
                    self.rope.rotate(head, first + row);
                }
                for head in key[row * kv_heads * head_dim..][..kv_heads * head_dim].chunks_exact_mut(head_dim) {
                    self.rope.rotate(head, first + row);
                }
            }
            keys.extend_from_slice(&key);
            values.extend_from_slice(&value);
            for row in 0..m {
                let at = row * heads * head_dim..(row + 1) * heads * head_dim;
                self.attend(&query[at.clone()], keys, values, first + row + 1, &mut attended[at]);
            }
            layer.output.multiply(&attended, m, &mut projected, plan);
            add(&mut x, &projected);
            self.norm_rows(&x, &layer.mlp_norm, &mut normed);
            layer.gate.multiply(&normed, m, &mut gate, plan);
            layer.up.multiply(&normed, m, &mut up, plan);
            for (gate, up) in gate.iter_mut().zip(&up) {
                *gate = silu(*gate) * up;
            }
            layer.down.multiply(&gate, m, &mut projected, plan);
            add(&mut x, &projected);
        }
        cache.tokens += m;
        x.split_off((m - 1) * hidden)
    }

    fn norm_rows(&self, x: &[f32], weight: &[f32], out: &mut [f32]) {
        let hidden = self.config.hidden_size;
        for (x, out) in x.chunks_exact(hidden).zip(out.chunks_exact_mut(hidden)) {
            rms_norm(x, weight, self.config.rms_norm_eps, out);
        }
    }

    /// One token's attention over the first `seen` cached tokens. Scores are `q·k · (1/√head_dim)`;
    /// the weighted values are summed from the oldest token to the newest.
    fn attend(&self, query: &[f32], keys: &[f32], values: &[f32], seen: usize, out: &mut [f32]) {
        let Config { heads, kv_heads, head_dim, .. } = self.config;
        #[allow(clippy::cast_precision_loss)] // at most 1024
        let scale = 1.0 / (head_dim as f32).sqrt();
        let (stride, group) = (kv_heads * head_dim, heads / kv_heads);
        let mut scores = vec![0.0; seen];
        for (head, (query, out)) in query.chunks_exact(head_dim).zip(out.chunks_exact_mut(head_dim)).enumerate() {
            let offset = head / group * head_dim;
            for (token, score) in scores.iter_mut().enumerate() {
                *score = dot(query, &keys[token * stride + offset..][..head_dim]) * scale;
            }
            softmax(&mut scores);
            out.fill(0.0);
            for (token, score) in scores.iter().enumerate() {
                for (out, value) in out.iter_mut().zip(&values[token * stride + offset..][..head_dim]) {
                    *out += score * value;
                }
            }
        }
    }
}

fn add(x: &mut [f32], y: &[f32]) {
    for (x, y) in x.iter_mut().zip(y) {
        *x += y;
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
