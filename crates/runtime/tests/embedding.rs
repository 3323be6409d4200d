//! Embedding packages: from either kind of file, and with an output for every input.

use althing_runtime::{EmbeddingInput, EmbeddingOutput, Interface, Package, load};
use std::path::{Path, PathBuf};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../exact/tests/fixtures").join(name)
}

#[test]
fn files_of_an_embedding_model_make_a_package_of_that_interface() {
    let input = EmbeddingInput { texts: vec!["free men met".into(), "once a year".into()] }.to_bytes();
    let outputs = ["bert.gguf", "bert"].map(|name| {
        let package = Package::from_path(&fixture(name)).unwrap();
        assert_eq!(
            (package.manifest.interface.as_str(), package.manifest.runtime.as_str()),
            ("embedding", "exact-bert/1")
        );
        let engine = load(&package, 1).unwrap();
        assert_eq!(engine.interface(), Interface::Embedding);
        assert!(engine.weights_bytes() > 0);
        let mut pieces = 0;
        let output = engine.run(&input, 7, &mut |_| {
            pieces += 1;
            true
        });
        assert_eq!(pieces, 0, "vectors come whole");
        output.unwrap()
    });
    assert_eq!(outputs[0], outputs[1]);
    let EmbeddingOutput::Vectors { vectors, prompt_tokens } = EmbeddingOutput::parse(&outputs[0]).unwrap() else {
        panic!("vectors")
    };
    assert!(
        prompt_tokens > 4 && vectors.len() == 2 && vectors.iter().all(|vector| vector.values().unwrap().len() == 16)
    );
}

#[test]
fn an_output_is_no_longer_than_the_package_allows() {
    let package = Package::from_path(&fixture("bert")).unwrap();
    let mut files = package.files().clone();
    let manifest = String::from_utf8(files["model.toml"].clone()).unwrap();
    files.insert("model.toml".into(), manifest.replace("output_bytes_max = 2097152", "output_bytes_max = 250").into());
    let engine = load(&Package::from_files(files).unwrap(), 1).unwrap();
    let run = |count: usize| {
        let input = EmbeddingInput { texts: vec!["law".into(); count] }.to_bytes();
        EmbeddingOutput::parse(&engine.run(&input, 0, &mut |_| true).unwrap()).unwrap()
    };
    assert!(matches!(run(2), EmbeddingOutput::Vectors { .. }));
    assert!(matches!(run(3), EmbeddingOutput::Refusal { error } if error.message.contains("250 bytes")));
}

#[test]
fn every_input_has_an_output() {
    let engine = load(&Package::from_path(&fixture("bert")).unwrap(), 1).unwrap();
    let long = format!(r#"{{"texts":["{}"]}}"#, "law ".repeat(70));
    let many = format!(r#"{{"texts":[{}]}}"#, vec![r#""a""#; 257].join(","));
    for (input, code, message) in [
        ("", "invalid_input", "not an embedding input"),
        (r#"{"messages":[]}"#, "invalid_input", "not an embedding input"),
        (r#"{"texts":[]}"#, "invalid_input", "1 to 256 texts"),
        (&many, "invalid_input", "1 to 256 texts"),
        (&long, "context_length_exceeded", "text 0 has 72"),
    ] {
        let output = engine.run(input.as_bytes(), 0, &mut |_| true).unwrap();
        let EmbeddingOutput::Refusal { error } = EmbeddingOutput::parse(&output).unwrap() else { panic!("{input}") };
        assert!(error.code == code && error.message.contains(message), "{error:?}");
    }
    assert_eq!(engine.measure(long.as_bytes()), Some((72, 64)));
    assert!(engine.measure(br#"{"texts":["a","free men"]}"#).is_some_and(|(tokens, context)| tokens < context));
    assert_eq!(engine.measure(b""), None);
}
