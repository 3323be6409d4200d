//! The endpoint that clients and other providers reach.
//!
//! | request | answer |
//! |---|---|
//! | `GET /ipfs/{cid}` | content of the open lane, as a trustless IPFS gateway serves it |
//! | `POST /v1/deliveries/{order}` with a signed request | signed frames, one JSON line each; empty lines mean nothing |
//! | `GET /v1/status` | what the provider did, earned and decided: a [`crate::ProviderStatus`] |

use crate::{ComputeError, DeliverError, Provider};
use althing_adapter::AdapterError;
use althing_content::{
    BlockStore,
    gateway::{Settings, router_with},
};
use althing_sdk::delivery::DeliveryRequest;
use althing_types::{
    OrderId,
    api::{ErrorBody, ErrorDetail},
};
use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::{DefaultBodyLimit, Path, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use futures::StreamExt as _;
use std::{sync::Arc, time::Duration};
use tokio::sync::mpsc;

/// A run that says nothing is told from a provider that is gone by an empty line so often.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// Inputs travel as hex.
const BODY_BYTES_MAX: usize = 40 << 20;

impl IntoResponse for DeliverError {
    fn into_response(self) -> Response {
        let (status, code) = match &self {
            Self::Unauthorised => (StatusCode::UNAUTHORIZED, "unauthorised"),
            Self::NotOurs => (StatusCode::NOT_FOUND, "not_ours"),
            Self::WrongInput => (StatusCode::UNPROCESSABLE_ENTITY, "wrong_input"),
            Self::Over => (StatusCode::GONE, "over"),
            Self::Busy => (StatusCode::CONFLICT, "busy"),
            Self::Ledger(_) => (StatusCode::CONFLICT, "refused"),
            Self::Client(althing_sdk::ClientError::NotFound(_)) => (StatusCode::NOT_FOUND, "not_found"),
            Self::NotReady(ComputeError::Adapter(AdapterError::Busy(_))) => {
                (StatusCode::TOO_MANY_REQUESTS, "model_busy")
            }
            Self::NotReady(_) => (StatusCode::SERVICE_UNAVAILABLE, "model_unavailable"),
            Self::NoSeed | Self::Client(_) | Self::Send(_) | Self::Content(_) => {
                (StatusCode::SERVICE_UNAVAILABLE, "unavailable")
            }
        };
        let error = ErrorDetail { code: code.into(), message: self.to_string() };
        (status, Json(ErrorBody { error })).into_response()
    }
}

/// The endpoint of `provider`, whose open content lies in `store` and is served as `settings` say.
pub fn router<S: BlockStore + Send + Sync + 'static>(
    provider: Arc<Provider>,
    store: Arc<S>,
    settings: Settings,
) -> Router {
    Router::new()
        .route("/v1/deliveries/{order}", post(deliver))
        .route("/v1/status", get(|State(provider): State<Arc<Provider>>| async move { Json(provider.report().await) }))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(provider)
        .merge(router_with(store, settings))
}

async fn deliver(
    State(provider): State<Arc<Provider>>,
    Path(order): Path<String>,
    Json(request): Json<DeliveryRequest>,
) -> Result<Response, DeliverError> {
    let order: OrderId = order.parse().map_err(|_| DeliverError::NotOurs)?;
    // A task of its own: the order is accepted and delivered even if the client hangs up.
    let preparing = tokio::spawn({
        let provider = provider.clone();
        async move { provider.prepare_delivery(order, request).await }
    });
    let delivery = preparing.await.map_err(|_| DeliverError::Over)??;
    let (sender, frames) = mpsc::unbounded_channel();
    tokio::spawn(async move { provider.deliver(delivery, sender).await });
    let lines = futures::stream::unfold(frames, |mut frames| async move {
        let line = match tokio::time::timeout(HEARTBEAT, frames.recv()).await {
            Ok(None) => return None,
            Ok(Some(frame)) => {
                let mut line = serde_json::to_vec(&frame).expect("frames are plain data");
                line.push(b'\n');
                line
            }
            Err(_) => b"\n".to_vec(),
        };
        Some((Ok::<_, std::convert::Infallible>(Bytes::from(line)), frames))
    });
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(lines.boxed())).into_response())
}
