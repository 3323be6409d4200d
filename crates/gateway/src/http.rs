//! The routes.
//!
//! | request | answer |
//! |---|---|
//! | `GET /v1/models`, `/v1/models/{name}` | models, once for each lane |
//! | `POST /v1/chat/completions` | an answer, streamed or whole |
//! | `POST /v1/embeddings` | vectors of texts |
//! | `POST /v1/json` | whatever a model of the JSON interface gives for whatever it takes |
//! | `GET /v1/receipts/{order}` | a receipt |
//! | `GET /` | a page to try it |
//!
//! All but the page and receipts ask for `Authorization: Bearer` with one of the gateway's keys.

use crate::{
    ask::{Answer, AskError, Gateway, Progress},
    keys::{ApiKey, ApiKeys},
    openai::{
        ApiError, ChatRequest, Chunks, EmbeddingRequest, JsonRequest, OPEN_SUFFIX, Provenance, completion, listed,
        receipt_path,
    },
};
use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, FromRequestParts, Path, Request, State, rejection::JsonRejection},
    http::{HeaderMap, HeaderName, HeaderValue, header, request::Parts as RequestParts},
    middleware::{Next, from_fn},
    response::{
        Html, IntoResponse, Response,
        sse::{Event, KeepAlive, Sse},
    },
    routing::{get, post},
};
use std::{sync::Arc, time::UNIX_EPOCH};
use tokio::sync::{mpsc, oneshot};

const BODY_BYTES_MAX: usize = 4 << 20;

/// What the routes share.
#[derive(Clone)]
struct Shared {
    gateway: Arc<Gateway>,
    keys: Arc<ApiKeys>,
}

/// The API of a gateway for the holders of `keys`.
pub fn router(gateway: Arc<Gateway>, keys: ApiKeys) -> Router {
    Router::new()
        .route("/", get(|| async { Html(include_str!("page.html")) }))
        .route("/healthz", get(health))
        .route("/v1/models", get(models))
        .route("/v1/models/{*name}", get(model))
        .route("/v1/chat/completions", post(chat))
        .route("/v1/embeddings", post(embeddings))
        .route("/v1/json", post(json))
        .route("/v1/receipts/{order}", get(receipt))
        .fallback(|request: Request| async move {
            ApiError::not_found(format!("Unknown request: {} {}", request.method(), request.uri().path()))
        })
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(from_fn(request_id))
        .with_state(Shared { gateway, keys: Arc::new(keys) })
}

/// Every answer carries an id that people can quote.
async fn request_id(request: Request, next: Next) -> Response {
    let id = format!("req_{:032x}", rand::random::<u128>());
    let mut response = next.run(request).await;
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(HeaderName::from_static("x-request-id"), value);
    }
    response
}

fn now_s() -> u64 {
    #[allow(clippy::disallowed_methods)] // a label for clients, nothing depends on it
    std::time::SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// The key that a request came with.
struct Caller(ApiKey);

impl FromRequestParts<Shared> for Caller {
    type Rejection = ApiError;
    async fn from_request_parts(parts: &mut RequestParts, shared: &Shared) -> Result<Self, ApiError> {
        let header = parts.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let key = header.and_then(|value| value.strip_prefix("Bearer ")).and_then(|key| shared.keys.find(key.trim()));
        key.cloned().map(Self).ok_or_else(ApiError::unauthorised)
    }
}

fn ledger_error(error: althing_sdk::ClientError) -> ApiError {
    ApiError::of(&AskError::Client(error), "model")
}

async fn health(State(shared): State<Shared>) -> Result<impl IntoResponse, ApiError> {
    Ok(Json(shared.gateway.client().status().await.map_err(ledger_error)?))
}

async fn models(State(shared): State<Shared>, _: Caller) -> Result<impl IntoResponse, ApiError> {
    let models = shared.gateway.client().models().await.map_err(ledger_error)?;
    let data: Vec<_> = models.iter().flat_map(|model| listed(model, now_s())).collect();
    Ok(Json(serde_json::json!({"object": "list", "data": data})))
}

async fn model(
    State(shared): State<Shared>,
    _: Caller,
    Path(name): Path<String>,
) -> Result<impl IntoResponse, ApiError> {
    let bare = name.strip_suffix(OPEN_SUFFIX).unwrap_or(&name);
    let model = match shared.gateway.client().model(bare).await {
        Err(althing_sdk::ClientError::NotFound(_)) => return Err(ApiError::model_not_found(&name)),
        other => other.map_err(ledger_error)?,
    };
    let entry = listed(&model, now_s()).into_iter().find(|entry| entry["id"] == name.as_str());
    entry.map(Json).ok_or_else(|| ApiError::model_not_found(&name))
}

async fn receipt(State(shared): State<Shared>, Path(order): Path<String>) -> Result<Response, ApiError> {
    let missing = || ApiError::not_found(format!("There is no receipt of order {order} here"));
    let id = order.parse().map_err(|_| missing())?;
    match shared.gateway.receipts().get(&id) {
        Ok(Some(bytes)) => Ok(([(header::CONTENT_TYPE, "application/json")], bytes).into_response()),
        _ => Err(missing()),
    }
}

/// Starts a question on a task of its own: it is finished, and its receipt saved, even if the
/// client goes away.
fn start(
    shared: &Shared,
    key: ApiKey,
    ask: crate::Ask,
) -> (mpsc::UnboundedReceiver<Progress>, oneshot::Receiver<Result<Answer, AskError>>) {
    let (progress, happening) = mpsc::unbounded_channel();
    let (done, result) = oneshot::channel();
    let gateway = shared.gateway.clone();
    tokio::spawn(async move {
        let answer = gateway.ask(&key, &ask, &progress).await;
        if let Err(error) = &answer {
            tracing::info!(%error, model = ask.model, "no answer");
        }
        drop(progress);
        let _ = done.send(answer);
    });
    (happening, result)
}

fn api_error(
    result: Result<Result<Answer, AskError>, oneshot::error::RecvError>,
    input: &'static str,
) -> Result<Answer, ApiError> {
    match result {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(ApiError::of(&error, input)),
        Err(_) => Err(ApiError {
            status: axum::http::StatusCode::INTERNAL_SERVER_ERROR,
            kind: "server_error",
            code: "internal".into(),
            message: "the request was given up".into(),
            param: None,
        }),
    }
}

async fn chat(
    State(shared): State<Shared>,
    Caller(key): Caller,
    body: Result<Json<ChatRequest>, JsonRejection>,
) -> Result<Response, ApiError> {
    let Json(request) = body.map_err(|error| ApiError::invalid("body", error.body_text()))?;
    let ask = request.to_ask()?;
    let id = format!("chatcmpl-{:032x}", rand::random::<u128>());
    let (happening, result) = start(&shared, key, ask);
    if request.stream {
        return stream(request, id, happening, result).await;
    }
    let answer = api_error(result.await, "messages")?;
    let body = completion(&id, now_s(), &request.model, &answer);
    Ok((headers(&Provenance::of(&answer)), Json(body)).into_response())
}

async fn embeddings(
    State(shared): State<Shared>,
    Caller(key): Caller,
    body: Result<Json<EmbeddingRequest>, JsonRejection>,
) -> Result<Response, ApiError> {
    let Json(request) = body.map_err(|error| ApiError::invalid("body", error.body_text()))?;
    let (_, result) = start(&shared, key, request.to_ask()?);
    let answer = api_error(result.await, "input")?;
    Ok((headers(&Provenance::of(&answer)), Json(request.response(&answer)?)).into_response())
}

async fn json(
    State(shared): State<Shared>,
    Caller(key): Caller,
    body: Result<Json<JsonRequest>, JsonRejection>,
) -> Result<Response, ApiError> {
    let Json(request) = body.map_err(|error| ApiError::invalid("body", error.body_text()))?;
    let (_, result) = start(&shared, key, request.to_ask());
    let answer = api_error(result.await, "input")?;
    Ok((headers(&Provenance::of(&answer)), Json(request.response(&answer)?)).into_response())
}

/// What the network adds, as headers of a whole answer.
fn headers(provenance: &Provenance) -> HeaderMap {
    let level = serde_json::to_value(provenance.verification).unwrap_or_default();
    let mut headers = HeaderMap::new();
    for (name, value) in [
        ("x-althing-order", provenance.order.to_string()),
        ("x-althing-provider", provenance.provider.to_string()),
        ("x-althing-fee", provenance.fee.to_string()),
        ("x-althing-verification", level.as_str().unwrap_or_default().to_owned()),
        ("x-althing-receipt", provenance.receipt.clone()),
    ] {
        if let Ok(value) = HeaderValue::from_str(&value) {
            headers.insert(HeaderName::from_static(name), value);
        }
    }
    headers
}

/// Answers with a stream as soon as the order stands: what fails before gets a status of its own.
async fn stream(
    request: ChatRequest,
    id: String,
    mut happening: mpsc::UnboundedReceiver<Progress>,
    result: oneshot::Receiver<Result<Answer, AskError>>,
) -> Result<Response, ApiError> {
    let mut headers = HeaderMap::new();
    match happening.recv().await {
        Some(Progress::Ordered { order, provider, fee }) => {
            let provider = provider.map(|provider| provider.to_string()).unwrap_or_default();
            for (name, value) in [
                ("x-althing-order", order.to_string()),
                ("x-althing-fee", fee.to_string()),
                ("x-althing-provider", provider),
                ("x-althing-receipt", receipt_path(&order)),
            ] {
                if let (Ok(value), false) = (HeaderValue::from_str(&value), value.is_empty()) {
                    headers.insert(HeaderName::from_static(name), value);
                }
            }
        }
        Some(_) => {}
        // No order: an error, with a status of its own.
        None => {
            return Err(api_error(result.await, "messages").err().unwrap_or_else(|| ApiError::not_found("no order")));
        }
    }
    let created_s = now_s();
    let include_usage = request.stream_options.as_ref().is_some_and(|options| options.include_usage);
    let (events, receiver) = mpsc::unbounded_channel::<String>();
    tokio::spawn(async move {
        let chunks = Chunks { id: &id, created_s, model: &request.model };
        // A client that is gone reads nothing; the rest ends by itself.
        let send = |chunk: serde_json::Value| drop(events.send(chunk.to_string()));
        send(chunks.first());
        while let Some(progress) = happening.recv().await {
            if let Progress::Text(text) = progress {
                send(chunks.text(&text));
            }
        }
        match api_error(result.await, "messages") {
            Ok(answer) => {
                send(chunks.last(&answer));
                if include_usage {
                    send(chunks.usage(&answer));
                }
            }
            Err(error) => send(error.body()),
        }
        drop(events.send("[DONE]".into()));
    });
    let events = futures::stream::unfold(receiver, |mut receiver| async move {
        let data = receiver.recv().await?;
        Some((Ok::<_, std::convert::Infallible>(Event::default().data(data)), receiver))
    });
    Ok((headers, Sse::new(events).keep_alive(KeepAlive::default())).into_response())
}
