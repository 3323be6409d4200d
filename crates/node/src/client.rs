//! The node's own [`LedgerClient`]: answers from the finalized state of a [`NodeHandle`].
//!
//! The HTTP API is a shell around this, and the deterministic simulation uses it as it is.

use crate::machine::LedgerState;
use althing_chain::{NetworkPublic, NodeHandle, ProveError, Stopped, SubmitError, WaitError};
use althing_ledger::{PROTOCOL_VERSION, query};
use althing_sdk::{ClientError, EventStream, LedgerClient, OrderFilter};
use althing_types::{
    Address, Case, ChainId, Event, Genesis, Hash, Model, Order, OrderId, Params, Provider, SessionKey,
    SessionPublicKey, SignedTx, TxId, TxReceipt,
    api::{AccountView, BlockEvents, BlockView, Emission, Included, OrderProof, Status, Submitted, Supply},
    decode, encode,
};
use async_trait::async_trait;
use std::time::Duration;

/// Most objects of one kind in a listing.
pub const LIST_MAX: usize = 1_000;
/// Longest wait for a transaction, ms.
pub const WAIT_MS_MAX: u64 = 60_000;

/// A connection to the ledger inside the process that runs it.
#[derive(Clone)]
pub struct NodeClient {
    node: NodeHandle,
    chain: ChainId,
    network: String,
    network_key: String,
    coordinators: u32,
    /// The newest version of the protocol that the node's program can run. (G-2)
    supported: u32,
}

fn stopped() -> ClientError {
    ClientError::Unreachable { node: "this process".into(), reason: "the node has stopped or is still starting".into() }
}

impl From<&SubmitError> for RefusalCode {
    fn from(error: &SubmitError) -> Self {
        Self(match error {
            SubmitError::TooLarge(_) | SubmitError::Invalid(_) => "invalid_transaction",
            SubmitError::Rejected(_) => "rejected",
            SubmitError::Duplicate => "duplicate",
            SubmitError::Expired { .. } => "expired",
            SubmitError::NonceUsed { .. } | SubmitError::NonceAhead { .. } | SubmitError::NonceTaken(_) => {
                "wrong_nonce"
            }
            SubmitError::Full => "mempool_full",
            SubmitError::Halted(_) => "upgrade_needed",
            SubmitError::NotReady | SubmitError::Stopped => "not_ready",
        })
    }
}

/// A stable name for a refusal.
struct RefusalCode(&'static str);

impl NodeClient {
    /// A client of the node that runs `genesis`.
    pub fn new(node: NodeHandle, genesis: &Genesis, network: &NetworkPublic) -> Self {
        Self {
            node,
            chain: genesis.chain_id(),
            network: genesis.network.clone(),
            network_key: network.to_hex(),
            coordinators: u32::try_from(network.participants().len()).unwrap_or(u32::MAX),
            supported: PROTOCOL_VERSION,
        }
    }

    /// The newest version of the protocol that the node's program can run. (G-2)
    pub(crate) fn supported(&self) -> u32 {
        self.supported
    }

    /// The node itself.
    pub fn node(&self) -> &NodeHandle {
        &self.node
    }

    /// Reads the finalized state.
    pub(crate) fn read<R>(&self, read: impl FnOnce(&LedgerState<'_>) -> R) -> Result<R, ClientError> {
        self.node.read(|state, _| read(&LedgerState(state))).ok_or_else(stopped)
    }

    /// Orders whose input `coordinator` is to fetch and to confirm. (T-21)
    ///
    /// # Errors
    /// If the node has stopped.
    pub fn inputs_to_fetch(&self, coordinator: &Address) -> Result<Vec<Order>, ClientError> {
        self.read(|state| query::inputs_to_fetch(state, coordinator))
    }

    pub(crate) fn find<R>(
        &self,
        what: impl FnOnce() -> String,
        read: impl FnOnce(&LedgerState<'_>) -> Option<R>,
    ) -> Result<R, ClientError> {
        self.read(read)?.ok_or_else(|| ClientError::NotFound(what()))
    }

    fn included(receipt: &althing_chain::TxReceipt) -> Result<Included, ClientError> {
        let decoded: TxReceipt = decode(&receipt.receipt).map_err(|error| ClientError::Refused {
            code: "corrupt_history".into(),
            message: format!("the stored receipt cannot be read: {error}"),
        })?;
        Ok(Included { height: receipt.height, time_ms: receipt.time_ms, receipt: decoded })
    }
}

/// Decodes what the node itself wrote into its history.
fn events_of(record: &althing_chain::BlockRecord) -> BlockEvents {
    let events: Vec<Event> = record.events.iter().filter_map(|bytes| decode(bytes).ok()).collect();
    BlockEvents { height: record.height, time_ms: record.time_ms, events }
}

#[async_trait]
impl LedgerClient for NodeClient {
    async fn status(&self) -> Result<Status, ClientError> {
        let status = self.node.status().ok_or_else(stopped)?;
        Ok(Status {
            chain: self.chain,
            network: self.network.clone(),
            height: status.tip.height,
            time_ms: status.tip.time_ms,
            active_ms: self.read(|state| query::clock(state).active_ms)?,
            state_root: Hash(status.tip.state_root),
            network_key: self.network_key.clone(),
            coordinators: self.coordinators,
            peers: u32::try_from(status.peers.iter().filter(|p| p.silent_ms < 10_000).count()).unwrap_or(u32::MAX),
            mempool: u32::try_from(status.waiting_txs).unwrap_or(u32::MAX),
            version: env!("CARGO_PKG_VERSION").into(),
        })
    }

    async fn submit(&self, tx: &SignedTx, wait_ms: u64) -> Result<Submitted, ClientError> {
        let id = self.node.submit(encode(tx)).map_err(|error| match error {
            SubmitError::NotReady | SubmitError::Stopped => stopped(),
            error => ClientError::Refused { code: RefusalCode::from(&error).0.into(), message: error.to_string() },
        })?;
        let id = TxId(id);
        let included = if wait_ms == 0 { None } else { self.transaction(id, wait_ms).await? };
        Ok(Submitted { id, included })
    }

    async fn transaction(&self, id: TxId, wait_ms: u64) -> Result<Option<Included>, ClientError> {
        let found = if wait_ms == 0 {
            self.node.receipt(&id.0).await.map_err(|Stopped| stopped())?
        } else {
            match self.node.wait(&id.0, Duration::from_millis(wait_ms.min(WAIT_MS_MAX))).await {
                Ok(receipt) => Some(receipt),
                Err(WaitError::Timeout) => None,
                Err(WaitError::Stopped(Stopped)) => return Err(stopped()),
                Err(error @ WaitError::TooMany) => {
                    return Err(ClientError::Refused { code: "busy".into(), message: error.to_string() });
                }
            }
        };
        found.as_ref().map(Self::included).transpose()
    }

    async fn account(&self, address: Address) -> Result<AccountView, ClientError> {
        self.read(|state| query::account_view(state, &address))
    }

    async fn session_key(&self, account: Address, key: SessionPublicKey) -> Result<SessionKey, ClientError> {
        self.find(|| format!("session key {key} of {account}"), |state| query::session_key(state, &account, &key))
    }

    async fn models(&self) -> Result<Vec<Model>, ClientError> {
        self.read(|state| query::models(state, LIST_MAX))
    }

    async fn model(&self, id_or_name: &str) -> Result<Model, ClientError> {
        let name = || format!("model {id_or_name:?}");
        self.find(name, |state| match id_or_name.parse() {
            Ok(id) => query::model(state, &id),
            Err(_) => query::model_by_name(state, id_or_name),
        })
    }

    async fn providers(&self) -> Result<Vec<Provider>, ClientError> {
        self.read(|state| query::providers(state, None, LIST_MAX))
    }

    async fn provider(&self, address: Address) -> Result<Provider, ClientError> {
        self.find(|| format!("provider {address}"), |state| query::provider(state, &address))
    }

    async fn orders(&self, filter: OrderFilter) -> Result<Vec<Order>, ClientError> {
        self.read(|state| {
            let mut orders = match filter {
                OrderFilter::All => query::orders_newest(state, LIST_MAX),
                OrderFilter::Open => query::orders_open(state, LIST_MAX),
            };
            orders.sort_by_key(|order| std::cmp::Reverse(order.number));
            orders
        })
    }

    async fn order(&self, id: OrderId) -> Result<Order, ClientError> {
        match self.find(|| format!("order {id}"), |state| query::order(state, &id)) {
            Err(missing @ ClientError::NotFound(_)) => {
                // Finished orders leave the state; the history has them as they ended.
                let archived = self.node.archived(&id.0).await.map_err(|Stopped| stopped())?;
                archived.and_then(|bytes| decode(&bytes).ok()).ok_or(missing)
            }
            found => found,
        }
    }

    async fn cases(&self) -> Result<Vec<Case>, ClientError> {
        self.read(|state| query::cases_open(state, LIST_MAX))
    }

    async fn case(&self, order: OrderId) -> Result<Case, ClientError> {
        self.find(|| format!("a case over order {order}"), |state| query::case(state, &order))
    }

    async fn params(&self) -> Result<Params, ClientError> {
        self.read(|state| query::params(state))
    }

    async fn supply(&self) -> Result<Supply, ClientError> {
        self.read(|state| query::supply(state))
    }

    async fn emission(&self) -> Result<Emission, ClientError> {
        self.read(|state| query::emission(state))
    }

    async fn block(&self, height: u64) -> Result<BlockView, ClientError> {
        let missing = || ClientError::NotFound(format!("block {height}"));
        let block = self.node.block(height).await.map_err(|Stopped| stopped())?.ok_or_else(missing)?;
        let receipts = match self.node.record(height).await.map_err(|Stopped| stopped())? {
            Some(record) => record.receipts.iter().filter_map(|bytes| decode(bytes).ok()).collect(),
            None => Vec::new(),
        };
        let header = &block.header;
        Ok(BlockView {
            height,
            time_ms: header.time_ms,
            view: header.view,
            digest: Hash(header.digest()),
            parent: Hash(header.parent),
            beacon: Hash(header.beacon()),
            state_root: Hash(header.state_root),
            receipts,
        })
    }

    async fn events(&self, from_height: u64) -> Result<EventStream, ClientError> {
        let blocks = self.node.subscribe(from_height);
        Ok(Box::pin(futures::stream::try_unfold(blocks, |mut blocks| async move {
            let record = blocks.next().await.map_err(|Stopped| stopped())?;
            Ok(Some((events_of(&record), blocks)))
        })))
    }

    async fn order_proof(&self, id: OrderId) -> Result<OrderProof, ClientError> {
        let proof = self.node.prove(&query::order_key(&id)).await.map_err(|error| match error {
            ProveError::Stopped(Stopped) | ProveError::NotReady => stopped(),
            ProveError::Storage(message) => ClientError::Refused { code: "storage".into(), message },
        })?;
        let value = proof.value.as_ref().ok_or_else(|| ClientError::NotFound(format!("order {id}")))?;
        let order: Order = decode(value)
            .map_err(|error| ClientError::Refused { code: "corrupt_state".into(), message: error.to_string() })?;
        let height = proof.header.headers.first().map_or(0, |header| header.height);
        Ok(OrderProof { order, height, proof: proof.to_bytes() })
    }
}
