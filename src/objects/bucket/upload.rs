//! Bytes on their way into a bucket.

use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt, stream};
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path as Key;
use object_store::{ObjectStore as _, PutPayload};

use super::super::{Digest, Error, read_piece};
use super::{Bucket, PART, PARTS_AHEAD, Trouble, timed};

/// Parts of an object, at most: S3 takes 10,000.
const MOST_PARTS: u64 = 9_000;

impl Bucket {
    /// Stores a file's bytes under their name, of which the caller is sure. When it returns, the
    /// bucket has them all; when it fails, nobody sees any of them.
    ///
    /// A large object goes in parts. `unfinished` is a file that says, from before the first of
    /// them to after the last, which parts there are to be cleared away: see [`Bucket::abandon`].
    ///
    /// # Errors
    /// [`Error::BucketAway`], [`Error::BucketRefused`]; [`Error::Io`] when the file cannot be
    /// read.
    pub(crate) fn upload(
        &self,
        digest: &Digest,
        path: &Path,
        unfinished: &Path,
    ) -> Result<(), Error> {
        self.store_file(
            self.key_of(digest),
            format!("store object {digest}"),
            path,
            unfinished,
        )
    }

    /// [`Bucket::upload`] under any key; `action` says what it is, for errors.
    pub(super) fn store_file(
        &self,
        key: Key,
        action: String,
        path: &Path,
        unfinished: &Path,
    ) -> Result<(), Error> {
        let file = File::open(path).map_err(Error::io("open", path))?;
        let size = file.metadata().map_err(Error::io("read", path))?.len();
        let (file, path) = (Arc::new(file), path.to_owned());
        let (store, limit) = (self.store(), self.limit());
        let read = move |offset: u64, length: u64| {
            let (file, path) = (Arc::clone(&file), path.clone());
            async move {
                read_piece(&file, offset, length as usize)
                    .await
                    .map(PutPayload::from)
                    .map_err(|error| Trouble::Here(Error::io("read", path)(error)))
            }
        };
        if size <= PART {
            return self.run(action, async move {
                let bytes = read(0, size).await?;
                timed(limit, store.put(&key, bytes)).await.map(drop)
            });
        }

        let begun = {
            let (store, key) = (Arc::clone(&store), key.clone());
            self.wait(
                action.clone(),
                async move { store.create_multipart(&key).await },
            )?
        };
        fs::write(unfinished, &begun).map_err(Error::io("write", unfinished))?;
        let length = part_length(size);
        let sent = self.run(action, {
            let key = key.clone();
            async move {
                let part = |number: u64| {
                    let (store, key, begun) = (&store, &key, &begun);
                    let offset = number * length;
                    let bytes = read(offset, length.min(size - offset));
                    async move {
                        let put = store.put_part(key, begun, number as usize, bytes.await?);
                        timed(limit, put).await
                    }
                };
                let parts: Vec<PartId> = stream::iter((0..size.div_ceil(length)).map(part))
                    .buffered(PARTS_AHEAD)
                    .try_collect()
                    .await?;
                let whole = store.complete_multipart(&key, &begun, parts);
                timed(limit, whole).await.map(drop)
            }
        });
        match sent {
            Ok(()) => fs::remove_file(unfinished).map_err(Error::io("remove", unfinished)),
            Err(error) => {
                // If this fails too, it is left to the next time the store is opened.
                if let Err(later) = self.abort(key, unfinished) {
                    tracing::debug!(error = %later, "parts are left in the bucket for now");
                }
                Err(error)
            }
        }
    }

    /// Clears away the parts of an object whose upload did not come to its end, and the file that
    /// names them.
    ///
    /// # Errors
    /// [`Error::BucketAway`], [`Error::BucketRefused`], [`Error::Io`]; the file is kept then.
    pub(crate) fn abandon(&self, digest: &Digest, unfinished: &Path) -> Result<(), Error> {
        self.abort(self.key_of(digest), unfinished)
    }

    /// [`Bucket::abandon`] of any key.
    pub(super) fn abort(&self, key: Key, unfinished: &Path) -> Result<(), Error> {
        let begun = fs::read_to_string(unfinished).map_err(Error::io("read", unfinished))?;
        let store = self.store();
        self.wait(format!("clear away parts of {key}"), async move {
            match store.abort_multipart(&key, &begun).await {
                Err(object_store::Error::NotFound { .. }) => Ok(()),
                aborted => aborted,
            }
        })?;
        fs::remove_file(unfinished).map_err(Error::io("remove", unfinished))
    }
}

/// Bytes of every part but the last.
fn part_length(size: u64) -> u64 {
    size.div_ceil(MOST_PARTS)
        .next_multiple_of(1 << 20)
        .max(PART)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_objects_still_fit_into_the_parts_that_there_may_be() {
        assert_eq!(part_length(PART + 1), PART);
        for size in [1 << 30, 80 << 30, 5 << 40] {
            let length = part_length(size);
            assert!(size.div_ceil(length) <= 10_000);
            // S3's limit for a part, and what four of them take of memory.
            assert!(length <= 1 << 30, "{length}");
        }
    }
}
