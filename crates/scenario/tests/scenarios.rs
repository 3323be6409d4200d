//! Every scenario of the repository comes out as it says, twice the same.

#![allow(clippy::unwrap_used)] // helpers of tests

use althing_scenario::{parse, run};
use althing_types::Call;
use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scenarios")
}

#[test]
fn every_scenario_comes_out_as_it_says() {
    let mut files: Vec<_> = std::fs::read_dir(directory()).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let (mut wrong, mut calls, mut digests) = (Vec::new(), BTreeSet::new(), String::new());
    for file in files {
        let name = file.file_name().unwrap().display();
        let played = parse(&std::fs::read_to_string(&file).unwrap()).and_then(|story| {
            let report = run(&story, &directory())?;
            let again = serde_json::to_value(run(&story, &directory())?).unwrap();
            assert_eq!(serde_json::to_value(&report).unwrap(), again, "{name} comes out twice the same");
            Ok(report)
        });
        match played {
            Err(error) => wrong.push(format!("{name}: {error}")),
            Ok(report) => {
                digests += &format!("{name} {}\n", report.state);
                calls.extend(report.steps.iter().flat_map(|step| &step.calls).map(|call| call.call.clone()));
                let failures = report.failures.iter();
                wrong.extend(failures.map(|failure| format!("{name}: step {}: {}", failure.step, failure.what)));
                if report.invariants != "hold" {
                    wrong.push(format!("{name}: {}", report.invariants));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let missing: Vec<_> = Call::NAMES.iter().filter(|name| !calls.contains(**name)).collect();
    assert!(missing.is_empty(), "no scenario makes these calls: {missing:?}");
    // What the ledger computes changes only on purpose: a change here is a fork of running networks.
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/digests.txt");
    if std::env::var_os("UPDATE_DIGESTS").is_some() {
        std::fs::write(path, &digests).unwrap();
    }
    assert_eq!(std::fs::read_to_string(path).unwrap_or_default(), digests, "UPDATE_DIGESTS=1 writes them anew");
}

fn told(text: &str) -> String {
    match parse(text).and_then(|scenario| run(&scenario, &directory())) {
        Ok(report) => report.failures.iter().map(|failure| format!("{}: {}\n", failure.step, failure.what)).collect(),
        Err(error) => error.to_string(),
    }
}

#[test]
fn what_is_wrong_is_said_with_the_step_and_what_would_be_right() {
    let free = "[params]\nbase_fee_byte = \"0\"\nbase_fee_unit = \"0\"\n";
    let base = format!("title = \"t\"\n{free}[[account]]\nname = \"alice\"\nfree = \"5\"\n[[step]]\n");
    for (step, expected) in [
        (
            "by = \"alice\"\ndo = \"transfer\"\nto = \"@bob\"\namount = \"1 ALTH\"",
            "no account \"bob\"; there are alice",
        ),
        ("by = \"alice\"\ndo = \"fly\"", "step 1: fly: unknown variant `fly`"),
        ("by = \"alice\"\ndo = \"transfer\"\nto = \"@alice\"", "missing field `amount`"),
        (
            "by = \"alice\"\ndo = \"transfer\"\nto = \"@alice\"\namount = \"9 ALTH\"",
            "1: transfer by alice failed: insufficient",
        ),
        (
            "by = \"alice\"\ndo = \"transfer\"\nto = \"@alice\"\namount = \"9 ALTH\"\nerror = \"zero_amount\"",
            "insufficient_balance instead of zero_amount",
        ),
        (
            "by = \"alice\"\ndo = \"transfer\"\nto = \"@alice\"\namount = \"1 ALTH\"\nerror = \"zero_amount\"",
            "was to fail with zero_amount",
        ),
        ("expect = { \"alice.free\" = \"6 ALTH\" }", "1: alice.free is 5 ALTH, not 6 ALTH"),
        ("expect = { \"alice.wings\" = 2 }", "alice.wings leads nowhere"),
        ("wait = \"1s\"\nat = \"1s\"\nafter = \"1s\"", "either `at` or `after`"),
    ] {
        let got = told(&format!("{base}{step}"));
        assert!(got.contains(expected), "{step}: {got}");
    }
    assert!(told("profile = \"nowhere\"\ntitle = \"t\"").contains("cannot read"));
    assert!(told("title = \"t\"\n[params]\ncolour = 1").contains("colour"));
}
