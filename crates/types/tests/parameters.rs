//! `docs/parameters.md` is the table of parameters, with what the shipped profiles say.
//!
//! `UPDATE_DOCS=1 cargo nextest run -p althing-types --test parameters` writes it anew.

#![allow(clippy::unwrap_used)] // helpers of tests

use althing_types::{
    Amount, Params,
    params::{PARAMS, ParamInfo, Unit},
    profile,
};
use std::fmt::Write as _;

/// A number as profiles write it.
fn written(info: &ParamInfo, number: u128) -> String {
    match info.unit {
        Unit::Amount => format!("\"{}\"", Amount(number)),
        Unit::Flag => (number == 1).to_string(),
        Unit::Count | Unit::Ppm => number.to_string(),
    }
}

fn value(params: &Params, info: &ParamInfo) -> String {
    written(info, params.get(info.name).unwrap())
}

fn document() -> String {
    let mut text = String::from(
        "# Parameters\n\n\
         Every number that governance can change (`params_set`, by proposal only), with its bounds and what the\n\
         shipped profiles give it. Times are in milliseconds, amounts in tokens, shares in parts per million. A\n\
         change is checked together with all others, and cases and proposals that are open keep what they began\n\
         with (T-10, T-18). This file is written by a test from the table in `crates/types/src/params.rs`.\n\n\
         | parameter | default | dml | from | to | rules | meaning |\n|---|---|---|---|---|---|---|\n",
    );
    let [default, dml] = [profile::DEFAULT, profile::DML].map(|text| profile::parse(text, false).unwrap().params);
    for info in PARAMS {
        let cells = [
            format!("`{}`", info.name),
            value(&default, info),
            value(&dml, info),
            written(info, info.min),
            written(info, info.max),
            info.rules.into(),
            info.meaning.into(),
        ];
        writeln!(text, "| {} |", cells.join(" | ")).unwrap();
    }
    text
}

#[test]
fn the_documented_parameters_are_those_of_the_program() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/parameters.md");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(path, document()).unwrap();
    }
    let there = std::fs::read_to_string(path).unwrap_or_default();
    assert_eq!(there, document(), "run with UPDATE_DOCS=1 to write docs/parameters.md anew");
}
