//! Bytes on their way out of a bucket.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::mpsc::Receiver;

use bytes::Bytes;
use object_store::ObjectStore as _;
use object_store::path::Path as Key;

use super::super::{Digest, Error};
use super::{Bucket, PART, PARTS_AHEAD, Trouble, is_missing, timed};
use crate::blocking::in_place;

impl Bucket {
    /// Gives the bytes of an object in their order, piece by piece, to `take`, and tells whether
    /// there is such an object. Whether the bytes are those of its name is for the caller to see.
    ///
    /// # Errors
    /// [`Error::BucketAway`], [`Error::BucketRefused`], and those of `take`.
    pub(crate) fn download(
        &self,
        digest: &Digest,
        take: impl FnMut(&[u8]) -> Result<(), Error>,
    ) -> Result<bool, Error> {
        self.read_key(
            &self.key_of(digest),
            &format!("fetch object {digest}"),
            take,
        )
    }

    /// [`Bucket::download`] of any key; `action` says what it is, for errors.
    pub(super) fn read_key(
        &self,
        key: &Key,
        action: &str,
        mut take: impl FnMut(&[u8]) -> Result<(), Error>,
    ) -> Result<bool, Error> {
        let action = || action.to_owned();
        let store = self.store();
        let first = key.clone();
        // Most are small: they come with the first answer.
        let found = self.wait(action(), async move {
            match store.get(&first).await {
                Ok(found) if found.meta.size > PART => Ok(Some(Err(found.meta.size))),
                Ok(found) => Ok(Some(Ok(found.bytes().await?))),
                Err(error) if is_missing(&error) => Ok(None),
                Err(error) => Err(error),
            }
        })?;
        let size = match found {
            None => return Ok(false),
            Some(Ok(bytes)) => return take(&bytes).map(|()| true),
            Some(Err(size)) => size,
        };
        let mut ahead = VecDeque::new();
        let mut offset = 0;
        while offset < size || !ahead.is_empty() {
            while offset < size && ahead.len() < PARTS_AHEAD {
                let end = size.min(offset + PART);
                ahead.push_back(self.piece(key.clone(), offset..end)?);
                offset = end;
            }
            if let Some(next) = ahead.pop_front() {
                let piece = in_place(move || next.recv()).map_err(|_| Error::Stopping)?;
                take(&piece.map_err(|trouble| self.error(action(), trouble))?)?;
            }
        }
        Ok(true)
    }

    fn piece(
        &self,
        key: Key,
        range: Range<u64>,
    ) -> Result<Receiver<Result<Bytes, Trouble>>, Error> {
        let (store, limit) = (self.store(), self.limit());
        self.begin(async move { timed(limit, store.get_range(&key, range)).await })
    }
}
