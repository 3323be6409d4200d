//! What the tests share.

/// The bytes that `vectors/make.mjs` makes of a seed.
pub fn pseudo_random(seed: u32, size: usize) -> Vec<u8> {
    let mut state = seed;
    let next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    std::iter::repeat_with(next).take(size).collect()
}
