//! Inputs that are not in their orders: drawn coordinators fetch them before the seed exists. (T-21)

#![allow(clippy::unwrap_used)] // helpers of tests

mod support;

use althing_ledger::{TREASURY, check_for_mempool, query};
use althing_types::{
    Address, Amount, Availability, Call, ContentSource, Event, Input, Lane, LedgerError as E, ModelReward, OrderId,
    OrderState, Params, call::OrderSubmit, source::CONTENT_SOURCE_BYTES_MAX,
};
use std::collections::BTreeMap;
use support::*;

fn coordinator(n: u8) -> Address {
    Address([0x80 + n; 20])
}

/// A network of six coordinators, of which four are drawn and three must have fetched an input, whose
/// model earns.
fn net_with(change: impl FnOnce(&mut Params), coordinators: u8) -> Net {
    let mut p = Params {
        emission_halving_ms: 60_000,
        reward_metered: false,
        input_sample: 4,
        order_retention_ms: 20_000,
        ..params()
    };
    change(&mut p);
    let mut genesis = Net::genesis(2, "1000", p);
    genesis.coordinator_accounts = (0..coordinators).map(coordinator).collect();
    // Named twice, it still has one seat at most.
    genesis.coordinator_accounts.extend((coordinators > 0).then(|| coordinator(0)));
    genesis.models[0].reward = Some(ModelReward { rate: 1_000_000, unit_bytes: 7 });
    let mut net = Net::of(&genesis, 2);
    net.wait(60_000);
    net
}

fn net() -> Net {
    net_with(|_| {}, 6)
}

fn elsewhere(net: &Net) -> OrderSubmit {
    OrderSubmit {
        input: Input::Content { cid: output("elsewhere"), size: 9, source: None },
        agreements: 0,
        ..net.submit("4")
    }
}

/// Submits an order; it may wait for its input.
fn place(net: &mut Net, submit: OrderSubmit) -> OrderId {
    let output = net.block_after(100, vec![(CLIENT, Call::OrderSubmit(submit))]);
    assert_eq!(output.receipts[0].error, None);
    output.receipts[0].order.unwrap()
}

/// Waits until the sample is drawn; its members.
fn sample(net: &mut Net, id: OrderId) -> Vec<Address> {
    net.until(|net| match net.get(&id).availability {
        Availability::Sampled { drawn, .. } => Some(drawn),
        _ => None,
    })
}

fn confirm(order: OrderId) -> Call {
    Call::InputConfirm { order }
}

/// T-21: more than half of the coordinators drawn have to fetch the input; only then can a beacon give
/// the seed, and the order earns.
#[test]
fn enough_coordinators_fetch_an_input_before_its_seed_exists() {
    let mut net = net();
    let submit = elsewhere(&net);
    let id = place(&mut net, submit);
    assert_eq!(net.get(&id).availability, Availability::Undrawn);
    assert!(query::wants_beacon(&net.state), "the sample waits for a beacon");
    let drawn = sample(&mut net, id);
    assert_eq!(drawn.len(), 4);
    assert!(!query::wants_beacon(&net.state), "coordinators are waited for, not the beacon");
    let waits = |net: &Net, who| query::inputs_to_fetch(&net.state, &who).iter().map(|o| o.id).collect::<Vec<_>>();
    for n in 0..6 {
        let expected = if drawn.contains(&coordinator(n)) { vec![id] } else { vec![] };
        assert_eq!(waits(&net, coordinator(n)), expected);
    }
    let other = (0..6).map(coordinator).find(|who| !drawn.contains(who)).unwrap();
    assert_eq!(net.call(other, confirm(id)), Err(E::NotDrawn));
    assert_eq!(net.call(CLIENT, confirm(id)), Err(E::NotDrawn));
    net.ok(vec![(drawn[0], confirm(id)), (drawn[1], confirm(id))]);
    assert_eq!(net.call(drawn[0], confirm(id)), Err(E::NotDrawn), "twice");
    net.wait(1_000);
    assert_eq!(net.get(&id).seed, None, "two of four are not more than half");
    let commit = net.commit_call(id, provider(1), "a");
    assert_eq!(net.call(provider(1), commit), Err(E::SeedUnknown));
    net.ok(vec![(drawn[2], confirm(id))]);
    let order = net.get(&id);
    assert_eq!((order.availability, order.seed), (Availability::Shown, None), "the seed comes from a later beacon");
    assert!(drawn.iter().all(|who| waits(&net, *who).is_empty()), "the fourth has nothing to do any more");
    assert_eq!(net.call(drawn[3], confirm(id)), Err(E::NotDrawn), "the time is over");
    assert_eq!(net.minted(id), Some(Amount::tokens(100)));
    let checked = net.events.iter().any(|event| matches!(event, Event::InputChecked { .. }));
    assert!(!checked, "nothing is checked again");
}

/// T-1, T-21: an order says where its input can be had, which whoever is to fetch it reads from the order. It is paid
/// for by the byte, and part of what the order's id is made of.
#[test]
fn an_order_says_where_its_input_can_be_had() {
    let base = net_with(|p| p.base_fee_byte = Amount(1), 6);
    let mut ids = Vec::new();
    let mut fees = Vec::new();
    let longest = format!("https://a/{}", "a".repeat(CONTENT_SOURCE_BYTES_MAX - "https://a/".len()));
    for source in [None, Some("http://203.0.113.7:8700"), Some(longest.as_str())] {
        let mut net = base.clone();
        let source = source.map(|source| ContentSource(source.into()));
        let input = Input::Content { cid: output("elsewhere"), size: 9, source };
        let submit = OrderSubmit { input: input.clone(), ..elsewhere(&net) };
        let receipt = net.block_after(100, vec![(CLIENT, Call::OrderSubmit(submit))]).receipts.remove(0);
        assert_eq!(receipt.error, None);
        let id = receipt.order.unwrap();
        assert_eq!(net.get(&id).input, input);
        for who in sample(&mut net, id) {
            assert_eq!(query::inputs_to_fetch(&net.state, &who)[0].input, input);
        }
        ids.push(id);
        fees.push(receipt.fee.0);
    }
    // A length in front of it.
    assert_eq!((fees[1] - fees[0], fees[2] - fees[0]), (4 + 23, 4 + 256));
    assert!(ids[0] != ids[1] && ids[1] != ids[2]);
}

/// T-17, T-21: an input that too few could fetch is nobody's fault: the order goes on without a reward.
#[test]
fn an_order_whose_input_is_not_shown_in_time_earns_its_fee_alone() {
    let mut net = net();
    let submit = elsewhere(&net);
    let id = place(&mut net, submit);
    let drawn = sample(&mut net, id);
    net.ok(vec![(drawn[0], confirm(id))]);
    let show_ms = net.state_params().input_show_ms;
    net.wait(show_ms - 200);
    assert!(net.get(&id).availability.is_open());
    net.wait(100);
    assert_eq!(net.get(&id).availability, Availability::NotShown);
    assert!(net.events.contains(&Event::InputChecked { order: id, shown: false }));
    assert_eq!(net.minted(id), None);
    assert_eq!(net.free(CLIENT), alth("996"), "the fee was paid");
}

/// T-21: coordinators are asked only where a reward depends on it; other orders get their seeds at once.
#[test]
fn nobody_is_asked_where_no_reward_depends_on_it() {
    type Change = Box<dyn Fn(&mut OrderSubmit)>;
    let chosen = |submit: &mut OrderSubmit| submit.lane = Lane::Chosen { provider: provider(1) };
    let orders: Vec<(&str, Change, Availability)> = vec![
        ("in the order", Box::new(|s| s.input = Input::Inline { bytes: vec![1] }), Availability::Inline),
        ("content", Box::new(|_| {}), Availability::Undrawn),
        ("between two parties", Box::new(chosen), Availability::Unchecked),
        ("a chosen seed", Box::new(|s| s.seed = Some(1)), Availability::Unchecked),
    ];
    let base = net();
    for (what, change, expected) in orders {
        let mut net = base.clone();
        let mut submit = elsewhere(&net);
        change(&mut submit);
        let id = place(&mut net, submit);
        assert_eq!(net.get(&id).availability, expected, "{what}");
    }
    let by_params = |change: fn(&mut Params), coordinators, fee: &str| {
        let mut net = net_with(change, coordinators);
        let submit = OrderSubmit { fee: alth(fee), ..elsewhere(&net) };
        let id = place(&mut net, submit);
        net.get(&id).availability
    };
    assert_eq!(by_params(|_| {}, 0, "4"), Availability::Unchecked, "there is nobody to ask");
    assert_eq!(by_params(|p| p.input_sample = 0, 6, "4"), Availability::Unchecked, "nobody is to be asked");
    assert_eq!(by_params(|p| p.seed_from_id = true, 6, "4"), Availability::Unchecked, "the seed exists already");
    assert_eq!(by_params(|_| {}, 6, "1"), Availability::Undrawn);
    let mut net = base.clone();
    net.ok(vec![(TREASURY, Call::ModelRewardSet { model: net.model, reward: None })]);
    let submit = elsewhere(&net);
    let id = place(&mut net, submit);
    assert_eq!(net.get(&id).availability, Availability::Unchecked, "no reward for this model");
    assert_eq!(net.minted(id), None);
}

/// T-21: without a fee there is no reward, and so nobody is asked.
#[test]
fn nobody_is_asked_for_an_order_without_a_fee() {
    for (needs_fee, expected) in [(true, Availability::Unchecked), (false, Availability::Undrawn)] {
        let mut net = net_with(|p| p.reward_needs_fee = needs_fee, 6);
        net.ok(vec![(OWNER, Call::ModelTermsSet { model: net.model, fee: Amount::ZERO, payee: PAYEE })]);
        let submit = OrderSubmit { fee: Amount::ZERO, ..elsewhere(&net) };
        let id = place(&mut net, submit);
        assert_eq!(net.get(&id).availability, expected);
    }
}

/// T-21: all coordinators of a small network are drawn, and a quorum is never nobody.
#[test]
fn a_small_network_draws_all_of_its_coordinators() {
    for (quorum, needed) in [(0, 1), (500_000, 1), (500_001, 2), (1_000_000, 2)] {
        let mut net = net_with(|p| p.input_quorum = althing_types::Ppm(quorum), 2);
        let submit = elsewhere(&net);
        let id = place(&mut net, submit);
        let drawn = sample(&mut net, id);
        assert_eq!(drawn.len(), 2);
        for who in drawn.iter().take(needed) {
            assert!(net.get(&id).availability.is_open(), "{quorum} ppm");
            net.ok(vec![(*who, confirm(id))]);
        }
        assert_eq!(net.get(&id).availability, Availability::Shown, "{quorum} ppm");
    }
}

/// T-21: a beacon that came after the order decides who is drawn, and treats all alike.
#[test]
fn the_beacon_draws_all_coordinators_alike() {
    let mut net = net_with(|_| {}, 10);
    let mut seats: BTreeMap<Address, u32> = BTreeMap::new();
    for _ in 0..150 {
        let submit = OrderSubmit { fee: alth("1"), ..elsewhere(&net) };
        let id = place(&mut net, submit);
        for who in sample(&mut net, id) {
            *seats.entry(who).or_default() += 1;
        }
    }
    assert_eq!(seats.values().sum::<u32>(), 600);
    assert_eq!(seats.len(), 10);
    assert!(seats.values().all(|seats| (35..=85).contains(seats)), "60 expected of each: {seats:?}");
}

/// L-1, T-21: a drawn coordinator's word is free, once; whatever else it says costs as always.
#[test]
fn a_coordinators_word_is_free_once() {
    let mut net = net_with(|p| p.base_fee_unit = Amount(1_000), 6);
    let submit = elsewhere(&net);
    let id = place(&mut net, submit);
    let drawn = sample(&mut net, id);
    assert_eq!(net.free(drawn[0]), Amount::ZERO);
    let tx = net.clone().tx(drawn[0], confirm(id));
    assert_eq!(check_for_mempool(&net.state, &tx), Ok(()));
    let receipt = net.block_after(100, vec![(drawn[0], confirm(id))]).receipts.remove(0);
    assert_eq!((receipt.error, receipt.fee), (None, Amount::ZERO));
    let fee = Amount(u128::from(1_000 * confirm(id).units()));
    let unpayable = E::BaseFeeUnpayable { fee, free: Amount::ZERO };
    let again = net.clone().tx(drawn[0], confirm(id));
    assert_eq!(check_for_mempool(&net.state, &again), Err(unpayable.clone()));
    assert_eq!(net.call(drawn[0], confirm(id)), Err(unpayable));
    let other = net.block_after(100, vec![(CLIENT, confirm(id))]).receipts.remove(0);
    assert_eq!((other.error, other.fee), (Some(E::NotDrawn), fee));
}

/// T-17: an order that ends while its input is looked for lets its coordinators go; nothing of it stays.
#[test]
fn an_order_that_ends_early_lets_its_coordinators_go() {
    for drawn_first in [true, false] {
        let mut net = net_with(|p| p.cancel_after_ms = 0, 6);
        let submit = elsewhere(&net);
        let id = place(&mut net, submit);
        if drawn_first {
            sample(&mut net, id);
        }
        net.ok(vec![(CLIENT, Call::OrderCancel { order: id })]);
        let order = net.get(&id);
        assert!(matches!(order.state, OrderState::Refunded { .. }));
        assert_eq!(order.availability, Availability::NotShown);
        let waiting = (0..6).flat_map(|n| query::inputs_to_fetch(&net.state, &coordinator(n)));
        assert_eq!(waiting.count(), 0);
        net.wait(30_000);
        assert!(!query::wants_beacon(&net.state), "nothing waits for a beacon any more");
        assert_eq!(query::order(&net.state, &id), None, "pruned");
        assert_eq!(net.free(CLIENT), alth("1000"));
    }
}
