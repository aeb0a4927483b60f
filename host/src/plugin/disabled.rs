//! A plugin that an operator has taken out of service, whatever the plugin directory holds of it.
//!
//! The supervisor keeps the list, tells it to each worker, and writes it down for the next host on
//! its address. Nothing here decides what that means for a route.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::metadata::PluginName;

/// Plugins that may be disabled at a time.
pub const MAX_DISABLED: usize = 1_000;

/// A plugin that does not serve until an operator enables it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DisabledPlugin {
    /// Its name.
    #[schema(value_type = String)]
    pub name: PluginName,
    /// Since when, in UTC.
    pub since: String,
    /// Who asked for it.
    pub by: String,
}
