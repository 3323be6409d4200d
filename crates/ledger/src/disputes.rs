//! Disputes: a vote on whether a solution is right, by those who re-ran it. (§3)
//!
//! A contest opens with the contester's vote and the solver's; agreements with the solution count as
//! votes for it, for what they were staked with (V-1). What follows has two forms, by profile:
//!
//! **Open votes** (the paper): every provider bonded before the solution votes openly until the
//! period ends. For > against refutes; a tie or a minority upholds.
//!
//! **Committed votes** (the default): a beacon draws a jury by stake among the model's supporters.
//! Contester and jurors commit to what their own re-run gave, then open. The jurors' answers are
//! counted as groups: the standing output, to which agreements count, against the heaviest other
//! answer. So copying, sniping and random dissent gain nothing. Contester and solver stake on their
//! answers and lead, but nobody judges in an own case, however large its stake. A verdict needs a
//! quorum of the jury's opened weight; if the first jury misses it, a larger one is drawn once. If
//! that misses it too, nobody is slashed: a solution that others agreed with stands, any other is
//! voided. A phase ends early when nobody is missing.
//!
//! ```text
//! contest ─ beacon ─► jury drawn ─ commit* ─► open* ─► count ─┬─ upheld
//!              ▲                                              ├─ refuted
//!              └───────── once, a larger jury ◄─ no quorum ───┴─ dismissed, or voided
//! ```
//!
//! | | refuted | upheld | dismissed | voided |
//! |---|---|---|---|---|
//! | losers | solver, agreements, votes for the standing output | contester, votes for anything else | nobody | nobody |
//! | leader | contester, if its answer won | solver | | |
//! | order | next reveal stands, or refund | as if uncontested | as if uncontested | refund |
//!
//! Whoever commits and does not open loses in every case: otherwise a vote would be a free option.
//! Who voted for a third answer when the solution is refuted neither wins nor loses.

use crate::{
    accounts, due,
    exec::{Done, Exec},
    orders::{self, BY_SOLVER},
    registry, staking,
    state::{Map, StateRead},
    supply::{Place, TREASURY},
};
use althing_types::{
    Address, Amount, BallotAnswer, Case, Event, Hash, LedgerError, Order, OrderId, OrderState, Outcome, Ppm,
    RefundReason, Vote,
    commitment::ballot_hash,
    event::PaymentKind,
    object::{CaseTerms, Juror, Jury},
};
use std::collections::BTreeMap;

/// Most votes in one case.
pub const VOTES_MAX: usize = 96;
/// Most supporters among whom a jury is drawn.
pub const JURY_CANDIDATES_MAX: usize = 512;

const CASES: Map<OrderId, Case> = Map::new(0x30);
/// Cases whose jury is not drawn yet, by the view from which a beacon may draw it. (T-7)
const UNDRAWN: Map<(u64, OrderId), ()> = Map::new(0x31);
/// Where voiding a refuted solver's solutions goes on. (T-8)
const VOID_FROM: Map<Address, OrderId> = Map::new(0x32);

// ---- queries ----

/// The newest case over an order, while the order is in the state.
pub fn case(state: &dyn StateRead, order: &OrderId) -> Option<Case> {
    CASES.get(state, order)
}

/// Cases in order-id order, after one.
pub fn all(state: &dyn StateRead, after: Option<OrderId>, limit: usize) -> Vec<Case> {
    let entries = match after {
        None => CASES.first(state, limit),
        Some(after) => CASES.after(state, &after, limit),
    };
    entries.into_iter().map(|(_, case)| case).collect()
}

/// Cases whose votes are not counted yet, by the time of the count.
pub fn open(state: &dyn StateRead, limit: usize) -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    for ((_, order), ()) in due::COUNT.first(state, limit) {
        let known = cases.iter().any(|case| case.order == order);
        cases.extend(case(state, &order).filter(|case| case.outcome.is_none() && !known));
    }
    cases
}

/// Whether a dispute waits for the beacon that draws its jury.
pub fn has_undrawn(state: &dyn StateRead) -> bool {
    !UNDRAWN.first(state, 1).is_empty()
}

pub(crate) fn forget(exec: &mut Exec<'_>, order: &OrderId) {
    CASES.remove(&mut exec.state, order);
}

fn open_case(exec: &Exec<'_>, id: &OrderId) -> Done<Case> {
    case(&exec.state, id).filter(|case| case.outcome.is_none()).ok_or(LedgerError::NoCase)
}

/// Puts the ends of a case's phases into the due queue.
fn schedule(exec: &mut Exec<'_>, case: &Case) {
    due::COUNT.set(&mut exec.state, &(case.voting_ends_ms, case.order), &());
    due::COUNT.set(&mut exec.state, &(case.opening_ends_ms, case.order), &());
}

// ---- contest ----

/// [`althing_types::Call::Contest`]. (T-7, T-9, T-18, T-20)
pub(crate) fn contest(exec: &mut Exec<'_>, sender: Address, id: OrderId, ballot: Option<Hash>) -> Done {
    let now = exec.active_now();
    let mut order = orders::order(&exec.state, &id).ok_or(LedgerError::UnknownOrder(id))?;
    // Re-runs would differ without anybody's fault.
    orders::check_verifiable(exec, &order)?;
    let claim_at_ms = match order.state {
        // The window's last moment is in it: claims run at the end of that block. (T-4)
        OrderState::Solved { claim_at_ms } if now <= claim_at_ms => claim_at_ms,
        OrderState::Solved { .. } => return Err(LedgerError::WindowClosed),
        OrderState::Contested { .. } => return Err(LedgerError::WrongState { state: "contested".into() }),
        _ => return Err(LedgerError::NoSolution),
    };
    match (exec.params.votes_committed, ballot) {
        (true, None) => return Err(wrong_form(true)),
        (false, Some(_)) => return Err(wrong_form(false)),
        _ => {}
    }
    let standing = order.solutions.first().ok_or(LedgerError::NoSolution)?.clone();
    if standing.provider == sender {
        return Err(LedgerError::OwnOrder);
    }
    if order.agreements.iter().any(|a| a.provider == sender) {
        return Err(LedgerError::AgreedBefore);
    }
    let mut contester = staking::fit_to_judge(exec, &sender)?;
    let weight = staking::weight_since(exec, &contester, standing.active_ms)?;
    let reserved = staking::reserve(exec, &mut contester, weight)?;

    let answer = if ballot.is_some() { None } else { Some(BallotAnswer::Refute) };
    let mut votes = vec![Vote { provider: sender, weight, reserved, inherited: false, ballot, answer }];
    votes.push(inherited_vote(exec, &standing.provider, standing.weight, standing.reserved));
    for agreement in &order.agreements {
        votes.push(inherited_vote(exec, &agreement.provider, agreement.weight, agreement.reserved));
    }
    let terms = terms(exec);
    let voting_ends_ms = now + terms.voting_period_ms;
    let mut case = Case {
        order: id,
        contester: sender,
        solver: standing.provider,
        output: standing.output,
        opened_height: exec.block.height,
        opened_ms: exec.now(),
        opened_active_ms: now,
        voting_ends_ms,
        opening_ends_ms: voting_ends_ms + terms.opening_period_ms,
        votes,
        jury: None,
        terms,
        outcome: None,
    };
    if exec.params.votes_committed {
        call_jury(exec, &mut case, 0);
    }
    schedule(exec, &case);
    CASES.set(&mut exec.state, &id, &case);
    order.state = OrderState::Contested { claim_at_ms };
    orders::store(exec, &order);
    exec.emit(Event::Contested { order: id, contester: sender, solver: standing.provider, voting_ends_ms });
    match ballot {
        None => exec.emit(Event::Voted { order: id, provider: sender, refute: true, weight }),
        Some(_) => exec.emit(Event::VoteCommitted { order: id, provider: sender, weight }),
    }
    Ok(())
}

fn wrong_form(committed: bool) -> LedgerError {
    let (form, calls) = match committed {
        true => ("committed", "contest with a ballot, vote_commit, vote_open"),
        false => ("open", "contest without a ballot, vote"),
    };
    LedgerError::WrongVoteForm { form: form.into(), calls: calls.into() }
}

/// The parameters that a case keeps, whatever is voted later. (T-18)
fn terms(exec: &Exec<'_>) -> CaseTerms {
    let params = exec.params;
    CaseTerms {
        slash: staking::slash_now(exec),
        slash_leader: params.slash_leader,
        slash_jurors: params.slash_jurors,
        jail_ms: params.jail_ms,
        voting_period_ms: params.voting_period_ms,
        opening_period_ms: if params.votes_committed { params.opening_period_ms } else { 0 },
        jury_seats: params.jury_seats,
        jury_seats_redrawn: params.jury_seats_redrawn,
        jury_quorum: params.jury_quorum,
    }
}

/// The vote to uphold that a solution or agreement carries: its weight when it was made, or what
/// the stake without other reservations is by now, whichever is smaller. (T-7)
fn inherited_vote(exec: &Exec<'_>, provider: &Address, weight: Amount, reserved: Amount) -> Vote {
    let now = staking::provider(&exec.state, provider)
        .map_or(Amount::ZERO, |p| p.stake().saturating_sub(p.reserved.saturating_sub(reserved)));
    // Before bonds are required a named provider weighs one, whatever it has.
    let weight = if staking::bonds_required(exec) { weight.min(now) } else { weight };
    let answer = Some(BallotAnswer::Uphold);
    Vote { provider: *provider, weight, reserved, inherited: true, ballot: None, answer }
}

// ---- open votes ----

/// [`althing_types::Call::Vote`]. (T-7, T-9, T-18)
pub(crate) fn vote(exec: &mut Exec<'_>, sender: Address, id: OrderId, refute: bool) -> Done {
    let mut case = open_case(exec, &id)?;
    if case.jury.is_some() {
        return Err(wrong_form(true));
    }
    if exec.active_now() >= case.voting_ends_ms {
        return Err(LedgerError::VotingOver);
    }
    let answer = if refute { BallotAnswer::Refute } else { BallotAnswer::Uphold };
    let weight = add_vote(exec, &mut case, sender, None, Some(answer))?;
    CASES.set(&mut exec.state, &id, &case);
    exec.emit(Event::Voted { order: id, provider: sender, refute, weight });
    Ok(())
}

/// Adds a vote of a provider that was bonded before the solution appeared, reserving its stake.
fn add_vote(
    exec: &mut Exec<'_>,
    case: &mut Case,
    sender: Address,
    ballot: Option<Hash>,
    answer: Option<BallotAnswer>,
) -> Done<Amount> {
    if case.votes.iter().any(|v| v.provider == sender) {
        return Err(LedgerError::VoteExists);
    }
    if case.votes.len() >= VOTES_MAX {
        return Err(LedgerError::TooManyVotes { max: VOTES_MAX as u32 });
    }
    let order = orders::order(&exec.state, &case.order).ok_or(LedgerError::UnknownOrder(case.order))?;
    let solved_ms = order.solutions.first().ok_or(LedgerError::NoSolution)?.active_ms;
    let mut voter = staking::fit_to_judge(exec, &sender)?;
    let weight = staking::weight_since(exec, &voter, solved_ms)?;
    let reserved = staking::reserve(exec, &mut voter, weight)?;
    case.votes.push(Vote { provider: sender, weight, reserved, inherited: false, ballot, answer });
    Ok(weight)
}

// ---- juries ----

/// Has a jury drawn by a beacon that nobody knows yet. (T-7)
fn call_jury(exec: &mut Exec<'_>, case: &mut Case, round: u8) {
    let from_view = due::await_beacon(exec, &UNDRAWN, case.order);
    case.jury = Some(Jury { round, from_view, seats: None });
}

/// Hook before the calls of a block: draws the juries that its beacon may draw. (T-7)
pub(crate) fn draw_juries(exec: &mut Exec<'_>) {
    for id in due::take_drawable(exec, &UNDRAWN) {
        let Ok(mut case) = open_case(exec, &id) else { continue };
        let Some(order) = orders::order(&exec.state, &id) else { continue };
        let seats = draw(exec, &case, &order);
        let jurors = seats.iter().map(|juror| juror.provider).collect();
        let Some(jury) = &mut case.jury else { continue };
        jury.seats = Some(seats);
        let round = jury.round;
        exec.emit(Event::JuryDrawn { order: id, round, jurors });
        advance(exec, case);
    }
}

/// Draws jurors by stake, without replacement, among the model's supporters that were bonded before
/// the solution and have no part in the case. Anyone can repeat it from the block's beacon.
fn draw(exec: &Exec<'_>, case: &Case, order: &Order) -> Vec<Juror> {
    let Some(solved_ms) = order.solutions.first().map(|s| s.active_ms) else { return Vec::new() };
    let round = case.jury.as_ref().map_or(0, |jury| jury.round);
    let seats = if round == 0 { case.terms.jury_seats } else { case.terms.jury_seats_redrawn };
    let random = |index: u64| {
        let tag = b"althing/jury/v1".as_slice();
        Hash::of(&[tag, order.id.as_bytes(), &[round], &index.to_be_bytes(), exec.block.beacon.as_bytes()])
    };
    let mut start = Address::ZERO;
    start.0.copy_from_slice(&random(u64::MAX).0[..20]);
    let candidates = registry::supporters_from(&exec.state, &order.model, &start, JURY_CANDIDATES_MAX);
    let mut candidates: Vec<Juror> = candidates
        .into_iter()
        .filter(|address| *address != order.client && *address != case.contester)
        .filter(|address| !case.votes.iter().any(|vote| vote.provider == *address))
        .filter_map(|address| {
            let provider = staking::fit_to_judge(exec, &address).ok()?;
            let weight = staking::weight_since(exec, &provider, solved_ms).ok()?;
            Some(Juror { provider: address, weight })
        })
        .collect();
    let mut drawn = Vec::new();
    for index in 0..u64::from(seats) {
        let total: Amount = candidates.iter().map(|juror| juror.weight).sum();
        if total.is_zero() {
            break;
        }
        let mut half = [0; 16];
        half.copy_from_slice(&random(index).0[..16]);
        // 128 random bits modulo a supply below 2^90: the bias is below 2^-38.
        let mut at = u128::from_be_bytes(half) % total.0;
        let chosen = candidates.iter().position(|juror| {
            let here = at < juror.weight.0;
            at = at.saturating_sub(juror.weight.0);
            here
        });
        drawn.extend(chosen.map(|position| candidates.remove(position)));
    }
    drawn
}

// ---- committed votes ----

/// [`althing_types::Call::VoteCommit`]. (T-7, T-9)
pub(crate) fn vote_commit(exec: &mut Exec<'_>, sender: Address, id: OrderId, ballot: Hash) -> Done {
    let mut case = open_case(exec, &id)?;
    let jury = case.jury.as_ref().ok_or_else(|| wrong_form(false))?;
    let seats = jury.seats.as_ref().ok_or(LedgerError::JuryNotDrawn)?;
    if exec.active_now() >= case.voting_ends_ms {
        return Err(LedgerError::VotingOver);
    }
    let is_contester = jury.round > 0 && sender == case.contester;
    if !is_contester && !seats.iter().any(|juror| juror.provider == sender) {
        return Err(LedgerError::NotJuror);
    }
    let weight = add_vote(exec, &mut case, sender, Some(ballot), None)?;
    exec.emit(Event::VoteCommitted { order: id, provider: sender, weight });
    advance(exec, case);
    Ok(())
}

/// [`althing_types::Call::VoteOpen`]. (T-7)
pub(crate) fn vote_open(exec: &mut Exec<'_>, sender: Address, id: OrderId, answer: BallotAnswer, salt: Hash) -> Done {
    let mut case = open_case(exec, &id)?;
    let round = case.jury.as_ref().ok_or_else(|| wrong_form(false))?.round;
    if exec.active_now() < case.voting_ends_ms {
        return Err(LedgerError::OpeningNotBegun { from_ms: case.voting_ends_ms });
    }
    if exec.active_now() >= case.opening_ends_ms {
        return Err(LedgerError::VotingOver);
    }
    if !matches!(answer, BallotAnswer::Output { .. } | BallotAnswer::InputUnavailable) {
        return Err(LedgerError::AnswerInvalid);
    }
    let vote = case.votes.iter_mut().find(|vote| vote.provider == sender && vote.answer.is_none());
    let vote = vote.ok_or(LedgerError::NoBallot)?;
    if vote.ballot != Some(ballot_hash(&exec.block.chain, &id, round, &sender, &answer, &salt)) {
        return Err(LedgerError::BallotMismatch);
    }
    vote.answer = Some(answer);
    exec.emit(Event::VoteOpened { order: id, provider: sender, answer });
    advance(exec, case);
    Ok(())
}

/// Ends the phase of a case with committed votes when nobody is missing, and stores the case.
fn advance(exec: &mut Exec<'_>, mut case: Case) {
    let now = exec.active_now();
    let seats = case.jury.as_ref().and_then(|jury| jury.seats.as_ref());
    let voted = |who: &Address| case.votes.iter().any(|vote| vote.provider == *who);
    let all_committed =
        seats.is_some_and(|seats| seats.iter().all(|juror| voted(&juror.provider)) && voted(&case.contester));
    if all_committed && now < case.voting_ends_ms {
        case.voting_ends_ms = now;
        case.opening_ends_ms = now + case.terms.opening_period_ms;
        schedule(exec, &case);
    }
    let all_open = case.votes.iter().all(|vote| vote.answer.is_some());
    if all_committed && all_open {
        case.opening_ends_ms = now;
        schedule(exec, &case);
    }
    CASES.set(&mut exec.state, &case.order, &case);
}

// ---- count ----

/// Who wins, loses, and neither.
struct Verdict {
    outcome: Outcome,
    winners: Vec<Vote>,
    losers: Vec<Vote>,
    /// Leads the winners, if it is one of them.
    leader: Address,
}

/// For > against refutes; a tie or a minority upholds. (T-7)
fn verdict_of_open_votes(case: &Case) -> Verdict {
    let refutes = |vote: &Vote| vote.answer == Some(BallotAnswer::Refute);
    let (against, upholds): (Vec<_>, Vec<_>) = case.votes.iter().cloned().partition(refutes);
    let weight = |votes: &[Vote]| votes.iter().map(|v| v.weight).sum::<Amount>();
    match weight(&against) > weight(&upholds) {
        true => Verdict { outcome: Outcome::Refuted, winners: against, losers: upholds, leader: case.contester },
        false => Verdict { outcome: Outcome::Upheld, winners: upholds, losers: against, leader: case.solver },
    }
}

/// The standing output against the heaviest other answer, by the jurors and those who agreed before;
/// `None` if the jury's opened weight misses the quorum. (T-7)
fn verdict_of_committed_votes(case: &Case, jury: &Jury) -> Option<Verdict> {
    let seats = jury.seats.as_deref().unwrap_or_default();
    let is_juror = |vote: &&Vote| seats.iter().any(|juror| juror.provider == vote.provider);
    let total: Amount = seats.iter().map(|juror| juror.weight).sum();
    let opened = case.votes.iter().filter(is_juror).filter(|vote| vote.answer.is_some());
    let opened: Amount = opened.map(|vote| vote.weight).sum();
    if opened.is_zero() || opened < total.share(case.terms.jury_quorum) {
        return None;
    }
    let standing = |answer: &BallotAnswer| {
        *answer == BallotAnswer::Uphold || *answer == BallotAnswer::Output { output: case.output }
    };
    let mut upholding = Amount::ZERO;
    let mut others: BTreeMap<BallotAnswer, Amount> = BTreeMap::new();
    // Nobody judges in an own case.
    for vote in case.votes.iter().filter(|vote| vote.provider != case.solver && vote.provider != case.contester) {
        let Some(answer) = &vote.answer else { continue };
        let sum = if standing(answer) { &mut upholding } else { others.entry(*answer).or_default() };
        *sum = sum.checked_add(vote.weight).expect("weights are parts of one supply");
    }
    let (upholds, rest): (Vec<_>, Vec<_>) =
        case.votes.iter().cloned().partition(|vote| vote.answer.as_ref().is_some_and(standing));
    // The first of equals in the answers' order, so that the choice is everybody's.
    let heaviest = others.iter().rev().max_by_key(|(_, weight)| **weight);
    let Some((answer, _)) = heaviest.filter(|(_, weight)| **weight > upholding) else {
        return Some(Verdict { outcome: Outcome::Upheld, winners: upholds, losers: rest, leader: case.solver });
    };
    let (winners, rest): (Vec<_>, Vec<_>) = rest.into_iter().partition(|vote| vote.answer == Some(*answer));
    // Unopened votes lose; opened votes for a third answer neither win nor lose.
    let unopened: Vec<_> = rest.into_iter().filter(|vote| vote.answer.is_none()).collect();
    if *answer == BallotAnswer::InputUnavailable {
        return Some(Verdict { outcome: Outcome::Voided, winners, losers: unopened, leader: TREASURY });
    }
    let losers = upholds.into_iter().chain(unopened).collect();
    Some(Verdict { outcome: Outcome::Refuted, winners, losers, leader: case.contester })
}

/// Due: a phase of a case is over. After the last one its votes are counted, the losing side is
/// slashed and the winning one paid. (T-7, T-8)
pub(crate) fn count(exec: &mut Exec<'_>, id: OrderId) {
    let Ok(case) = open_case(exec, &id) else { return };
    let (now, opening_ends_ms) = (exec.active_now(), case.opening_ends_ms);
    if now < opening_ends_ms {
        if now >= case.voting_ends_ms {
            exec.emit(Event::OpeningBegun { order: id, opening_ends_ms });
        }
        return;
    }
    let verdict = match &case.jury {
        None => verdict_of_open_votes(&case),
        Some(jury) => match verdict_of_committed_votes(&case, jury) {
            Some(verdict) => verdict,
            None if jury.round == 0 => return redraw(exec, case),
            None => undecided(&case),
        },
    };
    close(exec, case, verdict);
}

/// Nobody decided, and only who committed and did not open loses. What others re-ran and agreed with
/// stands; what nobody confirmed is given back to the client.
fn undecided(case: &Case) -> Verdict {
    let agreed = case.votes.iter().any(|vote| vote.inherited && vote.provider != case.solver);
    let outcome = if agreed { Outcome::Dismissed } else { Outcome::Voided };
    let losers = case.votes.iter().filter(|vote| vote.answer.is_none()).cloned().collect();
    Verdict { outcome, winners: Vec::new(), losers, leader: TREASURY }
}

/// The first jury missed its quorum: its votes end, and a larger one is drawn, once. (T-7)
fn redraw(exec: &mut Exec<'_>, mut case: Case) {
    let unopened = undecided(&case).losers;
    let (inherited, jurors): (Vec<_>, Vec<_>) = case.votes.iter().cloned().partition(|vote| vote.inherited);
    for vote in &jurors {
        staking::release(exec, &vote.provider, vote.reserved);
    }
    let pot = slash_all(exec, &case, &unopened);
    accounts::pay(exec, &TREASURY, pot, Place::Bonded, PaymentKind::SlashTreasury, case.order);
    case.votes = inherited;
    let now = exec.active_now();
    case.voting_ends_ms = now + case.terms.voting_period_ms;
    case.opening_ends_ms = case.voting_ends_ms + case.terms.opening_period_ms;
    call_jury(exec, &mut case, 1);
    schedule(exec, &case);
    CASES.set(&mut exec.state, &case.order, &case);
}

/// Slashes each loser by its weight; what was taken is in [`Place::Bonded`]. (T-8)
fn slash_all(exec: &mut Exec<'_>, case: &Case, losers: &[Vote]) -> Amount {
    let mut pot = Amount::ZERO;
    for vote in losers {
        // Never more than was reserved, whatever the parameters were when.
        let amount = vote.weight.share(case.terms.slash).min(vote.reserved);
        let taken = staking::slash(exec, &vote.provider, amount, case.order);
        pot = pot.checked_add(taken).expect("slashed parts of bonds fit the supply");
    }
    pot
}

/// Carries a verdict out.
fn close(exec: &mut Exec<'_>, mut case: Case, verdict: Verdict) {
    let id = case.order;
    case.outcome = Some(verdict.outcome);
    for vote in case.votes.iter().filter(|v| !v.inherited) {
        staking::release(exec, &vote.provider, vote.reserved);
    }
    if verdict.outcome == Outcome::Refuted {
        // Inherited reservations end with the claims that made them.
        for vote in case.votes.iter().filter(|v| v.inherited) {
            staking::release(exec, &vote.provider, vote.reserved);
        }
    }
    let pot = slash_all(exec, &case, &verdict.losers);
    divide(exec, &case, &verdict, pot);
    exec.emit(Event::CaseClosed { order: id, outcome: verdict.outcome });
    CASES.set(&mut exec.state, &id, &case);

    let Some(mut order) = orders::order(&exec.state, &id) else { return };
    match verdict.outcome {
        Outcome::Refuted => {
            staking::jail(exec, &case.solver, case.terms.jail_ms);
            let fallen = order.solutions.remove(0);
            BY_SOLVER.remove(&mut exec.state, &(fallen.provider, id));
            order.agreements.clear();
            exec.emit(Event::SolutionVoided { order: id, provider: fallen.provider });
            void_others(exec, &case.solver, OrderId::ZERO);
            orders::replace_standing(exec, order, RefundReason::Refuted);
        }
        Outcome::Voided => orders::refund(exec, order, RefundReason::Undecided),
        Outcome::Upheld | Outcome::Dismissed => {
            let OrderState::Contested { claim_at_ms } = order.state else { return };
            let claim_at_ms = claim_at_ms.max(exec.active_now());
            order.state = OrderState::Solved { claim_at_ms };
            due::CLAIM.set(&mut exec.state, &(claim_at_ms, id), &());
            orders::store(exec, &order);
        }
    }
}

/// Divides the slashed amount: leader, other winning voters by weight, treasury; dust to the leader,
/// who gets the jurors' part too if there are none. Without a leader among the winners its part is
/// the treasury's. (T-8)
fn divide(exec: &mut Exec<'_>, case: &Case, verdict: &Verdict, pot: Amount) {
    let leader = verdict.leader;
    let led = verdict.winners.iter().any(|v| v.provider == leader);
    let jurors: Vec<_> = verdict.winners.iter().filter(|v| v.provider != leader && !v.weight.is_zero()).collect();
    let weights: Amount = jurors.iter().map(|v| v.weight).sum();
    let jurors_part = pot.share(case.terms.slash_jurors);
    let to_both = case.terms.slash_leader.0.saturating_add(case.terms.slash_jurors.0);
    let treasury_part = pot.share(Ppm(Ppm::ONE.0.saturating_sub(to_both)));
    let mut left = pot.saturating_sub(treasury_part);
    for juror in jurors {
        let part = jurors_part.mul_div_floor(juror.weight.0, weights.0).unwrap_or_default();
        left = left.saturating_sub(part);
        staking::pay_provider(exec, &juror.provider, part, Place::Bonded, PaymentKind::SlashJuror, case.order);
    }
    accounts::pay(exec, &TREASURY, treasury_part, Place::Bonded, PaymentKind::SlashTreasury, case.order);
    match led {
        true => staking::pay_provider(exec, &leader, left, Place::Bonded, PaymentKind::SlashLeader, case.order),
        false => accounts::pay(exec, &TREASURY, left, Place::Bonded, PaymentKind::SlashTreasury, case.order),
    }
}

// ---- voiding ----

/// Queues the other unsettled solutions of a refuted solver for voiding, so many at a time; an entry
/// without an order goes on behind them. (T-8, L-2)
fn void_others(exec: &mut Exec<'_>, solver: &Address, after: OrderId) {
    let limit = usize::try_from(exec.params.due_items_max).unwrap_or(usize::MAX);
    let to = (*solver, OrderId([0xff; 32]));
    let now = exec.now();
    let found = BY_SOLVER.range(&exec.state, &(*solver, after), &to, limit);
    if found.len() == limit {
        VOID_FROM.set(&mut exec.state, solver, &found[limit - 1].0.1);
        due::VOID.set(&mut exec.state, &(now + 1, (OrderId::ZERO, *solver)), &());
    }
    for ((_, order), ()) in found {
        due::VOID.set(&mut exec.state, &(now, (order, *solver)), &());
    }
}

/// Due: voids one solution of a refuted solver. One under dispute itself is left to its case. (T-8)
pub(crate) fn void(exec: &mut Exec<'_>, id: OrderId, solver: Address) {
    if id == OrderId::ZERO {
        let after = VOID_FROM.get(&exec.state, &solver).unwrap_or_default();
        VOID_FROM.remove(&mut exec.state, &solver);
        return void_others(exec, &solver, after);
    }
    let Some(mut order) = orders::order(&exec.state, &id) else { return };
    let Some(position) = order.solutions.iter().position(|s| s.provider == solver) else { return };
    let standing = position == 0;
    match order.state {
        OrderState::Solved { .. } => {}
        OrderState::Contested { .. } if !standing => {}
        _ => return,
    }
    let voided = order.solutions.remove(position);
    staking::release(exec, &solver, voided.reserved);
    BY_SOLVER.remove(&mut exec.state, &(solver, id));
    exec.emit(Event::SolutionVoided { order: id, provider: solver });
    if standing {
        for agreement in std::mem::take(&mut order.agreements) {
            staking::release(exec, &agreement.provider, agreement.reserved);
        }
        orders::replace_standing(exec, order, RefundReason::Voided);
    } else {
        orders::store(exec, &order);
    }
}
