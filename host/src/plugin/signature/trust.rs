//! Whom the operator trusts, and what becomes of plugins that nobody trusted has signed.
//!
//! Keys are read when something is judged, so that one that is added or taken away counts from
//! then on. Nothing is loaded because keys cannot be read: where signatures are required, it is refused.

use std::{
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
    time::SystemTime,
};

use minisign::{PublicKey, PublicKeyBox};

use super::{MAX_KEY_BYTES, Signature, Signer, judge, keys::id_of};

/// Trusted keys, at most.
pub const MAX_KEYS: usize = 256;

/// What the names of public keys end with, after a dot.
const EXTENSION: &str = "pub";

/// What becomes of a plugin without a signature that counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Policy {
    /// Nobody looks at signatures.
    #[default]
    Off,
    /// It is loaded, with a warning.
    Warn,
    /// It is not loaded.
    Require,
}

/// The operator's policy, and the keys that it goes by.
#[derive(Debug, Clone, Default)]
pub struct Trust {
    policy: Policy,
    directory: PathBuf,
}

/// A public key of somebody whom the operator trusts.
#[derive(Debug, Clone)]
pub struct TrustedKey {
    name: String,
    key: PublicKey,
}

/// The keys cannot be read: the operator's fault.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// The directory or a file cannot be read.
    #[error("{}: {source}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A file is no public key.
    #[error("{}: it is no public key of minisign's: {reason}", path.display())]
    NoKey {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// There are more than [`MAX_KEYS`].
    #[error("{}: it has more than {MAX_KEYS} keys", .0.display())]
    TooMany(PathBuf),
    /// There is none.
    #[error("{}: it has no key; put public keys there whose names end with .{EXTENSION}", .0.display())]
    None(PathBuf),
}

/// Nobody who is trusted vouches for it: the operator decides.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("signatures are required, and {0}")]
pub struct Refused(pub Signature);

impl Refused {
    /// What to do about it.
    #[must_use]
    pub fn next_step(&self) -> String {
        match &self.0 {
            Signature::Unsigned => {
                "get its signature, or sign it with `plugin-host sign` and a trusted key".to_owned()
            }
            Signature::Expired(_) => {
                "get a newer version, or have this one signed anew".to_owned()
            }
            Signature::Modified(_) => {
                "get it again, together with the signature that belongs to it".to_owned()
            }
            Signature::Signed(_) | Signature::Invalid { .. } => {
                "get it from somebody who is trusted, or put the key of who has signed it among the \
                 trusted ones"
                    .to_owned()
            }
        }
    }
}

impl Trust {
    /// With this policy, and the public keys in a directory.
    #[must_use]
    pub fn new(policy: Policy, directory: &Path) -> Self {
        Self {
            policy,
            directory: directory.to_owned(),
        }
    }

    /// Nobody looks at signatures.
    #[must_use]
    pub fn off() -> Self {
        Self::default()
    }

    /// The policy.
    #[must_use]
    pub fn policy(&self) -> Policy {
        self.policy
    }

    /// Whether signatures are looked at.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.policy != Policy::Off
    }

    /// The keys as they are now.
    ///
    /// # Errors
    /// They cannot be read, one of them is none, or there is none.
    pub fn keys(&self) -> Result<Vec<TrustedKey>, KeysError> {
        TrustedKey::all_in(&self.directory)
    }

    /// The directory and the files that say whom the operator trusts; none where nobody asks.
    #[must_use]
    pub fn places(&self) -> Vec<PathBuf> {
        if !self.is_on() {
            return Vec::new();
        }
        let files = key_files(&self.directory).unwrap_or_default();
        [vec![self.directory.clone()], files].concat()
    }

    /// Judges a signature of these bytes by the keys as they are now.
    #[must_use]
    pub fn judge(&self, signed: &[u8], signature: Option<&[u8]>) -> Signature {
        match self.keys() {
            Ok(keys) => judge(signed, signature, &keys, SystemTime::now()),
            Err(error) => Signature::Invalid {
                reason: format!("the trusted keys cannot be used: {error}"),
                key_id: None,
            },
        }
    }

    /// Whether something with this signature may be loaded.
    ///
    /// # Errors
    /// The operator wants signatures, and it has none that counts.
    pub fn admit(&self, signature: &Signature) -> Result<(), Refused> {
        match (self.policy, signature) {
            (Policy::Off | Policy::Warn, _) | (Policy::Require, Signature::Signed(_)) => Ok(()),
            (Policy::Require, signature) => Err(Refused(signature.clone())),
        }
    }

    /// Whether something may be loaded, now or again, that was judged some time ago and has not changed
    /// since: whoever has signed it must be trusted still. That the signature has expired meanwhile
    /// keeps nothing out that has been let in.
    ///
    /// # Errors
    /// The operator wants signatures, and it has none that counts.
    pub fn admit_judged(&self, signature: Option<&Signature>) -> Result<(), Refused> {
        let signature = signature.unwrap_or(&Signature::Unsigned);
        self.admit(signature)?;
        match signature {
            Signature::Signed(signer) if self.policy == Policy::Require && !self.knows(signer) => {
                Err(Refused(Signature::Invalid {
                    reason: format!("{signer} has made it, which is no longer trusted"),
                    key_id: Some(signer.key_id.clone()),
                }))
            }
            _ => Ok(()),
        }
    }

    fn knows(&self, signer: &Signer) -> bool {
        let keys = self.keys().unwrap_or_default();
        keys.iter().any(|key| key.text() == signer.public_key)
    }
}

impl TrustedKey {
    /// Reads a public key's file, which gives it its name.
    ///
    /// # Errors
    /// It cannot be read, or is none.
    pub fn read(path: &Path) -> Result<Self, KeysError> {
        let unreadable = |source| KeysError::Read {
            path: path.to_owned(),
            source,
        };
        let no_key = |reason: String| KeysError::NoKey {
            path: path.to_owned(),
            reason,
        };
        let mut text = String::new();
        let file = File::open(path).map_err(unreadable)?;
        file.take(MAX_KEY_BYTES + 1)
            .read_to_string(&mut text)
            .map_err(unreadable)?;
        if text.len() as u64 > MAX_KEY_BYTES {
            return Err(no_key(format!("it has more than {MAX_KEY_BYTES} bytes")));
        }
        let key = PublicKeyBox::from_string(&text)
            .and_then(PublicKeyBox::into_public_key)
            .map_err(|error| no_key(error.to_string()))?;
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        Ok(Self {
            name: name.into_owned(),
            key,
        })
    }

    /// Reads the public keys in a directory: the files whose names end with `.pub`.
    ///
    /// # Errors
    /// They cannot be read, one of them is none, or there is none.
    pub fn all_in(directory: &Path) -> Result<Vec<Self>, KeysError> {
        let paths = key_files(directory)?;
        let keys = paths.iter().map(|path| Self::read(path));
        let keys = keys.collect::<Result<Vec<_>, _>>()?;
        match keys.is_empty() {
            true => Err(KeysError::None(directory.to_owned())),
            false => Ok(keys),
        }
    }

    /// What the operator calls it: its file's name, without the ending.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its number, as minisign prints it.
    pub fn key_id(&self) -> String {
        id_of(self.key.keynum())
    }

    /// The key in one line.
    pub(super) fn text(&self) -> String {
        self.key.to_base64()
    }

    pub(super) fn key(&self) -> &PublicKey {
        &self.key
    }
}

/// Every file in a directory that should be a public key, by name.
fn key_files(directory: &Path) -> Result<Vec<PathBuf>, KeysError> {
    let failed = |source| KeysError::Read {
        path: directory.to_owned(),
        source,
    };
    let mut paths = Vec::new();
    for entry in fs::read_dir(directory).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let is_hidden = path
            .file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with('.'));
        if !is_hidden
            && path
                .extension()
                .is_some_and(|extension| extension == EXTENSION)
        {
            paths.push(path);
        }
        if paths.len() > MAX_KEYS {
            return Err(KeysError::TooMany(directory.to_owned()));
        }
    }
    paths.sort();
    Ok(paths)
}
