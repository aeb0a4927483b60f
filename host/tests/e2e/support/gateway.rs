//! The gateway's side of one connection: puts calls, answers questions from what the test has laid
//! out, and writes down what it was asked.
//!
//! Reads are bounded in time, so that a host that hangs fails the test.

use std::{
    collections::HashMap,
    fmt,
    io::{self, Read, Write},
    net::Shutdown,
    os::unix::net::UnixStream,
    path::Path,
};

use plugin_proto::{FrameBuffer, FrameWriter, Method};

use super::host::PATIENCE;
use crate::message::{Bytes, Message, Pair, Side};

/// A connection from the gateway to the host.
pub(crate) struct Gateway {
    stream: UnixStream,
    incoming: FrameBuffer,
    last_id: u32,
    last_route: u32,
    variables: HashMap<String, Bytes>,
    request_body: Option<Bytes>,
    response_body: Option<Bytes>,
    asked: Vec<String>,
}

/// The host's answer to a call, which compares with the line that it prints as: see
/// [`Message`]. The call's number is left out, since [`Gateway`] has compared it already.
#[derive(PartialEq, Eq)]
pub(crate) struct Answer(pub(crate) Message);

/// A request or response to put to the host.
#[derive(Clone)]
pub(crate) struct Call(Message);

/// A GET request.
pub(crate) fn get(path: &str) -> Call {
    request("GET", path)
}

/// A request.
pub(crate) fn request(method: &str, path: &str) -> Call {
    let method = (0..=14)
        .find(|number| Method::try_from(*number).unwrap().as_str() == method)
        .expect("a method that the protocol knows");
    Call(Message::RequestCall {
        id: 0,
        src_ip: Some((&[127, 0, 0, 1][..]).into()),
        method,
        path: path.into(),
        args: Vec::new(),
        headers: Vec::new(),
        conf_token: 0,
    })
}

/// An upstream's response.
pub(crate) fn response(status: u16) -> Call {
    Call(Message::ResponseCall {
        id: 0,
        status,
        headers: Vec::new(),
        conf_token: 0,
    })
}

impl Call {
    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        match &mut self.0 {
            Message::RequestCall { headers, .. } | Message::ResponseCall { headers, .. } => {
                headers.push((name.into(), Some(value.into())));
            }
            _ => unreachable!("no call is anything else"),
        }
        self
    }

    /// An argument `name=value`.
    pub(crate) fn arg(mut self, name: &str, value: &str) -> Self {
        self.args().push((name.into(), Some(value.into())));
        self
    }

    /// An argument without `=`.
    pub(crate) fn flag(mut self, name: &str) -> Self {
        self.args().push((name.into(), None));
        self
    }

    fn args(&mut self) -> &mut Vec<Pair> {
        match &mut self.0 {
            Message::RequestCall { args, .. } => args,
            _ => panic!("a response has no arguments"),
        }
    }

    fn with(mut self, number: u32, token: u32) -> Message {
        match &mut self.0 {
            Message::RequestCall { id, conf_token, .. }
            | Message::ResponseCall { id, conf_token, .. } => {
                (*id, *conf_token) = (number, token);
            }
            _ => unreachable!("no call is anything else"),
        }
        self.0
    }
}

impl Gateway {
    pub(crate) fn connect(socket: &Path) -> Self {
        Self::on(UnixStream::connect(socket).unwrap())
    }

    /// On a connection that is there already.
    pub(crate) fn on(stream: UnixStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Self {
            stream,
            incoming: FrameBuffer::new(),
            last_id: 0,
            last_route: 0,
            variables: HashMap::new(),
            request_body: None,
            response_body: None,
            asked: Vec::new(),
        }
    }

    /// Gives the next call this number.
    pub(crate) fn next_id(&mut self, id: u32) {
        self.last_id = id.wrapping_sub(1);
    }

    /// Gives a variable a value; the others are not set.
    pub(crate) fn set_variable(&mut self, name: &str, value: &str) {
        self.variables.insert(name.to_owned(), value.into());
    }

    /// Gives requests a body.
    pub(crate) fn set_request_body(&mut self, body: &[u8]) {
        self.request_body = Some(body.into());
    }

    /// Gives the upstream's response a body, which a gateway hands out once.
    pub(crate) fn set_response_body(&mut self, body: &[u8]) {
        self.response_body = Some(body.into());
    }

    /// What the host has asked since the last look: names of variables, `request body`,
    /// `response body`.
    pub(crate) fn asked(&mut self) -> Vec<String> {
        std::mem::take(&mut self.asked)
    }

    /// Has a route's configuration prepared: names of plugins and what the route says to each.
    pub(crate) fn prepare<'a, C: ToString>(
        &mut self,
        key: &str,
        conf: impl IntoIterator<Item = (&'a str, C)>,
    ) -> u32 {
        self.send(&preparing(key, conf));
        match self.receive() {
            Message::Token { conf_token } => conf_token,
            other => panic!("{other} in answer to a prepare"),
        }
    }

    /// The same where the connection may end, or an error come, instead.
    pub(crate) fn try_prepare<'a, C: ToString>(
        &mut self,
        key: &str,
        conf: impl IntoIterator<Item = (&'a str, C)>,
    ) -> Option<u32> {
        self.try_send_bytes(&frame(&preparing(key, conf))).ok()?;
        match self.try_receive()? {
            Message::Token { conf_token } => Some(conf_token),
            _ => None,
        }
    }

    /// Has the configuration of a new route prepared.
    pub(crate) fn route<'a, C: ToString>(
        &mut self,
        conf: impl IntoIterator<Item = (&'a str, C)>,
    ) -> u32 {
        self.last_route += 1;
        let key = format!("route#{}#ext-plugin-pre-req#1", self.last_route);
        self.prepare(&key, conf)
    }

    /// Puts a call and answers the host's questions until its answer is there.
    pub(crate) fn call(&mut self, token: u32, call: Call) -> Answer {
        self.begin(token, call);
        self.finish()
    }

    /// The same where the connection may end instead.
    pub(crate) fn try_call(&mut self, token: u32, call: Call) -> Option<Answer> {
        let call = self.next(token, call);
        self.try_send_bytes(&frame(&call)).ok()?;
        self.try_finish()
    }

    /// Puts a call and leaves it open.
    pub(crate) fn begin(&mut self, token: u32, call: Call) {
        let call = self.next(token, call);
        self.send(&call);
    }

    fn next(&mut self, token: u32, call: Call) -> Message {
        self.last_id = self.last_id.wrapping_add(1);
        call.with(self.last_id, token)
    }

    /// Answers the host's questions until the answer to the open call is there.
    pub(crate) fn finish(&mut self) -> Answer {
        self.try_finish()
            .expect("an answer of the host's and not the end of the connection")
    }

    /// The same where the connection may end instead.
    pub(crate) fn try_finish(&mut self) -> Option<Answer> {
        loop {
            let message = self.try_receive()?;
            let id = match &message {
                Message::AskVariable { .. }
                | Message::AskRequestBody
                | Message::AskResponseBody => {
                    let result = self.look_up(&message);
                    let answer = frame(&Message::Info { result });
                    self.try_send_bytes(&answer).ok()?;
                    continue;
                }
                Message::Unchanged { id }
                | Message::Stop { id, .. }
                | Message::Rewrite { id, .. }
                | Message::ResponseAnswer { id, .. } => *id,
                _ => self.last_id,
            };
            assert_eq!(id, self.last_id, "the answer carries the call's number");
            return Some(Answer(message));
        }
    }

    /// Writes a question down and finds its answer.
    fn look_up(&mut self, question: &Message) -> Option<Bytes> {
        let (name, result) = match question {
            Message::AskVariable { name } => {
                let name = String::from(name.clone());
                let value = self.variables.get(&name).cloned();
                (name, value)
            }
            Message::AskRequestBody => ("request body".to_owned(), self.request_body.clone()),
            _ => ("response body".to_owned(), self.response_body.take()),
        };
        self.asked.push(name);
        result
    }

    pub(crate) fn send(&mut self, message: &Message) {
        self.send_bytes(&frame(message));
    }

    /// Sends any bytes at all.
    pub(crate) fn send_bytes(&mut self, bytes: &[u8]) {
        self.try_send_bytes(bytes).unwrap();
    }

    /// Sends bytes to a host that may have closed the connection.
    pub(crate) fn try_send_bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Says that nothing more will be sent.
    pub(crate) fn end_sending(&mut self) {
        self.stream.shutdown(Shutdown::Write).unwrap();
    }

    /// The host's next message.
    pub(crate) fn receive(&mut self) -> Message {
        self.try_receive()
            .expect("a message of the host's and not the end of the connection")
    }

    /// Waits for the end of the connection.
    pub(crate) fn expect_end(&mut self) {
        if let Some(message) = self.try_receive() {
            panic!("{message} instead of the end of the connection");
        }
    }

    /// Whether nothing has come from the host that was not received yet.
    pub(crate) fn is_silent(&mut self) -> bool {
        self.stream.set_nonblocking(true).unwrap();
        let read = self.stream.read(&mut [0]);
        self.stream.set_nonblocking(false).unwrap();
        self.incoming.is_empty()
            && read.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Whether the connection has ended, or the host speaks unasked, which a gateway takes for the
    /// same.
    pub(crate) fn has_ended(&mut self) -> bool {
        !self.is_silent()
    }

    /// The host's next message; none where the connection ends instead.
    pub(crate) fn try_receive(&mut self) -> Option<Message> {
        loop {
            if let Some(frame) = self.incoming.frame() {
                let frame_type = frame.frame_type().unwrap();
                let message = Message::read(Side::Runner, frame_type, frame.data()).unwrap();
                self.incoming.consume();
                return Some(message);
            }
            match self.stream.read(self.incoming.spare()) {
                Ok(0) => return None,
                Ok(read) => self.incoming.filled(read),
                // What the host had not read when it closed is no loss.
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("no word from the host: {error}"),
            }
        }
    }
}

fn preparing<'a, C: ToString>(key: &str, conf: impl IntoIterator<Item = (&'a str, C)>) -> Message {
    let conf = conf
        .into_iter()
        .map(|(name, value)| (name.into(), Some(value.to_string().as_bytes().into())))
        .collect();
    Message::Prepare {
        conf,
        key: Some(key.into()),
    }
}

/// A message of the gateway's as it travels.
pub(crate) fn frame(message: &Message) -> Vec<u8> {
    let mut writer = FrameWriter::new();
    let frame = message.write(&mut writer).expect("what a gateway can say");
    frame.expect("no more than fits a frame").to_vec()
}

impl PartialEq<&str> for Answer {
    fn eq(&self, text: &&str) -> bool {
        self.to_string() == **text
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let line = self.0.to_string();
        let without_id = line
            .split_once(' ')
            .filter(|(id, _)| id.parse::<u32>().is_ok())
            .map_or(line.as_str(), |(_, rest)| rest);
        f.write_str(without_id)
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
