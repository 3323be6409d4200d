//! What form a model's requests have.

use crate::{ask::AskError, packages::Packages};
use althing_content::Cid;
use althing_runtime::{Engine, Interface};
use althing_sdk::{Clock, LedgerClient, Source};
use althing_types::{Amount, Model, ModelId, Provider, Verification};
use parking_lot::Mutex;
use rand::seq::SliceRandom as _;
use std::{collections::BTreeMap, sync::Arc};

/// How long a package that was nowhere to be found is not looked for again, ms.
const MISSING_MS: u64 = 10_000;
/// Packages that are remembered.
const PACKAGES_MAX: usize = 4_096;

/// What form a model's requests have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Form {
    pub interface: Interface,
    /// Whether a client's request goes to the model as it is, and its answer comes back as it is.
    pub passes_through: bool,
    /// Whether others can re-run it, as far as the package is concerned: the ledger cannot look into packages. (T-20)
    pub is_exact: bool,
}

#[derive(Clone, Copy)]
enum Known {
    Form(Form),
    MissingUntil(u64),
}

/// Forms by package, as far as they were looked up.
#[derive(Default)]
pub(crate) struct Forms(Mutex<BTreeMap<Cid, Known>>);

/// Where they are looked up.
pub(crate) struct Sources<'a> {
    pub engines: &'a BTreeMap<ModelId, Arc<dyn Engine>>,
    pub packages: &'a dyn Packages,
    pub client: &'a dyn LedgerClient,
    pub clock: &'a dyn Clock,
    /// Whether providers are asked at public addresses alone.
    pub public_only: bool,
}

/// Whether a provider is one to ask for a model.
pub(crate) fn serves(provider: &Provider, model: &Model, now_ms: u64, bond_min: Amount) -> bool {
    provider.models.contains(&model.id)
        && !provider.endpoint.is_empty()
        && provider.jailed_until_ms <= now_ms
        && provider.stake_free() >= bond_min
}

impl Forms {
    /// The form of a model; `None` if nobody who serves it says.
    ///
    /// # Errors
    /// If the ledger cannot be asked, or nobody can check what would come of guessing.
    pub async fn of(&self, model: &Model, sources: &Sources<'_>) -> Result<Option<Form>, AskError> {
        if let Some(engine) = sources.engines.get(&model.id) {
            return Ok(Some(Form { interface: engine.interface(), passes_through: false, is_exact: true }));
        }
        let form = match self.known(&model.package, sources.clock.now_ms()) {
            Some(known) => known,
            None => self.look_up(model, sources).await?,
        };
        match (form, model.verification) {
            (None, Verification::None) => Err(AskError::PackageUnavailable(model.name.clone())),
            (form, _) => Ok(form),
        }
    }

    fn known(&self, package: &Cid, now_ms: u64) -> Option<Option<Form>> {
        match self.0.lock().get(package)? {
            Known::Form(form) => Some(Some(*form)),
            Known::MissingUntil(until_ms) if now_ms < *until_ms => Some(None),
            Known::MissingUntil(_) => None,
        }
    }

    async fn look_up(&self, model: &Model, sources: &Sources<'_>) -> Result<Option<Form>, AskError> {
        let providers = sources.client.providers().await?;
        let (now_ms, bond_min) = (sources.clock.now_ms(), sources.client.params().await?.bond_min);
        let serving = providers.into_iter().filter(|provider| serves(provider, model, now_ms, bond_min));
        let source = |provider: Provider| Source { url: provider.endpoint, public_only: sources.public_only };
        let mut places: Vec<_> = serving.map(source).collect();
        // Nobody is always the first to be asked.
        places.shuffle(&mut rand::rng());
        let manifest = sources.packages.manifest(&model.package, &places).await.ok();
        let form = manifest.filter(|manifest| manifest.check().is_ok()).and_then(|manifest| {
            Some(Form {
                interface: manifest.interface().ok()?,
                passes_through: manifest.passes_through(),
                is_exact: manifest.is_exact(),
            })
        });
        let known = form.map_or(Known::MissingUntil(sources.clock.now_ms() + MISSING_MS), Known::Form);
        let mut table = self.0.lock();
        if table.len() >= PACKAGES_MAX {
            table.pop_first();
        }
        table.insert(model.package, known);
        Ok(form)
    }
}
