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
