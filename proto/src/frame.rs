//! Frames: the four bytes before each message, and the buffer in which a message becomes complete.
//!
//! Nothing here reads or writes a socket, and nothing looks into the data of a frame.

mod buffer;

pub use buffer::{Frame, FrameBuffer};

/// Bytes before the data of a frame: one of type, three of length.
pub const HEADER_LEN: usize = 4;

/// The longest data that a frame can carry, in bytes: what three bytes of length can say.
pub const MAX_DATA_LEN: usize = 0xFF_FFFF;

const _: () = assert!(
    MAX_DATA_LEN == (1 << 24) - 1,
    "the length of a frame has 24 bits"
);
const _: () = assert!(
    MAX_DATA_LEN <= u32::MAX as usize,
    "lengths are kept in a u32"
);

/// What a frame is about. The same type answers a question of that type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum FrameType {
    /// An error instead of an answer; see [`err`](crate::err).
    Error = 0,
    /// A route's configuration becomes a token; see [`prepare_conf`](crate::prepare_conf).
    PrepareConf = 1,
    /// A request before it goes upstream; see [`http_req_call`](crate::http_req_call).
    HttpReqCall = 2,
    /// The runner asks back during a call; see [`extra_info`](crate::extra_info).
    ExtraInfo = 3,
    /// A response before it goes to the client; see [`http_resp_call`](crate::http_resp_call).
    HttpRespCall = 4,
}

/// A type byte that the protocol does not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("frame type {0} is unknown: the protocol has 0 to 4")]
pub struct UnknownFrameType(
    /// The byte as it arrived.
    pub u8,
);

impl TryFrom<u8> for FrameType {
    type Error = UnknownFrameType;

    fn try_from(type_byte: u8) -> Result<Self, UnknownFrameType> {
        match type_byte {
            0 => Ok(Self::Error),
            1 => Ok(Self::PrepareConf),
            2 => Ok(Self::HttpReqCall),
            3 => Ok(Self::ExtraInfo),
            4 => Ok(Self::HttpRespCall),
            unknown => Err(UnknownFrameType(unknown)),
        }
    }
}

impl From<FrameType> for u8 {
    fn from(frame_type: FrameType) -> u8 {
        frame_type as u8
    }
}

/// A message of ours does not fit a frame. The sender's fault: the peer has seen nothing of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a message of at least {at_least} bytes does not fit a frame (at most {MAX_DATA_LEN}): send a smaller body or fewer headers"
)]
pub struct FrameTooLarge {
    /// Bytes that the message needs, or has needed up to the point where building it was given up.
    pub at_least: usize,
}

/// The four bytes before the data of a frame, as they are: any type byte is possible here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Header {
    /// What the frame is about; a [`FrameType`] if the protocol knows it.
    pub type_byte: u8,
    /// Length of the data in bytes, header not counted; at most [`MAX_DATA_LEN`].
    pub data_len: u32,
}

impl Header {
    /// The header of a frame with this many bytes of data.
    ///
    /// # Errors
    /// [`FrameTooLarge`] if the length does not fit 24 bits.
    pub fn new(frame_type: FrameType, data_len: usize) -> Result<Self, FrameTooLarge> {
        if data_len > MAX_DATA_LEN {
            return Err(FrameTooLarge { at_least: data_len });
        }
        let data_len = u32::try_from(data_len).expect("24 bits fit a u32");
        Ok(Self {
            type_byte: frame_type.into(),
            data_len,
        })
    }

    /// Reads a header. Every four bytes are one.
    #[must_use]
    pub fn decode(bytes: [u8; HEADER_LEN]) -> Self {
        let [type_byte, high, middle, low] = bytes;
        Self {
            type_byte,
            data_len: u32::from_be_bytes([0, high, middle, low]),
        }
    }

    /// The header as it travels.
    ///
    /// # Errors
    /// [`FrameTooLarge`] if `data_len` does not fit 24 bits.
    pub fn encode(self) -> Result<[u8; HEADER_LEN], FrameTooLarge> {
        let [overflow, high, middle, low] = self.data_len.to_be_bytes();
        if overflow != 0 {
            return Err(FrameTooLarge {
                at_least: self.data_len as usize,
            });
        }
        Ok([self.type_byte, high, middle, low])
    }

    /// The type of the frame.
    ///
    /// # Errors
    /// [`UnknownFrameType`] if the protocol has no such type.
    pub fn frame_type(self) -> Result<FrameType, UnknownFrameType> {
        FrameType::try_from(self.type_byte)
    }

    /// Bytes of the whole frame, header included.
    #[must_use]
    pub fn frame_len(self) -> usize {
        HEADER_LEN + self.data_len as usize
    }
}
