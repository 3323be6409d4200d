//! The compiler and its settings: one engine for all guests of the process.

use parking_lot::{Condvar, Mutex};
use std::{sync::OnceLock, time::Duration};
use wasmtime::{Config, Engine, OperatorCost, OptLevel, RegallocAlgorithm};

/// Stack that compiled code may take, bytes: sixteen times what [`crate::ModuleLimits::call_depth_max`]
/// counts for it, so that the count ends a recursion and not the machine.
pub(crate) const STACK_BYTES: usize = 16 << 20;
/// Stack beside that for what guests call.
pub(crate) const HOST_STACK_BYTES: usize = 2 << 20;
/// How often a run is asked whether it is still wanted.
pub(crate) const TICK: Duration = Duration::from_millis(10);

/// What each instruction costs. Pinned: a change is a new version of the ABI.
///
/// One unit is about the time of a plain instruction. The digest of this table is committed with the tests.
pub(crate) fn costs() -> OperatorCost {
    let mut costs = OperatorCost::new();
    for slow in [
        &mut costs.I32DivS,
        &mut costs.I32DivU,
        &mut costs.I32RemS,
        &mut costs.I32RemU,
        &mut costs.I64DivS,
        &mut costs.I64DivU,
        &mut costs.I64RemS,
        &mut costs.I64RemU,
        &mut costs.F32Div,
        &mut costs.F64Div,
        &mut costs.F32Sqrt,
        &mut costs.F64Sqrt,
        &mut costs.F32x4Div,
        &mut costs.F64x2Div,
        &mut costs.F32x4Sqrt,
        &mut costs.F64x2Sqrt,
    ] {
        *slow = 8;
    }
    // A call saves and loads what its caller had in registers; one through a table checks its type too.
    costs.Call = 4;
    costs.CallIndirect = 8;
    // The system cannot grow memory for nothing, and clears each page.
    costs.MemoryGrow = 255;
    costs.variable.memory_grow_per_page = 255;
    costs
}

/// How carefully to compile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compile {
    /// For many runs.
    Optimized,
    /// For one, or for many short ones that should begin soon.
    Quick,
}

fn config(compile: Compile) -> Config {
    let mut config = Config::new();
    config
        .cranelift_opt_level(match compile {
            Compile::Optimized => OptLevel::Speed,
            Compile::Quick => OptLevel::None,
        })
        .cranelift_regalloc_algorithm(match compile {
            Compile::Optimized => RegallocAlgorithm::Backtracking,
            Compile::Quick => RegallocAlgorithm::SinglePass,
        })
        // Machines give different bits for the NaN that an operation makes.
        .cranelift_nan_canonicalization(true)
        .consume_fuel(true)
        .operator_cost(costs())
        .epoch_interruption(true)
        .max_wasm_stack(STACK_BYTES)
        // Of no use here, but never to be less.
        .async_stack_size(STACK_BYTES)
        .wasm_backtrace_max_frames(None)
        .wasm_relaxed_simd(false)
        // A snapshot of memory is mapped, not copied, also where much of it is zero.
        .memory_init_cow(true)
        .memory_guaranteed_dense_image_size(1 << 30);
    config
}

/// The engine that compiles so, and keeps ticking while there are runs.
pub(crate) fn engine(compile: Compile) -> Result<&'static Engine, String> {
    static ENGINES: OnceLock<Result<[Engine; 2], String>> = OnceLock::new();
    let engines = ENGINES.get_or_init(|| {
        let engine = |compile| Engine::new(&config(compile)).map_err(|error| format!("{error:#}"));
        let engines = [engine(Compile::Optimized)?, engine(Compile::Quick)?];
        let ticked = engines.clone();
        let thread = std::thread::Builder::new().name("althing-tick".into());
        thread.spawn(move || tick(&ticked)).map_err(|error| error.to_string())?;
        Ok(engines)
    });
    let [optimized, quick] = engines.as_ref().map_err(Clone::clone)?;
    Ok(match compile {
        Compile::Optimized => optimized,
        Compile::Quick => quick,
    })
}

/// How many guests are at work: nobody ticks while there is none.
static WORKING: (Mutex<usize>, Condvar) = (Mutex::new(0), Condvar::new());

fn tick(engines: &[Engine]) {
    let (working, begun) = &WORKING;
    loop {
        begun.wait_while(&mut working.lock(), |working| *working == 0);
        std::thread::sleep(TICK);
        engines.iter().for_each(Engine::increment_epoch);
    }
}

/// Somebody is at work until this is dropped.
pub(crate) struct Working;

impl Working {
    pub(crate) fn new() -> Self {
        let (working, begun) = &WORKING;
        *working.lock() += 1;
        begun.notify_all();
        Self
    }
}

impl Drop for Working {
    fn drop(&mut self) {
        *WORKING.0.lock() -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sha2::{Digest, Sha256};

    #[test]
    fn the_costs_are_those_of_version_1() {
        let costs = costs();
        assert_eq!((costs.Nop, costs.I32Add, costs.I64DivU, costs.Call, costs.CallIndirect), (0, 1, 8, 4, 8));
        let table = serde_json::to_vec(&costs).expect("numbers are always JSON");
        assert_eq!(
            hex::encode(Sha256::digest(table)),
            "797de3ee232109dc2e318c8732c55f4bfa3fad5f86bb076bb7e26307e9bfc173"
        );
    }
}
