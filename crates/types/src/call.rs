//! Every call of the ledger, with the canonical sentence that a wallet shows for it.
//!
//! Numbering is append-only: a new call goes to the end of its enum.

use crate::{
    Address, Amount, AssetId, BallotAnswer, Cid, Hash, Input, Lane, ModelId, ModelReward, OrderId, ParamChange, PoolId,
    Ppm, SessionPublicKey, Verification, VoteChoice,
};
use borsh::{BorshDeserialize, BorshSerialize, de::EnumExt as _};
use serde::{Deserialize, Serialize};
use std::io;

/// What a transaction asks the ledger to do.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
#[serde(tag = "call", rename_all = "snake_case")]
pub enum Call {
    /// Moves free balance to another account.
    Transfer { to: Address, amount: Amount },
    /// Registers a session key for the caller's machines.
    SessionKeyAdd { key: SessionPublicKey, scope: Scope, spend_limit: Amount, expires_at_ms: u64 },
    /// Removes a session key at once.
    SessionKeyRevoke { key: SessionPublicKey },
    /// Moves free balance into the caller's provider bond.
    Bond { amount: Amount },
    /// Starts to release part of the bond; it is free after the unbonding time. (T-10)
    Unbond { amount: Amount },
    /// Registers a model package with its terms. (T-13)
    ModelRegister { name: String, package: Cid, fee: Amount, payee: Address, verification: Verification },
    /// Changes the terms of an own model for orders submitted later. (T-13)
    ModelTermsSet { model: ModelId, fee: Amount, payee: Address },
    /// Says that the calling provider serves these models, replacing what it said before. (T-13)
    ModelSupport { models: Vec<ModelId>, endpoint: String },
    /// Opens an order and escrows its fee. (T-1)
    OrderSubmit(OrderSubmit),
    /// Open lane: promises an answer without showing it. (T-3)
    OrderCommit { order: OrderId, commitment: Hash },
    /// Open lane: shows the answer promised by an earlier commitment. (T-3)
    OrderReveal { order: OrderId, output: Cid, output_size: u64, salt: Hash },
    /// Chosen lane: the named provider takes the order.
    OrderAccept { order: OrderId },
    /// Chosen lane: the provider's signed completion. (M-5)
    OrderComplete { order: OrderId, output: Cid, output_size: u64 },
    /// Closes an own unsolved order. (T-17)
    OrderCancel { order: OrderId },
    /// Confirms a solution by an own re-run. (V-1)
    Agree { order: OrderId, output: Cid },
    /// Disputes the standing solution of an order; where votes are committed, with the commitment to
    /// the own re-run, which is to be opened like a juror's. (T-7)
    Contest { order: OrderId, ballot: Option<Hash> },
    /// Votes openly in the dispute over an order; `refute` is a vote against the solution. (T-7)
    Vote { order: OrderId, refute: bool },
    /// Commits to the own re-run, as a juror of the dispute over an order. (T-7)
    VoteCommit { order: OrderId, ballot: Hash },
    /// Opens a vote that was committed. (T-7)
    VoteOpen { order: OrderId, answer: BallotAnswer, salt: Hash },
    /// Claims a solution whose window has ended, where claims by call are accepted. (T-4)
    OrderClaim { order: OrderId },
    /// Stakes behind a provider for a share of what it earns. (T-10)
    Delegate { provider: Address, amount: Amount },
    /// Starts to take a delegation back, all of it if no amount is given. (T-10)
    Undelegate { provider: Address, amount: Option<Amount> },
    /// Moves a delegation to another provider once it may leave the first. (T-10)
    DelegationMove { from: Address, to: Address, amount: Option<Amount> },
    /// Pays out what a delegation earned.
    DelegationClaim { provider: Address },
    /// Announces what the calling provider keeps of its delegators' earnings. (T-10)
    CommissionSet { commission: Ppm },
    /// Governance: enables, changes or ends the reward of a model's runs. (T-6)
    ModelRewardSet { model: ModelId, reward: Option<ModelReward> },
    /// Lets another account vote with the caller's units; naming oneself ends that. (G-1)
    VotesDelegate { to: Address },
    /// Proposes calls that the governor is to make. (G-1)
    ProposalCreate {
        title: String,
        description: String,
        #[borsh(deserialize_with = "read_proposed_calls")]
        calls: Vec<Call>,
    },
    /// Votes on a proposal with the power that the caller had before it was made. (G-1)
    ProposalVote { proposal: u64, choice: VoteChoice },
    /// Starts the timelock of an accepted proposal; anyone may. (G-1)
    ProposalQueue { proposal: u64 },
    /// Makes the calls of a proposal whose timelock ended, all or none; anyone may. (G-1)
    ProposalExecute { proposal: u64 },
    /// Ends an own proposal, or one whose proposer no longer commands the threshold. (G-1)
    ProposalCancel { proposal: u64 },
    /// Governance: changes parameters together, from the next block on. (G-1, T-18)
    ParamsSet { changes: Vec<ParamChange> },
    /// Governance: a version of the protocol comes into force at a height. (G-2)
    UpgradeSchedule { version: u32, height: u64 },
    /// Governance: the scheduled upgrade does not come. (G-2)
    UpgradeCancel,
    /// Moves any asset to another account; shares as whole counts. (G-4)
    AssetTransfer { asset: AssetId, to: Address, amount: Amount },
    /// Turns an own model into a DAO with so many shares, all of them the caller's. (T-14)
    DaoCreate { model: ModelId, shares: u64 },
    /// Pays out what the caller's shares of a model earned. (T-14)
    SharesClaim { model: ModelId },
    /// Offers own shares at a fixed price for one, replacing an earlier offer. (T-14)
    SaleOpen { model: ModelId, shares: u64, price: Amount },
    /// Takes the own offer back. (T-14)
    SaleClose { model: ModelId },
    /// Buys shares that somebody offers, for at most `max_total`. (T-14)
    SharesBuy { model: ModelId, seller: Address, shares: u64, max_total: Amount },
    /// Proposes new terms to the holders of a model's shares; without a payee, the fee is theirs. (T-14)
    DaoPropose { model: ModelId, fee: Amount, payee: Option<Address> },
    /// Votes on the open proposal with the shares held before it. (T-14)
    DaoVote { model: ModelId, approve: bool },
    /// Puts at most these amounts into the pool between two assets, and makes it if there is none.
    /// (G-4)
    PoolAdd { a: AssetId, b: AssetId, amount_a: Amount, amount_b: Amount, lp_min: Amount },
    /// Gives liquidity shares back for their part of the pool. (G-4)
    PoolRemove { pool: PoolId, lp: Amount, a_min: Amount, b_min: Amount },
    /// Swaps one asset for another in their pool. (G-4)
    Swap { asset_in: AssetId, amount_in: Amount, asset_out: AssetId, out_min: Amount },
    /// Stakes liquidity shares for the drip. (E-2)
    LpStake { pool: PoolId, lp: Amount },
    /// Takes staked liquidity shares back. (E-2)
    LpUnstake { pool: PoolId, lp: Amount },
    /// Pays out what the caller's staked liquidity shares earned. (E-2)
    DripClaim { pool: PoolId },
    /// Governance: a pool's part of the liquidity drip, relative to the others'; 0 for none. (E-2)
    PoolDripSet { pool: PoolId, weight: u32 },
    /// A coordinator that was drawn says that it has fetched the input of an order. (T-21)
    InputConfirm { order: OrderId },
    /// Takes back what is left of the budget of an own order at the root of a chain. (T-15)
    BudgetClose { order: OrderId },
}

/// Number of [`Call::ProposalCreate`] in the canonical codec.
const PROPOSAL_CREATE: u8 = 27;

/// Reads the calls of a proposal, none of which may be a proposal itself: a transaction of 16 KiB could
/// nest them a thousand deep, and whoever reads it would run out of stack.
fn read_proposed_calls<R: io::Read>(reader: &mut R) -> io::Result<Vec<Call>> {
    let count = u32::deserialize_reader(reader)?;
    let mut calls = Vec::new();
    for _ in 0..count {
        let tag = u8::deserialize_reader(reader)?;
        if tag == PROPOSAL_CREATE {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a proposal cannot contain a proposal"));
        }
        calls.push(Call::deserialize_variant(reader, tag)?);
    }
    Ok(calls)
}

/// The fields of [`Call::OrderSubmit`].
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
pub struct OrderSubmit {
    /// Which model runs.
    pub model: ModelId,
    /// What it runs on.
    pub input: Input,
    /// The whole price, the model's own fee included.
    pub fee: Amount,
    /// The most that may ever be taken from the client for this order.
    pub max_total: Amount,
    /// How the order finds its provider.
    pub lane: Lane,
    /// When an unsolved order expires, ms since the Unix epoch.
    pub deadline_ms: u64,
    /// A sampling seed fixed by the client, below [`crate::object::SEED_MODULUS`]. (T-2)
    pub seed: Option<u64>,
    /// How many agreements are asked for and paid. (V-1)
    pub agreements: u8,
    /// The order whose answer led to this one. (T-15)
    pub parent: Option<OrderId>,
    /// Set aside for the orders below this one, which must have no parent. (T-15)
    #[serde(default)]
    pub budget: Option<OrderBudget>,
}

/// What the client sets aside for the orders below one: they are paid out of it, and never cost more. (T-15)
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
pub struct OrderBudget {
    pub amount: Amount,
    /// When it closes by itself and the rest comes back, ms since the Unix epoch.
    pub until_ms: u64,
}

/// What a session key may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
#[borsh(use_discriminant = false)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// Every call except managing session keys.
    All,
    /// Submitting and cancelling orders.
    Client,
    /// Bonding, supporting models, solving, agreeing, contesting, voting.
    Provider,
}

impl Scope {
    /// Whether a key of this scope may make `call`. Session keys never manage session keys.
    pub fn allows(self, call: &Call) -> bool {
        use Call::*;
        match call {
            SessionKeyAdd { .. } | SessionKeyRevoke { .. } => false,
            Transfer { .. }
            | ModelRegister { .. }
            | ModelTermsSet { .. }
            | Unbond { .. }
            | Delegate { .. }
            | Undelegate { .. }
            | DelegationMove { .. }
            | DelegationClaim { .. }
            | CommissionSet { .. }
            | ModelRewardSet { .. }
            | VotesDelegate { .. }
            | ProposalCreate { .. }
            | ProposalVote { .. }
            | ProposalQueue { .. }
            | ProposalExecute { .. }
            | ProposalCancel { .. }
            | ParamsSet { .. }
            | UpgradeSchedule { .. }
            | UpgradeCancel
            | AssetTransfer { .. }
            | DaoCreate { .. }
            | SharesClaim { .. }
            | SaleOpen { .. }
            | SaleClose { .. }
            | SharesBuy { .. }
            | DaoPropose { .. }
            | DaoVote { .. }
            | PoolAdd { .. }
            | PoolRemove { .. }
            | Swap { .. }
            | LpStake { .. }
            | LpUnstake { .. }
            | DripClaim { .. }
            | PoolDripSet { .. } => self == Self::All,
            OrderSubmit(_) | OrderCancel { .. } | BudgetClose { .. } => self != Self::Provider,
            Bond { .. }
            | ModelSupport { .. }
            | OrderCommit { .. }
            | OrderReveal { .. }
            | OrderAccept { .. }
            | OrderComplete { .. }
            | Agree { .. }
            | Contest { .. }
            | Vote { .. }
            | VoteCommit { .. }
            | VoteOpen { .. }
            | OrderClaim { .. }
            | InputConfirm { .. } => self != Self::Client,
        }
    }
}

impl Call {
    /// The canonical human sentence: shown by wallets, recomputed and compared by the ledger.
    pub fn summary(&self) -> String {
        match self {
            Self::Transfer { to, amount } => format!("Send {amount} ALTH to {to}"),
            Self::SessionKeyAdd { key, scope, spend_limit, expires_at_ms } => format!(
                "Allow key {key} to act for this account ({scope:?}), spending at most {spend_limit} ALTH, until {expires_at_ms} ms"
            ),
            Self::SessionKeyRevoke { key } => format!("Stop allowing key {key}"),
            Self::Bond { amount } => format!("Bond {amount} ALTH as provider"),
            Self::Unbond { amount } => format!("Unbond {amount} ALTH"),
            Self::ModelRegister { name, package, fee, payee, verification } => format!(
                "Register model {name} ({package}) at {fee} ALTH a run, paid to {payee}, verification {verification:?}"
            ),
            Self::ModelTermsSet { model, fee, payee } => {
                format!("Set the fee of model {model} to {fee} ALTH a run, paid to {payee}")
            }
            Self::ModelSupport { models, endpoint } => {
                let list: Vec<_> = models.iter().map(ToString::to_string).collect();
                format!("Serve models [{}] at {endpoint}", list.join(", "))
            }
            Self::OrderSubmit(order) => {
                let run = format!(
                    "Order a run of model {} for {} ALTH, at most {} ALTH ({})",
                    order.model,
                    order.fee,
                    order.max_total,
                    order.lane.name()
                );
                // Wallets show that the URL becomes public.
                let run = match &order.input {
                    Input::Content { source: Some(source), .. } => format!("{run}, its input to be had at {source}"),
                    _ => run,
                };
                match &order.budget {
                    None => run,
                    Some(OrderBudget { amount, until_ms }) => {
                        format!("{run}, and set {amount} ALTH aside for orders that follow from it until {until_ms} ms")
                    }
                }
            }
            Self::OrderCommit { order, commitment } => format!("Commit to an answer of order {order} ({commitment})"),
            Self::OrderReveal { order, output, .. } => format!("Reveal {output} as the answer of order {order}"),
            Self::OrderAccept { order } => format!("Accept order {order}"),
            Self::OrderComplete { order, output, .. } => format!("Deliver {output} for order {order}"),
            Self::OrderCancel { order } => format!("Cancel order {order}"),
            Self::Agree { order, output } => format!("Agree that {output} answers order {order}"),
            Self::Contest { order, .. } => format!("Contest the answer of order {order}"),
            Self::Vote { order, refute: true } => format!("Vote that the answer of order {order} is wrong"),
            Self::Vote { order, refute: false } => format!("Vote that the answer of order {order} is right"),
            Self::VoteCommit { order, .. } => format!("Commit a vote on the answer of order {order}"),
            Self::VoteOpen { order, answer, .. } => {
                let says = match answer {
                    BallotAnswer::Uphold => "it is right".into(),
                    BallotAnswer::Refute => "it is wrong".into(),
                    BallotAnswer::Output { output } => format!("the right answer is {output}"),
                    BallotAnswer::InputUnavailable => "its input cannot be had".into(),
                };
                format!("Open the vote on the answer of order {order}: {says}")
            }
            Self::OrderClaim { order } => format!("Claim the fee of order {order}"),
            Self::Delegate { provider, amount } => format!("Delegate {amount} ALTH to provider {provider}"),
            Self::Undelegate { provider, amount } => {
                format!("Take {} back from provider {provider}", amount_or_all(amount))
            }
            Self::DelegationMove { from, to, amount } => {
                format!("Move {} from provider {from} to provider {to}", amount_or_all(amount))
            }
            Self::DelegationClaim { provider } => format!("Collect what provider {provider} earned for this account"),
            Self::CommissionSet { commission } => {
                format!("Keep {} % of what is earned for delegators", percent(u64::from(commission.0)))
            }
            Self::ModelRewardSet { model, reward: None } => format!("End the reward of model {model}"),
            Self::ModelRewardSet { model, reward: Some(ModelReward { rate, unit_bytes }) } => format!(
                "Reward runs of model {model} at {} % of the curve, in full from {unit_bytes} bytes of output",
                percent(u64::from(*rate))
            ),
            Self::VotesDelegate { to } => format!("Let {to} vote with the units of this account"),
            Self::ProposalCreate { title, description, calls } => {
                let list: Vec<_> = calls.iter().map(Self::summary).collect();
                let digest = Hash::of(&[description.as_bytes()]);
                format!("Propose {title:?} (description {digest}): {}", list.join("; "))
            }
            Self::ProposalVote { proposal, choice: VoteChoice::For } => format!("Vote for proposal {proposal}"),
            Self::ProposalVote { proposal, choice: VoteChoice::Against } => format!("Vote against proposal {proposal}"),
            Self::ProposalVote { proposal, choice: VoteChoice::Abstain } => {
                format!("Abstain in the vote on proposal {proposal}")
            }
            Self::ProposalQueue { proposal } => format!("Start the timelock of proposal {proposal}"),
            Self::ProposalExecute { proposal } => format!("Execute proposal {proposal}"),
            Self::ProposalCancel { proposal } => format!("Cancel proposal {proposal}"),
            Self::ParamsSet { changes } => {
                let list: Vec<_> =
                    changes.iter().map(|change| format!("{:?} = {}", change.name, change.value)).collect();
                format!("Set parameters [{}]", list.join(", "))
            }
            Self::UpgradeSchedule { version, height } => {
                format!("Upgrade the protocol to version {version} at height {height}")
            }
            Self::UpgradeCancel => "Cancel the scheduled upgrade of the protocol".into(),
            Self::AssetTransfer { asset, to, amount } => format!("Send {} to {to}", asset.amount(*amount)),
            Self::DaoCreate { model, shares } => {
                format!("Turn model {model} into a DAO of {shares} shares, whose holders earn its fees")
            }
            Self::SharesClaim { model } => format!("Collect what shares of model {model} earned for this account"),
            Self::SaleOpen { model, shares, price } => {
                format!("Offer {shares} shares of model {model} at {price} ALTH each")
            }
            Self::SaleClose { model } => format!("Take the offer of shares of model {model} back"),
            Self::SharesBuy { model, seller, shares, max_total } => {
                format!("Buy {shares} shares of model {model} from {seller} for at most {max_total} ALTH")
            }
            Self::DaoPropose { model, fee, payee } => {
                let payee = payee.map_or("the holders of its shares".into(), |payee| payee.to_string());
                format!("Propose a fee of {fee} ALTH a run for model {model}, paid to {payee}")
            }
            Self::DaoVote { model, approve: true } => format!("Vote for the proposed terms of model {model}"),
            Self::DaoVote { model, approve: false } => format!("Vote against the proposed terms of model {model}"),
            Self::PoolAdd { a, b, amount_a, amount_b, lp_min } => format!(
                "Put at most {} and {} into their pool for at least {lp_min} of its liquidity shares",
                a.amount(*amount_a),
                b.amount(*amount_b)
            ),
            // Which assets they are is known to the ledger alone, and shares are counts: base units.
            Self::PoolRemove { pool, lp, a_min, b_min } => format!(
                "Give {lp} liquidity shares of pool {pool} back for at least {} and {} base units of its assets",
                a_min.0, b_min.0
            ),
            Self::Swap { asset_in, amount_in, asset_out, out_min } => {
                format!("Swap {} for at least {}", asset_in.amount(*amount_in), asset_out.amount(*out_min))
            }
            Self::LpStake { pool, lp } => format!("Stake {lp} liquidity shares of pool {pool}"),
            Self::LpUnstake { pool, lp } => format!("Take {lp} staked liquidity shares of pool {pool} back"),
            Self::DripClaim { pool } => format!("Collect what staked liquidity of pool {pool} earned"),
            Self::PoolDripSet { pool, weight } => format!("Set the weight of pool {pool} in the drip to {weight}"),
            Self::InputConfirm { order } => format!("Confirm that the input of order {order} can be fetched"),
            Self::BudgetClose { order } => format!("Take back what is left of the budget of order {order}"),
        }
    }

    /// What executing the call costs every node, in operation units: about the objects that it reads
    /// and writes. (L-1)
    pub fn units(&self) -> u64 {
        match self {
            Self::Transfer { .. } | Self::SessionKeyAdd { .. } | Self::SessionKeyRevoke { .. } => 2,
            Self::ModelRegister { .. } | Self::ModelTermsSet { .. } | Self::ModelRewardSet { .. } => 3,
            Self::ModelSupport { models, .. } => 2 + 2 * models.len() as u64,
            Self::Bond { .. } | Self::Unbond { .. } | Self::CommissionSet { .. } => 4,
            Self::Delegate { .. } | Self::Undelegate { .. } | Self::DelegationMove { .. } => 6,
            Self::DelegationClaim { .. } => 4,
            // With what runs by itself later: seed, expiry, claim, pruning; and what coordinators are to fetch.
            Self::OrderSubmit(order) => {
                let fetched = if matches!(order.input, Input::Content { .. }) { 12 } else { 0 };
                12 + fetched + if order.budget.is_some() { 3 } else { 0 }
            }
            Self::OrderCommit { .. } | Self::OrderAccept { .. } | Self::OrderCancel { .. } => 3,
            Self::OrderReveal { .. } | Self::OrderComplete { .. } | Self::Agree { .. } => 6,
            Self::OrderClaim { .. } => 10,
            // With the drawing of a jury and the count.
            Self::Contest { .. } => 40,
            Self::Vote { .. } | Self::VoteCommit { .. } | Self::VoteOpen { .. } => 5,
            Self::VotesDelegate { .. } | Self::ProposalVote { .. } | Self::ProposalQueue { .. } => 4,
            Self::ProposalCancel { .. } => 6,
            // What it makes the executing block do is paid by who proposes it.
            Self::ProposalCreate { calls, .. } => 20 + calls.iter().map(Self::units).sum::<u64>(),
            Self::ProposalExecute { .. } => 40,
            Self::ParamsSet { changes } => 2 + changes.len() as u64,
            Self::UpgradeSchedule { .. } | Self::UpgradeCancel => 2,
            Self::AssetTransfer { .. } | Self::DaoVote { .. } | Self::SaleOpen { .. } | Self::SaleClose { .. } => 4,
            Self::DaoCreate { .. } | Self::DaoPropose { .. } => 5,
            Self::SharesClaim { .. } | Self::SharesBuy { .. } | Self::DripClaim { .. } => 6,
            Self::PoolAdd { .. } | Self::PoolRemove { .. } | Self::Swap { .. } => 8,
            Self::LpStake { .. } | Self::LpUnstake { .. } => 6,
            Self::PoolDripSet { .. } | Self::InputConfirm { .. } | Self::BudgetClose { .. } => 3,
        }
    }

    /// The names of all calls, in the order of the enum.
    pub const NAMES: &[&str] = &[
        "transfer",
        "session_key_add",
        "session_key_revoke",
        "bond",
        "unbond",
        "model_register",
        "model_terms_set",
        "model_support",
        "order_submit",
        "order_commit",
        "order_reveal",
        "order_accept",
        "order_complete",
        "order_cancel",
        "agree",
        "contest",
        "vote",
        "vote_commit",
        "vote_open",
        "order_claim",
        "delegate",
        "undelegate",
        "delegation_move",
        "delegation_claim",
        "commission_set",
        "model_reward_set",
        "votes_delegate",
        "proposal_create",
        "proposal_vote",
        "proposal_queue",
        "proposal_execute",
        "proposal_cancel",
        "params_set",
        "upgrade_schedule",
        "upgrade_cancel",
        "asset_transfer",
        "dao_create",
        "shares_claim",
        "sale_open",
        "sale_close",
        "shares_buy",
        "dao_propose",
        "dao_vote",
        "pool_add",
        "pool_remove",
        "swap",
        "lp_stake",
        "lp_unstake",
        "drip_claim",
        "pool_drip_set",
        "input_confirm",
        "budget_close",
    ];

    /// The call's name as the command line, events and benchmarks write it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Transfer { .. } => "transfer",
            Self::SessionKeyAdd { .. } => "session_key_add",
            Self::SessionKeyRevoke { .. } => "session_key_revoke",
            Self::Bond { .. } => "bond",
            Self::Unbond { .. } => "unbond",
            Self::ModelRegister { .. } => "model_register",
            Self::ModelTermsSet { .. } => "model_terms_set",
            Self::ModelSupport { .. } => "model_support",
            Self::OrderSubmit(_) => "order_submit",
            Self::OrderCommit { .. } => "order_commit",
            Self::OrderReveal { .. } => "order_reveal",
            Self::OrderAccept { .. } => "order_accept",
            Self::OrderComplete { .. } => "order_complete",
            Self::OrderCancel { .. } => "order_cancel",
            Self::Agree { .. } => "agree",
            Self::Contest { .. } => "contest",
            Self::Vote { .. } => "vote",
            Self::VoteCommit { .. } => "vote_commit",
            Self::VoteOpen { .. } => "vote_open",
            Self::OrderClaim { .. } => "order_claim",
            Self::Delegate { .. } => "delegate",
            Self::Undelegate { .. } => "undelegate",
            Self::DelegationMove { .. } => "delegation_move",
            Self::DelegationClaim { .. } => "delegation_claim",
            Self::CommissionSet { .. } => "commission_set",
            Self::ModelRewardSet { .. } => "model_reward_set",
            Self::VotesDelegate { .. } => "votes_delegate",
            Self::ProposalCreate { .. } => "proposal_create",
            Self::ProposalVote { .. } => "proposal_vote",
            Self::ProposalQueue { .. } => "proposal_queue",
            Self::ProposalExecute { .. } => "proposal_execute",
            Self::ProposalCancel { .. } => "proposal_cancel",
            Self::ParamsSet { .. } => "params_set",
            Self::UpgradeSchedule { .. } => "upgrade_schedule",
            Self::UpgradeCancel => "upgrade_cancel",
            Self::AssetTransfer { .. } => "asset_transfer",
            Self::DaoCreate { .. } => "dao_create",
            Self::SharesClaim { .. } => "shares_claim",
            Self::SaleOpen { .. } => "sale_open",
            Self::SaleClose { .. } => "sale_close",
            Self::SharesBuy { .. } => "shares_buy",
            Self::DaoPropose { .. } => "dao_propose",
            Self::DaoVote { .. } => "dao_vote",
            Self::PoolAdd { .. } => "pool_add",
            Self::PoolRemove { .. } => "pool_remove",
            Self::Swap { .. } => "swap",
            Self::LpStake { .. } => "lp_stake",
            Self::LpUnstake { .. } => "lp_unstake",
            Self::DripClaim { .. } => "drip_claim",
            Self::PoolDripSet { .. } => "pool_drip_set",
            Self::InputConfirm { .. } => "input_confirm",
            Self::BudgetClose { .. } => "budget_close",
        }
    }
}

fn amount_or_all(amount: &Option<Amount>) -> String {
    amount.map_or("the whole delegation".into(), |amount| format!("{amount} ALTH"))
}

/// Parts per million as a percentage: `12.5`.
fn percent(ppm: u64) -> String {
    Amount(u128::from(ppm) * (Amount::TOKEN.0 / 10_000)).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{decode, encode};

    fn proposal(calls: Vec<Call>) -> Call {
        Call::ProposalCreate { title: "t".into(), description: String::new(), calls }
    }

    #[test]
    fn a_proposal_is_read_back_with_its_calls_but_never_with_a_proposal_in_it() {
        // G-1
        let good = proposal(vec![Call::UpgradeCancel, Call::Bond { amount: Amount(1) }]);
        let bytes = encode(&good);
        assert_eq!(bytes[0], PROPOSAL_CREATE);
        assert_eq!(decode::<Call>(&bytes).unwrap(), good);
        let mut nested = proposal(vec![Call::UpgradeCancel]);
        for _ in 0..500 {
            nested = proposal(vec![nested]);
        }
        let error = decode::<Call>(&encode(&nested)).unwrap_err();
        assert_eq!(error.to_string(), "a proposal cannot contain a proposal");
    }

    #[test]
    fn the_list_of_names_has_every_call_and_nothing_else() {
        for (number, name) in (0u8..).zip(Call::NAMES) {
            // Zeros are a whole call of most kinds; the ledger's conformance test has the others.
            let bytes = [&[number][..], &[0; 200]].concat();
            match <Call as BorshDeserialize>::deserialize(&mut &bytes[..]) {
                Ok(call) => assert_eq!(call.name(), *name),
                Err(error) => assert!(!error.to_string().contains("Unexpected variant tag"), "{name}: {error}"),
            }
        }
        let beyond = u8::try_from(Call::NAMES.len()).unwrap();
        let error = <Call as BorshDeserialize>::deserialize(&mut &[beyond][..]).unwrap_err();
        assert!(error.to_string().contains("Unexpected variant tag"), "a call has no name: {error}");
    }

    #[test]
    fn a_change_of_a_parameter_keeps_every_digit_in_json() {
        let change = ParamChange { name: "bond_min".into(), value: u128::MAX };
        let call = Call::ParamsSet { changes: vec![change] };
        let json = toml::to_string(&call).unwrap();
        assert!(json.contains("\"340282366920938463463374607431768211455\""), "{json}");
        assert_eq!(toml::from_str::<Call>(&json).unwrap(), call);
    }
}
