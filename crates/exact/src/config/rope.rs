//! Scaled rotary positions: what each frequency is divided by so that a model reaches further than
//! it was first trained to.
//!
//! Transformers scales the frequencies `f[i] = θ^(−2i/d)` themselves; GGUF files store divisors in
//! `rope_freqs.weight`. Divisors are the common form: computed in f64, rounded once to f32.

use super::Wrong;
use serde_json::{Map, Value};

/// The divisors that `rope_scaling` (or, in newer files, `rope_parameters`) asks for; empty if none.
pub(super) fn divisors(scaling: &Map<String, Value>, theta: f64, head_dim: usize) -> Result<Vec<f32>, Wrong> {
    let wrong = |why: String| Wrong::new("rope_scaling", why);
    let number = |name: &str| {
        let value = scaling.get(name).and_then(Value::as_f64);
        let value = value.filter(|value| *value > 0.0 && *value < 1e9);
        value.ok_or_else(|| wrong(format!("{name} is missing or out of range")))
    };
    let kind = scaling.get("rope_type").or_else(|| scaling.get("type")).map_or(Some("default"), Value::as_str);
    match kind {
        Some("default") => Ok(Vec::new()),
        Some("linear") => linear(number("factor")?, head_dim),
        Some("llama3") => llama3(
            &Llama3 {
                factor: number("factor")?,
                low: number("low_freq_factor")?,
                high: number("high_freq_factor")?,
                original_context: number("original_max_position_embeddings")?,
            },
            theta,
            head_dim,
        ),
        Some(other) => Err(wrong(format!("{other:?} is not computed here, only \"linear\" and \"llama3\""))),
        None => Err(wrong("its type is not a text".into())),
    }
}

/// All frequencies divided by one factor.
pub(super) fn linear(factor: f64, head_dim: usize) -> Result<Vec<f32>, Wrong> {
    if !(1.0..=1e5).contains(&factor) {
        return Err(Wrong::new("rope_scaling", format!("factor {factor} is out of range")));
    }
    #[allow(clippy::cast_possible_truncation)] // rounding to f32 is what the contract says
    let divisor = factor as f32;
    Ok(if divisor == 1.0 { Vec::new() } else { vec![divisor; head_dim / 2] })
}

struct Llama3 {
    factor: f64,
    low: f64,
    high: f64,
    original_context: f64,
}

/// Long waves are stretched by the factor, short ones kept, those between blended.
fn llama3(scaling: &Llama3, theta: f64, head_dim: usize) -> Result<Vec<f32>, Wrong> {
    let Llama3 { factor, low, high, original_context } = *scaling;
    if high <= low || !(1.0..=1e5).contains(&factor) {
        return Err(Wrong::new("rope_scaling", "factor, low_freq_factor or high_freq_factor is out of range"));
    }
    let divisor = |i: usize| {
        #[allow(clippy::cast_precision_loss)] // at most 1,024
        let frequency = libm::pow(theta, -((2 * i) as f64) / head_dim as f64);
        let wavelength = 2.0 * std::f64::consts::PI / frequency;
        if wavelength > original_context / low {
            return factor;
        }
        if wavelength < original_context / high {
            return 1.0;
        }
        let smooth = (original_context / wavelength - low) / (high - low);
        1.0 / ((1.0 - smooth) / factor + smooth)
    };
    #[allow(clippy::cast_possible_truncation)] // rounding to f32 is what the contract says
    Ok((0..head_dim / 2).map(|i| divisor(i) as f32).collect())
}

#[cfg(test)]
mod tests {
    use super::divisors;
    use serde_json::json;

    #[test]
    fn llama3_stretches_long_waves_and_keeps_short_ones() {
        let scaling = json!({"rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0,
            "high_freq_factor": 4.0, "original_max_position_embeddings": 8192});
        let divisors = divisors(scaling.as_object().unwrap(), 500_000.0, 64).unwrap();
        assert_eq!(divisors.len(), 32);
        assert_eq!(divisors[..15], [1.0; 15]);
        assert_eq!(divisors[18..], [32.0; 14]);
        assert_eq!(divisors[15..18], LLAMA_3_2_BLENDED);
    }
    /// From transformers' formula for the numbers of Llama 3.2, in Python's floats.
    const LLAMA_3_2_BLENDED: [f32; 3] = [1.651_329_3, 3.292_262, 9.666_729];

    #[test]
    fn scalings_that_are_not_computed_are_refused_by_name() {
        for (scaling, expected) in [
            (json!({"rope_type": "default"}), Ok(0)),
            (json!({"type": "linear", "factor": 2.0}), Ok(16)),
            (json!({"type": "linear", "factor": 1.0}), Ok(0)),
            (json!({"type": "linear"}), Err("factor is missing")),
            (json!({"type": "linear", "factor": 0.5}), Err("factor 0.5")),
            (json!({"rope_type": "yarn", "factor": 4.0}), Err("\"yarn\"")),
            (json!({"type": "dynamic", "factor": 4.0}), Err("\"dynamic\"")),
            (json!({"type": 7}), Err("not a text")),
        ] {
            match (divisors(scaling.as_object().unwrap(), 1e4, 32), expected) {
                (Ok(got), Ok(count)) => assert_eq!(got.len(), count, "{scaling}"),
                (Err(wrong), Err(part)) => assert!(wrong.why.contains(part), "{scaling}: {}", wrong.why),
                (got, _) => panic!("{scaling}: {got:?}"),
            }
        }
    }
}
