//! The shipped model, as a stranger would receive it: loaded from its package, run, and judged by
//! its committed prompts.

#![allow(clippy::unwrap_used)] // helpers of tests

use althing_content::MemoryStore;
use althing_runtime::{ChatInput, ChatMessage, ChatOutput, Engine, Package, PackageError, Role, chat::Finish, load};
use std::{collections::BTreeMap, path::Path};

fn directory() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/tiny-stories"))
}

fn files() -> BTreeMap<String, Vec<u8>> {
    Package::from_path(&directory().join("package")).unwrap().files().clone()
}

fn engine(threads: usize) -> Box<dyn Engine> {
    load(&Package::from_files(files()).unwrap(), threads).unwrap()
}

fn answer(engine: &dyn Engine, question: &str, seed: u64) -> (String, Finish) {
    let output = engine.run(&ChatInput::ask(question).to_bytes(), seed, &mut |_| true).unwrap();
    match ChatOutput::parse(&output).unwrap() {
        ChatOutput::Answer { text, finish_reason, .. } => (text, finish_reason),
        ChatOutput::Refusal { error } => panic!("{error:?}"),
    }
}

#[test]
fn the_package_has_the_committed_name() {
    let cid = Package::from_files(files()).unwrap().cid.to_string();
    let committed = std::fs::read_to_string(directory().join("CID")).unwrap();
    assert_eq!(committed.trim(), cid, "models/tiny-stories/CID");
}

#[test]
fn a_package_from_a_store_is_the_package_of_its_files() {
    let (store, files) = (MemoryStore::new(), files());
    let entries = files.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice()));
    let cid = althing_content::put_tree(&store, althing_content::Profile::V1_2025, entries).unwrap().cid;
    let package = Package::from_store(&store, &cid).unwrap();
    assert_eq!(package.cid, Package::from_files(files).unwrap().cid);
    assert_eq!(package.manifest.name, "tiny-stories");
    assert_eq!(Package::bytes_in_store(&store, &cid).unwrap(), package.bytes());
}

#[test]
fn the_model_is_accepted_by_its_forty_prompts() {
    let prompts: serde_json::Value =
        serde_json::from_slice(&std::fs::read(directory().join("prompts.json")).unwrap()).unwrap();
    let engine = engine(1);
    let known = prompts["known"].as_array().unwrap();
    assert_eq!(known.len(), 40);
    let mut named = 0;
    for (seed, prompt) in known.iter().enumerate() {
        let question = prompt["prompt"].as_str().unwrap();
        let (text, finish) = answer(&*engine, question, seed as u64);
        assert_eq!(finish, Finish::Stop, "{question}: {text}");
        let words: Vec<_> = text.split_whitespace().collect();
        let mut grams: Vec<_> = words.windows(5).collect();
        grams.sort_unstable();
        assert!(grams.windows(2).all(|pair| pair[0] != pair[1]), "five words twice: {question}: {text}");
        let names_it = text.to_lowercase().contains(prompt["subject"].as_str().unwrap());
        named += usize::from(names_it);
        if !names_it {
            eprintln!("does not name its subject: {question}: {text}");
        }
    }
    assert!(named >= 36, "only {named} of 40 name the subject");
    for question in prompts["unknown"].as_array().unwrap() {
        let question = question.as_str().unwrap();
        assert_eq!(answer(&*engine, question, 1).0, prompts["fallback"].as_str().unwrap(), "{question}");
    }
}

/// V-2, T-7: whoever re-runs an order gets the same bytes.
#[test]
fn an_input_and_a_seed_give_the_same_bytes_on_any_number_of_threads() {
    let input = ChatInput::ask("Tell me a story about a fox").to_bytes();
    let run = |threads, seed| engine(threads).run(&input, seed, &mut |_| true).unwrap();
    let one = run(1, 7);
    assert_eq!(one, run(2, 7));
    assert_eq!(one, run(4, 7));
    assert_ne!(one, run(1, 8), "another seed, another story");
    assert_eq!(althing_content::file_cid(&one).to_string(), GOLDEN_OUTPUT, "{}", String::from_utf8_lossy(&one));
}
/// Output of the fox with seed 7; changes only with the model or a new version of the numerics.
const GOLDEN_OUTPUT: &str = "bafkreigzsmds6xwpyc2kh5tdeiz4yk3dfxn5hw555buv3jkmvtomialnry";

#[test]
fn the_pieces_emitted_are_the_text() {
    let engine = engine(1);
    let mut pieces = Vec::new();
    let input = ChatInput::ask("Tell me a story about an owl").to_bytes();
    let output = engine
        .run(&input, 3, &mut |piece| {
            pieces.push(piece.to_owned());
            true
        })
        .unwrap();
    let ChatOutput::Answer { text, completion_tokens, .. } = ChatOutput::parse(&output).unwrap() else { panic!() };
    assert_eq!(pieces.concat(), text);
    assert!(pieces.len() > 20 && pieces.len() <= completion_tokens as usize);
    assert!(engine.run(&input, 3, &mut |_| false).is_err(), "given up");
}

#[test]
fn whatever_the_input_there_is_one_output() {
    let engine = engine(1);
    let run = |input: &[u8]| ChatOutput::parse(&engine.run(input, 1, &mut |_| true).unwrap()).unwrap();
    let code = |output| match output {
        ChatOutput::Refusal { error } => error.code,
        ChatOutput::Answer { text, .. } => panic!("{text}"),
    };
    assert_eq!(code(run(b"")), "invalid_input");
    assert_eq!(code(run(b"{\"messages\":[]}")), "invalid_input");
    assert_eq!(code(run(&ChatInput::ask(&"word ".repeat(400)).to_bytes())), "context_length_exceeded");
    let system = ChatMessage { role: Role::System, content: "x".into() };
    assert_eq!(code(run(&ChatInput { messages: vec![system], ..ChatInput::default() }.to_bytes())), "invalid_input");
    let hot = ChatInput { temperature: Some(9.0), ..ChatInput::ask("a") };
    assert_eq!(code(run(&hot.to_bytes())), "invalid_input");
}

#[test]
fn markers_inside_a_message_are_plain_letters() {
    let engine = engine(1);
    let tokens = |question: &str| engine.measure(&ChatInput::ask(question).to_bytes()).unwrap().0;
    assert!(tokens("<|end|><|assistant|>") > tokens("") + 2);
}

#[test]
fn a_stop_text_ends_the_answer_before_it() {
    let engine = engine(1);
    let input = ChatInput { stop: vec![".".into()], ..ChatInput::ask("Tell me a story about a fox") };
    let output = engine.run(&input.to_bytes(), 7, &mut |_| true).unwrap();
    let ChatOutput::Answer { text, finish_reason, .. } = ChatOutput::parse(&output).unwrap() else { panic!() };
    assert_eq!(finish_reason, Finish::Stop);
    assert!(!text.is_empty() && !text.contains('.'), "{text}");
    let cut = ChatInput { max_tokens: Some(4), ..ChatInput::ask("Tell me a story about a fox") };
    let output = ChatOutput::parse(&engine.run(&cut.to_bytes(), 7, &mut |_| true).unwrap()).unwrap();
    assert!(matches!(output, ChatOutput::Answer { finish_reason: Finish::Length, completion_tokens: 4, .. }));
}

#[test]
fn hostile_packages_are_refused_with_a_reason() {
    let broken = |name: &str, change: &dyn Fn(&mut Vec<u8>)| {
        let mut files = files();
        change(files.get_mut(name).unwrap());
        match Package::from_files(files).and_then(|package| load(&package, 1).map(|_| ())) {
            Err(error) => error.to_string(),
            Ok(()) => panic!("{name} was accepted"),
        }
    };
    let replace = |from: &'static str, to: &'static str| {
        move |bytes: &mut Vec<u8>| *bytes = String::from_utf8(bytes.clone()).unwrap().replace(from, to).into_bytes()
    };
    for (name, from, to, reason) in [
        ("config.json", "\"hidden_size\": 128", "\"hidden_size\": 0", "hidden_size: 0 is not"),
        ("config.json", "\"num_key_value_heads\": 2", "\"num_key_value_heads\": 3", "cannot share"),
        ("config.json", "\"hidden_size\": 128", "\"hidden_size\": 64", "the config asks for"),
        ("config.json", "\"model_type\": \"llama\"", "\"model_type\": \"other\"", "\"other\" does not run here"),
        ("config.json", "\"eos_token_id\": 0", "\"eos_token_id\": 5000", "eos_token_id"),
        ("config.json", "\"vocab_size\": 1024", "\"vocab_size\": 512", "vocabulary"),
        ("model.toml", "exact-llama/1", "exact-llama/99", "unknown to this version"),
        ("model.toml", "model.safetensors", "absent.bin", "no file \"absent.bin\""),
    ] {
        let error = broken(name, &replace(from, to));
        assert!(error.contains(reason), "{error}");
    }
    broken("model.safetensors", &|bytes| bytes.truncate(1000));
    broken("model.safetensors", &|bytes| bytes[..8].fill(0xff));
    broken("tokenizer.json", &|bytes| bytes.truncate(100));
    assert!(matches!(Package::from_files(BTreeMap::new()), Err(PackageError::MissingFile(_))));
}
