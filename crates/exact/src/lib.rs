//! Bit-exact numerics and language models: the same input gives the same bits on any CPU, with any
//! vector width, any number of threads and any split of the input.
//!
//! `NUMERICS.md` beside this crate is the contract: every step that touches an f32 is written down
//! there. It is versioned; a change is a new version, never an edit.
//!
//! - [`level`]: which instructions the kernels use; never what they compute
//! - [`math`]: exp, SiLU, softmax, norms, f16, one element at a time
//! - [`matmul`]: packed weights times vectors, the one place where speed is made
//! - [`gguf`]: the single-file format of llama.cpp
//! - [`tensors`]: weights by name, whatever the file
//! - [`config`]: the numbers of a model, from either kind of file
//! - [`tokenizer`]: from text to tokens, and from strangers' text
//! - [`template`]: the model's own form of a conversation
//! - [`llama`]: the Llama architecture
//! - [`sampler`]: from logits to a token
//! - [`generate`]: from a prompt to text

pub mod config;
pub mod generate;
pub mod gguf;
pub mod level;
pub mod llama;
pub mod math;
pub mod matmul;
pub mod sampler;
pub mod template;
pub mod tensors;
pub mod tokenizer;

pub use config::Config;
pub use generate::{FinishReason, GenerateError, GenerateRequest, Generation, PromptPart, TextModel};
pub use level::Level;
pub use llama::{KvCache, Llama, LoadError};
pub use sampler::{Sampler, Sampling};

/// Version of the numeric contract in `NUMERICS.md`.
pub const NUMERICS_VERSION: u32 = 1;
