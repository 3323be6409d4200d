//! Transactions that wait for a block.
//!
//! The pool is bounded by number and by bytes, and for each sender. A sender's transactions leave
//! in the order of their nonces and without gaps; among senders the highest priority goes first,
//! and among equals the one that came first. Time here is always the time of blocks or the
//! caller's clock, never one of its own.

use crate::{
    block::{MAX_BLOCK_BYTES, MAX_BLOCK_TXS, MAX_TX_BYTES},
    machine::{Machine, SenderId, StateRead, TxMeta},
};
use std::{
    collections::{BTreeMap, BTreeSet, BinaryHeap},
    sync::Arc,
};

/// Identity of a transaction.
pub type TxId = [u8; 32];
type Sender = SenderId;

/// Limits of the pool.
#[derive(Clone, Copy, Debug)]
pub struct MempoolConfig {
    /// Most transactions.
    pub txs_max: usize,
    /// Most bytes of transactions.
    pub bytes_max: usize,
    /// Most transactions of one sender; also how far a nonce may be ahead.
    pub txs_per_sender_max: u64,
}

impl Default for MempoolConfig {
    fn default() -> Self {
        Self { txs_max: 20_000, bytes_max: 64 << 20, txs_per_sender_max: 256 }
    }
}

/// Why a transaction was not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    #[error("the transaction has {0} bytes, the limit is {MAX_TX_BYTES}")]
    TooLarge(usize),
    #[error("the transaction is invalid: {0}")]
    Invalid(String),
    #[error("the transaction would fail: {0}")]
    Rejected(String),
    #[error("the transaction is already waiting")]
    Duplicate,
    #[error("the transaction expired at {expires_at_ms} ms, it is {now_ms} ms")]
    Expired { expires_at_ms: u64, now_ms: u64 },
    #[error("nonce {nonce} is used, the next one is {next}")]
    NonceUsed { nonce: u64, next: u64 },
    #[error("nonce {nonce} is too far ahead, the next one is {next}")]
    NonceAhead { nonce: u64, next: u64 },
    #[error("another transaction with nonce {0} is waiting and pays as much")]
    NonceTaken(u64),
    #[error("too many transactions are waiting")]
    Full,
    #[error("the node takes no more transactions: {0}")]
    Halted(String),
    #[error("the node is not ready yet")]
    NotReady,
    #[error("the node has stopped")]
    Stopped,
}

struct Entry {
    tx: Arc<Vec<u8>>,
    meta: TxMeta,
    arrival: u64,
}

/// The pool.
pub(crate) struct Mempool {
    config: MempoolConfig,
    by_sender: BTreeMap<Sender, BTreeMap<u64, Entry>>,
    ids: BTreeSet<TxId>,
    by_expiry: BTreeSet<(u64, Sender, u64)>,
    bytes: usize,
    arrivals: u64,
}

impl Mempool {
    pub(crate) fn new(config: MempoolConfig) -> Self {
        Self {
            config,
            by_sender: BTreeMap::new(),
            ids: BTreeSet::new(),
            by_expiry: BTreeSet::new(),
            bytes: 0,
            arrivals: 0,
        }
    }

    /// Transactions waiting.
    pub(crate) fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether the transaction is waiting; if so its signature has been verified.
    pub(crate) fn contains(&self, id: &TxId) -> bool {
        self.ids.contains(id)
    }

    /// Takes a transaction whose signature has been verified. `next` is its sender's next nonce.
    pub(crate) fn insert(&mut self, tx: Arc<Vec<u8>>, meta: TxMeta, next: u64, now_ms: u64) -> Result<(), SubmitError> {
        let TxMeta { nonce, sender, .. } = meta;
        if tx.len() > MAX_TX_BYTES {
            return Err(SubmitError::TooLarge(tx.len()));
        }
        if self.ids.contains(&meta.id) {
            return Err(SubmitError::Duplicate);
        }
        if meta.expires_at_ms < now_ms {
            return Err(SubmitError::Expired { expires_at_ms: meta.expires_at_ms, now_ms });
        }
        if nonce < next {
            return Err(SubmitError::NonceUsed { nonce, next });
        }
        if nonce - next >= self.config.txs_per_sender_max {
            return Err(SubmitError::NonceAhead { nonce, next });
        }
        let waiting = self.by_sender.get(&sender).and_then(|txs| txs.get(&nonce));
        let (mut count, mut bytes) = (self.ids.len() + 1, self.bytes + tx.len());
        if let Some(old) = waiting {
            if meta.priority <= old.meta.priority {
                return Err(SubmitError::NonceTaken(nonce));
            }
            count -= 1;
            bytes -= old.tx.len();
        }
        if count > self.config.txs_max || bytes > self.config.bytes_max {
            return Err(SubmitError::Full);
        }
        self.remove(&sender, nonce);
        self.ids.insert(meta.id);
        self.by_expiry.insert((meta.expires_at_ms, sender, nonce));
        self.bytes += tx.len();
        self.arrivals += 1;
        let entry = Entry { tx, meta, arrival: self.arrivals };
        self.by_sender.entry(sender).or_default().insert(nonce, entry);
        Ok(())
    }

    fn remove(&mut self, sender: &Sender, nonce: u64) {
        let Some(txs) = self.by_sender.get_mut(sender) else {
            return;
        };
        let Some(entry) = txs.remove(&nonce) else {
            return;
        };
        if txs.is_empty() {
            self.by_sender.remove(sender);
        }
        self.ids.remove(&entry.meta.id);
        self.by_expiry.remove(&(entry.meta.expires_at_ms, *sender, nonce));
        self.bytes -= entry.tx.len();
    }

    /// Drops what a finalized block has made useless: expired transactions, and nonces that
    /// `senders` have used up.
    pub(crate) fn finalized(
        &mut self,
        machine: &dyn Machine,
        state: &dyn StateRead,
        senders: &BTreeSet<Sender>,
        time_ms: u64,
    ) {
        while let Some((expires_at_ms, sender, nonce)) = self.by_expiry.first().copied() {
            if expires_at_ms >= time_ms {
                break;
            }
            self.remove(&sender, nonce);
        }
        for sender in senders {
            let Some(txs) = self.by_sender.get(sender) else {
                continue;
            };
            let next = machine.next_nonce(state, sender);
            let used: Vec<u64> = txs.range(..next).map(|(nonce, _)| *nonce).collect();
            for nonce in used {
                self.remove(sender, nonce);
            }
        }
    }

    /// Whether a block on `state` at `time_ms` would have a transaction.
    pub(crate) fn has_ready(&self, machine: &dyn Machine, state: &dyn StateRead, time_ms: u64) -> bool {
        self.by_sender.iter().any(|(sender, txs)| {
            txs.get(&machine.next_nonce(state, sender)).is_some_and(|entry| entry.meta.expires_at_ms >= time_ms)
        })
    }

    /// The transactions for a block on `state` at `time_ms`.
    pub(crate) fn select(&self, machine: &dyn Machine, state: &dyn StateRead, time_ms: u64) -> Vec<Vec<u8>> {
        // Best first: priority, then age.
        let mut candidates = BinaryHeap::new();
        let candidate = |sender: Sender, nonce: u64| {
            let entry = self.by_sender.get(&sender)?.get(&nonce)?;
            (entry.meta.expires_at_ms >= time_ms).then_some((
                entry.meta.priority,
                std::cmp::Reverse(entry.arrival),
                sender,
                nonce,
            ))
        };
        for sender in self.by_sender.keys() {
            candidates.extend(candidate(*sender, machine.next_nonce(state, sender)));
        }
        let (mut selected, mut bytes) = (Vec::new(), 0);
        while let Some((_, _, sender, nonce)) = candidates.pop() {
            let Some(entry) = self.by_sender.get(&sender).and_then(|txs| txs.get(&nonce)) else {
                continue;
            };
            if selected.len() == MAX_BLOCK_TXS {
                break;
            }
            if bytes + entry.tx.len() > MAX_BLOCK_BYTES {
                continue;
            }
            bytes += entry.tx.len();
            selected.push(entry.tx.as_ref().clone());
            candidates.extend(candidate(sender, nonce + 1));
        }
        selected
    }

    /// About `limit` waiting transactions of the senders from `from` on, for telling peers again,
    /// and the sender to go on with.
    pub(crate) fn sample(&self, from: &Sender, limit: usize) -> (Sender, Vec<Arc<Vec<u8>>>) {
        let mut found = Vec::new();
        for (sender, txs) in self.by_sender.range(*from..) {
            if found.len() >= limit {
                return (*sender, found);
            }
            found.extend(txs.values().map(|entry| entry.tx.clone()));
        }
        ([0; 53], found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Transfer, TransferMachine};

    const STATE: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();

    fn meta(sender: u8, nonce: u64, priority: u128, id: u8) -> TxMeta {
        TxMeta { id: [id; 32], sender: [sender; 53], nonce, expires_at_ms: 1_000, priority }
    }

    fn small() -> Mempool {
        Mempool::new(MempoolConfig { txs_max: 3, bytes_max: 40, txs_per_sender_max: 2 })
    }

    fn tx(len: usize) -> Arc<Vec<u8>> {
        Arc::new(vec![0; len])
    }

    #[test]
    fn each_submission_is_taken_or_refused_for_a_reason() {
        use SubmitError as E;
        let mut pool = small();
        let expired = TxMeta { expires_at_ms: 99, ..meta(4, 0, 0, 40) };
        let rows = [
            // bytes, transaction, next nonce of the sender, expected
            (MAX_TX_BYTES + 1, meta(1, 5, 1, 1), 5, Err(E::TooLarge(MAX_TX_BYTES + 1))),
            (10, expired, 0, Err(E::Expired { expires_at_ms: 99, now_ms: 100 })),
            (10, meta(1, 4, 1, 1), 5, Err(E::NonceUsed { nonce: 4, next: 5 })),
            (10, meta(1, 7, 1, 1), 5, Err(E::NonceAhead { nonce: 7, next: 5 })),
            (10, meta(1, 6, 1, 1), 5, Ok(())),
            (10, meta(1, 6, 1, 1), 5, Err(E::Duplicate)),
            (10, meta(1, 6, 1, 2), 5, Err(E::NonceTaken(6))),
            (12, meta(1, 6, 2, 2), 5, Ok(())),
            (10, meta(1, 6, 2, 1), 5, Err(E::NonceTaken(6))),
            (29, meta(2, 0, 1, 3), 0, Err(E::Full)),
            (10, meta(2, 0, 1, 3), 0, Ok(())),
            (10, meta(2, 1, 1, 4), 0, Ok(())),
            (1, meta(3, 0, 9, 5), 0, Err(E::Full)),
            (9, meta(2, 1, 2, 5), 0, Ok(())),
        ];
        for (row, (bytes, meta, next, expected)) in rows.into_iter().enumerate() {
            let got = pool.insert(tx(bytes), meta, next, 100);
            assert_eq!(got, expected, "row {row}");
        }
        assert_eq!((pool.len(), pool.bytes), (3, 31));
    }

    #[test]
    fn selection_is_by_priority_within_the_order_of_nonces() {
        let mut pool = Mempool::new(MempoolConfig::default());
        let machine = TransferMachine::default();
        // sender, nonce, priority, tag
        let rows = [(1, 0, 1, "a0"), (1, 1, 9, "a1"), (2, 0, 5, "b0"), (3, 1, 9, "gap"), (4, 0, 5, "d0")];
        for (i, (sender, nonce, priority, tag)) in rows.into_iter().enumerate() {
            let bytes = Arc::new(tag.as_bytes().to_vec());
            let meta = meta(sender, nonce, priority, i as u8);
            pool.insert(bytes, meta, 0, 0).unwrap();
        }
        let selected: Vec<_> =
            pool.select(&machine, &STATE, 100).into_iter().map(|tx| String::from_utf8(tx).unwrap()).collect();
        assert_eq!(selected, ["b0", "d0", "a0", "a1"]);
        assert!(pool.has_ready(&machine, &STATE, 1_000));
        assert!(!pool.has_ready(&machine, &STATE, 1_001));
        assert!(pool.select(&machine, &STATE, 1_001).is_empty());
    }

    #[test]
    fn selection_stays_within_the_bytes_of_a_block() {
        let mut pool = Mempool::new(MempoolConfig::default());
        let machine = TransferMachine::default();
        for sender in 0..20 {
            let meta = meta(sender, 0, 1, sender);
            pool.insert(tx(MAX_TX_BYTES), meta, 0, 0).unwrap();
        }
        let selected = pool.select(&machine, &STATE, 0);
        assert_eq!(selected.len(), MAX_BLOCK_BYTES / MAX_TX_BYTES);
    }

    #[test]
    fn finalized_and_expired_transactions_leave() {
        let mut pool = Mempool::new(MempoolConfig::default());
        let machine = TransferMachine::default();
        let mut state = BTreeMap::new();
        for (sender, nonce, expires_at_ms) in [(1, 0, 900), (1, 1, 900), (2, 0, 50)] {
            let mut meta = meta(sender, nonce, 1, sender * 10 + nonce as u8);
            meta.expires_at_ms = expires_at_ms;
            pool.insert(tx(1), meta, 0, 0).unwrap();
        }
        Transfer::set_nonce(&mut state, &[1; 53], 1);
        pool.finalized(&machine, &state, &[[1; 53]].into(), 51);
        assert_eq!((pool.len(), pool.bytes), (1, 1));
        assert!(pool.contains(&[11; 32]));
    }
}
