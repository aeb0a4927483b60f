//! Plugins from elsewhere: `install`, `update`, `outdated`, `remove` and `push`, with servers of their own,
//! and that of what is refused nothing is in the plugin directory.

use std::{
    fs,
    path::{Path, PathBuf},
};

use tempfile::TempDir;

use crate::support::{
    Ended, Host,
    packages::{Signer, package, put},
    serving::{until, until_closed, word},
    versions::version,
    web::{Reply, Web},
    with_environment,
};

/// A plugin directory, and a cache that nobody else has.
pub(crate) struct Desk {
    directory: TempDir,
}

impl Desk {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        Self { directory }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    /// With another plugin directory.
    pub(crate) fn run_in(&self, plugins: &str, arguments: &[&str]) -> Ended {
        self.alone(&[arguments, &["--plugin-dir", plugins]].concat())
    }

    /// A command that knows no plugin directory.
    pub(crate) fn alone(&self, arguments: &[&str]) -> Ended {
        self.alone_with(arguments, &[])
    }

    /// With more of an environment.
    pub(crate) fn run_with(&self, arguments: &[&str], environment: &[(&str, &str)]) -> Ended {
        let plugins = self.text("plugins");
        self.alone_with(
            &[arguments, &["--plugin-dir", &plugins]].concat(),
            environment,
        )
    }

    /// A command that knows no plugin directory, with more of an environment.
    pub(crate) fn alone_with(&self, arguments: &[&str], environment: &[(&str, &str)]) -> Ended {
        let cache = self.text("cache");
        let environment = [&[("XDG_CACHE_HOME", cache.as_str())], environment].concat();
        with_environment(arguments, &environment, "")
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Ended {
        self.run_in(&self.text("plugins"), arguments)
    }

    /// It is refused with these words, and nothing has landed.
    pub(crate) fn refused(&self, code: i32, words: &str, arguments: &[&str]) -> Ended {
        let before = names(&self.path("plugins"));
        let ended = self.run(arguments);
        assert_eq!(ended.code, code, "{ended:?}");
        assert!(ended.stderr.contains(words), "{words}: {}", ended.stderr);
        assert_eq!(names(&self.path("plugins")), before);
        ended
    }
}

pub(crate) fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.collect();
    names.sort();
    names
}

pub(crate) fn good(ended: &Ended, words: &str) {
    assert_eq!(ended.code, 0, "{ended:?}");
    assert!(ended.stdout.contains(words), "{words}: {ended:?}");
}

pub(crate) fn sha256(bytes: &[u8]) -> String {
    use sha2::Digest as _;
    let digest = sha2::Sha256::digest(bytes);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn a_running_host_serves_what_is_installed_upgrades_to_it_and_closes_what_is_removed() {
    let desk = Desk::new();
    let host = Host::builder().start();
    let plugins = host.plugins().to_str().unwrap().to_owned();
    let file = desk.text("x.plg");
    put(file.as_ref(), package(&version("0.1.0")));
    good(
        &desk.run_in(&plugins, &["install", &file]),
        "versioned 0.1.0: installed",
    );
    let mut gateway = host.gateway();
    let token = gateway.prepare("route#1#pre#1", [("versioned", word("hello"))]);
    until(&mut gateway, token, "0.1.0", "hello");

    put(file.as_ref(), package(&version("0.2.0")));
    let outdated = desk.run_in(&plugins, &["outdated", "--json"]).json();
    assert_eq!(outdated[0]["outdated"], true);
    let updated = desk.run_in(&plugins, &["update"]);
    good(&updated, "versioned 0.2.0: installed in the place of 0.1.0");
    until(&mut gateway, token, "0.2.0", "hello");
    assert_eq!(
        names(&host.plugins()),
        ["plugins.lock", "versioned-0.2.0.plg"]
    );
    good(
        &desk.run_in(&plugins, &["update", "versioned"]),
        "unchanged",
    );

    good(
        &desk.run_in(&plugins, &["remove", "versioned"]),
        "0.2.0: removed",
    );
    until_closed(&mut gateway, token);
    assert_eq!(names(&host.plugins()), ["plugins.lock"]);
}

#[test]
fn a_lock_gives_another_directory_the_same_bytes_or_nothing() {
    let desk = Desk::new();
    let file = desk.text("x.plg");
    put(file.as_ref(), package(&version("0.1.0")));
    good(&desk.run(&["install", &file]), "installed");
    fs::create_dir(desk.path("other")).unwrap();
    fs::copy(
        desk.path("plugins/plugins.lock"),
        desk.path("other/plugins.lock"),
    )
    .unwrap();
    let other = desk.text("other");
    good(
        &desk.run_in(&other, &["install", "--locked"]),
        "0.1.0: installed",
    );
    good(
        &desk.run_in(&other, &["install", "--locked"]),
        "0.1.0: unchanged",
    );
    for name in names(&desk.path("plugins")) {
        let read = |directory: &str| fs::read(desk.path(directory).join(&name)).unwrap();
        assert_eq!(read("plugins"), read("other"), "{name}");
    }

    // The source has something else by now, and what is there is damaged.
    put(file.as_ref(), package(&version("0.2.0")));
    fs::write(desk.path("plugins/versioned-0.1.0.plg"), "damaged").unwrap();
    desk.refused(1, "the SHA-256 is", &["install", "--locked"]);
    // Nobody takes the place of what an operator has put there.
    fs::create_dir_all(desk.path("third/versioned")).unwrap();
    let third = desk.run_in(&desk.text("third"), &["install", &file]);
    assert_eq!(third.code, 1, "{third:?}");
    assert!(third.stderr.contains("was not installed by this command"));
}

#[test]
fn what_is_no_source_no_plugin_or_not_vouched_for_never_lands() {
    let desk = Desk::new();
    let file = desk.text("x.plg");
    put(file.as_ref(), package(&version("0.1.0")));
    desk.refused(2, "no source of plugins", &["install", "ftp://a.example/x"]);
    let secret = "https://me:hunter2@a.example/x.plg";
    let ended = desk.refused(2, "user name in it", &["install", secret]);
    assert!(!ended.stderr.contains("hunter2"));
    desk.refused(1, "does not fit", &["install", &file, "--version", "^2"]);
    desk.refused(1, "is not installed", &["remove", "versioned"]);
    put(&desk.path("none.plg"), "nonsense");
    desk.refused(1, "", &["install", &desk.text("none.plg")]);
    put(&desk.path("x.txt"), "nonsense");
    desk.refused(1, "neither a package", &["install", &desk.text("x.txt")]);

    let alice = Signer::trusted_as("alice");
    let config = format!(
        "signatures = \"require\"\ntrusted_keys = {:?}\n",
        alice.trusted()
    );
    fs::write(desk.path("config.toml"), config).unwrap();
    let config = desk.text("config.toml");
    let install = ["install", &file, "--config", &config];
    desk.refused(1, "it is not signed", &install);
    let bytes = fs::read(&file).unwrap();
    let signature = alice.signature_of(&bytes, &[]);
    put(&desk.path("x.plg.minisig"), &signature);
    good(&desk.run(&install), "installed");
    assert_eq!(
        fs::read(desk.path("plugins/versioned-0.1.0.plg.minisig")).unwrap(),
        signature
    );
    let lock = fs::read_to_string(desk.path("plugins/plugins.lock")).unwrap();
    assert!(lock.contains("\nsigner = \""), "{lock}");
    put(file.as_ref(), package(&version("0.2.0")));
    desk.refused(1, "is not what alice", &install);
}

#[test]
fn a_url_needs_the_digest_of_what_comes_from_there() {
    let desk = Desk::new();
    let bytes = package(&version("0.1.0"));
    let digest = sha256(&bytes);
    let web = Web::start(None, move |asked| match asked.path() {
        "/x.plg" => Reply::new(200, bytes.clone()),
        _ => Reply::new(404, ""),
    });
    let url = web.url("/x.plg");
    desk.refused(
        1,
        "give the package's SHA-256",
        &["install", &url, "--loopback-http"],
    );
    desk.refused(1, "without TLS", &["install", &url, "--sha256", &digest]);
    let away = format!("http://192.0.2.1/x.plg#sha256={digest}");
    desk.refused(1, "without TLS", &["install", &away, "--loopback-http"]);
    let zero = "0".repeat(64);
    desk.refused(
        1,
        "the SHA-256 is",
        &["install", &url, "--loopback-http", "--sha256", &zero],
    );
    let missing = web.url(&format!("/y.plg#sha256={digest}"));
    desk.refused(1, "answers 404", &["install", &missing, "--loopback-http"]);
    let install = ["install", &url, "--loopback-http", "--sha256", &digest];
    good(&desk.run(&install), "0.1.0: installed");
    good(&desk.run(&["outdated"]), "pinned by its digest");
    good(&desk.run(&["update"]), "unchanged");
}
