//! The process in which a plugin is tried, from inside.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use plugin_abi::abi::RResult;
use rustix::process::Signal;

use super::Extent;
use super::task::{self, Report, Stage, Task};
use crate::http_client::HttpClient;
use crate::metrics::plugins::PluginMetrics;
use crate::plugin::library::{Library, LibraryError};
use crate::plugin::metadata::{PluginName, parse_version};
use crate::plugin::private_copy::PrivateCopy;
use crate::plugin::services::{RouteNames, Services, Surroundings};
use crate::privileges;

/// Time that background tasks have to end before the process does.
const TASKS_END_WITHIN: Duration = Duration::from_secs(1);

/// The number of the one generation that this process ever has.
const ONLY_GENERATION: u64 = 1;

/// Does what the process that started this one asks for on standard input. For a program whose
/// only argument is [`COMMAND`](super::COMMAND), as the first thing in its life.
///
/// # Errors
/// Nobody is there who asks: the program was not started by
/// [`Rehearsal::run`](super::Rehearsal::run).
pub fn perform() -> io::Result<()> {
    // Before anything else, so that there is no moment in which the parent's death goes unnoticed
    // by both this and the look at the parent below.
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    // A crash is what this process is for: no dump of it.
    privileges::forgo_core_dumps()?;
    privileges::forgo_new_privileges()?;

    // The plugin finds an empty standard input, and what it starts does not inherit the socket.
    let socket = rustix::io::fcntl_dupfd_cloexec(io::stdin().as_fd(), 3)?;
    rustix::stdio::dup2_stdin(File::open("/dev/null")?)?;
    let mut socket = BufReader::new(UnixStream::from(socket));
    let task: Task = task::read(&mut socket)?
        .ok_or_else(|| io::Error::other("nobody says on standard input what to rehearse"))?;
    let library = read_bytes(&mut socket, task.library_bytes)?;
    let configurations: Vec<Vec<u8>> = task
        .configuration_bytes
        .iter()
        .map(|bytes| read_bytes(&mut socket, *bytes))
        .collect::<io::Result<_>>()?;
    let parent = rustix::process::getppid().map(|parent| parent.as_raw_nonzero().get());
    if parent != Some(task.parent) {
        return Err(io::Error::other("whoever asked is gone"));
    }
    let reports = socket.into_inner();
    let last = match try_out(&task, &library, &configurations, &reports)? {
        Ok(()) => Report::Done,
        Err(reason) => Report::Refused(reason),
    };
    task::write(&reports, &last)
}

fn read_bytes(from: &mut impl Read, bytes: u64) -> io::Result<Vec<u8>> {
    let mut read = Vec::new();
    from.take(bytes).read_to_end(&mut read)?;
    if read.len() as u64 != bytes {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(read)
}

/// Runs the stages; the inner error is the plugin's word, the outer one the end of whoever listens.
fn try_out(
    task: &Task,
    library: &[u8],
    configurations: &[Vec<u8>],
    reports: &UnixStream,
) -> io::Result<Result<(), String>> {
    let begins = |stage| task::write(reports, &Report::Begins(stage));
    let (Ok(plugin), Ok(version)) = (PluginName::new(&task.plugin), parse_version(&task.version))
    else {
        return Ok(Err("not the name and version of a plugin".to_owned()));
    };
    // Timers and I/O are there, as in a host.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        begins(Stage::Open)?;
        let copy = match PrivateCopy::in_memory(&plugin, &version, library) {
            Ok(copy) => copy,
            Err(error) => return Ok(Err(format!("there is no memory file for it: {error}"))),
        };
        let opened = match Library::open(copy.path(), ONLY_GENERATION) {
            Ok(opened) => opened,
            Err(refused) => return Ok(Err(refused.to_string())),
        };
        let mut schema = None;
        if task.own_schema {
            begins(Stage::Schema)?;
            schema = match opened.config_schema() {
                Ok(schema) => schema,
                Err(refused) => return Ok(Err(refused.to_string())),
            };
        }
        if let Some(schema) = &schema {
            task::write(reports, &Report::Schema(schema.source().clone()))?;
        }
        if task.extent == Extent::Schema {
            return Ok(Ok(()));
        }
        begins(Stage::Load)?;
        // What it counts here nobody reads.
        let metrics = PluginMetrics::default();
        let services = Services::new(
            plugin,
            version,
            ONLY_GENERATION,
            Surroundings {
                routes: RouteNames::none(),
                metrics: &metrics,
                http_client: &HttpClient::new(task.http_client.clone()),
                threads_left: Arc::default(),
            },
        );
        let tasks = services.tasks().clone();
        let loaded = match opened.create(services, &task.settings).await {
            Ok(loaded) => loaded,
            // The stage says the rest.
            Err(LibraryError::Load(failure)) => return Ok(Err(failure.to_string())),
            Err(refused) => return Ok(Err(refused.to_string())),
        };
        for configuration in configurations {
            if let Some(schema) = &schema {
                begins(Stage::Fit)?;
                if let Err(misfit) = schema.check_raw(configuration) {
                    return Ok(Err(misfit.to_string()));
                }
            }
            begins(Stage::Configure)?;
            match loaded.configure(configuration.as_slice().into()) {
                RResult::ROk(configured) => drop(configured),
                RResult::RErr(failure) => return Ok(Err(failure.to_string())),
            }
        }
        begins(Stage::Unload)?;
        loaded.unload().await;
        // One that blocks would hold up nobody but its own plugin: no reason to refuse that.
        tasks.ended(TASKS_END_WITHIN).await;
        drop(loaded);
        Ok(Ok(()))
    })
}
