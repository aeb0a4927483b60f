//! Whether whoever asks over the network may: by the operator's token, or by a session that it was
//! given for.
//!
//! A browser sends what it has to whoever names this host, so its word alone counts for nothing: the
//! name that it was asked under has to be one of this machine's own (else somebody else's name may
//! lead here), and a page's origin has to be this host itself.

use std::{
    fs::File,
    io::{self, Read},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use axum::http::{HeaderMap, Method, StatusCode, header};
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::{caller::Proof, problem::Refused};

/// Characters that a token has at least: guessing must be hopeless.
pub const MIN_TOKEN_CHARACTERS: usize = 16;

/// Bytes of the token's file, at most.
pub const MAX_TOKEN_BYTES: u64 = 4_096;

/// Browsers that are signed in at a time; the one that was first makes room.
pub const MAX_SESSIONS: usize = 64;

/// How long a browser stays signed in.
pub const SESSION_TIME: Duration = Duration::from_secs(12 * 3_600);

/// Random bytes of a session.
const SESSION_BYTES: usize = 32;

/// The token's file cannot be used: the operator's fault.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// It cannot be read.
    #[error("{}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Others than the host's user could read it.
    #[error(
        "{} (mode {mode:04o}, of user {owner}) can be read or changed by others: chmod 600, and give \
         it to the host's user or root",
        path.display()
    )]
    OpenToOthers {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
        /// Its owner.
        owner: u32,
    },
    /// It holds no token.
    #[error(
        "{} does not hold a token: one line of at least {MIN_TOKEN_CHARACTERS} visible characters, \
         as from `openssl rand -hex 32`",
        path.display()
    )]
    NoToken {
        /// The file.
        path: PathBuf,
    },
}

/// Lets in who may.
#[derive(Debug)]
pub struct Access {
    /// Of the token; comparing digests tells nobody how much of a guess was right.
    token: [u8; 32],
    /// Name of the cookie: browsers do not tell ports apart.
    cookie: String,
    sessions: Mutex<Vec<Session>>,
}

#[derive(Debug)]
struct Session {
    digest: [u8; 32],
    until: Instant,
}

impl Access {
    /// Reads the token of an interface on this port.
    ///
    /// # Errors
    /// See [`TokenError`].
    pub fn read(path: &Path, port: u16) -> Result<Self, TokenError> {
        let unreadable = |source| TokenError::Unreadable {
            path: path.to_owned(),
            source,
        };
        let file = File::open(path).map_err(unreadable)?;
        let metadata = file.metadata().map_err(unreadable)?;
        let (mode, owner) = (metadata.mode() & 0o777, metadata.uid());
        let is_trusted = owner == 0 || owner == rustix::process::geteuid().as_raw();
        if mode & 0o077 != 0 || !is_trusted {
            return Err(TokenError::OpenToOthers {
                path: path.to_owned(),
                mode,
                owner,
            });
        }
        let mut text = String::new();
        file.take(MAX_TOKEN_BYTES)
            .read_to_string(&mut text)
            .map_err(unreadable)?;
        let token = text.trim();
        let is_token = token.len() >= MIN_TOKEN_CHARACTERS
            && token.bytes().all(|byte| byte.is_ascii_graphic());
        if !is_token {
            return Err(TokenError::NoToken {
                path: path.to_owned(),
            });
        }
        Ok(Self {
            token: Sha256::digest(token).into(),
            cookie: format!("plugin-host-{port}"),
            sessions: Mutex::default(),
        })
    }

    /// Checks under which name and from which page it was asked, and what the request brings.
    ///
    /// # Errors
    /// Nobody may ask so: 403; or whoever asks has to sign in first: 401.
    pub fn check(&self, method: &Method, headers: &HeaderMap) -> Result<Proof, Refused> {
        if let Some(token) = bearer(headers) {
            return match self.is_token(token) {
                true => Ok(Proof::Token),
                false => Err(unauthorized(
                    "the token is not the one in --control-token-file",
                )),
            };
        }
        let session = self.session_of(headers);
        if !session.is_some_and(|session| self.is_session(session)) {
            return Err(unauthorized(
                "send the token as `Authorization: Bearer ...`, or sign in with it at /v1/session",
            ));
        }
        // A browser names the origin of whatever changes something.
        if !method.is_safe() && !headers.contains_key(header::ORIGIN) {
            return Err(forbidden(
                "a session is for browsers, which say where a request comes from (Origin)",
            ));
        }
        Ok(Proof::Session)
    }

    /// Whether this is the token.
    pub fn is_token(&self, token: &str) -> bool {
        let digest: [u8; 32] = Sha256::digest(token).into();
        digest.ct_eq(&self.token).into()
    }

    /// Begins a session; gives the cookie for it.
    ///
    /// # Errors
    /// The system has no random bytes.
    pub fn sign_in(&self) -> io::Result<String> {
        let mut bytes = [0; SESSION_BYTES];
        rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
        let session: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let mut sessions = self.sessions.lock();
        let now = Instant::now();
        sessions.retain(|session| session.until > now);
        if sessions.len() >= MAX_SESSIONS {
            sessions.remove(0);
        }
        sessions.push(Session {
            digest: Sha256::digest(&session).into(),
            until: now + SESSION_TIME,
        });
        Ok(self.cookie(&session, SESSION_TIME))
    }

    /// Ends the session that the request brings; gives what makes the browser forget it.
    pub fn sign_out(&self, headers: &HeaderMap) -> String {
        if let Some(session) = self.session_of(headers) {
            let digest: [u8; 32] = Sha256::digest(session).into();
            self.sessions
                .lock()
                .retain(|session| session.digest != digest);
        }
        self.cookie("", Duration::ZERO)
    }

    fn cookie(&self, value: &str, time: Duration) -> String {
        format!(
            "{}={value}; Path=/; HttpOnly; SameSite=Strict; Max-Age={}",
            self.cookie,
            time.as_secs()
        )
    }

    fn session_of<'a>(&self, headers: &'a HeaderMap) -> Option<&'a str> {
        let cookies = headers.get_all(header::COOKIE).iter();
        cookies
            .filter_map(|cookies| cookies.to_str().ok())
            .flat_map(|cookies| cookies.split(';'))
            .find_map(|cookie| cookie.trim().strip_prefix(&self.cookie)?.strip_prefix('='))
    }

    fn is_session(&self, session: &str) -> bool {
        let digest: [u8; 32] = Sha256::digest(session).into();
        let now = Instant::now();
        let sessions = self.sessions.lock();
        let mut known = sessions.iter().filter(|session| session.until > now);
        known.any(|known| known.digest.ct_eq(&digest).into())
    }
}

/// Checks that a request was meant for this host by whoever sent it: under a name that can only be this
/// machine's, and from no page of somebody else's.
///
/// # Errors
/// It was not: 403.
pub fn check_names(headers: &HeaderMap) -> Result<(), Refused> {
    let text = |name| {
        let value: Option<&axum::http::HeaderValue> = headers.get(name);
        value.map(|value| value.to_str().unwrap_or_default())
    };
    let host = text(header::HOST).unwrap_or_default();
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    if !["localhost", "127.0.0.1", "[::1]"].contains(&name) {
        return Err(forbidden(
            "this host answers to localhost, 127.0.0.1 and [::1] only (Host)",
        ));
    }
    match text(header::ORIGIN) {
        Some(origin) if origin != format!("http://{host}") => Err(forbidden(
            "a page of somebody else's may ask for nothing here (Origin)",
        )),
        _ => Ok(()),
    }
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

fn unauthorized(detail: &str) -> Refused {
    Refused::new(StatusCode::UNAUTHORIZED, detail)
}

fn forbidden(detail: &str) -> Refused {
    Refused::new(StatusCode::FORBIDDEN, detail)
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        reason = "a failed expectation is the test's result"
    )]
    use std::{fs, os::unix::fs::PermissionsExt};

    use super::*;

    fn access(text: &str, mode: u32) -> Result<Access, TokenError> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        Access::read(&path, 9_000)
    }

    fn headers(fields: &[(header::HeaderName, &str)]) -> HeaderMap {
        let fields = fields.iter().cloned();
        fields
            .map(|(name, value)| (name, value.parse().unwrap()))
            .collect()
    }

    #[test]
    fn a_token_that_others_can_read_or_that_is_short_is_refused() {
        let long = "0123456789abcdef";
        for mode in [0o640, 0o604, 0o620] {
            let error = access(long, mode).unwrap_err();
            assert!(matches!(error, TokenError::OpenToOthers { .. }), "{error}");
        }
        for text in [
            "",
            "0123456789abcde\n",
            "0123456789 abcdef",
            "0123456789abcdeé",
        ] {
            let error = access(text, 0o600).unwrap_err();
            assert!(matches!(error, TokenError::NoToken { .. }), "{error}");
        }
        assert!(
            access("\n 0123456789abcdef\n", 0o400)
                .unwrap()
                .is_token(long)
        );
    }

    #[test]
    fn sessions_beyond_the_bound_end_the_oldest_and_signing_out_ends_one() {
        let access = access("0123456789abcdef", 0o600).unwrap();
        let cookies: Vec<String> = (0..=MAX_SESSIONS)
            .map(|_| access.sign_in().unwrap())
            .collect();
        let with = |cookie: &str| {
            let pair = cookie.split(';').next().unwrap();
            headers(&[(header::COOKIE, &format!("other=1; {pair}"))])
        };
        let may = |cookie: &str| access.check(&Method::GET, &with(cookie)).is_ok();
        assert!(!may(&cookies[0]) && may(&cookies[1]) && may(&cookies[MAX_SESSIONS]));
        assert!(access.sign_out(&with(&cookies[1])).contains("Max-Age=0"));
        assert!(!may(&cookies[1]) && may(&cookies[2]));
    }

    #[test]
    fn only_names_of_this_machine_and_pages_of_this_host_may_ask() {
        let ask = |host: &str, origin: Option<&str>| {
            let mut fields = vec![(header::HOST, host)];
            fields.extend(origin.map(|origin| (header::ORIGIN, origin)));
            check_names(&headers(&fields)).is_ok()
        };
        assert!(ask("localhost:9000", None) && ask("[::1]:9000", None) && ask("127.0.0.1", None));
        assert!(ask("localhost:9000", Some("http://localhost:9000")));
        for origin in [
            "http://localhost:3000",
            "https://localhost:9000",
            "http://evil.example",
            "null",
        ] {
            assert!(!ask("localhost:9000", Some(origin)), "{origin}");
        }
        for host in [
            "",
            "evil.example:9000",
            "127.0.0.1.evil.example",
            "localhost@evil:1",
        ] {
            assert!(!ask(host, None), "{host}");
        }
    }
}
