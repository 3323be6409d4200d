//! Models that are guests: the examples of `guests/`, built by `guests/build.sh`.

#![allow(clippy::unwrap_used)] // helpers of tests

use althing_runtime::{ChatInput, Engine, ImageInput, Interface, Package, PackageError, load, media::image_type};
use std::{collections::BTreeMap, path::Path};

/// A package that `guests/build.sh` makes.
fn built(example: &str) -> Package {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/guests/packages").join(example);
    assert!(path.exists(), "{} is not there: run guests/build.sh", path.display());
    Package::from_path(&path).unwrap()
}

fn module() -> Vec<u8> {
    built("text-facts").file("model.wasm").unwrap().to_vec()
}

fn manifest(interface: &str, more: &str) -> Vec<u8> {
    format!(
        "name = \"guest\"\ndescription = \"\"\ninterface = \"{interface}\"\nruntime = \"wasm/1\"\n\
         verification = \"exact\"\nlicence = \"MIT\"\n{more}\n"
    )
    .into_bytes()
}

const FILES: &str = "[limits]\noutput_bytes_max = 65536\n[files]\nmodule = \"model.wasm\"\n";

fn package(files: &[(&str, Vec<u8>)]) -> Result<Box<dyn Engine>, PackageError> {
    let files: BTreeMap<String, Vec<u8>> =
        files.iter().map(|(name, bytes)| ((*name).to_owned(), bytes.clone())).collect();
    load(&Package::from_files(files)?, 2)
}

fn tiny_stories() -> Package {
    Package::from_path(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/tiny-stories/package")).unwrap()
}

/// The shipped model as a guest.
fn llama() -> Box<dyn Engine> {
    load(&built("llama"), 2).unwrap()
}

#[test]
fn a_llama_as_a_guest_answers_as_the_native_engine_does() {
    let (guest, native) = (llama(), load(&tiny_stories(), 2).unwrap());
    assert_eq!((guest.interface(), native.interface()), (Interface::Chat, Interface::Chat));
    for (question, seed) in
        [("Tell me a story about a fox", 1), ("Who's there, in 1930?\n\n  Don't say… þat!", 2), ("", 3), ("a b  c", 4)]
    {
        for input in [
            ChatInput::ask(question),
            ChatInput { temperature: Some(0.0), ..ChatInput::ask(question) },
            ChatInput { max_tokens: Some(5), ..ChatInput::ask(question) },
            ChatInput { stop: vec![" the".into(), "a ".into()], top_p: Some(0.9), ..ChatInput::ask(question) },
        ] {
            let input = input.to_bytes();
            let mut text = String::new();
            let output = guest.run(&input, seed, &mut |piece| {
                text.push_str(piece);
                true
            });
            let output = String::from_utf8(output.unwrap()).unwrap();
            let expected = String::from_utf8(native.run(&input, seed, &mut |_| true).unwrap()).unwrap();
            assert_eq!(output, expected, "{question:?}");
            let said: serde_json::Value = serde_json::from_str(&output).unwrap();
            assert_eq!(said["text"], text.as_str());
        }
    }
}

#[test]
fn a_guest_refuses_in_its_own_words() {
    let guest = llama();
    let refusal = |input: &[u8]| String::from_utf8(guest.run(input, 0, &mut |_| true).unwrap()).unwrap();
    assert_eq!(refusal(b"{}"), r#"{"error":{"code":"invalid_input","message":"the input is not a chat input"}}"#);
    let long = ChatInput::ask(&"word ".repeat(300)).to_bytes();
    assert_eq!(
        refusal(&long),
        r#"{"error":{"code":"invalid_input","message":"the conversation is longer than the model's context"}}"#
    );
}

#[test]
fn a_tool_takes_and_gives_json() {
    let guest = load(&built("text-facts"), 1).unwrap();
    assert_eq!(guest.interface(), Interface::Json);
    let run = |input: &[u8]| {
        let mut said = false;
        let output = guest.run(input, 0, &mut |_| {
            said = true;
            true
        });
        assert!(!said, "only chat is said piece by piece");
        String::from_utf8(output.unwrap()).unwrap()
    };
    assert_eq!(
        run(r#"{"text": "The law is the law. And þat's it!"}"#.as_bytes()),
        r#"{"characters":33,"words":8,"sentences":2,"longest_word":"þat's","frequent":[["law",2],["the",2],["and",1],["is",1],["it",1]]}"#
    );
    assert_eq!(run(b"[]"), r#"{"error":{"code":"invalid_input","message":"the input is {\"text\": \"…\"}"}}"#);
}

#[test]
fn a_classifier_knows_texts_that_it_has_not_seen() {
    let guest = load(&built("languages"), 1).unwrap();
    for (text, language) in [
        ("Free men met once a year at the rock of the law.", "en"),
        ("Freie Männer trafen sich einmal im Jahr am Felsen des Gesetzes.", "de"),
        ("Les hommes libres se réunissaient une fois par an au rocher de la loi.", "fr"),
        ("Los hombres libres se reunían una vez al año en la roca de la ley.", "es"),
        ("Frjálsir menn hittust einu sinni á ári við Lögberg á Þingvöllum.", "is"),
    ] {
        let input = serde_json::json!({ "text": text }).to_string();
        let output = guest.run(input.as_bytes(), 0, &mut |_| true).unwrap();
        let output: serde_json::Value = serde_json::from_slice(&output).unwrap();
        assert_eq!(output["language"], language, "{output}");
        assert!(output["likelihood"][language].as_u64().unwrap() > 500, "{output}");
    }
    // No letters, no reason to prefer one.
    let output = guest.run(br#"{"text": "12345"}"#, 0, &mut |_| true).unwrap();
    assert!(output.starts_with(br#"{"language":""#));
}

#[test]
fn a_painter_gives_a_picture_that_its_words_and_the_seed_decide() {
    let guest = load(&built("landscapes"), 1).unwrap();
    assert_eq!(guest.interface(), Interface::Image);
    let paint = |prompt: &str, width, seed| {
        let input = ImageInput { prompt: prompt.into(), width, height: 64 };
        guest.run(&input.to_bytes(), seed, &mut |_| panic!("only chat is said piece by piece")).unwrap()
    };
    let picture = paint("a lake at noon", 96, 1);
    assert_eq!(image_type(&picture), Some("image/png"));
    assert_eq!(picture[16..24], [0, 0, 0, 96, 0, 0, 0, 64]);
    assert_eq!(picture, paint("a lake at noon", 96, 1));
    assert!(picture != paint("a lake at noon", 96, 2) && picture != paint("a lake at night", 96, 1));
    let refused = String::from_utf8(paint("a lake", 65, 1)).unwrap();
    assert!(refused.starts_with(r#"{"error":{"code":"invalid_input","message":""#), "{refused}");
}

#[test]
fn what_is_no_picture_or_sound_is_a_failure() {
    let facts = built("text-facts");
    for (interface, what) in [("image", "picture"), ("speech", "sound")] {
        let mut files = facts.files().clone();
        files.insert("model.toml".into(), manifest(interface, FILES));
        let guest = load(&Package::from_files(files).unwrap(), 1).unwrap();
        let output = guest.run(br#"{"text": "x"}"#, 0, &mut |_| true).unwrap();
        let expected = format!(
            r#"{{"error":{{"code":"model_failed","message":"the model gave something that is not a {what}"}}}}"#
        );
        assert_eq!(String::from_utf8(output).unwrap(), expected);
    }
}

#[test]
fn packages_that_ask_for_too_much_or_name_no_module_are_refused() {
    let module = ("model.wasm", module());
    let refused = |toml: Vec<u8>| package(&[("model.toml", toml), module.clone()]).err().unwrap().to_string();
    let limit = |line: &str| refused(manifest("json", &FILES.replace("[files]", &format!("{line}\n[files]"))));
    assert!(limit("memory_bytes_max = 2000000000").contains("memory_bytes_max is 2000000000; at most 1073741824"));
    assert!(limit("run_fuel_max = 2000000000000").contains("run_fuel_max"));
    assert!(limit("more = 1").contains("unknown field"));
    let version = |line: &str| refused(manifest("json", &format!("{line}\n{FILES}")));
    assert!(version("trace = 9").contains("trace is 9; this version has 1"), "{}", version("trace = 9"));
    assert!(version("output = \"cbor/1\"").contains("output is cbor/1; this version has json/1"));
    package(&[("model.toml", manifest("json", &format!("trace = 1\noutput = \"json/1\"\n{FILES}"))), module.clone()])
        .unwrap();
    assert!(refused(manifest("json", &FILES.replace("model.wasm", "other.wasm"))).contains("no file \"other.wasm\""));
    assert!(refused(manifest("json", &format!("{FILES}weights = [\"weights\"]"))).contains("no file \"weights\""));
    assert!(refused(manifest("embedding", FILES)).contains("wasm/1 (embedding)"));
    let text = "[limits]\noutput_bytes_max = 65536\n[files]\ngguf = \"model.wasm\"\n";
    assert!(refused(manifest("chat", text)).contains("names other files"));
}

#[test]
fn what_a_guest_needs_beyond_its_package_is_a_failure_of_the_run() {
    let few = FILES.replace("[files]", "run_fuel_max = 1000\n[files]");
    let guest = package(&[("model.toml", manifest("json", &few)), ("model.wasm", module())]).unwrap();
    let output = guest.run(br#"{"text": "x"}"#, 0, &mut |_| true).unwrap();
    assert_eq!(output, br#"{"error":{"code":"model_failed","message":"the model ran out of fuel"}}"#);
}
