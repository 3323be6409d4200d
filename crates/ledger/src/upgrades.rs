//! Versions of the protocol: which one is in force, and when the next one is. (G-2)
//!
//! A **version** is a set of rules by which blocks are executed. Governance names a version and the
//! height of the first block that follows it; all nodes change over in that block, or stop before it if
//! their program does not know the version. Rules that differ between versions ask [`version`].

use crate::{
    exec::{Done, Exec},
    governance,
    state::{Map, StateRead},
};
use althing_types::{Address, Event, LedgerError, Upgrade};

/// The newest version that this program can run, which new networks start with.
pub const PROTOCOL_VERSION: u32 = 1;

/// The version in force, and the height of its first block.
const IN_FORCE: Map<(), Upgrade> = Map::new(0x56);
/// The version to come.
const SCHEDULED: Map<(), Upgrade> = Map::new(0x57);

/// Why a program must not execute a block: it does not know the rules. (G-2)
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "this program supports protocol version {supported}; version {version} comes into force at height {height}: \
     install the new program and start again"
)]
pub struct UpgradeNeeded {
    pub version: u32,
    /// The first block of that version.
    pub height: u64,
    /// The newest version that the program knows.
    pub supported: u32,
}

// ---- queries ----

/// The version in force and the height from which it is.
fn in_force(state: &dyn StateRead) -> Upgrade {
    IN_FORCE.get(state, &()).expect("genesis writes the version")
}

/// The version of the protocol in force.
pub fn version(state: &dyn StateRead) -> u32 {
    in_force(state).version
}

/// The upgrade that is scheduled.
pub fn pending(state: &dyn StateRead) -> Option<Upgrade> {
    SCHEDULED.get(state, &())
}

/// Whether a program that knows versions up to `supported` may execute the block at `next_height` on
/// this state. A node asks before each block, and stops if not. (G-2)
///
/// # Errors
/// What it would need, in words for whoever runs the node.
pub fn can_run(state: &dyn StateRead, next_height: u64, supported: u32) -> Result<(), UpgradeNeeded> {
    let due = pending(state).filter(|upgrade| upgrade.height <= next_height);
    let Upgrade { version, height } = due.unwrap_or_else(|| in_force(state));
    if version <= supported { Ok(()) } else { Err(UpgradeNeeded { version, height, supported }) }
}

// ---- calls ----

/// [`althing_types::Call::UpgradeSchedule`]. (G-2)
pub(crate) fn schedule(exec: &mut Exec<'_>, sender: Address, upgrade: Upgrade) -> Done {
    governance::only_governor(&sender)?;
    let Upgrade { version, height } = upgrade;
    let in_force = in_force(&exec.state).version;
    if version <= in_force {
        return Err(LedgerError::UpgradeVersionInvalid { version, in_force });
    }
    if height <= exec.block.height {
        return Err(LedgerError::UpgradeHeightPassed { height: exec.block.height });
    }
    if let Some(Upgrade { version, height }) = pending(&exec.state) {
        return Err(LedgerError::UpgradeScheduledAlready { version, height });
    }
    SCHEDULED.set(&mut exec.state, &(), &upgrade);
    exec.emit(Event::UpgradeScheduled { version, height });
    Ok(())
}

/// [`althing_types::Call::UpgradeCancel`]. (G-2)
pub(crate) fn cancel(exec: &mut Exec<'_>, sender: Address) -> Done {
    governance::only_governor(&sender)?;
    let Upgrade { version, height } = pending(&exec.state).ok_or(LedgerError::NoUpgrade)?;
    SCHEDULED.remove(&mut exec.state, &());
    exec.emit(Event::UpgradeCancelled { version, height });
    Ok(())
}

// ---- hooks ----

/// Genesis: a new network runs the newest rules from its first block on.
pub(crate) fn open(exec: &mut Exec<'_>) {
    IN_FORCE.set(&mut exec.state, &(), &Upgrade { version: PROTOCOL_VERSION, height: 0 });
}

/// Hook before everything else in a block: at its height the scheduled version comes into force. (G-2)
pub(crate) fn begin_block(exec: &mut Exec<'_>) {
    let Some(upgrade) = pending(&exec.state).filter(|upgrade| upgrade.height <= exec.block.height) else { return };
    IN_FORCE.set(&mut exec.state, &(), &upgrade);
    SCHEDULED.remove(&mut exec.state, &());
    exec.emit(Event::Upgraded { version: upgrade.version, height: exec.block.height });
}
