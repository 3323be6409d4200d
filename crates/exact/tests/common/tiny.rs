//! Pseudo-random weights and a tiny model of them, the same on every machine.

use althing_exact::{
    BertConfig, Decoder, DecoderConfig, Encoder, Format, LlamaConfig, LoadError, Tensor, TensorSource,
    config::{Activation, BloomConfig, GptNeoxConfig, Pooling, SpecialTokens},
    decoder::logits_digest,
};
use std::collections::BTreeMap;

/// xorshift64.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// From −0.5 up to 0.5.
    pub fn float(&mut self) -> f32 {
        (self.next() >> 40) as f32 / 16_777_216.0 - 0.5
    }

    pub fn floats(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.float()).collect()
    }

    /// An n × k matrix as a file has it: any bits, but scales and weights of moderate size.
    pub fn matrix(&mut self, format: Format, n: usize, k: usize) -> Vec<u8> {
        let mut data: Vec<u8> = (0..n * format.row_bytes(k)).map(|_| (self.next() >> 56) as u8).collect();
        for block in data.chunks_exact_mut(format.block_bytes()) {
            let halves: &[(usize, u8)] = match format {
                Format::F32 => {
                    block.copy_from_slice(&(self.float() * 0.25).to_le_bytes());
                    &[]
                }
                // The upper byte of a half: sign and exponent, about 0.01 to 0.03, and of a bfloat16.
                Format::F16 => &[(0, 0xa7)],
                Format::Bf16 => &[(0, 0xbd)],
                Format::Q8_0 => &[(0, 0x17)],
                Format::Q4_0 => &[(0, 0x27)],
                Format::Q4K => &[(0, 0x13), (2, 0x17)],
                Format::Q6K => &[(208, 0x0b)],
            };
            for (at, upper) in halves {
                block[at + 1] &= upper;
            }
        }
        data
    }
}

pub fn digest(values: &[f32]) -> String {
    hex::encode(logits_digest(values))
}

/// A model of two layers, of pseudo-random tensors.
pub struct Tiny {
    tensors: BTreeMap<String, (Format, Vec<usize>, Vec<u8>)>,
}

impl TensorSource for Tiny {
    fn tensor(&self, name: &str) -> Result<Option<Tensor<'_>>, LoadError> {
        let tensor = self.tensors.get(name);
        Ok(tensor.map(|(format, shape, data)| Tensor { format: *format, shape: shape.clone(), data }))
    }
}

pub const VOCABULARY: u32 = 300;

fn special() -> SpecialTokens {
    SpecialTokens { bos: None, add_bos: false, eos: vec![0] }
}

impl Tiny {
    /// The model with matrices of one format; with `extras` also biases, norms of queries and keys, a
    /// head of its own, and every choice of rotary positions other than the plain ones.
    pub fn model(format: Format, extras: bool) -> Decoder {
        let config = LlamaConfig {
            vocab_size: VOCABULARY as usize,
            hidden_size: 256,
            intermediate_size: 512,
            layers: 2,
            heads: 8,
            kv_heads: 2,
            head_dim: 32,
            context_tokens: 512,
            rms_norm_eps: 1e-5,
            rope_theta: 10_000.0,
            rope_divisors: Vec::new(),
            rope_interleaved: extras,
            qkv_bias: extras,
            qk_norm: extras,
            tied: !extras,
            special: special(),
        };
        let mut config = config;
        let mut tiny = Self { tensors: BTreeMap::new() };
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        tiny.put(&mut random, "model.embed_tokens.weight", format, &[300, 256]);
        tiny.put(&mut random, "model.norm.weight", Format::F32, &[256]);
        if extras {
            tiny.put(&mut random, "lm_head.weight", format, &[300, 256]);
            config.rope_divisors = (0u8..16).map(|i| 1.0 + f32::from(i) / 4.0).collect();
        }
        for layer in 0..2 {
            for (part, n, k) in [
                ("self_attn.q_proj", 256, 256),
                ("self_attn.k_proj", 64, 256),
                ("self_attn.v_proj", 64, 256),
                ("self_attn.o_proj", 256, 256),
                ("mlp.gate_proj", 512, 256),
                ("mlp.up_proj", 512, 256),
                ("mlp.down_proj", 256, 512),
            ] {
                tiny.put(&mut random, &format!("model.layers.{layer}.{part}.weight"), format, &[n, k]);
                if extras {
                    tiny.put(&mut random, &format!("model.layers.{layer}.{part}.bias"), Format::F32, &[n]);
                }
            }
            for norm in ["input_layernorm", "post_attention_layernorm"] {
                tiny.put(&mut random, &format!("model.layers.{layer}.{norm}.weight"), Format::F32, &[256]);
            }
            for norm in ["self_attn.q_norm", "self_attn.k_norm"] {
                if extras {
                    tiny.put(&mut random, &format!("model.layers.{layer}.{norm}.weight"), Format::F16, &[32]);
                }
            }
        }
        Decoder::load(&DecoderConfig::Llama(config), &tiny).unwrap()
    }

    /// A GPT-NeoX of two layers. `by_head` is how the joint projection's rows go, `parallel` where
    /// residuals are added.
    pub fn gpt_neox(format: Format, by_head: bool, parallel: bool) -> Decoder {
        let config = GptNeoxConfig {
            vocab_size: VOCABULARY as usize,
            hidden_size: 256,
            intermediate_size: 512,
            layers: 2,
            heads: 8,
            context_tokens: 512,
            layer_norm_eps: 1e-5,
            rotary_dim: 8,
            rope_theta: 10_000.0,
            parallel_residual: parallel,
            activation: if parallel { Activation::Gelu } else { Activation::GeluTanh },
            tied: false,
            qkv_by_head: by_head,
            special: special(),
        };
        let mut tiny = Self { tensors: BTreeMap::new() };
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        let joint = |tiny: &mut Self, random: &mut Random, name: &str| {
            tiny.linear(random, name, format, 768, 256);
            if !by_head {
                // The same projection in the other order.
                tiny.reorder(&format!("{name}.weight"), |row| (row % 256 / 32 * 3 + row / 256) * 32 + row % 32);
                tiny.reorder(&format!("{name}.bias"), |row| (row % 256 / 32 * 3 + row / 256) * 32 + row % 32);
            }
        };
        tiny.put(&mut random, "gpt_neox.embed_in.weight", format, &[300, 256]);
        tiny.put(&mut random, "embed_out.weight", format, &[300, 256]);
        tiny.norm(&mut random, "gpt_neox.final_layer_norm");
        for layer in 0..2 {
            let name = |part: &str| format!("gpt_neox.layers.{layer}.{part}");
            tiny.norm(&mut random, &name("input_layernorm"));
            joint(&mut tiny, &mut random, &name("attention.query_key_value"));
            tiny.linear(&mut random, &name("attention.dense"), format, 256, 256);
            tiny.norm(&mut random, &name("post_attention_layernorm"));
            tiny.linear(&mut random, &name("mlp.dense_h_to_4h"), format, 512, 256);
            tiny.linear(&mut random, &name("mlp.dense_4h_to_h"), format, 256, 512);
        }
        Decoder::load(&DecoderConfig::GptNeox(config), &tiny).unwrap()
    }

    /// A Bloom of two layers, with six heads: no power of two.
    pub fn bloom(format: Format) -> Decoder {
        let config = BloomConfig {
            vocab_size: VOCABULARY as usize,
            hidden_size: 192,
            layers: 2,
            heads: 6,
            context_tokens: 512,
            layer_norm_eps: 1e-5,
            qkv_by_head: true,
            tied: true,
            special: special(),
        };
        let mut tiny = Self { tensors: BTreeMap::new() };
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        tiny.put(&mut random, "transformer.word_embeddings.weight", format, &[300, 192]);
        tiny.norm_of(&mut random, "transformer.word_embeddings_layernorm", 192);
        tiny.norm_of(&mut random, "transformer.ln_f", 192);
        for layer in 0..2 {
            let name = |part: &str| format!("transformer.h.{layer}.{part}");
            tiny.norm_of(&mut random, &name("input_layernorm"), 192);
            tiny.linear(&mut random, &name("self_attention.query_key_value"), format, 576, 192);
            tiny.linear(&mut random, &name("self_attention.dense"), format, 192, 192);
            tiny.norm_of(&mut random, &name("post_attention_layernorm"), 192);
            tiny.linear(&mut random, &name("mlp.dense_h_to_4h"), format, 768, 192);
            tiny.linear(&mut random, &name("mlp.dense_4h_to_h"), format, 192, 768);
        }
        Decoder::load(&DecoderConfig::Bloom(config), &tiny).unwrap()
    }

    /// A BERT of two layers.
    pub fn bert(format: Format, pooling: Pooling) -> Encoder {
        let config = BertConfig {
            vocab_size: VOCABULARY as usize,
            hidden_size: 256,
            intermediate_size: 512,
            layers: 2,
            heads: 8,
            context_tokens: 200,
            positions: 256,
            token_types: 2,
            layer_norm_eps: 1e-12,
            activation: Activation::Gelu,
            pooling,
            normalize: pooling == Pooling::Mean,
        };
        let mut tiny = Self { tensors: BTreeMap::new() };
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        tiny.put(&mut random, "bert.embeddings.word_embeddings.weight", format, &[300, 256]);
        tiny.put(&mut random, "bert.embeddings.position_embeddings.weight", Format::F32, &[256, 256]);
        tiny.put(&mut random, "bert.embeddings.token_type_embeddings.weight", Format::F32, &[2, 256]);
        tiny.norm(&mut random, "bert.embeddings.LayerNorm");
        for layer in 0..2 {
            let name = |part: &str| format!("bert.encoder.layer.{layer}.{part}");
            for part in ["query", "key", "value"] {
                tiny.linear(&mut random, &name(&format!("attention.self.{part}")), format, 256, 256);
            }
            tiny.linear(&mut random, &name("attention.output.dense"), format, 256, 256);
            tiny.norm(&mut random, &name("attention.output.LayerNorm"));
            tiny.linear(&mut random, &name("intermediate.dense"), format, 512, 256);
            tiny.linear(&mut random, &name("output.dense"), format, 256, 512);
            tiny.norm(&mut random, &name("output.LayerNorm"));
        }
        Encoder::load(config, &tiny).unwrap()
    }

    fn linear(&mut self, random: &mut Random, name: &str, format: Format, n: usize, k: usize) {
        self.put(random, &format!("{name}.weight"), format, &[n, k]);
        self.put(random, &format!("{name}.bias"), Format::F32, &[n]);
    }

    fn norm(&mut self, random: &mut Random, name: &str) {
        self.norm_of(random, name, 256);
    }

    fn norm_of(&mut self, random: &mut Random, name: &str, n: usize) {
        self.put(random, &format!("{name}.weight"), Format::F32, &[n]);
        self.put(random, &format!("{name}.bias"), Format::F32, &[n]);
    }

    /// Row i of the new tensor is row `from(i)` of the old one.
    fn reorder(&mut self, name: &str, from: impl Fn(usize) -> usize) {
        let (_, shape, data) = self.tensors.get_mut(name).unwrap();
        let bytes = data.len() / shape[0];
        *data = (0..shape[0]).flat_map(|row| data[from(row) * bytes..][..bytes].to_vec()).collect();
    }

    fn put(&mut self, random: &mut Random, name: &str, format: Format, shape: &[usize]) {
        let k = shape[shape.len() - 1];
        let n = if shape.len() == 2 { shape[0] } else { 1 };
        self.tensors.insert(name.to_owned(), (format, shape.to_vec(), random.matrix(format, n, k)));
    }
}
