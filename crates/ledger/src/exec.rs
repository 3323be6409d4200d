//! What a call sees while it runs: the state under it, the block around it, the events so far.

use crate::{
    CLOCK,
    state::{Overlay, StateRead},
};
use althing_types::{Amount, ChainId, Event, Hash, LedgerError, Params};
use borsh::{BorshDeserialize, BorshSerialize};

/// The block that calls run in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockContext {
    pub chain: ChainId,
    pub height: u64,
    /// Strictly greater than the parent's, ms since the Unix epoch.
    pub time_ms: u64,
    /// The consensus view of this block.
    pub view: u64,
    /// Hash of the newest threshold-VRF seed that the block carries. (beacon)
    pub beacon: Hash,
    /// The view whose certificate gave that seed.
    pub beacon_view: u64,
}

/// The newest block's height and times.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct ChainClock {
    pub height: u64,
    /// Block time, ms since the Unix epoch.
    pub time_ms: u64,
    /// Block time without standstills: each block adds at most so much of the time since the one
    /// before. Challenge windows and votes are measured in it, so that none of them ends while
    /// nobody could act. (T-4, T-7)
    pub active_ms: u64,
}

impl ChainClock {
    /// The clock of the next block.
    pub(crate) fn advance(self, height: u64, time_ms: u64, active_step_ms_max: u64) -> Self {
        let step = time_ms.saturating_sub(self.time_ms).min(active_step_ms_max);
        Self { height, time_ms, active_ms: self.active_ms + step }
    }
}

/// One call, or one hook, at work.
pub(crate) struct Exec<'a> {
    pub(crate) state: Overlay<'a>,
    pub(crate) block: &'a BlockContext,
    pub(crate) params: &'a Params,
    pub(crate) events: Vec<Event>,
}

impl<'a> Exec<'a> {
    pub(crate) fn new(base: &'a dyn StateRead, block: &'a BlockContext, params: &'a Params) -> Self {
        Self { state: Overlay::new(base), block, params, events: Vec::new() }
    }
    /// Block time.
    pub(crate) fn now(&self) -> u64 {
        self.block.time_ms
    }
    /// Block time without standstills: what windows and votes are measured in.
    pub(crate) fn active_now(&self) -> u64 {
        CLOCK.get(&self.state, &()).map_or(self.block.time_ms, |clock| clock.active_ms)
    }
    pub(crate) fn emit(&mut self, event: Event) {
        self.events.push(event);
    }
}

/// Result of a call or of a step of it.
pub(crate) type Done<T = ()> = Result<T, LedgerError>;

/// Sum of amounts that come from outside.
pub(crate) fn add(a: Amount, b: Amount) -> Done<Amount> {
    a.checked_add(b).ok_or(LedgerError::Overflow)
}
