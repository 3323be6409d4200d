//! What a run has done so far: everything that is kept, and enough to go on from. (T-15)

use crate::file::{Program, Step};
use althing_types::{
    Address, Amount, ChainId, Cid, LedgerError, OrderId, RefundReason, SignedTx, TxId, object::hex_bytes,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The version of the format.
pub const VERSION: u32 = 1;

/// One question of a program: a step, and which of its items or rounds, from 0.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Task {
    pub step: String,
    pub part: u32,
}

impl std::fmt::Display for Task {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.step, self.part + 1)
    }
}

/// One order for a task, from the moment before it is sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    pub task: Task,
    /// The signed transaction: only these bytes are ever sent for this attempt.
    #[serde(with = "hex_bytes")]
    pub tx: Vec<u8>,
    pub tx_id: TxId,
    pub signed_ms: u64,
    /// What it offers, the model's own fee included.
    pub fee: Amount,
    /// The transaction's own fee: as it should be, then as it was.
    pub base_fee: Amount,
    pub parent: Option<OrderId>,
    /// Until when the order waits for an answer; no two attempts of a run have the same.
    pub deadline_ms: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub placed: Option<Placed>,
    pub outcome: Outcome,
}

/// Where the ledger has the order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placed {
    pub order: OrderId,
    pub height: u64,
    /// The block's time.
    pub time_ms: u64,
}

/// What became of an attempt, as far as is known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum Outcome {
    /// About to be sent, or sent: nobody knows until the ledger says.
    Signed,
    /// No block has it and none ever can.
    Lapsed,
    /// A block has it, and the ledger refused the call.
    Refused {
        reason: LedgerError,
    },
    /// The order is on the ledger and not answered well enough yet.
    Ordered,
    /// The fee came back.
    Refunded {
        reason: RefundReason,
    },
    Answered(Answered),
    /// The model's right answer to this input is that it cannot answer: paid, and asking again is no use.
    Declined {
        code: String,
        message: String,
    },
}

/// An answer that later steps use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answered {
    pub text: String,
    pub output: Cid,
    pub provider: Address,
    /// Who re-ran it and got the same bits, so far.
    pub agreed_by: Vec<Address>,
    /// The time of the block that has the answer.
    pub time_ms: u64,
}

impl Attempt {
    /// The order's id.
    pub fn order(&self) -> Option<OrderId> {
        self.placed.map(|placed| placed.order)
    }

    /// The transaction itself; `None` if the record was damaged.
    pub fn signed_tx(&self) -> Option<SignedTx> {
        SignedTx::decode(&self.tx).ok()
    }

    /// Whether the task is in good hands: asked and not given back.
    pub fn is_live(&self) -> bool {
        !matches!(self.outcome, Outcome::Lapsed | Outcome::Refused { .. } | Outcome::Refunded { .. })
    }

    /// What it costs, or may cost at most while that is not known.
    pub fn cost(&self) -> Amount {
        let fee = if self.is_live() { self.fee } else { Amount::ZERO };
        let base_fee = if self.outcome == Outcome::Lapsed { Amount::ZERO } else { self.base_fee };
        Amount(fee.0.saturating_add(base_fee.0))
    }
}

/// A program at work.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Run {
    pub version: u32,
    pub chain: ChainId,
    /// Whose money it is.
    pub account: Address,
    /// As it was at the start: changes of its file change nothing.
    pub program: Program,
    pub inputs: BTreeMap<String, String>,
    /// The parent of steps that have none of their own.
    pub parent: Option<OrderId>,
    pub started_ms: u64,
    /// Every attempt, in the order of their signing.
    pub attempts: Vec<Attempt>,
}

impl Run {
    /// What was spent, with what may still be: refunds are not in it. (T-15)
    pub fn spent(&self) -> Amount {
        self.attempts.iter().fold(Amount::ZERO, |sum, attempt| Amount(sum.0.saturating_add(attempt.cost().0)))
    }

    /// What may still be spent.
    pub fn left(&self) -> Amount {
        self.program.budget.saturating_sub(self.spent())
    }

    /// The attempts of one task, oldest first.
    pub fn attempts_of<'a>(&'a self, task: &'a Task) -> impl Iterator<Item = &'a Attempt> {
        self.attempts.iter().filter(move |attempt| attempt.task == *task)
    }

    /// The attempt of a part that was answered.
    pub fn answered(&self, step: &Step, part: u32) -> Option<(&Attempt, &Answered)> {
        self.attempts.iter().find_map(|attempt| match &attempt.outcome {
            Outcome::Answered(answered) if attempt.task.step == step.name && attempt.task.part == part => {
                Some((attempt, answered))
            }
            _ => None,
        })
    }

    /// The answers of a step, in the order of its items or rounds.
    pub fn answers(&self, step: &Step) -> Vec<(&Attempt, &Answered)> {
        let mut found: Vec<_> = self
            .attempts
            .iter()
            .filter(|attempt| attempt.task.step == step.name)
            .filter_map(|attempt| match &attempt.outcome {
                Outcome::Answered(answered) => Some((attempt, answered)),
                _ => None,
            })
            .collect();
        found.sort_by_key(|(attempt, _)| attempt.task.part);
        found
    }

    /// What `{{STEP.text}}` is: the last round of a step that repeats, all items of one that fans out.
    pub fn text(&self, step: &Step) -> String {
        let answers = self.answers(step);
        let texts: Vec<_> = answers.iter().map(|(_, answered)| answered.text.trim()).collect();
        match &step.repeat {
            Some(_) => texts.last().map(|text| (*text).to_owned()).unwrap_or_default(),
            None => texts.join("\n\n"),
        }
    }
}
