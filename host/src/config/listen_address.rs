//! The address that the gateway's workers connect to: a Unix socket's path.
//!
//! A value exists only if the path can be bound as it is. This module never touches the file
//! system.

use std::fmt;
use std::path::{Path, PathBuf};

/// Most bytes of a Unix socket's path on Linux; the 108th of `sun_path` is its final NUL.
pub const MAX_PATH_BYTES: usize = 107;

/// An absolute path of at most [`MAX_PATH_BYTES`] bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenAddress(PathBuf);

impl ListenAddress {
    /// Reads an address as the gateway writes it, `unix:/absolute/path`; without `unix:` too.
    ///
    /// # Errors
    /// The reason, in words that follow the name of the source.
    pub fn parse(text: &str) -> Result<Self, String> {
        let path = text.strip_prefix("unix:").unwrap_or(text);
        if !path.starts_with('/') {
            return Err(format!(
                "`{text}` is not the absolute path of a Unix socket, such as unix:/run/runner.sock"
            ));
        }
        if path.ends_with('/') || path.contains('\0') {
            return Err(format!("`{}` does not name a file", text.escape_default()));
        }
        if path.len() > MAX_PATH_BYTES {
            return Err(format!(
                "`{text}` has {} bytes of path, and a Unix socket's path has at most {MAX_PATH_BYTES}; choose a shorter one",
                path.len()
            ));
        }
        Ok(Self(PathBuf::from(path)))
    }

    /// The path of the socket file.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "unix:{}", self.0.display())
    }
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        reason = "a failed expectation is the test's result"
    )]
    use super::*;

    #[test]
    fn an_address_is_read_with_and_without_its_prefix() {
        for text in ["unix:/run/runner.sock", "/run/runner.sock"] {
            let address = ListenAddress::parse(text).unwrap();
            assert_eq!(address.path(), Path::new("/run/runner.sock"));
            assert_eq!(address.to_string(), "unix:/run/runner.sock");
        }
    }

    #[test]
    fn what_is_no_absolute_path_is_refused() {
        for text in [
            "",
            "unix:",
            "runner.sock",
            "unix:runner.sock",
            "tcp:127.0.0.1:80",
        ] {
            let reason = ListenAddress::parse(text).unwrap_err();
            assert!(reason.contains("not the absolute path"), "{reason}");
        }
        assert!(ListenAddress::parse("/run/").is_err());
        assert!(ListenAddress::parse("/run/a\0b").is_err());
    }

    #[test]
    fn a_path_of_107_bytes_is_taken_and_one_of_108_is_refused() {
        let longest = format!("/{}", "x".repeat(106));
        assert!(ListenAddress::parse(&longest).is_ok());
        let reason = ListenAddress::parse(&format!("unix:{longest}x")).unwrap_err();
        assert!(reason.contains("has 108 bytes"), "{reason}");
    }
}
