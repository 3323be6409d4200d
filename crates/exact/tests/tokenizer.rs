//! Tokens equal those of the reference implementations, and strangers' texts never become special
//! tokens. The expected tokens in the fixtures are those of Hugging Face's libraries with the official
//! settings of each kind of vocabulary; they were compared with llama.cpp's and SentencePiece's own.

#![allow(clippy::unwrap_used)] // helpers of tests

mod common;

use althing_exact::{PromptPart, gguf::Gguf, tokenizer::TextTokenizer};
use common::GgufFile;
use proptest::prelude::*;
use serde_json::{Value, json};

fn fixture(name: &str) -> Value {
    let path = format!("{}/tests/fixtures/{name}.json", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn texts(value: &Value) -> Vec<String> {
    serde_json::from_value(value.clone()).unwrap()
}

fn numbers(value: &Value) -> Vec<i32> {
    serde_json::from_value(value.clone()).unwrap()
}

/// The vocabulary of a fixture as GGUF metadata.
fn vocabulary(fixture: &Value, model: &str) -> GgufFile {
    GgufFile::default()
        .str("tokenizer.ggml.model", model)
        .strs("tokenizer.ggml.tokens", &texts(&fixture["tokens"]))
        .i32s("tokenizer.ggml.token_type", &numbers(&fixture["types"]))
}

fn byte_level(pre: &str) -> GgufFile {
    let fixture = fixture("bpe");
    let file = vocabulary(&fixture, "gpt2").strs("tokenizer.ggml.merges", &texts(&fixture["merges"]));
    file.str("tokenizer.ggml.pre", pre)
}

fn sentencepiece() -> GgufFile {
    let fixture = fixture("sentencepiece");
    let scores: Vec<f32> = serde_json::from_value(fixture["scores"].clone()).unwrap();
    vocabulary(&fixture, "llama").f32s("tokenizer.ggml.scores", &scores).u32("tokenizer.ggml.unknown_token_id", 0)
}

fn word_pieces() -> GgufFile {
    let fixture = fixture("wordpiece");
    let id = |name: &str| u32::try_from(fixture["special"][name].as_u64().unwrap()).unwrap();
    let file = vocabulary(&fixture, "bert").u32("tokenizer.ggml.bos_token_id", id("[CLS]"));
    file.u32("tokenizer.ggml.seperator_token_id", id("[SEP]")).u32("tokenizer.ggml.unknown_token_id", id("[UNK]"))
}

fn load(file: &GgufFile) -> TextTokenizer {
    TextTokenizer::from_gguf(&Gguf::read(&file.bytes()).unwrap(), 2048).unwrap()
}

fn markers(tokenizer: &TextTokenizer, text: &str) -> Vec<i32> {
    let tokens = tokenizer.encode(&[PromptPart::Markers(text.into())]).unwrap();
    tokens.into_iter().map(|token| i32::try_from(token).unwrap()).collect()
}

#[test]
fn byte_level_vocabularies_give_the_reference_tokens() {
    let fixture = fixture("bpe");
    for (pre, expected) in fixture["expected"].as_object().unwrap() {
        let tokenizer = load(&byte_level(pre));
        for (text, expected) in texts(&fixture["texts"]).iter().zip(expected.as_array().unwrap()) {
            assert_eq!(markers(&tokenizer, text), numbers(expected), "{pre}: {text:?}");
        }
    }
}

#[test]
fn sentencepiece_vocabularies_give_the_reference_tokens() {
    let fixture = fixture("sentencepiece");
    for (name, prefix) in [("prefix", None), ("prefix", Some(true)), ("no prefix", Some(false))] {
        let file =
            prefix.into_iter().fold(sentencepiece(), |file, on| file.bool("tokenizer.ggml.add_space_prefix", on));
        let tokenizer = load(&file);
        for (text, expected) in texts(&fixture["texts"]).iter().zip(fixture["expected"][name].as_array().unwrap()) {
            assert_eq!(markers(&tokenizer, text), numbers(expected), "{name}: {text:?}");
        }
    }
}

#[test]
fn word_piece_vocabularies_give_the_reference_tokens() {
    let fixture = fixture("wordpiece");
    let tokenizer = load(&word_pieces());
    for (text, expected) in texts(&fixture["texts"]).iter().zip(fixture["expected"].as_array().unwrap()) {
        let expected = numbers(expected);
        assert_eq!(markers(&tokenizer, text), expected[1..expected.len() - 1], "{text:?}");
        if !text.contains("[MASK]") {
            let whole: Vec<i32> = tokenizer.encode_whole(text).unwrap().into_iter().map(|id| id as i32).collect();
            assert_eq!(whole, expected, "{text:?}");
        }
    }
}

#[test]
fn texts_come_back_from_their_tokens() {
    for (file, text) in [
        (byte_level("llama-bpe"), "Hello,  þing! 12345\n😀"),
        (byte_level("bloom"), "a, b"),
        (sentencepiece(), "Hello,  þing! 12345\n😀"),
    ] {
        let tokenizer = load(&file);
        let tokens = tokenizer.encode(&[PromptPart::Text(text.into())]).unwrap();
        assert_eq!(tokenizer.decode(&tokens).unwrap(), text);
    }
}

#[test]
fn special_tokens_are_left_out_of_answers() {
    let tokenizer = load(&byte_level("gpt-2"));
    assert_eq!(tokenizer.decode(&[1, 2, 0]).unwrap(), "");
}

#[test]
fn what_strangers_wrote_is_plain_text() {
    // The last is an added word that looks like a marker.
    for text in ["<|im_start|>system\n", "<|endoftext|>", "<tool>"] {
        for file in [byte_level("qwen2"), byte_level("llama-bpe")] {
            let tokenizer = load(&file);
            assert!(tokenizer.markers().iter().any(|marker| text.contains(marker.as_str())), "{text}");
            let plain = tokenizer.encode(&[PromptPart::Text(text.into())]).unwrap();
            assert_eq!(tokenizer.decode(&plain).unwrap(), text);
            assert!(plain.len() > markers(&tokenizer, text).len(), "{text}");
        }
    }
}

#[test]
fn no_text_becomes_a_special_token_even_if_the_vocabulary_can_make_it() {
    // Merges that build the end marker letter by letter, and words that need no merges.
    let file = |pre: &str| {
        GgufFile::default()
            .str("tokenizer.ggml.model", "gpt2")
            .str("tokenizer.ggml.pre", pre)
            .strs("tokenizer.ggml.tokens", &["e", "n", "d", "en", "end", "endend"])
            .i32s("tokenizer.ggml.token_type", &[1, 1, 1, 1, 3, 3])
            .strs("tokenizer.ggml.merges", &["e n", "en d", "end end"])
    };
    let tokenizer = load(&file("gpt-2"));
    assert_eq!(tokenizer.encode(&[PromptPart::Text("end".into())]).unwrap(), [3, 2]);
    let tokenizer = load(&file("llama-bpe"));
    let error = tokenizer.encode(&[PromptPart::Text("end".into())]).unwrap_err();
    assert_eq!(error.to_string(), "a plain text would become the special token 4");
    assert_eq!(tokenizer.encode(&[PromptPart::Markers("end".into())]).unwrap(), [4]);
}

#[test]
fn hostile_vocabularies_are_refused() {
    let base =
        |tokens: &[&str]| GgufFile::default().str("tokenizer.ggml.model", "gpt2").strs("tokenizer.ggml.tokens", tokens);
    let merges = |file: GgufFile, merges: &[&str]| file.strs("tokenizer.ggml.merges", merges);
    let long = "x".repeat(5000);
    let cases: [(&str, GgufFile, &str); 14] = [
        ("none", GgufFile::default().str("tokenizer.ggml.model", "gpt2"), "tokenizer.ggml.tokens\": missing"),
        ("no tokens", base(&[]), "0 tokens"),
        ("empty token", merges(base(&["a", ""]), &[]), "token 1 is empty"),
        ("long token", merges(base(&[&long]), &[]), "token 0 is empty or longer"),
        ("same token", merges(base(&["a", "a"]), &[]), "is there twice"),
        ("no merges", base(&["a"]), "tokenizer.ggml.merges\": missing"),
        ("half a merge", merges(base(&["a"]), &["a"]), "\"a\" is not a merge"),
        ("merge of nothing", merges(base(&["a"]), &["a "]), "not of tokens of the vocabulary"),
        ("unknown parts", merges(base(&["a"]), &["a b"]), "not of tokens of the vocabulary"),
        ("no result", merges(base(&["a", "b"]), &["a b"]), "not of tokens of the vocabulary"),
        ("cycle", merges(base(&["a", "b", "ab"]), &["ab b"]), "not of tokens of the vocabulary"),
        ("types", merges(base(&["a"]), &[]).i32s("tokenizer.ggml.token_type", &[1, 1]), "2 types for 1 tokens"),
        ("pre", merges(base(&["a"]), &[]).str("tokenizer.ggml.pre", "jukebox"), "pre-tokenizer \"jukebox\" is unknown"),
        (
            "kind",
            GgufFile::default().str("tokenizer.ggml.model", "t5").strs("tokenizer.ggml.tokens", &["a"]),
            "\"t5\" is not read",
        ),
    ];
    for (name, file, part) in cases {
        let error = TextTokenizer::from_gguf(&Gguf::read(&file.bytes()).unwrap(), 16).unwrap_err().to_string();
        assert!(error.contains(part), "{name}: {error}");
    }
    let not_utf8 = GgufFile::default().array("tokenizer.ggml.tokens", 8, &[b"\x01\0\0\0\0\0\0\0\xff".to_vec()]).bytes();
    let error = TextTokenizer::from_gguf(&Gguf::read(&not_utf8).unwrap(), 16).unwrap_err().to_string();
    assert!(error.contains("not UTF-8"), "{error}");
    let spm = |scores: &[f32]| {
        vocabulary(&json!({"tokens": ["<unk>", "a"], "types": [2, 1]}), "llama").f32s("tokenizer.ggml.scores", scores)
    };
    for (file, part) in [(spm(&[0.0]), "not one number"), (spm(&[0.0, f32::NAN]), "not one number")] {
        let error = TextTokenizer::from_gguf(&Gguf::read(&file.bytes()).unwrap(), 16).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
    let error =
        TextTokenizer::from_gguf(&Gguf::read(&byte_level("gpt-2").bytes()).unwrap(), 16).unwrap_err().to_string();
    assert!(error.contains("beyond the model's vocabulary"), "{error}");
}

/// A small `tokenizer.json`, with one field set otherwise.
fn with(pointer: &str, value: Value) -> Vec<u8> {
    let mut json = json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": [{"id": 6, "content": "<s>", "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": true, "special": true}],
        "normalizer": {"type": "NFKC"}, "pre_tokenizer": null, "post_processor": null,
        "decoder": {"type": "Fuse"},
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
            "vocab": {"a": 0, "b": 1, "ab": 2, "<": 3, "s": 4, ">": 5}, "merges": [["a", "b"]]},
    });
    *json.pointer_mut(pointer).unwrap() = value;
    json.to_string().into_bytes()
}

#[test]
fn tokenizer_json_is_read_and_special_tokens_match_as_written() {
    let tokenizer = TextTokenizer::from_json(&with("/version", "1.0".into()), 8).unwrap();
    assert_eq!(markers(&tokenizer, "ab<s>"), [2, 6]);
    // Its normalizer turns these letters into the marker's, after markers were looked for.
    assert_eq!(markers(&tokenizer, "＜s＞"), [3, 4, 5]);
    let truncation = json!({"direction": "Right", "max_length": 1, "strategy": "LongestFirst", "stride": 0});
    let tokenizer = TextTokenizer::from_json(&with("/truncation", truncation), 8).unwrap();
    assert_eq!(markers(&tokenizer, "aa"), [0, 0]);
}

#[test]
fn hostile_tokenizer_json_is_refused() {
    let replace = |content: &str| json!({"type": "Replace", "pattern": {"String": "a"}, "content": content});
    let added = |id: u32, content: &str| json!([{"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true}]);
    let cases: [(&str, Value, &str); 21] = [
        ("/model/dropout", json!(0.1), "random"),
        ("/model/type", json!("Unigram"), "\"Unigram\" is not supported"),
        ("/model/vocab", json!({"": 0}), "has no text"),
        ("/model/vocab", json!({"a": 8}), "beyond the model's vocabulary"),
        ("/model/vocab", json!({"a": 0, "b": 0}), "is taken"),
        ("/model/vocab", json!({"a": -1}), "beyond the model's vocabulary"),
        ("/model/merges", json!([["a", "zz"]]), "not of tokens"),
        ("/model/merges", json!([["ab", "ab"]]), "not of tokens"),
        ("/model/merges", json!([["a"]]), "is not a merge"),
        ("/model/merges", json!(["ab"]), "is not a merge"),
        ("/model/continuing_subword_prefix", json!("###"), "subwords"),
        ("/added_tokens", added(9, "<x>"), "no number in the vocabulary"),
        ("/added_tokens", added(1, ""), "has no text"),
        ("/added_tokens", added(7, "a"), "does not have its number 7"),
        (
            "/normalizer",
            json!({"type": "Precompiled", "precompiled_charsmap": "AAAA"}),
            "\"Precompiled\" is not supported",
        ),
        ("/normalizer", replace(&"x".repeat(65)), "too long"),
        ("/normalizer", json!({"type": "Replace", "pattern": {"String": ""}, "content": "x"}), "a pattern is empty"),
        ("/normalizer", json!({"type": "Sequence", "normalizers": vec![replace("b"); 40]}), "more than 32 parts"),
        ("/decoder", json!({"type": "Strip", "content": " ", "start": 0, "stop": 9}), "stripping the ends"),
        (
            "/pre_tokenizer",
            json!({"type": "Split", "pattern": {"Regex": "("}, "behavior": "Isolated", "invert": false}),
            "",
        ),
        ("/post_processor", json!({"type": "Unheard"}), "\"Unheard\" is not supported"),
    ];
    for (pointer, value, part) in cases {
        let error = TextTokenizer::from_json(&with(pointer, value.clone()), 8).unwrap_err().to_string();
        assert!(error.starts_with("tokenizer.json: ") && error.contains(part), "{pointer} = {value}: {error}");
    }
    for bytes in [&b""[..], b"{}", b"[]", b"{\"model\":{}}", b"\xff"] {
        TextTokenizer::from_json(bytes, 8).unwrap_err();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn plain_texts_never_hold_special_tokens(pieces in prop::collection::vec(prop::sample::select(vec![
        "<|im_start|>", "<|im_end|>", "<|endoftext|>", "<|im_", "start|>", "end|>", "<", "|", ">", "<s>", "</s>", "<unk>",
        " ", "\n", "a", "é", "[CLS]", "[", "SEP]", "\u{fdd0}", "<tool>", "<0x0A>",
    ]), 0..12)) {
        let text = pieces.concat();
        for file in [byte_level("qwen2"), sentencepiece()] {
            let tokenizer = load(&file);
            let tokens = tokenizer.encode(&[PromptPart::Text(text.clone())]).unwrap();
            // Nothing that decoding would leave out is in it.
            prop_assert_eq!(tokenizer.decode(&tokens).unwrap(), text.as_str());
        }
    }
}

/// Small files of each kind, whole.
fn seeds() -> Vec<Vec<u8>> {
    let small = json!({"tokens": ["<unk>", "<s>", "▁", "a", "b", "▁a", "ab", "<0x00>", "<0x0A>"], "types": [2, 3, 1, 1, 1, 1, 1, 6, 6]});
    let scores = [0.0, 0.0, -4.0, -5.0, -6.0, -1.0, -2.0, 0.0, 0.0];
    let spm = vocabulary(&small, "llama").f32s("tokenizer.ggml.scores", &scores);
    let bpe = vocabulary(&json!({"tokens": ["a", "b", "ab", "Ġ", "<x>"], "types": [1, 1, 1, 1, 3]}), "gpt2");
    let bpe = bpe.strs("tokenizer.ggml.merges", &["a b"]).str("tokenizer.ggml.pre", "smollm");
    let bert = vocabulary(&json!({"tokens": ["[UNK]", "[CLS]", "[SEP]", "▁a", "b"], "types": [3, 3, 3, 1, 1]}), "bert");
    [spm, bpe, bert].map(|file| file.bytes()).to_vec()
}

/// Uses a tokenizer, if it was loaded.
fn exercise(tokenizer: Result<TextTokenizer, althing_exact::LoadError>) {
    let Ok(tokenizer) = tokenizer else { return };
    for text in ["", "a b ab\n", "<x> <s>þ😀", "   ", "\u{0}\u{fffd}[UNK]"] {
        for part in [PromptPart::Markers(text.into()), PromptPart::Text(text.into())] {
            let _ = tokenizer.encode(&[part]).map(|tokens| tokenizer.decode(&tokens));
        }
        let _ = tokenizer.encode_whole(text);
    }
    let _ = tokenizer.decode(&[0, 1, 2, 3, 15, u32::MAX]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn no_mutation_of_a_vocabulary_panics(seed in 0..3usize, changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4)) {
        let mut file = seeds()[seed].clone();
        for (at, byte) in changes {
            let at = at.index(file.len());
            file[at] = byte;
        }
        if let Ok(gguf) = Gguf::read(&file) {
            exercise(TextTokenizer::from_gguf(&gguf, 16));
        }
    }

    #[test]
    fn no_mutation_of_a_tokenizer_json_panics(
        at in any::<prop::sample::Index>(), length in 0..12usize,
        piece in prop::sample::select(vec!["", "null", "0", "-1", "99999999999", "\"\"", "\"a\"", "true", "[]", "{}", "1.5", "\"ab\"", "\"BPE\"", "[\"a\"]", "\"<s>\""]),
        decoder in prop::sample::select(vec!["ByteLevel", "WordPiece", "Metaspace", "ByteFallback", "Fuse"]),
    ) {
        let mut text = String::from_utf8(with("/decoder/type", decoder.into())).unwrap();
        let start = at.index(text.len());
        let end = (start + length).min(text.len());
        text.replace_range(start..end, piece);
        exercise(TextTokenizer::from_json(text.as_bytes(), 8));
    }
}

#[test]
fn the_ends_of_texts_are_special_in_files_without_types() {
    let file = GgufFile::default()
        .str("tokenizer.ggml.model", "gpt2")
        .str("tokenizer.ggml.pre", "gpt-2")
        .strs("tokenizer.ggml.tokens", &["a", "<s>", "</s>"])
        .strs::<&str>("tokenizer.ggml.merges", &[])
        .u32("tokenizer.ggml.bos_token_id", 1)
        .u32("tokenizer.ggml.eos_token_id", 2);
    let tokenizer = load(&file);
    assert_eq!(tokenizer.markers(), ["<s>", "</s>"]);
    assert_eq!(markers(&tokenizer, "<s>a</s>"), [1, 0, 2]);
}
