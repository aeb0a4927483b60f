//! `plugin-host leash`: runs a command that ends, with all that it has started, when whoever started
//! this does, in whatever way. Started by `plugin-host dev` alone, for cargo and its compilers.

use std::ffi::OsString;
use std::io::Read;
use std::process::{Command, Stdio};

use clap::Args;
use rustix::process::Signal;

use super::output;

/// What was typed after `plugin-host leash`.
#[derive(Debug, Args)]
#[command(hide = true, after_help = super::HELP)]
pub(super) struct LeashArgs {
    /// The command
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<OsString>,
}

pub(super) fn leash(args: &LeashArgs) -> u8 {
    let Some((program, arguments)) = args.command.split_first() else {
        return output::refuse("no command");
    };
    // A group for this and everything below it; nobody else is in it.
    if let Err(error) = rustix::process::setpgid(None, None) {
        return output::fail(&format!("cannot make a process group: {error}"));
    }
    // Nothing is ever written to it: it ends with who holds the other end.
    std::thread::spawn(|| {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        let _ = rustix::process::kill_current_process_group(Signal::KILL);
    });
    let ran = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .status();
    match ran {
        Ok(status) => status
            .code()
            .and_then(|code| u8::try_from(code).ok())
            .unwrap_or(super::FAILURE),
        Err(error) => output::fail(&format!("cannot start {}: {error}", program.display())),
    }
}
