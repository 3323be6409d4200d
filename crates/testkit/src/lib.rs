//! Whole networks in one deterministic simulation: the coordinators, providers and gateway that
//! people run, on simulated time, links and files. One seed gives one run.
//!
//! Only what touches the outside is replaced: clocks, sockets between machines, disks.

use althing_chain::{
    NetworkPublic, NodeHandle, deal,
    simulation::{LinkQuality, START_TIME_MS, SimulatedClock, Simulation, SimulationConfig, simulate},
};
use althing_content::{BlockStore as _, Cid, MemoryStore, Profile, put_bytes, read_file};
use althing_gateway::{
    ApiKey, Deliveries, DeliveryError, Gateway, GatewayConfig, MemoryReceipts, deliveries::FrameStream,
};
use althing_node::{InputWatch, LedgerMachine, NodeClient};
use althing_provider::{Behaviour, InlineCompute, MemoryJournal, ProfitPolicy, Provider, ProviderConfig};
use althing_runtime::{Engine, Package};
use althing_sdk::{
    Clock, Content, ContentError, LedgerClient, Sender, SessionKeyPair, Signer as _, Source, WalletSigner,
    delivery::DeliveryRequest,
};
use althing_types::{
    Address, Amount, ContentSource, Genesis, Hash, ModelId, OrderId, Ppm, Verification,
    call::Scope,
    genesis::{GenesisAccount, GenesisModel, GenesisSessionKey},
    profile,
};
use async_trait::async_trait;
use futures::StreamExt as _;
use parking_lot::Mutex;
use rand::{SeedableRng as _, rngs::StdRng};
use std::{collections::BTreeMap, ops::RangeInclusive, path::Path, sync::Arc, time::Duration};
use tokio::sync::mpsc;

const NEVER_MS: u64 = START_TIME_MS * 2;

/// What a simulated network is made of.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Determines everything.
    pub seed: u64,
    pub coordinators: u32,
    /// One provider for each.
    pub providers: Vec<Behaviour>,
    pub links: LinkQuality,
}

/// A network before it runs: its genesis and everybody's keys.
pub struct World {
    pub genesis: Genesis,
    pub model: ModelId,
    pub api_key: ApiKey,
    plan: Plan,
    providers: Vec<(Address, SessionKeyPair)>,
    /// What all providers run.
    pub engine: Arc<dyn Engine>,
}

/// A secret that the seed and a name determine.
fn secret(seed: u64, name: &str) -> [u8; 32] {
    Hash::of(&[b"althing-testkit", &seed.to_be_bytes(), name.as_bytes()]).0
}

/// The shipped model, from its files.
///
/// # Panics
/// If the repository is incomplete.
pub fn shipped_package() -> Package {
    let directory = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/tiny-stories/package"));
    Package::from_path(directory).expect("the shipped package is there and sound")
}

impl World {
    /// The world of a plan.
    ///
    /// # Panics
    /// If the plan is impossible.
    pub fn new(plan: Plan) -> Self {
        let network = network(&plan);
        let wallet = |name: &str| WalletSigner::from_secret(secret(plan.seed, name)).expect("a hash is a scalar");
        let session = |name: &str| SessionKeyPair::from_secret(secret(plan.seed, name)).expect("any bytes are a key");
        let account = |address, bond: u64, key: &SessionKeyPair, scope| GenesisAccount {
            address,
            free: Amount::tokens(1_000),
            bond: Amount::tokens(bond),
            session_keys: vec![GenesisSessionKey {
                key: key.public(),
                scope,
                spend_limit: Amount::tokens(1_000),
                expires_at_ms: NEVER_MS,
            }],
            assets: Vec::new(),
        };
        let (client, client_key) = (wallet("client").account(), session("client-session"));
        let mut accounts = vec![account(client, 0, &client_key, Scope::Client)];
        let mut providers = Vec::new();
        for index in 0..plan.providers.len() {
            let address = wallet(&format!("provider-{index}")).account();
            let key = session(&format!("provider-session-{index}"));
            accounts.push(account(address, 100, &key, Scope::Provider));
            providers.push((address, key));
        }
        let package = shipped_package();
        let model = GenesisModel {
            name: "tiny-stories".into(),
            owner: client,
            package: package.cid,
            fee: Amount(Amount::TOKEN.0 / 1_000),
            payee: client,
            verification: Verification::Exact,
            reward: None,
        };
        let id = model.id();
        let genesis = Genesis {
            network: "simulation".into(),
            time_ms: START_TIME_MS,
            coordinators: network.to_hex(),
            accounts,
            models: vec![model],
            voters: Vec::new(),
            coordinator_accounts: (0..plan.coordinators)
                .map(|n| wallet(&format!("coordinator-{n}")).account())
                .collect(),
            params: profile::parse(profile::DEFAULT, true).expect("the default profile is sound").params,
        };
        Self {
            genesis,
            model: id,
            api_key: ApiKey { api_key: "sk".into(), account: client, session_key: Hash(client_key.secret()) },
            plan,
            providers,
            engine: Arc::from(althing_runtime::load(&package, 1).expect("the shipped package loads")),
        }
    }

    /// The address of a provider.
    pub fn provider(&self, index: usize) -> Address {
        self.providers[index].0
    }

    /// Runs a scenario in this world; nothing is started yet.
    ///
    /// # Panics
    /// If the scenario does.
    pub fn run<F, Fut, T>(self, scenario: F) -> T
    where
        F: FnOnce(Running) -> Fut + Send + 'static,
        Fut: Future<Output = T>,
        T: Send + 'static,
    {
        let config = SimulationConfig {
            seed: self.plan.seed,
            coordinators: self.plan.coordinators,
            links: self.plan.links,
            chain_id: self.genesis.chain_id().0,
            ..SimulationConfig::default()
        };
        let machine = LedgerMachine::new(&self.genesis).expect("the genesis is sound");
        simulate(config, Arc::new(machine), move |simulation| {
            let clock = Arc::new(SimClock(simulation.clock()));
            scenario(Running { simulation, clock, world: self, endpoints: Endpoints::default(), providers: Vec::new() })
        })
    }
}

/// The network's keys: the simulation deals the same ones from the same seed.
fn network(plan: &Plan) -> NetworkPublic {
    deal(plan.coordinators, StdRng::seed_from_u64(plan.seed)).expect("the number of coordinators is allowed").0
}

/// The simulation's time as providers and gateways see it.
pub struct SimClock(SimulatedClock);

#[async_trait]
impl Clock for SimClock {
    fn now_ms(&self) -> u64 {
        self.0.now_ms()
    }
    async fn sleep_ms(&self, duration_ms: u64) {
        self.0.sleep(Duration::from_millis(duration_ms)).await;
    }
}

/// Who can be reached at an endpoint.
#[derive(Clone, Default)]
struct Endpoints(Arc<Mutex<BTreeMap<String, Endpoint>>>);

#[derive(Clone)]
struct Endpoint {
    store: Arc<MemoryStore>,
    provider: Option<Arc<Provider>>,
}

/// An own store, and those of whoever can be reached.
struct SimContent {
    store: Arc<MemoryStore>,
    endpoints: Endpoints,
}

#[async_trait]
impl Content for SimContent {
    async fn put(&self, bytes: &[u8]) -> Result<Cid, ContentError> {
        let imported = put_bytes(&*self.store, Profile::V1_2025, bytes);
        imported.map(|imported| imported.cid).map_err(|error| ContentError::Store(error.to_string()))
    }
    async fn get(&self, cid: &Cid, sizes: RangeInclusive<u64>, sources: &[Source]) -> Result<Vec<u8>, ContentError> {
        let others = self.endpoints.0.lock().clone();
        let stores = sources.iter().filter_map(|source| others.get(&source.url)).map(|endpoint| &endpoint.store);
        for store in std::iter::once(&self.store).chain(stores) {
            if store.has(cid).unwrap_or(false) {
                let file = read_file(&**store, cid, *sizes.end());
                let file = file.map_err(|error| ContentError::Store(error.to_string()))?;
                let size = file.len() as u64;
                return if sizes.contains(&size) {
                    Ok(file)
                } else {
                    Err(ContentError::Size { cid: *cid, size, expected: sizes })
                };
            }
        }
        let tried = sources.iter().map(|source| source.url.as_str()).collect::<Vec<_>>().join("; ");
        Err(ContentError::Missing { cid: *cid, tried })
    }
}

/// Deliveries by calling the provider itself.
struct SimDeliveries {
    endpoints: Endpoints,
    tasks: mpsc::UnboundedSender<futures::future::BoxFuture<'static, ()>>,
}

#[async_trait]
impl Deliveries for SimDeliveries {
    async fn open(
        &self,
        endpoint: &str,
        order: OrderId,
        request: DeliveryRequest,
    ) -> Result<FrameStream, DeliveryError> {
        let unreachable =
            || DeliveryError::Unreachable { endpoint: endpoint.into(), reason: "nobody listens there".into() };
        let found = self.endpoints.0.lock().get(endpoint).and_then(|endpoint| endpoint.provider.clone());
        let provider = found.ok_or_else(unreachable)?;
        let prepared = provider.prepare_delivery(order, request).await;
        let delivery = prepared.map_err(|error| DeliveryError::Refused(error.to_string()))?;
        let (sender, frames) = mpsc::unbounded_channel();
        let task = Box::pin(async move { provider.deliver(delivery, sender).await });
        self.tasks.send(task).map_err(|_| unreachable())?;
        let stream =
            futures::stream::unfold(frames, |mut frames| async move { Some((Ok(frames.recv().await?), frames)) });
        Ok(stream.boxed())
    }
}

/// A running simulation.
pub struct Running {
    pub simulation: Simulation,
    pub clock: Arc<SimClock>,
    pub world: World,
    pub providers: Vec<Arc<Provider>>,
    endpoints: Endpoints,
}

impl Drop for Running {
    fn drop(&mut self) {
        // Providers know the endpoints, which know the providers.
        self.endpoints.0.lock().clear();
    }
}

impl Running {
    /// A client of a started coordinator.
    ///
    /// # Panics
    /// Never: the network's key was read before.
    pub fn client(&self, node: NodeHandle) -> Arc<dyn LedgerClient> {
        Arc::new(NodeClient::new(node, &self.world.genesis, &network(&self.world.plan)))
    }

    /// Starts a provider at its own coordinator.
    pub fn start_provider(&mut self, index: usize, client: Arc<dyn LedgerClient>) {
        let (account, key) = self.world.providers[index].clone();
        let behaviour = self.world.plan.providers[index];
        let endpoint = format!("http://provider-{index}");
        let (store, private) = (Arc::new(MemoryStore::new()), Arc::new(MemoryStore::new()));
        let content =
            |store: &Arc<MemoryStore>| Arc::new(SimContent { store: store.clone(), endpoints: self.endpoints.clone() });
        let parts = althing_provider::Parts {
            client,
            clock: self.clock.clone(),
            key,
            content: content(&store),
            content_private: content(&private),
            compute: Arc::new(InlineCompute([(self.world.model, self.world.engine.clone())].into())),
            journal: Arc::new(MemoryJournal::default()),
        };
        let config = ProviderConfig {
            account,
            models: vec![self.world.model],
            endpoint: if behaviour == Behaviour::Liar { String::new() } else { endpoint.clone() },
            behaviour,
            policy: Arc::new(ProfitPolicy::default()),
            watch_share: Ppm::ONE,
            // Orders say where their inputs are.
            content_sources: Vec::new(),
            sources_private: true,
            salt_seed: secret(self.world.plan.seed, &format!("salts-{index}")),
        };
        let provider = Arc::new(Provider::new(config, self.world.genesis.chain_id(), parts));
        self.endpoints.0.lock().insert(endpoint, Endpoint { store, provider: Some(provider.clone()) });
        self.providers.push(provider.clone());
        self.simulation.spawn(async move { provider.run().await });
    }

    /// Has a coordinator fetch the inputs that it is drawn for. (T-21)
    ///
    /// # Panics
    /// Never: a hash is a scalar.
    pub fn start_input_watch(&self, index: usize, node: NodeHandle) {
        let secret = secret(self.world.plan.seed, &format!("coordinator-{index}"));
        let signer = WalletSigner::from_secret(secret).expect("a hash is a scalar");
        let client = Arc::new(NodeClient::new(node, &self.world.genesis, &network(&self.world.plan)));
        let chain = self.world.genesis.chain_id();
        let watch = InputWatch {
            client: client.clone(),
            clock: self.clock.clone(),
            sender: Arc::new(Sender::new(client, self.clock.clone(), Arc::new(signer), chain)),
            content: self.content(),
            sources: Vec::new(),
            sources_private: true,
        };
        self.simulation.spawn(async move { watch.run().await });
    }

    /// What a client without a store of its own can fetch.
    pub fn content(&self) -> Arc<dyn Content> {
        Arc::new(SimContent { store: Arc::new(MemoryStore::new()), endpoints: self.endpoints.clone() })
    }

    /// A gateway at a coordinator.
    ///
    /// # Panics
    /// If the coordinator does not answer.
    pub async fn start_gateway(&self, client: Arc<dyn LedgerClient>) -> Gateway {
        let store = Arc::new(MemoryStore::new());
        self.endpoints.0.lock().insert("http://gateway".into(), Endpoint { store: store.clone(), provider: None });
        let (tasks, mut starting) = mpsc::unbounded_channel::<futures::future::BoxFuture<'static, ()>>();
        self.simulation.spawn(async move {
            let mut running = futures::stream::FuturesUnordered::new();
            loop {
                tokio::select! {
                    biased;
                    task = starting.recv() => match task {
                        Some(task) => running.push(task),
                        None => return,
                    },
                    Some(()) = running.next() => {}
                }
            }
        });
        let parts = althing_gateway::Parts {
            client,
            clock: self.clock.clone(),
            content: Arc::new(SimContent { store, endpoints: self.endpoints.clone() }),
            deliveries: Arc::new(SimDeliveries { endpoints: self.endpoints.clone(), tasks }),
            receipts: Arc::new(MemoryReceipts::default()),
            packages: Arc::new(althing_gateway::NoPackages),
            engines: [(self.world.model, self.world.engine.clone())].into(),
        };
        let config = GatewayConfig {
            content_url: Some(ContentSource("http://gateway".into())),
            choice_seed: self.world.plan.seed,
            ..GatewayConfig::default()
        };
        Gateway::new(config, parts).await.expect("the coordinator answers")
    }
}
