//! What several test files use.

#![allow(clippy::unwrap_used, dead_code, unused_imports)] // each test file uses a part

mod gguf_file;
mod tiny;

pub use gguf_file::GgufFile;
pub use tiny::{Random, Tiny, VOCABULARY, digest};
