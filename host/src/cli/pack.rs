//! `plugin-host pack`: a package of a plugin's files.
//!
//! What belongs into one is `plugin::package`'s to say; here are what was typed and where the result
//! goes.

use std::path::{Path, PathBuf};

use clap::Args;

use super::output;
use crate::plugin::package::{Contents, Elsewhere, UnknownPlatform, file_name, pack as make};

const LONG_ABOUT: &str = "\
Make a package of a plugin: one file with its plugin.json, its library for one platform or several, the
texts beside it (README, LICENSE, NOTICE, CHANGELOG) and a manifest with the SHA-256 of each.

The same files give the same bytes. A package dropped into the plugin directory of a host works as a
plugin's directory does; `plugin-host sign` vouches for it.

  plugin-host pack plugins/say
  plugin-host pack . --library target/release/libsay.so \\
      --library target/aarch64-unknown-linux-gnu/release/libsay.so";

/// Make a package of a plugin: one file for all its platforms
#[derive(Debug, Args)]
#[command(long_about = LONG_ABOUT, after_help = super::HELP)]
pub(super) struct PackArgs {
    /// The plugin's directory: its plugin.json, the texts beside it, and, where it is there, the
    /// library that it names
    #[arg(value_name = "DIR")]
    directory: PathBuf,

    /// A library that lies elsewhere; once for each platform. With the platform before it, like
    /// linux-x86_64-gnu=FILE, it has to be for that one
    #[arg(long, value_name = "[PLATFORM=]FILE", value_parser = library)]
    library: Vec<Elsewhere>,

    /// The package [default: NAME-VERSION.plg in the current directory]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

pub(super) fn pack(args: &PackArgs) -> u8 {
    let contents = match Contents::gather(&args.directory, &args.library) {
        Ok(contents) => contents,
        Err(error) => return output::fail(&error.to_string()),
    };
    let packed = match make(&contents) {
        Ok(packed) => packed,
        Err(error) => return output::fail(&format!("{error} ({})", error.next_step())),
    };
    let metadata = &contents.metadata;
    let path = args
        .output
        .clone()
        .unwrap_or_else(|| Path::new(&file_name(&metadata.name, &metadata.version)).into());
    match output::replace_file(&path, &packed) {
        Ok(()) => output::print(&format!("{}\n", path.display())),
        Err(reason) => output::fail(&reason),
    }
}

fn library(text: &str) -> Result<Elsewhere, UnknownPlatform> {
    Ok(match text.split_once('=') {
        Some((platform, file)) => Elsewhere {
            platform: Some(platform.parse()?),
            path: file.into(),
        },
        None => Elsewhere {
            platform: None,
            path: text.into(),
        },
    })
}
