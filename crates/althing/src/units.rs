//! Numbers as people write and read them: percentages, amounts of assets, times to come.

use althing_types::{Amount, AssetId, Ppm};
use anyhow::{Context as _, Result, bail};

/// A percentage such as 12.5 in parts per million; above 100 % too.
///
/// # Errors
/// If it has more than four decimals, or is larger than any rate.
pub fn percent_to_ppm(percent: Amount) -> Result<u32> {
    let unit = Amount::TOKEN.0 / 10_000;
    if !percent.0.is_multiple_of(unit) {
        bail!("{percent} % has more than four decimals");
    }
    u32::try_from(percent.0 / unit).with_context(|| format!("{percent} % is too large"))
}

/// The same for a part of a whole.
///
/// # Errors
/// If it is more than 100 %, too.
pub fn percent_of_whole(percent: Amount) -> Result<Ppm> {
    match percent_to_ppm(percent)? {
        ppm if ppm <= Ppm::ONE.0 => Ok(Ppm(ppm)),
        _ => bail!("{percent} % is more than the whole"),
    }
}

/// Parts per million as a percentage: `12.5`.
pub fn ppm_to_percent(ppm: u32) -> String {
    Amount(u128::from(ppm) * (Amount::TOKEN.0 / 10_000)).to_string()
}

/// So much of an asset as its [`althing_types::AssetAmount`] prints: whole shares, else tokens. (G-4)
///
/// # Errors
/// What is wrong with it.
pub fn asset_amount(asset: AssetId, text: &str) -> Result<Amount> {
    match asset {
        AssetId::Shares(_) => {
            let count: u64 = text.parse().with_context(|| format!("{text:?}: shares are whole, such as 5"))?;
            Ok(Amount(count.into()))
        }
        _ => Ok(text.parse()?),
    }
}

/// `NAME=VALUE`, cut.
///
/// # Errors
/// If there is no `=`; `form` says what was expected.
pub fn pair<'a>(text: &'a str, form: &str) -> Result<(&'a str, &'a str)> {
    text.split_once('=').with_context(|| format!("{text:?}: write {form}"))
}

/// A time to come, from now: `in 2 d 3 h`.
pub fn until(time_ms: u64, now_ms: u64) -> String {
    let seconds = time_ms.saturating_sub(now_ms).div_ceil(1_000);
    let (minutes, hours, days) = (seconds / 60, seconds / 3_600, seconds / 86_400);
    match (days, hours, minutes) {
        (0, 0, 0) if seconds == 0 => "now".into(),
        (0, 0, 0) => format!("in {seconds} s"),
        (0, 0, _) => format!("in {minutes} min {} s", seconds % 60),
        (0, _, _) => format!("in {hours} h {} min", minutes % 60),
        _ => format!("in {days} d {} h", hours % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use althing_types::ModelId;

    #[test]
    fn percentages_are_exact() {
        let ppm = |text: &str| percent_to_ppm(text.parse().unwrap());
        assert_eq!((ppm("12.5").unwrap(), ppm("0.0001").unwrap(), ppm("250").unwrap()), (125_000, 1, 2_500_000));
        assert!(ppm("0.00001").is_err() && percent_of_whole("100.1".parse().unwrap()).is_err());
        assert_eq!(ppm_to_percent(125_000), "12.5");
    }

    #[test]
    fn shares_are_whole_and_the_rest_tokens() {
        // G-4
        let shares = AssetId::Shares(ModelId::ZERO);
        assert_eq!(asset_amount(shares, "5").unwrap(), Amount(5));
        assert!(asset_amount(shares, "0.5").is_err());
        assert_eq!(asset_amount(AssetId::Native, "5").unwrap(), Amount::tokens(5));
    }

    #[test]
    fn times_to_come_have_two_units() {
        let cases = [(0, "now"), (900, "in 1 s"), (61_000, "in 1 min 1 s"), (7_260_000, "in 2 h 1 min")];
        for (ms, text) in cases {
            assert_eq!(until(ms + 5, 5), text);
        }
        assert_eq!(until(183_600_000, 0), "in 2 d 3 h");
    }
}
