//! Directories in shards: those that are made are read, those of others too, those that nobody makes are refused.

#[path = "common/nodes.rs"]
mod nodes;

use std::collections::BTreeSet;

use althing_content::{
    BlockStore, Cid, Codec, MemoryStore, Profile, ReadError, Scope, Traversal, Version,
    dag_pb::{Kind, Link, Node, NodeError},
    directory::{Entry, list, list_at_most, resolve, resolve_path},
    put_bytes, put_tree,
    read::{Object, read_file, stat},
};
use nodes::{link, put_node};
use proptest::prelude::*;
use serde::Deserialize;

/// All directories but the empty one are in shards.
fn sharded() -> Profile {
    Profile::V1_2025.with_shards_above(5)
}

fn put(store: &MemoryStore, profile: Profile, names: &BTreeSet<String>) -> Cid {
    // Each file says its name.
    put_tree(store, profile, names.iter().map(|name| (name.as_str(), name.as_bytes()))).expect("a tree").cid
}

fn names_of(entries: Vec<Entry>) -> Vec<String> {
    entries.into_iter().map(|entry| entry.name).collect()
}

/// All blocks of a directory, and where the way to an entry leads.
fn blocks_of(store: &MemoryStore, root: &Cid, path: &str, scope: Scope) -> Vec<Cid> {
    let blocks = Traversal::open(store, root, path, scope, false).expect("open");
    blocks.map(|block| block.expect("block").0).collect()
}

proptest! {
    #[test]
    fn a_directory_in_shards_is_the_set_of_its_entries(
        names in prop::collection::btree_set("[a-c]{1,4}|[é☃]{1,9}|[a-z0-9. -]{1,60}x", 0..400),
        others in prop::collection::vec("[a-d]{1,4}", 0..20),
    ) {
        let store = MemoryStore::new();
        let root = put(&store, sharded(), &names);
        let is_sharded = store.get(&root).expect("get").map(|block| Node::decode(&block).expect("node").kind);
        prop_assert_eq!(is_sharded == Some(Kind::Shard { fanout: 256 }), !names.is_empty());
        prop_assert_eq!(stat(&store, &root).expect("stat"), Object::Directory);
        let expected: Vec<_> = names.iter().cloned().collect();
        prop_assert_eq!(names_of(list(&store, &root).expect("list")), expected);
        for name in &names {
            let end = resolve(&store, &root, name).expect("resolve");
            prop_assert_eq!(read_file(&store, &end, 1000).expect("read"), name.as_bytes());
        }
        for other in others.iter().filter(|other| !names.contains(*other)) {
            let missing = resolve(&store, &root, other);
            let is_missing = matches!(missing, Err(ReadError::NoEntry { cid, .. }) if cid == root);
            prop_assert!(is_missing, "{other}");
        }
    }
}

#[test]
fn a_path_takes_the_shards_on_its_way_and_a_listing_all_of_them() {
    let store = MemoryStore::new();
    let names = (0..3000).map(|index| format!("dir/{index}")).collect();
    let root = put(&store, sharded(), &names);
    let path = resolve_path(&store, &root, "dir/1234").expect("path");
    assert_eq!(path.directories.len(), 2);
    assert_eq!(path.end, Cid::of_raw_block(b"dir/1234"));
    let depth = path.blocks.len();
    assert!(depth > 2, "the root, and at least two shards of the directory");
    assert!(path.directories.iter().all(|directory| path.blocks.contains(directory)));

    let block = blocks_of(&store, &root, "dir/1234", Scope::Block);
    assert_eq!(block[..depth], path.blocks);
    assert_eq!(block[depth..], [path.end]);
    // What a part has is what it takes.
    let part = MemoryStore::new();
    for cid in &block {
        part.put(cid, &store.get(cid).expect("get").expect("here")).expect("put");
    }
    assert_eq!(resolve_path(&part, &root, "dir/1234").expect("path"), path);
    assert!(matches!(list(&part, &path.directories[1]), Err(ReadError::Missing { .. })));

    let listing = blocks_of(&store, &path.directories[1], "", Scope::Entity);
    let part = MemoryStore::new();
    for cid in &listing {
        assert_eq!(cid.codec(), Codec::DagPb, "no entry is among them");
        part.put(cid, &store.get(cid).expect("get").expect("here")).expect("put");
    }
    assert_eq!(list(&part, &path.directories[1]).expect("list").len(), 3000);
    let all = blocks_of(&store, &path.directories[1], "", Scope::All);
    assert_eq!(all.len(), listing.len() + 3000);
}

#[derive(Deserialize)]
struct Vectors {
    fanouts: Vec<FanoutRow>,
}

#[derive(Deserialize)]
struct FanoutRow {
    fanout: u32,
    names: BTreeSet<String>,
    root: Cid,
    blocks: Vec<String>,
}

#[test]
fn shards_of_other_widths_are_read() {
    let vectors: Vectors = serde_json::from_str(include_str!("vectors/vectors.json")).expect("vectors.json");
    assert_eq!(vectors.fanouts.len(), 6);
    for row in vectors.fanouts {
        let store = MemoryStore::new();
        for block in row.blocks {
            let block = hex::decode(block).expect("hex");
            let cid = Cid::of_raw_block(&block);
            // A block lies under its hash, whatever its codec.
            store.put(&cid, &block).expect("put");
        }
        let root = store.get(&row.root).expect("get").expect("here");
        assert_eq!(Node::decode(&root).expect("node").kind, Kind::Shard { fanout: row.fanout });
        let entries = list(&store, &row.root).expect("list");
        assert_eq!(names_of(entries), row.names.iter().cloned().collect::<Vec<_>>(), "{}", row.fanout);
        for name in &row.names {
            resolve(&store, &row.root, name).expect("resolve");
        }
    }
}

/// A name, and the slots that lead to it in shards of 256: found by trying.
fn name_at(slots: &[u8]) -> String {
    let mut names = (0..).map(|index: u32| format!("n{index}"));
    let is_there = |name: &String| {
        let digest = murmur3::murmur3_x64_128(&mut name.as_bytes(), 0).expect("memory") as u64;
        digest.to_be_bytes().starts_with(slots)
    };
    names.find(is_there).expect("there are many names")
}

fn shard(store: &MemoryStore, slots: &[u8], links: Vec<Link>) -> Cid {
    let mut taken = vec![0; 32];
    for slot in slots {
        taken[31 - usize::from(*slot / 8)] |= 1u8 << (slot % 8);
    }
    put_node(store, &Node::shard(256, taken, links))
}

#[test]
fn shards_that_lead_astray_are_refused() {
    let store = MemoryStore::new();
    let leaf = put_bytes(&store, Profile::V1_2025, b"x").expect("put").cid;
    let (here, below) = (name_at(&[7]), name_at(&[7, 9]));
    let (other, at_zero) = (name_at(&[8]), name_at(&[0]));
    let entry = |slot: u8, name: &str| link(leaf, &format!("{slot:02X}{name}"));
    let way = |slot: u8, cid: Cid| link(cid, &format!("{slot:02X}"));
    let inner = shard(&store, &[9], vec![entry(9, &below)]);
    let good = shard(&store, &[7, 8], vec![way(7, inner), entry(8, &other)]);
    assert_eq!(list(&store, &good).expect("list").len(), 2);
    assert_eq!(resolve(&store, &good, &below).expect("resolve"), leaf);

    // What each holds, and which name does not lead through it.
    let wrong_slot = shard(&store, &[8], vec![entry(8, &here)]);
    let twice = shard(&store, &[7, 8], vec![way(7, inner), way(8, inner)]);
    let slash = shard(&store, &[7], vec![entry(7, "a/b")]);
    for (what, root) in [("another slot", wrong_slot), ("a shard under two slots", twice), ("no name", slash)] {
        assert!(matches!(list(&store, &root), Err(ReadError::EntryName { .. })), "{what}");
    }
    assert!(matches!(resolve(&store, &wrong_slot, &here), Err(ReadError::NoEntry { .. })));
    assert!(matches!(resolve(&store, &wrong_slot, &other), Err(ReadError::NoEntry { .. })));

    let empty = shard(&store, &[], vec![]);
    let narrow = put_node(&store, &Node::shard(16, vec![1], vec![link(leaf, &format!("0{at_zero}"))]));
    let plain = put_node(&store, &Node::directory(vec![link(leaf, &here)]));
    let mut deep = shard(&store, &[9], vec![entry(9, &below)]);
    for _ in 0..8 {
        deep = shard(&store, &[7], vec![way(7, deep)]);
    }
    for (what, cid) in
        [("an empty shard", empty), ("another width", narrow), ("a plain directory", plain), ("depth", deep)]
    {
        let root = shard(&store, &[7], vec![way(7, cid)]);
        let is_refused = |read| matches!(read, Err(ReadError::Node { source: NodeError::Shard(_), .. }));
        assert!(is_refused(list(&store, &root).map(drop)), "{what}");
        // No name that can be found leads so deep.
        assert!(cid == deep || is_refused(resolve(&store, &root, &here).map(drop)), "{what}");
    }
    let root = shard(&store, &[7], vec![way(7, leaf)]);
    assert!(matches!(list(&store, &root), Err(ReadError::NotADirectory { cid }) if cid == leaf));
    assert!(matches!(read_file(&store, &good, 10), Err(ReadError::NotAFile { .. })));
    assert_eq!(list(&store, &empty).expect("an empty directory is one"), []);
}

/// Keeps the node with its last link leading to an identity CID, as kubo makes them with `--inline`.
fn put_inline(store: &MemoryStore, node: &Node) -> Cid {
    let (known, inline) = (node.links.last().expect("a link").cid.to_bytes(), [1, 0x55, 0, 0]);
    let mut block = node.encode();
    let at = block.windows(known.len()).rposition(|bytes| bytes == known).expect("there");
    // The lengths of the CID and of the link, and what lies between them.
    (block[at - 1], block[at - 3]) = (4, block[at - 3] - 32);
    block.splice(at..at + known.len(), inline);
    let cid = Cid::of_dag_pb_block(Version::V1, &block);
    store.put(&cid, &block).expect("put");
    cid
}

#[test]
fn an_entry_that_is_named_otherwise_does_not_hide_those_beside_it() {
    let store = MemoryStore::new();
    let leaf = put_bytes(&store, Profile::V1_2025, b"x").expect("put").cid;
    let (here, other) = (name_at(&[7]), name_at(&[8]));
    let in_shards = vec![link(leaf, &format!("07{here}")), link(leaf, &format!("08{other}"))];
    let mut names = [&here, &other];
    names.sort();
    let [first, last] = names.map(|name| link(leaf, name));
    for (node, known, foreign) in [
        (Node::shard(256, vec![1, 0x80], in_shards), &here, &other),
        (Node::directory(vec![first, last]), names[0], names[1]),
    ] {
        let root = put_inline(&store, &node);
        assert_eq!(resolve(&store, &root, known).expect("resolve"), leaf);
        for read in [resolve(&store, &root, foreign).map(drop), list(&store, &root).map(drop)] {
            assert!(matches!(read, Err(ReadError::Foreign { name, .. }) if name == *foreign));
        }
        let blocks = blocks_of(&store, &root, "", Scope::All);
        assert_eq!(blocks, [root, leaf], "what is in a name is in no other block");
    }
    // A shard that cannot be looked for is no reason to say that an entry is not there.
    let way = put_inline(&store, &Node::shard(256, vec![0x80], vec![link(leaf, "07")]));
    assert!(matches!(resolve(&store, &way, &here), Err(ReadError::Foreign { .. })));
}

#[test]
fn a_listing_has_a_bound() {
    let store = MemoryStore::new();
    let names = (0..300).map(|index| index.to_string()).collect();
    for profile in [Profile::V1_2025, sharded()] {
        let root = put(&store, profile, &names);
        assert_eq!(list_at_most(&store, &root, 300).expect("list").len(), 300);
        let refused = list_at_most(&store, &root, 299);
        assert!(matches!(refused, Err(ReadError::TooManyEntries { cid, entries_max: 299 }) if cid == root));
    }
}
