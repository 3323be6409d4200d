//! Disputes, slashing, jail, by rule id.

#![allow(clippy::unwrap_used)] // helpers of tests

mod support;

use althing_ledger::query;
use althing_types::{Amount, Call, LedgerError as E, OrderId, OrderState, Outcome, Ppm, RefundReason};
use support::*;

fn contest(net: &mut Net, id: OrderId, n: u8) -> Result<(), E> {
    net.call(provider(n), Call::Contest { order: id, ballot: None })
}

fn vote(net: &mut Net, id: OrderId, n: u8, refute: bool) -> Result<(), E> {
    net.call(provider(n), Call::Vote { order: id, refute })
}

/// T-8: the paper's numbers: four bonds of 2.4, slash 0.3 each, 50 % to the leader, 50 % to the
/// other winning voters; and the mirrored case.
#[test]
fn the_papers_contests_come_out() {
    let mut p = params();
    (p.slash_leader, p.slash_jurors, p.bond_min) = (Ppm(500_000), Ppm(500_000), alth("1"));
    for refuted in [true, false] {
        let mut net = Net::with(4, "2.4", p.clone());
        let id = net.open_order();
        net.solve(id, provider(1), "a");
        assert_eq!(contest(&mut net, id, 2), Ok(()));
        assert_eq!(vote(&mut net, id, 3, refuted), Ok(()));
        assert_eq!(vote(&mut net, id, 4, refuted), Ok(()));
        net.wait(8_000);
        let (loser, leader) = if refuted { (provider(1), provider(2)) } else { (provider(2), provider(1)) };
        assert_eq!(net.bond(loser), alth("2.1"));
        assert_eq!(net.bond(leader), alth("2.4"));
        let won = |who| net.free(who).checked_sub(alth("100")).unwrap();
        let fee = if refuted { Amount::ZERO } else { alth("2.64") };
        assert_eq!(won(leader), alth("0.15").checked_add(fee).unwrap());
        assert_eq!((won(provider(3)), won(provider(4))), (alth("0.075"), alth("0.075")));
        let outcome = if refuted { Outcome::Refuted } else { Outcome::Upheld };
        assert_eq!(query::case(&net.state, &id).unwrap().outcome, Some(outcome));
    }
}

/// T-8 by default: leader 40 %, jurors 30 % by weight, treasury 30 %, dust to the leader.
#[test]
fn the_default_division_has_a_treasury_share() {
    let mut net = Net::new(4);
    let id = net.open_order();
    net.solve(id, provider(1), "lie");
    assert_eq!(contest(&mut net, id, 2), Ok(()));
    assert_eq!(vote(&mut net, id, 3, true), Ok(()));
    net.wait(8_000);
    // The solver's weight is 1000, its slash 125.
    assert_eq!(net.bond(provider(1)), alth("875"));
    assert_eq!(net.free(provider(2)), alth("150"));
    assert_eq!(net.free(provider(3)), alth("137.5"));
    assert_eq!(query::supply(&net.state).treasury, alth("37.5"));
}

/// T-8: a refuted answer is refunded in full when nobody stands behind it, and its solver jailed.
#[test]
fn a_refuted_answer_is_refunded_and_its_solver_jailed() {
    let mut net = Net::new(3);
    let id = net.open_order();
    net.solve(id, provider(1), "lie");
    assert_eq!(contest(&mut net, id, 2), Ok(()));
    assert_eq!(vote(&mut net, id, 3, true), Ok(()));
    net.wait(8_000);
    assert_eq!(net.get(&id).state, OrderState::Refunded { reason: RefundReason::Refuted });
    assert_eq!(net.free(CLIENT), alth("1000"));
    let until_ms = query::provider(&net.state, &provider(1)).unwrap().jailed_until_ms;
    let next = net.open_order();
    let commit = net.commit_call(next, provider(1), "a");
    assert_eq!(net.call(provider(1), commit.clone()), Err(E::Jailed { until_ms }));
    net.wait(until_ms - net.block.time_ms);
    let next = net.open_order();
    let commit = net.commit_call(next, provider(1), "a");
    assert_eq!(net.call(provider(1), commit), Ok(()), "jail ends");
}

/// T-3, T-8: the next reveal replaces a refuted one and gets a window of its own.
#[test]
fn the_next_reveal_replaces_a_refuted_one() {
    let mut net = Net::new(4);
    let id = net.open_order();
    let calls = vec![
        (provider(1), net.commit_call(id, provider(1), "lie")),
        (provider(2), net.commit_call(id, provider(2), "truth")),
    ];
    net.ok(calls);
    let calls = vec![
        (provider(1), net.reveal_call(id, provider(1), "lie")),
        (provider(2), net.reveal_call(id, provider(2), "truth")),
    ];
    net.ok(calls);
    assert_eq!(contest(&mut net, id, 3), Ok(()));
    assert_eq!(vote(&mut net, id, 4, true), Ok(()));
    net.wait(8_000);
    let order = net.get(&id);
    assert_eq!(order.solutions.len(), 1);
    assert_eq!(order.solutions[0].output, output("truth"));
    assert_eq!(order.state, OrderState::Solved { claim_at_ms: net.block.time_ms + 8_000 });
    assert_eq!(net.agree(id, provider(4), "truth"), Ok(()));
    net.wait(8_000);
    assert_eq!(net.get(&id).claimed_by, Some(provider(2)));
}

/// T-7: a tie upholds, and so does silence when weights are equal.
#[test]
fn a_tie_upholds() {
    let mut net = Net::new(2);
    let id = net.open_order();
    net.solve(id, provider(1), "a");
    assert_eq!(contest(&mut net, id, 2), Ok(()));
    net.wait(8_000);
    assert_eq!(net.bond(provider(2)), alth("875"), "the contester alone loses");
    assert_eq!(net.get(&id).state, OrderState::Claimed, "the window is over, so it is claimed in the same block");
}

/// T-7, T-9, T-18: who may contest and vote, and when.
#[test]
fn contests_and_votes_are_checked() {
    let mut net = Net::new(5);
    net.ok(vec![(provider(5), Call::Transfer { to: provider(9), amount: alth("60") })]);
    let id = net.open_order();
    assert_eq!(contest(&mut net, id, 2), Err(E::NoSolution));
    assert_eq!(contest(&mut net, OrderId([9; 32]), 2), Err(E::UnknownOrder(OrderId([9; 32]))));
    net.solve(id, provider(1), "a");
    net.ok(vec![(provider(9), Call::Bond { amount: alth("50") })]);
    assert_eq!(net.agree(id, provider(4), "a"), Ok(()));
    assert_eq!(contest(&mut net, id, 1), Err(E::OwnOrder));
    assert_eq!(contest(&mut net, id, 4), Err(E::AgreedBefore));
    assert_eq!(contest(&mut net, id, 9), Err(E::BondedTooLate));
    assert_eq!(vote(&mut net, id, 3, true), Err(E::NoCase));
    assert_eq!(contest(&mut net, id, 2), Ok(()));
    assert_eq!(contest(&mut net, id, 3), Err(E::WrongState { state: "contested".into() }));
    assert_eq!(vote(&mut net, id, 1, false), Err(E::VoteExists), "the solver's vote is cast");
    assert_eq!(vote(&mut net, id, 2, true), Err(E::VoteExists));
    assert_eq!(vote(&mut net, id, 4, false), Err(E::VoteExists), "an agreement is a vote");
    assert_eq!(vote(&mut net, id, 9, false), Err(E::BondedTooLate));
    assert_eq!(vote(&mut net, id, 3, true), Ok(()));
    assert_eq!(vote(&mut net, id, 3, true), Err(E::VoteExists));
    net.wait(8_000);
    assert_eq!(vote(&mut net, id, 5, true), Err(E::NoCase));
}

/// T-4: the window is (s, s + W]; after it nothing can be contested.
#[test]
fn a_claimed_answer_cannot_be_contested() {
    let mut net = Net::new(3);
    let id = net.open_order();
    net.solve(id, provider(1), "a");
    let OrderState::Solved { claim_at_ms } = net.get(&id).state else { panic!("solved") };
    net.wait(claim_at_ms - net.block.time_ms - 101);
    assert_eq!(contest(&mut net, id, 2), Ok(()), "the last moment counts");
    net.wait(8_000);
    assert_eq!(contest(&mut net, id, 3), Err(E::NoSolution));
}

/// V-1: agreements with a refuted answer are slashed like losing votes.
#[test]
fn agreeing_with_a_lie_costs_like_a_losing_vote() {
    let mut net = Net::new(5);
    let id = net.open_order();
    net.solve(id, provider(1), "lie");
    assert_eq!(net.agree(id, provider(2), "lie"), Ok(()));
    assert_eq!(contest(&mut net, id, 3), Ok(()));
    assert_eq!(vote(&mut net, id, 4, true), Ok(()));
    assert_eq!(vote(&mut net, id, 5, true), Ok(()));
    net.wait(8_000);
    assert_eq!((net.bond(provider(1)), net.bond(provider(2))), (alth("875"), alth("875")));
    assert_eq!(net.free(provider(3)), alth("200"), "40 % of 250");
}

/// T-8: all other unclaimed solutions of a refuted solver are voided and refunded.
#[test]
fn a_refuted_solver_loses_its_other_solutions() {
    let mut net = Net::new(4);
    let lie = net.open_order();
    let other = net.open_order();
    let behind = net.open_order();
    net.solve(other, provider(1), "b");
    assert_eq!(net.agree(other, provider(2), "b"), Ok(()));
    let calls = vec![
        (provider(2), net.commit_call(behind, provider(2), "c")),
        (provider(1), net.commit_call(behind, provider(1), "c")),
    ];
    net.ok(calls);
    let calls = vec![
        (provider(2), net.reveal_call(behind, provider(2), "c")),
        (provider(1), net.reveal_call(behind, provider(1), "c")),
    ];
    net.ok(calls);
    net.solve(lie, provider(1), "lie");
    assert_eq!(contest(&mut net, lie, 3), Ok(()));
    assert_eq!(vote(&mut net, lie, 4, true), Ok(()));
    // Both windows would end before the votes are counted if they were not contested later.
    let before = net.get(&other).state;
    assert!(matches!(before, OrderState::Solved { .. }));
    net.wait(8_000);
    assert_eq!(net.get(&lie).state, OrderState::Refunded { reason: RefundReason::Refuted });
    let states = (net.get(&other).state, net.get(&behind).state);
    assert_eq!(states.0, OrderState::Refunded { reason: RefundReason::Voided });
    assert_eq!(states.1, OrderState::Claimed, "the standing solution was another's");
    let reserved = query::provider(&net.state, &provider(1)).unwrap().reserved;
    assert_eq!(reserved, Amount::ZERO);
}

/// T-9: reservations shrink what further claims weigh, below the minimum there is no new work, and
/// reserved amounts cannot leave.
#[test]
fn reservations_bound_exposure() {
    let mut p = params();
    p.bond_min = alth("800");
    let mut net = Net::with(2, "1000", p);
    let first = net.open_order();
    let second = net.open_order();
    let third = net.open_order();
    net.solve(first, provider(1), "a");
    assert_eq!(net.get(&first).solutions[0].reserved, alth("125"));
    net.solve(second, provider(1), "a");
    assert_eq!(net.get(&second).solutions[0].weight, alth("875"));
    assert_eq!(net.get(&second).solutions[0].reserved, alth("109.375"));
    let commit = net.commit_call(third, provider(1), "a");
    assert_eq!(net.call(provider(1), commit), Err(E::BondTooSmall { bond: alth("765.625"), min: alth("800") }));
    let unbond = Call::Unbond { amount: alth("766") };
    assert_eq!(net.call(provider(1), unbond), Err(E::BondReserved { available: alth("765.625") }));
    net.wait(8_000);
    assert_eq!(query::provider(&net.state, &provider(1)).unwrap().reserved, Amount::ZERO);
}

/// T-18: a case keeps the parameters that it opened with, and an upheld one can be contested again
/// while its window lasts.
#[test]
fn an_upheld_answer_can_be_contested_again_in_its_window() {
    let mut p = params();
    (p.challenge_window_ms, p.unbonding_ms) = (20_000, 60_000);
    let mut net = Net::with(4, "1000", p);
    let id = net.open_order();
    net.solve(id, provider(1), "lie");
    assert_eq!(contest(&mut net, id, 2), Ok(()));
    net.wait(8_000);
    assert!(matches!(net.get(&id).state, OrderState::Solved { .. }), "upheld, window still open");
    assert_eq!(contest(&mut net, id, 3), Ok(()));
    assert_eq!(vote(&mut net, id, 4, true), Ok(()));
    net.wait(8_000);
    assert_eq!(net.get(&id).state, OrderState::Refunded { reason: RefundReason::Refuted });
}

/// T-10: a bond leaves after the unbonding time, which outlasts window and vote.
#[test]
fn unbonding_takes_its_time_and_gives_back_everything() {
    let mut net = Net::new(1);
    net.ok(vec![(provider(1), Call::Unbond { amount: alth("400") })]);
    assert_eq!((net.bond(provider(1)), net.free(provider(1))), (alth("600"), alth("100")));
    net.wait(59_999);
    assert_eq!(net.free(provider(1)), alth("100"));
    net.wait(1);
    assert_eq!(net.free(provider(1)), alth("500"));
}

/// T-7: a bond made after the solution appeared weighs nothing, and one that shrank weighs the less.
#[test]
fn weights_are_the_smaller_of_then_and_now() {
    let mut net = Net::new(3);
    let id = net.open_order();
    net.solve(id, provider(1), "a");
    net.ok(vec![
        (provider(2), Call::Bond { amount: alth("100") }),
        (provider(3), Call::Unbond { amount: alth("300") }),
    ]);
    assert_eq!(contest(&mut net, id, 2), Ok(()));
    assert_eq!(vote(&mut net, id, 3, true), Ok(()));
    let votes = query::case(&net.state, &id).unwrap().votes;
    let weights: Vec<_> = votes.iter().map(|v| v.weight).collect();
    assert_eq!(weights, [alth("1000"), alth("1000"), alth("700")]);
}

#[test]
fn a_standstill_of_the_chain_closes_no_window_and_no_vote() {
    // T-4, T-7: however long the chain stands still, everybody can act after it.
    let mut net = Net::new(4);
    let id = net.open_order();
    net.solve(id, provider(1), "wrong");
    net.jump(86_400_000, vec![]);
    assert!(matches!(net.get(&id).state, OrderState::Solved { .. }), "a day without blocks is no challenge window");
    net.ok(vec![(provider(2), Call::Contest { order: id, ballot: None })]);
    net.jump(86_400_000, vec![]);
    net.ok(vec![(provider(3), Call::Vote { order: id, refute: true })]);
    net.wait(net_params_voting());
    assert_eq!(net.get(&id).state, OrderState::Refunded { reason: RefundReason::Refuted });
}

fn net_params_voting() -> u64 {
    support::params().voting_period_ms
}

/// T-4, T-7: the window is (s, s + W]: its last moment counts for contests and agreements, and an answer
/// that is not contested then is paid out in that block.
#[test]
fn the_window_ends_at_its_moment() {
    for (after_ms, contested) in [(0, true), (0, false), (1, false)] {
        let mut net = Net::new(3);
        let id = net.open_order();
        net.solve(id, provider(1), "a");
        let OrderState::Solved { claim_at_ms } = net.get(&id).state else { panic!("not solved") };
        net.wait(claim_at_ms - net.block.time_ms - 500);
        let agree = Call::Agree { order: id, output: output("a") };
        let mut calls = vec![(provider(3), agree)];
        if contested || after_ms > 0 {
            calls.push((provider(2), Call::Contest { order: id, ballot: None }));
        }
        let expected = if after_ms == 0 { Ok(()) } else { Err(E::WindowClosed) };
        for receipt in net.block_after(500 + after_ms, calls).receipts {
            assert_eq!(receipt.error.map_or(Ok(()), Err), expected, "{}, {after_ms} ms after", receipt.call);
        }
        assert_eq!(net.get(&id).state == OrderState::Claimed, !contested);
    }
}

/// Open cases are listed once each, the one that is counted first before the others, until they are
/// counted; a case leaves the state with its order.
#[test]
fn cases_are_listed_while_they_are_open_and_leave_with_their_orders() {
    let mut net = Net::with(3, "1000", althing_types::Params { order_retention_ms: 20_000, ..params_committed() });
    let (first, second) = (net.open_order(), net.open_order());
    net.solve(first, provider(1), "a");
    net.solve(second, provider(1), "b");
    let listed = |net: &Net| query::cases_open(&net.state, 10).iter().map(|case| case.order).collect::<Vec<_>>();
    assert!(listed(&net).is_empty() && !query::wants_beacon(&net.state));
    for id in [second, first] {
        let call = net.contest_call(id, provider(2), "c");
        net.ok(vec![(provider(2), call)]);
        assert!(query::wants_beacon(&net.state), "the jury is not drawn yet");
    }
    assert_eq!(listed(&net), [second, first], "by the time of their counts, each once");
    net.jury(first);
    net.jury(second);
    assert!(!query::wants_beacon(&net.state), "both juries are drawn");
    net.wait(25_000);
    assert!(listed(&net).is_empty());
    assert!(query::case(&net.state, &first).unwrap().outcome.is_some(), "a counted case can be read");
    net.wait(60_000);
    assert!(query::case(&net.state, &first).is_none() && query::case(&net.state, &second).is_none());
}

/// T-8: where an answer is disputed, a refuted solver's solution behind it is voided; its own disputed
/// answer is left to that dispute.
#[test]
fn a_refuted_solvers_solutions_in_other_disputes() {
    let mut net = Net::new(6);
    let (lie, behind, own) = (net.open_order(), net.open_order(), net.open_order());
    for n in [2, 1] {
        let commit = net.commit_call(behind, provider(n), "c");
        net.ok(vec![(provider(n), commit)]);
    }
    for n in [2, 1] {
        let reveal = net.reveal_call(behind, provider(n), "c");
        net.ok(vec![(provider(n), reveal)]);
    }
    net.solve(own, provider(1), "o");
    net.solve(lie, provider(1), "lie");
    assert_eq!(contest(&mut net, lie, 3), Ok(()));
    assert_eq!(vote(&mut net, lie, 4, true), Ok(()));
    net.wait(2_000);
    assert_eq!(contest(&mut net, behind, 5), Ok(()));
    assert_eq!(contest(&mut net, own, 6), Ok(()));
    assert_eq!(net.get(&behind).solutions.len(), 2);
    net.wait(6_000);
    assert_eq!(net.get(&lie).state, OrderState::Refunded { reason: RefundReason::Refuted });
    let (behind, own) = (net.get(&behind), net.get(&own));
    assert!(matches!(behind.state, OrderState::Contested { .. }) && matches!(own.state, OrderState::Contested { .. }));
    assert_eq!(behind.solutions.iter().map(|s| s.provider).collect::<Vec<_>>(), [provider(2)]);
    assert_eq!(own.solutions.iter().map(|s| s.provider).collect::<Vec<_>>(), [provider(1)]);
}

/// T-8, L-2: however many solutions a refuted solver has, all are voided, a few in each block.
#[test]
fn many_solutions_of_a_refuted_solver_are_voided_page_by_page() {
    let mut net = Net::with(4, "1000", althing_types::Params { due_items_max: 2, ..params() });
    let lie = net.open_order();
    net.solve(lie, provider(1), "lie");
    assert_eq!(contest(&mut net, lie, 3), Ok(()));
    assert_eq!(vote(&mut net, lie, 4, true), Ok(()));
    let others: Vec<_> = (0..7)
        .map(|_| {
            let id = net.open_order();
            net.solve(id, provider(1), "b");
            id
        })
        .collect();
    for _ in 0..60 {
        net.wait(100);
    }
    let voided = OrderState::Refunded { reason: RefundReason::Voided };
    assert!(others.iter().all(|id| net.get(id).state == voided));
    assert_eq!(query::provider(&net.state, &provider(1)).unwrap().outstanding, 0);
}
