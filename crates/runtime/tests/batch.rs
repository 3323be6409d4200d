//! Runs that share their steps give what they give alone, whoever comes and goes.

#![allow(clippy::unwrap_used)] // helpers of tests

use althing_runtime::{
    Batch, Caller, ChatEngine, ChatInput, ChatMessage, ChatOutput, Counters, Engine, Memory, Package, Prepared, Role,
    Run, RunError, load,
};
use proptest::prelude::*;
use std::{
    collections::VecDeque,
    path::Path,
    sync::{Arc, LazyLock, Mutex, atomic::Ordering},
    time::Duration,
};

fn engine(path: &str) -> Arc<ChatEngine> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    let engine = load(&Package::from_path(&path).unwrap(), 2).unwrap();
    Arc::<dyn Engine>::from(engine).chat().unwrap()
}

static STORIES: LazyLock<Arc<ChatEngine>> = LazyLock::new(|| engine("../../models/tiny-stories/package"));
/// A context of 64 tokens: a page.
static SMALL: LazyLock<Arc<ChatEngine>> = LazyLock::new(|| engine("../exact/tests/fixtures/llama.gguf"));

/// What a caller was told.
#[derive(Default)]
struct Told {
    text: String,
    result: Option<Result<Vec<u8>, RunError>>,
}

/// How a caller takes pieces of text.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Manner {
    Reads,
    GivesUpAfter(usize),
    PanicsAfter(usize),
}

struct Listener {
    told: Arc<Mutex<Told>>,
    manner: Manner,
    pieces: usize,
}

impl Caller for Listener {
    fn text(&mut self, piece: &str) -> bool {
        self.told.lock().unwrap().text.push_str(piece);
        self.pieces += 1;
        match self.manner {
            Manner::Reads => true,
            Manner::GivesUpAfter(pieces) => self.pieces < pieces,
            Manner::PanicsAfter(pieces) => {
                assert!(self.pieces < pieces, "a caller panics");
                true
            }
        }
    }

    fn done(self: Box<Self>, result: Result<Vec<u8>, RunError>, _worked: Duration) {
        assert!(self.told.lock().unwrap().result.replace(result).is_none(), "one result");
    }
}

/// A batch with what it needs.
struct Server {
    engine: Arc<ChatEngine>,
    memory: Arc<Memory>,
    counters: Arc<Counters>,
    batch: Batch,
}

impl Server {
    fn new(engine: &Arc<ChatEngine>, kept_max_bytes: u64) -> Self {
        let (memory, counters) = (Memory::new(u64::MAX, kept_max_bytes, || {}), Arc::<Counters>::default());
        let batch = Batch::new(engine.clone(), memory.clone(), counters.clone());
        Self { engine: engine.clone(), memory, counters, batch }
    }

    fn add(&mut self, input: &ChatInput, seed: u64, manner: Manner) -> Arc<Mutex<Told>> {
        let told = Arc::<Mutex<Told>>::default();
        let caller = Box::new(Listener { told: told.clone(), manner, pieces: 0 });
        match self.engine.prepare(&input.to_bytes(), seed).unwrap() {
            Prepared::Refused(output) => caller.done(Ok(output), Duration::ZERO),
            Prepared::Answer(answering) => {
                let hold = self.memory.hold(self.engine.cache_bytes(&answering)).unwrap();
                self.batch.add(Run { answering, hold, caller });
            }
        }
        told
    }

    fn finish(&mut self) {
        for _ in 0..10_000 {
            if self.batch.is_empty() {
                return;
            }
            self.batch.step();
        }
        panic!("the runs do not end");
    }

    fn fed(&self) -> u64 {
        self.counters.tokens_fed.load(Ordering::Relaxed)
    }

    fn reused(&self) -> u64 {
        self.counters.tokens_reused.load(Ordering::Relaxed)
    }
}

/// What the run gives alone: its output and its text.
fn alone(engine: &ChatEngine, input: &ChatInput, seed: u64) -> (Vec<u8>, String) {
    let mut text = String::new();
    let emit = &mut |piece: &str| {
        text.push_str(piece);
        true
    };
    let output = engine.run(&input.to_bytes(), seed, emit).unwrap();
    (output, text)
}

fn say(role: Role, content: impl Into<String>) -> ChatMessage {
    ChatMessage { role, content: content.into() }
}

fn ask(question: &str, max_tokens: u32) -> ChatInput {
    ChatInput { max_tokens: Some(max_tokens), ..ChatInput::ask(question) }
}

fn output_tokens(output: &[u8]) -> (u64, u64) {
    match ChatOutput::parse(output).unwrap() {
        ChatOutput::Answer { prompt_tokens, completion_tokens, .. } => (prompt_tokens.into(), completion_tokens.into()),
        ChatOutput::Refusal { error } => panic!("{error:?}"),
    }
}

/// Conversations that begin alike, in part or all the way, and some that are refused.
fn input() -> impl Strategy<Value = ChatInput> {
    let opening = prop::sample::select(vec![
        "Tell me a story about a fox",
        "Tell me a story about a fox who lived in a house at the edge of the forest with three other foxes",
        "Tell me a story about a fox who lived in a house at the edge of the river, and of the owl above it",
        "What is a quorum?",
    ]);
    let rest = prop::sample::select(vec![
        vec![],
        vec!["Once there was a fox. It was small and red and liked to sing.", "And then?"],
        vec!["Once there was a fox. It was small and red and liked to sing.", "Another one, about the moon"],
        vec!["No.", "Please! Please! Please!", "Once upon a time", "Go on"],
    ]);
    let sampling = (prop::option::of(prop::sample::select(vec![0.0f32, 0.5, 1.3])), prop::option::of(Just(0.9f32)));
    let stop = prop::sample::select(vec![vec![], vec![".".to_owned()], vec!["the".to_owned(), " a".to_owned()]]);
    let longer = prop::bool::weighted(0.05);
    (opening, rest, sampling, stop, 0u32..14, longer).prop_map(
        |(opening, rest, (temperature, top_p), stop, max_tokens, longer)| {
            let mut messages = vec![say(Role::User, opening)];
            messages.extend(
                rest.chunks(2)
                    .flat_map(|pair| [(Role::Assistant, pair[0]), (Role::User, pair[1])])
                    .map(|(role, content)| say(role, if longer { content.repeat(100) } else { content.into() })),
            );
            ChatInput { messages, max_tokens: Some(max_tokens), temperature, top_p, stop }
        },
    )
}

fn manner() -> impl Strategy<Value = Manner> {
    prop_oneof![
        8 => Just(Manner::Reads),
        1 => (1..4usize).prop_map(Manner::GivesUpAfter),
        1 => (1..4usize).prop_map(Manner::PanicsAfter),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// V-2, T-7: whoever re-runs an order gets the same bytes, whatever else its machine does.
    #[test]
    fn a_run_gives_in_any_company_what_it_gives_alone(
        // Each comes some steps after the one before.
        arrivals in prop::collection::vec((0..8usize, input(), 0..4u64, manner()), 1..12),
        runs_max in 1..7usize,
        kept_max_bytes in prop::sample::select(vec![0, 300_000, u64::MAX]),
    ) {
        let mut server = Server::new(&STORIES, kept_max_bytes);
        let mut waiting: VecDeque<_> = arrivals.iter().collect();
        let mut told = Vec::new();
        let mut pause = 0;
        while let Some((after, input, seed, manner)) = waiting.front() {
            if pause >= *after && server.batch.len() < runs_max {
                told.push(server.add(input, *seed, *manner));
                waiting.pop_front();
                pause = 0;
            } else {
                server.batch.step();
                pause += 1;
            }
        }
        server.finish();
        for ((_, input, seed, manner), told) in arrivals.iter().zip(&told) {
            let Told { text, result } = &mut *told.lock().unwrap();
            let (expected, expected_text) = alone(&STORIES, input, *seed);
            match result.take().unwrap() {
                Ok(output) => {
                    prop_assert_eq!(String::from_utf8_lossy(&output), String::from_utf8_lossy(&expected));
                    prop_assert_eq!(&*text, &expected_text);
                }
                Err(RunError::GivenUp) => prop_assert!(matches!(manner, Manner::GivesUpAfter(_))),
                Err(RunError::Engine(_)) => prop_assert!(matches!(manner, Manner::PanicsAfter(_))),
            }
            prop_assert!(expected_text.starts_with(text.as_str()));
        }
        let usage = server.memory.usage();
        prop_assert_eq!(usage.held_bytes, 0);
        prop_assert!(usage.kept_bytes <= kept_max_bytes);
    }
}

#[test]
fn runs_join_and_leave_while_others_run() {
    let mut server = Server::new(&STORIES, 0);
    let long = server.add(&ask("Tell me a story about a fox", 100), 7, Manner::Reads);
    for _ in 0..5 {
        server.batch.step();
    }
    let text = long.lock().unwrap().text.clone();
    assert!(!text.is_empty() && long.lock().unwrap().result.is_none());
    let short = server.add(&ask("Tell me a story about an owl", 3), 1, Manner::Reads);
    // Its prompt gives the first token.
    for _ in 0..3 {
        assert_eq!(server.batch.len(), 2);
        server.batch.step();
    }
    assert!(short.lock().unwrap().result.is_some(), "the newcomer has ended");
    assert_eq!(server.batch.len(), 1);
    let told = long.lock().unwrap();
    assert!(told.result.is_none() && told.text.len() > text.len(), "the first went on all the while");
    drop(told);
    assert_eq!(server.counters.steps.load(Ordering::Relaxed), 8, "each step fed both");
    server.finish();
    let output = long.lock().unwrap().result.take().unwrap().unwrap();
    assert_eq!(output, alone(&STORIES, &ask("Tell me a story about a fox", 100), 7).0);
}

#[test]
fn a_long_prompt_holds_nobody_up() {
    let mut server = Server::new(&STORIES, 0);
    let first = server.add(&ask("Tell me a story about a fox", 100), 7, Manner::Reads);
    server.batch.step();
    let (long, short) = ("Tell me more about the old king and his daughter. ".repeat(11), "Tell me a story");
    let long = server.add(&ask(&long, 2), 1, Manner::Reads);
    let short = server.add(&ask(short, 2), 1, Manner::Reads);
    let (mut pieces, mut short_ended) = (Vec::new(), None);
    for step in 0..30 {
        let before = server.fed();
        server.batch.step();
        pieces.push(server.fed() - before);
        if short.lock().unwrap().result.is_some() {
            short_ended.get_or_insert(step);
        }
        if long.lock().unwrap().result.is_some() {
            break;
        }
        assert!(first.lock().unwrap().result.is_none());
    }
    let (prompt, _) = output_tokens(long.lock().unwrap().result.as_ref().unwrap().as_ref().unwrap());
    assert!(prompt > 128, "{prompt} tokens");
    assert!(pieces.iter().all(|tokens| *tokens <= 64), "{pieces:?}");
    assert!(short_ended.unwrap() + 1 < pieces.len(), "who asks little does not wait for who asks much");
}

#[test]
fn a_prompt_starts_where_an_earlier_one_parted_from_it() {
    let mut server = Server::new(&STORIES, u64::MAX);
    let opening = "Tell me a story about a fox who lived in a house at the edge of the forest";
    let first = server.add(&ask(opening, 20), 7, Manner::Reads);
    server.finish();
    let output = first.lock().unwrap().result.take().unwrap().unwrap();
    let (prompt, answer) = output_tokens(&output);
    assert_eq!((server.fed(), server.reused()), (prompt + answer - 1, 0));
    // The same question again: all but its last token is known.
    let fed = server.fed();
    let again = server.add(&ask(opening, 20), 8, Manner::Reads);
    server.finish();
    let output_again = again.lock().unwrap().result.take().unwrap().unwrap();
    let (_, answer_again) = output_tokens(&output_again);
    assert_eq!((server.fed() - fed, server.reused()), (answer_again, prompt - 1));
    assert_eq!(output_again, alone(&STORIES, &ask(opening, 20), 8).0);
    // The next turn of the conversation: its question and answer are known.
    let ChatOutput::Answer { text, .. } = ChatOutput::parse(&output).unwrap() else { panic!() };
    let messages = vec![say(Role::User, opening), say(Role::Assistant, text), say(Role::User, "And then?")];
    let turn = ChatInput { messages, max_tokens: Some(5), ..ChatInput::default() };
    let (fed, reused) = (server.fed(), server.reused());
    let next = server.add(&turn, 9, Manner::Reads);
    server.finish();
    let output = next.lock().unwrap().result.take().unwrap().unwrap();
    assert_eq!(output, alone(&STORIES, &turn, 9).0);
    let (prompt_next, answer_next) = output_tokens(&output);
    let skipped = server.reused() - reused;
    assert!(skipped >= prompt, "{skipped} of {prompt_next} tokens");
    assert_eq!(server.fed() - fed + skipped, prompt_next + answer_next - 1);
}

#[test]
fn what_several_begin_with_is_read_once() {
    let mut server = Server::new(&STORIES, 0);
    let opening = "Tell me a story about a fox who lived in a house at the edge of the forest with ".repeat(4);
    let asks: Vec<_> = (0..5).map(|i| ask(&format!("{opening}{i} owls"), 4)).collect();
    let told: Vec<_> = asks.iter().map(|input| server.add(input, 3, Manner::Reads)).collect();
    server.finish();
    let mut read = 0;
    for (input, told) in asks.iter().zip(told) {
        let output = told.lock().unwrap().result.take().unwrap().unwrap();
        assert_eq!(output, alone(&STORIES, input, 3).0);
        let (prompt, answer) = output_tokens(&output);
        read += prompt + answer - 1;
    }
    assert_eq!(server.fed() + server.reused(), read);
    assert!(server.reused() > read / 2, "{} of {read}", server.reused());
    assert_eq!(server.memory.usage().kept_bytes, 0, "from each other, not from what is kept");
}

#[test]
fn whoever_panics_or_gives_up_leaves_alone() {
    let mut server = Server::new(&SMALL, u64::MAX);
    let input = ChatInput { temperature: Some(0.8), ..ask("Hello there!", 20) };
    let manners = [Manner::Reads, Manner::PanicsAfter(2), Manner::GivesUpAfter(3), Manner::Reads];
    let told: Vec<_> = (0..).zip(manners).map(|(seed, manner)| server.add(&input, seed, manner)).collect();
    server.finish();
    for ((seed, manner), told) in (0..).zip(manners).zip(told) {
        let result = told.lock().unwrap().result.take().unwrap();
        match manner {
            Manner::Reads => assert_eq!(result.unwrap(), alone(&SMALL, &input, seed).0),
            Manner::PanicsAfter(_) => assert!(matches!(result, Err(RunError::Engine(_)))),
            Manner::GivesUpAfter(_) => assert_eq!(result, Err(RunError::GivenUp)),
        }
    }
    assert_eq!(server.memory.usage().held_bytes, 0);
}
