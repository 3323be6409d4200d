//! Directories in memory: a list of paths and bytes becomes a tree of directories with one root.

use std::{
    collections::{BTreeMap, btree_map},
    convert::Infallible,
};

use crate::{
    Cid,
    directory::PATH_DEPTH_MAX,
    store::{BlockStore, StoreError},
    unixfs::{BlockSink, DirectoryError, DirectoryImporter, FinishError, Imported, Profile, import_bytes, nowhere},
};

/// Why a list of files is not a tree.
#[derive(Debug, thiserror::Error)]
pub enum TreeError<E> {
    #[error("path {0:?} has more than {PATH_DEPTH_MAX} names, or none")]
    Path(String),
    #[error("path {0:?} lies below a file, or is there twice")]
    Conflict(String),
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    #[error("cannot keep a block: {0}")]
    Sink(E),
}

enum Branch<'a> {
    File(&'a [u8]),
    Directory(BTreeMap<&'a str, Branch<'a>>),
}

/// Imports `files`, pairs of a path such as `weights/layer-0` and bytes, in any order. Every block goes to `sink`.
pub fn import_tree<'a, S: BlockSink>(
    profile: Profile,
    files: impl IntoIterator<Item = (&'a str, &'a [u8])>,
    sink: &mut S,
) -> Result<Imported, TreeError<S::Error>> {
    let mut root = BTreeMap::new();
    for (path, bytes) in files {
        insert(&mut root, path, bytes)?;
    }
    import_branches(profile, root, sink)
}

/// The name of the directory with these files under [`Profile::V1_2025`].
pub fn tree_cid<'a>(files: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> Result<Cid, TreeError<Infallible>> {
    Ok(import_tree(Profile::V1_2025, files, &mut nowhere)?.cid)
}

/// Imports `files` into a store; see [`import_tree`].
pub fn put_tree<'a, S: BlockStore + ?Sized>(
    store: &S,
    profile: Profile,
    files: impl IntoIterator<Item = (&'a str, &'a [u8])>,
) -> Result<Imported, TreeError<StoreError>> {
    import_tree(profile, files, &mut |cid: &Cid, block: &[u8]| store.put(cid, block))
}

fn insert<'a, E>(root: &mut BTreeMap<&'a str, Branch<'a>>, path: &'a str, bytes: &'a [u8]) -> Result<(), TreeError<E>> {
    let mut names: Vec<_> = path.split('/').collect();
    let last = names.pop().unwrap_or_default();
    if last.is_empty() || names.len() >= PATH_DEPTH_MAX {
        return Err(TreeError::Path(path.to_owned()));
    }
    let mut directory = root;
    for name in names {
        match directory.entry(name).or_insert_with(|| Branch::Directory(BTreeMap::new())) {
            Branch::Directory(inner) => directory = inner,
            Branch::File(_) => return Err(TreeError::Conflict(path.to_owned())),
        }
    }
    match directory.entry(last) {
        btree_map::Entry::Vacant(entry) => entry.insert(Branch::File(bytes)),
        btree_map::Entry::Occupied(_) => return Err(TreeError::Conflict(path.to_owned())),
    };
    Ok(())
}

// As deep as the longest path, which is bounded.
fn import_branches<S: BlockSink>(
    profile: Profile,
    branches: BTreeMap<&str, Branch<'_>>,
    sink: &mut S,
) -> Result<Imported, TreeError<S::Error>> {
    let mut directory = DirectoryImporter::new(profile);
    for (name, branch) in branches {
        let imported = match branch {
            Branch::File(bytes) => import_bytes(profile, bytes, sink).map_err(TreeError::Sink)?,
            Branch::Directory(inner) => import_branches(profile, inner, sink)?,
        };
        directory.add(name, imported)?;
    }
    Ok(directory.finish(sink)?)
}

impl<E> From<FinishError<E>> for TreeError<E> {
    fn from(error: FinishError<E>) -> Self {
        match error {
            FinishError::Directory(error) => error.into(),
            FinishError::Sink(error) => Self::Sink(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_of_the_files_does_not_matter() {
        let files = [("b/c", &b"1"[..]), ("a", b"2"), ("b/a", b"3")];
        let reversed = files.iter().rev().copied();
        assert_eq!(tree_cid(files).expect("tree"), tree_cid(reversed).expect("tree"));
    }

    #[test]
    fn lists_that_are_no_tree_are_refused() {
        let deep = "a/".repeat(PATH_DEPTH_MAX) + "a";
        let long = "a".repeat(256);
        for paths in [
            &["a", "a"][..],
            &["a", "a/b"],
            &["a/b", "a"],
            &[""],
            &["a/"],
            &["/a"],
            &["a//b"],
            &["a/../b"],
            &["."],
            &["a\0b"],
            &[&long],
            &[&deep],
        ] {
            let files = paths.iter().map(|path| (*path, &b""[..]));
            assert!(tree_cid(files).is_err(), "{paths:?}");
        }
    }
}
