//! Products of one panel with a tile of tokens, for each format, generic over the level.
//!
//! The sums of a tile (T tokens × 16 outputs) stay in registers along a stretch of k, and between
//! stretches in memory: storing and reloading an f32 does not change it, so neither does the cut.

// Several arrays of a tile go by one index; and the tile of one token is `index + 1 <= count`.
#![allow(clippy::needless_range_loop, clippy::int_plus_one)]

use super::pack::{GROUP, Layout, SUPER};
use crate::{activation::View, isa::Isa};

/// Outputs of a panel.
const PANEL: usize = 16;
/// Tokens whose sums wait in memory while a stretch of a panel is in the cache.
const TOKENS_MAX: usize = 64;

/// One format's product.
pub(super) trait Kernel {
    /// Elements of k in a stretch: what keeps its weights in the first-level cache.
    const STRETCH: usize;

    /// Continues the sums `y` of T tokens from `token` on over k from `from` to `to`.
    ///
    /// # Safety
    /// The machine has `S`; `panel` is a panel of `layout`, aligned to 64; `x` holds the tokens; `y`
    /// is good for T × 16 floats; `from` and `to` are within k, multiples of [`Kernel::STRETCH`] or k.
    unsafe fn tile<S: Isa, const T: usize>(
        panel: *const u8,
        layout: &Layout,
        x: &View<'_>,
        token: usize,
        from: usize,
        to: usize,
        y: *mut f32,
    );
}

/// All sums of one panel: `y[t·stride + i]` for `m` tokens and `outputs` of its 16 rows.
///
/// # Safety
/// As for [`Kernel::tile`], and `y` is good for the places named.
#[inline(always)]
pub(super) unsafe fn panel<S: Isa, K: Kernel>(
    panel: *const u8,
    layout: &Layout,
    x: &View<'_>,
    m: usize,
    y: *mut f32,
    stride: usize,
    outputs: usize,
) {
    let mut sums = [0.0f32; TOKENS_MAX * PANEL];
    let mut first = 0;
    while first < m {
        let tokens = (m - first).min(TOKENS_MAX);
        sums[..tokens * PANEL].fill(0.0);
        let stretch = if tokens <= S::TOKENS { x.k } else { K::STRETCH };
        let mut from = 0;
        while from < x.k {
            let to = (from + stretch).min(x.k);
            // SAFETY: the caller's promise; `sums` holds the tokens.
            unsafe { stretch_tiles::<S, K>(panel, layout, x, first, tokens, from, to, sums.as_mut_ptr()) };
            from = to;
        }
        for token in 0..tokens {
            // SAFETY: the caller's promise.
            unsafe {
                let to = y.add((first + token) * stride);
                std::ptr::copy_nonoverlapping(sums.as_ptr().add(token * PANEL), to, outputs);
            }
        }
        first += tokens;
    }
}

/// One stretch for `tokens` tokens, in the largest tiles that the level has registers for.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
unsafe fn stretch_tiles<S: Isa, K: Kernel>(
    panel: *const u8,
    layout: &Layout,
    x: &View<'_>,
    first: usize,
    tokens: usize,
    from: usize,
    to: usize,
    sums: *mut f32,
) {
    let mut token = 0;
    macro_rules! tiles {
        ($count:literal) => {
            if S::TOKENS >= $count {
                while token + $count <= tokens {
                    // SAFETY: the caller's promise; the tile's sums are within the tokens'.
                    unsafe {
                        K::tile::<S, $count>(panel, layout, x, first + token, from, to, sums.add(token * PANEL));
                    }
                    token += $count;
                }
            }
        };
    }
    tiles!(8);
    tiles!(4);
    tiles!(2);
    tiles!(1);
}

/// The sums of a tile, in registers.
#[inline(always)]
unsafe fn load_sums<S: Isa, const T: usize>(y: *const f32) -> [S::Floats; T] {
    // SAFETY: `y` is good for T × 16 floats.
    unsafe {
        let mut sums = [S::splat(0.0); T];
        for (t, sum) in sums.iter_mut().enumerate() {
            *sum = S::load(y.add(t * PANEL));
        }
        sums
    }
}

#[inline(always)]
unsafe fn store_sums<S: Isa, const T: usize>(y: *mut f32, sums: [S::Floats; T]) {
    for (t, sum) in sums.into_iter().enumerate() {
        // SAFETY: `y` is good for T × 16 floats.
        unsafe { S::store(y.add(t * PANEL), sum) };
    }
}

/// The tile of a format without blocks, whose 16 weights `$load` widens.
macro_rules! float_kernel {
    ($name:ident, $stored:ty, $load:ident, $stretch:literal) => {
        pub(super) struct $name;

        impl Kernel for $name {
            const STRETCH: usize = $stretch;

            #[inline(always)]
            unsafe fn tile<S: Isa, const T: usize>(
                panel: *const u8,
                _: &Layout,
                x: &View<'_>,
                token: usize,
                from: usize,
                to: usize,
                y: *mut f32,
            ) {
                // SAFETY: the caller's promise: the panel has 16 weights for each k, x has k elements
                // for each token.
                unsafe {
                    let weights = panel.cast::<$stored>();
                    let x_first = x.values.as_ptr().add(token * x.k);
                    let mut sums = load_sums::<S, T>(y);
                    for k in from..to {
                        let weights = S::$load(weights.add(k * PANEL));
                        for t in 0..T {
                            let x = S::splat(*x_first.add(t * x.k + k));
                            sums[t] = S::add(sums[t], S::mul(weights, x));
                        }
                    }
                    store_sums::<S, T>(y, sums);
                }
            }
        }
    };
}

float_kernel!(F32, f32, load, 256);
float_kernel!(F16, u16, load_f16, 512);
float_kernel!(Bf16, u16, load_bf16, 512);

/// What a tile's tokens bring to 32 weights.
struct Group {
    values: *const i8,
    scale: f32,
    /// Sums of the first and the second 16 activations.
    sums: [i32; 2],
}

impl Group {
    /// # Safety
    /// `x` is quantised and has the token and the group.
    #[inline(always)]
    unsafe fn of(x: &View<'_>, token: usize, group: usize) -> Self {
        // SAFETY: the caller's promise; lengths as in `Activations`.
        unsafe {
            let index = token * (x.k / GROUP) + group;
            Self {
                values: x.quantised.as_ptr().add(index * GROUP),
                scale: *x.scales.get_unchecked(index),
                sums: [*x.sums.get_unchecked(2 * index), *x.sums.get_unchecked(2 * index + 1)],
            }
        }
    }

    /// Four activations, the `s`-th of eight such words.
    #[inline(always)]
    unsafe fn word(&self, s: usize) -> i32 {
        // SAFETY: a group has 32 values.
        unsafe { self.values.add(4 * s).cast::<i32>().read_unaligned() }
    }

    #[inline(always)]
    fn sum(&self) -> i32 {
        self.sums[0] + self.sums[1]
    }
}

/// The groups of a tile's tokens.
#[inline(always)]
unsafe fn groups<const T: usize>(x: &View<'_>, token: usize, group: usize) -> [Group; T] {
    // SAFETY: the caller's promise, which is that of `Group::of`.
    std::array::from_fn(
        #[inline(always)]
        |t| unsafe { Group::of(x, token + t, group) },
    )
}

/// `Σ weight · activation` over 32 nibbles for each token, as running sums.
#[inline(always)]
unsafe fn nibble_sums<S: Isa, const T: usize>(nibbles: *const u8, x: &[Group; T]) -> [S::SmallSums; T] {
    // SAFETY: `nibbles` is good for 256 bytes. Weights are up to 15 and there are eight groups of
    // four, as small sums allow.
    unsafe {
        let mut sums = [S::small_start(); T];
        for s in 0..4 {
            let bytes = S::load_bytes(nibbles.add(64 * s));
            let (low, high) = (S::low_nibbles(bytes), S::high_nibbles(bytes));
            for t in 0..T {
                sums[t] = S::small_add(sums[t], low, x[t].word(s));
                sums[t] = S::small_add(sums[t], high, x[t].word(s + 4));
            }
        }
        sums
    }
}

pub(super) struct Q8_0;

impl Kernel for Q8_0 {
    const STRETCH: usize = 1024;

    /// `y = y + (dw·dx)·float(Σ qw·qx)` for each 32; |Σ| ≤ 32·128·127 < 2^24 converts exactly.
    #[inline(always)]
    unsafe fn tile<S: Isa, const T: usize>(
        panel: *const u8,
        layout: &Layout,
        x: &View<'_>,
        token: usize,
        from: usize,
        to: usize,
        y: *mut f32,
    ) {
        // SAFETY: the caller's promise: the panel has what `Layout` says, x has the tokens.
        unsafe {
            let mut sums = load_sums::<S, T>(y);
            for group in from / GROUP..to / GROUP {
                let x = groups::<T>(x, token, group);
                let weights = panel.add(group * layout.step);
                let mut products = [S::signed_start(0); T];
                for t in 0..T {
                    products[t] = S::signed_start(x[t].sum());
                }
                for s in 0..8 {
                    let weights = S::load_signed(weights.add(64 * s));
                    for t in 0..T {
                        products[t] = S::signed_add(products[t], weights, x[t].word(s));
                    }
                }
                let d = S::load_f16(panel.add(layout.scales + group * layout.scale_step).cast());
                for t in 0..T {
                    let scale = S::mul(d, S::splat(x[t].scale));
                    sums[t] = S::add(sums[t], S::mul(scale, S::to_floats(S::signed_end(products[t]))));
                }
            }
            store_sums::<S, T>(y, sums);
        }
    }
}

pub(super) struct Q4_0;

impl Kernel for Q4_0 {
    const STRETCH: usize = 1024;

    /// `y = y + (dw·dx)·float(Σ (qw − 8)·qx)` for each 32, the sum as Σ qw·qx − 8·Σ qx.
    #[inline(always)]
    unsafe fn tile<S: Isa, const T: usize>(
        panel: *const u8,
        layout: &Layout,
        x: &View<'_>,
        token: usize,
        from: usize,
        to: usize,
        y: *mut f32,
    ) {
        // SAFETY: the caller's promise: the panel has what `Layout` says, x has the tokens.
        unsafe {
            let mut sums = load_sums::<S, T>(y);
            for group in from / GROUP..to / GROUP {
                let x = groups::<T>(x, token, group);
                let products = nibble_sums::<S, T>(panel.add(group * layout.step), &x);
                let d = S::load_f16(panel.add(layout.scales + group * layout.scale_step).cast());
                for t in 0..T {
                    let scale = S::mul(d, S::splat(x[t].scale));
                    let product = S::small_end(products[t], 8 * x[t].sum());
                    sums[t] = S::add(sums[t], S::mul(scale, S::to_floats(product)));
                }
            }
            store_sums::<S, T>(y, sums);
        }
    }
}

pub(super) struct Q4K;

impl Kernel for Q4K {
    const STRETCH: usize = 1024;

    /// `y = y + (((d·sc)·dx)·float(Σ qw·qx) − ((dmin·m)·dx)·float(Σ qx))` for each 32.
    #[inline(always)]
    unsafe fn tile<S: Isa, const T: usize>(
        panel: *const u8,
        layout: &Layout,
        x: &View<'_>,
        token: usize,
        from: usize,
        to: usize,
        y: *mut f32,
    ) {
        // SAFETY: the caller's promise: the panel has what `Layout` says, x has the tokens.
        unsafe {
            let mut sums = load_sums::<S, T>(y);
            for group in from / GROUP..to / GROUP {
                let x = groups::<T>(x, token, group);
                let products = nibble_sums::<S, T>(panel.add(group * layout.step), &x);
                let supers = panel.add(layout.supers + group / (SUPER / GROUP) * layout.super_step).cast::<u16>();
                let scales = panel.add(layout.scales + group * layout.scale_step);
                let scale = S::mul(S::load_f16(supers), S::load_u8(scales));
                let min = S::mul(S::load_f16(supers.add(PANEL)), S::load_u8(scales.add(PANEL)));
                for t in 0..T {
                    let dx = S::splat(x[t].scale);
                    let product = S::to_floats(S::small_end(products[t], 0));
                    #[allow(clippy::cast_precision_loss)] // at most 32·127
                    let sum = S::splat(x[t].sum() as f32);
                    let part = S::sub(S::mul(S::mul(scale, dx), product), S::mul(S::mul(min, dx), sum));
                    sums[t] = S::add(sums[t], part);
                }
            }
            store_sums::<S, T>(y, sums);
        }
    }
}

pub(super) struct Q6K;

impl Kernel for Q6K {
    const STRETCH: usize = 512;

    /// `y = y + (d·dx)·float(sc_a·Σ₁₆ (qw − 32)·qx + sc_b·Σ₁₆' (qw − 32)·qx)` for each 32. The
    /// integer is at most 2·128·16·32·127 = 16646144, below 2^24, so its conversion is exact. The
    /// 32 are taken off by themselves: sc·Σ qw·qx − 32·sc·Σ qx, at most 2·128·16·63·127 < 2^31.
    #[inline(always)]
    unsafe fn tile<S: Isa, const T: usize>(
        panel: *const u8,
        layout: &Layout,
        x: &View<'_>,
        token: usize,
        from: usize,
        to: usize,
        y: *mut f32,
    ) {
        // SAFETY: the caller's promise: the panel has what `Layout` says, x has the tokens. Weights
        // are up to 63 and each small sum takes two groups of four.
        unsafe {
            let mut sums = load_sums::<S, T>(y);
            for group in from / GROUP..to / GROUP {
                let x = groups::<T>(x, token, group);
                let scales = panel.add(layout.scales + group * layout.scale_step);
                let (a, b) = (S::load_scales(scales), S::load_scales(scales.add(PANEL)));
                let mut totals = [S::scaled_start(a, b, 0, 0); T];
                for t in 0..T {
                    totals[t] = S::scaled_start(a, b, x[t].sums[0], x[t].sums[1]);
                }
                let weights = panel.add(group * layout.step);
                for half in 0..2 {
                    let nibbles = [S::load_bytes(weights.add(128 * half)), S::load_bytes(weights.add(128 * half + 64))];
                    let pairs = S::load_bytes(weights.add(256 + 64 * half));
                    let first = [
                        S::with_bit_pairs::<0>(S::low_nibbles(nibbles[0]), pairs),
                        S::with_bit_pairs::<2>(S::low_nibbles(nibbles[1]), pairs),
                    ];
                    for t in 0..T {
                        let products = S::small_add(S::small_start(), first[0], x[t].word(2 * half));
                        let products = S::small_add(products, first[1], x[t].word(2 * half + 1));
                        totals[t] = S::scaled_end(totals[t], products, a);
                    }
                    let second = [
                        S::with_bit_pairs::<1>(S::high_nibbles(nibbles[0]), pairs),
                        S::with_bit_pairs::<3>(S::high_nibbles(nibbles[1]), pairs),
                    ];
                    for t in 0..T {
                        let products = S::small_add(S::small_start(), second[0], x[t].word(4 + 2 * half));
                        let products = S::small_add(products, second[1], x[t].word(5 + 2 * half));
                        totals[t] = S::scaled_end(totals[t], products, b);
                    }
                }
                let supers = panel.add(layout.supers + group / (SUPER / GROUP) * layout.super_step).cast::<u16>();
                let d = S::load_f16(supers);
                for t in 0..T {
                    let scale = S::mul(d, S::splat(x[t].scale));
                    sums[t] = S::add(sums[t], S::mul(scale, S::to_floats(totals[t])));
                }
            }
            store_sums::<S, T>(y, sums);
        }
    }
}
