//! Where receipts are kept. (V-2)

use althing_sdk::Receipt;
use althing_types::OrderId;
use parking_lot::Mutex;
use std::{collections::BTreeMap, io::Write as _, path::PathBuf};

/// A place for receipts.
pub trait Receipts: Send + Sync + 'static {
    /// Keeps a receipt; returns where, for people.
    ///
    /// # Errors
    /// If it could not be kept.
    fn keep(&self, receipt: &Receipt) -> std::io::Result<String>;
    /// The receipt of an order.
    ///
    /// # Errors
    /// If it cannot be read.
    fn get(&self, order: &OrderId) -> std::io::Result<Option<Vec<u8>>>;
}

/// One JSON file for each receipt.
#[derive(Debug)]
pub struct FileReceipts(PathBuf);

impl FileReceipts {
    /// Receipts in `directory`, created if needed.
    ///
    /// # Errors
    /// If the directory cannot be made.
    pub fn open(directory: PathBuf) -> std::io::Result<Self> {
        std::fs::create_dir_all(&directory)?;
        Ok(Self(directory))
    }

    fn path(&self, order: &OrderId) -> PathBuf {
        self.0.join(format!("{order}.json"))
    }
}

impl Receipts for FileReceipts {
    fn keep(&self, receipt: &Receipt) -> std::io::Result<String> {
        let path = self.path(&receipt.proof.order.id);
        let new = path.with_extension("new");
        let mut file = std::fs::File::create(&new)?;
        file.write_all(&receipt.to_bytes())?;
        file.sync_all()?;
        std::fs::rename(new, &path)?;
        Ok(path.display().to_string())
    }

    fn get(&self, order: &OrderId) -> std::io::Result<Option<Vec<u8>>> {
        match std::fs::read(self.path(order)) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Receipts in memory, for simulations.
#[derive(Debug, Default)]
pub struct MemoryReceipts(Mutex<BTreeMap<OrderId, Vec<u8>>>);

impl Receipts for MemoryReceipts {
    fn keep(&self, receipt: &Receipt) -> std::io::Result<String> {
        self.0.lock().insert(receipt.proof.order.id, receipt.to_bytes());
        Ok("memory".into())
    }
    fn get(&self, order: &OrderId) -> std::io::Result<Option<Vec<u8>>> {
        Ok(self.0.lock().get(order).cloned())
    }
}
