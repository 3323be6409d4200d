//! Encoders of the BERT family: a text's tokens see each other both ways, and their vectors become
//! one, the text's embedding.

use crate::{
    attention::{Heads, Rows},
    cache::{KvCache, Shape},
    config::{BertConfig, Pooling},
    layers::{Attention, Buffers, Linear, Mlp, Norm, matrix_bytes},
    matmul::Matrix,
    plan::Plan,
    tensors::{LoadError, Loader, TensorSource},
    vector::add,
};

/// Tokens that one pass carries, unless a text alone has more.
const PASS_TOKENS: usize = 128;

/// The weights of one layer, whose norms come after what they norm.
struct Layer {
    attention: Attention,
    attention_norm: Norm,
    mlp: Mlp,
    mlp_norm: Norm,
}

/// A loaded encoder: read-only, shared by any number of threads.
pub struct Encoder {
    config: BertConfig,
    shape: Shape,
    words: Matrix,
    positions: Matrix,
    token_types: Matrix,
    embedding_norm: Norm,
    layers: Vec<Layer>,
}

/// Memory kept from one call to the next.
#[derive(Debug, Default)]
pub struct EncoderScratch {
    x: Vec<f32>,
    buffers: Buffers,
}

/// Whoever wants to see how an embedding came about.
pub trait WatchLayers {
    /// Vectors of all tokens of text number `text` after `layer` layers, `hidden_size` each; layer by
    /// layer, from 0, which is the embedding of the tokens.
    fn layer(&mut self, text: usize, layer: usize, vectors: &[f32]);
}

/// Nobody does.
impl WatchLayers for () {
    fn layer(&mut self, _text: usize, _layer: usize, _vectors: &[f32]) {}
}

impl Encoder {
    /// Loads the weights of `config`, by their Hugging Face names, with or without `bert.` before
    /// them. Weights keep the format that the source has them in.
    ///
    /// # Errors
    /// [`LoadError::Weights`] if a tensor is missing, of another shape, or not finite.
    pub fn load(config: BertConfig, source: &dyn TensorSource) -> Result<Self, LoadError> {
        let BertConfig { hidden_size: hidden, intermediate_size: ffn, layer_norm_eps: epsilon, activation, .. } =
            config;
        let weights = &Loader(source);
        let prefix = match source.tensor("bert.embeddings.word_embeddings.weight")? {
            Some(_) => "bert.",
            None => "",
        };
        let layers = (0..config.layers).map(|index| {
            let name = |part: &str| format!("{prefix}encoder.layer.{index}.{part}");
            let linear = |part: &str, n, k| Linear::load(weights, &name(part), n, k);
            Ok(Layer {
                attention: Attention {
                    query: linear("attention.self.query", hidden, hidden)?,
                    key: linear("attention.self.key", hidden, hidden)?,
                    value: linear("attention.self.value", hidden, hidden)?,
                    output: linear("attention.output.dense", hidden, hidden)?,
                    query_norm: None,
                    key_norm: None,
                },
                attention_norm: Norm::layer(weights, &name("attention.output.LayerNorm"), hidden, epsilon)?,
                mlp: Mlp::Plain {
                    up: linear("intermediate.dense", ffn, hidden)?,
                    activation,
                    down: linear("output.dense", hidden, ffn)?,
                },
                mlp_norm: Norm::layer(weights, &name("output.LayerNorm"), hidden, epsilon)?,
            })
        });
        let embedding = |part: &str| format!("{prefix}embeddings.{part}");
        Ok(Self {
            layers: layers.collect::<Result<_, LoadError>>()?,
            words: weights.matrix(&embedding("word_embeddings.weight"), config.vocab_size, hidden)?,
            positions: weights.matrix(&embedding("position_embeddings.weight"), config.positions, hidden)?,
            token_types: weights.matrix(&embedding("token_type_embeddings.weight"), config.token_types, hidden)?,
            embedding_norm: Norm::layer(weights, &embedding("LayerNorm"), hidden, epsilon)?,
            shape: Shape { kv_heads: config.heads, head_dim: hidden / config.heads },
            config,
        })
    }

    /// The model's numbers.
    pub fn config(&self) -> &BertConfig {
        &self.config
    }

    /// Memory that the matrices take.
    pub fn bytes(&self) -> usize {
        let outside = [&self.words, &self.positions, &self.token_types];
        outside.iter().map(|matrix| matrix.bytes()).sum::<usize>()
            + self.layers.iter().map(|layer| matrix_bytes(&layer.attention, &layer.mlp)).sum::<usize>()
    }

    /// The embeddings of several texts, `hidden_size` numbers each. Each has the bits that it has
    /// alone.
    ///
    /// # Panics
    /// If a text has no token, more than the context, or one that is not in the vocabulary: callers
    /// check.
    pub fn encode(
        &self,
        texts: &[&[u32]],
        plan: &Plan,
        scratch: &mut EncoderScratch,
        watch: &mut dyn WatchLayers,
    ) -> Vec<Vec<f32>> {
        for text in texts {
            assert!(!text.is_empty() && text.len() <= self.config.context_tokens, "within the context");
            assert!(text.iter().all(|token| (*token as usize) < self.config.vocab_size), "within the vocabulary");
        }
        let mut embeddings = Vec::with_capacity(texts.len());
        let mut first = 0;
        while first < texts.len() {
            let mut tokens = 0;
            let fit = texts[first..].iter().take_while(|text| {
                tokens += text.len();
                tokens <= PASS_TOKENS
            });
            let end = first + fit.count().max(1);
            self.pass(&texts[first..end], first, plan, scratch, watch);
            let mut rows = &scratch.x[..];
            for text in &texts[first..end] {
                let (own, others) = rows.split_at(text.len() * self.config.hidden_size);
                embeddings.push(self.pool(own));
                rows = others;
            }
            first = end;
        }
        embeddings
    }

    /// Takes texts through all layers; their tokens' vectors are in the scratch then.
    fn pass(
        &self,
        texts: &[&[u32]],
        number: usize,
        plan: &Plan,
        scratch: &mut EncoderScratch,
        watch: &mut dyn WatchLayers,
    ) {
        let BertConfig { hidden_size: hidden, heads, .. } = self.config;
        let EncoderScratch { x, buffers } = scratch;
        self.embed(texts, x, plan);
        let mut caches: Vec<_> = texts.iter().map(|_| KvCache::new(1, self.shape)).collect();
        let heads = Heads { both_ways: true, ..Heads::new(self.shape, heads) };
        let show = |layer: usize, x: &[f32], watch: &mut dyn WatchLayers| {
            let mut rows = x;
            for (index, text) in texts.iter().enumerate() {
                let (own, others) = rows.split_at(text.len() * hidden);
                watch.layer(number + index, layer, own);
                rows = others;
            }
        };
        show(0, x, watch);
        for (index, layer) in self.layers.iter().enumerate() {
            buffers.normed.reset(x.len() / hidden, hidden).copy_from_slice(x);
            layer.attention.project(buffers, plan);
            let mut rows = buffers.key.chunks_exact(hidden).zip(buffers.value.chunks_exact(hidden));
            for (text, cache) in texts.iter().zip(&mut caches) {
                for (position, (key, value)) in (0..text.len()).zip(&mut rows) {
                    cache.put(0, position, key, value);
                }
            }
            let mut row = 0;
            let rows: Vec<_> = texts
                .iter()
                .zip(&caches)
                .map(|(text, cache)| {
                    row += text.len();
                    Rows { pages: cache.pages(0), position: 0, count: text.len(), row: row - text.len() }
                })
                .collect();
            layer.attention.attend(&heads, rows.iter().copied(), buffers, plan);
            add(x, &buffers.projected);
            layer.attention_norm.apply(x, plan);
            buffers.normed.values_mut().copy_from_slice(x);
            layer.mlp.apply(buffers, plan);
            add(x, &buffers.projected);
            layer.mlp_norm.apply(x, plan);
            show(index + 1, x, watch);
        }
    }

    /// Word, token type and position, summed and normed.
    fn embed(&self, texts: &[&[u32]], x: &mut Vec<f32>, plan: &Plan) {
        let hidden = self.config.hidden_size;
        let mut token_type = vec![0.0; hidden];
        self.token_types.row(0, &mut token_type);
        let mut row = vec![0.0; hidden];
        x.clear();
        for text in texts {
            for (position, token) in text.iter().enumerate() {
                let at = x.len();
                x.resize(at + hidden, 0.0);
                let x = &mut x[at..];
                self.words.row(*token as usize, x);
                add(x, &token_type);
                self.positions.row(position, &mut row);
                add(x, &row);
            }
        }
        self.embedding_norm.apply(x, plan);
    }

    /// One vector of a text's tokens.
    fn pool(&self, rows: &[f32]) -> Vec<f32> {
        let hidden = self.config.hidden_size;
        let mut pooled = rows[..hidden].to_vec();
        if self.config.pooling == Pooling::Mean {
            pooled.fill(0.0);
            rows.chunks_exact(hidden).for_each(|row| add(&mut pooled, row));
            #[allow(clippy::cast_precision_loss)] // contexts are below 2^20
            let count = (rows.len() / hidden) as f32;
            pooled.iter_mut().for_each(|x| *x /= count);
        }
        if self.config.normalize {
            let length = crate::math::dot(&pooled, &pooled).sqrt();
            // What has no length keeps none.
            let length = if length > LENGTH_MIN { length } else { LENGTH_MIN };
            pooled.iter_mut().for_each(|x| *x /= length);
        }
        pooled
    }
}

/// 2⁻⁴⁰: shorter vectors are divided by this.
const LENGTH_MIN: f32 = f32::from_bits(0x2b80_0000);
