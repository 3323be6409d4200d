//! Writes a model's numbers to stdout as little-endian f32: the logits after every token, or with
//! `--embed` the embedding of all. For comparing with other implementations.
//!
//! `cargo run --release -p althing-exact --example logits -- PATH 1,2,3 [--embed]`

use althing_exact::{EmbeddingModel, EncoderScratch, Plan, Scratch, Sequence, TextModel};
use std::{error::Error, io::Write as _, path::Path};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [path, tokens, rest @ ..] = &arguments[..] else { return Err("logits PATH TOKEN,TOKEN,… [--embed]".into()) };
    let tokens = tokens.split(',').map(str::parse).collect::<Result<Vec<u32>, _>>()?;
    let (path, plan) = (Path::new(path), Plan::new(1));
    let values = match rest {
        [flag] if flag == "--embed" => {
            let model = EmbeddingModel::open(path)?;
            model.encoder().encode(&[&tokens], &plan, &mut EncoderScratch::default(), &mut ()).concat()
        }
        [] => {
            let model = TextModel::open(path)?;
            let (mut cache, mut scratch) = (model.decoder().cache(), Scratch::default());
            model.decoder().forward_batch(&mut [Sequence::all(&mut cache, &tokens)], &plan, &mut scratch).to_vec()
        }
        _ => return Err("the only flag is --embed".into()),
    };
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    Ok(std::io::stdout().write_all(&bytes)?)
}
