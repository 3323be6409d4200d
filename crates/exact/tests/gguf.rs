//! GGUF files, from makers and from attackers.

#![allow(clippy::unwrap_used)] // helpers of tests

mod common;

use althing_exact::{
    Format,
    gguf::{Gguf, GgufError, GgufTensors},
    tensors::{Tensor, TensorSource},
};
use common::GgufFile;
use proptest::prelude::*;

fn sample() -> GgufFile {
    GgufFile::default()
        .str("general.architecture", "llama")
        .u32("small", 7)
        .raw("byte", 0, &[200])
        .raw("negative", 1, &[0xfe])
        .raw("wide", 10, &7u64.to_le_bytes())
        .raw("too wide", 10, &(1u64 << 40).to_le_bytes())
        .f32("float", 0.5)
        .raw("double", 12, &0.25f64.to_le_bytes())
        .bool("yes", true)
        .raw("not a bool", 7, &[2])
        .raw("not utf-8", 8, b"\x01\0\0\0\0\0\0\0\xff")
        .strs("texts", &["", "þing", "x"])
        .i32s("numbers", &[-1, 0, 3])
        .f32s("floats", &[1.5, -2.0])
        .tensor("token_embd.weight", &[32, 3], 8, &[1; 102])
        .tensor("blk.0.attn_q.weight", &[2, 3], 0, &[2; 24])
        .tensor("output.weight", &[256, 1], 13, &[3; 176])
}

#[test]
fn metadata_comes_in_the_asked_type_or_is_an_error_that_names_the_key() {
    let file = sample().bytes();
    let gguf = Gguf::read(&file).unwrap();
    for (key, expected) in [("small", Some(7)), ("byte", Some(200)), ("wide", Some(7)), ("absent", None)] {
        assert_eq!(gguf.u32(key), Ok(expected), "{key}");
    }
    assert_eq!(gguf.f32("float"), Ok(Some(0.5)));
    assert_eq!(gguf.f32("double"), Ok(Some(0.25)));
    assert_eq!(gguf.bool("yes"), Ok(Some(true)));
    assert_eq!(gguf.str("general.architecture"), Ok(Some("llama")));
    assert_eq!(gguf.strs("texts"), Ok(Some(vec!["", "þing", "x"])));
    assert_eq!(gguf.i32s("numbers"), Ok(Some(vec![-1, 0, 3])));
    assert_eq!(gguf.f32s("floats"), Ok(Some(vec![1.5, -2.0])));
    assert_eq!(gguf.u32_or_u32s("small"), Ok(Some(vec![7])));
    let errors = [
        (gguf.u32("negative").unwrap_err(), "negative", "-2 is out of range"),
        (gguf.u32("too wide").unwrap_err(), "too wide", "1099511627776 is out of range"),
        (gguf.u32("float").unwrap_err(), "float", "not an integer"),
        (gguf.u32("texts").unwrap_err(), "texts", "an array, where one value is expected"),
        (gguf.f32("small").unwrap_err(), "small", "not a float"),
        (gguf.bool("not a bool").unwrap_err(), "not a bool", "not a bool"),
        (gguf.str("not utf-8").unwrap_err(), "not utf-8", "not UTF-8"),
        (gguf.strs("small").unwrap_err(), "small", "not an array of strings"),
        (gguf.u32s("numbers").unwrap_err(), "numbers", "not an array of unsigned integers"),
        (gguf.f32s("texts").unwrap_err(), "texts", "not an array of floats"),
    ];
    for (error, key, why) in errors {
        assert_eq!(error, GgufError::key(key, why));
    }
}

#[test]
fn tensors_have_their_names_shapes_and_bytes() {
    let file = sample().bytes();
    let gguf = Gguf::read(&file).unwrap();
    let source = GgufTensors::new(&gguf).unwrap();
    let embedding = Tensor { format: Format::Q8_0, shape: vec![3, 32], data: &[1; 102] };
    assert_eq!(source.tensor("model.embed_tokens.weight").unwrap(), Some(embedding));
    let query = Tensor { format: Format::F32, shape: vec![3, 2], data: &[2; 24] };
    assert_eq!(source.tensor("model.layers.0.self_attn.q_proj.weight").unwrap(), Some(query));
    assert_eq!(source.tensor("model.layers.1.self_attn.q_proj.weight").unwrap(), None);
    let error = source.tensor("lm_head.weight").unwrap_err().to_string();
    assert!(error.contains("Q5_K") && error.contains("output.weight") && error.contains("Q8_0"), "{error}");
}

#[test]
fn tensors_that_the_architecture_has_not_are_refused() {
    let file = sample().zeros("blk.0.ffn_gate_exps.weight", &[2]).bytes();
    let error = GgufTensors::new(&Gguf::read(&file).unwrap()).unwrap_err().to_string();
    assert!(error.contains("blk.0.ffn_gate_exps.weight"), "{error}");
}

/// The sample's bytes with some replaced.
fn patched(at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut file = sample().bytes();
    file[at..at + bytes.len()].copy_from_slice(bytes);
    file
}

#[test]
fn malformed_files_are_refused_by_what_is_wrong() {
    let one = GgufFile::default();
    let huge = u64::MAX.to_le_bytes();
    let cases: [(&str, Vec<u8>, &str); 18] = [
        ("empty", vec![], "not a GGUF file"),
        ("magic", b"GGML\x03\0\0\0".to_vec(), "not a GGUF file"),
        ("version 1", b"GGUF\x01\0\0\0".to_vec(), "version 1 is not read"),
        ("big-endian", b"GGUF\0\0\0\x03".to_vec(), "version 50331648 is not read"),
        ("no counts", b"GGUF\x03\0\0\0".to_vec(), "inside the number of tensors"),
        ("tensors", patched(8, &huge), "the number of tensors = 18446744073709551615"),
        ("entries", patched(16, &huge), "the number of metadata entries = 18446744073709551615"),
        ("key length", patched(24, &huge), "inside a metadata key"),
        ("kind", one.clone().raw("k", 13, &[]).bytes(), "unknown value type 13"),
        ("nested", one.clone().array("k", 9, &[vec![0; 12]]).bytes(), "arrays of arrays"),
        (
            "array length",
            one.clone().raw("k", 9, &[&[0, 0, 0, 0], huge.as_slice()].concat()).bytes(),
            "the elements of k",
        ),
        ("twice", one.clone().u32("k", 1).u32("k", 2).bytes(), "\"k\": given twice"),
        ("alignment", one.clone().u32("general.alignment", 24).bytes(), "24 is not a power of two"),
        ("tensor twice", one.clone().zeros("t", &[1]).zeros("t", &[1]).bytes(), "\"t\": given twice"),
        ("zero dimension", one.clone().tensor("t", &[0], 0, &[]).bytes(), "zero or too large"),
        ("overflow", one.clone().tensor("t", &[1 << 40, 1 << 40], 0, &[]).bytes(), "dimensions overflow"),
        ("block", one.clone().tensor("t", &[33], 8, &[0; 68]).bytes(), "rows of 33 elements"),
        ("data", one.clone().tensor("t", &[1 << 20], 0, &[0; 64]).bytes(), "its data ends beyond the file"),
    ];
    for (name, file, part) in cases {
        let error = Gguf::read(&file).unwrap_err().to_string();
        assert!(error.contains(part), "{name}: {error}");
    }
    let deep = one.tensor("t", &[1, 1, 1, 1, 1], 0, &[0; 4]).bytes();
    assert!(Gguf::read(&deep).unwrap_err().to_string().contains("5 dimensions"));
}

/// Calls all that reads, so that nothing in the file is left untouched.
fn read_everything(file: &[u8]) {
    let Ok(gguf) = Gguf::read(file) else { return };
    for key in gguf.keys() {
        let _ = (gguf.u32(key), gguf.f32(key), gguf.bool(key), gguf.str(key));
        let _ = (gguf.strs(key), gguf.u32s(key), gguf.i32s(key), gguf.f32s(key), gguf.u32_or_u32s(key));
    }
    for name in gguf.tensor_names() {
        if let Ok(Some(tensor)) = gguf.tensor(name) {
            let (k, rows) = tensor.shape.split_last().unwrap();
            assert_eq!(tensor.data.len(), rows.iter().product::<usize>() * tensor.format.row_bytes(*k));
        }
    }
    let _ = GgufTensors::new(&gguf);
    let _ = althing_exact::LlamaConfig::from_gguf(&gguf);
    let _ = althing_exact::tokenizer::TextTokenizer::from_gguf(&gguf, 64);
}

#[test]
fn every_truncation_is_an_error_or_reads() {
    let file = sample().bytes();
    for length in 0..file.len() {
        read_everything(&file[..length]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn no_mutation_panics(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..12), cut in any::<prop::sample::Index>(), truncate: bool) {
        let mut file = sample().bytes();
        for (at, byte) in changes {
            let at = at.index(file.len());
            file[at] = byte;
        }
        if truncate {
            file.truncate(cut.index(file.len()));
        }
        read_everything(&file);
    }

    #[test]
    fn no_number_panics(at in any::<prop::sample::Index>(), number in prop::sample::select(vec![0, 1, u64::MAX, u64::MAX / 2, u64::MAX - 31, 1 << 32, 1 << 63, 1 << 22])) {
        let mut file = sample().bytes();
        let at = at.index(file.len() - 8);
        file[at..at + 8].copy_from_slice(&number.to_le_bytes());
        read_everything(&file);
    }
}
