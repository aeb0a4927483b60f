//! `plugin-host call`: one call straight to a running host, in the place of a gateway.
//!
//! What was typed becomes an [`Exchange`]; the call, and what came of it in words, are the client's;
//! `show` shows that to people or scripts.

mod show;

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use plugin_proto::Method;

use super::hosts;
use super::output::{self, Paint};
use crate::client::draft::{Draft, Header};
use crate::client::effect::Effect;
use crate::client::exchange::Exchange;
use crate::client::target::Target;
use crate::client::{ClientError, Connection, Field};
use crate::config::{self, Environment};
use crate::control;
use show::Show;

/// What the configuration is called in the host's log.
const KEY: &str = "plugin-host call";

/// How long a control socket may take to say why a call had to fail.
const CONTROL_PATIENCE: Duration = Duration::from_secs(2);

const LONG_ABOUT: &str = "\
Make one call straight to a running host, in the place of a gateway.

Prepares a configuration of one or several plugins, calls them with one request (or, in the
response phase, with one upstream response), answers what they ask from the flags, and shows
what the gateway would do then. Flags are curl's where curl has them. No HTTP is spoken and no
upstream is called.

  plugin-host call /hello --socket /tmp/runner.sock --plugin say='{\"body\":\"hi\"}'
  plugin-host call '/a?b=1' -X PUT -H 'x-user: me' -d @body.json --plugin one --plugin two=@two.json
  plugin-host call / --phase response --status 404 -H 'Content-Type: text/html' -d 'not here' \\
      --plugin response-rewrite='{\"status\":200}'";

const AFTER_HELP: &str = "\
Variables that follow from the other flags (request_method, request_uri, uri, args, is_args,
scheme, host, remote_addr, content_type, content_length, arg_NAME, http_NAME; in the response
phase also status, upstream_status, sent_http_NAME) are answered by themselves; --var wins.
Any other variable is answered as not set.

Output of --json: one object with
  result    \"answered\" or \"failed\"
  phase     \"request\" or \"response\"
  token, prepare_us, call_us    as far as it came; times in microseconds
  questions [{question: \"variable\", \"request_body\" or \"response_body\", name, answer}]
  effect    {action: \"unchanged\", \"stop\", \"rewrite\" or \"response\", and its fields}
  notes     [what a gateway makes of it that is not obvious]
  closed    why its plugins cannot run with their configurations, only where that is the reason
  error     {code, message, next_step}, only where there is no answer
Lists of headers and arguments are [{name, value}]. Bytes that are not UTF-8 text stand as
{\"hex\": \"...\"}; a value that is not there is null.

A plugin that failed is no answer: an error frame, or the 503 that stands for one in the
response phase, is exit code 1.
Exit codes: 0 it worked, 1 it did not, 2 a flag or the configuration is wrong.";

/// Make one call straight to a running host
#[derive(Debug, Args)]
#[command(long_about = LONG_ABOUT, after_help = AFTER_HELP)]
pub(super) struct CallArgs {
    /// What is requested: a path with its query, or a URL
    #[arg(value_name = "URL", value_parser = Target::parse)]
    target: Target,

    /// Method of the request [default: GET, with -d POST]
    #[arg(short = 'X', long, value_name = "METHOD", value_parser = method)]
    request: Option<Method>,

    /// Header of the request, or in the response phase of the upstream's response; `NAME:` takes a
    /// default one out, `NAME;` sends one without value
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE", value_parser = header)]
    headers: Vec<Header>,

    /// Body of the request, or in the response phase of the upstream's response; @FILE reads a
    /// file as it is, @- standard input
    #[arg(short, long, value_name = "DATA")]
    data: Option<String>,

    /// Answer to a variable that a plugin asks for; NAME alone: it is not set
    #[arg(long = "var", value_name = "NAME=VALUE", value_parser = variable)]
    variables: Vec<Field>,

    /// Plugin to run, in the order given, with its configuration; @FILE reads that from a file.
    /// NAME may have a requirement, as in a route: say@^1.2
    #[arg(
        long = "plugin",
        value_name = "NAME[=CONF]",
        required_unless_present = "conf"
    )]
    plugins: Vec<String>,

    /// The whole `conf` list of a route instead: [{"name": ..., "value": ...}], or @FILE
    #[arg(long, value_name = "JSON", conflicts_with = "plugins")]
    conf: Option<String>,

    /// Which of the gateway's two moments
    #[arg(long, value_enum, default_value_t = Phase::Request)]
    phase: Phase,

    /// Status of the upstream's response
    #[arg(long, value_name = "STATUS", default_value_t = 200, value_parser = clap::value_parser!(u16).range(100..=999))]
    status: u16,

    /// Where the request came from
    #[arg(long, value_name = "ADDRESS", default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    client_ip: IpAddr,

    /// Socket of the host [default: APISIX_LISTEN_ADDRESS]
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,

    /// The host's --runtime-dir, where it was given one: its control socket there says why a call had
    /// to fail
    #[arg(long, value_name = "DIR")]
    runtime_dir: Option<String>,

    /// Show one JSON object instead of text
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Phase {
    /// Before the request goes upstream (ext-plugin-pre-req, ext-plugin-post-req)
    Request,
    /// Before the response goes to the client (ext-plugin-post-resp)
    Response,
}

pub(super) fn call(args: &CallArgs) -> u8 {
    let environment = Environment::of_process();
    let planned = socket(args, &environment).and_then(|socket| {
        let plugins = plugins(args)?;
        let exchange = exchange(args)?;
        Ok((socket, plugins, exchange))
    });
    let (socket, plugins, exchange) = match planned {
        Ok(planned) => planned,
        Err(reason) => return output::refuse(&reason),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return output::fail(&format!("cannot start: {error}")),
    };
    let mut show = Show::new(args.json, Paint::of_stdout(&environment), &exchange);
    let made = runtime.block_on(make(&socket, &plugins, exchange, &mut show));
    let failed = match &made {
        Ok(effect) => effect.told.failed,
        Err(error) => matches!(error, ClientError::Refused { .. }),
    };
    if failed && let Some(reason) = runtime.block_on(why_closed(&socket, args)) {
        show.closed(reason);
    }
    match made {
        Ok(effect) => show.effect(&effect),
        Err(error) => show.error(&error, &socket),
    }
}

async fn make(
    socket: &Path,
    plugins: &[Field],
    mut exchange: Exchange,
    show: &mut Show,
) -> Result<Effect, ClientError> {
    let mut connection = Connection::open(socket).await?;
    show.prepare(plugins);
    let began = Instant::now();
    let token = connection.prepare(KEY.as_bytes(), plugins).await?;
    show.token(token, began.elapsed());
    show.call(&exchange);
    let id = show.id();
    let began = Instant::now();
    let effect = connection
        .exchange(token, id, &mut exchange, |question, answer| {
            show.question(question, answer);
        })
        .await?;
    show.took(began.elapsed());
    Ok(effect)
}

/// Why the plugins that were called cannot run, where that is the reason: no frame has room for it, but
/// the host's control socket tells those who may ask.
async fn why_closed(socket: &Path, args: &CallArgs) -> Option<String> {
    let listen = format!("unix:{}", socket.display());
    let host = hosts::listening_on(&listen, args.runtime_dir.as_deref()).ok()?;
    let asked = control::client::ask(&host, hyper::Method::GET, "/v1/status", None);
    let status = tokio::time::timeout(CONTROL_PATIENCE, asked).await.ok()?;
    let closed = status.ok()?["closed_routes"].take();
    let mut routes = closed.as_array()?.iter();
    let ours = routes.find(|closed| closed["route"] == KEY)?;
    Some(ours["reason"].as_str()?.to_owned())
}

fn socket(args: &CallArgs, environment: &Environment) -> Result<PathBuf, String> {
    match &args.socket {
        // As the gateway writes it, too.
        Some(path) => Ok(
            match path.to_str().and_then(|path| path.strip_prefix("unix:")) {
                Some(path) => path.into(),
                None => path.clone(),
            },
        ),
        None => match config::listen_address(environment) {
            Ok(address) => Ok(address.path().to_owned()),
            Err(_)
                if environment
                    .get_os(config::settings::GATEWAY_LISTEN_VARIABLE)
                    .is_none() =>
            {
                Err(
                    "which host? give its socket with --socket, or in APISIX_LISTEN_ADDRESS"
                        .to_owned(),
                )
            }
            Err(errors) => Err(errors.to_string()),
        },
    }
}

fn plugins(args: &CallArgs) -> Result<Vec<Field>, String> {
    match &args.conf {
        Some(conf) => conf_list(&output::text_or_file("--conf", conf)?),
        None => args.plugins.iter().map(|plugin| named(plugin)).collect(),
    }
}

/// `NAME`, `NAME=CONF` or `NAME=@FILE`.
fn named(plugin: &str) -> Result<Field, String> {
    let (name, conf) = match configuration_begins(plugin) {
        Some(equals) => (&plugin[..equals], &plugin[equals + 1..]),
        None => (plugin, ""),
    };
    if name.is_empty() {
        return Err(format!("--plugin {plugin}: write NAME or NAME=CONF"));
    }
    Ok(Field::new(name, output::text_or_file("--plugin", conf)?))
}

/// The first equals sign that is not part of a version requirement, as in `say@>=1.2={}`.
fn configuration_begins(plugin: &str) -> Option<usize> {
    let equals = plugin.match_indices('=').map(|(place, _)| place);
    let bytes = plugin.as_bytes();
    equals
        .into_iter()
        .find(|&place| place == 0 || !b"@<>, ".contains(&bytes[place - 1]))
}

/// The list as it stands in a route. A value that is not a string is written as JSON: that is what
/// its author means.
fn conf_list(json: &[u8]) -> Result<Vec<Field>, String> {
    let shape = || "--conf: write a list of {\"name\": \"...\", \"value\": \"...\"}".to_owned();
    let list: serde_json::Value =
        serde_json::from_slice(json).map_err(|error| format!("--conf: {error}"))?;
    let plugins = list.as_array().ok_or_else(shape)?;
    plugins
        .iter()
        .map(|plugin| {
            let name = plugin.get("name").and_then(|name| name.as_str());
            let value = match plugin.get("value") {
                None => String::new(),
                Some(serde_json::Value::String(text)) => text.clone(),
                Some(other) => other.to_string(),
            };
            Ok(Field::new(name.ok_or_else(shape)?, value))
        })
        .collect()
}

fn exchange(args: &CallArgs) -> Result<Exchange, String> {
    let body = match &args.data {
        Some(data) => Some(output::text_or_file("--data", data)?),
        None => None,
    };
    let draft = Draft {
        method: args.request,
        target: args.target.clone(),
        headers: args.headers.clone(),
        client: args.client_ip,
        body,
        status: (args.phase == Phase::Response).then_some(args.status),
        variables: args.variables.clone(),
    };
    Ok(draft.complete())
}

fn method(text: &str) -> Result<Method, String> {
    text.parse().map_err(|error| format!("{error}"))
}

fn header(text: &str) -> Result<Header, String> {
    let (name, value) = match (text.split_once(':'), text.strip_suffix(';')) {
        (Some((name, value)), _) => (name, Some(value.trim())),
        (None, Some(name)) => (name, None),
        (None, None) => return Err("write `name: value`".to_owned()),
    };
    if name.is_empty() || name.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Err("write `name: value`".to_owned());
    }
    Ok(match value {
        Some("") => Header::Without(name.into()),
        Some(value) => Header::Given(Field::new(name, value)),
        None => Header::Given(Field::new(name, "")),
    })
}

fn variable(text: &str) -> Result<Field, String> {
    let (name, value) = match text.split_once('=') {
        Some((name, value)) => (name, Some(value.into())),
        None => (text, None),
    };
    if name.is_empty() {
        return Err("write NAME=VALUE".to_owned());
    }
    Ok(Field {
        name: name.into(),
        value,
    })
}

#[cfg(test)]
mod tests;
