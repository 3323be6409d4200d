//! Voting power on proposals: who commands how many votes, now and just before a proposal. (G-1)
//!
//! Terms: an account's **votable** units are its free balance, its provider bond and what it delegated
//! to providers; nothing else votes (docs/voting.md has the table). Its **power** is its votable units,
//! unless it lets another account vote with them, and the votable units of those that let it. So each
//! unit counts once. Votes that were received are not passed on.
//!
//! A slash takes from all delegators of a provider at once without touching any of them. What a
//! delegation counts for is therefore a number of its own, [`althing_types::Delegation::votable`]: the
//! value of its shares when that was last looked at. That is whenever its shares change, when its earnings are
//! claimed, and soon after a slash, when the provider's delegations are valued anew, so many a block
//! ([`crate::staking::revalue_delegations`]); until then it may count for more than it is worth.
//!
//! A proposal made at height h is voted on with the power that everybody had at the end of block
//! h − 1, its **snapshot**. Each account keeps its power of now, which it has since the block in which
//! it changed last, and its power before that block, with the height from which on it had it. That
//! answers what the power was at the end of the previous block, which is all that a new proposal asks,
//! and costs a few bytes of an account that is written anyway, a write of the account that votes for it
//! if that is another, and one of the sum a block. Only when the power changes again, in a later block,
//! would the older number be lost: it is then written down for each snapshot that falls into its time
//! and that a proposal still needs.
//!
//! Nothing that is needed gets lost: an older number, which was right up to the end of block c − 1,
//! gives way in a block h' > c. A snapshot S ≤ c − 1 belongs to proposals made at height S + 1 ≤ c < h',
//! in blocks before this one, so that all of them are known. [`power_at`] is therefore exact for
//! each snapshot that is kept, which a test holds against a table of everybody's power at all heights.

use crate::{
    accounts,
    exec::{Done, Exec},
    state::{Map, StateRead},
    supply::{COORDINATORS, TREASURY},
};
use althing_types::{Account, Address, Amount, Event, LedgerError, Voting};
use borsh::{BorshDeserialize, BorshSerialize};

/// All votable units, and how many they were before the block in which they changed last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub(crate) struct Votable {
    pub(crate) amount: Amount,
    changed_height: u64,
    before: Amount,
}

const VOTABLE: Map<(), Votable> = Map::new(0x58);
/// The snapshots that are kept, in ascending order, once for each proposal that needs it.
const SNAPSHOTS: Map<(), Vec<u64>> = Map::new(0x59);
/// By snapshot and account: power that has changed twice since.
const CHECKPOINTS: Map<(u64, Address), Amount> = Map::new(0x5a);
/// Snapshots that nobody needs any more and that may have checkpoints.
const DROPPED: Map<u64, ()> = Map::new(0x5b);

// ---- queries ----

/// Whether the units of an account never vote: those of no person. (G-1)
pub(crate) fn is_mute(address: &Address) -> bool {
    [TREASURY, COORDINATORS].contains(address)
}

/// The power that an account commands now.
pub fn power(state: &dyn StateRead, address: &Address) -> Amount {
    if is_mute(address) { Amount::ZERO } else { accounts::account(state, address).power() }
}

/// The power that an account commanded at the end of the block at `height`, which must be over: exact
/// for the previous block and for the snapshot of each proposal whose vote is not over; `None` if it is
/// not known any more.
pub fn power_at(state: &dyn StateRead, address: &Address, height: u64) -> Option<Amount> {
    if is_mute(address) {
        return Some(Amount::ZERO);
    }
    let account = accounts::account(state, address);
    if account.voting.changed_height <= height {
        Some(account.power())
    } else if account.voting.before_since <= height {
        Some(account.voting.before)
    } else {
        CHECKPOINTS.get(state, &(height, *address))
    }
}

/// All votable units now.
pub fn votable(state: &dyn StateRead) -> Amount {
    VOTABLE.get(state, &()).unwrap_or_default().amount
}

/// All votable units at the end of the previous block.
pub(crate) fn votable_before(exec: &Exec<'_>) -> Amount {
    let votable = VOTABLE.get(&exec.state, &()).unwrap_or_default();
    if votable.changed_height == exec.block.height { votable.before } else { votable.amount }
}

/// The snapshots that are kept, once for each proposal that needs it.
pub(crate) fn snapshots(state: &dyn StateRead) -> Vec<u64> {
    SNAPSHOTS.get(state, &()).unwrap_or_default()
}

// ---- changes of power ----

/// Notes the power that an account had before this block; to be called before or while it changes. (G-1)
fn remember(exec: &mut Exec<'_>, address: &Address, voting: &mut Voting, power: Amount) {
    let height = exec.block.height;
    if voting.changed_height == height {
        return;
    }
    // `before` held at the end of the blocks from `before_since` on, up to this one, and gives way.
    let held = voting.before_since..voting.changed_height;
    for snapshot in snapshots(&exec.state).into_iter().filter(|snapshot| held.contains(snapshot)) {
        CHECKPOINTS.set(&mut exec.state, &(snapshot, *address), &voting.before);
    }
    voting.before_since = voting.changed_height;
    voting.before = power;
    voting.changed_height = height;
}

/// Changes an account and stores it; whatever that does to its votable units reaches the power of who
/// votes with them. Every change of a balance or a stake comes through here. (G-1)
///
/// # Errors
/// Those of `change`; then nothing is stored.
pub(crate) fn update(exec: &mut Exec<'_>, address: &Address, change: impl FnOnce(&mut Account) -> Done) -> Done {
    let mut account = accounts::account(&exec.state, address);
    let (units, power) = (account.votable(), account.power());
    change(&mut account)?;
    let units_now = account.votable();
    if units != units_now && !is_mute(address) {
        count(exec, units, units_now);
        match account.voting.delegate {
            None => remember(exec, address, &mut account.voting, power),
            Some(delegate) => receive(exec, &delegate, units, units_now),
        }
    }
    accounts::store(exec, address, &account);
    Ok(())
}

/// Keeps the sum of all votable units.
fn count(exec: &mut Exec<'_>, before: Amount, after: Amount) {
    let mut votable = VOTABLE.get(&exec.state, &()).unwrap_or_default();
    if votable.changed_height != exec.block.height {
        votable.before = votable.amount;
        votable.changed_height = exec.block.height;
    }
    votable.amount = replace(votable.amount, before, after);
    VOTABLE.set(&mut exec.state, &(), &votable);
}

/// Replaces the part `before` of what an account received by `after`.
fn receive(exec: &mut Exec<'_>, address: &Address, before: Amount, after: Amount) {
    let mut account = accounts::account(&exec.state, address);
    let power = account.power();
    remember(exec, address, &mut account.voting, power);
    account.voting.received = replace(account.voting.received, before, after);
    accounts::store(exec, address, &account);
}

fn replace(sum: Amount, before: Amount, after: Amount) -> Amount {
    let rest = sum.checked_sub(before).expect("the part is in the sum, since both are changed together");
    rest.checked_add(after).expect("votable units are part of the supply, which fits")
}

/// A part of what an account staked, its bond or a delegation, is worth another amount. (G-1)
pub(crate) fn restake(exec: &mut Exec<'_>, address: &Address, before: Amount, after: Amount) {
    if before == after || is_mute(address) {
        return;
    }
    update(exec, address, |account| {
        account.voting.staked = replace(account.voting.staked, before, after);
        Ok(())
    })
    .expect("this change has no way to fail");
}

// ---- calls ----

/// [`althing_types::Call::VotesDelegate`]. (G-1)
pub(crate) fn delegate(exec: &mut Exec<'_>, sender: Address, to: Address) -> Done {
    if is_mute(&sender) || is_mute(&to) {
        return Err(LedgerError::NeverVotes);
    }
    let mut account = accounts::account(&exec.state, &sender);
    let (from, units) = (account.voting.delegate, account.votable());
    let to_other = (to != sender).then_some(to);
    if from != to_other {
        let power = account.power();
        remember(exec, &sender, &mut account.voting, power);
        account.voting.delegate = to_other;
        accounts::store(exec, &sender, &account);
        if let Some(from) = from {
            receive(exec, &from, units, Amount::ZERO);
        }
        if let Some(to) = to_other {
            receive(exec, &to, Amount::ZERO, units);
        }
    }
    exec.emit(Event::VotesDelegated { account: sender, to });
    Ok(())
}

// ---- snapshots ----

/// Keeps everybody's power at the end of the previous block until [`drop_snapshot`]; its height.
pub(crate) fn keep_snapshot(exec: &mut Exec<'_>) -> u64 {
    let snapshot = exec.block.height.saturating_sub(1);
    let mut kept = snapshots(&exec.state);
    // Blocks have ascending heights, so the newest snapshot is the last one.
    kept.push(snapshot);
    SNAPSHOTS.set(&mut exec.state, &(), &kept);
    snapshot
}

/// A proposal does not need a snapshot any more; its checkpoints go when nobody does. (L-2)
pub(crate) fn drop_snapshot(exec: &mut Exec<'_>, snapshot: u64) {
    let mut kept = snapshots(&exec.state);
    if let Some(position) = kept.iter().position(|other| *other == snapshot) {
        kept.remove(position);
    }
    SNAPSHOTS.set(&mut exec.state, &(), &kept);
    DROPPED.set(&mut exec.state, &snapshot, &());
}

/// Hook at the end of a block: removes checkpoints that nobody needs, at most `limit`. (L-2)
pub(crate) fn forget(exec: &mut Exec<'_>, limit: usize) {
    let Some((snapshot, ())) = DROPPED.first(&exec.state, 1).pop() else { return };
    // Another proposal of the same block may need it still; it will drop it in its turn.
    let needed = snapshots(&exec.state).contains(&snapshot);
    let (from, to) = ((snapshot, Address::ZERO), (snapshot + 1, Address::ZERO));
    let found = if needed { Vec::new() } else { CHECKPOINTS.range(&exec.state, &from, &to, limit) };
    for (key, _) in &found {
        CHECKPOINTS.remove(&mut exec.state, key);
    }
    if found.len() < limit {
        DROPPED.remove(&mut exec.state, &snapshot);
    }
}

// ---- invariants ----

/// Snapshots of all checkpoints there are, for [`crate::invariants`].
pub(crate) fn checkpointed(state: &dyn StateRead) -> Vec<u64> {
    CHECKPOINTS.first(state, usize::MAX).into_iter().map(|((snapshot, _), _)| snapshot).collect()
}

/// Whether the checkpoints of a snapshot are about to be removed.
pub(crate) fn is_dropped(state: &dyn StateRead, snapshot: u64) -> bool {
    DROPPED.has(state, &snapshot)
}
