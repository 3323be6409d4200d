//! Whole networks with faults, from one seed. A failure prints the seed: run it again with
//! `ALTHING_SEED=… cargo nextest run -p althing-testkit`.

#![allow(clippy::unwrap_used)] // helpers of tests

use althing_chain::simulation::LinkQuality;
use althing_gateway::{Answer, Ask, AskInput, Gateway, LaneWish, Level, Progress};
use althing_provider::Behaviour::{Honest, Liar};
use althing_runtime::{ChatInput, Engine, Interface, RunError};
use althing_sdk::{Clock as _, LedgerClient, OrderFilter, Sender};
use althing_testkit::{Plan, Running, World};
use althing_types::{
    Amount, Availability, Call, ContentSource, Hash, Input, Lane, ModelReward, Order, OrderId, OrderState, Outcome,
    Ppm, RefundReason, call::OrderSubmit, object::INLINE_INPUT_BYTES_MAX,
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::sync::mpsc;

fn seeds() -> Vec<u64> {
    match std::env::var("ALTHING_SEED") {
        Ok(seed) => vec![seed.parse().unwrap()],
        Err(_) => vec![1, 2, 15],
    }
}

async fn ask(
    gateway: &Gateway,
    running: &Running,
    lane: LaneWish,
    question: &str,
) -> (Result<Answer, String>, Vec<Progress>) {
    let (progress, mut happened) = mpsc::unbounded_channel();
    let wait = if lane == LaneWish::Open { Level::Agreed } else { Level::None };
    let ask = Ask {
        model: "tiny-stories".into(),
        lane,
        input: AskInput::Chat(ChatInput::ask(question)),
        seed: None,
        provider: None,
        wait: Some(wait),
    };
    let answer = gateway.ask(&running.world.api_key, &ask, &progress).await.map_err(|error| error.to_string());
    drop(progress);
    let mut all = Vec::new();
    while let Some(progress) = happened.recv().await {
        all.push(progress);
    }
    (answer, all)
}

/// The root that all nodes have at `height`.
async fn equal_root(clients: &[Arc<dyn LedgerClient>], height: u64) -> Hash {
    let mut roots = Vec::new();
    for client in clients {
        roots.push(client.block(height).await.unwrap().state_root);
    }
    assert!(roots.windows(2).all(|pair| pair[0] == pair[1]), "height {height}: {roots:?}");
    roots[0]
}

/// Four coordinators with lossy links, one of them crashed for a while; three honest providers and a
/// liar; questions in both lanes; a contest that the liar loses. Gives the last common state root.
async fn orders_and_a_contest(mut running: Running) -> Hash {
    let mut handles = Vec::new();
    for index in 0..4 {
        handles.push(running.simulation.start(index).await);
    }
    let clients: Vec<_> = handles.iter().map(|handle| running.client(handle.clone())).collect();
    for index in 0..4 {
        // Nobody depends on the last coordinator: it falls.
        running.start_provider(index, clients[index % 3].clone());
    }
    let liar = running.world.provider(3);
    let until_ms = running.clock.now_ms() + 120_000;
    for client in &clients[..3] {
        while client.providers().await.unwrap().iter().any(|provider| provider.models.is_empty()) {
            let statuses: Vec<_> = running.providers.iter().map(|provider| provider.status()).collect();
            assert!(running.clock.now_ms() < until_ms, "a provider cannot announce itself: {statuses:?}");
            running.clock.sleep_ms(100).await;
        }
    }
    let issued = clients[0].supply().await.unwrap().issued;
    let bond = clients[0].provider(liar).await.unwrap().bond;
    let gateway = running.start_gateway(clients[0].clone()).await;

    let (answer, _) = ask(&gateway, &running, LaneWish::Chosen, "Tell me a story about a fox").await;
    assert!(answer.unwrap().output.text().to_lowercase().contains("fox"), "M-5: delivered by the chosen provider");
    running.simulation.crash(3).await;

    let mut lied = false;
    for _ in 0..40 {
        let (answer, happened) = ask(&gateway, &running, LaneWish::Open, "Tell me a story about a bear").await;
        let answer = answer.unwrap();
        assert!(
            answer.output.text().to_lowercase().contains("bear") && answer.provider != liar,
            "V-1: no lie was seen"
        );
        assert!(!answer.agreed_by.is_empty());
        lied = happened.iter().any(|progress| matches!(progress, Progress::Contested { .. }));
        if lied {
            break;
        }
    }
    assert!(lied, "the liar was never first");
    let record = clients[0].provider(liar).await.unwrap();
    assert!(record.bond < bond && record.jailed_until_ms > 0, "T-8: slashed and jailed");
    let mut refuted = 0;
    for order in clients[0].orders(OrderFilter::All).await.unwrap() {
        if let Ok(case) = clients[0].case(order.id).await {
            assert_eq!((case.solver, case.outcome), (liar, Some(Outcome::Refuted)));
            refuted += 1;
        }
    }
    assert!(refuted > 0);

    // The fallen one comes back and catches up; every order ends; everybody has the same state.
    let back = running.simulation.start(3).await;
    let mut clients = clients;
    clients[3] = running.client(back);
    let until_ms = running.clock.now_ms() + 120_000;
    while !clients[1].orders(OrderFilter::Open).await.unwrap().is_empty() {
        assert!(running.clock.now_ms() < until_ms, "an order hangs");
        running.clock.sleep_ms(500).await;
    }
    for order in clients[1].orders(OrderFilter::All).await.unwrap() {
        assert!(matches!(order.state, OrderState::Claimed | OrderState::Refunded { .. }));
    }
    let height = clients[1].status().await.unwrap().height;
    for client in &clients {
        while client.status().await.map_or(0, |status| status.height) < height {
            assert!(running.clock.now_ms() < until_ms + 60_000, "a coordinator does not catch up");
            running.simulation.sleep(Duration::from_millis(100)).await;
        }
    }
    let supply = clients[3].supply().await.unwrap();
    assert_eq!(supply.issued, issued, "E-3: nothing was made or lost");
    let slash = bond.share(Ppm(125_000));
    assert!(supply.treasury > Amount::ZERO && supply.treasury < slash, "T-8: the treasury has its share of the slash");
    equal_root(&clients, height).await
}

/// E-3, T-3, T-7, T-8, V-1, M-5
#[test]
fn four_coordinators_with_lossy_links_and_a_crash_keep_one_ledger_through_orders_and_a_contest() {
    // With ALTHING_LOG the parts say what they do.
    if let Ok(filter) = tracing_subscriber::EnvFilter::try_from_env("ALTHING_LOG") {
        tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).init();
    }
    let run = |seed| {
        println!("ALTHING_SEED={seed}");
        let links = LinkQuality { latency_ms: 30, jitter_ms: 15, delivered: 0.92 };
        let plan = Plan { seed, coordinators: 4, providers: vec![Honest, Honest, Honest, Liar], links };
        World::new(plan).run(orders_and_a_contest)
    };
    let roots: Vec<_> = seeds().into_iter().map(run).collect();
    let first = seeds()[0];
    assert_eq!(run(first), roots[0], "the same seed gives the same run");
}

/// Waits until an order is as `done` wants it.
async fn order_when(running: &Running, client: &dyn LedgerClient, id: OrderId, done: fn(&Order) -> bool) -> Order {
    let until_ms = running.clock.now_ms() + 120_000;
    let order = althing_sdk::order_until(client, &*running.clock, id, until_ms, done).await.unwrap();
    assert!(done(&order), "it hangs: {order:?}");
    order
}

/// An input too long for its order, which the gateway keeps: the coordinators drawn fetch it before the
/// seed exists, and the order earns. One that nobody has is given up, and its client gets the fee back.
async fn inputs_that_are_elsewhere(mut running: Running) {
    let mut clients = Vec::new();
    for index in 0..4 {
        let handle = running.simulation.start(index).await;
        running.start_input_watch(index, handle.clone());
        clients.push(running.client(handle));
    }
    for (index, client) in clients.iter().enumerate().take(2) {
        running.start_provider(index, client.clone());
    }
    let gateway = running.start_gateway(clients[0].clone()).await;
    let until_ms = running.clock.now_ms() + 60_000;
    while clients[0].providers().await.unwrap().iter().any(|provider| provider.models.is_empty()) {
        assert!(running.clock.now_ms() < until_ms, "a provider cannot announce itself");
        running.clock.sleep_ms(100).await;
    }
    let issued = clients[0].supply().await.unwrap().issued;
    let mut input = ChatInput::ask("Tell me a story about a fox");
    // Control characters take six bytes each as JSON.
    input.stop = vec!["\u{1}".repeat(200); 4];
    assert!(input.to_bytes().len() > INLINE_INPUT_BYTES_MAX);
    let (progress, _happened) = mpsc::unbounded_channel();
    let ask = Ask {
        model: "tiny-stories".into(),
        lane: LaneWish::Open,
        input: AskInput::Chat(input),
        seed: None,
        provider: None,
        wait: Some(Level::None),
    };
    let answer = gateway.ask(&running.world.api_key, &ask, &progress).await.unwrap();
    assert!(answer.output.text().to_lowercase().contains("fox"));
    let order = clients[0].order(answer.order.id).await.unwrap();
    let source = Some(ContentSource("http://gateway".into()));
    assert!(matches!(&order.input, Input::Content { source: said, .. } if *said == source), "its own content's URL");
    assert_eq!(order.availability, Availability::Shown);
    order_when(&running, &*clients[0], order.id, |order| order.state == OrderState::Claimed).await;
    assert!(clients[0].supply().await.unwrap().issued > issued, "T-6: it earned");

    // Nobody has this one.
    let signer = Arc::new(running.world.api_key.signer());
    let chain = running.world.genesis.chain_id();
    let sender = Sender::new(clients[0].clone(), running.clock.clone(), signer, chain);
    let cid = althing_content::file_cid(b"nowhere");
    let submit = OrderSubmit {
        model: running.world.model,
        input: Input::Content { cid, size: 7, source: Some(ContentSource("http://nobody".into())) },
        fee: order.fee,
        max_total: order.fee,
        lane: Lane::Open,
        deadline_ms: running.clock.now_ms() + 40_000,
        seed: None,
        agreements: 0,
        parent: None,
        budget: None,
    };
    let lost = sender.send(Call::OrderSubmit(submit)).await.unwrap().receipt.order.unwrap();
    let order = order_when(&running, &*clients[0], lost, |order| order.seed.is_some()).await;
    assert_eq!(order.availability, Availability::NotShown);
    let order = order_when(&running, &*clients[0], lost, |order| order.state.is_final()).await;
    assert_eq!(order.state, OrderState::Refunded { reason: RefundReason::Expired });
}

/// T-21, T-17
#[test]
fn coordinators_fetch_inputs_that_are_not_in_their_orders() {
    let seed = seeds()[0];
    println!("ALTHING_SEED={seed}");
    let links = LinkQuality { latency_ms: 20, jitter_ms: 5, delivered: 1.0 };
    let mut world = World::new(Plan { seed, coordinators: 4, providers: vec![Honest, Honest], links });
    world.genesis.models[0].reward = Some(ModelReward { rate: 1_000_000, unit_bytes: 1 });
    world.run(inputs_that_are_elsewhere);
}

/// An engine that gives no result a few times.
struct Moody {
    engine: Arc<dyn Engine>,
    failures_left: AtomicUsize,
}

impl Engine for Moody {
    fn interface(&self) -> Interface {
        self.engine.interface()
    }
    fn run(&self, input: &[u8], seed: u64, emit: &mut dyn FnMut(&str) -> bool) -> Result<Vec<u8>, RunError> {
        let fails = self.failures_left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        match fails {
            Ok(_) => Err(RunError::Engine("not in the mood".into())),
            Err(_) => self.engine.run(input, seed, emit),
        }
    }
    fn measure(&self, input: &[u8]) -> Option<(usize, usize)> {
        self.engine.measure(input)
    }
    fn weights_bytes(&self) -> u64 {
        self.engine.weights_bytes()
    }
}

/// A provider that fails a delivery, and could complete it a moment later: its client was told that nothing comes,
/// and is not charged. The next question is answered.
async fn a_delivery_that_fails(mut running: Running) {
    let handle = running.simulation.start(0).await;
    let client = running.client(handle);
    running.start_provider(0, client.clone());
    let gateway = running.start_gateway(client.clone()).await;
    let until_ms = running.clock.now_ms() + 60_000;
    while client.provider(running.world.provider(0)).await.unwrap().models.is_empty() {
        assert!(running.clock.now_ms() < until_ms, "the provider cannot announce itself");
        running.clock.sleep_ms(100).await;
    }
    let (answer, _) = ask(&gateway, &running, LaneWish::Chosen, "Tell me a story about a fox").await;
    assert!(answer.unwrap_err().contains("not in the mood"));
    let [order] = &client.orders(OrderFilter::All).await.unwrap()[..] else { panic!("one order") };
    assert!(matches!(order.state, OrderState::Accepted { .. }));
    let order = order_when(&running, &*client, order.id, |order| order.state.is_final()).await;
    assert_eq!(order.state, OrderState::Refunded { reason: RefundReason::Expired });
    assert!(order.solutions.is_empty());
    let (answer, _) = ask(&gateway, &running, LaneWish::Chosen, "Tell me a story about an owl").await;
    assert!(answer.unwrap().output.text().contains("owl"));
}

/// T-17
#[test]
fn who_was_told_that_nothing_comes_is_not_charged_later() {
    let seed = seeds()[0];
    println!("ALTHING_SEED={seed}");
    let links = LinkQuality { latency_ms: 20, jitter_ms: 5, delivered: 1.0 };
    let mut world = World::new(Plan { seed, coordinators: 1, providers: vec![Honest], links });
    world.engine = Arc::new(Moody { engine: world.engine.clone(), failures_left: AtomicUsize::new(1) });
    world.run(a_delivery_that_fails);
}
