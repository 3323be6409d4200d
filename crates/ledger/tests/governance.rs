//! The governor: voting power, proposals from their creation to their end, what accepted ones do,
//! upgrades. (G-1, G-2)

#![allow(clippy::unwrap_used)] // helpers of tests

mod support;

use althing_ledger::{
    COORDINATORS, PROPOSAL_CALLS_MAX, PROPOSAL_DESCRIPTION_BYTES_MAX, PROPOSAL_TITLE_BYTES_MAX, PROPOSALS_LIVE_MAX,
    PROTOCOL_VERSION, TREASURY, UpgradeNeeded, can_run, pool_value, query,
};
use althing_types::{
    Address, Amount, Call, Event, LedgerError as E, ModelReward, ParamChange, Params, ProposalState as S, ProposalVote,
    SessionPublicKey, Upgrade, VoteChoice, call::Scope,
};
use proptest::prelude::*;
use std::collections::BTreeMap;
use support::*;

const STRANGER: Address = Address([0xaa; 20]);
const FRIEND: Address = Address([0xbb; 20]);

/// 2 s until the vote, 10 s of it, 4 s of timelock, 60 s of grace, and gone a minute after the end.
fn rules() -> Params {
    Params { proposal_grace_ms: 60_000, order_retention_ms: 60_000, ..params() }
}

/// Three providers with 1000 bonded and 100 free each, a client with 1000: 4300 votable tokens, so that
/// a proposal needs 4.3 and a quorum of 172.
fn net() -> Net {
    Net::with(3, "1000", rules())
}

fn create(calls: Vec<Call>) -> Call {
    Call::ProposalCreate { title: "a title".into(), description: "a description".into(), calls }
}

fn harmless() -> Vec<Call> {
    vec![Call::Transfer { to: FRIEND, amount: alth("1") }]
}

fn newest(net: &Net) -> u64 {
    query::proposals(&net.state, None, 1)[0].id
}

fn state(net: &Net, id: u64) -> S {
    query::proposal(&net.state, id).unwrap().state
}

fn propose(net: &mut Net, who: Address, calls: Vec<Call>) -> u64 {
    net.ok(vec![(who, create(calls))]);
    newest(net)
}

fn vote(proposal: u64, choice: VoteChoice) -> Call {
    Call::ProposalVote { proposal, choice }
}

/// Brings a proposal of provider 1 through its vote, its queue and its timelock.
fn accepted(net: &mut Net, calls: Vec<Call>) -> u64 {
    let id = propose(net, provider(1), calls);
    net.wait(2_000);
    net.ok(vec![(provider(1), vote(id, VoteChoice::For))]);
    net.wait(10_000);
    net.ok(vec![(STRANGER, Call::ProposalQueue { proposal: id })]);
    net.wait(4_000);
    assert_eq!(state(net, id), S::Queued);
    id
}

/// The same and executes it, which anyone may.
fn enact(net: &mut Net, calls: Vec<Call>) -> Result<(), E> {
    let proposal = accepted(net, calls);
    net.call(STRANGER, Call::ProposalExecute { proposal })
}

fn send(net: &mut Net, from: Address, to: Address, amount: &str) {
    net.ok(vec![(from, Call::Transfer { to, amount: alth(amount) })]);
}

fn power(net: &Net, who: Address) -> Amount {
    query::power(&net.state, &who)
}

fn change(name: &str, value: u128) -> ParamChange {
    ParamChange { name: name.into(), value }
}

fn refused(state: S) -> Result<(), E> {
    Err(E::ProposalIs { state })
}

// ---- the life of a proposal ----

/// G-1: pending, active, succeeded, queued, executed, gone; and every call at every wrong time.
#[test]
fn a_proposal_lives_from_pending_to_executed_and_leaves() {
    let mut net = net();
    send(&mut net, CLIENT, TREASURY, "50");
    let id = propose(&mut net, provider(1), harmless());
    let calls = |id| {
        let proposal = id;
        [vote(id, VoteChoice::For), Call::ProposalQueue { proposal }, Call::ProposalExecute { proposal }]
    };
    let try_all = |net: &mut Net, expected: [Result<(), E>; 3]| {
        for (call, expected) in calls(id).into_iter().zip(expected) {
            assert_eq!(net.call(provider(2), call.clone()), expected, "{call:?}");
        }
    };
    assert_eq!(state(&net, id), S::Pending);
    try_all(&mut net, [refused(S::Pending), refused(S::Pending), refused(S::Pending)]);
    net.wait(2_000);
    assert_eq!(state(&net, id), S::Active);
    try_all(&mut net, [Ok(()), refused(S::Active), refused(S::Active)]);
    assert_eq!(net.call(provider(2), vote(id, VoteChoice::Against)), Err(E::ProposalVoted));
    let height = query::proposal(&net.state, id).unwrap().proposal.snapshot_height;
    assert_eq!(net.call(STRANGER, vote(id, VoteChoice::For)), Err(E::NoVotingPower { height }));
    let ballot = query::proposal_vote(&net.state, id, &provider(2));
    assert_eq!(ballot, Some(ProposalVote { choice: VoteChoice::For, weight: alth("1100") }));
    net.wait(10_000);
    assert_eq!(state(&net, id), S::Succeeded);
    let from_ms = net.block.time_ms + 200 + 4_000;
    try_all(&mut net, [refused(S::Succeeded), Ok(()), Err(E::TimelockRunning { from_ms })]);
    assert_eq!(state(&net, id), S::Queued);
    net.wait(4_000);
    try_all(&mut net, [refused(S::Queued), refused(S::Queued), Ok(())]);
    assert_eq!(state(&net, id), S::Executed);
    assert_eq!(net.free(FRIEND), alth("1"));
    try_all(&mut net, [refused(S::Executed), refused(S::Executed), refused(S::Executed)]);
    assert_eq!(net.call(provider(1), Call::ProposalCancel { proposal: id }), refused(S::Executed));
    let told = |event: &Event| net.events.contains(event);
    assert!(told(&Event::ProposalQueued { proposal: id, executable_ms: from_ms }));
    assert!(told(&Event::ProposalExecuted { proposal: id }));
    // L-2: after a while only the node's history has it.
    net.wait(61_000);
    assert_eq!(query::proposal(&net.state, id), None);
    assert_eq!(query::proposal_vote(&net.state, id, &provider(2)), None);
    assert!(net.events.contains(&Event::ProposalPruned { proposal: id }));
    for call in calls(id).into_iter().chain([Call::ProposalCancel { proposal: id }]) {
        assert_eq!(net.call(provider(1), call), Err(E::UnknownProposal { proposal: id }));
    }
}

/// G-1: what a proposal may say and do is bounded.
#[test]
fn a_proposal_that_is_too_long_or_does_what_it_may_not_is_refused() {
    let mut net = net();
    let key = SessionPublicKey([9; 32]);
    let forbidden = |index, call: &str| Err(E::ProposalCallForbidden { index, call: call.into() });
    let text = |title: usize, description: usize, calls: Vec<Call>| Call::ProposalCreate {
        title: "t".repeat(title),
        description: "d".repeat(description),
        calls,
    };
    let many = |count: usize| vec![Call::UpgradeCancel; count];
    let title_invalid = Err(E::ProposalTitleInvalid { max: 120 });
    let calls_invalid = Err(E::ProposalCallsInvalid { max: 16 });
    let execute = Call::ProposalExecute { proposal: 1 };
    let revoke = Call::SessionKeyRevoke { key };
    let add = Call::SessionKeyAdd { key, scope: Scope::All, spend_limit: alth("1"), expires_at_ms: u64::MAX };
    for (call, expected) in [
        (text(0, 0, harmless()), title_invalid.clone()),
        (text(PROPOSAL_TITLE_BYTES_MAX + 1, 0, harmless()), title_invalid),
        (text(1, PROPOSAL_DESCRIPTION_BYTES_MAX + 1, harmless()), Err(E::ProposalDescriptionTooLong { max: 4_096 })),
        (text(1, 0, Vec::new()), calls_invalid.clone()),
        (text(1, 0, many(PROPOSAL_CALLS_MAX + 1)), calls_invalid),
        (text(1, 0, vec![create(harmless())]), forbidden(0, "proposal_create")),
        (text(1, 0, vec![Call::UpgradeCancel, execute]), forbidden(1, "proposal_execute")),
        (text(1, 0, vec![revoke]), forbidden(0, "session_key_revoke")),
        (text(1, 0, vec![add]), forbidden(0, "session_key_add")),
        (text(PROPOSAL_TITLE_BYTES_MAX, PROPOSAL_DESCRIPTION_BYTES_MAX, many(PROPOSAL_CALLS_MAX)), Ok(())),
    ] {
        assert_eq!(net.call(provider(1), call), expected);
    }
}

/// G-1: a proposer commands the threshold before the block of its proposal, and has one at a time.
#[test]
fn proposing_takes_the_threshold_and_is_for_one_proposal_at_a_time() {
    let mut net = net();
    let needed = alth("4.3");
    assert_eq!(net.call(STRANGER, create(harmless())), Err(E::ProposalThreshold { power: Amount::ZERO, needed }));
    // Enough, but only from this block on.
    let results =
        net.block(vec![(CLIENT, Call::Transfer { to: STRANGER, amount: needed }), (STRANGER, create(harmless()))]);
    assert_eq!(results, [Ok(()), Err(E::ProposalThreshold { power: Amount::ZERO, needed })]);
    let id = propose(&mut net, STRANGER, harmless());
    assert_eq!(net.call(STRANGER, create(harmless())), Err(E::ProposalLive { proposal: id }));
    net.ok(vec![(STRANGER, Call::ProposalCancel { proposal: id })]);
    let next = propose(&mut net, STRANGER, harmless());
    assert_eq!(next, id + 1);
    net.wait(12_000);
    assert_eq!(state(&net, next), S::Defeated);
    assert_eq!(propose(&mut net, STRANGER, harmless()), id + 2);
    let listed = |before| query::proposals(&net.state, before, 2).iter().map(|p| p.id).collect::<Vec<_>>();
    assert_eq!((listed(None), listed(Some(2))), (vec![3, 2], vec![1]), "newest first");
    // A share of nothing is nothing, and is no licence for those who have nothing.
    let mut free = Net::with(1, "1000", Params { proposal_threshold: althing_types::Ppm(0), ..rules() });
    let refused = E::ProposalThreshold { power: Amount::ZERO, needed: Amount(1) };
    assert_eq!(free.call(STRANGER, create(harmless())), Err(refused));
}

/// G-1, L-2: there is a limit on proposals that are voted on at a time.
#[test]
fn so_many_proposals_at_a_time_and_no_more() {
    let mut net = net();
    let who =
        |n: usize| Address([0x77, u8::try_from(n).unwrap(), 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7]);
    let all = 0..=PROPOSALS_LIVE_MAX;
    net.ok(all.clone().map(|n| (CLIENT, Call::Transfer { to: who(n), amount: alth("5") })).collect());
    let mut results = net.block(all.map(|n| (who(n), create(harmless()))).collect());
    assert_eq!(results.pop(), Some(Err(E::TooManyProposals { max: 64 })));
    assert!(results.iter().all(Result::is_ok));
    net.ok(vec![(who(0), Call::ProposalCancel { proposal: 1 })]);
    net.ok(vec![(who(PROPOSALS_LIVE_MAX), create(harmless()))]);
    net.wait(12_100);
    net.ok(vec![(who(0), create(harmless()))]);
}

/// G-1: more for than against, and a quorum of for and abstain: a share of what votes, or the floor.
#[test]
fn a_proposal_needs_a_majority_and_a_quorum() {
    use VoteChoice::*;
    let (one, two, three) = (provider(1), provider(2), provider(3));
    // Each provider has 1100, CLIENT 1000; the quorum is half of 4300.
    let half = Params { proposal_quorum: althing_types::Ppm(500_000), ..rules() };
    let floor = |amount: &str| Params { proposal_quorum_min: alth(amount), ..rules() };
    let nobody: &[(Address, VoteChoice)] = &[];
    for (what, params, votes, expected) in [
        ("nobody votes", rules(), nobody, S::Defeated),
        ("a quorum for it", rules(), &[(one, For)], S::Succeeded),
        ("a tie", rules(), &[(one, For), (two, Against)], S::Defeated),
        ("a minority", rules(), &[(one, For), (two, Against), (three, Against)], S::Defeated),
        ("abstaining only", rules(), &[(one, Abstain), (two, Abstain)], S::Defeated),
        ("less than half", half.clone(), &[(one, For), (CLIENT, Against)], S::Defeated),
        ("for and abstain are half", half.clone(), &[(one, For), (two, Abstain)], S::Succeeded),
        ("those against do not count", half, &[(CLIENT, For), (two, Against)], S::Defeated),
        ("below the floor", floor("1100.1"), &[(one, For)], S::Defeated),
        ("on the floor", floor("1100"), &[(one, For)], S::Succeeded),
    ] {
        let mut net = Net::with(3, "1000", params);
        let id = propose(&mut net, one, harmless());
        net.wait(2_000);
        net.ok(votes.iter().map(|(who, choice)| (*who, vote(id, *choice))).collect());
        net.wait(10_000);
        assert_eq!(state(&net, id), expected, "{what}");
        if expected == S::Defeated {
            assert_eq!(net.call(one, Call::ProposalQueue { proposal: id }), refused(S::Defeated), "{what}");
            assert_eq!(net.call(one, Call::ProposalCancel { proposal: id }), refused(S::Defeated), "{what}");
        }
    }
}

/// G-1: accepted proposals do not wait for ever, before they are queued nor after.
#[test]
fn an_accepted_proposal_expires_if_nobody_takes_it_further() {
    let mut net = net();
    let unqueued = propose(&mut net, provider(1), harmless());
    net.wait(2_000);
    net.ok(vec![(provider(1), vote(unqueued, VoteChoice::For))]);
    net.wait(10_000);
    let queued = accepted(&mut net, harmless());
    assert_eq!(state(&net, unqueued), S::Succeeded);
    net.wait(44_000);
    assert_eq!((state(&net, unqueued), state(&net, queued)), (S::Expired, S::Queued));
    assert_eq!(net.call(STRANGER, Call::ProposalQueue { proposal: unqueued }), refused(S::Expired));
    net.wait(17_000);
    assert_eq!(state(&net, queued), S::Expired);
    assert_eq!(net.call(STRANGER, Call::ProposalExecute { proposal: queued }), refused(S::Expired));
    net.wait(61_000);
    assert_eq!(query::proposals(&net.state, None, 10), []);
}

/// G-1: its proposer can take a proposal back before it is executed; others only while the proposer does
/// not command the threshold.
#[test]
fn a_proposal_is_cancelled_by_its_proposer_or_when_its_proposer_lost_its_power() {
    let mut net = net();
    send(&mut net, CLIENT, FRIEND, "5");
    // In each state before its end.
    for steps in 0..4 {
        let id = propose(&mut net, provider(1), harmless());
        if steps > 0 {
            net.wait(2_000);
            net.ok(vec![(provider(1), vote(id, VoteChoice::For))]);
        }
        if steps > 1 {
            net.wait(10_000);
        }
        if steps > 2 {
            net.ok(vec![(STRANGER, Call::ProposalQueue { proposal: id })]);
        }
        let cancel = Call::ProposalCancel { proposal: id };
        let (power, needed) = (alth("1100"), query::proposal(&net.state, id).unwrap().proposal.terms.threshold);
        assert_eq!(net.call(STRANGER, cancel.clone()), Err(E::ProposerHasPower { power, needed }));
        net.ok(vec![(provider(1), cancel.clone())]);
        assert_eq!(state(&net, id), S::Cancelled);
        assert_eq!(net.call(provider(1), cancel), refused(S::Cancelled));
        assert_eq!(net.call(provider(1), vote(id, VoteChoice::For)), refused(S::Cancelled));
        assert_eq!(net.call(STRANGER, Call::ProposalQueue { proposal: id }), refused(S::Cancelled));
        assert_eq!(net.call(STRANGER, Call::ProposalExecute { proposal: id }), refused(S::Cancelled));
    }
    let id = propose(&mut net, FRIEND, harmless());
    send(&mut net, FRIEND, CLIENT, "1");
    net.ok(vec![(STRANGER, Call::ProposalCancel { proposal: id })]);
    assert!(net.events.contains(&Event::ProposalCancelled { proposal: id, by: STRANGER }));
}

/// T-18: a proposal keeps the rules that it was made under.
#[test]
fn a_change_of_the_rules_leaves_proposals_under_way_alone() {
    let mut net = net();
    let early = propose(&mut net, provider(2), harmless());
    let before = query::proposal(&net.state, early).unwrap().proposal.terms;
    let changes = vec![change("proposal_timelock_ms", 0), change("proposal_quorum", 900_000)];
    enact(&mut net, vec![Call::ParamsSet { changes }]).unwrap();
    net.wait(100);
    assert_eq!(query::proposal(&net.state, early).unwrap().proposal.terms, before);
    let late = propose(&mut net, provider(3), harmless());
    let terms = query::proposal(&net.state, late).unwrap().proposal.terms;
    assert_eq!((terms.timelock_ms, terms.quorum), (0, query::votable(&net.state).share(althing_types::Ppm(900_000))));
}

// ---- power ----

/// G-1: what counts is the power before the proposal's block.
#[test]
fn buying_votes_after_a_proposal_does_not_help_and_selling_does_not_hurt() {
    let mut net = net();
    // In the very block of the proposal, before it and after it, the old power counts.
    net.ok(vec![
        (CLIENT, Call::Transfer { to: FRIEND, amount: alth("500") }),
        (CLIENT, Call::Transfer { to: FRIEND, amount: alth("100") }),
        (provider(1), create(harmless())),
        (CLIENT, Call::Transfer { to: FRIEND, amount: alth("100") }),
    ]);
    let id = newest(&net);
    send(&mut net, CLIENT, STRANGER, "300");
    send(&mut net, STRANGER, FRIEND, "250");
    assert_eq!(
        [power(&net, CLIENT), power(&net, FRIEND), power(&net, STRANGER)],
        [Amount::ZERO, alth("950"), alth("50")]
    );
    net.wait(2_000);
    let height = query::proposal(&net.state, id).unwrap().proposal.snapshot_height;
    assert_eq!(net.call(FRIEND, vote(id, VoteChoice::Against)), Err(E::NoVotingPower { height }));
    assert_eq!(net.call(STRANGER, vote(id, VoteChoice::Against)), Err(E::NoVotingPower { height }));
    net.ok(vec![(CLIENT, vote(id, VoteChoice::For))]);
    assert_eq!(query::proposal(&net.state, id).unwrap().proposal.votes_for, alth("1000"));
}

/// G-1: also the quorum and the threshold are shares of what voted before the proposal's block.
#[test]
fn locking_units_in_the_block_of_a_proposal_does_not_lower_its_quorum() {
    let mut net = net();
    let lock = |n| (provider(n), Call::Unbond { amount: alth("1000") });
    net.ok(vec![lock(2), lock(3), (provider(1), create(harmless()))]);
    let terms = query::proposal(&net.state, newest(&net)).unwrap().proposal.terms;
    assert_eq!((terms.threshold, terms.quorum), (alth("4.3"), alth("172")));
    let next = propose(&mut net, provider(2), harmless());
    let terms = query::proposal(&net.state, next).unwrap().proposal.terms;
    assert_eq!((terms.threshold, terms.quorum), (alth("2.3"), alth("100")), "now the floor is more than 92");
}

/// G-1: proposals of one block share their snapshot, and one that ends leaves it to the others.
#[test]
fn a_proposal_that_is_cancelled_leaves_the_snapshot_to_others_of_its_block() {
    let mut net = net();
    net.ok([1, 2, 3].map(|n| (provider(n), create(harmless()))).to_vec());
    for n in [1, 2] {
        net.ok(vec![(provider(n), Call::ProposalCancel { proposal: n.into() })]);
        send(&mut net, CLIENT, FRIEND, "1");
        send(&mut net, CLIENT, FRIEND, "1");
    }
    net.wait(2_000);
    net.ok(vec![(CLIENT, vote(3, VoteChoice::For))]);
    assert_eq!(query::proposal(&net.state, 3).unwrap().proposal.votes_for, alth("1000"));
}

/// G-1: votes can be given to another account, and taken back; they are not passed on, and those of
/// a proposal under way stay where they were.
#[test]
fn votes_can_be_given_to_another_and_taken_back() {
    let mut net = net();
    let give = |to| Call::VotesDelegate { to };
    net.ok(vec![(CLIENT, give(FRIEND))]);
    assert_eq!([power(&net, CLIENT), power(&net, FRIEND)], [Amount::ZERO, alth("1000")]);
    // Whatever the units do, they vote through the friend, also when they are staked.
    net.ok(vec![
        (CLIENT, Call::Bond { amount: alth("20") }),
        (CLIENT, Call::Delegate { provider: provider(1), amount: alth("30") }),
    ]);
    assert_eq!([power(&net, CLIENT), power(&net, FRIEND)], [Amount::ZERO, alth("1000")]);
    send(&mut net, provider(1), CLIENT, "10");
    assert_eq!(power(&net, FRIEND), alth("1010"));
    // Even when they go to the friend itself.
    send(&mut net, CLIENT, FRIEND, "10");
    assert_eq!(power(&net, FRIEND), alth("1010"));
    // The friend gives away its own, not what it received.
    net.ok(vec![(FRIEND, give(STRANGER))]);
    assert_eq!([power(&net, FRIEND), power(&net, STRANGER)], [alth("1000"), alth("10")]);
    let id = propose(&mut net, FRIEND, harmless());
    net.ok(vec![(CLIENT, give(STRANGER)), (FRIEND, give(FRIEND))]);
    assert_eq!([power(&net, FRIEND), power(&net, STRANGER)], [alth("10"), alth("1000")]);
    net.ok(vec![(CLIENT, give(CLIENT))]);
    assert_eq!([power(&net, CLIENT), power(&net, STRANGER)], [alth("1000"), Amount::ZERO]);
    net.wait(2_000);
    net.ok(vec![(FRIEND, vote(id, VoteChoice::For)), (STRANGER, vote(id, VoteChoice::Against))]);
    let proposal = query::proposal(&net.state, id).unwrap().proposal;
    assert_eq!((proposal.votes_for, proposal.votes_against), (alth("1000"), alth("10")));
    for to in [TREASURY, COORDINATORS] {
        assert_eq!(net.call(CLIENT, give(to)), Err(E::NeverVotes));
    }
    assert_eq!(query::votable(&net.state), alth("4300"));
}

/// G-1: only a key that may do everything votes for its account.
#[test]
fn session_keys_of_machines_do_not_vote() {
    for scope in [Scope::Client, Scope::Provider] {
        for call in [vote(1, VoteChoice::For), create(harmless()), Call::VotesDelegate { to: FRIEND }] {
            assert!(!scope.allows(&call) && Scope::All.allows(&call));
        }
    }
}

/// G-1, T-10, L-2: after a slash delegations are valued anew, so many a block, so that units that others
/// got do not vote twice.
#[test]
fn a_slash_takes_votes_from_delegators_too() {
    let mut net = Net::with(4, "1000", Params { due_items_max: 1, ..rules() });
    let delegators = [CLIENT, provider(1), provider(2)];
    net.ok(delegators.map(|who| (who, Call::Delegate { provider: provider(3), amount: alth("100") })).to_vec());
    assert_eq!(power(&net, CLIENT), alth("1000"));
    let id = net.open_order();
    net.solve(id, provider(3), "wrong");
    net.ok(vec![(provider(1), Call::Contest { order: id, ballot: None })]);
    net.ok(vec![(provider(2), Call::Vote { order: id, refute: true })]);
    net.wait(8_000);
    for _ in 0..5 {
        net.wait(100);
    }
    let pool = query::provider(&net.state, &provider(3)).unwrap().delegated;
    assert!(pool.amount < alth("300"), "slashed");
    for who in delegators {
        let delegation = query::delegation(&net.state, &provider(3), &who).unwrap();
        assert_eq!(delegation.votable, pool_value(&pool, delegation.shares));
    }
    assert!(power(&net, CLIENT) < alth("1000"));
    let supply = query::supply(&net.state);
    assert_eq!(
        Some(query::votable(&net.state)),
        supply.free.checked_add(supply.bonded).unwrap().checked_add(pool.amount)
    );
}

// ---- what proposals do ----

/// G-1, T-6, G-2: calls of governance take no other sender.
#[test]
fn only_the_governor_makes_calls_of_governance() {
    let mut net = net();
    let reward = Some(ModelReward { rate: 1_000_000, unit_bytes: 1_000 });
    for call in [
        Call::ParamsSet { changes: vec![change("jail_ms", 1)] },
        Call::ModelRewardSet { model: net.model, reward },
        Call::UpgradeSchedule { version: 2, height: 100 },
        Call::UpgradeCancel,
    ] {
        assert_eq!(net.call(provider(1), call), Err(E::NotGovernor));
    }
}

/// G-1, T-18: parameters change together, from the next block on, if they fit together.
#[test]
fn a_proposal_changes_parameters_from_the_next_block_on() {
    let mut net = net();
    let changes = vec![change("jail_ms", 7_000), change("bond_min", 3 * Amount::TOKEN.0)];
    let id = accepted(&mut net, vec![Call::ParamsSet { changes: changes.clone() }]);
    let before = query::params(&net.state);
    net.ok(vec![(STRANGER, Call::ProposalExecute { proposal: id })]);
    assert_eq!(query::params(&net.state), before, "the block that decides follows the old ones");
    assert!(net.events.contains(&Event::ParamsSet { changes }));
    net.wait(100);
    assert_eq!(query::params(&net.state), Params { jail_ms: 7_000, bond_min: alth("3"), ..before });

    // Two changes in one block: the second builds on the first, and is checked with it.
    let unbonding_ms = query::params(&net.state).unbonding_ms;
    let longer = vec![change("unbonding_ms", u128::from(unbonding_ms) + 60_000)];
    let needs_it = vec![change("challenge_window_ms", u128::from(unbonding_ms))];
    let alone = enact(&mut net, vec![Call::ParamsSet { changes: needs_it.clone() }]);
    assert!(matches!(alone, Err(E::ProposalCallFailed { index: 0, .. })), "{alone:?}");
    enact(&mut net, vec![Call::ParamsSet { changes: longer }, Call::ParamsSet { changes: needs_it }]).unwrap();
    net.wait(100);
    assert_eq!(query::params(&net.state).challenge_window_ms, unbonding_ms);
}

/// T-10, T-18: neither a number out of its bounds nor numbers that do not fit together come into force.
#[test]
fn parameters_that_do_not_fit_are_refused_with_the_reason() {
    for (changes, expected) in [
        (vec![change("colour", 1)], "there is no parameter \"colour\""),
        (vec![change("slash", 1_000_001)], "slash = 1000001 is not between 0 and 500000"),
        (
            vec![change("slash_leader", 600_000), change("slash_jurors", 500_000)],
            "slash_leader + slash_jurors add up to 1100000 ppm, more than the whole",
        ),
        (
            vec![change("challenge_window_ms", 60_000)],
            "unbonding_ms = 60000 must be longer than the periods of a dispute together = 68000",
        ),
    ] {
        let mut net = net();
        let before = query::params(&net.state);
        let reason = Box::new(E::ParamsRefused { reason: expected.into() });
        let refused = Err(E::ProposalCallFailed { index: 0, reason });
        assert_eq!(enact(&mut net, vec![Call::ParamsSet { changes }]), refused);
        net.wait(100);
        assert_eq!(query::params(&net.state), before);
    }
}

/// G-1, T-6: a model's reward is a decision of the governor.
#[test]
fn a_proposal_enables_the_reward_of_a_model() {
    let mut net = net();
    let (model, reward) = (net.model, Some(ModelReward { rate: 500_000, unit_bytes: 1_000 }));
    enact(&mut net, vec![Call::ModelRewardSet { model, reward }]).unwrap();
    assert_eq!(query::model(&net.state, &model).unwrap().reward, reward);
}

/// G-1, E-3: the governor's account is the treasury.
#[test]
fn a_proposal_spends_the_treasury() {
    let mut net = net();
    send(&mut net, CLIENT, TREASURY, "50");
    assert_eq!(query::supply(&net.state).treasury, alth("50"));
    let pay = |to, amount: &str| Call::Transfer { to, amount: alth(amount) };
    enact(&mut net, vec![pay(FRIEND, "20"), pay(STRANGER, "5")]).unwrap();
    let holdings = [net.free(FRIEND), net.free(STRANGER), query::supply(&net.state).treasury];
    assert_eq!(holdings, [alth("20"), alth("5"), alth("25")]);
    // What the treasury stakes does not vote either.
    let votable = query::votable(&net.state);
    enact(
        &mut net,
        vec![Call::Delegate { provider: provider(1), amount: alth("10") }, Call::Bond { amount: alth("5") }],
    )
    .unwrap();
    assert_eq!(query::votable(&net.state), votable);
    assert_eq!(power(&net, TREASURY), Amount::ZERO);
}

/// G-1: all calls of a proposal or none; what failed can be tried again until the proposal expires.
#[test]
fn a_proposal_whose_second_call_fails_leaves_nothing_and_can_be_tried_again() {
    let mut net = net();
    send(&mut net, CLIENT, TREASURY, "10");
    let pay = |amount: &str| Call::Transfer { to: FRIEND, amount: alth(amount) };
    let id = accepted(&mut net, vec![pay("4"), pay("8"), Call::UpgradeSchedule { version: 2, height: 9_000 }]);
    let (before, events) = (net.state.clone(), net.events.len());
    let reason = Box::new(E::InsufficientBalance { needed: alth("8"), free: alth("6") });
    let error = E::ProposalCallFailed { index: 1, reason };
    assert!(
        error.to_string().ends_with("call 1 of the proposal failed: insufficient balance: 8 ALTH needed, 6 ALTH free")
    );
    assert_eq!(net.call(STRANGER, Call::ProposalExecute { proposal: id }), Err(error));
    assert_eq!(net.events.len(), events);
    let changed: Vec<_> = net.state.iter().filter(|(key, value)| before.get(*key) != Some(*value)).collect();
    // The caller's nonce, and the clock of the block.
    assert_eq!(changed.iter().map(|(key, _)| key[0]).collect::<Vec<_>>(), [0x01, 0x12]);
    assert_eq!(state(&net, id), S::Queued);
    send(&mut net, CLIENT, TREASURY, "2");
    net.ok(vec![(STRANGER, Call::ProposalExecute { proposal: id })]);
    assert_eq!((net.free(FRIEND), net.free(TREASURY)), (alth("12"), Amount::ZERO));
}

/// G-1: a proposal cannot act on itself while it runs.
#[test]
fn a_proposal_that_cancels_itself_fails() {
    let mut net = net();
    let reason = Box::new(E::ProposalIs { state: S::Executed });
    let itself = vec![Call::ProposalCancel { proposal: 1 }];
    assert_eq!(enact(&mut net, itself), Err(E::ProposalCallFailed { index: 0, reason }));
}

// ---- upgrades ----

/// G-2: a program that knows version 1 stops exactly before the first block of version 2, and says
/// why; one that knows version 2 goes on.
#[test]
fn an_upgrade_stops_old_programs_before_its_height_and_no_others() {
    let mut net = net();
    assert_eq!((query::version(&net.state), query::upgrade_pending(&net.state)), (PROTOCOL_VERSION, None));
    let (version, height) = (2, net.block.height + 30);
    enact(&mut net, vec![Call::UpgradeSchedule { version, height }]).unwrap();
    assert_eq!(query::upgrade_pending(&net.state), Some(Upgrade { version, height }));
    let needed = Err(UpgradeNeeded { version, height, supported: 1 });
    while net.block.height + 1 < height {
        assert_eq!(can_run(&net.state, net.block.height + 1, 1), Ok(()));
        assert_eq!(can_run(&net.state, net.block.height + 1, 2), Ok(()));
        net.wait(100);
        assert_eq!(query::version(&net.state), 1);
    }
    // The old program has everything up to this block, and refuses the next one.
    assert_eq!(net.block.height + 1, height);
    assert_eq!(can_run(&net.state, height, 1), needed);
    assert_eq!(can_run(&net.state, height, 2), Ok(()));
    let message = can_run(&net.state, height, 1).unwrap_err().to_string();
    assert!(message.contains(&format!("version 2 comes into force at height {height}: install")), "{message}");
    let output = net.block_after(100, Vec::new());
    assert_eq!(output.events, [Event::Upgraded { version, height }]);
    assert_eq!((query::version(&net.state), query::upgrade_pending(&net.state)), (2, None));
    assert_eq!(can_run(&net.state, height + 1, 1), needed);
    assert_eq!(can_run(&net.state, height + 1, 2), Ok(()));
}

/// G-2: an upgrade goes forward, lies ahead, is the only one, and can be called off.
#[test]
fn an_upgrade_must_make_sense_and_can_be_called_off() {
    let mut net = net();
    let (soon, far) = (net.block.height + 1, net.block.height + 9_000);
    let schedule = |version, height| Call::UpgradeSchedule { version, height };
    let failed = |index, reason| Err(E::ProposalCallFailed { index, reason: Box::new(reason) });
    let invalid = E::UpgradeVersionInvalid { version: 1, in_force: 1 };
    assert_eq!(enact(&mut net, vec![schedule(1, far)]), failed(0, invalid));
    let id = accepted(&mut net, vec![schedule(2, soon)]);
    let height = net.block.height + 1;
    assert_eq!(
        net.call(STRANGER, Call::ProposalExecute { proposal: id }),
        failed(0, E::UpgradeHeightPassed { height })
    );
    assert_eq!(enact(&mut net, vec![Call::UpgradeCancel]), failed(0, E::NoUpgrade));
    enact(&mut net, vec![schedule(2, far)]).unwrap();
    let already = E::UpgradeScheduledAlready { version: 2, height: far };
    assert_eq!(enact(&mut net, vec![schedule(3, far)]), failed(0, already));
    enact(&mut net, vec![Call::UpgradeCancel, schedule(3, far)]).unwrap();
    assert_eq!(query::upgrade_pending(&net.state), Some(Upgrade { version: 3, height: far }));
    assert!(net.events.contains(&Event::UpgradeCancelled { version: 2, height: far }));
}

// ---- docs/voting.md ----

/// The rows of the table in docs/voting.md: place, whether it votes.
fn table() -> BTreeMap<String, String> {
    let text = include_str!("../../../docs/voting.md");
    let rows = text.lines().filter(|line| line.starts_with("| `"));
    let cells = rows.map(|row| row.split('|').map(|cell| cell.trim().trim_matches('`')).collect::<Vec<_>>());
    cells.map(|cells| (cells[1].to_owned(), cells[2].to_owned())).collect()
}

/// G-1: the table of docs/voting.md is what the ledger does: a unit that moves from the free balance to
/// a place stays in somebody's power if the table says that the place votes, and leaves it if not.
#[test]
fn the_table_of_what_votes_is_what_the_ledger_does() {
    let delegate = || Call::Delegate { provider: provider(1), amount: alth("10") };
    // For each place how ten tokens of CLIENT get there.
    let ways: Vec<(&str, Vec<Call>)> = vec![
        ("free", vec![Call::Transfer { to: FRIEND, amount: alth("10") }]),
        ("bonded", vec![Call::Bond { amount: alth("10") }]),
        ("delegated", vec![delegate()]),
        ("leaving", vec![delegate(), Call::Undelegate { provider: provider(1), amount: None }]),
        ("unbonding", vec![Call::Bond { amount: alth("10") }, Call::Unbond { amount: alth("10") }]),
        ("escrowed", vec![Call::OrderSubmit(net().submit("10"))]),
        ("treasury", vec![Call::Transfer { to: TREASURY, amount: alth("10") }]),
        ("coordinators", vec![Call::Transfer { to: COORDINATORS, amount: alth("10") }]),
    ];
    let mut table = table();
    for (place, calls) in ways {
        let mut net = net();
        let votable = query::votable(&net.state);
        net.ok(calls.into_iter().map(|call| (CLIENT, call)).collect());
        let lost = votable.checked_sub(query::votable(&net.state)).unwrap();
        let powers = power(&net, CLIENT).checked_add(power(&net, FRIEND)).unwrap();
        let supply = query::supply(&net.state);
        let there = match place {
            "free" => net.free(FRIEND),
            "leaving" => supply.delegated,
            _ => supply.places().into_iter().find(|(name, _)| *name == place).unwrap().1,
        };
        assert!(there >= alth("10"), "{place} holds the units");
        match table.remove(place).as_deref() {
            Some("yes") => assert_eq!((lost, powers), (Amount::ZERO, alth("1000")), "{place}"),
            Some("no") => assert_eq!((lost, powers), (alth("10"), alth("990")), "{place}"),
            other => panic!("{place}: {other:?}"),
        }
    }
    // Earnings that nobody claimed, and the drip, come from orders. Together with the places above they
    // are all: what votes is exactly what the places that vote hold.
    let mut net = net();
    let (model, reward) = (net.model, Some(ModelReward { rate: 1_000_000, unit_bytes: 1 }));
    enact(&mut net, vec![Call::ModelRewardSet { model, reward }]).unwrap();
    net.ok(vec![(CLIENT, delegate())]);
    let id = net.open_order();
    net.solve(id, provider(1), "right");
    net.wait(9_000);
    let supply = query::supply(&net.state);
    let voting = [supply.free, supply.bonded, supply.delegated].into_iter().sum::<Amount>();
    assert_eq!(query::votable(&net.state), voting);
    for (place, amount) in [("owed", supply.owed), ("drip", supply.drip)] {
        assert!(!amount.is_zero(), "{place} holds something");
        assert_eq!(table.remove(place).as_deref(), Some("no"));
    }
    let of_client = query::delegations_by(&net.state, &CLIENT, 1)[0].votable.checked_add(net.free(CLIENT)).unwrap();
    assert_eq!(power(&net, CLIENT), of_client, "without what is owed to it");
    // Places that the ledger does not fill yet: the table says so, and they are empty.
    for (place, verdict) in table {
        assert!(["no, later", "yes, later"].contains(&verdict.as_str()), "{place}: {verdict}");
        let amount = supply.places().into_iter().find(|(name, _)| *name == place).map(|(_, amount)| amount);
        assert_eq!(amount.unwrap_or_default(), Amount::ZERO, "{place}: say in docs/voting.md whether it votes");
    }
}

#[test]
fn every_place_of_the_supply_is_in_the_table() {
    let table = table();
    for (place, _) in query::supply(&net().state).places() {
        assert!(table.contains_key(place), "{place} is missing in docs/voting.md");
    }
}

// ---- checkpoints against a naive model ----

#[derive(Clone, Debug)]
enum Attempt {
    Send { from: usize, to: usize, tokens: u64 },
    Bond { who: usize, tokens: u64 },
    Unbond { who: usize, tokens: u64 },
    Delegate { who: usize, to: usize, tokens: u64 },
    Undelegate { who: usize, from: usize, tokens: u64, to: Option<usize> },
    Give { who: usize, to: usize },
    Propose { who: usize },
    Cancel { back: u64, who: usize },
    Lie { who: usize },
    Wait { ms: u64 },
}

const PEOPLE: usize = 6;

/// Three providers, the client, two that start with nothing.
fn person(n: usize) -> Address {
    [provider(1), provider(2), provider(3), CLIENT, FRIEND, STRANGER][n]
}

fn attempt() -> impl Strategy<Value = Attempt> {
    let (who, tokens) = (0..PEOPLE, 1u64..120);
    let (two, amount) = ((who.clone(), who.clone()), tokens.clone());
    prop_oneof![
        8 => (two.clone(), amount.clone()).prop_map(|((from, to), tokens)| Attempt::Send { from, to, tokens }),
        3 => (who.clone(), amount.clone()).prop_map(|(who, tokens)| Attempt::Bond { who, tokens }),
        2 => (who.clone(), amount.clone()).prop_map(|(who, tokens)| Attempt::Unbond { who, tokens }),
        4 => (two.clone(), amount.clone()).prop_map(|((who, to), tokens)| Attempt::Delegate { who, to, tokens }),
        3 => (two.clone(), amount, proptest::option::weighted(0.3, who.clone()))
            .prop_map(|((who, from), tokens, to)| Attempt::Undelegate { who, from, tokens, to }),
        4 => two.prop_map(|(who, to)| Attempt::Give { who, to }),
        4 => who.clone().prop_map(|who| Attempt::Propose { who }),
        1 => (0u64..4, who.clone()).prop_map(|(back, who)| Attempt::Cancel { back, who }),
        1 => (0usize..3).prop_map(|who| Attempt::Lie { who }),
        5 => prop_oneof![Just(100u64), Just(700), Just(1_500), Just(5_000)].prop_map(|ms| Attempt::Wait { ms }),
    ]
}

/// A network beside a model that writes down everybody's power after each block.
struct Watched {
    net: Net,
    delegates: BTreeMap<Address, Address>,
    powers: BTreeMap<u64, BTreeMap<Address, Amount>>,
}

impl Watched {
    fn new() -> Self {
        let params = Params { due_items_max: 2, proposal_voting_ms: 4_000, unbonding_ms: 30_000, ..rules() };
        let mut watched =
            Self { net: Net::with(3, "1000", params), delegates: BTreeMap::new(), powers: BTreeMap::new() };
        watched.compare();
        watched
    }

    fn block(&mut self, after_ms: u64, calls: Vec<(Address, Call)>) {
        let output = self.net.jump(after_ms, calls.clone());
        for ((who, call), receipt) in calls.into_iter().zip(output.receipts) {
            if let (Call::VotesDelegate { to }, None) = (call, receipt.error) {
                self.delegates.insert(who, to);
            }
        }
        self.compare();
    }

    fn units(&self, who: Address) -> Amount {
        let state = &self.net.state;
        let bond = query::provider(state, &who).unwrap_or_default().bond;
        let delegated = query::delegations_by(state, &who, 100).into_iter().map(|delegation| delegation.votable);
        delegated.chain([bond, self.net.free(who)]).sum()
    }

    fn compare(&mut self) {
        let (state, height) = (&self.net.state, self.net.block.height);
        let people: Vec<_> = (0..PEOPLE).map(person).collect();
        let mut powers: BTreeMap<Address, Amount> = people.iter().map(|who| (*who, Amount::ZERO)).collect();
        for who in &people {
            let votes = powers.get_mut(self.delegates.get(who).unwrap_or(who)).unwrap();
            *votes = votes.checked_add(self.units(*who)).unwrap();
        }
        self.powers.insert(height, powers);
        let live: Vec<u64> = query::proposals(state, None, 100)
            .into_iter()
            .filter(|proposal| matches!(proposal.state(self.net.block.time_ms), S::Pending | S::Active))
            .map(|proposal| proposal.snapshot_height)
            .collect();
        for who in &people {
            assert_eq!(query::power(state, who), self.powers[&height][who]);
            for (then, powers) in &self.powers {
                let known = query::power_at(state, who, *then);
                assert!(known.is_none_or(|power| power == powers[who]), "{who} at {then} of {height}: {known:?}");
                // What a proposal needs is always known: those of now, and those of the next block.
                let needed = live.contains(then) || *then == height;
                assert!(known.is_some() || !needed, "{who} at {then} of {height} is not known");
            }
        }
    }

    /// A wrong answer, contested: its solver and all who delegated to it are slashed, if they can be.
    fn lie(&mut self, who: usize) {
        let (solver, contester) = (person(who), person((who + 1) % 3));
        let submit = self.net.submit("4");
        self.block(100, vec![(CLIENT, Call::OrderSubmit(submit))]);
        let Some(id) = query::orders_newest(&self.net.state, 1).first().map(|order| order.id) else { return };
        self.block(100, Vec::new());
        self.block(100, Vec::new());
        let commit = self.net.commit_call(id, solver, "wrong");
        let reveal = self.net.reveal_call(id, solver, "wrong");
        self.block(100, vec![(solver, commit)]);
        self.block(100, vec![(solver, reveal)]);
        self.block(100, vec![(contester, Call::Contest { order: id, ballot: None })]);
        self.block(100, vec![(person((who + 2) % 3), Call::Vote { order: id, refute: true })]);
        for _ in 0..5 {
            self.block(2_000, Vec::new());
        }
    }

    /// The call of an attempt, if it is one call.
    fn call(&self, attempt: &Attempt) -> Option<(Address, Call)> {
        let amount = Amount::tokens;
        Some(match *attempt {
            Attempt::Send { from, to, tokens } => {
                (person(from), Call::Transfer { to: person(to), amount: amount(tokens) })
            }
            Attempt::Bond { who, tokens } => (person(who), Call::Bond { amount: amount(tokens) }),
            Attempt::Unbond { who, tokens } => (person(who), Call::Unbond { amount: amount(tokens) }),
            Attempt::Delegate { who, to, tokens } => {
                (person(who), Call::Delegate { provider: person(to), amount: amount(tokens) })
            }
            Attempt::Undelegate { who, from, tokens, to: None } => {
                (person(who), Call::Undelegate { provider: person(from), amount: Some(amount(tokens)) })
            }
            Attempt::Undelegate { who, from, tokens, to: Some(to) } => {
                let (from, to, amount) = (person(from), person(to), Some(amount(tokens)));
                (person(who), Call::DelegationMove { from, to, amount })
            }
            Attempt::Give { who, to } => (person(who), Call::VotesDelegate { to: person(to) }),
            Attempt::Propose { who } => (person(who), create(harmless())),
            Attempt::Cancel { back, who } => {
                let newest = query::proposals(&self.net.state, None, 1).first().map_or(0, |proposal| proposal.id);
                (person(who), Call::ProposalCancel { proposal: newest.saturating_sub(back) })
            }
            Attempt::Lie { .. } | Attempt::Wait { .. } => return None,
        })
    }

    /// One block of attempts, and what takes longer.
    fn attempt(&mut self, attempts: &[Attempt]) {
        let wait_ms = attempts.iter().map(|a| if let Attempt::Wait { ms } = a { *ms } else { 0 }).sum::<u64>();
        let calls = attempts.iter().filter_map(|attempt| self.call(attempt)).collect();
        self.block(wait_ms.max(100), calls);
        for attempt in attempts {
            if let Attempt::Lie { who } = attempt {
                self.lie(*who);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    /// G-1: the power at a proposal's snapshot is what a table of everybody's power at all heights says,
    /// whatever happens after it, and nothing of it stays when the votes are over. (L-2)
    #[test]
    fn power_at_a_snapshot_is_what_it_was(
        blocks in proptest::collection::vec(proptest::collection::vec(attempt(), 1..6), 1..40)
    ) {
        let mut watched = Watched::new();
        for attempts in &blocks {
            watched.attempt(attempts);
        }
        watched.net.wait(10_000);
        for _ in 0..60 {
            watched.block(100, Vec::new());
        }
        let left = watched.net.state.keys().filter(|key| [0x5a, 0x5b].contains(&key[0])).count();
        prop_assert_eq!(left, 0, "checkpoints are removed");
    }
}

/// If the world changed so that no checkpoint is ever written, the property would hold for nothing.
#[test]
fn checkpoints_are_written_only_for_proposals_and_are_needed() {
    let checkpoints = |net: &Net| net.state.keys().filter(|key| key[0] == 0x5a).count();
    let mut net = net();
    for _ in 0..3 {
        send(&mut net, CLIENT, FRIEND, "1");
    }
    assert_eq!(checkpoints(&net), 0, "nothing is voted on");
    propose(&mut net, provider(1), harmless());
    send(&mut net, CLIENT, FRIEND, "1");
    assert_eq!(checkpoints(&net), 0, "one change later the account itself knows");
    send(&mut net, CLIENT, FRIEND, "1");
    assert_eq!(checkpoints(&net), 2);
    for _ in 0..3 {
        send(&mut net, CLIENT, FRIEND, "1");
    }
    assert_eq!(checkpoints(&net), 2, "once for each account and snapshot");
    net.wait(12_000);
    assert_eq!(checkpoints(&net), 0);
}
