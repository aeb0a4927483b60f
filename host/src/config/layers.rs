//! The order of precedence: flags, then environment, then file, then default.
//!
//! Hands each setting's winning value to the function that checks it, and remembers value and
//! origin for the effective configuration. A wrong value is collected, so that one start reports
//! all of them.

use super::ConfigError;
use super::effective::Effective;
use super::settings::{Fallback, Setting};
use super::source::{Environment, File, Flags, Origin};
use super::value::Written;

pub(crate) struct Layers<'a> {
    pub(crate) flags: &'a Flags,
    pub(crate) environment: &'a Environment,
    pub(crate) file: File,
    pub(crate) effective: Effective,
    pub(crate) problems: Vec<ConfigError>,
}

impl Layers<'_> {
    /// The checked value of a setting whose default is a text.
    ///
    /// Where a source is wrong, the problem is noted and the default returned, only so that the
    /// other settings are checked too: the whole is refused in the end.
    pub(crate) fn value<T>(
        &mut self,
        setting: &'static Setting,
        check: impl Fn(&Written) -> Result<T, String>,
    ) -> T {
        if let Some(value) = self.given(setting, None, &check) {
            return value;
        }
        let Fallback::Text(text) = setting.default else {
            unreachable!(
                "`{}` has a described default: read it with `given`",
                setting.key
            );
        };
        let default = Written::Text(text.to_owned());
        self.effective
            .record(setting, Some(&default), Origin::Default);
        check(&default).expect("a default satisfies its own check: a test reads them all")
    }

    /// The checked value of a setting where a source gives one. `gateway_variable` is one more
    /// variable that counts as a source, below our own.
    pub(crate) fn given<T>(
        &mut self,
        setting: &'static Setting,
        gateway_variable: Option<&str>,
        check: impl Fn(&Written) -> Result<T, String>,
    ) -> Option<T> {
        let (written, origin) = self.winner(setting, gateway_variable)?;
        match check(&written) {
            Ok(value) => {
                self.effective.record(setting, Some(&written), origin);
                Some(value)
            }
            Err(reason) => {
                self.problems.push(ConfigError::Invalid { origin, reason });
                None
            }
        }
    }

    /// Which source a setting has its value from.
    pub(crate) fn origin(&mut self, setting: &'static Setting) -> Origin {
        self.winner(setting, None)
            .map_or(Origin::Default, |(_, origin)| origin)
    }

    fn winner(
        &mut self,
        setting: &'static Setting,
        gateway_variable: Option<&str>,
    ) -> Option<(Written, Origin)> {
        if let Some(text) = self.flags.get(setting) {
            let origin = Origin::Flag(setting.flag);
            return Some((Written::Text(text.to_owned()), origin));
        }
        let own = setting.variable();
        for name in [Some(own.as_str()), gateway_variable].into_iter().flatten() {
            match self.environment.get(name) {
                Ok(Some(text)) => {
                    let origin = Origin::Variable(name.to_owned());
                    return Some((Written::Text(text.to_owned()), origin));
                }
                Ok(None) => {}
                Err(problem) => self.problems.push(problem),
            }
        }
        let written = self.file.values.get(setting.key)?;
        let origin = Origin::File(self.file.path.clone(), setting.key.to_owned());
        Some((written.clone(), origin))
    }
}
