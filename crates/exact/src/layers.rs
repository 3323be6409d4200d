//! The parts that transformers are made of: linear layers, norms, attention's projections, MLPs; and
//! the memory that they work in.

use crate::{
    activation::Activations,
    attention::{self, Heads, Rows},
    config::Activation,
    matmul::{Matrix, multiply_all},
    plan::Plan,
    tensors::{LoadError, Loader},
    vector::{add_bias, gelu, layer_norm_rows, rms_norm_rows, silu_multiply},
};

/// A matrix and what may be added to its products.
pub(crate) struct Linear {
    pub matrix: Matrix,
    pub bias: Option<Vec<f32>>,
}

impl Linear {
    /// `<name>.weight` of n outputs and k inputs, and `<name>.bias` if the source has it.
    pub fn load(weights: &Loader<'_>, name: &str, n: usize, k: usize) -> Result<Self, LoadError> {
        let bias = weights.optional_vector(&format!("{name}.bias"), n)?;
        Ok(Self { matrix: weights.matrix(&format!("{name}.weight"), n, k)?, bias })
    }

    /// Of the rows of `<name>.weight` (`n_all` outputs, k inputs) and its bias, those that `rows` names.
    pub fn load_rows(
        weights: &Loader<'_>,
        name: &str,
        [n_all, k]: [usize; 2],
        rows: &[usize],
    ) -> Result<Self, LoadError> {
        let bias = weights.optional_vector(&format!("{name}.bias"), n_all)?;
        let bias = bias.map(|bias| rows.iter().map(|row| bias[*row]).collect());
        Ok(Self { matrix: weights.matrix_rows(&format!("{name}.weight"), n_all, k, rows)?, bias })
    }

    fn add_bias(&self, rows: &mut [f32]) {
        if let Some(bias) = &self.bias {
            add_bias(rows, bias);
        }
    }
}

/// What keeps a token's vector of moderate length.
pub(crate) enum Norm {
    Rms { weight: Vec<f32>, epsilon: f32 },
    Layer { weight: Vec<f32>, bias: Vec<f32>, epsilon: f32 },
}

impl Norm {
    /// `<name>.weight` alone.
    pub fn rms(weights: &Loader<'_>, name: &str, n: usize, epsilon: f32) -> Result<Self, LoadError> {
        Ok(Self::Rms { weight: weights.vector(&format!("{name}.weight"), n)?, epsilon })
    }

    /// The same if the source has it.
    pub fn optional_rms(weights: &Loader<'_>, name: &str, n: usize, epsilon: f32) -> Result<Option<Self>, LoadError> {
        let weight = weights.optional_vector(&format!("{name}.weight"), n)?;
        Ok(weight.map(|weight| Self::Rms { weight, epsilon }))
    }

    /// `<name>.weight` and `<name>.bias`.
    pub fn layer(weights: &Loader<'_>, name: &str, n: usize, epsilon: f32) -> Result<Self, LoadError> {
        let vector = |part: &str| weights.vector(&format!("{name}.{part}"), n);
        Ok(Self::Layer { weight: vector("weight")?, bias: vector("bias")?, epsilon })
    }

    /// Norms each row in place.
    pub fn apply(&self, rows: &mut [f32], plan: &Plan) {
        match self {
            Self::Rms { weight, epsilon } => rms_norm_rows(rows, weight, *epsilon, plan),
            Self::Layer { weight, bias, epsilon } => layer_norm_rows(rows, weight, bias, *epsilon, plan),
        }
    }
}

/// Attention's weights.
pub(crate) struct Attention {
    pub query: Linear,
    pub key: Linear,
    pub value: Linear,
    pub output: Linear,
    /// Norms of each head's query and key, before they are rotated.
    pub query_norm: Option<Norm>,
    pub key_norm: Option<Norm>,
}

impl Attention {
    /// Queries, keys and values of the normed tokens.
    pub fn project(&self, buffers: &mut Buffers, plan: &Plan) {
        let Buffers { normed, query, key, value, .. } = buffers;
        let m = normed.m();
        query.resize(m * self.query.matrix.n(), 0.0);
        key.resize(m * self.key.matrix.n(), 0.0);
        value.resize(m * self.value.matrix.n(), 0.0);
        let products = [(&self.query.matrix, &mut query[..]), (&self.key.matrix, key), (&self.value.matrix, value)];
        multiply_all(products, normed, plan);
        for (linear, rows) in [(&self.query, &mut *query), (&self.key, key), (&self.value, value)] {
            linear.add_bias(rows);
        }
        for (norm, rows) in [(&self.query_norm, query), (&self.key_norm, key)] {
            if let Some(norm) = norm {
                norm.apply(rows, plan);
            }
        }
    }

    /// What the tokens see of each other, projected back.
    pub fn attend<'c>(
        &self,
        heads: &Heads<'_>,
        rows: impl Iterator<Item = Rows<'c>> + Clone + Sync,
        buffers: &mut Buffers,
        plan: &Plan,
    ) {
        let Buffers { normed, query, attended, projected, attention, .. } = buffers;
        let m = normed.m();
        attention::attend(heads, rows, query, attended.reset(m, self.query.matrix.n()), attention, plan);
        projected.resize(m * self.output.matrix.n(), 0.0);
        self.output.matrix.multiply(attended, projected, plan);
        self.output.add_bias(projected);
    }

    fn linears(&self) -> [&Linear; 4] {
        [&self.query, &self.key, &self.value, &self.output]
    }
}

/// The part of a layer in which each token is on its own.
pub(crate) enum Mlp {
    /// `down(SiLU(gate(x))·up(x))`
    Gated { gate: Linear, up: Linear, down: Linear },
    /// `down(activation(up(x)))`
    Plain { up: Linear, activation: Activation, down: Linear },
}

impl Mlp {
    /// From the normed tokens to `projected`.
    pub fn apply(&self, buffers: &mut Buffers, plan: &Plan) {
        let Buffers { normed, hidden, up: up_rows, projected, .. } = buffers;
        let m = normed.m();
        let down = match self {
            Self::Gated { gate, up, down } => {
                let gate_rows = hidden.reset(m, gate.matrix.n());
                up_rows.resize(m * up.matrix.n(), 0.0);
                multiply_all([(&gate.matrix, &mut *gate_rows), (&up.matrix, up_rows)], normed, plan);
                gate.add_bias(gate_rows);
                up.add_bias(up_rows);
                silu_multiply(gate_rows, up_rows, plan);
                down
            }
            Self::Plain { up, activation, down } => {
                let rows = hidden.reset(m, up.matrix.n());
                up.matrix.multiply(normed, rows, plan);
                up.add_bias(rows);
                gelu(*activation, rows, plan);
                down
            }
        };
        projected.resize(m * down.matrix.n(), 0.0);
        down.matrix.multiply(hidden, projected, plan);
        down.add_bias(projected);
    }

    fn linears(&self) -> Vec<&Linear> {
        match self {
            Self::Gated { gate, up, down } => vec![gate, up, down],
            Self::Plain { up, down, .. } => vec![up, down],
        }
    }
}

/// Memory that the matrices of a layer take.
pub(crate) fn matrix_bytes(attention: &Attention, mlp: &Mlp) -> usize {
    attention.linears().into_iter().chain(mlp.linears()).map(|linear| linear.matrix.bytes()).sum()
}

/// Memory that a pass works in, kept from one to the next. The tokens' vectors go in at `normed`; what
/// comes out is in `projected`.
#[derive(Debug, Default)]
pub(crate) struct Buffers {
    pub normed: Activations,
    pub query: Vec<f32>,
    pub key: Vec<f32>,
    pub value: Vec<f32>,
    attended: Activations,
    hidden: Activations,
    up: Vec<f32>,
    attention: Vec<f32>,
    pub projected: Vec<f32>,
}
