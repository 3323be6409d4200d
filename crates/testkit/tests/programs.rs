//! Programs on a simulated network: a crash at every point of the journal, and what the ledger says
//! afterwards. A failure prints the seed, as in `network.rs`.

#![allow(clippy::unwrap_used)] // helpers of tests

use althing_chain::simulation::LinkQuality;
use althing_program::{
    Journal, JournalError, Limits, MemoryJournal, Outcome, Parts, Program, Run, RunError, Runner, Task,
};
use althing_provider::Behaviour::{Honest, Liar};
use althing_sdk::{Clock as _, LedgerClient, OrderFilter, Sender};
use althing_testkit::{Plan, Running, World};
use althing_types::{Amount, Order, OrderState};
use async_trait::async_trait;
use parking_lot::Mutex;
use std::{collections::BTreeMap, sync::Arc};
use tokio::sync::mpsc;

const PROGRAM: &str = r#"
    title = "Scenes of a story, then the story again and again"
    model = "tiny-stories"
    budget = "1"
    attempts_max = 10
    inputs = { heroes = "" }
    [[step]]
    name = "scene"
    prompt = "Tell me a story about a {{item}}"
    max_tokens = 24
    fan_out = { over = "{{input.heroes}}", split = "commas", max = 2 }
    [[step]]
    name = "again"
    prompt = "Tell me a story about {{last | words 4}}"
    max_tokens = 24
    repeat = { max = 2, start = "{{scene.text}}", every_s = 3 }
"#;

fn seeds() -> Vec<u64> {
    match std::env::var("ALTHING_SEED") {
        Ok(seed) => vec![seed.parse().unwrap()],
        Err(_) => vec![1, 7],
    }
}

/// Falls around every change of the journal: just before it is durable, and just after.
struct Falling {
    inner: MemoryJournal,
    /// How often the change that comes next was reached.
    reached: Mutex<u32>,
    fall: mpsc::UnboundedSender<&'static str>,
}

impl Falling {
    async fn fall(&self, when: &'static str) {
        self.fall.send(when).unwrap();
        std::future::pending::<()>().await;
    }
}

#[async_trait]
impl Journal for Falling {
    async fn load(&self) -> Result<Option<Run>, JournalError> {
        self.inner.load().await
    }
    async fn save(&self, run: &Run) -> Result<(), JournalError> {
        let first = {
            let mut reached = self.reached.lock();
            *reached += 1;
            *reached == 1
        };
        if first {
            self.fall("before").await;
        }
        self.inner.save(run).await?;
        *self.reached.lock() = 0;
        self.fall("after").await;
        Ok(())
    }
}

async fn network(running: &mut Running) -> Vec<Arc<dyn LedgerClient>> {
    let mut clients = Vec::new();
    for index in 0..4 {
        let handle = running.simulation.start(index).await;
        clients.push(running.client(handle));
    }
    for (index, client) in clients.iter().enumerate() {
        running.start_provider(index, client.clone());
    }
    let until_ms = running.clock.now_ms() + 120_000;
    while clients[0].providers().await.unwrap().iter().any(|provider| provider.models.is_empty()) {
        assert!(running.clock.now_ms() < until_ms, "a provider cannot announce itself");
        running.clock.sleep_ms(100).await;
    }
    clients
}

fn parts(running: &Running, client: &Arc<dyn LedgerClient>, journal: Arc<dyn Journal>) -> Parts {
    // A new process each time: nothing but the journal is remembered.
    let (signer, chain) = (Arc::new(running.world.api_key.signer()), running.world.genesis.chain_id());
    let sender = Arc::new(Sender::new(client.clone(), running.clock.clone(), signer, chain));
    Parts { client: client.clone(), clock: running.clock.clone(), content: running.content(), journal, sender }
}

async fn start_or_resume(parts: Parts) -> Result<Runner, RunError> {
    match parts.journal.load().await? {
        Some(_) => Runner::resume(parts, Limits::default()).await,
        None => {
            let inputs = BTreeMap::from([("heroes".to_owned(), "fox, owl".to_owned())]);
            Runner::start(parts, Program::parse(PROGRAM).unwrap(), &inputs, None).await
        }
    }
}

/// Runs the program to its end through a fall at each point, some of them so long that what was signed
/// expires meanwhile. Gives the journal and how often it fell.
async fn run_through_falls(running: &Running, client: &Arc<dyn LedgerClient>) -> (Run, u32) {
    let (fall, mut falls) = mpsc::unbounded_channel();
    let journal = Arc::new(Falling { inner: MemoryJournal::default(), reached: Mutex::new(0), fall });
    let mut fallen = 0u32;
    loop {
        let parts = parts(running, client, journal.clone());
        let work = async {
            let mut runner = start_or_resume(parts).await?;
            runner.run(&|progress| println!("    {progress:?}")).await
        };
        tokio::select! {
            biased;
            when = falls.recv() => println!("{when:?} {:?}", journal.inner.load().await.unwrap().map(|run| run.attempts.len())),
            done = work => {
                done.unwrap();
                return (journal.load().await.unwrap().unwrap(), fallen);
            }
        }
        fallen += 1;
        assert!(fallen < 200, "the program does not get on");
        running.clock.sleep_ms(if fallen % 3 == 1 { 70_000 } else { 10 }).await;
    }
}

/// What the ledger says against what the journal says: every task is paid once, nothing else is.
fn check(run: &Run, orders: &[Order]) {
    let mut paid: BTreeMap<Task, u32> = BTreeMap::new();
    for order in orders {
        let attempt = run.attempts.iter().find(|attempt| attempt.order() == Some(order.id));
        let attempt = attempt.expect("an order that the journal does not know: it was lost");
        assert_eq!((order.fee, order.parent), (attempt.fee, attempt.parent), "the order that was kept");
        if !matches!(order.state, OrderState::Refunded { .. }) {
            *paid.entry(attempt.task.clone()).or_default() += 1;
        }
    }
    let task = |step: &str, part| (Task { step: step.into(), part }, 1);
    let expected = [task("scene", 0), task("scene", 1), task("again", 0), task("again", 1)];
    assert_eq!(paid, BTreeMap::from(expected), "T-15: no task is paid twice, none is lost");
    let placed = run.attempts.iter().filter(|attempt| attempt.placed.is_some()).count();
    assert_eq!(placed, orders.len(), "an order of the journal is not on the ledger");
}

async fn falls_everywhere(mut running: Running) -> String {
    let clients = network(&mut running).await;
    let client = &clients[0];
    let account = running.world.api_key.account;
    let (run, fallen) = run_through_falls(&running, client).await;
    println!("fell {fallen} times");

    // Every order ends; what was refuted after it was used is not expected of honest majorities.
    let until_ms = running.clock.now_ms() + 300_000;
    while !client.orders(OrderFilter::Open).await.unwrap().is_empty() {
        assert!(running.clock.now_ms() < until_ms, "an order hangs");
        running.clock.sleep_ms(500).await;
    }
    let orders = client.orders(OrderFilter::All).await.unwrap();
    check(&run, &orders);
    assert!(fallen >= 2 * (1 + 3 * 4), "it fell around each of the changes: {fallen}");
    assert!(run.attempts.iter().any(|attempt| attempt.outcome == Outcome::Lapsed), "some expired unsent");

    // The account paid exactly what the run says, and the deposits that come back later.
    let free = client.account(account).await.unwrap().account.free;
    let deposits: Amount = orders.iter().map(|order| order.deposit).sum();
    let model_fees =
        Amount(orders.iter().filter(|order| order.state == OrderState::Claimed).map(|o| o.model_fee.0).sum());
    let expected = Amount::tokens(1_000).checked_sub(run.spent()).unwrap().checked_sub(deposits).unwrap();
    // The client owns the model as well.
    assert_eq!(free, expected.checked_add(model_fees).unwrap(), "T-15: the budget counts what was paid");

    // Provenance: the rounds name the scene before them, then each other.
    let last = run.answers(&run.program.steps[1]).last().map(|(attempt, _)| attempt.order().unwrap()).unwrap();
    let last = client.order(last).await.unwrap();
    assert_eq!(last.depth, 2, "scene, first round, second round");
    assert!(last.submitted_ms - client.order(last.parent.unwrap()).await.unwrap().submitted_ms >= 3_000);

    // What is at its end stays there: nothing more is asked.
    let journal = Arc::new(MemoryJournal::default());
    journal.save(&run).await.unwrap();
    let mut again = Runner::resume(parts(&running, client, journal), Limits::default()).await.unwrap();
    again.run(&|progress| panic!("{progress:?}")).await.unwrap();
    assert_eq!(again.record(), &run);
    serde_json::to_string(&run).unwrap()
}

/// A budget that is too small stops the program before it is exceeded; a larger one lets it go on.
async fn the_budget_holds(mut running: Running) {
    let clients = network(&mut running).await;
    let journal: Arc<dyn Journal> = Arc::new(MemoryJournal::default());
    let text = PROGRAM.replace("budget = \"1\"", "budget = \"0.025\"");
    let inputs = BTreeMap::from([("heroes".to_owned(), "fox, owl".to_owned())]);
    let parts = parts(&running, &clients[0], journal);
    let mut runner = Runner::start(parts.clone(), Program::parse(&text).unwrap(), &inputs, None).await.unwrap();
    let error = runner.run(&|_| {}).await.unwrap_err();
    assert!(matches!(error, RunError::Budget { .. }), "{error}");
    assert!(runner.record().spent() <= "0.025".parse().unwrap());
    assert_eq!(clients[0].orders(OrderFilter::All).await.unwrap().len(), 2, "two scenes fit");
    let limits = Limits { budget: Some(Amount::tokens(1)), attempts_max: None };
    let mut runner = Runner::resume(parts, limits).await.unwrap();
    runner.run(&|_| {}).await.unwrap();
    check(runner.record(), &clients[0].orders(OrderFilter::All).await.unwrap());
}

fn plan(seed: u64) -> Plan {
    let links = LinkQuality { latency_ms: 30, jitter_ms: 15, delivered: 0.92 };
    Plan { seed, coordinators: 4, providers: vec![Honest, Honest, Honest, Liar], links }
}

/// T-15
#[test]
fn a_program_that_falls_at_every_point_pays_each_task_once_and_loses_none() {
    if let Ok(filter) = tracing_subscriber::EnvFilter::try_from_env("ALTHING_LOG") {
        let _ = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).try_init();
    }
    for seed in seeds() {
        println!("ALTHING_SEED={seed}");
        World::new(plan(seed)).run(falls_everywhere);
    }
}

/// T-15
#[test]
fn a_program_never_spends_more_than_its_budget() {
    World::new(plan(3)).run(the_budget_holds);
}
