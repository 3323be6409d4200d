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
    Account, Address, Amount, Call, Commitment, Hash, Lane, Model, ModelId, Order, OrderId, OrderState, Params, Ppm,
    Provider, api::Emission, encode,
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
    !order.seed_by_client && order.availability.earns() && !(params.reward_needs_fee && order.fee.is_zero())
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

/// Whether an answer of others is re-run though nobody asked for it: the same at every look, another
/// share of orders for each provider. (T-11)
///
/// The secret keeps liars from telling which orders nobody watches.
pub fn watches(order: &OrderId, me: &Address, secret: &[u8; 32], share: Ppm) -> bool {
    let hash = Hash::of(&[b"althing-watch", secret, &order.0, &me.0]).0;
    let drawn = hash.iter().take(16).fold(0u128, |number, byte| (number << 8) | u128::from(*byte)) % ONE;
    drawn < u128::from(share.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        decide::tests::{commitment, order as order_in, solution},
        policy::{Policy as _, ProfitPolicy},
    };
    use althing_types::{Agreement, Availability, ModelReward, Verification, object::Pool, profile};

    const ME: Address = Address([1; 20]);
    const OTHER: Address = Address([2; 20]);
    const MILLI: u128 = Amount::TOKEN.0 / 1_000;

    fn milli(count: u128) -> Amount {
        Amount(count * MILLI)
    }

    fn params() -> Params {
        profile::parse(profile::DEFAULT, true).unwrap().params
    }

    /// Four providers serve the model; a task earns 2 tokens, half of that for each hundred bytes.
    fn market() -> Market {
        let order = order_in(OrderState::Submitted);
        let model = Model {
            id: order.model,
            owner: OTHER,
            name: "model".into(),
            package: order.package,
            verification: Verification::Exact,
            fee: Amount::ZERO,
            payee: OTHER,
            reward: Some(ModelReward { rate: 500_000, unit_bytes: 200 }),
            supporters: 4,
            supporters_stake: Amount::tokens(400),
            runs: 0,
            deposit: Amount::ZERO,
        };
        Market {
            read_ms: 0,
            account: Account { free: Amount::tokens(5), ..Account::default() },
            provider: Provider { account: ME, bond: Amount::tokens(100), ..Provider::default() },
            models: [(model.id, model)].into(),
            emission: Some(Emission {
                elapsed_ms: 1,
                cap: Amount::tokens(1_000),
                target: Amount::tokens(100),
                supply: Amount::tokens(100),
                multiplier: Amount::TOKEN,
                reward: Amount::tokens(2),
            }),
        }
    }

    fn measure() -> Measure {
        let mut measure = Measure::default();
        measure.add(700, 100);
        measure
    }

    fn open() -> Order {
        order_in(OrderState::Submitted)
    }

    fn offered(order: &Order, params: &Params, market: &Market) -> Option<Offer> {
        offer(order, &Facts { me: ME, now_ms: 10_000, params, market, measure: measure() })
    }

    #[test]
    fn an_open_order_offers_its_fee_and_the_reward_of_the_curve() {
        // T-5, T-6, T-12
        let (params, market) = (params(), market());
        let offer = offered(&open(), &params, &market).unwrap();
        // One token less treasury 10 %, coordinators 2 %, one agreement 10 %.
        assert_eq!(offer.fee, milli(780));
        // 2 · 0.5 · 100/200 less treasury 10 %, liquidity 10 %.
        assert_eq!(offer.reward, milli(400));
        assert_eq!((offer.task, offer.places, offer.rivals, offer.committed), (Task::Solve, 1, 3, 0));
        assert_eq!((offer.age_ms, offer.run_ms), (10_000, Some(700)));
        assert_eq!((offer.stake, offer.slash), (Amount::tokens(100), params.slash));
        assert!(offer.transactions > Amount::ZERO && offer.transactions < milli(1), "{}", offer.transactions);
    }

    #[test]
    fn the_example_of_the_documentation_is_true() {
        // T-12, docs/provider-policy.md
        let order = Order { fee: milli(10), model_fee: milli(1), ..open() };
        let mut market = market();
        market.emission = None;
        let mut measure = Measure::default();
        measure.add(2_000, 100);
        let profit = |cost_per_hour, age_ms| {
            let now_ms = order.submitted_ms + age_ms;
            let offer = offer(&order, &Facts { me: ME, now_ms, params: &params(), market: &market, measure }).unwrap();
            let policy = ProfitPolicy { compute_cost_per_hour: milli(cost_per_hour), ..ProfitPolicy::default() };
            let appraisal = policy.appraise(&offer);
            assert_eq!((appraisal.fee.0, appraisal.transactions.0), (7_020_000_000_000_000, 53_000_000_000_000));
            // In millionths of a token.
            (appraisal.chance.0, appraisal.profit.div_euclid(1_000_000_000_000), appraisal.take)
        };
        assert_eq!(profit(1_800, 0), (250_000, 702, true));
        assert_eq!(profit(1_800, 4_000), (400_000, 1_755, true));
        assert_eq!(profit(1_800, 8_000), (571_428, 2_958, true));
        assert_eq!(profit(3_600, 0), (250_000, -298, false));
        assert_eq!(profit(3_600, 4_000), (400_000, 755, true));
    }

    #[test]
    fn what_earns_no_reward_offers_none() {
        // T-2, T-6, T-21
        let with = |change: fn(&mut Params), order: Order| {
            let mut params = params();
            change(&mut params);
            offered(&order, &params, &market()).unwrap().reward
        };
        let same: fn(&mut Params) = |_| {};
        let free = Order { fee: Amount::ZERO, ..open() };
        assert_eq!(with(same, Order { seed_by_client: true, ..open() }), Amount::ZERO, "a seed that the client chose");
        for (availability, earns) in [
            (Availability::Inline, true),
            (Availability::Shown, true),
            (Availability::NotShown, false),
            (Availability::Unchecked, false),
            (Availability::Undrawn, false),
        ] {
            let reward = with(same, Order { availability: availability.clone(), ..open() });
            assert_eq!(!reward.is_zero(), earns, "{availability:?}");
        }
        assert_eq!(with(same, free.clone()), Amount::ZERO, "no fee where one is needed");
        assert_eq!(with(|params| params.reward_needs_fee = false, free), milli(400), "no fee where none is");
        assert_eq!(with(|params| params.reward_metered = false, open()), milli(800), "not metered");
        assert_eq!(with(|params| params.emission_ceiling = 1_000_000, open()), Amount::ZERO, "at the ceiling");
        let mut market = market();
        market.emission = None;
        assert_eq!(offered(&open(), &params(), &market).unwrap().reward, Amount::ZERO, "a node that does not tell");
        market = self::market();
        market.models.get_mut(&open().model).unwrap().reward = None;
        assert_eq!(offered(&open(), &params(), &market).unwrap().reward, Amount::ZERO, "a model without reward");
    }

    #[test]
    fn delegators_have_their_part() {
        // T-10
        let mut market = market();
        market.provider.delegated = Pool { amount: Amount::tokens(300), shares: Amount::tokens(300) };
        market.provider.commission = Ppm(200_000);
        let offer = offered(&open(), &params(), &market).unwrap();
        // A quarter is the bond's; of the other three, a fifth is commission.
        assert_eq!((offer.fee, offer.reward), (milli(312), milli(160)));
        assert_eq!(offer.stake, Amount::tokens(400));
    }

    #[test]
    fn an_agreement_offers_its_share_to_those_who_have_not_agreed() {
        // V-1, T-12
        let (params, market) = (params(), market());
        let solved = Order {
            solutions: vec![solution(OTHER, "right")],
            agreements_wanted: 2,
            ..order_in(OrderState::Solved { claim_at_ms: 20_000 })
        };
        let agreement = |provider| Agreement { provider, height: 1, weight: Amount::ZERO, reserved: Amount::ZERO };
        let offer = offered(&solved, &params, &market).unwrap();
        assert_eq!((offer.task, offer.fee, offer.reward), (Task::Agree, milli(100), Amount::ZERO));
        assert_eq!((offer.places, offer.rivals, offer.age_ms), (2, 2, 9_999));
        let one = Order { agreements: vec![agreement(Address([3; 20]))], ..solved.clone() };
        let offer = offered(&one, &params, &market).unwrap();
        assert_eq!((offer.places, offer.rivals), (1, 1));
        let rows = [
            ("none wanted", Order { agreements_wanted: 0, ..solved.clone() }),
            ("enough", Order { agreements_wanted: 1, ..one.clone() }),
            ("the own one", Order { agreements: vec![agreement(ME)], ..solved.clone() }),
            ("with the own answer", Order { solutions: vec![solution(ME, "right")], ..solved.clone() }),
        ];
        for (what, order) in rows {
            assert_eq!(offered(&order, &params, &market), None, "{what}");
        }
    }

    #[test]
    fn what_cannot_be_taken_is_no_offer() {
        // T-2, T-3, T-17
        let (params, market) = (params(), market());
        let rows = [
            ("the own order", Order { client: ME, ..open() }),
            ("no seed", Order { seed: None, ..open() }),
            ("cancelled", Order { cancelled: true, ..open() }),
            ("too late", Order { deadline_ms: 10_000, ..open() }),
            ("promised already", Order { commitments: vec![commitment(ME)], ..open() }),
            ("another's", Order { lane: Lane::Chosen { provider: OTHER }, ..open() }),
            ("disputed", order_in(OrderState::Contested { claim_at_ms: 20_000 })),
        ];
        for (what, order) in rows {
            assert_eq!(offered(&order, &params, &market), None, "{what}");
        }
        let expired = Commitment { expires_ms: 1, ..commitment(OTHER) };
        let order = Order { commitments: vec![expired, commitment(OTHER)], ..open() };
        assert_eq!(offered(&order, &params, &market).unwrap().committed, 1, "only open commitments count");
    }

    #[test]
    fn each_provider_watches_its_own_share_of_orders() {
        // T-11
        let orders: Vec<OrderId> = (0..2_000u32).map(|n| OrderId(Hash::of(&[&n.to_be_bytes()]).0)).collect();
        let watched = |me, share| orders.iter().filter(|order| watches(order, me, &[9; 32], Ppm(share))).count();
        let secret = |byte| orders.iter().filter(|order| watches(order, &ME, &[byte; 32], Ppm(250_000))).collect();
        let (mine, guessed): (Vec<_>, Vec<_>) = (secret(9), secret(8));
        assert_ne!(mine, guessed, "which ones is nobody else's to know");
        assert_eq!((watched(&ME, 0), watched(&ME, 1_000_000)), (0, 2_000));
        let quarter = watched(&ME, 250_000);
        assert!((400..600).contains(&quarter), "{quarter}");
        let both = |order: &&OrderId| {
            watches(order, &ME, &[9; 32], Ppm(250_000)) && watches(order, &OTHER, &[9; 32], Ppm(250_000))
        };
        let both = orders.iter().filter(both).count();
        assert!((60..190).contains(&both), "{both} of them by both: the shares are independent");
        assert!(
            orders.iter().all(
                |order| !watches(order, &ME, &[9; 32], Ppm(250_000)) || watches(order, &ME, &[9; 32], Ppm(500_000))
            ),
            "a larger share watches the same orders and more"
        );
    }
}
