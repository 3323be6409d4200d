//! Model packages and the engines that run them.
//!
//! A package is a directory addressed by its CID; [`Package`] reads its `model.toml`, [`load`] gives
//! the [`Engine`] that runs it. For an exact engine, package, input and seed determine every byte of
//! the output, on any machine: that is what disputes rest on.
//!
//! - [`package`]: `model.toml` and the files it names
//! - [`interface`]: what models take and give, by name
//! - [`chat`]: the chat interface, its input and output as canonical JSON
//! - [`embedding`]: the embedding interface, and the native embedding engine
//! - [`media`]: the image and the speech interface
//! - [`engine`]: the engine trait and the native text engine
//! - [`template`]: the templates of models for conversations, in the sandbox
//! - [`wasm`]: models that are guests of the sandbox, and the JSON interface
//! - [`batch`]: runs of one chat model that share its steps
//! - [`memory`]: what models and runs hold, and what was read earlier and is kept
//! - [`local`]: models run from their files, without a network

pub mod batch;
pub mod chat;
pub mod embedding;
pub mod engine;
pub mod interface;
pub mod local;
pub mod media;
pub mod memory;
pub mod package;
mod prompt;
pub mod template;
pub mod wasm;

pub use batch::{Batch, Caller, Counters, Run};
pub use chat::{ChatInput, ChatMessage, ChatOutput, Role};
pub use embedding::{EmbeddingInput, EmbeddingOutput};
pub use engine::{ChatEngine, Engine, Prepared, RunError, check, load};
pub use interface::Interface;
pub use local::{LocalEmbeddingModel, LocalError, LocalModel, LocalRequest, LocalRun};
pub use media::{ImageInput, SpeechInput};
pub use memory::{Hold, Memory, Usage};
pub use package::{Package, PackageError};
