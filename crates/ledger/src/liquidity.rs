//! The market: constant-product pools between any two assets, and the liquidity drip. (G-4, E-2)
//!
//! Terms: a **pool** holds **reserves** of two assets; whoever puts some of both into it gets
//! **liquidity shares**, an asset of their own, and with them a part of whatever the pool holds when
//! they are given back. A **swap** gives one asset for the other so that the product of the reserves
//! never falls; its **fee** stays in the pool. All rounding is in the pool's favour.
//!
//! ```text
//! out = ⌊reserve_out · in·(1 − fee) / (reserve_in + in·(1 − fee))⌋
//! ```
//!
//! A new pool's first liquidity shares are ⌊√(a·b)⌋, of which the first [`LP_LOCKED`] are nobody's for
//! ever: without them, whoever is alone in a pool could make one liquidity share so dear that those
//! who come later lose by rounding.
//!
//! Shares of model DAOs keep earning while a pool holds them: before anything else happens in the
//! pool, its earnings join its native reserve, or go to the treasury if the pool has none. (T-14)
//!
//! The **drip** is the part of minted rewards that is for liquidity (T-6). Governance gives pools
//! weights; in proportion to them and to the time that passed, the drip is released to the pools
//! where somebody **stakes** liquidity shares, and there divided by stake: of what is left, each time
//! the part that the passed time is of `liquidity_drip_ms`. What is released for a
//! time goes to those who staked all that time, since every change of a stake releases first: who
//! arrives just before a payout earns nothing of it. While nobody stakes, nothing is released.

use crate::{
    accounts, assets, costs,
    exec::{Done, Exec, add},
    query, shares,
    state::{Map, StateRead},
    supply::{self, Place, TREASURY},
};
use althing_types::{
    Address, Amount, AssetId, Drip, Event, LedgerError, LpStake, MarketPool, ModelId, PoolId, Ppm, api::SwapQuote,
};
use ruint::{Uint, aliases::U256};
use std::collections::BTreeMap;

/// What stays in the pool of what is given to swap.
pub const POOL_FEE: Ppm = Ppm(3_000);
/// Liquidity shares of each pool that are nobody's, base units.
pub const LP_LOCKED: Amount = Amount(1_000);
/// Most pools that share the drip.
pub const DRIP_POOLS_MAX: usize = 16;
/// Blocks release the drip when such a part of its time has passed, so that not each of them writes.
const DRIP_STEPS: u64 = 1_000;

const POOLS: Map<PoolId, MarketPool> = Map::new(0x78);
/// By staker and pool.
const STAKES: Map<(Address, PoolId), LpStake> = Map::new(0x79);
const DRIP: Map<(), Drip> = Map::new(0x7a);

type Wide = Uint<512, 8>;

// ---- queries ----

/// The pool with this id, as it was left; what its shares earned since is not in it yet.
pub fn pool(state: &dyn StateRead, id: &PoolId) -> Option<MarketPool> {
    POOLS.get(state, id)
}

/// Pools in id order.
pub fn all(state: &dyn StateRead, after: Option<PoolId>, limit: usize) -> Vec<MarketPool> {
    let entries = match after {
        None => POOLS.first(state, limit),
        Some(after) => POOLS.after(state, &after, limit),
    };
    entries.into_iter().map(|(_, pool)| pool).collect()
}

/// What an account staked, by pool.
pub fn stakes_of(state: &dyn StateRead, staker: &Address, limit: usize) -> Vec<LpStake> {
    let (from, to) = ((*staker, PoolId::ZERO), (*staker, PoolId([0xff; 32])));
    STAKES.range(state, &from, &to, limit).into_iter().map(|(_, stake)| stake).collect()
}

/// What an account staked in a pool.
pub fn stake_in(state: &dyn StateRead, staker: &Address, pool: &PoolId) -> Option<LpStake> {
    STAKES.get(state, &(*staker, *pool))
}

/// Every stake, for invariants.
pub(crate) fn all_stakes(state: &dyn StateRead) -> Vec<LpStake> {
    STAKES.first(state, usize::MAX).into_iter().map(|(_, stake)| stake).collect()
}

/// The drip, as it was left.
pub fn drip(state: &dyn StateRead) -> Drip {
    DRIP.get(state, &()).unwrap_or_default()
}

/// What an account can claim of the drip for its stake in a pool now. (E-2)
pub fn drip_claimable(state: &dyn StateRead, staker: &Address, id: &PoolId) -> Amount {
    let (Some(stake), Some(pool)) = (stake_in(state, staker, id), pool(state, id)) else { return Amount::ZERO };
    let (now_ms, drip_ms) = (query::clock(state).time_ms, query::params(state).liquidity_drip_ms);
    let mut drip = drip(state);
    let mut pools = weighted_pools(state, &drip);
    release(&mut drip, &mut pools, now_ms, drip_ms);
    owed(pools.get(id).unwrap_or(&pool), &stake)
}

/// What a swap would give now. (G-4)
///
/// # Errors
/// Those of the swap, except for the balance of whoever asks.
pub fn quote(state: &dyn StateRead, asset_in: AssetId, amount_in: Amount, asset_out: AssetId) -> Done<SwapQuote> {
    let id = PoolId::of(asset_in, asset_out);
    if asset_in == asset_out {
        return Err(LedgerError::SameAsset);
    }
    let mut pool = pool(state, &id).ok_or(LedgerError::UnknownPool(id))?;
    if pool.a == AssetId::Native {
        for model in models_of(&pool) {
            let holder = shares::holder(state, &model, &id.account());
            let earned = shares::dao(state, &model).zip(holder).map(|(dao, holder)| shares::claimable(&dao, &holder));
            pool.reserve_a = add(pool.reserve_a, earned.unwrap_or_default())?;
        }
    }
    let (reserve_in, reserve_out) = reserves(&mut pool, asset_in);
    let (reserve_in, reserve_out) = (*reserve_in, *reserve_out);
    let amount_out = swap_gives(reserve_in, reserve_out, amount_in)?;
    let fee = amount_in.saturating_sub(amount_in.share(Ppm(Ppm::ONE.0 - POOL_FEE.0)));
    let one = Wide::from(Ppm::ONE.0);
    let got = wide(amount_out) * wide(reserve_in) * one / (wide(amount_in) * wide(reserve_out));
    let lost = one.saturating_sub(got);
    let price_impact = Ppm(u32::try_from(lost).expect("at most one million"));
    Ok(SwapQuote { pool: id, asset_in, amount_in, asset_out, amount_out, fee, price_impact })
}

fn store(exec: &mut Exec<'_>, pool: &MarketPool) {
    POOLS.set(&mut exec.state, &pool.id, pool);
}

// ---- arithmetic ----

fn wide(amount: Amount) -> Wide {
    Wide::from(amount.0)
}

/// ⌈amount · part / whole⌉; the whole is not zero.
fn mul_div_ceil(amount: Amount, part: Amount, whole: Amount) -> Done<Amount> {
    let quotient = (wide(amount) * wide(part)).div_ceil(wide(whole));
    u128::try_from(quotient).map(Amount).map_err(|_| LedgerError::Overflow)
}

/// ⌊√(a · b)⌋ by Newton's method from above.
fn root_of_product(a: Amount, b: Amount) -> Amount {
    let square = U256::from(a.0) * U256::from(b.0);
    if square.is_zero() {
        return Amount::ZERO;
    }
    let mut root = U256::from(1) << square.bit_len().div_ceil(2);
    loop {
        let next = (root + square / root) >> 1usize;
        if next >= root {
            return Amount(u128::try_from(root).expect("the root of a 256-bit number has 128 bits"));
        }
        root = next;
    }
}

/// What comes out of a pool for `amount_in`, which must be worth at least one unit. (G-4)
fn swap_gives(reserve_in: Amount, reserve_out: Amount, amount_in: Amount) -> Done<Amount> {
    if amount_in.is_zero() {
        return Err(LedgerError::ZeroAmount);
    }
    let effective = wide(amount_in) * Wide::from(Ppm::ONE.0 - POOL_FEE.0);
    let out = wide(reserve_out) * effective / (wide(reserve_in) * Wide::from(Ppm::ONE.0) + effective);
    match u128::try_from(out).expect("less than the reserve comes out") {
        0 => Err(LedgerError::AmountTooSmall),
        out => Ok(Amount(out)),
    }
}

/// The reserve of what goes in, and that of what comes out.
fn reserves(pool: &mut MarketPool, asset_in: AssetId) -> (&mut Amount, &mut Amount) {
    match asset_in == pool.a {
        true => (&mut pool.reserve_a, &mut pool.reserve_b),
        false => (&mut pool.reserve_b, &mut pool.reserve_a),
    }
}

// ---- pools ----

/// The models whose shares a pool holds.
fn models_of(pool: &MarketPool) -> impl Iterator<Item = ModelId> + use<> {
    [pool.a, pool.b].into_iter().filter_map(|asset| match asset {
        AssetId::Shares(model) => Some(model),
        _ => None,
    })
}

/// The pool, with what its shares of model DAOs earned. (T-14)
fn open(exec: &mut Exec<'_>, id: PoolId) -> Done<MarketPool> {
    let mut pool = pool(&exec.state, &id).ok_or(LedgerError::UnknownPool(id))?;
    // The native token comes first in the order of assets.
    let to_treasury = pool.a != AssetId::Native;
    for model in models_of(&pool) {
        let amount = shares::take_earnings(exec, &model, &id.account());
        if amount.is_zero() {
            continue;
        }
        if to_treasury {
            accounts::credit(exec, &TREASURY, amount, Place::Owed);
        } else {
            pool.reserve_a = add(pool.reserve_a, amount)?;
            supply::shift(exec, Place::Owed, Place::Pools, amount);
        }
        exec.emit(Event::PoolEarned { pool: id, model, amount, to_treasury });
    }
    Ok(pool)
}

/// An error unless at least `min` comes out.
fn at_least(asset: AssetId, out: Amount, min: Amount) -> Done {
    if out < min {
        return Err(LedgerError::BelowMinimum { asset, out, min });
    }
    Ok(())
}

/// [`althing_types::Call::PoolAdd`]. (G-4)
pub(crate) fn pool_add(
    exec: &mut Exec<'_>,
    sender: Address,
    first: (AssetId, Amount),
    second: (AssetId, Amount),
    lp_min: Amount,
) -> Done {
    let ((a, most_a), (b, most_b)) = if first.0 < second.0 { (first, second) } else { (second, first) };
    if a == b {
        return Err(LedgerError::SameAsset);
    }
    if most_a.is_zero() || most_b.is_zero() {
        return Err(LedgerError::ZeroAmount);
    }
    let id = PoolId::of(a, b);
    let is_new = !POOLS.has(&exec.state, &id);
    let (mut pool, amount_a, amount_b, lp) = if is_new {
        let lp = root_of_product(most_a, most_b);
        if lp <= LP_LOCKED {
            return Err(LedgerError::PoolTooSmall { min: LP_LOCKED });
        }
        (new_pool(id, a, b), most_a, most_b, lp.saturating_sub(LP_LOCKED))
    } else {
        let pool = open(exec, id)?;
        // No pool is ever empty: its locked shares keep a part of both reserves.
        let by_a = most_a.mul_div_floor(pool.lp.0, pool.reserve_a.0);
        let by_b = most_b.mul_div_floor(pool.lp.0, pool.reserve_b.0);
        // One that does not fit is more than the other.
        let lp = by_a.unwrap_or(Amount::MAX).min(by_b.unwrap_or(Amount::MAX));
        if lp.is_zero() {
            return Err(LedgerError::AmountTooSmall);
        }
        let amount_a = mul_div_ceil(pool.reserve_a, lp, pool.lp)?;
        let amount_b = mul_div_ceil(pool.reserve_b, lp, pool.lp)?;
        (pool, amount_a, amount_b, lp)
    };
    at_least(AssetId::Lp(id), lp, lp_min)?;
    pool.reserve_a = add(pool.reserve_a, amount_a)?;
    pool.reserve_b = add(pool.reserve_b, amount_b)?;
    pool.lp = add(pool.lp, lp)?;
    if is_new {
        pool.deposit = costs::deposit(exec, &sender)?;
    }
    assets::into_pool(exec, &sender, &id, a, amount_a)?;
    assets::into_pool(exec, &sender, &id, b, amount_b)?;
    assets::give(exec, &sender, AssetId::Lp(id), lp)?;
    store(exec, &pool);
    if is_new {
        exec.emit(Event::PoolCreated { pool: id, a, b });
    }
    exec.emit(Event::LiquidityAdded { pool: id, account: sender, amount_a, amount_b, lp });
    Ok(())
}

/// A pool with nothing but its locked shares.
fn new_pool(id: PoolId, a: AssetId, b: AssetId) -> MarketPool {
    MarketPool {
        id,
        a,
        b,
        reserve_a: Amount::ZERO,
        reserve_b: Amount::ZERO,
        lp: LP_LOCKED,
        staked: Amount::ZERO,
        drip_weight: 0,
        drip_per_lp: Default::default(),
        deposit: Amount::ZERO,
    }
}

/// [`althing_types::Call::PoolRemove`]. (G-4)
pub(crate) fn pool_remove(
    exec: &mut Exec<'_>,
    sender: Address,
    id: PoolId,
    lp: Amount,
    a_min: Amount,
    b_min: Amount,
) -> Done {
    let mut pool = open(exec, id)?;
    if lp.is_zero() {
        return Err(LedgerError::ZeroAmount);
    }
    assets::take(exec, &sender, AssetId::Lp(id), lp)?;
    let part = |reserve: Amount| reserve.mul_div_floor(lp.0, pool.lp.0).ok_or(LedgerError::Overflow);
    let (amount_a, amount_b) = (part(pool.reserve_a)?, part(pool.reserve_b)?);
    at_least(pool.a, amount_a, a_min)?;
    at_least(pool.b, amount_b, b_min)?;
    pool.reserve_a = pool.reserve_a.saturating_sub(amount_a);
    pool.reserve_b = pool.reserve_b.saturating_sub(amount_b);
    pool.lp = pool.lp.saturating_sub(lp);
    assets::out_of_pool(exec, &id, &sender, pool.a, amount_a)?;
    assets::out_of_pool(exec, &id, &sender, pool.b, amount_b)?;
    store(exec, &pool);
    exec.emit(Event::LiquidityRemoved { pool: id, account: sender, amount_a, amount_b, lp });
    Ok(())
}

/// [`althing_types::Call::Swap`]. (G-4)
pub(crate) fn swap(
    exec: &mut Exec<'_>,
    sender: Address,
    asset_in: AssetId,
    amount_in: Amount,
    asset_out: AssetId,
    out_min: Amount,
) -> Done {
    if asset_in == asset_out {
        return Err(LedgerError::SameAsset);
    }
    let mut pool = open(exec, PoolId::of(asset_in, asset_out))?;
    let id = pool.id;
    let (reserve_in, reserve_out) = reserves(&mut pool, asset_in);
    let amount_out = swap_gives(*reserve_in, *reserve_out, amount_in)?;
    at_least(asset_out, amount_out, out_min)?;
    *reserve_in = add(*reserve_in, amount_in)?;
    *reserve_out = reserve_out.saturating_sub(amount_out);
    assets::into_pool(exec, &sender, &id, asset_in, amount_in)?;
    assets::out_of_pool(exec, &id, &sender, asset_out, amount_out)?;
    store(exec, &pool);
    exec.emit(Event::Swapped { pool: id, trader: sender, asset_in, amount_in, asset_out, amount_out });
    Ok(())
}

// ---- the drip ----

/// The pools that have a weight.
fn weighted_pools(state: &dyn StateRead, drip: &Drip) -> BTreeMap<PoolId, MarketPool> {
    drip.pools.iter().filter_map(|id| pool(state, id).map(|pool| (*id, pool))).collect()
}

/// Releases the drip up to `now_ms` to the stakes, which did not change since it was last released;
/// what each pool got. (E-2)
fn release(
    drip: &mut Drip,
    pools: &mut BTreeMap<PoolId, MarketPool>,
    now_ms: u64,
    drip_ms: u64,
) -> Vec<(PoolId, Amount)> {
    let passed_ms = now_ms.saturating_sub(drip.updated_ms).min(drip_ms);
    drip.updated_ms = now_ms;
    let staked = || pools.values().filter(|pool| !pool.staked.is_zero());
    let weights: u128 = staked().map(|pool| u128::from(pool.drip_weight)).sum();
    let amount = drip.unreleased.mul_div_floor(passed_ms.into(), drip_ms.into()).unwrap_or_default();
    let mut released = Vec::new();
    for pool in pools.values_mut().filter(|pool| !pool.staked.is_zero()) {
        let part = amount.mul_div_floor(pool.drip_weight.into(), weights).unwrap_or_default();
        if part.is_zero() {
            continue;
        }
        pool.drip_per_lp = pool.drip_per_lp.add(part, pool.staked);
        drip.unreleased = drip.unreleased.saturating_sub(part);
        drip.owed = drip.owed.checked_add(part).expect("the drip is part of the supply, which fits");
        released.push((pool.id, part));
    }
    released
}

/// Releases the drip up to this block; to be done before stakes, weights or the drip change.
fn release_now(exec: &mut Exec<'_>) -> Drip {
    let mut drip = drip(&exec.state);
    let mut pools = weighted_pools(&exec.state, &drip);
    for (id, amount) in release(&mut drip, &mut pools, exec.now(), exec.params.liquidity_drip_ms) {
        let pool = pools.get(&id).expect("what is released goes to these pools");
        store(exec, pool);
        exec.emit(Event::DripReleased { pool: id, amount });
    }
    DRIP.set(&mut exec.state, &(), &drip);
    drip
}

/// Takes the liquidity part of a mint into the drip. (T-6)
pub(crate) fn fund(exec: &mut Exec<'_>, amount: Amount, from: Place) {
    if amount.is_zero() {
        return;
    }
    let mut drip = release_now(exec);
    drip.unreleased = drip.unreleased.checked_add(amount).expect("the drip is part of the supply, which fits");
    DRIP.set(&mut exec.state, &(), &drip);
    supply::shift(exec, from, Place::Drip, amount);
}

/// What a stake earned and can claim, as far as the drip is released.
pub(crate) fn owed(pool: &MarketPool, stake: &LpStake) -> Amount {
    let grown = pool.drip_per_lp.since(stake.drip_per_lp_paid, stake.lp);
    stake.owed.checked_add(grown).expect("the drip is part of the supply, which fits")
}

/// The pool and the caller's stake in it, both settled up to this block.
fn settled(exec: &mut Exec<'_>, sender: Address, id: PoolId) -> Done<(MarketPool, LpStake)> {
    release_now(exec);
    let pool = pool(&exec.state, &id).ok_or(LedgerError::UnknownPool(id))?;
    let fresh = || LpStake {
        staker: sender,
        pool: id,
        lp: Amount::ZERO,
        drip_per_lp_paid: pool.drip_per_lp,
        owed: Amount::ZERO,
    };
    let mut stake = stake_in(&exec.state, &sender, &id).unwrap_or_else(fresh);
    stake.owed = owed(&pool, &stake);
    stake.drip_per_lp_paid = pool.drip_per_lp;
    Ok((pool, stake))
}

fn store_stake(exec: &mut Exec<'_>, stake: &LpStake) {
    let key = (stake.staker, stake.pool);
    match stake.lp.is_zero() && stake.owed.is_zero() {
        true => STAKES.remove(&mut exec.state, &key),
        false => STAKES.set(&mut exec.state, &key, stake),
    }
}

/// [`althing_types::Call::LpStake`]. (E-2)
pub(crate) fn stake(exec: &mut Exec<'_>, sender: Address, id: PoolId, lp: Amount) -> Done {
    let (mut pool, mut stake) = settled(exec, sender, id)?;
    if lp.is_zero() {
        return Err(LedgerError::ZeroAmount);
    }
    assets::take(exec, &sender, AssetId::Lp(id), lp)?;
    stake.lp = add(stake.lp, lp)?;
    pool.staked = add(pool.staked, lp)?;
    store_stake(exec, &stake);
    store(exec, &pool);
    exec.emit(Event::LpStaked { pool: id, staker: sender, lp });
    Ok(())
}

/// [`althing_types::Call::LpUnstake`]: at once; what it earned stays to be claimed. (E-2)
pub(crate) fn unstake(exec: &mut Exec<'_>, sender: Address, id: PoolId, lp: Amount) -> Done {
    let (mut pool, mut stake) = settled(exec, sender, id)?;
    if lp.is_zero() {
        return Err(LedgerError::ZeroAmount);
    }
    stake.lp = stake.lp.checked_sub(lp).ok_or(LedgerError::StakeTooSmall { staked: stake.lp })?;
    pool.staked = pool.staked.saturating_sub(lp);
    assets::give(exec, &sender, AssetId::Lp(id), lp)?;
    store_stake(exec, &stake);
    store(exec, &pool);
    exec.emit(Event::LpUnstaked { pool: id, staker: sender, lp });
    Ok(())
}

/// [`althing_types::Call::DripClaim`]. (E-2, E-4)
pub(crate) fn claim(exec: &mut Exec<'_>, sender: Address, id: PoolId) -> Done {
    let (_, mut stake) = settled(exec, sender, id)?;
    let amount = std::mem::take(&mut stake.owed);
    if amount.is_zero() {
        return Err(LedgerError::NothingToClaim);
    }
    let mut drip = drip(&exec.state);
    drip.owed = drip.owed.checked_sub(amount).expect("stakes earn at most what was released");
    DRIP.set(&mut exec.state, &(), &drip);
    store_stake(exec, &stake);
    accounts::credit_earned(exec, &sender, Amount::ZERO, amount, Place::Drip);
    exec.emit(Event::DripPaid { pool: id, staker: sender, amount });
    Ok(())
}

/// [`althing_types::Call::PoolDripSet`]: only governance decides what liquidity is worth. (E-2)
pub(crate) fn set_drip(exec: &mut Exec<'_>, sender: Address, id: PoolId, weight: u32) -> Done {
    if sender != TREASURY {
        return Err(LedgerError::NotGovernor);
    }
    let mut drip = release_now(exec);
    let mut pool = pool(&exec.state, &id).ok_or(LedgerError::UnknownPool(id))?;
    drip.pools.retain(|other| *other != id);
    if weight > 0 {
        if drip.pools.len() >= DRIP_POOLS_MAX {
            return Err(LedgerError::TooManyDripPools { max: DRIP_POOLS_MAX as u32 });
        }
        drip.pools.push(id);
        drip.pools.sort_unstable();
    }
    pool.drip_weight = weight;
    store(exec, &pool);
    DRIP.set(&mut exec.state, &(), &drip);
    exec.emit(Event::PoolDripSet { pool: id, weight });
    Ok(())
}

/// Hook at the end of a block: releases the drip from time to time, to at most [`DRIP_POOLS_MAX`]
/// pools. (E-2)
pub(crate) fn drip_on(exec: &mut Exec<'_>) {
    let drip = drip(&exec.state);
    let step_ms = exec.params.liquidity_drip_ms / DRIP_STEPS;
    if drip.unreleased.is_zero() || drip.pools.is_empty() || exec.now().saturating_sub(drip.updated_ms) < step_ms {
        return;
    }
    release_now(exec);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// G-4: the root is the largest number whose square is not above the product.
        #[test]
        fn the_root_of_a_product_is_exact(a: u128, b: u128) {
            let root = U256::from(root_of_product(Amount(a), Amount(b)).0);
            let product = U256::from(a) * U256::from(b);
            prop_assert!(root * root <= product);
            prop_assert!((root + U256::from(1)).checked_mul(root + U256::from(1)).is_none_or(|square| square > product));
        }
        /// G-4: the product of the reserves never falls, however large they are.
        #[test]
        fn the_product_never_falls(reserve_in in 1u128.., reserve_out in 1u128.., amount_in in 1u128..) {
            let out = swap_gives(Amount(reserve_in), Amount(reserve_out), Amount(amount_in));
            let out = out.unwrap_or_default().0;
            prop_assert!(out < reserve_out);
            let before = Wide::from(reserve_in) * Wide::from(reserve_out);
            let after = (Wide::from(reserve_in) + Wide::from(amount_in)) * Wide::from(reserve_out - out);
            prop_assert!(after >= before);
        }
    }
}
