//! What commands that fetch have in common: their flags, and a bar in terminals that says how far they are.

use std::{cell::RefCell, path::PathBuf, time::Duration};

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

use crate::{
    config::{Config, Environment, Flags, OfPlugins, OfSources, settings::PLUGIN_DIR},
    sources::{Progress, Settings},
};

/// Which plugin directory.
#[derive(Debug, Args)]
pub(super) struct TargetArgs {
    /// The plugin directory [default: that of the configuration, or ./plugins]
    #[arg(long, value_name = "DIR")]
    plugin_dir: Option<String>,

    #[command(flatten)]
    configuration: ConfigArgs,
}

/// Which configuration.
#[derive(Debug, Args)]
pub(super) struct ConfigArgs {
    /// Configuration file of the host, which says whose signatures and which servers' certificates count
    /// [env: PLUGIN_HOST_CONFIG]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// How sources are asked.
#[derive(Debug, Default, Args)]
pub(super) struct SourceArgs {
    /// Build plugins from source, which runs their authors' code here
    #[arg(long)]
    allow_build: bool,

    /// Cargo's profile for builds [default: release]
    #[arg(long, value_name = "PROFILE", requires = "allow_build")]
    build_profile: Option<String>,

    /// How long a build may take, with getting what it depends on [default: 1800]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    build_time: Option<u64>,

    /// Disk that a checkout and its build may take [default: 8192]
    #[arg(long, value_name = "MEBIBYTES", value_parser = clap::value_parser!(u64).range(1..=1_048_576))]
    build_disk: Option<u64>,

    /// How long one download, or one command of git, may take [default: 300]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    fetch_time: Option<u64>,

    /// Ask addresses of this machine by plain HTTP; no other is ever asked so
    #[arg(long)]
    loopback_http: bool,

    /// Credentials in the format of Docker's config.json [env: PLUGIN_HOST_CREDENTIALS, with the text
    /// itself]
    #[arg(long, value_name = "FILE")]
    credentials_file: Option<PathBuf>,
}

impl TargetArgs {
    pub(super) fn read(&self, environment: &Environment) -> Result<OfPlugins, String> {
        let mut flags = self.configuration.flags();
        if let Some(directory) = &self.plugin_dir {
            flags = flags.with(&PLUGIN_DIR, directory);
        }
        Config::plugins(&flags, environment).map_err(|errors| errors.to_string())
    }
}

impl ConfigArgs {
    pub(super) fn read(&self, environment: &Environment) -> Result<OfPlugins, String> {
        Config::plugins(&self.flags(), environment).map_err(|errors| errors.to_string())
    }

    fn flags(&self) -> Flags {
        match &self.config {
            Some(file) => Flags::new().with_config_file(file),
            None => Flags::new(),
        }
    }
}

impl SourceArgs {
    pub(super) fn settings(
        &self,
        extra_roots: String,
        environment: &Environment,
    ) -> Result<Settings, String> {
        const FETCH_SECONDS: u64 = 300;
        const BUILD_SECONDS: u64 = 1_800;
        const BUILD_MEBIBYTES: u64 = 8 << 10;
        let profile = self.build_profile.as_deref().unwrap_or("release");
        let of_sources = OfSources {
            allow_build: self.allow_build,
            loopback_http: self.loopback_http,
            build_profile: profile.to_owned(),
            fetch_time: Duration::from_secs(self.fetch_time.unwrap_or(FETCH_SECONDS)),
            build_time: Duration::from_secs(self.build_time.unwrap_or(BUILD_SECONDS)),
            build_disk: self.build_disk.unwrap_or(BUILD_MEBIBYTES) << 20,
            credentials_file: self.credentials_file.clone(),
            extra_roots,
        };
        of_sources.settings(environment)
    }
}

/// A bar on standard error; nothing where that is no terminal.
pub(super) struct Bar(RefCell<ProgressBar>);

impl Bar {
    pub(super) fn new() -> Self {
        Self(RefCell::new(ProgressBar::hidden()))
    }

    /// Leaves the terminal to others.
    pub(super) fn end(&self) {
        self.0.borrow().finish_and_clear();
    }
}

impl Progress for Bar {
    fn begin(&self, what: &str, bytes: Option<u64>) {
        const TICK: Duration = Duration::from_millis(120);
        self.end();
        let (bar, template) = match bytes {
            Some(bytes) => (
                ProgressBar::new(bytes),
                "{msg} {wide_bar} {bytes}/{total_bytes}",
            ),
            None => (ProgressBar::new_spinner(), "{spinner} {msg} {elapsed}"),
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.set_message(what.to_owned());
        bar.enable_steady_tick(TICK);
        self.0.replace(bar);
    }

    fn advance(&self, bytes: u64) {
        self.0.borrow().inc(bytes);
    }

    fn line(&self, line: &str) {
        self.0.borrow().set_message(line.to_owned());
    }
}
