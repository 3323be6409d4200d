//! Where all units are, and their conservation. (E-3)
//!
//! Every unit is in exactly one place: free on an account, bonded, unbonding, escrowed in an order,
//! in the treasury or in the coordinators' pool. Money moves only through the functions here and in
//! [`crate::accounts`], each of which changes one object and the running total of its place; a
//! block whose totals do not add up to the issued supply is a bug and halts the node.

use crate::{
    exec::Exec,
    state::{Map, StateRead},
};
use althing_types::{Amount, Event, OrderId, api::Supply, event::PaymentKind};

/// The totals, under one key.
const TOTALS: Map<(), Totals> = Map::new(0x10);

/// Running totals of all places.
#[derive(Clone, Debug, Default, PartialEq, Eq, borsh::BorshSerialize, borsh::BorshDeserialize)]
pub(crate) struct Totals {
    pub(crate) issued: Amount,
    pub(crate) free: Amount,
    pub(crate) bonded: Amount,
    pub(crate) unbonding: Amount,
    pub(crate) escrowed: Amount,
    pub(crate) treasury: Amount,
    pub(crate) coordinators: Amount,
}

/// A place where units are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Free,
    Bonded,
    Unbonding,
    Escrowed,
    Treasury,
    Coordinators,
}

impl Totals {
    fn at(&mut self, place: Place) -> &mut Amount {
        match place {
            Place::Free => &mut self.free,
            Place::Bonded => &mut self.bonded,
            Place::Unbonding => &mut self.unbonding,
            Place::Escrowed => &mut self.escrowed,
            Place::Treasury => &mut self.treasury,
            Place::Coordinators => &mut self.coordinators,
        }
    }
    /// Whether all places together hold what was issued. (E-3)
    pub(crate) fn conserved(&self) -> bool {
        [self.free, self.bonded, self.unbonding, self.escrowed, self.treasury, self.coordinators]
            .into_iter()
            .try_fold(Amount::ZERO, Amount::checked_add)
            == Some(self.issued)
    }
}

/// The totals as stored.
pub(crate) fn totals(state: &dyn StateRead) -> Totals {
    TOTALS.get(state, &()).unwrap_or_default()
}

/// Records that `amount` moved from one place to another. The objects themselves are changed by
/// the caller in the same step.
pub(crate) fn shift(exec: &mut Exec<'_>, from: Place, to: Place, amount: Amount) {
    if amount.is_zero() || from == to {
        return;
    }
    let mut totals = totals(&exec.state);
    let left = totals.at(from).checked_sub(amount).expect("a place holds at least the units that its objects hold");
    *totals.at(from) = left;
    let grown = totals.at(to).checked_add(amount).expect("no place holds more than the issued supply, which fits");
    *totals.at(to) = grown;
    TOTALS.set(&mut exec.state, &(), &totals);
}

/// Creates units at a place; genesis only until issuers exist (T-6).
pub(crate) fn issue(exec: &mut Exec<'_>, to: Place, amount: Amount) -> crate::exec::Done {
    let mut totals = totals(&exec.state);
    totals.issued = crate::exec::add(totals.issued, amount)?;
    let grown = crate::exec::add(*totals.at(to), amount)?;
    *totals.at(to) = grown;
    TOTALS.set(&mut exec.state, &(), &totals);
    Ok(())
}

/// Moves escrowed units of `order` into the treasury. (T-5)
pub(crate) fn pay_treasury(exec: &mut Exec<'_>, from: Place, amount: Amount, order: OrderId, kind: PaymentKind) {
    if amount.is_zero() {
        return;
    }
    shift(exec, from, Place::Treasury, amount);
    exec.emit(Event::Paid { to: TREASURY, amount, kind, order });
}

/// Moves escrowed units of `order` into the coordinators' pool. (T-5)
pub(crate) fn pay_coordinators(exec: &mut Exec<'_>, amount: Amount, order: OrderId) {
    if amount.is_zero() {
        return;
    }
    shift(exec, Place::Escrowed, Place::Coordinators, amount);
    exec.emit(Event::Paid { to: COORDINATORS, amount, kind: PaymentKind::CoordinatorFee, order });
}

/// The address that stands for the treasury in events; no key can own it.
pub const TREASURY: althing_types::Address = althing_types::Address(*b"althing/treasury/pol");
/// The address that stands for the coordinators' pool in events; no key can own it.
pub const COORDINATORS: althing_types::Address = althing_types::Address(*b"althing/coordinators");

/// Where all units are.
pub fn supply(state: &dyn StateRead) -> Supply {
    let t = totals(state);
    Supply {
        issued: t.issued,
        free: t.free,
        bonded: t.bonded,
        unbonding: t.unbonding,
        escrowed: t.escrowed,
        treasury: t.treasury,
        coordinators: t.coordinators,
    }
}
