//! A log in a bucket, to which every coordinator of the store may write, one at a time.
//!
//! ```text
//! log/batches/00000000000000000042       batch 42, an entry as in a file
//! log/segments/00000000000000000001-00000000000000000040
//!                                        batches 1 to 40, a file of a folder's log
//! log/checkpoints/00000000000000000041   every record as it stood when batch 41 was the next
//! ```
//!
//! Batch N is made by whoever is first to make it, and it alone: the log is its own lock. A
//! coordinator that finds its next number taken has been deposed, and acknowledges nothing more (I14).
//! There is no clock in this, and nothing to release: whatever stops, another writes the next batch.
//!
//! Every coordinator has a copy of the log in its folder, which its index is made of. Batches that
//! fill a file there are put into the bucket again as that file, and then removed one by one. The
//! name of a batch is what keeps a late request from making a second one, so that not all of them
//! may be removed:
//! - A leader writes one batch at a time. The number that it may still try to make when it is no
//!   leader any more is that of the first batch of the one who deposed it. Such batches stay.
//! - One that takes over may be late too, at any number. It looks behind itself: if the log has gone
//!   on from there, in batches, in a file or in a checkpoint, then it leads nothing.
//! - What such a late one has made may lie there. A reader takes a batch only if no file and no
//!   checkpoint has its number, and looks for these after it has read the batch: they are there before
//!   the batches in them are removed.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use uuid::Uuid;

use super::super::records::{Said, Sign};
use super::super::{Batch, Error};
use super::entry::{self, Next, Reader};
use super::files::{Files, Place};
use super::{body, checkpoint};
use crate::objects::Shelf;

/// Batches that are read at a time.
const READ_AHEAD: usize = 256;
/// Files and checkpoints that are looked at, at most: there are a few hundred of the first, and one
/// or two of the others.
const MOST_FILES: usize = 100_000;

/// The end of the log in a bucket.
#[derive(Clone, Debug)]
pub struct Shared {
    shelf: Arc<dyn Shelf>,
    leader: Uuid,
    /// Batches of a file of the folder.
    file_batches: u64,
    /// A batch that may be there: what was said when it was made did not come.
    tried: Option<(u64, entry::Mark)>,
}

/// What is to be done with a batch that was to be made.
#[derive(Debug, PartialEq, Eq)]
pub enum Made {
    /// It is there.
    Ours,
    /// Another one is.
    Taken,
}

impl Shared {
    /// The log on a shelf, for a coordinator that has written nothing there yet.
    pub fn new(shelf: Arc<dyn Shelf>, file_batches: u64) -> Self {
        Self {
            shelf,
            leader: Uuid::now_v7(),
            file_batches,
            tried: None,
        }
    }

    /// A file of the folder is not appended to any more when it has this many batches.
    pub fn file_batches(&self) -> u64 {
        self.file_batches
    }

    /// By what its batches are known.
    pub fn leader(&self) -> Uuid {
        self.leader
    }

    /// Makes a batch. One of which nobody knows whether it was made is made again by the next call,
    /// which has to be given the same, unless the log was seen to go on.
    ///
    /// # Errors
    /// Those of the bucket, [`Error::Unclear`].
    pub fn make(&mut self, place: Place, bytes: &[u8]) -> Result<Made, Error> {
        let Place { sequence, mark } = place;
        let other = |(tried, of_it): (u64, entry::Mark)| tried == sequence && of_it != mark;
        if self.tried.is_some_and(other) {
            return Err(self.unclear(sequence));
        }
        self.tried = Some((sequence, mark));
        let name = batch_name(sequence);
        let made = if self.shelf.create(&name, bytes)? {
            Made::Ours
        } else {
            // Perhaps by an earlier call, whose answer was lost.
            match self.shelf.get(&[name])?.pop().flatten() {
                Some(found) if found == bytes => Made::Ours,
                Some(_) => Made::Taken,
                // Another request for that name is under way.
                None => return Err(self.unclear(sequence)),
            }
        };
        self.tried = None;
        Ok(made)
    }

    /// Whether the log goes on behind a batch, or has it in a file: then what was made at that number
    /// just now is none of its batches.
    ///
    /// # Errors
    /// Those of the bucket.
    pub fn goes_on(&self, sequence: u64) -> Result<bool, Error> {
        let behind = number(sequence);
        if !self.shelf.list(BATCHES, &behind, 1)?.is_empty() {
            return Ok(true);
        }
        // A file is removed when a checkpoint has what is in it: in this order, one of them is seen.
        if self.segments()?.iter().any(|it| it.last >= sequence) {
            return Ok(true);
        }
        Ok(self.checkpoints()?.last().is_some_and(|it| *it > sequence))
    }

    fn segments(&self) -> Result<Vec<Segment>, Error> {
        let names = self.shelf.list(SEGMENTS, "", MOST_FILES)?;
        Ok(names
            .iter()
            .filter_map(|name| Segment::named(name))
            .collect())
    }

    fn checkpoints(&self) -> Result<Vec<u64>, Error> {
        let names = self.shelf.list(CHECKPOINTS, "", MOST_FILES)?;
        Ok(names.iter().filter_map(|name| name.parse().ok()).collect())
    }

    /// Fetches the newest checkpoint into a folder that has no log, and gives the number of the batch
    /// with which the copy begins.
    ///
    /// # Errors
    /// Those of the bucket, [`Error::Io`], [`Error::NoSpace`].
    pub fn begin(&self, folder: &Path) -> Result<u64, Error> {
        let mut gone = None;
        while let Some(newest) = self.checkpoints()?.pop() {
            fs::create_dir_all(folder).map_err(Error::io("create", folder))?;
            let path = checkpoint::path(folder, newest);
            let unfinished = path.with_extension("new");
            let name = format!("{CHECKPOINTS}/{}", number(newest));
            if self.shelf.fetch(&name, &unfinished)? {
                fs::rename(&unfinished, &path).map_err(Error::io("rename", &path))?;
                return Ok(newest);
            }
            // A newer one has replaced it meanwhile.
            if gone.replace(newest) == Some(newest) {
                return Err(self.lacks(newest));
            }
        }
        Ok(1)
    }

    /// The batches that follow on a number as far as one look goes, each with its bytes as they lie
    /// in a file; none when there are no more. `folder` is for a file on its way.
    ///
    /// # Errors
    /// [`Error::Behind`] when the batch of that number is in a checkpoint only; those of the
    /// bucket; [`Error::DamagedLog`].
    pub fn read(&self, next: u64, folder: &Path) -> Result<Vec<(Place, Vec<u8>)>, Error> {
        let before = number(next - 1);
        let names = self.shelf.list(BATCHES, &before, READ_AHEAD)?;
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let follow = |(n, name): (usize, &&String)| name.parse() == Ok(next + n as u64);
        let wanted: Vec<String> = names
            .iter()
            .enumerate()
            .take_while(|(n, name)| follow((*n, name)))
            .map(|(_, name)| format!("{BATCHES}/{name}"))
            .collect();
        let found = self.shelf.get(&wanted)?;
        // After the batches were read: a file is there before they are removed.
        let segments = self.segments()?;
        let within = segments
            .iter()
            .filter(|it| (it.first..=it.last).contains(&next));
        if let Some(segment) = within.max_by_key(|it| it.last) {
            return self.read_segment(*segment, next, folder);
        }
        let first_in_a_file = segments.iter().map(|it| it.first).filter(|it| *it > next);
        let until = first_in_a_file.min().unwrap_or(u64::MAX);
        if self.checkpoints()?.last().is_some_and(|it| *it > next) {
            return Err(Error::Behind);
        }
        let mut batches = Vec::new();
        for (sequence, bytes) in (next..until).zip(found) {
            // One that was removed meanwhile is in a file, which the next look finds.
            let Some(bytes) = bytes else { break };
            let body = entry::body(&bytes, sequence)
                .ok_or_else(|| self.damaged(sequence, "it is no whole batch of that number"))?;
            let mark = entry::mark(body);
            batches.push((Place { sequence, mark }, bytes));
        }
        if batches.is_empty() && wanted.is_empty() {
            return Err(self.lacks(next));
        }
        Ok(batches)
    }

    fn read_segment(
        &self,
        segment: Segment,
        next: u64,
        folder: &Path,
    ) -> Result<Vec<(Place, Vec<u8>)>, Error> {
        let fetched = folder.join("segment.new");
        if !self.shelf.fetch(&segment.name(), &fetched)? {
            // A checkpoint has replaced it just now.
            return Err(Error::Behind);
        }
        let mut reader = Reader::open(&fetched)?;
        let mut batches = Vec::new();
        while let Next::Entry(sequence, body) = reader.next()? {
            if sequence >= next {
                let mark = entry::mark(&body);
                batches.push((Place { sequence, mark }, entry::encode(sequence, &body)?));
            }
        }
        fs::remove_file(&fetched).map_err(Error::io("remove", &fetched))?;
        match batches.last() {
            Some((last, _)) if last.sequence == segment.last => Ok(batches),
            _ => Err(self.damaged(segment.last, "the file that has it ends before it")),
        }
    }

    /// Sees that a folder's log has all that this one has, so that it may take its place.
    ///
    /// # Errors
    /// Those of the bucket; [`Error::OtherSharedLog`] when it has not.
    pub fn check_within(&self, files: &Files, folder: &Path) -> Result<(), Error> {
        let Some(last) = self.shelf.list(BATCHES, "", MOST_FILES)?.pop() else {
            return Ok(());
        };
        let batch = last.parse().unwrap_or(u64::MAX);
        let found = self.shelf.get(&[format!("{BATCHES}/{last}")])?.pop();
        let body = found.flatten().unwrap_or_default();
        let theirs = entry::body(&body, batch).map(entry::mark);
        // Whoever has the last one has all before it: each was made by one who had read those.
        if theirs.is_some() && files.mark_of(batch)? == theirs {
            return Ok(());
        }
        Err(Error::OtherSharedLog {
            path: folder.to_owned(),
            bucket: self.shelf.place(),
            batch,
        })
    }

    /// Puts a file of the folder's log, which nothing is appended to any more, into the bucket, and
    /// removes the batches that are in it, but for the last and for the first of each leader.
    ///
    /// # Errors
    /// Those of the bucket, [`Error::Io`], [`Error::DamagedLog`].
    pub fn compact(&self, first: u64, path: &Path) -> Result<(), Error> {
        let mut reader = Reader::open(path)?;
        let (mut last, mut stay) = (None, Vec::new());
        while let Next::Entry(sequence, body) = reader.next()? {
            let batch = body::read(&body).map_err(|what| reader.damaged(what))?;
            last = Some(sequence);
            if said(&batch) == Said::TookOver {
                stay.push(sequence);
            }
        }
        let Some(last) = last else { return Ok(()) };
        let segment = Segment { first, last };
        if !self.segments()?.contains(&segment) {
            self.shelf.put(&segment.name(), path)?;
        }
        // The last one stays, so that who lists what follows on an earlier batch sees that something
        // does.
        let mut behind = number(first - 1);
        loop {
            let names = self.shelf.list(BATCHES, &behind, READ_AHEAD)?;
            let inside = |name: &&String| name.parse().is_ok_and(|it: u64| it < last);
            let of_it: Vec<&String> = names.iter().take_while(inside).collect();
            let Some(newest) = of_it.last() else { break };
            behind = (*newest).clone();
            let goes = |name: &&&String| !name.parse().is_ok_and(|it: u64| stay.contains(&it));
            let gone: Vec<String> = of_it
                .iter()
                .filter(goes)
                .map(|name| format!("{BATCHES}/{name}"))
                .collect();
            self.shelf.remove(&gone)?;
        }
        Ok(())
    }

    /// Takes in the whole log of a folder, whose last file is empty.
    ///
    /// # Errors
    /// Those of [`Shared::compact`].
    pub fn take_in(&self, files: &Files) -> Result<(), Error> {
        let Some((next, _)) = files.segments.last() else {
            return Ok(());
        };
        if let Some((first, path)) = &files.checkpoint {
            self.shelf
                .put(&format!("{CHECKPOINTS}/{}", number(*first)), path)?;
        }
        let finished = files.segments.iter().filter(|(first, _)| first < next);
        for (first, path) in finished {
            self.compact(*first, path)?;
        }
        Ok(())
    }

    /// Puts the last batch of such a log there by itself, by which others find the rest.
    ///
    /// # Errors
    /// Those of the bucket, [`Error::Io`]; [`Error::OtherSharedLog`] when another log is there.
    pub fn show(&self, files: &Files) -> Result<(), Error> {
        let Some((_, path)) = files.segments.iter().rev().nth(1) else {
            return Ok(());
        };
        let mut reader = Reader::open(path)?;
        let mut last = None;
        while let Next::Entry(sequence, body) = reader.next()? {
            last = Some((sequence, body));
        }
        let Some((sequence, body)) = last else {
            return Ok(());
        };
        let bytes = entry::encode(sequence, &body)?;
        let name = batch_name(sequence);
        if !self.shelf.create(&name, &bytes)?
            && self.shelf.get(&[name])?.pop().flatten() != Some(bytes)
        {
            return Err(Error::OtherSharedLog {
                path: path.clone(),
                bucket: self.shelf.place(),
                batch: sequence,
            });
        }
        Ok(())
    }

    /// Puts a checkpoint into the bucket, and removes what it replaces.
    ///
    /// # Errors
    /// Those of the bucket, [`Error::Io`].
    pub fn shorten(&self, next: u64, path: &Path) -> Result<(), Error> {
        let older: Vec<u64> = self.checkpoints()?;
        if older.last().is_some_and(|newest| *newest >= next) {
            return Ok(());
        }
        self.shelf
            .put(&format!("{CHECKPOINTS}/{}", number(next)), path)?;
        let segments = self.segments()?.into_iter().filter(|it| it.last < next);
        let mut gone: Vec<String> = segments.map(|it| it.name()).collect();
        gone.extend(
            older
                .iter()
                .map(|it| format!("{CHECKPOINTS}/{}", number(*it))),
        );
        self.shelf.remove(&gone)?;
        self.clear_away(next)
    }

    /// Removes the batches that a checkpoint has, but for the last and for the first of each leader.
    fn clear_away(&self, next: u64) -> Result<(), Error> {
        let mut behind = String::new();
        loop {
            let names = self.shelf.list(BATCHES, &behind, READ_AHEAD)?;
            let before = |name: &&String| name.parse().is_ok_and(|it: u64| it + 1 < next);
            let old: Vec<&String> = names.iter().take_while(before).collect();
            let Some(newest) = old.last() else {
                return Ok(());
            };
            behind = (*newest).clone();
            let old: Vec<String> = old.iter().map(|it| format!("{BATCHES}/{it}")).collect();
            let found = self.shelf.get(&old)?;
            let gone: Vec<String> = old
                .into_iter()
                .zip(found)
                .filter(|(_, bytes)| !bytes.as_deref().is_some_and(begins_a_lead))
                .map(|(name, _)| name)
                .collect();
            self.shelf.remove(&gone)?;
        }
    }

    /// Takes back what was made by a take-over that came too late.
    pub fn take_back(&self, sequence: u64) {
        if let Err(error) = self.shelf.remove(&[batch_name(sequence)]) {
            // Readers do not take it, and no leader writes there again.
            tracing::debug!(%error, sequence, "a late batch stays in the bucket");
        }
    }

    /// The shelf it is on.
    pub fn shelf(&self) -> &Arc<dyn Shelf> {
        &self.shelf
    }

    fn lacks(&self, sequence: u64) -> Error {
        self.damaged(sequence, "it is not there, and what follows is")
    }

    fn unclear(&self, batch: u64) -> Error {
        Error::Unclear {
            bucket: self.shelf.place(),
            batch,
        }
    }

    /// That the log lacks something, or has something that is none of it.
    pub fn damaged(&self, sequence: u64, what: &str) -> Error {
        Error::DamagedSharedLog {
            bucket: self.shelf.place(),
            batch: sequence,
            what: what.to_owned(),
        }
    }
}

/// Whether the bytes of a batch are those of a leader's first.
fn begins_a_lead(bytes: &[u8]) -> bool {
    let body = bytes.get(entry::HEADER..).unwrap_or_default();
    body::read(body).is_ok_and(|batch| said(&batch) == Said::TookOver)
}

/// What a batch says to those who read the log.
pub fn said(batch: &Batch) -> Said {
    batch.sign.as_ref().map_or(Said::Here, Sign::said)
}

const BATCHES: &str = "log/batches";
const SEGMENTS: &str = "log/segments";
const CHECKPOINTS: &str = "log/checkpoints";

/// A file with batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Segment {
    first: u64,
    last: u64,
}

impl Segment {
    fn named(name: &str) -> Option<Self> {
        let (first, last) = name.split_once('-')?;
        Some(Self {
            first: first.parse().ok()?,
            last: last.parse().ok()?,
        })
    }

    fn name(self) -> String {
        format!("{SEGMENTS}/{}-{}", number(self.first), number(self.last))
    }
}

fn number(sequence: u64) -> String {
    format!("{sequence:020}")
}

fn batch_name(sequence: u64) -> String {
    format!("{BATCHES}/{}", number(sequence))
}
