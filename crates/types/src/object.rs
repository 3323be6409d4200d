//! The objects that the ledger stores and clients read.

use crate::{Address, Amount, Cid, Hash, ModelId, OrderId, SessionPublicKey, call::Scope};
use borsh::{BorshDeserialize, BorshSerialize};
use serde::{Deserialize, Serialize};

/// Seeds are below this number, 2^53 − 16, so that JSON numbers carry them. (T-2)
pub const SEED_MODULUS: u64 = 0x1F_FFFF_FFFF_FFF0;
/// The largest input that travels inside an order, bytes. (T-1)
pub const INLINE_INPUT_BYTES_MAX: usize = 4096;
/// How many valid reveals of one order the ledger keeps. (T-3)
pub const SOLUTIONS_MAX: usize = 3;

/// Balances and nonce of one account.
#[derive(Clone, Debug, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
pub struct Account {
    /// Spendable balance.
    pub free: Amount,
    /// The nonce that the next wallet-signed transaction must carry.
    pub nonce: u64,
    /// How many session keys the account has.
    pub session_keys: u32,
}

/// A key that an account allowed to act for it.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
pub struct SessionKey {
    pub account: Address,
    pub key: SessionPublicKey,
    pub scope: Scope,
    /// What the key may still spend from the free balance.
    pub spend_left: Amount,
    pub expires_at_ms: u64,
    /// The nonce that the key's next transaction must carry; counted apart from the wallet's.
    pub nonce: u64,
}

/// A provider's collateral and what it serves.
#[derive(Clone, Debug, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
pub struct Provider {
    pub account: Address,
    /// Collateral, reservations included, unbonding amounts not.
    pub bond: Amount,
    /// The part of the bond that outstanding claims may still lose. (T-9)
    pub reserved: Amount,
    /// Amounts on their way out. What a claim may still lose is reserved and never leaves. (T-10)
    pub unbonding: Vec<Unbonding>,
    /// Bond from each of these points of active time (ms) on, oldest first, for vote weights. (T-7)
    pub bond_history: Vec<(u64, Amount)>,
    /// No new work before this time, ms. (T-8)
    pub jailed_until_ms: u64,
    /// Models that it says it serves. (T-13)
    pub models: Vec<ModelId>,
    /// Base URL where clients reach it; empty if it takes no chosen orders.
    pub endpoint: String,
    /// Claims outstanding: solutions, agreements and votes not yet settled.
    pub outstanding: u32,
}

/// One amount that leaves the bond at a stated time.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
pub struct Unbonding {
    pub amount: Amount,
    pub free_at_ms: u64,
}

/// Whether results can be re-run bit for bit. (T-20)
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
#[borsh(use_discriminant = false)]
#[serde(rename_all = "snake_case")]
pub enum Verification {
    /// Not reproducible: refused in the open lane.
    None,
    /// Every run gives the same bits.
    Exact,
}

/// A registered model: an immutable package and mutable terms. (T-13)
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
pub struct Model {
    pub id: ModelId,
    pub owner: Address,
    /// Unique name, as API clients write it.
    pub name: String,
    /// CID of the package: code, weights, interface.
    pub package: Cid,
    pub verification: Verification,
    /// Flat fee of one run, paid to `payee`.
    pub fee: Amount,
    pub payee: Address,
    /// Bonded providers that say they serve it, and their bond.
    pub supporters: u32,
    pub supporters_bond: Amount,
    /// Lifetime count of settled runs.
    pub runs: u64,
}

/// What a model runs on. (T-1)
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Input {
    /// At most [`INLINE_INPUT_BYTES_MAX`] bytes inside the order; the ledger computes their CID.
    Inline {
        #[serde(with = "hex_bytes")]
        bytes: Vec<u8>,
    },
    /// Content that whoever has it serves.
    Content { cid: Cid, size: u64 },
}

/// How an order finds its provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
#[borsh(use_discriminant = false)]
#[serde(tag = "lane", rename_all = "snake_case")]
pub enum Lane {
    /// A race that any bonded provider may win. Input and output are public. (T-3, L-3)
    Open,
    /// The client names the provider.
    Chosen { provider: Address },
}

impl Lane {
    /// `open` or `chosen`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Chosen { .. } => "chosen",
        }
    }
}

/// One request for one run.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
pub struct Order {
    pub id: OrderId,
    /// Position among all orders since genesis, from 1.
    pub number: u64,
    pub client: Address,
    pub model: ModelId,
    /// Package of the model, so that a receipt names what ran.
    pub package: Cid,
    pub lane: Lane,
    pub input: Input,
    /// CID of the input, computed by the ledger for inline inputs.
    pub input_cid: Cid,
    pub fee: Amount,
    /// The model's fee and payee as they were at submission. (T-13)
    pub model_fee: Amount,
    pub model_payee: Address,
    pub submitted_height: u64,
    pub submitted_view: u64,
    pub submitted_ms: u64,
    pub deadline_ms: u64,
    /// Known once a beacon at least two views after inclusion is in a block, or at once when the
    /// client fixed it. (T-2)
    pub seed: Option<u64>,
    /// Whether the client fixed the seed: such orders earn no minted reward. (T-2)
    pub seed_by_client: bool,
    /// Agreements asked for and paid. (V-1)
    pub agreements_wanted: u8,
    pub parent: Option<OrderId>,
    /// How many orders lead to this one, 0 without a parent. (T-15)
    pub depth: u8,
    pub state: OrderState,
    /// How many commitments the order ever had; gives each its index.
    pub commitments_made: u32,
    /// Open commitments in the order they were included. (T-3)
    pub commitments: Vec<Commitment>,
    /// Valid reveals: the standing one first, then its replacements in commitment order. (T-3)
    pub solutions: Vec<Solution>,
    /// Agreements with the standing solution. (V-1)
    pub agreements: Vec<Agreement>,
    /// Set when the client asked to cancel; closes the order to new commitments. (T-17)
    pub cancelled: bool,
    /// Who solved it in the end, once it is claimed.
    pub claimed_by: Option<Address>,
}

/// Where an order is in its life. (§2)
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
#[borsh(use_discriminant = false)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum OrderState {
    /// Waiting for a solution (open lane) or for its provider's acceptance (chosen lane).
    Submitted,
    /// Chosen lane: the provider took it and must deliver before the time given.
    Accepted { deliver_by_ms: u64 },
    /// Solved; the solution stands until its challenge window ends, at a point of active time.
    Solved { claim_at_ms: u64 },
    /// Disputed; see the case with the same id.
    Contested { claim_at_ms: u64 },
    /// Paid out.
    Claimed,
    /// Given back to the client.
    Refunded { reason: RefundReason },
}

impl OrderState {
    /// Whether nothing more will happen to the order.
    pub fn is_final(&self) -> bool {
        matches!(self, Self::Claimed | Self::Refunded { .. })
    }
}

/// Why an order was refunded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
#[borsh(use_discriminant = false)]
#[serde(rename_all = "snake_case")]
pub enum RefundReason {
    /// Nobody solved it before its deadline.
    Expired,
    /// The client cancelled it.
    Cancelled,
    /// Its solution was refuted and no other stood behind it.
    Refuted,
    /// Its solver was refuted in another case and no other solution stood behind it.
    Voided,
}

/// A promise of an answer. (T-3)
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
pub struct Commitment {
    pub provider: Address,
    pub hash: Hash,
    pub height: u64,
    /// When it stops holding the order open.
    pub expires_ms: u64,
    /// Position in the order's history of commitments, from 0; gives reveals their order.
    pub index: u32,
}

/// A provider's claim that `output` answers the order.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
pub struct Solution {
    pub provider: Address,
    pub output: Cid,
    pub output_size: u64,
    pub height: u64,
    pub time_ms: u64,
    /// The same in active time: who was bonded before may vote on it. (T-7)
    pub active_ms: u64,
    /// Free bond when the solution was made: its vote in a dispute weighs at most this. (T-7)
    pub weight: Amount,
    /// Reserved from the bond until the solution settles. (T-9)
    pub reserved: Amount,
    /// Index of its commitment; 0 in the chosen lane.
    pub commitment_index: u32,
}

/// Another provider's confirmation by re-running. (V-1)
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
pub struct Agreement {
    pub provider: Address,
    pub height: u64,
    pub weight: Amount,
    pub reserved: Amount,
}

/// A dispute over the standing solution of one order. (T-7)
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
pub struct Case {
    pub order: OrderId,
    pub contester: Address,
    pub solver: Address,
    pub opened_height: u64,
    pub opened_ms: u64,
    /// A point of active time.
    pub voting_ends_ms: u64,
    pub votes: Vec<Vote>,
    /// Parameters as they were at the opening. (T-18)
    pub slash: crate::Ppm,
    pub slash_leader: crate::Ppm,
    pub slash_jurors: crate::Ppm,
    pub jail_ms: u64,
    /// Set when the vote is counted.
    pub outcome: Option<Outcome>,
}

/// One vote in a case.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
pub struct Vote {
    pub provider: Address,
    /// True: the solution is wrong.
    pub refute: bool,
    pub weight: Amount,
    pub reserved: Amount,
    /// True for the solver's and the agreements' votes, whose reservations were made earlier.
    pub inherited: bool,
}

/// How a case ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
#[borsh(use_discriminant = false)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The solution was right, or nobody outweighed it.
    Upheld,
    /// The solution was wrong.
    Refuted,
}

/// Serde helper: bytes as hex.
pub mod hex_bytes {
    use serde::{Deserialize as _, Deserializer, Serializer};
    /// Writes lower-case hex.
    pub fn serialize<S: Serializer>(bytes: &[u8], s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&hex::encode(bytes))
    }
    /// Reads hex.
    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(d)?;
        hex::decode(text).map_err(serde::de::Error::custom)
    }
}
