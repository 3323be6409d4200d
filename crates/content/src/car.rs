//! CARv1, the archive of IPFS: a header with roots, then blocks with their names, in one file or stream.
//!
//! ```text
//! archive = header section*
//! header  = varint size { dag-cbor: { "roots": [ CID* ], "version": 1 } }
//! section = varint size { binary CID, block }
//! ```
//!
//! [`Decoder`] takes bytes as they arrive and does no I/O; [`CarReader`] reads a file with it. Every block is hashed
//! before it is given out. [`CarWriter`] writes in canonical form: equal blocks in equal order give equal bytes, those
//! that the npm package `@ipld/car` writes. [`import`] and [`export`] move whole stores in and out; [`crate::traversal`]
//! says in which order.
//!
//! Bounds: a header has at most [`HEADER_SIZE_MAX`] bytes and a block [`BLOCK_SIZE_MAX`], both checked before the bytes
//! are there, so a decoder holds one section and what it was fed last.

use std::io::{self, Read, Write};

use crate::{
    BLOCK_SIZE_MAX, Cid,
    cid::{AnyCid, FOREIGN_DIGEST_SIZE_MAX},
    multibase::base32_encode,
    read::ReadError,
    store::{BlockStore, StoreError},
    traversal::{Scope, Traversal},
    varint::{self, VarintError},
};

/// Media type of an archive.
pub const CAR_TYPE: &str = "application/vnd.ipld.car";
/// Largest header in bytes.
pub const HEADER_SIZE_MAX: usize = 64 * 1024;
/// Largest section in bytes: a block and the longest name.
const SECTION_SIZE_MAX: usize = BLOCK_SIZE_MAX + FOREIGN_DIGEST_SIZE_MAX + 32;
/// How much is read from a file at a time.
const READ_SIZE: usize = 64 * 1024;

/// Why an archive cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum CarError {
    #[error("the archive ends within its header")]
    NoHeader,
    #[error("the archive has no header of dag-cbor with roots and a version")]
    Header,
    #[error("the archive's header has {0} bytes, more than {HEADER_SIZE_MAX}")]
    HeaderTooLarge(u64),
    #[error("the archive has version {0}: only version 1 is read")]
    Version(u64),
    #[error("the archive ends within the section at byte {offset}")]
    Truncated { offset: u64 },
    #[error("there is no section with a CID and a block at byte {offset} of the archive")]
    Section { offset: u64 },
    #[error("the section at byte {offset} of the archive has {size} bytes, more than a block may have")]
    TooLarge { offset: u64, size: u64 },
    #[error(
        "the block at byte {offset} of the archive is named {cid}, which has another hash or codec than are read here"
    )]
    Foreign { offset: u64, cid: String },
    #[error("block {cid} at byte {offset} of the archive has another hash")]
    Corrupt { offset: u64, cid: String },
    #[error("the archive's blocks have more than {bytes_max} bytes")]
    TooMany { bytes_max: u64 },
    #[error("cannot read the archive: {0}")]
    Source(io::Error),
    #[error("cannot write the archive: {0}")]
    Target(io::Error),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// What stands before the blocks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// The roots that this crate can name. Nothing vouches for them.
    pub roots: Vec<Cid>,
    /// How many roots are of other kinds.
    pub foreign: usize,
}

/// A part of an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    Header(Header),
    /// A block, its hash verified.
    Block {
        cid: Cid,
        block: Vec<u8>,
    },
}

/// What was moved in or out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    pub roots: Vec<Cid>,
    pub blocks: u64,
    /// Bytes of the blocks alone.
    pub bytes: u64,
}

/// Reads an archive that arrives in pieces.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: Vec<u8>,
    /// How much of the buffer is done with.
    start: usize,
    /// Where the buffer starts in the archive.
    offset: u64,
    has_header: bool,
}

impl Decoder {
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next bytes. Ask [`Self::next_item`] until it has nothing before feeding more.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.start);
        self.offset += self.start as u64;
        self.start = 0;
        self.buffer.extend_from_slice(bytes);
    }

    /// The next part; `None` if more bytes have to come first. After an error there is nothing to go on with.
    pub fn next_item(&mut self) -> Result<Option<Item>, CarError> {
        loop {
            let offset = self.offset + self.start as u64;
            let mut rest = &self.buffer[self.start..];
            let size = match varint::take(&mut rest) {
                Ok(size) => size,
                Err(VarintError::Short) => return Ok(None),
                Err(VarintError::Malformed) if self.has_header => return Err(CarError::Section { offset }),
                Err(VarintError::Malformed) => return Err(CarError::Header),
            };
            let size_max = if self.has_header { SECTION_SIZE_MAX } else { HEADER_SIZE_MAX };
            let Some(size) = usize::try_from(size).ok().filter(|size| *size <= size_max) else {
                return Err(match self.has_header {
                    true => CarError::TooLarge { offset, size },
                    false => CarError::HeaderTooLarge(size),
                });
            };
            let Some(section) = rest.get(..size) else {
                return Ok(None);
            };
            let item = if self.has_header { decode_section(offset, section)? } else { Some(decode_header(section)?) };
            self.has_header = true;
            self.start = self.buffer.len() - rest.len() + size;
            // Blocks that their names hold are passed over.
            if item.is_some() {
                return Ok(item);
            }
        }
    }

    /// Ends the archive: an error if it ended in the middle of something.
    pub fn finish(&self) -> Result<(), CarError> {
        if !self.has_header {
            return Err(CarError::NoHeader);
        }
        if self.start < self.buffer.len() {
            return Err(CarError::Truncated { offset: self.offset + self.start as u64 });
        }
        Ok(())
    }
}

/// A block with its name; `None` for one whose name is its content.
fn decode_section(offset: u64, section: &[u8]) -> Result<Option<Item>, CarError> {
    let mut block = section;
    let cid = AnyCid::take(&mut block).map_err(|_| CarError::Section { offset })?;
    let text = || format!("b{}", base32_encode(&section[..section.len() - block.len()]));
    match cid {
        AnyCid::Foreign(_) => Err(CarError::Foreign { offset, cid: text() }),
        AnyCid::Identity { bytes, .. } if bytes != block => Err(CarError::Corrupt { offset, cid: text() }),
        AnyCid::Identity { .. } => Ok(None),
        AnyCid::Known(_) if block.len() > BLOCK_SIZE_MAX => {
            Err(CarError::TooLarge { offset, size: section.len() as u64 })
        }
        AnyCid::Known(cid) if !cid.names(block) => Err(CarError::Corrupt { offset, cid: cid.to_string() }),
        AnyCid::Known(cid) => Ok(Some(Item::Block { cid, block: block.to_vec() })),
    }
}

// ---- the header, in dag-cbor ----

const CBOR_NUMBER: u8 = 0;
const CBOR_BYTES: u8 = 2;
const CBOR_TEXT: u8 = 3;
const CBOR_LIST: u8 = 4;
const CBOR_MAP: u8 = 5;
const CBOR_TAG: u8 = 6;
/// The tag of a CID in dag-cbor.
const TAG_CID: u64 = 42;

fn put_cbor(out: &mut Vec<u8>, kind: u8, number: u64) {
    let kind = kind << 5;
    let bytes = number.to_be_bytes();
    match number {
        0..24 => out.push(kind | bytes[7]),
        24..0x100 => out.extend([kind | 24, bytes[7]]),
        0x100..0x1_0000 => out.extend([&[kind | 25][..], &bytes[6..]].concat()),
        0x1_0000..0x1_0000_0000 => out.extend([&[kind | 26][..], &bytes[4..]].concat()),
        _ => out.extend([&[kind | 27][..], &bytes].concat()),
    }
}

/// Takes kind and number of the next value, which must be written in the shortest way.
fn take_cbor(bytes: &mut &[u8]) -> Option<(u8, u64)> {
    let (&first, rest) = bytes.split_first()?;
    let size = match first & 0x1f {
        24 => 1,
        25 => 2,
        26 => 4,
        27 => 8,
        28.. => return None,
        _ => 0,
    };
    let (digits, rest) = rest.split_at_checked(size)?;
    let number = match size {
        0 => u64::from(first & 0x1f),
        _ => digits.iter().fold(0, |number, digit| number << 8 | u64::from(*digit)),
    };
    let is_shortest = match size {
        0 => true,
        1 => number >= 24,
        _ => number >> (size * 4) != 0,
    };
    *bytes = rest;
    is_shortest.then_some((first >> 5, number))
}

fn take_cbor_bytes<'a>(bytes: &mut &'a [u8], kind: u8) -> Option<&'a [u8]> {
    let (found, size) = take_cbor(bytes)?;
    let (taken, rest) = bytes.split_at_checked(usize::try_from(size).ok()?)?;
    *bytes = rest;
    (found == kind).then_some(taken)
}

fn decode_header(bytes: &[u8]) -> Result<Item, CarError> {
    let (roots, version) = read_header(bytes).ok_or(CarError::Header)?;
    if version != 1 {
        return Err(CarError::Version(version));
    }
    Ok(Item::Header(roots.ok_or(CarError::Header)?))
}

/// The roots, if there are any, and the version.
fn read_header(mut bytes: &[u8]) -> Option<(Option<Header>, u64)> {
    let (mut roots, mut version) = (None, None);
    let (CBOR_MAP, fields) = take_cbor(&mut bytes)? else {
        return None;
    };
    for _ in 0..fields {
        match take_cbor_bytes(&mut bytes, CBOR_TEXT)? {
            b"roots" if roots.is_none() => roots = Some(read_roots(&mut bytes)?),
            b"version" if version.is_none() => match take_cbor(&mut bytes)? {
                (CBOR_NUMBER, number) => version = Some(number),
                _ => return None,
            },
            _ => return None,
        }
    }
    bytes.is_empty().then_some((roots, version?))
}

fn read_roots(bytes: &mut &[u8]) -> Option<Header> {
    let (CBOR_LIST, count) = take_cbor(bytes)? else {
        return None;
    };
    let mut header = Header::default();
    // Ends with the bytes, whatever the count says.
    for _ in 0..count {
        let (CBOR_TAG, TAG_CID) = take_cbor(bytes)? else {
            return None;
        };
        // A zero, for "in binary form", stands before the CID.
        let cid = take_cbor_bytes(bytes, CBOR_BYTES)?.strip_prefix(&[0])?;
        match AnyCid::from_bytes(cid).ok()? {
            AnyCid::Known(cid) => header.roots.push(cid),
            _ => header.foreign += 1,
        }
    }
    Some(header)
}

/// The header of an archive with these roots, given in binary form.
pub(crate) fn encode_header<R: AsRef<[u8]>>(roots: &[R]) -> Vec<u8> {
    let mut header = Vec::new();
    put_cbor(&mut header, CBOR_MAP, 2);
    put_cbor(&mut header, CBOR_TEXT, 5);
    header.extend(b"roots");
    put_cbor(&mut header, CBOR_LIST, roots.len() as u64);
    for root in roots {
        let root = root.as_ref();
        put_cbor(&mut header, CBOR_TAG, TAG_CID);
        put_cbor(&mut header, CBOR_BYTES, root.len() as u64 + 1);
        header.push(0);
        header.extend(root);
    }
    put_cbor(&mut header, CBOR_TEXT, 7);
    header.extend(b"version");
    put_cbor(&mut header, CBOR_NUMBER, 1);

    let mut out = Vec::with_capacity(header.len() + 3);
    varint::put(&mut out, header.len() as u64);
    out.extend(header);
    out
}

/// Appends a section.
pub(crate) fn put_section(out: &mut Vec<u8>, cid: &Cid, block: &[u8]) {
    let cid = cid.to_bytes();
    varint::put(out, (cid.len() + block.len()) as u64);
    out.extend(cid);
    out.extend(block);
}

// ---- files ----

/// The blocks of an archive in a file. Ends after the first error.
#[derive(Debug)]
pub struct CarReader<R> {
    source: R,
    decoder: Decoder,
    header: Header,
    is_over: bool,
}

impl<R: Read> CarReader<R> {
    /// Reads the header.
    pub fn open(source: R) -> Result<Self, CarError> {
        let mut reader = Self { source, decoder: Decoder::new(), header: Header::default(), is_over: false };
        match reader.read_item()? {
            Some(Item::Header(header)) => reader.header = header,
            _ => return Err(CarError::NoHeader),
        }
        Ok(reader)
    }

    pub fn header(&self) -> &Header {
        &self.header
    }

    fn read_item(&mut self) -> Result<Option<Item>, CarError> {
        loop {
            if let Some(item) = self.decoder.next_item()? {
                return Ok(Some(item));
            }
            let mut buffer = [0; READ_SIZE];
            match self.source.read(&mut buffer) {
                Ok(0) => return self.decoder.finish().map(|()| None),
                Ok(size) => self.decoder.feed(&buffer[..size]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(CarError::Source(error)),
            }
        }
    }
}

impl<R: Read> Iterator for CarReader<R> {
    type Item = Result<(Cid, Vec<u8>), CarError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_over {
            return None;
        }
        let block = match self.read_item() {
            Ok(Some(Item::Block { cid, block })) => return Some(Ok((cid, block))),
            // There is one header only.
            Ok(_) => None,
            Err(error) => Some(Err(error)),
        };
        self.is_over = true;
        block
    }
}

/// Writes an archive.
#[derive(Debug)]
pub struct CarWriter<W> {
    target: W,
    section: Vec<u8>,
}

impl<W: Write> CarWriter<W> {
    /// Writes the header.
    pub fn new(mut target: W, roots: &[Cid]) -> Result<Self, CarError> {
        let roots: Vec<_> = roots.iter().map(Cid::to_bytes).collect();
        target.write_all(&encode_header(&roots)).map_err(CarError::Target)?;
        Ok(Self { target, section: Vec::new() })
    }

    /// Writes a block, whose hash the caller has verified.
    pub fn put(&mut self, cid: &Cid, block: &[u8]) -> Result<(), CarError> {
        self.section.clear();
        put_section(&mut self.section, cid, block);
        self.target.write_all(&self.section).map_err(CarError::Target)
    }

    /// Gives the target back, everything handed over to it.
    pub fn finish(mut self) -> Result<W, CarError> {
        self.target.flush().map_err(CarError::Target)?;
        Ok(self.target)
    }
}

/// Brings every block of an archive into `store`: at most `bytes_max` bytes. Blocks before an error stay in the store.
/// `progress` hears the bytes of each block.
pub fn import<S: BlockStore + ?Sized>(
    store: &S,
    source: impl Read,
    bytes_max: u64,
    mut progress: impl FnMut(u64),
) -> Result<Summary, CarError> {
    let mut reader = CarReader::open(source)?;
    let mut summary = Summary { roots: reader.header().roots.clone(), ..Summary::default() };
    for block in &mut reader {
        let (cid, block) = block?;
        summary.blocks += 1;
        summary.bytes += block.len() as u64;
        if summary.bytes > bytes_max {
            return Err(CarError::TooMany { bytes_max });
        }
        store.put(&cid, &block)?;
        progress(block.len() as u64);
    }
    Ok(summary)
}

/// Writes everything below `root` depth first, each block once or, if `has_dups`, as often as it is linked; at most
/// `bytes_max` bytes of blocks. `progress` hears the bytes of each block.
pub fn export<S: BlockStore>(
    store: S,
    root: &Cid,
    has_dups: bool,
    bytes_max: u64,
    target: impl Write,
    mut progress: impl FnMut(u64),
) -> Result<Summary, CarError> {
    let mut writer = CarWriter::new(target, &[*root])?;
    let mut summary = Summary { roots: vec![*root], ..Summary::default() };
    for block in Traversal::open(store, root, "", Scope::All, has_dups)? {
        let (cid, block) = block?;
        summary.blocks += 1;
        summary.bytes += block.len() as u64;
        if summary.bytes > bytes_max {
            return Err(CarError::TooMany { bytes_max });
        }
        writer.put(&cid, &block)?;
        progress(block.len() as u64);
    }
    writer.finish()?;
    Ok(summary)
}
