//! Checkpoints: every record of the store in one file, in the order of the keys.

use std::fs::{self, File};
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};

use prost::Message as _;

use super::super::folder::sync_folder;
use super::super::{Batch, Error, Write};
use super::body;
use super::entry::{self, Mark, Next, Reader};

/// About how many bytes of records lie in an entry.
const ENTRY: usize = 1 << 20;

/// The file of a checkpoint in a log's folder.
pub fn path(folder: &Path, sequence: u64) -> PathBuf {
    folder.join(format!("{sequence:020}.checkpoint"))
}

/// Writes the records as the checkpoint before batch `sequence`, and gives their number. `before`
/// is the mark of the batch before that one, where it is known. Durable, and seen under its name,
/// when it returns.
///
/// # Errors
/// [`Error::Io`], [`Error::NoSpace`], and what the records fail with. Nothing is left behind then.
pub fn write(
    folder: &Path,
    sequence: u64,
    before: Option<Mark>,
    records: impl Iterator<Item = Result<Write, Error>>,
) -> Result<u64, Error> {
    let path = path(folder, sequence);
    let temporary = path.with_extension("new");
    let written = write_file(&temporary, before, records);
    if written.is_err() {
        // The next open ignores it if it cannot be removed.
        let _ = fs::remove_file(&temporary);
    }
    let count = written?;
    fs::rename(&temporary, &path).map_err(Error::io("create", &path))?;
    sync_folder(folder)?;
    Ok(count)
}

fn write_file(
    path: &Path,
    before: Option<Mark>,
    records: impl Iterator<Item = Result<Write, Error>>,
) -> Result<u64, Error> {
    let file = File::create(path).map_err(Error::io("create", path))?;
    let mut file = BufWriter::with_capacity(ENTRY, file);
    let (mut count, mut entries, mut size) = (0, 0, 0);
    let mut batch = Batch {
        before: before.map(Vec::from),
        ..Batch::default()
    };
    let mut put = |batch: &Batch| {
        let bytes = entry::encode(entries, &batch.encode_to_vec())?;
        entries += 1;
        file.write_all(&bytes).map_err(Error::io("write", path))
    };
    for record in records {
        let record = record?;
        count += 1;
        size += record.key.len() + record.value.as_ref().map_or(0, Vec::len);
        batch.writes.push(record);
        if size > ENTRY {
            put(&std::mem::take(&mut batch))?;
            size = 0;
        }
    }
    // The number of records says, at the end, that the file is whole.
    batch.records = Some(count);
    put(&batch)?;
    file.into_inner()
        .map_err(|e| Error::io("write", path)(e.into_error()))?
        .sync_all()
        .map_err(Error::io("flush", path))?;
    Ok(count)
}

/// The mark of the batch before a checkpoint; none where the checkpoint does not say it.
///
/// # Errors
/// [`Error::DamagedLog`], [`Error::Io`].
pub fn before(path: &Path) -> Result<Option<Mark>, Error> {
    let mut reader = Reader::open(path)?;
    let Next::Entry(_, body) = reader.next()? else {
        return Err(reader.damaged("its end is missing"));
    };
    let batch = body::read(&body).map_err(|e| reader.damaged(e))?;
    Ok(batch.before.and_then(|mark| mark.try_into().ok()))
}

/// Reads a checkpoint, batch by batch, and gives the number of its records.
///
/// # Errors
/// [`Error::DamagedLog`] when the file is not whole, [`Error::Io`], and what `visit` fails with.
pub fn read(path: &Path, mut visit: impl FnMut(Batch) -> Result<(), Error>) -> Result<u64, Error> {
    let mut reader = Reader::open(path)?;
    let (mut count, mut entries) = (0, 0);
    loop {
        match reader.next()? {
            Next::Entry(sequence, body) if sequence == entries => {
                let batch = body::read(&body).map_err(|e| reader.damaged(e))?;
                entries += 1;
                count += batch.writes.len() as u64;
                let records = batch.records;
                visit(batch)?;
                match records {
                    Some(records) if records == count => return Ok(count),
                    Some(records) => {
                        return Err(
                            reader.damaged(format!("it has {count} records, not {records}"))
                        );
                    }
                    None => {}
                }
            }
            Next::Entry(..) => return Err(reader.damaged("its entries are out of order")),
            Next::End | Next::Torn => return Err(reader.damaged("its end is missing")),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn records(n: u32) -> impl Iterator<Item = Result<Write, Error>> {
        (0..n).map(|n| {
            Ok(Write {
                key: n.to_be_bytes().to_vec(),
                value: Some(vec![n as u8; 5000]),
            })
        })
    }

    #[test]
    fn a_checkpoint_is_read_back_and_a_cut_one_is_damage() {
        let folder = tempfile::tempdir().unwrap();
        for n in [0, 1, 1000] {
            assert_eq!(
                write(folder.path(), 5, Some([7; 8]), records(n)).unwrap(),
                u64::from(n)
            );
            let path = path(folder.path(), 5);
            assert_eq!(before(&path).unwrap(), Some([7; 8]));
            let mut found = Vec::new();
            let read_back = read(&path, |batch| {
                found.extend(batch.writes);
                Ok(())
            });
            assert_eq!(read_back.unwrap(), u64::from(n));
            assert_eq!(found, records(n).map(Result::unwrap).collect::<Vec<_>>());
            let bytes = fs::read(&path).unwrap();
            fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
            assert!(matches!(
                read(&path, |_| Ok(())),
                Err(Error::DamagedLog { .. })
            ));
        }
    }

    #[test]
    fn records_that_fail_leave_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let failing = records(3).chain([Err(Error::TooLarge { bytes: 0 })]);
        assert!(write(folder.path(), 5, None, failing).is_err());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
