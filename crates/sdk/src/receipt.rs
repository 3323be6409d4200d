//! Receipts: what a client keeps of an answer, and anyone can check. (V-2)

use althing_types::{Hash, Model, SessionPublicKey, api::OrderProof, object::hex_bytes};
use serde::{Deserialize, Serialize};

/// The file that a gateway saves for every answer: JSON, complete in itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// Format version, 1.
    pub version: u32,
    /// The network's threshold public key, hex, as [`althing_types::api::Status`] gives it: what the
    /// certificate is checked against. A checker compares it with the key that it trusts.
    pub network_key: String,
    pub chain: althing_types::ChainId,
    /// The order with its solution and agreements, and the proof that the network holds it so.
    pub proof: OrderProof,
    /// The model as registered when the answer came; the proven order names its package CID.
    pub model: Model,
    /// The bytes that the model ran on, and its answer: their CIDs are in the proven order.
    #[serde(with = "hex_bytes")]
    pub input: Vec<u8>,
    #[serde(with = "hex_bytes")]
    pub output: Vec<u8>,
    /// Chosen lane: the provider's signature over the stream that it delivered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivery: Option<Delivery>,
}

/// A provider's signed end of a stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delivery {
    pub provider_key: SessionPublicKey,
    /// Hash chained over every frame of the stream.
    pub transcript: Hash,
    #[serde(with = "hex_bytes")]
    pub signature: Vec<u8>,
}
