//! Which work pays: the provider's profit policy. (T-12)
//!
//! Terms: an **offer** is what the ledger and this machine say about one piece of work; an
//! **appraisal** is what a policy makes of it, term by term; **first** means among those whom the
//! ledger pays: the one whose answer stands, or one of the agreements that were asked for.
//!
//! ```text
//! profit  = (fee + reward) · chance − compute − transactions − at risk         taken if positive
//! chance  = places / (1 + committed + others · 2^(−age/typical))               at most 1
//! compute = cost of an hour · run time                                         rounded up
//! at risk = stake · slash share · error probability
//! ```
//!
//! `others` are the rivals that have not committed, `typical` is how long an order takes: a run as this
//! machine measured it, and the blocks of seed, commitment and reveal. Each such time that passes
//! without an answer halves how many of the rivals are believed to be at work, so older orders have a
//! better chance. Integer arithmetic, the same bits everywhere. `docs/provider-policy.md` has an
//! example and every setting.
//!
//! A [`Policy`] is pure and replaceable: `ProviderConfig::policy` takes any.

use althing_types::{
    Amount, Ppm,
    amount::{from_tokens, to_tokens},
};
use serde::{Deserialize, Serialize};
use std::{fmt, sync::Arc};

/// What an order takes beside the run: seed, commitment and reveal come in later blocks each, ms.
pub const ROUND_MS: u64 = 2_000;
/// How long a run is taken to be before the first one was measured, ms.
pub const RUN_MS_ASSUMED: u64 = 1_000;
const HOUR_MS: u128 = 3_600_000;
const ONE: u128 = Ppm::ONE.0 as u128;

/// A kind of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Task {
    /// Answer an order of the open lane. (T-3)
    Solve,
    /// Confirm an answer by a run of one's own. (V-1)
    Agree,
    /// Contest or vote. Never refused for profit, so policies are not asked. (T-7, T-11)
    Dispute,
}

impl Task {
    /// `solve`, `agree` or `dispute`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Solve => "solve",
            Self::Agree => "agree",
            Self::Dispute => "dispute",
        }
    }
}

/// One piece of work and what is known about it. Amounts are this provider's own: the parts of its
/// delegators are off already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    pub task: Task,
    /// Own part of the fee for who is first.
    pub fee: Amount,
    /// Own part of the minted reward for who is first, as the curve stands now. (T-6)
    pub reward: Amount,
    /// How many are paid: one answer, or the agreements that are still wanted.
    pub places: u32,
    /// Other providers that could do it: those that say they serve the model. (T-13)
    pub rivals: u32,
    /// Those of them that have committed already.
    pub committed: u32,
    /// How long it has been there, ms.
    pub age_ms: u64,
    /// A run of the model on this machine, ms; `None` before the first.
    pub run_ms: Option<u64>,
    /// Base fees of the transactions that it takes. (L-1)
    pub transactions: Amount,
    /// Free balance: what those are paid from.
    pub free: Amount,
    /// Stake that stands behind the claim, and the share of it that a refuted claim loses. (T-9)
    pub stake: Amount,
    pub slash: Ppm,
}

/// What a policy makes of an offer, term by term.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Appraisal {
    /// Own part of fee and reward for who is first.
    pub fee: Amount,
    pub reward: Amount,
    /// Of being first.
    pub chance: Ppm,
    /// (fee + reward) · chance.
    pub expected: Amount,
    pub compute: Amount,
    pub transactions: Amount,
    pub at_risk: Amount,
    /// Expected less all costs, base units.
    #[serde(with = "signed")]
    pub profit: i128,
    /// Whether the work is taken.
    pub take: bool,
    /// Why, for people.
    pub reason: String,
}

/// Decides which work is done. Pure: the same offer gives the same appraisal. (T-12)
pub trait Policy: fmt::Debug + Send + Sync + 'static {
    /// Weighs an offer before anything is spent on it. It is not asked again once the model ran: what
    /// that cost is spent, and the result is put to use.
    fn appraise(&self, offer: &Offer) -> Appraisal;
}

/// A policy that comes with the program, by its name in settings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PolicyName {
    /// [`ProfitPolicy`].
    #[default]
    Profit,
    /// [`VolunteerPolicy`].
    Volunteer,
}

impl PolicyName {
    /// The policy with its numbers.
    pub fn policy(self, numbers: ProfitPolicy) -> Arc<dyn Policy> {
        match self {
            Self::Profit => Arc::new(numbers),
            Self::Volunteer => Arc::new(VolunteerPolicy(numbers)),
        }
    }
}

/// Takes what is expected to leave a profit. (T-12)
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ProfitPolicy {
    /// Least own earning, fee and reward, from an order for which it runs, whatever its chance.
    #[serde(deserialize_with = "from_tokens", serialize_with = "to_tokens")]
    pub earning_min: Amount,
    /// What an hour in which a model runs costs.
    #[serde(deserialize_with = "from_tokens", serialize_with = "to_tokens")]
    pub compute_cost_per_hour: Amount,
    /// How likely an own answer is wrong all the same; nothing for models that are exact.
    pub error_ppm: Ppm,
}

/// Does all the work there is, also for nothing, and appraises it as [`ProfitPolicy`] does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VolunteerPolicy(pub ProfitPolicy);

/// Of the rivals that have not committed, those believed to be at work: halves with every typical
/// time, linearly between.
fn at_work(age_ms: u64, typical_ms: u64) -> Ppm {
    let (times, rest_ms) = (age_ms / typical_ms.max(1), age_ms % typical_ms.max(1));
    let high = u32::try_from(times).ok().and_then(|times| Ppm::ONE.0.checked_shr(times)).unwrap_or(0);
    let fall = u64::from(high - high / 2).saturating_mul(rest_ms) / typical_ms.max(1);
    Ppm(high - u32::try_from(fall).unwrap_or(high))
}

/// The chance of being first. (T-12)
pub fn chance(offer: &Offer) -> Ppm {
    let typical_ms = offer.run_ms.unwrap_or(RUN_MS_ASSUMED).saturating_add(ROUND_MS);
    let others = u128::from(offer.rivals.saturating_sub(offer.committed));
    let against = u128::from(offer.committed) * ONE + others * u128::from(at_work(offer.age_ms, typical_ms).0);
    let chance = u128::from(offer.places) * ONE * ONE / (ONE + against);
    Ppm(u32::try_from(chance.min(ONE)).unwrap_or(Ppm::ONE.0))
}

fn sum(a: Amount, b: Amount) -> Amount {
    a.checked_add(b).unwrap_or(Amount::MAX)
}

fn signed_of(amount: Amount) -> i128 {
    i128::try_from(amount.0).unwrap_or(i128::MAX)
}

impl ProfitPolicy {
    /// What a run costs, rounded up.
    fn compute(&self, run_ms: u64) -> Amount {
        Amount(self.compute_cost_per_hour.0.saturating_mul(run_ms.into()).div_ceil(HOUR_MS))
    }

    /// The formula's terms, undecided.
    fn terms(&self, offer: &Offer) -> Appraisal {
        let chance = chance(offer);
        let expected = sum(offer.fee, offer.reward).share(chance);
        let compute = self.compute(offer.run_ms.unwrap_or(RUN_MS_ASSUMED));
        let at_risk = offer.stake.share(offer.slash).share(self.error_ppm);
        let costs = sum(sum(compute, offer.transactions), at_risk);
        Appraisal {
            fee: offer.fee,
            reward: offer.reward,
            chance,
            expected,
            compute,
            transactions: offer.transactions,
            at_risk,
            profit: signed_of(expected).saturating_sub(signed_of(costs)),
            take: false,
            reason: String::new(),
        }
    }
}

impl Policy for ProfitPolicy {
    fn appraise(&self, offer: &Offer) -> Appraisal {
        let terms = self.terms(offer);
        let earning = sum(offer.fee, offer.reward);
        if offer.free < offer.transactions {
            let (free, cost) = (brief(signed_of(offer.free)), brief(signed_of(offer.transactions)));
            let reason = format!("left: {free} ALTH are free, and its transactions cost {cost}");
            return Appraisal { reason, ..terms };
        }
        // A floor on orders alone: agreements are paid by shares of fees that were worth it.
        if offer.task == Task::Solve && earning < self.earning_min {
            let (earning, least) = (brief(signed_of(earning)), brief(signed_of(self.earning_min)));
            let reason = format!("left: it pays {earning} ALTH, and earning_min is {least}");
            return Appraisal { reason, ..terms };
        }
        let take = terms.profit > 0;
        Appraisal { take, reason: format!("{}: {}", if take { "taken" } else { "left" }, terms.sentence()), ..terms }
    }
}

impl Policy for VolunteerPolicy {
    fn appraise(&self, offer: &Offer) -> Appraisal {
        let terms = self.0.terms(offer);
        Appraisal { take: true, reason: format!("taken whatever it pays: {}", terms.sentence()), ..terms }
    }
}

impl Appraisal {
    /// The terms as a sentence.
    fn sentence(&self) -> String {
        let reward = if self.reward.is_zero() { String::new() } else { format!(" and {} reward", self.in_words().1) };
        let (fee, _) = self.in_words();
        let expected = brief(signed_of(self.expected));
        let costs = [(self.compute, "compute"), (self.transactions, "transactions"), (self.at_risk, "at risk")];
        let costs: Vec<_> = costs
            .iter()
            .filter(|(amount, _)| !amount.is_zero())
            .map(|(amount, name)| format!("{} {name}", brief(signed_of(*amount))))
            .collect();
        let costs = if costs.is_empty() { "no costs".into() } else { costs.join(", ") };
        let result = match self.profit {
            0 => "leaves nothing".into(),
            profit if profit > 0 => format!("leaves {} ALTH", brief(profit)),
            loss => format!("loses {} ALTH", brief(loss.saturating_neg())),
        };
        format!("{fee} fee{reward} at a chance of {} is {expected}; less {costs} it {result}", percent(self.chance))
    }

    fn in_words(&self) -> (String, String) {
        (brief(signed_of(self.fee)), brief(signed_of(self.reward)))
    }
}

/// Tokens for people: nine decimals, or all of them where nine show nothing.
pub fn brief(units: i128) -> String {
    const NANO: u128 = 1_000_000_000;
    let (sign, units) = (if units < 0 { "-" } else { "" }, units.unsigned_abs());
    let shown = if units < NANO { units } else { units / NANO * NANO };
    format!("{sign}{}", Amount(shown))
}

/// `12.5 %`.
pub fn percent(part: Ppm) -> String {
    let tenths = part.0 / 1_000;
    if tenths.is_multiple_of(10) { format!("{} %", tenths / 10) } else { format!("{}.{} %", tenths / 10, tenths % 10) }
}

/// Serde helper: signed base units as a decimal string, since JSON numbers lose digits.
mod signed {
    use serde::{Deserialize as _, Deserializer, Serializer};
    pub fn serialize<S: Serializer>(number: &i128, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(number)
    }
    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<i128, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(d)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLI: u128 = Amount::TOKEN.0 / 1_000;

    fn milli(count: u128) -> Amount {
        Amount(count * MILLI)
    }

    /// A fresh order with three rivals: a chance of a quarter.
    fn offer() -> Offer {
        Offer {
            task: Task::Solve,
            fee: milli(8),
            reward: Amount::ZERO,
            places: 1,
            rivals: 3,
            committed: 0,
            age_ms: 0,
            run_ms: Some(2_000),
            transactions: Amount::ZERO,
            free: Amount::tokens(1),
            stake: Amount::tokens(100),
            slash: Ppm(125_000),
        }
    }

    #[test]
    fn each_offer_has_its_appraisal() {
        // T-12
        let free = ProfitPolicy::default();
        // Two seconds for a thousandth of a token.
        let paid = ProfitPolicy { compute_cost_per_hour: milli(1_800), ..free.clone() };
        let floor = ProfitPolicy { earning_min: milli(10), ..free.clone() };
        let unsure = ProfitPolicy { error_ppm: Ppm(100), ..free.clone() };
        let aged = |typical: u64| Offer { age_ms: typical * 4_000, ..offer() };
        let agree = Offer { task: Task::Agree, ..offer() };
        let rows: Vec<(&str, &ProfitPolicy, Offer, u32, i128, bool)> = vec![
            ("four providers share the chance", &free, offer(), 250_000, 2_000, true),
            ("who is alone will be first", &free, Offer { rivals: 0, ..offer() }, 1_000_000, 8_000, true),
            ("after one typical time half of the rivals gave up", &free, aged(1), 400_000, 3_200, true),
            ("after two, three quarters of them", &free, aged(2), 571_428, 4_571, true),
            ("between, the chance grows steadily", &free, Offer { age_ms: 2_000, ..offer() }, 307_692, 2_461, true),
            ("an old order is nobody's any more", &free, aged(100), 1_000_000, 8_000, true),
            (
                "who committed does not give up",
                &free,
                Offer { committed: 3, age_ms: 400_000, ..offer() },
                250_000,
                2_000,
                true,
            ),
            ("commitments of strangers count", &free, Offer { committed: 7, ..offer() }, 125_000, 1_000, true),
            ("T-6: a reward counts like a fee", &free, Offer { reward: milli(8), ..offer() }, 250_000, 4_000, true),
            ("compute is paid for won and lost races", &paid, offer(), 250_000, 1_000, true),
            ("a low fee does not pay it", &paid, Offer { fee: milli(3), ..offer() }, 250_000, -250, false),
            ("the same order pays once it is old", &paid, Offer { fee: milli(3), ..aged(2) }, 571_428, 714, true),
            ("a slow machine leaves it", &paid, Offer { run_ms: Some(20_000), ..offer() }, 250_000, -8_000, false),
            (
                "before the first run a second is assumed",
                &paid,
                Offer { run_ms: None, ..offer() },
                250_000,
                1_500,
                true,
            ),
            (
                "L-1: transactions cost",
                &free,
                Offer { fee: Amount::ZERO, transactions: milli(1), ..offer() },
                250_000,
                -1_000,
                false,
            ),
            (
                "L-1: what cannot be sent is not run",
                &free,
                Offer { transactions: milli(1), free: Amount::ZERO, ..offer() },
                250_000,
                1_000,
                false,
            ),
            ("nothing for nothing", &free, Offer { fee: Amount::ZERO, ..offer() }, 250_000, 0, false),
            ("what is below the floor is left", &floor, offer(), 250_000, 2_000, false),
            ("the floor counts rewards", &floor, Offer { reward: milli(2), ..offer() }, 250_000, 2_500, true),
            ("T-9: doubt puts the stake at risk", &unsure, offer(), 250_000, 2_000 - 1_250, true),
            (
                "T-9: a large stake is not risked for little",
                &unsure,
                Offer { stake: Amount::tokens(1_000), ..offer() },
                250_000,
                2_000 - 12_500,
                false,
            ),
            ("V-1: agreements have no floor", &floor, agree.clone(), 250_000, 2_000, true),
            ("V-1: two places double the chance", &free, Offer { places: 2, ..agree.clone() }, 500_000, 4_000, true),
            ("V-1: enough for all is certain", &free, Offer { places: 4, ..agree.clone() }, 1_000_000, 8_000, true),
            ("V-1: none left is worth nothing", &free, Offer { places: 0, ..agree }, 0, 0, false),
        ];
        for (what, policy, offer, chance, micro, take) in rows {
            let appraisal = policy.appraise(&offer);
            let units = appraisal.profit.div_euclid(i128::try_from(MILLI / 1_000).unwrap());
            assert_eq!((appraisal.chance, units, appraisal.take), (Ppm(chance), micro, take), "{what}");
            assert!(
                appraisal.reason.starts_with(if take { "taken: " } else { "left: " }),
                "{what}: {}",
                appraisal.reason
            );
        }
    }

    #[test]
    fn the_reason_says_every_term() {
        // T-12
        let policy = ProfitPolicy { compute_cost_per_hour: milli(1_800), error_ppm: Ppm(100), ..Default::default() };
        let offer = Offer { reward: milli(4), transactions: Amount(MILLI / 10), ..offer() };
        assert_eq!(
            policy.appraise(&offer).reason,
            "taken: 0.008 fee and 0.004 reward at a chance of 25 % is 0.003; \
             less 0.001 compute, 0.0001 transactions, 0.00125 at risk it leaves 0.00065 ALTH"
        );
        let nothing = Offer { fee: Amount::ZERO, ..self::offer() };
        let reason = ProfitPolicy::default().appraise(&nothing).reason;
        assert_eq!(reason, "left: 0 fee at a chance of 25 % is 0; less no costs it leaves nothing");
    }

    #[test]
    fn a_volunteer_takes_what_does_not_pay() {
        let nothing = Offer { fee: Amount::ZERO, transactions: milli(1), ..offer() };
        let appraisal = PolicyName::Volunteer.policy(ProfitPolicy::default()).appraise(&nothing);
        assert!(appraisal.take && appraisal.profit < 0);
        assert!(!PolicyName::Profit.policy(ProfitPolicy::default()).appraise(&nothing).take);
    }

    #[test]
    fn older_better_paid_and_less_contested_work_is_never_worth_less() {
        // T-12
        let policy = ProfitPolicy { compute_cost_per_hour: milli(1_800), error_ppm: Ppm(50), ..Default::default() };
        let profit = |offer: &Offer| policy.appraise(offer).profit;
        let ages = (0..100u64).map(|step| step * 379);
        let sweep = |offers: Vec<Offer>, what: &str| {
            assert!(offers.windows(2).all(|pair| profit(&pair[0]) <= profit(&pair[1])), "{what}");
        };
        for rivals in [0, 1, 2, 7, 100] {
            for committed in [0, 1, 3] {
                let base = Offer { rivals, committed, ..offer() };
                sweep(ages.clone().map(|age_ms| Offer { age_ms, ..base.clone() }).collect(), "age");
                for age_ms in ages.clone().step_by(9) {
                    let base = Offer { age_ms, ..base.clone() };
                    sweep((0..50).map(|fee| Offer { fee: milli(fee), ..base.clone() }).collect(), "fee");
                    sweep((0..50).map(|reward| Offer { reward: milli(reward), ..base.clone() }).collect(), "reward");
                    sweep((0..50).rev().map(|rivals| Offer { rivals, ..base.clone() }).collect(), "rivals");
                    sweep((0..50).rev().map(|committed| Offer { committed, ..base.clone() }).collect(), "committed");
                    sweep((0..9).map(|places| Offer { places, ..base.clone() }).collect(), "places");
                }
            }
        }
    }

    #[test]
    fn extreme_offers_do_not_overflow() {
        let most = Offer {
            fee: Amount::MAX,
            reward: Amount::MAX,
            places: u32::MAX,
            rivals: u32::MAX,
            committed: u32::MAX,
            age_ms: u64::MAX,
            run_ms: Some(u64::MAX),
            transactions: Amount::MAX,
            free: Amount::MAX,
            stake: Amount::MAX,
            ..offer()
        };
        let policy =
            ProfitPolicy { earning_min: Amount::ZERO, compute_cost_per_hour: Amount::MAX, error_ppm: Ppm::ONE };
        assert_eq!(policy.appraise(&most).profit, 0);
        assert!(policy.appraise(&Offer { places: 0, ..most }).profit < 0);
    }

    #[test]
    fn appraisals_are_read_back_as_they_were_written() {
        let appraisal = ProfitPolicy::default().appraise(&Offer { transactions: milli(9), ..offer() });
        let text = serde_json::to_string(&appraisal).unwrap();
        assert!(text.contains("\"profit\":\"-7000000000000000\""), "{text}");
        assert_eq!(serde_json::from_str::<Appraisal>(&text).unwrap(), appraisal);
    }
}
