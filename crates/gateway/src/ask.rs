//! From a question to a verified answer with its receipt.

use crate::{
    deliveries::{Deliveries, DeliveryError},
    forms::{Form, Forms, Sources, serves},
    keys::ApiKey,
    packages::Packages,
    receipts::Receipts,
};
use althing_content::file_cid;
use althing_runtime::{
    ChatInput, ChatOutput, EmbeddingInput, EmbeddingOutput, Engine, ImageInput, Interface, SpeechInput,
    chat::Finish,
    embedding::Vector,
    media::{audio_type, image_type},
    wasm::RefusalOutput,
};
use althing_sdk::{
    ClientError, Clock, Content, ContentError, LedgerClient, Receipt, SendError, Sender, Source,
    delivery::{DeliveryRequest, FailureReason, Frame, Transcript},
    order_until,
};
use althing_types::{
    Address, Amount, Call, ChainId, Cid, ContentSource, Input, Lane, LedgerError, Model, ModelId, Order, OrderId,
    OrderState, Params, Provider, RefundReason, Verification, call::OrderSubmit, object::INLINE_INPUT_BYTES_MAX,
};
use futures::{StreamExt as _, future::Either};
use parking_lot::Mutex;
use rand::{SeedableRng as _, rngs::StdRng, seq::SliceRandom as _};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
use tokio::sync::mpsc;

/// Largest output that is fetched, bytes.
const OUTPUT_BYTES_MAX: u64 = 64 << 20;
/// Chosen providers that are tried before a request fails.
const PROVIDERS_TRIED_MAX: usize = 3;
/// How far the completion may trail the delivery's last frame, ms.
const COMPLETION_WAIT_MS: u64 = 15_000;

/// What the gateway offers and asks for.
#[derive(Clone, Debug)]
pub struct GatewayConfig {
    /// What it offers for a run beside the model's own fee.
    pub fee_open: Amount,
    pub fee_chosen: Amount,
    /// Agreements that it asks and pays for in the open lane. (V-1)
    pub agreements: u8,
    /// How long providers have for an order, ms.
    pub answer_within_ms: u64,
    /// Orders that it opens for one question while answers are refuted.
    pub attempts_max: u32,
    /// Where others reach its content, which orders with long inputs name. (T-1)
    pub content_url: Option<ContentSource>,
    /// Seeds the choice among providers.
    pub choice_seed: u64,
    /// Whether providers at private addresses are asked: they are strangers, and say themselves where they are.
    pub sources_private: bool,
    /// By the model's name, who alone is asked for it in the chosen lane.
    pub providers_trusted: BTreeMap<String, BTreeSet<Address>>,
}

impl Default for GatewayConfig {
    fn default() -> Self {
        Self {
            fee_open: Amount(Amount::tokens(1).0 / 100),
            fee_chosen: Amount(Amount::tokens(1).0 / 200),
            agreements: 2,
            answer_within_ms: 60_000,
            attempts_max: 3,
            content_url: None,
            choice_seed: 0,
            sources_private: false,
            providers_trusted: BTreeMap::new(),
        }
    }
}

/// What the gateway works with.
pub struct Parts {
    pub client: Arc<dyn LedgerClient>,
    pub clock: Arc<dyn Clock>,
    pub content: Arc<dyn Content>,
    pub deliveries: Arc<dyn Deliveries>,
    pub receipts: Arc<dyn Receipts>,
    /// Where packages say what form their models' requests have.
    pub packages: Arc<dyn Packages>,
    /// Models at hand: inputs that are too long for them are refused before anybody pays.
    pub engines: BTreeMap<ModelId, Arc<dyn Engine>>,
}

/// How sure an answer is. (V-1)
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Its provider stands for it with its bond; nobody else has confirmed it yet.
    None,
    /// At least one other provider re-ran it and got the same bits.
    Agreed,
    /// Its challenge window passed.
    Final,
}

impl Level {
    /// The level of an order's standing solution.
    pub fn of(order: &Order) -> Self {
        match order.state {
            OrderState::Claimed => Self::Final,
            OrderState::Solved { .. } if !order.agreements.is_empty() => Self::Agreed,
            _ => Self::None,
        }
    }
}

/// The lane that a client wishes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LaneWish {
    /// A race; question and answer become public.
    Open,
    /// One provider, straight to the client.
    Chosen,
}

/// What a model is given.
#[derive(Clone, Debug, PartialEq)]
pub enum AskInput {
    Chat(ChatInput),
    Embedding(EmbeddingInput),
    /// Whatever the model takes, in the client's own words: its bytes are what is run on.
    Json(String),
    Image(ImageInput),
    Speech(SpeechInput),
    /// A client's request, for a model whose server takes it as it is.
    Passthrough {
        interface: Interface,
        /// A JSON object without the model's name.
        body: String,
    },
}

impl Ask {
    /// The interface of its input.
    pub fn input_interface(&self) -> Interface {
        self.input.interface()
    }
}

impl AskInput {
    fn to_bytes(&self) -> Vec<u8> {
        match self {
            Self::Chat(input) => input.to_bytes(),
            Self::Embedding(input) => input.to_bytes(),
            Self::Json(input) => input.clone().into_bytes(),
            Self::Image(input) => input.to_bytes(),
            Self::Speech(input) => input.to_bytes(),
            Self::Passthrough { body, .. } => body.clone().into_bytes(),
        }
    }

    fn passes_through(&self) -> bool {
        matches!(self, Self::Passthrough { .. })
    }

    fn interface(&self) -> Interface {
        match self {
            Self::Chat(_) => Interface::Chat,
            Self::Embedding(_) => Interface::Embedding,
            Self::Json(_) => Interface::Json,
            Self::Image(_) => Interface::Image,
            Self::Speech(_) => Interface::Speech,
            Self::Passthrough { interface, .. } => *interface,
        }
    }
}

/// A question.
#[derive(Clone, Debug, PartialEq)]
pub struct Ask {
    /// Name of a registered model.
    pub model: String,
    pub lane: LaneWish,
    pub input: AskInput,
    /// A sampling seed fixed by the client. (T-2)
    pub seed: Option<u64>,
    /// The provider that the client chooses, in the chosen lane; any that serves the model if it says nothing.
    pub provider: Option<Address>,
    /// The level that the client waits for, at least; if it says nothing, what the lane is for.
    pub wait: Option<Level>,
}

/// What happens while an answer comes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The order is in a block, its fee escrowed; whether anybody can check what will come of it. (T-20)
    Ordered { order: OrderId, provider: Option<Address>, fee: Amount, verification: Verification },
    /// Somebody answered; others look at it now.
    Answered { provider: Address },
    /// The answer was disputed: the network decides.
    Contested { order: OrderId },
    /// The answer was wrong, its provider slashed; the question is asked again.
    Refuted { order: OrderId, provider: Option<Address> },
    /// The next piece of the answer.
    Text(String),
}

/// What a model gave.
#[derive(Clone, Debug, PartialEq)]
pub enum AnswerOutput {
    Chat {
        text: String,
        finish_reason: Finish,
        prompt_tokens: u32,
        completion_tokens: u32,
    },
    Embeddings {
        vectors: Vec<Vector>,
        prompt_tokens: u32,
    },
    /// As the model wrote it.
    Json(String),
    /// A picture or a sound.
    File {
        media_type: &'static str,
        bytes: Vec<u8>,
    },
    /// As the model's server wrote it: text that was said as it came, or a file.
    Passthrough {
        bytes: Vec<u8>,
        is_said: bool,
    },
}

impl AnswerOutput {
    /// What is said of the answer while it is made: the words of a chat, whatever a server writes.
    pub fn text(&self) -> &str {
        match self {
            Self::Chat { text, .. } => text,
            Self::Passthrough { bytes, is_said: true } => std::str::from_utf8(bytes).unwrap_or_default(),
            Self::Passthrough { .. } | Self::Embeddings { .. } | Self::Json(_) | Self::File { .. } => "",
        }
    }
}

/// A verified answer.
#[derive(Clone, Debug)]
pub struct Answer {
    pub output: AnswerOutput,
    pub order: Order,
    /// With as little verification as its package claims.
    pub model: Model,
    pub provider: Address,
    pub output_cid: Cid,
    pub agreed_by: Vec<Address>,
    pub level: Level,
    pub receipt: Receipt,
    /// Where the receipt was saved.
    pub receipt_place: String,
    /// Where this gateway serves it.
    pub receipt_path: String,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    #[error("the model `{0}` does not exist")]
    UnknownModel(String),
    #[error("the account cannot pay: {needed} ALTH are needed, {available} ALTH may be spent")]
    InsufficientFunds { needed: Amount, available: Amount },
    #[error("{message}")]
    Refused { code: String, message: String },
    #[error("no provider serves {0} at the moment")]
    NoProvider(String),
    #[error("nobody who serves {0} says what it takes: its package cannot be fetched at the moment")]
    PackageUnavailable(String),
    #[error("nobody answered order {0} in time; its fee is refunded")]
    NotAnswered(OrderId),
    #[error("the answers of {0} orders were refuted; their fees are refunded")]
    Refuted(u32),
    #[error("order {0} is not settled yet: ask for it later")]
    Unsettled(OrderId),
    #[error("the delivery failed: {0}")]
    Delivery(#[from] DeliveryError),
    #[error("the provider delivered something else than it stated on the ledger")]
    Dishonest,
    #[error("the answer of order {order} cannot be used: {reason}")]
    Unusable { order: OrderId, reason: String },
    #[error(transparent)]
    Content(#[from] ContentError),
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error(transparent)]
    Send(SendError),
    #[error("the receipt could not be saved: {0}")]
    Receipt(#[from] std::io::Error),
}

impl From<SendError> for AskError {
    fn from(error: SendError) -> Self {
        match error {
            SendError::Ledger(LedgerError::InsufficientBalance { needed, free }) => {
                Self::InsufficientFunds { needed, available: free }
            }
            SendError::Ledger(LedgerError::SpendLimit { needed, left }) => {
                Self::InsufficientFunds { needed, available: left }
            }
            SendError::Client(error) => Self::Client(error),
            error => Self::Send(error),
        }
    }
}

/// A gateway.
pub struct Gateway {
    config: GatewayConfig,
    chain: ChainId,
    network_key: String,
    parts: Parts,
    /// One sender per session key: two would fight over its nonce.
    senders: Mutex<BTreeMap<althing_types::SessionPublicKey, Arc<Sender>>>,
    choice: Mutex<StdRng>,
    forms: Forms,
}

type ProgressSender = mpsc::UnboundedSender<Progress>;

/// Why a provider gave up.
fn failure(reason: FailureReason, code: Option<String>, message: String) -> AskError {
    match reason {
        FailureReason::Refused => AskError::Refused { code: code.unwrap_or_else(|| "invalid_input".into()), message },
        FailureReason::Busy => DeliveryError::Busy(message).into(),
        FailureReason::Unavailable => DeliveryError::Unavailable(message).into(),
        FailureReason::Failed => DeliveryError::Refused(message).into(),
    }
}

/// Nobody may be listening any more; the answer is completed all the same.
fn tell(progress: &ProgressSender, what: Progress) {
    let _ = progress.send(what);
}

/// How sure the answer must be: in the open lane an agreement is waited for, where the network pays
/// for agreements. (V-1)
fn level_wanted(ask: &Ask, params: &Params) -> Result<Level, AskError> {
    let agreements = params.agreements_wanted_max > 0;
    match ask.wait {
        Some(Level::Agreed) if !agreements => {
            let message = "this network pays for no agreements: wait for `none` or `final`".into();
            Err(AskError::Refused { code: "no_agreements".into(), message })
        }
        Some(level) => Ok(level),
        None if agreements => Ok(Level::Agreed),
        None => Ok(Level::None),
    }
}

/// Whether anybody can check a model's answers: the ledger's word, unless its package says less.
pub fn verification(form: Option<Form>, model: &Model) -> Verification {
    match form {
        Some(Form { is_exact: false, .. }) => Verification::None,
        _ => model.verification,
    }
}

/// Refuses what is not for this model or this lane, before anybody pays.
fn check_form(form: Option<Form>, model: &Model, ask: &Ask) -> Result<(), AskError> {
    let refused = |code: &str, message| Err(AskError::Refused { code: code.into(), message });
    if ask.lane == LaneWish::Open && model.verification == Verification::None {
        let message = format!(
            "Nobody can check the answers of `{0}`, so there is no race for them: ask for `{0}` itself, without `:open`.",
            model.name
        );
        return refused("not_verifiable", message);
    }
    match form {
        Some(form) if form.interface != ask.input.interface() => {
            let path = form.interface.path();
            let message = format!("The model `{}` is not for this: it answers at /v1/{path}.", ask.model);
            refused("wrong_interface", message)
        }
        Some(form) if form.passes_through != ask.input.passes_through() => {
            refused("wrong_interface", format!("The model `{}` takes other requests than this one.", ask.model))
        }
        _ => Ok(()),
    }
}

/// Refuses what the model would refuse, before anybody pays.
fn check_length(engine: &dyn Engine, input: &[u8]) -> Result<(), AskError> {
    match engine.measure(input) {
        Some((tokens, context)) if tokens >= context => {
            let what = match engine.interface() {
                Interface::Chat => "messages",
                Interface::Embedding => "longest text",
                Interface::Json | Interface::Image | Interface::Speech => "input",
            };
            let message = format!(
                "This model's maximum context length is {context} tokens. However, your {what} resulted in {tokens} tokens. Please reduce the length of the {what}."
            );
            Err(AskError::Refused { code: "context_length_exceeded".into(), message })
        }
        _ => Ok(()),
    }
}

/// Reads an output of the interface that was asked for.
fn read_output(input: &AskInput, order: OrderId, bytes: &[u8]) -> Result<AnswerOutput, AskError> {
    let unusable = |what: &str, error: serde_json::Error| AskError::Unusable {
        order,
        reason: format!("it is not {what} output: {error}"),
    };
    if input.passes_through() {
        let is_said = input.interface() != Interface::Speech;
        return Ok(AnswerOutput::Passthrough { bytes: bytes.to_vec(), is_said });
    }
    let refusal = match input.interface() {
        Interface::Chat => match ChatOutput::parse(bytes).map_err(|error| unusable("a chat", error))? {
            ChatOutput::Answer { text, finish_reason, prompt_tokens, completion_tokens } => {
                return Ok(AnswerOutput::Chat { text, finish_reason, prompt_tokens, completion_tokens });
            }
            ChatOutput::Refusal { error } => error,
        },
        Interface::Embedding => {
            match EmbeddingOutput::parse(bytes).map_err(|error| unusable("an embedding", error))? {
                EmbeddingOutput::Vectors { vectors, prompt_tokens } => {
                    return Ok(AnswerOutput::Embeddings { vectors, prompt_tokens });
                }
                EmbeddingOutput::Refusal { error } => error,
            }
        }
        Interface::Json => match RefusalOutput::parse(bytes) {
            Some(refusal) => refusal.error,
            None => {
                let output: &RawValue = serde_json::from_slice(bytes).map_err(|error| unusable("a JSON", error))?;
                return Ok(AnswerOutput::Json(output.get().to_owned()));
            }
        },
        interface @ (Interface::Image | Interface::Speech) => {
            let (media_type, what) = match interface {
                Interface::Image => (image_type(bytes), "a picture"),
                _ => (audio_type(bytes), "a sound"),
            };
            match (media_type, RefusalOutput::parse(bytes)) {
                (Some(media_type), _) => return Ok(AnswerOutput::File { media_type, bytes: bytes.to_vec() }),
                (None, Some(refusal)) => refusal.error,
                (None, None) => return Err(AskError::Unusable { order, reason: format!("it is not {what}") }),
            }
        }
    };
    Err(AskError::Refused { code: refusal.code, message: refusal.message })
}

impl Gateway {
    /// A gateway on the network that `client` is connected to.
    ///
    /// # Errors
    /// If the ledger cannot be reached.
    pub async fn new(config: GatewayConfig, parts: Parts) -> Result<Self, ClientError> {
        let status = parts.client.status().await?;
        let choice = Mutex::new(StdRng::seed_from_u64(config.choice_seed));
        let (chain, network_key) = (status.chain, status.network_key);
        Ok(Self { config, chain, network_key, parts, senders: Mutex::default(), choice, forms: Forms::default() })
    }

    /// The ledger.
    pub fn client(&self) -> &Arc<dyn LedgerClient> {
        &self.parts.client
    }

    /// The kept receipts.
    pub fn receipts(&self) -> &Arc<dyn Receipts> {
        &self.parts.receipts
    }

    fn sender(&self, key: &ApiKey) -> Arc<Sender> {
        let signer = key.signer();
        let sender = || {
            let (client, clock) = (self.parts.client.clone(), self.parts.clock.clone());
            Arc::new(Sender::new(client, clock, Arc::new(signer.clone()), self.chain))
        };
        self.senders.lock().entry(signer.key.public()).or_insert_with(sender).clone()
    }

    async fn model(&self, name: &str) -> Result<Model, AskError> {
        match self.parts.client.model(name).await {
            Err(ClientError::NotFound(_)) => Err(AskError::UnknownModel(name.to_owned())),
            other => Ok(other?),
        }
    }

    /// What form a model's requests have; `None` if nobody says, and answers can be checked.
    ///
    /// # Errors
    /// If that is not known and has to be.
    pub async fn form(&self, model: &Model) -> Result<Option<Form>, AskError> {
        let Parts { engines, packages, client, clock, .. } = &self.parts;
        let sources = Sources {
            engines,
            packages: &**packages,
            client: &**client,
            clock: &**clock,
            public_only: !self.config.sources_private,
        };
        self.forms.of(model, &sources).await
    }

    /// The same by the model's name.
    ///
    /// # Errors
    /// If there is no such model.
    pub async fn form_of(&self, name: &str) -> Result<Option<Form>, AskError> {
        self.form(&self.model(name).await?).await
    }

    /// Answers a question, telling `progress` what happens. Ends in bounded time, whatever others do.
    ///
    /// # Errors
    /// Why there is no answer; what was not earned is refunded by the ledger.
    pub async fn ask(&self, key: &ApiKey, ask: &Ask, progress: &ProgressSender) -> Result<Answer, AskError> {
        let model = self.model(&ask.model).await?;
        let form = self.form(&model).await?;
        let model = Model { verification: verification(form, &model), ..model };
        check_form(form, &model, ask)?;
        let input = ask.input.to_bytes();
        if let Some(engine) = self.parts.engines.get(&model.id) {
            check_length(&**engine, &input)?;
        }
        let params = self.parts.client.params().await?;
        match ask.lane {
            LaneWish::Open => self.ask_open(key, ask, &model, input, &params, progress).await,
            LaneWish::Chosen => self.ask_chosen(key, ask, &model, input, &params, progress).await,
        }
    }

    /// Refuses before anything is signed what the account cannot pay.
    async fn check_funds(&self, key: &ApiKey, fee: Amount) -> Result<(), AskError> {
        let account = self.parts.client.account(key.account).await?;
        let session = self.parts.client.session_key(key.account, key.pair().public()).await?;
        let available = account.account.free.min(session.spend_left);
        if available < fee {
            return Err(AskError::InsufficientFunds { needed: fee, available });
        }
        Ok(())
    }

    async fn submit(&self, key: &ApiKey, order: OrderSubmit) -> Result<OrderId, AskError> {
        self.check_funds(key, order.fee).await?;
        let included = self.sender(key).send(Call::OrderSubmit(order)).await?;
        let unreachable =
            || ClientError::Unreachable { node: "the node".into(), reason: "the receipt names no order".into() };
        Ok(included.receipt.order.ok_or_else(unreachable)?)
    }

    fn order_of(&self, ask: &Ask, model: &Model, fee: Amount, lane: Lane, input: Input, agreements: u8) -> OrderSubmit {
        let fee = Amount(model.fee.0.saturating_add(fee.0));
        OrderSubmit {
            model: model.id,
            input,
            fee,
            max_total: fee,
            lane,
            deadline_ms: self.parts.clock.now_ms() + self.config.answer_within_ms,
            seed: ask.seed,
            agreements,
            parent: None,
            budget: None,
        }
    }

    // ---- open lane ----

    async fn ask_open(
        &self,
        key: &ApiKey,
        ask: &Ask,
        model: &Model,
        input: Vec<u8>,
        params: &Params,
        progress: &ProgressSender,
    ) -> Result<Answer, AskError> {
        let level = level_wanted(ask, params)?;
        let agreements = self.config.agreements.min(params.agreements_wanted_max);
        for _ in 0..self.config.attempts_max {
            let order_input = if input.len() <= INLINE_INPUT_BYTES_MAX {
                Input::Inline { bytes: input.clone() }
            } else {
                let (cid, source) = (self.parts.content.put(&input).await?, self.config.content_url.clone());
                Input::Content { cid, size: input.len() as u64, source }
            };
            let submit = self.order_of(ask, model, self.config.fee_open, Lane::Open, order_input, agreements);
            let (fee, deadline_ms) = (submit.fee, submit.deadline_ms);
            let id = self.submit(key, submit).await?;
            tell(progress, Progress::Ordered { order: id, provider: None, fee, verification: model.verification });
            let order = self.wait_open(id, level, deadline_ms, params, progress).await?;
            match order.state {
                OrderState::Refunded {
                    reason: RefundReason::Refuted | RefundReason::Voided | RefundReason::Undecided,
                } => {
                    let provider = self.parts.client.case(id).await.ok().map(|case| case.solver);
                    tell(progress, Progress::Refuted { order: id, provider });
                }
                OrderState::Refunded { .. } => return Err(AskError::NotAnswered(id)),
                _ => {
                    let output = self.fetch_output(&order).await?;
                    let answer = self.finish(key, id, ask, model, input, output).await?;
                    tell(progress, Progress::Text(answer.output.text().to_owned()));
                    return Ok(answer);
                }
            }
        }
        Err(AskError::Refuted(self.config.attempts_max))
    }

    /// Waits until the order is as sure as `level`, or over.
    async fn wait_open(
        &self,
        id: OrderId,
        level: Level,
        deadline_ms: u64,
        params: &Params,
        progress: &ProgressSender,
    ) -> Result<Order, AskError> {
        // Each dispute can bring another answer with another window; there are three at most.
        let until_ms = deadline_ms + 4 * params.claim_lifetime_ms();
        let told = Mutex::new((false, false));
        let order = order_until(&*self.parts.client, &*self.parts.clock, id, until_ms, |order| {
            let mut told = told.lock();
            match (&order.state, order.solutions.first()) {
                (OrderState::Solved { .. }, Some(solution)) if !told.0 => {
                    told.0 = true;
                    tell(progress, Progress::Answered { provider: solution.provider });
                }
                (OrderState::Contested { .. }, _) if !told.1 => {
                    told.1 = true;
                    tell(progress, Progress::Contested { order: order.id });
                }
                _ => {}
            }
            let solved = matches!(order.state, OrderState::Solved { .. });
            order.state.is_final() || (solved && Level::of(order) >= level)
        })
        .await?;
        if order.state.is_final() || Level::of(&order) >= level {
            return Ok(order);
        }
        Err(AskError::Unsettled(id))
    }

    /// The output of a solved order, from its solver or whoever agreed.
    async fn fetch_output(&self, order: &Order) -> Result<Vec<u8>, AskError> {
        let unusable = |reason: &str| AskError::Unusable { order: order.id, reason: reason.into() };
        let solution = order.solutions.first().ok_or_else(|| unusable("no solution stands"))?;
        let mut sources = Vec::new();
        for provider in std::iter::once(solution.provider).chain(order.agreements.iter().map(|a| a.provider)) {
            if let Ok(Provider { endpoint, .. }) = self.parts.client.provider(provider).await
                && !endpoint.is_empty()
            {
                sources.push(Source { url: endpoint, public_only: !self.config.sources_private });
            }
        }
        if solution.output_size > OUTPUT_BYTES_MAX {
            return Err(unusable("the output is too large"));
        }
        Ok(self.parts.content.get(&solution.output, 0..=solution.output_size, &sources).await?)
    }

    // ---- chosen lane ----

    async fn ask_chosen(
        &self,
        key: &ApiKey,
        ask: &Ask,
        model: &Model,
        input: Vec<u8>,
        params: &Params,
        progress: &ProgressSender,
    ) -> Result<Answer, AskError> {
        let now_ms = self.parts.clock.now_ms();
        let mut providers = self.parts.client.providers().await?;
        let trusted = self.config.providers_trusted.get(&model.name);
        providers.retain(|provider| {
            serves(provider, model, now_ms, params.bond_min)
                && provider.account != key.account
                && ask.provider.is_none_or(|wanted| wanted == provider.account)
                && trusted.is_none_or(|trusted| trusted.contains(&provider.account))
        });
        providers.shuffle(&mut *self.choice.lock());
        let mut last = AskError::NoProvider(model.name.clone());
        for provider in providers.into_iter().take(PROVIDERS_TRIED_MAX) {
            let mut began = false;
            match self.ask_provider(key, ask, model, &input, &provider, params, progress, &mut began).await {
                // Only who says so, or was not reached, charges nothing.
                Err(AskError::Delivery(error)) if !began && error.is_free() => {
                    tracing::warn!(provider = %provider.account, %error, "trying another provider");
                    last = error.into();
                }
                // The ledger refuses a provider that became unfit a moment ago.
                Err(AskError::Send(SendError::Ledger(error))) if !began => {
                    last = AskError::Send(SendError::Ledger(error))
                }
                other => return other,
            }
        }
        Err(last)
    }

    #[allow(clippy::too_many_arguments)] // one request's data flow, used once
    async fn ask_provider(
        &self,
        key: &ApiKey,
        ask: &Ask,
        model: &Model,
        input: &[u8],
        provider: &Provider,
        params: &Params,
        progress: &ProgressSender,
        began: &mut bool,
    ) -> Result<Answer, AskError> {
        // On the ledger stands only the input's CID; the input goes to the provider alone.
        let order_input = Input::Content { cid: file_cid(input), size: input.len() as u64, source: None };
        let lane = Lane::Chosen { provider: provider.account };
        let submit = self.order_of(ask, model, self.config.fee_chosen, lane, order_input, 0);
        let fee = submit.fee;
        let id = self.submit(key, submit).await?;
        let now_ms = self.parts.clock.now_ms();
        let request = DeliveryRequest::sign(&key.pair(), &self.chain, &id, now_ms, input.to_vec());
        let mut frames = self.parts.deliveries.open(&provider.endpoint, id, request).await?;
        let verification = model.verification;
        tell(progress, Progress::Ordered { order: id, provider: Some(provider.account), fee, verification });
        let mut transcript = Transcript::new(self.chain, id, provider.account);
        let mut key_known = None;
        let mut text = String::new();
        let deadline_ms = now_ms + self.config.answer_within_ms + COMPLETION_WAIT_MS;
        loop {
            // Signs of life do not make it later than the order's time.
            let late = self.parts.clock.sleep_ms(deadline_ms.saturating_sub(self.parts.clock.now_ms()));
            let frame = match futures::future::select(frames.next(), late).await {
                Either::Left((frame, _)) => frame.ok_or_else(|| DeliveryError::Broken("it ended early".into()))??,
                Either::Right(_) => return Err(DeliveryError::Broken("it takes too long".into()).into()),
            };
            transcript.verify(&frame).map_err(|_| AskError::Dishonest)?;
            if key_known != Some(frame.key) {
                // Whose key it is, the ledger says.
                match self.parts.client.session_key(provider.account, frame.key).await {
                    Ok(_) if key_known.is_none() => key_known = Some(frame.key),
                    Ok(_) | Err(ClientError::NotFound(_)) => return Err(AskError::Dishonest),
                    Err(error) => return Err(error.into()),
                }
            }
            match frame.frame {
                Frame::Text { text: piece } => {
                    *began = true;
                    text.push_str(&piece);
                    if text.len() as u64 > OUTPUT_BYTES_MAX {
                        return Err(DeliveryError::Broken("it is too long".into()).into());
                    }
                    tell(progress, Progress::Text(piece));
                }
                Frame::Failed { reason, code, message } => return Err(failure(reason, code, message)),
                Frame::Done { output, output_bytes } => {
                    let until_ms = self.parts.clock.now_ms() + COMPLETION_WAIT_MS;
                    let (client, clock) = (&*self.parts.client, &*self.parts.clock);
                    let order = if ask.wait == Some(Level::Final) {
                        let until_ms = until_ms + params.challenge_window_ms + params.voting_period_ms;
                        order_until(client, clock, id, until_ms, |order| order.state.is_final()).await?
                    } else {
                        order_until(client, clock, id, until_ms, |order| !order.solutions.is_empty()).await?
                    };
                    let stated = order.solutions.first().is_some_and(|solution| solution.output == output);
                    if !stated || file_cid(&output_bytes) != output {
                        return Err(AskError::Dishonest);
                    }
                    let answer = self.finish(key, id, ask, model, input.to_vec(), output_bytes).await?;
                    // What was streamed and what is bound by the ledger are the same words.
                    if answer.output.text() != text {
                        return Err(AskError::Dishonest);
                    }
                    return Ok(answer);
                }
            }
        }
    }

    // ---- both lanes ----

    /// Reads the output and makes the receipt. (V-2)
    async fn finish(
        &self,
        key: &ApiKey,
        id: OrderId,
        ask: &Ask,
        model: &Model,
        input: Vec<u8>,
        output_bytes: Vec<u8>,
    ) -> Result<Answer, AskError> {
        let unusable = |reason: String| AskError::Unusable { order: id, reason };
        let proof = self.parts.client.order_proof(id).await?;
        let Some(solution) = proof.order.solutions.first() else {
            return Err(unusable("its solution does not stand any more".into()));
        };
        let (provider, output_cid) = (solution.provider, solution.output);
        let order = proof.order.clone();
        let receipt = Receipt {
            version: 1,
            network_key: self.network_key.clone(),
            chain: self.chain,
            proof,
            input,
            output: output_bytes,
        };
        let receipt_place = self.parts.receipts.keep(&receipt)?;
        let receipt_path = key.receipt_path(&order);
        Ok(Answer {
            output: read_output(&ask.input, id, &receipt.output)?,
            provider,
            output_cid,
            agreed_by: order.agreements.iter().map(|agreement| agreement.provider).collect(),
            level: Level::of(&order),
            model: model.clone(),
            order,
            receipt,
            receipt_place,
            receipt_path,
        })
    }
}
