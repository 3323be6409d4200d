//! A server that speaks OpenAI's API: vLLM, llama.cpp, Ollama, a gateway of somebody else's.
//!
//! Input is a client's own request, a JSON object, as it came; only `model` is the server's name for it. Output is what
//! the server answered, byte for byte: a JSON object, a stream of events to its `[DONE]`, or a sound. So whatever server
//! and client agree on works: tools, images in messages, log probabilities, structured outputs.

use crate::{
    AdapterError, Emit, Server, Settings, SetupError, check_file,
    server::{list, too_large},
};
use althing_runtime::{Interface, package::Manifest};
use parking_lot::Mutex;
use reqwest::{Method, Response, StatusCode, header::CONTENT_TYPE};
use serde_json::value::{RawValue, to_raw_value};
use std::collections::BTreeMap;

/// Most bytes of a list of models that are read.
const MODELS_BYTES_MAX: usize = 4 << 20;
/// Where such a server is if its URL says nothing beside the host.
pub(crate) const DEFAULT_PATH: &str = "/v1";

/// See the module's text.
pub struct OpenAi {
    server: Server,
    interface: Interface,
    output_bytes_max: usize,
    /// Whether the server may be made to fetch files from elsewhere.
    remote_files: bool,
    /// As the settings say.
    model_set: Option<String>,
    /// What the server calls the model: as the settings say, or the only one that it has.
    model: Mutex<Option<String>>,
}

impl OpenAi {
    pub(crate) fn new(manifest: &Manifest, settings: &Settings) -> Result<Self, SetupError> {
        Ok(Self {
            server: Server::new(settings, DEFAULT_PATH)?,
            interface: manifest.interface()?,
            output_bytes_max: usize::try_from(manifest.limits.output_bytes_max).unwrap_or(usize::MAX),
            remote_files: settings.remote_files,
            model_set: settings.model.clone(),
            model: Mutex::new(settings.model.clone()),
        })
    }

    pub(crate) async fn look(&self) -> Result<(), AdapterError> {
        let unavailable = |why: String| Err(AdapterError::Unavailable(why));
        let names = match (models(&self.server).await?, &self.model_set) {
            (Some(names), _) => names,
            // It lists none, and need not.
            (None, Some(_)) => return Ok(()),
            (None, None) => return unavailable("the model's server lists no models: say which it has".into()),
        };
        match (&self.model_set, &names[..]) {
            (Some(model), _) if names.contains(model) => Ok(()),
            (Some(model), _) => {
                unavailable(format!("the model's server has no model {model:?}; it has {}", list(&names)))
            }
            (None, [only]) => {
                *self.model.lock() = Some(only.clone());
                Ok(())
            }
            (None, []) => unavailable("the model's server has no model".into()),
            (None, _) => {
                unavailable(format!("the model's server has several models, say which of them: {}", list(&names)))
            }
        }
    }

    pub(crate) async fn run(&self, input: &[u8], emit: Emit<'_>) -> Result<Vec<u8>, AdapterError> {
        let model = self.model.lock().clone();
        let model = model.ok_or_else(|| AdapterError::Unavailable("the model's server was not seen yet".into()))?;
        let request = Request::read(input, &model, self.remote_files)?;
        let path = format!("/{}", self.interface.path());
        let ask = || {
            let post = self.server.request(Method::POST, &path);
            post.header(CONTENT_TYPE, "application/json").body(request.body.clone())
        };
        let response = self.server.send(ask).await?;
        match request.is_stream {
            true => self.stream(response, emit).await,
            false => self.whole(response, emit).await,
        }
    }

    async fn whole(&self, response: Response, emit: Emit<'_>) -> Result<Vec<u8>, AdapterError> {
        let output = self.server.read(response, self.output_bytes_max).await?;
        if self.interface == Interface::Speech {
            // Some servers answer with an error as if it were a sound.
            return match output.is_empty() || serde_json::from_slice::<serde_json::Value>(&output).is_ok() {
                true => Err(AdapterError::Failed("the model's server answered with something that is no sound".into())),
                false => Ok(output),
            };
        }
        let text = String::from_utf8(output).map_err(|_| not_text())?;
        match serde_json::from_str::<serde_json::Value>(&text) {
            Ok(answer) if answer.is_object() && answer["error"].is_null() => {}
            _ => {
                return Err(AdapterError::Failed(
                    "the model's server answered with something that is no answer".into(),
                ));
            }
        }
        emit(text.clone());
        Ok(text.into_bytes())
    }

    /// Passes a stream on as it comes.
    async fn stream(&self, mut response: Response, emit: Emit<'_>) -> Result<Vec<u8>, AdapterError> {
        let (mut output, mut passed) = (Vec::new(), 0);
        while let Some(piece) = self.server.next(&mut response).await? {
            if output.len() + piece.len() > self.output_bytes_max {
                return Err(too_large(self.output_bytes_max));
            }
            output.extend_from_slice(&piece);
            // A letter may come in two pieces.
            let text = match std::str::from_utf8(&output[passed..]) {
                Ok(text) => text,
                Err(error) if error.error_len().is_some() => return Err(not_text()),
                Err(error) => {
                    std::str::from_utf8(&output[passed..passed + error.valid_up_to()]).map_err(|_| not_text())?
                }
            };
            if !text.is_empty() {
                passed += text.len();
                emit(text.to_owned());
            }
        }
        if passed < output.len() {
            return Err(not_text());
        }
        check_end(&output)?;
        Ok(output)
    }
}

fn not_text() -> AdapterError {
    AdapterError::Failed("the model's server answered with something that is no text".into())
}

/// Whether a stream came to its end: nobody pays for a part, or for an error in an answer's place.
fn check_end(output: &[u8]) -> Result<(), AdapterError> {
    let text = String::from_utf8_lossy(output);
    let mut events = text.lines().rev().filter_map(|line| line.strip_prefix("data:")).map(str::trim);
    if events.next() != Some("[DONE]") {
        return Err(AdapterError::Failed("the stream ended before its end".into()));
    }
    let last = events.next().unwrap_or_default();
    let last: serde_json::Value = serde_json::from_str(last).unwrap_or_default();
    match last["error"].is_null() && last.is_object() {
        true => Ok(()),
        false => Err(AdapterError::Failed("the model's server failed in the middle of its answer".into())),
    }
}

/// A client's request, as the server gets it.
struct Request {
    body: Vec<u8>,
    is_stream: bool,
}

impl Request {
    fn read(input: &[u8], model: &str, remote_files: bool) -> Result<Self, AdapterError> {
        let mut fields: BTreeMap<String, Box<RawValue>> =
            serde_json::from_slice(input).map_err(|_| AdapterError::refused("the request is no JSON object"))?;
        let is = |fields: &BTreeMap<String, Box<RawValue>>, name: &str, value: &str| {
            fields.get(name).is_some_and(|field| field.get() == value)
        };
        // One order pays for one answer.
        for name in ["n", "best_of"] {
            if fields.contains_key(name) && !is(&fields, name, "1") && !is(&fields, name, "null") {
                return Err(AdapterError::refused(format!("`{name}` is 1: one order is one answer")));
            }
        }
        if !remote_files {
            for field in fields.values() {
                let value = serde_json::from_str(field.get()).unwrap_or_default();
                check_urls(&value)?;
            }
        }
        let is_stream = is(&fields, "stream", "true");
        let name = to_raw_value(model).map_err(|_| AdapterError::refused("the model's name is no text"))?;
        fields.insert("model".into(), name);
        let body = serde_json::to_vec(&fields).map_err(|_| AdapterError::refused("the request is no JSON object"))?;
        Ok(Self { body, is_stream })
    }
}

/// Refuses files that the server would fetch: pictures, sounds and documents in messages are objects with a `url`, or
/// texts under a name that ends so.
fn check_urls(value: &serde_json::Value) -> Result<(), AdapterError> {
    match value {
        serde_json::Value::Array(items) => items.iter().try_for_each(check_urls),
        serde_json::Value::Object(fields) => fields.iter().try_for_each(|(name, value)| match value {
            serde_json::Value::String(url) if name.ends_with("url") => check_file(url),
            value => check_urls(value),
        }),
        _ => Ok(()),
    }
}

/// The models that a server says it has; `None` if it does not say.
pub(crate) async fn models(server: &Server) -> Result<Option<Vec<String>>, AdapterError> {
    let response = server.ask(|| server.request(Method::GET, "/models")).await?;
    match response.status() {
        StatusCode::OK => {}
        StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED => return Ok(None),
        _ => return Err(server.error(response).await),
    }
    let body = server.read(response, MODELS_BYTES_MAX).await?;
    let body: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
    let Some(data) = body["data"].as_array() else { return Ok(None) };
    Ok(Some(data.iter().filter_map(|model| model["id"].as_str()).map(str::to_owned).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_keeps_every_byte_of_its_values_and_gets_the_servers_name() {
        let request =
            Request::read(br#"{"stream":true,"model":"ours","temperature":0.70,"n":1,"x":[ 1e3 ]}"#, "theirs", false)
                .unwrap();
        assert!(request.is_stream);
        assert_eq!(
            String::from_utf8(request.body).unwrap(),
            r#"{"model":"theirs","n":1,"stream":true,"temperature":0.70,"x":[ 1e3 ]}"#
        );
        for input in [&b"[]"[..], b"", br#"{"n":2}"#, br#"{"best_of":1.0}"#] {
            assert!(matches!(Request::read(input, "m", true), Err(AdapterError::Refused { .. })), "{input:?}");
        }
    }

    #[test]
    fn a_server_is_not_made_to_fetch_what_strangers_name() {
        let with = |part: &str| format!(r#"{{"messages":[{{"role":"user","content":[{part}]}}]}}"#);
        let data = r#"{"type":"image_url","image_url":{"url":"data:image/png;base64,AA=="}}"#;
        let text = r#"{"type":"text","text":"see http://127.0.0.1/"}"#;
        for (part, fine) in [
            (data, true),
            (text, true),
            (r#"{"type":"image_url","image_url":{"url":"http://169.254.169.254/"}}"#, false),
            (r#"{"type":"image_url","image_url":"https://a/b.png"}"#, false),
            (r#"{"type":"video_url","video_url":{"url":"file:///etc/passwd"}}"#, false),
            (r#"{"type":"input_file","file_url":"HTTP://a"}"#, false),
        ] {
            let input = with(part);
            assert_eq!(Request::read(input.as_bytes(), "m", false).is_ok(), fine, "{part}");
            assert!(Request::read(input.as_bytes(), "m", true).is_ok());
        }
    }

    #[test]
    fn a_stream_ends_with_done_and_with_an_answer() {
        let answer = "data: {\"choices\":[]}\n\n";
        for (stream, is_end) in [
            (format!("{answer}data: [DONE]\n\n"), true),
            (format!("{answer}data:[DONE]"), true),
            (format!(": ping\r\n\r\n{answer}data: [DONE]\r\n\r\n"), true),
            (answer.to_owned(), false),
            (format!("{answer}data: {{\"error\":{{\"message\":\"out of memory\"}}}}\n\ndata: [DONE]\n\n"), false),
            ("data: [DONE]\n\n".to_owned(), false),
            (String::new(), false),
        ] {
            assert_eq!(check_end(stream.as_bytes()).is_ok(), is_end, "{stream}");
        }
    }
}
