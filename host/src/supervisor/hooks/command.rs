//! A hook that is a command: started, told of the event, and ended with all that it has started when it is
//! done, when its time is over, or when the host ends, however that comes.
//!
//! It runs below `plugin-host leash`, which holds the other end of its standard input. Its output is one
//! pipe of its own; nothing of the gateway's is passed on.

use std::{
    io::{self, PipeReader, Read, Write},
    os::unix::process::{CommandExt, ExitStatusExt},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, Signal, WaitId, WaitIdOptions},
};

use crate::{
    config::settings::{NOTIFY_VARIABLE, WATCHDOG_VARIABLE},
    plugin::event::PluginEvent,
};

/// This very program, also where its file has been replaced meanwhile.
const THIS_PROGRAM: &str = "/proc/self/exe";

/// What understands a command.
const SHELL: [&str; 2] = ["/bin/sh", "-c"];

/// Bytes of its output that the log gets where it fails: the last ones.
const MAX_OUTPUT: usize = 2_048;

/// How often it is looked whether a command whose output has ended has ended too.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(5);

/// Runs a command with an event on its standard input.
///
/// # Errors
/// It could not be started, failed, or took too long; with the end of what it wrote.
pub(super) fn run(
    command: &str,
    event: &PluginEvent,
    json: &[u8],
    time: Duration,
) -> Result<(), String> {
    let until = Instant::now() + time;
    let (mut child, output) =
        start(command, event, json.len()).map_err(|error| format!("it cannot start: {error}"))?;
    let mut leash = child.stdin.take();
    if let Some(input) = &mut leash {
        // The leash takes everything, also where the command reads nothing.
        let _ = input.write_all(json);
    }
    let mut written = Vec::new();
    let is_done = read_until(&output, until, &mut written) && has_ended_by(&child, until);
    // Whatever it has left behind. The group's number is nobody else's before it is waited for.
    let _ = rustix::process::kill_process_group(Pid::from_child(&child), Signal::KILL);
    drop(leash);
    let status = child.wait().map_err(|error| error.to_string())?;
    let written = String::from_utf8_lossy(&written);
    let said = match written.trim() {
        "" => String::new(),
        said => format!("; it wrote: {said}"),
    };
    match is_done {
        false => Err(format!("it took longer than {time:?}{said}")),
        true if status.success() => Ok(()),
        true => Err(format!("{}{said}", ending(status))),
    }
}

fn start(command: &str, event: &PluginEvent, input: usize) -> io::Result<(Child, PipeReader)> {
    let (output, writer) = io::pipe()?;
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let child = Command::new(THIS_PROGRAM)
        .args(["leash", "--input", &input.to_string(), "--"])
        .args(SHELL)
        .arg(command)
        .env("HOOK_EVENT", event.event.name())
        .env("HOOK_PLUGIN", text(&event.plugin))
        .env("HOOK_VERSION", text(&event.plugin_version))
        .env_remove(NOTIFY_VARIABLE)
        .env_remove(WATCHDOG_VARIABLE)
        .stdin(Stdio::piped())
        .stdout(writer.try_clone()?)
        .stderr(writer)
        .process_group(0)
        .spawn()?;
    Ok((child, output))
}

/// Reads until everybody who could write has ended, and keeps the last of it. Whether that came in time.
fn read_until(mut output: &PipeReader, until: Instant, written: &mut Vec<u8>) -> bool {
    let mut buffer = [0; 4_096];
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let Ok(left) = Timespec::try_from(left) else {
            return false;
        };
        let mut ready = [PollFd::new(output, PollFlags::IN)];
        match poll(&mut ready, Some(&left)) {
            Ok(0) => return false,
            Err(rustix::io::Errno::INTR) => continue,
            Ok(_) | Err(_) => {}
        }
        match output.read(&mut buffer) {
            Ok(0) => return true,
            Ok(read) => {
                written.extend_from_slice(&buffer[..read]);
                let much = written.len().saturating_sub(MAX_OUTPUT);
                written.drain(..much);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return true,
        }
        if Instant::now() >= until {
            return false;
        }
    }
}

/// Whether it has ended, or does in time; its number stays its own.
fn has_ended_by(child: &Child, until: Instant) -> bool {
    let seen = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
    loop {
        match rustix::process::waitid(WaitId::Pid(Pid::from_child(child)), seen) {
            Ok(Some(_)) => return true,
            _ if Instant::now() >= until => return false,
            _ => std::thread::sleep(LOOK_AGAIN_AFTER),
        }
    }
}

fn ending(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("it ended with {code}"),
        (None, signal) => format!("it was ended by signal {}", signal.unwrap_or_default()),
    }
}
