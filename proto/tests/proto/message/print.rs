//! Messages on one line each, for expectations: bytes in single quotes, escaped where they are not printable;
//! an entry without `=` has no value.

use std::fmt;

use plugin_proto::Method;

use super::{Bytes, Message, Pair};

impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Error { code } => write!(f, "error {code}"),
            Self::Prepare { conf, key } => write!(f, "prepare {} as {}", List(conf), Maybe(key)),
            Self::Token { conf_token } => write!(f, "token {conf_token}"),
            Self::RequestCall {
                id,
                src_ip,
                method,
                path,
                args,
                headers,
                conf_token,
            } => write!(
                f,
                "request {id} of {} with token {conf_token}: {} {path} args {} headers {}",
                Address(src_ip),
                Method::try_from(*method).map_or("?", Method::as_str),
                List(args),
                List(headers)
            ),
            Self::Unchanged { id } => write!(f, "{id} unchanged"),
            Self::Stop {
                id,
                status,
                headers,
                body,
            } => {
                write!(
                    f,
                    "{id} stop {status} headers {} body {}",
                    List(headers),
                    Maybe(body)
                )
            }
            Self::Rewrite {
                id,
                path,
                headers,
                args,
                resp_headers,
                body,
            } => write!(
                f,
                "{id} rewrite path {} headers {} args {} response headers {} body {}",
                Maybe(path),
                List(headers),
                List(args),
                List(resp_headers),
                Maybe(body)
            ),
            Self::AskVariable { name } => write!(f, "ask {name}"),
            Self::AskRequestBody => write!(f, "ask for the request body"),
            Self::AskResponseBody => write!(f, "ask for the response body"),
            Self::Info { result } => write!(f, "info {}", Maybe(result)),
            Self::ResponseCall {
                id,
                status,
                headers,
                conf_token,
            } => {
                write!(
                    f,
                    "response {id} with token {conf_token}: {status} headers {}",
                    List(headers)
                )
            }
            Self::ResponseAnswer {
                id,
                status,
                headers,
                body,
            } => {
                write!(
                    f,
                    "{id} answer {status} headers {} body {}",
                    List(headers),
                    Maybe(body)
                )
            }
        }
    }
}

/// Bytes longer than this are printed as their length and their first ones.
const PRINTED: usize = 1000;

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.len() > PRINTED {
            return write!(
                f,
                "{} bytes like '{}'",
                self.0.len(),
                self.0[..8].escape_ascii()
            );
        }
        // Quotes as they are, so that JSON stays readable in expectations.
        let escaped = self.0.escape_ascii().to_string();
        write!(f, "'{}'", escaped.replace("\\\"", "\"").replace("\\'", "'"))
    }
}

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

struct Maybe<'a>(&'a Option<Bytes>);

impl fmt::Display for Maybe<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(bytes) => write!(f, "{bytes}"),
            None => write!(f, "none"),
        }
    }
}

/// An IPv4 address as people write it.
struct Address<'a>(&'a Option<Bytes>);

impl fmt::Display for Address<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self
            .0
            .as_ref()
            .map(|bytes| <[u8; 4]>::try_from(bytes.0.as_slice()))
        {
            Some(Ok(address)) => write!(f, "{}", std::net::Ipv4Addr::from(address)),
            _ => write!(f, "{}", Maybe(self.0)),
        }
    }
}

struct List<'a>(&'a [Pair]);

impl fmt::Display for List<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[")?;
        for (place, (name, value)) in self.0.iter().enumerate() {
            let comma = if place == 0 { "" } else { ", " };
            write!(f, "{comma}{}", name.0.escape_ascii())?;
            if let Some(value) = value {
                write!(f, "={value}")?;
            }
        }
        write!(f, "]")
    }
}
