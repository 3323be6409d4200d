//! The forward pass: new tokens of one or several sequences through all layers.
//!
//! Tokens of several sequences share the matrix products and nothing else: every sum belongs to one
//! token, so neither the company of other sequences nor the cut of a prompt shows in the result.

use crate::{
    activation::Activations,
    attention::{Attention, scratch_floats},
    cache::KvCache,
    config::Config,
    llama::{Layer, Linear, Llama},
    matmul::multiply_all,
    plan::{Plan, Shared},
    vector::{add, add_bias, rms_norm_rows, silu_multiply},
};
use std::ops::Range;

/// Tokens that one pass through the layers carries: bounds the scratch memory of long prompts.
const PASS_TOKENS: usize = 64;
/// Tokens whose attention over one key-value head is one task.
const ATTENTION_ROWS: usize = 8;

/// New tokens of one sequence, for [`Llama::forward_batch`].
pub struct Sequence<'a> {
    /// What the sequence has seen; grows by `tokens`.
    pub cache: &'a mut KvCache,
    /// At least one.
    pub tokens: &'a [u32],
    /// Logits are wanted after this one of `tokens` and all that follow.
    pub logits_from: usize,
}

impl<'a> Sequence<'a> {
    /// Logits after the last token only.
    pub fn last(cache: &'a mut KvCache, tokens: &'a [u32]) -> Self {
        Self { cache, tokens, logits_from: tokens.len().saturating_sub(1) }
    }

    /// Logits after every token.
    pub fn all(cache: &'a mut KvCache, tokens: &'a [u32]) -> Self {
        Self { cache, tokens, logits_from: 0 }
    }
}

/// Memory that passes use, kept from one to the next: a loop over tokens with one scratch does not
/// allocate, but for the cache's pages.
#[derive(Debug, Default)]
pub struct Scratch {
    spans: Vec<Span>,
    x: Vec<f32>,
    normed: Activations,
    query: Vec<f32>,
    key: Vec<f32>,
    value: Vec<f32>,
    attended: Activations,
    projected: Vec<f32>,
    hidden: Activations,
    up: Vec<f32>,
    attention: Vec<f32>,
    last: Activations,
    logits: Vec<f32>,
}

/// Tokens of one sequence within a pass.
#[derive(Clone, Debug)]
struct Span {
    sequence: usize,
    tokens: Range<usize>,
    /// Its first row within the pass.
    row: usize,
}

impl Llama {
    /// Feeds `tokens` (at least one) and returns the logits after the last, `vocab_size` of them.
    /// Feeding them in pieces gives the same bits.
    ///
    /// # Panics
    /// If there is no token, one is not in the vocabulary, or the context is exceeded: callers check.
    pub fn forward<'s>(&self, cache: &mut KvCache, tokens: &[u32], plan: &Plan, scratch: &'s mut Scratch) -> &'s [f32] {
        self.forward_batch(&mut [Sequence::last(cache, tokens)], plan, scratch)
    }

    /// Feeds several sequences at once. Returns the logits that they asked for, `vocab_size` each,
    /// sequence by sequence, token by token; the bits of each sequence are those that it has alone.
    ///
    /// # Panics
    /// If a sequence has no token or one that is not in the vocabulary, exceeds the context, or has
    /// the cache of another model: callers check.
    pub fn forward_batch<'s>(
        &self,
        sequences: &mut [Sequence<'_>],
        plan: &Plan,
        scratch: &'s mut Scratch,
    ) -> &'s [f32] {
        for Sequence { cache, tokens, .. } in sequences.iter() {
            assert!(!tokens.is_empty(), "at least one token");
            assert!(tokens.iter().all(|token| (*token as usize) < self.config.vocab_size), "within the vocabulary");
            assert!(cache.tokens() + tokens.len() <= self.config.context_tokens, "within the context");
            assert!(cache.shape() == self.cache_shape() && cache.layer_count() == self.layers.len(), "this model's");
        }
        scratch.logits.clear();
        scratch.spans.clear();
        let mut rows = 0;
        for index in 0..sequences.len() {
            let count = sequences[index].tokens.len();
            let mut from = 0;
            while from < count {
                let to = count.min(from + PASS_TOKENS - rows);
                scratch.spans.push(Span { sequence: index, tokens: from..to, row: rows });
                rows += to - from;
                from = to;
                if rows == PASS_TOKENS {
                    self.pass(sequences, plan, scratch);
                    scratch.spans.clear();
                    rows = 0;
                }
            }
        }
        if rows > 0 {
            self.pass(sequences, plan, scratch);
        }
        &scratch.logits
    }

    /// Takes the spans of the scratch through all layers and appends the logits they ask for.
    fn pass(&self, sequences: &mut [Sequence<'_>], plan: &Plan, scratch: &mut Scratch) {
        let Config { hidden_size: hidden, rms_norm_eps, .. } = self.config;
        scratch.x.clear();
        for span in &scratch.spans {
            for token in &sequences[span.sequence].tokens[span.tokens.clone()] {
                let at = scratch.x.len();
                scratch.x.resize(at + hidden, 0.0);
                self.embedding.row(*token as usize, &mut scratch.x[at..]);
            }
        }
        for (index, layer) in self.layers.iter().enumerate() {
            self.attention_block(index, layer, sequences, plan, scratch);
            self.mlp_block(layer, plan, scratch);
        }
        let wanted = |span: &Span| span.tokens.start.max(sequences[span.sequence].logits_from)..span.tokens.end;
        let count = scratch.spans.iter().map(|span| wanted(span).len()).sum();
        let mut rows = scratch.last.reset(count, hidden).chunks_exact_mut(hidden);
        for span in &scratch.spans {
            for (token, out) in wanted(span).zip(&mut rows) {
                let row = span.row + token - span.tokens.start;
                out.copy_from_slice(&scratch.x[row * hidden..][..hidden]);
            }
        }
        for span in &scratch.spans {
            sequences[span.sequence].cache.advance(span.tokens.len());
        }
        if count > 0 {
            rms_norm_rows(scratch.last.values_mut(), &self.norm, rms_norm_eps, plan);
            let at = scratch.logits.len();
            scratch.logits.resize(at + count * self.config.vocab_size, 0.0);
            let head = self.head.as_ref().unwrap_or(&self.embedding);
            head.multiply(&mut scratch.last, &mut scratch.logits[at..], plan);
        }
    }

    /// x = x + output(attention(norm(x))).
    fn attention_block(
        &self,
        index: usize,
        layer: &Layer,
        sequences: &mut [Sequence<'_>],
        plan: &Plan,
        scratch: &mut Scratch,
    ) {
        let Config { hidden_size: hidden, heads, kv_heads, head_dim, rms_norm_eps, .. } = self.config;
        let Scratch { spans, x, normed, query, key, value, attended, projected, attention, .. } = scratch;
        let m = x.len() / hidden;
        let (query_width, kv_width) = (heads * head_dim, kv_heads * head_dim);
        normed.reset(m, hidden).copy_from_slice(x);
        rms_norm_rows(normed.values_mut(), &layer.attention_norm, rms_norm_eps, plan);
        query.resize(m * query_width, 0.0);
        key.resize(m * kv_width, 0.0);
        value.resize(m * kv_width, 0.0);
        let products = [(&layer.query.matrix, &mut query[..]), (&layer.key.matrix, key), (&layer.value.matrix, value)];
        multiply_all(products, normed, plan);
        for (linear, rows) in [(&layer.query, &mut *query), (&layer.key, key), (&layer.value, value)] {
            linear.add_bias(rows);
        }
        for (norm, rows) in [(&layer.query_norm, &mut *query), (&layer.key_norm, key)] {
            if let Some(norm) = norm {
                rms_norm_rows(rows, norm, rms_norm_eps, plan);
            }
        }
        for Span { sequence, tokens, row } in spans.iter() {
            let cache = &mut *sequences[*sequence].cache;
            for offset in 0..tokens.len() {
                let (row, position) = (row + offset, cache.tokens() + offset);
                self.rope.rotate(&mut query[row * query_width..][..query_width], position);
                let key = &mut key[row * kv_width..][..kv_width];
                self.rope.rotate(key, position);
                cache.put(index, position, key, &value[row * kv_width..][..kv_width]);
            }
        }
        self.attend(index, spans, sequences, query, attended.reset(m, query_width), attention, plan);
        projected.resize(m * hidden, 0.0);
        layer.output.matrix.multiply(attended, projected, plan);
        layer.output.add_bias(projected);
        add(x, projected);
    }

    /// Attention of every row over its sequence, as tasks of a few rows and one key-value head each.
    #[allow(clippy::too_many_arguments)]
    fn attend(
        &self,
        layer: usize,
        spans: &[Span],
        sequences: &[Sequence<'_>],
        query: &[f32],
        out: &mut [f32],
        scratch: &mut Vec<f32>,
        plan: &Plan,
    ) {
        let Config { heads, kv_heads, head_dim, .. } = self.config;
        let width = heads * head_dim;
        #[allow(clippy::cast_precision_loss)] // at most 1024
        let scale = 1.0 / (head_dim as f32).sqrt();
        let blocks = |span: &Span| span.tokens.len().div_ceil(ATTENTION_ROWS);
        let seen = |span: &Span| sequences[span.sequence].cache.tokens() + span.tokens.len();
        let tasks = spans.iter().map(blocks).sum::<usize>() * kv_heads;
        let products = spans.iter().map(|span| span.tokens.len() * seen(span) * width * 2).sum();
        let share = scratch_floats(self.cache_shape(), spans.iter().map(seen).max().unwrap_or(0));
        scratch.resize((share * plan.pool.threads()).max(scratch.len()), 0.0);
        let (scratch, out) = (Shared::of(scratch), Shared::of(out));
        plan.run(tasks, products, &|slot, index| {
            let (mut block, kv_head) = (index / kv_heads, index % kv_heads);
            for span in spans {
                if block >= blocks(span) {
                    block -= blocks(span);
                    continue;
                }
                let cache = &*sequences[span.sequence].cache;
                let first = block * ATTENTION_ROWS;
                let rows = (span.tokens.len() - first).min(ATTENTION_ROWS);
                let at = (span.row + first) * width;
                // SAFETY: there is a share for each slot, and a slot has one task at a time.
                let scratch = unsafe { scratch.part(slot * share, share) };
                return Attention {
                    shape: cache.shape(),
                    pages: cache.pages(layer),
                    kv_head,
                    group: heads / kv_heads,
                    queries: &query[at..at + rows * width],
                    heads,
                    position: cache.tokens() + first,
                    rows,
                    scale,
                    // SAFETY: `out` has the shape of `query`. No other task has these rows and heads.
                    out: unsafe { out.at(at) },
                    scratch,
                }
                .compute(plan.level);
            }
        });
    }

    /// x = x + down(SiLU(gate(norm(x)))·up(norm(x))).
    fn mlp_block(&self, layer: &Layer, plan: &Plan, scratch: &mut Scratch) {
        let Config { hidden_size, intermediate_size: ffn, rms_norm_eps, .. } = self.config;
        let Scratch { x, normed, hidden, up, projected, .. } = scratch;
        let m = x.len() / hidden_size;
        normed.reset(m, hidden_size).copy_from_slice(x);
        rms_norm_rows(normed.values_mut(), &layer.mlp_norm, rms_norm_eps, plan);
        let gate = hidden.reset(m, ffn);
        up.resize(m * ffn, 0.0);
        multiply_all([(&layer.gate.matrix, &mut *gate), (&layer.up.matrix, up)], normed, plan);
        layer.gate.add_bias(gate);
        layer.up.add_bias(up);
        silu_multiply(gate, up, plan);
        projected.resize(m * hidden_size, 0.0);
        layer.down.matrix.multiply(hidden, projected, plan);
        layer.down.add_bias(projected);
        add(x, projected);
    }

    fn cache_shape(&self) -> crate::cache::Shape {
        crate::cache::Shape { kv_heads: self.config.kv_heads, head_dim: self.config.head_dim }
    }
}

impl Linear {
    fn add_bias(&self, rows: &mut [f32]) {
        if let Some(bias) = &self.bias {
            add_bias(rows, bias);
        }
    }
}
