//! Reader of GGUF files, versions 2 and 3: the single-file format of llama.cpp, which holds a
//! model's numbers, its tokenizer, its chat template and its weights.
//!
//! ```text
//! magic "GGUF" · version u32 · tensors u64 · metadata entries u64
//! entries:  key string · type u32 · value
//! tensors:  name string · dimensions u32 · each u64, innermost first · type u32 · offset u64
//! padding to the alignment, then the tensors' data; offsets count from here
//! ```
//!
//! Files come from strangers. The reader borrows from the caller's bytes (which may be a memory
//! map), checks every length against what is left of them before it slices, and allocates nothing
//! in proportion to a number that the file merely claims: only for entries that were really there.

mod names;

pub use names::GgufTensors;

use crate::{matmul::Format, tensors::Tensor};
use std::{collections::BTreeMap, fmt};

/// Most metadata entries, and most tensors. Real files have below 100 and below 2,000.
pub const ENTRIES_MAX: u64 = 1 << 16;
/// Longest key or tensor name, bytes. The format's own limits are 65,535 and 64.
pub const NAME_BYTES_MAX: usize = 1 << 10;
/// Most elements of an array. The largest vocabularies have about 262,000 tokens.
pub const ARRAY_ELEMENTS_MAX: u64 = 1 << 22;
/// Most dimensions of a tensor, as in ggml.
pub const DIMENSIONS_MAX: u32 = 4;
/// Largest alignment, bytes.
pub const ALIGNMENT_MAX: u32 = 1 << 16;
const ALIGNMENT_DEFAULT: u32 = 32;

/// Why a GGUF file was not read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GgufError {
    #[error("this is not a GGUF file")]
    Magic,
    #[error("GGUF version {0} is not read: only 2 and 3, little-endian")]
    Version(u32),
    #[error("the file ends inside {what}, which starts at byte {at}")]
    Truncated { what: String, at: usize },
    #[error("{what} = {got}, at most {max}")]
    TooMany { what: String, got: u64, max: u64 },
    #[error("metadata {key:?}: {why}")]
    Key { key: String, why: String },
    #[error("tensor {name:?}: {why}")]
    Tensor { name: String, why: String },
    #[error("tensor {name:?} has the type {type_name}, which does not run here: use a file in {SUPPORTED}")]
    UnsupportedType { name: String, type_name: String },
}

const SUPPORTED: &str = "F32, F16, BF16, Q8_0, Q4_0, or one whose tensors are Q4_K, Q6_K and these";

impl GgufError {
    /// An error about metadata `key`.
    pub fn key(key: &str, why: impl Into<String>) -> Self {
        Self::Key { key: key.into(), why: why.into() }
    }

    fn tensor(name: &str, why: impl Into<String>) -> Self {
        Self::Tensor { name: name.into(), why: why.into() }
    }
}

/// Types of metadata values, by the number that the format gives them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    F32,
    Bool,
    String,
    Array,
    U64,
    I64,
    F64,
}

impl Kind {
    fn from_number(number: u32) -> Option<Self> {
        use Kind::{Array, Bool, F32, F64, I8, I16, I32, I64, String, U8, U16, U32, U64};
        let kinds = [U8, I8, U16, I16, U32, I32, F32, Bool, String, Array, U64, I64, F64];
        kinds.get(usize::try_from(number).ok()?).copied()
    }

    /// Bytes of one value; `None` where that depends on the value.
    fn bytes(self) -> Option<usize> {
        match self {
            Self::U8 | Self::I8 | Self::Bool => Some(1),
            Self::U16 | Self::I16 => Some(2),
            Self::U32 | Self::I32 | Self::F32 => Some(4),
            Self::U64 | Self::I64 | Self::F64 => Some(8),
            Self::String | Self::Array => None,
        }
    }
}

/// A metadata value, undecoded: the bytes of one element, or of `count` elements.
#[derive(Clone, Copy)]
struct Value<'a> {
    kind: Kind,
    /// `None` for a single value.
    count: Option<usize>,
    bytes: &'a [u8],
}

/// A cursor that never leaves the file.
struct Cursor<'a> {
    file: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn take(&mut self, bytes: usize, what: &str) -> Result<&'a [u8], GgufError> {
        let end = self.at.checked_add(bytes).filter(|end| *end <= self.file.len());
        let end = end.ok_or_else(|| GgufError::Truncated { what: what.into(), at: self.at })?;
        let slice = &self.file[self.at..end];
        self.at = end;
        Ok(slice)
    }

    fn u32(&mut self, what: &str) -> Result<u32, GgufError> {
        Ok(u32::from_le_bytes(self.take(4, what)?.try_into().expect("four bytes were taken")))
    }

    fn u64(&mut self, what: &str) -> Result<u64, GgufError> {
        Ok(u64::from_le_bytes(self.take(8, what)?.try_into().expect("eight bytes were taken")))
    }

    /// A number of things, at most `max`.
    fn count(&mut self, what: &str, max: u64) -> Result<usize, GgufError> {
        let got = self.u64(what)?;
        match usize::try_from(got) {
            Ok(count) if got <= max => Ok(count),
            _ => Err(GgufError::TooMany { what: what.into(), got, max }),
        }
    }

    fn string(&mut self, what: &str) -> Result<&'a [u8], GgufError> {
        let length = self.u64(&format!("the length of {what}"))?;
        // A length beyond the address space is beyond the file too.
        self.take(usize::try_from(length).unwrap_or(usize::MAX), what)
    }

    fn name(&mut self, what: &str) -> Result<&'a str, GgufError> {
        let at = self.at;
        let name = self.string(what)?;
        if name.len() > NAME_BYTES_MAX {
            let (got, max) = (name.len() as u64, NAME_BYTES_MAX as u64);
            return Err(GgufError::TooMany { what: format!("the length of {what} at byte {at}"), got, max });
        }
        std::str::from_utf8(name).map_err(|_| GgufError::key(&String::from_utf8_lossy(name), "the name is not UTF-8"))
    }

    fn value(&mut self, key: &str) -> Result<Value<'a>, GgufError> {
        let kind = self.kind(key)?;
        if kind != Kind::Array {
            let start = self.at;
            self.skip(kind, key)?;
            return Ok(Value { kind, count: None, bytes: &self.file[start..self.at] });
        }
        let kind = self.kind(key)?;
        let count = self.count(&format!("the elements of {key}"), ARRAY_ELEMENTS_MAX)?;
        let start = self.at;
        match kind.bytes() {
            Some(bytes) => {
                self.take(count.saturating_mul(bytes), key)?;
            }
            None if kind == Kind::Array => return Err(GgufError::key(key, "arrays of arrays are not read")),
            None => (0..count).try_for_each(|_| self.skip(kind, key))?,
        }
        Ok(Value { kind, count: Some(count), bytes: &self.file[start..self.at] })
    }

    fn kind(&mut self, key: &str) -> Result<Kind, GgufError> {
        let number = self.u32(key)?;
        Kind::from_number(number).ok_or_else(|| GgufError::key(key, format!("unknown value type {number}")))
    }

    fn skip(&mut self, kind: Kind, key: &str) -> Result<(), GgufError> {
        match kind.bytes() {
            Some(bytes) => self.take(bytes, key).map(drop),
            None => self.string(key).map(drop),
        }
    }
}

/// One tensor as the file lists it.
#[derive(Clone, Debug)]
struct TensorInfo {
    /// Row-major, outermost first.
    shape: Vec<usize>,
    type_number: u32,
    /// From the start of the data.
    offset: u64,
}

/// A GGUF file: metadata by key, tensors by name.
pub struct Gguf<'a> {
    metadata: BTreeMap<&'a str, Value<'a>>,
    tensors: BTreeMap<&'a str, TensorInfo>,
    data: &'a [u8],
}

impl fmt::Debug for Gguf<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Gguf({} metadata entries, {} tensors)", self.metadata.len(), self.tensors.len())
    }
}

impl<'a> Gguf<'a> {
    /// Reads the lists of metadata and tensors and checks that all they name lies inside `file`.
    /// Tensors of types that do not run here are an error only when asked for.
    ///
    /// # Errors
    /// What is wrong, with the key or tensor concerned.
    pub fn read(file: &'a [u8]) -> Result<Self, GgufError> {
        if !file.starts_with(b"GGUF") {
            return Err(GgufError::Magic);
        }
        let mut cursor = Cursor { file, at: 4 };
        let version = cursor.u32("the version")?;
        if !(2..=3).contains(&version) {
            return Err(GgufError::Version(version));
        }
        let tensor_count = cursor.count("the number of tensors", ENTRIES_MAX)?;
        let entry_count = cursor.count("the number of metadata entries", ENTRIES_MAX)?;
        let mut metadata = BTreeMap::new();
        for _ in 0..entry_count {
            let key = cursor.name("a metadata key")?;
            let value = cursor.value(key)?;
            if metadata.insert(key, value).is_some() {
                return Err(GgufError::key(key, "given twice"));
            }
        }
        let mut tensors = BTreeMap::new();
        for _ in 0..tensor_count {
            let name = cursor.name("a tensor's name")?;
            let info = tensor_info(&mut cursor, name)?;
            if tensors.insert(name, info).is_some() {
                return Err(GgufError::tensor(name, "given twice"));
            }
        }
        let mut gguf = Self { metadata, tensors, data: &[] };
        let alignment = gguf.alignment()?;
        // A file without tensors may end without the padding.
        let start = cursor.at.next_multiple_of(alignment);
        gguf.data = file.get(start..).unwrap_or(&[]);
        for (name, info) in &gguf.tensors {
            if !info.offset.is_multiple_of(alignment as u64) {
                return Err(GgufError::tensor(name, format!("its offset is not a multiple of {alignment}")));
            }
            match gguf.slice(name, info) {
                Err(GgufError::UnsupportedType { .. }) | Ok(_) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(gguf)
    }

    fn alignment(&self) -> Result<usize, GgufError> {
        let key = "general.alignment";
        let alignment = self.u32(key)?.unwrap_or(ALIGNMENT_DEFAULT);
        if !alignment.is_power_of_two() || !(8..=ALIGNMENT_MAX).contains(&alignment) {
            return Err(GgufError::key(key, format!("{alignment} is not a power of two from 8 to {ALIGNMENT_MAX}")));
        }
        Ok(alignment as usize)
    }

    /// Format and bytes of a listed tensor.
    fn slice(&self, name: &str, info: &TensorInfo) -> Result<(Format, &'a [u8]), GgufError> {
        let format = match info.type_number {
            0 => Format::F32,
            1 => Format::F16,
            2 => Format::Q4_0,
            8 => Format::Q8_0,
            12 => Format::Q4K,
            14 => Format::Q6K,
            30 => Format::Bf16,
            other => {
                let type_name = type_name(other).map_or_else(|| format!("number {other}"), str::to_owned);
                return Err(GgufError::UnsupportedType { name: name.into(), type_name });
            }
        };
        let row = info.shape.last().copied().expect("a tensor has at least one dimension");
        let block = format.block_elements();
        if !row.is_multiple_of(block) {
            return Err(GgufError::tensor(name, format!("rows of {row} elements are not whole blocks of {block}")));
        }
        let rows: usize = info.shape[..info.shape.len() - 1].iter().product();
        let range = rows.checked_mul(row / block).and_then(|blocks| blocks.checked_mul(format.block_bytes()));
        let range = range.and_then(|bytes| {
            let start = usize::try_from(info.offset).ok()?;
            Some(start..start.checked_add(bytes)?)
        });
        let data = range.and_then(|range| self.data.get(range));
        data.map(|data| (format, data)).ok_or_else(|| GgufError::tensor(name, "its data ends beyond the file"))
    }

    /// Names of all tensors, in order.
    pub fn tensor_names(&self) -> impl Iterator<Item = &'a str> + '_ {
        self.tensors.keys().copied()
    }

    /// The tensor with this name in the file, if there is one.
    ///
    /// # Errors
    /// If its type does not run here.
    pub fn tensor(&self, name: &str) -> Result<Option<Tensor<'a>>, GgufError> {
        let Some(info) = self.tensors.get(name) else { return Ok(None) };
        self.slice(name, info).map(|(format, data)| Some(Tensor { format, shape: info.shape.clone(), data }))
    }

    /// Keys of all metadata entries, in order.
    pub fn keys(&self) -> impl Iterator<Item = &'a str> + '_ {
        self.metadata.keys().copied()
    }

    /// Whether there is a metadata entry with this key, of any type.
    pub fn has(&self, key: &str) -> bool {
        self.metadata.contains_key(key)
    }

    fn single(&self, key: &str) -> Result<Option<Value<'a>>, GgufError> {
        match self.metadata.get(key) {
            Some(value) if value.count.is_some() => Err(GgufError::key(key, "an array, where one value is expected")),
            value => Ok(value.copied()),
        }
    }

    /// An integer of any width that fits.
    ///
    /// # Errors
    /// If the entry is not an integer, or does not fit.
    pub fn u32(&self, key: &str) -> Result<Option<u32>, GgufError> {
        let Some(value) = self.single(key)? else { return Ok(None) };
        let number = integer(value.kind, value.bytes).ok_or_else(|| GgufError::key(key, "not an integer"))?;
        u32::try_from(number).map(Some).map_err(|_| GgufError::key(key, format!("{number} is out of range")))
    }

    /// A float; an f64 is rounded.
    ///
    /// # Errors
    /// If the entry is not a float.
    pub fn f32(&self, key: &str) -> Result<Option<f32>, GgufError> {
        let Some(value) = self.single(key)? else { return Ok(None) };
        float(value.kind, value.bytes).map(Some).ok_or_else(|| GgufError::key(key, "not a float"))
    }

    /// A truth value.
    ///
    /// # Errors
    /// If the entry is not a bool of one byte, 0 or 1.
    pub fn bool(&self, key: &str) -> Result<Option<bool>, GgufError> {
        match self.single(key)? {
            None => Ok(None),
            Some(Value { kind: Kind::Bool, bytes: [byte @ 0..=1], .. }) => Ok(Some(*byte == 1)),
            Some(_) => Err(GgufError::key(key, "not a bool")),
        }
    }

    /// A text.
    ///
    /// # Errors
    /// If the entry is not a string, or not UTF-8.
    pub fn str(&self, key: &str) -> Result<Option<&'a str>, GgufError> {
        match self.single(key)? {
            None => Ok(None),
            Some(Value { kind: Kind::String, bytes, .. }) => utf8(key, &bytes[8..]).map(Some),
            Some(_) => Err(GgufError::key(key, "not a string")),
        }
    }

    fn array<T>(
        &self,
        key: &str,
        expected: &str,
        element: impl Fn(Kind, &'a [u8]) -> Option<T>,
    ) -> Result<Option<Vec<T>>, GgufError> {
        let Some(value) = self.metadata.get(key) else { return Ok(None) };
        let wrong = || GgufError::key(key, format!("not an array of {expected}"));
        let bytes = value.kind.bytes().filter(|_| value.count.is_some()).ok_or_else(wrong)?;
        let elements = value.bytes.chunks_exact(bytes).map(|chunk| element(value.kind, chunk).ok_or_else(wrong));
        elements.collect::<Result<_, _>>().map(Some)
    }

    /// An array of integers of any width that fit.
    ///
    /// # Errors
    /// If the entry is something else.
    pub fn u32s(&self, key: &str) -> Result<Option<Vec<u32>>, GgufError> {
        self.array(key, "unsigned integers", |kind, bytes| u32::try_from(integer(kind, bytes)?).ok())
    }

    /// An array of integers of any width that fit.
    ///
    /// # Errors
    /// If the entry is something else.
    pub fn i32s(&self, key: &str) -> Result<Option<Vec<i32>>, GgufError> {
        self.array(key, "integers", |kind, bytes| i32::try_from(integer(kind, bytes)?).ok())
    }

    /// An array of floats; f64 are rounded.
    ///
    /// # Errors
    /// If the entry is something else.
    pub fn f32s(&self, key: &str) -> Result<Option<Vec<f32>>, GgufError> {
        self.array(key, "floats", float)
    }

    /// An array of texts.
    ///
    /// # Errors
    /// If the entry is something else, or one text is not UTF-8.
    pub fn strs(&self, key: &str) -> Result<Option<Vec<&'a str>>, GgufError> {
        let Some(value) = self.metadata.get(key) else { return Ok(None) };
        let (Kind::String, Some(count)) = (value.kind, value.count) else {
            return Err(GgufError::key(key, "not an array of strings"));
        };
        let mut cursor = Cursor { file: value.bytes, at: 0 };
        (0..count).map(|_| utf8(key, cursor.string(key)?)).collect::<Result<_, _>>().map(Some)
    }

    /// The value if the entry is an array, or one element if it is a single integer: some files
    /// give a number for each layer, others one for all.
    ///
    /// # Errors
    /// If the entry is something else.
    pub fn u32_or_u32s(&self, key: &str) -> Result<Option<Vec<u32>>, GgufError> {
        match self.metadata.get(key) {
            Some(value) if value.count.is_some() => self.u32s(key),
            _ => Ok(self.u32(key)?.map(|number| vec![number])),
        }
    }
}

fn tensor_info(cursor: &mut Cursor<'_>, name: &str) -> Result<TensorInfo, GgufError> {
    let what = format!("the description of tensor {name:?}");
    let dimensions = cursor.u32(&what)?;
    if !(1..=DIMENSIONS_MAX).contains(&dimensions) {
        return Err(GgufError::tensor(name, format!("{dimensions} dimensions, not 1 to {DIMENSIONS_MAX}")));
    }
    let (mut shape, mut elements) = (Vec::new(), 1usize);
    for _ in 0..dimensions {
        let length = usize::try_from(cursor.u64(&what)?).ok().filter(|length| *length > 0);
        let length = length.ok_or_else(|| GgufError::tensor(name, "a dimension is zero or too large"))?;
        elements = elements.checked_mul(length).ok_or_else(|| GgufError::tensor(name, "its dimensions overflow"))?;
        shape.push(length);
    }
    shape.reverse();
    Ok(TensorInfo { shape, type_number: cursor.u32(&what)?, offset: cursor.u64(&what)? })
}

fn integer(kind: Kind, bytes: &[u8]) -> Option<i128> {
    // Little-endian bytes, widened with the sign where there is one.
    let signed = matches!(kind, Kind::I8 | Kind::I16 | Kind::I32 | Kind::I64);
    if !signed && !matches!(kind, Kind::U8 | Kind::U16 | Kind::U32 | Kind::U64) {
        return None;
    }
    let fill = if signed && bytes.last()? & 0x80 != 0 { 0xff } else { 0 };
    let mut wide = [fill; 16];
    wide[..bytes.len()].copy_from_slice(bytes);
    Some(i128::from_le_bytes(wide))
}

fn float(kind: Kind, bytes: &[u8]) -> Option<f32> {
    match kind {
        Kind::F32 => Some(f32::from_le_bytes(bytes.try_into().ok()?)),
        #[allow(clippy::cast_possible_truncation)] // rounding is what the caller asks for
        Kind::F64 => Some(f64::from_le_bytes(bytes.try_into().ok()?) as f32),
        _ => None,
    }
}

fn utf8<'a>(key: &str, bytes: &'a [u8]) -> Result<&'a str, GgufError> {
    std::str::from_utf8(bytes).map_err(|_| GgufError::key(key, "not UTF-8"))
}

/// The names of ggml's types, for messages.
fn type_name(number: u32) -> Option<&'static str> {
    Some(match number {
        3 => "Q4_1",
        6 => "Q5_0",
        7 => "Q5_1",
        9 => "Q8_1",
        10 => "Q2_K",
        11 => "Q3_K",
        13 => "Q5_K",
        15 => "Q8_K",
        16 => "IQ2_XXS",
        17 => "IQ2_XS",
        18 => "IQ3_XXS",
        19 => "IQ1_S",
        20 => "IQ4_NL",
        21 => "IQ3_S",
        22 => "IQ2_S",
        23 => "IQ4_XS",
        24 => "I8",
        25 => "I16",
        26 => "I32",
        27 => "I64",
        28 => "F64",
        29 => "IQ1_M",
        34 => "TQ1_0",
        35 => "TQ2_0",
        39 => "MXFP4",
        _ => return None,
    })
}
