//! Telling other coordinators about transactions.
//!
//! Coordinators are few and all connected, so a transaction is sent to all of them once by the one
//! that received it from a client, and not passed on. Messages can be lost; a slow rotation through
//! the pool tells everything again, a little at a time. Every message also carries the sender's
//! height, and there is at least one each second, which is how a node knows its peers.

use crate::{
    block::MAX_TX_BYTES,
    keys::{PublicKey, key_bytes},
    mempool::SubmitError,
    shared::Shared,
};
use borsh::{BorshDeserialize, BorshSerialize};
use commonware_p2p::{Receiver, Recipients, Sender};
use commonware_runtime::Clock;
use futures::future::{Either, select};
use std::{collections::BTreeSet, pin::pin, sync::Arc, time::Duration};
use tokio::sync::mpsc;
use tracing::debug;

/// Bytes of transactions in one message; at least one transaction always fits.
const BATCH_BYTES: usize = MAX_TX_BYTES;
/// Largest message: a batch and its lengths.
pub(crate) const MESSAGE_BYTES_MAX: usize = BATCH_BYTES + (16 << 10);
const BATCH_TXS: usize = 2_048;
/// Transactions that wait to be sent.
pub(crate) const OUTGOING_MAX: usize = 8_192;
/// Time between messages when there is nothing to send.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// Transactions told again with each heartbeat.
const REPEAT_TXS: usize = 64;
/// Digests of messages' transactions seen lately.
const SEEN_MAX: usize = 65_536;

#[derive(BorshSerialize, BorshDeserialize)]
struct Message {
    height: u64,
    txs: Vec<Vec<u8>>,
}

/// Sends what [`Shared::outgoing`] gives, and repeats.
pub(crate) async fn send<E: Clock>(
    clock: E,
    shared: Arc<Shared>,
    mut outgoing: mpsc::Receiver<Arc<Vec<u8>>>,
    mut network: impl Sender<PublicKey = PublicKey>,
) {
    let mut repeat_from = [0; 53];
    let mut heartbeat_at = clock.current() + HEARTBEAT;
    loop {
        let first = {
            let next = pin!(outgoing.recv());
            let heartbeat = pin!(clock.sleep_until(heartbeat_at));
            match select(next, heartbeat).await {
                Either::Left((Some(tx), _)) => Some(tx),
                Either::Left((None, _)) => return,
                Either::Right(_) => None,
            }
        };
        let mut txs = Vec::from_iter(first);
        if txs.is_empty() {
            heartbeat_at = clock.current() + HEARTBEAT;
            (repeat_from, txs) = shared.pool.lock().sample(&repeat_from, REPEAT_TXS);
        }
        while txs.len() < BATCH_TXS
            && let Ok(tx) = outgoing.try_recv()
        {
            txs.push(tx);
        }
        let height = shared.height.get().unwrap_or(0);
        for txs in batches(&txs) {
            let message = Message { height, txs };
            let bytes = borsh::to_vec(&message).expect("writing to memory cannot fail");
            network.send(Recipients::All, bytes, false);
        }
    }
}

/// Splits `txs` into batches of bounded size; at least one, which may be empty.
fn batches(txs: &[Arc<Vec<u8>>]) -> Vec<Vec<Vec<u8>>> {
    let mut batches = vec![Vec::new()];
    let mut bytes = 0;
    for tx in txs {
        let full = bytes + tx.len() > BATCH_BYTES;
        match batches.last_mut() {
            Some(batch) if !full && batch.len() < BATCH_TXS => {
                bytes += tx.len();
                batch.push(tx.as_ref().clone());
            }
            _ => {
                bytes = tx.len();
                batches.push(vec![tx.as_ref().clone()]);
            }
        }
    }
    batches
}

/// Takes transactions from peers into the pool.
pub(crate) async fn receive(shared: Arc<Shared>, mut network: impl Receiver<PublicKey = PublicKey>) {
    let mut seen = BTreeSet::new();
    while let Ok((peer, bytes)) = network.recv().await {
        let Ok(Message { height, txs }) = borsh::from_slice::<Message>(bytes.as_ref()) else {
            debug!(?peer, "malformed gossip");
            continue;
        };
        let now_ms = shared.now_ms();
        shared.heard.lock().insert(key_bytes(&peer), (now_ms, height));
        for tx in txs.into_iter().take(BATCH_TXS) {
            take(&shared, &mut seen, tx);
        }
    }
}

fn take(shared: &Shared, seen: &mut BTreeSet<[u8; 32]>, tx: Vec<u8>) {
    use commonware_cryptography::{Hasher as _, Sha256};
    let digest = Sha256::hash(&[&tx]).0;
    if seen.contains(&digest) {
        return;
    }
    match shared.admit(tx) {
        // It may be taken when it comes again.
        Err(SubmitError::NotReady | SubmitError::Full | SubmitError::NonceAhead { .. }) => {}
        result => {
            if let Err(reason) = result {
                debug!(%reason, "transaction from a peer");
            }
            if seen.len() >= SEEN_MAX {
                seen.clear();
            }
            seen.insert(digest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_keep_the_order_and_stay_within_the_message_size() {
        let sizes = [MAX_TX_BYTES, 1, 2, MAX_TX_BYTES - 2, 1, 1];
        let txs: Vec<_> = sizes.iter().map(|size| Arc::new(vec![0; *size])).collect();
        let got: Vec<Vec<usize>> = batches(&txs).iter().map(|batch| batch.iter().map(Vec::len).collect()).collect();
        let expected: [&[usize]; 4] = [&[MAX_TX_BYTES], &[1, 2], &[MAX_TX_BYTES - 2, 1, 1], &[]];
        assert_eq!(got, expected[..3]);
        for txs in batches(&txs) {
            let bytes = borsh::to_vec(&Message { height: 1, txs }).unwrap();
            assert!(bytes.len() <= MESSAGE_BYTES_MAX);
        }
        assert_eq!(batches(&[]), vec![Vec::<Vec<u8>>::new()]);
    }
}
