//! The table of fields: which there are, what each may hold, and what to write instead.

use std::time::Duration;

use plugin_abi::build_info::BuildInfo;
use semver::VersionReq;
use serde_json::Value;

use super::document::{self, Document};
use super::fields::{Fields, Findings, is_line};
use super::{
    Digest, Execution, FailurePolicy, HttpRoute, Invalid, LibraryPath, MAX_NEEDED_VARIABLES,
    MAX_ROUTES, MAX_TIMEOUT, Metadata, MetadataError, Needs, Parsed, PluginName, RoutePattern,
    Routing, Source, TypeError, Warning, http_routes, parse_version,
};
use crate::plugin::schema::Schema;

/// The fields of a file.
pub(super) const FIELDS: [&str; 16] = [
    "name",
    "version",
    "description",
    "maintainers",
    "home",
    "license",
    "source",
    "abi",
    "execution",
    "failure_policy",
    "settings",
    "settings_schema",
    "timeout_ms",
    "needs",
    "config_schema",
    "http_services",
];
pub(super) const SOURCE_FIELDS: [&str; 3] = ["mode", "path", "sha256"];
pub(super) const NEEDS_FIELDS: [&str; 3] = ["variables", "request_body", "response_body"];
pub(super) const HTTP_FIELDS: [&str; 2] = ["driver", "routes"];
pub(super) const ROUTE_FIELDS: [&str; 3] = ["route", "method", "label"];

const NAME: &str = "1 to 128 letters, digits, `-`, `_` or `.`, not beginning with `.`";
const VERSION: &str = "a semantic version with three numbers, such as `1.0.0`";
const SOURCE: &str =
    "`{\"mode\": \"local_so\", \"path\": \"libNAME.so\"}` with the library's file name";
const LIBRARY: &str = "the library's file name, such as `libsay.so`: no absolute path, no `..`";
const LINE: &str = "one line of text, or leave it out";

const ROUTE_OBJECT: &str = "an object, `{\"route\": ..., \"method\": ..., \"label\": ...}`";
const ROUTE: &str =
    "a path whose parts may be `:name` and the last one `*rest`, such as `/say/:name`";
const METHOD: &str = "a method such as `GET`, or leave it out for all of them";

/// The framework of Go that go-plugin's files name as driver.
const GO_DRIVER: &str = "beego";

pub(super) fn parse(file: &[u8]) -> Result<Parsed, Invalid> {
    let Document { fields, duplicates } = document::read(file).map_err(|error| Invalid {
        name: None,
        version: None,
        library: None,
        errors: vec![error],
    })?;
    let mut findings = Findings::default();
    findings.errors.extend(
        duplicates
            .into_iter()
            .map(|field| MetadataError::Duplicate { field }),
    );
    let file = Fields::new(String::new(), &fields, &FIELDS, &mut findings);
    let to = &mut findings;

    file.require("name", NAME, to);
    file.require("version", VERSION, to);
    file.require("source", SOURCE, to);
    let name = file.parse("name", NAME, to, |text| PluginName::new(text).ok());
    let version = file.parse("version", VERSION, to, |text| parse_version(text).ok());
    let description = file.line("description", LINE, to);
    let maintainers = file.list(
        "maintainers",
        "an e-mail address or `Name <e-mail>`",
        to,
        maintainer,
    );
    let home = file.line("home", LINE, to);
    let license = file
        .parse(
            "license",
            "an SPDX expression such as `Apache-2.0 OR MIT`",
            to,
            spdx,
        )
        .unwrap_or_default();
    let source = source(&file, to);
    let abi = file.parse("abi", "a requirement such as `^1`", to, |text| {
        VersionReq::parse(text).ok()
    });
    let execution = file
        .parse("execution", "`async` or `blocking`", to, execution)
        .unwrap_or_default();
    let failure_policy = file
        .parse("failure_policy", "`closed` or `open`", to, failure_policy)
        .unwrap_or_default();
    let settings = file
        .take("settings", "an object, `{...}`", to, Value::as_object)
        .cloned()
        .unwrap_or_default();
    let settings_schema = schema(&file, "settings_schema", to);
    let timeout = file.take("timeout_ms", &timeout_range(), to, timeout);
    let needs = needs(&file, to);
    let config_schema = schema(&file, "config_schema", to);
    let http_routes = http_services(&file, to);

    match (name, version, source) {
        (Some(name), Some(version), Some(source)) if findings.errors.is_empty() => {
            let warnings: Vec<_> = findings
                .unknown
                .into_iter()
                .map(Warning::UnknownField)
                .collect();
            let metadata = Metadata {
                name,
                version,
                description,
                maintainers,
                home,
                license,
                source,
                abi,
                execution,
                failure_policy,
                settings,
                settings_schema,
                timeout,
                needs,
                config_schema,
                http_routes,
            };
            Ok(Parsed { metadata, warnings })
        }
        (name, version, source) => {
            let mut errors = findings.errors;
            errors.extend(
                findings
                    .unknown
                    .into_iter()
                    .map(MetadataError::UnknownField),
            );
            let library = source.map(|Source::LocalSo { path, .. }| path);
            Err(Invalid {
                name,
                version,
                library,
                errors,
            })
        }
    }
}

pub(super) fn from_build_info(
    facts: &BuildInfo,
    library: LibraryPath,
) -> Result<Metadata, Invalid> {
    let mut errors = Vec::new();
    let mut refuse = |field: &str, found: &str, write: TypeError| {
        errors.push(MetadataError::Invalid {
            field: format!("package.{field}"),
            found: format!("`{}`", found.escape_debug()),
            write: format!(
                "a plugin.json beside the library, or another {field} in Cargo.toml: {write}"
            ),
        });
    };
    let name = PluginName::new(&facts.name).map_err(|error| refuse("name", &facts.name, error));
    let version =
        parse_version(&facts.version).map_err(|error| refuse("version", &facts.version, error));
    let (Ok(name), Ok(version)) = (name.clone(), version.clone()) else {
        return Err(Invalid {
            name: name.ok(),
            version: version.ok(),
            library: Some(library),
            errors,
        });
    };
    let home = if facts.homepage.is_empty() {
        &facts.repository
    } else {
        &facts.homepage
    };
    Ok(Metadata {
        name,
        version,
        description: one_line(&facts.description),
        maintainers: facts
            .authors
            .split(':')
            .filter(|author| !author.is_empty())
            .map(one_line)
            .collect(),
        home: one_line(home),
        license: one_line(&facts.license),
        source: Source::LocalSo {
            path: library,
            sha256: None,
        },
        abi: None,
        execution: Execution::default(),
        failure_policy: FailurePolicy::default(),
        settings: serde_json::Map::new(),
        settings_schema: None,
        timeout: None,
        needs: Needs::default(),
        config_schema: None,
        http_routes: Vec::new(),
    })
}

fn source(file: &Fields<'_>, to: &mut Findings) -> Option<Source> {
    let source = file.object("source", &SOURCE_FIELDS, to)?;
    source.require("mode", "`local_so`", to);
    let mode = source.parse("mode", "`local_so`", to, |mode| {
        ["local_so", "remote_git"].contains(&mode).then_some(mode)
    });
    if mode == Some("remote_git") {
        // Its path is a repository's address: not a mistake of its own.
        to.errors.push(MetadataError::RemoteGit);
        return None;
    }
    source.require("path", LIBRARY, to);
    let path = source.parse("path", LIBRARY, to, |path| LibraryPath::new(path).ok());
    let digest = "64 hexadecimal digits, as `sha256sum LIBRARY` prints them";
    let sha256 = source.parse("sha256", digest, to, |digits| Digest::from_hex(digits).ok());
    Some(Source::LocalSo {
        path: path?,
        sha256,
    })
}

fn needs(file: &Fields<'_>, to: &mut Findings) -> Needs {
    let Some(needs) = file.object("needs", &NEEDS_FIELDS, to) else {
        return Needs::default();
    };
    let variables = needs.list(
        "variables",
        "the name of a variable without `$`, such as `route_id`",
        to,
        |value| {
            let name = value.as_str()?;
            let valid = is_line(name) && name.len() <= 256 && !name.contains(['$', ' ']);
            valid.then(|| name.to_owned())
        },
    );
    if variables.len() > MAX_NEEDED_VARIABLES {
        let write = format!(
            "at most {MAX_NEEDED_VARIABLES} variables; a plugin can ask for others as it runs"
        );
        to.invalid(
            needs.place_of("variables"),
            format!("a list of {}", variables.len()),
            &write,
        );
    }
    Needs {
        variables,
        request_body: needs.flag("request_body", to),
        response_body: needs.flag("response_body", to),
    }
}

/// The routes of the plugin's HTTP services, none of which means what another one does.
fn http_services(file: &Fields<'_>, to: &mut Findings) -> Vec<HttpRoute> {
    let Some(services) = file.object("http_services", &HTTP_FIELDS, to) else {
        return Vec::new();
    };
    let driver = services.parse("driver", "`axum`", to, Some);
    match driver {
        None | Some("axum") => {}
        Some(GO_DRIVER) => to.errors.push(MetadataError::GoDriver {
            driver: GO_DRIVER.to_owned(),
        }),
        Some(other) => to.invalid(
            services.place_of("driver"),
            format!("`{}`", other.escape_debug()),
            "`axum`",
        ),
    }
    let routes = services.list("routes", ROUTE_OBJECT, to, Value::as_object);
    if routes.len() > MAX_ROUTES {
        to.invalid(
            services.place_of("routes"),
            format!("a list of {}", routes.len()),
            &format!("at most {MAX_ROUTES} routes; one can be open, like `/files/*rest`"),
        );
    }
    let mut routing = Routing::default();
    let mut read = Vec::new();
    for (index, route) in routes.into_iter().enumerate().take(MAX_ROUTES) {
        let place = format!("{}.{index}", services.place_of("routes"));
        let fields = Fields::new(place.clone(), route, &ROUTE_FIELDS, to);
        fields.require("route", ROUTE, to);
        let pattern = fields.parse("route", ROUTE, to, RoutePattern::new);
        let method = fields.parse("method", METHOD, to, http_routes::method);
        let label = fields.line("label", LINE, to);
        let Some(pattern) = pattern else { continue };
        let route = HttpRoute {
            pattern,
            method,
            label,
        };
        match routing.insert(&route, place.clone()) {
            Ok(()) => read.push(route),
            Err(other) => {
                let other = other.unwrap_or_default();
                to.invalid(
                    place,
                    format!("{route}, which could mean the same request as `{other}`"),
                    "another route or method, or leave one of the two out",
                );
            }
        }
    }
    read
}

fn schema(file: &Fields<'_>, name: &str, to: &mut Findings) -> Option<Schema> {
    match Schema::compile(file.value(name)?) {
        Ok(schema) => Some(schema),
        Err(error) => {
            to.invalid(
                file.place_of(name),
                format!("not usable: {error}"),
                "a JSON Schema (2020-12) that stands alone",
            );
            None
        }
    }
}

fn execution(text: &str) -> Option<Execution> {
    [Execution::Async, Execution::Blocking]
        .into_iter()
        .find(|execution| execution.to_string() == text)
}

fn failure_policy(text: &str) -> Option<FailurePolicy> {
    [FailurePolicy::Closed, FailurePolicy::Open]
        .into_iter()
        .find(|policy| policy.to_string() == text)
}

fn timeout(value: &Value) -> Option<Duration> {
    let timeout = Duration::from_millis(value.as_u64()?);
    (!timeout.is_zero() && timeout <= MAX_TIMEOUT).then_some(timeout)
}

fn timeout_range() -> String {
    format!(
        "a whole number of milliseconds from 1 to {}",
        MAX_TIMEOUT.as_millis()
    )
}

/// `somebody@example.com` or `Some Body <somebody@example.com>`.
fn maintainer(value: &Value) -> Option<String> {
    let text = value.as_str().filter(|text| is_line(text))?;
    let address = match text.split_once('<') {
        Some((_, rest)) => rest.strip_suffix('>')?,
        None => text,
    };
    let (person, host) = address.split_once('@')?;
    let plain = |part: &str| !part.is_empty() && !part.contains([' ', '@', '<', '>', ',']);
    (plain(person) && plain(host)).then(|| text.to_owned())
}

/// The shape of an SPDX expression; the list of licences is not ours to keep.
fn spdx(text: &str) -> Option<String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || ".-+:() ".contains(c);
    (is_line(text) && text.chars().all(allowed)).then(|| text.to_owned())
}

/// Cargo lets these texts have several lines; ours end up in tables and logs.
fn one_line(text: &str) -> String {
    text.split(|c: char| c.is_whitespace() || c.is_control())
        .filter(|word| !word.is_empty())
        .collect::<Vec<_>>()
        .join(" ")
}
