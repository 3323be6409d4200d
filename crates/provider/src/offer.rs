//! What the ledger offers a provider for one order, in the provider's own terms. (T-12)
//!
//! Pure: from the order, the parameters and what was last read of the market to an [`Offer`]. The
//! ledger's own arithmetic is repeated here before the fact, with what is not known yet assumed:
//! that all agreements asked for are made, and that the output has the usual size.

use crate::{
    book::Measure,
    policy::{Offer, Task},
};
use althing_types::{
    Account, Address, Amount, Call, Commitment, Hash, Input, Lane, Model, ModelId, Order, OrderId, OrderState, Params,
    Ppm, Provider, api::Emission, encode,
};
use std::collections::BTreeMap;

/// Encoded size of a transaction of a session key around its call.
const ENVELOPE_BYTES: u64 = 133;
const ONE: u128 = Ppm::ONE.0 as u128;

/// What was last read of the market; a few seconds old at most while blocks come.
#[derive(Clone, Debug)]
pub struct Market {
    /// When it was read, by the provider's clock.
    pub read_ms: u64,
    /// The provider's own account and record.
    pub account: Account,
    pub provider: Provider,
    /// The models that it serves.
    pub models: BTreeMap<ModelId, Model>,
    /// `None` if the node does not tell.
    pub emission: Option<Emission>,
}

/// What an offer is made from.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    pub me: Address,
    /// Block time.
    pub now_ms: u64,
    pub params: &'a Params,
    pub market: &'a Market,
    /// What runs of the order's model took here.
    pub measure: Measure,
}

/// What solving the order pays its solver and its delegators, if all agreements are made. (T-5, V-1)
pub fn earning(order: &Order, params: &Params) -> Amount {
    let rest = order.fee.saturating_sub(order.model_fee);
    let shares = u64::from(params.treasury_fee.0)
        + u64::from(params.coordinator_fee.0)
        + u64::from(params.agreement_fee.0) * u64::from(order.agreements_wanted);
    let taken = Ppm(u32::try_from(shares.min(u64::from(Ppm::ONE.0))).unwrap_or(Ppm::ONE.0));
    rest.saturating_sub(rest.share(taken))
}

/// What one agreement pays. (V-1)
fn agreement_fee(order: &Order, params: &Params) -> Amount {
    order.fee.saturating_sub(order.model_fee).share(params.agreement_fee)
}

/// Whether the order can earn a minted reward at all. (T-2, T-21)
fn rewardable(order: &Order, params: &Params) -> bool {
    let inline = matches!(order.input, Input::Inline { .. });
    !order.seed_by_client && inline && !(params.reward_needs_fee && order.fee.is_zero())
}

/// What a run of the model would earn its solver and its delegators now, with an output of this
/// size: treasury and liquidity have their parts already. (T-6)
pub fn run_reward(model: &Model, params: &Params, emission: &Emission, output_bytes: Option<u64>) -> Amount {
    let Some(terms) = model.reward else { return Amount::ZERO };
    let mut reward = emission.reward.mul_div_floor(terms.rate.into(), ONE).unwrap_or_default();
    if params.reward_metered {
        // Before the first run it is hoped for the whole: only a run tells.
        let size = output_bytes.unwrap_or(terms.unit_bytes).min(terms.unit_bytes);
        reward = reward.mul_div_floor(size.into(), terms.unit_bytes.max(1).into()).unwrap_or_default();
    }
    if params.emission_ceiling > 0 {
        let ceiling = emission.target.mul_div_floor(params.emission_ceiling.into(), ONE).unwrap_or(Amount::MAX);
        reward = reward.min(ceiling.saturating_sub(emission.supply));
    }
    reward = reward.min(emission.cap.saturating_sub(emission.supply));
    let (treasury, liquidity) = (reward.share(params.reward_treasury), reward.share(params.reward_liquidity));
    reward.saturating_sub(treasury).saturating_sub(liquidity)
}

/// What a provider keeps of an earning: all but its delegators' part less its commission. (T-10)
pub fn own_part(amount: Amount, provider: &Provider, now_ms: u64) -> Amount {
    let delegated = amount.mul_div_floor(provider.delegated.amount.0, provider.stake().0).unwrap_or_default();
    let passed_on = delegated.saturating_sub(delegated.share(provider.commission_at(now_ms)));
    amount.saturating_sub(passed_on)
}

/// The base fee of a call by a session key. (L-1)
pub fn transaction_cost(params: &Params, call: &Call) -> Amount {
    let bytes = ENVELOPE_BYTES + encode(call).len() as u64;
    let part = |each: Amount, count: u64| each.0.saturating_mul(count.into());
    Amount(part(params.base_fee_byte, bytes).saturating_add(part(params.base_fee_unit, call.units())))
}

/// The transactions of a task; what they say does not change what they cost.
fn transactions(order: &Order, task: Task, params: &Params) -> Amount {
    let (id, output) = (order.id, order.input_cid);
    let calls = match task {
        Task::Solve => vec![
            Call::OrderCommit { order: id, commitment: Hash::ZERO },
            Call::OrderReveal { order: id, output, output_size: 0, salt: Hash::ZERO },
        ],
        Task::Agree => vec![Call::Agree { order: id, output }],
        Task::Dispute => vec![Call::Contest { order: id, ballot: Some(Hash::ZERO) }],
    };
    calls.iter().fold(Amount::ZERO, |all, call| all.checked_add(transaction_cost(params, call)).unwrap_or(Amount::MAX))
}

/// What is on offer for `order` now; `None` if there is nothing to earn from it for this provider.
pub fn offer(order: &Order, facts: &Facts<'_>) -> Option<Offer> {
    let Facts { me, now_ms, .. } = *facts;
    if order.client == me || order.lane != Lane::Open || order.seed.is_none() {
        return None;
    }
    match &order.state {
        OrderState::Submitted => {
            let open: Vec<&Commitment> = order.commitments.iter().filter(|c| c.expires_ms > now_ms).collect();
            if order.cancelled || now_ms >= order.deadline_ms || open.iter().any(|c| c.provider == me) {
                return None;
            }
            Some(to_solve(order, facts, open.len()))
        }
        OrderState::Solved { .. } => to_agree(order, facts),
        OrderState::Accepted { .. }
        | OrderState::Contested { .. }
        | OrderState::Claimed
        | OrderState::Refunded { .. } => None,
    }
}

fn to_solve(order: &Order, facts: &Facts<'_>, committed: usize) -> Offer {
    let Facts { now_ms, params, market, measure, .. } = *facts;
    let model = market.models.get(&order.model).filter(|_| rewardable(order, params));
    let reward = match (model, &market.emission) {
        (Some(model), Some(emission)) => run_reward(model, params, emission, measure.output_bytes()),
        _ => Amount::ZERO,
    };
    let offer = base(order, facts, Task::Solve, order.submitted_ms);
    Offer {
        fee: own_part(earning(order, params), &market.provider, now_ms),
        reward: own_part(reward, &market.provider, now_ms),
        committed: u32::try_from(committed).unwrap_or(u32::MAX),
        ..offer
    }
}

fn to_agree(order: &Order, facts: &Facts<'_>) -> Option<Offer> {
    let standing = order.solutions.first()?;
    let made = order.agreements.len();
    let places = usize::from(order.agreements_wanted).saturating_sub(made);
    let agreed = order.agreements.iter().any(|agreement| agreement.provider == facts.me);
    if places == 0 || agreed || standing.provider == facts.me {
        return None;
    }
    let offer = base(order, facts, Task::Agree, standing.time_ms);
    // Neither the solver nor who agreed already is a rival.
    let done = u32::try_from(made + 1).unwrap_or(u32::MAX);
    Some(Offer {
        fee: own_part(agreement_fee(order, facts.params), &facts.market.provider, facts.now_ms),
        places: u32::try_from(places).unwrap_or(u32::MAX),
        rivals: offer.rivals.saturating_sub(done),
        ..offer
    })
}

/// What offers have in common.
fn base(order: &Order, facts: &Facts<'_>, task: Task, since_ms: u64) -> Offer {
    let supporters = facts.market.models.get(&order.model).map_or(0, |model| model.supporters);
    Offer {
        task,
        fee: Amount::ZERO,
        reward: Amount::ZERO,
        places: 1,
        rivals: supporters.saturating_sub(1),
        committed: 0,
        age_ms: facts.now_ms.saturating_sub(since_ms),
        run_ms: facts.measure.run_ms(),
        transactions: transactions(order, task, facts.params),
        free: facts.market.account.free,
        stake: facts.market.provider.stake_free(),
        slash: facts.params.slash,
    }
}

/// Whether an answer of others is re-run though nobody asked for it: a share of all orders that
/// nobody but this provider can foresee to be without it, the same at every look. (T-11)
pub fn watches(order: &OrderId, me: &Address, share: Ppm) -> bool {
    let hash = Hash::of(&[b"althing-watch", &order.0, &me.0]).0;
    let drawn = hash.iter().take(16).fold(0u128, |number, byte| (number << 8) | u128::from(*byte)) % ONE;
    drawn < u128::from(share.0)
}
