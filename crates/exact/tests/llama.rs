//! The numeric contract on a real model: one set of bits, however the work is cut.

#![allow(clippy::unwrap_used)] // helpers of tests

use althing_exact::{Decoder, DecoderConfig, Level, Plan, Scratch, decoder::logits_digest};

fn model() -> Decoder {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/tiny-stories/package");
    let read = |name: &str| std::fs::read(format!("{directory}/{name}")).unwrap();
    Decoder::from_safetensors(&DecoderConfig::parse(&read("config.json")).unwrap(), &read("model.safetensors")).unwrap()
}

/// Tokens that mean nothing: 150 of them, so that prompts span several passes.
fn tokens() -> Vec<u32> {
    (0..150u32).map(|i| (i * 37 + 11) % 1024).collect()
}

fn digest_in_pieces(model: &Decoder, pieces: usize, plan: &Plan) -> String {
    let mut cache = model.cache();
    let mut scratch = Scratch::default();
    let mut digest = [0; 32];
    for piece in tokens().chunks(pieces) {
        digest = logits_digest(model.forward(&mut cache, piece, plan, &mut scratch));
    }
    hex::encode(digest)
}

#[test]
fn pieces_threads_and_levels_do_not_change_a_bit() {
    let model = model();
    for level in Level::available() {
        for threads in [1, 2, 4] {
            let plan = Plan::at(level, threads).splitting_all();
            for pieces in [150, 64, 7] {
                assert_eq!(
                    digest_in_pieces(&model, pieces, &plan),
                    GOLDEN,
                    "{level:?}, {threads} threads, {pieces} at a time"
                );
            }
        }
        let plan = Plan::at(level, 1).splitting_all();
        assert_eq!(digest_in_pieces(&model, 1, &plan), GOLDEN, "{level:?}, token by token");
    }
}
/// Changes only with the model or with a new version of `NUMERICS.md`.
const GOLDEN: &str = "e3d8710e8366de21c4ec205fcbe6669dcd312a095be7ded64a7665208d80efbc";
