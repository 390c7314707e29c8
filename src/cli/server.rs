//! Which server the command line talks to.
//!
//! Tried in order: what the flag or the environment names, else the sockets of a source checkout and of an installed
//! server. A failure names everything that was tried, and a socket that may not be used names the group that may.

use std::fmt;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::error::{CliError, Result};

/// Where sockets are looked for when nothing is named.
const SOCKETS: [&str; 2] = ["./data/admin.sock", "/var/lib/kiwispray/admin.sock"];

/// An address of the admin plane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Server {
    /// A socket in the file system.
    Unix(PathBuf),
    /// `http://host:port`, without a slash at the end.
    Http(String),
}

impl FromStr for Server {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:").filter(|path| !path.is_empty()) {
            return Ok(Self::Unix(path.trim_start_matches("//").into()));
        }
        if text.strip_prefix("http://").is_some_and(|rest| !rest.trim_matches('/').is_empty()) {
            return Ok(Self::Http(text.trim_end_matches('/').to_owned()));
        }
        Err("a server is named unix:PATH or http://ADDRESS:PORT".to_owned())
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Http(url) => f.write_str(url),
        }
    }
}

/// The server to talk to: the one that is named, or the first socket that somebody listens on.
pub(crate) fn find(named: Option<&Server>) -> Result<Server> {
    match named {
        Some(Server::Http(url)) => Ok(Server::Http(url.clone())),
        Some(Server::Unix(path)) => find_socket(std::slice::from_ref(path)),
        None => find_socket(&SOCKETS.map(PathBuf::from)),
    }
}

fn find_socket(paths: &[PathBuf]) -> Result<Server> {
    let mut tried = Vec::new();
    for path in paths {
        match UnixStream::connect(path) {
            Ok(_) => return Ok(Server::Unix(path.clone())),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                return Err(CliError::unreachable(denied(path)));
            }
            Err(error) => tried.push(format!("  {}: {}", path.display(), why(&error))),
        }
    }
    Err(CliError::unreachable(format!(
        "no server can be reached. Tried:\n{}\nStart one with `kiwispray serve`, or name one with --server.",
        tried.join("\n")
    )))
}

fn why(error: &io::Error) -> String {
    if error.kind() == io::ErrorKind::NotFound {
        "there is no such socket".to_owned()
    } else if error.kind() == io::ErrorKind::ConnectionRefused {
        "a socket, but no server listens on it".to_owned()
    } else {
        error.to_string()
    }
}

fn denied(path: &Path) -> String {
    let socket = path.display();
    match std::fs::metadata(path) {
        Ok(found) => {
            let group = group_name(found.gid()).unwrap_or_else(|| format!("number {}", found.gid()));
            format!("{socket} may be used by root and the group {group} only: become a member, or use sudo")
        }
        Err(_) => {
            format!("{socket} lies in a directory that you may not enter: use sudo, or name a server by --server")
        }
    }
}

fn group_name(gid: u32) -> Option<String> {
    let groups = std::fs::read_to_string("/etc/group").ok()?;
    groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, _, number) = (fields.next()?, fields.next()?, fields.next()?);
        (number.parse() == Ok(gid)).then(|| name.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_have_two_forms() {
        assert_eq!("unix:/run/a.sock".parse(), Ok(Server::Unix("/run/a.sock".into())));
        assert_eq!("http://h:5001/".parse(), Ok(Server::Http("http://h:5001".to_owned())));
        for text in ["", "unix:", "/run/a.sock", "http://", "ftp://x"] {
            assert!(text.parse::<Server>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_failure_names_everything_that_was_tried() {
        let folder = tempfile::tempdir().unwrap();
        let dead = folder.path().join("dead.sock");
        drop(std::os::unix::net::UnixListener::bind(&dead).unwrap());
        let error = find_socket(&[folder.path().join("none.sock"), dead]).unwrap_err();
        assert_eq!(error.exit.code(), 5);
        let text = error.text.replace(&folder.path().display().to_string(), "DIR");
        insta::assert_snapshot!(text, @r"
        no server can be reached. Tried:
          DIR/none.sock: there is no such socket
          DIR/dead.sock: a socket, but no server listens on it
        Start one with `kiwispray serve`, or name one with --server.
        ");
    }

    #[test]
    fn a_socket_that_may_not_be_used_names_the_group() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.sock");
        let _socket = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let gid = std::fs::metadata(&path).unwrap().gid();
        let group = group_name(gid).unwrap();
        assert!(denied(&path).contains(&format!("the group {group} only")));
    }
}
