//! From verified bytes to a generation that is ready to serve: a private copy, the library opened,
//! the plugin constructed. It publishes nothing and judges no configuration.

use std::{
    path::PathBuf,
    sync::{Arc, atomic::AtomicUsize},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;
use tokio::{runtime::Handle, sync::oneshot};

use super::{
    Announcement, Manager, Options,
    error::{LoadError, LoadErrorCause},
};
use crate::crash::KnownGeneration;
use crate::plugin::{
    discovery::Candidate,
    library::{Library, LibraryError},
    metadata::Metadata,
    private_copy::PrivateCopy,
    registry::{Generation, Rules},
    rehearsal::{Extent, Rehearsal},
    services::{RouteNames, Services, Surroundings},
    settings::{Operator, PluginSettings},
    signature::Signature,
};

/// Time that a plugin may take to open, construct and run its `on_load`.
pub const LOAD_TIME: Duration = Duration::from_secs(10);

impl Manager {
    /// Constructs a plugin away from the event loops, in [`LOAD_TIME`], from a private copy that
    /// there may be already.
    pub(super) async fn construct(
        &self,
        candidate: Candidate,
        copy: Option<PrivateCopy>,
    ) -> Result<Arc<Generation>, LoadError> {
        let began = Instant::now();
        let subject = Subject::of(&candidate);
        for warning in &candidate.warnings {
            tracing::warn!(
                plugin = %subject.plugin,
                version = %subject.version,
                directory = %candidate.directory.display(),
                "{warning}"
            );
        }
        if let Some(signature) = candidate.signature.as_ref()
            && !matches!(signature, Signature::Signed(_))
        {
            tracing::warn!(
                plugin = %subject.plugin,
                version = %subject.version,
                library = %subject.library.display(),
                "{signature}; with --signatures=require the plugin would not be loaded"
            );
        }
        let mapped_bytes = candidate.mapped_bytes();
        let options = Arc::clone(&self.options);
        let threads_left = self.retired.threads_left();
        let tokens = Arc::clone(self.compiler.tokens());
        let routes = RouteNames::new(move |token| tokens.key_of(token));
        let runtime = Handle::current();
        let opening = on_a_thread_of_its_own("load", move || {
            runtime.block_on(open(candidate, copy, &options, routes, threads_left))
        });
        let constructed = match tokio::time::timeout(LOAD_TIME, opening).await {
            Ok(Ok(constructed)) => constructed,
            Ok(Err(ended)) => Err(LoadErrorCause::Ended(ended)),
            Err(_) => Err(LibraryError::Slow(LOAD_TIME.as_secs()).into()),
        };
        match constructed {
            Ok(generation) => {
                tracing::info!(
                    plugin = %subject.plugin,
                    version = %subject.version,
                    library = %subject.library.display(),
                    digest = %generation.origin().digest,
                    milliseconds = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
                    "plugin loaded"
                );
                Ok(Arc::new(generation))
            }
            Err(cause) => {
                let is_mapped = matches!(
                    cause,
                    LoadErrorCause::Library(
                        LibraryError::Schema(_)
                            | LibraryError::NoSchema(_)
                            | LibraryError::Load(_)
                            | LibraryError::Slow(_)
                    )
                );
                if is_mapped {
                    self.retired.stays_mapped(mapped_bytes);
                }
                Err(subject.refused(cause))
            }
        }
    }
}

/// What the operator says about a plugin, and the settings that it gets.
///
/// # Errors
/// They cannot be used, or do not fit the plugin's schema.
pub fn settings_of<'a>(
    metadata: &Metadata,
    operator: &'a Operator,
) -> Result<(&'a PluginSettings, Value), LoadErrorCause> {
    let said = operator
        .of(metadata.name.as_str())
        .map_err(|reason| LoadErrorCause::Settings(reason.to_owned()))?;
    let settings = said.merged_with(&metadata.settings);
    if let Some(schema) = &metadata.settings_schema {
        schema
            .check(&settings)
            .map_err(LoadErrorCause::SettingsSchema)?;
    }
    Ok((said, settings))
}

/// What an error about a candidate names.
pub(super) struct Subject {
    plugin: crate::plugin::metadata::PluginName,
    version: semver::Version,
    library: PathBuf,
}

impl Subject {
    pub(super) fn of(candidate: &Candidate) -> Self {
        Self {
            plugin: candidate.metadata.name.clone(),
            version: candidate.metadata.version.clone(),
            library: candidate.library_path.clone(),
        }
    }

    pub(super) fn refused(self, cause: LoadErrorCause) -> LoadError {
        LoadError {
            plugin: self.plugin,
            version: self.version,
            library: self.library,
            cause,
        }
    }
}

/// Looks at who could change a candidate's files and who vouches for it, and tries it out in a throw-away process, where
/// the operator wants that; gives it back.
pub(super) async fn rehearse(
    candidate: Candidate,
    options: &Arc<Options>,
) -> Result<Candidate, LoadErrorCause> {
    options.permissions.check(&candidate, &options.trust)?;
    options.trust.admit_judged(candidate.signature.as_ref())?;
    let Some(program) = options.rehearse_with.clone() else {
        return Ok(candidate);
    };
    let options = Arc::clone(options);
    let rehearsing = on_a_thread_of_its_own("rehearse", move || {
        let (_, settings) = settings_of(&candidate.metadata, &options.operator)?;
        let rehearsed = Rehearsal {
            program: &program,
            plugin: &candidate.metadata.name,
            version: &candidate.metadata.version,
            library: &candidate.bytes,
            own_schema: candidate.metadata.config_schema.is_none(),
            settings: &settings,
            extent: Extent::All,
            configurations: &[],
            http_client: options.http_client.settings(),
            time: LOAD_TIME,
        }
        .run();
        if rehearsed.result.is_err() && !rehearsed.output.is_empty() {
            tracing::warn!(
                plugin = %candidate.metadata.name,
                version = %candidate.metadata.version,
                output = rehearsed.output.trim_end(),
                "what the plugin said before its rehearsal failed"
            );
        }
        rehearsed.result?;
        Ok(candidate)
    });
    rehearsing
        .await
        .unwrap_or_else(|ended| Err(LoadErrorCause::Ended(ended)))
}

/// Runs something that may block for long, or for ever: it then keeps a thread that nobody else
/// needs. An error says why there was none, or that it ended early.
pub(super) async fn on_a_thread_of_its_own<T: Send + 'static>(
    name: &str,
    run: impl FnOnce() -> T + Send + 'static,
) -> Result<T, String> {
    let (say, result) = oneshot::channel();
    thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || {
            // Nobody listens any more where it took too long.
            let _ = say.send(run());
        })
        .map_err(|error| error.to_string())?;
    result.await.map_err(|ended| ended.to_string())
}

async fn open(
    candidate: Candidate,
    copy: Option<PrivateCopy>,
    options: &Options,
    routes: RouteNames,
    threads_left: Arc<AtomicUsize>,
) -> Result<Generation, LoadErrorCause> {
    // Once more, since not everything that is opened has been rehearsed.
    options.trust.admit_judged(candidate.signature.as_ref())?;
    let (said, settings) = settings_of(&candidate.metadata, &options.operator)?;
    let copy = match copy {
        Some(copy) => copy,
        None => PrivateCopy::write(
            &options.private_dir,
            &candidate.metadata.name,
            &candidate.metadata.version,
            &candidate.digest,
            &candidate.bytes,
        )?,
    };
    let number = Generation::next_number();
    announce(options, number, &candidate, &copy).await;
    let library = Library::open(copy.path(), number)?;
    let mut rules = Rules::new(&candidate.metadata, said);
    if rules.config_schema.is_none() {
        rules.config_schema = library.config_schema()?;
    }
    let services = Services::new(
        candidate.metadata.name.clone(),
        candidate.metadata.version.clone(),
        number,
        Surroundings {
            routes,
            metrics: options.metrics.plugins(),
            http_client: &options.http_client,
            threads_left,
        },
    );
    let created = library.create(services.clone(), &settings).await;
    let plugin = created.inspect_err(|_| services.end())?;
    let origin = Arc::new(candidate.into_origin());
    let copy = Arc::new(copy);
    Ok(Generation::new(origin, rules, plugin, copy, services))
}

/// Tells who may have to give a death its name, and waits until it is known there.
async fn announce(options: &Options, number: u64, candidate: &Candidate, copy: &PrivateCopy) {
    let Some(announce) = &options.announce else {
        return;
    };
    let generation = KnownGeneration::new(
        number,
        candidate.metadata.name.as_str(),
        &candidate.metadata.version.to_string(),
        &candidate.digest.to_string(),
        copy.path(),
    );
    let (heard, told) = oneshot::channel();
    if announce.send(Announcement { generation, heard }).is_ok() {
        // An error means that nobody survives this process: then no name is needed.
        let _ = told.await;
    }
}
