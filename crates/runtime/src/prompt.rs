//! From a conversation to a prompt: by the package's markers, or by the template in the model's files.

use crate::{
    chat::{ChatMessage, Role},
    package::Template,
    template::{ChatTemplate, TemplateError, TemplateMessage},
};
use althing_exact::{PromptPart, TextModel};

/// Why a conversation has no prompt.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PromptError {
    /// In words that are the same on every machine: they are part of a result.
    #[error("{0}")]
    Refused(String),
    /// Nothing follows from it.
    #[error("{0}")]
    NoResult(String),
}

/// How conversations with a model are written.
#[derive(Debug)]
pub(crate) enum Prompts {
    Markers(Template),
    Template(ChatTemplate),
    /// The model only continues texts.
    None,
}

impl Prompts {
    /// By the package's markers, or else by the template in the model's files.
    ///
    /// # Errors
    /// If the template is none.
    pub(crate) fn new(model: &TextModel, markers: Option<&Template>) -> Result<Self, TemplateError> {
        Ok(match (markers, model.template()) {
            (Some(markers), _) => Self::Markers(markers.clone()),
            (None, Some(template)) => Self::Template(ChatTemplate::new(template.clone(), model.tokenizer().markers())?),
            (None, None) => Self::None,
        })
    }

    /// The prompt of a conversation, up to the beginning of the answer. What people wrote never becomes a
    /// special token.
    ///
    /// # Errors
    /// Why there is none.
    pub(crate) fn write(&self, messages: &[ChatMessage]) -> Result<Vec<PromptPart>, PromptError> {
        match self {
            Self::Markers(markers) => with_markers(markers, messages).map_err(PromptError::Refused),
            Self::Template(template) => {
                let messages: Vec<_> = messages.iter().map(as_template_sees).collect();
                template.render(&messages, true).map_err(|error| match error {
                    // The template's own words.
                    TemplateError::Raised(why) => {
                        PromptError::Refused(format!("the model's template refuses this conversation: {why}"))
                    }
                    TemplateError::OutputTooLarge => PromptError::Refused(error.to_string()),
                    TemplateError::NoResult(_) => PromptError::NoResult(error.to_string()),
                    // The engine's words may change with its version.
                    _ => PromptError::Refused("the model's template fails on this conversation".into()),
                })
            }
            Self::None => Err(PromptError::Refused("this model has no form for conversations".into())),
        }
    }
}

fn as_template_sees(message: &ChatMessage) -> TemplateMessage<'_> {
    let role = match message.role {
        Role::System => "system",
        Role::User => "user",
        Role::Assistant => "assistant",
    };
    TemplateMessage { role, content: &message.content }
}

fn with_markers(markers: &Template, messages: &[ChatMessage]) -> Result<Vec<PromptPart>, String> {
    let mut prompt = Vec::new();
    for message in messages {
        let [before, after] = match message.role {
            Role::System => markers.system.as_ref().ok_or("this model takes no system messages")?,
            Role::User => &markers.user,
            Role::Assistant => &markers.assistant,
        };
        prompt.push(PromptPart::Markers(before.clone()));
        prompt.push(PromptPart::Text(message.content.clone()));
        prompt.push(PromptPart::Markers(after.clone()));
    }
    prompt.push(PromptPart::Markers(markers.answer.clone()));
    Ok(prompt)
}
