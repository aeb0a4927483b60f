//! The least host that a plugin can run in: it stands still unless a test polls, keeps what is
//! logged, and plays calls from what a test puts into them. It never talks to a gateway.

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use plugin_abi::{
    abi::{
        AskStatus, CallObject, ConfiguredObject, Failure, FfiFuture, Field, HostCall, HostCall_TO,
        HostServices, HostServices_TO, HttpFailure, IncomingObject, List, LoadArguments, LogLevel,
        LogRecord, Outcome, OutgoingObject, PluginObject, Question, ROption, RResult, RSlice, RStr,
        RVec, TD_Opaque, Text, Verdict,
    },
    export,
    prelude::Plugin,
};

/// A library has one host and one panic hook, so that only one test at a time can be a library.
static LIBRARY: Mutex<()> = Mutex::new(());

/// What plugins have logged since the library was taken.
static LOG: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// The library of one plugin, for as long as a test runs.
pub(crate) struct Library {
    plugin: Result<PluginObject, Failure>,
    _alone: MutexGuard<'static, ()>,
}

impl Library {
    /// Loads a plugin with these settings, a JSON object.
    pub(crate) fn load<P: Plugin>(settings: &str) -> Self {
        let alone = LIBRARY.lock().unwrap_or_else(PoisonError::into_inner);
        LOG.lock().unwrap().clear();
        let create = export::module::<P, ()>().create();
        let plugin = ready(create(
            HostServices_TO::from_value(FakeHost, TD_Opaque),
            LoadArguments {
                name: "probe".into(),
                version: "1.2.3".into(),
                settings: settings.as_bytes().into(),
            },
        ));
        // The library's hook keeps messages from standard error; a failed test's belongs there.
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            eprintln!("{info}");
            hook(info);
        }));
        Self {
            plugin: plugin.into_result(),
            _alone: alone,
        }
    }

    /// Why the plugin could not be loaded.
    pub(crate) fn failure(&self) -> &Failure {
        self.plugin.as_ref().map(|_| ()).unwrap_err()
    }

    pub(crate) fn plugin(&self) -> &PluginObject {
        self.plugin.as_ref().unwrap()
    }

    pub(crate) fn configure(&self, raw: &str) -> Result<ConfiguredObject, Failure> {
        let raw = RSlice::from_slice(raw.as_bytes());
        self.plugin().configure(raw).into_result()
    }

    /// Runs the request phase of a plugin that never waits.
    pub(crate) fn request(&self, call: FakeCall) -> Outcome {
        ready(self.configure("{}").unwrap().request(call.into_object()))
    }

    /// Runs the response phase of a plugin that never waits.
    pub(crate) fn response(&self, call: FakeCall) -> Outcome {
        ready(self.configure("{}").unwrap().response(call.into_object()))
    }

    /// Drops the plugin and says what was logged since it was loaded.
    pub(crate) fn unload(self) -> Vec<String> {
        drop(self.plugin);
        logged()
    }
}

/// What was logged since the library was loaded.
pub(crate) fn logged() -> Vec<String> {
    LOG.lock().unwrap().clone()
}

/// Polls once.
pub(crate) fn poll<T>(future: &mut FfiFuture<T>) -> Poll<T> {
    Pin::new(future).poll(&mut Context::from_waker(Waker::noop()))
}

/// The result of a future that is ready at its first poll.
pub(crate) fn ready<T>(mut future: FfiFuture<T>) -> T {
    match poll(&mut future) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("the future waits"),
    }
}

/// The failure that an outcome is; what the plugin decided instead is the test's failure.
pub(crate) fn failure_of(outcome: &Outcome) -> &Failure {
    match &outcome.verdict {
        Verdict::Failed(failure) => failure,
        other => panic!("the plugin did not fail: {other:?}"),
    }
}

struct FakeHost;

impl HostServices for FakeHost {
    fn log_enabled(&self, level: LogLevel, _target: RStr<'_>) -> bool {
        level <= LogLevel::INFO
    }

    fn log(&self, record: LogRecord<'_>) {
        let mut line = format!("{} {} {}", record.level.0, record.target, record.message);
        for field in record.fields {
            line += &format!(" {}={}", field.name, field.value);
        }
        LOG.lock().unwrap().push(line);
    }

    fn sleep(&self, nanoseconds: u64) -> FfiFuture<()> {
        LOG.lock().unwrap().push(format!("sleep {nanoseconds}"));
        let mut slept = false;
        FfiFuture::new(std::future::poll_fn(move |_| {
            if std::mem::replace(&mut slept, true) {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        }))
    }

    fn fetch(
        &self,
        mut request: OutgoingObject,
    ) -> FfiFuture<RResult<IncomingObject, HttpFailure>> {
        let body: Vec<u8> = request.take_body().into();
        let milliseconds = request.nanoseconds() / 1_000_000;
        LOG.lock().unwrap().push(format!(
            "fetch {} {} within {milliseconds} ms, at most {} bytes: {}",
            text(request.method().as_slice()),
            request.url(),
            request.max_body_bytes(),
            text(&body)
        ));
        for field in request.headers().iter() {
            let (name, value) = (text(&field.name), text(&field.value));
            LOG.lock().unwrap().push(format!("{name}: {value}"));
        }
        FfiFuture::new(std::future::ready(RResult::RErr(HttpFailure {
            kind: plugin_abi::abi::HttpFailureKind::CONNECT,
            message: "nobody is there".into(),
        })))
    }
}

/// A host whose only service is that it does not know of any others: what an older one is for a newer
/// library.
struct OlderHost;

impl HostServices for OlderHost {
    fn log_enabled(&self, _level: LogLevel, _target: RStr<'_>) -> bool {
        false
    }

    fn log(&self, _record: LogRecord<'_>) {}

    fn sleep(&self, _nanoseconds: u64) -> FfiFuture<()> {
        FfiFuture::new(std::future::ready(()))
    }
}

/// Sends a request through a host that has no client.
pub(crate) fn fetch_from_an_older_host(
    request: OutgoingObject,
) -> RResult<IncomingObject, HttpFailure> {
    let host = HostServices_TO::from_value(OlderHost, TD_Opaque);
    ready(host.fetch(request))
}

type Entry = (Vec<u8>, Option<Vec<u8>>);

/// A call whose parts a test sets, and that keeps what a plugin does to it.
#[derive(Default)]
pub(crate) struct FakeCall {
    pub(crate) path: &'static str,
    pub(crate) address: Vec<u8>,
    pub(crate) status: u16,
    pub(crate) headers: Vec<Entry>,
    pub(crate) arguments: Vec<Entry>,
    /// What the gateway would answer to any question, or why it would not.
    pub(crate) answer: Option<Vec<u8>>,
    pub(crate) refusal: Option<AskStatus>,
    /// What plugins have made of it: kept here, read by tests through [`FakeCall::done`].
    pub(crate) body_set: Option<Vec<u8>>,
    pub(crate) done: Arc<Mutex<Vec<String>>>,
}

impl FakeCall {
    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.into(), Some(value.into())));
        self
    }

    pub(crate) fn argument(mut self, name: &str, value: Option<&str>) -> Self {
        self.arguments.push((name.into(), value.map(Into::into)));
        self
    }

    /// The list of what plugins changed or asked, which outlives the call.
    pub(crate) fn done(&self) -> Arc<Mutex<Vec<String>>> {
        Arc::clone(&self.done)
    }

    pub(crate) fn into_object(self) -> CallObject {
        HostCall_TO::from_value(self, TD_Opaque)
    }

    fn list(&self, list: List) -> &[Entry] {
        match list {
            List::HEADERS => &self.headers,
            List::ARGUMENTS => &self.arguments,
            _ => &[],
        }
    }

    fn note(&self, what: &str, list: &str, name: RSlice<'_, u8>, value: &[u8]) {
        let (name, value) = (text(name.as_slice()), text(value));
        let note = format!("{what} {list} {name} {value}");
        self.done.lock().unwrap().push(note.trim_end().to_owned());
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn name_of(list: List) -> &'static str {
    match list {
        List::HEADERS => "header",
        List::ARGUMENTS => "argument",
        List::RESPONSE_HEADERS => "response header",
        _ => "unknown",
    }
}

impl HostCall for FakeCall {
    fn id(&self) -> u32 {
        7
    }

    fn status(&self) -> u16 {
        self.status
    }

    fn milliseconds_left(&self) -> u64 {
        1_500
    }

    fn text(&self, text: Text) -> RSlice<'_, u8> {
        RSlice::from_slice(match text {
            Text::METHOD => b"POST",
            Text::PATH => self.path.as_bytes(),
            Text::CLIENT_ADDRESS => &self.address,
            _ => b"",
        })
    }

    fn count(&self, list: List) -> usize {
        self.list(list).len()
    }

    fn at(&self, list: List, index: usize) -> ROption<Field<'_>> {
        self.list(list)
            .get(index)
            .map(|(name, value)| Field {
                name: name.as_slice().into(),
                value: value.as_deref().map(Into::into).into(),
            })
            .into()
    }

    fn find(&self, list: List, name: RSlice<'_, u8>, start: usize) -> ROption<usize> {
        let same = |entry: &Entry| match list {
            List::ARGUMENTS => entry.0 == name.as_slice(),
            _ => entry.0.eq_ignore_ascii_case(name.as_slice()),
        };
        (start..self.count(list))
            .find(|index| same(&self.list(list)[*index]))
            .into()
    }

    fn set_status(&mut self, status: u16) {
        self.note(
            "set",
            "status",
            RSlice::EMPTY,
            status.to_string().as_bytes(),
        );
    }

    fn set_path(&mut self, path: RSlice<'_, u8>) {
        self.note("set", "path", path, b"");
    }

    fn set(&mut self, list: List, name: RSlice<'_, u8>, value: RSlice<'_, u8>) {
        self.note("set", name_of(list), name, value.as_slice());
    }

    fn append(&mut self, list: List, name: RSlice<'_, u8>, value: RSlice<'_, u8>) {
        self.note("append", name_of(list), name, value.as_slice());
    }

    fn remove(&mut self, list: List, name: RSlice<'_, u8>) {
        self.note("remove", name_of(list), name, b"");
    }

    fn set_body(&mut self, body: RVec<u8>) {
        self.note("set", "body", body.as_rslice(), b"");
        self.body_set = Some(body.into());
    }

    fn body_set(&self) -> ROption<RSlice<'_, u8>> {
        self.body_set.as_deref().map(Into::into).into()
    }

    fn ask(&self, question: Question<'_>) -> FfiFuture<AskStatus> {
        match question {
            Question::Variable(name) => self.note("ask", "variable", name, b""),
            Question::RequestBody => self.note("ask", "request body", RSlice::EMPTY, b""),
            Question::ResponseBody => self.note("ask", "response body", RSlice::EMPTY, b""),
        }
        let status = self.refusal.unwrap_or(AskStatus::ANSWERED);
        FfiFuture::new(async move { status })
    }

    fn answer(&self, _question: Question<'_>) -> ROption<RSlice<'_, u8>> {
        self.answer.as_deref().map(Into::into).into()
    }
}
