//! Provider collateral: bond, unbond, reserve, slash, jail. (T-7 … T-10)
//!
//! Terms: the **bond** is all collateral; each outstanding claim (solution, agreement, vote)
//! **reserves** the most that it can lose, its maximum slash; the **free bond** is the rest, and what
//! further claims weigh. Reserved amounts cannot leave. With a slash of 12.5 %, n outstanding claims
//! leave (7/8)^n of the bond free, so that a provider's weight shrinks with its exposure.

use crate::{
    accounts, due,
    exec::{Done, Exec, add},
    registry,
    state::{Map, StateRead},
    supply::{self, Place},
};
use althing_types::{Address, Amount, Event, LedgerError, OrderId, Provider, object::Unbonding};

/// Most amounts that may be unbonding at a time.
pub const UNBONDINGS_MAX: usize = 16;
/// Most changes of the bond that are remembered for vote weights.
pub const BOND_HISTORY_MAX: usize = 32;

const PROVIDERS: Map<Address, Provider> = Map::new(0x03);

/// The provider at an account.
pub fn provider(state: &dyn StateRead, address: &Address) -> Option<Provider> {
    PROVIDERS.get(state, address)
}

/// Providers in address order.
pub fn all(state: &dyn StateRead, after: Option<Address>, limit: usize) -> Vec<Provider> {
    let entries = match after {
        None => PROVIDERS.first(state, limit),
        Some(after) => PROVIDERS.after(state, &after, limit),
    };
    entries.into_iter().map(|(_, provider)| provider).collect()
}

pub(crate) fn store(exec: &mut Exec<'_>, provider: &Provider) {
    PROVIDERS.set(&mut exec.state, &provider.account, provider);
}

/// The part of the bond that no claim has reserved.
pub fn bond_free(provider: &Provider) -> Amount {
    provider.bond.saturating_sub(provider.reserved)
}

/// The bond that `provider` had before a point of active time. (T-7)
pub fn bond_before(provider: &Provider, active_ms: u64) -> Amount {
    provider.bond_history.iter().rev().find(|(from_ms, _)| *from_ms < active_ms).map_or(Amount::ZERO, |(_, bond)| *bond)
}

/// How far back weights may ask, ms of active time.
fn horizon_ms(exec: &Exec<'_>) -> u64 {
    exec.params.challenge_window_ms + exec.params.voting_period_ms
}

/// Changes the bond and everything that is derived from it.
fn set_bond(exec: &mut Exec<'_>, provider: &mut Provider, bond: Amount) {
    registry::supporter_bond_changed(exec, &provider.models, provider.bond, bond);
    provider.bond = bond;
    let now = exec.active_now();
    let oldest = now.saturating_sub(horizon_ms(exec));
    let history = &mut provider.bond_history;
    if history.last().is_some_and(|(from_ms, _)| *from_ms == now) {
        history.pop();
    }
    history.push((now, bond));
    while history.len() > 2 && history[1].0 < oldest {
        history.remove(0);
    }
    if history.len() > BOND_HISTORY_MAX {
        // Slashes alone can get here; forgetting a change in favour of the smaller bond never
        // makes a vote weigh more than it should.
        history[1].1 = history[0].1.min(history[1].1);
        history[1].0 = history[0].0;
        history.remove(0);
    }
}

/// Refuses voluntary changes that would crowd out the history.
fn check_history(exec: &Exec<'_>, provider: &Provider) -> Done {
    match provider.bond_history.first() {
        Some((oldest_ms, _)) if provider.bond_history.len() >= BOND_HISTORY_MAX / 2 => {
            let left_ms = (oldest_ms + horizon_ms(exec)).saturating_sub(exec.active_now());
            let retry_after_ms = exec.now() + left_ms;
            if left_ms > 0 { Err(LedgerError::TooManyBondChanges { retry_after_ms }) } else { Ok(()) }
        }
        _ => Ok(()),
    }
}

/// [`althing_types::Call::Bond`].
pub(crate) fn bond(exec: &mut Exec<'_>, sender: Address, amount: Amount) -> Done {
    if amount.is_zero() {
        return Err(LedgerError::ZeroAmount);
    }
    let mut provider = provider(&exec.state, &sender).unwrap_or(Provider { account: sender, ..Provider::default() });
    check_history(exec, &provider)?;
    let bond = add(provider.bond, amount)?;
    accounts::debit(exec, &sender, amount, Place::Bonded)?;
    set_bond(exec, &mut provider, bond);
    store(exec, &provider);
    exec.emit(Event::Bonded { provider: sender, amount });
    Ok(())
}

/// [`althing_types::Call::Unbond`]. (T-10)
pub(crate) fn unbond(exec: &mut Exec<'_>, sender: Address, amount: Amount) -> Done {
    if amount.is_zero() {
        return Err(LedgerError::ZeroAmount);
    }
    let mut provider = provider(&exec.state, &sender).ok_or(LedgerError::NotProvider)?;
    let available = bond_free(&provider);
    if amount > available {
        return Err(LedgerError::BondReserved { available });
    }
    if provider.unbonding.len() >= UNBONDINGS_MAX {
        return Err(LedgerError::TooManyUnbondings { max: UNBONDINGS_MAX as u32 });
    }
    check_history(exec, &provider)?;
    let free_at_ms = exec.now() + exec.params.unbonding_ms;
    let bond = provider.bond.saturating_sub(amount);
    set_bond(exec, &mut provider, bond);
    provider.unbonding.push(Unbonding { amount, free_at_ms });
    store(exec, &provider);
    supply::shift(exec, Place::Bonded, Place::Unbonding, amount);
    due::UNBOND.set(&mut exec.state, &(free_at_ms, sender), &());
    exec.emit(Event::UnbondingStarted { provider: sender, amount, free_at_ms });
    Ok(())
}

/// Due: gives back what finished unbonding. (T-10)
pub(crate) fn release_unbonded(exec: &mut Exec<'_>, address: Address) {
    let Some(mut provider) = provider(&exec.state, &address) else { return };
    let now = exec.now();
    let (free, waiting): (Vec<_>, Vec<_>) = provider.unbonding.into_iter().partition(|u| u.free_at_ms <= now);
    provider.unbonding = waiting;
    store(exec, &provider);
    for unbonding in free {
        accounts::credit(exec, &address, unbonding.amount, Place::Unbonding);
        exec.emit(Event::Unbonded { provider: address, amount: unbonding.amount });
    }
}

/// The provider at `address`, fit for new work: bonded enough and not jailed. (T-8, T-9)
pub(crate) fn fit_for_work(exec: &Exec<'_>, address: &Address) -> Done<Provider> {
    let provider = provider(&exec.state, address).ok_or(LedgerError::NotProvider)?;
    if exec.now() < provider.jailed_until_ms {
        return Err(LedgerError::Jailed { until_ms: provider.jailed_until_ms });
    }
    let bond = bond_free(&provider);
    if bond < exec.params.bond_min {
        return Err(LedgerError::BondTooSmall { bond, min: exec.params.bond_min });
    }
    Ok(provider)
}

/// Weight of a claim by a provider that must have been bonded before that point of
/// active time: the smaller of
/// the bonds then and now, less reservations. (T-7)
pub(crate) fn weight_since(provider: &Provider, before_ms: u64) -> Done<Amount> {
    let weight = bond_before(provider, before_ms).min(provider.bond).saturating_sub(provider.reserved);
    if weight.is_zero() { Err(LedgerError::BondedTooLate) } else { Ok(weight) }
}

/// Reserves the maximum slash of a claim of this weight. (T-9)
pub(crate) fn reserve(exec: &mut Exec<'_>, provider: &mut Provider, weight: Amount) -> Done<Amount> {
    let reserved = weight.share(exec.params.slash);
    provider.reserved = add(provider.reserved, reserved)?;
    provider.outstanding += 1;
    store(exec, provider);
    Ok(reserved)
}

/// Ends a claim: its reservation is free again.
pub(crate) fn release(exec: &mut Exec<'_>, address: &Address, reserved: Amount) {
    let Some(mut provider) = provider(&exec.state, address) else { return };
    provider.reserved = provider.reserved.saturating_sub(reserved);
    provider.outstanding = provider.outstanding.saturating_sub(1);
    store(exec, &provider);
}

/// Takes `amount`, which the caller knows to be reserved, out of the bond; the caller pays it on
/// from [`Place::Bonded`]. (T-8)
pub(crate) fn slash(exec: &mut Exec<'_>, address: &Address, amount: Amount, order: OrderId) -> Amount {
    let Some(mut provider) = provider(&exec.state, address) else { return Amount::ZERO };
    let amount = amount.min(provider.bond);
    if amount.is_zero() {
        return amount;
    }
    let bond = provider.bond.saturating_sub(amount);
    set_bond(exec, &mut provider, bond);
    store(exec, &provider);
    exec.emit(Event::Slashed { provider: *address, amount, order });
    amount
}

/// Keeps a provider from new work for a time. (T-8)
pub(crate) fn jail(exec: &mut Exec<'_>, address: &Address, jail_ms: u64) {
    let Some(mut provider) = provider(&exec.state, address) else { return };
    provider.jailed_until_ms = provider.jailed_until_ms.max(exec.now() + jail_ms);
    store(exec, &provider);
    exec.emit(Event::Jailed { provider: *address, until_ms: provider.jailed_until_ms });
}
