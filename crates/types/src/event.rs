//! What happened, block by block. Events feed indexers, receipts and every running total; each
//! unit that moves has one. (E-3) Numbering is append-only.

use crate::{
    Address, Amount, AssetId, BallotAnswer, Cid, Hash, ModelId, ModelReward, OrderId, Outcome, ParamChange, PoolId,
    Ppm, RefundReason, SessionPublicKey, VoteChoice,
};
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
    /// Minted for a run, to its provider or a delegator's pool. (T-6)
    Reward,
    RewardTreasury,
}

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    Transferred {
        from: Address,
        to: Address,
        amount: Amount,
    },
    SessionKeyAdded {
        account: Address,
        key: SessionPublicKey,
    },
    SessionKeyRevoked {
        account: Address,
        key: SessionPublicKey,
    },
    Bonded {
        provider: Address,
        amount: Amount,
    },
    UnbondingStarted {
        provider: Address,
        amount: Amount,
        free_at_ms: u64,
    },
    Unbonded {
        provider: Address,
        amount: Amount,
    },
    /// `delegated` is the part that its delegators lost.
    Slashed {
        provider: Address,
        amount: Amount,
        delegated: Amount,
        order: OrderId,
    },
    Jailed {
        provider: Address,
        until_ms: u64,
    },
    ModelRegistered {
        model: ModelId,
        name: String,
        package: Cid,
    },
    ModelTermsSet {
        model: ModelId,
        fee: Amount,
        payee: Address,
    },
    ModelSupported {
        provider: Address,
        models: Vec<ModelId>,
    },
    OrderSubmitted {
        order: OrderId,
        client: Address,
        model: ModelId,
        fee: Amount,
    },
    OrderSeeded {
        order: OrderId,
        seed: u64,
    },
    OrderCommitted {
        order: OrderId,
        provider: Address,
        commitment: Hash,
    },
    OrderRevealed {
        order: OrderId,
        provider: Address,
        output: Cid,
        standing: bool,
    },
    OrderAccepted {
        order: OrderId,
        provider: Address,
    },
    OrderCompleted {
        order: OrderId,
        provider: Address,
        output: Cid,
    },
    OrderCancelled {
        order: OrderId,
    },
    Agreed {
        order: OrderId,
        provider: Address,
        output: Cid,
    },
    SolutionPromoted {
        order: OrderId,
        provider: Address,
        output: Cid,
    },
    SolutionVoided {
        order: OrderId,
        provider: Address,
    },
    OrderClaimed {
        order: OrderId,
        provider: Address,
    },
    OrderRefunded {
        order: OrderId,
        reason: RefundReason,
    },
    OrderPruned {
        order: OrderId,
    },
    Contested {
        order: OrderId,
        contester: Address,
        solver: Address,
        voting_ends_ms: u64,
    },
    Voted {
        order: OrderId,
        provider: Address,
        refute: bool,
        weight: Amount,
    },
    CaseClosed {
        order: OrderId,
        outcome: Outcome,
    },
    Paid {
        to: Address,
        amount: Amount,
        kind: PaymentKind,
        order: OrderId,
    },
    VoteCommitted {
        order: OrderId,
        provider: Address,
        weight: Amount,
    },
    VoteOpened {
        order: OrderId,
        provider: Address,
        answer: BallotAnswer,
    },
    /// Committed votes can be opened from now on.
    OpeningBegun {
        order: OrderId,
        opening_ends_ms: u64,
    },
    JuryDrawn {
        order: OrderId,
        round: u8,
        jurors: Vec<Address>,
    },
    /// New units, made for an order and paid out of its escrow in the same block. (T-6)
    Minted {
        order: OrderId,
        amount: Amount,
    },
    /// For what a transaction makes every node do. (L-1)
    BaseFeePaid {
        account: Address,
        amount: Amount,
    },
    /// For an object that a call stored. (L-1)
    DepositTaken {
        account: Address,
        amount: Amount,
    },
    DepositReturned {
        account: Address,
        amount: Amount,
    },
    /// The part of a mint that joined the liquidity drip. (T-6)
    LiquidityRewarded {
        order: OrderId,
        amount: Amount,
    },
    Delegated {
        delegator: Address,
        provider: Address,
        amount: Amount,
    },
    UndelegationStarted {
        delegator: Address,
        provider: Address,
        amount: Amount,
        free_at_ms: u64,
    },
    /// A delegation left its provider, towards `to` or the free balance.
    Undelegated {
        delegator: Address,
        provider: Address,
        amount: Amount,
        to: Option<Address>,
    },
    /// A part of what a provider earned went to its delegators, to be claimed by each.
    DelegatorsEarned {
        provider: Address,
        amount: Amount,
        kind: PaymentKind,
        order: OrderId,
    },
    DelegationEarningsPaid {
        delegator: Address,
        provider: Address,
        fees: Amount,
        rewards: Amount,
    },
    CommissionSet {
        provider: Address,
        commission: Ppm,
        from_ms: u64,
    },
    ModelRewardSet {
        model: ModelId,
        reward: Option<ModelReward>,
    },
    /// Voting power of `account` went to `to`; to itself if they are the same. (G-1)
    VotesDelegated {
        account: Address,
        to: Address,
    },
    ProposalCreated {
        proposal: u64,
        proposer: Address,
        title: String,
        snapshot_height: u64,
        voting_starts_ms: u64,
        voting_ends_ms: u64,
    },
    ProposalVoted {
        proposal: u64,
        voter: Address,
        choice: VoteChoice,
        weight: Amount,
    },
    ProposalQueued {
        proposal: u64,
        executable_ms: u64,
    },
    /// Its calls ran; what they did is told by the events before.
    ProposalExecuted {
        proposal: u64,
    },
    ProposalCancelled {
        proposal: u64,
        by: Address,
    },
    ProposalPruned {
        proposal: u64,
    },
    /// In force from the next block on.
    ParamsSet {
        changes: Vec<ParamChange>,
    },
    UpgradeScheduled {
        version: u32,
        height: u64,
    },
    UpgradeCancelled {
        version: u32,
        height: u64,
    },
    /// This block is the first of a version of the protocol. (G-2)
    Upgraded {
        version: u32,
        height: u64,
    },
    /// An asset that is not the native one. (G-4)
    AssetTransferred {
        asset: AssetId,
        from: Address,
        to: Address,
        amount: Amount,
    },
    DaoCreated {
        model: ModelId,
        owner: Address,
        shares: u64,
        payee: Address,
    },
    /// A model's fee went to the holders of a DAO's shares, to be claimed by each. (T-14)
    ShareholdersEarned {
        model: ModelId,
        amount: Amount,
        order: OrderId,
    },
    ShareEarningsPaid {
        model: ModelId,
        holder: Address,
        amount: Amount,
    },
    SaleOpened {
        model: ModelId,
        seller: Address,
        shares: u64,
        price: Amount,
    },
    SaleClosed {
        model: ModelId,
        seller: Address,
    },
    /// The buyer paid `total` to the seller.
    SharesSold {
        model: ModelId,
        seller: Address,
        buyer: Address,
        shares: u64,
        total: Amount,
    },
    DaoProposed {
        model: ModelId,
        number: u32,
        proposer: Address,
        fee: Amount,
        payee: Option<Address>,
        ends_ms: u64,
    },
    DaoVoted {
        model: ModelId,
        number: u32,
        holder: Address,
        approve: bool,
        shares: u64,
    },
    DaoProposalClosed {
        model: ModelId,
        number: u32,
        accepted: bool,
        yes: u64,
        no: u64,
    },
    PoolCreated {
        pool: PoolId,
        a: AssetId,
        b: AssetId,
    },
    LiquidityAdded {
        pool: PoolId,
        account: Address,
        amount_a: Amount,
        amount_b: Amount,
        lp: Amount,
    },
    LiquidityRemoved {
        pool: PoolId,
        account: Address,
        amount_a: Amount,
        amount_b: Amount,
        lp: Amount,
    },
    Swapped {
        pool: PoolId,
        trader: Address,
        asset_in: AssetId,
        amount_in: Amount,
        asset_out: AssetId,
        amount_out: Amount,
    },
    /// What a pool's shares of a model DAO earned: for its native reserve, or else the treasury.
    PoolEarned {
        pool: PoolId,
        model: ModelId,
        amount: Amount,
        to_treasury: bool,
    },
    LpStaked {
        pool: PoolId,
        staker: Address,
        lp: Amount,
    },
    LpUnstaked {
        pool: PoolId,
        staker: Address,
        lp: Amount,
    },
    /// A part of the liquidity drip became the earnings of a pool's stakers. (E-2)
    DripReleased {
        pool: PoolId,
        amount: Amount,
    },
    DripPaid {
        pool: PoolId,
        staker: Address,
        amount: Amount,
    },
    PoolDripSet {
        pool: PoolId,
        weight: u32,
    },
    /// Coordinators were drawn to fetch an order's input. (T-21)
    InputSampled {
        order: OrderId,
        drawn: Vec<Address>,
        until_ms: u64,
    },
    InputConfirmed {
        order: OrderId,
        coordinator: Address,
    },
    /// Whether enough coordinators fetched the input in time. (T-21)
    InputChecked {
        order: OrderId,
        shown: bool,
    },
    /// Set aside for the orders below this one. (T-15)
    BudgetOpened {
        order: OrderId,
        client: Address,
        amount: Amount,
    },
    /// The fee of an order was taken out of the budget of its root. (T-15)
    BudgetDrawn {
        order: OrderId,
        root: OrderId,
        amount: Amount,
    },
    /// The fee of an order came back to the budget of its root. (T-15)
    BudgetRefilled {
        order: OrderId,
        root: OrderId,
        amount: Amount,
    },
    /// What was left came back to the client. (T-15)
    BudgetClosed {
        order: OrderId,
        client: Address,
        left: Amount,
    },
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
            | Paid { order, .. }
            | VoteCommitted { order, .. }
            | VoteOpened { order, .. }
            | OpeningBegun { order, .. }
            | JuryDrawn { order, .. }
            | Minted { order, .. }
            | LiquidityRewarded { order, .. }
            | DelegatorsEarned { order, .. }
            | ShareholdersEarned { order, .. }
            | InputSampled { order, .. }
            | InputConfirmed { order, .. }
            | InputChecked { order, .. }
            | BudgetOpened { order, .. }
            | BudgetDrawn { order, .. }
            | BudgetRefilled { order, .. }
            | BudgetClosed { order, .. } => Some(*order),
            Transferred { .. }
            | SessionKeyAdded { .. }
            | SessionKeyRevoked { .. }
            | Bonded { .. }
            | UnbondingStarted { .. }
            | Unbonded { .. }
            | Jailed { .. }
            | ModelRegistered { .. }
            | ModelTermsSet { .. }
            | ModelSupported { .. }
            | Delegated { .. }
            | UndelegationStarted { .. }
            | Undelegated { .. }
            | BaseFeePaid { .. }
            | DepositTaken { .. }
            | DepositReturned { .. }
            | DelegationEarningsPaid { .. }
            | CommissionSet { .. }
            | ModelRewardSet { .. }
            | VotesDelegated { .. }
            | ProposalCreated { .. }
            | ProposalVoted { .. }
            | ProposalQueued { .. }
            | ProposalExecuted { .. }
            | ProposalCancelled { .. }
            | ProposalPruned { .. }
            | ParamsSet { .. }
            | UpgradeScheduled { .. }
            | UpgradeCancelled { .. }
            | Upgraded { .. }
            | AssetTransferred { .. }
            | DaoCreated { .. }
            | ShareEarningsPaid { .. }
            | SaleOpened { .. }
            | SaleClosed { .. }
            | SharesSold { .. }
            | DaoProposed { .. }
            | DaoVoted { .. }
            | DaoProposalClosed { .. }
            | PoolCreated { .. }
            | LiquidityAdded { .. }
            | LiquidityRemoved { .. }
            | Swapped { .. }
            | PoolEarned { .. }
            | LpStaked { .. }
            | LpUnstaked { .. }
            | DripReleased { .. }
            | DripPaid { .. }
            | PoolDripSet { .. } => None,
        }
    }
}
