//! The state in memory.
//!
//! Execution reads state synchronously, so all of it is kept in memory: one ordered map as of the
//! last finalized block, and for every block above it that is still under discussion a layer with
//! what that block wrote. States are named by their state root. When a block is finalized its
//! layer is folded into the map, and layers that do not descend from it are dropped.

use crate::machine::{BlockOutput, StateRead};
use std::{collections::BTreeMap, ops::Bound, sync::Arc};

/// Names a state.
pub(crate) type Root = [u8; 32];

/// The state to finalize does not follow from the finalized one.
#[derive(Debug, thiserror::Error)]
#[error("the state does not follow from the finalized one")]
pub(crate) struct NotNext;

/// What one block did to the state of its parent.
struct Layer {
    parent: Root,
    output: Arc<BlockOutput>,
}

/// The finalized state and the layers above it.
pub(crate) struct LiveState {
    base: BTreeMap<Vec<u8>, Vec<u8>>,
    base_root: Root,
    layers: BTreeMap<Root, Layer>,
}

impl LiveState {
    pub(crate) fn new(base_root: Root, base: BTreeMap<Vec<u8>, Vec<u8>>) -> Self {
        Self { base, base_root, layers: BTreeMap::new() }
    }

    /// The finalized state.
    pub(crate) fn base(&self) -> &BTreeMap<Vec<u8>, Vec<u8>> {
        &self.base
    }

    /// The state named `root`, unless it is unknown or no longer of interest.
    pub(crate) fn view(&self, root: &Root) -> Option<View<'_>> {
        let mut layers = Vec::new();
        let mut at = *root;
        while at != self.base_root {
            let layer = self.layers.get(&at)?;
            layers.push(layer.output.as_ref());
            at = layer.parent;
        }
        Some(View { base: &self.base, layers })
    }

    /// Records that a block turns the state `parent` into `root`.
    pub(crate) fn insert(&mut self, root: Root, parent: Root, output: Arc<BlockOutput>) {
        if root != self.base_root {
            self.layers.insert(root, Layer { parent, output });
        }
    }

    /// What the block that led to `root` did, unless it is finalized or unknown.
    pub(crate) fn output(&self, root: &Root) -> Option<Arc<BlockOutput>> {
        self.layers.get(root).map(|layer| layer.output.clone())
    }

    /// Makes `root` the finalized state. Its parent must be the finalized state so far.
    pub(crate) fn finalize(&mut self, root: &Root) -> Result<(), NotNext> {
        let parent = self.layers.get(root).map(|layer| layer.parent);
        if parent != Some(self.base_root) {
            return Err(NotNext);
        }
        let Some(layer) = self.layers.remove(root) else {
            return Err(NotNext);
        };
        for (key, value) in &layer.output.writes {
            match value {
                Some(value) => self.base.insert(key.clone(), value.clone()),
                None => self.base.remove(key),
            };
        }
        self.base_root = *root;
        let kept: Vec<Root> = self.layers.keys().filter(|root| self.view(root).is_some()).copied().collect();
        self.layers.retain(|root, _| kept.contains(root));
        Ok(())
    }
}

/// A state: the finalized one with layers on top, newest first.
pub(crate) struct View<'a> {
    base: &'a BTreeMap<Vec<u8>, Vec<u8>>,
    layers: Vec<&'a BlockOutput>,
}

impl StateRead for View<'_> {
    fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        for layer in &self.layers {
            if let Some(value) = layer.writes.get(key) {
                return value.clone();
            }
        }
        self.base.get(key).cloned()
    }

    fn scan(&self, from: &[u8], to: &[u8], limit: usize) -> Vec<(Vec<u8>, Vec<u8>)> {
        if from >= to {
            return Vec::new();
        }
        let range = || (Bound::Included(from), Bound::Excluded(to));
        let mut written: BTreeMap<&[u8], Option<&[u8]>> = BTreeMap::new();
        for layer in &self.layers {
            for (key, value) in layer.writes.range::<[u8], _>(range()) {
                written.entry(key).or_insert(value.as_deref());
            }
        }
        let mut written = written.into_iter().peekable();
        let mut base = self.base.range::<[u8], _>(range()).peekable();
        let mut found = Vec::new();
        while found.len() < limit {
            let take_written = match (written.peek(), base.peek()) {
                (None, None) => break,
                (Some(_), None) => true,
                (None, Some(_)) => false,
                (Some((key, _)), Some((base_key, _))) => *key <= base_key.as_slice(),
            };
            if take_written {
                let (key, value) = written.next().expect("peeked");
                if base.peek().is_some_and(|(base_key, _)| base_key.as_slice() == key) {
                    base.next();
                }
                if let Some(value) = value {
                    found.push((key.to_vec(), value.to_vec()));
                }
            } else {
                let (key, value) = base.next().expect("peeked");
                found.push((key.clone(), value.clone()));
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(writes: &[(&str, Option<&str>)]) -> Arc<BlockOutput> {
        Arc::new(BlockOutput {
            writes: writes.iter().map(|(k, v)| (k.as_bytes().to_vec(), v.map(|v| v.as_bytes().to_vec()))).collect(),
            ..Default::default()
        })
    }

    fn base() -> LiveState {
        let entries = [("a", "1"), ("b", "2"), ("d", "4")];
        let entries = entries.map(|(k, v)| (k.as_bytes().to_vec(), v.as_bytes().to_vec()));
        LiveState::new([0; 32], entries.into_iter().collect())
    }

    fn read(view: &View<'_>, limit: usize) -> String {
        view.scan(b"a", b"z", limit)
            .iter()
            .map(|(k, v)| format!("{}{}", String::from_utf8_lossy(k), String::from_utf8_lossy(v)))
            .collect::<Vec<_>>()
            .join(" ")
    }

    #[test]
    fn a_view_sees_the_newest_write_of_its_own_branch() {
        let mut live = base();
        live.insert([1; 32], [0; 32], output(&[("b", None), ("c", Some("3"))]));
        live.insert([2; 32], [1; 32], output(&[("b", Some("9")), ("d", None)]));
        live.insert([3; 32], [0; 32], output(&[("e", Some("5"))]));
        let cases = [
            (0, 9, "a1 b2 d4"),
            (1, 9, "a1 c3 d4"),
            (2, 9, "a1 b9 c3"),
            (3, 9, "a1 b2 d4 e5"),
            (2, 2, "a1 b9"),
            (1, 0, ""),
        ];
        for (root, limit, expected) in cases {
            let view = live.view(&[root; 32]).unwrap();
            assert_eq!(read(&view, limit), expected, "root {root} limit {limit}");
        }
        assert_eq!(live.view(&[2; 32]).unwrap().get(b"d"), None);
        assert!(live.view(&[4; 32]).is_none());
    }

    #[test]
    fn finalizing_folds_the_layer_and_drops_competing_branches() {
        let mut live = base();
        live.insert([1; 32], [0; 32], output(&[("b", None)]));
        live.insert([2; 32], [1; 32], output(&[("c", Some("3"))]));
        live.insert([3; 32], [0; 32], output(&[("e", Some("5"))]));
        live.insert([4; 32], [3; 32], output(&[("f", Some("6"))]));
        assert!(live.finalize(&[2; 32]).is_err(), "not next");
        assert!(live.finalize(&[1; 32]).is_ok());
        assert_eq!(live.base_root, [1; 32]);
        assert_eq!(read(&live.view(&[1; 32]).unwrap(), 9), "a1 d4");
        assert_eq!(read(&live.view(&[2; 32]).unwrap(), 9), "a1 c3 d4");
        assert!(live.view(&[3; 32]).is_none());
        assert!(live.view(&[4; 32]).is_none());
    }
}
