//! `plugin-host dev`: builds a plugin's crate whenever it changes, and serves the last good build
//! behind the development gateway.
//!
//! Building is cargo's affair and upgrading the host's: a new build is put into a plugin directory
//! of its own, and the host does there what it does in production. A thread builds; the gateway serves
//! beside it.

mod cargo;
mod sources;
mod staged;

use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use hyper::Method;
use serde_json::Value;

use super::gateway::serve::{self, Host, Plan, Scratch};
use super::gateway::{LISTEN, MAX_BODY_BYTES, MAX_CONNECTIONS};
use super::output;
use crate::config::Environment;
use crate::control::client::{self, Target};
use crate::plugin::metadata::Digest;
use cargo::{Builder, Crate};
use sources::Sources;
use staged::Staged;

/// The route file of a crate.
const ROUTES: &str = "apisix.yaml";

/// How long a host that was just started may take until it can be asked.
const HOST_PATIENCE: Duration = Duration::from_secs(10);

/// How often it is tried whether it can.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(20);

const LONG_ABOUT: &str = "\
Work on a plugin: build its crate when it changes, and serve the last good build over HTTP.

Builds with cargo, loads the library into a host of its own, and serves the routes of the
crate's apisix.yaml (everything through the plugin, where there is none) on a local port, FOR
DEVELOPMENT. A build that fails, or does not load, is told, and changes nothing.

  plugin-host new hello
  plugin-host dev hello
  curl -i http://127.0.0.1:9080/hello";

const AFTER_HELP: &str = "\
Standard output has one line for each request, and a block for each plugin call; standard error
has the words of cargo, the log, and that of the host. Ctrl-C ends all of it.

Exit codes: 0 it worked, 1 it did not, 2 a flag or the configuration is wrong.";

/// Build a plugin when it changes, and serve it, for development
#[derive(Debug, Args)]
#[command(long_about = LONG_ABOUT, after_help = AFTER_HELP)]
pub(super) struct DevArgs {
    /// Directory of the plugin's crate
    #[arg(value_name = "DIR", default_value = ".")]
    directory: PathBuf,

    /// Address and port for HTTP; any but a loopback address lets others in
    #[arg(long, value_name = "ADDRESS:PORT", default_value_t = LISTEN)]
    listen: SocketAddr,

    /// Route file [default: the crate's apisix.yaml]
    #[arg(long, value_name = "FILE")]
    routes: Option<PathBuf>,

    /// Build as for production: slower to build, and as fast as it will be
    #[arg(long)]
    release: bool,

    /// Environment variable that the host is to have, as `nginx_config.envs` of the real gateway
    #[arg(long = "env", value_name = "NAME")]
    envs: Vec<String>,

    /// What is logged: error, warn, info, debug, trace, or directives per module
    #[arg(long, value_name = "FILTER", default_value = "info")]
    log: String,

    /// Further arguments for the `plugin-host run` that is started
    #[arg(last = true, value_name = "RUN ARGUMENTS")]
    run_arguments: Vec<OsString>,
}

pub(super) fn dev(args: &DevArgs) -> u8 {
    let environment = Environment::of_process();
    serve::with_log(&args.log, || serve_builds(args, &environment))
}

fn serve_builds(args: &DevArgs, environment: &Environment) -> Result<(), u8> {
    let refuse = |reason: String| output::refuse(&reason);
    let fail = |reason: String| output::fail(&reason);
    let plugin = Crate::read(&args.directory, args.release).map_err(refuse)?;
    let scratch = Scratch::new("dev", environment).map_err(fail)?;
    let plugin_dir = scratch.path().join("plugins");
    let staged = Staged::new(&plugin_dir).map_err(|error| fail(error.to_string()))?;
    let plan = Plan {
        routes: routes(args, &plugin, scratch.path()).map_err(fail)?,
        listen: args.listen,
        print_calls: true,
        max_body_bytes: MAX_BODY_BYTES,
        max_connections: MAX_CONNECTIONS,
    };
    let bound = serve::bind(&plan)?;
    let (sources, stop) =
        Sources::watch(&plugin.sources, &plugin.target_directory).map_err(|error| {
            fail(format!(
                "cannot watch {}: {error}",
                plugin.directory.display()
            ))
        })?;
    let builder = Arc::new(Builder::default());
    let builds = Builds {
        url: format!("http://{}", bound.address()),
        control: Target::Socket(scratch.control_socket().map_err(fail)?),
        plugin,
        staged,
        builder: Arc::clone(&builder),
        number: 0,
        serving: None,
    };
    let thread = thread::Builder::new()
        .name("builds".to_owned())
        .spawn(move || builds.go_on(sources))
        .map_err(|error| fail(format!("cannot start a thread: {error}")))?;
    let host = Host::own(
        scratch,
        &plugin_dir,
        &args.envs,
        &args.run_arguments,
        environment,
    );
    let served = bound.serve(host, environment);
    builder.stop();
    stop.stop();
    // It waits for nothing but a build, which has just been ended, or a host that is gone.
    let _ = thread.join();
    served
}

/// The crate's route file, or one that has everything go through the plugin.
fn routes(args: &DevArgs, plugin: &Crate, scratch: &Path) -> Result<PathBuf, String> {
    if let Some(routes) = &args.routes {
        return Ok(routes.clone());
    }
    let own = plugin.directory.join(ROUTES);
    if own.exists() {
        return Ok(own);
    }
    let written = scratch.join(ROUTES);
    fs::write(&written, staged::default_routes(plugin))
        .map_err(|error| format!("{}: {error}", written.display()))?;
    tracing::info!(
        "{} has no {ROUTES}: every request goes through the plugin, with the configuration {{}}",
        plugin.directory.display()
    );
    Ok(written)
}

/// Builds, and what became of them.
struct Builds {
    plugin: Crate,
    staged: Staged,
    builder: Arc<Builder>,
    /// Where the host can be asked what it serves.
    control: Target,
    url: String,
    /// Builds so far that were different from the one before.
    number: u32,
    /// What serves, for people.
    serving: Option<String>,
}

impl Builds {
    /// Builds now, and after each change, until it is told to stop.
    fn go_on(mut self, mut sources: Sources) {
        // One thread, one request at a time.
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        let Ok(runtime) = runtime else { return };
        tracing::info!(
            "building {}; its first build will serve on {}",
            self.plugin.name,
            self.url
        );
        loop {
            let began = Instant::now();
            match self.builder.build(&self.plugin) {
                Ok(Some(library)) => runtime.block_on(self.built(&library, began)),
                Ok(None) if self.builder.is_stopped() => return,
                Ok(None) => self.tell_failure("the build failed, as cargo says above"),
                Err(reason) => self.tell_failure(&reason),
            }
            if !sources.changed() {
                return;
            }
        }
    }

    /// Puts a build into the host's plugin directory and sees what the host makes of it.
    async fn built(&mut self, library: &Path, began: Instant) {
        match self.staged.put(&self.plugin, library) {
            Ok(true) => {}
            Ok(false) => return self.tell_unchanged(),
            Err(reason) => return self.tell_failure(&reason),
        }
        self.number += 1;
        match self.load().await {
            Ok(version) => {
                let number = self.number;
                let took = began.elapsed();
                tracing::info!(
                    "build {number} of {} {version} serves on {} after {:.1} s",
                    self.plugin.name,
                    self.url,
                    took.as_secs_f64()
                );
                self.serving = Some(format!("build {number} ({version})"));
            }
            Err(reason) => {
                let number = self.number;
                if !self.builder.is_stopped() {
                    self.tell_failure(&format!("build {number} does not load: {reason}"));
                }
            }
        }
    }

    /// Has the host look at its directory now; the version of the new build, once it serves.
    async fn load(&self) -> Result<String, String> {
        let reloaded = self.ask(Method::POST, "/v1/rescan").await?;
        let status = self.ask(Method::GET, "/v1/plugins").await?;
        let digest = Digest::of(self.staged.library()).to_string();
        let plugins = status["plugins"].as_array();
        let mut plugins = plugins.into_iter().flatten();
        // It may have been loaded before it was asked for.
        let serving = plugins.find(|plugin| plugin["digest"].as_str() == Some(&digest));
        if let Some(version) = serving.and_then(|plugin| plugin["serving"].as_str()) {
            return Ok(version.to_owned());
        }
        let problems = reloaded["problems"].as_array();
        let problems = problems.into_iter().flatten().filter_map(Value::as_str);
        let mut said = String::new();
        for problem in problems {
            let _ = write!(said, "{}{problem}", if said.is_empty() { "" } else { "; " });
        }
        match said.is_empty() {
            true => Err("the host's log tells why".to_owned()),
            false => Err(said),
        }
    }

    async fn ask(&self, method: Method, target: &str) -> Result<Value, String> {
        let began = Instant::now();
        loop {
            match client::ask(&self.control, method.clone(), target, None).await {
                Ok(answer) => return Ok(answer),
                // The first build may be faster than the host.
                Err(client::ControlError::NoHost { .. })
                    if began.elapsed() < HOST_PATIENCE && !self.builder.is_stopped() =>
                {
                    tokio::time::sleep(LOOK_AGAIN_AFTER).await;
                }
                Err(error) => return Err(error.to_string()),
            }
        }
    }

    fn tell_unchanged(&self) {
        if let Some(serving) = &self.serving {
            tracing::info!("nothing new: {serving} serves on");
        }
    }

    fn tell_failure(&self, reason: &str) {
        match &self.serving {
            Some(serving) => tracing::error!("{reason}; {serving} serves on"),
            None => tracing::error!("{reason}; nothing serves yet"),
        }
    }
}
