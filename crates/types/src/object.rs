//! The objects that the ledger stores and clients read.

use crate::{
    Address, Amount, AssetId, Call, Cid, ContentSource, Hash, ModelId, OrderId, PoolId, Ppm, SessionPublicKey,
    call::Scope,
};
use borsh::{BorshDeserialize, BorshSerialize};
use ruint::aliases::U256;
use serde::{Deserialize, Serialize};

/// Seeds are below this number, 2^53 − 16, so that JSON numbers carry them. (T-2)
pub const SEED_MODULUS: u64 = 0x1F_FFFF_FFFF_FFF0;
/// The largest input that travels inside an order, bytes. (T-1)
pub const INLINE_INPUT_BYTES_MAX: usize = 4096;
/// The largest input by CID that providers run on and coordinators fetch, bytes.
pub const CONTENT_INPUT_BYTES_MAX: u64 = 16 << 20;
/// How many valid reveals of one order the ledger keeps. (T-3)
pub const SOLUTIONS_MAX: usize = 3;
/// How many orders may lead to one: the longest chain of parents. (T-15)
pub const DEPTH_MAX: u8 = 16;

/// Balances and nonce of one account.
#[derive(Clone, Debug, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
pub struct Account {
    /// Spendable balance.
    pub free: Amount,
    /// The nonce that the next wallet-signed transaction must carry.
    pub nonce: u64,
    /// How many session keys the account has.
    pub session_keys: u32,
    /// What it earned so far, by where it came from. (E-4)
    pub earned: Earned,
    /// What it can say in votes on proposals. (G-1)
    pub voting: Voting,
}

impl Account {
    /// The account's own votable units: free, bonded, delegated. (G-1)
    pub fn votable(&self) -> Amount {
        self.free.checked_add(self.voting.staked).unwrap_or(Amount::MAX)
    }
    /// The voting power that it commands now: its own, unless it gave it away, and what others gave it. (G-1)
    pub fn power(&self) -> Amount {
        let own = if self.voting.delegate.is_none() { self.votable() } else { Amount::ZERO };
        own.checked_add(self.voting.received).unwrap_or(Amount::MAX)
    }
}

/// What an account can say in votes on proposals, now and before its last change. (G-1)
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
pub struct Voting {
    /// Its provider bond and what it delegated to providers.
    pub staked: Amount,
    /// Who votes with its units; `None` is the account itself.
    pub delegate: Option<Address>,
    /// Units of others with which this account votes.
    pub received: Amount,
    /// Height of the block in which its power changed last.
    pub changed_height: u64,
    /// Its power before that block, which it had from this height on.
    pub before: Amount,
    pub before_since: u64,
}

/// Lifetime earnings of an account. (E-4)
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
pub struct Earned {
    /// From fees of orders: as provider, model owner, agreeing provider, or delegator.
    pub fees: Amount,
    /// From minted rewards, as provider, delegator or liquidity provider.
    pub rewards: Amount,
    /// From the slashed bonds of others.
    pub slashes: Amount,
}

/// A key that an account allowed to act for it.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
pub struct SessionKey {
    pub account: Address,
    pub key: SessionPublicKey,
    pub scope: Scope,
    /// What the key may still spend from the free balance.
    pub spend_left: Amount,
    pub expires_at_ms: u64,
    /// The nonce that the key's next transaction must carry; counted apart from the wallet's.
    pub nonce: u64,
    /// What comes back when the key is revoked. (L-1)
    pub deposit: Amount,
}

/// A provider's collateral and what it serves.
#[derive(Clone, Debug, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
pub struct Provider {
    pub account: Address,
    /// Own collateral, reservations included, unbonding amounts not.
    pub bond: Amount,
    /// Delegations to it, and those that are on their way out and can still be slashed. (T-10)
    pub delegated: Pool,
    pub leaving: Pool,
    /// What it keeps of its delegators' part of its earnings, and a change that it announced.
    pub commission: Ppm,
    pub commission_next: Option<CommissionChange>,
    /// What its delegators earned for each delegated share since the beginning.
    pub earned_per_share: EarnedPerShare,
    /// What its delegators earned and did not claim yet.
    pub owed: Amount,
    /// The part of bond, delegations and leaving delegations that outstanding claims may still
    /// lose. (T-9)
    pub reserved: Amount,
    /// Own amounts on their way out. What a claim may still lose is reserved and never leaves. (T-10)
    pub unbonding: Vec<Unbonding>,
    /// Stake (bond and delegations) from each of these points of active time (ms) on, oldest first,
    /// for vote weights: never more than it was. (T-7)
    pub stake_history: Vec<(u64, Amount)>,
    /// No new work before this time, ms. (T-8)
    pub jailed_until_ms: u64,
    /// Models that it says it serves. (T-13)
    pub models: Vec<ModelId>,
    /// Base URL where clients reach it; empty if it takes no chosen orders.
    pub endpoint: String,
    /// Claims outstanding: solutions, agreements and votes not yet settled.
    pub outstanding: u32,
    /// What it left when it became a provider. (L-1)
    pub deposit: Amount,
}

impl Provider {
    /// What weighs: bond and delegations.
    pub fn stake(&self) -> Amount {
        self.bond.checked_add(self.delegated.amount).unwrap_or(Amount::MAX)
    }
    /// What can be slashed: the stake, and delegations on their way out. (T-10)
    pub fn slashable(&self) -> Amount {
        self.stake().checked_add(self.leaving.amount).unwrap_or(Amount::MAX)
    }
    /// The part of the stake that no claim has reserved. (T-9)
    pub fn stake_free(&self) -> Amount {
        self.stake().saturating_sub(self.reserved)
    }
    /// The commission in force at a time. (T-10)
    pub fn commission_at(&self, now_ms: u64) -> Ppm {
        match &self.commission_next {
            Some(change) if now_ms >= change.from_ms => change.commission,
            _ => self.commission,
        }
    }
}

/// Tokens that many hold shares of, so that a slash costs each its part without touching each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
pub struct Pool {
    pub amount: Amount,
    pub shares: Amount,
}

/// A change of commission that was announced. (T-10)
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
pub struct CommissionChange {
    pub commission: Ppm,
    pub from_ms: u64,
}

/// Stake of one account behind one provider.
#[derive(Clone, Debug, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
pub struct Delegation {
    pub delegator: Address,
    pub provider: Address,
    /// Shares of the provider's pool of delegations.
    pub shares: Amount,
    /// The provider's earnings for each share when this delegation last took its part.
    pub earned_per_share_paid: EarnedPerShare,
    /// What it took its part of and has not been paid yet.
    pub owed_fees: Amount,
    pub owed_rewards: Amount,
    /// Parts on their way out.
    pub leaving: Vec<LeavingDelegation>,
    /// What comes back when nothing is left of it. (L-1)
    pub deposit: Amount,
    /// What it counts for in votes on proposals: the value of its shares when that was last looked
    /// at, which is whenever they change, and soon after a slash. (G-1)
    pub votable: Amount,
}

/// A part of a delegation that leaves; slashable until then. (T-10)
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
pub struct LeavingDelegation {
    /// Shares of the provider's pool of leaving delegations.
    pub shares: Amount,
    pub free_at_ms: u64,
    /// Goes on to this provider instead of the free balance.
    pub to: Option<Address>,
}

/// Earnings for each share since the beginning, by where they came from. (E-4)
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
pub struct EarnedPerShare {
    pub fees: Accumulator,
    pub rewards: Accumulator,
}

/// A sum for each share since the beginning of a pool: a 256-bit number, scaled by 2^128.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, BorshSerialize, BorshDeserialize)]
pub struct Accumulator {
    high: u128,
    low: u128,
}

impl Accumulator {
    fn number(self) -> U256 {
        (U256::from(self.high) << 128) | U256::from(self.low)
    }
    fn of(number: U256) -> Self {
        let low = (number & U256::from(u128::MAX)).to::<u128>();
        Self { high: (number >> 128usize).to::<u128>(), low }
    }
    /// Adds `amount` for all of `shares`, rounded up in the 128th binary place, so that a sole holder
    /// gets all of it to the unit. What is too much is below 2^-40 units a payment for all holders
    /// together, and each rounds down: the parts stay within what was put in for 2^40 payments.
    ///
    /// The sum cannot overflow: it grows by at most amount · 2^128, and amounts are of one supply.
    pub fn add(self, amount: Amount, shares: Amount) -> Self {
        if shares.is_zero() {
            return self;
        }
        let scaled: U256 = U256::from(amount.0) << 128usize;
        let (grown, rest) = scaled.div_rem(U256::from(shares.0));
        let grown = if rest.is_zero() { grown } else { grown.saturating_add(U256::from(1)) };
        Self::of(self.number().saturating_add(grown))
    }
    /// What `shares` have earned since `paid`, rounded down.
    pub fn since(self, paid: Self, shares: Amount) -> Amount {
        let grown = self.number().saturating_sub(paid.number());
        let product: ruint::Uint<512, 8> = ruint::Uint::<512, 8>::from(grown) * ruint::Uint::<512, 8>::from(shares.0);
        Amount(u128::try_from(product >> 128usize).unwrap_or(u128::MAX))
    }
}

impl Serialize for Accumulator {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(&format_args!("{:032x}{:032x}", self.high, self.low))
    }
}

impl<'de> Deserialize<'de> for Accumulator {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let hash = <Hash as Deserialize>::deserialize(d)?;
        Ok(Self::of(U256::from_be_bytes(hash.0)))
    }
}

/// One amount that leaves the bond at a stated time.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
pub struct Unbonding {
    pub amount: Amount,
    pub free_at_ms: u64,
}

/// Whether results can be re-run bit for bit. (T-20)
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
#[borsh(use_discriminant = false)]
#[serde(rename_all = "snake_case")]
pub enum Verification {
    /// Not reproducible: refused in the open lane.
    None,
    /// Every run gives the same bits.
    Exact,
}

/// A registered model: an immutable package and mutable terms. (T-13)
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
pub struct Model {
    pub id: ModelId,
    pub owner: Address,
    /// Unique name, as API clients write it.
    pub name: String,
    /// CID of the package: code, weights, interface.
    pub package: Cid,
    pub verification: Verification,
    /// Flat fee of one run, paid to `payee`.
    pub fee: Amount,
    pub payee: Address,
    /// What its runs earn beside fees, once governance enabled it. (T-6)
    pub reward: Option<ModelReward>,
    /// Providers that say they serve it, and their stake. (T-13)
    pub supporters: u32,
    pub supporters_stake: Amount,
    /// Lifetime count of settled runs.
    pub runs: u64,
    /// What its owner left for it. (L-1)
    pub deposit: Amount,
}

/// How governance rewards a model's runs. (T-6)
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelReward {
    /// Multiplies the curve's reward, parts per million; above 1,000,000 for models of more use.
    pub rate: u32,
    /// Bytes of output that earn the whole reward where rewards are metered; smaller outputs earn
    /// their part.
    pub unit_bytes: u64,
}

/// What a model runs on. (T-1)
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Input {
    /// At most [`INLINE_INPUT_BYTES_MAX`] bytes inside the order; the ledger computes their CID.
    Inline {
        #[serde(with = "hex_bytes")]
        bytes: Vec<u8>,
    },
    /// A file that whoever has it serves.
    Content {
        cid: Cid,
        size: u64,
        /// Where it can be had, if the client says so.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        source: Option<ContentSource>,
    },
}

/// Whether everybody can have the input of an order: else its answer cannot be checked by whom it pleases,
/// and it earns no reward. (T-21)
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
#[borsh(use_discriminant = false)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Availability {
    /// It is in the order.
    Inline,
    /// Nobody is asked to fetch it: the order earns no reward anyway.
    Unchecked,
    /// The coordinators that are to fetch it are drawn by the next beacon.
    Undrawn,
    /// The coordinators drawn have until then to fetch it.
    Sampled { drawn: Vec<Address>, confirmed: Vec<Address>, until_ms: u64 },
    /// Enough of them fetched it before the seed existed.
    Shown,
    /// Too few of them did in time.
    NotShown,
}

impl Availability {
    /// Whether an order with such an input can earn a reward. (T-21)
    pub fn earns(&self) -> bool {
        matches!(self, Self::Inline | Self::Shown)
    }

    /// Whether the seed waits for coordinators to fetch the input. (T-21)
    pub fn is_open(&self) -> bool {
        matches!(self, Self::Undrawn | Self::Sampled { .. })
    }

    /// Whether `coordinator` was drawn to fetch the input and has not said yet that it did.
    pub fn waits_for(&self, coordinator: &Address) -> bool {
        match self {
            Self::Sampled { drawn, confirmed, .. } => drawn.contains(coordinator) && !confirmed.contains(coordinator),
            _ => false,
        }
    }
}

/// What an order at the root of a chain set aside for the orders below it. (T-15)
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
pub struct Budget {
    /// The root.
    pub order: OrderId,
    /// Who set it aside, whose orders draw from it, and who gets back what is left.
    pub client: Address,
    pub left: Amount,
    /// Fees of orders that were not refunded.
    pub spent: Amount,
    /// When it closes by itself, ms since the Unix epoch.
    pub until_ms: u64,
    /// What comes back to the client when it closes. (L-1)
    pub deposit: Amount,
}

/// How an order finds its provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
#[borsh(use_discriminant = false)]
#[serde(tag = "lane", rename_all = "snake_case")]
pub enum Lane {
    /// A race that any bonded provider may win. Input and output are public. (T-3, L-3)
    Open,
    /// The client names the provider.
    Chosen { provider: Address },
}

impl Lane {
    /// `open` or `chosen`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Chosen { .. } => "chosen",
        }
    }
}

/// One request for one run.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
pub struct Order {
    pub id: OrderId,
    /// Position among all orders since genesis, from 1.
    pub number: u64,
    pub client: Address,
    pub model: ModelId,
    /// Package of the model, so that a receipt names what ran.
    pub package: Cid,
    pub lane: Lane,
    pub input: Input,
    /// CID of the input, computed by the ledger for inline inputs.
    pub input_cid: Cid,
    pub fee: Amount,
    /// The model's fee and payee as they were at submission. (T-13)
    pub model_fee: Amount,
    pub model_payee: Address,
    pub submitted_height: u64,
    pub submitted_view: u64,
    pub submitted_ms: u64,
    pub deadline_ms: u64,
    /// Known once a beacon at least two views after inclusion is in a block, or at once when the
    /// client fixed it. (T-2)
    pub seed: Option<u64>,
    /// Whether the client fixed the seed: such orders earn no minted reward. (T-2)
    pub seed_by_client: bool,
    /// Agreements asked for and paid. (V-1)
    pub agreements_wanted: u8,
    pub parent: Option<OrderId>,
    /// How many orders lead to this one, 0 without a parent. (T-15)
    pub depth: u8,
    pub state: OrderState,
    /// How many commitments the order ever had; gives each its index.
    pub commitments_made: u32,
    /// Open commitments in the order they were included. (T-3)
    pub commitments: Vec<Commitment>,
    /// Valid reveals: the standing one first, then its replacements in commitment order. (T-3)
    pub solutions: Vec<Solution>,
    /// Agreements with the standing solution. (V-1)
    pub agreements: Vec<Agreement>,
    /// Set when the client asked to cancel; closes the order to new commitments. (T-17)
    pub cancelled: bool,
    /// Who solved it in the end, once it is claimed.
    pub claimed_by: Option<Address>,
    /// What comes back to the client when the order leaves the state. (L-1)
    pub deposit: Amount,
    /// Whether everybody can have the input. (T-21)
    pub availability: Availability,
    /// The first order of its chain; itself without a parent. (T-15)
    pub root: OrderId,
    /// Whether the fee came out of the root's budget, and goes back there. (T-15)
    pub budgeted: bool,
}

/// Where an order is in its life. (§2)
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
#[borsh(use_discriminant = false)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum OrderState {
    /// Waiting for a solution (open lane) or for its provider's acceptance (chosen lane).
    Submitted,
    /// Chosen lane: the provider took it and must deliver before the time given.
    Accepted { deliver_by_ms: u64 },
    /// Solved; the solution stands until its challenge window ends, at a point of active time.
    Solved { claim_at_ms: u64 },
    /// Disputed; see the case with the same id.
    Contested { claim_at_ms: u64 },
    /// Paid out.
    Claimed,
    /// Given back to the client.
    Refunded { reason: RefundReason },
}

impl OrderState {
    /// Whether nothing more will happen to the order.
    pub fn is_final(&self) -> bool {
        matches!(self, Self::Claimed | Self::Refunded { .. })
    }
}

/// Why an order was refunded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
#[borsh(use_discriminant = false)]
#[serde(rename_all = "snake_case")]
pub enum RefundReason {
    /// Nobody solved it before its deadline.
    Expired,
    /// The client cancelled it.
    Cancelled,
    /// Its solution was refuted and no other stood behind it.
    Refuted,
    /// Its solver was refuted in another case and no other solution stood behind it.
    Voided,
    /// Its dispute found no quorum, or that the input cannot be had. (T-7, T-21)
    Undecided,
}

/// A promise of an answer. (T-3)
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
pub struct Commitment {
    pub provider: Address,
    pub hash: Hash,
    pub height: u64,
    /// When it stops holding the order open.
    pub expires_ms: u64,
    /// Position in the order's history of commitments, from 0; gives reveals their order.
    pub index: u32,
}

/// A provider's claim that `output` answers the order.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
pub struct Solution {
    pub provider: Address,
    pub output: Cid,
    pub output_size: u64,
    pub height: u64,
    pub time_ms: u64,
    /// The same in active time: who was bonded before may vote on it. (T-7)
    pub active_ms: u64,
    /// Free stake when the solution was made: its vote in a dispute weighs at most this. (T-7)
    pub weight: Amount,
    /// Reserved from the bond until the solution settles. (T-9)
    pub reserved: Amount,
    /// Index of its commitment; 0 in the chosen lane.
    pub commitment_index: u32,
}

/// Another provider's confirmation by re-running. (V-1)
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
pub struct Agreement {
    pub provider: Address,
    pub height: u64,
    pub weight: Amount,
    pub reserved: Amount,
}

/// A dispute over the standing solution of one order. (T-7)
///
/// With open votes everybody votes until `voting_ends_ms`, and then they are counted. With committed
/// votes a jury is drawn, commits until `voting_ends_ms`, opens until `opening_ends_ms`, and then the
/// answers are counted; a phase ends early when nobody is missing.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
pub struct Case {
    pub order: OrderId,
    pub contester: Address,
    pub solver: Address,
    /// Output that is disputed.
    pub output: Cid,
    pub opened_height: u64,
    pub opened_ms: u64,
    /// The same in active time.
    pub opened_active_ms: u64,
    /// Points of active time.
    pub voting_ends_ms: u64,
    pub opening_ends_ms: u64,
    pub votes: Vec<Vote>,
    /// Set with committed votes.
    pub jury: Option<Jury>,
    /// Parameters as they were at the opening. (T-18)
    pub terms: CaseTerms,
    /// Set when the votes are counted.
    pub outcome: Option<Outcome>,
}

/// The parameters that a case keeps. (T-18)
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
pub struct CaseTerms {
    pub slash: Ppm,
    pub slash_leader: Ppm,
    pub slash_jurors: Ppm,
    pub jail_ms: u64,
    pub voting_period_ms: u64,
    pub opening_period_ms: u64,
    pub jury_seats: u32,
    pub jury_seats_redrawn: u32,
    pub jury_quorum: Ppm,
}

/// Who was drawn to judge. (T-7)
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
pub struct Jury {
    /// 0, or 1 for the larger one that is drawn once if the first misses its quorum.
    pub round: u8,
    /// The view from which a beacon may draw it.
    pub from_view: u64,
    /// Drawn jurors and their weights; `None` until the beacon came.
    pub seats: Option<Vec<Juror>>,
}

/// One seat of a jury.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
pub struct Juror {
    pub provider: Address,
    pub weight: Amount,
}

/// One vote in a case.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
pub struct Vote {
    pub provider: Address,
    pub weight: Amount,
    pub reserved: Amount,
    /// True for the solver's and the agreements' votes, whose reservations were made earlier.
    pub inherited: bool,
    /// What was committed to; `None` for open votes.
    pub ballot: Option<Hash>,
    /// What it says; `None` while it is a commitment that nobody opened.
    pub answer: Option<BallotAnswer>,
}

/// What a vote says. (T-7)
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, BorshSerialize, BorshDeserialize, Serialize, Deserialize,
)]
#[borsh(use_discriminant = false)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum BallotAnswer {
    /// The solution is right.
    Uphold,
    /// The solution is wrong.
    Refute,
    /// The voter's own re-run gave this.
    Output { output: Cid },
    /// The voter could not get the input. (T-21)
    InputUnavailable,
}

/// How a case ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
#[borsh(use_discriminant = false)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The solution was right, or nobody outweighed it.
    Upheld,
    /// The solution was wrong.
    Refuted,
    /// Two juries missed their quorum, or found that the input cannot be had; nobody is slashed.
    Voided,
    /// Two juries missed their quorum; the solution, which others agreed with, stands, and nobody is
    /// slashed.
    Dismissed,
}

/// A proposal to the governor: who made it, when it goes on, how the vote stands. (G-1)
///
/// Times are block times in ms. The rules that it was made under stay its own. (T-18)
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
pub struct Proposal {
    /// Counted from 1.
    pub id: u64,
    pub proposer: Address,
    pub created_height: u64,
    pub created_ms: u64,
    /// Voting power is what it was at the end of this block, the one before the proposal.
    pub snapshot_height: u64,
    pub voting_starts_ms: u64,
    pub voting_ends_ms: u64,
    pub terms: ProposalTerms,
    pub votes_for: Amount,
    pub votes_against: Amount,
    pub votes_abstain: Amount,
    /// Set when it is queued: from when on it can be executed.
    pub executable_ms: Option<u64>,
    pub cancelled: bool,
    pub executed: bool,
    /// When it leaves the state; the node's history keeps it.
    pub prune_at_ms: u64,
    /// What comes back to the proposer then. (L-1)
    pub deposit: Amount,
}

/// The rules that a proposal keeps. (T-18)
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
pub struct ProposalTerms {
    /// Power that its proposer must command.
    pub threshold: Amount,
    /// Power that must vote for it or abstain.
    pub quorum: Amount,
    pub timelock_ms: u64,
    pub grace_ms: u64,
}

impl Proposal {
    /// Where the proposal is in its life at a block time. (G-1)
    pub fn state(&self, now_ms: u64) -> ProposalState {
        if self.cancelled {
            ProposalState::Cancelled
        } else if self.executed {
            ProposalState::Executed
        } else if now_ms < self.voting_starts_ms {
            ProposalState::Pending
        } else if now_ms < self.voting_ends_ms {
            ProposalState::Active
        } else if !self.accepted() {
            ProposalState::Defeated
        } else if now_ms >= self.expires_ms() {
            ProposalState::Expired
        } else if self.executable_ms.is_some() {
            ProposalState::Queued
        } else {
            ProposalState::Succeeded
        }
    }
    /// Whether the votes so far accept it: more for than against, and a quorum of for and abstain.
    pub fn accepted(&self) -> bool {
        let taking_part = self.votes_for.checked_add(self.votes_abstain).unwrap_or(Amount::MAX);
        self.votes_for > self.votes_against && taking_part >= self.terms.quorum
    }
    /// When it expires if nobody takes it further: after its vote it must be queued, after its timelock
    /// executed, within the same grace.
    pub fn expires_ms(&self) -> u64 {
        self.executable_ms.unwrap_or(self.voting_ends_ms).saturating_add(self.terms.grace_ms)
    }
}

/// Where a proposal is in its life. (G-1)
///
/// ```text
/// pending ─ active ─┬─ succeeded ─ queued ─ executed
///                   └─ defeated      └──────┴─ expired        any before its end: cancelled
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
#[borsh(use_discriminant = false)]
#[serde(rename_all = "snake_case")]
pub enum ProposalState {
    /// Waits for its vote to begin.
    Pending,
    /// Can be voted on.
    Active,
    Cancelled,
    /// Not more for than against, or too few took part.
    Defeated,
    /// Accepted; anyone can queue it.
    Succeeded,
    /// Waits for the end of its timelock, and then for anyone to execute it.
    Queued,
    Executed,
    /// Accepted, and not taken further in time.
    Expired,
}

impl ProposalState {
    /// Its name as APIs and messages write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Active => "active",
            Self::Cancelled => "cancelled",
            Self::Defeated => "defeated",
            Self::Succeeded => "succeeded",
            Self::Queued => "queued",
            Self::Executed => "executed",
            Self::Expired => "expired",
        }
    }
    /// Whether nothing more can happen to the proposal.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Cancelled | Self::Defeated | Self::Executed | Self::Expired)
    }
}

/// What a proposal says and does.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
pub struct ProposalText {
    pub title: String,
    pub description: String,
    /// What its execution does, as the governor, all or nothing.
    pub calls: Vec<Call>,
}

/// What a vote on a proposal says. (G-1)
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
#[borsh(use_discriminant = false)]
#[serde(rename_all = "snake_case")]
pub enum VoteChoice {
    For,
    Against,
    /// Counts for the quorum alone.
    Abstain,
}

/// One account's vote on a proposal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
pub struct ProposalVote {
    pub choice: VoteChoice,
    pub weight: Amount,
}

/// A version of the protocol that comes into force at a height. (G-2)
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
pub struct Upgrade {
    pub version: u32,
    pub height: u64,
}

/// A change of one parameter by vote. (G-1)
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
pub struct ParamChange {
    /// As in [`crate::params::PARAMS`].
    pub name: String,
    /// In its unit: base units, parts per million, ms, a count, 0 or 1.
    #[serde(with = "decimal")]
    pub value: u128,
}

/// Serde helper: a large number as a decimal string, since JSON numbers lose digits.
pub mod decimal {
    use serde::{Deserialize as _, Deserializer, Serializer};
    /// Writes decimal digits.
    pub fn serialize<S: Serializer>(number: &u128, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(number)
    }
    /// Reads decimal digits.
    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<u128, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(d)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// A model whose fees belong to the holders of its shares. (T-14)
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
pub struct Dao {
    pub model: ModelId,
    /// The payee of orders whose model's fee goes to the holders.
    pub payee: Address,
    /// How many shares there are, for ever.
    pub shares: u64,
    /// What one share earned since the beginning, modulo 2^128: only differences count.
    pub per_share: Amount,
    /// The rest of earlier fees, less than one base unit a share; it joins the next fee.
    pub carry: Amount,
    /// Earned and not claimed yet, the carry included.
    pub owed: Amount,
    /// All fees that the holders ever earned. (E-4)
    pub earned: Amount,
    /// How many proposals there were.
    pub proposals: u32,
    /// The one that is being voted on.
    pub proposal: Option<DaoProposal>,
    /// What its founder left for it. (L-1)
    pub deposit: Amount,
}

/// New terms that the holders of a model's shares vote on. (T-14)
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
pub struct DaoProposal {
    /// From 1, for each model.
    pub number: u32,
    pub proposer: Address,
    pub fee: Amount,
    /// Who gets the fee; `None` for the holders.
    pub payee: Option<Address>,
    /// Shares vote as they were held at the end of the block before this height.
    pub opened_height: u64,
    pub ends_ms: u64,
    /// Shares that vote for it and against it.
    pub yes: u64,
    pub no: u64,
    /// Shares that must vote for it, as the parameters were when it opened. (T-18)
    pub quorum: u64,
}

/// What one account has to do with one model's shares. (T-14)
#[derive(Clone, Debug, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
pub struct Shareholder {
    pub model: ModelId,
    pub holder: Address,
    /// Own shares, those on sale included.
    pub shares: u64,
    pub sale: Option<Sale>,
    /// The earnings of one share when this holder last took its part.
    pub per_share_paid: Amount,
    /// What it took its part of and has not been paid yet.
    pub owed: Amount,
    /// The newest block in which its shares changed, and how many there were before that block.
    pub changed_height: u64,
    pub before: u64,
    /// How many of its shares vote, by the number of the proposal: set when shares moved after the
    /// proposal opened, or a vote was given.
    pub weight: Option<(u32, u64)>,
    /// The newest proposal that it voted on.
    pub voted: u32,
}

impl Shareholder {
    /// Shares that are not on sale.
    pub fn free(&self) -> u64 {
        self.shares.saturating_sub(self.sale.map_or(0, |sale| sale.shares))
    }
}

/// Shares offered at a fixed price; they earn and vote for the seller until they are sold. (T-14)
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
pub struct Sale {
    pub shares: u64,
    /// For one share.
    pub price: Amount,
}

/// A constant-product pool between two assets. (G-4)
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
pub struct MarketPool {
    pub id: PoolId,
    /// In the order of assets.
    pub a: AssetId,
    pub b: AssetId,
    pub reserve_a: Amount,
    pub reserve_b: Amount,
    /// Liquidity shares, those that are locked for ever included.
    pub lp: Amount,
    /// Of those, staked for the liquidity drip. (E-2)
    pub staked: Amount,
    /// The pool's part of the drip, relative to the others'; 0 for none.
    pub drip_weight: u32,
    /// What each staked liquidity share got of the drip since the beginning.
    pub drip_per_lp: Accumulator,
    /// What its founder left for it. (L-1)
    pub deposit: Amount,
}

/// Liquidity shares that earn from the drip. (E-2)
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
pub struct LpStake {
    pub staker: Address,
    pub pool: PoolId,
    pub lp: Amount,
    /// The pool's `drip_per_lp` when this stake last took its part.
    pub drip_per_lp_paid: Accumulator,
    /// What it took its part of and has not been paid yet.
    pub owed: Amount,
}

/// The liquidity drip: minted for those who stake liquidity, paid out over time. (E-2, T-6)
#[derive(Clone, Debug, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
pub struct Drip {
    /// Not anybody's yet.
    pub unreleased: Amount,
    /// Earned by stakes and not claimed yet, with the dust of its division.
    pub owed: Amount,
    /// Until when it is released.
    pub updated_ms: u64,
    /// Pools with a weight, in the order of their ids.
    pub pools: Vec<PoolId>,
}

/// Serde helper: bytes as hex.
pub mod hex_bytes {
    use serde::{Deserialize as _, Deserializer, Serializer};
    /// Writes lower-case hex.
    pub fn serialize<S: Serializer>(bytes: &[u8], s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&hex::encode(bytes))
    }
    /// Reads hex.
    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(d)?;
        hex::decode(text).map_err(serde::de::Error::custom)
    }
}
