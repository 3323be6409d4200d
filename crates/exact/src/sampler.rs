//! From logits to a token: every tie broken, every sum ordered, ChaCha8 for chance.

use crate::math::exp;
use rand_chacha::ChaCha8Rng;
use rand_core::{Rng as _, SeedableRng as _};

/// Tokens whose weights lie below e^−17 < 2^−24 never change a sum that has reached 1.
const NEGLIGIBLE: f32 = -17.0;

/// How a token is chosen.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Sampling {
    /// 0 takes the likeliest token always.
    pub temperature: f32,
    /// Only this many likeliest tokens, 0 for all.
    pub top_k: usize,
    /// Only tokens at least this much as likely as the likeliest; 0 for all.
    pub min_p: f32,
    /// Only the likeliest tokens whose probabilities reach this sum; 1 for all.
    pub top_p: f32,
    /// Divides positive and multiplies negative logits of tokens seen before; 1 for none.
    pub repetition_penalty: f32,
    /// Taken from the logits of the answer's tokens, once for each; 0 for none.
    pub presence_penalty: f32,
    /// Taken from the logits of the answer's tokens, for every time they occur; 0 for none.
    pub frequency_penalty: f32,
}

impl Default for Sampling {
    fn default() -> Self {
        Self {
            temperature: 0.0,
            top_k: 0,
            min_p: 0.0,
            top_p: 1.0,
            repetition_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
        }
    }
}

/// One generation's source of chance: a stream that its seed determines.
pub struct Sampler {
    sampling: Sampling,
    rng: ChaCha8Rng,
    /// Memory kept from one token to the next.
    logits: Vec<f32>,
    tokens: Vec<u32>,
    weights: Vec<f32>,
}

impl Sampler {
    /// ChaCha8 with the seed's eight little-endian bytes, then zeros, as key.
    pub fn new(sampling: Sampling, seed: u64) -> Self {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&seed.to_le_bytes());
        let rng = ChaCha8Rng::from_seed(key);
        Self { sampling, rng, logits: Vec::new(), tokens: Vec::new(), weights: Vec::new() }
    }

    /// Chooses a token. The repetition penalty applies to tokens of prompt and answer, the other
    /// penalties to those of the answer. One 32-bit word of chance is drawn for each token when the
    /// temperature is above 0, none otherwise.
    ///
    /// # Panics
    /// If there are no logits.
    pub fn sample(&mut self, logits: &[f32], prompt: &[u32], answer: &[u32]) -> u32 {
        assert!(!logits.is_empty(), "at least one token to choose");
        // NaN counts as impossible, wherever it came from.
        self.logits.clear();
        self.logits.extend(logits.iter().map(|logit| if logit.is_nan() { f32::NEG_INFINITY } else { *logit }));
        self.penalise(prompt, answer);
        let Self { sampling: Sampling { temperature, top_k, min_p, top_p, .. }, logits, tokens, weights, .. } = self;
        let best = first_of_largest(logits);
        if *temperature <= 0.0 {
            return best;
        }
        let max = logits[best as usize];
        let score = |token: u32| (logits[token as usize] - max) / *temperature;
        tokens.clear();
        tokens.extend((0u32..).zip(&*logits).map(|(token, _)| token));
        // The first weight is 1 and sums run downwards from it, so what is negligible never shows:
        // not in a sum, and not as the choice, which is where a sum passes a target below the whole.
        // Only where the first weight is not a number, all are as good as each other.
        if max.is_finite() {
            tokens.retain(|token| {
                let negligible = score(*token) < NEGLIGIBLE;
                !negligible
            });
        }
        let descending = |a: &u32, b: &u32| logits[*b as usize].total_cmp(&logits[*a as usize]).then(a.cmp(b));
        if *top_k > 0 && *top_k < tokens.len() {
            tokens.select_nth_unstable_by(*top_k - 1, descending);
            tokens.truncate(*top_k);
        }
        tokens.sort_unstable_by(descending);
        weights.clear();
        weights.extend(tokens.iter().map(|token| exp(score(*token))));
        let least = *min_p * weights[0];
        if let Some(kept) = weights.iter().position(|weight| *weight < least) {
            weights.truncate(kept.max(1));
        }
        if *top_p < 1.0 {
            let limit = sum(weights) * *top_p;
            let mut reached = 0.0f32;
            let kept = weights.iter().position(|weight| {
                reached += weight;
                reached >= limit
            });
            weights.truncate(kept.map_or(weights.len(), |index| index + 1));
        }
        #[allow(clippy::cast_precision_loss)] // 24 bits
        let chance = (self.rng.next_u32() >> 8) as f32 * f32::from_bits(0x3380_0000); // 2^-24
        let target = chance * sum(weights);
        let mut reached = 0.0f32;
        let chosen = weights.iter().position(|weight| {
            reached += weight;
            reached > target
        });
        tokens[chosen.unwrap_or(weights.len() - 1)]
    }

    /// Applies the three penalties to the logits; tokens beyond them are ignored.
    fn penalise(&mut self, prompt: &[u32], answer: &[u32]) {
        let Sampling { repetition_penalty, presence_penalty, frequency_penalty, .. } = self.sampling;
        let Self { logits, tokens, .. } = self;
        if repetition_penalty != 1.0 {
            tokens.clear();
            tokens.extend(prompt.iter().chain(answer));
            tokens.sort_unstable();
            tokens.dedup();
            for token in &*tokens {
                if let Some(logit) = logits.get_mut(*token as usize) {
                    *logit = if *logit > 0.0 { *logit / repetition_penalty } else { *logit * repetition_penalty };
                }
            }
        }
        if presence_penalty != 0.0 || frequency_penalty != 0.0 {
            tokens.clear();
            tokens.extend(answer);
            tokens.sort_unstable();
            for same in tokens.chunk_by(|a, b| a == b) {
                if let Some(logit) = logits.get_mut(same[0] as usize) {
                    #[allow(clippy::cast_precision_loss)] // answers are far below 2^24 tokens
                    let count = same.len() as f32;
                    *logit -= frequency_penalty * count + presence_penalty;
                }
            }
        }
    }
}

/// The lowest index among the largest by IEEE total order.
fn first_of_largest(logits: &[f32]) -> u32 {
    // Keys that order as integers as the numbers do in total order.
    let key = |logit: &f32| {
        let bits = logit.to_bits().cast_signed();
        bits ^ ((bits >> 31).cast_unsigned() >> 1).cast_signed()
    };
    let mut largest = i32::MIN;
    for logit in logits {
        largest = largest.max(key(logit));
    }
    let index = logits.iter().position(|logit| key(logit) == largest).unwrap_or(0);
    u32::try_from(index).expect("vocabularies are below 2^20")
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
    use proptest::prelude::*;

    #[test]
    fn without_temperature_the_first_of_the_likeliest_is_taken() {
        let mut sampler = Sampler::new(Sampling::default(), 1);
        assert_eq!(sampler.sample(&[0.5, 2.0, f32::NAN, 2.0], &[], &[]), 1);
        assert_eq!(sampler.sample(&[f32::NAN, f32::NAN], &[], &[]), 0);
    }

    #[test]
    fn a_seed_gives_the_same_tokens_on_every_machine() {
        let logits: Vec<f32> = (0..50).map(|i| (i % 7) as f32 * 0.5).collect();
        let sampling =
            Sampling { temperature: 0.8, top_k: 20, top_p: 0.9, repetition_penalty: 1.1, ..Sampling::default() };
        let tokens = |seed| {
            let mut sampler = Sampler::new(sampling, seed);
            let mut seen = Vec::new();
            for _ in 0..12 {
                let token = sampler.sample(&logits, &seen[..seen.len() / 2], &seen[seen.len() / 2..]);
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
            let sample = |sampling| Sampler::new(sampling, seed).sample(&logits, &[], &[]);
            assert_eq!(sample(Sampling { temperature: 1.0, top_k: 1, ..Sampling::default() }), 0);
            assert!(sample(Sampling { temperature: 1.0, top_p: 0.9, ..Sampling::default() }) < 2);
        }
    }

    /// `NUMERICS.md`, word by word.
    fn naive(sampling: Sampling, seed: u64, logits: &[f32], prompt: &[u32], answer: &[u32]) -> u32 {
        let mut logits: Vec<f32> = logits.iter().map(|x| if x.is_nan() { f32::NEG_INFINITY } else { *x }).collect();
        for token in 0..logits.len() as u32 {
            let logit = &mut logits[token as usize];
            if sampling.repetition_penalty != 1.0 && (prompt.contains(&token) || answer.contains(&token)) {
                let penalty = sampling.repetition_penalty;
                *logit = if *logit > 0.0 { *logit / penalty } else { *logit * penalty };
            }
            let count = answer.iter().filter(|other| **other == token).count();
            if count > 0 && (sampling.frequency_penalty != 0.0 || sampling.presence_penalty != 0.0) {
                *logit -= sampling.frequency_penalty * count as f32 + sampling.presence_penalty;
            }
        }
        let mut order: Vec<u32> = (0..logits.len() as u32).collect();
        order.sort_by(|a, b| logits[*b as usize].total_cmp(&logits[*a as usize]).then(a.cmp(b)));
        if sampling.temperature <= 0.0 {
            return order[0];
        }
        if sampling.top_k > 0 {
            order.truncate(sampling.top_k);
        }
        let max = logits[order[0] as usize];
        let weight = |token: &u32| exp((logits[*token as usize] - max) / sampling.temperature);
        let mut weights: Vec<f32> = order.iter().map(weight).collect();
        let least = sampling.min_p * weights[0];
        let below = weights.iter().position(|weight| *weight < least).unwrap_or(weights.len());
        weights.truncate(below.max(1));
        if sampling.top_p < 1.0 {
            let limit = sum(&weights) * sampling.top_p;
            let kept = (1..=weights.len()).find(|kept| sum(&weights[..*kept]) >= limit);
            weights.truncate(kept.unwrap_or(weights.len()));
        }
        let mut key = [0; 32];
        key[..8].copy_from_slice(&seed.to_le_bytes());
        let chance = (ChaCha8Rng::from_seed(key).next_u32() >> 8) as f32 / 16_777_216.0;
        let target = chance * sum(&weights);
        order[(0..weights.len()).find(|last| sum(&weights[..=*last]) > target).unwrap_or(weights.len() - 1)]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn the_top_part_is_enough(
            mut logits in proptest::collection::vec(-30.0f32..30.0, 1..300), odd: u32, spread in 0.0f32..2.0,
            seed: u64, temperature in 0.0f32..2.0, top_k in 0usize..80, top_p in 0.0f32..1.3,
            min_p in prop_oneof![Just(0.0f32), 0.0f32..1.2], penalty in prop_oneof![Just(1.0f32), 0.5f32..2.0],
            presence in prop_oneof![Just(0.0f32), -2.0f32..2.0], frequency in prop_oneof![Just(0.0f32), -2.0f32..2.0],
            prompt in proptest::collection::vec(0u32..320, 0..20), answer in proptest::collection::vec(0u32..320, 0..40),
            special in prop_oneof![Just(None), (0usize..300, 0usize..6).prop_map(Some)],
        ) {
            for logit in &mut logits {
                // Many equal ones among them.
                *logit = (*logit * spread * 4.0).round() / 4.0;
            }
            if let Some((at, kind)) = special {
                let at = at % logits.len();
                match kind {
                    0 => logits.fill(f32::NEG_INFINITY),
                    1 => logits[at] = f32::INFINITY,
                    2 => logits[at] = f32::NAN,
                    3 => logits[at] = f32::NEG_INFINITY,
                    4 => logits[at] = -0.0,
                    _ => logits[at] = f32::from_bits(odd),
                }
            }
            let sampling = Sampling {
                temperature, top_k, min_p, top_p,
                repetition_penalty: penalty, presence_penalty: presence, frequency_penalty: frequency,
            };
            let token = Sampler::new(sampling, seed).sample(&logits, &prompt, &answer);
            prop_assert_eq!(token, naive(sampling, seed, &logits, &prompt, &answer));
        }
    }
}
