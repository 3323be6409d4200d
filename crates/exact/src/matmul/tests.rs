//! Every kernel, level and number of threads against the contract written plainly.

// Written as the contract has it.
#![allow(clippy::assign_op_pattern)]

use super::*;
use crate::{level::Level, math::f16_to_f32};
use proptest::prelude::*;

const ROUND: f32 = 12_582_912.0;

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn float(&mut self) -> f32 {
        (self.next() >> 40) as f32 / 16_777_216.0 - 0.5
    }

    /// Rows of any bytes, but for scales that are not finite.
    fn matrix(&mut self, format: Format, n: usize, k: usize) -> Vec<u8> {
        let mut data: Vec<u8> = (0..n * format.row_bytes(k)).map(|_| (self.next() >> 56) as u8).collect();
        if format == Format::F32 {
            // Any exponent would leave only infinities to compare.
            data = (0..n * k).flat_map(|_| self.float().to_le_bytes()).collect();
        }
        for block in data.chunks_exact_mut(format.block_bytes()) {
            let halves: &[usize] = match format {
                Format::F32 => &[],
                Format::Q4K => &[0, 2],
                Format::Q6K => &[208],
                _ => &[0],
            };
            for at in halves {
                block[at + 1] &= if format == Format::Bf16 { 0xbf } else { 0xbb };
            }
        }
        data
    }
}

/// Scales and quantised elements of one activation vector.
fn quantise(x: &[f32]) -> (Vec<f32>, Vec<i32>) {
    let (mut scales, mut values) = (Vec::new(), Vec::new());
    for x in x.chunks(32) {
        let a = x.iter().fold(0.0f32, |a, x| if x.abs() > a { x.abs() } else { a });
        let finite = x.iter().all(|x| x.is_finite());
        let none = !finite || a < 2f32.powi(-120);
        scales.push(if !finite {
            f32::NAN
        } else if none {
            0.0
        } else {
            a / 127.0
        });
        let r = 127.0 / a;
        values.extend(x.iter().map(|x| if none { 0 } else { ((x * r + ROUND) - ROUND) as i32 }));
    }
    (scales, values)
}

/// One output by the rules of `NUMERICS.md`, from a row as its file has it.
fn naive(format: Format, row: &[u8], x: &[f32]) -> f32 {
    let half = |block: &[u8], at: usize| f16_to_f32(u16::from_le_bytes([block[at], block[at + 1]]));
    let mut y = 0.0f32;
    if !format.is_quantised() {
        for (block, x) in row.chunks(format.block_bytes()).zip(x) {
            let mut weight = [0.0];
            format.dequantise_block(block, &mut weight);
            y = y + weight[0] * x;
        }
        return y;
    }
    let (scales, q) = quantise(x);
    for (index, block) in row.chunks(format.block_bytes()).enumerate() {
        for part in 0..format.block_elements() / 32 {
            let group = index * (format.block_elements() / 32) + part;
            let (dx, q) = (scales[group], &q[group * 32..][..32]);
            let sum = |weight: &dyn Fn(usize) -> i32, range: std::ops::Range<usize>| -> i32 {
                range.map(|i| weight(i) * q[i]).sum()
            };
            match format {
                Format::Q8_0 => {
                    let sum = sum(&|i| i32::from(block[2 + i] as i8), 0..32);
                    y = y + (half(block, 0) * dx) * sum as f32;
                }
                Format::Q4_0 => {
                    let weight = |i: usize| i32::from(if i < 16 { block[2 + i] & 15 } else { block[2 + i - 16] >> 4 });
                    y = y + (half(block, 0) * dx) * sum(&|i| weight(i) - 8, 0..32) as f32;
                }
                Format::Q4K => {
                    let s = &block[4..16];
                    let (scale, min) = match part {
                        0..4 => (s[part] & 63, s[part + 4] & 63),
                        _ => {
                            ((s[part + 4] & 15) | ((s[part - 4] >> 6) << 4), (s[part + 4] >> 4) | ((s[part] >> 6) << 4))
                        }
                    };
                    let bytes = &block[16 + part / 2 * 32..][..32];
                    let weight = |i: usize| i32::from(if part % 2 == 0 { bytes[i] & 15 } else { bytes[i] >> 4 });
                    let all: i32 = q.iter().sum();
                    y = y
                        + (((half(block, 0) * f32::from(scale)) * dx) * sum(&weight, 0..32) as f32
                            - ((half(block, 2) * f32::from(min)) * dx) * all as f32);
                }
                _ => {
                    let (low, high) = (&block[part / 4 * 64..], &block[128 + part / 4 * 32..]);
                    let weight = |i: usize| {
                        let nibbles = low[part % 2 * 32 + i];
                        let nibble = if part % 4 < 2 { nibbles & 15 } else { nibbles >> 4 };
                        i32::from(nibble) + 16 * i32::from((high[i] >> (2 * (part % 4))) & 3) - 32
                    };
                    let scale = |i: usize| i32::from(block[192 + part * 2 + i] as i8);
                    let total = scale(0) * sum(&weight, 0..16) + scale(1) * sum(&weight, 16..32);
                    assert!(total.abs() < 1 << 24);
                    y = y + (half(block, 208) * dx) * total as f32;
                }
            }
        }
    }
    y
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| crate::math::canonical_bits(*value)).collect()
}

/// Compares every level and number of threads with the plain rule.
fn check(format: Format, n: usize, k: usize, m: usize, data: &[u8], x: &[f32]) -> Result<(), TestCaseError> {
    let matrix = Matrix::pack(format, n, k, data).unwrap();
    let mut expected = Vec::new();
    for x in x.chunks_exact(k) {
        expected.extend(data.chunks_exact(format.row_bytes(k)).map(|row| naive(format, row, x)));
    }
    for level in Level::available() {
        for threads in [1, 2, 4] {
            let mut y = vec![7.0; m * n];
            let plan = Plan::at(level, threads).splitting_all();
            matrix.multiply(&mut Activations::new(m, k, x), &mut y, &plan);
            prop_assert_eq!(bits(&y), bits(&expected), "{:?} at {:?}", format, plan);
        }
    }
    let mut row = vec![0.0; k];
    for (index, blocks) in data.chunks_exact(format.row_bytes(k)).enumerate() {
        matrix.row(index, &mut row);
        let mut expected = vec![0.0; k];
        for (block, out) in blocks.chunks(format.block_bytes()).zip(expected.chunks_mut(format.block_elements())) {
            format.dequantise_block(block, out);
        }
        prop_assert_eq!(bits(&row), bits(&expected));
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn every_plan_gives_the_bits_of_the_plain_rule(
        n in 1usize..70, blocks in 1usize..5, m in 1usize..12, seed: u64, hostile in 0usize..4,
    ) {
        let mut random = Random(seed | 1);
        for format in Format::ALL {
            let k = if format.is_quantised() { blocks * format.block_elements() } else { blocks * 13 };
            let data = random.matrix(format, n, k);
            let mut x: Vec<_> = (0..m * k).map(|_| random.float()).collect();
            let at = random.next() as usize % x.len();
            match hostile {
                0 => x[at] = f32::from_bits(random.next() as u32),
                1 => x[at..].fill(0.0),
                2 => x.iter_mut().for_each(|x| *x *= 1e38),
                _ => {}
            }
            check(format, n, k, m, &data, &x)?;
        }
    }
}

#[test]
fn long_rows_and_many_tokens_give_the_bits_of_the_plain_rule() {
    let mut random = Random(3);
    for format in Format::ALL {
        let (n, k, m) = (33, 1280, 70);
        let data = random.matrix(format, n, k);
        let x: Vec<_> = (0..m * k).map(|_| random.float()).collect();
        check(format, n, k, m, &data, &x).unwrap();
    }
}

/// The largest weights, scales and activations that can be written: sums at their bounds.
#[test]
fn extreme_blocks_do_not_saturate() {
    for format in [Format::Q8_0, Format::Q4_0, Format::Q4K, Format::Q6K] {
        for fill in [0x00, 0x80, 0x7f, 0xff] {
            for sign in [1.0, -1.0] {
                let k = 512;
                let mut data = vec![fill; 17 * format.row_bytes(k)];
                for block in data.chunks_exact_mut(format.block_bytes()) {
                    let at = if format == Format::Q6K { 208 } else { 0 };
                    block[at..at + 2].copy_from_slice(&[0, 0x3c]);
                    if format == Format::Q4K {
                        block[2..4].copy_from_slice(&[0, 0x3c]);
                    }
                }
                let mut x = vec![3.0 * sign; k];
                check(format, 17, k, 1, &data, &x).unwrap();
                x.iter_mut().step_by(2).for_each(|x| *x = -*x);
                check(format, 17, k, 1, &data, &x).unwrap();
            }
        }
    }
}

#[test]
fn broken_matrices_are_refused() {
    for format in Format::ALL {
        let k = format.block_elements() * 2;
        let good = vec![0; 3 * format.row_bytes(k)];
        assert!(Matrix::pack(format, 3, k, &good).is_ok());
        assert!(matches!(Matrix::pack(format, 3, k, &good[1..]), Err(MatrixError::Length { .. })));
        assert!(matches!(Matrix::pack(format, usize::MAX, k, &good), Err(MatrixError::Length { .. })));
        if format.is_quantised() {
            assert!(matches!(Matrix::pack(format, 3, k + 1, &good), Err(MatrixError::PartialBlock { .. })));
        }
        let mut bad = good.clone();
        let last = bad.len() - format.block_bytes();
        let (at, value): (usize, &[u8]) = match format {
            Format::F32 => (0, &[0, 0, 0x80, 0x7f]),
            Format::Bf16 => (0, &[0x80, 0xff]),
            Format::Q4K => (2, &[0, 0x7c]),
            Format::Q6K => (208, &[1, 0x7c]),
            _ => (0, &[0, 0xfc]),
        };
        bad[last + at..][..value.len()].copy_from_slice(value);
        assert_eq!(Matrix::pack(format, 3, k, &bad).unwrap_err(), MatrixError::NotFinite, "{format:?}");
    }
}

#[test]
fn packing_costs_less_than_three_percent() {
    for format in Format::ALL {
        let (n, k) = (64, 2048);
        let data = vec![0; n * format.row_bytes(k)];
        let bytes = Matrix::pack(format, n, k, &data).unwrap().bytes();
        assert!(bytes * 100 < data.len() * 103, "{format:?}: {bytes} for {}", data.len());
    }
}
