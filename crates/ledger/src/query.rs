//! What can be read from a state: the questions of the API.

use crate::{
    CLOCK, PARAMS, accounts, assets, budgets, disputes, emission, exec::ChainClock, governance, inputs, liquidity,
    orders, registry, shares, staking, state::StateRead, supply, upgrades, votes,
};
use althing_types::{
    Account, Address, Amount, AssetId, Budget, Case, Dao, Delegation, Drip, Holding, LedgerError, LpStake, MarketPool,
    Model, ModelId, Order, OrderId, Params, PoolId, Proposal, ProposalVote, Provider, SessionKey, SessionPublicKey,
    Shareholder, SignedTx, Upgrade,
    api::{Emission, HolderView, Power, ProposalSummary, ProposalView, Supply, SwapQuote},
};

pub use crate::holdings::{account_view, delegation_view};
pub use accounts::nonce_next;

/// The parameters in force.
///
/// # Panics
/// If the state has no genesis.
pub fn params(state: &dyn StateRead) -> Params {
    PARAMS.get(state, &()).expect("genesis writes the parameters")
}

/// What all stored objects' deposits are together; reads the whole state. (L-1)
pub(crate) fn deposits(state: &dyn StateRead) -> Amount {
    let providers = staking::all(state, None, usize::MAX);
    let delegations = providers.iter().flat_map(|p| staking::delegations_to(state, &p.account, usize::MAX));
    let delegations: Amount = delegations.map(|delegation| delegation.deposit).sum();
    let orders: Amount = orders::all(state, 0, usize::MAX).iter().map(|order| order.deposit).sum();
    let models: Amount = registry::all(state, usize::MAX).iter().map(|model| model.deposit).sum();
    let proposals: Amount = governance::all(state, None, usize::MAX).iter().map(|proposal| proposal.deposit).sum();
    let daos: Amount = shares::all(state, None, usize::MAX).iter().map(|dao| dao.deposit).sum();
    let pools: Amount = liquidity::all(state, None, usize::MAX).iter().map(|pool| pool.deposit).sum();
    let keys: Amount = accounts::all_session_keys(state).iter().map(|key| key.deposit).sum();
    let budgets: Amount = budgets::all(state).iter().map(|budget| budget.deposit).sum();
    [delegations, orders, models, proposals, daos, pools, keys, budgets]
        .into_iter()
        .chain(providers.iter().map(|p| p.deposit))
        .sum()
}

/// Height and times of the newest block.
///
/// # Panics
/// If the state has no genesis.
pub fn clock(state: &dyn StateRead) -> ChainClock {
    CLOCK.get(state, &()).expect("genesis and every block write the clock")
}

/// Where all units are. (E-3)
pub fn supply(state: &dyn StateRead) -> Supply {
    supply::totals(state)
}

/// Where the emission curve stands. (T-6)
pub fn emission(state: &dyn StateRead) -> Emission {
    emission::now(state)
}

/// Balance and nonce of an account.
pub fn account(state: &dyn StateRead, address: &Address) -> Account {
    accounts::account(state, address)
}

/// Accounts in address order.
pub fn accounts(state: &dyn StateRead, after: Option<Address>, limit: usize) -> Vec<(Address, Account)> {
    accounts::all(state, after, limit)
}

/// A session key of an account.
pub fn session_key(state: &dyn StateRead, account: &Address, key: &SessionPublicKey) -> Option<SessionKey> {
    accounts::session_key(state, account, key)
}

/// The nonce that the signer of a transaction must use next, if the signer is known.
pub fn nonce_of(state: &dyn StateRead, tx: &SignedTx) -> Option<u64> {
    accounts::nonce_next(state, tx).ok()
}

/// A provider.
pub fn provider(state: &dyn StateRead, address: &Address) -> Option<Provider> {
    staking::provider(state, address)
}

/// Providers in address order.
pub fn providers(state: &dyn StateRead, after: Option<Address>, limit: usize) -> Vec<Provider> {
    staking::all(state, after, limit)
}

/// A delegation.
pub fn delegation(state: &dyn StateRead, provider: &Address, delegator: &Address) -> Option<Delegation> {
    staking::delegation(state, provider, delegator)
}

/// What is delegated to a provider.
pub fn delegations_to(state: &dyn StateRead, provider: &Address, limit: usize) -> Vec<Delegation> {
    staking::delegations_to(state, provider, limit)
}

/// What an account delegated.
pub fn delegations_by(state: &dyn StateRead, delegator: &Address, limit: usize) -> Vec<Delegation> {
    staking::delegations_by(state, delegator, limit)
}

/// A model by id.
pub fn model(state: &dyn StateRead, id: &ModelId) -> Option<Model> {
    registry::model(state, id)
}

/// A model by name.
pub fn model_by_name(state: &dyn StateRead, name: &str) -> Option<Model> {
    registry::model_by_name(state, name)
}

/// Models in id order.
pub fn models(state: &dyn StateRead, limit: usize) -> Vec<Model> {
    registry::all(state, limit)
}

/// An order, while it is in the state.
pub fn order(state: &dyn StateRead, id: &OrderId) -> Option<Order> {
    orders::order(state, id)
}

/// The key under which the state holds an order: what proofs are made of. (V-2)
pub fn order_key(id: &OrderId) -> Vec<u8> {
    orders::key(id)
}

/// Orders by number, after number `after`.
pub fn orders(state: &dyn StateRead, after: u64, limit: usize) -> Vec<Order> {
    orders::all(state, after, limit)
}

/// The newest orders that are still in the state, oldest first.
pub fn orders_newest(state: &dyn StateRead, limit: usize) -> Vec<Order> {
    let newest = orders::count(state);
    orders::all(state, newest.saturating_sub(limit as u64), limit)
}

/// Orders that are not final, oldest first.
pub fn orders_open(state: &dyn StateRead, limit: usize) -> Vec<Order> {
    orders::open(state, limit)
}

/// Whether something waits for a beacon: an order for its seed or its sample of coordinators, a dispute for
/// its jury. (T-2, T-7, T-21)
pub fn wants_beacon(state: &dyn StateRead) -> bool {
    orders::has_unseeded(state) || inputs::has_undrawn(state) || disputes::has_undrawn(state)
}

/// Orders whose input this coordinator is to fetch and to confirm. (T-21)
pub fn inputs_to_fetch(state: &dyn StateRead, coordinator: &Address) -> Vec<Order> {
    inputs::to_fetch(state, coordinator)
}

/// The open budgets of an account. (T-15, E-4)
pub fn budgets_of(state: &dyn StateRead, client: &Address, limit: usize) -> Vec<Budget> {
    budgets::budgets_of(state, client, limit)
}

/// Cases whose votes are not counted yet.
pub fn cases_open(state: &dyn StateRead, limit: usize) -> Vec<Case> {
    disputes::open(state, limit)
}

/// How many orders there have ever been.
pub fn order_count(state: &dyn StateRead) -> u64 {
    orders::count(state)
}

/// The newest case over an order.
pub fn case(state: &dyn StateRead, order: &OrderId) -> Option<Case> {
    disputes::case(state, order)
}

/// Cases in order-id order.
pub fn cases(state: &dyn StateRead, after: Option<OrderId>, limit: usize) -> Vec<Case> {
    disputes::all(state, after, limit)
}

/// A proposal with what it says and where it is now, while it is in the state. (G-1)
pub fn proposal(state: &dyn StateRead, id: u64) -> Option<ProposalView> {
    let proposal = governance::proposal(state, id)?;
    let text = governance::text(state, id)?;
    Some(ProposalView { state: proposal.state(clock(state).time_ms), proposal, text })
}

/// Proposals without what they say, the newest first, below the number `before` if that is given. (G-1)
pub fn proposals(state: &dyn StateRead, before: Option<u64>, limit: usize) -> Vec<Proposal> {
    governance::all(state, before, limit)
}

/// The same with their titles and where they are now. (G-1)
pub fn proposal_summaries(state: &dyn StateRead, before: Option<u64>, limit: usize) -> Vec<ProposalSummary> {
    let now_ms = clock(state).time_ms;
    let summary = |proposal: Proposal| ProposalSummary {
        state: proposal.state(now_ms),
        title: governance::text(state, proposal.id).map(|text| text.title).unwrap_or_default(),
        proposal,
    };
    governance::all(state, before, limit).into_iter().map(summary).collect()
}

/// An account's vote on a proposal. (G-1)
pub fn proposal_vote(state: &dyn StateRead, proposal: u64, voter: &Address) -> Option<ProposalVote> {
    governance::vote_of(state, proposal, voter)
}

/// The voting power that an account commands now. (G-1)
pub fn power(state: &dyn StateRead, address: &Address) -> Amount {
    votes::power(state, address)
}

/// The voting power that an account commanded at the end of a block that is over, if it is known: for the
/// previous block, for the snapshots of proposals whose vote is not over, and since its last changes. (G-1)
pub fn power_at(state: &dyn StateRead, address: &Address, height: u64) -> Option<Amount> {
    if height > clock(state).height { None } else { votes::power_at(state, address, height) }
}

/// The say that an account has now, and where it comes from. (G-1)
pub fn power_view(state: &dyn StateRead, address: &Address) -> Power {
    let account = accounts::account(state, address);
    Power {
        address: *address,
        power: votes::power(state, address),
        own: if votes::is_mute(address) { Amount::ZERO } else { account.votable() },
        delegate: account.voting.delegate,
        received: account.voting.received,
        votable: votes::votable(state),
    }
}

/// All votable units. (G-1)
pub fn votable(state: &dyn StateRead) -> Amount {
    votes::votable(state)
}

/// The version of the protocol in force. (G-2)
pub fn version(state: &dyn StateRead) -> u32 {
    upgrades::version(state)
}

/// The upgrade that is scheduled. (G-2)
pub fn upgrade_pending(state: &dyn StateRead) -> Option<Upgrade> {
    upgrades::pending(state)
}

/// What an account can spend of an asset. (G-4)
pub fn balance(state: &dyn StateRead, account: &Address, asset: AssetId) -> Amount {
    assets::balance(state, account, asset)
}

/// How much there is of an asset. (G-4)
pub fn asset_total(state: &dyn StateRead, asset: AssetId) -> Amount {
    assets::total(state, asset)
}

/// What an account has beside the native token, in the order of assets. (E-4)
pub fn holdings(state: &dyn StateRead, account: &Address, limit: usize) -> Vec<Holding> {
    assets::holdings(state, account, limit)
}

/// The DAO of a model. (T-14)
pub fn dao(state: &dyn StateRead, model: &ModelId) -> Option<Dao> {
    shares::dao(state, model)
}

/// Model DAOs in the order of their models' ids. (T-14)
pub fn daos(state: &dyn StateRead, after: Option<ModelId>, limit: usize) -> Vec<Dao> {
    shares::all(state, after, limit)
}

/// What an account has to do with a model's shares: how many, on sale, what it may vote. (T-14)
pub fn shareholder(state: &dyn StateRead, model: &ModelId, holder: &Address) -> Option<Shareholder> {
    shares::holder(state, model, holder)
}

/// The holders of a model's shares with their sales, in address order. (T-14)
pub fn shareholders(state: &dyn StateRead, model: &ModelId, after: Option<Address>, limit: usize) -> Vec<Shareholder> {
    shares::holders(state, model, after, limit)
}

/// The same with what each can claim. (T-14, E-4)
pub fn holder_views(state: &dyn StateRead, model: &ModelId, after: Option<Address>, limit: usize) -> Vec<HolderView> {
    let Some(dao) = shares::dao(state, model) else { return Vec::new() };
    let view = |record: Shareholder| HolderView { claimable: shares::claimable(&dao, &record), record };
    shares::holders(state, model, after, limit).into_iter().map(view).collect()
}

/// What an account's shares of a model earned and it can claim. (T-14, E-4)
pub fn share_earnings(state: &dyn StateRead, model: &ModelId, holder: &Address) -> Amount {
    let holder = shares::holder(state, model, holder);
    shares::dao(state, model).zip(holder).map_or(Amount::ZERO, |(dao, holder)| shares::claimable(&dao, &holder))
}

/// A pool of the market. (G-4)
pub fn pool(state: &dyn StateRead, id: &PoolId) -> Option<MarketPool> {
    liquidity::pool(state, id)
}

/// Pools of the market in id order. (G-4)
pub fn pools(state: &dyn StateRead, after: Option<PoolId>, limit: usize) -> Vec<MarketPool> {
    liquidity::all(state, after, limit)
}

/// What a swap would give now. (G-4)
///
/// # Errors
/// Those of the swap, except for the balance of whoever asks.
pub fn quote(
    state: &dyn StateRead,
    asset_in: AssetId,
    amount_in: Amount,
    asset_out: AssetId,
) -> Result<SwapQuote, LedgerError> {
    liquidity::quote(state, asset_in, amount_in, asset_out)
}

/// The liquidity drip. (E-2)
pub fn drip(state: &dyn StateRead) -> Drip {
    liquidity::drip(state)
}

/// Liquidity shares that an account staked in a pool. (E-2)
pub fn lp_stake(state: &dyn StateRead, staker: &Address, pool: &PoolId) -> Option<LpStake> {
    liquidity::stake_in(state, staker, pool)
}

/// What an account can claim of the drip for its stake in a pool. (E-2, E-4)
pub fn drip_earnings(state: &dyn StateRead, staker: &Address, pool: &PoolId) -> Amount {
    liquidity::drip_claimable(state, staker, pool)
}
