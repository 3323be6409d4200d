//! `althing bench`: figures of this machine.

use crate::{
    home::CoordinatorHome,
    output::{self, spinner},
    roles::{self, bind},
};
use althing_chain::deal;
use althing_ledger::{BlockContext, execute_block, genesis_state};
use althing_sdk::{LedgerClient, Sender, SessionKeyPair, SessionSigner, Signer as _, SystemClock, WalletSigner};
use althing_types::{
    Amount, Call, ChainId, Event, Genesis, Hash, Input, Lane, ModelId, OrderId, OrderState, SignedTx, Verification,
    call::{OrderSubmit, Scope},
    commitment::commitment_hash,
    encode,
    genesis::{GenesisAccount, GenesisModel, GenesisSessionKey},
    profile,
    tx::verify_all,
};
use anyhow::{Context as _, Result, ensure};
use serde::Serialize;
use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

const CLIENTS: usize = 64;
const PROVIDERS: usize = 16;
/// Orders that are under way at a time: each provider's bond carries so many claims.
const WAVE: usize = 960;
/// Blocks without transactions that draw a wave's seeds or pay it out.
const DUE_BLOCKS: usize = 3 + WAVE / 256;
const NEVER_MS: u64 = 253_402_300_799_000;
const CHALLENGE_WINDOW_MS: u64 = 1_000;

/// The figures.
#[derive(Debug, Serialize)]
struct Figures {
    orders: usize,
    transactions_per_order: usize,
    ledger_orders_per_second: f64,
    coordinator_orders_per_second: f64,
    /// How much of the ledger's speed one coordinator reaches.
    coordinator_share: f64,
}

/// Accounts with keys, and a genesis that knows them.
struct World {
    genesis: Genesis,
    chain: ChainId,
    model: ModelId,
    clients: Vec<SessionSigner>,
    providers: Vec<SessionSigner>,
}

impl World {
    fn new(coordinators: String, time_ms: u64) -> Result<Self> {
        let mut params = profile::parse(profile::DEFAULT, true)?.params;
        params.challenge_window_ms = CHALLENGE_WINDOW_MS;
        let mut accounts = Vec::new();
        let mut signers = |count: usize, scope, bond: u64| -> Vec<SessionSigner> {
            let signer = |_| {
                let (wallet, key) = (WalletSigner::random(), SessionKeyPair::random());
                accounts.push(GenesisAccount {
                    address: wallet.account(),
                    free: Amount::tokens(1_000_000),
                    bond: Amount::tokens(bond),
                    session_keys: vec![GenesisSessionKey {
                        key: key.public(),
                        scope,
                        spend_limit: Amount::tokens(1_000_000),
                        expires_at_ms: NEVER_MS,
                    }],
                    assets: Vec::new(),
                });
                SessionSigner { account: wallet.account(), key }
            };
            (0..count).map(signer).collect()
        };
        let clients = signers(CLIENTS, Scope::Client, 0);
        let providers = signers(PROVIDERS, Scope::Provider, 1_000_000_000);
        let owner = clients[0].account;
        let model = GenesisModel {
            name: "bench".into(),
            owner,
            package: althing_content::file_cid(b"bench"),
            fee: Amount::tokens(1),
            payee: owner,
            verification: Verification::Exact,
            reward: None,
        };
        let id = model.id();
        let genesis = Genesis {
            network: "bench".into(),
            time_ms,
            coordinators,
            accounts,
            models: vec![model],
            voters: Vec::new(),
            coordinator_accounts: Vec::new(),
            params,
        };
        Ok(Self { chain: genesis.chain_id(), genesis, model: id, clients, providers })
    }

    fn submit(&self, deadline_ms: u64, number: usize) -> Call {
        Call::OrderSubmit(OrderSubmit {
            model: self.model,
            input: Input::Inline { bytes: number.to_be_bytes().to_vec() },
            fee: Amount::tokens(2),
            max_total: Amount::tokens(2),
            lane: Lane::Open,
            deadline_ms,
            seed: None,
            agreements: 0,
            parent: None,
            budget: None,
        })
    }

    fn commit(&self, order: OrderId, provider: &SessionSigner) -> Call {
        let (output, size) = answer(&order);
        let commitment = commitment_hash(&self.chain, &order, &provider.account, &output, size, &Hash(order.0));
        Call::OrderCommit { order, commitment }
    }
}

fn answer(order: &OrderId) -> (althing_content::Cid, u64) {
    (althing_content::file_cid(order.as_bytes()), 32)
}

fn reveal(order: OrderId) -> Call {
    let (output, output_size) = answer(&order);
    Call::OrderReveal { order, output, output_size, salt: Hash(order.0) }
}

/// Full order cycles a second.
///
/// # Errors
/// If a cycle does not complete: figures of failures are worth nothing.
pub async fn ledger(orders: u32, json: bool) -> Result<()> {
    let orders = (orders as usize).max(1);
    let bar = spinner("the ledger alone");
    let alone = tokio::task::spawn_blocking(move || ledger_alone(orders)).await??;
    bar.set_message("one coordinator with durable commits");
    let coordinator = one_coordinator(orders).await?;
    bar.finish_and_clear();
    let figures = Figures {
        orders,
        transactions_per_order: 3,
        ledger_orders_per_second: alone,
        coordinator_orders_per_second: coordinator,
        coordinator_share: coordinator / alone,
    };
    if json {
        return output::json(&figures);
    }
    println!("ledger alone     {alone:>10.0} orders/s");
    println!("one coordinator  {coordinator:>10.0} orders/s  ({:.2} of the ledger's)", figures.coordinator_share);
    eprintln!("an order: submit, commit, reveal, each signed by a session key; then the claim when its window ends");
    Ok(())
}

/// Blocks of the ledger on a state in memory, signatures checked in batches.
struct Blocks<'a> {
    world: &'a World,
    state: BTreeMap<Vec<u8>, Vec<u8>>,
    height: u64,
    time_ms: u64,
}

impl Blocks<'_> {
    fn block(&mut self, txs: &[Vec<u8>]) -> Result<Vec<Event>> {
        self.height += 1;
        self.time_ms += 100;
        let txs: Vec<_> = txs.iter().map(|tx| SignedTx::decode(tx)).collect::<Result<_, _>>()?;
        verify_all(&txs, &self.world.chain, rand::rng()).map_err(|(_, error)| error)?;
        let context = BlockContext {
            chain: self.world.chain,
            height: self.height,
            time_ms: self.time_ms,
            view: self.height,
            beacon: Hash::of(&[&self.height.to_be_bytes()]),
            beacon_view: self.height - 1,
        };
        let output = execute_block(&self.state, &context, &txs);
        for receipt in &output.receipts {
            ensure!(receipt.error.is_none(), "a transaction of the benchmark failed: {:?}", receipt.error);
        }
        let events = output.events;
        for (key, value) in output.writes {
            match value {
                Some(value) => self.state.insert(key, value),
                None => self.state.remove(&key),
            };
        }
        Ok(events)
    }
}

fn ledger_alone(orders: usize) -> Result<f64> {
    let world = World::new(String::new(), 1_000)?;
    let mut blocks = Blocks { state: genesis_state(&world.genesis)?, world: &world, height: 0, time_ms: 1_000 };
    let mut nonces = vec![0u64; CLIENTS + PROVIDERS];
    let mut sign = |signer: usize, call| {
        let who = if signer < CLIENTS { &world.clients[signer] } else { &world.providers[signer - CLIENTS] };
        let tx = who.sign(&world.chain, call, nonces[signer], NEVER_MS);
        nonces[signer] += 1;
        encode(&tx)
    };
    let mut spent = Duration::ZERO;
    let mut claimed = 0;
    let mut left = orders;
    while left > 0 {
        let wave = left.min(WAVE);
        left -= wave;
        let deadline_ms = blocks.time_ms + 60_000;
        let txs: Vec<_> = (0..wave).map(|i| sign(i % CLIENTS, world.submit(deadline_ms, i))).collect();
        let begun = Instant::now();
        let events = blocks.block(&txs)?;
        // Beacons and due work come with later blocks, a bounded number of items each.
        for _ in 0..DUE_BLOCKS {
            blocks.block(&[])?;
        }
        spent += begun.elapsed();
        let ids: Vec<OrderId> = submitted(&events);
        ensure!(ids.len() == wave, "{} of {wave} orders were submitted", ids.len());
        let txs: Vec<_> = (0..wave)
            .map(|i| sign(CLIENTS + i % PROVIDERS, world.commit(ids[i], &world.providers[i % PROVIDERS])))
            .collect();
        let reveals: Vec<_> = (0..wave).map(|i| sign(CLIENTS + i % PROVIDERS, reveal(ids[i]))).collect();
        let begun = Instant::now();
        blocks.block(&txs)?;
        blocks.block(&reveals)?;
        blocks.time_ms += CHALLENGE_WINDOW_MS;
        for _ in 0..DUE_BLOCKS {
            claimed += blocks.block(&[])?.iter().filter(|event| matches!(event, Event::OrderClaimed { .. })).count();
        }
        spent += begun.elapsed();
    }
    ensure!(claimed == orders, "{claimed} of {orders} orders were claimed");
    #[allow(clippy::cast_precision_loss)] // a figure for people
    Ok(orders as f64 / spent.as_secs_f64())
}

fn submitted(events: &[Event]) -> Vec<OrderId> {
    let id = |event: &Event| match event {
        Event::OrderSubmitted { order, .. } => Some(*order),
        _ => None,
    };
    events.iter().filter_map(id).collect()
}

async fn one_coordinator(orders: usize) -> Result<f64> {
    let directory = tempfile::tempdir()?;
    let (public, mut secrets) = deal(1, rand::rng())?;
    let time_ms = althing_sdk::Clock::now_ms(&SystemClock);
    let world = World::new(public.to_hex(), time_ms)?;
    let any = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
    let home = CoordinatorHome {
        genesis: world.genesis.clone(),
        network: public,
        secret: secrets.pop().context("one coordinator has one secret")?,
        settings: crate::home::NodeSettings {
            listen: any,
            api: any,
            content_sources: Vec::new(),
            sources_private: false,
            peers: Vec::new(),
        },
        account: None,
        directory: directory.path().to_owned(),
    };
    let node = roles::start_node(home, bind(any).await?, 2).await?;
    let client: Arc<dyn LedgerClient> = node.client.clone();
    roles::wait_ready(&*client, Duration::from_secs(30)).await?;
    let senders = |signers: &[SessionSigner]| -> Vec<Arc<Sender>> {
        let sender = |signer: &SessionSigner| {
            Arc::new(Sender::new(client.clone(), Arc::new(SystemClock), Arc::new(signer.clone()), world.chain))
        };
        signers.iter().map(sender).collect()
    };
    let (clients, providers) = (senders(&world.clients), senders(&world.providers));
    let begun = Instant::now();
    let mut left = orders;
    let mut last = Vec::new();
    while left > 0 {
        let wave = left.min(WAVE);
        left -= wave;
        let deadline_ms = althing_sdk::Clock::now_ms(&SystemClock) + 60_000;
        let calls = (0..wave).map(|i| (clients[i % CLIENTS].clone(), world.submit(deadline_ms, i))).collect();
        let ids: Vec<OrderId> = send_all(calls).await?.into_iter().flatten().collect();
        ensure!(ids.len() == wave, "{} of {wave} orders were submitted", ids.len());
        for id in &ids {
            let until_ms = deadline_ms;
            althing_sdk::order_until(&*client, &SystemClock, *id, until_ms, |order| order.seed.is_some()).await?;
        }
        let commits = ids
            .iter()
            .enumerate()
            .map(|(i, id)| (providers[i % PROVIDERS].clone(), world.commit(*id, &world.providers[i % PROVIDERS])));
        send_all(commits.collect()).await?;
        let reveals = ids.iter().enumerate().map(|(i, id)| (providers[i % PROVIDERS].clone(), reveal(*id)));
        send_all(reveals.collect()).await?;
        last = ids;
    }
    for id in last {
        let until_ms = althing_sdk::Clock::now_ms(&SystemClock) + 60_000;
        let order =
            althing_sdk::order_until(&*client, &SystemClock, id, until_ms, |order| order.state.is_final()).await?;
        ensure!(order.state == OrderState::Claimed, "order {id} was not claimed");
    }
    let spent = begun.elapsed();
    node.stop().await;
    #[allow(clippy::cast_precision_loss)] // a figure for people
    Ok(orders as f64 / spent.as_secs_f64())
}

/// Submits all calls, then waits for each; gives the orders that their receipts name.
async fn send_all(calls: Vec<(Arc<Sender>, Call)>) -> Result<Vec<Option<OrderId>>> {
    let mut sent = Vec::with_capacity(calls.len());
    for (sender, call) in calls {
        let tx = sender.submit(call).await?;
        sent.push((sender, tx));
    }
    let mut orders = Vec::with_capacity(sent.len());
    for (sender, tx) in sent {
        orders.push(sender.wait(&tx).await?.receipt.order);
    }
    Ok(orders)
}
