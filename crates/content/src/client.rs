//! Fetches content from an IPFS gateway that nobody trusts: block by block, each hashed before a byte of it is used.
//!
//! Bounds: a block has at most [`BLOCK_SIZE_MAX`] bytes and [`BLOCK_TIMEOUT`] to arrive, redirects are not followed, and
//! the callers say how many bytes they want at most. For a bound on the whole, put a timeout around the call: everything
//! here can be dropped at any time.

use std::{sync::Arc, time::Duration};

use reqwest::{StatusCode, Url, redirect};

use crate::{
    BLOCK_SIZE_MAX, Cid,
    gateway::RAW_BLOCK_TYPE,
    read::{FileWalk, ReadError},
    store::{BlockStore, StoreError},
    traversal::DagWalk,
};

/// How long a connection may take.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long one block may take.
pub const BLOCK_TIMEOUT: Duration = Duration::from_secs(60);
/// How many bytes of blocks a file may cost beyond twice its size: room for nodes that hold no content.
const OVERHEAD_SIZE_MAX: u64 = 4 * BLOCK_SIZE_MAX as u64;

/// A client of one gateway. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Client {
    http: reqwest::Client,
    base_url: String,
}

/// Why content could not be fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    #[error("{0:?} is not the http or https address of a gateway")]
    BaseUrl(String),
    #[error("cannot set up the HTTP client: {0}")]
    Setup(reqwest::Error),
    #[error("fetching block {cid}: {source}")]
    Http { cid: Cid, source: reqwest::Error },
    #[error("fetching block {cid}: the gateway answers with status {status}")]
    Status { cid: Cid, status: u16 },
    #[error("fetching block {cid}: the answer has more than {BLOCK_SIZE_MAX} bytes")]
    TooLarge { cid: Cid },
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error("the store stopped")]
    Stopped,
}

impl From<StoreError> for FetchError {
    fn from(error: StoreError) -> Self {
        Self::Read(error.into())
    }
}

/// Fetches a file of at most `size_max` bytes from the gateway at `base_url`, such as `http://127.0.0.1:8080`.
pub async fn fetch(base_url: &str, cid: &Cid, size_max: u64) -> Result<Vec<u8>, FetchError> {
    Client::new(base_url)?.file(cid, size_max).await
}

impl Client {
    /// A client of the gateway at `base_url`; its paths start with `/ipfs/` below that.
    pub fn new(base_url: &str) -> Result<Self, FetchError> {
        let http = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .redirect(redirect::Policy::none())
            .build()
            .map_err(FetchError::Setup)?;
        Self::with_http(base_url, http)
    }

    /// The same over an HTTP client of the caller, who sees to encryption, proxies and redirects.
    pub fn with_http(base_url: &str, http: reqwest::Client) -> Result<Self, FetchError> {
        let is_http = Url::parse(base_url).is_ok_and(|url| {
            matches!(url.scheme(), "http" | "https")
                && url.has_host()
                && url.query().is_none()
                && url.fragment().is_none()
        });
        if !is_http {
            return Err(FetchError::BaseUrl(base_url.to_owned()));
        }
        Ok(Self { http, base_url: base_url.trim_end_matches('/').to_owned() })
    }

    /// Fetches one block and verifies its hash.
    pub async fn block(&self, cid: &Cid) -> Result<Vec<u8>, FetchError> {
        let failed = |source| FetchError::Http { cid: *cid, source };
        let request = self.http.get(format!("{}/ipfs/{cid}?format=raw", self.base_url));
        let request = request.header(reqwest::header::ACCEPT, RAW_BLOCK_TYPE).timeout(BLOCK_TIMEOUT);
        let mut response = request.send().await.map_err(failed)?;
        match response.status() {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND | StatusCode::GONE => {
                return Err(ReadError::Missing { cid: *cid }.into());
            }
            status => {
                return Err(FetchError::Status { cid: *cid, status: status.as_u16() });
            }
        }
        let mut block = Vec::new();
        while let Some(piece) = response.chunk().await.map_err(failed)? {
            if block.len() + piece.len() > BLOCK_SIZE_MAX {
                return Err(FetchError::TooLarge { cid: *cid });
            }
            block.extend_from_slice(&piece);
        }
        if !cid.names(&block) {
            return Err(ReadError::Corrupt { cid: *cid }.into());
        }
        Ok(block)
    }

    /// Fetches a file of at most `size_max` bytes.
    pub async fn file(&self, cid: &Cid, size_max: u64) -> Result<Vec<u8>, FetchError> {
        let bytes_max = size_max.saturating_mul(2).saturating_add(OVERHEAD_SIZE_MAX);
        let mut bytes = 0u64;
        let mut file = Vec::new();
        let mut walk = FileWalk::new(*cid, 0..u64::MAX, size_max);
        while let Some(wanted) = walk.wanted() {
            let block = self.block(&wanted).await?;
            bytes += block.len() as u64;
            if bytes > bytes_max {
                return Err(ReadError::DagTooLarge { cid: *cid, bytes_max }.into());
            }
            file.extend(walk.take(&block)?);
        }
        Ok(file)
    }

    /// Brings every block below `cid`, a file or a directory, into `store`: at most `bytes_max` bytes. Blocks that the
    /// store has are not fetched, so an interrupted fetch can be taken up again. Gives the bytes of all blocks.
    pub async fn dag<S: BlockStore + Send + Sync + 'static>(
        &self,
        cid: &Cid,
        store: &Arc<S>,
        bytes_max: u64,
    ) -> Result<u64, FetchError> {
        let mut walk = DagWalk::new(*cid, bytes_max);
        while let Some(wanted) = walk.wanted() {
            let kept = blocking(store, move |store| match store.get(&wanted) {
                // A damaged block is as good as none.
                Err(StoreError::Corrupt { .. }) => Ok(None),
                kept => kept,
            });
            if let Some(block) = kept.await? {
                walk.take(&block)?;
                continue;
            }
            let block = self.block(&wanted).await?;
            // Before it is kept, so that the bound holds for the store too.
            walk.take(&block)?;
            blocking(store, move |store| store.put(&wanted, &block)).await?;
        }
        Ok(walk.bytes())
    }
}

async fn blocking<S: Send + Sync + 'static, T: Send + 'static>(
    store: &Arc<S>,
    work: impl FnOnce(&S) -> Result<T, StoreError> + Send + 'static,
) -> Result<T, FetchError> {
    let store = Arc::clone(store);
    let done = tokio::task::spawn_blocking(move || work(&store)).await;
    Ok(done.map_err(|_| FetchError::Stopped)??)
}
