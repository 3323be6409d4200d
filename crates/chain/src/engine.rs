//! How the parts of a coordinator are put together.
//!
//! Consensus (simplex) agrees on one block after the other. The marshal keeps finalized blocks and
//! certificates, fetches missing ones from peers, and delivers them in order. The stateful actor
//! holds the database and calls the application. Beside them run the history, transaction gossip
//! and a task that answers the node's handle. [`start`] is generic over the runtime and the
//! network only, so that the very same code runs on sockets and in a deterministic simulation.

use crate::{
    application::{Chain, now_ms},
    block::{Block, Digest},
    gossip,
    history::History,
    keys::{CoordinatorSecret, KeyError, NetworkPublic, PublicKey, Scheme},
    live_state::LiveState,
    machine::Machine,
    mempool::{Mempool, MempoolConfig},
    node::{NodeHandle, Pacing},
    pacing::Paced,
    service::Service,
    shared::{SeedCollector, Shared},
    store::{self, Database, Databases, NoPeers},
};
use commonware_broadcast::buffered;
use commonware_consensus::{
    Reporters,
    marshal::{
        self,
        core::Actor as Marshal,
        resolver::p2p as marshal_resolver,
        standard::{Deferred, Standard},
    },
    simplex::{
        self,
        config::{ForwardPolicy, SkipPolicy},
        elector::{Random, RandomVersion},
    },
    types::{Epoch, FixedEpocher, ViewDelta},
};
use commonware_cryptography::{
    Digested, Digestible as _, Hasher as _, Sha256, Signer as _,
    certificate::{ConstantProvider, Verifier as _},
};
use commonware_glue::stateful::{
    Config as StatefulConfig, Stateful, SyncPlan,
    db::{ManagedDb as _, SyncEngineConfig},
};
use commonware_p2p::{Blocker, Provider, Receiver, Sender, max_message_size};
use commonware_parallel::Sequential;
use commonware_runtime::{Clock, Handle, Metrics, Quota, Spawner, Storage, buffer::paged::CacheRef};
use commonware_storage::{archive::prunable, translator::TwoCap};
use commonware_utils::{NZDuration, NZU16, NZU32, NZU64, NZUsize};
use futures::StreamExt as _;
use rand_core::CryptoRng;
use std::{collections::BTreeMap, num::NonZeroUsize, sync::Arc, time::Duration};
use tokio::sync::mpsc;
use tracing::info;

/// Messages a peer may send on a channel per second. Mailboxes are allocated to this size.
pub(crate) const RATE: Quota = Quota::per_second(NZU32!(1_024));
const MAILBOX: NonZeroUsize = NZUsize!(1_024);
const BUFFER: NonZeroUsize = NZUsize!(1 << 20);
const REQUESTS_MAX: usize = 1_024;

/// The channels that a coordinator uses, in this order, each with the rate [`RATE`].
pub(crate) const CHANNELS: [u64; 6] = [0, 1, 2, 3, 4, 5];

/// What a coordinator needs to know, whatever it runs on.
#[derive(Clone, Debug)]
pub struct ChainConfig {
    /// Start of the names of all files.
    pub prefix: String,
    /// The network.
    pub network: NetworkPublic,
    /// This coordinator.
    pub secret: CoordinatorSecret,
    /// Identity of the chain, part of every header.
    pub chain_id: [u8; 32],
    /// Time of the genesis block.
    pub genesis_time_ms: u64,
    /// When blocks are made.
    pub pacing: Pacing,
    /// Limits of the pool.
    pub mempool: MempoolConfig,
}

/// Why a coordinator could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error("opening the files failed: {0}")]
    Storage(String),
    #[error("the idle interval of {idle_ms} ms leaves no time before the leader timeout of {timeout_ms} ms")]
    Pacing { idle_ms: u64, timeout_ms: u64 },
    #[error("there is no address for coordinator {0}")]
    NoAddress(String),
    #[error("the runtime failed: {0}")]
    Runtime(String),
}

/// Connections to the other coordinators, one for each purpose.
pub struct Channels<Tx, Rx> {
    pub votes: (Tx, Rx),
    pub certificates: (Tx, Rx),
    pub resolver: (Tx, Rx),
    pub backfill: (Tx, Rx),
    pub broadcast: (Tx, Rx),
    pub gossip: (Tx, Rx),
}

/// Largest message on any channel in a network of `n` coordinators.
pub(crate) fn message_bytes_max(n: u32) -> u32 {
    max_message_size(&[
        simplex::max_payload_size::<Scheme, Digest>(n),
        marshal::max_payload_size::<Standard<Block>, Scheme>(n, &()),
        gossip::MESSAGE_BYTES_MAX,
    ])
}

/// The root that names the state before the first block, which is not in the database yet.
fn genesis_root(state: &BTreeMap<Vec<u8>, Vec<u8>>) -> [u8; 32] {
    let bytes = borsh::to_vec(state).expect("writing to memory cannot fail");
    Sha256::hash(&[b"althing-genesis-state-1", &bytes]).0
}

fn archive<C>(prefix: &str, name: &str, page_cache: CacheRef, codec_config: C) -> prunable::Config<TwoCap, C> {
    prunable::Config {
        translator: TwoCap,
        metadata_partition: format!("{prefix}-{name}-meta"),
        key_partition: format!("{prefix}-{name}-key"),
        key_page_cache: page_cache,
        value_partition: format!("{prefix}-{name}-value"),
        compression: None,
        codec_config,
        items_per_section: NZU64!(1 << 14),
        key_write_buffer: NZUsize!(64 << 10),
        value_write_buffer: BUFFER,
        replay_buffer: BUFFER,
    }
}

/// Starts a coordinator and returns when its state is loaded. It runs until `context` ends, or until the returned task does, which it
/// never should.
pub async fn start<E, B, P, Tx, Rx>(
    context: E,
    config: ChainConfig,
    machine: Arc<dyn Machine>,
    blocker: B,
    peers: P,
    channels: Channels<Tx, Rx>,
) -> Result<(NodeHandle, Handle<()>), StartError>
where
    E: Clock + CryptoRng + Spawner + Storage + Metrics,
    B: Blocker<PublicKey = PublicKey>,
    P: Provider<PublicKey = PublicKey>,
    Tx: Sender<PublicKey = PublicKey>,
    Rx: Receiver<PublicKey = PublicKey>,
{
    let Pacing { block_interval_ms_idle: idle_ms, leader_timeout_ms: timeout_ms, .. } = config.pacing;
    if idle_ms.saturating_mul(5) > timeout_ms.saturating_mul(4) {
        return Err(StartError::Pacing { idle_ms, timeout_ms });
    }
    let scheme = config.network.signer(&config.secret)?;
    let me = config.secret.identity().public_key();
    let prefix = config.prefix.as_str();
    let page_cache = CacheRef::new(NZU16!(4_092), NZUsize!(2_048));

    let genesis_state = machine.genesis();
    let initial = Database::<E>::initial_sync_target();
    let genesis = Block::genesis(
        config.chain_id,
        config.genesis_time_ms,
        config.network.set().iter().next().unwrap_or(&me),
        genesis_root(&genesis_state),
        initial.root.0,
    );

    let history = History::open(context.child("history"), prefix, page_cache.clone())
        .await
        .map_err(|cause| StartError::Storage(cause.to_string()))?;
    let (outgoing, outgoing_txs) = mpsc::channel(gossip::OUTGOING_MAX);
    let clock = context.child("clock");
    let shared = Arc::new(Shared::new(
        machine,
        config.chain_id,
        config.pacing,
        config.network.certificate_verifier(),
        history,
        Mempool::new(config.mempool),
        outgoing,
        Box::new(move || now_ms(&clock)),
    ));

    // Finalized blocks and their certificates.
    let resolver = marshal_resolver::init(
        context.child("backfill"),
        marshal_resolver::Config {
            public_key: me.clone(),
            peer_provider: peers.clone(),
            blocker: blocker.clone(),
            mailbox_size: MAILBOX,
            fetch_timeout: NZDuration!(Duration::from_secs(2)),
            fetch_retry_delay: Duration::from_millis(100),
            priority_requests: false,
            priority_responses: false,
        },
        channels.backfill,
    );
    let (broadcast, buffer) = buffered::Engine::new(
        context.child("broadcast"),
        buffered::Config {
            public_key: me,
            mailbox_size: MAILBOX,
            deque_size: 16,
            priority: false,
            codec_config: (),
            peer_provider: peers,
            strategy: Sequential,
        },
    );
    broadcast.start(channels.broadcast);
    let storage = |cause: commonware_storage::archive::Error| StartError::Storage(cause.to_string());
    let certificates = prunable::Archive::init(context.child("certificates"), {
        let _: () = Scheme::certificate_codec_config_unbounded();
        archive(prefix, "certificates", page_cache.clone(), ())
    })
    .await
    .map_err(storage)?;
    let blocks = prunable::Archive::init(context.child("blocks"), archive(prefix, "blocks", page_cache.clone(), ()))
        .await
        .map_err(storage)?;
    let plan = SyncPlan::init(context.child("plan"), format!("{prefix}-plan")).await;
    let epocher = FixedEpocher::new(NZU64!(u64::MAX));
    let genesis_digested = Digested::compute(genesis.clone(), &Sequential).await;
    let (marshal, marshal_mailbox, floor) = Marshal::<_, Standard<Block>, _, _, _, _, _>::init(
        context.child("marshal"),
        certificates,
        blocks,
        marshal::Config {
            provider: ConstantProvider::<Scheme, Epoch>::new(scheme.clone()),
            epocher: epocher.clone(),
            start: plan.marshal_start(genesis_digested),
            partition_prefix: format!("{prefix}-marshal"),
            mailbox_size: MAILBOX,
            view_retention: ViewDelta::new(256),
            prunable_items_per_section: NZU64!(64),
            page_cache: page_cache.clone(),
            replay_buffer: BUFFER,
            key_write_buffer: NZUsize!(64 << 10),
            value_write_buffer: BUFFER,
            block_codec_config: (),
            max_repair: NZUsize!(32),
            max_pending_acks: NZUsize!(16),
            strategy: Sequential,
        },
    )
    .await;

    // The database and the application.
    let (stateful, stateful_mailbox) = Stateful::new(
        context.child("stateful"),
        StatefulConfig {
            application: Chain::new(shared.clone(), genesis.clone()),
            db_config: store::config(prefix, page_cache.clone()),
            provider: (),
            marshal: (marshal_mailbox.clone(), floor),
            mailbox_size: MAILBOX,
            plan,
            resolvers: NoPeers,
            sync_config: SyncEngineConfig {
                fetch_batch_size: NZU64!(16),
                apply_batch_size: NZU64!(64),
                max_outstanding_requests: NZUsize!(8),
            },
            prune_config: None,
            strategy: Sequential,
        },
    );
    let deferred =
        Deferred::new(context.child("application"), stateful_mailbox.clone(), marshal_mailbox.clone(), epocher);
    // Asked for before anything runs, so that it comes first in the mailbox: execution waits for the
    // state to be loaded, and a block that came before would wait for ever.
    let mut databases = Box::pin({
        let mailbox = stateful_mailbox.clone();
        async move { mailbox.subscribe_databases().await }
    });
    assert!(futures::poll!(&mut databases).is_pending(), "nothing runs yet");
    marshal.start(stateful_mailbox.clone(), buffer, resolver);
    stateful.start();

    // What is not consensus.
    let (requests, service_requests) = mpsc::channel(REQUESTS_MAX);
    let service = Service { shared: shared.clone(), marshal: marshal_mailbox, genesis: genesis.clone() };
    context.child("service").spawn({
        let genesis = genesis.clone();
        move |context| async move {
            let databases = load(databases.await, &service, genesis_state, &genesis).await;
            service.run(context, databases, service_requests).await;
        }
    });
    let (gossip_sender, gossip_receiver) = channels.gossip;
    context.child("gossip_send").spawn({
        let shared = shared.clone();
        move |context| gossip::send(context, shared, outgoing_txs, gossip_sender)
    });
    context.child("gossip_receive").spawn({
        let shared = shared.clone();
        move |_| gossip::receive(shared, gossip_receiver)
    });

    // Consensus.
    let paced = Paced::new(context.child("pacing"), shared.clone(), deferred.clone());
    let leader_timeout = Duration::from_millis(config.pacing.leader_timeout_ms);
    let consensus = simplex::Engine::new(
        context,
        simplex::Config {
            scheme,
            elector: Random::<Sha256>::new(RandomVersion::V1),
            blocker,
            automaton: paced,
            relay: deferred.clone(),
            reporter: Reporters::from((deferred, SeedCollector(shared.clone()))),
            strategy: Sequential,
            partition: format!("{prefix}-votes"),
            mailbox_size: MAILBOX,
            epoch: Epoch::zero(),
            floor: simplex::config::Floor::Genesis(genesis.digest()),
            replay_buffer: BUFFER,
            write_buffer: BUFFER,
            page_cache,
            leader_timeout,
            certification_timeout: leader_timeout * 2,
            timeout_retry: leader_timeout * 2,
            view_retention: ViewDelta::new(256),
            skip: SkipPolicy::Enabled { timeout: leader_timeout * 5, budget: simplex::SkipBudget::Participants },
            fetch_timeout: NZDuration!(Duration::from_secs(1)),
            fetch_retry_delay: Duration::from_millis(200),
            forward: ForwardPolicy::Disabled,
            track_historical_votes: false,
        },
    );
    let running = consensus.start(channels.votes, channels.certificates, channels.resolver);
    shared.loaded().await;
    Ok((NodeHandle::new(shared, requests), running))
}

/// Reads the state back from the database once that is open.
///
/// Nothing can change the database meanwhile: a block is executed before it is applied, and
/// execution waits until this is done.
async fn load<E>(
    databases: Databases<E>,
    service: &Service,
    genesis_state: BTreeMap<Vec<u8>, Vec<u8>>,
    genesis: &Block,
) -> Databases<E>
where
    E: Clock + Spawner + Storage + Metrics,
{
    let database = databases.read().await;
    let (state, root) = if database.ops_root().0 == genesis.header.ops_root {
        (genesis_state, genesis.header.state_root)
    } else {
        let mut entries = std::pin::pin!(database.stream_range(..));
        let mut state = BTreeMap::new();
        while let Some(entry) = entries.next().await {
            let (_, entry) = entry.expect("the database can be read");
            state.insert(entry.key, entry.value);
        }
        (state, database.root().0)
    };
    let tip = service.header_of(&root).await.expect("the state is that of a finalized block");
    info!(height = tip.height, keys = state.len(), "state loaded");
    drop(database);
    service.shared.load(LiveState::new(root, state), tip);
    databases
}
