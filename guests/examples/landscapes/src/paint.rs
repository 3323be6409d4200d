//! From a scene to pixels. First what the water mirrors is painted, then all the rest, from near to far.

use crate::{
    canvas::Canvas,
    colour::Colour,
    land::{EYE_HEIGHT, Land, View},
    noise::{Chance, Noise, smooth},
    plants::{Kind, Plant, foliage, grow},
    scene::{Relief, Scene, Season, Trees, Weather},
    sky::Light,
};

/// All that is to be seen but what grows there.
pub struct Place<'s> {
    pub scene: &'s Scene,
    pub view: View,
    pub noise: Noise,
    pub light: Light,
    pub land: Land,
    /// The colour of the distance, for each column.
    pub distance: Vec<Colour>,
    /// From which height on there is snow.
    snow: f32,
}

/// The rows of the picture from the top, three bytes a pixel.
pub fn paint(scene: &Scene, width: usize, height: usize, seed: u64) -> Vec<u8> {
    let mut chance = Chance::new(scene.words ^ Chance::new(seed).draw());
    let place = Place::new(scene, width, height, &mut chance);
    let plants = grow(&place, &mut chance);
    let below = height - place.view.horizon as usize;
    let mut mirrored = Canvas::new(width, below, below as f32, -EYE_HEIGHT);
    if scene.water {
        place.paint_land(&plants, None, &mut mirrored);
        place.paint_sky(3, &mut mirrored);
    }
    let mut canvas = Canvas::new(width, height, place.view.horizon, EYE_HEIGHT);
    place.paint_land(&plants, Some(&mirrored), &mut canvas);
    place.paint_sky(5, &mut canvas);
    let mut pixels = canvas.into_colours();
    place.paint_falling(&mut pixels, &mut chance);
    place.bytes(&pixels, &mut chance)
}

impl<'s> Place<'s> {
    fn new(scene: &'s Scene, width: usize, height: usize, chance: &mut Chance) -> Self {
        let horizon = height as f32 * chance.between(0.56, 0.62);
        // Nothing is so wide that only the horizon is left.
        let focal = (0.5 * (width + height) as f32).min(1.5 * height as f32);
        let view = View { width, height, horizon, focal };
        let noise = Noise::new(chance);
        // What is high stands on one side, the light on the other.
        let side = chance.side();
        let light = Light::new(scene, side, chance);
        let peak = -side * chance.between(0.02, 0.26);
        let land = Land::new(scene, &view, &noise, peak, light.toward, chance);
        let distance = (0..width).map(|column| light.distance(view.direction(column))).collect();
        let snow = match (scene.season, scene.relief) {
            (Season::Winter, _) => -0.3,
            (_, Relief::Hills | Relief::Dunes) => 99.0,
            (Season::Spring, _) => 2.0,
            (Season::Summer, _) => 2.5,
            (Season::Autumn, _) => 2.2,
        };
        Self { scene, view, noise, light, land, distance, snow }
    }

    /// The largest direction that is seen, and a little more.
    pub fn border(&self) -> f32 {
        self.view.direction(self.view.width) + 0.1
    }

    /// How high the ground is.
    pub fn ground(&self, direction: f32, depth: f32) -> f32 {
        self.land.height(self.land.row(depth), self.view.column(direction))
    }

    fn paint_sky(&self, octaves: u32, canvas: &mut Canvas) {
        let pixel = 1.0 / self.view.focal;
        for row in 0..canvas.height {
            let elevation = (canvas.horizon - row as f32 - 0.5) * pixel;
            for column in 0..canvas.width {
                if canvas.is_open(column, row) {
                    let sky = self.light.sky(&self.noise, self.view.direction(column), elevation, pixel, octaves);
                    canvas.paint(column, row, sky, 1.0);
                }
            }
        }
    }

    /// Land with what grows there, and water if it has something to mirror.
    fn paint_land(&self, plants: &[Plant], mirrored: Option<&Canvas>, canvas: &mut Canvas) {
        // For each column, down to which row it is still open, and the land's colour there.
        let mut tops = vec![canvas.height as f32; canvas.width];
        let mut nearer = vec![None; canvas.width];
        let mut plants = plants.iter().peekable();
        for (row, depth) in self.land.depths.iter().enumerate() {
            while let Some(plant) = plants.next_if(|plant| plant.depth < *depth) {
                plant.paint(self, row, canvas);
            }
            for column in 0..canvas.width {
                let height = self.land.height(row, column);
                let top = canvas.horizon - (height.max(0.0) - canvas.eye) / depth * self.view.focal;
                if height <= 0.0 && mirrored.is_none() {
                    // What is mirrored here begins at the water, whatever stands nearer.
                    (tops[column], nearer[column]) = (top, None);
                    continue;
                }
                let bottom = tops[column];
                if top >= bottom {
                    nearer[column] = None;
                    continue;
                }
                let top = top.max(0.0);
                let ground = (height > 0.0).then(|| self.ground_colour(row, column));
                let before = nearer[column].or(ground);
                (tops[column], nearer[column]) = (top, ground);
                for y in top as usize..(bottom.ceil() as usize).min(canvas.height) {
                    let (above, below) = (top.max(y as f32), bottom.min(y as f32 + 1.0));
                    let colour = match (ground, before, mirrored) {
                        (Some(far), Some(near), _) => {
                            far.mix(near, ((y as f32 - top) / (bottom - top)).clamp(0.0, 1.0))
                        }
                        (_, _, Some(mirrored)) => self.water(mirrored, column, y),
                        (_, _, None) => Colour::BLACK,
                    };
                    canvas.paint(column, y, colour, (below - above) / (below - y as f32));
                }
            }
        }
    }

    /// Of what lies there, in the light, through the air.
    fn ground_colour(&self, row: usize, column: usize) -> Colour {
        let Scene { season, relief, trees, .. } = *self.scene;
        let (depth, height) = (self.land.depths[row], self.land.height(row, column));
        let normal = self.land.normal(&self.view, row, column);
        let x = self.view.direction(column) * depth;
        let broad = self.noise.at(x * 0.9 + 5.0, depth * 0.9);
        let ground = if relief == Relief::Dunes {
            let ripples = self.noise.octaves(x * 3.0 + 4.0 * broad, depth * 11.0, 2);
            Colour::of(0xdcac6c).mix(Colour::of(0xc89050), broad) * (0.86 + 0.28 * ripples)
        } else {
            let fine = self.noise.octaves(x * 5.0, depth * 5.0, 3);
            let (grass, dry) = match season {
                Season::Spring => (0x64883a, 0x84a04c),
                Season::Summer => (0x5d8238, 0x86923e),
                Season::Autumn => (0x9a7a38, 0x7a5a2c),
                Season::Winter => (0x8a8468, 0x746c58),
            };
            let grass = Colour::of(grass).mix(Colour::of(dry), smooth(0.25, 0.75, broad));
            let kind = if relief == Relief::Mountains { Kind::Conifer } else { Kind::Leafy };
            let wooded = match trees {
                Trees::None => 0.0,
                Trees::Some => 0.5,
                Trees::Forest => 1.0,
            } * smooth(0.62, 0.4, broad)
                * smooth(1.4, 0.8, height)
                * smooth(2.0, 8.0, depth);
            let steep = smooth(0.8, 0.64, normal[1] + 0.2 * (fine - 0.5));
            let high = if relief == Relief::Hills { 0.0 } else { smooth(0.5, 1.4, height + fine - 1.0) };
            let beach = smooth(0.1, 0.04, height + 0.05 * (fine - 0.5)) * (1.0 - steep);
            let rock = Colour::of(0x6e6862).mix(Colour::of(0x8c8378), fine);
            let land = grass.mix(foliage(kind, season, fine) * 0.8, wooded).mix(rock, steep.max(high));
            let land = land.mix(Colour::of(0x8a7c64), beach) * (0.72 + 0.56 * fine);
            let lies = smooth(0.5, 0.78, normal[1] + 0.25 * (fine - 0.5)) * smooth(0.005, 0.04, height);
            let snow = smooth(-0.25, 0.25, height - self.snow + 1.6 * (fine - 0.5)) * lies;
            land.mix(Colour::of(0xf2f6fc), snow)
        };
        let toward = self.light.toward;
        let facing = normal[0] * toward[0] + normal[1] * toward[1] + normal[2] * toward[2];
        let sun = self.light.sun * (facing.max(0.0) * self.land.lit(row, column));
        let ground = ground * (sun + self.light.ambient * (0.55 + 0.45 * normal[1]));
        ground.mix(self.distance[column], self.light.hidden(depth, height))
    }

    /// What is mirrored, broken by waves, and the deep.
    fn water(&self, mirrored: &Canvas, column: usize, row: usize) -> Colour {
        let below = (row as f32 + 0.5 - self.view.horizon).max(0.3);
        let slope = below / self.view.focal;
        let depth = EYE_HEIGHT / slope;
        let x = self.view.direction(column) * depth;
        let wind = match self.scene.weather {
            Weather::Clear | Weather::Fog => 0.7,
            Weather::Fair | Weather::Cloudy => 1.0,
            Weather::Rain | Weather::Snowfall => 1.5,
            Weather::Storm => 2.6,
        } * if self.scene.relief == Relief::Islands { 1.5 } else { 1.0 };
        let (_, wave_right, wave_away) = self.noise.slopes(x * 9.0 + depth, depth * 22.0);
        let (swell, _, swell_away) = self.noise.slopes(x * 2.2 + 30.0, depth * 6.0);
        let gust = 0.15 + wind * smooth(0.2, 0.75, self.noise.octaves(x * 0.35 + 9.0, depth * 0.6, 3));
        // Of waves that are smaller than pixels only a blur is left.
        let seen = 1.0 / (1.0 + 0.05 * depth * depth);
        let across = (0.004 * wave_right + 0.006 * (swell - 0.5)) * gust * seen * self.view.focal;
        let up = (0.018 * wave_away + 0.036 * swell_away) * gust * (0.25 + 0.75 * seen) * below;
        let shown = mirrored.at(column as f32 + 0.5 + across, mirrored.horizon - below - up.abs());
        // The flatter one looks at it, the more it mirrors.
        let flat = 1.0 - slope / (1.0 + slope * slope).sqrt();
        let deep = self.light.middle.mix(self.light.ambient, 0.5) * Colour(0.15, 0.3, 0.33);
        let water = deep.mix(shown, 0.12 + 0.85 * flat * flat * flat);
        let water = water * (1.0 + 0.12 * wind * seen * (wave_away + swell_away));
        water.mix(self.distance[column], self.light.hidden(depth, 0.0))
    }

    /// Rain or snow.
    fn paint_falling(&self, pixels: &mut [Colour], chance: &mut Chance) {
        let (count, length, radius, strength) = match self.scene.weather {
            Weather::Rain => (900, 26.0, 0.8, 0.16),
            Weather::Storm => (1300, 34.0, 0.8, 0.16),
            Weather::Snowfall => (1600, 0.0, 2.2, 0.8),
            Weather::Clear | Weather::Fair | Weather::Cloudy | Weather::Fog => return,
        };
        let View { width, height, focal, .. } = self.view;
        let colour = self.light.horizon.mix(Colour::WHITE, 0.25);
        for _ in 0..count {
            let (x, y) = (chance.between(0.0, width as f32), chance.between(0.0, height as f32));
            let near = chance.unit();
            let size = (0.25 + 0.75 * near * near) * focal / 512.0;
            let (length, radius) = (length * size, (radius * size).max(0.5));
            let rows = (y - radius) as usize..((y + length + radius + 1.0) as usize).min(height);
            for row in rows {
                let along = (row as f32 + 0.5 - y).clamp(0.0, length);
                let middle = x - 0.22 * along;
                // What is negative becomes 0.
                let columns = (middle - radius - 1.0) as usize..((middle + radius + 2.0) as usize).min(width);
                for column in columns {
                    let (across, down) = (column as f32 + 0.5 - middle, row as f32 + 0.5 - y - along);
                    let inside = radius - (across * across + down * down).sqrt();
                    let pixel = &mut pixels[row * width + column];
                    *pixel = pixel.mix(colour, strength * (inside + 0.5).clamp(0.0, 1.0));
                }
            }
        }
    }

    /// What files have; a little darker toward the corners.
    fn bytes(&self, pixels: &[Colour], chance: &mut Chance) -> Vec<u8> {
        let View { width, height, .. } = self.view;
        let mut bytes = Vec::with_capacity(3 * pixels.len());
        for (row, pixels) in pixels.chunks_exact(width).enumerate() {
            let y = (row as f32 + 0.5) / height as f32 - 0.5;
            for (column, colour) in pixels.iter().enumerate() {
                let x = (column as f32 + 0.5) / width as f32 - 0.5;
                bytes.extend((*colour * (1.06 - 0.5 * (x * x + y * y))).bytes(chance.unit()));
            }
        }
        bytes
    }
}
