//! Files and directories moved in and out.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
};

use super::at;
use crate::{
    Cid,
    directory::{PATH_DEPTH_MAX, list_at_most},
    read::{Object, ReadError, copy_file, stat},
    store::{BlockStore, StoreError, put_file},
    unixfs::{DirectoryError, DirectoryImporter, FinishError, Imported, Profile},
};

/// Most files and directories that an export need write for anybody.
pub const EXPORT_ENTRIES_MAX: usize = 1 << 20;

/// Why a directory on disk cannot be imported.
#[derive(Debug, thiserror::Error)]
pub enum PathError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("{path}: {source}", path = path.display())]
    Directory { path: PathBuf, source: DirectoryError },
    #[error("{path} is neither a plain file nor a directory", path = .0.display())]
    NotPlain(PathBuf),
    #[error("{path} has a name that is not UTF-8", path = .0.display())]
    NotUtf8(PathBuf),
    #[error("{path} lies more than {PATH_DEPTH_MAX} directories deep", path = .0.display())]
    TooDeep(PathBuf),
}

/// Imports the file or directory at `path`, with everything in it. Links and special files are errors.
pub fn put_path<S: BlockStore + ?Sized>(store: &S, profile: Profile, path: &Path) -> Result<Imported, PathError> {
    put_path_below(store, profile, path, 0)
}

fn put_path_below<S: BlockStore + ?Sized>(
    store: &S,
    profile: Profile,
    path: &Path,
    depth: usize,
) -> Result<Imported, PathError> {
    if depth > PATH_DEPTH_MAX {
        return Err(PathError::TooDeep(path.to_owned()));
    }
    let kind = fs::symlink_metadata(path).map_err(at(path))?.file_type();
    if kind.is_file() {
        return Ok(put_file(store, profile, File::open(path).map_err(at(path))?)?);
    }
    if !kind.is_dir() {
        return Err(PathError::NotPlain(path.to_owned()));
    }
    let refused = |source| PathError::Directory { path: path.to_owned(), source };
    let mut directory = DirectoryImporter::new(profile);
    for entry in fs::read_dir(path).map_err(at(path))? {
        let inner = entry.map_err(at(path))?.path();
        let name = inner.file_name().and_then(|name| name.to_str()).ok_or_else(|| PathError::NotUtf8(inner.clone()))?;
        let imported = put_path_below(store, profile, &inner, depth + 1)?;
        directory.add(name, imported).map_err(refused)?;
    }
    directory.finish(&mut |cid: &Cid, block: &[u8]| store.put(cid, block)).map_err(|error| match error {
        FinishError::Directory(source) => refused(source),
        FinishError::Sink(error) => error.into(),
    })
}

/// Writes the file or directory `cid` to `target`, which must not exist yet: at most `size_max` bytes of files in at
/// most `entries_max` files and directories below it. Gives the number of bytes written. After an error `target` may
/// hold a part.
pub fn export<S: BlockStore + ?Sized>(
    store: &S,
    cid: &Cid,
    target: &Path,
    size_max: u64,
    entries_max: usize,
) -> Result<u64, ReadError> {
    let mut left = Left { size: size_max, entries: entries_max };
    export_below(store, cid, target, &mut left, 0)?;
    Ok(size_max - left.size)
}

/// What an export may still write. A few small blocks can describe endlessly many empty files.
struct Left {
    size: u64,
    entries: usize,
}

fn export_below<S: BlockStore + ?Sized>(
    store: &S,
    cid: &Cid,
    target: &Path,
    left: &mut Left,
    depth: usize,
) -> Result<(), ReadError> {
    if depth > PATH_DEPTH_MAX {
        return Err(ReadError::PathTooDeep);
    }
    match stat(store, cid)? {
        Object::File { .. } => {
            let file = File::create_new(target).map_err(at(target))?;
            left.size -= copy_file(store, cid, left.size, file)?;
        }
        Object::Directory => {
            let entries = list_at_most(store, cid, left.entries).map_err(|error| match error {
                ReadError::TooManyEntries { cid, .. } => ReadError::TooManyFiles { cid },
                error => error,
            })?;
            left.entries -= entries.len();
            fs::create_dir(target).map_err(at(target))?;
            for entry in entries {
                // Names of entries were checked: none leads out of the directory.
                export_below(store, &entry.cid, &target.join(&entry.name), left, depth + 1)?;
            }
        }
    }
    Ok(())
}
