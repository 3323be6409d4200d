//! Where weights come from: tensors by name, as files store them.
//!
//! Hugging Face's names are the canonical ones (`model.layers.0.self_attn.q_proj.weight`); a source
//! with other names maps them.

use crate::{
    gguf::{Gguf, GgufError},
    matmul::{Format, Matrix, MatrixError},
};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use std::collections::BTreeMap;

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

/// Where a tensor lies in its file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorPlace {
    pub format: Format,
    /// Outputs and inputs; a vector is one output.
    pub rows: usize,
    pub columns: usize,
    /// Its bytes in the file.
    pub bytes: std::ops::Range<usize>,
}

/// The matrices and vectors of a file, safetensors or GGUF, by their own names; those of other shapes and of
/// formats that are not computed with are left out.
///
/// # Errors
/// If the file is malformed.
pub fn tensor_places<'a>(file: &'a [u8]) -> Result<BTreeMap<String, TensorPlace>, LoadError> {
    let tensors: Vec<(String, Tensor<'a>)> = match file.starts_with(b"GGUF") {
        true => {
            let gguf = Gguf::read(file)?;
            let tensor = |name: &str| Some((name.to_owned(), gguf.tensor(name).ok().flatten()?));
            gguf.tensor_names().filter_map(tensor).collect()
        }
        false => {
            let read = SafeTensors::deserialize(file).map_err(|error| LoadError::Weights(error.to_string()))?;
            let tensor = |(name, view): (String, TensorView<'a>)| {
                let format = format_of(view.dtype())?;
                Some((name, Tensor { format, shape: view.shape().to_vec(), data: view.data() }))
            };
            read.tensors().into_iter().filter_map(tensor).collect()
        }
    };
    let place = |(name, tensor): (String, Tensor<'a>)| {
        let (rows, columns) = match tensor.shape[..] {
            [columns] => (1, columns),
            [rows, columns] => (rows, columns),
            _ => return None,
        };
        let start = tensor.data.as_ptr().addr() - file.as_ptr().addr();
        let bytes = start..start + tensor.data.len();
        Some((name, TensorPlace { format: tensor.format, rows, columns, bytes }))
    };
    Ok(tensors.into_iter().filter_map(place).collect())
}

fn format_of(dtype: Dtype) -> Option<Format> {
    match dtype {
        Dtype::F32 => Some(Format::F32),
        Dtype::F16 => Some(Format::F16),
        Dtype::BF16 => Some(Format::Bf16),
        _ => None,
    }
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
        let Some(format) = format_of(view.dtype()) else {
            return Err(LoadError::Weights(format!(
                "{name}: {:?} weights are not supported: use F32, F16 or BF16",
                view.dtype()
            )));
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
