//! The emission curve, against the contracts' numbers, high-precision decimals, and in the ledger.

#![allow(clippy::unwrap_used)] // helpers of tests

mod support;

use althing_ledger::{
    TREASURY,
    emission::{multiplier, reward, target},
    query,
};
use althing_types::{
    Amount, Call, Event, Input, LedgerError as E, ModelReward, OrderState, Params, event::PaymentKind, profile,
};
use proptest::prelude::*;
use support::*;

const YEAR_MS: u64 = 31_536_000_000;

fn units(text: &str) -> Amount {
    Amount(text.parse().unwrap())
}

/// Ours is the true value rounded down; the contracts truncate in their library's way.
fn close(ours: Amount, theirs: &str) {
    let theirs = units(theirs);
    let difference = ours.0.abs_diff(theirs.0);
    assert!(difference <= 2 || difference <= theirs.0 / 10u128.pow(15), "{ours:?} is not close to {theirs:?}");
}

/// T-6, E-1: the numbers of the contracts that implement the paper.
#[test]
fn the_contracts_numbers_come_out() {
    let cap = Amount::tokens(600_000);
    for (half_years, expected) in [
        (0, "0"),
        (1, "175735931288071485118987"),
        (2, "300000000000000000000000"),
        (4, "450000000000000000000000"),
        (6, "525000000000000000000000"),
        (10, "581250000000000000000000"),
        (14, "595312500000000000000000"),
    ] {
        close(target(cap, YEAR_MS, half_years * YEAR_MS / 2), expected);
    }
    let year = target(cap, YEAR_MS, YEAR_MS);
    for (supply, expected) in [
        (100_000, "100000000000000000000"),
        (300_000, "1000000000000000000"),
        (305_000, "314980262473718305"),
        (350_000, "9612434767874"),
        (360_000, "0"),
        (600_000, "0"),
    ] {
        close(multiplier(year, Amount::tokens(supply)), expected);
    }
    for (supply, expected) in [
        (100_000, "83333333333333333333"),
        (290_000, "5207673672898809321"),
        (300_000, "500000000000000000"),
        (320_000, "4593462161075058"),
        (600_000, "0"),
    ] {
        close(reward(Amount::TOKEN, cap, year, Amount::tokens(supply)), expected);
    }
    let cap = Amount::tokens(300_000);
    let year = target(cap, YEAR_MS, YEAR_MS);
    for (supply, expected) in [
        (140_000, "100000000000000000000"),
        (145_000, "10079368399158985783"),
        (155_000, "99212565748012469"),
        (165_000, "976562500000000"),
    ] {
        close(multiplier(year, Amount::tokens(supply)), expected);
    }
}

/// T-6: the paper's own figures.
#[test]
fn the_papers_figures_come_out() {
    let cap = Amount::tokens(1_000_000);
    assert_eq!(target(cap, YEAR_MS, YEAR_MS), Amount::tokens(500_000));
    assert_eq!(target(cap, YEAR_MS, 2 * YEAR_MS), Amount::tokens(750_000));
    assert!(target(cap, YEAR_MS, 7 * YEAR_MS) > Amount::tokens(990_000));
    // Ten percent above target divides the reward by 1024.
    let on_target = multiplier(Amount::tokens(500_000), Amount::tokens(500_000));
    let above = multiplier(Amount::tokens(500_000), Amount::tokens(550_000));
    assert_eq!(on_target.0 / above.0, 1024);
}

/// T-6: every row of the table, to the last unit.
#[test]
fn the_curve_is_the_true_value_rounded_down() {
    let mut rows = 0;
    for line in include_str!("vectors/emission.csv").lines() {
        let fields: Vec<u128> = line.split(',').map(|field| field.parse().unwrap()).collect();
        let (cap, supply) = (Amount(fields[0]), Amount(fields[3]));
        let (halving_ms, elapsed_ms) = (u64::try_from(fields[1]).unwrap(), u64::try_from(fields[2]).unwrap());
        let at = target(cap, halving_ms, elapsed_ms);
        assert_eq!(at, Amount(fields[4]), "target of {line}");
        assert_eq!(multiplier(at, supply), Amount(fields[5]), "multiplier of {line}");
        assert_eq!(reward(Amount::TOKEN, cap, at, supply), Amount(fields[6]), "reward of {line}");
        rows += 1;
    }
    assert!(rows > 1_500, "{rows}");
}

proptest! {
    /// T-6: time only raises the target, and supply only lowers the reward.
    #[test]
    fn the_curve_is_monotone(
        cap in 1u128..1_000_000_000_000_000_000_000_000_000, halving_ms in 1_000u64..100_000_000_000,
        elapsed_ms in 0u64..1_000_000_000_000, later_ms in 0u64..100_000, supply: u128, more in 0u128..1_000_000_000_000,
    ) {
        let cap = Amount(cap);
        let (now, later) = (target(cap, halving_ms, elapsed_ms), target(cap, halving_ms, elapsed_ms + later_ms));
        prop_assert!(now <= later && later <= cap);
        let supply = Amount(supply % (cap.0 + 1));
        let grown = Amount((supply.0 + more).min(cap.0));
        prop_assert!(multiplier(now, grown) <= multiplier(now, supply));
        prop_assert!(reward(Amount::TOKEN, cap, now, grown) <= reward(Amount::TOKEN, cap, now, supply));
        prop_assert!(multiplier(now, supply) <= Amount::tokens(100));
    }
}

// ---- in the ledger ----

/// A network that is a year old in emission terms after a minute.
fn net(change: impl FnOnce(&mut Params)) -> Net {
    let mut p = Params { emission_halving_ms: 60_000, due_items_max: 1_000, ..params() };
    change(&mut p);
    let mut net = Net::with(3, "1000", p);
    net.wait(60_000);
    net
}

fn reward_set(net: &Net, rate: u32, unit_bytes: u64) -> Call {
    Call::ModelRewardSet { model: net.model, reward: Some(ModelReward { rate, unit_bytes }) }
}

/// Solves an order and waits for its claim; what was minted for it.
fn minted_by(net: &mut Net, submit: althing_types::call::OrderSubmit) -> Option<Amount> {
    let id = net.order(submit);
    net.minted(id)
}

fn paid(net: &Net, kind: PaymentKind) -> Amount {
    let paid = net.events.iter().filter_map(|event| match event {
        Event::Paid { amount, kind: k, .. } if *k == kind => Some(*amount),
        _ => None,
    });
    paid.sum()
}

/// T-6: only governance enables rewards; then a claim mints what the curve says, a tenth of it for
/// the treasury, a tenth for liquidity, and the event says so.
#[test]
fn an_enabled_model_earns_what_the_curve_says() {
    let mut net = net(|p| p.reward_metered = false);
    let submit = net.submit("4");
    assert_eq!(minted_by(&mut net, submit), None, "not enabled");
    let enable = reward_set(&net, 1_000_000, 7);
    assert_eq!(net.call(CLIENT, enable.clone()), Err(E::NotGovernor));
    assert_eq!(net.call(TREASURY, enable), Ok(()));
    let before = query::supply(&net.state);
    let submit = net.submit("4");
    let minted = minted_by(&mut net, submit).unwrap();
    // Nothing was minted yet, so the multiplier is at its most and the reward whole.
    assert_eq!(minted, Amount::tokens(100));
    assert_eq!(paid(&net, PaymentKind::RewardTreasury), alth("10"));
    assert_eq!(paid(&net, PaymentKind::Reward), alth("80"));
    let after = query::supply(&net.state);
    assert_eq!(after.issued, Amount(before.issued.0 + minted.0));
    assert_eq!(after.drip, alth("10"));
    assert_eq!(query::emission(&net.state).supply, minted);
    assert_eq!(query::account(&net.state, &provider(1)).earned.rewards, alth("80"));
}

/// T-6, T-21: what earns no reward.
#[test]
fn some_orders_earn_no_reward() {
    let mut net = net(|_| {});
    let enable = reward_set(&net, 1_000_000, 7);
    net.ok(vec![(TREASURY, enable)]);
    let mut by_seed = net.submit("4");
    by_seed.seed = Some(7);
    let mut by_cid = net.submit("4");
    by_cid.input = Input::Content { cid: output("elsewhere"), size: 4, source: None };
    for (what, submit) in [("a chosen seed", by_seed), ("an input that is elsewhere", by_cid)] {
        assert_eq!(minted_by(&mut net, submit), None, "{what}");
    }
    let mut free = net.submit("1");
    free.model = net.model;
    net.ok(vec![(OWNER, Call::ModelTermsSet { model: net.model, fee: Amount::ZERO, payee: PAYEE })]);
    free.fee = Amount::ZERO;
    assert_eq!(minted_by(&mut net, free), None, "no fee");
    let ended = Call::ModelRewardSet { model: net.model, reward: None };
    net.ok(vec![(TREASURY, ended)]);
    let submit = net.submit("4");
    assert_eq!(minted_by(&mut net, submit), None, "a reward that ended");
}

/// T-6: the size of the output counts up to the model's unit, and the model's rate multiplies.
#[test]
fn metered_rewards_grow_with_the_output_up_to_the_unit() {
    // Answers in these tests have 7 bytes.
    for (rate, unit_bytes, expected) in [
        (1_000_000, 7, alth("100")),
        (1_000_000, 70, alth("10")),
        (500_000, 14, alth("25")),
        (1_000_000, 1, alth("100")),
        (1_000_000, 0, Amount::ZERO),
    ] {
        let mut net = net(|_| {});
        let enable = reward_set(&net, rate, unit_bytes);
        net.ok(vec![(TREASURY, enable)]);
        let submit = net.submit("4");
        let minted = minted_by(&mut net, submit).unwrap_or_default();
        assert_eq!(minted, expected, "rate {rate}, unit {unit_bytes}");
    }
}

/// T-6: never beyond 110 % of target, never beyond the cap.
#[test]
fn mints_stop_at_the_ceiling_and_at_the_cap() {
    // A cap of 150 tokens: the first claim takes 100, later ones what the curve and the cap leave.
    let mut net = net(|p| {
        (p.emission_cap, p.emission_halving_ms, p.emission_ceiling) = (alth("150"), 3_600_000, 1_100_000);
        p.reward_metered = false;
    });
    let enable = reward_set(&net, 1_000_000, 7);
    net.ok(vec![(TREASURY, enable)]);
    let mut total = Amount::ZERO;
    for _ in 0..12 {
        let submit = net.submit("4");
        total = Amount(total.0 + minted_by(&mut net, submit).unwrap_or_default().0);
        let curve = query::emission(&net.state);
        assert_eq!(curve.supply, total);
        assert!(total.0 <= curve.target.0 * 11 / 10, "{total} of {}", curve.target);
        assert!(total <= alth("150"));
    }
    assert!(!total.is_zero());
}

// ---- the paper's profile ----

/// A network of the paper's profile: who holds what is given, and provider 1 to 4 are named voters.
fn dml(client: &str, bonds: &str, change: impl FnOnce(&mut Params)) -> Net {
    let mut params = profile::parse(profile::DML, true).unwrap().params;
    params.voting_period_ms = 8_000;
    change(&mut params);
    let mut genesis = Net::genesis(5, bonds, params);
    genesis.accounts[0].free = alth(client);
    genesis.accounts[1..].iter_mut().for_each(|provider| provider.free = alth("1"));
    genesis.voters = (1..=4).map(provider).collect();
    Net::of(&genesis, 5)
}

fn submit(net: &Net) -> althing_types::call::OrderSubmit {
    althing_types::call::OrderSubmit { agreements: 0, ..net.submit("4") }
}

/// T-9, T-7, T-8: below 1,000 issued no bond is needed; the named providers vote with weight 1
/// each, others not at all, and nobody is slashed.
#[test]
fn while_bonds_are_not_required_the_named_providers_judge_with_one_vote_each() {
    let mut net = dml("500", "0", |_| {});
    let order = submit(&net);
    let id = net.order(order);
    net.solve(id, provider(5), "wrong");
    let contest = Call::Contest { order: id, ballot: None };
    assert_eq!(net.call(provider(5), contest.clone()), Err(E::OwnOrder));
    assert_eq!(net.call(provider(1), contest), Ok(()));
    assert_eq!(net.call(provider(2), Call::Vote { order: id, refute: true }), Ok(()));
    assert_eq!(net.call(provider(3), Call::Vote { order: id, refute: false }), Ok(()));
    assert_eq!(net.call(CLIENT, Call::Vote { order: id, refute: false }), Err(E::NotBootstrapVoter));
    let votes: Vec<_> = query::case(&net.state, &id).unwrap().votes.iter().map(|vote| vote.weight).collect();
    // The contester, the solver, who is not named, and two jurors.
    assert_eq!(votes, [Amount(1), Amount(0), Amount(1), Amount(1)]);
    net.wait(8_000);
    assert!(matches!(net.get(&id).state, OrderState::Refunded { .. }), "two against one");
    assert!(!net.events.iter().any(|event| matches!(event, Event::Slashed { .. })));
    let jailed = query::provider(&net.state, &provider(5)).unwrap().jailed_until_ms;
    assert!(jailed > net.block.time_ms, "without stake, jail is what is left");
}

/// T-9: bonds of 0.24 % of the supply are required from 1,000 issued on.
#[test]
fn bonds_are_required_from_a_thousand_issued() {
    for (client, required) in [("989", false), ("990", true)] {
        let mut net = dml(client, "1", |_| {});
        let order = submit(&net);
        let id = net.order(order);
        let commit = net.commit_call(id, provider(1), "a");
        // 5 providers hold 1 and bond 1 each: 999 or 1000 are issued.
        let short = E::BondTooSmall { bond: alth("1"), min: alth("2.4") };
        assert_eq!(net.call(provider(1), commit), if required { Err(short) } else { Ok(()) });
    }
}

/// T-8: losers are slashed from 2,000 issued on.
#[test]
fn losers_are_slashed_from_two_thousand_issued() {
    for (client, slashed) in [("1944.99", false), ("1945", true)] {
        let mut net = dml(client, "10", |_| {});
        let order = submit(&net);
        let id = net.order(order);
        net.solve(id, provider(1), "wrong");
        net.ok(vec![(provider(2), Call::Contest { order: id, ballot: None })]);
        net.ok(vec![(provider(3), Call::Vote { order: id, refute: true })]);
        net.wait(8_000);
        let lost = alth("1.25");
        let expected = if slashed { Amount(alth("10").0 - lost.0) } else { alth("10") };
        assert_eq!(net.bond(provider(1)), expected, "{client}");
    }
}

/// T-6, T-9: emission carries a network over both thresholds while it runs.
#[test]
fn minting_crosses_the_thresholds() {
    let mut net = dml("900", "0", |p| p.emission_halving_ms = 600_000);
    let enable = reward_set(&net, 1_000_000, 1);
    net.ok(vec![(TREASURY, enable)]);
    net.wait(60_000);
    let order = submit(&net);
    let id = net.order(order);
    net.solve(id, provider(1), "a");
    net.wait(8_000);
    assert_eq!(net.get(&id).state, OrderState::Claimed);
    // 905 were held at genesis; about 100 were minted.
    assert!(query::emission(&net.state).supply > alth("1000"));
    let order = submit(&net);
    let id = net.order(order);
    let commit = net.commit_call(id, provider(2), "a");
    assert!(matches!(net.call(provider(2), commit), Err(E::BondTooSmall { .. })), "bonds are required now");
    let bond = Call::Bond { amount: alth("20") };
    net.ok(vec![(provider(1), bond)]);
    let commit = net.commit_call(id, provider(1), "a");
    assert_eq!(net.call(provider(1), commit), Ok(()));
}

/// T-2: in the paper's profile the id alone gives the seed, at once.
#[test]
fn the_papers_seed_is_the_id_modulo_its_constant() {
    let mut net = dml("500", "0", |_| {});
    let order = submit(&net);
    let output = net.block_after(100, vec![(CLIENT, Call::OrderSubmit(order))]);
    let id = output.receipts[0].order.unwrap();
    let modulus = u128::from(althing_types::object::SEED_MODULUS);
    let expected = id.0.iter().fold(0u128, |rest, byte| (rest * 256 + u128::from(*byte)) % modulus);
    assert_eq!(net.get(&id).seed.map(u128::from), Some(expected));
}

/// T-4: the paper's profile accepts claims by call, after the window.
#[test]
fn claims_by_call_are_accepted_where_the_profile_says_so() {
    let mut net = dml("500", "0", |p| p.due_items_max = 1);
    let (first, second) = (submit(&net), submit(&net));
    let ids = [net.order(first), net.order(second)];
    for id in ids {
        let commit = net.commit_call(id, provider(1), "a");
        net.ok(vec![(provider(1), commit)]);
    }
    let reveals = ids.map(|id| (provider(1), net.reveal_call(id, provider(1), "a")));
    net.ok(reveals.into());
    let OrderState::Solved { claim_at_ms } = net.get(&ids[1]).state else { panic!("solved") };
    assert_eq!(net.call(provider(1), Call::OrderClaim { order: ids[1] }), Err(E::WindowOpen { claim_at_ms }));
    net.block_after(6_000, vec![]);
    // After the window the queue takes one a block; a call takes the other at once.
    let left = claim_at_ms + 1 - net.block.time_ms;
    let calls = ids.map(|order| (provider(1), Call::OrderClaim { order }));
    let output = net.block_after(left, calls.into());
    assert!(output.receipts.iter().all(|receipt| receipt.error.is_none()));
    assert!(ids.iter().all(|id| net.get(id).state == OrderState::Claimed));
    let mut other = Net::new(1);
    let id = other.open_order();
    other.solve(id, provider(1), "a");
    assert_eq!(other.call(provider(1), Call::OrderClaim { order: id }), Err(E::ClaimsRunThemselves));
}

/// T-5: the paper's settlement: fee 4, model 3, treasury 0.1, provider 0.9.
#[test]
fn the_papers_settlement_comes_out() {
    let mut net = dml("500", "0", |_| {});
    net.ok(vec![(OWNER, Call::ModelTermsSet { model: net.model, fee: alth("3"), payee: PAYEE })]);
    let order = submit(&net);
    let id = net.order(order);
    net.solve(id, provider(1), "a");
    net.wait(8_000);
    assert_eq!(net.free(PAYEE), alth("3"));
    assert_eq!(query::supply(&net.state).treasury, alth("0.1"));
    assert_eq!(net.free(provider(1)), alth("1.9"));
    assert_eq!(net.get(&id).state, OrderState::Claimed);
}
