//! Base fees, deposits, bounded blocks. (L-1, L-2)

#![allow(clippy::unwrap_used)] // helpers of tests

mod support;

use althing_ledger::{base_fee, check_for_mempool, execute_block, query};
use althing_types::{
    Address, Amount, Auth, Call, Event, LedgerError as E, OrderState, Params, SessionPublicKey, SignedTx, call::Scope,
};
use support::*;

fn params_with_costs() -> Params {
    let default = params();
    Params {
        base_fee_byte: Amount(1_000),
        base_fee_unit: Amount(1_000_000),
        deposit_object: alth("0.5"),
        order_retention_ms: 10_000,
        ..default
    }
}

fn net() -> Net {
    Net::with(3, "1000", params_with_costs())
}

fn send(amount: Amount) -> Call {
    Call::Transfer { to: OWNER, amount }
}

/// L-1: the fee is by bytes and units, and is paid whether the call succeeds or not.
#[test]
fn every_transaction_pays_for_its_bytes_and_units() {
    let mut net = net();
    let tx = net.tx(CLIENT, send(alth("1")));
    let fee = base_fee(&query::params(&net.state), &tx);
    let bytes = althing_types::encode(&tx).len() as u128;
    assert_eq!(fee, Amount(bytes * 1_000 + 2 * 1_000_000));
    let before = query::supply(&net.state).coordinators;
    net.block.height += 1;
    net.block.time_ms += 100;
    let failing = net.tx(CLIENT, send(alth("5000")));
    let output = execute_block(&net.state, &net.block, &[tx, failing]);
    let errors: Vec<_> = output.receipts.iter().map(|receipt| receipt.error.is_some()).collect();
    assert_eq!(errors, [false, true]);
    assert!(output.receipts.iter().all(|receipt| receipt.fee == fee), "both have the same size");
    let told = output.events.iter().filter(|event| matches!(event, Event::BaseFeePaid { account: CLIENT, .. }));
    assert_eq!(told.count(), 2, "the fee of a failed call is an event too (E-3)");
    althing_ledger::apply(&mut net.state, output.writes);
    althing_ledger::invariants::check(&net.state).unwrap();
    assert_eq!(query::supply(&net.state).coordinators, Amount(before.0 + 2 * fee.0));
    assert_eq!(net.free(CLIENT), Amount(alth("999").0 - 2 * fee.0));
}

/// L-1: who cannot pay leaves no trace, and the mempool does not keep it.
#[test]
fn who_cannot_pay_the_base_fee_leaves_no_trace() {
    let mut net = net();
    let poor = Address([0x77; 20]);
    let tx = net.tx(poor, send(Amount(1)));
    let fee = base_fee(&query::params(&net.state), &tx);
    let unpayable = E::BaseFeeUnpayable { fee, free: Amount::ZERO };
    assert_eq!(check_for_mempool(&net.state, &tx), Err(unpayable.clone()));
    net.block.height += 1;
    net.block.time_ms += 100;
    let output = execute_block(&net.state, &net.block, &[tx]);
    assert_eq!(output.receipts[0].error, Some(unpayable));
    assert_eq!(output.receipts[0].fee, Amount::ZERO);
    althing_ledger::apply(&mut net.state, output.writes);
    assert_eq!(query::account(&net.state, &poor).nonce, 0);
}

/// L-1: a session key's limit bounds the fees that it can spend too.
#[test]
fn base_fees_count_against_a_session_keys_limit() {
    let mut net = net();
    let key = SessionPublicKey([5; 32]);
    let limit = Amount(10_000_000);
    let add = Call::SessionKeyAdd { key, scope: Scope::All, spend_limit: limit, expires_at_ms: u64::MAX };
    net.ok(vec![(CLIENT, add)]);
    let mut nonce = query::session_key(&net.state, &CLIENT, &key).unwrap().nonce;
    let mut errors = Vec::new();
    for _ in 0..6 {
        let auth = Auth::Session { account: CLIENT, key, signature: [0; 64] };
        let tx = SignedTx { call: send(Amount(1)), nonce, expires_at_ms: u64::MAX, auth };
        net.block.height += 1;
        net.block.time_ms += 100;
        let output = execute_block(&net.state, &net.block, &[tx]);
        althing_ledger::apply(&mut net.state, output.writes);
        let error = output.receipts[0].error.clone();
        nonce += u64::from(error.is_none());
        errors.push(error);
    }
    assert_eq!(errors[0], None);
    assert!(matches!(errors[5], Some(E::SpendLimit { .. })), "{errors:?}");
}

/// L-1: each stored object carries a deposit, which comes back when the object goes.
#[test]
fn deposits_come_back_when_their_objects_leave() {
    let mut net = net();
    let deposits = |net: &Net| query::supply(&net.state).deposits;
    assert_eq!(deposits(&net), Amount::ZERO, "nobody leaves deposits for what is there from the start");
    // An order.
    let id = net.open_order();
    assert_eq!(deposits(&net), alth("0.5"));
    net.solve(id, provider(1), "a");
    net.wait(8_000);
    assert_eq!(net.get(&id).state, OrderState::Claimed);
    assert_eq!(deposits(&net), alth("0.5"), "it is still in the state");
    net.wait(10_100);
    assert_eq!(query::order(&net.state, &id), None);
    assert_eq!(deposits(&net), Amount::ZERO);
    // A session key.
    let key = SessionPublicKey([5; 32]);
    let add = Call::SessionKeyAdd { key, scope: Scope::All, spend_limit: alth("1"), expires_at_ms: u64::MAX };
    net.ok(vec![(CLIENT, add)]);
    assert_eq!(deposits(&net), alth("0.5"));
    net.ok(vec![(CLIENT, Call::SessionKeyRevoke { key })]);
    assert_eq!(deposits(&net), Amount::ZERO);
    // A delegation; one to the same provider again is the same object.
    let delegate = Call::Delegate { provider: provider(1), amount: alth("5") };
    net.ok(vec![(CLIENT, delegate.clone())]);
    net.ok(vec![(CLIENT, delegate)]);
    assert_eq!(deposits(&net), alth("0.5"));
    net.ok(vec![(CLIENT, Call::Undelegate { provider: provider(1), amount: None })]);
    net.wait(60_000);
    assert_eq!(deposits(&net), Amount::ZERO);
    // A model and a provider stay, and so do their deposits.
    net.ok(vec![(CLIENT, Call::Bond { amount: alth("5") })]);
    assert_eq!(deposits(&net), alth("0.5"));
}

/// L-1: without the deposit nothing is stored.
#[test]
fn without_the_deposit_nothing_is_stored() {
    let mut net = net();
    net.ok(vec![
        (CLIENT, Call::Transfer { to: OWNER, amount: alth("1") }),
        (CLIENT, Call::Transfer { to: FRIEND, amount: alth("0.4") }),
    ]);
    assert_eq!(net.call(OWNER, Call::Bond { amount: alth("0.1") }), Ok(()), "there is enough for the deposit");
    let result = net.call(FRIEND, Call::Bond { amount: Amount(1) });
    assert!(matches!(result, Err(E::DepositUnpayable { .. })), "{result:?}");
    assert!(query::provider(&net.state, &FRIEND).is_none());
}

const FRIEND: Address = Address([0xfe; 20]);

/// L-1, L-2: a flood of orders without a fee is paid by who sends it, and one block does no more
/// than its units; what does not fit leaves no trace and can be sent again.
#[test]
fn a_flood_is_paid_by_the_flooder_and_bounded_by_the_block() {
    let mut net = Net::with(3, "1000", Params { block_units_max: 1_000, ..params_with_costs() });
    let before = net.free(CLIENT);
    let submit = net.submit("1");
    let calls: Vec<_> = (0..100).map(|_| (CLIENT, Call::OrderSubmit(submit.clone()))).collect();
    let output = net.block_after(100, calls);
    let done = output.receipts.iter().filter(|receipt| receipt.error.is_none()).count();
    assert_eq!(done, 83, "orders of 12 units that fit into 1000");
    assert_eq!(output.receipts[83].error, Some(E::BlockFull));
    assert_eq!(output.receipts[84].error, Some(E::WrongNonce { expected: 83 }), "what came after it has to wait");
    let paid = Amount(before.0 - net.free(CLIENT).0);
    assert!(paid.0 > 83 * (alth("0.5").0 + alth("1").0), "{paid}: deposits, fees and base fees of all of them");
    assert_eq!(query::account(&net.state, &CLIENT).nonce, 83);
}

/// L-1: commitments and signals pay base fees like everything, and are bounded for each object.
#[test]
fn commitments_and_signals_are_paid_and_bounded() {
    let mut net = net();
    let id = net.open_order();
    let before = net.free(provider(1));
    let commit = net.commit_call(id, provider(1), "a");
    net.ok(vec![(provider(1), commit.clone())]);
    assert_eq!(net.call(provider(1), commit), Err(E::CommitmentExists));
    let models = vec![net.model];
    net.ok(vec![(provider(1), Call::ModelSupport { models, endpoint: String::new() })]);
    assert!(net.free(provider(1)) < before);
}
