//! The embedding interface: what embedding models take and give, as canonical JSON (see
//! [`crate::chat`]), and the engine that runs them.

use crate::{
    chat::Refusal,
    engine::{Engine, RunError},
    interface::Interface,
};
use althing_exact::{EmbeddingModel, Plan, model::EmbedError};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde::{Deserialize, Serialize};

/// Most texts of one run.
pub const TEXTS_MAX: usize = 256;
/// Most tokens of all texts of one run together: bounds its time.
pub const TOKENS_MAX: usize = 1 << 16;

/// What an embedding model runs on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EmbeddingInput {
    /// At least one, at most [`TEXTS_MAX`].
    pub texts: Vec<String>,
}

impl EmbeddingInput {
    /// The canonical bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("strings are always JSON")
    }
}

/// What an embedding model gives: one vector for each text, in their order; or the refusal, which is
/// verified like any other output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum EmbeddingOutput {
    Vectors { vectors: Vec<Vector>, prompt_tokens: u32 },
    Refusal { error: Refusal },
}

impl EmbeddingOutput {
    /// The canonical bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("strings and numbers are always JSON")
    }

    /// Reads an output; a malformed one is an error.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(bytes)
    }

    fn refusal(code: &str, message: impl Into<String>) -> Self {
        Self::Refusal { error: Refusal { code: code.into(), message: message.into() } }
    }
}

/// One text's vector: its f32s, little-endian, every NaN as `7fc00000`, in base64. Exact and short,
/// and what OpenAI's clients ask for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Vector(pub String);

impl Vector {
    /// Writes numbers.
    pub fn new(values: &[f32]) -> Self {
        let bytes: Vec<u8> =
            values.iter().flat_map(|x| althing_exact::math::canonical_bits(*x).to_le_bytes()).collect();
        Self(BASE64_STANDARD.encode(bytes))
    }

    /// Reads them back; `None` if it is not what [`Vector::new`] writes.
    pub fn values(&self) -> Option<Vec<f32>> {
        let bytes = BASE64_STANDARD.decode(&self.0).ok()?;
        let (values, []) = bytes.as_chunks::<4>() else { return None };
        Some(values.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect())
    }
}

/// A BERT-family model on the strict kernels.
pub(crate) struct EmbeddingEngine {
    pub model: EmbeddingModel,
    pub plan: Plan,
    pub output_bytes_max: u64,
}

impl EmbeddingEngine {
    fn texts(input: &[u8]) -> Result<Vec<String>, EmbeddingOutput> {
        let refuse = |why: &str| EmbeddingOutput::refusal("invalid_input", why);
        let EmbeddingInput { texts } =
            serde_json::from_slice(input).map_err(|_| refuse("the input is not an embedding input"))?;
        if texts.is_empty() || texts.len() > TEXTS_MAX {
            return Err(refuse("an embedding input has 1 to 256 texts"));
        }
        Ok(texts)
    }

    fn output(&self, input: &[u8]) -> EmbeddingOutput {
        let texts = match Self::texts(input) {
            Ok(texts) => texts,
            Err(refusal) => return refusal,
        };
        match self.model.tokenize(&texts) {
            Ok(tokens) if tokens.iter().map(Vec::len).sum::<usize>() > TOKENS_MAX => EmbeddingOutput::refusal(
                "invalid_input",
                format!("the texts have more than {TOKENS_MAX} tokens together"),
            ),
            Ok(tokens) => {
                let embeddings = self.model.embed_tokens(&tokens, &self.plan, &mut ());
                EmbeddingOutput::Vectors {
                    vectors: embeddings.vectors.iter().map(|vector| Vector::new(vector)).collect(),
                    prompt_tokens: u32::try_from(embeddings.tokens).unwrap_or(u32::MAX),
                }
            }
            Err(error @ EmbedError::ContextExceeded { .. }) => {
                EmbeddingOutput::refusal("context_length_exceeded", error.to_string())
            }
            Err(error @ EmbedError::Empty(_)) => EmbeddingOutput::refusal("invalid_input", error.to_string()),
            // The tokenizer's own words may change with its version, so they are not part of a result.
            Err(EmbedError::Tokenizer { text, .. }) => {
                EmbeddingOutput::refusal("invalid_input", format!("text {text} cannot be tokenized"))
            }
        }
    }
}

impl Engine for EmbeddingEngine {
    fn interface(&self) -> Interface {
        Interface::Embedding
    }

    fn run(&self, input: &[u8], _seed: u64, _emit: &mut dyn FnMut(&str) -> bool) -> Result<Vec<u8>, RunError> {
        let output = self.output(input).to_bytes();
        if output.len() as u64 <= self.output_bytes_max {
            return Ok(output);
        }
        let why = format!("the vectors take more than the {} bytes of an output: ask for fewer", self.output_bytes_max);
        Ok(EmbeddingOutput::refusal("invalid_input", why).to_bytes())
    }

    /// Of the longest text, and of what the model holds of one.
    fn measure(&self, input: &[u8]) -> Option<(usize, usize)> {
        let context_tokens = self.model.encoder().config().context_tokens;
        match self.model.tokenize(&Self::texts(input).ok()?) {
            Ok(tokens) => Some((tokens.iter().map(Vec::len).max()?.min(context_tokens - 1), context_tokens)),
            Err(EmbedError::ContextExceeded { tokens, .. }) => Some((tokens, context_tokens)),
            Err(_) => None,
        }
    }

    fn weights_bytes(&self) -> u64 {
        self.model.encoder().bytes() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors_keep_every_bit() {
        let values = [0.0, -0.0, 1.5, f32::MIN_POSITIVE, -3.25e-39, f32::INFINITY];
        let read = Vector::new(&values).values().unwrap();
        assert!(read.iter().zip(values).all(|(x, y)| x.to_bits() == y.to_bits()));
        assert_eq!(Vector::new(&[f32::from_bits(0xffc0_0001)]), Vector::new(&[f32::NAN]));
        for wrong in ["AAA=", "AAAAAA==AA", "!"] {
            assert_eq!(Vector(wrong.into()).values(), None, "{wrong}");
        }
    }
}
