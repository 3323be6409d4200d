//! The shape of the land, and where the light reaches it.
//!
//! The eye is half a unit of length above the water and looks to the horizon. A direction is how far to the right
//! one comes for each unit of depth, an elevation how far up.

use crate::{
    noise::{Chance, Noise, mix, smooth},
    scene::{Relief, Scene},
};

/// Above the water.
pub const EYE_HEIGHT: f32 = 0.5;
/// Beyond, there is only sky.
const DEPTH_MAX: f32 = 46.0;

/// How directions and elevations are pixels.
#[derive(Clone, Copy, Debug)]
pub struct View {
    pub width: usize,
    pub height: usize,
    /// The row of the horizon.
    pub horizon: f32,
    /// Pixels of a direction or elevation of 1.
    pub focal: f32,
}

impl View {
    /// Of a column's middle.
    #[inline(always)]
    pub fn direction(&self, column: usize) -> f32 {
        (column as f32 + 0.5 - 0.5 * self.width as f32) / self.focal
    }

    /// Where a direction is, in pixels from the left.
    #[inline(always)]
    pub fn x(&self, direction: f32) -> f32 {
        0.5 * self.width as f32 + direction * self.focal
    }

    /// The column of it, or the nearest one.
    pub fn column(&self, direction: f32) -> usize {
        (self.x(direction) as usize).min(self.width - 1)
    }
}

/// What chance says of the land.
struct Shape {
    relief: Relief,
    water: bool,
    /// Where in the noise it is.
    x: f32,
    z: f32,
    /// The direction of what is highest.
    peak: f32,
    /// On which side the near shore is: -1 or 1.
    side: f32,
    /// The depth of the far shore.
    shore: f32,
    height: f32,
}

impl Shape {
    /// Height above the water.
    fn height(&self, noise: &Noise, direction: f32, depth: f32, octaves: u32) -> f32 {
        let (x, z) = (direction * depth + self.x, depth + self.z);
        let rough = noise.octaves(x * 0.45, z * 0.45, 4) - 0.5;
        let near = smooth(0.0, 1.3, direction * depth * self.side + 1.4 * rough) * smooth(8.0, 2.0, depth);
        let ground = if self.water {
            let far = smooth(self.shore - 2.5, self.shore + 3.0, depth);
            mix(-0.2, 0.3, far) + rough * mix(0.2, 0.55, smooth(1.5, 5.0, depth)) + 0.46 * near
        } else {
            0.16 + rough * mix(0.3, 0.8, smooth(1.0, 6.0, depth)) + 0.15 * near
        };
        // How much of a peak is in this direction.
        let peak = |width: f32| {
            let off = (direction - self.peak) / width;
            1.0 / (1.0 + off * off)
        };
        match self.relief {
            Relief::Mountains => {
                let rise = smooth(6.0, 16.0, depth);
                if rise == 0.0 {
                    return ground;
                }
                let massif = 0.6 + 0.75 * peak(0.22) + 0.25 * smooth(20.0, 34.0, depth);
                ground + rise * massif * self.height * (noise.eroded(x * 0.105, z * 0.105, octaves) - 0.08)
            }
            Relief::Hills => {
                let rise = smooth(2.5, 14.0, depth);
                ground + rise * 0.4 * self.height * (noise.octaves(x * 0.16, z * 0.2, 5) - 0.22)
            }
            Relief::Dunes => {
                let bend = noise.octaves(x * 0.09, z * 0.07, 2);
                let low = noise.at(x * 0.06 + 7.0, z * 0.06);
                // Gently up against the wind, then a round crest, and steeply down.
                let wave = z * 0.13 + x * 0.08 * self.side + 2.2 * bend;
                let along = wave - wave.floor();
                let (up, down) = (along / 0.6, (1.0 - along) / 0.4);
                let round = (0.5 - (up - down).abs()).max(0.0);
                let crest = if up < down { up } else { down } - round * round / 2.0;
                let crest = crest * crest * (2.2 - 1.2 * crest);
                let high = 0.1 + 0.028 * self.height * depth.min(22.0) * smooth(0.5, 9.0, depth) * (0.2 + low);
                let sand = 0.04 + crest * high + 0.04 * rough;
                if self.water { sand.min(ground + 0.25 * smooth(6.0, 12.0, depth) * sand) } else { sand }
            }
            Relief::Islands => {
                let there = noise.octaves(x * 0.07 + 31.0, z * 0.09, 3) + 0.14 * peak(0.3);
                let island = smooth(0.53, 0.77, there) * smooth(5.0, 13.0, depth);
                let rock = noise.eroded(x * 0.16, z * 0.16, octaves) + 0.1;
                let far = island * 0.75 * self.height * rock + 0.1 * rough - 0.12;
                far.max(near * (0.5 + rough) - 0.12)
            }
        }
    }
}

/// Heights and light, in rows of one depth each, from near to far. Their columns are the picture's, and some on both
/// sides of it, which throw shadows too.
pub struct Land {
    pub depths: Vec<f32>,
    heights: Vec<f32>,
    lit: Vec<f32>,
    columns: usize,
    margin: usize,
}

impl Land {
    /// With the highest in the direction `peak`, in light from where `toward` shows: to the right, up and away.
    pub fn new(scene: &Scene, view: &View, noise: &Noise, peak: f32, toward: [f32; 3], chance: &mut Chance) -> Self {
        let shape = Shape {
            relief: scene.relief,
            water: scene.water,
            x: chance.between(0.0, 200.0),
            z: chance.between(0.0, 200.0),
            peak,
            side: chance.side(),
            shore: chance.between(5.0, 8.0),
            height: chance.between(6.5, 8.5),
        };
        // Dunes are sharp, and cheap.
        let pixels = if scene.relief == Relief::Dunes { 2.0 } else { 5.0 };
        let step = 1.0 + (pixels / view.focal).min(0.02);
        let mut depth = 0.6 * EYE_HEIGHT * view.focal / (view.height as f32 - view.horizon);
        let mut depths = Vec::new();
        while depth < DEPTH_MAX {
            depths.push(depth);
            depth *= step;
        }
        let margin = view.width / 16;
        let columns = view.width + 2 * margin;
        let octaves = if view.focal > 600.0 { 9 } else { 8 };
        let mut heights = Vec::with_capacity(depths.len() * columns);
        for depth in &depths {
            for column in 0..columns {
                let direction = view.direction(column) - margin as f32 / view.focal;
                heights.push(shape.height(noise, direction, *depth, octaves));
            }
        }
        let mut land = Self { lit: vec![1.0; heights.len()], depths, heights, columns, margin };
        land.throw_shadows(view, toward);
        land
    }

    /// Goes through the rows as the light does, and takes along up to which height it is dark.
    fn throw_shadows(&mut self, view: &View, toward: [f32; 3]) {
        let mut rows: Vec<usize> = (0..self.depths.len()).collect();
        if toward[2] > 0.0 {
            rows.reverse();
        }
        let mut from = self.depths[rows[0]];
        let mut dark = vec![0.0; self.columns];
        let mut next = dark.clone();
        for row in rows {
            let depth = self.depths[row];
            let way = (from - depth) / toward[2];
            for (column, next) in next.iter_mut().enumerate() {
                let x = (view.direction(column) - self.margin as f32 / view.focal) * depth + toward[0] * way;
                let there = view.x(x / from) + self.margin as f32 - 0.5;
                let there = there.clamp(0.0, self.columns as f32 - 1.001);
                let left = there as usize;
                let shadow = mix(dark[left], dark[left + 1], there - left as f32) - toward[1] * way;
                let at = row * self.columns + column;
                let height = self.heights[at].max(0.0);
                self.lit[at] = smooth(0.16, -0.02, shadow - height);
                *next = shadow.max(height);
            }
            std::mem::swap(&mut dark, &mut next);
            from = depth;
        }
    }

    #[inline(always)]
    fn index(&self, row: usize, column: usize) -> usize {
        row * self.columns + self.margin + column
    }

    /// The row of a depth, or the last one.
    pub fn row(&self, depth: f32) -> usize {
        self.depths.partition_point(|of_row| *of_row < depth).min(self.depths.len() - 1)
    }

    /// Above the water, or below if it is less than 0.
    #[inline(always)]
    pub fn height(&self, row: usize, column: usize) -> f32 {
        self.heights[self.index(row, column)]
    }

    /// How much of the light arrives.
    #[inline(always)]
    pub fn lit(&self, row: usize, column: usize) -> f32 {
        self.lit[self.index(row, column)]
    }

    /// Where the ground faces: to the right, up and away.
    pub fn normal(&self, view: &View, row: usize, column: usize) -> [f32; 3] {
        let here = self.index(row, column);
        let right = (self.heights[here + 1] - self.heights[here - 1]) * view.focal / (2.0 * self.depths[row]);
        let (near, far) = (row.saturating_sub(1), (row + 1).min(self.depths.len() - 1));
        let rise = (self.height(far, column) - self.height(near, column)) / (self.depths[far] - self.depths[near]);
        // What is behind in a column is also to the side.
        let away = rise - right * view.direction(column);
        let length = (1.0 + right * right + away * away).sqrt();
        [-right / length, 1.0 / length, -away / length]
    }
}
