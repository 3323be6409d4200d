//! An OpenAI-compatible API over the network.
//!
//! The core ([`Gateway::ask`]) takes time, ledger, content and deliveries as traits and spawns
//! nothing; the HTTP shell ([`router`]) speaks OpenAI's dialect to clients.
//!
//! - [`ask`]: from a question to a verified answer with its receipt
//! - [`forms`]: what form a model's requests have
//! - [`packages`]: what packages say about themselves
//! - [`deliveries`]: streams from chosen providers
//! - [`keys`]: API keys and the session keys behind them
//! - [`receipts`]: where receipts are kept
//! - [`openai`]: requests, answers and errors as OpenAI's clients expect them
//! - [`passthrough`]: requests for models whose servers take them as they are
//! - [`media`]: pictures and sounds
//! - [`http`]: the routes

pub mod ask;
pub mod deliveries;
pub mod forms;
pub mod http;
pub mod keys;
pub mod media;
pub mod openai;
pub mod packages;
pub mod passthrough;
pub mod receipts;

pub use ask::{
    Answer, AnswerOutput, Ask, AskError, AskInput, Gateway, GatewayConfig, LaneWish, Level, Parts, Progress,
};
pub use deliveries::{Deliveries, DeliveryError, HttpDeliveries};
pub use forms::Form;
pub use http::router;
pub use keys::{ApiKey, ApiKeys, ApiKeysError};
pub use packages::{NoPackages, Packages, StorePackages};
pub use receipts::{FileReceipts, MemoryReceipts, Receipts};
