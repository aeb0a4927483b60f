//! Writing a command's result to standard output, or a complaint to standard error.
//!
//! Unlike the macros of the standard library, this does not panic where the reader has gone away
//! (`plugin-host version | head -0`): who does not read does not want.

use std::io::{self, Write};

use super::{FAILURE, USAGE};

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
