//! The name of a block: its sha2-256 digest, the codec of its bytes and the way the name is written.
//!
//! Three shapes exist here and no others, so that an invalid name cannot be held:
//!
//! | shape              | binary form                   | text                        |
//! |--------------------|-------------------------------|-----------------------------|
//! | version 1, raw     | `01 55 12 20` and the digest  | `bafkrei…`, base32, 59 long |
//! | version 1, dag-pb  | `01 70 12 20` and the digest  | `bafybei…`, base32, 59 long |
//! | version 0 (dag-pb) | `12 20` and the digest        | `Qm…`, base58, 46 long      |
//!
//! The binary form tells its own length, so it is also the borsh form. Ordering is that of the binary form.

use std::{fmt, str::FromStr};

use borsh::{BorshDeserialize, BorshSerialize, io};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use sha2::{Digest, Sha256};

use crate::{
    multibase::{base32_decode, base32_encode, base58_decode, base58_encode},
    varint::{self, VarintError},
};

/// Size of a digest in bytes.
pub const DIGEST_SIZE: usize = 32;
/// Largest binary form in bytes.
pub const CID_SIZE_MAX: usize = 36;
/// Longest text in bytes.
pub const CID_TEXT_SIZE_MAX: usize = 59;

const V0_PREFIX: [u8; 2] = [0x12, 0x20];
const V1_RAW_PREFIX: [u8; 4] = [0x01, 0x55, 0x12, 0x20];
const V1_DAG_PB_PREFIX: [u8; 4] = [0x01, 0x70, 0x12, 0x20];
const V0_TEXT_SIZE: usize = 46;

/// How the bytes of a block are to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Codec {
    /// Plain bytes (0x55).
    Raw,
    /// A protobuf node with links (0x70).
    DagPb,
}

/// How a name is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Version {
    /// The older form, `Qm…`: always dag-pb.
    V0,
    /// The current form, `baf…`.
    V1,
}

/// A content identifier: 34 or 36 bytes in binary form, 46 or 59 characters as text.
///
/// Borsh writes the binary form; serde writes the text, or the binary form in formats that are not for humans.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cid {
    shape: Shape,
    digest: [u8; DIGEST_SIZE],
}

// In the order of the first bytes of the binary forms.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Shape {
    V1Raw,
    V1DagPb,
    V0,
}

/// Why bytes or a text are not a [`Cid`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CidError {
    #[error(
        "a CID is {CID_TEXT_SIZE_MAX} characters of base32 starting with 'b', or {V0_TEXT_SIZE} of base58 starting with 'Qm'"
    )]
    Text,
    #[error("CID is not a known shape: version 0, or version 1 with codec raw or dag-pb, and sha2-256")]
    Shape,
    #[error("CID ends too early")]
    Short,
    #[error("bytes after the end of the CID")]
    Trailing,
}

impl Cid {
    /// The version 1 name with `codec` of a block with this sha2-256 digest.
    pub const fn v1(codec: Codec, digest: [u8; DIGEST_SIZE]) -> Self {
        let shape = match codec {
            Codec::Raw => Shape::V1Raw,
            Codec::DagPb => Shape::V1DagPb,
        };
        Self { shape, digest }
    }

    /// The version 0 name of a dag-pb block with this sha2-256 digest.
    pub const fn v0(digest: [u8; DIGEST_SIZE]) -> Self {
        Self { shape: Shape::V0, digest }
    }

    /// Hashes a block of plain bytes. To name a file of any size, see [`crate::file_cid`].
    pub fn of_raw_block(block: &[u8]) -> Self {
        Self::v1(Codec::Raw, Sha256::digest(block).into())
    }

    /// Hashes an encoded dag-pb node.
    pub fn of_dag_pb_block(version: Version, block: &[u8]) -> Self {
        let digest = Sha256::digest(block).into();
        match version {
            Version::V0 => Self::v0(digest),
            Version::V1 => Self::v1(Codec::DagPb, digest),
        }
    }

    /// Whether this is the name of `block`: true only if the hash of the bytes is the digest.
    pub fn names(&self, block: &[u8]) -> bool {
        self.digest == <[u8; DIGEST_SIZE]>::from(Sha256::digest(block))
    }

    pub const fn version(&self) -> Version {
        match self.shape {
            Shape::V0 => Version::V0,
            Shape::V1Raw | Shape::V1DagPb => Version::V1,
        }
    }

    pub const fn codec(&self) -> Codec {
        match self.shape {
            Shape::V1Raw => Codec::Raw,
            Shape::V1DagPb | Shape::V0 => Codec::DagPb,
        }
    }

    /// The sha2-256 digest of the block.
    pub const fn digest(&self) -> &[u8; DIGEST_SIZE] {
        &self.digest
    }

    /// The multihash, `12 20` and the digest: the same for every way of writing the name of a block.
    pub fn multihash(&self) -> [u8; 34] {
        let mut bytes = [0; 34];
        bytes[..2].copy_from_slice(&V0_PREFIX);
        bytes[2..].copy_from_slice(&self.digest);
        bytes
    }

    /// The binary form, 34 or 36 bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        [self.prefix(), &self.digest].concat()
    }

    /// Reads a binary form that fills `bytes`.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, CidError> {
        let mut rest = bytes;
        let cid = Self::take(&mut rest)?;
        if !rest.is_empty() {
            return Err(CidError::Trailing);
        }
        Ok(cid)
    }

    fn take(bytes: &mut &[u8]) -> Result<Self, CidError> {
        let (&first, _) = bytes.split_first().ok_or(CidError::Short)?;
        let prefix_size = if first == V0_PREFIX[0] { V0_PREFIX.len() } else { V1_RAW_PREFIX.len() };
        let (prefix, rest) = bytes.split_at_checked(prefix_size).ok_or(CidError::Short)?;
        let shape = Self::shape_of(prefix)?;
        let (digest, rest) = rest.split_first_chunk().ok_or(CidError::Short)?;
        *bytes = rest;
        Ok(Self { shape, digest: *digest })
    }

    fn prefix(&self) -> &'static [u8] {
        match self.shape {
            Shape::V0 => &V0_PREFIX,
            Shape::V1Raw => &V1_RAW_PREFIX,
            Shape::V1DagPb => &V1_DAG_PB_PREFIX,
        }
    }

    fn shape_of(prefix: &[u8]) -> Result<Shape, CidError> {
        if prefix == V0_PREFIX {
            return Ok(Shape::V0);
        }
        if prefix == V1_RAW_PREFIX {
            return Ok(Shape::V1Raw);
        }
        if prefix == V1_DAG_PB_PREFIX {
            return Ok(Shape::V1DagPb);
        }
        Err(CidError::Shape)
    }
}

/// Largest digest in bytes of a name that is not a [`Cid`]: beyond it nothing is taken for a name.
pub(crate) const FOREIGN_DIGEST_SIZE_MAX: usize = 256;

/// Any name that IPFS knows, as it stands in archives and links.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AnyCid<'a> {
    Known(Cid),
    /// The bytes themselves instead of a hash: there is no block to look for.
    Identity {
        codec: u64,
        bytes: &'a [u8],
    },
    /// Another hash function or another codec; all its bytes.
    Foreign(&'a [u8]),
}

impl<'a> AnyCid<'a> {
    /// Takes a name off the front of `bytes`.
    pub(crate) fn take(bytes: &mut &'a [u8]) -> Result<Self, CidError> {
        let all = *bytes;
        let number = |rest: &mut &'a [u8]| {
            varint::take(rest).map_err(|error| match error {
                VarintError::Short => CidError::Short,
                VarintError::Malformed => CidError::Shape,
            })
        };
        let mut rest = all;
        let codec = if all.starts_with(&V0_PREFIX) {
            None
        } else {
            if number(&mut rest)? != 1 {
                return Err(CidError::Shape);
            }
            Some(number(&mut rest)?)
        };
        let (hash, size) = (number(&mut rest)?, number(&mut rest)?);
        let size = usize::try_from(size).ok().filter(|size| *size <= FOREIGN_DIGEST_SIZE_MAX).ok_or(CidError::Shape)?;
        let (digest, rest) = rest.split_at_checked(size).ok_or(CidError::Short)?;
        *bytes = rest;
        let whole = &all[..all.len() - rest.len()];
        match (Cid::from_bytes(whole), hash, codec) {
            (Ok(cid), ..) => Ok(Self::Known(cid)),
            (Err(_), 0, Some(codec)) => Ok(Self::Identity { codec, bytes: digest }),
            (Err(_), ..) => Ok(Self::Foreign(whole)),
        }
    }

    /// Reads a name that fills `bytes`.
    pub(crate) fn from_bytes(mut bytes: &'a [u8]) -> Result<Self, CidError> {
        let cid = Self::take(&mut bytes)?;
        if bytes.is_empty() { Ok(cid) } else { Err(CidError::Trailing) }
    }
}

/// The bytes of a version 1 name in base32; what is in them is not looked at.
#[cfg(feature = "http")]
pub(crate) fn base32_cid_bytes(text: &str) -> Option<Vec<u8>> {
    // Eight characters for five bytes, and room for the numbers before the digest.
    let text = text.strip_prefix('b').filter(|text| text.len() <= FOREIGN_DIGEST_SIZE_MAX * 2)?;
    base32_decode(text)
}

impl fmt::Display for Cid {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.version() {
            Version::V0 => formatter.pad(&base58_encode(&self.to_bytes())),
            Version::V1 => formatter.pad(&format!("b{}", base32_encode(&self.to_bytes()))),
        }
    }
}

impl fmt::Debug for Cid {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Cid({self})")
    }
}

impl FromStr for Cid {
    type Err = CidError;

    fn from_str(text: &str) -> Result<Self, CidError> {
        if text.len() > CID_TEXT_SIZE_MAX {
            return Err(CidError::Text);
        }
        if text.len() == V0_TEXT_SIZE && text.starts_with("Qm") {
            return Self::from_bytes(&base58_decode(text).ok_or(CidError::Text)?);
        }
        let base32 = text.strip_prefix('b').ok_or(CidError::Text)?;
        let cid = Self::from_bytes(&base32_decode(base32).ok_or(CidError::Text)?)?;
        if cid.version() == Version::V0 {
            return Err(CidError::Text);
        }
        Ok(cid)
    }
}

impl TryFrom<&[u8]> for Cid {
    type Error = CidError;

    fn try_from(bytes: &[u8]) -> Result<Self, CidError> {
        Self::from_bytes(bytes)
    }
}

impl BorshSerialize for Cid {
    fn serialize<W: io::Write>(&self, writer: &mut W) -> io::Result<()> {
        writer.write_all(self.prefix())?;
        writer.write_all(&self.digest)
    }
}

impl BorshDeserialize for Cid {
    fn deserialize_reader<R: io::Read>(reader: &mut R) -> io::Result<Self> {
        let invalid = |error: CidError| io::Error::new(io::ErrorKind::InvalidData, error.to_string());
        let mut prefix = [0; 4];
        reader.read_exact(&mut prefix[..2])?;
        let prefix_size = if prefix[0] == V0_PREFIX[0] { V0_PREFIX.len() } else { prefix.len() };
        reader.read_exact(&mut prefix[2..prefix_size])?;
        let shape = Self::shape_of(&prefix[..prefix_size]).map_err(invalid)?;
        let mut digest = [0; DIGEST_SIZE];
        reader.read_exact(&mut digest)?;
        Ok(Self { shape, digest })
    }
}

impl Serialize for Cid {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_str(self)
        } else {
            serializer.serialize_bytes(&self.to_bytes())
        }
    }
}

impl<'de> Deserialize<'de> for Cid {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl de::Visitor<'_> for Visitor {
            type Value = Cid;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a CID")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Cid, E> {
                text.parse().map_err(E::custom)
            }

            fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Cid, E> {
                Cid::from_bytes(bytes).map_err(E::custom)
            }
        }

        if deserializer.is_human_readable() {
            deserializer.deserialize_str(Visitor)
        } else {
            deserializer.deserialize_bytes(Visitor)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    // The digest of the empty string, in all three shapes.
    const EMPTY_DIGEST: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    const EMPTY_RAW: &str = "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku";
    // The well-known empty directory.
    const EMPTY_DIRECTORY_V0: &str = "QmUNLLsPACCz1vLxQVkXqqLX5R1X345qqfHbsf67hvA3Nn";
    const EMPTY_DIRECTORY_V1: &str = "bafybeiczsscdsbs7ffqz55asqdf3smv6klcw3gofszvwlyarci47bgf354";

    fn any_cid() -> impl Strategy<Value = Cid> {
        (0..3, any::<[u8; 32]>()).prop_map(|(shape, digest)| match shape {
            0 => Cid::v0(digest),
            1 => Cid::v1(Codec::Raw, digest),
            _ => Cid::v1(Codec::DagPb, digest),
        })
    }

    #[test]
    fn well_known_names_are_printed_and_parsed() {
        let empty = Cid::of_raw_block(b"");
        assert_eq!(hex::encode(empty.digest()), EMPTY_DIGEST);
        assert_eq!(empty.to_string(), EMPTY_RAW);
        let empty_directory = [0x0a, 0x02, 0x08, 0x01];
        for (version, text) in [(Version::V0, EMPTY_DIRECTORY_V0), (Version::V1, EMPTY_DIRECTORY_V1)] {
            let cid = Cid::of_dag_pb_block(version, &empty_directory);
            assert_eq!(cid.to_string(), text);
            assert_eq!(text.parse(), Ok(cid));
            assert_eq!((cid.version(), cid.codec()), (version, Codec::DagPb));
            assert!(cid.names(&empty_directory));
            assert!(!cid.names(b"other"));
        }
        assert_eq!(format!("{empty:?}"), format!("Cid({EMPTY_RAW})"));
    }

    #[test]
    fn texts_that_are_not_names_are_refused() {
        let upper = EMPTY_RAW.to_uppercase();
        let longer = format!("{EMPTY_RAW}a");
        let shorter = &EMPTY_RAW[..58];
        let v0_in_base32 = format!("b{}", base32_encode(&Cid::v0([7; 32]).to_bytes()));
        let sha512 = format!("b{}", base32_encode(&[&[0x01, 0x55, 0x13, 0x20][..], &[0; 32]].concat()));
        for (text, error) in [
            ("", CidError::Text),
            ("b", CidError::Short),
            ("é", CidError::Text),
            ("QmUNLLsPACCz1vLxQVkXqqLX5R1X345qqfHbsf67hvA3N", CidError::Text),
            ("QmUNLLsPACCz1vLxQVkXqqLX5R1X345qqfHbsf67hvA3N0", CidError::Text),
            (&upper, CidError::Text),
            (&longer, CidError::Text),
            (shorter, CidError::Text),
            (&v0_in_base32, CidError::Text),
            (&sha512, CidError::Shape),
        ] {
            assert_eq!(text.parse::<Cid>(), Err(error), "{text}");
        }
    }

    #[test]
    fn bytes_that_are_not_names_are_refused() {
        let good = Cid::of_raw_block(b"x").to_bytes();
        let trailing = [&good[..], &[0]].concat();
        let foreign_codec = [&[0x01, 0x71, 0x12, 0x20][..], &[0; 32]].concat();
        for (bytes, error) in [
            (&[][..], CidError::Short),
            (&good[..35], CidError::Short),
            (&good[..3], CidError::Short),
            (&trailing, CidError::Trailing),
            (&foreign_codec, CidError::Shape),
            (&[0x12, 0x21, 0, 0], CidError::Shape),
        ] {
            assert_eq!(Cid::from_bytes(bytes), Err(error), "{bytes:?}");
            assert!(borsh::from_slice::<Cid>(bytes).is_err());
        }
    }

    #[test]
    fn names_of_other_kinds_are_told_apart() {
        let raw = Cid::of_raw_block(b"x");
        let digest = &[7; 64][..];
        let sha512 = [&[0x01, 0x55, 0x13, 0x40][..], digest].concat();
        let cbor = [&[0x01, 0x71, 0x12, 0x20][..], &digest[..32]].concat();
        for (bytes, expected) in [
            (raw.to_bytes(), Ok(AnyCid::Known(raw))),
            (Cid::v0([1; 32]).to_bytes(), Ok(AnyCid::Known(Cid::v0([1; 32])))),
            (vec![0x01, 0x55, 0x00, 0x00], Ok(AnyCid::Identity { codec: 0x55, bytes: b"" })),
            (vec![0x01, 0x55, 0x00, 0x02, 1, 2], Ok(AnyCid::Identity { codec: 0x55, bytes: &[1, 2] })),
            (sha512.clone(), Ok(AnyCid::Foreign(&sha512))),
            (cbor.clone(), Ok(AnyCid::Foreign(&cbor))),
            (vec![0x01, 0x55, 0x00, 0x02, 1], Err(CidError::Short)),
            (vec![0x02, 0x55, 0x00, 0x00], Err(CidError::Shape)),
            (vec![0x01, 0x55, 0x00, 0xff, 0x7f], Err(CidError::Shape)),
            (vec![0x01, 0x55, 0x00, 0x00, 0x00], Err(CidError::Trailing)),
            (vec![], Err(CidError::Short)),
        ] {
            assert_eq!(AnyCid::from_bytes(&bytes), expected, "{bytes:x?}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_parser_of_any_name_panic(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            if let Ok(AnyCid::Known(cid)) = AnyCid::from_bytes(&bytes) {
                prop_assert_eq!(cid.to_bytes(), bytes);
            }
        }

        #[test]
        fn every_name_survives_text_bytes_borsh_and_serde(cid in any_cid()) {
            prop_assert_eq!(cid.to_string().parse(), Ok(cid));
            prop_assert!(cid.to_string().len() <= CID_TEXT_SIZE_MAX);
            prop_assert_eq!(Cid::from_bytes(&cid.to_bytes()), Ok(cid));
            let borsh_bytes = borsh::to_vec(&cid).expect("borsh");
            prop_assert_eq!(&borsh_bytes, &cid.to_bytes());
            prop_assert_eq!(borsh::from_slice::<Cid>(&borsh_bytes).expect("borsh"), cid);
            let json = serde_json::to_string(&cid).expect("json");
            prop_assert_eq!(&json, &format!("\"{cid}\""));
            prop_assert_eq!(serde_json::from_str::<Cid>(&json).expect("json"), cid);
        }

        #[test]
        fn names_are_ordered_as_their_bytes(left in any_cid(), right in any_cid()) {
            prop_assert_eq!(left.cmp(&right), left.to_bytes().cmp(&right.to_bytes()));
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in "\\PC{0,64}") {
            let _ = text.parse::<Cid>();
        }
    }
}
