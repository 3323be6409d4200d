//! Carries out what [`crate::decide`] says, for many orders at a time, on one task.

use crate::{
    book::{Book, Decision, ModelStatus, earned_since},
    compute::{Compute, ComputeError, Ran},
    decide::{Situation, Step, decide},
    journal::{Journal, Promise},
    offer::{Facts, Market, offer, own_part, run_reward, transaction_cost, watches},
    policy::{Appraisal, Policy, Task},
    serve::ServingStatus,
};
use althing_adapter::AdapterStatus;
use althing_sdk::{
    Ballot, ClientError, Clock, Content, LedgerClient, OrderFilter, SendError, Sender, SessionKeyPair, SessionSigner,
    Source,
};
use althing_types::{
    Address, BallotAnswer, Call, ChainId, Cid, Event, Hash, Input, Lane, ModelId, Order, OrderId, OrderState, Params,
    Ppm,
    api::BlockEvents,
    commitment::commitment_hash,
    object::{CONTENT_INPUT_BYTES_MAX, Earned},
};
use futures::{FutureExt as _, StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use parking_lot::Mutex;
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
use tokio::sync::mpsc;

/// Pause before the ledger is asked again after it was out of reach, ms.
const RETRY_MS: u64 = 1_000;
/// The market is read again with the first block after so long, ms.
const MARKET_AGE_MS_MAX: u64 = 10_000;
/// Most orders that are looked at again because they did not pay yet.
const LEFT_MAX: usize = 256;
/// Most own results that are remembered.
const RESULTS_MAX: usize = 4_096;

/// How a provider behaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Behaviour {
    /// Runs what it answers, and re-runs what others answer.
    #[default]
    Honest,
    /// For demonstrations and tests: promises garbage without running, so that it tends to be first.
    Liar,
}

/// What a provider is told.
#[derive(Clone, Debug)]
pub struct ProviderConfig {
    /// The account that is bonded, and the session key that acts for it.
    pub account: Address,
    /// Models to serve.
    pub models: Vec<ModelId>,
    /// Base URL where clients and other providers reach it; empty for none.
    pub endpoint: String,
    pub behaviour: Behaviour,
    /// Decides which work pays. (T-12)
    pub policy: Arc<dyn Policy>,
    /// Share of others' answers that are re-run even if no agreement is wanted or pays. (T-11)
    pub watch_share: Ppm,
    /// Base URLs that may have inputs which are not inside their orders.
    pub content_sources: Vec<String>,
    /// Whether what orders name as sources is asked at private addresses too, as in a network on one machine.
    pub sources_private: bool,
    /// Seeds the salts of promises: must be unpredictable outside of simulations.
    pub salt_seed: [u8; 32],
}

/// What a provider did since it started.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProviderStatus {
    pub account: Address,
    pub endpoint: String,
    pub behaviour: Behaviour,
    pub models: Vec<ModelId>,
    /// Height of the newest block that it has seen.
    pub height: u64,
    pub runs: u64,
    pub reveals: u64,
    pub deliveries: u64,
    pub agreements: u64,
    pub contests: u64,
    pub votes: u64,
    /// Earned since genesis and since this provider started, by source, as the ledger has it. (E-4)
    pub earned: Earned,
    pub earned_since_start: Earned,
    /// The models that it serves: how long they run here, what they earn.
    pub by_model: Vec<ModelStatus>,
    /// What it runs at the moment, and in how much memory.
    #[serde(default)]
    pub serving: Option<ServingStatus>,
    /// Models that servers elsewhere run for it, and how these are.
    #[serde(default)]
    pub elsewhere: Vec<(ModelId, AdapterStatus)>,
    /// The newest decisions, newest first. (T-12)
    pub decisions: Vec<Decision>,
    /// The newest trouble, for people.
    pub last_error: Option<String>,
}

/// An own run's result.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RunResult {
    pub output: Cid,
    pub output_size: u64,
}

/// What was last read from the ledger and holds for all orders.
#[derive(Clone)]
struct Known {
    params: Arc<Params>,
    market: Arc<Market>,
}

/// What a task of [`Provider::follow`] was about.
enum Done {
    Order(OrderId),
    Market,
}

/// A provider. Share it among its tasks: [`Provider::run`] and any number of deliveries.
pub struct Provider {
    pub(crate) config: ProviderConfig,
    pub(crate) chain: ChainId,
    pub(crate) client: Arc<dyn LedgerClient>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) sender: Sender,
    pub(crate) key: SessionKeyPair,
    /// What everybody may fetch: inputs and outputs of the open lane.
    pub(crate) content: Arc<dyn Content>,
    /// Inputs and outputs of the chosen lane: between client and provider alone.
    pub(crate) content_private: Arc<dyn Content>,
    pub(crate) compute: Arc<dyn Compute>,
    journal: Arc<dyn Journal>,
    salts: Mutex<StdRng>,
    results: Mutex<BTreeMap<OrderId, RunResult>>,
    /// Orders whose clients are being delivered to; see [`crate::deliver`].
    pub(crate) delivering: Arc<Mutex<BTreeSet<OrderId>>>,
    status: Mutex<ProviderStatus>,
    known: Mutex<Option<Known>>,
    book: Mutex<Book>,
    /// Orders that did not pay or were refused when they were last looked at: they may be taken once they
    /// are older, or the stake is free. (T-12)
    left: Mutex<BTreeSet<OrderId>>,
    /// What the account had earned when this provider first asked.
    earned_before: Mutex<Option<Earned>>,
}

/// What a provider works with.
pub struct Parts {
    pub client: Arc<dyn LedgerClient>,
    pub clock: Arc<dyn Clock>,
    pub key: SessionKeyPair,
    pub content: Arc<dyn Content>,
    pub content_private: Arc<dyn Content>,
    pub compute: Arc<dyn Compute>,
    pub journal: Arc<dyn Journal>,
}

/// Why a step was not taken.
#[derive(Debug, thiserror::Error)]
enum StepError {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error(transparent)]
    Send(#[from] SendError),
    #[error(transparent)]
    Content(#[from] althing_sdk::ContentError),
    #[error(transparent)]
    Compute(#[from] crate::ComputeError),
    #[error(transparent)]
    Journal(#[from] crate::JournalError),
}

/// Steps that say an answer is wrong, or which of two is right.
fn is_dispute(step: Step) -> bool {
    matches!(step, Step::Contest | Step::Vote { .. } | Step::VoteCommit | Step::VoteOpen)
}

impl Provider {
    /// A provider on `chain`.
    pub fn new(config: ProviderConfig, chain: ChainId, parts: Parts) -> Self {
        let signer = SessionSigner { account: config.account, key: parts.key.clone() };
        let left_out = parts.compute.serving().unwrap_or_default().left_out;
        let status = ProviderStatus {
            last_error: left_out.into_iter().map(|left| left.why).reduce(|all, why| format!("{all}; {why}")),
            account: config.account,
            endpoint: config.endpoint.clone(),
            behaviour: config.behaviour,
            models: config.models.clone(),
            ..ProviderStatus::default()
        };
        Self {
            chain,
            sender: Sender::new(parts.client.clone(), parts.clock.clone(), Arc::new(signer), chain),
            client: parts.client,
            clock: parts.clock,
            key: parts.key,
            content: parts.content,
            content_private: parts.content_private,
            compute: parts.compute,
            journal: parts.journal,
            salts: Mutex::new(StdRng::from_seed(config.salt_seed)),
            results: Mutex::default(),
            delivering: Arc::default(),
            status: Mutex::new(status),
            known: Mutex::default(),
            book: Mutex::default(),
            left: Mutex::default(),
            earned_before: Mutex::default(),
            config,
        }
    }

    /// What it did so far; what it earned is as of its last look at the ledger.
    pub fn status(&self) -> ProviderStatus {
        let mut status = self.status.lock().clone();
        if let Some(Known { params, market }) = self.known.lock().clone() {
            self.show_earned(&mut status, market.account.earned);
            status.by_model = market.models.keys().filter_map(|id| self.show_model(id, &params, &market)).collect();
        }
        status.serving = self.compute.serving();
        status.elsewhere = self.compute.elsewhere();
        status.decisions = self.book.lock().decisions();
        status
    }

    /// The status with what it earned by now. (E-4)
    pub async fn report(&self) -> ProviderStatus {
        let mut status = self.status();
        // Out of reach: what was known last is still an answer.
        if let Ok(view) = self.client.account(self.config.account).await {
            self.show_earned(&mut status, view.account.earned);
        }
        status
    }

    fn show_earned(&self, status: &mut ProviderStatus, earned: Earned) {
        status.earned = earned;
        status.earned_since_start = earned_since(earned, self.earned_before.lock().unwrap_or(earned));
    }

    fn show_model(&self, id: &ModelId, params: &Params, market: &Market) -> Option<ModelStatus> {
        let (model, measure) = (market.models.get(id)?, self.book.lock().measure(id));
        let reward = |emission| run_reward(model, params, emission, measure.output_bytes());
        let reward = market.emission.as_ref().map(reward).unwrap_or_default();
        Some(ModelStatus {
            model: *id,
            name: model.name.clone(),
            runs: measure.runs,
            run_ms: measure.run_ms(),
            output_bytes: measure.output_bytes(),
            supporters: model.supporters,
            reward: own_part(reward, &market.provider, self.clock.now_ms()),
        })
    }

    pub(crate) fn count(&self, change: impl FnOnce(&mut ProviderStatus)) {
        change(&mut self.status.lock());
    }

    fn trouble(&self, what: &dyn std::fmt::Display) {
        tracing::warn!(provider = %self.config.account, "{what}");
        self.status.lock().last_error = Some(what.to_string());
    }

    /// Works until it is dropped. A ledger that is out of reach is waited for; nothing is lost
    /// meanwhile, since every look at an order starts from its state.
    pub async fn run(&self) {
        loop {
            if let Err(error) = self.follow().await {
                self.trouble(&error);
            }
            self.clock.sleep_ms(RETRY_MS).await;
        }
    }

    /// Announces itself, catches up and follows blocks until the connection ends.
    async fn follow(&self) -> Result<(), SendError> {
        self.announce().await?;
        let height = self.client.status().await?.height;
        let mut blocks = self.client.events(height + 1).await?.fuse();
        // After the first block that will be seen is fixed: no change of parameters is missed.
        let (params, market) = (self.client.params().await?, self.read_market().await?);
        *self.known.lock() = Some(Known { params: Arc::new(params), market: Arc::new(market) });
        let mut busy = BTreeSet::new();
        let mut again = BTreeSet::new();
        let mut reading_market = false;
        let mut tasks: FuturesUnordered<BoxFuture<'_, Done>> = FuturesUnordered::new();
        let mut looks: Vec<OrderId> =
            self.client.orders(OrderFilter::Open).await?.iter().map(|order| order.id).collect();
        loop {
            for order in looks.drain(..) {
                // One look at an order at a time; whatever happens during it gives another.
                if busy.insert(order) {
                    tasks.push(self.attend(order).map(move |()| Done::Order(order)).boxed());
                } else {
                    again.insert(order);
                }
            }
            // In this order always: chance would make simulations differ.
            futures::select_biased! {
                block = blocks.next() => match block {
                    Some(block) => {
                        let block = block?;
                        self.count(|status| status.height = block.height);
                        self.keep_params(&block).await?;
                        if !reading_market && self.market_is_old() {
                            reading_market = true;
                            tasks.push(self.refresh_market().map(|()| Done::Market).boxed());
                        }
                        let mut orders: Vec<_> = block.events.iter().filter_map(Event::order).collect();
                        orders.dedup();
                        looks.extend(orders);
                    }
                    None => return Ok(()),
                },
                done = tasks.select_next_some() => match done {
                    Done::Market => {
                        reading_market = false;
                        looks.extend(self.left.lock().iter().filter(|order| !busy.contains(order)));
                    }
                    Done::Order(order) => {
                        busy.remove(&order);
                        if again.remove(&order) {
                            looks.push(order);
                        }
                    }
                }
            }
        }
    }

    /// Reads the parameters again if a vote changed them in `block`. (G-1)
    async fn keep_params(&self, block: &BlockEvents) -> Result<(), ClientError> {
        if block.events.iter().any(|event| matches!(event, Event::ParamsSet { .. })) {
            let params = Arc::new(self.client.params().await?);
            if let Some(known) = self.known.lock().as_mut() {
                known.params = params;
            }
        }
        Ok(())
    }

    fn market_is_old(&self) -> bool {
        let read_ms = self.known.lock().as_ref().map_or(0, |known| known.market.read_ms);
        self.clock.now_ms().saturating_sub(read_ms) >= MARKET_AGE_MS_MAX
    }

    /// Reads the market again; until the ledger is in reach the old one stays.
    async fn refresh_market(&self) {
        match self.read_market().await {
            Ok(market) => {
                if let Some(known) = self.known.lock().as_mut() {
                    known.market = Arc::new(market);
                }
            }
            Err(error) => self.trouble(&error),
        }
    }

    /// Asks the ledger what appraisals depend on beside orders and parameters. (T-12)
    async fn read_market(&self) -> Result<Market, ClientError> {
        let read_ms = self.clock.now_ms();
        let account = self.client.account(self.config.account).await?.account;
        self.earned_before.lock().get_or_insert(account.earned);
        let provider = self.client.provider(self.config.account).await?;
        let mut models = BTreeMap::new();
        for id in &self.config.models {
            models.insert(*id, self.client.model(&id.to_string()).await?);
        }
        let emission = match self.client.emission().await {
            Ok(emission) => Some(emission),
            // A node that does not tell: fees alone decide.
            Err(ClientError::NotFound(_)) => None,
            Err(error) => return Err(error),
        };
        Ok(Market { read_ms, account, provider, models, emission })
    }

    /// Tells the ledger which models it serves, and where, if the ledger does not know. (T-13)
    async fn announce(&self) -> Result<(), SendError> {
        let known = match self.client.provider(self.config.account).await {
            Ok(provider) => provider,
            Err(ClientError::NotFound(_)) => {
                return Err(SendError::Ledger(althing_types::LedgerError::NotProvider));
            }
            Err(error) => return Err(error.into()),
        };
        let (mut have, mut want) = (known.models, self.config.models.clone());
        have.sort_unstable();
        want.sort_unstable();
        if have != want || known.endpoint != self.config.endpoint {
            let call = Call::ModelSupport { models: want, endpoint: self.config.endpoint.clone() };
            self.sender.send(call).await?;
        }
        Ok(())
    }

    /// Looks at an order and does what is to be done, until nothing is.
    async fn attend(&self, id: OrderId) {
        let mut last = None;
        loop {
            let step = match self.look(id, &mut last).await {
                Ok(step) => step,
                Err(StepError::Client(ClientError::NotFound(_))) => {
                    self.left.lock().remove(&id);
                    return;
                }
                // Somebody was faster, the window closed, or the stake is reserved for other work: if no
                // event tells, a later look does.
                Err(StepError::Send(SendError::Ledger(error))) => {
                    tracing::debug!(provider = %self.config.account, order = %id.short(), %error, "refused");
                    return self.look_again(id);
                }
                Err(error) => {
                    self.look_again(id);
                    return self.trouble(&format!("order {}: {error}", id.short()));
                }
            };
            if step == Step::Nothing {
                return;
            }
        }
    }

    async fn look(&self, id: OrderId, last: &mut Option<Step>) -> Result<Step, StepError> {
        let Some(known) = self.known.lock().clone() else { return Ok(Step::Nothing) };
        let order = self.client.order(id).await?;
        if order.state.is_final() {
            self.journal.forget(&id);
            self.results.lock().remove(&id);
            self.left.lock().remove(&id);
            return Ok(Step::Nothing);
        }
        let case = match self.client.case(id).await {
            Ok(case) => Some(case),
            Err(ClientError::NotFound(_)) => None,
            Err(error) => return Err(error.into()),
        };
        let result = self.results.lock().get(&id).copied();
        let status = self.client.status().await?;
        let step = decide(
            &order,
            case.as_ref(),
            &Situation {
                me: self.config.account,
                now_ms: status.time_ms,
                active_ms: status.active_ms,
                serves: self.serves(&order),
                worthwhile: result.is_none() && self.worthwhile(&order, &known, status.time_ms),
                watches: watches(&id, &self.config.account, &self.key.secret(), self.config.watch_share),
                result: result.map(|result| result.output),
                promised: self.journal.get(&id).is_some(),
                delivering: self.delivering.lock().contains(&id) || self.is_given_up(&order),
            },
        );
        let step = match (self.config.behaviour, step) {
            (Behaviour::Liar, Step::Run | Step::Commit) if order.solutions.is_empty() => Step::Commit,
            (Behaviour::Liar, Step::Reveal) => Step::Reveal,
            (Behaviour::Liar, _) => Step::Nothing,
            (Behaviour::Honest, step) => step,
        };
        // A step that changed nothing is not repeated in the same look: the next event decides.
        if last.replace(step) == Some(step) {
            return Ok(Step::Nothing);
        }
        let round = case.and_then(|case| case.jury).map_or(0, |jury| jury.round);
        if !is_dispute(step) {
            self.take(&order, step, result, &known.params, round).await?;
        } else if self.can_pay(&order, step, &known.params, status.time_ms).await? {
            let taken = self.take(&order, step, result, &known.params, round).await;
            if let Err(StepError::Send(SendError::Ledger(error))) = &taken {
                self.skip_dispute(&order, status.time_ms, format!("left: the ledger refused it: {error}"));
            }
            taken?;
        } else {
            return Ok(Step::Nothing);
        }
        Ok(step)
    }

    /// Whether it can run an order's model to any purpose: of one that nobody can check, only what it is to answer
    /// itself. (T-20)
    fn serves(&self, order: &Order) -> bool {
        let own = order.lane == Lane::Chosen { provider: self.config.account };
        if own { self.compute.serves(&order.model) } else { self.compute.is_exact(&order.model) }
    }

    /// Remembers that an order's client was told that nothing comes.
    pub(crate) fn give_up(&self, order: OrderId) {
        if let Err(error) = self.journal.give_up(&order) {
            self.trouble(&error);
        }
    }

    /// Whether an order's client was told that nothing comes: it must not be charged after all.
    pub(crate) fn is_given_up(&self, order: &Order) -> bool {
        order.lane == (Lane::Chosen { provider: self.config.account }) && self.journal.is_given_up(&order.id)
    }

    /// Asks the policy whether a run for what the order offers now pays. (T-12)
    fn worthwhile(&self, order: &Order, known: &Known, now_ms: u64) -> bool {
        self.left.lock().remove(&order.id);
        let measure = self.book.lock().measure(&order.model);
        let facts = Facts { me: self.config.account, now_ms, params: &known.params, market: &known.market, measure };
        let Some(offer) = offer(order, &facts).filter(|_| self.serves(order)) else { return false };
        let appraisal = self.config.policy.appraise(&offer);
        let take = appraisal.take;
        self.decided(order, offer.task, now_ms, appraisal);
        if !take {
            self.look_again(order.id);
        }
        take
    }

    /// Has an order looked at again when the market is read next, so many at a time.
    fn look_again(&self, order: OrderId) {
        let mut left = self.left.lock();
        if left.len() < LEFT_MAX {
            left.insert(order);
        }
    }

    /// Whether a dispute's transaction can be paid for: disputes need no profit, but they need that. (T-7, L-1)
    async fn can_pay(&self, order: &Order, step: Step, params: &Params, now_ms: u64) -> Result<bool, ClientError> {
        let call = match step {
            Step::Contest => Call::Contest { order: order.id, ballot: Some(Hash::ZERO) },
            // All votes cost alike.
            _ => Call::VoteCommit { order: order.id, ballot: Hash::ZERO },
        };
        let cost = transaction_cost(params, &call);
        let free = self.client.account(self.config.account).await?.account.free;
        if free < cost {
            self.skip_dispute(order, now_ms, format!("left: {free} ALTH are free, and its transaction costs {cost}"));
        }
        Ok(free >= cost)
    }

    fn skip_dispute(&self, order: &Order, now_ms: u64, reason: String) {
        self.decided(order, Task::Dispute, now_ms, Appraisal { reason, ..Appraisal::default() });
    }

    fn decided(&self, order: &Order, task: Task, time_ms: u64, appraisal: Appraisal) {
        tracing::debug!(
            provider = %self.config.account, order = %order.id.short(), task = task.name(), "{}", appraisal.reason
        );
        self.book.lock().decided(Decision { order: order.id, model: order.model, task, time_ms, appraisal });
    }

    async fn take(
        &self,
        order: &Order,
        step: Step,
        result: Option<RunResult>,
        params: &Params,
        round: u8,
    ) -> Result<(), StepError> {
        let id = order.id;
        tracing::debug!(provider = %self.config.account, order = %id.short(), ?step);
        match (step, result) {
            (Step::Nothing, _) => {}
            (Step::Run, _) => {
                self.run_order(order).await?;
            }
            (Step::Commit, result) => {
                let (output, output_size) = match (self.config.behaviour, result) {
                    (Behaviour::Honest, Some(result)) => (result.output, result.output_size),
                    (Behaviour::Honest, None) => return Ok(()),
                    (Behaviour::Liar, _) => {
                        let garbage = format!("{{\"garbage\":\"{}\"}}", self.salt());
                        (self.content.put(garbage.as_bytes()).await?, garbage.len() as u64)
                    }
                };
                let promise = Promise { output, output_size, salt: self.salt() };
                self.journal.keep(&id, &promise)?;
                let hash = commitment_hash(&self.chain, &id, &self.config.account, &output, output_size, &promise.salt);
                self.send(Call::OrderCommit { order: id, commitment: hash }).await?;
            }
            (Step::Reveal, _) => {
                let Some(promise) = self.journal.get(&id) else { return Ok(()) };
                let Promise { output, output_size, salt } = promise;
                self.send(Call::OrderReveal { order: id, output, output_size, salt }).await?;
                self.count(|status| status.reveals += 1);
                self.journal.forget(&id);
            }
            (Step::Complete, Some(result)) => {
                self.complete(&id, result).await?;
            }
            (Step::Agree, Some(result)) => {
                self.send(Call::Agree { order: id, output: result.output }).await?;
                self.count(|status| status.agreements += 1);
            }
            (Step::Contest, Some(result)) => {
                let ballot = params.votes_committed.then(|| self.ballot(&id, 0, &result).hash());
                self.send(Call::Contest { order: id, ballot }).await?;
                self.count(|status| status.contests += 1);
            }
            (Step::Vote { refute }, _) => {
                self.send(Call::Vote { order: id, refute }).await?;
                self.count(|status| status.votes += 1);
            }
            (Step::VoteCommit, Some(result)) => {
                self.send(self.ballot(&id, round, &result).commit()).await?;
            }
            (Step::VoteOpen, Some(result)) => {
                self.send(self.ballot(&id, round, &result).open()).await?;
                self.count(|status| status.votes += 1);
            }
            (Step::Complete | Step::Agree | Step::Contest | Step::VoteCommit | Step::VoteOpen, None) => {}
        }
        Ok(())
    }

    /// The chosen lane's signed completion. (M-5)
    pub(crate) async fn complete(&self, order: &OrderId, result: RunResult) -> Result<(), SendError> {
        let RunResult { output, output_size } = result;
        self.send(Call::OrderComplete { order: *order, output, output_size }).await?;
        self.count(|status| status.deliveries += 1);
        Ok(())
    }

    pub(crate) async fn send(&self, call: Call) -> Result<(), SendError> {
        self.sender.send(call).await.map(|_| ())
    }

    /// The committed vote for the own result. (T-7)
    fn ballot(&self, order: &OrderId, round: u8, result: &RunResult) -> Ballot {
        let answer = BallotAnswer::Output { output: result.output };
        Ballot::new(&self.chain, order, round, &self.config.account, answer, &self.key.secret())
    }

    fn salt(&self) -> Hash {
        let mut salt = Hash::ZERO;
        self.salts.lock().fill_bytes(&mut salt.0);
        salt
    }

    /// Runs an order's model and keeps the output.
    async fn run_order(&self, order: &Order) -> Result<(), StepError> {
        let content = self.content_of(order);
        let input = match &order.input {
            Input::Inline { bytes } => bytes.clone(),
            Input::Content { cid, size, source } if *size <= CONTENT_INPUT_BYTES_MAX => {
                let ProviderConfig { content_sources, sources_private, .. } = &self.config;
                let sources = Source::of_input(content_sources, source.as_ref(), *sources_private);
                let own_first = self.content_private.get(cid, *size..=*size, &[]).await;
                match own_first {
                    Ok(input) => input,
                    Err(_) => self.content.get(cid, *size..=*size, &sources).await?,
                }
            }
            Input::Content { .. } => return Ok(()),
        };
        let Some(seed) = order.seed else { return Ok(()) };
        let output = self.run_in_time(order, self.run_model(order.model, input, seed, None)).await?;
        self.keep(order.id, content, &output).await?;
        Ok(())
    }

    /// Gives a run up when nobody pays for it any more: an answer to a chosen order is of use until it has to be there,
    /// one to an open order also to judge the others by.
    pub(crate) async fn run_in_time(
        &self,
        order: &Order,
        run: impl Future<Output = Result<Vec<u8>, ComputeError>>,
    ) -> Result<Vec<u8>, ComputeError> {
        let until_ms = match (order.lane, &order.state) {
            (Lane::Open, _) => return run.await,
            (Lane::Chosen { .. }, OrderState::Accepted { deliver_by_ms }) => *deliver_by_ms,
            (Lane::Chosen { .. }, _) => order.deadline_ms,
        };
        let late = self.clock.sleep_ms(until_ms.saturating_sub(self.clock.now_ms()));
        match futures::future::select(std::pin::pin!(run), late).await {
            futures::future::Either::Left((result, _)) => result,
            futures::future::Either::Right(_) => Err(ComputeError::Late),
        }
    }

    /// Runs a model and measures the run.
    pub(crate) async fn run_model(
        &self,
        model: ModelId,
        input: Vec<u8>,
        seed: u64,
        pieces: Option<mpsc::UnboundedSender<String>>,
    ) -> Result<Vec<u8>, ComputeError> {
        let Ran { output, run_ms } = self.compute.run(model, input, seed, pieces).await?;
        self.book.lock().ran(model, run_ms, output.len() as u64);
        Ok(output)
    }

    /// Where an order's content is kept: what passes between client and chosen provider is theirs.
    pub(crate) fn content_of(&self, order: &Order) -> &Arc<dyn Content> {
        match order.lane {
            Lane::Open => &self.content,
            Lane::Chosen { .. } => &self.content_private,
        }
    }

    /// Keeps a run's output and remembers it.
    pub(crate) async fn keep(
        &self,
        order: OrderId,
        content: &Arc<dyn Content>,
        output: &[u8],
    ) -> Result<RunResult, althing_sdk::ContentError> {
        let result = RunResult { output: content.put(output).await?, output_size: output.len() as u64 };
        self.count(|status| status.runs += 1);
        let mut results = self.results.lock();
        if results.len() >= RESULTS_MAX {
            results.pop_first();
        }
        results.insert(order, result);
        Ok(result)
    }

    pub(crate) fn result(&self, order: &OrderId) -> Option<RunResult> {
        self.results.lock().get(order).copied()
    }
}
