//! Keeps what serves in line with the plugin directory, and does what operators ask for.
//!
//! It decides when something is loaded, upgraded or taken out of service; how that is done is the
//! plugin manager's affair, and whether a file is complete is the scanner's. Nothing here touches
//! a call.

mod requests;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    runtime::Handle,
    sync::{Notify, mpsc, watch},
    task::JoinSet,
};

use crate::plugin::{
    discovery::{Candidate, Problem},
    manager::{Manager, PlaceProblem, Restored, SignatureStatus, Vetoes},
    metadata::PluginName,
    scan::{Scan, Scanner, Seen},
    watch::Watch,
};

pub use requests::{Reloaded, Request};

/// How long a plugin goes on serving after its files have gone: people replace a directory by
/// removing it and copying another one.
pub const REMOVAL_GRACE: Duration = Duration::from_secs(5);

/// How long the first scan, and one that an operator asks for, wait for files that have just been put
/// there.
pub const SETTLING_TIME: Duration = Duration::from_secs(1);

/// Requests of operators that may wait.
const WAITING_REQUESTS: usize = 16;

/// Keeps the plugins of one directory.
#[derive(Debug)]
pub struct Keeper {
    manager: Arc<Manager>,
    /// Away only while a look is under way: it reads files, on a blocking thread.
    eyes: Option<Eyes>,
    requests: mpsc::Receiver<Request>,
    /// A signal asks for a look.
    rescan: Arc<Notify>,
    /// Places where something is being loaded; they are not touched until that has ended.
    busy: BTreeSet<PathBuf>,
    loading: JoinSet<Tried>,
    /// Places that have gone, and when they were first missed.
    gone: BTreeMap<PathBuf, Instant>,
    /// Places whose last try failed.
    failed: BTreeSet<PathBuf>,
    /// Whether the first scan has ended.
    settled: watch::Sender<bool>,
    /// What is wrong in the directory.
    problems: watch::Sender<Vec<PlaceProblem>>,
}

/// What sees the directory.
#[derive(Debug)]
struct Eyes {
    watch: Watch,
    scanner: Scanner,
}

struct Tried {
    place: PathBuf,
    plugin: PluginName,
    result: Result<String, String>,
}

/// Nothing else of the keeper runs while a look is awaited.
const EYES_ARE_BACK: &str = "a look has been awaited to its end";

impl Eyes {
    fn look(&mut self) -> Scan {
        let watch = &self.watch;
        let scan = self
            .scanner
            .scan(|path| watch.open_for_writing(path), Instant::now());
        self.watch.follow(&scan.follow);
        if let Some(delay) = scan.look_again {
            self.watch.look_again_in(delay);
        }
        scan
    }
}

impl Keeper {
    /// A keeper, and the way to ask it for something.
    pub fn new(
        manager: Arc<Manager>,
        plugin_dir: &Path,
        rescan_every: Duration,
        rescan: Arc<Notify>,
    ) -> (Self, mpsc::Sender<Request>) {
        let (ask, requests) = mpsc::channel(WAITING_REQUESTS);
        let scanner = Scanner::new(plugin_dir).trusting(manager.trust());
        let keeper = Self {
            manager,
            eyes: Some(Eyes {
                watch: Watch::new(plugin_dir, rescan_every),
                scanner,
            }),
            requests,
            rescan,
            busy: BTreeSet::new(),
            loading: JoinSet::new(),
            gone: BTreeMap::new(),
            failed: BTreeSet::new(),
            settled: watch::Sender::new(false),
            problems: watch::Sender::new(Vec::new()),
        };
        (keeper, ask)
    }

    /// Takes over what an earlier worker has done: only files that it has not tried are loaded, and
    /// what it served goes when its files have gone. To be called before [`Keeper::run`].
    pub fn resume(&mut self, restored: Restored) {
        let scanner = &mut self.eyes().scanner;
        for (place, files) in &restored.tried {
            scanner.has_handed_out(place, files);
        }
        self.failed.extend(restored.failed);
    }

    /// What is wrong in the directory, as it was seen last.
    pub fn problems(&self) -> watch::Receiver<Vec<PlaceProblem>> {
        self.problems.subscribe()
    }

    /// Ready when what the directory held at the start has been tried.
    pub fn settled(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut settled = self.settled.subscribe();
        async move {
            // An error means that the keeper has ended: then nothing more is going to be loaded.
            let _ = settled.wait_for(|settled| *settled).await;
        }
    }

    /// Loads what is there, then follows the directory until nobody can ask for anything any more.
    pub async fn run(mut self) {
        self.first_scan().await;
        self.settled.send_replace(true);
        loop {
            tokio::select! {
                _ = self.eyes.as_mut().expect(EYES_ARE_BACK).watch.changed() => {
                    self.look().await;
                }
                () = self.rescan.notified() => {
                    self.look().await;
                }
                Some(tried) = self.loading.join_next() => {
                    self.finish(tried);
                }
                request = self.requests.recv() => match request {
                    Some(request) => self.serve(request).await,
                    None => return,
                },
            }
        }
    }

    /// Everything that is complete is loaded together, so that routes know what they wait for. Files
    /// that have just been put there are waited for a moment: calls wait meanwhile.
    async fn first_scan(&mut self) {
        let scan = self.scan_settled().await;
        report(&scan.problems);
        let found = scan
            .plugins
            .into_iter()
            .filter_map(|seen| match seen {
                Seen::Changed(candidate) => Some(*candidate),
                Seen::Unchanged(_) => None,
            })
            .collect();
        let results = self.manager.load_found(found).await;
        let tried = results.len();
        let mut serving = 0;
        for (place, result) in results {
            match result {
                Ok(_) => {
                    self.failed.remove(&place);
                    serving += 1;
                }
                Err(error) => {
                    self.failed.insert(place);
                    tracing::error!(plugin = %error.plugin, version = %error.version, "{error}");
                }
            }
        }
        self.manager.all_has_been_tried().await;
        tracing::info!(
            serving,
            problems = scan.problems.len() + tried - serving,
            "the plugin directory has been read"
        );
        // What is restored may have lost its files.
        self.take_out_what_is_gone().await;
    }

    /// Looks until what has just been put there has come to rest, for at most [`SETTLING_TIME`].
    async fn scan_settled(&mut self) -> Scan {
        let began = Instant::now();
        let mut all = self.scan().await;
        while let Some(delay) = all.look_again
            && delay <= SETTLING_TIME.saturating_sub(began.elapsed())
        {
            tokio::time::sleep(delay).await;
            let scan = self.scan().await;
            all.plugins.extend(scan.plugins);
            all.problems.extend(scan.problems);
            all.look_again = scan.look_again;
        }
        all
    }

    async fn scan(&mut self) -> Scan {
        let mut eyes = self.eyes.take().expect(EYES_ARE_BACK);
        let looking = Handle::current().spawn_blocking(move || {
            let scan = eyes.look();
            (eyes, scan)
        });
        let (eyes, scan) = looking
            .await
            .expect("a look does not panic, and its runtime lives as long as the keeper");
        let standing = eyes.scanner.standing_problems().into_iter();
        let standing = standing
            .map(|standing| PlaceProblem {
                path: standing.path,
                problem: standing.problem,
                signature: standing.signature.map(SignatureStatus::now),
            })
            .collect();
        self.eyes = Some(eyes);
        self.problems
            .send_if_modified(|known| std::mem::replace(known, standing) != *known);
        scan
    }

    fn eyes(&mut self) -> &mut Eyes {
        self.eyes.as_mut().expect(EYES_ARE_BACK)
    }

    /// Looks at the directory and starts what has to be done.
    async fn look(&mut self) {
        let scan = self.scan().await;
        self.take_in(scan, Vetoes::Count).await;
    }

    /// Starts what a look at the directory asks for; returns what is wrong there.
    async fn take_in(&mut self, scan: Scan, vetoes: Vetoes) -> Vec<String> {
        report(&scan.problems);
        for seen in scan.plugins {
            match seen {
                Seen::Unchanged(place) => {
                    self.gone.remove(&place.path);
                }
                Seen::Changed(candidate) => {
                    self.gone.remove(&candidate.place);
                    self.start(*candidate, vetoes);
                }
            }
        }
        self.take_out_what_is_gone().await;
        scan.problems.iter().map(ToString::to_string).collect()
    }

    fn start(&mut self, candidate: Candidate, vetoes: Vetoes) {
        if !self.busy.insert(candidate.place.clone()) {
            // Changed again while it is being loaded: seen again when that has ended.
            self.eyes().scanner.forget(&candidate.place);
            return;
        }
        let manager = Arc::clone(&self.manager);
        self.loading.spawn(async move {
            let place = candidate.place.clone();
            let plugin = candidate.metadata.name.clone();
            let result = match manager.load(candidate, vetoes).await {
                Ok(generation) => Ok(format!("{generation:?}")),
                Err(error) if error.is_disabled() => {
                    tracing::warn!(plugin = %error.plugin, version = %error.version, "{error}");
                    Err(error.to_string())
                }
                Err(error) => {
                    tracing::error!(
                        plugin = %error.plugin,
                        version = %error.version,
                        "{error}; what served before, if anything, goes on serving"
                    );
                    Err(error.to_string())
                }
            };
            Tried {
                place,
                plugin,
                result,
            }
        });
    }

    fn finish(
        &mut self,
        tried: Result<Tried, tokio::task::JoinError>,
    ) -> Option<(PluginName, Result<String, String>)> {
        // A task that panics leaves its place busy: it is the host's fault, and in the log.
        let tried = tried
            .inspect_err(|error| tracing::error!(%error, "loading ended early"))
            .ok()?;
        self.busy.remove(&tried.place);
        match &tried.result {
            Ok(_) => self.failed.remove(&tried.place),
            Err(_) => self.failed.insert(tried.place),
        };
        // Whatever changed meanwhile is due now.
        self.eyes().watch.look_again_in(Duration::ZERO);
        Some((tried.plugin, tried.result))
    }

    async fn take_out_what_is_gone(&mut self) {
        let now = Instant::now();
        for status in self.manager.status().plugins {
            if status.serving.is_none() || self.busy.contains(&status.place) {
                continue;
            }
            // An error other than absence (no permission, a network file system away) is no removal.
            if !matches!(status.place.try_exists(), Ok(false)) {
                self.gone.remove(&status.place);
                continue;
            }
            let since = *self.gone.entry(status.place.clone()).or_insert(now);
            let left = REMOVAL_GRACE.saturating_sub(now - since);
            if left > Duration::ZERO {
                self.eyes().watch.look_again_in(left);
                continue;
            }
            self.gone.remove(&status.place);
            self.eyes().scanner.forget(&status.place);
            if self.manager.unload_place(&status.place).await {
                tracing::warn!(
                    plugin = status.name,
                    version = status.serving,
                    place = %status.place.display(),
                    "the plugin's files are gone: its routes fail closed until they return"
                );
            }
        }
    }

    /// Looks at the directory and waits until everything that is new there has been tried.
    async fn reload(&mut self, vetoes: Vetoes) -> Reloaded {
        let scan = self.scan_settled().await;
        let mut reloaded = Reloaded {
            problems: self.take_in(scan, vetoes).await,
            ..Reloaded::default()
        };
        while let Some(tried) = self.loading.join_next().await {
            match self.finish(tried) {
                Some((_, Ok(loaded))) => reloaded.loaded.push(loaded),
                Some((_, Err(problem))) => reloaded.problems.push(problem),
                None => {}
            }
        }
        reloaded
    }
}

fn report(problems: &[Problem]) {
    for problem in problems {
        tracing::error!("{problem}");
    }
}
