//! What the sandbox costs: a Llama of some 110 million weights as a guest and on the native engine, from the same
//! files in one run; and how long a run takes to begin.
//!
//! `guests/build.sh && cargo bench -p althing-runtime --bench guest [-- THREADS]`

use althing_runtime::{ChatInput, Engine, Package, load};
use althing_sandbox::{Config, Files, Guest, Limits};
use std::{
    collections::BTreeMap,
    path::Path,
    time::{Duration, Instant},
};

const HIDDEN: usize = 768;
const FFN: usize = 2048;
const LAYERS: usize = 16;
const HEADS: usize = 12;
const VOCAB: usize = 1024;
const ANSWER_TOKENS: u32 = 48;
const ROUNDS: usize = 3;

/// The names and shapes of the model's tensors.
fn tensors() -> Vec<(String, Vec<usize>)> {
    let mut tensors: Vec<(String, Vec<usize>)> =
        vec![("model.embed_tokens.weight".into(), vec![VOCAB, HIDDEN]), ("model.norm.weight".into(), vec![HIDDEN])];
    for layer in 0..LAYERS {
        let mut add =
            |part: &str, shape: Vec<usize>| tensors.push((format!("model.layers.{layer}.{part}.weight"), shape));
        add("input_layernorm", vec![HIDDEN]);
        add("post_attention_layernorm", vec![HIDDEN]);
        for part in ["q_proj", "k_proj", "v_proj", "o_proj"] {
            add(&format!("self_attn.{part}"), vec![HIDDEN, HIDDEN]);
        }
        for (part, shape) in [("gate_proj", [FFN, HIDDEN]), ("up_proj", [FFN, HIDDEN]), ("down_proj", [HIDDEN, FFN])] {
            add(&format!("mlp.{part}"), shape.to_vec());
        }
    }
    tensors
}

/// Random weights as F16, in a safetensors file.
fn weights() -> Vec<u8> {
    let (mut header, mut data, mut state) = (serde_json::Map::new(), Vec::new(), 1u64);
    for (name, shape) in tensors() {
        let start = data.len();
        for _ in 0..shape.iter().product::<usize>() {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            // A sign, an exponent that makes it small, and chance.
            let [.., one, other] = state.to_be_bytes();
            let _ = other;
            data.extend([one, (state >> 56) as u8 & 0x83 | 0x28]);
        }
        header.insert(name, serde_json::json!({"dtype": "F16", "shape": shape, "data_offsets": [start, data.len()]}));
    }
    let header = serde_json::Value::from(header).to_string().into_bytes();
    [&(header.len() as u64).to_le_bytes(), &header[..], &data].concat()
}

fn package(files: &BTreeMap<String, Vec<u8>>, manifest: &str) -> Package {
    let mut files = files.clone();
    files.insert("model.toml".into(), manifest.as_bytes().to_vec());
    Package::from_files(files).expect("it is a package")
}

fn took(engine: &dyn Engine, question: &str, max_tokens: u32) -> (Duration, Vec<u8>) {
    let input = ChatInput { max_tokens: Some(max_tokens), temperature: Some(0.0), ..ChatInput::ask(question) };
    let started = Instant::now();
    let output = engine.run(&input.to_bytes(), 1, &mut |_| true).expect("it answers");
    (started.elapsed(), output)
}

fn main() {
    let threads = std::env::args().filter_map(|arg| arg.parse().ok()).next_back().unwrap_or(2);
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let read = |path: &str| std::fs::read(root.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
    let config = serde_json::json!({"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
        "hidden_size": HIDDEN, "intermediate_size": FFN, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS,
        "num_key_value_heads": HEADS, "max_position_embeddings": 512, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
        "tie_word_embeddings": true, "vocab_size": VOCAB, "eos_token_id": 0});
    let chat = serde_json::json!({"user": ["<|user|>", "<|end|>"], "assistant": ["<|assistant|>", "<|end|>"],
        "answer": "<|assistant|>", "max_tokens": 160, "temperature": 0.0, "top_k": 0});
    let files = BTreeMap::from([
        ("config.json".to_owned(), config.to_string().into_bytes()),
        ("chat.json".to_owned(), chat.to_string().into_bytes()),
        ("tokenizer.json".to_owned(), read("models/tiny-stories/package/tokenizer.json")),
        ("model.safetensors".to_owned(), weights()),
        ("model.wasm".to_owned(), read("target/guests/packages/llama/model.wasm")),
    ]);
    let common =
        "name = \"bench\"\ndescription = \"\"\ninterface = \"chat\"\nverification = \"exact\"\nlicence = \"MIT\"\n";
    let guest = format!(
        "{common}runtime = \"wasm/1\"\n[limits]\noutput_bytes_max = 65536\nrun_fuel_max = 1000000000000\n\
         [files]\nmodule = \"model.wasm\"\nweights = [\"model.safetensors\"]\n"
    );
    let native = format!(
        "{common}runtime = \"exact-text/1\"\n[limits]\noutput_bytes_max = 65536\n\
         [chat]\nuser = [\"<|user|>\", \"<|end|>\"]\nassistant = [\"<|assistant|>\", \"<|end|>\"]\nanswer = \"<|assistant|>\"\n\
         [files]\nconfig = \"config.json\"\ntokenizer = \"tokenizer.json\"\nweights = \"model.safetensors\"\n"
    );
    let load = |manifest: &str| {
        let started = Instant::now();
        let engine = load(&package(&files, manifest), threads).expect("it loads");
        (engine, started.elapsed())
    };
    let ((guest, guest_load), (native, native_load)) = (load(&guest), load(&native));
    println!("{threads} threads; load: guest {guest_load:.1?}, native {native_load:.1?}");
    let question = "Tell me a story about a fox and a raven, please. ".repeat(8);
    // The best of several rounds, which alternate: what else the machine does counts for both.
    let (mut prefill, mut whole) = ([Duration::MAX; 2], [Duration::MAX; 2]);
    for _ in 0..ROUNDS {
        let engines = [&guest, &native];
        let mut outputs = Vec::new();
        for (which, engine) in engines.iter().enumerate() {
            prefill[which] = prefill[which].min(took(&***engine, &question, 1).0);
            let (time, output) = took(&***engine, &question, ANSWER_TOKENS);
            whole[which] = whole[which].min(time);
            outputs.push(output);
        }
        assert_eq!(outputs[0], outputs[1], "the same bits");
    }
    let decode = |which: usize| f64::from(ANSWER_TOKENS - 1) / (whole[which] - prefill[which]).as_secs_f64();
    println!("decode:  guest {:.1} tokens/s, native {:.1}, ratio {:.2}", decode(0), decode(1), decode(0) / decode(1));
    let ratio = prefill[1].as_secs_f64() / prefill[0].as_secs_f64();
    println!("prefill: guest {:.1?}, native {:.1?}, ratio {ratio:.2}", prefill[0], prefill[1]);
    start(&files["model.safetensors"]);
}

/// How long it takes until a run begins, of a guest whose `init` left 64 MiB and opened all weights of the model above.
fn start(weights: &[u8]) {
    let names: Vec<_> = tensors().into_iter().map(|(name, _)| name).collect();
    let (mut at, mut opened) = (0, String::new());
    for name in &names {
        opened += &format!(
            "(if (i32.lt_s (call $open (i32.const {at}) (i32.const {})) (i32.const 0)) (then unreachable))",
            name.len()
        );
        at += name.len();
    }
    let module = wat::parse_str(format!(
        r#"(module (import "althing" "emit" (func $emit (param i32 i32)))
        (import "althing" "tensor_open" (func $open (param i32 i32) (result i32)))
        (memory (export "memory") 1025)
        (data (i32.const 0) "{}")
        (func (export "abi_version") (result i32) i32.const 1)
        (func (export "init") {opened} (memory.fill (i32.const 65536) (i32.const 42) (i32.const 67108864)))
        (func (export "run") (call $emit (i32.const 12345) (i32.const 1))))"#,
        names.concat()
    ));
    let files = Files::new([("weights".to_owned(), weights.to_vec())]).with_weights(&["weights".to_owned()]);
    let files = files.expect("they are weights");
    let guest = Guest::new(&module.expect("it is a module"), files, Config::new(Limits::default()));
    let guest = guest.expect("it is a guest");
    let weights_mb = guest.weights_bytes() / 1_000_000;
    let mut times: Vec<Duration> = (0..1_000)
        .map(|_| {
            let (started, mut began) = (Instant::now(), Duration::ZERO);
            let ran = guest.run(b"", 0, &mut |_| {
                began = started.elapsed();
                true
            });
            ran.expect("it runs");
            began
        })
        .collect();
    times.sort_unstable();
    let tensors = names.len();
    println!(
        "start:   median {:.1?}, 99 of 100 within {:.1?}, with {tensors} tensors of {weights_mb} MB",
        times[500], times[990]
    );
}
