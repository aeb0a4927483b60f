//! One HTTP exchange as a gateway knows it, and its answers to a host that asks back.
//!
//! Variables that follow from the exchange are worked out as the gateway does; those that need a real
//! gateway (`route_id`, `consumer_name`) are whatever was given by name, or not there.

use std::net::IpAddr;

use plugin_proto::Method;

use super::target::Target;
use super::{Field, Question, Request, Response, joined, without_port};

/// One HTTP exchange: a client's request, and in the response phase what the upstream answered.
#[derive(Debug, Clone)]
pub struct Exchange {
    /// The request's method.
    pub method: Method,
    /// What it asks for.
    pub target: Target,
    /// Its headers.
    pub headers: Vec<Field>,
    /// Where it came from.
    pub client: IpAddr,
    /// Its body.
    pub body: Option<Vec<u8>>,
    /// The upstream's response.
    pub upstream: Option<Upstream>,
    /// Variables by name, which win over those that follow from the rest.
    pub variables: Vec<Field>,
}

/// An upstream's response.
#[derive(Debug, Clone)]
pub struct Upstream {
    /// Its status.
    pub status: u16,
    /// Its headers, in its own case.
    pub headers: Vec<Field>,
    /// Its body, until it has been asked for: a gateway reads it once.
    pub body: Option<Vec<u8>>,
}

impl Exchange {
    /// The request, as a call carries it.
    pub fn request(&self, id: u32) -> Request {
        Request {
            id,
            method: self.method,
            path: self.target.path.clone(),
            args: self.target.args.clone(),
            headers: self.headers.clone(),
            client: self.client,
        }
    }

    /// The upstream's response, as a call carries it; none in the request phase.
    pub fn response(&self, id: u32) -> Option<Response> {
        let upstream = self.upstream.as_ref()?;
        Some(Response {
            id,
            status: upstream.status,
            headers: upstream.headers.clone(),
        })
    }

    /// What a gateway answers; nothing where there is no such variable, or no body.
    pub fn answer(&mut self, question: Question<'_>) -> Option<Vec<u8>> {
        match question {
            Question::Var(name) => self.variable(name),
            Question::RequestBody => self.body.clone().filter(|body| !body.is_empty()),
            Question::ResponseBody => self.upstream.as_mut()?.body.take(),
        }
    }

    fn variable(&self, name: &[u8]) -> Option<Vec<u8>> {
        if let Some(given) = self.variables.iter().find(|given| given.name == name) {
            return given.value.clone();
        }
        let name = std::str::from_utf8(name).ok()?;
        let text = |text: &str| Some(text.as_bytes().to_vec());
        let target = &self.target;
        match name {
            "request_method" => text(self.method.as_str()),
            "request_uri" => text(&target.raw),
            "uri" => Some(target.path.clone()),
            "args" | "query_string" => target.query.as_deref().and_then(text),
            "is_args" => text(match target.query.as_deref() {
                None | Some("") => "",
                Some(_) => "?",
            }),
            "scheme" => text(target.scheme.as_deref().unwrap_or("http")),
            "host" => {
                let host = self.header("host")?;
                Some(without_port(&host).to_ascii_lowercase())
            }
            "remote_addr" => text(&self.client.to_string()),
            "content_type" => self.header("content-type"),
            "content_length" => self.header("content-length"),
            "status" | "upstream_status" => text(&self.upstream.as_ref()?.status.to_string()),
            _ => {
                if let Some(argument) = name.strip_prefix("arg_") {
                    return self.argument(argument);
                }
                if let Some(header) = name.strip_prefix("sent_http_") {
                    let headers = &self.upstream.as_ref()?.headers;
                    return joined(headers, header);
                }
                joined(&self.headers, name.strip_prefix("http_")?)
            }
        }
    }

    fn header(&self, name: &str) -> Option<Vec<u8>> {
        joined(&self.headers, &name.replace('-', "_"))
    }

    /// The first argument of a name, decoded. The gateway, other than Nginx, cares about case, and
    /// says `true` of one without a value.
    fn argument(&self, name: &str) -> Option<Vec<u8>> {
        let found = |argument: &&Field| argument.name == name.as_bytes();
        let argument = self.target.args.iter().find(found)?;
        Some(argument.value.clone().unwrap_or_else(|| b"true".to_vec()))
    }
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        reason = "a failed expectation is the test's result"
    )]
    use super::*;
    use std::net::Ipv4Addr;

    fn exchange() -> Exchange {
        Exchange {
            method: Method::Post,
            target: Target::parse("https://example.com/a%20b?x=%41&Y=2&x=3&z").unwrap(),
            headers: vec![
                Field::new("host", "example.com:8443"),
                Field::new("x-many", "one"),
                Field::new("X-Many", "two"),
            ],
            client: Ipv4Addr::LOCALHOST.into(),
            body: Some(b"body".to_vec()),
            upstream: Some(Upstream {
                status: 404,
                headers: vec![Field::new("Content-Type", "text/html")],
                body: Some(b"not here".to_vec()),
            }),
            variables: vec![Field::new("route_id", "r1"), Field::new("scheme", "wss")],
        }
    }

    #[test]
    fn variables_follow_from_the_exchange_and_given_ones_win() {
        for (name, expected) in [
            ("request_method", Some("POST")),
            ("request_uri", Some("/a%20b?x=%41&Y=2&x=3&z")),
            ("uri", Some("/a b")),
            ("args", Some("x=%41&Y=2&x=3&z")),
            ("is_args", Some("?")),
            ("scheme", Some("wss")),
            ("host", Some("example.com")),
            ("http_host", Some("example.com:8443")),
            ("http_x_many", Some("one, two")),
            ("http_x_none", None),
            ("remote_addr", Some("127.0.0.1")),
            ("arg_x", Some("A")),
            ("arg_Y", Some("2")),
            ("arg_y", None),
            ("arg_z", Some("true")),
            ("status", Some("404")),
            ("sent_http_content_type", Some("text/html")),
            ("route_id", Some("r1")),
            ("consumer_name", None),
        ] {
            let answer = exchange().answer(Question::Var(name.as_bytes()));
            assert_eq!(answer.as_deref(), expected.map(str::as_bytes), "{name}");
        }
    }

    #[test]
    fn the_upstreams_body_is_there_once_and_the_requests_always() {
        let mut exchange = exchange();
        let asked = |exchange: &mut Exchange, question| exchange.answer(question).is_some();
        assert!(asked(&mut exchange, Question::ResponseBody));
        assert!(!asked(&mut exchange, Question::ResponseBody));
        assert!(asked(&mut exchange, Question::RequestBody));
        assert!(asked(&mut exchange, Question::RequestBody));
    }

    #[test]
    fn an_empty_body_is_no_body() {
        let mut exchange = exchange();
        exchange.body = Some(Vec::new());
        assert_eq!(exchange.answer(Question::RequestBody), None);
    }
}
