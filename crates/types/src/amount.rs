//! Money: integer counts of base units, 18 decimals, never a float. (§1 of the protocol)

use borsh::{BorshDeserialize, BorshSerialize};
use ruint::aliases::U256;
use std::{fmt, str::FromStr};

/// An amount of base units; one token is [`Amount::TOKEN`] of them. Arithmetic is checked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, BorshSerialize, BorshDeserialize)]
pub struct Amount(pub u128);

/// A fraction in parts per million, at most one.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    BorshSerialize,
    BorshDeserialize,
    serde::Serialize,
    serde::Deserialize,
)]
#[serde(transparent)]
pub struct Ppm(pub u32);

/// Why a textual amount was not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseAmountError {
    #[error("{0:?} is not an amount: write tokens such as 12 or 0.5, or base units such as 500wei")]
    Malformed(String),
    #[error("{0:?} has more than 18 decimals, the smallest unit")]
    TooPrecise(String),
    #[error("{0:?} is larger than any possible supply")]
    TooLarge(String),
}

impl Amount {
    /// Nothing.
    pub const ZERO: Self = Self(0);
    /// One whole token.
    pub const TOKEN: Self = Self(1_000_000_000_000_000_000);
    /// The largest representable amount.
    pub const MAX: Self = Self(u128::MAX);

    /// `count` whole tokens.
    ///
    /// # Panics
    /// Never for counts below 3.4 × 10^20, which is above every supply; larger counts overflow.
    pub const fn tokens(count: u64) -> Self {
        Self(count as u128 * Self::TOKEN.0)
    }
    /// Sum, or `None` on overflow.
    pub fn checked_add(self, other: Self) -> Option<Self> {
        self.0.checked_add(other.0).map(Self)
    }
    /// Difference, or `None` if `other` is larger.
    pub fn checked_sub(self, other: Self) -> Option<Self> {
        self.0.checked_sub(other.0).map(Self)
    }
    /// Difference, or zero.
    pub fn saturating_sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
    /// ⌊self · part / whole⌋ with a 256-bit product; `None` if `whole` is zero or the result does
    /// not fit.
    pub fn mul_div_floor(self, part: u128, whole: u128) -> Option<Self> {
        let whole = U256::from(whole);
        let quotient = (U256::from(self.0) * U256::from(part)).checked_div(whole)?;
        u128::try_from(quotient).ok().map(Self)
    }
    /// The share `ppm` of this amount, rounded down.
    pub fn share(self, ppm: Ppm) -> Self {
        self.mul_div_floor(u128::from(ppm.0.min(Ppm::ONE.0)), u128::from(Ppm::ONE.0))
            .expect("a share of at most one is not larger than the whole")
    }
    /// True for nothing.
    pub fn is_zero(self) -> bool {
        self.0 == 0
    }
}

impl Ppm {
    /// The whole.
    pub const ONE: Self = Self(1_000_000);
}

impl std::iter::Sum for Amount {
    /// # Panics
    /// On overflow, which no conserved supply can reach.
    fn sum<I: Iterator<Item = Self>>(iter: I) -> Self {
        iter.fold(Self::ZERO, |a, b| a.checked_add(b).expect("the sum of parts of one supply fits"))
    }
}

impl fmt::Display for Amount {
    /// Tokens with as many decimals as needed: `12`, `0.5`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, rest) = (self.0 / Self::TOKEN.0, self.0 % Self::TOKEN.0);
        if rest == 0 {
            return write!(f, "{whole}");
        }
        let decimals = format!("{rest:018}");
        write!(f, "{whole}.{}", decimals.trim_end_matches('0'))
    }
}

impl FromStr for Amount {
    type Err = ParseAmountError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let malformed = || ParseAmountError::Malformed(text.chars().take(60).collect());
        let too_large = || ParseAmountError::TooLarge(text.chars().take(60).collect());
        let digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
        if let Some(units) = text.strip_suffix("wei") {
            if !digits(units) {
                return Err(malformed());
            }
            return units.parse().map(Self).map_err(|_| too_large());
        }
        let (whole, decimals) = text.split_once('.').unwrap_or((text, "0"));
        if !digits(whole) || !digits(decimals) {
            return Err(malformed());
        }
        if decimals.len() > 18 {
            return Err(ParseAmountError::TooPrecise(text.chars().take(60).collect()));
        }
        let whole: u128 = whole.parse().map_err(|_| too_large())?;
        let decimals: u128 = format!("{decimals:0<18}").parse().map_err(|_| malformed())?;
        whole.checked_mul(Self::TOKEN.0).and_then(|units| units.checked_add(decimals)).map(Self).ok_or_else(too_large)
    }
}

impl serde::Serialize for Amount {
    /// Base units as a decimal string: JSON numbers lose digits.
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(&self.0)
    }
}

impl<'de> serde::Deserialize<'de> for Amount {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str> as serde::Deserialize<'de>>::deserialize(d)?;
        text.parse().map(Self).map_err(serde::de::Error::custom)
    }
}

/// Reads an amount written in tokens (`"12.5"`), as profiles and configuration do.
pub fn from_tokens<'de, D: serde::Deserializer<'de>>(d: D) -> Result<Amount, D::Error> {
    let text = <std::borrow::Cow<'de, str> as serde::Deserialize<'de>>::deserialize(d)?;
    text.parse().map_err(serde::de::Error::custom)
}

/// Writes an amount in tokens, the inverse of [`from_tokens`].
pub fn to_tokens<S: serde::Serializer>(amount: &Amount, s: S) -> Result<S::Ok, S::Error> {
    s.collect_str(amount)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn amounts_parse_and_print_as_tokens() {
        for (text, units) in
            [("12", 12 * 10u128.pow(18)), ("0.5", 5 * 10u128.pow(17)), ("7wei", 7), ("0.000000000000000001", 1)]
        {
            assert_eq!(text.parse::<Amount>().unwrap().0, units, "{text}");
        }
        for wrong in ["", ".5", "-1", "1.", "1e3", "0.0000000000000000001", "999999999999999999999999"] {
            assert!(wrong.parse::<Amount>().is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn display_round_trips(units: u128) {
            prop_assert_eq!(Amount(units).to_string().parse::<Amount>().unwrap(), Amount(units));
        }
        #[test]
        fn mul_div_floor_is_the_exact_quotient(a: u64, b: u64, c in 1u64..) {
            let exact = u128::from(a) * u128::from(b) / u128::from(c);
            prop_assert_eq!(Amount(a.into()).mul_div_floor(b.into(), c.into()), Some(Amount(exact)));
        }
    }
}
