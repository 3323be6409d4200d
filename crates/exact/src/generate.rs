//! From a prompt to text: the tokenizer, the loop, and pieces of text as they come.

use crate::{
    config::Config,
    llama::{Llama, LoadError, logits_digest},
    matmul::Plan,
    sampler::{Sampler, Sampling},
};
use tokenizers::Tokenizer;

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
    Tokenizer(String),
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

/// A language model with its tokenizer.
pub struct TextModel {
    llama: Llama,
    tokenizer: Tokenizer,
    /// The same tokenizer, to which special tokens are plain text.
    tokenizer_plain: Tokenizer,
}

impl TextModel {
    /// Loads a model from the bytes of its three files.
    ///
    /// # Errors
    /// Which file is wrong, and what about it.
    pub fn load(config: &[u8], tokenizer: &[u8], weights: &[u8]) -> Result<Self, LoadError> {
        let config = Config::parse(config)?;
        let tokenizer = Tokenizer::from_bytes(tokenizer).map_err(|error| LoadError::Tokenizer(error.to_string()))?;
        if tokenizer.get_vocab_size(true) > config.vocab_size {
            return Err(LoadError::Tokenizer("more tokens than the model's vocabulary".into()));
        }
        let mut tokenizer_plain = tokenizer.clone();
        tokenizer_plain.set_encode_special_tokens(true);
        Ok(Self { llama: Llama::from_safetensors(config, weights)?, tokenizer, tokenizer_plain })
    }

    /// Longest prompt and answer together, tokens.
    pub fn context_tokens(&self) -> usize {
        self.llama.config().context_tokens
    }

    /// The tokens of a prompt.
    ///
    /// # Errors
    /// If the tokenizer refuses it.
    pub fn tokenize(&self, prompt: &[PromptPart]) -> Result<Vec<u32>, GenerateError> {
        let mut tokens = Vec::new();
        for part in prompt {
            let (tokenizer, text) = match part {
                PromptPart::Markers(text) => (&self.tokenizer, text),
                PromptPart::Text(text) => (&self.tokenizer_plain, text),
            };
            let encoding = tokenizer.encode_fast(text.as_str(), false);
            tokens.extend_from_slice(encoding.map_err(|error| GenerateError::Tokenizer(error.to_string()))?.get_ids());
        }
        // A token beyond the embedding can only come from a tokenizer that does not fit the model.
        match tokens.iter().find(|token| **token as usize >= self.llama.config().vocab_size) {
            Some(token) => Err(GenerateError::Tokenizer(format!("token {token} is not in the model's vocabulary"))),
            None => Ok(tokens),
        }
    }

    /// Answers `request`, calling `emit` with each new piece of text as soon as it is certain; the
    /// pieces joined are the text. `emit` returns whether to go on.
    ///
    /// # Errors
    /// If the prompt is empty or leaves no room, or `emit` gave up.
    pub fn generate(
        &self,
        request: &GenerateRequest,
        plan: Plan,
        mut emit: impl FnMut(&str) -> bool,
    ) -> Result<Generation, GenerateError> {
        let config = self.llama.config();
        let prompt = self.tokenize(&request.prompt)?;
        if prompt.is_empty() {
            return Err(GenerateError::EmptyPrompt);
        }
        if prompt.len() >= config.context_tokens {
            let context_tokens = config.context_tokens;
            return Err(GenerateError::ContextExceeded { context_tokens, prompt_tokens: prompt.len() });
        }
        let room = (config.context_tokens - prompt.len()).min(request.max_tokens);
        let mut cache = self.llama.cache();
        let mut sampler = Sampler::new(request.sampling, request.seed);
        let mut seen = prompt.clone();
        let mut logits = self.llama.forward(&mut cache, &prompt, plan);
        let mut answer = Vec::new();
        let (mut text, mut emitted) = (String::new(), 0);
        let mut finish_reason = FinishReason::Length;
        while answer.len() < room {
            let token = sampler.sample(&logits, &seen);
            if config.eos.contains(&token) {
                finish_reason = FinishReason::Stop;
                break;
            }
            answer.push(token);
            seen.push(token);
            text = self.decode(&answer)?;
            if let Some(at) =
                request.stop.iter().filter(|stop| !stop.is_empty()).filter_map(|stop| text.find(stop.as_str())).min()
            {
                text.truncate(at);
                finish_reason = FinishReason::Stop;
                break;
            }
            let certain = certain_bytes(&text, &request.stop);
            if certain > emitted {
                if !emit(&text[emitted..certain]) {
                    return Err(GenerateError::GivenUp);
                }
                emitted = certain;
            }
            if answer.len() < room {
                logits = self.llama.forward(&mut cache, &[token], plan);
            }
        }
        if text.len() > emitted && !emit(&text[emitted..]) {
            return Err(GenerateError::GivenUp);
        }
        Ok(Generation {
            text,
            finish_reason,
            prompt_tokens: prompt.len(),
            completion_tokens: answer.len(),
            logits_digest: logits_digest(&logits),
        })
    }

    fn decode(&self, tokens: &[u32]) -> Result<String, GenerateError> {
        self.tokenizer.decode(tokens, true).map_err(|error| GenerateError::Tokenizer(error.to_string()))
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
