//! A classifier: takes `{"text": "…"}` and says which language it is in, and how likely each is.
//!
//! One linear layer over how often each three letters occur, hashed into as many features as the matrix
//! has inputs. `train.py` makes the weights; it counts in the same way.

use althing_guest::{
    Blob, emit, guest, input,
    math::{Tensor, softmax},
    refuse,
};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, sync::OnceLock};

/// Letters of a text that are looked at.
const LETTERS_MAX: usize = 10_000;

struct Model {
    weight: Tensor,
    bias: Tensor,
    labels: Vec<String>,
}

static MODEL: OnceLock<Model> = OnceLock::new();

#[derive(Deserialize)]
struct Input {
    text: String,
}

#[derive(Serialize)]
struct Output<'a> {
    language: &'a str,
    /// Of each language, in thousandths.
    likelihood: BTreeMap<&'a str, u32>,
}

fn init() {
    let tensor = |name: &str| Tensor::open(name).unwrap_or_else(|| refuse(&format!("the weights have no {name}")));
    let labels = Blob::open("labels.json").map(Blob::read).and_then(|file| serde_json::from_slice(&file).ok());
    let labels: Vec<String> = labels.unwrap_or_else(|| refuse("labels.json is no list of labels"));
    let (weight, bias) = (tensor("weight"), tensor("bias"));
    if weight.rows() != labels.len() || bias.columns() != labels.len() {
        refuse("there are not as many labels as outputs");
    }
    assert!(MODEL.set(Model { weight, bias, labels }).is_ok(), "init runs once");
}

fn run() {
    let Model { weight, bias, labels } = MODEL.get().expect("init ran");
    let Ok(Input { text }) = serde_json::from_slice(&input()) else {
        refuse(r#"the input is {"text": "…"}"#);
    };
    let mut scores = vec![0.0; labels.len()];
    weight.multiply(&features(&text, weight.columns()), &mut scores);
    bias.add_to(&mut scores);
    softmax(&mut scores);
    let best = (0..scores.len()).rev().max_by(|one, other| scores[*one].total_cmp(&scores[*other]));
    let thousandths = |score: &f32| (score * 1000.0).round() as u32;
    let output = Output {
        language: best.map_or("", |best| &labels[best]),
        likelihood: labels.iter().map(String::as_str).zip(scores.iter().map(thousandths)).collect(),
    };
    emit(&serde_json::to_vec(&output).expect("texts and numbers are always JSON"));
}

/// How often each three letters occur, as a vector of length 1.
fn features(text: &str, count: usize) -> Vec<f32> {
    let words = text.split(|c: char| !c.is_alphabetic()).filter(|word| !word.is_empty());
    let mut letters = vec![' '];
    for word in words {
        letters.extend(word.chars().flat_map(char::to_lowercase));
        letters.push(' ');
    }
    letters.truncate(LETTERS_MAX);
    let mut features = vec![0.0f32; count];
    for three in letters.windows(3) {
        features[hash(three) as usize % count] += 1.0;
    }
    let length = features.iter().map(|x| x * x).sum::<f32>().sqrt();
    if length > 0.0 {
        features.iter_mut().for_each(|x| *x /= length);
    }
    features
}

/// FNV-1a of the letters as UTF-8.
fn hash(letters: &[char]) -> u32 {
    let text: String = letters.iter().collect();
    text.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

guest!(run, init = init);
