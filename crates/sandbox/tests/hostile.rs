//! Modules that mean harm, or are broken: each is refused, or its run fails with a reason, and the
//! machine is none the worse for it.

#![allow(clippy::unwrap_used)] // helpers of tests

use althing_sandbox::{
    Compile, Config, Failure, Files, Guest, Limits, ModuleError, NoResult, Patience, Stop, limits::MODULE_LIMITS,
};
use std::time::Duration;

/// A module with what the ABI asks for, and `parts`.
fn module(parts: &str) -> Vec<u8> {
    let text = format!(
        r#"(module
            (import "althing" "emit" (func $emit (param i32 i32)))
            (import "althing" "refuse" (func $refuse (param i32 i32)))
            (import "althing" "input_len" (func $input_len (result i32)))
            (import "althing" "input_read" (func $input_read (param i32 i32 i32) (result i32)))
            (import "althing" "blob_open" (func $blob_open (param i32 i32) (result i32)))
            (import "althing" "blob_read" (func $blob_read (param i32 i64 i32 i32) (result i32)))
            (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
            (memory (export "memory") 1)
            (func (export "abi_version") (result i32) i32.const 1)
            {parts})"#
    );
    wat::parse_str(text).unwrap()
}

/// The same with this body of `run`.
fn run(body: &str) -> Vec<u8> {
    module(&format!(r#"(func $run (export "run") {body})"#))
}

const LIMITS: Limits = Limits {
    memory_bytes_max: 4 << 20,
    cache_bytes_max: 1 << 20,
    init_fuel_max: 50_000_000,
    run_fuel_max: 50_000_000,
    output_bytes_max: 1000,
};

fn files() -> Files {
    Files::new([("weights".to_owned(), b"12345".to_vec())])
}

fn guest(module: &[u8]) -> Result<Guest, ModuleError> {
    Guest::new(module, files(), config(LIMITS))
}

fn config(limits: Limits) -> Config {
    Config { compile: Compile::Quick, ..Config::new(limits) }
}

/// How a module fails on an input.
fn failure(module: &[u8]) -> Failure {
    match guest(module).unwrap().run(b"input", 7, &mut |_| true) {
        Err(Stop::Failed(failure)) => failure,
        other => panic!("{other:?}"),
    }
}

#[test]
fn runs_that_mean_harm_fail_with_the_reason() {
    let table = r#"(type $none (func)) (table 2 funcref) (elem (i32.const 1) $one) (func $one (param i32))"#;
    let cases: &[(&str, Vec<u8>, Failure)] = &[
        ("an endless loop", run("(loop $again br $again)"), Failure::OutOfFuel),
        (
            "a loop of calls of the host, each of which costs next to nothing",
            run("(loop $again (drop (call $input_read (i32.const 0) (i32.const 0) (i32.const 0))) br $again)"),
            Failure::OutOfFuel,
        ),
        (
            "memory written over and over by one instruction",
            run("(loop $again (memory.fill (i32.const 0) (i32.const 1) (i32.const 65536)) br $again)"),
            Failure::OutOfFuel,
        ),
        (
            "a memory bomb that takes no for an answer",
            run("(loop $again (br_if $again (i32.ne (memory.grow (i32.const 1)) (i32.const -1)))) unreachable"),
            Failure::OutOfMemory,
        ),
        ("a memory bomb at once", run("(drop (memory.grow (i32.const 65535))) unreachable"), Failure::OutOfMemory),
        (
            "a memory bomb that takes no answer",
            run("(loop $again (drop (memory.grow (i32.const 1))) br $again)"),
            Failure::OutOfFuel,
        ),
        ("a function that calls itself", run("call $run"), Failure::TooDeep),
        (
            "two that call each other",
            module(r#"(func $run (export "run") call $other) (func $other call $run)"#),
            Failure::TooDeep,
        ),
        (
            "one that calls itself through a table",
            module(
                r#"(type $none (func)) (table 1 funcref) (elem (i32.const 0) $run)
                (func $run (export "run") (call_indirect (type $none) (i32.const 0)))"#,
            ),
            Failure::TooDeep,
        ),
        ("frames that are large", run(&large_frames()), Failure::TooDeep),
        (
            "output without an end",
            run("(loop $again (call $emit (i32.const 0) (i32.const 100)) br $again)"),
            Failure::OutputTooLarge { max: 1000 },
        ),
        ("output at once", run("(call $emit (i32.const 0) (i32.const 65536))"), Failure::OutputTooLarge { max: 1000 }),
        ("output from outside its memory", run("(call $emit (i32.const 65500) (i32.const 100))"), Failure::BadAddress),
        ("an address that wraps around", run("(call $emit (i32.const -1) (i32.const 2))"), Failure::BadAddress),
        (
            "an input read into where there is no memory",
            run("(drop (call $input_read (i32.const 0) (i32.const 65535) (i32.const 5)))"),
            Failure::BadAddress,
        ),
        (
            "a length without an end",
            run("(drop (call $input_read (i32.const 0) (i32.const 0) (i32.const -1)))"),
            Failure::OutOfFuel,
        ),
        (
            "a file that was never opened",
            run("(drop (call $blob_read (i32.const 1) (i64.const 0) (i32.const 0) (i32.const 5)))"),
            Failure::BadHandle,
        ),
        ("an exit", run("(call $exit (i32.const 3))"), Failure::Exited(3)),
        ("a panic", run("unreachable"), Failure::Trapped("it panicked")),
        (
            "a division by zero",
            run("(drop (i32.div_s (i32.const 1) (i32.const 0)))"),
            Failure::Trapped("a division by zero"),
        ),
        (
            "a division that overflows",
            run("(drop (i32.div_s (i32.const 0x80000000) (i32.const -1)))"),
            Failure::Trapped("an integer overflow"),
        ),
        (
            "a number that is no integer",
            run("(drop (i32.trunc_f32_s (f32.const nan)))"),
            Failure::Trapped("a number that is no integer"),
        ),
        (
            "a read outside its memory",
            run("(drop (i32.load (i32.const -4)))"),
            Failure::Trapped("an address outside its memory"),
        ),
        (
            "a call outside its table",
            module(&format!(r#"{table} (func (export "run") (call_indirect (type $none) (i32.const 9)))"#)),
            Failure::Trapped("an index outside its table"),
        ),
        (
            "a call of nothing",
            module(&format!(r#"{table} (func (export "run") (call_indirect (type $none) (i32.const 0)))"#)),
            Failure::Trapped("a call of nothing"),
        ),
        (
            "a call of a function of another type",
            module(&format!(r#"{table} (func (export "run") (call_indirect (type $none) (i32.const 1)))"#)),
            Failure::Trapped("a call of a function of another type"),
        ),
        (
            "a refusal, cut where it is too long",
            module(r#"(data (i32.const 0) "no") (func (export "run") (call $refuse (i32.const 0) (i32.const 2)))"#),
            Failure::Refused("no".into()),
        ),
        (
            "a run that takes something",
            module(r#"(func (export "run") (param i32))"#),
            Failure::Trapped("a function of the ABI has another type than it should"),
        ),
    ];
    for (what, module, expected) in cases {
        assert_eq!(failure(module), *expected, "{what}");
    }
}

/// A recursion whose frames hold a thousand values that are needed after the call.
fn large_frames() -> String {
    let locals = "i64 ".repeat(900);
    let set: String = (0..900).map(|i| format!("(local.set {i} (i64.load (i32.const {i})))")).collect();
    let used: String = (0..900).map(|i| format!("(i64.store (i32.const {i}) (local.get {i}))")).collect();
    format!("(local {locals}) {set} call $run {used}")
}

#[test]
fn modules_that_are_not_run_are_refused_with_the_reason() {
    let text = |text: &str| wat::parse_str(text).unwrap();
    let large = |what, got, max| ModuleError::TooLarge { what, got, max };
    let import = |module: &str, name: &str| ModuleError::ForbiddenImport { module: module.into(), name: name.into() };
    let locals = "i32 ".repeat(1_001);
    let functions = "(func)".repeat(20_001);
    let abi = r#"(func (export "abi_version") (result i32) i32.const 1) (func (export "run"))"#;
    let cases: &[(&str, Vec<u8>, ModuleError)] = &[
        (
            "one that opens files",
            text(
                r#"(module (import "wasi_snapshot_preview1" "path_open" (func)) (memory (export "memory") 1)
                (func (export "abi_version") (result i32) i32.const 1) (func (export "run")))"#,
            ),
            import("wasi_snapshot_preview1", "path_open"),
        ),
        (
            "one that connects",
            text(
                r#"(module (import "wasi_snapshot_preview1" "sock_send" (func)) (memory (export "memory") 1)
                (func (export "abi_version") (result i32) i32.const 1) (func (export "run")))"#,
            ),
            import("wasi_snapshot_preview1", "sock_send"),
        ),
        (
            "one that would share a memory",
            text(&format!(r#"(module (import "env" "memory" (memory 1)) {abi})"#)),
            import("env", "memory"),
        ),
        (
            "one that takes an import for something else",
            text(
                r#"(module (import "althing" "emit" (func (param i64))) (memory (export "memory") 1)
                (func (export "abi_version") (result i32) i32.const 1) (func (export "run")))"#,
            ),
            ModuleError::ImportType { module: "althing".into(), name: "emit".into() },
        ),
        ("one without memory", text(&format!("(module {abi})")), ModuleError::MissingExport("memory")),
        (
            "one that hides its memory",
            text(&format!("(module (memory 1) {abi})")),
            ModuleError::MissingExport("memory"),
        ),
        ("one that does not run", module(""), ModuleError::MissingExport("function run")),
        (
            "one that is for no ABI",
            text(r#"(module (memory (export "memory") 1) (func (export "run")))"#),
            ModuleError::MissingExport("function abi_version"),
        ),
        (
            "one that is for another ABI",
            text(
                r#"(module (memory (export "memory") 1) (func (export "run"))
                (func (export "abi_version") (result i32) i32.const 2))"#,
            ),
            ModuleError::AbiVersion { got: 2, supported: 1 },
        ),
        (
            "one that begins with more memory than it may have",
            text(&format!(r#"(module (memory (export "memory") 65) {abi})"#)),
            large("bytes of memory at its start", 65 << 16, 4 << 20),
        ),
        (
            "one that takes a name of the host's",
            module(r#"(func (export "run")) (global (export "althing:call-depth") i32 (i32.const 0))"#),
            ModuleError::Malformed("it exports althing:call-depth, a name of the host's".into()),
        ),
        (
            "one whose table is large",
            module(r#"(func (export "run")) (table 50001 funcref)"#),
            large("table entries", 50_001, 50_000),
        ),
        ("one with many locals", run(&format!("(local {locals})")), large("locals in a function", 1_001, 1_000)),
        (
            "one with many functions",
            module(&format!(r#"(func (export "run")) {functions}"#)),
            large("functions", 20_003, 20_000),
        ),
        (
            "one with a long function",
            run(&"nop ".repeat(300_000)),
            large("bytes of code in a function", 300_002, 256 << 10),
        ),
        ("init that does not end", with_init("(loop $again br $again)"), ModuleError::Init(Failure::OutOfFuel)),
        ("init that recurses", with_init("call $init"), ModuleError::Init(Failure::TooDeep)),
        (
            "init that answers",
            with_init("(call $emit (i32.const 0) (i32.const 1))"),
            ModuleError::Init(Failure::NotInInit),
        ),
        ("init that panics", with_init("unreachable"), ModuleError::Init(Failure::Trapped("it panicked"))),
        (
            "a start that does not end",
            module(r#"(func (export "run")) (func $start (loop $again br $again)) (start $start)"#),
            ModuleError::Init(Failure::OutOfFuel),
        ),
    ];
    for (what, module, expected) in cases {
        assert_eq!(guest(module).err().as_ref(), Some(expected), "{what}");
    }
}

fn with_init(body: &str) -> Vec<u8> {
    module(&format!(r#"(func (export "run")) (func $init (export "init") {body})"#))
}

#[test]
fn what_machines_do_differently_is_malformed() {
    let memory = r#"(memory (export "memory") 1)"#;
    for (what, text) in [
        ("threads", run_text(r#"(memory (export "memory") 1 1 shared)"#, "(drop (i32.atomic.load (i32.const 0)))")),
        (
            "relaxed SIMD",
            run_text(memory, "(drop (i8x16.relaxed_swizzle (v128.const i64x2 0 0) (v128.const i64x2 0 0)))"),
        ),
        ("tail calls", run_text(memory, "return_call $run")),
        ("exceptions", run_text(memory, "(try_table (nop))")),
        ("64-bit memories", run_text(r#"(memory (export "memory") i64 1)"#, "")),
        ("two memories", run_text(r#"(memory (export "memory") 1) (memory 1)"#, "")),
        (
            "references to the host",
            run_text(r#"(memory (export "memory") 1) (global externref (ref.null extern))"#, ""),
        ),
    ] {
        match guest(&wat::parse_str(&text).unwrap()).err() {
            Some(ModuleError::Malformed(_)) => {}
            other => panic!("{what}: {other:?}"),
        }
    }
}

fn run_text(memory: &str, body: &str) -> String {
    format!(
        r#"(module {memory} (func (export "abi_version") (result i32) i32.const 1) (func $run (export "run") {body}))"#
    )
}

#[test]
fn bytes_that_are_no_module_are_malformed() {
    let whole = run("");
    let mut component = whole.clone();
    component[4..8].copy_from_slice(&[13, 0, 1, 0]);
    let cases = [&b""[..], b"\0asm", b"not a module", &component, &whole[..whole.len() - 3]];
    for bytes in cases {
        match guest(bytes).err() {
            Some(ModuleError::Malformed(_) | ModuleError::MissingExport(_)) => {}
            other => panic!("{bytes:?}: {other:?}"),
        }
    }
    // Whatever a byte is changed to, the module is refused or runs, within its bounds.
    let whole = run("(loop $again (br_if $again (i32.ne (memory.grow (i32.const 1)) (i32.const -1))))");
    for at in 0..whole.len() {
        for change in [0x01, 0x40, 0x80] {
            let mut changed = whole.clone();
            changed[at] ^= change;
            if let Ok(guest) = guest(&changed) {
                let _ = guest.run(b"", 0, &mut |_| true);
            }
        }
    }
    let long = vec![0; MODULE_LIMITS.module_bytes_max + 1];
    let expected =
        ModuleError::TooLarge { what: "bytes", got: long.len() as u64, max: MODULE_LIMITS.module_bytes_max as u64 };
    assert_eq!(guest(&long).err(), Some(expected));
}

/// As slow to compile as one function can be, or nearly: many branches, each with all locals at hand.
fn slow_to_compile(functions: usize) -> Vec<u8> {
    let locals = "i64 ".repeat(990);
    let step = |i: usize| {
        let (one, other, third) = (i * 7 % 990, i * 13 % 990, i * 29 % 990);
        format!(
            "(if (i64.eqz (local.get {one})) (then (local.set {other} (i64.add (local.get {third}) (local.get {one})))))"
        )
    };
    let body: String = (0..14_000).map(step).collect();
    let body = format!("(local {locals}) (loop $again {body} (br_if $again (i64.eqz (local.get 5))))");
    module(&format!(r#"(func (export "run")) {}"#, format!("(func {body})").repeat(functions)))
}

#[test]
fn a_module_that_compiles_slowly_is_given_up() {
    let patience = Patience { compile_max: Duration::from_millis(1), ..Patience::default() };
    let given_up = Guest::new(&slow_to_compile(1), files(), Config { patience, ..config(LIMITS) });
    assert_eq!(given_up.err(), Some(ModuleError::SlowCompile(Duration::from_millis(1))));
    // Where all of its functions are slow, nobody begins.
    let refused = guest(&slow_to_compile(3)).err();
    assert_eq!(
        refused,
        Some(ModuleError::TooLarge { what: "locals times branches", got: 83_171_880, max: 64_000_000 })
    );
    // Others are none the worse for it.
    guest(&run("")).unwrap().run(b"", 0, &mut |_| true).unwrap();
}

#[test]
fn a_run_that_nobody_wants_any_more_ends_without_a_result() {
    let endless = run("(call $emit (i32.const 0) (i32.const 1)) (loop $again br $again)");
    let limits = Limits { run_fuel_max: Limits::MOST.run_fuel_max, ..LIMITS };
    let patience = Patience { run_max: Duration::from_millis(200), ..Patience::default() };
    let guest = Guest::new(&endless, files(), Config { patience, ..config(limits) }).unwrap();
    assert_eq!(guest.run(b"", 0, &mut |_| true), Err(Stop::NoResult(NoResult::TooSlow)));
    let guest = Guest::new(&endless, files(), config(limits)).unwrap();
    assert_eq!(guest.run(b"", 0, &mut |_| false), Err(Stop::NoResult(NoResult::GivenUp)));
}

/// Weights of a matrix of 2 × 4, a vector of 4, and a vector of which one is infinite.
fn weights() -> Files {
    let values: Vec<f32> = vec![1., 2., 3., 4., 5., 6., 7., 8., 1., 1., 1., 1., f32::INFINITY];
    let data: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    let header = serde_json::json!({
        "m": {"dtype": "F32", "shape": [2, 4], "data_offsets": [0, 32]},
        "v": {"dtype": "F32", "shape": [4], "data_offsets": [32, 48]},
        "infinite": {"dtype": "F32", "shape": [1], "data_offsets": [48, 52]},
    });
    let header = header.to_string().into_bytes();
    let file = [&(header.len() as u64).to_le_bytes(), &header[..], &data].concat();
    Files::new([("weights".to_owned(), file)]).with_weights(&["weights".to_owned()]).unwrap()
}

/// A module that uses the kernels, with this body of `run`. "m", "v" and "infinite" are at 0, 1 and 2.
fn kernels(body: &str) -> Guest {
    let text = format!(
        r#"(module
            (import "althing" "emit" (func $emit (param i32 i32)))
            (import "althing" "tensor_open" (func $tensor_open (param i32 i32) (result i32)))
            (import "althing" "tensor_row" (func $tensor_row (param i32 i32 i32)))
            (import "althing" "matmul" (func $matmul (param i32 i32 i32 i32)))
            (import "althing" "matmul_many" (func $matmul_many (param i32 i32 i32 i32 i32)))
            (import "althing" "rms_norm" (func $rms_norm (param i32 i32 i32 f32)))
            (import "althing" "add" (func $add (param i32 i32 i32)))
            (import "althing" "rope_open" (func $rope_open (param f64 i32 i32 i32 i32 i32) (result i32)))
            (import "althing" "rope" (func $rope (param i32 i32 i32 i32 i32)))
            (import "althing" "memory_open" (func $memory_open (param i32 i32 i32) (result i32)))
            (import "althing" "attend" (func $attend (param i32 i32 i32 i32 i32 i32 i32 i32)))
            (import "althing" "memory_advance" (func $memory_advance (param i32 i32)))
            (import "althing" "sampler_open" (func $sampler_open (param i32) (result i32)))
            (import "althing" "sample" (func $sample (param i32 i32 i32 i32 i32 i32 i32) (result i32)))
            (memory (export "memory") 1)
            (data (i32.const 0) "mvinfinite")
            (func (export "abi_version") (result i32) i32.const 1)
            (func (export "init")
                (drop (call $tensor_open (i32.const 0) (i32.const 1)))
                (drop (call $tensor_open (i32.const 1) (i32.const 1))))
            (func (export "run") {body}))"#
    );
    Guest::new(&wat::parse_str(text).unwrap(), weights(), config(LIMITS)).unwrap()
}

#[test]
fn kernels_take_nothing_that_does_not_fit() {
    let memory = "(drop (call $memory_open (i32.const 1) (i32.const 1) (i32.const 4)))";
    let attend = |layer: u32, heads: u32, rows: u32| {
        format!(
            "(call $attend (i32.const 2) (i32.const {layer}) (i32.const {heads}) (i32.const {rows}) (i32.const 1024)
            (i32.const 1024) (i32.const 1024) (i32.const 2048))"
        )
    };
    let cases: &[(&str, String, Failure)] = &[
        (
            "a handle of nothing",
            "(call $matmul (i32.const 9) (i32.const 64) (i32.const 1) (i32.const 128))".into(),
            Failure::BadHandle,
        ),
        (
            "a row that there is not",
            "(call $tensor_row (i32.const 0) (i32.const 2) (i32.const 64))".into(),
            Failure::BadShape,
        ),
        (
            "no rows",
            "(call $matmul (i32.const 0) (i32.const 64) (i32.const 0) (i32.const 128))".into(),
            Failure::BadShape,
        ),
        (
            "more rows than go through at once",
            "(call $matmul (i32.const 0) (i32.const 64) (i32.const 65537) (i32.const 128))".into(),
            Failure::BadShape,
        ),
        (
            "rows outside its memory",
            "(call $matmul (i32.const 0) (i32.const 64) (i32.const 8000) (i32.const 128))".into(),
            Failure::BadAddress,
        ),
        (
            "an address that is no multiple of four",
            "(call $matmul (i32.const 0) (i32.const 66) (i32.const 1) (i32.const 128))".into(),
            Failure::BadAddress,
        ),
        (
            "matrices without an end",
            "(call $matmul_many (i32.const 64) (i32.const -1) (i32.const 64) (i32.const 1) (i32.const 128))".into(),
            Failure::BadShape,
        ),
        (
            "a matrix where a vector belongs",
            "(call $rms_norm (i32.const 0) (i32.const 64) (i32.const 1) (f32.const 0))".into(),
            Failure::BadShape,
        ),
        (
            "vectors that overlap",
            "(call $add (i32.const 64) (i32.const 72) (i32.const 4))".into(),
            Failure::BadAddress,
        ),
        (
            "a length that wraps around",
            "(call $add (i32.const 64) (i32.const 72) (i32.const 0x40000000))".into(),
            Failure::OutOfFuel,
        ),
        (
            "a rotation beyond the context",
            "(drop (call $rope_open (f64.const 10000) (i32.const 4) (i32.const 4) (i32.const 64) (i32.const 0) (i32.const 0)))
            (call $rope (i32.const 2) (i32.const 64) (i32.const 2) (i32.const 4) (i32.const 63))"
                .into(),
            Failure::BadShape,
        ),
        (
            "positions without an end",
            "(drop (call $rope_open (f64.const 10000) (i32.const 4) (i32.const 4) (i32.const 0x20000) (i32.const 0) (i32.const 0)))"
                .into(),
            Failure::OutOfMemory,
        ),
        (
            "positions that nobody could compute",
            "(drop (call $rope_open (f64.const 10000) (i32.const 4) (i32.const 4) (i32.const 0xffffff) (i32.const 0) (i32.const 0)))"
                .into(),
            Failure::OutOfFuel,
        ),
        (
            "a memory that grows without an end",
            format!(
                "{} (loop $again {} (call $memory_advance (i32.const 2) (i32.const 64)) br $again)",
                memory.replace("i32.const 4)", "i32.const 64)"),
                attend(0, 1, 64)
            ),
            Failure::OutOfMemory,
        ),
        (
            "memories without an end",
            format!("(loop $again {} br $again)", memory.replace("i32.const 1)", "i32.const 1024)")),
            Failure::OutOfMemory,
        ),
        ("a layer that there is not", format!("{memory} {}", attend(1, 1, 1)), Failure::BadShape),
        ("no heads", format!("{memory} {}", attend(0, 0, 1)), Failure::BadShape),
        (
            "tokens that no layer has seen",
            format!("{memory} (call $memory_advance (i32.const 2) (i32.const 1))"),
            Failure::BadShape,
        ),
        (
            "an empty choice",
            "(drop (call $sampler_open (i32.const 64)))
            (drop (call $sample (i32.const 0) (i32.const 64) (i32.const 0) (i32.const 64) (i32.const 0) (i32.const 64) (i32.const 0)))"
                .into(),
            Failure::BadHandle,
        ),
    ];
    for (what, body, expected) in cases {
        assert_eq!(kernels(body).run(b"", 0, &mut |_| true), Err(Stop::Failed(expected.clone())), "{what}");
    }
}

/// Part of every result: it changes with the version of the ABI alone.
#[test]
fn kernels_cost_the_committed_fuel() {
    let rope_open = "(drop (call $rope_open (f64.const 10000) (i32.const 4) (i32.const 4) (i32.const 64) (i32.const 0) (i32.const 0)))";
    let memory_open = "(drop (call $memory_open (i32.const 1) (i32.const 1) (i32.const 4)))";
    let cases = [
        ("nothing", String::new(), 10),
        ("a tensor that is open", "(drop (call $tensor_open (i32.const 0) (i32.const 1)))".into(), 86),
        ("a tensor that is not", "(drop (call $tensor_open (i32.const 2) (i32.const 8)))".into(), 182),
        ("tensor_row", "(call $tensor_row (i32.const 0) (i32.const 1) (i32.const 64))".into(), 99),
        ("matmul", "(call $matmul (i32.const 0) (i32.const 64) (i32.const 3) (i32.const 256))".into(), 159),
        (
            "matmul_many",
            "(call $matmul_many (i32.const 512) (i32.const 2) (i32.const 64) (i32.const 3) (i32.const 256))".into(),
            187,
        ),
        ("rms_norm", "(call $rms_norm (i32.const 1) (i32.const 64) (i32.const 3) (f32.const 1))".into(), 134),
        ("add", "(call $add (i32.const 64) (i32.const 256) (i32.const 7))".into(), 111),
        ("rope_open", rope_open.into(), 9302),
        ("rope", format!("{rope_open} (call $rope (i32.const 2) (i32.const 64) (i32.const 2) (i32.const 4) (i32.const 9))"), 9410),
        ("memory_open", memory_open.into(), 87),
        (
            "attend",
            format!(
                "{memory_open} (call $attend (i32.const 2) (i32.const 0) (i32.const 2) (i32.const 3) (i32.const 1024)
                (i32.const 2048) (i32.const 2048) (i32.const 3072)) (call $memory_advance (i32.const 2) (i32.const 3))"
            ),
            543,
        ),
        (
            "sample",
            "(f32.store (i32.const 76) (f32.const 1)) (f32.store (i32.const 80) (f32.const 1))
            (drop (call $sampler_open (i32.const 64)))
            (drop (call $sample (i32.const 0) (i32.const 256) (i32.const 5) (i32.const 512) (i32.const 2) (i32.const 512) (i32.const 1)))"
                .into(),
            256,
        ),
    ];
    let found: Vec<_> =
        cases.iter().map(|(what, body, _)| (*what, kernels(body).run(b"", 0, &mut |_| true).unwrap().fuel)).collect();
    let expected: Vec<_> = cases.iter().map(|(what, _, fuel)| (*what, *fuel)).collect();
    assert_eq!(found, expected);
}

#[test]
fn kernels_give_nothing_that_machines_do_differently() {
    // Weights that are no numbers are no weights; what has no number becomes one NaN.
    let body = "(i32.store (i32.const 128) (call $tensor_open (i32.const 2) (i32.const 8)))
        (f32.store (i32.const 64) (f32.const nan:0x200001))
        (f32.store (i32.const 68) (f32.const -nan))
        (call $matmul (i32.const 0) (i32.const 64) (i32.const 1) (i32.const 132))
        (call $add (i32.const 64) (i32.const 256) (i32.const 4))
        (call $emit (i32.const 128) (i32.const 12))
        (call $emit (i32.const 64) (i32.const 8))";
    let output = kernels(body).run(b"", 0, &mut |_| true).unwrap().output;
    assert_eq!(hex::encode(output), "ffffffff0000c07f0000c07f0000c07f0000c07f");
}

/// Weights in a safetensors file: tensors t0, t1, … of so many rows and columns, all zeros.
fn zeros(count: usize, rows: usize, columns: usize) -> Files {
    let bytes = rows * columns * 4;
    let entry = |index: usize| {
        let (start, end) = (index * bytes, (index + 1) * bytes);
        let shape = if rows == 1 { format!("[{columns}]") } else { format!("[{rows},{columns}]") };
        format!(r#""t{index}":{{"dtype":"F32","shape":{shape},"data_offsets":[{start},{end}]}}"#)
    };
    let header = format!("{{{}}}", (0..count).map(entry).collect::<Vec<_>>().join(","));
    let file = [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &vec![0; count * bytes]].concat();
    Files::new([("zeros".to_owned(), file)]).with_weights(&["zeros".to_owned()]).unwrap()
}

/// Opens the first eight tensors, in `init` or in a run.
fn opening(place: &str) -> Vec<u8> {
    let open: String =
        (0..8).map(|index| format!("(drop (call $tensor_open (i32.const {}) (i32.const 2)))", 2 * index)).collect();
    let other = if place == "init" { r#"(func (export "run"))"# } else { "" };
    let text = format!(
        r#"(module
            (import "althing" "tensor_open" (func $tensor_open (param i32 i32) (result i32)))
            (memory (export "memory") 1)
            (data (i32.const 0) "t0t1t2t3t4t5t6t7")
            (func (export "abi_version") (result i32) i32.const 1)
            (func (export "{place}") {open}) {other})"#
    );
    wat::parse_str(text).unwrap()
}

#[test]
fn tensors_take_no_more_than_the_package_and_its_cache_have_room_for() {
    let plenty = Limits { run_fuel_max: 1 << 32, init_fuel_max: 1 << 32, ..LIMITS };
    let none = Limits { cache_bytes_max: 0, ..plenty };
    // Matrices take what they have in their file: no more than anybody knows of who loads the package.
    let guest = Guest::new(&opening("init"), zeros(8, 64, 256), config(none)).unwrap();
    assert_eq!((guest.weights_bytes(), guest.run(b"", 0, &mut |_| true).is_ok()), (8 * 64 * 256 * 4, true));
    // One row takes as much as sixteen, and as itself.
    let vectors = Guest::new(&opening("init"), zeros(8, 1, 16_384), config(plenty)).map(|guest| guest.weights_bytes());
    assert_eq!(vectors, Err(ModuleError::Init(Failure::OutOfMemory)));
    let roomy = Limits { cache_bytes_max: 9 << 20, ..plenty };
    let guest = Guest::new(&opening("init"), zeros(8, 1, 16_384), config(roomy)).unwrap();
    assert_eq!(guest.weights_bytes(), 8 * 17 * 16_384 * 4, "and that is told");
    // What a run opens is the run's.
    for (limits, expected) in [(plenty, true), (none, false)] {
        let guest = Guest::new(&opening("run"), zeros(8, 16, 256), config(limits)).unwrap();
        let ran = guest.run(b"", 0, &mut |_| true).map(|_| ());
        assert_eq!(ran, if expected { Ok(()) } else { Err(Stop::Failed(Failure::OutOfMemory)) });
        assert_eq!(guest.weights_bytes(), 0);
    }
}

#[test]
fn files_of_others_are_out_of_reach() {
    let names = ["../weights", "/etc/passwd", "weights/", "WEIGHTS", "", "weights\0"];
    for (name, opened) in names.iter().map(|name| (*name, false)).chain([("weights", true)]) {
        let bytes: String = name.bytes().map(|byte| format!("\\{byte:02x}")).collect();
        let body = format!(
            r#"(data (i32.const 0) "{bytes}") (func (export "run")
            (if (i32.lt_s (call $blob_open (i32.const 0) (i32.const {})) (i32.const 0)) (then unreachable))
            (drop (call $blob_read (i32.const 0) (i64.const 1) (i32.const 100) (i32.const 90)))
            (call $emit (i32.const 100) (i32.const 5)))"#,
            name.len()
        );
        let ran = guest(&module(&body)).unwrap().run(b"", 0, &mut |_| true);
        match opened {
            true => assert_eq!(ran.unwrap().output, b"2345\0"),
            false => assert_eq!(ran, Err(Stop::Failed(Failure::Trapped("it panicked"))), "{name}"),
        }
    }
}

#[test]
fn two_packages_in_one_process_see_nothing_of_each_other() {
    // Says whether there is a file `theirs` and a tensor `t7`, and what lies behind the first handles of each kind.
    let text = r#"(module
        (import "althing" "emit" (func $emit (param i32 i32)))
        (import "althing" "blob_open" (func $blob_open (param i32 i32) (result i32)))
        (import "althing" "blob_len" (func $blob_len (param i32) (result i64)))
        (import "althing" "tensor_open" (func $tensor_open (param i32 i32) (result i32)))
        (memory (export "memory") 1)
        (data (i32.const 0) "theirst7")
        (func (export "abi_version") (result i32) i32.const 1)
        (func (export "run")
            (i32.store (i32.const 16) (call $blob_open (i32.const 0) (i32.const 6)))
            (i64.store (i32.const 20) (call $blob_len (i32.const 1)))
            (i32.store (i32.const 28) (call $tensor_open (i32.const 6) (i32.const 2)))
            (call $emit (i32.const 16) (i32.const 16))))"#;
    let module = wat::parse_str(text).unwrap();
    let theirs = Files::new([("theirs".to_owned(), b"secret".to_vec()), ("zeros".to_owned(), Vec::new())]);
    let theirs = Guest::new(&module, theirs, config(LIMITS)).unwrap();
    let tensors = Guest::new(&module, zeros(8, 1, 16), config(LIMITS)).unwrap();
    let own = guest(&module).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..50 {
            for (guest, expected) in [
                (&theirs, "000000000000000000000000ffffffff"),
                (&tensors, "ffffffffffffffffffffffff00000000"),
                (&own, "ffffffffffffffffffffffffffffffff"),
            ] {
                scope.spawn(move || {
                    let output = guest.run(b"", 0, &mut |_| true).unwrap().output;
                    assert_eq!(hex::encode(output), expected);
                });
            }
        }
    });
}
