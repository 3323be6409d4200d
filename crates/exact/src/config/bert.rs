//! Configs of BERT models that make sentence embeddings.

use super::{
    Activation, Wrong, epsilon,
    gguf::Must,
    others::{check_sizes, from_json, gguf_epsilon, keys, section},
    within,
};
use crate::{
    gguf::{Gguf, GgufError},
    tensors::LoadError,
};
use serde::Deserialize;
use serde_json::Value;

/// A text goes through the layers at once, so these bound the memory that it takes: about a GiB.
const POSITIONS_MAX: usize = 1 << 13;
const BERT_FFN_MAX: usize = 1 << 15;

/// How the vectors of a text's tokens become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pooling {
    Mean,
    /// The first token's.
    Cls,
}

/// The numbers of a BERT model that makes sentence embeddings.
#[derive(Clone, Debug, PartialEq)]
pub struct BertConfig {
    pub vocab_size: usize,
    pub hidden_size: usize,
    pub intermediate_size: usize,
    pub layers: usize,
    pub heads: usize,
    /// Longest text, tokens, those around it included.
    pub context_tokens: usize,
    /// Rows of the position embedding, no fewer.
    pub positions: usize,
    /// Rows of the token-type embedding, of which the first is used.
    pub token_types: usize,
    pub layer_norm_eps: f32,
    pub activation: Activation,
    pub pooling: Pooling,
    /// Whether embeddings are scaled to length 1.
    pub normalize: bool,
}

#[derive(Deserialize)]
struct HfBert {
    vocab_size: usize,
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    max_position_embeddings: usize,
    type_vocab_size: Option<usize>,
    layer_norm_eps: f64,
    hidden_act: String,
    position_embedding_type: Option<String>,
    is_decoder: Option<bool>,
}

impl BertConfig {
    /// Reads and checks `config.json`, with sentence-transformers' `1_Pooling/config.json`,
    /// `modules.json` and `sentence_bert_config.json` where the model has them. Without the first,
    /// tokens are averaged; without a `Normalize` module, embeddings keep their length.
    ///
    /// # Errors
    /// [`LoadError::Config`] if one is malformed, out of bounds, or asks for what is not computed here.
    pub fn parse(
        json: &[u8],
        pooling: Option<&[u8]>,
        modules: Option<&[u8]>,
        sentence: Option<&[u8]>,
    ) -> Result<Self, LoadError> {
        let hf: HfBert = from_json(json, "bert")?;
        let read = || {
            if hf.position_embedding_type.as_deref().is_some_and(|kind| kind != "absolute") {
                return Err(Wrong::new("position_embedding_type", "only \"absolute\" is computed here"));
            }
            if hf.is_decoder == Some(true) {
                return Err(Wrong::new("is_decoder", "only encoders are computed here"));
            }
            Ok(Self {
                vocab_size: hf.vocab_size,
                hidden_size: hf.hidden_size,
                intermediate_size: hf.intermediate_size,
                layers: hf.num_hidden_layers,
                heads: hf.num_attention_heads,
                context_tokens: hf.max_position_embeddings.min(longest(sentence)?.unwrap_or(usize::MAX)),
                positions: hf.max_position_embeddings,
                token_types: hf.type_vocab_size.unwrap_or(2),
                layer_norm_eps: epsilon("layer_norm_eps", hf.layer_norm_eps)?,
                activation: Activation::parse(&hf.hidden_act)?,
                pooling: pooling.map_or(Ok(Pooling::Mean), pooling_mode)?,
                normalize: modules.map_or(Ok(false), normalizes)?,
            })
        };
        read().and_then(Self::checked).map_err(Wrong::in_json)
    }

    /// Reads and checks the metadata of a GGUF file, whose embeddings are always normalised.
    ///
    /// # Errors
    /// What is missing, out of bounds, or not computed here.
    pub fn from_gguf(gguf: &Gguf<'_>) -> Result<Self, LoadError> {
        let more = [("attention.causal", Must::Be(false)), ("pooling_type", Must::Any), ("vocab_size", Must::Any)];
        let section = section(gguf, "bert", &keys(&more))?;
        let pooling = match section.optional("pooling_type")? {
            None | Some(1) => Pooling::Mean,
            Some(2) => Pooling::Cls,
            Some(other) => {
                let why = format!("{other} is not computed here: only 1 (mean) and 2 (first token)");
                return Err(GgufError::key(&section.key("pooling_type"), why).into());
            }
        };
        let config = Self {
            vocab_size: section.vocab_size()?,
            hidden_size: section.required("embedding_length")?,
            intermediate_size: section.required("feed_forward_length")?,
            layers: section.required("block_count")?,
            heads: section.required("attention.head_count")?,
            context_tokens: section.required("context_length")?,
            positions: section.required("context_length")?,
            token_types: gguf.u32("tokenizer.ggml.token_type_count")?.map_or(2, |count| count as usize),
            layer_norm_eps: gguf_epsilon(&section)?,
            activation: Activation::Gelu,
            pooling,
            normalize: true,
        };
        config.checked().map_err(Wrong::in_gguf)
    }

    fn checked(self) -> Result<Self, Wrong> {
        let Self { vocab_size, hidden_size, intermediate_size, layers, heads, context_tokens, .. } = self;
        check_sizes(vocab_size, hidden_size, intermediate_size, layers, heads, context_tokens)?;
        within(&[
            ("type_vocab_size", self.token_types, 1 << 10),
            ("max_position_embeddings", self.positions, POSITIONS_MAX),
            ("intermediate_size", intermediate_size, BERT_FFN_MAX),
        ])?;
        Ok(self)
    }
}

/// The pooling of `1_Pooling/config.json`: a name, or one flag for each mode.
fn pooling_mode(json: &[u8]) -> Result<Pooling, Wrong> {
    let wrong = |why: &str| Wrong::new("1_Pooling/config.json", why);
    let value: Value = serde_json::from_slice(json).map_err(|error| wrong(&error.to_string()))?;
    let fields = value.as_object().ok_or_else(|| wrong("not an object"))?;
    let named = fields.get("pooling_mode").and_then(Value::as_str);
    let flags = fields.iter().filter(|(_, set)| set.as_bool() == Some(true)).map(|(name, _)| name.as_str());
    let mut modes = flags.filter_map(|name| name.strip_prefix("pooling_mode_")).chain(named);
    match (modes.next(), modes.next()) {
        (Some("mean_tokens" | "mean"), None) => Ok(Pooling::Mean),
        (Some("cls_token" | "cls"), None) => Ok(Pooling::Cls),
        (Some(other), None) => Err(wrong(&format!("{other:?} is not computed here, only mean and cls"))),
        (None, _) => Err(wrong("it names no mode")),
        (Some(_), Some(_)) => Err(wrong("several modes at once are not computed here")),
    }
}

/// Whether `modules.json` ends in a normalisation; modules that are not computed are refused.
fn normalizes(json: &[u8]) -> Result<bool, Wrong> {
    #[derive(Deserialize)]
    struct Module {
        r#type: String,
    }
    let wrong = |why: String| Wrong::new("modules.json", why);
    let modules: Vec<Module> = serde_json::from_slice(json).map_err(|error| wrong(error.to_string()))?;
    let mut normalize = false;
    for module in &modules {
        match module.r#type.rsplit('.').next() {
            Some("Transformer" | "Pooling") => {}
            Some("Normalize") => normalize = true,
            _ => return Err(wrong(format!("module {:?} is not computed here", module.r#type))),
        }
    }
    Ok(normalize)
}

/// The longest text that `sentence_bert_config.json` allows, tokens.
fn longest(json: Option<&[u8]>) -> Result<Option<usize>, Wrong> {
    #[derive(Deserialize)]
    struct Sentence {
        max_seq_length: Option<usize>,
    }
    let Some(json) = json else { return Ok(None) };
    let wrong = |error: serde_json::Error| Wrong::new("sentence_bert_config.json", error.to_string());
    Ok(serde_json::from_slice::<Sentence>(json).map_err(wrong)?.max_seq_length)
}
