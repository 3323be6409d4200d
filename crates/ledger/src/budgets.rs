//! Budgets: what an order at the root of a chain sets aside for the orders that follow from it. (T-15)
//!
//! A program, a workflow or a contract orders step after step on somebody's money. Its budget leaves the
//! client's balance with the first order; the client's orders below it are paid out of it and never beyond
//! it, refunds go back to it, and what is left comes back when the client closes it, or by itself at a
//! stated time. Base fees and deposits are the sender's, as always.

use crate::{
    accounts, costs, due,
    exec::{Done, Exec},
    orders,
    state::{Map, StateRead},
    supply::Place,
};
use althing_types::{
    Address, Amount, Budget, Event, LedgerError, Order, OrderId,
    call::{OrderBudget, OrderSubmit},
};

/// Open budgets, by client and root.
const BUDGETS: Map<(Address, OrderId), Budget> = Map::new(0x29);

// ---- queries ----

/// The open budget of an account's order at the root of a chain. (T-15)
pub fn budget(state: &dyn StateRead, client: &Address, root: &OrderId) -> Option<Budget> {
    BUDGETS.get(state, &(*client, *root))
}

/// The open budgets of an account. (E-4)
pub fn budgets_of(state: &dyn StateRead, client: &Address, limit: usize) -> Vec<Budget> {
    let (from, to) = ((*client, OrderId([0; 32])), (*client, OrderId([0xff; 32])));
    BUDGETS.range(state, &from, &to, limit).into_iter().map(|(_, budget)| budget).collect()
}

/// Every open budget, for invariants.
pub(crate) fn all(state: &dyn StateRead) -> Vec<Budget> {
    BUDGETS.first(state, usize::MAX).into_iter().map(|(_, budget)| budget).collect()
}

/// The root of the chain that an order with this parent belongs to.
fn root_of(state: &dyn StateRead, parent: &OrderId) -> Option<OrderId> {
    orders::order(state, parent).map(|order| order.root)
}

/// The open budget that pays for an order of `client`, if one does. One whose time is over pays nothing,
/// even while the queue that closes it lags.
fn budget_for(exec: &Exec<'_>, client: &Address, root: &OrderId) -> Option<Budget> {
    budget(&exec.state, client, root).filter(|budget| exec.now() < budget.until_ms)
}

/// What submitting an order takes out of the client's own balance: its fee and the budget that it sets
/// aside, or nothing if a budget pays.
pub(crate) fn taken_from_balance(exec: &Exec<'_>, client: &Address, submit: &OrderSubmit) -> Amount {
    let aside = submit.budget.map_or(Amount::ZERO, |budget| budget.amount);
    let root = submit.parent.and_then(|parent| root_of(&exec.state, &parent));
    match root.and_then(|root| budget_for(exec, client, &root)) {
        Some(_) => Amount::ZERO,
        None => submit.fee.checked_add(aside).unwrap_or(Amount::MAX),
    }
}

// ---- the life of a budget ----

/// Escrows the fee of a new order, out of the budget of its root if there is one; returns whether. (T-15)
pub(crate) fn escrow_fee(exec: &mut Exec<'_>, order: &Order) -> Done<bool> {
    let Some(mut budget) = budget_for(exec, &order.client, &order.root) else {
        accounts::debit(exec, &order.client, order.fee, Place::Escrowed)?;
        return Ok(false);
    };
    let (needed, left) = (order.fee, budget.left);
    budget.left = left.checked_sub(needed).ok_or(LedgerError::BudgetExceeded { needed, left })?;
    budget.spent = budget.spent.checked_add(needed).ok_or(LedgerError::Overflow)?;
    store(exec, &budget);
    exec.emit(Event::BudgetDrawn { order: order.id, root: order.root, amount: needed });
    Ok(true)
}

/// Checks what an order asks to be set aside.
pub(crate) fn check(exec: &Exec<'_>, submit: &OrderSubmit) -> Done {
    let Some(OrderBudget { amount, until_ms }) = submit.budget else { return Ok(()) };
    if submit.parent.is_some() {
        return Err(LedgerError::BudgetNotAtRoot);
    }
    if amount.is_zero() {
        return Err(LedgerError::ZeroAmount);
    }
    let (min_ms, max_ms) = (submit.deadline_ms, exec.now() + exec.params.deadline_max_ms);
    if until_ms < min_ms || until_ms > max_ms {
        return Err(LedgerError::BudgetTimeOutOfRange { min_ms, max_ms });
    }
    Ok(())
}

/// Sets the budget of a new root aside.
pub(crate) fn open(exec: &mut Exec<'_>, order: &Order, budget: OrderBudget) -> Done {
    let OrderBudget { amount, until_ms } = budget;
    let client = order.client;
    accounts::debit(exec, &client, amount, Place::Escrowed)?;
    let deposit = costs::deposit(exec, &client)?;
    store(exec, &Budget { order: order.id, client, left: amount, spent: Amount::ZERO, until_ms, deposit });
    due::BUDGET.set(&mut exec.state, &(until_ms, (order.id, client)), &());
    exec.emit(Event::BudgetOpened { order: order.id, client, amount });
    Ok(())
}

/// The fee of an order comes back: into its root's budget if that paid and is still open. Returns whether.
pub(crate) fn refill(exec: &mut Exec<'_>, order: &Order) -> bool {
    let found = budget(&exec.state, &order.client, &order.root).filter(|_| order.budgeted);
    let Some(mut budget) = found else { return false };
    budget.left = budget.left.checked_add(order.fee).expect("what a budget held before fits");
    budget.spent = budget.spent.saturating_sub(order.fee);
    store(exec, &budget);
    exec.emit(Event::BudgetRefilled { order: order.id, root: order.root, amount: order.fee });
    true
}

/// [`althing_types::Call::BudgetClose`]. (T-15)
pub(crate) fn close(exec: &mut Exec<'_>, sender: Address, root: OrderId) -> Done {
    let budget = budget(&exec.state, &sender, &root).ok_or(LedgerError::NoBudget)?;
    due::BUDGET.remove(&mut exec.state, &(budget.until_ms, (root, sender)));
    give_back(exec, &budget);
    Ok(())
}

/// Due: the budget's time is over. (T-15, T-17)
pub(crate) fn expire(exec: &mut Exec<'_>, root: OrderId, client: Address) {
    if let Some(budget) = budget(&exec.state, &client, &root) {
        give_back(exec, &budget);
    }
}

fn give_back(exec: &mut Exec<'_>, budget: &Budget) {
    let Budget { order, client, left, deposit, .. } = *budget;
    BUDGETS.remove(&mut exec.state, &(client, order));
    accounts::credit(exec, &client, left, Place::Escrowed);
    costs::give_back(exec, &client, deposit);
    exec.emit(Event::BudgetClosed { order, client, left });
}

fn store(exec: &mut Exec<'_>, budget: &Budget) {
    BUDGETS.set(&mut exec.state, &(budget.client, budget.order), budget);
}
