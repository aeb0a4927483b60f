//! The memory file in which states travel from one worker to the next.
//!
//! A head in JSON says what is in it, in an order in which the states' bytes follow. Workers of
//! different releases read it: fields that one does not know it ignores, and a file of another format
//! it refuses.

use std::{
    fs::File,
    io::{self, Read, Seek, Write},
    os::fd::OwnedFd,
};

use plugin_abi::abi::StateBlob;
use rustix::fs::MemfdFlags;
use semver::Version;
use serde::{Deserialize, Serialize};

use super::{ConfigurationId, LeftState, MAX_STATE_BYTES};
use crate::plugin::metadata::PluginName;

/// The first bytes of every such file: its format.
const FORMAT: &[u8; 8] = b"STATES 1";

/// Bytes of the head, at most.
const MAX_HEAD_BYTES: u64 = 64 << 20;

/// States cannot travel: the machine's fault, or another release's file.
#[derive(Debug, thiserror::Error)]
pub enum StateFileError {
    /// The file cannot be written or read.
    #[error("the file of states cannot be used: {0}")]
    Io(#[from] io::Error),
    /// It is another format.
    #[error("the file of states has a format that this release does not know")]
    Format,
    /// Its head is broken.
    #[error("the file of states has a broken head: {0}")]
    Head(#[from] serde_json::Error),
}

#[derive(Serialize, Deserialize)]
struct PluginHead {
    plugin: PluginName,
    version: Version,
    own: Option<StateHead>,
    configurations: Vec<(ConfigurationId, StateHead)>,
}

#[derive(Serialize, Deserialize)]
struct StateHead {
    version: u32,
    bytes: usize,
}

impl StateHead {
    fn of(state: &StateBlob) -> Self {
        Self {
            version: state.version,
            bytes: state.data.len(),
        }
    }

    /// The state whose bytes are next in the file.
    fn read(&self, file: &mut impl Read) -> Result<StateBlob, StateFileError> {
        if self.bytes > MAX_STATE_BYTES {
            return Err(StateFileError::Format);
        }
        let mut data = vec![0; self.bytes];
        file.read_exact(&mut data)?;
        Ok(StateBlob {
            version: self.version,
            data: data.into(),
        })
    }
}

/// Writes states into a new memory file.
///
/// # Errors
/// The operating system has no memory or descriptors left.
pub fn write(states: &[LeftState]) -> Result<OwnedFd, StateFileError> {
    let head = states.iter().map(|left| PluginHead {
        plugin: left.plugin.clone(),
        version: left.version.clone(),
        own: left.own.as_ref().map(StateHead::of),
        configurations: left
            .configurations
            .iter()
            .map(|(id, state)| (*id, StateHead::of(state)))
            .collect(),
    });
    let head = serde_json::to_vec(&head.collect::<Vec<_>>())?;
    let file = rustix::fs::memfd_create("states", MemfdFlags::CLOEXEC).map_err(io::Error::from)?;
    let mut file = File::from(file);
    file.write_all(FORMAT)?;
    file.write_all(&(head.len() as u64).to_le_bytes())?;
    file.write_all(&head)?;
    for left in states {
        let configurations = left.configurations.iter().map(|(_, state)| state);
        for state in left.own.iter().chain(configurations) {
            file.write_all(&state.data)?;
        }
    }
    Ok(file.into())
}

/// Reads what another worker has written.
///
/// # Errors
/// It is no such file.
pub fn read(file: OwnedFd) -> Result<Vec<LeftState>, StateFileError> {
    let mut file = File::from(file);
    file.rewind()?;
    let mut format = [0; FORMAT.len()];
    file.read_exact(&mut format)?;
    let mut length = [0; 8];
    file.read_exact(&mut length)?;
    let length = u64::from_le_bytes(length);
    if format != *FORMAT || length > MAX_HEAD_BYTES {
        return Err(StateFileError::Format);
    }
    let mut head = Vec::new();
    Read::by_ref(&mut file)
        .take(length)
        .read_to_end(&mut head)?;
    let heads: Vec<PluginHead> = serde_json::from_slice(&head)?;
    heads
        .into_iter()
        .map(|head| {
            let own = head.own.map(|state| state.read(&mut file)).transpose()?;
            let configurations = head.configurations.into_iter();
            let configurations = configurations
                .map(|(id, state)| Ok((id, state.read(&mut file)?)))
                .collect::<Result<_, StateFileError>>()?;
            Ok(LeftState {
                plugin: head.plugin,
                version: head.version,
                own,
                configurations,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        reason = "a failed expectation is the test's result"
    )]
    use super::*;
    use crate::plugin::metadata::Digest;

    fn state(version: u32, data: &[u8]) -> StateBlob {
        StateBlob {
            version,
            data: data.to_vec().into(),
        }
    }

    fn left(plugin: &str) -> LeftState {
        LeftState {
            plugin: PluginName::new(plugin).unwrap(),
            version: Version::new(1, 2, 3),
            own: None,
            configurations: Vec::new(),
        }
    }

    #[test]
    fn states_are_read_as_they_were_written() {
        let states = [
            LeftState {
                own: Some(state(7, b"own \0 \xff")),
                configurations: vec![
                    (Digest::of(b"one"), state(1, b"")),
                    (Digest::of(b"other"), state(u32::MAX, &[b'x'; 100_000])),
                ],
                ..left("one")
            },
            left("empty"),
            LeftState {
                configurations: vec![(Digest::of(b"one"), state(2, b"two"))],
                ..left("other")
            },
        ];
        assert_eq!(read(write(&states).unwrap()).unwrap(), states);
    }

    #[test]
    fn what_is_no_such_file_is_refused() {
        let of = |bytes: &[u8]| {
            let file = rustix::fs::memfd_create("states", MemfdFlags::CLOEXEC).unwrap();
            let mut file = File::from(file);
            file.write_all(bytes).unwrap();
            read(file.into())
        };
        assert!(matches!(of(b"").unwrap_err(), StateFileError::Io(_)));
        let other = [&b"STATES 9"[..], &[0; 8]].concat();
        assert!(matches!(of(&other).unwrap_err(), StateFileError::Format));
        let endless = [&FORMAT[..], &u64::MAX.to_le_bytes()].concat();
        assert!(matches!(of(&endless).unwrap_err(), StateFileError::Format));
        let broken = [&FORMAT[..], &2_u64.to_le_bytes(), b"[}"].concat();
        assert!(matches!(of(&broken).unwrap_err(), StateFileError::Head(_)));
        let large = r#"[{"plugin":"p","version":"1.0.0","own":{"version":1,"bytes":99999999},"configurations":[]}]"#;
        let large = [
            &FORMAT[..],
            &(large.len() as u64).to_le_bytes(),
            large.as_bytes(),
        ]
        .concat();
        assert!(matches!(of(&large).unwrap_err(), StateFileError::Format));
    }
}
