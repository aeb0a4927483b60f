//! Values that plugins leave for one another on the same request.
//!
//! A value belongs to one call: the plugins after this one in the chain read it. One that is *kept*
//! can be read by later calls of the same request too: those of `ext-plugin-post-req`, and above all
//! the response phase. Values are bytes, or anything that `serde` writes as JSON, so that plugins of
//! different builds understand each other. Nothing here outlives a request.
//!
//! All plugins of a chain share the names, so begin them with your plugin's.
//!
//! ```
//! use plugin_abi::prelude::*;
//! use std::time::SystemTime;
//!
//! #[derive(Default)]
//! struct Stopwatch;
//!
//! impl Plugin for Stopwatch {
//!     type Config = ();
//!
//!     async fn request_filter(&self, _: &(), request: &mut Request) -> Result<Action> {
//!         request.values_mut().keep("stopwatch.began", &SystemTime::now()).await?;
//!         Ok(Action::Continue)
//!     }
//!
//!     async fn response_filter(&self, _: &(), response: &mut Response) -> Result<()> {
//!         // Nothing where the request phase did not run, or its worker is gone.
//!         let began = response.values_mut().kept::<SystemTime>("stopwatch.began").await?;
//!         if let Some(began) = began {
//!             let took = began.elapsed().unwrap_or_default();
//!             response.set_header("x-took-ms", took.as_millis().to_string());
//!         }
//!         Ok(())
//!     }
//! }
//!
//! export_plugin!(Stopwatch);
//! ```

use std::fmt;

use serde::{Serialize, de::DeserializeOwned};

use crate::{
    AskError,
    abi::{CallObject, Question, ROption, ValueStatus},
    ask::ask,
    export,
};

/// The variable by which the gateway tells requests apart: a random number of 128 bits that no
/// client chooses, the same in every phase.
const REQUEST_ID: &str = "request_id";

/// Why a value could not be set or read.
#[derive(Debug)]
#[non_exhaustive]
pub enum ValueError {
    /// The call has as many values, or as many bytes of them, as the host allows: 64, and 64 KiB,
    /// names included. Nothing has changed.
    Full,
    /// The gateway does not say which request the call belongs to: nothing can be kept.
    NotLinked,
    /// The gateway could not be asked which request it is.
    Ask(AskError),
    /// The value cannot be written as JSON, or what is there is no such value.
    Json(serde_json::Error),
    /// The host gave a reason that this version of `plugin-abi` does not know.
    Other(u8),
}

impl fmt::Display for ValueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full => f.write_str("the request has too many values, or too long ones"),
            Self::NotLinked => f.write_str("the gateway does not say which request this is"),
            Self::Ask(_) => f.write_str("cannot learn which request this is"),
            Self::Json(_) => f.write_str("the value does not fit its type"),
            Self::Other(code) => write!(f, "the host refused the value with code {code}"),
        }
    }
}

impl std::error::Error for ValueError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Ask(error) => Some(error),
            Self::Json(error) => Some(error),
            Self::Full | Self::NotLinked | Self::Other(_) => None,
        }
    }
}

/// The values of a call, to be read: see the [module](self).
pub struct RequestValues<'a> {
    call: &'a CallObject,
}

impl<'a> RequestValues<'a> {
    pub(crate) fn new(call: &'a CallObject) -> Self {
        Self { call }
    }

    /// A value as it is.
    ///
    /// ```
    /// # use plugin_abi::prelude::*;
    /// fn tenant(request: &Request) -> &[u8] {
    ///     request.values().bytes("tenant").unwrap_or(b"public")
    /// }
    /// ```
    pub fn bytes(&self, name: &str) -> Option<&'a [u8]> {
        bytes(self.call, name)
    }

    /// A value that was set with [`RequestValuesMut::set`]; none where nobody has set it.
    ///
    /// ```
    /// # use plugin_abi::prelude::*;
    /// #[derive(Deserialize)]
    /// struct User { name: String }
    ///
    /// fn user(request: &Request) -> Result<User> {
    ///     let user = request.values().get("auth.user")?;
    ///     user.context("this route needs the plugin auth before this one")
    /// }
    /// ```
    ///
    /// # Errors
    /// What is there is no such value.
    pub fn get<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, ValueError> {
        parsed(self.bytes(name))
    }
}

/// The values of a call, to be changed: see the [module](self).
pub struct RequestValuesMut<'a> {
    call: &'a mut CallObject,
}

impl<'a> RequestValuesMut<'a> {
    pub(crate) fn new(call: &'a mut CallObject) -> Self {
        Self { call }
    }

    /// Sets a value for the plugins after this one in the chain. One that was kept stays so.
    ///
    /// ```
    /// # use plugin_abi::prelude::*;
    /// fn mark(request: &mut Request) -> Result<()> {
    ///     request.values_mut().set("geo.country", "se")?;
    ///     Ok(())
    /// }
    /// ```
    ///
    /// # Errors
    /// [`ValueError::Full`], or it cannot be written as JSON.
    pub fn set<T: Serialize + ?Sized>(&mut self, name: &str, value: &T) -> Result<(), ValueError> {
        self.set_bytes(name, json(value)?)
    }

    /// The same with any bytes.
    ///
    /// # Errors
    /// [`ValueError::Full`].
    pub fn set_bytes(&mut self, name: &str, value: impl Into<Vec<u8>>) -> Result<(), ValueError> {
        self.put(name, Some(value.into()), false)
    }

    /// Removes a value; one that was kept, and that this call has asked for, also for later calls of
    /// the request.
    pub fn remove(&mut self, name: &str) {
        // Removing never finds the call full.
        let _ = self.put(name, None, false);
    }

    /// Sets a value for the plugins after this one and for later calls of the same request, if this
    /// call ends well. It asks the gateway for `request_id`, once per call.
    ///
    /// # Errors
    /// See [`ValueError`].
    pub async fn keep<T: Serialize + ?Sized>(
        &mut self,
        name: &str,
        value: &T,
    ) -> Result<(), ValueError> {
        self.keep_bytes(name, json(value)?).await
    }

    /// The same with any bytes.
    ///
    /// # Errors
    /// See [`ValueError`].
    pub async fn keep_bytes(
        &mut self,
        name: &str,
        value: impl Into<Vec<u8>>,
    ) -> Result<(), ValueError> {
        self.load().await?;
        self.put(name, Some(value.into()), true)
    }

    /// A value that this call has set or an earlier one of the same request has kept; none where
    /// there is none, or it could not be kept long enough (`docs/operating.md`). It asks the gateway
    /// for `request_id`, once per call.
    ///
    /// # Errors
    /// See [`ValueError`].
    pub async fn kept<T: DeserializeOwned>(&mut self, name: &str) -> Result<Option<T>, ValueError> {
        parsed(self.kept_bytes(name).await?)
    }

    /// The same as it is.
    ///
    /// # Errors
    /// See [`ValueError`].
    pub async fn kept_bytes(&mut self, name: &str) -> Result<Option<&[u8]>, ValueError> {
        self.load().await?;
        Ok(bytes(self.call, name))
    }

    async fn load(&mut self) -> Result<(), ValueError> {
        let question = Question::Variable(REQUEST_ID.as_bytes().into());
        ask(self.call, question).await.map_err(ValueError::Ask)?;
        export::needs_values();
        done(self.call.load_values())
    }

    fn put(&mut self, name: &str, value: Option<Vec<u8>>, keep: bool) -> Result<(), ValueError> {
        export::needs_values();
        let value = ROption::from(value.map(Into::into));
        done(self.call.set_value(name.as_bytes().into(), value, keep))
    }
}

fn bytes<'a>(call: &'a CallObject, name: &str) -> Option<&'a [u8]> {
    let value = call.value(name.as_bytes().into());
    value.into_option().map(Into::into)
}

fn json<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, ValueError> {
    serde_json::to_vec(value).map_err(ValueError::Json)
}

fn parsed<T: DeserializeOwned>(value: Option<&[u8]>) -> Result<Option<T>, ValueError> {
    value
        .map(serde_json::from_slice)
        .transpose()
        .map_err(ValueError::Json)
}

fn done(status: ValueStatus) -> Result<(), ValueError> {
    match status {
        ValueStatus::DONE => Ok(()),
        ValueStatus::FULL => Err(ValueError::Full),
        ValueStatus::NOT_LINKED => Err(ValueError::NotLinked),
        ValueStatus(code) => Err(ValueError::Other(code)),
    }
}
