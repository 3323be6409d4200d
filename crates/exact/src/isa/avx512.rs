//! The lanes in AVX-512: one register of sixteen.
//!
//! With VNNI, `vpdpbusd` adds four products of an unsigned and a signed byte to 32 bits without any
//! saturation. Without it the products go as in AVX2, through pairs in 16 bits.

use super::Isa;
use std::arch::x86_64::*;

pub(crate) struct Avx512<const VNNI: bool>;

// SAFETY of everything below: callers of `Isa` have AVX-512 F, BW, VL and DQ, and VNNI where the type
// says so; their pointers are good for 16 values of their type, or 64 bytes; the loads and stores
// need no alignment and cover just that.
#[allow(clippy::undocumented_unsafe_blocks)]
impl<const VNNI: bool> Isa for Avx512<VNNI> {
    type Floats = __m512;
    type Ints = __m512i;
    type Bytes = __m512i;
    /// The weights; with VNNI plus 128, as unsigned bytes.
    type Signed = __m512i;
    type SignedSums = __m512i;
    /// With VNNI one 32-bit sum for each row, else two 16-bit sums.
    type SmallSums = __m512i;
    /// With VNNI one 32-bit factor for each row, else the factor twice in 16 bits.
    type Scales = __m512i;
    const TOKENS: usize = 8;

    #[inline(always)]
    unsafe fn splat(value: f32) -> __m512 {
        unsafe { _mm512_set1_ps(value) }
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> __m512 {
        unsafe { _mm512_loadu_ps(from) }
    }

    #[inline(always)]
    unsafe fn store(to: *mut f32, values: __m512) {
        unsafe { _mm512_storeu_ps(to, values) };
    }

    #[inline(always)]
    unsafe fn load_f16(from: *const u16) -> __m512 {
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(from.cast())) }
    }

    #[inline(always)]
    unsafe fn load_bf16(from: *const u16) -> __m512 {
        unsafe {
            let wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(from.cast()));
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(wide))
        }
    }

    #[inline(always)]
    unsafe fn load_u8(from: *const u8) -> __m512 {
        unsafe { _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128(from.cast()))) }
    }

    #[inline(always)]
    unsafe fn add(a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_add_ps(a, b) }
    }

    #[inline(always)]
    unsafe fn sub(a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_sub_ps(a, b) }
    }

    #[inline(always)]
    unsafe fn mul(a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_mul_ps(a, b) }
    }

    #[inline(always)]
    unsafe fn to_floats(values: __m512i) -> __m512 {
        unsafe { _mm512_cvtepi32_ps(values) }
    }

    #[inline(always)]
    unsafe fn load_bytes(from: *const u8) -> __m512i {
        unsafe { _mm512_loadu_si512(from.cast()) }
    }

    #[inline(always)]
    unsafe fn low_nibbles(bytes: __m512i) -> __m512i {
        unsafe { _mm512_and_si512(bytes, _mm512_set1_epi8(15)) }
    }

    #[inline(always)]
    unsafe fn high_nibbles(bytes: __m512i) -> __m512i {
        unsafe { Self::low_nibbles(_mm512_srli_epi16::<4>(bytes)) }
    }

    #[inline(always)]
    unsafe fn with_bit_pairs<const PAIR: i32>(nibbles: __m512i, pairs: __m512i) -> __m512i {
        unsafe {
            // Bits 2·PAIR and 2·PAIR + 1 go to 4 and 5; what shifts in from the next byte is masked off.
            let shifted = match PAIR {
                0 => _mm512_slli_epi16::<4>(pairs),
                1 => _mm512_slli_epi16::<2>(pairs),
                2 => pairs,
                _ => _mm512_srli_epi16::<2>(pairs),
            };
            _mm512_or_si512(nibbles, _mm512_and_si512(shifted, _mm512_set1_epi8(0x30)))
        }
    }

    #[inline(always)]
    unsafe fn load_signed(from: *const u8) -> __m512i {
        unsafe {
            let weights = Self::load_bytes(from);
            // Flipping the top bit adds 128 to an int8, as an unsigned byte.
            if VNNI { _mm512_xor_si512(weights, _mm512_set1_epi8(-128)) } else { weights }
        }
    }

    /// With VNNI every weight counts 128 too much, so the sum starts at −128·Σx.
    #[inline(always)]
    unsafe fn signed_start(activations: i32) -> __m512i {
        unsafe { if VNNI { _mm512_set1_epi32(-128 * activations) } else { _mm512_setzero_si512() } }
    }

    /// Without VNNI: w·x = |w|·(x with the sign of w); a magnitude is at most 128, an activation at
    /// most 127, so a pair is at most 2·128·127 = 32512, below 32767. Where w is 0, |w| is, so it
    /// does not matter that x keeps its sign there.
    #[inline(always)]
    unsafe fn signed_add(sums: __m512i, weights: __m512i, activations: i32) -> __m512i {
        unsafe {
            let x = _mm512_set1_epi32(activations);
            if VNNI {
                return _mm512_dpbusd_epi32(sums, weights, x);
            }
            let negative = _mm512_movepi8_mask(weights);
            let x = _mm512_mask_sub_epi8(x, negative, _mm512_setzero_si512(), x);
            let pairs = _mm512_maddubs_epi16(_mm512_abs_epi8(weights), x);
            _mm512_add_epi32(sums, _mm512_madd_epi16(pairs, _mm512_set1_epi16(1)))
        }
    }

    #[inline(always)]
    unsafe fn signed_end(sums: __m512i) -> __m512i {
        sums
    }

    #[inline(always)]
    unsafe fn small_start() -> __m512i {
        unsafe { _mm512_setzero_si512() }
    }

    /// Without VNNI sums stay in 16 bits: eight pairs of weights up to 15 are at most
    /// 8·2·15·127 = 30480, two pairs of weights up to 63 at most 2·2·63·127 = 32004; both below 32767.
    #[inline(always)]
    unsafe fn small_add(sums: __m512i, weights: __m512i, activations: i32) -> __m512i {
        unsafe {
            let x = _mm512_set1_epi32(activations);
            if VNNI {
                _mm512_dpbusd_epi32(sums, weights, x)
            } else {
                _mm512_add_epi16(sums, _mm512_maddubs_epi16(weights, x))
            }
        }
    }

    #[inline(always)]
    unsafe fn small_end(sums: __m512i, less: i32) -> __m512i {
        unsafe {
            let sums = if VNNI { sums } else { _mm512_madd_epi16(sums, _mm512_set1_epi16(1)) };
            _mm512_sub_epi32(sums, _mm512_set1_epi32(less))
        }
    }

    #[inline(always)]
    unsafe fn load_scales(from: *const u8) -> __m512i {
        unsafe {
            let factors = _mm512_cvtepi8_epi32(_mm_loadu_si128(from.cast()));
            if VNNI {
                return factors;
            }
            _mm512_or_si512(_mm512_and_si512(factors, _mm512_set1_epi32(0xffff)), _mm512_slli_epi32::<16>(factors))
        }
    }

    #[inline(always)]
    unsafe fn scaled_start(a: __m512i, b: __m512i, x: i32, y: i32) -> __m512i {
        unsafe {
            // Per row the words (a, b) meet (x, y), which fit 16 bits; so do the factors, whichever
            // form they have.
            let low = _mm512_and_si512(a, _mm512_set1_epi32(0xffff));
            let pairs = _mm512_or_si512(low, _mm512_slli_epi32::<16>(b));
            let sums = _mm512_madd_epi16(pairs, _mm512_set1_epi32(x & 0xffff | y << 16));
            _mm512_sub_epi32(_mm512_setzero_si512(), _mm512_slli_epi32::<5>(sums))
        }
    }

    #[inline(always)]
    unsafe fn scaled_end(total: __m512i, sums: __m512i, scales: __m512i) -> __m512i {
        unsafe {
            let product = if VNNI { _mm512_mullo_epi32(sums, scales) } else { _mm512_madd_epi16(sums, scales) };
            _mm512_add_epi32(total, product)
        }
    }
}
