//! The dag-pb node: links with names and sizes, and a UnixFS message that says what the node is.
//!
//! Both are protobuf. Encoding is canonical (links first, then data; every field in the order of its number), so equal
//! nodes have equal CIDs. Decoding accepts what other implementations write, within bounds, and never panics.
//!
//! ```text
//! node   = { 2: link }* { 1: unixfs }
//! link   = { 1: binary CID } { 2: name } { 3: size of everything below, in bytes }
//! unixfs = { 1: kind } { 2: data }? { 3: file size }? { 4: file size below each link }* { 5: hash }? { 6: fan-out }?
//! ```

use crate::{BLOCK_SIZE_MAX, Cid, CidError, Codec, cid::AnyCid, varint};

/// A node of a file or a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    pub kind: Kind,
    /// Bytes of the file that lie in this node, before those below the links; which slots of a shard are taken. Empty
    /// for directories.
    pub data: Vec<u8>,
    pub links: Vec<Link>,
    /// Names of those links of a directory or shard that lead to what is not known here: other hashes, other codecs,
    /// bytes in the place of a hash. What they stand beside can be read. Not encoded.
    pub foreign: Vec<String>,
    /// Bytes of the file below each link, one for each of `links`. Empty for directories and shards.
    pub link_file_sizes: Vec<u64>,
}

/// What a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A leaf of a file, as old importers wrote it.
    RawLeaf,
    Directory,
    File,
    /// A part of a directory that is too large for one block; module `hamt`.
    Shard {
        /// How many slots it has.
        fanout: u32,
    },
}

/// A pointer to a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    pub cid: Cid,
    /// The name of a directory entry, behind its slot in shards; empty in files.
    pub name: String,
    /// Bytes of all blocks below and at the link together. Only a hint: nothing verifies it.
    pub dag_size: u64,
}

/// The code of murmur3-x64-64, by which entries are put into shards.
const HASH_MURMUR3: u64 = 0x22;

/// Why a block is not a [`Node`] that this crate reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NodeError {
    #[error("block has {0} bytes, more than {BLOCK_SIZE_MAX}")]
    TooLarge(usize),
    #[error("not a dag-pb node with UnixFS data")]
    Malformed,
    #[error("a link is not a known CID: {0}")]
    Link(#[from] CidError),
    #[error("UnixFS kind {0} is not supported: only files and directories are")]
    Kind(u64),
    #[error("malformed shard of a directory: {0}")]
    Shard(#[from] ShardError),
    #[error("file sizes do not add up")]
    Sizes,
}

/// Why a node is no shard, or not one of its directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ShardError {
    #[error("it is no shard")]
    Kind,
    #[error("its hash is not murmur3-x64-64")]
    Hash,
    #[error("its fan-out is not one of 8, 16, …, 1024")]
    Fanout,
    #[error("its fan-out is not that of the root")]
    OtherFanout,
    #[error("a link has no slot, or not as it is written")]
    Slot,
    #[error("two links have one slot")]
    SlotTwice,
    #[error("its links are not in the slots that it says are taken")]
    BitField,
    #[error("it is empty")]
    Empty,
    #[error("it lies too deep")]
    TooDeep,
}

impl Node {
    /// A file node, inner or leaf.
    pub fn file(data: Vec<u8>, links: Vec<Link>, link_file_sizes: Vec<u64>) -> Self {
        Self { kind: Kind::File, data, links, foreign: Vec::new(), link_file_sizes }
    }

    /// A directory node. `links` are to be in the order of their names.
    pub fn directory(links: Vec<Link>) -> Self {
        Self { kind: Kind::Directory, data: Vec::new(), links, foreign: Vec::new(), link_file_sizes: Vec::new() }
    }

    /// A shard of a directory. `links` are to be in the order of their names, `taken` says which slots they have.
    pub fn shard(fanout: u32, taken: Vec<u8>, links: Vec<Link>) -> Self {
        Self { kind: Kind::Shard { fanout }, data: taken, links, foreign: Vec::new(), link_file_sizes: Vec::new() }
    }

    /// Bytes of the file at and below this node, 0 for directories; `None` on overflow.
    pub fn file_size(&self) -> Option<u64> {
        if self.kind.is_directory() {
            return Some(0);
        }
        self.link_file_sizes.iter().try_fold(self.data.len() as u64, |sum, size| sum.checked_add(*size))
    }

    /// The canonical bytes of the node.
    pub fn encode(&self) -> Vec<u8> {
        let mut unixfs = Vec::with_capacity(self.data.len() + 16 + 5 * self.links.len());
        put_number(&mut unixfs, 1, self.kind.number());
        if !self.data.is_empty() {
            put_bytes(&mut unixfs, 2, &self.data);
        }
        if let Kind::Shard { fanout } = self.kind {
            put_number(&mut unixfs, 5, HASH_MURMUR3);
            put_number(&mut unixfs, 6, u64::from(fanout));
        }
        if !self.kind.is_directory() {
            put_number(&mut unixfs, 3, self.file_size().unwrap_or(u64::MAX));
            for size in &self.link_file_sizes {
                put_number(&mut unixfs, 4, *size);
            }
        }

        let mut node = Vec::with_capacity(unixfs.len() + 16 + 64 * self.links.len());
        for link in &self.links {
            link.encode(&mut node);
        }
        put_bytes(&mut node, 1, &unixfs);
        node
    }

    /// Reads a block. The sizes of a file are checked to add up.
    pub fn decode(block: &[u8]) -> Result<Self, NodeError> {
        if block.len() > BLOCK_SIZE_MAX {
            return Err(NodeError::TooLarge(block.len()));
        }
        let (mut links, mut foreign) = (Vec::new(), Vec::new());
        let mut unixfs = None;
        let mut fields = Fields(block);
        while let Some((number, value)) = fields.next()? {
            match (number, value) {
                (1, Value::Bytes(bytes)) if unixfs.is_none() => unixfs = Some(bytes),
                (2, Value::Bytes(bytes)) => match Link::decode(bytes)? {
                    AnyLink::Known(link) => links.push(link),
                    AnyLink::Foreign { name, error, .. } => foreign.push((name, error)),
                },
                _ => return Err(NodeError::Malformed),
            }
        }
        let mut node = Self::from_unixfs(unixfs.ok_or(NodeError::Malformed)?, links)?;
        match foreign.first() {
            // Of a file nothing can be left out.
            Some((_, error)) if !node.kind.is_directory() => Err((*error).into()),
            _ => {
                node.foreign = foreign.into_iter().map(|(name, _)| name).collect();
                Ok(node)
            }
        }
    }

    fn from_unixfs(unixfs: &[u8], links: Vec<Link>) -> Result<Self, NodeError> {
        let (mut kind, mut file_size, mut hash, mut fanout) = (None, None, None, None);
        let (mut data, mut link_file_sizes) = (Vec::new(), Vec::new());
        let mut fields = Fields(unixfs);
        while let Some((number, value)) = fields.next()? {
            match (number, value) {
                (1, Value::Number(number)) => kind = Some(number),
                (2, Value::Bytes(bytes)) => data = bytes.to_vec(),
                (3, Value::Number(number)) => file_size = Some(number),
                (4, Value::Number(number)) => link_file_sizes.push(number),
                (5, Value::Number(number)) => hash = Some(number),
                (6, Value::Number(number)) => fanout = Some(number),
                (1..=6, _) => return Err(NodeError::Malformed),
                // Mode, time: nothing that a reader of bytes needs.
                _ => {}
            }
        }
        let kind = match kind.ok_or(NodeError::Malformed)? {
            0 => Kind::RawLeaf,
            1 => Kind::Directory,
            2 => Kind::File,
            5 if hash != Some(HASH_MURMUR3) => return Err(ShardError::Hash.into()),
            5 => {
                let fanout = fanout.and_then(|fanout| fanout.try_into().ok());
                Kind::Shard { fanout: fanout.ok_or(ShardError::Fanout)? }
            }
            other => return Err(NodeError::Kind(other)),
        };
        let node = Self { kind, data, links, foreign: Vec::new(), link_file_sizes };
        match node.kind {
            Kind::Directory if node.data.is_empty() => return Ok(node),
            Kind::Directory => return Err(NodeError::Malformed),
            Kind::Shard { .. } => return Ok(node),
            Kind::File | Kind::RawLeaf => {}
        }
        if node.links.len() != node.link_file_sizes.len() {
            return Err(NodeError::Sizes);
        }
        let file_size_true = node.file_size().ok_or(NodeError::Sizes)?;
        if file_size.is_some_and(|file_size| file_size != file_size_true) {
            return Err(NodeError::Sizes);
        }
        Ok(node)
    }
}

/// The links of any dag-pb block, whatever its data says: enough to walk over what lies below it. Links that carry
/// their bytes in themselves (identity CIDs) lead nowhere and are left out.
pub fn links_of(block: &[u8]) -> Result<Vec<Link>, NodeError> {
    if block.len() > BLOCK_SIZE_MAX {
        return Err(NodeError::TooLarge(block.len()));
    }
    let mut links = Vec::new();
    let mut fields = Fields(block);
    while let Some((number, value)) = fields.next()? {
        match (number, value) {
            (1, Value::Bytes(_)) => {}
            (2, Value::Bytes(bytes)) => match Link::decode(bytes)? {
                AnyLink::Known(link) => links.push(link),
                AnyLink::Foreign { is_identity: true, .. } => {}
                AnyLink::Foreign { error, .. } => return Err(error.into()),
            },
            _ => return Err(NodeError::Malformed),
        }
    }
    Ok(links)
}

/// Bytes of all blocks at and below a block, as its links say: nothing verifies it, and blocks that occur twice count
/// twice. `None` if the block is not what its name says it is made of.
pub fn dag_size(cid: &Cid, block: &[u8]) -> Option<u64> {
    let size = block.len() as u64;
    match cid.codec() {
        Codec::Raw => Some(size),
        Codec::DagPb => links_of(block).ok()?.iter().try_fold(size, |sum, link| sum.checked_add(link.dag_size)),
    }
}

impl Kind {
    fn number(self) -> u64 {
        match self {
            Self::RawLeaf => 0,
            Self::Directory => 1,
            Self::File => 2,
            Self::Shard { .. } => 5,
        }
    }

    /// Whether the node is a directory or a shard of one.
    pub fn is_directory(self) -> bool {
        matches!(self, Self::Directory | Self::Shard { .. })
    }
}

impl Link {
    /// Bytes that the link takes in a node.
    pub(crate) fn encoded_size(&self) -> usize {
        let mut node = Vec::with_capacity(64);
        self.encode(&mut node);
        node.len()
    }

    fn encode(&self, node: &mut Vec<u8>) {
        let mut bytes = Vec::with_capacity(64);
        put_bytes(&mut bytes, 1, &self.cid.to_bytes());
        put_bytes(&mut bytes, 2, self.name.as_bytes());
        put_number(&mut bytes, 3, self.dag_size);
        put_bytes(node, 2, &bytes);
    }

    fn decode(bytes: &[u8]) -> Result<AnyLink, NodeError> {
        let (mut cid, mut name, mut dag_size) = (None, "", 0);
        let mut fields = Fields(bytes);
        while let Some((number, value)) = fields.next()? {
            match (number, value) {
                (1, Value::Bytes(bytes)) => cid = Some(bytes),
                (2, Value::Bytes(bytes)) => name = str::from_utf8(bytes).map_err(|_| NodeError::Malformed)?,
                (3, Value::Number(number)) => dag_size = number,
                _ => return Err(NodeError::Malformed),
            }
        }
        let (bytes, name) = (cid.ok_or(NodeError::Malformed)?, name.to_owned());
        Ok(match Cid::from_bytes(bytes) {
            Ok(cid) => AnyLink::Known(Self { cid, name, dag_size }),
            Err(error) => {
                let is_identity = matches!(AnyCid::from_bytes(bytes)?, AnyCid::Identity { .. });
                AnyLink::Foreign { name, error, is_identity }
            }
        })
    }
}

/// A link as it stands in a node.
enum AnyLink {
    Known(Link),
    Foreign {
        name: String,
        /// Why it is not known.
        error: CidError,
        is_identity: bool,
    },
}

fn put_number(out: &mut Vec<u8>, field: u64, number: u64) {
    varint::put(out, field << 3);
    varint::put(out, number);
}

fn put_bytes(out: &mut Vec<u8>, field: u64, bytes: &[u8]) {
    varint::put(out, (field << 3) | 2);
    varint::put(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// The fields of a protobuf message, in the order they lie.
struct Fields<'a>(&'a [u8]);

enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    Fixed,
}

impl<'a> Fields<'a> {
    fn next(&mut self) -> Result<Option<(u64, Value<'a>)>, NodeError> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let value = match tag & 7 {
            0 => Value::Number(self.varint()?),
            1 => self.bytes(8).map(|_| Value::Fixed)?,
            2 => {
                let size = self.varint()?;
                Value::Bytes(self.bytes(size)?)
            }
            5 => self.bytes(4).map(|_| Value::Fixed)?,
            _ => return Err(NodeError::Malformed),
        };
        Ok(Some((tag >> 3, value)))
    }

    fn bytes(&mut self, size: u64) -> Result<&'a [u8], NodeError> {
        let size = usize::try_from(size).map_err(|_| NodeError::Malformed)?;
        let (bytes, rest) = self.0.split_at_checked(size).ok_or(NodeError::Malformed)?;
        self.0 = rest;
        Ok(bytes)
    }

    fn varint(&mut self) -> Result<u64, NodeError> {
        let mut number = 0u64;
        for shift in (0..64).step_by(7) {
            let (&byte, rest) = self.0.split_first().ok_or(NodeError::Malformed)?;
            self.0 = rest;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return Err(NodeError::Malformed);
            }
            number |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(NodeError::Malformed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_link() -> impl Strategy<Value = Link> {
        (any::<[u8; 32]>(), "[a-zé/]{0,9}", any::<u64>()).prop_map(|(digest, name, dag_size)| Link {
            cid: Cid::v1(crate::Codec::Raw, digest),
            name,
            dag_size,
        })
    }

    #[test]
    fn blocks_that_are_not_nodes_are_refused() {
        for (block, error) in [
            ("", NodeError::Malformed),
            ("0a", NodeError::Malformed),
            ("0a00", NodeError::Malformed),
            ("0a0208", NodeError::Malformed),
            ("0a020804", NodeError::Kind(4)),
            ("0a020805", NodeError::Shard(ShardError::Hash)),
            ("0a0408052823", NodeError::Shard(ShardError::Hash)),
            ("0a0408052822", NodeError::Shard(ShardError::Fanout)),
            ("0a0a0805282230ffffffff7f", NodeError::Shard(ShardError::Fanout)),
            ("0a0408052a00", NodeError::Malformed),
            ("0a0408021805", NodeError::Sizes),
            ("0a0408022005", NodeError::Sizes),
            ("0a0408011205", NodeError::Malformed),
            ("0a050801120100", NodeError::Malformed),
            ("0a0208010a020801", NodeError::Malformed),
            ("1a00", NodeError::Malformed),
            ("12020a000a020801", NodeError::Link(CidError::Short)),
            ("12000a020801", NodeError::Malformed),
            ("0affffffffffffffffff7f", NodeError::Malformed),
        ] {
            assert_eq!(Node::decode(&hex::decode(block).expect("hex")), Err(error), "{block}");
        }
        assert!(matches!(Node::decode(&vec![0; BLOCK_SIZE_MAX + 1]), Err(NodeError::TooLarge(_))));
    }

    #[test]
    fn mode_and_time_are_passed_over() {
        // kind 2, file size 0, mode 0o644, mtime { seconds: 1, nanoseconds: fixed32 }.
        let block = hex::decode("0a0e 0802 1800 38a403 4207 0801 1501000000".replace(' ', "")).expect("hex");
        assert_eq!(Node::decode(&block), Err(NodeError::Malformed), "length is one short of the message");
        let block = hex::decode("0a10 0802 1800 38a403 4207 0801 1501000000".replace(' ', "")).expect("hex");
        assert_eq!(Node::decode(&block), Ok(Node::file(vec![], vec![], vec![])));
    }

    #[test]
    fn links_are_found_in_blocks_of_every_kind() {
        let link = Link { cid: Cid::of_raw_block(b"x"), name: "x".to_owned(), dag_size: 1 };
        let mut block = Node::directory(vec![link.clone()]).encode();
        assert_eq!(links_of(&block), Ok(vec![link.clone()]));
        // A symbolic link, which has none.
        *block.last_mut().expect("not empty") = 4;
        assert_eq!(Node::decode(&block), Err(NodeError::Kind(4)));
        assert_eq!(links_of(&block), Ok(vec![link]));
        // No data at all, and links to an identity CID, to a foreign one, to nothing.
        for (block, expected) in [
            ("", Ok(vec![])),
            ("12080a0601550002aabb", Ok(vec![])),
            ("12080a0601710002aabb", Ok(vec![])),
            ("12080a0601551302aabb", Err(NodeError::Link(CidError::Shape))),
            ("120212000a00", Err(NodeError::Malformed)),
            ("1a00", Err(NodeError::Malformed)),
        ] {
            assert_eq!(links_of(&hex::decode(block).expect("hex")), expected, "{block}");
        }
    }

    proptest! {
        #[test]
        fn every_node_survives_its_encoding(
            data in prop::collection::vec(any::<u8>(), 0..40),
            links in prop::collection::vec((any_link(), 0..u64::from(u32::MAX)), 0..8),
        ) {
            let (links, sizes): (Vec<_>, Vec<_>) = links.into_iter().unzip();
            let shard = Node::shard(256, data.clone(), links.clone());
            for node in [Node::directory(links.clone()), shard, Node::file(data, links, sizes)] {
                prop_assert_eq!(Node::decode(&node.encode()), Ok(node));
            }
        }

        #[test]
        fn no_block_makes_the_decoder_panic(block in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = Node::decode(&block);
            let _ = links_of(&block);
        }
    }
}
