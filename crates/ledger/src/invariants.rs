//! What holds after every block. Tests call [`check`] after each one; it reads the whole state.

use crate::{disputes, due, orders, query, registry, staking, state::StateRead, supply};
use althing_types::{Address, Amount, OrderState};
use std::collections::{BTreeMap, BTreeSet};

/// Checks every invariant on a whole state.
///
/// # Errors
/// Which one does not hold, with the numbers.
pub fn check(state: &dyn StateRead) -> Result<(), String> {
    conservation(state)?;
    reservations(state)?;
    supporters(state)?;
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
    let providers = staking::all(state, None, usize::MAX);
    let open = orders::all(state, 0, usize::MAX).into_iter().filter(|o| !o.state.is_final());
    equal("free", query::accounts(state, None, usize::MAX).iter().map(|(_, a)| a.free).sum(), totals.free)?;
    equal("bonded", providers.iter().map(|p| p.bond).sum(), totals.bonded)?;
    equal("unbonding", providers.iter().flat_map(|p| &p.unbonding).map(|u| u.amount).sum(), totals.unbonding)?;
    equal("escrowed", open.map(|o| o.fee).sum(), totals.escrowed)?;
    if totals.conserved() { Ok(()) } else { Err(format!("the places do not add up to the issue: {totals:?}")) }
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
        if provider.reserved > provider.bond {
            return Err(format!("{}: more reserved than bonded", provider.account));
        }
    }
    match reserved.into_iter().next() {
        Some((provider, _)) => Err(format!("{provider} has claims but is no provider")),
        None => Ok(()),
    }
}

/// T-13: the public support of each model is that of its supporters.
fn supporters(state: &dyn StateRead) -> Result<(), String> {
    let providers = staking::all(state, None, usize::MAX);
    for model in registry::all(state, usize::MAX) {
        let supporters: Vec<_> = providers.iter().filter(|p| p.models.contains(&model.id)).collect();
        let bond: Amount = supporters.iter().map(|p| p.bond).sum();
        if model.supporters as usize != supporters.len() || model.supporters_bond != bond {
            return Err(format!("model {}: support does not match its supporters", model.name));
        }
    }
    Ok(())
}

/// T-17: whatever an order waits for has an entry in a due queue.
fn nothing_hangs(state: &dyn StateRead) -> Result<(), String> {
    let expiring: BTreeSet<_> = due::EXPIRY.first(state, usize::MAX).into_iter().map(|((_, id), ())| id).collect();
    let claiming: BTreeSet<_> = due::CLAIM.first(state, usize::MAX).into_iter().map(|(key, ())| key).collect();
    let counting: BTreeSet<_> = due::COUNT.first(state, usize::MAX).into_iter().map(|((_, id), ())| id).collect();
    let open: BTreeSet<_> = orders::open(state, usize::MAX).into_iter().map(|order| order.id).collect();
    for order in orders::all(state, 0, usize::MAX) {
        let driven = match order.state {
            OrderState::Submitted | OrderState::Accepted { .. } => expiring.contains(&order.id),
            OrderState::Solved { claim_at_ms } => claiming.contains(&(claim_at_ms, order.id)),
            OrderState::Contested { .. } => counting.contains(&order.id),
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
