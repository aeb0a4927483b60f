//! Where operators, probes and scrapes are answered, what makes a host ready, and who is told.

use std::{ffi::OsString, net::SocketAddr, path::PathBuf, time::Duration};

use super::{
    ConfigError, Environment,
    layers::Layers,
    read_optional, settings,
    value::{self, Written},
};
use crate::plugin::registry::Requested;

/// Plugins that may be required.
const MAX_REQUIRED: usize = 64;

/// Where operators and probes are answered, beside the control socket.
#[derive(Debug, Clone, Default)]
pub struct ControlConfig {
    /// Address of the control interface; on this machine's own loopback.
    pub listen: Option<SocketAddr>,
    /// The file with the token that it wants.
    pub token_file: Option<PathBuf>,
    /// Address for probes and scrapes, which tells no secrets and changes nothing.
    pub telemetry: Option<SocketAddr>,
}

/// The service manager that has started the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceManager {
    /// Its socket: a path, or `@` and a name.
    pub socket: OsString,
    /// It ends a host of which it hears nothing for so long.
    pub watchdog: Option<Duration>,
}

impl ServiceManager {
    pub(super) fn of(environment: &Environment) -> Option<Self> {
        let socket = environment.get_os(settings::NOTIFY_VARIABLE)?.to_owned();
        let watchdog = environment
            .get_os(settings::WATCHDOG_VARIABLE)
            .and_then(|text| text.to_str()?.parse().ok())
            .map(Duration::from_micros)
            .filter(|time| !time.is_zero());
        Some(Self { socket, watchdog })
    }
}

pub(super) fn read(layers: &mut Layers<'_>) -> ControlConfig {
    let before = layers.problems.len();
    let control = ControlConfig {
        listen: read_optional(layers, &settings::CONTROL_LISTEN, on_loopback),
        token_file: read_optional(layers, &settings::CONTROL_TOKEN_FILE, value::path),
        telemetry: read_optional(layers, &settings::TELEMETRY_LISTEN, address),
    };
    if control.listen.is_some() != control.token_file.is_some() && layers.problems.len() == before {
        layers.problems.push(ConfigError::Contradiction {
            first: settings::CONTROL_LISTEN.key,
            second: settings::CONTROL_TOKEN_FILE.key,
            reason:
                "one is nothing without the other: over the network, whoever asks has to show a \
                     token"
                    .to_owned(),
        });
    }
    control
}

pub(super) fn read_require(layers: &mut Layers<'_>) -> Vec<Requested> {
    read_optional(layers, &settings::REQUIRE, read_names).unwrap_or_default()
}

fn read_names(written: &Written) -> Result<Vec<Requested>, String> {
    let text = written.text();
    let names: Vec<_> = text.split(',').map(str::trim).collect();
    if names.len() > MAX_REQUIRED {
        return Err(format!("more than {MAX_REQUIRED} plugins"));
    }
    let names = names.into_iter().map(Requested::parse);
    names
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| error.to_string())
}

fn address(written: &Written) -> Result<SocketAddr, String> {
    let text = written.text();
    text.parse()
        .map_err(|_| format!("`{text}` is no address: write IP:PORT, like 127.0.0.1:9091"))
}

fn on_loopback(written: &Written) -> Result<SocketAddr, String> {
    let address = address(written)?;
    match address.ip().is_loopback() {
        true => Ok(address),
        false => Err(format!(
            "{address} can be reached from elsewhere: only 127.0.0.1 and [::1] may be given; for \
             probes and scrapes there is --telemetry-listen"
        )),
    }
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        reason = "a failed expectation is the test's result"
    )]
    use super::*;

    fn required(text: &str) -> Result<usize, String> {
        read_names(&Written::Text(text.to_owned())).map(|names| names.len())
    }

    #[test]
    fn required_plugins_are_names_within_a_bound() {
        assert_eq!(required("say"), Ok(1));
        assert_eq!(required("say, auth@^1.2"), Ok(2));
        let many = vec!["say"; MAX_REQUIRED + 1].join(",");
        for wrong in ["", "say,", "a b", "say@!", &many] {
            assert!(required(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_service_manager_is_known_by_its_socket_and_may_have_a_watchdog() {
        let of = |variables: &[(&str, &str)]| {
            let variables = variables.iter();
            let environment = variables.fold(Environment::empty(), |all, (name, value)| {
                all.with(*name, *value)
            });
            ServiceManager::of(&environment)
        };
        assert_eq!(of(&[("WATCHDOG_USEC", "5")]), None);
        let manager = of(&[("NOTIFY_SOCKET", "@name"), ("WATCHDOG_USEC", "5000")]).unwrap();
        assert_eq!(manager.watchdog, Some(Duration::from_millis(5)));
        let manager = of(&[("NOTIFY_SOCKET", "/run/x"), ("WATCHDOG_USEC", "0")]).unwrap();
        assert_eq!(manager.watchdog, None);
    }
}
