//! Receipts: what a client keeps of an answer, and anyone can check. (V-2)

use althing_types::{ChainId, api::OrderProof, object::hex_bytes};
use serde::{Deserialize, Serialize};

/// The file that a gateway saves for every answer: complete in itself. Everything in it is proven by
/// the network's certificate, or named by what is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Receipt {
    /// Format version, 1.
    pub version: u32,
    /// The network's threshold public key, hex, as [`althing_types::api::Status`] gives it: what the
    /// certificate is checked against. A checker compares it with the key that it trusts.
    pub network_key: String,
    pub chain: ChainId,
    /// The order with its solution and agreements, and the proof that the network holds it so.
    pub proof: OrderProof,
    /// The bytes that the model ran on, and its answer: their CIDs are in the proven order.
    #[serde(with = "hex_bytes")]
    pub input: Vec<u8>,
    #[serde(with = "hex_bytes")]
    pub output: Vec<u8>,
}

impl Receipt {
    /// The file's bytes: the only form in which a receipt is accepted, so that no byte of it can be
    /// changed unnoticed.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = serde_json::to_vec_pretty(self).expect("receipts are plain data");
        bytes.push(b'\n');
        bytes
    }
}
