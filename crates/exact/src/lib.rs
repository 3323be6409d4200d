//! Bit-exact numerics and language models: the same input gives the same bits on any CPU, with any
//! vector width, any number of threads and any split of the input.
//!
//! `NUMERICS.md` beside this crate is the contract: every step that touches an f32 is written down
//! there. It is versioned; a change is a new version, never an edit.
//!
//! - [`level`]: which instructions the kernels use; never what they compute
//! - [`math`]: exp, SiLU, softmax, norms, f16, one element at a time
//! - [`plan`], [`pool`]: how work is split; never what it gives
//! - [`activation`]: vectors on their way into matrices, f32 and int8
//! - [`matmul`]: packed weights times vectors, where nearly all time goes
//! - [`rope`], [`attention`], [`cache`]: positions, attention, and what a sequence remembers
//! - [`tensors`], [`gguf`]: where weights come from
//! - [`config`]: the numbers of a model, from either kind of file
//! - [`tokenizer`]: from text to tokens, from strangers' text too
//! - [`template`]: what a model's files say about the form of conversations
//! - [`decoder`], [`encoder`], with the parts in `layers`: the families' weights and computation
//! - [`kernels`]: the engines' steps one by one
//! - [`sampler`]: from logits to a token
//! - [`model`]: models as files
//! - [`generate`], [`trace`]: from a prompt to text, and a digest of how it came about

pub mod activation;
mod attention;
pub mod cache;
pub mod config;
pub mod decoder;
pub mod encoder;
#[cfg(feature = "text")]
pub mod generate;
pub mod gguf;
mod isa;
pub mod kernels;
mod layers;
pub mod level;
pub mod math;
pub mod matmul;
#[cfg(feature = "text")]
pub mod model;
pub mod plan;
pub mod pool;
pub mod rope;
pub mod sampler;
#[cfg(feature = "text")]
pub mod template;
pub mod tensors;
#[cfg(feature = "text")]
pub mod tokenizer;
#[cfg(feature = "text")]
pub mod trace;
mod vector;

pub use activation::Activations;
pub use cache::KvCache;
pub use config::{BertConfig, DecoderConfig, LlamaConfig};
pub use decoder::{Decoder, Scratch, Sequence};
pub use encoder::{Encoder, EncoderScratch};
#[cfg(feature = "text")]
pub use generate::{Answering, FinishReason, GenerateError, GenerateRequest, Generation, PromptPart, Watch};
pub use gguf::{Gguf, GgufError, GgufTensors};
pub use level::Level;
pub use matmul::{Format, Matrix, MatrixError};
#[cfg(feature = "text")]
pub use model::{EmbeddingModel, ModelFiles, OpenError, TextModel};
pub use plan::Plan;
pub use pool::Pool;
pub use rope::{RopeConfig, RopePairs};
pub use sampler::{Sampler, Sampling};
#[cfg(feature = "text")]
pub use template::TemplateSource;
pub use tensors::{LoadError, Safetensors, Tensor, TensorPlace, TensorSource};
#[cfg(feature = "text")]
pub use tokenizer::TextTokenizer;
#[cfg(feature = "text")]
pub use trace::{Trace, TraceKey};

// Panels are read in the order in which files store their numbers.
const _: () = assert!(cfg!(target_endian = "little"), "little-endian machines only");

/// Version of the numeric contract in `NUMERICS.md`.
pub const NUMERICS_VERSION: u32 = 1;
