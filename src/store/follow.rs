//! A store whose log is in a bucket, before this process leads it: the copy in the folder and the
//! index are kept up with what the leader writes.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use super::catch_up::{catch_up, shorten};
use super::folder::remove_folder;
use super::format::{self, Found};
use super::formats::{FORMAT, SHARED};
use super::index::{Index, Position};
use super::lock::lock;
use super::log::entry::{self, Next, Reader};
use super::log::shared::{Shared, said};
use super::log::{Files, Log, Place, body};
use super::options::Sharing;
use super::place;
use super::records::{Said, Sign};
use super::{Batch, Error, Options};
use crate::objects::Shelf;

/// The longest pause between two looks at the log.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// How often within the time that a leader may be silent a follower looks.
const LOOKS: u32 = 16;
/// Files of the copy before it is shortened.
pub(super) const MOST_SEGMENTS: usize = 16;

/// A store that follows its log and does not write to it.
#[derive(Debug)]
pub struct Follower {
    pub(super) path: PathBuf,
    pub(super) options: Options,
    pub(super) sharing: Sharing,
    pub(super) lock: File,
    pub(super) index: Index,
    pub(super) log: Log,
    shared: Shared,
    /// What the last batch says.
    said: Said,
    /// Whether the last batch is this process's own: a take-over of which it was not told.
    ours: bool,
    /// Who leads, as people call it; "another" where that was not seen.
    leader: String,
    /// The folder that has the log now, if it was taken out of the bucket.
    taken_to: String,
}

impl Follower {
    /// Opens the copy of a store in a folder, and begins one in an empty folder. A bucket without a
    /// log gets a new one when somebody leads.
    ///
    /// # Errors
    /// Those of [`Store::open`](super::Store::open); [`Error::NoBucket`]; [`Error::LogInFolder`] when
    /// the folder has a log of its own; [`Error::Overwrites`] when the bucket does not keep what was
    /// made first; [`Error::OtherSharedLog`] and [`Error::DamagedSharedLog`] when the copy is none of
    /// what is there.
    pub fn open(path: &Path, options: Options) -> Result<Self, Error> {
        let Some(sharing) = options.log.clone() else {
            return Err(Error::NoBucket);
        };
        let shelf = options.shelf()?;
        probe(&*shelf)?;
        let shared = Shared::new(shelf, sharing.file_batches);
        fs::create_dir_all(path).map_err(Error::io("create the store's folder", path))?;
        let lock = lock(path)?;
        let folder = path.join("log");
        if place::is_unfinished_copy(path)? {
            remove_folder(&folder)?;
            remove_folder(&path.join("records"))?;
        }
        let found = format::find(path)?;
        match found {
            Found::Current | Found::Nothing => {}
            Found::WithoutLog => {
                return Err(Error::LogInFolder {
                    path: path.to_owned(),
                    place: shared.shelf().place(),
                });
            }
            Found::Backup => {
                return Err(Error::IsBackup {
                    path: path.to_owned(),
                });
            }
        }
        place::share(path, &options, found == Found::Nothing)?;
        if found == Found::Nothing {
            remove_folder(&folder)?;
            Log::create(&folder, shared.begin(&folder)?)?;
            format::write(path, SHARED)?;
        }
        let (index, log) = open_copy(path, &shared)?;
        let mut follower = Self {
            path: path.to_owned(),
            options,
            sharing,
            lock,
            index,
            log,
            shared,
            said: Said::Here,
            ours: false,
            leader: "another".to_owned(),
            taken_to: String::new(),
        };
        follower.read_last_file()?;
        follower.check_same()?;
        Ok(follower)
    }

    /// Sees that the copy is one of the log in the bucket, and learns what its last batch says.
    fn check_same(&mut self) -> Result<(), Error> {
        let Some(ours) = self.log.mark() else {
            return Ok(());
        };
        let batch = self.log.next() - 1;
        let found = match self.shared.read(batch, &self.path.join("log")) {
            // It is in a checkpoint, and what it was cannot be told any more.
            Err(Error::Behind) => return Ok(()),
            found => found?.into_iter().next(),
        };
        match found {
            Some((theirs, bytes)) if theirs.mark == ours => {
                let last = self.parse(theirs, &bytes)?;
                self.note(&last)
            }
            Some(_) => Err(Error::OtherSharedLog {
                path: self.path.clone(),
                bucket: self.shared.shelf().place(),
                batch,
            }),
            None => {
                let what =
                    "the copy in the folder has it, and the bucket has nothing from there on";
                Err(self.shared.damaged(batch, what))
            }
        }
    }

    /// Learns what the newest file of the copy says.
    fn read_last_file(&mut self) -> Result<(), Error> {
        let files = Files::list(&self.path.join("log"))?;
        let Some((_, path)) = files.segments.last() else {
            return Ok(());
        };
        let mut reader = Reader::open(path)?;
        while let Next::Entry(_, body) = reader.next()? {
            let batch = body::read(&body).map_err(|what| reader.damaged(what))?;
            self.note(&batch)?;
        }
        Ok(())
    }

    fn parse(&self, place: Place, bytes: &[u8]) -> Result<Batch, Error> {
        let body = entry::body(bytes, place.sequence).unwrap_or_default();
        body::read(body).map_err(|what| self.shared.damaged(place.sequence, &what))
    }

    fn note(&mut self, batch: &Batch) -> Result<(), Error> {
        self.said = said(batch);
        self.ours = batch.leader.as_deref() == Some(self.shared.leader().as_bytes());
        let Some(sign) = &batch.sign else {
            return Ok(());
        };
        if sign.format > FORMAT {
            return Err(Error::Format {
                path: self.path.clone(),
                found: sign.format.to_string(),
                known: FORMAT,
            });
        }
        match sign.said() {
            Said::TookOver => self.leader.clone_from(&sign.name),
            Said::TakenOut => self.taken_to.clone_from(&sign.name),
            Said::Here | Said::Left => {}
        }
        Ok(())
    }

    /// Takes over what was written since the last look, and gives the number of batches that others
    /// wrote.
    ///
    /// # Errors
    /// Those of the bucket; [`Error::DamagedSharedLog`], [`Error::Format`], [`Error::Io`],
    /// [`Error::NoSpace`].
    pub fn follow(&mut self) -> Result<u64, Error> {
        let folder = self.path.join("log");
        let mut taken = 0;
        loop {
            let batches = match self.shared.read(self.log.next(), &folder) {
                Ok(batches) => batches,
                Err(Error::Behind) => {
                    self.start_over()?;
                    taken += 1;
                    continue;
                }
                Err(error) => return Err(error),
            };
            if batches.is_empty() {
                break;
            }
            self.log.copy(&batches)?;
            for (place, bytes) in &batches {
                let batch = self.parse(*place, bytes)?;
                self.note(&batch)?;
                taken += u64::from(!self.ours);
                self.index.apply(batch.writes, Position::behind(*place))?;
            }
            if self.log.is_long() {
                self.log.rotate()?;
                if let Err(error) = self.shorten_if_long() {
                    // A backup is being made of it, say: it stays long, and nothing else is wrong.
                    tracing::warn!(%error, "the copy of the log could not be shortened");
                }
            }
        }
        self.index.settle()?;
        Ok(taken)
    }

    /// Begins the copy again at the bucket's checkpoint: what would follow on it is not there any
    /// more.
    fn start_over(&mut self) -> Result<(), Error> {
        let folder = self.path.join("log");
        tracing::info!(
            "what follows on the copy of the log is in a checkpoint: it is begun again there"
        );
        // Killed in here, it is begun again when it is opened: it has no log then, or one that its
        // index is not of.
        remove_folder(&folder)?;
        Log::create(&folder, self.shared.begin(&folder)?)?;
        self.index.clear()?;
        let (index, mut log) = catch_up(&self.path, self.index.clone())?;
        log.share(self.shared.clone());
        (self.index, self.log) = (index, log);
        Ok(())
    }

    fn shorten_if_long(&self) -> Result<(), Error> {
        let files = Files::list(&self.path.join("log"))?;
        if files.segments.len() > MOST_SEGMENTS {
            let (next, before) = (self.log.next(), self.log.mark());
            shorten(
                &self.path,
                &self.index,
                next,
                before,
                None,
                &AtomicBool::new(false),
            )?;
        }
        Ok(())
    }

    /// Who leads, as people call it.
    pub fn leader(&self) -> &str {
        &self.leader
    }

    /// That somebody else leads.
    pub fn led(&self) -> Error {
        Error::Led {
            bucket: self.shared.shelf().place(),
            leader: self.leader.clone(),
        }
    }

    /// Whether nobody else leads, as far as the log says: it is new, or its leader has left it, or has
    /// taken it out, or is this process.
    pub fn is_left(&self) -> bool {
        let is_left = matches!(self.said, Said::Left | Said::TakenOut);
        is_left || self.ours || self.log.next() == 1
    }

    /// Writes that this process leads from here on. False if another has gone on with the log: then
    /// it is to be followed again.
    ///
    /// # Errors
    /// Those of the bucket, after which it may be called again; [`Error::TakenOut`], [`Error::Io`].
    pub fn lead(&mut self) -> Result<bool, Error> {
        if self.said == Said::TakenOut {
            return Err(Error::TakenOut {
                bucket: self.shared.shelf().place(),
                to: self.taken_to.clone(),
            });
        }
        let sign = Sign {
            said: Said::TookOver as i32,
            name: self.sharing.name.clone(),
            format: SHARED,
        };
        let batch = Batch {
            sign: Some(sign),
            leader: self.log.leader(),
            ..Batch::default()
        };
        let Some(place) = self.log.take_over(&batch)? else {
            return Ok(false);
        };
        self.index.apply(Vec::new(), Position::behind(place))?;
        Ok(true)
    }
}

/// Opens the copy of a log, and begins it again where it is damaged or was not finished: the bucket
/// has all of it.
fn open_copy(path: &Path, shared: &Shared) -> Result<(Index, Log), Error> {
    let (folder, records) = (path.join("log"), path.join("records"));
    let open = || catch_up(path, Index::open(&records)?);
    let (index, mut log) = match open() {
        Err(
            error
            @ (Error::DamagedLog { .. } | Error::DamagedIndex { .. } | Error::OtherLog { .. }),
        ) => {
            tracing::warn!(%error, "the copy of the log is begun again");
            remove_folder(&folder)?;
            remove_folder(&records)?;
            Log::create(&folder, shared.begin(&folder)?)?;
            open()?
        }
        opened => opened?,
    };
    log.share(shared.clone());
    Ok((index, log))
}

/// What is made to see whether it can be made twice. It stays: there is nothing of others that a
/// later one could remove too early, or would have to clean up.
const PROBE: &str = "log/probe";

/// Sees that the bucket keeps what was made first.
pub(super) fn probe(shelf: &dyn Shelf) -> Result<(), Error> {
    // It is there already where somebody has asked before.
    shelf.create(PROBE, b"first")?;
    match shelf.create(PROBE, b"second")? {
        false => Ok(()),
        true => Err(Error::Overwrites {
            bucket: shelf.place(),
        }),
    }
}

/// Waits for the end of a leader. It looks at the log again and again, and counts the time in which
/// nothing came by its own pauses: no clock decides, and a look that fails counts for nothing.
#[derive(Debug, Default)]
pub struct Vigil {
    quiet: Duration,
    /// Whether it has caught up with what was written before it began.
    caught_up: bool,
    /// Whether the leader has written since.
    alive: bool,
}

/// What a look has shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// Look again after this pause.
    Again(Duration),
    /// This process leads: [`Store::of_leader`](super::Store::of_leader).
    Leads,
}

impl Vigil {
    /// Looks at the log once, and takes over if its leader has left it or was silent for too long.
    ///
    /// # Errors
    /// Those of [`Follower::follow`] and [`Follower::lead`]. After those of a bucket that is away
    /// the next look may be better.
    pub fn look(&mut self, follower: &mut Follower) -> Result<Look, Error> {
        let takeover = follower.sharing.takeover;
        let news = follower.follow()?;
        if news > 0 && self.caught_up {
            (self.alive, self.quiet) = (true, Duration::ZERO);
        }
        self.caught_up = true;
        if (follower.is_left() || self.quiet >= takeover) && follower.lead()? {
            return Ok(Look::Leads);
        }
        let pause = (takeover / LOOKS).min(LONGEST_PAUSE);
        self.quiet += pause;
        Ok(Look::Again(pause))
    }

    /// Whether a leader was seen that writes.
    pub fn is_alive(&self) -> bool {
        self.alive
    }
}
