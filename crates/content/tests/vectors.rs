//! The CIDs of this crate against those of `ipfs-unixfs-importer`; `vectors/make.mjs` says how they were made.

mod common;

use althing_content::{
    Cid, Imported, Profile,
    dag_pb::{Kind, Node},
    file_cid,
    tree::import_tree,
    unixfs::{import_bytes, nowhere},
};
use common::pseudo_random;
use serde::Deserialize;

#[derive(Deserialize)]
struct Vectors {
    texts: Vec<TextRow>,
    files: Vec<FileRow>,
    small: Vec<FileRow>,
    trees: Vec<TreeRow>,
    wide: Vec<WideRow>,
}

#[derive(Deserialize)]
struct TextRow {
    profile: String,
    text: String,
    cid: Cid,
    dag_size: u64,
}

#[derive(Deserialize)]
struct FileRow {
    profile: String,
    chunk_size: Option<usize>,
    links_max: Option<usize>,
    seed: u32,
    size: usize,
    cid: Cid,
    dag_size: u64,
}

#[derive(Deserialize)]
struct TreeRow {
    profile: String,
    files: Vec<TreeFile>,
    cid: Cid,
    dag_size: u64,
}

#[derive(Deserialize)]
struct TreeFile {
    path: String,
    seed: u32,
    size: usize,
}

#[derive(Deserialize)]
struct WideRow {
    profile: String,
    shards_above: Option<usize>,
    below: Option<String>,
    count: usize,
    is_sharded: bool,
    cid: Cid,
    dag_size: u64,
}

fn vectors() -> Vectors {
    serde_json::from_str(include_str!("vectors/vectors.json")).expect("vectors.json")
}

fn profile(name: &str) -> Profile {
    match name {
        "unixfs-v1-2025" => Profile::V1_2025,
        "unixfs-v0-2015" => Profile::V0_2015,
        other => panic!("unknown profile {other}"),
    }
}

fn import(profile: Profile, bytes: &[u8]) -> Imported {
    import_bytes(profile, bytes, &mut nowhere).expect("no sink fails")
}

#[test]
fn texts_have_the_names_that_the_reference_gives() {
    for row in vectors().texts {
        let imported = import(profile(&row.profile), row.text.as_bytes());
        assert_eq!((imported.cid, imported.dag_size), (row.cid, row.dag_size), "{:?}", row.text);
    }
}

#[test]
fn files_of_every_size_have_the_names_that_the_reference_gives() {
    for row in vectors().files {
        let bytes = pseudo_random(row.seed, row.size);
        let imported = import(profile(&row.profile), &bytes);
        assert_eq!((imported.cid, imported.dag_size), (row.cid, row.dag_size), "{} {}", row.profile, row.size);
        assert_eq!(imported.file_size, row.size as u64);
        if profile(&row.profile) == Profile::V1_2025 {
            assert_eq!(file_cid(&bytes), row.cid);
        }
    }
}

#[test]
fn deep_trees_of_small_chunks_have_the_names_that_the_reference_gives() {
    for row in vectors().small {
        let (chunk_size, links_max) = (row.chunk_size.expect("chunk_size"), row.links_max.expect("links_max"));
        let profile = profile(&row.profile).with_sizes(chunk_size, links_max);
        let imported = import(profile, &pseudo_random(row.seed, row.size));
        assert_eq!((imported.cid, imported.dag_size), (row.cid, row.dag_size), "{} {}", row.profile, row.size);
    }
}

#[test]
fn directories_have_the_names_that_the_reference_gives() {
    for row in vectors().trees {
        let files: Vec<_> = row.files.iter().map(|file| pseudo_random(file.seed, file.size)).collect();
        let files = row.files.iter().zip(&files).map(|(file, bytes)| (file.path.as_str(), &bytes[..]));
        let imported = import_tree(profile(&row.profile), files, &mut nowhere).expect("a tree");
        assert_eq!((imported.cid, imported.dag_size), (row.cid, row.dag_size), "{}", row.profile);
    }
}

#[test]
fn directories_are_in_shards_where_and_as_the_reference_has_them() {
    for row in vectors().wide {
        let below = row.below.map_or(String::new(), |below| below + "/");
        let names: Vec<_> = (0..row.count).map(|index| format!("{below}entry-{index:06}")).collect();
        let byte = pseudo_random(1, 1);
        let files = names.iter().map(|name| (name.as_str(), &byte[..]));
        let mut profile = profile(&row.profile);
        if let Some(size) = row.shards_above {
            profile = profile.with_shards_above(size);
        }
        let mut root = None;
        let mut keep = |cid: &Cid, block: &[u8]| {
            root = Some((*cid, block.to_vec()));
            Ok::<_, std::convert::Infallible>(())
        };
        let imported = import_tree(profile, files, &mut keep).expect("a tree");
        let (cid, block) = root.expect("the root comes last");
        let what = format!("{} {:?} {below:?} {}", row.profile, row.shards_above, row.count);
        assert_eq!((imported.cid, imported.cid, imported.dag_size), (row.cid, cid, row.dag_size), "{what}");
        let is_sharded = matches!(Node::decode(&block).expect("node").kind, Kind::Shard { fanout: 256 });
        assert_eq!(is_sharded, row.is_sharded, "{what}");
    }
}

#[test]
fn the_digests_of_the_paper_are_reproduced() {
    for (bytes, digest) in [
        ("746573740a", "1220f4ad8a3bd3189da2ad909ee41148d6893d8c629c410f7f2c7e3fae75aade79c8"),
        ("", "1220bfccda787baba32b59c78450ac3d20b633360b43992c77289f9ed46d843561e6"),
    ] {
        let cid = import(Profile::V0_2015, &hex::decode(bytes).expect("hex")).cid;
        assert_eq!(hex::encode(cid.multihash()), digest);
    }
}
