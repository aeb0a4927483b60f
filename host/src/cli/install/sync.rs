//! `plugin-host sync`: a plugin directory gets what its `plugins.toml` declares.

use std::path::PathBuf;

use clap::Args;
use comfy_table::{Table, presets};
use serde_json::{Value, json};

use super::{
    FAILURE,
    asking::{SourceArgs, TargetArgs},
    output, told, with_directory,
};
use crate::install::{
    declared,
    plan::{Done, Planned, Step},
};

const LONG_ABOUT: &str = "\
Make a plugin directory have the plugins that a file declares: install what is missing, replace what does not
fit any more, and remove what `install` and `sync` have put there and the file does not name. What fits stays,
also where its source has something newer (`update` is for that). A host that runs there follows by itself.

The file, plugins.toml in the plugin directory, says of each plugin where it is from, and which versions will
do:

  [plugins]
  say = { source = \"oci://registry.example/plugins/say\", version = \"^1.2\" }
  limit-req = \"packages/limit-req-0.1.0.plg\"";

/// Make a plugin directory have what its plugins.toml declares
#[derive(Debug, Args)]
#[command(long_about = LONG_ABOUT, after_help = crate::cli::HELP)]
pub(in crate::cli) struct SyncArgs {
    /// The file that declares plugins [default: plugins.toml in the plugin directory]
    #[arg(long, value_name = "FILE")]
    plugins_file: Option<PathBuf>,

    /// Show what would happen, and change nothing
    #[arg(long)]
    dry_run: bool,

    /// Only what plugins.lock names may come, byte for byte
    #[arg(long)]
    locked: bool,

    /// Show a JSON array: [{name, action, version, from, source, error}]; action is keep, restore,
    /// install, upgrade, remove or fail
    #[arg(long, requires = "dry_run")]
    json: bool,

    #[command(flatten)]
    target: TargetArgs,

    #[command(flatten)]
    sources: SourceArgs,
}

pub(in crate::cli) fn sync(args: &SyncArgs) -> u8 {
    with_directory(&args.target, &args.sources, |directory, installer| {
        let file = args.plugins_file.clone();
        let file = file.unwrap_or_else(|| directory.join(declared::FILE));
        let declared = match declared::read(&file) {
            Ok(declared) => declared,
            Err(error) => return Ok(output::refuse(&error.to_string())),
        };
        let plan = installer.plan(&declared, args.locked);
        if args.dry_run {
            let fails = plan.iter().any(|planned| planned.step.is_err());
            let text = match args.json {
                true => format!("{:#}\n", Value::from_iter(plan.iter().map(as_json))),
                false => table(&plan),
            };
            let printed = output::print(&text);
            return Ok(if fails { FAILURE } else { printed });
        }
        let mut failures = 0;
        for planned in plan {
            let name = planned.name.clone();
            match installer.carry_out(planned) {
                Ok(Done::Installed(installed)) => {
                    output::print(&told(&installed));
                }
                Ok(Done::Removed(name, versions)) => {
                    for version in versions {
                        output::print(&format!("{name} {version}: removed\n"));
                    }
                }
                // The others can be brought in line all the same.
                Err(error) => {
                    failures += 1;
                    output::complain(&format!("{name}: {error}"));
                }
            }
        }
        Ok(if failures > 0 { FAILURE } else { 0 })
    })
}

fn action(step: &Step) -> &'static str {
    match step {
        Step::Keep(_) => "keep",
        Step::Restore(_) => "restore",
        Step::Install { from, .. } if from.is_empty() => "install",
        Step::Install { .. } => "upgrade",
        Step::Remove(_) => "remove",
    }
}

fn as_json(planned: &Planned) -> Value {
    let (version, from, source) = match &planned.step {
        Ok(Step::Keep(locked) | Step::Restore(locked)) => (
            json!(locked.version),
            json!([]),
            json!(locked.source.clone()),
        ),
        Ok(Step::Install { resolved, from, .. }) => {
            (json!(null), json!(from), json!(resolved.source.to_string()))
        }
        Ok(Step::Remove(versions)) => (json!(null), json!(versions), json!(null)),
        Err(_) => (json!(null), json!([]), json!(null)),
    };
    json!({
        "name": planned.name.to_string(),
        "action": planned.step.as_ref().map_or("fail", action),
        "version": version,
        "from": from,
        "source": source,
        "error": planned.step.as_ref().err().map(ToString::to_string),
    })
}

fn table(plan: &[Planned]) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header(["plugin", "action", "now", "what"]);
    for planned in plan {
        let (now, what) = match &planned.step {
            Ok(Step::Keep(locked)) => (locked.version.to_string(), locked.source.clone()),
            Ok(Step::Restore(locked)) => (String::new(), locked.source.clone()),
            Ok(Step::Install { resolved, from, .. }) => (listed(from), resolved.source.to_string()),
            Ok(Step::Remove(versions)) => (listed(versions), String::new()),
            Err(error) => (String::new(), error.to_string()),
        };
        table.add_row([
            planned.name.to_string(),
            planned.step.as_ref().map_or("fail", action).to_owned(),
            now,
            output::shown(what.as_bytes()),
        ]);
    }
    format!("{table}\n")
}

fn listed(versions: &[semver::Version]) -> String {
    let versions: Vec<_> = versions.iter().map(ToString::to_string).collect();
    versions.join(", ")
}
