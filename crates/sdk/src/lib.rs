//! What a client program links: keys, signing, a typed client of the ledger, its event stream and
//! receipts.
//!
//! Providers and gateways reach the ledger through [`LedgerClient`] alone, inside one process as
//! over the network, and take time from [`Clock`], so that their logic also runs inside the
//! deterministic simulation.

pub mod ballot;
pub mod client;
pub mod clock;
pub mod content;
pub mod delivery;
pub mod economy;
pub mod http;
pub mod keys;
pub mod receipt;
pub mod sender;
pub mod watch;

pub use ballot::Ballot;
pub use client::{ClientError, EventStream, LedgerClient, OrderFilter};
pub use clock::{Clock, SystemClock};
pub use content::{Content, ContentError, FetchedContent, NearContent, Source, StoreContent};
pub use economy::{Delegations, EconomyClient};
pub use http::HttpClient;
pub use keys::{SessionKeyPair, SessionSigner, Signer, WalletSigner};
pub use receipt::Receipt;
pub use sender::{Fate, SendError, Sender};
pub use watch::{any_order_until, order_until};
