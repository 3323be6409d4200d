//! What transactions and stored objects cost. (L-1)
//!
//! Terms: a **base fee** pays for what a transaction makes every node do, by its bytes and by the
//! **operation units** of its call; it goes to the coordinators, whether the call succeeds or not.
//! A **deposit** stands behind each stored object that a call makes, and comes back to who left it
//! when the object leaves the state. So whoever floods the network with orders without a fee,
//! commitments or signals pays for the flood, and a block does bounded work.

use crate::{
    accounts,
    exec::{Done, Exec},
    orders,
    state::StateRead,
    supply::{COORDINATORS, Place, TREASURY},
};
use althing_types::{Address, Amount, Call, Event, LedgerError, Params, SignedTx};

/// The base fee of a transaction. (L-1)
pub fn base_fee(params: &Params, tx: &SignedTx) -> Amount {
    tx.base_fee(params)
}

/// What a transaction owes now: a drawn coordinator's word on an input is free, since it is a duty, and it
/// can be given once. (T-21)
pub(crate) fn base_fee_due(state: &dyn StateRead, params: &Params, tx: &SignedTx) -> Amount {
    if let Call::InputConfirm { order } = &tx.call
        && orders::order(state, order).is_some_and(|order| order.availability.waits_for(&tx.sender()))
    {
        return Amount::ZERO;
    }
    base_fee(params, tx)
}

/// Takes the base fee of a transaction that may run; kept even if its call fails.
pub(crate) fn charge(exec: &mut Exec<'_>, payer: &Address, fee: Amount) -> Done {
    if fee.is_zero() {
        return Ok(());
    }
    accounts::debit(exec, payer, fee, Place::Coordinators)?;
    accounts::credit(exec, &COORDINATORS, fee, Place::Coordinators);
    exec.emit(Event::BaseFeePaid { account: *payer, amount: fee });
    Ok(())
}

/// Takes the deposit for an object that `payer` has stored; the object keeps the amount, which is
/// what comes back, whatever the parameter is by then. The governor leaves none.
pub(crate) fn deposit(exec: &mut Exec<'_>, payer: &Address) -> Done<Amount> {
    let amount = exec.params.deposit_object;
    if amount.is_zero() || *payer == TREASURY {
        return Ok(Amount::ZERO);
    }
    accounts::debit(exec, payer, amount, Place::Deposits).map_err(|error| match error {
        LedgerError::InsufficientBalance { free, .. } => LedgerError::DepositUnpayable { deposit: amount, free },
        error => error,
    })?;
    exec.emit(Event::DepositTaken { account: *payer, amount });
    Ok(amount)
}

/// Gives a deposit back: its object leaves the state.
pub(crate) fn give_back(exec: &mut Exec<'_>, to: &Address, deposit: Amount) {
    if deposit.is_zero() {
        return;
    }
    accounts::credit(exec, to, deposit, Place::Deposits);
    exec.emit(Event::DepositReturned { account: *to, amount: deposit });
}
