//! Figures as files in a folder.

use std::fs;
use std::path::{Path, PathBuf};

use super::Error;
use crate::plot;

/// Makes the folder where it is missing.
///
/// # Errors
/// [`Error::File`].
pub fn make(folder: &Path) -> Result<(), Error> {
    fs::create_dir_all(folder).map_err(|source| Error::File {
        path: folder.to_owned(),
        source,
    })
}

/// Writes a figure into a folder, over a file of the same name, and gives the file.
///
/// # Errors
/// [`Error::File`], [`Error::Plot`].
pub fn write(
    folder: &Path,
    name: String,
    drawn: Result<String, plot::Error>,
) -> Result<PathBuf, Error> {
    let file = folder.join(&name);
    let svg = drawn.map_err(|source| Error::Plot {
        figure: name,
        source,
    })?;
    fs::write(&file, svg).map_err(|source| Error::File {
        path: file.clone(),
        source,
    })?;
    Ok(file)
}
