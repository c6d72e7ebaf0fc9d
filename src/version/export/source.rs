//! What is exported, and how an export fails.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::super::{Base, Error, Factor, Matrix, by_tensor};
use crate::proto::v1;

/// A version with all that an export needs.
#[derive(Debug)]
pub struct Source<'a> {
    /// Its base.
    pub base: &'a Base,
    /// The version.
    pub version: &'a v1::Version,
    /// The factors of each of its edits, in order, with the edit's digest.
    pub edits: &'a [(String, Vec<Factor>)],
    /// What the base is called where it came from.
    pub base_name: &'a str,
}

impl Source<'_> {
    /// All factors, in order.
    pub(super) fn factors(&self) -> Vec<Factor> {
        self.edits
            .iter()
            .flat_map(|(_, factors)| factors.iter().cloned())
            .collect()
    }

    /// Every matrix that differs from the base, materialised and held against its digest (I11).
    pub(super) fn matrices(&self) -> Result<BTreeMap<String, Matrix>, Error> {
        let factors = self.factors();
        let grouped = by_tensor(&factors);
        self.version
            .matrices
            .iter()
            .map(|described| {
                let name = described.tensor_name.as_str();
                let factors = grouped.get(name).map_or(&[][..], Vec::as_slice);
                Ok((name.to_owned(), self.base.verified(described, factors)?))
            })
            .collect()
    }

    /// What all edits together add to each matrix: one factor a matrix, its ranks those of the
    /// edits behind each other, padded with zeros to the same rank everywhere.
    ///
    /// # Errors
    /// [`Error::Whole`] for a difference that is stored whole.
    pub(super) fn joined(&self) -> Result<Vec<Factor>, Error> {
        let factors = self.factors();
        if let Some(whole) = factors.iter().find(|factor| factor.is_whole()) {
            return Err(Error::Whole {
                tensor: whole.tensor.clone(),
            });
        }
        let grouped = by_tensor(&factors);
        let rank_of = |parts: &Vec<&Factor>| parts.iter().map(|part| part.rank).sum::<usize>();
        let rank = grouped.values().map(rank_of).max().unwrap_or_default();
        let mut joined: Vec<Factor> = grouped
            .into_iter()
            .map(|(tensor, parts)| {
                let first = parts[0];
                let mut all = Factor {
                    tensor: tensor.to_owned(),
                    layer: first.layer,
                    width: first.width,
                    inner: first.inner,
                    rank,
                    left: vec![0.0; first.width * rank],
                    right: vec![0.0; first.inner * rank],
                };
                let mut before = 0;
                for part in parts {
                    for (to, from) in [(&mut all.left, &part.left), (&mut all.right, &part.right)] {
                        for (row, ranks) in from.chunks_exact(part.rank).enumerate() {
                            let at = row * rank + before;
                            to[at..at + part.rank].copy_from_slice(ranks);
                        }
                    }
                    before += part.rank;
                }
                all
            })
            .collect();
        joined.sort_by_key(|factor| factor.layer);
        Ok(joined)
    }
}

pub(super) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Error + use<> {
    let path: PathBuf = path.to_owned();
    move |error| failed(&path, format!("cannot be written: {error}"))
}

pub(super) fn failed(path: &Path, problem: String) -> Error {
    Error::Export {
        path: path.to_owned(),
        problem,
    }
}
