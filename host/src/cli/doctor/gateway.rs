//! The gateway's `config.yaml`: whether it starts a host, where it looks for one, and whether anything of
//! it calls plugins at all.
//!
//! Read as the gateway reads it, as far as external plugins go; nothing here asks the gateway.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use clap::Parser;

use super::{
    super::{Cli, Command},
    finding::{Area, Report},
    processes::{self, RunningGateway},
};
use crate::{
    config::{Config, Environment, ListenAddress, settings},
    gateway::routes::document::{self, Node, Value},
};

/// Where packages and images of the gateway have it.
const USUAL_HOME: &str = "/usr/local/apisix";

/// Bytes of a configuration file, at most.
const MAX_FILE: u64 = 4 << 20;

/// The gateway's plugins that call a host.
const BEFORE: [&str; 2] = ["ext-plugin-pre-req", "ext-plugin-post-req"];
const RESPONSE: &str = "ext-plugin-post-resp";

/// What `doctor` has to know of a gateway.
#[derive(Debug)]
pub(super) struct Gateway {
    /// The directory that it runs in.
    pub(super) home: PathBuf,
    /// Where it looks for a host, where it was told.
    pub(super) path: Option<PathBuf>,
    /// The host that it starts, as that would read its flags.
    pub(super) starts: Option<Config>,
    /// Whose its workers are, where it was told.
    pub(super) user: Option<String>,
}

impl Gateway {
    /// Where it looks for a host. Without an address of its own it makes one of its master's number.
    pub(super) fn address(&self) -> Option<PathBuf> {
        if let Some(path) = &self.path {
            return Some(path.clone());
        }
        let entries = fs::read_dir(self.home.join("conf")).ok()?;
        let sockets = entries.filter_map(Result::ok).filter_map(|entry| {
            let name = entry.file_name();
            let master = name
                .to_str()?
                .strip_prefix("apisix-")?
                .strip_suffix(".sock")?;
            let master = master.parse().ok()?;
            processes::is_alive(master).then(|| entry.path())
        });
        sockets.last()
    }
}

/// Reads the configuration of the gateway: that which is named, or that of the one that runs, or where
/// it usually is. None, and nothing said, where there is none in these places.
pub(super) fn read(
    named: Option<&Path>,
    running: Option<&RunningGateway>,
    environment: &Environment,
    report: &mut Report,
) -> Option<Gateway> {
    let of_home = |home: &Path| home.join("conf/config.yaml");
    let file = match (named, running.and_then(|running| running.home.as_deref())) {
        (Some(named), _) => std::path::absolute(named).unwrap_or_else(|_| named.to_owned()),
        (None, Some(home)) => of_home(home),
        (None, None) => of_home(Path::new(USUAL_HOME)),
    };
    let shown = file.display();
    let text = match read_file(&file) {
        Ok(text) => text,
        Err(error)
            if named.is_none() && running.is_none() && error.kind() == io::ErrorKind::NotFound =>
        {
            return None;
        }
        Err(error) => {
            report.problem(
                Area::Gateway,
                "gateway-config",
                format!("{shown}: {error}"),
                [
                    "the gateway's configuration cannot be read, so it is not known whether it starts a host, and where it looks for one",
                    "give --gateway-config FILE, and run this as a user who may read it",
                ],
            );
            return None;
        }
    };
    let document = match document::parse(&text) {
        Ok(document) => document,
        Err(problem) => {
            report.problem(
                Area::Gateway,
                "gateway-config",
                format!("{shown}, line {}: {}", problem.line, problem.text),
                [
                    "the gateway does not start with a configuration that is no YAML",
                    "correct that line",
                ],
            );
            return None;
        }
    };
    let home = file.parent().and_then(Path::parent);
    let mut gateway = Gateway {
        home: home.unwrap_or(Path::new("/")).to_owned(),
        path: None,
        starts: None,
        user: field(&document, &["nginx_config", "user"]).and_then(text_of),
    };
    let of_host = Reader {
        file: &file,
        document: &document,
        environment,
    };
    of_host.ext_plugin(&mut gateway, report);
    of_host.enabled_plugins(report);
    of_host.variables(report);
    Some(gateway)
}

struct Reader<'a> {
    file: &'a Path,
    document: &'a Node,
    environment: &'a Environment,
}

impl Reader<'_> {
    fn ext_plugin(&self, gateway: &mut Gateway, report: &mut Report) {
        let shown = self.file.display();
        let path = field(self.document, &["ext-plugin", "path_for_test"]);
        let cmd = field(self.document, &["ext-plugin", "cmd"]);
        if let Some(path) = path {
            gateway.path = self.path_for_test(path, report);
        }
        match (cmd, path) {
            (None, None) => report.problem(
                Area::Gateway,
                "ext-plugin",
                format!("{shown} has neither `ext-plugin.cmd` nor `ext-plugin.path_for_test`"),
                [
                    "the gateway starts no host and looks for one where none is: every route with an ext-plugin answers 503",
                    "set `ext-plugin.cmd: [plugin-host, run, --plugin-dir, DIR]`, then reload the gateway (docs/deployment.md)",
                ],
            ),
            (None, Some(_)) => report.good(
                Area::Gateway,
                "ext-plugin",
                format!("{shown} starts no host and looks for one that runs on its own"),
            ),
            (Some(cmd), _) => gateway.starts = self.cmd(cmd, gateway, report),
        }
    }

    fn path_for_test(&self, path: &Node, report: &mut Report) -> Option<PathBuf> {
        let written = text_of(path).unwrap_or_default();
        let found = format!(
            "{}, line {}: `path_for_test` is `{written}`",
            self.file.display(),
            path.line
        );
        if let Some(bare) = written.strip_prefix("unix:") {
            report.problem(
                Area::Gateway,
                "path-for-test",
                found,
                [
                    "the gateway puts `unix:` before it itself, and so connects to a path that nobody has",
                    &format!("write `path_for_test: {bare}`"),
                ],
            );
            return Some(PathBuf::from(bare));
        }
        match ListenAddress::parse(&written) {
            Ok(address) => {
                report.good(Area::Gateway, "path-for-test", found);
                Some(address.path().to_owned())
            }
            Err(reason) => {
                report.problem(
                    Area::Gateway,
                    "path-for-test",
                    format!("{found}: {reason}"),
                    [
                        "no host can listen there",
                        "write the absolute path that the host is given with --listen",
                    ],
                );
                None
            }
        }
    }

    /// The command that starts the host; gives the configuration that such a host would have.
    fn cmd(&self, cmd: &Node, gateway: &Gateway, report: &mut Report) -> Option<Config> {
        let shown = format!("{}, line {}", self.file.display(), cmd.line);
        let words = match &cmd.value {
            Value::List(items) => items.iter().map(text_of).collect::<Option<Vec<_>>>(),
            _ => None,
        };
        let Some(words) = words.filter(|words| !words.is_empty()) else {
            report.problem(
                Area::Gateway,
                "cmd",
                format!("{shown}: `cmd` is not a list of texts"),
                [
                    "the gateway starts no host",
                    "write a list with the program and each argument on its own: [plugin-host, run, --plugin-dir, DIR]",
                ],
            );
            return None;
        };
        if let Err(reason) = self.program(&words[0], gateway) {
            report.problem(
                Area::Gateway,
                "cmd",
                format!("{shown}: {reason}"),
                [
                    "the gateway cannot start the host",
                    "install plugin-host there, or write its absolute path",
                ],
            );
            return None;
        }
        let is_own = |word: &String| Path::new(word).file_name() == Some("plugin-host".as_ref());
        let Some(start) = words.iter().position(is_own) else {
            report.warning(
                Area::Gateway,
                "cmd",
                format!("{shown}: `cmd` starts `{}`", words[0]),
                [
                    "it is not known what becomes of that",
                    "write [plugin-host, run, ...] unless it ends in that",
                ],
            );
            return None;
        };
        let flags = match Cli::try_parse_from(&words[start..]).map(|cli| cli.command) {
            Ok(Command::Run(args)) => args.flags,
            Ok(_) => return refused(report, &shown, "it is not `plugin-host run`"),
            Err(error) => return refused(report, &shown, &error.to_string()),
        };
        let address = gateway.path.clone().or_else(|| gateway.address());
        // It gets an address in any case; which one it is does not matter to the rest.
        let address = address.unwrap_or_else(|| gateway.home.join("conf/apisix.sock"));
        let listen = format!("unix:{}", address.display());
        let environment = self
            .of_host()
            .with(settings::GATEWAY_LISTEN_VARIABLE, listen);
        match Config::load(&flags, &environment) {
            Ok(config) => {
                let found = format!("{shown}: the gateway starts `{}`", words.join(" "));
                report.good(Area::Gateway, "cmd", found);
                Some(config)
            }
            Err(errors) => refused(report, &shown, &errors.to_string()),
        }
    }

    fn program(&self, program: &str, gateway: &Gateway) -> Result<(), String> {
        let is_program = |path: &Path| {
            fs::metadata(path)
                .is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
        };
        if program.contains('/') {
            let path = gateway.home.join(program);
            return match fs::metadata(&path) {
                Err(error) => Err(format!("`{}`: {error}", path.display())),
                Ok(_) if !is_program(&path) => {
                    Err(format!("`{}` is no file that may be run", path.display()))
                }
                Ok(_) => Ok(()),
            };
        }
        let path = self.environment.get_os("PATH").unwrap_or_default();
        let mut places = std::env::split_paths(path);
        match places.any(|place| is_program(&place.join(program))) {
            true => Ok(()),
            false => Err(format!("there is no `{program}` in PATH")),
        }
    }

    /// The environment of a host that the gateway starts, as far as this command has it too.
    fn of_host(&self) -> Environment {
        let mut environment = Environment::empty();
        for written in self.envs() {
            let (name, value) = match written.split_once('=') {
                Some((name, value)) => (name, Some(value.as_ref())),
                None => (written.as_str(), self.environment.get_os(&written)),
            };
            if let Some(value) = value {
                environment = environment.with(name, value);
            }
        }
        environment
    }

    fn envs(&self) -> Vec<String> {
        match field(self.document, &["nginx_config", "envs"]).map(|node| &node.value) {
            Some(Value::List(items)) => items.iter().filter_map(text_of).collect(),
            _ => Vec::new(),
        }
    }

    fn enabled_plugins(&self, report: &mut Report) {
        let Some(list) = field(self.document, &["plugins"]) else {
            report.good(
                Area::Gateway,
                "enabled-plugins",
                "there is no `plugins:`, so the gateway enables all of its own, those for external plugins among them",
            );
            return;
        };
        let names = match &list.value {
            Value::List(items) => items.iter().filter_map(text_of).collect(),
            _ => Vec::new(),
        };
        let has = |name: &str| names.iter().any(|known| known == name);
        let shown = format!("{}, line {}: `plugins:`", self.file.display(), list.line);
        let before = BEFORE.iter().any(|name| has(name));
        match (before, has(RESPONSE)) {
            (false, false) => report.problem(
                Area::Gateway,
                "enabled-plugins",
                format!("{shown} lists none of {}, {}, {RESPONSE}", BEFORE[0], BEFORE[1]),
                [
                    "the list replaces the gateway's own: no route can use external plugins, and one that names them is refused or runs without them",
                    "add ext-plugin-pre-req, ext-plugin-post-req and ext-plugin-post-resp to the list, or remove the list",
                ],
            ),
            (false, true) => report.problem(
                Area::Gateway,
                "enabled-plugins",
                format!("{shown} lists {RESPONSE} and neither of {}, {}", BEFORE[0], BEFORE[1]),
                [
                    "the gateway makes its shared memory for tokens for the two request plugins alone: every call of the response plugin answers 503",
                    "add ext-plugin-pre-req to the list; no route needs to use it",
                ],
            ),
            (true, response) => {
                let mut on: Vec<_> = BEFORE.into_iter().filter(|name| has(name)).collect();
                on.extend(response.then_some(RESPONSE));
                report.good(
                    Area::Gateway,
                    "enabled-plugins",
                    format!("{shown} lists {}", on.join(", ")),
                );
            }
        }
    }

    /// Variables that are set here and that a host of the gateway's would not get.
    fn variables(&self, report: &mut Report) {
        if field(self.document, &["ext-plugin", "cmd"]).is_none() {
            return;
        }
        let passed = self.envs();
        let known = settings::ALL.iter().map(|setting| setting.variable());
        let lost: Vec<_> = known
            .chain([settings::CONFIG_FILE_VARIABLE.to_owned()])
            .filter(|name| self.environment.get_os(name).is_some())
            .filter(|name| {
                let is_it = |written: &String| written.split('=').next() == Some(name.as_str());
                !passed.iter().any(is_it)
            })
            .collect();
        if lost.is_empty() {
            return;
        }
        report.warning(
            Area::Gateway,
            "envs",
            format!(
                "{} set here, and `nginx_config.envs` does not list it",
                lost.join(", ")
            ),
            [
                "the gateway passes only what that list names: its host does not see the variable",
                "add it to `nginx_config.envs`, or use a flag in `cmd`",
            ],
        );
    }
}

fn refused<T>(report: &mut Report, shown: &str, reason: &str) -> Option<T> {
    // Of what clap says, the first line is the reason.
    let reason = reason.trim_start_matches("error: ");
    let reason = reason.split("\n\n").next().unwrap_or_default();
    report.problem(
        Area::Gateway,
        "cmd",
        format!("{shown}: {}", reason.trim()),
        [
            "the host that the gateway starts ends at once with exit code 2, and is started again every 3 s",
            "correct `cmd`; `plugin-host run --check-config` with the same flags shows what is in force",
        ],
    );
    None
}

fn read_file(file: &Path) -> io::Result<String> {
    if fs::metadata(file)?.len() > MAX_FILE {
        return Err(io::Error::other(format!("more than {MAX_FILE} bytes")));
    }
    fs::read_to_string(file)
}

fn field<'a>(node: &'a Node, path: &[&str]) -> Option<&'a Node> {
    path.iter().try_fold(node, |node, name| match &node.value {
        Value::Map(fields) => fields
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, node)| node)
            .filter(|node| !matches!(node.value, Value::Null)),
        _ => None,
    })
}

fn text_of(node: &Node) -> Option<String> {
    match &node.value {
        Value::Text(text) => Some(text.clone()),
        Value::Int(number) => Some(number.to_string()),
        Value::Bool(value) => Some(value.to_string()),
        _ => None,
    }
}
