//! What the parts of a node have in common.
//!
//! Consensus, gossip and the node's handle meet here: the live state with the header it belongs
//! to, the pool of waiting transactions, seeds of recent views, and those who wait for a
//! transaction. Locks are held for the length of a function, never across an await.

use crate::{
    block::{Digest, Header},
    history::{History, TxReceipt},
    keys::{Scheme, SeedSignature},
    live_state::LiveState,
    machine::{Machine, TxMeta},
    mempool::{Mempool, SubmitError, TxId},
    node::Pacing,
    pacing::Parent,
    watched::Watched,
};
use commonware_actor::Feedback;
use commonware_codec::{Copying, DecodeExt as _, FixedSize as _, Write as _};
use commonware_consensus::{
    Reporter,
    simplex::{
        scheme::bls12381_threshold::vrf::{Seed, Seedable as _},
        types::Activity,
    },
    types::{Epoch, Round, View},
};
use parking_lot::{Mutex, RwLock};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};
use tokio::sync::{mpsc, oneshot};
use tracing::error;

/// Seeds kept; a proposer needs that of its parent's view.
const SEEDS_MAX: usize = 512;
/// Blocks remembered for those that are built on them.
const PARENTS_MAX: usize = 256;
/// Callers of `wait` at a time.
const WAITERS_MAX: usize = 65_536;

/// The finalized state and the header that commits to it.
pub(crate) struct Live {
    pub(crate) state: LiveState,
    pub(crate) tip: Header,
}

/// Seeds of recent views.
pub(crate) struct Seeds {
    by_view: Mutex<BTreeMap<u64, [u8; 48]>>,
    newest: Watched<u64>,
}

impl Seeds {
    fn new() -> Self {
        Self { by_view: Mutex::new(BTreeMap::new()), newest: Watched::new(0) }
    }

    pub(crate) fn get(&self, view: u64) -> Option<[u8; 48]> {
        self.by_view.lock().get(&view).copied()
    }

    pub(crate) fn insert(&self, view: u64, signature: &SeedSignature) {
        let mut bytes = Vec::with_capacity(SeedSignature::SIZE);
        signature.write(&mut bytes);
        let Ok(bytes) = <[u8; 48]>::try_from(bytes) else {
            return;
        };
        {
            let mut by_view = self.by_view.lock();
            by_view.insert(view, bytes);
            while by_view.len() > SEEDS_MAX {
                by_view.pop_first();
            }
        }
        self.newest.set(view);
    }

    /// Waits until the seed of `view` is known.
    pub(crate) async fn wait(&self, view: u64) -> [u8; 48] {
        self.newest.until(|_| self.get(view)).await
    }
}

/// Whether `signature` is the seed of `view`, by the network's public key.
pub(crate) fn verify_seed(verifier: &Scheme, epoch: u64, view: u64, signature: &[u8; 48]) -> bool {
    let round = Round::new(Epoch::new(epoch), View::new(view));
    SeedSignature::decode(Copying(signature.as_slice()))
        .is_ok_and(|signature| Seed::new(round, signature).verify(verifier))
}

/// Collects the seeds from certificates as consensus reports them.
#[derive(Clone)]
pub(crate) struct SeedCollector(pub(crate) Arc<Shared>);

impl Reporter for SeedCollector {
    type Activity = Activity<Scheme, Digest>;

    fn report(&mut self, activity: Self::Activity) -> Feedback {
        let seed = match &activity {
            Activity::Notarization(notarization) | Activity::Certification(notarization) => notarization.seed(),
            Activity::Finalization(finalization) => finalization.seed(),
            _ => return Feedback::Ok,
        };
        self.0.seeds.insert(seed.round.view().get(), &seed.signature);
        Feedback::Ok
    }
}

/// See the module.
pub(crate) struct Shared {
    pub(crate) machine: Arc<dyn Machine>,
    pub(crate) chain_id: [u8; 32],
    pub(crate) pacing: Pacing,
    /// Checks certificates and seeds.
    pub(crate) verifier: Scheme,
    pub(crate) seeds: Seeds,
    pub(crate) history: History,
    live: RwLock<Option<Live>>,
    /// Height of the finalized tip; `None` until the state is loaded.
    pub(crate) height: Watched<Option<u64>>,
    pub(crate) pool: Mutex<Mempool>,
    /// Why the machine cannot run the block after the finalized tip, once that is so.
    pub(crate) halted: Watched<Option<Arc<str>>>,
    /// Changes with every transaction taken.
    pub(crate) pool_version: Watched<u64>,
    /// Transactions on their way to peers.
    pub(crate) outgoing: mpsc::Sender<Arc<Vec<u8>>>,
    clock: Box<dyn Fn() -> u64 + Send + Sync>,
    waiters: Mutex<BTreeMap<TxId, Vec<oneshot::Sender<TxReceipt>>>>,
    /// The newest blocks that were executed here, by digest.
    parents: Mutex<VecDeque<([u8; 32], Parent)>>,
    /// Coordinators heard of: when, and their height.
    pub(crate) heard: Mutex<BTreeMap<[u8; 32], (u64, u64)>>,
}

impl Shared {
    #[allow(clippy::too_many_arguments)]
    pub(crate) fn new(
        machine: Arc<dyn Machine>,
        chain_id: [u8; 32],
        pacing: Pacing,
        verifier: Scheme,
        history: History,
        pool: Mempool,
        outgoing: mpsc::Sender<Arc<Vec<u8>>>,
        clock: Box<dyn Fn() -> u64 + Send + Sync>,
    ) -> Self {
        Self {
            machine,
            chain_id,
            pacing,
            verifier,
            seeds: Seeds::new(),
            history,
            live: RwLock::new(None),
            height: Watched::new(None),
            halted: Watched::new(None),
            pool: Mutex::new(pool),
            pool_version: Watched::new(0),
            outgoing,
            clock,
            waiters: Mutex::new(BTreeMap::new()),
            parents: Mutex::new(VecDeque::new()),
            heard: Mutex::new(BTreeMap::new()),
        }
    }

    /// Milliseconds since the Unix epoch by this node's clock.
    pub(crate) fn now_ms(&self) -> u64 {
        (self.clock)()
    }

    /// Makes the state that the database holds the live one.
    pub(crate) fn load(&self, state: LiveState, tip: Header) {
        let height = tip.height;
        self.remember(&tip);
        *self.live.write() = Some(Live { state, tip });
        self.halt_if_refused();
        self.height.set(Some(height));
    }

    /// Why the machine must not run the block after `parent`, if it must not.
    pub(crate) fn refusal(&self, parent: &Parent) -> Option<String> {
        self.read(|live| {
            let view = live.state.view(&parent.state_root)?;
            self.machine.can_run(&view, parent.height.saturating_add(1)).err()
        })
        .flatten()
    }

    /// Takes no more work if the machine must not run the block after the finalized tip.
    fn halt_if_refused(&self) {
        let next = self.read(|live| (live.tip.height, self.machine.can_run(live.state.base(), live.tip.height + 1)));
        if let Some((height, Err(reason))) = next {
            error!(height, %reason, "this was the last block that this program runs");
            self.halted.set(Some(reason.into()));
        }
    }

    /// Waits until the state is loaded.
    pub(crate) async fn loaded(&self) {
        self.height.until(|height| height).await;
    }

    /// Reads the live state, if it is loaded.
    pub(crate) fn read<R>(&self, read: impl FnOnce(&Live) -> R) -> Option<R> {
        self.live.read().as_ref().map(read)
    }

    /// Changes the live state, if it is loaded.
    pub(crate) fn write<R>(&self, write: impl FnOnce(&mut Live) -> R) -> Option<R> {
        self.live.write().as_mut().map(write)
    }

    /// Checks a transaction and takes it into the pool. `Ok(true)` means that it is new here.
    pub(crate) fn admit(&self, tx: Vec<u8>) -> Result<(TxId, Arc<Vec<u8>>), SubmitError> {
        if tx.len() > crate::block::MAX_TX_BYTES {
            return Err(SubmitError::TooLarge(tx.len()));
        }
        if let Some(reason) = self.halted.get() {
            return Err(SubmitError::Halted(reason.to_string()));
        }
        let meta = self.machine.check_stateless(&tx).map_err(SubmitError::Invalid)?;
        if self.pool.lock().contains(&meta.id) {
            return Err(SubmitError::Duplicate);
        }
        let next = self
            .read(|live| {
                let state = live.state.base();
                let next = self.machine.next_nonce(state, &meta.sender);
                match meta.nonce >= next {
                    true => self.machine.check_mempool(state, &tx).map(|()| next),
                    false => Ok(next),
                }
            })
            .ok_or(SubmitError::NotReady)?
            .map_err(SubmitError::Rejected)?;
        let tx = Arc::new(tx);
        let now_ms = self.now_ms();
        self.pool.lock().insert(tx.clone(), meta, next, now_ms)?;
        self.pool_version.update(|version| *version += 1);
        Ok((meta.id, tx))
    }

    /// Remembers a block that others may build on.
    pub(crate) fn remember(&self, header: &Header) {
        let mut parents = self.parents.lock();
        parents.push_back((header.digest(), Parent::from(header)));
        if parents.len() > PARENTS_MAX {
            parents.pop_front();
        }
    }

    /// What a block on the one with this digest waits for, if it is known.
    pub(crate) fn parent(&self, digest: &[u8; 32]) -> Option<Parent> {
        self.parents.lock().iter().rev().find(|(known, _)| known == digest).map(|(_, parent)| *parent)
    }

    /// Whether a block on the state named `root` at `time_ms` would have a transaction, or the
    /// machine waits for it.
    pub(crate) fn has_work(&self, root: &[u8; 32], time_ms: u64) -> bool {
        self.read(|live| {
            let view = live.state.view(root)?;
            if self.machine.wants_block(&view) {
                return Some(true);
            }
            let pool = self.pool.lock();
            Some(pool.has_ready(self.machine.as_ref(), &view, time_ms))
        })
        .flatten()
        .unwrap_or(false)
    }

    /// Makes the block of `header` the finalized tip. Its history is durable by now.
    pub(crate) fn advance(&self, header: &Header, txs: &[TxMeta], receipts: Vec<TxReceipt>) {
        let senders: BTreeSet<_> = txs.iter().map(|meta| meta.sender).collect();
        self.write(|live| {
            live.state
                .finalize(&header.state_root)
                .expect("blocks are finalized in order of height, each after it was executed");
            live.tip = header.clone();
            self.pool.lock().finalized(self.machine.as_ref(), live.state.base(), &senders, header.time_ms);
        });
        self.halt_if_refused();
        self.height.set(Some(header.height));
        let mut waiters = self.waiters.lock();
        for receipt in receipts {
            for waiter in waiters.remove(&receipt.id).unwrap_or_default() {
                let _ = waiter.send(receipt.clone());
            }
        }
    }

    /// Resolves when the transaction is finalized from now on.
    pub(crate) fn wait_for(&self, id: &TxId) -> Option<oneshot::Receiver<TxReceipt>> {
        let (sender, receiver) = oneshot::channel();
        let mut waiters = self.waiters.lock();
        if waiters.len() >= WAITERS_MAX {
            waiters.retain(|_, waiting| {
                waiting.retain(|waiter| !waiter.is_closed());
                !waiting.is_empty()
            });
            if waiters.len() >= WAITERS_MAX {
                return None;
            }
        }
        let waiting = waiters.entry(*id).or_default();
        waiting.retain(|waiter| !waiter.is_closed());
        waiting.push(sender);
        Some(receiver)
    }
}
