//! What takes long to make of key statistics, a Cholesky factor or eigenvectors, kept on this
//! machine's disk: the next batch, job or process does not make it again.
//!
//! The numbers are an object of the worker's cache, so they are bounded and evicted like all of
//! them. A small file named after what they are of says which object. It proves nothing: the object
//! is read against its digest, and where anything is not as it should be the numbers are made
//! again. To remove either at any time is safe.

use std::fs;
use std::io::{self, Read, Write};
use std::path::PathBuf;

use tch::{Device, Kind as Dtype, Tensor};

use crate::objects::{CHUNK, Digest, Error, ObjectStore};

/// The folder of the small files, beside the objects.
const FOLDER: &str = "factorised";

/// A square matrix and, where there is one, a list of as many numbers.
#[derive(Debug)]
pub(super) struct Numbers {
    /// Such as LAPACK gives and takes it: a column's numbers lie side by side.
    pub matrix: Tensor,
    pub list: Option<Tensor>,
}

/// Where they are kept; nowhere without a store.
#[derive(Clone, Debug, Default)]
pub(super) struct Kept {
    objects: Option<ObjectStore>,
}

impl Kept {
    pub fn at(objects: &ObjectStore) -> Self {
        Self {
            objects: Some(objects.clone()),
        }
    }

    /// The numbers kept under a name, or those that are made now, and kept. The matrix is the same
    /// to the bit either way. What keeps them from being kept is said in the log alone.
    pub fn or_make<E>(
        &self,
        name: &str,
        (size, list): (usize, bool),
        device: Device,
        make: impl FnOnce() -> Result<Numbers, E>,
    ) -> Result<Numbers, E> {
        let _no_grad = tch::no_grad_guard();
        let Some(objects) = &self.objects else {
            return make();
        };
        let place = Place::of(objects, name);
        match place.read(size, list) {
            Ok(Some(found)) => {
                tracing::debug!(name, "read what was factorised before");
                return Ok(Numbers {
                    matrix: found.matrix.to_device(device),
                    list: found.list.map(|list| list.to_device(device)),
                });
            }
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(name, %error, "what was factorised before cannot be used: it is made again");
            }
        }
        let made = make()?;
        if let Err(error) = place.keep(&made) {
            tracing::warn!(name, %error, "what was factorised is not kept");
        }
        Ok(made)
    }
}

/// Where the numbers of a name are.
struct Place<'a> {
    objects: &'a ObjectStore,
    /// Says which object.
    file: PathBuf,
}

impl<'a> Place<'a> {
    fn of(objects: &'a ObjectStore, name: &str) -> Self {
        let name = Digest::of(name.as_bytes()).to_string();
        Self {
            objects,
            file: objects.root().join(FOLDER).join(name),
        }
    }

    /// The numbers, if they are here and right.
    fn read(&self, size: usize, list: bool) -> Result<Option<Numbers>, Error> {
        let said = match fs::read_to_string(&self.file) {
            Ok(said) => said,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::io("read", &self.file)(error)),
        };
        let Ok(digest) = said.trim().parse::<Digest>() else {
            return Ok(None); // cut off by a full disk
        };
        let _pin = self.objects.pin(&digest)?;
        let bytes = size as u64 * (size as u64 + u64::from(list)) * 8;
        match self.objects.size(&digest)? {
            Some(found) if found == bytes => {}
            _ => return Ok(None), // evicted
        }
        let mut file = self.objects.open_object(&digest)?;
        let mut hasher = blake3::Hasher::new();
        let mut next = |numbers: usize| {
            let mut bytes = vec![0; numbers * 8];
            let read = file.read_exact(&mut bytes);
            read.map_err(Error::io("read", self.objects.path(&digest)))?;
            hasher.update(&bytes);
            Ok::<_, Error>(Tensor::from_data_size(
                &bytes,
                &[numbers as i64],
                Dtype::Double,
            ))
        };
        let columns = Tensor::empty([size as i64, size as i64], (Dtype::Double, Device::Cpu));
        for (from, some) in pieces(size) {
            let piece = next(some * size)?.view([some as i64, size as i64]);
            columns.narrow(0, from as i64, some as i64).copy_(&piece);
        }
        let list = list.then(|| next(size)).transpose()?;
        let actual = Digest::from(hasher.finalize());
        if actual != digest {
            let path = self.objects.path(&digest);
            // It is no object, and would be taken for one when the right numbers are kept.
            let _ = fs::remove_file(&path);
            return Err(Error::Corrupt {
                digest,
                path,
                actual,
            });
        }
        Ok(Some(Numbers {
            matrix: columns.tr(),
            list,
        }))
    }

    fn keep(&self, numbers: &Numbers) -> Result<(), Error> {
        let mut hasher = blake3::Hasher::new();
        each_piece(numbers, |bytes| {
            hasher.update(bytes);
            Ok(())
        })?;
        let (digest, bytes) = (Digest::from(hasher.finalize()), hasher.count());
        let _pin = self.objects.pin(&digest)?;
        if self.objects.size(&digest)? != Some(bytes) {
            let mut partial = self.objects.partial(&digest)?;
            let (done, mut at) = (partial.size(), 0);
            each_piece(numbers, |bytes| {
                // What an earlier process wrote of it stays.
                let written = done.saturating_sub(at).min(bytes.len() as u64);
                at += bytes.len() as u64;
                let rest = &bytes[written as usize..];
                match rest.is_empty() {
                    true => Ok(()),
                    false => partial.append(partial.size(), rest),
                }
            })?;
            partial.finish()?;
        }
        let folder = self.objects.root().join(FOLDER);
        fs::create_dir_all(&folder).map_err(Error::io("make", &folder))?;
        // Whole or not at all, whoever else writes it.
        let new = tempfile::NamedTempFile::new_in(&folder);
        let mut new = new.map_err(Error::io("write", &folder))?;
        writeln!(new, "{digest}").map_err(Error::io("write", &self.file))?;
        let kept = new.persist(&self.file);
        kept.map_err(|error| Error::io("write", &self.file)(error.error))?;
        Ok(())
    }
}

/// Columns that are read and written at a time: from which on, and how many.
fn pieces(size: usize) -> impl Iterator<Item = (usize, usize)> {
    let some = (CHUNK / 8 / size.max(1)).max(1);
    (0..size)
        .step_by(some)
        .map(move |from| (from, some.min(size - from)))
}

/// The numbers as they are kept, little-endian, a piece at a time.
fn each_piece(
    numbers: &Numbers,
    mut take: impl FnMut(&[u8]) -> Result<(), Error>,
) -> Result<(), Error> {
    let columns = numbers.matrix.tr();
    let mut give = |piece: &Tensor| {
        let piece = piece.to_device(Device::Cpu).contiguous().view([-1]);
        let piece = Vec::<f64>::try_from(&piece);
        let piece = piece
            .map_err(|error| Error::io("write", FOLDER)(io::Error::other(error.to_string())))?;
        let bytes: Vec<u8> = piece.iter().flat_map(|it| it.to_le_bytes()).collect();
        take(&bytes)
    };
    for (from, some) in pieces(columns.size()[0] as usize) {
        give(&columns.narrow(0, from as i64, some as i64))?;
    }
    numbers.list.as_ref().map_or(Ok(()), give)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::objects::Bound;

    fn store(folder: &std::path::Path, bytes: Option<u64>) -> ObjectStore {
        let bound = bytes.map(|bytes| Bound {
            bytes,
            setting: "worker.cache_size",
        });
        ObjectStore::open(folder).unwrap().as_cache(bound).unwrap()
    }

    fn numbers(size: i64) -> Numbers {
        tch::manual_seed(size);
        let double = (Dtype::Double, Device::Cpu);
        Numbers {
            matrix: Tensor::randn([size, size], double).tr(),
            list: Some(Tensor::randn([size], double)),
        }
    }

    /// Those kept under a name, or else made; with whether they were made.
    fn ask(kept: &Kept, name: &str, size: i64) -> (Numbers, bool) {
        let mut made = false;
        let make = || {
            made = true;
            Ok::<_, ()>(numbers(size))
        };
        let found = kept.or_make(name, (size as usize, true), Device::Cpu, make);
        (found.unwrap(), made)
    }

    fn same(found: &Numbers, size: i64) {
        let right = numbers(size);
        assert!(found.matrix.equal(&right.matrix));
        assert_eq!(found.matrix.stride(), right.matrix.stride());
        assert!(found.list.as_ref().unwrap().equal(&right.list.unwrap()));
    }

    #[test]
    fn what_was_made_once_is_read_again_by_any_process() {
        let folder = tempfile::tempdir().unwrap();
        for turn in 0..3 {
            // Each as a process of its own would open it.
            let kept = Kept::at(&store(folder.path(), None));
            let (found, made) = ask(&kept, "one", 500);
            assert_eq!(made, turn == 0);
            same(&found, 500);
        }
        let kept = Kept::at(&store(folder.path(), None));
        assert!(ask(&kept, "another", 500).1, "of another name");
        assert!(ask(&kept, "one", 400).1, "of another size");
    }

    #[test]
    fn what_is_gone_or_spoilt_is_made_again() {
        let folder = tempfile::tempdir().unwrap();
        let kept = Kept::at(&store(folder.path(), None));
        let (first, _) = ask(&kept, "one", 300);
        let mut bytes = Vec::new();
        each_piece(&first, |piece| {
            bytes.extend_from_slice(piece);
            Ok(())
        })
        .unwrap();
        let object = store(folder.path(), None).path(&Digest::of(&bytes));
        let small = Place::of(kept.objects.as_ref().unwrap(), "one").file;
        let spoil: [&dyn Fn(); 5] = [
            &|| fs::remove_file(&object).unwrap(),
            &|| fs::remove_file(&small).unwrap(),
            &|| fs::write(&small, "no digest").unwrap(),
            &|| fs::write(&object, &bytes[..bytes.len() - 8]).unwrap(),
            &|| {
                let mut other = bytes.clone();
                other[1000] ^= 1;
                fs::remove_file(&object).unwrap();
                fs::write(&object, other).unwrap();
            },
        ];
        for (n, spoil) in spoil.iter().enumerate() {
            spoil();
            let (found, made) = ask(&kept, "one", 300);
            assert!(made, "{n}");
            same(&found, 300);
            assert!(!ask(&kept, "one", 300).1, "{n}: kept again");
        }
    }

    #[test]
    fn a_cache_too_small_for_it_costs_the_time_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let kept = Kept::at(&store(folder.path(), Some(1 << 20)));
        for _ in 0..2 {
            for name in ["one", "another"] {
                same(&ask(&kept, name, 350).0, 350);
            }
        }
    }
}
