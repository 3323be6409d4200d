//! The lanes in AVX2: two registers of eight.
//!
//! Integer products use `maddubs`: unsigned times signed bytes, pairs added into 16 bits with
//! saturation, so every use must show that nothing saturates.

use super::Isa;
use std::arch::x86_64::*;

pub(crate) struct Avx2;

/// Four activations for each row.
#[inline(always)]
unsafe fn words(activations: i32) -> __m256i {
    // SAFETY: the caller has AVX2.
    unsafe { _mm256_set1_epi32(activations) }
}

/// Bits 2·PAIR and 2·PAIR + 1 of each byte, at bits 4 and 5.
#[inline(always)]
unsafe fn place_pair<const PAIR: i32>(pairs: __m256i) -> __m256i {
    // SAFETY: the caller has AVX2.
    unsafe {
        let shifted = match PAIR {
            0 => _mm256_slli_epi16::<4>(pairs),
            1 => _mm256_slli_epi16::<2>(pairs),
            2 => pairs,
            _ => _mm256_srli_epi16::<2>(pairs),
        };
        // What shifted in from the byte beside is masked off.
        _mm256_and_si256(shifted, _mm256_set1_epi8(0x30))
    }
}

/// Eight factors as the upper bytes of 16 bits; each twice, in 16 bits with its sign.
#[inline(always)]
unsafe fn scales_twice(upper: __m128i) -> __m256i {
    // SAFETY: the caller has AVX2.
    unsafe {
        let words = _mm_srai_epi16::<8>(upper);
        _mm256_set_m128i(_mm_unpackhi_epi16(words, words), _mm_unpacklo_epi16(words, words))
    }
}

/// `op` on each of two pairs of registers.
macro_rules! both {
    ($op:ident, $a:expr, $b:expr) => {
        // SAFETY: callers of `Isa` have AVX2.
        unsafe { [$op($a[0], $b[0]), $op($a[1], $b[1])] }
    };
}

// SAFETY of everything below: callers of `Isa` have AVX2 and F16C, and their pointers are good for 16
// values of their type, or 64 bytes; the loads and stores need no alignment and cover just that.
#[allow(clippy::undocumented_unsafe_blocks)]
impl Isa for Avx2 {
    type Floats = [__m256; 2];
    type Ints = [__m256i; 2];
    type Bytes = [__m256i; 2];
    /// Magnitudes, then the weights themselves for their signs.
    type Signed = [[__m256i; 2]; 2];
    type SignedSums = [__m256i; 2];
    /// Sixteen-bit sums, two for each row.
    type SmallSums = [__m256i; 2];
    /// Each factor twice, in 16 bits, to meet the two sums of its row.
    type Scales = [__m256i; 2];
    const TOKENS: usize = 4;

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self::Floats {
        unsafe { [_mm256_set1_ps(value); 2] }
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self::Floats {
        unsafe { [_mm256_loadu_ps(from), _mm256_loadu_ps(from.add(8))] }
    }

    #[inline(always)]
    unsafe fn store(to: *mut f32, values: Self::Floats) {
        unsafe {
            _mm256_storeu_ps(to, values[0]);
            _mm256_storeu_ps(to.add(8), values[1]);
        }
    }

    #[inline(always)]
    unsafe fn load_f16(from: *const u16) -> Self::Floats {
        unsafe {
            let halves = [_mm_loadu_si128(from.cast()), _mm_loadu_si128(from.add(8).cast())];
            [_mm256_cvtph_ps(halves[0]), _mm256_cvtph_ps(halves[1])]
        }
    }

    #[inline(always)]
    unsafe fn load_bf16(from: *const u16) -> Self::Floats {
        unsafe {
            let halves = [_mm_loadu_si128(from.cast()), _mm_loadu_si128(from.add(8).cast())];
            let wide = [_mm256_cvtepu16_epi32(halves[0]), _mm256_cvtepu16_epi32(halves[1])];
            [
                _mm256_castsi256_ps(_mm256_slli_epi32::<16>(wide[0])),
                _mm256_castsi256_ps(_mm256_slli_epi32::<16>(wide[1])),
            ]
        }
    }

    #[inline(always)]
    unsafe fn load_u8(from: *const u8) -> Self::Floats {
        unsafe {
            let bytes = _mm_loadu_si128(from.cast());
            [
                _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(bytes)),
                _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_srli_si128::<8>(bytes))),
            ]
        }
    }

    #[inline(always)]
    unsafe fn add(a: Self::Floats, b: Self::Floats) -> Self::Floats {
        both!(_mm256_add_ps, a, b)
    }

    #[inline(always)]
    unsafe fn sub(a: Self::Floats, b: Self::Floats) -> Self::Floats {
        both!(_mm256_sub_ps, a, b)
    }

    #[inline(always)]
    unsafe fn mul(a: Self::Floats, b: Self::Floats) -> Self::Floats {
        both!(_mm256_mul_ps, a, b)
    }

    #[inline(always)]
    unsafe fn to_floats(values: Self::Ints) -> Self::Floats {
        unsafe { [_mm256_cvtepi32_ps(values[0]), _mm256_cvtepi32_ps(values[1])] }
    }

    #[inline(always)]
    unsafe fn load_bytes(from: *const u8) -> Self::Bytes {
        unsafe { [_mm256_loadu_si256(from.cast()), _mm256_loadu_si256(from.add(32).cast())] }
    }

    #[inline(always)]
    unsafe fn low_nibbles(bytes: Self::Bytes) -> Self::Bytes {
        let mask = unsafe { [_mm256_set1_epi8(15); 2] };
        both!(_mm256_and_si256, bytes, mask)
    }

    #[inline(always)]
    unsafe fn high_nibbles(bytes: Self::Bytes) -> Self::Bytes {
        unsafe { Self::low_nibbles([_mm256_srli_epi16::<4>(bytes[0]), _mm256_srli_epi16::<4>(bytes[1])]) }
    }

    #[inline(always)]
    unsafe fn with_bit_pairs<const PAIR: i32>(nibbles: Self::Bytes, pairs: Self::Bytes) -> Self::Bytes {
        let placed = unsafe { [place_pair::<PAIR>(pairs[0]), place_pair::<PAIR>(pairs[1])] };
        both!(_mm256_or_si256, nibbles, placed)
    }

    #[inline(always)]
    unsafe fn load_signed(from: *const u8) -> Self::Signed {
        unsafe {
            let weights = Self::load_bytes(from);
            [[_mm256_abs_epi8(weights[0]), _mm256_abs_epi8(weights[1])], weights]
        }
    }

    #[inline(always)]
    unsafe fn signed_start(_: i32) -> Self::SignedSums {
        unsafe { [_mm256_setzero_si256(); 2] }
    }

    /// w·x = |w|·(x with the sign of w). A magnitude is at most 128 (−128 becomes the unsigned 128),
    /// an activation at most 127, and has a negative of its own; a pair is at most 2·128·127 = 32512,
    /// below 32767.
    #[inline(always)]
    unsafe fn signed_add(sums: Self::SignedSums, weights: Self::Signed, activations: i32) -> Self::SignedSums {
        unsafe {
            let (x, ones) = (words(activations), _mm256_set1_epi16(1));
            let [magnitudes, signs] = weights;
            let low = _mm256_maddubs_epi16(magnitudes[0], _mm256_sign_epi8(x, signs[0]));
            let high = _mm256_maddubs_epi16(magnitudes[1], _mm256_sign_epi8(x, signs[1]));
            [
                _mm256_add_epi32(sums[0], _mm256_madd_epi16(low, ones)),
                _mm256_add_epi32(sums[1], _mm256_madd_epi16(high, ones)),
            ]
        }
    }

    #[inline(always)]
    unsafe fn signed_end(sums: Self::SignedSums) -> Self::Ints {
        sums
    }

    #[inline(always)]
    unsafe fn small_start() -> Self::SmallSums {
        unsafe { [_mm256_setzero_si256(); 2] }
    }

    /// Sums stay in 16 bits: eight pairs of weights up to 15 are at most 8·2·15·127 = 30480, two
    /// pairs of weights up to 63 at most 2·2·63·127 = 32004; both below 32767.
    #[inline(always)]
    unsafe fn small_add(sums: Self::SmallSums, weights: Self::Bytes, activations: i32) -> Self::SmallSums {
        unsafe {
            let x = words(activations);
            [
                _mm256_add_epi16(sums[0], _mm256_maddubs_epi16(weights[0], x)),
                _mm256_add_epi16(sums[1], _mm256_maddubs_epi16(weights[1], x)),
            ]
        }
    }

    #[inline(always)]
    unsafe fn small_end(sums: Self::SmallSums, less: i32) -> Self::Ints {
        unsafe {
            let (ones, less) = (_mm256_set1_epi16(1), _mm256_set1_epi32(less));
            [
                _mm256_sub_epi32(_mm256_madd_epi16(sums[0], ones), less),
                _mm256_sub_epi32(_mm256_madd_epi16(sums[1], ones), less),
            ]
        }
    }

    #[inline(always)]
    unsafe fn load_scales(from: *const u8) -> Self::Scales {
        unsafe {
            let bytes = _mm_loadu_si128(from.cast());
            // Each byte twice gives words with the byte above; the shift keeps it, with its sign.
            let twice = [_mm_unpacklo_epi8(bytes, bytes), _mm_unpackhi_epi8(bytes, bytes)];
            [scales_twice(twice[0]), scales_twice(twice[1])]
        }
    }

    #[inline(always)]
    unsafe fn scaled_start(a: Self::Scales, b: Self::Scales, x: i32, y: i32) -> Self::Ints {
        unsafe {
            // Per row the words (a, b) meet (x, y), which fit 16 bits.
            let sums = _mm256_set1_epi32(x & 0xffff | y << 16);
            let low = _mm256_madd_epi16(_mm256_blend_epi16::<0b1010_1010>(a[0], b[0]), sums);
            let high = _mm256_madd_epi16(_mm256_blend_epi16::<0b1010_1010>(a[1], b[1]), sums);
            let zero = _mm256_setzero_si256();
            [_mm256_sub_epi32(zero, _mm256_slli_epi32::<5>(low)), _mm256_sub_epi32(zero, _mm256_slli_epi32::<5>(high))]
        }
    }

    #[inline(always)]
    unsafe fn scaled_end(total: Self::Ints, sums: Self::SmallSums, scales: Self::Scales) -> Self::Ints {
        unsafe {
            [
                _mm256_add_epi32(total[0], _mm256_madd_epi16(sums[0], scales[0])),
                _mm256_add_epi32(total[1], _mm256_madd_epi16(sums[1], scales[1])),
            ]
        }
    }
}
