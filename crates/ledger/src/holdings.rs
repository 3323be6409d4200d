//! Where each unit of an account is, and when it comes free. (E-4)
//!
//! Put together from what the other modules store, for whoever asks; nothing here writes. Every list and
//! every scan is bounded, since anybody may ask.

use crate::{accounts, budgets, governance, liquidity, orders, shares, staking, state::StateRead, votes};
use althing_types::{
    Address, Amount, Delegation, LpStake, Order, Shareholder,
    api::{
        ACCOUNT_LIST_MAX, AccountView, DelegationView, Deposits, DripEarnings, EscrowedFee, LeavingView, ShareEarnings,
    },
};
use std::collections::BTreeMap;

/// Most orders that one question looks through, of those that are open and of the newest.
const ORDERS_SCAN_MAX: usize = 1_000;

/// An account with all that it has. (E-4)
pub fn account_view(state: &dyn StateRead, address: &Address) -> AccountView {
    let provider = staking::provider(state, address).unwrap_or_default();
    let delegations = delegations(state, address);
    let (orders, complete) = orders_of(state, address);
    let budgets = budgets::budgets_of(state, address, ACCOUNT_LIST_MAX);
    let deposits = Deposits {
        session_keys: sum(accounts::session_keys_of(state, address).iter().map(|key| key.deposit)),
        provider: provider.deposit,
        delegations: sum(delegations.iter().map(|delegation| delegation.deposit)),
        orders: sum(orders.iter().map(|order| order.deposit)),
        proposals: sum(proposal_deposits(state, address)),
        budgets: sum(budgets.iter().map(|budget| budget.deposit)),
    };
    let mut escrowed = orders.iter().filter(|order| !order.state.is_final()).map(escrowed_fee);
    AccountView {
        address: *address,
        account: accounts::account(state, address),
        power: votes::power(state, address),
        bond: provider.bond,
        reserved: provider.reserved,
        bond_free: staking::bond_free(&provider),
        escrowed: escrowed.by_ref().take(ACCOUNT_LIST_MAX).collect(),
        escrowed_complete: escrowed.next().is_none() && complete,
        budgets,
        deposits,
        shares: shares::held_by(state, address, ACCOUNT_LIST_MAX).iter().filter_map(|h| earnings(state, h)).collect(),
        liquidity: drip_earnings(state, address),
        unbonding: provider.unbonding,
        delegations,
    }
}

fn sum(parts: impl Iterator<Item = Amount>) -> Amount {
    parts.fold(Amount::ZERO, |sum, part| sum.checked_add(part).unwrap_or(Amount::MAX))
}

// ---- delegations ----

fn delegations(state: &dyn StateRead, delegator: &Address) -> Vec<DelegationView> {
    let found = staking::delegations_by(state, delegator, ACCOUNT_LIST_MAX);
    found.iter().map(|delegation| delegation_view(state, delegation)).collect()
}

/// What a delegation is worth now, what of it leaves and when, what it earned. (T-10, E-4)
pub fn delegation_view(state: &dyn StateRead, delegation: &Delegation) -> DelegationView {
    let provider = staking::provider(state, &delegation.provider).unwrap_or_default();
    let value = |pool, shares: Amount| match shares.is_zero() {
        true => Amount::ZERO,
        false => staking::pool_value(pool, shares),
    };
    let (fees, rewards) = staking::delegation_owed(&provider, delegation);
    let leaving = delegation.leaving.iter().map(|part| LeavingView {
        value: value(&provider.leaving, part.shares),
        free_at_ms: part.free_at_ms,
        to: part.to,
    });
    DelegationView {
        delegator: delegation.delegator,
        provider: delegation.provider,
        value: value(&provider.delegated, delegation.shares),
        leaving: leaving.collect(),
        fees,
        rewards,
        deposit: delegation.deposit,
    }
}

// ---- orders and proposals ----

/// The orders of an account that hold a fee or a deposit of it, by number, and whether these are all: of
/// the state's orders, the oldest open ones and the newest are looked at.
fn orders_of(state: &dyn StateRead, client: &Address) -> (Vec<Order>, bool) {
    let open = orders::open(state, ORDERS_SCAN_MAX);
    let after = orders::count(state).saturating_sub(ORDERS_SCAN_MAX as u64);
    let complete = open.len() < ORDERS_SCAN_MAX;
    let own = open.into_iter().chain(orders::all(state, after, ORDERS_SCAN_MAX));
    let own: BTreeMap<_, _> = own.filter(|order| order.client == *client).map(|order| (order.number, order)).collect();
    (own.into_values().collect(), complete)
}

fn escrowed_fee(order: &Order) -> EscrowedFee {
    EscrowedFee { order: order.id, fee: order.fee, deadline_ms: order.deadline_ms }
}

fn proposal_deposits(state: &dyn StateRead, proposer: &Address) -> impl Iterator<Item = Amount> {
    let newest = governance::all(state, None, ACCOUNT_LIST_MAX).into_iter();
    newest.filter(|proposal| proposal.proposer == *proposer).map(|proposal| proposal.deposit)
}

// ---- shares and liquidity ----

fn earnings(state: &dyn StateRead, holder: &Shareholder) -> Option<ShareEarnings> {
    let dao = shares::dao(state, &holder.model)?;
    Some(ShareEarnings {
        model: holder.model,
        shares: holder.shares,
        on_sale: holder.sale.map_or(0, |sale| sale.shares),
        claimable: shares::claimable(&dao, holder),
    })
}

fn drip_earnings(state: &dyn StateRead, staker: &Address) -> Vec<DripEarnings> {
    let stakes = liquidity::stakes_of(state, staker, ACCOUNT_LIST_MAX);
    let view = |stake: LpStake| DripEarnings {
        pool: stake.pool,
        staked: stake.lp,
        claimable: liquidity::drip_claimable(state, staker, &stake.pool),
    };
    stakes.into_iter().map(view).collect()
}
