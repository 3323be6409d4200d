//! Answers what a [`crate::NodeHandle`] cannot answer from memory.
//!
//! Requests are served one after the other, except for timers, in the node's own runtime.

use crate::{
    block::{Block, Digest, Header},
    keys::Scheme,
    node::{CERTIFIED_HEADERS_MAX, ProveError, Request},
    proof::{CertifiedHeader, StateProof, encode_absence, encode_presence},
    shared::Shared,
    store::{Databases, state_key},
};
use commonware_codec::Encode as _;
use commonware_consensus::{
    marshal::{Identifier, core::Mailbox, standard::Standard},
    types::Height,
};
use commonware_runtime::{Clock, Metrics, Spawner, Storage};
use std::sync::Arc;
use tokio::sync::mpsc;

/// See the module.
pub(crate) struct Service {
    pub(crate) shared: Arc<Shared>,
    pub(crate) marshal: Mailbox<Scheme, Standard<Block>>,
    pub(crate) genesis: Block,
}

impl Service {
    /// Serves until all handles are gone.
    pub(crate) async fn run<E>(self, context: E, databases: Databases<E>, mut requests: mpsc::Receiver<Request>)
    where
        E: Clock + Spawner + Storage + Metrics,
    {
        while let Some(request) = requests.recv().await {
            match request {
                Request::Sleep(duration, mut reply) => {
                    context.child("timer").spawn(move |context| async move {
                        tokio::select! {
                            biased;
                            () = context.sleep(duration) => {
                                let _ = reply.send(());
                            }
                            () = reply.closed() => {}
                        }
                    });
                }
                Request::Block(height, reply) => {
                    let _ = reply.send(self.block(height).await);
                }
                Request::Certified(height, reply) => {
                    let _ = reply.send(self.certified(height).await);
                }
                Request::Prove(key, reply) => {
                    let _ = reply.send(self.prove(&databases, key).await);
                }
            }
        }
    }

    /// The finalized block at `height`.
    async fn block(&self, height: u64) -> Option<Block> {
        if height == 0 {
            return Some(self.genesis.clone());
        }
        if self.shared.height.get().is_none_or(|tip| height > tip) {
            return None;
        }
        let identifier = Identifier::Height(Height::new(height));
        let block = self.marshal.get_block(identifier).await?;
        Some(block.inner().clone())
    }

    /// The header of the finalized block whose state is named `root`; searched from the newest on.
    pub(crate) async fn header_of(&self, root: &[u8; 32]) -> Option<Header> {
        if self.genesis.header.state_root == *root {
            return Some(self.genesis.header.clone());
        }
        let latest = self.marshal.get_info(Identifier::Latest).await?.0;
        let mut height = latest.get();
        while height > 0 {
            let identifier = Identifier::<Digest>::Height(Height::new(height));
            if let Some(block) = self.marshal.get_block(identifier).await
                && block.inner().header.state_root == *root
            {
                return Some(block.inner().header.clone());
            }
            height -= 1;
        }
        None
    }

    /// The header at `height` with the proof that it is final.
    async fn certified(&self, height: u64) -> Option<CertifiedHeader> {
        let first = self.block(height).await?.header;
        self.certify(first).await
    }

    async fn certify(&self, first: Header) -> Option<CertifiedHeader> {
        let mut headers = vec![first];
        loop {
            let at = Height::new(headers.last()?.height);
            // The first block is final from the start but certificates begin after it.
            if let Some(finalization) = self.marshal.get_finalization(at).await {
                return Some(CertifiedHeader { headers, certificate: finalization.encode().to_vec() });
            }
            if headers.len() >= CERTIFIED_HEADERS_MAX {
                return None;
            }
            let next = Identifier::<Digest>::Height(Height::new(at.get() + 1));
            let block = self.marshal.get_block(next).await?;
            headers.push(block.inner().header.clone());
        }
    }

    async fn prove<E>(&self, databases: &Databases<E>, key: Vec<u8>) -> Result<StateProof, ProveError>
    where
        E: Clock + Spawner + Storage + Metrics,
    {
        if self.shared.height.get().is_none_or(|tip| tip == 0) {
            return Err(ProveError::NotReady);
        }
        let storage = |cause: commonware_storage::qmdb::Error<_>| ProveError::Storage(cause.to_string());
        let id = state_key(&key);
        // The value, the proof and the root are read under one lock, so that they are of one state.
        let (root, value, proof) = {
            let database = databases.read().await;
            let value = database.get(&id).await.map_err(storage)?;
            let proof = match value {
                Some(_) => encode_presence(&database.key_value_proof(id).await.map_err(storage)?),
                None => encode_absence(&database.exclusion_proof(&id).await.map_err(storage)?),
            };
            (database.root().0, value, proof)
        };
        let header = self.header_of(&root).await;
        let header = header.ok_or(ProveError::NotReady)?;
        Ok(StateProof {
            key,
            value: value.map(|entry| entry.value),
            proof,
            header: self.certify(header).await.ok_or(ProveError::NotReady)?,
        })
    }
}
