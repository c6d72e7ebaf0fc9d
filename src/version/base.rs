//! A model's base, opened to materialise versions of it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::materialise::Sum;
use super::sums::Sums;
use super::{Error, Factor, Matrix, materialise};
use crate::model::Checkpoint;
use crate::model::families::Linear;
use crate::objects::{Digest, ObjectStore, Pin};
use crate::proto::v1;

/// An opened base.
#[derive(Debug)]
pub struct Base {
    checkpoint: Checkpoint,
    threads: usize,
    /// Matrices of versions, for the next edit on them.
    pub(super) sums: Sums,
    /// Keep its files: they are mapped, and take their space for as long, whether they have a name
    /// or not.
    _pins: Vec<Pin>,
}

impl Base {
    /// A base that is opened already.
    pub fn new(checkpoint: Checkpoint) -> Self {
        let threads = std::thread::available_parallelism();
        Self {
            checkpoint,
            threads: threads.map_or(1, |n| n.get()),
            sums: Sums::default(),
            _pins: Vec::new(),
        }
    }

    /// Opens a model's files, all of which are objects; they are laid out as links under `folder`.
    ///
    /// # Errors
    /// [`Error::Object`] when one is missing, [`Error::Model`] when they are no checkpoint,
    /// [`Error::Layout`].
    pub fn open(objects: &ObjectStore, folder: &Path, model: &v1::Model) -> Result<Self, Error> {
        let folder = folder.join(&model.digest);
        fs::create_dir_all(&folder).map_err(layout(&folder))?;
        let mut pins = Vec::new();
        for file in &model.files {
            let digest: Digest = file.digest.parse()?;
            pins.push(objects.pin(&digest)?);
            let source = objects.local(&digest)?;
            let link_path = folder.join(&file.file_name);
            link(&source, &link_path).map_err(layout(&link_path))?;
        }
        let first = model.files.first().map(|file| file.file_name.as_str());
        let path = Checkpoint::laid_out(&folder, first);
        Ok(Self {
            _pins: pins,
            ..Self::new(Checkpoint::open(&path)?)
        })
    }

    /// The checkpoint.
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// Checks that a factor is of a matrix that edits change, with its layer and its shape.
    ///
    /// # Errors
    /// [`Error::Tensor`] and [`Error::Factor`].
    pub fn check(&self, factor: &Factor) -> Result<(), Error> {
        factor.check()?;
        let (layer, down) = self.down_projection(&factor.tensor)?;
        let shape = &down.weight.shape;
        let (width, inner) = if down.transposed {
            (shape[1], shape[0])
        } else {
            (shape[0], shape[1])
        };
        let fields = [
            ("layer", factor.layer, layer),
            ("width", factor.width, width),
            ("inner", factor.inner, inner),
        ];
        match fields.iter().find(|(_, found, expected)| found != expected) {
            None => Ok(()),
            Some(&(field, found, expected)) => Err(Error::Factor {
                tensor: factor.tensor.clone(),
                field,
                found: found.to_string(),
                expected: expected.to_string(),
            }),
        }
    }

    /// A matrix with factors on it, in order.
    ///
    /// # Errors
    /// [`Error::Tensor`], [`Error::Factor`], [`Error::NotFinite`]; [`Error::Model`] when the
    /// base's elements cannot be read.
    pub fn matrix(&self, tensor: &str, factors: &[&Factor]) -> Result<Matrix, Error> {
        let (_, down) = self.down_projection(tensor)?;
        let data = self.checkpoint.tensor(tensor)?;
        materialise(tensor, &data, down.transposed, factors, self.threads)
    }

    /// The base's own matrix, to add factors to.
    ///
    /// # Errors
    /// [`Error::Tensor`]; [`Error::Model`] when the base's elements cannot be read.
    pub(super) fn sum(&self, tensor: &str) -> Result<Sum, Error> {
        let (_, down) = self.down_projection(tensor)?;
        Sum::of(tensor, &self.checkpoint.tensor(tensor)?, down.transposed)
    }

    /// Adds factors to a matrix.
    ///
    /// # Errors
    /// [`Error::Factor`].
    pub(super) fn add(&self, sum: &mut Sum, factors: &[&Factor]) -> Result<(), Error> {
        sum.add(factors, self.threads)
    }

    /// Every matrix that the factors touch, by name, as a version lists them.
    ///
    /// # Errors
    /// Those of [`Base::matrix`].
    pub fn matrices(&self, factors: &[Factor]) -> Result<Vec<v1::version::Matrix>, Error> {
        let mut described = Vec::new();
        for (tensor, factors) in by_tensor(factors) {
            let matrix = self.matrix(tensor, &factors)?;
            described.push(v1::version::Matrix {
                tensor_name: tensor.to_owned(),
                digest: matrix.digest.to_string(),
                dtype: matrix.dtype.name().to_owned(),
                layer: factors.first().map_or(0, |factor| factor.layer as u32),
            });
        }
        Ok(described)
    }

    /// A matrix as a version lists it.
    ///
    /// # Errors
    /// [`Error::Tensor`].
    pub(super) fn described(
        &self,
        tensor: &str,
        matrix: &Matrix,
    ) -> Result<v1::version::Matrix, Error> {
        let (layer, _) = self.down_projection(tensor)?;
        Ok(v1::version::Matrix {
            tensor_name: tensor.to_owned(),
            digest: matrix.digest.to_string(),
            dtype: matrix.dtype.name().to_owned(),
            layer: layer as u32,
        })
    }

    /// A matrix of a version, held against the digest that the version has of it (I11).
    ///
    /// # Errors
    /// [`Error::Materialised`] when it differs, and those of [`Base::matrix`].
    pub fn verified(
        &self,
        described: &v1::version::Matrix,
        factors: &[&Factor],
    ) -> Result<Matrix, Error> {
        Self::held_against(described, self.matrix(&described.tensor_name, factors)?)
    }

    /// [`Base::verified`], as [`Base::grow`] makes it.
    ///
    /// # Errors
    /// Those of [`Base::verified`].
    pub fn grown(
        &self,
        described: &v1::version::Matrix,
        factors: &[(Digest, &Factor)],
    ) -> Result<Matrix, Error> {
        Self::held_against(described, self.grow(&described.tensor_name, factors)?)
    }

    /// [`Base::matrix`], of factors with the digests of their numbers. What was made here of the
    /// first of them is gone on with, so that a version that adds to one before takes what it
    /// adds.
    ///
    /// # Errors
    /// Those of [`Base::matrix`].
    pub fn grow(&self, tensor: &str, factors: &[(Digest, &Factor)]) -> Result<Matrix, Error> {
        if factors.is_empty() {
            return self.matrix(tensor, &[]);
        }
        // What each beginning of the list comes to, the empty one first.
        let mut lists = vec![Digest::of(tensor.as_bytes())];
        for (digest, factor) in factors {
            let before = lists[lists.len() - 1];
            let rank = (factor.rank as u64).to_le_bytes();
            let one = [&before.as_bytes()[..], digest.as_bytes(), &rank].concat();
            lists.push(Digest::of(&one));
        }
        let kept = self.sums.longest(&lists, tensor);
        let (known, mut sum) = match kept {
            Some((known, sum)) => (known, (*sum).clone()),
            None => (0, self.sum(tensor)?),
        };
        let added: Vec<&Factor> = factors[known..].iter().map(|(_, factor)| *factor).collect();
        self.add(&mut sum, &added)?;
        let made = sum.matrix()?;
        let kept = [(tensor.to_owned(), Arc::new(sum))];
        self.sums.keep(lists[factors.len()], kept.into());
        Ok(made)
    }

    /// A matrix, if it has the digest that its version has of it (I11).
    ///
    /// # Errors
    /// [`Error::Materialised`].
    pub(super) fn held_against(
        described: &v1::version::Matrix,
        matrix: Matrix,
    ) -> Result<Matrix, Error> {
        if matrix.digest.to_string() == described.digest {
            return Ok(matrix);
        }
        Err(Error::Materialised {
            tensor: described.tensor_name.clone(),
            found: matrix.digest.to_string(),
            expected: described.digest.clone(),
        })
    }

    /// The layer whose second MLP matrix has this name, and that matrix.
    fn down_projection(&self, tensor: &str) -> Result<(usize, &Linear), Error> {
        let layers = &self.checkpoint.layout().layers;
        let all = || {
            (0..)
                .zip(layers)
                .filter_map(|(at, it)| Some((at, it.down()?)))
        };
        let found = all().find(|(_, down)| down.weight.name == tensor);
        found.ok_or_else(|| Error::Tensor {
            tensor: tensor.to_owned(),
            those: match all().next() {
                Some((_, down)) => format!("they change {} and its like", down.weight.name),
                None => "every layer of the model is a mixture of experts, and has none".to_owned(),
            },
        })
    }
}

/// The factors of each matrix, in their order.
pub fn by_tensor(factors: &[Factor]) -> BTreeMap<&str, Vec<&Factor>> {
    let mut grouped: BTreeMap<&str, Vec<&Factor>> = BTreeMap::new();
    for factor in factors {
        grouped.entry(&factor.tensor).or_default().push(factor);
    }
    grouped
}

fn layout(path: &Path) -> impl FnOnce(std::io::Error) -> Error + use<> {
    let path: PathBuf = path.to_owned();
    move |source| Error::Layout { path, source }
}

/// Makes `to` a link to `from`, also when another thread does the same at this moment.
fn link(from: &Path, to: &Path) -> std::io::Result<()> {
    let from = fs::canonicalize(from)?;
    if fs::read_link(to).is_ok_and(|target| target == from) {
        return Ok(());
    }
    let temporary = to.with_extension(format!("{:?}.link", std::thread::current().id()));
    let _ = fs::remove_file(&temporary); // of a process that was killed here
    std::os::unix::fs::symlink(&from, &temporary)?;
    fs::rename(&temporary, to)
}
