//! A model's own form of a conversation: the Jinja template that comes with its files, rendered as
//! Hugging Face's `apply_chat_template` does.
//!
//! Templates come from strangers, so they run with bounded fuel and output, without files, time or
//! randomness. What they hold in memory meanwhile is not bounded: the engine has no limit for the
//! texts that a template builds and never writes. Whoever runs models that nobody looked at should
//! bound the memory of the process. Conversations come from other strangers, and their texts pass through the template;
//! `guard.rs` sees to it that none of them becomes a special token.

mod guard;

use crate::{generate::PromptPart, gguf::Gguf, tensors::LoadError, tokenizer::TextTokenizer};
use guard::Guard;
use minijinja::{
    AutoEscape, Environment, Error, ErrorKind, State, Value, context,
    syntax::SyntaxConfig,
    value::{Kwargs, ValueKind},
};
use serde::Deserialize;
use std::io;

/// Longest template, bytes. The longest in use have about 20 KiB.
pub const SOURCE_BYTES_MAX: usize = 256 << 10;
/// Largest rendered conversation, bytes.
pub const OUTPUT_BYTES_MAX: usize = 8 << 20;
/// Instructions of one rendering. A message takes some hundreds.
pub const FUEL: u64 = 400_000;

/// Who can say a message.
pub const ROLES: [&str; 3] = ["system", "user", "assistant"];

/// Why a conversation has no prompt.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    #[error("the template cannot be used: {0}")]
    Source(String),
    /// The template's own refusal, by `raise_exception`: the same on every machine.
    #[error("{0}")]
    Raised(String),
    #[error("the template fails on this conversation: {0}")]
    Render(String),
    #[error("{0:?} is not a role: system, user and assistant are")]
    Role(String),
    #[error("the conversation becomes larger than {OUTPUT_BYTES_MAX} bytes")]
    OutputTooLarge,
}

/// One message, as templates see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TemplateMessage<'a> {
    /// One of [`ROLES`]. Templates make markers of roles, so they are not strangers' to choose.
    pub role: &'a str,
    pub content: &'a str,
}

/// What `tokenizer_config.json` says about prompts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenizerConfig {
    pub chat_template: Option<String>,
    pub bos_token: Option<String>,
    pub eos_token: Option<String>,
    /// Whether `bos_token` goes before a plain text.
    pub add_bos_token: Option<bool>,
}

impl TokenizerConfig {
    /// Reads `tokenizer_config.json`.
    ///
    /// # Errors
    /// [`LoadError::Template`] if it is malformed.
    pub fn parse(json: &[u8]) -> Result<Self, LoadError> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Source {
            One(String),
            Named(Vec<Named>),
        }
        #[derive(Deserialize)]
        struct Named {
            name: String,
            template: String,
        }
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Token {
            Text(String),
            Added { content: String },
        }
        #[derive(Deserialize)]
        struct File {
            chat_template: Option<Source>,
            bos_token: Option<Token>,
            eos_token: Option<Token>,
            add_bos_token: Option<bool>,
        }
        let fail = |why: String| LoadError::Template(format!("tokenizer_config.json: {why}"));
        let file: File = serde_json::from_slice(json).map_err(|error| fail(error.to_string()))?;
        let chat_template = match file.chat_template {
            None => None,
            Some(Source::One(source)) => Some(source),
            Some(Source::Named(list)) => {
                let default = list.into_iter().find(|named| named.name == "default");
                Some(default.ok_or_else(|| fail("chat_template has none named \"default\"".into()))?.template)
            }
        };
        let text = |token: Option<Token>| {
            token.map(|token| match token {
                Token::Text(text) | Token::Added { content: text } => text,
            })
        };
        Ok(Self {
            chat_template,
            bos_token: text(file.bos_token),
            eos_token: text(file.eos_token),
            add_bos_token: file.add_bos_token,
        })
    }
}

/// A template ready to render conversations for one tokenizer.
pub struct ChatTemplate {
    environment: Environment<'static>,
    bos_token: String,
    eos_token: String,
    guard: Guard,
}

const NAME: &str = "chat";

impl ChatTemplate {
    /// A template from its source. `markers` are the texts that the tokenizer turns into special
    /// tokens ([`TextTokenizer::markers`]).
    ///
    /// # Errors
    /// [`TemplateError::Source`] if it is too long or not a template, or the markers can't be guarded.
    pub fn new(source: &str, bos_token: &str, eos_token: &str, markers: &[String]) -> Result<Self, TemplateError> {
        if source.len() > SOURCE_BYTES_MAX {
            return Err(TemplateError::Source(format!("{} bytes, at most {SOURCE_BYTES_MAX}", source.len())));
        }
        let fail = |error: Error| TemplateError::Source(error.to_string());
        let mut environment = environment().map_err(fail)?;
        environment.add_template_owned(NAME, without_generation_tags(source)).map_err(fail)?;
        let guard = Guard::new(markers).map_err(TemplateError::Source)?;
        Ok(Self { environment, bos_token: bos_token.into(), eos_token: eos_token.into(), guard })
    }

    /// The template of a GGUF file, if it has one.
    ///
    /// # Errors
    /// If it is malformed.
    pub fn from_gguf(gguf: &Gguf<'_>, tokenizer: &TextTokenizer) -> Result<Option<Self>, LoadError> {
        let Some(source) = gguf.str("tokenizer.chat_template")? else { return Ok(None) };
        let text = |name: &str| -> Result<String, LoadError> {
            let token = gguf.u32(&format!("tokenizer.ggml.{name}_token_id"))?;
            Ok(token.and_then(|token| tokenizer.token_text(token)).unwrap_or_default())
        };
        let template = Self::new(source, &text("bos")?, &text("eos")?, tokenizer.markers());
        template.map(Some).map_err(|error| LoadError::Template(error.to_string()))
    }

    /// The template of a Hugging Face directory, if it has one: `chat_template.jinja`, which goes
    /// first, or the one inside `tokenizer_config.json`.
    ///
    /// # Errors
    /// If one is malformed.
    pub fn from_hf(
        config: &TokenizerConfig,
        jinja: Option<&[u8]>,
        tokenizer: &TextTokenizer,
    ) -> Result<Option<Self>, LoadError> {
        let jinja = jinja.map(std::str::from_utf8).transpose();
        let jinja = jinja.map_err(|_| LoadError::Template("chat_template.jinja is not UTF-8".into()))?;
        let Some(source) = jinja.or(config.chat_template.as_deref()) else { return Ok(None) };
        let text = |token: &Option<String>| token.clone().unwrap_or_default();
        let template = Self::new(source, &text(&config.bos_token), &text(&config.eos_token), tokenizer.markers());
        template.map(Some).map_err(|error| LoadError::Template(error.to_string()))
    }

    /// The prompt of a conversation. `answer` asks for the beginning of the assistant's next message.
    ///
    /// An ordinary conversation is one [`PromptPart::Markers`], tokenized as its maker's tools do it.
    /// Where a message contains the text of a special token, that text is a [`PromptPart::Text`].
    ///
    /// # Errors
    /// If the template refuses or fails, or runs out of its bounds.
    pub fn render(&self, messages: &[TemplateMessage<'_>], answer: bool) -> Result<Vec<PromptPart>, TemplateError> {
        if let Some(message) = messages.iter().find(|message| !ROLES.contains(&message.role)) {
            return Err(TemplateError::Role(message.role.into()));
        }
        let render = |edges: bool| {
            let guarded = |message: &TemplateMessage<'_>| {
                context! { role => message.role, content => self.guard.break_markers(message.content, edges) }
            };
            let text = self.render_guarded(messages.iter().map(guarded).collect(), answer)?;
            Ok(self.guard.parts(&text))
        };
        let parts = render(false)?;
        // A message may hold one end of a marker whose other end the template writes. Breaking such
        // ends changes how ordinary texts are tokenized, so it is done only where it matters.
        if !messages.iter().any(|message| self.guard.has_edge(message.content)) {
            return Ok(parts);
        }
        let careful = render(true)?;
        Ok(if self.guard.markers_in(&parts) == self.guard.markers_in(&careful) { parts } else { careful })
    }

    fn render_guarded(&self, messages: Vec<Value>, answer: bool) -> Result<String, TemplateError> {
        let template = self.environment.get_template(NAME).map_err(|error| TemplateError::Source(error.to_string()))?;
        let context = context! {
            messages, add_generation_prompt => answer, tools => (), documents => (),
            bos_token => self.bos_token.as_str(), eos_token => self.eos_token.as_str(),
        };
        let mut output = Bounded { bytes: Vec::new(), full: false };
        match template.render_captured_to(context, &mut output) {
            Ok(_) => String::from_utf8(output.bytes).map_err(|error| TemplateError::Render(error.to_string())),
            Err(_) if output.full => Err(TemplateError::OutputTooLarge),
            Err(error) => Err(failure(&error)),
        }
    }
}

/// The template's own words, if it refused; the engine's otherwise.
fn failure(error: &Error) -> TemplateError {
    match error.detail().and_then(|detail| detail.strip_prefix(RAISED)) {
        Some(message) if error.kind() == ErrorKind::InvalidOperation => TemplateError::Raised(message.into()),
        _ => TemplateError::Render(error.to_string()),
    }
}

/// Marks errors that templates raise themselves.
const RAISED: &str = "raised: ";

/// Output that ends where it becomes too large.
struct Bounded {
    bytes: Vec<u8>,
    full: bool,
}

impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.bytes.len() + bytes.len() > OUTPUT_BYTES_MAX {
            self.full = true;
            return Err(io::Error::other("too large"));
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Jinja as transformers sets it up. There is no `strftime_now`: a prompt must not depend on the
/// day. Templates that ask for the date fall back to a fixed one where they can do without.
fn environment() -> Result<Environment<'static>, Error> {
    let mut environment = Environment::new();
    environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.set_unknown_method_callback(python_method);
    environment.set_fuel(Some(FUEL));
    // Python's spelling of its constants.
    environment.set_formatter(|output, state, value| match value.kind() {
        ValueKind::None => Ok(output.write_str("None")?),
        ValueKind::Bool => Ok(output.write_str(if value.is_true() { "True" } else { "False" })?),
        _ => minijinja::escape_formatter(output, state, value),
    });
    environment.add_filter("tojson", to_json);
    environment.add_function("raise_exception", |message: String| -> Result<Value, Error> {
        Err(Error::new(ErrorKind::InvalidOperation, format!("{RAISED}{message}")))
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
