//! Runs of models: where the core hands its work.

use crate::serve::{ServeError, ServingStatus};
use althing_adapter::{AdapterError, AdapterStatus};
use althing_runtime::{Engine, RunError};
use althing_types::ModelId;
use async_trait::async_trait;
use std::{collections::BTreeMap, sync::Arc};
use tokio::sync::mpsc;

/// The engines of the models that a provider serves.
pub type Engines = BTreeMap<ModelId, Arc<dyn Engine>>;

/// Where a run's text goes, piece by piece, if anybody wants it.
pub type Pieces = Option<mpsc::UnboundedSender<String>>;

/// Why a run gave nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ComputeError {
    #[error("model {0} is not served here")]
    NotServed(ModelId),
    #[error(transparent)]
    Run(#[from] RunError),
    #[error(transparent)]
    Serve(#[from] ServeError),
    #[error(transparent)]
    Adapter(#[from] AdapterError),
    #[error("the time in which the order had to be answered was over before the run")]
    Late,
    #[error("the run ended without a result")]
    Lost,
}

/// What a run gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ran {
    pub output: Vec<u8>,
    /// How long the machine worked for this run, ms: without the wait for its turn, and of what it
    /// did for several runs at once the run's share.
    pub run_ms: u64,
}

/// Something that runs models.
#[async_trait]
pub trait Compute: Send + Sync + 'static {
    /// Whether it has the model.
    fn serves(&self, model: &ModelId) -> bool;
    /// Whether a run here says if somebody else's answer is right. (T-20)
    fn is_exact(&self, model: &ModelId) -> bool {
        self.serves(model)
    }
    /// Whether a run that is asked for now would begin soon.
    ///
    /// # Errors
    /// Why not.
    fn ready(&self, _model: &ModelId) -> Result<(), ComputeError> {
        Ok(())
    }
    /// Runs a model; text goes to `pieces` as it is made.
    async fn run(&self, model: ModelId, input: Vec<u8>, seed: u64, pieces: Pieces) -> Result<Ran, ComputeError>;
    /// What it does at the moment, if it keeps count.
    fn serving(&self) -> Option<ServingStatus> {
        None
    }
    /// The models that servers elsewhere run, and how these are.
    fn elsewhere(&self) -> Vec<(ModelId, AdapterStatus)> {
        Vec::new()
    }
}

/// Runs a model to the end, here.
pub(crate) fn run_now(
    engine: &dyn Engine,
    input: &[u8],
    seed: u64,
    pieces: Option<&mpsc::UnboundedSender<String>>,
) -> Result<Vec<u8>, RunError> {
    // A receiver that is gone does not end the run: its result is still owed to the ledger.
    let mut emit = |piece: &str| {
        if let Some(pieces) = pieces {
            let _ = pieces.send(piece.to_owned());
        }
        true
    };
    engine.run(input, seed, &mut emit)
}

/// Runs at once where it is called, for simulations: no simulated time passes.
pub struct InlineCompute(pub Engines);

#[async_trait]
impl Compute for InlineCompute {
    fn serves(&self, model: &ModelId) -> bool {
        self.0.contains_key(model)
    }

    async fn run(&self, model: ModelId, input: Vec<u8>, seed: u64, pieces: Pieces) -> Result<Ran, ComputeError> {
        let engine = self.0.get(&model).ok_or(ComputeError::NotServed(model))?;
        let output = run_now(&**engine, &input, seed, pieces.as_ref())?;
        Ok(Ran { output, run_ms: 0 })
    }
}
