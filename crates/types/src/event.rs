//! What happened, block by block. Events feed indexers, receipts and every running total; each
//! unit that moves has one. (E-3) Numbering is append-only.

use crate::{Address, Amount, Cid, Hash, ModelId, OrderId, Outcome, RefundReason, SessionPublicKey};
use borsh::{BorshDeserialize, BorshSerialize};
use serde::{Deserialize, Serialize};

/// Why money moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
#[borsh(use_discriminant = false)]
#[serde(rename_all = "snake_case")]
pub enum PaymentKind {
    ModelFee,
    TreasuryFee,
    CoordinatorFee,
    ProviderFee,
    AgreementFee,
    Refund,
    SlashLeader,
    SlashJuror,
    SlashTreasury,
}

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    Transferred { from: Address, to: Address, amount: Amount },
    SessionKeyAdded { account: Address, key: SessionPublicKey },
    SessionKeyRevoked { account: Address, key: SessionPublicKey },
    Bonded { provider: Address, amount: Amount },
    UnbondingStarted { provider: Address, amount: Amount, free_at_ms: u64 },
    Unbonded { provider: Address, amount: Amount },
    Slashed { provider: Address, amount: Amount, order: OrderId },
    Jailed { provider: Address, until_ms: u64 },
    ModelRegistered { model: ModelId, name: String, package: Cid },
    ModelTermsSet { model: ModelId, fee: Amount, payee: Address },
    ModelSupported { provider: Address, models: Vec<ModelId> },
    OrderSubmitted { order: OrderId, client: Address, model: ModelId, fee: Amount },
    OrderSeeded { order: OrderId, seed: u64 },
    OrderCommitted { order: OrderId, provider: Address, commitment: Hash },
    OrderRevealed { order: OrderId, provider: Address, output: Cid, standing: bool },
    OrderAccepted { order: OrderId, provider: Address },
    OrderCompleted { order: OrderId, provider: Address, output: Cid },
    OrderCancelled { order: OrderId },
    Agreed { order: OrderId, provider: Address, output: Cid },
    SolutionPromoted { order: OrderId, provider: Address, output: Cid },
    SolutionVoided { order: OrderId, provider: Address },
    OrderClaimed { order: OrderId, provider: Address },
    OrderRefunded { order: OrderId, reason: RefundReason },
    OrderPruned { order: OrderId },
    Contested { order: OrderId, contester: Address, solver: Address, voting_ends_ms: u64 },
    Voted { order: OrderId, provider: Address, refute: bool, weight: Amount },
    CaseClosed { order: OrderId, outcome: Outcome },
    Paid { to: Address, amount: Amount, kind: PaymentKind, order: OrderId },
}

impl Event {
    /// The order that the event is about, if any: what followers filter by.
    pub fn order(&self) -> Option<OrderId> {
        use Event::*;
        match self {
            Slashed { order, .. }
            | OrderSubmitted { order, .. }
            | OrderSeeded { order, .. }
            | OrderCommitted { order, .. }
            | OrderRevealed { order, .. }
            | OrderAccepted { order, .. }
            | OrderCompleted { order, .. }
            | OrderCancelled { order }
            | Agreed { order, .. }
            | SolutionPromoted { order, .. }
            | SolutionVoided { order, .. }
            | OrderClaimed { order, .. }
            | OrderRefunded { order, .. }
            | OrderPruned { order }
            | Contested { order, .. }
            | Voted { order, .. }
            | CaseClosed { order, .. }
            | Paid { order, .. } => Some(*order),
            Transferred { .. }
            | SessionKeyAdded { .. }
            | SessionKeyRevoked { .. }
            | Bonded { .. }
            | UnbondingStarted { .. }
            | Unbonded { .. }
            | Jailed { .. }
            | ModelRegistered { .. }
            | ModelTermsSet { .. }
            | ModelSupported { .. } => None,
        }
    }
}
