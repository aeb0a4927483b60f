//! What the environment and flags say about where plugins come from: credentials, a proxy, directories,
//! and what of the environment git and cargo get to know.

use std::{
    ffi::OsString,
    fs::File,
    io::Read,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{Environment, http_client::read_roots, settings::CREDENTIALS_VARIABLE};
use crate::sources::{CHILD_VARIABLES, Cache, Credentials, Proxy, ROOTS_VARIABLE, Settings};

/// Bytes that the cache of downloads holds, at most.
const MAX_CACHE_BYTES: u64 = 2 << 30;

/// Size of a file with credentials, at most, in bytes.
const MAX_CREDENTIALS_BYTES: u64 = 1 << 20;

/// What was typed about it.
#[derive(Debug)]
pub struct OfSources {
    /// Whether building is allowed.
    pub allow_build: bool,
    /// Whether loopback addresses are asked without TLS.
    pub loopback_http: bool,
    /// Cargo's profile.
    pub build_profile: String,
    /// How long one download or command of git may take.
    pub fetch_time: Duration,
    /// How long a build may take.
    pub build_time: Duration,
    /// Bytes of disk that a checkout and its build may take.
    pub build_disk: u64,
    /// A file with credentials.
    pub credentials_file: Option<PathBuf>,
    /// Certificates that are trusted beside the system's, in PEM.
    pub extra_roots: String,
}

impl OfSources {
    /// The whole of it.
    ///
    /// # Errors
    /// What is wrong with a file or a variable, without what it holds.
    pub fn settings(self, environment: &Environment) -> Result<Settings, String> {
        let credentials = match (
            &self.credentials_file,
            text(environment, CREDENTIALS_VARIABLE)?,
        ) {
            (Some(path), _) => Credentials::parse(&read(path)?)
                .map_err(|reason| format!("{}: {reason}", path.display()))?,
            (None, Some(text)) => Credentials::parse(text)
                .map_err(|reason| format!("{CREDENTIALS_VARIABLE}: {reason}"))?,
            (None, None) => Credentials::default(),
        };
        let directory = |name: &str| environment.get_os(name).map(PathBuf::from);
        // Whoever reads it later says nothing, and trusts others.
        if let Some(path) = directory(ROOTS_VARIABLE) {
            read_roots(&path).map_err(|reason| format!("{ROOTS_VARIABLE}: {reason}"))?;
        }
        let cache = directory("XDG_CACHE_HOME")
            .or_else(|| Some(directory("HOME")?.join(".cache")))
            .map(|caches| Cache::new(&caches.join("plugin-host"), MAX_CACHE_BYTES));
        let mut known: Vec<(String, OsString)> = CHILD_VARIABLES
            .into_iter()
            .filter_map(|name| Some((name.to_owned(), environment.get_os(name)?.to_owned())))
            .collect();
        // They get another home, but cargo and rustup are where they are.
        for (name, below) in [("CARGO_HOME", ".cargo"), ("RUSTUP_HOME", ".rustup")] {
            if let (None, Some(home)) = (environment.get_os(name), directory("HOME")) {
                known.push((name.to_owned(), home.join(below).into()));
            }
        }
        Ok(Settings {
            allow_build: self.allow_build,
            loopback_http: self.loopback_http,
            cache,
            credentials,
            extra_roots: self.extra_roots,
            proxy: proxy(environment)?,
            target_dir: directory("CARGO_TARGET_DIR"),
            work_dir: directory("TMPDIR").unwrap_or_else(|| "/tmp".into()),
            environment: known,
            fetch_time: self.fetch_time,
            build_time: self.build_time,
            build_profile: self.build_profile,
            build_disk: self.build_disk,
        })
    }
}

fn proxy(environment: &Environment) -> Result<Option<Proxy>, String> {
    let first = |names: [&'static str; 4]| {
        for name in names {
            if let Some(value) = text(environment, name)? {
                return Ok::<_, String>(Some((name, value)));
            }
        }
        Ok(None)
    };
    let except = first(["no_proxy", "NO_PROXY", "no_proxy", "NO_PROXY"])?;
    let except = except.map_or("", |(_, except)| except);
    let Some((name, url)) = first(["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"])? else {
        return Ok(None);
    };
    match Proxy::new(url, except) {
        Ok(proxy) => Ok(Some(proxy)),
        Err(reason) => Err(format!("{name}: {reason}")),
    }
}

fn text<'a>(environment: &'a Environment, name: &str) -> Result<Option<&'a str>, String> {
    environment.get(name).map_err(|error| error.to_string())
}

fn read(path: &Path) -> Result<String, String> {
    let mut text = String::new();
    File::open(path)
        .and_then(|file| {
            file.take(MAX_CREDENTIALS_BYTES + 1)
                .read_to_string(&mut text)
        })
        .map_err(|error| format!("{}: {error}", path.display()))?;
    match text.len() as u64 > MAX_CREDENTIALS_BYTES {
        true => Err(format!(
            "{}: it has more than {MAX_CREDENTIALS_BYTES} bytes",
            path.display()
        )),
        false => Ok(text),
    }
}
