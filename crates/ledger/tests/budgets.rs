//! Budgets that the root of a chain of orders sets aside. (T-15)

#![allow(clippy::unwrap_used)] // helpers of tests

mod support;

use althing_ledger::query;
use althing_types::{
    Address, Amount, Budget, Call, Event, LedgerError as E, OrderId, OrderState, Params, RefundReason,
    SessionPublicKey,
    call::{OrderBudget, OrderSubmit, Scope},
};
use support::*;

fn budget_of(net: &Net, amount: &str) -> Option<OrderBudget> {
    Some(OrderBudget { amount: alth(amount), until_ms: net.block.time_ms + 300_000 })
}

/// A root of 4 tokens with a budget.
fn root(net: &mut Net, amount: &str) -> OrderId {
    let submit = OrderSubmit { budget: budget_of(net, amount), ..net.submit("4") };
    net.order(submit)
}

fn below(net: &Net, parent: OrderId, fee: &str) -> Call {
    Call::OrderSubmit(OrderSubmit { parent: Some(parent), ..net.submit(fee) })
}

fn place_by(net: &mut Net, by: Address, call: Call) -> OrderId {
    let receipt = net.block_after(100, vec![(by, call)]).receipts.remove(0);
    assert_eq!(receipt.error, None);
    receipt.order.unwrap()
}

fn budget(net: &Net) -> Budget {
    query::budgets_of(&net.state, &CLIENT, 10).remove(0)
}

/// T-15: the orders below a root are paid out of its budget and never beyond it; the rest comes back.
#[test]
fn a_chain_is_paid_out_of_its_roots_budget() {
    let mut net = Net::new(1);
    let first = root(&mut net, "10");
    assert_eq!(net.free(CLIENT), alth("986"), "fee and budget are escrowed");
    let call = below(&net, first, "4");
    let second = place_by(&mut net, CLIENT, call);
    assert_eq!((net.free(CLIENT), budget(&net).left, budget(&net).spent), (alth("986"), alth("6"), alth("4")));
    assert!(net.events.contains(&Event::BudgetDrawn { order: second, root: first, amount: alth("4") }));
    let too_much = below(&net, second, "7");
    let exceeded = E::BudgetExceeded { needed: alth("7"), left: alth("6") };
    assert_eq!(net.call(CLIENT, too_much), Err(exceeded));
    let call = below(&net, second, "6");
    let third = place_by(&mut net, CLIENT, call);
    let (order, left) = (net.get(&third), budget(&net).left);
    assert_eq!((order.root, order.depth, order.budgeted, left), (first, 2, true, Amount::ZERO), "to the last unit");
    net.solve(first, provider(1), "a");
    net.wait(8_000);
    assert_eq!(net.get(&first).state, OrderState::Claimed, "a root ends, its budget stays");
    let cancel_ms = net.state_params().cancel_after_ms;
    net.wait(cancel_ms);
    net.ok(vec![(CLIENT, Call::OrderCancel { order: third })]);
    assert_eq!((net.free(CLIENT), budget(&net).left, budget(&net).spent), (alth("986"), alth("6"), alth("4")));
    net.ok(vec![(CLIENT, Call::BudgetClose { order: first })]);
    assert_eq!(net.free(CLIENT), alth("992"));
    assert!(net.events.contains(&Event::BudgetClosed { order: first, client: CLIENT, left: alth("6") }));
    assert!(query::budgets_of(&net.state, &CLIENT, 10).is_empty());
}

/// T-15: what a budget cannot be.
#[test]
fn a_budget_must_make_sense() {
    let mut net = Net::new(1);
    let first = root(&mut net, "10");
    let now = net.block.time_ms + 100;
    let (min_ms, max_ms) = (now + 60_000, now + net.state_params().deadline_max_ms);
    let with = |amount: &str, until_ms, parent| {
        let budget = Some(OrderBudget { amount: alth(amount), until_ms });
        Call::OrderSubmit(OrderSubmit { budget, parent, deadline_ms: min_ms, ..net.submit("4") })
    };
    let range = E::BudgetTimeOutOfRange { min_ms, max_ms };
    let short = E::InsufficientBalance { needed: alth("983"), free: alth("982") };
    let rows = [
        (CLIENT, with("1", min_ms, Some(first)), Err(E::BudgetNotAtRoot)),
        (CLIENT, with("0", min_ms, None), Err(E::ZeroAmount)),
        (CLIENT, with("1", min_ms - 1, None), Err(range.clone())),
        (CLIENT, with("1", max_ms + 1, None), Err(range)),
        (CLIENT, with("983", min_ms, None), Err(short)),
        (CLIENT, with("982", max_ms, None), Ok(())),
        (provider(1), Call::BudgetClose { order: first }, Err(E::NoBudget)),
        (CLIENT, Call::BudgetClose { order: OrderId::ZERO }, Err(E::NoBudget)),
    ];
    for (row, (by, call, expected)) in rows.into_iter().enumerate() {
        assert_eq!(net.clone().call(by, call), expected, "row {row}");
    }
    net.ok(vec![(CLIENT, Call::BudgetClose { order: first })]);
    assert_eq!(net.call(CLIENT, Call::BudgetClose { order: first }), Err(E::NoBudget), "twice");
}

/// T-15: only who set a budget aside draws from it; others go on with the chain at their own cost.
#[test]
fn others_pay_for_their_orders_below_a_budget() {
    let mut net = Net::new(1);
    let first = root(&mut net, "10");
    let call = below(&net, first, "4");
    let other = place_by(&mut net, provider(1), call);
    assert_eq!((net.free(provider(1)), budget(&net).left), (alth("96"), alth("10")));
    assert!(!net.get(&other).budgeted);
    let call = below(&net, other, "4");
    let own = place_by(&mut net, CLIENT, call);
    assert!(net.get(&own).budgeted, "the chain is the same, whoever made the order between");
    assert_eq!(budget(&net).left, alth("6"));
}

/// T-15, T-17: a budget closes by itself at its time; then orders of its chain are paid as others are,
/// and fees come back to the client.
#[test]
fn a_budget_closes_by_itself() {
    let params = Params { due_items_max: 1_000, ..params() };
    let mut net = Net::with(1, "1000", params);
    let until_ms = net.block.time_ms + 70_000;
    let submit = OrderSubmit { budget: Some(OrderBudget { amount: alth("10"), until_ms }), ..net.submit("4") };
    let first = net.order(submit);
    net.wait(until_ms - 100 - net.block.time_ms);
    let call = below(&net, first, "4");
    // In the block of its last moment it pays no more.
    let last = place_by(&mut net, CLIENT, call);
    assert!(!net.get(&last).budgeted);
    assert!(query::budgets_of(&net.state, &CLIENT, 10).is_empty());
    assert_eq!(net.free(CLIENT), alth("996"), "the root was refunded, its budget is back");
    let late = &mut Net::with(1, "1000", net.state_params());
    let submit = OrderSubmit {
        budget: Some(OrderBudget { amount: alth("10"), until_ms: late.block.time_ms + 60_300 }),
        ..late.submit("4")
    };
    let first = late.order(submit);
    let call = below(late, first, "4");
    let second = place_by(late, CLIENT, call);
    assert!(late.get(&second).budgeted);
    late.ok(vec![(CLIENT, Call::BudgetClose { order: first })]);
    late.wait(61_000);
    let expired = OrderState::Refunded { reason: RefundReason::Expired };
    assert_eq!(late.get(&second).state, expired);
    assert_eq!(late.free(CLIENT), alth("1000"), "the fee of a budget that is closed comes back to its client");
}

/// T-15: a session key's limit bounds what leaves the balance: the budget once, not what it pays for.
#[test]
fn a_session_key_spends_its_limit_on_a_budget_once() {
    let mut net = Net::new(1);
    let key = SessionPublicKey([7; 32]);
    let add = Call::SessionKeyAdd { key, scope: Scope::Client, spend_limit: alth("14"), expires_at_ms: u64::MAX };
    net.ok(vec![(CLIENT, add)]);
    let mut nonce = query::session_key(&net.state, &CLIENT, &key).unwrap().nonce;
    let mut run = |net: &mut Net, call| {
        let receipt = net.by_session(CLIENT, key, nonce, call);
        nonce += 1;
        (receipt.error, receipt.order)
    };
    let root = |net: &Net, amount| Call::OrderSubmit(OrderSubmit { budget: budget_of(net, amount), ..net.submit("4") });
    let (more, fits) = (root(&net, "10.1"), root(&net, "10"));
    let limit = E::SpendLimit { needed: alth("14.1"), left: alth("14") };
    assert_eq!(run(&mut net, more), (Some(limit), None));
    let (error, first) = run(&mut net, fits);
    assert_eq!(error, None);
    let call = below(&net, first.unwrap(), "4");
    assert_eq!(run(&mut net, call).0, None, "the budget pays");
    let own = Call::OrderSubmit(net.submit("1"));
    assert_eq!(run(&mut net, own).0, Some(E::SpendLimit { needed: alth("1"), left: Amount::ZERO }));
    assert_eq!(run(&mut net, Call::BudgetClose { order: first.unwrap() }).0, None, "a client's key may close it");
}

/// L-1, E-4: a budget has a deposit, which comes back with it, and its client sees both.
#[test]
fn a_budgets_deposit_comes_back_with_it() {
    let params = Params { deposit_object: alth("0.5"), ..params() };
    let mut net = Net::with(1, "1000", params);
    let before = net.free(CLIENT);
    let first = root(&mut net, "10");
    assert_eq!(net.free(CLIENT).0, before.0 - alth("15").0, "fee, budget, and a deposit for each of two objects");
    let view = query::account_view(&net.state, &CLIENT);
    assert_eq!((view.budgets.len(), view.deposits.budgets, view.total()), (1, alth("0.5"), before));
    net.ok(vec![(CLIENT, Call::BudgetClose { order: first })]);
    assert_eq!(net.free(CLIENT).0, before.0 - alth("4.5").0);
}
