//! What the chain asks of a ledger.
//!
//! The chain orders transactions, keeps state and proves it; it never looks inside either. A
//! [`Machine`] is the deterministic half: it decodes, checks and executes. Everything here is
//! synchronous and must give the same answer on every node for the same inputs: no clock, no
//! entropy, no I/O.

use std::collections::BTreeMap;

/// Read access to an ordered key-value state, answered from memory.
pub trait StateRead {
    /// The value of `key`, if it has one.
    fn get(&self, key: &[u8]) -> Option<Vec<u8>>;

    /// At most `limit` entries with `from <= key < to`, in ascending order of key.
    fn scan(&self, from: &[u8], to: &[u8], limit: usize) -> Vec<(Vec<u8>, Vec<u8>)>;
}

impl StateRead for BTreeMap<Vec<u8>, Vec<u8>> {
    fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        BTreeMap::get(self, key).cloned()
    }

    fn scan(&self, from: &[u8], to: &[u8], limit: usize) -> Vec<(Vec<u8>, Vec<u8>)> {
        if from >= to {
            return Vec::new();
        }
        self.range::<[u8], _>((std::ops::Bound::Included(from), std::ops::Bound::Excluded(to)))
            .take(limit)
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect()
    }
}

/// Names a sequence of nonces; what it means is the machine's business. Large enough for a kind, an
/// account and a key of it, since keys of one account may count apart.
pub type SenderId = [u8; 53];

/// What the chain needs to know of a transaction to pool and order it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TxMeta {
    /// Identity of the transaction; two different encodings must not share one.
    pub id: [u8; 32],
    /// Whose nonce the transaction uses.
    pub sender: SenderId,
    /// Position in the sender's sequence.
    pub nonce: u64,
    /// A block whose time is greater must not contain the transaction.
    pub expires_at_ms: u64,
    /// Higher goes first, as far as nonces allow.
    pub priority: u128,
}

/// Facts about the block under execution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockContext {
    /// Height of the block.
    pub height: u64,
    /// Block time in milliseconds since the Unix epoch; strictly increasing from block to block.
    pub time_ms: u64,
    /// Consensus view in which the block was proposed.
    pub view: u64,
    /// Unbiased randomness: the hash of the threshold signature over the parent's view.
    pub beacon: [u8; 32],
    /// The view that [`Self::beacon`] belongs to.
    pub parent_beacon_view: u64,
}

/// What executing a block gives.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BlockOutput {
    /// Keys written (`Some`) or removed (`None`).
    pub writes: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
    /// One encoded receipt per transaction, in the order of the transactions.
    pub receipts: Vec<Vec<u8>>,
    /// The encoded events of the block, in order.
    pub events: Vec<Vec<u8>>,
    /// Objects that left the state, by their ids: the history keeps them. Ids must be hashes, apart
    /// from those of transactions.
    pub archived: Vec<([u8; 32], Vec<u8>)>,
}

/// A deterministic ledger.
///
/// Keys and values together must stay within [`crate::MAX_ENTRY_BYTES`].
pub trait Machine: Send + Sync + 'static {
    /// The state before the first block.
    fn genesis(&self) -> BTreeMap<Vec<u8>, Vec<u8>>;

    /// Decodes `tx` and checks all that needs no state, its signature included.
    fn check_stateless(&self, tx: &[u8]) -> Result<TxMeta, String>;

    /// Decodes `tx` and checks all that needs neither state nor signature verification.
    ///
    /// Blocks are checked with this and [`Self::verify_batch`] together, which must accept the
    /// same set as [`Self::check_stateless`].
    fn inspect(&self, tx: &[u8]) -> Result<TxMeta, String> {
        self.check_stateless(tx)
    }

    /// Verifies the signatures of `txs`; the error is the index of one that fails.
    fn verify_batch(&self, txs: &[Vec<u8>]) -> Result<(), usize>;

    /// The nonce that `sender` must use next.
    fn next_nonce(&self, state: &dyn StateRead, sender: &SenderId) -> u64;

    /// Whether `tx` is worth keeping until it can be executed.
    fn check_mempool(&self, state: &dyn StateRead, tx: &[u8]) -> Result<(), String>;

    /// Whether something in `state` waits for the next block, whatever that holds, such as for its
    /// beacon. Blocks are then made as fast as with transactions.
    fn wants_block(&self, _state: &dyn StateRead) -> bool {
        false
    }

    /// Whether this program may execute the block at `next_height` on `state`. It is asked before each
    /// block; if not, the node stops before that block, for the reason given.
    fn can_run(&self, _state: &dyn StateRead, _next_height: u64) -> Result<(), String> {
        Ok(())
    }

    /// Executes `txs` on `state`. Failing transactions have a receipt that says so.
    fn execute(&self, state: &dyn StateRead, ctx: &BlockContext, txs: &[Vec<u8>]) -> BlockOutput;
}
