//! Model packages: `model.toml` and the files beside it.

use crate::interface::Interface;
use althing_content::{BlockStore, Cid, FileReader, ReadError, directory::list_at_most, read_file, tree_cid};
use althing_exact::{Gguf, Sampling, trace::TRACE_VERSION};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

/// The largest package that is loaded, bytes over all files.
pub const PACKAGE_BYTES_MAX: u64 = 8 << 30;
/// Most files of a package.
pub const PACKAGE_FILES_MAX: usize = 10_000;

/// The runtime of packages that an OpenAI-compatible server runs.
pub const OPENAI_RUNTIME: &str = "openai/1";
/// The runtime of packages that a Cog server runs.
pub const COG_RUNTIME: &str = "cog/1";

/// How outputs are written.
const OUTPUT: &str = "json/1";

/// Why a package cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PackageError {
    #[error("model.toml: {0}")]
    Manifest(#[from] toml::de::Error),
    #[error("the package has no file {0:?}")]
    MissingFile(String),
    #[error("cannot read {}: {source}", path.display())]
    Io { path: PathBuf, source: std::io::Error },
    #[error("{} is not a file with a name of text: packages are flat", .0.display())]
    NotFlat(PathBuf),
    #[error("cannot read the package: {0}")]
    Read(#[from] ReadError),
    #[error("cannot name the package: {0}")]
    Tree(String),
    #[error("the package is {got} bytes, at most {max} are loaded")]
    TooLarge { got: u64, max: u64 },
    #[error(
        "the weights are in {0} files, a package has them in one: make a GGUF file of the model, or save it anew without \
         shards"
    )]
    Sharded(usize),
    #[error("neither model.toml nor the model's files say how a conversation becomes a prompt: add [chat]")]
    NoTemplate,
    #[error(transparent)]
    Template(#[from] crate::template::TemplateError),
    #[error("the package's module: {0}")]
    Module(#[from] althing_sandbox::ModuleError),
    #[error("model.toml: {what} is {got}; this version has {supported}")]
    Version { what: &'static str, got: String, supported: String },
    #[error("model.toml: limits.{limit} is {got}; at most {max} is allowed")]
    Limit { limit: &'static str, got: u64, max: u64 },
    #[error("model.toml: a package with runtime {0:?} names other files in [files]: see docs/models.md")]
    WrongFiles(String),
    #[error("runtime {0:?} is unknown to this version")]
    UnknownRuntime(String),
    #[error("model.toml: interface is {0:?}; there are {names}", names = interface_names())]
    UnknownInterface(String),
    #[error("model.toml: verification is {0:?}; there are \"exact\" and \"none\"")]
    UnknownVerification(String),
    #[error(
        "model.toml: answers of a package with runtime {0:?} cannot be re-run bit for bit: say verification = \"none\""
    )]
    NotExact(String),
    #[error("a package with runtime {0:?} is run by a server elsewhere, and there is none: see docs/adapters.md")]
    ServedElsewhere(String),
    #[error(transparent)]
    Load(#[from] althing_exact::LoadError),
}

fn interface_names() -> String {
    Interface::ALL.map(|interface| format!("{:?}", interface.name())).join(", ")
}

/// What `model.toml` says.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The name that its maker gives it; the ledger's registry has the name that counts.
    pub name: String,
    pub description: String,
    /// What it takes and gives: an [`Interface`] by its name.
    pub interface: String,
    /// What runs it, and its version: `exact-text/1`, `exact-bert/1`, `wasm/1`; or a server elsewhere: `openai/1`,
    /// `cog/1`.
    pub runtime: String,
    /// `exact` or `none`.
    pub verification: String,
    /// Version of the traces that its answers have (V-4); this program's if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<u32>,
    /// How outputs are written: `json/1`, the canonical JSON of the interface, which is meant if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<String>,
    pub licence: String,
    pub limits: Limits,
    /// How a conversation becomes a prompt; the template in the model's own files if absent.
    #[serde(default)]
    pub chat: Option<Template>,
    #[serde(default)]
    pub sampling: SamplingDefaults,
    /// Of a package with runtime `cog/1`.
    #[serde(default, skip_serializing_if = "CogNames::is_empty")]
    pub cog: CogNames,
    /// None where a server elsewhere runs it.
    #[serde(default, skip_serializing_if = "Files::is_none")]
    pub files: Files,
}

/// Bounds of one run.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Tokens of an answer when the client does not say.
    #[serde(default = "max_tokens_default")]
    pub max_tokens_default: usize,
    /// Most bytes of an output.
    pub output_bytes_max: u64,
    /// Of a guest: linear memory, bytes.
    #[serde(default)]
    pub memory_bytes_max: Option<u64>,
    /// Of a guest: keys and values, and rotary positions, bytes.
    #[serde(default)]
    pub cache_bytes_max: Option<u64>,
    /// Of a guest: fuel of `init`.
    #[serde(default)]
    pub init_fuel_max: Option<u64>,
    /// Of a guest: fuel of a run.
    #[serde(default)]
    pub run_fuel_max: Option<u64>,
}

fn max_tokens_default() -> usize {
    256
}

/// How a conversation becomes a prompt: markers around each message.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Template {
    /// Before and after a message, by role. A role that is absent is refused.
    pub system: Option<[String; 2]>,
    pub user: [String; 2],
    pub assistant: [String; 2],
    /// After the last message, before the answer.
    pub answer: String,
}

/// Sampling where the client does not say.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct SamplingDefaults {
    pub temperature: f32,
    pub top_k: usize,
    pub top_p: f32,
    pub repetition_penalty: f32,
}

impl Default for SamplingDefaults {
    fn default() -> Self {
        Self { temperature: 0.0, top_k: 0, top_p: 1.0, repetition_penalty: 1.0 }
    }
}

impl From<SamplingDefaults> for Sampling {
    fn from(defaults: SamplingDefaults) -> Self {
        let SamplingDefaults { temperature, top_k, top_p, repetition_penalty } = defaults;
        Self { temperature, top_k, top_p, repetition_penalty, ..Self::default() }
    }
}

impl Manifest {
    /// That of a model that came without one.
    pub(crate) fn of_defaults() -> Result<Self, toml::de::Error> {
        toml::from_str(&manifest_text(Path::new("model"), "gguf = \"model.gguf\"\n", false))
    }

    /// Reads a `model.toml`.
    ///
    /// # Errors
    /// If it is malformed.
    pub fn parse(text: &[u8]) -> Result<Self, PackageError> {
        Ok(toml::from_slice(text)?)
    }

    /// What it takes and gives.
    ///
    /// # Errors
    /// If this version knows no such interface.
    pub fn interface(&self) -> Result<Interface, PackageError> {
        Interface::named(&self.interface).ok_or_else(|| PackageError::UnknownInterface(self.interface.clone()))
    }

    /// Whether others can re-run it bit for bit. (T-20)
    pub fn is_exact(&self) -> bool {
        self.verification == "exact"
    }

    /// Whether a server elsewhere runs it, rather than an engine here.
    pub fn is_served_elsewhere(&self) -> bool {
        matches!(self.runtime.as_str(), OPENAI_RUNTIME | COG_RUNTIME)
    }

    /// Whether requests and answers of clients pass through as they are: the server speaks the clients' own language.
    pub fn passes_through(&self) -> bool {
        self.runtime == OPENAI_RUNTIME
    }

    /// Whether this version can do what the package says, as far as its files are not concerned.
    ///
    /// # Errors
    /// What is unknown, or does not go together.
    pub fn check(&self) -> Result<(), PackageError> {
        let interface = self.interface()?;
        match self.verification.as_str() {
            "none" => {}
            // The first garbage would win. (T-20)
            "exact" if self.is_served_elsewhere() => return Err(PackageError::NotExact(self.runtime.clone())),
            "exact" => {}
            _ => return Err(PackageError::UnknownVerification(self.verification.clone())),
        }
        if self.is_served_elsewhere() != self.files.is_none() {
            return Err(PackageError::WrongFiles(self.runtime.clone()));
        }
        match (self.runtime.as_str(), interface) {
            (OPENAI_RUNTIME, Interface::Json) | (COG_RUNTIME, Interface::Embedding) => {
                Err(PackageError::UnknownRuntime(format!("{} ({})", self.runtime, self.interface)))
            }
            _ => self.check_versions(),
        }
    }

    /// Whether this version writes what the package says.
    fn check_versions(&self) -> Result<(), PackageError> {
        let differs = |what, got: String, supported: String| match got == supported {
            true => Ok(()),
            false => Err(PackageError::Version { what, got, supported }),
        };
        differs("trace", self.trace.unwrap_or(TRACE_VERSION).to_string(), TRACE_VERSION.to_string())?;
        differs("output", self.output.clone().unwrap_or_else(|| OUTPUT.into()), OUTPUT.into())
    }

    /// The name of the GGUF file, if the model is one.
    pub fn gguf(&self) -> Option<&str> {
        match &self.files {
            Files::Gguf(GgufName { gguf }) => Some(gguf),
            Files::Wasm(_) | Files::Named(_) | Files::None(_) => None,
        }
    }
}

/// What a Cog model calls what it takes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct CogNames {
    /// By our name: `prompt`, `system_prompt`, `max_tokens`, `temperature`, `top_p`, `stop`, `width`, `height`, `text`,
    /// `voice`, `format`, `speed`, `instructions`, `seed`. What is absent has the same name there.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub inputs: BTreeMap<String, String>,
}

impl CogNames {
    fn is_empty(&self) -> bool {
        self.inputs.is_empty()
    }
}

/// Which files of the package are what: one GGUF file, Hugging Face's, or a guest's; or none beside `model.toml`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(untagged)]
pub enum Files {
    Gguf(GgufName),
    Wasm(WasmNames),
    Named(Names),
    None(NoNames),
}

impl Default for Files {
    fn default() -> Self {
        Self::None(NoNames {})
    }
}

impl Files {
    fn is_none(&self) -> bool {
        matches!(self, Self::None(_))
    }
}

/// An empty table.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct NoNames {}

/// A package whose model is a guest of the sandbox. It can read all files beside `model.toml` and the module.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct WasmNames {
    /// The WebAssembly module.
    pub module: String,
    /// Files whose tensors it can open: safetensors or GGUF.
    #[serde(default)]
    pub weights: Vec<String>,
}

/// A package whose model is one GGUF file.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct GgufName {
    pub gguf: String,
}

/// A package of Hugging Face's files, by their names in it.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Names {
    pub config: String,
    pub tokenizer: String,
    pub weights: String,
    /// `tokenizer_config.json`, which may have the chat template.
    #[serde(default)]
    pub tokenizer_config: Option<String>,
    /// `generation_config.json`, which may name more tokens that end an answer.
    #[serde(default)]
    pub generation_config: Option<String>,
    /// `chat_template.jinja`, where it is not in `tokenizer_config`.
    #[serde(default)]
    pub chat_template: Option<String>,
    /// `1_Pooling/config.json` of an embedding model.
    #[serde(default)]
    pub pooling: Option<String>,
    /// `modules.json` of an embedding model.
    #[serde(default)]
    pub modules: Option<String>,
    /// `sentence_bert_config.json` of an embedding model.
    #[serde(default)]
    pub sentence: Option<String>,
}

/// A `model.toml` of defaults for a model that came without one.
fn manifest_text(path: &Path, files: &str, is_bert: bool) -> String {
    let name = model_name(path);
    let (interface, runtime, output_bytes_max) = match is_bert {
        true => ("embedding", "exact-bert/1", 2 << 20),
        false => ("chat", "exact-text/1", 1 << 16),
    };
    format!(
        "name = {name:?}\ndescription = {name:?}\ninterface = {interface:?}\nruntime = {runtime:?}\n\
         verification = \"exact\"\nlicence = \"unknown\"\n\n[limits]\nmax_tokens_default = 256\n\
         output_bytes_max = {output_bytes_max}\n\n[files]\n{files}"
    )
}

/// What `1_Pooling/config.json` is called in a package, which is flat.
const POOLING_NAME: &str = "pooling_config.json";

fn gguf_is_bert(file: &[u8]) -> bool {
    Gguf::read(file).is_ok_and(|gguf| gguf.str("general.architecture") == Ok(Some("bert")))
}

fn config_is_bert(json: &[u8]) -> bool {
    serde_json::from_slice::<serde_json::Value>(json).is_ok_and(|config| config["model_type"] == "bert")
}

/// A name that a registry takes, from a file's.
pub fn model_name(path: &Path) -> String {
    let stem = path.file_stem().map(|stem| stem.to_string_lossy().to_lowercase()).unwrap_or_default();
    let kept = |c: char| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '-' };
    let name: String = stem.chars().take(64).map(kept).collect();
    if name.is_empty() { "model".into() } else { name }
}

/// A package in memory.
#[derive(Clone, Debug)]
pub struct Package {
    pub cid: Cid,
    pub manifest: Manifest,
    files: BTreeMap<String, Vec<u8>>,
}

impl Package {
    /// The package in a directory; or, of a GGUF file or a directory of Hugging Face's files, the one that
    /// they make with a `model.toml` of defaults.
    ///
    /// # Errors
    /// If something cannot be read, or is no model.
    pub fn from_path(path: &Path) -> Result<Self, PackageError> {
        let mut size = 0;
        let mut read = |path: &Path| {
            let failed = |source| PackageError::Io { path: path.to_owned(), source };
            // What is too large is not even read.
            size += std::fs::metadata(path).map_err(failed)?.len();
            if size > PACKAGE_BYTES_MAX {
                return Err(PackageError::TooLarge { got: size, max: PACKAGE_BYTES_MAX });
            }
            std::fs::read(path).map_err(failed)
        };
        let mut files = BTreeMap::new();
        if path.is_file() {
            let gguf = read(path)?;
            let manifest = manifest_text(path, "gguf = \"model.gguf\"\n", gguf_is_bert(&gguf));
            files.insert("model.toml".into(), manifest.into_bytes());
            files.insert("model.gguf".into(), gguf);
            return Self::from_files(files);
        }
        let failed = |source| PackageError::Io { path: path.to_owned(), source };
        for entry in std::fs::read_dir(path).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            // Embedding models have one file in a directory of its own.
            let pooling = entry.path().join("config.json");
            if entry.file_name() == "1_Pooling" && pooling.is_file() {
                files.insert(POOLING_NAME.into(), read(&pooling)?);
                continue;
            }
            if !entry.file_type().map_err(failed)?.is_file() {
                return Err(PackageError::NotFlat(entry.path()));
            }
            let name = entry.file_name().into_string().map_err(|_| PackageError::NotFlat(entry.path()))?;
            files.insert(name, read(&entry.path())?);
        }
        if !files.contains_key("model.toml") {
            let weights = files.keys().filter(|name| name.ends_with(".safetensors")).collect::<Vec<_>>();
            let weights = match weights[..] {
                [weights] => weights,
                [] => return Err(PackageError::MissingFile("model.toml".into())),
                _ => return Err(PackageError::Sharded(weights.len())),
            };
            let mut names =
                format!("config = \"config.json\"\ntokenizer = \"tokenizer.json\"\nweights = {weights:?}\n");
            for (key, name) in [
                ("tokenizer_config", "tokenizer_config.json"),
                ("generation_config", "generation_config.json"),
                ("chat_template", "chat_template.jinja"),
                ("pooling", POOLING_NAME),
                ("modules", "modules.json"),
                ("sentence", "sentence_bert_config.json"),
            ] {
                if files.contains_key(name) {
                    names += &format!("{key} = {name:?}\n");
                }
            }
            let is_bert = files.get("config.json").is_some_and(|config| config_is_bert(config));
            files.insert("model.toml".into(), manifest_text(path, &names, is_bert).into_bytes());
        }
        Self::from_files(files)
    }

    /// A package of these files, by name.
    ///
    /// # Errors
    /// If `model.toml` is missing or malformed.
    pub fn from_files(files: BTreeMap<String, Vec<u8>>) -> Result<Self, PackageError> {
        let cid = tree_cid(files.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())))
            .map_err(|error| PackageError::Tree(error.to_string()))?;
        let manifest = files.get("model.toml").ok_or_else(|| PackageError::MissingFile("model.toml".into()))?;
        let manifest = Manifest::parse(manifest)?;
        Ok(Self { cid, manifest, files })
    }

    /// The package with this CID, read from a store that has all of its blocks.
    ///
    /// # Errors
    /// If a block is missing or the package malformed or too large.
    pub fn from_store<S: BlockStore + ?Sized>(store: &S, cid: &Cid) -> Result<Self, PackageError> {
        let (mut files, mut size) = (BTreeMap::new(), 0u64);
        for entry in list_at_most(store, cid, PACKAGE_FILES_MAX)? {
            let bytes = read_file(store, &entry.cid, PACKAGE_BYTES_MAX - size)?;
            size += bytes.len() as u64;
            files.insert(entry.name, bytes);
        }
        let package = Self::from_files(files)?;
        // The same files imported another way have another name; the caller's name is what counts.
        Ok(Self { cid: *cid, ..package })
    }

    /// Bytes of the files of a package in a store, after all of them have been read and found to be
    /// there and whole; none is kept.
    ///
    /// # Errors
    /// If a block is missing, or the package too large.
    pub fn bytes_in_store<S: BlockStore + ?Sized>(store: &S, cid: &Cid) -> Result<u64, PackageError> {
        let mut size = 0;
        for entry in list_at_most(store, cid, PACKAGE_FILES_MAX)? {
            for piece in FileReader::open(store, &entry.cid, 0..u64::MAX, PACKAGE_BYTES_MAX - size)? {
                size += piece?.len() as u64;
            }
        }
        Ok(size)
    }

    /// Bytes of the files.
    pub fn bytes(&self) -> u64 {
        self.files.values().map(|bytes| bytes.len() as u64).sum()
    }

    /// The files, by name.
    pub fn files(&self) -> &BTreeMap<String, Vec<u8>> {
        &self.files
    }

    /// One file's bytes.
    ///
    /// # Errors
    /// [`PackageError::MissingFile`].
    pub fn file(&self, name: &str) -> Result<&[u8], PackageError> {
        self.files.get(name).map(Vec::as_slice).ok_or_else(|| PackageError::MissingFile(name.into()))
    }
}
