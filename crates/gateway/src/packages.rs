//! What packages say about themselves: which interface a model has, and whether requests pass through to it.
//!
//! A description is content like any other: whoever gives it, its bytes match the package's CID.

use althing_content::{BlockStore, Cid, fetch::Limits, fetch_dag, fetch_path, read_file};
use althing_runtime::package::Manifest;
use althing_sdk::{ContentError, Source};
use async_trait::async_trait;
use std::{sync::Arc, time::Duration};

/// Largest `model.toml`, bytes.
const MANIFEST_BYTES_MAX: u64 = 1 << 20;
/// Most bytes that are fetched for one: it, and the directory in which it is.
const FETCH_BYTES_MAX: u64 = 4 << 20;
/// How long that may take, and one of those who may have it.
const FETCH_TIME_MAX: Duration = Duration::from_secs(6);
const PEER_TIME_MAX: Duration = Duration::from_millis(1_500);

/// Where descriptions of packages are found.
#[async_trait]
pub trait Packages: Send + Sync + 'static {
    /// The `model.toml` of a package, from the own store or from `sources`.
    async fn manifest(&self, package: &Cid, sources: &[Source]) -> Result<Manifest, ContentError>;
}

/// In a store on disk, fetched from others over HTTP.
pub struct StorePackages<S>(pub Arc<S>);

#[async_trait]
impl<S: BlockStore + Send + Sync + 'static> Packages for StorePackages<S> {
    async fn manifest(&self, package: &Cid, sources: &[Source]) -> Result<Manifest, ContentError> {
        let missing = |why: &dyn std::fmt::Display| {
            tracing::debug!(%package, %why, "no description of a package");
            ContentError::Missing { cid: *package, tried: why.to_string() }
        };
        let peers: Vec<_> = sources.iter().filter_map(|source| source.client().ok()).collect();
        let limits = Limits { block_time_max: PEER_TIME_MAX, ..Limits::bytes(FETCH_BYTES_MAX) };
        let fetch = async {
            let cid = fetch_path(&self.0, &peers, package, "model.toml", &limits).await?;
            fetch_dag(&self.0, &peers, &cid, &limits, |_| {}).await.map(|_| cid)
        };
        let cid = tokio::time::timeout(FETCH_TIME_MAX, fetch).await.map_err(|error| missing(&error))?;
        let cid = cid.map_err(|error| missing(&error))?;
        let text = read_file(&*self.0, &cid, MANIFEST_BYTES_MAX).map_err(|error| missing(&error))?;
        Manifest::parse(&text).map_err(|error| missing(&error))
    }
}

/// Nothing is known of any package but what engines at hand say.
pub struct NoPackages;

#[async_trait]
impl Packages for NoPackages {
    async fn manifest(&self, package: &Cid, _sources: &[Source]) -> Result<Manifest, ContentError> {
        Err(ContentError::Missing { cid: *package, tried: "there is no store".into() })
    }
}
