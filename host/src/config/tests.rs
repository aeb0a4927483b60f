//! Precedence, defaults, refusals and the effective configuration, without a real environment.

#![allow(
    clippy::unwrap_used,
    reason = "a failed expectation is the test's result"
)]

use super::*;

use std::os::unix::ffi::OsStringExt;

fn gateway() -> Environment {
    Environment::empty().with("APISIX_LISTEN_ADDRESS", "unix:/run/runner.sock")
}

fn file(text: &str) -> (tempfile::TempDir, Flags) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("host.toml");
    std::fs::write(&path, text).unwrap();
    let flags = Flags::new().with_config_file(path);
    (directory, flags)
}

/// What is wrong, without the directory of the configuration file.
fn problems(text: &str, flags: impl Fn(Flags) -> Flags, environment: &Environment) -> Vec<String> {
    let (directory, with_file) = file(text);
    let errors = Config::load(&flags(with_file), environment).unwrap_err();
    let prefix = format!("{}/", directory.path().display());
    errors
        .0
        .iter()
        .map(|error| error.to_string().replace(&prefix, ""))
        .collect()
}

#[test]
fn what_the_gateway_gives_is_enough() {
    let config = Config::load(&Flags::new(), &gateway()).unwrap();
    assert_eq!(config.listen.to_string(), "unix:/run/runner.sock");
    assert_eq!(config.conf_expire_time, Duration::from_secs(3_600));
    assert_eq!(config.socket_mode, 0o666);
    assert_eq!(config.backlog, 4_096);
    assert_eq!(config.limits.max_connections, 10_000);
    assert_eq!(config.limits.max_frame_bytes, 16_777_215);
    assert_eq!(config.limits.max_body_memory, 512 << 20);
    assert_eq!(config.limits.max_connection_memory, 64 << 20);
    assert_eq!(config.limits.loop_stall_limit, Duration::from_secs(1));
    assert!(config.limits.spin <= Duration::from_micros(20));
    assert_eq!(config.limits.stuck_threads, 16);
    assert_eq!(config.limits.retired_memory, 64 << 20);
    assert_eq!(config.limits.replace_patience, Duration::from_secs(60));
    assert_eq!(config.limits.drain_time, Duration::from_millis(700));
    assert_eq!(config.response_failure, ResponseFailure::Status503);
    assert_eq!(config.log.filter, "info");
    assert_eq!(config.log.file, None);
    assert_eq!(config.effective().warnings(), Vec::<String>::new());
}

#[test]
fn flags_win_over_environment_over_file_over_defaults() {
    let (_directory, with_file) = file("[limits]\nmax_tokens = 100");
    let tokens = |flags: &Flags, environment: &Environment| {
        Config::load(flags, environment).unwrap().limits.max_tokens
    };
    let with_variable = gateway().with("PLUGIN_HOST_MAX_TOKENS", "200");
    let with_flag = with_file.clone().with(&settings::MAX_TOKENS, "300");

    assert_eq!(tokens(&Flags::new(), &gateway()), 131_072);
    assert_eq!(tokens(&with_file, &gateway()), 100);
    assert_eq!(tokens(&with_file, &with_variable), 200);
    assert_eq!(tokens(&with_flag, &with_variable), 300);
}

#[test]
fn our_own_variable_wins_over_the_gateways() {
    let environment = gateway()
        .with("APISIX_CONF_EXPIRE_TIME", "60")
        .with("PLUGIN_HOST_LISTEN", "/run/other.sock");
    let config = Config::load(&Flags::new(), &environment).unwrap();
    assert_eq!(config.listen.to_string(), "unix:/run/other.sock");
    assert_eq!(config.conf_expire_time, Duration::from_secs(60));

    let environment = environment.with("PLUGIN_HOST_CONF_EXPIRE_TIME", "5");
    let config = Config::load(&Flags::new(), &environment).unwrap();
    assert_eq!(config.conf_expire_time, Duration::from_secs(5));
}

#[test]
fn the_environment_can_name_the_file() {
    let (_directory, flags) = file("backlog = 7");
    let environment = gateway().with("PLUGIN_HOST_CONFIG", flags.config_file().unwrap());
    let config = Config::load(&Flags::new(), &environment).unwrap();
    assert_eq!(config.backlog, 7);
}

#[test]
fn an_empty_variable_counts_as_not_set() {
    let environment = gateway()
        .with("APISIX_CONF_EXPIRE_TIME", "")
        .with("PLUGIN_HOST_BACKLOG", "");
    let config = Config::load(&Flags::new(), &environment).unwrap();
    assert_eq!(config.conf_expire_time, Duration::from_secs(3_600));
    assert_eq!(config.backlog, 4_096);
}

#[test]
fn without_an_address_nothing_runs_but_the_rest_can_be_checked() {
    let errors = Config::load(&Flags::new(), &Environment::empty()).unwrap_err();
    let text = errors.to_string();
    assert!(
        text.contains("APISIX_LISTEN_ADDRESS") && text.contains("--listen"),
        "{text}"
    );

    let effective = Config::check(&Flags::new(), &Environment::empty()).unwrap();
    let text = effective.to_string();
    assert!(text.contains("# listen: APISIX_LISTEN_ADDRESS"), "{text}");
}

#[test]
fn each_wrong_value_is_named_by_its_source_and_all_are_reported_at_once() {
    let found = problems(
        "socket_mode = 0o666\nlimit = 1\n[limits]\nmax_conections = 5\ncall_budget = '2m'",
        |flags| flags.with(&settings::BACKLOG, "many"),
        &Environment::empty()
            .with("APISIX_LISTEN_ADDRESS", "unix:relative.sock")
            .with("PLUGIN_HOST_DRAIN_TIME", "700"),
    );
    for expected in [
        "host.toml: unknown key `limits.max_conections`; did you mean `limits.max_connections`?",
        "host.toml: unknown key `limit`",
        "APISIX_LISTEN_ADDRESS: `unix:relative.sock` is not the absolute path",
        "host.toml: `limits.call_budget`: `2m` is out of range: from 10ms to 60s",
        "PLUGIN_HOST_DRAIN_TIME: `700` is not a duration with its unit",
        "host.toml: `socket_mode`: `438` is not a file mode",
        "--backlog: `many` is not a whole number",
    ] {
        assert!(
            found.iter().any(|problem| problem.starts_with(expected)),
            "{expected} is not in {found:#?}"
        );
    }
    assert_eq!(found.len(), 7, "{found:#?}");
}

#[test]
fn an_address_of_108_bytes_is_refused_by_name() {
    let long = format!("unix:/{}", "x".repeat(107));
    let environment = Environment::empty().with("APISIX_LISTEN_ADDRESS", long);
    let text = Config::load(&Flags::new(), &environment)
        .unwrap_err()
        .to_string();
    assert!(text.starts_with("APISIX_LISTEN_ADDRESS: "), "{text}");
    assert!(text.contains("has 108 bytes of path"), "{text}");
}

#[test]
fn a_variable_that_is_no_text_is_named() {
    let environment = gateway().with(
        "PLUGIN_HOST_LOG",
        std::ffi::OsString::from_vec(vec![b'i', 0xff]),
    );
    let text = Config::load(&Flags::new(), &environment)
        .unwrap_err()
        .to_string();
    assert_eq!(text, "PLUGIN_HOST_LOG: its value is not UTF-8 text");
}

#[test]
fn a_broken_file_is_reported_with_its_line_and_without_its_text() {
    let found = problems("backlog = 1\ntoken = hunter2\n", |flags| flags, &gateway());
    assert_eq!(found.len(), 1, "{found:#?}");
    assert!(found[0].starts_with("host.toml, line 2: "), "{found:#?}");
    assert!(!found[0].contains("hunter2"), "{found:#?}");
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let flags = Flags::new().with_config_file("/no/such/host.toml");
    let text = Config::load(&flags, &gateway()).unwrap_err().to_string();
    assert!(
        text.starts_with("/no/such/host.toml: No such file"),
        "{text}"
    );
}

#[test]
fn a_file_of_more_than_a_mebibyte_is_refused() {
    let text = format!("# {}\n", "x".repeat(1 << 20));
    assert_eq!(
        problems(&text, |flags| flags, &gateway()),
        ["host.toml: more than 1048576 bytes"]
    );
}

#[test]
fn a_mistyped_variable_of_ours_is_a_warning() {
    // Kubernetes makes such variables up by itself for a service of that name.
    let environment = gateway().with("PLUGIN_HOST_MAX_TOKEN", "5");
    let config = Config::load(&Flags::new(), &environment).unwrap();
    assert_eq!(
        config.effective().warnings(),
        ["PLUGIN_HOST_MAX_TOKEN is set and means nothing to this version"]
    );
}

#[test]
fn settings_that_contradict_each_other_are_refused() {
    let text = Config::load(
        &Flags::new()
            .with(&settings::MAX_BODY_MEMORY, "1MiB")
            .with(&settings::MAX_CONNECTION_MEMORY, "2MiB")
            .with(&settings::BLOCKING_THREADS, "4")
            .with(&settings::STUCK_THREADS, "5")
            .with(&settings::LOG_ROTATION, "daily"),
        &gateway(),
    )
    .unwrap_err()
    .to_string();
    assert_eq!(
        text,
        "`limits.max_body_memory` and `limits.max_frame_bytes`: 1048576 bytes of memory cannot hold one frame of 16777215 bytes\n\
         `limits.max_connection_memory` and `limits.max_frame_bytes`: 2097152 bytes of memory cannot hold one frame of 16777215 bytes\n\
         `limits.stuck_threads` and `blocking_threads`: of 4 threads, 5 are never stuck\n\
         `log.rotation` and `log.file`: only a file can be rotated: name one"
    );
}

#[test]
fn a_mistyped_log_level_is_refused() {
    let check = |filter: &str| {
        let flags = Flags::new().with(&settings::LOG_FILTER, filter);
        Config::load(&flags, &gateway()).map(|config| config.log.filter)
    };
    for filter in ["debug", "WARN", "info,plugin_host::server=trace", "off"] {
        assert_eq!(check(filter).unwrap(), filter);
    }
    for filter in ["wran", "info,debgu", "plugin_host=loud"] {
        let text = check(filter).unwrap_err().to_string();
        assert!(text.starts_with("--log: "), "{text}");
    }
}

#[test]
fn the_runtime_directory_can_be_moved() {
    let flags = Flags::new().with(&settings::RUNTIME_DIR, "/somewhere");
    let config = Config::load(&flags, &gateway()).unwrap();
    assert_eq!(config.runtime_dir, PathBuf::from("/somewhere/plugin-host"));
}

#[test]
fn event_loops_leave_most_cores_to_the_gateway() {
    let defaults: Vec<_> = [1, 2, 4, 6, 16, 128].map(default_event_loops).to_vec();
    assert_eq!(defaults, [1, 1, 1, 3, 8, 8]);
}

#[test]
fn the_effective_configuration_names_every_setting_and_its_origin_and_can_be_read_back() {
    let (_directory, flags) = file(
        "socket_mode = '0660'\n[log]\nformat = 'json'\n[plugins.say]\nfailure_policy = 'open'\n\
         [plugins.say.settings]\ntoken = 'Bearer ${env:TOKEN}'\npassword = 'hunter2'\nretries = 3\n\
         [plugins.auth.settings]\nkey = '${env:ABSENT}'",
    );
    let environment = gateway()
        .with("TOKEN", "t0ken")
        .with("PLUGIN_HOST_BACKLOG", "128");
    let flags = flags.with(&settings::DRAIN_TIME, "1s");
    let config = Config::load(&flags, &environment).unwrap();
    let text = config.effective().to_string();

    for setting in settings::ALL {
        let key = setting.key.rsplit('.').next().unwrap();
        assert!(text.contains(key), "{key} is not in\n{text}");
    }
    for expected in [
        "listen = \"unix:/run/runner.sock\" # APISIX_LISTEN_ADDRESS",
        "backlog = 128 # PLUGIN_HOST_BACKLOG",
        "drain_time = \"1s\" # --drain-time",
        "host.toml: `log.format`",
        "max_tokens = 131072 # default",
        "token = \"***${env:TOKEN}\"",
        "password = \"***\"",
        "retries = 3",
        "# not loaded: `plugins.auth.settings.key`: `${env:ABSENT}`",
    ] {
        assert!(text.contains(expected), "{expected} is not in\n{text}");
    }
    assert!(
        !text.contains("hunter2") && !text.contains("t0ken"),
        "{text}"
    );
    assert_eq!(config.effective().unusable_plugins().len(), 1);

    let (_directory, again) = file(&text);
    let read_back = Config::load(&again, &Environment::empty()).unwrap();
    assert_eq!(read_back.backlog, 128);
    assert_eq!(read_back.socket_mode, 0o660);
    assert_eq!(read_back.log.format, LogFormat::Json);
}

#[test]
fn debug_output_of_the_whole_configuration_holds_no_secret() {
    let (_directory, flags) = file("[plugins.say.settings]\na = '${env:TOKEN}'\nb = 'hunter2'");
    let config = Config::load(&flags, &gateway().with("TOKEN", "t0ken")).unwrap();
    let shown = format!("{config:?}");
    assert!(
        !shown.contains("hunter2") && !shown.contains("t0ken"),
        "{shown}"
    );
}

#[test]
fn the_http_clients_defaults_are_the_same_for_a_host_and_for_who_embeds_it() {
    let environment = Environment::empty().with("APISIX_LISTEN_ADDRESS", "unix:/run/a.sock");
    let config = Config::load(&Flags::new(), &environment).unwrap();
    assert!(config.http_client == crate::http_client::Settings::default());
}
