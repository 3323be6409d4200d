//! Stake behind providers: bond, delegate, reserve, slash, jail. (T-7 … T-10)
//!
//! Terms: the **bond** is a provider's own collateral; its **stake** is the bond and what others
//! delegated to it. Each outstanding claim (solution, agreement, vote) **reserves** the most that it
//! can lose, its maximum slash; the **free stake** is the rest, and what further claims weigh. With a
//! slash of 12.5 %, n outstanding claims leave (7/8)^n of the stake free, so that a provider's weight
//! shrinks with its exposure.
//!
//! Who leaves cannot escape: an own bond leaves only as far as its part of the reservations stays;
//! delegations on their way out stay in a pool that is slashed like the rest, and nothing leaves it
//! that a claim may still lose. A slash takes its part of bond, delegations and leaving delegations
//! alike, whoever came first.
//!
//! ```text
//! bond ── unbond ──────────► unbonding ──────────────────────► free balance
//! free balance ── delegate ► delegated ── undelegate ► leaving ┬► free balance
//!                                └────── move ───────► leaving ┴► delegated to another
//! ```
//!
//! A profile may start without bonds: until so much is issued, whoever wants may work, nothing is
//! reserved, and the providers that the genesis names vote with weight 1 each.

use crate::{
    accounts, costs, due, emission,
    exec::{Done, Exec, add},
    registry,
    state::{Map, StateRead},
    supply::{self, Place},
    votes,
};
use althing_types::{
    Address, Amount, Delegation, Event, LedgerError, OrderId, Ppm, Provider,
    event::PaymentKind,
    object::{CommissionChange, LeavingDelegation, Pool, Unbonding},
};

/// Most amounts that may be unbonding at a time.
pub const UNBONDINGS_MAX: usize = 16;
/// Most parts of one delegation that may be leaving at a time.
pub const UNDELEGATIONS_MAX: usize = 16;
/// Parts of the time that weights may ask about, for each of which the history keeps two points.
pub const STAKE_HISTORY_PARTS: u64 = 16;
/// What a provider keeps of its delegators' part until it says otherwise.
pub const COMMISSION_DEFAULT: Ppm = Ppm(100_000);
/// How long a part that may not leave yet is left before the next try, ms.
const LEAVE_RETRY_MS: u64 = 60_000;

const PROVIDERS: Map<Address, Provider> = Map::new(0x03);
/// By provider and delegator.
const DELEGATIONS: Map<(Address, Address), Delegation> = Map::new(0x06);
/// The same by delegator and provider.
const BY_DELEGATOR: Map<(Address, Address), ()> = Map::new(0x07);
/// Providers that vote while bonds are not required. (T-9)
const VOTERS: Map<Address, ()> = Map::new(0x08);

// ---- queries ----

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

/// A delegation.
pub fn delegation(state: &dyn StateRead, provider: &Address, delegator: &Address) -> Option<Delegation> {
    DELEGATIONS.get(state, &(*provider, *delegator))
}

/// What an account delegated, by provider.
pub fn delegations_by(state: &dyn StateRead, delegator: &Address, limit: usize) -> Vec<Delegation> {
    let (from, to) = ((*delegator, Address::ZERO), (*delegator, Address([0xff; 20])));
    let found = BY_DELEGATOR.range(state, &from, &to, limit).into_iter();
    found.filter_map(|((delegator, provider), ())| delegation(state, &provider, &delegator)).collect()
}

/// What is delegated to a provider, by delegator.
pub fn delegations_to(state: &dyn StateRead, provider: &Address, limit: usize) -> Vec<Delegation> {
    let (from, to) = ((*provider, Address::ZERO), (*provider, Address([0xff; 20])));
    DELEGATIONS.range(state, &from, &to, limit).into_iter().map(|(_, delegation)| delegation).collect()
}

/// The part of a pool's amount that belongs to `shares`, rounded down.
pub fn pool_value(pool: &Pool, shares: Amount) -> Amount {
    if shares == pool.shares {
        return pool.amount;
    }
    pool.amount.mul_div_floor(shares.0, pool.shares.0).unwrap_or_default()
}

/// What a delegation has earned and can claim: from fees, from rewards.
pub fn delegation_owed(provider: &Provider, delegation: &Delegation) -> (Amount, Amount) {
    let (now, paid) = (&provider.earned_per_share, &delegation.earned_per_share_paid);
    let sum = |owed: Amount, grown: Amount| owed.checked_add(grown).unwrap_or(Amount::MAX);
    (
        sum(delegation.owed_fees, now.fees.since(paid.fees, delegation.shares)),
        sum(delegation.owed_rewards, now.rewards.since(paid.rewards, delegation.shares)),
    )
}

/// The stake that `provider` had before a point of active time, or less. (T-7)
pub fn stake_before(provider: &Provider, active_ms: u64) -> Amount {
    let history = provider.stake_history.iter().rev();
    history.into_iter().find(|(from_ms, _)| *from_ms < active_ms).map_or(Amount::ZERO, |(_, stake)| *stake)
}

pub(crate) fn store(exec: &mut Exec<'_>, provider: &Provider) {
    PROVIDERS.set(&mut exec.state, &provider.account, provider);
}

fn new_provider(account: Address) -> Provider {
    Provider { account, commission: COMMISSION_DEFAULT, ..Provider::default() }
}

// ---- what is required when ----

/// Whether so much is issued that providers must be bonded. (T-9)
pub(crate) fn bonds_required(exec: &Exec<'_>) -> bool {
    exec.params.bonds_from_supply.is_zero()
        || emission::supply(&exec.state, exec.params) >= exec.params.bonds_from_supply
}

/// Least free stake for new work: a fixed amount, or a share of what is issued. (T-9)
pub(crate) fn bond_min(exec: &Exec<'_>) -> Amount {
    if !bonds_required(exec) {
        return Amount::ZERO;
    }
    let share = emission::supply(&exec.state, exec.params).share(exec.params.bond_supply_share);
    share.max(exec.params.bond_min)
}

/// What losers lose of their weight at this supply. (T-8)
pub(crate) fn slash_now(exec: &Exec<'_>) -> Ppm {
    let from = exec.params.slashing_from_supply;
    let begun = from.is_zero() || emission::supply(&exec.state, exec.params) >= from;
    if begun { exec.params.slash } else { Ppm(0) }
}

/// Genesis: names a provider that votes while bonds are not required. (T-9)
pub(crate) fn add_voter(exec: &mut Exec<'_>, address: Address) {
    VOTERS.set(&mut exec.state, &address, &());
}

// ---- changes of the stake ----

/// Writes a changed stake into everything that is derived from it.
///
/// The history answers how much stake there was before a point of time, within the longest time
/// that a claim can ask back. It must never say more than there was. Time is cut into parts; of each
/// it keeps the least stake from the first change on, and the stake since the last one, so that its
/// length is bounded however often the stake changes.
fn stake_changed(exec: &mut Exec<'_>, provider: &mut Provider, before: Amount) {
    let stake = provider.stake();
    registry::supporter_stake_changed(exec, &provider.models, before, stake);
    let now = exec.active_now();
    let lifetime_ms = exec.params.claim_lifetime_ms().max(STAKE_HISTORY_PARTS);
    let part = |time_ms: u64| time_ms / (lifetime_ms / STAKE_HISTORY_PARTS);
    let history = &mut provider.stake_history;
    match history.last() {
        Some((from_ms, _)) if *from_ms == now => {
            history.pop();
        }
        Some((last_ms, last)) if part(*last_ms) == part(now) => {
            // A third point in this part: the one in between gives way to the least.
            let (last, len) = (*last, history.len());
            if len >= 2 && part(history[len - 2].0) == part(now) {
                history[len - 2].1 = history[len - 2].1.min(last);
                history.pop();
            }
        }
        _ => {}
    }
    history.push((now, stake));
    let oldest_ms = now.saturating_sub(lifetime_ms);
    while history.len() > 2 && history[1].0 < oldest_ms {
        history.remove(0);
    }
}

/// [`althing_types::Call::Bond`]. (T-9)
pub(crate) fn bond(exec: &mut Exec<'_>, sender: Address, amount: Amount) -> Done {
    if amount.is_zero() {
        return Err(LedgerError::ZeroAmount);
    }
    let known = provider(&exec.state, &sender);
    let deposit = if known.is_none() { costs::deposit(exec, &sender)? } else { Amount::ZERO };
    let mut provider = known.unwrap_or_else(|| Provider { deposit, ..new_provider(sender) });
    let (before, bond) = (provider.stake(), add(provider.bond, amount)?);
    accounts::debit(exec, &sender, amount, Place::Bonded)?;
    votes::restake(exec, &sender, provider.bond, bond);
    provider.bond = bond;
    stake_changed(exec, &mut provider, before);
    store(exec, &provider);
    exec.emit(Event::Bonded { provider: sender, amount });
    Ok(())
}

/// The part of the own bond that may leave: the rest is its part of what is reserved. (T-10)
pub fn bond_free(provider: &Provider) -> Amount {
    let slashable = provider.slashable();
    let part = provider.reserved.mul_div_floor(provider.bond.0, slashable.0).unwrap_or_default();
    // One unit more, for what was rounded down.
    let part = if part.is_zero() { part } else { Amount(part.0.saturating_add(1)) };
    let part = if provider.bond == slashable { provider.reserved } else { part };
    provider.bond.saturating_sub(part)
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
    let free_at_ms = exec.now() + exec.params.unbonding_ms;
    let (before, bond) = (provider.stake(), provider.bond.saturating_sub(amount));
    votes::restake(exec, &sender, provider.bond, bond);
    provider.bond = bond;
    stake_changed(exec, &mut provider, before);
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

// ---- delegations ----

/// Takes a delegation's part of what its provider earned; to be done before its shares change.
fn settle(provider: &Provider, delegation: &mut Delegation) {
    (delegation.owed_fees, delegation.owed_rewards) = delegation_owed(provider, delegation);
    delegation.earned_per_share_paid = provider.earned_per_share;
}

/// What a delegation counts for in votes, now that its shares or their value changed. (G-1)
fn revalue(exec: &mut Exec<'_>, provider: &Provider, delegation: &mut Delegation) {
    let votable = match delegation.shares.is_zero() {
        true => Amount::ZERO,
        false => pool_value(&provider.delegated, delegation.shares),
    };
    votes::restake(exec, &delegation.delegator, delegation.votable, votable);
    delegation.votable = votable;
}

/// Due: a provider was slashed; values the delegations to it anew, from a delegator on, at most `limit`
/// and the rest in the next block. (G-1, L-2)
pub(crate) fn revalue_delegations(exec: &mut Exec<'_>, address: Address, from: Address, limit: usize) {
    let Some(provider) = provider(&exec.state, &address) else { return };
    let (first, last) = ((address, from), (address, Address([0xff; 20])));
    // One more than is worked off: where the next block goes on.
    let mut found = DELEGATIONS.range(&exec.state, &first, &last, limit.saturating_add(1));
    if found.len() > limit
        && let Some(((_, next), _)) = found.pop()
    {
        let now = exec.now();
        due::REVALUE.set(&mut exec.state, &(now, (address, next)), &());
    }
    for (_, mut delegation) in found {
        revalue(exec, &provider, &mut delegation);
        store_delegation(exec, &delegation);
    }
}

fn store_delegation(exec: &mut Exec<'_>, delegation: &Delegation) {
    let (provider, delegator) = (delegation.provider, delegation.delegator);
    let nothing = delegation.shares.is_zero()
        && delegation.leaving.is_empty()
        && delegation.owed_fees.is_zero()
        && delegation.owed_rewards.is_zero();
    if nothing {
        DELEGATIONS.remove(&mut exec.state, &(provider, delegator));
        BY_DELEGATOR.remove(&mut exec.state, &(delegator, provider));
        costs::give_back(exec, &delegator, delegation.deposit);
    } else {
        DELEGATIONS.set(&mut exec.state, &(provider, delegator), delegation);
        BY_DELEGATOR.set(&mut exec.state, &(delegator, provider), &());
    }
}

/// Puts `amount` into a pool; the shares that it gives, rounded down.
fn join(pool: &mut Pool, amount: Amount) -> Done<Amount> {
    // Shares of a pool that holds nothing are dust: they get the part of dust in what comes.
    let shares = match pool.shares.is_zero() || pool.amount.is_zero() {
        true => amount,
        false => amount.mul_div_floor(pool.shares.0, pool.amount.0).unwrap_or_default(),
    };
    if shares.is_zero() {
        return Err(LedgerError::AmountTooSmall);
    }
    pool.amount = add(pool.amount, amount)?;
    pool.shares = add(pool.shares, shares)?;
    Ok(shares)
}

/// [`althing_types::Call::Delegate`]. (T-10)
pub(crate) fn delegate(exec: &mut Exec<'_>, sender: Address, to: Address, amount: Amount) -> Done {
    if amount.is_zero() {
        return Err(LedgerError::ZeroAmount);
    }
    if sender == to {
        return Err(LedgerError::DelegationToSelf);
    }
    if provider(&exec.state, &to).is_none() {
        return Err(LedgerError::NotProvider);
    }
    accounts::debit(exec, &sender, amount, Place::Delegated)?;
    add_delegation(exec, sender, to, amount)
}

/// Stakes units that are in [`Place::Delegated`] already.
fn add_delegation(exec: &mut Exec<'_>, delegator: Address, to: Address, amount: Amount) -> Done {
    let mut provider = provider(&exec.state, &to).ok_or(LedgerError::NotProvider)?;
    let before = provider.stake();
    let shares = join(&mut provider.delegated, amount)?;
    let known = delegation(&exec.state, &to, &delegator);
    let deposit = if known.is_none() { costs::deposit(exec, &delegator)? } else { Amount::ZERO };
    let mut delegation = known.unwrap_or_else(|| Delegation {
        delegator,
        provider: to,
        earned_per_share_paid: provider.earned_per_share,
        deposit,
        ..Delegation::default()
    });
    settle(&provider, &mut delegation);
    delegation.shares = add(delegation.shares, shares)?;
    stake_changed(exec, &mut provider, before);
    store(exec, &provider);
    revalue(exec, &provider, &mut delegation);
    store_delegation(exec, &delegation);
    exec.emit(Event::Delegated { delegator, provider: to, amount });
    Ok(())
}

/// [`althing_types::Call::Undelegate`] and [`althing_types::Call::DelegationMove`]: what leaves waits,
/// and can be slashed as long. (T-10)
pub(crate) fn undelegate(
    exec: &mut Exec<'_>,
    sender: Address,
    from: Address,
    amount: Option<Amount>,
    to: Option<Address>,
) -> Done {
    let mut provider = provider(&exec.state, &from).ok_or(LedgerError::NotProvider)?;
    let mut delegation = delegation(&exec.state, &from, &sender).ok_or(LedgerError::NoDelegation)?;
    let available = pool_value(&provider.delegated, delegation.shares);
    let amount = amount.unwrap_or(available);
    if amount.is_zero() {
        return Err(LedgerError::ZeroAmount);
    }
    if amount > available {
        return Err(LedgerError::DelegationTooSmall { available });
    }
    match to {
        Some(to) if to == sender => return Err(LedgerError::DelegationToSelf),
        Some(to) if PROVIDERS.get(&exec.state, &to).is_none() => return Err(LedgerError::NotProvider),
        _ => {}
    }
    if delegation.leaving.len() >= UNDELEGATIONS_MAX {
        return Err(LedgerError::TooManyUndelegations { max: UNDELEGATIONS_MAX as u32 });
    }
    settle(&provider, &mut delegation);
    // The shares that are worth it, rounded up against who leaves; all of them for everything.
    let pool = &mut provider.delegated;
    let shares = match amount == available {
        true => delegation.shares,
        false => {
            let down = amount.mul_div_floor(pool.shares.0, pool.amount.0).ok_or(LedgerError::Overflow)?;
            let exact = down.mul_div_floor(pool.amount.0, pool.shares.0) == Some(amount);
            let shares = if exact { down } else { add(down, Amount(1))? };
            shares.min(delegation.shares)
        }
    };
    let before = provider.stake();
    let pool = &mut provider.delegated;
    pool.shares = pool.shares.saturating_sub(shares);
    pool.amount = pool.amount.saturating_sub(amount);
    delegation.shares = delegation.shares.saturating_sub(shares);
    let leaving = join(&mut provider.leaving, amount)?;
    let free_at_ms = exec.now() + exec.params.unbonding_ms;
    delegation.leaving.push(LeavingDelegation { shares: leaving, free_at_ms, to });
    stake_changed(exec, &mut provider, before);
    store(exec, &provider);
    revalue(exec, &provider, &mut delegation);
    store_delegation(exec, &delegation);
    due::LEAVE.set(&mut exec.state, &(free_at_ms, (from, sender)), &());
    exec.emit(Event::UndelegationStarted { delegator: sender, provider: from, amount, free_at_ms });
    Ok(())
}

/// Due: pays out the parts of a delegation that waited long enough. What a claim may still lose
/// does not leave: it is tried again later. (T-10)
pub(crate) fn release_left(exec: &mut Exec<'_>, from: Address, delegator: Address) {
    let Some(mut provider) = provider(&exec.state, &from) else { return };
    let Some(mut delegation) = delegation(&exec.state, &from, &delegator) else { return };
    let now = exec.now();
    let mut left = Vec::new();
    let mut waiting = Vec::new();
    let mut retry_at_ms = None;
    for mut part in std::mem::take(&mut delegation.leaving) {
        let value = pool_value(&provider.leaving, part.shares);
        if part.free_at_ms > now {
            waiting.push(part);
        } else if provider.slashable().saturating_sub(value) < provider.reserved {
            part.free_at_ms = now + LEAVE_RETRY_MS;
            retry_at_ms = Some(part.free_at_ms);
            waiting.push(part);
        } else {
            provider.leaving.amount = provider.leaving.amount.saturating_sub(value);
            provider.leaving.shares = provider.leaving.shares.saturating_sub(part.shares);
            left.push((value, part.to));
        }
    }
    delegation.leaving = waiting;
    store(exec, &provider);
    store_delegation(exec, &delegation);
    if let Some(retry_at_ms) = retry_at_ms {
        due::LEAVE.set(&mut exec.state, &(retry_at_ms, (from, delegator)), &());
    }
    for (amount, to) in left {
        // A move that is refused, for the deposit or because the target is gone, has written
        // nothing: all its checks come before its writes.
        let moved = match to {
            Some(to) if !amount.is_zero() => add_delegation(exec, delegator, to, amount).is_ok(),
            _ => false,
        };
        if !moved {
            accounts::credit(exec, &delegator, amount, Place::Delegated);
        }
        let to = to.filter(|_| moved);
        exec.emit(Event::Undelegated { delegator, provider: from, amount, to });
    }
}

/// [`althing_types::Call::DelegationClaim`].
pub(crate) fn claim_delegation(exec: &mut Exec<'_>, sender: Address, from: Address) -> Done {
    let mut provider = provider(&exec.state, &from).ok_or(LedgerError::NotProvider)?;
    let mut delegation = delegation(&exec.state, &from, &sender).ok_or(LedgerError::NoDelegation)?;
    settle(&provider, &mut delegation);
    let (fees, rewards) = (std::mem::take(&mut delegation.owed_fees), std::mem::take(&mut delegation.owed_rewards));
    let amount = add(fees, rewards)?;
    if amount.is_zero() {
        return Err(LedgerError::ZeroAmount);
    }
    provider.owed = provider.owed.saturating_sub(amount);
    store(exec, &provider);
    revalue(exec, &provider, &mut delegation);
    store_delegation(exec, &delegation);
    accounts::credit_earned(exec, &sender, fees, rewards, Place::Owed);
    exec.emit(Event::DelegationEarningsPaid { delegator: sender, provider: from, fees, rewards });
    Ok(())
}

/// [`althing_types::Call::CommissionSet`]: from the notice on, at once without delegators. (T-10)
pub(crate) fn set_commission(exec: &mut Exec<'_>, sender: Address, commission: Ppm) -> Done {
    let mut provider = provider(&exec.state, &sender).ok_or(LedgerError::NotProvider)?;
    if commission > Ppm::ONE {
        return Err(LedgerError::Overflow);
    }
    let now = exec.now();
    provider.commission = provider.commission_at(now);
    let notice_ms = if provider.delegated.shares.is_zero() { 0 } else { exec.params.commission_notice_ms };
    let from_ms = now + notice_ms;
    provider.commission_next = Some(CommissionChange { commission, from_ms });
    store(exec, &provider);
    exec.emit(Event::CommissionSet { provider: sender, commission, from_ms });
    Ok(())
}

/// Pays a provider what it earned: its delegators get the part of their stake, less the commission.
pub(crate) fn pay_provider(
    exec: &mut Exec<'_>,
    to: &Address,
    amount: Amount,
    from: Place,
    kind: PaymentKind,
    order: OrderId,
) {
    let part = match provider(&exec.state, to) {
        Some(provider) => pay_delegators(exec, provider, amount, from, kind, order),
        None => Amount::ZERO,
    };
    accounts::pay(exec, to, amount.saturating_sub(part), from, kind, order);
}

fn pay_delegators(
    exec: &mut Exec<'_>,
    mut provider: Provider,
    amount: Amount,
    from: Place,
    kind: PaymentKind,
    order: OrderId,
) -> Amount {
    let pool = provider.delegated;
    if pool.shares.is_zero() {
        return Amount::ZERO;
    }
    let part = amount.mul_div_floor(pool.amount.0, provider.stake().0).unwrap_or_default();
    let part = part.saturating_sub(part.share(provider.commission_at(exec.now())));
    if part.is_zero() {
        return part;
    }
    let sums = &mut provider.earned_per_share;
    match kind {
        PaymentKind::Reward => sums.rewards = sums.rewards.add(part, pool.shares),
        _ => sums.fees = sums.fees.add(part, pool.shares),
    }
    provider.owed = provider.owed.checked_add(part).expect("what is owed is part of the supply, which fits");
    let account = provider.account;
    store(exec, &provider);
    supply::shift(exec, from, Place::Owed, part);
    exec.emit(Event::DelegatorsEarned { provider: account, amount: part, kind, order });
    part
}

// ---- claims on the stake ----

/// The provider at `address`, fit for new work: enough free stake, and not jailed. (T-8, T-9)
pub(crate) fn fit_for_work(exec: &Exec<'_>, address: &Address) -> Done<Provider> {
    let provider = fit_to_judge(exec, address)?;
    let (bond, min) = (provider.stake_free(), bond_min(exec));
    if bond < min {
        return Err(LedgerError::BondTooSmall { bond, min });
    }
    Ok(provider)
}

/// The provider at `address`, fit to contest and to vote: enough stake, and not jailed. What is
/// reserved makes its vote weigh less, but however busy a provider is, it can speak against a lie.
/// (T-7, T-9)
pub(crate) fn fit_to_judge(exec: &Exec<'_>, address: &Address) -> Done<Provider> {
    let provider = match provider(&exec.state, address) {
        Some(provider) => provider,
        None if !bonds_required(exec) => new_provider(*address),
        None => return Err(LedgerError::NotProvider),
    };
    if exec.now() < provider.jailed_until_ms {
        return Err(LedgerError::Jailed { until_ms: provider.jailed_until_ms });
    }
    let (bond, min) = (provider.stake(), bond_min(exec));
    if bond < min {
        return Err(LedgerError::BondTooSmall { bond, min });
    }
    Ok(provider)
}

/// Weight of a claim by a provider that must have been bonded before that point of active time: the
/// smaller of the stakes then and now, less reservations. While bonds are not required, one for the
/// providers that the genesis names. (T-7)
pub(crate) fn weight_since(exec: &Exec<'_>, provider: &Provider, before_ms: u64) -> Done<Amount> {
    if !bonds_required(exec) {
        let named = VOTERS.has(&exec.state, &provider.account);
        return if named { Ok(Amount(1)) } else { Err(LedgerError::NotBootstrapVoter) };
    }
    let weight = stake_before(provider, before_ms).min(provider.stake()).saturating_sub(provider.reserved);
    if weight.is_zero() { Err(LedgerError::BondedTooLate) } else { Ok(weight) }
}

/// What a solution by this provider weighs in a dispute over it. (T-7)
pub(crate) fn weight_of_solver(exec: &Exec<'_>, provider: &Provider) -> Amount {
    if bonds_required(exec) {
        return provider.stake_free();
    }
    Amount(VOTERS.has(&exec.state, &provider.account).into())
}

/// Reserves the maximum slash of a claim of this weight. (T-9)
pub(crate) fn reserve(exec: &mut Exec<'_>, provider: &mut Provider, weight: Amount) -> Done<Amount> {
    let reserved = if bonds_required(exec) { weight.share(exec.params.slash) } else { Amount::ZERO };
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

/// Takes `amount`, which the caller knows to be reserved, out of bond and delegations pro rata; the
/// caller pays it on from [`Place::Bonded`]. (T-8, T-10)
pub(crate) fn slash(exec: &mut Exec<'_>, address: &Address, amount: Amount, order: OrderId) -> Amount {
    let Some(mut provider) = provider(&exec.state, address) else { return Amount::ZERO };
    let slashable = provider.slashable();
    let amount = amount.min(slashable);
    if amount.is_zero() {
        return amount;
    }
    let before = provider.stake();
    let part = |of: Amount| amount.mul_div_floor(of.0, slashable.0).unwrap_or_default();
    let (mut delegated, mut leaving) = (part(provider.delegated.amount), part(provider.leaving.amount));
    let mut own = amount.saturating_sub(delegated).saturating_sub(leaving);
    // Rounding leaves at most two units too many for a tiny bond: they come from who has them.
    let rest = own.saturating_sub(provider.bond);
    own = own.saturating_sub(rest);
    let more = rest.min(provider.delegated.amount.saturating_sub(delegated));
    delegated = Amount(delegated.0 + more.0);
    leaving = Amount(leaving.0 + rest.saturating_sub(more).0);
    let bond = provider.bond.saturating_sub(own);
    votes::restake(exec, address, provider.bond, bond);
    provider.bond = bond;
    if !delegated.is_zero() {
        let now = exec.now();
        due::REVALUE.set(&mut exec.state, &(now, (*address, Address::ZERO)), &());
    }
    provider.delegated.amount = provider.delegated.amount.saturating_sub(delegated);
    provider.leaving.amount = provider.leaving.amount.saturating_sub(leaving);
    stake_changed(exec, &mut provider, before);
    store(exec, &provider);
    let delegated = Amount(delegated.0 + leaving.0);
    supply::shift(exec, Place::Delegated, Place::Bonded, delegated);
    exec.emit(Event::Slashed { provider: *address, amount, delegated, order });
    amount
}

/// Keeps a provider from new work for a time. (T-8)
pub(crate) fn jail(exec: &mut Exec<'_>, address: &Address, jail_ms: u64) {
    let Some(mut provider) = provider(&exec.state, address) else { return };
    provider.jailed_until_ms = provider.jailed_until_ms.max(exec.now() + jail_ms);
    store(exec, &provider);
    exec.emit(Event::Jailed { provider: *address, until_ms: provider.jailed_until_ms });
}
