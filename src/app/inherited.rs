//! The socket that a service manager listens on for this server (`sd_listen_fds(3)`).
//!
//! With it no machine is ever refused: between two servers the kernel keeps whoever connects in the socket's queue.

use std::io;
use std::net::TcpListener;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};

use rustix::io::{FdFlags, fcntl_setfd};
use rustix::net::sockopt::socket_acceptconn;

/// The first descriptor that a service manager hands over.
const FIRST: RawFd = 3;

/// Why what was handed over is of no use.
#[derive(Debug, thiserror::Error)]
pub enum InheritError {
    /// More sockets than planes for machines.
    #[error("the service manager hands over {0} sockets; one is expected, for machines (LISTEN_FDS)")]
    Count(String),
    /// It is none that listens.
    #[error("the service manager hands over something else than a TCP socket that listens")]
    NotListening(#[source] io::Error),
}

/// The socket that was handed to this process, if one was. To be called once, before this process opens files.
///
/// # Errors
/// Something else was handed over.
pub fn listener() -> Result<Option<TcpListener>, InheritError> {
    // A child of this server inherits the variables too, and is not meant.
    if std::env::var("LISTEN_PID").is_ok_and(|pid| pid == std::process::id().to_string()) {
        match std::env::var("LISTEN_FDS") {
            Ok(count) if count == "1" => take().map(Some).map_err(InheritError::NotListening),
            Ok(count) if count != "0" => Err(InheritError::Count(count)),
            Ok(_) | Err(_) => Ok(None),
        }
    } else {
        Ok(None)
    }
}

fn take() -> io::Result<TcpListener> {
    // SAFETY: it is looked at only for the length of this function, during which nobody closes it: other threads do not
    // exist yet. If it is not open at all, the first call says so and nothing else is done.
    #[expect(unsafe_code, reason = "a number from the environment becomes a descriptor")]
    let there = unsafe { BorrowedFd::borrow_raw(FIRST) };
    // dnsmasq and whatever else is started must not keep it open.
    fcntl_setfd(there, FdFlags::CLOEXEC)?;
    if !socket_acceptconn(there)? {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: it is open, as was just seen, and it came with the process: the service manager gave it to this process
    // (LISTEN_PID), and this function, which runs once and before anything is opened, is the only one that takes it.
    #[expect(unsafe_code, reason = "the descriptor came with the process, so nobody owns it yet")]
    let socket = unsafe { OwnedFd::from_raw_fd(FIRST) };
    let listener = TcpListener::from(socket);
    listener.local_addr()?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}
