//! V-4: a trace's root says how an answer came about, whoever made it and however; a claimed answer
//! is checked in one reading.

mod common;

use althing_exact::{
    Answering, FinishReason, GenerateRequest, Generation, Level, Plan, PromptPart, Sampling, Scratch, Sequence,
    TextModel, Trace, TraceKey,
    generate::CheckError,
    trace::{TraceBinding, TraceEnd},
};
use std::sync::LazyLock;

static MODEL: LazyLock<TextModel> = LazyLock::new(|| {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/llama.gguf");
    TextModel::open(std::path::Path::new(file)).expect("a model")
});

const KEY: TraceKey = TraceKey([7; 32]);

fn request(seed: u64, max_tokens: usize) -> GenerateRequest {
    GenerateRequest {
        prompt: vec![PromptPart::Text("The thing was first a place".into())],
        max_tokens,
        sampling: Sampling { temperature: 1.5, ..Sampling::default() },
        seed,
        stop: Vec::new(),
    }
}

fn root(trace: &Trace, answer: &Generation) -> [u8; 32] {
    let end = TraceEnd::from(answer.finish_reason);
    trace.root(&TraceBinding { package: b"package", input_hash: [1; 32], seed: 3, end })
}

fn answered(request: &GenerateRequest, plan: &Plan) -> (Generation, [u8; 32]) {
    let mut trace = Trace::new(KEY);
    let answer = MODEL.generate(request, plan, &mut trace).expect("an answer");
    let root = root(&trace, &answer);
    (answer, root)
}

/// Seeds whose answers end by a token, by their length, and in the middle of a piece of 64.
fn requests() -> Vec<GenerateRequest> {
    let mut requests: Vec<_> =
        [1, 2, 40].into_iter().flat_map(|max| (0..6).map(move |seed| request(seed, max))).collect();
    let text = answered(&requests[17], &Plan::new(1)).0.text;
    let stop = text.chars().skip(9).take(3).collect();
    requests.push(GenerateRequest { stop: vec![stop], ..requests[17].clone() });
    requests.push(request(0, 0));
    requests
}

#[test]
fn an_answer_is_checked_in_one_reading_with_the_same_root_at_every_level() {
    let mut ends = std::collections::BTreeMap::new();
    for request in requests() {
        let (answer, expected) = answered(&request, &Plan::at(Level::Scalar, 1));
        *ends.entry(format!("{:?}", answer.finish_reason)).or_insert(0) += 1;
        for level in Level::available() {
            let plan = Plan::at(level, 2).splitting_all();
            let mut trace = Trace::new(KEY);
            let checked = MODEL.check(&request, &answer.tokens, &plan, &mut trace).expect("it is the answer");
            assert_eq!((&checked, root(&trace, &checked)), (&answer, expected), "{level}");
        }
    }
    assert!(ends.len() == 2, "both ways to end occur: {ends:?}");
}

#[test]
fn several_answers_at_once_have_the_roots_of_each_alone() {
    let plan = Plan::new(2);
    let requests = requests();
    let expected: Vec<_> = requests.iter().map(|request| answered(request, &plan)).collect();
    let (decoder, mut scratch) = (MODEL.decoder(), Scratch::default());
    let mut running: Vec<_> = requests
        .iter()
        .map(|request| {
            let answering = Answering::new(&MODEL, request).expect("it fits");
            let next = answering.prompt().to_vec();
            (answering, decoder.cache(), Trace::new(KEY), next)
        })
        .collect();
    while running.iter().any(|(.., next)| !next.is_empty()) {
        let mut batch = running.iter_mut().filter(|(.., next)| !next.is_empty()).collect::<Vec<_>>();
        let mut sequences: Vec<_> = batch.iter_mut().map(|(_, cache, _, next)| Sequence::last(cache, next)).collect();
        let logits = decoder.forward_batch(&mut sequences, &plan, &mut scratch).to_vec();
        drop(sequences);
        for ((answering, _, trace, next), logits) in batch.iter_mut().zip(logits.chunks(decoder.vocab_size())) {
            next.clear();
            next.extend(answering.step(&MODEL, logits, &mut &mut *trace).expect("no error"));
        }
    }
    for ((answering, _, trace, _), (answer, expected)) in running.into_iter().zip(expected) {
        let got = answering.finish(&MODEL);
        assert_eq!((root(&trace, &got), got), (expected, answer));
    }
}

#[test]
fn claims_that_are_not_the_answer_are_refused_with_the_place() {
    let plan = Plan::new(1);
    let request = request(4, 30);
    let (answer, _) = answered(&request, &plan);
    let tokens = &answer.tokens;
    assert!(tokens.len() > 10 && answer.finish_reason == FinishReason::Length, "{answer:?}");
    let check = |request: &GenerateRequest, tokens: &[u32]| MODEL.check(request, tokens, &plan, |_: &str| true);
    let with = |at: usize, token: u32| [&tokens[..at], &[token], &tokens[at + 1..]].concat();
    let other = |at: usize| (tokens[at] + 1) % 640;
    for at in [0, 7, tokens.len() - 1] {
        let expected = CheckError::Token { index: at, claimed: other(at), drawn: tokens[at] };
        assert_eq!(check(&request, &with(at, other(at))), Err(expected));
    }
    // A number that is no token at all.
    let expected = CheckError::Token { index: 5, claimed: u32::MAX, drawn: tokens[5] };
    assert_eq!(check(&request, &with(5, u32::MAX)), Err(expected));
    assert_eq!(check(&request, &tokens[..9]), Err(CheckError::GoesOn(9)));
    assert_eq!(check(&request, &[]), Err(CheckError::GoesOn(0)));
    assert_eq!(check(&request, &[&tokens[..], &[1]].concat()), Err(CheckError::EndsEarlier(tokens.len())));
    assert!(check(&request, &vec![tokens[0]; 100_000]).is_err());
    let other_seed = GenerateRequest { seed: 5, ..request.clone() };
    assert!(matches!(check(&other_seed, tokens), Err(CheckError::Token { .. })));
    assert!(check(&request, tokens).is_ok());
}

#[test]
fn a_root_is_bound_to_all_that_it_names_and_to_every_bit() {
    let mut roots = std::collections::BTreeSet::new();
    let base = TraceBinding { package: b"ab", input_hash: [0; 32], seed: 0, end: TraceEnd::Stop };
    let trace = |key: u8, steps: &[(u32, &[f32])]| {
        let mut trace = Trace::new(TraceKey([key; 32]));
        steps.iter().for_each(|(token, logits)| althing_exact::Watch::token(&mut &mut trace, *token, logits));
        trace
    };
    let steps: [(u32, &[f32]); 3] = [(1, &[0.0, 1.0]), (2, &[2.0]), (3, &[f32::NAN])];
    for binding in [
        base,
        TraceBinding { package: b"a", ..base },
        TraceBinding { input_hash: [1; 32], ..base },
        TraceBinding { seed: 1, ..base },
        TraceBinding { end: TraceEnd::Length, ..base },
        TraceBinding { end: TraceEnd::Whole, ..base },
    ] {
        roots.insert(trace(0, &steps).root(&binding));
    }
    for (key, steps) in [
        (1, &steps[..]),
        (0, &[]),
        (0, &steps[..1]),
        (0, &steps[..2]),
        (0, &[steps[1], steps[0], steps[2]]),
        (0, &[(9, steps[0].1), steps[1], steps[2]]),
        (0, &[(1, &[-0.0, 1.0]), steps[1], steps[2]]),
        (0, &[(1, &[0.0]), (1, &[1.0]), steps[1]]),
    ] {
        roots.insert(trace(key, steps).root(&base));
    }
    assert_eq!(roots.len(), 14);
    // Every NaN is one.
    let odd = f32::from_bits(0xffc0_0001);
    assert_eq!(trace(0, &[steps[0], steps[1], (3, &[odd])]).root(&base), trace(0, &steps).root(&base));
    assert_eq!(TraceKey::from_seed(7), TraceKey::from_seed(7));
    assert_ne!(TraceKey::from_seed(7), TraceKey::from_seed(8));
}

/// Changes only with a new version of `TRACE.md`.
#[test]
fn the_root_of_a_given_run_is_the_golden_one() {
    let (answer, root) = answered(&request(1, 40), &Plan::new(2));
    assert_eq!(answer.tokens.len(), 40);
    assert_eq!(hex::encode(root), GOLDEN);
}

const GOLDEN: &str = "2542094575f036c431bf823610198f4ad6aab2e4456805407cdaf43fca2c6435";
