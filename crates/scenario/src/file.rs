//! The file: TOML, checked as far as it can be without running it.

use althing_types::{Amount, AssetId, Verification, amount, object::ModelReward};
use serde::Deserialize;
use std::{collections::BTreeMap, path::Path};

/// Why a scenario was not read.
#[derive(Debug, thiserror::Error)]
pub enum ScenarioError {
    #[error("cannot read {path}: {source}")]
    Read { path: String, source: std::io::Error },
    #[error("not a scenario: {0}")]
    Malformed(#[from] toml::de::Error),
    #[error("the profile {name:?}: {reason}")]
    Profile { name: String, reason: String },
    #[error("{0}")]
    Meaningless(String),
}

/// A scenario, read.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// What it shows, in a sentence.
    pub title: String,
    /// A shipped profile's name, or a file beside the scenario.
    #[serde(default = "default_profile")]
    pub profile: String,
    /// Whether the profile's `[dev]` windows are used.
    #[serde(default = "yes")]
    pub dev: bool,
    /// Time between the blocks of a wait.
    #[serde(default = "second", deserialize_with = "duration")]
    pub block: u64,
    /// Parameters that differ from the profile's, written as there.
    #[serde(default)]
    pub params: toml::Table,
    #[serde(default, rename = "account")]
    pub accounts: Vec<AccountEntry>,
    #[serde(default, rename = "model")]
    pub models: Vec<ModelEntry>,
    #[serde(default, rename = "step")]
    pub steps: Vec<StepEntry>,
}

fn default_profile() -> String {
    "default".into()
}

fn yes() -> bool {
    true
}

fn second() -> u64 {
    1_000
}

/// Somebody.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AccountEntry {
    pub name: String,
    #[serde(default, deserialize_with = "amount::from_tokens")]
    pub free: Amount,
    #[serde(default, deserialize_with = "amount::from_tokens")]
    pub bond: Amount,
    /// Votes with weight 1 while bonds are not required.
    #[serde(default)]
    pub voter: bool,
    /// Is a coordinator's, which can be drawn to fetch inputs.
    #[serde(default)]
    pub coordinator: bool,
    /// Models that it says it serves, by name, from the first block on.
    #[serde(default)]
    pub serves: Vec<String>,
    /// Test assets that it holds, such as `{ "test:1" = "1000 ALTH" }`.
    #[serde(default)]
    pub assets: BTreeMap<AssetId, String>,
}

/// A model that exists from the start.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelEntry {
    pub name: String,
    /// An account's name.
    pub owner: String,
    #[serde(default, deserialize_with = "amount::from_tokens")]
    pub fee: Amount,
    /// An account's name; the owner if absent.
    pub payee: Option<String>,
    #[serde(default = "exact")]
    pub verification: Verification,
    pub reward: Option<ModelReward>,
}

fn exact() -> Verification {
    Verification::Exact
}

/// One step, in one of its forms: a call, several calls of one block, an answer, a wait, or only
/// expectations.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(try_from = "toml::Table")]
pub struct StepEntry {
    /// A word for people.
    pub note: Option<String>,
    /// When: time since the start, not before the step before.
    pub at: Option<u64>,
    /// Or so long after the step before.
    pub after: Option<u64>,
    /// Blocks for so long, and nothing else.
    pub wait: Option<u64>,
    /// One call, whose fields stand in the step itself.
    pub call: Option<CallEntry>,
    /// Several calls of one block.
    pub block: Vec<CallEntry>,
    /// Commit and reveal, in two blocks.
    pub solve: Option<SolveEntry>,
    /// What must be so after the step: paths and values.
    pub expect: toml::Table,
}

/// The fields of a step that are not its call's.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StepFields {
    note: Option<String>,
    #[serde(default, deserialize_with = "some_duration")]
    at: Option<u64>,
    #[serde(default, deserialize_with = "some_duration")]
    after: Option<u64>,
    #[serde(default, deserialize_with = "some_duration")]
    wait: Option<u64>,
    #[serde(default)]
    block: Vec<CallEntry>,
    solve: Option<SolveEntry>,
    #[serde(default)]
    expect: toml::Table,
}

const STEP_FIELDS: [&str; 7] = ["note", "at", "after", "wait", "block", "solve", "expect"];

impl TryFrom<toml::Table> for StepEntry {
    type Error = toml::de::Error;
    fn try_from(table: toml::Table) -> Result<Self, Self::Error> {
        let has_call = table.contains_key("do");
        let own = |key: &str| STEP_FIELDS.contains(&key) || !has_call;
        let (fields, call): (toml::Table, toml::Table) = table.into_iter().partition(|(key, _)| own(key));
        let call = if has_call { Some(call.try_into()?) } else { None };
        let StepFields { note, at, after, wait, block, solve, expect } = fields.try_into()?;
        Ok(Self { note, at, after, wait, call, block, solve, expect })
    }
}

/// A call by somebody.
#[derive(Clone, Debug, Deserialize)]
pub struct CallEntry {
    /// Who: an account's name, or `governor`.
    pub by: String,
    /// The call's name, as in `Call::name`.
    #[serde(rename = "do")]
    pub name: String,
    /// The name that later steps give the order that it opens.
    #[serde(rename = "as")]
    pub order: Option<String>,
    /// The error that it must fail with; it must succeed if absent.
    pub error: Option<String>,
    /// The call's own fields.
    #[serde(flatten)]
    pub fields: toml::Table,
}

/// An answer in the open lane.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SolveEntry {
    pub by: String,
    /// An order's name.
    pub order: String,
    /// The answer's text; its CID stands on the ledger.
    pub answer: String,
}

/// Milliseconds of `90s`, `10m`, `2h`, `3d`, `250ms`, `1y` (365 days), or a sum such as `1h 30m`.
pub(crate) fn parse_duration(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text:?} is not a time: write 250ms, 90s, 10m, 2h, 3d, 1y, or a sum such as 1h 30m");
    let mut total = 0u64;
    for part in text.split_whitespace() {
        let digits = part.chars().take_while(char::is_ascii_digit).count();
        let (number, unit) = part.split_at(digits);
        let unit_ms = match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            "y" => 31_536_000_000,
            _ => return Err(wrong()),
        };
        let number: u64 = number.parse().map_err(|_| wrong())?;
        total = number.checked_mul(unit_ms).and_then(|ms| total.checked_add(ms)).ok_or_else(wrong)?;
    }
    if text.trim().is_empty() { Err(wrong()) } else { Ok(total) }
}

fn duration<'de, D: serde::Deserializer<'de>>(d: D) -> Result<u64, D::Error> {
    parse_duration(&String::deserialize(d)?).map_err(serde::de::Error::custom)
}

fn some_duration<'de, D: serde::Deserializer<'de>>(d: D) -> Result<Option<u64>, D::Error> {
    duration(d).map(Some)
}

/// Reads a scenario.
///
/// # Errors
/// With the line and what was expected there.
pub fn parse(text: &str) -> Result<Scenario, ScenarioError> {
    let scenario: Scenario = toml::from_str(text)?;
    for (index, step) in scenario.steps.iter().enumerate() {
        let forms = [step.wait.is_some(), step.call.is_some(), !step.block.is_empty(), step.solve.is_some()];
        let count = forms.iter().filter(|form| **form).count();
        if count > 1 || (count == 0 && step.expect.is_empty()) {
            let message = format!("step {} must be one of wait, call, block, solve, or have an expect", index + 1);
            return Err(ScenarioError::Meaningless(message));
        }
    }
    Ok(scenario)
}

/// The text of a profile: a shipped one, or a file relative to `directory`.
pub(crate) fn profile_text(name: &str, directory: &Path) -> Result<String, ScenarioError> {
    if let Some(text) = althing_types::profile::shipped(name) {
        return Ok(text.to_owned());
    }
    let path = directory.join(name);
    std::fs::read_to_string(&path).map_err(|source| ScenarioError::Read { path: path.display().to_string(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_written_as_people_do() {
        for (text, ms) in [("250ms", 250), ("90s", 90_000), ("1h 30m", 5_400_000), ("1y", 31_536_000_000)] {
            assert_eq!(parse_duration(text), Ok(ms), "{text}");
        }
        for wrong in ["", "5", "s", "-1s", "1w", "99999999999999999999y"] {
            assert!(parse_duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_step_has_one_form() {
        let with = |step: &str| parse(&format!("title = \"t\"\n[[step]]\n{step}"));
        assert!(with("wait = \"1s\"").is_ok());
        assert!(with("expect = { \"supply.issued\" = \"1 ALTH\" }").is_ok());
        assert!(with("note = \"nothing\"").is_err());
        assert!(with("wait = \"1s\"\nsolve = { by = \"a\", order = \"b\", answer = \"c\" }").is_err());
        assert!(with("colour = 1").unwrap_err().to_string().contains("colour"));
    }
}
