//! `plugin-host gateway`: the development gateway, from what was typed to its end.
//!
//! It takes the port first, so that one that is taken is told before a host is started.

mod show;

use std::ffi::OsString;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use rustix::fs::Mode;
use tokio::signal::unix::{SignalKind, signal};

use super::output::{self, Paint};
use crate::config::{self, Environment, LogConfig, LogFormat, LogRotation};
use crate::gateway::child::{HostChild, HostCommand};
use crate::gateway::routes::watch::Watch;
use crate::gateway::server::{self, Gateway, Options};
use crate::logging;
use show::Show;

/// What the host is told, as by the real gateway.
const TOKEN_EXPIRY_SECONDS: u64 = 3_600;

/// How long a host that was just started may take until it listens; then requests are served
/// without it.
const HOST_PATIENCE: Duration = Duration::from_secs(10);

/// How often it is tried whether it does.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(10);

/// Directories of killed gateways that had our process number, at most, that are stepped around.
const MAX_LEFT_BEHIND: u32 = 100;

const LONG_ABOUT: &str = "\
Try plugins over HTTP: a small gateway FOR DEVELOPMENT, not for production.

Reads the route file of the gateway's standalone mode (apisix.yaml), and again when it
changes, and calls a host's plugins over the same protocol as the real gateway. A route that
names no upstream has a built-in one, which answers with what it got.

  plugin-host gateway --routes apisix.yaml --plugin-dir plugins --print-calls
  curl -i http://127.0.0.1:9080/hello

With --plugin-dir it starts a host of its own, starts it again when it ends, and stops it at
the end. With --socket it calls one that runs already.";

const AFTER_HELP: &str = "\
Standard output has one line for each request, and with --print-calls a block for each plugin
call; standard error has the log, and that of a host that was started. NO_COLOR takes the
colours away.

Where it differs from the real gateway: docs/gateway.md.
Exit codes: 0 it worked, 1 it did not, 2 a flag or the configuration is wrong.";

/// Serve HTTP as a gateway would, for development
#[derive(Debug, Args)]
#[command(long_about = LONG_ABOUT, after_help = AFTER_HELP)]
pub(super) struct GatewayArgs {
    /// Route file of the gateway's standalone mode
    #[arg(long, value_name = "FILE")]
    routes: PathBuf,

    /// Address and port for HTTP; any but a loopback address lets others in
    #[arg(long, value_name = "ADDRESS:PORT", default_value_t = SocketAddr::from((Ipv4Addr::LOCALHOST, 9080)))]
    listen: SocketAddr,

    /// Socket of a host that is running [default: APISIX_LISTEN_ADDRESS]
    #[arg(long, value_name = "PATH", conflicts_with = "plugin_dir")]
    socket: Option<PathBuf>,

    /// Start a host that serves the plugins of this directory
    #[arg(long, value_name = "DIR")]
    plugin_dir: Option<PathBuf>,

    /// Environment variable that the host is to have, as `nginx_config.envs` of the real gateway
    #[arg(long = "env", value_name = "NAME", requires = "plugin_dir")]
    envs: Vec<String>,

    /// Show each plugin call and what it changes
    #[arg(long)]
    print_calls: bool,

    /// Size of a body, in bytes, at most: a request's, or a response's that plugins look at
    #[arg(long, value_name = "BYTES", default_value_t = 16 << 20)]
    max_body_bytes: usize,

    /// Connections of clients at the same time, at most; further ones wait
    #[arg(long, value_name = "NUMBER", default_value_t = 256, value_parser = at_least_one)]
    max_connections: usize,

    /// What is logged: error, warn, info, debug, trace, or directives per module
    #[arg(long, value_name = "FILTER", default_value = "info")]
    log: String,

    /// Further arguments for the `plugin-host run` that is started
    #[arg(last = true, value_name = "RUN ARGUMENTS", requires = "plugin_dir")]
    run_arguments: Vec<OsString>,
}

fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(number) if (1..=100_000).contains(&number) => Ok(number),
        _ => Err("write a number from 1 to 100000".to_owned()),
    }
}

/// Where the host is.
enum Host {
    Running(PathBuf),
    /// In a directory of its own, which goes when this is dropped.
    Own {
        command: Box<HostCommand>,
        _directory: Scratch,
    },
}

pub(super) fn gateway(args: &GatewayArgs) -> u8 {
    // What is created here, the host's socket included, is nobody else's.
    rustix::process::umask(Mode::from_raw_mode(0o077));
    let environment = Environment::of_process();
    let log = LogConfig {
        filter: args.log.clone(),
        format: LogFormat::Text,
        file: None,
        rotation: LogRotation::Never,
        keep_files: 1,
    };
    let logging = match logging::init(&log) {
        Ok(logging) => logging,
        Err(error) => return output::refuse(&error.to_string()),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    let served = match runtime {
        Ok(runtime) => runtime.block_on(serve(args, &environment)),
        Err(error) => Err(output::fail(&format!("cannot start: {error}"))),
    };
    drop(logging);
    served.err().unwrap_or(0)
}

/// Serves until a signal; fails with the exit code, after it has said why.
async fn serve(args: &GatewayArgs, environment: &Environment) -> Result<(), u8> {
    let mut watch =
        Watch::open(&args.routes).map_err(|error| output::refuse(&error.to_string()))?;
    let listener = server::bind(args.listen)
        .await
        .map_err(|error| output::fail(&error.to_string()))?;
    let address = listener.local_addr().unwrap_or(args.listen);
    let mut end = Signals::new().map_err(|error| output::fail(&format!("no signals: {error}")))?;
    let host = host(args, environment).map_err(|reason| output::refuse(&reason))?;
    let options = Options {
        socket: match &host {
            Host::Running(socket) => socket.clone(),
            Host::Own { command, .. } => command.socket.clone(),
        },
        token_expiry: Duration::from_secs(TOKEN_EXPIRY_SECONDS),
        max_body_bytes: args.max_body_bytes,
        max_connections: args.max_connections,
    };
    let show = Show::new(args.print_calls, Paint::of_stdout(environment));
    let routes = Arc::clone(watch.table());
    tell_warnings(routes.warnings());
    let number = routes.routes().len();
    let gateway = Gateway::new(&options, routes, Arc::new(move |event| show.event(&event)));

    let child = match &host {
        Host::Running(_) => None,
        Host::Own { command, .. } => {
            let gateway = Arc::clone(&gateway);
            let child = HostChild::start((**command).clone(), move || gateway.host_has_ended());
            Some(child.map_err(|error| output::fail(&format!("cannot start a host: {error}")))?)
        }
    };
    let there = tokio::select! {
        there = wait_for_host(&gateway, child.is_some()) => there,
        () = end.wait() => return Ok(()),
    };
    if !there {
        tracing::warn!(
            socket = %options.socket.display(),
            "no host listens there yet: calls of plugins get 503 until one does"
        );
    }
    tracing::info!("this gateway is for development, not for production");
    if !address.ip().is_loopback() {
        tracing::warn!("listening on {}: others can reach it", address.ip());
    }
    tracing::info!(routes = number, "listening on http://{address}");

    let routes = {
        let gateway = Arc::clone(&gateway);
        tokio::spawn(async move {
            loop {
                match watch.changed().await {
                    Ok(table) => {
                        tell_warnings(table.warnings());
                        let routes = table.routes().len();
                        tracing::info!(
                            routes,
                            version = table.version(),
                            "the route file was read again"
                        );
                        gateway.replace_routes(Arc::clone(table));
                    }
                    Err(error) => tracing::error!("{error}; the routes stay as they were"),
                }
            }
        })
    };
    server::serve(gateway, listener, async move { end.wait().await }).await;
    routes.abort();
    // Waits for the host, which may take its second.
    drop(child);
    tracing::info!("stopped");
    Ok(())
}

fn tell_warnings(warnings: &[String]) {
    for warning in warnings {
        tracing::warn!("{warning}");
    }
}

/// SIGTERM, SIGINT and SIGQUIT end the gateway.
struct Signals([tokio::signal::unix::Signal; 3]);

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self([
            signal(SignalKind::terminate())?,
            signal(SignalKind::interrupt())?,
            signal(SignalKind::quit())?,
        ]))
    }

    async fn wait(&mut self) {
        let [terminate, interrupt, quit] = &mut self.0;
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            _ = quit.recv() => {}
        }
    }
}

async fn wait_for_host(gateway: &Gateway, just_started: bool) -> bool {
    let patience = if just_started {
        HOST_PATIENCE
    } else {
        Duration::ZERO
    };
    let began = std::time::Instant::now();
    loop {
        if gateway.reaches_host().await {
            return true;
        }
        if began.elapsed() >= patience {
            return false;
        }
        tokio::time::sleep(LOOK_AGAIN_AFTER).await;
    }
}

fn host(args: &GatewayArgs, environment: &Environment) -> Result<Host, String> {
    let Some(plugin_dir) = &args.plugin_dir else {
        return match &args.socket {
            // As the gateway writes it, too.
            Some(path) => Ok(Host::Running(
                match path.to_str().and_then(|path| path.strip_prefix("unix:")) {
                    Some(path) => path.into(),
                    None => path.clone(),
                },
            )),
            None if environment
                .get_os(config::settings::GATEWAY_LISTEN_VARIABLE)
                .is_none() =>
            {
                Err(
                    "which host? start one with --plugin-dir, or give the socket of one that runs \
                     with --socket"
                        .to_owned(),
                )
            }
            None => match config::listen_address(environment) {
                Ok(address) => Ok(Host::Running(address.path().to_owned())),
                Err(errors) => Err(errors.to_string()),
            },
        };
    };
    let directory = Scratch::new(environment)?;
    let mut arguments: Vec<OsString> = vec!["run".into(), "--plugin-dir".into()];
    arguments.push(plugin_dir.into());
    arguments.push("--runtime-dir".into());
    arguments.push(directory.path.clone().into());
    arguments.extend(args.run_arguments.iter().cloned());
    let mut variables = Vec::new();
    for name in ["PATH"]
        .into_iter()
        .chain(args.envs.iter().map(String::as_str))
    {
        if let Some(value) = environment.get_os(name) {
            variables.push((name.into(), value.to_owned()));
        }
    }
    Ok(Host::Own {
        command: Box::new(HostCommand {
            // This program, also where its file has been replaced since.
            program: "/proc/self/exe".into(),
            arguments,
            socket: directory.path.join("host.sock"),
            expiry: TOKEN_EXPIRY_SECONDS,
            environment: variables,
        }),
        _directory: directory,
    })
}

/// A directory for the socket and the private files of the own host.
struct Scratch {
    path: PathBuf,
}

impl Scratch {
    fn new(environment: &Environment) -> Result<Self, String> {
        let above = environment
            .get_os("TMPDIR")
            .map_or_else(|| "/tmp".into(), PathBuf::from);
        // A gateway that was killed has left its own behind, perhaps under our number.
        for number in 0..MAX_LEFT_BEHIND {
            let name = format!("plugin-host-gateway.{}.{number}", std::process::id());
            let path = above.join(name);
            match std::fs::create_dir(&path) {
                Ok(()) => return Ok(Self { path }),
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(format!("cannot create {}: {error}", path.display())),
            }
        }
        Err(format!(
            "cannot create a directory in {}: remove the old plugin-host-gateway.* there",
            above.display()
        ))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.path) {
            tracing::warn!("cannot remove {}: {error}", self.path.display());
        }
    }
}
