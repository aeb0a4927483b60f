//! `plugin-host inspect`: what a package holds. Nothing of it is written or loaded.

use std::{
    fmt::Write as _,
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

use clap::Args;
use serde_json::json;

use super::output;
use crate::plugin::package::{MAX_PACKAGE_BYTES, Package, PackageError, Platform};

/// Digits of a digest that is shown to people.
const SHOWN_DIGITS: usize = 12;

const AFTER_HELP: &str = "\
Output of --json: one object with
  name, version    of the plugin
  platforms        those that it has libraries for
  files            {PATH: {bytes, sha256}}: every entry but the manifest

Exit codes: 0 it worked, 1 it did not, 2 a flag or the configuration is wrong.
Here 1 means that it is no package, or a damaged one.";

/// Show what a package holds, without unpacking it
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct InspectArgs {
    /// The package
    #[arg(value_name = "PACKAGE")]
    package: PathBuf,

    /// Show one JSON object
    #[arg(long)]
    json: bool,
}

pub(super) fn inspect(args: &InspectArgs) -> u8 {
    let package = match read(&args.package, &Platform::of_this_host()) {
        Ok(package) => package,
        Err(reason) => return output::fail(&reason),
    };
    let manifest = &package.manifest;
    if args.json {
        let shown = json!({
            "name": manifest.name,
            "version": manifest.version,
            "platforms": package.platforms,
            "files": manifest.files,
        });
        return output::print(&format!("{shown:#}\n"));
    }
    let platforms: Vec<_> = package.platforms.iter().map(ToString::to_string).collect();
    let mut shown = format!(
        "{} {} for {}\n",
        manifest.name,
        manifest.version,
        platforms.join(", ")
    );
    for (path, facts) in &manifest.files {
        let digest: String = facts
            .sha256
            .to_string()
            .chars()
            .take(SHOWN_DIGITS)
            .collect();
        let _ = writeln!(shown, "  {digest} {:>10} {path}", facts.bytes);
    }
    output::print(&shown)
}

/// Reads a package, for commands that are given one.
pub(super) fn read(path: &Path, platform: &Platform) -> Result<Package, String> {
    let bytes = bytes_of(path)?;
    Package::read(&bytes, platform).map_err(|error| told(path, &error))
}

/// What is wrong with a package, for people.
pub(super) fn told(path: &Path, error: &PackageError) -> String {
    format!("{}: {error} ({})", path.display(), error.next_step())
}

/// The bytes of a file that is no larger than a package may be.
pub(super) fn bytes_of(path: &Path) -> Result<Vec<u8>, String> {
    let told = |reason: &dyn std::fmt::Display| format!("{}: {reason}", path.display());
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MAX_PACKAGE_BYTES + 1).read_to_end(&mut bytes))
        .map_err(|error| told(&error))?;
    match bytes.len() as u64 > MAX_PACKAGE_BYTES {
        true => Err(told(&format!("it has more than {MAX_PACKAGE_BYTES} bytes"))),
        false => Ok(bytes),
    }
}
