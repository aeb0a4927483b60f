//! `plugin-host verify`: whether somebody who is trusted vouches for a plugin. Nothing of it is loaded.

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
    time::SystemTime,
};

use clap::Args;

use super::{FAILURE, output, sign::subject};
use crate::{
    cli::output::Paint,
    config::Environment,
    plugin::{
        manager::SignatureStatus,
        signature::{MAX_SIGNATURE_BYTES, Signature, TrustedKey, beside, judge},
    },
};

const AFTER_HELP: &str = "\
Output of --json: one object with
  path             the file that stands for the plugin, and that is signed
  state            signed, unsigned, modified, invalid or expired
  key_id, signer   the key that has made the signature, and its file's name
  comment          what is signed beside the plugin
  expires          until when the signature counts, or null
  reason           why it does not count, or null

Exit codes: 0 it worked, 1 it did not, 2 a flag or the configuration is wrong.
Here 0 means that it is signed, and 1 that no signature counts.";

/// Say whether a trusted key has signed a plugin
///
/// A package, a plugin's directory or a library, as `plugin-host sign` and `minisign -S` sign it. Of a
/// directory the library is compared with the digest in the signed plugin.json.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct VerifyArgs {
    /// The package, the plugin's directory, or the library
    #[arg(value_name = "PLUGIN")]
    plugin: PathBuf,

    /// A public key that is trusted
    #[arg(long, value_name = "FILE", required_unless_present = "trusted_keys")]
    key: Vec<PathBuf>,

    /// A directory of public keys that are trusted, in files whose names end with .pub
    #[arg(long, value_name = "DIR")]
    trusted_keys: Option<PathBuf>,

    /// Show one JSON object
    #[arg(long)]
    json: bool,
}

pub(super) fn verify(args: &VerifyArgs) -> u8 {
    let keys = match keys_of(args) {
        Ok(keys) => keys,
        Err(reason) => return output::refuse(&reason),
    };
    let judged = subject(&args.plugin).and_then(|subject| {
        let signature = read(&beside(&subject.path))?;
        let judged = judge(
            &subject.bytes,
            signature.as_deref(),
            &keys,
            SystemTime::now(),
        );
        Ok((subject.path, judged))
    });
    let (path, signature) = match judged {
        Ok(judged) => judged,
        Err(reason) => return output::fail(&reason),
    };
    let counts = matches!(signature, Signature::Signed(_));
    let text = match args.json {
        true => as_json(&path, signature),
        false => as_text(
            &path,
            &signature,
            Paint::of_stdout(&Environment::of_process()),
        ),
    };
    match output::print(&text) {
        0 if !counts => FAILURE,
        code => code,
    }
}

fn as_json(path: &Path, signature: Signature) -> String {
    let mut shown = serde_json::to_value(SignatureStatus::now(signature))
        .expect("a status is texts and nothing else");
    shown["path"] = path.to_string_lossy().into();
    format!("{shown:#}\n")
}

fn as_text(path: &Path, signature: &Signature, paint: Paint) -> String {
    let words = output::shown(signature.to_string().as_bytes());
    let words = match signature {
        Signature::Signed(_) => paint.good(&words),
        _ => paint.bad(&words),
    };
    let mut shown = format!("{}: {words}\n", path.display());
    if let Some(signer) = signature.signer() {
        let comment = output::shown(signer.comment.as_bytes());
        shown.push_str(&format!("  it says: {comment}\n"));
    }
    shown
}

fn keys_of(args: &VerifyArgs) -> Result<Vec<TrustedKey>, String> {
    let mut keys = args
        .key
        .iter()
        .map(|path| TrustedKey::read(path))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| error.to_string())?;
    if let Some(directory) = &args.trusted_keys {
        keys.extend(TrustedKey::all_in(directory).map_err(|error| error.to_string())?);
    }
    Ok(keys)
}

/// A signature's file; none where there is none.
fn read(path: &Path) -> Result<Option<Vec<u8>>, String> {
    let mut bytes = Vec::new();
    let read = File::open(path)
        .and_then(|file| file.take(MAX_SIGNATURE_BYTES + 1).read_to_end(&mut bytes));
    match read {
        Ok(_) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(format!("{}: {error}", path.display())),
    }
}
