//! Reading files out of blocks that nobody vouches for.
//!
//! [`FileWalk`] is the core, as [`PathWalk`](crate::directory::PathWalk) is of directories and
//! [`DagWalk`](crate::traversal::DagWalk) of everything below a name: it says which block it wants next, takes its
//! bytes, checks its hash and goes on. It does no I/O, so the functions over a [`BlockStore`] here and the client over
//! HTTP read in the same way. A block that fails its check leaves the walk as it was, so that the block can be had from
//! elsewhere.
//!
//! Bounds: at most `size_max` bytes come out of a file, its tree is at most [`DEPTH_MAX`] deep, the sizes that a node
//! gives for what lies below it hold exactly, and parts that are empty or outside the wanted range are not visited.

use std::{io, ops::Range};

use crate::{
    BLOCK_SIZE_MAX, Cid, Codec,
    dag_pb::{Kind, Node, NodeError},
    directory::PATH_DEPTH_MAX,
    store::{BlockStore, StoreError},
};

/// Most levels of nodes between the root of a file and a leaf.
pub const DEPTH_MAX: u32 = 32;

/// Why content cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("block {cid} is not here")]
    Missing { cid: Cid },
    #[error("the bytes received for block {cid} have another hash")]
    Corrupt { cid: Cid },
    #[error("block {cid}: {source}")]
    Node { cid: Cid, source: NodeError },
    #[error("block {cid} holds another size than the node above it says")]
    Size { cid: Cid },
    #[error("block {cid} lies more than {DEPTH_MAX} levels deep in its file")]
    TooDeep { cid: Cid },
    #[error("{cid} has {size} bytes to read, more than {size_max}")]
    TooLarge { cid: Cid, size: u64, size_max: u64 },
    #[error("everything below {cid} has more than {bytes_max} bytes")]
    DagTooLarge { cid: Cid, bytes_max: u64 },
    #[error("there are more than {blocks_max} blocks below {cid}")]
    DagTooMany { cid: Cid, blocks_max: u64 },
    #[error("block {cid} lies more than {depth_max} links below the root")]
    DagTooDeep { cid: Cid, depth_max: u32 },
    #[error("the blocks below {cid} have too many links")]
    DagTooWide { cid: Cid },
    #[error("{cid} is a directory, not a file")]
    NotAFile { cid: Cid },
    #[error("{cid} is a file, not a directory")]
    NotADirectory { cid: Cid },
    #[error("directory {cid} has no entry {name:?}")]
    NoEntry { cid: Cid, name: String },
    #[error("directory {cid} has an entry {name:?}, which is no name, not the only one or not where it belongs")]
    EntryName { cid: Cid, name: String },
    #[error("{name:?} in directory {cid} is named by another hash or codec than are read here")]
    Foreign { cid: Cid, name: String },
    #[error("path has more than {PATH_DEPTH_MAX} names")]
    PathTooDeep,
    #[error("directory {cid} has more than {entries_max} entries")]
    TooManyEntries { cid: Cid, entries_max: usize },
    #[error("with directory {cid} there are too many files and directories to write")]
    TooManyFiles { cid: Cid },
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("cannot write what was read: {0}")]
    Target(io::Error),
}

/// What a name leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Object {
    /// A file of `size` bytes.
    File { size: u64 },
    /// A directory, of one block or in shards.
    Directory,
}

/// Walks over the blocks of a file, in the order of its bytes.
#[derive(Clone, Debug)]
pub struct FileWalk {
    /// Blocks to visit, the next one last.
    stack: Vec<Pending>,
    range: Range<u64>,
    size_max: u64,
    file_size: Option<u64>,
}

#[derive(Clone, Copy, Debug)]
struct Pending {
    cid: Cid,
    depth: u32,
    /// Where the bytes below this block start in the file.
    start: u64,
    /// How many they are, as the node above says; nothing is above the root.
    size: Option<u64>,
}

impl FileWalk {
    /// Will read the bytes of `range` that the file has, and fail if these are more than `size_max`.
    pub fn new(root: Cid, range: Range<u64>, size_max: u64) -> Self {
        let root = Pending { cid: root, depth: 0, start: 0, size: None };
        Self { stack: vec![root], range, size_max, file_size: None }
    }

    /// The block to be given to [`Self::take`]; `None` at the end.
    pub fn wanted(&self) -> Option<Cid> {
        self.stack.last().map(|pending| pending.cid)
    }

    /// Bytes of the whole file; known once its root was taken.
    pub fn file_size(&self) -> Option<u64> {
        self.file_size
    }

    /// Takes the wanted block and gives the next bytes of the file, possibly none. On an error nothing changes.
    pub fn take(&mut self, block: &[u8]) -> Result<Vec<u8>, ReadError> {
        let Some(&pending) = self.stack.last() else {
            return Ok(Vec::new());
        };
        let cid = pending.cid;
        check_received(&cid, block)?;
        let node = match cid.codec() {
            Codec::Raw => None,
            Codec::DagPb => Some(decode_node(&cid, block)?),
        };
        let (data, size) = match &node {
            None => (block, block.len() as u64),
            Some(node) if node.kind.is_directory() => return Err(ReadError::NotAFile { cid }),
            Some(node) => (&node.data[..], node.file_size().ok_or(ReadError::Size { cid })?),
        };
        if pending.size.is_some_and(|expected| expected != size) {
            return Err(ReadError::Size { cid });
        }
        if pending.depth > DEPTH_MAX {
            return Err(ReadError::TooDeep { cid });
        }
        let mut range = self.range.clone();
        if pending.size.is_none() {
            range.end = range.end.min(size);
        }
        let wanted_size = range.end.saturating_sub(range.start);
        if wanted_size > self.size_max {
            return Err(ReadError::TooLarge { cid, size: wanted_size, size_max: self.size_max });
        }

        self.stack.pop();
        self.range = range;
        self.file_size.get_or_insert(size);
        if let Some(node) = &node {
            self.push_children(pending, node);
        }
        Ok(overlap(&self.range, pending.start, data).to_vec())
    }

    fn push_children(&mut self, parent: Pending, node: &Node) {
        let first = self.stack.len();
        let mut start = parent.start + node.data.len() as u64;
        for (link, &size) in node.links.iter().zip(&node.link_file_sizes) {
            let end = start + size;
            if size > 0 && start < self.range.end && end > self.range.start {
                self.stack.push(Pending { cid: link.cid, depth: parent.depth + 1, start, size: Some(size) });
            }
            start = end;
        }
        self.stack[first..].reverse();
    }
}

/// The part of `data`, which starts at `start` in the file, that lies in `range`.
fn overlap<'a>(range: &Range<u64>, start: u64, data: &'a [u8]) -> &'a [u8] {
    let size = data.len() as u64;
    let from = range.start.saturating_sub(start).min(size);
    let to = range.end.saturating_sub(start).min(size);
    // Both are at most the length of `data`.
    data.get(from as usize..to as usize).unwrap_or_default()
}

pub(crate) fn check_received(cid: &Cid, block: &[u8]) -> Result<(), ReadError> {
    if block.len() > BLOCK_SIZE_MAX || !cid.names(block) {
        return Err(ReadError::Corrupt { cid: *cid });
    }
    Ok(())
}

pub(crate) fn decode_node(cid: &Cid, block: &[u8]) -> Result<Node, ReadError> {
    Node::decode(block).map_err(|source| ReadError::Node { cid: *cid, source })
}

pub(crate) fn get<S: BlockStore + ?Sized>(store: &S, cid: &Cid) -> Result<Vec<u8>, ReadError> {
    store.get(cid)?.ok_or(ReadError::Missing { cid: *cid })
}

/// What a received block is, its hash verified.
pub fn object_of(cid: &Cid, block: &[u8]) -> Result<Object, ReadError> {
    check_received(cid, block)?;
    if cid.codec() == Codec::Raw {
        return Ok(Object::File { size: block.len() as u64 });
    }
    let node = decode_node(cid, block)?;
    match node.kind {
        Kind::Directory | Kind::Shard { .. } => Ok(Object::Directory),
        Kind::File | Kind::RawLeaf => Ok(Object::File { size: node.file_size().ok_or(ReadError::Size { cid: *cid })? }),
    }
}

/// What `cid` leads to.
pub fn stat<S: BlockStore + ?Sized>(store: &S, cid: &Cid) -> Result<Object, ReadError> {
    object_of(cid, &get(store, cid)?)
}

/// The bytes of a file of at most `size_max` bytes.
pub fn read_file<S: BlockStore + ?Sized>(store: &S, cid: &Cid, size_max: u64) -> Result<Vec<u8>, ReadError> {
    read_range(store, cid, 0..u64::MAX, size_max)
}

/// The bytes of a file that lie in `range`, at most `size_max` of them. A range beyond the end gives fewer or none.
pub fn read_range<S: BlockStore + ?Sized>(
    store: &S,
    cid: &Cid,
    range: Range<u64>,
    size_max: u64,
) -> Result<Vec<u8>, ReadError> {
    let mut bytes = Vec::new();
    for chunk in FileReader::open(store, cid, range, size_max)? {
        bytes.extend(chunk?);
    }
    Ok(bytes)
}

/// Writes the bytes of a file of at most `size_max` bytes to `target`, one block at a time; gives their number.
pub fn copy_file<S: BlockStore + ?Sized>(
    store: &S,
    cid: &Cid,
    size_max: u64,
    mut target: impl io::Write,
) -> Result<u64, ReadError> {
    let mut size = 0;
    for chunk in FileReader::open(store, cid, 0..u64::MAX, size_max)? {
        let chunk = chunk?;
        target.write_all(&chunk).map_err(ReadError::Target)?;
        size += chunk.len() as u64;
    }
    Ok(size)
}

/// The pieces of a file, in order, none of them empty. Ends after the first error.
#[derive(Debug)]
pub struct FileReader<S> {
    store: S,
    walk: FileWalk,
    first: Vec<u8>,
    is_failed: bool,
}

impl<S: BlockStore> FileReader<S> {
    /// Reads the root of the file; see [`FileWalk::new`].
    pub fn open(store: S, cid: &Cid, range: Range<u64>, size_max: u64) -> Result<Self, ReadError> {
        let mut walk = FileWalk::new(*cid, range, size_max);
        let first = walk.take(&get(&store, cid)?)?;
        Ok(Self { store, walk, first, is_failed: false })
    }

    /// Bytes of the whole file, whatever the range.
    pub fn file_size(&self) -> u64 {
        self.walk.file_size().unwrap_or_default()
    }
}

impl<S: BlockStore> Iterator for FileReader<S> {
    type Item = Result<Vec<u8>, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_failed {
            return None;
        }
        if !self.first.is_empty() {
            return Some(Ok(std::mem::take(&mut self.first)));
        }
        while let Some(cid) = self.walk.wanted() {
            let taken = get(&self.store, &cid).and_then(|block| self.walk.take(&block));
            self.is_failed = taken.is_err();
            if taken.as_ref().is_ok_and(Vec::is_empty) {
                continue;
            }
            return Some(taken);
        }
        None
    }
}
