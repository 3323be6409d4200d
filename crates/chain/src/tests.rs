//! A coordinator on real files, and networks of them.

use crate::{
    ChainConfig, CoordinatorSecret, MempoolConfig, NetworkPublic, Node, NodeConfig, NodeHandle, Pacing, ProofError,
    StateProof, SubmitError, deal,
    simulation::{LinkQuality, Simulation, SimulationConfig, simulate, simulate_power_loss},
    testing::{Transfer, TransferMachine, number},
};
use futures::executor::block_on;
use rand::{SeedableRng as _, rngs::StdRng};
use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::Path,
    sync::Arc,
    time::Duration,
};

const CHAIN_ID: [u8; 32] = [7; 32];
const PATIENCE: Duration = Duration::from_secs(20);

fn keys(n: u32) -> (NetworkPublic, Vec<CoordinatorSecret>) {
    deal(n, StdRng::seed_from_u64(7)).unwrap()
}

fn chain_config(network: &NetworkPublic, secret: &CoordinatorSecret) -> ChainConfig {
    ChainConfig {
        prefix: "chain".into(),
        network: network.clone(),
        secret: secret.clone(),
        chain_id: CHAIN_ID,
        genesis_time_ms: 1_700_000_000_000,
        pacing: Pacing::default(),
        mempool: MempoolConfig::default(),
    }
}

fn node(
    directory: &Path,
    network: &NetworkPublic,
    secret: &CoordinatorSecret,
    peers: &BTreeMap<[u8; 32], SocketAddr>,
) -> Node {
    node_of(TransferMachine::default(), directory, network, secret, peers)
}

fn node_of(
    machine: TransferMachine,
    directory: &Path,
    network: &NetworkPublic,
    secret: &CoordinatorSecret,
    peers: &BTreeMap<[u8; 32], SocketAddr>,
) -> Node {
    let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let config = NodeConfig {
        chain: chain_config(network, secret),
        directory: directory.to_path_buf(),
        listen: peers.get(&secret.public_key()).copied().unwrap_or(listen),
        peers: peers.clone(),
        threads: 2,
    };
    Node::start_tokio(config, Arc::new(machine)).unwrap()
}

#[test]
fn one_coordinator_keeps_state_and_history_over_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let (network, secrets) = keys(1);
    let peers = BTreeMap::new();
    let mut receipts = Vec::new();
    let before = {
        let node = node(directory.path(), &network, &secrets[0], &peers);
        let handle = node.handle();
        block_on(handle.reached(1)).unwrap();
        for nonce in 0..5 {
            let id = handle.submit(Transfer::new(1, 2, 10, nonce).encode()).unwrap();
            receipts.push(block_on(handle.wait(&id, PATIENCE)).unwrap());
        }
        let forged = Transfer { forged: 1, ..Transfer::new(1, 2, 10, 5) };
        assert!(matches!(handle.submit(forged.encode()), Err(SubmitError::Invalid(_))));
        let status = handle.status().unwrap();
        node.stop();
        status
    };
    assert!(receipts.iter().all(|receipt| receipt.receipt == b"ok"));
    let node = node(directory.path(), &network, &secrets[0], &peers);
    let handle = node.handle();
    let height = block_on(handle.reached(before.tip.height + 1)).unwrap();
    assert!(height > before.tip.height);
    for receipt in &receipts {
        let again = block_on(handle.receipt(&receipt.id)).unwrap();
        assert_eq!(again.as_ref(), Some(receipt));
    }
    let block = block_on(handle.block(before.tip.height)).unwrap().unwrap();
    assert_eq!(block.header, before.tip);
    handle.read(|state, _| {
        assert_eq!(number(state, &Transfer::balance_key(&[1; 53])), 950);
        assert_eq!(number(state, &Transfer::balance_key(&[2; 53])), 1_050);
    });
    let mut events = handle.events(0, 0);
    for receipt in &receipts {
        let event = block_on(events.next()).unwrap();
        assert_eq!(event.bytes, format!("{}:10", receipt.height).into_bytes());
    }
}

/// G-2: a program that cannot run a block stops before it with all that came before, however often it is
/// started; one that can goes on from there.
#[test]
fn a_coordinator_stops_before_a_block_that_it_cannot_run_and_a_newer_program_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let (network, secrets) = keys(1);
    let peers = BTreeMap::new();
    let start =
        |stops_before| node_of(TransferMachine { stops_before }, directory.path(), &network, &secrets[0], &peers);
    let mut node = start(Some(4));
    let id = node.handle().submit(Transfer::new(1, 2, 10, 0).encode()).unwrap();
    let receipt = block_on(node.handle().wait(&id, PATIENCE)).unwrap();
    for again in [true, false] {
        let handle = node.handle();
        assert_eq!(block_on(handle.halted()), "height 4 is for another program");
        assert_eq!(handle.status().unwrap().tip.height, 3);
        let refused = handle.submit(Transfer::new(1, 2, 10, 1).encode());
        assert!(matches!(refused, Err(SubmitError::Halted(_))), "{refused:?}");
        node.stop();
        node = start(again.then_some(4));
    }
    assert!(block_on(node.handle().reached(6)).unwrap() >= 6);
    assert_eq!(block_on(node.handle().receipt(&id)).unwrap(), Some(receipt));
}

/// Addresses on this machine that are free now.
fn addresses(network: &NetworkPublic) -> BTreeMap<[u8; 32], SocketAddr> {
    let sockets: Vec<_> = network
        .participants()
        .into_iter()
        .map(|key| (key, TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap()))
        .collect();
    sockets.iter().map(|(key, socket)| (*key, socket.local_addr().unwrap())).collect()
}

#[test]
fn four_coordinators_on_sockets_agree_and_one_that_was_away_catches_up() {
    let directory = tempfile::tempdir().unwrap();
    let (network, secrets) = keys(4);
    let peers = addresses(&network);
    let launch = |index: usize| {
        let path = directory.path().join(index.to_string());
        node(&path, &network, &secrets[index], &peers)
    };
    let mut nodes: Vec<Node> = (0..4).map(launch).collect();
    for node in &nodes {
        block_on(node.handle().reached(1)).unwrap();
    }
    // Every coordinator takes transactions of its own client.
    let ids: Vec<_> = (0..4)
        .flat_map(|index| {
            let from = index as u8 + 1;
            let submit = |nonce| {
                let transfer = Transfer::new(from, 9, 1, nonce).encode();
                nodes[index].handle().submit(transfer).unwrap()
            };
            (0..10).map(submit).collect::<Vec<_>>()
        })
        .collect();
    for id in &ids {
        let receipt = block_on(nodes[3].handle().wait(id, PATIENCE)).unwrap();
        assert_eq!(receipt.receipt, b"ok");
    }
    nodes.remove(0).stop();
    let id = nodes[0].handle().submit(Transfer::new(2, 9, 1, 10).encode());
    let receipt = block_on(nodes[1].handle().wait(&id.unwrap(), PATIENCE)).unwrap();
    let height = receipt.height + 3;
    nodes.insert(0, launch(0));
    let header = |node: &Node| {
        block_on(node.handle().reached(height)).unwrap();
        block_on(node.handle().block(height)).unwrap().unwrap().header
    };
    let headers: Vec<_> = nodes.iter().map(header).collect();
    assert!(headers.iter().all(|header| *header == headers[0]));
    for node in &nodes {
        let read = |state: &dyn crate::StateRead, _: &_| number(state, &Transfer::balance_key(&[9; 53]));
        assert_eq!(node.handle().read(read), Some(1_041));
    }
    let status = nodes[1].handle().status().unwrap();
    assert_eq!(status.peers.len(), 3);
}

#[test]
fn proofs_verify_offline_and_no_byte_of_them_can_change() {
    simulate(SimulationConfig::default(), Arc::new(TransferMachine::default()), |mut simulation| async move {
        let node = simulation.start(0).await;
        let id = node.submit(Transfer::new(1, 2, 10, 0).encode()).unwrap();
        let receipt = node.wait(&id, PATIENCE).await.unwrap();
        let network = simulation.network();
        for (key, value) in
            [(Transfer::balance_key(&[1; 53]), Some(990u64.to_le_bytes().to_vec())), (b"nobody".to_vec(), None)]
        {
            let proof = node.prove(&key).await.unwrap();
            let header = proof.verify(network, &CHAIN_ID).unwrap();
            assert!(header.height >= receipt.height);
            assert_eq!(proof.value, value);
            assert!(matches!(proof.verify(network, &[8; 32]), Err(ProofError::ForeignChain)));
            let (another, _) = keys(2);
            assert!(matches!(proof.verify(&another, &CHAIN_ID), Err(ProofError::Signature)));
            let bytes = proof.to_bytes();
            for at in 0..bytes.len() {
                let mut changed = bytes.clone();
                changed[at] ^= 1;
                let result =
                    StateProof::from_bytes(&changed).and_then(|proof| proof.verify(network, &CHAIN_ID).cloned());
                assert!(result.is_err(), "byte {at} of {} is not bound", bytes.len());
            }
        }
    });
}

#[test]
fn one_simulated_coordinator_loses_nothing_confirmed_when_the_power_is_cut() {
    simulate_power_loss(
        SimulationConfig::default(),
        Arc::new(TransferMachine::default()),
        |mut simulation| async move {
            let node = simulation.start(0).await;
            let mut receipts = Vec::new();
            for nonce in 0..20 {
                let id = node.submit(Transfer::new(1, 2, 10, nonce).encode()).unwrap();
                receipts.push(node.wait(&id, PATIENCE).await.unwrap());
            }
            receipts
        },
        |mut simulation, receipts| async move {
            let node = simulation.start(0).await;
            let last = receipts.last().unwrap().height;
            node.reached(last + 1).await.unwrap();
            for receipt in &receipts {
                let again = node.receipt(&receipt.id).await.unwrap();
                assert_eq!(again.as_ref(), Some(receipt));
            }
            let mut events = node.events(0, 0);
            for receipt in &receipts {
                let expected = format!("{}:10", receipt.height).into_bytes();
                assert_eq!(events.next().await.unwrap().bytes, expected);
            }
            let key = Transfer::balance_key(&[2; 53]);
            assert_eq!(node.read(|state, _| number(state, &key)), Some(1_200));
        },
    );
}

/// Waits until all `nodes` have finalized `height`, and returns its state root.
async fn agreed_root(nodes: &[NodeHandle], height: u64) -> [u8; 32] {
    let mut roots = Vec::new();
    for node in nodes {
        node.reached(height).await.unwrap();
        let block = node.block(height).await.unwrap().unwrap();
        roots.push(block.header.state_root);
    }
    assert!(roots.iter().all(|root| *root == roots[0]));
    roots[0]
}

async fn lossy_network_with_a_crash(mut simulation: Simulation) -> [u8; 32] {
    let mut nodes = Vec::new();
    for index in 0..4 {
        nodes.push(simulation.start(index).await);
    }
    nodes[0].reached(3).await.unwrap();
    simulation.crash(3).await;
    nodes.pop();
    let mut last = 0;
    for nonce in 0..10 {
        let ids: Vec<_> = (0..3)
            .map(|index| {
                let transfer = Transfer::new(index as u8 + 1, 9, 1, nonce);
                nodes[index].submit(transfer.encode()).unwrap()
            })
            .collect();
        for id in &ids {
            let receipt = nodes[0].wait(id, Duration::from_secs(120)).await.unwrap();
            last = last.max(receipt.height);
        }
    }
    agreed_root(&nodes, last).await;
    nodes.push(simulation.start(3).await);
    let root = agreed_root(&nodes, last + 3).await;
    let key = Transfer::balance_key(&[9; 53]);
    for node in &nodes {
        assert_eq!(node.read(|state, _| number(state, &key)), Some(1_030));
    }
    root
}

#[test]
fn four_simulated_coordinators_with_lossy_links_and_a_crash_agree() {
    let run = |seed| {
        let config = SimulationConfig {
            seed,
            coordinators: 4,
            links: LinkQuality { latency_ms: 40, jitter_ms: 20, delivered: 0.9 },
            ..SimulationConfig::default()
        };
        simulate(config, Arc::new(TransferMachine::default()), lossy_network_with_a_crash)
    };
    assert_eq!(run(1), run(1), "the same seed gives the same run");
    assert_ne!(run(1), run(2), "randomness in the state depends on the seed");
}

/// G-2: all coordinators of a network have the last block before the one that none of them can run.
#[test]
fn a_network_stops_before_a_block_that_nobody_can_run() {
    let config = SimulationConfig {
        seed: 3,
        coordinators: 4,
        links: LinkQuality { latency_ms: 40, jitter_ms: 20, delivered: 0.9 },
        ..SimulationConfig::default()
    };
    let machine = TransferMachine { stops_before: Some(6) };
    simulate(config, Arc::new(machine), |mut simulation| async move {
        let mut nodes = Vec::new();
        for index in 0..4 {
            nodes.push(simulation.start(index).await);
        }
        for node in &nodes {
            assert_eq!(node.halted().await, "height 6 is for another program");
        }
        agreed_root(&nodes, 5).await;
        simulation.sleep(Duration::from_secs(30)).await;
        assert!(nodes.iter().all(|node| node.status().unwrap().tip.height == 5));
    });
}
