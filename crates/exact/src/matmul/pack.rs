//! From rows, as files have them, to panels of sixteen rows, as the kernels read them.
//!
//! A panel is one stretch of memory, padded to 64 bytes. Where 32 weights share a scale:
//!
//! | format | for each k, or each 32 of k | then |
//! |---|---|---|
//! | F32, F16, BF16 | `[16 rows]` weights | |
//! | Q8_0 | `[8][16 rows][4]` int8 | for each 32: `[16 rows]` d |
//! | Q4_0 | nibbles `[4][16 rows][4]` | for each 32: `[16 rows]` d |
//! | Q4_K | nibbles `[4][16 rows][4]` | for each 32: `[16 rows]` scale, `[16 rows]` minimum; for each 256: `[16 rows]` d, `[16 rows]` dmin |
//! | Q6_K | nibbles `[4][16 rows][4]`, bit pairs `[2][16 rows][4]` | for each 32: `[2][16 rows]` scales; for each 256: `[16 rows]` d |
//!
//! Nibbles: byte `[s][row][i]` has weight 4s + i below and weight 16 + 4s + i above. Bit pairs: byte
//! `[s / 2][row][i]` has, from the lowest on, the pairs of weights 4s + i and 16 + 4s + i for even s,
//! then for odd s. Only Q4_K grows: its 6-bit scales become bytes, 148 for 144.

use super::{Format, Matrix, MatrixError, PANEL, formats};
use crate::math::f16_to_f32;

/// Memory aligned for any vector.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(super) struct Line(pub [u8; 64]);

/// Weights that share a scale.
pub(super) const GROUP: usize = 32;
/// Weights that share the larger scales of Q4_K and Q6_K.
pub(super) const SUPER: usize = 256;

/// Where the parts of a panel are, bytes.
#[derive(Clone, Copy)]
pub(super) struct Layout {
    /// From one k, or one 32 of k, to the next.
    pub step: usize,
    /// Where the scales of 32 begin, and how many bytes each 32 have.
    pub scales: usize,
    pub scale_step: usize,
    /// Where the scales of 256 begin, and how many bytes each 256 have.
    pub supers: usize,
    pub super_step: usize,
    /// The whole panel, a multiple of 64.
    pub panel: usize,
}

impl Layout {
    #[inline(always)]
    pub fn of(format: Format, k: usize) -> Self {
        let (step, scale_step, super_step) = match format {
            Format::F32 => (4 * PANEL, 0, 0),
            Format::F16 | Format::Bf16 => (2 * PANEL, 0, 0),
            Format::Q8_0 => (GROUP * PANEL, 2 * PANEL, 0),
            Format::Q4_0 => (GROUP / 2 * PANEL, 2 * PANEL, 0),
            Format::Q4K => (GROUP / 2 * PANEL, 2 * PANEL, 4 * PANEL),
            Format::Q6K => (GROUP / 4 * 3 * PANEL, 2 * PANEL, 2 * PANEL),
        };
        let groups = if format.is_quantised() { k / GROUP } else { k };
        let scales = groups * step;
        let supers = scales + groups * scale_step;
        let end = supers + k / SUPER * super_step;
        Self { step, scales, scale_step, supers, super_step, panel: end.next_multiple_of(64) }
    }
}

impl Matrix {
    /// Packs an n × k matrix from its rows, one after another as files have them.
    ///
    /// # Errors
    /// If the data has another length, rows are not whole blocks, or a weight or scale is not finite.
    pub fn pack(format: Format, n: usize, k: usize, data: &[u8]) -> Result<Self, MatrixError> {
        let elements = format.block_elements();
        if !k.is_multiple_of(elements) {
            return Err(MatrixError::PartialBlock { k, block_elements: elements });
        }
        let expected = n.checked_mul(format.row_bytes(k));
        if expected != Some(data.len()) {
            return Err(MatrixError::Length { bytes: data.len(), n, k, format });
        }
        if !data.chunks_exact(format.block_bytes()).all(|block| format.is_finite(block)) {
            return Err(MatrixError::NotFinite);
        }
        let layout = Layout::of(format, k);
        let mut lines = vec![Line([0; 64]); n.div_ceil(PANEL) * layout.panel / 64];
        let bytes = lines.as_flattened_bytes_mut();
        if k > 0 {
            let rows = data.chunks_exact(format.row_bytes(k)).enumerate();
            for (row, blocks) in rows {
                let panel = &mut bytes[row / PANEL * layout.panel..][..layout.panel];
                for (index, block) in blocks.chunks_exact(format.block_bytes()).enumerate() {
                    put(format, &layout, panel, row % PANEL, index, block);
                }
            }
        }
        Ok(Self { format, n, k, lines })
    }

    /// Writes row `row` as f32, by the rules of `NUMERICS.md`: k values, as a table of embeddings
    /// needs them.
    ///
    /// # Panics
    /// If there is no such row or `out` does not hold k.
    pub fn row(&self, row: usize, out: &mut [f32]) {
        assert!(row < self.n && out.len() == self.k, "a row of the matrix");
        let layout = Layout::of(self.format, self.k);
        let panel = &self.lines.as_flattened_bytes()[row / PANEL * layout.panel..][..layout.panel];
        let lane = row % PANEL;
        let half = |at: usize| u16::from_le_bytes([panel[at + 2 * lane], panel[at + 2 * lane + 1]]);
        for (column, out) in out.iter_mut().enumerate() {
            let (group, within, larger) = (column / GROUP, column % GROUP, column / SUPER);
            let base = group * layout.step;
            let scales = layout.scales + group * layout.scale_step;
            let supers = layout.supers + larger * layout.super_step;
            let nibble = || panel[base + within % 16 / 4 * 64 + lane * 4 + within % 4] >> (within / 16 * 4) & 15;
            *out = match self.format {
                Format::F32 => {
                    let at = column * layout.step + lane * 4;
                    f32::from_le_bytes([panel[at], panel[at + 1], panel[at + 2], panel[at + 3]])
                }
                Format::F16 => f16_to_f32(half(column * layout.step)),
                Format::Bf16 => f32::from_bits(u32::from(half(column * layout.step)) << 16),
                Format::Q8_0 => {
                    let q = panel[base + within / 4 * 64 + lane * 4 + within % 4].cast_signed();
                    f16_to_f32(half(scales)) * f32::from(q)
                }
                Format::Q4_0 => f16_to_f32(half(scales)) * (f32::from(nibble()) - 8.0),
                Format::Q4K => {
                    let (d, dmin) = (f16_to_f32(half(supers)), f16_to_f32(half(supers + 2 * PANEL)));
                    let (scale, min) = (f32::from(panel[scales + lane]), f32::from(panel[scales + PANEL + lane]));
                    (d * scale) * f32::from(nibble()) - dmin * min
                }
                Format::Q6K => {
                    let (s, upper) = (within % 16 / 4, within / 16);
                    let pairs = panel[base + 256 + s / 2 * 64 + lane * 4 + within % 4];
                    let q = nibble() | (pairs >> (s % 2 * 4 + upper * 2) & 3) << 4;
                    let scale = f32::from(panel[scales + upper * PANEL + lane].cast_signed());
                    (f16_to_f32(half(supers)) * scale) * (f32::from(q) - 32.0)
                }
            };
        }
    }
}

/// Puts one block of one row where it belongs in the row's panel.
fn put(format: Format, layout: &Layout, panel: &mut [u8], lane: usize, index: usize, block: &[u8]) {
    match format {
        Format::F32 | Format::F16 | Format::Bf16 => {
            let at = index * layout.step + lane * block.len();
            panel[at..at + block.len()].copy_from_slice(block);
        }
        Format::Q8_0 => {
            put_half(panel, layout.scales + index * layout.scale_step, lane, &block[..2]);
            for (s, four) in block[2..].chunks_exact(4).enumerate() {
                let at = index * layout.step + s * 64 + lane * 4;
                panel[at..at + 4].copy_from_slice(four);
            }
        }
        Format::Q4_0 => {
            put_half(panel, layout.scales + index * layout.scale_step, lane, &block[..2]);
            put_nibbles(panel, index * layout.step, lane, |i| formats::q4_0(block, i));
        }
        Format::Q4K => {
            let supers = layout.supers + index * layout.super_step;
            put_half(panel, supers, lane, &block[..2]);
            put_half(panel, supers + 2 * PANEL, lane, &block[2..4]);
            for part in 0..SUPER / GROUP {
                let group = index * (SUPER / GROUP) + part;
                let scales = layout.scales + group * layout.scale_step + lane;
                (panel[scales], panel[scales + PANEL]) = formats::q4k_scale(block, part);
                put_nibbles(panel, group * layout.step, lane, |i| formats::q4k(block, part * GROUP + i));
            }
        }
        Format::Q6K => {
            put_half(panel, layout.supers + index * layout.super_step, lane, &block[208..]);
            for part in 0..SUPER / GROUP {
                let group = index * (SUPER / GROUP) + part;
                let scales = layout.scales + group * layout.scale_step + lane;
                panel[scales] = block[192 + 2 * part];
                panel[scales + PANEL] = block[192 + 2 * part + 1];
                let q = |i| formats::q6k(block, part * GROUP + i);
                put_nibbles(panel, group * layout.step, lane, |i| q(i) & 15);
                for (s, i) in (0..4).flat_map(|s| (0..4).map(move |i| (s, i))) {
                    let both = q(4 * s + i) >> 4 | q(16 + 4 * s + i) >> 4 << 2;
                    panel[group * layout.step + 256 + s / 2 * 64 + lane * 4 + i] |= both << (s % 2 * 4);
                }
            }
        }
    }
}

fn put_half(panel: &mut [u8], at: usize, lane: usize, bytes: &[u8]) {
    panel[at + 2 * lane..][..2].copy_from_slice(bytes);
}

fn put_nibbles(panel: &mut [u8], at: usize, lane: usize, weight: impl Fn(usize) -> u8) {
    for (s, i) in (0..4).flat_map(|s| (0..4).map(move |i| (s, i))) {
        panel[at + s * 64 + lane * 4 + i] = weight(4 * s + i) | weight(16 + 4 * s + i) << 4;
    }
}

/// Lines as plain bytes.
pub(super) trait FlattenedBytes {
    fn as_flattened_bytes(&self) -> &[u8];
    fn as_flattened_bytes_mut(&mut self) -> &mut [u8];
}

impl FlattenedBytes for Vec<Line> {
    fn as_flattened_bytes(&self) -> &[u8] {
        // SAFETY: a line is 64 bytes and nothing else, and any bytes are valid.
        unsafe { std::slice::from_raw_parts(self.as_ptr().cast(), self.len() * 64) }
    }

    fn as_flattened_bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and `self` is borrowed for as long.
        unsafe { std::slice::from_raw_parts_mut(self.as_mut_ptr().cast(), self.len() * 64) }
    }
}
