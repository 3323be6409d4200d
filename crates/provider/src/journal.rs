//! What must survive a restart: promises, which are what was committed to and the salt that opens it (a
//! commitment whose salt is lost cannot be revealed); and orders that were given up, whose clients were told
//! that nothing comes and must not be charged after all.

use althing_types::{Cid, Hash, OrderId};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write as _,
    path::{Path, PathBuf},
};

/// What a commitment hides.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Promise {
    pub output: Cid,
    pub output_size: u64,
    pub salt: Hash,
}

/// Why a promise was not kept safe.
#[derive(Debug, thiserror::Error)]
#[error("the journal {path}: {reason}")]
pub struct JournalError {
    path: String,
    reason: String,
}

/// Where promises are kept.
pub trait Journal: Send + Sync + 'static {
    /// Keeps a promise; durable when this returns.
    ///
    /// # Errors
    /// If it is not safe: the commitment must not be sent then.
    fn keep(&self, order: &OrderId, promise: &Promise) -> Result<(), JournalError>;
    /// The promise made for an order.
    fn get(&self, order: &OrderId) -> Option<Promise>;
    /// Remembers that an order's client was told that nothing comes.
    ///
    /// # Errors
    /// If that would not survive a restart.
    fn give_up(&self, order: &OrderId) -> Result<(), JournalError>;
    /// Whether an order was given up.
    fn is_given_up(&self, order: &OrderId) -> bool;
    /// Forgets an order whose promise is revealed or void, or that is over.
    fn forget(&self, order: &OrderId);
}

/// In memory, for simulations.
#[derive(Debug, Default)]
pub struct MemoryJournal(Mutex<BTreeMap<OrderId, Promise>>, Mutex<BTreeSet<OrderId>>);

impl Journal for MemoryJournal {
    fn keep(&self, order: &OrderId, promise: &Promise) -> Result<(), JournalError> {
        self.0.lock().insert(*order, promise.clone());
        Ok(())
    }
    fn get(&self, order: &OrderId) -> Option<Promise> {
        self.0.lock().get(order).cloned()
    }
    fn give_up(&self, order: &OrderId) -> Result<(), JournalError> {
        self.1.lock().insert(*order);
        Ok(())
    }
    fn is_given_up(&self, order: &OrderId) -> bool {
        self.1.lock().contains(order)
    }
    fn forget(&self, order: &OrderId) {
        self.0.lock().remove(order);
        self.1.lock().remove(order);
    }
}

/// A small file for each order.
#[derive(Debug)]
pub struct FileJournal {
    directory: PathBuf,
}

impl FileJournal {
    /// A journal in `directory`, created if needed.
    ///
    /// # Errors
    /// If the directory cannot be made.
    pub fn open(directory: impl Into<PathBuf>) -> Result<Self, JournalError> {
        let directory = directory.into();
        std::fs::create_dir_all(&directory)
            .map_err(|error| JournalError { path: directory.display().to_string(), reason: error.to_string() })?;
        Ok(Self { directory })
    }

    fn path(&self, order: &OrderId) -> PathBuf {
        self.directory.join(format!("{order}.json"))
    }

    fn path_given_up(&self, order: &OrderId) -> PathBuf {
        self.directory.join(format!("{order}.given-up"))
    }

    /// Writes a file so that it is whole or not there.
    fn write(&self, path: &Path, bytes: &[u8]) -> Result<(), JournalError> {
        let write = || -> std::io::Result<()> {
            let new = path.with_extension("new");
            let mut file = std::fs::File::create(&new)?;
            file.write_all(bytes)?;
            file.sync_all()?;
            std::fs::rename(&new, path)?;
            std::fs::File::open(&self.directory)?.sync_all()
        };
        write().map_err(|error| JournalError { path: path.display().to_string(), reason: error.to_string() })
    }
}

impl Journal for FileJournal {
    fn keep(&self, order: &OrderId, promise: &Promise) -> Result<(), JournalError> {
        let path = self.path(order);
        let failed =
            |error: serde_json::Error| JournalError { path: path.display().to_string(), reason: error.to_string() };
        self.write(&path, &serde_json::to_vec(promise).map_err(failed)?)
    }

    fn get(&self, order: &OrderId) -> Option<Promise> {
        serde_json::from_slice(&std::fs::read(self.path(order)).ok()?).ok()
    }

    fn give_up(&self, order: &OrderId) -> Result<(), JournalError> {
        self.write(&self.path_given_up(order), &[])
    }

    fn is_given_up(&self, order: &OrderId) -> bool {
        self.path_given_up(order).exists()
    }

    fn forget(&self, order: &OrderId) {
        // A file that stays is only ever read for the same order again.
        let _ = std::fs::remove_file(self.path(order));
        let _ = std::fs::remove_file(self.path_given_up(order));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn promises_survive_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let order = OrderId([1; 32]);
        let promise = Promise { output: althing_content::file_cid(b"a"), output_size: 1, salt: Hash([2; 32]) };
        FileJournal::open(directory.path()).unwrap().keep(&order, &promise).unwrap();
        FileJournal::open(directory.path()).unwrap().give_up(&order).unwrap();
        let journal = FileJournal::open(directory.path()).unwrap();
        assert_eq!((journal.get(&order), journal.is_given_up(&order)), (Some(promise), true));
        assert!(!journal.is_given_up(&OrderId([2; 32])));
        journal.forget(&order);
        assert_eq!((journal.get(&order), journal.is_given_up(&order)), (None, false));
    }
}
