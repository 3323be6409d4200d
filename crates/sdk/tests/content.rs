//! Inputs from sources that nobody trusts, over real sockets: honest ones, and those that lie, dawdle or never end.

use althing_content::{
    BlockStore as _, Cid, MemoryStore, Profile, file_cid, gateway::router, put_bytes, put_tree, read_file,
};
use althing_sdk::{Content, ContentError, FetchedContent, Source, StoreContent};
use althing_types::ContentSource;
use axum::{
    Router,
    body::{Body, Bytes},
    extract::{Path, Query},
    http::{StatusCode, header},
    response::{IntoResponse as _, Redirect, Response},
    routing::get,
};
use futures::{StreamExt as _, stream};
use std::{
    collections::BTreeMap,
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

const CAR_TYPE: &str = "application/vnd.ipld.car; version=1; order=dfs; dups=n";

/// Three leaves and a root, no two alike.
fn file() -> Vec<u8> {
    (0..2_500_000u32).map(|number| number.wrapping_mul(2_654_435_761).to_le_bytes()[3]).collect()
}

fn kept(bytes: &[u8]) -> (Arc<MemoryStore>, Cid) {
    let store = Arc::new(MemoryStore::new());
    let cid = put_bytes(&*store, Profile::V1_2025, bytes).expect("put").cid;
    (store, cid)
}

/// Serves on a free port for as long as the test runs.
async fn serve(app: Router) -> Source {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let address = listener.local_addr().expect("address");
    tokio::spawn(async move { axum::serve(listener, app).await });
    Source::known(format!("http://{address}"))
}

async fn serve_store(store: Arc<MemoryStore>) -> Source {
    serve(router(store)).await
}

/// A source that answers questions for archives and for blocks as it likes; how often it was asked.
async fn serve_answers(
    answer: impl Fn(Cid, bool) -> Response + Clone + Send + Sync + 'static,
) -> (Source, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let answer = move |Path(cid): Path<Cid>, Query(query): Query<BTreeMap<String, String>>| {
        count.fetch_add(1, Ordering::SeqCst);
        let response = answer(cid, query.get("format").is_some_and(|format| format == "car"));
        async move { response }
    };
    (serve(Router::new().route("/ipfs/{cid}", get(answer))).await, asked)
}

/// Bytes for ever: junk with a pause between, in an archive or as a block.
fn endless(piece: &'static [u8], pause: Duration) -> Response {
    let junk = stream::repeat(piece).then(move |piece| async move {
        tokio::time::sleep(pause).await;
        Ok::<_, Infallible>(Bytes::from_static(piece))
    });
    ([(header::CONTENT_TYPE, CAR_TYPE)], Body::from_stream(junk)).into_response()
}

fn exactly(bytes: &[u8]) -> std::ops::RangeInclusive<u64> {
    bytes.len() as u64..=bytes.len() as u64
}

/// A way to fetch, and the store that keeps what comes, if there is one.
type Way = (Arc<dyn Content>, Option<Arc<MemoryStore>>);

/// With a store of one's own, and without.
fn ways() -> Vec<Way> {
    let store = Arc::new(MemoryStore::new());
    vec![(Arc::new(StoreContent(store.clone())), Some(store)), (Arc::new(FetchedContent), None)]
}

#[tokio::test]
async fn a_file_comes_from_whoever_has_it_and_is_kept_under_its_own_name() {
    let bytes = file();
    // Of another shape than the one in which files are made here.
    let store = Arc::new(MemoryStore::new());
    let cid = put_bytes(&*store, Profile::V0_2015, &bytes).expect("put").cid;
    assert_ne!(cid, file_cid(&bytes));
    let (good, empty) = (serve_store(store).await, serve_store(Arc::default()).await);
    for (content, kept) in ways() {
        let got = content.get(&cid, exactly(&bytes), &[empty.clone(), good.clone()]).await;
        assert!(got == Ok(bytes.clone()), "{:?}", got.err());
        if let Some(kept) = kept {
            assert_eq!(read_file(&*kept, &cid, u64::MAX).expect("it is here"), bytes);
            assert_eq!(content.get(&cid, exactly(&bytes), &[]).await, Ok(bytes.clone()), "it is not fetched again");
        }
    }
}

#[tokio::test]
async fn liars_are_left_for_a_source_that_tells_the_truth() {
    let bytes = file();
    let (store, cid) = kept(&bytes);
    let good = serve_store(store.clone()).await;
    let wrong = |_, _| Body::from("something else").into_response();
    let too_large = |_, _| Body::from(vec![0; 3 << 20]).into_response();
    let endless_block = |_, _| endless(&[0; 1 << 16], Duration::ZERO);
    let broken = |_, _| StatusCode::INTERNAL_SERVER_ERROR.into_response();
    // The first block is right, what follows is not.
    let half = {
        let store = store.clone();
        move |asked: Cid, archive: bool| match archive || asked != cid {
            true => Body::from("something else").into_response(),
            false => store.get(&asked).expect("get").expect("it is here").into_response(),
        }
    };
    // Whoever follows it is led elsewhere: nobody does.
    let target = serve_store(store).await;
    let redirect =
        move |asked: Cid, _| Redirect::temporary(&format!("{}/ipfs/{asked}?format=raw", target.url)).into_response();
    let hostile = [
        serve_answers(wrong).await,
        serve_answers(too_large).await,
        serve_answers(endless_block).await,
        serve_answers(broken).await,
        serve_answers(half).await,
        serve_answers(redirect).await,
        (Source::known("http://127.0.0.1:1"), Arc::new(AtomicUsize::new(1))),
    ];
    for (content, kept) in ways() {
        for (source, asked) in &hostile {
            let alone = content.get(&cid, exactly(&bytes), std::slice::from_ref(source)).await;
            assert!(
                matches!(&alone, Err(ContentError::Missing { tried, .. }) if tried.contains(&source.url)),
                "{alone:?}"
            );
            assert!(asked.load(Ordering::SeqCst) > 0);
        }
        if let Some(kept) = &kept {
            assert!(kept.len() <= 1, "only the root came as it should: {}", kept.len());
        }
        let mut sources: Vec<_> = hostile.iter().map(|(source, _)| source.clone()).collect();
        sources.push(good.clone());
        let got = content.get(&cid, exactly(&bytes), &sources).await;
        assert!(got == Ok(bytes.clone()), "{:?}", got.err());
        if let Some(kept) = kept {
            assert_eq!(kept.len(), 4, "three leaves and their root: nothing else was kept");
        }
    }
}

#[tokio::test]
async fn the_size_of_a_file_is_what_was_said_and_no_more_of_another_is_fetched() {
    let bytes = file();
    let (store, cid) = kept(&bytes);
    let size = bytes.len() as u64;
    let blocks = store.clone();
    let (source, asked) = serve_answers(move |asked, archive| match archive {
        true => StatusCode::NOT_ACCEPTABLE.into_response(),
        false => blocks.get(&asked).expect("get").ok_or(StatusCode::NOT_FOUND).into_response(),
    })
    .await;
    let sources = [source];
    for (content, kept) in ways() {
        for sizes in [0..=0, 0..=size - 1, size - 1..=size - 1, size + 1..=size + 1, size + 1..=u64::MAX] {
            let before = asked.load(Ordering::SeqCst);
            let expected = sizes.clone();
            let refused = Err(ContentError::Size { cid, size, expected });
            assert_eq!(content.get(&cid, sizes, &sources).await, refused);
            assert_eq!(asked.load(Ordering::SeqCst) - before, 1, "the root alone");
        }
        if let Some(kept) = kept {
            assert!(kept.is_empty(), "what is refused is not kept");
        }
    }
    // What is here is measured too.
    let own = StoreContent(store);
    assert!(matches!(own.get(&cid, 0..=5, &[]).await, Err(ContentError::Size { .. })));
    assert_eq!(own.get(&cid, size..=size, &[]).await, Ok(bytes));

    let tree = Arc::new(MemoryStore::new());
    let directory = put_tree(&*tree, Profile::V1_2025, [("a", &b"a"[..])]).expect("put").cid;
    let source = serve_store(tree).await;
    for (content, _) in ways() {
        let error = content.get(&directory, 0..=1000, std::slice::from_ref(&source)).await;
        assert!(matches!(error, Err(ContentError::Unreadable { .. })), "{error:?}");
    }
}

#[tokio::test]
async fn a_store_that_got_a_part_goes_on_where_it_was() {
    let bytes = file();
    let (store, cid) = kept(&bytes);
    // Gives the root and the first leaf, and then nothing.
    let left = Arc::new(AtomicUsize::new(2));
    let blocks = store.clone();
    let (first, _) = serve_answers(move |asked, archive| {
        let is_over = || left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_err();
        match archive || is_over() {
            true => StatusCode::NOT_FOUND.into_response(),
            false => blocks.get(&asked).expect("get").ok_or(StatusCode::NOT_FOUND).into_response(),
        }
    })
    .await;
    let (second, asked) = serve_answers(move |asked, archive| match archive {
        true => StatusCode::NOT_ACCEPTABLE.into_response(),
        false => store.get(&asked).expect("get").ok_or(StatusCode::NOT_FOUND).into_response(),
    })
    .await;
    let here = Arc::new(MemoryStore::new());
    let content = StoreContent(here.clone());
    let missing = content.get(&cid, exactly(&bytes), &[first]).await;
    assert!(matches!(missing, Err(ContentError::Missing { .. })), "{missing:?}");
    assert_eq!(here.len(), 2);
    assert_eq!(content.get(&cid, exactly(&bytes), &[second]).await, Ok(bytes));
    assert_eq!(asked.load(Ordering::SeqCst), 2, "two leaves");
}

#[tokio::test]
async fn a_slow_or_endless_source_costs_its_time_and_no_more() {
    let bytes = file();
    let (store, cid) = kept(&bytes);
    let good = serve_store(store.clone()).await;
    let silent = |_, _| Body::from_stream(stream::pending::<Result<Bytes, Infallible>>()).into_response();
    // It has the root; its archives and its leaves never end.
    let trickle = move |asked: Cid, _| match asked == cid {
        true => store.get(&asked).expect("get").expect("it is here").into_response(),
        false => endless(b"\x00", Duration::from_millis(100)),
    };
    let attempts = [serve_answers(silent).await.0, serve_answers(trickle).await.0].map(|hostile| {
        let (good, bytes) = (good.clone(), bytes.clone());
        tokio::spawn(async move {
            let begun = Instant::now();
            let got = FetchedContent.get(&cid, exactly(&bytes), &[hostile, good]).await;
            assert!(got == Ok(bytes), "{:?}", got.err());
            begun.elapsed()
        })
    });
    for attempt in attempts {
        let took = attempt.await.expect("fetched");
        assert!(took < Duration::from_secs(25), "{took:?}");
    }
}

#[tokio::test]
async fn what_an_order_names_is_asked_at_private_addresses_only_where_the_settings_say_so() {
    let (store, cid) = kept(b"an input");
    let source = serve_store(store.clone()).await;
    let (other, asked) =
        serve_answers(move |asked, _| store.get(&asked).expect("get").ok_or(StatusCode::NOT_FOUND).into_response())
            .await;
    let named = ContentSource(other.url.clone());
    for (content, _) in ways() {
        for named in [named.clone(), ContentSource(named.0.replace("127.0.0.1", "localhost"))] {
            let sources = Source::of_input(&[], Some(&named), false);
            let error = content.get(&cid, 8..=8, &sources).await.expect_err("refused");
            let text = error.to_string();
            assert!(text.contains("is no public address") && text.contains(named.as_str()), "{text}");
        }
        assert_eq!(asked.load(Ordering::SeqCst), 0, "nothing was sent");
    }
    for (content, _) in ways() {
        let sources = Source::of_input(&[], Some(&named), true);
        assert_eq!(content.get(&cid, 8..=8, &sources).await.as_deref(), Ok(&b"an input"[..]));
        // What the own settings name is asked wherever it is.
        let sources = Source::of_input(std::slice::from_ref(&source.url), Some(&named), false);
        assert_eq!(content.get(&cid, 8..=8, &sources).await.as_deref(), Ok(&b"an input"[..]));
    }
    assert_eq!(asked.load(Ordering::SeqCst), 2);
    let twice = Source::of_input(std::slice::from_ref(&named.0), Some(&named), false);
    assert_eq!(twice, [Source::known(named.0.clone())], "the own settings' word counts");
}
