//! From logits to a token: every tie broken, every sum ordered, ChaCha8 for chance.

use crate::math::exp;
use rand_chacha::ChaCha8Rng;
use rand_core::{Rng as _, SeedableRng as _};

/// How a token is chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// 0 takes the likeliest token always.
    pub temperature: f32,
    /// Only this many likeliest tokens, 0 for all.
    pub top_k: usize,
    /// Only the likeliest tokens whose probabilities reach this sum; 1 for all.
    pub top_p: f32,
    /// Divides positive and multiplies negative logits of tokens seen before; 1 for none.
    pub repetition_penalty: f32,
}

impl Default for Sampling {
    fn default() -> Self {
        Self { temperature: 0.0, top_k: 0, top_p: 1.0, repetition_penalty: 1.0 }
    }
}

/// One generation's source of chance: a stream that its seed determines.
pub struct Sampler {
    sampling: Sampling,
    rng: ChaCha8Rng,
}

impl Sampler {
    /// ChaCha8 with the seed's eight little-endian bytes, then zeros, as key.
    pub fn new(sampling: Sampling, seed: u64) -> Self {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&seed.to_le_bytes());
        Self { sampling, rng: ChaCha8Rng::from_seed(key) }
    }

    /// Chooses a token. `seen` are the tokens that the repetition penalty applies to. One 32-bit
    /// word of chance is drawn for each token when the temperature is above 0, none otherwise.
    pub fn sample(&mut self, logits: &[f32], seen: &[u32]) -> u32 {
        let Sampling { temperature, top_k, top_p, repetition_penalty } = self.sampling;
        // NaN counts as impossible, wherever it came from.
        let mut logits: Vec<f32> =
            logits.iter().map(|logit| if logit.is_nan() { f32::NEG_INFINITY } else { *logit }).collect();
        if repetition_penalty != 1.0 {
            let mut distinct = seen.to_vec();
            distinct.sort_unstable();
            distinct.dedup();
            for token in distinct {
                if let Some(logit) = logits.get_mut(token as usize) {
                    *logit = if *logit > 0.0 { *logit / repetition_penalty } else { *logit * repetition_penalty };
                }
            }
        }
        let mut order: Vec<u32> = (0..u32::try_from(logits.len()).expect("vocabularies are below 2^20")).collect();
        let descending = |a: &u32, b: &u32| logits[*b as usize].total_cmp(&logits[*a as usize]).then(a.cmp(b));
        if temperature <= 0.0 {
            return order.into_iter().min_by(descending).unwrap_or(0);
        }
        order.sort_unstable_by(descending);
        if top_k > 0 {
            order.truncate(top_k);
        }
        let max = logits[order[0] as usize];
        let mut weights: Vec<f32> =
            order.iter().map(|token| exp((logits[*token as usize] - max) / temperature)).collect();
        if top_p < 1.0 {
            let limit = sum(&weights) * top_p;
            let mut reached = 0.0f32;
            let kept = weights.iter().position(|weight| {
                reached += weight;
                reached >= limit
            });
            weights.truncate(kept.map_or(weights.len(), |index| index + 1));
        }
        #[allow(clippy::cast_precision_loss)] // 24 bits
        let chance = (self.rng.next_u32() >> 8) as f32 * f32::from_bits(0x3380_0000); // 2^-24
        let target = chance * sum(&weights);
        let mut reached = 0.0f32;
        let chosen = weights.iter().position(|weight| {
            reached += weight;
            reached > target
        });
        order[chosen.unwrap_or(weights.len() - 1)]
    }
}

fn sum(values: &[f32]) -> f32 {
    let mut sum = 0.0f32;
    for value in values {
        sum += value;
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_temperature_the_first_of_the_likeliest_is_taken() {
        let mut sampler = Sampler::new(Sampling::default(), 1);
        assert_eq!(sampler.sample(&[0.5, 2.0, f32::NAN, 2.0], &[]), 1);
        assert_eq!(sampler.sample(&[f32::NAN, f32::NAN], &[]), 0);
    }

    #[test]
    fn a_seed_gives_the_same_tokens_on_every_machine() {
        let logits: Vec<f32> = (0..50).map(|i| (i % 7) as f32 * 0.5).collect();
        let sampling = Sampling { temperature: 0.8, top_k: 20, top_p: 0.9, repetition_penalty: 1.1 };
        let tokens = |seed| {
            let mut sampler = Sampler::new(sampling, seed);
            let mut seen = Vec::new();
            for _ in 0..12 {
                let token = sampler.sample(&logits, &seen);
                seen.push(token);
            }
            seen
        };
        assert_eq!(tokens(7), GOLDEN);
        assert_ne!(tokens(7), tokens(8));
    }
    const GOLDEN: [u32; 12] = [13, 26, 26, 48, 41, 6, 20, 13, 47, 20, 26, 13];

    #[test]
    fn top_p_and_top_k_bound_the_choice() {
        let logits = [3.0, 2.9, -1.0, -1.0];
        for seed in 0..200 {
            let sample = |sampling| Sampler::new(sampling, seed).sample(&logits, &[]);
            assert_eq!(sample(Sampling { temperature: 1.0, top_k: 1, ..Sampling::default() }), 0);
            assert!(sample(Sampling { temperature: 1.0, top_p: 0.9, ..Sampling::default() }) < 2);
        }
    }
}
