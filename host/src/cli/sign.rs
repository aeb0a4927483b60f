//! `plugin-host sign`: a signature beside a plugin, which says who vouches for it.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use clap::Args;

use super::{inspect, output, password};
use crate::{
    config::Environment,
    plugin::{
        discovery::discover_one,
        metadata::FILE_NAME,
        package::{Package, Platform, is_package},
        signature::{self, SecretKey, Trust, beside},
    },
};

const LONG_ABOUT: &str = "\
Sign a plugin: write a signature in the format of minisign beside it.

What is signed is one file that stands for all of the plugin:
  a package                     the package itself            say.plg.minisig
  a directory with plugin.json  the plugin.json, which has    plugin.json.minisig
                                to pin its library with
                                `source.sha256`
  a library                     the library                   libsay.so.minisig

`minisign -V` verifies these signatures, and hosts those of `minisign -S`. A signature that is there
already is replaced.

A password is asked for where the key has one, or read from --password-file, or from the variable
PLUGIN_HOST_KEY_PASSWORD.";

/// Sign a plugin: a package, a plugin's directory, or a library
#[derive(Debug, Args)]
#[command(long_about = LONG_ABOUT, after_help = super::HELP)]
pub(super) struct SignArgs {
    /// The package, the plugin's directory, or the library
    #[arg(value_name = "PLUGIN")]
    plugin: PathBuf,

    /// The secret key, as `plugin-host keygen` or `minisign -G` makes it
    #[arg(long, value_name = "FILE")]
    key: PathBuf,

    /// Until when the signature counts: a time like 2030-01-31T12:00:00Z, or from now on like 90days
    #[arg(long, value_name = "TIME")]
    expires: Option<String>,

    /// What to sign beside the plugin: one line, which operators see
    #[arg(long, value_name = "TEXT", default_value = "")]
    comment: String,

    /// Read the password of the key from the first line of this file
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
}

pub(super) fn sign(args: &SignArgs) -> u8 {
    let now = SystemTime::now();
    let expires = match args
        .expires
        .as_deref()
        .map(|text| end(text, now))
        .transpose()
    {
        Ok(expires) => expires,
        Err(reason) => return output::refuse(&reason),
    };
    let signed = match subject(&args.plugin) {
        Ok(signed) => signed,
        Err(reason) => return output::fail(&reason),
    };
    let written = key_of(args).and_then(|key| {
        let name = signed
            .path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy();
        let comment = signature::comment(&name, now, expires, &args.comment);
        let signature = key
            .sign(&signed.bytes, &comment)
            .map_err(|error| error.to_string())?;
        let path = beside(&signed.path);
        output::replace_file(&path, signature.as_bytes())?;
        Ok((path, key.key_id()))
    });
    match written {
        Ok((path, key)) => output::print(&format!("{}: signed by key {key}\n", path.display())),
        Err(reason) => output::fail(&reason),
    }
}

/// The file that stands for a plugin.
pub(super) struct Subject {
    pub(super) path: PathBuf,
    pub(super) bytes: Vec<u8>,
}

/// What to sign of a plugin, which has to be whole.
pub(super) fn subject(plugin: &Path) -> Result<Subject, String> {
    let name = plugin.file_name().unwrap_or_default().to_string_lossy();
    if plugin.is_file() {
        let bytes = inspect::bytes_of(plugin)?;
        if is_package(&name) {
            // For whatever platform: who signs need not be able to load it.
            Package::read(&bytes, &Platform::of_this_host())
                .map_err(|error| inspect::told(plugin, &error))?;
        }
        return Ok(Subject {
            path: plugin.to_owned(),
            bytes,
        });
    }
    let mut discovery = discover_one(plugin, &Arc::new(Trust::off()));
    let Some(candidate) = discovery.found.pop() else {
        let problems = discovery.problems.iter().map(ToString::to_string);
        return Err(problems.collect::<Vec<_>>().join("\n"));
    };
    match candidate.document {
        None => Ok(Subject {
            path: candidate.library_path,
            bytes: candidate.bytes,
        }),
        Some(_) if candidate.metadata.sha256().is_none() => Err(format!(
            "{}: it does not pin its library, so that a signature of it would vouch for none: write \
             \"sha256\": \"{}\" into `source`, or sign a package (`plugin-host pack`)",
            plugin.join(FILE_NAME).display(),
            candidate.digest
        )),
        Some(bytes) => Ok(Subject {
            path: plugin.join(FILE_NAME),
            bytes,
        }),
    }
}

fn key_of(args: &SignArgs) -> Result<SecretKey, String> {
    let told = |error: &dyn std::fmt::Display| format!("{}: {error}", args.key.display());
    let text = fs::read_to_string(&args.key).map_err(|error| told(&error))?;
    let password = match signature::is_encrypted(&text) {
        true => Some(password::of(
            &args.key,
            args.password_file.as_deref(),
            &Environment::of_process(),
        )?),
        false => None,
    };
    SecretKey::open(&text, password).map_err(|error| told(&error))
}

/// A moment, or a duration from now on.
fn end(text: &str, now: SystemTime) -> Result<SystemTime, String> {
    let moment = humantime::parse_rfc3339(text).ok();
    let moment = moment.or_else(|| now.checked_add(humantime::parse_duration(text).ok()?));
    let moment = moment.ok_or_else(|| {
        format!("--expires: `{text}` is no time such as 2030-01-31T12:00:00Z, and no duration such as 90days")
    })?;
    match moment > now {
        true => Ok(moment),
        false => Err(format!("--expires: {text} is over")),
    }
}
