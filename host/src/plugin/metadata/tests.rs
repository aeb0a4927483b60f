//! Every field of `plugin.json`: what is taken, what is refused, and with which words.

#![allow(
    clippy::unwrap_used,
    reason = "a test may end at what it did not expect"
)]

use serde_json::json;

use super::reading::{FIELDS, HTTP_FIELDS, NEEDS_FIELDS, ROUTE_FIELDS, SOURCE_FIELDS};
use super::*;

const EXAMPLE: &[u8] = include_bytes!("../../../../plugin.json.example");

/// The smallest valid file, with some fields set or, with `null`, removed.
fn file(changes: &Value) -> Vec<u8> {
    let mut file = json!({
        "name": "say",
        "version": "1.0.0",
        "source": {"mode": "local_so", "path": "libsay.so"},
    });
    for (name, value) in changes.as_object().unwrap() {
        match value {
            Value::Null => file.as_object_mut().unwrap().remove(name),
            value => file
                .as_object_mut()
                .unwrap()
                .insert(name.clone(), value.clone()),
        };
    }
    file.to_string().into_bytes()
}

fn parsed(changes: &Value) -> Parsed {
    Metadata::parse(&file(changes)).unwrap()
}

/// Reads a file; the expectation is all of its mistakes and what to write instead.
fn check(changes: &Value, expected: &[&str]) {
    check_text(&file(changes), expected);
}

fn check_text(file: &[u8], expected: &[&str]) {
    let errors = Metadata::parse(file)
        .map(|_| Vec::new())
        .unwrap_or_else(|invalid| invalid.errors);
    let found: Vec<_> = errors
        .iter()
        .map(|error| format!("{error}: {}", error.next_step()))
        .collect();
    assert_eq!(found, expected);
}

/// Reads a valid file; the expectation is what it warns of.
fn check_warnings(changes: &Value, expected: &[&str]) {
    let warnings = parsed(changes).warnings;
    let found: Vec<_> = warnings.iter().map(ToString::to_string).collect();
    assert_eq!(found, expected);
}

#[test]
fn the_example_is_valid_and_says_what_it_seems_to_say() {
    let Parsed { metadata, warnings } = Metadata::parse(EXAMPLE).unwrap();
    assert_eq!(metadata.name.as_str(), "say");
    assert_eq!(metadata.version, Version::new(1, 2, 0));
    assert_eq!(
        metadata.description,
        "Answers every request with a text from the route's configuration."
    );
    assert_eq!(
        metadata.maintainers,
        ["Ada Example <ada@example.com>", "ops@example.com"]
    );
    assert_eq!(metadata.home, "https://example.com/say");
    assert_eq!(metadata.license, "Apache-2.0");
    assert_eq!(metadata.library().as_path().to_str(), Some("libsay.so"));
    assert_eq!(
        metadata.sha256().unwrap().to_string(),
        "0123456789abcdef".repeat(4)
    );
    assert_eq!(metadata.abi, Some("^1".parse().unwrap()));
    assert_eq!(metadata.execution, Execution::Async);
    assert_eq!(metadata.failure_policy, FailurePolicy::Closed);
    assert_eq!(
        metadata.settings["greeting_url"],
        "https://example.com/greetings"
    );
    assert!(
        metadata
            .settings_schema
            .unwrap()
            .check(&json!({"greeting_url": 1}))
            .is_err()
    );
    assert_eq!(metadata.timeout, Some(Duration::from_millis(500)));
    assert_eq!(metadata.needs.variables, ["route_id", "remote_addr"]);
    assert!(!metadata.needs.request_body && !metadata.needs.response_body);
    assert!(
        metadata
            .config_schema
            .unwrap()
            .check_raw(br#"{"boddy": ""}"#)
            .is_err()
    );
    assert_eq!(warnings, []);
    let routes = metadata.http_routes.iter().map(ToString::to_string);
    assert_eq!(routes.collect::<Vec<_>>(), ["GET /say/:name"]);
    assert_eq!(metadata.http_routes[0].label, "greet");
}

#[test]
fn the_example_shows_every_field() {
    let example: Value = serde_json::from_slice(EXAMPLE).unwrap();
    let objects: [(&str, &[&str]); 5] = [
        ("", &FIELDS),
        ("/source", &SOURCE_FIELDS),
        ("/needs", &NEEDS_FIELDS),
        ("/http_services", &HTTP_FIELDS),
        ("/http_services/routes/0", &ROUTE_FIELDS),
    ];
    for (place, fields) in objects {
        let object = example.pointer(place).unwrap().as_object().unwrap();
        for field in fields {
            assert!(object.contains_key(*field), "{place}/{field}");
        }
    }
}

#[test]
fn what_a_file_leaves_out_has_its_default() {
    let metadata = parsed(&json!({})).metadata;
    assert_eq!(metadata.execution, Execution::Async);
    assert_eq!(metadata.failure_policy, FailurePolicy::Closed);
    assert_eq!(metadata.needs, Needs::default());
    assert!(metadata.settings.is_empty() && metadata.timeout.is_none() && metadata.abi.is_none());
    assert!(metadata.config_schema.is_none() && metadata.sha256().is_none());
}

#[test]
fn all_mistakes_of_a_file_are_reported_at_once() {
    check(
        &json!({
            "name": "say it", "version": "1.0", "execution": "threads", "timeout_ms": 0,
            "source": {"mode": "npm", "sha256": "abc"}, "settings": [], "maintainers": ["Ada", "ada@example.com", 3],
        }),
        &[
            "`name` is `say it`: write 1 to 128 letters, digits, `-`, `_` or `.`, not beginning with `.`",
            "`version` is `1.0`: write a semantic version with three numbers, such as `1.0.0`",
            "`maintainers.0` is `Ada`: write an e-mail address or `Name <e-mail>`",
            "`maintainers.2` is 3: write an e-mail address or `Name <e-mail>`",
            "`source.mode` is `npm`: write `local_so`",
            "`source.path` is missing: write the library's file name, such as `libsay.so`: no absolute path, no `..`",
            "`source.sha256` is `abc`: write 64 hexadecimal digits, as `sha256sum LIBRARY` prints them",
            "`execution` is `threads`: write `async` or `blocking`",
            "`settings` is a list: write an object, `{...}`",
            "`timeout_ms` is 0: write a whole number of milliseconds from 1 to 60000",
        ],
    );
}

#[test]
fn required_fields_are_asked_for_with_what_to_write() {
    let source =
        "`{\"mode\": \"local_so\", \"path\": \"libNAME.so\"}` with the library's file name";
    check_text(
        b"{}",
        &[
            "`name` is missing: write 1 to 128 letters, digits, `-`, `_` or `.`, not beginning with `.`",
            "`version` is missing: write a semantic version with three numbers, such as `1.0.0`",
            &format!("`source` is missing: write {source}"),
        ],
    );
    check(
        &json!({"source": {}}),
        &[
            "`source.mode` is missing: write `local_so`",
            "`source.path` is missing: write the library's file name, such as `libsay.so`: no absolute path, no `..`",
        ],
    );
}

#[test]
fn an_invalid_file_still_tells_what_it_is_about() {
    let invalid = Metadata::parse(&file(&json!({"timeout_ms": "1s"}))).unwrap_err();
    assert_eq!(invalid.name, Some(PluginName::new("say").unwrap()));
    assert_eq!(invalid.version, Some(Version::new(1, 0, 0)));
    assert_eq!(
        invalid.library,
        Some(LibraryPath::new("libsay.so").unwrap())
    );
}

#[test]
fn a_bound_on_time_is_between_a_millisecond_and_a_minute() {
    let range = "write a whole number of milliseconds from 1 to 60000";
    assert_eq!(
        parsed(&json!({"timeout_ms": 60_000})).metadata.timeout,
        Some(MAX_TIMEOUT)
    );
    check(
        &json!({"timeout_ms": 60_001}),
        &[&format!("`timeout_ms` is 60001: {range}")],
    );
    check(
        &json!({"timeout_ms": -1}),
        &[&format!("`timeout_ms` is -1: {range}")],
    );
    check(
        &json!({"timeout_ms": 0.5}),
        &[&format!("`timeout_ms` is 0.5: {range}")],
    );
    check(
        &json!({"timeout_ms": "5"}),
        &[&format!("`timeout_ms` is `5`: {range}")],
    );
}

#[test]
fn an_unknown_field_is_a_warning_with_the_name_that_was_probably_meant() {
    check_warnings(
        &json!({
            "failurePolicy": "open", "colour": "red", "x-colour": "red",
            "source": {"mode": "local_so", "path": "libsay.so", "sha_256": "", "x-from": "ci"},
            "needs": {"variable": []}, "settings": {"anything": {"goes": 1}},
        }),
        &[
            "`colour` is not a field, it has no effect: remove it, or let its name begin with `x-`",
            "`failurePolicy` is not a field, it has no effect: did you mean `failure_policy`?",
            "`source.sha_256` is not a field, it has no effect: did you mean `source.sha256`?",
            "`needs.variable` is not a field, it has no effect: did you mean `needs.variables`?",
        ],
    );
}

#[test]
fn an_unknown_field_counts_as_a_mistake_for_whoever_checks_the_file() {
    let warnings = parsed(&json!({"verison": "1.0.0"})).warnings;
    let mistakes: Vec<_> = warnings.iter().filter_map(Warning::as_mistake).collect();
    let expected = UnknownField {
        field: "verison".to_owned(),
        meant: Some("version".to_owned()),
    };
    assert_eq!(mistakes, [MetadataError::UnknownField(expected)]);
}

#[test]
fn a_misspelt_required_field_is_reported_together_with_the_missing_one() {
    check(
        &json!({"version": null, "verison": "1.0.0"}),
        &[
            "`version` is missing: write a semantic version with three numbers, such as `1.0.0`",
            "`verison` is not a field: did you mean `version`?",
        ],
    );
}

#[test]
fn a_field_that_stands_twice_is_a_mistake_wherever_it_is() {
    let twice = br#"{
        "name": "say", "version": "1.0.0", "version": "2.0.0",
        "source": {"mode": "local_so", "path": "libsay.so", "path": "libother.so"},
        "settings": {"a": [{"b": 1, "b": 2}]}
    }"#;
    check_text(
        twice,
        &[
            "`version` stands there twice: keep one of the two",
            "`source.path` stands there twice: keep one of the two",
            "`settings.a.0.b` stands there twice: keep one of the two",
        ],
    );
}

#[test]
fn text_that_is_not_a_json_object_is_refused() {
    check_text(
        b"",
        &["line 1, column 0: EOF while parsing a value: correct the JSON there"],
    );
    check_text(
        b"{\"name\": \"say\",}",
        &["line 1, column 16: trailing comma: correct the JSON there"],
    );
    check_text(
        b"[]",
        &["line 1, column 1: the file is not one JSON object: correct the JSON there"],
    );
    let long = vec![b' '; usize::try_from(MAX_FILE_BYTES).unwrap() + 1];
    check_text(
        &long,
        &["the file has more than 262144 bytes: shorten the schemas"],
    );
}

#[test]
fn a_repository_as_source_is_told_that_its_time_has_not_come() {
    let invalid = Metadata::parse(&file(&json!({
        "source": {"mode": "remote_git", "path": "https://example.com/say.git"},
    })));
    assert_eq!(invalid.unwrap_err().errors, [MetadataError::RemoteGit]);
}

#[test]
fn a_file_of_a_go_plugin_is_told_what_to_write_instead() {
    let invalid = Metadata::parse(&file(&json!({
        "http_services": {"driver": "beego", "routes": [{"route": "/", "method": "GET", "label": "root"}]},
    })))
    .unwrap_err();
    assert_eq!(
        invalid.errors,
        [MetadataError::GoDriver {
            driver: "beego".to_owned()
        }]
    );
    assert!(
        invalid.errors[0]
            .next_step()
            .contains("write `axum` as driver")
    );
}

#[test]
fn http_services_are_routes_that_do_not_mean_the_same() {
    check_warnings(&json!({"http_services": {"driver": "axum"}}), &[]);
    let route = "a path whose parts may be `:name` and the last one `*rest`, such as `/say/:name`";
    let refused = |routes: Value, expected: &str| {
        check(&json!({"http_services": {"routes": routes}}), &[expected]);
    };
    check(
        &json!({"http_services": {"driver": "actix"}}),
        &["`http_services.driver` is `actix`: write `axum`"],
    );
    refused(
        json!([{"label": "x"}]),
        &format!("`http_services.routes.0.route` is missing: write {route}"),
    );
    refused(
        json!([{"route": "/a?b"}]),
        &format!("`http_services.routes.0.route` is `/a?b`: write {route}"),
    );
    refused(
        json!([{"route": "/", "method": "FETCH"}]),
        "`http_services.routes.0.method` is `FETCH`: write a method such as `GET`, or leave it out for all of them",
    );
    refused(
        json!([{"route": "/a/:x", "method": "GET"}, {"route": "/a/b", "method": "GET"}, {"route": "/a/:y"}]),
        "`http_services.routes.2` is any method /a/:y, which could mean the same request as `http_services.routes.0`: write another route or method, or leave one of the two out",
    );
    let many: Vec<_> = (0..=MAX_ROUTES)
        .map(|n| json!({"route": format!("/{n}")}))
        .collect();
    refused(
        json!(many),
        "`http_services.routes` is a list of 65: write at most 64 routes; one can be open, like `/files/*rest`",
    );
}

#[test]
fn a_library_s_path_stays_in_its_directory() {
    for (path, kept) in [
        ("libsay.so", "libsay.so"),
        ("./libsay.so", "libsay.so"),
        ("lib/libsay.so", "lib/libsay.so"),
    ] {
        assert_eq!(LibraryPath::new(path).unwrap().to_string(), kept);
    }
    for path in [
        "",
        ".",
        "..",
        "/lib/libsay.so",
        "../libsay.so",
        "lib/../../libsay.so",
        "lib/",
        "a\0b",
    ] {
        assert_eq!(
            LibraryPath::new(path),
            Err(TypeError::LibraryPath),
            "{path:?}"
        );
    }
}

#[test]
fn a_name_is_what_a_route_and_a_directory_can_hold() {
    for name in [
        "say",
        "fault-injection",
        "A_1.b",
        &"x".repeat(MAX_NAME_BYTES),
    ] {
        assert_eq!(PluginName::new(name).unwrap().as_str(), name);
    }
    for name in [
        "",
        ".",
        "..",
        ".say",
        "say@1",
        "a/b",
        "grüße",
        "a b",
        &"x".repeat(MAX_NAME_BYTES + 1),
    ] {
        assert_eq!(PluginName::new(name), Err(TypeError::Name), "{name:?}");
    }
}

#[test]
fn a_version_is_a_semantic_version_of_bounded_length() {
    assert!(parse_version("1.2.3-rc.1+build.5").is_ok());
    for version in [
        "1",
        "1.0",
        "v1.0.0",
        "1.0.0.0",
        "01.0.0",
        "",
        &format!("1.0.0-{}", "x".repeat(MAX_VERSION_BYTES)),
    ] {
        assert_eq!(
            parse_version(version),
            Err(TypeError::Version),
            "{version:?}"
        );
    }
}

#[test]
fn a_digest_is_read_as_it_is_printed() {
    let printed = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    assert_eq!(Digest::of(b"").to_string(), printed);
    assert_eq!(Digest::from_hex(printed), Ok(Digest::of(b"")));
    assert_eq!(
        Digest::from_hex(&printed.to_uppercase()),
        Ok(Digest::of(b""))
    );
    for text in [
        &printed[1..],
        &printed.replace('e', "g"),
        &printed.replace("e3", "+3"),
    ] {
        assert_eq!(Digest::from_hex(text), Err(TypeError::Digest), "{text}");
    }
}

#[test]
fn needed_variables_are_written_without_their_dollar_and_bounded() {
    let write = "write the name of a variable without `$`, such as `route_id`";
    check(
        &json!({"needs": {"variables": ["$route_id"]}}),
        &[&format!("`needs.variables.0` is `$route_id`: {write}")],
    );
    check(
        &json!({"needs": {"variables": vec!["a"; 65], "request_body": "yes"}}),
        &[
            "`needs.variables` is a list of 65: write at most 64 variables; a plugin can ask for others as it runs",
            "`needs.request_body` is `yes`: write `true` or `false`",
        ],
    );
}

#[test]
fn a_schema_that_cannot_be_used_is_a_mistake_of_the_file() {
    check(
        &json!({"config_schema": {"$ref": "#/nowhere"}, "settings_schema": {"type": "text"}}),
        &[
            "`settings_schema` is not usable: it is not a JSON Schema: /type: \"text\" is not valid under any of the schemas listed in the 'anyOf' keyword: write a JSON Schema (2020-12) that stands alone",
            "`config_schema` is not usable: a `$ref` leads out of the schema or nowhere: Pointer '/nowhere' does not exist: write a JSON Schema (2020-12) that stands alone",
        ],
    );
}

#[test]
fn null_is_no_value() {
    check_text(
        br#"{"name": "say", "version": "1.0.0", "home": null, "source": {"mode": "local_so", "path": "libsay.so"}}"#,
        &["`home` is null: write one line of text, or leave it out"],
    );
}

#[test]
fn texts_that_end_up_in_tables_have_one_line() {
    check(
        &json!({"description": "a\nb", "home": "", "license": "MIT/Apache-2.0"}),
        &[
            "`description` is `a\\nb`: write one line of text, or leave it out",
            "`home` is empty: write one line of text, or leave it out",
            "`license` is `MIT/Apache-2.0`: write an SPDX expression such as `Apache-2.0 OR MIT`",
        ],
    );
}

fn facts(name: &str, version: &str) -> BuildInfo {
    BuildInfo {
        abi_version: "1.2.0".to_owned(),
        name: name.to_owned(),
        version: version.to_owned(),
        description: "Says\n  something.".to_owned(),
        authors: "Ada:Grace <grace@example.com>".to_owned(),
        repository: "https://example.com/say".to_owned(),
        license: "MIT".to_owned(),
        ..BuildInfo::default()
    }
}

#[test]
fn a_library_can_speak_for_itself() {
    let library = LibraryPath::new("libsay.so").unwrap();
    let metadata = Metadata::from_build_info(&facts("say", "1.0.0"), library.clone()).unwrap();
    assert_eq!(
        (
            metadata.name.as_str(),
            metadata.version.to_string().as_str()
        ),
        ("say", "1.0.0")
    );
    assert_eq!(metadata.description, "Says something.");
    assert_eq!(metadata.maintainers, ["Ada", "Grace <grace@example.com>"]);
    assert_eq!(
        (metadata.home.as_str(), metadata.license.as_str()),
        ("https://example.com/say", "MIT")
    );
    assert_eq!(metadata.library(), &library);
}

#[test]
fn a_library_with_an_impossible_name_cannot_speak_for_itself() {
    let library = LibraryPath::new("libsay.so").unwrap();
    let invalid = Metadata::from_build_info(&facts("say it", "1"), library).unwrap_err();
    let mistakes: Vec<_> = invalid.errors.iter().map(ToString::to_string).collect();
    assert_eq!(
        mistakes,
        ["`package.name` is `say it`", "`package.version` is `1`"]
    );
}

#[test]
fn file_and_library_must_not_contradict_each_other() {
    let check = |changes: &Value, expected: &[&str]| {
        let found = parsed(changes)
            .metadata
            .contradictions(&facts("say", "1.0.0"));
        let found: Vec<_> = found.iter().map(ToString::to_string).collect();
        assert_eq!(found, expected);
    };
    check(&json!({}), &[]);
    check(&json!({"version": "1.0.0+build.5", "abi": "^1"}), &[]);
    check(
        &json!({"name": "shout", "version": "1.1.0", "abi": "=1.0.0"}),
        &[
            "plugin.json says that this is `shout`, the library says `say`",
            "plugin.json says version 1.1.0, the library says 1.0.0",
            "plugin.json accepts ABI `=1.0.0`, the library was built for ABI 1.2.0",
        ],
    );
}
