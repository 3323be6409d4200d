//! Activations on their way into matrices: as f32 and, for quantised weights, as int8.
//!
//! Every 32 consecutive elements share a scale d, their largest magnitude over 127; an element is
//! q·d. The exact rule is in `NUMERICS.md`. A vector is quantised once, at the first matrix that
//! needs it, and shared by all that follow.

use crate::{
    isa::{Isa, Work, dispatch},
    math::ROUND,
    plan::{Plan, Shared},
};

/// Elements that share a scale.
pub const BLOCK: usize = 32;
/// Elements that share a sum: the finest that a weight format asks for.
const SUM: usize = 16;
/// 2^-120: blocks whose magnitudes are all below count as zero, so that no scale can overflow.
const TINY: f32 = f32::from_bits(0x0380_0000);

/// m vectors of k elements, row-major. Their memory is kept from one use to the next.
#[derive(Clone, Debug, Default)]
pub struct Activations {
    m: usize,
    k: usize,
    values: Vec<f32>,
    quantised: Quantised,
    /// Whether `quantised` belongs to `values`.
    is_quantised: bool,
}

/// The same vectors as int8.
#[derive(Clone, Debug, Default)]
struct Quantised {
    /// m × k.
    values: Vec<i8>,
    /// d of each block, m × k/32.
    scales: Vec<f32>,
    /// Sums of 16 elements each, m × k/16.
    sums: Vec<i32>,
}

/// What a kernel reads; all lengths as in [`Activations`].
#[derive(Clone, Copy)]
pub(crate) struct View<'a> {
    pub k: usize,
    pub values: &'a [f32],
    pub quantised: &'a [i8],
    pub scales: &'a [f32],
    pub sums: &'a [i32],
}

impl Activations {
    /// A copy of m vectors of k elements, row-major.
    ///
    /// # Panics
    /// If `values` does not hold m·k.
    pub fn new(m: usize, k: usize, values: &[f32]) -> Self {
        let mut activations = Self::default();
        activations.reset(m, k).copy_from_slice(values);
        activations
    }

    /// Makes room for m vectors of k elements, to be written by the caller.
    pub fn reset(&mut self, m: usize, k: usize) -> &mut [f32] {
        (self.m, self.k, self.is_quantised) = (m, k, false);
        self.values.resize(m * k, 0.0);
        &mut self.values
    }

    /// The vectors, for changing them.
    pub fn values_mut(&mut self) -> &mut [f32] {
        self.is_quantised = false;
        &mut self.values
    }

    /// The vectors.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// Vectors.
    pub fn m(&self) -> usize {
        self.m
    }

    /// Elements of a vector.
    pub fn k(&self) -> usize {
        self.k
    }

    /// Quantises the vectors unless that was done; k must be a multiple of 32.
    pub(crate) fn quantise(&mut self, plan: &Plan) {
        if self.is_quantised {
            return;
        }
        debug_assert!(self.k.is_multiple_of(BLOCK), "the matrix has blocks");
        let Quantised { values, scales, sums } = &mut self.quantised;
        values.resize(self.m * self.k, 0);
        scales.resize(self.m * self.k / BLOCK, 0.0);
        sums.resize(self.m * self.k / SUM, 0);
        let (k, from) = (self.k, &self.values);
        let (values, scales, sums) = (Shared::of(values), Shared::of(scales), Shared::of(sums));
        // An element is worth some four products.
        plan.run(self.m, self.m * k * 4, &|_, row| {
            // SAFETY: they have m rows of these lengths, and each task takes one row.
            let (values, scales, sums) = unsafe {
                (values.part(row * k, k), scales.part(row * k / BLOCK, k / BLOCK), sums.part(row * k / SUM, k / SUM))
            };
            dispatch(plan.level, Quantise { from: &from[row * k..][..k], values, scales, sums });
        });
        self.is_quantised = true;
    }

    pub(crate) fn view(&self) -> View<'_> {
        let Quantised { values, scales, sums } = &self.quantised;
        View { k: self.k, values: &self.values, quantised: values, scales, sums }
    }
}

struct Quantise<'a> {
    from: &'a [f32],
    values: &'a mut [i8],
    scales: &'a mut [f32],
    sums: &'a mut [i32],
}

impl Work for Quantise<'_> {
    #[inline(always)]
    unsafe fn run<S: Isa>(self) {
        let blocks = self.from.as_chunks().0.iter().zip(self.values.as_chunks_mut().0);
        for ((from, values), (scale, sums)) in blocks.zip(self.scales.iter_mut().zip(self.sums.as_chunks_mut().0)) {
            *scale = quantise_block(from, values);
            *sums = [
                sum(values[..SUM].as_array().expect("half a block")),
                sum(values[SUM..].as_array().expect("half a block")),
            ];
        }
    }
}

#[inline(always)]
fn sum(values: &[i8; SUM]) -> i32 {
    let mut sum = 0;
    for value in values {
        sum += i32::from(*value);
    }
    sum
}

/// Quantises one block and returns its scale. Free of branches within the block, so that compilers
/// make vectors of it: magnitudes are compared as integers, which order as the numbers do.
#[inline(always)]
fn quantise_block(from: &[f32; BLOCK], to: &mut [i8; BLOCK]) -> f32 {
    let mut largest = 0;
    for value in from {
        largest = largest.max((value.to_bits() & 0x7fff_ffff).cast_signed());
    }
    let largest = f32::from_bits(largest.cast_unsigned());
    if !largest.is_finite() {
        *to = [0; BLOCK];
        return f32::from_bits(0x7fc0_0000);
    }
    if largest < TINY {
        *to = [0; BLOCK];
        return 0.0;
    }
    let factor = 127.0 / largest;
    for (value, to) in from.iter().zip(to) {
        let rounded = value * factor + ROUND;
        // |value·factor| is at most 127 and a little, so the sum is 1.5·2^23 plus an integer of at
        // most 127 in magnitude, and its bits are those of 1.5·2^23 plus that integer.
        #[allow(clippy::cast_possible_truncation)] // the integer's lowest byte is the integer
        let integer = rounded.to_bits() as i8;
        *to = integer;
    }
    largest / 127.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::level::Level;
    use proptest::prelude::*;

    /// The rule of `NUMERICS.md`, word by word.
    fn naive(x: &[f32]) -> (u32, Vec<i8>) {
        let mut a = 0.0f32;
        for x in x {
            if x.abs() > a {
                a = x.abs();
            }
        }
        if x.iter().any(|x| !x.is_finite()) {
            return (0x7fc0_0000, vec![0; x.len()]);
        }
        if a < 2f32.powi(-120) {
            return (0, vec![0; x.len()]);
        }
        let r = 127.0 / a;
        let round = |x: &f32| {
            let q = (x * r + ROUND) - ROUND;
            assert!(q.abs() <= 127.0, "{q} from {x}");
            q as i8
        };
        ((a / 127.0).to_bits(), x.iter().map(round).collect())
    }

    proptest! {
        #[test]
        fn quantising_follows_the_rule_at_every_level(
            mut x in proptest::collection::vec(-4.0f32..4.0, 96),
            bits: u32, at in 0usize..96, shift in -126i32..120,
        ) {
            x[at] = f32::from_bits(bits);
            for x in &mut x[32..64] {
                *x *= 2f32.powi(shift);
            }
            for level in Level::available() {
                let mut activations = Activations::new(1, 96, &x);
                activations.quantise(&Plan::at(level, 1));
                let view = activations.view();
                for (block, x) in x.chunks(BLOCK).enumerate() {
                    let (d, q) = naive(x);
                    let at = block * BLOCK;
                    prop_assert_eq!(view.scales[block].to_bits(), d);
                    prop_assert_eq!(&view.quantised[at..at + BLOCK], &q);
                    let sum: i32 = q.iter().map(|q| i32::from(*q)).sum();
                    prop_assert_eq!(view.sums[2 * block] + view.sums[2 * block + 1], sum);
                }
            }
        }
    }
}
