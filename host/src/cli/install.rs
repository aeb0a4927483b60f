//! `plugin-host install`, `update`, `outdated`, `remove`, `sync` and `push`: plugins from elsewhere into a plugin
//! directory, and packages into registries.
//!
//! What happens there is the business of `install` and `sources`; here are what was typed, and what is
//! shown.

mod asking;
mod sync;

use std::path::{Path, PathBuf};

use clap::Args;
use comfy_table::{Table, presets};
use semver::VersionReq;
use serde_json::{Value, json};

use super::{FAILURE, check::THIS_PROGRAM, output};
use crate::{
    config::Environment,
    install::{
        InstallError, Installed, Installer, Outlook,
        declared::{self, Wanted},
    },
    plugin::{
        metadata::{Digest, PluginName},
        package::MAX_PACKAGE_BYTES,
        signature::{MAX_SIGNATURE_BYTES, beside},
    },
    sources::{Source, Sources, read_file},
};
use asking::{Bar, ConfigArgs, SourceArgs, TargetArgs};

pub(super) use sync::{SyncArgs, sync};

const LONG_ABOUT: &str = "\
Install a plugin into a plugin directory, and note in its plugins.lock where it is from and which bytes it
is. A host that runs there loads it, or upgrades to it, by itself.

SOURCE is one of
  PATH                                  a package (.plg), or a plugin's directory
  https://HOST/FILE.plg#sha256=DIGEST   a package on a web server
  oci://HOST/NAME[:TAG]                 a package in a registry; without a tag, the newest version
  git+https://HOST/REPOSITORY           a crate in a git repository, built here; #branch=, #tag= or
                                        #commit= says which commit, &dir= where the crate is

Nothing of a package that is refused is in the directory. BUILDING RUNS CODE of the crate's authors and of
all that it depends on, as the user who runs this command, so it needs --allow-build.";

/// Install a plugin from a file, a URL, a registry or a git repository
#[derive(Debug, Args)]
#[command(long_about = LONG_ABOUT, after_help = super::HELP)]
pub(super) struct InstallArgs {
    /// Where the plugin is from
    #[arg(value_name = "SOURCE", required_unless_present = "locked")]
    source: Option<String>,

    /// SHA-256 of the package behind an https:// URL
    #[arg(long, value_name = "DIGEST", conflicts_with = "locked")]
    sha256: Option<String>,

    /// Only a version that fits, such as ^1.2
    #[arg(
        long,
        value_name = "REQUIREMENT",
        default_value = "*",
        conflicts_with = "locked"
    )]
    version: VersionReq,

    /// Make the directory what its plugins.lock says, and nothing else: where other bytes come than
    /// those that are locked, it fails
    #[arg(long, conflicts_with = "source")]
    locked: bool,

    #[command(flatten)]
    target: TargetArgs,

    #[command(flatten)]
    sources: SourceArgs,
}

/// Install what the sources of installed plugins have now
///
/// A registry's or a repository's newest version that fits what plugins.toml in the plugin directory says of
/// it, where there is one; what a branch or a tag stands for now; a file as it is now. Packages from https://
/// URLs are pinned by their digests and stay.
#[derive(Debug, Args)]
#[command(after_help = super::HELP)]
pub(super) struct UpdateArgs {
    /// Only this plugin
    #[arg(value_name = "NAME", value_parser = name)]
    name: Option<PluginName>,

    #[command(flatten)]
    target: TargetArgs,

    #[command(flatten)]
    sources: SourceArgs,
}

/// Say which installed plugins `update` would change
#[derive(Debug, Args)]
#[command(after_help = super::HELP)]
pub(super) struct OutdatedArgs {
    /// Show a JSON array: [{name, version, source, outdated, now, error}]; now is what the source
    /// stands for, or null where it is pinned by its digest
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    target: TargetArgs,

    #[command(flatten)]
    sources: SourceArgs,
}

/// Remove a plugin that was installed
#[derive(Debug, Args)]
#[command(after_help = super::HELP)]
pub(super) struct RemoveArgs {
    /// The plugin
    #[arg(value_name = "NAME", value_parser = name)]
    name: PluginName,

    #[command(flatten)]
    target: TargetArgs,
}

/// Put a package into a registry, with its signature where there is one beside it
///
/// Prints the reference with the digest under which it can be had for ever. Without a tag, the version is
/// the tag.
#[derive(Debug, Args)]
#[command(after_help = super::HELP)]
pub(super) struct PushArgs {
    /// The package
    #[arg(value_name = "PACKAGE")]
    package: PathBuf,

    /// Where to: oci://HOST/NAME[:TAG]
    #[arg(value_name = "REFERENCE")]
    to: String,

    #[command(flatten)]
    configuration: ConfigArgs,

    #[command(flatten)]
    sources: SourceArgs,
}

pub(super) fn install(args: &InstallArgs) -> u8 {
    let source = match args
        .source
        .as_deref()
        .map(|text| source_of(text, args.sha256.as_deref()))
    {
        None => None,
        Some(Ok(source)) => Some(source),
        Some(Err(reason)) => return output::refuse(&reason),
    };
    with(&args.target, &args.sources, |installer| {
        let all = match &source {
            Some(source) => vec![installer.install(source, &args.version)?],
            None => installer.install_locked()?,
        };
        Ok(output::print(&all.iter().map(told).collect::<String>()))
    })
}

pub(super) fn update(args: &UpdateArgs) -> u8 {
    with_declared(&args.target, &args.sources, |declared, installer| {
        let mut failures = 0;
        for outlook in installer.outlook(args.name.as_ref(), declared)? {
            let name = outlook.locked.name.clone();
            match installer.update(outlook) {
                Ok(installed) => {
                    output::print(&told(&installed));
                }
                // The others can be updated all the same.
                Err(error) => {
                    failures += 1;
                    output::complain(&format!("{name}: {error}"));
                }
            }
        }
        Ok(if failures > 0 { FAILURE } else { 0 })
    })
}

pub(super) fn outdated(args: &OutdatedArgs) -> u8 {
    with_declared(&args.target, &args.sources, |declared, installer| {
        let all = installer.outlook(None, declared)?;
        let text = match args.json {
            true => format!("{:#}\n", Value::from_iter(all.iter().map(as_json))),
            false => table(&all),
        };
        Ok(output::print(&text))
    })
}

pub(super) fn remove(args: &RemoveArgs) -> u8 {
    with(&args.target, &SourceArgs::default(), |installer| {
        let versions = installer.remove(&args.name)?;
        let lines = versions.iter();
        let lines = lines.map(|version| format!("{} {version}: removed\n", args.name));
        Ok(output::print(&lines.collect::<String>()))
    })
}

pub(super) fn push(args: &PushArgs) -> u8 {
    let to = match args.to.parse() {
        Ok(Source::Oci(reference)) => reference,
        Ok(_) => return output::refuse("a package is pushed to oci://HOST/NAME:TAG"),
        Err(error) => return output::refuse(&error.to_string()),
    };
    let environment = Environment::of_process();
    let settings = args.configuration.read(&environment);
    let settings = settings.and_then(|it| {
        let extra_roots = it.http_client.extra_roots;
        args.sources.settings(extra_roots, &environment)
    });
    let settings = match settings {
        Ok(settings) => settings,
        Err(reason) => return output::refuse(&reason),
    };
    let bar = Bar::new();
    let sources = Sources::new(&settings, THIS_PROGRAM.as_ref(), &bar);
    let signature = beside(&args.package);
    let pushed = read_file(&args.package, MAX_PACKAGE_BYTES).and_then(|package| {
        let signature = match signature.exists() {
            true => Some(read_file(&signature, MAX_SIGNATURE_BYTES)?),
            false => None,
        };
        sources.push(&package, signature.as_deref(), &to)
    });
    bar.end();
    match pushed {
        Ok(reference) => output::print(&format!("{reference}\n")),
        Err(error) => output::fail(&error.to_string()),
    }
}

/// Does something with the plugin directory that was typed.
fn with(
    target: &TargetArgs,
    sources: &SourceArgs,
    act: impl FnOnce(&mut Installer<'_>) -> Result<u8, InstallError>,
) -> u8 {
    with_directory(target, sources, |_, installer| act(installer))
}

/// The same with what its `plugins.toml` declares, where there is one.
fn with_declared(
    target: &TargetArgs,
    sources: &SourceArgs,
    act: impl FnOnce(&[Wanted], &mut Installer<'_>) -> Result<u8, InstallError>,
) -> u8 {
    with_directory(target, sources, |directory, installer| {
        let file = directory.join(declared::FILE);
        let declared = match file.exists() {
            true => declared::read(&file),
            false => Ok(Vec::new()),
        };
        match declared {
            Ok(declared) => act(&declared, installer),
            Err(error) => Ok(output::refuse(&error.to_string())),
        }
    })
}

/// The same where one has to know which it is.
fn with_directory(
    target: &TargetArgs,
    sources: &SourceArgs,
    act: impl FnOnce(&Path, &mut Installer<'_>) -> Result<u8, InstallError>,
) -> u8 {
    let environment = Environment::of_process();
    let found = target.read(&environment).and_then(|of_plugins| {
        let settings = sources.settings(of_plugins.http_client.extra_roots, &environment)?;
        Ok((of_plugins.directory, of_plugins.trust, settings))
    });
    let (directory, trust, settings) = match found {
        Ok(found) => found,
        Err(reason) => return output::refuse(&reason),
    };
    let bar = Bar::new();
    let sources = Sources::new(&settings, THIS_PROGRAM.as_ref(), &bar);
    let done = Installer::new(directory.clone(), &trust, sources)
        .and_then(|mut it| act(&directory, &mut it));
    bar.end();
    done.unwrap_or_else(|error| output::fail(&error.to_string()))
}

fn source_of(text: &str, sha256: Option<&str>) -> Result<Source, String> {
    let mut source: Source = text.parse().map_err(|error| format!("{error}"))?;
    if let Some(digits) = sha256 {
        let digest = Digest::from_hex(digits).map_err(|error| format!("--sha256: {error}"))?;
        match &mut source {
            Source::Https(source) if source.sha256.is_none_or(|it| it == digest) => {
                source.sha256 = Some(digest);
            }
            Source::Https(_) => return Err("--sha256 differs from the one in the URL".to_owned()),
            _ => return Err("--sha256 is for https:// URLs".to_owned()),
        }
    }
    Ok(source)
}

fn told(installed: &Installed) -> String {
    let Installed { name, version, .. } = installed;
    let replaced: Vec<_> = installed.replaced.iter().map(ToString::to_string).collect();
    match (installed.changed, &replaced[..]) {
        (false, _) => format!("{name} {version}: unchanged\n"),
        (true, []) => format!("{name} {version}: installed\n"),
        (true, old) => format!(
            "{name} {version}: installed in the place of {}\n",
            old.join(", ")
        ),
    }
}

fn table(all: &[Outlook]) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header(["plugin", "version", "source", "now"]);
    for outlook in all {
        let now = match &outlook.now {
            None => "pinned by its digest".to_owned(),
            Some(Err(error)) => error.to_string(),
            Some(Ok(resolved)) if outlook.is_outdated() => resolved.source.to_string(),
            Some(Ok(_)) => "the same".to_owned(),
        };
        let locked = &outlook.locked;
        table.add_row([
            locked.name.to_string(),
            locked.version.to_string(),
            locked.source.clone(),
            output::shown(now.as_bytes()),
        ]);
    }
    format!("{table}\n")
}

fn as_json(outlook: &Outlook) -> Value {
    let now = outlook.now.as_ref();
    json!({
        "name": outlook.locked.name.to_string(),
        "version": outlook.locked.version.to_string(),
        "source": outlook.locked.source,
        "outdated": outlook.is_outdated(),
        "now": now.and_then(|now| Some(now.as_ref().ok()?.source.to_string())),
        "error": now.and_then(|now| Some(now.as_ref().err()?.to_string())),
    })
}

fn name(text: &str) -> Result<PluginName, String> {
    PluginName::new(text).map_err(|error| error.to_string())
}
