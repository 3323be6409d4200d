//! Content as providers, gateways and coordinators see it: what they keep, and what they get from others.
//!
//! Nobody is believed. What comes is hashed block by block before it is used or kept; the root says how large a file is,
//! and the rest of one that has another size than it may have is not asked for. Sources are asked one after the other and
//! take over from each other where one stops; [`FETCH_TIME_MAX`] bounds it all. What was fetched before is not fetched
//! again, and none of it is pinned, so that a quota or the next collection takes what turned out to be of no use.
//!
//! A source that a stranger named, such as the client of an order, is asked only at public addresses: see
//! [`althing_content::public`].

use althing_content::{
    BLOCK_SIZE_MAX, BlockStore, Cid, Client, FetchError, Limits, MemoryStore, Profile, ReadError, Scope, StoreError,
    fetch_dag, fetch_scope, put_bytes,
    read::{Object, stat},
    read_file,
};
use althing_types::ContentSource;
use async_trait::async_trait;
use std::{ops::RangeInclusive, sync::Arc, time::Duration};

/// How long it may take in all to fetch one file.
pub const FETCH_TIME_MAX: Duration = Duration::from_secs(60);
/// How long a source may take for the next block of use, where the file is kept.
const BLOCK_TIME_MAX: Duration = Duration::from_secs(20);
/// The same where the file is only looked at: coordinators have less time than providers. (T-21)
const LOOK_BLOCK_TIME_MAX: Duration = Duration::from_secs(5);
/// Bytes of blocks that a file may cost beyond twice its size: room for nodes that hold no content.
const OVERHEAD_BYTES_MAX: u64 = 4 * BLOCK_SIZE_MAX as u64;
/// Blocks of one file.
const BLOCKS_MAX: u64 = 1 << 16;

/// Who may have content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Base URL of a gateway.
    pub url: String,
    /// Whether it is asked at public addresses alone, since a stranger named it.
    pub public_only: bool,
}

impl Source {
    /// One that the own settings name, or that is trusted as much.
    pub fn known(url: impl Into<String>) -> Self {
        Self { url: url.into(), public_only: false }
    }

    /// One that a stranger named, such as a provider's endpoint.
    pub fn of_stranger(url: impl Into<String>) -> Self {
        Self { url: url.into(), public_only: true }
    }

    /// Where an order's input is looked for: what the own settings name first, then what the order names, the latter
    /// at private addresses only where the settings say so.
    pub fn of_input(own: &[String], named: Option<&ContentSource>, private: bool) -> Vec<Self> {
        let named = named.filter(|source| !own.iter().any(|url| url == source.as_str()));
        let named = named.map(|source| Self { url: source.as_str().to_owned(), public_only: !private });
        own.iter().map(Self::known).chain(named).collect()
    }

    /// What asks it.
    ///
    /// # Errors
    /// If that is no address of a gateway, or none that is asked.
    pub fn client(&self) -> Result<Client, FetchError> {
        if self.public_only { Client::of_stranger(&self.url) } else { Client::new(&self.url) }
    }
}

/// Why content was not there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ContentError {
    #[error("content {cid} is nowhere to be found: {tried}")]
    Missing { cid: Cid, tried: String },
    #[error("content {cid} was not there after {seconds} s")]
    Slow { cid: Cid, seconds: u64 },
    #[error("content {cid} has {size} bytes, where {} to {} were expected", .expected.start(), .expected.end())]
    Size { cid: Cid, size: u64, expected: RangeInclusive<u64> },
    #[error("content {cid} is no file that can be read: {reason}")]
    Unreadable { cid: Cid, reason: String },
    #[error("the store failed: {0}")]
    Store(String),
}

/// A place for content.
#[async_trait]
pub trait Content: Send + Sync + 'static {
    /// Keeps a file.
    async fn put(&self, bytes: &[u8]) -> Result<Cid, ContentError>;
    /// A file of so many bytes: from the own store, or else from `sources`. Its bytes match the CID, wherever they came
    /// from.
    async fn get(&self, cid: &Cid, sizes: RangeInclusive<u64>, sources: &[Source]) -> Result<Vec<u8>, ContentError>;
}

/// Content in a block store, fetched from others over HTTP.
pub struct StoreContent<S>(pub Arc<S>);

#[async_trait]
impl<S: BlockStore + Send + Sync + 'static> Content for StoreContent<S> {
    async fn put(&self, bytes: &[u8]) -> Result<Cid, ContentError> {
        put_bytes(&*self.0, Profile::V1_2025, bytes)
            .map(|imported| imported.cid)
            .map_err(|error| ContentError::Store(error.to_string()))
    }

    async fn get(&self, cid: &Cid, sizes: RangeInclusive<u64>, sources: &[Source]) -> Result<Vec<u8>, ContentError> {
        match read(&self.0, cid, &sizes).await? {
            Some(bytes) => Ok(bytes),
            None => within_time(cid, fetch(&self.0, cid, &sizes, sources, BLOCK_TIME_MAX)).await,
        }
    }
}

/// Content whose sources are asked wherever they are: for networks on one machine or in one building.
pub struct NearContent<C>(pub C);

#[async_trait]
impl<C: Content> Content for NearContent<C> {
    async fn put(&self, bytes: &[u8]) -> Result<Cid, ContentError> {
        self.0.put(bytes).await
    }

    async fn get(&self, cid: &Cid, sizes: RangeInclusive<u64>, sources: &[Source]) -> Result<Vec<u8>, ContentError> {
        let sources: Vec<_> = sources.iter().map(|source| Source::known(&source.url)).collect();
        self.0.get(cid, sizes, &sources).await
    }
}

/// Content of others, fetched over HTTP each time: nothing is kept.
pub struct FetchedContent;

#[async_trait]
impl Content for FetchedContent {
    async fn put(&self, bytes: &[u8]) -> Result<Cid, ContentError> {
        Ok(althing_content::file_cid(bytes))
    }

    async fn get(&self, cid: &Cid, sizes: RangeInclusive<u64>, sources: &[Source]) -> Result<Vec<u8>, ContentError> {
        let store = Arc::new(MemoryStore::new());
        within_time(cid, fetch(&store, cid, &sizes, sources, LOOK_BLOCK_TIME_MAX)).await
    }
}

async fn within_time<T>(cid: &Cid, fetching: impl Future<Output = Result<T, ContentError>>) -> Result<T, ContentError> {
    let slow = |_| ContentError::Slow { cid: *cid, seconds: FETCH_TIME_MAX.as_secs() };
    tokio::time::timeout(FETCH_TIME_MAX, fetching).await.map_err(slow)?
}

/// Brings a file into `store`, where parts of it may be, and reads it.
async fn fetch<S: BlockStore + Send + Sync + 'static>(
    store: &Arc<S>,
    cid: &Cid,
    sizes: &RangeInclusive<u64>,
    sources: &[Source],
    block_time_max: Duration,
) -> Result<Vec<u8>, ContentError> {
    let (mut peers, mut refused) = (Vec::new(), Vec::new());
    for source in sources {
        match source.client() {
            Ok(client) => peers.push(client),
            Err(error) => refused.push(format!("{}: {error}", source.url)),
        }
    }
    let failed = |error| fetch_error(cid, error, &refused);
    let limits = Limits {
        blocks_max: BLOCKS_MAX,
        block_time_max,
        peer_time_max: FETCH_TIME_MAX,
        ..Limits::bytes(sizes.end().saturating_mul(2).saturating_add(OVERHEAD_BYTES_MAX))
    };
    if !held(store, cid).await? {
        let root = Arc::new(MemoryStore::new());
        fetch_scope(&root, &peers, cid, Scope::Block, &limits, |_| {}).await.map_err(failed)?;
        let block = root.get(cid).map_err(store_error)?.unwrap_or_default();
        let object = althing_content::read::object_of(cid, &block).map_err(|error| read_error(cid, error))?;
        check_size(cid, &object, sizes)?;
        let (store, cid) = (Arc::clone(store), *cid);
        blocking(move || store.put(&cid, &block).map_err(store_error)).await?;
    }
    fetch_dag(store, &peers, cid, &limits, |_| {}).await.map_err(failed)?;
    // All of it was there a moment ago.
    read(store, cid, sizes).await?.ok_or_else(|| ContentError::Missing { cid: *cid, tried: "it left the store".into() })
}

/// Whether the store has the root of a file.
async fn held<S: BlockStore + Send + Sync + 'static>(store: &Arc<S>, cid: &Cid) -> Result<bool, ContentError> {
    let (store, cid) = (Arc::clone(store), *cid);
    blocking(move || store.has(&cid).map_err(store_error)).await
}

/// Reads a file if the store has it all, its size first.
async fn read<S: BlockStore + Send + Sync + 'static>(
    store: &Arc<S>,
    cid: &Cid,
    sizes: &RangeInclusive<u64>,
) -> Result<Option<Vec<u8>>, ContentError> {
    let (store, cid, sizes) = (Arc::clone(store), *cid, sizes.clone());
    blocking(move || {
        let object = match stat(&*store, &cid) {
            Err(error) if is_absent(&error) => return Ok(None),
            object => object.map_err(|error| read_error(&cid, error))?,
        };
        check_size(&cid, &object, &sizes)?;
        match read_file(&*store, &cid, *sizes.end()) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) => Err(read_error(&cid, error)),
        }
    })
    .await
}

/// A damaged block is as good as none.
fn is_absent(error: &ReadError) -> bool {
    matches!(error, ReadError::Missing { .. } | ReadError::Store(StoreError::Corrupt { .. }))
}

fn check_size(cid: &Cid, object: &Object, sizes: &RangeInclusive<u64>) -> Result<(), ContentError> {
    match object {
        Object::File { size } if sizes.contains(size) => Ok(()),
        Object::File { size } => Err(ContentError::Size { cid: *cid, size: *size, expected: sizes.clone() }),
        Object::Directory => Err(ContentError::Unreadable { cid: *cid, reason: "it is a directory".into() }),
    }
}

fn store_error(error: StoreError) -> ContentError {
    ContentError::Store(error.to_string())
}

fn read_error(cid: &Cid, error: ReadError) -> ContentError {
    match error {
        ReadError::Store(error) => store_error(error),
        error => ContentError::Unreadable { cid: *cid, reason: error.to_string() },
    }
}

/// `refused` are the sources that were not even asked, and why.
fn fetch_error(cid: &Cid, error: FetchError, refused: &[String]) -> ContentError {
    match error {
        FetchError::Nowhere { tried, .. } => {
            let tried = tried.into_iter().map(|(url, error)| format!("{url}: {error}"));
            let tried: Vec<_> = tried.chain(refused.iter().cloned()).collect();
            let tried = if tried.is_empty() { "there is no source to ask".into() } else { tried.join("; ") };
            ContentError::Missing { cid: *cid, tried }
        }
        FetchError::Read(error) => read_error(cid, error),
        error => ContentError::Store(error.to_string()),
    }
}

/// Stores may wait for disks.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ContentError> + Send + 'static,
) -> Result<T, ContentError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|_| Err(ContentError::Store("it stopped".into())))
}
