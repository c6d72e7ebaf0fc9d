//! A tensor of a checkpoint, whatever the format of its file.

use std::borrow::Cow;

use super::super::Error;

/// How a tensor's elements are stored, little-endian.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DType {
    /// IEEE 754 single.
    F32,
    /// IEEE 754 half.
    F16,
    /// The upper half of a single.
    BF16,
}

impl DType {
    /// Bytes an element.
    pub fn size(self) -> usize {
        match self {
            DType::F32 => 4,
            DType::F16 | DType::BF16 => 2,
        }
    }

    /// The name safetensors uses.
    pub fn name(self) -> &'static str {
        match self {
            DType::F32 => "F32",
            DType::F16 => "F16",
            DType::BF16 => "BF16",
        }
    }
}

impl std::fmt::Display for DType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// What is known of a tensor without reading it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    /// Canonical name.
    pub name: String,
    /// Element type of [`Checkpoint::tensor`](super::Checkpoint::tensor); `F32` for the quantised types of GGUF.
    pub dtype: DType,
    /// Sizes, outermost first.
    pub shape: Vec<usize>,
}

/// A tensor's contents.
#[derive(Debug, Clone, PartialEq)]
pub struct TensorData<'a> {
    /// Element type.
    pub dtype: DType,
    /// Sizes, outermost first.
    pub shape: Vec<usize>,
    /// Elements, row-major, little-endian; borrowed from the file where it stores them so.
    pub bytes: Cow<'a, [u8]>,
}

impl TensorData<'_> {
    /// The elements as single precision.
    pub fn to_f32(&self) -> Vec<f32> {
        self.elements().collect()
    }

    /// Refuses infinities and NaNs: a forward pass would spread them without a word.
    ///
    /// # Errors
    /// [`Error::NotFinite`] with the first such element; `name` is used there.
    pub fn check_finite(&self, name: &str) -> Result<(), Error> {
        match self.elements().enumerate().find(|(_, x)| !x.is_finite()) {
            None => Ok(()),
            Some((index, value)) => Err(Error::NotFinite {
                name: name.to_owned(),
                index,
                value,
            }),
        }
    }

    /// The elements, one by one, as single precision.
    pub(super) fn elements(&self) -> Box<dyn Iterator<Item = f32> + '_> {
        let pairs = || self.bytes.chunks_exact(2).map(|b| [b[0], b[1]]);
        match self.dtype {
            DType::F32 => Box::new(
                self.bytes
                    .chunks_exact(4)
                    .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])),
            ),
            DType::F16 => Box::new(pairs().map(|b| half::f16::from_le_bytes(b).to_f32())),
            DType::BF16 => Box::new(pairs().map(|b| half::bf16::from_le_bytes(b).to_f32())),
        }
    }
}
