//! Reading directories, plain and in shards: what lies in them, and what a path leads to.
//!
//! [`ListWalk`] and [`PathWalk`] do no I/O, as the other walks of this crate: they say which block they want and take it.
//! The functions here go over a [`BlockStore`] with them.
//!
//! Of a directory in shards a listing takes all shards, a path only those on the way to its entry. Both believe a shard
//! only where the hashes of names say so: an entry that lies elsewhere is an error, so that nothing is listed that a
//! path does not find, and no few shards can describe endlessly many entries.

use std::vec;

use crate::{
    Cid, Codec,
    dag_pb::{Kind, Link, ShardError},
    hamt::{Shard, Slots, Taken, digest},
    read::{ReadError, check_received, decode_node, get},
    store::BlockStore,
    unixfs::is_entry_name,
};

/// Most names in a path.
pub const PATH_DEPTH_MAX: usize = 64;
/// Most entries of a directory that is listed, unless a caller says otherwise.
pub const ENTRIES_MAX: usize = 1 << 20;

/// An entry of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub name: String,
    pub cid: Cid,
    /// Bytes of all blocks of the entry, as its maker said: a hint that nothing verifies.
    pub dag_size: u64,
}

impl From<Link> for Entry {
    fn from(link: Link) -> Self {
        Self { name: link.name, cid: link.cid, dag_size: link.dag_size }
    }
}

/// The entries of a directory, at most [`ENTRIES_MAX`], in the order of their names.
pub fn list<S: BlockStore + ?Sized>(store: &S, cid: &Cid) -> Result<Vec<Entry>, ReadError> {
    list_at_most(store, cid, ENTRIES_MAX)
}

/// The same for directories of at most `entries_max` entries.
pub fn list_at_most<S: BlockStore + ?Sized>(store: &S, cid: &Cid, entries_max: usize) -> Result<Vec<Entry>, ReadError> {
    let mut walk = ListWalk::new(*cid, entries_max);
    while let Some(cid) = walk.wanted() {
        walk.take(&get(store, &cid)?)?;
    }
    Ok(walk.into_entries())
}

/// What lies at `path` below `root`. Names are parted by `/`; empty ones are passed over.
pub fn resolve<S: BlockStore + ?Sized>(store: &S, root: &Cid, path: &str) -> Result<Cid, ReadError> {
    Ok(resolve_path(store, root, path)?.end)
}

/// What lies at `path` below `root`, and what is on the way.
pub fn resolve_path<S: BlockStore + ?Sized>(store: &S, root: &Cid, path: &str) -> Result<ResolvedPath, ReadError> {
    let mut walk = PathWalk::new(*root, path)?;
    while let Some(cid) = walk.wanted() {
        walk.take(&get(store, &cid)?)?;
    }
    Ok(walk.into_path())
}

/// A directory of one node, or a shard.
enum DirectoryNode {
    Plain {
        entries: Vec<Entry>,
        /// Entries that are named in a way that is not known here.
        foreign: Vec<String>,
    },
    Shard(Shard),
}

/// Reads a received block of a directory and checks its hash.
fn decode_directory(cid: Cid, block: &[u8]) -> Result<DirectoryNode, ReadError> {
    check_received(&cid, block)?;
    if cid.codec() == Codec::Raw {
        return Err(ReadError::NotADirectory { cid });
    }
    let node = decode_node(&cid, block)?;
    match node.kind {
        Kind::File | Kind::RawLeaf => Err(ReadError::NotADirectory { cid }),
        Kind::Shard { .. } => Ok(DirectoryNode::Shard(Shard::of_node(node).map_err(|error| malformed(cid, error))?)),
        Kind::Directory => {
            let mut entries: Vec<_> = node.links.into_iter().map(Entry::from).collect();
            entries.sort_by(|left, right| left.name.cmp(&right.name));
            let mut names: Vec<_> = entries.iter().map(|entry| &entry.name).chain(&node.foreign).collect();
            names.sort();
            for (index, name) in names.iter().enumerate() {
                let is_repeated = index > 0 && names[index - 1] == *name;
                if is_repeated || !is_entry_name(name) {
                    return Err(ReadError::EntryName { cid, name: (*name).clone() });
                }
            }
            Ok(DirectoryNode::Plain { entries, foreign: node.foreign })
        }
    }
}

fn malformed(cid: Cid, error: ShardError) -> ReadError {
    ReadError::Node { cid, source: error.into() }
}

/// Where a shard lies in its directory.
#[derive(Clone, Copy, Debug)]
struct Place {
    cid: Cid,
    depth: u32,
    /// The slots that lead there: the first bits of the digests of all names below, then zeros.
    prefix: u64,
    /// Those of the root, which all shards share; `None` for the root.
    slots: Option<Slots>,
}

impl Place {
    fn root(cid: Cid) -> Self {
        Self { cid, depth: 0, prefix: 0, slots: None }
    }

    /// Checks that a node can lie here.
    fn check(&self, node: &DirectoryNode) -> Result<(), ReadError> {
        let Some(slots) = self.slots else { return Ok(()) };
        match node {
            // A shard leads to shards only.
            DirectoryNode::Plain { .. } => Err(malformed(self.cid, ShardError::Kind)),
            DirectoryNode::Shard(shard) if slots != shard.slots => Err(malformed(self.cid, ShardError::OtherFanout)),
            DirectoryNode::Shard(shard) if shard.taken.is_empty() => Err(malformed(self.cid, ShardError::Empty)),
            DirectoryNode::Shard(_) => Ok(()),
        }
    }

    /// Where the shard behind a link of a shard here lies.
    fn below(&self, slots: Slots, slot: u32, link: &Link) -> Result<Self, ReadError> {
        let depth = self.depth + 1;
        if depth == slots.depth_max() {
            return Err(malformed(link.cid, ShardError::TooDeep));
        }
        Ok(Self { cid: link.cid, depth, prefix: self.prefix | slots.prefix(slot, self.depth), slots: Some(slots) })
    }

    /// The entry behind a link of a shard here, if its name is one and belongs here.
    fn entry(&self, slots: Slots, slot: u32, link: Link) -> Result<Entry, ReadError> {
        let prefix = self.prefix | slots.prefix(slot, self.depth);
        if !is_entry_name(&link.name) || !slots.agree(digest(&link.name), prefix, self.depth) {
            return Err(ReadError::EntryName { cid: self.cid, name: link.name });
        }
        Ok(link.into())
    }
}

/// Walks over the blocks of a directory to list it.
#[derive(Clone, Debug)]
pub struct ListWalk {
    root: Cid,
    /// Shards to visit, the next one last.
    stack: Vec<Place>,
    entries: Vec<Entry>,
    entries_max: usize,
}

impl ListWalk {
    /// Will list `root`, and fail if it has more than `entries_max` entries.
    pub fn new(root: Cid, entries_max: usize) -> Self {
        Self { root, stack: vec![Place::root(root)], entries: Vec::new(), entries_max }
    }

    /// The block to be given to [`Self::take`]; `None` at the end.
    pub fn wanted(&self) -> Option<Cid> {
        self.stack.last().map(|place| place.cid)
    }

    /// Takes the wanted block. On an error nothing changes.
    pub fn take(&mut self, block: &[u8]) -> Result<(), ReadError> {
        let Some(&place) = self.stack.last() else {
            return Ok(());
        };
        let (mut entries, mut shards) = (Vec::new(), Vec::new());
        let foreign = |name| Err(ReadError::Foreign { cid: place.cid, name });
        let node = decode_directory(place.cid, block)?;
        place.check(&node)?;
        match node {
            DirectoryNode::Plain { entries: all, foreign: names } => match names.into_iter().next() {
                Some(name) => return foreign(name),
                None => entries = all,
            },
            DirectoryNode::Shard(shard) => {
                for (slot, taken) in shard.taken {
                    match taken {
                        Taken::Entry(link) => entries.push(place.entry(shard.slots, slot, link)?),
                        Taken::Shard(link) => shards.push(place.below(shard.slots, slot, &link)?),
                        Taken::Foreign(name) => return foreign(name),
                    }
                }
            }
        }
        if self.entries.len() + entries.len() > self.entries_max {
            return Err(ReadError::TooManyEntries { cid: self.root, entries_max: self.entries_max });
        }
        self.stack.pop();
        self.entries.append(&mut entries);
        self.stack.extend(shards.into_iter().rev());
        Ok(())
    }

    /// What was found, in the order of names.
    pub fn into_entries(mut self) -> Vec<Entry> {
        // Those of shards are in the order of their digests, and none is there twice: equal names have one place.
        self.entries.sort_unstable_by(|left, right| left.name.cmp(&right.name));
        self.entries
    }
}

/// What a path leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolvedPath {
    /// The names of the directories on the way, the root first.
    pub directories: Vec<Cid>,
    /// The names of the blocks that it took to find the way: those of `directories`, and shards.
    pub blocks: Vec<Cid>,
    /// The name of what lies at the end.
    pub end: Cid,
}

impl ResolvedPath {
    /// The names on the way: of each directory, of what lies at the end.
    pub fn roots(&self) -> impl Iterator<Item = &Cid> {
        self.directories.iter().chain([&self.end])
    }
}

/// Walks along a path.
#[derive(Clone, Debug)]
pub struct PathWalk {
    /// What is looked for where the walk is.
    name: Option<String>,
    /// What is looked for after that.
    names: vec::IntoIter<String>,
    place: Place,
    directories: Vec<Cid>,
    blocks: Vec<Cid>,
}

impl PathWalk {
    /// Will follow `path` from `root`. Names are parted by `/`; empty ones are passed over.
    pub fn new(root: Cid, path: &str) -> Result<Self, ReadError> {
        let names: Vec<_> = path.split('/').filter(|name| !name.is_empty()).map(str::to_owned).collect();
        if names.len() > PATH_DEPTH_MAX {
            return Err(ReadError::PathTooDeep);
        }
        let mut names = names.into_iter();
        Ok(Self { name: names.next(), names, place: Place::root(root), directories: Vec::new(), blocks: Vec::new() })
    }

    /// The block to be given to [`Self::take`]; `None` at the end, of which no block is wanted.
    pub fn wanted(&self) -> Option<Cid> {
        self.name.is_some().then_some(self.place.cid)
    }

    /// Takes the wanted block. On an error nothing changes.
    pub fn take(&mut self, block: &[u8]) -> Result<(), ReadError> {
        let Some(name) = &self.name else {
            return Ok(());
        };
        let place = self.place;
        let directory = match place.slots {
            None => place.cid,
            Some(_) => self.directories.last().copied().unwrap_or(place.cid),
        };
        let no_entry = || ReadError::NoEntry { cid: directory, name: name.clone() };
        let foreign = || ReadError::Foreign { cid: directory, name: name.clone() };
        let node = decode_directory(place.cid, block)?;
        place.check(&node)?;
        let next = match node {
            DirectoryNode::Plain { foreign: names, .. } if names.contains(name) => return Err(foreign()),
            DirectoryNode::Plain { entries, .. } => {
                let entry = entries.into_iter().find(|entry| entry.name == *name);
                Place::root(entry.ok_or_else(no_entry)?.cid)
            }
            DirectoryNode::Shard(shard) => {
                let slot = shard.slots.of(digest(name), place.depth);
                match shard.taken.into_iter().find(|(taken, _)| *taken == slot) {
                    Some((_, Taken::Shard(link))) => place.below(shard.slots, slot, &link)?,
                    Some((_, Taken::Entry(link))) if link.name == *name => {
                        Place::root(place.entry(shard.slots, slot, link)?.cid)
                    }
                    // Without a name it is a shard, and the entry may lie below it.
                    Some((_, Taken::Foreign(other))) if other == *name || other.is_empty() => return Err(foreign()),
                    _ => return Err(no_entry()),
                }
            }
        };
        self.blocks.push(place.cid);
        if place.slots.is_none() {
            self.directories.push(place.cid);
        }
        if next.slots.is_none() {
            self.name = self.names.next();
        }
        self.place = next;
        Ok(())
    }

    /// What was found.
    pub fn into_path(self) -> ResolvedPath {
        ResolvedPath { directories: self.directories, blocks: self.blocks, end: self.place.cid }
    }
}
