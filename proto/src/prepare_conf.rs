//! Frame type 1: the gateway hands over a route's plugins with their configurations and gets a token for
//! them, which later calls carry.

use crate::entries::{Entries, Entry};
use crate::frame::{FrameTooLarge, FrameType};
use crate::generated::a6::prepare_conf as wire;
use crate::invalid::InvalidFrame;
use crate::verify::Message;
use crate::writer::FrameWriter;

/// A configuration to prepare, as the runner reads it.
#[derive(Clone, Copy, Debug)]
pub struct RequestView<'a> {
    conf: Entries<'a>,
    key: Option<&'a [u8]>,
}

impl<'a> RequestView<'a> {
    /// Verifies the data of a frame of type [`FrameType::PrepareConf`] from the gateway.
    ///
    /// # Errors
    /// [`InvalidFrame`] if it is no such message, or unaligned.
    pub fn parse(data: &'a [u8]) -> Result<Self, InvalidFrame> {
        let mut message = Message::new(data)?;
        let mut request = message.root()?;
        Ok(Self {
            conf: request.entries("conf", wire::Req::VT_CONF)?,
            key: request.bytes("key", wire::Req::VT_KEY)?,
        })
    }

    /// The plugins in the order of execution: name, and configuration as its author wrote it. None at all
    /// is an empty chain, not an error.
    #[must_use]
    pub fn conf(self) -> Entries<'a> {
        self.conf
    }

    /// Names this configuration: the same key never comes with another one. Very old gateways send none.
    #[must_use]
    pub fn key(self) -> Option<&'a [u8]> {
        self.key
    }
}

/// The token for a configuration, as the gateway's side reads it.
#[derive(Clone, Copy, Debug)]
pub struct AnswerView {
    conf_token: u32,
}

impl AnswerView {
    /// Verifies the data of a frame of type [`FrameType::PrepareConf`] from the runner.
    ///
    /// # Errors
    /// [`InvalidFrame`] if it is no such message, or unaligned.
    pub fn parse(data: &[u8]) -> Result<Self, InvalidFrame> {
        let mut message = Message::new(data)?;
        let mut answer = message.root()?;
        Ok(Self {
            conf_token: answer.u32("conf_token", wire::Resp::VT_CONF_TOKEN)?,
        })
    }

    /// What later calls carry to mean this configuration.
    #[must_use]
    pub fn conf_token(self) -> u32 {
        self.conf_token
    }
}

/// Writes a configuration to prepare (the gateway's side).
///
/// # Errors
/// [`FrameTooLarge`] if it does not fit a frame.
pub fn write_request<'w, 'e>(
    writer: &'w mut FrameWriter,
    conf: impl IntoIterator<Item = Entry<'e>>,
    key: Option<&[u8]>,
) -> Result<&'w [u8], FrameTooLarge> {
    writer.frame(FrameType::PrepareConf, |w| {
        let conf = w.entries(conf)?;
        let key = w.optional_bytes(key)?;
        w.table([conf.into(), key.into()])
    })
}

/// Writes the token for a configuration.
pub fn write_answer(writer: &mut FrameWriter, conf_token: u32) -> &[u8] {
    writer
        .frame(FrameType::PrepareConf, |w| w.table([conf_token.into()]))
        .expect("one number fits a frame")
}
