//! Archives against those of `@ipld/car` (`vectors/make-cars.mjs` says how they were made), and out of hostile hands.

mod common;
#[path = "common/nodes.rs"]
mod nodes;

use althing_content::{
    BLOCK_SIZE_MAX, BlockStore, CarError, CarReader, CarWriter, Cid, DagWalk, MemoryStore, Profile, ReadError, Scope,
    StoreError, Traversal,
    car::{Decoder, HEADER_SIZE_MAX, Header, Item, export, import},
    dag_pb::Node,
    directory::resolve_path,
    put_bytes, put_tree, read_range,
};
use common::pseudo_random;
use nodes::{link, put_node};
use proptest::prelude::*;
use serde::Deserialize;

#[derive(Deserialize)]
struct Vectors {
    trees: Vec<TreeRow>,
    orders: Vec<OrderRow>,
    headers: Vec<HeaderRow>,
}

#[derive(Deserialize)]
struct TreeRow {
    profile: String,
    chunk_size: usize,
    links_max: usize,
    files: Vec<TreeFile>,
    has_dups: bool,
    root: Cid,
    blocks: u64,
    car: String,
}

#[derive(Deserialize)]
struct TreeFile {
    path: String,
    /// Zeros if there is none.
    seed: Option<u32>,
    size: usize,
}

#[derive(Deserialize)]
struct OrderRow {
    root: Cid,
    blocks: u64,
    car: String,
}

#[derive(Deserialize)]
struct HeaderRow {
    roots: Vec<Cid>,
    foreign: usize,
    car: String,
}

fn vectors() -> Vectors {
    serde_json::from_str(include_str!("vectors/cars.json")).expect("cars.json")
}

fn unhex(text: &str) -> Vec<u8> {
    hex::decode(text).expect("hex")
}

fn small() -> Profile {
    Profile::V1_2025.with_sizes(10, 3)
}

fn export_whole(store: &MemoryStore, root: &Cid, has_dups: bool) -> Vec<u8> {
    let mut car = Vec::new();
    export(store, root, has_dups, u64::MAX, &mut car, |_| {}).expect("export");
    car
}

/// Everything in an archive that is fed in pieces of a size.
fn decode(car: &[u8], piece: usize) -> Result<Vec<Item>, CarError> {
    let mut decoder = Decoder::new();
    let mut items = Vec::new();
    for piece in car.chunks(piece) {
        decoder.feed(piece);
        while let Some(item) = decoder.next_item()? {
            items.push(item);
        }
    }
    decoder.finish()?;
    Ok(items)
}

#[test]
fn trees_are_exported_to_the_bytes_that_the_reference_writes() {
    for row in vectors().trees {
        let profile = match row.profile.as_str() {
            "unixfs-v0-2015" => Profile::V0_2015,
            _ => Profile::V1_2025,
        };
        let bytes = |file: &TreeFile| file.seed.map_or(vec![0; file.size], |seed| pseudo_random(seed, file.size));
        let files: Vec<_> = row.files.iter().map(bytes).collect();
        let files = row.files.iter().zip(&files).map(|(file, bytes)| (file.path.as_str(), &bytes[..]));
        let store = MemoryStore::new();
        let root = put_tree(&store, profile.with_sizes(row.chunk_size, row.links_max), files).expect("tree").cid;
        assert_eq!(root, row.root);
        assert_eq!(hex::encode(export_whole(&store, &root, row.has_dups)), row.car, "dups {}", row.has_dups);

        let copy = MemoryStore::new();
        let summary = import(&copy, &unhex(&row.car)[..], u64::MAX, |_| {}).expect("import");
        assert_eq!((summary.roots, summary.blocks), (vec![root], row.blocks));
        assert_eq!(copy.len(), store.len());
        assert_eq!(export_whole(&copy, &root, row.has_dups), unhex(&row.car));
    }
}

#[test]
fn archives_in_the_order_of_importers_are_read() {
    for row in vectors().orders {
        let store = MemoryStore::new();
        let summary = import(&store, &unhex(&row.car)[..], u64::MAX, |_| {}).expect("import");
        // The identity block at the end is no block of a store.
        assert_eq!(summary.blocks, row.blocks);
        assert!(!export_whole(&store, &row.root, false).is_empty());
    }
}

#[test]
fn headers_are_read_and_written_as_the_reference_does() {
    for row in vectors().headers {
        let car = unhex(&row.car);
        let reader = CarReader::open(&car[..]).expect("header");
        assert_eq!(reader.header(), &Header { roots: row.roots.clone(), foreign: row.foreign });
        assert_eq!(reader.count(), 0);
        if row.foreign == 0 {
            let writer = CarWriter::new(Vec::new(), &row.roots).expect("writer");
            assert_eq!(hex::encode(writer.finish().expect("finish")), row.car);
        }
    }
}

#[test]
fn headers_that_are_none_are_refused() {
    const ROOTS: &str = "65726f6f7473";
    const VERSION: &str = "6776657273696f6e";
    let framed = |header: &str| [vec![(header.len() / 2) as u8], unhex(header)].concat();
    for (header, error) in [
        (String::new(), "no header of dag-cbor"),
        ("a0".to_owned(), "no header of dag-cbor"),
        ("80".to_owned(), "no header of dag-cbor"),
        (format!("a1{ROOTS}80"), "no header of dag-cbor"),
        (format!("a1{VERSION}01"), "no header of dag-cbor"),
        // The first bytes of every archive of version 2.
        (format!("a1{VERSION}02"), "has version 2"),
        (format!("a2{ROOTS}80{VERSION}03"), "has version 3"),
        (format!("a2{ROOTS}80{VERSION}1801"), "no header of dag-cbor"),
        (format!("a2{ROOTS}80{VERSION}20"), "no header of dag-cbor"),
        (format!("a2{ROOTS}80{VERSION}0100"), "no header of dag-cbor"),
        (format!("a3{ROOTS}80{ROOTS}80{VERSION}01"), "no header of dag-cbor"),
        (format!("a2{ROOTS}81{VERSION}01"), "no header of dag-cbor"),
        (format!("a2{ROOTS}9bffffffffffffffff{VERSION}01"), "no header of dag-cbor"),
        (format!("a2{ROOTS}81d82a4101{VERSION}01"), "no header of dag-cbor"),
        (format!("a2{ROOTS}81d82a42000a{VERSION}01"), "no header of dag-cbor"),
        (format!("a2{ROOTS}5bffffffffffffffff{VERSION}01"), "no header of dag-cbor"),
    ] {
        let refused = CarReader::open(&framed(&header)[..]).expect_err(&header).to_string();
        assert!(refused.contains(error), "{header}: {refused}");
    }
    let large = [&[0xff, 0xff, 0x7f][..], &[0; HEADER_SIZE_MAX]].concat();
    assert!(matches!(CarReader::open(&large[..]), Err(CarError::HeaderTooLarge(_))));
    assert!(matches!(CarReader::open(&[0xff; 20][..]), Err(CarError::Header)));
    assert!(matches!(CarReader::open(&[][..]), Err(CarError::NoHeader)));
}

#[test]
fn sections_that_are_none_are_refused_and_placed() {
    let start = CarWriter::new(Vec::new(), &[]).expect("writer").finish().expect("finish");
    let offset_expected = start.len() as u64;
    let read = |section: &[u8]| {
        let car = [&start[..], section].concat();
        let mut reader = CarReader::open(&car[..]).expect("header");
        let error = reader.next().expect("an item").expect_err("an error");
        assert!(reader.next().is_none(), "nothing comes after an error");
        error
    };
    let framed = |section: &[u8]| [&[section.len() as u8], section].concat();
    let (good, block) = (Cid::of_raw_block(b"good").to_bytes(), b"good");

    let error = read(&framed(&[&good[..], b"bad"].concat()));
    assert!(
        matches!(&error, CarError::Corrupt { offset, cid } if *offset == offset_expected && cid.starts_with("bafkrei"))
    );
    assert!(matches!(read(&framed(b"")), CarError::Section { offset } if offset == offset_expected));
    assert!(matches!(read(&framed(&good[..20])), CarError::Section { .. }));
    assert!(matches!(read(&[0x80, 0x00]), CarError::Section { .. }));
    // Identity blocks must be what they say.
    assert!(matches!(read(&framed(&[0x01, 0x55, 0x00, 0x01, 7, 8])), CarError::Corrupt { .. }));
    let cbor = [&[0x01, 0x71][..], &good[2..], block].concat();
    let error = read(&framed(&cbor)).to_string();
    assert!(error.contains("bafyrei") && error.contains("another hash or codec"), "{error}");
    // Refused by its length alone, before the bytes come.
    assert!(matches!(read(&[0xff, 0xff, 0xff, 0xff, 0x0f]), CarError::TooLarge { .. }));
    let large = vec![0; BLOCK_SIZE_MAX + 1];
    let mut section = vec![0xa5, 0x80, 0x80, 0x01];
    section.extend(Cid::of_raw_block(&large).to_bytes());
    section.extend(&large);
    assert!(matches!(read(&section), CarError::TooLarge { .. }));
}

#[test]
fn an_import_keeps_its_bound_and_says_what_the_store_says() {
    let store = MemoryStore::new();
    let root = put_bytes(&store, small(), &pseudo_random(1, 100)).expect("put").cid;
    let car = export_whole(&store, &root, false);
    let copy = MemoryStore::new();
    assert!(matches!(import(&copy, &car[..], 50, |_| {}), Err(CarError::TooMany { bytes_max: 50 })));
    let mut heard = 0;
    let summary = import(&copy, &car[..], 10_000, |bytes| heard += bytes).expect("import");
    assert_eq!(heard, summary.bytes);

    assert!(matches!(export(&copy, &root, false, 50, std::io::sink(), |_| {}), Err(CarError::TooMany { .. })));
    copy.remove(&Cid::of_raw_block(&pseudo_random(1, 100)[50..60]));
    let error = export(&copy, &root, false, u64::MAX, std::io::sink(), |_| {}).expect_err("incomplete");
    assert!(matches!(error, CarError::Read(ReadError::Missing { .. })));
    copy.damage(&root, b"other".to_vec());
    let error = export(&copy, &root, false, u64::MAX, std::io::sink(), |_| {}).expect_err("damaged");
    assert!(matches!(error, CarError::Read(ReadError::Store(StoreError::Corrupt { .. }))));
}

#[test]
fn blocks_come_depth_first_where_a_block_is_linked_again() {
    let store = MemoryStore::new();
    let leaf = |name: &[u8]| put_bytes(&store, small(), name).expect("put").cid;
    let (x, y, z) = (leaf(b"x"), leaf(b"y"), leaf(b"z"));
    let inner = put_node(&store, &Node::directory(vec![link(z, "z"), link(y, "y")]));
    let root = put_node(&store, &Node::directory(vec![link(x, "1"), link(inner, "2"), link(x, "3"), link(y, "4")]));
    let order = |has_dups| {
        let traversal = Traversal::open(&store, &root, "", Scope::All, has_dups).expect("open");
        traversal.map(|block| block.expect("block").0).collect::<Vec<_>>()
    };
    assert_eq!(order(false), [root, x, inner, z, y]);
    assert_eq!(order(true), [root, x, inner, z, y, x, y]);
}

#[test]
fn a_scope_is_what_its_question_takes() {
    let store = MemoryStore::new();
    let file = pseudo_random(1, 100);
    let root = put_tree(&store, small(), [("a/file", &file[..]), ("a/other", b"other"), ("b", b"b")]).expect("put").cid;
    let cids = |path: &str, scope: Scope| {
        let traversal = Traversal::open(&store, &root, path, scope, false).expect("open");
        let roots: Vec<_> = resolve_path(&store, &root, path).expect("path").roots().copied().collect();
        (roots, traversal.map(|block| block.expect("block").0).collect::<Vec<_>>())
    };
    let (roots, block) = cids("a/file", Scope::Block);
    assert_eq!((roots.len(), &block), (3, &roots), "the path and what lies at its end");
    assert_eq!(cids("a", Scope::Entity).1.len(), 2);
    assert_eq!(cids("a", Scope::Bytes(0..5)).1.len(), 2, "a directory has no bytes");
    assert_eq!(cids("", Scope::All).1.len(), store.len());
    // Ten leaves under three nodes (four chunks, three links each), a root, and two directories above.
    assert_eq!(cids("a/file", Scope::Entity).1.len(), cids("a/file", Scope::All).1.len());
    assert_eq!(cids("a/file", Scope::Bytes(0..u64::MAX)), cids("a/file", Scope::Entity));
    assert!(cids("a/file", Scope::Bytes(35..36)).1.contains(&Cid::of_raw_block(&file[30..40])));
    assert!(!cids("a/file", Scope::Bytes(35..36)).1.contains(&Cid::of_raw_block(&file[20..30])));
    assert_eq!(cids("a/file", Scope::Bytes(100..200)).1, roots, "nothing but the root beyond the end");
    assert!(Traversal::open(&store, &root, "a/none", Scope::Block, false).is_err());
}

#[test]
fn shards_of_a_directory_are_listed_without_their_entries() {
    let store = MemoryStore::new();
    let entry = put_bytes(&store, small(), b"entry").expect("put").cid;
    let inner = put_node(&store, &Node::shard(256, vec![1], vec![link(entry, "00entry")]));
    let root = put_node(&store, &Node::shard(256, vec![4, 0], vec![link(inner, "0A")]));
    let count = |scope| Traversal::open(&store, &root, "", scope, false).expect("open").count();
    assert_eq!((count(Scope::Block), count(Scope::Entity), count(Scope::All)), (1, 2, 3));
}

#[test]
fn a_dag_that_multiplies_itself_is_walked_once_and_stays_bounded_otherwise() {
    let store = MemoryStore::new();
    let mut cid = put_bytes(&store, small(), b"x").expect("put").cid;
    for level in 0..60 {
        let size = 1 << level;
        cid = put_node(&store, &Node::file(vec![], vec![link(cid, ""), link(cid, "")], vec![size, size]));
    }
    for scope in [Scope::All, Scope::Entity, Scope::Bytes(5..u64::MAX), Scope::Bytes(0..1 << 40)] {
        let count = Traversal::open(&store, &cid, "", scope.clone(), false).expect("open").count();
        assert_eq!(count, store.len(), "{scope:?}");
    }
    let some = Traversal::open(&store, &cid, "", Scope::All, true).expect("open").take(1000);
    assert!(some.map(|block| block.expect("block").0).all(|cid| store.has(&cid).expect("has")));
}

proptest! {
    #[test]
    fn the_pieces_in_which_an_archive_arrives_do_not_matter(
        sizes in prop::collection::vec(0..300usize, 0..5), piece in 1..200usize,
    ) {
        let files: Vec<_> = (0u32..).zip(&sizes).map(|(seed, size)| (seed.to_string(), pseudo_random(seed, *size))).collect();
        let store = MemoryStore::new();
        let files = files.iter().map(|(name, bytes)| (name.as_str(), &bytes[..]));
        let root = put_tree(&store, small(), files).expect("put").cid;
        let car = export_whole(&store, &root, false);
        let items = decode(&car, piece).expect("decode");
        prop_assert_eq!(&items, &decode(&car, car.len()).expect("decode"));
        prop_assert_eq!(items.len(), store.len() + 1);
        // A walk from the root wants exactly the blocks of the archive, in their order.
        let mut walk = DagWalk::new(root, u64::MAX);
        for item in &items[1..] {
            let Item::Block { cid, block } = item else { panic!("one header only") };
            prop_assert_eq!(walk.wanted(), Some(*cid));
            walk.take(block).expect("take");
        }
        prop_assert_eq!(walk.wanted(), None);
    }

    #[test]
    fn every_cut_of_an_archive_but_those_between_blocks_is_noticed(size in 0..100usize, cut in any::<prop::sample::Index>()) {
        let store = MemoryStore::new();
        let root = put_bytes(&store, small(), &pseudo_random(1, size)).expect("put").cid;
        let car = export_whole(&store, &root, false);
        let cut = cut.index(car.len());
        match decode(&car[..cut], 64) {
            Ok(items) => {
                let mut again = CarWriter::new(Vec::new(), &[root]).expect("writer");
                for item in &items[1..] {
                    let Item::Block { cid, block } = item else { panic!("one header only") };
                    again.put(cid, block).expect("put");
                }
                prop_assert_eq!(again.finish().expect("finish"), &car[..cut]);
            }
            Err(error) => prop_assert!(matches!(error, CarError::NoHeader | CarError::Truncated { .. }), "{}", error),
        }
    }

    #[test]
    fn no_bytes_make_the_decoder_panic_or_give_a_wrong_block(
        bytes in prop::collection::vec(any::<u8>(), 0..200), flip in any::<prop::sample::Index>(), is_archive in any::<bool>(),
    ) {
        let mut bytes = bytes;
        if is_archive {
            let store = MemoryStore::new();
            let root = put_bytes(&store, small(), &bytes).expect("put").cid;
            bytes = export_whole(&store, &root, true);
            let bit = flip.index(bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
        for item in decode(&bytes, 7).unwrap_or_default() {
            if let Item::Block { cid, block } = item {
                prop_assert!(cid.names(&block));
            }
        }
    }

    #[test]
    fn a_range_can_be_read_from_the_blocks_of_its_scope_and_from_no_fewer(
        size in 1..400usize, from in 0..450u64, length in 1..200u64, chunk_size in 1..30usize,
    ) {
        let store = MemoryStore::new();
        let bytes = pseudo_random(3, size);
        let cid = put_bytes(&store, Profile::V0_2015.with_sizes(chunk_size, 3), &bytes).expect("put").cid;
        let range = from..from + length;
        let part = MemoryStore::new();
        let traversal = Traversal::open(&store, &cid, "", Scope::Bytes(range.clone()), false).expect("open");
        let blocks: Vec<_> = traversal.map(|block| block.expect("block")).collect();
        for (cid, block) in &blocks {
            part.put(cid, block).expect("put");
        }
        prop_assert_eq!(part.len(), blocks.len(), "each block once");
        let expected = read_range(&store, &cid, range.clone(), u64::MAX).expect("read");
        prop_assert_eq!(&read_range(&part, &cid, range.clone(), u64::MAX).expect("read"), &expected);
        for (removed, block) in &blocks {
            part.remove(removed);
            prop_assert!(read_range(&part, &cid, range.clone(), u64::MAX).is_err());
            part.put(removed, block).expect("put");
        }
    }
}
