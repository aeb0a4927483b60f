//! The reading order of modules: each uses only those that come after it.

use crate::rust::{code, code_without_tests};

/// A path in the code, from the crate's root: `["plugin", "registry"]`.
pub(crate) type ModulePath = Vec<String>;

/// The modules that a file declares, in order.
pub(crate) fn declared_modules(source: &str) -> Vec<String> {
    code(source)
        .lines()
        .filter_map(|line| {
            let line = line.trim();
            let line = line.strip_prefix("pub ").unwrap_or(line);
            let name = line.strip_prefix("mod ")?.strip_suffix(';')?;
            Some(name.to_owned())
        })
        .collect()
}

/// The module that a file is, given its path below `src`.
pub(crate) fn module_of(path: &str) -> ModulePath {
    let path = path.strip_suffix(".rs").unwrap_or(path);
    path.split('/')
        .filter(|part| *part != "lib")
        .map(str::to_owned)
        .collect()
}

/// What the code of `module` refers to in its own crate, outside of tests.
pub(crate) fn references(module: &ModulePath, source: &str) -> Vec<ModulePath> {
    let code = code_without_tests(source);
    let mut found = Vec::new();
    for root in ["crate", "super"] {
        for (at, _) in code.match_indices(&format!("{root}::")) {
            let is_part = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
            if code[..at].ends_with(is_part) {
                continue;
            }
            let mut start = match root {
                "crate" => Vec::new(),
                _ => parent(module),
            };
            let mut rest = &code[at + root.len()..];
            while let Some(above) = rest.strip_prefix("::super::") {
                start = parent(&start);
                rest = &rest[rest.len() - above.len() - 2..];
            }
            collect(&rest[2..], start, &mut found);
        }
    }
    found
}

fn parent(module: &ModulePath) -> ModulePath {
    module[..module.len().saturating_sub(1)].to_vec()
}

/// Reads `a::b`, `a::{b, c::d}` or `a` and the like; gives where it ends.
fn collect<'a>(mut rest: &'a str, mut path: ModulePath, found: &mut Vec<ModulePath>) -> &'a str {
    loop {
        rest = rest.trim_start();
        if let Some(mut list) = rest.strip_prefix('{') {
            loop {
                list = collect(list, path.clone(), found).trim_start();
                match list.strip_prefix(',') {
                    Some(next) if !next.trim_start().starts_with('}') => list = next,
                    _ => break,
                }
            }
            let end = list.find('}').map_or(list.len(), |at| at + 1);
            return &list[end..];
        }
        let length = rest
            .find(|c: char| !c.is_alphanumeric() && c != '_')
            .unwrap_or(rest.len());
        path.push(rest[..length].to_owned());
        rest = &rest[length..];
        match rest.strip_prefix("::") {
            Some(next) => rest = next,
            None => break,
        }
    }
    found.push(path);
    // `x as y`
    let end = rest.find([',', '}', ';', '\n']).unwrap_or(rest.len());
    &rest[end..]
}

/// Where a module stands among its siblings.
#[derive(Debug)]
pub(crate) struct ReadingOrder {
    /// The module that declares them.
    pub(crate) parent: ModulePath,
    /// Their paths from the crate's root, in order. A longer path wins over a shorter one.
    pub(crate) modules: Vec<ModulePath>,
}

impl ReadingOrder {
    fn position(&self, path: &ModulePath) -> Option<usize> {
        (0..self.modules.len())
            .filter(|index| path.starts_with(&self.modules[*index]))
            .max_by_key(|index| self.modules[*index].len())
    }

    /// The references of a file to modules that come before its own.
    pub(crate) fn broken_by(&self, module: &ModulePath, source: &str) -> Vec<String> {
        let Some(own) = self.position(module) else {
            return Vec::new();
        };
        references(module, source)
            .into_iter()
            .filter(|path| path.starts_with(&self.parent))
            .filter(|path| self.position(path).is_some_and(|position| position < own))
            .map(|path| format!("uses `{}`, which comes before it", path.join("::")))
            .collect()
    }
}

#[cfg(test)]
fn paths(texts: &[&str]) -> Vec<ModulePath> {
    texts
        .iter()
        .map(|text| text.split("::").map(str::to_owned).collect())
        .collect()
}

#[test]
fn modules_are_read_in_the_order_in_which_they_are_declared() {
    let source =
        "pub mod b;\n#[allow(unsafe_code)]\npub mod a;\n// mod not_this;\nmod c;\nmod d { }\n";
    assert_eq!(declared_modules(source), ["b", "a", "c"]);
    assert_eq!(module_of("plugin/registry.rs"), ["plugin", "registry"]);
    assert_eq!(module_of("lib.rs"), Vec::<String>::new());
}

#[test]
fn every_way_to_name_a_module_is_seen() {
    let module = module_of("plugin/metadata/fields.rs");
    let check = |source: &str, expected: &[&str]| {
        assert_eq!(references(&module, source), paths(expected), "{source}");
    };
    check("use crate::memory::Budget;", &["memory::Budget"]);
    check(
        "use crate::{\n    memory::{Budget, Held},\n    tokens::Token as T,\n    a,\n};",
        &["memory::Budget", "memory::Held", "tokens::Token", "a"],
    );
    check("let x = crate::worker::run();", &["worker::run"]);
    check("use super::Finding;", &["plugin::metadata::Finding"]);
    check("use super::super::schema;", &["plugin::schema"]);
    check("use other_crate::x; // crate::memory", &[]);
    check("#[cfg(test)]\nmod tests { use crate::worker; }", &[]);
}

#[test]
fn a_module_that_uses_one_before_it_is_found() {
    let order = ReadingOrder {
        parent: Vec::new(),
        modules: paths(&["worker", "plugin::manager", "server", "plugin"]),
    };
    let check = |file: &str, source: &str, expected: &[&str]| {
        assert_eq!(order.broken_by(&module_of(file), source), expected);
    };
    check("worker.rs", "use crate::{server, plugin};", &[]);
    check("plugin/manager.rs", "use crate::server::A;", &[]);
    check(
        "plugin/registry.rs",
        "use crate::server::A;",
        &["uses `server::A`, which comes before it"],
    );
    check(
        "plugin/registry.rs",
        "use super::manager::B;",
        &["uses `plugin::manager::B`, which comes before it"],
    );
    check("plugin/registry.rs", "use super::library::C;", &[]);
}
