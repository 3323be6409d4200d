//! What a node's HTTP API and its clients exchange, as JSON.
//!
//! | request | answer |
//! |---|---|
//! | `GET /v1/status` | [`Status`] |
//! | `POST /v1/transactions` with [`Submit`] | [`Submitted`] at once, or [`Included`] if `wait_ms` is set |
//! | `GET /v1/transactions/{id}?wait_ms=` | [`Included`] |
//! | `GET /v1/accounts/{address}` | [`AccountView`] |
//! | `GET /v1/accounts/{address}/holdings` | [`crate::Holding`], one for each asset beside the native token |
//! | `GET /v1/accounts/{address}/session-keys/{key}` | [`crate::SessionKey`] |
//! | `GET /v1/models`, `/v1/models/{id or name}` | [`crate::Model`] |
//! | `GET /v1/providers`, `/v1/providers/{address}` | [`crate::Provider`] |
//! | `GET /v1/orders?state=open`, `/v1/orders/{id}` | [`crate::Order`] |
//! | `GET /v1/cases`, `/v1/cases/{order}` | [`crate::Case`] |
//! | `GET /v1/supply` | [`Supply`] |
//! | `GET /v1/emission` | [`Emission`] |
//! | `GET /v1/params` | [`crate::Params`] |
//! | `GET /v1/protocol` | [`Protocol`] |
//! | `GET /v1/delegations?by=ADDRESS`, `?to=ADDRESS` | [`DelegationView`]: what an account delegated, what a provider has |
//! | `GET /v1/power/{address}` | [`Power`] |
//! | `GET /v1/proposals` | [`ProposalSummary`], newest first |
//! | `GET /v1/proposals/{number}` | [`ProposalView`] |
//! | `GET /v1/proposals/{number}/votes/{address}` | [`crate::ProposalVote`] |
//! | `GET /v1/daos`, `/v1/daos/{model id}` | [`crate::Dao`] |
//! | `GET /v1/daos/{model id}/holders` | [`HolderView`] |
//! | `GET /v1/pools`, `/v1/pools/{id}` | [`crate::MarketPool`] |
//! | `GET /v1/quote?asset_in=&amount_in=&asset_out=` | [`SwapQuote`]; amounts in base units, of shares in whole ones |
//! | `GET /v1/drip` | [`crate::Drip`] |
//! | `GET /v1/blocks/{height}` | [`BlockView`] |
//! | `GET /v1/events?from=HEIGHT` | server-sent events, one [`BlockEvents`] per block |
//! | `GET /v1/proofs/orders/{id}` | [`OrderProof`] |
//!
//! Errors are `{"error":{"code":…,"message":…}}` with a fitting status.

use crate::{
    Account, Address, Amount, AssetId, Budget, ChainId, Event, Hash, ModelId, Order, OrderId, PoolId, Ppm, Proposal,
    ProposalState, ProposalText, Shareholder, TxId, TxReceipt, Upgrade,
    object::{Unbonding, hex_bytes},
};
use borsh::{BorshDeserialize, BorshSerialize};
use serde::{Deserialize, Serialize};

/// Where a node stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    pub chain: ChainId,
    pub network: String,
    /// The newest finalized block.
    pub height: u64,
    pub time_ms: u64,
    /// Block time without standstills: what `claim_at_ms` and `voting_ends_ms` are compared with.
    pub active_ms: u64,
    pub state_root: Hash,
    /// The coordinators and their threshold public key, as `chain::NetworkPublic` writes them, hex.
    pub network_key: String,
    pub coordinators: u32,
    /// Other coordinators heard of lately.
    pub peers: u32,
    /// Transactions waiting for a block.
    pub mempool: u32,
    pub version: String,
}

/// A transaction to include.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Submit {
    /// The canonical encoding of a [`crate::SignedTx`], hex.
    #[serde(with = "hex_bytes")]
    pub tx: Vec<u8>,
    /// Wait this long for its inclusion, at most 60 000 ms.
    #[serde(default)]
    pub wait_ms: u64,
}

/// A transaction that waits in the mempool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Submitted {
    pub id: TxId,
    /// Its receipt, if it was waited for and came in time.
    pub included: Option<Included>,
}

/// A transaction in a finalized block.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Included {
    pub height: u64,
    pub time_ms: u64,
    pub receipt: TxReceipt,
}

/// Where each unit of an account is, and when it comes free. (E-4)
///
/// Each list has at most [`ACCOUNT_LIST_MAX`] entries.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountView {
    pub address: Address,
    /// With the free balance, what it earned in its life, and whose votes it has.
    #[serde(flatten)]
    pub account: Account,
    /// The voting power that it commands now. (G-1)
    pub power: Amount,
    /// Bonded as provider, reservations included.
    pub bond: Amount,
    /// What outstanding claims may take from its bond and what is delegated to it, together.
    pub reserved: Amount,
    /// The part of the bond that can start to leave now.
    pub bond_free: Amount,
    /// Own bonds on their way out.
    pub unbonding: Vec<Unbonding>,
    /// What it delegated to providers.
    pub delegations: Vec<DelegationView>,
    /// Fees of its orders that are not over.
    pub escrowed: Vec<EscrowedFee>,
    /// False if there are more orders than this answer looked through: `escrowed` may lack some then.
    pub escrowed_complete: bool,
    /// What it set aside for chains of orders. (T-15)
    pub budgets: Vec<Budget>,
    pub deposits: Deposits,
    /// Its shares of model DAOs.
    pub shares: Vec<ShareEarnings>,
    /// Liquidity shares that it staked.
    pub liquidity: Vec<DripEarnings>,
}

/// Most entries of each list in an [`AccountView`].
pub const ACCOUNT_LIST_MAX: usize = 100;

impl AccountView {
    /// All native units of the account, wherever they are. (E-4)
    pub fn total(&self) -> Amount {
        let delegated = self.delegations.iter().map(DelegationView::total);
        [self.account.free, self.bond, self.deposits.total()]
            .into_iter()
            .chain(self.unbonding.iter().map(|part| part.amount))
            .chain(delegated)
            .chain(self.escrowed.iter().map(|order| order.fee))
            .chain(self.budgets.iter().map(|budget| budget.left))
            .chain(self.shares.iter().map(|shares| shares.claimable))
            .chain(self.liquidity.iter().map(|stake| stake.claimable))
            .fold(Amount::ZERO, |sum, part| sum.checked_add(part).unwrap_or(Amount::MAX))
    }
}

/// A delegation and what it is worth now. (T-10, E-4)
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DelegationView {
    pub delegator: Address,
    pub provider: Address,
    /// What its shares of the provider's pool are worth.
    pub value: Amount,
    /// Parts on their way out.
    pub leaving: Vec<LeavingView>,
    /// Earned and not claimed yet: from fees, from minted rewards.
    pub fees: Amount,
    pub rewards: Amount,
    /// What comes back when nothing is left of it. (L-1)
    pub deposit: Amount,
}

impl DelegationView {
    /// Its value, what leaves, and what can be claimed, without the deposit.
    pub fn total(&self) -> Amount {
        let leaving = self.leaving.iter().map(|part| part.value);
        let parts = [self.value, self.fees, self.rewards].into_iter().chain(leaving);
        parts.fold(Amount::ZERO, |sum, part| sum.checked_add(part).unwrap_or(Amount::MAX))
    }
}

/// A part of a delegation on its way out. (T-10)
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeavingView {
    /// Worth now; a slash can still take from it.
    pub value: Amount,
    /// The earliest time; later if a claim may still lose it.
    pub free_at_ms: u64,
    /// Goes on to this provider instead of the free balance.
    pub to: Option<Address>,
}

/// The fee of an order that is not over. (T-1)
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EscrowedFee {
    pub order: OrderId,
    pub fee: Amount,
    /// An order that nobody solves is refunded then.
    pub deadline_ms: u64,
}

/// Deposits that come back to an account, by what they stand behind. (L-1)
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deposits {
    /// Back when the keys are revoked.
    pub session_keys: Amount,
    /// Stays with its record as provider.
    pub provider: Amount,
    /// Back when nothing is left of the delegations.
    pub delegations: Amount,
    /// Back some time after the orders are over.
    pub orders: Amount,
    /// Back some time after the proposals are over.
    pub proposals: Amount,
    /// Back when the budgets are closed.
    pub budgets: Amount,
}

impl Deposits {
    /// Every kind and what is in it.
    pub fn kinds(&self) -> [(&'static str, Amount); 6] {
        [
            ("session keys", self.session_keys),
            ("provider", self.provider),
            ("delegations", self.delegations),
            ("orders", self.orders),
            ("proposals", self.proposals),
            ("budgets", self.budgets),
        ]
    }
    /// All of them.
    pub fn total(&self) -> Amount {
        self.kinds().into_iter().fold(Amount::ZERO, |sum, (_, part)| sum.checked_add(part).unwrap_or(Amount::MAX))
    }
}

/// An account's shares of one model DAO. (T-14, E-4)
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShareEarnings {
    pub model: ModelId,
    /// Those on sale included.
    pub shares: u64,
    pub on_sale: u64,
    /// Earned and not claimed yet.
    pub claimable: Amount,
}

/// Liquidity shares of one pool that an account staked for the drip. (E-2, E-4)
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DripEarnings {
    pub pool: PoolId,
    pub staked: Amount,
    /// Earned and not claimed yet.
    pub claimable: Amount,
}

/// The say that an account has in votes on proposals, now. (G-1)
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Power {
    pub address: Address,
    /// What it votes with: its own units, unless it gave them away, and what others gave it.
    pub power: Amount,
    /// Its own votable units: free, bonded, delegated.
    pub own: Amount,
    /// Who votes with its own units, if somebody else does.
    pub delegate: Option<Address>,
    /// Units of others with which it votes.
    pub received: Amount,
    /// All votable units of the network.
    pub votable: Amount,
}

/// Which version of the protocol runs. (G-2)
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Protocol {
    /// In force.
    pub version: u32,
    /// The newest version that this node's program can run; it stops before a newer one.
    pub supported: u32,
    pub scheduled: Option<Upgrade>,
}

/// Where all units are. (E-3)
#[derive(Clone, Debug, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
pub struct Supply {
    /// All units that exist.
    pub issued: Amount,
    /// On accounts, spendable.
    pub free: Amount,
    /// Providers' own bonds.
    pub bonded: Amount,
    /// Delegated to providers, those that are leaving included.
    pub delegated: Amount,
    /// Own bonds on their way out.
    pub unbonding: Amount,
    /// Fees of orders that are not over.
    pub escrowed: Amount,
    /// Earned by delegators and shareholders and not claimed yet.
    pub owed: Amount,
    /// Deposits for stored objects.
    pub deposits: Amount,
    /// Minted for liquidity providers and not paid out yet.
    pub drip: Amount,
    /// In the pools of the market.
    pub pools: Amount,
    pub treasury: Amount,
    pub coordinators: Amount,
}

impl Supply {
    /// Every place and what it holds.
    pub fn places(&self) -> [(&'static str, Amount); 11] {
        [
            ("free", self.free),
            ("bonded", self.bonded),
            ("delegated", self.delegated),
            ("unbonding", self.unbonding),
            ("escrowed", self.escrowed),
            ("owed", self.owed),
            ("deposits", self.deposits),
            ("drip", self.drip),
            ("pools", self.pools),
            ("treasury", self.treasury),
            ("coordinators", self.coordinators),
        ]
    }
}

/// Where the emission curve stands. (T-6)
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Emission {
    /// Since genesis.
    pub elapsed_ms: u64,
    /// The most that is ever minted.
    pub cap: Amount,
    /// What should have been minted by now.
    pub target: Amount,
    /// What counts as minted.
    pub supply: Amount,
    /// With 18 decimals: 10^18 is 1.
    pub multiplier: Amount,
    /// What a task earns now, before a model's rate and metering.
    pub reward: Amount,
}

/// A proposal with what it says, and where it is in its life. (G-1)
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProposalView {
    pub state: ProposalState,
    #[serde(flatten)]
    pub proposal: Proposal,
    #[serde(flatten)]
    pub text: ProposalText,
}

/// A proposal without what it says beside its title. (G-1)
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProposalSummary {
    pub state: ProposalState,
    pub title: String,
    #[serde(flatten)]
    pub proposal: Proposal,
}

/// A holder of a model's shares. (T-14)
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HolderView {
    #[serde(flatten)]
    pub record: Shareholder,
    /// Earned and not claimed yet.
    pub claimable: Amount,
}

/// What a swap would give now. (G-4)
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SwapQuote {
    pub pool: PoolId,
    pub asset_in: AssetId,
    pub amount_in: Amount,
    pub asset_out: AssetId,
    pub amount_out: Amount,
    /// The part of `amount_in` that stays in the pool as its fee.
    pub fee: Amount,
    /// How much less comes out than the pool's present price says, the fee included; rounded up.
    pub price_impact: Ppm,
}

/// A finalized block without its transactions' bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockView {
    pub height: u64,
    pub time_ms: u64,
    pub view: u64,
    pub digest: Hash,
    pub parent: Hash,
    pub beacon: Hash,
    pub state_root: Hash,
    pub receipts: Vec<TxReceipt>,
}

/// What happened in one block, in order: calls first, then what became due.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockEvents {
    pub height: u64,
    pub time_ms: u64,
    pub events: Vec<Event>,
}

/// Proof that the network holds an order just so: what a receipt is made of. (V-2)
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderProof {
    pub order: Order,
    /// Height whose state root the proof is made against.
    pub height: u64,
    /// A `chain::StateProof`: the order's key and value, its path to the state root of a header,
    /// and the certificate by which the network finalized that header.
    #[serde(with = "hex_bytes")]
    pub proof: Vec<u8>,
}

/// The body of every error answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    pub error: ErrorDetail,
}

/// What went wrong, for programs and for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorDetail {
    pub code: String,
    pub message: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Call, LedgerError, ParamChange, object::ProposalTerms};

    #[test]
    fn a_proposal_and_why_it_failed_are_read_back_as_they_were_written() {
        // G-1
        let change = ParamChange { name: "bond_min".into(), value: u128::MAX };
        let calls = vec![Call::ParamsSet { changes: vec![change] }, Call::UpgradeCancel];
        let view = ProposalView {
            state: ProposalState::Queued,
            proposal: Proposal {
                id: 7,
                proposer: Address([1; 20]),
                created_height: 5,
                created_ms: 6,
                snapshot_height: 4,
                voting_starts_ms: 8,
                voting_ends_ms: 9,
                terms: ProposalTerms { threshold: Amount(1), quorum: Amount::MAX, timelock_ms: 2, grace_ms: 3 },
                votes_for: Amount::MAX,
                votes_against: Amount(1),
                votes_abstain: Amount::ZERO,
                executable_ms: Some(11),
                cancelled: false,
                executed: false,
                prune_at_ms: 12,
                deposit: Amount(13),
            },
            text: ProposalText { title: "t".into(), description: "d".into(), calls },
        };
        assert_eq!(toml::from_str::<ProposalView>(&toml::to_string(&view).unwrap()).unwrap(), view);
        let reason = Box::new(LedgerError::InsufficientBalance { needed: Amount(2), free: Amount(1) });
        let error = LedgerError::ProposalCallFailed { index: 1, reason };
        assert_eq!(toml::from_str::<LedgerError>(&toml::to_string(&error).unwrap()).unwrap(), error);
    }
}
