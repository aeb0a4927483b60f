//! `plugin-host reference`: everything that can be set and typed, as a page of the documentation.
//!
//! Made from the table of settings, their own checks and the command line itself, so that the page
//! cannot say anything else; `docs/configuration.md` is its output, which a test compares.

use std::fmt::Write as _;

use clap::{Arg, Args, Command, CommandFactory};

use super::{Cli, output};
use crate::config::{
    reference::bounds_of,
    settings::{self, Kind, Setting},
};

const INTRODUCTION: &str = "\
# Configuration reference

<!-- Written by `plugin-host reference > docs/configuration.md`: change the program, not this file. -->

Everything that `plugin-host` can be told: [the settings of a host](#settings-of-a-host) by flag, environment variable or file, and [the commands](#commands) with their arguments. What the bounds protect, and what happens when one is reached, stands in [operating.md](operating.md#limits).

## Settings of a host

`plugin-host run` takes each as a flag (`--backlog 512` or `--backlog=512`), as an environment variable, and as a key of the configuration file (TOML) that `--config` or `PLUGIN_HOST_CONFIG` names. The flag wins over the variable, that over the file, that over the default. An empty variable counts as not set. A key with a dot stands in a table: `limits.spin` is `spin` below `[limits]`.

| value | is written |
|---|---|
| `DURATION` | a whole number with its unit: `us`, `ms`, `s` or `m`, like `700ms` |
| `BYTES` | a whole number, plain or with `KiB`, `MiB` or `GiB`, like `64MiB` |
| `SECONDS`, `THREADS` and others in the plural | a whole number of those |
| `BOOL` | `true` or `false`; the flag alone means `true`, and takes its value behind `=` |
| `PATH`, `DIR`, `FILE` | a path; one that is not absolute is below the working directory, which under the gateway is the gateway's home |
| `OCTAL` | permissions in octal digits; in the file a text, in quotes |

`plugin-host run --check-config` shows those in force and where each comes from.
";

/// Write the configuration reference as Markdown: settings, commands, arguments
///
/// docs/configuration.md is its output: plugin-host reference > docs/configuration.md
#[derive(Debug, Args)]
#[command(after_help = super::HELP)]
pub(super) struct ReferenceArgs {}

pub(super) fn reference() -> u8 {
    let mut cli = Cli::command();
    cli.build();
    let mut page = INTRODUCTION.to_owned();
    of_settings(&mut page);
    of_plugins(&mut page, &cli);
    of_commands(&mut page, &cli);
    output::print(&page)
}

fn of_settings(page: &mut String) {
    let mut groups: Vec<&str> = settings::ALL.iter().map(|setting| setting.group).collect();
    groups.dedup();
    let mut seen = Vec::new();
    for group in groups {
        // Settings of one group stand together in the help, wherever they are in the table.
        if seen.contains(&group) {
            continue;
        }
        seen.push(group);
        let _ = write!(
            page,
            "\n### {group}\n\n| flag, variable and key | default | bounds | what it is |\n|---|---|---|---|\n"
        );
        for setting in settings::ALL.iter().filter(|one| one.group == group) {
            let _ = writeln!(page, "{}", row_of(setting));
        }
    }
}

fn row_of(setting: &'static Setting) -> String {
    let value = match setting.kind {
        Kind::Switch => format!("[={}]", setting.value_name),
        Kind::Text | Kind::Number => format!(" {}", setting.value_name),
    };
    let default = match setting.default {
        settings::Fallback::Text(text) => format!("`{text}`"),
        settings::Fallback::Described(text) => text.to_owned(),
    };
    format!(
        "| `--{}{}`<br>`{}`<br>`{}` | {} | {} | {} |",
        setting.flag,
        cell(&value),
        setting.variable(),
        setting.key,
        cell(&default),
        bounds_of(setting).unwrap_or_default(),
        cell(setting.help)
    )
}

/// What the help of `run` says of the file's other tables, of signals and of exit codes.
fn of_plugins(page: &mut String, cli: &Command) {
    let run = cli.find_subcommand("run");
    let after = run.and_then(Command::get_after_help);
    let _ = write!(
        page,
        "\n### Settings of plugins, signals, exit codes\n\n```text\n{}\n```\n",
        after.map(ToString::to_string).unwrap_or_default()
    );
}

fn of_commands(page: &mut String, cli: &Command) {
    page.push_str("\n## Commands\n");
    let commands = cli.get_subcommands();
    // What all commands have that ask a running host.
    let shared: Vec<&Arg> = cli
        .find_subcommand("status")
        .map_or_else(Vec::new, |status| {
            let arguments = status.get_arguments();
            arguments.filter(|arg| arg.get_id() != "help").collect()
        });
    let is_shared = |arg: &Arg| {
        let mut shared = shared.iter();
        shared.any(|one| one.get_id() == arg.get_id() && same_help(one, arg))
    };
    page.push_str("\n### Which host\n\nEvery command that asks a running host takes these.\n\n");
    table_of(page, &shared);
    for command in commands.filter(|one| !one.is_hide_set() && one.get_name() != "help") {
        let about = command.get_about().map(ToString::to_string);
        let _ = write!(
            page,
            "\n### plugin-host {}\n\n{}.\n",
            command.get_name(),
            cell(&about.unwrap_or_default())
        );
        let is_own = |arg: &&Arg| {
            let name = arg.get_id().as_str();
            let is_setting = settings::ALL.iter().any(|setting| setting.flag == name);
            !(arg.is_hide_set() || name == "help" || command.get_name() == "run" && is_setting)
        };
        let arguments: Vec<_> = command.get_arguments().filter(is_own).collect();
        let (common, own): (Vec<_>, Vec<_>) = arguments.into_iter().partition(|arg| is_shared(arg));
        if common.len() > 1 {
            page.push_str("\nAsks a running host: [which](#which-host).\n");
        }
        let shown = if common.len() > 1 {
            own
        } else {
            [own, common].concat()
        };
        if !shown.is_empty() {
            page.push('\n');
            table_of(page, &shown);
        }
    }
}

fn same_help(one: &Arg, other: &Arg) -> bool {
    let help = |arg: &Arg| arg.get_help().map(ToString::to_string);
    help(one) == help(other)
}

fn table_of(page: &mut String, arguments: &[&Arg]) {
    page.push_str("| argument | default | what it is |\n|---|---|---|\n");
    for argument in arguments {
        let _ = writeln!(page, "{}", row_of_argument(argument));
    }
}

fn row_of_argument(argument: &Arg) -> String {
    let takes_value = argument.get_action().takes_values();
    let names = argument.get_value_names().unwrap_or_default();
    let values: Vec<String> = names.iter().map(|name| format!("<{name}>")).collect();
    let written = match (argument.get_long(), argument.get_short()) {
        (None, None) if argument.is_required_set() => values.join(" "),
        (None, None) => format!("[{}]", values.join(" ")),
        (long, short) => {
            let short = short.map(|short| format!("-{short}"));
            let long = long.map(|long| format!("--{long}"));
            let flag: Vec<_> = short.into_iter().chain(long).collect();
            match takes_value {
                true => format!("{} {}", flag.join(", "), values.join(" ")),
                false => flag.join(", "),
            }
        }
    };
    let defaults: Vec<_> = argument
        .get_default_values()
        .iter()
        .filter(|_| takes_value)
        .map(|value| format!("`{}`", value.to_string_lossy()))
        .collect();
    let help = argument.get_help().map(ToString::to_string);
    format!(
        "| `{}` | {} | {} |",
        cell(&written),
        defaults.join(", "),
        cell(&help.unwrap_or_default())
    )
}

/// A text on one line of a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}
