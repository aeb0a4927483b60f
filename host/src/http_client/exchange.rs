//! One request, from what a plugin asks for to the head of its response.

use std::{sync::Arc, time::Duration};

use http_body_util::Full;
use hyper::{
    HeaderMap, Method, Request, Response, Uri,
    body::{Body, Bytes, Incoming},
    header::{self, HeaderName, HeaderValue},
};
use hyper_util::client::legacy::{self, connect::capture_connection};
use plugin_abi::abi::{IncomingObject, OutgoingObject};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time::{Instant, timeout_at},
};

use super::{
    MAX_TIME, PluginHttp, Pooled, Settings,
    connect::{Room, Used},
    error::{Failed, Server, is_cut},
    response::{self, Bounds},
};

/// Who is calling, where the plugin does not say.
pub(super) const USER_AGENT: &str = concat!("plugin-host/", env!("CARGO_PKG_VERSION"));

/// Headers that belong to a connection and not to a request: the client's own.
const OF_CONNECTIONS: [&str; 9] = [
    "connection",
    "content-length",
    "expect",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// A request that can be sent.
pub(super) struct Exchange {
    server: Server,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
    time: Duration,
    ends: Instant,
    max_body: u64,
}

/// What an exchange holds of the bounds, until it is over.
#[derive(Debug)]
pub(super) struct Places {
    _of_plugin: OwnedSemaphorePermit,
    _of_all: OwnedSemaphorePermit,
}

impl Exchange {
    /// Asks the plugin's object for everything, and judges it.
    pub(super) fn read(mut request: OutgoingObject, settings: &Settings) -> Result<Self, Failed> {
        let wrong = |what: &str| Failed::Request(what.to_owned());
        let (uri, server) = read_url(request.url().as_str())?;
        let method = Method::from_bytes(request.method().as_slice())
            .ok()
            .filter(|method| *method != Method::CONNECT)
            .ok_or_else(|| wrong("its method is none that can be sent"))?;
        let mut headers = HeaderMap::new();
        headers.insert(header::USER_AGENT, HeaderValue::from_static(USER_AGENT));
        for field in request.headers().iter() {
            let name = HeaderName::from_bytes(&field.name)
                .map_err(|_| wrong("a header's name is no token"))?;
            if OF_CONNECTIONS.contains(&name.as_str()) {
                return Err(Failed::Request(format!(
                    "`{name}` is the client's own header"
                )));
            }
            // The value may be a secret: it is not named.
            let value = HeaderValue::from_bytes(&field.value)
                .map_err(|_| Failed::Request(format!("the value of header `{name}` is none")))?;
            if name == header::USER_AGENT {
                headers.insert(name, value);
            } else {
                headers
                    .try_append(name, value)
                    .map_err(|_| wrong("it has too many headers"))?;
            }
        }
        let body = Vec::from(request.take_body());
        if body.len() as u64 > settings.max_body_bytes {
            return Err(Failed::RequestTooLarge(server, settings.max_body_bytes));
        }
        let time = Duration::from_nanos(request.nanoseconds()).min(MAX_TIME);
        Ok(Self {
            server,
            method,
            uri,
            headers,
            body: body.into(),
            time,
            ends: Instant::now() + time,
            max_body: request.max_body_bytes().min(settings.max_body_bytes),
        })
    }

    /// Waits for a place, sends the request and waits for the head of the response. Runs on the
    /// client's own runtime.
    pub(super) async fn send(
        self,
        http: PluginHttp,
        pooled: watch::Receiver<Option<Arc<Pooled>>>,
    ) -> Result<IncomingObject, Failed> {
        let settings = http.client.settings();
        let (of_plugin, of_all) = (settings.max_requests_per_plugin, settings.max_requests);
        let places = Places {
            _of_plugin: self
                .place(&http.places, || {
                    (
                        format!("all {of_plugin} of this plugin"),
                        "--http-client-requests-per-plugin",
                    )
                })
                .await?,
            _of_all: self
                .place(&http.client.0.places, || {
                    (format!("all {of_all}"), "--http-client-requests")
                })
                .await?,
        };
        let pooled = &self.started(pooled).await?;
        let response = match self.try_once(pooled).await {
            Ok(response) => response,
            // A server may close a connection in the moment in which it is used again. What only
            // reads is then asked for once more, as browsers do.
            Err(Attempt::CutWhileReused) if self.method.is_safe() => self
                .try_once(pooled)
                .await
                .map_err(|attempt| attempt.failed(&self.server))?,
            Err(attempt) => return Err(attempt.failed(&self.server)),
        };
        if response.body().size_hint().lower() > self.max_body {
            return Err(Failed::BodyTooLarge(self.server, self.max_body));
        }
        let bounds = Bounds {
            server: self.server,
            time: self.time,
            ends: self.ends,
            max_body: self.max_body,
        };
        Ok(response::object(response, bounds, places, http.client).await)
    }

    /// The connections, once they may be made.
    async fn started(
        &self,
        mut pooled: watch::Receiver<Option<Arc<Pooled>>>,
    ) -> Result<Arc<Pooled>, Failed> {
        let started = async {
            let pooled = pooled.wait_for(Option::is_some).await;
            pooled.ok().and_then(|pooled| pooled.clone())
        };
        match timeout_at(self.ends, started).await {
            Ok(Some(pooled)) => Ok(pooled),
            Ok(None) => Err(Failed::NotStarted(
                "the system's certificates were not read to their end".to_owned(),
            )),
            Err(_) => Err(self.timeout(false)),
        }
    }

    async fn place(
        &self,
        places: &Arc<Semaphore>,
        what: impl FnOnce() -> (String, &'static str),
    ) -> Result<OwnedSemaphorePermit, Failed> {
        match timeout_at(self.ends, Arc::clone(places).acquire_owned()).await {
            Ok(place) => Ok(place.expect("nobody closes the semaphore")),
            Err(_) => {
                let (what, flag) = what();
                Err(self.busy(what, flag))
            }
        }
    }

    fn busy(&self, what: String, flag: &'static str) -> Failed {
        Failed::Busy {
            server: self.server.clone(),
            waited: self.time,
            what,
            flag,
        }
    }

    async fn try_once(&self, pooled: &Pooled) -> Result<Response<Incoming>, Attempt> {
        let mut request = Request::new(Full::new(self.body.clone()));
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = self.headers.clone();
        let connection = capture_connection(&mut request);
        match timeout_at(self.ends, pooled.client().request(request)).await {
            Ok(Ok(response)) => {
                if let Some(used) = response.extensions().get::<Used>() {
                    used.note();
                }
                Ok(response)
            }
            Ok(Err(error)) if was_used(&error) && is_cut(&error) => Err(Attempt::CutWhileReused),
            Ok(Err(error)) => Err(Attempt::Failed(Failed::of(&self.server, &error))),
            Err(_) => {
                let connected = connection.connection_metadata().is_some();
                Err(Attempt::Failed(self.late(connected, pooled.room())))
            }
        }
    }

    fn late(&self, connected: bool, room: &Room) -> Failed {
        if !connected && room.is_full() {
            let what = format!("all {} connections", room.connections);
            return self.busy(what, "--http-client-connections");
        }
        self.timeout(connected)
    }

    fn timeout(&self, connected: bool) -> Failed {
        Failed::Timeout {
            server: self.server.clone(),
            what: match connected {
                true => "has not answered",
                false => "could not be connected to",
            },
            time: self.time,
        }
    }
}

/// Why there is no response.
enum Attempt {
    /// The connection, which had brought an answer before, was closed before this one.
    CutWhileReused,
    Failed(Failed),
}

impl Attempt {
    fn failed(self, server: &Server) -> Failed {
        match self {
            Self::CutWhileReused => Failed::early_end(server.clone()),
            Self::Failed(failed) => failed,
        }
    }
}

fn was_used(error: &legacy::Error) -> bool {
    let mut extensions = hyper::http::Extensions::new();
    if let Some(connected) = error.connect_info() {
        connected.get_extras(&mut extensions);
    }
    extensions.get::<Used>().is_some_and(Used::get)
}

/// The parts of an absolute URL, and what may be said of it.
pub(super) fn read_url(url: &str) -> Result<(Uri, Server), Failed> {
    let wrong = |what: &str| Failed::Request(what.to_owned());
    // A fragment is nobody's business but a browser's.
    let url = url.split('#').next().unwrap_or_default();
    let uri: Uri = url
        .parse()
        .map_err(|_| wrong("its URL cannot be read; values in it have to be encoded"))?;
    let (Some(scheme @ ("http" | "https")), Some(authority)) = (uri.scheme_str(), uri.authority())
    else {
        return Err(wrong(
            "its URL does not begin with http://HOST or https://HOST",
        ));
    };
    if authority.as_str().contains('@') {
        return Err(wrong(
            "its URL has a user name in it: send an `authorization` header",
        ));
    }
    if authority.host().is_empty() {
        return Err(wrong("its URL names no host"));
    }
    let server = Server(format!("{scheme}://{authority}"));
    Ok((uri, server))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test says where it failed")]
    use plugin_abi::abi::{
        OutgoingRequest, OutgoingRequest_TO, OwnedField, RSlice, RStr, RVec, TD_Opaque,
    };

    use super::*;

    struct Asking;

    impl OutgoingRequest for Asking {
        fn method(&self) -> RSlice<'_, u8> {
            b"GET".as_slice().into()
        }

        fn url(&self) -> RStr<'_> {
            "http://a/".into()
        }

        fn headers(&self) -> RSlice<'_, OwnedField> {
            RSlice::EMPTY
        }

        fn take_body(&mut self) -> RVec<u8> {
            RVec::new()
        }

        fn nanoseconds(&self) -> u64 {
            u64::MAX
        }

        fn max_body_bytes(&self) -> u64 {
            u64::MAX
        }
    }

    #[test]
    fn an_exchange_has_ten_minutes_at_most_whatever_a_plugin_asks_for() {
        let request = OutgoingRequest_TO::from_value(Asking, TD_Opaque);
        let exchange = Exchange::read(request, &Settings::default()).unwrap();
        assert_eq!(exchange.time, Duration::from_secs(600));
        assert_eq!(exchange.max_body, 16 << 20);
    }

    #[test]
    fn of_a_url_only_scheme_host_and_port_are_said() {
        let server = |url| read_url(url).unwrap().1.0;
        assert_eq!(server("http://a/secret?token=1#x"), "http://a");
        assert_eq!(
            server("https://A.example:8443/?token=1"),
            "https://A.example:8443"
        );
        assert_eq!(server("http://[::1]:80/"), "http://[::1]:80");
    }

    #[test]
    fn a_url_that_cannot_be_called_is_refused_without_being_repeated() {
        for url in [
            "",
            "/hunter2",
            "hunter2",
            "ftp://a/hunter2",
            "http:///hunter2",
            "http://user:hunter2@a/",
            "http://a/hunter2 and more",
        ] {
            let message = read_url(url).unwrap_err().to_string();
            assert!(message.contains("its URL"), "{url}: {message}");
            assert!(!message.contains("hunter2"), "{url}: {message}");
        }
    }
}
