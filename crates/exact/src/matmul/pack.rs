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

/// Bytes of a file that are worth a thread of their own, and that are packed at a time.
const SHARE_BYTES: usize = 1 << 20;

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
        Self::pack_telling(format, n, k, data, &|_| ())
    }

    /// The same; `packed` is told of every part of the data that will not be read again.
    pub(crate) fn pack_telling(
        format: Format,
        n: usize,
        k: usize,
        data: &[u8],
        packed: &(dyn Fn(&[u8]) + Sync),
    ) -> Result<Self, MatrixError> {
        let elements = format.block_elements();
        if !k.is_multiple_of(elements) {
            return Err(MatrixError::PartialBlock { k, block_elements: elements });
        }
        let expected = n.checked_mul(format.row_bytes(k));
        if expected != Some(data.len()) {
            return Err(MatrixError::Length { bytes: data.len(), n, k, format });
        }
        let layout = Layout::of(format, k);
        // Zeroed memory is only touched where it is written to, by whoever writes.
        let lines = Box::new_zeroed_slice(n.div_ceil(PANEL) * layout.panel / 64);
        // SAFETY: a line is bytes, and zeros are bytes.
        let mut lines: Box<[Line]> = unsafe { lines.assume_init() };
        let row_bytes = format.row_bytes(k);
        if !data.is_empty() {
            let threads =
                std::thread::available_parallelism().map_or(1, usize::from).min(data.len().div_ceil(SHARE_BYTES));
            let panels = n.div_ceil(PANEL).div_ceil(threads);
            let parts = lines.as_flattened_bytes_mut().chunks_mut(panels * layout.panel);
            let mut parts = parts.zip(data.chunks(panels * PANEL * row_bytes));
            let pack = |(lines, rows)| pack_rows(format, &layout, lines, rows, row_bytes, packed);
            let all_finite = std::thread::scope(|scope| {
                let own = parts.next();
                let others: Vec<_> = parts.map(|part| scope.spawn(move || pack(part))).collect();
                let own = own.is_none_or(pack);
                others.into_iter().all(|other| other.join().is_ok_and(|finite| finite)) && own
            });
            if !all_finite {
                return Err(MatrixError::NotFinite);
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

/// Packs rows into their panels; says whether all that they hold are finite numbers.
fn pack_rows(
    format: Format,
    layout: &Layout,
    lines: &mut [u8],
    rows: &[u8],
    row_bytes: usize,
    packed: &dyn Fn(&[u8]),
) -> bool {
    let panels = SHARE_BYTES.div_ceil(PANEL * row_bytes);
    let parts = lines.chunks_mut(panels * layout.panel).zip(rows.chunks(panels * PANEL * row_bytes));
    for (lines, part) in parts {
        if !format.all_finite(part) {
            return false;
        }
        for (panel, rows) in lines.chunks_exact_mut(layout.panel).zip(part.chunks(PANEL * row_bytes)) {
            match format {
                Format::F32 => interleave::<4>(panel, rows, row_bytes),
                Format::F16 | Format::Bf16 => interleave::<2>(panel, rows, row_bytes),
                _ => put_blocks(format, layout, panel, rows, row_bytes),
            }
        }
        packed(part);
    }
    true
}

/// Up to sixteen rows of numbers of B bytes, as `[k][16]`.
fn interleave<const B: usize>(panel: &mut [u8], rows: &[u8], row_bytes: usize) {
    /// Numbers of a row that are taken at a time: their places in the panel stay in the cache.
    const STRETCH: usize = 64;
    let stretches = panel.as_chunks_mut::<B>().0.chunks_mut(STRETCH * PANEL);
    for (stretch, panel) in stretches.enumerate() {
        for (lane, row) in rows.chunks_exact(row_bytes).enumerate() {
            let numbers = &row.as_chunks::<B>().0[stretch * STRETCH..];
            for (places, number) in panel.chunks_exact_mut(PANEL).zip(numbers) {
                places[lane] = *number;
            }
        }
    }
}

/// Up to sixteen rows of blocks.
fn put_blocks(format: Format, layout: &Layout, panel: &mut [u8], rows: &[u8], row_bytes: usize) {
    let block_bytes = format.block_bytes();
    for index in 0..row_bytes / block_bytes {
        for (lane, row) in rows.chunks_exact(row_bytes).enumerate() {
            put(format, layout, panel, lane, index, &row[index * block_bytes..][..block_bytes]);
        }
    }
}

/// Puts one block of one row where it belongs in the row's panel.
fn put(format: Format, layout: &Layout, panel: &mut [u8], lane: usize, index: usize, block: &[u8]) {
    let supers = layout.supers + index * layout.super_step;
    let part = |part: usize| {
        let group = index * (SUPER / GROUP) + part;
        (group * layout.step, layout.scales + group * layout.scale_step + lane)
    };
    match format {
        Format::F32 | Format::F16 | Format::Bf16 => unreachable!("these have no blocks"),
        Format::Q8_0 => {
            put_half(panel, layout.scales + index * layout.scale_step, lane, &block[..2]);
            put_words(panel, index * layout.step, lane, &block[2..]);
        }
        Format::Q4_0 => {
            put_half(panel, layout.scales + index * layout.scale_step, lane, &block[..2]);
            // The file's nibbles are already paired as ours.
            put_words(panel, index * layout.step, lane, &block[2..]);
        }
        Format::Q4K => {
            put_half(panel, supers, lane, &block[..2]);
            put_half(panel, supers + 2 * PANEL, lane, &block[2..4]);
            for (pair, bytes) in block[16..].as_chunks::<32>().0.iter().enumerate() {
                for upper in 0..2 {
                    let (at, scales) = part(2 * pair + upper);
                    (panel[scales], panel[scales + PANEL]) = formats::q4k_scale(block, 2 * pair + upper);
                    let weight = |i: usize| bytes[i] >> (4 * upper) & 15;
                    put_words(panel, at, lane, &paired_nibbles(weight));
                }
            }
        }
        Format::Q6K => {
            put_half(panel, supers, lane, &block[208..]);
            let (nibbles, pairs) = (block[..128].as_chunks::<64>().0, block[128..192].as_chunks::<32>().0);
            for eighth in 0..SUPER / GROUP {
                let (half, quarter) = (eighth / 4, eighth % 4);
                let (nibbles, pairs) = (&nibbles[half][quarter % 2 * 32..][..32], &pairs[half]);
                let (at, scales) = part(eighth);
                panel[scales] = block[192 + 2 * eighth];
                panel[scales + PANEL] = block[192 + 2 * eighth + 1];
                put_words(panel, at, lane, &paired_nibbles(|i| nibbles[i] >> (quarter / 2 * 4) & 15));
                let mut upper = [0; 8];
                for (index, upper) in upper.iter_mut().enumerate() {
                    let first = index / 4 * 8 + index % 4;
                    let pair = |i: usize| pairs[i] >> (2 * quarter) & 3;
                    *upper = pair(first) | pair(first + 16) << 2 | pair(first + 4) << 4 | pair(first + 20) << 6;
                }
                put_words(panel, at + 256, lane, &upper);
            }
        }
    }
}

fn put_half(panel: &mut [u8], at: usize, lane: usize, bytes: &[u8]) {
    panel[at + 2 * lane..][..2].copy_from_slice(bytes);
}

/// Four bytes at a time, `[s][row][4]`.
#[inline]
fn put_words(panel: &mut [u8], at: usize, lane: usize, bytes: &[u8]) {
    for (word, line) in bytes.as_chunks::<4>().0.iter().zip(panel[at..].chunks_exact_mut(64)) {
        line[lane * 4..][..4].copy_from_slice(word);
    }
}

/// Weight i below, weight 16 + i above.
#[inline]
fn paired_nibbles(weight: impl Fn(usize) -> u8) -> [u8; 16] {
    let mut bytes = [0; 16];
    for (i, byte) in bytes.iter_mut().enumerate() {
        *byte = weight(i) | weight(16 + i) << 4;
    }
    bytes
}

/// Lines as plain bytes.
pub(super) trait FlattenedBytes {
    fn as_flattened_bytes(&self) -> &[u8];
    fn as_flattened_bytes_mut(&mut self) -> &mut [u8];
}

impl FlattenedBytes for [Line] {
    fn as_flattened_bytes(&self) -> &[u8] {
        // SAFETY: a line is 64 bytes and nothing else, and any bytes are valid.
        unsafe { std::slice::from_raw_parts(self.as_ptr().cast(), self.len() * 64) }
    }

    fn as_flattened_bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and `self` is borrowed for as long.
        unsafe { std::slice::from_raw_parts_mut(self.as_mut_ptr().cast(), self.len() * 64) }
    }
}
