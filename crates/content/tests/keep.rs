//! What stays in a store on disk and what goes: pins, garbage collection, quota, and being killed in the middle.

mod common;
#[path = "common/stores.rs"]
mod stores;

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use althing_content::{
    BlobStore, BlockStore, Cid, ReadError, StoreError, Version,
    dag_pb::{Link, Node},
    disk::{Adding, FileClock, Options},
    list, put_bytes, put_tree, read_file,
};
use common::pseudo_random;
use proptest::prelude::*;
use stores::{open, small};
use tempfile::TempDir;

const HOUR: Duration = Duration::from_secs(3600);

/// A clock that tests move.
#[derive(Clone)]
struct Time(SystemTime, Arc<AtomicU64>);

impl Time {
    fn new() -> Self {
        #[allow(clippy::disallowed_methods)] // files made by others, such as the file system, are older
        Self(SystemTime::now() + HOUR, Arc::default())
    }

    fn advance(&self, step: Duration) {
        self.1.fetch_add(step.as_secs(), Ordering::SeqCst);
    }

    fn clock(&self) -> FileClock {
        let Self(start, seconds) = self.clone();
        FileClock::new(move || start + Duration::from_secs(seconds.load(Ordering::SeqCst)))
    }
}

fn open_with(directory: &Path, quota_bytes: u64, time: &Time) -> Arc<BlobStore> {
    let options = Options { quota_bytes, grace: HOUR, clock: time.clock() };
    Arc::new(BlobStore::open_with(directory, options).expect("open"))
}

#[test]
fn garbage_collection_keeps_what_lies_below_a_pin_or_is_young() {
    let (directory, store) = open();
    let kept = put_tree(&store, small(), [("a/b", &pseudo_random(1, 999)[..]), ("c", b"c")]).expect("put").cid;
    let size_kept = store.size();
    let lost = put_bytes(&store, small(), &pseudo_random(2, 999)).expect("put").cid;
    store.pin("the tree", &kept).expect("pin");
    assert_eq!(store.collect_garbage(HOUR).expect("collect").blocks, 0);

    drop(store);
    let store = BlobStore::open(directory.path().join("store")).expect("open again");
    let collected = store.collect_garbage(Duration::ZERO).expect("collect");
    assert!(collected.blocks > 10);
    assert_eq!(store.size(), size_kept);
    assert!(!store.has(&lost).expect("has"));
    assert_eq!(list(&store, &kept).expect("list").len(), 2);

    assert_eq!(store.pins().expect("pins"), BTreeMap::from([("the tree".to_owned(), kept)]));
    assert!(store.unpin("the tree").expect("unpin"));
    assert!(!store.unpin("the tree").expect("unpin twice"));
    store.collect_garbage(Duration::ZERO).expect("collect");
    assert_eq!(store.size(), 0);
}

#[test]
fn a_pin_has_any_name_that_fits_and_a_whole_content() {
    let (directory, store) = open();
    let (a, b) =
        (put_bytes(&store, small(), b"a").expect("put").cid, put_bytes(&store, small(), b"b").expect("put").cid);
    let names = ["a", "A b", "../up", ".", "..", "%41", "ünïcode/☃", "model:tiny.v1", &"x".repeat(255)];
    for name in names {
        store.pin(name, &a).expect(name);
    }
    assert_eq!(store.pins().expect("pins"), names.iter().map(|name| ((*name).to_owned(), a)).collect());
    store.pin("a", &b).expect("replaced");
    assert_eq!(store.pins().expect("pins")["a"], b);
    for name in ["", &"x".repeat(256), &"/".repeat(100)] {
        assert!(matches!(store.pin(name, &a), Err(ReadError::Store(StoreError::PinName(_)))), "{name}");
        assert!(store.unpin(name).is_err());
    }

    let file = put_bytes(&store, small(), &pseudo_random(1, 999)).expect("put").cid;
    let leaf = Cid::of_raw_block(&pseudo_random(1, 999)[100..200]);
    fs::remove_file(store.block_path(&leaf)).expect("remove");
    let error = store.pin("a", &file).expect_err("incomplete");
    assert!(matches!(error, ReadError::Missing { cid } if cid == leaf));
    assert_eq!(store.pins().expect("pins")["a"], b, "the pin of this name stays as it was");
    assert_eq!(store.usage().expect("usage").missing_blocks, 0);
    let odd = [&[0x0a, 0x00][..], &[0xff]].concat();
    let cid = Cid::of_dag_pb_block(Version::V1, &odd);
    store.put(&cid, &odd).expect("put");
    assert!(matches!(store.pin("odd", &cid), Err(ReadError::Node { .. })));

    // Whoever writes into the directory is told, not ignored: a lost pin would lose content.
    fs::write(directory.path().join("store/pins/mine"), "not a CID").expect("write");
    assert!(store.collect_garbage(Duration::ZERO).expect_err("not a pin").to_string().contains("mine"));
}

#[test]
fn what_is_being_added_is_not_collected_however_long_it_takes() {
    let (directory, time) = (TempDir::new().expect("directory"), Time::new());
    let store = open_with(directory.path(), u64::MAX, &time);
    let before = put_bytes(&store, small(), b"before").expect("put").cid;
    time.advance(HOUR);
    let adding = store.adding().expect("adding");
    let first = put_bytes(&adding, small(), b"first").expect("put").cid;
    time.advance(48 * HOUR);
    // Another process sees it too.
    let other = open_with(directory.path(), u64::MAX, &time);
    assert_eq!(other.collect_garbage(Duration::ZERO).expect("collect").blocks, 1);
    assert!(!store.has(&before).expect("has"));
    assert!(store.has(&first).expect("has"));
    drop(adding);
    assert_eq!(other.collect_garbage(Duration::ZERO).expect("collect").blocks, 1);

    // What a process that ended had announced counts no longer.
    fs::write(directory.path().join("adding/1-0"), "").expect("write");
    put_bytes(&store, small(), b"second").expect("put");
    time.advance(HOUR);
    assert_eq!(store.collect_garbage(Duration::ZERO).expect("collect").blocks, 1);
    assert_eq!(fs::read_dir(directory.path().join("adding")).expect("read").count(), 0);
}

#[test]
fn a_damaged_block_in_the_way_of_a_pin_stops_the_collection() {
    let (_directory, store) = open();
    let root = put_tree(&store, small(), [("a", &pseudo_random(1, 999)[..])]).expect("put").cid;
    store.pin("tree", &root).expect("pin");
    put_bytes(&store, small(), b"garbage").expect("put");
    let size = store.size();
    let block = fs::read(store.block_path(&root)).expect("read");
    fs::write(store.block_path(&root), b"other").expect("damage");
    let error = store.collect_garbage(Duration::ZERO).expect_err("nobody knows what is below");
    assert!(matches!(error, ReadError::Store(StoreError::Corrupt { cid }) if cid == root));
    assert_eq!(store.size(), size);
    store.put(&root, &block).expect("put right");
    assert_eq!(store.collect_garbage(Duration::ZERO).expect("collect").blocks, 1);
    // A pinned block that is missing is told, and the rest collected.
    fs::remove_file(store.block_path(&Cid::of_raw_block(&pseudo_random(1, 999)[..100]))).expect("remove");
    assert_eq!(store.usage().expect("usage").missing_blocks, 1);
    store.collect_garbage(Duration::ZERO).expect("collect");
}

#[test]
fn a_quota_makes_room_by_what_was_not_used_for_longest() {
    let (directory, time) = (TempDir::new().expect("directory"), Time::new());
    let store = open_with(directory.path(), 1000, &time);
    let block = |seed: u8| [seed; 100];
    let cid = |seed: u8| Cid::of_raw_block(&block(seed));
    let put = |seed: u8| store.put(&cid(seed), &block(seed));
    for seed in 0..10 {
        put(seed).expect("fits");
        time.advance(HOUR);
    }
    store.get(&cid(0)).expect("get").expect("here");
    store.touch(&cid(2)).expect("touch");
    store.pin("four", &cid(4)).expect("pin");
    time.advance(2 * HOUR);
    put(10).expect("the pinned one made room");
    put(11).expect("makes room");
    let gone = (0..12).filter(|seed| !store.has(&cid(*seed)).expect("has")).collect::<Vec<_>>();
    assert_eq!(gone, [1, 3], "two that were neither read, touched nor pinned, the oldest first");
    assert_eq!(store.size(), 1000);
    let usage = store.usage().expect("usage");
    assert_eq!((usage.bytes, usage.pinned_bytes, usage.quota_bytes, usage.pins), (1000, 100, Some(1000), 1));
}

#[test]
fn a_full_store_refuses_what_does_not_fit_but_still_serves() {
    let (directory, time) = (TempDir::new().expect("directory"), Time::new());
    let store = open_with(directory.path(), 10, &time);
    let put = |block: &[u8]| store.put(&Cid::of_raw_block(block), block);
    put(b"123456").expect("fits");
    time.advance(HOUR / 2);
    assert!(matches!(put(b"abcdef"), Err(StoreError::Full { quota_bytes: 10 })), "what is there is young");
    put(b"123456").expect("is there already");
    time.advance(HOUR / 60);
    put(b"abcd").expect("fills it");
    assert!(matches!(put(b"larger than all"), Err(StoreError::Full { .. })));
    assert_eq!(store.size(), 10);
    assert_eq!(fs::read_dir(directory.path().join("tmp")).expect("read").count(), 0);
    assert!(store.get(&Cid::of_raw_block(b"123456")).expect("get").is_some());
    time.advance(2 * HOUR);
    put(b"abcdef").expect("what is there has aged");
    assert!(store.size() <= 10);
}

#[test]
fn what_is_added_to_be_pinned_does_not_count_and_drives_nothing_out() {
    let (directory, time) = (TempDir::new().expect("directory"), Time::new());
    let store = open_with(directory.path(), 1000, &time);
    let answer = put_bytes(&store, small(), &[1; 500]).expect("put").cid;
    time.advance(2 * HOUR);
    let other = open_with(directory.path(), u64::MAX, &time);
    for (importer, seed) in [(&store, 1), (&other, 2)] {
        let adding = importer.adding().expect("adding");
        let model = put_bytes(&adding, small(), &pseudo_random(seed, 5000)).expect("larger than the quota").cid;
        time.advance(HOUR);
        store.put(&Cid::of_raw_block(&[seed as u8; 100]), &[seed as u8; 100]).expect("others are served meanwhile");
        importer.pin(&format!("model {seed}"), &model).expect("pin");
        drop(adding);
        time.advance(HOUR);
    }
    store.put(&Cid::of_raw_block(b"answer"), b"answer").expect("put");
    assert_eq!(read_file(&store, &answer, 500).expect("still here"), [1; 500]);
    assert!(store.usage().expect("usage").pinned_bytes > 10_000);

    // What was not pinned in the end is the first to count.
    let adding = store.adding().expect("adding");
    put_bytes(&adding, small(), &pseudo_random(3, 5000)).expect("put");
    drop(adding);
    time.advance(2 * HOUR);
    store.put(&Cid::of_raw_block(b"next"), b"next").expect("put");
    let usage = store.usage().expect("usage");
    assert!(usage.bytes - usage.pinned_bytes <= 1000, "{usage:?}");
}

#[test]
fn many_threads_stay_within_the_quota_while_it_makes_room() {
    let directory = TempDir::new().expect("directory");
    let options = Options { quota_bytes: 20_000, grace: Duration::ZERO, clock: FileClock::default() };
    let store = BlobStore::open_with(directory.path(), options).expect("open");
    let pinned = put_bytes(&store, small(), &pseudo_random(99, 1000)).expect("put").cid;
    store.pin("kept", &pinned).expect("pin");
    std::thread::scope(|scope| {
        for worker in 0..4u32 {
            let store = &store;
            scope.spawn(move || {
                for index in 0..100 {
                    let block = pseudo_random(worker * 1000 + index, 500);
                    store.put(&Cid::of_raw_block(&block), &block).expect("put");
                }
            });
        }
    });
    let usage = store.usage().expect("usage");
    // A few blocks of others may be on their way while one makes room.
    assert!(usage.bytes - usage.pinned_bytes <= 20_000 + 4 * 500, "{usage:?}");
    assert_eq!(read_file(&store, &pinned, 1000).expect("read"), pseudo_random(99, 1000));
}

// ---- against a naive model ----

#[derive(Clone, Debug)]
enum Step {
    Put(u8),
    PutNode,
    Get(u8),
    Touch(u8),
    Pin(u8, u8),
    Unpin(u8),
    Collect(u64),
    Adding(bool),
    Reopen,
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0..12u8).prop_map(Step::Put),
        2 => Just(Step::PutNode),
        2 => (0..12u8).prop_map(Step::Get),
        1 => (0..12u8).prop_map(Step::Touch),
        2 => (0..3u8, 0..13u8).prop_map(|(name, block)| Step::Pin(name, block)),
        2 => (0..3u8).prop_map(Step::Unpin),
        2 => (0..600u64).prop_map(Step::Collect),
        1 => any::<bool>().prop_map(Step::Adding),
        1 => Just(Step::Reopen),
    ]
}

/// Block 12 is a node with links to blocks 0, 1 and 2.
fn blocks() -> Vec<(Cid, Vec<u8>)> {
    let mut blocks: Vec<_> = (0..12u8)
        .map(|seed| vec![seed; 50 + 10 * usize::from(seed)])
        .map(|block| (Cid::of_raw_block(&block), block))
        .collect();
    let links = blocks[..3].iter().zip(["a", "b", "c"]);
    let links =
        links.map(|((cid, block), name)| Link { cid: *cid, name: name.to_owned(), dag_size: block.len() as u64 });
    let node = Node::directory(links.collect()).encode();
    blocks.push((Cid::of_dag_pb_block(Version::V1, &node), node));
    blocks
}

#[derive(Default)]
struct Model {
    /// By number: when it was put, and when it was used. Minutes.
    here: BTreeMap<u8, (u64, u64)>,
    pins: BTreeMap<u8, u8>,
    adding: Option<u64>,
    now: u64,
}

impl Model {
    fn reached(&self) -> BTreeSet<u8> {
        let mut reached: BTreeSet<_> = self.pins.values().copied().collect();
        if reached.contains(&12) {
            reached.extend([0, 1, 2]);
        }
        reached
    }

    fn put(&mut self, number: u8, sizes: &[u64], quota: u64, grace: u64) -> bool {
        let now = self.now;
        if let Some(times) = self.here.get_mut(&number) {
            *times = (now, now);
            return true;
        }
        if self.adding.is_none() {
            let reached = self.reached();
            let unpinned: Vec<_> = self.here.iter().filter(|(number, _)| !reached.contains(number)).collect();
            let mut used: u64 = unpinned.iter().map(|(number, _)| sizes[usize::from(**number)]).sum();
            let size = sizes[usize::from(number)];
            if size > quota {
                return false;
            }
            let mut old: Vec<_> = unpinned.into_iter().map(|(number, (_, used))| (*used, *number)).collect();
            old.retain(|(used, _)| now - used >= grace);
            old.sort_unstable();
            if used + size > quota {
                for (_, number) in old {
                    if used + size <= quota - quota / 10 {
                        break;
                    }
                    used -= sizes[usize::from(number)];
                    self.here.remove(&number);
                }
            }
            if used + size > quota {
                return false;
            }
        }
        self.here.insert(number, (now, now));
        true
    }

    fn collect(&mut self, age: u64) {
        let young = (self.now.saturating_sub(age)).min(self.adding.unwrap_or(u64::MAX));
        let reached = self.reached();
        self.here.retain(|number, (put, _)| reached.contains(number) || *put >= young);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn a_store_keeps_what_a_naive_model_keeps(
        steps in prop::collection::vec(any_step(), 1..60), quota in prop_oneof![Just(u64::MAX / 2), 100..1500u64],
    ) {
        const GRACE_MINUTES: u64 = 60;
        let (directory, time) = (TempDir::new().expect("directory"), Time::new());
        let blocks = blocks();
        let sizes: Vec<_> = blocks.iter().map(|(_, block)| block.len() as u64).collect();
        let mut model = Model::default();
        let mut store = open_with(directory.path(), quota, &time);
        let mut adding: Option<Adding> = None;
        for step in steps {
            // Uses are noted to the minute.
            time.advance(Duration::from_secs(7 * 60));
            model.now += 7;
            match step {
                Step::Put(_) | Step::PutNode => {
                    let number = if let Step::Put(number) = step { number } else { 12 };
                    let (cid, block) = &blocks[usize::from(number)];
                    let put = match &adding {
                        Some(adding) => adding.put(cid, block),
                        None => store.put(cid, block),
                    };
                    prop_assert!(matches!(put, Ok(()) | Err(StoreError::Full { .. })), "{:?}", put);
                    prop_assert_eq!(put.is_ok(), model.put(number, &sizes, quota, GRACE_MINUTES));
                }
                Step::Get(number) => {
                    let found = store.get(&blocks[usize::from(number)].0).expect("get");
                    prop_assert_eq!(found.is_some(), model.here.contains_key(&number));
                    let now = model.now;
                    if let Some((_, used)) = model.here.get_mut(&number) {
                        *used = now;
                    }
                }
                Step::Touch(number) => {
                    let found = store.touch(&blocks[usize::from(number)].0).expect("touch");
                    prop_assert_eq!(found, model.here.contains_key(&number));
                    let now = model.now;
                    if let Some(times) = model.here.get_mut(&number) {
                        *times = (now, now);
                    }
                }
                Step::Pin(name, number) => {
                    let below: &[u8] = if number == 12 { &[12, 0, 1, 2] } else { &[number] };
                    let pinned = store.pin(&name.to_string(), &blocks[usize::from(number)].0);
                    let now = model.now;
                    // Up to the first that is missing, blocks are touched.
                    let is_rooted = model.here.contains_key(&number);
                    for number in below.iter().filter(|_| is_rooted) {
                        if let Some(times) = model.here.get_mut(number) {
                            *times = (now, now);
                        }
                    }
                    let is_whole = below.iter().all(|number| model.here.contains_key(number));
                    prop_assert_eq!(pinned.is_ok(), is_whole, "{:?}", pinned);
                    if is_whole {
                        model.pins.insert(name, number);
                    }
                }
                Step::Unpin(name) => {
                    prop_assert_eq!(store.unpin(&name.to_string()).expect("unpin"), model.pins.remove(&name).is_some());
                }
                Step::Collect(age) => {
                    let collected = store.collect_garbage(Duration::from_secs(60 * age)).expect("collect");
                    let before = model.here.len();
                    model.collect(age);
                    prop_assert_eq!(collected.blocks as usize, before - model.here.len());
                }
                Step::Adding(true) if adding.is_none() => {
                    adding = Some(store.adding().expect("adding"));
                    model.adding = Some(model.now);
                }
                Step::Adding(_) => {
                    adding = None;
                    model.adding = None;
                }
                Step::Reopen => {
                    adding = None;
                    model.adding = None;
                    store = open_with(directory.path(), quota, &time);
                }
            }
            let here: BTreeSet<_> = (0..13).filter(|number| store.has(&blocks[usize::from(*number)].0).expect("has")).collect();
            prop_assert_eq!(&here, &model.here.keys().copied().collect::<BTreeSet<_>>());
            prop_assert_eq!(store.size(), here.iter().map(|number| sizes[usize::from(*number)]).sum::<u64>());
            let pins: BTreeMap<_, _> = model.pins.iter().map(|(name, number)| (name.to_string(), blocks[usize::from(*number)].0)).collect();
            prop_assert_eq!(store.pins().expect("pins"), pins);
        }
    }
}

// ---- killed in the middle ----

const KILLED_STORE: &str = "ALTHING_TEST_KILLED_STORE";

/// Not a test of its own: what the next one kills.
#[test]
fn a_process_that_is_killed_puts_pins_and_collects_until_then() {
    let Ok(directory) = env::var(KILLED_STORE) else {
        return;
    };
    let options = Options { quota_bytes: 30_000, grace: Duration::ZERO, clock: FileClock::default() };
    let store = Arc::new(BlobStore::open_with(directory, options).expect("open"));
    for round in 0.. {
        let file = pseudo_random(round, 3000);
        let adding = store.adding().expect("adding");
        let cid = put_tree(&adding, small(), [("file", &file[..])]).expect("put").cid;
        store.pin(&format!("slot {}", round % 5), &cid).expect("pin");
        drop(adding);
        put_bytes(&store, small(), &pseudo_random(round + 1_000_000, 2000)).expect("put garbage");
        if round % 3 == 0 {
            store.collect_garbage(Duration::ZERO).expect("collect");
        }
        if round % 7 == 0 {
            store.unpin(&format!("slot {}", round % 4)).expect("unpin");
        }
        println!("\nround {round}");
    }
}

#[test]
fn a_store_whose_process_is_killed_has_whole_blocks_and_whole_pins() {
    let directory = TempDir::new().expect("directory");
    let path = directory.path().join("store");
    let mut pins_seen = 0;
    for round in 0..12u64 {
        let mut child = Command::new(env::current_exe().expect("this program"))
            .args(["--exact", "a_process_that_is_killed_puts_pins_and_collects_until_then", "--nocapture"])
            .env(KILLED_STORE, &path)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("spawn");
        // Somewhere in one of its first rounds.
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let rounds = lines.map_while(Result::ok).filter(|line| line.starts_with("round"));
        assert_eq!(rounds.take(1 + round as usize % 4).count(), 1 + round as usize % 4, "it must not end by itself");
        std::thread::sleep(Duration::from_millis(round * 11));
        child.kill().expect("kill");
        child.wait().expect("wait");

        let store = BlobStore::open(&path).expect("open");
        let usage = store.usage().expect("usage");
        assert_eq!(usage.missing_blocks, 0, "round {round}");
        for (name, cid) in store.pins().expect("pins") {
            let file = list(&store, &cid).expect(&name)[0].cid;
            assert_eq!(read_file(&store, &file, 3000).expect(&name).len(), 3000);
            pins_seen += 1;
        }
        store.collect_garbage(Duration::ZERO).expect("collect");
        let after = store.usage().expect("usage");
        assert_eq!((after.bytes, store.size()), (usage.pinned_bytes, usage.pinned_bytes), "nothing else stays");
    }
    assert!(pins_seen > 10, "{pins_seen}");
}
