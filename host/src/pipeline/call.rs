//! One request or response on its way through a chain: what came in, and what plugins made of it.
//!
//! The call owns everything that a plugin may touch (the frame's buffer, its own notes), since a
//! plugin may go on using it after the host has stopped waiting. It is what plugins see through the
//! ABI, so its methods never panic: what makes no sense is noted as [`Misuse`] and judged when the
//! plugin has returned.

mod misuse;

use std::{net::IpAddr, sync::Arc};

use plugin_abi::abi::{
    self, AskStatus, CallObject, FfiFuture, HostCall, HostCall_TO, List, RBox, ROption, RSlice,
    RVec, ReplyParts, TD_CanDowncast, Text, ValueStatus,
};
use plugin_proto::{
    Entry, FrameBuffer, InvalidFrame, Method, frame::MAX_DATA_LEN, http_req_call, http_resp_call,
};
use tokio::time::Instant;

use super::{
    bill::{Bill, Body},
    fields::{Bytes, Case, Field, Fields, Span, note, span_in_frame},
    questions::{Question, Questions},
    values::CallValues,
};
use crate::memory::{Account, Reserved};

pub use misuse::Misuse;
pub(super) use misuse::check_reply;

use misuse::{DELIVERED_STATUS, is_token, shown};

/// Bytes of a frame's data that an answer needs beside the body that it carries.
pub const ANSWER_OVERHEAD: usize = 64;

/// The phases in which plugins run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Phase {
    /// Before the request goes upstream.
    #[default]
    Request,
    /// Before the response goes to the client.
    Response,
}

/// A call in the box in which it travels to plugins and back.
#[derive(Debug, Clone)]
pub struct CallBox(RBox<Call>);

impl CallBox {
    /// A call that nothing has come in for yet.
    pub fn new() -> Self {
        Self(RBox::new(Call::new()))
    }

    /// Hands the call to a plugin.
    pub fn into_object(self) -> CallObject {
        HostCall_TO::from_ptr(self.0, TD_CanDowncast)
    }

    /// Takes a call back; none where a plugin returned something else.
    pub fn from_object(object: CallObject) -> Option<Self> {
        object.obj.downcast_into::<Call>().ok().map(Self)
    }
}

impl Default for CallBox {
    fn default() -> Self {
        Self::new()
    }
}

impl std::ops::Deref for CallBox {
    type Target = Call;

    fn deref(&self) -> &Call {
        &self.0
    }
}

impl std::ops::DerefMut for CallBox {
    fn deref_mut(&mut self) -> &mut Call {
        &mut self.0
    }
}

/// One request or response with its changes. See the module.
#[derive(Debug, Clone)]
pub struct Call {
    phase: Phase,
    id: u32,
    token: u32,
    frame: Arc<FrameBuffer>,
    notes: Vec<u8>,
    method: Option<Method>,
    client_address: Span,
    path: Span,
    path_changed: bool,
    upstream_status: u16,
    status: u16,
    status_changed: bool,
    headers: Fields,
    arguments: Fields,
    response_headers: Fields,
    body: Option<Arc<Body>>,
    /// Body that the client or upstream announced, in bytes.
    content_length: Option<u64>,
    /// Longest body that the gateway can hand over.
    longest_body: u64,
    deadline: Instant,
    misuse: Option<Misuse>,
    questions: Arc<Questions>,
    values: CallValues,
    bill: Bill,
}

impl Call {
    fn new() -> Self {
        Self {
            phase: Phase::Request,
            id: 0,
            token: 0,
            frame: Arc::default(),
            notes: Vec::new(),
            method: None,
            client_address: Span::EMPTY,
            path: Span::EMPTY,
            path_changed: false,
            upstream_status: 0,
            status: 0,
            status_changed: false,
            headers: Fields::new(Case::Ignored),
            arguments: Fields::new(Case::Counts),
            response_headers: Fields::new(Case::Ignored),
            body: None,
            content_length: None,
            longest_body: (MAX_DATA_LEN - ANSWER_OVERHEAD) as u64,
            deadline: Instant::now(),
            misuse: None,
            questions: Arc::default(),
            values: CallValues::default(),
            bill: Bill::default(),
        }
    }

    /// Takes a frame of an HTTP request call; returns its configuration token. `incoming` is
    /// exchanged for an empty buffer, the memory of earlier calls is used again.
    ///
    /// # Errors
    /// The frame is no such message: the gateway's fault.
    pub fn take_request(&mut self, incoming: &mut FrameBuffer) -> Result<u32, InvalidFrame> {
        self.take_frame(incoming, Phase::Request);
        let data = data_of(&self.frame);
        let mut content_length = None;
        let view = http_req_call::RequestView::parse_with(
            data,
            |argument| {
                self.arguments
                    .push_received(Field::in_frame(data, argument))
            },
            |header| receive_header(&mut self.headers, &mut content_length, data, header),
        )?;
        self.id = view.id();
        self.method = view.method();
        self.client_address = span_in_frame(data, view.src_ip().unwrap_or_default());
        self.path = span_in_frame(data, view.path());
        self.content_length = content_length;
        self.token = view.conf_token();
        Ok(self.token)
    }

    /// Takes a frame of an HTTP response call; returns its configuration token.
    ///
    /// # Errors
    /// The frame is no such message: the gateway's fault.
    pub fn take_response(&mut self, incoming: &mut FrameBuffer) -> Result<u32, InvalidFrame> {
        self.take_frame(incoming, Phase::Response);
        let data = data_of(&self.frame);
        let mut content_length = None;
        let view = http_resp_call::RequestView::parse_with(data, |header| {
            receive_header(&mut self.headers, &mut content_length, data, header);
        })?;
        self.id = view.id();
        self.upstream_status = view.status();
        self.status = self.upstream_status;
        self.content_length = content_length;
        self.token = view.conf_token();
        Ok(self.token)
    }

    /// Forgets the last call and takes the frame of the next. What somebody else still holds of the
    /// last one stays theirs.
    fn take_frame(&mut self, incoming: &mut FrameBuffer, phase: Phase) {
        self.phase = phase;
        self.notes.clear();
        self.method = None;
        self.client_address = Span::EMPTY;
        self.path = Span::EMPTY;
        self.path_changed = false;
        self.upstream_status = 0;
        self.status = 0;
        self.status_changed = false;
        self.headers.clear();
        self.arguments.clear();
        self.response_headers.clear();
        self.body = None;
        self.content_length = None;
        self.misuse = None;
        self.values.clear();
        self.bill.close();
        match Arc::get_mut(&mut self.questions) {
            Some(questions) => questions.reset(),
            None => self.questions = Arc::default(),
        }
        match Arc::get_mut(&mut self.frame) {
            Some(last) => {
                last.consume();
                std::mem::swap(last, incoming);
            }
            None => self.frame = Arc::new(std::mem::take(incoming)),
        }
    }

    /// Bounds the bodies that may be asked for, in bytes, and what the call may hold.
    pub fn bound(&mut self, longest_body: u64, memory: &Account) {
        self.longest_body = longest_body;
        self.bill.open(memory);
    }

    /// The memory of the frame that was taken counts as long as anybody uses the call.
    pub fn count_frame(&mut self, memory: Reserved) {
        self.bill.frame(memory);
    }

    /// The same for a plugin's reply to the client.
    pub(super) fn count_reply(&mut self, reply: &ReplyParts) -> Result<(), Misuse> {
        self.bill.reply(reply).map_err(Misuse::NoRoom)
    }

    /// The call is over: lets go of bodies, and of memory beyond `max` bytes. Returns the buffer of its frame,
    /// if nobody else holds it.
    pub fn rest(&mut self, max: usize) -> Option<FrameBuffer> {
        match Arc::get_mut(&mut self.questions) {
            Some(questions) => questions.reset(),
            // Somebody may still wait for an answer.
            None => self.questions.end(),
        }
        self.notes.clear();
        self.notes.shrink_to(max);
        self.body = None;
        self.values.clear();
        self.bill.close();
        Arc::get_mut(&mut self.frame).map(std::mem::take)
    }

    /// Whether more came in than the call's own frame.
    pub fn has_following_bytes(&self) -> bool {
        self.frame.has_following_bytes()
    }

    /// The next plugin begins; the host waits for it until `deadline`.
    pub(super) fn begin_plugin(&mut self, deadline: Instant) {
        self.deadline = deadline;
        self.misuse = None;
    }

    /// The phase that this call is in.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// The gateway's number of this call.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// The configuration token that it came with.
    pub fn token(&self) -> u32 {
        self.token
    }

    /// The call has ended well: what its plugins keep for later calls of the request is theirs.
    pub(super) fn leave_values(&self) {
        let is_last = self.phase == Phase::Response;
        self.values.leave_for_next_call(&self.questions, is_last);
    }

    /// The questions asked during this call.
    pub fn questions(&self) -> Arc<Questions> {
        Arc::clone(&self.questions)
    }

    /// What the last plugin did that makes no sense to the gateway.
    pub fn misuse(&self) -> Option<&Misuse> {
        self.misuse.as_ref()
    }

    /// Why a question must not be put to the gateway, if so.
    pub fn refusal(&self, question: &Question) -> Option<AskStatus> {
        match (question, self.phase) {
            (Question::ResponseBody, Phase::Request) => Some(AskStatus::NOT_IN_THIS_PHASE),
            (Question::RequestBody, Phase::Request) | (Question::ResponseBody, Phase::Response) => {
                self.content_length
                    .is_some_and(|length| length > self.longest_body)
                    .then_some(AskStatus::BODY_TOO_LARGE)
            }
            (Question::RequestBody | Question::Variable(_), _) => None,
        }
    }

    /// The method of the request; none where the gateway sent a number that the protocol lacks.
    pub fn method(&self) -> Option<Method> {
        self.method
    }

    /// The client's address.
    pub fn client_ip(&self) -> Option<IpAddr> {
        let address = self.bytes().at(self.client_address);
        <[u8; 4]>::try_from(address)
            .map(IpAddr::from)
            .or_else(|_| <[u8; 16]>::try_from(address).map(IpAddr::from))
            .ok()
    }

    /// The path, changes included.
    pub fn path(&self) -> &[u8] {
        self.bytes().at(self.path)
    }

    /// The path that a plugin has set.
    pub fn changed_path(&self) -> Option<&[u8]> {
        self.path_changed.then(|| self.path())
    }

    /// The status that the upstream sent.
    pub fn upstream_status(&self) -> u16 {
        self.upstream_status
    }

    /// The response's status, changes included.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// The status that a plugin has set.
    pub fn changed_status(&self) -> Option<u16> {
        self.status_changed.then_some(self.status)
    }

    /// The body that a plugin has set.
    pub fn changed_body(&self) -> Option<&[u8]> {
        self.body.as_ref().map(|body| body.bytes.as_slice())
    }

    /// All headers as they are now.
    pub fn headers(&self) -> impl Iterator<Item = Entry<'_>> {
        self.entries(self.headers.now())
    }

    /// Response headers that plugins recorded in the request phase.
    pub fn response_headers(&self) -> impl Iterator<Item = Entry<'_>> {
        self.entries(self.response_headers.now())
    }

    /// Request headers to set at the gateway; without a value, to delete.
    pub fn header_changes(&self) -> impl Iterator<Item = Entry<'_>> {
        self.changes(&self.headers)
    }

    /// Query arguments to set at the gateway: the entries of a name stand together; without a
    /// value, to delete.
    pub fn argument_changes(&self) -> impl Iterator<Item = Entry<'_>> {
        self.changes(&self.arguments)
    }

    /// Whether anything differs from what came in (request phase).
    pub fn is_changed(&self) -> bool {
        self.path_changed
            || self.body.is_some()
            || !self.headers.touched().is_empty()
            || !self.arguments.touched().is_empty()
            || !self.response_headers.now().is_empty()
    }

    fn entries<'a>(&'a self, fields: &'a [Field]) -> impl Iterator<Item = Entry<'a>> {
        let bytes = self.bytes();
        fields.iter().map(move |field| Entry {
            name: bytes.at(field.name),
            value: field.value.map(|value| bytes.at(value)),
        })
    }

    fn changes<'a>(&'a self, fields: &'a Fields) -> impl Iterator<Item = Entry<'a>> {
        let bytes = self.bytes();
        fields.touched().iter().flat_map(move |touched| {
            let name = bytes.at(*touched);
            let mut left = fields.named(bytes, name).peekable();
            let gone = left.peek().is_none().then_some(Entry { name, value: None });
            left.map(move |field| Entry {
                name: bytes.at(field.name),
                // An argument without `=` stands here only beside others of its name; no value
                // would delete them all.
                value: Some(field.value.map_or(&[][..], |value| bytes.at(value))),
            })
            .chain(gone)
        })
    }

    fn bytes(&self) -> Bytes<'_> {
        Bytes {
            frame: data_of(&self.frame),
            notes: &self.notes,
        }
    }

    fn list(&self, list: List) -> Option<&Fields> {
        match (list, self.phase) {
            (List::HEADERS, _) => Some(&self.headers),
            (List::ARGUMENTS, Phase::Request) => Some(&self.arguments),
            (List::RESPONSE_HEADERS, Phase::Request) => Some(&self.response_headers),
            _ => None,
        }
    }

    /// Changes a list; the change gets the places of the name and the value.
    fn change(
        &mut self,
        list: List,
        name: &[u8],
        value: &[u8],
        change: impl FnOnce(&mut Fields, Bytes<'_>, Field),
    ) {
        if list != List::ARGUMENTS && !is_token(name) {
            self.misused(Misuse::HeaderName(shown(name)));
            return;
        }
        if !self.has_room_for_a_change(name.len() + value.len()) {
            return;
        }
        let name = note(&mut self.notes, name);
        let value = note(&mut self.notes, value);
        let bytes = Bytes {
            frame: data_of(&self.frame),
            notes: &self.notes,
        };
        let fields = match (list, self.phase) {
            (List::HEADERS, _) => &mut self.headers,
            (List::ARGUMENTS, Phase::Request) => &mut self.arguments,
            (List::RESPONSE_HEADERS, Phase::Request) => &mut self.response_headers,
            _ => {
                self.misused(Misuse::NotInThisPhase("this list of fields"));
                return;
            }
        };
        change(
            fields,
            bytes,
            Field {
                name,
                value: Some(value),
            },
        );
    }

    fn has_room_for_a_change(&mut self, bytes: usize) -> bool {
        let counted = self.bill.change(self.notes.len() + bytes);
        if let Err(no_room) = &counted {
            self.misused(Misuse::NoRoom(no_room.clone()));
        }
        counted.is_ok()
    }

    fn misused(&mut self, misuse: Misuse) {
        // The first one names the fault best.
        self.misuse.get_or_insert(misuse);
    }
}

impl HostCall for Call {
    fn id(&self) -> u32 {
        self.id
    }

    fn status(&self) -> u16 {
        self.status
    }

    fn milliseconds_left(&self) -> u64 {
        let left = self.deadline.saturating_duration_since(Instant::now());
        u64::try_from(left.as_millis()).unwrap_or(u64::MAX)
    }

    fn text(&self, text: Text) -> RSlice<'_, u8> {
        match text {
            Text::METHOD => self
                .method
                .map_or(&[][..], |method| method.as_str().as_bytes()),
            Text::PATH => self.path(),
            Text::CLIENT_ADDRESS => self.bytes().at(self.client_address),
            _ => &[],
        }
        .into()
    }

    fn count(&self, list: List) -> usize {
        self.list(list).map_or(0, |fields| fields.now().len())
    }

    fn at(&self, list: List, index: usize) -> ROption<abi::Field<'_>> {
        let bytes = self.bytes();
        self.list(list)
            .and_then(|fields| fields.now().get(index))
            .map(|field| abi::Field {
                name: bytes.at(field.name).into(),
                value: field.value.map(|value| bytes.at(value).into()).into(),
            })
            .into()
    }

    fn find(&self, list: List, name: RSlice<'_, u8>, start: usize) -> ROption<usize> {
        self.list(list)
            .and_then(|fields| fields.find(self.bytes(), name.as_slice(), start))
            .into()
    }

    fn set_status(&mut self, status: u16) {
        if self.phase == Phase::Request {
            self.misused(Misuse::NotInThisPhase("the status"));
        } else if !DELIVERED_STATUS.contains(&status) {
            self.misused(Misuse::Status(status));
        } else {
            self.status = status;
            self.status_changed = true;
        }
    }

    fn set_path(&mut self, path: RSlice<'_, u8>) {
        let path = path.as_slice();
        if self.phase == Phase::Response {
            self.misused(Misuse::NotInThisPhase("the path"));
        } else if path.first() != Some(&b'/') {
            self.misused(Misuse::Path(shown(path)));
        } else if self.has_room_for_a_change(path.len()) {
            self.path = note(&mut self.notes, path);
            self.path_changed = true;
        }
    }

    fn set(&mut self, list: List, name: RSlice<'_, u8>, value: RSlice<'_, u8>) {
        // The gateway takes an empty request header for a deletion; what later plugins see is that.
        if list == List::HEADERS && self.phase == Phase::Request && value.is_empty() {
            self.remove(list, name);
            return;
        }
        self.change(list, name.as_slice(), value.as_slice(), Fields::set);
    }

    fn append(&mut self, list: List, name: RSlice<'_, u8>, value: RSlice<'_, u8>) {
        if list == List::HEADERS && self.phase == Phase::Request {
            // The gateway cannot send a request header twice.
            self.set(list, name, value);
            return;
        }
        self.change(list, name.as_slice(), value.as_slice(), Fields::append);
    }

    fn remove(&mut self, list: List, name: RSlice<'_, u8>) {
        self.change(list, name.as_slice(), &[], |fields, bytes, field| {
            fields.remove(bytes, field.name);
        });
    }

    fn set_body(&mut self, body: RVec<u8>) {
        if body.is_empty() {
            self.misused(Misuse::EmptyBody);
        } else {
            // What was there before need not fit beside it.
            self.body = None;
            match self.bill.body(body) {
                Ok(body) => self.body = Some(Arc::new(body)),
                Err(no_room) => self.misused(Misuse::NoRoom(no_room)),
            }
        }
    }

    fn body_set(&self) -> ROption<RSlice<'_, u8>> {
        self.changed_body().map(Into::into).into()
    }

    fn ask(&self, question: abi::Question<'_>) -> FfiFuture<AskStatus> {
        let question = Question::from(question);
        match self.refusal(&question) {
            Some(refusal) => FfiFuture::new(std::future::ready(refusal)),
            None => FfiFuture::new(self.questions.ask(question)),
        }
    }

    fn answer(&self, question: abi::Question<'_>) -> ROption<RSlice<'_, u8>> {
        self.questions.answer_to(question).map(Into::into).into()
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
        let value = value.as_ref().map(|value| value.as_slice());
        let value = value.into_option();
        self.values
            .change(&self.questions, name.as_slice(), value, keep)
    }

    fn load_values(&mut self) -> ValueStatus {
        self.values.load_for_call(&self.questions)
    }
}

fn data_of(frame: &FrameBuffer) -> &[u8] {
    frame.frame().map_or(&[], |frame| frame.data())
}

/// Receives a header, and the length of the body where it is the one that announces it.
#[inline]
fn receive_header(
    headers: &mut Fields,
    content_length: &mut Option<u64>,
    data: &[u8],
    header: Entry<'_>,
) {
    headers.push_received(Field::in_frame(data, header));
    if header.name.eq_ignore_ascii_case(b"content-length") {
        *content_length = header
            .value
            .and_then(|value| std::str::from_utf8(value).ok()?.trim().parse().ok());
    }
}
