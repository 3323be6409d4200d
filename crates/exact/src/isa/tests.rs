//! The words that need a proof of their own: the others show in every product.

use super::*;
use std::sync::Mutex;

/// Halves of every finite kind, widened at every level.
struct Halves<'a>(&'a [u16; LANES], &'a Mutex<[f32; LANES]>);

impl Work for Halves<'_> {
    #[inline(always)]
    unsafe fn run<S: Isa>(self) {
        let mut out = [0.0; LANES];
        // SAFETY: 16 halves are read and 16 floats written; the machine has `S`.
        unsafe { S::store(out.as_mut_ptr(), S::load_f16(self.0.as_ptr())) };
        *self.1.lock().expect("no test panicked with it") = out;
    }
}

#[test]
fn every_finite_half_is_widened_exactly_at_every_level() {
    for level in Level::available() {
        for start in (0..=u16::MAX).step_by(LANES) {
            let mut halves = [0; LANES];
            for (half, bits) in halves.iter_mut().zip(start..=u16::MAX) {
                *half = if bits & 0x7c00 == 0x7c00 { 0 } else { bits };
            }
            let out = Mutex::new([0.0; LANES]);
            dispatch(level, Halves(&halves, &out));
            let out = out.into_inner().unwrap();
            for (half, wide) in halves.iter().zip(out) {
                assert_eq!(wide.to_bits(), crate::math::f16_to_f32(*half).to_bits(), "{half:04x} at {level}");
            }
        }
    }
}
