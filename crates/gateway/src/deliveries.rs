//! Streams from chosen providers. (M-5)

use althing_sdk::delivery::{DeliveryRequest, SignedFrame};
use althing_types::{OrderId, api::ErrorBody};
use async_trait::async_trait;
use futures::{StreamExt as _, TryStreamExt as _, stream::BoxStream};
use reqwest::StatusCode;
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
pub struct HttpDeliveries(reqwest::Client);

impl HttpDeliveries {
    /// A client with time limits on connecting and on silence.
    ///
    /// # Errors
    /// If the HTTP client cannot be set up.
    pub fn new() -> Result<Self, reqwest::Error> {
        let builder = reqwest::Client::builder().connect_timeout(Duration::from_secs(3)).read_timeout(SILENCE_TIMEOUT);
        // Providers are strangers: their answers never lead the gateway elsewhere.
        Ok(Self(builder.redirect(reqwest::redirect::Policy::none()).build()?))
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
        let unreachable = |error: reqwest::Error| DeliveryError::Unreachable {
            endpoint: endpoint.into(),
            reason: error.without_url().to_string(),
        };
        let url = format!("{}/v1/deliveries/{order}", endpoint.trim_end_matches('/'));
        let response = self.0.post(url).json(&request).send().await.map_err(unreachable)?;
        if !response.status().is_success() {
            let status = response.status();
            let reason = response.json::<ErrorBody>().await.map(|body| body.error.message);
            let reason = reason.unwrap_or_else(|_| status.to_string());
            return Err(match status {
                StatusCode::TOO_MANY_REQUESTS => DeliveryError::Busy(reason),
                StatusCode::SERVICE_UNAVAILABLE => DeliveryError::Unavailable(reason),
                _ => DeliveryError::Refused(reason),
            });
        }
        let reader = StreamReader::new(response.bytes_stream().map_err(std::io::Error::other));
        let codec = tokio_util::codec::LinesCodec::new_with_max_length(LINE_BYTES_MAX);
        let lines = tokio_util::codec::FramedRead::new(reader, codec);
        let frames = lines.map(|line| {
            let line = line.map_err(|error| DeliveryError::Broken(error.to_string()))?;
            serde_json::from_str(&line).map_err(|error| DeliveryError::Broken(error.to_string()))
        });
        Ok(frames.boxed())
    }
}
