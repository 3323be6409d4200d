//! Colours: how much there is of red, green and blue light.

use std::ops::{Add, Mul};

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Colour(pub f32, pub f32, pub f32);

impl Colour {
    pub const BLACK: Self = Self(0.0, 0.0, 0.0);
    pub const WHITE: Self = Self(1.0, 1.0, 1.0);

    /// The colour that is written `0xrrggbb`. Light is about the square of what is written.
    pub const fn of(code: u32) -> Self {
        const fn part(code: u32) -> f32 {
            let part = (code & 0xff) as f32 / 255.0;
            part * part
        }
        Self(part(code >> 16), part(code >> 8), part(code))
    }

    /// With a share of another colour instead of it.
    #[inline(always)]
    pub fn mix(self, other: Self, share: f32) -> Self {
        self + (other + self * -1.0) * share
    }

    /// How bright it seems.
    pub fn brightness(self) -> f32 {
        0.3 * self.0 + 0.59 * self.1 + 0.11 * self.2
    }

    /// As it is written, red first. `grain` is from 0 to 1: chance here hides the steps between bytes.
    pub fn bytes(self, grain: f32) -> [u8; 3] {
        // What is too bright for a picture only comes near to white.
        let part = |light: f32| {
            let shown = if light < 0.6 { light.max(0.0) } else { 0.6 + 0.4 * (light - 0.6) / (light - 0.2) };
            (shown.sqrt() * 255.0 + grain) as u8
        };
        [part(self.0), part(self.1), part(self.2)]
    }
}

impl Add for Colour {
    type Output = Self;

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        Self(self.0 + other.0, self.1 + other.1, self.2 + other.2)
    }
}

impl Mul for Colour {
    type Output = Self;

    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        Self(self.0 * other.0, self.1 * other.1, self.2 * other.2)
    }
}

impl Mul<f32> for Colour {
    type Output = Self;

    #[inline(always)]
    fn mul(self, times: f32) -> Self {
        Self(self.0 * times, self.1 * times, self.2 * times)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_bytes_again() {
        assert_eq!(Colour::of(0x10_80_c0).bytes(0.5), [0x10, 0x80, 0xc0]);
        assert_eq!(Colour(-1.0, 0.0, 0.0).bytes(0.0), [0, 0, 0]);
        assert!(Colour(1.0, 9.0, 1000.0).bytes(0.99).is_sorted());
    }
}
