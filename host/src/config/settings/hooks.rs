//! The settings of hooks: one for each kind of event, one for all, and their time.

use super::{Fallback, Kind, Setting};
use crate::plugin::event::EventKind;

const HOOKS: &str = "Hooks";

macro_rules! hooks {
    ($($(#[$doc:meta])* $name:ident $event:literal $when:literal),* $(,)?) => {
        $($(#[$doc])*
        pub const $name: Setting = Setting {
            key: concat!("hooks.", $event),
            flag: concat!("hook-", $event),
            kind: Kind::Text,
            value_name: "COMMAND|URL",
            default: Fallback::Described("nothing"),
            help: concat!("What to run, or to post to, when ", $when),
            group: HOOKS,
        };)*
    };
}

hooks! {
    /// What hears every event.
    HOOK_ALL "all" "anything of the following happens: a command for the shell, which reads the event as JSON on its standard input, or an http:// or https:// URL, to which it is posted",
    /// What hears that a plugin serves for the first time.
    HOOK_LOAD "load" "a plugin serves from a place where nothing has served before",
    /// What hears of an upgrade.
    HOOK_UPGRADE "upgrade" "other files serve in place of what served",
    /// What hears of files that were refused.
    HOOK_REFUSED "refused" "files were tried and refused",
    /// What hears of a roll-back.
    HOOK_ROLLBACK "rollback" "an operator has gone back to what served before",
    /// What hears of a plugin that went with its files.
    HOOK_REMOVE "remove" "a plugin's files have gone, and it is out of service",
    /// What hears of a death.
    HOOK_CRASH "crash" "a worker process has died",
    /// What hears of a quarantine.
    HOOK_QUARANTINE "quarantine" "a build of a plugin has been put into quarantine",
    /// What hears of its end.
    HOOK_LIFT "lift" "an operator has ended a quarantine",
    /// What hears of a plugin that an operator took out of service.
    HOOK_DISABLE "disable" "an operator has taken a plugin out of service",
    /// What hears of one that may serve again.
    HOOK_ENABLE "enable" "an operator has let a plugin serve again",
}

/// How long a hook may take.
pub const HOOK_TIMEOUT: Setting = Setting {
    key: "hooks.timeout",
    flag: "hook-timeout",
    kind: Kind::Text,
    value_name: "DURATION",
    default: Fallback::Text("10s"),
    help: "How long a hook may take; then it is given up, and a command is ended with all that it has started",
    group: HOOKS,
};

/// The setting of an event.
pub fn of(event: EventKind) -> &'static Setting {
    match event {
        EventKind::Load => &HOOK_LOAD,
        EventKind::Upgrade => &HOOK_UPGRADE,
        EventKind::Refused => &HOOK_REFUSED,
        EventKind::Rollback => &HOOK_ROLLBACK,
        EventKind::Remove => &HOOK_REMOVE,
        EventKind::Crash => &HOOK_CRASH,
        EventKind::Quarantine => &HOOK_QUARANTINE,
        EventKind::Lift => &HOOK_LIFT,
        EventKind::Disable => &HOOK_DISABLE,
        EventKind::Enable => &HOOK_ENABLE,
    }
}
