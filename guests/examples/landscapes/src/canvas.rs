//! What is painted on.

use crate::colour::Colour;

/// Pixels that are painted from near to far: what is farther away gets what is still open.
pub struct Canvas {
    pub width: usize,
    pub height: usize,
    /// The row of the horizon.
    pub horizon: f32,
    /// How high above the water the eye is; below it, if it sees what the water mirrors.
    pub eye: f32,
    pixels: Vec<Pixel>,
}

#[derive(Clone, Copy)]
struct Pixel {
    colour: Colour,
    open: f32,
}

impl Canvas {
    pub fn new(width: usize, height: usize, horizon: f32, eye: f32) -> Self {
        let pixels = vec![Pixel { colour: Colour::BLACK, open: 1.0 }; width * height];
        Self { width, height, horizon, eye, pixels }
    }

    /// Paints a share of a pixel with what is behind all that is there.
    #[inline(always)]
    pub fn paint(&mut self, column: usize, row: usize, colour: Colour, share: f32) {
        let pixel = &mut self.pixels[row * self.width + column];
        pixel.colour = pixel.colour + colour * (pixel.open * share);
        pixel.open *= 1.0 - share;
    }

    /// Whether there is still something to be seen of what is behind.
    #[inline(always)]
    pub fn is_open(&self, column: usize, row: usize) -> bool {
        self.pixels[row * self.width + column].open > 0.003
    }

    /// The colour at a point, between the pixels around it.
    pub fn at(&self, x: f32, y: f32) -> Colour {
        let x = (x - 0.5).clamp(0.0, self.width as f32 - 1.001);
        let y = (y - 0.5).clamp(0.0, self.height as f32 - 1.001);
        let (left, top) = (x as usize, y as usize);
        let colour = |column: usize, row: usize| self.pixels[row * self.width + column].colour;
        let above = colour(left, top).mix(colour(left + 1, top), x - left as f32);
        let below = colour(left, top + 1).mix(colour(left + 1, top + 1), x - left as f32);
        above.mix(below, y - top as f32)
    }

    pub fn into_colours(self) -> Vec<Colour> {
        self.pixels.into_iter().map(|pixel| pixel.colour).collect()
    }
}
