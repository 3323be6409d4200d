//! Runs strangers' WebAssembly so that it can do no harm and does the same on every machine.
//!
//! - [`limits`]: what bounds a module and its runs
//! - [`module`]: what a module may be, and how its calls are counted
//! - [`guest`]: a module that is ready, and its runs
//! - [`host`]: what guests can call, and `kernels` for the heavy part; the contract is `ABI.md`
//!
//! A run has one outcome, which its module, blobs, input and seed decide: an output, or a [`Failure`],
//! which is a result like any other. Fuel, not time, says how long it may take. What machines can disagree
//! about (time, memory that is not there, a caller who gives up) is [`NoResult`], from which nothing follows.

mod engine;
pub mod guest;
pub mod host;
mod kernels;
pub mod limits;
pub mod module;
mod wasi;

pub use guest::{Compile, Config, Failure, Guest, NoResult, Ran, Stop};
pub use host::{Files, Finish};
pub use limits::{Limits, ModuleLimits, Patience};
pub use module::ModuleError;
