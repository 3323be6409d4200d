//! The lanes in WebAssembly's simd128: four registers of four.
//!
//! Byte products are widened to 16 bits, where one fits (at most 128·127 in magnitude), and added in
//! pairs to 32-bit sums: exact for all values. Two sums for each row meet at the end of a block.
//! Nothing of the relaxed extension is used, whose results may differ.

use super::Isa;
use std::arch::wasm32::*;

pub(crate) struct Simd128;

/// Two sums for each of two rows in each register.
type Sums = [v128; 8];

/// `op` on each of four pairs of registers.
macro_rules! four {
    ($op:ident, $a:expr, $b:expr) => {
        [$op($a[0], $b[0]), $op($a[1], $b[1]), $op($a[2], $b[2]), $op($a[3], $b[3])]
    };
}

/// Four finite halves in the lower 16 bits of each lane, widened.
#[inline(always)]
fn widen_four(bits: v128) -> v128 {
    let sign = i32x4_shl(v128_and(bits, i32x4_splat(0x8000)), 16);
    let fraction = i32x4_shl(v128_and(bits, i32x4_splat(0x7fff)), 13);
    // With the fraction in place the number is 2^-112 of itself, subnormals too, so the product is
    // exact.
    v128_or(f32x4_mul(fraction, f32x4_splat(f32::from_bits(0x7780_0000))), sign)
}

#[inline(always)]
fn add_products(mut sums: Sums, weights: [v128; 4], activations: i32) -> Sums {
    let x = i32x4_splat(activations);
    for i in 0..4 {
        let (low, high) = (i16x8_extmul_low_i8x16(weights[i], x), i16x8_extmul_high_i8x16(weights[i], x));
        sums[2 * i] = i32x4_add(sums[2 * i], i32x4_extadd_pairwise_i16x8(low));
        sums[2 * i + 1] = i32x4_add(sums[2 * i + 1], i32x4_extadd_pairwise_i16x8(high));
    }
    sums
}

/// Adds the two sums of each row.
#[inline(always)]
fn join(sums: Sums) -> [v128; 4] {
    let mut rows = [i32x4_splat(0); 4];
    for (i, row) in rows.iter_mut().enumerate() {
        let (a, b) = (sums[2 * i], sums[2 * i + 1]);
        *row = i32x4_add(i32x4_shuffle::<0, 2, 4, 6>(a, b), i32x4_shuffle::<1, 3, 5, 7>(a, b));
    }
    rows
}

// SAFETY of every read and write below: the callers' pointers are good for 16 values of their type,
// or 64 bytes; loads and stores need no alignment. The instructions were asked for at compile time.
#[allow(clippy::undocumented_unsafe_blocks)]
impl Isa for Simd128 {
    type Floats = [v128; 4];
    type Ints = [v128; 4];
    type Bytes = [v128; 4];
    type Signed = [v128; 4];
    type SignedSums = Sums;
    type SmallSums = Sums;
    type Scales = [v128; 4];
    const TOKENS: usize = 2;

    #[inline(always)]
    unsafe fn splat(value: f32) -> [v128; 4] {
        [f32x4_splat(value); 4]
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> [v128; 4] {
        unsafe { Self::load_bytes(from.cast()) }
    }

    #[inline(always)]
    unsafe fn store(to: *mut f32, values: [v128; 4]) {
        for (i, values) in values.into_iter().enumerate() {
            unsafe { v128_store(to.add(4 * i).cast(), values) };
        }
    }

    #[inline(always)]
    unsafe fn load_f16(from: *const u16) -> [v128; 4] {
        let (low, high) = unsafe { (v128_load(from.cast()), v128_load(from.add(8).cast())) };
        [
            widen_four(u32x4_extend_low_u16x8(low)),
            widen_four(u32x4_extend_high_u16x8(low)),
            widen_four(u32x4_extend_low_u16x8(high)),
            widen_four(u32x4_extend_high_u16x8(high)),
        ]
    }

    #[inline(always)]
    unsafe fn load_bf16(from: *const u16) -> [v128; 4] {
        let (low, high) = unsafe { (v128_load(from.cast()), v128_load(from.add(8).cast())) };
        [
            i32x4_shl(u32x4_extend_low_u16x8(low), 16),
            i32x4_shl(u32x4_extend_high_u16x8(low), 16),
            i32x4_shl(u32x4_extend_low_u16x8(high), 16),
            i32x4_shl(u32x4_extend_high_u16x8(high), 16),
        ]
    }

    #[inline(always)]
    unsafe fn load_u8(from: *const u8) -> [v128; 4] {
        let bytes = unsafe { v128_load(from.cast()) };
        let (low, high) = (u16x8_extend_low_u8x16(bytes), u16x8_extend_high_u8x16(bytes));
        [
            f32x4_convert_u32x4(u32x4_extend_low_u16x8(low)),
            f32x4_convert_u32x4(u32x4_extend_high_u16x8(low)),
            f32x4_convert_u32x4(u32x4_extend_low_u16x8(high)),
            f32x4_convert_u32x4(u32x4_extend_high_u16x8(high)),
        ]
    }

    #[inline(always)]
    unsafe fn add(a: [v128; 4], b: [v128; 4]) -> [v128; 4] {
        four!(f32x4_add, a, b)
    }

    #[inline(always)]
    unsafe fn sub(a: [v128; 4], b: [v128; 4]) -> [v128; 4] {
        four!(f32x4_sub, a, b)
    }

    #[inline(always)]
    unsafe fn mul(a: [v128; 4], b: [v128; 4]) -> [v128; 4] {
        four!(f32x4_mul, a, b)
    }

    #[inline(always)]
    unsafe fn to_floats(values: [v128; 4]) -> [v128; 4] {
        values.map(|values| f32x4_convert_i32x4(values))
    }

    #[inline(always)]
    unsafe fn load_bytes(from: *const u8) -> [v128; 4] {
        unsafe {
            [
                v128_load(from.cast()),
                v128_load(from.add(16).cast()),
                v128_load(from.add(32).cast()),
                v128_load(from.add(48).cast()),
            ]
        }
    }

    #[inline(always)]
    unsafe fn low_nibbles(bytes: [v128; 4]) -> [v128; 4] {
        bytes.map(|bytes| v128_and(bytes, u8x16_splat(15)))
    }

    #[inline(always)]
    unsafe fn high_nibbles(bytes: [v128; 4]) -> [v128; 4] {
        bytes.map(|bytes| u8x16_shr(bytes, 4))
    }

    #[inline(always)]
    unsafe fn with_bit_pairs<const PAIR: i32>(nibbles: [v128; 4], pairs: [v128; 4]) -> [v128; 4] {
        // Bits 2·PAIR and 2·PAIR + 1 go to 4 and 5.
        let placed = pairs.map(|pairs| {
            let shifted = match PAIR {
                0 => u8x16_shl(pairs, 4),
                1 => u8x16_shl(pairs, 2),
                2 => pairs,
                _ => u8x16_shr(pairs, 2),
            };
            v128_and(shifted, u8x16_splat(0x30))
        });
        four!(v128_or, nibbles, placed)
    }

    #[inline(always)]
    unsafe fn load_signed(from: *const u8) -> [v128; 4] {
        unsafe { Self::load_bytes(from) }
    }

    #[inline(always)]
    unsafe fn signed_start(_: i32) -> Sums {
        [i32x4_splat(0); 8]
    }

    #[inline(always)]
    unsafe fn signed_add(sums: Sums, weights: [v128; 4], activations: i32) -> Sums {
        add_products(sums, weights, activations)
    }

    #[inline(always)]
    unsafe fn signed_end(sums: Sums) -> [v128; 4] {
        join(sums)
    }

    #[inline(always)]
    unsafe fn small_start() -> Sums {
        [i32x4_splat(0); 8]
    }

    /// Weights up to 63 are the same signed and unsigned.
    #[inline(always)]
    unsafe fn small_add(sums: Sums, weights: [v128; 4], activations: i32) -> Sums {
        add_products(sums, weights, activations)
    }

    #[inline(always)]
    unsafe fn small_end(sums: Sums, less: i32) -> [v128; 4] {
        join(sums).map(|sums| i32x4_sub(sums, i32x4_splat(less)))
    }

    #[inline(always)]
    unsafe fn load_scales(from: *const u8) -> [v128; 4] {
        let bytes = unsafe { v128_load(from.cast()) };
        let (low, high) = (i16x8_extend_low_i8x16(bytes), i16x8_extend_high_i8x16(bytes));
        [
            i32x4_extend_low_i16x8(low),
            i32x4_extend_high_i16x8(low),
            i32x4_extend_low_i16x8(high),
            i32x4_extend_high_i16x8(high),
        ]
    }

    #[inline(always)]
    unsafe fn scaled_start(a: [v128; 4], b: [v128; 4], x: i32, y: i32) -> [v128; 4] {
        let mut total = a;
        for i in 0..4 {
            let sum = i32x4_add(i32x4_mul(a[i], i32x4_splat(x)), i32x4_mul(b[i], i32x4_splat(y)));
            total[i] = i32x4_neg(i32x4_shl(sum, 5));
        }
        total
    }

    #[inline(always)]
    unsafe fn scaled_end(total: [v128; 4], sums: Sums, scales: [v128; 4]) -> [v128; 4] {
        let products = four!(i32x4_mul, join(sums), scales);
        four!(i32x4_add, total, products)
    }
}
