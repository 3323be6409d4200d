//! Files and directories out of a store: whole, in ranges, damaged and hostile.

mod common;
#[path = "common/nodes.rs"]
mod nodes;

use althing_content::{
    BlockStore, Cid, Codec, DagWalk, FileReader, MemoryStore, Profile, ReadError, StoreError,
    dag_pb::Node,
    directory::PATH_DEPTH_MAX,
    list, put_bytes, put_file, put_tree,
    read::{DEPTH_MAX, FileWalk, Object, copy_file, stat},
    read_file, read_range, resolve,
    unixfs::FileImporter,
};
use common::pseudo_random;
use nodes::{link, put_node};
use proptest::prelude::*;

fn any_profile() -> impl Strategy<Value = Profile> {
    let base = prop_oneof![Just(Profile::V1_2025), Just(Profile::V0_2015)];
    (base, 1..40usize, 2..6usize).prop_map(|(base, chunk_size, links_max)| base.with_sizes(chunk_size, links_max))
}

fn small() -> Profile {
    Profile::V1_2025.with_sizes(10, 3)
}

proptest! {
    #[test]
    fn a_file_comes_out_as_it_went_in(profile in any_profile(), seed in any::<u32>(), size in 0..3000usize) {
        let store = MemoryStore::new();
        let bytes = pseudo_random(seed, size);
        let imported = put_bytes(&store, profile, &bytes).expect("import");
        prop_assert_eq!(imported.file_size, size as u64);
        prop_assert_eq!(stat(&store, &imported.cid).expect("stat"), Object::File { size: size as u64 });
        prop_assert_eq!(&read_file(&store, &imported.cid, size as u64).expect("read"), &bytes);
        let mut copy = Vec::new();
        prop_assert_eq!(copy_file(&store, &imported.cid, u64::MAX, &mut copy).expect("copy"), size as u64);
        prop_assert_eq!(copy, bytes);
    }

    #[test]
    fn a_range_is_that_part_of_the_file(
        profile in any_profile(), size in 0..1000usize, start in 0..1200u64, end in 0..1200u64,
    ) {
        let store = MemoryStore::new();
        let bytes = pseudo_random(9, size);
        let cid = put_bytes(&store, profile, &bytes).expect("import").cid;
        let expected = bytes.get((start as usize).min(size)..(end as usize).min(size)).unwrap_or_default();
        let read = read_range(&store, &cid, start..end, expected.len() as u64).expect("read");
        prop_assert_eq!(&read[..], expected);
    }

    #[test]
    fn the_pieces_in_which_a_file_arrives_do_not_matter(
        profile in any_profile(), pieces in prop::collection::vec(0..100usize, 0..12),
    ) {
        let bytes = pseudo_random(3, pieces.iter().sum());
        let whole = put_bytes(&MemoryStore::new(), profile, &bytes).expect("import");
        let store = MemoryStore::new();
        let sink = &mut |cid: &Cid, block: &[u8]| store.put(cid, block);
        let mut importer = FileImporter::new(profile);
        let mut rest = &bytes[..];
        for piece in pieces {
            let (bytes, after) = rest.split_at(piece);
            importer.push(bytes, sink).expect("push");
            rest = after;
        }
        prop_assert_eq!(importer.finish(sink).expect("finish"), whole);
        prop_assert_eq!(put_file(&store, profile, &bytes[..]).expect("import"), whole);
    }

    #[test]
    fn one_wrong_bit_in_any_block_is_found_and_the_block_named(
        profile in any_profile(), size in 1..400usize, block in any::<prop::sample::Index>(), bit in any::<prop::sample::Index>(),
    ) {
        let store = MemoryStore::new();
        let mut names = Vec::new();
        let bytes = pseudo_random(5, size);
        let root = althing_content::unixfs::import_bytes(profile, &bytes, &mut |cid: &Cid, block: &[u8]| {
            names.push(*cid);
            store.put(cid, block)
        }).expect("import").cid;
        let cid = names[block.index(names.len())];
        let mut damaged = store.get(&cid).expect("get").expect("here");
        let bit = bit.index(damaged.len() * 8);
        damaged[bit / 8] ^= 1 << (bit % 8);

        // A store finds it; so does a walk over blocks from a store that does not look.
        let mut walk = FileWalk::new(root, 0..u64::MAX, u64::MAX);
        let mut is_found = false;
        while let Some(wanted) = walk.wanted() {
            let good = store.get(&wanted).expect("get").expect("here");
            if wanted == cid {
                let is_named = matches!(walk.take(&damaged), Err(ReadError::Corrupt { cid: named }) if named == cid);
                prop_assert!(is_named);
                is_found = true;
            }
            walk.take(&good).expect("the right block is taken after a wrong one");
        }
        prop_assert!(is_found);
        store.damage(&cid, damaged);
        let error = read_file(&store, &root, u64::MAX).expect_err("damaged");
        let is_named = matches!(&error, ReadError::Store(StoreError::Corrupt { cid: named }) if *named == cid);
        prop_assert!(is_named);
        prop_assert!(error.to_string().contains(&cid.to_string()));
    }
}

#[test]
fn a_file_larger_than_wanted_is_refused_at_its_root() {
    let store = MemoryStore::new();
    let cid = put_bytes(&store, small(), &pseudo_random(1, 100)).expect("import").cid;
    assert!(matches!(read_file(&store, &cid, 99), Err(ReadError::TooLarge { size: 100, size_max: 99, .. })));
    assert_eq!(read_range(&store, &cid, 50..60, 10).expect("a part is small enough").len(), 10);
}

#[test]
fn a_missing_block_is_named_and_ends_the_reading() {
    let store = MemoryStore::new();
    let bytes = pseudo_random(1, 25);
    let cid = put_bytes(&store, small(), &bytes).expect("import").cid;
    let gone = Cid::of_raw_block(&bytes[10..20]);
    assert!(store.remove(&gone));
    let pieces: Vec<_> = FileReader::open(&store, &cid, 0..u64::MAX, 100).expect("open").collect();
    assert_eq!(pieces.len(), 2);
    assert_eq!(pieces[0].as_deref().expect("first piece"), &bytes[..10]);
    assert!(matches!(&pieces[1], Err(ReadError::Missing { cid }) if *cid == gone));
    assert_eq!(read_range(&store, &cid, 20..25, 5).expect("beyond the gap"), &bytes[20..]);
}

#[test]
fn nodes_that_lie_about_sizes_are_refused() {
    let store = MemoryStore::new();
    let leaf = put_bytes(&store, small(), b"12345").expect("import").cid;
    for size in [1, 4, 6, u64::MAX] {
        let root = put_node(&store, &Node::file(vec![], vec![link(leaf, "")], vec![size]));
        let error = read_file(&store, &root, u64::MAX).expect_err("a lie");
        assert!(matches!(error, ReadError::Size { cid } if cid == leaf), "{size}: {error}");
    }
    let overflow = Node::file(vec![], vec![link(leaf, ""), link(leaf, "")], vec![u64::MAX, 1]);
    let root = put_node(&store, &overflow);
    assert!(matches!(read_file(&store, &root, u64::MAX), Err(ReadError::Node { .. })));
}

#[test]
fn a_file_nested_without_end_is_refused() {
    let store = MemoryStore::new();
    let mut cid = put_bytes(&store, small(), b"x").expect("import").cid;
    for depth in 0..DEPTH_MAX + 1 {
        assert_eq!(read_file(&store, &cid, 1).expect("deep enough"), b"x", "{depth}");
        cid = put_node(&store, &Node::file(vec![], vec![link(cid, "")], vec![1]));
    }
    assert!(matches!(read_file(&store, &cid, 1), Err(ReadError::TooDeep { .. })));
}

#[test]
fn bytes_in_inner_nodes_come_before_those_below() {
    let store = MemoryStore::new();
    let leaf = put_bytes(&store, small(), b"world").expect("import").cid;
    let root = put_node(&store, &Node::file(b"hello ".to_vec(), vec![link(leaf, "")], vec![5]));
    assert_eq!(read_file(&store, &root, 11).expect("read"), b"hello world");
    assert_eq!(read_range(&store, &root, 4..8, 4).expect("read"), b"o wo");
}

#[test]
fn paths_lead_through_directories() {
    let store = MemoryStore::new();
    let files = [("a/b/c", &b"deep"[..]), ("a/d", b"file"), ("é", b"")];
    let root = put_tree(&store, Profile::V1_2025, files).expect("import").cid;
    let names: Vec<_> = list(&store, &root).expect("list").into_iter().map(|entry| entry.name).collect();
    assert_eq!(names, ["a", "é"]);
    let read = |path| resolve(&store, &root, path).and_then(|cid| read_file(&store, &cid, 10));
    assert_eq!(read("a/b/c").expect("read"), b"deep");
    assert_eq!(read("/a//d/").expect("read"), b"file");
    assert_eq!(resolve(&store, &root, "").expect("root"), root);
    assert!(matches!(read("a"), Err(ReadError::NotAFile { .. })));
    assert!(matches!(read("a/d/e"), Err(ReadError::NotADirectory { .. })));
    assert!(matches!(read("a/x"), Err(ReadError::NoEntry { name, .. }) if name == "x"));
    assert!(matches!(read("../a"), Err(ReadError::NoEntry { .. })));
    let path = vec!["a"; PATH_DEPTH_MAX].join("/");
    let root = put_tree(&store, Profile::V1_2025, [(&path[..], &b"deep"[..])]).expect("import").cid;
    assert_eq!(resolve(&store, &root, &path).expect("resolve"), Cid::of_raw_block(b"deep"));
    assert!(matches!(resolve(&store, &root, &format!("{path}/a")), Err(ReadError::PathTooDeep)));
}

#[test]
fn directories_with_foul_names_are_refused() {
    let store = MemoryStore::new();
    let leaf = Cid::of_raw_block(b"");
    for names in [&[".."][..], &["a/b"], &[""], &["."], &["same", "same"], &["nul\0"]] {
        let root = put_node(&store, &Node::directory(names.iter().map(|name| link(leaf, name)).collect()));
        assert!(matches!(list(&store, &root), Err(ReadError::EntryName { .. })), "{names:?}");
    }
}

#[test]
fn a_block_of_a_foreign_kind_is_an_error_not_a_panic() {
    let store = MemoryStore::new();
    let block = b"not protobuf";
    let cid = Cid::v1(Codec::DagPb, *Cid::of_raw_block(block).digest());
    store.put(&cid, block).expect("put");
    assert!(matches!(read_file(&store, &cid, 100), Err(ReadError::Node { .. })));
    assert!(matches!(list(&store, &cid), Err(ReadError::Node { .. })));
}

#[test]
fn a_walk_over_everything_takes_each_block_once_and_keeps_its_bound() {
    let store = MemoryStore::new();
    let zeros = [0; 500];
    let files = [("a/zeros", &zeros[..]), ("zeros", &zeros), ("b", b"other")];
    let root = put_tree(&store, small(), files).expect("import").cid;
    let walk_all = |bytes_max| {
        let mut walk = DagWalk::new(root, bytes_max);
        let mut count = 0;
        while let Some(wanted) = walk.wanted() {
            walk.take(&store.get(&wanted).expect("get").expect("here"))?;
            count += 1;
        }
        Ok::<_, ReadError>((count, walk.bytes()))
    };
    let (count, bytes) = walk_all(u64::MAX).expect("no bound");
    assert_eq!(count, store.len());
    assert!(walk_all(bytes).is_ok());
    assert!(matches!(walk_all(bytes - 1), Err(ReadError::DagTooLarge { .. })));
}
