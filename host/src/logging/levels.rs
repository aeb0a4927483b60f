//! What is logged, while the process runs.

use std::{fmt, sync::Arc};

use parking_lot::Mutex;
use tracing_subscriber::{EnvFilter, Registry, filter::ParseError, reload};

use crate::plugin::log_levels::{self, LogLevels, OWN_TARGET};

/// What libraries say that nobody can act on; what the operator asks for wins. (The watcher of
/// directories warns where one has gone before it was told, which is what replacing one means.)
const QUIETENED: &str = "notify=error";

/// What the log of this process is told to take.
#[derive(Clone)]
pub struct Levels {
    handle: reload::Handle<EnvFilter, Registry>,
    now: Arc<Mutex<LogLevels>>,
}

impl fmt::Debug for Levels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.now.lock().fmt(f)
    }
}

pub(super) fn filter(directives: &str) -> Result<EnvFilter, ParseError> {
    // Lines of plugins that have a level of their own have been judged by that.
    EnvFilter::builder().parse(format!("{QUIETENED},{OWN_TARGET}=trace,{directives}"))
}

impl Levels {
    pub(super) fn new(handle: reload::Handle<EnvFilter, Registry>, directives: &str) -> Self {
        let now = LogLevels {
            filter: directives.to_owned(),
            ..LogLevels::default()
        };
        Self {
            handle,
            now: Arc::new(Mutex::new(now)),
        }
    }

    /// What is logged now.
    pub fn get(&self) -> LogLevels {
        self.now.lock().clone()
    }

    /// Logs other lines from now on.
    ///
    /// # Errors
    /// The directives cannot be read; nothing has changed.
    pub fn set(&self, levels: &LogLevels) -> Result<(), String> {
        let filter = filter(&levels.filter).map_err(|error| error.to_string())?;
        log_levels::set_own(&levels.plugins)?;
        self.handle
            .reload(filter)
            .map_err(|error| error.to_string())?;
        *self.now.lock() = levels.clone();
        Ok(())
    }
}
