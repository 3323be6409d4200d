//! A small Llama as a guest: the network, the tokenizer and the form of conversations are its own, the heavy
//! mathematics the host's.
//!
//! Its package has `config.json`, `tokenizer.json` and `model.safetensors` of a Llama whose tokenizer is a
//! byte-level BPE, and `chat.json`, which says how conversations are written.

mod network;
mod tokenizer;

use althing_guest::{
    Blob, emit, finish, guest, input, log,
    math::{Sampler, Sampling},
    refuse,
};
use network::Network;
use serde::{Deserialize, de::DeserializeOwned};
use std::sync::OnceLock;
use tokenizer::Tokenizer;

/// `chat.json`
#[derive(Debug, Deserialize)]
struct Chat {
    user: [String; 2],
    assistant: [String; 2],
    answer: String,
    max_tokens: usize,
    temperature: f32,
    top_k: u32,
}

/// What the chat interface takes.
#[derive(Debug, Deserialize)]
struct Input {
    messages: Vec<Message>,
    max_tokens: Option<usize>,
    temperature: Option<f32>,
    top_p: Option<f32>,
    #[serde(default)]
    stop: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Message {
    role: String,
    content: String,
}

struct Model {
    network: Network,
    tokenizer: Tokenizer,
    chat: Chat,
}

static MODEL: OnceLock<Model> = OnceLock::new();

fn file<T: DeserializeOwned>(name: &str) -> T {
    let blob = Blob::open(name).unwrap_or_else(|| refuse(&format!("the package has no {name}")));
    serde_json::from_slice(&blob.read()).unwrap_or_else(|error| refuse(&format!("{name}: {error}")))
}

fn init() {
    let network = Network::open(file("config.json"));
    let tokenizer = Tokenizer::new(file("tokenizer.json"));
    log(&format!("a Llama of {} layers", network.layers()));
    let model = Model { network, tokenizer, chat: file("chat.json") };
    assert!(MODEL.set(model).is_ok(), "init runs once");
}

fn run() {
    let Model { network, tokenizer, chat } = MODEL.get().expect("init ran");
    let input: Input = serde_json::from_slice(&input()).unwrap_or_else(|_| refuse("the input is not a chat input"));
    if input.messages.is_empty() {
        refuse("there is no message");
    }
    let mut prompt = Vec::new();
    for message in &input.messages {
        let [before, after] = match message.role.as_str() {
            "user" => &chat.user,
            "assistant" => &chat.assistant,
            _ => refuse("this model takes no system messages"),
        };
        prompt.extend(tokenizer.special(before));
        tokenizer.encode(&message.content, &mut prompt);
        prompt.extend(tokenizer.special(after));
    }
    prompt.extend(tokenizer.special(&chat.answer));
    if prompt.len() >= network.context_tokens() {
        refuse("the conversation is longer than the model's context");
    }
    let max_tokens = input.max_tokens.unwrap_or(chat.max_tokens).min(network.context_tokens() - prompt.len());
    let sampling = Sampling {
        temperature: input.temperature.unwrap_or(chat.temperature),
        top_p: input.top_p.unwrap_or(1.0),
        top_k: chat.top_k,
        ..Sampling::default()
    };
    let mut sampler = Sampler::open(&sampling).unwrap_or_else(|| refuse("these are no numbers to choose by"));
    let mut state = network.state();
    let (mut answer, mut text, mut said) = (Vec::new(), Vec::new(), 0);
    let mut logits = network.forward(&mut state, &prompt);
    let by_length = loop {
        if answer.len() == max_tokens {
            break true;
        }
        let token = sampler.next(logits, &prompt, &answer);
        if network.is_end(token) {
            break false;
        }
        answer.push(token);
        text.extend_from_slice(tokenizer.bytes(token));
        if let Some(at) = first_stop(&text, &input.stop) {
            text.truncate(at);
            break false;
        }
        // What might begin a stop text is held back until it is certain.
        let certain = certain(&text, &input.stop);
        if certain > said {
            emit(&text[said..certain]);
            said = certain;
        }
        logits = network.forward(&mut state, &[token]);
    };
    if said < text.len() {
        emit(&text[said..]);
    }
    let count = |tokens: &[u32]| u32::try_from(tokens.len()).unwrap_or(u32::MAX);
    finish(by_length, count(&prompt), count(&answer));
}

fn first_stop(text: &[u8], stops: &[String]) -> Option<usize> {
    let at = |stop: &String| text.windows(stop.len().max(1)).position(|part| part == stop.as_bytes());
    stops.iter().filter_map(at).min()
}

/// How much of the text cannot belong to a stop text any more.
fn certain(text: &[u8], stops: &[String]) -> usize {
    let held = |stop: &String| (1..stop.len()).rev().find(|len| text.ends_with(&stop.as_bytes()[..*len])).unwrap_or(0);
    text.len() - stops.iter().map(held).max().unwrap_or(0)
}

guest!(run, init = init);
