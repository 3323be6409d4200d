//! Pseudo-random weights and a tiny model of them, the same on every machine.

use althing_exact::{Decoder, DecoderConfig, Format, LlamaConfig, LoadError, Tensor, TensorSource};
use althing_exact::{config::SpecialTokens, decoder::logits_digest};
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
            special: SpecialTokens { bos: None, add_bos: false, eos: vec![0] },
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

    fn put(&mut self, random: &mut Random, name: &str, format: Format, shape: &[usize]) {
        let k = shape[shape.len() - 1];
        let n = if shape.len() == 2 { shape[0] } else { 1 };
        self.tensors.insert(name.to_owned(), (format, shape.to_vec(), random.matrix(format, n, k)));
    }
}
