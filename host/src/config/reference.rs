//! What may be written for a setting, as its own check says: for a reference that cannot disagree with
//! the program.
//!
//! The bounds stand where values are read, and nowhere else; a value beyond every bound is told them.

use super::{Config, ConfigError, Environment, Flags, Origin, settings::Setting};

/// One of them is beyond the bounds of every number, number of bytes and time, and still one.
const BEYOND: [&str; 2] = ["18446744073709551615", "100000000m"];

/// Before the bounds, in what a check says.
const OUT_OF_RANGE: &str = " is out of range: ";

/// The bounds of a setting, like `from 1 to 1000`; none where any value of its kind may be written.
#[must_use]
pub fn bounds_of(setting: &'static Setting) -> Option<String> {
    BEYOND.iter().find_map(|value| {
        let flags = Flags::new().with(setting, *value);
        let mistakes = Config::check(&flags, &Environment::empty()).err()?;
        mistakes.0.into_iter().find_map(|mistake| match mistake {
            ConfigError::Invalid {
                origin: Origin::Flag(flag),
                reason,
            } if flag == setting.flag => {
                let (_, bounds) = reason.split_once(OUT_OF_RANGE)?;
                Some(bounds.to_owned())
            }
            _ => None,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::settings;

    #[test]
    fn the_bounds_of_a_setting_are_those_of_its_check() {
        for (setting, bounds) in [
            (&settings::BACKLOG, Some("from 1 to 65535")),
            (&settings::CALL_BUDGET, Some("from 10ms to 60s")),
            (
                &settings::MAX_FRAME_BYTES,
                Some("from 1024 bytes to 16777215 bytes"),
            ),
            (&settings::STANDBY, None),
            (&settings::LOG_FILE, None),
        ] {
            assert_eq!(bounds_of(setting).as_deref(), bounds, "{}", setting.flag);
        }
    }
}
