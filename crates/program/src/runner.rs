//! Carries a program out, and goes on with it after a crash. (T-15)
//!
//! **What happens when it falls.** Between "send this" and "it was sent" there is always a moment in
//! which nobody knows. So an order's transaction is signed once, kept, and then sent; only these very
//! bytes are ever sent for it, and the ledger takes them once at most. Whoever finds a signed attempt
//! in the journal, in the same process or after a crash, hands the same bytes in until it is certain
//! what became of them: a block has them, or their nonce was used by another or their time is over and
//! no block has them. Only then is anything signed again. The first time is no different from the
//! tenth, so there is no path that only crashes take.
//!
//! ```text
//! save(signed) ─ send, look ─┬─ included ─ save(ordered) ─ wait ─┬─ answered ─ save(answered)
//!                            ├─ refused by the ledger ─ save     └─ refunded ─ save ─ ask again
//!                            └─ never in a block ─ save(lapsed) ─ sign again
//! ```
//!
//! A fall before `save(signed)` leaves nothing behind: what was signed was not sent. A fall anywhere
//! else is between two entries of the journal, and the step in between can be repeated without harm.

use crate::{
    answer::{AnswerError, fetch_text},
    decide::{self, Asking, Next, Stuck},
    file::{FileError, Program, Wait},
    journal::{Journal, JournalError},
    record::{Answered, Attempt, Outcome, Placed, Run, Task, VERSION},
};
use althing_sdk::{ClientError, Clock, Content, Fate, LedgerClient, Sender, any_order_until};
use althing_types::{
    Address, Amount, Call, ChainId, Input, Lane, LedgerError, Order, OrderId, OrderState, RefundReason,
    call::OrderSubmit, encode, object::INLINE_INPUT_BYTES_MAX,
};
use std::{collections::BTreeMap, sync::Arc};

/// How long orders are watched at a time, ms; none of them hangs. (T-17)
const WATCH_MS: u64 = 60_000;
/// How often an answer that nobody serves is looked for again, and how long in between, ms.
const FETCHES_MAX: u32 = 15;
const FETCH_AGAIN_MS: u64 = 1_000;

/// What a runner works with.
#[derive(Clone)]
pub struct Parts {
    pub client: Arc<dyn LedgerClient>,
    pub clock: Arc<dyn Clock>,
    pub content: Arc<dyn Content>,
    pub journal: Arc<dyn Journal>,
    pub sender: Arc<Sender>,
}

/// What happens while a program runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The order is in a block, its fee escrowed.
    Ordered {
        task: Task,
        order: OrderId,
        fee: Amount,
    },
    /// The parent is not in the ledger's state any more: the order is made without naming it.
    ParentGone {
        task: Task,
        parent: OrderId,
    },
    /// The order brought nothing, and the fee came back.
    Refunded {
        task: Task,
        order: OrderId,
        reason: RefundReason,
    },
    Answered {
        task: Task,
        order: OrderId,
        text: String,
    },
}

/// Why a program stopped before its end. The journal keeps where it is: it can be resumed.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("there is a run here already: resume it")]
    Started,
    #[error("there is no run here")]
    NotStarted,
    #[error("the run is on chain {expected}, this is chain {got}")]
    OtherChain { expected: ChainId, got: ChainId },
    #[error("the run is paid by {expected}, this is the wallet of {got}")]
    OtherAccount { expected: Address, got: Address },
    #[error("the model `{0}` does not exist")]
    UnknownModel(String),
    #[error("task {task} would cost up to {needed} ALTH, {left} ALTH of the budget are left")]
    Budget { task: Task, needed: Amount, left: Amount },
    #[error(
        "the prompt of task {task} has {size} bytes, at most {INLINE_INPUT_BYTES_MAX} fit into an order: use `| words N`"
    )]
    PromptTooLong { task: Task, size: usize },
    #[error("the journal's transaction of task {0} is damaged")]
    Damaged(Task),
    #[error("task {task}: {reason}")]
    Refused { task: Task, reason: LedgerError },
    #[error(transparent)]
    Stuck(#[from] Stuck),
    #[error(transparent)]
    File(#[from] FileError),
    #[error("task {task}: {source}")]
    Answer { task: Task, source: AnswerError },
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error(transparent)]
    Journal(#[from] JournalError),
}

/// Limits that may be raised when a run is resumed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    pub budget: Option<Amount>,
    pub attempts_max: Option<u32>,
}

/// A program at work.
pub struct Runner {
    parts: Parts,
    run: Run,
}

impl Runner {
    /// Begins a run; nothing is sent yet.
    ///
    /// # Errors
    /// If there is a run already, an input is missing, or the ledger does not answer.
    pub async fn start(
        parts: Parts,
        program: Program,
        inputs: &BTreeMap<String, String>,
        parent: Option<OrderId>,
    ) -> Result<Self, RunError> {
        if parts.journal.load().await?.is_some() {
            return Err(RunError::Started);
        }
        let inputs = program.with_inputs(inputs)?;
        let run = Run {
            version: VERSION,
            chain: parts.client.status().await?.chain,
            account: parts.sender.account(),
            program,
            inputs,
            parent,
            started_ms: parts.clock.now_ms(),
            attempts: Vec::new(),
        };
        parts.journal.save(&run).await?;
        Ok(Self { parts, run })
    }

    /// Goes on with a run where it was.
    ///
    /// # Errors
    /// If there is none, or it belongs to another chain or account.
    pub async fn resume(parts: Parts, limits: Limits) -> Result<Self, RunError> {
        let mut run = parts.journal.load().await?.ok_or(RunError::NotStarted)?;
        let (chain, account) = (parts.client.status().await?.chain, parts.sender.account());
        if chain != run.chain {
            return Err(RunError::OtherChain { expected: run.chain, got: chain });
        }
        if account != run.account {
            return Err(RunError::OtherAccount { expected: run.account, got: account });
        }
        if limits != Limits::default() {
            run.program.budget = limits.budget.unwrap_or(run.program.budget);
            run.program.attempts_max = limits.attempts_max.unwrap_or(run.program.attempts_max);
            parts.journal.save(&run).await?;
        }
        Ok(Self { parts, run })
    }

    /// What was done so far.
    pub fn record(&self) -> &Run {
        &self.run
    }

    /// Runs to the end, telling what happens.
    ///
    /// # Errors
    /// Why it stopped; [`Self::resume`] goes on from there.
    pub async fn run(&mut self, tell: &(dyn Fn(Progress) + Send + Sync)) -> Result<(), RunError> {
        loop {
            match decide::next(&self.run, self.parts.clock.now_ms())? {
                Next::Settle(index) => self.settle(index, tell).await?,
                Next::Ask(asking) => self.ask(asking).await?,
                Next::Wait { attempts, until_ms } => self.wait(&attempts, until_ms, tell).await?,
                Next::Done => return Ok(()),
            }
        }
    }

    async fn save(&self) -> Result<(), JournalError> {
        self.parts.journal.save(&self.run).await
    }

    /// Signs an order and keeps it; nothing is sent. Never beyond the budget. (T-15)
    async fn ask(&mut self, asking: Asking) -> Result<(), RunError> {
        let Asking { task, model, input, fee, seed, parent } = asking;
        let bytes = input.to_bytes();
        if bytes.len() > INLINE_INPUT_BYTES_MAX {
            return Err(RunError::PromptTooLong { task, size: bytes.len() });
        }
        let model = match self.parts.client.model(&model).await {
            Err(ClientError::NotFound(_)) => return Err(RunError::UnknownModel(model)),
            other => other?,
        };
        let params = self.parts.client.params().await?;
        let fee = Amount(model.fee.0.saturating_add(fee.0));
        let deadline_ms = self.deadline_ms();
        let call = Call::OrderSubmit(OrderSubmit {
            model: model.id,
            input: Input::Inline { bytes },
            fee,
            max_total: fee,
            lane: Lane::Open,
            deadline_ms,
            seed,
            agreements: self.run.program.agreements.min(params.agreements_wanted_max),
            parent,
            budget: None,
        });
        let tx = self.parts.sender.sign(call).await?;
        let base_fee = tx.base_fee(&params);
        let (needed, left) = (Amount(fee.0.saturating_add(base_fee.0)), self.run.left());
        if needed > left {
            return Err(RunError::Budget { task, needed, left });
        }
        self.run.attempts.push(Attempt {
            task,
            tx: encode(&tx),
            tx_id: tx.id(&self.run.chain),
            signed_ms: self.parts.clock.now_ms(),
            fee,
            base_fee,
            parent,
            deadline_ms,
            placed: None,
            outcome: Outcome::Signed,
        });
        Ok(self.save().await?)
    }

    /// When the next order expires: no two of a run at the same time, so that equal questions are
    /// different calls and have different transaction ids.
    fn deadline_ms(&self) -> u64 {
        let wished = self.parts.clock.now_ms().saturating_add(self.run.program.within_s.saturating_mul(1_000));
        let latest = self.run.attempts.iter().map(|attempt| attempt.deadline_ms).max();
        latest.map_or(wished, |latest| wished.max(latest + 1))
    }

    /// Brings a signed transaction to its end.
    async fn settle(&mut self, index: usize, tell: &(dyn Fn(Progress) + Send + Sync)) -> Result<(), RunError> {
        let attempt = &self.run.attempts[index];
        let task = attempt.task.clone();
        let tx = attempt.signed_tx().ok_or_else(|| RunError::Damaged(task.clone()))?;
        let fate = self.parts.sender.settle(&tx).await?;
        let attempt = &mut self.run.attempts[index];
        let mut refused = None;
        match fate {
            Fate::Never => attempt.outcome = Outcome::Lapsed,
            Fate::Included(included) => {
                attempt.base_fee = included.receipt.fee;
                match (included.receipt.order, included.receipt.error) {
                    (Some(order), None) => {
                        let (height, time_ms) = (included.height, included.time_ms);
                        attempt.placed = Some(Placed { order, height, time_ms });
                        attempt.outcome = Outcome::Ordered;
                        tell(Progress::Ordered { task, order, fee: attempt.fee });
                    }
                    (_, Some(reason)) if never_ran(&reason) => attempt.outcome = Outcome::Lapsed,
                    (_, reason) => {
                        let reason = reason.unwrap_or(LedgerError::Overflow);
                        match (&reason, attempt.parent) {
                            (LedgerError::UnknownOrder(gone), Some(parent)) if *gone == parent => {
                                tell(Progress::ParentGone { task, parent });
                            }
                            _ => refused = Some(RunError::Refused { task, reason: reason.clone() }),
                        }
                        attempt.outcome = Outcome::Refused { reason };
                    }
                }
            }
        }
        self.save().await?;
        refused.map_or(Ok(()), Err)
    }

    async fn wait(
        &mut self,
        attempts: &[usize],
        until_ms: Option<u64>,
        tell: &(dyn Fn(Progress) + Send + Sync),
    ) -> Result<(), RunError> {
        let now_ms = self.parts.clock.now_ms();
        let until_ms = until_ms.unwrap_or(u64::MAX).min(now_ms + WATCH_MS);
        let ids: Vec<OrderId> = attempts.iter().filter_map(|index| self.run.attempts[*index].order()).collect();
        if ids.is_empty() {
            self.parts.clock.sleep_ms(until_ms.saturating_sub(now_ms)).await;
            return Ok(());
        }
        let (client, clock, wait) = (&*self.parts.client, &*self.parts.clock, self.run.program.wait);
        let Some(order) = any_order_until(client, clock, &ids, until_ms, |order| is_over(order, wait)).await? else {
            return Ok(());
        };
        let Some(index) = self.run.attempts.iter().position(|attempt| attempt.order() == Some(order.id)) else {
            return Ok(());
        };
        self.take(index, order, tell).await
    }

    /// Takes what came of an order.
    async fn take(
        &mut self,
        index: usize,
        order: Order,
        tell: &(dyn Fn(Progress) + Send + Sync),
    ) -> Result<(), RunError> {
        let task = self.run.attempts[index].task.clone();
        let id = order.id;
        let outcome = match order.state {
            OrderState::Refunded { reason } => {
                tell(Progress::Refunded { task, order: id, reason });
                Outcome::Refunded { reason }
            }
            _ => match self.fetch(order).await {
                Ok(None) => return Ok(()),
                Ok(Some(answered)) => {
                    tell(Progress::Answered { task, order: id, text: answered.text.clone() });
                    Outcome::Answered(answered)
                }
                Err(AnswerError::Declined { code, message }) => Outcome::Declined { code, message },
                Err(source) => return Err(RunError::Answer { task, source }),
            },
        };
        self.run.attempts[index].outcome = outcome;
        Ok(self.save().await?)
    }

    /// The answer of an order, from whoever serves it; `None` if the order is not so far any more.
    async fn fetch(&self, mut order: Order) -> Result<Option<Answered>, AnswerError> {
        let mut fetches = 0;
        loop {
            match fetch_text(&*self.parts.client, &*self.parts.content, &order).await {
                Ok(text) => return Ok(answered(&order, text)),
                Err(AnswerError::Content(error)) if fetches < FETCHES_MAX => {
                    tracing::debug!(order = %order.id, %error, "nobody serves the answer yet");
                    fetches += 1;
                    self.parts.clock.sleep_ms(FETCH_AGAIN_MS).await;
                    // Its provider may have been caught meanwhile, and another answer may stand.
                    order = self.parts.client.order(order.id).await?;
                    if !is_over(&order, self.run.program.wait) || matches!(order.state, OrderState::Refunded { .. }) {
                        return Ok(None);
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }
}

/// Whether a block has the transaction without having run it: it left no trace, and is over. (L-1)
fn never_ran(reason: &LedgerError) -> bool {
    use LedgerError::{BlockFull, TransactionExpired, WrongNonce};
    matches!(reason, BlockFull | TransactionExpired { .. } | WrongNonce { .. })
}

/// Whether an order is as sure as is waited for, or over.
fn is_over(order: &Order, wait: Wait) -> bool {
    let solved = matches!(order.state, OrderState::Solved { .. });
    let sure = match wait {
        Wait::Revealed => true,
        Wait::Agreed => !order.agreements.is_empty() || order.agreements_wanted == 0,
        Wait::Final => false,
    };
    order.state.is_final() || (solved && sure)
}

fn answered(order: &Order, text: String) -> Option<Answered> {
    let solution = order.solutions.first()?;
    Some(Answered {
        text,
        output: solution.output,
        provider: solution.provider,
        agreed_by: order.agreements.iter().map(|agreement| agreement.provider).collect(),
        time_ms: solution.time_ms,
    })
}
