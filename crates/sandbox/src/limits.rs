//! What bounds modules and their runs. All of it is part of results: a machine that allowed more would
//! see another outcome.

use std::time::Duration;

/// What a module may be. The same for everybody: never changed, only joined by new versions of the ABI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModuleLimits {
    /// Bytes of the module.
    pub module_bytes_max: usize,
    /// Functions that it defines.
    pub functions_max: u32,
    /// Bytes of one function's code. Compilers take more than linear time in it.
    pub function_bytes_max: usize,
    /// Parameters and other locals of one function.
    pub locals_max: u32,
    /// Locals of each function times its branches and joins, of all functions together: what the compiler's
    /// time grows with beyond the length of the code. A million take it about a second at worst.
    pub flow_max: u64,
    /// Entries of all tables together.
    pub table_elements_max: u64,
    /// Types, imports, globals, exports, and segments of data and elements, of each.
    pub items_max: u32,
    /// How deep calls may nest, in units that are at least the bytes of stack that a plain compiler takes.
    pub call_depth_max: u32,
}

/// The limits of ABI version 1.
pub const MODULE_LIMITS: ModuleLimits = ModuleLimits {
    module_bytes_max: 16 << 20,
    functions_max: 20_000,
    function_bytes_max: 256 << 10,
    locals_max: 1_000,
    flow_max: 64_000_000,
    table_elements_max: 50_000,
    items_max: 20_000,
    call_depth_max: 1 << 20,
};

/// What a guest may take. Its package says; there is a most for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Linear memory, bytes.
    pub memory_bytes_max: u64,
    /// Fuel of `init`: one unit is about one plain instruction.
    pub init_fuel_max: u64,
    /// Fuel of a run.
    pub run_fuel_max: u64,
    /// What guests keep outside it beside the weights: keys and values, and rotary positions, bytes.
    pub cache_bytes_max: u64,
    /// Bytes that a run may emit.
    pub output_bytes_max: u64,
}

impl Limits {
    /// The most that anybody may ask for: 1 GiB of its own and 16 beside it, an hour or two of init, some minutes of run, 64 MiB.
    pub const MOST: Self = Self {
        memory_bytes_max: 1 << 30,
        cache_bytes_max: 16 << 30,
        init_fuel_max: 1 << 42,
        run_fuel_max: 1 << 40,
        output_bytes_max: 64 << 20,
    };
}

impl Default for Limits {
    /// What small models need.
    fn default() -> Self {
        Self {
            memory_bytes_max: 256 << 20,
            cache_bytes_max: 256 << 20,
            init_fuel_max: 20_000_000_000,
            run_fuel_max: 20_000_000_000,
            output_bytes_max: 1 << 20,
        }
    }
}

/// Bounds of the machine's own, which end a run without a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// Longest compilation.
    pub compile_max: Duration,
    /// Longest `init`.
    pub init_max: Duration,
    /// Longest run.
    pub run_max: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            compile_max: Duration::from_secs(60),
            init_max: Duration::from_secs(600),
            run_max: Duration::from_secs(600),
        }
    }
}
