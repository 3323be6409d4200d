//! Runs the example guests, and some that mean harm, and prints, a line each, the fuel that they used and a digest of
//! what they gave, or how they failed: the same on every processor (`tests/cross.sh`).
//!
//! ```text
//! althing-golden-guests target/guests/packages
//! ```

use althing_sandbox::{Compile, Config, Files, Guest, Limits, Patience, Stop};
use sha2::{Digest as _, Sha256};
use std::{error::Error, fs, path::Path, process::ExitCode, time::Duration};

/// A package's name, whether it has weights, and what it runs on.
const RUNS: [(&str, bool, &[&str]); 4] = [
    ("text-facts", false, &[r#"{"text": "The law is the law."}"#, "nonsense"]),
    ("languages", true, &[r#"{"text": "Where do we meet next year?"}"#, r#"{"text": ""}"#]),
    (
        "llama",
        true,
        &[
            r#"{"messages":[{"role":"user","content":"Tell me a story about a fox"}],"max_tokens":12}"#,
            r#"{"messages":[{"role":"user","content":"Who are you?"}],"max_tokens":8,"temperature":0}"#,
        ],
    ),
    (
        "landscapes",
        false,
        &[
            r#"{"prompt":"northern lights over a snowy fjord","width":64,"height":64}"#,
            r#"{"prompt":"sahara at sunset","width":96,"height":64}"#,
        ],
    ),
];

fn main() -> ExitCode {
    let Some(packages) = std::env::args().nth(1) else {
        eprintln!("althing-golden-guests DIRECTORY OF PACKAGES");
        return ExitCode::FAILURE;
    };
    match run(Path::new(&packages)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(packages: &Path) -> Result<(), Box<dyn Error>> {
    for (name, has_weights, inputs) in RUNS {
        let mut files = Vec::new();
        for entry in fs::read_dir(packages.join(name))? {
            let entry = entry?;
            files.push((entry.file_name().to_string_lossy().into_owned(), fs::read(entry.path())?));
        }
        let module = fs::read(packages.join(name).join("model.wasm"))?;
        let weights: &[String] = if has_weights { &["model.safetensors".to_owned()] } else { &[] };
        // The one that is compiled as providers compile: it takes minutes in an emulator.
        let compile = if name == "text-facts" { Compile::Optimized } else { Compile::Quick };
        show(name, &module, Files::new(files).with_weights(weights)?, compile, inputs)?;
    }
    for (name, text) in hostile() {
        for compile in [Compile::Quick, Compile::Optimized] {
            show(&format!("{name}, {compile:?}"), &wat::parse_str(&text)?, Files::default(), compile, &[""])?;
        }
    }
    Ok(())
}

/// Runs a guest on these inputs.
fn show(name: &str, module: &[u8], files: Files, compile: Compile, inputs: &[&str]) -> Result<(), Box<dyn Error>> {
    let hour = Duration::from_secs(3_600);
    let patience = Patience { compile_max: hour, init_max: hour, run_max: hour };
    let config = Config { compile, patience, ..Config::new(Limits::default()) };
    let guest = Guest::new(module, files, config)?;
    println!("{name} init: {} units of fuel", guest.init_fuel());
    for (index, input) in inputs.iter().enumerate() {
        match guest.run(input.as_bytes(), 7, &mut |_| true) {
            Ok(ran) => {
                println!("{name} {index}: {} units of fuel, {}", ran.fuel, hex::encode(Sha256::digest(&ran.output)));
            }
            Err(Stop::Failed(failure)) => println!("{name} {index}: {failure}"),
            Err(Stop::NoResult(why)) => return Err(why.into()),
        }
    }
    Ok(())
}

/// Recursions of small and of large frames: whether the depth that is allowed fits into the stack is up to the compiler
/// of each processor.
fn hostile() -> [(&'static str, String); 2] {
    let module = |run: &str| {
        format!(
            r#"(module (memory (export "memory") 1) (func (export "abi_version") (result i32) i32.const 1)
            (func $run (export "run") {run}))"#
        )
    };
    let each = |text: fn(usize) -> String| (0..900).map(text).collect::<String>();
    let (set, used) = (
        each(|i| format!("(local.set {i} (i64.load (i32.const {i})))")),
        each(|i| format!("(i64.store (i32.const {i}) (local.get {i}))")),
    );
    let large = format!("(local {}) {set} call $run {used}", "i64 ".repeat(900));
    [("a recursion", module("call $run")), ("large frames", module(&large))]
}
