//! Keys as minisign writes them: making them, opening them with a password, and signing. Nothing here
//! asks for a password, or reads a file.

use std::{fmt, io::Cursor};

use minisign::{PublicKey, SecretKeyBox};

/// Size of a key's file, at most, in bytes.
pub const MAX_KEY_BYTES: u64 = 4 << 10;

/// How the line of a secret key begins that a password protects: its algorithms, in Base64.
const ENCRYPTED: &str = "RWRTY0Iy";

/// Comment of secret keys' files.
const COMMENT: &str = "minisign secret key";

/// Comment of signatures' files, which anybody could change.
const UNTRUSTED: &str = "signature from plugin-host";

/// A key is no key, or does not open.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct KeyError(String);

/// A key that signs.
pub struct SecretKey {
    secret: minisign::SecretKey,
    public: PublicKey,
}

/// A new key, as the two files that hold it.
pub struct KeyPair {
    /// The secret one, encrypted where a password was given.
    pub secret: String,
    /// The public one, for everybody.
    pub public: String,
    /// Its number.
    pub key_id: String,
}

impl KeyPair {
    /// Makes a new key. With a password, opening it takes a second of computing.
    ///
    /// # Errors
    /// The system has no random numbers.
    pub fn generate(password: Option<&str>) -> Result<Self, KeyError> {
        let pair = match password {
            Some(password) => {
                minisign::KeyPair::generate_encrypted_keypair(Some(password.to_owned()))
            }
            None => minisign::KeyPair::generate_unencrypted_keypair(),
        };
        let pair = pair.map_err(wrong)?;
        let secret = pair.sk.to_box(Some(COMMENT)).map_err(wrong)?;
        Ok(Self {
            secret: secret.into_string(),
            public: pair.pk.to_box().map_err(wrong)?.into_string(),
            key_id: id_of(pair.pk.keynum()),
        })
    }
}

/// Whether a password opens this secret key.
pub fn is_encrypted(secret: &str) -> bool {
    secret
        .lines()
        .nth(1)
        .is_some_and(|line| line.starts_with(ENCRYPTED))
}

impl SecretKey {
    /// Opens a secret key; with the password, where it has one.
    ///
    /// # Errors
    /// It is none, or the password is another.
    pub fn open(secret: &str, password: Option<String>) -> Result<Self, KeyError> {
        let boxed = SecretKeyBox::from_string(secret).map_err(wrong)?;
        let secret = match (is_encrypted(secret), password) {
            (false, _) => boxed.into_unencrypted_secret_key(),
            (true, Some(password)) => boxed.into_secret_key(Some(password)),
            (true, None) => return Err(KeyError("the key has a password".to_owned())),
        };
        let secret = secret.map_err(wrong)?;
        let public = PublicKey::from_secret_key(&secret).map_err(wrong)?;
        Ok(Self { secret, public })
    }

    /// The number of the key.
    pub fn key_id(&self) -> String {
        id_of(self.public.keynum())
    }

    /// Signs bytes together with a comment; gives the signature's file.
    ///
    /// # Errors
    /// The comment has several lines, or the system no random numbers.
    pub fn sign(&self, bytes: &[u8], comment: &str) -> Result<String, KeyError> {
        if comment.contains(['\n', '\r']) || comment.trim() != comment {
            let reason = "a comment is one line, without spaces at its ends";
            return Err(KeyError(reason.to_owned()));
        }
        let signed = minisign::sign(
            Some(&self.public),
            &self.secret,
            Cursor::new(bytes),
            Some(comment),
            Some(UNTRUSTED),
        );
        Ok(signed.map_err(wrong)?.into_string())
    }
}

impl fmt::Debug for SecretKey {
    /// The number only.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SecretKey").field(&self.key_id()).finish()
    }
}

impl fmt::Debug for KeyPair {
    /// The number only.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("KeyPair").field(&self.key_id).finish()
    }
}

/// A key's number as minisign prints it.
pub(super) fn id_of(number: &[u8]) -> String {
    let bytes = <[u8; 8]>::try_from(number).unwrap_or_default();
    format!("{:016X}", u64::from_le_bytes(bytes))
}

fn wrong(error: minisign::PError) -> KeyError {
    KeyError(error.to_string())
}
