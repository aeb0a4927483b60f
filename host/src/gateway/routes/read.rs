//! From the route file's text to a table.
//!
//! A field that is supported and wrong is an error; one that is not supported is a warning. This
//! module never looks at a request.

mod fields;
mod plugins;
mod upstreams;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use super::document::{self, Node, Value};
use super::matching::{HostPattern, Matcher, UriPattern};
use super::{Entry, MAX_FILE, MAX_ITEMS, MAX_WAYS, Route, RouteFileError, RouteTable, Upstream};
use fields::Fields;

/// What ends a file: the real gateway reads no other, since it may be half written.
const END: &[u8] = b"#END";

/// The real gateway looks for the end in these last bytes.
const END_WITHIN: usize = 10;

/// Fields of a route that change nothing here, nor need to.
const DESCRIPTIONS: &[&str] = &["desc", "labels", "create_time", "update_time"];

/// The methods that a route of the real gateway can name.
const METHODS: &[&str] = &[
    "GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "CONNECT", "TRACE", "PURGE",
];

/// What is wrong, and where.
struct Problem {
    line: Option<usize>,
    text: String,
}

/// What the whole file is read with.
struct Reader {
    version: u64,
    warnings: Vec<String>,
    upstreams: BTreeMap<String, Upstream>,
}

impl RouteTable {
    /// Reads a route file. `version` is to differ from that of the file's last version.
    ///
    /// # Errors
    /// [`RouteFileError`] where it cannot be read, is larger than [`MAX_FILE`], does not end in
    /// `#END`, is no YAML, or a field that is supported is wrong.
    pub fn load(file: &Path, version: u64) -> Result<Self, RouteFileError> {
        let failed = |problem| RouteFileError {
            file: file.to_owned(),
            line: None,
            problem,
        };
        let mut text = Vec::new();
        std::fs::File::open(file)
            .and_then(|opened| opened.take(MAX_FILE + 1).read_to_end(&mut text))
            .map_err(|error| failed(format!("the route file cannot be read: {error}")))?;
        if text.len() as u64 > MAX_FILE {
            return Err(failed(format!(
                "the route file is larger than {MAX_FILE} bytes: split the routes among gateways"
            )));
        }
        Self::parse(file, &text, version)
    }

    /// Reads the text of a route file, as [`RouteTable::load`]; `file` is for messages.
    ///
    /// # Errors
    /// See [`RouteTable::load`].
    pub fn parse(file: &Path, text: &[u8], version: u64) -> Result<Self, RouteFileError> {
        read(text, version).map_err(|problem| RouteFileError {
            file: file.to_owned(),
            line: problem.line,
            problem: problem.text,
        })
    }
}

fn read(text: &[u8], version: u64) -> Result<RouteTable, Problem> {
    let tail = &text[text.len().saturating_sub(END_WITHIN)..];
    if !tail.windows(END.len()).any(|part| part == END) {
        return Err(Problem {
            line: None,
            text: "the file does not end with `#END`: the gateway ignores such a file, since it \
                   may be half written; add the line `#END`"
                .to_owned(),
        });
    }
    let text = std::str::from_utf8(text).map_err(|error| Problem {
        line: None,
        text: format!("the file is not UTF-8: {error}"),
    })?;
    let document = document::parse(text).map_err(|problem| Problem {
        line: Some(problem.line),
        text: format!("the file is not readable YAML: {}", problem.text),
    })?;
    let reader = Reader {
        version,
        warnings: Vec::new(),
        upstreams: BTreeMap::new(),
    };
    reader.table(&document)
}

impl Reader {
    fn table(mut self, document: &Node) -> Result<RouteTable, Problem> {
        let mut table = RouteTable {
            version: self.version,
            ..RouteTable::default()
        };
        if matches!(document.value, Value::Null) {
            return Ok(table);
        }
        let mut top = Fields::of(document, "the file")?;
        for (item, place) in items(top.take("upstreams"), "upstreams")? {
            self.shared_upstream(item, &place)?;
        }
        let mut ids = BTreeSet::new();
        let mut entries = Vec::new();
        for (item, place) in items(top.take("routes"), "routes")? {
            let Some((route, matchers)) = self.route(item, &place)? else {
                continue;
            };
            if !ids.insert(route.id.clone()) {
                let text = format!("route `{}` is there twice: give one another id", route.id);
                return Err(Problem::at(item, text));
            }
            if entries.len() + matchers.len() > MAX_WAYS {
                return Err(too_many_ways(item.line));
            }
            let route = Arc::new(route);
            entries.extend(matchers.into_iter().map(|matcher| Entry {
                matcher,
                route: Arc::clone(&route),
            }));
            table.routes.push(route);
        }
        top.rest(&mut self.warnings);
        // A stable sort: among equals the file's order stands.
        entries.sort_by_key(|entry| entry.matcher.rank());
        table.entries = entries;
        table.warnings = self.warnings;
        Ok(table)
    }

    /// A route and the ways to it; `None` where it is switched off.
    fn route(
        &mut self,
        item: &Node,
        place: &str,
    ) -> Result<Option<(Route, Vec<Matcher>)>, Problem> {
        let mut fields = Fields::of(item, place)?;
        let id = fields.id()?.unwrap_or_else(|| place.to_owned());
        fields.name(&format!("route `{id}`"));
        let is_on = match fields.int("status")? {
            None | Some(1) => true,
            Some(0) => false,
            Some(_) => return Err(fields.wrong("status", "1 (on) or 0 (off) is needed")),
        };
        let matchers = self.matchers(&mut fields)?;
        let name = fields.text("name")?;
        let mut plugins = self.plugins(&mut fields, &id)?;
        let upstream = self.upstream_of(&mut fields)?;
        fields.ignore(DESCRIPTIONS);
        fields.rest(&mut self.warnings);
        let route = Route {
            id,
            name,
            pre_req: plugins.ext.remove("ext-plugin-pre-req"),
            post_req: plugins.ext.remove("ext-plugin-post-req"),
            post_resp: plugins.ext.remove("ext-plugin-post-resp"),
            proxy_rewrite: plugins.proxy_rewrite,
            upstream,
        };
        Ok(is_on.then_some((route, matchers)))
    }

    fn matchers(&mut self, fields: &mut Fields<'_>) -> Result<Vec<Matcher>, Problem> {
        let uris = fields.one_or_many("uri", "uris")?;
        if uris.is_empty() {
            return Err(fields.wrong("uri", "it is missing: a route needs `uri` or `uris`"));
        }
        let mut hosts = Vec::new();
        for host in fields.one_or_many("host", "hosts")? {
            hosts.push(HostPattern::parse(&host).ok_or_else(|| {
                let text = format!("`{host}` is neither a host nor one that begins with `*.`");
                fields.wrong("host", &text)
            })?);
        }
        if hosts.is_empty() {
            hosts.push(HostPattern::Any);
        }
        if uris.len().saturating_mul(hosts.len()) > MAX_WAYS {
            return Err(too_many_ways(fields.line()));
        }
        let methods = fields.texts("methods")?;
        for method in &methods {
            if !METHODS.contains(&method.as_str()) {
                let text = format!("the real gateway has no routes for the method `{method}`");
                self.warnings.push(fields.about("methods", &text));
            }
        }
        let priority = fields.int("priority")?.unwrap_or(0);
        let mut matchers = Vec::new();
        for uri in uris {
            let uri = UriPattern::parse(&uri).ok_or_else(|| {
                let text = format!("`{uri}` is no path, or its `*` does not stand at the end");
                fields.wrong("uri", &text)
            })?;
            matchers.extend(hosts.iter().map(|host| Matcher {
                host: host.clone(),
                uri: uri.clone(),
                methods: methods.clone(),
                priority,
            }));
        }
        Ok(matchers)
    }
}

fn too_many_ways(line: usize) -> Problem {
    Problem {
        line: Some(line),
        text: format!("URIs times hosts of all routes are more than {MAX_WAYS}"),
    }
}

impl Problem {
    fn at(node: &Node, text: String) -> Self {
        let line = Some(node.line);
        Self { line, text }
    }
}

/// The items of a list, each with the place that the real gateway names it by.
fn items<'n>(list: Option<&'n Node>, name: &str) -> Result<Vec<(&'n Node, String)>, Problem> {
    let Some(node) = list else {
        return Ok(Vec::new());
    };
    let items = match &node.value {
        Value::Null => return Ok(Vec::new()),
        Value::List(items) if items.len() <= MAX_ITEMS => items,
        Value::List(_) => {
            let text = format!("`{name}` has more than {MAX_ITEMS} items");
            return Err(Problem::at(node, text));
        }
        other => {
            let text = format!("`{name}` is {}, and a list is needed", other.kind());
            return Err(Problem::at(node, text));
        }
    };
    Ok((1..)
        .zip(items.iter())
        .map(|(number, item)| (item, format!("{name}#{number}")))
        .collect())
}

#[cfg(test)]
mod tests;
