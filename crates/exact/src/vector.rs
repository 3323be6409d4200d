//! Steps over whole vectors: the functions of `math` in the same operations and the same order, so
//! written that compilers make vectors of them, and compiled for each level.
//!
//! Where the contract asks for a sum in order, several rows go side by side: each sum is as it
//! would be alone, and they wait for their additions together.

use crate::{
    config::Activation,
    isa::{Isa, Work, dispatch},
    math::{self, EXP, EXP_MAX, EXP_MIN, LN2_HIGH, LN2_LOW, LOG2_E, ROUND},
    plan::Plan,
};

/// Rows whose sums go side by side: as many as hide the time of an addition.
const ROWS: usize = 8;
/// Elements that are worth a task of their own.
const CHUNK: usize = 4096;

/// [`crate::math::exp`] without branches.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    let t = x * LOG2_E + ROUND;
    let n = t - ROUND;
    let r = (x - n * LN2_HIGH) - n * LN2_LOW;
    let mut p = EXP[0];
    for coefficient in &EXP[1..] {
        p = p * r + coefficient;
    }
    let y = (p * (r * r) + r) + 1.0;
    // Within the bounds the bits of t are those of 1.5·2^23 plus n; beyond them anything may come
    // out, and is not taken.
    let exponent = t.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(127);
    let result = y * f32::from_bits(exponent << 23);
    let result = if x < EXP_MIN { 0.0 } else { result };
    let result = if x > EXP_MAX { f32::INFINITY } else { result };
    if x.is_nan() { f32::NAN } else { result }
}

/// `gate[i] = SiLU(gate[i]) · up[i]`.
pub(crate) fn silu_multiply(gate: &mut [f32], up: &[f32], plan: &Plan) {
    // An exponential is worth some twenty products.
    plan.run_chunks(gate, CHUNK, up.len() * 20, &|index, gate| {
        dispatch(plan.level, SiluMultiply { gate, up: &up[index * CHUNK..] });
    });
}

struct SiluMultiply<'a> {
    gate: &'a mut [f32],
    up: &'a [f32],
}

impl Work for SiluMultiply<'_> {
    #[inline(always)]
    unsafe fn run<S: Isa>(self) {
        for (gate, up) in self.gate.iter_mut().zip(self.up) {
            *gate = (*gate / (1.0 + exp(-*gate))) * up;
        }
    }
}

/// `values[i] = activation(values[i])`.
pub(crate) fn gelu(activation: Activation, values: &mut [f32], plan: &Plan) {
    let products = values.len() * 20;
    plan.run_chunks(values, CHUNK, products, &|_, values| dispatch(plan.level, Gelu { activation, values }));
}

struct Gelu<'a> {
    activation: Activation,
    values: &'a mut [f32],
}

impl Work for Gelu<'_> {
    #[inline(always)]
    unsafe fn run<S: Isa>(self) {
        match self.activation {
            Activation::Gelu => self.values.iter_mut().for_each(|x| *x = math::gelu(*x)),
            Activation::GeluTanh => self.values.iter_mut().for_each(|x| *x = math::gelu_tanh(*x)),
        }
    }
}

/// `x[i] = x[i] + y[i]`.
pub(crate) fn add(x: &mut [f32], y: &[f32]) {
    for (x, y) in x.iter_mut().zip(y) {
        *x += y;
    }
}

/// `rows[r][i] = rows[r][i] + bias[i]`.
pub(crate) fn add_bias(rows: &mut [f32], bias: &[f32]) {
    for row in rows.chunks_exact_mut(bias.len()) {
        add(row, bias);
    }
}

/// RMS norm of each row of `weight.len()` elements, in place.
pub(crate) fn rms_norm_rows(rows: &mut [f32], weight: &[f32], epsilon: f32, plan: &Plan) {
    let chunk = ROWS * weight.len();
    let products = 4 * rows.len();
    plan.run_chunks(rows, chunk, products, &|_, rows| dispatch(plan.level, RmsNorm { rows, weight, epsilon }));
}

struct RmsNorm<'a> {
    /// At most [`ROWS`].
    rows: &'a mut [f32],
    weight: &'a [f32],
    epsilon: f32,
}

impl Work for RmsNorm<'_> {
    #[inline(always)]
    unsafe fn run<S: Isa>(self) {
        let n = self.weight.len();
        let sums = sums(self.rows, n, |_, x| x * x);
        for (row, sum) in self.rows.chunks_exact_mut(n).zip(sums) {
            #[allow(clippy::cast_precision_loss)] // dimensions are far below 2^24
            let scale = 1.0 / (sum / n as f32 + self.epsilon).sqrt();
            for (x, weight) in row.iter_mut().zip(self.weight) {
                *x = (*x * scale) * weight;
            }
        }
    }
}

/// Layer norm of each row of `weight.len()` elements, in place.
pub(crate) fn layer_norm_rows(rows: &mut [f32], weight: &[f32], bias: &[f32], epsilon: f32, plan: &Plan) {
    let chunk = ROWS * weight.len();
    let products = 6 * rows.len();
    plan.run_chunks(rows, chunk, products, &|_, rows| dispatch(plan.level, LayerNorm { rows, weight, bias, epsilon }));
}

struct LayerNorm<'a> {
    /// At most [`ROWS`].
    rows: &'a mut [f32],
    weight: &'a [f32],
    bias: &'a [f32],
    epsilon: f32,
}

impl Work for LayerNorm<'_> {
    #[inline(always)]
    unsafe fn run<S: Isa>(self) {
        let n = self.weight.len();
        #[allow(clippy::cast_precision_loss)] // dimensions are far below 2^24
        let count = n as f32;
        let means = sums(self.rows, n, |_, x| x).map(|sum| sum / count);
        let variances = sums(self.rows, n, |r, x| (x - means[r]) * (x - means[r])).map(|sum| sum / count);
        for ((row, mean), variance) in self.rows.chunks_exact_mut(n).zip(means).zip(variances) {
            let scale = 1.0 / (variance + self.epsilon).sqrt();
            for ((x, weight), bias) in row.iter_mut().zip(self.weight).zip(self.bias) {
                *x = ((*x - mean) * scale) * weight + bias;
            }
        }
    }
}

/// `Σ term(row, x)` of up to [`ROWS`] rows of n, each in order.
#[inline(always)]
fn sums(rows: &[f32], n: usize, term: impl Fn(usize, f32) -> f32) -> [f32; ROWS] {
    let mut sums = [0.0f32; ROWS];
    if rows.len() == ROWS * n {
        for i in 0..n {
            for (r, sum) in sums.iter_mut().enumerate() {
                *sum += term(r, rows[r * n + i]);
            }
        }
    } else {
        for (r, (row, sum)) in rows.chunks_exact(n).zip(&mut sums).enumerate() {
            for x in row {
                *sum += term(r, *x);
            }
        }
    }
    sums
}

/// Softmax of T rows in place; row t begins at `t · stride` and has `lengths[t]` elements, no fewer
/// than the row before.
#[inline(always)]
pub(crate) fn softmax_rows<const T: usize>(scores: &mut [f32], stride: usize, lengths: [usize; T]) {
    for (t, length) in lengths.into_iter().enumerate() {
        let row = &mut scores[t * stride..][..length];
        // The largest element is the same in any order; of two zeros either gives the same exp.
        let mut largest = [f32::NEG_INFINITY; 16];
        let (chunks, rest) = row.as_chunks::<16>();
        for chunk in chunks {
            for (largest, x) in largest.iter_mut().zip(chunk) {
                *largest = if *x > *largest { *x } else { *largest };
            }
        }
        let mut max = f32::NEG_INFINITY;
        for x in largest.iter().chain(rest) {
            max = if *x > max { *x } else { max };
        }
        for x in row {
            *x = exp(*x - max);
        }
    }
    let mut sums = [0.0f32; T];
    let shared = lengths[0];
    for i in 0..shared {
        for (t, sum) in sums.iter_mut().enumerate() {
            *sum += scores[t * stride + i];
        }
    }
    for (t, length) in lengths.into_iter().enumerate() {
        let row = &mut scores[t * stride..][..length];
        for x in &row[shared..] {
            sums[t] += x;
        }
        for x in row {
            *x /= sums[t];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::level::Level;
    use proptest::prelude::*;

    fn bits(values: &[f32]) -> Vec<u32> {
        values.iter().map(|value| math::canonical_bits(*value)).collect()
    }

    #[test]
    fn exp_without_branches_is_exp() {
        for bits in (0..=u32::MAX).step_by(997) {
            let x = f32::from_bits(bits);
            assert_eq!(math::canonical_bits(exp(x)), math::canonical_bits(math::exp(x)), "{x}");
        }
        for x in [-87.0, 88.0, -87.00001, 88.00001, 0.0, -0.0, 87.99999] {
            assert_eq!(exp(x).to_bits(), math::exp(x).to_bits(), "{x}");
        }
    }

    struct Softmax<'a>(&'a mut [f32], usize, [usize; 3]);

    impl Work for Softmax<'_> {
        #[inline(always)]
        unsafe fn run<S: Isa>(self) {
            softmax_rows(self.0, self.1, self.2);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn vectors_have_the_bits_of_single_elements(
            mut values in proptest::collection::vec(-90.0f32..90.0, 171), odd: u32, at in 0usize..171,
        ) {
            values[at] = f32::from_bits(odd);
            for level in Level::available() {
                let plan = Plan::at(level, 2).splitting_all();
                let up: Vec<f32> = values.iter().rev().copied().collect();
                let mut gate = values.clone();
                silu_multiply(&mut gate, &up, &plan);
                let expected: Vec<_> = values.iter().zip(&up).map(|(x, up)| math::silu(*x) * up).collect();
                prop_assert_eq!(bits(&gate), bits(&expected));

                for n in [9, 19, 171] {
                    let mut rows = values.clone();
                    rms_norm_rows(&mut rows, &up[..n], 1e-5, &plan);
                    let mut expected = vec![0.0; 171];
                    for (x, out) in values.chunks(n).zip(expected.chunks_mut(n)) {
                        math::rms_norm(x, &up[..n], 1e-5, out);
                    }
                    prop_assert_eq!(bits(&rows), bits(&expected));
                    let (mut rows, bias) = (values.clone(), &values[171 - n..]);
                    layer_norm_rows(&mut rows, &up[..n], bias, 1e-5, &plan);
                    for (x, out) in values.chunks(n).zip(expected.chunks_mut(n)) {
                        math::layer_norm(x, &up[..n], bias, 1e-5, out);
                    }
                    prop_assert_eq!(bits(&rows), bits(&expected));
                }
                for (activation, single) in
                    [(Activation::Gelu, math::gelu as fn(f32) -> f32), (Activation::GeluTanh, math::gelu_tanh)]
                {
                    let mut rows = values.clone();
                    gelu(activation, &mut rows, &plan);
                    let expected: Vec<_> = values.iter().map(|x| single(*x)).collect();
                    prop_assert_eq!(bits(&rows), bits(&expected));
                }

                let (mut rows, lengths) = (values.clone(), [17, 18, 57]);
                dispatch(level, Softmax(&mut rows, 57, lengths));
                for (t, length) in lengths.into_iter().enumerate() {
                    let mut expected = values[t * 57..][..length].to_vec();
                    math::softmax(&mut expected);
                    prop_assert_eq!(bits(&rows[t * 57..][..length]), bits(&expected));
                }
            }
        }
    }
}
