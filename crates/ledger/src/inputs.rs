//! Whether everybody can have the input of an order: what rewards need. (T-21)
//!
//! Who could keep an input to itself could order from itself, answer what nobody can check, and mint. So an
//! order earns only if its input is in it, or if **coordinators drawn by the beacon have fetched it before
//! the seed existed**: with the seed, the right answer is decided.
//!
//! ```text
//! submitted ─ Undrawn ─ (beacon) ─ Sampled ─┬─ enough confirm ─ Shown ───┬─ (beacon) seed
//!                                           └─ time is over ── NotShown ─┘
//! ```
//!
//! An input that is not shown is no fault of anybody's: the order goes on, and earns its fee alone.

use crate::{
    due,
    exec::{Done, Exec},
    orders,
    state::{Map, StateRead},
};
use althing_types::{Address, Availability, Event, Hash, Input, Lane, LedgerError, Model, Order, OrderId, OrderState};

/// Orders whose sample is not drawn yet, by the view from which a beacon may draw it.
const UNDRAWN: Map<(u64, OrderId), ()> = Map::new(0x26);
/// Inputs that a coordinator is to fetch.
const TO_FETCH: Map<(Address, OrderId), ()> = Map::new(0x27);
/// The coordinators' accounts, from genesis.
const COORDINATOR_ACCOUNTS: Map<(), Vec<Address>> = Map::new(0x28);

/// Most inputs that one question for a coordinator's work gives.
const TO_FETCH_MAX: usize = 256;

// ---- queries ----

/// Orders whose input this coordinator is to fetch. (T-21)
pub fn to_fetch(state: &dyn StateRead, coordinator: &Address) -> Vec<Order> {
    let (from, to) = ((*coordinator, OrderId([0; 32])), (*coordinator, OrderId([0xff; 32])));
    let found = TO_FETCH.range(state, &from, &to, TO_FETCH_MAX);
    found.into_iter().filter_map(|((_, order), ())| orders::order(state, &order)).collect()
}

/// Whether a sample waits for a beacon.
pub(crate) fn has_undrawn(state: &dyn StateRead) -> bool {
    !UNDRAWN.first(state, 1).is_empty()
}

/// All entries of who is to fetch what, for invariants.
pub(crate) fn all_to_fetch(state: &dyn StateRead) -> Vec<(Address, OrderId)> {
    TO_FETCH.first(state, usize::MAX).into_iter().map(|(key, ())| key).collect()
}

// ---- genesis ----

/// Writes down the coordinators' accounts, each once.
pub(crate) fn open(exec: &mut Exec<'_>, accounts: &[Address]) {
    let mut accounts = accounts.to_vec();
    accounts.sort_unstable();
    accounts.dedup();
    COORDINATOR_ACCOUNTS.set(&mut exec.state, &(), &accounts);
}

fn coordinator_accounts(exec: &Exec<'_>) -> Vec<Address> {
    COORDINATOR_ACCOUNTS.get(&exec.state, &()).unwrap_or_default()
}

// ---- the life of a sample ----

/// What an order's input is at submission. Coordinators are asked only if a reward depends on it, and
/// only where the seed can wait for them.
pub(crate) fn at_submission(exec: &Exec<'_>, model: &Model, order: &Order) -> Availability {
    if matches!(order.input, Input::Inline { .. }) {
        return Availability::Inline;
    }
    let params = exec.params;
    let can_earn = model.reward.is_some()
        && order.lane == Lane::Open
        && !order.seed_by_client
        && !(params.reward_needs_fee && order.fee.is_zero());
    let can_ask = !params.seed_from_id && params.input_sample > 0 && !coordinator_accounts(exec).is_empty();
    if can_earn && can_ask { Availability::Undrawn } else { Availability::Unchecked }
}

/// Lets a later beacon draw the sample, which nobody can know when the order is made.
pub(crate) fn await_sample(exec: &mut Exec<'_>, id: OrderId) {
    due::await_beacon(exec, &UNDRAWN, id);
}

/// Hook before the calls of a block: draws the samples that its beacon may draw. (T-21)
pub(crate) fn draw_samples(exec: &mut Exec<'_>) {
    for id in due::take_drawable(exec, &UNDRAWN) {
        let Some(mut order) = orders::order(&exec.state, &id) else { continue };
        if order.availability != Availability::Undrawn {
            continue;
        }
        let drawn = draw(exec, &id);
        let until_ms = exec.now() + exec.params.input_show_ms;
        for coordinator in &drawn {
            TO_FETCH.set(&mut exec.state, &(*coordinator, id), &());
        }
        due::INPUT.set(&mut exec.state, &(until_ms, id), &());
        exec.emit(Event::InputSampled { order: id, drawn: drawn.clone(), until_ms });
        order.availability = Availability::Sampled { drawn, confirmed: Vec::new(), until_ms };
        orders::store(exec, &order);
    }
}

/// Draws coordinators, each as likely as any other. Anyone can repeat it from the block's beacon.
fn draw(exec: &Exec<'_>, id: &OrderId) -> Vec<Address> {
    let rank = |account: &Address| {
        let tag = b"althing/input-sample/v1".as_slice();
        Hash::of(&[tag, id.as_bytes(), account.as_bytes(), exec.block.beacon.as_bytes()])
    };
    let mut accounts = coordinator_accounts(exec);
    accounts.sort_by_cached_key(|account| rank(account).0);
    accounts.truncate(usize::try_from(exec.params.input_sample).unwrap_or(usize::MAX));
    accounts
}

/// How many of a sample must have fetched the input.
fn quorum(exec: &Exec<'_>, drawn: usize) -> usize {
    let share = u64::from(exec.params.input_quorum.0) * drawn as u64;
    usize::try_from(share.div_ceil(1_000_000)).unwrap_or(usize::MAX).max(1)
}

/// [`althing_types::Call::InputConfirm`]. (T-21)
pub(crate) fn confirm(exec: &mut Exec<'_>, sender: Address, id: OrderId) -> Done {
    let mut order = orders::order(&exec.state, &id).ok_or(LedgerError::UnknownOrder(id))?;
    let waits = order.availability.waits_for(&sender);
    let Availability::Sampled { drawn, confirmed, .. } = &mut order.availability else {
        return Err(LedgerError::NotDrawn);
    };
    if !waits {
        return Err(LedgerError::NotDrawn);
    }
    confirmed.push(sender);
    let shown = confirmed.len() >= quorum(exec, drawn.len());
    TO_FETCH.remove(&mut exec.state, &(sender, id));
    exec.emit(Event::InputConfirmed { order: id, coordinator: sender });
    if shown {
        end(exec, order, true);
    } else {
        orders::store(exec, &order);
    }
    Ok(())
}

/// Due: the coordinators' time is over. (T-17, T-21)
pub(crate) fn expire(exec: &mut Exec<'_>, id: OrderId) {
    let Some(order) = orders::order(&exec.state, &id) else { return };
    if matches!(order.availability, Availability::Sampled { until_ms, .. } if exec.now() >= until_ms) {
        end(exec, order, false);
    }
}

/// Settles it, and lets the seed be drawn.
fn end(exec: &mut Exec<'_>, mut order: Order, shown: bool) {
    let id = order.id;
    close(exec, &mut order, shown);
    if order.state == OrderState::Submitted {
        orders::await_seed(exec, id);
    }
    orders::store(exec, &order);
    exec.emit(Event::InputChecked { order: id, shown });
}

/// Ends the sampling of an order, whose record the caller stores: nobody has to fetch its input any more.
pub(crate) fn close(exec: &mut Exec<'_>, order: &mut Order, shown: bool) {
    if !order.availability.is_open() {
        return;
    }
    if let Availability::Sampled { drawn, until_ms, .. } = &order.availability {
        for coordinator in drawn {
            TO_FETCH.remove(&mut exec.state, &(*coordinator, order.id));
        }
        due::INPUT.remove(&mut exec.state, &(*until_ms, order.id));
    }
    order.availability = if shown { Availability::Shown } else { Availability::NotShown };
}
