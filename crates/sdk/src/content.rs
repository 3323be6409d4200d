//! Content as providers and gateways see it: what they keep, and what they get from others.

use althing_content::{BlockStore, Cid, Client, Profile, ReadError, put_bytes, read_file};
use async_trait::async_trait;
use std::{sync::Arc, time::Duration};

/// How long one source may take to give one file.
const FETCH_TIMEOUT: Duration = Duration::from_secs(30);

/// Why content was not there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ContentError {
    #[error("content {0} is nowhere to be found")]
    Missing(Cid),
    #[error("the store failed: {0}")]
    Store(String),
}

/// A place for content.
#[async_trait]
pub trait Content: Send + Sync + 'static {
    /// Keeps a file.
    async fn put(&self, bytes: &[u8]) -> Result<Cid, ContentError>;
    /// A file of at most `size_max` bytes: from the own store, or else from the first of `sources`
    /// (base URLs) that has it. Its bytes match the CID, wherever they came from.
    async fn get(&self, cid: &Cid, size_max: u64, sources: &[String]) -> Result<Vec<u8>, ContentError>;
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

    async fn get(&self, cid: &Cid, size_max: u64, sources: &[String]) -> Result<Vec<u8>, ContentError> {
        match read_file(&*self.0, cid, size_max) {
            Ok(bytes) => return Ok(bytes),
            Err(ReadError::Missing { .. }) => {}
            Err(error) => return Err(ContentError::Store(error.to_string())),
        }
        let bytes = fetch(cid, size_max, sources).await?;
        self.put(&bytes).await?;
        Ok(bytes)
    }
}

/// Content of others, fetched over HTTP each time: nothing is kept.
pub struct FetchedContent;

#[async_trait]
impl Content for FetchedContent {
    async fn put(&self, bytes: &[u8]) -> Result<Cid, ContentError> {
        Ok(althing_content::file_cid(bytes))
    }

    async fn get(&self, cid: &Cid, size_max: u64, sources: &[String]) -> Result<Vec<u8>, ContentError> {
        fetch(cid, size_max, sources).await
    }
}

/// The file from the first source that has it.
async fn fetch(cid: &Cid, size_max: u64, sources: &[String]) -> Result<Vec<u8>, ContentError> {
    for source in sources {
        let Ok(client) = Client::new(source) else { continue };
        match tokio::time::timeout(FETCH_TIMEOUT, client.file(cid, size_max)).await {
            Ok(Ok(bytes)) => return Ok(bytes),
            Ok(Err(error)) => tracing::debug!(%cid, source, %error, "source has no such content"),
            Err(_) => tracing::debug!(%cid, source, "source is too slow"),
        }
    }
    Err(ContentError::Missing(*cid))
}
