//! A provider: finds work, decides by profit, runs, stores, commits, reveals; re-runs what others
//! answered, agrees or contests; votes.
//!
//! The core takes time, ledger, content, computation and memory as traits and spawns nothing, so it
//! runs inside the deterministic simulation as it is. Sockets, threads and files are shells.
//!
//! - [`policy`]: which work pays, term by term; replaceable
//! - [`offer`]: what the ledger offers for an order, in the provider's own terms
//! - [`book`]: what was measured, decided and earned
//! - [`decide`]: from what the ledger says to the next step, as a pure function
//! - [`core`]: carries the steps out, for many orders at a time
//! - [`deliver`]: the chosen lane, straight to the client
//! - [`compute`]: runs of models, as the core sees them
//! - [`serve`]: models in memory, and their runs side by side
//! - [`adapters`]: these, and models on servers elsewhere, as one
//! - [`journal`]: promises that must survive a restart
//! - [`http`]: the endpoint that clients and other providers reach

pub mod adapters;
pub mod book;
pub mod compute;
pub mod core;
pub mod decide;
pub mod deliver;
pub mod http;
pub mod journal;
pub mod offer;
pub mod policy;
pub mod serve;

pub use adapters::{Adapters, AllModels};
pub use book::{Decision, ModelStatus};
pub use compute::{Compute, ComputeError, InlineCompute, Pieces, Ran};
pub use core::{Behaviour, Parts, Provider, ProviderConfig, ProviderStatus};
pub use deliver::DeliverError;
pub use http::router;
pub use journal::{FileJournal, Journal, JournalError, MemoryJournal, Promise};
pub use policy::{Appraisal, Offer, Policy, PolicyName, ProfitPolicy, Task, VolunteerPolicy};
pub use serve::{LeftOut, ModelServer, ServeError, ServedModel, ServerConfig, ServingStatus, Source};
