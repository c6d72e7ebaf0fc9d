//! A socket of the file system that a coordinator listens on: its owner's alone, one coordinator's
//! at a time, and made again where one that was killed has left it.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use fs2::FileExt;
use tokio::net::{UnixListener, UnixSocket};

use super::error::Error;

/// Connections that may wait to be taken.
const BACKLOG: u32 = 1024;

/// A socket that is listened on. It is removed when this is dropped.
#[derive(Debug)]
pub struct Socket {
    pub(super) listener: UnixListener,
    path: PathBuf,
    /// Held, not read: who has it has the path. The system frees it with the process.
    _lock: File,
}

impl Socket {
    /// Listens at a path. Only the user of this process can connect (mode 0600, from the first
    /// moment). What a killed coordinator left there is replaced; nothing else is.
    ///
    /// # Errors
    /// [`Error::Socket`].
    pub fn bind(path: &Path) -> Result<Self, Error> {
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let failed = |reason: String| Error::Socket {
            path: path.clone(),
            reason,
        };
        let system = |error: io::Error| failed(error.to_string());
        // Beside the socket: a socket cannot be locked itself.
        let mut beside = path.clone().into_os_string();
        beside.push(".lock");
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&beside)
            .map_err(system)?;
        lock.set_permissions(Permissions::from_mode(0o600))
            .map_err(system)?;
        FileExt::try_lock_exclusive(&lock)
            .map_err(|_| failed("another coordinator listens there".to_owned()))?;
        match fs::symlink_metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(system(error)),
            Ok(there) if !there.file_type().is_socket() => {
                return Err(failed("something that is no socket is there".to_owned()));
            }
            // Something that does not know of the lock may listen.
            Ok(_) if UnixStream::connect(&path).is_ok() => {
                return Err(failed("another program listens there".to_owned()));
            }
            Ok(_) => fs::remove_file(&path).map_err(system)?,
        }
        let socket = UnixSocket::new_stream().map_err(system)?;
        // Linux makes the file with the mode that the socket has: there is no moment in which
        // others could connect.
        let same = socket.as_fd().try_clone_to_owned().map_err(system)?;
        File::from(same)
            .set_permissions(Permissions::from_mode(0o600))
            .map_err(system)?;
        socket.bind(&path).map_err(system)?;
        fs::set_permissions(&path, Permissions::from_mode(0o600)).map_err(system)?;
        let listener = socket.listen(BACKLOG).map_err(system)?;
        Ok(Self {
            listener,
            path,
            _lock: lock,
        })
    }

    /// Where it is; absolute.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // The lock is still held: it is this one's.
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn said(bound: Result<Socket, Error>) -> String {
        bound.unwrap_err().to_string()
    }

    #[tokio::test]
    async fn a_socket_is_its_owners_and_one_coordinators() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let first = Socket::bind(&path).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let second = said(Socket::bind(&path));
        assert!(
            second.contains("another coordinator listens there"),
            "{second}"
        );
        UnixStream::connect(&path).unwrap();
        drop(first);
        assert!(!path.exists());
        Socket::bind(&path).unwrap();
    }

    #[tokio::test]
    async fn what_was_left_is_replaced_and_what_is_anothers_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        // What a killed process leaves: a socket that nobody listens on.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        drop(Socket::bind(&path).unwrap());
        let other = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let refused = said(Socket::bind(&path));
        assert!(
            refused.contains("another program listens there"),
            "{refused}"
        );
        drop(other);
        fs::remove_file(&path).unwrap();
        fs::write(&path, "a letter").unwrap();
        let refused = said(Socket::bind(&path));
        assert!(refused.contains("no socket is there"), "{refused}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "a letter");
        let nowhere = said(Socket::bind(&folder.path().join("no/socket")));
        assert!(nowhere.contains("No such file"), "{nowhere}");
    }
}
