//! Checks the golden digests of `althing-exact` in one plain program, for processors and machines
//! that are emulated (`tests/cross.sh`).
//!
//! ```text
//! althing-golden THREADS LEVEL…
//! ```
//!
//! Each level must give the golden bits, and the last one must be what this processor would choose.

#[path = "../../../crates/exact/tests/golden.rs"]
mod golden;

use althing_exact::Level;
use std::{env, process::ExitCode, time::Instant};

fn main() -> ExitCode {
    let mut arguments = env::args().skip(1);
    let threads = arguments.next().and_then(|threads| threads.parse().ok());
    let levels: Result<Vec<Level>, _> = arguments.map(|level| level.parse()).collect();
    let (threads, levels): (usize, _) = match (threads, levels) {
        (Some(threads), Ok(levels)) if !levels.is_empty() => (threads, levels),
        (_, Err(error)) => {
            println!("  {error}");
            return ExitCode::FAILURE;
        }
        _ => {
            println!("althing-golden THREADS LEVEL…");
            return ExitCode::FAILURE;
        }
    };
    let mut same = levels.last() == Some(&Level::best());
    if !same {
        println!("  this processor would choose {}", Level::best());
    }
    for level in levels {
        let started = Instant::now();
        let wrong = golden::differences(level, threads);
        let outcome = if wrong.is_empty() { "same bits".into() } else { format!("OTHER BITS in {}", wrong.join(", ")) };
        println!("  {level:8} {outcome} ({:.1} s)", started.elapsed().as_secs_f32());
        same &= wrong.is_empty();
    }
    if same { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
