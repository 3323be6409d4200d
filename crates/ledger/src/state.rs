//! Typed maps over one ordered key-value view, and overlays that are kept or dropped whole.
//!
//! A key is one prefix byte, which names the map, and the key's fixed-size big-endian parts, so
//! that byte order is the order of the parts. Values are in the canonical codec.

use althing_types::{Address, AssetId, Hash, ModelId, OrderId, PoolId, SessionPublicKey, decode, encode};
use borsh::{BorshDeserialize, BorshSerialize};
use std::{collections::BTreeMap, marker::PhantomData, ops::Bound};

/// What a block or call changes: `None` removes a key.
pub type Writes = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

/// Read access to a whole state; synchronous, from memory.
pub trait StateRead {
    /// The value at `key`.
    fn get(&self, key: &[u8]) -> Option<Vec<u8>>;
    /// The first `limit` entries with `from <= key < to`, in key order.
    fn scan(&self, from: &[u8], to: &[u8], limit: usize) -> Vec<(Vec<u8>, Vec<u8>)>;
}

/// A state in one map: genesis, tests, tools.
impl StateRead for BTreeMap<Vec<u8>, Vec<u8>> {
    fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        BTreeMap::get(self, key).cloned()
    }
    fn scan(&self, from: &[u8], to: &[u8], limit: usize) -> Vec<(Vec<u8>, Vec<u8>)> {
        self.range::<[u8], _>((Bound::Included(from), Bound::Excluded(to)))
            .take(limit)
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect()
    }
}

/// Applies writes to a state held in one map.
pub fn apply(state: &mut BTreeMap<Vec<u8>, Vec<u8>>, writes: Writes) {
    for (key, value) in writes {
        match value {
            Some(value) => state.insert(key, value),
            None => state.remove(&key),
        };
    }
}

/// Changes on top of a state, which stays as it is.
pub struct Overlay<'a> {
    base: &'a dyn StateRead,
    writes: Writes,
}

impl<'a> Overlay<'a> {
    /// An overlay without changes.
    pub fn new(base: &'a dyn StateRead) -> Self {
        Self { base, writes: Writes::new() }
    }
    /// The changes made.
    pub fn into_writes(self) -> Writes {
        self.writes
    }
    /// Takes over the changes of an overlay that was made on top of this one.
    pub fn absorb(&mut self, writes: Writes) {
        self.writes.extend(writes);
    }
    fn put(&mut self, key: Vec<u8>, value: Option<Vec<u8>>) {
        self.writes.insert(key, value);
    }
}

impl StateRead for Overlay<'_> {
    fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        match self.writes.get(key) {
            Some(written) => written.clone(),
            None => self.base.get(key),
        }
    }

    fn scan(&self, from: &[u8], to: &[u8], limit: usize) -> Vec<(Vec<u8>, Vec<u8>)> {
        if from >= to {
            return Vec::new();
        }
        let mut written = self.writes.range::<[u8], _>((Bound::Included(from), Bound::Excluded(to))).peekable();
        // At most this many of the base's entries are hidden by removals or replaced.
        let hidden = self.writes.range::<[u8], _>((Bound::Included(from), Bound::Excluded(to))).count();
        let mut base = self.base.scan(from, to, limit.saturating_add(hidden)).into_iter().peekable();
        let mut found = Vec::new();
        while found.len() < limit {
            let take_written = match (written.peek(), base.peek()) {
                (None, None) => break,
                (Some(_), None) => true,
                (None, Some(_)) => false,
                (Some((key, _)), Some((other, _))) => {
                    if *key == other {
                        base.next();
                        true
                    } else {
                        *key < other
                    }
                }
            };
            if take_written {
                if let Some((key, Some(value))) = written.next() {
                    found.push((key.clone(), value.clone()));
                }
            } else {
                found.extend(base.next());
            }
        }
        found
    }
}

/// A part of a key with a fixed-size encoding whose byte order is its order.
pub trait KeyPart: Sized {
    /// Length of the encoding.
    const LEN: usize;
    /// Appends the encoding.
    fn write(&self, out: &mut Vec<u8>);
    /// Reads what `write` wrote; `bytes` has exactly `LEN` bytes.
    fn read(bytes: &[u8]) -> Self;
}

macro_rules! key_part_bytes {
    ($($name:ident $len:literal),*) => { $(
        impl KeyPart for $name {
            const LEN: usize = $len;
            fn write(&self, out: &mut Vec<u8>) { out.extend_from_slice(self.as_bytes()); }
            fn read(bytes: &[u8]) -> Self {
                Self(bytes.try_into().expect("the caller gives exactly LEN bytes"))
            }
        }
    )* };
}
key_part_bytes!(Address 20, Hash 32, ModelId 32, OrderId 32, PoolId 32, SessionPublicKey 32);

/// A tag and 32 bytes, in the order of assets.
impl KeyPart for AssetId {
    const LEN: usize = 33;
    fn write(&self, out: &mut Vec<u8>) {
        let mut id = [0; 32];
        let tag = match self {
            Self::Native => 0,
            Self::Shares(model) => {
                id = model.0;
                1
            }
            Self::Lp(pool) => {
                id = pool.0;
                2
            }
            Self::Test(number) => {
                id[28..].copy_from_slice(&number.to_be_bytes());
                3
            }
        };
        out.push(tag);
        out.extend_from_slice(&id);
    }
    fn read(bytes: &[u8]) -> Self {
        let id: [u8; 32] = bytes[1..].try_into().expect("the caller gives exactly LEN bytes");
        match bytes[0] {
            0 => Self::Native,
            1 => Self::Shares(ModelId(id)),
            2 => Self::Lp(PoolId(id)),
            _ => Self::Test(u32::from_be_bytes(id[28..].try_into().expect("four bytes"))),
        }
    }
}

impl KeyPart for u64 {
    const LEN: usize = 8;
    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.to_be_bytes());
    }
    fn read(bytes: &[u8]) -> Self {
        Self::from_be_bytes(bytes.try_into().expect("the caller gives exactly LEN bytes"))
    }
}

impl KeyPart for () {
    const LEN: usize = 0;
    fn write(&self, _: &mut Vec<u8>) {}
    fn read(_: &[u8]) -> Self {}
}

impl<A: KeyPart, B: KeyPart> KeyPart for (A, B) {
    const LEN: usize = A::LEN + B::LEN;
    fn write(&self, out: &mut Vec<u8>) {
        self.0.write(out);
        self.1.write(out);
    }
    fn read(bytes: &[u8]) -> Self {
        (A::read(&bytes[..A::LEN]), B::read(&bytes[A::LEN..]))
    }
}

/// A typed map: one prefix of the key space.
pub struct Map<K, V> {
    prefix: u8,
    types: PhantomData<fn(K) -> V>,
}

impl<K: KeyPart, V: BorshSerialize + BorshDeserialize> Map<K, V> {
    /// The map at `prefix`; every map of the ledger has its own.
    pub const fn new(prefix: u8) -> Self {
        Self { prefix, types: PhantomData }
    }
    /// The full key of an entry.
    pub fn key(&self, key: &K) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(1 + K::LEN);
        bytes.push(self.prefix);
        key.write(&mut bytes);
        bytes
    }
    /// The value at `key`.
    pub fn get(&self, state: &dyn StateRead, key: &K) -> Option<V> {
        state.get(&self.key(key)).map(|bytes| Self::value(&bytes))
    }
    /// Whether there is a value at `key`.
    pub fn has(&self, state: &dyn StateRead, key: &K) -> bool {
        state.get(&self.key(key)).is_some()
    }
    /// Writes a value.
    pub fn set(&self, state: &mut Overlay<'_>, key: &K, value: &V) {
        state.put(self.key(key), Some(encode(value)));
    }
    /// Removes a value.
    pub fn remove(&self, state: &mut Overlay<'_>, key: &K) {
        state.put(self.key(key), None);
    }
    /// The first `limit` entries in key order.
    pub fn first(&self, state: &dyn StateRead, limit: usize) -> Vec<(K, V)> {
        self.entries(state.scan(&[self.prefix], &[self.prefix + 1], limit))
    }
    /// The first `limit` entries whose key is at least `from` and below `to`.
    pub fn range(&self, state: &dyn StateRead, from: &K, to: &K, limit: usize) -> Vec<(K, V)> {
        self.entries(state.scan(&self.key(from), &self.key(to), limit))
    }
    /// The first `limit` entries that come after `after` in key order.
    pub fn after(&self, state: &dyn StateRead, after: &K, limit: usize) -> Vec<(K, V)> {
        let mut from = self.key(after);
        from.push(0);
        self.entries(state.scan(&from, &[self.prefix + 1], limit))
    }
    fn entries(&self, raw: Vec<(Vec<u8>, Vec<u8>)>) -> Vec<(K, V)> {
        raw.into_iter().map(|(key, value)| (K::read(&key[1..]), Self::value(&value))).collect()
    }
    fn value(bytes: &[u8]) -> V {
        decode(bytes).expect("the ledger itself wrote this value with the same codec")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NUMBERS: Map<u64, u64> = Map::new(9);

    proptest! {
        /// An overlay reads exactly like a map to which its writes were applied.
        #[test]
        fn an_overlay_scans_like_the_applied_map(
            base in proptest::collection::btree_map(0u64..40, any::<u64>(), 0..20),
            changes in proptest::collection::vec((0u64..40, proptest::option::of(any::<u64>())), 0..30),
            from in 0u64..40, length in 0u64..40, limit in 0usize..25,
        ) {
            let mut state: BTreeMap<_, _> = base.iter().map(|(k, v)| (NUMBERS.key(k), encode(v))).collect();
            let copy = state.clone();
            let mut overlay = Overlay::new(&copy);
            for (key, value) in &changes {
                match value {
                    Some(value) => NUMBERS.set(&mut overlay, key, value),
                    None => NUMBERS.remove(&mut overlay, key),
                }
            }
            let seen = NUMBERS.range(&overlay, &from, &(from + length), limit);
            apply(&mut state, overlay.into_writes());
            prop_assert_eq!(seen, NUMBERS.range(&state, &from, &(from + length), limit));
        }
    }
}
