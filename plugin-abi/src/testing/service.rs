//! Other services that plugins call over HTTP, as a test says that they are: by URL, without a socket,
//! on the test's clock.
//!
//! What a URL has no service for is what nobody listens on. Nothing of this ever leaves the process.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use http::Method;

use super::{
    fields::Field, gateway::Gateway, response::UpstreamResponse, upstream_request::UpstreamRequest,
    world::World,
};
use crate::{
    abi::{
        FfiFuture, HttpFailure, HttpFailureKind, IncomingObject, IncomingResponse,
        IncomingResponse_TO, OutgoingObject, OwnedField, ROption, RResult, RSlice, RVec, TD_Opaque,
    },
    http_client::HttpErrorKind,
};

/// Another service, which answers what plugins ask it: made with [`Gateway::service`].
#[derive(Clone)]
pub struct Service(Arc<Inner>);

struct Inner {
    url: String,
    state: Mutex<State>,
}

struct State {
    answer: Result<UpstreamResponse, HttpFailureKind>,
    takes: Duration,
    requests: Vec<UpstreamRequest>,
}

impl Gateway {
    /// A service at this URL, and below it, which answers each request with this response; of
    /// several that fit, the one with the longest URL. Without one, nobody can be reached there.
    ///
    /// ```
    /// use plugin_abi::prelude::*;
    /// use plugin_abi::testing::{Gateway, get, json, response};
    /// # #[derive(Default)]
    /// # struct Authenticate;
    /// # impl Plugin for Authenticate {
    /// #     type Config = ();
    /// #     async fn request_filter(&self, _: &(), request: &mut Request) -> Result<Action> {
    /// #         let url = "http://users/whoami";
    /// #         let user: String = request.http().get(url).send().await?.json().await?;
    /// #         request.set_header("x-user", user);
    /// #         Ok(Action::Continue)
    /// #     }
    /// # }
    ///
    /// let gateway = Gateway::new();
    /// let users = gateway.service("http://users", response(200).json(json!("ada")));
    /// let route = gateway.load::<Authenticate>().route("");
    /// assert_eq!(route.request(get("/")).upstream().header("x-user"), Some("ada"));
    /// assert_eq!(users.requests()[0].uri(), "/whoami");
    /// ```
    pub fn service(&self, url: impl Into<String>, answer: UpstreamResponse) -> Service {
        let service = Service(Arc::new(Inner {
            url: url.into(),
            state: Mutex::new(State {
                answer: Ok(answer),
                takes: Duration::ZERO,
                requests: Vec::new(),
            }),
        }));
        self.world.add_service(service.clone());
        service
    }
}

impl Service {
    /// Answers with this from now on.
    pub fn answers(&self, response: UpstreamResponse) {
        self.state().answer = Ok(response);
    }

    /// Cannot be reached from now on, for a reason like [`HttpErrorKind::Connect`].
    ///
    /// # Panics
    /// It is no reason for which there is no answer (`Status`, `Content`, `Other`).
    #[track_caller]
    pub fn fails(&self, kind: HttpErrorKind) {
        let kind = match kind {
            HttpErrorKind::Request => HttpFailureKind::REQUEST,
            HttpErrorKind::Connect => HttpFailureKind::CONNECT,
            HttpErrorKind::Tls => HttpFailureKind::TLS,
            HttpErrorKind::Timeout => HttpFailureKind::TIMEOUT,
            HttpErrorKind::Broken => HttpFailureKind::BROKEN,
            HttpErrorKind::TooLarge => HttpFailureKind::TOO_LARGE,
            HttpErrorKind::Busy => HttpFailureKind::BUSY,
            HttpErrorKind::Unavailable => HttpFailureKind::UNAVAILABLE,
            other => panic!("{other:?} is about an answer: let the service give it"),
        };
        self.state().answer = Err(kind);
    }

    /// Takes so long for each answer from now on, on the test's clock.
    pub fn takes(&self, time: Duration) {
        self.state().takes = time;
    }

    /// The requests that have come so far, in their order.
    pub fn requests(&self) -> Vec<UpstreamRequest> {
        self.state().requests.clone()
    }

    /// Whether a URL is this one or one below it.
    fn has(&self, url: &str) -> bool {
        let own = self.0.url.trim_end_matches('/');
        let rest = url.strip_prefix(own);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '?']))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it is held.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Service").field(&self.0.url).finish()
    }
}

/// What becomes of a plugin's request.
pub(super) fn fetch(
    world: &Arc<World>,
    services: &[Service],
    mut request: OutgoingObject,
) -> FfiFuture<RResult<IncomingObject, HttpFailure>> {
    let url = request.url().to_string();
    let timeout = Duration::from_nanos(request.nanoseconds());
    let found = services.iter().filter(|service| service.has(&url));
    let found = found.max_by_key(|service| service.0.url.len());
    let (answer, takes) = match found {
        Some(service) => {
            let mut state = service.state();
            state.requests.push(received(&mut request, &url));
            (state.answer.clone(), state.takes)
        }
        None => (Err(HttpFailureKind::CONNECT), Duration::ZERO),
    };
    let host = host_of(&url).to_owned();
    let max_body = request.max_body_bytes();
    let ends = world.until(world.now().saturating_add(takes.min(timeout)));
    FfiFuture::new(async move {
        ends.await;
        let failed = |kind, what: &str| {
            RResult::RErr(HttpFailure {
                kind,
                message: format!("{host}: {what}").into(),
            })
        };
        match answer {
            _ if takes > timeout => failed(HttpFailureKind::TIMEOUT, "the time was over"),
            Err(kind) => failed(kind, "the test has no answer there"),
            Ok(response) => RResult::ROk(IncomingResponse_TO::from_value(
                Arriving::new(response, max_body, host),
                TD_Opaque,
            )),
        }
    })
}

/// A request as a service gets it.
fn received(request: &mut OutgoingObject, url: &str) -> UpstreamRequest {
    let path = url.find("://").map_or(url, |at| &url[at + 3..]);
    let uri = match path.find(['/', '?']) {
        Some(at) if path[at..].starts_with('/') => path[at..].to_owned(),
        Some(at) => format!("/{}", &path[at..]),
        None => "/".to_owned(),
    };
    let headers = request.headers();
    let headers = headers
        .iter()
        .map(|field| Field::new(&field.name, &field.value));
    let headers = headers.collect();
    UpstreamRequest {
        method: Method::from_bytes(&request.method()).unwrap_or_default(),
        uri,
        headers,
        body: request.take_body().into(),
        response_headers: Vec::new(),
    }
}

/// What may be said of a URL: neither path nor query.
fn host_of(url: &str) -> &str {
    let rest = url.find("://").map_or(url, |at| &url[at + 3..]);
    &rest[..rest.find(['/', '?', '#']).unwrap_or(rest.len())]
}

/// A response of a service; its body comes in one piece.
struct Arriving {
    status: u16,
    headers: Vec<OwnedField>,
    body: Mutex<Option<Vec<u8>>>,
    max_body: u64,
    host: String,
}

impl Arriving {
    fn new(response: UpstreamResponse, max_body: u64, host: String) -> Self {
        let headers = response.headers.iter().map(|header| OwnedField {
            name: header.name.to_ascii_lowercase().into(),
            value: header.value().into(),
        });
        Self {
            status: response.status,
            headers: headers.collect(),
            body: Mutex::new(Some(response.body)),
            max_body,
            host,
        }
    }
}

impl IncomingResponse for Arriving {
    fn status(&self) -> u16 {
        self.status
    }

    fn headers(&self) -> RSlice<'_, OwnedField> {
        self.headers.as_slice().into()
    }

    fn chunk(&self) -> FfiFuture<RResult<ROption<RVec<u8>>, HttpFailure>> {
        let mut body = self.body.lock().unwrap_or_else(PoisonError::into_inner);
        let body = body.take().filter(|body| !body.is_empty());
        let is_too_large = body
            .as_ref()
            .is_some_and(|body| body.len() as u64 > self.max_body);
        let result = match is_too_large {
            true => RResult::RErr(HttpFailure {
                kind: HttpFailureKind::TOO_LARGE,
                message: format!("{}: the body is too large", self.host).into(),
            }),
            false => RResult::ROk(body.map(RVec::from).into()),
        };
        FfiFuture::new(std::future::ready(result))
    }
}
