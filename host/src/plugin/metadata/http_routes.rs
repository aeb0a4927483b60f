//! The routes of a plugin's HTTP services: what `http_services` may say, and which requests each means.
//!
//! A route is a path in which a part may be `:name`, which stands for one part, or the last one
//! `*rest`, which stands for everything from there on. Two routes that could mean the same request
//! exclude each other. Nothing here knows who serves them.

use std::{collections::BTreeMap, fmt};

use hyper::Method;
use matchit::{InsertError, Router};

/// Routes of one plugin, at most.
pub const MAX_ROUTES: usize = 64;

/// Bytes of a route, at most.
pub(super) const MAX_ROUTE_BYTES: usize = 512;

/// One route of a plugin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpRoute {
    /// Which paths it means.
    pub pattern: RoutePattern,
    /// Which method; none for all of them.
    pub method: Option<Method>,
    /// What tells the plugin which of its routes it is.
    pub label: String,
}

impl fmt::Display for HttpRoute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let method = self.method.as_ref().map_or("any method", Method::as_str);
        write!(f, "{method} {}", self.pattern.as_str())
    }
}

/// A path in which parts may be left open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoutePattern {
    written: String,
    /// The same as the router writes it.
    translated: String,
}

impl RoutePattern {
    /// A path as metadata has it; none where it is no such path.
    #[must_use]
    pub fn new(written: &str) -> Option<Self> {
        let parts = written.strip_prefix('/')?;
        if written.len() > MAX_ROUTE_BYTES {
            return None;
        }
        let mut names = Vec::new();
        let mut translated = String::new();
        let mut parts = parts.split('/').peekable();
        while let Some(part) = parts.next() {
            translated.push('/');
            let (open, name) = match part.split_at_checked(1) {
                Some((":", name)) => ("", name),
                Some(("*", name)) if parts.peek().is_none() => ("*", name),
                _ if is_literal(part) => {
                    translated.push_str(part);
                    continue;
                }
                _ => return None,
            };
            if !is_name(name) || names.contains(&name) {
                return None;
            }
            names.push(name);
            translated.push_str(&format!("{{{open}{name}}}"));
        }
        Some(Self {
            written: written.to_owned(),
            translated,
        })
    }

    /// As metadata has it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.written
    }
}

fn is_literal(part: &str) -> bool {
    part.bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || b"-._~!$&'()+,;=@".contains(&byte))
}

fn is_name(name: &str) -> bool {
    !name.is_empty()
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// A method of HTTP by its name, in whatever case; none for what is none.
pub(super) fn method(name: &str) -> Option<Method> {
    const KNOWN: [Method; 9] = [
        Method::GET,
        Method::HEAD,
        Method::POST,
        Method::PUT,
        Method::PATCH,
        Method::DELETE,
        Method::OPTIONS,
        Method::TRACE,
        Method::CONNECT,
    ];
    let known = KNOWN.into_iter();
    let mut served = known.filter(|method| *method != Method::CONNECT);
    served.find(|method| method.as_str().eq_ignore_ascii_case(name))
}

/// Routes, each with a value.
#[derive(Debug, Clone)]
pub struct Routing<T> {
    of_any_method: Router<T>,
    by_method: BTreeMap<String, Router<T>>,
}

impl<T> Default for Routing<T> {
    fn default() -> Self {
        Self {
            of_any_method: Router::new(),
            by_method: BTreeMap::new(),
        }
    }
}

/// What a request leads to.
#[derive(Debug)]
pub enum Lookup<'a, T> {
    /// This value, with what the path has in the places that the route leaves open, as it came.
    Found(&'a T, Vec<(String, String)>),
    /// There is something, but not for this method: only for these.
    OtherMethods(Vec<String>),
    /// Nothing.
    Nothing,
}

impl<T: Clone> Routing<T> {
    /// Adds a route.
    ///
    /// # Errors
    /// The value of another route that could mean the same request; none where that cannot be told.
    pub fn insert(&mut self, route: &HttpRoute, value: T) -> Result<(), Option<T>> {
        let pattern = &route.pattern.translated;
        let method = route.method.as_ref().map(Method::as_str);
        let overlapping = self
            .by_method
            .iter()
            .filter(|(of, _)| method.is_none_or(|method| method == of.as_str()))
            .map(|(_, router)| router)
            .chain([&self.of_any_method]);
        for router in overlapping {
            if let Err(error) = router.clone().insert(pattern, value.clone()) {
                let with = match &error {
                    InsertError::Conflict { with } => with.as_str(),
                    _ => pattern,
                };
                // A pattern matches itself.
                return Err(router.at(with).ok().map(|found| found.value.clone()));
            }
        }
        let router = match method {
            None => &mut self.of_any_method,
            Some(method) => self.by_method.entry(method.to_owned()).or_default(),
        };
        // It did into a copy.
        router.insert(pattern, value).map_err(|_| None)
    }

    /// What a request leads to.
    pub fn at(&self, method: &Method, path: &str) -> Lookup<'_, T> {
        let of_method = self.by_method.get(method.as_str());
        for router in of_method.into_iter().chain([&self.of_any_method]) {
            if let Ok(found) = router.at(path) {
                let places = found.params.iter();
                let places = places.map(|(name, value)| (name.to_owned(), value.to_owned()));
                return Lookup::Found(found.value, places.collect());
            }
        }
        let others: Vec<String> = self
            .by_method
            .iter()
            .filter(|(_, router)| router.at(path).is_ok())
            .map(|(method, _)| method.clone())
            .collect();
        match others.is_empty() {
            true => Lookup::Nothing,
            false => Lookup::OtherMethods(others),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(of: Option<&str>, path: &str) -> HttpRoute {
        HttpRoute {
            pattern: RoutePattern::new(path).unwrap_or_else(|| panic!("{path} is a route")),
            method: of.and_then(method),
            label: String::new(),
        }
    }

    #[test]
    fn a_route_is_a_path_with_open_parts() {
        for good in ["/", "/a", "/a/", "/:a/b/:c", "/a/*rest", "/v1/a-b.c~d"] {
            assert!(RoutePattern::new(good).is_some(), "{good}");
        }
        let long = format!("/{}", "a".repeat(MAX_ROUTE_BYTES));
        for bad in [
            "", "a", "/:", "/*", "/*a/b", "/:a/:a", "/a:b", "/{a}", "/a?b", "/a b", "/%41", "/ä",
            &long,
        ] {
            assert!(RoutePattern::new(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn requests_lead_to_routes_by_method_and_path() {
        let mut routing = Routing::default();
        for (of, path, value) in [
            (Some("get"), "/say/:name", 1),
            (Some("POST"), "/say/:name", 2),
            (None, "/files/*rest", 3),
            (Some("GET"), "/say/everything", 4),
        ] {
            assert_eq!(routing.insert(&route(of, path), value), Ok(()), "{path}");
        }
        let found = |method: Method, path: &str| match routing.at(&method, path) {
            Lookup::Found(value, places) => {
                let places: Vec<_> = places.iter().map(|(n, v)| format!("{n}={v}")).collect();
                format!("{value} {}", places.join(" "))
            }
            Lookup::OtherMethods(methods) => methods.join(","),
            Lookup::Nothing => String::new(),
        };
        assert_eq!(found(Method::GET, "/say/Ada"), "1 name=Ada");
        assert_eq!(found(Method::GET, "/say/everything"), "4 ");
        assert_eq!(found(Method::POST, "/say/everything"), "2 name=everything");
        assert_eq!(found(Method::PUT, "/files/a/b"), "3 rest=a/b");
        assert_eq!(found(Method::PUT, "/say/Ada"), "GET,POST");
        assert_eq!(found(Method::GET, "/say/Ada/x"), "");
    }

    #[test]
    fn routes_that_could_mean_the_same_request_exclude_each_other() {
        let mut routing = Routing::default();
        assert_eq!(
            routing.insert(&route(Some("GET"), "/a/:x"), "first"),
            Ok(())
        );
        for (of, path) in [
            (Some("GET"), "/a/:y"),
            (Some("GET"), "/a/*y"),
            (None, "/a/:x"),
        ] {
            let taken = routing.insert(&route(of, path), "second");
            assert_eq!(taken, Err(Some("first")), "{of:?} {path}");
        }
        for (of, path) in [
            (Some("PUT"), "/a/:x"),
            (Some("GET"), "/a/b"),
            (Some("GET"), "/a"),
        ] {
            assert_eq!(routing.insert(&route(of, path), "third"), Ok(()), "{path}");
        }
    }
}
