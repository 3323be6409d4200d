//! The tensors of GGUF files under the names that Hugging Face's files have.

use super::{Gguf, GgufError};
use crate::tensors::{LoadError, Tensor, TensorSource};

/// The tensors of a GGUF file under their Hugging Face names.
#[derive(Debug)]
pub struct GgufTensors<'a> {
    gguf: &'a Gguf<'a>,
    names: &'static Names,
}

/// How one architecture's names correspond: parts of Hugging Face's names, and of GGUF's.
#[derive(Debug)]
struct Names {
    /// Before the layer's number in Hugging Face's names; `blk.` in GGUF's.
    layer_prefix: &'static str,
    /// Full names without `.weight` or `.bias`.
    outside: &'static [(&'static str, &'static str)],
    /// Names after the layer's number.
    inside: &'static [(&'static str, &'static str)],
    /// Tensors that carry nothing that is computed from the stored bytes.
    ignored: &'static [&'static str],
}

const LLAMA: Names = Names {
    layer_prefix: "model.layers.",
    outside: &[("model.embed_tokens", "token_embd"), ("model.norm", "output_norm"), ("lm_head", "output")],
    inside: &[
        ("input_layernorm", "attn_norm"),
        ("self_attn.q_proj", "attn_q"),
        ("self_attn.k_proj", "attn_k"),
        ("self_attn.v_proj", "attn_v"),
        ("self_attn.o_proj", "attn_output"),
        ("self_attn.q_norm", "attn_q_norm"),
        ("self_attn.k_norm", "attn_k_norm"),
        ("post_attention_layernorm", "ffn_norm"),
        ("mlp.gate_proj", "ffn_gate"),
        ("mlp.up_proj", "ffn_up"),
        ("mlp.down_proj", "ffn_down"),
    ],
    // The divisors of the rotary frequencies are read with the config.
    ignored: &["rope_freqs.weight"],
};

const GPT_NEOX: Names = Names {
    layer_prefix: "gpt_neox.layers.",
    outside: &[
        ("gpt_neox.embed_in", "token_embd"),
        ("gpt_neox.final_layer_norm", "output_norm"),
        ("embed_out", "output"),
    ],
    inside: &[
        ("input_layernorm", "attn_norm"),
        ("attention.query_key_value", "attn_qkv"),
        ("attention.dense", "attn_output"),
        ("post_attention_layernorm", "ffn_norm"),
        ("mlp.dense_h_to_4h", "ffn_up"),
        ("mlp.dense_4h_to_h", "ffn_down"),
    ],
    ignored: &[],
};

const BLOOM: Names = Names {
    layer_prefix: "transformer.h.",
    outside: &[
        ("transformer.word_embeddings", "token_embd"),
        ("transformer.word_embeddings_layernorm", "token_embd_norm"),
        ("transformer.ln_f", "output_norm"),
        ("lm_head", "output"),
    ],
    inside: &[
        ("input_layernorm", "attn_norm"),
        ("self_attention.query_key_value", "attn_qkv"),
        ("self_attention.dense", "attn_output"),
        ("post_attention_layernorm", "ffn_norm"),
        ("mlp.dense_h_to_4h", "ffn_up"),
        ("mlp.dense_4h_to_h", "ffn_down"),
    ],
    ignored: &[],
};

const BERT: Names = Names {
    layer_prefix: "encoder.layer.",
    outside: &[
        ("embeddings.word_embeddings", "token_embd"),
        ("embeddings.position_embeddings", "position_embd"),
        ("embeddings.token_type_embeddings", "token_types"),
        ("embeddings.LayerNorm", "token_embd_norm"),
    ],
    inside: &[
        ("attention.self.query", "attn_q"),
        ("attention.self.key", "attn_k"),
        ("attention.self.value", "attn_v"),
        ("attention.output.dense", "attn_output"),
        ("attention.output.LayerNorm", "attn_output_norm"),
        ("intermediate.dense", "ffn_up"),
        ("output.dense", "ffn_down"),
        ("output.LayerNorm", "layer_output_norm"),
    ],
    ignored: &[],
};

impl Names {
    /// GGUF's name for Hugging Face's.
    fn gguf(&self, name: &str) -> Option<String> {
        let (stem, kind) = name.rsplit_once('.')?;
        let find = |names: &[(&str, &'static str)], stem: &str| {
            names.iter().find(|(theirs, _)| *theirs == stem).map(|(_, ours)| *ours)
        };
        if let Some((layer, part)) = stem.strip_prefix(self.layer_prefix).and_then(|rest| rest.split_once('.')) {
            return Some(format!("blk.{layer}.{}.{kind}", find(self.inside, part)?));
        }
        Some(format!("{}.{kind}", find(self.outside, stem)?))
    }

    /// Whether a name in a GGUF file is one of this architecture.
    fn knows(&self, name: &str) -> bool {
        if self.ignored.contains(&name) {
            return true;
        }
        let Some((stem, "weight" | "bias")) = name.rsplit_once('.') else { return false };
        match stem.strip_prefix("blk.").and_then(|rest| rest.split_once('.')) {
            Some((layer, part)) => {
                layer.bytes().all(|byte| byte.is_ascii_digit()) && self.inside.iter().any(|(_, known)| *known == part)
            }
            None => self.outside.iter().any(|(_, known)| *known == stem),
        }
    }
}

impl<'a> GgufTensors<'a> {
    /// The tensors of `gguf`, whose `general.architecture` decides the names.
    ///
    /// # Errors
    /// If the architecture is unknown, or a tensor is none that this architecture has: it would
    /// change the computation in a way that is not computed here.
    pub fn new(gguf: &'a Gguf<'a>) -> Result<Self, LoadError> {
        let key = "general.architecture";
        let names = match gguf.str(key)?.ok_or_else(|| GgufError::key(key, "missing"))? {
            "llama" | "qwen2" | "qwen3" => &LLAMA,
            "gptneox" => &GPT_NEOX,
            "bloom" => &BLOOM,
            "bert" => &BERT,
            other => return Err(GgufError::key(key, format!("{other:?} does not run here")).into()),
        };
        match gguf.tensor_names().find(|name| !names.knows(name)) {
            Some(name) => {
                let why = "not a tensor of this architecture as it is computed here".into();
                Err(GgufError::Tensor { name: name.into(), why }.into())
            }
            None => Ok(Self { gguf, names }),
        }
    }
}

impl TensorSource for GgufTensors<'_> {
    fn tensor(&self, name: &str) -> Result<Option<Tensor<'_>>, LoadError> {
        match self.names.gguf(name) {
            Some(name) => Ok(self.gguf.tensor(&name)?),
            None => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{BERT, BLOOM, GPT_NEOX, LLAMA, Names};

    #[test]
    fn names_map_both_ways() {
        let cases: [(&Names, &str, Option<&str>); 10] = [
            (&LLAMA, "model.layers.11.self_attn.q_proj.weight", Some("blk.11.attn_q.weight")),
            (&LLAMA, "model.layers.0.self_attn.q_proj.bias", Some("blk.0.attn_q.bias")),
            (&LLAMA, "model.layers.0.post_attention_layernorm.weight", Some("blk.0.ffn_norm.weight")),
            (&LLAMA, "model.embed_tokens.weight", Some("token_embd.weight")),
            (&LLAMA, "model.layers.0.unknown.weight", None),
            (&LLAMA, "nothing", None),
            (&GPT_NEOX, "gpt_neox.layers.2.attention.query_key_value.bias", Some("blk.2.attn_qkv.bias")),
            (&BLOOM, "transformer.word_embeddings_layernorm.bias", Some("token_embd_norm.bias")),
            (&BERT, "encoder.layer.3.output.LayerNorm.weight", Some("blk.3.layer_output_norm.weight")),
            (&BERT, "embeddings.token_type_embeddings.weight", Some("token_types.weight")),
        ];
        for (names, theirs, ours) in cases {
            assert_eq!(names.gguf(theirs).as_deref(), ours, "{theirs}");
            if let Some(ours) = ours {
                assert!(names.knows(ours), "{ours}");
            }
        }
        for name in ["blk.0.ffn_gate_exps.weight", "blk.x.attn_q.weight", "token_embd.scale", "pooler"] {
            assert!(!LLAMA.knows(name), "{name}");
        }
        assert!(LLAMA.knows("rope_freqs.weight"));
    }
}
