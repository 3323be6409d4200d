//! Speed of a whole model: tokens/s of decode and prefill, for a Llama of about 1.1 × 10⁹ weights
//! less most of its layers.
//!
//! `cargo bench -p althing-exact --bench model [-- THREADS]`

use althing_exact::{
    Decoder, DecoderConfig, Format, LlamaConfig, LoadError, Plan, Scratch, Tensor, TensorSource, config::SpecialTokens,
};
use std::time::Instant;

const LAYERS: usize = 4;

/// Weights that are all alike: as fast as any.
struct Uniform(Format, Vec<u8>);

impl TensorSource for Uniform {
    fn tensor(&self, name: &str) -> Result<Option<Tensor<'_>>, LoadError> {
        let format = if name.contains("norm") { Format::F32 } else { self.0 };
        let shape = match name.rsplit('.').nth(1).unwrap_or_default() {
            _ if name.ends_with("bias") => return Ok(None),
            "q_norm" | "k_norm" => return Ok(None),
            "q_proj" | "o_proj" => vec![2048, 2048],
            "k_proj" | "v_proj" => vec![256, 2048],
            "gate_proj" | "up_proj" => vec![5632, 2048],
            "down_proj" => vec![2048, 5632],
            "embed_tokens" => vec![32000, 2048],
            _ => vec![2048],
        };
        let (rows, k) = if shape.len() == 2 { (shape[0], shape[1]) } else { (1, shape[0]) };
        Ok(Some(Tensor { format, data: &self.1[..rows * format.row_bytes(k)], shape }))
    }
}

fn main() {
    let threads = std::env::args().filter_map(|arg| arg.parse().ok()).next_back().unwrap_or(2);
    let plan = Plan::new(threads);
    println!("{plan:?}; {LAYERS} layers");
    println!("{:6} {:>16} {:>8} {:>18} {:>10}", "format", "decode tokens/s", "GB/s", "prefill tokens/s", "load GB/s");
    for format in [Format::F16, Format::Q8_0, Format::Q4_0, Format::Q4K] {
        let config = LlamaConfig {
            vocab_size: 32000,
            hidden_size: 2048,
            intermediate_size: 5632,
            layers: LAYERS,
            heads: 32,
            kv_heads: 4,
            head_dim: 64,
            context_tokens: 2048,
            rms_norm_eps: 1e-5,
            rope_theta: 10_000.0,
            rope_divisors: Vec::new(),
            rope_interleaved: false,
            qkv_bias: false,
            qk_norm: false,
            tied: true,
            special: SpecialTokens { bos: None, add_bos: false, eos: vec![0] },
        };
        let data = vec![0x11; 32000 * 2048 * 4];
        let start = Instant::now();
        let model = Decoder::load(&DecoderConfig::Llama(config), &Uniform(format, data)).expect("all tensors fit");
        let load = start.elapsed().as_secs_f64();
        let (mut cache, mut scratch) = (model.cache(), Scratch::default());
        let prompt: Vec<u32> = (0..256).collect();
        let mut prefill = f64::INFINITY;
        for _ in 0..4 {
            cache.truncate(0);
            let start = Instant::now();
            model.forward(&mut cache, &prompt, &plan, &mut scratch);
            prefill = prefill.min(start.elapsed().as_secs_f64() / prompt.len() as f64);
        }
        let best = (0..40).map(|token| {
            let start = Instant::now();
            model.forward(&mut cache, &[token], &plan, &mut scratch);
            start.elapsed().as_secs_f64()
        });
        let decode = best.fold(f64::INFINITY, f64::min);
        println!(
            "{:6} {:16.1} {:8.1} {:18.1} {:10.2}",
            format!("{format:?}"),
            1.0 / decode,
            model.bytes() as f64 / decode / 1e9,
            1.0 / prefill,
            model.bytes() as f64 / load / 1e9,
        );
    }
}
