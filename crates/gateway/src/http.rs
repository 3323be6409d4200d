//! The routes.
//!
//! | request | answer |
//! |---|---|
//! | `GET /v1/models`, `/v1/models/{name}` | models, once for each lane |
//! | `POST /v1/chat/completions` | an answer, streamed or whole |
//! | `POST /v1/embeddings` | vectors of texts |
//! | `POST /v1/json` | whatever a model of the JSON interface gives for whatever it takes |
//! | `POST /v1/images/generations` | pictures of a text |
//! | `POST /v1/audio/speech` | a text, spoken |
//! | `GET /v1/receipts/{order}` | a receipt; of the chosen lane with the `token` that its address has |
//! | `GET /` | a page to try it |
//!
//! All but the page and receipts ask for `Authorization: Bearer` with one of the gateway's keys.

use crate::{
    ask::{Answer, AnswerOutput, AskError, Gateway, LaneWish, Progress},
    keys::{ApiKey, ApiKeys},
    media::{ImageRequest, SpeechRequest},
    openai::{
        ApiError, ChatRequest, Chunks, EmbeddingRequest, JsonRequest, OPEN_SUFFIX, Provenance, completion,
        delivery_failed, listed,
    },
    passthrough::{self, HeldEnd, Passthrough},
};
use althing_runtime::Interface;
use althing_sdk::Receipt;
use althing_types::{Address, Amount, Lane, Model, OrderId, Verification, object::CONTENT_INPUT_BYTES_MAX};
use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, FromRequestParts, Path, Query, Request, State, rejection::JsonRejection},
    http::{HeaderMap, HeaderName, HeaderValue, header, request::Parts as RequestParts},
    middleware::{Next, from_fn},
    response::{
        Html, IntoResponse, Response,
        sse::{Event, KeepAlive, Sse},
    },
    routing::{get, post},
};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use futures::future::{Either, ready};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};
use std::{
    sync::{Arc, LazyLock},
    time::{Duration, UNIX_EPOCH},
};
use tokio::sync::{mpsc, oneshot};

/// What fits into an order by its CID, and the rest of a request.
const BODY_BYTES_MAX: usize = CONTENT_INPUT_BYTES_MAX as usize + (1 << 20);
/// What people see who open the gateway's address in a browser.
const PAGE: &str = include_str!("page.html");
/// What the page may do: run its own script and nothing else, ask this gateway alone.
static PAGE_POLICY: LazyLock<String> = LazyLock::new(|| {
    let script = PAGE.split_once("<script>").and_then(|(_, rest)| rest.split_once("</script>")).unwrap_or_default().0;
    let digest = BASE64_STANDARD.encode(Sha256::digest(script));
    format!(
        "default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; connect-src 'self'; \
         img-src 'self' data:; media-src blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
});
/// How long a listing waits for what models take.
const LISTING_WAIT: Duration = Duration::from_secs(2);

/// What the routes share.
#[derive(Clone)]
struct Shared {
    gateway: Arc<Gateway>,
    keys: Arc<ApiKeys>,
}

/// The API of a gateway for the holders of `keys`.
pub fn router(gateway: Arc<Gateway>, keys: ApiKeys) -> Router {
    Router::new()
        .route("/", get(|| async { ([(header::CONTENT_SECURITY_POLICY, PAGE_POLICY.as_str())], Html(PAGE)) }))
        .route("/healthz", get(health))
        .route("/v1/models", get(models))
        .route("/v1/models/{*name}", get(model))
        .route("/v1/chat/completions", post(chat))
        .route("/v1/embeddings", post(embeddings))
        .route("/v1/json", post(json))
        .route("/v1/images/generations", post(images))
        .route("/v1/audio/speech", post(speech))
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
    // Those that nobody describes in time are listed all the same.
    let form = async |model: &Model| {
        // On a task of its own: what was not in time is known the next time.
        let (gateway, model) = (shared.gateway.clone(), model.clone());
        let looking = tokio::spawn(async move { gateway.form(&model).await.ok().flatten() });
        let form = tokio::time::timeout(LISTING_WAIT, looking).await;
        form.ok().and_then(Result::ok).flatten()
    };
    let forms = futures::future::join_all(models.iter().map(form)).await;
    let data: Vec<_> = models.iter().zip(forms).flat_map(|(model, form)| listed(model, form, now_s())).collect();
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
    let form = shared.gateway.form(&model).await.ok().flatten();
    let entry = listed(&model, form, now_s()).into_iter().find(|entry| entry["id"] == name.as_str());
    entry.map(Json).ok_or_else(|| ApiError::model_not_found(&name))
}

#[derive(Deserialize)]
struct ReceiptToken {
    #[serde(default)]
    token: String,
}

async fn receipt(
    State(shared): State<Shared>,
    Path(order): Path<String>,
    Query(ReceiptToken { token }): Query<ReceiptToken>,
) -> Result<Response, ApiError> {
    let missing =
        || ApiError::not_found(format!("There is no receipt of order {order} here, or not under this address"));
    let id = order.parse().map_err(|_| missing())?;
    let Ok(Some(bytes)) = shared.gateway.receipts().get(&id) else { return Err(missing()) };
    // Question and answer of the chosen lane are in it.
    let receipt: Receipt = serde_json::from_slice(&bytes).map_err(|_| missing())?;
    if receipt.proof.order.lane != Lane::Open && !shared.keys.opens(&id, &token) {
        return Err(missing());
    }
    Ok(([(header::CONTENT_TYPE, "application/json")], bytes).into_response())
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

type Body = Result<Json<Box<RawValue>>, JsonRejection>;

/// A body as it came, to be read as what its model takes.
fn raw(body: Body) -> Result<Box<RawValue>, ApiError> {
    body.map(|Json(body)| body).map_err(|error| ApiError::invalid("body", error.body_text()))
}

fn read<T: DeserializeOwned>(body: &RawValue) -> Result<T, ApiError> {
    serde_json::from_str(body.get())
        .map_err(|error| ApiError::invalid("body", format!("The request is malformed: {error}")))
}

async fn chat(State(shared): State<Shared>, Caller(key): Caller, body: Body) -> Result<Response, ApiError> {
    let body = raw(body)?;
    if let Some(request) = Passthrough::read(&shared.gateway, Interface::Chat, &body).await? {
        return pass(&shared, key, request, "messages").await;
    }
    let request: ChatRequest = read(&body)?;
    let ask = request.to_ask()?;
    let id = format!("chatcmpl-{:032x}", rand::random::<u128>());
    let lane = ask.lane;
    let (happening, result) = start(&shared, key.clone(), ask);
    if request.stream {
        return stream(request, Started { key, lane, id, happening, result }).await;
    }
    drop(happening);
    let answer = api_error(result.await, "messages")?;
    let body = completion(&id, now_s(), &request.model, &answer);
    Ok((headers(&Provenance::of(&answer)), Json(body)).into_response())
}

async fn embeddings(State(shared): State<Shared>, Caller(key): Caller, body: Body) -> Result<Response, ApiError> {
    let body = raw(body)?;
    if let Some(request) = Passthrough::read(&shared.gateway, Interface::Embedding, &body).await? {
        return pass(&shared, key, request, "input").await;
    }
    let request: EmbeddingRequest = read(&body)?;
    let (_, result) = start(&shared, key, request.to_ask()?);
    let answer = api_error(result.await, "input")?;
    Ok((headers(&Provenance::of(&answer)), Json(request.response(&answer)?)).into_response())
}

async fn json(State(shared): State<Shared>, Caller(key): Caller, body: Body) -> Result<Response, ApiError> {
    let request: JsonRequest = read(&raw(body)?)?;
    let (_, result) = start(&shared, key, request.to_ask());
    let answer = api_error(result.await, "input")?;
    Ok((headers(&Provenance::of(&answer)), Json(request.response(&answer)?)).into_response())
}

async fn images(
    State(shared): State<Shared>,
    Caller(key): Caller,
    request_headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let body = raw(body)?;
    if let Some(request) = Passthrough::read(&shared.gateway, Interface::Image, &body).await? {
        return pass(&shared, key, request, "prompt").await;
    }
    let request: ImageRequest = read(&body)?;
    let results: Vec<_> = request.to_asks()?.into_iter().map(|ask| start(&shared, key.clone(), ask).1).collect();
    // What came was paid for: the others' errors do not take it away.
    let (mut answers, mut errors) = (Vec::new(), Vec::new());
    for result in results {
        match api_error(result.await, "prompt") {
            Ok(answer) => answers.push(answer),
            Err(error) => errors.push(error),
        }
    }
    if answers.is_empty() {
        let worst = errors.iter().position(|error| !error.may_be_repeated()).unwrap_or_default();
        return Err(errors.swap_remove(worst));
    }
    let host = request_headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let base_url = host.map(|host| format!("http://{host}"));
    let response = request.response(&answers, now_s(), base_url.as_deref())?;
    let headers = answers.first().map(|answer| headers(&Provenance::of(answer))).unwrap_or_default();
    Ok((headers, Json(response)).into_response())
}

async fn speech(State(shared): State<Shared>, Caller(key): Caller, body: Body) -> Result<Response, ApiError> {
    let body = raw(body)?;
    if let Some(request) = Passthrough::read(&shared.gateway, Interface::Speech, &body).await? {
        return pass(&shared, key, request, "input").await;
    }
    let request: SpeechRequest = read(&body)?;
    let (_, result) = start(&shared, key, request.to_ask()?);
    let answer = api_error(result.await, "input")?;
    let headers = headers(&Provenance::of(&answer));
    match answer.output {
        AnswerOutput::File { media_type, bytes } => {
            Ok((headers, [(header::CONTENT_TYPE, media_type)], bytes).into_response())
        }
        _ => Err(delivery_failed("the provider delivered something else than a sound".into())),
    }
}

/// Waits until there is something to answer with: in the open lane the order, in the chosen lane the first word, before
/// which whatever fails gets a status of its own. Gives what is known of the order, and the word.
async fn first_word(
    key: &ApiKey,
    lane: LaneWish,
    happening: &mut mpsc::UnboundedReceiver<Progress>,
) -> (HeaderMap, Option<String>) {
    let mut headers = HeaderMap::new();
    loop {
        match happening.recv().await {
            Some(Progress::Ordered { order, provider, fee, verification }) => {
                headers = headers_of_order(key, order, provider, fee, verification);
                if lane == LaneWish::Open {
                    return (headers, None);
                }
            }
            Some(Progress::Text(text)) => return (headers, Some(text)),
            Some(_) => {}
            None => return (headers, None),
        }
    }
}

/// Answers with what the model's server says, byte for byte: as it comes, if the client asked for a stream.
async fn pass(shared: &Shared, key: ApiKey, request: Passthrough, input: &'static str) -> Result<Response, ApiError> {
    let (mut happening, result) = start(shared, key.clone(), request.ask.clone());
    let content_type = |media_type: String| [(header::CONTENT_TYPE, media_type)];
    if !request.is_stream {
        // Nobody listens to the pieces.
        drop(happening);
        let answer = api_error(result.await, input)?;
        let bytes = passthrough::bytes(&answer)?;
        let media_type = content_type(request.media_type(bytes));
        return Ok((headers(&Provenance::of(&answer)), media_type, bytes.to_vec()).into_response());
    }
    let (order_headers, first) = first_word(&key, LaneWish::Chosen, &mut happening).await;
    let Some(first) = first else {
        let answer = api_error(result.await, input)?;
        let media_type = content_type(request.media_type(&[]));
        return Ok((headers(&Provenance::of(&answer)), media_type).into_response());
    };
    let (pieces, receiver) = mpsc::unbounded_channel::<String>();
    tokio::spawn(async move {
        let mut end = HeldEnd::default();
        // A client that is gone reads nothing; the rest ends by itself.
        let _ = pieces.send(end.take(&first));
        while let Some(progress) = happening.recv().await {
            if let Progress::Text(text) = progress {
                let _ = pieces.send(end.take(&text));
            }
        }
        let _ = pieces.send(match api_error(result.await, input) {
            Ok(_) => end.finish(),
            Err(error) => format!("\n\ndata: {}\n\n", error.body()),
        });
    });
    let body = futures::stream::unfold(receiver, |mut receiver| async move {
        let piece = receiver.recv().await?;
        Some((Ok::<_, std::convert::Infallible>(piece), receiver))
    });
    let media_type = content_type(request.media_type(&[]));
    Ok((order_headers, media_type, axum::body::Body::from_stream(body)).into_response())
}

/// What the network adds, as headers of a whole answer.
fn headers(provenance: &Provenance) -> HeaderMap {
    header_map([
        ("x-althing-order", provenance.order.to_string()),
        ("x-althing-provider", provenance.provider.to_string()),
        ("x-althing-fee", provenance.fee.to_string()),
        ("x-althing-verification", word(provenance.verification)),
        ("x-althing-model-verification", word(provenance.model_verification)),
        ("x-althing-receipt", provenance.receipt.clone()),
    ])
}

/// What is known as soon as the order stands. A provider is known there in the chosen lane alone.
fn headers_of_order(
    key: &ApiKey,
    order: OrderId,
    provider: Option<Address>,
    fee: Amount,
    verification: Verification,
) -> HeaderMap {
    let receipt = match provider {
        Some(_) => key.receipt_path_private(&order),
        None => ApiKey::receipt_path_public(&order),
    };
    let provider = provider.map(|provider| provider.to_string()).unwrap_or_default();
    header_map([
        ("x-althing-order", order.to_string()),
        ("x-althing-fee", fee.to_string()),
        ("x-althing-provider", provider),
        ("x-althing-receipt", receipt),
        ("x-althing-model-verification", word(verification)),
    ])
}

/// Headers, without those that say nothing.
fn header_map<const N: usize>(headers: [(&'static str, String); N]) -> HeaderMap {
    let said = headers.into_iter().filter(|(_, value)| !value.is_empty());
    let header =
        |(name, value): (_, String)| Some((HeaderName::from_static(name), HeaderValue::from_str(&value).ok()?));
    said.filter_map(header).collect()
}

/// As in JSON, without the quotes.
fn word(value: impl Serialize) -> String {
    serde_json::to_value(value).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}

/// A question that is on its way.
struct Started {
    key: ApiKey,
    lane: LaneWish,
    id: String,
    happening: mpsc::UnboundedReceiver<Progress>,
    result: oneshot::Receiver<Result<Answer, AskError>>,
}

/// Answers with a stream: in the open lane as soon as the order stands, in the chosen lane when the first word came.
/// What fails before gets a status of its own.
async fn stream(request: ChatRequest, started: Started) -> Result<Response, ApiError> {
    let Started { key, lane, id, mut happening, result } = started;
    let (headers, first) = first_word(&key, lane, &mut happening).await;
    let ended = async move { api_error(result.await, "messages") };
    // An error with a status of its own; or an answer without a word.
    let ended = if headers.is_empty() || (lane == LaneWish::Chosen && first.is_none()) {
        Either::Left(ready(Ok(ended.await?)))
    } else {
        Either::Right(ended)
    };
    let created_s = now_s();
    let include_usage = request.stream_options.as_ref().is_some_and(|options| options.include_usage);
    let (events, receiver) = mpsc::unbounded_channel::<String>();
    tokio::spawn(async move {
        let chunks = Chunks { id: &id, created_s, model: &request.model };
        // A client that is gone reads nothing; the rest ends by itself.
        let send = |chunk: serde_json::Value| drop(events.send(chunk.to_string()));
        send(chunks.first());
        if let Some(text) = first {
            send(chunks.text(&text));
        }
        while let Some(progress) = happening.recv().await {
            if let Progress::Text(text) = progress {
                send(chunks.text(&text));
            }
        }
        match ended.await {
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
