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
use althing_types::Address;
use serde::Deserialize;
use serde_json::value::RawValue;
use std::collections::BTreeMap;

/// What of a request concerns the network.
#[derive(Debug, Deserialize)]
struct Head {
    model: String,
    stream: Option<bool>,
    /// Of the speech interface.
    #[serde(default)]
    response_format: Option<serde_json::Value>,
    /// Ours: `none`, `agreed` or `final`. (V-1)
    wait: Option<crate::Level>,
    /// Ours: the provider to ask.
    provider: Option<Address>,
    /// Of the speech interface.
    #[serde(default)]
    stream_format: Option<serde_json::Value>,
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
        let is_stream = head.stream.unwrap_or(false);
        if interface == Interface::Speech && is_stream {
            return Err(ApiError::invalid("stream", "sounds come whole: leave it out"));
        }
        let mut fields: BTreeMap<String, &RawValue> =
            serde_json::from_str(body.get()).map_err(|error| ApiError::invalid("body", error.to_string()))?;
        fields.remove("model");
        fields.remove("wait");
        fields.remove("provider");
        let body = serde_json::to_string(&fields).map_err(|error| ApiError::invalid("body", error.to_string()))?;
        let input = AskInput::Passthrough { interface, body };
        Ok(Some(Self {
            ask: Ask { model: name.to_owned(), lane, input, seed: None, provider: head.provider, wait: head.wait },
            is_stream,
            format: match head.stream_format {
                Some(format) if format == "sse" => Some("sse".into()),
                _ => head.response_format.and_then(|format| format.as_str().map(str::to_owned)),
            },
        }))
    }

    /// The media type of its answer, which travels without one.
    pub fn media_type(&self, answer: &[u8]) -> String {
        if self.is_stream {
            return "text/event-stream".into();
        }
        let known = audio_type(answer).or_else(|| image_type(answer));
        match (self.ask.input_interface(), known, self.format.as_deref()) {
            (Interface::Speech, _, Some("sse")) => "text/event-stream".into(),
            (Interface::Speech, Some(media_type), _) => media_type.into(),
            (Interface::Speech, None, Some(format)) if format.chars().all(|c| c.is_ascii_alphanumeric()) => {
                format!("audio/{format}")
            }
            (Interface::Speech, None, _) => "application/octet-stream".into(),
            _ => "application/json".into(),
        }
    }
}

/// A stream up to where it says that it is over: that is told when the answer is known to be the one that the ledger
/// names, since clients stop listening there.
#[derive(Debug, Default)]
pub struct HeldEnd {
    /// The end and what came after it, or a line that is not whole yet.
    held: String,
    is_over: bool,
}

impl HeldEnd {
    /// Takes what came; gives what may go on.
    pub fn take(&mut self, piece: &str) -> String {
        let mut free = String::new();
        for part in piece.split_inclusive('\n') {
            self.held.push_str(part);
            if self.is_over || !part.ends_with('\n') {
                continue;
            }
            self.is_over = self.held.strip_prefix("data:").is_some_and(|data| data.trim() == "[DONE]");
            if !self.is_over {
                free.push_str(&self.held);
                self.held.clear();
            }
        }
        free
    }

    /// What was held back.
    pub fn finish(self) -> String {
        self.held
    }
}

/// The bytes of an answer that passed through.
///
/// # Errors
/// If it is another kind of answer.
pub fn bytes(answer: &Answer) -> Result<&[u8], ApiError> {
    match &answer.output {
        crate::AnswerOutput::Passthrough { bytes, .. } => Ok(bytes),
        _ => Err(ApiError::of(
            &AskError::Unusable { order: answer.order.id, reason: "it is no server's".into() },
            "model",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_stream_is_held_back_however_it_is_cut() {
        let stream = "data: {\"a\":1}\n\ndata: [DONE] \n\n: after\n";
        for size in 1..=stream.len() {
            let (mut held, mut passed) = (HeldEnd::default(), String::new());
            let chars: Vec<char> = stream.chars().collect();
            for piece in chars.chunks(size) {
                passed += &held.take(&piece.iter().collect::<String>());
            }
            assert_eq!(passed, "data: {\"a\":1}\n\n", "in pieces of {size}");
            assert_eq!(passed + &held.finish(), stream);
        }
        let mut held = HeldEnd::default();
        assert_eq!(held.take("data: [DONE]x\n"), "data: [DONE]x\n", "only the end itself");
    }
}
