//! Repositories over HTTPS, by git's own server: an authority and credentials of the operator's own, and
//! that git asks nobody and takes credentials nowhere else.

use std::fs;

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::json;

use crate::{
    installs::Desk,
    support::{
        repository::Repository,
        service::Authority,
        web::{Reply, Web},
    },
};

const PASSWORD: &str = "hunter2-secret";

/// Credentials for a server, in the format of Docker's `config.json`.
fn credentials(server: &str, password: &str) -> String {
    let user = "operator";
    json!({"auths": {server: {"username": user, "password": password}}}).to_string()
}

/// Installing fails with all of these words, and without the password.
fn fails(desk: &Desk, source: &str, environment: &[(&str, &str)], words: &[&str]) {
    let home = std::env::var("HOME").unwrap();
    let fixed = [("HOME", home.as_str()), ("CARGO_NET_OFFLINE", "true")];
    let install = ["install", source, "--allow-build", "--build-profile", "dev"];
    let ended = desk.run_with(&install, &[environment, &fixed].concat());
    assert_eq!(ended.code, 1, "{ended:?}");
    for words in words {
        assert!(ended.stderr.contains(words), "{words}: {}", ended.stderr);
    }
    let encoded = STANDARD.encode(format!("operator:{PASSWORD}"));
    assert!(!ended.stderr.contains(PASSWORD) && !ended.stderr.contains(&encoded));
}

#[test]
fn a_repository_over_https_gives_the_commit_that_is_meant_to_whom_it_knows() {
    let authority = Authority::new();
    let desk = Desk::new();
    let repository = Repository::new("this is the first");
    repository.git(&["tag", "-a", "-m", "one", "v1.0.0"]);
    let second = repository.commit("this is the second");
    repository.git(&["branch", "other"]);
    repository.commit("this is the third");
    let encoded = STANDARD.encode(format!("operator:{PASSWORD}"));
    let server = repository.serve(&authority, Some(format!("Basic {encoded}")));
    let source = format!("git+{}", server.url("/plugin"));
    let ca = authority.file(desk.path("").as_path());
    let ca = ca.to_str().unwrap();
    let host = server.authority();
    let text = credentials(&host, PASSWORD);
    let known = ("PLUGIN_HOST_CREDENTIALS", text.as_str());
    let trust = ("SSL_CERT_FILE", ca);

    // Which commit was built, its crate says.
    for (at, says) in [
        ("", "this is the first"),
        ("#tag=v1.0.0", "this is the first"),
        ("#branch=other", "this is the second"),
        (&format!("#commit={second}"), "this is the second"),
        ("#branch=main", "this is the third"),
    ] {
        fails(&desk, &format!("{source}{at}"), &[trust, known], &[says]);
    }
    let own = ("PLUGIN_HOST_HTTP_CLIENT_CA", ca);
    let main = format!("{source}#branch=main");
    fails(&desk, &main, &[own, known], &["this is the third"]);
    let missing = format!("{source}#branch=none");
    let words = ["branch `none` is not there; there are main, other"];
    fails(&desk, &missing, &[own, known], &words);

    fails(
        &desk,
        &main,
        &[known],
        &["vouches for", "http_client.ca_file"],
    );
    let none = format!("no credentials for `{host}`: give them");
    fails(&desk, &main, &[trust], &[&none]);
    let wrong = credentials(&host, "hunter2-wrong");
    let words = format!("does not take the credentials for `{host}`");
    let wrong = ("PLUGIN_HOST_CREDENTIALS", wrong.as_str());
    fails(&desk, &main, &[trust, wrong], &[&words]);
}

#[test]
fn git_takes_credentials_nowhere_else_and_follows_without_them() {
    let authority = Authority::new();
    let desk = Desk::new();
    let repository = Repository::new("this is the first");
    let server = repository.serve(&authority, None);
    let there = server.url("");
    let leading = Web::start(Some(&authority), move |asked| {
        Reply::redirect(&format!("{there}{}", asked.target))
    });
    let source = format!("git+{}#branch=main", leading.url("/plugin"));
    let ca = authority.file(desk.path("").as_path());
    let trust = ("SSL_CERT_FILE", ca.to_str().unwrap());
    fails(&desk, &source, &[trust], &["this is the first"]);
    server.seen();
    let file = desk.text("credentials.json");
    fs::write(&file, credentials(&leading.authority(), PASSWORD)).unwrap();
    let text = fs::read_to_string(file).unwrap();
    let known = ("PLUGIN_HOST_CREDENTIALS", text.as_str());
    fails(
        &desk,
        &source,
        &[trust, known],
        &["credentials do not go there"],
    );
    let asked = server.seen();
    assert!(
        asked.iter().all(|it| it.header("authorization").is_none()),
        "{asked:?}"
    );
}
