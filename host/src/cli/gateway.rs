//! `plugin-host gateway`: the development gateway, from what was typed to its end.

pub(super) mod serve;
mod show;

use std::ffi::OsString;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use clap::Args;

use super::output;
use crate::config::{self, Environment};
use serve::{Host, Plan, Scratch};

/// Where it listens unless told otherwise.
pub(super) const LISTEN: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9080);

/// Size of a body, in bytes, at most.
pub(super) const MAX_BODY_BYTES: usize = 16 << 20;

/// Connections of clients at the same time, at most.
pub(super) const MAX_CONNECTIONS: usize = 256;

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
    #[arg(long, value_name = "ADDRESS:PORT", default_value_t = LISTEN)]
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
    #[arg(long, value_name = "BYTES", default_value_t = MAX_BODY_BYTES)]
    max_body_bytes: usize,

    /// Connections of clients at the same time, at most; further ones wait
    #[arg(long, value_name = "NUMBER", default_value_t = MAX_CONNECTIONS, value_parser = at_least_one)]
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

pub(super) fn gateway(args: &GatewayArgs) -> u8 {
    let environment = Environment::of_process();
    serve::with_log(&args.log, || {
        let plan = Plan {
            routes: args.routes.clone(),
            listen: args.listen,
            print_calls: args.print_calls,
            max_body_bytes: args.max_body_bytes,
            max_connections: args.max_connections,
        };
        let bound = serve::bind(&plan)?;
        let host = host(args, &environment).map_err(|reason| output::refuse(&reason))?;
        bound.serve(host, &environment)
    })
}

fn host(args: &GatewayArgs, environment: &Environment) -> Result<Host, String> {
    if let Some(plugin_dir) = &args.plugin_dir {
        let scratch = Scratch::new("gateway", environment)?;
        let host = Host::own(
            scratch,
            plugin_dir,
            &args.envs,
            &args.run_arguments,
            environment,
        );
        return Ok(host);
    }
    match &args.socket {
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
    }
}
