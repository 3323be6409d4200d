//! Disputes: a vote on whether a solution is right, by those who re-ran it. (§3)
//!
//! The contest opens with the contester's vote for refuting and the solver's against; agreements
//! with the solution count as votes against, for what they were staked with (V-1). Others bonded
//! before the solution appeared vote openly until the period ends. For > against refutes; a tie or a
//! minority upholds. No quorum yet.
//!
//! | | refuted | upheld |
//! |---|---|---|
//! | losers | solver, agreements, votes to uphold | contester, votes to refute |
//! | leader | contester | solver |
//! | order | next reveal stands, or refund | as if uncontested |

use crate::{
    accounts, due,
    exec::{Done, Exec},
    orders::{self, BY_SOLVER},
    staking,
    state::{Map, StateRead},
    supply::{self, Place},
};
use althing_types::{
    Address, Amount, Case, Event, LedgerError, OrderId, OrderState, Outcome, Ppm, RefundReason, Vote,
    event::PaymentKind,
};

/// Most votes in one case.
pub const VOTES_MAX: usize = 64;

const CASES: Map<OrderId, Case> = Map::new(0x30);

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
    let waiting = due::COUNT.first(state, limit).into_iter();
    waiting.filter_map(|((_, order), ())| case(state, &order)).filter(|case| case.outcome.is_none()).collect()
}

pub(crate) fn forget(exec: &mut Exec<'_>, order: &OrderId) {
    CASES.remove(&mut exec.state, order);
}

/// [`althing_types::Call::Contest`]. (T-7, T-9, T-18)
pub(crate) fn contest(exec: &mut Exec<'_>, sender: Address, id: OrderId) -> Done {
    let now = exec.active_now();
    let mut order = orders::order(&exec.state, &id).ok_or(LedgerError::UnknownOrder(id))?;
    let claim_at_ms = match order.state {
        OrderState::Solved { claim_at_ms } if now < claim_at_ms => claim_at_ms,
        OrderState::Solved { .. } => return Err(LedgerError::WindowClosed),
        OrderState::Contested { .. } => return Err(LedgerError::WrongState { state: "contested".into() }),
        _ => return Err(LedgerError::NoSolution),
    };
    let standing = order.solutions.first().ok_or(LedgerError::NoSolution)?.clone();
    if standing.provider == sender {
        return Err(LedgerError::OwnOrder);
    }
    if order.agreements.iter().any(|a| a.provider == sender) {
        return Err(LedgerError::AgreedBefore);
    }
    let mut contester = staking::fit_for_work(exec, &sender)?;
    let weight = staking::weight_since(&contester, standing.active_ms)?;
    let reserved = staking::reserve(exec, &mut contester, weight)?;

    let mut votes = vec![Vote { provider: sender, refute: true, weight, reserved, inherited: false }];
    votes.push(inherited_vote(exec, &standing.provider, standing.weight, standing.reserved));
    for agreement in &order.agreements {
        votes.push(inherited_vote(exec, &agreement.provider, agreement.weight, agreement.reserved));
    }
    let voting_ends_ms = now + exec.params.voting_period_ms;
    let case = Case {
        order: id,
        contester: sender,
        solver: standing.provider,
        opened_height: exec.block.height,
        opened_ms: exec.now(),
        voting_ends_ms,
        votes,
        slash: exec.params.slash,
        slash_leader: exec.params.slash_leader,
        slash_jurors: exec.params.slash_jurors,
        jail_ms: exec.params.jail_ms,
        outcome: None,
    };
    CASES.set(&mut exec.state, &id, &case);
    due::COUNT.set(&mut exec.state, &(voting_ends_ms, id), &());
    order.state = OrderState::Contested { claim_at_ms };
    orders::store(exec, &order);
    exec.emit(Event::Contested { order: id, contester: sender, solver: standing.provider, voting_ends_ms });
    exec.emit(Event::Voted { order: id, provider: sender, refute: true, weight });
    Ok(())
}

/// The vote to uphold that a solution or agreement carries: its weight when it was made, or what
/// the bond without other reservations is by now, whichever is smaller. (T-7)
fn inherited_vote(exec: &Exec<'_>, provider: &Address, weight: Amount, reserved: Amount) -> Vote {
    let now = staking::provider(&exec.state, provider)
        .map_or(Amount::ZERO, |p| p.bond.saturating_sub(p.reserved.saturating_sub(reserved)));
    Vote { provider: *provider, refute: false, weight: weight.min(now), reserved, inherited: true }
}

/// [`althing_types::Call::Vote`]. (T-7, T-9, T-18)
pub(crate) fn vote(exec: &mut Exec<'_>, sender: Address, id: OrderId, refute: bool) -> Done {
    let mut case = match case(&exec.state, &id) {
        Some(case) if case.outcome.is_none() => case,
        _ => return Err(LedgerError::NoCase),
    };
    if exec.active_now() >= case.voting_ends_ms {
        return Err(LedgerError::VotingOver);
    }
    if case.votes.iter().any(|v| v.provider == sender) {
        return Err(LedgerError::VoteExists);
    }
    if case.votes.len() >= VOTES_MAX {
        return Err(LedgerError::TooManyVotes { max: VOTES_MAX as u32 });
    }
    let order = orders::order(&exec.state, &id).ok_or(LedgerError::UnknownOrder(id))?;
    let standing = order.solutions.first().ok_or(LedgerError::NoSolution)?;
    let mut voter = staking::fit_for_work(exec, &sender)?;
    let weight = staking::weight_since(&voter, standing.active_ms)?;
    let reserved = staking::reserve(exec, &mut voter, weight)?;
    case.votes.push(Vote { provider: sender, refute, weight, reserved, inherited: false });
    CASES.set(&mut exec.state, &id, &case);
    exec.emit(Event::Voted { order: id, provider: sender, refute, weight });
    Ok(())
}

/// Due: counts the votes of a case, slashes the losing side and pays the winning one. (T-7, T-8)
pub(crate) fn count(exec: &mut Exec<'_>, id: OrderId) {
    let Some(mut case) = case(&exec.state, &id) else { return };
    if case.outcome.is_some() || exec.active_now() < case.voting_ends_ms {
        return;
    }
    let side = |refute| case.votes.iter().filter(move |v| v.refute == refute).map(|v| v.weight).sum::<Amount>();
    let refuted = side(true) > side(false);
    case.outcome = Some(if refuted { Outcome::Refuted } else { Outcome::Upheld });

    let (losers, winners): (Vec<_>, Vec<_>) = case.votes.iter().cloned().partition(|v| v.refute != refuted);
    for vote in case.votes.iter().filter(|v| !v.inherited) {
        staking::release(exec, &vote.provider, vote.reserved);
    }
    if refuted {
        // Inherited reservations end with the claims that made them.
        for vote in losers.iter().filter(|v| v.inherited) {
            staking::release(exec, &vote.provider, vote.reserved);
        }
    }
    let mut pot = Amount::ZERO;
    for vote in &losers {
        let taken = staking::slash(exec, &vote.provider, vote.weight.share(case.slash), id);
        pot = pot.checked_add(taken).expect("slashed parts of bonds fit the supply");
    }
    let leader = if refuted { case.contester } else { case.solver };
    divide(exec, &case, &winners, leader, pot);
    exec.emit(Event::CaseClosed { order: id, outcome: if refuted { Outcome::Refuted } else { Outcome::Upheld } });
    CASES.set(&mut exec.state, &id, &case);

    let Some(mut order) = orders::order(&exec.state, &id) else { return };
    if refuted {
        staking::jail(exec, &case.solver, case.jail_ms);
        let fallen = order.solutions.remove(0);
        BY_SOLVER.remove(&mut exec.state, &(fallen.provider, id));
        order.agreements.clear();
        exec.emit(Event::SolutionVoided { order: id, provider: fallen.provider });
        void_others(exec, &case.solver);
        orders::replace_standing(exec, order, RefundReason::Refuted);
    } else if let OrderState::Contested { claim_at_ms } = order.state {
        let claim_at_ms = claim_at_ms.max(exec.active_now());
        order.state = OrderState::Solved { claim_at_ms };
        due::CLAIM.set(&mut exec.state, &(claim_at_ms, id), &());
        orders::store(exec, &order);
    }
}

/// Divides the slashed amount: leader, other winning voters by weight, treasury; dust to the leader,
/// who gets the jurors' part too if there are none. (T-8)
fn divide(exec: &mut Exec<'_>, case: &Case, winners: &[Vote], leader: Address, pot: Amount) {
    let jurors: Vec<_> = winners.iter().filter(|v| v.provider != leader && !v.weight.is_zero()).collect();
    let weights: Amount = jurors.iter().map(|v| v.weight).sum();
    let jurors_part = pot.share(case.slash_jurors);
    let treasury_share = Ppm(Ppm::ONE.0.saturating_sub(case.slash_leader.0).saturating_sub(case.slash_jurors.0));
    let treasury_part = pot.share(treasury_share);
    let mut left = pot.saturating_sub(treasury_part);
    for juror in jurors {
        let part = jurors_part.mul_div_floor(juror.weight.0, weights.0).unwrap_or_default();
        left = left.saturating_sub(part);
        pay(exec, &juror.provider, part, PaymentKind::SlashJuror, case.order);
    }
    supply::pay_treasury(exec, Place::Bonded, treasury_part, case.order, PaymentKind::SlashTreasury);
    pay(exec, &leader, left, PaymentKind::SlashLeader, case.order);
}

fn pay(exec: &mut Exec<'_>, to: &Address, amount: Amount, kind: PaymentKind, order: OrderId) {
    if amount.is_zero() {
        return;
    }
    accounts::credit(exec, to, amount, Place::Bonded);
    exec.emit(Event::Paid { to: *to, amount, kind, order });
}

/// Queues all other unsettled solutions of a refuted solver for voiding. Their number is bounded by
/// what its bond could reserve. (T-8, L-2)
fn void_others(exec: &mut Exec<'_>, solver: &Address) {
    let from = (*solver, OrderId::ZERO);
    let to = (*solver, OrderId([0xff; 32]));
    let now = exec.now();
    for ((_, order), ()) in BY_SOLVER.range(&exec.state, &from, &to, usize::MAX) {
        due::VOID.set(&mut exec.state, &(now, (order, *solver)), &());
    }
}

/// Due: voids one solution of a refuted solver. One under dispute itself is left to its case. (T-8)
pub(crate) fn void(exec: &mut Exec<'_>, id: OrderId, solver: Address) {
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
