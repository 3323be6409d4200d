//! Asks one IPFS gateway that nobody trusts: for blocks, for files block by block, for archives. Every block is hashed
//! before a byte of it is used. [`crate::fetch`] brings content from several of them into a store.
//!
//! Bounds: a block has at most [`BLOCK_SIZE_MAX`] bytes and [`BLOCK_TIMEOUT`] to arrive, redirects are not followed, and
//! the callers say how many bytes they want at most. For a bound on the whole, put a timeout around the call: everything
//! here can be dropped at any time.

use std::time::Duration;

use reqwest::{StatusCode, Url, redirect};

use crate::{
    BLOCK_SIZE_MAX, Cid,
    car::{CAR_TYPE, CarError, Decoder, Item},
    gateway::RAW_BLOCK_TYPE,
    public::{self, NotPublic, PublicResolver},
    read::{FileWalk, ReadError},
    store::StoreError,
    traversal::Scope,
};

/// How long a connection may take.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long one block may take.
pub const BLOCK_TIMEOUT: Duration = Duration::from_secs(60);
/// How archives are asked for: depth first, so that every block is named by one that came before it.
const CAR_WANTED: &str = "application/vnd.ipld.car; version=1; order=dfs; dups=n";
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
    #[error(transparent)]
    NotPublic(#[from] NotPublic),
    #[error("fetching block {cid}: {source}")]
    Http { cid: Cid, source: reqwest::Error },
    #[error("fetching block {cid}: the gateway answers with status {status}")]
    Status { cid: Cid, status: u16 },
    #[error("fetching block {cid}: the answer has more than {BLOCK_SIZE_MAX} bytes")]
    TooLarge { cid: Cid },
    #[error("fetching an archive of {cid}: {source}")]
    Car { cid: Cid, source: CarError },
    #[error("fetching block {cid}: nothing of use came for {seconds} s")]
    Slow { cid: Cid, seconds: u64 },
    #[error("the peer was asked for {seconds} s in all")]
    Tired { seconds: u64 },
    #[error("block {cid} is nowhere to be found: {}", tried_text(tried))]
    Nowhere { cid: Cid, tried: Vec<(String, Self)> },
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error("the store stopped")]
    Stopped,
}

impl FetchError {
    fn http(cid: &Cid, source: reqwest::Error) -> Self {
        match public::reason(&source) {
            Some(refused) => refused.into(),
            None => Self::Http { cid: *cid, source },
        }
    }
}

/// What is common to all clients.
fn builder() -> reqwest::ClientBuilder {
    reqwest::Client::builder().connect_timeout(CONNECT_TIMEOUT).redirect(redirect::Policy::none())
}

fn tried_text(tried: &[(String, FetchError)]) -> String {
    let each = tried.iter().map(|(url, error)| format!("{url}: {error}"));
    if tried.is_empty() { "there is no peer to ask".to_owned() } else { each.collect::<Vec<_>>().join("; ") }
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
        Self::with_http(base_url, builder().build().map_err(FetchError::Setup)?)
    }

    /// A client of a gateway that a stranger names: it is asked only if all of its addresses are public.
    pub fn of_stranger(base_url: &str) -> Result<Self, FetchError> {
        // A proxy would look names up for itself.
        let http = builder().no_proxy().dns_resolver(PublicResolver).build().map_err(FetchError::Setup)?;
        let client = Self::with_http(base_url, http)?;
        // Addresses are never looked up.
        public::check_url(&Url::parse(base_url).map_err(|_| FetchError::BaseUrl(base_url.to_owned()))?)?;
        Ok(client)
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

    /// Where the gateway is, without a slash at the end.
    pub fn base_url(&self) -> &str {
        &self.base_url
    }

    /// Fetches one block and verifies its hash.
    pub async fn block(&self, cid: &Cid) -> Result<Vec<u8>, FetchError> {
        let failed = |source| FetchError::http(cid, source);
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

    /// Asks for everything that a scope has below `cid`, as an archive in depth-first order. `None` if the gateway makes
    /// none, or not in this order. How long it may take is for the caller to say.
    pub async fn car(&self, cid: &Cid, scope: &Scope) -> Result<Option<CarStream>, FetchError> {
        let part = match scope {
            Scope::Block => "dag-scope=block".to_owned(),
            Scope::Entity => "dag-scope=entity".to_owned(),
            Scope::Bytes(range) if range.end == u64::MAX => format!("entity-bytes={}:*", range.start),
            Scope::Bytes(range) => format!("entity-bytes={}:{}", range.start, range.end.saturating_sub(1)),
            Scope::All => "dag-scope=all".to_owned(),
        };
        let url = format!("{}/ipfs/{cid}?format=car&{part}", self.base_url);
        let request = self.http.get(url).header(reqwest::header::ACCEPT, CAR_WANTED);
        let response = request.send().await.map_err(|source| FetchError::http(cid, source))?;
        match response.status() {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND | StatusCode::GONE => return Err(ReadError::Missing { cid: *cid }.into()),
            _ => return Ok(None),
        }
        let content_type = response.headers().get(reqwest::header::CONTENT_TYPE);
        let content_type = content_type.and_then(|value| value.to_str().ok()).unwrap_or_default();
        let mut parts = content_type.split(';').map(str::trim);
        let is_made = parts.next() == Some(CAR_TYPE) && parts.any(|part| part == "order=dfs");
        Ok(is_made.then(|| CarStream { cid: *cid, response, decoder: Decoder::new() }))
    }
}

/// An archive on its way.
#[derive(Debug)]
pub struct CarStream {
    cid: Cid,
    response: reqwest::Response,
    decoder: Decoder,
}

impl CarStream {
    /// The next block, its hash verified; `None` at the end of a whole archive.
    pub async fn next_block(&mut self) -> Result<Option<(Cid, Vec<u8>)>, FetchError> {
        let cid = self.cid;
        let broken = |source| FetchError::Car { cid, source };
        loop {
            match self.decoder.next_item().map_err(broken)? {
                Some(Item::Block { cid, block }) => return Ok(Some((cid, block))),
                // Nothing vouches for the roots.
                Some(Item::Header(_)) => {}
                None => match self.response.chunk().await.map_err(|source| FetchError::Http { cid, source })? {
                    Some(bytes) => self.decoder.feed(&bytes),
                    None => return self.decoder.finish().map_err(broken).map(|()| None),
                },
            }
        }
    }
}
