//! What one generation of a plugin leaves to the next: so that a limiter keeps its buckets and a
//! cache stays warm when the plugin is upgraded, rolled back, or its worker process replaced.
//!
//! A state is bytes and the number of their format, which is yours to choose: the one who reads it
//! may be another version of the plugin, older ones included. See
//! [`Plugin::save_state`](crate::Plugin::save_state).

use anyhow::{Result, ensure};
use serde::{Serialize, de::DeserializeOwned};

use crate::abi::StateBlob;

/// A plugin's state, or that of one of its configurations, on its way to the next generation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    version: u32,
    data: Vec<u8>,
}

impl State {
    /// A state in the plugin's own format of this number.
    pub fn from_bytes(version: u32, data: impl Into<Vec<u8>>) -> Self {
        Self {
            version,
            data: data.into(),
        }
    }

    /// A state as JSON; the number is that of the type's shape.
    ///
    /// ```
    /// use plugin_abi::{State, prelude::*};
    ///
    /// # fn main() -> Result<()> {
    /// let state = State::json(1, &["ada", "grace"])?;
    /// let names: Vec<String> = state.read(1)?;
    /// assert_eq!(names, ["ada", "grace"]);
    /// assert!(state.read::<Vec<String>>(2).is_err(), "another format is refused");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// The value cannot be written as JSON.
    pub fn json<T: Serialize + ?Sized>(version: u32, value: &T) -> Result<Self> {
        Ok(Self {
            version,
            data: serde_json::to_vec(value)?,
        })
    }

    /// The number of the format.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.data
    }

    /// Reads what [`State::json`] has written with this number.
    ///
    /// # Errors
    /// It has another number, or does not fit the type. Passed on, that is logged, and the plugin
    /// begins anew.
    pub fn read<T: DeserializeOwned>(&self, version: u32) -> Result<T> {
        ensure!(
            self.version == version,
            "the state is of format {}, this version of the plugin reads format {version}",
            self.version
        );
        Ok(serde_json::from_slice(&self.data)?)
    }

    pub(crate) fn into_blob(self) -> StateBlob {
        StateBlob {
            version: self.version,
            data: self.data.into(),
        }
    }

    pub(crate) fn from_blob(blob: StateBlob) -> Self {
        Self {
            version: blob.version,
            data: blob.data.into(),
        }
    }
}
