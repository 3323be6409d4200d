//! What words say of a landscape. What they leave open follows from all of them as a number: every prompt is another
//! place.

use crate::noise::Chance;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hour {
    Dawn,
    Noon,
    Sunset,
    Dusk,
    Night,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Season {
    Spring,
    Summer,
    Autumn,
    Winter,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weather {
    Clear,
    Fair,
    Cloudy,
    Fog,
    Rain,
    Snowfall,
    Storm,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relief {
    Mountains,
    Hills,
    Dunes,
    Islands,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trees {
    None,
    Some,
    Forest,
}

/// What is painted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scene {
    pub hour: Hour,
    pub season: Season,
    pub weather: Weather,
    pub relief: Relief,
    pub water: bool,
    pub trees: Trees,
    pub aurora: bool,
    /// The colour that it is bathed in, `0xrrggbb`.
    pub tint: Option<u32>,
    /// The words as a number, those among them that nobody knows.
    pub words: u64,
}

#[derive(Clone, Copy)]
enum Meaning {
    Hour(Hour),
    Season(Season),
    Weather(Weather),
    Relief(Relief),
    Water(bool),
    Trees(Trees),
    Aurora,
    Tint(u32),
}

/// What a word says; nothing, if nobody knows it.
fn meanings(word: &str) -> &'static [Meaning] {
    use Meaning::{Aurora, Tint, Water};
    match word {
        "dawn" | "sunrise" | "daybreak" | "morning" => &[Meaning::Hour(Hour::Dawn)],
        "noon" | "midday" | "day" | "daylight" | "sunny" | "bright" | "afternoon" => &[Meaning::Hour(Hour::Noon)],
        "sunset" | "sundown" | "evening" => &[Meaning::Hour(Hour::Sunset)],
        "dusk" | "twilight" | "gloaming" | "dark" => &[Meaning::Hour(Hour::Dusk)],
        "night" | "midnight" | "moon" | "moonlight" | "moonlit" | "star" | "starry" => &[Meaning::Hour(Hour::Night)],

        "spring" | "april" | "green" | "lush" => &[Meaning::Season(Season::Spring)],
        "summer" | "june" | "july" | "august" => &[Meaning::Season(Season::Summer)],
        "autumn" | "fall" | "october" | "november" => &[Meaning::Season(Season::Autumn)],
        "winter" | "december" | "january" | "snow" | "snowy" | "white" | "ice" | "icy" | "frozen" | "arctic"
        | "glacier" => &[Meaning::Season(Season::Winter)],

        "clear" | "cloudless" => &[Meaning::Weather(Weather::Clear)],
        "cloud" | "cloudy" | "overcast" | "grey" | "gray" => &[Meaning::Weather(Weather::Cloudy)],
        "fog" | "foggy" | "mist" | "misty" | "haze" | "hazy" => &[Meaning::Weather(Weather::Fog)],
        "rain" | "rainy" | "raining" | "drizzle" | "shower" => &[Meaning::Weather(Weather::Rain)],
        "snowfall" | "snowing" | "blizzard" => &[Meaning::Weather(Weather::Snowfall), Meaning::Season(Season::Winter)],
        "storm" | "stormy" | "thunder" | "thunderstorm" | "tempest" => &[Meaning::Weather(Weather::Storm)],

        "mountain" | "peak" | "alp" | "alpine" | "summit" | "volcano" => &[Meaning::Relief(Relief::Mountains)],
        "fjord" => &[Meaning::Relief(Relief::Mountains), Water(true)],
        "hill" | "meadow" | "valley" | "field" | "countryside" | "moor" => &[Meaning::Relief(Relief::Hills)],
        "desert" | "dune" | "sand" | "sahara" => &[Meaning::Relief(Relief::Dunes)],
        "oasis" => &[Meaning::Relief(Relief::Dunes), Water(true)],
        "sea" | "ocean" | "island" | "coast" | "archipelago" => &[Meaning::Relief(Relief::Islands), Water(true)],
        "lake" | "water" | "pond" | "bay" | "river" | "reflection" => &[Water(true)],
        "dry" | "steppe" | "plain" => &[Water(false)],

        "forest" | "wood" | "woodland" | "pine" | "fir" | "taiga" => &[Meaning::Trees(Trees::Forest)],
        "tree" | "grove" => &[Meaning::Trees(Trees::Some)],
        "barren" | "bare" | "treeless" | "tundra" => &[Meaning::Trees(Trees::None)],

        "aurora" | "borealis" | "northern" => &[Aurora],

        "red" | "crimson" | "scarlet" => &[Tint(0xd8_2c_20)],
        "orange" | "amber" => &[Tint(0xf0_80_20)],
        "yellow" | "gold" | "golden" => &[Tint(0xf0_c0_40)],
        "turquoise" | "teal" | "emerald" => &[Tint(0x30_b8_a0)],
        "blue" | "azure" => &[Tint(0x30_70_e8)],
        "violet" | "purple" | "lilac" | "lavender" => &[Tint(0x90_50_e0)],
        "pink" | "rose" | "rosy" => &[Tint(0xf0_80_a8)],
        "brown" | "sepia" => &[Tint(0xb0_80_50)],
        _ => &[],
    }
}

impl Scene {
    /// Of two words about the same thing, the first counts.
    pub fn of(prompt: &str) -> Self {
        let (mut hour, mut season, mut weather, mut relief) = (None, None, None, None);
        let (mut water, mut trees, mut aurora, mut tint) = (None, None, false, None);
        for word in prompt.split(|c: char| !c.is_alphabetic()) {
            let word = word.to_lowercase();
            let known = match (meanings(&word), word.strip_suffix('s')) {
                ([], Some(one)) => meanings(one),
                (known, _) => known,
            };
            for meaning in known {
                match *meaning {
                    Meaning::Hour(said) => hour = hour.or(Some(said)),
                    Meaning::Season(said) => season = season.or(Some(said)),
                    Meaning::Weather(said) => weather = weather.or(Some(said)),
                    Meaning::Relief(said) => relief = relief.or(Some(said)),
                    Meaning::Water(said) => water = water.or(Some(said)),
                    Meaning::Trees(said) => trees = trees.or(Some(said)),
                    Meaning::Aurora => aurora = true,
                    Meaning::Tint(said) => tint = tint.or(Some(said)),
                }
            }
        }
        let words = hash(prompt.trim());
        let mut chance = Chance::new(words);
        let hours = [Hour::Dawn, Hour::Noon, Hour::Noon, Hour::Sunset];
        let seasons = [Season::Spring, Season::Summer, Season::Summer, Season::Autumn];
        let reliefs = [Relief::Mountains, Relief::Mountains, Relief::Hills, Relief::Islands];
        let some_hour = if aurora { Hour::Night } else { hours[chance.index(hours.len())] };
        let some_season = seasons[chance.index(seasons.len())];
        let some_relief = reliefs[chance.index(reliefs.len())];
        let some_water = chance.index(3) > 0;

        let forest = trees == Some(Trees::Forest);
        let relief = relief.unwrap_or(if forest { Relief::Hills } else { some_relief });
        let dunes = relief == Relief::Dunes;
        Self {
            hour: hour.unwrap_or(some_hour),
            season: season.unwrap_or(some_season),
            weather: weather.unwrap_or(if aurora || dunes { Weather::Clear } else { Weather::Fair }),
            relief,
            water: water.unwrap_or(relief == Relief::Islands || (some_water && !dunes)),
            trees: trees.unwrap_or(if dunes { Trees::None } else { Trees::Some }),
            aurora,
            tint,
            words,
        }
    }
}

/// FNV-1a.
fn hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_say_what_is_painted() {
        let said = |prompt: &str| {
            let Scene { hour, season, weather, relief, water, trees, .. } = Scene::of(prompt);
            (hour, season, weather, relief, water, trees)
        };
        use {Hour::*, Relief::*, Season::*, Trees::Forest, Weather::*};
        let table = [
            ("Mountains by a lake at sunset in summer.", (Sunset, Summer, Fair, Mountains, true, Trees::Some)),
            ("a foggy forest without water? by a pond! autumn dawn", (Dawn, Autumn, Fog, Hills, true, Forest)),
            ("STARRY NIGHT, DESERT, SPRING", (Night, Spring, Clear, Dunes, false, Trees::None)),
            ("an oasis, pines, at noon, no storm, summer", (Noon, Summer, Storm, Dunes, true, Forest)),
            ("blizzard over bare hills, dusk, steppe", (Dusk, Winter, Snowfall, Hills, false, Trees::None)),
            ("northern lights, snow, fjord", (Night, Winter, Clear, Mountains, true, Trees::Some)),
            (
                "noon before night, islands before peaks, clouds, april",
                (Noon, Spring, Cloudy, Islands, true, Trees::Some),
            ),
        ];
        for (prompt, expected) in table {
            assert_eq!(said(prompt), expected, "{prompt}");
        }
    }

    #[test]
    fn colours_bathe_it() {
        assert_eq!(Scene::of("a blue lake and a red one").tint, Some(0x30_70_e8));
        assert_eq!(Scene::of("a lake").tint, None);
    }

    #[test]
    fn words_that_nobody_knows_matter() {
        let scenes: Vec<Scene> = ["xyzzy", "plugh", "Plugh", "あ", "🌄"].map(Scene::of).into();
        for (at, scene) in scenes.iter().enumerate() {
            assert!(scenes[..at].iter().all(|other| other.words != scene.words));
        }
        assert_eq!(Scene::of(" xyzzy\n"), scenes[0]);
    }
}
