//! Benchmarks of the data plane as its gateway sees it: `scripts/bench`, explained in `docs/performance.md`.
//!
//! Servers run in processes of their own and are driven over their sockets, runners and raw echo servers in
//! turn, so that a busy moment of the machine hits all of them. Nothing here is shipped, and nothing here
//! passes or fails: tests assert counts, benchmarks measure.

mod calls;
mod document;
mod floor;
mod load;
mod machine;
mod measurement;
mod plot;
mod processes;
mod servers;
mod suite;

use std::{path::PathBuf, time::Duration};

use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand};
use rustix::process::{Resource, getrlimit, setrlimit};

use crate::{
    calls::{Exchange, Phase, RecordedCall, Replies},
    floor::FloorArgs,
    load::{Load, Pace},
    measurement::{Measurement, measure},
    servers::Server,
    suite::{Only, Plan},
};

/// Measure plugin-host, and other runners, beside raw echo servers
#[derive(Debug, Parser)]
#[command(name = "scripts/bench", args_conflicts_with_subcommands = true)]
struct Command {
    #[command(subcommand)]
    subcommand: Option<Sub>,
    #[command(flatten)]
    suite: SuiteArgs,
}

#[derive(Debug, Subcommand)]
enum Sub {
    /// Measure one server with a load of your choice
    Drive(DriveArgs),
    /// Be an echo server
    #[command(hide = true)]
    Floor(FloorArgs),
}

#[derive(Debug, Args)]
struct SuiteArgs {
    /// One minute instead of ten: fewer and shorter rounds, and no thousand plugins
    #[arg(long)]
    quick: bool,
    /// Write docs/performance.md with its plots and numbers
    #[arg(long)]
    write: bool,
    /// Print JSON in place of tables
    #[arg(long)]
    json: bool,
    /// Measure these parts only
    #[arg(long, value_delimiter = ',', value_name = "PART")]
    only: Vec<Only>,
    /// Another runner: a command line, started with APISIX_LISTEN_ADDRESS; it must know the plugin `say`
    #[arg(long, value_name = "NAME=COMMAND", value_parser = pair)]
    runner: Vec<(String, String)>,
    /// Another runner that listens already
    #[arg(long, value_name = "NAME=PATH", value_parser = pair)]
    socket: Vec<(String, String)>,
    /// plugin-host once more, with these flags
    #[arg(long, value_name = "NAME=FLAGS", value_parser = pair)]
    variant: Vec<(String, String)>,
    /// How often everything is measured
    #[arg(long, value_name = "NUMBER")]
    rounds: Option<usize>,
}

#[derive(Debug, Args)]
struct DriveArgs {
    /// Where the server listens
    socket: PathBuf,
    /// The route's plugin and its configuration
    #[arg(long, value_name = "NAME=CONFIGURATION", value_parser = pair, default_value = r#"say={"body":"hello"}"#)]
    plugin: (String, String),
    /// A recording in proto/tests/captures
    #[arg(long, default_value = "say-browser")]
    recording: String,
    /// Which of its calls
    #[arg(long, value_enum, default_value = "request")]
    phase: Phase,
    /// Bytes of the body, where the server asks for it
    #[arg(long, value_name = "BYTES", default_value_t = 0)]
    body: usize,
    /// A variable that the server may ask for; others are not there
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair)]
    variable: Vec<(String, String)>,
    #[arg(long, value_name = "NUMBER", default_value_t = 64)]
    connections: usize,
    /// Calls in a second; without it, every connection sends as soon as it can
    #[arg(long, value_name = "NUMBER")]
    rate: Option<u32>,
    #[arg(long, value_name = "NUMBER", default_value_t = 5)]
    seconds: u64,
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("expected NAME=...")?;
    Ok((name.to_owned(), value.to_owned()))
}

fn main() -> Result<()> {
    let command = Command::parse();
    raise_open_files()?;
    match command.subcommand {
        Some(Sub::Floor(args)) => floor::run(&args),
        Some(Sub::Drive(args)) => drive(&args),
        None => run_suite(&command.suite),
    }
}

/// A thousand connections are more than a shell allows; what is started here inherits the limit.
fn raise_open_files() -> Result<()> {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    Ok(setrlimit(Resource::Nofile, limit)?)
}

fn run_suite(args: &SuiteArgs) -> Result<()> {
    let mut plan = if args.quick {
        Plan::quick()
    } else {
        Plan::whole()
    };
    if !args.only.is_empty() {
        plan.only.clone_from(&args.only);
    }
    plan.rounds = args.rounds.unwrap_or(plan.rounds);
    plan.runners.clone_from(&args.runner);
    plan.sockets.clone_from(&args.socket);
    plan.variants.extend_from_slice(&args.variant);
    let report = suite::run(&plan)?;
    if args.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        println!("{}", report.tables());
    }
    if args.write {
        document::write(&report)?;
    }
    Ok(())
}

fn drive(args: &DriveArgs) -> Result<()> {
    let server = Server::running("server", &args.socket)?;
    let (plugin, configuration) = &args.plugin;
    let mut exchange = Exchange::open(&server.socket)?;
    let token = exchange.prepare("route#bench", plugin, configuration)?;
    let call = RecordedCall::load(&args.recording, args.phase)?.with_token(token)?;
    let replies = Replies::new(args.body, &args.variable)?;
    exchange
        .call(&call, &replies)
        .context("before the measurement")?;
    let load = Load {
        connections: args.connections,
        pace: args.rate.map_or(Pace::Closed, Pace::PerSecond),
        warm_up: Duration::from_millis(300),
        duration: Duration::from_secs(args.seconds),
        calls: &[call],
        replies: &replies,
    };
    let mut measurement = Measurement::new(&server.name, &load);
    let sample = measure(&server, &load)?;
    measurement.samples.push(sample);
    println!("{}", measurement::table("", &[measurement]));
    if sample.body_rate > 0.0 {
        println!("bodies: {:.2} GiB/s", sample.body_rate);
    }
    Ok(())
}
