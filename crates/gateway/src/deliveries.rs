//! Streams from chosen providers. (M-5)

use althing_content::public::{PublicResolver, check_url};
use althing_sdk::delivery::{DeliveryRequest, SignedFrame};
use althing_types::{OrderId, api::ErrorBody};
use async_trait::async_trait;
use futures::{StreamExt as _, TryStreamExt as _, stream::BoxStream};
use std::time::Duration;
use tokio_util::io::StreamReader;

/// Longest line of a stream: a whole output as hex.
const LINE_BYTES_MAX: usize = 160 << 20;
/// A stream that is silent for longer is given up.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(120);

/// Why a delivery broke off.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeliveryError {
    #[error("the provider at {endpoint} cannot be reached: {reason}")]
    Unreachable { endpoint: String, reason: String },
    #[error("the provider refused: {0}")]
    Refused(String),
    #[error("the provider has too much to do: {0}")]
    Busy(String),
    #[error("the model is out of the provider's reach: {0}")]
    Unavailable(String),
    #[error("the provider's stream is broken: {0}")]
    Broken(String),
}

impl DeliveryError {
    /// Whether the provider charges nothing, for sure: it was not reached, or said that nothing comes.
    pub fn is_free(&self) -> bool {
        !matches!(self, Self::Broken(_))
    }
}

/// Frames as they come, not yet verified.
pub type FrameStream = BoxStream<'static, Result<SignedFrame, DeliveryError>>;

/// The way to providers.
#[async_trait]
pub trait Deliveries: Send + Sync + 'static {
    /// Asks the provider at `endpoint` to deliver an order.
    async fn open(
        &self,
        endpoint: &str,
        order: OrderId,
        request: DeliveryRequest,
    ) -> Result<FrameStream, DeliveryError>;
}

/// Providers over HTTP.
pub struct HttpDeliveries {
    http: reqwest::Client,
    public_only: bool,
}

impl HttpDeliveries {
    /// A client with time limits on connecting and on silence, for providers at public addresses alone or at any.
    ///
    /// # Errors
    /// If the HTTP client cannot be set up.
    pub fn new(public_only: bool) -> Result<Self, reqwest::Error> {
        let builder = reqwest::Client::builder().connect_timeout(Duration::from_secs(3)).read_timeout(SILENCE_TIMEOUT);
        // Providers are strangers: their answers never lead the gateway elsewhere.
        let builder = builder.redirect(reqwest::redirect::Policy::none());
        let builder = if public_only { builder.no_proxy().dns_resolver(PublicResolver) } else { builder };
        Ok(Self { http: builder.build()?, public_only })
    }
}

#[async_trait]
impl Deliveries for HttpDeliveries {
    async fn open(
        &self,
        endpoint: &str,
        order: OrderId,
        request: DeliveryRequest,
    ) -> Result<FrameStream, DeliveryError> {
        let unreachable = |error: reqwest::Error| match error.is_connect() {
            true => DeliveryError::Unreachable { endpoint: endpoint.into(), reason: error.without_url().to_string() },
            // It may have got the request.
            false => DeliveryError::Broken(error.without_url().to_string()),
        };
        let url = format!("{}/v1/deliveries/{order}", endpoint.trim_end_matches('/'));
        if self.public_only {
            let refused = |reason: String| DeliveryError::Unreachable { endpoint: endpoint.into(), reason };
            let url = url.parse().map_err(|_| refused("it is no URL".into()))?;
            check_url(&url).map_err(|error| refused(error.to_string()))?;
        }
        let response = self.http.post(url).json(&request).send().await.map_err(unreachable)?;
        if !response.status().is_success() {
            let status = response.status();
            let Ok(ErrorBody { error }) = response.json().await else {
                return Err(DeliveryError::Refused(status.to_string()));
            };
            // By the code: only these say that the order was not accepted.
            return Err(match error.code.as_str() {
                "model_busy" => DeliveryError::Busy(error.message),
                "model_unavailable" => DeliveryError::Unavailable(error.message),
                _ => DeliveryError::Refused(error.message),
            });
        }
        let reader = StreamReader::new(response.bytes_stream().map_err(std::io::Error::other));
        let codec = tokio_util::codec::LinesCodec::new_with_max_length(LINE_BYTES_MAX);
        let lines = tokio_util::codec::FramedRead::new(reader, codec);
        let frames = lines.filter_map(async |line| {
            let broken = |error: &dyn std::fmt::Display| DeliveryError::Broken(error.to_string());
            match line {
                // A sign of life.
                Ok(line) if line.is_empty() => None,
                Ok(line) => Some(serde_json::from_str(&line).map_err(|error| broken(&error))),
                Err(error) => Some(Err(broken(&error))),
            }
        });
        Ok(frames.boxed())
    }
}
