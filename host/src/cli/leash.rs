//! `plugin-host leash`: runs a command that ends, with all that it has started, when whoever started
//! this does, in whatever way. Started by `plugin-host dev`, for cargo and its compilers, and by a host for
//! hooks.

use std::ffi::OsString;
use std::io::{Read, Write};
use std::process::{Command, Stdio};

use clap::Args;
use rustix::process::Signal;

use super::output;

/// What was typed after `plugin-host leash`.
#[derive(Debug, Args)]
#[command(hide = true, after_help = super::HELP)]
pub(super) struct LeashArgs {
    /// Give the command so many bytes of standard input, and no descriptor beside its three
    #[arg(long, value_name = "BYTES")]
    input: Option<u64>,
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
    let mut input = Vec::new();
    if let Some(bytes) = args.input {
        if let Err(error) = std::io::stdin().take(bytes).read_to_end(&mut input) {
            return output::fail(&format!("cannot read the command's input: {error}"));
        }
        close_in_children();
    }
    // Nothing more is written to it: it ends with who holds the other end.
    std::thread::spawn(|| {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        let _ = rustix::process::kill_current_process_group(Signal::KILL);
    });
    let stdin = match args.input {
        Some(_) => Stdio::piped(),
        None => Stdio::null(),
    };
    let started = Command::new(program).args(arguments).stdin(stdin).spawn();
    let ran = started.and_then(|mut child| {
        if let Some(mut stdin) = child.stdin.take() {
            // One that does not read it does not want it.
            let _ = stdin.write_all(&input);
        }
        child.wait()
    });
    match ran {
        Ok(status) => status
            .code()
            .and_then(|code| u8::try_from(code).ok())
            .unwrap_or(super::FAILURE),
        Err(error) => output::fail(&format!("cannot start {}: {error}", program.display())),
    }
}

/// What this process has inherited beside its standard descriptors, mostly what the gateway has left open,
/// goes to no child. A kernel older than 5.11 does not know how; then it stays as it is.
#[allow(
    unsafe_code,
    reason = "there is no safe way to say something of descriptors that nobody here owns"
)]
fn close_in_children() {
    // SAFETY: the call reads no memory of this process and closes nothing in it; it only marks
    // descriptors to be closed in programs that are started later.
    let _ = unsafe { libc::close_range(3, u32::MAX, libc::CLOSE_RANGE_CLOEXEC as i32) };
}
