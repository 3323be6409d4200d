//! Every scenario of the repository comes out as it says, twice the same.

#![allow(clippy::unwrap_used)] // helpers of tests

use althing_scenario::{parse, run};
use std::path::{Path, PathBuf};

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scenarios")
}

#[test]
fn every_scenario_comes_out_as_it_says() {
    let mut files: Vec<_> = std::fs::read_dir(directory()).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() >= 4, "the scenarios are there");
    for file in files {
        let name = file.display();
        let scenario =
            parse(&std::fs::read_to_string(&file).unwrap()).unwrap_or_else(|error| panic!("{name}: {error}"));
        let report = run(&scenario, &directory()).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(report.passed, "{name}: {:#?} {}", report.failures, report.invariants);
        let again = run(&scenario, &directory()).unwrap();
        assert_eq!(serde_json::to_value(&report).unwrap(), serde_json::to_value(&again).unwrap(), "{name}");
    }
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
