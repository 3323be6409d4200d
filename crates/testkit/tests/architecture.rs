//! The invariants of `docs/architecture.md` that the compiler does not hold by itself.

#![allow(clippy::unwrap_used)] // helpers of tests

use std::{collections::BTreeMap, path::PathBuf, process::Command};

/// Which of our crates each may depend on. One direction: nothing below depends on what is above.
const ALLOWED: &[(&str, &[&str])] = &[
    ("content", &[]),
    ("exact", &[]),
    ("golden", &["exact"]),
    ("golden-guests", &["sandbox"]),
    ("types", &["content"]),
    ("ledger", &["types", "content"]),
    ("chain", &[]),
    ("scenario", &["ledger", "types", "content"]),
    ("runtime", &["exact", "content", "sandbox"]),
    ("sandbox", &["exact"]),
    ("sdk", &["types", "content"]),
    ("node", &["ledger", "chain", "sdk", "types", "content"]),
    ("adapter", &["runtime"]),
    ("provider", &["sdk", "types", "content", "runtime", "adapter"]),
    ("gateway", &["sdk", "types", "content", "runtime"]),
    ("program", &["sdk", "types", "runtime"]),
    ("testkit", &["node", "chain", "provider", "gateway", "sdk", "types", "content", "runtime", "ledger"]),
    (
        "althing",
        &[
            "node", "chain", "provider", "gateway", "program", "sdk", "types", "content", "runtime", "adapter",
            "ledger", "scenario",
        ],
    ),
];

fn root() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")).canonicalize().unwrap()
}

/// Crate name without prefix → its dependencies as Cargo sees them, with their kind.
fn dependencies() -> BTreeMap<String, Vec<(String, String)>> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1"])
        .current_dir(root())
        .output()
        .unwrap();
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let name = |value: &serde_json::Value| value["name"].as_str().unwrap().to_owned();
    let short = |name: String| name.strip_prefix("althing-").map_or(name.clone(), str::to_owned);
    let packages = metadata["packages"].as_array().unwrap();
    packages
        .iter()
        .map(|package| {
            let dependencies = package["dependencies"].as_array().unwrap();
            let kind = |d: &serde_json::Value| d["kind"].as_str().unwrap_or("normal").to_owned();
            (short(name(package)), dependencies.iter().map(|d| (name(d), kind(d))).collect())
        })
        .collect()
}

/// Two maps at one prefix would read each other's values.
#[test]
fn every_map_of_the_ledger_has_its_own_prefix() {
    let mut prefixes = BTreeMap::new();
    for entry in std::fs::read_dir(root().join("crates/ledger/src")).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let code = text.split("#[cfg(test)]").next().unwrap();
        for found in code.split("Map::new(0x").skip(1) {
            let prefix = found.split(')').next().unwrap().to_owned();
            let other = prefixes.insert(prefix.clone(), path.clone());
            assert!(other.is_none(), "0x{prefix} is used in {} and {}", path.display(), other.unwrap().display());
        }
    }
    assert!(prefixes.len() > 40, "the maps were found");
}

#[test]
fn dependencies_point_in_one_direction() {
    let allowed: BTreeMap<_, _> = ALLOWED.iter().copied().collect();
    for (package, dependencies) in dependencies() {
        let allowed =
            allowed.get(package.as_str()).unwrap_or_else(|| panic!("{package} has no place in the house yet"));
        for (dependency, kind) in dependencies {
            if let Some(ours) = dependency.strip_prefix("althing-") {
                assert!(kind == "dev" || allowed.contains(&ours), "{package} must not depend on {ours}");
            }
        }
    }
}

#[test]
fn only_chain_names_the_consensus_engine() {
    for (package, dependencies) in dependencies() {
        let named = dependencies.iter().any(|(dependency, _)| dependency.starts_with("commonware"));
        assert!(!named || package == "chain", "{package} names the consensus engine");
    }
}

/// A file's text up to its tests.
fn code(path: &std::path::Path) -> String {
    let text = std::fs::read_to_string(path).unwrap();
    text.split("#[cfg(test)]").next().unwrap().to_owned()
}

#[test]
fn the_ledger_has_no_clock_no_chance_no_floats_and_no_tasks() {
    for package in ["types", "ledger"] {
        for entry in std::fs::read_dir(root().join("crates").join(package).join("src")).unwrap() {
            let path = entry.unwrap().path();
            let text = code(&path);
            let lines = text.lines().map(|line| line.split("//").next().unwrap());
            for (number, line) in lines.enumerate() {
                for banned in [
                    "async ",
                    "HashMap",
                    "HashSet",
                    "SystemTime",
                    "Instant",
                    "thread_rng",
                    "rand::",
                    "f32",
                    "f64",
                    ".unwrap()",
                ] {
                    // Signature batches are checked with random weights that the caller brings.
                    let by_caller = banned == "rand::" && line.contains("rand_core");
                    assert!(by_caller || !line.contains(banned), "{}:{}: {banned}", path.display(), number + 1);
                }
            }
        }
    }
}

#[test]
fn money_never_wraps_in_the_profile_that_users_run() {
    let manifest = std::fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let release = manifest.split("[profile.release]").nth(1).unwrap();
    assert!(release.contains("overflow-checks = true"));
}
