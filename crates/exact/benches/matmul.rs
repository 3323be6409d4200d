//! Speed of matrix products: decode in GB/s of weights, prefill in 10⁹ products/s.
//!
//! `cargo bench -p althing-exact --bench matmul [-- LEVEL…]`. Weights are larger than the caches, so
//! decode should come close to the plain read that is printed first. They are taken in pieces of
//! about a millisecond, and of each piece the best of several runs counts: other work on the machine
//! then shows little.

use althing_exact::{Activations, Format, Level, Matrix, Plan, Pool};
use std::{hint::black_box, time::Instant};

const PIECES: usize = 24;
const PIECE_BYTES: usize = 8 << 20;
const K: usize = 2048;
const PREFILL_TOKENS: usize = 64;
const PREFILL_N: usize = 512;
const RUNS: usize = 12;

/// Seconds that all pieces take, each at its best; every run goes through all of them, so none is
/// still in a cache.
fn best(pieces: usize, mut run: impl FnMut(usize)) -> f64 {
    let mut seconds = vec![f64::INFINITY; pieces];
    for _ in 0..RUNS {
        for (piece, seconds) in seconds.iter_mut().enumerate() {
            let start = Instant::now();
            run(piece);
            *seconds = seconds.min(start.elapsed().as_secs_f64());
        }
    }
    seconds.iter().sum()
}

/// GB/s at which `threads` threads read memory and do next to nothing with it.
fn read_speed(threads: usize) -> f64 {
    let data = vec![1u64; PIECES * PIECE_BYTES / 8];
    let pool = Pool::new(threads);
    let pieces: Vec<Vec<&[u64]>> = data.chunks(PIECE_BYTES / 8).map(|piece| piece.chunks(1 << 14).collect()).collect();
    let seconds = best(PIECES, |piece| {
        let parts = &pieces[piece];
        pool.run(parts.len(), &|_, index| {
            black_box(parts[index].iter().fold(0u64, |sum, word| sum.wrapping_add(*word)));
        });
    });
    (PIECES * PIECE_BYTES) as f64 / seconds / 1e9
}

fn main() {
    let chosen: Vec<Level> = std::env::args().skip(1).filter_map(|name| name.parse().ok()).collect();
    let levels = if chosen.is_empty() { vec![Level::best()] } else { chosen };
    println!("plain read: {:.1} GB/s with 1 thread, {:.1} with 2", read_speed(1), read_speed(2));
    println!("{:7} {:6} {:>7} {:>12} {:>15}", "level", "format", "threads", "decode GB/s", "prefill GMAC/s");
    let values: Vec<f32> = (0..K * PREFILL_TOKENS).map(|i| (i % 97) as f32 * 0.01 - 0.4).collect();
    for format in Format::ALL {
        let n = PIECE_BYTES / format.row_bytes(K);
        let data = vec![0x11; n.max(PREFILL_N) * format.row_bytes(K)];
        let pack = |n| Matrix::pack(format, n, K, &data[..n * format.row_bytes(K)]).expect("whole, finite blocks");
        let pieces: Vec<_> = (0..PIECES).map(|_| pack(n)).collect();
        let small = pack(PREFILL_N);
        for level in &levels {
            for threads in [1, 2] {
                let plan = Plan::at(*level, threads);
                let mut one = Activations::new(1, K, &values[..K]);
                let mut y = vec![0.0; n];
                let decode = best(PIECES, |piece| pieces[piece].multiply(&mut one, black_box(&mut y), &plan));
                let mut many = Activations::new(PREFILL_TOKENS, K, &values);
                let mut y = vec![0.0; PREFILL_N * PREFILL_TOKENS];
                let prefill = best(1, |_| small.multiply(&mut many, black_box(&mut y), &plan));
                println!(
                    "{level:7} {:6} {threads:7} {:12.1} {:15.1}",
                    format!("{format:?}"),
                    (PIECES * pieces[0].bytes()) as f64 / decode / 1e9,
                    (PREFILL_N * K * PREFILL_TOKENS) as f64 / prefill / 1e9,
                );
            }
        }
    }
}
