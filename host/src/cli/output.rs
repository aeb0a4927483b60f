//! What commands share: writing a result to standard output or a complaint to standard error, and
//! reading what was typed from a file.
//!
//! Unlike the macros of the standard library, this does not panic where the reader has gone away
//! (`plugin-host version | head -0`): who does not read does not want.

use std::fs::{self, File, OpenOptions};
use std::io::{self, IsTerminal, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use plugin_proto::frame::MAX_DATA_LEN;

use super::{FAILURE, USAGE};
use crate::config::Environment;

pub(in crate::cli) use crate::client::text::shown;

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

/// Writes a part of a result at once; whether anybody reads on.
pub(super) fn is_wanted(text: &str) -> bool {
    let mut stdout = io::stdout().lock();
    stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
        .is_ok()
}

/// When there are colours.
#[derive(Debug, Clone, Copy)]
pub(super) enum Colours {
    /// Whatever reads them.
    Always,
    /// For nobody.
    Never,
    /// Where standard output is a terminal whose user has not asked for none (NO_COLOR).
    WhereTheyShow,
}

/// Columns of the terminal; none where standard output is no terminal, and no line is too long.
pub(super) fn columns() -> Option<u16> {
    let size = rustix::termios::tcgetwinsize(io::stdout()).ok()?;
    (size.ws_col > 0).then_some(size.ws_col)
}

/// Colours, where standard output is a terminal whose user has not asked for none (NO_COLOR).
#[derive(Debug, Clone, Copy)]
pub(super) struct Paint {
    colours: bool,
}

impl Paint {
    pub(super) fn of_stdout(environment: &Environment) -> Self {
        Self::new(Colours::WhereTheyShow, environment)
    }

    pub(super) fn new(colours: Colours, environment: &Environment) -> Self {
        let show = || io::stdout().is_terminal() && environment.get_os("NO_COLOR").is_none();
        Self {
            colours: match colours {
                Colours::Always => true,
                Colours::Never => false,
                Colours::WhereTheyShow => show(),
            },
        }
    }

    pub(super) fn good(self, text: &str) -> String {
        self.in_style("32", text)
    }

    pub(super) fn bad(self, text: &str) -> String {
        self.in_style("31", text)
    }

    pub(super) fn doubtful(self, text: &str) -> String {
        self.in_style("33", text)
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

/// Puts a whole file in the place of whatever is there, so that nobody ever reads half of it.
pub(super) fn replace_file(path: &Path, bytes: &[u8]) -> Result<(), String> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let unfinished = path.with_file_name(format!(".{name}.{}", std::process::id()));
    let placed = create_file(&unfinished, bytes, 0o644).and_then(|()| {
        fs::rename(&unfinished, path).map_err(|error| format!("{}: {error}", path.display()))
    });
    if placed.is_err() {
        // It may not even be there.
        let _ = fs::remove_file(&unfinished);
    }
    placed
}

/// Makes a file with these permissions that is not there yet.
pub(super) fn create_file(path: &Path, bytes: &[u8], mode: u32) -> Result<(), String> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)
        .and_then(|mut file| file.write_all(bytes))
        .map_err(|error| format!("{}: {error}", path.display()))
}

/// What stands there, or what a file holds: no more than fits a frame.
pub(super) fn text_or_file(flag: &str, text: &str) -> Result<Vec<u8>, String> {
    let Some(path) = text.strip_prefix('@') else {
        return Ok(text.into());
    };
    let opened: io::Result<Box<dyn Read>> = match path {
        "-" => Ok(Box::new(io::stdin())),
        path => File::open(path).map(|file| Box::new(file) as Box<dyn Read>),
    };
    let mut bytes = Vec::new();
    opened
        .and_then(|file| file.take(MAX_DATA_LEN as u64 + 1).read_to_end(&mut bytes))
        .map_err(|error| format!("{flag} @{path}: {error}"))?;
    if bytes.len() > MAX_DATA_LEN {
        return Err(format!(
            "{flag} @{path}: more than the {MAX_DATA_LEN} bytes that fit a frame"
        ));
    }
    Ok(bytes)
}
