//! Packed weights times vectors.
//!
//! Each output is one strictly sequential accumulation over k, from +0.0: multiply, then add, never
//! fused. Vector instructions run across outputs, sixteen at a time, so their width does not show in
//! the result; threads split outputs, so their number does not either.
//!
//! Weights are packed as `[n/16][k][16]`: panel by panel, for each k the sixteen weights of the
//! panel's outputs. A last panel that is not full is padded with zeros.

use crate::level::Level;

/// Outputs in a panel.
pub const PANEL: usize = 16;
/// Products below which splitting a multiplication among threads costs more than it gains.
const PARALLEL_PRODUCTS_MIN: usize = 1 << 20;

/// How a multiplication is carried out; never what it gives.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub level: Level,
    /// Threads that large multiplications are split among, at least 1.
    pub threads: usize,
    /// Products from which a multiplication counts as large.
    pub parallel_products_min: usize,
}

impl Plan {
    /// The fastest instructions of this machine on `threads` threads.
    pub fn new(threads: usize) -> Self {
        Self { level: Level::best(), threads: threads.max(1), parallel_products_min: PARALLEL_PRODUCTS_MIN }
    }
}

/// An n × k matrix, packed.
#[derive(Clone, Debug)]
pub struct Packed {
    n: usize,
    k: usize,
    panels: Vec<f32>,
}

impl Packed {
    /// Packs a row-major n × k matrix, read through `at(row, column)`.
    pub fn pack(n: usize, k: usize, at: impl Fn(usize, usize) -> f32) -> Self {
        let mut panels = vec![0.0; n.div_ceil(PANEL) * PANEL * k];
        for (index, weight) in panels.iter_mut().enumerate() {
            let (panel, column, lane) = (index / (k * PANEL), index / PANEL % k, index % PANEL);
            let row = panel * PANEL + lane;
            if row < n {
                *weight = at(row, column);
            }
        }
        Self { n, k, panels }
    }

    /// Rows, that is outputs.
    pub fn n(&self) -> usize {
        self.n
    }

    /// `y[i] = W · x[i]` for m vectors: `x` is m × k, `y` is m × n, both row-major.
    ///
    /// # Panics
    /// If the lengths do not fit.
    pub fn multiply(&self, x: &[f32], m: usize, y: &mut [f32], plan: Plan) {
        assert_eq!(x.len(), m * self.k, "x is m × k");
        assert_eq!(y.len(), m * self.n, "y is m × n");
        let count = self.n.div_ceil(PANEL);
        let threads = plan.threads.min(count).max(1);
        // Results by panel, so that threads write to separate places: [panel][m][16].
        let mut results = vec![0.0f32; count * m * PANEL];
        if threads == 1 || m * self.n * self.k < plan.parallel_products_min {
            self.multiply_panels(0, x, m, &mut results, plan.level);
        } else {
            let share = count.div_ceil(threads);
            std::thread::scope(|scope| {
                for (part, results) in results.chunks_mut(share * m * PANEL).enumerate() {
                    scope.spawn(move || self.multiply_panels(part * share, x, m, results, plan.level));
                }
            });
        }
        for (index, y) in y.iter_mut().enumerate() {
            let (row, column) = (index / self.n, index % self.n);
            *y = results[(column / PANEL * m + row) * PANEL + column % PANEL];
        }
    }

    fn multiply_panels(&self, first: usize, x: &[f32], m: usize, results: &mut [f32], level: Level) {
        for (offset, out) in results.chunks_exact_mut(m * PANEL).enumerate() {
            let at = (first + offset) * self.k * PANEL;
            let panel = &self.panels[at..at + self.k * PANEL];
            for (x, out) in x.chunks_exact(self.k).zip(out.chunks_exact_mut(PANEL)) {
                let out = out.try_into().expect("chunks of PANEL");
                multiply_panel(level, panel, x, out);
            }
        }
    }
}

/// One panel times one vector.
#[inline]
fn multiply_panel(level: Level, panel: &[f32], x: &[f32], out: &mut [f32; PANEL]) {
    debug_assert_eq!(panel.len(), x.len() * PANEL);
    match level {
        Level::Scalar => scalar(panel, x, out),
        #[cfg(target_arch = "x86_64")]
        Level::Sse2 => x86::sse2(panel, x, out),
        // SAFETY: the guard checked that the machine has the instructions.
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 if level.is_available() => unsafe { x86::avx2(panel, x, out) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        Level::Avx512 if level.is_available() => unsafe { x86::avx512(panel, x, out) },
        _ => scalar(panel, x, out),
    }
}

fn scalar(panel: &[f32], x: &[f32], out: &mut [f32; PANEL]) {
    let mut sums = [0.0f32; PANEL];
    for (weights, x) in panel.chunks_exact(PANEL).zip(x) {
        for (sum, weight) in sums.iter_mut().zip(weights) {
            *sum += weight * x;
        }
    }
    *out = sums;
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::PANEL;
    use std::arch::x86_64::*;

    /// SSE2 is part of x86-64.
    pub(super) fn sse2(panel: &[f32], x: &[f32], out: &mut [f32; PANEL]) {
        // SAFETY: every load reads 4 of the 16 floats of a chunk, every store writes 4 of 16.
        unsafe {
            let mut sums = [_mm_setzero_ps(); 4];
            for (weights, x) in panel.chunks_exact(PANEL).zip(x) {
                let x = _mm_set1_ps(*x);
                for (lane, sum) in sums.iter_mut().enumerate() {
                    *sum = _mm_add_ps(*sum, _mm_mul_ps(_mm_loadu_ps(weights.as_ptr().add(lane * 4)), x));
                }
            }
            for (lane, sum) in sums.into_iter().enumerate() {
                _mm_storeu_ps(out.as_mut_ptr().add(lane * 4), sum);
            }
        }
    }

    /// # Safety
    /// The machine must have AVX2.
    #[target_feature(enable = "avx2")]
    pub(super) unsafe fn avx2(panel: &[f32], x: &[f32], out: &mut [f32; PANEL]) {
        let mut low = _mm256_setzero_ps();
        let mut high = _mm256_setzero_ps();
        for (weights, x) in panel.chunks_exact(PANEL).zip(x) {
            let x = _mm256_set1_ps(*x);
            // SAFETY: both loads stay within the 16 floats of the chunk.
            let (a, b) = unsafe { (_mm256_loadu_ps(weights.as_ptr()), _mm256_loadu_ps(weights.as_ptr().add(8))) };
            low = _mm256_add_ps(low, _mm256_mul_ps(a, x));
            high = _mm256_add_ps(high, _mm256_mul_ps(b, x));
        }
        // SAFETY: both stores stay within the 16 floats of `out`.
        unsafe {
            _mm256_storeu_ps(out.as_mut_ptr(), low);
            _mm256_storeu_ps(out.as_mut_ptr().add(8), high);
        }
    }

    /// # Safety
    /// The machine must have AVX-512F.
    #[target_feature(enable = "avx512f")]
    pub(super) unsafe fn avx512(panel: &[f32], x: &[f32], out: &mut [f32; PANEL]) {
        let mut sum = _mm512_setzero_ps();
        for (weights, x) in panel.chunks_exact(PANEL).zip(x) {
            // SAFETY: the load reads the 16 floats of the chunk.
            let weights = unsafe { _mm512_loadu_ps(weights.as_ptr()) };
            sum = _mm512_add_ps(sum, _mm512_mul_ps(weights, _mm512_set1_ps(*x)));
        }
        // SAFETY: the store writes the 16 floats of `out`.
        unsafe { _mm512_storeu_ps(out.as_mut_ptr(), sum) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn naive(n: usize, k: usize, w: &[f32], x: &[f32], m: usize) -> Vec<u32> {
        let mut y = Vec::new();
        for row in 0..m {
            for output in 0..n {
                y.push(crate::math::dot(&w[output * k..][..k], &x[row * k..][..k]).to_bits());
            }
        }
        y
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        /// Every level and number of threads gives the bits of the plain loop.
        #[test]
        fn every_plan_gives_the_bits_of_the_plain_loop(n in 1usize..70, k in 1usize..40, m in 1usize..5, seed: u64) {
            let mut state = seed | 1;
            let mut random = || {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                (state >> 40) as f32 / 16_777_216.0 - 0.5
            };
            let w: Vec<_> = (0..n * k).map(|_| random()).collect();
            let x: Vec<_> = (0..m * k).map(|_| random()).collect();
            let packed = Packed::pack(n, k, |row, column| w[row * k + column]);
            let expected = naive(n, k, &w, &x, m);
            for level in Level::available() {
                for threads in [1, 2, 4] {
                    let mut y = vec![0.0; m * n];
                    packed.multiply(&x, m, &mut y, Plan { level, threads, parallel_products_min: 0 });
                    let bits: Vec<_> = y.iter().map(|y| y.to_bits()).collect();
                    prop_assert_eq!(&bits, &expected, "{:?}, {} threads", level, threads);
                }
            }
        }
    }
}
