//! Digests that every machine must reproduce, at each of its levels: of every kernel's output, and
//! of a small model in every format. They change only with a new version of `NUMERICS.md`.

mod common;

use althing_exact::{
    Activations, Decoder, EncoderScratch, Format, Level, Matrix, Plan, Scratch, Sequence, config::Pooling,
};
use common::{Random, Tiny, VOCABULARY, digest};

/// Per format: a product of a 75 × 1280 matrix with seven vectors; all rows as f32; all logits of
/// 100 tokens, of the plain model and of the one with extras.
const GOLDEN: [(Format, [&str; 4]); 7] = [
    (
        Format::F32,
        [
            "c0271f5d345a3cb671a12cb4dcfc523595221c9d5a25dfc291c93e65813c1c72",
            "1ba03d15c4790e4a82db47e948238e5fefdd2aede55c1479ab2a56f17e495b2f",
            "a0eb70e68767db7fc70390b4bef1d16ba5c75d2485650f91c343c38bf27f30f6",
            "c2216ef1d614c05921ea655474fca21d8b0a9b887164d9a858a0bd9d867fff22",
        ],
    ),
    (
        Format::F16,
        [
            "28c08c05f16bd59f95dd8ef6c5c091f40c85d2caba841ebbc08e362d2f8cdec9",
            "b1ac15327d0a11013c5cc76c52b2b928e45a4530bf114ed4729c20ccd2f0354e",
            "ff0271d76da3a5147b672c92b2a12b8caef09588cd59841732529971142326e6",
            "b965fa354ce07c94ec81f93b3501bcc6751ea3e2a4ecb37624a508347e0b4b70",
        ],
    ),
    (
        Format::Bf16,
        [
            "005847bc0ffe7750075c0f50c148a656a405e4f11ecf83e0db9f9a8c9371854f",
            "77fabd4920052921d08893cb0eb72216e203269532bffa5bdec04044745cf0b0",
            "cbb56f87b046b2692c5e7ff4da235274205b51b1f49fdacd857b3abdf552c91d",
            "991c395b5fb967a4d11d9739f9572ae70107f090bd6606c83299b819a2fdd600",
        ],
    ),
    (
        Format::Q8_0,
        [
            "b4625b60384ea1115b13abae893b7f2d3eea5ebcf12b580eaf064d579e146eb6",
            "e52a880872e51ddf917443be79f71b94cc25aeaecb93b6f0512b1f51d57d28fa",
            "0fb577b3367d838c0968436baaf3888b36ecb72cf7ab59f255f99ab5c6f6f283",
            "827576e40f0f32b526b520f4d25735a8fb96187ecef2baa9cee9721e8107a28b",
        ],
    ),
    (
        Format::Q4_0,
        [
            "aef4fee0609a644a89eda98e2ee030cc808f44e95ee551f05247ae7f0dc75c41",
            "bbb73cf7d6aee95d952ee00ba1f2b0eaf16c720bc8155429224c5d88477edf2b",
            "60573cd590ba0ec6008bd180cd801eea93d84ceafa66fa1d699a6141ecd019dd",
            "9ce8c25539662ad5e316ce7047b0099a40ac837f0915622b44c70713f070b036",
        ],
    ),
    (
        Format::Q4K,
        [
            "1c609a0e2019be03e18309fb08b9c5ada61d9b0fbe5b87641e161c1b75169972",
            "c8aaa689a73a8aba67aaa8c6ff4eceba2d68ba3bb14389416f343897506e296c",
            "b62b884752848e1da9016a3659d45dcc586195c19c50850c1553dd61d2cc7645",
            "71c2c2df81023dd9fc9c3753d8250fbea1c2a89d28916f411eaacd17ca90cbd2",
        ],
    ),
    (
        Format::Q6K,
        [
            "876445fd26b9a75724d4db6c2b38b5d25406e2510a91eaff44575036c177f07e",
            "f9c142682ea62ad794e92b5bdc011b85e7d1954ef284751f92b866b2743c572e",
            "3a510c7934fe608fe2349151c4e061199bb60faad2ebe099c709af6558041dfa",
            "6c3e1d2357a9dba35b8d56ed5f348f506f9755c5dceb8812443b1b9e626fdc19",
        ],
    ),
];

/// GPT-NeoX with residuals in parallel and in turn, Bloom: all logits of 100 tokens; BERT, mean and
/// first token: the embedding of the same.
const GOLDEN_FAMILIES: [(Format, [&str; 5]); 2] = [
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

type Compute = Box<dyn Fn(&Plan) -> Vec<String>>;

/// What a plan computes, and the digests that it must have.
struct Golden {
    name: String,
    digests: Vec<&'static str>,
    compute: Compute,
}

/// Everything that is checked, here and by `tests/golden` on other processors.
fn goldens() -> Vec<Golden> {
    let formats = GOLDEN.map(|(format, digests)| Golden {
        name: format!("{format:?}"),
        digests: digests.to_vec(),
        compute: Box::new(move |plan| computed(plan, format).to_vec()),
    });
    let families = GOLDEN_FAMILIES.map(|(format, digests)| Golden {
        name: format!("families, {format:?}"),
        digests: digests.to_vec(),
        compute: Box::new(move |plan| computed_families(plan, format).to_vec()),
    });
    formats.into_iter().chain(families).collect()
}

fn computed_families(plan: &Plan, format: Format) -> [String; 5] {
    let decoded = |model: Decoder| {
        let (mut cache, mut scratch) = (model.cache(), Scratch::default());
        digest(model.forward_batch(&mut [Sequence::all(&mut cache, &tokens())], plan, &mut scratch))
    };
    let encoded = |pooling| {
        let model = Tiny::bert(format, pooling);
        digest(&model.encode(&[&tokens()], plan, &mut EncoderScratch::default(), &mut ()).concat())
    };
    [
        decoded(Tiny::gpt_neox(format, true, true)),
        decoded(Tiny::gpt_neox(format, true, false)),
        decoded(Tiny::bloom(format)),
        encoded(Pooling::Mean),
        encoded(Pooling::Cls),
    ]
}

fn tokens() -> Vec<u32> {
    (0..100).map(|i| (i * 37 + 11) % VOCABULARY).collect()
}

fn computed(plan: &Plan, format: Format) -> [String; 4] {
    let (n, k, m) = (75, 1280, 7);
    let mut random = Random(0x2545_f491_4f6c_dd1d);
    let matrix = Matrix::pack(format, n, k, &random.matrix(format, n, k)).expect("whole blocks of finite numbers");
    let mut y = vec![0.0; m * n];
    matrix.multiply(&mut Activations::new(m, k, &random.floats(m * k)), &mut y, plan);
    let mut rows = vec![0.0; n * k];
    for (index, row) in rows.chunks_exact_mut(k).enumerate() {
        matrix.row(index, row);
    }
    let tokens = tokens();
    let logits = |extras| {
        let model = Tiny::model(format, extras);
        let (mut cache, mut scratch) = (model.cache(), Scratch::default());
        let logits = model.forward_batch(&mut [Sequence::all(&mut cache, &tokens)], plan, &mut scratch);
        assert!(logits.iter().all(|logit| logit.is_finite()), "finite numbers, or they tell nothing");
        digest(logits)
    };
    [digest(&y), digest(&rows), logits(false), logits(true)]
}

/// The names of what differs at a level, on so many threads.
pub fn differences(level: Level, threads: usize) -> Vec<String> {
    let plan = Plan::at(level, threads).splitting_all();
    let wrong = goldens().into_iter().filter(|golden| (golden.compute)(&plan) != golden.digests);
    wrong.map(|golden| golden.name).collect()
}

#[test]
fn every_level_has_the_golden_bits() {
    for level in Level::available() {
        assert_eq!(differences(level, 2), Vec::<String>::new(), "at {level}");
    }
}
