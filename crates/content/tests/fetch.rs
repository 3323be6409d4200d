//! Fetching from several peers: honest ones, and those that lie, dawdle, break off or lack something.

mod common;
#[path = "common/web.rs"]
mod web;

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use althing_content::{
    BlockStore, CarWriter, Cid, Client, FetchError, Limits, MemoryStore, Profile, Progress, ReadError, Scope,
    Traversal, fetch_dag, fetch_path, fetch_scope, list, put_bytes, put_tree, read_file, read_range, resolve,
};
use axum::{
    Router,
    body::{Body, Bytes},
    extract::{Path, Query},
    http::{StatusCode, header},
    middleware,
    response::{IntoResponse, Response},
    routing::get,
};
use common::pseudo_random;
use futures::{StreamExt as _, stream};
use std::collections::BTreeMap;
use web::{http, serve, serve_store};

const CAR_TYPE: &str = "application/vnd.ipld.car; version=1; order=dfs; dups=n";

fn small() -> Profile {
    Profile::V1_2025.with_sizes(1000, 3)
}

fn client(base_url: &str) -> Client {
    Client::with_http(base_url, http()).expect("client")
}

fn limits() -> Limits {
    Limits { block_time_max: Duration::from_millis(500), ..Limits::bytes(10_000_000) }
}

fn tree(store: &MemoryStore) -> Cid {
    let (large, zeros) = (pseudo_random(7, 50_000), vec![0; 5000]);
    let files = [("a/large", &large[..]), ("a/zeros", &zeros), ("b", b"b"), ("c/large", &large), ("c/end", b"end")];
    put_tree(store, small(), files).expect("put").cid
}

async fn fetch(peers: &[&str], cid: &Cid) -> (Arc<MemoryStore>, Result<althing_content::Fetched, FetchError>) {
    let store = Arc::new(MemoryStore::new());
    let peers: Vec<_> = peers.iter().map(|url| client(url)).collect();
    let fetched = fetch_dag(&store, &peers, cid, &limits(), |_| {}).await;
    (store, fetched)
}

fn car_of(store: &MemoryStore, root: &Cid) -> Vec<u8> {
    let mut car = Vec::new();
    althing_content::car::export(store, root, false, u64::MAX, &mut car, |_| {}).expect("export");
    car
}

/// A store whose requests are counted, those for archives and those for blocks.
async fn serve_counted(store: Arc<MemoryStore>) -> (String, Arc<[AtomicUsize; 2]>) {
    let counts = Arc::new([AtomicUsize::new(0), AtomicUsize::new(0)]);
    let layer = middleware::from_fn({
        let counts = counts.clone();
        move |request: axum::extract::Request, next: middleware::Next| {
            let is_block = request.uri().query().is_some_and(|query| query.contains("format=raw"));
            counts[usize::from(is_block)].fetch_add(1, Ordering::SeqCst);
            next.run(request)
        }
    });
    (serve(althing_content::gateway::router(store).layer(layer)).await, counts)
}

type Names = BTreeMap<String, String>;

/// A peer that gives blocks of `store` but answers requests for archives as it likes.
async fn serve_archives(
    store: Arc<MemoryStore>,
    archive: impl Fn(Cid) -> Response + Clone + Send + Sync + 'static,
) -> String {
    let answer = move |Path(cid): Path<Cid>, Query(query): Query<Names>| {
        let response = match query.get("format").map(String::as_str) {
            Some("car") => archive(cid),
            _ => store.get(&cid).expect("get").ok_or(StatusCode::NOT_FOUND).into_response(),
        };
        async move { response }
    };
    serve(Router::new().route("/ipfs/{cid}", get(answer))).await
}

fn archive(body: impl Into<Body>) -> Response {
    ([(header::CONTENT_TYPE, CAR_TYPE)], body.into()).into_response()
}

#[tokio::test]
async fn a_directory_comes_in_one_archive_with_progress() {
    let store = Arc::new(MemoryStore::new());
    let root = tree(&store);
    let (url, counts) = serve_counted(store.clone()).await;
    let here = Arc::new(MemoryStore::new());
    let mut heard: Vec<Progress> = Vec::new();
    let fetched = fetch_dag(&here, &[client(&url)], &root, &limits(), |progress| heard.push(progress)).await;
    let fetched = fetched.expect("fetch");
    assert_eq!(here.len(), store.len());
    assert_eq!((counts[0].load(Ordering::SeqCst), counts[1].load(Ordering::SeqCst)), (1, 0));
    assert_eq!((fetched.fetched_blocks, fetched.blocks), (store.len() as u64, store.len() as u64));
    assert_eq!((fetched.peers[0].bytes, &fetched.peers[0].failure), (fetched.bytes, &None));
    assert_eq!(heard.len(), store.len());
    assert!(heard.windows(2).all(|pair| pair[0].bytes < pair[1].bytes));
    assert_eq!(heard.last().expect("some").bytes, fetched.bytes);
    assert!(heard[0].bytes_expected.expect("a directory says") >= fetched.bytes);

    let again = fetch_dag(&here, &[], &root, &limits(), |_| {}).await.expect("everything is here");
    assert_eq!((again.blocks, again.fetched_blocks), (fetched.blocks, 0));
}

#[tokio::test]
async fn a_fetch_that_was_interrupted_anywhere_is_taken_up_again() {
    let store = Arc::new(MemoryStore::new());
    let root = tree(&store);
    let all: Vec<_> = Traversal::open(&*store, &root, "", Scope::All, false)
        .expect("open")
        .map(|block| block.expect("block"))
        .collect();
    for have in [0, 1, 2, 3, 5, 20, all.len() / 2, all.len() - 1, all.len()] {
        let (url, _) = serve_counted(store.clone()).await;
        let here = Arc::new(MemoryStore::new());
        for (cid, block) in &all[..have] {
            here.put(cid, block).expect("put");
        }
        let fetched = fetch_dag(&here, &[client(&url)], &root, &limits(), |_| {}).await.expect("fetch");
        assert_eq!(fetched.fetched_blocks, (all.len() - have) as u64, "what is here is not fetched");
        assert_eq!(here.len(), store.len());
    }
    // With holes, and with damage.
    let here = Arc::new(MemoryStore::new());
    for (cid, block) in all.iter().step_by(2) {
        here.put(cid, block).expect("put");
    }
    here.damage(&all[2].0, vec![]);
    let (url, _) = serve_counted(store.clone()).await;
    fetch_dag(&here, &[client(&url)], &root, &limits(), |_| {}).await.expect("fetch");
    assert!(all.iter().all(|(cid, block)| here.get(cid).expect("get").as_ref() == Some(block)));
}

#[tokio::test]
async fn a_file_or_a_range_is_fetched_without_the_rest() {
    let (store, url) = serve_store().await;
    let root = tree(&store);
    let file = pseudo_random(7, 50_000);
    let peers = [client(&url)];
    let here = Arc::new(MemoryStore::new());
    let cid = fetch_path(&here, &peers, &root, "a/large", &limits()).await.expect("path");
    assert_eq!((cid, here.len()), (resolve(&store, &root, "a/large").expect("resolve"), 2));
    for range in [0..1, 10_500..12_000, 49_999..60_000, 60_000..70_000] {
        let part = Arc::new(MemoryStore::new());
        let scope = Scope::Bytes(range.clone());
        fetch_scope(&part, &peers, &cid, scope, &limits(), |_| {}).await.expect("fetch");
        let expected = &file[(range.start as usize).min(50_000)..(range.end as usize).min(50_000)];
        assert_eq!(read_range(&part, &cid, range, 60_000).expect("read"), expected);
        assert!(part.len() < 10);
    }
    fetch_scope(&here, &peers, &cid, Scope::Bytes(0..u64::MAX), &limits(), |_| {}).await.expect("fetch");
    assert_eq!(read_file(&here, &cid, 50_000).expect("read"), file);
    fetch_scope(&here, &peers, &root, Scope::Entity, &limits(), |_| {}).await.expect("fetch");
    assert_eq!(list(&here, &root).expect("list").len(), 3);
    let error = fetch_path(&here, &peers, &root, "a/none", &limits()).await.expect_err("none");
    assert!(matches!(error, FetchError::Read(ReadError::NoEntry { .. })));
}

#[tokio::test]
async fn of_a_directory_in_shards_a_path_is_fetched_or_the_listing() {
    let (store, url) = serve_store().await;
    let names: Vec<_> = (0..2000).map(|index| format!("dir/{index}")).collect();
    let files = names.iter().map(|name| (name.as_str(), name.as_bytes()));
    let root = put_tree(&store, small().with_shards_above(500), files).expect("put").cid;
    let peers = [client(&url)];
    let here = Arc::new(MemoryStore::new());
    let end = fetch_path(&here, &peers, &root, "dir/123", &limits()).await.expect("path");
    assert_eq!(end, Cid::of_raw_block(b"dir/123"));
    assert!((3..6).contains(&here.len()), "the root and the shards on the way");
    let error = fetch_path(&here, &peers, &root, "dir/none", &limits()).await.expect_err("none");
    assert!(matches!(error, FetchError::Read(ReadError::NoEntry { .. })));
    let dir = resolve(&here, &root, "dir").expect("resolve");
    fetch_scope(&here, &peers, &dir, Scope::Entity, &limits(), |_| {}).await.expect("fetch");
    assert_eq!(list(&here, &dir).expect("list").len(), 2000);
    assert!(!here.has(&end).expect("has"), "no entry came with it");
}

#[tokio::test]
async fn a_chunk_on_both_sides_of_the_end_of_a_range_is_fetched_once() {
    let (store, url) = serve_store().await;
    let cid = put_bytes(&store, Profile::V0_2015.with_sizes(1000, 2), &[0; 20_000]).expect("put").cid;
    for (peers, name) in [
        (url.clone(), "archive"),
        (serve_archives(store.clone(), |_| StatusCode::BAD_REQUEST.into_response()).await, "blocks"),
    ] {
        for range in [500..3500, 0..1500, 7_999..8_001, 0..20_000] {
            let part = Arc::new(MemoryStore::new());
            let scope = Scope::Bytes(range.clone());
            let fetched = fetch_scope(&part, &[client(&peers)], &cid, scope, &limits(), |_| {}).await.expect(name);
            assert_eq!(fetched.fetched_blocks, part.len() as u64, "{name} {range:?}");
            let bytes = read_range(&part, &cid, range.clone(), 20_000).expect("read");
            assert_eq!(bytes.len() as u64, range.end - range.start);
        }
    }
}

#[tokio::test]
async fn peers_without_archives_are_asked_for_blocks_several_at_a_time() {
    let store = Arc::new(MemoryStore::new());
    let root = tree(&store);
    let unordered = |_: Cid| ([(header::CONTENT_TYPE, "application/vnd.ipld.car; version=1")], "").into_response();
    let html = |_: Cid| ([(header::CONTENT_TYPE, "text/html")], "<p>").into_response();
    let empty = |_: Cid| archive(CarWriter::new(Vec::new(), &[]).expect("writer").finish().expect("finish"));
    let version_2 = |_: Cid| archive(hex::decode("0aa16776657273696f6e02").expect("hex"));
    let short = |_: Cid| archive(vec![0x3a]);
    for url in [
        serve_archives(store.clone(), |_| StatusCode::BAD_REQUEST.into_response()).await,
        serve_archives(store.clone(), |_| StatusCode::TOO_MANY_REQUESTS.into_response()).await,
        serve_archives(store.clone(), unordered).await,
        serve_archives(store.clone(), html).await,
        serve_archives(store.clone(), empty).await,
        serve_archives(store.clone(), version_2).await,
        serve_archives(store.clone(), short).await,
    ] {
        let (here, fetched) = fetch(&[&url], &root).await;
        assert_eq!(fetched.expect("fetch").fetched_blocks, store.len() as u64);
        assert_eq!(here.len(), store.len());
    }
}

#[tokio::test]
async fn blocks_that_have_nothing_to_do_with_the_content_are_not_kept() {
    let store = Arc::new(MemoryStore::new());
    let root = tree(&store);
    let stuffed = {
        let store = store.clone();
        move |cid| {
            let mut writer = CarWriter::new(Vec::new(), &[]).expect("writer");
            for (index, block) in Traversal::open(&*store, &cid, "", Scope::All, false).expect("open").enumerate() {
                let (cid, block) = block.expect("block");
                let stray = pseudo_random(index as u32, 100);
                writer.put(&Cid::of_raw_block(&stray), &stray).expect("put");
                writer.put(&cid, &block).expect("put");
                writer.put(&cid, &block).expect("put again");
            }
            archive(writer.finish().expect("finish"))
        }
    };
    let url = serve_archives(store.clone(), stuffed).await;
    let (here, fetched) = fetch(&[&url], &root).await;
    assert_eq!(fetched.expect("fetch").peers[0].blocks, store.len() as u64);
    assert_eq!(here.len(), store.len());
}

#[tokio::test]
async fn a_peer_that_lies_is_left_for_the_next_one() {
    let (store, honest) = serve_store().await;
    let root = tree(&store);
    let forged = |flip: usize| {
        let car = car_of(&store, &root);
        move |_: Cid| {
            let mut car = car.clone();
            let at = car.len() * flip / 10;
            car[at] ^= 1;
            archive(car)
        }
    };
    let rubbish = Arc::new(MemoryStore::new());
    for flip in 1..9 {
        let liar = serve_archives(rubbish.clone(), forged(flip)).await;
        let (here, fetched) = fetch(&[&liar, &honest], &root).await;
        let fetched = fetched.expect("fetch");
        assert_eq!(here.len(), store.len());
        assert!(fetched.peers[0].failure.as_ref().expect("a lie").contains("of the archive"), "{:?}", fetched.peers[0]);
        // What it gave before the lie was good.
        assert_eq!(fetched.peers[0].blocks + fetched.peers[1].blocks, store.len() as u64);
    }

    // Wrong blocks, without archives.
    let asked = Arc::new(AtomicUsize::new(0));
    let answer = {
        let asked = asked.clone();
        async move |Query(query): Query<Names>| {
            if query["format"] == "car" {
                return StatusCode::BAD_REQUEST.into_response();
            }
            asked.fetch_add(1, Ordering::SeqCst);
            "not that block".into_response()
        }
    };
    let liar = serve(Router::new().route("/ipfs/{cid}", get(answer))).await;
    let (here, fetched) = fetch(&[&liar, &honest], &root).await;
    assert_eq!(fetched.expect("fetch").peers[0].blocks, 0);
    assert_eq!(here.len(), store.len());
    assert_eq!(asked.load(Ordering::SeqCst), 1, "who lied once is not asked again");

    let (here, fetched) = fetch(&[&liar], &root).await;
    let error = fetched.expect_err("nobody else");
    assert!(matches!(&error, FetchError::Nowhere { cid, tried } if *cid == root && tried.len() == 1));
    assert!(error.to_string().contains("another hash"), "{error}");
    assert!(here.is_empty());
}

#[tokio::test]
async fn a_peer_that_dawdles_or_breaks_off_is_left_for_the_next_one() {
    let (store, honest) = serve_store().await;
    let root = tree(&store);
    let car = car_of(&store, &root);
    let half = Bytes::from(car[..car.len() / 2].to_vec());
    let hanging = {
        let half = half.clone();
        move |_: Cid| {
            archive(Body::from_stream(stream::iter([Ok::<_, std::io::Error>(half.clone())]).chain(stream::pending())))
        }
    };
    let silent = |_: Cid| archive(Body::from_stream(stream::pending::<Result<Bytes, std::io::Error>>()));
    // Always something, never anything of use.
    let stray = {
        let mut section = CarWriter::new(Vec::new(), &[]).expect("writer");
        section.put(&Cid::of_raw_block(b"stray"), b"stray").expect("put");
        Bytes::from(section.finish().expect("finish"))
    };
    let chatty = move |_: Cid| {
        let header_size = 18;
        let section = stray.slice(header_size..);
        let more = stream::unfold((), move |()| {
            let section = section.clone();
            async move {
                tokio::time::sleep(Duration::from_millis(20)).await;
                Some((Ok::<_, std::io::Error>(section), ()))
            }
        });
        archive(Body::from_stream(stream::iter([Ok(stray.slice(..header_size))]).chain(more)))
    };
    let broken = move |_: Cid| {
        let error = std::io::Error::other("broken off");
        archive(Body::from_stream(stream::iter([Ok(half.clone()), Err(error)])))
    };
    let nothing = Arc::new(MemoryStore::new());
    for (name, url) in [
        ("hanging", serve_archives(nothing.clone(), hanging).await),
        ("silent", serve_archives(nothing.clone(), silent).await),
        ("chatty", serve_archives(nothing.clone(), chatty).await),
        ("broken", serve_archives(nothing.clone(), broken).await),
        ("nobody there", "http://127.0.0.1:9".to_owned()),
    ] {
        let started = Instant::now();
        let (here, fetched) = fetch(&[&url, &honest], &root).await;
        let fetched = fetched.expect(name);
        assert_eq!(here.len(), store.len(), "{name}");
        assert!(fetched.peers[0].failure.is_some(), "{name}");
        assert!(started.elapsed() < Duration::from_secs(10), "{name}");
    }
    let (_, fetched) = fetch(&["http://127.0.0.1:9"], &root).await;
    assert!(matches!(fetched, Err(FetchError::Nowhere { .. })));
}

#[tokio::test]
async fn peers_that_have_a_part_each_give_the_whole_together() {
    let store = Arc::new(MemoryStore::new());
    let root = tree(&store);
    let halves: [Arc<MemoryStore>; 2] = Default::default();
    for (index, block) in Traversal::open(&*store, &root, "", Scope::All, false).expect("open").enumerate() {
        let (cid, block) = block.expect("block");
        halves[index % 2].put(&cid, &block).expect("put");
    }
    let urls = [serve_counted(halves[0].clone()).await.0, serve_counted(halves[1].clone()).await.0];
    let (here, fetched) = fetch(&[&urls[1], &urls[0]], &root).await;
    let fetched = fetched.expect("fetch");
    assert_eq!(here.len(), store.len());
    assert!(fetched.peers.iter().all(|peer| peer.blocks > 0));

    let absent = Cid::of_raw_block(b"absent");
    let (_, fetched) = fetch(&[&urls[0], &urls[1]], &absent).await;
    let error = fetched.expect_err("absent");
    assert!(matches!(&error, FetchError::Nowhere { cid, tried } if *cid == absent && tried.len() == 2), "{error}");
}

#[tokio::test]
async fn the_limits_hold_for_the_store_too() {
    let (store, url) = serve_store().await;
    let root = tree(&store);
    let peers = [client(&url)];
    let fetch = async |limits: Limits| {
        let here = Arc::new(MemoryStore::new());
        let error = fetch_dag(&here, &peers, &root, &limits, |_| {}).await.expect_err("a limit");
        let kept: Vec<_> = Traversal::open(&*store, &root, "", Scope::All, false)
            .expect("open")
            .map(|block| block.expect("block"))
            .filter(|(cid, _)| here.has(cid).expect("has"))
            .collect();
        assert_eq!(kept.len(), here.len());
        (error, kept)
    };
    let (error, kept) = fetch(Limits { bytes_max: 10_000, ..limits() }).await;
    let bytes: usize = kept.iter().map(|(_, block)| block.len()).sum();
    assert!(matches!(error, FetchError::Read(ReadError::DagTooLarge { .. })), "{error}");
    assert!((5_000..=10_000).contains(&bytes), "{bytes}");
    let (error, kept) = fetch(Limits { blocks_max: 5, ..limits() }).await;
    assert!(matches!(error, FetchError::Read(ReadError::DagTooMany { .. })) && kept.len() == 5, "{error}");
    let (error, _) = fetch(Limits { depth_max: 2, ..limits() }).await;
    assert!(matches!(error, FetchError::Read(ReadError::DagTooDeep { .. })), "{error}");
    let (error, _) = fetch(Limits { peer_time_max: Duration::ZERO, ..limits() }).await;
    assert!(matches!(error, FetchError::Nowhere { .. }), "{error}");
}

#[tokio::test]
async fn a_fetch_can_be_dropped_and_called_again() {
    let (store, url) = serve_store().await;
    let root = tree(&store);
    let here = Arc::new(MemoryStore::new());
    let rounds = Mutex::new(0);
    loop {
        *rounds.lock().expect("lock") += 1;
        let peers = [client(&url)];
        let limits = limits();
        let fetching = fetch_dag(&here, &peers, &root, &limits, |_| {});
        if let Ok(fetched) = tokio::time::timeout(Duration::from_millis(8), fetching).await {
            fetched.expect("fetch");
            break;
        }
        assert!(*rounds.lock().expect("lock") < 1000);
    }
    assert_eq!(here.len(), store.len());
}
