//! The provider's core against a ledger that a test plays: when it looks again, and what it asks for.

#![allow(clippy::unwrap_used)] // helpers of tests

use althing_content::MemoryStore;
use althing_provider::{
    Behaviour, Compute, ComputeError, LeftOut, MemoryJournal, Parts, ProfitPolicy, Provider, ProviderConfig, Ran,
    ServingStatus, Task,
};
use althing_sdk::{ClientError, Clock, EventStream, LedgerClient, OrderFilter, SessionKeyPair, StoreContent};
use althing_types::{
    Account, Address, Amount, Availability, Call, Case, ChainId, ContentSource, Event, Hash, Input, Lane, Model,
    ModelId, ModelReward, Order, OrderId, OrderState, ParamChange, Params, Ppm, SessionKey, SessionPublicKey, SignedTx,
    Solution, TxId, TxReceipt, Verification,
    api::{AccountView, BlockEvents, BlockView, Emission, Included, OrderProof, Status, Submitted, Supply},
    object::Earned,
    profile,
};
use async_trait::async_trait;
use futures::StreamExt as _;
use parking_lot::Mutex;
use std::{future::pending, sync::Arc, time::Duration};
use tokio::sync::mpsc;

const ME: Address = Address([1; 20]);
const OTHER: Address = Address([2; 20]);
const MODEL: ModelId = ModelId([5; 32]);
const ORDER: OrderId = OrderId([7; 32]);
const START_MS: u64 = 1_000_000;

/// What the ledger says, and what it was asked and told.
struct Ledger {
    now_ms: u64,
    height: u64,
    params: Params,
    order: Order,
    case: Option<Case>,
    free: Amount,
    earned: Earned,
    asked_params: u32,
    asked_emission: u32,
    calls: Vec<Call>,
}

#[derive(Clone)]
struct FakeLedger {
    ledger: Arc<Mutex<Ledger>>,
    blocks: Arc<Mutex<Option<mpsc::UnboundedReceiver<BlockEvents>>>>,
}

fn missing<T>() -> Result<T, ClientError> {
    Err(ClientError::NotFound("it".into()))
}

#[async_trait]
impl LedgerClient for FakeLedger {
    async fn status(&self) -> Result<Status, ClientError> {
        let ledger = self.ledger.lock();
        Ok(Status {
            chain: ChainId([0; 32]),
            network: String::new(),
            height: ledger.height,
            time_ms: ledger.now_ms,
            active_ms: ledger.now_ms,
            state_root: Hash::ZERO,
            network_key: String::new(),
            coordinators: 1,
            peers: 0,
            mempool: 0,
            version: String::new(),
        })
    }
    async fn submit(&self, tx: &SignedTx, _: u64) -> Result<Submitted, ClientError> {
        self.ledger.lock().calls.push(tx.call.clone());
        Ok(Submitted { id: TxId([0; 32]), included: None })
    }
    async fn transaction(&self, id: TxId, _: u64) -> Result<Option<Included>, ClientError> {
        let receipt = TxReceipt {
            id,
            sender: ME,
            call: String::new(),
            fee: Amount::ZERO,
            error: None,
            order: None,
            events: Vec::new(),
        };
        Ok(Some(Included { height: 1, time_ms: START_MS, receipt }))
    }
    async fn account(&self, address: Address) -> Result<AccountView, ClientError> {
        let ledger = self.ledger.lock();
        let account = Account { free: ledger.free, earned: ledger.earned, ..Account::default() };
        Ok(AccountView { address, account, bond: Amount::tokens(100), ..AccountView::default() })
    }
    async fn session_key(&self, account: Address, key: SessionPublicKey) -> Result<SessionKey, ClientError> {
        let scope = althing_types::call::Scope::Provider;
        let (spend_left, expires_at_ms) = (Amount::MAX, u64::MAX);
        Ok(SessionKey { account, key, scope, spend_left, expires_at_ms, nonce: 0, deposit: Amount::ZERO })
    }
    async fn models(&self) -> Result<Vec<Model>, ClientError> {
        missing()
    }
    async fn model(&self, _: &str) -> Result<Model, ClientError> {
        Ok(Model {
            id: MODEL,
            owner: OTHER,
            name: "model".into(),
            package: althing_content::file_cid(b"package"),
            verification: Verification::Exact,
            fee: Amount::ZERO,
            payee: OTHER,
            reward: Some(ModelReward { rate: 1_000_000, unit_bytes: 1 }),
            supporters: 4,
            supporters_stake: Amount::tokens(400),
            runs: 0,
            deposit: Amount::ZERO,
        })
    }
    async fn providers(&self) -> Result<Vec<althing_types::Provider>, ClientError> {
        missing()
    }
    async fn provider(&self, account: Address) -> Result<althing_types::Provider, ClientError> {
        let bond = Amount::tokens(100);
        Ok(althing_types::Provider { account, bond, models: vec![MODEL], ..Default::default() })
    }
    async fn orders(&self, _: OrderFilter) -> Result<Vec<Order>, ClientError> {
        Ok(vec![self.ledger.lock().order.clone()])
    }
    async fn order(&self, _: OrderId) -> Result<Order, ClientError> {
        Ok(self.ledger.lock().order.clone())
    }
    async fn cases(&self) -> Result<Vec<Case>, ClientError> {
        missing()
    }
    async fn case(&self, _: OrderId) -> Result<Case, ClientError> {
        self.ledger.lock().case.clone().map_or_else(missing, Ok)
    }
    async fn params(&self) -> Result<Params, ClientError> {
        let mut ledger = self.ledger.lock();
        ledger.asked_params += 1;
        Ok(ledger.params.clone())
    }
    async fn supply(&self) -> Result<Supply, ClientError> {
        missing()
    }
    async fn emission(&self) -> Result<Emission, ClientError> {
        self.ledger.lock().asked_emission += 1;
        Ok(Emission {
            elapsed_ms: 1,
            cap: Amount::tokens(1_000),
            target: Amount::tokens(100),
            supply: Amount::tokens(100),
            multiplier: Amount::TOKEN,
            reward: Amount::ZERO,
        })
    }
    async fn block(&self, _: u64) -> Result<BlockView, ClientError> {
        missing()
    }
    async fn events(&self, _: u64) -> Result<EventStream, ClientError> {
        let blocks = self.blocks.lock().take().unwrap();
        let blocks = futures::stream::unfold(blocks, |mut blocks| async { Some((Ok(blocks.recv().await?), blocks)) });
        Ok(blocks.boxed())
    }
    async fn order_proof(&self, _: OrderId) -> Result<OrderProof, ClientError> {
        missing()
    }
}

#[async_trait]
impl Clock for FakeLedger {
    fn now_ms(&self) -> u64 {
        self.ledger.lock().now_ms
    }
    async fn sleep_ms(&self, _: u64) {
        pending().await
    }
}

/// Every run takes two seconds, it says. Another model could not be loaded.
struct TwoSeconds;

#[async_trait]
impl Compute for TwoSeconds {
    fn serves(&self, _: &ModelId) -> bool {
        true
    }
    async fn run(
        &self,
        _: ModelId,
        _: Vec<u8>,
        _: u64,
        _: Option<mpsc::UnboundedSender<String>>,
    ) -> Result<Ran, ComputeError> {
        Ok(Ran { output: b"right".to_vec(), run_ms: 2_000 })
    }
    fn serving(&self) -> Option<ServingStatus> {
        let (model, name) = (ModelId([6; 32]), "broken".to_owned());
        let left_out = vec![LeftOut { model, name, why: "the model broken cannot be loaded".into() }];
        Some(ServingStatus { left_out, ..ServingStatus::default() })
    }
}

fn open_order() -> Order {
    Order {
        id: ORDER,
        number: 1,
        client: Address([9; 20]),
        model: MODEL,
        package: althing_content::file_cid(b"package"),
        lane: Lane::Open,
        input: Input::Inline { bytes: vec![] },
        input_cid: althing_content::file_cid(b""),
        fee: Amount(Amount::TOKEN.0 / 100),
        model_fee: Amount::ZERO,
        model_payee: OTHER,
        submitted_height: 1,
        submitted_view: 1,
        submitted_ms: START_MS,
        deadline_ms: START_MS * 2,
        seed: Some(1),
        seed_by_client: false,
        agreements_wanted: 1,
        parent: None,
        depth: 0,
        state: OrderState::Submitted,
        commitments_made: 0,
        commitments: vec![],
        solutions: vec![],
        agreements: vec![],
        cancelled: false,
        claimed_by: None,
        deposit: Amount::ZERO,
        availability: Availability::Inline,
        root: ORDER,
        budgeted: false,
    }
}

/// The order with a wrong answer of somebody else.
fn solved_order() -> Order {
    let solution = Solution {
        provider: OTHER,
        output: althing_content::file_cid(b"wrong"),
        output_size: 5,
        height: 1,
        time_ms: START_MS,
        active_ms: START_MS,
        weight: Amount::tokens(10),
        reserved: Amount::tokens(1),
        commitment_index: 0,
    };
    let state = OrderState::Solved { claim_at_ms: START_MS * 2 };
    Order { state, solutions: vec![solution], ..open_order() }
}

/// A provider at work, and the ledger in a test's hands.
struct Play {
    fake: FakeLedger,
    provider: Arc<Provider>,
    blocks: mpsc::UnboundedSender<BlockEvents>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Play {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Play {
    fn start(order: Order, free: Amount, policy: ProfitPolicy, watch_share: Ppm) -> Self {
        Self::start_with_sources(order, free, policy, watch_share, Vec::new(), false)
    }

    fn start_with_sources(
        order: Order,
        free: Amount,
        policy: ProfitPolicy,
        watch_share: Ppm,
        content_sources: Vec<String>,
        sources_private: bool,
    ) -> Self {
        let (sender, blocks) = mpsc::unbounded_channel();
        let ledger = Ledger {
            now_ms: START_MS,
            height: 1,
            params: profile::parse(profile::DEFAULT, true).unwrap().params,
            order,
            case: None,
            free,
            earned: Earned { fees: Amount::tokens(3), ..Earned::default() },
            asked_params: 0,
            asked_emission: 0,
            calls: Vec::new(),
        };
        let fake = FakeLedger { ledger: Arc::new(Mutex::new(ledger)), blocks: Arc::new(Mutex::new(Some(blocks))) };
        let config = ProviderConfig {
            account: ME,
            models: vec![MODEL],
            endpoint: String::new(),
            behaviour: Behaviour::Honest,
            policy: Arc::new(policy),
            watch_share,
            content_sources,
            sources_private,
            salt_seed: [0; 32],
        };
        let parts = Parts {
            client: Arc::new(fake.clone()),
            clock: Arc::new(fake.clone()),
            key: SessionKeyPair::from_secret([3; 32]).unwrap(),
            content: Arc::new(StoreContent(Arc::new(MemoryStore::new()))),
            content_private: Arc::new(StoreContent(Arc::new(MemoryStore::new()))),
            compute: Arc::new(TwoSeconds),
            journal: Arc::new(MemoryJournal::default()),
        };
        let provider = Arc::new(Provider::new(config, ChainId([0; 32]), parts));
        let task = tokio::spawn({
            let provider = provider.clone();
            async move { provider.run().await }
        });
        Self { fake, provider, blocks: sender, task }
    }

    /// A block `later_ms` after the last one.
    async fn block(&self, later_ms: u64, events: Vec<Event>) {
        let (height, time_ms) = {
            let mut ledger = self.fake.ledger.lock();
            ledger.height += 1;
            ledger.now_ms += later_ms;
            (ledger.height, ledger.now_ms)
        };
        self.blocks.send(BlockEvents { height, time_ms, events }).unwrap();
        self.settle().await;
    }

    /// Until the provider waits for the next block: nothing here takes time, only turns.
    async fn settle(&self) {
        for _ in 0..1_000 {
            tokio::task::yield_now().await;
        }
    }

    fn calls(&self) -> Vec<Call> {
        self.fake.ledger.lock().calls.clone()
    }

    fn asked(&self) -> (u32, u32) {
        let ledger = self.fake.ledger.lock();
        (ledger.asked_params, ledger.asked_emission)
    }
}

/// Two seconds cost 0.004: an order of 0.01 among four pays less at once, and more once it is old.
fn dear() -> ProfitPolicy {
    ProfitPolicy { compute_cost_per_hour: Amount(Amount::TOKEN.0 * 72 / 10), ..ProfitPolicy::default() }
}

#[tokio::test]
async fn the_report_says_which_models_were_left_out_and_why() {
    let play = Play::start(open_order(), Amount::tokens(1), dear(), Ppm::ONE);
    let status = play.provider.report().await;
    assert_eq!(status.last_error.as_deref(), Some("the model broken cannot be loaded"));
    assert_eq!(status.models, [MODEL]);
    assert_eq!(status.serving.unwrap().left_out[0].name, "broken");
}

/// T-12
#[tokio::test]
async fn an_order_that_does_not_pay_is_taken_once_it_is_older() {
    let play = Play::start(open_order(), Amount::tokens(1), dear(), Ppm::ONE);
    play.settle().await;
    // Before the first run one second is assumed, which costs 0.002; a quarter of 0.0078 is less.
    let decisions = play.provider.status().decisions;
    assert!(!decisions[0].appraisal.take && decisions[0].task == Task::Solve, "{decisions:?}");
    for _ in 0..9 {
        play.block(1_000, vec![]).await;
    }
    assert!(play.calls().is_empty(), "nothing happened to the order, and the market is not old");
    assert_eq!(play.asked(), (1, 1), "the emission is not asked for with every block");
    play.block(1_000, vec![]).await;
    assert_eq!(play.asked(), (1, 2));
    assert!(matches!(play.calls()[..], [Call::OrderCommit { .. }]), "{:?}", play.calls());
    let status = play.provider.status();
    assert!(status.decisions[0].appraisal.take && status.decisions.len() == 1, "one decision for each work");
    assert_eq!((status.by_model[0].runs, status.by_model[0].run_ms), (1, Some(2_000)));
}

/// T-12: what was run is promised, though the run turned out to be dearer than was assumed.
#[tokio::test]
async fn a_run_is_never_thrown_away() {
    let policy = ProfitPolicy { compute_cost_per_hour: Amount(Amount::TOKEN.0 * 6), ..ProfitPolicy::default() };
    let play = Play::start(open_order(), Amount::tokens(1), policy, Ppm::ONE);
    play.settle().await;
    assert!(matches!(play.calls()[..], [Call::OrderCommit { .. }]), "{:?}", play.calls());
}

/// G-1, T-12
#[tokio::test]
async fn parameters_that_a_vote_changed_are_used_at_once() {
    let unseeded = Order { seed: None, ..open_order() };
    let play = Play::start(unseeded, Amount::tokens(1), ProfitPolicy::default(), Ppm::ONE);
    play.settle().await;
    {
        let mut ledger = play.fake.ledger.lock();
        ledger.params.agreement_fee = Ppm(0);
        ledger.params.coordinator_fee = Ppm(0);
        ledger.params.treasury_fee = Ppm::ONE;
        ledger.order = open_order();
    }
    let changes = vec![ParamChange { name: "treasury_fee".into(), value: 1_000_000 }];
    play.block(1_000, vec![Event::ParamsSet { changes }, Event::OrderSeeded { order: ORDER, seed: 1 }]).await;
    assert_eq!(play.asked().0, 2);
    let decisions = play.provider.status().decisions;
    assert!(!decisions[0].appraisal.take && decisions[0].appraisal.fee.is_zero(), "{decisions:?}");
}

/// T-11, T-7
#[tokio::test]
async fn a_wrong_answer_is_contested_whatever_that_costs_unless_it_cannot_be_paid() {
    let dear = ProfitPolicy { compute_cost_per_hour: Amount::tokens(1_000_000), ..ProfitPolicy::default() };
    let rich = Play::start(solved_order(), Amount::tokens(1), dear.clone(), Ppm::ONE);
    rich.settle().await;
    assert!(matches!(rich.calls()[..], [Call::Contest { .. }]), "{:?}", rich.calls());

    let poor = Play::start(solved_order(), Amount::ZERO, dear.clone(), Ppm::ONE);
    poor.settle().await;
    assert!(poor.calls().is_empty());
    let decisions = poor.provider.status().decisions;
    assert_eq!(decisions[0].task, Task::Dispute);
    assert!(decisions[0].appraisal.reason.contains("0 ALTH are free"), "{decisions:?}");

    let blind = Play::start(solved_order(), Amount::tokens(1), dear, Ppm(0));
    blind.settle().await;
    assert_eq!((blind.calls(), blind.provider.status().runs), (vec![], 0), "who watches nothing runs what pays");
}

const INPUT: &[u8] = b"an input that is elsewhere";

/// An order on an input that is elsewhere, of as many bytes as it says, and where that is.
fn order_elsewhere(size: u64, source: &str) -> Order {
    let (cid, source) = (althing_content::file_cid(INPUT), Some(ContentSource(source.into())));
    Order { input: Input::Content { cid, size, source }, input_cid: cid, ..open_order() }
}

/// Serves on a free port for as long as the test runs.
async fn serve(app: axum::Router) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await });
    format!("http://{address}")
}

/// A gateway that has the input.
async fn serve_input() -> String {
    let store = Arc::new(MemoryStore::new());
    althing_content::put_bytes(&*store, althing_content::Profile::V1_2025, INPUT).unwrap();
    serve(althing_content::gateway::router(store)).await
}

/// A provider with such an order, once `done` is seen; real sockets take real time.
async fn play_elsewhere(order: Order, own: &[String], private: bool, done: fn(&Play) -> bool) -> Play {
    let (free, policy) = (Amount::tokens(1), ProfitPolicy::default());
    let play = Play::start_with_sources(order, free, policy, Ppm::ONE, own.to_vec(), private);
    for _ in 0..400 {
        if done(&play) {
            return play;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("it hangs: {:?}", play.provider.status());
}

/// T-1: whatever a source sends, it is not the input before its hash and its size are those of the order.
#[tokio::test]
async fn an_input_is_had_from_where_its_order_says_past_sources_that_lie() {
    let size = INPUT.len() as u64;
    let answer = |body: Vec<u8>| axum::Router::new().fallback(move || std::future::ready(body.clone()));
    let wrong = serve(answer(b"another input of equal size".to_vec())).await;
    let too_large = serve(answer(vec![0; 3 << 20])).await;
    let nobody = "http://127.0.0.1:1".to_owned();
    let good = serve_input().await;
    let own = [wrong.clone(), too_large, nobody];
    let is_taken = |play: &Play| matches!(play.calls()[..], [Call::OrderCommit { .. }]);
    let play = play_elsewhere(order_elsewhere(size, &good), &own, true, is_taken).await;
    assert_eq!(play.provider.status().runs, 1);

    let is_left = |play: &Play| play.provider.status().last_error.is_some_and(|error| error.starts_with("order "));
    for (order, own, private, expected) in [
        (order_elsewhere(size, &wrong), &own[..], true, "have another hash"),
        (order_elsewhere(size - 1, &good), &own, true, "has 26 bytes, where 25 to 25 were expected"),
        (order_elsewhere(size + 1, &good), &[], true, "has 26 bytes, where 27 to 27 were expected"),
        // What a stranger names is not asked on this machine, unless the settings allow it.
        (order_elsewhere(size, &good), &[], false, "127.0.0.1 is no public address"),
    ] {
        let play = play_elsewhere(order, own, private, is_left).await;
        let error = play.provider.status().last_error.unwrap();
        assert!(error.contains(expected), "{error}");
        assert_eq!((play.calls(), play.provider.status().runs), (vec![], 0), "{expected}");
    }
}

/// E-4
#[tokio::test]
async fn the_report_says_what_was_earned_ever_and_since_the_start() {
    let play = Play::start(open_order(), Amount::tokens(1), dear(), Ppm::ONE);
    play.settle().await;
    play.fake.ledger.lock().earned =
        Earned { fees: Amount::tokens(5), rewards: Amount::tokens(1), ..Earned::default() };
    let report = play.provider.report().await;
    assert_eq!((report.earned.fees, report.earned.rewards), (Amount::tokens(5), Amount::tokens(1)));
    assert_eq!((report.earned_since_start.fees, report.earned_since_start.rewards), (Amount::tokens(2), Amount::TOKEN));
    let text = serde_json::to_string(&report).unwrap();
    assert_eq!(serde_json::from_str::<althing_provider::ProviderStatus>(&text).unwrap(), report);
}
