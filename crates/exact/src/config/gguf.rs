//! Llama-family configs from the metadata of a GGUF file.

use super::{LlamaConfig, SpecialTokens, Wrong, rope};
use crate::{
    gguf::{Gguf, GgufError},
    matmul::Format,
    tensors::LoadError,
};

/// What a key below the architecture's name must say for the computation to be the usual one.
/// Other keys are refused: whoever added them changed something.
const KEYS: &[(&str, Must)] = &[
    ("context_length", Must::Any),
    ("embedding_length", Must::Any),
    ("block_count", Must::Any),
    ("feed_forward_length", Must::Any),
    ("vocab_size", Must::Any),
    ("attention.head_count", Must::Any),
    ("attention.head_count_kv", Must::Any),
    ("attention.key_length", Must::Any),
    ("attention.value_length", Must::Any),
    ("attention.layer_norm_rms_epsilon", Must::Any),
    ("attention.sliding_window", Must::Any),
    ("rope.dimension_count", Must::Any),
    ("rope.freq_base", Must::Any),
    ("rope.scaling.type", Must::Any),
    ("rope.scaling.factor", Must::Any),
    ("rope.scale_linear", Must::Any),
    ("rope.scaling.original_context_length", Must::Any),
    ("rope.scaling.finetuned", Must::Any),
    ("tensor_data_layout", Must::Any),
    ("expert_count", Must::Zero),
    ("expert_used_count", Must::Zero),
    ("attention.causal", Must::Be(true)),
    ("use_parallel_residual", Must::Be(false)),
    ("attention.max_alibi_bias", Must::Zero),
    ("nextn_predict_layers", Must::Zero),
];

/// What the value of a key must be.
#[derive(Clone, Copy)]
pub(super) enum Must {
    Any,
    Zero,
    Be(bool),
}

/// Control tokens that end an answer wherever they are in a vocabulary: files name one or two of
/// those that their templates use.
const ENDS: [&str; 12] = [
    "<|eot_id|>",
    "<|eom_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<end_of_turn>",
    "<EOT>",
    "_<EOT>",
    "<|end_of_turn|>",
    "<｜end▁of▁sentence｜>",
    "</s>",
];

/// Keys below an architecture's name, read with errors that say the whole key.
pub(super) struct Section<'a> {
    pub gguf: &'a Gguf<'a>,
    pub architecture: &'a str,
}

impl<'a> Section<'a> {
    pub(super) fn new(gguf: &'a Gguf<'a>) -> Result<Self, LoadError> {
        let key = "general.architecture";
        Ok(Self { gguf, architecture: gguf.str(key)?.ok_or_else(|| GgufError::key(key, "missing"))? })
    }

    pub(super) fn key(&self, name: &str) -> String {
        format!("{}.{name}", self.architecture)
    }

    pub(super) fn optional(&self, name: &str) -> Result<Option<usize>, GgufError> {
        Ok(self.gguf.u32(&self.key(name))?.map(|number| number as usize))
    }

    pub(super) fn required(&self, name: &str) -> Result<usize, GgufError> {
        self.optional(name)?.ok_or_else(|| GgufError::key(&self.key(name), "missing"))
    }

    pub(super) fn float(&self, name: &str) -> Result<Option<f64>, GgufError> {
        Ok(self.gguf.f32(&self.key(name))?.map(f64::from))
    }

    /// One number for all layers: an array must repeat it.
    pub(super) fn uniform(&self, name: &str) -> Result<Option<usize>, GgufError> {
        let key = self.key(name);
        match self.gguf.u32_or_u32s(&key)?.as_deref() {
            None => Ok(None),
            Some([first, rest @ ..]) if rest.iter().all(|other| other == first) => Ok(Some(*first as usize)),
            Some(_) => Err(GgufError::key(&key, "layers differ, which is not computed here")),
        }
    }

    /// Rows of the embedding, of which the vocabulary's tokens are the first.
    pub(super) fn vocab_size(&self) -> Result<usize, LoadError> {
        let name = "token_embd.weight";
        let missing = || GgufError::Tensor { name: name.into(), why: "missing".into() };
        let rows = self.gguf.tensor(name)?.ok_or_else(missing)?.shape[0];
        let tokens = self.gguf.strs("tokenizer.ggml.tokens")?.map_or(0, |tokens| tokens.len());
        if tokens > rows {
            return Err(GgufError::key("tokenizer.ggml.tokens", "more tokens than rows of the embedding").into());
        }
        Ok(rows)
    }

    /// Refuses keys of the architecture that are not in `keys`, or have values that are not computed.
    pub(super) fn refuse_other_maths(&self, keys: &[(&str, Must)]) -> Result<(), GgufError> {
        let prefix = self.key("");
        for key in self.gguf.keys() {
            let Some(name) = key.strip_prefix(&prefix) else { continue };
            let wrong = |why: &str| Err(GgufError::key(key, why));
            match keys.iter().find(|(known, _)| *known == name) {
                None => return wrong("may change the computation in a way that is not computed here"),
                Some((_, Must::Any)) => {}
                Some((_, Must::Be(value))) if self.gguf.bool(key)? == Some(*value) => {}
                Some((_, Must::Zero)) if self.gguf.u32(key) == Ok(Some(0)) || self.gguf.f32(key) == Ok(Some(0.0)) => {}
                Some(_) => return wrong("its value is not computed here"),
            }
        }
        Ok(())
    }
}

impl LlamaConfig {
    /// Reads and checks the metadata of a Llama-family GGUF file: `llama` (Llama, Mistral and their
    /// kin), `qwen2`, `qwen3`.
    ///
    /// # Errors
    /// What is missing, out of bounds, or not computed here, by its key.
    pub fn from_gguf(gguf: &Gguf<'_>) -> Result<Self, LoadError> {
        let section = Section::new(gguf)?;
        let architecture = section.architecture;
        if !["llama", "qwen2", "qwen3"].contains(&architecture) {
            let why = match architecture {
                "bert" => "\"bert\" continues no text: it makes embeddings".into(),
                other => format!("{other:?} does not run here: llama, qwen2, qwen3, gptneox and bloom do"),
            };
            return Err(GgufError::key("general.architecture", why).into());
        }
        section.refuse_other_maths(KEYS)?;
        let hidden_size = section.required("embedding_length")?;
        let missing = |name: &str| GgufError::key(&section.key(name), "missing");
        let heads = section.uniform("attention.head_count")?.ok_or_else(|| missing("attention.head_count"))?;
        let head_dim = section.optional("attention.key_length")?;
        let head_dim = head_dim.unwrap_or(hidden_size.checked_div(heads).unwrap_or(0));
        for name in ["attention.value_length", "rope.dimension_count"] {
            if section.optional(name)?.is_some_and(|value| value != head_dim) {
                return Err(GgufError::key(&section.key(name), format!("not the {head_dim} of a head")).into());
            }
        }
        super::within(&[("head_dim", head_dim, super::HEAD_DIM_MAX)]).map_err(Wrong::in_gguf)?;
        let name = "attention.layer_norm_rms_epsilon";
        let rms_norm_eps = section.float(name)?.ok_or_else(|| missing(name))?;
        let window = section.optional("attention.sliding_window")?.filter(|window| *window > 0);
        let config = Self {
            vocab_size: section.vocab_size()?,
            hidden_size,
            intermediate_size: section.uniform("feed_forward_length")?.ok_or_else(|| missing("feed_forward_length"))?,
            layers: section.required("block_count")?,
            heads,
            kv_heads: section.uniform("attention.head_count_kv")?.unwrap_or(heads),
            head_dim,
            context_tokens: section.required("context_length")?.min(window.unwrap_or(usize::MAX)),
            rms_norm_eps: super::epsilon("rms_norm_eps", rms_norm_eps).map_err(Wrong::in_gguf)?,
            rope_theta: section.float("rope.freq_base")?.unwrap_or(10_000.0),
            rope_divisors: rope_divisors(&section, head_dim)?,
            rope_interleaved: architecture == "llama",
            qkv_bias: gguf.tensor("blk.0.attn_q.bias")?.is_some(),
            qk_norm: architecture == "qwen3",
            tied: gguf.tensor("output.weight")?.is_none(),
            special: special_tokens(gguf)?,
        };
        config.check().map_err(Wrong::in_gguf)?;
        Ok(config)
    }
}

/// From the tensor `rope_freqs.weight`, or from linear scaling.
fn rope_divisors(section: &Section<'_>, head_dim: usize) -> Result<Vec<f32>, LoadError> {
    let name = "rope_freqs.weight";
    let factor = section.float("rope.scaling.factor")?.or(section.float("rope.scale_linear")?);
    let key = section.key("rope.scaling.type");
    let scale = match (section.gguf.str(&key)?, factor) {
        (Some("none"), _) | (Some("linear") | None, None) => 1.0,
        (Some("linear") | None, Some(factor)) => factor,
        (Some(other), _) => return Err(GgufError::key(&key, format!("{other:?} is not computed here")).into()),
    };
    let Some(tensor) = section.gguf.tensor(name)? else {
        // A factor of zero is how some files say that there is none.
        return rope::linear(if scale == 0.0 { 1.0 } else { scale }, head_dim).map_err(Wrong::in_gguf);
    };
    let fail = |why: &str| LoadError::from(GgufError::Tensor { name: name.into(), why: why.into() });
    if scale != 0.0 && scale != 1.0 {
        return Err(fail("divisors and a scaling factor at once are not computed here"));
    }
    if tensor.format != Format::F32 || tensor.shape != [head_dim / 2] {
        return Err(fail(&format!("not {} numbers of F32", head_dim / 2)));
    }
    Ok(tensor.data.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect())
}

/// The token before a text, whether it is added, and those that end an answer.
pub(super) fn special_tokens(gguf: &Gguf<'_>) -> Result<SpecialTokens, LoadError> {
    let token = |name: &str| gguf.u32(&format!("tokenizer.ggml.{name}_token_id"));
    let sentencepiece = gguf.str("tokenizer.ggml.model")? == Some("llama");
    // SentencePiece vocabularies have these two in the same places, and old files don't say so.
    let bos = token("bos")?.or(sentencepiece.then_some(1));
    let first = token("eos")?.or(sentencepiece.then_some(2));
    let mut eos: Vec<u32> = first.into_iter().chain(token("eot")?).chain(token("eom")?).collect();
    let tokens = gguf.strs("tokenizer.ggml.tokens")?.unwrap_or_default();
    let types = gguf.i32s("tokenizer.ggml.token_type")?.unwrap_or_default();
    for (id, (text, token_type)) in (0..).zip(tokens.iter().zip(types)) {
        if (token_type == 3 || token_type == 4) && ENDS.contains(text) {
            eos.push(id);
        }
    }
    eos.sort_unstable();
    eos.dedup();
    let llama3 = matches!(gguf.str("tokenizer.ggml.pre")?, Some("llama-bpe" | "llama3" | "llama-v3"));
    let add_bos = gguf.bool("tokenizer.ggml.add_bos_token")?.unwrap_or(sentencepiece || llama3);
    Ok(SpecialTokens { bos, add_bos: add_bos && bos.is_some(), eos })
}
