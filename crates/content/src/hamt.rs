//! Directories in shards: a directory that is too large for one block is a trie over the hashes of its names.
//!
//! Each shard is a dag-pb node with up to `fanout` slots. Which slot an entry has in the root is said by the first bits
//! of the hash of its name, which one in the shard below by the next bits, and so on; an entry lies in the first shard
//! where it is alone in its slot. Links are in the order of slots. The name of a link begins with its slot in
//! hexadecimal; a link to an entry has the entry's name behind it, a link to a shard nothing.
//!
//! The hash is the first half of murmur3-x64-128. It is no defence against people who make names collide: names whose
//! hashes agree in all bits cannot lie in one directory, here as in kubo.

use std::collections::BTreeMap;

use crate::{
    dag_pb::{Kind, Link, Node, ShardError},
    unixfs::{BlockSink, DirectoryError, FinishError, Imported, Profile},
};

/// Slots of a shard that is made here, as everywhere.
const FANOUT: u32 = 256;
/// Slots of a shard that is read: powers of two within these.
const FANOUT_MIN: u32 = 8;
const FANOUT_MAX: u32 = 1024;

const DIGEST_BITS: u32 = 64;

/// How the slots of shards are numbered; all shards of a directory have the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slots {
    /// Bits of the digest for each level.
    bits: u32,
}

impl Slots {
    pub(crate) fn new(fanout: u32) -> Option<Self> {
        let is_known = fanout.is_power_of_two() && (FANOUT_MIN..=FANOUT_MAX).contains(&fanout);
        is_known.then(|| Self { bits: fanout.trailing_zeros() })
    }

    fn fanout(self) -> u32 {
        1 << self.bits
    }

    /// Levels of shards before the digest is used up.
    pub(crate) fn depth_max(self) -> u32 {
        DIGEST_BITS / self.bits
    }

    /// The slot that a digest has at a depth below [`Self::depth_max`]; the root has depth 0.
    pub(crate) fn of(self, digest: u64, depth: u32) -> u32 {
        let rest = digest << (depth * self.bits);
        // Below `fanout`.
        (rest >> (DIGEST_BITS - self.bits)) as u32
    }

    /// A slot at a depth where it stands in digests, all other bits zero.
    pub(crate) fn prefix(self, slot: u32, depth: u32) -> u64 {
        u64::from(slot) << (DIGEST_BITS - self.bits) >> (depth * self.bits)
    }

    /// Whether two digests lead to the same slots down to a depth.
    pub(crate) fn agree(self, one: u64, other: u64, depth: u32) -> bool {
        (one ^ other) >> (DIGEST_BITS - (depth + 1) * self.bits) == 0
    }

    /// Digits before the name of a link.
    fn digits(self) -> usize {
        self.bits.div_ceil(4) as usize
    }

    fn label(self, slot: u32, name: &str) -> String {
        format!("{slot:0digits$X}{name}", digits = self.digits())
    }

    /// The slot of a link, and the name behind it.
    fn parse(self, label: &str) -> Result<(u32, &str), ShardError> {
        let (digits, name) = label.split_at_checked(self.digits()).ok_or(ShardError::Slot)?;
        let slot = u32::from_str_radix(digits, 16).map_err(|_| ShardError::Slot)?;
        let is_plain = slot < self.fanout() && self.label(slot, "") == digits;
        if is_plain { Ok((slot, name)) } else { Err(ShardError::Slot) }
    }
}

/// The digest of a name that says where it lies.
pub(crate) fn digest(name: &str) -> u64 {
    let digest = murmur3::murmur3_x64_128(&mut name.as_bytes(), 0);
    // Its first half. Memory can always be read.
    digest.map_or(0, |digest| digest as u64)
}

/// Makes the shards of a directory, those below before those above.
pub(crate) fn import<S: BlockSink>(
    profile: &Profile,
    entries: BTreeMap<String, Imported>,
    sink: &mut S,
) -> Result<Imported, FinishError<S::Error>> {
    let slots = Slots { bits: FANOUT.trailing_zeros() };
    let mut entries: Vec<_> = entries.into_iter().map(|(name, entry)| (digest(&name), name, entry)).collect();
    entries.sort_by_key(|(digest, ..)| *digest);
    for pair in entries.windows(2) {
        if let [(one, left, _), (other, right, _)] = pair
            && one == other
        {
            return Err(DirectoryError::Collision(left.clone(), right.clone()).into());
        }
    }
    import_shard(profile, slots, &entries, 0, sink).map_err(FinishError::Sink)
}

/// Makes the shard of `entries`, which are in the order of their digests, all different, and the shards below. As deep
/// as two digests agree, which is 8 levels at most.
fn import_shard<S: BlockSink>(
    profile: &Profile,
    slots: Slots,
    entries: &[(u64, String, Imported)],
    depth: u32,
    sink: &mut S,
) -> Result<Imported, S::Error> {
    let (mut links, mut taken) = (Vec::new(), Vec::new());
    for run in entries.chunk_by(|(left, ..), (right, ..)| slots.of(*left, depth) == slots.of(*right, depth)) {
        let slot = slots.of(run[0].0, depth);
        links.push(match run {
            [(_, name, entry)] => entry.link(slots.label(slot, name)),
            _ => import_shard(profile, slots, run, depth + 1, sink)?.link(slots.label(slot, "")),
        });
        taken.push(slot);
    }
    profile.put_node(&Node::shard(slots.fanout(), bit_field(taken.into_iter()), links), sink)
}

/// A shard as it is read.
#[derive(Clone, Debug)]
pub(crate) struct Shard {
    pub(crate) slots: Slots,
    /// What lies in the slots that are taken, in their order.
    pub(crate) taken: Vec<(u32, Taken)>,
}

#[derive(Clone, Debug)]
pub(crate) enum Taken {
    /// An entry under its own name.
    Entry(Link),
    Shard(Link),
    /// An entry, or a shard, that is named in a way that is not known here.
    Foreign(String),
}

impl Shard {
    /// Takes a node for a shard: its links are in slots of their own, which are those that it says are taken.
    pub(crate) fn of_node(node: Node) -> Result<Self, ShardError> {
        let Kind::Shard { fanout } = node.kind else {
            return Err(ShardError::Kind);
        };
        let slots = Slots::new(fanout).ok_or(ShardError::Fanout)?;
        let mut taken = Vec::with_capacity(node.links.len() + node.foreign.len());
        for mut link in node.links {
            let (slot, name) = slots.parse(&link.name)?;
            link.name = name.to_owned();
            taken.push((slot, if link.name.is_empty() { Taken::Shard(link) } else { Taken::Entry(link) }));
        }
        for link in node.foreign {
            let (slot, name) = slots.parse(&link)?;
            taken.push((slot, Taken::Foreign(name.to_owned())));
        }
        taken.sort_by_key(|(slot, _)| *slot);
        if taken.windows(2).any(|pair| pair[0].0 == pair[1].0) {
            return Err(ShardError::SlotTwice);
        }
        let zeros = node.data.iter().take_while(|byte| **byte == 0).count();
        if bit_field(taken.iter().map(|(slot, _)| *slot)) != node.data[zeros..] {
            return Err(ShardError::BitField);
        }
        Ok(Self { slots, taken })
    }
}

/// The slots that are taken as a number, big-endian, without zeros before it.
fn bit_field(slots: impl Iterator<Item = u32>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for slot in slots {
        let index = (slot / 8) as usize;
        if bytes.len() <= index {
            bytes.resize(index + 1, 0);
        }
        bytes[index] |= 1u8 << (slot % 8);
    }
    bytes.reverse();
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_the_digests_of_murmur3() {
        // From the reference implementation: the first halves of x64-128 with seed 0.
        for (name, expected) in [
            (String::new(), 0),
            ("hello".into(), 0xcbd8_a7b3_41bd_9b02),
            ("hello world".into(), 0x533f_6046_eb7f_610e),
            ("é".into(), 0xc918_7aa4_11d4_63e8),
            ("x".repeat(15), 0x1cfd_62ba_c822_c29a),
            ("x".repeat(16), 0x68cc_bbac_d925_43dd),
            ("x".repeat(17), 0xe298_65ce_a229_de93),
            ("é".repeat(40), 0x176f_1119_0e9f_15fd),
            ("y".repeat(255), 0xe293_88d8_64e4_3cef),
        ] {
            assert_eq!(digest(&name), expected, "{name:?}");
        }
    }

    #[test]
    fn slots_are_cut_off_a_digest_from_its_first_bit_on() {
        let digest = 0x0123_4567_89ab_cdef;
        for (fanout, expected) in [
            (256, &[0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef][..]),
            (16, &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0xa, 0xb, 0xc, 0xd, 0xe, 0xf]),
            (1024, &[0x004, 0x234, 0x159, 0x389, 0x2af, 0x0de]),
        ] {
            let slots = Slots::new(fanout).expect("known");
            let found: Vec<_> = (0..slots.depth_max()).map(|depth| slots.of(digest, depth)).collect();
            assert_eq!(found, expected, "{fanout}");
            let mut prefix = 0;
            for (depth, slot) in (0..).zip(found) {
                prefix |= slots.prefix(slot, depth);
                assert!(slots.agree(prefix, digest, depth), "{fanout} {depth}");
                assert!(!slots.agree(prefix ^ slots.prefix(1, depth), digest, depth), "{fanout} {depth}");
            }
        }
        for fanout in [0, 1, 4, 255, 257, 2048] {
            assert_eq!(Slots::new(fanout), None);
        }
        let label = |fanout: u32| Slots::new(fanout).expect("known").label(7, "x");
        assert_eq!([8, 16, 32, 256, 1024].map(label), ["7x", "7x", "07x", "07x", "007x"]);
    }

    #[test]
    fn bit_fields_are_numbers_without_leading_zeros() {
        for (slots, expected) in [(&[][..], &[][..]), (&[0], &[1]), (&[0, 9, 15], &[0x82, 1]), (&[8], &[1, 0])] {
            assert_eq!(bit_field(slots.iter().copied()), expected, "{slots:?}");
        }
    }

    #[test]
    fn shards_that_nobody_makes_are_refused() {
        let link = |name: &str| Link { cid: crate::Cid::of_raw_block(b"x"), name: name.to_owned(), dag_size: 1 };
        let shard = |fanout, data: &[u8], names: &[&str]| {
            let node = Node::shard(fanout, data.to_vec(), names.iter().map(|name| link(name)).collect());
            Shard::of_node(node)
        };
        assert!(shard(256, &[0, 0, 0b11], &["00a", "01"]).is_ok(), "zeros before it mean nothing");
        assert!(shard(256, &[], &[]).is_ok());
        for (fanout, data, names) in [
            (100, &[1][..], &["00a"][..]),
            (256, &[1], &["0"]),
            (256, &[1], &["é"]),
            (256, &[1], &["+0a"]),
            (256, &[4, 0], &["0aa"]),
            (256, &[2], &["00a"]),
            (256, &[1], &["00a", "00b"]),
            (256, &[3], &["00a"]),
            (256, &[], &["00a"]),
            (8, &[1, 0], &["8a"]),
        ] {
            assert!(shard(fanout, data, names).is_err(), "{fanout} {data:?} {names:?}");
        }
        assert!(Shard::of_node(Node::directory(vec![])).is_err());
    }
}
