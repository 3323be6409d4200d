//! The chat interface: what chat models take and give, as canonical JSON.
//!
//! Canonical means: the fields in the order of the types below, absent fields left out, no spaces.
//! Input and output are content like any other and named by their CIDs.

use serde::{Deserialize, Serialize};

/// Who said a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    System,
    User,
    Assistant,
}

/// One message of a conversation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChatMessage {
    pub role: Role,
    pub content: String,
}

/// What a chat model runs on. Numbers that are absent are the package's defaults.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChatInput {
    pub messages: Vec<ChatMessage>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_tokens: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top_p: Option<f32>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stop: Vec<String>,
}

impl ChatInput {
    /// One question with the package's defaults.
    pub fn ask(question: &str) -> Self {
        Self { messages: vec![ChatMessage { role: Role::User, content: question.into() }], ..Self::default() }
    }

    /// The canonical bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("strings and finite numbers are always JSON")
    }
}

/// What a chat model gives. Every input has exactly one output for a seed, so that even for a
/// malformed one there is a right answer: the refusal, which can be verified like any other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum ChatOutput {
    Answer { text: String, finish_reason: Finish, prompt_tokens: u32, completion_tokens: u32 },
    Refusal { error: Refusal },
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Finish {
    Stop,
    Length,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// `invalid_input` or `context_length_exceeded`.
    pub code: String,
    pub message: String,
}

impl ChatOutput {
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

    /// The refusal of an input.
    pub fn refusal(code: &str, message: impl Into<String>) -> Self {
        Self::Refusal { error: Refusal { code: code.into(), message: message.into() } }
    }
}
