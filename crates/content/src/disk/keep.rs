//! What stays in a store, and what goes.
//!
//! - A **pin** is a name and a CID. Everything below the CID stays until the pin is taken away.
//! - **Garbage collection** removes what no pin reaches, unless it was put, or put again, only lately.
//! - A **quota** bounds what no pin reaches. When a block would not fit, those that were not used for longest make room.
//! - Whoever adds something that takes long **announces it** ([`BlobStore::adding`]): nothing that was put since goes
//!   until the adding ends, so there is time to pin it. It does not count against the quota as long. The announcement is
//!   a lock on a file, which ends with its process, however that ends. What is put by way of it is forced to disk all
//!   at once by the pin, where the system can do that (Linux): one by one, small blocks take a hundred times as long.
//!   Until then a power failure may leave blocks that are damaged. They are found to be when they are read, and put
//!   anew; so whoever pins has put or read every block.
//!
//! Evicting fits those who serve: a provider that refused new blocks could not publish its next answer, and the oldest
//! answers are those that nobody will ask for any more. But an answer must be there as long as it can be contested, and
//! an input as long as somebody may run it, so whatever was used within the last [`GRACE`] stays. If all of it did, the
//! block is refused: [`StoreError::Full`].
//!
//! Blocks leave one by one, and only if under the lock they are found as old as before, so a crash loses nothing and
//! neither does a pin or an import at the same moment.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io,
    ops::Deref,
    path::PathBuf,
    sync::{Arc, PoisonError},
    time::{Duration, SystemTime},
};

use super::{BlobStore, Durability, Locked, at, last_use, modified, sync_directory, unique_name};
use crate::{
    Cid, Codec, dag_pb,
    read::ReadError,
    store::{BlockStore, StoreError},
};

/// How long a block stays after it was last used, quota or not: a day, as long as the ledger keeps finished orders.
pub const GRACE: Duration = Duration::from_secs(24 * 3600);
/// After no room was found, how long puts are refused without looking again.
const FULL_FOR: Duration = Duration::from_secs(10);
/// Longest file name of a pin in bytes.
const PIN_FILE_NAME_SIZE_MAX: usize = 255;

/// What garbage collection removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    pub blocks: u64,
    pub bytes: u64,
}

/// What a store holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    pub blocks: u64,
    pub bytes: u64,
    pub pins: u64,
    /// Of these, what pins reach.
    pub pinned_blocks: u64,
    pub pinned_bytes: u64,
    /// Blocks that pins reach but that are not here.
    pub missing_blocks: u64,
    /// Bound on the bytes that no pin reaches, if there is one.
    pub quota_bytes: Option<u64>,
}

/// Something is being added; see the module. As a store it is the one that it is added to.
#[derive(Debug)]
pub struct Adding(Announcement<Arc<BlobStore>>);

impl BlockStore for Adding {
    fn get(&self, cid: &Cid) -> Result<Option<Vec<u8>>, StoreError> {
        self.0.store.get(cid)
    }

    fn put(&self, cid: &Cid, block: &[u8]) -> Result<(), StoreError> {
        self.0.store.put_as(cid, block, Durability::WithPin)
    }

    fn has(&self, cid: &Cid) -> Result<bool, StoreError> {
        self.0.store.has(cid)
    }

    fn touch(&self, cid: &Cid) -> Result<bool, StoreError> {
        self.0.store.touch(cid)
    }
}

/// A file that is locked as long as something is added to a store.
#[derive(Debug)]
struct Announcement<S: Deref<Target = BlobStore>> {
    store: S,
    path: PathBuf,
    _file: File,
}

impl<S: Deref<Target = BlobStore>> Announcement<S> {
    fn of(store: S) -> Result<Self, StoreError> {
        let path = store.root.join("adding").join(unique_name());
        // Locked before others can see it: they would take it for one whose owner is gone.
        let temporary = store.write_temporary(b"", Durability::WithPin)?;
        let file = File::options().append(true).open(&temporary.0).map_err(at(&temporary.0))?;
        file.lock()
            .or_else(|error| if error.kind() == io::ErrorKind::Unsupported { Ok(()) } else { Err(error) })
            .map_err(at(&temporary.0))?;
        let mut locked = store.locked()?;
        file.set_modified(store.options.clock.now()).map_err(at(&temporary.0))?;
        fs::rename(&temporary.0, &path).map_err(at(&path))?;
        locked.counts.adding += 1;
        drop(locked);
        Ok(Self { store, path, _file: file })
    }
}

impl<S: Deref<Target = BlobStore>> Drop for Announcement<S> {
    fn drop(&mut self) {
        let mut counts = self.store.counts();
        counts.adding = counts.adding.saturating_sub(1);
        // What was added and not pinned counts from now on.
        counts.unpinned = None;
        drop(counts);
        // Without its owner it would be removed by the next that looks.
        let _ = fs::remove_file(&self.path);
    }
}

/// What pins reach.
#[derive(Debug, Default)]
struct Marked {
    digests: BTreeSet<[u8; 32]>,
    pins: u64,
    /// A block that is damaged or no node: nobody knows what lies below it.
    problem: Option<ReadError>,
}

impl BlobStore {
    /// Keeps everything below `cid` under a name; a pin of the same name is replaced. All of it must be here. Names have
    /// 1 byte or more, and less than 256 with everything but letters, digits and `-._~` percent-encoded.
    pub fn pin(&self, name: &str, cid: &Cid) -> Result<(), ReadError> {
        let path = self.pin_path(name)?;
        let _announcement = Announcement::of(self)?;
        // Whatever is collected at this moment is either missed here or too young to be removed.
        if let Some(problem) = self.mark_below(cid, &mut BTreeSet::new(), |cid| self.touch(cid))? {
            return Err(problem);
        }
        self.sync_blocks()?;
        let temporary = self.write_temporary(format!("{cid}\n").as_bytes(), Durability::Now)?;
        fs::rename(&temporary.0, &path).map_err(at(&path))?;
        sync_directory(&self.root.join("pins"))?;
        Ok(())
    }

    /// Takes a pin away; says whether there was one.
    pub fn unpin(&self, name: &str) -> Result<bool, StoreError> {
        let path = self.pin_path(name)?;
        match fs::remove_file(&path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(at(&path)(error)),
        }
        sync_directory(&self.root.join("pins"))?;
        self.forget_counts();
        Ok(true)
    }

    /// All pins, in the order of their names.
    pub fn pins(&self) -> Result<BTreeMap<String, Cid>, StoreError> {
        let directory = self.root.join("pins");
        let mut pins = BTreeMap::new();
        for entry in fs::read_dir(&directory).map_err(at(&directory))? {
            let path = entry.map_err(at(&directory))?.path();
            let text = match fs::read_to_string(&path) {
                // Taken away in this moment.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                text => text.map_err(at(&path))?,
            };
            let name = path.file_name().and_then(|name| decode_name(name.to_str()?));
            // A pin that cannot be read is one that cannot be kept.
            let (Some(name), Ok(cid)) = (name, text.trim_end().parse()) else {
                return Err(StoreError::Pin { path });
            };
            pins.insert(name, cid);
        }
        Ok(pins)
    }

    /// Announces that something is being added, until the result is dropped.
    pub fn adding(self: &Arc<Self>) -> Result<Adding, StoreError> {
        Ok(Adding(Announcement::of(Arc::clone(self))?))
    }

    /// Removes every block that no pin reaches and that was put, or put again, more than `age_min` ago, before anything
    /// that is being added was begun.
    ///
    /// `age_min` is to be longer than whoever does not announce an import takes until its root is pinned.
    pub fn collect_garbage(&self, age_min: Duration) -> Result<Collected, ReadError> {
        let young = self.young_since(age_min)?;
        let marked = self.mark()?;
        if let Some(problem) = marked.problem {
            return Err(problem);
        }
        let mut collected = Collected::default();
        self.for_each_block(|digest, metadata| {
            if !marked.digests.contains(digest) && modified(metadata) < young {
                let mut locked = self.locked()?;
                if let Some(bytes) = self.remove(&mut locked, digest, |metadata| modified(metadata) < young)? {
                    collected.blocks += 1;
                    collected.bytes += bytes;
                }
            }
            Ok(())
        })?;
        self.forget_counts();
        Ok(collected)
    }

    /// What the store holds, counted anew.
    pub fn usage(&self) -> Result<Usage, StoreError> {
        let marked = self.mark()?;
        let quota_bytes = Some(self.options.quota_bytes).filter(|bytes| *bytes < u64::MAX);
        let mut usage = Usage { pins: marked.pins, quota_bytes, ..Usage::default() };
        self.for_each_block(|digest, metadata| {
            usage.blocks += 1;
            usage.bytes += metadata.len();
            if marked.digests.contains(digest) {
                usage.pinned_blocks += 1;
                usage.pinned_bytes += metadata.len();
            }
            Ok(())
        })?;
        usage.missing_blocks = (marked.digests.len() as u64).saturating_sub(usage.pinned_blocks);
        Ok(usage)
    }

    /// Makes sure that a block of `size` bytes fits; says whether it counts against the quota.
    pub(super) fn reserve(&self, size: u64) -> Result<bool, StoreError> {
        let quota_bytes = self.options.quota_bytes;
        let full = StoreError::Full { quota_bytes };
        {
            let mut counts = self.counts();
            if quota_bytes == u64::MAX || counts.adding > 0 {
                return Ok(false);
            }
            if counts.reserve(size, quota_bytes) {
                return Ok(true);
            }
            let is_too_soon = counts.full_until.is_some_and(|until| self.options.clock.now() < until);
            if is_too_soon || size > quota_bytes {
                return Err(full);
            }
        }
        if self.make_room(size)? { Ok(true) } else { Err(full) }
    }

    /// Counts what the quota bounds, and if `size` more bytes are too many, evicts what was not used for longest: a tenth
    /// more than needed, so that not every block has to look for room. Takes the room; says whether there was enough.
    fn make_room(&self, size: u64) -> Result<bool, StoreError> {
        let _one_at_a_time = self.evicting.lock().unwrap_or_else(PoisonError::into_inner);
        let quota_bytes = self.options.quota_bytes;
        let now = self.options.clock.now();
        {
            let mut counts = self.counts();
            // Another made room meanwhile.
            if counts.reserve(size, quota_bytes) {
                return Ok(true);
            }
            // Who puts something from here on waits; what is on its way already may be missed until the next time.
            counts.unpinned = None;
        }
        let added_since = self.adding_since()?;
        let marked = self.mark()?;
        let (mut unpinned, mut old) = (0u64, Vec::new());
        self.for_each_block(|digest, metadata| {
            // What is being added may still be pinned.
            let is_being_added = added_since.is_some_and(|since| modified(metadata) >= since);
            if !is_being_added && !marked.digests.contains(digest) {
                unpinned += metadata.len();
                let used = last_use(metadata);
                if now.duration_since(used).is_ok_and(|age| age >= self.options.grace) {
                    old.push((used, *digest));
                }
            }
            Ok(())
        })?;
        if unpinned.saturating_add(size) > quota_bytes {
            old.sort_unstable();
            let target = quota_bytes - quota_bytes / 10;
            for (used, digest) in old {
                if unpinned.saturating_add(size) <= target {
                    break;
                }
                let mut locked = self.locked()?;
                if let Some(removed) = self.remove(&mut locked, &digest, |metadata| last_use(metadata) <= used)? {
                    unpinned = unpinned.saturating_sub(removed);
                }
            }
        }
        let mut counts = self.counts();
        counts.unpinned = Some(unpinned);
        let has_room = counts.reserve(size, quota_bytes);
        counts.full_until = (!has_room).then(|| now + FULL_FOR);
        Ok(has_room)
    }

    /// Removes a block if it is still old; how many bytes it had.
    fn remove(
        &self,
        locked: &mut Locked<'_>,
        digest: &[u8; 32],
        is_old: impl FnOnce(&fs::Metadata) -> bool,
    ) -> Result<Option<u64>, StoreError> {
        let path = self.digest_path(digest);
        let metadata = match fs::metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            metadata => metadata.map_err(at(&path))?,
        };
        if !is_old(&metadata) {
            return Ok(None);
        }
        fs::remove_file(&path).map_err(at(&path))?;
        locked.counts.bytes = locked.counts.bytes.saturating_sub(metadata.len());
        Ok(Some(metadata.len()))
    }

    /// The time since which blocks are too young to go: `age` ago, or when the first of what is being added was begun.
    fn young_since(&self, age: Duration) -> Result<SystemTime, StoreError> {
        let young = self.options.clock.now().checked_sub(age).unwrap_or(SystemTime::UNIX_EPOCH);
        Ok(self.adding_since()?.map_or(young, |since| since.min(young)))
    }

    /// When the first of what is being added was begun.
    fn adding_since(&self) -> Result<Option<SystemTime>, StoreError> {
        let mut since: Option<SystemTime> = None;
        let directory = self.root.join("adding");
        for entry in fs::read_dir(&directory).map_err(at(&directory))? {
            let path = entry.map_err(at(&directory))?.path();
            let file = match File::options().append(true).open(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                file => file.map_err(at(&path))?,
            };
            match file.try_lock() {
                // Nobody holds it: its process ended.
                Ok(()) => {
                    let _ = fs::remove_file(&path);
                }
                Err(_) => {
                    let begun = modified(&file.metadata().map_err(at(&path))?);
                    since = Some(since.map_or(begun, |since| since.min(begun)));
                }
            }
        }
        Ok(since)
    }

    /// What pins reach.
    fn mark(&self) -> Result<Marked, StoreError> {
        let mut marked = Marked::default();
        let mut seen = BTreeSet::new();
        for cid in self.pins()?.into_values() {
            marked.pins += 1;
            let problem = self.mark_below(&cid, &mut seen, |_| Ok(true))?;
            // A block that is missing ends its branch: nothing that can be read lies below it.
            let problem = problem.filter(|problem| !matches!(problem, ReadError::Missing { .. }));
            marked.problem = marked.problem.or(problem);
        }
        marked.digests = seen.iter().map(|cid| *cid.digest()).collect();
        Ok(marked)
    }

    /// Adds everything below `cid` to `seen` that `visit` finds, plain bytes without reading them. Gives the last block
    /// that could not be followed, if there is one.
    fn mark_below(
        &self,
        cid: &Cid,
        seen: &mut BTreeSet<Cid>,
        visit: impl Fn(&Cid) -> Result<bool, StoreError>,
    ) -> Result<Option<ReadError>, StoreError> {
        let mut stack = vec![*cid];
        let mut problem = None;
        while let Some(cid) = stack.pop() {
            if !seen.insert(cid) {
                continue;
            }
            if !visit(&cid)? {
                problem = Some(ReadError::Missing { cid });
                continue;
            }
            if cid.codec() == Codec::Raw {
                continue;
            }
            let block = match self.get(&cid) {
                Ok(Some(block)) => block,
                Ok(None) => {
                    problem = Some(ReadError::Missing { cid });
                    continue;
                }
                Err(error @ StoreError::Corrupt { .. }) => {
                    problem = Some(error.into());
                    continue;
                }
                Err(error) => return Err(error),
            };
            match dag_pb::links_of(&block) {
                Ok(links) => stack.extend(links.into_iter().map(|link| link.cid).filter(|cid| !seen.contains(cid))),
                Err(source) => problem = Some(ReadError::Node { cid, source }),
            }
        }
        Ok(problem)
    }

    /// What counts against the quota has to be counted again, and there may be room.
    fn forget_counts(&self) {
        let mut counts = self.counts();
        counts.unpinned = None;
        counts.full_until = None;
    }

    fn pin_path(&self, name: &str) -> Result<PathBuf, StoreError> {
        let file_name = encode_name(name);
        if name.is_empty() || file_name.len() > PIN_FILE_NAME_SIZE_MAX {
            return Err(StoreError::PinName(name.to_owned()));
        }
        Ok(self.root.join("pins").join(file_name))
    }
}

/// A name as a file name: no separators, and no dot at the start, which would hide it or mean a directory.
fn encode_name(name: &str) -> String {
    let mut encoded = String::new();
    for (index, byte) in name.bytes().enumerate() {
        let is_plain = byte.is_ascii_alphanumeric() || b"-_~".contains(&byte) || (byte == b'.' && index > 0);
        if is_plain {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

fn decode_name(encoded: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let mut parts = encoded.split('%');
    bytes.extend(parts.next()?.bytes());
    for part in parts {
        let (digits, rest) = part.split_at_checked(2)?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        bytes.extend(rest.bytes());
    }
    let name = String::from_utf8(bytes).ok()?;
    // Every name has one file.
    (encode_name(&name) == encoded).then_some(name)
}
