//! The admin socket in the file system.
//!
//! Invariant: there is no moment at which anybody but its owner and group could connect, and none at which an old
//! server's socket is gone and the new one's not there.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Gid, chown};
use tokio::net::UnixListener;

/// Its name in the data directory.
const NAME: &str = "admin.sock";
/// `sun_path` of unix(7), with the zero at its end.
const LONGEST_PATH: usize = 107;

/// Why there is no admin socket.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// The path does not fit into an address.
    #[error("{0} is too long for a socket: {LONGEST_PATH} bytes at most; choose a shorter --data-dir")]
    TooLong(PathBuf),
    /// The system has no such group.
    #[error("there is no group {0}: make it, or change admin.group")]
    NoGroup(String),
    /// The system refused.
    #[error("the admin socket {path}: {source}")]
    Io {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Listens on `admin.sock` in the data directory, for its owner and this group. The caller holds the directory's lock, so
/// that a socket that is there already is a dead server's. Returns the socket's path too.
pub fn bind(data_dir: &Path, group: Option<&str>) -> Result<(UnixListener, PathBuf), SocketError> {
    let path = data_dir.join(NAME);
    let nascent = data_dir.join(format!("{NAME}.new"));
    if nascent.as_os_str().len() > LONGEST_PATH {
        return Err(SocketError::TooLong(nascent));
    }
    let group = group.map(group_id).transpose()?;
    let io = |source: io::Error| SocketError::Io { path: path.clone(), source };
    match std::fs::remove_file(&nascent) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io(error)),
        Ok(()) | Err(_) => {}
    }
    // Made under another name and renamed when its permissions are right.
    let listener = UnixListener::bind(&nascent).map_err(io)?;
    if let Some(group) = group {
        chown(&nascent, None, Some(group)).map_err(|error| io(error.into()))?;
    }
    std::fs::set_permissions(&nascent, std::fs::Permissions::from_mode(0o660)).map_err(io)?;
    std::fs::rename(&nascent, &path).map_err(io)?;
    Ok((listener, path))
}

fn group_id(name: &str) -> Result<Gid, SocketError> {
    let groups = std::fs::read_to_string("/etc/group").unwrap_or_default();
    let gid = groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (group, _, number) = (fields.next()?, fields.next()?, fields.next()?);
        if group == name { number.parse().ok() } else { None }
    });
    gid.map(Gid::from_raw).ok_or_else(|| SocketError::NoGroup(name.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_socket_is_for_owner_and_group_and_replaces_a_dead_one() {
        let folder = tempfile::tempdir().unwrap();
        drop(bind(folder.path(), None).unwrap());
        let (_listener, path) = bind(folder.path(), None).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
        assert!(std::os::unix::net::UnixStream::connect(&path).is_ok());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[tokio::test]
    async fn what_cannot_be_is_said_in_a_sentence() {
        let folder = tempfile::tempdir().unwrap();
        let error = bind(folder.path(), Some("no-such-group")).unwrap_err();
        assert_eq!(error.to_string(), "there is no group no-such-group: make it, or change admin.group");
        let deep = folder.path().join("d".repeat(120));
        assert!(bind(&deep, None).unwrap_err().to_string().contains("too long for a socket"));
    }
}
