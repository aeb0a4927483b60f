//! Who asks: for the log, and for what is remembered of an operator's decision.

use std::{fmt, net::SocketAddr};

/// The header in which a supervisor tells its worker who asks.
pub const ASKED_BY: &str = "x-plugin-host-asked-by";

/// Whoever is at the other end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Caller {
    /// A process of this machine, as the kernel tells.
    Local {
        /// Its user.
        user: u32,
        /// Its number; absent where it lives in another container.
        process: Option<i32>,
    },
    /// Somebody at an address.
    Remote {
        /// Which.
        address: SocketAddr,
        /// What let them in; nothing where that is not needed.
        proof: Option<Proof>,
    },
}

/// What lets somebody in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proof {
    /// The token, in this very request.
    Token,
    /// A cookie that the token was given for.
    Session,
}

impl Caller {
    /// Whoever is at the other end of a Unix socket.
    pub fn of(stream: &tokio::net::UnixStream) -> Self {
        let peer = stream.peer_cred();
        Self::Local {
            user: peer.as_ref().map_or(u32::MAX, |peer| peer.uid()),
            process: peer.ok().and_then(|peer| peer.pid()),
        }
    }
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local { user, process } => {
                write!(f, "user {user}")?;
                match process {
                    Some(process) => write!(f, " (process {process})"),
                    None => Ok(()),
                }
            }
            Self::Remote { address, proof } => {
                write!(f, "{address}")?;
                match proof {
                    Some(Proof::Token) => f.write_str(" (with the token)"),
                    Some(Proof::Session) => f.write_str(" (signed in)"),
                    None => Ok(()),
                }
            }
        }
    }
}
