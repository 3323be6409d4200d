//! Engines: what turns a package, an input and a seed into an output.

use crate::{
    chat::{ChatInput, ChatOutput, Finish},
    embedding::EmbeddingEngine,
    interface::Interface,
    package::{Files, GgufName, Manifest, Package, PackageError},
    prompt::{PromptError, Prompts},
    template::{self, TemplateError},
    wasm::WasmEngine,
};
use althing_exact::{
    Answering, EmbeddingModel, FinishReason, GenerateError, GenerateRequest, Generation, LoadError, ModelFiles, Plan,
    Sampling, TextModel,
};
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

/// Why a run gave no output. Neither is a result: nothing about the input follows from it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RunError {
    #[error("the run was given up")]
    GivenUp,
    #[error("the engine failed: {0}")]
    Engine(String),
}

/// A loaded model.
pub trait Engine: Send + Sync {
    /// What it takes and gives.
    fn interface(&self) -> Interface;

    /// Runs the model on `input`. `emit` gets the answer's text piece by piece as it is made and
    /// says whether to go on. The output is the same on every machine, refusals included.
    ///
    /// # Errors
    /// If there is no result.
    fn run(&self, input: &[u8], seed: u64, emit: &mut dyn FnMut(&str) -> bool) -> Result<Vec<u8>, RunError>;

    /// How many tokens a conversation is, and how many the model holds: lets a gateway refuse before
    /// anybody pays. `None` if the engine cannot tell.
    fn measure(&self, input: &[u8]) -> Option<(usize, usize)>;

    /// Memory that the weights take, bytes.
    fn weights_bytes(&self) -> u64;

    /// The most memory that a run takes beside them, bytes, of an engine whose runs do not share steps.
    fn run_bytes_max(&self) -> u64 {
        0
    }

    /// The engine as one whose runs can share steps, if it is such a one; see [`crate::batch`].
    fn chat(self: Arc<Self>) -> Option<Arc<ChatEngine>> {
        None
    }
}

/// Whether a package is one that can be served: an engine loads it, or it describes a server elsewhere.
///
/// # Errors
/// What is wrong with it.
pub fn check(package: &Package) -> Result<(), PackageError> {
    package.manifest.check()?;
    match package.manifest.is_served_elsewhere() {
        true => Ok(()),
        false => load(package, 1).map(drop),
    }
}

/// Loads a package for running on `threads` threads.
///
/// # Errors
/// If the package is malformed, its runtime unknown, or a server elsewhere runs it.
pub fn load(package: &Package, threads: usize) -> Result<Box<dyn Engine>, PackageError> {
    let manifest = &package.manifest;
    manifest.check()?;
    let plan = Plan::new(threads);
    match (manifest.runtime.as_str(), manifest.interface.as_str()) {
        // The first of these names is older than the families that joined Llama's.
        ("exact-llama/1" | "exact-text/1", "chat") => {
            if manifest.chat.is_none() {
                template::warm_up();
            }
            let (from_gguf, from_files) = (TextModel::from_gguf, TextModel::from_files);
            let model = load_files(package, from_gguf, from_files)?;
            let engine = ChatEngine::new(model, manifest.clone(), plan)?;
            match engine.prompts {
                Prompts::None => Err(PackageError::NoTemplate),
                _ => Ok(Box::new(engine)),
            }
        }
        ("exact-bert/1", "embedding") => {
            let output_bytes_max = manifest.limits.output_bytes_max;
            Ok(Box::new(EmbeddingEngine { model: load_embedding(package)?, plan, output_bytes_max }))
        }
        ("wasm/1", _) => Ok(Box::new(WasmEngine::load(package, plan)?)),
        _ if manifest.is_served_elsewhere() => Err(PackageError::ServedElsewhere(manifest.runtime.clone())),
        (runtime, interface) => Err(PackageError::UnknownRuntime(format!("{runtime} ({interface})"))),
    }
}

/// The embedding model of a package.
pub(crate) fn load_embedding(package: &Package) -> Result<EmbeddingModel, PackageError> {
    load_files(package, EmbeddingModel::from_gguf, EmbeddingModel::from_files)
}

/// Has a package's model loaded by whichever of the two its files call for.
fn load_files<M>(
    package: &Package,
    from_gguf: impl FnOnce(&[u8]) -> Result<M, LoadError>,
    from_files: impl FnOnce(&ModelFiles<'_>) -> Result<M, LoadError>,
) -> Result<M, PackageError> {
    let file = |name: &String| package.file(name);
    let optional = |name: &Option<String>| name.as_ref().map(file).transpose();
    Ok(match &package.manifest.files {
        Files::Gguf(GgufName { gguf }) => from_gguf(file(gguf)?)?,
        Files::Wasm(_) | Files::None(_) => return Err(PackageError::WrongFiles(package.manifest.runtime.clone())),
        Files::Named(names) => from_files(&ModelFiles {
            config: file(&names.config)?,
            tokenizer: file(&names.tokenizer)?,
            weights: vec![file(&names.weights)?],
            tokenizer_config: optional(&names.tokenizer_config)?,
            generation_config: optional(&names.generation_config)?,
            pooling: optional(&names.pooling)?,
            modules: optional(&names.modules)?,
            sentence: optional(&names.sentence)?,
            chat_template: optional(&names.chat_template)?,
        })?,
    })
}

/// A model that continues text, on the strict kernels.
pub struct ChatEngine {
    model: TextModel,
    prompts: Prompts,
    manifest: Manifest,
    plan: Plan,
    key: u64,
}

/// A run up to where the network begins.
pub enum Prepared {
    Answer(Box<Answering>),
    /// The output: the input is refused.
    Refused(Vec<u8>),
}

impl ChatEngine {
    pub(crate) fn new(model: TextModel, manifest: Manifest, plan: Plan) -> Result<Self, TemplateError> {
        static KEYS: AtomicU64 = AtomicU64::new(0);
        let prompts = Prompts::new(&model, manifest.chat.as_ref())?;
        Ok(Self { model, prompts, manifest, plan, key: KEYS.fetch_add(1, Ordering::Relaxed) })
    }

    /// Reads an input, on whichever thread: all of a run that comes before the network.
    ///
    /// # Errors
    /// If there is no result.
    pub fn prepare(&self, input: &[u8], seed: u64) -> Result<Prepared, RunError> {
        let request = match self.request(input, seed) {
            Ok(request) => request,
            Err(none) => return none.output().map(Prepared::Refused),
        };
        match Answering::new(&self.model, &request) {
            Ok(answering) => Ok(Prepared::Answer(Box::new(answering))),
            Err(error) => output(Err(error)).map(Prepared::Refused),
        }
    }

    /// Most memory that a run's keys and values take, bytes.
    pub fn cache_bytes(&self, answering: &Answering) -> u64 {
        self.model.decoder().cache_bytes(answering.tokens_max()) as u64
    }

    /// The same of the longest run that there can be.
    pub fn cache_bytes_max(&self) -> u64 {
        self.model.decoder().cache_bytes(self.model.context_tokens()) as u64
    }

    /// Longest prompt and answer together, tokens.
    pub fn context_tokens(&self) -> usize {
        self.model.context_tokens()
    }

    pub(crate) fn model(&self) -> &TextModel {
        &self.model
    }

    pub(crate) fn plan(&self) -> &Plan {
        &self.plan
    }

    /// No two engines of a process have the same: what one read is of no use to another.
    pub(crate) fn key(&self) -> u64 {
        self.key
    }

    fn request(&self, input: &[u8], seed: u64) -> Result<GenerateRequest, NoRequest> {
        let refuse = |why: String| NoRequest::Refused(ChatOutput::refusal("invalid_input", why));
        let input: ChatInput =
            serde_json::from_slice(input).map_err(|_| refuse("the input is not a chat input".into()))?;
        if input.messages.is_empty() {
            return Err(refuse("there is no message".into()));
        }
        let prompt = self.prompts.write(&input.messages).map_err(|error| match error {
            PromptError::Refused(why) => refuse(why),
            PromptError::NoResult(why) => NoRequest::NoResult(why),
        })?;
        let defaults = self.manifest.sampling;
        let temperature = input.temperature.unwrap_or(defaults.temperature);
        let top_p = input.top_p.unwrap_or(defaults.top_p);
        let top_p_fits = top_p > 0.0 && top_p <= 1.0;
        if !top_p_fits || !(0.0..=2.0).contains(&temperature) {
            return Err(refuse("temperature lies between 0 and 2, top_p above 0 and up to 1".into()));
        }
        if input.max_tokens == Some(0) || input.stop.len() > 4 || input.stop.iter().any(|stop| stop.len() > 256) {
            return Err(refuse("max_tokens is at least 1; stop holds at most 4 texts of at most 256 bytes".into()));
        }
        Ok(GenerateRequest {
            prompt,
            max_tokens: input.max_tokens.map_or(self.manifest.limits.max_tokens_default, |max| max as usize),
            sampling: Sampling { temperature, top_p, ..defaults.into() },
            seed,
            stop: input.stop,
        })
    }
}

/// Why an input is not one to run on.
enum NoRequest {
    Refused(ChatOutput),
    /// Nothing follows from it.
    NoResult(String),
}

impl NoRequest {
    fn output(self) -> Result<Vec<u8>, RunError> {
        match self {
            Self::Refused(refusal) => Ok(refusal.to_bytes()),
            Self::NoResult(why) => Err(RunError::Engine(why)),
        }
    }
}

fn count(tokens: usize) -> u32 {
    u32::try_from(tokens).unwrap_or(u32::MAX)
}

/// What a run gives, however it was carried out.
pub(crate) fn output(answer: Result<Generation, GenerateError>) -> Result<Vec<u8>, RunError> {
    let output = match answer {
        Ok(answer) => ChatOutput::Answer {
            text: answer.text,
            finish_reason: match answer.finish_reason {
                FinishReason::Stop => Finish::Stop,
                FinishReason::Length => Finish::Length,
            },
            prompt_tokens: count(answer.prompt_tokens),
            completion_tokens: count(answer.completion_tokens),
        },
        Err(error @ GenerateError::ContextExceeded { .. }) => {
            ChatOutput::refusal("context_length_exceeded", error.to_string())
        }
        Err(GenerateError::GivenUp) => return Err(RunError::GivenUp),
        // The tokenizer's own words may change with its version, so they are not part of a result.
        Err(GenerateError::Tokenizer(_)) => ChatOutput::refusal("invalid_input", "the input cannot be tokenized"),
        Err(error @ GenerateError::EmptyPrompt) => ChatOutput::refusal("invalid_input", error.to_string()),
    };
    Ok(output.to_bytes())
}

impl Engine for ChatEngine {
    fn interface(&self) -> Interface {
        Interface::Chat
    }

    fn run(&self, input: &[u8], seed: u64, emit: &mut dyn FnMut(&str) -> bool) -> Result<Vec<u8>, RunError> {
        match self.request(input, seed) {
            Ok(request) => output(self.model.generate(&request, &self.plan, emit)),
            Err(none) => none.output(),
        }
    }

    fn measure(&self, input: &[u8]) -> Option<(usize, usize)> {
        let request = self.request(input, 0).ok()?;
        Some((self.model.tokenizer().encode(&request.prompt).ok()?.len(), self.model.context_tokens()))
    }

    fn weights_bytes(&self) -> u64 {
        self.model.decoder().bytes() as u64
    }

    fn chat(self: Arc<Self>) -> Option<Arc<ChatEngine>> {
        Some(self)
    }
}
