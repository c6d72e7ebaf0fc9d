//! The server of one's own that has a store (`palimpsest local`): who comes next to the store
//! joins it. Its socket is named by a file in the store's folder.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::Context;

/// The file that names the socket.
const FILE: &str = "local.address";

/// Names the socket of the server that has a store, as long as it is kept.
#[derive(Debug)]
pub struct Notice(PathBuf);

impl Notice {
    /// Writes the file.
    ///
    /// # Errors
    /// The system's.
    pub fn write(store: &Path, address: &str) -> anyhow::Result<Self> {
        let file = store.join(FILE);
        let temporary = store.join(format!("{FILE}.new"));
        fs::write(&temporary, format!("{address}\n"))
            .and_then(|()| fs::rename(&temporary, &file))
            .with_context(|| format!("cannot write {}", file.display()))?;
        Ok(Self(file))
    }
}

impl Drop for Notice {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// The address of the server that has a store, or had it when it was killed; none where the socket
/// is not this user's.
pub fn address(store: &Path) -> Option<String> {
    let text = fs::read_to_string(store.join(FILE)).ok()?;
    let address = text.trim();
    let path = address.strip_prefix("unix:")?;
    let owner = fs::symlink_metadata(path).map(|it| it.uid());
    let own = rustix::process::geteuid().as_raw();
    matches!(owner, Ok(owner) if owner == own).then(|| address.to_owned())
}
