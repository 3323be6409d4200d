//! GPT-NeoX, Bloom and BERT: digests that every machine must reproduce, at each of its levels, and
//! what must not show in them.

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

fn models(format: Format) -> [Decoder; 3] {
    [Tiny::gpt_neox(format, true, true), Tiny::gpt_neox(format, true, false), Tiny::bloom(format)]
}

/// GPT-NeoX with residuals in parallel and in turn, Bloom: all logits of 100 tokens; BERT, mean and
/// first token: the embedding of the same.
const GOLDEN: [(Format, [&str; 5]); 2] = [
    (
        Format::F32,
        [
            "263346c43f96cc54405c4263a2cb3a40615309b8d99aa5a14b89ce415b4f9bb7",
            "7f93fe68daf2bcb10d94ac638c557c4b8d4a211380817f315e3b0eb9f043f87c",
            "4214e3a508b6d9f4b095d40aa840ede97fac7c9dc6af425bfcd7b71b57888fd2",
            "c660e8c94d79bc1951629f83c9bacd4dd07f590fe05927454e47ea2281fa5248",
            "2cc8eccb31cc5628eb51f7f897a9dde72d8a73f06a4d79cb62ec763ccce5b1e0",
        ],
    ),
    (
        Format::Q8_0,
        [
            "39b912a0e3d7d5541035846f026ee7e620aa7c93893f31419467833a7b43de4c",
            "098103117c8c92c3081dffeb7a186ec5f2728f93e848c4843bbae106f7b74171",
            "7e059d3912f076dc0f308da7ff5c67db7f864b2d1d70219ce52a176257359bcc",
            "cf2d5d4694ada6e1301beaab9edcacc0668a3d8c01b545f106b2b2ef874756d7",
            "4d52e14b3ed5584bf903e85e85be08a06f3c077cbf777a2fb72d3c05e86b4795",
        ],
    ),
];

#[test]
fn every_level_has_the_golden_bits() {
    for level in Level::available() {
        let plan = Plan::at(level, 2).splitting_all();
        for (format, golden) in GOLDEN {
            let decoders = models(format).map(|model| decoded(&model, &plan));
            let encoders = [Pooling::Mean, Pooling::Cls]
                .map(|pooling| digest(&encoded(&Tiny::bert(format, pooling), &[&tokens()], &plan).concat()));
            assert_eq!([&decoders[..], &encoders].concat(), golden, "{format:?} at {level}");
        }
    }
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
