//! Candle on a GGUF file of the Llama family: `bench-candle MODEL PROMPT_TOKENS ANSWER_TOKENS`, the
//! best of three, as JSON. RAYON_NUM_THREADS says how many threads.

use candle_core::{Device, Tensor, quantized::gguf_file};
use candle_transformers::models::quantized_llama::ModelWeights;
use std::{env, error::Error, fs::File, time::Instant};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [path, prompt, answer] = arguments.as_slice() else {
        return Err("bench-candle MODEL PROMPT_TOKENS ANSWER_TOKENS".into());
    };
    let (prompt, answer): (usize, usize) = (prompt.parse()?, answer.parse()?);
    let device = Device::Cpu;

    let started = Instant::now();
    let mut file = File::open(path)?;
    let content = gguf_file::Content::read(&mut file)?;
    let vocabulary = content.tensor_infos["token_embd.weight"].shape.dims()[0];
    let mut model = ModelWeights::from_gguf(content, &mut file, &device)?;
    let load = started.elapsed().as_secs_f64();

    let token = |index: usize| u32::try_from((index * 37 + 11) % vocabulary);
    let prompt_tokens = (0..prompt).map(token).collect::<Result<Vec<_>, _>>()?;
    let input = Tensor::new(prompt_tokens, &device)?.unsqueeze(0)?;
    let (mut prefill, mut decode) = (0f64, 0f64);
    for _ in 0..3 {
        // Position 0 begins anew.
        let started = Instant::now();
        model.forward(&input, 0)?;
        prefill = prefill.max(prompt as f64 / started.elapsed().as_secs_f64());
        let started = Instant::now();
        for index in 0..answer {
            let input = Tensor::new(&[token(index)?], &device)?.unsqueeze(0)?;
            model.forward(&input, prompt + index)?;
        }
        decode = decode.max(answer as f64 / started.elapsed().as_secs_f64());
    }
    println!("{{\"prefill\": {prefill}, \"decode\": {decode}, \"load\": {load}}}");
    Ok(())
}
