//! Writing a command's result to standard output, or a complaint to standard error.
//!
//! Unlike the macros of the standard library, this does not panic where the reader has gone away
//! (`plugin-host version | head -0`): who does not read does not want.

use std::io::{self, IsTerminal, Write};

use super::{FAILURE, USAGE};
use crate::config::Environment;

/// Writes a result. Gives exit code 0, or 1 where it could not be written to a reader who is
/// still there.
pub(super) fn print(text: &str) -> u8 {
    let mut stdout = io::stdout().lock();
    match stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
    {
        Ok(()) => 0,
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => 0,
        Err(error) => fail(&format!("cannot write to standard output: {error}")),
    }
}

/// Colours, where standard output is a terminal whose user has not asked for none (NO_COLOR).
#[derive(Debug, Clone, Copy)]
pub(super) struct Paint {
    colours: bool,
}

impl Paint {
    pub(super) fn of_stdout(environment: &Environment) -> Self {
        Self {
            colours: io::stdout().is_terminal() && environment.get_os("NO_COLOR").is_none(),
        }
    }

    pub(super) fn good(self, text: &str) -> String {
        self.in_style("32", text)
    }

    pub(super) fn bad(self, text: &str) -> String {
        self.in_style("31", text)
    }

    pub(super) fn dim(self, text: &str) -> String {
        self.in_style("2", text)
    }

    fn in_style(self, style: &str, text: &str) -> String {
        if self.colours {
            format!("\x1b[{style}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }
}

/// Bytes for a line: readable text as it is, anything that a terminal could obey escaped.
pub(super) fn shown(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => text
            .chars()
            .map(|c| match c.is_control() {
                true => c.escape_default().to_string(),
                false => c.to_string(),
            })
            .collect(),
        Err(_) => bytes.escape_ascii().to_string(),
    }
}

/// Says why a command did not work.
pub(super) fn fail(reason: &str) -> u8 {
    complain(reason);
    FAILURE
}

/// Says what is wrong with what was asked for.
pub(super) fn refuse(reason: &str) -> u8 {
    complain(reason);
    USAGE
}

/// Writes each line as one complaint, where anybody can still read it.
pub(super) fn complain(reason: &str) {
    for line in reason.lines() {
        let _ = writeln!(io::stderr(), "plugin-host: {line}");
    }
}
