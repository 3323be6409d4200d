//! The network: embedding, layers of attention and gated MLPs, and the logits.

use althing_guest::{
    math::{Memory, Rotary, Tensor, add, silu_multiply},
    refuse,
};
use serde::Deserialize;

/// Tokens that go through the layers at once: bounds the memory of long prompts.
const PASS_TOKENS: usize = 64;

/// `config.json`, as far as this Llama goes.
#[derive(Debug, Deserialize)]
pub struct Config {
    hidden_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_key_value_heads: usize,
    head_dim: Option<usize>,
    intermediate_size: usize,
    max_position_embeddings: usize,
    rms_norm_eps: f32,
    rope_theta: f64,
    eos_token_id: u32,
    tie_word_embeddings: bool,
}

struct Layer {
    attention_norm: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    output: Tensor,
    mlp_norm: Tensor,
    gate: Tensor,
    up: Tensor,
    down: Tensor,
}

pub struct Network {
    config: Config,
    head_dim: usize,
    embedding: Tensor,
    layers: Vec<Layer>,
    norm: Tensor,
    head: Tensor,
    rotary: Rotary,
}

/// What a run has: its sequence's memory, and room to work in.
pub struct State {
    memory: Memory,
    x: Vec<f32>,
    normed: Vec<f32>,
    query: Vec<f32>,
    key: Vec<f32>,
    value: Vec<f32>,
    attended: Vec<f32>,
    gate: Vec<f32>,
    up: Vec<f32>,
    projected: Vec<f32>,
    logits: Vec<f32>,
}

fn tensor(name: &str) -> Tensor {
    Tensor::open(name).unwrap_or_else(|| refuse(&format!("the weights have no {name}")))
}

impl Network {
    pub fn open(config: Config) -> Self {
        let layer = |index: usize| {
            let part = |name: &str| tensor(&format!("model.layers.{index}.{name}.weight"));
            Layer {
                attention_norm: part("input_layernorm"),
                query: part("self_attn.q_proj"),
                key: part("self_attn.k_proj"),
                value: part("self_attn.v_proj"),
                output: part("self_attn.o_proj"),
                mlp_norm: part("post_attention_layernorm"),
                gate: part("mlp.gate_proj"),
                up: part("mlp.up_proj"),
                down: part("mlp.down_proj"),
            }
        };
        let head_dim = config.head_dim.unwrap_or(config.hidden_size / config.num_attention_heads);
        let rotary = Rotary::open(config.rope_theta, head_dim, config.max_position_embeddings);
        let embedding = tensor("model.embed_tokens.weight");
        Self {
            head_dim,
            embedding,
            layers: (0..config.num_hidden_layers).map(layer).collect(),
            norm: tensor("model.norm.weight"),
            head: if config.tie_word_embeddings { embedding } else { tensor("lm_head.weight") },
            rotary: rotary.unwrap_or_else(|| refuse("these are no rotary positions")),
            config,
        }
    }

    pub fn layers(&self) -> usize {
        self.layers.len()
    }

    pub fn context_tokens(&self) -> usize {
        self.config.max_position_embeddings
    }

    pub fn is_end(&self, token: u32) -> bool {
        token == self.config.eos_token_id
    }

    /// The state of a sequence without tokens.
    pub fn state(&self) -> State {
        let memory = Memory::open(self.layers.len(), self.config.num_key_value_heads, self.head_dim);
        let empty = Vec::new;
        State {
            memory: memory.unwrap_or_else(|| refuse("there cannot be such a memory")),
            x: empty(),
            normed: empty(),
            query: empty(),
            key: empty(),
            value: empty(),
            attended: empty(),
            gate: empty(),
            up: empty(),
            projected: empty(),
            logits: vec![0.0; self.head.rows()],
        }
    }

    /// Feeds tokens; the logits after the last.
    pub fn forward<'s>(&self, state: &'s mut State, tokens: &[u32]) -> &'s [f32] {
        for tokens in tokens.chunks(PASS_TOKENS) {
            self.pass(state, tokens);
        }
        let last = &mut state.x[..];
        let start = last.len() - self.config.hidden_size;
        let last = &mut last[start..];
        self.norm.rms_norm(last, self.config.rms_norm_eps);
        self.head.multiply(last, &mut state.logits);
        &state.logits
    }

    fn pass(&self, state: &mut State, tokens: &[u32]) {
        let Config { hidden_size: hidden, num_attention_heads: heads, rms_norm_eps: epsilon, .. } = self.config;
        let kv_width = self.config.num_key_value_heads * self.head_dim;
        let (m, width, position) = (tokens.len(), heads * self.head_dim, state.memory.tokens());
        let State { x, normed, query, key, value, attended, gate, up, projected, .. } = &mut *state;
        x.resize(m * hidden, 0.0);
        for (token, row) in tokens.iter().zip(x.chunks_exact_mut(hidden)) {
            self.embedding.row(*token, row);
        }
        for (buffer, width) in [
            (&mut *normed, hidden),
            (query, width),
            (key, kv_width),
            (value, kv_width),
            (attended, width),
            (gate, self.config.intermediate_size),
            (up, self.config.intermediate_size),
            (projected, hidden),
        ] {
            buffer.resize(m * width, 0.0);
        }
        let State { query, key, value, attended, gate, up, projected, .. } = state;
        for (index, layer) in self.layers.iter().enumerate() {
            state.normed.copy_from_slice(&state.x);
            layer.attention_norm.rms_norm(&mut state.normed, epsilon);
            layer.query.multiply(&state.normed, query);
            layer.key.multiply(&state.normed, key);
            layer.value.multiply(&state.normed, value);
            self.rotary.rotate(query, width, position);
            self.rotary.rotate(key, kv_width, position);
            state.memory.attend(index, heads, [query, key, value], attended);
            layer.output.multiply(attended, projected);
            add(&mut state.x, projected);
            state.normed.copy_from_slice(&state.x);
            layer.mlp_norm.rms_norm(&mut state.normed, epsilon);
            layer.gate.multiply(&state.normed, gate);
            layer.up.multiply(&state.normed, up);
            silu_multiply(gate, up);
            layer.down.multiply(gate, projected);
            add(&mut state.x, projected);
        }
        state.memory.advance(m);
    }
}
