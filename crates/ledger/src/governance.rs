//! The governor: proposals, their votes, what accepted ones do. (G-1)
//!
//! Terms: a **proposal** is a list of calls that the **governor** is to make. The governor is the
//! treasury's account, which no key controls: what a proposal transfers, the treasury pays, and calls
//! that are for governance alone take no other sender. Power in a vote is that of the **snapshot**, the
//! end of the block before the proposal ([`crate::votes`]): who buys after it has no more to say, who
//! sells has no less. A proposal is accepted with more votes for than against, if for and abstain together
//! reach the quorum. Then anyone may queue it, and after its timelock execute it, within the grace.
//!
//! ```text
//! pending ─ active ─┬─ succeeded ─ queued ─ executed
//!                   └─ defeated      └──────┴─ expired        any before its end: cancelled
//! ```
//!
//! The state is what [`Proposal::state`] says of the stored proposal and the time; only the list of
//! live proposals (pending, active) and the removal of old ones are work for due queues. A proposal keeps
//! the rules that it was made under. (T-18)
//!
//! Execution is all or nothing: if a call fails, so does the execution, and can be tried again until the
//! proposal expires. Parameters that it changes are in force from the next block on, so that one block
//! sees one set of them.

use crate::{
    PARAMS, costs, dispatch, due,
    exec::{Done, Exec},
    state::{Map, Overlay, StateRead},
    supply::TREASURY,
    votes,
};
use althing_types::{
    Address, Amount, Call, Event, LedgerError, ParamChange, Params, Proposal, ProposalState, ProposalText,
    ProposalVote, VoteChoice, object::ProposalTerms,
};

/// Longest title, bytes.
pub const TITLE_BYTES_MAX: usize = 120;
/// Longest description, bytes.
pub const DESCRIPTION_BYTES_MAX: usize = 4_096;
/// Most calls of one proposal.
pub const CALLS_MAX: usize = 16;
/// Most proposals that may be pending or active at a time: what a change of power has to look at.
pub const LIVE_MAX: usize = 64;

/// By the complement of the id, so that the newest comes first.
const PROPOSALS: Map<u64, Proposal> = Map::new(0x50);
/// What proposals say and do, by id: apart, since it never changes and every vote writes a proposal.
const TEXTS: Map<u64, ProposalText> = Map::new(0x51);
const NEWEST: Map<(), u64> = Map::new(0x52);
/// Votes by proposal and voter.
const BALLOTS: Map<(u64, Address), ProposalVote> = Map::new(0x53);
/// Ids and proposers of proposals that are pending or active, oldest first.
const LIVE: Map<(), Vec<(u64, Address)>> = Map::new(0x54);
/// Parameters that come into force with the next block.
const PARAMS_NEXT: Map<(), Params> = Map::new(0x55);

// ---- queries ----

/// A proposal, while it is in the state.
pub fn proposal(state: &dyn StateRead, id: u64) -> Option<Proposal> {
    PROPOSALS.get(state, &!id)
}

/// What a proposal says and does.
pub fn text(state: &dyn StateRead, id: u64) -> Option<ProposalText> {
    TEXTS.get(state, &id)
}

/// Proposals, the newest first, from below the number `before` on.
pub fn all(state: &dyn StateRead, before: Option<u64>, limit: usize) -> Vec<Proposal> {
    let entries = match before {
        None => PROPOSALS.first(state, limit),
        Some(before) => PROPOSALS.after(state, &!before, limit),
    };
    entries.into_iter().map(|(_, proposal)| proposal).collect()
}

/// An account's vote on a proposal.
pub fn vote_of(state: &dyn StateRead, id: u64, voter: &Address) -> Option<ProposalVote> {
    BALLOTS.get(state, &(id, *voter))
}

/// Ids and proposers of proposals whose vote is not known to be over.
pub(crate) fn live(state: &dyn StateRead) -> Vec<(u64, Address)> {
    LIVE.get(state, &()).unwrap_or_default()
}

fn store(exec: &mut Exec<'_>, proposal: &Proposal) {
    PROPOSALS.set(&mut exec.state, &!proposal.id, proposal);
}

/// A proposal and where it is in its life.
fn get(exec: &Exec<'_>, id: u64) -> Done<(Proposal, ProposalState)> {
    let proposal = proposal(&exec.state, id).ok_or(LedgerError::UnknownProposal { proposal: id })?;
    let state = proposal.state(exec.now());
    Ok((proposal, state))
}

/// The same if it is in the state that a call needs.
fn get_in(exec: &Exec<'_>, id: u64, needed: ProposalState) -> Done<Proposal> {
    let (proposal, state) = get(exec, id)?;
    if state == needed { Ok(proposal) } else { Err(LedgerError::ProposalIs { state }) }
}

/// Refuses everybody but the governor.
pub(crate) fn only_governor(sender: &Address) -> Done {
    if *sender == TREASURY { Ok(()) } else { Err(LedgerError::NotGovernor) }
}

// ---- calls ----

/// [`Call::ProposalCreate`]. (G-1)
pub(crate) fn create(exec: &mut Exec<'_>, sender: Address, text: ProposalText) -> Done {
    check_text(&text)?;
    let live = live(&exec.state);
    for (id, _) in live.iter().filter(|(_, proposer)| *proposer == sender) {
        // One that is still in the list may be over already: its time decides.
        if let Ok((_, ProposalState::Pending | ProposalState::Active)) = get(exec, *id) {
            return Err(LedgerError::ProposalLive { proposal: *id });
        }
    }
    if live.len() >= LIVE_MAX {
        return Err(LedgerError::TooManyProposals { max: LIVE_MAX as u32 });
    }
    let before = exec.block.height.saturating_sub(1);
    let power = votes::power_at(&exec.state, &sender, before).unwrap_or_default();
    let votable = votes::votable_before(exec);
    let threshold = votable.share(exec.params.proposal_threshold).max(Amount(1));
    if power < threshold {
        return Err(LedgerError::ProposalThreshold { power, needed: threshold });
    }
    let deposit = costs::deposit(exec, &sender)?;
    let id = NEWEST.get(&exec.state, &()).unwrap_or_default() + 1;
    let now = exec.now();
    let voting_starts_ms = now + exec.params.proposal_delay_ms;
    let voting_ends_ms = voting_starts_ms + exec.params.proposal_voting_ms;
    let mut proposal = Proposal {
        id,
        proposer: sender,
        created_height: exec.block.height,
        created_ms: now,
        snapshot_height: votes::keep_snapshot(exec),
        voting_starts_ms,
        voting_ends_ms,
        terms: ProposalTerms {
            threshold,
            quorum: votable.share(exec.params.proposal_quorum).max(exec.params.proposal_quorum_min),
            timelock_ms: exec.params.proposal_timelock_ms,
            grace_ms: exec.params.proposal_grace_ms,
        },
        votes_for: Amount::ZERO,
        votes_against: Amount::ZERO,
        votes_abstain: Amount::ZERO,
        executable_ms: None,
        cancelled: false,
        executed: false,
        prune_at_ms: 0,
        deposit,
    };
    let expires_ms = proposal.expires_ms();
    prune_after(exec, &mut proposal, expires_ms);
    NEWEST.set(&mut exec.state, &(), &id);
    LIVE.set(&mut exec.state, &(), &[live, vec![(id, sender)]].concat());
    due::PROPOSAL_END.set(&mut exec.state, &(voting_ends_ms, id), &());
    TEXTS.set(&mut exec.state, &id, &text);
    store(exec, &proposal);
    exec.emit(Event::ProposalCreated {
        proposal: id,
        proposer: sender,
        title: text.title,
        snapshot_height: proposal.snapshot_height,
        voting_starts_ms,
        voting_ends_ms,
    });
    Ok(())
}

/// Bounds of what a proposal says. It makes no proposals and executes none, and gives no keys to the
/// governor's account.
fn check_text(text: &ProposalText) -> Done {
    if text.title.is_empty() || text.title.len() > TITLE_BYTES_MAX {
        return Err(LedgerError::ProposalTitleInvalid { max: TITLE_BYTES_MAX as u32 });
    }
    if text.description.len() > DESCRIPTION_BYTES_MAX {
        return Err(LedgerError::ProposalDescriptionTooLong { max: DESCRIPTION_BYTES_MAX as u32 });
    }
    if text.calls.is_empty() || text.calls.len() > CALLS_MAX {
        return Err(LedgerError::ProposalCallsInvalid { max: CALLS_MAX as u32 });
    }
    for (index, call) in (0..).zip(&text.calls) {
        if let Call::ProposalCreate { .. }
        | Call::ProposalExecute { .. }
        | Call::SessionKeyAdd { .. }
        | Call::SessionKeyRevoke { .. } = call
        {
            return Err(LedgerError::ProposalCallForbidden { index, call: call.name().into() });
        }
    }
    Ok(())
}

/// [`Call::ProposalVote`]: once, with the power of the snapshot. (G-1)
pub(crate) fn vote(exec: &mut Exec<'_>, sender: Address, id: u64, choice: VoteChoice) -> Done {
    let mut proposal = get_in(exec, id, ProposalState::Active)?;
    if vote_of(&exec.state, id, &sender).is_some() {
        return Err(LedgerError::ProposalVoted);
    }
    let height = proposal.snapshot_height;
    let weight = votes::power_at(&exec.state, &sender, height).unwrap_or_default();
    if weight.is_zero() {
        return Err(LedgerError::NoVotingPower { height });
    }
    let sum = match choice {
        VoteChoice::For => &mut proposal.votes_for,
        VoteChoice::Against => &mut proposal.votes_against,
        VoteChoice::Abstain => &mut proposal.votes_abstain,
    };
    *sum = sum.checked_add(weight).ok_or(LedgerError::Overflow)?;
    BALLOTS.set(&mut exec.state, &(id, sender), &ProposalVote { choice, weight });
    store(exec, &proposal);
    exec.emit(Event::ProposalVoted { proposal: id, voter: sender, choice, weight });
    Ok(())
}

/// [`Call::ProposalQueue`]: starts the timelock. (G-1)
pub(crate) fn queue(exec: &mut Exec<'_>, id: u64) -> Done {
    let mut proposal = get_in(exec, id, ProposalState::Succeeded)?;
    let executable_ms = exec.now() + proposal.terms.timelock_ms;
    proposal.executable_ms = Some(executable_ms);
    let expires_ms = proposal.expires_ms();
    prune_after(exec, &mut proposal, expires_ms);
    store(exec, &proposal);
    exec.emit(Event::ProposalQueued { proposal: id, executable_ms });
    Ok(())
}

/// [`Call::ProposalExecute`]: makes all calls, or none. (G-1)
pub(crate) fn execute(exec: &mut Exec<'_>, id: u64) -> Done {
    let mut proposal = get_in(exec, id, ProposalState::Queued)?;
    match proposal.executable_ms {
        Some(from_ms) if exec.now() < from_ms => return Err(LedgerError::TimelockRunning { from_ms }),
        _ => {}
    }
    let calls = text(&exec.state, id).map(|text| text.calls).unwrap_or_default();
    // Executed from here on, so that none of its calls can do anything to the proposal itself. If one
    // fails, this is undone with everything else, as for every call that fails.
    proposal.executed = true;
    let now = exec.now();
    prune_after(exec, &mut proposal, now);
    store(exec, &proposal);
    for (index, call) in (0..).zip(&calls) {
        dispatch(exec, TREASURY, call)
            .map_err(|reason| LedgerError::ProposalCallFailed { index, reason: Box::new(reason) })?;
    }
    exec.emit(Event::ProposalExecuted { proposal: id });
    Ok(())
}

/// [`Call::ProposalCancel`]: the proposer may, and anyone while it lacks the power to propose. (G-1)
pub(crate) fn cancel(exec: &mut Exec<'_>, sender: Address, id: u64) -> Done {
    let (mut proposal, state) = get(exec, id)?;
    if state.is_final() {
        return Err(LedgerError::ProposalIs { state });
    }
    let (power, needed) = (votes::power(&exec.state, &proposal.proposer), proposal.terms.threshold);
    if sender != proposal.proposer && power >= needed {
        return Err(LedgerError::ProposerHasPower { power, needed });
    }
    proposal.cancelled = true;
    let now = exec.now();
    prune_after(exec, &mut proposal, now);
    store(exec, &proposal);
    due::PROPOSAL_END.remove(&mut exec.state, &(proposal.voting_ends_ms, id));
    end_live(exec, &proposal);
    exec.emit(Event::ProposalCancelled { proposal: id, by: sender });
    Ok(())
}

/// [`Call::ParamsSet`]: all changes together, checked jointly, in force from the next block on. (G-1, T-18)
pub(crate) fn set_params(exec: &mut Exec<'_>, sender: Address, changes: Vec<ParamChange>) -> Done {
    only_governor(&sender)?;
    // A second change in one block builds on the first.
    let mut params = PARAMS_NEXT.get(&exec.state, &()).unwrap_or_else(|| exec.params.clone());
    let changed = changes.iter().try_for_each(|change| params.set(&change.name, change.value));
    changed
        .and_then(|()| params.validate())
        .map_err(|error| LedgerError::ParamsRefused { reason: error.to_string() })?;
    PARAMS_NEXT.set(&mut exec.state, &(), &params);
    exec.emit(Event::ParamsSet { changes });
    Ok(())
}

// ---- hooks ----

/// The parameters of a new block, those that the block before decided on if it did.
pub(crate) fn params_for_block(overlay: &mut Overlay<'_>) -> Params {
    if let Some(params) = PARAMS_NEXT.get(overlay, &()) {
        PARAMS.set(overlay, &(), &params);
        PARAMS_NEXT.remove(overlay, &());
    }
    crate::query::params(overlay)
}

/// Due: the vote on a proposal is over. (G-1)
pub(crate) fn end_vote(exec: &mut Exec<'_>, id: u64) {
    if let Some(proposal) = proposal(&exec.state, id) {
        end_live(exec, &proposal);
    }
}

/// Takes a proposal that is neither pending nor active any more off the list of those that are.
fn end_live(exec: &mut Exec<'_>, proposal: &Proposal) {
    let mut live = live(&exec.state);
    if let Some(position) = live.iter().position(|(id, _)| *id == proposal.id) {
        live.remove(position);
        LIVE.set(&mut exec.state, &(), &live);
        votes::drop_snapshot(exec, proposal.snapshot_height);
    }
}

/// Plans that a proposal leaves the state, the usual time after `end_ms`; not stored here.
fn prune_after(exec: &mut Exec<'_>, proposal: &mut Proposal, end_ms: u64) {
    due::PROPOSAL_PRUNE.remove(&mut exec.state, &(proposal.prune_at_ms, proposal.id));
    proposal.prune_at_ms = end_ms + exec.params.order_retention_ms;
    due::PROPOSAL_PRUNE.set(&mut exec.state, &(proposal.prune_at_ms, proposal.id), &());
}

/// Due: a proposal that is over leaves the state, its votes first, at most `limit` a block. (L-2)
pub(crate) fn prune(exec: &mut Exec<'_>, id: u64, limit: usize) {
    let Some(proposal) = proposal(&exec.state, id) else { return };
    let ballots = BALLOTS.range(&exec.state, &(id, Address::ZERO), &(id + 1, Address::ZERO), limit);
    for (key, _) in &ballots {
        BALLOTS.remove(&mut exec.state, key);
    }
    if ballots.len() == limit {
        due::PROPOSAL_PRUNE.set(&mut exec.state, &(proposal.prune_at_ms, id), &());
        return;
    }
    // Its vote is over for long, unless the queue of votes that end lags so much.
    due::PROPOSAL_END.remove(&mut exec.state, &(proposal.voting_ends_ms, id));
    end_live(exec, &proposal);
    PROPOSALS.remove(&mut exec.state, &!id);
    TEXTS.remove(&mut exec.state, &id);
    costs::give_back(exec, &proposal.proposer, proposal.deposit);
    exec.emit(Event::ProposalPruned { proposal: id });
}
