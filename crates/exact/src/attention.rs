//! Attention of new tokens over the cached ones.
//!
//! Queries that share a key-value head go through its keys and values together, a few at a time:
//! what is read from memory serves all of them. Scores run across cached tokens, sixteen at a time,
//! each a sum in order over the head; weighted sums of values run across the elements of the head,
//! each a sum from the oldest token to the newest.

// Several arrays of a tile go by one index; and the tile of one token is `index + 1 <= count`.
#![allow(clippy::needless_range_loop, clippy::int_plus_one)]

use crate::{
    cache::{PAGE, PANEL, Page, Shape},
    isa::{Isa, Work, dispatch},
    level::Level,
    plan::{Plan, Shared},
    vector::softmax_rows,
};
use std::sync::Arc;

/// Most queries that go together at any level.
pub(crate) const TILE_MAX: usize = 8;

/// Tokens whose attention over one key-value head is one task.
const TASK_ROWS: usize = 8;

/// What all queries of a layer have in common.
#[derive(Clone, Copy)]
pub(crate) struct Heads<'a> {
    pub shape: Shape,
    /// Query heads: a multiple of the key-value heads.
    pub heads: usize,
    /// 1/√head_dim.
    pub scale: f32,
    /// ALiBi's slope of each query head.
    pub slopes: Option<&'a [f32]>,
    /// Whether a token sees those after it too.
    pub both_ways: bool,
}

impl<'a> Heads<'a> {
    pub fn new(shape: Shape, heads: usize) -> Self {
        #[allow(clippy::cast_precision_loss)] // at most 1024
        let scale = 1.0 / (shape.head_dim as f32).sqrt();
        Self { shape, heads, scale, slopes: None, both_ways: false }
    }

    fn group(&self) -> usize {
        self.heads / self.shape.kv_heads
    }
}

/// Consecutive tokens of one sequence.
#[derive(Clone, Copy)]
pub(crate) struct Rows<'a> {
    /// Keys and values of the sequence up to these tokens.
    pub pages: &'a [Arc<Page>],
    /// Position of the first.
    pub position: usize,
    pub count: usize,
    /// The first one's row among the queries.
    pub row: usize,
}

impl Rows<'_> {
    fn tasks(&self) -> usize {
        self.count.div_ceil(TASK_ROWS)
    }

    fn end(&self) -> usize {
        self.position + self.count
    }
}

/// Attention of every row over its sequence, as tasks of a few rows and one key-value head each.
/// `query` and `out` are `[rows][heads][head_dim]`.
pub(crate) fn attend<'c>(
    heads: &Heads<'_>,
    rows: impl Iterator<Item = Rows<'c>> + Clone + Sync,
    query: &[f32],
    out: &mut [f32],
    scratch: &mut Vec<f32>,
    plan: &Plan,
) {
    let (kv_heads, width) = (heads.shape.kv_heads, heads.heads * heads.shape.head_dim);
    let tasks = rows.clone().map(|rows| rows.tasks()).sum::<usize>() * kv_heads;
    let products = rows.clone().map(|rows| rows.count * rows.end() * width * 2).sum();
    let share = scratch_floats(heads.shape, rows.clone().map(|rows| rows.end()).max().unwrap_or(0));
    scratch.resize((share * plan.pool.threads()).max(scratch.len()), 0.0);
    let (scratch, out) = (Shared::of(scratch), Shared::of(out));
    plan.run(tasks, products, &|slot, index| {
        let (mut task, kv_head) = (index / kv_heads, index % kv_heads);
        for rows in rows.clone() {
            if task >= rows.tasks() {
                task -= rows.tasks();
                continue;
            }
            let first = task * TASK_ROWS;
            let count = (rows.count - first).min(TASK_ROWS);
            let at = (rows.row + first) * width;
            let position = rows.position + first;
            // SAFETY: there is a share for each slot, and a slot has one task at a time.
            let scratch = unsafe { scratch.part(slot * share, share) };
            return Attention {
                heads,
                pages: rows.pages,
                kv_head,
                queries: &query[at..at + count * width],
                position,
                rows: count,
                end: if heads.both_ways { Some(rows.end()) } else { None },
                // SAFETY: `out` has the shape of `query`. No other task has these rows and heads.
                out: unsafe { out.at(at) },
                scratch,
            }
            .compute(plan.level);
        }
    });
}

/// Queries of consecutive tokens of one sequence, for one key-value head.
pub(crate) struct Attention<'a> {
    pub heads: &'a Heads<'a>,
    pub pages: &'a [Arc<Page>],
    pub kv_head: usize,
    /// `[rows][heads][head_dim]`, rotated; `rows` of them are ours.
    pub queries: &'a [f32],
    /// Position of the first row's token.
    pub position: usize,
    pub rows: usize,
    /// Tokens that every row sees; without it, a token sees itself and all before.
    pub end: Option<usize>,
    /// Where results go, in the shape of `queries`; good for our rows, and nobody else writes to
    /// the elements of our heads.
    pub out: *mut f32,
    /// At least [`scratch_floats`].
    pub scratch: &'a mut [f32],
}

/// Scratch that attention over `seen` tokens needs.
pub(crate) fn scratch_floats(shape: Shape, seen: usize) -> usize {
    TILE_MAX * (seen.next_multiple_of(PANEL) + shape.value_stride())
}

impl Attention<'_> {
    pub(crate) fn compute(self, level: Level) {
        dispatch(level, self);
    }

    /// Queries are numbered row by row, within a row by head.
    #[inline(always)]
    fn offset(&self, query: usize) -> usize {
        (query / self.heads.group() * self.heads.heads + self.head(query)) * self.heads.shape.head_dim
    }

    #[inline(always)]
    fn head(&self, query: usize) -> usize {
        self.kv_head * self.heads.group() + query % self.heads.group()
    }

    #[inline(always)]
    fn position(&self, query: usize) -> usize {
        self.position + query / self.heads.group()
    }

    #[inline(always)]
    fn seen(&self, query: usize) -> usize {
        self.end.unwrap_or(self.position(query) + 1)
    }

    /// T queries from `first` on.
    ///
    /// # Safety
    /// The machine has `S`.
    #[inline(always)]
    unsafe fn tile<S: Isa, const T: usize>(&mut self, first: usize) {
        let mut seen = [0; T];
        let mut queries = [0; T];
        for t in 0..T {
            seen[t] = self.seen(first + t);
            queries[t] = self.offset(first + t);
        }
        let stride = seen[T - 1].next_multiple_of(PANEL);
        // SAFETY: the caller's promise.
        unsafe { self.scores::<S, T>(queries, seen[T - 1], stride) };
        if let Some(slopes) = self.heads.slopes {
            // SAFETY: the caller's promise.
            unsafe { self.add_positions::<S, T>(first, slopes, stride) };
        }
        softmax_rows::<T>(self.scratch, stride, seen);
        let sums = T * stride;
        let width = self.heads.shape.value_stride();
        self.scratch[sums..sums + T * width].fill(0.0);
        // Together as far as all of them see, then each on its own.
        // SAFETY: the caller's promise.
        unsafe { self.weigh::<S, T>(0, stride, sums, 0, seen[0]) };
        for t in 1..T {
            // SAFETY: the caller's promise.
            unsafe { self.weigh::<S, 1>(t * stride, stride, sums + t * width, seen[0], seen[t]) };
        }
        for (t, query) in queries.into_iter().enumerate() {
            let sums = &self.scratch[sums + t * width..][..self.heads.shape.head_dim];
            // SAFETY: `out` has the shape of `queries`, and the head is ours.
            unsafe { std::ptr::copy_nonoverlapping(sums.as_ptr(), self.out.add(query), sums.len()) };
        }
    }

    /// Scores of T queries with the first `seen` tokens and the rest of their panel.
    #[inline(always)]
    unsafe fn scores<S: Isa, const T: usize>(&mut self, queries: [usize; T], seen: usize, stride: usize) {
        let dim = self.heads.shape.head_dim;
        for query in queries {
            assert!(query + dim <= self.queries.len(), "queries are whole heads");
        }
        for panel in 0..seen.div_ceil(PANEL) {
            let page = &self.pages[panel / (PAGE / PANEL)];
            let keys = page.keys(self.heads.shape, self.kv_head, panel % (PAGE / PANEL));
            // SAFETY: the caller has `S`; a panel of keys has 16 floats for each of `dim`, queries
            // were checked above, and slices check where scores go.
            unsafe {
                let mut sums = [S::splat(0.0); T];
                for j in 0..dim {
                    let key = S::load(keys.as_ptr().add(j * PANEL));
                    for t in 0..T {
                        let query = S::splat(*self.queries.get_unchecked(queries[t] + j));
                        sums[t] = S::add(sums[t], S::mul(query, key));
                    }
                }
                for t in 0..T {
                    let scores = &mut self.scratch[t * stride + panel * PANEL..][..PANEL];
                    S::store(scores.as_mut_ptr(), S::mul(sums[t], S::splat(self.heads.scale)));
                }
            }
        }
    }

    /// Adds slope × (position of the token − position of the query) to T rows of scores.
    #[inline(always)]
    unsafe fn add_positions<S: Isa, const T: usize>(&mut self, first: usize, slopes: &[f32], stride: usize) {
        #[allow(clippy::cast_precision_loss)] // positions are below 2^20
        let float = |position: usize| position as f32;
        let lanes: [f32; PANEL] = std::array::from_fn(float);
        for t in 0..T {
            let (slope, position) = (slopes[self.head(first + t)], float(self.position(first + t)));
            for (panel, scores) in
                self.scratch[t * stride..][..stride].as_chunks_mut::<PANEL>().0.iter_mut().enumerate()
            {
                // SAFETY: the caller has `S`; a panel has 16 scores.
                unsafe {
                    // Differences of whole numbers are exact.
                    let distance = S::add(S::load(lanes.as_ptr()), S::splat(float(panel * PANEL) - position));
                    let score = S::add(S::load(scores.as_ptr()), S::mul(S::splat(slope), distance));
                    S::store(scores.as_mut_ptr(), score);
                }
            }
        }
    }

    /// Continues T sums of values, from `sums` on in the scratch, over tokens from `from` to `to`;
    /// weights begin at `weights` and are `stride` apart.
    #[inline(always)]
    unsafe fn weigh<S: Isa, const T: usize>(
        &mut self,
        weights: usize,
        stride: usize,
        sums: usize,
        from: usize,
        to: usize,
    ) {
        let width = self.heads.shape.value_stride();
        assert!(weights + (T - 1) * stride + to <= sums, "weights lie before sums");
        assert!(sums + T * width <= self.scratch.len(), "scratch is large enough");
        let scratch = self.scratch.as_mut_ptr();
        let mut token = from;
        while token < to {
            let page = &self.pages[token / PAGE];
            let end = to.min((token / PAGE + 1) * PAGE);
            let values = page.values(self.heads.shape, self.kv_head);
            for column in (0..width).step_by(PANEL) {
                // SAFETY: the caller has `S`; tokens are within the page, whose values are `width`
                // wide; weights and sums are within the scratch, as checked above.
                unsafe {
                    let mut out = [S::splat(0.0); T];
                    for t in 0..T {
                        out[t] = S::load(scratch.add(sums + t * width + column));
                    }
                    for token in token..end {
                        let value = S::load(values.as_ptr().add(token % PAGE * width + column));
                        for t in 0..T {
                            let weight = S::splat(*scratch.add(weights + t * stride + token));
                            out[t] = S::add(out[t], S::mul(weight, value));
                        }
                    }
                    for t in 0..T {
                        S::store(scratch.add(sums + t * width + column), out[t]);
                    }
                }
            }
            token = end;
        }
    }
}

impl Work for Attention<'_> {
    #[inline(always)]
    unsafe fn run<S: Isa>(mut self) {
        let (mut query, queries) = (0, self.rows * self.heads.group());
        macro_rules! tiles {
            ($count:literal) => {
                if S::TOKENS >= $count {
                    while query + $count <= queries {
                        // SAFETY: the caller has `S`.
                        unsafe { self.tile::<S, $count>(query) };
                        query += $count;
                    }
                }
            };
        }
        tiles!(8);
        tiles!(4);
        tiles!(2);
        tiles!(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{cache::KvCache, math};
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]
        #[test]
        fn every_level_gives_the_bits_of_the_plain_rule(
            kv_heads in 1usize..3, group in 1usize..5, half in 1usize..20,
            position in 0usize..140, rows in 1usize..20, seed: u32, sloped: bool, both_ways: bool,
        ) {
            let (head_dim, heads) = (2 * half, kv_heads * group);
            let mut state = seed | 1;
            let mut random = |n: usize| -> Vec<f32> {
                let next = |_| {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    (state >> 8) as f32 / 16_777_216.0 - 0.5
                };
                (0..n).map(next).collect()
            };
            let seen = position + rows;
            let width = kv_heads * head_dim;
            let (keys, values) = (random(seen * width), random(seen * width));
            let queries = random(rows * heads * head_dim);
            let shape = Shape { kv_heads, head_dim };
            let mut cache = KvCache::new(1, shape);
            for token in 0..seen {
                cache.put(0, token, &keys[token * width..][..width], &values[token * width..][..width]);
            }
            let slopes: Vec<f32> = random(heads).iter().map(|slope| slope + 0.6).collect();
            let heads_all = Heads {
                scale: 0.3, slopes: sloped.then_some(&slopes), both_ways, ..Heads::new(shape, heads)
            };
            let mut expected = vec![0.0f32; queries.len()];
            for (index, (query, out)) in queries.chunks(head_dim).zip(expected.chunks_mut(head_dim)).enumerate() {
                let (row, offset) = (index / heads, index % heads / group * head_dim);
                let head = |rows: &[f32], token: usize| rows[token * width + offset..][..head_dim].to_vec();
                let last = if both_ways { seen } else { position + row + 1 };
                let score = |token: usize| {
                    let score = math::dot(query, &head(&keys, token)) * 0.3;
                    let distance = token as f32 - (position + row) as f32;
                    if sloped { score + slopes[index % heads] * distance } else { score }
                };
                let mut scores: Vec<_> = (0..last).map(score).collect();
                math::softmax(&mut scores);
                for (token, score) in scores.iter().enumerate() {
                    for (out, value) in out.iter_mut().zip(head(&values, token)) {
                        *out += score * value;
                    }
                }
            }
            for level in Level::available() {
                let mut out = vec![0.0f32; queries.len()];
                let mut scratch = vec![f32::NAN; 7];
                let all = [Rows { pages: cache.pages(0), position, count: rows, row: 0 }];
                let plan = Plan::at(level, 2).splitting_all();
                attend(&heads_all, all.into_iter(), &queries, &mut out, &mut scratch, &plan);
                prop_assert_eq!(
                    out.iter().map(|x| x.to_bits()).collect::<Vec<_>>(),
                    expected.iter().map(|x| x.to_bits()).collect::<Vec<_>>()
                );
            }
        }
    }
}
