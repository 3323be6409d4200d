//! The same models as GGUF files and as Hugging Face directories, both written by
//! `tools/make_model.py llama --hidden 32 --layers 1 --heads 2 --kv-heads 1 --ffn 32 --vocab 640
//! --context 64 --tied --format q8_0 --out llama.gguf --hf llama` and, for `gpt_neox`, `bloom` and
//! `bert`, by `tools/make_model.py FAMILY --hidden 16 --layers 2 --heads 2 --ffn 32 --vocab 300
//! --context 64 --out FAMILY.gguf --hf FAMILY` (64 for bloom's --ffn).

#![allow(clippy::unwrap_used)] // helpers of tests

use althing_exact::{
    EmbeddingModel, Format, GenerateRequest, LlamaConfig, Plan, PromptPart, Sampling, TextModel,
    gguf::{Gguf, GgufTensors},
    template::{TemplateSource, TokenizerConfig},
    tensors::TensorSource,
    tokenizer::TextTokenizer,
};
use proptest::prelude::*;

fn read(name: &str) -> Vec<u8> {
    std::fs::read(format!("{}/tests/fixtures/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

#[test]
fn both_kinds_of_file_give_the_same_model() {
    let file = read("llama.gguf");
    let gguf = Gguf::read(&file).unwrap();
    let from_gguf = LlamaConfig::from_gguf(&gguf).unwrap();
    let mut from_hf = LlamaConfig::parse(&read("llama/config.json")).unwrap();
    let hf_tokenizer = TextTokenizer::from_json(&read("llama/tokenizer.json"), from_hf.vocab_size).unwrap();
    let tokenizer_config = TokenizerConfig::parse(&read("llama/tokenizer_config.json")).unwrap();
    from_hf.special.set_add_bos(&tokenizer_config, &hf_tokenizer);
    assert_eq!(from_gguf, LlamaConfig { rope_interleaved: true, ..from_hf });

    let gguf_tokenizer = TextTokenizer::from_gguf(&gguf, from_gguf.vocab_size).unwrap();
    assert_eq!(gguf_tokenizer.markers(), hf_tokenizer.markers());
    let hf_template = TemplateSource::from_hf(&tokenizer_config, None).unwrap().unwrap();
    assert_eq!(TemplateSource::from_gguf(&gguf, &gguf_tokenizer).unwrap().unwrap(), hf_template);
    for content in ["What is it that you want?", "  þ 12:30\n\n", "<|im_end|>", ""] {
        for prompt in [PromptPart::Text(content.into()), PromptPart::Markers(format!("<s>{content}</s>"))] {
            let prompt = [prompt];
            assert_eq!(gguf_tokenizer.encode(&prompt), hf_tokenizer.encode(&prompt));
        }
    }
}

#[test]
fn tensors_of_a_written_file_have_the_shapes_that_the_config_asks_for() {
    let file = read("llama.gguf");
    let gguf = Gguf::read(&file).unwrap();
    let tensors = GgufTensors::new(&gguf).unwrap();
    let layer = |part: &str| format!("model.layers.0.{part}.weight");
    for (name, format, shape) in [
        ("model.embed_tokens.weight".into(), Format::Q8_0, vec![640, 32]),
        ("model.norm.weight".into(), Format::F32, vec![32]),
        (layer("input_layernorm"), Format::F32, vec![32]),
        (layer("self_attn.q_proj"), Format::Q8_0, vec![32, 32]),
        (layer("self_attn.k_proj"), Format::Q8_0, vec![16, 32]),
        (layer("self_attn.v_proj"), Format::Q8_0, vec![16, 32]),
        (layer("self_attn.o_proj"), Format::Q8_0, vec![32, 32]),
        (layer("mlp.down_proj"), Format::Q8_0, vec![32, 32]),
    ] {
        let tensor = tensors.tensor(&name).unwrap().unwrap();
        assert_eq!((tensor.format, &tensor.shape), (format, &shape), "{name}");
    }
    assert_eq!(tensors.tensor("lm_head.weight").unwrap(), None);
}

fn path(name: &str) -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

#[test]
fn other_families_have_the_same_bits_from_both_kinds_of_file() {
    let plan = Plan::new(1);
    let request = GenerateRequest {
        prompt: vec![PromptPart::Text("What is it that you want?".into())],
        max_tokens: 20,
        sampling: Sampling { temperature: 1.0, ..Sampling::default() },
        seed: 2,
        stop: Vec::new(),
    };
    for family in ["gpt_neox", "bloom"] {
        let [gguf, hf] = [format!("{family}.gguf"), family.into()].map(|name| {
            let model = TextModel::open(&path(&name)).unwrap();
            model.generate(&request, &plan, |_: &str| true).unwrap()
        });
        assert!(gguf.completion_tokens > 3 && !gguf.text.is_empty(), "{family}: {gguf:?}");
        assert_eq!(gguf, hf, "{family}");
    }
    let texts = ["Hello there!", "they're here", "free men met once a year"].map(str::to_owned);
    let [gguf, hf] = ["bert.gguf", "bert"].map(|name| {
        let model = EmbeddingModel::open(&path(name)).unwrap();
        model.embed(&texts, &plan, &mut ()).unwrap()
    });
    assert_eq!(gguf, hf);
    assert!(gguf.vectors.iter().all(|vector| vector.len() == 16) && gguf.vectors[0] != gguf.vectors[1]);
}

#[test]
fn a_model_of_another_kind_is_refused_in_words() {
    for name in ["bert.gguf", "bert"] {
        let error = TextModel::open(&path(name)).err().unwrap().to_string();
        assert!(error.contains("bert") && error.contains("embeddings"), "{error}");
    }
    for name in ["bloom.gguf", "bloom"] {
        let error = EmbeddingModel::open(&path(name)).err().unwrap().to_string();
        assert!(error.contains("\"bloom\"") && error.contains("\"bert\""), "{error}");
    }
}

#[test]
fn texts_that_do_not_fit_are_refused_by_their_number() {
    let model = EmbeddingModel::open(&path("bert")).unwrap();
    let embed = |texts: &[&str]| {
        let texts: Vec<_> = texts.iter().map(|text| (*text).to_owned()).collect();
        model.embed(&texts, &Plan::new(1), &mut ()).map_err(|error| error.to_string())
    };
    let long = "law ".repeat(70);
    assert_eq!(embed(&["fine", &long]), Err("the model holds 64 tokens: text 1 has 72".into()));
    // The model's own tokens around nothing are a text, too.
    assert!(embed(&[""]).is_ok());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn no_mutation_of_a_written_file_panics(
        which in 0..4usize, changes in prop::collection::vec((0..14_000usize, any::<u8>()), 1..4),
    ) {
        let mut file = read(["llama.gguf", "gpt_neox.gguf", "bloom.gguf", "bert.gguf"][which]);
        for (at, byte) in changes {
            file[at] = byte;
        }
        let plan = Plan::new(1);
        if let Ok(model) = TextModel::from_gguf(&file) {
            let prompt = vec![PromptPart::Text("Hello there".into())];
            let request =
                GenerateRequest { prompt, max_tokens: 2, sampling: Sampling::default(), seed: 0, stop: Vec::new() };
            let _ = model.generate(&request, &plan, |_: &str| true);
        }
        if let Ok(model) = EmbeddingModel::from_gguf(&file) {
            let _ = model.embed(&["Hello there".to_owned()], &plan, &mut ());
        }
        if let Ok(gguf) = Gguf::read(&file) {
            let _ = GgufTensors::new(&gguf);
            let _ = LlamaConfig::from_gguf(&gguf);
            if let Ok(tokenizer) = TextTokenizer::from_gguf(&gguf, 640) {
                let _ = tokenizer.encode(&[PromptPart::Text("Hello there".into())]);
                let _ = TemplateSource::from_gguf(&gguf, &tokenizer);
            }
        }
    }
}
