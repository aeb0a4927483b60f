//! Passes on what a plugin is to execute. The worker may die of it: then the answer says so, and whose
//! doing it was, as soon as that has been judged. It is never asked of a second worker.

use std::time::Duration;

use axum::{
    body::Body,
    extract::{Request, State},
    http::{StatusCode, header},
    response::Response,
};
use http_body_util::{BodyExt, LengthLimitError, Limited};

use super::{
    Api, crashes,
    passing::{Asked, BoxError, broken, connect, converse},
};
use crate::control::{
    caller::Caller,
    execute::MAX_BODY_BYTES,
    extract::{BODY_TIME, Named},
    problem::{Fault, Refused},
};

/// How the path ends.
pub(super) const PATH: &str = "/execute";

/// How long the report of a death is waited for, and how often it is looked for.
const REPORT_TIME: Duration = Duration::from_secs(3);
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(20);

/// Passes an execution on. Where the asker goes away, so does the request to the worker, which then
/// cancels it.
pub(super) async fn pass(
    State(mut api): State<Api>,
    Named(plugin): Named,
    request: Request,
) -> Result<Response, Refused> {
    let (parts, body) = request.into_parts();
    let caller = parts.extensions.get::<Caller>();
    let by = caller.map_or_else(|| "an operator".to_owned(), ToString::to_string);
    let body = whole(body).await?;
    let asked = Asked {
        method: &parts.method,
        uri: &parts.uri,
        accept: parts.headers.get(header::ACCEPT),
        by: &by,
    };
    let path = api.worker_that_serves().await?;
    let stream = connect(&path).await.map_err(broken)?;
    let worker = stream.peer_cred().ok().and_then(|peer| peer.pid());
    match answered(converse(stream, asked, body).await).await {
        Ok(response) => Ok(response),
        Err(error) => {
            tracing::debug!(error, plugin, "an execution broke off");
            let worker = worker.and_then(|worker| u32::try_from(worker).ok());
            Err(api.died_of(&plugin, worker).await)
        }
    }
}

/// The whole request, within its bounds.
async fn whole(body: Body) -> Result<Body, Refused> {
    let reading = Limited::new(body, MAX_BODY_BYTES).collect();
    let read = tokio::time::timeout(BODY_TIME, reading).await;
    let read = read.map_err(|_| {
        let detail = format!("the body had not come after {} s", BODY_TIME.as_secs());
        Refused::new(StatusCode::REQUEST_TIMEOUT, detail)
    });
    match read? {
        Ok(whole) => Ok(Body::from(whole.to_bytes())),
        Err(error) if error.is::<LengthLimitError>() => {
            let detail = format!("the body is longer than {MAX_BODY_BYTES} bytes");
            Err(Refused::new(StatusCode::PAYLOAD_TOO_LARGE, detail).fault(Fault::Asker))
        }
        Err(error) => Err(Refused::bad_request(format!("the body broke off: {error}"))),
    }
}

/// The whole answer, so that none is begun that a dying worker leaves unfinished.
async fn answered(response: Result<Response, BoxError>) -> Result<Response, String> {
    let (parts, body) = response.map_err(|error| error.to_string())?.into_parts();
    let whole = body.collect().await.map_err(|error| error.to_string())?;
    Ok(Response::from_parts(parts, Body::from(whole.to_bytes())))
}

impl Api {
    /// What is said of an execution whose worker is gone.
    async fn died_of(&self, plugin: &str, worker: Option<u32>) -> Refused {
        let (directory, looking_for) = (self.reports.clone(), worker.unwrap_or_default());
        let looking = async {
            loop {
                let directory = directory.clone();
                let read = move || crashes::of_process(&directory, looking_for);
                if let Ok(Some(report)) = tokio::task::spawn_blocking(read).await {
                    return report;
                }
                tokio::time::sleep(LOOK_AGAIN_AFTER).await;
            }
        };
        let ended = format!("the worker has ended while it executed `{plugin}`");
        let refused = |detail| Refused::new(StatusCode::BAD_GATEWAY, detail);
        match tokio::time::timeout(REPORT_TIME, looking).await {
            Ok(report) => {
                let refused = refused(format!("{ended}: {report}"));
                match report.blamed {
                    Some(_) => refused.fault(Fault::Plugin),
                    None => refused,
                }
            }
            Err(_) => refused(format!("{ended}; `plugin-host crashes` may say why")),
        }
    }
}
