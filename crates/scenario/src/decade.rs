//! A decade of emission in a minute: uneven demand, claims in part of each day. (T-6)
//!
//! The curve pays by how far the supply is from its target, whatever the demand: this shows how far
//! it strays. Each claim is paid by the ledger's own functions, one after the other.

use althing_ledger::emission::{reward, target};
use althing_types::{Amount, Params, Ppm};

const DAY_MS: u64 = 86_400_000;
/// Claims come in this part of each day.
const BUSY_FROM_MS: u64 = DAY_MS / 3;
const BUSY_FOR_MS: u64 = DAY_MS / 3;

/// How a simulated day ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Day {
    /// From 1.
    pub number: u64,
    pub target: Amount,
    pub supply: Amount,
    pub claims: u64,
    /// What the day's last claim earned.
    pub reward: Amount,
}

/// A small generator whose numbers are the same everywhere (SplitMix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

/// Claims of a day: a season of 90 days, quiet weekends, chance, and now and then a day of a rush or
/// of nearly nothing.
fn demand(random: &mut Random, day: u64) -> u64 {
    let season = 60 + 2 * (day % 90).abs_diff(45);
    let weekday = if day % 7 < 5 { 3 } else { 2 };
    let usual = season * weekday / 2 + random.below(60);
    match random.below(30) {
        0 => 40 + random.below(20),
        1 => usual * 4,
        _ => usual,
    }
}

/// Plays `days` days; `each_day` is told each.
pub fn decade(params: &Params, days: u64, seed: u64, mut each_day: impl FnMut(Day)) {
    let mut random = Random(seed);
    let mut supply = Amount::ZERO;
    let cap = params.emission_cap;
    for number in 1..=days {
        let start_ms = (number - 1) * DAY_MS + BUSY_FROM_MS;
        let claims = demand(&mut random, number);
        let mut last = Amount::ZERO;
        for index in 0..claims {
            let now_ms = start_ms + BUSY_FOR_MS * index / claims;
            let at = target(cap, params.emission_halving_ms, now_ms);
            last = reward(params.reward_base, cap, at, supply).min(cap.saturating_sub(supply));
            if params.emission_ceiling > 0 {
                let ceiling = at.mul_div_floor(params.emission_ceiling.into(), u128::from(Ppm::ONE.0));
                last = last.min(ceiling.unwrap_or(Amount::MAX).saturating_sub(supply));
            }
            supply = Amount(supply.0.saturating_add(last.0));
        }
        let target = target(cap, params.emission_halving_ms, number * DAY_MS);
        each_day(Day { number, target, supply, claims, reward: last });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use althing_types::profile;

    /// T-6: from day 30 on within 10 % of target, and never beyond the cap.
    #[test]
    fn a_decade_stays_within_ten_percent_of_its_target() {
        for (name, text) in profile::SHIPPED {
            let params = profile::parse(text, false).unwrap().params;
            let mut year = Amount::ZERO;
            decade(&params, 3_650, 1, |day| {
                assert!(day.supply <= params.emission_cap, "{name}: {day:?}");
                let off = day.supply.0.abs_diff(day.target.0);
                assert!(day.number < 30 || off <= day.target.0 / 10, "{name}: {day:?}");
                if day.number == 365 {
                    year = day.target;
                }
            });
            assert_eq!(year, Amount::tokens(500_000), "{name}");
        }
    }
}
