//! What a model's files say about the form of conversations: the Jinja template, and the tokens that it
//! names. Templates are programs of strangers, so nothing here runs them.

use crate::{gguf::Gguf, tensors::LoadError, tokenizer::TextTokenizer};
use serde::Deserialize;

/// What `tokenizer_config.json` says about prompts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenizerConfig {
    pub chat_template: Option<String>,
    pub bos_token: Option<String>,
    pub eos_token: Option<String>,
    /// Whether `bos_token` goes before a plain text.
    pub add_bos_token: Option<bool>,
}

impl TokenizerConfig {
    /// Reads `tokenizer_config.json`.
    ///
    /// # Errors
    /// [`LoadError::Template`] if it is malformed.
    pub fn parse(json: &[u8]) -> Result<Self, LoadError> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Source {
            One(String),
            Named(Vec<Named>),
        }
        #[derive(Deserialize)]
        struct Named {
            name: String,
            template: String,
        }
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Token {
            Text(String),
            Added { content: String },
        }
        #[derive(Deserialize)]
        struct File {
            chat_template: Option<Source>,
            bos_token: Option<Token>,
            eos_token: Option<Token>,
            add_bos_token: Option<bool>,
        }
        let fail = |why: String| LoadError::Template(format!("tokenizer_config.json: {why}"));
        let file: File = serde_json::from_slice(json).map_err(|error| fail(error.to_string()))?;
        let chat_template = match file.chat_template {
            None => None,
            Some(Source::One(source)) => Some(source),
            Some(Source::Named(list)) => {
                let default = list.into_iter().find(|named| named.name == "default");
                Some(default.ok_or_else(|| fail("chat_template has none named \"default\"".into()))?.template)
            }
        };
        let text = |token: Option<Token>| {
            token.map(|token| match token {
                Token::Text(text) | Token::Added { content: text } => text,
            })
        };
        Ok(Self {
            chat_template,
            bos_token: text(file.bos_token),
            eos_token: text(file.eos_token),
            add_bos_token: file.add_bos_token,
        })
    }
}

/// A chat template as a model's files have it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TemplateSource {
    /// Jinja.
    pub source: String,
    /// What the template knows as `bos_token`.
    pub bos_token: String,
    /// What the template knows as `eos_token`.
    pub eos_token: String,
}

impl TemplateSource {
    /// The template of a GGUF file, if it has one.
    ///
    /// # Errors
    /// If it is malformed.
    pub fn from_gguf(gguf: &Gguf<'_>, tokenizer: &TextTokenizer) -> Result<Option<Self>, LoadError> {
        let Some(source) = gguf.str("tokenizer.chat_template")? else { return Ok(None) };
        let text = |name: &str| -> Result<String, LoadError> {
            let token = gguf.u32(&format!("tokenizer.ggml.{name}_token_id"))?;
            Ok(token.and_then(|token| tokenizer.token_text(token)).unwrap_or_default())
        };
        Ok(Some(Self { source: source.into(), bos_token: text("bos")?, eos_token: text("eos")? }))
    }

    /// The template of a Hugging Face directory, if it has one: `chat_template.jinja`, which goes
    /// first, or the one inside `tokenizer_config.json`.
    ///
    /// # Errors
    /// If one is malformed.
    pub fn from_hf(config: &TokenizerConfig, jinja: Option<&[u8]>) -> Result<Option<Self>, LoadError> {
        let jinja = jinja.map(std::str::from_utf8).transpose();
        let jinja = jinja.map_err(|_| LoadError::Template("chat_template.jinja is not UTF-8".into()))?;
        let Some(source) = jinja.or(config.chat_template.as_deref()) else { return Ok(None) };
        let text = |token: &Option<String>| token.clone().unwrap_or_default();
        Ok(Some(Self { source: source.into(), bos_token: text(&config.bos_token), eos_token: text(&config.eos_token) }))
    }
}
