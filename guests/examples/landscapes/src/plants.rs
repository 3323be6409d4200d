//! Trees, and grass close by: flat shapes that stand on the land.

use crate::{
    canvas::Canvas,
    colour::Colour,
    noise::{Chance, mix, smooth},
    paint::Place,
    scene::{Relief, Season, Trees},
};

/// Nearer than the first there are no trees; farther than the second they are only the land's colour.
const TREE_DEPTHS: (f32, f32) = (1.5, 20.0);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Conifer,
    Leafy,
    Grass,
}

pub struct Plant {
    kind: Kind,
    direction: f32,
    pub depth: f32,
    height: f32,
    colour: Colour,
    /// Where in the noise it is: none is like another.
    place: f32,
}

/// A point of a plant.
struct Point {
    /// How many pixels it is inside of the edge.
    inside: f32,
    /// How much it faces up, from -1 to 1.
    up: f32,
    bright: f32,
    /// Whether snow stays there.
    level: f32,
}

/// All that grow, the nearest first.
pub fn grow(place: &Place, chance: &mut Chance) -> Vec<Plant> {
    let mut plants = Vec::new();
    trees(place, chance, &mut plants);
    grass(place, chance, &mut plants);
    plants.sort_by(|one, other| one.depth.total_cmp(&other.depth));
    plants
}

fn trees(place: &Place, chance: &mut Chance, plants: &mut Vec<Plant>) {
    let wanted = match place.scene.trees {
        Trees::None => return,
        Trees::Some => 0.5,
        Trees::Forest => 0.78,
    };
    let leafy = match (place.scene.relief, place.scene.season) {
        (_, Season::Winter) => 0.0,
        (Relief::Mountains, _) => 0.2,
        (Relief::Hills | Relief::Dunes | Relief::Islands, _) => 0.6,
    };
    let border = place.border();
    let (mut row, last) = TREE_DEPTHS;
    while row < last {
        let mut direction = -border;
        while direction < border {
            direction += chance.between(0.05, 0.16) / row;
            let kind = if chance.unit() < leafy { Kind::Leafy } else { Kind::Conifer };
            let tall = if kind == Kind::Leafy { 0.75 } else { 1.0 };
            let height = tall * chance.between(0.14, 0.36);
            let depth = row * chance.between(1.0, 1.03);
            let ground = place.ground(direction, depth);
            let line = 2.0 * wanted * mix(1.1, 0.75, smooth(4.0, 12.0, depth));
            // They stand in groups.
            let group = place.noise.octaves(direction * depth * 0.8 + 70.0, depth * 0.8, 3) + 0.5 - wanted;
            if chance.unit() < smooth(0.62, 0.42, group) && ground > 0.03 && ground < line {
                plants.push(Plant::new(place, kind, direction, depth, height, chance));
            }
        }
        row *= 1.035;
    }
}

fn grass(place: &Place, chance: &mut Chance, plants: &mut Vec<Plant>) {
    let tufts = match (place.scene.relief, place.scene.season) {
        (Relief::Dunes, _) => 0,
        (_, Season::Winter) => 500,
        (_, _) => 3000,
    };
    let border = place.border();
    for _ in 0..tufts {
        let depth = place.land.depths[0] * chance.between(1.0, 4.0);
        let direction = chance.between(-border, border);
        let height = chance.between(0.02, 0.06);
        if place.ground(direction, depth) > 0.012 {
            plants.push(Plant::new(place, Kind::Grass, direction, depth, height, chance));
        }
    }
}

/// The colour of leaves: `tone` is from 0 to 1.
pub fn foliage(kind: Kind, season: Season, tone: f32) -> Colour {
    let (dark, bright) = match (kind, season) {
        (Kind::Conifer, Season::Winter) => (0x23372f, 0x2f463a),
        (Kind::Conifer, _) => (0x1f3a26, 0x33522c),
        (Kind::Leafy, Season::Spring) => (0x4a702c, 0x7f9c42),
        (Kind::Leafy, Season::Summer) => (0x35602a, 0x5f8a38),
        (Kind::Leafy, Season::Autumn) => (0xb04a1c, 0xe0a832),
        (Kind::Grass, Season::Spring | Season::Summer) => (0x557a30, 0x8a9a48),
        (Kind::Grass, Season::Autumn) => (0x806028, 0xa88a48),
        (Kind::Leafy | Kind::Grass, Season::Winter) => (0x6a6050, 0x9a8a70),
    };
    Colour::of(dark).mix(Colour::of(bright), tone)
}

impl Plant {
    fn new(place: &Place, kind: Kind, direction: f32, depth: f32, height: f32, chance: &mut Chance) -> Self {
        let colour = foliage(kind, place.scene.season, chance.unit());
        Self { kind, direction, depth, height, colour, place: chance.between(0.0, 90.0) }
    }

    /// On the ground that is in this row of the land.
    pub fn paint(&self, place: &Place, row: usize, canvas: &mut Canvas) {
        let Place { view, light, land, .. } = place;
        let column = view.column(self.direction);
        let ground = land.height(row, column) - 0.01;
        let size = self.height / self.depth * view.focal;
        let half = match self.kind {
            Kind::Conifer => 0.2 * size,
            Kind::Leafy => 0.44 * size,
            Kind::Grass => 0.6 * size,
        };
        let middle = view.x(self.direction);
        let top = canvas.horizon - (ground - canvas.eye) / self.depth * view.focal - size;

        let shine = light.sun * mix(0.35, 1.0, land.lit(row, column));
        let hidden = light.hidden(self.depth, ground);
        let distance = place.distance[column];
        let white = Colour::of(0xe8eef6);
        let snow = if place.scene.season == Season::Winter { 0.85 } else { 0.0 };

        // What is negative becomes 0.
        let columns = (middle - half - 1.0) as usize..((middle + half + 2.0) as usize).min(canvas.width);
        let rows = top as usize..((top + size + 1.0) as usize).min(canvas.height);
        for y in rows {
            let down = (y as f32 + 0.5 - top) / size;
            for x in columns.clone() {
                if !canvas.is_open(x, y) {
                    continue;
                }
                let side = (x as f32 + 0.5 - middle) / half;
                let Point { inside, up, bright, level } = self.point(place, side, down, size, half);
                if inside <= -0.5 {
                    continue;
                }
                let facing = 0.45 + 0.4 * side * light.toward[0] + 0.35 * up * light.toward[1];
                let leaves = (self.colour * bright).mix(white, snow * smooth(0.3, 0.9, level));
                let leaves = leaves * (shine * facing.clamp(0.06, 1.0) + light.ambient * (0.7 + 0.3 * up));
                canvas.paint(x, y, leaves.mix(distance, hidden), (inside + 0.5).min(1.0));
            }
        }
    }

    /// What is there: `side` is from -1 to 1, `down` from 0 at the top to 1 at the ground.
    fn point(&self, place: &Place, side: f32, down: f32, size: f32, half: f32) -> Point {
        let off = side.abs();
        let fine = if size > 40.0 { 1 } else { 0 };
        let rough = |x: f32, y: f32, octaves: u32| place.noise.octaves(x + self.place, y + self.place, octaves + fine);
        match self.kind {
            Kind::Conifer => {
                let rough = rough(side * 3.0, down * 12.0, 2);
                let tier = down * 7.0 + 0.7 * side * side + 0.5 * rough;
                let tier = tier - tier.floor();
                let branches = down * (0.66 + 0.3 * tier) + 0.5 * (rough - 0.5) * (0.2 + down);
                let wide = if down > 0.96 { 0.06 } else { branches.max(0.02) };
                Point {
                    inside: (wide - off) * half,
                    up: 0.5 - tier,
                    bright: 0.45 + 0.5 * tier + 0.6 * (rough - 0.5),
                    level: 0.55 - 0.8 * tier - 0.25 * off + 0.7 * rough,
                }
            }
            Kind::Leafy => {
                let rough = rough(side * 4.0, down * 4.8, 3);
                let low = (down - 0.45) / 0.45;
                let crown = 0.8 * (0.35 + 0.95 * rough - (low * low + side * side).sqrt());
                let trunk = if down > 0.5 && down < 1.0 { 0.07 - off } else { -1.0 };
                Point {
                    inside: crown.max(trunk) * half,
                    up: 2.0 * (rough - 0.5) - 0.9 * low,
                    bright: (0.35 + 1.3 * rough) * (0.8 - 0.5 * low),
                    level: 0.0,
                }
            }
            Kind::Grass => {
                let high = 1.0 - down;
                let blade = (side - 0.35 * high * high * place.light.toward[0]) * 7.0;
                let tall = place.noise.at(blade.floor() + self.place.floor(), self.place.floor());
                let tall = (0.3 + 0.7 * tall) * (1.0 - side * side);
                let wide = 0.4 * (1.0 - high / tall.max(0.01));
                let off = (blade - blade.floor() - 0.5).abs();
                Point { inside: (wide - off) * half / 7.0, up: 0.3, bright: 0.5 + 0.7 * high, level: 0.25 }
            }
        }
    }
}
