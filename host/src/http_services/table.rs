//! Which request leads to which plugin: an immutable table, made anew of each snapshot of the registry.

use std::{collections::BTreeSet, sync::Arc};

use hyper::Method;
use tokio::sync::watch;

use crate::plugin::{
    metadata::{HttpRoute, Lookup, Metadata, PluginName, Routing},
    registry::{Generation, Requested, Snapshot},
};

/// Every route that is served.
#[derive(Debug, Default)]
pub struct Table {
    routing: Routing<Served>,
    /// Whether plugins are being loaded for the first time, whose routes are not known.
    is_incomplete: bool,
}

/// A route, and who serves it.
#[derive(Debug, Clone)]
pub struct Served {
    /// Who.
    pub generation: Arc<Generation>,
    /// Which of its routes.
    pub route: HttpRoute,
}

/// Another plugin serves a route already.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "its HTTP route {route} is that of plugin {by} already ({taken}): change one of them in plugin.json, or unload that plugin"
)]
pub struct RouteTaken {
    /// The route that is claimed.
    pub route: String,
    /// Name and version of who serves it.
    pub by: String,
    /// That one's route.
    pub taken: String,
}

impl Table {
    /// The routes of a snapshot. Of several versions of a plugin the one that serves routes without a
    /// requirement serves these as well.
    pub fn of(snapshot: &Snapshot) -> Self {
        let mut table = Self {
            routing: Routing::default(),
            is_incomplete: snapshot.loading().next().is_some(),
        };
        for generation in serving(snapshot, None) {
            for route in &generation.origin().metadata.http_routes {
                let served = Served {
                    generation: Arc::clone(generation),
                    route: route.clone(),
                };
                if let Err(other) = table.routing.insert(route, served) {
                    // It was refused when it was loaded, unless this is what a later change has led to.
                    let other = other.map(|other| format!("{:?}", other.generation));
                    tracing::error!(
                        plugin = %generation.name(),
                        version = %generation.version(),
                        %route,
                        other,
                        "an HTTP route is another plugin's already, and is not served"
                    );
                }
            }
        }
        table
    }

    /// Whether what leads nowhere may lead somewhere soon.
    pub fn is_incomplete(&self) -> bool {
        self.is_incomplete
    }

    /// What a request leads to.
    pub fn at(&self, method: &Method, path: &str) -> Lookup<'_, Served> {
        self.routing.at(method, path)
    }
}

/// Whether a plugin may serve its routes beside those of a snapshot.
///
/// # Errors
/// One of them is another plugin's.
pub fn check(snapshot: &Snapshot, new: &Metadata) -> Result<(), RouteTaken> {
    if new.http_routes.is_empty() {
        return Ok(());
    }
    let mut routing = Routing::default();
    for generation in serving(snapshot, Some(&new.name)) {
        for route in &generation.origin().metadata.http_routes {
            // What cannot be inserted is served by nobody.
            let _ = routing.insert(route, (format!("{generation:?}"), route.to_string()));
        }
    }
    for route in &new.http_routes {
        // A copy: its own routes do not exclude each other, which reading them has made sure of.
        if let Err(other) = routing.clone().insert(route, Default::default()) {
            let (by, taken) = other.unwrap_or_default();
            return Err(RouteTaken {
                route: route.to_string(),
                by,
                taken,
            });
        }
    }
    Ok(())
}

/// Keeps a table in line with the registry, for as long as anybody looks.
pub async fn follow(
    mut snapshots: watch::Receiver<Option<Arc<Snapshot>>>,
    tables: watch::Sender<Option<Arc<Table>>>,
) {
    loop {
        let snapshot = snapshots.borrow_and_update().clone();
        if let Some(snapshot) = snapshot {
            tables.send_replace(Some(Arc::new(Table::of(&snapshot))));
        }
        tokio::select! {
            changed = snapshots.changed() => if changed.is_err() { return },
            () = tables.closed() => return,
        }
    }
}

/// Who serves HTTP routes, by name, without one of them.
fn serving<'s>(
    snapshot: &'s Snapshot,
    without: Option<&PluginName>,
) -> impl Iterator<Item = &'s Arc<Generation>> {
    let names: BTreeSet<&PluginName> = snapshot
        .generations()
        .map(|generation| generation.name())
        .filter(|name| Some(*name) != without)
        .collect();
    names.into_iter().filter_map(|name| {
        let any = Requested {
            name: name.clone(),
            requirement: None,
        };
        snapshot.resolve(&any).ok()
    })
}
