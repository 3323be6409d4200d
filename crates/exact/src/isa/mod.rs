//! The vocabulary of the kernels: sixteen lanes, one per output, in each level's instructions.
//!
//! Kernels are written once, generic over [`Isa`], and compiled once for each level: [`dispatch`]
//! enters a function that has the level's instructions switched on, and everything beneath it is
//! inlined there. A lane never meets another lane, and every f32 operation of a lane is one IEEE
//! operation, so a level is right if each of its words is; the words are short enough to be read.
//!
//! Integer products come in two kinds, both exact:
//! - *signed*: int8 weights from −128 to 127, up to eight groups of four products (a block of 32);
//! - *small*: unsigned weights, either up to 15 and eight groups of four, or up to 63 and two groups
//!   of four: the bounds within which sums of pairs fit 16 bits, which the fast instructions need.
//!
//! Activations are int8 from −127 to 127, given as words of four.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "aarch64")]
mod neon;
mod scalar;
#[cfg(target_arch = "x86_64")]
mod sse2;
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
mod wasm;

use crate::level::Level;

/// Lanes of a vector, outputs of a panel.
pub(crate) const LANES: usize = 16;

/// Sixteen lanes of one level. Every function needs the level's instructions, and that is all the
/// unsafety of those without pointers; the others also need their pointers good for what they say.
/// Pointers need no alignment.
pub(crate) trait Isa {
    /// Sixteen f32.
    type Floats: Copy;
    /// Sixteen i32.
    type Ints: Copy;
    /// Four weights of each of sixteen rows, as stored.
    type Bytes: Copy;
    /// Int8 weights, ready for products.
    type Signed: Copy;
    /// Running sums of signed products.
    type SignedSums: Copy;
    /// Running sums of small products.
    type SmallSums: Copy;
    /// Sixteen int8 factors, ready for products with sums.
    type Scales: Copy;

    /// How many tokens a tile has at most: as many as the registers hold.
    const TOKENS: usize;

    unsafe fn splat(value: f32) -> Self::Floats;
    /// Reads 16 f32.
    unsafe fn load(from: *const f32) -> Self::Floats;
    /// Writes 16 f32.
    unsafe fn store(to: *mut f32, values: Self::Floats);
    /// Reads 16 finite IEEE halves, widened exactly.
    unsafe fn load_f16(from: *const u16) -> Self::Floats;
    /// Reads 16 bfloat16, widened exactly.
    unsafe fn load_bf16(from: *const u16) -> Self::Floats;
    /// Reads 16 bytes as numbers from 0 to 255.
    unsafe fn load_u8(from: *const u8) -> Self::Floats;
    unsafe fn add(a: Self::Floats, b: Self::Floats) -> Self::Floats;
    unsafe fn sub(a: Self::Floats, b: Self::Floats) -> Self::Floats;
    unsafe fn mul(a: Self::Floats, b: Self::Floats) -> Self::Floats;
    /// Rounded to nearest, ties to even; kernels only pass what fits 24 bits or say otherwise.
    unsafe fn to_floats(values: Self::Ints) -> Self::Floats;

    /// Reads 64 bytes.
    unsafe fn load_bytes(from: *const u8) -> Self::Bytes;
    /// The lower four bits of each byte.
    unsafe fn low_nibbles(bytes: Self::Bytes) -> Self::Bytes;
    /// The upper four bits of each byte.
    unsafe fn high_nibbles(bytes: Self::Bytes) -> Self::Bytes;
    /// Four bits each of `nibbles`, and above them bits `2·PAIR` and `2·PAIR + 1` of `pairs`.
    unsafe fn with_bit_pairs<const PAIR: i32>(nibbles: Self::Bytes, pairs: Self::Bytes) -> Self::Bytes;

    /// Reads 64 int8 weights.
    unsafe fn load_signed(from: *const u8) -> Self::Signed;
    /// The start of a block's sum, given the sum of the activations that will be multiplied.
    unsafe fn signed_start(activations: i32) -> Self::SignedSums;
    unsafe fn signed_add(sums: Self::SignedSums, weights: Self::Signed, activations: i32) -> Self::SignedSums;
    unsafe fn signed_end(sums: Self::SignedSums) -> Self::Ints;

    unsafe fn small_start() -> Self::SmallSums;
    unsafe fn small_add(sums: Self::SmallSums, weights: Self::Bytes, activations: i32) -> Self::SmallSums;
    /// The sums, less `less` each.
    unsafe fn small_end(sums: Self::SmallSums, less: i32) -> Self::Ints;

    /// Reads 16 int8.
    unsafe fn load_scales(from: *const u8) -> Self::Scales;
    /// `−32·(a·x + b·y)`, |x| and |y| up to 2032.
    unsafe fn scaled_start(a: Self::Scales, b: Self::Scales, x: i32, y: i32) -> Self::Ints;
    /// `total + scale·sums`.
    unsafe fn scaled_end(total: Self::Ints, sums: Self::SmallSums, scales: Self::Scales) -> Self::Ints;
}

/// Something to be computed at one level or another.
pub(crate) trait Work {
    /// Must be `#[inline(always)]`, and so must be what it calls, or it is compiled without the
    /// level's instructions.
    ///
    /// # Safety
    /// The machine must have the instructions of `S`.
    unsafe fn run<S: Isa>(self);
}

/// Carries out `work` at `level`; in plain Rust if the machine does not have it.
#[inline]
pub(crate) fn dispatch<W: Work>(level: Level, work: W) {
    if !level.is_available() {
        // SAFETY: plain Rust runs everywhere.
        return unsafe { work.run::<scalar::Scalar>() };
    }
    match level {
        // SAFETY: `is_available` said that the machine has the instructions, here and below.
        #[cfg(target_arch = "x86_64")]
        Level::Sse2 => unsafe { work.run::<sse2::Sse2>() },
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => unsafe { with_avx2(work) },
        // SAFETY: as above, and the second question is the one for VNNI.
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => unsafe {
            if is_x86_feature_detected!("avx512vnni") { with_avx512_vnni(work) } else { with_avx512(work) }
        },
        // SAFETY: as above.
        #[cfg(target_arch = "aarch64")]
        Level::Neon => unsafe {
            if std::arch::is_aarch64_feature_detected!("dotprod") {
                with_neon_dotprod(work);
            } else {
                work.run::<neon::Neon<false>>();
            }
        },
        // SAFETY: as above.
        #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
        Level::Simd128 => unsafe { work.run::<wasm::Simd128>() },
        // SAFETY: plain Rust runs everywhere.
        _ => unsafe { work.run::<scalar::Scalar>() },
    }
}

/// # Safety
/// The machine must have AVX2 and F16C.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,f16c")]
unsafe fn with_avx2<W: Work>(work: W) {
    // SAFETY: the caller's promise.
    unsafe { work.run::<avx2::Avx2>() }
}

/// # Safety
/// The machine must have AVX-512 F, BW, VL and DQ.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
unsafe fn with_avx512<W: Work>(work: W) {
    // SAFETY: the caller's promise.
    unsafe { work.run::<avx512::Avx512<false>>() }
}

/// # Safety
/// The machine must have AVX-512 F, BW, VL, DQ and VNNI.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
unsafe fn with_avx512_vnni<W: Work>(work: W) {
    // SAFETY: the caller's promise.
    unsafe { work.run::<avx512::Avx512<true>>() }
}

/// # Safety
/// The machine must have NEON and its dot products.
#[cfg(target_arch = "aarch64")]
#[target_feature(enable = "neon,dotprod")]
unsafe fn with_neon_dotprod<W: Work>(work: W) {
    // SAFETY: the caller's promise.
    unsafe { work.run::<neon::Neon<true>>() }
}

#[cfg(test)]
mod tests;
