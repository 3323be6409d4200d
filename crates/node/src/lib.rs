//! A coordinator: the ledger on the chain, with its HTTP API.
//!
//! [`LedgerMachine`] is the ledger as the chain runs it, [`NodeClient`] reads its finalized state,
//! and [`router`] serves that over HTTP. [`InputWatch`] fetches the inputs that the coordinator is drawn for.

mod client;
mod economy;
mod http;
mod inputs;
mod machine;
pub mod receipt;

pub use client::NodeClient;
pub use http::router;
pub use inputs::InputWatch;
pub use machine::{LedgerMachine, LedgerState};
