//! Who vouches for a plugin: signatures in the format of minisign, beside what they sign.
//!
//! A signature is over one file, and that file stands for all of a plugin ([`SUFFIX`] after its name):
//! a package has everything in it, a `plugin.json` pins its library by `source.sha256`, and a library
//! without either has its facts in itself. [`judge`] takes the very bytes that are going to be loaded;
//! [`Trust`] has the operator's keys and says what becomes of which judgement. Nothing here
//! knows plugins, and nothing here reads a plugin's file.

mod keys;
mod trust;

use std::{
    fmt,
    io::Cursor,
    path::{Path, PathBuf},
    time::SystemTime,
};

use minisign::SignatureBox;
use serde::{Deserialize, Serialize};

pub use keys::{KeyError, KeyPair, MAX_KEY_BYTES, SecretKey, is_encrypted};
pub use trust::{KeysError, MAX_KEYS, Policy, Refused, Trust, TrustedKey};

/// What follows the name of the signed file.
pub const SUFFIX: &str = ".minisig";

/// Size of a signature's file, at most, in bytes.
pub const MAX_SIGNATURE_BYTES: u64 = 16 << 10;

/// What stands before the end of a signature's life, in its trusted comment.
const EXPIRES: &str = "expires:";

/// Characters of the last line, which signs signature and comment.
const GLOBAL_SIGNATURE_CHARS: usize = 88;

/// What is known of who vouches for some bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Signature {
    /// Nobody has signed them.
    Unsigned,
    /// A trusted key has signed these very bytes.
    Signed(Signer),
    /// The same, and the signature says that it no longer counts.
    Expired(Signer),
    /// A trusted key has signed other bytes, or another comment.
    Modified(Signer),
    /// Nobody who is trusted has signed anything here.
    Invalid {
        /// Why the signature is none.
        reason: String,
        /// The key that it names, where it can be read.
        key_id: Option<String>,
    },
}

/// A trusted key, and what it has signed beside the bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signer {
    /// What the operator calls the key: its file's name.
    pub name: String,
    /// Its number, as minisign prints it.
    pub key_id: String,
    /// The key itself, as minisign writes it.
    pub public_key: String,
    /// The trusted comment; of modified bytes, what it claims.
    pub comment: String,
    /// Until when the signature counts.
    pub expires: Option<SystemTime>,
}

impl Signature {
    /// Who has signed, where that is known.
    pub fn signer(&self) -> Option<&Signer> {
        match self {
            Self::Signed(signer) | Self::Expired(signer) | Self::Modified(signer) => Some(signer),
            Self::Unsigned | Self::Invalid { .. } => None,
        }
    }

    /// What it is worth now: a signature may have expired since it was judged.
    #[must_use]
    pub fn at(self, now: SystemTime) -> Self {
        match self {
            Self::Signed(signer) if signer.expires.is_some_and(|end| end <= now) => {
                Self::Expired(signer)
            }
            signature => signature,
        }
    }
}

impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unsigned => f.write_str("it is not signed"),
            Self::Signed(signer) => write!(f, "it is signed by {signer}"),
            Self::Expired(signer) => write!(
                f,
                "its signature by {signer} has expired{}",
                signer.expires.map_or_else(String::new, |end| format!(
                    " at {}",
                    humantime::format_rfc3339_seconds(end)
                ))
            ),
            Self::Modified(signer) => write!(f, "it is not what {signer} has signed"),
            Self::Invalid { reason, .. } => write!(f, "its signature does not count: {reason}"),
        }
    }
}

impl fmt::Display for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (key {})", self.name, self.key_id)
    }
}

/// Where the signature of a file is.
pub fn beside(file: &Path) -> PathBuf {
    let mut path = file.as_os_str().to_owned();
    path.push(SUFFIX);
    path.into()
}

/// A trusted comment in the manner of minisign, with what this program understands of it.
pub fn comment(file: &str, now: SystemTime, expires: Option<SystemTime>, more: &str) -> String {
    let seconds = now
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs();
    let mut comment = format!("timestamp:{seconds}\tfile:{file}");
    if let Some(end) = expires {
        let end = humantime::format_rfc3339_seconds(end);
        comment.push_str(&format!("\t{EXPIRES} {end}"));
    }
    if !more.is_empty() {
        comment.push('\t');
        comment.push_str(more);
    }
    comment
}

/// Judges a signature of these bytes; none is there where nobody has signed them.
pub fn judge(
    signed: &[u8],
    signature: Option<&[u8]>,
    trusted: &[TrustedKey],
    now: SystemTime,
) -> Signature {
    let Some(signature) = signature else {
        return Signature::Unsigned;
    };
    let (signature, comment) = match parse(signature) {
        Ok(parsed) => parsed,
        Err(reason) => {
            return Signature::Invalid {
                reason,
                key_id: None,
            };
        }
    };
    let key_id = keys::id_of(signature.keynum());
    let mut candidates = trusted
        .iter()
        .filter(|key| key.key_id() == key_id)
        .peekable();
    let Some(first) = candidates.peek() else {
        return Signature::Invalid {
            reason: format!("key {key_id} has made it, which is not among the trusted ones"),
            key_id: Some(key_id),
        };
    };
    let signer_of = |key: &TrustedKey, expires| Signer {
        name: key.name().to_owned(),
        key_id: key_id.clone(),
        public_key: key.text(),
        comment: comment.clone(),
        expires,
    };
    let modified = Signature::Modified(signer_of(first, None));
    let Some(key) = candidates.find(|key| key.has_made(&signature, signed)) else {
        return modified;
    };
    match expiry(&comment) {
        Ok(expires) => Signature::Signed(signer_of(key, expires)).at(now),
        // What was meant as an end is one: a signature does not live longer for a slip of the pen.
        Err(reason) => Signature::Invalid {
            reason,
            key_id: Some(key_id),
        },
    }
}

/// A signature and its trusted comment, which nobody vouches for yet.
fn parse(signature: &[u8]) -> Result<(SignatureBox, String), String> {
    if signature.len() as u64 > MAX_SIGNATURE_BYTES {
        return Err(format!(
            "its file has more than {MAX_SIGNATURE_BYTES} bytes"
        ));
    }
    let garbled = |error: &dyn fmt::Display| format!("its file is none of minisign's: {error}");
    let text = std::str::from_utf8(signature).map_err(|error| garbled(&error))?;
    // The library takes this to be long enough.
    let last = text.lines().nth(3).map_or(0, |line| line.trim().len());
    if last != GLOBAL_SIGNATURE_CHARS {
        return Err(garbled(&"its fourth line is no signature"));
    }
    let parsed = SignatureBox::from_string(text).map_err(|error| garbled(&error))?;
    let comment = parsed.trusted_comment().map_err(|error| garbled(&error))?;
    Ok((parsed, comment))
}

/// When a trusted comment says that the signature ends.
fn expiry(comment: &str) -> Result<Option<SystemTime>, String> {
    let mut parts = comment.split(EXPIRES);
    // What stands before it.
    parts.next();
    let (Some(end), None) = (parts.next(), parts.next()) else {
        return match comment.contains(EXPIRES) {
            true => Err(format!("its comment has several `{EXPIRES}`")),
            false => Ok(None),
        };
    };
    let end = end
        .trim_start()
        .split(char::is_whitespace)
        .next()
        .unwrap_or_default();
    match humantime::parse_rfc3339(end) {
        Ok(end) => Ok(Some(end)),
        Err(_) => Err(format!(
            "`{EXPIRES} {}` in its comment is no time such as 2030-01-31T12:00:00Z",
            end.escape_debug()
        )),
    }
}

impl TrustedKey {
    fn has_made(&self, signature: &SignatureBox, of: &[u8]) -> bool {
        let (quiet, output, allow_legacy) = (true, false, true);
        minisign::verify(
            self.key(),
            signature,
            Cursor::new(of),
            quiet,
            output,
            allow_legacy,
        )
        .is_ok()
    }
}

#[cfg(test)]
mod tests;
