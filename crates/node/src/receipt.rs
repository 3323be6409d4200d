//! Checking a receipt offline: nothing but the file and the network's public key. (V-2)

use althing_chain::{NetworkPublic, StateProof};
use althing_content::file_cid;
use althing_ledger::query;
use althing_sdk::Receipt;
use althing_types::{Address, Cid, Order, OrderId, Solution, decode};

/// Why a receipt proves nothing.
#[derive(Debug, thiserror::Error)]
pub enum ReceiptError {
    #[error("the file is not a receipt: {0}")]
    Malformed(#[from] serde_json::Error),
    #[error("the file was changed: a receipt has no other spaces, letter cases or fields than it was written with")]
    Rewritten,
    #[error("receipts of version {0} are unknown to this program")]
    Version(u32),
    #[error("the receipt names another network key than the one it is checked against")]
    OtherNetwork,
    #[error("the network's public key cannot be read: {0}")]
    NetworkKey(#[from] althing_chain::KeyError),
    #[error("the proof: {0}")]
    Proof(#[from] althing_chain::ProofError),
    #[error("the proof is about something else than the receipt's order")]
    OtherKey,
    #[error("the order in the receipt is not the one that the network proves")]
    OtherOrder,
    #[error("the receipt names height {stated}, the proof is of height {proven}")]
    Height { stated: u64, proven: u64 },
    #[error("the order has no solution")]
    NoSolution,
    #[error("the input's bytes are not those that the order names ({expected})")]
    Input { expected: Cid },
    #[error("the output's bytes are not those that the solution names ({expected})")]
    Output { expected: Cid },
}

/// What a receipt proves.
#[derive(Clone, Debug)]
pub struct Checked {
    pub order: Order,
    pub solution: Solution,
    pub agreed_by: Vec<Address>,
    /// The block whose state holds the order just so.
    pub height: u64,
    pub time_ms: u64,
    pub state_root: [u8; 32],
}

/// Reads a receipt file.
///
/// # Errors
/// If it is no receipt of a known version.
pub fn read(bytes: &[u8]) -> Result<Receipt, ReceiptError> {
    let receipt: Receipt = serde_json::from_slice(bytes)?;
    if receipt.version != 1 {
        return Err(ReceiptError::Version(receipt.version));
    }
    if receipt.to_bytes() != bytes {
        return Err(ReceiptError::Rewritten);
    }
    Ok(receipt)
}

/// Checks everything in a receipt against the network key that the checker trusts, hex.
///
/// # Errors
/// The first thing that does not hold.
pub fn verify(receipt: &Receipt, network_key: &str) -> Result<Checked, ReceiptError> {
    if receipt.network_key != network_key {
        return Err(ReceiptError::OtherNetwork);
    }
    let network = NetworkPublic::from_hex(network_key)?;
    let proof = StateProof::from_bytes(&receipt.proof.proof)?;
    let header = proof.verify(&network, &receipt.chain.0)?.clone();
    let order_id: OrderId = receipt.proof.order.id;
    if proof.key != query::order_key(&order_id) {
        return Err(ReceiptError::OtherKey);
    }
    // The order as the receipt shows it, and as the network holds it, are one.
    let proven: Option<Order> = proof.value.as_deref().and_then(|value| decode(value).ok());
    let order = proven.filter(|proven| *proven == receipt.proof.order).ok_or(ReceiptError::OtherOrder)?;
    if header.height != receipt.proof.height {
        return Err(ReceiptError::Height { stated: receipt.proof.height, proven: header.height });
    }
    let solution = order.solutions.first().ok_or(ReceiptError::NoSolution)?.clone();
    if file_cid(&receipt.input) != order.input_cid {
        return Err(ReceiptError::Input { expected: order.input_cid });
    }
    if file_cid(&receipt.output) != solution.output || receipt.output.len() as u64 != solution.output_size {
        return Err(ReceiptError::Output { expected: solution.output });
    }
    Ok(Checked {
        agreed_by: order.agreements.iter().map(|agreement| agreement.provider).collect(),
        order,
        solution,
        height: header.height,
        time_ms: header.time_ms,
        state_root: header.state_root,
    })
}
