//! Models in memory as long as there is room for them, and their runs side by side.
//!
//! Each run waits for its turn, first come first served: until fewer than `runs_max` others run, its
//! model is in memory, and there is room for all that it can come to need. From then on it belongs to its
//! model's worker, a thread that carries all runs of the model forward together; runs of models that do
//! not share steps get a thread each. Nobody who waits holds what somebody who runs needs, so the first
//! in line always gets on.
//!
//! When room is needed, what was used least recently goes first: an idle model, or what an earlier run
//! has read. Whatever is loaded or runs is counted before it takes its memory.
//!
//! Models come from strangers: one that cannot be loaded is left out, and the others are served.

use crate::compute::{Compute, ComputeError, Pieces, Ran, run_now};
use althing_runtime::{
    Batch, Caller, ChatEngine, Counters, Engine, Hold, Memory, PackageError, Prepared, Run, RunError,
};
use althing_types::ModelId;
use async_trait::async_trait;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
        mpsc,
    },
    time::{Duration, Instant},
};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot};

/// A model to serve.
pub struct ServedModel {
    /// For people.
    pub name: String,
    pub source: Source,
}

/// Reads a package and loads its engine.
pub type Load = Arc<dyn Fn() -> Result<Box<dyn Engine>, PackageError> + Send + Sync>;

/// Where a model's engine comes from.
pub enum Source {
    /// It is in memory for others too: it is never unloaded, and its weights are not counted.
    Shared(Arc<dyn Engine>),
    /// It is loaded when it is needed, which takes the package's bytes beside the weights for a while, and what its own
    /// program may take meanwhile.
    Package { bytes: u64, init_bytes: u64, load: Load },
    /// Its package is of no use, for this reason.
    Nowhere(String),
}

/// How much is done at a time.
#[derive(Clone, Copy, Debug)]
pub struct ServerConfig {
    /// Most runs at a time, of all models together.
    pub runs_max: usize,
    /// Most memory for weights and runs; `None` for no limit.
    pub memory_max_bytes: Option<u64>,
    /// Most of it for what was read earlier and may be of use again.
    pub prefix_cache_max_bytes: u64,
}

/// Why a model is not served.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ServeError {
    #[error("the model {name} cannot be loaded: {why}")]
    Load { name: String, why: String },
    #[error(
        "the model {name} takes {} of memory to load: {} of weights beside {} for its package and its init; \
         memory_max_bytes allows {}",
        mebibytes(loading_bytes.saturating_add(*weights_bytes)), mebibytes(*weights_bytes), mebibytes(*loading_bytes),
        mebibytes(*memory_max_bytes)
    )]
    NoRoomToLoad { name: String, loading_bytes: u64, weights_bytes: u64, memory_max_bytes: u64 },
    #[error(
        "the model {name} takes {} of memory: {} of weights and {} for a run{}; memory_max_bytes allows {}",
        mebibytes(weights_bytes.saturating_add(*run_bytes)), mebibytes(*weights_bytes), mebibytes(*run_bytes),
        tokens.map(|tokens| format!(" of {tokens} tokens, which its context allows")).unwrap_or_default(),
        mebibytes(*memory_max_bytes)
    )]
    NoRoomToRun { name: String, weights_bytes: u64, run_bytes: u64, tokens: Option<usize>, memory_max_bytes: u64 },
}

/// `12.5 MiB`, rounded up.
fn mebibytes(bytes: u64) -> String {
    let tenths = (u128::from(bytes) * 10).div_ceil(1 << 20);
    format!("{}.{} MiB", tenths / 10, tenths % 10)
}

/// A model that was to be served and is not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftOut {
    pub model: ModelId,
    pub name: String,
    /// For people, with the name.
    pub why: String,
}

/// What a server does at the moment, and did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServingStatus {
    pub running: usize,
    /// Runs that wait for their turn.
    pub waiting: usize,
    /// Models in memory.
    pub loaded: Vec<ModelId>,
    /// Models that could not be loaded when it started.
    #[serde(default)]
    pub left_out: Vec<LeftOut>,
    /// Memory of weights, runs, and what was read earlier.
    pub memory_bytes: u64,
    /// What was read earlier alone.
    pub prefix_cache_bytes: u64,
    /// The most that memory ever was, and is allowed to be.
    pub memory_peak_bytes: u64,
    pub memory_max_bytes: Option<u64>,
    /// Tokens that went through models, and tokens of prompts that did not have to.
    pub tokens_fed: u64,
    pub tokens_reused: u64,
}

struct Model {
    name: String,
    source: Source,
    /// As it was when the model was loaded; the package's size before.
    weights_bytes: AtomicU64,
}

/// An engine and the memory that it takes; the engine goes first.
struct Weights {
    engine: Arc<dyn Engine>,
    hold: Option<Hold>,
}

/// A model in memory.
struct Loaded {
    weights: Arc<Weights>,
    worker: Option<Worker>,
    /// When it was used last, as [`Memory::use_now`] counts.
    used: AtomicU64,
}

/// The thread of a model whose runs share steps. It ends when `runs` is dropped.
struct Worker {
    engine: Arc<ChatEngine>,
    runs: mpsc::Sender<Run>,
    /// Closes when the thread has ended and its memory is free.
    ended: oneshot::Receiver<()>,
}

/// Keeps a model in memory.
struct InUse {
    loaded: Option<Arc<Loaded>>,
    memory: Arc<Memory>,
    freed: Arc<Notify>,
}

impl InUse {
    fn loaded(&self) -> &Loaded {
        self.loaded.as_ref().expect("there until it is dropped")
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        self.loaded().used.store(self.memory.use_now(), Ordering::Relaxed);
        self.loaded = None;
        // The model may be idle now, and somebody may need its room.
        self.freed.notify_one();
    }
}

/// Serves models. See the module's text.
pub struct ModelServer {
    models: BTreeMap<ModelId, Model>,
    left_out: Vec<LeftOut>,
    /// A model is idle if nobody else has its [`Arc`], which is cloned only while this is locked.
    loaded: Mutex<BTreeMap<ModelId, Arc<Loaded>>>,
    memory: Arc<Memory>,
    memory_max_bytes: Option<u64>,
    /// Told when a wait for room may be over. Only who has the turn waits.
    freed: Arc<Notify>,
    counters: Arc<Counters>,
    runs_max: usize,
    slots: Arc<Semaphore>,
    waiting: AtomicUsize,
    /// Whose turn it is to get a place, a model and memory.
    turn: tokio::sync::Mutex<()>,
}

/// Counts somebody who waits, as long as they do.
struct Waits<'a>(&'a AtomicUsize);

impl<'a> Waits<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A run's way back. What it holds is free before the result is told.
struct Reply {
    pieces: Pieces,
    done: oneshot::Sender<Result<Ran, ComputeError>>,
    slot: OwnedSemaphorePermit,
    model: InUse,
    /// What the run took before it joined the others.
    prepared: Duration,
}

impl Reply {
    fn send(self, result: Result<Vec<u8>, RunError>, worked: Duration) {
        let Self { done, slot, model, prepared, .. } = self;
        drop((slot, model));
        let ran = |output| Ran { output, run_ms: millis(prepared + worked) };
        let _ = done.send(result.map(ran).map_err(ComputeError::Run));
    }
}

impl Caller for Reply {
    fn text(&mut self, piece: &str) -> bool {
        // A receiver that is gone does not end the run: its result is still owed to the ledger.
        if let Some(pieces) = &self.pieces {
            let _ = pieces.send(piece.to_owned());
        }
        true
    }

    fn done(self: Box<Self>, result: Result<Vec<u8>, RunError>, worked: Duration) {
        self.send(result, worked);
    }
}

/// Milliseconds, rounded up: nothing is free.
pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros().div_ceil(1_000)).unwrap_or(u64::MAX)
}

/// Does blocking work on a thread of its own; a panic there is no result.
async fn on_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, ComputeError> {
    let (done, result) = oneshot::channel();
    let thread = std::thread::Builder::new().name("althing-run".into());
    thread.spawn(move || drop(done.send(work()))).map_err(|_| ComputeError::Lost)?;
    result.await.map_err(|_| ComputeError::Lost)
}

/// What the worker of a model does, until nobody can hand it a run any more.
fn work(mut batch: Batch, runs: &mpsc::Receiver<Run>) {
    loop {
        if batch.is_empty() {
            let Ok(run) = runs.recv() else { return };
            batch.add(run);
        }
        runs.try_iter().for_each(|run| batch.add(run));
        batch.step();
    }
}

impl ModelServer {
    /// Serves `models`. Each is loaded once, in turn, so that one that is damaged or has no room is found
    /// now rather than with its first order, and left out; as many as fit stay in memory.
    pub async fn start(models: BTreeMap<ModelId, ServedModel>, config: ServerConfig) -> Self {
        let freed = Arc::new(Notify::new());
        let memory = Memory::new(config.memory_max_bytes.unwrap_or(u64::MAX), config.prefix_cache_max_bytes, {
            let freed = freed.clone();
            move || freed.notify_one()
        });
        let model = |model: ServedModel| {
            let weights_bytes = match &model.source {
                Source::Shared(_) | Source::Nowhere(_) => 0,
                Source::Package { bytes, .. } => *bytes,
            };
            Model { name: model.name, source: model.source, weights_bytes: weights_bytes.into() }
        };
        let mut server = Self {
            models: models.into_iter().map(|(id, served)| (id, model(served))).collect(),
            left_out: Vec::new(),
            loaded: Mutex::default(),
            memory,
            memory_max_bytes: config.memory_max_bytes,
            freed,
            counters: Arc::default(),
            runs_max: config.runs_max.max(1),
            slots: Arc::new(Semaphore::new(config.runs_max.max(1))),
            waiting: AtomicUsize::new(0),
            turn: tokio::sync::Mutex::new(()),
        };
        for id in server.models.keys().copied().collect::<Vec<_>>() {
            let Err(error) = server.model(&id).await else { continue };
            let Some(Model { name, .. }) = server.models.remove(&id) else { continue };
            let why = match error {
                ComputeError::Serve(error) => error,
                // It panicked.
                _ => ServeError::Load { name: name.clone(), why: "loading it ended without a result".into() },
            };
            server.left_out.push(LeftOut { model: id, name, why: why.to_string() });
        }
        server
    }

    /// The models that it serves.
    pub fn models(&self) -> impl Iterator<Item = ModelId> {
        self.models.keys().copied()
    }

    /// Those that could not be loaded.
    pub fn left_out(&self) -> &[LeftOut] {
        &self.left_out
    }

    /// The model, in memory from now until what is returned is dropped. Only for who has the turn.
    async fn model(&self, id: &ModelId) -> Result<InUse, ComputeError> {
        if let Some(model) = self.in_memory(id) {
            return Ok(model);
        }
        let model = self.models.get(id).ok_or(ComputeError::NotServed(*id))?;
        let weights = match &model.source {
            Source::Shared(engine) => Weights { engine: engine.clone(), hold: None },
            Source::Package { bytes, init_bytes, load } => {
                self.load(model, bytes.saturating_add(*init_bytes), load.clone()).await?
            }
            Source::Nowhere(why) => {
                return Err(ServeError::Load { name: model.name.clone(), why: why.clone() }.into());
            }
        };
        self.check_room_to_run(&model.name, &weights)?;
        let loaded = self.employ(weights)?;
        self.loaded.lock().insert(*id, Arc::new(loaded));
        self.in_memory(id).ok_or(ComputeError::Lost)
    }

    fn in_memory(&self, id: &ModelId) -> Option<InUse> {
        let table = self.loaded.lock();
        let loaded = table.get(id)?;
        loaded.used.store(self.memory.use_now(), Ordering::Relaxed);
        Some(InUse { loaded: Some(loaded.clone()), memory: self.memory.clone(), freed: self.freed.clone() })
    }

    /// Loads an engine into memory that is free for it.
    async fn load(&self, model: &Model, loading_bytes: u64, load: Load) -> Result<Weights, ComputeError> {
        let no_room = |weights_bytes: u64| {
            let (name, memory_max_bytes) = (model.name.clone(), self.memory.max_bytes());
            let fits = loading_bytes.saturating_add(weights_bytes) <= memory_max_bytes;
            (!fits).then_some(ServeError::NoRoomToLoad { name, loading_bytes, weights_bytes, memory_max_bytes })
        };
        // Before the first time, weights are taken to be as large as their files.
        let weights_bytes = model.weights_bytes.load(Ordering::Relaxed);
        if let Some(error) = no_room(weights_bytes) {
            return Err(error.into());
        }
        let hold = self.hold(loading_bytes + weights_bytes).await;
        // The thread has the memory: a load that nobody waits for any more gives it back when it is over.
        let (engine, mut hold) = on_thread(move || (load(), hold)).await?;
        let engine: Arc<dyn Engine> =
            Arc::from(engine.map_err(|error| ServeError::Load { name: model.name.clone(), why: error.to_string() })?);
        let weights_bytes = engine.weights_bytes();
        model.weights_bytes.store(weights_bytes, Ordering::Relaxed);
        if let Some(error) = no_room(weights_bytes) {
            return Err(error.into());
        }
        match weights_bytes.checked_sub(hold.bytes()) {
            Some(more) => hold.merge(self.hold(more).await),
            None => hold.shrink(weights_bytes),
        }
        Ok(Weights { engine, hold: Some(hold) })
    }

    /// A model whose longest run would not fit is not served: a run that cannot end must not begin.
    fn check_room_to_run(&self, name: &str, weights: &Weights) -> Result<(), ServeError> {
        let weights_bytes = weights.hold.as_ref().map_or(0, Hold::bytes);
        let (run_bytes, tokens) = match weights.engine.clone().chat() {
            Some(engine) => (engine.cache_bytes_max(), Some(engine.context_tokens())),
            None => (weights.engine.run_bytes_max(), None),
        };
        let memory_max_bytes = self.memory.max_bytes();
        if weights_bytes.saturating_add(run_bytes) <= memory_max_bytes {
            return Ok(());
        }
        Err(ServeError::NoRoomToRun { name: name.to_owned(), weights_bytes, run_bytes, tokens, memory_max_bytes })
    }

    /// Gives a model its worker, if its runs share steps.
    fn employ(&self, weights: Weights) -> Result<Loaded, ComputeError> {
        let weights = Arc::new(weights);
        let worker = match weights.engine.clone().chat() {
            None => None,
            Some(engine) => {
                let batch = Batch::new(engine.clone(), self.memory.clone(), self.counters.clone());
                let (runs, handed) = mpsc::channel();
                let (ending, ended) = oneshot::channel::<()>();
                let weights = weights.clone();
                let thread = std::thread::Builder::new().name("althing-model".into());
                let start = thread.spawn(move || {
                    // Dropped in this order, also if the thread should panic: batch, weights, news of the end.
                    let _ending = ending;
                    let _weights = weights;
                    work(batch, &handed);
                });
                start.map_err(|_| ComputeError::Lost)?;
                Some(Worker { engine, runs, ended })
            }
        };
        Ok(Loaded { weights, worker, used: self.memory.use_now().into() })
    }

    /// Waits until there is room for `bytes`, which there can be, and takes it. Only for who has the turn.
    async fn hold(&self, bytes: u64) -> Hold {
        loop {
            if let Some(hold) = self.memory.hold(bytes) {
                return hold;
            }
            if !self.make_room().await {
                self.freed.notified().await;
            }
        }
    }

    /// Gives up what was used least recently, if there is anything that nobody uses.
    async fn make_room(&self) -> bool {
        let kept = self.memory.oldest_kept();
        let unloaded = {
            let mut table = self.loaded.lock();
            let idle = |loaded: &Arc<Loaded>| Arc::strong_count(loaded) == 1 && loaded.weights.hold.is_some();
            let used = |loaded: &Arc<Loaded>| loaded.used.load(Ordering::Relaxed);
            let oldest = table.iter().filter(|(_, loaded)| idle(loaded)).min_by_key(|(_, loaded)| used(loaded));
            let oldest = oldest.filter(|(_, loaded)| kept.is_none_or(|kept| used(loaded) < kept));
            let id = oldest.map(|(id, _)| *id);
            id.and_then(|id| table.remove(&id)).and_then(Arc::into_inner)
        };
        match (unloaded, kept) {
            (Some(Loaded { weights, worker, .. }), _) => {
                let ended = worker.map(|Worker { ended, .. }| ended);
                drop(weights);
                if let Some(ended) = ended {
                    // The memory is free once the worker has ended.
                    let _ = ended.await;
                }
                true
            }
            (None, Some(_)) => {
                self.memory.forget_oldest();
                true
            }
            (None, None) => false,
        }
    }

    /// Starts a run whose turn it is: the rest happens on its thread.
    async fn begin(&self, run: NewRun, slot: OwnedSemaphorePermit) -> Result<Answered, ComputeError> {
        let NewRun { id, input, seed, pieces } = run;
        let model = self.model(&id).await?;
        let (done, answered) = oneshot::channel();
        let Some(worker) = &model.loaded().worker else {
            let hold = self.hold(model.loaded().weights.engine.run_bytes_max()).await;
            let run = move || {
                let started = Instant::now();
                let result = run_now(&*model.loaded().weights.engine, &input, seed, pieces.as_ref());
                drop(hold);
                Reply { pieces: None, done, slot, model, prepared: Duration::ZERO }.send(result, started.elapsed());
            };
            let thread = std::thread::Builder::new().name("althing-run".into());
            thread.spawn(run).map_err(|_| ComputeError::Lost)?;
            return Ok(answered);
        };
        let (engine, runs) = (worker.engine.clone(), worker.runs.clone());
        // The thread keeps the model in memory, also if nobody waits for the run any more.
        let prepare = move || {
            let started = Instant::now();
            let prepared = engine.prepare(&input, seed).map(|prepared| match prepared {
                Prepared::Refused(output) => Err(output),
                Prepared::Answer(answering) => Ok((engine.cache_bytes(&answering), answering)),
            });
            drop(engine);
            (prepared, started.elapsed(), model)
        };
        let (prepared, took, model) = on_thread(prepare).await?;
        let reply = Reply { pieces, done, slot, model, prepared: took };
        match prepared? {
            Err(refusal) => reply.send(Ok(refusal), Duration::ZERO),
            Ok((bytes, answering)) => {
                let hold = self.hold(bytes).await;
                if runs.send(Run { answering, hold, caller: Box::new(reply) }).is_err() {
                    // Its worker is gone, which does not happen; if it did, the model is loaded anew.
                    self.loaded.lock().remove(&id);
                }
            }
        }
        Ok(answered)
    }

    /// What it does and did.
    pub fn status(&self) -> ServingStatus {
        let usage = self.memory.usage();
        ServingStatus {
            running: self.runs_max - self.slots.available_permits(),
            waiting: self.waiting.load(Ordering::Relaxed),
            loaded: self.loaded.lock().keys().copied().collect(),
            left_out: self.left_out.clone(),
            memory_bytes: usage.held_bytes + usage.kept_bytes,
            prefix_cache_bytes: usage.kept_bytes,
            memory_peak_bytes: usage.peak_bytes,
            memory_max_bytes: self.memory_max_bytes,
            tokens_fed: self.counters.tokens_fed.load(Ordering::Relaxed),
            tokens_reused: self.counters.tokens_reused.load(Ordering::Relaxed),
        }
    }
}

type Answered = oneshot::Receiver<Result<Ran, ComputeError>>;

/// What is to be run.
struct NewRun {
    id: ModelId,
    input: Vec<u8>,
    seed: u64,
    pieces: Pieces,
}

#[async_trait]
impl Compute for ModelServer {
    fn serves(&self, model: &ModelId) -> bool {
        self.models.contains_key(model)
    }

    async fn run(&self, id: ModelId, input: Vec<u8>, seed: u64, pieces: Pieces) -> Result<Ran, ComputeError> {
        let answered = {
            let _waits = Waits::new(&self.waiting);
            let _turn = self.turn.lock().await;
            let slot = self.slots.clone().acquire_owned().await.map_err(|_| ComputeError::Lost)?;
            self.begin(NewRun { id, input, seed, pieces }, slot).await?
        };
        // A run that panicked drops its end of the channel.
        answered.await.map_err(|_| ComputeError::Lost)?
    }

    fn serving(&self) -> Option<ServingStatus> {
        Some(self.status())
    }
}
