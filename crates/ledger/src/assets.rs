//! Balances of the assets beside the native token. (G-4)
//!
//! Native balances are in [`crate::accounts`]; shares of model DAOs, which earn and vote, in
//! [`crate::shares`]; everything else is a plain balance here. The functions here move any of them,
//! so that nobody else has to tell them apart.

use crate::{
    accounts,
    exec::{Done, Exec, add},
    liquidity, shares,
    state::{Map, StateRead},
    supply::Place,
};
use althing_types::{Address, Amount, AssetId, Event, Holding, LedgerError, PoolId};
use std::collections::BTreeMap;

/// Liquidity shares that are not staked, and test assets.
const BALANCES: Map<(Address, AssetId), Amount> = Map::new(0x70);
/// How much there is of each test asset.
const TEST_TOTALS: Map<AssetId, Amount> = Map::new(0x71);

// ---- queries ----

/// What an account can spend of an asset.
pub fn balance(state: &dyn StateRead, holder: &Address, asset: AssetId) -> Amount {
    match asset {
        AssetId::Native => accounts::account(state, holder).free,
        AssetId::Shares(model) => {
            shares::holder(state, &model, holder).map_or(Amount::ZERO, |holder| Amount(holder.free().into()))
        }
        AssetId::Lp(_) | AssetId::Test(_) => BALANCES.get(state, &(*holder, asset)).unwrap_or_default(),
    }
}

/// How much there is of an asset.
pub fn total(state: &dyn StateRead, asset: AssetId) -> Amount {
    match asset {
        AssetId::Native => crate::supply::totals(state).issued,
        AssetId::Shares(model) => shares::dao(state, &model).map_or(Amount::ZERO, |dao| Amount(dao.shares.into())),
        AssetId::Lp(pool) => liquidity::pool(state, &pool).map_or(Amount::ZERO, |pool| pool.lp),
        AssetId::Test(_) => TEST_TOTALS.get(state, &asset).unwrap_or_default(),
    }
}

/// What an account has beside the native token, in the order of assets; of each kind at most
/// `limit`. (E-4)
pub fn holdings(state: &dyn StateRead, account: &Address, limit: usize) -> Vec<Holding> {
    let mut found: BTreeMap<AssetId, (Amount, Amount)> = BTreeMap::new();
    let (from, to) = ((*account, AssetId::Native), (*account, AssetId::Test(u32::MAX)));
    for ((_, asset), amount) in BALANCES.range(state, &from, &to, limit) {
        found.entry(asset).or_default().0 = amount;
    }
    for holder in shares::held_by(state, account, limit) {
        let (free, all) = (Amount(holder.free().into()), Amount(holder.shares.into()));
        found.insert(AssetId::Shares(holder.model), (free, all.saturating_sub(free)));
    }
    for stake in liquidity::stakes_of(state, account, limit) {
        found.entry(AssetId::Lp(stake.pool)).or_default().1 = stake.lp;
    }
    let holdings = found.into_iter().map(|(asset, (free, locked))| Holding { asset, free, locked });
    holdings.filter(|holding| !holding.free.is_zero() || !holding.locked.is_zero()).collect()
}

/// Every plain balance, for invariants.
pub(crate) fn balances(state: &dyn StateRead) -> Vec<(AssetId, Amount)> {
    BALANCES.first(state, usize::MAX).into_iter().map(|((_, asset), amount)| (asset, amount)).collect()
}

/// Every test asset and how much there is of it, for invariants.
pub(crate) fn test_totals(state: &dyn StateRead) -> Vec<(AssetId, Amount)> {
    TEST_TOTALS.first(state, usize::MAX)
}

// ---- movements ----

/// Adds to a plain balance.
pub(crate) fn give(exec: &mut Exec<'_>, to: &Address, asset: AssetId, amount: Amount) -> Done {
    if amount.is_zero() {
        return Ok(());
    }
    let balance = add(balance(&exec.state, to, asset), amount)?;
    BALANCES.set(&mut exec.state, &(*to, asset), &balance);
    Ok(())
}

/// Takes from a plain balance.
pub(crate) fn take(exec: &mut Exec<'_>, from: &Address, asset: AssetId, amount: Amount) -> Done {
    let free = balance(&exec.state, from, asset);
    let Some(left) = free.checked_sub(amount) else {
        return Err(LedgerError::InsufficientAsset { asset, needed: amount, free });
    };
    match left.is_zero() {
        true => BALANCES.remove(&mut exec.state, &(*from, asset)),
        false => BALANCES.set(&mut exec.state, &(*from, asset), &left),
    }
    Ok(())
}

/// Moves an asset from an account into a pool, which counts its reserves itself.
pub(crate) fn into_pool(exec: &mut Exec<'_>, from: &Address, pool: &PoolId, asset: AssetId, amount: Amount) -> Done {
    match asset {
        AssetId::Native => accounts::debit(exec, from, amount, Place::Pools),
        AssetId::Shares(model) => shares::transfer(exec, model, from, &pool.account(), amount),
        AssetId::Lp(_) | AssetId::Test(_) => take(exec, from, asset, amount),
    }
}

/// Moves an asset from a pool to an account.
pub(crate) fn out_of_pool(exec: &mut Exec<'_>, pool: &PoolId, to: &Address, asset: AssetId, amount: Amount) -> Done {
    match asset {
        AssetId::Native => {
            accounts::credit(exec, to, amount, Place::Pools);
            Ok(())
        }
        AssetId::Shares(model) => shares::transfer(exec, model, &pool.account(), to, amount),
        AssetId::Lp(_) | AssetId::Test(_) => give(exec, to, asset, amount),
    }
}

// ---- calls ----

/// [`althing_types::Call::AssetTransfer`].
pub(crate) fn transfer(exec: &mut Exec<'_>, from: Address, asset: AssetId, to: Address, amount: Amount) -> Done {
    if amount.is_zero() {
        return Err(LedgerError::ZeroAmount);
    }
    match asset {
        AssetId::Native => return accounts::transfer(exec, from, to, amount),
        AssetId::Shares(model) => shares::transfer(exec, model, &from, &to, amount)?,
        AssetId::Lp(_) | AssetId::Test(_) => {
            take(exec, &from, asset, amount)?;
            give(exec, &to, asset, amount)?;
        }
    }
    exec.emit(Event::AssetTransferred { asset, from, to, amount });
    Ok(())
}

// ---- genesis ----

/// Creates so much of a test asset.
pub(crate) fn endow(exec: &mut Exec<'_>, to: &Address, asset: AssetId, amount: Amount) -> Done {
    let total = add(total(&exec.state, asset), amount)?;
    give(exec, to, asset, amount)?;
    TEST_TOTALS.set(&mut exec.state, &asset, &total);
    Ok(())
}
