//! From a conversation to a prompt: by the package's markers, or by the template in the model's files.

use crate::{
    chat::{ChatMessage, Role},
    package::Template,
};
use althing_exact::{
    PromptPart, TextModel,
    template::{TemplateError, TemplateMessage},
};

/// The prompt of a conversation, up to the beginning of the answer. What people wrote never becomes a
/// special token.
///
/// # Errors
/// Why there is none, in words that are the same on every machine: they are part of a result.
pub(crate) fn chat_prompt(
    model: &TextModel,
    markers: Option<&Template>,
    messages: &[ChatMessage],
) -> Result<Vec<PromptPart>, String> {
    match (markers, model.template()) {
        (Some(markers), _) => with_markers(markers, messages),
        (None, Some(template)) => {
            let messages: Vec<_> = messages.iter().map(as_template_sees).collect();
            template.render(&messages, true).map_err(|error| match error {
                // The template's own words.
                TemplateError::Raised(why) => format!("the model's template refuses this conversation: {why}"),
                TemplateError::OutputTooLarge => error.to_string(),
                // The engine's words may change with its version.
                _ => "the model's template fails on this conversation".into(),
            })
        }
        (None, None) => Err("this model has no form for conversations".into()),
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
