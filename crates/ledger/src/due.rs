//! What happens by itself at a stated time: the due queues. (T-4, T-17, L-2)
//!
//! Each kind of work has its own queue, ordered by time and id. At the end of a block the queues are
//! worked off in one literal order, each up to a limit; what is left continues in the next block.
//! Whether an item is due is decided by its time alone, even if the queue lags.

use crate::{budgets, disputes, exec::Exec, governance, inputs, orders, shares, staking, state::Map, votes};
use althing_types::{Address, ModelId, OrderId};

/// Orders that may be over: deadline, acceptance or commitment ran out. (T-17)
pub(crate) const EXPIRY: Map<(u64, OrderId), ()> = Map::new(0x40);
/// Cases whose votes are to be counted, by active time. (T-7)
pub(crate) const COUNT: Map<(u64, OrderId), ()> = Map::new(0x41);
/// Solutions of refuted solvers that are to be voided. (T-8)
pub(crate) const VOID: Map<(u64, (OrderId, Address)), ()> = Map::new(0x42);
/// Solutions whose challenge window ends, by active time. (T-4)
pub(crate) const CLAIM: Map<(u64, OrderId), ()> = Map::new(0x43);
/// Inputs that coordinators had time to fetch until then. (T-21)
pub(crate) const INPUT: Map<(u64, OrderId), ()> = Map::new(0x4b);
/// Budgets that close by themselves. (T-15)
pub(crate) const BUDGET: Map<(u64, (OrderId, Address)), ()> = Map::new(0x4c);
/// Unbonding amounts that become free. (T-10)
pub(crate) const UNBOND: Map<(u64, Address), ()> = Map::new(0x44);
/// Parts of delegations that may leave, by provider and delegator. (T-10)
pub(crate) const LEAVE: Map<(u64, (Address, Address)), ()> = Map::new(0x46);
/// Votes on the terms of model DAOs that end, by active time. (T-14)
pub(crate) const DAO_VOTE: Map<(u64, ModelId), ()> = Map::new(0x4a);
/// Finished orders that leave the state.
pub(crate) const PRUNE: Map<(u64, OrderId), ()> = Map::new(0x45);

/// Slashed providers whose delegations are to be valued anew for votes, from a delegator on. (G-1)
pub(crate) const REVALUE: Map<(u64, (Address, Address)), ()> = Map::new(0x47);
/// Proposals whose vote ends. (G-1)
pub(crate) const PROPOSAL_END: Map<(u64, u64), ()> = Map::new(0x48);
/// Proposals that leave the state. (G-1)
pub(crate) const PROPOSAL_PRUNE: Map<(u64, u64), ()> = Map::new(0x49);

/// Lets a later beacon, which nobody can know yet, draw something for an order; returns the
/// first view whose beacon may. (T-2, T-7, T-21)
pub(crate) fn await_beacon(exec: &mut Exec<'_>, queue: &Map<(u64, OrderId), ()>, id: OrderId) -> u64 {
    let from_view = exec.block.view + exec.params.seed_delay_views;
    queue.set(&mut exec.state, &(from_view, id), &());
    from_view
}

/// Takes the orders for which the block's beacon may draw, so many at most. (T-2, T-7, T-21)
pub(crate) fn take_drawable(exec: &mut Exec<'_>, queue: &Map<(u64, OrderId), ()>) -> Vec<OrderId> {
    let limit = usize::try_from(exec.params.due_items_max).unwrap_or(usize::MAX);
    take(exec, queue, exec.block.beacon_view, limit)
}

/// Takes the items of one queue that are due at `now_ms`, at most `limit`.
fn take<K: crate::state::KeyPart + Clone>(
    exec: &mut Exec<'_>,
    queue: &Map<(u64, K), ()>,
    now_ms: u64,
    limit: usize,
) -> Vec<K> {
    let due: Vec<_> = queue
        .first(&exec.state, limit)
        .into_iter()
        .map(|(key, ())| key)
        .take_while(|(time_ms, _)| *time_ms <= now_ms)
        .collect();
    for key in &due {
        queue.remove(&mut exec.state, key);
    }
    due.into_iter().map(|(_, id)| id).collect()
}

/// Works off everything due, in the order of L-2: expiries, votes, voids, claims, then the rest.
pub(crate) fn run(exec: &mut Exec<'_>) {
    let limit = usize::try_from(exec.params.due_items_max).unwrap_or(usize::MAX);
    let (now_ms, active_ms) = (exec.now(), exec.active_now());
    for order in take(exec, &EXPIRY, now_ms, limit) {
        orders::expire(exec, order);
    }
    for order in take(exec, &INPUT, now_ms, limit) {
        inputs::expire(exec, order);
    }
    for order in take(exec, &COUNT, active_ms, limit) {
        disputes::count(exec, order);
    }
    for (order, solver) in take(exec, &VOID, now_ms, limit) {
        disputes::void(exec, order, solver);
    }
    for order in take(exec, &CLAIM, active_ms, limit) {
        orders::claim(exec, order);
    }
    for (root, client) in take(exec, &BUDGET, now_ms, limit) {
        budgets::expire(exec, root, client);
    }
    for provider in take(exec, &UNBOND, now_ms, limit) {
        staking::release_unbonded(exec, provider);
    }
    for (provider, delegator) in take(exec, &LEAVE, now_ms, limit) {
        staking::release_left(exec, provider, delegator);
    }
    for model in take(exec, &DAO_VOTE, active_ms, limit) {
        shares::count(exec, model);
    }
    for order in take(exec, &PRUNE, now_ms, limit) {
        orders::prune(exec, order);
    }
    // Of these one a block: each may have as many delegations or votes as there are accounts.
    for (provider, from) in take(exec, &REVALUE, now_ms, 1) {
        staking::revalue_delegations(exec, provider, from, limit);
    }
    for proposal in take(exec, &PROPOSAL_END, now_ms, limit) {
        governance::end_vote(exec, proposal);
    }
    for proposal in take(exec, &PROPOSAL_PRUNE, now_ms, 1) {
        governance::prune(exec, proposal, limit);
    }
    votes::forget(exec, limit);
}
