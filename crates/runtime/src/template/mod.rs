//! A model's own form of a conversation: the Jinja template that comes with its files, rendered as
//! Hugging Face's `apply_chat_template` does.
//!
//! Templates come from strangers, so they run in the sandbox: `guests/chat-template` is the template
//! engine as a WebAssembly guest, and `chat_template.wasm` what it was compiled to. Time, memory, stack
//! and output are bounded, and where a rendering ends is the same on every machine. Conversations come
//! from other strangers, and their texts pass through the template; `guard.rs` sees to it that none of
//! them becomes a special token.

mod guard;

use althing_exact::{PromptPart, TemplateSource};
use althing_sandbox::{Compile, Config, Failure, Files, Guest, Limits, Ran, Stop};
use guard::Guard;
use serde::Serialize;
use std::sync::LazyLock;

/// Longest template, bytes. The longest in use have about 20 KiB.
pub const SOURCE_BYTES_MAX: usize = 256 << 10;
/// Largest rendered conversation, bytes.
pub const OUTPUT_BYTES_MAX: u64 = 8 << 20;

/// What a rendering may take. A message takes some ten thousand units of fuel, and what is rendered ten a byte.
const LIMITS: Limits = Limits {
    memory_bytes_max: 256 << 20,
    cache_bytes_max: 0,
    init_fuel_max: 0,
    run_fuel_max: 2_000_000_000,
    // One byte says what follows.
    output_bytes_max: OUTPUT_BYTES_MAX + 1,
};

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
    /// Not a result: on another machine it may be rendered.
    #[error("this machine cannot render templates: {0}")]
    NoResult(String),
}

/// One message, as templates see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TemplateMessage<'a> {
    /// One of [`ROLES`]. Templates make markers of roles, so they are not strangers' to choose.
    pub role: &'a str,
    pub content: &'a str,
}

/// What the guest is asked; see `guests/chat-template`.
#[derive(Serialize)]
struct Request<'a> {
    source: &'a str,
    messages: Option<Vec<RequestMessage<'a>>>,
    answer: bool,
    bos_token: &'a str,
    eos_token: &'a str,
}

#[derive(Serialize)]
struct RequestMessage<'a> {
    role: &'a str,
    content: String,
}

/// A template ready to render conversations for one tokenizer.
#[derive(Debug)]
pub struct ChatTemplate {
    source: TemplateSource,
    guard: Guard,
}

impl ChatTemplate {
    /// A template from its source. `markers` are the texts that the tokenizer turns into special
    /// tokens ([`althing_exact::tokenizer::TextTokenizer::markers`]).
    ///
    /// # Errors
    /// [`TemplateError::Source`] if it is too long or not a template, or the markers can't be guarded.
    pub fn new(source: TemplateSource, markers: &[String]) -> Result<Self, TemplateError> {
        let length = source.source.len();
        if length > SOURCE_BYTES_MAX {
            return Err(TemplateError::Source(format!("{length} bytes, at most {SOURCE_BYTES_MAX}")));
        }
        let guard = Guard::new(markers).map_err(TemplateError::Source)?;
        let template = Self { source, guard };
        template.ask(None, false)?;
        Ok(template)
    }

    /// The prompt of a conversation. `answer` asks for the beginning of the assistant's next message.
    ///
    /// An ordinary conversation is one [`PromptPart::Markers`], tokenized as its maker's tools do it.
    /// Where a message contains the text of a special token, that text is a [`PromptPart::Text`].
    ///
    /// # Errors
    /// If the template refuses or fails, or runs out of its bounds.
    pub fn render<'a>(&self, messages: &[TemplateMessage<'a>], answer: bool) -> Result<Vec<PromptPart>, TemplateError> {
        if let Some(message) = messages.iter().find(|message| !ROLES.contains(&message.role)) {
            return Err(TemplateError::Role(message.role.into()));
        }
        let render = |edges: bool| {
            let guarded = |message: &TemplateMessage<'a>| RequestMessage {
                role: message.role,
                content: self.guard.break_markers(message.content, edges),
            };
            let text = self.ask(Some(messages.iter().map(guarded).collect()), answer)?;
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

    /// Asks the guest.
    fn ask(&self, messages: Option<Vec<RequestMessage<'_>>>, answer: bool) -> Result<String, TemplateError> {
        let TemplateSource { source, bos_token, eos_token } = &self.source;
        let failed = if messages.is_some() { TemplateError::Render } else { TemplateError::Source };
        let request = Request { source, messages, answer, bos_token, eos_token };
        let request = serde_json::to_vec(&request).expect("texts are always JSON");
        let guest = ENGINE.as_ref().map_err(|why| TemplateError::NoResult(why.clone()))?;
        match guest.run(&request, 0, &mut |_| true) {
            Ok(Ran { output, .. }) => said(output),
            Err(Stop::Failed(Failure::OutputTooLarge { .. })) => Err(TemplateError::OutputTooLarge),
            Err(Stop::Failed(failure)) => Err(failed(failure.to_string())),
            Err(Stop::NoResult(why)) => Err(TemplateError::NoResult(why.to_string())),
        }
    }
}

/// The engine of templates, compiled when the first is used.
static ENGINE: LazyLock<Result<Guest, String>> = LazyLock::new(|| {
    let module = include_bytes!("chat_template.wasm");
    Guest::new(module, Files::default(), Config { compile: Compile::Quick, ..Config::new(LIMITS) })
        .map_err(|error| error.to_string())
});

/// Begins to compile the engine, for somebody who will need it: a second of work.
pub(crate) fn warm_up() {
    // If there is no thread for it, it is done when it is needed.
    let _ = std::thread::Builder::new().name("althing-templates".into()).spawn(|| LazyLock::force(&ENGINE).is_ok());
}

/// What the guest answered.
fn said(mut answer: Vec<u8>) -> Result<String, TemplateError> {
    let text = String::from_utf8(answer.split_off(1.min(answer.len())));
    match (answer.first(), text) {
        (Some(b't'), Ok(text)) => Ok(text),
        (Some(b'r'), Ok(text)) => Err(TemplateError::Raised(text)),
        (Some(b'f'), Ok(text)) => Err(TemplateError::Render(text)),
        (Some(b's'), Ok(text)) => Err(TemplateError::Source(text)),
        _ => Err(TemplateError::NoResult("the template engine gave no answer".into())),
    }
}
