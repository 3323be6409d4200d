//! Scenarios: stories about the ledger in a file that people write. `docs/scenarios.md` is the
//! format.
//!
//! A scenario names a profile, accounts and models, then steps: calls at a time, waits, and what is
//! expected. [`run()`] plays it on the real ledger in virtual time, with every invariant checked, and
//! gives a [`Report`]. Anything that a wallet can send can be written: a step's fields are the fields
//! of its call, and short forms stand for what nobody wants to write out (`resolve`).

mod decade;
mod file;
mod resolve;
mod run;

pub use decade::{Day, decade};
pub use file::{Scenario, ScenarioError, parse};
pub use run::{Failure, Report, StepReport, run};
