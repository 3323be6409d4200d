//! The gateway by the specification of trustless gateways, asked by a plain HTTP client.

mod common;
#[path = "common/web.rs"]
mod web;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use althing_content::{
    BlockStore, CarReader, Cid, MemoryStore, Profile, Scope, Traversal, Version,
    car::export,
    dag_pb::{Link, Node},
    gateway::{LISTED_MAX, Settings, router_with},
    put_bytes, put_tree, read_range, resolve,
};
use axum::http::StatusCode;
use common::pseudo_random;
use reqwest::header;
use web::{http, request, serve, serve_store};

const CAR: &str = "application/vnd.ipld.car";

fn small() -> Profile {
    Profile::V1_2025.with_sizes(1000, 3)
}

/// The names in an archive.
fn cids_in(car: &[u8]) -> Vec<Cid> {
    CarReader::open(car).expect("header").map(|block| block.expect("block").0).collect()
}

fn tree(store: &MemoryStore) -> (Cid, Vec<u8>) {
    let file = pseudo_random(1, 12_345);
    let files = [("dir/file", &file[..]), ("dir/other", b"other"), ("top", b"top")];
    (put_tree(store, small(), files).expect("put").cid, file)
}

#[tokio::test]
async fn an_archive_holds_the_path_and_what_lies_at_its_end() {
    let (store, base_url) = serve_store().await;
    let (root, file) = tree(&store);
    let end = resolve(&store, &root, "dir/file").expect("resolve");
    let (status, headers, body) = request(&format!("{base_url}/ipfs/{root}/dir/file?format=car"), &[]).await;
    assert_eq!(status, StatusCode::OK);
    for (name, value) in [
        ("content-type", "application/vnd.ipld.car; version=1; order=dfs; dups=n"),
        ("content-disposition", &format!("attachment; filename=\"{end}.car\"")),
        ("cache-control", "public, max-age=29030400, immutable"),
        ("accept-ranges", "none"),
        ("x-content-type-options", "nosniff"),
        ("x-ipfs-path", &format!("/ipfs/{root}/dir/file")),
        ("x-ipfs-roots", &format!("{root},{},{end}", resolve(&store, &root, "dir").expect("resolve"))),
        ("access-control-allow-origin", "*"),
        ("vary", "accept"),
    ] {
        assert_eq!(headers[name], value, "{name}");
    }
    assert!(headers["etag"].to_str().expect("text").starts_with(&format!("W/\"{root}.car.all_n_")));
    assert_eq!(CarReader::open(&body[..]).expect("header").header().roots, [end]);
    let expected = Traversal::open(&store, &root, "dir/file", Scope::All, false).expect("open");
    assert_eq!(cids_in(&body), expected.map(|block| block.expect("block").0).collect::<Vec<_>>());
    let copy = MemoryStore::new();
    althing_content::car::import(&copy, &body[..], u64::MAX, |_| {}).expect("import");
    assert_eq!(read_range(&copy, &end, 0..u64::MAX, u64::MAX).expect("read"), file);

    // Without a path it is what an export of the store gives.
    let (_, _, body) = request(&format!("{base_url}/ipfs/{root}"), &[(header::ACCEPT, CAR)]).await;
    let mut expected = Vec::new();
    export(&store, &root, false, u64::MAX, &mut expected, |_| {}).expect("export");
    assert_eq!(body, expected);
}

#[tokio::test]
async fn scopes_and_ranges_choose_the_blocks_of_an_archive() {
    let (store, base_url) = serve_store().await;
    let (root, file) = tree(&store);
    let mut tags = BTreeSet::new();
    for (path, query, scope, has_dups) in [
        ("", "dag-scope=block", Scope::Block, false),
        ("", "dag-scope=entity", Scope::Entity, false),
        ("", "dag-scope=all", Scope::All, false),
        ("", "car-dups=y", Scope::All, true),
        ("", "entity-bytes=0:5", Scope::Entity, false),
        ("dir/file", "dag-scope=block", Scope::Block, false),
        ("dir/file", "dag-scope=entity", Scope::Entity, false),
        ("dir/file", "entity-bytes=0:*", Scope::Bytes(0..12_345), false),
        ("dir/file", "entity-bytes=3999:4000", Scope::Bytes(3999..4001), false),
        ("dir/file", "entity-bytes=-345:*", Scope::Bytes(12_000..12_345), false),
        ("dir/file", "entity-bytes=5000:-5000", Scope::Bytes(5000..7346), false),
        ("dir/file", "entity-bytes=12000:99999", Scope::Bytes(12_000..12_345), false),
        ("dir/file", "entity-bytes=0:-99999", Scope::Block, false),
        ("top", "entity-bytes=1:1", Scope::Block, false),
    ] {
        let url = format!("{base_url}/ipfs/{root}/{path}?format=car&{query}");
        let (status, headers, body) = request(&url, &[]).await;
        assert_eq!(status, StatusCode::OK, "{path} {query}");
        let expected = Traversal::open(&store, &root, path, scope.clone(), has_dups).expect("open");
        assert_eq!(cids_in(&body), expected.map(|block| block.expect("block").0).collect::<Vec<_>>(), "{path} {query}");
        assert!(tags.insert(headers["etag"].clone()), "every answer has a tag of its own: {path} {query}");
        if let Scope::Bytes(range) = scope {
            let part = MemoryStore::new();
            althing_content::car::import(&part, &body[..], u64::MAX, |_| {}).expect("import");
            let end = resolve(&part, &root, path).expect("resolve");
            let expected = &file[range.start as usize..range.end as usize];
            assert_eq!(read_range(&part, &end, range, u64::MAX).expect("read"), expected);
        }
    }
    let (status, _, body) = request(&format!("{base_url}/ipfs/{root}/top?format=car&entity-bytes=3:5"), &[]).await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "{}", String::from_utf8_lossy(&body));
}

#[tokio::test]
async fn an_answer_that_was_negotiated_says_where_it_is_found_without() {
    let (store, base_url) = serve_store().await;
    let root = put_tree(&store, small(), [("a b", &b"file"[..])]).expect("put").cid;
    for (query, accept, location) in [
        ("", CAR, Some("?format=car&car-version=1&car-order=dfs&car-dups=n")),
        ("", "application/vnd.ipld.car; order=dfs; dups=y", Some("?format=car&car-version=1&car-order=dfs&car-dups=y")),
        ("?dag-scope=block", CAR, Some("?format=car&dag-scope=block&car-version=1&car-order=dfs&car-dups=n")),
        ("?entity-bytes=0:*", CAR, Some("?format=car&entity-bytes=0%3A%2A&car-version=1&car-order=dfs&car-dups=n")),
        ("", "application/vnd.ipld.raw", Some("?format=raw")),
        ("?format=raw", CAR, Some("?format=raw")),
        ("?format=raw", "application/vnd.ipld.raw", None),
        ("?format=car", CAR, None),
        ("", "*/*", None),
    ] {
        let url = format!("{base_url}/ipfs/{root}/a%20b{query}");
        let (status, headers, _) = request(&url, &[(header::ACCEPT, accept)]).await;
        assert_eq!(status, StatusCode::OK);
        let found = headers.get("content-location").map(|value| value.to_str().expect("text").to_owned());
        assert_eq!(found, location.map(|query| format!("/ipfs/{root}/a%20b{query}")), "{query} {accept}");
    }
}

#[tokio::test]
async fn what_a_client_has_is_not_sent_again() {
    let (store, base_url) = serve_store().await;
    let (root, _) = tree(&store);
    for query in ["format=raw", "format=car", "format=car&dag-scope=entity", ""] {
        let url = format!("{base_url}/ipfs/{root}?{query}");
        let (_, headers, _) = request(&url, &[]).await;
        let tag = headers["etag"].to_str().expect("text").to_owned();
        assert_eq!(tag.starts_with("W/"), query.contains("car"));
        for known in [&tag, "*", &format!("\"other\", {tag}")] {
            let (status, headers, body) = request(&url, &[(header::IF_NONE_MATCH, known)]).await;
            assert_eq!((status, body.len()), (StatusCode::NOT_MODIFIED, 0), "{query} {known}");
            assert_eq!(headers["etag"], tag);
        }
        let (status, ..) = request(&url, &[(header::IF_NONE_MATCH, "\"other\"")]).await;
        assert_eq!(status, StatusCode::OK);
    }
}

#[tokio::test]
async fn the_head_of_an_answer_is_that_of_its_body() {
    let (store, base_url) = serve_store().await;
    let (root, _) = tree(&store);
    for path in ["", "?format=raw", "?format=car", "/dir/file?format=car&entity-bytes=0:9", "/top"] {
        let url = format!("{base_url}/ipfs/{root}{path}");
        let (_, full, _) = request(&url, &[]).await;
        let head = http().head(&url).send().await.expect("answer");
        assert_eq!(head.status(), StatusCode::OK);
        for (name, value) in &full {
            if !["date", "transfer-encoding"].contains(&name.as_str()) {
                assert_eq!(head.headers().get(name), Some(value), "{path}: {name}");
            }
        }
        assert!(head.bytes().await.expect("body").is_empty());
    }
    let absent = Cid::of_raw_block(b"absent");
    for query in ["", "?format=raw", "?format=car"] {
        let head = http().head(format!("{base_url}/ipfs/{absent}{query}")).send().await.expect("answer");
        assert_eq!(head.status(), StatusCode::NOT_FOUND);
    }
}

#[tokio::test]
async fn probes_and_identity_names_are_answered_without_a_store() {
    let (_, base_url) = serve_store().await;
    for (cid, content, header_hex) in [
        ("bafkqaaa", "", "19a265726f6f747381d82a4500015500006776657273696f6e01"),
        ("bafkqablimvwgy3y", "hello", "1ea265726f6f747381d82a4a000155000568656c6c6f6776657273696f6e01"),
    ] {
        let url = format!("{base_url}/ipfs/{cid}");
        for (query, accept) in [("", ""), ("?format=raw", ""), ("", "application/vnd.ipld.raw")] {
            let (status, headers, body) = request(&format!("{url}{query}"), &[(header::ACCEPT, accept)]).await;
            assert_eq!((status, &body[..]), (StatusCode::OK, content.as_bytes()));
            assert_eq!(headers["content-length"], content.len().to_string());
        }
        for (query, accept) in [("?format=car", ""), ("", CAR), ("?format=car&entity-bytes=0:*", "")] {
            let (status, headers, body) = request(&format!("{url}{query}"), &[(header::ACCEPT, accept)]).await;
            assert_eq!(status, StatusCode::OK);
            assert_eq!(hex::encode(&body), header_hex, "a header alone: the bytes are in the name");
            assert_eq!(headers["content-type"], "application/vnd.ipld.car; version=1; order=dfs; dups=n");
        }
        for query in ["?format=raw", "?format=car"] {
            assert_eq!(http().head(format!("{url}{query}")).send().await.expect("answer").status(), StatusCode::OK);
        }
        assert_eq!(request(&format!("{url}/below"), &[]).await.0, StatusCode::NOT_FOUND);
    }
}

#[tokio::test]
async fn directories_in_shards_are_served_like_others() {
    let (store, base_url) = serve_store().await;
    let names: Vec<_> = (0..=LISTED_MAX).map(|index| format!("dir/{index:05}")).collect();
    let put = |names: &[String]| {
        let files = names.iter().map(|name| (name.as_str(), name.as_bytes()));
        put_tree(&store, small().with_shards_above(500), files).expect("put").cid
    };
    let root = put(&names[..LISTED_MAX]);
    let (status, _, body) = request(&format!("{base_url}/ipfs/{root}/dir"), &[]).await;
    assert_eq!(status, StatusCode::OK);
    let listing: serde_json::Value = serde_json::from_slice(&body).expect("json");
    let entries = listing["entries"].as_array().expect("entries");
    assert_eq!(entries.len(), LISTED_MAX);
    assert!((0..).zip(entries).all(|(index, entry)| entry["name"] == format!("{index:05}")));

    let url = format!("{base_url}/ipfs/{root}/dir/01234");
    let (status, headers, body) = request(&url, &[]).await;
    assert_eq!((status, &body[..]), (StatusCode::OK, &b"dir/01234"[..]));
    let end = Cid::of_raw_block(b"dir/01234");
    let dir = resolve(&store, &root, "dir").expect("resolve");
    assert_eq!(headers["x-ipfs-roots"], format!("{root},{dir},{end}"), "shards are no directories");
    let (_, _, body) = request(&format!("{url}?format=car&dag-scope=block"), &[]).await;
    let part = MemoryStore::new();
    althing_content::car::import(&part, &body[..], u64::MAX, |_| {}).expect("import");
    assert_eq!(resolve(&part, &root, "dir/01234").expect("the archive has the way"), end);
    assert!(part.len() < 8);

    let (status, _, body) = request(&format!("{base_url}/ipfs/{}/dir", put(&names)), &[]).await;
    assert_eq!(status, StatusCode::NOT_IMPLEMENTED);
    assert!(String::from_utf8_lossy(&body).contains("more than 65536 entries"));
}

#[tokio::test]
async fn requests_that_are_refused_say_why_to_browsers_too() {
    let (store, base_url) = serve_store().await;
    let (root, _) = tree(&store);
    let absent = Cid::of_raw_block(b"absent");
    let incomplete = Node::directory(vec![Link { cid: absent, name: "gone".to_owned(), dag_size: 1 }]).encode();
    let incomplete_cid = Cid::of_dag_pb_block(Version::V1, &incomplete);
    store.put(&incomplete_cid, &incomplete).expect("put");
    let mut symlink = Node::directory(vec![]).encode();
    *symlink.last_mut().expect("not empty") = 4;
    let symlink_cid = Cid::of_dag_pb_block(Version::V1, &symlink);
    store.put(&symlink_cid, &symlink).expect("put");
    let cached = (header::CACHE_CONTROL, "only-if-cached");
    let worker = (header::HeaderName::from_static("service-worker"), "script");
    for (path, headers, status, text) in [
        (format!("{root}?format=car&dag-scope=some"), vec![], StatusCode::BAD_REQUEST, "dag-scope"),
        (format!("{root}?format=car&entity-bytes=x"), vec![], StatusCode::BAD_REQUEST, "entity-bytes"),
        (format!("{root}?format=car&car-version=2"), vec![], StatusCode::BAD_REQUEST, "car-version"),
        (format!("{root}?format=ipns-record"), vec![], StatusCode::BAD_REQUEST, "ipns-record"),
        (
            root.to_string(),
            vec![(header::ACCEPT, "application/vnd.ipld.dag-json")],
            StatusCode::NOT_ACCEPTABLE,
            "dag-json",
        ),
        (
            root.to_string(),
            vec![(header::ACCEPT, "application/vnd.ipld.car;version=2")],
            StatusCode::NOT_ACCEPTABLE,
            "2",
        ),
        (
            "bafyreihszin3nr7ja7ig3l7enb7fph6oo2zx4tutw5qfaiw2kltmzqtp2i".to_owned(),
            vec![],
            StatusCode::BAD_REQUEST,
            "codec",
        ),
        ("bafyaaaa".to_owned(), vec![], StatusCode::BAD_REQUEST, "plain bytes"),
        (format!("{absent}?format=car"), vec![], StatusCode::NOT_FOUND, "not here"),
        (format!("{incomplete_cid}/gone?format=car"), vec![], StatusCode::NOT_FOUND, "not here"),
        (format!("{root}/none?format=car"), vec![], StatusCode::NOT_FOUND, "no entry \"none\""),
        (format!("{absent}?format=car"), vec![cached.clone()], StatusCode::PRECONDITION_FAILED, "not here"),
        (format!("{absent}?format=raw"), vec![cached.clone()], StatusCode::PRECONDITION_FAILED, "not here"),
        (symlink_cid.to_string(), vec![], StatusCode::NOT_IMPLEMENTED, "not supported"),
        (root.to_string(), vec![worker], StatusCode::BAD_REQUEST, "service worker"),
    ] {
        let (found, headers, body) = request(&format!("{base_url}/ipfs/{path}"), &headers).await;
        let body = String::from_utf8(body).expect("text");
        assert_eq!(found, status, "{path}: {body}");
        assert!(body.contains(text), "{path}: {body}");
        assert_eq!(headers["access-control-allow-origin"], "*");
        assert_eq!(headers["cache-control"], "no-store");
    }
    assert_eq!(request(&format!("{base_url}/ipfs/{root}?format=raw"), &[cached]).await.0, StatusCode::OK);
    let preflight = http().request(reqwest::Method::OPTIONS, format!("{base_url}/ipfs/{root}")).send().await;
    let preflight = preflight.expect("answer");
    assert_eq!(preflight.status(), StatusCode::NO_CONTENT);
    assert_eq!(preflight.headers()["access-control-allow-methods"], "GET, HEAD, OPTIONS");
}

#[tokio::test]
async fn ranges_of_blocks_and_names_of_downloads_are_served() {
    let (store, base_url) = serve_store().await;
    let cid = put_bytes(&store, small(), b"0123456789").expect("put").cid;
    let raw = format!("{base_url}/ipfs/{cid}?format=raw");
    let (status, headers, body) = request(&raw, &[(header::RANGE, "bytes=2-4")]).await;
    assert_eq!((status, &body[..]), (StatusCode::PARTIAL_CONTENT, &b"234"[..]));
    assert_eq!(headers["content-range"], "bytes 2-4/10");
    let others = [(header::RANGE, "bytes=2-4"), (header::IF_RANGE, "\"other\"")];
    assert_eq!(request(&raw, &others).await.2.len(), 10, "a part of something else is of no use");

    for (query, disposition) in [
        ("", None),
        ("?filename=a.txt", Some("inline; filename=\"a.txt\"".to_owned())),
        ("?download=true", Some("attachment".to_owned())),
        ("?download=true&filename=a.txt", Some("attachment; filename=\"a.txt\"".to_owned())),
        ("?format=raw", Some(format!("attachment; filename=\"{cid}.bin\""))),
        ("?format=car&filename=a.car", Some("attachment; filename=\"a.car\"".to_owned())),
    ] {
        let (_, headers, _) = request(&format!("{base_url}/ipfs/{cid}{query}"), &[]).await;
        let found = headers.get("content-disposition").map(|value| value.to_str().expect("text").to_owned());
        assert_eq!(found, disposition, "{query}");
    }
    let long = format!("{base_url}/ipfs/{cid}?filename={}", "a".repeat(256));
    assert_eq!(request(&long, &[]).await.0, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn an_archive_broken_in_the_middle_breaks_the_answer_off() {
    let (store, base_url) = serve_store().await;
    let bytes = pseudo_random(1, 2_000_000);
    let cid = put_bytes(&store, small(), &bytes).expect("put").cid;
    let gone = Cid::of_raw_block(&bytes[1_500_000..1_501_000]);
    let url = format!("{base_url}/ipfs/{cid}?format=car");
    assert!(http().get(&url).send().await.expect("answer").bytes().await.is_ok());
    for damage in [true, false] {
        if damage {
            store.damage(&gone, b"other".to_vec());
        } else {
            store.remove(&gone);
        }
        let response = http().get(&url).send().await.expect("answer");
        assert_eq!(response.status(), StatusCode::OK);
        assert!(response.bytes().await.is_err());
        let before = http().get(format!("{url}&entity-bytes=0:1499999")).send().await.expect("answer");
        assert!(before.bytes().await.is_ok(), "what lies before it can be had");
    }
}

#[tokio::test]
async fn what_is_denied_is_given_out_under_no_name() {
    let store = Arc::new(MemoryStore::new());
    let (root, file) = tree(&store);
    let leaf = Cid::of_raw_block(&file[5000..6000]);
    let other = Cid::of_raw_block(b"other");
    let settings = Settings { denied: BTreeSet::from([leaf, other]), ..Settings::default() };
    let base_url = serve(router_with(store, settings)).await;
    let status = async |path: String| request(&format!("{base_url}/ipfs/{path}"), &[]).await.0;
    assert_eq!(status(other.to_string()).await, StatusCode::GONE);
    assert_eq!(status(format!("{other}?format=raw")).await, StatusCode::GONE);
    assert_eq!(status(format!("{root}/dir/other?format=car")).await, StatusCode::GONE);
    assert_eq!(status(format!("{root}/top")).await, StatusCode::OK);
    let response = http().get(format!("{base_url}/ipfs/{root}?format=car")).send().await.expect("answer");
    assert!(response.bytes().await.is_err(), "no complete archive without it");
}

#[tokio::test]
async fn only_so_many_archives_are_sent_at_a_time_and_none_for_ever() {
    let store = Arc::new(MemoryStore::new());
    let cid = put_bytes(&store, small(), &pseudo_random(1, 30_000_000)).expect("put").cid;
    let settings = Settings { cars_max: 1, stall_max: Duration::from_millis(300), ..Settings::default() };
    let base_url = serve(router_with(store, settings)).await;
    let url = format!("{base_url}/ipfs/{cid}?format=car");
    let lazy = http().get(&url).send().await.expect("answer");
    assert_eq!(lazy.status(), StatusCode::OK);
    let (status, headers, _) = request(&url, &[]).await;
    assert_eq!(
        (status, &headers["retry-after"]),
        (StatusCode::TOO_MANY_REQUESTS, &header::HeaderValue::from_static("5"))
    );
    assert_eq!(request(&format!("{base_url}/ipfs/{cid}?format=raw"), &[]).await.0, StatusCode::OK);

    tokio::time::sleep(Duration::from_millis(1000)).await;
    assert!(lazy.bytes().await.is_err(), "who does not read is cut off");
    assert_eq!(request(&url, &[]).await.0, StatusCode::OK);
}
