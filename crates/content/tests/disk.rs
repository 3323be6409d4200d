//! The store on disk: what survives a crash, damage, limits, garbage, and directories in and out.

mod common;
#[path = "common/stores.rs"]
mod stores;

use std::{
    fs::{self, File},
    path::Path,
    time::{Duration, SystemTime},
};

use althing_content::{
    BlobStore, BlockStore, Cid, MemoryStore, Profile, ReadError, StoreError,
    dag_pb::{Link, Node},
    disk::{PathError, TEMPORARY_AGE_MAX, export, put_path},
    put_bytes, read_file, tree_cid,
};
use common::pseudo_random;
use stores::{open, small};

fn names_in(path: &Path) -> Vec<String> {
    let entries = fs::read_dir(path).expect("read_dir");
    let mut names: Vec<_> =
        entries.map(|entry| entry.expect("entry").file_name().into_string().expect("name")).collect();
    names.sort();
    names
}

#[test]
fn a_file_is_read_back_after_the_store_is_opened_again() {
    let (directory, store) = open();
    let bytes = pseudo_random(1, 2500);
    let cid = put_bytes(&store, small(), &bytes).expect("put").cid;
    assert_eq!(read_file(&store, &cid, 2500).expect("read"), bytes);
    let size = store.size();
    drop(store);
    let store = BlobStore::open(directory.path().join("store")).expect("open again");
    assert_eq!(store.size(), size);
    assert_eq!(read_file(&store, &cid, 2500).expect("read"), bytes);
    assert_eq!(names_in(&directory.path().join("store/tmp")), [""; 0]);
}

#[test]
fn what_a_crash_leaves_is_never_a_block_and_is_removed_once_old() {
    let (directory, store) = open();
    let tmp = directory.path().join("store/tmp");
    let cid = Cid::of_raw_block(b"whole block");
    for (name, age) in [("1-0", TEMPORARY_AGE_MAX * 2), ("2-0", Duration::ZERO)] {
        let path = tmp.join(name);
        fs::write(&path, b"whole bl").expect("write");
        let file = File::options().append(true).open(&path).expect("open");
        #[allow(clippy::disallowed_methods)] // the file system's time
        file.set_modified(SystemTime::now() - age).expect("set time");
    }
    assert!(!store.has(&cid).expect("has"));
    assert_eq!(store.get(&cid).expect("get"), None);
    drop(store);

    let store = BlobStore::open(directory.path().join("store")).expect("open again");
    assert_eq!(names_in(&tmp), ["2-0"], "the young one may belong to a living process");
    assert_eq!(store.size(), 0);
    store.put(&cid, b"whole block").expect("put");
    assert_eq!(store.get(&cid).expect("get"), Some(b"whole block".to_vec()));
}

#[test]
fn a_damaged_block_is_named_and_put_right_by_the_next_put() {
    let (_directory, store) = open();
    let cid = put_bytes(&store, small(), b"block").expect("put").cid;
    for damaged in [&b"blocK"[..], b"bloc", b""] {
        fs::write(store.block_path(&cid), damaged).expect("write");
        let error = store.get(&cid).expect_err("damaged");
        assert!(matches!(error, StoreError::Corrupt { .. }));
        assert!(error.to_string().contains(&cid.to_string()));
        store.put(&cid, b"block").expect("put");
        assert_eq!(store.get(&cid).expect("get"), Some(b"block".to_vec()));
    }
}

#[test]
fn wrong_and_oversized_blocks_leave_no_trace() {
    let (directory, store) = open();
    let large = vec![0; althing_content::BLOCK_SIZE_MAX + 1];
    assert!(matches!(store.put(&Cid::of_raw_block(b"a"), b"b"), Err(StoreError::Mismatch { .. })));
    assert!(matches!(store.put(&Cid::of_raw_block(&large), &large), Err(StoreError::TooLarge { .. })));
    assert_eq!(store.size(), 0);
    assert_eq!(names_in(&directory.path().join("store/tmp")), [""; 0]);
}

#[test]
fn many_threads_putting_the_same_blocks_agree() {
    let (_directory, store) = open();
    let bytes = pseudo_random(4, 900);
    let names = std::thread::scope(|scope| {
        let workers: Vec<_> =
            (0..4).map(|_| scope.spawn(|| put_bytes(&store, small(), &bytes).expect("put"))).collect();
        workers.into_iter().map(|worker| worker.join().expect("join")).collect::<Vec<_>>()
    });
    assert!(names.iter().all(|name| *name == names[0]));
    let single = MemoryStore::new();
    put_bytes(&single, small(), &bytes).expect("put");
    assert_eq!(store.size(), names[0].dag_size);
    assert_eq!(read_file(&store, &names[0].cid, 900).expect("read"), bytes);
}

#[test]
fn a_directory_goes_in_and_comes_out() {
    let (directory, store) = open();
    let source = directory.path().join("source");
    fs::create_dir_all(source.join("inner/empty")).expect("create");
    fs::write(source.join("inner/file"), pseudo_random(1, 1234)).expect("write");
    fs::write(source.join("top"), b"top").expect("write");
    let cid = put_path(&store, small(), &source).expect("put").cid;

    let target = directory.path().join("target");
    assert_eq!(export(&store, &cid, &target, 1237, 5).expect("export"), 1237);
    assert_eq!(fs::read(target.join("inner/file")).expect("read"), pseudo_random(1, 1234));
    assert_eq!(put_path(&MemoryStore::new(), small(), &target).expect("put").cid, cid);
    assert!(export(&store, &cid, &target, 1237, 5).is_err(), "the target exists");
    let error = export(&store, &cid, &directory.path().join("other"), 1236, 5).expect_err("too large");
    assert!(matches!(error, ReadError::TooLarge { .. }));
    let error =
        export(&store, &cid, &directory.path().join("another"), 1237, 3).expect_err("four files and directories");
    assert!(matches!(error, ReadError::TooManyFiles { .. }));
    // The same in shards.
    let sharded = small().with_shards_above(0);
    let in_shards = put_path(&store, sharded, &source).expect("put").cid;
    assert_ne!(in_shards, cid);
    let other = directory.path().join("from shards");
    assert_eq!(export(&store, &in_shards, &other, 1237, 4).expect("export"), 1237);
    assert_eq!(put_path(&MemoryStore::new(), small(), &other).expect("put").cid, cid);

    fs::remove_dir(source.join("inner/empty")).expect("remove");
    let files = [("top", &b"top"[..]), ("inner/file", &pseudo_random(1, 1234)[..])];
    assert_eq!(put_path(&store, Profile::V1_2025, &source).expect("put").cid, tree_cid(files).expect("tree"));
}

#[cfg(unix)]
#[test]
fn links_in_a_directory_are_refused() {
    let (directory, store) = open();
    let source = directory.path().join("source");
    fs::create_dir(&source).expect("create");
    std::os::unix::fs::symlink("/etc/hostname", source.join("link")).expect("symlink");
    assert!(matches!(put_path(&store, small(), &source), Err(PathError::NotPlain(_))));
}

#[test]
fn a_directory_that_multiplies_itself_is_not_written_out() {
    let (directory, store) = open();
    let mut cid = put_bytes(&store, small(), b"").expect("put").cid;
    for _ in 0..20 {
        let links = (0..10).map(|name| Link { cid, name: name.to_string(), dag_size: 0 }).collect();
        let block = Node::directory(links).encode();
        cid = Cid::of_dag_pb_block(althing_content::Version::V1, &block);
        store.put(&cid, &block).expect("put");
    }
    let exported = export(&store, &cid, &directory.path().join("target"), 1000, 5000);
    assert!(matches!(exported, Err(ReadError::TooManyFiles { .. })));
}
