//! `plugin-host completions` and `plugin-host man`: what shells and `man` have to know, generated from
//! the command line itself.

use std::{io, path::PathBuf};

use clap::Args;
use clap_complete::Shell;
use clap_mangen::Man;

use super::output;

/// Write a shell's completion of this command line to standard output
///
/// For example: plugin-host completions bash > /etc/bash_completion.d/plugin-host
#[derive(Debug, Args)]
#[command(after_help = super::HELP)]
pub(super) struct CompletionsArgs {
    /// The shell
    shell: Shell,
}

/// Write manual pages, one for each command
///
/// For example: plugin-host man /usr/local/share/man/man1
#[derive(Debug, Args)]
#[command(after_help = super::HELP)]
pub(super) struct ManArgs {
    /// Directory to write them to; without one the first page goes to standard output
    directory: Option<PathBuf>,
}

pub(super) fn completions(args: &CompletionsArgs) -> u8 {
    let mut script = Vec::new();
    clap_complete::generate(
        args.shell,
        &mut super::command(),
        "plugin-host",
        &mut script,
    );
    output::print(&String::from_utf8_lossy(&script))
}

pub(super) fn man(args: &ManArgs) -> u8 {
    let command = super::command();
    let written = match &args.directory {
        Some(directory) => {
            let command = command.disable_help_subcommand(true);
            clap_mangen::generate_to(command, directory).map(|()| String::new())
        }
        None => page(&Man::new(command)),
    };
    match written {
        Ok(page) => output::print(&page),
        Err(error) => output::fail(&format!("cannot write the manual: {error}")),
    }
}

fn page(man: &Man) -> io::Result<String> {
    let mut page = Vec::new();
    man.render(&mut page)?;
    Ok(String::from_utf8_lossy(&page).into_owned())
}
