//! Running a model from its files, without a network: what it answers, how fast, and with which bits.

use crate::{
    batch::{Batch, Caller, Run},
    chat::{ChatMessage, Role},
    engine::{ChatEngine, RunError},
    memory::Memory,
    package::{Manifest, Package, PackageError},
    prompt::Prompts,
};
use althing_exact::{
    Answering, EmbeddingModel, GenerateError, GenerateRequest, OpenError, Scratch, Sequence, TextModel, Trace,
    TraceKey, Watch,
    decoder::LogitsHasher,
    generate::CheckError,
    model::EmbedError,
    trace::{TRACE_VERSION, TraceBinding, TraceEnd},
};
pub use althing_exact::{FinishReason, Level, Plan, Sampling, decoder::logits_digest, model::Embeddings};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

/// Why a model was not run.
#[derive(Debug, thiserror::Error)]
pub enum LocalError {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error("model.toml: {0}")]
    Manifest(#[from] toml::de::Error),
    #[error("{0}")]
    Prompt(String),
    #[error(transparent)]
    Generate(#[from] GenerateError),
    #[error(transparent)]
    Embed(#[from] EmbedError),
    #[error(transparent)]
    Package(#[from] PackageError),
}

/// What a local model is asked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LocalRequest {
    pub prompt: String,
    /// Whether the prompt is a user's message, rather than a text to be continued.
    pub chat: bool,
    pub seed: u64,
    pub max_tokens: usize,
    pub sampling: Sampling,
    pub stop: Vec<String>,
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct LocalRun {
    pub text: String,
    pub finish_reason: FinishReason,
    pub prompt_tokens: usize,
    pub completion_tokens: usize,
    /// Time in which the prompt was read.
    pub prefill: Duration,
    /// Time in which tokens of the answer went through the model, and the next ones were chosen.
    pub decode: Duration,
    /// How many tokens that were.
    pub decode_tokens: usize,
    /// SHA-256 over the bits of all logits from which a token was chosen: equal on any two machines.
    pub logits_digest: [u8; 32],
    pub transcript: LocalTranscript,
}

/// An answer that whoever has the model can check, in the time of reading it. (V-4)
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LocalTranscript {
    /// Of the definition of traces.
    pub trace_version: u32,
    pub request: LocalRequest,
    pub text: String,
    /// All that were drawn, the one that ended the answer included.
    pub tokens: Vec<u32>,
    /// Hexadecimal: over the logits of every step, under the seed's key, bound to no package.
    pub trace_root: String,
}

/// Why a transcript is not the model's.
#[derive(Debug, thiserror::Error)]
pub enum TranscriptError {
    #[error("it has traces of version {0}, this version makes {TRACE_VERSION}")]
    Version(u32),
    #[error(transparent)]
    Tokens(#[from] CheckError),
    #[error("its text is not that of its tokens")]
    Text,
    #[error("the tokens are right, but its trace root is {claimed}, and this model's is {computed}")]
    Root { claimed: String, computed: String },
    #[error(transparent)]
    Local(#[from] LocalError),
}

/// A model in memory.
pub struct LocalModel {
    model: TextModel,
    manifest: Option<Manifest>,
}

impl LocalModel {
    /// Opens a GGUF file, a directory of Hugging Face's files, or a package of these.
    ///
    /// # Errors
    /// Which file is missing or wrong, and what about it.
    pub fn open(path: &Path) -> Result<Self, LocalError> {
        let manifest = std::fs::read_to_string(path.join("model.toml")).ok();
        let manifest: Option<Manifest> = manifest.map(|text| toml::from_str(&text)).transpose()?;
        let model = match manifest.as_ref().and_then(Manifest::gguf) {
            Some(file) => TextModel::open(&path.join(file))?,
            None => TextModel::open(path)?,
        };
        Ok(Self { model, manifest })
    }

    /// The sampling that the package asks for, if it is one.
    pub fn sampling(&self) -> Sampling {
        self.manifest.as_ref().map_or_else(Sampling::default, |manifest| manifest.sampling.into())
    }

    /// Bytes of the weights in memory.
    pub fn weights_bytes(&self) -> usize {
        self.model.decoder().bytes()
    }

    /// Runs it; `emit` gets the text piece by piece and says whether to go on.
    ///
    /// # Errors
    /// If the prompt cannot be used, or `emit` gave up.
    pub fn run(
        &self,
        request: &LocalRequest,
        plan: &Plan,
        emit: impl FnMut(&str) -> bool,
    ) -> Result<LocalRun, LocalError> {
        let mut meter = Meter::new(emit, TraceKey::from_seed(request.seed));
        let answer = self.model.generate(&self.generate_request(request)?, plan, &mut meter)?;
        let trace_root = root(&meter.trace, request, request.seed, answer.finish_reason.into());
        Ok(LocalRun {
            finish_reason: answer.finish_reason,
            prompt_tokens: answer.prompt_tokens,
            completion_tokens: answer.completion_tokens,
            prefill: meter.prefill.unwrap_or_default(),
            decode: meter.decode,
            decode_tokens: meter.decode_tokens,
            logits_digest: meter.hasher.finish(),
            transcript: LocalTranscript {
                trace_version: TRACE_VERSION,
                request: request.clone(),
                text: answer.text.clone(),
                tokens: answer.tokens,
                trace_root,
            },
            text: answer.text,
        })
    }

    /// Checks somebody's answer: every token, the text, and the root over all logits. (V-4)
    ///
    /// # Errors
    /// What about it is not what this model gives.
    pub fn check(&self, transcript: &LocalTranscript, plan: &Plan) -> Result<(), TranscriptError> {
        let LocalTranscript { trace_version, request, text, tokens, trace_root } = transcript;
        if *trace_version != TRACE_VERSION {
            return Err(TranscriptError::Version(*trace_version));
        }
        let mut trace = Trace::new(TraceKey::from_seed(request.seed));
        let answer = self.model.check(&self.generate_request(request)?, tokens, plan, &mut trace)?;
        if answer.text != *text {
            return Err(TranscriptError::Text);
        }
        let computed = root(&trace, request, request.seed, answer.finish_reason.into());
        if computed != *trace_root {
            return Err(TranscriptError::Root { claimed: trace_root.clone(), computed });
        }
        Ok(())
    }

    fn generate_request(&self, request: &LocalRequest) -> Result<GenerateRequest, LocalError> {
        let prompt = if request.chat {
            let markers = self.manifest.as_ref().and_then(|manifest| manifest.chat.as_ref());
            let message = ChatMessage { role: Role::User, content: request.prompt.clone() };
            let prompts = Prompts::new(&self.model, markers).map_err(PackageError::from)?;
            prompts.write(&[message]).map_err(|error| LocalError::Prompt(error.to_string()))?
        } else {
            self.model.plain_prompt(&request.prompt)
        };
        Ok(GenerateRequest {
            prompt,
            max_tokens: request.max_tokens,
            sampling: request.sampling,
            seed: request.seed,
            stop: request.stop.clone(),
        })
    }
}

/// The root of a local run, in hexadecimal; its input as JSON, bound to no package.
fn root<T: Serialize + ?Sized>(trace: &Trace, input: &T, seed: u64, end: TraceEnd) -> String {
    let input = serde_json::to_vec(input).expect("strings and finite numbers are always JSON");
    let input_hash = Sha256::digest(&input).into();
    hex::encode(trace.root(&TraceBinding { package: &[], input_hash, seed, end }))
}

/// An embedding model in memory.
pub struct LocalEmbeddingModel(EmbeddingModel);

impl LocalEmbeddingModel {
    /// Opens a GGUF file, a directory of Hugging Face's files, or a package of these.
    ///
    /// # Errors
    /// Which file is missing or wrong, and what about it.
    pub fn open(path: &Path) -> Result<Self, LocalError> {
        if path.join("model.toml").is_file() {
            return Ok(Self(crate::engine::load_embedding(&Package::from_path(path)?)?));
        }
        Ok(Self(EmbeddingModel::open(path)?))
    }

    /// Bytes of the weights in memory.
    pub fn weights_bytes(&self) -> usize {
        self.0.encoder().bytes()
    }

    /// The vectors of several texts, and the trace root over every layer, in hexadecimal: under the
    /// key of seed 0, bound to no package. (V-4)
    ///
    /// # Errors
    /// Which text is empty, too long or cannot be tokenized.
    pub fn embed(&self, texts: &[String], plan: &Plan) -> Result<(Embeddings, String), LocalError> {
        let mut trace = Trace::new(TraceKey::from_seed(0));
        let embeddings = self.0.embed(texts, plan, &mut trace)?;
        Ok((embeddings, root(&trace, texts, 0, TraceEnd::Whole)))
    }
}

/// How fast a model is on tokens that mean nothing.
#[derive(Clone, Copy, Debug)]
pub struct Speed {
    /// Tokens per second of a prompt.
    pub prefill: f64,
    /// Tokens per second of an answer.
    pub decode: f64,
    /// Time that a trace of every step takes, as a part of the decode's. (V-4)
    pub trace_part: f64,
    /// Tokens per second of several answers at once, together.
    pub decode_batched: f64,
}

impl LocalModel {
    /// Measures: a prompt of `prompt` tokens, an answer of `answer` tokens after it, and `batch` such
    /// answers at once. The best of three each: what else runs on the machine only ever slows it down.
    ///
    /// # Errors
    /// [`LocalError::Prompt`] if the model's context does not hold as much.
    pub fn measure(&self, prompt: usize, answer: usize, batch: usize, plan: &Plan) -> Result<Speed, LocalError> {
        let decoder = self.model.decoder();
        let holds = decoder.context_tokens();
        if prompt == 0 || answer == 0 || batch == 0 || prompt + answer > holds {
            return Err(LocalError::Prompt(format!(
                "prompt and answer have at least 1 and together at most {holds} tokens"
            )));
        }
        let token =
            |i: usize| u32::try_from((i * 37 + 11) % decoder.vocab_size()).expect("vocabularies are below 2^20");
        let tokens: Vec<u32> = (0..prompt).map(token).collect();
        let mut scratch = Scratch::default();
        let mut speed = Speed { prefill: 0.0, decode: 0.0, trace_part: f64::INFINITY, decode_batched: 0.0 };
        for _ in 0..3 {
            let mut cache = decoder.cache();
            speed.prefill = speed.prefill.max(per_second(prompt, || {
                decoder.forward(&mut cache, &tokens, plan, &mut scratch);
            }));
            let mut caches = vec![cache.clone(); batch];
            speed.decode = speed.decode.max(per_second(answer, || {
                for i in 0..answer {
                    decoder.forward(&mut cache, &[token(i)], plan, &mut scratch);
                }
            }));
            let logits = vec![0.5; decoder.vocab_size()];
            let mut trace = Trace::new(TraceKey::from_seed(0));
            let traced = per_second(answer, || (0..answer).for_each(|i| (&mut trace).token(token(i), &logits)));
            speed.trace_part = speed.trace_part.min(speed.decode / traced);
            speed.decode_batched = speed.decode_batched.max(per_second(answer * batch, || {
                for i in 0..answer {
                    let next = [token(i)];
                    let mut sequences: Vec<_> = caches.iter_mut().map(|cache| Sequence::last(cache, &next)).collect();
                    decoder.forward_batch(&mut sequences, plan, &mut scratch);
                }
            }));
        }
        Ok(speed)
    }
}

/// How fast several runs are, prompts and answers: tokens of answers per second, of all together.
#[derive(Clone, Copy, Debug)]
pub struct ServingSpeed {
    /// One after the other.
    pub in_turn: f64,
    /// Side by side, as a provider serves them.
    pub together: f64,
}

/// Tokens of the prompts with which serving is measured.
const SERVING_PROMPT_TOKENS: usize = 32;

impl LocalModel {
    /// Measures `runs` runs with answers of up to `answer` tokens, in turn and as a provider serves them.
    ///
    /// # Errors
    /// If the model's context does not hold as much.
    pub fn measure_serving(self, answer: usize, runs: usize, plan: &Plan) -> Result<ServingSpeed, LocalError> {
        let manifest = match self.manifest {
            Some(manifest) => manifest,
            None => Manifest::of_defaults()?,
        };
        let engine = Arc::new(ChatEngine::new(self.model, manifest, plan.clone()).map_err(PackageError::from)?);
        let model = engine.model();
        // Prompts that begin differently: nothing is read for two of them.
        let request = |seed: u64| {
            let mut words = SERVING_PROMPT_TOKENS;
            loop {
                let prompt = model.plain_prompt(&format!("{seed}{}", " the".repeat(words)));
                if words == 0 || model.tokenizer().encode(&prompt).is_ok_and(|all| all.len() <= SERVING_PROMPT_TOKENS) {
                    let sampling = Sampling { temperature: 1.0, ..Sampling::default() };
                    return GenerateRequest { prompt, max_tokens: answer, sampling, seed, stop: Vec::new() };
                }
                words /= 2;
            }
        };
        let requests: Vec<_> = (0..runs as u64).map(request).collect();
        let (mut tokens, started) = (0, Instant::now());
        for request in &requests {
            tokens += model.generate(request, plan, |_: &str| true)?.completion_tokens;
        }
        let in_turn = rate(tokens, started);
        let memory = Memory::new(u64::MAX, 0, || {});
        let mut batch = Batch::new(engine.clone(), memory.clone(), Arc::default());
        for request in &requests {
            let answering = Box::new(Answering::new(model, request)?);
            let hold = memory.hold(engine.cache_bytes(&answering)).expect("there is no limit");
            batch.add(Run { answering, hold, caller: Box::new(Nobody) });
        }
        let started = Instant::now();
        while !batch.is_empty() {
            batch.step();
        }
        Ok(ServingSpeed { in_turn, together: rate(tokens, started) })
    }
}

/// Waits for nothing.
struct Nobody;

impl Caller for Nobody {
    fn text(&mut self, _piece: &str) -> bool {
        true
    }

    fn done(self: Box<Self>, _result: Result<Vec<u8>, RunError>, _worked: Duration) {}
}

fn per_second(tokens: usize, work: impl FnOnce()) -> f64 {
    let started = Instant::now();
    work();
    rate(tokens, started)
}

fn rate(tokens: usize, started: Instant) -> f64 {
    #[allow(clippy::cast_precision_loss)] // contexts are below 2^20
    let rate = tokens as f64 / started.elapsed().as_secs_f64();
    rate
}

/// Measures a generation from outside; what it does itself does not count.
struct Meter<F> {
    emit: F,
    hasher: LogitsHasher,
    trace: Trace,
    since: Instant,
    prefill: Option<Duration>,
    decode: Duration,
    decode_tokens: usize,
}

impl<F> Meter<F> {
    fn new(emit: F, key: TraceKey) -> Self {
        let (hasher, trace) = (LogitsHasher::default(), Trace::new(key));
        Self { emit, hasher, trace, since: Instant::now(), prefill: None, decode: Duration::ZERO, decode_tokens: 0 }
    }
}

impl<F: FnMut(&str) -> bool> Watch for &mut Meter<F> {
    fn logits(&mut self, logits: &[f32]) {
        let took = self.since.elapsed();
        if self.prefill.is_none() {
            self.prefill = Some(took);
        } else {
            self.decode += took;
            self.decode_tokens += 1;
        }
        self.hasher.update(logits);
        self.since = Instant::now();
    }

    fn token(&mut self, token: u32, logits: &[f32]) {
        let before = self.since.elapsed();
        (&mut self.trace).token(token, logits);
        self.since = Instant::now().checked_sub(before).unwrap_or_else(Instant::now);
    }

    fn text(&mut self, piece: &str) -> bool {
        // Whoever reads the text may be slow.
        let before = self.since.elapsed();
        let go_on = (self.emit)(piece);
        self.since = Instant::now().checked_sub(before).unwrap_or_else(Instant::now);
        go_on
    }
}
