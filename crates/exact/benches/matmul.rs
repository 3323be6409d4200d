//! Speed of matrix products: decode in GB/s of weights, prefill in 10⁹ products/s.
//!
//! `cargo bench -p althing-exact [-- LEVEL…]`. Weights are larger than the caches, so decode should
//! come close to the plain read that is printed first; each figure is the best of several runs.

use althing_exact::{Activations, Format, Level, Matrix, Plan};
use std::{hint::black_box, time::Instant};

/// Bytes of weights for decode, of several matrices in turn.
const WEIGHTS_BYTES: usize = 192 << 20;
const K: usize = 2048;
const PREFILL_TOKENS: usize = 64;
const RUNS: usize = 5;

fn best(mut run: impl FnMut()) -> f64 {
    let time = |_| {
        let start = Instant::now();
        run();
        start.elapsed().as_secs_f64()
    };
    (0..RUNS).map(time).fold(f64::INFINITY, f64::min)
}

/// GB/s at which `threads` threads read memory and do next to nothing with it.
fn read_speed(threads: usize) -> f64 {
    let data = vec![1u64; WEIGHTS_BYTES / 8];
    let pool = althing_exact::Pool::new(threads);
    let parts: Vec<_> = data.chunks(1 << 15).collect();
    let seconds = best(|| {
        pool.run(parts.len(), &|_, index| {
            black_box(parts[index].iter().fold(0u64, |sum, word| sum.wrapping_add(*word)));
        });
    });
    WEIGHTS_BYTES as f64 / seconds / 1e9
}

fn main() {
    let chosen: Vec<Level> = std::env::args().skip(1).filter_map(|name| name.parse().ok()).collect();
    let levels = if chosen.is_empty() { vec![Level::best()] } else { chosen };
    println!("plain read: {:.1} GB/s with 1 thread, {:.1} with 2", read_speed(1), read_speed(2));
    println!("{:7} {:6} {:>7} {:>12} {:>15}", "level", "format", "threads", "decode GB/s", "prefill GMAC/s");
    for format in Format::ALL {
        let n = WEIGHTS_BYTES / format.row_bytes(K);
        let data = vec![0x11; n * format.row_bytes(K)];
        let matrix = Matrix::pack(format, n, K, &data).expect("whole blocks of finite numbers");
        drop(data);
        let small_n = 4096;
        let small = Matrix::pack(format, small_n, K, &vec![0x11; small_n * format.row_bytes(K)]).expect("as above");
        for level in &levels {
            for threads in [1, 2] {
                let plan = Plan::at(*level, threads);
                let values: Vec<f32> = (0..K * PREFILL_TOKENS).map(|i| (i % 97) as f32 * 0.01 - 0.4).collect();
                let mut one = Activations::new(1, K, &values[..K]);
                let mut y = vec![0.0; n];
                let decode = best(|| matrix.multiply(&mut one, black_box(&mut y), &plan));
                let mut many = Activations::new(PREFILL_TOKENS, K, &values);
                let mut y = vec![0.0; small_n * PREFILL_TOKENS];
                let prefill = best(|| small.multiply(&mut many, black_box(&mut y), &plan));
                println!(
                    "{level:7} {:6} {threads:7} {:12.1} {:15.1}",
                    format!("{format:?}"),
                    matrix.bytes() as f64 / decode / 1e9,
                    (small_n * K * PREFILL_TOKENS) as f64 / prefill / 1e9,
                );
            }
        }
    }
}
