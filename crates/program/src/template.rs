//! Prompts with places for values.
//!
//! ```text
//! {{input.NAME}}            a value given at the start
//! {{STEP.text}}             the answer of an earlier step
//! {{item}} {{index}}        in a step that fans out: the item, and its number from 1
//! {{last}} {{round}}        in a step that repeats: the answer before, and the number of the round
//! {{… | words 20}}          at most the first twenty words of a value
//! ```

use serde::{Deserialize, Serialize};

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// A value given at the start.
    Input(String),
    /// The answer of an earlier step.
    Step(String),
    Item,
    Index,
    Last,
    Round,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Value { source: Source, words_max: Option<usize> },
}

/// A text with places for values. Values are put in as they are: nothing in them is a place again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Template {
    text: String,
    pieces: Vec<Piece>,
}

/// Why a text is not a template.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    #[error("{{{{ without }}}} in {0:?}")]
    Open(String),
    #[error(
        "{{{{{0}}}}} is not a value: input.NAME, STEP.text, item, index, last and round are, each also with `| words N`"
    )]
    Unknown(String),
}

/// Whether this can be the name of a step or of an input.
pub fn is_name(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_')
}

fn source(text: &str) -> Option<Source> {
    match text {
        "item" => return Some(Source::Item),
        "index" => return Some(Source::Index),
        "last" => return Some(Source::Last),
        "round" => return Some(Source::Round),
        _ => {}
    }
    match text.split_once('.')? {
        ("input", name) if is_name(name) => Some(Source::Input(name.into())),
        (step, "text") if is_name(step) => Some(Source::Step(step.into())),
        _ => None,
    }
}

fn place(text: &str) -> Option<Piece> {
    let (value, words_max) = match text.split_once('|') {
        None => (text, None),
        Some((value, filter)) => (value, Some(filter.trim().strip_prefix("words ")?.trim().parse().ok()?)),
    };
    Some(Piece::Value { source: source(value.trim())?, words_max })
}

/// The first words of a text.
fn first_words(text: &str, max: usize) -> String {
    text.split_whitespace().take(max).collect::<Vec<_>>().join(" ")
}

impl Template {
    /// Reads a template.
    ///
    /// # Errors
    /// The first place that is none.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("{{") {
            let (inside, after) = after.split_once("}}").ok_or_else(|| TemplateError::Open(text.into()))?;
            pieces.push(Piece::Text(before.into()));
            pieces.push(place(inside).ok_or_else(|| TemplateError::Unknown(inside.into()))?);
            rest = after;
        }
        pieces.push(Piece::Text(rest.into()));
        Ok(Self { text: text.into(), pieces })
    }

    /// The values that it uses.
    pub fn sources(&self) -> impl Iterator<Item = &Source> {
        self.pieces.iter().filter_map(|piece| match piece {
            Piece::Text(_) => None,
            Piece::Value { source, .. } => Some(source),
        })
    }

    /// The text with its values in place; an absent value is empty.
    pub fn render(&self, value: impl Fn(&Source) -> Option<String>) -> String {
        let render = |piece: &Piece| match piece {
            Piece::Text(text) => text.clone(),
            Piece::Value { source, words_max } => {
                let value = value(source).unwrap_or_default();
                words_max.map_or(value.clone(), |max| first_words(&value, max))
            }
        };
        self.pieces.iter().map(render).collect()
    }
}

impl TryFrom<String> for Template {
    type Error = TemplateError;
    fn try_from(text: String) -> Result<Self, TemplateError> {
        Self::parse(&text)
    }
}

impl From<Template> for String {
    fn from(template: Template) -> Self {
        template.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_put_in_as_they_are() {
        let template = Template::parse("A {{ input.hero }}, {{plan.text | words 2}}{{item}}!").unwrap();
        let text = template.render(|source| match source {
            Source::Input(name) => Some(format!("<{name}>")),
            Source::Step(_) => Some("one\ntwo three {{item}}".into()),
            _ => None,
        });
        assert_eq!(text, "A <hero>, one two!");
        let injected = Template::parse("{{item}}").unwrap().render(|_| Some("{{input.secret}}".into()));
        assert_eq!(injected, "{{input.secret}}", "an answer cannot ask for other values");
        let sources: Vec<_> = template.sources().cloned().collect();
        assert_eq!(sources, [Source::Input("hero".into()), Source::Step("plan".into()), Source::Item]);
    }

    #[test]
    fn what_is_no_place_is_refused() {
        for wrong in ["{{", "{{plan}}", "{{input.}}", "{{plan.order}}", "{{item | first 3}}", "{{item | words x}}"] {
            assert!(Template::parse(wrong).is_err(), "{wrong}");
        }
        assert_eq!(Template::parse("no places }}").unwrap().render(|_| None), "no places }}");
    }
}
