//! From a prompt to text: the loop, and pieces of text as they come.

use crate::{
    forward::Scratch,
    llama::logits_digest,
    model::TextModel,
    plan::Plan,
    sampler::{Sampler, Sampling},
    tokenizer::TokenizeError,
};

/// What a text model is asked.
#[derive(Clone, Debug, PartialEq)]
pub struct GenerateRequest {
    /// The whole prompt, markers and texts in turn.
    pub prompt: Vec<PromptPart>,
    /// Most tokens of the answer.
    pub max_tokens: usize,
    pub sampling: Sampling,
    /// Everything random in the run follows from it.
    pub seed: u64,
    /// Texts that end the answer; they are not part of it.
    pub stop: Vec<String>,
}

/// A piece of a prompt. What strangers wrote is always a text: markers inside it are plain letters,
/// so nobody can end a turn from within one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PromptPart {
    /// Special tokens in it are recognised.
    Markers(String),
    /// Special tokens in it are not.
    Text(String),
}

/// Why a generation was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GenerateError {
    #[error(
        "the model's context holds {context_tokens} tokens: {prompt_tokens} tokens of prompt leave no room for an answer"
    )]
    ContextExceeded { context_tokens: usize, prompt_tokens: usize },
    #[error("the prompt cannot be tokenized: {0}")]
    Tokenizer(#[from] TokenizeError),
    #[error("the prompt is empty")]
    EmptyPrompt,
    #[error("the run was given up")]
    GivenUp,
}

/// Why the answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FinishReason {
    /// The model ended it, or a stop text came.
    Stop,
    /// `max_tokens` or the context was reached.
    Length,
}

/// A finished answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Generation {
    pub text: String,
    pub finish_reason: FinishReason,
    pub prompt_tokens: usize,
    pub completion_tokens: usize,
    /// Digest of the logits of the last step: equal on any two machines.
    pub logits_digest: [u8; 32],
}

/// Whoever follows a generation.
pub trait Watch {
    /// The logits from which the next token is taken: once after the prompt, then after each token.
    fn logits(&mut self, _logits: &[f32]) {}
    /// The next piece of text, as soon as it is certain; says whether to go on.
    fn text(&mut self, piece: &str) -> bool;
}

impl<F: FnMut(&str) -> bool> Watch for F {
    fn text(&mut self, piece: &str) -> bool {
        self(piece)
    }
}

impl TextModel {
    /// Answers `request`; the pieces of text that `watch` gets, joined, are the text.
    ///
    /// # Errors
    /// If the prompt is empty or leaves no room, or `watch` gave up.
    pub fn generate(
        &self,
        request: &GenerateRequest,
        plan: &Plan,
        mut watch: impl Watch,
    ) -> Result<Generation, GenerateError> {
        let (llama, config) = (self.llama(), self.llama().config());
        let prompt = self.tokenizer().encode(&request.prompt)?;
        if prompt.is_empty() {
            return Err(GenerateError::EmptyPrompt);
        }
        if prompt.len() >= config.context_tokens {
            let context_tokens = config.context_tokens;
            return Err(GenerateError::ContextExceeded { context_tokens, prompt_tokens: prompt.len() });
        }
        let room = (config.context_tokens - prompt.len()).min(request.max_tokens);
        let mut cache = llama.cache();
        let mut sampler = Sampler::new(request.sampling, request.seed);
        let mut scratch = Scratch::default();
        let mut logits = llama.forward(&mut cache, &prompt, plan, &mut scratch);
        watch.logits(logits);
        let mut answer = Vec::new();
        let (mut text, mut emitted) = (String::new(), 0);
        let mut finish_reason = FinishReason::Length;
        while answer.len() < room {
            let token = sampler.sample(logits, &prompt, &answer);
            if config.eos.contains(&token) {
                finish_reason = FinishReason::Stop;
                break;
            }
            answer.push(token);
            text = self.tokenizer().decode(&answer)?;
            if let Some(at) =
                request.stop.iter().filter(|stop| !stop.is_empty()).filter_map(|stop| text.find(stop.as_str())).min()
            {
                text.truncate(at);
                finish_reason = FinishReason::Stop;
                break;
            }
            let certain = certain_bytes(&text, &request.stop);
            if certain > emitted {
                if !watch.text(&text[emitted..certain]) {
                    return Err(GenerateError::GivenUp);
                }
                emitted = certain;
            }
            if answer.len() < room {
                logits = llama.forward(&mut cache, &[token], plan, &mut scratch);
                watch.logits(logits);
            }
        }
        if text.len() > emitted && !watch.text(&text[emitted..]) {
            return Err(GenerateError::GivenUp);
        }
        Ok(Generation {
            text,
            finish_reason,
            prompt_tokens: prompt.len(),
            completion_tokens: answer.len(),
            logits_digest: logits_digest(logits),
        })
    }
}

/// How many bytes of `text` no later token can change: not an unfinished character at the end, and
/// nothing that might become a stop text.
fn certain_bytes(text: &str, stop: &[String]) -> usize {
    let mut certain = text.trim_end_matches('\u{fffd}').len();
    for stop in stop {
        let longest =
            (1..stop.len()).rev().find(|length| stop.is_char_boundary(*length) && text.ends_with(&stop[..*length]));
        if let Some(length) = longest {
            certain = certain.min(text.len() - length);
        }
    }
    certain
}

#[cfg(test)]
mod tests {
    use super::certain_bytes;

    #[test]
    fn unfinished_characters_and_possible_stop_texts_wait() {
        let stop = ["###".to_owned()];
        for (text, stop, certain) in
            [("abc", &[][..], 3), ("ab\u{fffd}", &[][..], 2), ("abc##", &stop[..], 3), ("a#b", &stop[..], 3)]
        {
            assert_eq!(certain_bytes(text, stop), certain, "{text}");
        }
    }
}
