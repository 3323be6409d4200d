//! Profiles: parameters as a TOML file, with a `[dev]` table of windows of seconds. (§1)

use crate::{Params, params::ParamsError};

/// The profile that networks use unless told otherwise.
pub const DEFAULT: &str = include_str!("../../../profiles/default.toml");

/// Why a profile was not accepted.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    #[error("the profile is not valid TOML of known parameters: {0}")]
    Malformed(#[from] toml::de::Error),
    #[error("the profile's [dev] must be a table")]
    DevNotATable,
    #[error("the parameters do not fit together: {0}")]
    Params(#[from] ParamsError),
}

/// Reads a profile; with `dev`, its `[dev]` values replace the others.
///
/// # Errors
/// If a parameter is missing, unknown, or contradicts another.
pub fn parse(text: &str, dev: bool) -> Result<Params, ProfileError> {
    let mut table: toml::Table = toml::from_str(text)?;
    match table.remove("dev") {
        Some(toml::Value::Table(overrides)) if dev => table.extend(overrides),
        Some(toml::Value::Table(_)) | None => {}
        Some(_) => return Err(ProfileError::DevNotATable),
    }
    let params: Params = toml::Value::Table(table).try_into()?;
    params.validate()?;
    Ok(params)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_profile_is_sound_and_its_dev_windows_are_seconds() {
        let params = parse(DEFAULT, false).unwrap();
        assert_eq!(params.challenge_window_ms, 3_600_000);
        let dev = parse(DEFAULT, true).unwrap();
        assert_eq!((dev.challenge_window_ms, dev.voting_period_ms, dev.commitment_expiry_ms), (8_000, 8_000, 30_000));
        assert_eq!(dev.slash, params.slash);
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
        let short = DEFAULT.replacen("unbonding_ms = 259_200_000", "unbonding_ms = 1", 1);
        assert!(matches!(parse(&short, false), Err(ProfileError::Params(ParamsError::UnbondingTooShort { .. }))));
    }
}
