//! A Cog server (<https://github.com/replicate/cog>): health, schema, predictions in three ways, cancelled when nobody
//! waits for them any more.
//!
//! Each prediction has an id of ours, so that asking again never begins a second one. A stream of events is asked for
//! where the model has one; otherwise the request lasts as long as the run; or, if the settings say so, the server
//! calls back.

mod inputs;
mod lines;
mod schema;
mod webhook;

use crate::{AdapterError, CogMode, Emit, Server, Settings, SetupError, server::too_large};
use althing_runtime::{
    ChatOutput, Interface,
    chat::Finish,
    media::{audio_type, image_type},
    package::Manifest,
};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use eventsource_stream::Eventsource as _;
use futures::StreamExt as _;
use inputs::Inputs;
use lines::{Lines, NotText};
use parking_lot::Mutex;
use reqwest::{
    Method, RequestBuilder, Response, StatusCode,
    header::{ACCEPT, HeaderName},
};
pub(crate) use schema::Schema;
use serde::Deserialize;
use serde_json::value::RawValue;
use std::{sync::Arc, time::Duration};
use webhook::Webhooks;

/// Most bytes of a health check or a schema.
const DESCRIPTION_BYTES_MAX: usize = 4 << 20;
/// What a prediction has beside its output: logs, metrics.
const PREDICTION_BYTES_MAX: usize = 4 << 20;
/// How long it may take to say that a run is to stop.
const CANCEL_TIME_MAX: Duration = Duration::from_secs(10);
const PREFER: HeaderName = HeaderName::from_static("prefer");

/// See the module's text.
pub struct Cog {
    server: Arc<Server>,
    interface: Interface,
    inputs: Inputs,
    output_bytes_max: usize,
    /// As soon as the server has told; a server may have none.
    schema: Mutex<Option<Arc<Schema>>>,
    webhooks: Option<Webhooks>,
}

/// A prediction, as the server tells of it.
#[derive(Debug, Deserialize)]
struct Prediction {
    status: String,
    #[serde(default)]
    output: Option<Box<RawValue>>,
    #[serde(default)]
    error: Option<String>,
    #[serde(default)]
    metrics: serde_json::Value,
}

/// Tells the server to stop if it is dropped before the end.
struct Running {
    server: Arc<Server>,
    id: String,
    is_over: bool,
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        let (server, path) = (self.server.clone(), format!("/predictions/{}/cancel", self.id));
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                // A server that is gone has nothing to stop.
                let _ = server.request(Method::POST, &path).timeout(CANCEL_TIME_MAX).send().await;
            });
        }
    }
}

impl Cog {
    pub(crate) async fn new(manifest: &Manifest, settings: &Settings) -> Result<Self, SetupError> {
        let output_bytes_max = usize::try_from(manifest.limits.output_bytes_max).unwrap_or(usize::MAX);
        // Files come in base64, in JSON.
        let prediction_bytes_max = output_bytes_max.saturating_mul(2).saturating_add(PREDICTION_BYTES_MAX);
        let webhooks = match settings.cog_mode {
            CogMode::Auto => None,
            CogMode::Webhook => {
                let (listen, url) = (settings.webhook_listen, settings.webhook_url.clone());
                Some(Webhooks::listen(listen, url, prediction_bytes_max).await?)
            }
        };
        Ok(Self {
            server: Arc::new(Server::new(settings, "")?),
            interface: manifest.interface()?,
            inputs: Inputs::new(manifest, settings.remote_files)?,
            output_bytes_max,
            schema: Mutex::default(),
            webhooks,
        })
    }

    pub(crate) async fn look(&self) -> Result<(), AdapterError> {
        if let Err(error) = health(&self.server).await {
            // What comes back may be another model.
            *self.schema.lock() = None;
            return Err(error);
        }
        let known = self.schema.lock().is_some();
        if !known && let Some(schema) = schema(&self.server).await? {
            *self.schema.lock() = Some(Arc::new(schema));
        }
        Ok(())
    }

    pub(crate) async fn run(&self, input: &[u8], seed: u64, emit: Emit<'_>) -> Result<Vec<u8>, AdapterError> {
        let schema = self.schema.lock().clone();
        let input = self.inputs.read(input, seed, schema.as_deref())?;
        let id = hex::encode(rand::random::<[u8; 16]>());
        let mut running = Running { server: self.server.clone(), id, is_over: false };
        // Of other models nothing is to be had before the end.
        let streams = self.interface == Interface::Chat && schema.is_some_and(|schema| schema.streams);
        let (said, prediction) = match (&self.webhooks, streams) {
            (Some(webhooks), _) => (None, self.call_back(webhooks, &running.id, &input).await?),
            (None, true) => self.events(&running.id, &input, emit).await?,
            (None, false) => {
                let response = self.server.send(|| self.put(&running.id, &input)).await?;
                (None, read_prediction(&self.server.read(response, self.prediction_bytes_max()).await?)?)
            }
        };
        running.is_over = matches!(prediction.status.as_str(), "succeeded" | "failed" | "canceled");
        let output = match prediction.status.as_str() {
            "succeeded" => self.output(said, &prediction, emit)?,
            "canceled" => return Err(AdapterError::Failed("the server cancelled the prediction".into())),
            _ => {
                let why = prediction.error.unwrap_or_else(|| "it does not say why".into());
                return Err(AdapterError::Failed(format!("the model failed: {}", self.server.clean(&why))));
            }
        };
        if output.len() > self.output_bytes_max { Err(too_large(self.output_bytes_max)) } else { Ok(output) }
    }

    fn prediction_bytes_max(&self) -> usize {
        self.output_bytes_max.saturating_mul(2).saturating_add(PREDICTION_BYTES_MAX)
    }

    /// Begins a prediction, or joins it.
    fn put(&self, id: &str, input: &serde_json::Value) -> RequestBuilder {
        let body = serde_json::json!({ "input": input });
        self.server.request(Method::PUT, &format!("/predictions/{id}")).json(&body)
    }

    /// Waits for the server to call.
    async fn call_back(
        &self,
        webhooks: &Webhooks,
        id: &str,
        input: &serde_json::Value,
    ) -> Result<Prediction, AdapterError> {
        let call = webhooks.expect();
        let body = serde_json::json!({
            "input": input, "webhook": call.url(), "webhook_events_filter": ["completed"],
        });
        let path = format!("/predictions/{id}");
        let ask = || self.server.request(Method::PUT, &path).header(PREFER, "respond-async").json(&body);
        let response = self.server.send(ask).await?;
        drop(self.server.read(response, self.prediction_bytes_max()).await?);
        read_prediction(&call.wait().await?)
    }

    /// Follows a stream of events; gives what was said in it, and how it ended.
    async fn events(
        &self,
        id: &str,
        input: &serde_json::Value,
        emit: Emit<'_>,
    ) -> Result<(Option<String>, Prediction), AdapterError> {
        let response = self.server.ask(|| self.put(id, input).header(ACCEPT, "text/event-stream")).await?;
        if response.status() == StatusCode::NOT_ACCEPTABLE {
            // Its schema promised too much.
            let response = self.server.send(|| self.put(id, input)).await?;
            return Ok((None, read_prediction(&self.server.read(response, self.prediction_bytes_max()).await?)?));
        }
        if !response.status().is_success() {
            return Err(self.server.error(response).await);
        }
        let (said, completed) = self.follow(response, emit).await?;
        Ok((Some(said), completed))
    }

    async fn follow(&self, response: Response, emit: Emit<'_>) -> Result<(String, Prediction), AdapterError> {
        let broken = |why: String| AdapterError::Failed(format!("the stream of events broke off: {why}"));
        let mut said = String::new();
        let no_text = || broken("it is no text".into());
        let start = Some((response, Lines::default(), self.prediction_bytes_max()));
        let lines = futures::stream::unfold(start, |state| async {
            let (mut response, mut lines, mut bytes_left) = state?;
            loop {
                if let Some(line) = lines.next() {
                    return Some((line.map_err(|NotText| no_text()), Some((response, lines, bytes_left))));
                }
                match self.server.next(&mut response).await {
                    // Counted before there is a line, so that one endless line ends too.
                    Ok(Some(piece)) if piece.len() > bytes_left => {
                        return Some((Err(too_large(self.output_bytes_max)), None));
                    }
                    Ok(Some(piece)) => {
                        bytes_left -= piece.len();
                        lines.push(piece);
                    }
                    Ok(None) => return lines.finish().map(|line| (line.map_err(|NotText| no_text()), None)),
                    Err(error) => return Some((Err(error), None)),
                }
            }
        });
        let mut events = std::pin::pin!(lines.eventsource());
        while let Some(event) = events.next().await {
            let event = event.map_err(|error| match error {
                eventsource_stream::EventStreamError::Transport(error) => error,
                error => broken(self.server.clean(&error.to_string())),
            })?;
            match event.event.as_str() {
                "output" => {
                    let data: serde_json::Value = serde_json::from_str(&event.data).unwrap_or_default();
                    let piece = data["chunk"].as_str().ok_or_else(|| broken("a piece is no text".into()))?;
                    if !piece.is_empty() {
                        said.push_str(piece);
                        emit(piece.to_owned());
                    }
                }
                "completed" => return Ok((said, read_prediction(event.data.as_bytes())?)),
                "error" => return Err(broken(self.server.clean(&event.data))),
                _ => {}
            }
        }
        Err(broken("it has no end".into()))
    }

    /// The output of our interface.
    fn output(&self, said: Option<String>, prediction: &Prediction, emit: Emit<'_>) -> Result<Vec<u8>, AdapterError> {
        let raw = prediction.output.as_deref().map_or("null", RawValue::get);
        if self.interface == Interface::Json {
            return Ok(raw.as_bytes().to_vec());
        }
        let value: serde_json::Value = serde_json::from_str(raw).unwrap_or_default();
        if self.interface != Interface::Chat {
            return self.file(&value);
        }
        let text = match said {
            Some(said) => said,
            None => {
                let text = text_of(&value).ok_or_else(|| AdapterError::Failed("the model gave no text".into()))?;
                emit(text.clone());
                text
            }
        };
        // What Replicate's language models call their metrics.
        let count = |name: &str| prediction.metrics[name].as_u64().and_then(|n| u32::try_from(n).ok()).unwrap_or(0);
        let (prompt_tokens, completion_tokens) = (count("input_token_count"), count("output_token_count"));
        Ok(ChatOutput::Answer { text, finish_reason: Finish::Stop, prompt_tokens, completion_tokens }.to_bytes())
    }

    /// A picture or a sound: the first file of the output.
    fn file(&self, output: &serde_json::Value) -> Result<Vec<u8>, AdapterError> {
        let failed = |why: &str| AdapterError::Failed(why.into());
        let url = match output {
            serde_json::Value::Array(files) => files.first(),
            file => Some(file),
        };
        let url = url.and_then(|url| url.as_str()).ok_or_else(|| failed("the model gave no file"))?;
        let encoded = url.strip_prefix("data:").and_then(|url| url.split_once(";base64,"));
        let (_, encoded) = encoded.ok_or_else(|| {
            failed("the model's server keeps its files to itself: start it without --upload-url, so that it sends them")
        })?;
        let file = BASE64_STANDARD.decode(encoded).map_err(|_| failed("the model's file is damaged"))?;
        match self.interface {
            Interface::Image if image_type(&file).is_none() => {
                Err(failed("the model gave something that is not a picture"))
            }
            Interface::Speech if audio_type(&file).is_none() => {
                Err(failed("the model gave something that is not a sound"))
            }
            _ => Ok(file),
        }
    }
}

/// A text, or pieces of one.
fn text_of(output: &serde_json::Value) -> Option<String> {
    match output {
        serde_json::Value::String(text) => Some(text.clone()),
        serde_json::Value::Array(pieces) => pieces.iter().map(|piece| piece.as_str()).collect(),
        _ => None,
    }
}

fn read_prediction(body: &[u8]) -> Result<Prediction, AdapterError> {
    serde_json::from_slice(body)
        .map_err(|_| AdapterError::Failed("the model's server answered with something that is no prediction".into()))
}

/// Whether the server is one that runs a model.
pub(crate) async fn health(server: &Server) -> Result<(), AdapterError> {
    #[derive(Deserialize)]
    struct Health {
        status: String,
        #[serde(default)]
        user_healthcheck_error: Option<String>,
    }
    let response = server.send(|| server.request(Method::GET, "/health-check")).await?;
    let body = server.read(response, DESCRIPTION_BYTES_MAX).await?;
    let unavailable = |why: &str| AdapterError::Unavailable(format!("the model's server {why}"));
    let health: Health = serde_json::from_slice(&body).map_err(|_| unavailable("is no Cog server"))?;
    match health.status.as_str() {
        // Who is busy will not be for ever.
        "READY" | "BUSY" => Ok(()),
        "STARTING" => Err(unavailable("is starting")),
        "SETUP_FAILED" => Err(unavailable("failed to set its model up")),
        "DEFUNCT" => Err(unavailable("is defunct: restart it")),
        "UNHEALTHY" => {
            let why = health.user_healthcheck_error.map(|why| format!(": {}", server.clean(&why))).unwrap_or_default();
            Err(unavailable(&format!("says that it is not well{why}")))
        }
        other => Err(unavailable(&format!("is in state {:?}", server.clean(other)))),
    }
}

/// What the model takes and gives, if the server knows.
pub(crate) async fn schema(server: &Server) -> Result<Option<Schema>, AdapterError> {
    let response = server.ask(|| server.request(Method::GET, "/openapi.json")).await?;
    if !response.status().is_success() {
        return Ok(None);
    }
    Ok(Schema::read(&server.read(response, DESCRIPTION_BYTES_MAX).await?))
}
