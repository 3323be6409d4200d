//! Binary Merkle trees over lists of byte strings, as in RFC 6962.
//!
//! Headers commit to transactions, receipts and events with these roots, so that a client that
//! holds a header can check a single item. Leaves and inner nodes are hashed under different
//! prefixes; the root also binds the number of items.

use commonware_cryptography::{Hasher as _, Sha256};

type Hash = [u8; 32];

fn leaf(item: &[u8]) -> Hash {
    Sha256::hash(&[&[0], item]).0
}

fn node(left: &Hash, right: &Hash) -> Hash {
    Sha256::hash(&[&[1], left, right]).0
}

fn seal(count: usize, top: &Hash) -> Hash {
    Sha256::hash(&[&[2], &(count as u64).to_be_bytes(), top]).0
}

/// The largest power of two smaller than `n`, for `n > 1`.
fn split(n: usize) -> usize {
    n.next_power_of_two() / 2
}

fn subtree(leaves: &[Hash]) -> Hash {
    match leaves {
        [] => [0; 32],
        [only] => *only,
        _ => {
            let (left, right) = leaves.split_at(split(leaves.len()));
            node(&subtree(left), &subtree(right))
        }
    }
}

/// The root over `items`.
pub fn root<T: AsRef<[u8]>>(items: &[T]) -> Hash {
    let leaves: Vec<Hash> = items.iter().map(|item| leaf(item.as_ref())).collect();
    seal(items.len(), &subtree(&leaves))
}

/// The sibling hashes from item `index` up to the root, lowest first.
pub fn path<T: AsRef<[u8]>>(items: &[T], index: usize) -> Option<Vec<Hash>> {
    if index >= items.len() {
        return None;
    }
    let leaves: Vec<Hash> = items.iter().map(|item| leaf(item.as_ref())).collect();
    let (mut part, mut index, mut path) = (leaves.as_slice(), index, Vec::new());
    while part.len() > 1 {
        let (left, right) = part.split_at(split(part.len()));
        if index < left.len() {
            path.push(subtree(right));
            part = left;
        } else {
            path.push(subtree(left));
            index -= left.len();
            part = right;
        }
    }
    path.reverse();
    Some(path)
}

/// Whether `item` is number `index` of `count` items under `root`.
pub fn verify(root: &Hash, item: &[u8], index: usize, count: usize, path: &[Hash]) -> bool {
    if index >= count {
        return false;
    }
    // Turns taken from the root down to the item; applied in reverse on the way up.
    let (mut size, mut index, mut on_left) = (count, index, Vec::new());
    while size > 1 {
        let left = split(size);
        on_left.push(index < left);
        if index < left {
            size = left;
        } else {
            index -= left;
            size -= left;
        }
    }
    if path.len() != on_left.len() {
        return false;
    }
    let top = path.iter().zip(on_left.iter().rev()).fold(leaf(item), |hash, (sibling, on_left)| match on_left {
        true => node(&hash, sibling),
        false => node(sibling, &hash),
    });
    seal(count, &top) == *root
}

#[cfg(test)]
mod tests {
    use super::*;

    fn items(n: usize) -> Vec<Vec<u8>> {
        (0..n).map(|i| vec![i as u8; i % 5]).collect()
    }

    #[test]
    fn every_item_of_every_small_list_can_be_proven() {
        for n in 1..40 {
            let items = items(n);
            let root = root(&items);
            for (i, item) in items.iter().enumerate() {
                let path = path(&items, i).unwrap();
                assert!(verify(&root, item, i, n, &path), "{i} of {n}");
                assert!(!verify(&root, b"another", i, n, &path));
                assert!(!verify(&root, item, i, n + 1, &path));
                assert!(!verify(&root, item, n, n, &path));
            }
        }
    }

    #[test]
    fn an_empty_list_has_a_root_and_no_paths() {
        assert_eq!(root::<Vec<u8>>(&[]), root::<Vec<u8>>(&[]));
        assert!(path::<Vec<u8>>(&[], 0).is_none());
        assert_ne!(root::<Vec<u8>>(&[]), root(&[Vec::<u8>::new()]));
    }
}
