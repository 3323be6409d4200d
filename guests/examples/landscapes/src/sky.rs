//! The light of the hour, the sky, and the air in between.

use crate::{
    colour::Colour,
    noise::{Chance, Noise, mix, smooth},
    scene::{Hour, Scene, Weather},
};

/// Sun or moon in the picture.
#[derive(Clone, Copy, Debug)]
struct Disc {
    direction: f32,
    elevation: f32,
    radius: f32,
}

pub struct Light {
    zenith: Colour,
    pub middle: Colour,
    pub horizon: Colour,
    /// The air around the sun.
    glow: Colour,
    /// What comes from sun or moon, and from everywhere.
    pub sun: Colour,
    pub ambient: Colour,
    /// Where sun or moon are, for the land: to the right, up and away. In the picture it is not quite there: light
    /// from the side shows more.
    pub toward: [f32; 3],
    disc: Option<Disc>,
    is_moon: bool,
    /// The direction of the moon's dark side from its middle, in its radius.
    phase: f32,
    stars: f32,
    aurora: bool,
    /// How much of the sky they cover, and how heavy they are.
    clouds: f32,
    gloom: f32,
    /// What a unit of depth hides.
    haze: f32,
    /// What the air hides of the sky at the horizon.
    veil: f32,
}

impl Light {
    /// `side` is where it comes from: -1 or 1.
    pub fn new(scene: &Scene, side: f32, chance: &mut Chance) -> Self {
        let low = |radius: f32, chance: &mut Chance| Disc {
            direction: side * chance.between(0.08, 0.3),
            elevation: chance.between(0.02, 0.07),
            radius,
        };
        let high = |chance: &mut Chance| Disc {
            direction: side * chance.between(0.1, 0.34),
            elevation: chance.between(0.32, 0.42),
            radius: 0.03,
        };
        // Zenith, middle, horizon, glow, sun and ambient; how strong the sun is, and where it is seen.
        let (colours, strength, disc) = match scene.hour {
            Hour::Dawn => ([0x5a7fb8, 0xc9b3cc, 0xffdcb8, 0xffb870, 0xffc89a, 0x8a94c0], 1.5, Some(low(0.028, chance))),
            Hour::Noon => ([0x2a66b4, 0x6fa6dc, 0xc8e2f2, 0xfff0d0, 0xfff2dc, 0x86a8d8], 1.7, None),
            Hour::Sunset => {
                ([0x34386e, 0xa85f86, 0xff9d58, 0xff8838, 0xff9a58, 0x6a5f92], 1.5, Some(low(0.034, chance)))
            }
            Hour::Dusk => ([0x1a2550, 0x5a5a96, 0xeaa088, 0xe07858, 0xa890b8, 0x4a5488], 0.6, None),
            Hour::Night => ([0x060a1e, 0x101c40, 0x2c4468, 0x5878a8, 0x86a4d8, 0x1c2a50], 0.65, Some(high(chance))),
        };
        let [zenith, middle, horizon, glow, sun, ambient] = colours.map(Colour::of);
        let (right, up, away) = match scene.hour {
            Hour::Noon => (0.72, 0.56, -0.42),
            Hour::Night => (0.66, 0.6, 0.3),
            Hour::Dawn | Hour::Sunset | Hour::Dusk => (0.85, 0.36, 0.34),
        };
        let length: f32 = right * right + up * up + away * away;
        let length = length.sqrt();
        let mut light = Self {
            zenith,
            middle,
            horizon,
            glow,
            sun: sun * strength,
            ambient,
            toward: [side * right / length, up / length, away / length],
            disc,
            is_moon: scene.hour == Hour::Night,
            phase: side * chance.between(0.5, 1.3),
            stars: match scene.hour {
                Hour::Night => 1.0,
                Hour::Dusk => 0.25,
                Hour::Dawn | Hour::Noon | Hour::Sunset => 0.0,
            },
            aurora: scene.aurora,
            clouds: chance.between(0.3, 0.46),
            gloom: 0.0,
            haze: 0.022,
            veil: 0.0,
        };
        light.change(scene.weather);
        if let Some(tint) = scene.tint {
            light.bathe(Colour::of(tint));
        }
        light
    }

    fn change(&mut self, weather: Weather) {
        let (clouds, gloom, sun, haze, veil) = match weather {
            Weather::Clear => (0.08, 0.0, 1.0, 0.8, 0.0),
            Weather::Fair => (self.clouds, 0.0, 1.0, 1.0, 0.0),
            Weather::Cloudy => (0.72, 0.45, 0.55, 1.5, 0.0),
            Weather::Fog => (0.35, 0.35, 0.5, 6.5, 0.9),
            Weather::Rain => (0.9, 0.65, 0.35, 3.0, 0.4),
            Weather::Snowfall => (0.8, 0.4, 0.4, 3.4, 0.5),
            Weather::Storm => (1.0, 1.0, 0.25, 1.6, 0.2),
        };
        (self.clouds, self.gloom, self.veil) = (clouds, gloom, veil);
        self.haze *= haze;
        self.sun = self.sun * sun;
        let heavy = gloom * gloom;
        let dull = |colour: Colour, fair: f32, heaviest: f32| {
            let grey = Colour(0.86, 0.94, 1.04) * (colour.brightness() * mix(fair, heaviest, heavy));
            colour.mix(grey, 0.9 * gloom)
        };
        self.zenith = dull(self.zenith, 0.6, 0.2);
        self.middle = dull(self.middle, 0.7, 0.3);
        self.horizon = dull(self.horizon, 0.8, 0.42);
        self.glow = dull(self.glow, 0.6, 0.6);
        self.ambient = dull(self.ambient, 0.95, 0.5);
        if gloom > 0.4 {
            self.disc = None;
            self.stars = 0.0;
        }
    }

    fn bathe(&mut self, tint: Colour) {
        let pure = tint * (1.0 / tint.brightness());
        let bathed = |colour: Colour, share: f32| colour.mix(pure * colour.brightness(), share);
        self.zenith = bathed(self.zenith, 0.6);
        self.middle = bathed(self.middle, 0.6);
        self.horizon = bathed(self.horizon, 0.5);
        self.glow = bathed(self.glow, 0.4);
        self.sun = bathed(self.sun, 0.4);
        self.ambient = bathed(self.ambient, 0.4);
    }

    /// 1 where the sun is, and the less the farther away.
    fn nearness(&self, direction: f32, elevation: f32, sharpness: f32) -> f32 {
        let Some(disc) = self.disc else { return 0.0 };
        let (across, up) = (direction - disc.direction, elevation - disc.elevation);
        1.0 / (1.0 + sharpness * (across * across + up * up))
    }

    /// The sky without all that is in it.
    fn air(&self, direction: f32, elevation: f32) -> Colour {
        let low = self.horizon.mix(self.middle, smooth(-0.03, 0.3, elevation));
        let air = low.mix(self.zenith, smooth(0.12, 0.8, elevation));
        let wide = self.nearness(direction, elevation * 1.7, 9.0);
        let near = self.nearness(direction, elevation, 160.0);
        let strength = if self.is_moon { 0.35 } else { 1.0 };
        air + self.glow * (strength * (0.42 * wide * wide + 0.5 * near))
    }

    /// The colour of all that is far away.
    pub fn distance(&self, direction: f32) -> Colour {
        let wide = self.nearness(direction, 0.05, 9.0);
        let strength = if self.is_moon { 0.1 } else { 0.35 };
        self.horizon.mix(self.middle, 0.15) + self.glow * (strength * wide * wide)
    }

    /// How much of what is in this depth and height the air hides.
    pub fn hidden(&self, depth: f32, height: f32) -> f32 {
        let low = 1.0 / (1.0 + 0.45 * height.max(0.0));
        let air = self.haze * depth * (0.25 + 0.75 * low);
        let air = air + 0.35 * air * air;
        air / (1.0 + air)
    }

    /// What is seen where no land is. Edges are as sharp as a pixel.
    pub fn sky(&self, noise: &Noise, direction: f32, elevation: f32, pixel: f32, octaves: u32) -> Colour {
        let mut sky = self.air(direction, elevation);
        if self.stars > 0.0 {
            sky = sky + stars(noise, direction, elevation) * (self.stars * smooth(0.0, 0.3, elevation));
        }
        if self.aurora {
            sky = sky + aurora(noise, direction, elevation);
        }
        if let Some(disc) = self.disc {
            let (across, up) = ((direction - disc.direction) / disc.radius, (elevation - disc.elevation) / disc.radius);
            let (off, blur) = (across * across + up * up, 2.0 * pixel / disc.radius);
            if off < 1.0 + blur {
                let seen = smooth(1.0 + blur, 1.0 - blur, off);
                sky = if self.is_moon {
                    let (across_dark, up_dark) = (across - self.phase, up - 0.35);
                    let dark = across_dark * across_dark + up_dark * up_dark;
                    let seas = noise.octaves(across * 1.8 + 9.0, up * 1.8, 3);
                    let bright = Colour(0.92, 0.93, 0.86) * (0.6 + 0.6 * seas);
                    sky.mix(bright, seen * smooth(0.96 - blur, 0.96 + blur, dark))
                } else {
                    sky.mix(Colour::WHITE * 2.2 + self.glow * 2.0, seen)
                };
            }
        }
        let sky = self.clouded(sky, noise, direction, elevation, octaves);
        sky.mix(self.distance(direction), self.veil * smooth(0.55, 0.0, elevation))
    }

    fn clouded(&self, sky: Colour, noise: &Noise, direction: f32, elevation: f32, octaves: u32) -> Colour {
        if elevation < 0.004 {
            return sky;
        }
        // Clouds are a ceiling: the lower they are seen, the farther away they are.
        let far = 1.0 / (elevation + 0.16);
        let (x, z) = (direction * far * 1.35 + 11.0, far * 2.0);
        let bend = noise.at(x * 0.7, z * 0.7 + 40.0);
        let (x, z) = (x + 0.7 * bend, z + 0.5 * bend);
        let thick = noise.octaves(x, z, octaves);
        let edge = mix(0.72, 0.3, self.clouds);
        let cover = smooth(edge, edge + mix(0.17, 0.3, self.gloom), thick) * smooth(0.0, 0.07, elevation);
        if cover == 0.0 {
            return sky;
        }
        // Where there is less of them toward the light, they are bright.
        let before = noise.octaves(x + 0.22 * self.toward[0], z + 0.16 * self.toward[2] - 0.12, 3);
        let lit = 0.55 + 2.6 * (thick - before) - 0.5 * (thick - edge) * (1.0 + self.gloom);
        let dark = self.ambient.mix(self.middle, 0.55) * mix(0.8, 0.34, self.gloom);
        let bright = self.horizon.mix(self.sun, 0.4) * mix(1.0, 0.62, self.gloom);
        let bright = bright + self.glow * (0.5 * self.nearness(direction, elevation, 7.0));
        let cloud = dark.mix(bright, lit.clamp(0.0, 1.0));
        let cloud = cloud.mix(self.air(direction, elevation), 0.55 * smooth(0.25, 0.0, elevation));
        sky.mix(cloud, 0.92 * cover)
    }
}

/// At most one in each cell of a lattice, and the band of those that are too many.
fn stars(noise: &Noise, direction: f32, elevation: f32) -> Colour {
    let band = noise.octaves(direction * 2.0 + elevation * 1.4, elevation * 2.0 - direction * 1.1, 4);
    let milk = Colour(0.5, 0.6, 1.0) * (0.03 * smooth(0.4, 0.75, band));
    let (x, y) = (direction * 46.0, elevation * 46.0);
    let (column, row) = (x.floor(), y.floor());
    let draw = |what: f32| noise.at(column + what, row + 2.0 * what);
    let bright = draw(0.0) - 0.55;
    if bright < 0.0 {
        return milk;
    }
    let (across, up) = (x - column - mix(0.15, 0.85, draw(17.0)), y - row - mix(0.15, 0.85, draw(41.0)));
    let seen = smooth(0.085, 0.0, (across * across + up * up).sqrt());
    let colour = Colour(0.85, 0.92, 1.0).mix(Colour(1.0, 0.85, 0.7), draw(73.0));
    milk + colour * (23.0 * bright * bright * bright * seen)
}

/// Three curtains of rays, green at the foot and violet above.
fn aurora(noise: &Noise, direction: f32, elevation: f32) -> Colour {
    let mut light = Colour::BLACK;
    for curtain in [0.0, 1.0, 2.0] {
        let bend = noise.octaves(direction * 1.7 + curtain * 19.0, curtain * 7.0, 3);
        let up = elevation - 0.1 - 0.13 * curtain - 0.55 * (bend - 0.5);
        if up < -0.03 {
            continue;
        }
        let rays = noise.octaves(direction * 9.0 + bend * 8.0 + curtain * 50.0, elevation * 0.7 + curtain, 3);
        let there = smooth(0.3, 0.62, noise.at(direction * 2.1 + curtain * 5.0 + 3.0, curtain * 3.0));
        let fading = smooth(-0.03, 0.02, up) / (1.0 + 5.0 * up + 40.0 * up * up);
        let colour = Colour(0.1, 0.95, 0.5).mix(Colour(0.5, 0.2, 0.9), smooth(0.06, 0.42, up));
        light = light + colour * (0.6 * fading * there * (0.25 + 1.1 * rays * rays));
    }
    light
}
