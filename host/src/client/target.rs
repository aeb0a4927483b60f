//! A URL, or a path with its query, as the gateway hands it to plugins.
//!
//! The gateway decodes the path and puts it in order, and decodes the arguments; what comes out is
//! bytes. This module never judges whether a route would match.

use super::Field;

/// What a request asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The scheme, where one is given.
    pub scheme: Option<String>,
    /// Host and port as written, where they are given.
    pub authority: Option<String>,
    /// Path and query as they travel: what Nginx calls `request_uri`.
    pub raw: String,
    /// The path: decoded, without dots and doubled slashes.
    pub path: Vec<u8>,
    /// The query as it travels; `None` where there is no question mark.
    pub query: Option<String>,
    /// The arguments, decoded; `?z` has no value, `?q=` an empty one.
    pub args: Vec<Field>,
}

impl Target {
    /// Reads `http://host:port/path?query`, or from the path on.
    ///
    /// # Errors
    /// The reason, in words: it does not begin with a path, or the path is one that Nginx refuses,
    /// since it leads above the root or is encoded wrongly.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (scheme, authority, rest) = match text.split_once("://") {
            Some((scheme, rest)) if !scheme.contains(['/', '?']) => {
                let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
                let (authority, rest) = rest.split_at(end);
                (Some(scheme), Some(authority), rest)
            }
            _ => (None, None, text),
        };
        if authority.is_none() && !rest.starts_with('/') {
            return Err(format!(
                "`{text}` is neither a path such as /hello?a=1 nor a URL such as http://host/hello"
            ));
        }
        // A fragment never leaves the client.
        let rest = rest.split_once('#').map_or(rest, |(sent, _)| sent);
        let raw = if rest.starts_with('/') {
            rest.to_owned()
        } else {
            format!("/{rest}")
        };
        let (path, query) = match raw.split_once('?') {
            Some((path, query)) => (path, Some(query.to_owned())),
            None => (raw.as_str(), None),
        };
        if !is_encoded_well(path.as_bytes()) {
            return Err(format!(
                "`{text}` has a `%` in its path that is followed by no two hexadecimal digits, or \
                 by 00: a gateway refuses it"
            ));
        }
        let path = in_order(&decoded(path.as_bytes(), false))
            .ok_or_else(|| format!("`{text}` leads above the root: a gateway refuses it"))?;
        let args = query
            .as_deref()
            .map(|query| arguments(query.as_bytes()))
            .unwrap_or_default();
        Ok(Self {
            scheme: scheme.map(str::to_owned),
            authority: authority.map(str::to_owned),
            path,
            query,
            args,
            raw,
        })
    }
}

/// Whether Nginx takes a path: each percent sign begins a byte, which is not 0.
fn is_encoded_well(path: &[u8]) -> bool {
    let after_percent = path.split(|byte| *byte == b'%').skip(1);
    let begins_a_byte = |rest: &[u8]| match rest {
        [high, low, ..] => {
            hex(*high).is_some() && hex(*low).is_some() && (*high, *low) != (b'0', b'0')
        }
        _ => false,
    };
    after_percent.into_iter().all(begins_a_byte)
}

/// Percent signs that do not begin a byte stay as they are.
fn decoded(text: &[u8], plus_is_space: bool) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        bytes.push(match first {
            b'+' if plus_is_space => b' ',
            b'%' => match after.split_first_chunk::<2>() {
                Some((&[high, low], after)) if hex(high).is_some() && hex(low).is_some() => {
                    rest = after;
                    hex(high).unwrap_or(0) << 4 | hex(low).unwrap_or(0)
                }
                _ => b'%',
            },
            other => other,
        });
    }
    bytes
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit)
        .to_digit(16)
        .and_then(|value| u8::try_from(value).ok())
}

/// Without `.`, `..` and empty segments, as Nginx does by default; `None` above the root.
fn in_order(path: &[u8]) -> Option<Vec<u8>> {
    let mut segments: Vec<&[u8]> = Vec::new();
    let mut ends_in_directory = true;
    for segment in path.split(|byte| *byte == b'/') {
        ends_in_directory = matches!(segment, b"" | b"." | b"..");
        match segment {
            b"" | b"." => {}
            b".." => {
                segments.pop()?;
            }
            named => segments.push(named),
        }
    }
    let mut ordered = Vec::with_capacity(path.len());
    for segment in segments {
        ordered.push(b'/');
        ordered.extend_from_slice(segment);
    }
    if ends_in_directory {
        ordered.push(b'/');
    }
    Some(ordered)
}

/// The arguments of a query, decoded and in order; `z` has no value, `q=` an empty one.
#[must_use]
pub fn arguments(query: &[u8]) -> Vec<Field> {
    query
        .split(|byte| *byte == b'&')
        .map(|argument| {
            let equals = argument.iter().position(|byte| *byte == b'=');
            let (name, value) = match equals {
                Some(at) => (&argument[..at], Some(&argument[at + 1..])),
                None => (argument, None),
            };
            Field {
                name: decoded(name, true),
                value: value.map(|value| decoded(value, true)),
            }
        })
        .filter(|argument| !argument.name.is_empty())
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        reason = "a failed expectation is the test's result"
    )]
    use super::*;

    fn path(text: &str) -> String {
        let target = Target::parse(text).unwrap();
        target.path.escape_ascii().to_string()
    }

    #[test]
    fn a_path_is_decoded_and_put_in_order() {
        for (written, expected) in [
            ("/", "/"),
            ("/a/b", "/a/b"),
            ("/a%20b%ff", "/a b\\xff"),
            ("/a%2fb", "/a/b"),
            ("/100%25", "/100%"),
            ("/a+b", "/a+b"),
            ("//a///b/", "/a/b/"),
            ("/a/./b/../c/.", "/a/c/"),
            ("/a/..", "/"),
            ("/a#part", "/a"),
            ("http://example.com", "/"),
            ("http://example.com?a=1", "/"),
            ("https://example.com:8443/a/b?c=d", "/a/b"),
        ] {
            assert_eq!(path(written), expected, "{written}");
        }
    }

    #[test]
    fn a_percent_sign_in_an_argument_stays_where_it_begins_no_byte() {
        let target = Target::parse("/x?a=100%&b=%zz%00").unwrap();
        let expected = [Field::new("a", "100%"), Field::new("b", "%zz\0")];
        assert_eq!(target.args, expected);
    }

    #[test]
    fn arguments_are_decoded_and_no_value_differs_from_an_empty_one() {
        let target = Target::parse("/x?q=&z&a=1%202+3&a=%26&=ignored&&b=c=d").unwrap();
        let none = Field {
            name: b"z".to_vec(),
            value: None,
        };
        let expected = [
            Field::new("q", ""),
            none,
            Field::new("a", "1 2 3"),
            Field::new("a", "&"),
            Field::new("b", "c=d"),
        ];
        assert_eq!(target.args, expected);
        assert_eq!(
            target.query.as_deref(),
            Some("q=&z&a=1%202+3&a=%26&=ignored&&b=c=d")
        );
    }

    #[test]
    fn a_url_names_its_scheme_and_host() {
        let target = Target::parse("https://example.com:8443/a?b").unwrap();
        assert_eq!(target.scheme.as_deref(), Some("https"));
        assert_eq!(target.authority.as_deref(), Some("example.com:8443"));
        assert_eq!(target.raw, "/a?b");
        let target = Target::parse("/redirect?to=http://elsewhere/").unwrap();
        assert_eq!(target.authority, None);
        assert_eq!(target.args, [Field::new("to", "http://elsewhere/")]);
    }

    #[test]
    fn what_no_gateway_would_take_is_refused() {
        for wrong in [
            "",
            "hello",
            "?a=1",
            "/../etc",
            "/a/../../b",
            "/%2e%2e/x",
            "/100%",
            "/%4",
            "/%zz",
            "/%00",
        ] {
            assert!(Target::parse(wrong).is_err(), "{wrong}");
        }
    }
}
