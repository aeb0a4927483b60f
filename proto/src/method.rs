//! The HTTP methods that the protocol can name.

use std::fmt;
use std::str::FromStr;

/// The method of a request. The gateway passes no others on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
#[allow(missing_docs, reason = "the names say all there is to say")]
pub enum Method {
    #[default]
    Get = 0,
    Head = 1,
    Post = 2,
    Put = 3,
    Delete = 4,
    Mkcol = 5,
    Copy = 6,
    Move = 7,
    Options = 8,
    Propfind = 9,
    Proppatch = 10,
    Lock = 11,
    Unlock = 12,
    Patch = 13,
    Trace = 14,
}

/// Not a method that the protocol can name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the protocol has no such method, only GET, HEAD, POST, PUT, DELETE, MKCOL, COPY, MOVE, OPTIONS, PROPFIND, PROPPATCH, LOCK, UNLOCK, PATCH and TRACE"
)]
pub struct UnknownMethod;

impl Method {
    /// All methods; each is at the place of its number on the wire.
    pub const ALL: [Self; 15] = [
        Self::Get,
        Self::Head,
        Self::Post,
        Self::Put,
        Self::Delete,
        Self::Mkcol,
        Self::Copy,
        Self::Move,
        Self::Options,
        Self::Propfind,
        Self::Proppatch,
        Self::Lock,
        Self::Unlock,
        Self::Patch,
        Self::Trace,
    ];

    /// The name as HTTP writes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Delete => "DELETE",
            Self::Mkcol => "MKCOL",
            Self::Copy => "COPY",
            Self::Move => "MOVE",
            Self::Options => "OPTIONS",
            Self::Propfind => "PROPFIND",
            Self::Proppatch => "PROPPATCH",
            Self::Lock => "LOCK",
            Self::Unlock => "UNLOCK",
            Self::Patch => "PATCH",
            Self::Trace => "TRACE",
        }
    }
}

impl TryFrom<u8> for Method {
    type Error = UnknownMethod;

    fn try_from(number: u8) -> Result<Self, UnknownMethod> {
        Self::ALL
            .get(usize::from(number))
            .copied()
            .ok_or(UnknownMethod)
    }
}

impl FromStr for Method {
    type Err = UnknownMethod;

    /// Reads a name as HTTP writes it, in capitals.
    fn from_str(name: &str) -> Result<Self, UnknownMethod> {
        Self::ALL
            .into_iter()
            .find(|method| method.as_str() == name)
            .ok_or(UnknownMethod)
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
