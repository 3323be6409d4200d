//! Text models as people have them: a GGUF file, or a directory of Hugging Face's files.

use crate::{
    config::Config,
    generate::PromptPart,
    gguf::{Gguf, GgufTensors},
    llama::Llama,
    template::{ChatTemplate, TokenizerConfig},
    tensors::{LoadError, Safetensors, Tensor, TensorSource},
    tokenizer::TextTokenizer,
};
use memmap2::{Mmap, UncheckedAdvice};
use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
};

/// Why a model's files were not opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("cannot read {}: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{}: {source}", path.display())]
    Load { path: PathBuf, source: LoadError },
    #[error("{} is neither a GGUF file nor a directory with config.json, tokenizer.json and *.safetensors", .0.display())]
    NotAModel(PathBuf),
}

/// A directory's files, as bytes.
#[derive(Clone, Debug, Default)]
pub struct ModelFiles<'a> {
    /// `config.json`
    pub config: &'a [u8],
    /// `tokenizer.json`
    pub tokenizer: &'a [u8],
    /// `model.safetensors`, or all of its parts.
    pub weights: Vec<&'a [u8]>,
    /// `tokenizer_config.json`
    pub tokenizer_config: Option<&'a [u8]>,
    /// `generation_config.json`
    pub generation_config: Option<&'a [u8]>,
    /// `chat_template.jinja`
    pub chat_template: Option<&'a [u8]>,
}

/// A language model with its tokenizer, and how it has conversations written.
pub struct TextModel {
    llama: Llama,
    tokenizer: TextTokenizer,
    template: Option<ChatTemplate>,
}

impl TextModel {
    /// Loads a model from the bytes of its files.
    ///
    /// # Errors
    /// Which file is wrong, and what about it.
    pub fn from_files(files: &ModelFiles<'_>) -> Result<Self, LoadError> {
        Self::from_parts(files, &Safetensors::new(&files.weights)?)
    }

    /// Loads a model from the bytes of a GGUF file.
    ///
    /// # Errors
    /// What about the file is malformed or does not run here.
    pub fn from_gguf(file: &[u8]) -> Result<Self, LoadError> {
        let gguf = Gguf::read(file)?;
        Self::from_gguf_tensors(&gguf, &GgufTensors::new(&gguf)?)
    }

    /// Loads a model from a GGUF file or a directory. The files are memory-mapped, and each tensor's
    /// part is given back as soon as it is packed: memory never holds both.
    ///
    /// Nobody may change the files meanwhile.
    ///
    /// # Errors
    /// Which file is missing or wrong, and what about it.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        let load = |source| OpenError::Load { path: path.to_owned(), source };
        if path.is_file() {
            let map = map(path)?;
            let gguf = Gguf::read(&map).map_err(|error| load(error.into()))?;
            let tensors = GgufTensors::new(&gguf).map_err(load)?;
            return Self::from_gguf_tensors(&gguf, &Mapped { source: tensors, maps: vec![&map] }).map_err(load);
        }
        let optional = |name: &str| {
            let path = path.join(name);
            path.is_file().then(|| map(&path)).transpose()
        };
        let (Some(config), Some(tokenizer)) = (optional("config.json")?, optional("tokenizer.json")?) else {
            return Err(OpenError::NotAModel(path.to_owned()));
        };
        let tokenizer_config = optional("tokenizer_config.json")?;
        let generation_config = optional("generation_config.json")?;
        let chat_template = optional("chat_template.jinja")?;
        let maps = safetensors_of(path)?.iter().map(|path| map(path)).collect::<Result<Vec<_>, _>>()?;
        if maps.is_empty() {
            return Err(OpenError::NotAModel(path.to_owned()));
        }
        let files = ModelFiles {
            config: &config,
            tokenizer: &tokenizer,
            weights: maps.iter().map(|map| &map[..]).collect(),
            tokenizer_config: tokenizer_config.as_deref(),
            generation_config: generation_config.as_deref(),
            chat_template: chat_template.as_deref(),
        };
        let source = Safetensors::new(&files.weights).map_err(load)?;
        Self::from_parts(&files, &Mapped { source, maps: maps.iter().collect() }).map_err(load)
    }

    fn from_parts(files: &ModelFiles<'_>, source: &dyn TensorSource) -> Result<Self, LoadError> {
        let mut config = Config::parse(files.config)?;
        if let Some(generation) = files.generation_config {
            config.add_generation_config(generation)?;
        }
        let tokenizer = TextTokenizer::from_json(files.tokenizer, config.vocab_size)?;
        let tokenizer_config = files.tokenizer_config.map(TokenizerConfig::parse).transpose()?.unwrap_or_default();
        config.set_add_bos(&tokenizer_config, &tokenizer);
        let template = ChatTemplate::from_hf(&tokenizer_config, files.chat_template, &tokenizer)?;
        Ok(Self { llama: Llama::load(config, source)?, tokenizer, template })
    }

    fn from_gguf_tensors(gguf: &Gguf<'_>, source: &dyn TensorSource) -> Result<Self, LoadError> {
        let config = Config::from_gguf(gguf)?;
        let tokenizer = TextTokenizer::from_gguf(gguf, config.vocab_size)?;
        let template = ChatTemplate::from_gguf(gguf, &tokenizer)?;
        Ok(Self { llama: Llama::load(config, source)?, tokenizer, template })
    }

    /// The network itself.
    pub fn llama(&self) -> &Llama {
        &self.llama
    }

    /// From text to tokens and back.
    pub fn tokenizer(&self) -> &TextTokenizer {
        &self.tokenizer
    }

    /// The model's own form of a conversation, if its files have one.
    pub fn template(&self) -> Option<&ChatTemplate> {
        self.template.as_ref()
    }

    /// Longest prompt and answer together, tokens.
    pub fn context_tokens(&self) -> usize {
        self.llama.config().context_tokens
    }

    /// The prompt of a plain text that the model is to continue.
    pub fn plain_prompt(&self, text: &str) -> Vec<PromptPart> {
        let config = self.llama.config();
        let bos = config.bos.filter(|_| config.add_bos).and_then(|token| self.tokenizer.token_text(token));
        bos.map(PromptPart::Markers).into_iter().chain([PromptPart::Text(text.into())]).collect()
    }
}

/// A source in memory maps, whose pages are given back once they are packed.
struct Mapped<'a, S> {
    source: S,
    maps: Vec<&'a Mmap>,
}

impl<S: TensorSource> TensorSource for Mapped<'_, S> {
    fn tensor(&self, name: &str) -> Result<Option<Tensor<'_>>, LoadError> {
        self.source.tensor(name)
    }

    fn packed(&self, data: &[u8]) {
        for map in &self.maps {
            let Some(offset) = (data.as_ptr() as usize).checked_sub(map.as_ptr() as usize) else { continue };
            if offset + data.len() <= map.len() {
                // SAFETY: the map is of a file and is never written to: its pages are read again if
                // somebody looks at them again. Advice that is not taken changes nothing.
                let _ = unsafe { map.unchecked_advise_range(UncheckedAdvice::DontNeed, offset, data.len()) };
            }
        }
    }
}

fn map(path: &Path) -> Result<Mmap, OpenError> {
    let fail = |source| OpenError::Read { path: path.to_owned(), source };
    let file = File::open(path).map_err(fail)?;
    // SAFETY: what is read is checked as bytes of strangers; that nobody changes the file meanwhile is
    // asked of the caller.
    unsafe { Mmap::map(&file) }.map_err(fail)
}

/// The safetensors files of a directory, in the order of their names.
fn safetensors_of(directory: &Path) -> Result<Vec<PathBuf>, OpenError> {
    let fail = |source| OpenError::Read { path: directory.to_owned(), source };
    let entries = std::fs::read_dir(directory).map_err(fail)?;
    let mut paths =
        entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<Vec<_>, _>>().map_err(fail)?;
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "safetensors"));
    paths.sort();
    Ok(paths)
}
