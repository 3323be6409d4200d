//! The typed client of the ledger: what every role may ask, however it is connected.

use althing_types::{
    Address, Case, Model, Order, OrderId, Params, Provider, SessionKey, SessionPublicKey, SignedTx, TxId,
    api::{AccountView, BlockEvents, BlockView, Emission, Included, OrderProof, Status, Submitted, Supply},
};
use async_trait::async_trait;
use futures::stream::BoxStream;

/// Why a question was not answered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// Nothing by that id.
    #[error("{0} not found")]
    NotFound(String),
    /// The node refused the request; asking again will not help.
    #[error("{code}: {message}")]
    Refused { code: String, message: String },
    /// The node could not be reached or did not answer properly; asking again may help.
    #[error("the node at {node} did not answer: {reason}")]
    Unreachable { node: String, reason: String },
}

/// Which orders to list, newest first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OrderFilter {
    /// Every order still in the state.
    #[default]
    All,
    /// Only orders that are not final.
    Open,
}

/// Finalized blocks' events, one item a block, without gaps, until the connection ends.
pub type EventStream = BoxStream<'static, Result<BlockEvents, ClientError>>;

/// A connection to the ledger. All answers are of finalized state.
#[async_trait]
pub trait LedgerClient: Send + Sync + 'static {
    /// Where the node stands.
    async fn status(&self) -> Result<Status, ClientError>;
    /// Hands a transaction to the mempool; with `wait_ms` > 0 waits for its receipt that long.
    async fn submit(&self, tx: &SignedTx, wait_ms: u64) -> Result<Submitted, ClientError>;
    /// The receipt of a transaction, `None` if it is in no finalized block by then.
    async fn transaction(&self, id: TxId, wait_ms: u64) -> Result<Option<Included>, ClientError>;
    async fn account(&self, address: Address) -> Result<AccountView, ClientError>;
    /// [`ClientError::NotFound`] if the account has no such key.
    async fn session_key(&self, account: Address, key: SessionPublicKey) -> Result<SessionKey, ClientError>;
    async fn models(&self) -> Result<Vec<Model>, ClientError>;
    /// By id (hex) or by name.
    async fn model(&self, id_or_name: &str) -> Result<Model, ClientError>;
    async fn providers(&self) -> Result<Vec<Provider>, ClientError>;
    async fn provider(&self, address: Address) -> Result<Provider, ClientError>;
    async fn orders(&self, filter: OrderFilter) -> Result<Vec<Order>, ClientError>;
    async fn order(&self, id: OrderId) -> Result<Order, ClientError>;
    /// Cases whose votes are not counted yet.
    async fn cases(&self) -> Result<Vec<Case>, ClientError>;
    async fn case(&self, order: OrderId) -> Result<Case, ClientError>;
    async fn params(&self) -> Result<Params, ClientError>;
    async fn supply(&self) -> Result<Supply, ClientError>;
    async fn emission(&self) -> Result<Emission, ClientError>;
    async fn block(&self, height: u64) -> Result<BlockView, ClientError>;
    /// Events of every finalized block from `from_height` on.
    async fn events(&self, from_height: u64) -> Result<EventStream, ClientError>;
    /// Proof of an order against the newest finalized state root. (V-2)
    async fn order_proof(&self, id: OrderId) -> Result<OrderProof, ClientError>;
}
