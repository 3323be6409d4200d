//! Whole networks with faults, from one seed. A failure prints the seed: run it again with
//! `ALTHING_SEED=… cargo nextest run -p althing-testkit`.

#![allow(clippy::unwrap_used)] // helpers of tests

use althing_chain::simulation::LinkQuality;
use althing_gateway::{Answer, Ask, Gateway, LaneWish, Level, Progress};
use althing_provider::Behaviour::{Honest, Liar};
use althing_runtime::ChatInput;
use althing_sdk::{Clock as _, LedgerClient, OrderFilter};
use althing_testkit::{Plan, Running, World};
use althing_types::{Amount, Hash, OrderState, Outcome, Ppm};
use std::{sync::Arc, time::Duration};
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
    let ask = Ask { model: "tiny-stories".into(), lane, input: ChatInput::ask(question), seed: None, wait: Some(wait) };
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
    assert!(answer.unwrap().text.to_lowercase().contains("fox"), "M-5: delivered by the chosen provider");
    running.simulation.crash(3).await;

    let mut lied = false;
    for _ in 0..40 {
        let (answer, happened) = ask(&gateway, &running, LaneWish::Open, "Tell me a story about a bear").await;
        let answer = answer.unwrap();
        assert!(answer.text.to_lowercase().contains("bear") && answer.provider != liar, "V-1: no lie was seen");
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
