//! However the work is cut, the bits are the same: in pieces, one by one, in company, from a copied
//! or shortened cache.

mod common;

use althing_exact::{Decoder, Format, Level, Plan, Scratch, Sequence};
use common::{Tiny, VOCABULARY};
use proptest::prelude::*;
use std::sync::LazyLock;

static MODELS: LazyLock<Vec<Decoder>> = LazyLock::new(|| {
    let llamas = Format::ALL.into_iter().map(|format| Tiny::model(format, format > Format::F16));
    let others = [
        Tiny::gpt_neox(Format::F32, true, true),
        Tiny::gpt_neox(Format::Q8_0, true, false),
        Tiny::bloom(Format::F32),
        Tiny::bloom(Format::Q4_0),
    ];
    llamas.chain(others).collect()
});

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

/// All logits of `tokens`, token by token, in plain Rust on one thread.
fn one_by_one(model: &Decoder, tokens: &[u32]) -> Vec<u32> {
    let (mut cache, mut scratch) = (model.cache(), Scratch::default());
    let plan = Plan::at(Level::Scalar, 1);
    tokens.iter().flat_map(|token| bits(model.forward(&mut cache, &[*token], &plan, &mut scratch))).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn batches_and_pieces_have_the_bits_of_one_by_one(
        which in 0..Format::ALL.len() + 4, threads in 1usize..5,
        sequences in proptest::collection::vec(proptest::collection::vec(0..VOCABULARY, 1..90), 1..4),
        cuts in proptest::collection::vec(1usize..80, 4), kept in 0usize..90,
    ) {
        let model = &MODELS[which];
        let expected: Vec<_> = sequences.iter().map(|tokens| one_by_one(model, tokens)).collect();
        let vocabulary = VOCABULARY as usize;
        for level in Level::available() {
            let plan = Plan::at(level, threads).splitting_all();
            let mut scratch = Scratch::default();
            let mut caches: Vec<_> = sequences.iter().map(|_| model.cache()).collect();
            // Rounds of pieces of different lengths, all sequences together.
            let mut seen = vec![Vec::new(); sequences.len()];
            let mut round = 0;
            loop {
                let mut batch = Vec::new();
                let mut rows = Vec::new();
                for (index, cache) in caches.iter_mut().enumerate() {
                    let rest = &sequences[index][cache.tokens()..];
                    let piece = &rest[..rest.len().min(cuts[(round + index) % cuts.len()])];
                    if !piece.is_empty() {
                        rows.push((index, piece.len()));
                        batch.push(Sequence::all(cache, piece));
                    }
                }
                if batch.is_empty() {
                    break;
                }
                let mut logits = model.forward_batch(&mut batch, &plan, &mut scratch);
                for (index, rows) in rows {
                    let (own, others) = logits.split_at(rows * vocabulary);
                    seen[index].extend(bits(own));
                    logits = others;
                }
                prop_assert!(logits.is_empty());
                round += 1;
            }
            prop_assert_eq!(&seen, &expected);

            // Back to a prefix, in a copy, and on again; the original is as it was.
            let tokens = &sequences[0];
            let kept = kept.min(tokens.len() - 1);
            let mut copy = caches[0].clone();
            copy.truncate(kept);
            let last = bits(model.forward(&mut copy, &tokens[kept..], &plan, &mut scratch));
            prop_assert_eq!(&last[..], &expected[0][(tokens.len() - 1) * vocabulary..]);
            caches[0].truncate(tokens.len() - 1);
            let last = bits(model.forward(&mut caches[0], &tokens[tokens.len() - 1..], &plan, &mut scratch));
            prop_assert_eq!(&last[..], &expected[0][(tokens.len() - 1) * vocabulary..]);
        }
    }
}
