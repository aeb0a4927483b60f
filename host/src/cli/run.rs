//! `plugin-host run`: from what was typed to a host that serves, and to its end.
//!
//! The flags are made from the table of settings, so that flags, variables, file keys and this
//! help always agree.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::{Arg, ArgAction, ArgMatches, Args, FromArgMatches, value_parser};
use rustix::fs::Mode;
use rustix::process::Resource;
use tokio::sync::Notify;

use super::{FAILURE, output};
use crate::config::settings::{self, Kind, Setting};
use crate::config::{Config, Environment, Flags};
use crate::control::access::Access;
use crate::lifecycle::Lifecycle;
use crate::listen::{Binding, services::ServicesListener};
use crate::logging::{self, Logging};
use crate::runtime_dir::RuntimeDir;
use crate::supervisor::{self, Host, estate::Estate, renewal::Heir};

/// Descriptors that are left to everything but connections of the gateway and of the HTTP client:
/// libraries, log, event loops, and those that the gateway leaks into its child.
const RESERVED_DESCRIPTORS: usize = 128;

/// How long a host that leaves overdue waits for its last log line.
const LAST_LINE: Duration = Duration::from_millis(20);

const CONFIG: &str = "config";
const CHECK_CONFIG: &str = "check-config";

const ABOUT: &str = "Serve a gateway's external plugins on a Unix socket";

const LONG_ABOUT: &str = "\
Serve a gateway's external plugins on a Unix socket.

The gateway starts this command by itself where its config.yaml says
`ext-plugin.cmd: [plugin-host, run, ...]`, and gives the address to listen on in
APISIX_LISTEN_ADDRESS. To start it by hand, give --listen and set the gateway's
`ext-plugin.path_for_test` to the same path.

Every setting has a flag, an environment variable and a key in the configuration
file; they win in this order. An empty variable counts as not set.";

const AFTER_HELP: &str = "\
Configuration file (TOML): the keys that stand with each flag, and for each plugin
  [plugins.NAME]
  failure_policy = \"open\"         or \"closed\"; wins over the plugin's metadata
  timeout_ms = 250                bound on the plugin's part of one call
  execution = \"blocking\"          or \"async\"
  [plugins.NAME.settings]         given to the plugin, over its own defaults
  token = \"${env:TOKEN}\"          or ${file:/absolute/path}; $${ is a literal ${

Signals: SIGTERM and SIGINT stop the host: calls that are open may end within
--drain-time, at once where a next host has taken the socket over. The end of standard
input, where it is a pipe, means the same. SIGHUP looks at the plugin directory.

Exit codes: 0 it worked, 1 it did not, 2 a flag or the configuration is wrong.";

/// What was typed after `plugin-host run`.
#[derive(Debug)]
pub(super) struct RunArgs {
    pub(super) flags: Flags,
    check_config: bool,
}

pub(super) fn run(args: RunArgs) -> u8 {
    // First of all: whatever is created from here on is nobody else's to read or write.
    rustix::process::umask(Mode::from_raw_mode(0o077));
    let environment = Environment::of_process();
    if args.check_config {
        return check_config(&args.flags, &environment);
    }
    match Config::load(&args.flags, &environment) {
        Ok(config) => serve(config, None),
        Err(errors) => output::refuse(&errors.to_string()),
    }
}

/// Goes on where the release before this one stopped, in the same process.
#[derive(Debug, Args)]
#[command(hide = true, after_help = super::HELP)]
pub(super) struct ResumeArgs {
    #[command(flatten)]
    run: RunArgs,
}

pub(super) fn resume(args: ResumeArgs) -> u8 {
    rustix::process::umask(Mode::from_raw_mode(0o077));
    let estate = match Estate::receive() {
        Ok(estate) => estate,
        Err(error) => {
            return output::fail(&format!(
                "this command is started by a host that becomes its next release: {error}"
            ));
        }
    };
    match Config::load(&args.run.flags, &Environment::of_process()) {
        Ok(config) => serve(config, Some(estate)),
        Err(errors) => output::refuse(&errors.to_string()),
    }
}

/// Tells what this program can take over from another release.
#[derive(Debug, Args)]
#[command(hide = true, after_help = super::HELP)]
pub(super) struct HeirArgs {}

pub(super) fn heir() -> u8 {
    let heir = serde_json::to_string(&Heir::this()).expect("it is plain data");
    output::print(&format!("{heir}\n"))
}

/// Shows the configuration in force. Exit code 1 where a host would run, but without one of its
/// plugins.
fn check_config(flags: &Flags, environment: &Environment) -> u8 {
    match Config::check(flags, environment) {
        Ok(effective) => {
            for warning in effective.warnings() {
                output::complain(warning);
            }
            let code = output::print(&effective.to_string());
            match effective.unusable_plugins() {
                [] => code,
                unusable => output::fail(&unusable.join("\n")),
            }
        }
        Err(errors) => output::refuse(&errors.to_string()),
    }
}

fn serve(mut config: Config, estate: Option<Estate>) -> u8 {
    let access = match read_access(&config) {
        Ok(access) => access,
        Err(reason) => return output::refuse(&reason),
    };
    let logging = match logging::init(&config.log) {
        Ok(logging) => logging,
        Err(error) => return output::fail(&error.to_string()),
    };
    for warning in config.effective().warnings() {
        tracing::warn!("{warning}");
    }
    let outgoing = match config.http_client.enabled {
        true => config.http_client.max_connections,
        false => 0,
    };
    let clients = match &config.http_services.listen {
        Some(_) => config.http_services.bounds.max_connections,
        None => 0,
    };
    config.limits.max_connections =
        bound_by_descriptors(config.limits.max_connections, outgoing + clients);
    let to_file = config.log.file.is_some();
    let served = bind_and_serve(config, &logging, access, estate);
    if let Err(reason) = &served {
        tracing::error!("{reason}");
    }
    drop(logging);
    match served {
        Ok(()) => 0,
        // Whoever starts the host looks at what it prints before they look into its log.
        Err(reason) if to_file => output::fail(&reason),
        Err(_) => FAILURE,
    }
}

/// Whom `--control-listen` lets in, where it is given.
fn read_access(config: &Config) -> Result<Option<Access>, String> {
    let control = &config.control;
    let (Some(listen), Some(file)) = (control.listen, &control.token_file) else {
        return Ok(None);
    };
    Access::read(file, listen.port())
        .map(Some)
        .map_err(|error| error.to_string())
}

fn bind_and_serve(
    config: Config,
    logging: &Logging,
    access: Option<Access>,
    mut estate: Option<Estate>,
) -> Result<(), String> {
    let text = |error: &dyn std::error::Error| error.to_string();
    let config = Arc::new(config);
    let lifecycle =
        Lifecycle::install().map_err(|error| format!("cannot take signals: {error}"))?;
    let (runtime, binding, listener) = match &mut estate {
        None => bind(&config)?,
        Some(estate) => adopt(&config, estate)?,
    };
    let services = bind_services(&config, &runtime, estate.as_mut())?;
    let binding = Arc::new(binding);
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        address = %config.listen,
        plugin_dir = %config.plugin_dir.display(),
        "listening"
    );

    let overdue = {
        let binding = Arc::clone(&binding);
        move || {
            tracing::error!("calls did not end within the drain time; leaving without them");
            binding.remove();
            // The private files are left to the next host, which sees that nobody owns them; the
            // log's thread gets a moment for that line.
            std::thread::sleep(LAST_LINE);
            std::process::exit(1);
        }
    };
    let rescan = Arc::new(Notify::new());
    let shutdown = lifecycle
        .watch(
            Arc::clone(&binding),
            config.ignore_stdin,
            config.limits.drain_time,
            Arc::clone(&rescan),
            overdue,
        )
        .map_err(|error| format!("cannot watch for signals: {error}"))?;
    let removed = runtime.remove_dead_owners();
    if removed > 0 {
        tracing::info!(removed, "removed what dead hosts left on this address");
    }
    let host = Host {
        listener,
        binding: Arc::clone(&binding),
        services,
        program: std::env::current_exe().map_err(|e| text(&e))?,
        config,
        // Behind `plugin-host run`.
        arguments: std::env::args_os().skip(2).collect(),
        runtime_dir: runtime,
        log: logging.lines(),
        levels: logging.levels(),
        recent: logging.recent(),
        access,
    };
    let served = supervisor::run(host, estate, shutdown, rescan).map_err(|e| text(&e));
    // Here and not by dropping: the thread that watches holds it as well.
    binding.remove();
    tracing::info!("stopped");
    served
}

fn bind(config: &Config) -> Result<(RuntimeDir, Binding, OwnedFd), String> {
    let text = |error: &dyn std::error::Error| error.to_string();
    let runtime =
        RuntimeDir::open(&config.runtime_dir, config.listen.path()).map_err(|e| text(&e))?;
    if let Some(run_as) = config.restrictions.run_as {
        run_as.is_possible().map_err(|e| text(&e))?;
        runtime.open_passage().map_err(|e| text(&e))?;
    }
    let lock = runtime.address_lock().map_err(|e| text(&e))?;
    let (binding, listener) = Binding::bind(
        config.listen.path(),
        config.socket_mode,
        config.backlog,
        lock,
    )
    .map_err(|e| text(&e))?;
    Ok((runtime, binding, listener.into()))
}

/// The release before has bound the address, which does not change.
fn adopt(config: &Config, estate: &mut Estate) -> Result<(RuntimeDir, Binding, OwnedFd), String> {
    let text = |error: &dyn std::error::Error| error.to_string();
    let inode = estate.take().map_err(|e| text(&e))?;
    let owner = estate.take().map_err(|e| text(&e))?;
    let listener = estate.take().map_err(|e| text(&e))?;
    let (shared, private) = estate.directories();
    let runtime = RuntimeDir::adopt(shared, private, owner);
    let lock = runtime.address_lock().map_err(|e| text(&e))?;
    let binding = Binding::adopt(config.listen.path(), inode, lock);
    Ok((runtime, binding, listener))
}

/// Where clients of HTTP services connect; none also where the release before has bound that very
/// address, which the supervisor takes over.
fn bind_services(
    config: &Config,
    runtime: &RuntimeDir,
    estate: Option<&mut Estate>,
) -> Result<Option<ServicesListener>, String> {
    let wanted = config.http_services.listen.as_ref();
    if let Some(estate) = estate {
        let before = estate.services().map(str::to_owned);
        if before == wanted.map(ToString::to_string) {
            return Ok(None);
        }
        estate.forget_services();
    }
    let Some(address) = wanted else {
        return Ok(None);
    };
    let text = |error: &dyn std::error::Error| error.to_string();
    let lock = runtime.address_lock().map_err(|e| text(&e))?;
    let services = ServicesListener::bind(address, config, lock).map_err(|e| text(&e))?;
    tracing::info!(%address, "serving HTTP services of plugins");
    Ok(Some(services))
}

/// Raises the limit on open files as far as allowed, and gives the number of connections that
/// it leaves room for, beside those to other services and those of clients of HTTP services.
fn bound_by_descriptors(wanted: usize, outgoing: usize) -> usize {
    let mut limit = rustix::process::getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        let before = limit.current;
        limit.current = limit.maximum;
        match rustix::process::setrlimit(Resource::Nofile, limit) {
            Ok(()) => tracing::debug!(?before, now = ?limit.current, "raised the open files limit"),
            Err(error) => {
                tracing::warn!(%error, "cannot raise the open files limit");
                limit.current = before;
            }
        }
    }
    let Some(descriptors) = limit.current else {
        return wanted;
    };
    let room = connections_within(descriptors, outgoing);
    if room < wanted {
        tracing::warn!(
            max_connections = wanted,
            possible = room,
            open_files_limit = descriptors,
            "the open files limit allows fewer connections than `limits.max_connections`"
        );
    }
    room.min(wanted)
}

/// Where descriptors are few, those to other services, and those of clients of HTTP services, get no
/// more than a quarter of them.
fn connections_within(descriptors: u64, outgoing: usize) -> usize {
    let descriptors = usize::try_from(descriptors).unwrap_or(usize::MAX);
    descriptors
        .saturating_sub(RESERVED_DESCRIPTORS)
        .saturating_sub(outgoing.min(descriptors / 4))
        .max(1)
}

impl Args for RunArgs {
    fn augment_args(command: clap::Command) -> clap::Command {
        let command = command
            .about(ABOUT)
            .long_about(LONG_ABOUT)
            .after_help(AFTER_HELP)
            .arg(
                Arg::new(CONFIG)
                    .long(CONFIG)
                    .value_name("FILE")
                    .value_parser(value_parser!(PathBuf))
                    .help(format!(
                        "Configuration file in TOML [default: none] [env: {}]",
                        settings::CONFIG_FILE_VARIABLE
                    )),
            )
            .arg(
                Arg::new(CHECK_CONFIG)
                    .long(CHECK_CONFIG)
                    .action(ArgAction::SetTrue)
                    .help(
                        "Check the configuration, show the one in force without its secrets, \
                         and leave: with 1 where a plugin's settings cannot be used, with 2 where \
                         the host would not start",
                    ),
            );
        settings::ALL
            .iter()
            .fold(command, |command, setting| command.arg(flag_of(setting)))
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Self::augment_args(command)
    }
}

fn flag_of(setting: &'static Setting) -> Arg {
    let flag = Arg::new(setting.flag)
        .long(setting.flag)
        .value_name(setting.value_name)
        .help_heading(setting.group)
        .help(format!(
            "{} [default: {}] [env: {}] [key: {}]",
            setting.help,
            setting.default_text(),
            setting.variable(),
            setting.key
        ));
    match setting.kind {
        Kind::Switch => flag
            .num_args(0..=1)
            .require_equals(true)
            .default_missing_value("true"),
        Kind::Text | Kind::Number => flag,
    }
}

impl FromArgMatches for RunArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut flags = Flags::new();
        if let Some(path) = matches.get_one::<PathBuf>(CONFIG) {
            flags = flags.with_config_file(path);
        }
        for setting in settings::ALL {
            if let Some(value) = matches.get_one::<String>(setting.flag) {
                flags = flags.with(setting, value);
            }
        }
        Ok(Self {
            flags,
            check_config: matches.get_flag(CHECK_CONFIG),
        })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        reason = "a failed expectation is the test's result"
    )]
    use super::*;

    fn parse(arguments: &[&str]) -> RunArgs {
        let command = RunArgs::augment_args(clap::Command::new("run").no_binary_name(true));
        let matches = command.try_get_matches_from(arguments).unwrap();
        RunArgs::from_arg_matches(&matches).unwrap()
    }

    #[test]
    fn flags_reach_the_configuration() {
        let args = parse(&[
            "--listen",
            "/run/runner.sock",
            "--ignore-stdin",
            "--ask-method-for-head=false",
            "--drain-time=1s",
            "--log",
            "debug",
        ]);
        let config = Config::load(&args.flags, &Environment::empty()).unwrap();
        assert!(config.ignore_stdin);
        assert!(!config.ask_method_for_head);
        assert_eq!(config.limits.drain_time, Duration::from_secs(1));
        assert_eq!(config.log.filter, "debug");
        assert!(!args.check_config);
    }

    #[test]
    fn the_help_names_every_setting_with_its_default_variable_and_key() {
        let help = RunArgs::augment_args(clap::Command::new("run").term_width(10_000))
            .render_long_help()
            .to_string();
        for setting in settings::ALL {
            let expected = format!(
                "[default: {}] [env: {}] [key: {}]",
                setting.default_text(),
                setting.variable(),
                setting.key
            );
            assert!(help.contains(&format!("--{}", setting.flag)), "{help}");
            assert!(help.contains(&expected), "{expected} is not in\n{help}");
        }
        assert!(help.contains("PLUGIN_HOST_CONFIG"), "{help}");
    }

    #[test]
    fn connections_leave_descriptors_for_everything_else() {
        assert_eq!(connections_within(20_000, 0), 19_872);
        assert_eq!(connections_within(20_000, 512), 19_360);
        assert_eq!(connections_within(1_024, 512), 640);
        assert_eq!(connections_within(64, 512), 1);
    }
}
