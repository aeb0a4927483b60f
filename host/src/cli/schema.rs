//! `plugin-host schema`: what a plugin says a route's configuration has to look like.
//!
//! Which schema counts is `plugin::check`'s to say; here are what was typed and how it is printed.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use clap::Args;

use super::{check::THIS_PROGRAM, output};
use crate::{
    config::{Config, Environment, Flags, OfPlugins, settings},
    plugin::{
        check::{self, Kind},
        discovery::{Candidate, Discovery, discover_trusted},
        package::is_package,
        registry::Requested,
        signature::Trust,
    },
};

const LONG_ABOUT: &str = "\
Print the JSON Schema of a plugin's configuration: what a route may say to it.

`config_schema` of plugin.json counts, or else what the library brings along, which it has from the
`JsonSchema` of the plugin's configuration type. For the second the library is OPENED, WHICH RUNS ITS
CONSTRUCTORS, in a process of its own as `plugin-host check` does; the plugin is not constructed. No
running host is needed.

  plugin-host schema say --plugin-dir plugins
  plugin-host schema target/release/libsay.so";

/// Print the JSON Schema of a plugin's configuration
#[derive(Debug, Args)]
#[command(long_about = LONG_ABOUT, after_help = super::HELP)]
pub(super) struct SchemaArgs {
    /// The plugin: NAME or NAME@REQUIREMENT of the plugin directory, the path of a plugin's own
    /// directory, of a package, or of a library; a path has a / in it, or ends with .so or .plg
    #[arg(value_name = "PLUGIN")]
    plugin: String,

    /// Directory with one directory per plugin, for a plugin by its name [env:
    /// PLUGIN_HOST_PLUGIN_DIR]
    #[arg(long, value_name = "DIR")]
    plugin_dir: Option<String>,

    /// Configuration file of the host, which may name that directory [env: PLUGIN_HOST_CONFIG]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

pub(super) fn schema(args: &SchemaArgs) -> u8 {
    let candidate = configured(args).and_then(|configured| match is_path(&args.plugin) {
        true => at(Path::new(&args.plugin), &configured.trust),
        false => named(args, &configured),
    });
    let candidate = match candidate {
        Ok(candidate) => candidate,
        Err(NotFound::Usage(reason)) => return output::refuse(&reason),
        Err(NotFound::Plugin(reason)) => return output::fail(&reason),
    };
    let metadata = &candidate.metadata;
    match check::config_schema(&candidate, Path::new(THIS_PROGRAM)) {
        Ok(Some(schema)) => output::print(&format!("{schema:#}\n")),
        Ok(None) => output::fail(&format!(
            "{} {} has no schema: let its configuration type derive `JsonSchema`, or write \
             `config_schema` into its plugin.json",
            metadata.name, metadata.version
        )),
        Err(error) => output::fail(&format!(
            "{} {}: {error}; {}",
            metadata.name,
            metadata.version,
            error.next_step()
        )),
    }
}

/// Why there is no plugin to ask.
enum NotFound {
    /// What was typed is wrong.
    Usage(String),
    /// It is not there, or its files are not good.
    Plugin(String),
}

/// Where a name may stand, so may a path: it is told by its looks, so that what a directory holds by
/// chance does not matter.
fn is_path(plugin: &str) -> bool {
    plugin.contains('/')
        || plugin.ends_with(".so")
        || is_package(plugin)
        || matches!(plugin, "." | "..")
}

fn at(path: &Path, trust: &Arc<Trust>) -> Result<Candidate, NotFound> {
    if let Err(error) = path.symlink_metadata() {
        return Err(NotFound::Usage(format!("{}: {error}", path.display())));
    }
    let (kind, mut discovery) = check::look(path, trust);
    let several = discovery.found.len() > 1 || kind == Kind::Directory;
    match discovery.found.pop() {
        Some(candidate) if !several => Ok(candidate),
        Some(_) => Err(NotFound::Usage(format!(
            "{} is a directory of plugins: say which with NAME --plugin-dir {0}",
            path.display()
        ))),
        None => Err(problems(&discovery, |_| true)
            .unwrap_or_else(|| NotFound::Plugin(format!("{}: no plugin", path.display())))),
    }
}

fn configured(args: &SchemaArgs) -> Result<OfPlugins, NotFound> {
    let mut flags = Flags::new();
    if let Some(file) = &args.config {
        flags = flags.with_config_file(file);
    }
    if let Some(plugin_dir) = &args.plugin_dir {
        flags = flags.with(&settings::PLUGIN_DIR, plugin_dir);
    }
    Config::plugins(&flags, &Environment::of_process())
        .map_err(|errors| NotFound::Usage(errors.to_string()))
}

fn named(args: &SchemaArgs, configured: &OfPlugins) -> Result<Candidate, NotFound> {
    let requested =
        Requested::parse(&args.plugin).map_err(|error| NotFound::Usage(error.to_string()))?;
    let mut discovery = discover_trusted(&configured.directory, &configured.trust);
    // By version, the highest last.
    let found = discovery.found.iter().rposition(|candidate| {
        let metadata = &candidate.metadata;
        requested.fits(&metadata.name, &metadata.version)
            && (requested.requirement.is_some() || metadata.version.pre.is_empty())
    });
    match found {
        Some(index) => Ok(discovery.found.swap_remove(index)),
        None => Err(problems(&discovery, |problem| {
            problem
                .plugin
                .as_ref()
                .is_none_or(|name| *name == requested.name)
        })
        .unwrap_or_else(|| {
            NotFound::Plugin(format!(
                "no plugin `{}` in {}",
                args.plugin,
                configured.directory.display()
            ))
        })),
    }
}

/// What is wrong with the files that may be meant.
fn problems(
    discovery: &Discovery,
    concerns: impl Fn(&crate::plugin::discovery::Problem) -> bool,
) -> Option<NotFound> {
    let told: Vec<_> = discovery
        .problems
        .iter()
        .filter(|problem| concerns(problem))
        .map(ToString::to_string)
        .collect();
    (!told.is_empty()).then(|| NotFound::Plugin(told.join("\n")))
}
