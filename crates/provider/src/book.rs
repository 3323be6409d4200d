//! What a provider measured, decided and earned: the working memory behind its status. (T-12, E-4)

use crate::policy::{Appraisal, Task};
use althing_types::{Amount, ModelId, OrderId, object::Earned};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};

/// How many decisions are remembered.
pub const DECISIONS_MAX: usize = 16;
/// A new run changes the average by one part in so many.
const AVERAGE_OVER: u64 = 8;

/// What runs of a model took on this machine: exponential moving averages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Measure {
    pub runs: u64,
    run_ms: u64,
    output_bytes: u64,
}

/// A step of the average towards a new value.
fn average(old: u64, new: u64) -> u64 {
    let sum = u128::from(old) * u128::from(AVERAGE_OVER - 1) + u128::from(new);
    u64::try_from(sum.div_ceil(AVERAGE_OVER.into())).unwrap_or(u64::MAX)
}

impl Measure {
    /// Counts a run.
    pub fn add(&mut self, run_ms: u64, output_bytes: u64) {
        let first = self.runs == 0;
        self.runs += 1;
        self.run_ms = if first { run_ms } else { average(self.run_ms, run_ms) };
        self.output_bytes = if first { output_bytes } else { average(self.output_bytes, output_bytes) };
    }
    /// How long a run takes, if there was one.
    pub fn run_ms(&self) -> Option<u64> {
        (self.runs > 0).then_some(self.run_ms)
    }
    /// How large an output is, if there was one.
    pub fn output_bytes(&self) -> Option<u64> {
        (self.runs > 0).then_some(self.output_bytes)
    }
}

/// One decision and how it came about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    pub order: OrderId,
    pub model: ModelId,
    pub task: Task,
    /// Block time.
    pub time_ms: u64,
    #[serde(flatten)]
    pub appraisal: Appraisal,
}

/// A served model, as the status shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelStatus {
    pub model: ModelId,
    pub name: String,
    /// Runs since the provider started.
    pub runs: u64,
    /// Typical time of a run and size of its output; `None` before the first.
    pub run_ms: Option<u64>,
    pub output_bytes: Option<u64>,
    /// Providers that say they serve it, this one included. (T-13)
    pub supporters: u32,
    /// What this provider would keep of the reward of a typical run now. (T-6)
    pub reward: Amount,
}

/// Measures and decisions.
#[derive(Debug, Default)]
pub(crate) struct Book {
    measures: BTreeMap<ModelId, Measure>,
    decisions: VecDeque<Decision>,
}

impl Book {
    pub(crate) fn ran(&mut self, model: ModelId, run_ms: u64, output_bytes: u64) {
        self.measures.entry(model).or_default().add(run_ms, output_bytes);
    }

    pub(crate) fn measure(&self, model: &ModelId) -> Measure {
        self.measures.get(model).copied().unwrap_or_default()
    }

    /// Writes a decision down; a newer one about the same work replaces the older.
    pub(crate) fn decided(&mut self, decision: Decision) {
        self.decisions.retain(|old| (old.order, old.task) != (decision.order, decision.task));
        if self.decisions.len() >= DECISIONS_MAX {
            self.decisions.pop_front();
        }
        self.decisions.push_back(decision);
    }

    /// Newest first.
    pub(crate) fn decisions(&self) -> Vec<Decision> {
        self.decisions.iter().rev().cloned().collect()
    }
}

/// What was earned beyond `before`, by source. (E-4)
pub(crate) fn earned_since(now: Earned, before: Earned) -> Earned {
    Earned {
        fees: now.fees.saturating_sub(before.fees),
        rewards: now.rewards.saturating_sub(before.rewards),
        slashes: now.slashes.saturating_sub(before.slashes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_average_follows_the_machine() {
        // T-12
        let mut measure = Measure::default();
        assert_eq!((measure.run_ms(), measure.output_bytes()), (None, None));
        measure.add(800, 100);
        assert_eq!((measure.run_ms(), measure.output_bytes()), (Some(800), Some(100)));
        measure.add(1_600, 100);
        assert_eq!((measure.run_ms(), measure.output_bytes()), (Some(900), Some(100)));
        for _ in 0..100 {
            measure.add(1_600, 100);
        }
        assert_eq!((measure.runs, measure.run_ms(), measure.output_bytes()), (102, Some(1_600), Some(100)));
    }

    #[test]
    fn the_newest_decisions_are_remembered_and_one_for_each_piece_of_work() {
        let mut book = Book::default();
        let decision = |order: u8, task, take| Decision {
            order: OrderId([order; 32]),
            model: ModelId([1; 32]),
            task,
            time_ms: 0,
            appraisal: Appraisal { take, ..Appraisal::default() },
        };
        for order in 0..20 {
            book.decided(decision(order, Task::Solve, false));
        }
        book.decided(decision(10, Task::Solve, true));
        book.decided(decision(10, Task::Agree, true));
        let decisions = book.decisions();
        assert_eq!(decisions.len(), DECISIONS_MAX);
        assert_eq!(decisions[0], decision(10, Task::Agree, true));
        assert_eq!(decisions[1], decision(10, Task::Solve, true));
        assert_eq!(decisions[2].order, OrderId([19; 32]));
    }
}
