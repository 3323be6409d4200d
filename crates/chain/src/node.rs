//! A running coordinator, as seen from outside consensus.
//!
//! [`NodeHandle`] is cheap to clone and works in any async runtime: what needs the node's own
//! runtime (timers, files) is asked of a task that runs there. Everything that a handle reads is
//! finalized and durable.

use crate::{
    block::{Block, Header},
    history::{BlockRecord, Gone, TxReceipt},
    machine::StateRead,
    mempool::{SubmitError, TxId},
    proof::{CertifiedHeader, HEADERS_MAX, StateProof},
    shared::Shared,
};
use std::{sync::Arc, time::Duration};
use tokio::sync::{mpsc, oneshot};

/// When blocks are made.
#[derive(Clone, Copy, Debug)]
pub struct Pacing {
    /// Least time between blocks when transactions are waiting.
    pub block_interval_ms_min: u64,
    /// Time between blocks when none are.
    pub block_interval_ms_idle: u64,
    /// How long a view waits for its leader's block. Must exceed the idle interval.
    pub leader_timeout_ms: u64,
}

impl Default for Pacing {
    fn default() -> Self {
        Self { block_interval_ms_min: 50, block_interval_ms_idle: 500, leader_timeout_ms: 1_000 }
    }
}

/// The node has stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the node has stopped")]
pub struct Stopped;

impl From<Gone> for Stopped {
    fn from(_: Gone) -> Self {
        Self
    }
}

/// Why no receipt came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WaitError {
    #[error("the transaction was not finalized in time")]
    Timeout,
    #[error("too many callers are waiting for transactions")]
    TooMany,
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

/// Why there is no proof.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProveError {
    #[error("there is no finalized block yet")]
    NotReady,
    #[error("reading the state failed: {0}")]
    Storage(String),
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

/// A coordinator heard of lately.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerStatus {
    /// Its public key.
    pub key: [u8; 32],
    /// Milliseconds since its last message.
    pub silent_ms: u64,
    /// The height it said it had.
    pub height: u64,
}

/// How a node is doing.
#[derive(Clone, Debug)]
pub struct Status {
    /// Header of the finalized tip.
    pub tip: Header,
    /// Transactions waiting for a block.
    pub waiting_txs: usize,
    /// Other coordinators that this one hears from.
    pub peers: Vec<PeerStatus>,
}

/// Work for the node's own runtime.
pub(crate) enum Request {
    Sleep(Duration, oneshot::Sender<()>),
    Block(u64, oneshot::Sender<Option<Block>>),
    Certified(u64, oneshot::Sender<Option<CertifiedHeader>>),
    Prove(Vec<u8>, oneshot::Sender<Result<StateProof, ProveError>>),
}

/// See the module.
#[derive(Clone)]
pub struct NodeHandle {
    shared: Arc<Shared>,
    requests: mpsc::Sender<Request>,
}

impl NodeHandle {
    pub(crate) fn new(shared: Arc<Shared>, requests: mpsc::Sender<Request>) -> Self {
        Self { shared, requests }
    }

    async fn ask<T>(&self, request: impl FnOnce(oneshot::Sender<T>) -> Request) -> Result<T, Stopped> {
        let (reply, answer) = oneshot::channel();
        let request = request(reply);
        self.requests.send(request).await.map_err(|_| Stopped)?;
        answer.await.map_err(|_| Stopped)
    }

    /// Checks a transaction, takes it into the pool and tells the other coordinators.
    pub fn submit(&self, tx: Vec<u8>) -> Result<TxId, SubmitError> {
        if self.requests.is_closed() {
            return Err(SubmitError::Stopped);
        }
        let (id, tx) = self.shared.admit(tx)?;
        // If the queue is full, the transaction is told later with others from the pool.
        let _ = self.shared.outgoing.try_send(tx);
        Ok(id)
    }

    /// Waits until the transaction is finalized.
    pub async fn wait(&self, id: &TxId, timeout: Duration) -> Result<TxReceipt, WaitError> {
        let finalized = self.shared.wait_for(id).ok_or(WaitError::TooMany)?;
        if let Some(receipt) = self.receipt(id).await? {
            return Ok(receipt);
        }
        tokio::select! {
            biased;
            receipt = finalized => receipt.map_err(|_| Stopped.into()),
            slept = self.ask(|reply| Request::Sleep(timeout, reply)) => {
                slept?;
                Err(WaitError::Timeout)
            }
        }
    }

    /// The receipt of a finalized transaction.
    pub async fn receipt(&self, id: &TxId) -> Result<Option<TxReceipt>, Stopped> {
        Ok(self.shared.history.receipt(id).await?)
    }

    /// An object that left the state, as it was when it did.
    pub async fn archived(&self, id: &[u8; 32]) -> Result<Option<Vec<u8>>, Stopped> {
        Ok(self.shared.history.archived(id).await?)
    }

    /// How the node is doing; `None` until it has loaded its state.
    pub fn status(&self) -> Option<Status> {
        let now_ms = self.shared.now_ms();
        let heard = self.shared.heard.lock().clone();
        let peers = heard
            .into_iter()
            .map(|(key, (at_ms, height))| PeerStatus { key, silent_ms: now_ms.saturating_sub(at_ms), height })
            .collect();
        Some(Status {
            tip: self.shared.read(|live| live.tip.clone())?,
            waiting_txs: self.shared.pool.lock().len(),
            peers,
        })
    }

    /// Waits until the finalized tip is at `height` or above, and returns its height.
    pub async fn reached(&self, height: u64) -> Result<u64, Stopped> {
        let reached = self.shared.height.until(|tip| tip.filter(|tip| *tip >= height));
        tokio::select! {
            biased;
            reached = reached => Ok(reached),
            () = self.requests.closed() => Err(Stopped),
        }
    }

    /// Resolves with the reason when the machine must not run the next block: this is the end of what
    /// this program can do, and everything up to here is durable.
    pub async fn halted(&self) -> String {
        self.shared.halted.until(|reason| reason.map(|reason| reason.to_string())).await
    }

    /// Resolves when the node has stopped.
    pub async fn stopped(&self) {
        self.requests.closed().await;
    }

    /// Reads the state at the finalized tip. Keep it short: finalization waits meanwhile.
    /// `None` until the node has loaded its state.
    pub fn read<R>(&self, read: impl FnOnce(&dyn StateRead, &Header) -> R) -> Option<R> {
        self.shared.read(|live| read(live.state.base(), &live.tip))
    }

    /// The value of `key` at the finalized tip.
    pub fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.read(|state, _| state.get(key)).flatten()
    }

    /// At most `limit` entries with `from <= key < to` at the finalized tip.
    pub fn scan(&self, from: &[u8], to: &[u8], limit: usize) -> Vec<(Vec<u8>, Vec<u8>)> {
        self.read(|state, _| state.scan(from, to, limit)).unwrap_or_default()
    }

    /// The finalized block at `height`.
    pub async fn block(&self, height: u64) -> Result<Option<Block>, Stopped> {
        self.ask(|reply| Request::Block(height, reply)).await
    }

    /// What the finalized block at `height` did.
    pub async fn record(&self, height: u64) -> Result<Option<Arc<BlockRecord>>, Stopped> {
        Ok(self.shared.history.record(height).await?)
    }

    /// The header at `height` with the proof that it is final.
    pub async fn certified_header(&self, height: u64) -> Result<Option<CertifiedHeader>, Stopped> {
        self.ask(|reply| Request::Certified(height, reply)).await
    }

    /// Proves the value of `key`, or that it has none, at a recent height.
    pub async fn prove(&self, key: &[u8]) -> Result<StateProof, ProveError> {
        let key = key.to_vec();
        self.ask(|reply| Request::Prove(key, reply)).await?
    }

    /// Finalized blocks from `height` on, one after the other, past and future alike.
    pub fn subscribe(&self, height: u64) -> Subscription {
        Subscription {
            node: self.clone(),
            // The genesis block did nothing.
            height: height.max(1),
        }
    }

    /// Events from number `index` of the block at `height` on, past and future alike.
    pub fn events(&self, height: u64, index: u32) -> EventStream {
        EventStream {
            blocks: self.subscribe(height),
            current: None,
            index: match height {
                0 => 0,
                _ => index as usize,
            },
        }
    }
}

/// Finalized blocks in order.
pub struct Subscription {
    node: NodeHandle,
    height: u64,
}

impl Subscription {
    /// The next block, as soon as it is final.
    pub async fn next(&mut self) -> Result<Arc<BlockRecord>, Stopped> {
        self.node.reached(self.height).await?;
        let record = self.node.record(self.height).await?.ok_or(Stopped)?;
        self.height += 1;
        Ok(record)
    }
}

/// An event of a finalized block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Height of the block.
    pub height: u64,
    /// Time of the block.
    pub time_ms: u64,
    /// Position among the block's events.
    pub index: u32,
    /// The encoded event.
    pub bytes: Vec<u8>,
}

/// Events in order.
pub struct EventStream {
    blocks: Subscription,
    current: Option<Arc<BlockRecord>>,
    index: usize,
}

impl EventStream {
    /// The next event, as soon as its block is final.
    pub async fn next(&mut self) -> Result<Event, Stopped> {
        loop {
            let block = match &self.current {
                Some(block) => block.clone(),
                None => self.blocks.next().await?,
            };
            if let Some(bytes) = block.events.get(self.index) {
                let event = Event {
                    height: block.height,
                    time_ms: block.time_ms,
                    index: self.index as u32,
                    bytes: bytes.clone(),
                };
                self.index += 1;
                self.current = Some(block);
                return Ok(event);
            }
            self.current = None;
            self.index = 0;
        }
    }
}

/// How many headers a certified header may have.
pub(crate) const CERTIFIED_HEADERS_MAX: usize = HEADERS_MAX;
