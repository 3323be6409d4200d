//! Stores on disk.

use althing_content::{BlobStore, Profile};
use tempfile::TempDir;

pub fn small() -> Profile {
    Profile::V1_2025.with_sizes(100, 3)
}

/// A store of its own, as long as its directory is kept.
pub fn open() -> (TempDir, BlobStore) {
    let directory = TempDir::new().expect("directory");
    let store = BlobStore::open(directory.path().join("store")).expect("open");
    (directory, store)
}
