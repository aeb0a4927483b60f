//! `plugin-host check`: whether plugins are fit to be loaded, and whether they load, without a
//! host.
//!
//! The judgement is `plugin::check`'s; here are what was typed, the table, and the JSON. The
//! hidden command `rehearse` is the process in which a plugin is loaded.

use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use comfy_table::Table;
use serde_json::{Value, json};

use super::output::{self, Paint};
use super::{FAILURE, USAGE};
use crate::config::{Config, Environment, Flags, OfPlugins};
use crate::plugin::check::{self, Checked, CheckedPlugin, Finding, Kind, Options};
use crate::plugin::discovery::Fault;
use crate::plugin::metadata::FILE_NAME;
use crate::plugin::rehearsal::{self, Rehearsed};

/// This very program, also where its file has been replaced meanwhile.
pub(super) const THIS_PROGRAM: &str = "/proc/self/exe";

/// Digits of a digest that the table shows.
const SHOWN_DIGITS: usize = 12;

const LONG_ABOUT: &str = "\
Check plugins without a host: one plugin's directory, a package, a library, or a directory of plugins.

First the files are judged, as a host does, and stricter: an unknown field of plugin.json is a
mistake here. Nothing of a plugin runs for that.

Then each good plugin is LOADED, WHICH RUNS ITS CODE: its library is opened in a process of its
own, its layout checked, the plugin constructed with its settings, `on_load` and `on_unload` run.
That process has --load-time, dies with this one, and what the plugin does to it (a crash, an exit, a
hang) is reported as the plugin's. It is no sandbox: the code runs as the user who runs this
command. --no-load leaves this part out.";

const AFTER_HELP: &str = "\
Output of --json: one object with
  path, kind   what was checked; \"plugin\", \"package\", \"library\" or \"directory\"
  good         whether nothing is wrong
  plugins      those whose files are good: [{name, version, abi, execution, failure_policy,
               bytes, sha256, compiler, library, schema, loads, load_ms, output, warnings, good}];
               schema is where the JSON Schema of its configuration comes from: \"plugin.json\",
               \"library\", or null where there is none or the library was not asked; loads is
               true, false, or null where it was not tried; output is what the plugin logged and
               printed
  problems     [{path, plugin, version, message, next_step, fault}]; fault is \"author\",
               \"operator\" or \"host\": who can mend it

Exit codes: 0 it worked, 1 it did not, 2 a flag or the configuration is wrong.
Here 0 means that all plugins are good, and 1 that something is wrong with one.";

/// Check plugins without a host
#[derive(Debug, Args)]
#[command(long_about = LONG_ABOUT, after_help = AFTER_HELP)]
pub(super) struct CheckArgs {
    /// A plugin's directory, a package, a library, or a directory of plugins
    #[arg(value_name = "DIR")]
    path: PathBuf,

    /// Judge the files only: run nothing of any plugin
    #[arg(long)]
    no_load: bool,

    /// How long loading one plugin may take
    #[arg(long, value_name = "SECONDS", default_value_t = rehearsal::TIME.as_secs(),
          value_parser = clap::value_parser!(u64).range(1..=600), conflicts_with = "no_load")]
    load_time: u64,

    /// A route's configuration that the plugin has to accept; only where one plugin is checked.
    /// @FILE reads it from a file
    #[arg(long, value_name = "CONF", conflicts_with = "no_load")]
    conf: Option<String>,

    /// Configuration file of the host: plugins are loaded with the settings that it gives them
    /// [env: PLUGIN_HOST_CONFIG]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// Show one JSON object instead of a table
    #[arg(long)]
    json: bool,
}

/// Load one plugin, as the process on the other end of standard input says
#[derive(Debug, Args)]
#[command(name = rehearsal::COMMAND, hide = true, after_help = super::HELP)]
pub(super) struct RehearseArgs {}

pub(super) fn check(args: &CheckArgs) -> u8 {
    let environment = Environment::of_process();
    let configured = match of_plugins(args, &environment) {
        Ok(configured) => configured,
        Err(reason) => return output::refuse(&reason),
    };
    let configuration = match &args.conf {
        Some(conf) => match output::text_or_file("--conf", conf) {
            Ok(configuration) => Some(configuration),
            Err(reason) => return output::refuse(&reason),
        },
        None => None,
    };
    if let Err(error) = args.path.symlink_metadata() {
        return output::refuse(&format!("{}: {error}", args.path.display()));
    }
    let (kind, discovery) = check::look(&args.path, &configured.trust);
    if configuration.is_some() && discovery.found.len() > 1 {
        return output::refuse("--conf is for one plugin: name its directory");
    }
    let options = Options {
        operator: &configured.operator,
        http_client: &configured.http_client,
        program: (!args.no_load).then_some(Path::new(THIS_PROGRAM)),
        configuration: configuration.as_deref(),
        load_time: Duration::from_secs(args.load_time),
    };
    let checked = check::check(&args.path, kind, discovery, &options);
    let text = match args.json {
        true => format!("{:#}\n", as_json(&args.path, &checked)),
        false => as_text(&args.path, &checked, Paint::of_stdout(&environment)),
    };
    match output::print(&text) {
        0 if !checked.good() => FAILURE,
        code => code,
    }
}

/// The process that a rehearsal starts. What the plugin logs goes to standard error, which whoever
/// started it reads.
pub(super) fn rehearse() -> u8 {
    tracing_subscriber::fmt()
        .with_writer(io::stderr)
        .with_ansi(false)
        .without_time()
        .init();
    match rehearsal::perform() {
        Ok(()) => 0,
        Err(error) => {
            output::complain(&format!("this command is for plugin-host itself: {error}"));
            USAGE
        }
    }
}

fn of_plugins(args: &CheckArgs, environment: &Environment) -> Result<OfPlugins, String> {
    let flags = match &args.config {
        Some(file) => Flags::new().with_config_file(file),
        None => Flags::new(),
    };
    Config::plugins(&flags, environment).map_err(|errors| errors.to_string())
}

fn as_text(path: &Path, checked: &Checked, paint: Paint) -> String {
    let what = match checked.kind {
        Kind::Plugin => "a plugin",
        Kind::Library => "a library",
        Kind::Package => "a package",
        Kind::Directory => "a directory of plugins",
    };
    let mut text = format!("{}: {what}\n", path.display());
    if !checked.plugins.is_empty() {
        let _ = writeln!(text, "\n{}", table(&checked.plugins).trim_end());
    }
    for plugin in &checked.plugins {
        let metadata = &plugin.candidate.metadata;
        let warnings = &plugin.candidate.warnings;
        for warning in warnings.iter().filter(|w| w.as_mistake().is_none()) {
            let note = paint.dim("note:");
            let _ = writeln!(
                text,
                "\n{note} {} {}: {warning}",
                metadata.name, metadata.version
            );
        }
    }
    for finding in &checked.findings {
        let _ = write!(text, "\n{}", finding_text(finding, paint));
        let printed = checked
            .plugins
            .iter()
            .find(|plugin| is_about(finding, plugin));
        if let Some(printed) = printed.map(output_of).filter(|output| !output.is_empty()) {
            let _ = writeln!(text, "  its output:");
            for line in printed.lines() {
                let _ = writeln!(text, "    {}", output::shown(line.as_bytes()));
            }
        }
    }
    let good = checked.plugins.iter().filter(|plugin| plugin.good).count();
    let _ = match checked.findings.len() {
        0 => writeln!(
            text,
            "\n{}",
            paint.good(&counted(good, "good plugin", "good plugins"))
        ),
        problems => writeln!(
            text,
            "\n{}",
            paint.bad(&format!(
                "{}, {}",
                counted(good, "good plugin", "good plugins"),
                counted(problems, "problem", "problems")
            ))
        ),
    };
    text
}

fn table(plugins: &[CheckedPlugin]) -> String {
    let mut table = Table::new();
    table.load_preset(comfy_table::presets::NOTHING);
    table.set_header([
        "plugin",
        "version",
        "abi",
        "execution",
        "failures",
        "size",
        "sha256",
        "loads",
    ]);
    for plugin in plugins {
        let candidate = &plugin.candidate;
        let mut digest = candidate.digest.to_string();
        digest.truncate(SHOWN_DIGITS);
        let loads = match &plugin.rehearsed {
            None => "not tried".to_owned(),
            Some(rehearsed) => match rehearsed.result {
                Ok(()) => format!("in {} ms", rehearsed.took.as_millis()),
                Err(_) => "no".to_owned(),
            },
        };
        table.add_row([
            candidate.metadata.name.to_string(),
            candidate.metadata.version.to_string(),
            candidate.build_info.abi_version.clone(),
            plugin.execution.to_string(),
            plugin.failure_policy.to_string(),
            size(candidate.bytes.len()),
            digest,
            loads,
        ]);
    }
    let lines: Vec<_> = table
        .lines()
        .map(|line| line.trim_end().to_owned())
        .collect();
    lines.join("\n")
}

fn finding_text(finding: &Finding, paint: Paint) -> String {
    let plugin = match (&finding.plugin, &finding.version) {
        (Some(plugin), Some(version)) => format!("{plugin} {version}: "),
        (Some(plugin), None) => format!("{plugin}: "),
        _ => String::new(),
    };
    format!(
        "{} {}\n  {plugin}{}\n  next, {}: {}\n",
        paint.bad("wrong:"),
        finding.path.display(),
        finding.message,
        finding.fault,
        finding.next_step
    )
}

fn as_json(path: &Path, checked: &Checked) -> Value {
    let kind = match checked.kind {
        Kind::Plugin => "plugin",
        Kind::Library => "library",
        Kind::Package => "package",
        Kind::Directory => "directory",
    };
    let plugins: Vec<_> = checked.plugins.iter().map(plugin_json).collect();
    let problems: Vec<_> = checked.findings.iter().map(finding_json).collect();
    json!({
        "path": path.to_string_lossy(),
        "kind": kind,
        "good": checked.good(),
        "plugins": plugins,
        "problems": problems,
    })
}

fn plugin_json(plugin: &CheckedPlugin) -> Value {
    let candidate = &plugin.candidate;
    let warnings: Vec<_> = candidate.warnings.iter().map(ToString::to_string).collect();
    json!({
        "name": candidate.metadata.name.as_str(),
        "version": candidate.metadata.version.to_string(),
        "abi": candidate.build_info.abi_version,
        "execution": plugin.execution.to_string(),
        "failure_policy": plugin.failure_policy.to_string(),
        "bytes": candidate.bytes.len(),
        "sha256": candidate.digest.to_string(),
        "compiler": candidate.build_info.compiler,
        "library": candidate.library_path.to_string_lossy(),
        "schema": match (&candidate.metadata.config_schema, &plugin.rehearsed) {
            (Some(_), _) => Some(FILE_NAME),
            (None, Some(Rehearsed { config_schema: Some(_), .. })) => Some("library"),
            _ => None,
        },
        "loads": plugin.rehearsed.as_ref().map(|rehearsed| rehearsed.result.is_ok()),
        "load_ms": plugin.rehearsed.as_ref().map(|rehearsed| {
            u64::try_from(rehearsed.took.as_millis()).unwrap_or(u64::MAX)
        }),
        "output": output_of(plugin),
        "warnings": warnings,
        "good": plugin.good,
    })
}

fn finding_json(finding: &Finding) -> Value {
    json!({
        "path": finding.path.to_string_lossy(),
        "plugin": finding.plugin,
        "version": finding.version,
        "message": finding.message,
        "next_step": finding.next_step,
        "fault": match finding.fault {
            Fault::Author => "author",
            Fault::Operator => "operator",
            Fault::Host => "host",
        },
    })
}

/// Whether a problem is what happened when a plugin was loaded.
fn is_about(finding: &Finding, plugin: &CheckedPlugin) -> bool {
    let failed = plugin
        .rehearsed
        .as_ref()
        .is_some_and(|rehearsed| rehearsed.result.is_err());
    failed && finding.path == plugin.candidate.library_path
}

fn output_of(plugin: &CheckedPlugin) -> &str {
    plugin
        .rehearsed
        .as_ref()
        .map_or("", |rehearsed| &rehearsed.output)
}

fn counted(number: usize, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

fn size(bytes: usize) -> String {
    const KIB: usize = 1 << 10;
    const MIB: usize = 1 << 20;
    match bytes {
        0..KIB => format!("{bytes} B"),
        KIB..MIB => format!("{} KiB", bytes / KIB),
        _ => format!("{}.{} MiB", bytes / MIB, bytes % MIB * 10 / MIB),
    }
}
