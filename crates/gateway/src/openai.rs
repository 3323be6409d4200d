//! Requests, answers and errors as OpenAI's clients expect them.

use crate::{
    ask::{Answer, AnswerOutput, Ask, AskError, AskInput, LaneWish, Level, verification},
    deliveries::DeliveryError,
    forms::Form,
};
use althing_runtime::{ChatInput, ChatMessage, EmbeddingInput, Role, chat::Finish, embedding::TEXTS_MAX};
use althing_sdk::{ClientError, SendError};
use althing_types::{Address, Amount, Cid, Model, OrderId, Verification, object::SEED_MODULUS};
use axum::{
    Json,
    http::{HeaderName, HeaderValue, StatusCode, header::RETRY_AFTER},
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// Ends a model name that asks for the open lane.
pub const OPEN_SUFFIX: &str = ":open";

/// The code of errors that end by waiting.
const BUSY: &str = "provider_busy";

/// An error in OpenAI's form.
#[derive(Clone, Debug)]
pub struct ApiError {
    pub status: StatusCode,
    pub kind: &'static str,
    pub code: String,
    pub message: String,
    pub param: Option<String>,
}

impl ApiError {
    fn new(status: StatusCode, kind: &'static str, code: impl Into<String>, message: impl Into<String>) -> Self {
        Self { status, kind, code: code.into(), message: message.into(), param: None }
    }

    /// A request that can never work.
    pub fn invalid(param: &str, message: impl Into<String>) -> Self {
        let error = Self::new(StatusCode::BAD_REQUEST, "invalid_request_error", "invalid_value", message);
        Self { param: Some(param.into()), ..error }
    }

    /// No key, or one that nobody gave out.
    pub fn unauthorised() -> Self {
        let message = "Incorrect API key provided. `althing key create` makes one; `althing dev` prints its own.";
        Self::new(StatusCode::UNAUTHORIZED, "invalid_request_error", "invalid_api_key", message)
    }

    /// Something that is not there.
    pub fn not_found(what: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "invalid_request_error", "not_found", what)
    }

    /// A model that is not registered.
    pub fn model_not_found(name: &str) -> Self {
        let message = format!("The model `{name}` does not exist. GET /v1/models lists those that do.");
        let error = Self::new(StatusCode::NOT_FOUND, "invalid_request_error", "model_not_found", message);
        Self { param: Some("model".into()), ..error }
    }

    /// The body, as in answers and in streams.
    pub fn body(&self) -> serde_json::Value {
        serde_json::json!({"error": {
            "message": self.message, "type": self.kind, "param": self.param, "code": self.code,
        }})
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.body())).into_response();
        // OpenAI's clients repeat 409, 429 and 5xx unless told otherwise: another order would be paid
        // for again, and funds do not appear by asking. Who is busy or away charged nothing.
        if self.code == BUSY {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("2"));
        } else if self.status != StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(HeaderName::from_static("x-should-retry"), HeaderValue::from_static("false"));
        }
        response
    }
}

impl ApiError {
    /// Whether a client that asks again pays nothing twice.
    pub fn may_be_repeated(&self) -> bool {
        self.code == BUSY || self.status == StatusCode::SERVICE_UNAVAILABLE
    }

    /// Why there is no answer; `input` is the parameter that the model was to read.
    pub fn of(error: &AskError, input: &'static str) -> Self {
        let message = error.to_string();
        let server = |status, code: &str| Self::new(status, "server_error", code, message.clone());
        match error {
            AskError::UnknownModel(name) => Self::model_not_found(name),
            AskError::InsufficientFunds { .. } => {
                Self::new(StatusCode::TOO_MANY_REQUESTS, "insufficient_quota", "insufficient_quota", message)
            }
            AskError::Refused { code, .. } => {
                let error = Self::new(StatusCode::BAD_REQUEST, "invalid_request_error", code.clone(), message);
                Self { param: Some(input.into()), ..error }
            }
            AskError::Delivery(DeliveryError::Busy(_)) => {
                Self::new(StatusCode::TOO_MANY_REQUESTS, "rate_limit_error", BUSY, message)
            }
            AskError::Delivery(DeliveryError::Unavailable(_)) | AskError::PackageUnavailable(_) => {
                server(StatusCode::SERVICE_UNAVAILABLE, "model_unavailable")
            }
            AskError::NoProvider(_) => server(StatusCode::SERVICE_UNAVAILABLE, "no_provider"),
            AskError::NotAnswered(_) => server(StatusCode::GATEWAY_TIMEOUT, "not_answered"),
            AskError::Unsettled(_) => server(StatusCode::GATEWAY_TIMEOUT, "not_settled"),
            AskError::Refuted(_) => server(StatusCode::BAD_GATEWAY, "answer_refuted"),
            AskError::Delivery(_) | AskError::Dishonest | AskError::Unusable { .. } | AskError::Content(_) => {
                server(StatusCode::BAD_GATEWAY, "delivery_failed")
            }
            AskError::Client(ClientError::NotFound(_)) => Self::unauthorised(),
            AskError::Client(ClientError::Refused { .. }) | AskError::Send(SendError::Ledger(_)) => {
                Self::new(StatusCode::BAD_REQUEST, "invalid_request_error", "refused_by_ledger", message)
            }
            AskError::Client(ClientError::Unreachable { .. }) | AskError::Send(_) => {
                server(StatusCode::SERVICE_UNAVAILABLE, "ledger_unreachable")
            }
            AskError::Receipt(_) => server(StatusCode::INTERNAL_SERVER_ERROR, "receipt_not_saved"),
        }
    }
}

/// `POST /v1/chat/completions`. Fields that only label a request are accepted and ignored; fields
/// that would change the answer and are not supported are refused.
#[derive(Debug, Deserialize)]
pub struct ChatRequest {
    pub model: String,
    pub messages: Vec<RequestMessage>,
    #[serde(default)]
    pub stream: bool,
    pub stream_options: Option<StreamOptions>,
    pub max_tokens: Option<u32>,
    pub max_completion_tokens: Option<u32>,
    pub temperature: Option<f32>,
    pub top_p: Option<f32>,
    pub seed: Option<i64>,
    pub stop: Option<Stop>,
    pub n: Option<u32>,
    /// Ours: `none`, `agreed` or `final`. (V-1)
    pub wait: Option<Level>,
    /// Ours: the provider to ask, in the chosen lane.
    pub provider: Option<Address>,
    pub tools: Option<serde_json::Value>,
    pub functions: Option<serde_json::Value>,
    pub response_format: Option<serde_json::Value>,
    pub logprobs: Option<bool>,
    pub logit_bias: Option<serde_json::Value>,
    pub frequency_penalty: Option<f32>,
    pub presence_penalty: Option<f32>,
    pub audio: Option<serde_json::Value>,
}

/// Options of a stream.
#[derive(Debug, Default, Deserialize)]
pub struct StreamOptions {
    #[serde(default)]
    pub include_usage: bool,
}

/// One or many texts.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub enum Stop {
    One(String),
    Many(Vec<String>),
}

/// A message of a request.
#[derive(Debug, Deserialize)]
pub struct RequestMessage {
    pub role: String,
    pub content: Option<MessageContent>,
}

/// A message's content: text, or parts of it.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub enum MessageContent {
    Text(String),
    Parts(Vec<ContentPart>),
}

/// One part of a message.
#[derive(Debug, Deserialize)]
pub struct ContentPart {
    #[serde(rename = "type")]
    pub kind: String,
    pub text: Option<String>,
}

impl ChatRequest {
    /// The question that the request asks.
    ///
    /// # Errors
    /// [`ApiError`] with the parameter that cannot be served.
    pub fn to_ask(&self) -> Result<Ask, ApiError> {
        let empty = |value: &Option<serde_json::Value>| {
            value.as_ref().is_none_or(|v| v.is_null() || v.as_array().is_some_and(Vec::is_empty))
        };
        let plain_text = |value: &serde_json::Value| value.is_null() || value["type"] == "text";
        for (param, fine) in [
            ("n", self.n.is_none_or(|n| n == 1)),
            ("tools", empty(&self.tools)),
            ("functions", empty(&self.functions)),
            ("audio", empty(&self.audio)),
            ("response_format", self.response_format.as_ref().is_none_or(plain_text)),
            ("logprobs", self.logprobs != Some(true)),
            (
                "logit_bias",
                self.logit_bias.as_ref().is_none_or(|v| v.as_object().is_none_or(serde_json::Map::is_empty)),
            ),
            ("frequency_penalty", self.frequency_penalty.is_none_or(|p| p == 0.0)),
            ("presence_penalty", self.presence_penalty.is_none_or(|p| p == 0.0)),
        ] {
            if !fine {
                return Err(ApiError::invalid(
                    param,
                    format!("`{param}` is not supported by this network's chat models"),
                ));
            }
        }
        if self.messages.is_empty() {
            return Err(ApiError::invalid("messages", "there is no message"));
        }
        let messages = self.messages.iter().map(message).collect::<Result<_, _>>()?;
        let stop = match &self.stop {
            None => Vec::new(),
            Some(Stop::One(stop)) => vec![stop.clone()],
            Some(Stop::Many(stops)) => stops.clone(),
        };
        if stop.len() > 4 || stop.iter().any(|stop| stop.len() > 256) {
            return Err(ApiError::invalid("stop", "at most 4 texts of at most 256 bytes"));
        }
        let range = |param, value: Option<f32>, fine: fn(f32) -> bool, what| match value {
            Some(value) if !fine(value) => Err(ApiError::invalid(param, format!("{value} is not {what}"))),
            value => Ok(value),
        };
        let max_tokens = self.max_completion_tokens.or(self.max_tokens);
        if max_tokens == Some(0) {
            return Err(ApiError::invalid("max_tokens", "at least 1"));
        }
        let (model, lane) = lane_of(&self.model);
        let seed = self.seed.map(|seed| u64::from_ne_bytes(seed.to_ne_bytes()) % SEED_MODULUS);
        Ok(Ask {
            model: model.into(),
            lane,
            input: AskInput::Chat(ChatInput {
                messages,
                max_tokens,
                temperature: range("temperature", self.temperature, |t| (0.0..=2.0).contains(&t), "between 0 and 2")?,
                top_p: range("top_p", self.top_p, |p| p > 0.0 && p <= 1.0, "above 0 and up to 1")?,
                stop,
            }),
            seed,
            provider: self.provider,
            wait: self.wait,
        })
    }
}

/// A model's name, and the lane that its ending asks for.
pub(crate) fn lane_of(model: &str) -> (&str, LaneWish) {
    match model.strip_suffix(OPEN_SUFFIX) {
        Some(model) => (model, LaneWish::Open),
        None => (model, LaneWish::Chosen),
    }
}

/// `POST /v1/embeddings`.
#[derive(Debug, Deserialize)]
pub struct EmbeddingRequest {
    pub model: String,
    pub input: EmbeddingTexts,
    #[serde(default)]
    pub encoding_format: EncodingFormat,
    pub dimensions: Option<serde_json::Value>,
    /// Ours: `none`, `agreed` or `final`. (V-1)
    pub wait: Option<Level>,
    /// Ours: the provider to ask, in the chosen lane.
    pub provider: Option<Address>,
}

/// One text or several; tokens, which the API allows, are another model's business.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub enum EmbeddingTexts {
    One(String),
    Many(Vec<String>),
    Tokens(Vec<serde_json::Value>),
}

/// How vectors are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EncodingFormat {
    #[default]
    Float,
    Base64,
}

impl EmbeddingRequest {
    /// The question that the request asks.
    ///
    /// # Errors
    /// [`ApiError`] with the parameter that cannot be served.
    pub fn to_ask(&self) -> Result<Ask, ApiError> {
        let texts = match &self.input {
            EmbeddingTexts::One(text) => vec![text.clone()],
            EmbeddingTexts::Many(texts) => texts.clone(),
            EmbeddingTexts::Tokens(_) => {
                return Err(ApiError::invalid("input", "a text or a list of texts: tokens are not supported"));
            }
        };
        if self.dimensions.as_ref().is_some_and(|dimensions| !dimensions.is_null()) {
            let message = "`dimensions` is not supported: vectors have as many as the model gives them";
            return Err(ApiError::invalid("dimensions", message));
        }
        if texts.is_empty() || texts.len() > TEXTS_MAX {
            return Err(ApiError::invalid("input", format!("{} texts are not between 1 and {TEXTS_MAX}", texts.len())));
        }
        if texts.iter().any(String::is_empty) {
            return Err(ApiError::invalid("input", "a text is empty"));
        }
        let (model, lane) = lane_of(&self.model);
        let input = AskInput::Embedding(EmbeddingInput { texts });
        Ok(Ask { model: model.into(), lane, input, seed: None, provider: self.provider, wait: self.wait })
    }

    /// The response.
    ///
    /// # Errors
    /// If the vectors are none.
    pub fn response(&self, answer: &Answer) -> Result<serde_json::Value, ApiError> {
        let AnswerOutput::Embeddings { vectors, prompt_tokens } = &answer.output else {
            return Err(delivery_failed("the provider delivered something else than embeddings".into()));
        };
        let mut data = Vec::with_capacity(vectors.len());
        for (index, vector) in vectors.iter().enumerate() {
            let values = vector.values().ok_or_else(|| delivery_failed("a vector is malformed".into()))?;
            let embedding = match self.encoding_format {
                EncodingFormat::Float => serde_json::json!(values),
                EncodingFormat::Base64 => serde_json::json!(vector),
            };
            data.push(serde_json::json!({"object": "embedding", "index": index, "embedding": embedding}));
        }
        Ok(serde_json::json!({
            "object": "list",
            "data": data,
            "model": self.model,
            "usage": {"prompt_tokens": prompt_tokens, "total_tokens": prompt_tokens},
            "althing": Provenance::of(answer),
        }))
    }
}

/// `POST /v1/json`: no part of OpenAI's API.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JsonRequest {
    pub model: String,
    /// What the model is given, byte for byte.
    pub input: Box<RawValue>,
    /// A sampling seed fixed by the client. (T-2)
    pub seed: Option<u64>,
    /// `none`, `agreed` or `final`. (V-1)
    pub wait: Option<Level>,
    /// The provider to ask, in the chosen lane.
    pub provider: Option<Address>,
}

impl JsonRequest {
    /// The question that the request asks.
    pub fn to_ask(&self) -> Ask {
        let (model, lane) = lane_of(&self.model);
        let input = AskInput::Json(self.input.get().to_owned());
        Ask { model: model.into(), lane, input, seed: self.seed, provider: self.provider, wait: self.wait }
    }

    /// The response: the output byte for byte, and what the network adds.
    ///
    /// # Errors
    /// If the output is another interface's.
    pub fn response<'a>(&'a self, answer: &'a Answer) -> Result<JsonResponse<'a>, ApiError> {
        let AnswerOutput::Json(output) = &answer.output else {
            return Err(delivery_failed("the provider delivered something else than JSON".into()));
        };
        let output = serde_json::from_str(output).map_err(|error| delivery_failed(error.to_string()))?;
        Ok(JsonResponse { object: "json", model: &self.model, output, althing: Provenance::of(answer) })
    }
}

/// An answer to [`JsonRequest`].
#[derive(Debug, Serialize)]
pub struct JsonResponse<'a> {
    object: &'static str,
    model: &'a str,
    output: &'a RawValue,
    althing: Provenance,
}

pub(crate) fn delivery_failed(message: String) -> ApiError {
    ApiError::new(StatusCode::BAD_GATEWAY, "server_error", "delivery_failed", message)
}

fn message(message: &RequestMessage) -> Result<ChatMessage, ApiError> {
    let role = match message.role.as_str() {
        "system" | "developer" => Role::System,
        "user" => Role::User,
        "assistant" => Role::Assistant,
        other => return Err(ApiError::invalid("messages", format!("messages of role {other:?} are not supported"))),
    };
    let content = match &message.content {
        Some(MessageContent::Text(text)) => text.clone(),
        Some(MessageContent::Parts(parts)) => {
            let texts = parts.iter().map(|part| match (part.kind.as_str(), &part.text) {
                ("text", Some(text)) => Ok(text.as_str()),
                (kind, _) => Err(ApiError::invalid("messages", format!("content of type {kind:?} is not supported"))),
            });
            texts.collect::<Result<String, _>>()?
        }
        None => String::new(),
    };
    Ok(ChatMessage { role, content })
}

/// What the network adds to an answer.
#[derive(Clone, Debug, Serialize)]
pub struct Provenance {
    pub order: OrderId,
    pub model: String,
    pub provider: Address,
    pub fee: Amount,
    pub seed: Option<u64>,
    pub output_cid: Cid,
    pub verification: Level,
    /// Whether anybody can check the model's answers at all. (T-20)
    pub model_verification: Verification,
    pub agreed_by: Vec<Address>,
    /// Path of the receipt on this gateway.
    pub receipt: String,
}

impl Provenance {
    /// Of an answer.
    pub fn of(answer: &Answer) -> Self {
        Self {
            order: answer.order.id,
            model: answer.model.name.clone(),
            provider: answer.provider,
            fee: answer.order.fee,
            seed: answer.order.seed,
            output_cid: answer.output_cid,
            verification: answer.level,
            model_verification: answer.model.verification,
            agreed_by: answer.agreed_by.clone(),
            receipt: answer.receipt_path.clone(),
        }
    }
}

/// The numbers of a chat answer, as clients read them.
struct ChatNumbers {
    finish_reason: &'static str,
    usage: serde_json::Value,
}

fn chat_numbers(answer: &Answer) -> ChatNumbers {
    let (finish, prompt_tokens, completion_tokens) = match &answer.output {
        AnswerOutput::Chat { finish_reason, prompt_tokens, completion_tokens, .. } => {
            (*finish_reason, *prompt_tokens, *completion_tokens)
        }
        AnswerOutput::Embeddings { prompt_tokens, .. } => (Finish::Stop, *prompt_tokens, 0),
        AnswerOutput::Json(_) | AnswerOutput::File { .. } | AnswerOutput::Passthrough { .. } => (Finish::Stop, 0, 0),
    };
    ChatNumbers {
        finish_reason: match finish {
            Finish::Stop => "stop",
            Finish::Length => "length",
        },
        usage: serde_json::json!({
            "prompt_tokens": prompt_tokens,
            "completion_tokens": completion_tokens,
            "total_tokens": u64::from(prompt_tokens) + u64::from(completion_tokens),
        }),
    }
}

/// A whole answer.
pub fn completion(id: &str, created_s: u64, model: &str, answer: &Answer) -> serde_json::Value {
    let ChatNumbers { finish_reason, usage } = chat_numbers(answer);
    serde_json::json!({
        "id": id,
        "object": "chat.completion",
        "created": created_s,
        "model": model,
        "choices": [{
            "index": 0,
            "message": {"role": "assistant", "content": answer.output.text(), "refusal": null},
            "logprobs": null,
            "finish_reason": finish_reason,
        }],
        "usage": usage,
        "althing": Provenance::of(answer),
    })
}

/// The chunks of one stream.
pub struct Chunks<'a> {
    pub id: &'a str,
    pub created_s: u64,
    pub model: &'a str,
}

impl Chunks<'_> {
    fn chunk(&self, choices: serde_json::Value) -> serde_json::Value {
        serde_json::json!({
            "id": self.id, "object": "chat.completion.chunk", "created": self.created_s, "model": self.model,
            "choices": choices,
        })
    }

    /// The first chunk: who speaks.
    pub fn first(&self) -> serde_json::Value {
        self.chunk(
            serde_json::json!([{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": null}]),
        )
    }

    /// A piece of the answer.
    pub fn text(&self, text: &str) -> serde_json::Value {
        self.chunk(serde_json::json!([{"index": 0, "delta": {"content": text}, "finish_reason": null}]))
    }

    /// The last chunk, with what the network adds.
    pub fn last(&self, answer: &Answer) -> serde_json::Value {
        let finish = chat_numbers(answer).finish_reason;
        let mut chunk = self.chunk(serde_json::json!([{"index": 0, "delta": {}, "finish_reason": finish}]));
        chunk["althing"] = serde_json::to_value(Provenance::of(answer)).unwrap_or_default();
        chunk
    }

    /// The chunk that `stream_options.include_usage` asks for.
    pub fn usage(&self, answer: &Answer) -> serde_json::Value {
        let mut chunk = self.chunk(serde_json::json!([]));
        chunk["usage"] = chat_numbers(answer).usage;
        chunk
    }
}

/// The names under which a model is listed: one for each lane. What it takes is `null` if nobody says at the moment.
pub fn listed(model: &Model, form: Option<Form>, created_s: u64) -> Vec<serde_json::Value> {
    let about = serde_json::json!({
        "interface": form.map(|form| form.interface),
        "verification": verification(form, model),
        "fee": model.fee,
        "providers": model.supporters,
        "package": model.package,
    });
    let entry = |id: String| {
        serde_json::json!({
            "id": id, "object": "model", "created": created_s, "owned_by": model.owner, "althing": about,
        })
    };
    let mut names = vec![entry(model.name.clone())];
    if verification(form, model) == Verification::Exact {
        names.push(entry(format!("{}{OPEN_SUFFIX}", model.name)));
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(change: serde_json::Value) -> Result<Ask, ApiError> {
        let mut body = serde_json::json!({"model": "m", "messages": [{"role": "user", "content": "hi"}]});
        body.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        serde_json::from_value::<ChatRequest>(body).unwrap().to_ask()
    }

    #[test]
    fn the_model_name_picks_the_lane() {
        let ask = request(serde_json::json!({})).unwrap();
        assert_eq!((ask.lane, ask.wait, ask.model.as_str()), (LaneWish::Chosen, None, "m"));
        let ask = request(serde_json::json!({"model": "m:open"})).unwrap();
        assert_eq!((ask.lane, ask.wait, ask.model.as_str()), (LaneWish::Open, None, "m"));
        assert_eq!(request(serde_json::json!({"wait": "final"})).unwrap().wait, Some(Level::Final));
    }

    #[test]
    fn what_would_change_the_answer_and_is_not_supported_is_refused() {
        for (change, param) in [
            (serde_json::json!({"n": 2}), "n"),
            (serde_json::json!({"tools": [{"type": "function"}]}), "tools"),
            (serde_json::json!({"response_format": {"type": "json_object"}}), "response_format"),
            (serde_json::json!({"logprobs": true}), "logprobs"),
            (serde_json::json!({"presence_penalty": 1.0}), "presence_penalty"),
            (serde_json::json!({"temperature": 3.0}), "temperature"),
            (serde_json::json!({"top_p": 0.0}), "top_p"),
            (serde_json::json!({"messages": []}), "messages"),
            (serde_json::json!({"messages": [{"role": "tool", "content": "x"}]}), "messages"),
            (serde_json::json!({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}), "messages"),
            (serde_json::json!({"max_tokens": 0}), "max_tokens"),
            (serde_json::json!({"stop": ["a", "b", "c", "d", "e"]}), "stop"),
        ] {
            let error = request(change).unwrap_err();
            assert_eq!((error.status, error.param.as_deref()), (StatusCode::BAD_REQUEST, Some(param)));
        }
    }

    #[test]
    fn what_does_not_matter_is_accepted() {
        let ask = request(serde_json::json!({
            "user": "me", "metadata": {"a": "b"}, "store": false, "n": 1, "tools": [], "stop": "x", "seed": -1,
            "response_format": {"type": "text"}, "max_completion_tokens": 7, "max_tokens": 9,
            "messages": [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}],
        }))
        .unwrap();
        let AskInput::Chat(input) = ask.input else { panic!("a chat") };
        assert_eq!((input.messages[0].content.as_str(), input.max_tokens), ("ab", Some(7)));
        assert!(ask.seed.unwrap() < SEED_MODULUS);
    }

    #[test]
    fn embedding_requests_are_texts_one_or_several() {
        let ask = |body: serde_json::Value| serde_json::from_value::<EmbeddingRequest>(body).unwrap().to_ask();
        for (input, texts) in [(serde_json::json!("a"), vec!["a"]), (serde_json::json!(["a", "b"]), vec!["a", "b"])] {
            let ask = ask(serde_json::json!({"model": "m:open", "input": input, "user": "me"})).unwrap();
            assert_eq!((ask.model.as_str(), ask.lane), ("m", LaneWish::Open));
            let texts = texts.into_iter().map(str::to_owned).collect();
            assert_eq!(ask.input, AskInput::Embedding(EmbeddingInput { texts }));
        }
        let many: Vec<_> = (0..TEXTS_MAX + 1).map(|i| i.to_string()).collect();
        for (change, param) in [
            (serde_json::json!({"input": []}), "input"),
            (serde_json::json!({"input": ""}), "input"),
            (serde_json::json!({"input": ["a", ""]}), "input"),
            (serde_json::json!({"input": many}), "input"),
            (serde_json::json!({"input": [1, 2]}), "input"),
            (serde_json::json!({"input": [[1, 2]]}), "input"),
            (serde_json::json!({"input": "a", "dimensions": 4}), "dimensions"),
        ] {
            let mut body = serde_json::json!({"model": "m"});
            body.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
            let error = ask(body).unwrap_err();
            assert_eq!((error.status, error.param.as_deref()), (StatusCode::BAD_REQUEST, Some(param)));
        }
    }
}
