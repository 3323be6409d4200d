//! Blocks on disk, and directories moved in and out.
//!
//! ```text
//! <root>/blocks/<first two hex digits>/<sha2-256 in hex>   one block, so `sha256sum` checks it
//! <root>/pins/<CID>                                        empty; what garbage collection keeps
//! <root>/tmp/<process>-<number>                            a block on its way
//! ```
//!
//! A block is written to `tmp`, forced to disk and then renamed, so a crash at any moment leaves whole blocks only.
//! What a crash leaves in `tmp` is removed at a later open, once it is old enough that no living process can own it.
//! Several processes may share a store; each counts the bytes that it found and wrote itself.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{self, Read, Write},
    path::{Path, PathBuf},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use crate::{
    BLOCK_SIZE_MAX, Cid,
    read::{Object, PATH_DEPTH_MAX, ReadError, copy_file, stat},
    store::{BlockStore, StoreError, check_block, put_file},
    traversal::DagWalk,
    unixfs::{DirectoryError, DirectoryImporter, Imported, Profile},
};

/// Age at which a file in `tmp` belongs to nobody any more.
pub const TEMPORARY_AGE_MAX: Duration = Duration::from_secs(3600);

/// Most files and directories that one export writes.
pub const EXPORT_ENTRIES_MAX: u64 = 10_000;

/// A store of blocks in a directory of its own.
#[derive(Debug)]
pub struct BlobStore {
    root: PathBuf,
    bytes_max: u64,
    /// Bytes of all blocks. Held while a block gets its place or is removed.
    bytes: Mutex<u64>,
}

/// What garbage collection removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    pub blocks: u64,
    pub bytes: u64,
}

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

/// Names a path in an error of the operating system.
fn at<'a>(path: &'a Path) -> impl FnOnce(io::Error) -> StoreError + use<'a> {
    move |source| StoreError::Io { path: path.to_owned(), source }
}

/// Forces the entries of a directory to disk, so that a rename survives a crash.
fn sync_directory(path: &Path) -> Result<(), StoreError> {
    if cfg!(unix) { File::open(path).and_then(|directory| directory.sync_all()).map_err(at(path)) } else { Ok(()) }
}

impl BlobStore {
    /// Opens or makes the store in `root`, without a bound on its size.
    pub fn open(root: impl Into<PathBuf>) -> Result<Self, StoreError> {
        Self::open_bounded(root, u64::MAX)
    }

    /// Opens or makes the store in `root`; its blocks will not have more than `bytes_max` bytes together.
    pub fn open_bounded(root: impl Into<PathBuf>, bytes_max: u64) -> Result<Self, StoreError> {
        let root = root.into();
        let blocks = root.join("blocks");
        for path in [&blocks, &root.join("pins"), &root.join("tmp")] {
            fs::create_dir_all(path).map_err(at(path))?;
        }
        for byte in 0..=u8::MAX {
            let path = blocks.join(hex::encode([byte]));
            match fs::create_dir(&path) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(at(&path)(error));
                }
                _ => {}
            }
        }
        sync_directory(&blocks)?;
        sync_directory(&root)?;

        let store = Self { root, bytes_max, bytes: Mutex::new(0) };
        store.remove_leftovers()?;
        let mut bytes = 0;
        store.for_each_block(|_, metadata| {
            bytes += metadata.len();
            Ok(())
        })?;
        *store.bytes() = bytes;
        Ok(store)
    }

    /// Bytes of all blocks.
    pub fn size(&self) -> u64 {
        *self.bytes()
    }

    /// Keeps everything below `cid` from garbage collection.
    pub fn pin(&self, cid: &Cid) -> Result<(), StoreError> {
        let path = self.pin_path(cid);
        File::create(&path).map_err(at(&path))?;
        sync_directory(&self.root.join("pins"))
    }

    /// Takes a pin away; that there was none is no error.
    pub fn unpin(&self, cid: &Cid) -> Result<(), StoreError> {
        let path = self.pin_path(cid);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(at(&path)(error)),
            _ => Ok(()),
        }
    }

    /// All pins, in the order of their names.
    pub fn pins(&self) -> Result<BTreeSet<Cid>, StoreError> {
        let path = self.root.join("pins");
        let mut pins = BTreeSet::new();
        for entry in fs::read_dir(&path).map_err(at(&path))? {
            let name = entry.map_err(at(&path))?.file_name();
            pins.extend(name.to_str().and_then(|name| name.parse::<Cid>().ok()));
        }
        Ok(pins)
    }

    /// Removes every block that lies below no pin and was put, or put again, more than `age_min` ago.
    ///
    /// `age_min` is to be longer than an import takes until its root is pinned.
    pub fn collect_garbage(&self, age_min: Duration) -> Result<Collected, ReadError> {
        let mut kept = BTreeSet::new();
        for pin in self.pins()? {
            let mut walk = DagWalk::new(pin, u64::MAX);
            while let Some(cid) = walk.wanted() {
                kept.insert(hex::encode(cid.digest()));
                match self.get(&cid)? {
                    Some(block) => walk.take(&block)?,
                    None => walk.skip(),
                }
            }
        }

        let mut collected = Collected::default();
        self.for_each_block(|path, _| {
            let is_kept = path.file_name().and_then(|name| name.to_str()).is_none_or(|name| kept.contains(name));
            if is_kept {
                return Ok(());
            }
            let mut bytes = self.bytes();
            // Looked at under the lock: the block may have been put again by now.
            let metadata = fs::metadata(path).map_err(at(path))?;
            if is_older(&metadata, age_min) {
                fs::remove_file(path).map_err(at(path))?;
                *bytes = bytes.saturating_sub(metadata.len());
                collected.blocks += 1;
                collected.bytes += metadata.len();
            }
            Ok(())
        })?;
        Ok(collected)
    }

    /// Where a block lies, whether it is there or not.
    pub fn block_path(&self, cid: &Cid) -> PathBuf {
        let name = hex::encode(cid.digest());
        self.root.join("blocks").join(&name[..2]).join(name)
    }

    fn pin_path(&self, cid: &Cid) -> PathBuf {
        self.root.join("pins").join(cid.to_string())
    }

    fn bytes(&self) -> MutexGuard<'_, u64> {
        self.bytes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn remove_leftovers(&self) -> Result<(), StoreError> {
        let directory = self.root.join("tmp");
        for entry in fs::read_dir(&directory).map_err(at(&directory))? {
            let entry = entry.map_err(at(&directory))?;
            // Another process may finish with the file at any time.
            if entry.metadata().is_ok_and(|metadata| is_older(&metadata, TEMPORARY_AGE_MAX)) {
                let _ = fs::remove_file(entry.path());
            }
        }
        Ok(())
    }

    fn for_each_block(
        &self,
        mut visit: impl FnMut(&Path, &fs::Metadata) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        for byte in 0..=u8::MAX {
            let directory = self.root.join("blocks").join(hex::encode([byte]));
            for entry in fs::read_dir(&directory).map_err(at(&directory))? {
                let path = entry.map_err(at(&directory))?.path();
                match fs::metadata(&path) {
                    Ok(metadata) => visit(&path, &metadata)?,
                    // Another process collected it.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => return Err(at(&path)(error)),
                }
            }
        }
        Ok(())
    }

    /// A file with the bytes, forced to disk, removed again unless it gets a place.
    fn write_temporary(&self, bytes: &[u8]) -> Result<Temporary, StoreError> {
        // One count for the process, so that two stores on the same directory do not meet.
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let temporary = Temporary(self.root.join("tmp").join(format!("{}-{number}", std::process::id())));
        let path = &temporary.0;
        let mut file = File::create(path).map_err(at(path))?;
        file.write_all(bytes).map_err(at(path))?;
        file.sync_all().map_err(at(path))?;
        Ok(temporary)
    }
}

impl BlockStore for BlobStore {
    fn get(&self, cid: &Cid) -> Result<Option<Vec<u8>>, StoreError> {
        let path = self.block_path(cid);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(at(&path)(error)),
        };
        let mut block = Vec::new();
        file.take(BLOCK_SIZE_MAX as u64 + 1).read_to_end(&mut block).map_err(at(&path))?;
        if block.len() > BLOCK_SIZE_MAX || !cid.names(&block) {
            return Err(StoreError::Corrupt { cid: *cid });
        }
        Ok(Some(block))
    }

    /// Keeps a block. A block that is there already becomes young again; a damaged one is replaced.
    fn put(&self, cid: &Cid, block: &[u8]) -> Result<(), StoreError> {
        check_block(cid, block)?;
        let path = self.block_path(cid);
        if matches!(self.get(cid), Ok(Some(_))) {
            let _bytes = self.bytes();
            #[allow(clippy::disallowed_methods)] // the file system's time, for garbage collection alone
            match File::options().append(true).open(&path).and_then(|file| file.set_modified(SystemTime::now())) {
                // Collected in this very moment: it is written again.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                touched => return touched.map_err(at(&path)),
            }
        }
        let temporary = self.write_temporary(block)?;
        let mut bytes = self.bytes();
        let bytes_replaced = fs::metadata(&path).map_or(0, |metadata| metadata.len());
        let bytes_after = bytes.saturating_sub(bytes_replaced).saturating_add(block.len() as u64);
        if bytes_after > self.bytes_max {
            return Err(StoreError::Full { bytes_max: self.bytes_max });
        }
        fs::rename(&temporary.0, &path).map_err(at(&path))?;
        *bytes = bytes_after;
        drop(bytes);
        path.parent().map_or(Ok(()), sync_directory)
    }

    fn has(&self, cid: &Cid) -> Result<bool, StoreError> {
        let path = self.block_path(cid);
        path.try_exists().map_err(at(&path))
    }
}

struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        // After a rename there is nothing left to remove.
        let _ = fs::remove_file(&self.0);
    }
}

fn is_older(metadata: &fs::Metadata, age: Duration) -> bool {
    let modified = metadata.modified().ok();
    modified.and_then(|modified| modified.elapsed().ok()).is_some_and(|elapsed| elapsed >= age)
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
    let mut directory = DirectoryImporter::new(profile);
    for entry in fs::read_dir(path).map_err(at(path))? {
        let inner = entry.map_err(at(path))?.path();
        let name = inner.file_name().and_then(|name| name.to_str()).ok_or_else(|| PathError::NotUtf8(inner.clone()))?;
        let imported = put_path_below(store, profile, &inner, depth + 1)?;
        directory.add(name, imported).map_err(|source| PathError::Directory { path: path.to_owned(), source })?;
    }
    Ok(directory.finish(&mut |cid: &Cid, block: &[u8]| store.put(cid, block))?)
}

/// Writes the file or directory `cid` to `target`, which must not exist yet: at most `size_max` bytes of files in at
/// most [`EXPORT_ENTRIES_MAX`] files and directories. Gives the number of bytes written. After an error `target` may
/// hold a part.
pub fn export<S: BlockStore + ?Sized>(store: &S, cid: &Cid, target: &Path, size_max: u64) -> Result<u64, ReadError> {
    let mut left = Left { size: size_max, entries: EXPORT_ENTRIES_MAX };
    export_below(store, cid, target, &mut left, 0)?;
    Ok(size_max - left.size)
}

/// What an export may still write. A few small blocks can describe endlessly many empty files.
struct Left {
    size: u64,
    entries: u64,
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
    left.entries = left.entries.checked_sub(1).ok_or(ReadError::TooManyEntries { cid: *cid })?;
    match stat(store, cid)? {
        Object::File { .. } => {
            let file = File::create_new(target).map_err(at(target))?;
            left.size -= copy_file(store, cid, left.size, file)?;
        }
        Object::Directory { entries } => {
            fs::create_dir(target).map_err(at(target))?;
            for entry in entries {
                // Names of entries were checked: none leads out of the directory.
                export_below(store, &entry.cid, &target.join(&entry.name), left, depth + 1)?;
            }
        }
    }
    Ok(())
}
