//! A server that speaks OpenAI's API: vLLM, llama.cpp, Ollama, a gateway of somebody else's.
//!
//! Input is a client's own request, a JSON object. Each value in it goes to the server byte for byte; `model` is the
//! server's name for it, the fields are put in order by name, and of a field that is there twice the last counts. (What
//! concerns the network alone, `wait` and `provider`, the gateway has taken out.) Output is what the server answered,
//! byte for byte: a JSON object, a stream of events to its `[DONE]`, or a sound. So whatever server and client agree on
//! works: tools, images in messages, log probabilities, structured outputs.

use crate::{
    AdapterError, Emit, Server, Settings, SetupError, check_file,
    server::{list, too_large},
};
use althing_runtime::{Interface, package::Manifest};
use parking_lot::Mutex;
use reqwest::{Method, Response, StatusCode, header::CONTENT_TYPE};
use serde::{
    Deserialize, Deserializer,
    de::{Error as _, MapAccess, SeqAccess, Visitor},
};
use serde_json::value::{RawValue, to_raw_value};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

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
            for (name, field) in &fields {
                // Where in the value it is helps nobody.
                let reason = |error: serde_json::Error| {
                    let text = error.to_string();
                    AdapterError::refused(text.split_once(" at line ").map_or(&*text, |(reason, _)| reason))
                };
                serde_json::from_str::<NoFiles>(field.get()).map_err(reason)?.check(name)?;
            }
        }
        let is_stream = is(&fields, "stream", "true");
        let name = to_raw_value(model).map_err(|_| AdapterError::refused("the model's name is no text"))?;
        fields.insert("model".into(), name);
        let body = serde_json::to_vec(&fields).map_err(|_| AdapterError::refused("the request is no JSON object"))?;
        Ok(Self { body, is_stream })
    }
}

/// A value without files that the server would fetch: pictures, sounds and documents in messages are objects with a
/// `url`, or texts under a name that ends so. The value goes on as it came, and of fields given twice nobody knows which
/// one counts there: they are refused.
#[derive(Debug, PartialEq, Eq)]
enum NoFiles {
    Text(String),
    Other,
}

impl NoFiles {
    /// Refuses a value that is a file elsewhere under this name.
    fn check(&self, name: &str) -> Result<(), AdapterError> {
        match self {
            Self::Text(url) if name.ends_with("url") => check_file(url),
            _ => Ok(()),
        }
    }
}

impl<'de> Deserialize<'de> for NoFiles {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NoFilesVisitor)
    }
}

struct NoFilesVisitor;

impl<'de> Visitor<'de> for NoFilesVisitor {
    type Value = NoFiles;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("any value")
    }

    fn visit_unit<E>(self) -> Result<NoFiles, E> {
        Ok(NoFiles::Other)
    }

    fn visit_bool<E>(self, _: bool) -> Result<NoFiles, E> {
        Ok(NoFiles::Other)
    }

    fn visit_i64<E>(self, _: i64) -> Result<NoFiles, E> {
        Ok(NoFiles::Other)
    }

    fn visit_u64<E>(self, _: u64) -> Result<NoFiles, E> {
        Ok(NoFiles::Other)
    }

    fn visit_f64<E>(self, _: f64) -> Result<NoFiles, E> {
        Ok(NoFiles::Other)
    }

    fn visit_str<E>(self, text: &str) -> Result<NoFiles, E> {
        Ok(NoFiles::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<NoFiles, A::Error> {
        while items.next_element::<NoFiles>()?.is_some() {}
        Ok(NoFiles::Other)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<NoFiles, A::Error> {
        let mut names = BTreeSet::new();
        while let Some(name) = fields.next_key::<String>()? {
            fields.next_value::<NoFiles>()?.check(&name).map_err(A::Error::custom)?;
            if !names.insert(name.clone()) {
                return Err(A::Error::custom(format_args!("`{name}` is given twice")));
            }
        }
        Ok(NoFiles::Other)
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
        // Between values nothing is kept; in them everything is, what would be another number elsewhere too.
        let input = br#" { "z":1, "model":"a", "b" : {"y":1, "x":[2 ,3],"y":1}, "z":12345678901234567890.10,"\u0061":"\u00fe\/", "model":"b" } "#;
        assert_eq!(
            String::from_utf8(Request::read(input, "theirs", true).unwrap().body).unwrap(),
            r#"{"a":"\u00fe\/","b":{"y":1, "x":[2 ,3],"y":1},"model":"theirs","z":12345678901234567890.10}"#
        );
        // What the server gets is what was looked at.
        let twice =
            |first: &str, last: &str| Request::read(format!("{{{first},{last}}}").as_bytes(), "m", false).is_ok();
        assert!(twice(r#""n":2"#, r#""n":1"#) && !twice(r#""n":1"#, r#""n":2"#));
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
            // Servers differ in which one counts.
            (r#"{"image_url":{"url":"http://a","url":"data:image/png;base64,AA=="}}"#, false),
            (r#"{"image_url":{"url":"data:image/png;base64,AA=="},"image_\u0075rl":{"url":"data:,"}}"#, false),
            (r#"{"deep":[1,-2,3.5,1e300,null,true,"http://a",[{"an_url":"http://a"}]]}"#, false),
            (r#"{"deep":[1,-2,3.5,1e300,null,true,"http://a",[{"an_url":"data:,"}]]}"#, true),
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
