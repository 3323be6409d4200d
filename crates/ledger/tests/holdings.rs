//! Where each unit of an account is, and when it comes free. (E-4)

#![allow(clippy::unwrap_used)] // helpers of tests

mod support;

use althing_ledger::query;
use althing_types::{
    Address, Amount, AssetId, Call, Params, PoolId, SessionPublicKey,
    api::{AccountView, LeavingView, ShareEarnings},
    call::Scope,
};
use support::*;

fn net() -> Net {
    Net::with(2, "1000", Params { deposit_object: alth("0.5"), reward_base: Amount::ZERO, ..params() })
}

fn view(net: &Net, who: Address) -> AccountView {
    query::account_view(&net.state, &who)
}

/// All units of all accounts are what was issued, without those that are no account's.
fn assert_every_unit_is_somewhere(net: &Net) {
    let supply = query::supply(&net.state);
    let accounts = query::accounts(&net.state, None, 100);
    let held: Amount = accounts.iter().map(|(address, _)| view(net, *address).total()).sum();
    let founded = query::daos(&net.state, None, 9).len() + query::pools(&net.state, None, 9).len();
    let kept = Amount(founded as u128 * alth("0.5").0);
    assert_eq!(held, Amount(supply.issued.0 - supply.pools.0 - supply.drip.0 - kept.0), "{supply:?}");
}

/// E-4: wherever units go, the account's view says where they are.
#[test]
fn an_account_sees_each_of_its_units_and_when_it_comes_free() {
    let mut net = net();
    let (model, mate) = (net.model, provider(1));
    assert_every_unit_is_somewhere(&net);
    let key = SessionPublicKey([5; 32]);
    net.ok(vec![
        (CLIENT, Call::Delegate { provider: mate, amount: alth("100") }),
        (CLIENT, Call::SessionKeyAdd { key, scope: Scope::Client, spend_limit: alth("1"), expires_at_ms: u64::MAX }),
        (CLIENT, Call::Transfer { to: OWNER, amount: alth("20") }),
        (provider(2), Call::Unbond { amount: alth("30") }),
    ]);
    assert_every_unit_is_somewhere(&net);
    let unbonding_ms = query::params(&net.state).unbonding_ms;
    let seen = view(&net, provider(2));
    let leaves_ms = net.block.time_ms + unbonding_ms;
    assert_eq!((seen.bond, seen.bond_free, seen.reserved), (alth("970"), alth("970"), Amount::ZERO));
    assert_eq!((seen.unbonding[0].amount, seen.unbonding[0].free_at_ms), (alth("30"), leaves_ms));
    net.ok(vec![
        (CLIENT, Call::Undelegate { provider: mate, amount: Some(alth("40")) }),
        (OWNER, Call::DaoCreate { model, shares: 10 }),
        (OWNER, Call::SaleOpen { model, shares: 3, price: alth("2") }),
    ]);
    let leaves_ms = net.block.time_ms + unbonding_ms;
    let order = net.open_order();
    let seen = view(&net, CLIENT);
    assert_eq!(seen.delegations[0].value, alth("60"));
    assert_eq!(seen.delegations[0].leaving, [LeavingView { value: alth("40"), free_at_ms: leaves_ms, to: None }]);
    assert_eq!((seen.escrowed[0].order, seen.escrowed[0].fee, seen.escrowed_complete), (order, alth("4"), true));
    let deposits = seen.deposits.kinds().map(|(_, amount)| amount);
    assert_eq!(deposits, ["0.5", "0", "0.5", "0.5", "0", "0"].map(alth));
    assert_eq!(seen.power, Amount(seen.account.free.0 + alth("60").0), "what leaves has no vote");
    assert_every_unit_is_somewhere(&net);

    // The fee becomes what provider, delegator and shareholders earn and can claim.
    net.solve(order, mate, "right");
    assert!(!view(&net, mate).reserved.is_zero() && view(&net, mate).bond_free < view(&net, mate).bond);
    net.wait(9_000);
    let seen = view(&net, CLIENT);
    assert!(seen.escrowed.is_empty() && !seen.delegations[0].fees.is_zero());
    assert_eq!(seen.deposits.orders, alth("0.5"), "until the order leaves the state");
    let shares = ShareEarnings { model, shares: 10, on_sale: 3, claimable: alth("1") };
    assert_eq!(view(&net, OWNER).shares, [shares]);
    assert_every_unit_is_somewhere(&net);
    net.ok(vec![(OWNER, Call::SharesClaim { model }), (CLIENT, Call::DelegationClaim { provider: mate })]);
    assert_every_unit_is_somewhere(&net);
}

/// E-2, E-4: staked liquidity is told with what it can claim.
#[test]
fn staked_liquidity_is_listed() {
    let mut net = net();
    let (model, asset) = (net.model, AssetId::Shares(net.model));
    let pool = PoolId::of(AssetId::Native, asset);
    net.ok(vec![
        (CLIENT, Call::Transfer { to: OWNER, amount: alth("50") }),
        (OWNER, Call::DaoCreate { model, shares: 1_000_000 }),
    ]);
    let (amount_a, amount_b) = (alth("10"), Amount(500_000));
    let add = Call::PoolAdd { a: AssetId::Native, b: asset, amount_a, amount_b, lp_min: Amount::ZERO };
    net.ok(vec![(OWNER, add), (OWNER, Call::LpStake { pool, lp: Amount(7) })]);
    let seen = view(&net, OWNER);
    assert_eq!((seen.liquidity[0].pool, seen.liquidity[0].staked), (pool, Amount(7)));
    assert!(seen.liquidity[0].claimable.is_zero());
    assert_every_unit_is_somewhere(&net);
}
