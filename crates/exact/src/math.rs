//! Elementary functions, each a stated sequence of single IEEE-754 operations. See `NUMERICS.md`.
//!
//! Nothing here calls a transcendental function of the standard library or of C: those differ from
//! platform to platform.

/// 1.5 · 2^23: adding and subtracting it rounds a small f32 to the nearest integer, ties to even.
pub(crate) const ROUND: f32 = 12_582_912.0;
pub(crate) const LOG2_E: f32 = f32::from_bits(0x3fb8_aa3b);
/// ln 2 in two parts, the first with trailing zeros so that its small multiples are exact.
pub(crate) const LN2_HIGH: f32 = f32::from_bits(0x3f31_8000);
pub(crate) const LN2_LOW: f32 = f32::from_bits(0xb95e_8083);
/// Coefficients of (e^r − 1 − r) / r², |r| ≤ ln 2 / 2, highest power first.
pub(crate) const EXP: [f32; 6] = [
    f32::from_bits(0x3950_6967),
    f32::from_bits(0x3ab7_43ce),
    f32::from_bits(0x3c08_8908),
    f32::from_bits(0x3d2a_a9c1),
    f32::from_bits(0x3e2a_aaaa),
    f32::from_bits(0x3f00_0000),
];
/// Below this e^x is taken as 0, above [`EXP_MAX`] as infinity.
pub const EXP_MIN: f32 = -87.0;
/// See [`EXP_MIN`].
pub const EXP_MAX: f32 = 88.0;

/// e^x with an error below 2 units of the last place; 0 below −87, infinity above 88, NaN for NaN.
#[inline]
pub fn exp(x: f32) -> f32 {
    if x.is_nan() {
        return f32::NAN;
    }
    if x < EXP_MIN {
        return 0.0;
    }
    if x > EXP_MAX {
        return f32::INFINITY;
    }
    let n = (x * LOG2_E + ROUND) - ROUND;
    let r = (x - n * LN2_HIGH) - n * LN2_LOW;
    let mut p = EXP[0];
    for coefficient in &EXP[1..] {
        p = p * r + coefficient;
    }
    let y = (p * (r * r) + r) + 1.0;
    // n is between −126 and 127, so 2^n is a normal number and the product exact.
    #[allow(clippy::cast_possible_truncation)]
    let exponent = (n as i32 + 127) as u32;
    y * f32::from_bits(exponent << 23)
}

/// x / (1 + e^−x).
#[inline]
pub fn silu(x: f32) -> f32 {
    x / (1.0 + exp(-x))
}

/// Beyond this, [`half_erf`] is ±½.
pub(crate) const HALF_ERF_MAX: f32 = f32::from_bits(0x40b3_3333);
/// Numerator and denominator of `½·erf(x/√2) / x` in x², highest power first.
pub(crate) const HALF_ERF: [[f32; 6]; 2] = [
    [
        f32::from_bits(0x32bf_892c),
        f32::from_bits(0x36d3_0c79),
        f32::from_bits(0x3931_2166),
        f32::from_bits(0x3b99_4439),
        f32::from_bits(0x3d0a_f8b6),
        f32::from_bits(0x3ecc_4229),
    ],
    [
        f32::from_bits(0x359e_54ea),
        f32::from_bits(0x3899_cf97),
        f32::from_bits(0x3af7_21bf),
        f32::from_bits(0x3cea_ecab),
        f32::from_bits(0x3e80_e07d),
        f32::from_bits(0x3f80_0000),
    ],
];
/// 2·√(2/π)
pub(crate) const GELU_TANH: f32 = f32::from_bits(0x3fcc_422a);
/// 0.044715
pub(crate) const GELU_TANH_CUBE: f32 = f32::from_bits(0x3d37_2713);

/// The larger of two, as a vector instruction takes it: `b` if either is NaN.
#[inline(always)]
pub(crate) fn max(a: f32, b: f32) -> f32 {
    if a > b { a } else { b }
}

/// The smaller of two: `b` if either is NaN.
#[inline(always)]
pub(crate) fn min(a: f32, b: f32) -> f32 {
    if a < b { a } else { b }
}

/// `½·erf(x/√2)` with an error below 2·10⁻⁷: how much likelier than ½ a normal variable is below x.
#[inline(always)]
pub fn half_erf(x: f32) -> f32 {
    let x = max(-HALF_ERF_MAX, min(HALF_ERF_MAX, x));
    let square = x * x;
    let [numerator, denominator] = HALF_ERF.map(|coefficients| {
        let mut sum = coefficients[0];
        for coefficient in &coefficients[1..] {
            sum = sum * square + coefficient;
        }
        sum
    });
    max(-0.5, min(0.5, (x * numerator) / denominator))
}

/// `x·Φ(x)`, by the error function.
#[inline(always)]
pub fn gelu(x: f32) -> f32 {
    x * (0.5 + half_erf(x))
}

/// Its approximation `½·x·(1 + tanh(√(2/π)·(x + 0.044715·x³)))`, written with exp.
#[inline(always)]
pub fn gelu_tanh(x: f32) -> f32 {
    let u = (x * GELU_TANH) * (1.0 + (x * x) * GELU_TANH_CUBE);
    x / (1.0 + crate::vector::exp(-u))
}

/// Softmax in place: subtracts the maximum, exponentiates, sums from the first to the last element,
/// divides each by the sum.
pub fn softmax(values: &mut [f32]) {
    let mut max = f32::NEG_INFINITY;
    for value in values.iter() {
        if *value > max {
            max = *value;
        }
    }
    let mut sum = 0.0f32;
    for value in values.iter_mut() {
        *value = exp(*value - max);
        sum += *value;
    }
    for value in values.iter_mut() {
        *value /= sum;
    }
}

/// RMS norm: `out[i] = (x[i] · (1 / √(mean(x²) + ε))) · weight[i]`, the squares summed in order.
pub fn rms_norm(x: &[f32], weight: &[f32], epsilon: f32, out: &mut [f32]) {
    let mut sum = 0.0f32;
    for value in x {
        sum += value * value;
    }
    #[allow(clippy::cast_precision_loss)] // dimensions are far below 2^24
    let scale = 1.0 / (sum / x.len() as f32 + epsilon).sqrt();
    for ((out, x), weight) in out.iter_mut().zip(x).zip(weight) {
        *out = (x * scale) * weight;
    }
}

/// Layer norm: with the mean `μ = Σ x / n`, `out[i] = ((x[i] − μ) · (1 / √(Σ (x − μ)² / n + ε))) ·
/// weight[i] + bias[i]`, both sums in order.
pub fn layer_norm(x: &[f32], weight: &[f32], bias: &[f32], epsilon: f32, out: &mut [f32]) {
    #[allow(clippy::cast_precision_loss)] // dimensions are far below 2^24
    let n = x.len() as f32;
    let mut sum = 0.0f32;
    for value in x {
        sum += value;
    }
    let mean = sum / n;
    let mut sum = 0.0f32;
    for value in x {
        sum += (value - mean) * (value - mean);
    }
    let scale = 1.0 / (sum / n + epsilon).sqrt();
    for (((out, x), weight), bias) in out.iter_mut().zip(x).zip(weight).zip(bias) {
        *out = ((x - mean) * scale) * weight + bias;
    }
}

/// `Σ a[i] · b[i]` in order, multiply then add.
#[inline]
pub fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut sum = 0.0f32;
    for (a, b) in a.iter().zip(b) {
        sum += a * b;
    }
    sum
}

/// The f32 of an IEEE half; exact.
pub fn f16_to_f32(bits: u16) -> f32 {
    let sign = u32::from(bits & 0x8000) << 16;
    let exponent = u32::from(bits >> 10) & 0x1f;
    let fraction = u32::from(bits) & 0x3ff;
    match (exponent, fraction) {
        (0, 0) => f32::from_bits(sign),
        (0, _) => {
            #[allow(clippy::cast_precision_loss)] // ten bits
            let magnitude = fraction as f32 * f32::from_bits(0x3380_0000); // 2^-24
            f32::from_bits(sign | magnitude.to_bits())
        }
        (31, 0) => f32::from_bits(sign | 0x7f80_0000),
        (31, _) => f32::from_bits(0x7fc0_0000),
        _ => f32::from_bits(sign | ((exponent + 112) << 23) | (fraction << 13)),
    }
}

/// The bits that digests use: one NaN for all.
#[inline]
pub fn canonical_bits(x: f32) -> u32 {
    if x.is_nan() { 0x7fc0_0000 } else { x.to_bits() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_within_two_units_of_the_last_place() {
        let mut worst = 0.0f64;
        for i in -870_000..=880_000 {
            let x = i as f32 * 1e-4;
            let (got, want) = (f64::from(exp(x)), libm::exp(f64::from(x)));
            let ulp = f64::from(f32::from_bits((want as f32).to_bits() + 1)) - f64::from(want as f32);
            worst = worst.max((got - want).abs() / ulp);
        }
        assert!(worst < 2.0, "{worst} units");
    }

    #[test]
    fn gelu_is_close_to_the_error_function_and_to_its_approximation() {
        for i in -100_000..=100_000i32 {
            let x = i as f32 * 1e-4;
            let wide = f64::from(x);
            let phi = 0.5 * libm::erfc(-wide / std::f64::consts::SQRT_2);
            assert!((f64::from(half_erf(x)) - (phi - 0.5)).abs() < 2e-7, "half_erf({x})");
            assert!((f64::from(gelu(x)) - wide * phi).abs() < 1.3e-6, "gelu({x})");
            let u = (2.0 / std::f64::consts::PI).sqrt() * (wide + 0.044_715 * wide.powi(3));
            let tanh = 0.5 * wide * (1.0 + libm::tanh(u));
            assert!((f64::from(gelu_tanh(x)) - tanh).abs() < 1.3e-6, "gelu_tanh({x})");
        }
        for (x, expected) in [(f32::INFINITY, f32::INFINITY), (1e4, 1e4), (-20.0, 0.0), (-1e30, 0.0), (0.0, 0.0)] {
            assert_eq!((gelu(x), gelu_tanh(x).abs()), (expected, expected), "{x}");
        }
        assert!(gelu(f32::NAN).is_nan() && gelu_tanh(f32::NAN).is_nan());
    }

    #[test]
    fn layer_norm_has_mean_zero_and_variance_one() {
        let mut out = [0.0; 4];
        layer_norm(&[1.0, 2.0, 3.0, 6.0], &[1.0, 1.0, 1.0, 2.0], &[0.0, 0.0, 0.0, 10.0], 0.0, &mut out);
        let deviation = 3.5f32.sqrt();
        let expected = [-2.0 / deviation, -1.0 / deviation, 0.0, 6.0 / deviation + 10.0];
        assert!(out.iter().zip(expected).all(|(x, y)| (x - y).abs() < 1e-6), "{out:?}");
    }

    #[test]
    fn exp_at_its_edges() {
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(exp(-87.5), 0.0);
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp(89.0), f32::INFINITY);
        assert!(exp(f32::NAN).is_nan());
    }

    #[test]
    fn halves_convert_exactly() {
        for (bits, value) in [
            (0x3c00, 1.0),
            (0xc000, -2.0),
            (0x7bff, 65504.0),
            (0x0400, 6.103_515_6e-5),
            (0x0001, 5.960_464_5e-8),
            (0x8000, -0.0),
        ] {
            assert_eq!(f16_to_f32(bits).to_bits(), f32::to_bits(value), "{bits:04x}");
        }
        assert_eq!(f16_to_f32(0x7c00), f32::INFINITY);
        assert!(f16_to_f32(0x7e00).is_nan());
    }

    #[test]
    fn softmax_sums_to_one_and_survives_large_inputs() {
        let mut values = [1000.0, 999.0, -1000.0];
        softmax(&mut values);
        assert!((values.iter().sum::<f32>() - 1.0).abs() < 1e-6);
        assert_eq!(values[2], 0.0);
    }
}
