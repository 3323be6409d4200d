//! GPT-NeoX, Bloom and BERT: what must not show in their numbers. Their digests are in `golden.rs`.

mod common;

use althing_exact::{Decoder, Encoder, EncoderScratch, Format, Level, Plan, Scratch, Sequence, config::Pooling};
use common::{Tiny, VOCABULARY, digest};

fn tokens() -> Vec<u32> {
    (0..100).map(|i| (i * 37 + 11) % VOCABULARY).collect()
}

fn decoded(model: &Decoder, plan: &Plan) -> String {
    let (mut cache, mut scratch) = (model.cache(), Scratch::default());
    let logits = model.forward_batch(&mut [Sequence::all(&mut cache, &tokens())], plan, &mut scratch);
    assert!(logits.iter().all(|logit| logit.is_finite()), "finite numbers, or they tell nothing");
    digest(logits)
}

fn encoded(model: &Encoder, texts: &[&[u32]], plan: &Plan) -> Vec<Vec<f32>> {
    let embeddings = model.encode(texts, plan, &mut EncoderScratch::default(), &mut ());
    assert!(embeddings.iter().flatten().all(|x| x.is_finite()) && embeddings.iter().all(|x| x.len() == 256));
    embeddings
}

#[test]
fn rows_of_a_joint_projection_may_go_either_way() {
    let plan = Plan::new(1);
    for format in [Format::F32, Format::Q8_0] {
        let [by_head, by_kind] = [true, false].map(|by_head| decoded(&Tiny::gpt_neox(format, by_head, true), &plan));
        assert_eq!(by_head, by_kind);
    }
}

#[test]
fn embeddings_have_the_bits_of_each_text_alone() {
    let tokens: Vec<u32> = (0..400).map(|i| (i * 53 + 7) % VOCABULARY).collect();
    // Shorter and longer than a pass, one as long as the context.
    let texts: Vec<&[u32]> =
        [1, 3, 64, 130, 200, 90, 17, 2].iter().map(|length| &tokens[*length..2 * length]).collect();
    for format in [Format::F32, Format::Q8_0] {
        for pooling in [Pooling::Mean, Pooling::Cls] {
            let model = Tiny::bert(format, pooling);
            let alone: Vec<_> =
                texts.iter().map(|text| encoded(&model, &[text], &Plan::at(Level::Scalar, 1)).concat()).collect();
            for level in Level::available() {
                let together = encoded(&model, &texts, &Plan::at(level, 3).splitting_all());
                assert!(together == alone, "{format:?} {pooling:?} at {level}");
            }
            let length = |vector: &Vec<f32>| vector.iter().map(|x| x * x).sum::<f32>().sqrt();
            let unit = alone.iter().all(|vector| (length(vector) - 1.0).abs() < 1e-5);
            assert_eq!(unit, pooling == Pooling::Mean, "the one is normalised, the other not");
        }
    }
}

#[test]
fn a_watcher_sees_every_layer_of_every_text() {
    struct Seen(Vec<(usize, usize, usize, String)>);
    impl althing_exact::encoder::WatchLayers for Seen {
        fn layer(&mut self, text: usize, layer: usize, vectors: &[f32]) {
            self.0.push((text, layer, vectors.len(), digest(vectors)));
        }
    }
    let model = Tiny::bert(Format::F32, Pooling::Mean);
    let watched = |texts: &[&[u32]]| {
        let mut seen = Seen(Vec::new());
        model.encode(texts, &Plan::new(1), &mut EncoderScratch::default(), &mut seen);
        seen.0.sort();
        seen.0
    };
    let tokens = tokens();
    let texts: [&[u32]; 3] = [&tokens[..5], &tokens[3..90], &tokens[..60]];
    let together = watched(&texts);
    assert_eq!(together.len(), 9);
    for (index, text) in texts.iter().enumerate() {
        let alone = watched(&[text]);
        assert_eq!(
            alone.iter().map(|(_, layer, length, _)| (*layer, *length)).collect::<Vec<_>>(),
            [0, 1, 2].map(|layer| (layer, text.len() * 256))
        );
        for (mine, shared) in alone.iter().zip(&together[index * 3..]) {
            assert_eq!((index, &mine.3), (shared.0, &shared.3));
        }
    }
}
