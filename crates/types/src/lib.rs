//! The vocabulary of the network: ids, amounts, every call, event and error of the ledger, the
//! objects that clients read, the canonical codec and the signing of transactions.
//!
//! Everything here is synchronous and free of I/O, clocks, randomness and floats, so that the same
//! bytes mean the same thing on every node. The canonical codec is borsh; numbering of every enum
//! is append-only. JSON (serde) is for people and APIs: amounts are decimal strings of base units,
//! hashes are hex.

pub mod amount;
pub mod api;
pub mod asset;
pub mod call;
pub mod commitment;
pub mod error;
pub mod event;
pub mod genesis;
pub mod id;
pub mod object;
pub mod params;
pub mod profile;
pub mod source;
pub mod tx;

pub use althing_content::Cid;
pub use amount::{Amount, Ppm};
pub use asset::{AssetAmount, AssetId, Holding};
pub use call::Call;
pub use error::LedgerError;
pub use event::Event;
pub use genesis::Genesis;
pub use id::{Address, ChainId, Hash, ModelId, OrderId, PoolId, SessionPublicKey, TxId};
pub use object::{
    Account, Agreement, Availability, BallotAnswer, Budget, Case, Commitment, Dao, DaoProposal, Delegation, Drip,
    Input, Lane, LpStake, MarketPool, Model, ModelReward, Order, OrderState, Outcome, ParamChange, Proposal,
    ProposalState, ProposalText, ProposalVote, Provider, RefundReason, Sale, SessionKey, Shareholder, Solution,
    Upgrade, Verification, Vote, VoteChoice, Voting,
};
pub use params::Params;
pub use source::{ContentSource, ContentSourceError};
pub use tx::{Auth, SignedTx, TxError, TxReceipt};

/// Encodes a value with the canonical codec.
///
/// # Panics
/// Never: writing borsh into memory cannot fail for the types of this crate.
pub fn encode<T: borsh::BorshSerialize>(value: &T) -> Vec<u8> {
    borsh::to_vec(value).expect("writing canonical bytes into memory cannot fail")
}

/// Decodes exactly one value with the canonical codec; trailing bytes are an error.
pub fn decode<T: borsh::BorshDeserialize>(bytes: &[u8]) -> std::io::Result<T> {
    borsh::from_slice(bytes)
}
