//! Disputes with committed votes: juries, quorum, redraw, void. (T-7, T-8)

#![allow(clippy::unwrap_used)] // helpers of tests

mod support;

use althing_ledger::query;
use althing_types::{
    Address, Amount, BallotAnswer, Call, Case, Event, LedgerError as E, OrderId, OrderState, Outcome, Params,
    RefundReason,
};
use support::*;

/// Providers with 1000 bonded each; provider 1 answered `lie`, provider 2 contests with `truth`.
fn contested(providers: u8, change: impl FnOnce(&mut Params)) -> (Net, OrderId) {
    let mut p = params_committed();
    change(&mut p);
    let mut net = Net::with(providers, "1000", p);
    let id = net.open_order();
    net.solve(id, provider(1), "lie");
    let contest = net.contest_call(id, provider(2), "truth");
    net.ok(vec![(provider(2), contest)]);
    (net, id)
}

fn commit(net: &mut Net, id: OrderId, who: Address, round: u8, answer: BallotAnswer) -> Result<(), E> {
    let ballot = net.ballot(id, who, round, answer);
    net.call(who, Call::VoteCommit { order: id, ballot })
}

fn open(net: &mut Net, id: OrderId, who: Address, round: u8, answer: BallotAnswer) -> Result<(), E> {
    net.call(who, open_call(id, who, round, answer))
}

/// Commits and opens for each, in round 0; the contester only opens.
fn judge(net: &mut Net, id: OrderId, votes: &[(u8, BallotAnswer)]) {
    net.jury(id);
    for (n, answer) in votes.iter().filter(|(n, _)| *n != 2) {
        assert_eq!(commit(net, id, provider(*n), 0, *answer), Ok(()), "provider {n} commits");
    }
    let ends = case(net, id).voting_ends_ms;
    net.wait(ends.saturating_sub(net.block.time_ms));
    for (n, answer) in votes {
        assert_eq!(open(net, id, provider(*n), 0, *answer), Ok(()), "provider {n} opens");
    }
}

fn case(net: &Net, id: OrderId) -> Case {
    query::case(&net.state, &id).unwrap()
}

/// Waits until the case has an outcome.
fn outcome(net: &mut Net, id: OrderId) -> Outcome {
    for _ in 0..200 {
        if let Some(outcome) = case(net, id).outcome {
            return outcome;
        }
        net.wait(500);
    }
    panic!("the case hangs: {:?}", case(net, id));
}

fn won(net: &Net, n: u8) -> Amount {
    net.free(provider(n)).saturating_sub(alth("100"))
}

fn lost(net: &Net, n: u8) -> Amount {
    alth("1000").saturating_sub(net.bond(provider(n)))
}

/// T-7, T-8: a jury that agrees with the contester refutes; nobody is missing, so it does not wait
/// for its periods to end; leader 40 %, jurors 30 %, treasury 30 %.
#[test]
fn a_jury_refutes_a_lie_as_soon_as_all_its_votes_are_open() {
    let (mut net, id) = contested(4, |_| {});
    let begun = net.block.time_ms;
    judge(&mut net, id, &[(2, says("truth")), (3, says("truth")), (4, says("truth"))]);
    assert_eq!(outcome(&mut net, id), Outcome::Refuted);
    assert!(net.block.time_ms - begun < 2_000, "it took {} ms", net.block.time_ms - begun);
    assert_eq!((lost(&net, 1), lost(&net, 2)), (alth("125"), Amount::ZERO));
    assert_eq!((won(&net, 2), won(&net, 3), won(&net, 4)), (alth("50"), alth("18.75"), alth("18.75")));
    assert_eq!(query::supply(&net.state).treasury, alth("37.5"));
    assert_eq!(net.get(&id).state, OrderState::Refunded { reason: RefundReason::Refuted });
}

/// T-7, T-8: a jury that got the standing output upholds; the contester pays.
#[test]
fn a_jury_upholds_what_it_got_itself() {
    let (mut net, id) = contested(4, |_| {});
    judge(&mut net, id, &[(2, says("truth")), (3, says("lie")), (4, says("lie"))]);
    assert_eq!(outcome(&mut net, id), Outcome::Upheld);
    assert_eq!((lost(&net, 1), lost(&net, 2)), (Amount::ZERO, alth("125")));
    assert_eq!(won(&net, 1), alth("50"), "the solver leads");
    net.wait(8_000);
    assert_eq!(net.get(&id).state, OrderState::Claimed);
}

/// T-7: who and when, and what a ballot must be.
#[test]
fn committed_votes_are_checked() {
    let mut net = Net::with(6, "1000", Params { jury_seats: 2, ..params_committed() });
    let id = net.open_order();
    net.solve(id, provider(1), "lie");
    let form = |result: Result<(), E>| matches!(result, Err(E::WrongVoteForm { .. }));
    assert!(form(net.call(provider(2), Call::Contest { order: id, ballot: None })), "a contest has a ballot");
    let contest = net.contest_call(id, provider(2), "truth");
    net.ok(vec![(provider(2), contest)]);
    assert!(form(net.call(provider(3), Call::Vote { order: id, refute: true })), "no open votes");
    assert_eq!(commit(&mut net, id, provider(3), 0, says("truth")), Err(E::JuryNotDrawn));
    let jury = net.jury(id);
    assert_eq!(jury.len(), 2);
    let outside = (3..=6).map(provider).find(|p| !jury.contains(p)).unwrap();
    assert_eq!(commit(&mut net, id, outside, 0, says("truth")), Err(E::NotJuror));
    assert_eq!(commit(&mut net, id, provider(1), 0, says("truth")), Err(E::NotJuror), "the solver is no juror");
    assert_eq!(commit(&mut net, id, jury[0], 0, BallotAnswer::Refute), Ok(()), "nobody can see what it says");
    assert_eq!(commit(&mut net, id, jury[0], 0, says("truth")), Err(E::VoteExists));
    let from_ms = case(&net, id).voting_ends_ms;
    assert_eq!(open(&mut net, id, jury[0], 0, says("truth")), Err(E::OpeningNotBegun { from_ms }));
    // Somebody else's ballot cannot be used: the voter is part of it.
    let copied = net.ballot(id, jury[0], 0, BallotAnswer::Refute);
    assert_eq!(net.call(jury[1], Call::VoteCommit { order: id, ballot: copied }), Ok(()));
    assert_eq!(case(&net, id).voting_ends_ms, net.block.time_ms, "all voted, so the opening begins");
    assert_eq!(open(&mut net, id, jury[0], 0, BallotAnswer::Refute), Err(E::AnswerInvalid));
    assert_eq!(open(&mut net, id, jury[0], 0, says("truth")), Err(E::BallotMismatch));
    assert_eq!(open(&mut net, id, jury[1], 0, says("truth")), Err(E::BallotMismatch));
    assert_eq!(open(&mut net, id, outside, 0, says("truth")), Err(E::NoBallot));
    assert_eq!(open(&mut net, id, provider(2), 0, says("truth")), Ok(()), "the contester opens too");
    assert_eq!(open(&mut net, id, provider(2), 0, says("truth")), Err(E::NoBallot));
    net.wait(3_000);
    assert_eq!(case(&net, id).jury.unwrap().round, 1, "no juror opened, so a larger jury is called");
    assert_eq!(net.bond(jury[0]), alth("875"), "and who committed without opening pays");
}

/// T-7: a case without committed votes takes none.
#[test]
fn open_and_committed_votes_do_not_mix() {
    let mut net = Net::new(3);
    let id = net.open_order();
    net.solve(id, provider(1), "lie");
    let contest = net.contest_call(id, provider(2), "truth");
    assert!(matches!(net.call(provider(2), contest), Err(E::WrongVoteForm { .. })));
    net.ok(vec![(provider(2), Call::Contest { order: id, ballot: None })]);
    let wrong = commit(&mut net, id, provider(3), 0, says("truth"));
    assert!(matches!(wrong, Err(E::WrongVoteForm { .. })));
    assert!(matches!(open(&mut net, id, provider(3), 0, says("truth")), Err(E::WrongVoteForm { .. })));
}

/// T-7: without the quorum a larger jury is drawn once; without it again the order is voided, the
/// client refunded, and nobody slashed.
#[test]
fn a_dispute_that_nobody_judges_is_voided_after_a_larger_jury() {
    let mut net = Net::with(8, "1000", Params { jury_seats: 2, jury_seats_redrawn: 5, ..params_committed() });
    let id = net.open_order();
    net.solve(id, provider(1), "lie");
    let contest = net.contest_call(id, provider(2), "truth");
    net.ok(vec![(provider(2), contest)]);
    assert_eq!(net.jury(id).len(), 2);
    net.wait(8_000);
    assert_eq!(open(&mut net, id, provider(2), 0, says("truth")), Ok(()));
    net.wait(3_000);
    assert_eq!(net.jury(id).len(), 5, "a larger jury");
    assert_eq!(case(&net, id).jury.unwrap().round, 1);
    assert_eq!(commit(&mut net, id, provider(2), 1, says("truth")), Ok(()), "the contester commits again");
    net.wait(8_000);
    assert_eq!(open(&mut net, id, provider(2), 1, says("truth")), Ok(()));
    assert_eq!(outcome(&mut net, id), Outcome::Voided);
    assert_eq!(net.get(&id).state, OrderState::Refunded { reason: RefundReason::Undecided });
    assert_eq!(net.free(CLIENT), alth("1000"));
    assert!(!net.events.iter().any(|event| matches!(event, Event::Slashed { .. })));
    assert!((1..=8).all(|n| query::provider(&net.state, &provider(n)).unwrap().reserved.is_zero()));
}

/// T-7: what others agreed with stands when nobody judges; the contest costs nobody anything.
#[test]
fn an_agreed_solution_stands_when_nobody_judges() {
    let mut net = Net::with(3, "1000", params_committed());
    let id = net.open_order();
    net.solve(id, provider(1), "truth");
    assert_eq!(net.agree(id, provider(3), "truth"), Ok(()));
    let contest = net.contest_call(id, provider(2), "lie");
    net.ok(vec![(provider(2), contest)]);
    for round in [0, 1] {
        assert!(net.jury(id).is_empty(), "everybody has a part in the case");
        if round == 1 {
            assert_eq!(commit(&mut net, id, provider(2), 1, says("lie")), Ok(()));
        }
        assert_eq!(open(&mut net, id, provider(2), round, says("lie")), Ok(()));
        net.wait(100);
    }
    assert_eq!(outcome(&mut net, id), Outcome::Dismissed);
    assert!((1..=3).all(|n| lost(&net, n).is_zero()));
    net.wait(8_000);
    assert_eq!(net.get(&id).state, OrderState::Claimed);
}

/// T-7: nobody judges in an own case: a solver with most of the stake is refuted by its jury.
#[test]
fn a_large_stake_does_not_judge_its_own_answer() {
    let mut net = Net::with(4, "100", params_committed());
    net.ok(vec![(CLIENT, Call::Transfer { to: provider(1), amount: alth("900") })]);
    net.ok(vec![(provider(1), Call::Bond { amount: alth("900") })]);
    let id = net.open_order();
    net.solve(id, provider(1), "lie");
    let contest = net.contest_call(id, provider(2), "truth");
    net.ok(vec![(provider(2), contest)]);
    judge(&mut net, id, &[(2, says("truth")), (3, says("truth")), (4, says("truth"))]);
    assert_eq!(outcome(&mut net, id), Outcome::Refuted);
    assert_eq!(net.bond(provider(1)), alth("875"));
}

/// T-9: whose stake is reserved by much other work can still contest and judge.
#[test]
fn busy_providers_can_still_contest_and_judge() {
    let mut net = Net::with(4, "12", Params { agreements_wanted_max: 4, ..params_committed() });
    let works: Vec<_> = (0..2).map(|_| net.open_order()).collect();
    for work in &works {
        for n in [2, 3, 4] {
            let commit = net.commit_call(*work, provider(n), "truth");
            let _ = net.call(provider(n), commit);
        }
        for n in [2, 3, 4] {
            let reveal = net.reveal_call(*work, provider(n), "truth");
            let _ = net.call(provider(n), reveal);
        }
    }
    let free = query::provider(&net.state, &provider(2)).unwrap().stake_free();
    assert!(free < params().bond_min, "{free} is too little for new work");
    let id = net.open_order();
    let refused = net.commit_call(id, provider(2), "truth");
    assert!(matches!(net.call(provider(2), refused), Err(E::BondTooSmall { .. })));
    net.solve(id, provider(1), "lie");
    let contest = net.contest_call(id, provider(2), "truth");
    net.ok(vec![(provider(2), contest)]);
    judge(&mut net, id, &[(2, says("truth")), (3, says("truth")), (4, says("truth"))]);
    assert_eq!(outcome(&mut net, id), Outcome::Refuted);
}

/// T-7: with so few supporters that no jury can be drawn, nobody is slashed either.
#[test]
fn two_providers_alone_cannot_slash_each_other() {
    let mut net = Net::with(2, "1000", params_committed());
    net.ok(vec![(provider(1), Call::Unbond { amount: alth("500") })]);
    let id = net.open_order();
    net.solve(id, provider(1), "lie");
    let contest = net.contest_call(id, provider(2), "truth");
    net.ok(vec![(provider(2), contest)]);
    assert!(net.jury(id).is_empty());
    assert_eq!(open(&mut net, id, provider(2), 0, says("truth")), Ok(()), "nobody is missing");
    net.wait(100);
    assert!(net.jury(id).is_empty(), "nor in the second round");
    assert_eq!(commit(&mut net, id, provider(2), 1, says("truth")), Ok(()));
    assert_eq!(open(&mut net, id, provider(2), 1, says("truth")), Ok(()));
    assert_eq!(outcome(&mut net, id), Outcome::Voided);
    assert_eq!((lost(&net, 1), lost(&net, 2)), (alth("500"), Amount::ZERO), "what was unbonded, no more");
}

/// T-7: the larger jury decides like the first; who did not open in the first pays for it.
#[test]
fn the_larger_jury_can_refute() {
    let mut net = Net::with(8, "1000", Params { jury_seats: 1, jury_seats_redrawn: 5, ..params_committed() });
    net.ok(vec![(provider(1), Call::Unbond { amount: alth("200") })]);
    let id = net.open_order();
    net.solve(id, provider(1), "lie");
    let contest = net.contest_call(id, provider(2), "truth");
    net.ok(vec![(provider(2), contest)]);
    let only = net.jury(id)[0];
    let again = commit(&mut net, id, provider(2), 0, says("truth"));
    assert_eq!(again, Err(E::NotJuror), "the contester committed with its contest");
    assert_eq!(commit(&mut net, id, only, 0, says("truth")), Ok(()));
    assert_eq!(open(&mut net, id, provider(2), 0, says("truth")), Ok(()));
    // The only juror never opens: no quorum.
    net.wait(3_000);
    assert_eq!(net.bond(only), alth("875"));
    assert_eq!(query::supply(&net.state).treasury, alth("125"));
    let jury = net.jury(id);
    let outside = (1..=8).map(provider).find(|who| !jury.contains(who) && *who != provider(2)).unwrap();
    assert_eq!(commit(&mut net, id, outside, 1, says("truth")), Err(E::NotJuror));
    for juror in jury.iter().chain([&provider(2)]) {
        assert_eq!(commit(&mut net, id, *juror, 1, says("truth")), Ok(()));
    }
    for juror in jury.iter().chain([&provider(2)]) {
        assert_eq!(open(&mut net, id, *juror, 1, says("truth")), Ok(()));
    }
    assert_eq!(outcome(&mut net, id), Outcome::Refuted);
    assert_eq!(net.bond(provider(1)), alth("700"));
}

/// T-7: whoever commits and does not open loses, whatever the outcome: a vote is no free option.
#[test]
fn an_unopened_vote_loses_in_every_case() {
    let (mut net, id) = contested(5, |_| {});
    net.jury(id);
    for n in 3..=5 {
        assert_eq!(commit(&mut net, id, provider(n), 0, says("truth")), Ok(()));
    }
    for n in [2, 3, 4] {
        assert_eq!(open(&mut net, id, provider(n), 0, says("truth")), Ok(()));
    }
    assert_eq!(outcome(&mut net, id), Outcome::Refuted);
    assert_eq!((lost(&net, 1), lost(&net, 5), lost(&net, 3)), (alth("125"), alth("125"), Amount::ZERO));
    assert_eq!(won(&net, 2), alth("100"), "40 % of both");
}

/// T-7, T-8: the jury refutes, but the contester's own answer was not opened: nobody leads, and the
/// leader's part is the treasury's.
#[test]
fn a_contester_that_does_not_open_loses_even_when_it_was_right() {
    let (mut net, id) = contested(5, |_| {});
    net.jury(id);
    for n in 3..=5 {
        assert_eq!(commit(&mut net, id, provider(n), 0, says("truth")), Ok(()));
    }
    for n in 3..=5 {
        assert_eq!(open(&mut net, id, provider(n), 0, says("truth")), Ok(()));
    }
    assert_eq!(outcome(&mut net, id), Outcome::Refuted);
    assert_eq!((lost(&net, 1), lost(&net, 2)), (alth("125"), alth("125")));
    assert_eq!(won(&net, 2), Amount::ZERO);
    assert_eq!(won(&net, 3), alth("25"), "a third of 30 % of 250");
    assert_eq!(query::supply(&net.state).treasury, alth("175"));
}

/// T-7: an answer that is neither the standing nor the winning one gains and costs nothing when the
/// solution falls, and loses when it stands. So random dissent pays in no case.
#[test]
fn a_third_answer_gains_nothing() {
    let (mut net, id) = contested(6, |_| {});
    let votes = [(2, says("truth")), (3, says("truth")), (4, says("truth")), (5, says("truth")), (6, says("noise"))];
    judge(&mut net, id, &votes);
    assert_eq!(outcome(&mut net, id), Outcome::Refuted);
    assert_eq!((lost(&net, 6), won(&net, 6)), (Amount::ZERO, Amount::ZERO));

    let (mut net, id) = contested(6, |_| {});
    let votes = [(2, says("truth")), (3, says("lie")), (4, says("lie")), (5, says("lie")), (6, says("noise"))];
    judge(&mut net, id, &votes);
    assert_eq!(outcome(&mut net, id), Outcome::Upheld);
    assert_eq!(lost(&net, 6), alth("125"));
}

/// T-21: an input that nobody can get voids the order and costs nobody anything.
#[test]
fn an_unavailable_input_voids_without_slashing() {
    let (mut net, id) = contested(6, |_| {});
    let gone = BallotAnswer::InputUnavailable;
    judge(&mut net, id, &[(2, says("truth")), (3, gone), (4, gone), (5, gone), (6, gone)]);
    assert_eq!(outcome(&mut net, id), Outcome::Voided);
    assert_eq!(net.get(&id).state, OrderState::Refunded { reason: RefundReason::Undecided });
    assert!((1..=6).all(|n| lost(&net, n).is_zero()));
    assert_eq!(net.free(CLIENT), alth("1000"));
}

/// T-7: juries are drawn by stake, among supporters without a part in the case, and anyone can
/// repeat the draw.
#[test]
fn juries_are_drawn_by_stake_among_the_uninvolved() {
    let mut seen = std::collections::BTreeMap::<Address, u32>::new();
    for round in 0u64..60 {
        let mut net = Net::with(6, "100", Params { jury_seats: 1, ..params_committed() });
        // Provider 6 has ten times the stake of 3, 4 and 5, of which 4 agrees and 5 serves nothing.
        net.ok(vec![(CLIENT, Call::Transfer { to: provider(6), amount: alth("850") })]);
        net.ok(vec![
            (provider(6), Call::Bond { amount: alth("900") }),
            (provider(5), Call::ModelSupport { models: vec![], endpoint: String::new() }),
        ]);
        net.wait(100 + round);
        let id = net.open_order();
        net.solve(id, provider(1), "lie");
        assert_eq!(net.agree(id, provider(4), "lie"), Ok(()));
        let contest = net.contest_call(id, provider(2), "truth");
        net.ok(vec![(provider(2), contest)]);
        let jury = net.jury(id);
        assert_eq!(jury.len(), 1);
        *seen.entry(jury[0]).or_default() += 1;
    }
    assert_eq!(seen.keys().copied().collect::<Vec<_>>(), [provider(3), provider(6)]);
    assert!(seen[&provider(6)] > 40, "ten of eleven: {seen:?}");
}

/// T-7, T-18: votes end with their period even if jurors are missing, and no case hangs.
#[test]
fn a_missing_juror_delays_a_case_only_to_the_end_of_its_periods() {
    let (mut net, id) = contested(5, |_| {});
    net.jury(id);
    for n in [3, 4] {
        assert_eq!(commit(&mut net, id, provider(n), 0, says("truth")), Ok(()));
    }
    net.wait(8_000);
    assert!(net.events.iter().any(|event| matches!(event, Event::OpeningBegun { order, .. } if *order == id)));
    assert_eq!(commit(&mut net, id, provider(5), 0, says("truth")), Err(E::VotingOver));
    for n in [2, 3, 4] {
        assert_eq!(open(&mut net, id, provider(n), 0, says("truth")), Ok(()));
    }
    net.wait(3_000);
    assert_eq!(case(&net, id).outcome, Some(Outcome::Refuted), "two of three jurors are a quorum");
}

/// T-7, T-2, T-21: a jury, a seed and a sample come from the first beacon that nobody could know when they
/// were asked for: that of the second view after it; not an earlier one, and not a later one.
#[test]
fn the_first_beacon_that_nobody_could_know_decides() {
    let (mut net, id) = contested(4, |_| {});
    let asked_view = net.block.view;
    net.jury(id);
    assert_eq!(net.block.beacon_view, asked_view + 2);
    let submit = net.submit("4");
    net.ok(vec![(CLIENT, Call::OrderSubmit(submit))]);
    let asked_view = net.block.view;
    let id = query::orders_newest(&net.state, 1)[0].id;
    net.until(|net| net.get(&id).seed);
    assert_eq!(net.block.beacon_view, asked_view + 2);
}

/// T-7: votes are committed before the voting period ends and opened from that moment until the opening
/// period ends, to the millisecond.
#[test]
fn phases_end_at_their_moments() {
    let (mut net, id) = contested(6, |p| p.jury_seats = 3);
    let jury = net.jury(id);
    assert_eq!(commit(&mut net, id, jury[0], 0, says("truth")), Ok(()));
    let Case { voting_ends_ms, opening_ends_ms, .. } = case(&net, id);
    let commit_late = Call::VoteCommit { order: id, ballot: net.ballot(id, jury[1], 0, says("truth")) };
    let open_first = open_call(id, jury[0], 0, says("truth"));
    let to_open = |after_ms: u64| (opening_ends_ms - voting_ends_ms) + after_ms;
    net.wait(voting_ends_ms - 500 - net.block.time_ms);
    for (after_ms, commits, opens) in [
        (499, Ok(()), Err(E::OpeningNotBegun { from_ms: voting_ends_ms })),
        (500, Err(E::VotingOver), Ok(())),
        (499 + to_open(0), Err(E::VotingOver), Ok(())),
        (500 + to_open(0), Err(E::VotingOver), Err(E::VotingOver)),
    ] {
        let mut net = net.clone();
        net.wait(after_ms.saturating_sub(600));
        let left = voting_ends_ms - 500 + after_ms - net.block.time_ms;
        let calls = vec![(jury[1], commit_late.clone()), (jury[0], open_first.clone())];
        let receipts = net.block_after(left, calls).receipts;
        let results = receipts.into_iter().map(|receipt| receipt.error.map_or(Ok(()), Err)).collect::<Vec<_>>();
        assert_eq!(results, [commits, opens], "{after_ms} ms");
    }
}

/// T-7: the quorum is a share of the jury's weight: less of it opened decides nothing, so much does.
#[test]
fn a_quorum_is_a_share_of_the_jurys_weight() {
    for (opened, expected) in [(0, None), (1, None), (2, Some(Outcome::Refuted)), (3, Some(Outcome::Refuted))] {
        let (mut net, id) = contested(6, |p| (p.jury_seats, p.jury_quorum) = (4, althing_types::Ppm(500_000)));
        let jury = net.jury(id);
        assert_eq!(jury.len(), 4);
        for juror in &jury {
            assert_eq!(commit(&mut net, id, *juror, 0, says("truth")), Ok(()));
        }
        for juror in &jury[..opened] {
            assert_eq!(open(&mut net, id, *juror, 0, says("truth")), Ok(()));
        }
        assert_eq!(open(&mut net, id, provider(2), 0, says("truth")), Ok(()), "the contester is no juror");
        net.wait(3_000);
        let case = case(&net, id);
        assert_eq!((case.outcome, case.jury.unwrap().round), (expected, u8::from(expected.is_none())), "{opened} of 4");
    }
}

/// T-7: among committed votes too a tie upholds; one vote more refutes.
#[test]
fn a_tied_jury_upholds() {
    for (wrong, expected) in [(2, Outcome::Upheld), (3, Outcome::Refuted)] {
        let (mut net, id) = contested(6, |p| p.jury_seats = 4);
        let jury = net.jury(id);
        let says_of = |n: usize| if n < wrong { says("truth") } else { says("lie") };
        for (n, juror) in jury.iter().enumerate() {
            assert_eq!(commit(&mut net, id, *juror, 0, says_of(n)), Ok(()));
        }
        for (n, juror) in jury.iter().enumerate() {
            assert_eq!(open(&mut net, id, *juror, 0, says_of(n)), Ok(()));
        }
        assert_eq!(open(&mut net, id, provider(2), 0, says("truth")), Ok(()));
        assert_eq!(outcome(&mut net, id), expected, "{wrong} of 4 say that it is wrong");
    }
}
