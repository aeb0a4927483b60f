//! Why a plugin was not installed or removed, and what to do about it.

use std::{io, path::PathBuf};

use semver::{Version, VersionReq};

use crate::{
    plugin::{lock::LockError, metadata::PluginName, signature::Refused},
    sources::SourceError,
};

/// The directory is as it was, unless it says otherwise.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// It cannot be had.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// Nobody who is trusted vouches for it.
    #[error("{from}: {refused} ({next_step})")]
    Refused {
        /// Where it is from.
        from: String,
        /// What its signature is worth.
        refused: Box<Refused>,
        /// What to do about it.
        next_step: String,
    },
    /// A host would not load it.
    #[error("{from}: no host here would load it: {reason}")]
    NoGood {
        /// Where it is from.
        from: String,
        /// Everything that is wrong.
        reason: String,
    },
    /// The source has another plugin than the one that is locked.
    #[error("{from}: it has {found}, not {wanted}")]
    OtherPlugin {
        /// Where it is from.
        from: String,
        /// The plugin and version that are locked.
        wanted: String,
        /// Those that came.
        found: String,
    },
    /// It has another version than was asked for.
    #[error("`{plugin}` has version {version}, which does not fit `{requirement}`")]
    OtherVersion {
        /// The plugin.
        plugin: PluginName,
        /// What came.
        version: Version,
        /// What was asked for.
        requirement: VersionReq,
    },
    /// Somebody has put the plugin there in another way.
    #[error(
        "{}: it was not installed by this command, which leaves it alone: move it away first",
        .0.display()
    )]
    InTheWay(PathBuf),
    /// A plugin is declared that the lock does not know so.
    #[error(
        "plugins.lock has no `{plugin}` from {source_of} that fits `{requirement}`: `plugin-host sync` \
         without --locked gets and locks one"
    )]
    NotLocked {
        /// The plugin.
        plugin: PluginName,
        /// Where it is to be from.
        source_of: String,
        /// Which versions will do.
        requirement: VersionReq,
    },
    /// Nothing to remove or update.
    #[error("`{0}` is not installed: plugins.lock in the plugin directory does not name it")]
    NotInstalled(PluginName),
    /// Another such command runs there.
    #[error("{}: another command installs or removes plugins there: try again when it has ended", .0.display())]
    Busy(PathBuf),
    /// The lock file cannot be used.
    #[error("{}: {error}", path.display())]
    Lock {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        error: LockError,
    },
    /// A file in the plugin directory.
    #[error("{}: {error}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        error: io::Error,
    },
}
