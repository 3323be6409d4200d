//! Chance and noise.

/// SplitMix64: all chance comes from one number.
pub struct Chance(u64);

impl Chance {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// One of as many.
    pub fn index(&mut self, count: usize) -> usize {
        (self.draw() % count as u64) as usize
    }

    /// From 0 up to 1.
    pub fn unit(&mut self) -> f32 {
        (self.draw() >> 40) as f32 / 16_777_216.0
    }

    pub fn between(&mut self, low: f32, high: f32) -> f32 {
        mix(low, high, self.unit())
    }

    /// Left or right.
    pub fn side(&mut self) -> f32 {
        if self.draw() & 1 == 0 { -1.0 } else { 1.0 }
    }
}

/// Softly from 0 at one end to 1 at the other, of which either may be the higher.
#[inline(always)]
pub fn smooth(zero: f32, one: f32, x: f32) -> f32 {
    let t = ((x - zero) / (one - zero)).clamp(0.0, 1.0);
    t * t * (3.0 - 2.0 * t)
}

#[inline(always)]
pub fn mix(one: f32, other: f32, share: f32) -> f32 {
    one + (other - one) * share
}

/// Points of the lattice in a row, and rows: as many as there are bytes, and then it begins again. Octaves are turned
/// against each other, so nobody sees that.
const SIDE: usize = 256;
/// In memory a row ends with its first point, and the last row is the first: every point has neighbours.
const STRIDE: usize = SIDE + 1;

/// Value noise: numbers at the points of a lattice, and a smooth surface through them.
pub struct Noise {
    lattice: Box<[f32; STRIDE * STRIDE]>,
}

impl Noise {
    pub fn new(chance: &mut Chance) -> Self {
        let points: Vec<f32> = (0..SIDE * SIDE).map(|_| chance.unit()).collect();
        let point = |at: usize| points[at / STRIDE % SIDE * SIDE + at % STRIDE % SIDE];
        let lattice: Vec<f32> = (0..STRIDE * STRIDE).map(point).collect();
        Self { lattice: lattice.try_into().expect("it has as many points") }
    }

    /// From 0 to 1, and how fast it rises along x and y.
    #[inline(always)]
    pub fn slopes(&self, x: f32, y: f32) -> (f32, f32, f32) {
        let (x_floor, y_floor) = (x.floor(), y.floor());
        let (u, v) = (x - x_floor, y - y_floor);
        let at = usize::from(y_floor as i32 as u8) * STRIDE + usize::from(x_floor as i32 as u8);
        let (a, b) = (self.lattice[at], self.lattice[at + 1]);
        let (c, d) = (self.lattice[at + STRIDE], self.lattice[at + STRIDE + 1]);
        let (across, along, twist) = (b - a, c - a, a - b - c + d);
        let (u_share, v_share) = (u * u * u * (u * (u * 6.0 - 15.0) + 10.0), v * v * v * (v * (v * 6.0 - 15.0) + 10.0));
        let (u_slope, v_slope) = (30.0 * u * u * (u * (u - 2.0) + 1.0), 30.0 * v * v * (v * (v - 2.0) + 1.0));
        let value = a + across * u_share + along * v_share + twist * u_share * v_share;
        (value, u_slope * (across + twist * v_share), v_slope * (along + twist * u_share))
    }

    /// From 0 to 1.
    #[inline]
    pub fn at(&self, x: f32, y: f32) -> f32 {
        self.slopes(x, y).0
    }

    /// Octaves of it, each half as high and twice as fine as the one before; from 0 to 1.
    pub fn octaves(&self, mut x: f32, mut y: f32, count: u32) -> f32 {
        let (mut sum, mut height, mut most) = (0.0, 1.0, 0.0);
        for _ in 0..count {
            sum += height * self.slopes(x, y).0;
            most += height;
            height *= 0.5;
            (x, y) = finer(x, y);
        }
        sum / most
    }

    /// Octaves that are the lower the steeper those before are, as if water had smoothed the slopes: mountains.
    /// From 0 to 1.
    pub fn eroded(&self, mut x: f32, mut y: f32, count: u32) -> f32 {
        let (mut sum, mut height, mut x_slope, mut y_slope) = (0.0, 0.5, 0.0, 0.0);
        for _ in 0..count {
            let (value, more_x, more_y) = self.slopes(x, y);
            x_slope += more_x;
            y_slope += more_y;
            sum += height * value / (1.0 + x_slope * x_slope + y_slope * y_slope);
            height *= 0.5;
            (x, y) = finer(x, y);
        }
        sum
    }
}

/// Twice as fine, and turned by an angle of the triangle 3-4-5.
#[inline(always)]
fn finer(x: f32, y: f32) -> (f32, f32) {
    (1.6 * x - 1.2 * y, 1.2 * x + 1.6 * y)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_is_smooth_and_stays_between_0_and_1() {
        let noise = Noise::new(&mut Chance::new(7));
        let mut last = noise.octaves(-40.0, 300.25, 6);
        for step in 1..40_000 {
            let x = -40.0 + step as f32 * 0.002;
            let value = noise.octaves(x, 300.25, 6);
            assert!((0.0..=1.0).contains(&value) && (value - last).abs() < 0.05, "{x}: {last}, {value}");
            assert!((0.0..=1.0).contains(&noise.eroded(x, -9.5, 9)), "{x}");
            last = value;
        }
    }

    #[test]
    fn slopes_are_what_values_do() {
        let noise = Noise::new(&mut Chance::new(7));
        for step in 0..1000 {
            let (x, y) = (step as f32 * 0.37, step as f32 * 0.11);
            let (_, x_slope, y_slope) = noise.slopes(x, y);
            let x_rise = (noise.at(x + 0.01, y) - noise.at(x - 0.01, y)) / 0.02;
            let y_rise = (noise.at(x, y + 0.01) - noise.at(x, y - 0.01)) / 0.02;
            assert!((x_slope - x_rise).abs() < 0.02 && (y_slope - y_rise).abs() < 0.02, "{x} {y}");
        }
    }
}
