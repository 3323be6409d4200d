//! Templates give what Hugging Face's `apply_chat_template` gives, and no message can say more than
//! letters. The expected prompts were rendered by transformers, without the day's date.

#![allow(clippy::unwrap_used)] // helpers of tests

use althing_exact::{PromptPart, TemplateSource, tokenizer::TextTokenizer};
use althing_runtime::template::{ChatTemplate, TemplateError, TemplateMessage};
use proptest::prelude::*;
use serde::Deserialize;
use serde_json::json;

const NAMES: [&str; 9] = ["llama3", "llama31", "qwen25", "qwen3", "mistral", "zephyr", "chatml", "smollm2", "oddities"];

#[derive(Deserialize)]
struct Case {
    template: String,
    bos: String,
    eos: String,
    messages: Vec<(String, String)>,
    answer: bool,
    text: Option<String>,
    raised: Option<String>,
}

fn file(name: &str) -> String {
    std::fs::read_to_string(format!("{}/tests/fixtures/templates/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

fn special() -> Vec<String> {
    let texts = [
        "<s>",
        "</s>",
        "<|begin_of_text|>",
        "<|eot_id|>",
        "<|start_header_id|>",
        "<|end_header_id|>",
        "<|endoftext|>",
        "<|im_start|>",
        "<|im_end|>",
        "[INST]",
        "[/INST]",
        "<|user|>",
        "<|system|>",
        "<|assistant|>",
    ];
    texts.map(str::to_owned).to_vec()
}

fn messages(messages: &[(String, String)]) -> Vec<TemplateMessage<'_>> {
    messages.iter().map(|(role, content)| TemplateMessage { role, content }).collect()
}

fn user(content: &str) -> [TemplateMessage<'_>; 1] {
    [TemplateMessage { role: "user", content }]
}

fn template(source: &str) -> ChatTemplate {
    chat_template(source, "<s>", "</s>", &special()).unwrap()
}

fn chat_template(source: &str, bos: &str, eos: &str, markers: &[String]) -> Result<ChatTemplate, TemplateError> {
    ChatTemplate::new(TemplateSource { source: source.into(), bos_token: bos.into(), eos_token: eos.into() }, markers)
}

fn joined(parts: &[PromptPart]) -> String {
    let text = |part: &PromptPart| match part {
        PromptPart::Markers(text) | PromptPart::Text(text) => text.clone(),
    };
    parts.iter().map(text).collect()
}

#[test]
fn real_templates_give_the_reference_prompts() {
    let cases: Vec<Case> = serde_json::from_str(&file("expected.json")).unwrap();
    assert_eq!(cases.len(), 90);
    for case in cases {
        let source = file(&format!("{}.jinja", case.template));
        let template = chat_template(&source, &case.bos, &case.eos, &special()).unwrap();
        let got = template.render(&messages(&case.messages), case.answer);
        let expected = match (case.text, case.raised) {
            // An ordinary conversation is tokenized in one piece, as the reference does it.
            (Some(text), None) => Ok(vec![PromptPart::Markers(text)]),
            (None, Some(message)) => Err(TemplateError::Raised(message)),
            other => panic!("{other:?}"),
        };
        assert_eq!(got, expected, "{} {:?}", case.template, case.messages);
    }
}

#[test]
fn markers_inside_messages_are_plain_text() {
    use PromptPart::{Markers, Text};
    let chatml = template(&file("chatml.jinja"));
    let marked = |text: &str| Markers(text.to_owned());
    let plain = |text: &str| Text(text.to_owned());
    let cases = [
        ("a<|im_end|>\n", vec![marked("<|im_start|>user\na"), plain("<|im_end|>"), marked("\n<|im_end|>\n")]),
        // What overlaps is one text.
        ("</s><s>", vec![marked("<|im_start|>user\n"), plain("</s><s>"), marked("<|im_end|>\n")]),
        // Taking the inner one out does not leave the outer one.
        ("<|im_<s>end|>", vec![marked("<|im_start|>user\n<|im_"), plain("<s>"), marked("end|><|im_end|>\n")]),
        // The noncharacter that marks breaks is not a way around them.
        ("<\u{fdd0}s>", vec![marked("<|im_start|>user\n<\u{fffd}s><|im_end|>\n")]),
        // Half a marker that the template does not complete changes nothing.
        ("a <|im_", vec![marked("<|im_start|>user\na <|im_<|im_end|>\n")]),
        ("1 <", vec![marked("<|im_start|>user\n1 <<|im_end|>\n")]),
    ];
    for (content, expected) in cases {
        assert_eq!(chatml.render(&user(content), false).unwrap(), expected, "{content}");
    }
}

#[test]
fn messages_cannot_complete_markers_that_a_template_begins() {
    use PromptPart::{Markers, Text};
    let cases = [
        ("<|{{ messages[0].content }}|>", "im_end", vec![Text("<|im_end|>".into())]),
        (
            "x<{{ messages[0].content | trim }}",
            " s> y",
            vec![Markers("x".into()), Text("<s>".into()), Markers(" y".into())],
        ),
        (
            "{{ messages[0].content }}INST] y",
            "x [",
            vec![Markers("x ".into()), Text("[INST]".into()), Markers(" y".into())],
        ),
        ("{{ messages[0].content[:4] }}|im_end|>", "1 + <s>", vec![Markers("1 + |im_end|>".into())]),
        ("{{ messages[0].role }}", "x", vec![Markers("user".into())]),
    ];
    for (source, content, expected) in cases {
        assert_eq!(template(source).render(&user(content), false).unwrap(), expected, "{source}");
    }
}

#[test]
fn templates_run_within_bounds() {
    let raised = |text: &str| Err(TemplateError::Raised(text.into()));
    let stranger = [TemplateMessage { role: "im_end|>", content: "x" }];
    assert_eq!(template("x").render(&stranger, false), Err(TemplateError::Role("im_end|>".into())));
    assert_eq!(template("{{ raise_exception('no') }}").render(&user("x"), false), raised("no"));
    let deep = format!("{{{{ {}1{} }}}}", "(".repeat(100_000), ")".repeat(100_000));
    for (source, part) in [
        ("{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}", "fuel"),
        // Texts that double: the limit of memory, or of fuel, whichever comes first.
        ("{% set n = namespace(x='x') %}{% for i in range(99) %}{% set n.x = n.x ~ n.x %}{% endfor %}", "more memory"),
        (
            "{% set n = namespace(x='x') %}{% for i in range(99) %}{% set n.x = n.x.replace('x', 'xx') %}{% endfor %}",
            "",
        ),
        ("{% set x %}{% for i in range(100000) %}{{ 'x' * 100000 }}{% endfor %}{% endset %}", "more memory"),
        // A list of lists of lists: small, and without an end when it is written or compared.
        ("{% set n = namespace(x=['x']) %}{% for i in range(99) %}{% set n.x = [n.x, n.x] %}{% endfor %}{{ n.x }}", ""),
        (
            "{% set n = namespace(x=['x'], y=['x']) %}{% for i in range(99) %}{% set n.x = [n.x, n.x] %}\
            {% set n.y = [n.y, n.y] %}{% endfor %}{{ n.x == n.y }}",
            "fuel",
        ),
        // Lists in lists, so deep that letting go of them takes more stack than there is.
        ("{% set n = namespace(x=[]) %}{% for i in range(100000) %}{% set n.x = [n.x] %}{% endfor %}", ""),
        ("{% for i in range(10000) %}{{ 'x' * 1000 }}{% endfor %}", "larger than"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", ""),
        (deep.as_str(), ""),
        ("{{ strftime_now('%d') }}", "strftime_now"),
        ("{{ messages[0].content.nothing() }}", ""),
        ("{% include 'file' %}", "unknown statement include"),
        ("{{ 'x' * 1000000000 }}", ""),
    ] {
        // Some are no templates to begin with.
        let rendered = chat_template(source, "", "", &[]).and_then(|template| template.render(&user("x"), false));
        let error = rendered.unwrap_err();
        assert!(!matches!(error, TemplateError::NoResult(_)), "{source}: {error}");
        assert!(error.to_string().contains(part), "{source}: {error}");
    }
    for (source, markers, part) in [
        ("{% if %}", special(), "cannot be used"),
        (" ".repeat(300_000).as_str(), special(), "300000 bytes"),
        ("x", vec!["<y>".repeat(100)], "300 bytes, at most 256"),
        ("x", vec!["y".to_owned()], "cannot be told from plain text"),
        ("x", vec!["<\u{fdd0}>".to_owned()], "cannot be told from plain text"),
    ] {
        let error = chat_template(source, "", "", &markers).err().unwrap().to_string();
        assert!(error.contains(part), "{error}");
    }
}

/// A tokenizer of letters, with the markers of all templates.
fn tokenizer() -> TextTokenizer {
    let letters: Vec<String> = (0..=255u32).map(|byte| char::from_u32(byte + 0x100).unwrap().to_string()).collect();
    let base = (33..127u8).chain(161..=172).chain(174..=255).map(|byte| char::from(byte).to_string());
    let mut vocab = serde_json::Map::new();
    for letter in base.chain(letters).take(256) {
        vocab.insert(letter, vocab.len().into());
    }
    let added: Vec<_> = special()
        .iter()
        .enumerate()
        .map(|(i, text)| {
            json!({"id": vocab.len() + i, "content": text, "single_word": false, "lstrip": false,
            "rstrip": false, "normalized": false, "special": true})
        })
        .collect();
    let json = json!({"version": "1.0", "added_tokens": added, "normalizer": null,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        "post_processor": null, "decoder": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        "model": {"type": "BPE", "vocab": vocab, "merges": []}});
    TextTokenizer::from_json(json.to_string().as_bytes(), 512).unwrap()
}

/// The special tokens of a prompt.
fn special_tokens(tokenizer: &TextTokenizer, parts: &[PromptPart]) -> Vec<u32> {
    tokenizer.encode(parts).unwrap().into_iter().filter(|token| *token >= 256).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn no_message_adds_a_special_token(
        name in prop::sample::select(NAMES.to_vec()),
        contents in prop::collection::vec(prop::collection::vec(prop::sample::select(vec![
            "<|im_start|>", "<|im_end|>", "<|eot_id|>", "<|im_", "end|>", "start|>", "<|", "|>", "<", ">", "|", "s>", "</", "</s>", "[INST]",
            "[", "[/", "INST]", "/INST]", "<|start_header_id|>", "\u{fdd0}", "\u{fffd}", " ", "\n", "a", "system", "user", "þ",
        ]), 0..8), 1..5),
        answer: bool,
    ) {
        let tokenizer = tokenizer();
        let template = template(&file(&format!("{name}.jinja")));
        let conversation = |contents: Vec<String>| -> Vec<(String, String)> {
            let roles = ["user", "assistant"].into_iter().cycle();
            roles.map(str::to_owned).zip(contents).collect()
        };
        let hostile = conversation(contents.iter().map(|pieces| pieces.concat()).collect());
        let harmless = conversation(contents.iter().map(|_| "x".to_owned()).collect());
        let hostile_parts = template.render(&messages(&hostile), answer).unwrap();
        let harmless_parts = template.render(&messages(&harmless), answer).unwrap();
        prop_assert_eq!(special_tokens(&tokenizer, &hostile_parts), special_tokens(&tokenizer, &harmless_parts));
        prop_assert!(!joined(&hostile_parts).contains('\u{fdd0}'), "a break was left");
        // The letters are those that were written, in templates that do not change them.
        if name == "chatml" {
            let expected: String = hostile.iter().map(|(role, content)| format!("<|im_start|>{role}\n{}<|im_end|>\n", content.replace('\u{fdd0}', "\u{fffd}"))).collect();
            prop_assert!(joined(&hostile_parts).starts_with(&expected));
        }
    }
}

#[test]
fn the_shipped_engine_answers_as_its_source_does() {
    let cases: Vec<Case> = serde_json::from_str(&file("expected.json")).unwrap();
    let odd =
        ["{{ 1 / 0 }}", "{% if %}", "{{ messages | tojson(indent=2) }}", "{{ [1.5, 2e300, none, true] }}", "{{ x.y }}"];
    let cases = cases.iter().map(|case| (file(&format!("{}.jinja", case.template)), case.messages.clone()));
    let odd = odd.map(|source| (source.to_owned(), vec![("user".to_owned(), "\u{1f600} \"'&<".to_owned())]));
    let guest = althing_sandbox::Guest::new(
        include_bytes!("../src/template/chat_template.wasm"),
        althing_sandbox::Files::default(),
        althing_sandbox::Config {
            compile: althing_sandbox::Compile::Quick,
            ..althing_sandbox::Config::new(althing_sandbox::Limits::default())
        },
    )
    .unwrap();
    for (source, messages) in cases.chain(odd) {
        let messages: Vec<_> =
            messages.iter().map(|(role, content)| json!({"role": role, "content": content})).collect();
        let request =
            json!({"source": source, "messages": messages, "answer": true, "bos_token": "<s>", "eos_token": "</s>"});
        let request = request.to_string().into_bytes();
        let here = althing_chat_template::answer(&request).unwrap();
        assert_eq!(guest.run(&request, 0, &mut |_| true).unwrap().output, here, "{source}");
    }
}
