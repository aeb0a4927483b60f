//! Something that a plugin executes in a test, and what came of it.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use serde::Serialize;
use serde_json::Value;

use super::{
    client_request::ClientRequest, fields::Field, gateway::Loaded, response::ClientResponse,
    world::World,
};
use crate::abi::{
    ContextObject, ExecuteFailure, FfiFuture, HostContext, HostContext_TO, HttpFailure, HttpText,
    OwnedField, ROption, RResult, RSlice, RStr, RVec, ReplyParts, RespondStatus, TD_CanDowncast,
    ValueStatus,
};

/// What is left to an execution that is cancelled, as in the host.
const WINDING_UP: Duration = Duration::from_secs(1);

/// Something to execute, with this label: for [`Loaded::execute`].
///
/// ```
/// use plugin_abi::prelude::*;
/// use plugin_abi::testing::{Gateway, execution, get};
///
/// #[derive(Default)]
/// struct Greeter;
///
/// impl Plugin for Greeter {
///     type Config = ();
///
///     async fn execute(&self, context: &mut Context) -> Result<()> {
///         let name: String = context.get("name")?.context("whom? set `name`")?;
///         context.set("greeting", &format!("hello {name}"))?;
///         Ok(())
///     }
/// }
///
/// let greeter = Gateway::new().load::<Greeter>();
/// // As `plugin-host exec greeter --label greet --set name=Ada` does, ...
/// let executed = greeter.execute(execution("greet").set("name", "Ada"));
/// assert_eq!(executed.value("greeting"), "hello Ada");
/// assert_eq!(greeter.execute(execution("greet")).failure(), "whom? set `name`");
/// // ... and as an HTTP client of the route `/hello/:name` does.
/// let by_http = execution("greet").request(get("/hello/Ada")).param("name", "Ada");
/// assert_eq!(greeter.execute(by_http).reply().text(), r#"{"greeting":"hello Ada"}"#);
/// ```
#[must_use]
pub fn execution(label: &str) -> Execution {
    Execution {
        label: label.to_owned(),
        values: BTreeMap::new(),
        timeout: None,
        cancelled: None,
        request: None,
        parameters: Vec::new(),
    }
}

/// Something to execute: see [`execution`].
#[derive(Debug, Clone)]
pub struct Execution {
    pub(super) label: String,
    pub(super) values: BTreeMap<String, Value>,
    pub(super) timeout: Option<Duration>,
    pub(super) cancelled: Option<Duration>,
    pub(super) request: Option<ClientRequest>,
    parameters: Vec<OwnedField>,
}

impl Execution {
    /// A value to begin with.
    ///
    /// # Panics
    /// It cannot be written as JSON.
    #[must_use]
    #[track_caller]
    pub fn set(mut self, name: &str, value: impl Serialize) -> Self {
        match serde_json::to_value(value) {
            Ok(value) => _ = self.values.insert(name.to_owned(), value),
            Err(error) => panic!("the value {name} is no JSON: {error}"),
        }
        self
    }

    /// Time for it; without that the plugin's `timeout_ms`, or what a call has.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Whoever asks goes away after so long.
    #[must_use]
    pub fn cancelled_after(mut self, time: Duration) -> Self {
        self.cancelled = Some(time);
        self
    }

    /// An HTTP client asks.
    #[must_use]
    pub fn request(mut self, request: ClientRequest) -> Self {
        self.request = Some(request);
        self
    }

    /// What that request's path has in a place that the route names.
    #[must_use]
    pub fn param(mut self, name: &str, value: &str) -> Self {
        self.parameters.push(OwnedField {
            name: name.as_bytes().into(),
            value: value.as_bytes().into(),
        });
        self.set(name, value)
    }
}

/// What came of an [`Execution`].
#[derive(Debug, Clone)]
pub struct Executed {
    pub(super) values: BTreeMap<String, Value>,
    pub(super) failure: Option<String>,
    pub(super) reply: Option<ClientResponse>,
    pub(super) took: Duration,
}

impl Executed {
    /// A value that the plugin has set.
    ///
    /// # Panics
    /// It has not, or has failed.
    #[track_caller]
    pub fn value(&self, name: &str) -> &Value {
        match (&self.failure, self.values.get(name)) {
            (None, Some(value)) => value,
            (None, None) => panic!("the value {name} was not set, but {:?}", self.values),
            (Some(failure), _) => panic!("the execution has failed: {failure}"),
        }
    }

    /// Everything that the plugin has set; nothing where it has failed.
    pub fn values(&self) -> &BTreeMap<String, Value> {
        &self.values
    }

    /// Why it has failed.
    ///
    /// # Panics
    /// It has not.
    #[track_caller]
    pub fn failure(&self) -> &str {
        match &self.failure {
            Some(failure) => failure,
            None => panic!("the execution has not failed: {:?}", self.values),
        }
    }

    /// Whether it has failed.
    pub fn has_failed(&self) -> bool {
        self.failure.is_some()
    }

    /// What the HTTP client got; where the plugin has failed before it answered, what the host answers.
    ///
    /// # Panics
    /// None has asked.
    #[track_caller]
    pub fn reply(&self) -> &ClientResponse {
        match &self.reply {
            Some(reply) => reply,
            None => panic!("no HTTP client has asked: see `Execution::request`"),
        }
    }

    /// The time that passed on the test's clock; in a real host, the real one.
    pub fn took(&self) -> Duration {
        self.took
    }
}

impl Loaded {
    /// Has the plugin execute something.
    pub fn execute(&self, execution: Execution) -> Executed {
        let world = self.world();
        let began = world.now();
        let time = execution.timeout.or(self.loading.timeout);
        let time = time.unwrap_or(self.call_budget());
        let deadline = began.saturating_add(time);
        let cancelled = execution
            .cancelled
            .map_or(deadline, |after| deadline.min(began.saturating_add(after)));
        let by_http = execution.request.is_some();
        let replied = Arc::<Mutex<Option<Replied>>>::default();
        let context = Executing {
            world: Arc::clone(world),
            deadline,
            cancelled,
            values: execution
                .values
                .into_iter()
                .map(|(name, value)| (name, (value.to_string().into_bytes(), false)))
                .collect(),
            label: execution.label,
            request: execution.request.map(Request::new),
            parameters: execution.parameters,
            replied: Arc::clone(&replied),
        };
        let context = HostContext_TO::from_value(context, TD_CanDowncast);
        let ended = self.run(
            |plugin| plugin.execute(context),
            cancelled.saturating_add(WINDING_UP),
        );
        let too_late = || format!("had not executed it after {} ms", time.as_millis());
        let (values, failure) = match ended {
            Some(_) if world.now() > deadline => (BTreeMap::new(), Some(too_late())),
            Some(ended) => came_of(ended),
            None => (BTreeMap::new(), Some(too_late())),
        };
        let replied = replied
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let reply = by_http.then(|| reply_of(replied, &values, failure.is_some()));
        Executed {
            values,
            failure,
            reply,
            took: world.now() - began,
        }
    }
}

fn came_of(
    ended: RResult<ContextObject, ExecuteFailure>,
) -> (BTreeMap<String, Value>, Option<String>) {
    match ended {
        RResult::ROk(context) => match context.obj.downcast_into::<Executing>() {
            Ok(context) => {
                let set = context.values.iter().filter(|(_, (_, is_set))| *is_set);
                let set = set.filter_map(|(name, (json, _))| {
                    Some((name.clone(), serde_json::from_slice(json).ok()?))
                });
                (set.collect(), None)
            }
            Err(_) => (
                BTreeMap::new(),
                Some("did not give the context back".to_owned()),
            ),
        },
        RResult::RErr(failure) => (BTreeMap::new(), Some(failure.to_string())),
    }
}

/// What the host answers an HTTP client.
fn reply_of(
    replied: Option<Replied>,
    values: &BTreeMap<String, Value>,
    has_failed: bool,
) -> ClientResponse {
    let (status, headers, body) = match replied {
        Some(replied) => {
            let headers = replied.head.headers.iter();
            let headers = headers.map(|field| Field::new(&field.name, &field.value));
            (replied.head.status, headers.collect(), replied.body)
        }
        None if has_failed => (502, Vec::new(), Vec::new()),
        None if values.is_empty() => (204, Vec::new(), Vec::new()),
        None => {
            let json = Field::new("content-type", "application/json");
            let body = serde_json::to_vec(values).unwrap_or_default();
            (200, vec![json], body)
        }
    };
    ClientResponse {
        status,
        headers,
        body,
        is_error_page: false,
    }
}

struct Replied {
    head: ReplyParts,
    body: Vec<u8>,
    streams: bool,
}

/// An HTTP request, as a plugin sees it.
struct Request {
    method: String,
    path: String,
    query: Option<String>,
    headers: Vec<OwnedField>,
    client: Vec<u8>,
    /// What of the body has not been read.
    body: Mutex<Vec<u8>>,
}

impl Request {
    fn new(request: ClientRequest) -> Self {
        let path = request.raw.split('?').next().unwrap_or_default().to_owned();
        let headers = request.headers.iter().map(|field| OwnedField {
            name: field.name.as_slice().into(),
            value: field.value().into(),
        });
        Self {
            headers: headers.collect(),
            path,
            method: request.method.to_string(),
            query: request.query,
            client: match request.client_ip {
                IpAddr::V4(v4) => v4.octets().to_vec(),
                IpAddr::V6(v6) => v6.octets().to_vec(),
            },
            body: Mutex::new(request.body),
        }
    }
}

/// The context of an execution.
struct Executing {
    world: Arc<World>,
    label: String,
    deadline: Duration,
    cancelled: Duration,
    /// JSON text, and whether the plugin has set it.
    values: BTreeMap<String, (Vec<u8>, bool)>,
    request: Option<Request>,
    parameters: Vec<OwnedField>,
    replied: Arc<Mutex<Option<Replied>>>,
}

impl HostContext for Executing {
    fn label(&self) -> RStr<'_> {
        self.label.as_str().into()
    }

    fn nanoseconds_left(&self) -> u64 {
        let left = self.deadline.saturating_sub(self.world.now());
        u64::try_from(left.as_nanos()).unwrap_or(u64::MAX)
    }

    fn is_cancelled(&self) -> bool {
        self.world.now() >= self.cancelled
    }

    fn cancelled(&self) -> FfiFuture<()> {
        FfiFuture::new(self.world.until(self.cancelled))
    }

    fn count(&self) -> usize {
        self.values.len()
    }

    fn name_at(&self, index: usize) -> ROption<RStr<'_>> {
        let name = self.values.keys().nth(index);
        name.map(|name| name.as_str().into()).into()
    }

    fn value(&self, name: RStr<'_>) -> ROption<RSlice<'_, u8>> {
        let value = self.values.get(name.as_str());
        value.map(|(json, _)| json.as_slice().into()).into()
    }

    fn set_value(&mut self, name: RStr<'_>, value: ROption<RVec<u8>>) -> ValueStatus {
        match value {
            ROption::RSome(json) => {
                let value = (json.into_vec(), true);
                self.values.insert(name.into(), value);
            }
            ROption::RNone => _ = self.values.remove(name.as_str()),
        }
        ValueStatus::DONE
    }

    fn http_text(&self, text: HttpText) -> ROption<RSlice<'_, u8>> {
        let Some(request) = &self.request else {
            return ROption::RNone;
        };
        let text = match text {
            HttpText::METHOD => Some(request.method.as_bytes()),
            HttpText::PATH => Some(request.path.as_bytes()),
            HttpText::QUERY => request.query.as_deref().map(str::as_bytes),
            HttpText::CLIENT_ADDRESS => Some(request.client.as_slice()),
            _ => None,
        };
        text.map(Into::into).into()
    }

    fn http_headers(&self) -> RSlice<'_, OwnedField> {
        let headers = self.request.as_ref().map(|request| &request.headers);
        headers.map_or(RSlice::EMPTY, |headers| headers.as_slice().into())
    }

    fn http_parameters(&self) -> RSlice<'_, OwnedField> {
        self.parameters.as_slice().into()
    }

    fn http_chunk(&self) -> FfiFuture<RResult<ROption<RVec<u8>>, HttpFailure>> {
        let body = self.request.as_ref().map(|request| {
            let mut body = request.body.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut *body)
        });
        let piece = body.filter(|body| !body.is_empty()).map(Into::into);
        FfiFuture::new(std::future::ready(RResult::ROk(piece.into())))
    }

    fn http_respond(&mut self, mut reply: ReplyParts, streams: bool) -> RespondStatus {
        if self.request.is_none() {
            return RespondStatus::NO_REQUEST;
        }
        let mut replied = self.replied.lock().unwrap_or_else(PoisonError::into_inner);
        if replied.is_some() {
            return RespondStatus::ANSWERED;
        }
        if !(200..600).contains(&reply.status) {
            return RespondStatus::INVALID;
        }
        *replied = Some(Replied {
            body: std::mem::take(&mut reply.body).into(),
            head: reply,
            streams,
        });
        RespondStatus::SENT
    }

    fn http_send(&self, piece: RVec<u8>) -> FfiFuture<RespondStatus> {
        let mut replied = self.replied.lock().unwrap_or_else(PoisonError::into_inner);
        let status = match &mut *replied {
            Some(replied) if replied.streams => {
                replied.body.extend_from_slice(&piece);
                RespondStatus::SENT
            }
            _ => RespondStatus::NO_STREAM,
        };
        FfiFuture::new(std::future::ready(status))
    }
}
