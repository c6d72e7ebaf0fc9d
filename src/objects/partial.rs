//! Objects on their way in, piece by piece.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use super::lock::open_locked;
use super::{Digest, Error, ObjectStore};

/// An object on its way in. Dropped, it leaves what has come so far, to go on from later.
#[derive(Debug)]
pub struct Partial {
    store: ObjectStore,
    digest: Digest,
    path: PathBuf,
    /// Locked.
    pub(super) file: File,
    /// Has seen the file's bytes; its count is how many there are. Boxed for its 2 KB: writers are
    /// moved between threads with every piece.
    hasher: Box<blake3::Hasher>,
}

impl ObjectStore {
    /// Begins to write an object piece by piece, or goes on where an earlier writer stopped; what
    /// is there already is read again, to hash it.
    ///
    /// # Errors
    /// [`Error::Busy`] while another writer has it; [`Error::NoSpace`] or [`Error::Io`].
    pub fn partial(&self, digest: &Digest) -> Result<Partial, Error> {
        Partial::open(self, digest)
    }
}

impl Partial {
    /// Begins to write an object, or goes on where an earlier writer stopped; what is there
    /// already is read again, to hash it.
    fn open(store: &ObjectStore, digest: &Digest) -> Result<Self, Error> {
        let path = store.partial_path(digest);
        let Some(file) = open_locked(&path)? else {
            return Err(Error::Busy { digest: *digest });
        };
        let mut hasher = Box::new(blake3::Hasher::new());
        hasher
            .update_reader(&file)
            .map_err(Error::io("read", &path))?;
        Ok(Self {
            store: store.clone(),
            digest: *digest,
            path,
            file,
            hasher,
        })
    }

    /// The object.
    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    /// Bytes that are there.
    pub fn size(&self) -> u64 {
        self.hasher.count()
    }

    /// Whether the bytes that are there are the object.
    pub fn is_whole(&self) -> bool {
        Digest::from(self.hasher.finalize()) == self.digest
    }

    /// Adds bytes to the end, which `offset` must name.
    ///
    /// # Errors
    /// [`Error::Offset`]; [`Error::NoSpace`] or [`Error::Io`], after which the bytes that were
    /// there before are still there.
    pub fn append(&mut self, offset: u64, bytes: &[u8]) -> Result<(), Error> {
        let size = self.size();
        if offset != size {
            return Err(Error::Offset {
                digest: self.digest,
                offset,
                committed: size,
            });
        }
        self.store.make_room(bytes.len() as u64);
        if let Err(error) = self.file.write_all_at(bytes, size) {
            // Some of the bytes may have been written, and they are not hashed. Should they stay,
            // the next writer's digest is wrong, and it begins anew.
            let _ = self.file.set_len(size);
            return Err(Error::io("write", &self.path)(error));
        }
        self.hasher.update(bytes);
        Ok(())
    }

    /// Checks the digest and stores the object. Durable when it returns.
    ///
    /// # Errors
    /// [`Error::Mismatch`], after which nothing is left; [`Error::NoSpace`] or [`Error::Io`].
    pub fn finish(self) -> Result<(), Error> {
        let actual = Digest::from(self.hasher.finalize());
        if actual != self.digest {
            let expected = self.digest;
            self.discard()?;
            return Err(Error::Mismatch { expected, actual });
        }
        if let Err(error) = self.file.sync_all() {
            // What the disk holds now is unknown, though the system may read it back as if it
            // were whole: not to be gone on from.
            let failed = Error::io("flush", &self.path)(error);
            self.discard()?;
            return Err(failed);
        }
        self.store.place(&self.path, &self.digest)
    }

    /// Removes what has come so far.
    ///
    /// # Errors
    /// [`Error::Io`] when the file cannot be removed.
    pub fn discard(self) -> Result<(), Error> {
        fs::remove_file(&self.path).map_err(Error::io("remove", self.path))
    }
}
