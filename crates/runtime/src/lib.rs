//! Model packages and the engines that run them.
//!
//! A package is a directory addressed by its CID; [`Package`] reads its `model.toml`, [`load`] gives
//! the [`Engine`] that runs it. For an exact engine, package, input and seed determine every byte of
//! the output, on any machine: that is what disputes rest on.
//!
//! - [`package`]: `model.toml` and the files it names
//! - [`chat`]: the chat interface, its input and output as canonical JSON
//! - [`engine`]: the engine trait and the native text engine

pub mod chat;
pub mod engine;
pub mod package;

pub use chat::{ChatInput, ChatMessage, ChatOutput, Role};
pub use engine::{Engine, RunError, load};
pub use package::{Package, PackageError};
