//! Where blocks lie: one small synchronous trait, and a store in memory.
//!
//! A store gives out a block only after it has hashed it again, so a block from a store needs no further check.

use std::{
    collections::BTreeMap,
    io,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::{
    BLOCK_SIZE_MAX, Cid,
    unixfs::{FileImporter, Imported, Profile, import_bytes},
};

/// A set of blocks by name. The names of one block, version 0 or 1, lead to the same block.
pub trait BlockStore {
    /// The block, its hash verified; `None` if it is not here.
    fn get(&self, cid: &Cid) -> Result<Option<Vec<u8>>, StoreError>;

    /// Keeps a block once its hash is verified. Keeping it twice is no error.
    fn put(&self, cid: &Cid, block: &[u8]) -> Result<(), StoreError>;

    /// Whether the block is here; says nothing about its hash.
    fn has(&self, cid: &Cid) -> Result<bool, StoreError>;

    /// Says that a block is about to become part of something, so that it does not leave the store for some time;
    /// whether it is here.
    fn touch(&self, cid: &Cid) -> Result<bool, StoreError> {
        self.has(cid)
    }
}

/// Why a store did not do as told.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("block {cid} has {size} bytes, more than {BLOCK_SIZE_MAX}")]
    TooLarge { cid: Cid, size: usize },
    #[error("the bytes given for block {cid} have another hash")]
    Mismatch { cid: Cid },
    #[error("block {cid} is damaged: the stored bytes have another hash")]
    Corrupt { cid: Cid },
    #[error("block {cid} is not given out here")]
    Denied { cid: Cid },
    #[error("store is full: {quota_bytes} bytes that no pin reaches, all of them used lately")]
    Full { quota_bytes: u64 },
    #[error("{0:?} cannot be the name of a pin: it is empty or too long")]
    PinName(String),
    #[error("{path} is not a pin: remove it, or write a CID into it", path = path.display())]
    Pin { path: PathBuf },
    #[error("{path}: {source}", path = path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("cannot read the bytes to import: {0}")]
    Source(io::Error),
}

/// Blocks in memory, for tests and simulations. Shared by reference or in an [`Arc`].
#[derive(Debug, Default)]
pub struct MemoryStore {
    blocks: Mutex<BTreeMap<[u8; 32], Vec<u8>>>,
}

impl MemoryStore {
    pub fn new() -> Self {
        Self::default()
    }

    /// Number of blocks.
    pub fn len(&self) -> usize {
        self.blocks().len()
    }

    pub fn is_empty(&self) -> bool {
        self.blocks().is_empty()
    }

    /// Forgets a block; says whether it was here.
    pub fn remove(&self, cid: &Cid) -> bool {
        self.blocks().remove(cid.digest()).is_some()
    }

    /// Puts bytes under a name they do not have, as a broken disk would. For tests of readers.
    pub fn damage(&self, cid: &Cid, block: Vec<u8>) {
        self.blocks().insert(*cid.digest(), block);
    }

    fn blocks(&self) -> MutexGuard<'_, BTreeMap<[u8; 32], Vec<u8>>> {
        self.blocks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl BlockStore for MemoryStore {
    fn get(&self, cid: &Cid) -> Result<Option<Vec<u8>>, StoreError> {
        let Some(block) = self.blocks().get(cid.digest()).cloned() else {
            return Ok(None);
        };
        if !cid.names(&block) {
            return Err(StoreError::Corrupt { cid: *cid });
        }
        Ok(Some(block))
    }

    fn put(&self, cid: &Cid, block: &[u8]) -> Result<(), StoreError> {
        check_block(cid, block)?;
        self.blocks().insert(*cid.digest(), block.to_vec());
        Ok(())
    }

    fn has(&self, cid: &Cid) -> Result<bool, StoreError> {
        Ok(self.blocks().contains_key(cid.digest()))
    }
}

macro_rules! forward_to_target {
    ($($pointer:ty),*) => {$(
        impl<S: BlockStore + ?Sized> BlockStore for $pointer {
            fn get(&self, cid: &Cid) -> Result<Option<Vec<u8>>, StoreError> {
                (**self).get(cid)
            }

            fn put(&self, cid: &Cid, block: &[u8]) -> Result<(), StoreError> {
                (**self).put(cid, block)
            }

            fn has(&self, cid: &Cid) -> Result<bool, StoreError> {
                (**self).has(cid)
            }

            fn touch(&self, cid: &Cid) -> Result<bool, StoreError> {
                (**self).touch(cid)
            }
        }
    )*};
}

forward_to_target!(&S, Arc<S>, Box<S>);

/// What every store checks before it keeps a block.
pub(crate) fn check_block(cid: &Cid, block: &[u8]) -> Result<(), StoreError> {
    if block.len() > BLOCK_SIZE_MAX {
        return Err(StoreError::TooLarge { cid: *cid, size: block.len() });
    }
    if !cid.names(block) {
        return Err(StoreError::Mismatch { cid: *cid });
    }
    Ok(())
}

/// Imports a file that lies in memory.
pub fn put_bytes<S: BlockStore + ?Sized>(store: &S, profile: Profile, bytes: &[u8]) -> Result<Imported, StoreError> {
    import_bytes(profile, bytes, &mut |cid: &Cid, block: &[u8]| store.put(cid, block))
}

/// Imports a file to the end of `source`, holding one chunk at a time.
pub fn put_file<S: BlockStore + ?Sized>(
    store: &S,
    profile: Profile,
    mut source: impl io::Read,
) -> Result<Imported, StoreError> {
    let sink = &mut |cid: &Cid, block: &[u8]| store.put(cid, block);
    let mut importer = FileImporter::new(profile);
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match source.read(&mut buffer) {
            Ok(0) => return importer.finish(sink),
            Ok(count) => importer.push(&buffer[..count], sink)?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(StoreError::Source(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Codec;

    #[test]
    fn a_block_is_kept_only_under_its_own_name() {
        let store = MemoryStore::new();
        let cid = Cid::of_raw_block(b"block");
        assert!(matches!(store.put(&cid, b"other"), Err(StoreError::Mismatch { .. })));
        let large = vec![0; BLOCK_SIZE_MAX + 1];
        assert!(matches!(store.put(&Cid::of_raw_block(&large), &large), Err(StoreError::TooLarge { .. })));
        assert!(store.is_empty());

        store.put(&cid, b"block").expect("put");
        store.put(&cid, b"block").expect("put twice");
        assert_eq!(store.len(), 1);
        assert_eq!(store.get(&cid).expect("get"), Some(b"block".to_vec()));
        let as_dag_pb = Cid::v1(Codec::DagPb, *cid.digest());
        assert!(store.has(&as_dag_pb).expect("has"));
        assert!(store.remove(&cid));
        assert_eq!(store.get(&cid).expect("get"), None);
    }

    #[test]
    fn a_damaged_block_is_an_error_that_names_it() {
        let store = MemoryStore::new();
        let cid = put_bytes(&store, Profile::V1_2025, b"block").expect("import").cid;
        store.damage(&cid, b"blocK".to_vec());
        let error = store.get(&cid).expect_err("damaged");
        assert!(matches!(error, StoreError::Corrupt { .. }));
        assert!(error.to_string().contains(&cid.to_string()));
    }
}
