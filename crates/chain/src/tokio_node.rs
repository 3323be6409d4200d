//! A coordinator on real files and sockets.
//!
//! The consensus runtime gets threads of its own, so that nothing else in the process can hold it
//! up, and the process may use any runtime it likes. Connections between coordinators are
//! encrypted and authenticated by their keys.

use crate::{
    engine::{CHANNELS, ChainConfig, Channels, RATE, StartError, message_bytes_max, start},
    keys::{PublicKey, key_bytes},
    machine::Machine,
    node::NodeHandle,
};
use commonware_cryptography::{ChaCha20Poly1305, ed25519};
use commonware_p2p::{Address, AddressableManager as _, authenticated::lookup};
use commonware_runtime::{Quota, Runner as _, Supervisor as _, tokio as runtime};
use commonware_stream::{
    cups::{self, Cups},
    sake::{self, Sake},
};
use commonware_utils::{NZU32, NZUsize, TryCollect as _, ordered::Map};
use std::{
    collections::BTreeMap, net::SocketAddr, num::NonZeroUsize, path::PathBuf, sync::Arc, thread::JoinHandle,
    time::Duration,
};
use tokio::sync::oneshot;
use tracing::error;

/// Keeps connections of other applications and networks apart.
const NAMESPACE: &[u8] = b"althing-p2p-1";

/// The consensus engine is one large state machine, which builds without optimisation feel.
const STACK_BYTES: usize = 16 << 20;

/// What a coordinator on sockets needs to know.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// The chain and this coordinator's part in it.
    pub chain: ChainConfig,
    /// Directory for all files; created if it does not exist.
    pub directory: PathBuf,
    /// Where to listen for other coordinators.
    pub listen: SocketAddr,
    /// Where the other coordinators listen, by public key.
    pub peers: BTreeMap<[u8; 32], SocketAddr>,
    /// Threads of the consensus runtime.
    pub threads: usize,
}

/// A coordinator on sockets. It stops when this is dropped.
pub struct Node {
    handle: NodeHandle,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Node {
    /// Starts a coordinator and returns when it accepts requests. Blocks the thread meanwhile.
    pub fn start_tokio(config: NodeConfig, machine: Arc<dyn Machine>) -> Result<Self, StartError> {
        let (started, starting) = oneshot::channel();
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::Builder::new()
            .name("althing-chain".into())
            .stack_size(STACK_BYTES)
            .spawn(move || run(config, machine, started, stopped))
            .map_err(|cause| StartError::Runtime(cause.to_string()))?;
        // Waiting on the channel without its runtime works in any context.
        let handle = futures::executor::block_on(starting)
            .map_err(|_| StartError::Runtime("it ended while starting".into()))??;
        Ok(Self { handle, stop: Some(stop), thread: Some(thread) })
    }

    /// For talking to the coordinator.
    pub fn handle(&self) -> &NodeHandle {
        &self.handle
    }

    /// Stops the coordinator and waits until its files are closed.
    pub fn stop(mut self) {
        self.shut_down();
    }

    fn shut_down(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            error!("the coordinator had failed");
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.shut_down();
    }
}

type Started = oneshot::Sender<Result<NodeHandle, StartError>>;

/// The thread of a coordinator.
fn run(config: NodeConfig, machine: Arc<dyn Machine>, started: Started, stopped: oneshot::Receiver<()>) {
    let runtime_config = runtime::Config::new()
        .with_storage_directory(&config.directory)
        .with_worker_threads(config.threads.max(1))
        .with_thread_stack_size(STACK_BYTES);
    runtime::Runner::new(runtime_config).start(|context| async move {
        let running = match launch(context, config, machine).await {
            Ok((handle, running)) => {
                let _ = started.send(Ok(handle));
                running
            }
            Err(cause) => {
                let _ = started.send(Err(cause));
                return;
            }
        };
        tokio::select! {
            ended = running => error!(?ended, "consensus ended"),
            _ = stopped => {}
        }
    });
}

async fn launch(
    context: runtime::Context,
    config: NodeConfig,
    machine: Arc<dyn Machine>,
) -> Result<(NodeHandle, commonware_runtime::Handle<()>), StartError> {
    let participants = config.chain.network.set().clone();
    let handshake = Cups::<_, ChaCha20Poly1305>::new(
        Sake::<ed25519::PrivateKey> {
            signer: config.chain.secret.identity().clone(),
            synchrony_bound: Duration::from_secs(5),
            max_handshake_age: Duration::from_secs(10),
            version: sake::Version::V1,
        },
        cups::Version::V1,
    );
    let count = participants.len();
    let mut network_config = lookup::Config::local(
        handshake,
        NAMESPACE,
        config.listen,
        NonZeroUsize::new(count).expect("a network has coordinators"),
        message_bytes_max(count as u32),
        NZUsize!(1_024),
    );
    network_config.tracked_peer_sets = NZUsize!(1);
    network_config.dial_frequency = Duration::from_millis(200);
    network_config.allowed_handshake_rate_per_ip = Quota::per_second(NZU32!(256));
    let (mut network, mut oracle) = lookup::Network::new(context.child("network"), network_config);
    let me = config.chain.secret.public_key();
    let addresses: Map<PublicKey, Address> = participants
        .iter()
        .map(|key| {
            let bytes = key_bytes(key);
            let address = match config.peers.get(&bytes) {
                _ if bytes == me => config.listen,
                Some(address) => *address,
                None => return Err(StartError::NoAddress(hex::encode(bytes))),
            };
            Ok((key.clone(), Address::from(address)))
        })
        .collect::<Result<Vec<_>, _>>()?
        .into_iter()
        .try_collect()
        .expect("participants are distinct");
    let _ = oracle.track(0, addresses);
    let [votes, certificates, resolver, backfill, broadcast, gossip] =
        CHANNELS.map(|channel| network.register(channel, RATE));
    network.start();
    let channels = Channels { votes, certificates, resolver, backfill, broadcast, gossip };
    start(context.child("node"), config.chain, machine, oracle.clone(), oracle, channels).await
}
