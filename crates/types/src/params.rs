//! The parameters of a profile: every number that governance can change, in one table. (§1 Profiles)
//!
//! The table below is the only place that names a parameter's type, unit, bounds and rules; the
//! struct, TOML, `GET /v1/params`, changes by vote and `docs/parameters.md` all come from it.

use crate::{Amount, Ppm, amount};
use borsh::{BorshDeserialize, BorshSerialize};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::DeserializeOwned};

/// A parameter's value as one number: milliseconds, base units, parts per million, a count, 0 or 1.
pub trait ParamValue: Sized + Serialize + DeserializeOwned {
    /// What the number counts.
    const UNIT: Unit;
    /// The value as a number.
    fn to_number(&self) -> u128;
    /// The value that a number stands for, if there is one.
    fn from_number(number: u128) -> Option<Self>;
    /// Reads it from a profile.
    fn read<'de, D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        <Self as Deserialize>::deserialize(d)
    }
    /// Writes it as a profile does.
    fn write<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        Serialize::serialize(self, s)
    }
}

/// What a parameter's number counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// As its name says: milliseconds, views, items.
    Count,
    /// Base units; profiles write tokens.
    Amount,
    /// Parts per million.
    Ppm,
    /// 0 or 1; profiles write `false` or `true`.
    Flag,
}

macro_rules! param_value {
    ($($ty:ty)*) => { $(
        impl ParamValue for $ty {
            const UNIT: Unit = Unit::Count;
            fn to_number(&self) -> u128 { (*self).into() }
            fn from_number(number: u128) -> Option<Self> { number.try_into().ok() }
        }
    )* };
}
param_value!(u8 u32 u64);

impl ParamValue for bool {
    const UNIT: Unit = Unit::Flag;
    fn to_number(&self) -> u128 {
        (*self).into()
    }
    fn from_number(number: u128) -> Option<Self> {
        (number < 2).then_some(number == 1)
    }
}

impl ParamValue for Ppm {
    const UNIT: Unit = Unit::Ppm;
    fn to_number(&self) -> u128 {
        self.0.into()
    }
    fn from_number(number: u128) -> Option<Self> {
        number.try_into().ok().map(Self)
    }
}

impl ParamValue for Amount {
    const UNIT: Unit = Unit::Amount;
    fn to_number(&self) -> u128 {
        self.0
    }
    fn from_number(number: u128) -> Option<Self> {
        Some(Self(number))
    }
    fn read<'de, D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        amount::from_tokens(d)
    }
    fn write<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        amount::to_tokens(self, s)
    }
}

fn read<'de, T: ParamValue, D: Deserializer<'de>>(d: D) -> Result<T, D::Error> {
    T::read(d)
}

fn write<T: ParamValue, S: Serializer>(value: &T, s: S) -> Result<S::Ok, S::Error> {
    value.write(s)
}

/// One row of the table of parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct ParamInfo {
    pub name: &'static str,
    pub unit: Unit,
    /// Smallest and largest value that genesis or a vote can give it, in its unit.
    pub min: u128,
    pub max: u128,
    /// The rules that it belongs to.
    pub rules: &'static str,
    pub meaning: &'static str,
}

macro_rules! params {
    ($($name:ident: $ty:ty, $min:expr, $max:expr, $rules:literal, $meaning:literal;)*) => {
        /// Every governed number of the ledger. Amounts in profiles are written in tokens.
        #[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
        #[serde(deny_unknown_fields)]
        pub struct Params {
            $(
                #[doc = concat!($meaning, ". (", $rules, ")")]
                #[serde(deserialize_with = "read", serialize_with = "write")]
                pub $name: $ty,
            )*
        }

        /// The table of all parameters, in their order.
        pub const PARAMS: &[ParamInfo] = &[$(ParamInfo {
            name: stringify!($name),
            unit: <$ty as ParamValue>::UNIT,
            min: $min,
            max: $max,
            rules: $rules,
            meaning: $meaning,
        },)*];

        impl Params {
            /// A parameter's number, by name.
            pub fn get(&self, name: &str) -> Option<u128> {
                match name {
                    $(stringify!($name) => Some(self.$name.to_number()),)*
                    _ => None,
                }
            }
            /// Changes a parameter by name; whether it fits the others is [`Self::validate`]'s business.
            ///
            /// # Errors
            /// If there is no such parameter, or the number is out of its bounds.
            pub fn set(&mut self, name: &str, number: u128) -> Result<(), ParamsError> {
                match name {
                    $(stringify!($name) => {
                        let out_of_range = ParamsError::OutOfRange { name: stringify!($name), got: number, min: $min, max: $max };
                        let range: std::ops::RangeInclusive<u128> = $min..=$max;
                        let value = ParamValue::from_number(number).filter(|_| range.contains(&number));
                        self.$name = value.ok_or(out_of_range)?;
                    })*
                    _ => return Err(ParamsError::Unknown { name: name.chars().take(64).collect() }),
                }
                Ok(())
            }
        }
    };
}

const SECOND: u128 = 1_000;
const DAY: u128 = 86_400_000;
const YEAR: u128 = 365 * DAY;
const ONE: u128 = 1_000_000;
const TOKEN: u128 = Amount::TOKEN.0;
/// No governed amount is larger: a billion billions of tokens.
const AMOUNT_MAX: u128 = 1_000_000_000_000 * TOKEN;

params! {
    // Windows.
    active_step_ms_max: u64, 1, DAY, "T-4, T-7", "How much of the time between two blocks counts for windows and votes at most: what a standstill takes away from nobody";
    challenge_window_ms: u64, SECOND, 30 * DAY, "T-4", "How long a solution can be contested, in active time";
    voting_period_ms: u64, SECOND, 30 * DAY, "T-7", "How long a dispute takes votes, in active time";
    opening_period_ms: u64, SECOND, 30 * DAY, "T-7", "How long committed votes can be opened after the voting period, in active time";
    commitment_expiry_ms: u64, SECOND, 30 * DAY, "T-3", "How long a commitment holds an order open";
    cancel_after_ms: u64, 0, 30 * DAY, "T-17", "How long after submission an order can first be cancelled";
    accept_within_ms: u64, SECOND, 30 * DAY, "T-17", "How long the provider of a chosen order has to accept it";
    deadline_min_ms: u64, 0, 365 * DAY, "T-17", "Shortest time from submission to deadline";
    deadline_max_ms: u64, SECOND, 365 * DAY, "T-17", "Longest time from submission to deadline";
    unbonding_ms: u64, SECOND, 365 * DAY, "T-10", "How long bonds and delegations take to leave; longer than all periods of a dispute together";
    order_retention_ms: u64, SECOND, 365 * DAY, "L-1", "How long finished orders stay in the state; the node's history keeps them";
    jail_ms: u64, 0, 365 * DAY, "T-8", "How long a refuted solver gets no new work";

    // Bonds.
    bond_min: Amount, 0, AMOUNT_MAX, "T-9", "Unreserved stake below which a provider gets no new work";
    bond_supply_share: Ppm, 0, ONE, "T-9", "The same as a share of the supply issued; the larger of the two counts";
    bonds_from_supply: Amount, 0, AMOUNT_MAX, "T-9", "Supply issued from which bonds are required; below it the genesis' providers vote with weight 1 each";
    slashing_from_supply: Amount, 0, AMOUNT_MAX, "T-8", "Supply issued from which losers of disputes are slashed";
    commission_notice_ms: u64, 0, 365 * DAY, "T-10", "How long ahead a provider announces a change of its commission";

    // Disputes.
    slash: Ppm, 0, ONE / 2, "T-8", "What the losing side of a dispute loses of its weight";
    slash_leader: Ppm, 0, ONE, "T-8", "Share of the slashed amount for the leader of the winning side";
    slash_jurors: Ppm, 0, ONE, "T-8", "Share for the other winning voters by weight; the rest goes to the treasury";
    votes_committed: bool, 0, 1, "T-7", "Whether votes are commitments, opened after the voting period, with a jury and a quorum; else they are open and everybody votes";
    jury_seats: u32, 1, 64, "T-7", "Jurors drawn for a dispute with committed votes";
    jury_seats_redrawn: u32, 1, 64, "T-7", "Jurors of the larger jury, drawn once if the first misses its quorum";
    jury_quorum: Ppm, 0, ONE, "T-7", "Share of the jury's weight that must be opened before an answer can be refuted";

    // Fees.
    treasury_fee: Ppm, 0, ONE, "T-5", "Share of the fee without the model's for the treasury";
    coordinator_fee: Ppm, 0, ONE, "T-5", "Share of the fee without the model's for the coordinators";
    agreement_fee: Ppm, 0, ONE, "V-1", "Share of the fee without the model's for each agreement that was asked for";
    agreements_wanted_max: u8, 0, 8, "V-1", "Most agreements that an order can ask for";

    // Runs.
    seed_delay_views: u64, 0, 1_000, "T-2", "Views between an order's inclusion and the beacon that seeds it";
    seed_from_id: bool, 0, 1, "T-2", "Whether an order's id alone gives its seed, as in the paper";
    claim_calls: bool, 0, 1, "T-4", "Whether solvers may also claim by a call";

    // Emission.
    emission_cap: Amount, 0, AMOUNT_MAX, "T-6", "Most that the curve ever mints; 0 for no emission";
    emission_halving_ms: u64, SECOND, 100 * YEAR, "T-6", "Time in which half of what is left is minted";
    emission_counts_genesis: bool, 0, 1, "T-6", "Whether balances at genesis count as minted by the curve";
    emission_ceiling: u32, 0, 10 * ONE, "T-6", "Parts per million of the target beyond which nothing is minted; 0 for no such limit";
    reward_base: Amount, 0, AMOUNT_MAX, "T-6", "Reward of a task when the supply is on target and nothing is minted yet";
    reward_metered: bool, 0, 1, "T-6", "Whether a run earns by its size, up to the unit that governance set for its model";
    reward_needs_fee: bool, 0, 1, "T-21", "Whether only orders with a fee earn a reward";
    input_sample: u32, 0, 64, "T-21", "Coordinators drawn to fetch an input that is not in its order, before its seed exists; 0: such orders earn no reward";
    input_quorum: Ppm, 0, ONE, "T-21", "Share of the coordinators drawn that must have fetched the input";
    input_show_ms: u64, SECOND, DAY, "T-21", "How long they have; the seed is drawn then at the latest";
    reward_treasury: Ppm, 0, ONE, "T-6", "Share of each mint for the treasury";
    reward_liquidity: Ppm, 0, ONE, "T-6", "Share of each mint for the liquidity drip";
    liquidity_drip_ms: u64, SECOND, 10 * YEAR, "E-2", "Time scale in which the liquidity drip is paid out";

    // Governance.
    proposal_threshold: Ppm, 0, ONE, "G-1", "Share of the votable supply that a proposer must command";
    proposal_delay_ms: u64, 0, 365 * DAY, "G-1", "From proposal to the start of its vote";
    proposal_voting_ms: u64, SECOND, 365 * DAY, "G-1", "How long a proposal is voted on";
    proposal_timelock_ms: u64, 0, 365 * DAY, "G-1", "From queueing to the earliest execution";
    proposal_grace_ms: u64, SECOND, 365 * DAY, "G-1", "How long an accepted or queued proposal can be taken further before it expires";
    proposal_quorum: Ppm, 0, ONE, "G-1", "Share of the votable supply that must vote for or abstain";
    proposal_quorum_min: Amount, 0, AMOUNT_MAX, "G-1", "The same as an amount; the larger of the two counts";
    dao_voting_ms: u64, SECOND, 365 * DAY, "T-14", "How long holders of a model's shares vote on its terms";
    dao_quorum: Ppm, 0, ONE, "T-14", "Share of a model's shares that must vote for new terms";

    // Costs and limits.
    base_fee_byte: Amount, 0, TOKEN, "L-1", "Fee of a transaction for each of its bytes";
    base_fee_unit: Amount, 0, TOKEN, "L-1", "Fee of a transaction for each operation unit of its call";
    deposit_object: Amount, 0, AMOUNT_MAX, "L-1", "Deposit for a stored object, given back when it leaves the state";
    block_units_max: u64, 1_000, 1_000_000_000, "L-1", "Operation units that one block executes at most";
    due_items_max: u32, 1, 100_000, "L-2", "Due items of a kind that one block works off at most";
}

/// Why a set of parameters cannot work together. (T-10, T-18)
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParamsError {
    #[error("there is no parameter {name:?}")]
    Unknown { name: String },
    #[error("{name} = {got} is not between {min} and {max}")]
    OutOfRange { name: &'static str, got: u128, min: u128, max: u128 },
    #[error("{names} add up to {got} ppm, more than the whole")]
    SharesAboveOne { names: &'static str, got: u64 },
    #[error("unbonding_ms = {unbonding_ms} must be longer than the periods of a dispute together = {disputes_ms}")]
    UnbondingTooShort { unbonding_ms: u64, disputes_ms: u64 },
    #[error("deadline_min_ms must be below deadline_max_ms")]
    DeadlineRange,
    #[error("jury_seats_redrawn = {redrawn} must be more than jury_seats = {seats}")]
    JuryNotLarger { seats: u32, redrawn: u32 },
}

impl Params {
    /// Checks the parameters jointly, as genesis and every later change must. (T-10, T-18)
    ///
    /// # Errors
    /// The first rule that does not hold.
    pub fn validate(&self) -> Result<(), ParamsError> {
        for info in PARAMS {
            let got = self.get(info.name).unwrap_or_default();
            if got < info.min || got > info.max {
                return Err(ParamsError::OutOfRange { name: info.name, got, min: info.min, max: info.max });
            }
        }
        let sum = |names, parts: &[u64]| {
            let got = parts.iter().fold(0u64, |a, b| a.saturating_add(*b));
            if got > u64::from(Ppm::ONE.0) { Err(ParamsError::SharesAboveOne { names, got }) } else { Ok(()) }
        };
        sum("slash_leader + slash_jurors", &[self.slash_leader.0.into(), self.slash_jurors.0.into()])?;
        sum("reward_treasury + reward_liquidity", &[self.reward_treasury.0.into(), self.reward_liquidity.0.into()])?;
        sum(
            "treasury_fee + coordinator_fee + agreements_wanted_max * agreement_fee",
            &[
                self.treasury_fee.0.into(),
                self.coordinator_fee.0.into(),
                u64::from(self.agreement_fee.0) * u64::from(self.agreements_wanted_max),
            ],
        )?;
        let disputes_ms = self.claim_lifetime_ms();
        if self.unbonding_ms <= disputes_ms {
            return Err(ParamsError::UnbondingTooShort { unbonding_ms: self.unbonding_ms, disputes_ms });
        }
        if self.deadline_min_ms >= self.deadline_max_ms {
            return Err(ParamsError::DeadlineRange);
        }
        if self.votes_committed && self.jury_seats_redrawn <= self.jury_seats {
            return Err(ParamsError::JuryNotLarger { seats: self.jury_seats, redrawn: self.jury_seats_redrawn });
        }
        Ok(())
    }

    /// How long a claim on a bond can last once it is made, in active time: its window, and a
    /// dispute opened at the end of it, with its redraw. (T-10)
    pub fn claim_lifetime_ms(&self) -> u64 {
        let rounds = if self.votes_committed { 2 } else { 1 };
        let opening_ms = if self.votes_committed { self.opening_period_ms } else { 0 };
        let round_ms = self.voting_period_ms.saturating_add(opening_ms);
        self.challenge_window_ms.saturating_add(round_ms.saturating_mul(rounds))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile;

    #[test]
    fn every_parameter_can_be_read_and_set_by_name_within_its_bounds() {
        let params = profile::parse(profile::DEFAULT, false).unwrap().params;
        for info in PARAMS {
            let mut changed = params.clone();
            let number = params.get(info.name).unwrap();
            for edge in [info.min, info.max, number] {
                changed.set(info.name, edge).unwrap();
                assert_eq!(changed.get(info.name), Some(edge), "{}", info.name);
            }
            assert_eq!(changed, params, "{} changes nothing else", info.name);
            let above = changed.set(info.name, info.max + 1);
            assert!(matches!(above, Err(ParamsError::OutOfRange { .. })), "{}", info.name);
        }
        assert!(matches!(params.clone().set("colour", 1), Err(ParamsError::Unknown { .. })));
    }

    #[test]
    fn parameters_are_checked_jointly() {
        // T-10, T-18
        let good = profile::parse(profile::DEFAULT, false).unwrap().params;
        let with = |name: &str, number| {
            let mut params = good.clone();
            params.set(name, number).unwrap();
            params.validate().unwrap_err()
        };
        assert!(matches!(with("unbonding_ms", 2 * DAY / 24), ParamsError::UnbondingTooShort { .. }));
        assert!(matches!(with("slash_leader", 900_000), ParamsError::SharesAboveOne { .. }));
        assert!(matches!(with("reward_treasury", 950_000), ParamsError::SharesAboveOne { .. }));
        assert!(matches!(with("agreement_fee", 300_000), ParamsError::SharesAboveOne { .. }));
        assert!(matches!(with("deadline_max_ms", 1_000), ParamsError::DeadlineRange));
        assert!(matches!(with("jury_seats", 64), ParamsError::JuryNotLarger { .. }));
    }
}
