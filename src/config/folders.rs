//! The folders of a user.

use std::collections::HashMap;
use std::path::PathBuf;

/// The user's folders, by the XDG base directory specification.
pub(super) struct Folders {
    pub(super) home: Option<PathBuf>,
    pub(super) config: Option<PathBuf>,
    pub(super) data: Option<PathBuf>,
    pub(super) cache: Option<PathBuf>,
}

impl Folders {
    pub(super) fn new(environment: &HashMap<String, String>) -> Self {
        let folder = |name: &str| {
            // The specification: relative paths are to be ignored.
            let path = environment.get(name).map(PathBuf::from);
            path.filter(|path| path.is_absolute())
        };
        let home = folder("HOME");
        let under_home =
            |name: &str, path: &str| folder(name).or_else(|| Some(home.as_ref()?.join(path)));
        Self {
            config: under_home("XDG_CONFIG_HOME", ".config"),
            data: under_home("XDG_DATA_HOME", ".local/share"),
            cache: under_home("XDG_CACHE_HOME", ".cache"),
            home,
        }
    }
}
