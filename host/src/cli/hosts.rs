//! Which running host is meant: by its control socket or address, by where it listens, by its plugin
//! directory, or the only one that there is.

use std::{
    fmt::Write as _,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::{Args, ValueEnum};
use hyper::Method;
use serde_json::Value;

use super::output::{self, Colours, Paint};
use crate::{
    config::{self, Environment, Flags, ListenAddress, settings},
    control::{
        self,
        client::{self, ControlError, Target},
    },
    runtime_dir::RuntimeDir,
};

/// What a host is.
const HOST: &str = "/v1/host";

/// How long a host may take to say what it is.
const LOOK_TIME: Duration = Duration::from_secs(3);

/// Which host is meant, and how its answer is shown.
#[derive(Debug, Args)]
pub(super) struct Host {
    #[command(flatten)]
    pub(super) which: Which,
    /// Give the host's answer as JSON
    #[arg(long)]
    pub(super) json: bool,
    /// Colours: where standard output is a terminal without NO_COLOR, or as said
    #[arg(long, value_enum, value_name = "WHEN", default_value_t = When::Auto)]
    color: When,
}

/// Which host is meant.
#[derive(Debug, Args)]
pub(super) struct Which {
    /// The address that the host listens on [default: $APISIX_LISTEN_ADDRESS, or the only host that runs]
    #[arg(long, value_name = "ADDRESS")]
    pub(super) listen: Option<String>,
    /// The host's plugin directory, in place of its address
    #[arg(long, value_name = "DIR", conflicts_with = "listen")]
    pub(super) plugin_dir: Option<PathBuf>,
    /// The host's --runtime-dir, where it was given one
    #[arg(long, value_name = "DIR")]
    pub(super) runtime_dir: Option<String>,
    /// The control socket itself, or the IP:PORT of --control-listen, in place of the three above
    #[arg(long, value_name = "PATH|IP:PORT", conflicts_with_all = ["listen", "plugin_dir", "runtime_dir"])]
    pub(super) control: Option<String>,
    /// File with the token for the IP:PORT of --control
    #[arg(long, value_name = "FILE", requires = "control")]
    control_token_file: Option<PathBuf>,
}

/// When there are colours.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum When {
    Auto,
    Always,
    Never,
}

/// List the hosts that run
///
/// Those of this user, or of --runtime-dir, each with its process, the address that it listens on, and
/// its plugin directory. The others' commands find one of them by any of these.
#[derive(Debug, Args)]
#[command(after_help = super::HELP)]
pub(super) struct HostsArgs {
    /// Only hosts with this plugin directory
    #[arg(long, value_name = "DIR")]
    plugin_dir: Option<PathBuf>,
    /// The hosts' --runtime-dir, where they were given one
    #[arg(long, value_name = "DIR")]
    runtime_dir: Option<String>,
    /// Give a list as JSON, with what each host says of itself
    #[arg(long)]
    json: bool,
}

/// No single host is meant, and what to do.
#[derive(Debug)]
pub(super) enum NotFound {
    /// What was asked for is wrong.
    Usage(String),
    /// There is none.
    Nobody(String),
}

impl NotFound {
    /// Says so; gives the exit code.
    pub(super) fn complain(&self) -> u8 {
        match self {
            Self::Usage(reason) => output::refuse(reason),
            Self::Nobody(reason) => output::fail(reason),
        }
    }
}

/// A host that runs.
pub(super) struct Running {
    pub(super) target: Target,
    /// What it says of itself.
    pub(super) facts: Value,
}

pub(super) fn hosts(args: &HostsArgs) -> u8 {
    let environment = Environment::of_process();
    let found = runtime_dir_of(args.runtime_dir.as_deref(), &environment)
        .and_then(|parent| run(running_below(&parent)).map_err(NotFound::Nobody));
    let mut found = match found {
        Ok(found) => found,
        Err(error) => return error.complain(),
    };
    if let Some(wanted) = &args.plugin_dir {
        found.retain(|host| has_plugin_dir(&host.facts, wanted));
    }
    if args.json {
        let list: Vec<Value> = found.into_iter().map(|host| host.facts).collect();
        return output::print(&format!("{:#}\n", Value::Array(list)));
    }
    if found.is_empty() {
        return output::print("no host runs\n");
    }
    output::print(&lines(&found))
}

impl Host {
    /// Colours for what is shown of the answer.
    pub(super) fn paint(&self) -> Paint {
        let colours = match self.color {
            When::Auto => Colours::WhereTheyShow,
            When::Always => Colours::Always,
            When::Never => Colours::Never,
        };
        Paint::new(colours, &Environment::of_process())
    }

    /// Asks for one thing, and shows the answer.
    pub(super) fn ask(&self, method: Method, path: &str, show: impl Fn(&Value) -> String) -> u8 {
        self.which.ask_with(async |target| {
            let answer = client::ask(target, method, path, None).await?;
            Ok(self.shown(&answer, show))
        })
    }

    /// An answer as it is to be shown.
    pub(super) fn shown(&self, answer: &Value, show: impl Fn(&Value) -> String) -> String {
        match self.json {
            true => format!("{answer:#}\n"),
            false => show(answer),
        }
    }
}

impl Which {
    /// Does something with the host that is meant.
    pub(super) fn ask_with(
        &self,
        ask: impl AsyncFnOnce(&Target) -> Result<String, ControlError>,
    ) -> u8 {
        let target = match self.target() {
            Ok(target) => target,
            Err(error) => return error.complain(),
        };
        match run(ask(&target)) {
            Ok(Ok(answer)) => output::print(&answer),
            Ok(Err(error)) => output::fail(&error.to_string()),
            Err(error) => output::fail(&error),
        }
    }

    /// The host that is meant.
    pub(super) fn target(&self) -> Result<Target, NotFound> {
        if let Some(control) = &self.control {
            return self.named(control);
        }
        let environment = Environment::of_process();
        let parent = runtime_dir_of(self.runtime_dir.as_deref(), &environment)?;
        let usage = |error: &dyn std::fmt::Display| NotFound::Usage(error.to_string());
        let listen = match (&self.listen, &self.plugin_dir) {
            (Some(listen), _) => Some(ListenAddress::parse(listen).map_err(|e| usage(&e))?),
            (None, Some(_)) => None,
            (None, None) if config::says_where_to_listen(&environment) => {
                Some(config::listen_address(&environment).map_err(|e| usage(&e))?)
            }
            (None, None) => None,
        };
        if let Some(listen) = listen {
            let place = RuntimeDir::place_of(&parent, listen.path());
            return Ok(Target::Socket(control::socket_path(&place)));
        }
        let mut found = run(running_below(&parent)).map_err(NotFound::Nobody)?;
        if let Some(wanted) = &self.plugin_dir {
            found.retain(|host| has_plugin_dir(&host.facts, wanted));
        }
        choose(found, self.plugin_dir.as_deref(), &parent)
    }

    fn named(&self, control: &str) -> Result<Target, NotFound> {
        let Ok(address) = control.parse::<SocketAddr>() else {
            return Ok(Target::Socket(control.into()));
        };
        let Some(file) = &self.control_token_file else {
            return Err(NotFound::Usage(
                "--control with an IP:PORT needs the token: give --control-token-file".to_owned(),
            ));
        };
        let token = fs::read_to_string(file)
            .map_err(|error| NotFound::Usage(format!("{}: {error}", file.display())))?;
        Ok(Target::Address {
            address,
            token: token.trim().to_owned(),
        })
    }
}

/// The control socket of the host that listens on an address.
pub(super) fn listening_on(listen: &str, runtime_dir: Option<&str>) -> Result<Target, NotFound> {
    let parent = runtime_dir_of(runtime_dir, &Environment::of_process())?;
    let listen =
        ListenAddress::parse(listen).map_err(|error| NotFound::Usage(error.to_string()))?;
    let place = RuntimeDir::place_of(&parent, listen.path());
    Ok(Target::Socket(control::socket_path(&place)))
}

/// Runs a request on a runtime of its own.
pub(super) fn run<T>(asking: impl Future<Output = T>) -> Result<T, String> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map(|runtime| runtime.block_on(asking))
        .map_err(|error| error.to_string())
}

/// Where the hosts of this user have their directories.
pub(super) fn runtime_dir_of(
    runtime_dir: Option<&str>,
    environment: &Environment,
) -> Result<PathBuf, NotFound> {
    let mut flags = Flags::new();
    if let Some(runtime_dir) = runtime_dir {
        flags = flags.with(&settings::RUNTIME_DIR, runtime_dir);
    }
    config::runtime_dir(&flags, environment).map_err(|error| NotFound::Usage(error.to_string()))
}

/// Every host that answers below a runtime directory, by address.
pub(super) async fn running_below(parent: &Path) -> Vec<Running> {
    let entries = fs::read_dir(parent).into_iter().flatten();
    let sockets = entries
        .filter_map(Result::ok)
        .map(|entry| control::socket_path(&entry.path()));
    let asking = sockets
        .filter(|socket| socket.exists())
        .map(|socket| async {
            let target = Target::Socket(socket);
            let asked = client::ask(&target, Method::GET, HOST, None);
            // Whoever does not answer is no host that could be asked for anything.
            let facts = tokio::time::timeout(LOOK_TIME, asked).await.ok()?.ok()?;
            Some(Running { target, facts })
        });
    let mut found: Vec<Running> = futures_util::future::join_all(asking)
        .await
        .into_iter()
        .flatten()
        .collect();
    found.sort_by(|one, other| {
        let listen = |host: &Running| host.facts["listen"].as_str().map(str::to_owned);
        listen(one).cmp(&listen(other))
    });
    found
}

pub(super) fn has_plugin_dir(facts: &Value, wanted: &Path) -> bool {
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let of_host = facts["plugin_dir"].as_str().unwrap_or_default();
    real(Path::new(of_host)) == real(wanted)
}

fn choose(
    mut found: Vec<Running>,
    plugin_dir: Option<&Path>,
    parent: &Path,
) -> Result<Target, NotFound> {
    let of = plugin_dir.map_or_else(String::new, |directory| {
        format!(" with the plugin directory {}", directory.display())
    });
    match found.len() {
        0 => Err(NotFound::Nobody(format!(
            "no host{of} answers below {}; is it running, as this user, and with this \
             --runtime-dir?",
            parent.display()
        ))),
        1 => Ok(found.remove(0).target),
        number => Err(NotFound::Usage(format!(
            "{number} hosts{of} run: say which with --listen\n{}",
            lines(&found)
        ))),
    }
}

fn lines(hosts: &[Running]) -> String {
    hosts.iter().fold(String::new(), |mut lines, host| {
        let text = |key: &str| host.facts[key].as_str().unwrap_or("?").to_owned();
        let _ = writeln!(
            lines,
            "--listen {}  process {}, release {}, plugins in {}",
            output::shown(text("listen").as_bytes()),
            host.facts["pid"],
            text("release"),
            output::shown(text("plugin_dir").as_bytes()),
        );
        lines
    })
}
