//! What holds after every block. Tests call [`check`] after each one; it reads the whole state.

use crate::{
    assets, budgets, disputes, due, governance, inputs, liquidity, orders, query, registry, shares, staking,
    state::StateRead, supply, votes,
};
use althing_types::{Address, Amount, AssetId, Availability, OrderState};
use std::collections::{BTreeMap, BTreeSet};

/// Checks every invariant on a whole state.
///
/// # Errors
/// Which one does not hold, with the numbers.
pub fn check(state: &dyn StateRead) -> Result<(), String> {
    conservation(state)?;
    reservations(state)?;
    supporters(state)?;
    delegations(state)?;
    voting(state)?;
    proposals(state)?;
    other_assets(state)?;
    model_daos(state)?;
    drip(state)?;
    inputs_and_budgets(state)?;
    nothing_hangs(state)
}

fn equal(what: &str, counted: Amount, recorded: Amount) -> Result<(), String> {
    if counted == recorded {
        Ok(())
    } else {
        Err(format!("{what}: the objects hold {counted}, the totals say {recorded}"))
    }
}

/// E-3: the running totals are the sums over all objects, and add up to what was issued.
fn conservation(state: &dyn StateRead) -> Result<(), String> {
    let totals = supply::totals(state);
    let special = |address: &Address| [supply::TREASURY, supply::COORDINATORS].contains(address);
    let accounts = query::accounts(state, None, usize::MAX);
    let of = |address: Address| query::account(state, &address).free;
    let providers = staking::all(state, None, usize::MAX);
    let open = orders::all(state, 0, usize::MAX).into_iter().filter(|o| !o.state.is_final());
    equal("free", accounts.iter().filter(|(a, _)| !special(a)).map(|(_, a)| a.free).sum(), totals.free)?;
    equal("treasury", of(supply::TREASURY), totals.treasury)?;
    equal("coordinators", of(supply::COORDINATORS), totals.coordinators)?;
    equal("delegated", providers.iter().flat_map(|p| [p.delegated.amount, p.leaving.amount]).sum(), totals.delegated)?;
    let deposits = query::deposits(state);
    equal("deposits", deposits, totals.deposits)?;
    let daos = shares::all(state, None, usize::MAX);
    equal("owed", providers.iter().map(|p| p.owed).chain(daos.iter().map(|d| d.owed)).sum(), totals.owed)?;
    let pools = liquidity::all(state, None, usize::MAX);
    // The native token comes first in the order of assets.
    equal("pools", pools.iter().filter(|p| p.a == AssetId::Native).map(|p| p.reserve_a).sum(), totals.pools)?;
    equal("bonded", providers.iter().map(|p| p.bond).sum(), totals.bonded)?;
    equal("unbonding", providers.iter().flat_map(|p| &p.unbonding).map(|u| u.amount).sum(), totals.unbonding)?;
    let set_aside = budgets::all(state).into_iter().map(|budget| budget.left);
    equal("escrowed", open.map(|o| o.fee).chain(set_aside).sum(), totals.escrowed)?;
    if supply::conserved(&totals) { Ok(()) } else { Err(format!("the places do not add up to the issue: {totals:?}")) }
}

/// T-9: what each provider has reserved is what its outstanding claims may lose, and it has it.
fn reservations(state: &dyn StateRead) -> Result<(), String> {
    let mut reserved: BTreeMap<Address, (Amount, u32)> = BTreeMap::new();
    let mut count = |provider: Address, amount: Amount| {
        let entry = reserved.entry(provider).or_default();
        entry.0 = entry.0.checked_add(amount).unwrap_or(Amount::MAX);
        entry.1 += 1;
    };
    for order in orders::all(state, 0, usize::MAX).iter().filter(|o| !o.state.is_final()) {
        order.solutions.iter().for_each(|s| count(s.provider, s.reserved));
        order.agreements.iter().for_each(|a| count(a.provider, a.reserved));
    }
    for case in disputes::all(state, None, usize::MAX).iter().filter(|c| c.outcome.is_none()) {
        case.votes.iter().filter(|v| !v.inherited).for_each(|v| count(v.provider, v.reserved));
    }
    for provider in staking::all(state, None, usize::MAX) {
        let (expected, outstanding) = reserved.remove(&provider.account).unwrap_or_default();
        if provider.reserved != expected || provider.outstanding != outstanding {
            return Err(format!(
                "{}: {} reserved for {} claims, the claims say {expected} for {outstanding}",
                provider.account, provider.reserved, provider.outstanding
            ));
        }
        if provider.reserved > provider.slashable() {
            return Err(format!("{}: more reserved than can be slashed", provider.account));
        }
    }
    match reserved.into_iter().next() {
        Some((provider, _)) => Err(format!("{provider} has claims but is no provider")),
        None => Ok(()),
    }
}

/// T-10: a provider's pools are its delegations', and what it owes covers what they earned.
fn delegations(state: &dyn StateRead) -> Result<(), String> {
    for provider in staking::all(state, None, usize::MAX) {
        let delegations = staking::delegations_to(state, &provider.account, usize::MAX);
        let shares: Amount = delegations.iter().map(|d| d.shares).sum();
        let leaving: Amount = delegations.iter().flat_map(|d| &d.leaving).map(|part| part.shares).sum();
        equal("shares of delegations", shares, provider.delegated.shares)?;
        equal("shares of leaving delegations", leaving, provider.leaving.shares)?;
        let owed: Amount = delegations
            .iter()
            .flat_map(|d| {
                let (fees, rewards) = staking::delegation_owed(&provider, d);
                [fees, rewards]
            })
            .sum();
        if owed > provider.owed {
            return Err(format!("{}: owes its delegators {owed}, has {}", provider.account, provider.owed));
        }
        for delegation in &delegations {
            let by = staking::delegations_by(state, &delegation.delegator, usize::MAX);
            if !by.contains(delegation) {
                return Err(format!("a delegation of {} is not listed", delegation.delegator));
            }
        }
    }
    Ok(())
}

/// T-13: the public support of each model is that of its supporters.
fn supporters(state: &dyn StateRead) -> Result<(), String> {
    let providers = staking::all(state, None, usize::MAX);
    for model in registry::all(state, usize::MAX) {
        let supporters: Vec<_> = providers.iter().filter(|p| p.models.contains(&model.id)).collect();
        let stake: Amount = supporters.iter().map(|p| p.stake()).sum();
        let listed = registry::supporters_from(state, &model.id, &Address::ZERO, usize::MAX);
        let same = listed.iter().eq(supporters.iter().map(|p| &p.account));
        if model.supporters as usize != supporters.len() || model.supporters_stake != stake || !same {
            return Err(format!("model {}: support does not match its supporters", model.name));
        }
    }
    Ok(())
}

/// G-1: each votable unit is in the power of exactly one account.
fn voting(state: &dyn StateRead) -> Result<(), String> {
    let accounts = query::accounts(state, None, usize::MAX);
    let mut received: BTreeMap<Address, Amount> = BTreeMap::new();
    for (address, account) in accounts.iter().filter(|(address, _)| !votes::is_mute(address)) {
        let bond = query::provider(state, address).unwrap_or_default().bond;
        let delegations = staking::delegations_by(state, address, usize::MAX);
        let staked = delegations.iter().map(|d| d.votable).chain([bond]).sum();
        equal(&format!("votable stake of {address}"), staked, account.voting.staked)?;
        if let Some(delegate) = account.voting.delegate {
            let sum = received.entry(delegate).or_default();
            *sum = sum.checked_add(account.votable()).unwrap_or(Amount::MAX);
        }
    }
    for (address, account) in &accounts {
        let expected = received.remove(address).unwrap_or_default();
        equal(&format!("votes received by {address}"), expected, account.voting.received)?;
    }
    if let Some((address, _)) = received.into_iter().next() {
        return Err(format!("{address} received votes and is no account"));
    }
    let powers = accounts.iter().map(|(address, _)| votes::power(state, address)).sum();
    equal("voting power", powers, votes::votable(state))?;
    // What a delegation counts for is at most its worth, but for a while after a slash.
    let waiting: BTreeSet<_> = due::REVALUE.first(state, usize::MAX).into_iter().map(|((_, (p, _)), ())| p).collect();
    for provider in staking::all(state, None, usize::MAX).iter().filter(|p| !waiting.contains(&p.account)) {
        for delegation in staking::delegations_to(state, &provider.account, usize::MAX) {
            if delegation.votable > staking::pool_value(&provider.delegated, delegation.shares) {
                return Err(format!("a delegation of {} counts for more than its worth", delegation.delegator));
            }
        }
    }
    Ok(())
}

/// G-4: of each asset there is as much as balances, stakes and reserves hold together.
fn other_assets(state: &dyn StateRead) -> Result<(), String> {
    let mut counted: BTreeMap<AssetId, u128> = BTreeMap::new();
    let mut count = |asset: AssetId, amount: Amount| {
        let sum = counted.entry(asset).or_default();
        *sum = sum.saturating_add(amount.0);
    };
    assets::balances(state).into_iter().for_each(|(asset, amount)| count(asset, amount));
    let pools = liquidity::all(state, None, usize::MAX);
    for pool in &pools {
        if pool.a >= pool.b || pool.reserve_a.is_zero() || pool.reserve_b.is_zero() {
            return Err(format!("pool {}: assets out of order, or none left", pool.id));
        }
        count(pool.a, pool.reserve_a);
        count(pool.b, pool.reserve_b);
        count(AssetId::Lp(pool.id), liquidity::LP_LOCKED);
        for (asset, reserve) in [(pool.a, pool.reserve_a), (pool.b, pool.reserve_b)] {
            let AssetId::Shares(model) = asset else { continue };
            // More if somebody sent shares to the pool's account by mistake.
            let held = shares::holder(state, &model, &pool.id.account()).map_or(0, |holder| holder.shares);
            if u128::from(held) < reserve.0 {
                return Err(format!("pool {}: holds {held} shares, its reserve says {}", pool.id, reserve.0));
            }
        }
    }
    let mut staked: BTreeMap<_, Vec<Amount>> = BTreeMap::new();
    for stake in liquidity::all_stakes(state) {
        count(AssetId::Lp(stake.pool), stake.lp);
        staked.entry(stake.pool).or_default().push(stake.lp);
    }
    for pool in &pools {
        equal("staked", staked.remove(&pool.id).unwrap_or_default().into_iter().sum(), pool.staked)?;
    }
    for asset in assets::test_totals(state).into_iter().map(|(asset, _)| asset) {
        count(asset, Amount::ZERO);
    }
    // Shares are with their holders, the pools' own accounts among them: see `model_daos`.
    for (asset, sum) in counted.into_iter().filter(|(a, _)| matches!(a, AssetId::Lp(_) | AssetId::Test(_))) {
        equal(&asset.to_string(), Amount(sum), assets::total(state, asset))?;
    }
    Ok(())
}

/// T-14: all shares are held, what is on sale is among them, and a DAO owes exactly what its holders
/// can claim and the carry; an open vote ends by itself.
fn model_daos(state: &dyn StateRead) -> Result<(), String> {
    let ending: BTreeSet<_> = due::DAO_VOTE.first(state, usize::MAX).into_iter().map(|(key, ())| key).collect();
    for dao in shares::all(state, None, usize::MAX) {
        let holders = shares::holders(state, &dao.model, None, usize::MAX);
        let held: u64 = holders.iter().map(|h| h.shares).sum();
        if held != dao.shares {
            return Err(format!("DAO {}: {held} of {} shares are held", dao.model, dao.shares));
        }
        let claimable: Amount = holders.iter().map(|h| shares::claimable(&dao, h)).chain([dao.carry]).sum();
        equal("a DAO's debt", claimable, dao.owed)?;
        if dao.carry.0 >= dao.shares.into() {
            return Err(format!("DAO {}: carries {}, enough for each share", dao.model, dao.carry));
        }
        for holder in &holders {
            if holder.sale.is_some_and(|sale| sale.shares == 0 || sale.shares > holder.shares) {
                return Err(format!("DAO {}: {} offers what it has not", dao.model, holder.holder));
            }
            if !shares::held_by(state, &holder.holder, usize::MAX).contains(holder) {
                return Err(format!("DAO {}: {} is not listed", dao.model, holder.holder));
            }
        }
        if let Some(proposal) = &dao.proposal {
            let weights: u128 = holders.iter().map(|h| u128::from(shares::weight(proposal, h))).sum();
            if weights > dao.shares.into() || !ending.contains(&(proposal.ends_ms, dao.model)) {
                return Err(format!("DAO {}: {weights} of {} shares can vote", dao.model, dao.shares));
            }
        }
    }
    Ok(())
}

/// G-1, L-2: live proposals are listed and their snapshots kept; each has an entry for its end and one
/// for its removal; no checkpoint outlives who needs it, except to be removed.
fn proposals(state: &dyn StateRead) -> Result<(), String> {
    let ending: BTreeSet<_> = due::PROPOSAL_END.first(state, usize::MAX).into_iter().map(|(key, ())| key).collect();
    let leaving: BTreeSet<_> = due::PROPOSAL_PRUNE.first(state, usize::MAX).into_iter().map(|(key, ())| key).collect();
    let (live, all) = (governance::live(state), governance::all(state, None, usize::MAX));
    let now = query::clock(state).time_ms;
    let mut snapshots = Vec::new();
    for proposal in &all {
        let (id, listed) = (proposal.id, live.contains(&(proposal.id, proposal.proposer)));
        if listed {
            snapshots.push(proposal.snapshot_height);
        }
        let votable = now < proposal.voting_ends_ms && !proposal.cancelled;
        if (votable && !listed) || listed != ending.contains(&(proposal.voting_ends_ms, id)) {
            return Err(format!("proposal {id}: the list of live proposals is wrong"));
        }
        if !leaving.contains(&(proposal.prune_at_ms, id)) {
            return Err(format!("proposal {id} never leaves the state"));
        }
    }
    snapshots.sort_unstable();
    if snapshots != votes::snapshots(state) || snapshots.len() != live.len() {
        return Err(format!("kept snapshots {:?}, proposals need {snapshots:?}", votes::snapshots(state)));
    }
    match votes::checkpointed(state).into_iter().find(|s| !snapshots.contains(s) && !votes::is_dropped(state, *s)) {
        Some(snapshot) => Err(format!("checkpoints of height {snapshot} stay for ever")),
        None => Ok(()),
    }
}

/// E-2: the drip holds what is not released and what its stakers can claim, with the dust of dividing.
fn drip(state: &dyn StateRead) -> Result<(), String> {
    let drip = liquidity::drip(state);
    equal("drip", [drip.unreleased, drip.owed].into_iter().sum(), supply::totals(state).drip)?;
    let stakes = liquidity::all_stakes(state);
    let owed = stakes.iter().filter_map(|stake| Some(liquidity::owed(&liquidity::pool(state, &stake.pool)?, stake)));
    let owed: Amount = owed.sum();
    if owed > drip.owed {
        return Err(format!("the drip owes its stakers {owed}, has {}", drip.owed));
    }
    let weighted = liquidity::all(state, None, usize::MAX).into_iter().filter(|pool| pool.drip_weight > 0);
    if !weighted.map(|pool| pool.id).eq(drip.pools) {
        return Err("the pools of the drip are not those with a weight".into());
    }
    Ok(())
}

/// T-15, T-17, T-21: who is to fetch an input is who was drawn for an order that waits for it; samples and
/// budgets end by themselves, and a budget is its root's client's.
fn inputs_and_budgets(state: &dyn StateRead) -> Result<(), String> {
    let ending: BTreeSet<_> = due::INPUT.first(state, usize::MAX).into_iter().map(|(key, ())| key).collect();
    let mut expected = BTreeSet::new();
    for order in orders::all(state, 0, usize::MAX) {
        if order.availability.is_open() && (order.state != OrderState::Submitted || order.seed.is_some()) {
            return Err(format!("order {}: its input is still looked for", order.id));
        }
        let Availability::Sampled { drawn, confirmed, until_ms } = &order.availability else { continue };
        let missing = drawn.iter().filter(|coordinator| !confirmed.contains(coordinator));
        expected.extend(missing.map(|coordinator| (*coordinator, order.id)));
        if !ending.contains(&(*until_ms, order.id)) {
            return Err(format!("order {}: coordinators may fetch its input for ever", order.id));
        }
    }
    if !inputs::all_to_fetch(state).into_iter().eq(expected) {
        return Err("the inputs to fetch are not those of the samples".into());
    }
    let closing: BTreeSet<_> = due::BUDGET.first(state, usize::MAX).into_iter().map(|(key, ())| key).collect();
    let budgets: BTreeSet<_> = budgets::all(state).into_iter().map(|b| (b.until_ms, (b.order, b.client))).collect();
    if closing != budgets {
        return Err("a budget stays for ever, or a queue closes one that is not there".into());
    }
    Ok(())
}

/// T-17: whatever an order waits for has an entry in a due queue.
fn nothing_hangs(state: &dyn StateRead) -> Result<(), String> {
    let expiring: BTreeSet<_> = due::EXPIRY.first(state, usize::MAX).into_iter().map(|((_, id), ())| id).collect();
    let claiming: BTreeSet<_> = due::CLAIM.first(state, usize::MAX).into_iter().map(|(key, ())| key).collect();
    let counting: BTreeSet<_> = due::COUNT.first(state, usize::MAX).into_iter().map(|(key, ())| key).collect();
    let open: BTreeSet<_> = orders::open(state, usize::MAX).into_iter().map(|order| order.id).collect();
    for order in orders::all(state, 0, usize::MAX) {
        let driven = match order.state {
            OrderState::Submitted | OrderState::Accepted { .. } => expiring.contains(&order.id),
            OrderState::Solved { claim_at_ms } => claiming.contains(&(claim_at_ms, order.id)),
            OrderState::Contested { .. } => disputes::case(state, &order.id)
                .is_some_and(|case| case.outcome.is_none() && counting.contains(&(case.opening_ends_ms, order.id))),
            OrderState::Claimed | OrderState::Refunded { .. } => true,
        };
        if order.state.is_final() == open.contains(&order.id) {
            return Err(format!("order {}: the listing of open orders is wrong", order.id));
        }
        if !driven {
            return Err(format!("order {} waits for nothing: {:?}", order.id, order.state));
        }
    }
    Ok(())
}
