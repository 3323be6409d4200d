//! Content addressing: a file is named by the hash of its bytes, so whoever holds the name can check the bytes, wherever
//! they came from.
//!
//! - [`Cid`] is the name: CIDv0 or CIDv1, sha2-256, codec raw or dag-pb. Nothing else is accepted.
//! - [`unixfs`] cuts files and directories into blocks and names them, exactly as the npm package
//!   `ipfs-unixfs-importer` does under the same profile. [`file_cid`] names bytes in memory, [`tree`] whole directories.
//! - [`store`] keeps blocks: [`BlockStore`] is the trait, [`MemoryStore`] the one for tests and simulations.
//! - [`read`] puts files together again, [`directory`] lists directories and follows paths; neither believes a byte
//!   before its hash matches. Directories too large for a block are tries of shards (`hamt`).
//! - [`traversal`] walks over everything below a name, or over the part that a question is about, depth first.
//! - [`car`] moves blocks in and out in the archives of IPFS.
//! - `disk` (feature `store`) keeps blocks in files and moves directories in and out.
//! - `gateway` (feature `http`) serves blocks, files and archives as IPFS gateways do; `client` asks one, and `fetch` brings
//!   content into a store from whichever peers have it. `public` says at which addresses strangers' URLs are asked.
//!
//! Without features the crate is pure and synchronous, so that the ledger can depend on it.

pub mod car;
pub mod cid;
#[cfg(feature = "http")]
pub mod client;
pub mod dag_pb;
pub mod directory;
#[cfg(feature = "store")]
pub mod disk;
#[cfg(feature = "http")]
pub mod fetch;
#[cfg(feature = "http")]
pub mod gateway;
mod hamt;
mod multibase;
#[cfg(feature = "http")]
pub mod public;
pub mod read;
pub mod store;
pub mod traversal;
pub mod tree;
pub mod unixfs;
mod varint;

pub use car::{CarError, CarReader, CarWriter};
pub use cid::{Cid, CidError, Codec, Version};
#[cfg(feature = "http")]
pub use client::{Client, FetchError};
pub use directory::{list, resolve};
#[cfg(feature = "store")]
pub use disk::BlobStore;
#[cfg(feature = "http")]
pub use fetch::{Fetched, Limits, Progress, fetch_dag, fetch_path, fetch_scope};
pub use read::{FileReader, ReadError, read_file, read_range};
pub use store::{BlockStore, MemoryStore, StoreError, put_bytes, put_file};
pub use traversal::{DagBounds, DagWalk, Scope, Traversal};
pub use tree::{put_tree, tree_cid};
pub use unixfs::{Imported, Profile, file_cid};

/// Largest block in bytes, the limit that public peers keep too.
pub const BLOCK_SIZE_MAX: usize = 2 * 1024 * 1024;
