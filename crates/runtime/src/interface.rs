//! What models take and give, by name.

use serde::{Deserialize, Serialize};

/// What a model takes and gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Interface {
    /// [`crate::chat`]
    Chat,
    /// [`crate::embedding`]
    Embedding,
    /// Any JSON, whatever the model takes and gives: [`crate::wasm`].
    Json,
    /// A picture of a text: [`crate::media`].
    Image,
    /// A text, spoken: [`crate::media`].
    Speech,
}

impl Interface {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Chat, Self::Embedding, Self::Json, Self::Image, Self::Speech];

    /// As `model.toml` says it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Chat => "chat",
            Self::Embedding => "embedding",
            Self::Json => "json",
            Self::Image => "image",
            Self::Speech => "speech",
        }
    }

    /// Where clients reach models of it, below `/v1/`; OpenAI's own paths, but for JSON.
    pub const fn path(self) -> &'static str {
        match self {
            Self::Chat => "chat/completions",
            Self::Embedding => "embeddings",
            Self::Json => "json",
            Self::Image => "images/generations",
            Self::Speech => "audio/speech",
        }
    }

    /// The interface of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|interface| interface.name() == name)
    }
}
