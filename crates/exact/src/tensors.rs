//! Where weights come from: tensors by name, as files store them.
//!
//! Hugging Face's names are the canonical ones (`model.layers.0.self_attn.q_proj.weight`); a source
//! with other names maps them.

use crate::{
    gguf::GgufError,
    matmul::{Format, Matrix, MatrixError},
};
use safetensors::{Dtype, SafeTensors};

/// Why a model was not loaded. Model files come from strangers: nothing in them may panic.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error("config.json: {0}")]
    Config(String),
    #[error("model.safetensors: {0}")]
    Weights(String),
    #[error("tokenizer.json: {0}")]
    Tokenizer(String),
    #[error(transparent)]
    Gguf(#[from] GgufError),
    #[error("chat template: {0}")]
    Template(String),
}

/// One tensor of a file.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor<'a> {
    pub format: Format,
    /// Row-major, outermost first: a matrix of n outputs and k inputs is `[n, k]`.
    pub shape: Vec<usize>,
    /// Little-endian, one row after another.
    pub data: &'a [u8],
}

/// A file, or several, of weights.
pub trait TensorSource: Sync {
    /// The tensor of that name, `None` if there is none.
    ///
    /// # Errors
    /// If it is there but cannot be read.
    fn tensor(&self, name: &str) -> Result<Option<Tensor<'_>>, LoadError>;

    /// Says that a part of a tensor's data is packed, and will not be read again.
    fn packed(&self, _data: &[u8]) {}
}

/// The safetensors files of a model.
pub struct Safetensors<'a>(Vec<SafeTensors<'a>>);

impl<'a> Safetensors<'a> {
    /// Reads the headers of a model's files, of one or of all its parts.
    ///
    /// # Errors
    /// [`LoadError::Weights`] if one is malformed.
    pub fn new(files: &[&'a [u8]]) -> Result<Self, LoadError> {
        let read = |file: &&'a [u8]| SafeTensors::deserialize(file);
        let files = files.iter().map(read).collect::<Result<_, _>>();
        Ok(Self(files.map_err(|error| LoadError::Weights(error.to_string()))?))
    }
}

impl TensorSource for Safetensors<'_> {
    fn tensor(&self, name: &str) -> Result<Option<Tensor<'_>>, LoadError> {
        let Some(view) = self.0.iter().find_map(|file| file.tensor(name).ok()) else {
            return Ok(None);
        };
        let format = match view.dtype() {
            Dtype::F32 => Format::F32,
            Dtype::F16 => Format::F16,
            Dtype::BF16 => Format::Bf16,
            other => {
                return Err(LoadError::Weights(format!(
                    "{name}: {other:?} weights are not supported: use F32, F16 or BF16"
                )));
            }
        };
        Ok(Some(Tensor { format, shape: view.shape().to_vec(), data: view.data() }))
    }
}

/// A source, asked for what a model needs.
pub(crate) struct Loader<'a>(pub &'a dyn TensorSource);

impl Loader<'_> {
    /// The matrix of n outputs and k inputs.
    pub fn matrix(&self, name: &str, n: usize, k: usize) -> Result<Matrix, LoadError> {
        let tensor = self.required(name, &[n, k])?;
        let matrix = Matrix::pack_telling(tensor.format, n, k, tensor.data, &|part| self.0.packed(part));
        matrix.map_err(|error| LoadError::Weights(format!("{name}: {error}")))
    }

    /// Of a matrix of `n_all` outputs and k inputs, the rows that `rows` names, in that order.
    pub fn matrix_rows(&self, name: &str, n_all: usize, k: usize, rows: &[usize]) -> Result<Matrix, LoadError> {
        let tensor = self.required(name, &[n_all, k])?;
        let bytes = tensor.format.row_bytes(k);
        let fail = |error| LoadError::Weights(format!("{name}: {error}"));
        if tensor.data.len() != n_all * bytes {
            return Err(fail(MatrixError::Length { bytes: tensor.data.len(), n: n_all, k, format: tensor.format }));
        }
        let rows_data: Vec<_> = rows.iter().map(|row| &tensor.data[row * bytes..][..bytes]).collect();
        let data = rows_data.concat();
        Matrix::pack(tensor.format, rows.len(), k, &data).map_err(fail)
    }

    /// Says that a tensor will not be read again.
    pub fn done(&self, name: &str) -> Result<(), LoadError> {
        if let Some(tensor) = self.0.tensor(name)? {
            self.0.packed(tensor.data);
        }
        Ok(())
    }

    /// A vector as f32.
    pub fn vector(&self, name: &str, n: usize) -> Result<Vec<f32>, LoadError> {
        let tensor = self.required(name, &[n])?;
        let row = Matrix::pack(tensor.format, 1, n, tensor.data);
        let row = row.map_err(|error| LoadError::Weights(format!("{name}: {error}")))?;
        let mut vector = vec![0.0; n];
        row.row(0, &mut vector);
        Ok(vector)
    }

    /// The same if the source has it.
    pub fn optional_vector(&self, name: &str, n: usize) -> Result<Option<Vec<f32>>, LoadError> {
        match self.0.tensor(name)? {
            Some(_) => self.vector(name, n).map(Some),
            None => Ok(None),
        }
    }

    fn required(&self, name: &str, shape: &[usize]) -> Result<Tensor<'_>, LoadError> {
        let fail = |why: String| LoadError::Weights(format!("{name}: {why}"));
        let tensor = self.0.tensor(name)?.ok_or_else(|| fail("there is no such tensor".into()))?;
        if tensor.shape != shape {
            return Err(fail(format!("shape {:?}, the config asks for {shape:?}", tensor.shape)));
        }
        Ok(tensor)
    }
}
