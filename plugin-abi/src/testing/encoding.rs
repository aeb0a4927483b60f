//! Paths and queries between what travels and what plugins see, as the gateway takes them apart and
//! puts them together again.

use super::fields::Field;

/// A path for a request line: what would end it, or is no readable ASCII, becomes `%XX`; so does `%`.
pub(super) fn path(decoded: &[u8]) -> String {
    percent(decoded, |byte| {
        byte.is_ascii_graphic() && !b"\"#%<>?\\^`{|}".contains(&byte)
    })
}

/// A query of decoded arguments; one without value is its name alone.
pub(super) fn query(arguments: &[Field]) -> String {
    let component = |text: &[u8]| {
        percent(text, |byte| {
            byte.is_ascii_alphanumeric() || b"-._~!*'()".contains(&byte)
        })
    };
    let written = arguments.iter().map(|argument| match &argument.value {
        Some(value) => format!("{}={}", component(&argument.name), component(value)),
        None => component(&argument.name),
    });
    written.collect::<Vec<_>>().join("&")
}

/// A header's value: what would end the line is written as `%XX`.
pub(super) fn header_value(value: &[u8]) -> Vec<u8> {
    let mut written = Vec::with_capacity(value.len());
    for byte in value {
        match byte.is_ascii_control() && *byte != b'\t' {
            true => written.extend(format!("%{byte:02X}").bytes()),
            false => written.push(*byte),
        }
    }
    written
}

/// The arguments of a query, decoded.
pub(super) fn arguments(query: &str) -> Vec<Field> {
    let decode = |text: &str| decoded(text.replace('+', " ").as_bytes());
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

fn percent(bytes: &[u8], stays: impl Fn(u8) -> bool) -> String {
    let mut written = String::with_capacity(bytes.len());
    for &byte in bytes {
        match stays(byte) {
            true => written.push(char::from(byte)),
            false => written.push_str(&format!("%{byte:02X}")),
        }
    }
    written
}

/// Percent signs that begin no byte stay as they are.
pub(super) fn decoded(text: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        let byte = after
            .first_chunk::<2>()
            .filter(|_| first == b'%')
            .and_then(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?));
        if byte.is_some() {
            rest = &after[2..];
        }
        bytes.push(byte.unwrap_or(first));
    }
    bytes
}

fn digit(digit: u8) -> Option<u8> {
    let digit = char::from(digit).to_digit(16)?;
    u8::try_from(digit).ok()
}

/// A path as plugins see it: decoded, without dots and doubled slashes; none above the root.
pub(super) fn normal_path(encoded: &str) -> Option<Vec<u8>> {
    let decoded = decoded(encoded.as_bytes());
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
        let taken = arguments("a+b=%26%3D/%ff&z&&=no&e=&f=100%&g=%zz%4");
        assert_eq!(taken[0], Field::new("a b", b"&=/\xff"));
        assert_eq!(
            (taken[1].value.as_ref(), taken[2].value()),
            (None, &b""[..])
        );
        assert_eq!(
            taken[3..],
            [Field::new("f", "100%"), Field::new("g", "%zz%4")]
        );
        assert_eq!(query(&taken[..3]), "a%20b=%26%3D%2F%FF&z&e=");
    }

    #[test]
    fn a_header_value_stays_on_its_line() {
        assert_eq!(header_value(b"a\r\nB: c\t\xff"), b"a%0D%0AB: c\t\xff");
    }
}
