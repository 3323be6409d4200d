//! Runs of one chat model that share its steps: they join and leave between any two.
//!
//! A step feeds the next token of every answer and a bounded piece of the prompts that are still read,
//! so a long prompt holds nobody up. Whatever the company, a run's output has the bytes that it has
//! alone: the network sees to that (`NUMERICS.md`), and everything else of a run is its own.
//!
//! A prompt starts from what was read before: by other runs in the batch, or by ended ones whose keys and
//! values are kept in [`Memory`]. Whoever begins like a prompt that is just being read waits for that.

use crate::{
    engine::{ChatEngine, RunError, output},
    memory::{Hold, Memory, REUSE_TOKENS_MIN, common},
};
use althing_exact::{Answering, KvCache, Scratch, Sequence};
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// Tokens of a step: as many as go through the layers in one pass.
const STEP_TOKENS: usize = 64;
/// Tokens of prompts that a step has at least, however many answers there are.
const PROMPT_TOKENS_MIN: usize = 16;

/// Whoever waits for a run.
pub trait Caller: Send {
    /// Gets the next piece of text as soon as it is certain; says whether to go on.
    fn text(&mut self, piece: &str) -> bool;
    /// Gets the result, and how long the model worked for this run: its share of the steps it was in.
    fn done(self: Box<Self>, result: Result<Vec<u8>, RunError>, worked: Duration);
}

/// A run that can begin.
pub struct Run {
    pub answering: Box<Answering>,
    /// Memory for at least [`ChatEngine::cache_bytes`].
    pub hold: Hold,
    pub caller: Box<dyn Caller>,
}

/// What batches did.
#[derive(Debug, Default)]
pub struct Counters {
    /// Passes through a model.
    pub steps: AtomicU64,
    /// Tokens that went through one.
    pub tokens_fed: AtomicU64,
    /// Tokens of prompts that did not have to, because they had been read before.
    pub tokens_reused: AtomicU64,
}

/// A run in the batch.
struct Running {
    answering: Box<Answering>,
    hold: Hold,
    caller: Box<dyn Caller>,
    /// The prompt and what was drawn so far: what the network is to see.
    tokens: Vec<u32>,
    /// What it has seen of that; `None` before the first piece.
    cache: Option<KvCache>,
    worked: Duration,
}

impl Running {
    fn seen(&self) -> usize {
        self.cache.as_ref().map_or(0, KvCache::tokens)
    }

    /// Tokens that the network is still to see; at least one.
    fn left(&self) -> usize {
        self.tokens.len() - self.seen()
    }

    /// Hands over the answer; what was read is kept for others.
    fn finish(mut self, engine: &ChatEngine) {
        self.tokens.truncate(self.seen());
        match self.cache {
            Some(cache) => self.hold.keep(engine.key(), self.tokens, cache),
            None => drop(self.hold),
        }
        self.caller.done(output(Ok(self.answering.finish(engine.model()))), self.worked);
    }
}

/// How a run goes on.
enum Next {
    Token(u32),
    Whole,
    /// Without an answer: a refusal, or no result.
    Over(Result<Vec<u8>, RunError>),
}

/// The runs of one model.
pub struct Batch {
    engine: Arc<ChatEngine>,
    memory: Arc<Memory>,
    counters: Arc<Counters>,
    runs: Vec<Running>,
    scratch: Scratch,
}

impl Batch {
    /// No runs yet.
    pub fn new(engine: Arc<ChatEngine>, memory: Arc<Memory>, counters: Arc<Counters>) -> Self {
        Self { engine, memory, counters, runs: Vec::new(), scratch: Scratch::default() }
    }

    /// Runs that have not ended.
    pub fn len(&self) -> usize {
        self.runs.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// Takes a run into the next step.
    pub fn add(&mut self, Run { answering, hold, caller }: Run) {
        let tokens = answering.prompt().to_vec();
        self.runs.push(Running { answering, hold, caller, tokens, cache: None, worked: Duration::ZERO });
    }

    /// One step of all runs; those that end leave. A panic in the step leaves the runs that were in it
    /// without a result, one in what is a run's own that run alone.
    pub fn step(&mut self) {
        let started = Instant::now();
        self.begin();
        let pieces = self.pieces();
        let Self { engine, counters, runs, scratch, .. } = self;
        let (decoder, mut sequences) = (engine.model().decoder(), Vec::new());
        for (run, piece) in runs.iter_mut().zip(&pieces) {
            if let (Some(cache), 1..) = (&mut run.cache, *piece) {
                let tokens = &run.tokens[cache.tokens()..][..*piece];
                // Logits after the last token that there is, none before.
                let complete = cache.tokens() + piece == run.tokens.len();
                sequences.push(Sequence { cache, tokens, logits_from: piece - usize::from(complete) });
            }
        }
        let logits = catch_unwind(AssertUnwindSafe(|| {
            let logits = decoder.forward_batch(&mut sequences, engine.plan(), &mut *scratch);
            logits.chunks_exact(decoder.vocab_size()).map(<[f32]>::to_vec).collect::<Vec<_>>()
        }));
        let (took, fed) = (started.elapsed(), pieces.iter().sum::<usize>());
        counters.steps.fetch_add(1, Ordering::Relaxed);
        counters.tokens_fed.fetch_add(fed as u64, Ordering::Relaxed);
        let failed = logits.is_err();
        if failed {
            *scratch = Scratch::default();
        }
        let mut logits = logits.unwrap_or_default().into_iter();
        for (mut run, piece) in std::mem::take(runs).into_iter().zip(pieces) {
            run.worked += share(took, piece, fed);
            if piece == 0 || (!failed && run.left() > 0) {
                runs.push(run);
                continue;
            }
            let drawing = Instant::now();
            let next = match logits.next() {
                Some(logits) => draw(engine, &mut run, &logits),
                None => Next::Over(Err(panicked())),
            };
            run.worked += drawing.elapsed();
            match next {
                Next::Token(token) => {
                    run.tokens.push(token);
                    runs.push(run);
                }
                Next::Whole => run.finish(engine),
                Next::Over(result) => {
                    // What a failed step left in its memory is not to be trusted, so nothing is kept.
                    drop((run.cache, run.hold));
                    run.caller.done(result, run.worked);
                }
            }
        }
    }

    /// Lets runs begin that have not, unless somebody is just reading what they begin with.
    fn begin(&mut self) {
        for index in 0..self.runs.len() {
            if self.runs[index].cache.is_some() {
                continue;
            }
            let prompt = &self.runs[index].tokens;
            // The last token has to be seen in any case: the answer begins with its logits.
            let usable = &prompt[..prompt.len() - 1];
            let (mut there, mut coming) = ((0, None), 0);
            for (other, run) in self.runs.iter().enumerate() {
                if let Some(cache) = &run.cache {
                    let alike = common(usable, &run.tokens);
                    there = there.max((alike.min(cache.tokens()), Some(other)));
                    coming = coming.max(alike);
                }
            }
            let kept = self.memory.kept_tokens(self.engine.key(), usable);
            let best = kept.max(there.0);
            if coming >= best + REUSE_TOKENS_MIN {
                continue;
            }
            let reused = match there {
                _ if best < REUSE_TOKENS_MIN => None,
                (tokens, Some(other)) if tokens >= kept => self.runs[other].cache.clone(),
                _ => self.memory.reuse(self.engine.key(), usable),
            };
            let mut cache = reused.unwrap_or_else(|| self.engine.model().decoder().cache());
            cache.truncate(best);
            self.counters.tokens_reused.fetch_add(cache.tokens() as u64, Ordering::Relaxed);
            self.runs[index].cache = Some(cache);
        }
    }

    /// How many tokens of each run the next step feeds: the one that each answer waits for, and of
    /// prompts equal shares of what a step has beside that.
    fn pieces(&self) -> Vec<usize> {
        let reads = |run: &&Running| run.cache.is_some() && run.left() > 1;
        let mut readers = self.runs.iter().filter(reads).count();
        let answers = self.runs.iter().filter(|run| run.cache.is_some()).count() - readers;
        let mut budget = STEP_TOKENS.saturating_sub(answers).max(PROMPT_TOKENS_MIN);
        let piece = |run: &Running| match (&run.cache, run.left()) {
            (None, _) => 0,
            (_, 1) => 1,
            (_, left) => {
                let piece = left.min(budget.div_ceil(readers));
                (budget, readers) = (budget - piece, readers - 1);
                piece
            }
        };
        self.runs.iter().map(piece).collect()
    }
}

/// A run's part of the time of a step, by its tokens.
fn share(took: Duration, piece: usize, fed: usize) -> Duration {
    let [piece, fed] = [piece, fed.max(1)].map(|tokens| u32::try_from(tokens).expect("a step has few tokens"));
    took * piece / fed
}

fn panicked() -> RunError {
    RunError::Engine("it panicked".into())
}

/// Draws a run's next token.
fn draw(engine: &ChatEngine, run: &mut Running, logits: &[f32]) -> Next {
    let Running { answering, caller, .. } = run;
    let step = || answering.step(engine.model(), logits, &mut |piece: &str| caller.text(piece));
    match catch_unwind(AssertUnwindSafe(step)) {
        Ok(Ok(Some(token))) => Next::Token(token),
        Ok(Ok(None)) => Next::Whole,
        Ok(Err(error)) => Next::Over(output(Err(error))),
        Err(_) => Next::Over(Err(panicked())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ChatInput, Engine, Package, Prepared};
    use std::{path::Path, sync::mpsc};

    struct Send(mpsc::Sender<Result<Vec<u8>, RunError>>);

    impl Caller for Send {
        fn text(&mut self, _piece: &str) -> bool {
            true
        }

        fn done(self: Box<Self>, result: Result<Vec<u8>, RunError>, _worked: Duration) {
            self.0.send(result).unwrap();
        }
    }

    #[test]
    fn a_step_that_panics_ends_the_runs_in_it_and_nothing_else() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../exact/tests/fixtures/llama.gguf");
        let engine = crate::load(&Package::from_path(&file).unwrap(), 2).unwrap();
        let engine = Arc::<dyn Engine>::from(engine).chat().unwrap();
        let memory = Memory::new(u64::MAX, u64::MAX, || {});
        let mut batch = Batch::new(engine.clone(), memory.clone(), Arc::default());
        let input = |text: &str| ChatInput { max_tokens: Some(8), ..ChatInput::ask(text) }.to_bytes();
        let add = |batch: &mut Batch, text: &str| {
            let Prepared::Answer(answering) = engine.prepare(&input(text), 1).unwrap() else { panic!("refused") };
            let hold = memory.hold(engine.cache_bytes(&answering)).unwrap();
            let (sender, result) = mpsc::channel();
            batch.add(Run { answering, hold, caller: Box::new(Send(sender)) });
            result
        };
        let finish = |batch: &mut Batch| {
            while !batch.is_empty() {
                batch.step();
            }
        };
        let kept = add(&mut batch, "The thing was what they could settle on");
        finish(&mut batch);
        let (good, bad) = (add(&mut batch, "The thing was"), add(&mut batch, "Wherever"));
        batch.step();
        batch.runs[1].tokens.push(u32::MAX);
        batch.step();
        for lost in [good, bad] {
            assert_eq!(lost.try_recv().unwrap(), Err(panicked()));
        }
        // Neither the batch nor what was kept is the worse for it.
        let longer = "The thing was what they could settle on, and no number";
        let later = [(add(&mut batch, longer), longer), (add(&mut batch, "The thing was"), "The thing was")];
        finish(&mut batch);
        for (result, text) in later.into_iter().chain([(kept, "The thing was what they could settle on")]) {
            assert_eq!(result.try_recv().unwrap().unwrap(), engine.run(&input(text), 1, &mut |_| true).unwrap());
        }
        assert_eq!(memory.usage().held_bytes, 0);
    }
}
