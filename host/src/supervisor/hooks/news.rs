//! Whether an event is news: a worker that takes over may load once more what the one before has loaded,
//! where it began before that.

use std::collections::BTreeMap;

use crate::plugin::event::{EventKind, PluginEvent};

/// Versions of plugins that are remembered; beyond, all are forgotten, and something is told twice.
const MAX_REMEMBERED: usize = 10_000;

/// What has been told to serve, and to have been refused last.
#[derive(Debug, Default)]
pub(super) struct News {
    /// The digest of each plugin's version.
    serving: BTreeMap<(String, String), String>,
    /// Digest and reason, by plugin.
    refused: BTreeMap<String, (String, String)>,
}

impl News {
    /// Takes an event in; whether it has not been told already.
    pub(super) fn take(&mut self, event: &PluginEvent) -> bool {
        let (Some(plugin), Some(version)) = (&event.plugin, &event.plugin_version) else {
            return true;
        };
        let digest = event.digest.clone().unwrap_or_default();
        let key = (plugin.clone(), version.clone());
        if self.serving.len() + self.refused.len() > MAX_REMEMBERED {
            *self = Self::default();
        }
        match event.event {
            EventKind::Load | EventKind::Upgrade | EventKind::Rollback => {
                if self.serving.get(&key) == Some(&digest) {
                    return false;
                }
                if let Some(previous) = &event.previous {
                    self.serving.remove(&(plugin.clone(), previous.clone()));
                }
                self.refused.remove(plugin);
                self.serving.insert(key, digest);
            }
            EventKind::Refused => {
                let told = (digest, event.reason.clone().unwrap_or_default());
                if self.refused.get(plugin) == Some(&told) {
                    return false;
                }
                self.refused.insert(plugin.clone(), told);
            }
            EventKind::Remove | EventKind::Quarantine => {
                self.serving.remove(&key);
                self.refused.remove(plugin);
            }
            EventKind::Crash | EventKind::Lift | EventKind::Disable | EventKind::Enable => {}
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: EventKind, version: &str, previous: Option<&str>) -> PluginEvent {
        PluginEvent {
            previous: previous.map(str::to_owned),
            ..PluginEvent::now(kind).about("say", version, format!("digest of {version}"))
        }
    }

    #[test]
    fn what_serves_already_or_was_refused_already_is_no_news() {
        use EventKind::{Load, Quarantine, Refused, Remove, Rollback, Upgrade};
        let mut news = News::default();
        for (kind, version, previous, is_news) in [
            (Load, "1.0.0", None, true),
            (Load, "1.0.0", None, false),
            (Upgrade, "2.0.0", Some("1.0.0"), true),
            (Upgrade, "2.0.0", Some("1.0.0"), false),
            (Load, "2.0.0", None, false),
            (Refused, "3.0.0", Some("2.0.0"), true),
            (Refused, "3.0.0", Some("2.0.0"), false),
            (Rollback, "1.0.0", Some("2.0.0"), true),
            (Refused, "3.0.0", Some("1.0.0"), true),
            (Upgrade, "2.0.0", Some("1.0.0"), true),
            (Quarantine, "2.0.0", None, true),
            (Upgrade, "2.0.0", Some("1.0.0"), true),
            (Remove, "2.0.0", None, true),
            (Load, "2.0.0", None, true),
        ] {
            let event = event(kind, version, previous);
            assert_eq!(news.take(&event), is_news, "{event:?}");
        }
    }
}
