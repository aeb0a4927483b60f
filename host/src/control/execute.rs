//! Has a plugin execute something: `POST /v1/plugins/{name}/execute`.
//!
//! The worker runs it; its supervisor passes it on, and answers where the worker does not come to that.

use std::time::Duration;

use axum::{Json, extract::State, http::StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::{
    extract::{Body, Named},
    problem::{Fault, Problem, Refused},
    worker::{Desk, missing},
};
use crate::pipeline::{
    FailureReason,
    execute::{
        ExecuteError, LONGEST_TIME, Order,
        context::{MAX_VALUE_BYTES, MAX_VALUES, Values},
    },
};

/// Bytes of a request's body, at most: the values, and what JSON adds to them.
pub const MAX_BODY_BYTES: usize = MAX_VALUE_BYTES + (64 << 10);

/// The last part of the path.
pub const ACTION: &str = "execute";

/// What a plugin is to execute.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Execute {
    /// What is wanted, in words of the plugin's.
    pub label: String,
    /// Values to begin with, by name.
    #[schema(value_type = Object, additional_properties)]
    pub values: Map<String, Value>,
    /// Time for it, in milliseconds, at most 30,000; without one the plugin's `timeout_ms`, or else the
    /// budget of a call.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// What has come of it.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct Executed {
    /// Name and version of what executed it.
    pub plugin: String,
    /// The values that the plugin has set, by name.
    #[schema(value_type = Object, additional_properties)]
    pub values: Map<String, Value>,
    /// How long it took, in milliseconds.
    pub milliseconds: u64,
}

/// Have a plugin execute something
///
/// Its `execute` runs once, with this label and these values, beside the calls of routes; the values that
/// it sets come back. Where the asker goes away, it is cancelled. A refusal says whose fault it is.
#[utoipa::path(
    post,
    path = "/v1/plugins/{name}/execute",
    tag = "plugins",
    params(("name", description = "The plugin: `name` or `name@requirement`")),
    request_body = Execute,
    responses(
        (status = 200, body = Executed),
        (status = 400, body = Problem, content_type = "application/problem+json", description = "That is no plugin name, or no such request"),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "No such plugin serves"),
        (status = 408, body = Problem, content_type = "application/problem+json", description = "The request did not come"),
        (status = 413, body = Problem, content_type = "application/problem+json", description = "The values are too long, or too many"),
        (status = 501, body = Problem, content_type = "application/problem+json", description = "The plugin has no `execute`"),
        (status = 502, body = Problem, content_type = "application/problem+json", description = "The plugin failed, or its worker has died of it"),
        (status = 503, body = Problem, content_type = "application/problem+json", description = "No thread is free, or too many executions run"),
        (status = 504, body = Problem, content_type = "application/problem+json", description = "It had not ended in its time"),
    )
)]
pub(super) async fn execute(
    State(desk): State<Desk>,
    Named(plugin): Named,
    Body(wanted): Body<Execute>,
) -> Result<Json<Executed>, Refused> {
    let timeout = wanted.timeout_ms.map(Duration::from_millis);
    if timeout.is_some_and(|timeout| timeout.is_zero() || timeout > LONGEST_TIME) {
        return Err(by_the_asker(
            StatusCode::BAD_REQUEST,
            format!("timeout_ms is from 1 to {}", LONGEST_TIME.as_millis()),
        ));
    }
    let values = values_of(wanted.values)?;
    let generation = desk.manager.get(&plugin).map_err(missing)?;
    let name = format!("{generation:?}");
    let order = Order {
        label: wanted.label,
        values,
        timeout,
        exchange: None,
    };
    let executed = desk.executor.execute(generation, order).await;
    let executed = executed.inspect_err(|error| {
        tracing::warn!(plugin, reason = %error, "an execution failed");
    })?;
    let values = executed.values.into_iter().map(|(name, json)| {
        // The SDK writes nothing else; what a plugin forges is a text.
        let text = || Value::String(String::from_utf8_lossy(&json).into_owned());
        let value = serde_json::from_slice(&json).unwrap_or_else(|_| text());
        (name, value)
    });
    Ok(Json(Executed {
        plugin: name,
        values: values.collect(),
        milliseconds: u64::try_from(executed.took.as_millis()).unwrap_or(u64::MAX),
    }))
}

fn values_of(given: Map<String, Value>) -> Result<Values, Refused> {
    let values: Values = given
        .into_iter()
        .map(|(name, value)| (name, value.to_string().into_bytes()))
        .collect();
    let bytes: usize = values
        .iter()
        .map(|(name, json)| name.len() + json.len())
        .sum();
    if values.len() > MAX_VALUES || bytes > MAX_VALUE_BYTES {
        return Err(by_the_asker(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!(
                "{} values of {bytes} bytes, names included: at most {MAX_VALUES} of \
                 {MAX_VALUE_BYTES} bytes",
                values.len()
            ),
        ));
    }
    Ok(values)
}

fn by_the_asker(status: StatusCode, detail: String) -> Refused {
    Refused::new(status, detail).fault(Fault::Asker)
}

impl From<ExecuteError> for Refused {
    fn from(error: ExecuteError) -> Self {
        let (status, fault) = match &error {
            ExecuteError::Unsupported { .. } => (StatusCode::NOT_IMPLEMENTED, Fault::Asker),
            ExecuteError::Failed(failure) => match failure.reason {
                FailureReason::Deadline(_) => (StatusCode::GATEWAY_TIMEOUT, Fault::Plugin),
                FailureReason::NoThread { .. } => (StatusCode::SERVICE_UNAVAILABLE, Fault::Host),
                _ => (StatusCode::BAD_GATEWAY, Fault::Plugin),
            },
            ExecuteError::Busy(_) | ExecuteError::Ending => {
                (StatusCode::SERVICE_UNAVAILABLE, Fault::Host)
            }
        };
        Self::new(status, error.to_string()).fault(fault)
    }
}
