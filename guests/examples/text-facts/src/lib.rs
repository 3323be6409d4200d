//! The smallest useful guest: takes `{"text": "…"}` and gives facts about the text, as JSON.

use althing_guest::{emit, guest, input, refuse};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Words of the list of the most frequent.
const FREQUENT_MAX: usize = 5;

#[derive(Deserialize)]
struct Input {
    text: String,
}

#[derive(Serialize)]
struct Facts {
    characters: usize,
    words: usize,
    sentences: usize,
    longest_word: String,
    /// The most frequent words with their counts, the most frequent first.
    frequent: Vec<(String, usize)>,
}

fn run() {
    let Ok(Input { text }) = serde_json::from_slice(&input()) else {
        refuse(r#"the input is {"text": "…"}"#);
    };
    let words: Vec<String> = text
        .split(|c: char| !c.is_alphanumeric() && c != '\'')
        .filter(|word| !word.is_empty())
        .map(str::to_lowercase)
        .collect();
    let mut counts = BTreeMap::new();
    for word in &words {
        *counts.entry(word.clone()).or_insert(0) += 1;
    }
    let mut frequent: Vec<(String, usize)> = counts.into_iter().collect();
    // Of words that are as frequent, the first in the alphabet comes first.
    frequent.sort_by(|one, other| other.1.cmp(&one.1).then_with(|| one.0.cmp(&other.0)));
    frequent.truncate(FREQUENT_MAX);
    let ends = |part: &&str| part.chars().any(char::is_alphanumeric);
    let facts = Facts {
        characters: text.chars().count(),
        words: words.len(),
        sentences: text.split(['.', '!', '?', '…']).filter(ends).count(),
        longest_word: words.iter().rev().max_by_key(|word| word.chars().count()).cloned().unwrap_or_default(),
        frequent,
    };
    emit(&serde_json::to_vec(&facts).expect("texts and numbers are always JSON"));
}

guest!(run);
