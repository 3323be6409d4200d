//! The HTTP API of a node, as [`althing_types::api`] lists it: a shell around any
//! [`EconomyClient`], whose own routes are in [`crate::economy`].

use crate::{client::WAIT_MS_MAX, economy};
use althing_sdk::{ClientError, EconomyClient, OrderFilter};
use althing_types::{
    Address, OrderId, SessionPublicKey, SignedTx, TxId,
    api::{ErrorBody, ErrorDetail, Submit},
};
use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, Path, Query, State},
    http::StatusCode,
    response::{
        IntoResponse, Response,
        sse::{Event as SseEvent, KeepAlive, Sse},
    },
    routing::{get, post},
};
use futures::StreamExt as _;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

pub(crate) type Client = State<Arc<dyn EconomyClient>>;

/// An error with its status.
pub(crate) struct ApiError(StatusCode, ErrorBody);

impl ApiError {
    fn new(status: StatusCode, code: &str, message: impl Into<String>) -> Self {
        Self(status, ErrorBody { error: ErrorDetail { code: code.into(), message: message.into() } })
    }
    pub(crate) fn bad_request(message: impl ToString) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad_request", message.to_string())
    }
}

impl From<ClientError> for ApiError {
    fn from(error: ClientError) -> Self {
        let message = error.to_string();
        match error {
            ClientError::NotFound(_) => Self::new(StatusCode::NOT_FOUND, "not_found", message),
            ClientError::Refused { code, message } => Self::new(StatusCode::UNPROCESSABLE_ENTITY, &code, message),
            ClientError::Unreachable { .. } => Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", message),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        (self.0, Json(self.1)).into_response()
    }
}

/// Any answer as JSON, or an error.
pub(crate) fn answer<T: Serialize>(result: Result<T, ClientError>) -> Result<Json<T>, ApiError> {
    Ok(Json(result?))
}

/// Reads a path parameter; a wrong one says what was expected.
pub(crate) fn parse<T: std::str::FromStr<Err: std::fmt::Display>>(text: &str) -> Result<T, ApiError> {
    text.parse().map_err(ApiError::bad_request)
}

#[derive(Deserialize)]
struct Wait {
    #[serde(default)]
    wait_ms: u64,
}

#[derive(Deserialize)]
struct Orders {
    state: Option<String>,
}

#[derive(Deserialize)]
struct FromHeight {
    #[serde(default)]
    from: u64,
}

/// The API over a client of the ledger.
pub fn router(client: Arc<dyn EconomyClient>) -> Router {
    Router::new()
        .route("/v1/status", get(|State(c): Client| async move { answer(c.status().await) }))
        .route("/v1/params", get(|State(c): Client| async move { answer(c.params().await) }))
        .route("/v1/supply", get(|State(c): Client| async move { answer(c.supply().await) }))
        .route("/v1/emission", get(|State(c): Client| async move { answer(c.emission().await) }))
        .route("/v1/models", get(|State(c): Client| async move { answer(c.models().await) }))
        .route(
            "/v1/models/{*id}",
            get(|State(c): Client, Path(id): Path<String>| async move { answer(c.model(&id).await) }),
        )
        .route("/v1/providers", get(|State(c): Client| async move { answer(c.providers().await) }))
        .route("/v1/providers/{address}", get(provider))
        .route("/v1/accounts/{address}", get(account))
        .route("/v1/accounts/{address}/session-keys/{key}", get(session_key))
        .route("/v1/orders", get(orders))
        .route("/v1/orders/{id}", get(order))
        .route("/v1/cases", get(|State(c): Client| async move { answer(c.cases().await) }))
        .route("/v1/cases/{order}", get(case))
        .route("/v1/blocks/{height}", get(block))
        .route("/v1/proofs/orders/{id}", get(order_proof))
        .route("/v1/events", get(events))
        .route("/v1/transactions", post(submit))
        .route("/v1/transactions/{id}", get(transaction))
        .merge(economy::routes())
        .fallback(|| async { ApiError::new(StatusCode::NOT_FOUND, "not_found", "no such path") })
        .layer(DefaultBodyLimit::max(64 * 1024))
        .with_state(client)
}

async fn provider(State(c): Client, Path(id): Path<String>) -> Result<impl IntoResponse, ApiError> {
    answer(c.provider(parse::<Address>(&id)?).await)
}

async fn account(State(c): Client, Path(id): Path<String>) -> Result<impl IntoResponse, ApiError> {
    answer(c.account(parse::<Address>(&id)?).await)
}

async fn session_key(
    State(c): Client,
    Path((account, key)): Path<(String, String)>,
) -> Result<impl IntoResponse, ApiError> {
    answer(c.session_key(parse::<Address>(&account)?, parse::<SessionPublicKey>(&key)?).await)
}

async fn orders(State(c): Client, Query(query): Query<Orders>) -> Result<impl IntoResponse, ApiError> {
    let filter = match query.state.as_deref() {
        None | Some("all") => OrderFilter::All,
        Some("open") => OrderFilter::Open,
        Some(other) => return Err(ApiError::bad_request(format!("state is `all` or `open`, not {other:?}"))),
    };
    answer(c.orders(filter).await)
}

async fn order(State(c): Client, Path(id): Path<String>) -> Result<impl IntoResponse, ApiError> {
    answer(c.order(parse::<OrderId>(&id)?).await)
}

async fn case(State(c): Client, Path(id): Path<String>) -> Result<impl IntoResponse, ApiError> {
    answer(c.case(parse::<OrderId>(&id)?).await)
}

async fn block(State(c): Client, Path(height): Path<String>) -> Result<impl IntoResponse, ApiError> {
    answer(c.block(parse::<u64>(&height)?).await)
}

async fn order_proof(State(c): Client, Path(id): Path<String>) -> Result<impl IntoResponse, ApiError> {
    answer(c.order_proof(parse::<OrderId>(&id)?).await)
}

async fn submit(State(c): Client, Json(submit): Json<Submit>) -> Result<impl IntoResponse, ApiError> {
    let tx = SignedTx::decode(&submit.tx).map_err(ApiError::bad_request)?;
    answer(c.submit(&tx, submit.wait_ms.min(WAIT_MS_MAX)).await)
}

async fn transaction(
    State(c): Client,
    Path(id): Path<String>,
    Query(wait): Query<Wait>,
) -> Result<impl IntoResponse, ApiError> {
    let id = parse::<TxId>(&id)?;
    match c.transaction(id, wait.wait_ms.min(WAIT_MS_MAX)).await? {
        Some(included) => Ok(Json(included)),
        None => {
            Err(ApiError::new(StatusCode::NOT_FOUND, "not_found", format!("transaction {id} is in no finalized block")))
        }
    }
}

async fn events(State(c): Client, Query(query): Query<FromHeight>) -> Result<impl IntoResponse, ApiError> {
    let blocks = c.events(query.from).await?;
    let stream = blocks.map(|block| {
        let event = SseEvent::default();
        match block {
            Ok(block) => event.id(block.height.to_string()).json_data(&block).map_err(std::io::Error::other),
            Err(error) => Err(std::io::Error::other(error)),
        }
    });
    Ok(Sse::new(stream).keep_alive(KeepAlive::default()))
}
