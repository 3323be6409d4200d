//! Models come and go under a limit of memory; their runs wait in order, share steps, and leave nothing behind.

#![allow(clippy::unwrap_used)] // helpers of tests

use althing_provider::{
    Compute as _, ComputeError, ModelServer, Ran, ServeError, ServedModel, ServerConfig, ServingStatus, Source,
    serve::Load,
};
use althing_runtime::{ChatInput, Engine, Package, PackageError, RunError, load};
use althing_types::ModelId;
use futures::future::join_all;
use parking_lot::{Condvar, Mutex};
use std::{
    collections::BTreeMap,
    future::Future,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::sync::mpsc::unbounded_channel;

const A: ModelId = ModelId([1; 32]);
const B: ModelId = ModelId([2; 32]);

/// Runs while this is closed do not end.
#[derive(Default)]
struct Gate {
    open: Mutex<bool>,
    opened: Condvar,
}

impl Gate {
    fn open(&self) {
        *self.open.lock() = true;
        self.opened.notify_all();
    }

    fn pass(&self) {
        let mut open = self.open.lock();
        while !*open {
            // A test that fails must end too.
            assert!(!self.opened.wait_for(&mut open, Duration::from_secs(60)).timed_out(), "the gate stays closed");
        }
    }
}

/// An engine that only pretends to have weights; its runs do not share steps.
struct Pretender {
    weights_bytes: u64,
    run_bytes: u64,
    gate: Arc<Gate>,
    /// The seeds of its runs, as they began.
    began: Arc<Mutex<Vec<u64>>>,
}

impl Engine for Pretender {
    fn interface(&self) -> althing_runtime::Interface {
        althing_runtime::Interface::Chat
    }

    fn run(&self, input: &[u8], seed: u64, _emit: &mut dyn FnMut(&str) -> bool) -> Result<Vec<u8>, RunError> {
        self.began.lock().push(seed);
        self.gate.pass();
        assert_ne!(input, b"panic", "as it was told to");
        Ok(input.to_vec())
    }

    fn measure(&self, _input: &[u8]) -> Option<(usize, usize)> {
        None
    }

    fn weights_bytes(&self) -> u64 {
        self.weights_bytes
    }

    fn run_bytes_max(&self) -> u64 {
        self.run_bytes
    }
}

/// A pretender's package of `bytes` bytes.
fn pretender(bytes: u64, weights_bytes: u64, gate: &Arc<Gate>, began: &Arc<Mutex<Vec<u64>>>) -> ServedModel {
    pretender_with_runs(bytes, weights_bytes, 0, gate, began)
}

/// The same, of which each run takes memory.
fn pretender_with_runs(
    bytes: u64,
    weights_bytes: u64,
    run_bytes: u64,
    gate: &Arc<Gate>,
    began: &Arc<Mutex<Vec<u64>>>,
) -> ServedModel {
    let (gate, began) = (gate.clone(), began.clone());
    let load: Load = Arc::new(move || {
        Ok(Box::new(Pretender { weights_bytes, run_bytes, gate: gate.clone(), began: began.clone() }))
    });
    ServedModel { name: "pretender".into(), source: Source::Package { bytes, init_bytes: 0, load } }
}

fn package(path: &str) -> Package {
    Package::from_path(&Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// Random weights, one layer, a context of 64 tokens.
fn small() -> Package {
    package("../exact/tests/fixtures/llama.gguf")
}

fn stories() -> Package {
    package("../../models/tiny-stories/package")
}

fn engine(package: &Package) -> Arc<dyn Engine> {
    Arc::from(load(package, 1).unwrap())
}

/// A package that counts how often it is loaded.
fn served(package: &Package, loads: &Arc<AtomicUsize>) -> ServedModel {
    let (bytes, package, loads) = (package.bytes(), package.clone(), loads.clone());
    let load: Load = Arc::new(move || {
        loads.fetch_add(1, Ordering::Relaxed);
        load(&package, 2)
    });
    ServedModel { name: "served".into(), source: Source::Package { bytes, init_bytes: 0, load } }
}

fn config(runs_max: usize, memory_max_bytes: u64) -> ServerConfig {
    ServerConfig { runs_max, memory_max_bytes: Some(memory_max_bytes), prefix_cache_max_bytes: 1 << 20 }
}

async fn start<const N: usize>(models: [(ModelId, ServedModel); N], config: ServerConfig) -> Arc<ModelServer> {
    let server = ModelServer::start(BTreeMap::from(models), config).await;
    assert_eq!(server.left_out(), []);
    Arc::new(server)
}

/// Nothing may ever hang.
async fn soon<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), work).await.expect("in time")
}

/// Waits until the server's status is as wished.
async fn until(server: &ModelServer, wish: impl Fn(&ServingStatus) -> bool) -> ServingStatus {
    soon(async {
        loop {
            let status = server.status();
            if wish(&status) {
                return status;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await
}

fn input(question: &str, max_tokens: u32) -> Vec<u8> {
    ChatInput { max_tokens: Some(max_tokens), temperature: Some(0.8), ..ChatInput::ask(question) }.to_bytes()
}

#[tokio::test]
async fn runs_of_models_that_do_not_fit_together_give_what_they_give_alone() {
    let package = stories();
    let (loads_a, loads_b) = (Arc::default(), Arc::default());
    // As little as there can be to load one, whose weights are taken to be as large as its files.
    let limit = 2 * package.bytes();
    let server = start([(A, served(&package, &loads_a)), (B, served(&package, &loads_b))], config(4, limit)).await;
    let engine = engine(&package);
    let long = "Tell me a story about a fox who lived in a house at the edge of the forest";
    let questions = [long, &format!("{long} and an owl"), "Hello there!", ""];
    let run = |index: usize| {
        let (engine, server) = (&engine, &server);
        let input = input(questions[index % 4], 3 + u32::try_from(index).unwrap() % 10);
        async move {
            let (pieces, mut texts) = unbounded_channel();
            let mut text = String::new();
            let alone = engine.run(&input, index as u64, &mut |piece| {
                text.push_str(piece);
                true
            });
            let ran = server.run([A, B][index / 4 % 2], input, index as u64, Some(pieces)).await;
            assert_eq!(ran.unwrap().output, alone.unwrap());
            let mut pieces = String::new();
            while let Some(piece) = texts.recv().await {
                pieces.push_str(&piece);
            }
            assert_eq!(pieces, text);
        }
    };
    soon(join_all((0..40).map(run))).await;
    let loads = [&loads_a, &loads_b].map(|loads| loads.load(Ordering::Relaxed));
    assert!(loads.iter().all(|loads| *loads >= 2), "unloaded and loaded again: {loads:?}");
    let status = until(&server, |status| status.running == 0 && status.waiting == 0).await;
    assert!(status.memory_peak_bytes <= limit, "{} of {limit} bytes", status.memory_peak_bytes);
    assert!(status.tokens_reused > 0);
    // What is left is weights and what was read.
    let weights = status.loaded.len() as u64 * engine.weights_bytes();
    assert_eq!(status.memory_bytes - status.prefix_cache_bytes, weights);
}

#[tokio::test]
async fn models_that_fit_together_stay() {
    let (stories, small) = (stories(), small());
    let loads = Arc::default();
    let server = start([(A, served(&stories, &loads)), (B, served(&small, &loads))], config(4, 64 << 20)).await;
    for id in [A, B, A] {
        soon(server.run(id, input("Hello there!", 3), 1, None)).await.unwrap();
    }
    assert_eq!((loads.load(Ordering::Relaxed), server.status().loaded), (2, vec![A, B]));
}

#[tokio::test]
async fn what_was_used_least_recently_makes_room() {
    let (gate, began, stories) = (Arc::<Gate>::default(), Arc::default(), engine(&stories()));
    gate.open();
    let run_bytes = stories.clone().chat().unwrap().cache_bytes_max();
    let shared = ServedModel { name: "shared".into(), source: Source::Shared(stories) };
    // Room for the longest run and one page of what was read, or for the other model's weights.
    let limit = run_bytes + run_bytes / 4;
    let models = [(A, shared), (B, pretender(10, run_bytes / 3, &gate, &began))];
    let server = start(models, config(1, limit)).await;
    let question = "Tell me a story about a fox who lived in a house at the edge of the forest";
    soon(server.run(B, vec![], 1, None)).await.unwrap();
    soon(server.run(A, input(question, 5), 1, None)).await.unwrap();
    let status = server.status();
    assert_eq!((status.loaded, status.prefix_cache_bytes), (vec![A, B], run_bytes / 4));
    // The other model goes, what was read just before stays.
    soon(server.run(A, input(question, 300), 1, None)).await.unwrap();
    let status = server.status();
    assert_eq!((status.loaded, status.memory_peak_bytes), (vec![A], limit));
    assert!(status.tokens_reused > 0);
    // Now it is the other way round.
    soon(server.run(B, vec![], 1, None)).await.unwrap();
    soon(server.run(B, vec![], 1, None)).await.unwrap();
    assert_eq!(server.status().loaded, [A, B]);
    assert!(server.status().memory_peak_bytes <= limit);
}

#[tokio::test]
async fn a_model_waits_for_the_room_of_another_that_runs() {
    let (gate, began) = (Arc::<Gate>::default(), Arc::default());
    let models = [(A, pretender(10, 100, &gate, &began)), (B, pretender(10, 100, &gate, &began))];
    let server = start(models, config(4, 150)).await;
    assert_eq!(server.status().loaded, [B], "the last one that was looked at");
    let run = |id, seed| {
        let server = server.clone();
        tokio::spawn(async move { server.run(id, b"yes".to_vec(), seed, None).await })
    };
    let first = run(A, 1);
    until(&server, |status| status.loaded == [A] && status.waiting == 0 && !began.lock().is_empty()).await;
    let second = run(B, 2);
    until(&server, |status| status.waiting == 1).await;
    // First come, first served: who waits for another model is not overtaken.
    let third = run(A, 3);
    let status = until(&server, |status| status.waiting == 2).await;
    assert_eq!((status.loaded, &*began.lock()), (vec![A], &vec![1]));
    gate.open();
    for run in [first, second, third] {
        assert_eq!(soon(run).await.unwrap().unwrap().output, b"yes");
    }
    assert_eq!(*began.lock(), [1, 2, 3]);
    let status = server.status();
    assert_eq!((status.running, status.loaded, status.memory_bytes), (0, vec![A], 100));
    assert!(status.memory_peak_bytes <= 150);
}

#[tokio::test]
async fn as_many_run_as_may_and_the_others_wait_in_order() {
    for runs_max in [1, 2] {
        let (gate, began) = (Arc::<Gate>::default(), Arc::<Mutex<Vec<u64>>>::default());
        let server = start([(A, pretender(10, 10, &gate, &began))], config(runs_max, 100)).await;
        let run = |seed| {
            let server = server.clone();
            tokio::spawn(async move { server.run(A, vec![], seed, None).await })
        };
        let mut runs = Vec::new();
        for seed in 0..6usize {
            runs.push(run(seed as u64));
            until(&server, |status| status.running + status.waiting > seed).await;
        }
        until(&server, |_| began.lock().len() == runs_max).await;
        until(&server, |status| (status.running, status.waiting) == (runs_max, 6 - runs_max)).await;
        gate.open();
        assert!(soon(join_all(runs)).await.into_iter().all(|run| run.unwrap().is_ok()));
        let mut order = began.lock().clone();
        if runs_max > 1 {
            // Whose thread is faster is nobody's business.
            order.sort_unstable();
        }
        assert_eq!(order, [0, 1, 2, 3, 4, 5]);
        assert_eq!((server.status().running, server.status().waiting), (0, 0));
    }
}

#[tokio::test]
async fn whoever_stops_waiting_takes_up_nothing() {
    let (gate, began) = (Arc::<Gate>::default(), Arc::<Mutex<Vec<u64>>>::default());
    let models = [(A, pretender(10, 100, &gate, &began)), (B, pretender(10, 100, &gate, &began))];
    let server = start(models, config(2, 150)).await;
    let run = |id, seed| {
        let server = server.clone();
        tokio::spawn(async move { server.run(id, vec![], seed, None).await })
    };
    // One runs, one waits for room, one for its turn; nobody waits for any of them any more.
    let running = run(A, 1);
    until(&server, |_| began.lock().len() == 1).await;
    let for_room = run(B, 2);
    until(&server, |status| status.running == 2).await;
    let for_its_turn = run(A, 3);
    until(&server, |status| status.waiting == 2).await;
    for task in [for_its_turn, for_room, running] {
        task.abort();
        assert!(task.await.unwrap_err().is_cancelled());
    }
    let status = server.status();
    assert_eq!((status.running, status.waiting), (1, 0), "a run that began goes on to its end");
    // The next ones find everything in order.
    let next = [run(B, 4), run(A, 5)];
    gate.open();
    for run in next {
        soon(run).await.unwrap().unwrap();
    }
    assert_eq!(*began.lock(), [1, 4, 5]);
    let status = until(&server, |status| status.running == 0).await;
    assert_eq!((status.waiting, status.memory_bytes), (0, 100));
}

#[tokio::test]
async fn runs_that_panic_and_loads_that_fail_leave_alone() {
    let (gate, began) = (Arc::<Gate>::default(), Arc::default());
    gate.open();
    let server = start([(A, pretender(10, 100, &gate, &began))], config(1, 150)).await;
    assert_eq!(soon(server.run(A, b"panic".to_vec(), 1, None)).await, Err(ComputeError::Lost));
    assert_eq!(soon(server.run(B, vec![], 1, None)).await, Err(ComputeError::NotServed(B)));
    assert!(soon(server.run(A, vec![], 2, None)).await.is_ok());
    assert_eq!((server.status().running, server.status().memory_bytes), (0, 100));

    // One that loads at first and then fails, or panics.
    let loads = Arc::new(AtomicUsize::new(0));
    let (count, gate_b, began_b) = (loads.clone(), gate.clone(), began.clone());
    let load: Load = Arc::new(move || match count.fetch_add(1, Ordering::Relaxed) {
        1 => Err(PackageError::NoTemplate),
        2 => panic!("as it was told to"),
        _ => Ok(Box::new(Pretender { weights_bytes: 100, run_bytes: 0, gate: gate_b.clone(), began: began_b.clone() })),
    });
    let moody = ServedModel { name: "moody".into(), source: Source::Package { bytes: 10, init_bytes: 0, load } };
    let server = start([(A, moody), (B, pretender(10, 100, &gate, &began))], config(1, 150)).await;
    let failed = soon(server.run(A, vec![], 1, None)).await;
    assert!(
        matches!(&failed, Err(ComputeError::Serve(ServeError::Load { name, .. })) if name == "moody"),
        "{failed:?}"
    );
    assert_eq!(soon(server.run(A, vec![], 1, None)).await, Err(ComputeError::Lost));
    assert_eq!(server.status().memory_bytes, 0, "the other one made room, and nothing came of it");
    for id in [A, B] {
        assert!(soon(server.run(id, vec![], 1, None)).await.is_ok());
    }
}

#[tokio::test]
async fn a_model_that_cannot_be_loaded_is_left_out_and_the_others_are_served() {
    let (gate, began) = (Arc::<Gate>::default(), Arc::default());
    gate.open();
    let named = |name: &str, source: Source| ServedModel { name: name.into(), source };
    let loading = |name: &str, load: Load| named(name, Source::Package { bytes: 10, init_bytes: 0, load });
    let large = pretender(10, 1_000, &gate, &began).source;
    let greedy: Load = Arc::new(|| Err(PackageError::MissingFile("there is no room to look for".into())));
    let hungry = pretender_with_runs(10, 10, 1_000, &gate, &began).source;
    let cases = [
        (loading("broken", Arc::new(|| Err(PackageError::MissingFile("model.wasm".into())))), "\"model.wasm\""),
        (loading("panicking", Arc::new(|| panic!("as it was told to"))), "loading it ended without a result"),
        (named("lost", Source::Nowhere("it is not here".into())), "it is not here"),
        (named("large", large), "of memory to load"),
        (named("hungry", hungry), "for a run"),
        (named("greedy", Source::Package { bytes: 10, init_bytes: 140, load: greedy }), "its init"),
    ];
    let ids: Vec<_> = (0u8..).map(|byte| ModelId([byte; 32])).filter(|id| *id != B).take(cases.len()).collect();
    let mut models = BTreeMap::from([(B, pretender(10, 100, &gate, &began))]);
    let mut expected = Vec::new();
    for (id, (model, why)) in ids.iter().zip(cases) {
        expected.push((*id, model.name.clone(), why));
        models.insert(*id, model);
    }
    let server = soon(ModelServer::start(models, config(1, 150))).await;
    assert_eq!(server.models().collect::<Vec<_>>(), [B]);
    let left_out = server.status().left_out;
    assert_eq!(left_out.len(), expected.len());
    for (left, (model, name, why)) in left_out.iter().zip(&expected) {
        assert_eq!((left.model, &left.name), (*model, name));
        assert!(left.why.starts_with(&format!("the model {name} ")) && left.why.contains(why), "{}", left.why);
        assert!(!server.serves(model));
        assert_eq!(soon(server.run(*model, vec![], 1, None)).await, Err(ComputeError::NotServed(*model)));
    }
    assert!(server.serves(&B) && soon(server.run(B, vec![], 1, None)).await.is_ok());
    let status = server.status();
    assert_eq!((status.loaded, status.memory_bytes), (vec![B], 100), "what was left out takes nothing");
}

#[tokio::test]
async fn a_model_that_can_never_fit_is_found_at_the_start() {
    let refusal = |model: ServedModel, limit: u64| async move {
        let server = ModelServer::start(BTreeMap::from([(A, model)]), config(1, limit)).await;
        server.left_out()[0].why.clone()
    };
    let (gate, began, loads) = (Arc::default(), Arc::default(), Arc::default());
    let mib = 1 << 20;
    let error = refusal(pretender(20 * mib, 20 * mib, &gate, &began), 30 * mib).await;
    assert_eq!(
        error,
        "the model pretender takes 40.0 MiB of memory to load: 20.0 MiB of weights beside 20.0 MiB for its package and its init; \
         memory_max_bytes allows 30.0 MiB"
    );
    // The weights turn out larger than the files.
    let error = refusal(pretender(10 * mib, 25 * mib, &gate, &began), 30 * mib).await;
    assert!(error.contains("to load: 25.0 MiB of weights beside 10.0 MiB"), "{error}");
    let stories = stories();
    start([(A, served(&stories, &loads))], config(1, 2 * stories.bytes())).await;
    // In memory for others: only runs count.
    let shared = || ServedModel { name: "shared".into(), source: Source::Shared(engine(&stories)) };
    let text = refusal(shared(), 1_000).await;
    assert!(text.contains("a run of 256 tokens, which its context allows; memory_max_bytes allows 0.1 MiB"), "{text}");
    let broken: Load = Arc::new(|| Err(PackageError::MissingFile("model.toml".into())));
    let broken =
        ServedModel { name: "broken".into(), source: Source::Package { bytes: 1, init_bytes: 0, load: broken } };
    assert!(refusal(broken, 100).await.contains("no file \"model.toml\""));
}

#[tokio::test]
async fn runs_that_share_no_steps_hold_their_memory_too() {
    let (gate, began) = (Arc::<Gate>::default(), Arc::default());
    // Weights of 10, and room for two runs of 40.
    let server = start([(A, pretender_with_runs(10, 10, 40, &gate, &began))], config(8, 100)).await;
    let runs: Vec<_> = (0..3)
        .map(|seed| {
            let server = server.clone();
            tokio::spawn(async move { server.run(A, vec![], seed, None).await })
        })
        .collect();
    until(&server, |status| status.memory_bytes == 90).await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!(began.lock().len(), 2, "the third one waits for room");
    gate.open();
    for run in runs {
        soon(run).await.unwrap().unwrap();
    }
    let status = server.status();
    assert_eq!((status.memory_bytes, status.memory_peak_bytes), (10, 90));
    let never = ModelServer::start(
        BTreeMap::from([(A, pretender_with_runs(10, 10, 1 << 30, &gate, &began))]),
        config(1, 1 << 20),
    );
    let error = never.await.left_out()[0].why.clone();
    assert!(error.contains("1024.0 MiB for a run; memory_max_bytes allows 1.0 MiB"), "{error}");
}

#[tokio::test]
async fn what_a_run_cost_is_its_share_of_the_time() {
    let stories = stories();
    let unlimited = ServerConfig { runs_max: 8, memory_max_bytes: None, prefix_cache_max_bytes: 0 };
    let shared = ServedModel { name: "shared".into(), source: Source::Shared(engine(&stories)) };
    let server = start([(A, shared)], unlimited).await;
    let began = std::time::Instant::now();
    let runs = (0..8).map(|seed| server.run(A, input("Tell me a story about a fox", 60), seed, None));
    let ran = soon(join_all(runs)).await;
    let took_ms = u64::try_from(began.elapsed().as_millis()).unwrap();
    let worked: u64 = ran.iter().map(|ran| ran.as_ref().unwrap().run_ms).sum();
    // They are prepared one after the other, and carried forward together; each is rounded up.
    assert!(worked <= 2 * took_ms + 8, "{worked} of {took_ms} ms");
    assert!(ran.iter().all(|ran| matches!(ran, Ok(Ran { run_ms: 1.., .. }))));
}

#[tokio::test]
async fn a_text_that_nobody_reads_is_still_answered() {
    let shared = ServedModel { name: "shared".into(), source: Source::Shared(engine(&small())) };
    let server = start([(A, shared)], config(1, 1 << 20)).await;
    let (pieces, texts) = unbounded_channel();
    drop(texts);
    let ran = soon(server.run(A, input("Hello there!", 9), 3, Some(pieces))).await.unwrap();
    assert_eq!(ran.output, engine(&small()).run(&input("Hello there!", 9), 3, &mut |_| true).unwrap());
    let refused = soon(server.run(A, b"no chat".to_vec(), 3, None)).await.unwrap();
    assert!(String::from_utf8(refused.output).unwrap().contains("invalid_input"));
    assert_eq!(server.status().running, 0);
}
