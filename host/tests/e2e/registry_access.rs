//! Registries that are not open to everybody: over TLS with a certificate of an authority of the operator's
//! own, with passwords, and with tokens; whom credentials go to, and that they are shown nowhere.

use std::fs;

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::json;

use crate::{
    installs::{Desk, good, names, sha256},
    support::{
        Ended,
        packages::{package, put},
        registry::{Asks, Registry},
        service::Authority,
        tokens,
        versions::version,
        web::{Asked, Reply, Web},
    },
};

const USER: &str = "operator";
const PASSWORD: &str = "hunter2-secret";
/// The password as `htpasswd -nbB -C 5` writes it.
const HTPASSWD: &str = "operator:$2y$05$0MbIxlTswT9egwPzM6iB2eMNQjRZZcSDZtM2R1Tl55DnR0p0WC7Zm\n";

/// The password as a header has it.
fn encoded() -> String {
    STANDARD.encode(format!("{USER}:{PASSWORD}"))
}

/// Credentials for a server, in the format of Docker's `config.json`.
fn credentials(server: &str, password: &str) -> String {
    let auth = STANDARD.encode(format!("{USER}:{password}"));
    json!({"auths": {server: {"auth": auth}}}).to_string()
}

/// An operator with a package to push, who wants to know everything that there is to know.
struct Operator {
    desk: Desk,
    package: String,
}

impl Operator {
    fn new() -> Self {
        let desk = Desk::new();
        let package = desk.text("x.plg");
        put(package.as_ref(), package_of("0.1.0"));
        Self { desk, package }
    }

    fn run(&self, arguments: &[&str], environment: &[(&str, &str)]) -> Ended {
        let most = [("RUST_LOG", "trace"), ("PLUGIN_HOST_LOG_LEVEL", "trace")];
        let ended = self
            .desk
            .alone_with(arguments, &[environment, &most].concat());
        for text in [&ended.stdout, &ended.stderr] {
            for secret in [PASSWORD, &encoded(), "eyJ"] {
                assert!(!text.contains(secret), "{secret}: {text}");
            }
        }
        ended
    }

    /// It fails with all of these words.
    fn fails(&self, words: &[&str], arguments: &[&str], environment: &[(&str, &str)]) {
        let ended = self.run(arguments, environment);
        assert_eq!(ended.code, 1, "{ended:?}");
        for words in words {
            assert!(ended.stderr.contains(words), "{words}: {}", ended.stderr);
        }
    }
}

fn package_of(number: &str) -> Vec<u8> {
    package(&version(number))
}

#[test]
fn a_registry_with_an_own_certificate_and_passwords_takes_and_gives_packages() {
    let authority = Authority::new();
    let registry = Registry::guarded(&authority, &Asks::Passwords(HTPASSWD));
    let operator = Operator::new();
    let host = registry.address().to_string();
    let name = format!("oci://{host}/plugins/versioned");
    let push = ["push", &operator.package, &name];
    let file = operator.desk.text("credentials.json");
    let with_file = [&push[..], &["--credentials-file", &file]].concat();

    // Whom nobody vouches for is not told who asks.
    fs::write(&file, credentials(&host, PASSWORD)).unwrap();
    let untrusted = [&host, "vouches for", "http_client.ca_file", "SSL_CERT_FILE"];
    operator.fails(&untrusted, &with_file, &[]);

    let nothing = operator.run(&with_file, &[("SSL_CERT_FILE", &file)]);
    assert_eq!(nothing.code, 2, "{nothing:?}");
    assert!(nothing.stderr.contains("SSL_CERT_FILE: /"), "{nothing:?}");

    let ca = authority.file(operator.desk.path("").as_path());
    let ca = ca.to_str().unwrap();
    let config = operator.desk.text("config.toml");
    fs::write(&config, format!("[http_client]\nca_file = {ca:?}\n")).unwrap();
    let push = [&push[..], &["--config", &config]].concat();
    let with_file = [&with_file[..], &["--config", &config]].concat();

    let none = format!("no credentials for `{host}`: give them in a file");
    operator.fails(&["answers 401", &none], &push, &[]);
    fs::write(&file, credentials(&host, "hunter2-wrong")).unwrap();
    let wrong = format!("does not take the credentials for `{host}`");
    operator.fails(&["answers 401", &wrong], &with_file, &[]);
    // Those of another server are for that one.
    fs::write(&file, credentials("other.example", PASSWORD)).unwrap();
    operator.fails(&[&none], &with_file, &[]);

    fs::write(&file, credentials(&host, PASSWORD)).unwrap();
    good(&operator.run(&with_file, &[]), ":0.1.0@sha256:");
    let plugins = operator.desk.text("plugins");
    let install = ["install", &name, "--plugin-dir", &plugins];
    let text = credentials(&host, PASSWORD);
    let in_environment = ("PLUGIN_HOST_CREDENTIALS", text.as_str());
    let installed = operator.run(&install, &[in_environment, ("SSL_CERT_FILE", ca)]);
    good(&installed, "0.1.0: installed");
    let outdated = ["outdated", "--json", "--plugin-dir", &plugins];
    let without = operator.run(&outdated, &[("PLUGIN_HOST_HTTP_CLIENT_CA", ca)]);
    assert!(without.stdout.contains(&none), "{without:?}");
    for name in names(&operator.desk.path("plugins")) {
        let bytes = fs::read(operator.desk.path("plugins").join(&name)).unwrap();
        let text = String::from_utf8_lossy(&bytes);
        assert!(
            !text.contains(PASSWORD) && !text.contains(&encoded()),
            "{name}"
        );
    }
}

#[test]
fn a_registry_that_wants_tokens_gets_them_from_whom_it_names_with_credentials_or_without() {
    let authority = Authority::new();
    let tokens = tokens::start(&authority, format!("Basic {}", encoded()));
    let registry = Registry::guarded(
        &authority,
        &Asks::Tokens {
            realm: &tokens.url_of("localhost", "/token?kind=test"),
        },
    );
    let operator = Operator::new();
    let ca = authority.file(operator.desk.path("").as_path());
    let trust = ("SSL_CERT_FILE", ca.to_str().unwrap());
    let host = registry.address().to_string();
    let name = format!("oci://{host}/plugins/versioned");
    let push = ["push", &operator.package, &name];

    // Everybody may pull, but not push.
    let none = format!("no credentials for `{host}`");
    operator.fails(&["answers 401", &none], &push, &[trust]);
    let wrong = credentials(&host, "hunter2-wrong");
    let words = format!("does not take the credentials for `{host}`");
    let wrong = ("PLUGIN_HOST_CREDENTIALS", wrong.as_str());
    operator.fails(&["/token: ", &words], &push, &[trust, wrong]);

    let text = credentials(&host, PASSWORD);
    let pushed = operator.run(&push, &[trust, ("PLUGIN_HOST_CREDENTIALS", &text)]);
    good(&pushed, ":0.1.0@sha256:");
    let asked = tokens.seen();
    let last = asked.last().unwrap();
    assert!(
        last.query().contains("kind=test&service=test-registry"),
        "{last:?}"
    );
    assert!(last.query().contains("pull%2Cpush"), "{last:?}");

    let plugins = operator.desk.text("plugins");
    let install = ["install", &name, "--plugin-dir", &plugins];
    good(&operator.run(&install, &[trust]), "0.1.0: installed");
    let asked = tokens.seen();
    let anonymous = |asked: &Asked| asked.header("authorization").is_none();
    assert!(
        !asked.is_empty() && asked.iter().all(anonymous),
        "{asked:?}"
    );
}

/// A server whose registry has a package: it asks with this challenge, and what it stores is at another
/// address where there is one.
fn registry(challenge: Option<String>, blobs: Option<String>) -> Web {
    let bytes = package_of("0.1.0");
    let layer = json!({
        "mediaType": "application/vnd.plugin-host.package.v1.tar+gzip",
        "digest": format!("sha256:{}", sha256(&bytes)), "size": bytes.len(),
    });
    let manifest = json!({
        "schemaVersion": 2, "layers": [layer],
        "config": {"mediaType": "application/vnd.oci.empty.v1+json", "digest": "x", "size": 2},
    })
    .to_string();
    Web::start(None, move |asked| match (&challenge, asked.path()) {
        (Some(challenge), _) if asked.header("authorization").is_none() => Reply::new(401, "")
            .header("www-authenticate", "Negotiate")
            .header("www-authenticate", challenge),
        (_, path) if path.starts_with("/v2/a/manifests/") => Reply::new(200, manifest.clone()),
        (_, path) if path.starts_with("/v2/a/blobs/") => match &blobs {
            Some(location) => Reply::redirect(location),
            None => Reply::new(200, bytes.clone()),
        },
        _ => Reply::new(404, ""),
    })
}

#[test]
fn credentials_go_to_whom_they_are_for_and_not_where_that_one_leads() {
    let desk = Desk::new();
    let bytes = package_of("0.1.0");
    let install = |registry: &Web| {
        let text = credentials(&registry.authority(), PASSWORD);
        let source = format!("oci://{}/a:x", registry.authority());
        let plugins = tempfile::tempdir().unwrap();
        let place = plugins.path().to_str().unwrap();
        // Nothing comes from a cache.
        let environment = [
            ("PLUGIN_HOST_CREDENTIALS", text.as_str()),
            ("XDG_CACHE_HOME", place),
        ];
        let arguments = ["install", &source, "--loopback-http", "--plugin-dir", place];
        let ended = desk.alone_with(&arguments, &environment);
        assert!(!format!("{ended:?}").contains(PASSWORD), "{ended:?}");
        ended
    };
    let silent = |web: &Web| {
        web.seen()
            .iter()
            .all(|it| it.header("authorization").is_none())
    };
    let basic = "Basic realm=\"a, b\"".to_owned();

    // A store of blobs at another address.
    let stored = bytes.clone();
    let store = Web::start(None, move |_| Reply::new(200, stored.clone()));
    let leading = registry(Some(basic.clone()), Some(store.url("/blob?secret=1")));
    good(&install(&leading), "0.1.0: installed");
    let seen = store.seen();
    assert_eq!(seen.len(), 1, "{seen:?}");
    assert!(seen[0].header("authorization").is_none(), "{seen:?}");
    let asked = leading.seen();
    assert!(asked.iter().any(|it| it.header("authorization").is_some()));

    // One that asks who is there, too, and names somebody else to tell.
    let listening = Web::start(None, |_| Reply::new(200, r#"{"token": "a"}"#));
    for challenge in [
        basic.clone(),
        format!("Bearer realm=\"{}\"", listening.url("/token")),
    ] {
        let curious = Web::start(None, move |_| {
            Reply::new(401, "").header("www-authenticate", &challenge)
        });
        let leading = registry(Some(basic.clone()), Some(curious.url("/blob")));
        let refused = install(&leading);
        assert_eq!(refused.code, 1, "{refused:?}");
        assert!(
            refused
                .stderr
                .contains("/blob: the server answers 401: another server leads there"),
            "{refused:?}"
        );
        assert!(silent(&curious));
        assert!(listening.seen().is_empty());
    }

    // Without TLS, tokens are asked for at the same host, and nowhere else.
    let bearer = format!("Bearer realm=\"{}\"", listening.url("/token"));
    good(&install(&registry(Some(bearer), None)), "0.1.0: installed");
    assert!(!silent(&listening));
    let elsewhere = listening.url_of("localhost", "/token");
    let refused = install(&registry(
        Some(format!("Bearer realm=\"{elsewhere}\"")),
        None,
    ));
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(refused.stderr.contains("without TLS"), "{refused:?}");
    assert!(listening.seen().is_empty());
}
