//! Read-only memory maps of weight files.

use std::path::Path;

use memmap2::Mmap;

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
