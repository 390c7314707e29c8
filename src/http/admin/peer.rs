//! Who is at the other end of the socket: the kernel says, so it cannot be a lie.

use axum::extract::connect_info::Connected;
use axum::serve::IncomingStream;
use tokio::net::{UnixListener, UnixStream};

use crate::domain::Actor;

/// The account of a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    uid: Option<u32>,
}

impl Peer {
    /// Who is at the other end.
    pub fn of(stream: &UnixStream) -> Self {
        Self { uid: stream.peer_cred().ok().map(|credentials| credentials.uid()) }
    }

    /// Whether it runs as this process does.
    pub(super) fn is_this_account(&self) -> bool {
        self.uid == Some(rustix::process::geteuid().as_raw())
    }

    /// As events name this peer: by its account's name, or its number.
    pub(super) fn actor(&self) -> Actor {
        let Some(uid) = self.uid else { return Actor::Operator("unknown".to_owned()) };
        let accounts = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
        Actor::Operator(account_name(&accounts, uid).unwrap_or_else(|| format!("uid {uid}")))
    }
}

impl Connected<IncomingStream<'_, UnixListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, UnixListener>) -> Self {
        Self::of(stream.io())
    }
}

fn account_name(accounts: &str, uid: u32) -> Option<String> {
    accounts.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, _, number) = (fields.next()?, fields.next()?, fields.next()?);
        (number.parse() == Ok(uid)).then(|| name.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_are_known_by_name_if_they_have_one() {
        let accounts = "root:x:0:0:root:/root:/bin/sh\nbroken\nada:x:1000:1000::/home/ada:/bin/sh\n";
        assert_eq!(account_name(accounts, 1000).as_deref(), Some("ada"));
        assert_eq!(account_name(accounts, 1001), None);
    }
}
