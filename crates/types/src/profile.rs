//! Profiles: parameters as a TOML file, with a `[dev]` table of windows of seconds and, if the
//! economics depend on it, a `[genesis]` table of first holders. (§1)

use crate::{Amount, Params, amount, params::ParamsError};
use serde::{Deserialize, Serialize};

/// The profile that networks use unless told otherwise.
pub const DEFAULT: &str = include_str!("../../../profiles/default.toml");
/// The DML paper, exactly.
pub const DML: &str = include_str!("../../../profiles/dml.toml");
/// The profiles that the program knows by name.
pub const SHIPPED: [(&str, &str); 2] = [("default", DEFAULT), ("dml", DML)];

/// A profile, read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    pub params: Params,
    pub genesis: GenesisPlan,
}

/// Who holds what at first, by role or address.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GenesisPlan {
    /// Empty: whoever makes the network decides.
    #[serde(default)]
    pub holders: Vec<HolderPlan>,
    /// Providers that vote with weight 1 each while bonds are not required.
    #[serde(default)]
    pub voters: Vec<String>,
}

/// What one account, or each of one role, holds at first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HolderPlan {
    /// An address, or `client`, `maker`, `provider`.
    pub who: String,
    #[serde(deserialize_with = "amount::from_tokens", serialize_with = "amount::to_tokens")]
    pub free: Amount,
    #[serde(default, deserialize_with = "amount::from_tokens", serialize_with = "amount::to_tokens")]
    pub bond: Amount,
}

/// Why a profile was not accepted.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    #[error("the profile is not valid TOML of known parameters: {0}")]
    Malformed(#[from] toml::de::Error),
    #[error("the profile's [{0}] must be a table")]
    NotATable(&'static str),
    #[error("the parameters do not fit together: {0}")]
    Params(#[from] ParamsError),
}

/// Takes a table out of a profile.
fn take_table(table: &mut toml::Table, name: &'static str) -> Result<toml::Table, ProfileError> {
    match table.remove(name) {
        None => Ok(toml::Table::new()),
        Some(toml::Value::Table(inner)) => Ok(inner),
        Some(_) => Err(ProfileError::NotATable(name)),
    }
}

/// The text of a shipped profile.
pub fn shipped(name: &str) -> Option<&'static str> {
    SHIPPED.iter().find(|(shipped, _)| *shipped == name).map(|(_, text)| *text)
}

/// Reads a profile; with `dev`, its `[dev]` values replace the others.
///
/// # Errors
/// If a parameter is missing, unknown, or contradicts another.
pub fn parse(text: &str, dev: bool) -> Result<Profile, ProfileError> {
    parse_with(text, dev, toml::Table::new())
}

/// The same, with parameters that differ from the profile's.
///
/// # Errors
/// As [`parse`].
pub fn parse_with(text: &str, dev: bool, changes: toml::Table) -> Result<Profile, ProfileError> {
    let mut table: toml::Table = toml::from_str(text)?;
    let overrides = take_table(&mut table, "dev")?;
    let genesis = take_table(&mut table, "genesis")?;
    if dev {
        table.extend(overrides);
    }
    table.extend(changes);
    let params: Params = toml::Value::Table(table).try_into()?;
    params.validate()?;
    Ok(Profile { params, genesis: toml::Value::Table(genesis).try_into()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_profile_is_sound_and_its_dev_windows_are_seconds() {
        let params = parse(DEFAULT, false).unwrap().params;
        assert_eq!(params.challenge_window_ms, 3_600_000);
        let dev = parse(DEFAULT, true).unwrap().params;
        assert_eq!((dev.challenge_window_ms, dev.voting_period_ms, dev.commitment_expiry_ms), (8_000, 6_000, 30_000));
        assert_eq!(dev.slash, params.slash);
    }

    #[test]
    fn every_shipped_profile_is_sound_with_and_without_dev_windows() {
        for (name, text) in SHIPPED {
            for dev in [false, true] {
                assert!(parse(text, dev).is_ok(), "{name}: {:?}", parse(text, dev));
            }
        }
    }

    #[test]
    fn the_papers_profile_has_the_papers_numbers() {
        let dml = parse(DML, false).unwrap();
        assert_eq!(dml.params.emission_cap, Amount::tokens(1_000_000));
        assert_eq!((dml.params.slash_leader.0, dml.params.slash_jurors.0), (500_000, 500_000));
        assert_eq!((dml.params.votes_committed, dml.params.seed_from_id), (false, true));
        assert!(!dml.genesis.holders.is_empty() && !dml.genesis.voters.is_empty());
    }

    #[test]
    fn wrong_profiles_say_what_is_wrong() {
        for (change, expected) in [
            ("slash = 125_000", "missing field `slash`"),
            ("unbonding_ms = 259_200_000", "missing field `unbonding_ms`"),
        ] {
            let error = parse(&DEFAULT.replacen(change, "", 1), false).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
        let error = parse(&format!("colour = 1\n{DEFAULT}"), false).unwrap_err().to_string();
        assert!(error.contains("colour"), "{error}");
        let short = DEFAULT.replacen("unbonding_ms = 259_200_000", "unbonding_ms = 5_000", 1);
        assert!(matches!(parse(&short, false), Err(ProfileError::Params(ParamsError::UnbondingTooShort { .. }))));
    }
}
