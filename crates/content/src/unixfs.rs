//! Import: cuts a file into chunks, hangs them under a balanced tree, and names the root.
//!
//! A file of one chunk is that chunk. A longer one is a tree whose leaves all lie at the same depth: every `links_max`
//! nodes get a parent, then every `links_max` parents, until one is left. A directory is one node with a link for each
//! entry, in the order of the bytes of their names; above a size it is cut into shards (module `hamt`).
//!
//! The CIDs equal those of the npm package `ipfs-unixfs-importer` under the profile of the same name.

use std::{collections::BTreeMap, convert::Infallible};

use crate::{
    BLOCK_SIZE_MAX, Cid, Version,
    dag_pb::{Link, Node},
    hamt,
};

/// Largest size in bytes of a directory that is one node, counted as the profile counts it; larger ones are sharded.
pub const PLAIN_DIRECTORY_SIZE_MAX: usize = 256 * 1024;
/// Longest name of a directory entry in bytes.
pub const NAME_SIZE_MAX: usize = 255;
/// Largest number of links in a file node.
pub const LINKS_MAX: usize = 8 * 1024;
/// Largest chunk in bytes: it must fit into a block with a few bytes of frame.
pub const CHUNK_SIZE_MAX: usize = BLOCK_SIZE_MAX - 64;

/// How files are cut and blocks are named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Profile {
    version: Version,
    chunk_size: usize,
    links_max: usize,
    plain_directory_size_max: usize,
}

/// What an import gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Imported {
    /// The name of the file or directory.
    pub cid: Cid,
    /// Bytes of the file; 0 for a directory.
    pub file_size: u64,
    /// Bytes of all its blocks, counting a block as often as it is linked.
    pub dag_size: u64,
}

/// A sink that takes every block of an import, children before parents.
pub trait BlockSink {
    type Error;

    fn put_block(&mut self, cid: &Cid, block: &[u8]) -> Result<(), Self::Error>;
}

impl<E, F: FnMut(&Cid, &[u8]) -> Result<(), E>> BlockSink for F {
    type Error = E;

    fn put_block(&mut self, cid: &Cid, block: &[u8]) -> Result<(), E> {
        self(cid, block)
    }
}

/// Why a list of entries is not a directory.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DirectoryError {
    #[error("{0:?} cannot be a name in a directory")]
    Name(String),
    #[error("a directory has two entries named {0:?}")]
    Duplicate(String),
    #[error("{0:?} and {1:?} cannot be in one directory of this size: their hashes are the same")]
    Collision(String, String),
}

/// Why a directory is not finished.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FinishError<E> {
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    #[error("cannot keep a block: {0}")]
    Sink(E),
}

impl Profile {
    /// `unixfs-v1-2025`: CIDv1, raw leaves, chunks of 1 MiB, 1024 links a node. The default everywhere.
    pub const V1_2025: Self = Self {
        version: Version::V1,
        chunk_size: 1024 * 1024,
        links_max: 1024,
        plain_directory_size_max: PLAIN_DIRECTORY_SIZE_MAX,
    };
    /// `unixfs-v0-2015`: CIDv0, dag-pb leaves, chunks of 256 KiB, 174 links a node.
    pub const V0_2015: Self = Self { version: Version::V0, chunk_size: 256 * 1024, links_max: 174, ..Self::V1_2025 };

    /// The same profile with other sizes: `chunk_size` in bytes, held within 1..=[`CHUNK_SIZE_MAX`], and `links_max`,
    /// held within 2..=[`LINKS_MAX`]. CIDs differ from those of the named profile for files of more than one chunk.
    pub fn with_sizes(self, chunk_size: usize, links_max: usize) -> Self {
        Self { chunk_size: chunk_size.clamp(1, CHUNK_SIZE_MAX), links_max: links_max.clamp(2, LINKS_MAX), ..self }
    }

    /// The same profile with directories in shards above another size in bytes, held within 0..=1 MiB. CIDs differ from
    /// those of the named profile for directories between the two sizes.
    pub fn with_shards_above(self, size: usize) -> Self {
        Self { plain_directory_size_max: size.min(BLOCK_SIZE_MAX / 2), ..self }
    }

    /// How CIDs of nodes are written.
    pub const fn version(&self) -> Version {
        self.version
    }

    /// Bytes in a chunk.
    pub const fn chunk_size(&self) -> usize {
        self.chunk_size
    }

    /// Links in a file node.
    pub const fn links_max(&self) -> usize {
        self.links_max
    }

    pub(crate) fn put_node<S: BlockSink>(&self, node: &Node, sink: &mut S) -> Result<Imported, S::Error> {
        let block = node.encode();
        let cid = Cid::of_dag_pb_block(self.version, &block);
        sink.put_block(&cid, &block)?;
        let links_size = node.links.iter().fold(0u64, |sum, link| sum.saturating_add(link.dag_size));
        Ok(Imported {
            cid,
            file_size: node.file_size().unwrap_or(u64::MAX),
            dag_size: links_size.saturating_add(block.len() as u64),
        })
    }

    fn put_leaf<S: BlockSink>(&self, chunk: &[u8], sink: &mut S) -> Result<Imported, S::Error> {
        if self.version == Version::V0 {
            return self.put_node(&Node::file(chunk.to_vec(), Vec::new(), Vec::new()), sink);
        }
        let cid = Cid::of_raw_block(chunk);
        sink.put_block(&cid, chunk)?;
        Ok(Imported { cid, file_size: chunk.len() as u64, dag_size: chunk.len() as u64 })
    }

    fn put_parent<S: BlockSink>(&self, children: Vec<Imported>, sink: &mut S) -> Result<Imported, S::Error> {
        let sizes = children.iter().map(|child| child.file_size).collect();
        let links = children.iter().map(|child| child.link(String::new())).collect();
        self.put_node(&Node::file(Vec::new(), links, sizes), sink)
    }
}

impl Default for Profile {
    fn default() -> Self {
        Self::V1_2025
    }
}

impl Imported {
    pub(crate) fn link(&self, name: String) -> Link {
        Link { cid: self.cid, name, dag_size: self.dag_size }
    }
}

/// Imports one file that arrives in pieces. Holds one chunk and the names of the unfinished row of each level.
#[derive(Debug)]
pub struct FileImporter {
    profile: Profile,
    chunk: Vec<u8>,
    /// Level 0 holds leaves. Each level is shorter than `links_max`.
    levels: Vec<Vec<Imported>>,
}

impl FileImporter {
    pub fn new(profile: Profile) -> Self {
        Self { profile, chunk: Vec::new(), levels: Vec::new() }
    }

    /// Takes the next bytes of the file; every block that gets complete goes to `sink`.
    pub fn push<S: BlockSink>(&mut self, mut bytes: &[u8], sink: &mut S) -> Result<(), S::Error> {
        let chunk_size = self.profile.chunk_size;
        while !bytes.is_empty() {
            // Whole chunks are taken where they lie.
            if self.chunk.is_empty() && bytes.len() >= chunk_size {
                let (chunk, rest) = bytes.split_at(chunk_size);
                let leaf = self.profile.put_leaf(chunk, sink)?;
                self.add(leaf, sink)?;
                bytes = rest;
                continue;
            }
            let (piece, rest) = bytes.split_at(bytes.len().min(chunk_size - self.chunk.len()));
            self.chunk.extend_from_slice(piece);
            bytes = rest;
            if self.chunk.len() == chunk_size {
                self.flush(sink)?;
            }
        }
        Ok(())
    }

    /// Ends the file: the last blocks go to `sink`.
    pub fn finish<S: BlockSink>(mut self, sink: &mut S) -> Result<Imported, S::Error> {
        if !self.chunk.is_empty() || self.levels.is_empty() {
            self.flush(sink)?;
        }
        let mut level = 0;
        loop {
            let is_top = level + 1 == self.levels.len();
            if is_top && let [root] = self.levels[level][..] {
                return Ok(root);
            }
            let row = std::mem::take(&mut self.levels[level]);
            level += 1;
            if !row.is_empty() {
                let parent = self.profile.put_parent(row, sink)?;
                self.level(level).push(parent);
            }
        }
    }

    fn flush<S: BlockSink>(&mut self, sink: &mut S) -> Result<(), S::Error> {
        let leaf = self.profile.put_leaf(&self.chunk, sink)?;
        self.chunk.clear();
        self.add(leaf, sink)
    }

    fn add<S: BlockSink>(&mut self, leaf: Imported, sink: &mut S) -> Result<(), S::Error> {
        let (mut level, mut node) = (0, leaf);
        loop {
            let links_max = self.profile.links_max;
            let row = self.level(level);
            row.push(node);
            if row.len() < links_max {
                return Ok(());
            }
            let row = std::mem::take(row);
            node = self.profile.put_parent(row, sink)?;
            level += 1;
        }
    }

    fn level(&mut self, level: usize) -> &mut Vec<Imported> {
        if self.levels.len() <= level {
            self.levels.resize_with(level + 1, Vec::new);
        }
        &mut self.levels[level]
    }
}

/// Collects the entries of one directory.
#[derive(Clone, Debug)]
pub struct DirectoryImporter {
    profile: Profile,
    entries: BTreeMap<String, Imported>,
    size: usize,
}

impl DirectoryImporter {
    pub fn new(profile: Profile) -> Self {
        // The frame of a node without links.
        let size = if profile.version == Version::V0 { 0 } else { 4 };
        Self { profile, entries: BTreeMap::new(), size }
    }

    /// Adds an entry; on an error nothing changes.
    pub fn add(&mut self, name: &str, entry: Imported) -> Result<(), DirectoryError> {
        if !is_entry_name(name) {
            return Err(DirectoryError::Name(name.to_owned()));
        }
        if self.entries.contains_key(name) {
            return Err(DirectoryError::Duplicate(name.to_owned()));
        }
        self.size += self.link_size(name, &entry);
        self.entries.insert(name.to_owned(), entry);
        Ok(())
    }

    /// Makes the node of the directory, or its shards.
    pub fn finish<S: BlockSink>(self, sink: &mut S) -> Result<Imported, FinishError<S::Error>> {
        if self.size > self.profile.plain_directory_size_max {
            return hamt::import(&self.profile, self.entries, sink);
        }
        let links = self.entries.into_iter().map(|(name, entry)| entry.link(name)).collect();
        self.profile.put_node(&Node::directory(links), sink).map_err(FinishError::Sink)
    }

    /// What an entry adds to the size by which the profile decides on sharding: name and CID alone in 2015, the
    /// encoded link in 2025.
    fn link_size(&self, name: &str, entry: &Imported) -> usize {
        match self.profile.version {
            Version::V0 => name.len() + entry.cid.to_bytes().len(),
            Version::V1 => entry.link(name.to_owned()).encoded_size(),
        }
    }
}

/// The name of a file with these bytes, under [`Profile::V1_2025`].
pub fn file_cid(bytes: &[u8]) -> Cid {
    import_bytes(Profile::V1_2025, bytes, &mut nowhere).map_or_else(|never| match never {}, |imported| imported.cid)
}

/// Imports a file that lies in memory.
pub fn import_bytes<S: BlockSink>(profile: Profile, bytes: &[u8], sink: &mut S) -> Result<Imported, S::Error> {
    let mut importer = FileImporter::new(profile);
    importer.push(bytes, sink)?;
    importer.finish(sink)
}

/// A sink that keeps nothing, for who wants the name only.
pub fn nowhere(_: &Cid, _: &[u8]) -> Result<(), Infallible> {
    Ok(())
}

/// Whether `name` can stand in a directory: 1 to [`NAME_SIZE_MAX`] bytes, no `/`, no zero, neither `.` nor `..`.
pub fn is_entry_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= NAME_SIZE_MAX && !name.contains(['/', '\0']) && name != "." && name != ".."
}
