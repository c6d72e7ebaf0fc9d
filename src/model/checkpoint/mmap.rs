//! Read-only memory maps of weight files.

use std::ops::Range;
use std::path::Path;

use memmap2::{Mmap, UncheckedAdvice};

use super::super::Error;

/// Maps a whole file for reading.
pub fn map(path: &Path) -> Result<Mmap, Error> {
    let io = |source| Error::Io {
        path: path.to_owned(),
        source,
    };
    let file = std::fs::File::open(path).map_err(io)?;
    // SAFETY: the map is only ever read, as plain bytes, and every offset into it is checked
    // against its length. What remains is the caveat of all mapped files: whoever truncates a
    // checkpoint in use gets this process a SIGBUS. Checkpoints are immutable once imported.
    #[allow(unsafe_code)]
    unsafe { Mmap::map(&file) }.map_err(io)
}

/// Says that a part of a file is not looked at for now: what was read of it does not count as this
/// process's memory any more.
pub fn release(map: &Mmap, part: Range<usize>) {
    // SAFETY: the pages of a file that is only read come again from the file when they are looked
    // at.
    #[allow(unsafe_code)]
    let released =
        unsafe { map.unchecked_advise_range(UncheckedAdvice::DontNeed, part.start, part.len()) };
    if let Err(error) = released {
        tracing::debug!(%error, "pages of a file stay in memory");
    }
}
