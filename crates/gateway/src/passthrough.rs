//! Requests for models whose servers take them as they are: what the client sent goes there, and what the server
//! answers comes back, byte for byte. What the network adds is in headers.

use crate::{
    ask::{Answer, Ask, AskError, AskInput, Gateway},
    openai::{ApiError, lane_of},
};
use althing_runtime::{
    Interface,
    media::{audio_type, image_type},
};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::collections::BTreeMap;

/// What of a request concerns the network.
#[derive(Debug, Deserialize)]
struct Head {
    model: String,
    #[serde(default)]
    stream: bool,
    /// Of the speech interface.
    #[serde(default)]
    response_format: Option<serde_json::Value>,
    /// Ours: `none`, `agreed` or `final`. (V-1)
    wait: Option<crate::Level>,
}

/// A request that goes to the model as it is.
#[derive(Debug)]
pub struct Passthrough {
    pub ask: Ask,
    pub is_stream: bool,
    format: Option<String>,
}

impl Passthrough {
    /// The request, if its model is one that takes it as it is.
    ///
    /// # Errors
    /// If it is none, or there is no such model.
    pub async fn read(gateway: &Gateway, interface: Interface, body: &RawValue) -> Result<Option<Self>, ApiError> {
        // A body that is malformed is the typed request's to complain about.
        let Ok(head) = serde_json::from_str::<Head>(body.get()) else { return Ok(None) };
        let (name, lane) = lane_of(&head.model);
        let form = gateway.form_of(name).await.map_err(|error| ApiError::of(&error, "model"))?;
        if !form.is_some_and(|form| form.passes_through) {
            return Ok(None);
        }
        let mut fields: BTreeMap<String, &RawValue> =
            serde_json::from_str(body.get()).map_err(|error| ApiError::invalid("body", error.to_string()))?;
        fields.remove("model");
        fields.remove("wait");
        let body = serde_json::to_string(&fields).map_err(|error| ApiError::invalid("body", error.to_string()))?;
        let input = AskInput::Passthrough { interface, body };
        Ok(Some(Self {
            ask: Ask { model: name.to_owned(), lane, input, seed: None, wait: head.wait },
            is_stream: head.stream,
            format: head.response_format.and_then(|format| format.as_str().map(str::to_owned)),
        }))
    }

    /// The media type of its answer, which travels without one.
    pub fn media_type(&self, answer: &[u8]) -> String {
        if self.is_stream {
            return "text/event-stream".into();
        }
        let known = audio_type(answer).or_else(|| image_type(answer));
        match (self.ask.input_interface(), known, &self.format) {
            (Interface::Speech, Some(media_type), _) => media_type.into(),
            (Interface::Speech, None, Some(format)) if format.chars().all(|c| c.is_ascii_alphanumeric()) => {
                format!("audio/{format}")
            }
            (Interface::Speech, None, _) => "application/octet-stream".into(),
            _ => "application/json".into(),
        }
    }
}

/// The bytes of an answer that passed through.
///
/// # Errors
/// If it is another kind of answer.
pub fn bytes(answer: &Answer) -> Result<&[u8], ApiError> {
    match &answer.output {
        crate::AnswerOutput::Passthrough(bytes) => Ok(bytes),
        _ => Err(ApiError::of(
            &AskError::Unusable { order: answer.order.id, reason: "it is no server's".into() },
            "model",
        )),
    }
}
