//! What a host answers, as owned values: an answer outlives the frame that brought it.

use plugin_proto::{Entries, http_req_call::Action, http_resp_call};

/// A header, an argument, or a plugin with its configuration: a name and perhaps a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    /// The name; any bytes.
    pub name: Vec<u8>,
    /// The value; any bytes. None differs from an empty one.
    pub value: Option<Vec<u8>>,
}

/// What is to become of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RequestEffect {
    /// It goes on as it is.
    Unchanged,
    /// The client gets an answer, and nothing goes upstream.
    Stop(Stop),
    /// It goes on with changes.
    Rewrite(Rewrite),
}

/// An answer for the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stop {
    /// HTTP status; the gateway takes 0 for 200.
    pub status: u16,
    /// Headers of the answer.
    pub headers: Vec<Field>,
    /// Its body.
    pub body: Option<Vec<u8>>,
}

/// Changes to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rewrite {
    /// The new path.
    pub path: Option<Vec<u8>>,
    /// Headers to set, or to delete where there is no value or an empty one.
    pub headers: Vec<Field>,
    /// Arguments to set, or to delete where there is no value.
    pub args: Vec<Field>,
    /// Headers for the response that will come.
    pub response_headers: Vec<Field>,
    /// The new body.
    pub body: Option<Vec<u8>>,
}

/// What is to become of a response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResponseEffect {
    /// The status; 0 keeps the upstream's.
    pub status: u16,
    /// The headers: none keeps most of the upstream's, any one replaces them all.
    pub headers: Vec<Field>,
    /// The body; none or an empty one keeps the upstream's.
    pub body: Option<Vec<u8>>,
}

impl Field {
    /// A field with a value.
    pub fn new(name: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) -> Self {
        Self {
            name: name.into(),
            value: Some(value.into()),
        }
    }
}

impl From<Action<'_>> for RequestEffect {
    fn from(action: Action<'_>) -> Self {
        match action {
            Action::None => Self::Unchanged,
            Action::Stop {
                status,
                headers,
                body,
            } => Self::Stop(Stop {
                status,
                headers: owned(headers),
                body: body.map(Vec::from),
            }),
            Action::Rewrite {
                path,
                headers,
                args,
                resp_headers,
                body,
            } => Self::Rewrite(Rewrite {
                path: path.map(Vec::from),
                headers: owned(headers),
                args: owned(args),
                response_headers: owned(resp_headers),
                body: body.map(Vec::from),
            }),
        }
    }
}

impl From<http_resp_call::AnswerView<'_>> for ResponseEffect {
    fn from(view: http_resp_call::AnswerView<'_>) -> Self {
        Self {
            status: view.status(),
            headers: owned(view.headers()),
            body: view.body().map(Vec::from),
        }
    }
}

fn owned(entries: Entries<'_>) -> Vec<Field> {
    entries
        .iter()
        .map(|entry| Field {
            name: entry.name.into(),
            value: entry.value.map(Vec::from),
        })
        .collect()
}
