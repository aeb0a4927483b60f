//! Who has to vouch for plugins: the policy, and the keys that are there when the host starts.

use std::{path::PathBuf, sync::Arc};

use super::{
    ConfigError, Files,
    layers::Layers,
    read_optional, settings,
    value::{self, Written},
};
use crate::plugin::signature::{Policy, Trust};

/// The operator's policy. Keys that cannot be used are a mistake where the host starts; later they are
/// read anew each time, and nothing is trusted while they cannot be.
pub(super) fn read(layers: &mut Layers<'_>, files: Files) -> Arc<Trust> {
    let before = layers.problems.len();
    let directory: Option<PathBuf> = read_optional(layers, &settings::TRUSTED_KEYS, value::path);
    let policy = read_optional(layers, &settings::SIGNATURES, policy);
    if layers.problems.len() > before {
        return Arc::default();
    }
    let trust = match (directory, policy) {
        (None, None | Some(Policy::Off)) => Trust::off(),
        (Some(directory), policy) => Trust::new(policy.unwrap_or(Policy::Warn), &directory),
        (None, Some(_)) => {
            layers.problems.push(ConfigError::Contradiction {
                first: settings::SIGNATURES.key,
                second: settings::TRUSTED_KEYS.key,
                reason: "without keys there is nothing to judge signatures by".to_owned(),
            });
            Trust::off()
        }
    };
    if files == Files::Needed
        && trust.is_on()
        && let Err(error) = trust.keys()
    {
        let origin = layers.origin(&settings::TRUSTED_KEYS);
        let reason = error.to_string();
        layers
            .problems
            .push(ConfigError::Invalid { origin, reason });
    }
    Arc::new(trust)
}

fn policy(written: &Written) -> Result<Policy, String> {
    value::choice(
        written,
        &[
            ("off", Policy::Off),
            ("warn", Policy::Warn),
            ("require", Policy::Require),
        ],
    )
}
