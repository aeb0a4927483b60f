//! What one worker leaves to the next. The managers of several workers live one after the other, or
//! side by side, in this test binary; they share nothing but the two directories.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use plugin_host::{
    http_client::{HttpClient, Settings},
    keeper::{Keeper, Reloaded, Request},
    plugin::{
        manager::{KeptOut, LoadErrorCause, Manager, Options, Restored, Status, Vetoes},
        metadata::{Build, Digest},
        permissions::Permissions,
        registry::{Missing, Registry},
        settings::Operator,
    },
    tokens::{Bounds, Tokens, compile::Compiler},
};
use serde_json::json;
use tempfile::TempDir;
use tokio::sync::{Notify, mpsc, oneshot};

use crate::support::{
    PATIENCE,
    versions::{Files, LIBRARY, named, version},
};

/// A program that no rehearsal succeeds with.
const REFUSES: &str = "/bin/false";

/// What a worker begins with.
fn kept_out(quarantined: Vec<Build>) -> KeptOut {
    KeptOut {
        quarantined,
        ..KeptOut::default()
    }
}

/// The directories of one supervisor.
struct Directories(TempDir);

impl Directories {
    fn new() -> Self {
        let directories = Self(tempfile::tempdir().unwrap());
        fs::create_dir(directories.plugins()).unwrap();
        directories
    }

    fn plugins(&self) -> PathBuf {
        self.0.path().join("plugins")
    }

    fn kept(&self) -> PathBuf {
        self.0.path().join("kept")
    }

    fn write(&self, place: &str, files: &Files) {
        files.write(&self.plugins().join(place));
    }

    fn options(&self, rehearse_with: Option<&str>) -> Options {
        let private = tempfile::tempdir_in(self.0.path()).unwrap().keep();
        Options {
            plugin_dir: self.plugins(),
            private_dir: private,
            operator: Operator::default(),
            rehearse_with: rehearse_with.map(Into::into),
            permissions: Permissions::new(false),
            trust: Arc::default(),
            kept_dir: Some(self.kept()),
            retired_memory: u64::MAX,
            metrics: Arc::default(),
            http_client: HttpClient::new(Settings::default()),
            announce: None,
            events: None,
        }
    }

    /// A worker that keeps what it does, with everything loaded that is there.
    async fn first_worker(&self) -> Worker {
        let worker = Worker::new(self.options(None));
        worker.keeps().await;
        worker.manager.load_all().await;
        worker
    }

    /// The next worker, in which every rehearsal fails.
    async fn next_worker(&self, quarantined: Vec<Build>) -> (Worker, Restored) {
        let worker = Worker::new(self.options(Some(REFUSES)));
        let restored = worker.manager.restore(kept_out(quarantined)).await;
        worker.keeps().await;
        (worker, restored)
    }
}

struct Worker {
    manager: Arc<Manager>,
    private_dir: PathBuf,
}

impl Worker {
    fn new(options: Options) -> Self {
        let (to_compile, _) = mpsc::unbounded_channel();
        let bounds = Bounds::new(100, Duration::from_secs(3_600));
        let tokens = Arc::new(Tokens::new(bounds, to_compile));
        let compiler = Compiler::new(Arc::new(Registry::new()), tokens);
        Self {
            private_dir: options.private_dir.clone(),
            manager: Arc::new(Manager::new(options, Arc::new(compiler))),
        }
    }

    /// Its death: all that is left of it is what it has kept.
    async fn dies(self) {
        self.manager.stop_keeping().await;
        fs::remove_dir_all(&self.private_dir).unwrap();
    }

    /// Begins to keep: whoever did before has let go of it.
    async fn keeps(&self) {
        let begun = tokio::time::timeout(PATIENCE, self.manager.begin_keeping()).await;
        begun.unwrap();
    }

    async fn load_again(&self) -> Vec<String> {
        let loaded = self.manager.load_all().await;
        assert!(loaded.problems.is_empty(), "{:?}", loaded.problems);
        let failures = loaded.failures.iter().map(ToString::to_string);
        failures.collect()
    }

    fn serving(&self, requested: &str) -> Result<String, Missing> {
        let generation = self.manager.get(requested)?;
        Ok(generation.version().to_string())
    }

    fn status(&self) -> Status {
        self.manager.status()
    }

    /// Starts what looks after the plugin directory.
    fn keep_up(&self, plugins: &Path, restored: Restored) -> mpsc::Sender<Request> {
        let (mut keeper, requests) = Keeper::new(
            Arc::clone(&self.manager),
            plugins,
            Duration::from_secs(3_600),
            Arc::new(Notify::new()),
        );
        keeper.resume(restored);
        tokio::spawn(keeper.run());
        requests
    }
}

fn build(files: &Files) -> Build {
    serde_json::from_value(json!({
        "name": files.metadata["name"],
        "version": files.metadata["version"],
        "digest": Digest::of(&files.library),
    }))
    .unwrap()
}

async fn reload(requests: &mpsc::Sender<Request>) -> Reloaded {
    let (done, reloaded) = oneshot::channel();
    let vetoes = Vetoes::Count;
    requests
        .send(Request::Reload { vetoes, done })
        .await
        .unwrap();
    reloaded.await.unwrap()
}

#[tokio::test]
async fn what_served_serves_again_without_a_rehearsal_and_without_the_operators_files() {
    let directories = Directories::new();
    directories.write("versioned@1.0.0", &version("1.0.0"));
    directories.write("versioned@2.0.0", &version("2.0.0"));
    fs::write(
        directories.plugins().join("libbareother.so"),
        named("bareother", "3.0.0").library,
    )
    .unwrap();
    let first = directories.first_worker().await;
    assert!(
        first
            .manager
            .unload_place(&directories.plugins().join("versioned@1.0.0"))
            .await
    );
    first.dies().await;
    fs::remove_dir_all(directories.plugins()).unwrap();

    let (second, restored) = directories.next_worker(Vec::new()).await;
    assert_eq!(restored.serving.len(), 2);
    assert_eq!(second.serving("versioned").unwrap(), "2.0.0");
    assert_eq!(second.serving("bareother").unwrap(), "3.0.0");
    assert!(second.serving("versioned@^1").is_err(), "it was unloaded");
    drop(restored);
    second.dies().await;

    let (third, restored) = directories.next_worker(Vec::new()).await;
    assert_eq!(restored.serving.len(), 2, "what is restored is kept again");
    assert_eq!(third.serving("bareother").unwrap(), "3.0.0");
}

#[tokio::test]
async fn the_next_worker_can_roll_back_and_the_one_after_it_stays_there() {
    let directories = Directories::new();
    directories.write("versioned", &version("1.0.0"));
    let first = directories.first_worker().await;
    directories.write("versioned", &version("2.0.0"));
    assert!(first.load_again().await.is_empty());
    first.dies().await;

    let second = Worker::new(directories.options(None));
    second.manager.restore(KeptOut::default()).await;
    second.keeps().await;
    assert_eq!(second.serving("versioned").unwrap(), "2.0.0");
    assert_eq!(
        second.status().plugins[0].previous.as_deref(),
        Some("1.0.0")
    );
    second
        .manager
        .rollback("versioned", Vetoes::Count, None)
        .await
        .unwrap();
    second.dies().await;

    let (third, restored) = directories.next_worker(Vec::new()).await;
    assert_eq!(third.serving("versioned").unwrap(), "1.0.0");
    assert_eq!(third.status().plugins[0].previous.as_deref(), Some("2.0.0"));
    let requests = third.keep_up(&directories.plugins(), restored);
    let reloaded = reload(&requests).await;
    assert!(
        reloaded.loaded.is_empty() && reloaded.problems.is_empty(),
        "{reloaded:?}"
    );
    assert_eq!(
        third.serving("versioned").unwrap(),
        "1.0.0",
        "its files have not changed"
    );
}

#[tokio::test]
async fn what_was_refused_is_not_tried_again_until_it_changes_or_an_operator_asks() {
    let directories = Directories::new();
    directories.write("versioned", &version("1.0.0"));
    let first = directories.first_worker().await;
    let bad = version("2.0.0").settings(json!({ "load": "fail" }));
    directories.write("versioned", &bad);
    let failures = first.load_again().await;
    assert!(failures[0].contains("told to fail"), "{failures:?}");
    first.dies().await;

    let (second, restored) = directories.next_worker(Vec::new()).await;
    assert_eq!(second.serving("versioned").unwrap(), "1.0.0");
    let requests = second.keep_up(&directories.plugins(), restored);
    // Answered when the directory has been read.
    let (done, first_look) = oneshot::channel();
    let plugin = "versioned".to_owned();
    requests
        .send(Request::Unblock { plugin, done })
        .await
        .unwrap();
    first_look.await.unwrap().unwrap();
    let status = second.status();
    let error = status.plugins[0].last_error.clone().unwrap();
    assert!(error.contains("told to fail"), "not tried again: {error}");

    let reloaded = reload(&requests).await;
    assert!(
        reloaded.problems[0].contains("rehearsal"),
        "tried again: {reloaded:?}"
    );
    assert_eq!(second.serving("versioned").unwrap(), "1.0.0");
}

#[tokio::test]
async fn files_that_changed_are_upgraded_and_those_that_went_are_unloaded_after_the_grace() {
    let directories = Directories::new();
    directories.write("versioned", &version("1.0.0"));
    directories.write("andgoaway", &named("andgoaway", "1.0.0"));
    directories.first_worker().await.dies().await;
    directories.write("versioned", &version("2.0.0"));
    fs::remove_dir_all(directories.plugins().join("andgoaway")).unwrap();

    let worker = Worker::new(directories.options(None));
    let restored = worker.manager.restore(KeptOut::default()).await;
    worker.keeps().await;
    assert_eq!(worker.serving("versioned").unwrap(), "1.0.0");
    let _requests = worker.keep_up(&directories.plugins(), restored);
    let upgraded = async {
        while worker.serving("versioned").unwrap() != "2.0.0" {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, upgraded).await.unwrap();
    assert_eq!(
        worker.serving("andgoaway").unwrap(),
        "1.0.0",
        "it may come back"
    );
    let unloaded = async {
        while worker.serving("andgoaway").is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, unloaded).await.unwrap();
    worker.dies().await;
    let (next, restored) = directories.next_worker(Vec::new()).await;
    assert_eq!(restored.serving.len(), 1);
    assert!(next.serving("andgoaway").is_err());
}

#[tokio::test]
async fn what_is_in_quarantine_is_not_loaded_and_what_served_before_it_serves() {
    let directories = Directories::new();
    directories.write("versioned", &version("1.0.0"));
    let first = directories.first_worker().await;
    let deadly = version("2.0.0");
    directories.write("versioned", &deadly);
    assert!(first.load_again().await.is_empty());
    first.dies().await;

    let (second, _) = directories.next_worker(vec![build(&deadly)]).await;
    assert_eq!(second.serving("versioned").unwrap(), "1.0.0");
    let refused = second.serving("versioned@^2").unwrap_err();
    let words = [
        "versioned",
        "2.0.0",
        "quarantine",
        "plugin-host lift versioned",
    ];
    assert!(
        words.iter().all(|word| refused.to_string().contains(word)),
        "{refused}"
    );
    let loaded = second.manager.load_all().await;
    let cause = &loaded.failures[0].cause;
    assert!(matches!(cause, LoadErrorCause::Quarantined(_)), "{cause}");
    let status = second.status();
    assert_eq!(status.quarantined.len(), 1);
    let shown = &status.quarantined[0];
    assert_eq!(
        (shown.name.as_str(), shown.version.as_str()),
        ("versioned", "2.0.0")
    );
    assert_eq!(shown.digest, Digest::of(&deadly.library).to_string());
    assert_eq!(shown.serving_instead.as_deref(), Some("1.0.0"));
    assert!(
        second
            .manager
            .rollback("versioned", Vetoes::Count, None)
            .await
            .is_err()
    );
    second.dies().await;

    let (third, _) = directories.next_worker(vec![build(&deadly)]).await;
    assert_eq!(
        third.serving("versioned").unwrap(),
        "1.0.0",
        "also in the worker after that"
    );
    third.dies().await;
    let next = Worker::new(directories.options(None));
    next.manager.restore(kept_out(vec![build(&deadly)])).await;
    directories.write("versioned", &version("2.0.1"));
    assert!(next.load_again().await.is_empty());
    assert_eq!(
        next.serving("versioned@^2").unwrap(),
        "2.0.1",
        "a new file ends it"
    );
}

#[tokio::test]
async fn a_quarantine_that_is_lifted_lets_the_plugin_try_again() {
    let directories = Directories::new();
    let deadly = version("2.0.0");
    directories.write("versioned", &deadly);
    directories.first_worker().await.dies().await;

    let worker = Worker::new(directories.options(None));
    let restored = worker.manager.restore(kept_out(vec![build(&deadly)])).await;
    worker.keeps().await;
    assert!(restored.serving.is_empty());
    let requests = worker.keep_up(&directories.plugins(), restored);
    assert!(reload(&requests).await.loaded.is_empty());
    let refused = worker.serving("versioned").unwrap_err();
    assert!(matches!(refused, Missing::Quarantined { .. }), "{refused}");
    assert_eq!(worker.status().quarantined[0].serving_instead, None);

    let lift = async |plugin: &str| {
        let (done, lifted) = oneshot::channel();
        let plugin = plugin.to_owned();
        requests.send(Request::Lift { plugin, done }).await.unwrap();
        lifted.await.unwrap()
    };
    assert!(lift("nobody").await.is_err());
    let lifted = lift("versioned").await.unwrap();
    assert_eq!(lifted.loaded, ["versioned 2.0.0"], "{lifted:?}");
    assert_eq!(worker.serving("versioned").unwrap(), "2.0.0");
    assert!(worker.status().quarantined.is_empty());
    assert!(lift("versioned").await.is_err());
}

#[tokio::test]
async fn routes_wait_for_what_a_worker_was_loading_when_it_died() {
    let directories = Directories::new();
    let hangs = named("hangingon", "1.0.0").settings(json!({ "load": "hang" }));
    directories.write("versioned", &version("1.0.0"));
    let first = directories.first_worker().await;
    directories.write("hangingon", &hangs);
    let loading = {
        let manager = Arc::clone(&first.manager);
        tokio::spawn(async move { manager.load_all().await })
    };
    let begun = async {
        while !matches!(first.serving("hangingon"), Err(Missing::Loading(_))) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        // The library is opened only after the ledger says so.
        while !fs::read_dir(&first.private_dir).unwrap().any(|copy| {
            let name = copy.unwrap().file_name();
            name.to_string_lossy().starts_with("hangingon")
        }) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(PATIENCE, begun).await.unwrap();
    loading.abort();
    first.dies().await;

    let (second, _) = directories.next_worker(vec![build(&hangs)]).await;
    let waits = second.serving("hangingon").unwrap_err();
    assert!(matches!(waits, Missing::Loading(_)), "{waits}");
    assert_eq!(second.serving("versioned").unwrap(), "1.0.0");
    second.load_again().await;
    second.manager.all_has_been_tried().await;
    let decided = second.serving("hangingon").unwrap_err();
    assert!(matches!(decided, Missing::Quarantined { .. }), "{decided}");
}

#[tokio::test]
async fn only_the_worker_that_serves_writes() {
    let directories = Directories::new();
    directories.write("versioned", &version("1.0.0"));
    let old = directories.first_worker().await;
    let ledger = || fs::read(directories.kept().join("ledger.json")).unwrap();
    let written = ledger();

    old.manager.stop_keeping().await;
    let new = Worker::new(directories.options(None));
    new.manager.restore(KeptOut::default()).await;
    directories.write("versioned", &version("2.0.0"));
    assert!(old.load_again().await.is_empty());
    assert!(new.load_again().await.is_empty());
    assert!(new.load_again().await.is_empty());
    assert_eq!(ledger(), written);

    new.keeps().await;
    old.manager.unload_all().await;
    new.dies().await;
    let (next, _) = directories.next_worker(Vec::new()).await;
    assert_eq!(next.serving("versioned").unwrap(), "2.0.0");
    let kept = fs::read_dir(directories.kept()).unwrap().count();
    assert_eq!(
        kept, 2,
        "the ledger, and one library: of the two loads the same bytes are left"
    );
}

#[tokio::test]
async fn without_a_ledger_nothing_is_decided_and_a_damaged_library_is_loaded_anew() {
    let directories = Directories::new();
    let (first, restored) = directories.next_worker(Vec::new()).await;
    assert!(restored.serving.is_empty());
    let snapshots = first.manager.registry().subscribe();
    assert!(
        snapshots.borrow().is_none(),
        "calls wait for the first scan"
    );
    drop(snapshots);
    first.dies().await;

    directories.write("versioned", &version("1.0.0"));
    directories.first_worker().await.dies().await;
    let library = fs::read_dir(directories.kept())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.extension().is_some_and(|end| end == "so"))
        .unwrap();
    fs::remove_file(&library).unwrap();
    fs::write(&library, &version("6.6.6").library).unwrap();
    let next = Worker::new(directories.options(None));
    let restored = next.manager.restore(KeptOut::default()).await;
    assert!(restored.serving.is_empty());
    let requests = next.keep_up(&directories.plugins(), restored);
    reload(&requests).await;
    assert_eq!(next.serving("versioned").unwrap(), "1.0.0");
    assert!(
        directories
            .plugins()
            .join("versioned")
            .join(LIBRARY)
            .exists()
    );
}

#[tokio::test]
async fn libraries_that_stay_mapped_are_counted_and_told_of_beyond_the_budget() {
    let directories = Directories::new();
    directories.write("versioned", &version("1.0.0"));
    let mut options = directories.options(None);
    options.kept_dir = None;
    options.retired_memory = 0;
    let worker = Worker::new(options);
    let over_budget = tokio::spawn(worker.manager.over_budget());
    assert!(worker.load_again().await.is_empty());
    assert_eq!(worker.status().retired.mapped_bytes, 0);
    assert!(!over_budget.is_finished());

    let bad = version("2.0.0").settings(json!({ "load": "fail" }));
    directories.write("versioned", &bad);
    assert_eq!(worker.load_again().await.len(), 1);
    let one = worker.status().retired.mapped_bytes;
    assert!(one > 64 << 10, "{one}");
    tokio::time::timeout(PATIENCE, over_budget)
        .await
        .unwrap()
        .unwrap();

    directories.write("versioned", &version("2.0.0"));
    assert!(worker.load_again().await.is_empty());
    assert_eq!(worker.status().retired.mapped_bytes, 2 * one);
    assert!(
        !directories.kept().exists(),
        "nothing is kept without a directory for it"
    );
}
