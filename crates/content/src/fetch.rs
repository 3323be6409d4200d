//! Brings content into a store from peers that nobody trusts, such as gateways: whole directories, files, or parts.
//!
//! What the store has is not asked for, so a fetch that was interrupted is taken up again by calling it once more. The
//! rest comes in archives where a peer makes them, otherwise block by block, several at a time. (An archive is asked for
//! where a node is missing; what lies below the node and is here by chance comes with it.) Every block is hashed
//! before it is kept, and only those are kept that the content is made of.
//!
//! One peer is asked at a time, as long as it delivers. One that lies is not asked again; one that is slow, breaks off or
//! answers with errors is left for the next one and is out after [`FAILURES_MAX`] times in a row; one that lacks a block
//! is asked again for others.
//!
//! Bounds: [`Limits`] says how many bytes, blocks and levels the content may have, how long the next useful block may
//! take, and for how long a peer is used in all. Everything here can be dropped at any time.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{StreamExt as _, stream};

use crate::{
    Cid, Codec,
    car::CarError,
    client::{Client, FetchError},
    dag_pb,
    directory::PathWalk,
    read::{ReadError, get},
    store::{BlockStore, StoreError},
    traversal::{DagBounds, DagWalk, Scope, WALK_DEPTH_MAX},
};

/// After how many failures in a row, without one block between them, a peer is not asked again.
pub const FAILURES_MAX: u32 = 3;
/// Blocks of plain bytes that are asked for at a time.
const BLOCKS_AT_A_TIME: usize = 8;
/// How long a peer that failed is left alone at least, for each failure in a row.
const PAUSE: Duration = Duration::from_millis(200);

/// How much a fetch may cost.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of all blocks together, those included that are here already.
    pub bytes_max: u64,
    /// Number of blocks.
    pub blocks_max: u64,
    /// Links between the root and a block.
    pub depth_max: u32,
    /// How long a peer may take for the next block that is of use.
    pub block_time_max: Duration,
    /// How long one peer is used in all.
    pub peer_time_max: Duration,
}

impl Limits {
    /// At most so many bytes, and otherwise what suits models on slow lines.
    pub const fn bytes(bytes_max: u64) -> Self {
        Self {
            bytes_max,
            blocks_max: 1 << 24,
            depth_max: WALK_DEPTH_MAX,
            block_time_max: Duration::from_secs(60),
            peer_time_max: Duration::from_secs(7 * 24 * 3600),
        }
    }
}

/// How far a fetch is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Blocks of the content that are here now.
    pub blocks: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Those that had to be fetched.
    pub fetched_blocks: u64,
    pub fetched_bytes: u64,
    /// How many bytes all blocks have, as the root says: nothing verifies it, and blocks that occur twice count twice.
    pub bytes_expected: Option<u64>,
}

/// What a fetch did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fetched {
    pub blocks: u64,
    pub bytes: u64,
    pub fetched_blocks: u64,
    pub fetched_bytes: u64,
    /// What the peers did, in the order in which they were given.
    pub peers: Vec<PeerReport>,
}

/// What one peer did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerReport {
    pub url: String,
    pub blocks: u64,
    pub bytes: u64,
    /// The last thing that went wrong.
    pub failure: Option<String>,
}

/// Brings everything below `cid` into `store`; see the module for how.
pub async fn fetch_dag<S: BlockStore + Send + Sync + 'static>(
    store: &Arc<S>,
    peers: &[Client],
    cid: &Cid,
    limits: &Limits,
    progress: impl FnMut(Progress) + Send,
) -> Result<Fetched, FetchError> {
    fetch_scope(store, peers, cid, Scope::All, limits, progress).await
}

/// The same for a part, such as the bytes of a file that lie in a range.
pub async fn fetch_scope<S: BlockStore + Send + Sync + 'static>(
    store: &Arc<S>,
    peers: &[Client],
    cid: &Cid,
    scope: Scope,
    limits: &Limits,
    progress: impl FnMut(Progress) + Send,
) -> Result<Fetched, FetchError> {
    let bounds = DagBounds { bytes_max: limits.bytes_max, blocks_max: limits.blocks_max, depth_max: limits.depth_max };
    let mut fetch = Fetch {
        store,
        root: *cid,
        walk: DagWalk::over(*cid, scope.clone(), false, bounds),
        scope,
        limits,
        peers: peers.iter().map(Peer::new).collect(),
        current: 0,
        state: Progress::default(),
        progress,
    };
    fetch.run().await?;
    let Progress { blocks, bytes, fetched_blocks, fetched_bytes, .. } = fetch.state;
    let peers = fetch.peers.into_iter().map(Peer::report).collect();
    Ok(Fetched { blocks, bytes, fetched_blocks, fetched_bytes, peers })
}

/// Brings what it takes of the directories along `path` into `store` and says what lies at its end, which is not
/// fetched itself.
pub async fn fetch_path<S: BlockStore + Send + Sync + 'static>(
    store: &Arc<S>,
    peers: &[Client],
    root: &Cid,
    path: &str,
    limits: &Limits,
) -> Result<Cid, FetchError> {
    let mut walk = PathWalk::new(*root, path)?;
    while let Some(cid) = walk.wanted() {
        fetch_scope(store, peers, &cid, Scope::Block, limits, |_| {}).await?;
        let block = blocking(store, move |store| get(store, &cid)).await?;
        walk.take(&block)?;
    }
    Ok(walk.into_path().end)
}

/// A peer as this fetch knows it.
#[derive(Debug)]
struct Peer<'a> {
    client: &'a Client,
    makes_archives: bool,
    /// In a row.
    failures: u32,
    is_out: bool,
    used: Duration,
    blocks: u64,
    bytes: u64,
    failure: Option<FetchError>,
}

impl<'a> Peer<'a> {
    fn new(client: &'a Client) -> Self {
        Self {
            client,
            makes_archives: true,
            failures: 0,
            is_out: false,
            used: Duration::ZERO,
            blocks: 0,
            bytes: 0,
            failure: None,
        }
    }

    fn report(self) -> PeerReport {
        let failure = self.failure.map(|failure| failure.to_string());
        PeerReport { url: self.client.base_url().to_owned(), blocks: self.blocks, bytes: self.bytes, failure }
    }

    /// Notes what went wrong. A lie is one too many.
    fn fail(&mut self, error: FetchError) {
        let is_missing = matches!(error, FetchError::Read(ReadError::Missing { .. }));
        let is_lie = match &error {
            FetchError::Read(ReadError::Corrupt { .. }) | FetchError::TooLarge { .. } => true,
            // It may have been cut off, or be of a kind that is not read here.
            FetchError::Car { source, .. } => {
                matches!(source, CarError::Corrupt { .. } | CarError::Section { .. } | CarError::TooLarge { .. })
            }
            _ => false,
        };
        if !is_missing {
            self.failures += 1;
            let is_final = matches!(error, FetchError::Tired { .. } | FetchError::NotPublic(_));
            self.is_out |= is_lie || is_final || self.failures >= FAILURES_MAX;
        }
        self.failure = Some(error);
    }
}

/// Why asking a peer ended.
enum Fault {
    /// The peer's fault: another may do better.
    Peer(FetchError),
    /// The content's or the store's.
    Own(FetchError),
}

impl From<ReadError> for Fault {
    fn from(error: ReadError) -> Self {
        Self::Own(error.into())
    }
}

struct Fetch<'a, S, P> {
    store: &'a Arc<S>,
    root: Cid,
    scope: Scope,
    walk: DagWalk,
    limits: &'a Limits,
    peers: Vec<Peer<'a>>,
    /// The peer that delivered last.
    current: usize,
    state: Progress,
    progress: P,
}

impl<S: BlockStore + Send + Sync + 'static, P: FnMut(Progress) + Send> Fetch<'_, S, P> {
    async fn run(&mut self) -> Result<(), FetchError> {
        loop {
            self.take_stored().await?;
            let Some(cid) = self.walk.wanted() else {
                return Ok(());
            };
            self.ask_peers(cid).await?;
        }
    }

    /// Takes the wanted blocks that the store has, up to the first that it lacks.
    async fn take_stored(&mut self) -> Result<(), FetchError> {
        while let Some(cid) = self.walk.wanted() {
            let stored = blocking(self.store, move |store| match store.get(&cid) {
                // A damaged block is as good as none.
                Err(StoreError::Corrupt { .. }) => Ok(None),
                // Nor is one that leaves the store just now.
                Ok(Some(block)) => Ok(store.touch(&cid)?.then_some(block)),
                stored => Ok(stored?),
            });
            match stored.await? {
                Some(block) => self.take(&block)?,
                None => break,
            }
        }
        Ok(())
    }

    /// Goes on with the wanted block.
    fn take(&mut self, block: &[u8]) -> Result<(), ReadError> {
        if self.walk.blocks() == 0 && self.scope == Scope::All {
            self.state.bytes_expected = dag_pb::dag_size(&self.root, block);
        }
        self.walk.take(block)?;
        (self.state.blocks, self.state.bytes) = (self.walk.blocks(), self.walk.bytes());
        (self.progress)(self.state);
        Ok(())
    }

    /// Gets the block, and what comes with it, from the first peer that gives it.
    async fn ask_peers(&mut self, cid: Cid) -> Result<(), FetchError> {
        let count = self.peers.len();
        let mut lacking = vec![false; count];
        let mut first = self.current;
        // Each turn brings a block, or takes something away from a peer that it does not get back here.
        loop {
            let mut turns = (0..count).map(|step| (first + step) % count);
            let Some(index) = turns.find(|index| !self.peers[*index].is_out && !lacking[*index]) else {
                let tried = self.peers.drain(..);
                let tried = tried.filter_map(|peer| Some((peer.client.base_url().to_owned(), peer.failure?)));
                return Err(FetchError::Nowhere { cid, tried: tried.collect() });
            };
            tokio::time::sleep(PAUSE * self.peers[index].failures).await;
            let (before, started) = (self.walk.blocks(), Instant::now());
            let asked = self.ask(index, cid).await;
            let has_gained = self.walk.blocks() > before;

            let peer = &mut self.peers[index];
            peer.used += started.elapsed();
            if has_gained {
                peer.failures = 0;
            }
            match asked {
                Err(Fault::Own(error)) => return Err(error),
                Err(Fault::Peer(error)) => {
                    lacking[index] = matches!(error, FetchError::Read(ReadError::Missing { .. }));
                    // Its archives may break off where it lacks something.
                    peer.makes_archives &= has_gained || lacking[index];
                    first = index + 1;
                    peer.fail(error);
                }
                // What came was of no use: it is asked for the block instead.
                Ok(()) if !has_gained => peer.makes_archives = false,
                Ok(()) => {}
            }
            if peer.used > self.limits.peer_time_max {
                peer.fail(FetchError::Tired { seconds: self.limits.peer_time_max.as_secs() });
            }
            if has_gained {
                self.current = first % count;
                return Ok(());
            }
        }
    }

    async fn ask(&mut self, index: usize, cid: Cid) -> Result<(), Fault> {
        let scope = match &self.scope {
            // A part of a node is known from the root alone.
            scope @ (Scope::Entity | Scope::Bytes(_)) if cid == self.root => Some(scope.clone()),
            Scope::All => Some(Scope::All),
            _ => None,
        };
        match scope {
            Some(scope) if cid.codec() == Codec::DagPb && self.peers[index].makes_archives => {
                self.ask_for_archive(index, cid, &scope).await
            }
            _ => self.ask_for_blocks(index, cid).await,
        }
    }

    async fn ask_for_archive(&mut self, index: usize, cid: Cid, scope: &Scope) -> Result<(), Fault> {
        let time_max = self.limits.block_time_max;
        let client = self.peers[index].client;
        let slow = |cid| Fault::Peer(FetchError::Slow { cid, seconds: time_max.as_secs() });
        let asked = tokio::time::timeout(time_max, client.car(&cid, scope)).await.map_err(|_| slow(cid))?;
        let Some(mut archive) = asked.map_err(Fault::Peer)? else {
            self.peers[index].makes_archives = false;
            return Ok(());
        };
        let started = Instant::now();
        let mut until = tokio::time::Instant::now() + time_max;
        loop {
            let next = tokio::time::timeout_at(until, archive.next_block()).await.map_err(|_| slow(cid))?;
            let Some((received, block)) = next.map_err(Fault::Peer)? else {
                return Ok(());
            };
            // A part of it may be wanted twice, and comes once.
            while self.walk.is_repeated() {
                self.take_one_stored().await?;
            }
            // Others were taken before, or have nothing to do with it.
            if self.walk.wanted() == Some(received) {
                self.keep(index, received, block).await?;
                until = tokio::time::Instant::now() + time_max;
            }
            if self.walk.wanted().is_none() {
                return Ok(());
            }
            if self.peers[index].used + started.elapsed() > self.limits.peer_time_max {
                return Err(Fault::Peer(FetchError::Tired { seconds: self.limits.peer_time_max.as_secs() }));
            }
        }
    }

    async fn ask_for_blocks(&mut self, index: usize, cid: Cid) -> Result<(), Fault> {
        let time_max = self.limits.block_time_max;
        let client = self.peers[index].client;
        let mut wanted = self.walk.wanted_leaves(BLOCKS_AT_A_TIME);
        if wanted.is_empty() {
            wanted.push(cid);
        }
        // Up to the next one that is here.
        let wanted = blocking(self.store, move |store| {
            let mut missing = Vec::new();
            for (index, cid) in wanted.into_iter().enumerate() {
                if index > 0 && store.has(&cid)? {
                    break;
                }
                missing.push(cid);
            }
            Ok(missing)
        });
        let wanted = wanted.await.map_err(Fault::Own)?;
        let mut blocks = stream::iter(wanted)
            .map(|cid| async move { (cid, tokio::time::timeout(time_max, client.block(&cid)).await) })
            .buffered(BLOCKS_AT_A_TIME);
        while let Some((cid, asked)) = blocks.next().await {
            let slow = |_| Fault::Peer(FetchError::Slow { cid, seconds: time_max.as_secs() });
            let block = asked.map_err(slow)?.map_err(Fault::Peer)?;
            while self.walk.is_repeated() {
                self.take_one_stored().await?;
            }
            if self.walk.wanted() != Some(cid) {
                return Ok(());
            }
            self.keep(index, cid, block).await?;
        }
        Ok(())
    }

    async fn take_one_stored(&mut self) -> Result<(), Fault> {
        let Some(cid) = self.walk.wanted() else {
            return Ok(());
        };
        let block = blocking(self.store, move |store| store.get(&cid)?.ok_or(ReadError::Missing { cid }));
        Ok(self.take(&block.await.map_err(Fault::Own)?)?)
    }

    /// Takes the wanted block and puts it into the store.
    async fn keep(&mut self, index: usize, cid: Cid, block: Vec<u8>) -> Result<(), Fault> {
        let size = block.len() as u64;
        // Before it is kept, so that the bounds hold for the store too.
        self.state.fetched_blocks += 1;
        self.state.fetched_bytes += size;
        self.take(&block)?;
        blocking(self.store, move |store| Ok(store.put(&cid, &block)?)).await.map_err(Fault::Own)?;
        let peer = &mut self.peers[index];
        peer.blocks += 1;
        peer.bytes += size;
        Ok(())
    }
}

async fn blocking<S: Send + Sync + 'static, T: Send + 'static>(
    store: &Arc<S>,
    work: impl FnOnce(&S) -> Result<T, ReadError> + Send + 'static,
) -> Result<T, FetchError> {
    let store = Arc::clone(store);
    let done = tokio::task::spawn_blocking(move || work(&store)).await;
    Ok(done.map_err(|_| FetchError::Stopped)??)
}
