//! Content addressing: a file is named by the hash of its bytes, so whoever holds the name can check the bytes, wherever
//! they came from.
//!
//! - [`Cid`] is the name: CIDv0 or CIDv1, sha2-256, codec raw or dag-pb. Nothing else is accepted.
//! - [`unixfs`] cuts files and directories into blocks and names them, exactly as the npm package
//!   `ipfs-unixfs-importer` does under the same profile. [`file_cid`] names bytes in memory.
//!
//! Without features the crate is pure and synchronous, so that the ledger can depend on it.

pub mod cid;
pub mod dag_pb;
mod multibase;
pub mod unixfs;

pub use cid::{Cid, CidError, Codec, Version};
pub use unixfs::{Profile, file_cid};

/// Largest block in bytes, the limit that public peers keep too.
pub const BLOCK_SIZE_MAX: usize = 2 * 1024 * 1024;
