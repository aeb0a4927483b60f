//! The HTTP routes of what a place has given, as operators see them: which are served, and which are not
//! and why.

use std::sync::{Arc, Weak};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::slot::Given;
use crate::{
    http_services::table::Standing,
    plugin::{
        metadata::HttpRoute,
        registry::{Generation, Requested, Snapshot},
    },
};

/// A route of a plugin's HTTP services.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ServiceRoute {
    /// Its method; null for all of them.
    pub method: Option<String>,
    /// Its path, as `plugin.json` has it.
    pub route: String,
    /// What tells the plugin which of its routes it is; may be empty.
    pub label: String,
    /// How it stands.
    pub state: ServiceRouteState,
    /// The version whose route it is.
    pub version: String,
    /// Number of the generation that serves it; null where none does.
    pub generation: Option<u64>,
    /// Name and version of the plugin whose route it is instead.
    pub taken_by: Option<String>,
    /// Why it is not served, where it is not.
    pub reason: Option<String>,
}

/// How it stands with a route of a plugin's HTTP services.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ServiceRouteState {
    /// Requests reach the plugin.
    Served,
    /// Nobody can ask: the host has no listener for HTTP services.
    NotListening,
    /// It is another plugin's already. Where a version was not loaded for that, none of its routes is
    /// served.
    Refused,
    /// Another version of the plugin serves the HTTP routes of its name.
    OtherVersion,
}

/// The standing of the snapshot that was asked about last: making it takes time where there are many
/// routes. No snapshot, and so no generation, is kept by it.
#[derive(Debug, Default)]
pub(super) struct LastStanding(parking_lot::Mutex<(Weak<Snapshot>, Arc<Standing>)>);

impl LastStanding {
    pub(super) fn of(&self, snapshot: &Arc<Snapshot>) -> Arc<Standing> {
        let (of, standing) = &mut *self.0.lock();
        // While there is a weak reference to it, nothing else is at its address.
        if !std::ptr::eq(of.as_ptr(), Arc::as_ptr(snapshot)) {
            *standing = Arc::new(Standing::of(snapshot));
            *of = Arc::downgrade(snapshot);
        }
        Arc::clone(standing)
    }
}

impl ServiceRoute {
    /// Those of what serves, then those for which the last try was refused.
    pub(super) fn all_of(given: &Given, snapshot: &Snapshot, standing: &Standing) -> Vec<Self> {
        let serving = given.serving.iter();
        let of_serving = serving.flat_map(|generation| {
            let taken = standing.of_generation(generation.number());
            let routes = generation.origin().metadata.http_routes.iter();
            routes.enumerate().map(move |(at, route)| match taken {
                Some(taken) => match taken.get(at) {
                    Some(Some(taken)) => Self {
                        state: ServiceRouteState::Refused,
                        taken_by: taken.by.clone(),
                        reason: Some(taken.to_string()),
                        ..Self::of(route, generation)
                    },
                    _ => Self {
                        generation: Some(generation.number()),
                        ..Self::of(route, generation)
                    },
                },
                None => Self {
                    state: ServiceRouteState::OtherVersion,
                    reason: Some(who_serves(generation, snapshot)),
                    ..Self::of(route, generation)
                },
            })
        });
        let refused = given.last().into_iter().flat_map(|last| {
            last.refused_routes.iter().map(|refused| Self {
                method: refused.method.clone(),
                route: refused.route.clone(),
                label: refused.label.clone(),
                state: ServiceRouteState::Refused,
                version: last.version.to_string(),
                generation: None,
                taken_by: refused.taken_by.clone(),
                reason: Some(refused.reason.clone()),
            })
        });
        of_serving.chain(refused).collect()
    }

    /// Nobody can ask for it, where somebody could otherwise.
    pub fn without_listener(&mut self) {
        if self.state == ServiceRouteState::Served {
            self.state = ServiceRouteState::NotListening;
            self.generation = None;
            self.reason = Some(
                "the host has no listener for HTTP services: start it with --http-listen"
                    .to_owned(),
            );
        }
    }

    fn of(route: &HttpRoute, generation: &Generation) -> Self {
        Self {
            method: route.method.as_ref().map(ToString::to_string),
            route: route.pattern.as_str().to_owned(),
            label: route.label.clone(),
            state: ServiceRouteState::Served,
            version: generation.version().to_string(),
            generation: None,
            taken_by: None,
            reason: None,
        }
    }
}

/// Which version serves the HTTP routes of a generation's name, or why none does.
fn who_serves(generation: &Generation, snapshot: &Snapshot) -> String {
    let any = Requested {
        name: generation.name().clone(),
        requirement: None,
    };
    match snapshot.resolve(&any) {
        Ok(other) => format!(
            "version {} serves the HTTP routes of its name",
            other.version()
        ),
        Err(missing) => missing.to_string(),
    }
}
