//! The file: TOML or JSON, checked as far as it can be without running it. `docs/programs.md` is the
//! format for people.

use crate::template::{Source, Template, is_name};
use althing_types::{
    Amount, amount,
    object::{DEPTH_MAX, SEED_MODULUS},
};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Most steps of a program, most orders of one step.
pub const STEPS_MAX: usize = 64;
pub const PARTS_MAX: u32 = 64;
/// The parent of a step that begins a chain of its own.
pub const NO_PARENT: &str = "none";

/// Why a program was not accepted.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    #[error("not a program: {0}")]
    Toml(#[from] toml::de::Error),
    #[error("not a program: {0}")]
    Json(#[from] serde_json::Error),
    #[error("{0}")]
    Meaningless(String),
    #[error("step {step}: {reason}")]
    Step { step: String, reason: String },
}

/// How sure an answer must be before later steps use it. (V-1)
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wait {
    /// Somebody stands for it with a bond.
    Revealed,
    /// Another provider re-ran it and got the same bits. Where no agreements can be had, as `revealed`.
    #[default]
    Agreed,
    /// Its challenge window passed.
    Final,
}

/// A program, read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Program {
    /// What it does, in a sentence.
    pub title: String,
    /// Name of a registered model.
    pub model: String,
    /// The most that may be spent in all: fees and base fees, without what is refunded. Tokens.
    #[serde(deserialize_with = "amount::from_tokens", serialize_with = "amount::to_tokens")]
    pub budget: Amount,
    /// What is offered for each order beside the model's own fee. Tokens.
    #[serde(default = "default_fee", deserialize_with = "amount::from_tokens", serialize_with = "amount::to_tokens")]
    pub fee: Amount,
    /// Agreements by other providers that are asked and paid for, as far as the network allows.
    #[serde(default = "one")]
    pub agreements: u8,
    #[serde(default)]
    pub wait: Wait,
    /// Orders for one task while its answers are refuted or nobody answers.
    #[serde(default = "three")]
    pub attempts_max: u32,
    /// Seconds that providers have for each order.
    #[serde(default = "two_minutes")]
    pub within_s: u64,
    /// What may be given at the start, and what is taken if it is not; empty means that it must be given.
    #[serde(default)]
    pub inputs: BTreeMap<String, String>,
    #[serde(rename = "step")]
    pub steps: Vec<Step>,
}

fn default_fee() -> Amount {
    Amount(Amount::TOKEN.0 / 100)
}

fn one() -> u8 {
    1
}

fn three() -> u32 {
    3
}

fn two_minutes() -> u64 {
    120
}

fn one_part() -> u32 {
    1
}

/// One step: a question, once, for each item of a list, or again and again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    pub name: String,
    pub prompt: Template,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system: Option<Template>,
    /// The program's if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// The program's if absent. Tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fee: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_tokens: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top_p: Option<f32>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stop: Vec<String>,
    /// A sampling seed: with it the answer can be had again. (T-2)
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// The step whose order is this one's parent; the last one that it uses if absent, `none` for none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fan_out: Option<FanOut>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repeat: Option<Repeat>,
}

/// How a text becomes a list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Split {
    /// Lines, without bullets and numbers before them.
    #[default]
    Lines,
    Sentences,
    Commas,
}

/// The step is asked for each item.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FanOut {
    pub over: Template,
    #[serde(default)]
    pub split: Split,
    /// Items beyond are left out.
    pub max: u32,
}

/// The step is asked again with its own answer, until a condition holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Repeat {
    /// Most rounds.
    #[serde(default = "one_part")]
    pub max: u32,
    /// What `{{last}}` is in the first round.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<Template>,
    /// Ends when the answer contains this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until_contains: Option<String>,
    /// Ends when the answer has no more words than this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until_words_max: Option<usize>,
    /// Seconds from one round's order to the next one's, at least.
    #[serde(default)]
    pub every_s: u64,
}

/// Without a bullet or number at the beginning: `2. `, `- `.
fn without_bullet(line: &str) -> &str {
    let line = line.trim();
    let rest = line.trim_start_matches(|c: char| c.is_ascii_digit());
    let numbered = rest.len() < line.len();
    let rest = match numbered {
        true => rest.strip_prefix(['.', ')']),
        false => line.strip_prefix(['-', '*', '•']),
    };
    rest.filter(|rest| rest.starts_with(' ')).unwrap_or(line).trim()
}

fn sentences(text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(end) = rest.find(". ").or_else(|| rest.find(".\n")) {
        let (sentence, after) = rest.split_at(end + 1);
        found.push(sentence);
        rest = after;
    }
    found.push(rest);
    found
}

impl Split {
    /// The items of a text, none of them empty.
    pub fn items(self, text: &str) -> Vec<String> {
        let items: Vec<&str> = match self {
            Self::Lines => text.lines().map(without_bullet).collect(),
            Self::Sentences => sentences(text),
            Self::Commas => text.split(',').collect(),
        };
        items.into_iter().map(str::trim).filter(|item| !item.is_empty()).map(str::to_owned).collect()
    }
}

impl Repeat {
    /// Whether this answer ends the repetition.
    pub fn ends_with(&self, text: &str) -> bool {
        self.until_contains.as_ref().is_some_and(|end| text.contains(end))
            || self.until_words_max.is_some_and(|max| text.split_whitespace().count() <= max)
    }
}

impl Step {
    fn templates(&self) -> impl Iterator<Item = &Template> {
        let fan_out = self.fan_out.iter().map(|fan_out| &fan_out.over);
        let start = self.repeat.iter().filter_map(|repeat| repeat.start.as_ref());
        std::iter::once(&self.prompt).chain(self.system.as_ref()).chain(fan_out).chain(start)
    }

    /// The steps whose answers it uses.
    pub fn uses(&self) -> BTreeSet<&str> {
        let sources = self.templates().flat_map(Template::sources);
        let steps = sources.filter_map(|source| match source {
            Source::Step(name) => Some(name.as_str()),
            _ => None,
        });
        let parent = self.parent.as_deref().filter(|parent| *parent != NO_PARENT);
        steps.chain(parent).collect()
    }

    /// What it offers beside the model's own fee.
    pub fn fee(&self, program: &Program) -> Amount {
        self.fee.as_ref().and_then(|fee| fee.parse().ok()).unwrap_or(program.fee)
    }

    fn wrong(&self, reason: impl Into<String>) -> FileError {
        FileError::Step { step: self.name.clone(), reason: reason.into() }
    }

    fn check_form(&self) -> Result<(), FileError> {
        if !is_name(&self.name) || [NO_PARENT, "input"].contains(&self.name.as_str()) {
            return Err(self.wrong("names are lower-case letters, digits, - and _; `input` and `none` are taken"));
        }
        if self.fan_out.is_some() && self.repeat.is_some() {
            return Err(self.wrong("it can fan out or repeat, not both"));
        }
        if self.seed.is_some_and(|seed| seed >= SEED_MODULUS) {
            return Err(self.wrong(format!("seeds are below {SEED_MODULUS}")));
        }
        if self.fee.as_ref().is_some_and(|fee| fee.parse::<Amount>().is_err()) {
            return Err(self.wrong("its fee is not an amount of tokens"));
        }
        if [self.temperature, self.top_p].into_iter().flatten().any(|number| !number.is_finite() || number < 0.0) {
            return Err(self.wrong("temperature and top_p are numbers from 0 on"));
        }
        let parts_max = self.fan_out.as_ref().map_or(1, |f| f.max).max(self.repeat.as_ref().map_or(1, |r| r.max));
        let parts_min = self.fan_out.as_ref().map_or(1, |f| f.max).min(self.repeat.as_ref().map_or(1, |r| r.max));
        if parts_min == 0 || parts_max > PARTS_MAX {
            return Err(self.wrong(format!("max is at least 1 and at most {PARTS_MAX}")));
        }
        Ok(())
    }

    /// Whether a value can be had in this step.
    fn check_source(&self, source: &Source, program: &Program, earlier: &BTreeMap<&str, u32>) -> Result<(), FileError> {
        match source {
            Source::Input(name) if !program.inputs.contains_key(name) => {
                Err(self.wrong(format!("the input {name} is not in [inputs]")))
            }
            Source::Step(name) if !earlier.contains_key(name.as_str()) => {
                Err(self.wrong(format!("{name} is no step before it")))
            }
            Source::Item | Source::Index if self.fan_out.is_none() => {
                Err(self.wrong("only steps that fan out have items"))
            }
            Source::Last | Source::Round if self.repeat.is_none() => {
                Err(self.wrong("only steps that repeat have rounds"))
            }
            _ => Ok(()),
        }
    }
}

impl Program {
    /// Reads a program: JSON if it begins with a brace, TOML otherwise.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, FileError> {
        let program: Self =
            if text.trim_start().starts_with('{') { serde_json::from_str(text)? } else { toml::from_str(text)? };
        program.check()?;
        Ok(program)
    }

    /// The step of that name.
    pub fn step(&self, name: &str) -> Option<&Step> {
        self.steps.iter().find(|step| step.name == name)
    }

    /// The step whose order is the parent of this step's (first) order. (T-15)
    pub fn parent_of(&self, step: &Step) -> Option<&Step> {
        match step.parent.as_deref() {
            Some(NO_PARENT) => None,
            Some(parent) => self.step(parent),
            None => {
                let uses = step.uses();
                self.steps.iter().rfind(|other| uses.contains(other.name.as_str()))
            }
        }
    }

    fn check(&self) -> Result<(), FileError> {
        let wrong = |reason: &str| Err(FileError::Meaningless(reason.into()));
        if self.steps.is_empty() || self.steps.len() > STEPS_MAX {
            return wrong(&format!("a program has at least one step and at most {STEPS_MAX}"));
        }
        if self.attempts_max == 0 {
            return wrong("attempts_max is at least 1");
        }
        if let Some(name) = self.inputs.keys().find(|name| !is_name(name)) {
            return wrong(&format!("{name:?} is not a name: lower-case letters, digits, - and _"));
        }
        // Steps before, with the depth of their last orders. (T-15)
        let mut earlier: BTreeMap<&str, u32> = BTreeMap::new();
        for step in &self.steps {
            step.check_form()?;
            for template in step.templates() {
                template.sources().try_for_each(|source| step.check_source(source, self, &earlier))?;
            }
            if let Some(parent) = step.parent.as_deref().filter(|parent| *parent != NO_PARENT)
                && !earlier.contains_key(parent)
            {
                return Err(step.wrong(format!("its parent {parent} is no step before it")));
            }
            let before = self.parent_of(step).and_then(|parent| earlier.get(parent.name.as_str()));
            let rounds = step.repeat.as_ref().map_or(1, |repeat| repeat.max);
            let depth = before.map_or(0, |depth| depth + 1) + rounds - 1;
            if depth > u32::from(DEPTH_MAX) {
                let reason = format!("its chain of orders would be {depth} deep, the ledger allows {DEPTH_MAX}");
                return Err(step.wrong(reason + ": begin another with parent = \"none\""));
            }
            if earlier.insert(&step.name, depth).is_some() {
                return Err(step.wrong("there are two steps of this name"));
            }
        }
        Ok(())
    }

    /// All inputs: those given, and the file's own for the others.
    ///
    /// # Errors
    /// If one is unknown or missing.
    pub fn with_inputs(&self, given: &BTreeMap<String, String>) -> Result<BTreeMap<String, String>, FileError> {
        if let Some(name) = given.keys().find(|name| !self.inputs.contains_key(*name)) {
            let known: Vec<_> = self.inputs.keys().map(String::as_str).collect();
            let known = if known.is_empty() { "it has none".into() } else { known.join(", ") };
            return Err(FileError::Meaningless(format!("the program has no input {name} ({known})")));
        }
        let inputs: BTreeMap<_, _> = self
            .inputs
            .iter()
            .map(|(name, default)| (name.clone(), given.get(name).unwrap_or(default).clone()))
            .collect();
        match inputs.iter().find(|(_, value)| value.is_empty()) {
            Some((name, _)) => Err(FileError::Meaningless(format!("the input {name} must be given"))),
            None => Ok(inputs),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(steps: &str) -> Result<Program, FileError> {
        Program::parse(&format!("title = \"t\"\nmodel = \"m\"\nbudget = \"1\"\ninputs = {{ hero = \"\" }}\n{steps}"))
    }

    #[test]
    fn meaningless_programs_are_refused() {
        // T-15
        let step = |name: &str, rest: &str| format!("[[step]]\nname = \"{name}\"\n{rest}\n");
        let a = step("a", "prompt = \"x\"");
        let rows = [
            (a.clone(), None),
            (String::new(), Some("step")),
            (step("A", "prompt = \"x\""), Some("lower-case")),
            (step("a", "prompt = \"{{b.text}}\""), Some("no step before")),
            (step("a", "prompt = \"{{a.text}}\""), Some("no step before")),
            (step("a", "prompt = \"{{input.name}}\""), Some("not in [inputs]")),
            (step("a", "prompt = \"{{item}}\""), Some("items")),
            (step("a", "prompt = \"{{last}}\""), Some("rounds")),
            (a.clone() + &a, Some("two steps")),
            (a.clone() + &step("b", "prompt = \"x\"\nparent = \"c\""), Some("no step before")),
            (step("a", "prompt = \"x\"\nrepeat = { max = 17 }"), None),
            (step("a", "prompt = \"x\"\nrepeat = { max = 18 }"), Some("17 deep")),
            (a.clone() + &step("b", "prompt = \"{{a.text}}\"\nrepeat = { max = 17 }"), Some("17 deep")),
            (a.clone() + &step("b", "prompt = \"{{a.text}}\"\nparent = \"none\"\nrepeat = { max = 17 }"), None),
            (step("a", "prompt = \"x\"\nfan_out = { over = \"{{input.hero}}\", max = 0 }"), Some("at least 1")),
            (step("a", "prompt = \"x\"\nrepeat = {}\nfan_out = { over = \"b\", max = 1 }"), Some("not both")),
            (step("a", "prompt = \"x\"\nfee = \"much\""), Some("amount")),
            (step("a", "prompt = \"x\"\ncolour = \"red\""), Some("unknown field")),
        ];
        for (text, expected) in rows {
            match (program(&text), expected) {
                (Ok(_), None) => {}
                (Err(error), Some(expected)) => assert!(error.to_string().contains(expected), "{text}: {error}"),
                (got, _) => panic!("{text}: {got:?}"),
            }
        }
    }

    #[test]
    fn a_program_is_read_back_as_it_was_written() {
        let text = "[[step]]\nname = \"a\"\nprompt = \"{{input.hero}}\"\ntemperature = 0.5\nrepeat = { max = 2 }";
        let program = program(text).unwrap();
        assert_eq!(Program::parse(&serde_json::to_string(&program).unwrap()).unwrap(), program);
        assert!(program.with_inputs(&BTreeMap::new()).is_err(), "an empty default must be given");
        assert!(program.with_inputs(&[("villain".into(), "x".into())].into()).is_err());
        assert!(program.with_inputs(&[("hero".into(), "x".into())].into()).is_ok());
    }

    #[test]
    fn the_examples_are_programs() {
        // T-15
        let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/programs");
        let mut read = 0;
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            Program::parse(&std::fs::read_to_string(&path).unwrap())
                .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            read += 1;
        }
        assert!(read >= 5);
    }

    #[test]
    fn a_text_becomes_a_list() {
        assert_eq!(Split::Lines.items("1. one\n\n- two\n 3) three\n4 winds"), ["one", "two", "three", "4 winds"]);
        assert_eq!(Split::Sentences.items("One fox ran. It was 2.5 m.\nEnd"), ["One fox ran.", "It was 2.5 m.", "End"]);
        assert_eq!(Split::Commas.items("a, b,,c"), ["a", "b", "c"]);
    }
}
