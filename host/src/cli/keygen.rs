//! `plugin-host keygen`: a key to sign plugins with, and the key to check that by.

use std::path::{Path, PathBuf};

use clap::Args;

use super::{output, password};
use crate::{config::Environment, plugin::signature::KeyPair};

const LONG_ABOUT: &str = "\
Make a key to sign plugins with, in the format of minisign: NAME.key, which is secret, and NAME.pub,
which goes to everybody who should trust it (--trusted-keys of a host).

A password protects the secret key. It is asked for, or read from --password-file, or from the variable
PLUGIN_HOST_KEY_PASSWORD; on the command line everybody could read it.";

/// Make a key to sign plugins with
#[derive(Debug, Args)]
#[command(long_about = LONG_ABOUT, after_help = super::HELP)]
pub(super) struct KeygenArgs {
    /// The files, without their endings; operators see the name of the public one
    #[arg(value_name = "NAME")]
    name: PathBuf,

    /// Read the password from the first line of this file
    #[arg(long, value_name = "FILE", conflicts_with = "no_password")]
    password_file: Option<PathBuf>,

    /// Protect the secret key by nothing but its file's permissions
    #[arg(long)]
    no_password: bool,
}

pub(super) fn keygen(args: &KeygenArgs) -> u8 {
    let secret = ending(&args.name, "key");
    let public = ending(&args.name, "pub");
    for path in [&secret, &public] {
        if path.symlink_metadata().is_ok() {
            let path = path.display();
            return output::fail(&format!("{path} is there already: a key is never replaced"));
        }
    }
    let environment = Environment::of_process();
    let password = match args.no_password {
        true => None,
        false => match password::of_new(args.password_file.as_deref(), &environment) {
            Ok(password) => Some(password),
            Err(reason) => return output::fail(&reason),
        },
    };
    let pair = match KeyPair::generate(password.as_deref()) {
        Ok(pair) => pair,
        Err(error) => return output::fail(&error.to_string()),
    };
    let written = output::create_file(&secret, pair.secret.as_bytes(), 0o600)
        .and_then(|()| output::create_file(&public, pair.public.as_bytes(), 0o644));
    match written {
        Ok(()) => output::print(&format!(
            "{}: the secret key {}; keep it, and nobody else\n{}: the public one, for those who trust it\n",
            secret.display(),
            pair.key_id,
            public.display()
        )),
        Err(reason) => output::fail(&reason),
    }
}

fn ending(name: &Path, ending: &str) -> PathBuf {
    let mut path = name.as_os_str().to_owned();
    path.push(".");
    path.push(ending);
    path.into()
}
