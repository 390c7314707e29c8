//! Telling the service manager that the server serves (`sd_notify(3)`).
//!
//! Invariant: it is told once machines and people are answered, so that what it starts next finds a server; and a manager that
//! cannot be told ends no server.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// Names the socket of the service manager, if it wants to be told.
const SOCKET: &str = "NOTIFY_SOCKET";
/// How long the manager may take to make room for the message.
const TOLD_WITHIN: Duration = Duration::from_secs(1);

/// Tells the service manager, if there is one that wants to know.
pub(super) fn tell() {
    let Some(socket) = std::env::var_os(SOCKET) else { return };
    if let Err(error) = send(&socket) {
        tracing::warn!(%error, socket = %socket.display(), "the service manager could not be told that the server serves");
    }
}

fn send(socket: &OsStr) -> io::Result<()> {
    let address = match socket.as_bytes().split_first() {
        // One that is in no file system.
        Some((b'@', name)) => SocketAddr::from_abstract_name(name)?,
        Some(_) | None => SocketAddr::from_pathname(socket)?,
    };
    let sender = UnixDatagram::unbound()?;
    sender.set_write_timeout(Some(TOLD_WITHIN))?;
    sender.send_to_addr(b"READY=1\n", &address).map(drop)
}
