//! The client of a node over HTTP: [`althing_types::api`] as a [`LedgerClient`].

use crate::{ClientError, EventStream, LedgerClient, OrderFilter};
use althing_types::{
    Address, Case, Model, Order, OrderId, Params, Provider, SessionKey, SessionPublicKey, SignedTx, TxId,
    api::{
        AccountView, BlockEvents, BlockView, Emission, ErrorBody, Included, OrderProof, Status, Submit, Submitted,
        Supply,
    },
    encode,
};
use async_trait::async_trait;
use futures::{StreamExt as _, TryStreamExt as _};
use serde::de::DeserializeOwned;
use std::time::Duration;
use tokio::io::AsyncBufReadExt as _;

/// How long a node may take to answer beyond what it was asked to wait.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);
/// A connection that is silent for longer than this is lost: streams of events carry keep-alives, and
/// no answer is waited for longer than [`ANSWER_TIMEOUT`] beyond the wait asked for, at most 60 s.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(90);

/// A node at a base URL such as `http://127.0.0.1:7700`.
#[derive(Clone, Debug)]
pub struct HttpClient {
    base: String,
    http: reqwest::Client,
}

impl HttpClient {
    /// A client of the node at `base`.
    ///
    /// # Errors
    /// [`ClientError::Unreachable`] if `base` is not an `http://` URL.
    pub fn new(base: &str) -> Result<Self, ClientError> {
        let base = base.trim_end_matches('/').to_owned();
        let fail = |reason: String| ClientError::Unreachable { node: base.clone(), reason };
        if !base.starts_with("http://") {
            return Err(fail("a node's address starts with http://".into()));
        }
        reqwest::Url::parse(&base).map_err(|error| fail(error.to_string()))?;
        let http = reqwest::Client::builder()
            .connect_timeout(Duration::from_secs(5))
            .read_timeout(SILENCE_TIMEOUT)
            .build()
            .map_err(|error| fail(error.to_string()))?;
        Ok(Self { base, http })
    }

    /// The base URL.
    pub fn base(&self) -> &str {
        &self.base
    }

    fn unreachable(&self, error: &reqwest::Error) -> ClientError {
        let mut reason = error.to_string();
        // The cause says what a person can act on, such as a refused connection.
        let mut cause = std::error::Error::source(error);
        while let Some(error) = cause {
            reason = error.to_string();
            cause = error.source();
        }
        ClientError::Unreachable { node: self.base.clone(), reason }
    }

    /// Sends a request; an error answer becomes the error that it stands for.
    async fn send(&self, request: reqwest::RequestBuilder) -> Result<reqwest::Response, ClientError> {
        let response = request.send().await.map_err(|error| self.unreachable(&error))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let body = response.bytes().await.map_err(|error| self.unreachable(&error))?;
        let detail = serde_json::from_slice::<ErrorBody>(&body).map(|body| body.error).ok();
        let message = detail.as_ref().map_or_else(|| format!("HTTP status {status}"), |detail| detail.message.clone());
        Err(if status == reqwest::StatusCode::NOT_FOUND {
            ClientError::NotFound(message.trim_end_matches(" not found").to_owned())
        } else if let (true, Some(detail)) = (status.is_client_error(), detail) {
            ClientError::Refused { code: detail.code, message }
        } else {
            ClientError::Unreachable { node: self.base.clone(), reason: message }
        })
    }

    async fn json<T: DeserializeOwned>(
        &self,
        request: reqwest::RequestBuilder,
        wait_ms: u64,
    ) -> Result<T, ClientError> {
        let response = self.send(request.timeout(ANSWER_TIMEOUT + Duration::from_millis(wait_ms))).await?;
        response.json().await.map_err(|error| self.unreachable(&error))
    }

    pub(crate) async fn get<T: DeserializeOwned>(&self, path: impl AsRef<str>) -> Result<T, ClientError> {
        self.json(self.http.get(format!("{}{}", self.base, path.as_ref())), 0).await
    }
}

#[async_trait]
impl LedgerClient for HttpClient {
    async fn status(&self) -> Result<Status, ClientError> {
        self.get("/v1/status").await
    }

    async fn submit(&self, tx: &SignedTx, wait_ms: u64) -> Result<Submitted, ClientError> {
        let body = Submit { tx: encode(tx), wait_ms };
        self.json(self.http.post(format!("{}/v1/transactions", self.base)).json(&body), wait_ms).await
    }

    async fn transaction(&self, id: TxId, wait_ms: u64) -> Result<Option<Included>, ClientError> {
        let url = format!("{}/v1/transactions/{id}?wait_ms={wait_ms}", self.base);
        match self.json(self.http.get(url), wait_ms).await {
            Ok(included) => Ok(Some(included)),
            Err(ClientError::NotFound(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn account(&self, address: Address) -> Result<AccountView, ClientError> {
        self.get(format!("/v1/accounts/{address}")).await
    }

    async fn session_key(&self, account: Address, key: SessionPublicKey) -> Result<SessionKey, ClientError> {
        self.get(format!("/v1/accounts/{account}/session-keys/{key}")).await
    }

    async fn models(&self) -> Result<Vec<Model>, ClientError> {
        self.get("/v1/models").await
    }

    async fn model(&self, id_or_name: &str) -> Result<Model, ClientError> {
        // Whatever a person typed must not become another path.
        if id_or_name.is_empty() || !id_or_name.chars().all(|c| c.is_ascii_alphanumeric() || "-_./".contains(c)) {
            return Err(ClientError::NotFound(format!("model {id_or_name:?}")));
        }
        self.get(format!("/v1/models/{id_or_name}")).await
    }

    async fn providers(&self) -> Result<Vec<Provider>, ClientError> {
        self.get("/v1/providers").await
    }

    async fn provider(&self, address: Address) -> Result<Provider, ClientError> {
        self.get(format!("/v1/providers/{address}")).await
    }

    async fn orders(&self, filter: OrderFilter) -> Result<Vec<Order>, ClientError> {
        self.get(match filter {
            OrderFilter::All => "/v1/orders",
            OrderFilter::Open => "/v1/orders?state=open",
        })
        .await
    }

    async fn order(&self, id: OrderId) -> Result<Order, ClientError> {
        self.get(format!("/v1/orders/{id}")).await
    }

    async fn cases(&self) -> Result<Vec<Case>, ClientError> {
        self.get("/v1/cases").await
    }

    async fn case(&self, order: OrderId) -> Result<Case, ClientError> {
        self.get(format!("/v1/cases/{order}")).await
    }

    async fn params(&self) -> Result<Params, ClientError> {
        self.get("/v1/params").await
    }

    async fn supply(&self) -> Result<Supply, ClientError> {
        self.get("/v1/supply").await
    }

    async fn emission(&self) -> Result<Emission, ClientError> {
        self.get("/v1/emission").await
    }

    async fn block(&self, height: u64) -> Result<BlockView, ClientError> {
        self.get(format!("/v1/blocks/{height}")).await
    }

    async fn events(&self, from_height: u64) -> Result<EventStream, ClientError> {
        let request = self.http.get(format!("{}/v1/events?from={from_height}", self.base));
        let response = self.send(request).await?;
        let node = self.base.clone();
        let lost = move |reason: String| ClientError::Unreachable { node: node.clone(), reason };
        let reader = tokio_util::io::StreamReader::new(response.bytes_stream().map_err(std::io::Error::other));
        // Nodes write every event's JSON on one `data:` line; ids and comments need no attention.
        let stream = futures::stream::try_unfold(reader.lines(), move |mut lines| {
            let lost = lost.clone();
            async move {
                loop {
                    let Some(line) = lines.next_line().await.map_err(|error| lost(error.to_string()))? else {
                        return Ok(None);
                    };
                    if let Some(data) = line.strip_prefix("data:") {
                        let block: BlockEvents =
                            serde_json::from_str(data).map_err(|error| lost(format!("malformed event: {error}")))?;
                        return Ok(Some((block, lines)));
                    }
                }
            }
        });
        Ok(stream.boxed())
    }

    async fn order_proof(&self, id: OrderId) -> Result<OrderProof, ClientError> {
        self.get(format!("/v1/proofs/orders/{id}")).await
    }
}
