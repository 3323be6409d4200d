//! Configs of real models' forms, and what is refused.

#![allow(clippy::unwrap_used)] // helpers of tests

mod common;

use althing_exact::{
    LlamaConfig, TemplateSource,
    config::{Activation, BertConfig, BloomConfig, GptNeoxConfig, Pooling, SpecialTokens},
    gguf::Gguf,
    template::TokenizerConfig,
};
use common::GgufFile;
use serde_json::{Value, json};

fn llama() -> Value {
    json!({"architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 1000, "hidden_size": 64,
        "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
        "max_position_embeddings": 512, "rms_norm_eps": 1e-5, "rope_theta": 500000.0, "rope_scaling": null,
        "tie_word_embeddings": false, "hidden_act": "silu", "bos_token_id": 1, "eos_token_id": 2, "torch_dtype": "bfloat16"})
}

/// `base` with the fields of `changes`.
fn with(base: Value, changes: Value) -> Value {
    let mut fields = base.as_object().unwrap().clone();
    fields.extend(changes.as_object().unwrap().clone());
    fields.into()
}

fn parse(changes: Value) -> Result<LlamaConfig, String> {
    LlamaConfig::parse(with(llama(), changes).to_string().as_bytes()).map_err(|error| error.to_string())
}

fn special(bos: Option<u32>, add_bos: bool, eos: &[u32]) -> SpecialTokens {
    SpecialTokens { bos, add_bos, eos: eos.to_vec() }
}

fn expected() -> LlamaConfig {
    LlamaConfig {
        vocab_size: 1000,
        hidden_size: 64,
        intermediate_size: 96,
        layers: 2,
        heads: 4,
        kv_heads: 2,
        head_dim: 16,
        context_tokens: 512,
        rms_norm_eps: 1e-5,
        rope_theta: 500_000.0,
        rope_divisors: vec![],
        rope_interleaved: false,
        qkv_bias: false,
        qk_norm: false,
        tied: false,
        special: special(Some(1), false, &[2]),
    }
}

#[test]
fn hugging_face_configs_of_the_family_are_read() {
    let base = expected;
    for (changes, expected) in [
        (json!({}), base()),
        (json!({"num_key_value_heads": null, "head_dim": null}), LlamaConfig { kv_heads: 4, ..base() }),
        (json!({"head_dim": 32}), LlamaConfig { head_dim: 32, ..base() }),
        (json!({"rope_theta": null}), LlamaConfig { rope_theta: 10_000.0, ..base() }),
        (
            json!({"rope_parameters": {"rope_type": "default", "rope_theta": 7e4}}),
            LlamaConfig { rope_theta: 7e4, ..base() },
        ),
        (
            json!({"rope_scaling": {"type": "linear", "factor": 4.0}}),
            LlamaConfig { rope_divisors: vec![4.0; 8], ..base() },
        ),
        (
            json!({"tie_word_embeddings": true, "bos_token_id": null}),
            LlamaConfig { tied: true, special: special(None, false, &[2]), ..base() },
        ),
        (json!({"eos_token_id": [9, 8, 9]}), LlamaConfig { special: special(Some(1), false, &[8, 9]), ..base() }),
        (
            json!({"model_type": "mistral", "architectures": null, "sliding_window": 256}),
            LlamaConfig { context_tokens: 256, ..base() },
        ),
        (json!({"model_type": "mistral", "architectures": null, "sliding_window": null}), base()),
        (json!({"model_type": "mistral", "architectures": null, "sliding_window": 4096}), base()),
        (
            json!({"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"], "use_sliding_window": false, "sliding_window": 64}),
            LlamaConfig { qkv_bias: true, ..base() },
        ),
        (
            json!({"model_type": "qwen2", "architectures": null, "use_sliding_window": true, "sliding_window": 64}),
            LlamaConfig { qkv_bias: true, context_tokens: 64, ..base() },
        ),
        (
            json!({"model_type": "qwen3", "architectures": null, "attention_bias": false}),
            LlamaConfig { qk_norm: true, head_dim: 128, ..base() },
        ),
        (json!({"layer_types": ["full_attention", "full_attention"]}), base()),
    ] {
        assert_eq!(parse(changes.clone()), Ok(expected), "{changes}");
    }
    let llama3 = json!({"rope_scaling": {"rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}});
    assert_eq!(parse(llama3).unwrap().rope_divisors.len(), 8);
}

#[test]
fn what_is_not_computed_or_out_of_bounds_is_refused_by_its_field() {
    for (changes, part) in [
        (json!({"model_type": "gemma"}), "model_type: \"gemma\""),
        (json!({"architectures": ["LlamaForSequenceClassification"]}), "architectures: "),
        (json!({"attention_bias": true}), "attention_bias: "),
        (json!({"mlp_bias": true}), "mlp_bias: "),
        (json!({"hidden_act": "gelu"}), "hidden_act: "),
        (json!({"partial_rotary_factor": 0.5}), "partial_rotary_factor: "),
        (json!({"num_local_experts": 8}), "num_local_experts: "),
        (json!({"quantization_config": {"bits": 4}}), "quantization_config: "),
        (json!({"layer_types": ["linear_attention"]}), "layer_types: "),
        (json!({"layer_types": ["sliding_attention"]}), "sliding_window: "),
        (json!({"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}), "rope_scaling: \"yarn\""),
        (json!({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}), "rope_scaling: low_freq_factor"),
        (json!({"vocab_size": 0}), "vocab_size: 0 is not between"),
        (json!({"hidden_size": 1 << 30, "head_dim": 16}), "hidden_size: "),
        (json!({"intermediate_size": u64::MAX}), "intermediate_size: "),
        (json!({"num_hidden_layers": 100_000}), "num_hidden_layers: "),
        (json!({"num_attention_heads": 0, "head_dim": null}), "head_dim: "),
        (json!({"num_attention_heads": 0, "head_dim": 16}), "num_attention_heads: "),
        (json!({"num_key_value_heads": 3}), "num_key_value_heads: "),
        (json!({"num_key_value_heads": 0}), "num_key_value_heads: "),
        (json!({"head_dim": 15}), "head_dim: 15 is odd"),
        (
            json!({"head_dim": 1024, "num_attention_heads": 1024, "num_key_value_heads": 1}),
            "head_dim: heads × head_dim",
        ),
        (json!({"vocab_size": 1 << 20, "hidden_size": 1 << 16, "head_dim": 16}), "hidden_size: a matrix"),
        (json!({"max_position_embeddings": u64::MAX}), "max_position_embeddings: "),
        (json!({"rms_norm_eps": 0.0}), "rms_norm_eps: "),
        (json!({"rms_norm_eps": 1e-60}), "rms_norm_eps: "),
        (json!({"rope_theta": 0.0}), "rope_theta: "),
        (json!({"rope_theta": 1e300}), "rope_theta: "),
        (json!({"eos_token_id": 1000}), "eos_token_id: "),
        (json!({"eos_token_id": []}), "eos_token_id: "),
        (json!({"eos_token_id": null}), "eos_token_id: "),
        (json!({"bos_token_id": 1000}), "bos_token_id: "),
        (json!({"hidden_size": "many"}), "invalid type"),
    ] {
        let error = parse(changes.clone()).unwrap_err();
        assert!(error.starts_with("config.json: ") && error.contains(part), "{changes}: {error}");
    }
}

#[test]
fn generation_config_adds_ends() {
    let mut config = parse(json!({})).unwrap();
    let (special, vocab_size) = (&mut config.special, config.vocab_size);
    special.add_generation_config(b"{\"eos_token_id\": [5, 2]}", vocab_size).unwrap();
    assert_eq!(special.eos, [2, 5]);
    special.add_generation_config(b"{}", vocab_size).unwrap();
    assert_eq!(special.eos, [2, 5]);
    assert!(special.add_generation_config(b"{\"eos_token_id\": 1000}", vocab_size).is_err());
    assert!(special.add_generation_config(b"[", vocab_size).is_err());
}

/// The same model as [`llama`], as llama.cpp's converter writes it.
fn gguf(architecture: &str) -> GgufFile {
    let key = |name: &str| format!("{architecture}.{name}");
    GgufFile::default()
        .str("general.architecture", architecture)
        .u32(&key("context_length"), 512)
        .u32(&key("embedding_length"), 64)
        .u32(&key("block_count"), 2)
        .u32(&key("feed_forward_length"), 96)
        .u32(&key("attention.head_count"), 4)
        .u32(&key("attention.head_count_kv"), 2)
        .f32(&key("attention.layer_norm_rms_epsilon"), 1e-5)
        .f32(&key("rope.freq_base"), 500_000.0)
        .u32(&key("rope.dimension_count"), 16)
        .u32("tokenizer.ggml.bos_token_id", 1)
        .u32("tokenizer.ggml.eos_token_id", 2)
        .str("tokenizer.ggml.model", "gpt2")
        .tensor("token_embd.weight", &[64, 1000], 0, &[0; 256_000])
}

fn read(file: &GgufFile) -> Result<LlamaConfig, String> {
    let bytes = file.bytes();
    LlamaConfig::from_gguf(&Gguf::read(&bytes).unwrap()).map_err(|error| error.to_string())
}

#[test]
fn gguf_metadata_of_the_family_is_read() {
    let untied = |architecture: &str| gguf(architecture).zeros("output.weight", &[1]);
    let interleaved = || LlamaConfig { rope_interleaved: true, ..expected() };
    let texts = ["<s>", "a", "</s>", "<|eot_id|>", "<|im_end|>", "x"];
    let vocabulary = |file: GgufFile| {
        file.strs("tokenizer.ggml.tokens", &texts).i32s("tokenizer.ggml.token_type", &[3, 1, 3, 3, 1, 1])
    };
    let divisors: Vec<u8> =
        [1.0f32, 1.0, 1.0, 1.0, 2.0, 4.0, 8.0, 8.0].iter().flat_map(|divisor| divisor.to_le_bytes()).collect();
    for (name, file, expected) in [
        ("llama", untied("llama"), interleaved()),
        ("tied", gguf("llama"), LlamaConfig { tied: true, ..interleaved() }),
        ("qwen2", untied("qwen2").zeros("blk.0.attn_q.bias", &[1]), LlamaConfig { qkv_bias: true, ..expected() }),
        ("qwen3", untied("qwen3"), LlamaConfig { qk_norm: true, ..expected() }),
        (
            "llama 3",
            untied("llama").str("tokenizer.ggml.pre", "llama-bpe"),
            LlamaConfig { special: special(Some(1), true, &[2]), ..interleaved() },
        ),
        (
            "bos",
            untied("llama").bool("tokenizer.ggml.add_bos_token", true),
            LlamaConfig { special: special(Some(1), true, &[2]), ..interleaved() },
        ),
        (
            "eot",
            untied("llama").u32("tokenizer.ggml.eot_token_id", 7),
            LlamaConfig { special: special(Some(1), false, &[2, 7]), ..interleaved() },
        ),
        (
            "ends by text",
            vocabulary(untied("llama")),
            LlamaConfig { special: special(Some(1), false, &[2, 3]), ..interleaved() },
        ),
        (
            "window",
            untied("llama").u32("llama.attention.sliding_window", 100),
            LlamaConfig { context_tokens: 100, ..interleaved() },
        ),
        ("no window", untied("llama").u32("llama.attention.sliding_window", 0), interleaved()),
        ("no experts", untied("llama").u32("llama.expert_count", 0), interleaved()),
        (
            "linear",
            untied("llama").str("llama.rope.scaling.type", "linear").f32("llama.rope.scaling.factor", 2.0),
            LlamaConfig { rope_divisors: vec![2.0; 8], ..interleaved() },
        ),
        ("unscaled", untied("llama").str("llama.rope.scaling.type", "none"), interleaved()),
        (
            "divisors",
            untied("llama").tensor("rope_freqs.weight", &[8], 0, &divisors),
            LlamaConfig { rope_divisors: vec![1.0, 1.0, 1.0, 1.0, 2.0, 4.0, 8.0, 8.0], ..interleaved() },
        ),
    ] {
        assert_eq!(read(&file), Ok(expected), "{name}");
    }
}

#[test]
fn gguf_metadata_that_changes_the_computation_is_refused_by_its_key() {
    for (file, part) in [
        (gguf("llama").f32("llama.logit_scale", 2.0), "llama.logit_scale"),
        (gguf("llama").u32("llama.expert_count", 8), "llama.expert_count"),
        (gguf("llama").bool("llama.attention.causal", false), "llama.attention.causal"),
        (gguf("llama").u32("llama.attention.value_length", 8), "llama.attention.value_length"),
        (gguf("qwen3").u32("qwen3.pooling_type", 3), "qwen3.pooling_type"),
        (gguf("llama").str("llama.rope.scaling.type", "yarn"), "\"yarn\" is not computed"),
        (gguf("llama").zeros("rope_freqs.weight", &[7]), "rope_freqs.weight"),
        (gguf("llama").zeros("rope_freqs.weight", &[8]), "rope_scaling: a divisor"),
        (gguf("llama").u32("llama.attention.key_length", u32::MAX), "not the 4294967295 of a head"),
        (gguf("gemma"), "\"gemma\" does not run here"),
        (gguf("llama").u32("tokenizer.ggml.eot_token_id", 5000), "eos_token_id"),
        (gguf("llama").strs("tokenizer.ggml.tokens", &vec!["x"; 1001]), "more tokens than rows"),
        (GgufFile::default(), "general.architecture\": missing"),
        (GgufFile::default().str("general.architecture", "llama"), "llama.embedding_length\": missing"),
    ] {
        let error = read(&file).unwrap_err();
        assert!(error.contains(part), "{part}: {error}");
    }
}

#[test]
fn gpt_neox_configs() {
    let json = json!({"model_type": "gpt_neox", "vocab_size": 1000, "hidden_size": 64, "intermediate_size": 256,
        "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 512, "layer_norm_eps": 1e-5,
        "hidden_act": "gelu", "rotary_pct": 0.25, "rotary_emb_base": 10000, "use_parallel_residual": true,
        "tie_word_embeddings": false, "bos_token_id": 0, "eos_token_id": 0});
    let parse = |changes: Value| GptNeoxConfig::parse(with(json.clone(), changes).to_string().as_bytes());
    let expected = GptNeoxConfig {
        vocab_size: 1000,
        hidden_size: 64,
        intermediate_size: 256,
        layers: 2,
        heads: 4,
        context_tokens: 512,
        layer_norm_eps: 1e-5,
        rotary_dim: 4,
        rope_theta: 10_000.0,
        parallel_residual: true,
        activation: Activation::Gelu,
        tied: false,
        qkv_by_head: true,
        special: special(Some(0), false, &[0]),
    };
    assert_eq!(parse(json!({})).unwrap(), expected);
    let newer = json!({"rotary_pct": null, "rotary_emb_base": null,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.25}});
    assert_eq!(parse(newer).unwrap(), expected);
    assert_eq!(parse(json!({"hidden_act": "gelu_fast"})).unwrap().activation, Activation::GeluTanh);
    for (changes, part) in [
        (json!({"model_type": "llama"}), "model_type"),
        (json!({"hidden_act": "relu"}), "hidden_act"),
        (json!({"rotary_pct": 1.5}), "rotary_pct"),
        (json!({"rotary_pct": 0.2}), "rotary_pct"),
        (json!({"rope_scaling": {"type": "linear"}}), "rope_scaling"),
        (json!({"rope_parameters": {"rope_type": "dynamic"}}), "rope_scaling"),
        (json!({"num_attention_heads": 5}), "hidden_size"),
        (json!({"num_attention_heads": 0}), "num_attention_heads"),
    ] {
        let error = parse(changes).unwrap_err().to_string();
        assert!(error.contains(part), "{part}: {error}");
    }
    let file = GgufFile::default()
        .str("general.architecture", "gptneox")
        .u32("gptneox.context_length", 512)
        .u32("gptneox.embedding_length", 64)
        .u32("gptneox.block_count", 2)
        .u32("gptneox.feed_forward_length", 256)
        .u32("gptneox.attention.head_count", 4)
        .f32("gptneox.attention.layer_norm_epsilon", 1e-5)
        .u32("gptneox.rope.dimension_count", 4)
        .bool("gptneox.use_parallel_residual", true)
        .u32("tokenizer.ggml.bos_token_id", 0)
        .u32("tokenizer.ggml.eos_token_id", 0)
        .zeros("token_embd.weight", &[64, 1000])
        .zeros("output.weight", &[64, 1000]);
    let bytes = file.bytes();
    let read = GptNeoxConfig::from_gguf(&Gguf::read(&bytes).unwrap()).unwrap();
    assert_eq!(read, GptNeoxConfig { qkv_by_head: false, ..expected });
}

#[test]
fn bloom_configs() {
    let json = json!({"model_type": "bloom", "vocab_size": 1000, "n_embed": 64, "n_layer": 2, "num_attention_heads": 4,
        "layer_norm_epsilon": 1e-5, "seq_length": 512, "bos_token_id": 1, "eos_token_id": 2});
    let config = BloomConfig::parse(json.to_string().as_bytes()).unwrap();
    assert_eq!((config.hidden_size, config.layers, config.heads, config.context_tokens), (64, 2, 4, 512));
    assert!(config.tied && config.qkv_by_head);
    assert_eq!(config.alibi_slopes(), [0.25, 0.0625, 0.015_625, 0.003_906_25]);
    // The first of twice as many heads are put between for numbers that are no powers of two.
    let six = BloomConfig { heads: 6, hidden_size: 48, ..config.clone() };
    assert_eq!(six.alibi_slopes(), [0.25, 0.0625, 0.015_625, 0.003_906_25, 0.5, 0.125]);
    let wrong = with(json, json!({"apply_residual_connection_post_layernorm": true}));
    assert!(BloomConfig::parse(wrong.to_string().as_bytes()).unwrap_err().to_string().contains("post_layernorm"));
    let file = |heads_kv: u32| {
        GgufFile::default()
            .str("general.architecture", "bloom")
            .u32("bloom.context_length", 512)
            .u32("bloom.embedding_length", 64)
            .u32("bloom.block_count", 2)
            .u32("bloom.feed_forward_length", 256)
            .u32("bloom.attention.head_count", 4)
            .u32("bloom.attention.head_count_kv", heads_kv)
            .f32("bloom.attention.layer_norm_epsilon", 1e-5)
            .u32("tokenizer.ggml.bos_token_id", 1)
            .u32("tokenizer.ggml.eos_token_id", 2)
            .zeros("token_embd.weight", &[64, 1000])
            .bytes()
    };
    let bytes = file(4);
    let read = BloomConfig::from_gguf(&Gguf::read(&bytes).unwrap()).unwrap();
    assert_eq!(read, BloomConfig { qkv_by_head: false, ..config });
    let bytes = file(2);
    assert!(BloomConfig::from_gguf(&Gguf::read(&bytes).unwrap()).unwrap_err().to_string().contains("head_count_kv"));
}

#[test]
fn bert_configs() {
    let json = json!({"model_type": "bert", "architectures": ["BertModel"], "vocab_size": 1000, "hidden_size": 64,
        "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 256, "max_position_embeddings": 512,
        "type_vocab_size": 2, "layer_norm_eps": 1e-12, "hidden_act": "gelu", "position_embedding_type": "absolute"});
    let parse = |pooling: Option<&str>, modules: Option<&str>, sentence: Option<&str>| {
        BertConfig::parse(
            json.to_string().as_bytes(),
            pooling.map(str::as_bytes),
            modules.map(str::as_bytes),
            sentence.map(str::as_bytes),
        )
    };
    let plain = parse(None, None, None).unwrap();
    assert_eq!((plain.pooling, plain.normalize, plain.context_tokens), (Pooling::Mean, false, 512));
    let modules = r#"[{"idx": 0, "type": "sentence_transformers.models.Transformer"},
        {"type": "sentence_transformers.models.Pooling"}, {"type": "sentence_transformers.models.Normalize"}]"#;
    let full = parse(
        Some(r#"{"word_embedding_dimension": 64, "pooling_mode_cls_token": true, "pooling_mode_mean_tokens": false}"#),
        Some(modules),
        Some(r#"{"max_seq_length": 256, "do_lower_case": false}"#),
    );
    let full = full.unwrap();
    assert_eq!((full.pooling, full.normalize, full.context_tokens), (Pooling::Cls, true, 256));
    assert_eq!(parse(Some(r#"{"pooling_mode": "mean"}"#), None, None).unwrap().pooling, Pooling::Mean);
    for (pooling, modules, part) in [
        (Some(r#"{"pooling_mode_max_tokens": true}"#), None, "\"max_tokens\" is not computed"),
        (Some(r#"{"pooling_mode_cls_token": true, "pooling_mode_mean_tokens": true}"#), None, "several modes"),
        (Some("{}"), None, "names no mode"),
        (None, Some(r#"[{"type": "sentence_transformers.models.Dense"}]"#), "Dense"),
    ] {
        let error = parse(pooling, modules, None).unwrap_err().to_string();
        assert!(error.contains(part), "{part}: {error}");
    }
    let relative = with(json.clone(), json!({"position_embedding_type": "relative_key"}));
    let error = BertConfig::parse(relative.to_string().as_bytes(), None, None, None).unwrap_err().to_string();
    assert!(error.contains("position_embedding_type"), "{error}");
    let file = |pooling: u32| {
        GgufFile::default()
            .str("general.architecture", "bert")
            .u32("bert.context_length", 512)
            .u32("bert.embedding_length", 64)
            .u32("bert.block_count", 2)
            .u32("bert.feed_forward_length", 256)
            .u32("bert.attention.head_count", 4)
            .f32("bert.attention.layer_norm_epsilon", 1e-12)
            .bool("bert.attention.causal", false)
            .u32("bert.pooling_type", pooling)
            .u32("tokenizer.ggml.token_type_count", 2)
            .zeros("token_embd.weight", &[64, 1000])
            .bytes()
    };
    let bytes = file(2);
    let read = BertConfig::from_gguf(&Gguf::read(&bytes).unwrap()).unwrap();
    assert_eq!(read, BertConfig { pooling: Pooling::Cls, normalize: true, ..plain });
    let bytes = file(4);
    assert!(BertConfig::from_gguf(&Gguf::read(&bytes).unwrap()).unwrap_err().to_string().contains("pooling_type"));
}

#[test]
fn tokenizer_config_is_read_in_its_forms() {
    let config = |json: serde_json::Value| TokenizerConfig::parse(json.to_string().as_bytes());
    let plain = config(
        json!({"chat_template": "x", "bos_token": "<s>", "eos_token": {"content": "</s>", "lstrip": false}, "add_bos_token": true}),
    );
    let expected = TokenizerConfig {
        chat_template: Some("x".into()),
        bos_token: Some("<s>".into()),
        eos_token: Some("</s>".into()),
        add_bos_token: Some(true),
    };
    assert_eq!(plain.unwrap(), expected);
    let named = json!({"chat_template": [{"name": "tool_use", "template": "t"}, {"name": "default", "template": "d"}], "bos_token": null});
    assert_eq!(config(named).unwrap().chat_template.as_deref(), Some("d"));
    assert_eq!(config(json!({})).unwrap(), TokenizerConfig::default());
    for wrong in [json!([]), json!({"chat_template": 1}), json!({"chat_template": [{"name": "x", "template": "t"}]})] {
        config(wrong).unwrap_err();
    }
}

#[test]
fn the_templates_of_a_directory_and_their_order() {
    let config = TokenizerConfig {
        chat_template: Some("one{{ bos_token }}".into()),
        bos_token: Some("<s>".into()),
        ..Default::default()
    };
    let source = |jinja: Option<&[u8]>| TemplateSource::from_hf(&config, jinja).unwrap().unwrap();
    let expected =
        |source: &str| TemplateSource { source: source.into(), bos_token: "<s>".into(), eos_token: "".into() };
    assert_eq!(source(None), expected("one{{ bos_token }}"));
    assert_eq!(source(Some(b"two")), expected("two"));
    assert!(TemplateSource::from_hf(&TokenizerConfig::default(), None).unwrap().is_none());
    TemplateSource::from_hf(&config, Some(b"\xff")).unwrap_err();
}
