//! The forward pass: new tokens of one or several sequences through all layers.
//!
//! Tokens of several sequences share the matrix products and nothing else: every sum belongs to one
//! token, so neither the company of other sequences nor the cut of a prompt shows in the result.

use super::{Decoder, Layer, Positions, Residual, Sizes};
use crate::{
    activation::Activations,
    attention::{Heads, Rows},
    cache::KvCache,
    layers::{Buffers, Norm},
    plan::Plan,
    vector::add,
};
use std::ops::Range;

/// Tokens that one pass through the layers carries: bounds the scratch memory of long prompts.
const PASS_TOKENS: usize = 64;

/// New tokens of one sequence, for [`Decoder::forward_batch`].
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
    buffers: Buffers,
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

impl Decoder {
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
        let Sizes { vocab_size, context_tokens, shape, .. } = self.sizes;
        for Sequence { cache, tokens, .. } in sequences.iter() {
            assert!(!tokens.is_empty(), "at least one token");
            assert!(tokens.iter().all(|token| (*token as usize) < vocab_size), "within the vocabulary");
            assert!(cache.tokens() + tokens.len() <= context_tokens, "within the context");
            assert!(cache.shape() == shape && cache.layer_count() == self.layers.len(), "this model's");
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
        let Sizes { vocab_size, hidden_size: hidden, .. } = self.sizes;
        let Scratch { spans, x, buffers, last, logits } = scratch;
        x.clear();
        for span in &*spans {
            for token in &sequences[span.sequence].tokens[span.tokens.clone()] {
                let at = x.len();
                x.resize(at + hidden, 0.0);
                self.embedding.row(*token as usize, &mut x[at..]);
            }
        }
        if let Some(norm) = &self.embedding_norm {
            norm.apply(x, plan);
        }
        let normed = |x: &[f32], norm: &Norm, buffers: &mut Buffers| {
            buffers.normed.reset(x.len() / hidden, hidden).copy_from_slice(x);
            norm.apply(buffers.normed.values_mut(), plan);
        };
        for (index, layer) in self.layers.iter().enumerate() {
            normed(x, &layer.attention_norm, buffers);
            self.attend(index, layer, spans, sequences, buffers, plan);
            match self.residual {
                Residual::Serial => {
                    add(x, &buffers.projected);
                    normed(x, &layer.mlp_norm, buffers);
                }
                Residual::Parallel => {
                    normed(x, &layer.mlp_norm, buffers);
                    add(x, &buffers.projected);
                }
            }
            layer.mlp.apply(buffers, plan);
            add(x, &buffers.projected);
        }
        let wanted = |span: &Span| span.tokens.start.max(sequences[span.sequence].logits_from)..span.tokens.end;
        let count = spans.iter().map(|span| wanted(span).len()).sum();
        let mut rows = last.reset(count, hidden).chunks_exact_mut(hidden);
        for span in &*spans {
            for (token, out) in wanted(span).zip(&mut rows) {
                let row = span.row + token - span.tokens.start;
                out.copy_from_slice(&x[row * hidden..][..hidden]);
            }
        }
        for span in &*spans {
            sequences[span.sequence].cache.advance(span.tokens.len());
        }
        if count > 0 {
            self.norm.apply(last.values_mut(), plan);
            let at = logits.len();
            logits.resize(at + count * vocab_size, 0.0);
            self.head.as_ref().unwrap_or(&self.embedding).multiply(last, &mut logits[at..], plan);
        }
    }

    /// Attention of the normed tokens, whose keys and values join their sequences' caches.
    fn attend(
        &self,
        index: usize,
        layer: &Layer,
        spans: &[Span],
        sequences: &mut [Sequence<'_>],
        buffers: &mut Buffers,
        plan: &Plan,
    ) {
        let Sizes { heads, shape, .. } = self.sizes;
        let (query_width, kv_width) = (heads * shape.head_dim, shape.kv_heads * shape.head_dim);
        layer.attention.project(buffers, plan);
        let Buffers { query, key, value, .. } = buffers;
        for Span { sequence, tokens, row } in spans {
            let cache = &mut *sequences[*sequence].cache;
            for offset in 0..tokens.len() {
                let (row, position) = (row + offset, cache.tokens() + offset);
                let key = &mut key[row * kv_width..][..kv_width];
                if let Positions::Rotary(rope) = &self.positions {
                    rope.rotate(&mut query[row * query_width..][..query_width], position);
                    rope.rotate(key, position);
                }
                cache.put(index, position, key, &value[row * kv_width..][..kv_width]);
            }
        }
        let slopes = match &self.positions {
            Positions::Rotary(_) => None,
            Positions::Alibi(slopes) => Some(&slopes[..]),
        };
        let sequences = &*sequences;
        let rows = spans.iter().map(|Span { sequence, tokens, row }| {
            let cache = &*sequences[*sequence].cache;
            Rows { pages: cache.pages(index), position: cache.tokens(), count: tokens.len(), row: *row }
        });
        layer.attention.attend(&Heads { slopes, ..Heads::new(shape, heads) }, rows, buffers, plan);
    }
}
