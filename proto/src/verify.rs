//! The one gate between bytes from a socket and the views: nothing is read before it has passed here.
//!
//! Today the generated verifier does the work. Whatever replaces it has to keep this module's promise:
//! what [`root`] returns can be read to its last byte without leaving the buffer.

use flatbuffers::{Follow, InvalidFlatbuffer, Verifiable, VerifierOptions};

use crate::frame::{HEADER_LEN, MAX_DATA_LEN};

/// Alignment of a frame's data in memory, in bytes: nothing in the schema is wider.
const DATA_ALIGNMENT: usize = 4;

const LIMITS: VerifierOptions = VerifierOptions {
    // The deepest that the schema goes is answer, action, list, entry.
    max_depth: 8,
    // A frame of nothing but the smallest entries (a table and its place in the list) holds no more.
    max_tables: (MAX_DATA_LEN + HEADER_LEN) / 8,
    // Bytes when shared parts are counted each time. An honest frame shares only the few bytes that
    // describe a table's layout; without the limit a small frame could claim gigabytes of values.
    max_apparent_size: 4 * (MAX_DATA_LEN + 1),
    // Strings are read as bytes, by their length.
    ignore_missing_null_terminator: true,
};

/// The data of a frame cannot be read as the message that it should be.
///
/// Except for [`Unaligned`](Self::Unaligned), it is the peer's fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidFrame {
    /// The data does not start at a multiple of four bytes in memory; a mistake on this side. Data from
    /// [`FrameBuffer`](crate::FrameBuffer) always does.
    #[error("the frame's data is not 4-byte aligned in memory: read it through a FrameBuffer")]
    Unaligned,
    /// The data is no well-formed message of this kind.
    #[error("the peer sent a broken message: {reason}")]
    Malformed {
        /// What is wrong and where, on one line.
        reason: String,
    },
    /// A union says that it holds something that the protocol does not know.
    #[error("the peer sent a message whose {field} is of unknown kind {kind}")]
    UnknownKind {
        /// Name of the union's field.
        field: &'static str,
        /// The kind as it arrived.
        kind: u8,
    },
    /// Something is absent without which the message means nothing.
    #[error("the peer sent a message without {field}")]
    Missing {
        /// Name of the absent field.
        field: &'static str,
    },
}

impl From<InvalidFlatbuffer> for InvalidFrame {
    fn from(error: InvalidFlatbuffer) -> Self {
        let lines = error.to_string();
        let reason = lines
            .split('\n')
            .map(str::trim)
            .filter(|line| !line.is_empty())
            .collect::<Vec<_>>();
        Self::Malformed {
            reason: reason.join(" "),
        }
    }
}

/// Verifies a whole message and gives access to its root table.
///
/// # Errors
/// [`InvalidFrame::Unaligned`] and [`InvalidFrame::Malformed`]. The cost of an error is bounded by the
/// length of the data, whatever the data claims.
pub(crate) fn root<'a, T>(data: &'a [u8]) -> Result<T::Inner, InvalidFrame>
where
    T: Follow<'a> + Verifiable + 'a,
{
    if !data.as_ptr().addr().is_multiple_of(DATA_ALIGNMENT) {
        return Err(InvalidFrame::Unaligned);
    }
    Ok(flatbuffers::root_with_opts::<T>(&LIMITS, data)?)
}
