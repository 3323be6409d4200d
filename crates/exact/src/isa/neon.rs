//! The lanes in NEON: four registers of four.
//!
//! Byte products are widened to 16 bits, where one fits (at most 128·127 in magnitude), and added in
//! pairs to 32-bit sums: exact for all values. Two sums for each row meet at the end of a block. With
//! the dot product extension `sdot` adds four products to a row's one sum, exact as well; weights up
//! to 63 are the same signed and unsigned.

use super::Isa;
use std::arch::{aarch64::*, asm};

pub(crate) struct Neon<const DOT: bool>;

/// Two sums for each of two rows in each register; with dot products one for each of four rows, in
/// the first four.
type Sums = [int32x4_t; 8];

/// `op` on each of four pairs of registers.
macro_rules! four {
    ($op:ident, $a:expr, $b:expr) => {
        // SAFETY: NEON is part of every aarch64 that this is compiled for.
        unsafe { [$op($a[0], $b[0]), $op($a[1], $b[1]), $op($a[2], $b[2]), $op($a[3], $b[3])] }
    };
}

/// Eight halves, finite, widened.
#[inline(always)]
unsafe fn widen_halves(bits: uint16x8_t) -> [float32x4_t; 2] {
    // SAFETY: the caller has NEON.
    unsafe { [widen_four(vmovl_u16(vget_low_u16(bits))), widen_four(vmovl_u16(vget_high_u16(bits)))] }
}

#[inline(always)]
unsafe fn widen_four(bits: uint32x4_t) -> float32x4_t {
    // SAFETY: the caller has NEON.
    unsafe {
        let sign = vshlq_n_u32::<16>(vandq_u32(bits, vdupq_n_u32(0x8000)));
        let fraction = vshlq_n_u32::<13>(vandq_u32(bits, vdupq_n_u32(0x7fff)));
        // With the fraction in place the number is 2^-112 of itself, subnormals too, so the product
        // is exact.
        let magnitude = vmulq_f32(vreinterpretq_f32_u32(fraction), vdupq_n_f32(f32::from_bits(0x7780_0000)));
        vreinterpretq_f32_u32(vorrq_u32(vreinterpretq_u32_f32(magnitude), sign))
    }
}

/// Adds four products of bytes to each of four sums.
///
/// # Safety
/// The machine must have NEON's dot products.
#[inline(always)]
unsafe fn sdot(mut sums: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t {
    // SAFETY: the caller's promise; the instruction touches nothing but its registers.
    unsafe {
        asm!(
            ".arch_extension dotprod",
            "sdot {sums:v}.4s, {a:v}.16b, {b:v}.16b",
            sums = inout(vreg) sums,
            a = in(vreg) a,
            b = in(vreg) b,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    sums
}

#[inline(always)]
unsafe fn add_products<const DOT: bool>(mut sums: Sums, weights: [uint8x16_t; 4], activations: i32) -> Sums {
    // SAFETY: the caller has NEON, and its dot products where the type says so.
    unsafe {
        let x = vreinterpretq_s8_s32(vdupq_n_s32(activations));
        for i in 0..4 {
            let weights = vreinterpretq_s8_u8(weights[i]);
            if DOT {
                sums[i] = sdot(sums[i], weights, x);
            } else {
                let low = vmull_s8(vget_low_s8(weights), vget_low_s8(x));
                let high = vmull_s8(vget_high_s8(weights), vget_high_s8(x));
                sums[2 * i] = vpadalq_s16(sums[2 * i], low);
                sums[2 * i + 1] = vpadalq_s16(sums[2 * i + 1], high);
            }
        }
        sums
    }
}

/// One sum for each row.
#[inline(always)]
unsafe fn join<const DOT: bool>(sums: Sums) -> [int32x4_t; 4] {
    if DOT {
        return [sums[0], sums[1], sums[2], sums[3]];
    }
    // SAFETY: the caller has NEON.
    unsafe {
        [
            vpaddq_s32(sums[0], sums[1]),
            vpaddq_s32(sums[2], sums[3]),
            vpaddq_s32(sums[4], sums[5]),
            vpaddq_s32(sums[6], sums[7]),
        ]
    }
}

// SAFETY of everything below: callers of `Isa` have NEON, and its dot products where the type says
// so; their pointers are good for 16 values of their type, or 64 bytes; the loads and stores need no
// alignment beyond that of the elements, which are read as bytes where it is not given.
#[allow(clippy::undocumented_unsafe_blocks)]
impl<const DOT: bool> Isa for Neon<DOT> {
    type Floats = [float32x4_t; 4];
    type Ints = [int32x4_t; 4];
    type Bytes = [uint8x16_t; 4];
    type Signed = [uint8x16_t; 4];
    type SignedSums = Sums;
    type SmallSums = Sums;
    type Scales = [int32x4_t; 4];
    const TOKENS: usize = if DOT { 4 } else { 2 };

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self::Floats {
        unsafe { [vdupq_n_f32(value); 4] }
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self::Floats {
        unsafe { [vld1q_f32(from), vld1q_f32(from.add(4)), vld1q_f32(from.add(8)), vld1q_f32(from.add(12))] }
    }

    #[inline(always)]
    unsafe fn store(to: *mut f32, values: Self::Floats) {
        for (i, values) in values.into_iter().enumerate() {
            unsafe { vst1q_f32(to.add(4 * i), values) };
        }
    }

    #[inline(always)]
    unsafe fn load_f16(from: *const u16) -> Self::Floats {
        unsafe {
            let (low, high) = (widen_halves(vld1q_u16(from)), widen_halves(vld1q_u16(from.add(8))));
            [low[0], low[1], high[0], high[1]]
        }
    }

    #[inline(always)]
    unsafe fn load_bf16(from: *const u16) -> Self::Floats {
        unsafe {
            let (low, high) = (vld1q_u16(from), vld1q_u16(from.add(8)));
            [
                vreinterpretq_f32_u32(vshll_n_u16::<16>(vget_low_u16(low))),
                vreinterpretq_f32_u32(vshll_n_u16::<16>(vget_high_u16(low))),
                vreinterpretq_f32_u32(vshll_n_u16::<16>(vget_low_u16(high))),
                vreinterpretq_f32_u32(vshll_n_u16::<16>(vget_high_u16(high))),
            ]
        }
    }

    #[inline(always)]
    unsafe fn load_u8(from: *const u8) -> Self::Floats {
        unsafe {
            let bytes = vld1q_u8(from);
            let (low, high) = (vmovl_u8(vget_low_u8(bytes)), vmovl_u8(vget_high_u8(bytes)));
            [
                vcvtq_f32_u32(vmovl_u16(vget_low_u16(low))),
                vcvtq_f32_u32(vmovl_u16(vget_high_u16(low))),
                vcvtq_f32_u32(vmovl_u16(vget_low_u16(high))),
                vcvtq_f32_u32(vmovl_u16(vget_high_u16(high))),
            ]
        }
    }

    #[inline(always)]
    unsafe fn add(a: Self::Floats, b: Self::Floats) -> Self::Floats {
        four!(vaddq_f32, a, b)
    }

    #[inline(always)]
    unsafe fn sub(a: Self::Floats, b: Self::Floats) -> Self::Floats {
        four!(vsubq_f32, a, b)
    }

    #[inline(always)]
    unsafe fn mul(a: Self::Floats, b: Self::Floats) -> Self::Floats {
        four!(vmulq_f32, a, b)
    }

    #[inline(always)]
    unsafe fn to_floats(values: Self::Ints) -> Self::Floats {
        unsafe {
            [vcvtq_f32_s32(values[0]), vcvtq_f32_s32(values[1]), vcvtq_f32_s32(values[2]), vcvtq_f32_s32(values[3])]
        }
    }

    #[inline(always)]
    unsafe fn load_bytes(from: *const u8) -> Self::Bytes {
        unsafe { [vld1q_u8(from), vld1q_u8(from.add(16)), vld1q_u8(from.add(32)), vld1q_u8(from.add(48))] }
    }

    #[inline(always)]
    unsafe fn low_nibbles(bytes: Self::Bytes) -> Self::Bytes {
        let mask = unsafe { [vdupq_n_u8(15); 4] };
        four!(vandq_u8, bytes, mask)
    }

    #[inline(always)]
    unsafe fn high_nibbles(mut bytes: Self::Bytes) -> Self::Bytes {
        for bytes in &mut bytes {
            *bytes = unsafe { vshrq_n_u8::<4>(*bytes) };
        }
        bytes
    }

    #[inline(always)]
    unsafe fn with_bit_pairs<const PAIR: i32>(nibbles: Self::Bytes, mut pairs: Self::Bytes) -> Self::Bytes {
        for pairs in &mut pairs {
            // Bits 2·PAIR and 2·PAIR + 1 go to 4 and 5.
            *pairs = unsafe {
                let shifted = match PAIR {
                    0 => vshlq_n_u8::<4>(*pairs),
                    1 => vshlq_n_u8::<2>(*pairs),
                    2 => *pairs,
                    _ => vshrq_n_u8::<2>(*pairs),
                };
                vandq_u8(shifted, vdupq_n_u8(0x30))
            };
        }
        four!(vorrq_u8, nibbles, pairs)
    }

    #[inline(always)]
    unsafe fn load_signed(from: *const u8) -> Self::Signed {
        unsafe { Self::load_bytes(from) }
    }

    #[inline(always)]
    unsafe fn signed_start(_: i32) -> Sums {
        unsafe { [vdupq_n_s32(0); 8] }
    }

    #[inline(always)]
    unsafe fn signed_add(sums: Sums, weights: Self::Signed, activations: i32) -> Sums {
        unsafe { add_products::<DOT>(sums, weights, activations) }
    }

    #[inline(always)]
    unsafe fn signed_end(sums: Sums) -> Self::Ints {
        unsafe { join::<DOT>(sums) }
    }

    #[inline(always)]
    unsafe fn small_start() -> Sums {
        unsafe { [vdupq_n_s32(0); 8] }
    }

    #[inline(always)]
    unsafe fn small_add(sums: Sums, weights: Self::Bytes, activations: i32) -> Sums {
        unsafe { add_products::<DOT>(sums, weights, activations) }
    }

    #[inline(always)]
    unsafe fn small_end(sums: Sums, less: i32) -> Self::Ints {
        let (sums, less) = unsafe { (join::<DOT>(sums), [vdupq_n_s32(less); 4]) };
        four!(vsubq_s32, sums, less)
    }

    #[inline(always)]
    unsafe fn load_scales(from: *const u8) -> Self::Scales {
        unsafe {
            let bytes = vreinterpretq_s8_u8(vld1q_u8(from));
            let (low, high) = (vmovl_s8(vget_low_s8(bytes)), vmovl_s8(vget_high_s8(bytes)));
            [
                vmovl_s16(vget_low_s16(low)),
                vmovl_s16(vget_high_s16(low)),
                vmovl_s16(vget_low_s16(high)),
                vmovl_s16(vget_high_s16(high)),
            ]
        }
    }

    #[inline(always)]
    unsafe fn scaled_start(a: Self::Scales, b: Self::Scales, x: i32, y: i32) -> Self::Ints {
        let mut total = a;
        for i in 0..4 {
            total[i] = unsafe {
                let sum = vaddq_s32(vmulq_n_s32(a[i], x), vmulq_n_s32(b[i], y));
                vnegq_s32(vshlq_n_s32::<5>(sum))
            };
        }
        total
    }

    #[inline(always)]
    unsafe fn scaled_end(total: Self::Ints, sums: Sums, scales: Self::Scales) -> Self::Ints {
        let mut total = total;
        let sums = unsafe { join::<DOT>(sums) };
        for i in 0..4 {
            // Integer multiply-and-add: exact.
            total[i] = unsafe { vmlaq_s32(total[i], sums[i], scales[i]) };
        }
        total
    }
}
