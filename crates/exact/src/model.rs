//! Models as people have them: a GGUF file, or a directory of Hugging Face's files.

use crate::{
    config::{BertConfig, DecoderConfig, SpecialTokens},
    decoder::Decoder,
    encoder::{Encoder, EncoderScratch, WatchLayers},
    generate::PromptPart,
    gguf::{Gguf, GgufTensors},
    plan::Plan,
    template::{TemplateSource, TokenizerConfig},
    tensors::{LoadError, Safetensors, Tensor, TensorSource},
    tokenizer::{TextTokenizer, TokenizeError},
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
    /// `1_Pooling/config.json` of an embedding model.
    pub pooling: Option<&'a [u8]>,
    /// `modules.json` of an embedding model.
    pub modules: Option<&'a [u8]>,
    /// `sentence_bert_config.json` of an embedding model.
    pub sentence: Option<&'a [u8]>,
}

/// A language model with its tokenizer, and how it has conversations written.
pub struct TextModel {
    decoder: Decoder,
    special: SpecialTokens,
    tokenizer: TextTokenizer,
    template: Option<TemplateSource>,
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
        Opened::at(path)?.load(path, Self::from_gguf_tensors, Self::from_parts)
    }

    fn from_parts(files: &ModelFiles<'_>, source: &dyn TensorSource) -> Result<Self, LoadError> {
        let config = DecoderConfig::parse(files.config)?;
        let (vocab_size, mut special) = (config.vocab_size(), config.special().clone());
        if let Some(generation) = files.generation_config {
            special.add_generation_config(generation, vocab_size)?;
        }
        let tokenizer = TextTokenizer::from_json(files.tokenizer, vocab_size)?;
        let tokenizer_config = files.tokenizer_config.map(TokenizerConfig::parse).transpose()?.unwrap_or_default();
        special.set_add_bos(&tokenizer_config, &tokenizer);
        let template = TemplateSource::from_hf(&tokenizer_config, files.chat_template)?;
        Ok(Self { decoder: Decoder::load(&config, source)?, special, tokenizer, template })
    }

    fn from_gguf_tensors(gguf: &Gguf<'_>, source: &dyn TensorSource) -> Result<Self, LoadError> {
        let config = DecoderConfig::from_gguf(gguf)?;
        let tokenizer = TextTokenizer::from_gguf(gguf, config.vocab_size())?;
        let template = TemplateSource::from_gguf(gguf, &tokenizer)?;
        let special = config.special().clone();
        Ok(Self { decoder: Decoder::load(&config, source)?, special, tokenizer, template })
    }

    /// The network itself.
    pub fn decoder(&self) -> &Decoder {
        &self.decoder
    }

    /// The tokens that begin and end texts.
    pub fn special(&self) -> &SpecialTokens {
        &self.special
    }

    /// From text to tokens and back.
    pub fn tokenizer(&self) -> &TextTokenizer {
        &self.tokenizer
    }

    /// The model's own form of a conversation, if its files have one.
    pub fn template(&self) -> Option<&TemplateSource> {
        self.template.as_ref()
    }

    /// Longest prompt and answer together, tokens.
    pub fn context_tokens(&self) -> usize {
        self.decoder.context_tokens()
    }

    /// The prompt of a plain text that the model is to continue.
    pub fn plain_prompt(&self, text: &str) -> Vec<PromptPart> {
        let SpecialTokens { bos, add_bos, .. } = self.special;
        let bos = bos.filter(|_| add_bos).and_then(|token| self.tokenizer.token_text(token));
        bos.map(PromptPart::Markers).into_iter().chain([PromptPart::Text(text.into())]).collect()
    }
}

/// A model that makes one vector of a text, with its tokenizer.
pub struct EmbeddingModel {
    encoder: Encoder,
    tokenizer: TextTokenizer,
}

/// Why a text has no embedding.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EmbedError {
    #[error("the model holds {context_tokens} tokens: text {text} has {tokens}")]
    ContextExceeded { text: usize, context_tokens: usize, tokens: usize },
    #[error("text {text} cannot be tokenized: {source}")]
    Tokenizer { text: usize, source: TokenizeError },
    #[error("text {0} is empty")]
    Empty(usize),
}

/// The embeddings of several texts.
#[derive(Clone, Debug, PartialEq)]
pub struct Embeddings {
    /// `hidden_size` numbers for each text.
    pub vectors: Vec<Vec<f32>>,
    /// Tokens of all texts.
    pub tokens: usize,
}

impl EmbeddingModel {
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

    /// Loads a model from a GGUF file or a directory, as [`TextModel::open`] does.
    ///
    /// # Errors
    /// Which file is missing or wrong, and what about it.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        Opened::at(path)?.load(path, Self::from_gguf_tensors, Self::from_parts)
    }

    fn from_parts(files: &ModelFiles<'_>, source: &dyn TensorSource) -> Result<Self, LoadError> {
        let config = BertConfig::parse(files.config, files.pooling, files.modules, files.sentence)?;
        let tokenizer = TextTokenizer::from_json(files.tokenizer, config.vocab_size)?;
        Ok(Self { encoder: Encoder::load(config, source)?, tokenizer })
    }

    fn from_gguf_tensors(gguf: &Gguf<'_>, source: &dyn TensorSource) -> Result<Self, LoadError> {
        let config = BertConfig::from_gguf(gguf)?;
        let tokenizer = TextTokenizer::from_gguf(gguf, config.vocab_size)?;
        Ok(Self { encoder: Encoder::load(config, source)?, tokenizer })
    }

    /// The network itself.
    pub fn encoder(&self) -> &Encoder {
        &self.encoder
    }

    /// The tokens of each text, with those that the model expects around it.
    ///
    /// # Errors
    /// Which text is empty, too long or cannot be tokenized.
    pub fn tokenize(&self, texts: &[String]) -> Result<Vec<Vec<u32>>, EmbedError> {
        let context_tokens = self.encoder.config().context_tokens;
        let tokenize = |(text, content): (usize, &String)| {
            let tokens = self.tokenizer.encode_whole(content);
            let tokens = tokens.map_err(|source| EmbedError::Tokenizer { text, source })?;
            match tokens.len() {
                0 => Err(EmbedError::Empty(text)),
                count if count > context_tokens => {
                    Err(EmbedError::ContextExceeded { text, context_tokens, tokens: count })
                }
                _ => Ok(tokens),
            }
        };
        texts.iter().enumerate().map(tokenize).collect()
    }

    /// The embeddings of several texts; each has the bits that it has alone.
    ///
    /// # Errors
    /// Which text is empty, too long or cannot be tokenized.
    pub fn embed(&self, texts: &[String], plan: &Plan, watch: &mut dyn WatchLayers) -> Result<Embeddings, EmbedError> {
        Ok(self.embed_tokens(&self.tokenize(texts)?, plan, watch))
    }

    /// The same from what [`EmbeddingModel::tokenize`] gave.
    ///
    /// # Panics
    /// If it is something else.
    pub fn embed_tokens(&self, tokens: &[Vec<u32>], plan: &Plan, watch: &mut dyn WatchLayers) -> Embeddings {
        let slices: Vec<_> = tokens.iter().map(Vec::as_slice).collect();
        let vectors = self.encoder.encode(&slices, plan, &mut EncoderScratch::default(), watch);
        Embeddings { vectors, tokens: tokens.iter().map(Vec::len).sum() }
    }
}

/// A model's files in memory maps.
enum Opened {
    Gguf(Mmap),
    Directory(Box<Directory>),
}

/// A directory's files.
struct Directory {
    config: Mmap,
    tokenizer: Mmap,
    weights: Vec<Mmap>,
    tokenizer_config: Option<Mmap>,
    generation_config: Option<Mmap>,
    chat_template: Option<Mmap>,
    pooling: Option<Mmap>,
    modules: Option<Mmap>,
    sentence: Option<Mmap>,
}

impl Opened {
    fn at(path: &Path) -> Result<Self, OpenError> {
        if path.is_file() {
            return map(path).map(Self::Gguf);
        }
        let optional = |name: &str| {
            let path = path.join(name);
            path.is_file().then(|| map(&path)).transpose()
        };
        let (Some(config), Some(tokenizer)) = (optional("config.json")?, optional("tokenizer.json")?) else {
            return Err(OpenError::NotAModel(path.to_owned()));
        };
        let weights = safetensors_of(path)?.iter().map(|path| map(path)).collect::<Result<Vec<_>, _>>()?;
        if weights.is_empty() {
            return Err(OpenError::NotAModel(path.to_owned()));
        }
        Ok(Self::Directory(Box::new(Directory {
            config,
            tokenizer,
            weights,
            tokenizer_config: optional("tokenizer_config.json")?,
            generation_config: optional("generation_config.json")?,
            chat_template: optional("chat_template.jinja")?,
            pooling: optional("1_Pooling/config.json")?,
            modules: optional("modules.json")?,
            sentence: optional("sentence_bert_config.json")?,
        })))
    }

    /// Has the model loaded by whichever of the two its files call for.
    fn load<M>(
        &self,
        path: &Path,
        from_gguf: impl FnOnce(&Gguf<'_>, &dyn TensorSource) -> Result<M, LoadError>,
        from_parts: impl FnOnce(&ModelFiles<'_>, &dyn TensorSource) -> Result<M, LoadError>,
    ) -> Result<M, OpenError> {
        let load = || match self {
            Self::Gguf(map) => {
                let gguf = Gguf::read(map)?;
                from_gguf(&gguf, &Mapped { source: GgufTensors::new(&gguf)?, maps: vec![map] })
            }
            Self::Directory(directory) => {
                let files = directory.files();
                let source = Safetensors::new(&files.weights)?;
                from_parts(&files, &Mapped { source, maps: directory.weights.iter().collect() })
            }
        };
        load().map_err(|source| OpenError::Load { path: path.to_owned(), source })
    }
}

impl Directory {
    fn files(&self) -> ModelFiles<'_> {
        ModelFiles {
            config: &self.config,
            tokenizer: &self.tokenizer,
            weights: self.weights.iter().map(|map| &map[..]).collect(),
            tokenizer_config: self.tokenizer_config.as_deref(),
            generation_config: self.generation_config.as_deref(),
            chat_template: self.chat_template.as_deref(),
            pooling: self.pooling.as_deref(),
            modules: self.modules.as_deref(),
            sentence: self.sentence.as_deref(),
        }
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
