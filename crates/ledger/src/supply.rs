//! Where all units are, and their conservation. (E-3)
//!
//! Every unit is in exactly one place: free on an account, bonded, delegated, unbonding, escrowed in
//! an order, owed to delegators and shareholders, in a pool or the drip, in the treasury … Money moves
//! only through the functions here and in the modules that keep such objects ([`crate::accounts`],
//! [`crate::staking`], [`crate::shares`], [`crate::liquidity`]), each of which changes one object and
//! the running total of its place; a block whose totals do not add up to the issued supply is a bug and halts
//! the node.

use crate::{
    exec::{Done, Exec, add},
    state::{Map, StateRead},
};
use althing_types::{Address, Amount, api::Supply};

/// The totals, under one key.
const TOTALS: Map<(), Supply> = Map::new(0x10);

/// The treasury's account, which is the governor's: no key can own it, only proposals act for it.
pub const TREASURY: Address = Address(*b"althing/treasury/pol");
/// The account of the coordinators' pool; no key can own it.
pub const COORDINATORS: Address = Address(*b"althing/coordinators");

/// A place where units are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Free,
    Bonded,
    Delegated,
    Unbonding,
    Escrowed,
    Owed,
    Deposits,
    Drip,
    Pools,
    Treasury,
    Coordinators,
}

impl Place {
    /// Where the balance of an account is.
    pub(crate) fn of(address: &Address) -> Self {
        match *address {
            TREASURY => Self::Treasury,
            COORDINATORS => Self::Coordinators,
            _ => Self::Free,
        }
    }
}

fn at(totals: &mut Supply, place: Place) -> &mut Amount {
    match place {
        Place::Free => &mut totals.free,
        Place::Bonded => &mut totals.bonded,
        Place::Delegated => &mut totals.delegated,
        Place::Unbonding => &mut totals.unbonding,
        Place::Escrowed => &mut totals.escrowed,
        Place::Owed => &mut totals.owed,
        Place::Deposits => &mut totals.deposits,
        Place::Drip => &mut totals.drip,
        Place::Pools => &mut totals.pools,
        Place::Treasury => &mut totals.treasury,
        Place::Coordinators => &mut totals.coordinators,
    }
}

/// Whether all places together hold what was issued. (E-3)
pub(crate) fn conserved(totals: &Supply) -> bool {
    totals.places().into_iter().try_fold(Amount::ZERO, |sum, (_, amount)| sum.checked_add(amount))
        == Some(totals.issued)
}

/// Where all units are.
pub fn totals(state: &dyn StateRead) -> Supply {
    TOTALS.get(state, &()).unwrap_or_default()
}

/// Records that `amount` moved from one place to another. The objects themselves are changed by
/// the caller in the same step.
pub(crate) fn shift(exec: &mut Exec<'_>, from: Place, to: Place, amount: Amount) {
    if amount.is_zero() || from == to {
        return;
    }
    let mut totals = totals(&exec.state);
    let left = at(&mut totals, from).checked_sub(amount).expect("a place holds at least what its objects hold");
    *at(&mut totals, from) = left;
    let grown =
        at(&mut totals, to).checked_add(amount).expect("no place holds more than the issued supply, which fits");
    *at(&mut totals, to) = grown;
    TOTALS.set(&mut exec.state, &(), &totals);
}

/// Creates units at a place: genesis, and the curve (T-6).
pub(crate) fn issue(exec: &mut Exec<'_>, to: Place, amount: Amount) -> Done {
    let mut totals = totals(&exec.state);
    totals.issued = add(totals.issued, amount)?;
    let grown = add(*at(&mut totals, to), amount)?;
    *at(&mut totals, to) = grown;
    TOTALS.set(&mut exec.state, &(), &totals);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// E-3: what is issued and what is held are compared, in both directions.
    #[test]
    fn a_unit_too_many_or_too_few_is_noticed() {
        let one = Amount(1);
        assert!(conserved(&Supply { issued: one, drip: one, ..Supply::default() }));
        assert!(!conserved(&Supply { issued: one, ..Supply::default() }));
        assert!(!conserved(&Supply { drip: one, ..Supply::default() }));
        assert!(!conserved(&Supply { free: Amount::MAX, drip: one, ..Supply::default() }), "no overflow hides one");
    }
}
