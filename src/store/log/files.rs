//! The files of a log, as they are read.

use std::fs;
use std::path::{Path, PathBuf};

use super::super::{Batch, Error};
use super::entry::{self, Mark, Next, Reader};
use super::{body, checkpoint};

/// The files of a log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Files {
    /// The newest checkpoint: its sequence number and its file.
    pub checkpoint: Option<(u64, PathBuf)>,
    /// The segments that are read on top of it, in order: first sequence number and file.
    pub segments: Vec<(u64, PathBuf)>,
    /// What a newer checkpoint has replaced, and files that were never finished.
    pub obsolete: Vec<PathBuf>,
}

impl Files {
    /// Lists a folder, which may be missing.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn list(folder: &Path) -> Result<Self, Error> {
        let mut files = Self::default();
        let mut checkpoints = Vec::new();
        let entries = match fs::read_dir(folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(files),
            Err(error) => return Err(Error::io("read", folder)(error)),
        };
        for entry in entries {
            let path = entry.map_err(Error::io("read", folder))?.path();
            let number = path
                .file_stem()
                .and_then(|stem| stem.to_str())
                .and_then(|stem| stem.parse::<u64>().ok());
            match (number, path.extension().and_then(|e| e.to_str())) {
                (Some(number), Some("log")) => files.segments.push((number, path)),
                (Some(number), Some("checkpoint")) => checkpoints.push((number, path)),
                (_, Some("new")) => files.obsolete.push(path),
                _ => {}
            }
        }
        files.segments.sort_unstable();
        checkpoints.sort_unstable();
        files.checkpoint = checkpoints.pop();
        files
            .obsolete
            .extend(checkpoints.into_iter().map(|(_, path)| path));
        if let Some((sequence, _)) = &files.checkpoint {
            // Segments begin where a checkpoint was, so none lies across it.
            let (before, after) = std::mem::take(&mut files.segments)
                .into_iter()
                .partition(|(first, _)| first < sequence);
            let before: Vec<(u64, PathBuf)> = before;
            files.segments = after;
            files
                .obsolete
                .extend(before.into_iter().map(|(_, path)| path));
        }
        Ok(files)
    }

    /// The first sequence number whose batch is there.
    pub fn first(&self) -> u64 {
        self.segments.first().map_or(1, |(first, _)| *first)
    }

    /// Whether there is nothing to read: every log has a segment, if only an empty one.
    ///
    /// # Errors
    /// [`Error::DamagedLog`].
    pub fn check_there(&self, folder: &Path) -> Result<(), Error> {
        if self.segments.is_empty() {
            return Err(missing(folder, "it has no files"));
        }
        if self.checkpoint.is_none() && self.first() > 1 {
            return Err(missing(folder, "its first files are missing"));
        }
        Ok(())
    }

    /// The mark of a batch; none when it is not there, or not any more.
    ///
    /// # Errors
    /// [`Error::DamagedLog`], [`Error::Io`].
    pub fn mark_of(&self, sequence: u64) -> Result<Option<Mark>, Error> {
        if sequence + 1 == self.first()
            && let Some((_, path)) = &self.checkpoint
        {
            return checkpoint::before(path);
        }
        let mut segments = self.segments.iter().rev();
        let Some((_, path)) = segments.find(|(first, _)| *first <= sequence) else {
            return Ok(None);
        };
        let mut reader = Reader::open(path)?;
        while let Next::Entry(found, body) = reader.next()? {
            if found == sequence {
                return Ok(Some(entry::mark(&body)));
            }
        }
        Ok(None)
    }

    /// Where the log ends, with the mark of its last batch. Reads no more of it than that takes.
    ///
    /// # Errors
    /// Those of [`Files::replay`].
    pub fn end(&self) -> Result<End, Error> {
        let mut end = self.replay(
            self.segments.last().map_or(1, |(first, _)| *first),
            |_, _| Ok(()),
        )?;
        if end.mark.is_none() && end.next > 1 {
            end.mark = self.mark_of(end.next - 1)?;
        }
        Ok(end)
    }

    /// Reads the batches from a sequence number on. Gives the number that the next batch will have.
    ///
    /// # Errors
    /// [`Error::DamagedLog`] when a batch is missing or does not decode, [`Error::Io`], and what
    /// `visit` fails with.
    pub fn replay(
        &self,
        from: u64,
        mut visit: impl FnMut(Place, Batch) -> Result<(), Error>,
    ) -> Result<End, Error> {
        let mut end = End {
            next: self.first(),
            torn: None,
            mark: None,
        };
        for (n, (first, path)) in self.segments.iter().enumerate() {
            let after = self.segments.get(n + 1).map(|(first, _)| *first);
            if after.is_some_and(|after| after <= from) {
                end.next = after.unwrap_or(end.next);
                continue;
            }
            let mut reader = Reader::open(path)?;
            if *first != end.next {
                return Err(reader.damaged(format!(
                    "it begins with batch {first}, batch {} was to come",
                    end.next
                )));
            }
            loop {
                let at = reader.offset();
                match reader.next()? {
                    Next::End => break,
                    Next::Torn if after.is_none() => {
                        end.torn = Some(at);
                        break;
                    }
                    Next::Torn => return Err(reader.damaged("it ends inside a batch")),
                    Next::Entry(sequence, _) if sequence != end.next => {
                        return Err(reader.damaged(format!(
                            "batch {sequence} stands where batch {} was to come",
                            end.next
                        )));
                    }
                    Next::Entry(sequence, body) => {
                        let mark = entry::mark(&body);
                        (end.next, end.mark) = (sequence + 1, Some(mark));
                        if sequence >= from {
                            let batch = body::read(&body).map_err(|e| reader.damaged(e))?;
                            visit(Place { sequence, mark }, batch)?;
                        }
                    }
                }
            }
        }
        Ok(end)
    }
}

/// Which batch of which log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its sequence number.
    pub sequence: u64,
    /// Its mark.
    pub mark: Mark,
}

/// Where a log ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// The sequence number of the batch that will be written next.
    pub next: u64,
    /// Where in the last file an entry begins that a crash has torn.
    pub torn: Option<u64>,
    /// The mark of the last batch that was read.
    pub mark: Option<Mark>,
}

/// What is wrong with a log that lacks something.
pub fn missing(path: &Path, what: &str) -> Error {
    Error::DamagedLog {
        path: path.to_owned(),
        offset: 0,
        what: what.to_owned(),
    }
}

/// Bytes of a file.
pub fn size(path: &Path) -> Result<u64, Error> {
    let metadata = fs::metadata(path).map_err(Error::io("read", path))?;
    Ok(metadata.len())
}
