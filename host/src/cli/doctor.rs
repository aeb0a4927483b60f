//! `plugin-host doctor`: looks at everything between a gateway and its plugins on this machine, and says
//! of each thing what it means and what to do next.
//!
//! `gateway` reads the gateway's configuration, `error_log` its log, `socket` knocks at the host's door,
//! `host` asks hosts that run, `machine` looks at what the system allows. Nothing here changes anything.

mod error_log;
mod finding;
mod gateway;
mod host;
mod identity;
mod machine;
mod processes;
mod show;
mod socket;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use clap::Args;

use super::{
    FAILURE,
    hosts::{self, Host, Running},
    output,
};
use crate::{
    config::{Config, Environment, Flags, ListenAddress},
    plugin::{check, signature::Trust},
};
use finding::{Area, Level, Report};
use gateway::Gateway;
use identity::Identity;
use processes::RunningGateway;

/// Whose the gateway's workers are where nobody says so.
const USUAL_WORKER: &str = "nobody";

const LONG_ABOUT: &str = "\
Find out why routes answer 503, or why plugins do not do what they should.

Looks at the gateway's config.yaml and the end of its error.log, at the socket between gateway and
host, at every host that runs, its plugins, its routes and what has failed, and at what the machine
allows. Each finding says what it means and what to do next. Changes nothing. Run it as root, or as the
user who runs the host.";

const AFTER_HELP: &str = "\
Output of --json, stable for scripts (fields and checks are only ever added): one object with
  good         whether there is no problem
  problems     their number
  warnings     their number
  findings     [{area, check, level, found, means, next}]; area is gateway, socket, host, plugins,
               routes or machine; level is good, warning or problem

Exit codes: 0 it worked, 1 it did not, 2 a flag or the configuration is wrong.
Here 0 means that there is no problem, and 1 that there is one.";

/// Find out why routes answer 503
#[derive(Debug, Args)]
#[command(long_about = LONG_ABOUT, after_help = AFTER_HELP)]
pub(super) struct DoctorArgs {
    /// The gateway's config.yaml [default: of the gateway that runs, or in /usr/local/apisix/conf]
    #[arg(long, value_name = "FILE")]
    gateway_config: Option<PathBuf>,
    /// The user of the gateway's workers, by name or number [default: that of the gateway that runs, or
    /// of its config.yaml, or nobody]
    #[arg(long, value_name = "USER")]
    gateway_user: Option<String>,
    #[command(flatten)]
    host: Host,
}

pub(super) fn doctor(args: &DoctorArgs) -> u8 {
    let mut report = Report::default();
    let examined = match hosts::run(examine(args, &mut report)) {
        Ok(examined) => examined,
        Err(error) => return output::fail(&error),
    };
    if let Err(reason) = examined {
        return output::refuse(&reason);
    }
    let text = match args.host.json {
        true => format!("{:#}\n", report.as_json()),
        false => show::report(&report, args.host.paint()),
    };
    match output::print(&text) {
        0 if report.count(Level::Problem) > 0 => FAILURE,
        code => code,
    }
}

/// Looks at everything. What is wrong with the command line is no finding.
async fn examine(args: &DoctorArgs, report: &mut Report) -> Result<(), String> {
    let environment = Environment::of_process();
    let listen = args.host.which.listen.as_deref();
    let listen = listen.map(ListenAddress::parse).transpose()?;
    let running = processes::running_gateway();
    let named = args.gateway_config.as_deref();
    let gateway = gateway::read(named, running.as_ref(), &environment, report);
    if gateway.is_none() && named.is_none() && running.is_none() {
        report.good(
            Area::Gateway,
            "gateway-config",
            "no gateway runs here and none is installed in its usual place: --gateway-config FILE names its configuration",
        );
    }
    let worker = whose(args, gateway.as_ref(), running.as_ref())?;

    let own = hosts::runtime_dir_of(args.host.which.runtime_dir.as_deref(), &environment);
    let own = own.map_err(|_| "--runtime-dir cannot be read".to_owned())?;
    let found = running_hosts(args, &own, gateway.as_ref()).await;
    let expected = listen
        .map(|listen| listen.path().to_owned())
        .or_else(|| gateway.as_ref().and_then(Gateway::address));
    addresses(expected.as_deref(), &found, &worker, report).await;
    if let Some(gateway) = &gateway {
        error_log::look(&gateway.home, report);
    }

    let meant = |host: &&Running| is_meant(args, expected.as_deref(), &found, host);
    let mut looked_at = 0;
    for host in found.iter().filter(meant) {
        looked_at += 1;
        if let Some(settings) = host::look(host, report).await {
            let process = host.facts["pid"].as_u64().unwrap_or(0);
            machine::look(process, &settings, report);
        }
    }
    if looked_at == 0 {
        nobody_runs(args, gateway.as_ref(), &environment, report);
    }
    machine::runtime_dir(&own, report);
    Ok(())
}

/// Whose the gateway's workers are.
fn whose(
    args: &DoctorArgs,
    gateway: Option<&Gateway>,
    running: Option<&RunningGateway>,
) -> Result<Identity, String> {
    if let Some(user) = &args.gateway_user {
        return Identity::of_user(user).ok_or(format!("--gateway-user: there is no user `{user}`"));
    }
    let of_process = running
        .and_then(|running| running.worker)
        .and_then(Identity::of_process);
    let of_config = || {
        let user = gateway?.user.as_deref()?;
        // A group may stand behind it.
        Identity::of_user(user.split_whitespace().next()?)
    };
    of_process
        .or_else(of_config)
        .or_else(|| Identity::of_user(USUAL_WORKER))
        .ok_or(format!(
            "there is no user `{USUAL_WORKER}`: say with --gateway-user whose the gateway's workers are"
        ))
}

/// Every host that answers, of this user and, without --runtime-dir, of others.
async fn running_hosts(args: &DoctorArgs, own: &Path, gateway: Option<&Gateway>) -> Vec<Running> {
    let mut places = vec![own.to_owned()];
    if args.host.which.runtime_dir.is_none() {
        places.extend(machine::usual_runtime_dirs());
    }
    let of_gateway = gateway.and_then(|gateway| gateway.starts.as_ref());
    places.extend(of_gateway.map(|config| config.runtime_dir.clone()));
    places.sort();
    places.dedup();
    let mut found = Vec::new();
    for place in places {
        found.extend(hosts::running_below(&place).await);
    }
    found
}

/// Looks at the sockets: where the gateway looks for a host, or else where hosts are.
async fn addresses(
    expected: Option<&Path>,
    found: &[Running],
    worker: &Identity,
    report: &mut Report,
) {
    let Some(expected) = expected else {
        for host in found {
            socket::look(&listens(host), worker, report).await;
        }
        return;
    };
    socket::look(expected, worker, report).await;
    let elsewhere: Vec<_> = found
        .iter()
        .map(|host| listens(host).display().to_string())
        .collect();
    if !elsewhere.is_empty() && !found.iter().any(|host| listens(host) == expected) {
        report.problem(
            Area::Socket,
            "address",
            format!(
                "the gateway connects to {}, and hosts listen on {}",
                expected.display(),
                elsewhere.join(", ")
            ),
            [
                "none of them gets the gateway's calls",
                "give the host --listen with the gateway's path, or set ext-plugin.path_for_test to the host's",
            ],
        );
    }
}

/// Whether a host is one of those that were asked for: all, unless one is named or is the gateway's.
fn is_meant(args: &DoctorArgs, expected: Option<&Path>, found: &[Running], host: &Running) -> bool {
    if let Some(directory) = &args.host.which.plugin_dir {
        return hosts::has_plugin_dir(&host.facts, directory);
    }
    match expected {
        Some(expected) if found.iter().any(|one| listens(one) == expected) => {
            listens(host) == expected
        }
        Some(_) => args.host.which.listen.is_none(),
        None => true,
    }
}

fn listens(host: &Running) -> PathBuf {
    let listen = host.facts["listen"].as_str().unwrap_or_default();
    PathBuf::from(listen.strip_prefix("unix:").unwrap_or(listen))
}

/// There is nobody to ask: says so, and looks at what a host would find.
fn nobody_runs(
    args: &DoctorArgs,
    gateway: Option<&Gateway>,
    environment: &Environment,
    report: &mut Report,
) {
    let starts = gateway.and_then(|gateway| gateway.starts.as_ref());
    let next = match starts {
        Some(_) => {
            "start or reload the gateway, and look for the host's last line in its error.log: it starts a host that has ended again after 3 s"
        }
        None => {
            "start it: plugin-host run --listen PATH --plugin-dir DIR, or systemctl start plugin-host"
        }
    };
    report.problem(
        Area::Host,
        "running",
        "no host runs",
        ["every route with an ext-plugin answers 503", next],
    );
    let configured = match starts {
        Some(config) => Some((config.plugin_dir.clone(), Arc::clone(&config.trust))),
        None => Config::plugins(&Flags::new(), environment)
            .ok()
            .map(|plugins| (plugins.directory, plugins.trust)),
    };
    let Some((directory, trust)) = configured else {
        return;
    };
    let directory = args.host.which.plugin_dir.clone().unwrap_or(directory);
    let Some(own) = Identity::of_process(std::process::id()) else {
        return;
    };
    host::readable(&directory, &own, report);
    if directory.is_dir() {
        files(&directory, &trust, report);
    }
}

/// What a host would say of the files of its plugin directory; none of them is loaded.
fn files(directory: &Path, trust: &Arc<Trust>, report: &mut Report) {
    let (_, discovery) = check::look(directory, trust);
    for found in &discovery.found {
        let metadata = &found.metadata;
        let found = format!(
            "the files of {} {} are good",
            metadata.name, metadata.version
        );
        report.good(Area::Plugins, "files", found);
    }
    for problem in &discovery.problems {
        report.problem(
            Area::Plugins,
            "files",
            format!("{}: {}", problem.path.display(), problem.cause),
            [
                "these files are no plugin, and nothing of them is loaded",
                &problem.next_step(),
            ],
        );
    }
    if discovery.found.is_empty() && discovery.problems.is_empty() {
        report.problem(
            Area::Plugins,
            "none",
            format!("there is no plugin in {}", directory.display()),
            [
                "every route that names a plugin fails closed",
                "put a plugin there, each in a directory of its own, or give the right --plugin-dir",
            ],
        );
    }
}
