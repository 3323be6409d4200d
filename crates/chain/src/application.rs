//! Building, checking and finalizing blocks.
//!
//! This is the chain's half of consensus. A block is valid if every rule of [`InvalidBlock`] is
//! kept; all of them depend on the block and its ancestors alone, so that a block that is invalid
//! once is invalid for ever. The one thing that depends on the local clock, a block from the
//! future, delays the vote instead: a leader whose clock is far ahead loses its view.

use crate::{
    block::{Block, ConsensusContext, Digest, Header},
    history::BlockRecord,
    keys::{Scheme, key_bytes},
    live_state::Root,
    machine::{BlockContext, BlockOutput, StateRead as _, TxMeta},
    merkle,
    pacing::{Parent, pace},
    shared::{Shared, verify_seed},
    store::{Databases, Entry, Merkleized, Unmerkleized, state_key},
};
use commonware_consensus::{marshal::ancestry::Ancestry, types::View};
use commonware_cryptography::sha256;
use commonware_glue::stateful::{
    Application, Finality, Input, Proposed,
    db::{DatabaseSet, Merkleized as _, Unmerkleized as _},
};
use commonware_runtime::{Clock, Spawner};
use commonware_storage::{Context as StorageContext, mmr::Location, qmdb::sync::Target};
use commonware_utils::non_empty_range;
use futures::StreamExt as _;
use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, UNIX_EPOCH},
};
use tracing::{debug, error, info, warn};

/// How much a block's time may exceed its parent's. Block time follows the clock, after a standstill
/// at once; what a standstill must not use up, the machine measures otherwise.
pub const TIME_STEP_MS_MAX: u64 = 10 * 365 * 24 * 3_600_000;
/// How far in the future a block may be for a vote without delay.
const SKEW_MS: u64 = 250;

/// Why a block can never be part of the chain.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InvalidBlock {
    #[error("it belongs to another chain")]
    ForeignChain,
    #[error("height {got} follows {parent}")]
    Height { parent: u64, got: u64 },
    #[error("time {got} after {parent}")]
    Time { parent: u64, got: u64 },
    #[error("the seed is not that of the parent's view")]
    Seed,
    #[error("bytes are reserved that have no use yet")]
    Reserved,
    #[error("transaction {index}: {reason}")]
    Transaction { index: usize, reason: String },
    #[error("transaction {0} expired")]
    Expired(usize),
    #[error("transaction {index} has nonce {got} instead of {next}")]
    Nonce { index: usize, next: u64, got: u64 },
    #[error("transaction {0} has a bad signature")]
    Signature(usize),
    #[error("the state it builds on is unknown")]
    UnknownParentState,
    #[error("its {0} is not what execution gives")]
    Commitment(&'static str),
}

pub(crate) fn now_ms(clock: &impl Clock) -> u64 {
    clock.current().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

/// What executing a block gives, with the commitments to it.
struct Executed {
    output: Arc<BlockOutput>,
    receipts_root: [u8; 32],
    events_root: [u8; 32],
    /// What to write to the database.
    writes: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
}

/// The application that consensus drives.
#[derive(Clone)]
pub(crate) struct Chain {
    shared: Arc<Shared>,
    genesis: Block,
}

impl Chain {
    pub(crate) fn new(shared: Arc<Shared>, genesis: Block) -> Self {
        Self { shared, genesis }
    }

    /// The seed of the parent's view.
    async fn seed(&self, parent_view: View) -> [u8; 48] {
        match parent_view.get() {
            0 => [0; 48],
            view => self.shared.seeds.wait(view).await,
        }
    }

    fn context(header: &Header) -> BlockContext {
        BlockContext {
            height: header.height,
            time_ms: header.time_ms,
            view: header.view,
            beacon: header.beacon(),
            parent_beacon_view: header.parent_view,
        }
    }

    /// Executes `txs` on the state `parent` with the context that `header` gives.
    fn execute(&self, parent: &Root, header: &Header, txs: &[Vec<u8>]) -> Option<Executed> {
        let machine = self.shared.machine.as_ref();
        let (output, mut writes) = self.shared.read(|live| {
            let view = live.state.view(parent)?;
            let mut output = machine.execute(&view, &Self::context(header), txs);
            assert_eq!(output.receipts.len(), txs.len(), "one receipt each");
            output.writes.retain(|key, value| view.get(key) != *value);
            let writes = output.writes.clone();
            Some((Arc::new(output), writes))
        })??;
        if header.height == 1 {
            for (key, value) in machine.genesis() {
                writes.entry(key).or_insert(Some(value));
            }
            // What the first block removes from the genesis state never was in the database.
            writes.retain(|_, value| value.is_some());
        }
        Some(Executed {
            receipts_root: merkle::root(&output.receipts),
            events_root: merkle::root(&output.events),
            output,
            writes,
        })
    }

    async fn merkleize<E: Spawner + StorageContext>(
        mut batch: Unmerkleized<E>,
        writes: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
    ) -> Merkleized<E> {
        for (key, value) in writes {
            let id = state_key(&key);
            batch = batch.write(id, value.map(|value| Entry::new(key, value)));
        }
        batch.merkleize().await.expect("the batch is on the branch of its block and storage works")
    }

    /// Enters what the database gives into `header`.
    fn commit<E: Spawner + StorageContext>(header: &mut Header, merkleized: &Merkleized<E>) {
        header.state_root = merkleized.root().0;
        header.ops_root = merkleized.ops_root().0;
        header.ops_start = *merkleized.sync_boundary();
        header.ops_end = *merkleized.bounds().tip.size;
    }

    /// Checks what can be checked before execution; gives the transactions' metadata.
    fn check(&self, block: &Block, parent: &Header) -> Result<(), InvalidBlock> {
        let header = &block.header;
        if header.chain_id != self.shared.chain_id {
            return Err(InvalidBlock::ForeignChain);
        }
        if header.height != parent.height + 1 {
            return Err(InvalidBlock::Height { parent: parent.height, got: header.height });
        }
        let step = header.time_ms.checked_sub(parent.time_ms);
        if !step.is_some_and(|step| (1..=TIME_STEP_MS_MAX).contains(&step)) {
            return Err(InvalidBlock::Time { parent: parent.time_ms, got: header.time_ms });
        }
        if !header.reserved.is_empty() {
            return Err(InvalidBlock::Reserved);
        }
        self.check_seed(header)?;
        self.check_txs(block, parent)
    }

    fn check_seed(&self, header: &Header) -> Result<(), InvalidBlock> {
        let expected = match header.parent_view {
            0 => Some([0; 48]),
            view => self.shared.seeds.get(view),
        };
        let valid = match expected {
            Some(expected) => expected == header.seed_signature,
            None => verify_seed(&self.shared.verifier, header.epoch, header.parent_view, &header.seed_signature),
        };
        valid.then_some(()).ok_or(InvalidBlock::Seed)
    }

    fn check_txs(&self, block: &Block, parent: &Header) -> Result<(), InvalidBlock> {
        let machine = self.shared.machine.as_ref();
        let invalid = |index: usize, reason| InvalidBlock::Transaction { index, reason };
        let metas = self.inspect(&block.txs).map_err(|(index, reason)| invalid(index, reason))?;
        if let Some(index) = metas.iter().position(|meta| meta.expires_at_ms < block.header.time_ms) {
            return Err(InvalidBlock::Expired(index));
        }
        self.shared
            .read(|live| {
                let view = live.state.view(&parent.state_root).ok_or(InvalidBlock::UnknownParentState)?;
                let mut nonces = BTreeMap::new();
                for (index, meta) in metas.iter().enumerate() {
                    let next = nonces.entry(meta.sender).or_insert_with(|| machine.next_nonce(&view, &meta.sender));
                    if meta.nonce != *next {
                        let (next, got) = (*next, meta.nonce);
                        return Err(InvalidBlock::Nonce { index, next, got });
                    }
                    *next += 1;
                }
                Ok(())
            })
            .ok_or(InvalidBlock::UnknownParentState)??;
        let unverified: Vec<usize> = {
            let pool = self.shared.pool.lock();
            (0..metas.len()).filter(|index| !pool.contains(&metas[*index].id)).collect()
        };
        let txs: Vec<Vec<u8>> = unverified.iter().map(|index| block.txs[*index].clone()).collect();
        machine.verify_batch(&txs).map_err(|at| InvalidBlock::Signature(unverified.get(at).copied().unwrap_or(at)))
    }

    fn inspect(&self, txs: &[Vec<u8>]) -> Result<Vec<TxMeta>, (usize, String)> {
        txs.iter()
            .enumerate()
            .map(|(index, tx)| {
                let meta = self.shared.machine.inspect(tx);
                meta.map_err(|reason| (index, reason))
            })
            .collect()
    }

    /// Executes `block` and checks every commitment in its header.
    async fn reproduce<E: Spawner + StorageContext>(
        &self,
        block: &Block,
        parent: &Header,
        batches: Unmerkleized<E>,
    ) -> Result<Merkleized<E>, InvalidBlock> {
        let header = &block.header;
        let executed = self.execute(&parent.state_root, header, &block.txs).ok_or(InvalidBlock::UnknownParentState)?;
        if executed.receipts_root != header.receipts_root {
            return Err(InvalidBlock::Commitment("receipts root"));
        }
        if executed.events_root != header.events_root {
            return Err(InvalidBlock::Commitment("events root"));
        }
        let merkleized = Self::merkleize(batches, executed.writes).await;
        let mut expected = header.clone();
        Self::commit(&mut expected, &merkleized);
        if expected != *header {
            return Err(InvalidBlock::Commitment("state"));
        }
        self.shared.write(|live| live.state.insert(header.state_root, parent.state_root, executed.output));
        self.shared.remember(header);
        Ok(merkleized)
    }

    fn record(&self, block: &Block, output: &BlockOutput, metas: &[TxMeta]) -> BlockRecord {
        BlockRecord {
            height: block.header.height,
            digest: block.header.digest(),
            time_ms: block.header.time_ms,
            tx_ids: metas.iter().map(|meta| meta.id).collect(),
            receipts: output.receipts.clone(),
            events: output.events.clone(),
            archived: output.archived.clone(),
        }
    }
}

impl<E: Spawner + StorageContext> Application<E> for Chain {
    type SigningScheme = Scheme;
    type Context = ConsensusContext;
    type Block = Block;
    type Databases = Databases<E>;
    type Captured = ();
    type Provider = ();
    type Input = ();

    fn sync_targets(block: &Block) -> Target<commonware_storage::mmr::Family, Digest> {
        let Header { ops_root, ops_start, ops_end, .. } = block.header;
        Target::new(sha256::Digest(ops_root), non_empty_range!(Location::new(ops_start), Location::new(ops_end)))
    }

    async fn genesis(&mut self) -> Block {
        self.genesis.clone()
    }

    async fn propose(
        &mut self,
        (clock, context): (E, ConsensusContext),
        mut ancestry: impl Ancestry<Block>,
        batches: Unmerkleized<E>,
        _: Input<(), ()>,
    ) -> Option<Proposed<Self, E>> {
        let parent = ancestry.next().await?;
        let parent = &parent.inner().header;
        self.shared.loaded().await;
        if self.shared.refusal(&Parent::from(parent)).is_some() {
            return None;
        }
        pace(&self.shared, &clock, Parent::from(parent)).await;
        let seed_signature = self.seed(context.parent.0).await;

        let time_ms = now_ms(&clock).clamp(parent.time_ms + 1, parent.time_ms + TIME_STEP_MS_MAX);
        let machine = self.shared.machine.as_ref();
        let txs = self.shared.read(|live| {
            let view = live.state.view(&parent.state_root)?;
            Some(self.shared.pool.lock().select(machine, &view, time_ms))
        })??;
        let mut header = Header {
            chain_id: self.shared.chain_id,
            height: parent.height + 1,
            time_ms,
            epoch: context.round.epoch().get(),
            view: context.round.view().get(),
            leader: key_bytes(&context.leader),
            parent_view: context.parent.0.get(),
            parent: context.parent.1.0,
            seed_signature,
            state_root: [0; 32],
            ops_root: [0; 32],
            ops_start: 0,
            ops_end: 0,
            tx_root: merkle::root(&txs),
            receipts_root: [0; 32],
            events_root: [0; 32],
            reserved: Vec::new(),
        };
        let executed = self.execute(&parent.state_root, &header, &txs)?;
        header.receipts_root = executed.receipts_root;
        header.events_root = executed.events_root;
        let merkleized = Self::merkleize(batches, executed.writes).await;
        Self::commit(&mut header, &merkleized);
        self.shared.write(|live| live.state.insert(header.state_root, parent.state_root, executed.output));
        debug!(height = header.height, txs = txs.len(), "proposing");
        match Block::assemble(header, Arc::new(txs)) {
            Ok(block) => {
                self.shared.remember(&block.header);
                Some(Proposed { block, merkleized })
            }
            Err(cause) => {
                error!(%cause, "could not assemble a block");
                None
            }
        }
    }

    async fn process(
        &mut self,
        (clock, _): (E, ConsensusContext),
        mut ancestry: impl Ancestry<Block>,
        batches: Unmerkleized<E>,
        finality: Finality,
    ) -> Option<Merkleized<E>> {
        let block = ancestry.next().await?;
        let block = block.inner();
        let parent = ancestry.next().await?;
        let parent = &parent.inner().header;
        self.shared.loaded().await;
        if self.shared.refusal(&Parent::from(parent)).is_some() {
            // The block is not invalid: a newer program can run it. This one has no opinion on it, and
            // stops once it has the block before, whose finalization does not wait for this one.
            return std::future::pending().await;
        }
        if finality == Finality::Candidate {
            if let Err(reason) = self.check(block, parent) {
                warn!(height = block.header.height, %reason, "invalid block");
                return None;
            }
            let ahead_ms = block.header.time_ms.saturating_sub(now_ms(&clock));
            if ahead_ms > SKEW_MS {
                debug!(height = block.header.height, ahead_ms, "block from the future");
                clock.sleep(Duration::from_millis(ahead_ms - SKEW_MS)).await;
            }
        }
        match self.reproduce(block, parent, batches).await {
            Ok(merkleized) => Some(merkleized),
            Err(reason) => {
                warn!(height = block.header.height, %reason, "invalid block");
                None
            }
        }
    }

    async fn capture(
        &mut self,
        _: (E, ConsensusContext),
        _: &Block,
        _: &Merkleized<E>,
        _: <Databases<E> as DatabaseSet<E>>::Readers,
    ) {
    }

    async fn finalized(
        &mut self,
        _: (E, ConsensusContext),
        block: &Block,
        _: (),
        _: <Databases<E> as DatabaseSet<E>>::Readers,
    ) {
        let header = &block.header;
        let output = self
            .shared
            .read(|live| live.state.output(&header.state_root))
            .flatten()
            .expect("a block is executed before it is finalized");
        let metas = self.inspect(&block.txs).expect("the transactions of a finalized block can be decoded");
        let record = Arc::new(self.record(block, &output, &metas));
        let receipts = record.tx_receipts();
        if !self.shared.history.append(record).await {
            // The history task ends only when the node does.
            return std::future::pending().await;
        }
        self.shared.advance(header, &metas, receipts);
        info!(
            height = header.height,
            txs = block.txs.len(),
            state_root = %hex::encode(&header.state_root[..8]),
            "finalized"
        );
    }
}
