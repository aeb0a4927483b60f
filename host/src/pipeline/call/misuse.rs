//! What plugins ask for and the gateway cannot deliver. Nothing here decides what follows from that.

use plugin_abi::abi::ReplyParts;

use crate::pipeline::bill::NoRoom;

/// Something that the gateway cannot deliver, or would deliver as something else than was meant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Misuse {
    /// A status outside of what the gateway delivers.
    #[error("status {0}, where the gateway delivers 200 to 599")]
    Status(u16),
    /// A header name that is no token.
    #[error("a header named {0:?}, which is no valid name")]
    HeaderName(String),
    /// A path that does not begin with a slash.
    #[error("the path {0:?}, which does not begin with `/`")]
    Path(String),
    /// An empty body in place of one.
    #[error("an empty body: the gateway takes it for no change")]
    EmptyBody,
    /// A change of something that this phase does not have.
    #[error("a change of {0}, which this phase does not have")]
    NotInThisPhase(&'static str),
    /// More than the host keeps for a connection, or for all of them.
    #[error(transparent)]
    NoRoom(NoRoom),
}

/// Statuses that the gateway delivers as they are; below, the client hangs or gets another.
pub(super) const DELIVERED_STATUS: std::ops::RangeInclusive<u16> = 200..=599;

/// What in a reply the gateway could not deliver, if anything.
pub(in crate::pipeline) fn check_reply(reply: &ReplyParts) -> Option<Misuse> {
    if !DELIVERED_STATUS.contains(&reply.status) {
        return Some(Misuse::Status(reply.status));
    }
    reply
        .headers
        .iter()
        .find(|header| !is_token(&header.name))
        .map(|header| Misuse::HeaderName(shown(&header.name)))
}

/// Which bytes a token of RFC 9110, section 5.6.2, is made of.
const TOKEN_BYTES: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < table.len() {
        #[allow(clippy::cast_possible_truncation, reason = "it is below 256")]
        let is = matches!(byte as u8, b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z'
            | b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`'
            | b'|' | b'~');
        table[byte] = is;
        byte += 1;
    }
    table
};

pub(super) fn is_token(name: &[u8]) -> bool {
    !name.is_empty() && name.iter().all(|byte| TOKEN_BYTES[usize::from(*byte)])
}

/// A name or path for a message: short and printable.
pub(super) fn shown(bytes: &[u8]) -> String {
    const LONGEST: usize = 64;
    let short = &bytes[..bytes.len().min(LONGEST)];
    let more = if bytes.len() > LONGEST { "..." } else { "" };
    format!("{}{more}", short.escape_ascii())
}
