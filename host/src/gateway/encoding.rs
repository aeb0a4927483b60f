//! Bytes for the places of an HTTP message that cannot hold all of them, as Nginx writes them.

use crate::client::Field;

/// A path: everything that would end it, or is no readable ASCII, becomes `%XX`; so does `%`.
pub(super) fn path(path: &[u8]) -> String {
    percent(path, |byte| {
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
    let written: Vec<_> = arguments
        .iter()
        .map(|argument| match &argument.value {
            Some(value) => format!("{}={}", component(&argument.name), component(value)),
            None => component(&argument.name),
        })
        .collect();
    written.join("&")
}

/// A header's value: what would end the line becomes `%XX`.
pub(super) fn header_value(value: &[u8]) -> Vec<u8> {
    let mut written = Vec::with_capacity(value.len());
    for &byte in value {
        if byte.is_ascii_control() && byte != b'\t' {
            written.extend_from_slice(format!("%{byte:02X}").as_bytes());
        } else {
            written.push(byte);
        }
    }
    written
}

fn percent(bytes: &[u8], stays: impl Fn(u8) -> bool) -> String {
    let mut written = String::with_capacity(bytes.len());
    for &byte in bytes {
        if stays(byte) {
            written.push(char::from(byte));
        } else {
            written.push_str(&format!("%{byte:02X}"));
        }
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_keeps_its_slashes_and_loses_what_would_end_it() {
        assert_eq!(path(b"/a b/?c=%d&e\xff+:@"), "/a%20b/%3Fc=%25d&e%FF+:@");
    }

    #[test]
    fn arguments_are_written_with_their_values_or_alone() {
        let none = Field {
            name: b"z".to_vec(),
            value: None,
        };
        let arguments = [Field::new("a b", b"&=/\xff"), none, Field::new("e", "")];
        assert_eq!(query(&arguments), "a%20b=%26%3D%2F%FF&z&e=");
    }

    #[test]
    fn a_header_value_stays_on_its_line() {
        assert_eq!(header_value(b"a\r\nB: c\t\xff"), b"a%0D%0AB: c\t\xff");
    }
}
