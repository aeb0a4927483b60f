//! What a library is built for: kernel, processor and C library, as in `linux-x86_64-gnu`.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::plugin::elf::{self, ElfError};

/// Length of a platform's name, at most, in bytes.
const MAX_BYTES: usize = 64;

/// A platform. Those that this program does not know have names too, so that a package may hold
/// libraries for them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct Platform(String);

/// Not a platform's name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no platform: write one like `linux-x86_64-gnu` or `linux-aarch64-musl`")]
pub struct UnknownPlatform(String);

impl Platform {
    /// The one that this program runs on.
    #[must_use]
    pub fn of_this_host() -> Self {
        let c_library = match cfg!(target_env = "musl") {
            true => "musl",
            false => "gnu",
        };
        Self(format!("linux-{}-{c_library}", std::env::consts::ARCH))
    }

    /// The one that a library is built for.
    ///
    /// # Errors
    /// It is no library.
    pub fn of_library(library: &[u8]) -> Result<Self, ElfError> {
        let (processor, c_library) = elf::built_for(library)?;
        Ok(Self(format!("linux-{processor}-{c_library}")))
    }
}

impl FromStr for Platform {
    type Err = UnknownPlatform;

    fn from_str(text: &str) -> Result<Self, UnknownPlatform> {
        let is_word = |word: &str| {
            let allowed =
                |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
            !word.is_empty() && word.bytes().all(allowed)
        };
        let parts: Vec<_> = text.split('-').collect();
        match parts[..] {
            ["linux", processor, "gnu" | "musl"]
                if is_word(processor) && text.len() <= MAX_BYTES =>
            {
                Ok(Self(text.to_owned()))
            }
            _ => Err(UnknownPlatform(text.chars().take(MAX_BYTES).collect())),
        }
    }
}

impl TryFrom<String> for Platform {
    type Error = UnknownPlatform;

    fn try_from(text: String) -> Result<Self, UnknownPlatform> {
        text.parse()
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
