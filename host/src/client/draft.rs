//! An exchange as somebody writes it down, completed with what every exchange has: the headers that a
//! client or an upstream sends by itself, the length of a body.

use std::net::IpAddr;

use plugin_proto::Method;

use super::Field;
use super::exchange::{Exchange, Upstream};
use super::target::Target;

/// What somebody says of an exchange.
#[derive(Debug, Clone)]
pub struct Draft {
    /// The request's method; without one, GET, or POST where the request has a body.
    pub method: Option<Method>,
    /// What it asks for.
    pub target: Target,
    /// Headers of the request; in the response phase those of the upstream's response.
    pub headers: Vec<Header>,
    /// Where the request came from.
    pub client: IpAddr,
    /// Body of the request, or in the response phase of the upstream's response.
    pub body: Option<Vec<u8>>,
    /// The upstream's status; none in the request phase.
    pub status: Option<u16>,
    /// Variables by name, which win over those that follow from the rest.
    pub variables: Vec<Field>,
}

/// What is said of a header.
#[derive(Debug, Clone)]
pub enum Header {
    /// It is sent, in place of those that would be by themselves.
    Given(Field),
    /// It is not sent.
    Without(Vec<u8>),
}

impl Draft {
    /// The exchange.
    #[must_use]
    pub fn complete(self) -> Exchange {
        let host = self.target.authority.as_deref().unwrap_or("localhost");
        let default_method = match (&self.body, self.status) {
            (Some(_), None) => Method::Post,
            _ => Method::Get,
        };
        let mut exchange = Exchange {
            method: self.method.unwrap_or(default_method),
            headers: vec![Field::new("host", host)],
            target: self.target,
            client: self.client,
            body: None,
            upstream: None,
            variables: self.variables,
        };
        match self.status {
            None => {
                let agent = concat!("plugin-host/", env!("CARGO_PKG_VERSION"));
                exchange.headers.push(Field::new("user-agent", agent));
                exchange.headers.push(Field::new("accept", "*/*"));
                if let Some(body) = &self.body {
                    let length = body.len().to_string();
                    exchange.headers.push(Field::new("content-length", length));
                    let form = "application/x-www-form-urlencoded";
                    exchange.headers.push(Field::new("content-type", form));
                }
                add(&mut exchange.headers, &self.headers, |name| {
                    name.to_ascii_lowercase()
                });
                exchange.body = self.body;
            }
            Some(status) => {
                let body = self.body.unwrap_or_default();
                let mut headers = vec![Field::new("Content-Length", body.len().to_string())];
                add(&mut headers, &self.headers, <[u8]>::to_vec);
                exchange.upstream = Some(Upstream {
                    status,
                    headers,
                    body: Some(body),
                });
            }
        }
        exchange
    }
}

/// Adds what was written to the defaults: it replaces or removes those of its name.
fn add(headers: &mut Vec<Field>, written: &[Header], write: impl Fn(&[u8]) -> Vec<u8>) {
    headers.retain(|default| {
        !written.iter().any(|header| {
            let (Header::Without(name) | Header::Given(Field { name, .. })) = header;
            name.eq_ignore_ascii_case(&default.name)
        })
    });
    for header in written {
        if let Header::Given(field) = header {
            headers.push(Field {
                name: write(&field.name),
                value: field.value.clone(),
            });
        }
    }
}
