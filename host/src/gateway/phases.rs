//! One request through its phases: plugins before, the upstream, plugins after.
//!
//! The order is the real gateway's: `ext-plugin-pre-req`, `proxy-rewrite`, `ext-plugin-post-req`,
//! the upstream, `ext-plugin-post-resp`. Every effect of an answer is applied here or one call
//! below; this module reads nothing from a client.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::http::Extensions;
use hyper::{Method, Request, Response, StatusCode};

use super::answer::{self, Body};
use super::echo;
use super::event::{CallDone, Effect, Event, Listener, Phase};
use super::exchange::Exchange;
use super::routes::{ExtPlugin, PassHost};
use super::runner::{Call, CallError, Runner};
use super::upstream::{self, Received, UpstreamError};
use crate::client::{ClientError, Field, Question, RequestEffect, ResponseEffect};

/// Headers of the client's that Nginx does not pass on, or writes anew.
const NOT_PROXIED: [&str; 10] = [
    "connection",
    "content-length",
    "expect",
    "host",
    "keep-alive",
    "te",
    "transfer-encoding",
    "upgrade",
    "x-forwarded-for",
    "x-real-ip",
];

/// The same where `ext-plugin-post-resp` asks the upstream.
const NOT_ASKED: [&str; 5] = [
    "content-length",
    "expect",
    "host",
    "transfer-encoding",
    "upgrade",
];

/// The client's status where the host fails.
const UNAVAILABLE: u16 = 503;

/// The client's status where an answer is broken: an exception in the real gateway, which no route
/// can allow.
const EXCEPTION: u16 = 500;

/// What the phases need beside the request.
pub(super) struct Phases<'g> {
    pub(super) runner: &'g Runner,
    pub(super) listener: &'g Listener,
    pub(super) max_body: usize,
    /// Counts requests, to give each node its turn.
    pub(super) turn: &'g AtomicU64,
}

/// How a request reaches the upstream.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// Nginx passes it on.
    Proxied,
    /// `ext-plugin-post-resp` asks by itself, and with other headers.
    Asked,
}

/// How a call of the host ended.
enum Called {
    Effect(Effect),
    /// No answer, and the route says to go on.
    Degraded,
    /// No answer; the client gets this status.
    Failed(u16),
}

impl Phases<'_> {
    /// Takes a request to its answer. `spelling` is how the client spells its headers, for hyper.
    pub(super) async fn run(
        &self,
        exchange: &mut Exchange,
        spelling: Extensions,
    ) -> Response<Body> {
        let route = Arc::clone(&exchange.route);
        if let Some(plugin) = &route.pre_req
            && let Some(response) = self.before(Phase::PreReq, plugin, exchange).await
        {
            return response;
        }
        if let Some(rewrite) = &route.proxy_rewrite {
            exchange.proxy_rewrite(rewrite);
        }
        if let Some(plugin) = &route.post_req
            && let Some(response) = self.before(Phase::PostReq, plugin, exchange).await
        {
            return response;
        }
        let answered = match &route.post_resp {
            None => self.proxy(exchange, spelling).await,
            Some(plugin) => self.ask(plugin, exchange, spelling).await,
        };
        answered.unwrap_or_else(|error| {
            tracing::warn!(route = route.id, "{error}");
            answer::error_page(error.status())
        })
    }

    /// Calls plugins before the upstream is called; gives the answer where they stop the request.
    async fn before(
        &self,
        phase: Phase,
        plugin: &ExtPlugin,
        exchange: &mut Exchange,
    ) -> Option<Response<Body>> {
        let call = exchange.as_call().map(Call::Request);
        match self.call(phase, plugin, exchange, call, None).await {
            Called::Effect(Effect::Request(RequestEffect::Stop(stop))) => {
                Some(answer::stop(stop, &exchange.response_headers))
            }
            Called::Effect(Effect::Request(RequestEffect::Rewrite(rewrite))) => {
                exchange.rewrite(rewrite);
                None
            }
            Called::Effect(_) | Called::Degraded => None,
            Called::Failed(status) => Some(answer::error_page(status)),
        }
    }

    /// Passes a request on and its response back.
    async fn proxy(
        &self,
        exchange: &mut Exchange,
        spelling: Extensions,
    ) -> Result<Response<Body>, UpstreamError> {
        let received = self.reach(Way::Proxied, exchange, spelling).await?;
        let mut response =
            answer::passed(received.status.as_u16(), &received.headers, received.body);
        for header in &exchange.response_headers {
            // Nginx has one place for these, and the upstream's are there.
            let is = |name: &str| header.name.eq_ignore_ascii_case(name.as_bytes());
            if !is("content-type") && !is("content-length") {
                answer::add(response.headers_mut(), header);
            }
        }
        *response.extensions_mut() = received.spelling;
        Ok(response)
    }

    /// Sends a request upstream and has plugins look at the response.
    async fn ask(
        &self,
        plugin: &ExtPlugin,
        exchange: &mut Exchange,
        spelling: Extensions,
    ) -> Result<Response<Body>, UpstreamError> {
        let mut received = self.reach(Way::Asked, exchange, spelling.clone()).await?;
        let bare = exchange.method == Method::HEAD
            || matches!(
                received.status,
                StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED
            );
        let body = match bare {
            true => None,
            false => Some(received.take_body(self.max_body).await?),
        };
        let call = Call::Response(crate::client::Response {
            id: 0,
            status: received.status.as_u16(),
            headers: received.headers.clone(),
        });
        let called = self
            .call(Phase::PostResp, plugin, exchange, Some(call), body.clone())
            .await;
        let upstream_status = received.status.as_u16();
        let (status, headers, replaced) = match called {
            Called::Effect(Effect::Response(effect)) => {
                let ResponseEffect {
                    status,
                    headers,
                    body,
                } = effect;
                let status = if status == 0 { upstream_status } else { status };
                let headers = if headers.is_empty() {
                    kept(&received.headers)
                } else {
                    headers
                };
                (status, headers, body.filter(|body| !body.is_empty()))
            }
            Called::Effect(_) | Called::Degraded => (upstream_status, Vec::new(), None),
            Called::Failed(EXCEPTION) => return Ok(answer::error_page(EXCEPTION)),
            Called::Failed(status) => (status, Vec::new(), None),
        };
        let mut pending = std::mem::take(&mut exchange.response_headers);
        pending.retain(|pending| {
            let is_set = |header: &Field| header.name.eq_ignore_ascii_case(&pending.name);
            !headers.iter().any(is_set)
        });
        pending.extend(headers);
        match replaced.map(Bytes::from).or(body) {
            Some(body) => Ok(answer::response(status, &pending, answer::chunked(body))),
            None => {
                // The real gateway has nothing to send then, and lets Nginx pass the request on: a
                // second time.
                exchange.response_headers = pending;
                self.proxy(exchange, spelling).await
            }
        }
    }

    async fn call(
        &self,
        phase: Phase,
        plugin: &ExtPlugin,
        exchange: &mut Exchange,
        call: Option<Call>,
        mut response_body: Option<Bytes>,
    ) -> Called {
        let began = Instant::now();
        let mut response = None;
        let mut failed = UNAVAILABLE;
        let result = match call {
            None => Err("the protocol has no name for this method".to_owned()),
            Some(mut call) => {
                let answer = |question: Question<'_>| exchange.answer(question, &mut response_body);
                let made = self.runner.call(plugin, &mut call, answer).await;
                if let Call::Response(upstream) = call {
                    response = Some(upstream);
                }
                if let Err(CallError::Client(ClientError::Broken(_))) = &made {
                    failed = EXCEPTION;
                }
                made.map_err(|error| error.to_string())
            }
        };
        let degraded = result.is_err() && plugin.allow_degradation && failed != EXCEPTION;
        if let Err(reason) = &result {
            tracing::error!(
                route = exchange.route.id,
                phase = phase.name(),
                degraded,
                "{reason}"
            );
        }
        let name = |plugin: &Field| String::from_utf8_lossy(&plugin.name).into_owned();
        let done = CallDone {
            phase,
            request: format!("{} {}", exchange.method, exchange.target.raw),
            route: exchange.route.id.clone(),
            method: exchange.method.as_str().parse().ok(),
            response,
            plugins: plugin.conf.iter().map(name).collect(),
            took: began.elapsed(),
            result,
            degraded,
        };
        (self.listener)(Event::Call(&done));
        match done.result {
            Ok(effect) => Called::Effect(effect),
            Err(_) if degraded => Called::Degraded,
            Err(_) => Called::Failed(failed),
        }
    }

    /// Sends the request as it stands now to its upstream.
    async fn reach(
        &self,
        way: Way,
        exchange: &mut Exchange,
        spelling: Extensions,
    ) -> Result<Received, UpstreamError> {
        let uri = exchange.upstream_uri();
        if !uri.starts_with('/') {
            return Err(UpstreamError::Path(uri));
        }
        let Some(upstream) = &Arc::clone(&exchange.route).upstream else {
            exchange.reached = Some("echo".to_owned());
            let headers = headers_for(way, exchange);
            return Ok(echo::respond(
                exchange.method.as_str(),
                &uri,
                &headers,
                &exchange.body,
            ));
        };
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let (node, stream) = upstream::connect(upstream, turn).await?;
        match &upstream.pass_host {
            PassHost::Pass => {}
            PassHost::Node if node.port == 80 => {
                exchange.upstream_host = Some(node.host.clone().into_bytes());
            }
            PassHost::Node => exchange.upstream_host = Some(node.to_string().into_bytes()),
            PassHost::Rewrite(host) => exchange.upstream_host = Some(host.clone().into_bytes()),
        }
        exchange.reached = Some(node.to_string());
        exchange.node = Some(node.clone());
        let mut request = Request::new(Full::new(exchange.body.clone()));
        *request.method_mut() = exchange.method.clone();
        *request.uri_mut() = uri.parse().map_err(|_| UpstreamError::Path(uri))?;
        for header in headers_for(way, exchange) {
            answer::append(request.headers_mut(), &header);
        }
        *request.extensions_mut() = spelling;
        upstream::send(&node, stream, request).await
    }
}

/// The upstream's headers that are left where plugins give none.
fn kept(headers: &[Field]) -> Vec<Field> {
    let is_kept = |header: &&Field| !answer::is_ignored(&header.name.to_ascii_lowercase());
    headers.iter().filter(is_kept).cloned().collect()
}

/// The headers that go upstream.
fn headers_for(way: Way, exchange: &Exchange) -> Vec<Field> {
    let own = exchange.header("host").map(<[u8]>::to_vec);
    let host = exchange.upstream_host.clone().or(own).unwrap_or_default();
    let mut headers = vec![Field::new("Host", host)];
    let client = exchange.peer.client.ip().to_string();
    if way == Way::Proxied {
        headers.push(Field::new("X-Real-IP", client.as_str()));
        let forwarded = match exchange.header("x-forwarded-for") {
            Some(before) => [before, client.as_bytes()].join(&b", "[..]),
            None => client.into_bytes(),
        };
        headers.push(Field::new("X-Forwarded-For", forwarded));
    }
    let told = exchange.header("content-length").is_some()
        || exchange.header("transfer-encoding").is_some();
    if told || !exchange.body.is_empty() {
        let length = exchange.body.len().to_string();
        headers.push(Field::new("Content-Length", length));
    }
    let replaced: &[&str] = match way {
        Way::Proxied => &NOT_PROXIED,
        Way::Asked => &NOT_ASKED,
    };
    let is_replaced = |name: &[u8]| {
        let is = |other: &&str| name.eq_ignore_ascii_case(other.as_bytes());
        replaced.iter().any(is)
    };
    let rest = exchange.headers.iter();
    headers.extend(rest.filter(|header| !is_replaced(&header.name)).cloned());
    if way == Way::Asked && exchange.header("user-agent").is_none() {
        headers.push(Field::new("User-Agent", answer::SERVER_NAME));
    }
    headers
}
