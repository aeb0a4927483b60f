//! The development gateway from its plan to its end, for `plugin-host gateway` and `plugin-host dev`.
//!
//! It takes the port first, so that one that is taken is told before anything is started or built.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::Mode;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};

use super::show::Show;
use crate::cli::output::{self, Paint};
use crate::config::{Config, Environment, Flags, LogConfig, LogFormat, LogRotation, settings};
use crate::control;
use crate::gateway::child::{HostChild, HostCommand};
use crate::gateway::routes::watch::Watch;
use crate::gateway::server::{self, Gateway, Options};
use crate::logging;
use crate::runtime_dir::RuntimeDir;

/// What the host is told, as by the real gateway.
const TOKEN_EXPIRY_SECONDS: u64 = 3_600;

/// How long a host that was just started may take until it listens; then requests are served
/// without it.
const HOST_PATIENCE: Duration = Duration::from_secs(10);

/// How often it is tried whether it does.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(10);

/// Directories of killed gateways that had our process number, at most, that are stepped around.
const MAX_LEFT_BEHIND: u32 = 100;

/// What is served, and how.
#[derive(Debug)]
pub(in crate::cli) struct Plan {
    pub(in crate::cli) routes: PathBuf,
    pub(in crate::cli) listen: SocketAddr,
    pub(in crate::cli) print_calls: bool,
    pub(in crate::cli) max_body_bytes: usize,
    pub(in crate::cli) max_connections: usize,
}

/// Where the host is.
pub(in crate::cli) enum Host {
    Running(PathBuf),
    /// In a directory of its own, which goes when this is dropped.
    Own {
        command: Box<HostCommand>,
        scratch: Scratch,
    },
}

/// A gateway that has its port and its routes, and serves nobody yet.
pub(in crate::cli) struct Bound<'p> {
    plan: &'p Plan,
    runtime: Runtime,
    watch: Watch,
    listener: TcpListener,
    end: Signals,
}

/// Sets the log up for as long as a command runs; what the command fails with is its exit code,
/// after it has said why.
pub(in crate::cli) fn with_log(filter: &str, run: impl FnOnce() -> Result<(), u8>) -> u8 {
    // What is created here, the host's socket included, is nobody else's.
    rustix::process::umask(Mode::from_raw_mode(0o077));
    let log = LogConfig {
        filter: filter.to_owned(),
        format: LogFormat::Text,
        file: None,
        access_file: None,
        rotation: LogRotation::Never,
        keep_files: 1,
    };
    let logging = match logging::init(&log) {
        Ok(logging) => logging,
        Err(error) => return output::refuse(&error.to_string()),
    };
    let ran = run();
    drop(logging);
    ran.err().unwrap_or(0)
}

/// Reads the routes and takes the port; fails with the exit code, after it has said why.
pub(in crate::cli) fn bind(plan: &Plan) -> Result<Bound<'_>, u8> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| output::fail(&format!("cannot start: {error}")))?;
    let watch = Watch::open(&plan.routes).map_err(|error| output::refuse(&error.to_string()))?;
    let listener = runtime
        .block_on(server::bind(plan.listen))
        .map_err(|error| output::fail(&error.to_string()))?;
    let in_runtime = runtime.enter();
    let end = Signals::new().map_err(|error| output::fail(&format!("no signals: {error}")))?;
    drop(in_runtime);
    Ok(Bound {
        plan,
        runtime,
        watch,
        listener,
        end,
    })
}

impl Bound<'_> {
    /// Where it listens.
    pub(in crate::cli) fn address(&self) -> SocketAddr {
        self.listener.local_addr().unwrap_or(self.plan.listen)
    }

    /// Serves until a signal; fails with the exit code, after it has said why.
    pub(in crate::cli) fn serve(self, host: Host, environment: &Environment) -> Result<(), u8> {
        let address = self.address();
        let Self {
            plan,
            runtime,
            watch,
            listener,
            end,
        } = self;
        runtime.block_on(async {
            let paint = Paint::of_stdout(environment);
            serve(plan, host, paint, watch, listener, address, end).await
        })
    }
}

async fn serve(
    plan: &Plan,
    host: Host,
    paint: Paint,
    mut watch: Watch,
    listener: TcpListener,
    address: SocketAddr,
    mut end: Signals,
) -> Result<(), u8> {
    let options = Options {
        socket: host.socket().to_owned(),
        token_expiry: Duration::from_secs(TOKEN_EXPIRY_SECONDS),
        max_body_bytes: plan.max_body_bytes,
        max_connections: plan.max_connections,
    };
    let show = Show::new(plan.print_calls, paint);
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
    if let Host::Own { scratch, .. } = &host {
        let place = scratch.path().display();
        tracing::info!("to look into the host: plugin-host status --runtime-dir {place}");
    }

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

impl Host {
    /// One that is started for these plugins, with its socket and private files in `scratch`.
    /// `envs` names the variables that it gets.
    pub(in crate::cli) fn own(
        scratch: Scratch,
        plugin_dir: &Path,
        envs: &[String],
        run_arguments: &[OsString],
        environment: &Environment,
    ) -> Self {
        let mut arguments: Vec<OsString> = vec!["run".into(), "--plugin-dir".into()];
        arguments.push(plugin_dir.into());
        arguments.push("--runtime-dir".into());
        arguments.push(scratch.path().into());
        arguments.extend(run_arguments.iter().cloned());
        let mut variables = Vec::new();
        for name in ["PATH"].into_iter().chain(envs.iter().map(String::as_str)) {
            if let Some(value) = environment.get_os(name) {
                variables.push((name.into(), value.to_owned()));
            }
        }
        Self::Own {
            command: Box::new(HostCommand {
                // This program, also where its file has been replaced since.
                program: "/proc/self/exe".into(),
                arguments,
                socket: scratch.socket(),
                expiry: TOKEN_EXPIRY_SECONDS,
                environment: variables,
            }),
            scratch,
        }
    }

    fn socket(&self) -> &Path {
        match self {
            Self::Running(socket) => socket,
            Self::Own { command, .. } => &command.socket,
        }
    }
}

/// A directory for the socket and the private files of the own host.
#[derive(Debug)]
pub(in crate::cli) struct Scratch {
    path: PathBuf,
}

impl Scratch {
    pub(in crate::cli) fn new(command: &str, environment: &Environment) -> Result<Self, String> {
        let above = environment
            .get_os("TMPDIR")
            .map_or_else(|| "/tmp".into(), PathBuf::from);
        // A gateway that was killed has left its own behind, perhaps under our number.
        for number in 0..MAX_LEFT_BEHIND {
            let name = format!("plugin-host-{command}.{}.{number}", std::process::id());
            let path = above.join(name);
            match std::fs::create_dir(&path) {
                Ok(()) => return Ok(Self { path }),
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(format!("cannot create {}: {error}", path.display())),
            }
        }
        Err(format!(
            "cannot create a directory in {}: remove the old plugin-host-{command}.* there",
            above.display()
        ))
    }

    pub(in crate::cli) fn path(&self) -> &Path {
        &self.path
    }

    /// Where the own host can be asked what it serves.
    pub(in crate::cli) fn control_socket(&self) -> Result<PathBuf, String> {
        let path = |path: &Path| path.display().to_string();
        // As the host itself makes it out, which has no other variables than we give it.
        let flags = Flags::new()
            .with(&settings::LISTEN, path(&self.socket()))
            .with(&settings::RUNTIME_DIR, path(&self.path));
        let config = Config::load(&flags, &Environment::empty());
        let config = config.map_err(|error| error.to_string())?;
        let place = RuntimeDir::place_of(&config.runtime_dir, config.listen.path());
        Ok(control::socket_path(&place))
    }

    /// The socket of the own host.
    fn socket(&self) -> PathBuf {
        self.path.join("host.sock")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.path) {
            tracing::warn!("cannot remove {}: {error}", self.path.display());
        }
    }
}
