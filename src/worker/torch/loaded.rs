//! A model in memory, moved from version to version by its factors.

use std::path::Path;
use std::sync::Arc;

use tch::{Device, Kind as Dtype, Tensor};

use super::super::engine::failure;
use super::super::leased::LeasedVersion;
use crate::causal::{self, EmbeddingGaussian};
use crate::datasets::corpus;
use crate::model::{self, Checkpoint, Model};
use crate::proto::v1::{self, FailureClass};
use crate::version::{self, Base, Matrix};

/// In place of the version's name while a matrix is another's. No version is called so.
const UNKNOWN: &str = "unknown";

/// The version of a model one of whose matrices is lent.
#[must_use = "without it the model has no version"]
pub(super) struct Lent(String);

/// A model in memory, and the version whose matrices it has.
#[derive(Debug)]
pub struct Loaded {
    /// `models/{model}`, and the digest of its files.
    pub(super) name: String,
    pub(super) digest: String,
    pub(super) dtype: v1::Dtype,
    pub(super) model: Model,
    /// Mean and covariance of its embeddings over the corpus of this digest, the last one asked
    /// for.
    gaussian: Option<(String, Arc<EmbeddingGaussian>)>,
    /// What its matrices are made again from.
    pub(super) base: Base,
    /// The version whose matrices it has; empty for the base's own.
    pub(super) version: String,
    /// The matrices that differ from the base's: layer and name.
    edited: Vec<(usize, String)>,
    /// The contexts that were last drawn from it for edits, with the version and the seed.
    pub(super) contexts: Option<(String, u64, Vec<String>)>,
}

impl Loaded {
    /// Loads a checkpoint, a folder or a file, as it is, its blocks spread over the devices.
    ///
    /// # Errors
    /// When it cannot be read or does not fit them.
    pub fn open(
        checkpoint: &Path,
        devices: &[Device],
        dtype: v1::Dtype,
    ) -> Result<Self, model::Error> {
        let kind = match dtype {
            v1::Dtype::Bf16 => Dtype::BFloat16,
            v1::Dtype::F16 => Dtype::Half,
            v1::Dtype::Unspecified | v1::Dtype::F32 => Dtype::Float,
        };
        let opened = Checkpoint::open(checkpoint)?;
        Ok(Self {
            name: String::new(),
            digest: String::new(),
            dtype,
            model: Model::load_over(&opened, devices, kind)?,
            gaussian: None,
            base: Base::new(opened),
            version: String::new(),
            edited: Vec::new(),
            contexts: None,
        })
    }

    /// The model, with the matrices of its version.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// Gives the model the matrices of another version: those that either one edits are made
    /// again from the base and held against their digests (I11), nothing else is touched.
    ///
    /// # Errors
    /// What keeps a matrix from being made. The model may be between two versions then: drop it.
    pub fn switch(&mut self, wanted: &LeasedVersion) -> Result<(), version::Error> {
        if self.version == wanted.name {
            return Ok(());
        }
        let wanted_again = |name: &str| wanted.matrices.iter().any(|m| m.tensor_name == name);
        for (layer, tensor) in std::mem::take(&mut self.edited) {
            if !wanted_again(&tensor) {
                let pristine = self.base.matrix(&tensor, &[])?;
                self.put(layer, &tensor, &pristine)?;
            }
        }
        for matrix in &wanted.matrices {
            let name = matrix.tensor_name.as_str();
            let made = self.base.grown(matrix, &wanted.on(name))?;
            self.put(matrix.layer as usize, name, &made)?;
            self.edited.push((matrix.layer as usize, name.to_owned()));
        }
        tracing::info!(from = self.version, to = wanted.name, "switched version");
        self.version.clone_from(&wanted.name);
        Ok(())
    }

    /// Marks a matrix as another than the version's, until what comes back is given back. Where
    /// that does not come to be, because putting it back fails or what runs meanwhile ends in a
    /// panic, the next [`Loaded::switch`] makes it again.
    pub(super) fn lend(&mut self, layer: usize, tensor: &str) -> Lent {
        self.edited.push((layer, tensor.to_owned()));
        Lent(std::mem::replace(&mut self.version, UNKNOWN.to_owned()))
    }

    /// The matrix that was lent last is the version's again.
    pub(super) fn give_back(&mut self, lent: Lent) {
        self.edited.pop();
        self.version = lent.0;
    }

    /// Puts a matrix in its place, in the orientation that the checkpoint has it in.
    pub(super) fn put(
        &mut self,
        layer: usize,
        tensor: &str,
        matrix: &Matrix,
    ) -> Result<(), model::Error> {
        let checkpoint = self.base.checkpoint();
        let down = checkpoint.down_projection(layer)?;
        let info = checkpoint.tensors().find(|info| info.name == tensor);
        let shape = info.map_or(&down.weight.shape, |info| &info.shape);
        let shape: Vec<i64> = shape.iter().map(|&size| size as i64).collect();
        let kind = match matrix.dtype {
            model::DType::F32 => Dtype::Float,
            model::DType::F16 => Dtype::Half,
            model::DType::BF16 => Dtype::BFloat16,
        };
        let stored = Tensor::f_from_data_size(&matrix.bytes, &shape, kind)?;
        let weight = if down.transposed {
            stored.f_tr()?.f_contiguous()?
        } else {
            stored
        };
        self.model.set_down_projection(layer, &weight)
    }

    /// Mean and covariance of the embeddings over a corpus. Every worker finds them for itself from
    /// the same texts: they are larger than a message may be, and quickly found.
    pub(super) fn gaussian(
        &mut self,
        named: &v1::Corpus,
        path: &Path,
    ) -> Result<Arc<EmbeddingGaussian>, v1::Failure> {
        if let Some((digest, gaussian)) = &self.gaussian
            && *digest == named.digest
        {
            return Ok(gaussian.clone());
        }
        let invalid = |what: String| failure(FailureClass::Invalid, what);
        tracing::info!(corpus = named.digest, "measuring the embeddings");
        let texts = corpus::read(path).map_err(|error| invalid(error.to_string()))?;
        let gaussian = causal::embedding_gaussian(&self.model, &texts)
            .map_err(|error| invalid(format!("noise over corpus {}: {error}", named.digest)))?;
        let gaussian = Arc::new(gaussian);
        self.gaussian = Some((named.digest.clone(), gaussian.clone()));
        Ok(gaussian)
    }
}
