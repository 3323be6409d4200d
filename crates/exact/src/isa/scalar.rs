//! The lanes in plain Rust: what every other level must equal.

use super::{Isa, LANES};

pub(crate) struct Scalar;

#[inline(always)]
fn lanes<T: Copy + Default>(mut lane: impl FnMut(usize) -> T) -> [T; LANES] {
    let mut values = [T::default(); LANES];
    for (index, value) in values.iter_mut().enumerate() {
        *value = lane(index);
    }
    values
}

/// `sums[row] + Σ weights[row][i] · activations[i]` over the four of each row.
#[inline(always)]
fn dot(sums: [i32; LANES], weights: impl Fn(usize) -> i32, activations: i32) -> [i32; LANES] {
    let x = activations.to_le_bytes().map(|byte| i32::from(byte.cast_signed()));
    lanes(|row| {
        let at = row * 4;
        sums[row] + weights(at) * x[0] + weights(at + 1) * x[1] + weights(at + 2) * x[2] + weights(at + 3) * x[3]
    })
}

// SAFETY of every read and write below: the caller's pointers are good for 16 values of their type,
// or 64 bytes.
#[allow(clippy::undocumented_unsafe_blocks)]
impl Isa for Scalar {
    type Floats = [f32; LANES];
    type Ints = [i32; LANES];
    type Bytes = [u8; 64];
    type Signed = [u8; 64];
    type SignedSums = [i32; LANES];
    type SmallSums = [i32; LANES];
    type Scales = [i32; LANES];
    const TOKENS: usize = 1;

    #[inline(always)]
    unsafe fn splat(value: f32) -> [f32; LANES] {
        [value; LANES]
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> [f32; LANES] {
        unsafe { from.cast::<[f32; LANES]>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn store(to: *mut f32, values: [f32; LANES]) {
        unsafe { to.cast::<[f32; LANES]>().write_unaligned(values) }
    }

    #[inline(always)]
    unsafe fn load_f16(from: *const u16) -> [f32; LANES] {
        let bits = unsafe { from.cast::<[u16; LANES]>().read_unaligned() };
        lanes(|lane| {
            // With the fraction in place the number is 2^-112 of itself, subnormals too, so the
            // product is exact.
            let magnitude = f32::from_bits(u32::from(bits[lane] & 0x7fff) << 13) * f32::from_bits(0x7780_0000);
            f32::from_bits(magnitude.to_bits() | u32::from(bits[lane] & 0x8000) << 16)
        })
    }

    #[inline(always)]
    unsafe fn load_bf16(from: *const u16) -> [f32; LANES] {
        let bits = unsafe { from.cast::<[u16; LANES]>().read_unaligned() };
        lanes(|lane| f32::from_bits(u32::from(bits[lane]) << 16))
    }

    #[inline(always)]
    unsafe fn load_u8(from: *const u8) -> [f32; LANES] {
        let bytes = unsafe { from.cast::<[u8; LANES]>().read() };
        lanes(|lane| f32::from(bytes[lane]))
    }

    #[inline(always)]
    unsafe fn add(a: [f32; LANES], b: [f32; LANES]) -> [f32; LANES] {
        lanes(|lane| a[lane] + b[lane])
    }

    #[inline(always)]
    unsafe fn sub(a: [f32; LANES], b: [f32; LANES]) -> [f32; LANES] {
        lanes(|lane| a[lane] - b[lane])
    }

    #[inline(always)]
    unsafe fn mul(a: [f32; LANES], b: [f32; LANES]) -> [f32; LANES] {
        lanes(|lane| a[lane] * b[lane])
    }

    #[inline(always)]
    #[allow(clippy::cast_precision_loss)] // rounding is what the definition says
    unsafe fn to_floats(values: [i32; LANES]) -> [f32; LANES] {
        lanes(|lane| values[lane] as f32)
    }

    #[inline(always)]
    unsafe fn load_bytes(from: *const u8) -> [u8; 64] {
        unsafe { from.cast::<[u8; 64]>().read() }
    }

    #[inline(always)]
    unsafe fn low_nibbles(bytes: [u8; 64]) -> [u8; 64] {
        bytes.map(|byte| byte & 15)
    }

    #[inline(always)]
    unsafe fn high_nibbles(bytes: [u8; 64]) -> [u8; 64] {
        bytes.map(|byte| byte >> 4)
    }

    #[inline(always)]
    unsafe fn with_bit_pairs<const PAIR: i32>(nibbles: [u8; 64], pairs: [u8; 64]) -> [u8; 64] {
        let mut bytes = nibbles;
        for (byte, pairs) in bytes.iter_mut().zip(pairs) {
            *byte |= (pairs >> (2 * PAIR) & 3) << 4;
        }
        bytes
    }

    #[inline(always)]
    unsafe fn load_signed(from: *const u8) -> [u8; 64] {
        unsafe { from.cast::<[u8; 64]>().read() }
    }

    #[inline(always)]
    unsafe fn signed_start(_: i32) -> [i32; LANES] {
        [0; LANES]
    }

    #[inline(always)]
    unsafe fn signed_add(sums: [i32; LANES], weights: [u8; 64], activations: i32) -> [i32; LANES] {
        dot(sums, |at| i32::from(weights[at].cast_signed()), activations)
    }

    #[inline(always)]
    unsafe fn signed_end(sums: [i32; LANES]) -> [i32; LANES] {
        sums
    }

    #[inline(always)]
    unsafe fn small_start() -> [i32; LANES] {
        [0; LANES]
    }

    #[inline(always)]
    unsafe fn small_add(sums: [i32; LANES], weights: [u8; 64], activations: i32) -> [i32; LANES] {
        dot(sums, |at| i32::from(weights[at]), activations)
    }

    #[inline(always)]
    unsafe fn small_end(sums: [i32; LANES], less: i32) -> [i32; LANES] {
        lanes(|lane| sums[lane] - less)
    }

    #[inline(always)]
    unsafe fn load_scales(from: *const u8) -> [i32; LANES] {
        let bytes = unsafe { from.cast::<[u8; LANES]>().read() };
        lanes(|lane| i32::from(bytes[lane].cast_signed()))
    }

    #[inline(always)]
    unsafe fn scaled_start(a: [i32; LANES], b: [i32; LANES], x: i32, y: i32) -> [i32; LANES] {
        lanes(|lane| -32 * (a[lane] * x + b[lane] * y))
    }

    #[inline(always)]
    unsafe fn scaled_end(total: [i32; LANES], sums: [i32; LANES], scales: [i32; LANES]) -> [i32; LANES] {
        lanes(|lane| total[lane] + scales[lane] * sums[lane])
    }
}
