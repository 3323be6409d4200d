//! Traces: a digest of everything that an answer came from, which two machines share if and only if
//! their logits do. (V-4) The definition, to the byte, is in `TRACE.md`.
//!
//! A trace has a key. Under a key that was not known when an answer was made, nobody has its root but
//! who has the logits.

use crate::{
    encoder::WatchLayers,
    generate::{FinishReason, Watch},
    math::canonical_bits,
};

/// Version of the definition in `TRACE.md`.
pub const TRACE_VERSION: u32 = 1;

/// What is hashed with before anything else, so that no two kinds of input are ever the same bytes.
#[derive(Clone, Copy)]
enum Tag {
    Token = 0,
    Layer = 1,
    Node = 2,
    Root = 3,
}

/// The key of a trace's hashes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceKey(pub [u8; 32]);

impl TraceKey {
    /// The key that an order's seed gives.
    pub fn from_seed(seed: u64) -> Self {
        Self(blake3::derive_key("althing trace key of a seed, version 1", &seed.to_le_bytes()))
    }
}

/// What an answer ended by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TraceEnd {
    /// The model ended it, or a stop text came.
    Stop = 0,
    /// The most tokens were reached.
    Length = 1,
    /// It has no end of its own: embeddings.
    Whole = 2,
}

impl From<FinishReason> for TraceEnd {
    fn from(reason: FinishReason) -> Self {
        match reason {
            FinishReason::Stop => Self::Stop,
            FinishReason::Length => Self::Length,
        }
    }
}

/// What a root is bound to beside the steps themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceBinding<'a> {
    /// The package's CID, its bytes.
    pub package: &'a [u8],
    /// SHA-256 of the input's bytes.
    pub input_hash: [u8; 32],
    pub seed: u64,
    pub end: TraceEnd,
}

/// The steps of one answer, in order. As a [`Watch`] or [`WatchLayers`] it follows a run.
#[derive(Clone, Debug)]
pub struct Trace {
    key: TraceKey,
    leaves: Vec<[u8; 32]>,
}

impl Trace {
    /// No steps yet.
    pub fn new(key: TraceKey) -> Self {
        Self { key, leaves: Vec::new() }
    }

    /// The root over all steps.
    pub fn root(&self, binding: &TraceBinding<'_>) -> [u8; 32] {
        let TraceBinding { package, input_hash, seed, end } = binding;
        let mut hasher = self.hasher(Tag::Root);
        hasher.update(&TRACE_VERSION.to_le_bytes());
        hasher.update(&(package.len() as u64).to_le_bytes()).update(package);
        hasher.update(input_hash).update(&seed.to_le_bytes()).update(&[*end as u8]);
        hasher.update(&(self.leaves.len() as u64).to_le_bytes());
        if let Some(tree) = self.tree(&self.leaves) {
            hasher.update(&tree);
        }
        hasher.finalize().into()
    }

    /// The tree's topmost node: the left part is the largest power of two below the whole.
    fn tree(&self, leaves: &[[u8; 32]]) -> Option<[u8; 32]> {
        match leaves {
            [] => None,
            [leaf] => Some(*leaf),
            leaves => {
                let (left, right) = leaves.split_at(leaves.len().next_power_of_two() / 2);
                let mut hasher = self.hasher(Tag::Node);
                [left, right].into_iter().filter_map(|part| self.tree(part)).for_each(|node| {
                    hasher.update(&node);
                });
                Some(hasher.finalize().into())
            }
        }
    }

    fn leaf(&mut self, tag: Tag, first: u64, second: u64, values: &[f32]) {
        let mut hasher = self.hasher(tag);
        hasher.update(&first.to_le_bytes()).update(&second.to_le_bytes());
        let mut bytes = [0; 16 << 10];
        for values in values.chunks(bytes.len() / 4) {
            for (value, bytes) in values.iter().zip(bytes.as_chunks_mut().0) {
                *bytes = canonical_bits(*value).to_le_bytes();
            }
            hasher.update(&bytes[..values.len() * 4]);
        }
        self.leaves.push(hasher.finalize().into());
    }

    fn hasher(&self, tag: Tag) -> blake3::Hasher {
        let mut hasher = blake3::Hasher::new_keyed(&self.key.0);
        hasher.update(&[tag as u8]);
        hasher
    }
}

impl Watch for &mut Trace {
    fn token(&mut self, token: u32, logits: &[f32]) {
        self.leaf(Tag::Token, self.leaves.len() as u64, token.into(), logits);
    }

    fn text(&mut self, _piece: &str) -> bool {
        true
    }
}

impl WatchLayers for Trace {
    fn layer(&mut self, text: usize, layer: usize, vectors: &[f32]) {
        self.leaf(Tag::Layer, text as u64, layer as u64, vectors);
    }
}
