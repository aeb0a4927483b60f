//! Which request leads to which plugin: an immutable table, made anew of each snapshot of the registry.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
};

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

/// Other plugins serve routes already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoutesTaken(pub Vec<RouteTaken>);

/// Another plugin serves a route already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteTaken {
    /// The route that is claimed.
    pub route: HttpRoute,
    /// Name and version of who serves it; none where that cannot be told.
    pub by: Option<String>,
    /// That one's route.
    pub taken: Option<String>,
}

impl fmt::Display for RouteTaken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "its HTTP route {} is that of ", self.route)?;
        match (&self.by, &self.taken) {
            (Some(by), Some(taken)) => write!(f, "plugin {by} already ({taken})"),
            _ => f.write_str("another plugin already"),
        }
    }
}

impl fmt::Display for RoutesTaken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for taken in &self.0 {
            write!(f, "{taken}; ")?;
        }
        f.write_str("change what is claimed twice in one plugin.json, or unload one of the plugins")
    }
}

impl std::error::Error for RoutesTaken {}

/// How it stands with the routes of what serves. Holds no generation, so that it may be kept.
#[derive(Debug, Default)]
pub struct Standing {
    /// For each generation that serves the HTTP routes of its name, by number: whose each of them is
    /// instead, where it is another plugin's.
    taken: BTreeMap<u64, Vec<Option<RouteTaken>>>,
}

impl Standing {
    /// The same as [`Table::of`] has them.
    pub fn of(snapshot: &Snapshot) -> Self {
        let mut taken: BTreeMap<u64, Vec<Option<RouteTaken>>> = BTreeMap::new();
        claims(snapshot, |generation, claimed| {
            taken
                .entry(generation.number())
                .or_default()
                .push(claimed.err());
        });
        Self { taken }
    }

    /// For each route of a generation, whose it is instead; none where another version of the plugin
    /// serves the routes of its name, or it has no routes.
    pub fn of_generation(&self, number: u64) -> Option<&[Option<RouteTaken>]> {
        self.taken.get(&number).map(Vec::as_slice)
    }
}

impl Table {
    /// The routes of a snapshot. Of several versions of a plugin the one that serves routes without a
    /// requirement serves these as well.
    pub fn of(snapshot: &Snapshot) -> Self {
        let routing = claims(snapshot, |generation, claimed| {
            if let Err(taken) = claimed {
                // It was refused when it was loaded, unless this is what a later change has led to.
                tracing::error!(
                    plugin = %generation.name(),
                    version = %generation.version(),
                    "{taken}, and is not served"
                );
            }
        });
        Self {
            routing,
            is_incomplete: snapshot.loading().next().is_some(),
        }
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
/// Some of them are other plugins'.
pub fn check(snapshot: &Snapshot, new: &Metadata) -> Result<(), RoutesTaken> {
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
    let taken = new.http_routes.iter().filter_map(|route| {
        // A copy: its own routes do not exclude each other, which reading them has made sure of.
        let other = routing.clone().insert(route, Default::default()).err()?;
        let (by, taken) = other.unzip();
        Some(RouteTaken {
            route: route.clone(),
            by,
            taken,
        })
    });
    let taken: Vec<RouteTaken> = taken.collect();
    match taken.is_empty() {
        true => Ok(()),
        false => Err(RoutesTaken(taken)),
    }
}

/// The routes of a snapshot; of each it is told whether it is served.
fn claims(
    snapshot: &Snapshot,
    mut tell: impl FnMut(&Generation, Result<(), RouteTaken>),
) -> Routing<Served> {
    let mut routing = Routing::default();
    for generation in serving(snapshot, None) {
        for route in &generation.origin().metadata.http_routes {
            let served = Served {
                generation: Arc::clone(generation),
                route: route.clone(),
            };
            let claimed = routing.insert(route, served).map_err(|other| RouteTaken {
                route: route.clone(),
                by: other
                    .as_ref()
                    .map(|other| format!("{:?}", other.generation)),
                taken: other.map(|other| other.route.to_string()),
            });
            tell(generation, claimed);
        }
    }
    routing
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
