//! Programs as clients: chains of orders with a budget, that a crash neither pays twice nor loses.
//! (T-15)
//!
//! A program is a file that people write: steps that ask a model, whose prompts use the answers of
//! earlier steps. Each step's order names the order that it came from as its parent, so that the
//! ledger holds the chain. The core takes ledger, time, content and memory as traits and spawns
//! nothing, so it runs inside the deterministic simulation as it is.
//!
//! - [`mod@file`]: the file, checked as far as it can be without running it
//! - [`template`]: prompts with places for values
//! - [`record`]: what a run has done so far: all that is kept
//! - [`decide`]: from a run to its next action, as a pure function
//! - [`journal`]: where runs are kept
//! - [`runner`]: carries the actions out; what happens when it falls is explained there
//! - [`answer`]: from an order to the text of its answer

pub mod answer;
pub mod decide;
pub mod file;
pub mod journal;
pub mod record;
pub mod runner;
pub mod template;

pub use answer::{AnswerError, fetch_text};
pub use decide::{Asking, Next, Stuck, next};
pub use file::{FanOut, FileError, Program, Repeat, Split, Step, Wait};
pub use journal::{FileJournal, Journal, JournalError, MemoryJournal};
pub use record::{Answered, Attempt, Outcome, Run, Task};
pub use runner::{Limits, Parts, Progress, RunError, Runner};
pub use template::{Source, Template, TemplateError};
