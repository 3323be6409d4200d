//! Transfers, nonces, session keys.

#![allow(clippy::unwrap_used)] // helpers of tests

mod support;

use althing_ledger::{check_for_mempool, execute_block, query};
use althing_types::{Address, Amount, Auth, Call, LedgerError as E, SessionPublicKey, SignedTx, call::Scope};
use support::*;

const KEY: SessionPublicKey = SessionPublicKey([5; 32]);
const FRIEND: Address = Address([0xff; 20]);

fn by_session(net: &Net, call: Call, nonce: u64) -> SignedTx {
    let auth = Auth::Session { account: CLIENT, key: KEY, signature: [0; 64] };
    SignedTx { call, nonce, expires_at_ms: net.block.time_ms + 1_000, auth }
}

fn run(net: &mut Net, txs: &[SignedTx]) -> Vec<Option<E>> {
    net.block.height += 1;
    net.block.time_ms += 1;
    net.block.view += 1;
    let output = execute_block(&net.state, &net.block, txs);
    althing_ledger::apply(&mut net.state, output.writes);
    althing_ledger::invariants::check(&net.state).unwrap();
    output.receipts.into_iter().map(|r| r.error).collect()
}

fn send(amount: &str) -> Call {
    Call::Transfer { to: FRIEND, amount: alth(amount) }
}

#[test]
fn transfers_move_money_and_refuse_what_is_not_there() {
    let mut net = Net::new(0);
    assert_eq!(net.call(CLIENT, send("0")), Err(E::ZeroAmount));
    let short = E::InsufficientBalance { needed: alth("1000.1"), free: alth("1000") };
    assert_eq!(net.call(CLIENT, send("1000.1")), Err(short));
    assert_eq!(net.call(CLIENT, send("1000")), Ok(()));
    assert_eq!((net.free(CLIENT), net.free(FRIEND)), (Amount::ZERO, alth("1000")));
    assert_eq!(net.call(FRIEND, Call::Transfer { to: FRIEND, amount: alth("5") }), Ok(()), "to oneself is harmless");
}

/// A failed call leaves no trace but its nonce and receipt.
#[test]
fn a_failed_call_uses_its_nonce_and_nothing_else() {
    let mut net = Net::new(0);
    let before = net.state.clone();
    assert!(net.call(CLIENT, send("5000")).is_err());
    let mut account = query::account(&net.state, &CLIENT);
    assert_eq!(account.nonce, 1);
    account.nonce = 0;
    let changed: Vec<_> = net.state.iter().filter(|(key, value)| before.get(*key) != Some(value)).collect();
    assert_eq!(changed.len(), 2, "only the account and the clock changed");
    assert_eq!(*changed[0].1, althing_types::encode(&althing_types::Account { nonce: 1, ..account }));
}

#[test]
fn wrong_nonces_and_expired_transactions_leave_no_trace_at_all() {
    let mut net = Net::new(0);
    let tx = |nonce, expires_at_ms| SignedTx {
        call: send("1"),
        nonce,
        expires_at_ms,
        auth: Auth::Wallet { account: CLIENT, signature: [0; 65] },
    };
    let late = net.block.time_ms;
    let txs = [tx(1, u64::MAX), tx(0, late), tx(0, u64::MAX), tx(0, u64::MAX)];
    let errors = run(&mut net, &txs);
    let expected = [
        Some(E::WrongNonce { expected: 0 }),
        Some(E::TransactionExpired { expired_at_ms: late }),
        None,
        Some(E::WrongNonce { expected: 1 }),
    ];
    assert_eq!(errors, expected);
    assert_eq!(check_for_mempool(&net.state, &tx(5, u64::MAX)), Ok(()), "a near future is fine");
    assert!(check_for_mempool(&net.state, &tx(0, u64::MAX)).is_err());
    assert!(check_for_mempool(&net.state, &tx(9_999, u64::MAX)).is_err());
}

#[test]
fn a_session_key_acts_within_its_scope_limit_and_time() {
    let mut net = Net::new(0);
    let expires_at_ms = net.block.time_ms + 500;
    let add = Call::SessionKeyAdd { key: KEY, scope: Scope::Client, spend_limit: alth("5"), expires_at_ms };
    net.ok(vec![(CLIENT, add.clone())]);
    assert_eq!(net.call(CLIENT, add), Err(E::SessionKeyExists));
    let nonce = query::session_key(&net.state, &CLIENT, &KEY).unwrap().nonce;
    let order = |net: &Net, fee| Call::OrderSubmit(net.submit(fee));
    let txs = [
        by_session(&net, send("1"), nonce),
        by_session(&net, order(&net, "3"), nonce + 1),
        by_session(&net, order(&net, "3"), nonce + 2),
        by_session(&net, Call::SessionKeyRevoke { key: KEY }, nonce + 3),
        by_session(&net, order(&net, "2"), nonce + 4),
    ];
    let limit = E::SpendLimit { needed: alth("3"), left: alth("2") };
    assert_eq!(run(&mut net, &txs), [Some(E::OutOfScope), None, Some(limit), Some(E::OutOfScope), None]);
    net.wait(600);
    let tx = by_session(&net, order(&net, "1"), nonce + 5);
    assert_eq!(run(&mut net, &[tx]), [Some(E::SessionKeyExpired { expired_at_ms: expires_at_ms })]);
}

#[test]
fn a_revoked_key_is_unknown_and_never_replays_when_added_again() {
    let mut net = Net::new(0);
    let add = Call::SessionKeyAdd { key: KEY, scope: Scope::All, spend_limit: alth("5"), expires_at_ms: u64::MAX };
    net.ok(vec![(CLIENT, add.clone())]);
    let nonce = query::session_key(&net.state, &CLIENT, &KEY).unwrap().nonce;
    let tx = SignedTx { expires_at_ms: u64::MAX, ..by_session(&net, send("1"), nonce) };
    assert_eq!(run(&mut net, std::slice::from_ref(&tx)), [None]);
    net.ok(vec![(CLIENT, Call::SessionKeyRevoke { key: KEY })]);
    assert_eq!(run(&mut net, std::slice::from_ref(&tx)), [Some(E::UnknownSessionKey)]);
    net.ok(vec![(CLIENT, add)]);
    assert!(matches!(run(&mut net, &[tx]).remove(0), Some(E::WrongNonce { .. })));
}
