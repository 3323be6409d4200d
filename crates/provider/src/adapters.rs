//! Models here and models on servers elsewhere, as one.
//!
//! The latter take none of this machine's places and memory: each server has its own bounds.

use crate::{
    compute::{Compute, ComputeError, Pieces, Ran},
    serve::{ModelServer, ServingStatus, millis},
};
use althing_adapter::{Adapter, AdapterStatus};
use althing_types::ModelId;
use async_trait::async_trait;
use std::{collections::BTreeMap, sync::Arc, time::Instant};

/// Adapters, by the models that they are for.
pub type Adapters = BTreeMap<ModelId, Arc<Adapter>>;

/// See the module's text.
pub struct AllModels {
    pub here: ModelServer,
    pub elsewhere: Adapters,
}

#[async_trait]
impl Compute for AllModels {
    fn serves(&self, model: &ModelId) -> bool {
        self.elsewhere.contains_key(model) || self.here.serves(model)
    }

    fn is_exact(&self, model: &ModelId) -> bool {
        self.here.is_exact(model)
    }

    fn ready(&self, model: &ModelId) -> Result<(), ComputeError> {
        match self.elsewhere.get(model) {
            Some(adapter) => Ok(adapter.ready()?),
            None => self.here.ready(model),
        }
    }

    async fn run(&self, model: ModelId, input: Vec<u8>, seed: u64, pieces: Pieces) -> Result<Ran, ComputeError> {
        let Some(adapter) = self.elsewhere.get(&model) else { return self.here.run(model, input, seed, pieces).await };
        let started = Instant::now();
        // A receiver that is gone does not end the run: its result is still owed to the ledger.
        let mut emit = |piece: String| {
            if let Some(pieces) = &pieces {
                let _ = pieces.send(piece);
            }
        };
        let output = adapter.run(&input, seed, &mut emit).await?;
        Ok(Ran { output, run_ms: millis(started.elapsed()) })
    }

    fn serving(&self) -> Option<ServingStatus> {
        self.here.serving()
    }

    fn elsewhere(&self) -> Vec<(ModelId, AdapterStatus)> {
        self.elsewhere.iter().map(|(model, adapter)| (*model, adapter.status())).collect()
    }
}
