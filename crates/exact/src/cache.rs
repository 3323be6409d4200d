//! Keys and values of the tokens that a sequence has seen.
//!
//! They lie in pages of 64 tokens, a list of pages for each layer, so a sequence grows without
//! copying and copies of it share what they have in common: a page is copied when one of its owners
//! writes to it. Keys are stored in panels of sixteen tokens, transposed, so that scores are
//! computed sixteen tokens at a time; values token by token, so that their weighted sum runs across
//! the elements of a head.

use std::sync::Arc;

/// Tokens of a page.
pub(crate) const PAGE: usize = 64;
/// Tokens of a panel of keys.
pub(crate) const PANEL: usize = crate::isa::LANES;

/// The sizes that pages depend on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    pub kv_heads: usize,
    pub head_dim: usize,
}

impl Shape {
    /// Elements of a head's value in memory: whole vectors.
    pub fn value_stride(self) -> usize {
        self.head_dim.next_multiple_of(PANEL)
    }

    /// Memory that a layer's pages for so many tokens take.
    pub fn cache_bytes(self, tokens: usize) -> usize {
        tokens.div_ceil(PAGE) * PAGE * self.kv_heads * (self.head_dim + self.value_stride()) * size_of::<f32>()
    }
}

/// 64 tokens of one layer.
#[derive(Clone, Debug)]
pub(crate) struct Page {
    /// `[kv_heads][64/16][head_dim][16 tokens]`, rotated.
    keys: Vec<f32>,
    /// `[kv_heads][64][value_stride]`, padded with zeros.
    values: Vec<f32>,
}

impl Page {
    fn new(shape: Shape) -> Self {
        Self {
            keys: vec![0.0; shape.kv_heads * PAGE * shape.head_dim],
            values: vec![0.0; shape.kv_heads * PAGE * shape.value_stride()],
        }
    }

    /// A head's keys of panel `panel` of the page: `[head_dim][16]`.
    #[inline(always)]
    pub fn keys(&self, shape: Shape, head: usize, panel: usize) -> &[f32] {
        let length = shape.head_dim * PANEL;
        &self.keys[(head * (PAGE / PANEL) + panel) * length..][..length]
    }

    /// A head's values: `[64][value_stride]`.
    #[inline(always)]
    pub fn values(&self, shape: Shape, head: usize) -> &[f32] {
        let length = PAGE * shape.value_stride();
        &self.values[head * length..][..length]
    }
}

/// Keys and values of the tokens seen so far. Copies share memory until they part.
#[derive(Clone, Debug)]
pub struct KvCache {
    layers: Vec<Vec<Arc<Page>>>,
    shape: Shape,
    tokens: usize,
}

impl KvCache {
    pub(crate) fn new(layers: usize, shape: Shape) -> Self {
        Self { layers: vec![Vec::new(); layers], shape, tokens: 0 }
    }

    /// Tokens seen so far.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// Forgets all but the first `tokens` tokens; does nothing if there are no more.
    pub fn truncate(&mut self, tokens: usize) {
        self.tokens = self.tokens.min(tokens);
        for pages in &mut self.layers {
            pages.truncate(self.tokens.div_ceil(PAGE));
        }
    }

    /// Memory of the pages, bytes, shared ones included.
    pub fn bytes(&self) -> usize {
        let floats = |page: &Arc<Page>| page.keys.len() + page.values.len();
        self.layers.iter().flatten().map(floats).sum::<usize>() * size_of::<f32>()
    }

    /// What a copy shares with others: for each page a number that it has as long as it lives, and the
    /// bytes that it takes in all layers. Copies with one page in common have it in common in all layers.
    pub fn pages_in_memory(&self) -> impl Iterator<Item = (usize, usize)> {
        let first = self.layers.first().map_or(&[][..], Vec::as_slice);
        let bytes = self.layers.len() * self.shape.cache_bytes(PAGE);
        first.iter().map(move |page| (Arc::as_ptr(page).addr(), bytes))
    }

    pub(crate) fn shape(&self) -> Shape {
        self.shape
    }

    pub(crate) fn layer_count(&self) -> usize {
        self.layers.len()
    }

    pub(crate) fn pages(&self, layer: usize) -> &[Arc<Page>] {
        &self.layers[layer]
    }

    /// Stores key and value of the token at `position`, `kv_heads × head_dim` each; positions come
    /// one after another.
    pub(crate) fn put(&mut self, layer: usize, position: usize, key: &[f32], value: &[f32]) {
        let shape = self.shape;
        let pages = &mut self.layers[layer];
        if position / PAGE == pages.len() {
            pages.push(Arc::new(Page::new(shape)));
        }
        let page = Arc::make_mut(&mut pages[position / PAGE]);
        let (at, stride) = (position % PAGE, shape.value_stride());
        let heads = key.chunks_exact(shape.head_dim).zip(value.chunks_exact(shape.head_dim));
        for (head, (key, value)) in heads.enumerate() {
            let panel = (head * (PAGE / PANEL) + at / PANEL) * shape.head_dim * PANEL;
            for (j, key) in key.iter().enumerate() {
                page.keys[panel + j * PANEL + at % PANEL] = *key;
            }
            page.values[(head * PAGE + at) * stride..][..value.len()].copy_from_slice(value);
        }
    }

    /// Counts tokens whose keys and values all layers have.
    pub(crate) fn advance(&mut self, tokens: usize) {
        self.tokens += tokens;
    }
}
