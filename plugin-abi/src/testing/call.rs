//! A request or response on its way through a chain: what the host shows to plugins, here with
//! everything in memory.
//!
//! As in the host, what makes no sense to the gateway is noted when it is done, and judged when the
//! plugin has returned.

use std::{fmt, net::IpAddr, sync::Arc, task::Poll, time::Duration};

use super::{
    answers::Answers,
    client_request::ClientRequest,
    fields::{Case, Field, Fields},
    outcome::Asked,
    response::UpstreamResponse,
    values::CallValues,
    world::World,
};
use crate::{
    AskError,
    abi::{
        self, AskStatus, CallObject, FfiFuture, HostCall, HostCall_TO, List, Question, ROption,
        RSlice, RVec, TD_CanDowncast, Text, ValueStatus,
    },
};

/// Bytes of the longest body that a frame of the gateway's protocol carries, beside what else is
/// in it.
const LONGEST_BODY: u64 = (1 << 24) - 1 - 64;

/// Questions of one call, at most, as the host's default.
const MAX_QUESTIONS: usize = 64;

/// What came in.
#[derive(Debug, Clone)]
pub(super) enum Message {
    Request(ClientRequest),
    Response(UpstreamResponse),
}

/// Something that the gateway cannot deliver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Misuse {
    Status(u16),
    HeaderName(Vec<u8>),
    Path(Vec<u8>),
    EmptyBody,
}

impl fmt::Display for Misuse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("asked for what the gateway cannot do: ")?;
        match self {
            Self::Status(status) => {
                write!(f, "status {status}, where the gateway delivers 200 to 599")
            }
            Self::HeaderName(name) => write!(
                f,
                "a header named \"{}\", which is no valid name",
                name.escape_ascii()
            ),
            Self::Path(path) => write!(
                f,
                "the path \"{}\", which does not begin with `/`",
                path.escape_ascii()
            ),
            Self::EmptyBody => f.write_str("an empty body: the gateway takes it for no change"),
        }
    }
}

/// A call with its changes.
#[derive(Clone)]
pub(super) struct Call {
    pub(super) message: Arc<Message>,
    pub(super) path: Option<Vec<u8>>,
    pub(super) status: Option<u16>,
    pub(super) headers: Fields,
    pub(super) arguments: Fields,
    pub(super) response_headers: Fields,
    pub(super) body: Option<Vec<u8>>,
    pub(super) answers: Arc<Answers>,
    pub(super) misuse: Option<Misuse>,
    pub(super) deadline: Duration,
    values: CallValues,
    world: Arc<World>,
    client_address: Vec<u8>,
}

impl Call {
    pub(super) fn new(world: &Arc<World>, message: Message) -> Self {
        let (headers, arguments, address) = match &message {
            Message::Request(request) => (
                request.headers.clone(),
                request.arguments(),
                match request.client_ip {
                    IpAddr::V4(address) => address.octets().to_vec(),
                    IpAddr::V6(address) => address.octets().to_vec(),
                },
            ),
            Message::Response(response) => (response.headers.clone(), Vec::new(), Vec::new()),
        };
        Self {
            message: Arc::new(message),
            path: None,
            status: None,
            headers: Fields::new(Case::Ignored, headers),
            arguments: Fields::new(Case::Counts, arguments),
            response_headers: Fields::new(Case::Ignored, Vec::new()),
            body: None,
            answers: Arc::default(),
            misuse: None,
            deadline: Duration::ZERO,
            values: CallValues::default(),
            world: Arc::clone(world),
            client_address: address,
        }
    }

    pub(super) fn into_object(self) -> CallObject {
        HostCall_TO::from_value(self, TD_CanDowncast)
    }

    /// Takes a call back; none where a plugin returned something else.
    pub(super) fn from_object(object: CallObject) -> Option<Self> {
        let own = object.obj.downcast_into::<Self>().ok()?;
        Some(abi::RBox::into_inner(own))
    }

    fn request(&self) -> Option<&ClientRequest> {
        match &*self.message {
            Message::Request(request) => Some(request),
            Message::Response(_) => None,
        }
    }

    /// Puts a question to the gateway, once.
    pub(super) fn ask_gateway(&self, asked: &Asked) -> AskStatus {
        if let Some(status) = self.answers.status(asked) {
            return status;
        }
        if let Some(refusal) = self.refusal(asked) {
            return refusal;
        }
        let value = match (asked, &*self.message) {
            (Asked::Variable(name), Message::Request(request)) => request.variable(name),
            (Asked::Variable(name), Message::Response(response)) => response.variable(name),
            (Asked::RequestBody, Message::Request(request)) => some_bytes(&request.body),
            (Asked::RequestBody, Message::Response(response)) => some_bytes(&response.request.body),
            (Asked::ResponseBody, Message::Response(response)) => some_bytes(&response.body),
            (Asked::ResponseBody, Message::Request(_)) => None,
        };
        self.answers.push(asked.clone(), AskStatus::ANSWERED, value);
        AskStatus::ANSWERED
    }

    /// Why a question does not travel.
    fn refusal(&self, asked: &Asked) -> Option<AskStatus> {
        let given = match &*self.message {
            Message::Request(request) => request.refusal,
            Message::Response(response) => response.request.refusal,
        };
        if let Some(error) = given {
            return Some(status_of(error));
        }
        let own_body = match &*self.message {
            Message::Request(_) if *asked == Asked::ResponseBody => {
                return Some(AskStatus::NOT_IN_THIS_PHASE);
            }
            Message::Request(_) => *asked == Asked::RequestBody,
            Message::Response(_) => *asked == Asked::ResponseBody,
        };
        if own_body
            && self
                .announced_length()
                .is_some_and(|length| length > LONGEST_BODY)
        {
            return Some(AskStatus::BODY_TOO_LARGE);
        }
        (self.answers.count() >= MAX_QUESTIONS).then_some(AskStatus::TOO_MANY_QUESTIONS)
    }

    fn announced_length(&self) -> Option<u64> {
        let headers = match &*self.message {
            Message::Request(request) => &request.headers,
            Message::Response(response) => &response.headers,
        };
        let length = headers
            .iter()
            .find(|header| Case::Ignored.same(&header.name, b"content-length"))?;
        std::str::from_utf8(length.value())
            .ok()?
            .trim()
            .parse()
            .ok()
    }

    /// The chain has ended well: what its plugins keep is there for later calls of the request.
    pub(super) fn leave_values(&self) {
        if let Some(id) = self.request_id() {
            self.values.leave(&self.world, id);
        }
    }

    fn request_id(&self) -> Option<&[u8]> {
        let asked = Asked::Variable("request_id".to_owned());
        self.answers.value(&asked).filter(|id| !id.is_empty())
    }

    fn list(&self, list: List) -> Option<&Fields> {
        match list {
            List::HEADERS => Some(&self.headers),
            List::ARGUMENTS => Some(&self.arguments),
            List::RESPONSE_HEADERS => Some(&self.response_headers),
            _ => None,
        }
    }

    fn change(&mut self, list: List, name: &[u8], change: impl FnOnce(&mut Fields)) {
        if list != List::ARGUMENTS && !is_token(name) {
            self.misused(Misuse::HeaderName(name.to_vec()));
            return;
        }
        match list {
            List::HEADERS => change(&mut self.headers),
            List::ARGUMENTS => change(&mut self.arguments),
            List::RESPONSE_HEADERS => change(&mut self.response_headers),
            _ => {}
        }
    }

    fn misused(&mut self, misuse: Misuse) {
        // The first one names the fault best.
        self.misuse.get_or_insert(misuse);
    }
}

impl HostCall for Call {
    fn id(&self) -> u32 {
        match &*self.message {
            Message::Request(request) => request.id,
            Message::Response(response) => response.request.id,
        }
    }

    fn status(&self) -> u16 {
        match (&*self.message, self.status) {
            (_, Some(status)) => status,
            (Message::Response(response), None) => response.status,
            (Message::Request(_), None) => 0,
        }
    }

    fn milliseconds_left(&self) -> u64 {
        let left = self.deadline.saturating_sub(self.world.now());
        u64::try_from(left.as_millis()).unwrap_or(u64::MAX)
    }

    fn text(&self, text: Text) -> RSlice<'_, u8> {
        let Some(request) = self.request() else {
            return RSlice::EMPTY;
        };
        RSlice::from_slice(match text {
            Text::METHOD => request.method.as_str().as_bytes(),
            Text::PATH => self.path.as_ref().unwrap_or(&request.path),
            Text::CLIENT_ADDRESS => &self.client_address,
            _ => &[],
        })
    }

    fn count(&self, list: List) -> usize {
        self.list(list).map_or(0, |fields| fields.now.len())
    }

    fn at(&self, list: List, index: usize) -> ROption<abi::Field<'_>> {
        let field = self.list(list).and_then(|fields| fields.now.get(index));
        field
            .map(|field| abi::Field {
                name: field.name.as_slice().into(),
                value: field.value.as_deref().map(Into::into).into(),
            })
            .into()
    }

    fn find(&self, list: List, name: RSlice<'_, u8>, start: usize) -> ROption<usize> {
        self.list(list)
            .and_then(|fields| fields.find(name.as_slice(), start))
            .into()
    }

    fn set_status(&mut self, status: u16) {
        if (200..=599).contains(&status) {
            self.status = Some(status);
        } else {
            self.misused(Misuse::Status(status));
        }
    }

    fn set_path(&mut self, path: RSlice<'_, u8>) {
        if path.first() == Some(&b'/') {
            self.path = Some(path.to_vec());
        } else {
            self.misused(Misuse::Path(path.to_vec()));
        }
    }

    fn set(&mut self, list: List, name: RSlice<'_, u8>, value: RSlice<'_, u8>) {
        let removes = list == List::HEADERS && self.request().is_some() && value.is_empty();
        self.change(list, name.as_slice(), |fields| match removes {
            true => fields.remove(&name),
            false => fields.set(&name, &value),
        });
    }

    fn append(&mut self, list: List, name: RSlice<'_, u8>, value: RSlice<'_, u8>) {
        self.change(list, name.as_slice(), |fields| fields.append(&name, &value));
    }

    fn remove(&mut self, list: List, name: RSlice<'_, u8>) {
        self.change(list, name.as_slice(), |fields| fields.remove(&name));
    }

    fn set_body(&mut self, body: RVec<u8>) {
        if body.is_empty() {
            self.misused(Misuse::EmptyBody);
        } else {
            self.body = Some(body.into());
        }
    }

    fn body_set(&self) -> ROption<RSlice<'_, u8>> {
        self.body.as_deref().map(Into::into).into()
    }

    fn ask(&self, question: Question<'_>) -> FfiFuture<AskStatus> {
        let asked = Asked::from(question);
        if let Some(status) = self.answers.status(&asked) {
            return FfiFuture::new(std::future::ready(status));
        }
        let status = self.ask_gateway(&asked);
        // The answer to a question that travels never comes at once.
        let mut travelled = status != AskStatus::ANSWERED;
        FfiFuture::new(std::future::poll_fn(move |context| {
            if std::mem::replace(&mut travelled, true) {
                return Poll::Ready(status);
            }
            context.waker().wake_by_ref();
            Poll::Pending
        }))
    }

    fn answer(&self, question: Question<'_>) -> ROption<RSlice<'_, u8>> {
        let value = self.answers.value(&Asked::from(question));
        value.map(Into::into).into()
    }

    fn value(&self, name: RSlice<'_, u8>) -> ROption<RSlice<'_, u8>> {
        self.values.get(name.as_slice()).map(Into::into).into()
    }

    fn set_value(
        &mut self,
        name: RSlice<'_, u8>,
        value: ROption<RVec<u8>>,
        keep: bool,
    ) -> ValueStatus {
        match value {
            ROption::RSome(_) if keep && self.request_id().is_none() => ValueStatus::NOT_LINKED,
            ROption::RSome(value) => self.values.set(name.as_slice(), &value, keep),
            ROption::RNone => {
                self.values.remove(name.as_slice());
                ValueStatus::DONE
            }
        }
    }

    fn load_values(&mut self) -> ValueStatus {
        let Some(id) = self.request_id() else {
            return ValueStatus::NOT_LINKED;
        };
        let kept = self.world.kept(id);
        self.values.load(kept);
        ValueStatus::DONE
    }
}

/// Whether this can be a header's name (RFC 9110, section 5.6.2).
pub(super) fn is_token(name: &[u8]) -> bool {
    !name.is_empty()
        && name
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte))
}

fn some_bytes(body: &[u8]) -> Option<Vec<u8>> {
    (!body.is_empty()).then(|| body.to_vec())
}

fn status_of(error: AskError) -> AskStatus {
    match error {
        AskError::BodyTooLarge => AskStatus::BODY_TOO_LARGE,
        AskError::TooManyQuestions => AskStatus::TOO_MANY_QUESTIONS,
        AskError::CallOver => AskStatus::CALL_OVER,
        AskError::NotInThisPhase => AskStatus::NOT_IN_THIS_PHASE,
        AskError::OutOfMemory => AskStatus::OUT_OF_MEMORY,
        AskError::Other(code) => AskStatus(code),
    }
}

/// What in a reply the gateway could not deliver, if anything.
pub(super) fn check_reply(reply: &abi::ReplyParts) -> Option<Misuse> {
    if !(200..=599).contains(&reply.status) {
        return Some(Misuse::Status(reply.status));
    }
    let mut names = reply.headers.iter().map(|header| &header.name);
    let wrong = names.find(|name| !is_token(name));
    wrong.map(|name| Misuse::HeaderName(name.to_vec()))
}

/// The headers of a reply.
pub(super) fn reply_headers(reply: &abi::ReplyParts) -> Vec<Field> {
    let headers = reply.headers.iter();
    headers
        .map(|header| Field::new(&header.name, &header.value))
        .collect()
}
