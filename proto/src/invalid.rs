//! Why the data of a frame is no message. Found out by `verify`, and by the views where a
//! message breaks no rule but means nothing.

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

/// A rule of the format that a message breaks. Positions are bytes from the start of the data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Fault {
    #[error("a part at byte {at} is not, or not all of it, in the data")]
    OutOfBounds { at: usize },
    #[error("a part at byte {at} is not at a multiple of its size")]
    Misaligned { at: usize },
    #[error("the vtable at byte {at} has an odd length")]
    OddVtable { at: usize },
    #[error("a union in the table at byte {at} has a kind and no value, or a value and no kind")]
    HalfUnion { at: usize },
    #[error("more than {most} tables, shared ones counted each time")]
    TooManyTables { most: usize },
    #[error("more than {most} bytes, shared ones counted each time")]
    TooLarge { most: usize },
}

impl Fault {
    /// What to tell of a fault in this field.
    pub(crate) fn in_field(name: &'static str) -> impl Fn(Self) -> InvalidFrame {
        #[cold]
        fn malformed(name: &str, fault: Fault) -> InvalidFrame {
            let reason = format!("{name}: {fault}");
            InvalidFrame::Malformed { reason }
        }
        move |fault| malformed(name, fault)
    }
}
