//! Blocks on disk.
//!
//! ```text
//! <root>/blocks/<first two hex digits>/<sha2-256 in hex>   one block, so `sha256sum` checks it
//! <root>/pins/<name, percent-encoded>                      a CID: what is kept under this name
//! <root>/adding/<process>-<number>                         locked by whoever adds something that is not pinned yet
//! <root>/tmp/<process>-<number>                            a file on its way
//! <root>/lock                                              locked while a block gets its place, or loses it
//! ```
//!
//! Blocks and pins are written to `tmp`, forced to disk and then renamed, so a crash at any moment leaves whole ones only;
//! `keep` says where that is left to a pin. What a crash leaves in `tmp` is removed at a later open, once it is old enough
//! that no living process can own it.
//!
//! `keep` says what stays: pins, garbage collection and the quota. `paths` moves files and directories in and out.
//! Several processes may share a store; each counts the bytes that it found and wrote itself.

mod keep;
mod paths;

use std::{
    fmt,
    fs::{self, File, FileTimes},
    io::{self, Read, Write},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use crate::{
    BLOCK_SIZE_MAX, Cid,
    store::{BlockStore, StoreError, check_block},
};

pub use keep::{Adding, Collected, GRACE, Usage};
pub use paths::{EXPORT_ENTRIES_MAX, PathError, export, put_path};

/// Age at which a file in `tmp` belongs to nobody any more.
pub const TEMPORARY_AGE_MAX: Duration = Duration::from_secs(3600);
/// How exactly it is known when a block was used.
const USE_RESOLUTION: Duration = Duration::from_secs(60);

/// A store of blocks in a directory of its own.
#[derive(Debug)]
pub struct BlobStore {
    root: PathBuf,
    options: Options,
    lock: File,
    /// The directory of the blocks, open from the start, so that no error of writing back goes unnoticed.
    #[cfg(target_os = "linux")]
    blocks: File,
    counts: Mutex<Counts>,
    /// One looks for room at a time.
    evicting: Mutex<()>,
}

/// How a store is kept.
#[derive(Clone, Debug)]
pub struct Options {
    /// Most bytes of blocks that no pin reaches. See [`GRACE`] for what happens beyond.
    pub quota_bytes: u64,
    /// How long a block stays after it was last used, quota or not.
    pub grace: Duration,
    /// The file system's time, unless a test says otherwise.
    pub clock: FileClock,
}

impl Default for Options {
    fn default() -> Self {
        Self { quota_bytes: u64::MAX, grace: GRACE, clock: FileClock::default() }
    }
}

/// Says what time files get.
#[derive(Clone)]
pub struct FileClock(Arc<dyn Fn() -> SystemTime + Send + Sync>);

impl FileClock {
    pub fn new(now: impl Fn() -> SystemTime + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }

    fn now(&self) -> SystemTime {
        (self.0)()
    }
}

impl Default for FileClock {
    fn default() -> Self {
        #[allow(clippy::disallowed_methods)] // the file system's time, for what is kept how long
        Self::new(SystemTime::now)
    }
}

impl fmt::Debug for FileClock {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("FileClock")
    }
}

/// What this process knows of the size of the store.
#[derive(Debug, Default)]
struct Counts {
    /// Of all blocks.
    bytes: u64,
    /// Of those that count against the quota, if it is known; otherwise they have to be counted first.
    unpinned: Option<u64>,
    /// What is added at the moment, to be pinned later.
    adding: u32,
    /// Until then no room is looked for again.
    full_until: Option<SystemTime>,
}

impl Counts {
    /// Takes room for a block, if it is known to be there.
    fn reserve(&mut self, size: u64, quota_bytes: u64) -> bool {
        let unpinned = self.unpinned.and_then(|unpinned| unpinned.checked_add(size));
        let unpinned = unpinned.filter(|unpinned| *unpinned <= quota_bytes);
        if unpinned.is_some() {
            self.unpinned = unpinned;
        }
        unpinned.is_some()
    }
}

/// When a block is forced to disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Durability {
    /// Before the put returns.
    Now,
    /// At the latest before a pin that reaches it is written.
    WithPin,
}

impl Durability {
    /// Whether there is something to be done now. Where the blocks cannot be forced all at once, each is by itself.
    fn is_now(self) -> bool {
        self == Self::Now || !cfg!(target_os = "linux")
    }
}

/// Held while a block gets its place or loses it, against other threads and other processes.
struct Locked<'a> {
    counts: MutexGuard<'a, Counts>,
    file: &'a File,
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        // Closing the file would do it too.
        let _ = self.file.unlock();
    }
}

/// Names a path in an error of the operating system.
fn at<'a>(path: &'a Path) -> impl FnOnce(io::Error) -> StoreError + use<'a> {
    move |source| StoreError::Io { path: path.to_owned(), source }
}

/// Forces the entries of a directory to disk, so that a rename survives a crash.
fn sync_directory(path: &Path) -> Result<(), StoreError> {
    if cfg!(unix) { File::open(path).and_then(|directory| directory.sync_all()).map_err(at(path)) } else { Ok(()) }
}

/// Forces the bytes of a file to disk. When it was written or touched last need not survive.
fn sync_file(path: &Path) -> Result<(), StoreError> {
    File::options().append(true).open(path).and_then(|file| file.sync_data()).map_err(at(path))
}

/// When a block was written or touched.
fn modified(metadata: &fs::Metadata) -> SystemTime {
    metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH)
}

/// When a block was written, touched or read.
fn last_use(metadata: &fs::Metadata) -> SystemTime {
    modified(metadata).max(metadata.accessed().unwrap_or(SystemTime::UNIX_EPOCH))
}

impl BlobStore {
    /// Opens or makes the store in `root`, without a quota.
    pub fn open(root: impl Into<PathBuf>) -> Result<Self, StoreError> {
        Self::open_with(root, Options::default())
    }

    /// Opens or makes the store in `root`.
    pub fn open_with(root: impl Into<PathBuf>, options: Options) -> Result<Self, StoreError> {
        let root = root.into();
        let blocks = root.join("blocks");
        for path in [&blocks, &root.join("pins"), &root.join("adding"), &root.join("tmp")] {
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
        let path = root.join("lock");
        let lock = File::options().create(true).truncate(false).write(true).open(&path).map_err(at(&path))?;
        sync_directory(&blocks)?;
        sync_directory(&root)?;

        #[cfg(target_os = "linux")]
        let blocks = File::open(&blocks).map_err(at(&blocks))?;
        let store = Self {
            root,
            options,
            lock,
            #[cfg(target_os = "linux")]
            blocks,
            counts: Mutex::default(),
            evicting: Mutex::default(),
        };
        store.remove_leftovers()?;
        let mut bytes = 0;
        store.for_each_block(|_, metadata| {
            bytes += metadata.len();
            Ok(())
        })?;
        store.counts().bytes = bytes;
        Ok(store)
    }

    /// Bytes of all blocks.
    pub fn size(&self) -> u64 {
        self.counts().bytes
    }

    /// Where a block lies, whether it is there or not.
    pub fn block_path(&self, cid: &Cid) -> PathBuf {
        self.digest_path(cid.digest())
    }

    fn digest_path(&self, digest: &[u8; 32]) -> PathBuf {
        let name = hex::encode(digest);
        self.root.join("blocks").join(&name[..2]).join(name)
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn locked(&self) -> Result<Locked<'_>, StoreError> {
        let counts = self.counts();
        match self.lock.lock() {
            // Where files cannot be locked, processes had better not share a store.
            Err(error) if error.kind() != io::ErrorKind::Unsupported => Err(at(&self.root.join("lock"))(error)),
            _ => Ok(Locked { counts, file: &self.lock }),
        }
    }

    fn remove_leftovers(&self) -> Result<(), StoreError> {
        let directory = self.root.join("tmp");
        let now = self.options.clock.now();
        for entry in fs::read_dir(&directory).map_err(at(&directory))? {
            let entry = entry.map_err(at(&directory))?;
            // Another process may finish with the file at any time.
            let age = entry.metadata().ok().and_then(|metadata| now.duration_since(modified(&metadata)).ok());
            if age.is_some_and(|age| age >= TEMPORARY_AGE_MAX) {
                let _ = fs::remove_file(entry.path());
            }
        }
        Ok(())
    }

    /// Visits every block with its digest. Other files are passed over.
    fn for_each_block(
        &self,
        mut visit: impl FnMut(&[u8; 32], &fs::Metadata) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        for byte in 0..=u8::MAX {
            let directory = self.root.join("blocks").join(hex::encode([byte]));
            for entry in fs::read_dir(&directory).map_err(at(&directory))? {
                let entry = entry.map_err(at(&directory))?;
                let mut digest = [0; 32];
                if hex::decode_to_slice(entry.file_name().as_encoded_bytes(), &mut digest).is_err() {
                    continue;
                }
                match entry.metadata() {
                    Ok(metadata) => visit(&digest, &metadata)?,
                    // Another process collected it.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => return Err(at(&entry.path())(error)),
                }
            }
        }
        Ok(())
    }

    /// A file with the bytes, removed again unless it gets a place.
    fn write_temporary(&self, bytes: &[u8], durability: Durability) -> Result<Temporary, StoreError> {
        let temporary = Temporary(self.root.join("tmp").join(unique_name()));
        let path = &temporary.0;
        let mut file = File::create(path).map_err(at(path))?;
        file.write_all(bytes).map_err(at(path))?;
        if durability.is_now() {
            file.sync_all().map_err(at(path))?;
        }
        Ok(temporary)
    }

    /// Gives a block its place, for which there is room.
    fn place(&self, cid: &Cid, block: &[u8], is_counted: bool, durability: Durability) -> Result<(), StoreError> {
        let path = self.block_path(cid);
        let temporary = self.write_temporary(block, durability)?;
        let mut locked = self.locked()?;
        set_modified(&temporary.0, self.options.clock.now()).map_err(at(&temporary.0))?;
        let replaced = fs::metadata(&path).ok();
        let bytes_replaced = replaced.as_ref().map_or(0, fs::Metadata::len);
        // Somebody else may have put it meanwhile, and counts on it.
        let is_now = durability.is_now() || replaced.is_some();
        if is_now && !durability.is_now() {
            sync_file(&temporary.0)?;
        }
        fs::rename(&temporary.0, &path).map_err(at(&path))?;
        let counts = &mut *locked.counts;
        counts.bytes = counts.bytes.saturating_sub(bytes_replaced).saturating_add(block.len() as u64);
        if is_counted {
            counts.unpinned = counts.unpinned.map(|unpinned| unpinned.saturating_sub(bytes_replaced));
        }
        drop(locked);
        match path.parent() {
            Some(directory) if is_now => sync_directory(directory),
            _ => Ok(()),
        }
    }

    /// Forces a block that has its place to disk.
    fn sync_block(&self, cid: &Cid) -> Result<(), StoreError> {
        let path = self.block_path(cid);
        match sync_file(&path) {
            // Collected in this very moment, by somebody who leaves nothing any time.
            Err(StoreError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => return Ok(()),
            synced => synced?,
        }
        path.parent().map_or(Ok(()), sync_directory)
    }

    /// Keeps a block. A block that is there already becomes young again; a damaged one is replaced.
    fn put_as(&self, cid: &Cid, block: &[u8], durability: Durability) -> Result<(), StoreError> {
        check_block(cid, block)?;
        let is_here = match self.get(cid) {
            Err(StoreError::Corrupt { .. }) => false,
            block => block?.is_some(),
        };
        // Unless it is collected in this very moment: then it is written again.
        if is_here && self.touch(cid)? {
            // It may have been put by somebody who leaves that to a pin.
            return if durability.is_now() { self.sync_block(cid) } else { Ok(()) };
        }
        let size = block.len() as u64;
        let is_counted = self.reserve(size)?;
        let placed = self.place(cid, block, is_counted, durability);
        if placed.is_err() && is_counted {
            let mut counts = self.counts();
            counts.unpinned = counts.unpinned.map(|unpinned| unpinned.saturating_sub(size));
        }
        placed
    }

    /// Forces all blocks to disk.
    fn sync_blocks(&self) -> Result<(), StoreError> {
        #[cfg(target_os = "linux")]
        rustix::fs::syncfs(&self.blocks).map_err(|error| at(&self.root.join("blocks"))(error.into()))?;
        Ok(())
    }
}

fn set_modified(path: &Path, time: SystemTime) -> io::Result<()> {
    File::options().append(true).open(path)?.set_modified(time)
}

/// A name that no other file of a directory has. One count for the process, so that two stores on the same directory do
/// not meet.
fn unique_name() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("{}-{number}", std::process::id())
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
        (&file).take(BLOCK_SIZE_MAX as u64 + 1).read_to_end(&mut block).map_err(at(&path))?;
        if block.len() > BLOCK_SIZE_MAX || !cid.names(&block) {
            return Err(StoreError::Corrupt { cid: *cid });
        }
        if self.options.quota_bytes < u64::MAX {
            let now = self.options.clock.now();
            let used = file.metadata().ok().map(|metadata| last_use(&metadata));
            // What could not be noted is at worst evicted a little early.
            if used.is_none_or(|used| now.duration_since(used).is_ok_and(|age| age >= USE_RESOLUTION)) {
                let _ = file.set_times(FileTimes::new().set_accessed(now));
            }
        }
        Ok(Some(block))
    }

    fn put(&self, cid: &Cid, block: &[u8]) -> Result<(), StoreError> {
        self.put_as(cid, block, Durability::Now)
    }

    fn has(&self, cid: &Cid) -> Result<bool, StoreError> {
        let path = self.block_path(cid);
        path.try_exists().map_err(at(&path))
    }

    fn touch(&self, cid: &Cid) -> Result<bool, StoreError> {
        let path = self.block_path(cid);
        let _locked = self.locked()?;
        match set_modified(&path, self.options.clock.now()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            touched => touched.map(|()| true).map_err(at(&path)),
        }
    }
}

struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        // After a rename there is nothing left to remove.
        let _ = fs::remove_file(&self.0);
    }
}
