//! Who has to vouch for plugins.

use super::{Fallback, Kind, SECURITY, Setting};

/// What becomes of a plugin without a signature.
pub const SIGNATURES: Setting = Setting {
    key: "signatures",
    flag: "signatures",
    kind: Kind::Text,
    value_name: "POLICY",
    default: Fallback::Described("warn where --trusted-keys is given, or else off"),
    help: "What becomes of a plugin that no trusted key has signed: `require` does not load it, `warn` says so in the log, `off` does not look",
    group: SECURITY,
};

/// Whose signatures count.
pub const TRUSTED_KEYS: Setting = Setting {
    key: "trusted_keys",
    flag: "trusted-keys",
    kind: Kind::Text,
    value_name: "DIR",
    default: Fallback::Described("none"),
    help: "Directory of public keys of minisign, in files whose names end with .pub, by which signatures of plugins are judged. It is read whenever something is judged",
    group: SECURITY,
};
