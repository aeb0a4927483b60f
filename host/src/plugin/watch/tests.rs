//! Watch and scanner together, on real files, with the system's events and no rescan: what is
//! handed out when people replace plugins in their ways.

#![allow(
    clippy::unwrap_used,
    reason = "a test may end at what it did not expect"
)]

use std::{os::unix::fs::symlink, process::Command, thread, time::Instant};

use serde_json::json;

use super::*;
use crate::plugin::{
    metadata::Digest,
    scan::{Scanner, Seen},
    testing::{PluginDirectory, library, plugin_json},
};

/// How long a test waits for what must come.
const DEADLINE: Duration = Duration::from_secs(20);

/// Longer than it takes to conclude something from files that stand still.
const STALL: Duration = Duration::from_millis(400);

/// What a host does with watch and scanner, without loading anything.
struct Host {
    watch: Watch,
    scanner: Scanner,
    /// What was handed out and what was told, in order.
    log: Vec<String>,
    /// What is there now.
    places: BTreeMap<PathBuf, String>,
    /// Libraries that are whole, besides those of their name and version.
    whole: Vec<Digest>,
}

impl Host {
    fn new(directory: &Path) -> Self {
        Self::with_rescan(directory, Duration::from_secs(3_600))
    }

    fn with_rescan(directory: &Path, rescan_every: Duration) -> Self {
        let watch = Watch::new(directory, rescan_every);
        let scanner = Scanner::new(directory);
        let mut host = Self {
            watch,
            scanner,
            log: Vec::new(),
            places: BTreeMap::new(),
            whole: Vec::new(),
        };
        host.look();
        host
    }

    fn look(&mut self) {
        let watch = &self.watch;
        let scan = self
            .scanner
            .scan(|path| watch.open_for_writing(path), Instant::now());
        self.watch.follow(&scan.follow);
        if let Some(delay) = scan.look_again {
            self.watch.look_again_in(delay);
        }
        self.places.retain(|path, _| {
            let unsure = scan.unsettled.contains(path) || scan.unfit.contains(path);
            unsure && !scan.directory_missing
        });
        for seen in scan.plugins {
            let place = match &seen {
                Seen::Unchanged(place) => place.clone(),
                Seen::Changed(candidate) => candidate.to_place(),
            };
            let name = format!("{} {}", place.name, place.version);
            if let Seen::Changed(candidate) = seen {
                let usual = library(place.name.as_str(), &place.version.to_string());
                let is_whole = candidate.digest == Digest::of(&usual)
                    || self.whole.contains(&candidate.digest);
                assert!(is_whole, "{name} was handed out half");
                self.log.push(name.clone());
            }
            self.places.insert(place.path, name);
        }
        let problems = scan.problems.iter();
        self.log.extend(problems.map(|problem| problem.to_string()));
    }

    /// Follows until these serve.
    async fn until(&mut self, serving: &[&str]) {
        let waited = tokio::time::timeout(DEADLINE, async {
            while !self.places.values().eq(serving) {
                self.watch.changed().await;
                self.look();
            }
        });
        if waited.await.is_err() {
            panic!("{:?} after {:?}, not {serving:?}", self.places, self.log);
        }
    }

    /// Follows while somebody does something, and afterwards until these serve.
    async fn during(&mut self, action: impl FnOnce() + Send + 'static, serving: &[&str]) {
        let action = thread::spawn(action);
        while !action.is_finished() {
            let soon = Duration::from_millis(10);
            if tokio::time::timeout(soon, self.watch.changed())
                .await
                .is_ok()
            {
                self.look();
            }
        }
        action.join().unwrap();
        self.until(serving).await;
    }

    /// Follows until nothing is due any more.
    async fn rest(&mut self) {
        while tokio::time::timeout(2 * QUIET, self.watch.changed())
            .await
            .is_ok()
        {
            self.look();
        }
    }
}

/// A directory with `say` 1.0.0, a host that serves it, and a place for files that are to come.
async fn with_say() -> (PluginDirectory, Host, PluginDirectory) {
    let plugins = PluginDirectory::new();
    plugins.plugin("say", "say", "1.0.0");
    let mut host = Host::new(plugins.path());
    host.until(&["say 1.0.0"]).await;
    host.rest().await;
    host.log.clear();
    let aside = PluginDirectory::new();
    aside.plugin("say", "say", "1.1.0");
    (plugins, host, aside)
}

/// Does something to the plugin directory (`$P`), with version 1.1.0 at hand (`$N`), by a shell
/// command; the new version must be handed out, once, and nothing else.
async fn check(command: &'static str) {
    let (plugins, mut host, aside) = with_say().await;
    let (path, new) = (plugins.path().to_owned(), aside.path().to_owned());
    let action = move || {
        let status = Command::new("sh")
            .args(["-ec", command])
            .env("P", path)
            .env("N", new)
            .status();
        assert!(status.unwrap().success());
    };
    host.during(action, &["say 1.1.0"]).await;
    host.rest().await;
    assert_eq!(host.log, ["say 1.1.0"], "{command}");
}

#[tokio::test]
async fn a_plugin_copied_over_is_seen() {
    check("cp $N/say/libsay.so $N/say/plugin.json $P/say/").await;
}

#[tokio::test]
async fn a_plugin_copied_over_with_its_times_is_seen() {
    check("cp -p $N/say/plugin.json $N/say/libsay.so $P/say/").await;
}

#[tokio::test]
async fn files_moved_into_place_are_seen() {
    check("mv $N/say/* $P/say/").await;
}

#[tokio::test]
async fn a_directory_moved_into_place_is_seen() {
    check("mv $P/say $N/old; mv $N/say $P/say").await;
}

#[tokio::test]
async fn a_directory_removed_and_copied_again_is_seen() {
    check("rm -rf $P/say; cp -r $N/say $P/").await;
}

#[tokio::test]
async fn a_directory_removed_and_copied_again_after_a_while_is_seen() {
    check("rm -rf $P/say; sleep 0.4; cp -r $N/say $P/").await;
}

#[tokio::test]
async fn files_written_under_temporary_names_and_renamed_are_seen() {
    check(
        "for f in libsay.so plugin.json; do \
           cp $N/say/$f $P/say/.$f.Xy12ab; sleep 0.15; mv $P/say/.$f.Xy12ab $P/say/$f; done",
    )
    .await;
}

#[tokio::test]
async fn hard_links_as_cargo_makes_them_are_seen() {
    check(
        "mkdir $P/.deps; cp $N/say/* $P/.deps/; \
         for f in libsay.so plugin.json; do rm $P/say/$f; ln $P/.deps/$f $P/say/$f; done",
    )
    .await;
}

#[tokio::test]
async fn library_and_metadata_some_time_apart_are_seen_together() {
    check("cp $N/say/plugin.json $P/say/; sleep 0.4; cp $N/say/libsay.so $P/say/").await;
    check("cp $N/say/libsay.so $P/say/; sleep 0.4; cp $N/say/plugin.json $P/say/").await;
}

#[tokio::test]
async fn a_copy_that_stalls_is_not_taken_for_whole() {
    check(
        "cp $N/say/plugin.json $P/say/; \
         { head -c 5000 $N/say/libsay.so; sleep 0.4; tail -c +5001 $N/say/libsay.so; } \
           > $P/say/libsay.so",
    )
    .await;
}

#[tokio::test]
async fn a_directory_beside_it_takes_over_by_a_switched_link() {
    check(
        "mv $P/say $P/.v1; ln -s .v1 $P/say; sleep 0.4; \
         cp -r $N/say $P/.v2; ln -s .v2 $P/.next; mv -T $P/.next $P/say",
    )
    .await;
}

#[tokio::test]
async fn the_whole_directory_replaced_is_seen() {
    check("mv $P $P.old; cp -r $N $P; rm -r $P.old").await;
}

#[tokio::test]
async fn the_whole_directory_replaced_after_a_while_is_seen() {
    check("mv $P $P.old; sleep 0.3; cp -r $N $P; rm -r $P.old").await;
}

#[tokio::test]
async fn a_library_overwritten_in_place_is_not_taken_in_between() {
    use std::io::{Seek, SeekFrom, Write};

    const CHUNK: usize = 10_000;
    let plugins = PluginDirectory::new();
    // Nothing but the digest says that what lies between the two is neither of them.
    let [old, new] = [b'o', b'n'].map(|letter| {
        let mut bytes = library("say", "1.0.0");
        bytes.resize(bytes.len() + 3 * CHUNK, letter);
        bytes
    });
    let file = plugins.write("libsay.so", &old).path().join("libsay.so");
    let mut host = Host::new(plugins.path());
    host.whole = [&old, &new].map(|bytes| Digest::of(bytes)).to_vec();
    host.until(&["say 1.0.0"]).await;
    let action = move || {
        let mut file = fs::File::options().write(true).open(file).unwrap();
        for (index, bytes) in new.chunks(CHUNK).enumerate() {
            file.seek(SeekFrom::Start((index * CHUNK) as u64)).unwrap();
            file.write_all(bytes).unwrap();
            thread::sleep(STALL);
        }
    };
    host.during(action, &["say 1.0.0"]).await;
    host.wait_for_log(2).await;
    host.rest().await;
    assert_eq!(host.log, ["say 1.0.0", "say 1.0.0"]);
}

#[tokio::test]
async fn metadata_saved_by_editors_is_seen() {
    let (plugins, mut host, _aside) = with_say().await;
    let file = plugins.path().join("say/plugin.json");
    let json = |timeout: u64| plugin_json("say", "1.0.0", &json!({"timeout_ms": timeout}));
    let temporary = plugins.path().join("say/.plugin.json.swp");
    fs::write(&temporary, json(1)).unwrap();
    fs::rename(&temporary, &file).unwrap();
    host.wait_for_log(1).await;
    fs::write(&file, json(2)).unwrap();
    host.wait_for_log(2).await;
    let backup = plugins.path().join("say/plugin.json~");
    fs::rename(&file, backup).unwrap();
    fs::write(&file, json(3)).unwrap();
    host.wait_for_log(3).await;
    host.rest().await;
    assert_eq!(host.log, ["say 1.0.0"; 3]);
}

impl Host {
    async fn wait_for_log(&mut self, lines: usize) {
        let waited = tokio::time::timeout(DEADLINE, async {
            while self.log.len() < lines {
                self.watch.changed().await;
                self.look();
            }
        });
        waited.await.unwrap();
    }
}

#[tokio::test]
async fn bare_libraries_come_change_and_go() {
    let plugins = PluginDirectory::new();
    let mut host = Host::new(plugins.path());
    host.until(&[]).await;
    plugins.write("libsay.so", library("say", "1.0.0"));
    host.until(&["say 1.0.0"]).await;
    plugins.write("libsay.so", library("say", "1.1.0"));
    host.until(&["say 1.1.0"]).await;
    fs::remove_file(plugins.path().join("libsay.so")).unwrap();
    host.until(&[]).await;
    assert_eq!(host.log, ["say 1.0.0", "say 1.1.0"]);
}

#[tokio::test]
async fn a_kubernetes_mount_is_switched_at_once() {
    let mount = PluginDirectory::new();
    let switch = |version: &str| {
        let data = format!("..{version}");
        mount
            .plugin(&format!("{data}/say"), "say", version)
            .link("..data_tmp", &data);
        let path = mount.path();
        fs::rename(path.join("..data_tmp"), path.join("..data")).unwrap();
    };
    switch("1.0.0");
    mount.link("say", "..data/say");
    let mut host = Host::new(mount.path());
    host.until(&["say 1.0.0"]).await;
    for version in ["1.1.0", "1.2.0"] {
        switch(version);
        host.until(&[&format!("say {version}")]).await;
    }
    assert_eq!(host.log, ["say 1.0.0", "say 1.1.0", "say 1.2.0"]);
}

#[tokio::test]
async fn a_kubernetes_mount_of_one_plugin_is_switched_at_once() {
    let plugins = PluginDirectory::new();
    let switch = |version: &str| {
        let data = format!("..{version}");
        plugins
            .plugin(&format!("say/{data}"), "say", version)
            .link("say/..data_tmp", &data);
        let path = plugins.path().join("say");
        fs::rename(path.join("..data_tmp"), path.join("..data")).unwrap();
    };
    switch("1.0.0");
    plugins
        .link("say/plugin.json", "..data/plugin.json")
        .link("say/libsay.so", "..data/libsay.so");
    let mut host = Host::new(plugins.path());
    host.until(&["say 1.0.0"]).await;
    switch("1.1.0");
    host.until(&["say 1.1.0"]).await;
    assert_eq!(host.log, ["say 1.0.0", "say 1.1.0"]);
}

#[tokio::test]
async fn a_plugin_directory_that_is_a_link_is_followed_wherever_it_leads() {
    let releases = PluginDirectory::new();
    releases
        .plugin("1/say", "say", "1.0.0")
        .plugin("2/say", "say", "2.0.0")
        .link("current", "1")
        .link("deep/plugins", "../current");
    let mut host = Host::new(&releases.path().join("deep/plugins"));
    host.until(&["say 1.0.0"]).await;
    symlink("2", releases.path().join("next")).unwrap();
    fs::rename(
        releases.path().join("next"),
        releases.path().join("current"),
    )
    .unwrap();
    host.until(&["say 2.0.0"]).await;
    // What the link leads to is watched, not only the link.
    releases.plugin("2/say", "say", "2.1.0");
    host.until(&["say 2.1.0"]).await;
}

#[tokio::test]
async fn a_directory_that_appears_later_is_seen_however_much_of_its_path_was_missing() {
    let root = PluginDirectory::new();
    let mut host = Host::new(&root.path().join("etc/host/plugins"));
    assert_eq!(host.log.len(), 1, "{:?}", host.log);
    host.rest().await;
    fs::create_dir(root.path().join("etc")).unwrap();
    host.rest().await;
    root.plugin("etc/host/plugins/say", "say", "1.0.0");
    host.until(&["say 1.0.0"]).await;
    fs::remove_dir_all(root.path().join("etc")).unwrap();
    host.until(&[]).await;
    root.plugin("etc/host/plugins/say", "say", "1.1.0");
    host.until(&["say 1.1.0"]).await;
}

#[tokio::test]
async fn a_library_that_is_built_deep_in_the_plugin_s_directory_is_seen() {
    let plugins = PluginDirectory::new();
    let source = json!({"mode": "local_so", "path": "target/release/libsay.so"});
    let json = |version| plugin_json("say", version, &json!({"source": source}));
    plugins
        .write("say/plugin.json", json("1.0.0"))
        .write("say/target/release/libsay.so", library("say", "1.0.0"));
    let mut host = Host::new(plugins.path());
    host.until(&["say 1.0.0"]).await;
    fs::remove_dir_all(plugins.path().join("say/target")).unwrap();
    plugins.write("say/plugin.json", json("1.1.0"));
    host.rest_a_little().await;
    plugins.write("say/target/release/libsay.so", library("say", "1.1.0"));
    host.until(&["say 1.1.0"]).await;
    assert_eq!(host.log, ["say 1.0.0", "say 1.1.0"]);
}

impl Host {
    /// Follows for a while, during which something may be waited for.
    async fn rest_a_little(&mut self) {
        let _ = tokio::time::timeout(STALL, async {
            loop {
                self.watch.changed().await;
                self.look();
            }
        })
        .await;
    }
}

#[tokio::test]
async fn without_events_rescans_find_what_has_changed() {
    let plugins = PluginDirectory::new();
    plugins.plugin("say", "say", "1.0.0");
    let mut host = Host::with_rescan(plugins.path(), QUIET);
    host.watch.watcher = None;
    host.until(&["say 1.0.0"]).await;
    plugins.plugin("say", "say", "1.1.0");
    host.until(&["say 1.1.0"]).await;
    fs::remove_dir_all(plugins.path().join("say")).unwrap();
    host.until(&[]).await;
    assert_eq!(host.log, ["say 1.0.0", "say 1.1.0"]);
}

#[tokio::test]
async fn reading_and_other_people_s_files_are_no_change() {
    let around = PluginDirectory::new();
    around.plugin("plugins/say", "say", "1.0.0");
    let mut watch = Watch::new(&around.path().join("plugins"), Duration::from_secs(3_600));
    fs::read(around.path().join("plugins/say/libsay.so")).unwrap();
    around.write("neighbour/libsay.so", "");
    let nothing = tokio::time::timeout(3 * QUIET, watch.changed()).await;
    assert!(nothing.is_err(), "{nothing:?}");
    around.write("plugins/libsay.so", "");
    assert_eq!(watch.changed().await, Reason::Events);
}

#[tokio::test]
async fn a_look_that_was_asked_for_is_due_and_rescans_go_on() {
    let plugins = PluginDirectory::new();
    let mut watch = Watch::new(plugins.path(), 3 * QUIET);
    watch.look_again_in(Duration::from_secs(3_600));
    watch.look_again_in(Duration::from_millis(1));
    assert_eq!(watch.changed().await, Reason::LookAgain);
    assert_eq!(watch.changed().await, Reason::Rescan);
    assert_eq!(watch.changed().await, Reason::Rescan);
}

#[tokio::test]
async fn events_that_never_end_do_not_put_the_look_off_for_ever() {
    let plugins = PluginDirectory::new();
    let mut watch = Watch::new(plugins.path(), Duration::from_secs(3_600));
    let file = plugins.path().join("log");
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let writer = thread::spawn(move || {
        let pause = QUIET / 10;
        while stopped.recv_timeout(pause) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
            fs::write(&file, "more").unwrap();
        }
    });
    for _ in 0..2 {
        let reason = tokio::time::timeout(DEADLINE, watch.changed()).await;
        assert_eq!(reason, Ok(Reason::Events));
    }
    drop(stop);
    writer.join().unwrap();
}

#[tokio::test]
async fn no_more_than_so_many_directories_are_watched_and_the_plugin_directory_is_one() {
    let plugins = PluginDirectory::new();
    let many: Vec<_> = (0..MAX_WATCHED + 10)
        .map(|index| plugins.path().join(index.to_string()))
        .collect();
    for directory in &many {
        fs::create_dir(directory).unwrap();
    }
    let mut watch = Watch::new(plugins.path(), Duration::from_secs(3_600));
    watch.follow(&many);
    // Fewer where the system allows fewer.
    assert!(watch.watched.len() <= MAX_WATCHED);
    assert!(
        watch
            .watched
            .contains_key(&plugins.path().canonicalize().unwrap())
    );
    watch.follow(&[]);
    assert!(watch.watched.len() <= 2);
}
