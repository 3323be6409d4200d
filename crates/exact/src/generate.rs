//! From a prompt to text: the loop, pieces of text as they come, and the check of somebody's answer.

use crate::{
    decoder::{Scratch, Sequence, logits_digest},
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
    /// What was drawn: the answer's tokens, and the one that ended it if one did.
    pub tokens: Vec<u32>,
    /// Digest of the logits of the last step: equal on any two machines.
    pub logits_digest: [u8; 32],
}

/// Whoever follows a generation.
pub trait Watch {
    /// The logits from which the next token is taken: once after the prompt, then after each token.
    fn logits(&mut self, _logits: &[f32]) {}
    /// What was drawn from them.
    fn token(&mut self, _token: u32, _logits: &[f32]) {}
    /// The next piece of text, as soon as it is certain; says whether to go on.
    fn text(&mut self, piece: &str) -> bool;
}

impl<F: FnMut(&str) -> bool> Watch for F {
    fn text(&mut self, piece: &str) -> bool {
        self(piece)
    }
}

/// Why somebody's tokens are not the answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CheckError {
    #[error("token {index} is {claimed}, the model and the seed give {drawn}")]
    Token { index: usize, claimed: u32, drawn: u32 },
    #[error("the answer ends after {0} tokens, which are not all that were claimed")]
    EndsEarlier(usize),
    #[error("the answer goes on after the {0} tokens that were claimed")]
    GoesOn(usize),
    #[error(transparent)]
    Generate(#[from] GenerateError),
}

/// An answer on its way: everything but the network. Whoever runs the network feeds it tokens and
/// hands over the logits, one answer or many at once.
pub struct Answering {
    stop: Vec<String>,
    prompt: Vec<u32>,
    sampler: Sampler,
    /// Most tokens of the answer.
    room: usize,
    /// What was drawn so far.
    drawn: Vec<u32>,
    /// Its text, of which the first bytes were shown.
    text: String,
    shown: usize,
    finished: Option<FinishReason>,
    logits_digest: [u8; 32],
}

impl Answering {
    /// Reads the prompt.
    ///
    /// # Errors
    /// If it is empty, cannot be tokenized or leaves no room.
    pub fn new(model: &TextModel, request: &GenerateRequest) -> Result<Self, GenerateError> {
        let context_tokens = model.context_tokens();
        let prompt = model.tokenizer().encode(&request.prompt)?;
        if prompt.is_empty() {
            return Err(GenerateError::EmptyPrompt);
        }
        if prompt.len() >= context_tokens {
            return Err(GenerateError::ContextExceeded { context_tokens, prompt_tokens: prompt.len() });
        }
        Ok(Self {
            stop: request.stop.clone(),
            room: (context_tokens - prompt.len()).min(request.max_tokens),
            prompt,
            sampler: Sampler::new(request.sampling, request.seed),
            drawn: Vec::new(),
            text: String::new(),
            shown: 0,
            finished: None,
            logits_digest: [0; 32],
        })
    }

    /// The tokens of the prompt: what the network is fed first.
    pub fn prompt(&self) -> &[u32] {
        &self.prompt
    }

    /// Most tokens that the network will have seen, of prompt and answer.
    pub fn tokens_max(&self) -> usize {
        self.prompt.len() + self.room
    }

    /// Draws the next token from the logits after everything that was fed. Returns the token to feed
    /// next, `None` if the answer has ended.
    ///
    /// # Errors
    /// If the tokenizer fails or `watch` gave up.
    pub fn step(
        &mut self,
        model: &TextModel,
        logits: &[f32],
        watch: &mut impl Watch,
    ) -> Result<Option<u32>, GenerateError> {
        watch.logits(logits);
        let finished = self.draw(model, logits, watch)?;
        if finished.is_some() {
            self.logits_digest = logits_digest(logits);
            self.finished = finished;
        }
        let certain = match finished {
            Some(_) => self.text.len(),
            None => certain_bytes(&self.text, &self.stop),
        };
        if certain > self.shown {
            if !watch.text(&self.text[self.shown..certain]) {
                return Err(GenerateError::GivenUp);
            }
            self.shown = certain;
        }
        Ok(match finished {
            Some(_) => None,
            None => self.drawn.last().copied(),
        })
    }

    fn draw(
        &mut self,
        model: &TextModel,
        logits: &[f32],
        watch: &mut impl Watch,
    ) -> Result<Option<FinishReason>, GenerateError> {
        if self.room == 0 {
            return Ok(Some(FinishReason::Length));
        }
        let token = self.sampler.sample(logits, &self.prompt, &self.drawn);
        watch.token(token, logits);
        self.drawn.push(token);
        if model.special().eos.contains(&token) {
            return Ok(Some(FinishReason::Stop));
        }
        self.text = model.tokenizer().decode(&self.drawn)?;
        let stops = self.stop.iter().filter(|stop| !stop.is_empty());
        if let Some(at) = stops.filter_map(|stop| self.text.find(stop.as_str())).min() {
            self.text.truncate(at);
            return Ok(Some(FinishReason::Stop));
        }
        Ok((self.drawn.len() == self.room).then_some(FinishReason::Length))
    }

    /// The answer, once [`Answering::step`] has said that it ended.
    ///
    /// # Panics
    /// If it has not.
    pub fn finish(self, model: &TextModel) -> Generation {
        let ended_by_token = self.drawn.last().is_some_and(|token| model.special().eos.contains(token));
        Generation {
            text: self.text,
            finish_reason: self.finished.expect("asked for after the end"),
            prompt_tokens: self.prompt.len(),
            completion_tokens: self.drawn.len() - usize::from(ended_by_token),
            tokens: self.drawn,
            logits_digest: self.logits_digest,
        }
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
        let mut answering = Answering::new(self, request)?;
        let (mut cache, mut scratch) = (self.decoder().cache(), Scratch::default());
        let mut logits = self.decoder().forward(&mut cache, answering.prompt(), plan, &mut scratch);
        while let Some(token) = answering.step(self, logits, &mut watch)? {
            logits = self.decoder().forward(&mut cache, &[token], plan, &mut scratch);
        }
        Ok(answering.finish(self))
    }

    /// Checks that `tokens` are what `request` gives, all of them: those of the answer and the one
    /// that ended it, as [`Generation::tokens`] has them. They go through the network together, like
    /// a prompt, which is faster than answering; `watch` sees what it would see of the answer.
    ///
    /// # Errors
    /// Which token is wrong, or that there are too few or too many; errors as of
    /// [`TextModel::generate`].
    pub fn check(
        &self,
        request: &GenerateRequest,
        tokens: &[u32],
        plan: &Plan,
        mut watch: impl Watch,
    ) -> Result<Generation, CheckError> {
        let mut answering = Answering::new(self, request)?;
        let room = answering.room;
        // Of a longer claim, as much as can be right is looked at.
        let fed: Vec<u32> =
            answering.prompt().iter().chain(tokens.iter().take(room.saturating_sub(1))).copied().collect();
        let vocab_size = self.decoder().vocab_size();
        let fed = &fed[..fed.iter().position(|token| *token as usize >= vocab_size).unwrap_or(fed.len())];
        let (mut cache, mut scratch) = (self.decoder().cache(), Scratch::default());
        let first = answering.prompt().len() - 1;
        for piece in fed.chunks(CHECK_TOKENS) {
            let logits_from = first.saturating_sub(cache.tokens());
            let mut sequence = [Sequence { cache: &mut cache, tokens: piece, logits_from }];
            for logits in self.decoder().forward_batch(&mut sequence, plan, &mut scratch).chunks_exact(vocab_size) {
                let ended = answering.step(self, logits, &mut watch)?.is_none();
                let index = answering.drawn.len().saturating_sub(1);
                match (answering.drawn.last().copied(), tokens.get(index).copied()) {
                    (Some(drawn), Some(claimed)) if drawn != claimed => {
                        return Err(CheckError::Token { index, claimed, drawn });
                    }
                    (Some(_), None) => return Err(CheckError::GoesOn(tokens.len())),
                    _ => {}
                }
                if ended {
                    let count = answering.drawn.len();
                    return if tokens.len() > count {
                        Err(CheckError::EndsEarlier(count))
                    } else {
                        Ok(answering.finish(self))
                    };
                }
            }
        }
        Err(CheckError::GoesOn(tokens.len()))
    }
}

/// Tokens of a claimed answer that are looked at together: bounds the memory of their logits.
const CHECK_TOKENS: usize = 64;

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
