//! What fetching is bounded by, and the operator's proxy: redirects, the size and time of downloads, the
//! time, output and disk of a build.

use std::{
    fs,
    net::{SocketAddr, TcpStream},
    os::unix::fs::PermissionsExt as _,
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use serde_json::json;
use tempfile::TempDir;

use crate::{
    installs::{Desk, good, sha256},
    support::{
        http::free_address,
        packages::{package, put},
        registry::{Asks, Registry},
        repository::Repository,
        service::Authority,
        versions::version,
        wait_for,
        web::{Reply, Web},
    },
};

#[test]
fn so_many_redirects_are_followed_and_no_more_and_only_to_what_may_be_asked() {
    let desk = Desk::new();
    let bytes = package(&version("0.1.0"));
    let digest = sha256(&bytes);
    let web = Web::start(None, move |asked| match asked.path() {
        "/0" => Reply::new(200, bytes.clone()),
        "/ftp" => Reply::redirect("ftp://127.0.0.1/x.plg"),
        "/plain" => Reply::redirect("http://192.0.2.1/x.plg"),
        path => match path[1..].parse::<u32>() {
            // Some say where one came from.
            Ok(number) => Reply::redirect(&format!("/{}?from=https://a.example/", number - 1)),
            Err(_) => Reply::new(404, ""),
        },
    });
    let install = |path: &str| web.url(&format!("{path}#sha256={digest}"));
    for (path, words) in [
        ("/6", "more than 5 redirects"),
        ("/ftp", "only https:// is asked"),
        ("/plain", "without TLS"),
    ] {
        let source = install(path);
        desk.refused(1, words, &["install", &source, "--loopback-http"]);
    }
    let five = install("/5");
    good(
        &desk.run(&["install", &five, "--loopback-http"]),
        "0.1.0: installed",
    );
}

#[test]
fn a_download_has_a_size_and_a_time() {
    let desk = Desk::new();
    let bytes = package(&version("0.1.0"));
    let digest = sha256(&bytes);
    let web = Web::start(None, move |asked| match asked.path() {
        "/large.plg" => Reply::new(200, "")
            .without_length()
            .header("content-length", &((512 << 20) + 1).to_string()),
        "/early.plg" => Reply::new(200, "x")
            .without_length()
            .header("content-length", "100"),
        "/slow.plg" => {
            // Longer than it may take, and than the test.
            thread::sleep(Duration::from_secs(600));
            Reply::new(200, "")
        }
        "/x.plg" => Reply::new(200, bytes.clone()),
        "/x.plg.minisig" => Reply::new(200, vec![b'x'; (16 << 10) + 1]).without_length(),
        _ => Reply::new(404, ""),
    });
    for (path, words) in [
        ("/large.plg", "it has more than 536870912 bytes"),
        ("/early.plg", "it ends early"),
        ("/slow.plg", "it takes too long"),
        ("/x.plg", "minisig: it has more than 16384 bytes"),
    ] {
        let source = web.url(&format!("{path}#sha256={digest}"));
        let install = ["install", &source, "--loopback-http", "--fetch-time", "1"];
        desk.refused(1, words, &install);
    }
}

#[test]
fn a_build_beyond_its_time_output_or_disk_is_ended() {
    let desk = Desk::new();
    let repository = Repository::new("unused");
    for (directory, does) in [
        (
            "time",
            "std::thread::sleep(std::time::Duration::from_secs(600));",
        ),
        (
            "output",
            "for _ in 0..17 { println!(\"cargo:warning={}\", \"x\".repeat(1 << 20)); }",
        ),
        (
            "disk",
            "let directory = std::env::var(\"OUT_DIR\").unwrap();\n\
             std::fs::write(directory + \"/large\", vec![1; 64 << 20]).unwrap();\n\
             std::thread::sleep(std::time::Duration::from_secs(600));",
        ),
    ] {
        repository.crate_at(directory);
        repository.write(
            &format!("{directory}/build.rs"),
            &format!("fn main() {{\n{does}\n}}\n"),
        );
    }
    repository.commit("unused");
    let home = std::env::var("HOME").unwrap();
    let build = |directory: &str, bound: [&str; 2], path: &str| {
        let source = format!("{}#branch=main&dir={directory}", repository.source());
        let install = [
            "install",
            &source,
            "--allow-build",
            "--build-profile",
            "dev",
        ];
        let environment = [
            ("HOME", home.as_str()),
            ("CARGO_NET_OFFLINE", "true"),
            ("PATH", path),
        ];
        let ended = desk.run_with(&[&install[..], &bound].concat(), &environment);
        assert_eq!(ended.code, 1, "{ended:?}");
        ended.stderr
    };
    let path = std::env::var("PATH").unwrap();
    for (directory, bound, words) in [
        (
            "time",
            ["--build-time", "3"],
            "has taken more than 3s and was ended",
        ),
        (
            "output",
            ["--build-time", "300"],
            "has printed more than 16777216 bytes and was ended",
        ),
        (
            "disk",
            ["--build-disk", "32"],
            "has needed more than 33554432 bytes of disk and was ended",
        ),
    ] {
        let said = build(directory, bound, &path);
        assert!(said.contains(words), "{words}: {said}");
    }

    // The time is for all that cargo does, and not for each of its commands.
    let cargo = desk.path("cargo");
    fs::write(&cargo, "#!/bin/sh\nexec sleep 1.5\n").unwrap();
    fs::set_permissions(&cargo, fs::Permissions::from_mode(0o755)).unwrap();
    let slow = format!("{}:{path}", desk.text(""));
    let said = build("time", ["--build-time", "2"], &slow);
    assert!(
        said.contains("has taken more than 2s and was ended"),
        "{said}"
    );
}

/// The proxy of Debian's package `tinyproxy`, gone at the end of its test.
struct Proxy {
    address: SocketAddr,
    process: Child,
    directory: TempDir,
}

impl Proxy {
    fn start(user: &str, password: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let address = free_address();
        let config = format!(
            "Port {}\nListen {}\nTimeout 60\nMaxClients 20\nLogLevel Connect\nLogFile {:?}\n\
             BasicAuth {user} {password}\n",
            address.port(),
            address.ip(),
            directory.path().join("log")
        );
        let file = directory.path().join("tinyproxy.conf");
        fs::write(&file, config).unwrap();
        let process = Command::new("tinyproxy")
            .arg("-d")
            .arg("-c")
            .arg(file)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("scripts/install-tools --tests installs tinyproxy");
        wait_for("the proxy answers", || TcpStream::connect(address).ok());
        Self {
            address,
            process,
            directory,
        }
    }

    /// How often it was asked for a server.
    fn asked_for(&self, server: &str) -> usize {
        let log = fs::read_to_string(self.directory.path().join("log")).unwrap();
        let asked = format!("CONNECT {server} HTTP/1.1");
        log.lines().filter(|line| line.contains(&asked)).count()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn the_proxy_of_the_environment_is_asked_but_for_whom_it_is_not() {
    // No loopback address by its name, which would never go through a proxy.
    const HOST: &str = "0.0.0.0";
    let desk = Desk::new();
    let authority = Authority::new();
    let ca = authority.file(desk.path("").as_path());
    let trust = ("SSL_CERT_FILE", ca.to_str().unwrap());
    let proxy = Proxy::start("me", "hunter2-secret");
    let url = format!("http://me:hunter2-secret@{}", proxy.address);
    let through = ("HTTPS_PROXY", url.as_str());

    let bytes = package(&version("0.1.0"));
    let digest = sha256(&bytes);
    let web = Web::start(Some(&authority), move |asked| match asked.path() {
        "/x.plg" => Reply::new(200, bytes.clone()),
        _ => Reply::new(404, ""),
    });
    let server = |address: &str| format!("{HOST}:{}", address.rsplit(':').next().unwrap());
    let web_server = server(&web.authority());
    let source = web.url_of(HOST, &format!("/x.plg#sha256={digest}"));
    let install = |environment: &[(&str, &str)]| {
        // Nothing is there yet, and nothing comes from a cache.
        let place = tempfile::tempdir().unwrap();
        let place = place.path().to_str().unwrap();
        let install = ["install", &source, "--plugin-dir", place];
        let environment = [&[trust, ("XDG_CACHE_HOME", place)], environment].concat();
        desk.alone_with(&install, &environment)
    };
    let excepted = ("NO_PROXY", "b.example,0.0.0.0");
    good(&install(&[through, excepted]), "0.1.0: installed");
    assert_eq!(proxy.asked_for(&web_server), 0);
    good(&install(&[through]), "0.1.0: installed");
    assert_ne!(proxy.asked_for(&web_server), 0);

    // What the proxy says, and that there is none, is told without the password.
    let wrong = url.replace("secret", "wrong");
    let none = format!("http://me:hunter2-secret@{}", free_address());
    for (url, words) in [
        (&wrong, format!("401, through the proxy {}", proxy.address)),
        (
            &none,
            "refused (os error 111), through the proxy 127.0.0.1:".to_owned(),
        ),
    ] {
        let ended = install(&[("https_proxy", url)]);
        assert_eq!(ended.code, 1, "{ended:?}");
        assert!(ended.stderr.contains(&words), "{ended:?}");
        assert!(!ended.stderr.contains("hunter2"), "{ended:?}");
    }

    // `operator` with the password `hunter2-secret`.
    let known = "operator:$2y$05$0MbIxlTswT9egwPzM6iB2eMNQjRZZcSDZtM2R1Tl55DnR0p0WC7Zm\n";
    let registry = Registry::guarded(&authority, &Asks::Passwords(known));
    let registry_server = server(&registry.address().to_string());
    let file = desk.text("x.plg");
    put(file.as_ref(), package(&version("0.1.0")));
    let credentials = json!({"auths": {&registry_server: {
        "username": "operator", "password": "hunter2-secret",
    }}});
    let credentials = credentials.to_string();
    let known = ("PLUGIN_HOST_CREDENTIALS", credentials.as_str());
    let push = ["push", &file, &format!("oci://{registry_server}/a")];
    good(
        &desk.alone_with(&push, &[trust, through, known]),
        ":0.1.0@sha256:",
    );
    assert_ne!(proxy.asked_for(&registry_server), 0);
    let repository = Repository::new("unused");
    let git = repository.serve(&authority, None);
    let source = format!("git+{}#branch=none", git.url_of(HOST, "/plugin"));
    let missing = desk.run_with(&["install", &source, "--allow-build"], &[trust, through]);
    assert!(
        missing
            .stderr
            .contains("branch `none` is not there; there are main"),
        "{missing:?}"
    );
    assert_ne!(proxy.asked_for(&server(&git.authority())), 0);
}
