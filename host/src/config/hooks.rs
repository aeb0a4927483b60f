//! What operators want to be run, or told, when something happens to a plugin.

use std::{fmt, time::Duration};

use super::{
    layers::Layers,
    settings::{
        Setting,
        hooks::{HOOK_ALL, HOOK_TIMEOUT, of},
    },
    value::{self, Written},
};
use crate::{http_client, plugin::event::EventKind};

/// Bytes of a command or URL, at most.
const MAX_BYTES: usize = 4_096;

/// What stands in the configuration in force for one that is set: URLs and commands have tokens in them.
const HIDDEN: &str = "***";

/// Who hears of what.
#[derive(Debug, Clone, Default)]
pub struct HooksConfig {
    hooks: Vec<Hook>,
    /// How long one may take.
    pub time: Duration,
}

/// Somebody who hears of events.
#[derive(Debug, Clone)]
pub struct Hook {
    /// Of what; none: of everything.
    pub event: Option<EventKind>,
    /// Its flag, which names it in the log.
    pub flag: &'static str,
    /// Where they are told.
    pub target: Target,
}

/// Where an event is told.
#[derive(Clone, PartialEq, Eq)]
pub enum Target {
    /// A command for the shell.
    Command(String),
    /// A URL to post to.
    Post(String),
}

impl fmt::Debug for Target {
    /// Its kind alone: the rest may have a token in it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Command(_) => "command",
            Self::Post(_) => "URL",
        })
    }
}

impl HooksConfig {
    /// Those who want to hear of an event, in the order in which they do.
    pub fn of(&self, event: EventKind) -> impl Iterator<Item = &Hook> {
        let wants = move |hook: &&Hook| hook.event.is_none_or(|wanted| wanted == event);
        self.hooks.iter().filter(wants)
    }
}

pub(super) fn read(layers: &mut Layers<'_>) -> HooksConfig {
    let every = EventKind::ALL.map(|event| (Some(event), of(event)));
    let settings = std::iter::once((None, &HOOK_ALL)).chain(every);
    let mut hooks = Vec::new();
    for (event, setting) in settings {
        if let Some(target) = read_target(layers, setting) {
            let flag = setting.flag;
            hooks.push(Hook {
                event,
                flag,
                target,
            });
        }
    }
    let time = layers.value(&HOOK_TIMEOUT, |written| {
        value::duration(
            written,
            Duration::from_millis(100)..=Duration::from_secs(600),
        )
    });
    HooksConfig { hooks, time }
}

fn read_target(layers: &mut Layers<'_>, setting: &'static Setting) -> Option<Target> {
    let target = super::read_optional(layers, setting, |written| target(&written.text()));
    if target.is_some() {
        let origin = layers.origin(setting);
        let hidden = Written::Text(HIDDEN.to_owned());
        layers.effective.record(setting, Some(&hidden), origin);
    }
    target
}

fn target(text: &str) -> Result<Target, String> {
    let text = text.trim();
    if text.is_empty() || text.len() > MAX_BYTES || text.contains('\0') {
        return Err(format!(
            "it is neither a command nor a URL of at most {MAX_BYTES} bytes"
        ));
    }
    if !text.starts_with("http://") && !text.starts_with("https://") {
        return Ok(Target::Command(text.to_owned()));
    }
    http_client::check_url(text).map_err(|reason| format!("it is no URL to post to: {reason}"))?;
    Ok(Target::Post(text.to_owned()))
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        reason = "a failed expectation is the test's result"
    )]
    use super::*;
    use crate::config::{Config, Environment, Flags, settings};

    #[test]
    fn a_hook_is_a_url_or_else_a_command_and_is_shown_to_nobody() {
        let flags = Flags::new()
            .with(&settings::LISTEN, "/run/s")
            .with(&HOOK_ALL, "logger --token hunter2")
            .with(of(EventKind::Crash), "https://example.com/hunter2");
        let config = Config::load(&flags, &Environment::empty()).unwrap();
        let hooks = &config.hooks;
        let of_crash: Vec<_> = hooks.of(EventKind::Crash).map(|hook| hook.flag).collect();
        assert_eq!(of_crash, ["hook-all", "hook-crash"]);
        assert_eq!(hooks.of(EventKind::Load).count(), 1);
        let shown = format!("{config:?}{}", config.effective());
        assert!(!shown.contains("hunter2"), "{shown}");
        assert!(shown.contains("crash = \"***\" # --hook-crash"), "{shown}");
        for wrong in ["", "  ", "http://", "https://user@example.com/"] {
            assert!(target(wrong).is_err(), "{wrong}");
        }
    }
}
