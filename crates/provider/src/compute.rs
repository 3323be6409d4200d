//! Runs of models: where the core hands its work.

use althing_runtime::Engine;
use althing_sdk::Clock;
use althing_types::ModelId;
use async_trait::async_trait;
use std::{collections::BTreeMap, sync::Arc};
use tokio::sync::{Semaphore, mpsc, oneshot};

/// The engines of the models that a provider serves.
pub type Engines = BTreeMap<ModelId, Arc<dyn Engine>>;

/// Why a run gave nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ComputeError {
    #[error("model {0} is not served here")]
    NotServed(ModelId),
    #[error(transparent)]
    Run(#[from] althing_runtime::RunError),
    #[error("the run ended without a result")]
    Lost,
}

/// What a run gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ran {
    pub output: Vec<u8>,
    /// How long the model ran, without the wait for its turn, ms.
    pub run_ms: u64,
}

/// Something that runs models.
#[async_trait]
pub trait Compute: Send + Sync + 'static {
    /// Whether it has the model.
    fn serves(&self, model: &ModelId) -> bool;
    /// Runs a model; text goes to `pieces` as it is made.
    async fn run(
        &self,
        model: ModelId,
        input: Vec<u8>,
        seed: u64,
        pieces: Option<mpsc::UnboundedSender<String>>,
    ) -> Result<Ran, ComputeError>;
}

fn run_now(
    engine: &dyn Engine,
    input: &[u8],
    seed: u64,
    pieces: Option<&mpsc::UnboundedSender<String>>,
) -> Result<Vec<u8>, ComputeError> {
    // A receiver that is gone does not end the run: its result is still owed to the ledger.
    let mut emit = |piece: &str| {
        if let Some(pieces) = pieces {
            let _ = pieces.send(piece.to_owned());
        }
        true
    };
    Ok(engine.run(input, seed, &mut emit)?)
}

/// Runs on threads of their own, a few at a time; the others wait.
pub struct ThreadCompute {
    engines: Engines,
    slots: Arc<Semaphore>,
    clock: Arc<dyn Clock>,
}

impl ThreadCompute {
    /// At most `runs_max` runs at a time.
    pub fn new(engines: Engines, runs_max: usize, clock: Arc<dyn Clock>) -> Self {
        Self { engines, slots: Arc::new(Semaphore::new(runs_max.max(1))), clock }
    }
}

#[async_trait]
impl Compute for ThreadCompute {
    fn serves(&self, model: &ModelId) -> bool {
        self.engines.contains_key(model)
    }

    async fn run(
        &self,
        model: ModelId,
        input: Vec<u8>,
        seed: u64,
        pieces: Option<mpsc::UnboundedSender<String>>,
    ) -> Result<Ran, ComputeError> {
        let engine = self.engines.get(&model).ok_or(ComputeError::NotServed(model))?.clone();
        let slot = self.slots.clone().acquire_owned().await.map_err(|_| ComputeError::Lost)?;
        let (done, result) = oneshot::channel();
        let clock = self.clock.clone();
        let work = move || {
            let started_ms = clock.now_ms();
            let output = run_now(&*engine, &input, seed, pieces.as_ref());
            let run_ms = clock.now_ms().saturating_sub(started_ms);
            let _ = done.send(output.map(|output| Ran { output, run_ms }));
            drop(slot);
        };
        std::thread::Builder::new().name("althing-run".into()).spawn(work).map_err(|_| ComputeError::Lost)?;
        // A run that panicked drops its end of the channel.
        result.await.map_err(|_| ComputeError::Lost)?
    }
}

/// Runs at once where it is called, for simulations: no simulated time passes.
pub struct InlineCompute(pub Engines);

#[async_trait]
impl Compute for InlineCompute {
    fn serves(&self, model: &ModelId) -> bool {
        self.0.contains_key(model)
    }

    async fn run(
        &self,
        model: ModelId,
        input: Vec<u8>,
        seed: u64,
        pieces: Option<mpsc::UnboundedSender<String>>,
    ) -> Result<Ran, ComputeError> {
        let engine = self.0.get(&model).ok_or(ComputeError::NotServed(model))?;
        let output = run_now(&**engine, &input, seed, pieces.as_ref())?;
        Ok(Ran { output, run_ms: 0 })
    }
}
