//! The gateway and its client over the loopback interface, honest and not.

mod common;
#[path = "common/web.rs"]
mod web;

use althing_content::{BLOCK_SIZE_MAX, Cid, Client, FetchError, Profile, ReadError, put_bytes, put_tree};
use axum::{Router, http::StatusCode, routing::get};
use common::pseudo_random;
use reqwest::header::{self, HeaderValue};
use web::{http, request, serve, serve_store};

fn small() -> Profile {
    Profile::V1_2025.with_sizes(1000, 3)
}

fn client(base_url: &str) -> Client {
    Client::with_http(base_url, http()).expect("client")
}

#[tokio::test]
async fn files_are_served_with_their_type_and_for_ever() {
    let (store, base_url) = serve_store().await;
    for (bytes, content_type) in [
        ("plain text\n".as_bytes().to_vec(), "text/plain; charset=utf-8"),
        ("é".repeat(50_000).into_bytes(), "text/plain; charset=utf-8"),
        (pseudo_random(1, 5000), "application/octet-stream"),
        (b"<script>".to_vec(), "text/plain; charset=utf-8"),
        (vec![], "text/plain; charset=utf-8"),
    ] {
        let cid = put_bytes(&store, small(), &bytes).expect("put").cid;
        let url = format!("{base_url}/ipfs/{cid}");
        let (status, headers, body) = request(&url, &[]).await;
        assert_eq!(status, StatusCode::OK);
        assert_eq!(body, bytes);
        for (name, value) in [
            ("content-type", content_type),
            ("content-length", &bytes.len().to_string()),
            ("etag", &format!("\"{cid}\"")),
            ("cache-control", "public, max-age=29030400, immutable"),
            ("x-ipfs-path", &format!("/ipfs/{cid}")),
            ("x-content-type-options", "nosniff"),
        ] {
            assert_eq!(headers[name], value);
        }

        let head = http().head(&url).send().await.expect("answer");
        assert_eq!(head.status(), StatusCode::OK);
        assert_eq!(head.headers()["content-length"], bytes.len().to_string());
        assert!(head.bytes().await.expect("body").is_empty());

        let (status, headers, body) = request(&url, &[(header::IF_NONE_MATCH, &format!("W/\"{cid}\""))]).await;
        assert_eq!((status, body.len()), (StatusCode::NOT_MODIFIED, 0));
        assert_eq!(headers["etag"], format!("\"{cid}\""));
    }
}

#[tokio::test]
async fn a_range_of_a_file_is_served() {
    let (store, base_url) = serve_store().await;
    let bytes = pseudo_random(1, 5000);
    let cid = put_bytes(&store, small(), &bytes).expect("put").cid;
    let url = format!("{base_url}/ipfs/{cid}");
    let (status, headers, body) = request(&url, &[(header::RANGE, "bytes=990-2009")]).await;
    assert_eq!(status, StatusCode::PARTIAL_CONTENT);
    assert_eq!(headers["content-range"], "bytes 990-2009/5000");
    assert_eq!(headers["content-type"], "application/octet-stream");
    assert_eq!(body, bytes[990..2010]);
    let (status, headers, _) = request(&url, &[(header::RANGE, "bytes=5000-")]).await;
    assert_eq!(status, StatusCode::RANGE_NOT_SATISFIABLE);
    assert_eq!(headers["content-range"], "bytes */5000");
}

#[tokio::test]
async fn paths_and_listings_are_served() {
    let (store, base_url) = serve_store().await;
    let files = [("dir/naïve file", &b"deep"[..]), ("top", b"top")];
    let root = put_tree(&store, small(), files).expect("put").cid;
    let (status, headers, body) = request(&format!("{base_url}/ipfs/{root}/dir/na%C3%AFve%20file"), &[]).await;
    assert_eq!((status, &body[..]), (StatusCode::OK, &b"deep"[..]));
    assert_eq!(headers["x-ipfs-path"], format!("/ipfs/{root}/dir/na%C3%AFve%20file"));

    for url in [format!("{base_url}/ipfs/{root}"), format!("{base_url}/ipfs/{root}/")] {
        let (status, headers, body) = request(&url, &[]).await;
        assert_eq!((status, &headers["content-type"]), (StatusCode::OK, &HeaderValue::from_static("application/json")));
        let listing: serde_json::Value = serde_json::from_slice(&body).expect("json");
        assert_eq!(listing["cid"], root.to_string());
        assert_eq!(listing["entries"][0]["name"], "dir");
        assert_eq!(listing["entries"][1]["cid"], Cid::of_raw_block(b"top").to_string());
        assert_eq!(listing["entries"][1]["dag_size"], 3);
    }
}

#[tokio::test]
async fn blocks_are_served_raw_by_format_and_by_media_type() {
    let (store, base_url) = serve_store().await;
    let root = put_tree(&store, small(), [("a", &b"file"[..])]).expect("put").cid;
    let raw = (header::ACCEPT, "application/vnd.ipld.raw");
    for (url, headers) in
        [(format!("{base_url}/ipfs/{root}?format=raw"), vec![]), (format!("{base_url}/ipfs/{root}"), vec![raw.clone()])]
    {
        let (status, headers, body) = request(&url, &headers).await;
        assert_eq!(status, StatusCode::OK);
        assert_eq!(headers["content-type"], "application/vnd.ipld.raw");
        assert_eq!(headers["etag"], format!("\"{root}.raw\""));
        assert!(root.names(&body));
    }
    let (_, _, body) = request(&format!("{base_url}/ipfs/{root}/a?format=raw"), &[]).await;
    assert_eq!(body, b"file");
}

#[tokio::test]
async fn requests_that_cannot_be_answered_say_why() {
    let (store, base_url) = serve_store().await;
    let root = put_tree(&store, small(), [("a", &b"file"[..])]).expect("put").cid;
    let absent = Cid::of_raw_block(b"absent");
    let damaged = put_bytes(&store, small(), b"damaged").expect("put").cid;
    store.damage(&damaged, b"other".to_vec());
    for (path, status, text) in [
        ("nonsense".to_owned(), StatusCode::BAD_REQUEST, "CID".to_owned()),
        (format!("{root}x"), StatusCode::BAD_REQUEST, "CID".to_owned()),
        (format!("{root}?format=zip"), StatusCode::BAD_REQUEST, "zip".to_owned()),
        (format!("{root}?format=tar"), StatusCode::NOT_ACCEPTABLE, "tar".to_owned()),
        (absent.to_string(), StatusCode::NOT_FOUND, absent.to_string()),
        (format!("{absent}?format=raw"), StatusCode::NOT_FOUND, absent.to_string()),
        (format!("{root}/b"), StatusCode::NOT_FOUND, "no entry \"b\"".to_owned()),
        (format!("{root}/a/b"), StatusCode::NOT_FOUND, "not a directory".to_owned()),
        (damaged.to_string(), StatusCode::INTERNAL_SERVER_ERROR, damaged.to_string()),
    ] {
        let (found, headers, body) = request(&format!("{base_url}/ipfs/{path}"), &[]).await;
        let body = String::from_utf8(body).expect("text");
        assert_eq!(found, status, "{path}: {body}");
        assert!(body.contains(&text), "{path}: {body}");
        assert_eq!(headers["cache-control"], "no-store");
    }
}

#[tokio::test]
async fn a_file_broken_in_the_middle_breaks_the_answer_off() {
    let (store, base_url) = serve_store().await;
    let bytes = pseudo_random(1, 200_000);
    let cid = put_bytes(&store, small(), &bytes).expect("put").cid;
    store.remove(&Cid::of_raw_block(&bytes[150_000..151_000]));
    let response = http().get(format!("{base_url}/ipfs/{cid}")).send().await.expect("answer");
    assert_eq!(response.status(), StatusCode::OK);
    assert!(response.bytes().await.is_err());
}

#[tokio::test]
async fn a_file_is_fetched_block_by_block() {
    let (store, base_url) = serve_store().await;
    for (profile, size) in [(small(), 20_000), (Profile::V0_2015, 600_000), (Profile::V1_2025, 0)] {
        let bytes = pseudo_random(7, size);
        let cid = put_bytes(&store, profile, &bytes).expect("put").cid;
        let client = client(&format!("{base_url}/"));
        assert_eq!(client.file(&cid, size as u64).await.expect("fetch"), bytes);
        if size > 0 {
            let error = client.file(&cid, size as u64 - 1).await.expect_err("too large");
            assert!(matches!(error, FetchError::Read(ReadError::TooLarge { .. })));
        }
    }
    let absent = Cid::of_raw_block(b"absent");
    let error = client(&base_url).file(&absent, 10).await.expect_err("absent");
    assert!(matches!(error, FetchError::Read(ReadError::Missing { cid }) if cid == absent));
}

#[tokio::test]
async fn a_gateway_that_lies_is_not_believed() {
    let wanted = Cid::of_raw_block(b"wanted");
    let app = Router::new()
        .route("/wrong/ipfs/{cid}", get(async || "other"))
        .route("/error/ipfs/{cid}", get(async || (StatusCode::BAD_GATEWAY, "wanted")))
        .route("/large/ipfs/{cid}", get(async || vec![0; BLOCK_SIZE_MAX + 1]))
        .route("/moved/ipfs/{cid}", get(async || axum::response::Redirect::temporary("/wrong/ipfs/x")));
    let base_url = serve(app).await;
    let fetch = async |path| client(&format!("{base_url}/{path}")).file(&wanted, 100).await.expect_err("a lie");
    let error = fetch("wrong").await;
    assert!(matches!(&error, FetchError::Read(ReadError::Corrupt { cid }) if *cid == wanted));
    assert!(error.to_string().contains(&wanted.to_string()));
    assert!(matches!(fetch("error").await, FetchError::Status { status: 502, .. }));
    assert!(matches!(fetch("large").await, FetchError::TooLarge { .. }));
    assert!(matches!(fetch("moved").await, FetchError::Status { status: 307, .. }));
    assert!(matches!(fetch("absent").await, FetchError::Read(ReadError::Missing { .. })));
}

#[test]
fn only_addresses_of_gateways_are_taken() {
    for base_url in ["", "gateway", "ftp://host", "http://", "file:///etc", "http://host/?a=b", "http://host/#a"] {
        assert!(matches!(Client::new(base_url), Err(FetchError::BaseUrl(_))), "{base_url}");
    }
    assert!(Client::new("https://host/below/").is_ok());
}
