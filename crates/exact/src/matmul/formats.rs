//! Formats of weight matrices, as files store them.
//!
//! The block formats are those of GGUF. A block is a row's next 32 or 256 weights with their scales,
//! all little-endian:
//!
//! | format | weights | bytes | layout |
//! |---|---|---|---|
//! | Q8_0 | 32 | 34 | d f16; 32 × int8 |
//! | Q4_0 | 32 | 18 | d f16; 16 bytes: low nibbles are weights 0–15, high ones 16–31 |
//! | Q4_K | 256 | 144 | d, dmin f16; 8 pairs of 6-bit scale and minimum in 12 bytes; 128 bytes: of each 32, low nibbles are 32 weights, high ones the next 32 |
//! | Q6_K | 256 | 210 | 128 bytes of low nibbles, 64 of upper bit pairs, 16 × int8 scales, d f16 |

use crate::math::f16_to_f32;

/// How weights are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(non_camel_case_types)] // the formats' usual names
pub enum Format {
    F32,
    F16,
    Bf16,
    Q8_0,
    Q4_0,
    Q4K,
    Q6K,
}

impl Format {
    /// Every format.
    pub const ALL: [Self; 7] = [Self::F32, Self::F16, Self::Bf16, Self::Q8_0, Self::Q4_0, Self::Q4K, Self::Q6K];

    /// Weights in a block; 1 for formats without blocks. Rows are whole blocks.
    pub fn block_elements(self) -> usize {
        match self {
            Self::F32 | Self::F16 | Self::Bf16 => 1,
            Self::Q8_0 | Self::Q4_0 => 32,
            Self::Q4K | Self::Q6K => 256,
        }
    }

    /// Bytes of a block.
    pub fn block_bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
            Self::Q8_0 => 34,
            Self::Q4_0 => 18,
            Self::Q4K => 144,
            Self::Q6K => 210,
        }
    }

    /// Bytes of a row of k weights, k a multiple of [`Format::block_elements`].
    pub fn row_bytes(self, k: usize) -> usize {
        k / self.block_elements() * self.block_bytes()
    }

    /// Whether activations are quantised to meet these weights.
    pub fn is_quantised(self) -> bool {
        self.block_elements() > 1
    }

    /// The weights of one block as f32, by the rules of `NUMERICS.md`; `out` holds
    /// [`Format::block_elements`].
    pub fn dequantise_block(self, block: &[u8], out: &mut [f32]) {
        let half = |at: usize| f16_to_f32(u16::from_le_bytes([block[at], block[at + 1]]));
        match self {
            Self::F32 => out[0] = f32::from_le_bytes([block[0], block[1], block[2], block[3]]),
            Self::F16 => out[0] = half(0),
            Self::Bf16 => out[0] = f32::from_bits(u32::from(u16::from_le_bytes([block[0], block[1]])) << 16),
            Self::Q8_0 => {
                let d = half(0);
                for (out, q) in out.iter_mut().zip(&block[2..]) {
                    *out = d * f32::from(q.cast_signed());
                }
            }
            Self::Q4_0 => {
                let d = half(0);
                for (index, out) in out.iter_mut().enumerate() {
                    *out = d * (f32::from(q4_0(block, index)) - 8.0);
                }
            }
            Self::Q4K => {
                let (d, dmin) = (half(0), half(2));
                for (index, out) in out.iter_mut().enumerate() {
                    let (scale, min) = q4k_scale(block, index / 32);
                    *out = (d * f32::from(scale)) * f32::from(q4k(block, index)) - dmin * f32::from(min);
                }
            }
            Self::Q6K => {
                let d = half(208);
                for (index, out) in out.iter_mut().enumerate() {
                    let scale = f32::from(block[192 + index / 16].cast_signed());
                    *out = (d * scale) * (f32::from(q6k(block, index)) - 32.0);
                }
            }
        }
    }

    /// Whether all weights, or all scales, of whole blocks are finite numbers.
    pub(super) fn all_finite(self, data: &[u8]) -> bool {
        // Exponents all ones, in the upper bytes of a half, of a bfloat16, of an f32.
        let half = |upper: u8| upper & 0x7c != 0x7c;
        let wide = |bytes: [u8; 2]| u16::from_le_bytes(bytes) & 0x7f80 != 0x7f80;
        match self {
            Self::F32 => data.as_chunks::<4>().0.iter().all(|bytes| wide([bytes[2], bytes[3]])),
            Self::F16 => data.as_chunks::<2>().0.iter().all(|bytes| half(bytes[1])),
            Self::Bf16 => data.as_chunks::<2>().0.iter().all(|bytes| wide(*bytes)),
            Self::Q8_0 | Self::Q4_0 => data.chunks_exact(self.block_bytes()).all(|block| half(block[1])),
            Self::Q4K => data.chunks_exact(144).all(|block| half(block[1]) && half(block[3])),
            Self::Q6K => data.chunks_exact(210).all(|block| half(block[209])),
        }
    }
}

/// Weight `index` of a Q4_0 block, 0 to 15.
#[inline(always)]
fn q4_0(block: &[u8], index: usize) -> u8 {
    block[2 + index % 16] >> (index / 16 * 4) & 15
}

/// Weight `index` of a Q4_K block, 0 to 15.
#[inline(always)]
fn q4k(block: &[u8], index: usize) -> u8 {
    block[16 + index / 64 * 32 + index % 32] >> (index / 32 % 2 * 4) & 15
}

/// Scale and minimum of a Q4_K block's 32 weights number `part`, 0 to 63 each.
#[inline(always)]
pub(super) fn q4k_scale(block: &[u8], part: usize) -> (u8, u8) {
    let packed = &block[4..16];
    if part < 4 {
        return (packed[part] & 63, packed[part + 4] & 63);
    }
    let low = packed[part + 4];
    (low & 15 | packed[part - 4] >> 6 << 4, low >> 4 | packed[part] >> 6 << 4)
}

/// Weight `index` of a Q6_K block, 0 to 63.
#[inline(always)]
fn q6k(block: &[u8], index: usize) -> u8 {
    // Each half of 128 weights: 64 bytes of nibbles, 32 of bit pairs; a quarter is 32 weights.
    let (half, quarter, column) = (index / 128, index / 32 % 4, index % 32);
    let nibble = block[half * 64 + quarter % 2 * 32 + column] >> (quarter / 2 * 4) & 15;
    let pair = block[128 + half * 32 + column] >> (quarter * 2) & 3;
    nibble | pair << 4
}
