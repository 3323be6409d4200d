//! The lanes in SSE2: four registers of four.
//!
//! Bytes are widened to 16 bits and multiplied by `madd`, which adds pairs in 32 bits: exact for all
//! values, so nothing can saturate. Two 32-bit sums for each row meet at the end of a block.

use super::Isa;
use std::arch::x86_64::*;

pub(crate) struct Sse2;

/// Two sums for each of two rows in each register.
type Sums = [__m128i; 8];

/// `op` on each of four pairs of registers.
macro_rules! four {
    ($op:ident, $a:expr, $b:expr) => {
        // SAFETY: SSE2 is part of x86-64.
        unsafe { [$op($a[0], $b[0]), $op($a[1], $b[1]), $op($a[2], $b[2]), $op($a[3], $b[3])] }
    };
}

/// Four activations in 16 bits, twice.
#[inline(always)]
unsafe fn words(activations: i32) -> __m128i {
    // SAFETY: SSE2 is part of x86-64.
    unsafe {
        let bytes = _mm_set1_epi32(activations);
        // Each byte twice gives words with the byte above; the shift keeps it, with its sign.
        _mm_srai_epi16::<8>(_mm_unpacklo_epi8(bytes, bytes))
    }
}

/// Four finite halves in the lower 16 bits of each lane, widened.
#[inline(always)]
unsafe fn widen_halves(bits: __m128i) -> __m128 {
    // SAFETY: SSE2 is part of x86-64.
    unsafe {
        let sign = _mm_slli_epi32::<16>(_mm_and_si128(bits, _mm_set1_epi32(0x8000)));
        let fraction = _mm_slli_epi32::<13>(_mm_and_si128(bits, _mm_set1_epi32(0x7fff)));
        // With the fraction in place the number is 2^-112 of itself, subnormals too, so the product
        // is exact.
        let magnitude = _mm_mul_ps(_mm_castsi128_ps(fraction), _mm_set1_ps(f32::from_bits(0x7780_0000)));
        _mm_or_ps(magnitude, _mm_castsi128_ps(sign))
    }
}

#[inline(always)]
unsafe fn add_products(mut sums: Sums, low: [__m128i; 4], high: [__m128i; 4], activations: i32) -> Sums {
    // SAFETY: SSE2 is part of x86-64.
    unsafe {
        let x = words(activations);
        for i in 0..4 {
            sums[2 * i] = _mm_add_epi32(sums[2 * i], _mm_madd_epi16(low[i], x));
            sums[2 * i + 1] = _mm_add_epi32(sums[2 * i + 1], _mm_madd_epi16(high[i], x));
        }
        sums
    }
}

/// Adds the two sums of each row.
#[inline(always)]
unsafe fn join(sums: Sums) -> [__m128i; 4] {
    // SAFETY: SSE2 is part of x86-64.
    unsafe {
        let mut rows = [_mm_setzero_si128(); 4];
        for (i, row) in rows.iter_mut().enumerate() {
            let (a, b) = (_mm_castsi128_ps(sums[2 * i]), _mm_castsi128_ps(sums[2 * i + 1]));
            let even = _mm_castps_si128(_mm_shuffle_ps::<0b10_00_10_00>(a, b));
            let odd = _mm_castps_si128(_mm_shuffle_ps::<0b11_01_11_01>(a, b));
            *row = _mm_add_epi32(even, odd);
        }
        rows
    }
}

/// The lower 32 bits of products: SSE2 has them for two lanes at a time, unsigned, which is the same.
#[inline(always)]
unsafe fn multiply(a: __m128i, b: __m128i) -> __m128i {
    // SAFETY: SSE2 is part of x86-64.
    unsafe {
        let even = _mm_mul_epu32(a, b);
        let odd = _mm_mul_epu32(_mm_srli_epi64::<32>(a), _mm_srli_epi64::<32>(b));
        _mm_unpacklo_epi32(_mm_shuffle_epi32::<0b00_00_10_00>(even), _mm_shuffle_epi32::<0b00_00_10_00>(odd))
    }
}

// SAFETY of everything below: SSE2 is part of x86-64; the callers' pointers are good for 16 values of
// their type, or 64 bytes; the loads and stores need no alignment and cover just that.
#[allow(clippy::undocumented_unsafe_blocks)]
impl Isa for Sse2 {
    type Floats = [__m128; 4];
    type Ints = [__m128i; 4];
    type Bytes = [__m128i; 4];
    type Signed = [__m128i; 4];
    type SignedSums = Sums;
    type SmallSums = Sums;
    type Scales = [__m128i; 4];
    const TOKENS: usize = 2;

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self::Floats {
        unsafe { [_mm_set1_ps(value); 4] }
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self::Floats {
        unsafe {
            [_mm_loadu_ps(from), _mm_loadu_ps(from.add(4)), _mm_loadu_ps(from.add(8)), _mm_loadu_ps(from.add(12))]
        }
    }

    #[inline(always)]
    unsafe fn store(to: *mut f32, values: Self::Floats) {
        for (i, values) in values.into_iter().enumerate() {
            unsafe { _mm_storeu_ps(to.add(4 * i), values) };
        }
    }

    #[inline(always)]
    unsafe fn load_f16(from: *const u16) -> Self::Floats {
        unsafe {
            let zero = _mm_setzero_si128();
            let halves = [_mm_loadu_si128(from.cast()), _mm_loadu_si128(from.add(8).cast())];
            [
                widen_halves(_mm_unpacklo_epi16(halves[0], zero)),
                widen_halves(_mm_unpackhi_epi16(halves[0], zero)),
                widen_halves(_mm_unpacklo_epi16(halves[1], zero)),
                widen_halves(_mm_unpackhi_epi16(halves[1], zero)),
            ]
        }
    }

    #[inline(always)]
    unsafe fn load_bf16(from: *const u16) -> Self::Floats {
        unsafe {
            let zero = _mm_setzero_si128();
            let halves = [_mm_loadu_si128(from.cast()), _mm_loadu_si128(from.add(8).cast())];
            [
                _mm_castsi128_ps(_mm_unpacklo_epi16(zero, halves[0])),
                _mm_castsi128_ps(_mm_unpackhi_epi16(zero, halves[0])),
                _mm_castsi128_ps(_mm_unpacklo_epi16(zero, halves[1])),
                _mm_castsi128_ps(_mm_unpackhi_epi16(zero, halves[1])),
            ]
        }
    }

    #[inline(always)]
    unsafe fn load_u8(from: *const u8) -> Self::Floats {
        unsafe {
            let zero = _mm_setzero_si128();
            let bytes = _mm_loadu_si128(from.cast());
            let words = [_mm_unpacklo_epi8(bytes, zero), _mm_unpackhi_epi8(bytes, zero)];
            [
                _mm_cvtepi32_ps(_mm_unpacklo_epi16(words[0], zero)),
                _mm_cvtepi32_ps(_mm_unpackhi_epi16(words[0], zero)),
                _mm_cvtepi32_ps(_mm_unpacklo_epi16(words[1], zero)),
                _mm_cvtepi32_ps(_mm_unpackhi_epi16(words[1], zero)),
            ]
        }
    }

    #[inline(always)]
    unsafe fn add(a: Self::Floats, b: Self::Floats) -> Self::Floats {
        four!(_mm_add_ps, a, b)
    }

    #[inline(always)]
    unsafe fn sub(a: Self::Floats, b: Self::Floats) -> Self::Floats {
        four!(_mm_sub_ps, a, b)
    }

    #[inline(always)]
    unsafe fn mul(a: Self::Floats, b: Self::Floats) -> Self::Floats {
        four!(_mm_mul_ps, a, b)
    }

    #[inline(always)]
    unsafe fn to_floats(values: Self::Ints) -> Self::Floats {
        unsafe {
            [
                _mm_cvtepi32_ps(values[0]),
                _mm_cvtepi32_ps(values[1]),
                _mm_cvtepi32_ps(values[2]),
                _mm_cvtepi32_ps(values[3]),
            ]
        }
    }

    #[inline(always)]
    unsafe fn load_bytes(from: *const u8) -> Self::Bytes {
        unsafe {
            [
                _mm_loadu_si128(from.cast()),
                _mm_loadu_si128(from.add(16).cast()),
                _mm_loadu_si128(from.add(32).cast()),
                _mm_loadu_si128(from.add(48).cast()),
            ]
        }
    }

    #[inline(always)]
    unsafe fn low_nibbles(bytes: Self::Bytes) -> Self::Bytes {
        let mask = unsafe { [_mm_set1_epi8(15); 4] };
        four!(_mm_and_si128, bytes, mask)
    }

    #[inline(always)]
    unsafe fn high_nibbles(mut bytes: Self::Bytes) -> Self::Bytes {
        for bytes in &mut bytes {
            *bytes = unsafe { _mm_srli_epi16::<4>(*bytes) };
        }
        unsafe { Self::low_nibbles(bytes) }
    }

    #[inline(always)]
    unsafe fn with_bit_pairs<const PAIR: i32>(nibbles: Self::Bytes, mut pairs: Self::Bytes) -> Self::Bytes {
        for pairs in &mut pairs {
            // Bits 2·PAIR and 2·PAIR + 1 go to 4 and 5; what shifts in from the next byte is masked off.
            *pairs = unsafe {
                let shifted = match PAIR {
                    0 => _mm_slli_epi16::<4>(*pairs),
                    1 => _mm_slli_epi16::<2>(*pairs),
                    2 => *pairs,
                    _ => _mm_srli_epi16::<2>(*pairs),
                };
                _mm_and_si128(shifted, _mm_set1_epi8(0x30))
            };
        }
        four!(_mm_or_si128, nibbles, pairs)
    }

    #[inline(always)]
    unsafe fn load_signed(from: *const u8) -> Self::Signed {
        unsafe { Self::load_bytes(from) }
    }

    #[inline(always)]
    unsafe fn signed_start(_: i32) -> Sums {
        unsafe { [_mm_setzero_si128(); 8] }
    }

    #[inline(always)]
    unsafe fn signed_add(sums: Sums, weights: Self::Signed, activations: i32) -> Sums {
        unsafe {
            let zero = [_mm_setzero_si128(); 4];
            let (mut low, mut high) = (zero, zero);
            for i in 0..4 {
                low[i] = _mm_srai_epi16::<8>(_mm_unpacklo_epi8(zero[i], weights[i]));
                high[i] = _mm_srai_epi16::<8>(_mm_unpackhi_epi8(zero[i], weights[i]));
            }
            add_products(sums, low, high, activations)
        }
    }

    #[inline(always)]
    unsafe fn signed_end(sums: Sums) -> Self::Ints {
        unsafe { join(sums) }
    }

    #[inline(always)]
    unsafe fn small_start() -> Sums {
        unsafe { [_mm_setzero_si128(); 8] }
    }

    #[inline(always)]
    unsafe fn small_add(sums: Sums, weights: Self::Bytes, activations: i32) -> Sums {
        let zero = unsafe { [_mm_setzero_si128(); 4] };
        let low = four!(_mm_unpacklo_epi8, weights, zero);
        let high = four!(_mm_unpackhi_epi8, weights, zero);
        unsafe { add_products(sums, low, high, activations) }
    }

    #[inline(always)]
    unsafe fn small_end(sums: Sums, less: i32) -> Self::Ints {
        let (sums, less) = unsafe { (join(sums), [_mm_set1_epi32(less); 4]) };
        four!(_mm_sub_epi32, sums, less)
    }

    #[inline(always)]
    unsafe fn load_scales(from: *const u8) -> Self::Scales {
        unsafe {
            let bytes = _mm_loadu_si128(from.cast());
            let twice = [_mm_unpacklo_epi8(bytes, bytes), _mm_unpackhi_epi8(bytes, bytes)];
            [
                _mm_srai_epi32::<24>(_mm_unpacklo_epi16(twice[0], twice[0])),
                _mm_srai_epi32::<24>(_mm_unpackhi_epi16(twice[0], twice[0])),
                _mm_srai_epi32::<24>(_mm_unpacklo_epi16(twice[1], twice[1])),
                _mm_srai_epi32::<24>(_mm_unpackhi_epi16(twice[1], twice[1])),
            ]
        }
    }

    #[inline(always)]
    unsafe fn scaled_start(a: Self::Scales, b: Self::Scales, x: i32, y: i32) -> Self::Ints {
        let mut total = a;
        for i in 0..4 {
            total[i] = unsafe {
                // Per row the words (a, b) meet (x, y), which fit 16 bits.
                let low = _mm_and_si128(a[i], _mm_set1_epi32(0xffff));
                let pairs = _mm_or_si128(low, _mm_slli_epi32::<16>(b[i]));
                let sums = _mm_madd_epi16(pairs, _mm_set1_epi32(x & 0xffff | y << 16));
                _mm_sub_epi32(_mm_setzero_si128(), _mm_slli_epi32::<5>(sums))
            };
        }
        total
    }

    #[inline(always)]
    unsafe fn scaled_end(total: Self::Ints, sums: Sums, scales: Self::Scales) -> Self::Ints {
        let sums = unsafe { join(sums) };
        let products = four!(multiply, sums, scales);
        four!(_mm_add_epi32, total, products)
    }
}
