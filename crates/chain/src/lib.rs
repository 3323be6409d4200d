//! The ledger under Byzantine fault tolerant consensus.
//!
//! A network is run by coordinators. They order transactions into blocks, execute them with a
//! [`Machine`], and finalize blocks with certificates by a threshold key that all of them share:
//! one public key checks everything. This is the only crate that names the consensus engine.
//!
//! Read [`machine`] for what a ledger must offer, [`block`] for what the network agrees on,
//! [`application`] for the rules of a valid block, [`engine`] for how the parts are put together,
//! and [`node`] for what a running coordinator offers. [`proof`] needs no node at all.

pub mod block;
pub mod keys;
pub mod machine;
pub mod mempool;
pub mod merkle;
pub mod node;
pub mod proof;

mod application;
mod engine;
mod gossip;
mod history;
mod live_state;
mod pacing;
mod service;
mod shared;
mod store;
mod tokio_node;
mod watched;

#[cfg(any(test, feature = "simulation"))]
pub mod simulation;

#[cfg(test)]
mod testing;

pub use application::TIME_STEP_MS_MAX;
pub use block::{Block, Header};
pub use engine::{ChainConfig, Channels, StartError, start};
pub use history::{BlockRecord, TxReceipt};
pub use keys::{CoordinatorSecret, KeyError, NetworkPublic, Scheme, deal};
pub use machine::{BlockContext, BlockOutput, Machine, SenderId, StateRead, TxMeta};
pub use mempool::{MempoolConfig, SubmitError, TxId};
pub use node::{
    Event, EventStream, NodeHandle, Pacing, PeerStatus, ProveError, Status, Stopped, Subscription, WaitError,
};
pub use proof::{CertifiedHeader, ProofError, StateProof, verify_finalization, verify_state_proof};
pub use store::MAX_ENTRY_BYTES;
pub use tokio_node::{Node, NodeConfig};

#[cfg(test)]
mod tests;
