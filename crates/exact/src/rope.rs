//! Rotary positions: cosines and sines in binary64 by pure Rust, rounded once to f32.
//!
//! They are computed when a position is first reached, 64 positions at a time, and shared by all
//! sequences from then on.

use std::sync::OnceLock;

/// Positions that are computed together.
const PAGE: usize = 64;

/// Which elements of a head turn together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum RopePairs {
    /// i and i + d/2: Hugging Face's order.
    #[default]
    Halves,
    /// 2i and 2i + 1: the order of GGUF's llama files.
    Interleaved,
}

/// What rotary positions a model has.
#[derive(Clone, Debug, PartialEq)]
pub struct RopeConfig {
    pub theta: f64,
    pub pairs: RopePairs,
    /// Divisors of the frequencies, one for each pair of a head; none divides by 1. Llama 3's and
    /// linear scaling are such tables.
    pub factors: Option<Vec<f64>>,
    /// Multiplies cosines and sines, 1 for most models: the attention factor of YaRN.
    pub magnitude: f64,
}

impl RopeConfig {
    /// Plain rotary positions.
    pub fn plain(theta: f64) -> Self {
        Self { theta, pairs: RopePairs::Halves, factors: None, magnitude: 1.0 }
    }

    /// Whether every number can be computed with, for heads of which `rotary_dim` elements are rotated.
    pub fn is_valid(&self, rotary_dim: usize) -> bool {
        let divisor = |factor: &f64| factor.is_finite() && *factor > 0.0;
        let factors = self.factors.as_ref();
        factors.is_none_or(|factors| factors.len() == rotary_dim / 2 && factors.iter().all(divisor))
            && (1.0..=1e12).contains(&self.theta)
            && divisor(&self.magnitude)
    }
}

/// Rotates heads of one size.
pub(crate) struct Rope {
    pairs: RopePairs,
    head_dim: usize,
    /// Pairs of a head; its elements beyond them are not rotated.
    half: usize,
    magnitude: f64,
    /// Of each pair, per position.
    frequencies: Vec<f64>,
    /// `[64 positions][half][cos, sin as two runs]`.
    pages: Vec<OnceLock<Box<[f32]>>>,
}

impl Rope {
    /// For heads of `head_dim` elements, of which the first `rotary_dim` are rotated.
    pub fn new(config: &RopeConfig, head_dim: usize, rotary_dim: usize, context_tokens: usize) -> Self {
        #[allow(clippy::cast_precision_loss)] // dimensions are far below 2^52
        let frequency = |i: usize| {
            let base = libm::pow(config.theta, -((2 * i) as f64) / rotary_dim as f64);
            config.factors.as_ref().map_or(base, |factors| base / factors[i])
        };
        Self {
            pairs: config.pairs,
            head_dim,
            half: rotary_dim / 2,
            magnitude: config.magnitude,
            frequencies: (0..rotary_dim / 2).map(frequency).collect(),
            pages: (0..context_tokens.div_ceil(PAGE)).map(|_| OnceLock::new()).collect(),
        }
    }

    /// Cosines, then sines, of one position.
    fn angles(&self, position: usize) -> (&[f32], &[f32]) {
        let page = self.pages[position / PAGE].get_or_init(|| {
            let mut page = Vec::with_capacity(PAGE * 2 * self.half);
            for position in position / PAGE * PAGE..(position / PAGE + 1) * PAGE {
                #[allow(clippy::cast_precision_loss)] // positions are far below 2^52
                let angle = |frequency: &f64| position as f64 * frequency;
                #[allow(clippy::cast_possible_truncation)] // rounding to f32 is the contract
                let round = |value: f64| (value * self.magnitude) as f32;
                page.extend(self.frequencies.iter().map(|frequency| round(libm::cos(angle(frequency)))));
                page.extend(self.frequencies.iter().map(|frequency| round(libm::sin(angle(frequency)))));
            }
            page.into()
        });
        page[position % PAGE * 2 * self.half..][..2 * self.half].split_at(self.half)
    }

    /// Rotates the heads of one token in place.
    pub fn rotate(&self, heads: &mut [f32], position: usize) {
        let (cos, sin) = self.angles(position);
        for head in heads.chunks_exact_mut(self.head_dim) {
            let head = &mut head[..2 * self.half];
            match self.pairs {
                RopePairs::Halves => {
                    let (first, second) = head.split_at_mut(self.half);
                    for ((a, b), (cos, sin)) in first.iter_mut().zip(second).zip(cos.iter().zip(sin)) {
                        (*a, *b) = (*a * cos - *b * sin, *b * cos + *a * sin);
                    }
                }
                RopePairs::Interleaved => {
                    for ([a, b], (cos, sin)) in head.as_chunks_mut().0.iter_mut().zip(cos.iter().zip(sin)) {
                        (*a, *b) = (*a * cos - *b * sin, *b * cos + *a * sin);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_turn_by_position_over_their_factor() {
        let plain = Rope::new(&RopeConfig::plain(100.0), 6, 4, 200);
        let mut head = [1.0, 2.0, 0.0, 0.0, 7.0, 8.0];
        plain.rotate(&mut head, 130);
        let (a, b) = (130.0f64, 13.0f64);
        let expected = [a.cos(), 2.0 * b.cos(), a.sin(), 2.0 * b.sin(), 7.0, 8.0];
        assert!(head.iter().zip(expected).all(|(x, y)| (f64::from(*x) - y).abs() < 1e-6), "{head:?}");

        let config = RopeConfig {
            pairs: RopePairs::Interleaved,
            factors: Some(vec![2.0, 0.5]),
            magnitude: 1.5,
            ..RopeConfig::plain(100.0)
        };
        assert!(config.is_valid(4) && !config.is_valid(6));
        let mut head = [1.0, 0.0, 2.0, 0.0];
        Rope::new(&config, 4, 4, 200).rotate(&mut head, 130);
        let (a, b) = (65.0f64, 26.0f64);
        let expected = [a.cos(), a.sin(), 2.0 * b.cos(), 2.0 * b.sin()].map(|x| 1.5 * x);
        assert!(head.iter().zip(expected).all(|(x, y)| (f64::from(*x) - y).abs() < 1e-6), "{head:?}");
    }
}
