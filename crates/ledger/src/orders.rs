//! Orders: one request for one run, from submission to payout or refund. (§2)
//!
//! ```text
//! open:    submitted ─ commit* ─ reveal* ─┐
//! chosen:  submitted ─ accepted ─ complete ┴─ solved ─┬─ (window passes) ─ claimed
//!                                                     └─ contested ─┬─ upheld  → solved
//!                                                                   └─ refuted → next reveal, or refunded
//! any:     unsolved at its deadline, or cancelled → refunded
//! ```
//!
//! The first valid reveal stands; up to two more are kept behind it in commitment order and replace
//! it when it is refuted. (The standing solution never changes without a dispute, even if an earlier
//! commitment is revealed later: the client may have used it.)

use crate::{
    accounts, budgets, costs, disputes, due, emission,
    exec::{Done, Exec},
    inputs, liquidity, registry, shares, staking,
    state::{Map, StateRead},
    supply::{self, COORDINATORS, Place, TREASURY},
};
use althing_types::{
    Address, Agreement, Amount, Availability, Cid, Commitment, ContentSource, Event, Hash, Input, Lane, LedgerError,
    Order, OrderId, OrderState, RefundReason, Solution, Verification,
    call::OrderSubmit,
    commitment::commitment_hash,
    event::PaymentKind,
    object::{DEPTH_MAX, INLINE_INPUT_BYTES_MAX, SEED_MODULUS, SOLUTIONS_MAX},
};

/// Most commitments that one order may hold at a time.
pub const COMMITMENTS_MAX: usize = 16;
/// Most agreements with one solution.
pub const AGREEMENTS_MAX: usize = 8;

const ORDERS: Map<OrderId, Order> = Map::new(0x20);
/// Id and number of the newest order. (T-2)
const NEWEST: Map<(), (OrderId, u64)> = Map::new(0x21);
/// Orders whose seed is not drawn yet, by the view from which a beacon may draw it. (T-2)
const UNSEEDED: Map<(u64, OrderId), ()> = Map::new(0x22);
/// Solutions that are not settled, by solver. (T-8)
pub(crate) const BY_SOLVER: Map<(Address, OrderId), ()> = Map::new(0x23);
/// Orders that are not final, by number.
const OPEN: Map<(u64, OrderId), ()> = Map::new(0x25);
/// Orders by number, newest last, for listings.
const BY_NUMBER: Map<u64, OrderId> = Map::new(0x24);

// ---- queries ----

/// The order with this id, while it is in the state.
pub fn order(state: &dyn StateRead, id: &OrderId) -> Option<Order> {
    ORDERS.get(state, id)
}

/// The full key of an order in the state.
pub fn key(id: &OrderId) -> Vec<u8> {
    ORDERS.key(id)
}

/// Orders in the order of their numbers, after number `after`.
pub fn all(state: &dyn StateRead, after: u64, limit: usize) -> Vec<Order> {
    BY_NUMBER.after(state, &after, limit).into_iter().filter_map(|(_, id)| order(state, &id)).collect()
}

/// Orders that are not final, by number.
pub fn open(state: &dyn StateRead, limit: usize) -> Vec<Order> {
    OPEN.first(state, limit).into_iter().filter_map(|((_, id), ())| order(state, &id)).collect()
}

/// Whether an order waits for its seed.
pub fn has_unseeded(state: &dyn StateRead) -> bool {
    !UNSEEDED.first(state, 1).is_empty()
}

/// How many orders there have ever been.
pub fn count(state: &dyn StateRead) -> u64 {
    NEWEST.get(state, &()).map_or(0, |(_, number)| number)
}

pub(crate) fn store(exec: &mut Exec<'_>, order: &Order) {
    ORDERS.set(&mut exec.state, &order.id, order);
}

fn get(exec: &Exec<'_>, id: &OrderId) -> Done<Order> {
    order(&exec.state, id).ok_or(LedgerError::UnknownOrder(*id))
}

fn wrong_state(order: &Order) -> LedgerError {
    let state = match &order.state {
        OrderState::Submitted => "waiting for a solution",
        OrderState::Accepted { .. } => "accepted",
        OrderState::Solved { .. } => "solved",
        OrderState::Contested { .. } => "contested",
        OrderState::Claimed => "claimed",
        OrderState::Refunded { .. } => "refunded",
    };
    LedgerError::WrongState { state: state.into() }
}

// ---- submission ----

/// Refuses what takes that others can re-run an order's model. (T-20)
pub(crate) fn check_verifiable(exec: &Exec<'_>, order: &Order) -> Done {
    match registry::model(&exec.state, &order.model) {
        Some(model) if model.verification == Verification::None => Err(LedgerError::NotVerifiable),
        _ => Ok(()),
    }
}

/// [`althing_types::Call::OrderSubmit`]. (T-1, T-2, T-13, T-15, T-20, T-21)
pub(crate) fn submit(exec: &mut Exec<'_>, client: Address, submit: OrderSubmit) -> Done<OrderId> {
    let now = exec.now();
    let model = registry::model(&exec.state, &submit.model).ok_or(LedgerError::UnknownModel(submit.model))?;
    if submit.fee < model.fee {
        return Err(LedgerError::FeeBelowModelFee { fee: submit.fee, model_fee: model.fee });
    }
    if submit.fee > submit.max_total {
        return Err(LedgerError::FeeAboveMaxTotal { fee: submit.fee, max_total: submit.max_total });
    }
    let input_cid = match &submit.input {
        Input::Inline { bytes } if bytes.len() > INLINE_INPUT_BYTES_MAX => {
            return Err(LedgerError::InputTooLarge { max: INLINE_INPUT_BYTES_MAX as u64, got: bytes.len() as u64 });
        }
        Input::Inline { bytes } => althing_content::file_cid(bytes),
        Input::Content { cid, source, .. } => {
            if let Some(Err(error)) = source.as_ref().map(ContentSource::check) {
                return Err(LedgerError::SourceInvalid { reason: error.to_string() });
            }
            *cid
        }
    };
    let (min_ms, max_ms) = (now + exec.params.deadline_min_ms, now + exec.params.deadline_max_ms);
    if submit.deadline_ms < min_ms || submit.deadline_ms > max_ms {
        return Err(LedgerError::DeadlineOutOfRange { min_ms, max_ms });
    }
    if submit.seed.is_some_and(|seed| seed >= SEED_MODULUS) {
        return Err(LedgerError::SeedOutOfRange { max: SEED_MODULUS });
    }
    if submit.agreements > exec.params.agreements_wanted_max {
        return Err(LedgerError::TooManyAgreementsWanted { max: exec.params.agreements_wanted_max });
    }
    let is_raced = submit.lane == Lane::Open || submit.agreements > 0;
    if is_raced && model.verification == Verification::None {
        return Err(LedgerError::NotVerifiable);
    }
    match submit.lane {
        Lane::Open => {}
        Lane::Chosen { provider } => {
            let provider = staking::fit_for_work(exec, &provider)?;
            if !provider.models.contains(&model.id) {
                return Err(LedgerError::ProviderNotServing);
            }
        }
    }
    let (depth, root) = match submit.parent {
        None => (0, None),
        Some(parent) => get(exec, &parent).map(|parent| (parent.depth + 1, Some(parent.root)))?,
    };
    if depth > DEPTH_MAX {
        return Err(LedgerError::ParentTooDeep { max: DEPTH_MAX });
    }
    budgets::check(exec, &submit)?;
    let deposit = costs::deposit(exec, &client)?;

    let (previous, number) = NEWEST.get(&exec.state, &()).unwrap_or((OrderId::ZERO, 0));
    let content = Hash::of(&[b"althing/order/v1", client.as_bytes(), &althing_types::encode(&submit)]);
    let id = OrderId(Hash::of(&[previous.as_bytes(), content.as_bytes()]).0);
    let number = number + 1;
    NEWEST.set(&mut exec.state, &(), &(id, number));
    BY_NUMBER.set(&mut exec.state, &number, &id);
    OPEN.set(&mut exec.state, &(number, id), &());
    let mut order = Order {
        id,
        number,
        client,
        model: model.id,
        package: model.package,
        lane: submit.lane,
        input: submit.input,
        input_cid,
        fee: submit.fee,
        model_fee: model.fee,
        model_payee: model.payee,
        submitted_height: exec.block.height,
        submitted_view: exec.block.view,
        submitted_ms: now,
        deadline_ms: submit.deadline_ms,
        seed: submit.seed,
        seed_by_client: submit.seed.is_some(),
        agreements_wanted: submit.agreements,
        parent: submit.parent,
        depth,
        state: OrderState::Submitted,
        commitments_made: 0,
        commitments: Vec::new(),
        solutions: Vec::new(),
        agreements: Vec::new(),
        cancelled: false,
        claimed_by: None,
        deposit,
        availability: Availability::Unchecked,
        root: root.unwrap_or(id),
        budgeted: false,
    };
    order.budgeted = budgets::escrow_fee(exec, &order)?;
    if let Some(budget) = submit.budget {
        budgets::open(exec, &order, budget)?;
    }
    order.availability = inputs::at_submission(exec, &model, &order);
    if order.seed.is_none() && exec.params.seed_from_id {
        // The paper: a person who orders transactions can grind it. (T-2)
        order.seed = Some(reduce(&id.0));
    }
    if order.availability.is_open() {
        inputs::await_sample(exec, id);
    } else if order.seed.is_none() {
        await_seed(exec, id);
    }
    let expiry_ms = match order.lane {
        Lane::Open => order.deadline_ms,
        Lane::Chosen { .. } => order.deadline_ms.min(now + exec.params.accept_within_ms),
    };
    due::EXPIRY.set(&mut exec.state, &(expiry_ms, id), &());
    store(exec, &order);
    exec.emit(Event::OrderSubmitted { order: id, client, model: order.model, fee: order.fee });
    Ok(id)
}

/// Lets a later beacon draw an order's seed. (T-2)
pub(crate) fn await_seed(exec: &mut Exec<'_>, id: OrderId) {
    due::await_beacon(exec, &UNSEEDED, id);
}

/// Hook before the calls of a block: draws the seeds that its beacon may draw. (T-2)
pub(crate) fn draw_seeds(exec: &mut Exec<'_>) {
    for id in due::take_drawable(exec, &UNSEEDED) {
        let Some(mut order) = order(&exec.state, &id) else { continue };
        let seed = seed_of(&id, &exec.block.beacon);
        order.seed = Some(seed);
        store(exec, &order);
        exec.emit(Event::OrderSeeded { order: id, seed });
    }
}

/// H(id ‖ beacon) mod 0x1FFFFFFFFFFFF0: the seed of a run. (T-2)
pub fn seed_of(order: &OrderId, beacon: &Hash) -> u64 {
    reduce(&Hash::of(&[order.as_bytes(), beacon.as_bytes()]).0)
}

/// 32 bytes as one big-endian number, modulo [`SEED_MODULUS`].
fn reduce(digest: &[u8; 32]) -> u64 {
    let modulus = u128::from(SEED_MODULUS);
    let seed = digest.iter().fold(0u128, |rest, byte| (rest * 256 + u128::from(*byte)) % modulus);
    u64::try_from(seed).expect("a remainder is below its 53-bit modulus")
}

// ---- open lane ----

/// [`althing_types::Call::OrderCommit`]. (T-3)
pub(crate) fn commit(exec: &mut Exec<'_>, sender: Address, id: OrderId, hash: Hash) -> Done {
    let now = exec.now();
    let mut order = get(exec, &id)?;
    if order.lane != Lane::Open {
        return Err(LedgerError::WrongLane);
    }
    if order.state != OrderState::Submitted {
        return Err(wrong_state(&order));
    }
    if order.cancelled || now >= order.deadline_ms {
        return Err(LedgerError::ClosedToCommitments);
    }
    if order.seed.is_none() {
        return Err(LedgerError::SeedUnknown);
    }
    staking::fit_for_work(exec, &sender)?;
    order.commitments.retain(|c| c.expires_ms > now);
    if order.commitments.iter().any(|c| c.provider == sender) {
        return Err(LedgerError::CommitmentExists);
    }
    if order.commitments.len() >= COMMITMENTS_MAX {
        return Err(LedgerError::TooManyCommitments { max: COMMITMENTS_MAX as u32 });
    }
    let expires_ms = now + exec.params.commitment_expiry_ms;
    let index = order.commitments_made;
    order.commitments_made += 1;
    order.commitments.push(Commitment { provider: sender, hash, height: exec.block.height, expires_ms, index });
    due::EXPIRY.set(&mut exec.state, &(expires_ms, id), &());
    store(exec, &order);
    exec.emit(Event::OrderCommitted { order: id, provider: sender, commitment: hash });
    Ok(())
}

/// [`althing_types::Call::OrderReveal`]. (T-3, T-9)
pub(crate) fn reveal(
    exec: &mut Exec<'_>,
    sender: Address,
    id: OrderId,
    output: Cid,
    output_size: u64,
    salt: Hash,
) -> Done {
    let now = exec.now();
    let mut order = get(exec, &id)?;
    if !matches!(order.state, OrderState::Submitted | OrderState::Solved { .. } | OrderState::Contested { .. })
        || order.solutions.len() >= SOLUTIONS_MAX
    {
        return Err(wrong_state(&order));
    }
    let position = order
        .commitments
        .iter()
        .position(|c| c.provider == sender && c.expires_ms > now)
        .ok_or(LedgerError::NoCommitment)?;
    let commitment = order.commitments[position].clone();
    if exec.block.height <= commitment.height {
        return Err(LedgerError::RevealTooEarly);
    }
    if commitment_hash(&exec.block.chain, &id, &sender, &output, output_size, &salt) != commitment.hash {
        return Err(LedgerError::CommitmentMismatch);
    }
    order.commitments.remove(position);
    let standing = add_solution(exec, &mut order, sender, output, output_size, commitment.index)?;
    exec.emit(Event::OrderRevealed { order: id, provider: sender, output, standing });
    Ok(())
}

/// Adds a solution, reserving its stake; returns whether it stands. Stores the order. (T-3, T-9)
fn add_solution(
    exec: &mut Exec<'_>,
    order: &mut Order,
    solver: Address,
    output: Cid,
    output_size: u64,
    commitment_index: u32,
) -> Done<bool> {
    let mut provider = staking::fit_for_work(exec, &solver)?;
    let weight = staking::weight_of_solver(exec, &provider);
    let reserved = staking::reserve(exec, &mut provider, weight)?;
    let solution = Solution {
        provider: solver,
        output,
        output_size,
        height: exec.block.height,
        time_ms: exec.now(),
        active_ms: exec.active_now(),
        weight,
        reserved,
        commitment_index,
    };
    let standing = order.solutions.is_empty();
    if standing {
        order.solutions.push(solution);
        open_window(exec, order);
    } else {
        let behind = &order.solutions[1..];
        let position = 1 + behind.partition_point(|s| s.commitment_index < commitment_index);
        order.solutions.insert(position, solution);
    }
    BY_SOLVER.set(&mut exec.state, &(solver, order.id), &());
    store(exec, order);
    Ok(standing)
}

/// Starts the challenge window of the standing solution. (T-4)
pub(crate) fn open_window(exec: &mut Exec<'_>, order: &mut Order) {
    let claim_at_ms = exec.active_now() + exec.params.challenge_window_ms;
    order.state = OrderState::Solved { claim_at_ms };
    due::CLAIM.set(&mut exec.state, &(claim_at_ms, order.id), &());
}

// ---- chosen lane ----

/// [`althing_types::Call::OrderAccept`].
pub(crate) fn accept(exec: &mut Exec<'_>, sender: Address, id: OrderId) -> Done {
    let mut order = get(exec, &id)?;
    check_chosen(&order, &sender)?;
    if order.state != OrderState::Submitted || order.cancelled || exec.now() >= order.deadline_ms {
        return Err(wrong_state(&order));
    }
    staking::fit_for_work(exec, &sender)?;
    order.state = OrderState::Accepted { deliver_by_ms: order.deadline_ms };
    due::EXPIRY.set(&mut exec.state, &(order.deadline_ms, id), &());
    store(exec, &order);
    exec.emit(Event::OrderAccepted { order: id, provider: sender });
    Ok(())
}

/// [`althing_types::Call::OrderComplete`]: the provider's signed completion. (M-5, T-9)
pub(crate) fn complete(exec: &mut Exec<'_>, sender: Address, id: OrderId, output: Cid, output_size: u64) -> Done {
    let mut order = get(exec, &id)?;
    check_chosen(&order, &sender)?;
    match order.state {
        OrderState::Accepted { deliver_by_ms } if exec.now() < deliver_by_ms => {}
        _ => return Err(wrong_state(&order)),
    }
    if order.seed.is_none() {
        return Err(LedgerError::SeedUnknown);
    }
    add_solution(exec, &mut order, sender, output, output_size, 0)?;
    exec.emit(Event::OrderCompleted { order: id, provider: sender, output });
    Ok(())
}

fn check_chosen(order: &Order, sender: &Address) -> Done {
    match order.lane {
        Lane::Open => Err(LedgerError::WrongLane),
        Lane::Chosen { provider } if provider != *sender => Err(LedgerError::NotChosenProvider),
        Lane::Chosen { .. } => Ok(()),
    }
}

// ---- agreements ----

/// [`althing_types::Call::Agree`]. (V-1, T-9, T-20)
pub(crate) fn agree(exec: &mut Exec<'_>, sender: Address, id: OrderId, output: Cid) -> Done {
    let mut order = get(exec, &id)?;
    check_verifiable(exec, &order)?;
    match order.state {
        OrderState::Solved { claim_at_ms } if exec.active_now() <= claim_at_ms => {}
        OrderState::Solved { .. } => return Err(LedgerError::WindowClosed),
        _ => return Err(wrong_state(&order)),
    }
    let standing = order.solutions.first().ok_or(LedgerError::NoSolution)?;
    if standing.provider == sender || order.client == sender {
        return Err(LedgerError::OwnOrder);
    }
    if standing.output != output {
        return Err(LedgerError::OutputDiffers { standing: standing.output.to_string() });
    }
    if order.agreements.iter().any(|a| a.provider == sender) {
        return Err(LedgerError::AgreementExists);
    }
    if order.agreements.len() >= AGREEMENTS_MAX {
        return Err(LedgerError::TooManyAgreements { max: AGREEMENTS_MAX as u32 });
    }
    let mut provider = staking::fit_for_work(exec, &sender)?;
    let weight = staking::weight_since(exec, &provider, standing.active_ms)?;
    let reserved = staking::reserve(exec, &mut provider, weight)?;
    order.agreements.push(Agreement { provider: sender, height: exec.block.height, weight, reserved });
    store(exec, &order);
    exec.emit(Event::Agreed { order: id, provider: sender, output });
    Ok(())
}

// ---- the end of an order ----

/// [`althing_types::Call::OrderCancel`]. (T-17)
pub(crate) fn cancel(exec: &mut Exec<'_>, sender: Address, id: OrderId) -> Done {
    let mut order = get(exec, &id)?;
    if order.client != sender {
        return Err(LedgerError::NotClient);
    }
    if order.state != OrderState::Submitted || order.cancelled {
        return Err(wrong_state(&order));
    }
    let from_ms = order.submitted_ms + exec.params.cancel_after_ms;
    if exec.now() < from_ms {
        return Err(LedgerError::CancelTooEarly { from_ms });
    }
    order.cancelled = true;
    store(exec, &order);
    exec.emit(Event::OrderCancelled { order: id });
    close_if_idle(exec, order);
    Ok(())
}

/// Due: a deadline, an acceptance or a commitment of the order ran out. (T-17)
pub(crate) fn expire(exec: &mut Exec<'_>, id: OrderId) {
    let Some(order) = order(&exec.state, &id) else { return };
    match order.state {
        // The entry was made for the time by which it had to be accepted, whatever that would be by
        // the parameters of now. (T-18)
        OrderState::Submitted if order.lane != Lane::Open => refund(exec, order, RefundReason::Expired),
        OrderState::Submitted => close_if_idle(exec, order),
        OrderState::Accepted { deliver_by_ms } if exec.now() >= deliver_by_ms => {
            refund(exec, order, RefundReason::Expired);
        }
        _ => {}
    }
}

/// Refunds an unsolved order that nobody can solve any more; open commitments keep it open.
fn close_if_idle(exec: &mut Exec<'_>, mut order: Order) {
    let now = exec.now();
    order.commitments.retain(|c| c.expires_ms > now);
    let over = order.cancelled || now >= order.deadline_ms;
    if over && order.commitments.is_empty() {
        let reason = if order.cancelled { RefundReason::Cancelled } else { RefundReason::Expired };
        refund(exec, order, reason);
    } else {
        // Each open commitment, and the deadline, has its own entry in the queue.
        store(exec, &order);
    }
}

/// Gives the whole fee back and ends the order. Its solutions and agreements are released.
pub(crate) fn refund(exec: &mut Exec<'_>, mut order: Order, reason: RefundReason) {
    release_claims(exec, &mut order);
    let (client, fee, id) = (order.client, order.fee, order.id);
    if !budgets::refill(exec, &order) {
        accounts::pay(exec, &client, fee, Place::Escrowed, PaymentKind::Refund, id);
    }
    exec.emit(Event::OrderRefunded { order: id, reason });
    finish(exec, order, OrderState::Refunded { reason });
}

/// Ends the reservations of all solutions and agreements; they stay on record.
fn release_claims(exec: &mut Exec<'_>, order: &mut Order) {
    for solution in &order.solutions {
        staking::release(exec, &solution.provider, solution.reserved);
        BY_SOLVER.remove(&mut exec.state, &(solution.provider, order.id));
    }
    for agreement in &order.agreements {
        staking::release(exec, &agreement.provider, agreement.reserved);
    }
}

fn finish(exec: &mut Exec<'_>, mut order: Order, state: OrderState) {
    order.state = state;
    order.commitments.clear();
    inputs::close(exec, &mut order, false);
    OPEN.remove(&mut exec.state, &(order.number, order.id));
    let prune_at_ms = exec.now() + exec.params.order_retention_ms;
    due::PRUNE.set(&mut exec.state, &(prune_at_ms, order.id), &());
    store(exec, &order);
}

/// [`althing_types::Call::OrderClaim`], for profiles that accept it; claims run by themselves. (T-4)
pub(crate) fn claim_by_call(exec: &mut Exec<'_>, id: OrderId) -> Done {
    if !exec.params.claim_calls {
        return Err(LedgerError::ClaimsRunThemselves);
    }
    let order = get(exec, &id)?;
    match order.state {
        OrderState::Solved { claim_at_ms } if exec.active_now() <= claim_at_ms => {
            return Err(LedgerError::WindowOpen { claim_at_ms });
        }
        OrderState::Solved { .. } => {}
        _ => return Err(wrong_state(&order)),
    }
    claim(exec, id);
    Ok(())
}

/// Due: the challenge window ended; pays the order out. (T-4, T-5, T-6, V-1)
pub(crate) fn claim(exec: &mut Exec<'_>, id: OrderId) {
    let Some(mut order) = order(&exec.state, &id) else { return };
    match order.state {
        OrderState::Solved { claim_at_ms } if exec.active_now() >= claim_at_ms => {}
        // Contested, refunded, or solved anew with a later window: that has its own entry.
        _ => return,
    }
    let Some(solver) = order.solutions.first().map(|s| s.provider) else { return };
    let fees = fee_shares(exec, &order);
    let from = Place::Escrowed;
    if !shares::accrue(exec, &order.model_payee, fees.model, from, id) {
        accounts::pay(exec, &order.model_payee, fees.model, from, PaymentKind::ModelFee, id);
    }
    accounts::pay(exec, &TREASURY, fees.treasury, from, PaymentKind::TreasuryFee, id);
    accounts::pay(exec, &COORDINATORS, fees.coordinators, from, PaymentKind::CoordinatorFee, id);
    let paid: Vec<_> = order.agreements.iter().take(fees.agreements_paid).map(|a| a.provider).collect();
    for agreer in paid {
        staking::pay_provider(exec, &agreer, fees.agreement, from, PaymentKind::AgreementFee, id);
    }
    staking::pay_provider(exec, &solver, fees.provider, from, PaymentKind::ProviderFee, id);
    pay_reward(exec, &order, &solver);
    release_claims(exec, &mut order);
    registry::count_run(exec, &order.model);
    order.claimed_by = Some(solver);
    exec.emit(Event::OrderClaimed { order: id, provider: solver });
    finish(exec, order, OrderState::Claimed);
}

/// Mints what the curve gives for the order: shares for treasury and liquidity, the rest to the
/// solver. The mint joins the order's escrow and is paid out of it at once. (T-6)
fn pay_reward(exec: &mut Exec<'_>, order: &Order, solver: &Address) {
    let reward = emission::task_reward(exec, order);
    if reward.is_zero() || supply::issue(exec, Place::Escrowed, reward).is_err() {
        return;
    }
    emission::count(exec, reward);
    exec.emit(Event::Minted { order: order.id, amount: reward });
    let treasury = reward.share(exec.params.reward_treasury);
    let liquidity = reward.share(exec.params.reward_liquidity);
    let rest = reward.saturating_sub(treasury).saturating_sub(liquidity);
    accounts::pay(exec, &TREASURY, treasury, Place::Escrowed, PaymentKind::RewardTreasury, order.id);
    liquidity::fund(exec, liquidity, Place::Escrowed);
    exec.emit(Event::LiquidityRewarded { order: order.id, amount: liquidity });
    staking::pay_provider(exec, solver, rest, Place::Escrowed, PaymentKind::Reward, order.id);
}

/// How an order's fee is divided: shares round down, the remainder is the provider's. (T-5)
struct FeeShares {
    model: Amount,
    treasury: Amount,
    coordinators: Amount,
    /// For each of `agreements_paid` agreements.
    agreement: Amount,
    agreements_paid: usize,
    provider: Amount,
}

fn fee_shares(exec: &Exec<'_>, order: &Order) -> FeeShares {
    let rest = order.fee.saturating_sub(order.model_fee);
    let treasury = rest.share(exec.params.treasury_fee);
    let coordinators = rest.share(exec.params.coordinator_fee);
    let agreement = rest.share(exec.params.agreement_fee);
    let agreements_paid = order.agreements.len().min(usize::from(order.agreements_wanted));
    let mut provider = rest.saturating_sub(treasury).saturating_sub(coordinators);
    for _ in 0..agreements_paid {
        provider = provider.saturating_sub(agreement);
    }
    FeeShares { model: order.model_fee, treasury, coordinators, agreement, agreements_paid, provider }
}

/// After the standing solution fell: the next reveal stands, with a window of its own, or the client
/// gets everything back. Agreements were with the fallen one and are released. (T-3, T-8)
pub(crate) fn replace_standing(exec: &mut Exec<'_>, mut order: Order, reason: RefundReason) {
    if order.solutions.is_empty() {
        refund(exec, order, reason);
        return;
    }
    open_window(exec, &mut order);
    let (provider, output) = (order.solutions[0].provider, order.solutions[0].output);
    store(exec, &order);
    exec.emit(Event::SolutionPromoted { order: order.id, provider, output });
}

/// Due: a finished order leaves the state; the node's history keeps it.
pub(crate) fn prune(exec: &mut Exec<'_>, id: OrderId) {
    let Some(order) = order(&exec.state, &id) else { return };
    if !order.state.is_final() {
        return;
    }
    ORDERS.remove(&mut exec.state, &id);
    BY_NUMBER.remove(&mut exec.state, &order.number);
    disputes::forget(exec, &id);
    costs::give_back(exec, &order.client, order.deposit);
    exec.emit(Event::OrderPruned { order: id });
}
