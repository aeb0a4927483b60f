//! One request at a time, for commands that wait: over TLS, or without it to loopback addresses where
//! the operator says so; through the operator's proxy; within bounds of time, size and redirects.
//!
//! Credentials go to the server that they are for, and to none that it redirects to.

use std::{fmt, io::Read, net::IpAddr, time::Duration};

use hyper::{
    Method, Request, Uri,
    header::{self, HeaderMap, HeaderValue},
};
use rustls::CertificateError;
use ureq::{
    Agent, Body,
    http::Response,
    tls::{RootCerts, TlsConfig},
};

use super::{
    Settings, SourceError, Sources,
    roots::{self, UNTRUSTED},
};

/// Redirects that are followed, at most.
const MAX_REDIRECTS: usize = 5;

/// How long it may take to connect.
const CONNECT_TIME: Duration = Duration::from_secs(10);

/// How much of a body is read at once, in bytes.
const PIECE: usize = 64 << 10;

/// Who is asking.
const USER_AGENT: &str = concat!("plugin-host/", env!("CARGO_PKG_VERSION"));

/// Whom to ask in place of other servers.
#[derive(Clone)]
pub struct Proxy {
    proxy: ureq::Proxy,
    except: Vec<String>,
}

impl Proxy {
    /// A proxy by its URL, and the names of servers that are asked themselves, separated by commas.
    ///
    /// # Errors
    /// It is none, without a word of it: it may hold a password.
    pub fn new(url: &str, except: &str) -> Result<Self, String> {
        let proxy = ureq::Proxy::new(url)
            .map_err(|_| "it is no URL of a proxy such as http://proxy.example:3128".to_owned())?;
        let except = except.split(',').map(|name| name.trim().to_lowercase());
        Ok(Self {
            proxy,
            except: except.filter(|name| !name.is_empty()).collect(),
        })
    }

    /// A name stands for itself and for all below it, a network for its addresses, as everywhere.
    fn is_for(&self, host: &str) -> bool {
        let host = host.to_lowercase();
        let host = without_brackets(&host);
        !self.except.iter().any(|name| {
            let name = name.trim_start_matches("*.").trim_start_matches('.');
            name == "*"
                || host == name
                || host.ends_with(&format!(".{name}"))
                || is_in(host, name).unwrap_or(false)
        })
    }
}

/// Whether an address is in a network, such as `10.0.0.0/8`; nothing where either is none.
fn is_in(address: &str, network: &str) -> Option<bool> {
    let (network, length) = network.split_once('/')?;
    let bits = |address| match address {
        IpAddr::V4(address) => (u128::from(u32::from(address)) << 96, 32),
        IpAddr::V6(address) => (u128::from(address), 128),
    };
    let (address, width) = bits(address.parse().ok()?);
    let (network, other) = bits(network.parse().ok()?);
    let length: u32 = length.parse().ok().filter(|length| *length <= other)?;
    let rest = u128::MAX.checked_shr(length).unwrap_or(0);
    Some(width == other && (address | rest) == (network | rest))
}

fn without_brackets(host: &str) -> &str {
    host.trim_start_matches('[').trim_end_matches(']')
}

impl fmt::Display for Proxy {
    /// Where it is, and no more.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "proxy {}:{}", self.proxy.host(), self.proxy.port())
    }
}

impl fmt::Debug for Proxy {
    /// Without a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Proxy")
    }
}

/// A client.
pub(super) struct Http<'a> {
    direct: Agent,
    through: Option<(Agent, &'a Proxy)>,
    loopback_http: bool,
    sources: &'a Sources<'a>,
}

/// What a server has answered: its body is not read yet.
pub(super) struct Answer {
    what: String,
    origin: Option<Origin>,
    response: Response<Body>,
}

impl<'a> Http<'a> {
    pub(super) fn new(sources: &'a Sources<'a>) -> Self {
        let settings = sources.settings;
        let roots = roots::of(&settings.extra_roots);
        let through = settings
            .proxy
            .as_ref()
            .map(|proxy| (agent(settings, &roots, Some(proxy.proxy.clone())), proxy));
        Self {
            direct: agent(settings, &roots, None),
            through,
            loopback_http: settings.loopback_http,
            sources,
        }
    }

    /// Credentials for a server, as a header has them.
    pub(super) fn basic(&self, url: &str) -> Option<HeaderValue> {
        let credentials = &self.sources.settings.credentials;
        secret(&credentials.of(&Origin::of(url)?.authority)?.header())
    }

    /// Asks for something, and where it has gone to.
    pub(super) fn get(&self, url: &str, headers: &HeaderMap) -> Result<Answer, SourceError> {
        let mut url = url.to_owned();
        let mut headers = headers.clone();
        for _ in 0..=MAX_REDIRECTS {
            let answer = self.once(Method::GET, &url, &headers, &[])?;
            if !answer.response.status().is_redirection() {
                return Ok(answer);
            }
            let next = answer.location()?;
            if Origin::of(&next) != Origin::of(&url) {
                headers.remove(header::AUTHORIZATION);
            }
            url = next;
        }
        Err(failed(&url, format!("more than {MAX_REDIRECTS} redirects")))
    }

    /// Sends one request; follows nothing.
    pub(super) fn once(
        &self,
        method: Method,
        url: &str,
        headers: &HeaderMap,
        body: &[u8],
    ) -> Result<Answer, SourceError> {
        let uri = self.allowed(url)?;
        let host = uri.host().unwrap_or_default();
        let (agent, through) = match &self.through {
            Some((agent, proxy)) if proxy.is_for(host) && !is_loopback(host) => {
                (agent, Some(proxy))
            }
            _ => (&self.direct, None),
        };
        let has_body = method == Method::POST || method == Method::PUT;
        let mut request = Request::new(());
        *request.method_mut() = method;
        *request.uri_mut() = uri;
        *request.headers_mut() = headers.clone();
        let response = match has_body {
            true => agent.run(request.map(|()| body)),
            false => agent.run(request),
        };
        let response = response.map_err(|error| match through {
            Some(proxy) => failed(url, format!("{}, through the {proxy}", why(&error))),
            None => failed(url, why(&error)),
        })?;
        Ok(Answer {
            what: shown(url),
            origin: Origin::of(url),
            response,
        })
    }

    /// An answer where it is what was asked for; `server` is the one whose credentials count there.
    pub(super) fn good(
        &self,
        answer: Answer,
        asked: &str,
        server: &str,
    ) -> Result<Answer, SourceError> {
        let (status, what) = (answer.response.status(), answer.what.clone());
        match status.as_u16() {
            _ if status.is_success() => Ok(answer),
            status @ (401 | 403) if answer.is_of(asked) => Err(SourceError::Denied {
                what,
                status,
                host: Origin::of(server).map_or_else(String::new, |it| it.authority),
                known: self.basic(server).is_some(),
            }),
            status => Err(SourceError::Status { what, status }),
        }
    }

    /// A URL that may be asked.
    fn allowed(&self, url: &str) -> Result<Uri, SourceError> {
        let uri: Uri = url
            .parse()
            .map_err(|_| failed(url, "it is no URL".to_owned()))?;
        let host = uri.host().unwrap_or_default();
        match uri.scheme_str() {
            Some("https") => Ok(uri),
            Some("http") if self.loopback_http && is_loopback(host) => Ok(uri),
            Some("http") => Err(failed(
                url,
                "without TLS nobody knows who answers: use https://. Addresses of this machine may be \
                 asked so with `--loopback-http`"
                    .to_owned(),
            )),
            _ => Err(failed(url, "only https:// is asked".to_owned())),
        }
    }
}

impl Answer {
    pub(super) fn status(&self) -> u16 {
        self.response.status().as_u16()
    }

    /// All headers of a name.
    pub(super) fn headers(&self, name: &str) -> impl Iterator<Item = &str> {
        let values = self.response.headers().get_all(name).into_iter();
        values.filter_map(|value| value.to_str().ok())
    }

    /// Whether it is of the server of a URL, and not of one that this has led to.
    pub(super) fn is_of(&self, url: &str) -> bool {
        self.origin.is_some() && self.origin == Origin::of(url)
    }

    /// Where it leads, whole.
    pub(super) fn location(&self) -> Result<String, SourceError> {
        let nowhere = || failed(&self.what, "it leads nowhere".to_owned());
        let location = self.headers("location").next().ok_or_else(nowhere)?;
        // A path may have a URL in it, after a question mark mostly.
        let scheme = location.split(['/', '?', '#']).next().unwrap_or_default();
        if scheme.ends_with(':') {
            return Ok(location.to_owned());
        }
        let (scheme, rest) = self.what.split_once("://").ok_or_else(nowhere)?;
        let authority = rest.split(['/', '?']).next().unwrap_or_default();
        match location.starts_with('/') {
            true => Ok(format!("{scheme}://{authority}{location}")),
            false => Err(nowhere()),
        }
    }

    /// Reads the body within a bound, and tells of it.
    pub(super) fn body(
        mut self,
        bound: u64,
        sources: &Sources<'_>,
    ) -> Result<Vec<u8>, SourceError> {
        let what = self.what;
        let too_large = |what: &str| SourceError::TooLarge {
            what: what.to_owned(),
            bound,
        };
        let length = self.response.body().content_length();
        if length.is_some_and(|length| length > bound) {
            return Err(too_large(&what));
        }
        sources.progress.begin(&format!("fetching {what}"), length);
        let reader = self.response.body_mut().with_config().limit(bound + 1);
        let mut reader = reader.reader();
        let (mut bytes, mut piece) = (Vec::new(), vec![0; PIECE]);
        loop {
            let read = reader.read(&mut piece).map_err(|error| {
                failed(
                    &what,
                    format!("it ends early: {}", why(&ureq::Error::from(error))),
                )
            })?;
            if read == 0 {
                return Ok(bytes);
            }
            bytes.extend_from_slice(&piece[..read]);
            if bytes.len() as u64 > bound {
                return Err(too_large(&what));
            }
            sources.progress.advance(read as u64);
        }
    }
}

/// A header's value that no log shows.
pub(super) fn secret(value: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(value).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// Whether a host is this machine, by its name alone: nobody is asked for it.
pub(super) fn is_loopback(host: &str) -> bool {
    let host = without_brackets(host);
    let address: Option<IpAddr> = host.parse().ok();
    host == "localhost" || address.is_some_and(|address| address.is_loopback())
}

fn agent(settings: &Settings, roots: &RootCerts, proxy: Option<ureq::Proxy>) -> Agent {
    let tls = TlsConfig::builder().root_certs(roots.clone()).build();
    Agent::config_builder()
        .tls_config(tls)
        // Never the one that it would find by itself.
        .proxy(proxy)
        .user_agent(USER_AGENT)
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .timeout_connect(Some(CONNECT_TIME))
        .timeout_global(Some(settings.fetch_time))
        .build()
        .new_agent()
}

/// What tells one server from another.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Origin {
    pub(super) scheme: String,
    pub(super) authority: String,
    pub(super) host: String,
}

impl Origin {
    pub(super) fn of(url: &str) -> Option<Self> {
        let uri: Uri = url.parse().ok()?;
        Some(Self {
            scheme: uri.scheme_str()?.to_owned(),
            authority: uri.authority()?.to_string(),
            host: uri.host()?.to_owned(),
        })
    }
}

/// A URL without what may be a secret: what follows a question mark often is one.
fn shown(url: &str) -> String {
    url.split(['?', '#']).next().unwrap_or_default().to_owned()
}

pub(super) fn failed(url: &str, reason: String) -> SourceError {
    SourceError::Server {
        what: shown(url),
        reason,
    }
}

fn why(error: &ureq::Error) -> String {
    let of_tls = match error {
        ureq::Error::Rustls(error) => Some(error),
        ureq::Error::Io(error) => error.get_ref().and_then(|error| error.downcast_ref()),
        _ => None,
    };
    match (of_tls, error) {
        (Some(rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer)), _) => {
            UNTRUSTED.to_owned()
        }
        (Some(error), _) => error.to_string(),
        (_, ureq::Error::Timeout(what)) => format!("it takes too long ({what})"),
        (_, ureq::Error::HostNotFound) => "there is no such host".to_owned(),
        (_, ureq::Error::Io(error)) => error.to_string(),
        (_, error) => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test says where it failed")]
    use super::*;

    #[test]
    fn a_proxy_is_for_all_but_those_that_are_named_and_says_nothing_of_itself() {
        let except = "b.example, .c.example,10.0.0.0/8,192.0.2.1,fd00::/8,2001:db8::1,1.2.3.4/33";
        let proxy = Proxy::new("http://me:hunter2@a:1", except).unwrap();
        for (host, is_for) in [
            ("a.example", true),
            ("b.example", false),
            ("x.B.example", false),
            ("xb.example", true),
            ("c.example", false),
            ("x.c.example", false),
            ("10.255.0.1", false),
            ("11.0.0.1", true),
            ("192.0.2.1", false),
            ("[fd12::1]", false),
            ("[fe80::1]", true),
            ("[2001:db8::1]", false),
            ("1.2.3.4", true),
        ] {
            assert_eq!(proxy.is_for(host), is_for, "{host}");
        }
        assert!(!format!("{proxy:?}").contains("hunter2"));
        assert!(!Proxy::new("http://a", "*").unwrap().is_for("b"));
        let wrong = Proxy::new("gopher://hunter2", "").unwrap_err();
        assert!(!wrong.contains("hunter2"));
    }

    #[test]
    fn this_machine_is_known_by_its_names() {
        for host in ["localhost", "127.0.0.1", "127.9.9.9", "[::1]"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in ["", "localhost.example", "10.0.0.1", "127.0.0.1.example"] {
            assert!(!is_loopback(host), "{host}");
        }
    }
}
