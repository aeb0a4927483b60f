//! `plugin-host worker`: the process that loads plugins. Started by `plugin-host run` alone, with the
//! same flags.

use std::{io, os::fd::AsFd, sync::Arc};

use clap::Args;
use rustix::fs::Mode;

use super::{FAILURE, output, run::RunArgs};
use crate::{
    config::{Config, Environment},
    logging, privileges,
    worker::{self, attachment::Attachment},
};

/// What was typed after `plugin-host worker`: the same as after `run`.
#[derive(Debug, Args)]
#[command(hide = true, after_help = super::HELP)]
pub(super) struct WorkerArgs {
    #[command(flatten)]
    run: RunArgs,
}

pub(super) fn worker(args: WorkerArgs) -> u8 {
    rustix::process::umask(Mode::from_raw_mode(0o077));
    let attached = io::stdin()
        .as_fd()
        .try_clone_to_owned()
        .map_err(|error| error.to_string())
        .and_then(|link| Attachment::receive(link).map_err(|error| error.to_string()));
    let attachment = match attached {
        Ok(attachment) => attachment,
        Err(reason) => return output::fail(&reason),
    };
    // What a plugin starts must not hold the link.
    if let Ok(null) = std::fs::File::open("/dev/null") {
        let _ = rustix::stdio::dup2_stdin(null);
    }
    let mut flags = args.run.flags;
    if let Some((path, copy)) = &attachment.start.config_file {
        flags = flags.with_config_copy(path, copy);
    }
    let mut config = match Config::load_again(&flags, &Environment::of_process()) {
        Ok(config) => config,
        Err(errors) => return output::refuse(&errors.to_string()),
    };
    config.limits.max_connections = attachment.start.max_connections;
    // Before there is any thread that could keep what this process gives up.
    if let Err(error) = privileges::restrict_worker(&config.restrictions) {
        return output::fail(&error.to_string());
    }
    let mut logging = match logging::init_worker(&config.log, attachment.start.colours) {
        Ok(logging) => logging,
        Err(error) => return output::fail(&error.to_string()),
    };
    if let Some(problem) = &config.roots_problem {
        tracing::warn!(
            problem,
            "the HTTP client trusts the system's roots alone: mend --http-client-ca, then `plugin-host replace-worker`"
        );
    }
    let levels = logging.levels();
    if let Some(wanted) = &attachment.start.log_levels
        && let Err(error) = levels.set(wanted)
    {
        tracing::warn!(error, "what an operator wants to have logged is not");
    }
    let access_log = config.log.access_file.is_some();
    let access_log = access_log.then(|| logging.open_access_log());
    let worked = worker::run(attachment, Arc::new(config), levels, access_log);
    if let Err(error) = &worked {
        tracing::error!("{error}");
    }
    drop(logging);
    match worked {
        Ok(()) => 0,
        Err(_) => FAILURE,
    }
}
