//! Renders conversations by the Jinja template that comes with a model's files, as Hugging Face's
//! `apply_chat_template` does.
//!
//! Templates come from strangers, so this runs in the sandbox: time, memory, stack and output are bounded
//! there, and so is what the template engine itself does.
//!
//! [`answer`] takes a [`Request`] as JSON and gives one byte that says what follows, and a text.

use minijinja::{
    AutoEscape, Environment, Error, ErrorKind, State, Value, context,
    syntax::SyntaxConfig,
    value::{Kwargs, ValueKind},
};
use serde::{Deserialize, Serialize};
use std::io;

/// What is asked.
#[derive(Debug, Serialize, Deserialize)]
pub struct Request {
    /// The template.
    pub source: String,
    /// The conversation; without one the template is only checked.
    pub messages: Option<Vec<Message>>,
    /// Whether the assistant's next message is to begin.
    pub answer: bool,
    pub bos_token: String,
    pub eos_token: String,
}

/// One message, as templates see it.
#[derive(Debug, Serialize, Deserialize)]
pub struct Message {
    pub role: String,
    pub content: String,
}

/// The prompt follows; nothing, if there was no conversation.
pub const RENDERED: u8 = b't';
/// The template's own refusal, by `raise_exception`.
pub const RAISED: u8 = b'r';
/// How the template failed on this conversation, in the engine's words.
pub const FAILED: u8 = b'f';
/// Why this is no template, in the engine's words.
pub const NO_TEMPLATE: u8 = b's';

/// The answer to a request.
///
/// # Errors
/// If the request is none.
pub fn answer(request: &[u8]) -> Result<Vec<u8>, serde_json::Error> {
    let request: Request = serde_json::from_slice(request)?;
    let (kind, text) = match render(&request) {
        Ok(text) => (RENDERED, text),
        Err(answer) => answer,
    };
    let mut answer = vec![kind];
    answer.extend_from_slice(text.as_bytes());
    Ok(answer)
}

fn render(request: &Request) -> Result<String, (u8, String)> {
    let no_template = |error: Error| (NO_TEMPLATE, error.to_string());
    let source = without_generation_tags(&request.source);
    let environment = environment().map_err(no_template)?;
    let template = environment.template_from_named_str("chat", &source).map_err(no_template)?;
    let Some(messages) = &request.messages else { return Ok(String::new()) };
    let message = |message: &Message| context! { role => message.role.as_str(), content => message.content.as_str() };
    let messages: Vec<Value> = messages.iter().map(message).collect();
    let context = context! {
        messages, add_generation_prompt => request.answer, tools => (), documents => (),
        bos_token => request.bos_token.as_str(), eos_token => request.eos_token.as_str(),
    };
    template.render(context).map_err(|error| failure(&error))
}

/// The template's own words, if it refused; the engine's otherwise.
fn failure(error: &Error) -> (u8, String) {
    match error.detail().and_then(|detail| detail.strip_prefix(RAISED_PREFIX)) {
        Some(message) if error.kind() == ErrorKind::InvalidOperation => (RAISED, message.into()),
        _ => (FAILED, error.to_string()),
    }
}

/// Marks errors that templates raise themselves.
const RAISED_PREFIX: &str = "raised: ";

/// Jinja as transformers sets it up. There is no `strftime_now`: a prompt must not depend on the
/// day. Templates that ask for the date fall back to a fixed one where they can do without.
fn environment() -> Result<Environment<'static>, Error> {
    let mut environment = Environment::new();
    environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.set_unknown_method_callback(python_method);
    // Python's spelling of its constants.
    environment.set_formatter(|output, state, value| match value.kind() {
        ValueKind::None => Ok(output.write_str("None")?),
        ValueKind::Bool => Ok(output.write_str(if value.is_true() { "True" } else { "False" })?),
        _ => minijinja::escape_formatter(output, state, value),
    });
    environment.add_filter("tojson", to_json);
    environment.add_function("raise_exception", |message: String| -> Result<Value, Error> {
        Err(Error::new(ErrorKind::InvalidOperation, format!("{RAISED_PREFIX}{message}")))
    });
    Ok(environment)
}

/// Python's methods of texts, lists and dictionaries.
fn python_method(state: &mut State<'_, '_>, value: &Value, method: &str, args: &[Value]) -> Result<Value, Error> {
    match (method, value.as_str(), args) {
        ("title", Some(text), []) => Ok(title(text).into()),
        _ => minijinja_contrib::pycompat::unknown_method_callback(state, value, method, args),
    }
}

/// Python's `str.title`: a capital wherever a letter follows what is none, inside words too.
fn title(text: &str) -> String {
    let mut after_letter = false;
    let letters = text.chars().map(|char| {
        let cased: String = if after_letter { char.to_lowercase().collect() } else { char.to_uppercase().collect() };
        after_letter = char.is_lowercase() || char.is_uppercase();
        cased
    });
    letters.collect()
}

/// Python's `json.dumps(…, ensure_ascii=False)`.
fn to_json(value: &Value, options: Kwargs) -> Result<String, Error> {
    let indent: Option<usize> = options.get("indent")?;
    let _: Option<bool> = options.get("ensure_ascii")?;
    options.assert_all_used()?;
    let fail = |error: serde_json::Error| Error::new(ErrorKind::InvalidOperation, error.to_string());
    let mut bytes = Vec::new();
    match indent.map(|indent| " ".repeat(indent.min(16))) {
        Some(indent) => {
            let formatter = serde_json::ser::PrettyFormatter::with_indent(indent.as_bytes());
            serde::Serialize::serialize(value, &mut serde_json::Serializer::with_formatter(&mut bytes, formatter))
                .map_err(fail)?;
        }
        None => {
            serde::Serialize::serialize(value, &mut serde_json::Serializer::with_formatter(&mut bytes, Spaced))
                .map_err(fail)?;
        }
    }
    String::from_utf8(bytes).map_err(|error| Error::new(ErrorKind::InvalidOperation, error.to_string()))
}

/// JSON on one line with a space after each comma and colon, as Python writes it.
struct Spaced;

impl serde_json::ser::Formatter for Spaced {
    fn begin_array_value<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_key<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_value<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        writer.write_all(b": ")
    }
}

/// Replaces transformers' `{% generation %}` … `{% endgeneration %}`, which mark answers for
/// training and change nothing in the text, by conditions that always hold.
fn without_generation_tags(source: &str) -> String {
    let (mut output, mut rest) = (String::with_capacity(source.len()), source);
    while let Some(start) = rest.find("{%") {
        let tag_end = rest[start..].find("%}").map_or(rest.len(), |end| start + end);
        let tag = &rest[start..tag_end];
        output.push_str(&rest[..start]);
        match tag.trim_start_matches(['{', '%', '-', '+']).trim_end_matches(['-', '+']).trim() {
            "generation" => output.push_str(&tag.replace("generation", "if true")),
            "endgeneration" => output.push_str(&tag.replace("endgeneration", "endif")),
            _ => output.push_str(tag),
        }
        rest = &rest[tag_end..];
    }
    output.push_str(rest);
    output
}

#[cfg(target_arch = "wasm32")]
fn run() {
    match answer(&althing_guest::input()) {
        Ok(answer) => althing_guest::emit(&answer),
        Err(error) => althing_guest::refuse(&error.to_string()),
    }
}

#[cfg(target_arch = "wasm32")]
althing_guest::guest!(run);
