//! The emission curve: how much a task earns beside its fee. (T-6, E-1)
//!
//! Terms: **cap** M, the most that is ever minted; **supply** S, what this issuer minted so far
//! (with the balances of genesis, if the profile counts them); **target**, what it should have
//! minted by now; **multiplier**, how much faster or slower it therefore mints.
//!
//! ```text
//! target     = M · (1 − 2^(−t/h))                      t time since genesis, h halving time
//! multiplier = 2^(−100·(S/target − 1))                 at most 100; 0 from 20 % above target
//! reward     = base · (M − S)/M · multiplier           0 without a target
//! ```
//!
//! Everything is integer arithmetic with 224 binary digits behind the point and rounds down; the
//! results are the true values rounded down (`tests/emission.rs` compares them with 120-digit
//! decimals). Same bits everywhere, monotone.

use crate::{
    exec::Exec,
    query, registry,
    state::{Map, StateRead},
};
use althing_types::{Amount, Order, Params, Ppm, api::Emission};
use borsh::{BorshDeserialize, BorshSerialize};
use ruint::Uint;

type Wide = Uint<512, 8>;

/// Binary digits behind the point.
const FRACTION_BITS: usize = 224;
/// ln 2, rounded down, scaled by 2^224: b17217f7d1cf79abc9e3b39803f2f6af40f343267298b62d8a0d175b.
const LN_2: Wide = Wide::from_limbs([
    0x7298_b62d_8a0d_175b,
    0x03f2_f6af_40f3_4326,
    0xd1cf_79ab_c9e3_b398,
    0x0000_0000_b172_17f7,
    0,
    0,
    0,
    0,
]);
/// The multiplier never exceeds this.
const MULTIPLIER_MAX: u64 = 100;
/// From this exponent on, a supply of 20 % above target, nothing is minted.
const EXPONENT_ZERO: u128 = 20;
/// One percent of deviation halves or doubles the reward.
const STEEPNESS: u128 = 100;

/// What the curve minted.
const MINTED: Map<(), Minted> = Map::new(0x13);

/// The curve's book.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub(crate) struct Minted {
    /// Block time of genesis, ms.
    pub(crate) started_ms: u64,
    /// Balances of genesis.
    pub(crate) genesis: Amount,
    /// Minted since, gross.
    pub(crate) minted: Amount,
}

fn one() -> Wide {
    Wide::from(1) << FRACTION_BITS
}

fn wide(number: u128) -> Wide {
    Wide::from(number)
}

/// 2^(−numerator/denominator) for a fraction below one, rounded down, scaled by 2^224.
///
/// e^(−y) with y = x · ln 2 as its Taylor series; the terms fall faster than 0.7^k/k!, so that
/// sixty of them reach the last digit. The error is below 2^-216.
fn exp2_negative(numerator: u128, denominator: u128) -> Wide {
    if numerator == 0 {
        return one();
    }
    let x = (wide(numerator) << FRACTION_BITS) / wide(denominator);
    let y = (x * LN_2) >> FRACTION_BITS;
    let (mut positive, mut negative) = (one(), Wide::ZERO);
    let mut term = one();
    for k in 1u64.. {
        term = ((term * y) >> FRACTION_BITS) / Wide::from(k);
        if term.is_zero() {
            break;
        }
        if k % 2 == 1 { negative += term } else { positive += term }
    }
    positive - negative
}

/// How much should be minted `elapsed_ms` after genesis. (T-6)
pub fn target(cap: Amount, halving_ms: u64, elapsed_ms: u64) -> Amount {
    let (periods, rest_ms) = (elapsed_ms / halving_ms, elapsed_ms % halving_ms);
    let left = exp2_negative(rest_ms.into(), halving_ms.into()) * wide(cap.0);
    let shift = FRACTION_BITS.saturating_add(usize::try_from(periods).unwrap_or(usize::MAX));
    let (whole, exact) = match shift < 512 {
        true => (left >> shift, rest_ms == 0 && ((left >> shift) << shift) == left),
        false => (Wide::ZERO, false),
    };
    // What is left rounds up, so that the target rounds down.
    let left = u128::try_from(whole).expect("a part of the cap fits where the cap does");
    let left = if exact { left } else { left.saturating_add(1) };
    cap.saturating_sub(Amount(left))
}

/// The multiplier of a supply and its target, scaled by 2^224.
fn multiplier_scaled(target: Amount, supply: Amount) -> Wide {
    if target.is_zero() {
        return Wide::ZERO;
    }
    let deviation = target.0.abs_diff(supply.0).saturating_mul(STEEPNESS);
    let (whole, rest) = (deviation / target.0, deviation % target.0);
    if supply >= target {
        if whole >= EXPONENT_ZERO {
            return Wide::ZERO;
        }
        let halvings = usize::try_from(whole).expect("fewer than twenty halvings");
        return exp2_negative(rest, target.0) >> halvings;
    }
    let most = one() * Wide::from(MULTIPLIER_MAX);
    if whole >= 7 {
        // 2^7 is more than the most.
        return most;
    }
    let doublings = usize::try_from(whole).expect("fewer than seven doublings");
    let value = match rest {
        0 => one() << doublings,
        // 2^f = 2 · 2^(f − 1)
        rest => exp2_negative(target.0 - rest, target.0) << (doublings + 1),
    };
    value.min(most)
}

/// The multiplier with 18 decimals. (T-6)
pub fn multiplier(target: Amount, supply: Amount) -> Amount {
    let value = (multiplier_scaled(target, supply) * wide(Amount::TOKEN.0)) >> FRACTION_BITS;
    Amount(u128::try_from(value).expect("a multiplier is at most 100"))
}

/// What a task earns. (T-6)
pub fn reward(base: Amount, cap: Amount, target: Amount, supply: Amount) -> Amount {
    let left = cap.saturating_sub(supply);
    if cap.is_zero() || left.is_zero() {
        return Amount::ZERO;
    }
    // base and cap are below 2^110, the multiplier below 2^231.
    let value = wide(base.0) * multiplier_scaled(target, supply) * wide(left.0) / wide(cap.0);
    Amount(u128::try_from(value >> FRACTION_BITS).expect("a reward is at most 100 times its base"))
}

// ---- the ledger's curve ----

/// Opens the book at genesis.
pub(crate) fn open(exec: &mut Exec<'_>, genesis: Amount) {
    let book = Minted { started_ms: exec.now(), genesis, minted: Amount::ZERO };
    MINTED.set(&mut exec.state, &(), &book);
}

pub(crate) fn book(state: &dyn StateRead) -> Minted {
    MINTED.get(state, &()).unwrap_or_default()
}

/// S: what counts as minted by the curve. (T-6)
pub(crate) fn supply(state: &dyn StateRead, params: &Params) -> Amount {
    let book = book(state);
    let genesis = if params.emission_counts_genesis { book.genesis } else { Amount::ZERO };
    book.minted.checked_add(genesis).unwrap_or(Amount::MAX)
}

/// Where the curve stands at a time: time since genesis in ms, target, supply.
fn at(state: &dyn StateRead, params: &Params, now_ms: u64) -> (u64, Amount, Amount) {
    let elapsed_ms = now_ms.saturating_sub(book(state).started_ms);
    let target = target(params.emission_cap, params.emission_halving_ms, elapsed_ms);
    (elapsed_ms, target, supply(state, params))
}

/// Where the curve stands now, and what it gives. (T-6)
pub fn now(state: &dyn StateRead) -> Emission {
    let params = query::params(state);
    let (elapsed_ms, target, supply) = at(state, &params, query::clock(state).time_ms);
    Emission {
        elapsed_ms,
        cap: params.emission_cap,
        target,
        supply,
        multiplier: multiplier(target, supply),
        reward: reward(params.reward_base, params.emission_cap, target, supply),
    }
}

/// What claiming `order` now mints, its treasury and liquidity parts included. (T-6, T-21)
///
/// Only for models that governance enabled, inputs that everybody can have, and seeds that nobody
/// chose.
pub(crate) fn task_reward(exec: &Exec<'_>, order: &Order) -> Amount {
    let params = exec.params;
    if order.seed_by_client || !order.availability.earns() || (params.reward_needs_fee && order.fee.is_zero()) {
        return Amount::ZERO;
    }
    let Some(terms) = registry::model(&exec.state, &order.model).and_then(|model| model.reward) else {
        return Amount::ZERO;
    };
    let (_, target, supply) = at(&exec.state, params, exec.now());
    let per_ppm = u128::from(Ppm::ONE.0);
    let reward = reward(params.reward_base, params.emission_cap, target, supply);
    let mut reward = reward.mul_div_floor(terms.rate.into(), per_ppm).unwrap_or_default();
    if params.reward_metered {
        let size = order.solutions.first().map_or(0, |solution| solution.output_size);
        let (part, whole) = (size.min(terms.unit_bytes), terms.unit_bytes.max(1));
        reward = reward.mul_div_floor(part.into(), whole.into()).unwrap_or_default();
    }
    if params.emission_ceiling > 0 {
        let ceiling = target.mul_div_floor(params.emission_ceiling.into(), per_ppm).unwrap_or(Amount::MAX);
        reward = reward.min(ceiling.saturating_sub(supply));
    }
    reward.min(params.emission_cap.saturating_sub(supply))
}

/// Writes a mint into the book.
pub(crate) fn count(exec: &mut Exec<'_>, amount: Amount) {
    let mut book = book(&exec.state);
    book.minted = book.minted.checked_add(amount).expect("the curve mints at most its cap");
    MINTED.set(&mut exec.state, &(), &book);
}
