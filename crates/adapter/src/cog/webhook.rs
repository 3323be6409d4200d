//! Where Cog servers call back.
//!
//! Each prediction has an address of its own that nobody can guess; it is good until somebody told there how the
//! prediction ended, or nobody waits any more. Who tells that it goes on is heard and waited for.

use crate::{AdapterError, SetupError, server::too_large};
use axum::{
    Router,
    body::{Body, Bytes},
    extract::{Path, State},
    http::StatusCode,
    routing::post,
};
use futures::StreamExt as _;
use parking_lot::Mutex;
use serde::Deserialize;
use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};
use tokio::{net::TcpListener, sync::oneshot, task::JoinHandle};

/// How long a call may take.
const BODY_TIME_MAX: Duration = Duration::from_secs(60);

/// What was said, or why it was not heard.
type Said = Result<Bytes, AdapterError>;
type Expected = Arc<Mutex<BTreeMap<String, oneshot::Sender<Said>>>>;

/// A listener for calls.
pub(crate) struct Webhooks {
    base_url: String,
    expected: Expected,
    task: JoinHandle<()>,
}

impl Drop for Webhooks {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A call that is expected.
pub(crate) struct Call {
    token: String,
    url: String,
    call: oneshot::Receiver<Said>,
    expected: Expected,
}

impl Drop for Call {
    fn drop(&mut self) {
        self.expected.lock().remove(&self.token);
    }
}

impl Webhooks {
    /// Listens for calls with at most `bytes_max` bytes.
    pub async fn listen(
        listen: Option<SocketAddr>,
        base_url: Option<String>,
        bytes_max: usize,
    ) -> Result<Self, SetupError> {
        let address = listen.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 0)));
        let failed = |source| SetupError::Listen { address, source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let base_url = match base_url {
            Some(url) => url.trim_end_matches('/').to_owned(),
            None => format!("http://{}", listener.local_addr().map_err(failed)?),
        };
        let expected = Expected::default();
        let app = Router::new().route("/{token}", post(called)).with_state((expected.clone(), bytes_max));
        let task = tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, app).await {
                tracing::error!(%error, "nobody listens to Cog servers any more");
            }
        });
        Ok(Self { base_url, expected, task })
    }

    /// An address for one call.
    pub fn expect(&self) -> Call {
        let token = hex::encode(rand::random::<[u8; 32]>());
        let (sender, call) = oneshot::channel();
        self.expected.lock().insert(token.clone(), sender);
        Call { url: format!("{}/{token}", self.base_url), token, call, expected: self.expected.clone() }
    }
}

impl Call {
    pub fn url(&self) -> &str {
        &self.url
    }

    /// What the server said of the end.
    pub async fn wait(mut self) -> Result<Bytes, AdapterError> {
        let nobody = |_| AdapterError::Failed("nobody listens to the model's server".into());
        (&mut self.call).await.map_err(nobody).flatten()
    }
}

async fn called(
    State((expected, bytes_max)): State<(Expected, usize)>,
    Path(token): Path<String>,
    body: Body,
) -> StatusCode {
    // Of strangers nothing is read.
    if !expected.lock().contains_key(&token) {
        return StatusCode::NOT_FOUND;
    }
    let (said, status) = match tokio::time::timeout(BODY_TIME_MAX, read(body, bytes_max)).await {
        Ok(Ok(body)) if goes_on(&body) => return StatusCode::OK,
        Ok(Ok(body)) => (Ok(body), StatusCode::OK),
        // Cog does not call again.
        Ok(Err(StatusCode::PAYLOAD_TOO_LARGE)) => (Err(too_large(bytes_max)), StatusCode::PAYLOAD_TOO_LARGE),
        Ok(Err(status)) => return status,
        Err(_) => return StatusCode::REQUEST_TIMEOUT,
    };
    match expected.lock().remove(&token) {
        Some(waits) => {
            let _ = waits.send(said);
            status
        }
        None => StatusCode::NOT_FOUND,
    }
}

async fn read(body: Body, bytes_max: usize) -> Result<Bytes, StatusCode> {
    let (mut pieces, mut read) = (body.into_data_stream(), Vec::new());
    while let Some(piece) = pieces.next().await {
        let piece = piece.map_err(|_| StatusCode::BAD_REQUEST)?;
        if read.len() + piece.len() > bytes_max {
            return Err(StatusCode::PAYLOAD_TOO_LARGE);
        }
        read.extend_from_slice(&piece);
    }
    Ok(read.into())
}

/// Whether a prediction is under way still: some servers tell that too, whatever they were asked to tell.
fn goes_on(body: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Told {
        status: String,
    }
    serde_json::from_slice(body).is_ok_and(|Told { status }| matches!(status.as_str(), "starting" | "processing"))
}
