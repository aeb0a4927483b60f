//! Paths and queries between what travels and what plugins see, as the gateway takes them apart and
//! puts them together again.

use percent_encoding::{AsciiSet, CONTROLS, NON_ALPHANUMERIC, percent_decode, percent_encode};

use super::fields::Field;

/// What would end a path, or is no readable ASCII; a percent sign of a decoded path is itself.
const IN_PATH: AsciiSet = CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'%')
    .add(b'<')
    .add(b'>')
    .add(b'?')
    .add(b'\\')
    .add(b'^')
    .add(b'`')
    .add(b'{')
    .add(b'|')
    .add(b'}');

const IN_QUERY: AsciiSet = NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b'!')
    .remove(b'*')
    .remove(b'\'')
    .remove(b'(')
    .remove(b')');

const IN_HEADER: AsciiSet = CONTROLS.remove(b'\t');

/// A path for a request line.
pub(super) fn path(decoded: &[u8]) -> String {
    percent_encode(decoded, &IN_PATH).to_string()
}

/// A query of decoded arguments; one without value is its name alone.
pub(super) fn query(arguments: &[Field]) -> String {
    let written = arguments.iter().map(|argument| {
        let name = percent_encode(&argument.name, &IN_QUERY);
        match &argument.value {
            Some(value) => format!("{name}={}", percent_encode(value, &IN_QUERY)),
            None => name.to_string(),
        }
    });
    written.collect::<Vec<_>>().join("&")
}

/// A header's value: what would end the line is written as `%XX`.
pub(super) fn header_value(value: &[u8]) -> Vec<u8> {
    let mut written = Vec::with_capacity(value.len());
    for byte in value {
        let ends_the_line = byte.is_ascii_control() && *byte != b'\t';
        match ends_the_line {
            true => written.extend(percent_encode(&[*byte], &IN_HEADER).to_string().bytes()),
            false => written.push(*byte),
        }
    }
    written
}

/// The arguments of a query, decoded.
pub(super) fn arguments(query: &str) -> Vec<Field> {
    let decode = |text: &str| percent_decode(text.replace('+', " ").as_bytes()).collect();
    query
        .split('&')
        .map(|part| match part.split_once('=') {
            Some((name, value)) => Field {
                name: decode(name),
                value: Some(decode(value)),
            },
            None => Field {
                name: decode(part),
                value: None,
            },
        })
        .filter(|argument: &Field| !argument.name.is_empty())
        .collect()
}

/// A path as plugins see it: decoded, without dots and doubled slashes; none above the root.
pub(super) fn normal_path(encoded: &str) -> Option<Vec<u8>> {
    let decoded: Vec<u8> = percent_decode(encoded.as_bytes()).collect();
    let mut segments: Vec<&[u8]> = Vec::new();
    let mut ends_in_directory = true;
    for segment in decoded.split(|byte| *byte == b'/') {
        ends_in_directory = matches!(segment, b"" | b"." | b"..");
        match segment {
            b"" | b"." => {}
            b".." => {
                segments.pop()?;
            }
            segment => segments.push(segment),
        }
    }
    let mut path = b"/".to_vec();
    path.extend(segments.join(&b'/'));
    if ends_in_directory && !segments.is_empty() {
        path.push(b'/');
    }
    Some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_decoded_and_put_in_order_and_encoded_again() {
        for (travels, seen) in [
            ("/", "/"),
            ("/a%20b/./c//d/../e/", "/a b/c/e/"),
            ("/a/..", "/"),
            ("/%3Fx", "/?x"),
        ] {
            assert_eq!(normal_path(travels).as_deref(), Some(seen.as_bytes()));
        }
        assert_eq!(normal_path("/../a"), None);
        assert_eq!(path(b"/a b/?c=%d&e\xff+:@"), "/a%20b/%3Fc=%25d&e%FF+:@");
    }

    #[test]
    fn arguments_are_taken_apart_and_put_together() {
        let taken = arguments("a+b=%26%3D/%ff&z&&=no&e=");
        assert_eq!(taken[0], Field::new("a b", b"&=/\xff"));
        assert_eq!(
            (taken[1].value.as_ref(), taken[2].value()),
            (None, &b""[..])
        );
        assert_eq!(query(&taken), "a%20b=%26%3D%2F%FF&z&e=");
    }

    #[test]
    fn a_header_value_stays_on_its_line() {
        assert_eq!(header_value(b"a\r\nB: c\t\xff"), b"a%0D%0AB: c\t\xff");
    }
}
