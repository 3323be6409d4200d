//! Walks over the blocks below a root, depth first: all of them, or those that a question is about.
//!
//! The order is that of a reader who follows every link as soon as it is seen: a block, then everything below its first
//! link, then everything below its second. A block that was visited is not visited again, unless that is asked for.
//! Equal roots, scopes and choices give equal orders, here as in other implementations, which call it `dfs`.
//!
//! [`DagWalk`] does no I/O: it says which block it wants and takes it. [`Traversal`] walks over a store, along a path
//! first.

use std::{collections::BTreeSet, ops::Range};

use crate::{
    Cid, Codec,
    dag_pb::{self, Kind, Node, NodeError},
    directory::{ResolvedPath, resolve_path},
    hamt::{Shard, Taken},
    read::{ReadError, check_received, decode_node, get},
    store::BlockStore,
};

/// Most links that a walk has before it at a time; nodes of hostile makers could fill the memory.
pub const PENDING_MAX: usize = 1 << 22;
/// Deepest walk in links, unless a caller says otherwise. Real files and directories are far below.
pub const WALK_DEPTH_MAX: u32 = 1024;

/// Which blocks below a root a question is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The root alone.
    Block,
    /// What it takes to read a file whole, or to list a directory.
    Entity,
    /// What it takes to read these bytes of a file; of anything else the same as [`Scope::Entity`].
    Bytes(Range<u64>),
    /// Everything.
    All,
}

/// How far a walk goes before it is an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DagBounds {
    /// Bytes of all blocks together.
    pub bytes_max: u64,
    /// Number of blocks.
    pub blocks_max: u64,
    /// Links between the root and a block.
    pub depth_max: u32,
}

impl Default for DagBounds {
    fn default() -> Self {
        Self { bytes_max: u64::MAX, blocks_max: u64::MAX, depth_max: WALK_DEPTH_MAX }
    }
}

/// What of the links of a block is to be followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    None,
    Entity,
    /// The bytes below the block start here in the file.
    Bytes(u64),
    All,
}

#[derive(Clone, Copy, Debug)]
struct Pending {
    cid: Cid,
    depth: u32,
    part: Part,
}

/// Walks over blocks below a root, whatever the tree is made of.
#[derive(Clone, Debug)]
pub struct DagWalk {
    root: Cid,
    /// Blocks to visit, the next one last.
    stack: Vec<Pending>,
    /// What was visited; `None` if blocks are visited as often as they are linked.
    seen: Option<BTreeSet<(Cid, Part)>>,
    range: Range<u64>,
    bounds: DagBounds,
    bytes: u64,
    blocks: u64,
}

impl DagWalk {
    /// Walks over everything below `root`, and fails once the blocks have more than `bytes_max` bytes together.
    pub fn new(root: Cid, bytes_max: u64) -> Self {
        Self::over(root, Scope::All, false, DagBounds { bytes_max, ..DagBounds::default() })
    }

    /// Walks over the blocks of a scope, each once or, if `has_dups`, as often as it is linked.
    pub fn over(root: Cid, scope: Scope, has_dups: bool, bounds: DagBounds) -> Self {
        let (part, range) = match scope {
            Scope::Block => (Part::None, 0..0),
            Scope::Entity => (Part::Entity, 0..0),
            Scope::Bytes(range) => (Part::Bytes(0), range),
            Scope::All => (Part::All, 0..0),
        };
        let stack = vec![Pending { cid: root, depth: 0, part }];
        let seen = (!has_dups).then(BTreeSet::new);
        Self { root, stack, seen, range, bounds, bytes: 0, blocks: 0 }
    }

    /// The block to be given to [`Self::take`]; `None` at the end.
    pub fn wanted(&self) -> Option<Cid> {
        self.stack.last().map(|pending| pending.cid)
    }

    /// Up to `count` names of plain bytes that come next, each once: nothing lies below them, so they can be had in any
    /// order.
    pub fn wanted_leaves(&self, count: usize) -> Vec<Cid> {
        let mut leaves = Vec::new();
        // A node that repeats one leaf must not make this long.
        for pending in self.stack.iter().rev().take(count.saturating_mul(4)) {
            if pending.cid.codec() != Codec::Raw || leaves.len() == count {
                break;
            }
            if !self.is_seen(pending) && !leaves.contains(&pending.cid) {
                leaves.push(pending.cid);
            }
        }
        leaves
    }

    /// Whether the wanted block was taken before: a part of it may have to be visited again for other bytes below it.
    pub fn is_repeated(&self) -> bool {
        let (Some(pending), Some(seen)) = (self.stack.last(), &self.seen) else {
            return false;
        };
        seen.range((pending.cid, Part::None)..=(pending.cid, Part::All)).next().is_some()
    }

    /// Bytes of all blocks taken so far.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Number of blocks taken so far.
    pub fn blocks(&self) -> u64 {
        self.blocks
    }

    /// Takes the wanted block. On an error nothing changes.
    pub fn take(&mut self, block: &[u8]) -> Result<(), ReadError> {
        let Some(&pending) = self.stack.last() else {
            return Ok(());
        };
        let cid = pending.cid;
        check_received(&cid, block)?;
        let links = self.links_of(&pending, block)?;
        let DagBounds { bytes_max, blocks_max, depth_max } = self.bounds;
        let bytes = self.bytes + block.len() as u64;
        if bytes > bytes_max {
            return Err(ReadError::DagTooLarge { cid: self.root, bytes_max });
        }
        if self.blocks >= blocks_max {
            return Err(ReadError::DagTooMany { cid: self.root, blocks_max });
        }
        if let Some((below, _)) = links.first()
            && pending.depth >= depth_max
        {
            return Err(ReadError::DagTooDeep { cid: *below, depth_max });
        }
        if self.stack.len() + links.len() > PENDING_MAX {
            return Err(ReadError::DagTooWide { cid: self.root });
        }

        self.bytes = bytes;
        self.blocks += 1;
        self.skip();
        let depth = pending.depth + 1;
        self.stack.extend(links.into_iter().rev().map(|(cid, part)| Pending { cid, depth, part }));
        self.pass_over_seen();
        Ok(())
    }

    /// Goes on without the wanted block and what lies below it.
    pub fn skip(&mut self) {
        if let (Some(pending), Some(seen)) = (self.stack.pop(), &mut self.seen) {
            seen.insert((pending.cid, pending.part));
        }
        self.pass_over_seen();
    }

    fn is_seen(&self, pending: &Pending) -> bool {
        let is_seen = |part| self.seen.as_ref().is_some_and(|seen| seen.contains(&(pending.cid, part)));
        is_seen(Part::All) || is_seen(pending.part)
    }

    fn pass_over_seen(&mut self) {
        while self.stack.last().is_some_and(|pending| self.is_seen(pending)) {
            self.stack.pop();
        }
    }

    /// The links of a block that are to be followed, and how.
    fn links_of(&self, pending: &Pending, block: &[u8]) -> Result<Vec<(Cid, Part)>, ReadError> {
        let cid = pending.cid;
        if cid.codec() == Codec::Raw || pending.part == Part::None {
            return Ok(Vec::new());
        }
        let links = || dag_pb::links_of(block).map_err(|source| ReadError::Node { cid, source });
        if pending.part == Part::All {
            return Ok(links()?.into_iter().map(|link| (link.cid, Part::All)).collect());
        }
        let node = match decode_node(&cid, block) {
            // Something of it would be missing.
            Err(error @ ReadError::Node { source: NodeError::Link(_) | NodeError::Shard(_), .. }) => return Err(error),
            // What is neither file nor directory is one block.
            Err(_) => return Ok(Vec::new()),
            Ok(node) => node,
        };
        Ok(match (node.kind, pending.part) {
            (Kind::Directory, _) => Vec::new(),
            // The names of entries are known once all shards are.
            (Kind::Shard { .. }, _) => {
                let shard = Shard::of_node(node).map_err(|error| ReadError::Node { cid, source: error.into() })?;
                let below = |(_, taken)| match taken {
                    Taken::Shard(link) => Some((link.cid, Part::Entity)),
                    Taken::Entry(_) | Taken::Foreign(_) => None,
                };
                shard.taken.into_iter().filter_map(below).collect()
            }
            (Kind::File | Kind::RawLeaf, Part::Bytes(start)) => self.links_in_range(start, &node),
            (Kind::File | Kind::RawLeaf, _) => node.links.iter().map(|link| (link.cid, Part::All)).collect(),
        })
    }

    fn links_in_range(&self, start: u64, node: &Node) -> Vec<(Cid, Part)> {
        let mut links = Vec::new();
        let mut start = start.saturating_add(node.data.len() as u64);
        for (link, &size) in node.links.iter().zip(&node.link_file_sizes) {
            let end = start.saturating_add(size);
            if start < end && start < self.range.end && end > self.range.start {
                let is_whole = self.range.start <= start && end <= self.range.end;
                links.push((link.cid, if is_whole { Part::All } else { Part::Bytes(start) }));
            }
            start = end;
        }
        links
    }
}

/// Reads the blocks of a scope out of a store: those of the directories along a path, then what lies at its end. Ends
/// after the first error.
#[derive(Debug)]
pub struct Traversal<S> {
    store: S,
    path: ResolvedPath,
    /// How many blocks on the way were given out.
    path_index: usize,
    walk: DagWalk,
    is_failed: bool,
}

impl<S: BlockStore> Traversal<S> {
    /// Follows `path` from `root`; what lies at its end must be here.
    pub fn open(store: S, root: &Cid, path: &str, scope: Scope, has_dups: bool) -> Result<Self, ReadError> {
        let path = resolve_path(&store, root, path)?;
        get(&store, &path.end)?;
        let walk = DagWalk::over(path.end, scope, has_dups, DagBounds::default());
        Ok(Self { store, path, path_index: 0, walk, is_failed: false })
    }

    fn read_next(&mut self) -> Result<Option<(Cid, Vec<u8>)>, ReadError> {
        if let Some(&cid) = self.path.blocks.get(self.path_index) {
            self.path_index += 1;
            return Ok(Some((cid, get(&self.store, &cid)?)));
        }
        while let Some(cid) = self.walk.wanted() {
            let block = get(&self.store, &cid)?;
            let is_repeated = self.walk.is_repeated();
            self.walk.take(&block)?;
            if !is_repeated {
                return Ok(Some((cid, block)));
            }
        }
        Ok(None)
    }
}

impl<S: BlockStore> Iterator for Traversal<S> {
    type Item = Result<(Cid, Vec<u8>), ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_failed {
            return None;
        }
        let next = self.read_next();
        self.is_failed = next.is_err();
        next.transpose()
    }
}
