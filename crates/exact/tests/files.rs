//! The same model as a GGUF file and as a Hugging Face directory, both written by
//! `tools/make_model.py llama --hidden 32 --layers 1 --heads 2 --kv-heads 1 --ffn 32 --vocab 640
//! --context 64 --tied --format q8_0 --out llama.gguf --hf llama`.

#![allow(clippy::unwrap_used)] // helpers of tests

use althing_exact::{
    Format, LlamaConfig, PromptPart,
    gguf::{Gguf, GgufTensors},
    template::{ChatTemplate, TemplateMessage, TokenizerConfig},
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
    let hf_template = ChatTemplate::from_hf(&tokenizer_config, None, &hf_tokenizer).unwrap().unwrap();
    let gguf_template = ChatTemplate::from_gguf(&gguf, &gguf_tokenizer).unwrap().unwrap();
    for content in ["What is it that you want?", "  þ 12:30\n\n", "<|im_end|>", ""] {
        let messages = [TemplateMessage { role: "user", content }];
        let prompt = gguf_template.render(&messages, true).unwrap();
        assert_eq!(prompt, hf_template.render(&messages, true).unwrap());
        assert_eq!(gguf_tokenizer.encode(&prompt), hf_tokenizer.encode(&prompt));
        let plain = [PromptPart::Text(content.into())];
        assert_eq!(gguf_tokenizer.encode(&plain), hf_tokenizer.encode(&plain));
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

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn no_mutation_of_a_written_file_panics(changes in prop::collection::vec((0..14_000usize, any::<u8>()), 1..4)) {
        let mut file = read("llama.gguf");
        for (at, byte) in changes {
            file[at] = byte;
        }
        if let Ok(gguf) = Gguf::read(&file) {
            let _ = GgufTensors::new(&gguf);
            let _ = LlamaConfig::from_gguf(&gguf);
            if let Ok(tokenizer) = TextTokenizer::from_gguf(&gguf, 640) {
                let _ = tokenizer.encode(&[PromptPart::Text("Hello there".into())]);
                let _ = ChatTemplate::from_gguf(&gguf, &tokenizer);
            }
        }
    }
}
