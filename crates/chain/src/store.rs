//! The state on disk.
//!
//! The database keeps an entry for every key under the hash of that key, so that lookups and
//! proofs have the same cost whatever keys the ledger chooses; the entry itself holds the key and
//! the value, so that the state can be read back in full. Its root proves that a key has a value
//! now, or that it has none.

use commonware_codec::{Buf, EncodeSize, Error as CodecError, RangeCfg, Read, Write};
use commonware_cryptography::{Hasher as _, Sha256};
use commonware_glue::stateful::db::{AttachableResolver, DatabaseSet, Shared};
use commonware_parallel::Sequential;
use commonware_runtime::buffer::paged::CacheRef;
use commonware_storage::{
    journal::contiguous::variable,
    merkle::full,
    mmr,
    qmdb::{
        any::ordered::variable::Operation,
        current::{VariableConfig, ordered},
        sync::{Request, Source, source},
    },
    translator::EightCap,
};
use commonware_utils::{NZU64, NZUsize};

use crate::block::Digest;

/// Bytes of a key and its value together.
pub const MAX_ENTRY_BYTES: usize = 1 << 20;

/// Bytes in a chunk of the bitmap of current operations.
pub(crate) const CHUNK: usize = 32;

/// A key of the ledger with its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) key: Vec<u8>,
    pub(crate) value: Vec<u8>,
}

impl Entry {
    pub(crate) fn new(key: Vec<u8>, value: Vec<u8>) -> Self {
        assert!(key.len() + value.len() <= MAX_ENTRY_BYTES, "the ledger bounds its entries");
        Self { key, value }
    }
}

impl Write for Entry {
    fn write(&self, buf: &mut impl bytes::BufMut) {
        self.key.write(buf);
        self.value.write(buf);
    }
}

impl EncodeSize for Entry {
    fn encode_size(&self) -> usize {
        self.key.encode_size() + self.value.encode_size()
    }
}

impl Read for Entry {
    type Cfg = ();

    fn read_cfg(buf: &mut impl Buf, _: &()) -> Result<Self, CodecError> {
        let range = (RangeCfg::new(0..=MAX_ENTRY_BYTES), ());
        let key = Vec::<u8>::read_cfg(buf, &range)?;
        let value = Vec::<u8>::read_cfg(buf, &range)?;
        Ok(Self { key, value })
    }
}

/// Where the database keeps the entry of `key`.
pub(crate) fn state_key(key: &[u8]) -> Digest {
    Sha256::hash(&[key])
}

/// The database.
pub(crate) type Database<E> = ordered::variable::Db<mmr::Family, E, Digest, Entry, Sha256, EightCap, CHUNK, Sequential>;
/// The database as consensus shares it.
pub(crate) type Databases<E> = Shared<Database<E>>;
/// A block's writes before and after their root is known.
pub(crate) type Unmerkleized<E> = <Databases<E> as DatabaseSet<E>>::Unmerkleized;
pub(crate) type Merkleized<E> = <Databases<E> as DatabaseSet<E>>::Merkleized;

/// Opens or creates the partitions that start with `prefix`.
pub(crate) fn config(prefix: &str, page_cache: CacheRef) -> VariableConfig<EightCap, ((), ()), Sequential> {
    VariableConfig {
        merkle_config: full::Config {
            journal_partition: format!("{prefix}-state-merkle"),
            metadata_partition: format!("{prefix}-state-merkle-meta"),
            items_per_blob: NZU64!(1 << 16),
            write_buffer: NZUsize!(1 << 18),
            replay_buffer: NZUsize!(1 << 20),
            strategy: Sequential,
            page_cache: page_cache.clone(),
        },
        journal_config: variable::Config {
            partition: format!("{prefix}-state-log"),
            items_per_section: NZU64!(1 << 14),
            compression: None,
            codec_config: ((), ()),
            page_cache,
            write_buffer: NZUsize!(1 << 18),
            replay_buffer: NZUsize!(1 << 20),
        },
        grafted_metadata_partition: format!("{prefix}-state-bitmap"),
        translator: EightCap,
        init_cache: Some(NZUsize!(1 << 16)),
        init_buffer: NZUsize!(1 << 20),
        init_concurrency: (),
    }
}

/// Stands in for peers to download the state from: there are none, nodes replay blocks.
#[derive(Clone)]
pub(crate) struct NoPeers;

/// State cannot be downloaded yet.
#[derive(Debug, thiserror::Error)]
#[error("state cannot be downloaded yet")]
pub(crate) struct NotSupported;

impl Source for NoPeers {
    type Family = mmr::Family;
    type Digest = Digest;
    type Op = Operation<mmr::Family, Digest, Entry>;
    type Error = NotSupported;

    async fn serve(&self, _: Request<mmr::Family>) -> source::Result<Self> {
        Err(NotSupported)
    }
}

impl<DB: Send + Sync + 'static> AttachableResolver<DB> for NoPeers {
    async fn attach_database(&self, _: Shared<DB>) {}
}
