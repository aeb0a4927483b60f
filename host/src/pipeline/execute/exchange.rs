//! The HTTP request that asks for an execution, and the answer to it, as a plugin sees them. Whose
//! connection it is, and how bytes come and go on it, is none of this module's business.

use std::fmt;

use hyper::header::{HeaderName, HeaderValue};
use plugin_abi::abi::{
    FfiFuture, HttpFailure, HttpText, OwnedField, ROption, RResult, RVec, ReplyParts, RespondStatus,
};
use tokio::sync::{mpsc, oneshot};

/// Pieces of an answer that wait to be taken by a client; beyond, the plugin waits.
pub const WAITING_PIECES: usize = 4;

/// Gives the next piece of a request's body.
pub type NextPiece =
    Box<dyn Fn() -> FfiFuture<RResult<ROption<RVec<u8>>, HttpFailure>> + Send + Sync>;

/// A request.
pub struct Exchange {
    /// The method, in upper case.
    pub method: String,
    /// The path as it came.
    pub path: String,
    /// What stands behind the question mark.
    pub query: Option<String>,
    /// The route that it has come by.
    pub route: String,
    /// The client's address, in network order; none where it has none.
    pub client: Vec<u8>,
    /// Its headers.
    pub headers: Vec<OwnedField>,
    /// What its path has in the places that the route names.
    pub parameters: Vec<OwnedField>,
    /// Its body.
    pub next_piece: NextPiece,
    /// Where an answer that streams begins.
    pub begins: Option<oneshot::Sender<Streaming>>,
    /// What has been answered; nothing yet.
    pub answered: Option<Answered>,
}

/// An answer that streams.
#[derive(Debug)]
pub struct Streaming {
    /// How it begins; its body is the first piece.
    pub head: ReplyParts,
    /// What follows; it ends where the execution does.
    pub pieces: mpsc::Receiver<RVec<u8>>,
}

/// What a plugin has answered.
#[derive(Debug)]
pub enum Answered {
    /// With all of it, which goes out when the plugin has returned.
    Whole(ReplyParts),
    /// In pieces.
    Streams(mpsc::Sender<RVec<u8>>),
}

impl fmt::Debug for Exchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.method, self.route)
    }
}

impl Exchange {
    pub(super) fn text(&self, text: HttpText) -> Option<&[u8]> {
        Some(match text {
            HttpText::METHOD => self.method.as_bytes(),
            HttpText::PATH => self.path.as_bytes(),
            HttpText::QUERY => self.query.as_ref()?.as_bytes(),
            HttpText::ROUTE => self.route.as_bytes(),
            HttpText::CLIENT_ADDRESS if !self.client.is_empty() => &self.client,
            _ => return None,
        })
    }

    pub(super) fn respond(&mut self, reply: ReplyParts, streams: bool) -> RespondStatus {
        if self.answered.is_some() {
            return RespondStatus::ANSWERED;
        }
        if !is_possible(&reply) {
            return RespondStatus::INVALID;
        }
        if !streams {
            self.answered = Some(Answered::Whole(reply));
            return RespondStatus::SENT;
        }
        let (piece, pieces) = mpsc::channel(WAITING_PIECES);
        self.answered = Some(Answered::Streams(piece));
        let begins = self.begins.take();
        let streaming = Streaming {
            head: reply,
            pieces,
        };
        match begins.map(|begins| begins.send(streaming)) {
            Some(Ok(())) => RespondStatus::SENT,
            _ => RespondStatus::GONE,
        }
    }

    pub(super) fn send(&self, piece: RVec<u8>) -> FfiFuture<RespondStatus> {
        let Some(Answered::Streams(pieces)) = &self.answered else {
            return FfiFuture::new(std::future::ready(RespondStatus::NO_STREAM));
        };
        let pieces = pieces.clone();
        FfiFuture::new(async move {
            match pieces.send(piece).await {
                Ok(()) => RespondStatus::SENT,
                Err(_) => RespondStatus::GONE,
            }
        })
    }
}

/// Whether HTTP could carry it.
fn is_possible(reply: &ReplyParts) -> bool {
    let header = |field: &OwnedField| {
        HeaderName::from_bytes(&field.name).is_ok() && HeaderValue::from_bytes(&field.value).is_ok()
    };
    (200..600).contains(&reply.status) && reply.headers.iter().all(header)
}
