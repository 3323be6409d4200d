//! Whole networks of coordinators in one deterministic simulation.
//!
//! The very code that runs on sockets runs here on simulated time, files and links. The same seed
//! gives the same run. A scenario gets a [`Simulation`] to start, stop and connect coordinators,
//! and may crash the whole world and go on from what was durable.

use crate::{
    engine::{CHANNELS, ChainConfig, Channels, RATE, message_bytes_max, start},
    keys::{CoordinatorSecret, NetworkPublic, PublicKey, deal},
    machine::Machine,
    mempool::MempoolConfig,
    node::{NodeHandle, Pacing},
};
use commonware_cryptography::Signer as _;
use commonware_p2p::simulated;
use commonware_runtime::{
    Clock as _, Handle, Spawner as _, Supervisor as _,
    deterministic::{self, Checkpoint, Context},
};
use commonware_utils::{NZUsize, Probability};
use futures::future::BoxFuture;
use rand::{SeedableRng as _, rngs::StdRng};
use std::{
    collections::BTreeMap,
    num::NonZeroUsize,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tokio::sync::oneshot;

/// Wall-clock time at which simulations start.
pub const START_TIME_MS: u64 = 1_800_000_000_000;
/// Builds without optimisation need a large stack.
const STACK_BYTES: usize = 64 << 20;

/// Quality of the links between coordinators.
#[derive(Clone, Copy, Debug)]
pub struct LinkQuality {
    /// Mean time that a message takes.
    pub latency_ms: u64,
    /// Standard deviation of it.
    pub jitter_ms: u64,
    /// Share of messages that arrive, from 0 to 1.
    pub delivered: f64,
}

impl Default for LinkQuality {
    fn default() -> Self {
        Self { latency_ms: 20, jitter_ms: 5, delivered: 1.0 }
    }
}

/// A simulated network.
#[derive(Clone, Debug)]
pub struct SimulationConfig {
    /// Determines everything.
    pub seed: u64,
    /// Number of coordinators.
    pub coordinators: u32,
    /// Links at the start.
    pub links: LinkQuality,
    /// Identity of the chain.
    pub chain_id: [u8; 32],
    /// When blocks are made.
    pub pacing: Pacing,
    /// Limits of the pools.
    pub mempool: MempoolConfig,
}

impl Default for SimulationConfig {
    fn default() -> Self {
        Self {
            seed: 0,
            coordinators: 1,
            links: LinkQuality::default(),
            chain_id: [7; 32],
            pacing: Pacing::default(),
            mempool: MempoolConfig::default(),
        }
    }
}

type Oracle = simulated::Oracle<PublicKey, Context>;

/// The simulation's time.
#[derive(Clone)]
pub struct SimulatedClock(Arc<Context>);

impl SimulatedClock {
    /// Milliseconds since the Unix epoch.
    pub fn now_ms(&self) -> u64 {
        crate::application::now_ms(&*self.0)
    }

    /// Lets simulated time pass.
    pub async fn sleep(&self, duration: Duration) {
        self.0.sleep(duration).await;
    }
}

/// The network inside a running simulation.
pub struct Simulation {
    context: Context,
    config: SimulationConfig,
    machine: Arc<dyn Machine>,
    network: NetworkPublic,
    secrets: Vec<CoordinatorSecret>,
    oracle: Oracle,
    running: BTreeMap<usize, Handle<()>>,
    starts: u64,
}

impl Simulation {
    fn new(context: Context, config: SimulationConfig, machine: Arc<dyn Machine>) -> BoxFuture<'static, Self> {
        Box::pin(Self::create(context, config, machine))
    }

    async fn create(context: Context, config: SimulationConfig, machine: Arc<dyn Machine>) -> Self {
        let (network, secrets) = deal(config.coordinators, StdRng::seed_from_u64(config.seed))
            .expect("the number of coordinators is allowed");
        let keys: Vec<PublicKey> = network.set().iter().cloned().collect();
        let (links, oracle) = simulated::Network::new_with_peers(
            context.child("network"),
            simulated::Config {
                max_size: message_bytes_max(config.coordinators),
                max_peers_per_set: NonZeroUsize::new(keys.len()).expect("not zero"),
                disconnect_on_block: true,
                tracked_peer_sets: NZUsize!(1),
            },
            keys,
        )
        .await;
        links.start();
        let quality = config.links;
        let simulation =
            Self { context, config, machine, network, secrets, oracle, running: BTreeMap::new(), starts: 0 };
        simulation.link_all(quality).await;
        simulation
    }

    /// Public keys of the network.
    pub fn network(&self) -> &NetworkPublic {
        &self.network
    }

    /// Milliseconds since the Unix epoch.
    pub fn now_ms(&self) -> u64 {
        crate::application::now_ms(&self.context)
    }

    /// Lets simulated time pass.
    pub async fn sleep(&self, duration: Duration) {
        self.context.sleep(duration).await;
    }

    /// Simulated time, for parts of a scenario that run on their own.
    pub fn clock(&self) -> SimulatedClock {
        SimulatedClock(Arc::new(self.context.child("clock")))
    }

    /// Runs a part of a scenario on a task of its own until the simulation ends.
    pub fn spawn(&self, part: impl Future<Output = ()> + Send + 'static) {
        self.context.child("part").spawn(move |_| part);
    }

    /// Changes all links.
    pub fn link_all(&self, quality: LinkQuality) -> BoxFuture<'_, ()> {
        Box::pin(self.link_each(quality))
    }

    async fn link_each(&self, quality: LinkQuality) {
        let keys = self.network.set();
        for from in keys.iter() {
            for to in keys.iter().filter(|to| *to != from) {
                let link = simulated::Link {
                    latency: Duration::from_millis(quality.latency_ms),
                    jitter: Duration::from_millis(quality.jitter_ms),
                    success_rate: Probability::try_from(quality.delivered).expect("a share is between 0 and 1"),
                };
                self.oracle.add_link(from.clone(), to.clone(), link).await.expect("the network runs");
            }
        }
    }

    /// Starts coordinator `index`, for the first time or again.
    ///
    /// Boxed, like every step into the consensus engine, so that the engine is compiled here once
    /// and not again in each crate with a scenario.
    pub fn start(&mut self, index: usize) -> BoxFuture<'_, NodeHandle> {
        Box::pin(self.start_coordinator(index))
    }

    async fn start_coordinator(&mut self, index: usize) -> NodeHandle {
        assert!(!self.running.contains_key(&index), "it is running");
        let secret = self.secrets[index].clone();
        let key = secret.identity().public_key();
        let control = self.oracle.control(key);
        let mut channels = Vec::new();
        for channel in CHANNELS {
            let registered = control.register(channel, RATE).await;
            channels.push(registered.expect("the network runs"));
        }
        let mut channels = channels.into_iter();
        let mut next = || channels.next().expect("there are as many as needed");
        let channels = Channels {
            votes: next(),
            certificates: next(),
            resolver: next(),
            backfill: next(),
            broadcast: next(),
            gossip: next(),
        };
        let config = ChainConfig {
            prefix: format!("coordinator-{index}"),
            network: self.network.clone(),
            secret,
            chain_id: self.config.chain_id,
            genesis_time_ms: START_TIME_MS,
            pacing: self.config.pacing,
            mempool: self.config.mempool,
        };
        self.starts += 1;
        let context =
            self.context.child("coordinator").with_attribute("index", index).with_attribute("start", self.starts);
        let (machine, peers) = (self.machine.clone(), self.oracle.manager());
        let (started, starting) = oneshot::channel();
        let task = context.spawn(move |context| async move {
            let node = start(context, config, machine, control, peers, channels).await;
            let (handle, running) = node.expect("a simulated coordinator starts");
            let _ = started.send(handle);
            let _ = running.await;
        });
        self.running.insert(index, task);
        starting.await.expect("a simulated coordinator starts")
    }

    /// Ends coordinator `index` at once, as if its process were killed.
    pub async fn crash(&mut self, index: usize) {
        let task = self.running.remove(&index).expect("it is running");
        task.abort();
        let _ = task.await;
    }
}

fn runner_config(seed: u64) -> deterministic::Config {
    let start: SystemTime = UNIX_EPOCH + Duration::from_millis(START_TIME_MS);
    deterministic::Config::default().with_seed(seed).with_start_time(start)
}

/// Runs `scenario` in a network in which no coordinator is started yet.
pub fn simulate<F, Fut, T>(config: SimulationConfig, machine: Arc<dyn Machine>, scenario: F) -> T
where
    F: FnOnce(Simulation) -> Fut + Send + 'static,
    Fut: Future<Output = T>,
    T: Send + 'static,
{
    on_large_stack(move || {
        let runner = deterministic::Runner::new(runner_config(config.seed));
        run(runner, config, machine, scenario).0
    })
}

/// Runs `before`, cuts the power everywhere so that only what is durable is left, and runs `after`
/// with what `before` returned.
pub fn simulate_power_loss<F, G, FFut, GFut, T, U>(
    config: SimulationConfig,
    machine: Arc<dyn Machine>,
    before: F,
    after: G,
) -> U
where
    F: FnOnce(Simulation) -> FFut + Send + 'static,
    G: FnOnce(Simulation, T) -> GFut + Send + 'static,
    FFut: Future<Output = T>,
    GFut: Future<Output = U>,
    U: Send + 'static,
{
    on_large_stack(move || {
        let runner = deterministic::Runner::new(runner_config(config.seed));
        let (kept, checkpoint) = run(runner, config.clone(), machine.clone(), before);
        let runner = deterministic::Runner::from(checkpoint);
        let after = move |simulation| after(simulation, kept);
        run(runner, config, machine, after).0
    })
}

fn run<F, Fut>(
    runner: deterministic::Runner,
    config: SimulationConfig,
    machine: Arc<dyn Machine>,
    scenario: F,
) -> (Fut::Output, Checkpoint)
where
    F: FnOnce(Simulation) -> Fut,
    Fut: Future,
{
    runner.start_and_recover(|context| async move {
        let simulation = Simulation::new(context, config, machine).await;
        scenario(simulation).await
    })
}

fn on_large_stack<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let thread = std::thread::Builder::new().stack_size(STACK_BYTES).spawn(work).expect("a thread can be started");
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}
