//! What the host itself posts: an event as JSON to an operator's URL.

use std::time::Duration;

use http_body_util::Full;
use hyper::{
    Method, Request, StatusCode,
    header::{CONTENT_TYPE, HeaderValue, USER_AGENT},
};

use super::{
    HttpClient,
    error::Failed,
    exchange::{self, read_url},
};

/// Whether something is a URL that can be posted to.
///
/// # Errors
/// Why it is not.
pub fn check_url(url: &str) -> Result<(), String> {
    read_url(url).map(|_| ()).map_err(|error| error.to_string())
}

impl HttpClient {
    /// Posts a JSON text, and gives the status of the answer, whose body nobody reads. Blocks the
    /// calling thread, which has to be none of a runtime. No bound of plugins counts here.
    ///
    /// # Errors
    /// There was no answer in time, or nobody could be asked; the text names the server and nothing else
    /// of the URL.
    pub fn post(&self, url: &str, json: Vec<u8>, time: Duration) -> Result<StatusCode, String> {
        self.try_post(url, json, time)
            .map_err(|error| error.to_string())
    }

    fn try_post(&self, url: &str, json: Vec<u8>, time: Duration) -> Result<StatusCode, Failed> {
        let (uri, server) = read_url(url)?;
        let running = self.running()?;
        let mut pooled = running.pooled.clone();
        let mut request = Request::new(Full::new(json.into()));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = uri;
        let headers = request.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(USER_AGENT, HeaderValue::from_static(exchange::USER_AGENT));
        let exchange = async {
            let pooled = pooled.wait_for(Option::is_some).await;
            let pooled = pooled.ok().and_then(|pooled| pooled.clone());
            let pooled = pooled.ok_or_else(|| {
                Failed::NotStarted("the system's certificates were not read".to_owned())
            })?;
            let answered = pooled.client().request(request).await;
            answered
                .map(|response| response.status())
                .map_err(|error| Failed::of(&server, &error))
        };
        let late = || Failed::Timeout {
            server: server.clone(),
            what: "has not answered",
            time,
        };
        running
            .handle()
            .block_on(async { tokio::time::timeout(time, exchange).await })
            .unwrap_or_else(|_| Err(late()))
    }
}
