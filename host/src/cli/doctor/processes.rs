//! The gateway's processes on this machine, as the system lists them.

use std::{fs, path::PathBuf};

/// A gateway that runs: its master process.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct RunningGateway {
    pub(super) master: u32,
    /// Its home, where its command line says it.
    pub(super) home: Option<PathBuf>,
    /// One of its workers.
    pub(super) worker: Option<u32>,
}

/// The first gateway that runs here.
pub(super) fn running_gateway() -> Option<RunningGateway> {
    let processes: Vec<(u32, String)> = fs::read_dir("/proc")
        .ok()?
        .filter_map(Result::ok)
        .filter_map(|entry| {
            let process = entry.file_name().to_str()?.parse().ok()?;
            let line = fs::read(entry.path().join("cmdline")).ok()?;
            // A process that names itself has blanks in place of the zeros.
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            line.starts_with("nginx: ").then_some((process, line))
        })
        .collect();
    let (master, line) = processes.iter().find(|(_, line)| is_master(line))?;
    let worker = processes.iter().find(|(process, line)| {
        line.starts_with("nginx: worker process") && parent_of(*process) == Some(*master)
    });
    Some(RunningGateway {
        master: *master,
        home: home_in(line),
        worker: worker.map(|(process, _)| *process),
    })
}

/// Whether a process runs.
pub(super) fn is_alive(process: u32) -> bool {
    fs::exists(format!("/proc/{process}")).unwrap_or(false)
}

/// Other servers have masters too: the gateway's runs openresty, or has its name in its home.
fn is_master(line: &str) -> bool {
    line.starts_with("nginx: master process")
        && (line.contains("openresty") || line.contains("apisix"))
}

fn home_in(line: &str) -> Option<PathBuf> {
    let mut words = line.split_whitespace();
    words.find(|word| *word == "-p")?;
    words.next().map(PathBuf::from)
}

fn parent_of(process: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // Behind the name, which may have anything in it: state, parent.
    let (_, rest) = stat.rsplit_once(") ")?;
    rest.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn a_gateway_is_known_by_how_its_master_calls_itself() {
        let line = "nginx: master process /usr/local/openresty/bin/openresty -p /srv/gateway -g daemon off; ";
        assert!(is_master(line));
        assert_eq!(home_in(line).as_deref(), Some(Path::new("/srv/gateway")));
        assert!(!is_master("nginx: master process /usr/sbin/nginx"));
        assert!(!is_master("nginx: worker process"));
        assert_eq!(home_in("nginx: master process openresty"), None);
        assert!(is_alive(std::process::id()));
        assert_eq!(
            parent_of(std::process::id()),
            rustix::process::getppid().map(|parent| parent.as_raw_nonzero().get().unsigned_abs())
        );
    }
}
