//! Everything that `plugin-host run` can be told, read from all of its sources and checked: the
//! one value that the rest of the program is built from.
//!
//! Flags win over the environment, that over the configuration file, and that over defaults; the
//! table of [`settings`] names them all. This module is the only reader of the environment. It
//! never acts on what it reads: it binds, creates and changes nothing.

mod control;
mod effective;
pub mod hooks;
mod http_client;
mod http_services;
mod layers;
mod limits;
mod listen_address;
mod log;
mod plugins;
pub mod reference;
mod references;
pub mod settings;
mod source;
mod sources;
mod trust;
mod value;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use layers::Layers;
use source::File;
use value::Written;

pub use control::{ControlConfig, ServiceManager};
pub use effective::{Effective, InForce};
pub use http_services::{HttpAddress, HttpServicesConfig};
pub use limits::Limits;
pub use listen_address::{ListenAddress, MAX_PATH_BYTES};
pub use log::{LogConfig, LogFormat, LogRotation, check_filter};
pub use plugins::{PluginTable, SettingsError};
pub use references::ReferenceError;
pub use source::{Environment, Flags, Origin};
pub use sources::OfSources;

use crate::plugin::{registry::Requested, settings::Operator, signature::Trust};
use crate::privileges::{Restrictions, RunAs, find_group};
pub use crate::server::ResponseFailure;

/// Most bytes of data that a frame can have: its length travels in three bytes.
const MAX_FRAME_BYTES: u64 = (1 << 24) - 1;

/// The checked configuration of one host.
#[derive(Debug)]
pub struct Config {
    /// Where to listen.
    pub listen: ListenAddress,
    /// How long the gateway uses a configuration that it prepared.
    pub conf_expire_time: Duration,
    /// Directory with one directory per plugin; absolute.
    pub plugin_dir: PathBuf,
    /// How often the plugin directory is looked at without being told to.
    pub rescan_interval: Duration,
    /// Whether plugins are tried out in a throw-away process before they are loaded.
    pub rehearse: bool,
    /// Whether a second worker waits beside the one that serves.
    pub standby: bool,
    /// What the process that runs plugins gives up.
    pub restrictions: Restrictions,
    /// Whether plugins are refused whose files others could change.
    pub strict_permissions: bool,
    /// Who has to vouch for plugins.
    pub trust: Arc<Trust>,
    /// Directory of all hosts of this user, to be made with mode 0700; absolute.
    pub runtime_dir: PathBuf,
    /// Permissions of the socket file.
    pub socket_mode: u32,
    /// How many connections may wait to be accepted.
    pub backlog: u32,
    /// Threads that serve connections.
    pub event_loops: usize,
    /// Most threads for plugins that block.
    pub blocking_threads: usize,
    /// Whether to go on when standard input ends.
    pub ignore_stdin: bool,
    /// Whether each response call asks for the request's method.
    pub ask_method_for_head: bool,
    /// What a response call gets whose plugins failed closed.
    pub response_failure: ResponseFailure,
    /// Bounds on what clients and plugins can make the host use.
    pub limits: Limits,
    /// HTTP services of plugins.
    pub http_services: HttpServicesConfig,
    /// The client with which plugins call other services.
    pub http_client: crate::http_client::Settings,
    /// Why its roots of trust are fewer than the operator wants; only in a worker.
    pub roots_problem: Option<String>,
    /// Who hears of what happens to plugins.
    pub hooks: hooks::HooksConfig,
    /// What is logged, how, and where to.
    pub log: LogConfig,
    /// Where operators and probes are answered beside the control socket.
    pub control: ControlConfig,
    /// Plugins without which the host is not ready.
    pub require: Vec<Requested>,
    /// Who started the host and wants to hear how it is; absent where nobody does.
    pub service_manager: Option<ServiceManager>,
    /// The operator's word on single plugins.
    pub plugins: PluginTable,
    effective: Effective,
    file: Option<ReadFile>,
}

/// What a command that loads plugins without a host has to know.
#[derive(Debug)]
pub struct OfPlugins {
    /// Directory with one directory per plugin; absolute.
    pub directory: PathBuf,
    /// The operator's word on single plugins.
    pub operator: Operator,
    /// The client with which they call other services.
    pub http_client: crate::http_client::Settings,
    /// Who has to vouch for them.
    pub trust: Arc<Trust>,
}

/// What becomes of a file that a setting names and that cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Files {
    /// It is a mistake.
    Needed,
    /// It is left out.
    AsFound,
}

/// A configuration file as it was read.
struct ReadFile {
    path: PathBuf,
    text: String,
}

impl fmt::Debug for ReadFile {
    /// The name only: the text is where secrets live.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.path.fmt(f)
    }
}

/// One thing that is wrong with the configuration; the operator's to put right.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// No source says where to listen.
    #[error(
        "no address to listen on: the gateway gives it as APISIX_LISTEN_ADDRESS; by hand, give --listen /absolute/path"
    )]
    NoListenAddress,
    /// A source gives a value that its setting cannot have.
    #[error("{origin}: {reason}")]
    Invalid {
        /// The source, as the operator knows it.
        origin: Origin,
        /// What is wrong with the value.
        reason: String,
    },
    /// Two settings do not go together.
    #[error("`{first}` and `{second}`: {reason}")]
    Contradiction {
        /// Key of the one.
        first: &'static str,
        /// Key of the other.
        second: &'static str,
        /// Why not.
        reason: String,
    },
    /// An environment variable that is read is not UTF-8.
    #[error("{variable}: its value is not UTF-8 text")]
    NotUnicode {
        /// Name of the variable.
        variable: String,
    },
    /// The file has a key that means nothing.
    #[error("{}: unknown key `{key}`{}", path.display(), did_you_mean(*suggestion))]
    UnknownKey {
        /// The configuration file.
        path: PathBuf,
        /// The key, with its table.
        key: String,
        /// The key that was probably meant.
        suggestion: Option<&'static str>,
    },
    /// The file cannot be read.
    #[error("{}: {source}", path.display())]
    UnreadableFile {
        /// The configuration file.
        path: PathBuf,
        /// The operating system's reason.
        source: std::io::Error,
    },
    /// The file is larger than any configuration.
    #[error("{}: more than {bound} bytes", path.display())]
    FileTooLarge {
        /// The configuration file.
        path: PathBuf,
        /// Most bytes that are read.
        bound: u64,
    },
    /// The file is not TOML.
    #[error("{}, line {line}: {reason}", path.display())]
    MalformedFile {
        /// The configuration file.
        path: PathBuf,
        /// Line of the first mistake, from 1.
        line: usize,
        /// What the parser expected.
        reason: String,
    },
}

fn did_you_mean(suggestion: Option<&str>) -> String {
    suggestion.map_or_else(String::new, |key| format!("; did you mean `{key}`?"))
}

/// Everything that is wrong with a configuration, one line each.
#[derive(Debug, thiserror::Error)]
pub struct ConfigErrors(pub Vec<ConfigError>);

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            write!(f, "{error}")?;
        }
        Ok(())
    }
}

impl Config {
    /// Reads and checks the configuration of a host that is going to run.
    ///
    /// # Errors
    /// Everything that is wrong in any source, all at once. References in a plugin's settings
    /// that lead nowhere are not among it: they are kept with their plugin, in
    /// [`Config::plugins`].
    pub fn load(flags: &Flags, environment: &Environment) -> Result<Self, ConfigErrors> {
        Self::read(flags, environment, None, Files::Needed)
    }

    /// Reads the configuration again, in a worker of a host that has checked it. A file of root
    /// certificates that cannot be read any more is left out ([`Config::roots_problem`]): without it
    /// some servers are not trusted, without a worker nothing is served.
    ///
    /// # Errors
    /// As for [`Config::load`].
    pub fn load_again(flags: &Flags, environment: &Environment) -> Result<Self, ConfigErrors> {
        Self::read(flags, environment, None, Files::AsFound)
    }

    /// Checks the configuration of a host without running it. That nobody says where to listen
    /// is no mistake then, since the gateway will.
    ///
    /// # Errors
    /// As for [`Config::load`].
    pub fn check(flags: &Flags, environment: &Environment) -> Result<Effective, ConfigErrors> {
        let config = Self::read(flags, environment, Some(stand_in()), Files::Needed)?;
        Ok(config.effective)
    }

    /// Reads where plugins lie, what the operator says about them, and what they get from a host, for a
    /// command that loads them without one.
    ///
    /// # Errors
    /// As for [`Config::load`].
    pub fn plugins(flags: &Flags, from: &Environment) -> Result<OfPlugins, ConfigErrors> {
        let config = Self::read(flags, from, Some(stand_in()), Files::Needed)?;
        Ok(OfPlugins {
            directory: config.plugin_dir,
            operator: config.plugins.to_operator(),
            http_client: config.http_client,
            trust: config.trust,
        })
    }

    /// The configuration file that was read and its text, which may hold secrets.
    pub fn file(&self) -> Option<(&Path, &str)> {
        let file = self.file.as_ref()?;
        Some((&file.path, &file.text))
    }

    /// The configuration in force as text, without secrets.
    pub fn effective(&self) -> &Effective {
        &self.effective
    }

    fn read(
        flags: &Flags,
        environment: &Environment,
        stand_in: Option<ListenAddress>,
        files: Files,
    ) -> Result<Self, ConfigErrors> {
        let mut problems = Vec::new();
        let file = read_file(flags, environment, &mut problems);
        let mut layers = Layers {
            flags,
            environment,
            file,
            effective: Effective::default(),
            problems,
        };

        let listen = read_listen(&mut layers, stand_in);
        let blocking_threads = layers.value(&settings::BLOCKING_THREADS, whole(1, 1_024));
        let limits = limits::read(&mut layers, blocking_threads);
        let http_services = http_services::read(&mut layers);
        let (http_client, roots_problem) = http_client::read(&mut layers, files);
        let hooks = hooks::read(&mut layers);
        let log = log::read(&mut layers);
        let control = control::read(&mut layers);
        let require = control::read_require(&mut layers);
        let conf_expire_time = read_conf_expire_time(&mut layers);
        let runtime_dir = read_runtime_dir(&mut layers);
        let event_loops = read_event_loops(&mut layers);
        let plugin_dir = layers.value(&settings::PLUGIN_DIR, value::path);
        let rescan_interval = layers.value(&settings::RESCAN_INTERVAL, |written| {
            value::duration(
                written,
                Duration::from_millis(100)..=Duration::from_secs(3_600),
            )
        });
        let rehearse = layers.value(&settings::REHEARSE, value::switch);
        let standby = layers.value(&settings::STANDBY, value::switch);
        let restrictions = read_restrictions(&mut layers);
        let strict_permissions = layers.value(&settings::STRICT_PERMISSIONS, value::switch);
        let trust = trust::read(&mut layers, files);
        let socket_mode = layers.value(&settings::SOCKET_MODE, value::mode);
        let backlog = layers.value(&settings::BACKLOG, whole(1, 65_535));
        let ignore_stdin = layers.value(&settings::IGNORE_STDIN, value::switch);
        let ask_method_for_head = layers.value(&settings::ASK_METHOD_FOR_HEAD, value::switch);
        let response_failure = layers.value(&settings::RESPONSE_FAILURE, |written| {
            value::choice(
                written,
                &[
                    ("status_503", ResponseFailure::Status503),
                    ("error_frame", ResponseFailure::ErrorFrame),
                ],
            )
        });

        let Layers {
            file,
            mut effective,
            mut problems,
            ..
        } = layers;
        let plugins = PluginTable::read(&file.plugins, &file.path, environment, &mut problems);
        let unusable = plugins
            .iter()
            .filter_map(|(_, settings)| settings.err())
            .map(ToString::to_string)
            .collect();
        effective.record_plugins(&file.plugins, unusable);
        effective.record_warnings(
            environment
                .unknown_names()
                .into_iter()
                .map(|name| format!("{name} is set and means nothing to this version"))
                .collect(),
        );

        match listen {
            Some(listen) if problems.is_empty() => Ok(Self {
                listen,
                conf_expire_time,
                plugin_dir,
                rescan_interval,
                rehearse,
                standby,
                restrictions,
                strict_permissions,
                trust,
                runtime_dir,
                socket_mode,
                backlog,
                event_loops,
                blocking_threads,
                ignore_stdin,
                ask_method_for_head,
                response_failure,
                limits,
                http_services,
                http_client,
                roots_problem,
                hooks,
                log,
                control,
                require,
                service_manager: ServiceManager::of(environment),
                plugins,
                effective,
                file: (!file.path.as_os_str().is_empty()).then_some(ReadFile {
                    path: file.path,
                    text: file.text,
                }),
            }),
            _ => Err(ConfigErrors(problems)),
        }
    }
}

fn stand_in() -> ListenAddress {
    ListenAddress::parse("unix:/given/by/the/gateway.sock")
        .expect("the stand-in is a short absolute path")
}

/// Whether this environment says where a host listens.
pub fn says_where_to_listen(environment: &Environment) -> bool {
    let own = settings::LISTEN.variable();
    let names = [own.as_str(), settings::GATEWAY_LISTEN_VARIABLE];
    names.iter().any(|name| environment.get_os(name).is_some())
}

/// Where a host in this environment listens: for commands that talk to a running one.
///
/// # Errors
/// No variable says it, or one says it wrongly.
pub fn listen_address(environment: &Environment) -> Result<ListenAddress, ConfigErrors> {
    let mut layers = Layers {
        flags: &Flags::new(),
        environment,
        file: File::default(),
        effective: Effective::default(),
        problems: Vec::new(),
    };
    read_listen(&mut layers, None).ok_or(ConfigErrors(layers.problems))
}

/// Where the hosts of this user have their directories: for commands that look for running ones.
///
/// # Errors
/// A source says it wrongly.
pub fn runtime_dir(flags: &Flags, environment: &Environment) -> Result<PathBuf, ConfigErrors> {
    let mut problems = Vec::new();
    let file = read_file(flags, environment, &mut problems);
    let mut layers = Layers {
        flags,
        environment,
        file,
        effective: Effective::default(),
        problems,
    };
    let runtime_dir = read_runtime_dir(&mut layers);
    match layers.problems.is_empty() {
        true => Ok(runtime_dir),
        false => Err(ConfigErrors(layers.problems)),
    }
}

/// A file that cannot be read is noted and counts as empty, so that the other sources are checked.
fn read_file(flags: &Flags, environment: &Environment, problems: &mut Vec<ConfigError>) -> File {
    let path = flags.config_file().map(PathBuf::from).or_else(|| {
        environment
            .get_os(settings::CONFIG_FILE_VARIABLE)
            .map(PathBuf::from)
    });
    let read = path.map_or_else(
        || Ok(File::default()),
        |path| File::read(&path, flags.config_copy(), problems),
    );
    read.unwrap_or_else(|problem| {
        problems.push(problem);
        File::default()
    })
}

fn read_listen(layers: &mut Layers<'_>, stand_in: Option<ListenAddress>) -> Option<ListenAddress> {
    let before = layers.problems.len();
    let given = layers.given(
        &settings::LISTEN,
        Some(settings::GATEWAY_LISTEN_VARIABLE),
        |written| ListenAddress::parse(&written.text()),
    );
    if given.is_some() || layers.problems.len() > before {
        return given;
    }
    layers
        .effective
        .record(&settings::LISTEN, None, Origin::Default);
    if stand_in.is_none() {
        layers.problems.push(ConfigError::NoListenAddress);
    }
    stand_in
}

fn read_conf_expire_time(layers: &mut Layers<'_>) -> Duration {
    let given = layers.given(
        &settings::CONF_EXPIRE_TIME,
        Some(settings::GATEWAY_EXPIRY_VARIABLE),
        whole::<u64>(1, 365 * 24 * 3_600),
    );
    // What the gateway itself falls back to.
    Duration::from_secs(given.unwrap_or_else(|| {
        let default = Written::Number(3_600);
        layers
            .effective
            .record(&settings::CONF_EXPIRE_TIME, Some(&default), Origin::Default);
        3_600
    }))
}

/// `plugin-host` below the directory that is given, or else below the first that suits the user.
fn read_runtime_dir(layers: &mut Layers<'_>) -> PathBuf {
    if let Some(given) = layers.given(&settings::RUNTIME_DIR, None, value::path) {
        return given.join("plugin-host");
    }
    layers
        .effective
        .record(&settings::RUNTIME_DIR, None, Origin::Default);
    let user = rustix::process::geteuid();
    if user.is_root() {
        return PathBuf::from("/run/plugin-host");
    }
    let absolute = |name| {
        layers
            .environment
            .get_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    if let Some(of_user) = absolute("XDG_RUNTIME_DIR") {
        return of_user.join("plugin-host");
    }
    // The system's temporary directory belongs to everyone, so the name says whose this is.
    absolute("TMPDIR")
        .unwrap_or_else(|| PathBuf::from("/tmp"))
        .join(format!("plugin-host-{}", user.as_raw()))
}

fn read_restrictions(layers: &mut Layers<'_>) -> Restrictions {
    let before = layers.problems.len();
    let group = read_optional(layers, &settings::GROUP, |group| find_group(&group.text()));
    let run_as = read_optional(layers, &settings::USER, |user| {
        RunAs::find(&user.text(), group)
    });
    if group.is_some() && run_as.is_none() && layers.problems.len() == before {
        layers.problems.push(ConfigError::Contradiction {
            first: settings::GROUP.key,
            second: settings::USER.key,
            reason: "a group alone takes nothing from root: name a user as well".to_owned(),
        });
    }
    Restrictions {
        run_as,
        core_dumps: layers.value(&settings::CORE_DUMPS, value::switch),
    }
}

/// A setting that may stay without a value.
fn read_optional<T>(
    layers: &mut Layers<'_>,
    setting: &'static settings::Setting,
    check: impl Fn(&Written) -> Result<T, String>,
) -> Option<T> {
    let given = layers.given(setting, None, check);
    if given.is_none() {
        layers.effective.record(setting, None, Origin::Default);
    }
    given
}

fn read_event_loops(layers: &mut Layers<'_>) -> usize {
    if let Some(given) = layers.given(&settings::EVENT_LOOPS, None, whole(1, 64)) {
        return given;
    }
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let event_loops = default_event_loops(cores);
    let default = Written::Text(event_loops.to_string());
    layers
        .effective
        .record(&settings::EVENT_LOOPS, Some(&default), Origin::Default);
    event_loops
}

/// One loop serves several hundred thousand calls a second: the cores belong to the gateway.
fn default_event_loops(cores: usize) -> usize {
    if cores <= 4 { 1 } else { (cores / 2).min(8) }
}

fn whole<T: TryFrom<u64>>(from: u64, to: u64) -> impl Fn(&Written) -> Result<T, String> {
    move |written| narrow(value::number(written, from..=to)?)
}

fn size<T: TryFrom<u64>>(from: u64, to: u64) -> impl Fn(&Written) -> Result<T, String> {
    move |written| narrow(value::bytes(written, from..=to)?)
}

fn narrow<T: TryFrom<u64>>(number: u64) -> Result<T, String> {
    T::try_from(number).map_err(|_| format!("`{number}` is too large for this machine"))
}

#[cfg(test)]
mod tests;
