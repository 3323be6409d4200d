//! The parameters of a profile: one TOML file, data alone. (§1 Profiles)

use crate::{Amount, Ppm, amount};
use borsh::{BorshDeserialize, BorshSerialize};
use serde::{Deserialize, Serialize};

/// Every governed number of the ledger. Amounts in profiles are written in tokens.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Params {
    /// How much of the time between two blocks counts for windows and votes at most, ms: what a
    /// standstill takes away from nobody. (T-4, T-7)
    pub active_step_ms_max: u64,
    /// How long a solution can be contested, ms of active time. (T-4)
    pub challenge_window_ms: u64,
    /// How long a case takes votes, ms of active time. (T-7)
    pub voting_period_ms: u64,
    /// How long a commitment holds an order open, ms. (T-3)
    pub commitment_expiry_ms: u64,
    /// How long after submission an order can first be cancelled, ms. (T-17)
    pub cancel_after_ms: u64,
    /// How long the provider of a chosen order has to accept it, ms. (T-17)
    pub accept_within_ms: u64,
    /// Shortest and longest time from submission to deadline, ms. (T-17)
    pub deadline_min_ms: u64,
    pub deadline_max_ms: u64,
    /// How long a bond takes to leave, ms; longer than window and vote together. (T-10)
    pub unbonding_ms: u64,
    /// How long finished orders stay in the state, ms.
    pub order_retention_ms: u64,
    /// How long a refuted solver gets no new work, ms. (T-8)
    pub jail_ms: u64,
    /// Unreserved bond below which a provider gets no new work. (T-9)
    #[serde(deserialize_with = "amount::from_tokens", serialize_with = "amount::to_tokens")]
    pub bond_min: Amount,
    /// What the losing side of a case loses of its weight. (T-8)
    pub slash: Ppm,
    /// Share of the slashed amount for the leader of the winning side. (T-8)
    pub slash_leader: Ppm,
    /// Share for the other winning voters by weight; the rest goes to the treasury. (T-8)
    pub slash_jurors: Ppm,
    /// Share of (fee − model fee) for the treasury. (T-5)
    pub treasury_fee: Ppm,
    /// Share of (fee − model fee) for the coordinators. (T-5)
    pub coordinator_fee: Ppm,
    /// Share of (fee − model fee) for each agreement that was asked for. (V-1)
    pub agreement_fee: Ppm,
    /// Most agreements that an order can ask for.
    pub agreements_wanted_max: u8,
    /// Views between an order's inclusion and the beacon that seeds it. (T-2)
    pub seed_delay_views: u64,
    /// Most due items that one block works off. (L-2)
    pub due_items_max: u32,
}

/// Why a set of parameters cannot work together. (T-10, T-18)
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParamsError {
    #[error("{name} = {got} ppm is more than the whole")]
    ShareAboveOne { name: &'static str, got: u32 },
    #[error("{names} add up to {got} ppm, more than the whole")]
    SharesAboveOne { names: &'static str, got: u64 },
    #[error("unbonding_ms = {unbonding_ms} must be longer than challenge_window_ms + voting_period_ms = {disputes_ms}")]
    UnbondingTooShort { unbonding_ms: u64, disputes_ms: u64 },
    #[error("{name} must not be zero")]
    Zero { name: &'static str },
    #[error("deadline_min_ms must be below deadline_max_ms")]
    DeadlineRange,
}

impl Params {
    /// Checks the parameters jointly, as genesis and every later change must. (T-10, T-18)
    ///
    /// # Errors
    /// The first rule that does not hold.
    pub fn validate(&self) -> Result<(), ParamsError> {
        for (name, ppm) in [
            ("slash", self.slash),
            ("slash_leader", self.slash_leader),
            ("slash_jurors", self.slash_jurors),
            ("treasury_fee", self.treasury_fee),
            ("coordinator_fee", self.coordinator_fee),
            ("agreement_fee", self.agreement_fee),
        ] {
            if ppm > Ppm::ONE {
                return Err(ParamsError::ShareAboveOne { name, got: ppm.0 });
            }
        }
        let sum = |names, parts: &[u64]| {
            let got = parts.iter().fold(0u64, |a, b| a.saturating_add(*b));
            if got > u64::from(Ppm::ONE.0) { Err(ParamsError::SharesAboveOne { names, got }) } else { Ok(()) }
        };
        sum("slash_leader + slash_jurors", &[self.slash_leader.0.into(), self.slash_jurors.0.into()])?;
        sum(
            "treasury_fee + coordinator_fee + agreements_wanted_max * agreement_fee",
            &[
                self.treasury_fee.0.into(),
                self.coordinator_fee.0.into(),
                u64::from(self.agreement_fee.0) * u64::from(self.agreements_wanted_max),
            ],
        )?;
        for (name, value) in [
            ("active_step_ms_max", self.active_step_ms_max),
            ("challenge_window_ms", self.challenge_window_ms),
            ("voting_period_ms", self.voting_period_ms),
            ("commitment_expiry_ms", self.commitment_expiry_ms),
            ("accept_within_ms", self.accept_within_ms),
            ("due_items_max", self.due_items_max.into()),
        ] {
            if value == 0 {
                return Err(ParamsError::Zero { name });
            }
        }
        let disputes_ms = self.challenge_window_ms.saturating_add(self.voting_period_ms);
        if self.unbonding_ms <= disputes_ms {
            return Err(ParamsError::UnbondingTooShort { unbonding_ms: self.unbonding_ms, disputes_ms });
        }
        if self.deadline_min_ms >= self.deadline_max_ms {
            return Err(ParamsError::DeadlineRange);
        }
        Ok(())
    }
}
