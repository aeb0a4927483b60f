//! The socket between gateway and host: whether it is there, who may connect to it, and whether a host
//! answers.

use std::{
    fs, io,
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::Path,
    time::Duration,
};

use plugin_proto::{Method, err};

use super::{
    finding::{Area, Report},
    identity::{Identity, Wish},
};
use crate::client::{ClientError, Connection, Request};

/// How long a host may take to answer a call that has nothing to do.
const PATIENCE: Duration = Duration::from_secs(5);

/// No token: a host answers that it does not know it.
const NO_TOKEN: u32 = 0;

/// Looks at the socket at an address; `gateway` is whose the gateway's workers are.
pub(super) async fn look(address: &Path, gateway: &Identity, report: &mut Report) {
    let shown = address.display();
    let metadata = match fs::metadata(address) {
        Ok(metadata) => metadata,
        Err(error) => {
            let next = match error.kind() {
                io::ErrorKind::NotFound => {
                    "start the host with this --listen address; under `ext-plugin.cmd` look for its last line in the gateway's error.log"
                }
                _ => "run this as root",
            };
            report.problem(
                Area::Socket,
                "socket",
                format!("{shown}: {error}"),
                [
                    "no host listens where the gateway looks for one: 503, and its error.log says `failed (2: No such file or directory)`",
                    next,
                ],
            );
            return;
        }
    };
    if !metadata.file_type().is_socket() {
        report.problem(
            Area::Socket,
            "socket",
            format!("{shown} is no socket"),
            [
                "something else stands where the host should listen",
                "remove it, and start the host again",
            ],
        );
        return;
    }
    report.good(
        Area::Socket,
        "socket",
        format!(
            "{shown} has mode {:04o} and belongs to user {}, group {}",
            metadata.mode() & 0o7777,
            metadata.uid(),
            metadata.gid()
        ),
    );
    who_may(address, gateway, report);
    answers(address, report).await;
}

fn who_may(address: &Path, gateway: &Identity, report: &mut Report) {
    let Some(obstacle) = gateway.obstacle(address, Wish::Write) else {
        report.good(
            Area::Socket,
            "permissions",
            format!("the gateway's workers ({}) may connect", gateway.name()),
        );
        return;
    };
    let place = obstacle.path.display();
    let next = match obstacle.wish {
        Wish::Pass => format!("chmod o+x {place}, or put the socket elsewhere"),
        _ => format!("start the host with --socket-mode 0666; until then chmod 0666 {place} does"),
    };
    report.problem(
        Area::Socket,
        "permissions",
        format!(
            "the gateway's workers ({}) may not connect: {}",
            gateway.name(),
            obstacle.said()
        ),
        [
            "503, and the gateway's error.log says `failed (13: Permission denied)`",
            &next,
        ],
    );
}

async fn answers(address: &Path, report: &mut Report) {
    let asked = tokio::time::timeout(PATIENCE, ask(address)).await;
    let shown = address.display();
    match asked {
        Ok(Ok(())) => report.good(Area::Socket, "answers", "a host answers there"),
        Ok(Err(ClientError::Connect { source, .. })) => {
            let (means, next) = match source.kind() {
                io::ErrorKind::ConnectionRefused => (
                    "the host that made the socket has ended: 503, and the gateway's error.log says `failed (111: Connection refused)`",
                    "start the host; it replaces what is left there",
                ),
                io::ErrorKind::PermissionDenied => (
                    "who runs this command may not connect, so it is not known whether a host answers",
                    "run this as root",
                ),
                io::ErrorKind::WouldBlock => (
                    "the backlog is full: 503, and the gateway's error.log says `failed (11: Resource temporarily unavailable)`",
                    "raise --backlog and net.core.somaxconn, and look why the host does not accept",
                ),
                _ => (
                    "the gateway cannot connect either",
                    "look into the host's log",
                ),
            };
            report.problem(
                Area::Socket,
                "answers",
                format!("{shown}: cannot connect: {source}"),
                [means, next],
            );
        }
        Ok(Err(error)) => report.problem(
            Area::Socket,
            "answers",
            format!("{shown}: {error}"),
            [
                "what listens there does not answer as a host that can serve does",
                "look into its log for `too many connections`; with `ss -xlp` you see who it is",
            ],
        ),
        Err(_) => report.problem(
            Area::Socket,
            "answers",
            format!("{shown}: no answer within {} s", PATIENCE.as_secs()),
            [
                "somebody has the socket and does not serve: the gateway gives up after 60 s, with 503",
                "look with `plugin-host workers` and `plugin-host logs`; where neither answers, end the host",
            ],
        ),
    }
}

/// Makes a call with a token that no host has ever given: one that serves says that it does not know
/// it.
async fn ask(address: &Path) -> Result<(), ClientError> {
    let mut connection = Connection::open(address).await?;
    let request = Request {
        id: 0,
        method: Method::Get,
        path: b"/".to_vec(),
        args: Vec::new(),
        headers: Vec::new(),
        client: [127, 0, 0, 1].into(),
    };
    match connection.request(NO_TOKEN, &request, |_| None).await {
        Ok(_)
        | Err(ClientError::Refused {
            code: Some(err::Code::ConfTokenNotFound),
            ..
        }) => Ok(()),
        Err(error) => Err(error),
    }
}
