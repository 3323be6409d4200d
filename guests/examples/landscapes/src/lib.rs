//! A painter: takes `{"prompt": "…", "width": 512, "height": 512}` and gives a landscape, as a PNG.
//!
//! Nothing here has learned anything. Words that it knows choose what there is (`scene.rs`), all of them and the
//! seed choose how it looks: fractal noise makes the land (`land.rs`), and what the light does to it is painted from
//! near to far (`paint.rs`). Of floats there are only sums, products, quotients and roots, which have the same bits
//! everywhere: wherever the guest runs, or these modules without it, the picture is the same.

mod canvas;
mod colour;
mod land;
mod noise;
mod paint;
mod plants;
mod scene;
mod sky;

use althing_guest::{emit, guest, input, refuse, seed};
use scene::Scene;
use serde::Deserialize;
use std::ops::RangeInclusive;

/// Pixels of a side, in steps of eight.
const SIDE_PIXELS: RangeInclusive<u32> = 64..=1024;

#[derive(Deserialize)]
struct Input {
    prompt: String,
    width: u32,
    height: u32,
}

fn run() {
    let Input { prompt, width, height } = parse(&input()).unwrap_or_else(|why| refuse(why));
    let pixels = paint::paint(&Scene::of(&prompt), width as usize, height as usize, seed());
    emit(&png(&pixels, width, height).expect("memory takes all that is written"));
}

fn parse(input: &[u8]) -> Result<Input, &'static str> {
    let Ok(input) = serde_json::from_slice::<Input>(input) else {
        return Err(r#"the input is {"prompt": "…", "width": 512, "height": 512}"#);
    };
    if input.prompt.trim().is_empty() {
        return Err("the prompt is empty: a few words say what to paint, such as \"mountains by a lake at sunset\"");
    }
    if [input.width, input.height].iter().any(|side| !SIDE_PIXELS.contains(side) || side % 8 != 0) {
        return Err("width and height are multiples of 8 from 64 to 1024");
    }
    Ok(input)
}

/// The file of a picture of three bytes a pixel.
fn png(pixels: &[u8], width: u32, height: u32) -> Result<Vec<u8>, png::EncodingError> {
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, width, height);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    // What is slower gives files that are hardly smaller.
    encoder.set_compression(png::Compression::Fast);
    let mut writer = encoder.write_header()?;
    writer.write_image_data(pixels)?;
    writer.finish()?;
    Ok(file)
}

guest!(run);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inputs_are_refused_that_cannot_be_painted() {
        let refused = |input: &str| parse(input.as_bytes()).err().map(|why| why.split(' ').next().unwrap());
        let table = [
            (r#"{"prompt":"a lake","width":512,"height":512}"#, None),
            (r#"{"prompt":"a lake","width":64,"height":1024}"#, None),
            ("", Some("the")),
            (r#"{"prompt":"a lake"}"#, Some("the")),
            (r#"{"prompt":1,"width":512,"height":512}"#, Some("the")),
            (r#"{"prompt":" \n","width":512,"height":512}"#, Some("the")),
            (r#"{"prompt":"a lake","width":56,"height":512}"#, Some("width")),
            (r#"{"prompt":"a lake","width":512,"height":1032}"#, Some("width")),
            (r#"{"prompt":"a lake","width":516,"height":512}"#, Some("width")),
            (r#"{"prompt":"a lake","width":-8,"height":512}"#, Some("the")),
        ];
        for (input, expected) in table {
            assert_eq!(refused(input), expected, "{input}");
        }
    }

    #[test]
    fn a_picture_follows_from_words_sizes_and_seed() {
        let of = |prompt: &str, seed| paint::paint(&Scene::of(prompt), 72, 64, seed);
        let picture = of("an island in the sea", 1);
        assert_eq!(picture.len(), 3 * 72 * 64);
        assert_eq!(of("an island in the sea", 1), picture);
        assert_ne!(of("an island in the sea", 2), picture);
        assert_ne!(of("an xyzzy island in the sea", 1), picture);
        assert!(png(&picture, 72, 64).unwrap().starts_with(b"\x89PNG\r\n\x1a\n"));
    }
}
