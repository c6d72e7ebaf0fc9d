//! The log: every batch of changes in the order in which they were made durable. It is the store's
//! truth; the database beside it is an index of it, which can be made again.
//!
//! ```text
//! log/00000000000000000001.log         batches from sequence number 1 on
//! log/00000000000000052100.log         the newest, which is appended to
//! log/00000000000000052100.checkpoint  every record as it stood when batch 52100 was the next, or later
//! ```
//!
//! A batch sets or removes whole records, so that to apply it again changes nothing. A checkpoint
//! may therefore be written while batches go on: it holds what was there at its number or later,
//! and the batches from that number on, applied again, give the state at their end. Files before a
//! checkpoint are removed when it is whole.

pub mod body;
pub mod checkpoint;
pub mod entry;
mod files;
pub mod shared;

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use self::entry::Mark;
use self::files::missing;
pub use self::files::{End, Files, Place, size};
use self::shared::{Made, Shared};
use super::folder::sync_folder;
use super::{Batch, Error};

/// A file is not appended to any more when it has this many bytes.
const SEGMENT: u64 = 64 << 20;

/// The end of the log, open for appending.
#[derive(Debug)]
pub struct Log {
    folder: PathBuf,
    path: PathBuf,
    file: File,
    length: u64,
    next: u64,
    /// The mark of the last batch, where it is known.
    mark: Option<Mark>,
    /// It takes nothing more: a write failed, and what the file holds is not known, or it was closed.
    broken: bool,
    /// Batches in the newest file.
    batches: u64,
    /// The log that the folder has a copy of, where it is in a bucket.
    shared: Option<Shared>,
}

impl Log {
    /// Makes the log in a folder, with no batches. Durable when it returns.
    ///
    /// # Errors
    /// [`Error::DamagedLog`] when there is a file of that number which holds something: it is left
    /// alone. [`Error::Io`], [`Error::NoSpace`].
    pub fn create(folder: &Path, next: u64) -> Result<Self, Error> {
        fs::create_dir_all(folder).map_err(Error::io("create", folder))?;
        let path = folder.join(format!("{next:020}.log"));
        let file = File::options()
            .create(true)
            .append(true)
            .open(&path)
            .map_err(Error::io("create", &path))?;
        if file.metadata().map_err(Error::io("read", &path))?.len() > 0 {
            return Err(missing(&path, "it holds batches already, and was to begin"));
        }
        sync_folder(folder)?;
        Ok(Self {
            mark: None,
            folder: folder.to_owned(),
            path,
            file,
            length: 0,
            next,
            broken: false,
            batches: 0,
            shared: None,
        })
    }

    /// Goes on with the log whose files were read to this end. What a crash has torn is cut off.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::NoSpace`].
    pub fn resume(folder: &Path, files: &Files, end: End) -> Result<Self, Error> {
        let Some((first, path)) = files.segments.last() else {
            return Self::create(folder, end.next);
        };
        let file = File::options()
            .append(true)
            .open(path)
            .map_err(Error::io("open", path))?;
        if let Some(whole) = end.torn {
            tracing::info!(path = %path.display(), offset = whole, "cutting off what a crash has torn");
            file.set_len(whole)
                .and_then(|()| file.sync_all())
                .map_err(Error::io("write", path))?;
        }
        let length = file.metadata().map_err(Error::io("read", path))?.len();
        Ok(Self {
            folder: folder.to_owned(),
            path: path.clone(),
            file,
            length,
            next: end.next,
            mark: end.mark,
            broken: false,
            batches: end.next - first,
            shared: None,
        })
    }

    /// The sequence number of the next batch.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// The mark of the last batch, where it is known.
    pub fn mark(&self) -> Option<Mark> {
        self.mark
    }

    /// Makes it the copy of a log in a bucket: from now on a batch is written there first.
    pub fn share(&mut self, shared: Shared) {
        self.shared = Some(shared);
    }

    /// The log in a bucket that it is a copy of, if it is one.
    pub fn shared(&self) -> Option<&Shared> {
        self.shared.as_ref()
    }

    /// By what the batches of this process are known, where others write too.
    pub fn leader(&self) -> Option<Vec<u8>> {
        let leader = self.shared.as_ref().map(Shared::leader);
        leader.map(|leader| leader.as_bytes().to_vec())
    }

    /// Appends a batch, deflated where `deflate` allows it and that is shorter, and gives its place.
    /// Durable when it returns. After an error nothing more is taken, for what the disk holds is not
    /// known; but for an error of a bucket: the same batch may be tried again then.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::NoSpace`], [`Error::TooLarge`], after which the file is as it was.
    /// Of a log in a bucket [`Error::Deposed`] too, and those of the bucket.
    pub fn append(&mut self, batch: &Batch, deflate: bool) -> Result<Place, Error> {
        let (place, bytes) = self.entry(batch, deflate)?;
        if let Some(shared) = &mut self.shared
            && shared.make(place, &bytes)? == Made::Taken
        {
            return Err(Error::Deposed {
                batch: place.sequence,
            });
        }
        self.write(place, &bytes)?;
        Ok(place)
    }

    /// A batch as the next entry.
    fn entry(&self, batch: &Batch, deflate: bool) -> Result<(Place, Vec<u8>), Error> {
        self.check_usable()?;
        let body = body::write(batch, deflate);
        let place = Place {
            sequence: self.next,
            mark: entry::mark(&body),
        };
        Ok((place, entry::encode(place.sequence, &body)?))
    }

    /// Appends the batch by which its writer leads from then on, if nobody else has gone on with the
    /// log. None when somebody has.
    ///
    /// # Errors
    /// Those of [`Log::append`].
    pub fn take_over(&mut self, batch: &Batch) -> Result<Option<Place>, Error> {
        let (place, bytes) = self.entry(batch, true)?;
        let Some(shared) = &mut self.shared else {
            return Ok(None);
        };
        if shared.make(place, &bytes)? == Made::Taken {
            return Ok(None);
        }
        if shared.goes_on(place.sequence)? {
            // It came so late that the name of the log's own batch was free again.
            shared.take_back(place.sequence);
            return Ok(None);
        }
        self.write(place, &bytes)?;
        Ok(Some(place))
    }

    /// Appends batches as others wrote them. Durable when it returns.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::NoSpace`].
    pub fn copy(&mut self, batches: &[(Place, Vec<u8>)]) -> Result<(), Error> {
        self.check_usable()?;
        let Some((last, _)) = batches.last() else {
            return Ok(());
        };
        let bytes: Vec<&[u8]> = batches.iter().map(|(_, bytes)| bytes.as_slice()).collect();
        let count = batches.len() as u64;
        self.write(*last, &bytes.concat())?;
        self.batches += count - 1;
        Ok(())
    }

    fn check_usable(&self) -> Result<(), Error> {
        if self.broken {
            let broken = std::io::Error::other("an earlier write failed, or it was closed");
            return Err(Error::io("write", &self.path)(broken));
        }
        Ok(())
    }

    /// Writes the bytes of batches, of which `last` is the last.
    fn write(&mut self, last: Place, bytes: &[u8]) -> Result<(), Error> {
        let written = self
            .file
            .write_all(bytes)
            .and_then(|()| self.file.sync_data());
        if let Err(error) = written {
            self.broken = true;
            // Best left without half an entry; the next open cuts it off otherwise.
            let _ = self.file.set_len(self.length);
            return Err(Error::io("write", &self.path)(error));
        }
        self.length += bytes.len() as u64;
        self.next = last.sequence + 1;
        self.mark = Some(last.mark);
        self.batches += 1;
        Ok(())
    }

    /// Takes nothing more.
    pub fn close(&mut self) {
        self.broken = true;
    }

    /// Whether the newest file is long enough for another to begin.
    pub fn is_long(&self) -> bool {
        let most = self.shared.as_ref().map(Shared::file_batches);
        self.length >= SEGMENT || most.is_some_and(|most| self.batches >= most)
    }

    /// Begins another file.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::NoSpace`]; the log goes on in the old file then.
    pub fn rotate(&mut self) -> Result<(), Error> {
        if self.length > 0 {
            let next = Self::create(&self.folder, self.next)?;
            *self = Self {
                mark: self.mark,
                shared: self.shared.take(),
                ..next
            };
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::Write;
    use super::*;

    fn batch(n: u64) -> Batch {
        Batch {
            writes: vec![Write {
                key: n.to_be_bytes().to_vec(),
                value: Some(vec![n as u8; 100]),
            }],
            ..Batch::default()
        }
    }

    fn replay(folder: &Path, from: u64) -> Result<(Vec<u64>, End), Error> {
        let mut seen = Vec::new();
        let end = Files::list(folder)?.replay(from, |place, found| {
            assert_eq!(found, batch(place.sequence));
            seen.push(place.sequence);
            Ok(())
        })?;
        Ok((seen, end))
    }

    #[test]
    fn batches_come_back_in_order_over_several_files_and_a_torn_end() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = Log::create(folder.path(), 1).unwrap();
        for n in 1..=6 {
            assert_eq!(log.append(&batch(n), n > 3).unwrap().sequence, n);
            if n % 2 == 0 {
                log.rotate().unwrap();
            }
        }
        let mark = log.mark();
        drop(log);
        let end = End {
            next: 7,
            torn: None,
            mark,
        };
        assert_eq!(Files::list(folder.path()).unwrap().end().unwrap(), end);
        assert_eq!(replay(folder.path(), 0).unwrap(), ((1..=6).collect(), end));
        assert_eq!(replay(folder.path(), 4).unwrap(), ((4..=6).collect(), end));

        let torn = entry::encode(7, b"half").unwrap();
        let last = folder.path().join(format!("{:020}.log", 7));
        fs::write(&last, &torn[..20]).unwrap();
        let end = End {
            next: 7,
            torn: Some(0),
            mark,
        };
        assert_eq!(replay(folder.path(), 5).unwrap(), (vec![5, 6], end));
        let files = Files::list(folder.path()).unwrap();
        let mut log = Log::resume(folder.path(), &files, end).unwrap();
        log.append(&batch(7), true).unwrap();
        assert_eq!(replay(folder.path(), 6).unwrap().0, [6, 7]);
    }

    #[test]
    fn a_missing_file_is_damage() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = Log::create(folder.path(), 1).unwrap();
        for n in 1..=6 {
            log.append(&batch(n), true).unwrap();
            log.rotate().unwrap();
        }
        fs::remove_file(folder.path().join(format!("{:020}.log", 3))).unwrap();
        assert!(matches!(
            replay(folder.path(), 1),
            Err(Error::DamagedLog { .. })
        ));
    }
}
