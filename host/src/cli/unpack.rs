//! `plugin-host unpack`: a plugin's directory of a package.

use std::path::PathBuf;

use clap::Args;

use super::{inspect, output};
use crate::plugin::package::{Platform, unpack as write};

/// Make a plugin's directory of a package, with its library for this platform
///
/// A host needs no unpacked package. The whole package is checked first; what is not whole, or holds
/// what no package holds, is refused, and nothing of it is written.
#[derive(Debug, Args)]
#[command(after_help = super::HELP)]
pub(super) struct UnpackArgs {
    /// The package
    #[arg(value_name = "PACKAGE")]
    package: PathBuf,

    /// The directory, which must not be there yet [default: the plugin's name]
    #[arg(short, long, value_name = "DIR")]
    output: Option<PathBuf>,

    /// Take the library for another platform than this
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<String>,
}

pub(super) fn unpack(args: &UnpackArgs) -> u8 {
    let platform = match args.platform.as_deref().map(str::parse).transpose() {
        Ok(platform) => platform.unwrap_or_else(Platform::of_this_host),
        Err(error) => return output::refuse(&error.to_string()),
    };
    let package = match inspect::read(&args.package, &platform) {
        Ok(package) => package,
        Err(reason) => return output::fail(&reason),
    };
    let name = package.manifest.name.as_str();
    let directory = args.output.clone().unwrap_or_else(|| name.into());
    match write(package, &directory) {
        Ok(()) => output::print(&format!("{}\n", directory.display())),
        Err(error) => output::fail(&format!("{}: {error}", args.package.display())),
    }
}
