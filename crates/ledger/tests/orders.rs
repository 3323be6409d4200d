//! Orders of both lanes, by rule id.

#![allow(clippy::unwrap_used)] // helpers of tests

mod support;

use althing_ledger::query;
use althing_types::{
    Amount, Call, ContentSource, ContentSourceError, Event, Hash, Input, Lane, LedgerError as E, OrderState,
    RefundReason, call::OrderSubmit, event::PaymentKind, object::SEED_MODULUS,
};
use support::*;

/// An input that can be had there.
fn at(source: &str) -> Input {
    Input::Content { cid: output("elsewhere"), size: 9, source: Some(ContentSource(source.into())) }
}

fn source_invalid(error: ContentSourceError) -> E {
    E::SourceInvalid { reason: error.to_string() }
}

/// T-1: every way in which a submission is refused, and that nothing is taken then.
#[test]
fn a_wrong_submission_is_refused_and_costs_nothing() {
    let mut net = Net::new(2);
    let good = net.submit("4");
    let now = net.block.time_ms + 100;
    let p = params();
    let (min_ms, max_ms) = (now + p.deadline_min_ms, now + p.deadline_max_ms);
    let unknown = althing_types::ModelId([9; 32]);
    type Change = Box<dyn Fn(&mut OrderSubmit)>;
    let unverifiable = net.unverifiable;
    let rows: Vec<(Change, E)> = vec![
        (Box::new(move |o| o.model = unknown), E::UnknownModel(unknown)),
        (Box::new(|o| o.fee = alth("0.5")), E::FeeBelowModelFee { fee: alth("0.5"), model_fee: alth("1") }),
        (Box::new(|o| o.max_total = alth("3")), E::FeeAboveMaxTotal { fee: alth("4"), max_total: alth("3") }),
        (Box::new(|o| o.input = Input::Inline { bytes: vec![0; 4097] }), E::InputTooLarge { max: 4096, got: 4097 }),
        (Box::new(|o| o.input = at("gateway.example")), source_invalid(ContentSourceError::Scheme)),
        (Box::new(|o| o.input = at("http://")), source_invalid(ContentSourceError::Host)),
        (Box::new(|o| o.input = at("http://a b")), source_invalid(ContentSourceError::Character)),
        (Box::new(|o| o.input = at("http://me:secret@a")), source_invalid(ContentSourceError::UserInfo)),
        (Box::new(|o| o.input = at("http://a/?token=secret")), source_invalid(ContentSourceError::Query)),
        (
            Box::new(|o| o.input = at(&format!("http://a/{}", "a".repeat(248)))),
            source_invalid(ContentSourceError::TooLong),
        ),
        (Box::new(|o| o.deadline_ms = 5), E::DeadlineOutOfRange { min_ms, max_ms }),
        (Box::new(|o| o.seed = Some(SEED_MODULUS)), E::SeedOutOfRange { max: SEED_MODULUS }),
        (Box::new(|o| o.agreements = 5), E::TooManyAgreementsWanted { max: 4 }),
        (Box::new(move |o| o.model = unverifiable), E::NotVerifiable), // T-20
        (Box::new(|o| o.lane = Lane::Chosen { provider: provider(77) }), E::NotProvider),
        (
            Box::new(|o| (o.fee, o.max_total) = (alth("1001"), alth("1001"))),
            E::InsufficientBalance { needed: alth("1001"), free: alth("1000") },
        ),
    ];
    for (change, expected) in rows {
        let mut copy = net.clone();
        let mut submit = good.clone();
        change(&mut submit);
        assert_eq!(copy.call(CLIENT, Call::OrderSubmit(submit)), Err(expected));
        assert_eq!(copy.free(CLIENT), alth("1000"));
    }
    net.ok(vec![(CLIENT, Call::OrderSubmit(good))]);
    assert_eq!(net.free(CLIENT), alth("996"), "the fee is escrowed");
}

/// T-2: ids chain, and the seed comes from a beacon at least two views after inclusion.
#[test]
fn the_seed_is_drawn_by_a_later_beacon() {
    let mut net = Net::new(1);
    let submit = net.submit("4");
    let output = net.block_after(100, vec![(CLIENT, Call::OrderSubmit(submit))]);
    let id = output.receipts[0].order.unwrap();
    let included = net.block.view;
    let commit = net.commit_call(id, provider(1), "x");
    assert_eq!(net.call(provider(1), commit), Err(E::SeedUnknown));
    while net.get(&id).seed.is_none() {
        assert!(net.block.beacon_view < included + 2);
        net.wait(100);
    }
    assert_eq!(net.block.beacon_view, included + 2);
    let seed = net.get(&id).seed.unwrap();
    assert_eq!(seed, althing_ledger::seed_of(&id, &net.block.beacon));
    assert!(seed < SEED_MODULUS);
    assert!(!net.get(&id).seed_by_client);
}

/// T-2: seeds by hand: (digest mod modulus), against arithmetic on the whole 256-bit number.
#[test]
fn a_seed_is_the_digest_modulo_two_to_the_53_minus_16() {
    let id = althing_types::OrderId([3; 32]);
    let beacon = Hash([4; 32]);
    let digest = Hash::of(&[id.as_bytes(), beacon.as_bytes()]).0;
    let mut rest = 0u128;
    for chunk in digest.chunks(4) {
        rest = ((rest << 32) | u128::from(u32::from_be_bytes(chunk.try_into().unwrap()))) % u128::from(SEED_MODULUS);
    }
    assert_eq!(u128::from(althing_ledger::seed_of(&id, &beacon)), rest);
}

/// T-2: a client may fix the seed; nothing is drawn then.
#[test]
fn a_client_can_fix_the_seed() {
    let mut net = Net::new(1);
    let submit = OrderSubmit { seed: Some(42), ..net.submit("4") };
    let id = net.order(submit);
    assert_eq!((net.get(&id).seed, net.get(&id).seed_by_client), (Some(42), true));
}

/// T-3: the whole table of commitments and reveals.
#[test]
fn reveals_need_a_matching_commitment_from_an_earlier_block() {
    let mut net = Net::new(5);
    let id = net.open_order();
    let commit = |net: &Net, n| (provider(n), net.commit_call(id, provider(n), "a"));
    let reveal = |net: &Net, n, answer| (provider(n), net.reveal_call(id, provider(n), answer));
    let both = vec![commit(&net, 1), reveal(&net, 1, "a"), commit(&net, 1), commit(&net, 2)];
    assert_eq!(net.block(both), [Ok(()), Err(E::RevealTooEarly), Err(E::CommitmentExists), Ok(())]);
    let rows = vec![
        reveal(&net, 1, "b"),
        reveal(&net, 3, "a"),
        reveal(&net, 2, "a"),
        commit(&net, 3),
        reveal(&net, 1, "a"),
        reveal(&net, 1, "a"),
    ];
    assert_eq!(
        net.block(rows),
        [
            Err(E::CommitmentMismatch),
            Err(E::NoCommitment),
            Ok(()),
            Err(E::WrongState { state: "solved".into() }),
            Ok(()),
            Err(E::NoCommitment),
        ]
    );
    let order = net.get(&id);
    assert_eq!(order.solutions[0].provider, provider(2), "the first reveal stands");
    assert_eq!(order.solutions[1].provider, provider(1), "the other waits behind it");
}

/// T-3: at most three reveals are kept, those behind the first in commitment order.
#[test]
fn three_reveals_are_kept_in_commitment_order() {
    let mut net = Net::new(5);
    let id = net.open_order();
    net.ok((1..=4).map(|n| (provider(n), net.commit_call(id, provider(n), "a"))).collect());
    let reveal = |n| (provider(n), net.reveal_call(id, provider(n), "a"));
    let calls = [4, 3, 1, 2].map(reveal).to_vec();
    let expected = [Ok(()), Ok(()), Ok(()), Err(E::WrongState { state: "solved".into() })];
    assert_eq!(net.block(calls), expected);
    let kept: Vec<_> = net.get(&id).solutions.iter().map(|s| s.provider).collect();
    assert_eq!(kept, [provider(4), provider(1), provider(3)]);
}

/// T-4, T-5, V-1: claims run by themselves at the window's end and divide the fee.
#[test]
fn a_claim_pays_everyone_at_the_end_of_the_window() {
    let mut net = Net::new(3);
    let id = net.open_order();
    net.solve(id, provider(1), "a");
    assert_eq!(net.agree(id, provider(2), "a"), Ok(()));
    assert_eq!(net.agree(id, provider(3), "a"), Ok(()), "an agreement that nobody asked for is welcome, unpaid");
    net.wait(7_799);
    assert!(matches!(net.get(&id).state, OrderState::Solved { .. }));
    net.wait(1);
    assert_eq!(net.get(&id).state, OrderState::Claimed);
    // Fee 4: model 1; of the other 3: 10 % treasury, 2 % coordinators, 10 % agreement.
    let rows = [(PAYEE, "1"), (provider(1), "102.34"), (provider(2), "100.3"), (provider(3), "100"), (CLIENT, "996")];
    for (who, free) in rows {
        assert_eq!(net.free(who), alth(free), "{who}");
    }
    let supply = query::supply(&net.state);
    assert_eq!((supply.treasury, supply.coordinators, supply.escrowed), (alth("0.3"), alth("0.06"), Amount::ZERO));
    let paid: Amount =
        net.events.iter().filter_map(|e| if let Event::Paid { amount, .. } = e { Some(*amount) } else { None }).sum();
    assert_eq!(paid, alth("4"), "every unit of the fee has an event");
    assert_eq!(query::model(&net.state, &net.model).unwrap().runs, 1);
}

/// T-5: the paper's settlement numbers: fee 4, model fee 3 → model 3, treasury 0.1, provider 0.9.
#[test]
fn the_papers_settlement_comes_out() {
    let mut p = params();
    p.coordinator_fee = althing_types::Ppm(0);
    let mut net = Net::with(1, "1000", p);
    net.ok(vec![(OWNER, Call::ModelTermsSet { model: net.model, fee: alth("3"), payee: PAYEE })]);
    let id = net.open_order();
    net.solve(id, provider(1), "a");
    net.wait(8_000);
    assert_eq!(net.free(PAYEE), alth("3"));
    assert_eq!(query::supply(&net.state).treasury, alth("0.1"));
    assert_eq!(net.free(provider(1)), alth("100.9"));
}

/// T-5: shares round down and the remainder is the provider's.
#[test]
fn dust_goes_to_the_provider() {
    let mut net = Net::new(2);
    let fee = Amount(Amount::TOKEN.0 + 7);
    let submit = OrderSubmit { fee, max_total: fee, ..net.submit("4") };
    let id = net.order(submit);
    net.solve(id, provider(1), "a");
    assert_eq!(net.agree(id, provider(2), "a"), Ok(()));
    net.wait(8_000);
    assert_eq!(net.free(provider(1)), Amount(alth("100").0 + 7));
}

/// T-13: the terms at submission bind the order.
#[test]
fn later_terms_do_not_touch_an_order() {
    let mut net = Net::new(1);
    let id = net.open_order();
    net.ok(vec![(OWNER, Call::ModelTermsSet { model: net.model, fee: alth("50"), payee: CLIENT })]);
    net.solve(id, provider(1), "a");
    net.wait(8_000);
    assert_eq!(net.free(PAYEE), alth("1"));
    assert_eq!(
        net.call(CLIENT, Call::ModelTermsSet { model: net.model, fee: alth("0"), payee: CLIENT }),
        Err(E::NotOwner)
    );
}

/// T-17: an order that nobody solves expires at its deadline and is refunded in full.
#[test]
fn an_unsolved_order_expires_and_is_refunded() {
    let mut net = Net::new(1);
    let id = net.open_order();
    net.wait(60_000);
    assert_eq!(net.get(&id).state, OrderState::Refunded { reason: RefundReason::Expired });
    assert_eq!(net.free(CLIENT), alth("1000"));
    let refunds = net.events.iter().filter(|e| matches!(e, Event::Paid { kind: PaymentKind::Refund, .. })).count();
    assert_eq!(refunds, 1);
}

/// T-17: cancelling waits for its time and for open commitments, and can still be overtaken.
#[test]
fn cancelling_takes_effect_when_open_commitments_are_over() {
    let mut net = Net::new(2);
    let id = net.open_order();
    let from_ms = net.get(&id).submitted_ms + params().cancel_after_ms;
    let cancel = Call::OrderCancel { order: id };
    assert_eq!(net.call(CLIENT, cancel.clone()), Err(E::CancelTooEarly { from_ms }));
    let commit = net.commit_call(id, provider(1), "a");
    net.ok(vec![(provider(1), commit)]);
    net.wait(5_000);
    assert_eq!(net.call(provider(2), cancel.clone()), Err(E::NotClient));
    assert_eq!(net.call(CLIENT, cancel), Ok(()));
    let late = net.commit_call(id, provider(2), "a");
    assert_eq!(net.call(provider(2), late), Err(E::ClosedToCommitments));
    assert_eq!(net.get(&id).state, OrderState::Submitted, "the commitment holds it open");
    net.wait(30_000);
    assert_eq!(net.get(&id).state, OrderState::Refunded { reason: RefundReason::Cancelled });
    assert_eq!(net.free(CLIENT), alth("1000"));

    let id = net.open_order();
    let commit = net.commit_call(id, provider(1), "a");
    net.ok(vec![(provider(1), commit)]);
    net.wait(5_000);
    let reveal = net.reveal_call(id, provider(1), "a");
    net.ok(vec![(CLIENT, Call::OrderCancel { order: id }), (provider(1), reveal)]);
    net.wait(8_000);
    assert_eq!(net.get(&id).state, OrderState::Claimed, "work that was promised in time is paid");
}

/// T-17: a deadline does not cut off a commitment made before it.
#[test]
fn a_commitment_made_in_time_may_be_revealed_after_the_deadline() {
    let mut net = Net::new(1);
    let id = net.open_order();
    net.wait(50_000);
    let commit = net.commit_call(id, provider(1), "a");
    net.ok(vec![(provider(1), commit)]);
    net.wait(15_000);
    assert_eq!(net.get(&id).state, OrderState::Submitted);
    let reveal = net.reveal_call(id, provider(1), "a");
    net.ok(vec![(provider(1), reveal)]);
}

/// Chosen lane: accept, deliver, claim; and each wrong caller or moment.
#[test]
fn a_chosen_order_is_accepted_delivered_and_claimed() {
    let mut net = Net::new(2);
    let chosen =
        |net: &Net| OrderSubmit { lane: Lane::Chosen { provider: provider(1) }, seed: Some(1), ..net.submit("4") };
    let submit = chosen(&net);
    let id = net.order(submit);
    let done = Call::OrderComplete { order: id, output: output("a"), output_size: 1 };
    let commit = net.commit_call(id, provider(2), "a");
    assert_eq!(net.call(provider(2), commit), Err(E::WrongLane));
    assert_eq!(net.call(provider(2), Call::OrderAccept { order: id }), Err(E::NotChosenProvider));
    assert!(matches!(net.call(provider(1), done.clone()), Err(E::WrongState { .. })), "accept first");
    net.ok(vec![(provider(1), Call::OrderAccept { order: id })]);
    net.ok(vec![(provider(1), done)]);
    assert_eq!(net.agree(id, provider(2), "a"), Ok(()), "a chosen answer can be checked too");
    net.wait(8_000);
    assert_eq!(net.get(&id).state, OrderState::Claimed);
    assert_eq!(net.get(&id).claimed_by, Some(provider(1)));
}

/// T-20: nobody can check it, so it is no ground for a slash; its provider stands for it all the same.
#[test]
fn an_answer_that_nobody_can_check_is_neither_agreed_with_nor_contested() {
    let mut net = Net::new(2);
    let models = vec![net.model, net.unverifiable];
    net.ok(vec![(provider(1), Call::ModelSupport { models, endpoint: "http://127.0.0.1:1".into() })]);
    let submit = OrderSubmit {
        model: net.unverifiable,
        lane: Lane::Chosen { provider: provider(1) },
        agreements: 0,
        seed: Some(1),
        ..net.submit("4")
    };
    let raced = OrderSubmit { agreements: 1, ..submit.clone() };
    assert_eq!(net.call(CLIENT, Call::OrderSubmit(raced)), Err(E::NotVerifiable), "agreements never come");
    let id = net.order(submit);
    net.ok(vec![(provider(1), Call::OrderAccept { order: id })]);
    net.ok(vec![(provider(1), Call::OrderComplete { order: id, output: output("a"), output_size: 1 })]);
    assert_eq!(net.agree(id, provider(2), "a"), Err(E::NotVerifiable));
    assert_eq!(net.call(provider(2), Call::Contest { order: id, ballot: None }), Err(E::NotVerifiable));
    net.wait(8_000);
    assert_eq!(net.get(&id).state, OrderState::Claimed);
}

/// T-17: a chosen provider that never accepts, or never delivers, leaves the client with its money.
#[test]
fn a_chosen_order_left_alone_is_refunded() {
    let mut net = Net::new(1);
    let chosen =
        |net: &Net| OrderSubmit { lane: Lane::Chosen { provider: provider(1) }, seed: Some(1), ..net.submit("4") };
    let submit = chosen(&net);
    let id = net.order(submit);
    net.wait(10_000);
    assert_eq!(net.get(&id).state, OrderState::Refunded { reason: RefundReason::Expired });
    let submit = chosen(&net);
    let id = net.order(submit);
    net.ok(vec![(provider(1), Call::OrderAccept { order: id })]);
    net.wait(20_000);
    assert!(matches!(net.get(&id).state, OrderState::Accepted { .. }));
    net.wait(60_000);
    assert_eq!(net.get(&id).state, OrderState::Refunded { reason: RefundReason::Expired });
    assert_eq!(net.free(CLIENT), alth("1000"));
}

/// V-1: who may agree, and when.
#[test]
fn agreements_are_by_others_who_were_bonded_before_and_match_the_standing_output() {
    let mut net = Net::new(3);
    net.ok(vec![(provider(3), Call::Transfer { to: provider(9), amount: alth("50") })]);
    let id = net.open_order();
    assert!(matches!(net.agree(id, provider(2), "a"), Err(E::WrongState { .. })));
    net.solve(id, provider(1), "a");
    net.ok(vec![(provider(9), Call::Bond { amount: alth("40") })]);
    assert_eq!(net.agree(id, provider(1), "a"), Err(E::OwnOrder));
    assert_eq!(net.agree(id, provider(2), "b"), Err(E::OutputDiffers { standing: output("a").to_string() }));
    assert_eq!(net.agree(id, provider(9), "a"), Err(E::BondedTooLate));
    assert_eq!(net.agree(id, provider(8), "a"), Err(E::NotProvider));
    assert_eq!(net.agree(id, provider(2), "a"), Ok(()));
    assert_eq!(net.agree(id, provider(2), "a"), Err(E::AgreementExists));
    net.wait(8_000);
    assert!(matches!(net.agree(id, provider(3), "a"), Err(E::WrongState { .. })));
}

/// T-15: a chain of orders is at most sixteen deep.
#[test]
fn parents_form_chains_of_bounded_depth() {
    let mut net = Net::new(1);
    let mut parent = None;
    for _ in 0..=16 {
        let submit = OrderSubmit { parent, seed: Some(1), ..net.submit("1") };
        parent = Some(net.order(submit));
    }
    let submit = OrderSubmit { parent, ..net.submit("1") };
    assert_eq!(net.call(CLIENT, Call::OrderSubmit(submit)), Err(E::ParentTooDeep { max: 16 }));
}

/// Finished orders leave the state after their time, and only they.
#[test]
fn finished_orders_are_pruned() {
    let mut p = params();
    p.order_retention_ms = 1_000;
    let mut net = Net::with(1, "1000", p);
    let id = net.open_order();
    net.solve(id, provider(1), "a");
    net.wait(8_000);
    assert_eq!(net.get(&id).state, OrderState::Claimed);
    net.wait(1_000);
    assert!(query::order(&net.state, &id).is_none());
    assert_eq!(query::order_count(&net.state), 1);
}

/// L-2: more due items than a block works off continue in the next one, by their own time.
#[test]
fn due_work_is_bounded_and_continues() {
    let mut p = params();
    p.due_items_max = 2;
    let mut net = Net::with(1, "1000", p);
    let ids: Vec<_> = (0..5)
        .map(|_| {
            let s = OrderSubmit { seed: Some(1), ..net.submit("1") };
            net.order(s)
        })
        .collect();
    net.wait(60_000);
    let refunded = |net: &Net| ids.iter().filter(|id| net.get(id).state.is_final()).count();
    assert_eq!(refunded(&net), 2);
    net.wait(1);
    assert_eq!(refunded(&net), 4);
    net.wait(1);
    assert_eq!(refunded(&net), 5);
}
