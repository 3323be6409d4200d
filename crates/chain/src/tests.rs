//! A coordinator on real files, and networks of them.

use crate::{
    ChainConfig, CoordinatorSecret, MempoolConfig, NetworkPublic, Node, NodeConfig, Pacing,
    SubmitError, deal,
    testing::{Transfer, TransferMachine, number},
};
use futures::executor::block_on;
use rand::{SeedableRng as _, rngs::StdRng};
use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
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
    let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let config = NodeConfig {
        chain: chain_config(network, secret),
        directory: directory.to_path_buf(),
        listen: peers.get(&secret.public_key()).copied().unwrap_or(listen),
        peers: peers.clone(),
        threads: 2,
    };
    Node::start_tokio(config, Arc::new(TransferMachine)).unwrap()
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
            let id = handle
                .submit(Transfer::new(1, 2, 10, nonce).encode())
                .unwrap();
            receipts.push(block_on(handle.wait(&id, PATIENCE)).unwrap());
        }
        let forged = Transfer {
            forged: 1,
            ..Transfer::new(1, 2, 10, 5)
        };
        assert!(matches!(
            handle.submit(forged.encode()),
            Err(SubmitError::Invalid(_))
        ));
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
