//! Llama-family configs from Hugging Face's `config.json`.

use super::{LlamaConfig, SpecialTokens, Wrong, rope};
use crate::tensors::LoadError;
use serde::Deserialize;
use serde_json::{Map, Value};

/// `config.json` as Hugging Face writes it; other fields are other tools' business. A field that is
/// null is absent.
#[derive(Deserialize)]
struct HfConfig {
    model_type: String,
    architectures: Option<Vec<String>>,
    vocab_size: usize,
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    max_position_embeddings: usize,
    rms_norm_eps: f64,
    rope_theta: Option<f64>,
    rope_scaling: Option<Map<String, Value>>,
    rope_parameters: Option<Map<String, Value>>,
    partial_rotary_factor: Option<f64>,
    tie_word_embeddings: Option<bool>,
    hidden_act: Option<String>,
    attention_bias: Option<bool>,
    mlp_bias: Option<bool>,
    sliding_window: Option<usize>,
    use_sliding_window: Option<bool>,
    layer_types: Option<Vec<String>>,
    num_local_experts: Option<usize>,
    quantization_config: Option<Value>,
    bos_token_id: Option<u32>,
    eos_token_id: Option<Tokens>,
}

/// One token or several.
#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum Tokens {
    One(u32),
    Many(Vec<u32>),
}

impl Tokens {
    pub(super) fn into_vec(self) -> Vec<u32> {
        match self {
            Self::One(token) => vec![token],
            Self::Many(tokens) => tokens,
        }
    }
}

/// Which family a `config.json` is of.
pub(super) fn model_type(json: &[u8]) -> Result<String, LoadError> {
    #[derive(Deserialize)]
    struct Typed {
        model_type: String,
    }
    let typed: Typed = serde_json::from_slice(json).map_err(|error| LoadError::Config(error.to_string()))?;
    Ok(typed.model_type)
}

impl LlamaConfig {
    /// Reads and checks `config.json` of a Llama-family model: `llama`, `mistral`, `qwen2`, `qwen3`.
    ///
    /// # Errors
    /// [`LoadError::Config`] if it is malformed, out of bounds, or asks for what is not computed here.
    pub fn parse(json: &[u8]) -> Result<Self, LoadError> {
        check_family(&model_type(json)?).map_err(Wrong::in_json)?;
        let hf: HfConfig = serde_json::from_slice(json).map_err(|error| LoadError::Config(error.to_string()))?;
        read(hf).map_err(Wrong::in_json)
    }
}

fn read(hf: HfConfig) -> Result<LlamaConfig, Wrong> {
    refuse_other_maths(&hf)?;
    let kind = hf.model_type.as_str();
    let heads = hf.num_attention_heads;
    let head_dim = match hf.head_dim {
        Some(head_dim) => head_dim,
        // Qwen 3's default; everyone else divides.
        None if kind == "qwen3" => 128,
        None => hf.hidden_size.checked_div(heads).unwrap_or(0),
    };
    let parameters = hf.rope_parameters.or(hf.rope_scaling).unwrap_or_default();
    let theta = parameters.get("rope_theta").and_then(Value::as_f64).or(hf.rope_theta);
    let rope_theta = super::theta(theta.unwrap_or(10_000.0))?;
    super::within(&[("head_dim", head_dim, super::HEAD_DIM_MAX)])?;
    let config = LlamaConfig {
        vocab_size: hf.vocab_size,
        hidden_size: hf.hidden_size,
        intermediate_size: hf.intermediate_size,
        layers: hf.num_hidden_layers,
        heads,
        kv_heads: hf.num_key_value_heads.unwrap_or(heads),
        head_dim,
        context_tokens: hf.max_position_embeddings,
        rms_norm_eps: super::epsilon("rms_norm_eps", hf.rms_norm_eps)?,
        rope_theta,
        rope_divisors: rope::divisors(&parameters, rope_theta, head_dim)?,
        rope_interleaved: false,
        qkv_bias: kind == "qwen2",
        qk_norm: kind == "qwen3",
        tied: hf.tie_word_embeddings.unwrap_or(false),
        special: SpecialTokens::from_hf(hf.bos_token_id, hf.eos_token_id),
    };
    let window = match kind {
        "mistral" => hf.sliding_window,
        _ => hf.sliding_window.filter(|_| hf.use_sliding_window == Some(true)),
    };
    let context_tokens = config.context_tokens.min(window.unwrap_or(usize::MAX));
    let config = LlamaConfig { context_tokens, ..config };
    config.check()?;
    Ok(config)
}

/// Refuses other families before their fields are missed.
fn check_family(kind: &str) -> Result<(), Wrong> {
    let why = match kind {
        "llama" | "mistral" | "qwen2" | "qwen3" => return Ok(()),
        "bert" => "\"bert\" continues no text: it makes embeddings".into(),
        other => format!("{other:?} does not run here: llama, mistral, qwen2, qwen3, gpt_neox and bloom do"),
    };
    Err(Wrong::new("model_type", why))
}

/// Settings that change what is computed, in ways that are not computed here.
fn refuse_other_maths(hf: &HfConfig) -> Result<(), Wrong> {
    let causal = |names: &Vec<String>| names.iter().all(|name| name.ends_with("ForCausalLM"));
    if !hf.architectures.as_ref().is_none_or(causal) {
        return Err(Wrong::new("architectures", "only models that continue text (…ForCausalLM) run here"));
    }
    if hf.attention_bias == Some(true) {
        return Err(Wrong::new("attention_bias", "biases of the attention output are not computed here"));
    }
    if hf.mlp_bias == Some(true) {
        return Err(Wrong::new("mlp_bias", "not computed here"));
    }
    if hf.hidden_act.as_deref().is_some_and(|act| act != "silu") {
        return Err(Wrong::new("hidden_act", "only \"silu\" is computed here"));
    }
    if hf.partial_rotary_factor.is_some_and(|factor| factor != 1.0) {
        return Err(Wrong::new("partial_rotary_factor", "only 1 is computed here"));
    }
    if hf.num_local_experts.is_some_and(|experts| experts > 0) {
        return Err(Wrong::new("num_local_experts", "mixtures of experts are not computed here"));
    }
    if hf.quantization_config.is_some() {
        return Err(Wrong::new("quantization_config", "use the unquantised weights, or a GGUF file"));
    }
    let known = |name: &String| ["full_attention", "sliding_attention"].contains(&name.as_str());
    let types = hf.layer_types.as_deref().unwrap_or_default();
    if !types.iter().all(known) {
        return Err(Wrong::new("layer_types", "only full and sliding attention are computed here"));
    }
    if types.iter().any(|name| name == "sliding_attention") && hf.sliding_window.is_none() {
        return Err(Wrong::new("sliding_window", "missing, though layer_types names sliding attention"));
    }
    Ok(())
}
