//! One plugin loaded in place of what serves from its place, or nothing changed.

use std::{sync::Arc, time::SystemTime};

use super::{
    LOAD_TIME, Manager,
    changes::{Change, Told},
    construct::{self, Subject},
    error::{LoadError, LoadErrorCause},
    slot::{Slot, Stored},
};
use crate::{
    http_services::table::{self, RoutesTaken},
    plugin::{
        discovery::Candidate,
        event::EventKind,
        kept::{Attempt, RefusedRoute},
        metadata::PluginName,
        registry::{Generation, cut},
    },
    tokens::compile::TriedOut,
};

/// Bytes that are remembered of why a try failed.
const MAX_REASON_BYTES: usize = 4_096;

/// Whether live configurations that a version refuses keep it out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Vetoes {
    /// They do.
    Count,
    /// The operator knows and wants it all the same.
    Overruled,
}

impl Manager {
    /// Loads one plugin in place of what serves from its place: rehearse, construct, parse the live
    /// configurations, swap; the old generation ends with its last call.
    ///
    /// # Errors
    /// It cannot be loaded, or live configurations veto it; nothing has changed.
    pub async fn load(
        &self,
        candidate: Candidate,
        vetoes: Vetoes,
    ) -> Result<Arc<Generation>, LoadError> {
        self.load_awaited(candidate, vetoes, None).await
    }

    /// Loads the operator's files; where routes wait for them under a name, they no longer do when
    /// what serves is decided.
    pub(super) async fn load_awaited(
        &self,
        candidate: Candidate,
        vetoes: Vetoes,
        awaited: Option<&PluginName>,
    ) -> Result<Arc<Generation>, LoadError> {
        let slot = self.slot(&candidate.place);
        let files = candidate.files();
        let (before, build) = (slot.given.lock().serving.clone(), candidate.build());
        let loaded = self.replace(&slot, candidate, vetoes, awaited).await;
        self.changes.count(match &loaded {
            Ok(_) if before.is_none() => Change::Loaded,
            Ok(_) => Change::Upgraded,
            Err(_) => Change::Refused,
        });
        let kind = match before {
            None => EventKind::Load,
            Some(_) => EventKind::Upgrade,
        };
        let told = Told {
            before: before.as_deref(),
            refused: loaded.as_ref().err(),
            by: None,
        };
        self.tell(kind, build, told);
        slot.given.lock().tried = Some(files);
        self.keep().await;
        loaded
    }

    /// Loads something in place of what serves from a place.
    pub(super) async fn replace(
        &self,
        slot: &Slot,
        candidate: Candidate,
        vetoes: Vetoes,
        awaited: Option<&PluginName>,
    ) -> Result<Arc<Generation>, LoadError> {
        let _turn = slot.turn.lock().await;
        let old = slot.given.lock().serving.clone();
        let build = candidate.build();
        let loaded = if self.is_disabled(&build.name) {
            Err(Subject::of(&candidate).refused(LoadErrorCause::Disabled(build.name.clone())))
        } else if self.is_quarantined(&build.digest) {
            Err(Subject::of(&candidate).refused(LoadErrorCause::Quarantined(build.name.clone())))
        } else {
            self.transact(candidate, old.as_ref(), vetoes, awaited)
                .await
        };
        if let (Err(_), Some(name)) = (&loaded, awaited) {
            self.swap(|snapshot| snapshot.without_loading(name)).await;
        }
        let mut given = slot.given.lock();
        given.has_changed |= matches!(&loaded, Err(error) if error.is_disabled());
        given.remember(Attempt {
            at: SystemTime::now(),
            name: build.name,
            version: build.version,
            digest: build.digest,
            failed: loaded
                .as_ref()
                .err()
                .map(|error| cut(error.to_string(), MAX_REASON_BYTES)),
            refused_routes: loaded.as_ref().err().map_or(Vec::new(), refused_routes),
        });
        let generation = loaded?;
        given.serving = Some(Arc::clone(&generation));
        if let Some(old) = old {
            given.previous = Some(Stored::of(&old));
            self.retired.retire(old);
        }
        Ok(generation)
    }

    async fn transact(
        &self,
        candidate: Candidate,
        old: Option<&Arc<Generation>>,
        vetoes: Vetoes,
        awaited: Option<&PluginName>,
    ) -> Result<Arc<Generation>, LoadError> {
        let subject = Subject::of(&candidate);
        // Before anything of it runs; and again when it is put in service, since others come too.
        let routes = table::check(&self.registry.current(), &candidate.metadata);
        if let Err(taken) = routes {
            return Err(subject.refused(taken.into()));
        }
        let candidate = match construct::rehearse(candidate, &self.options).await {
            Ok(candidate) => candidate,
            Err(cause) => return Err(subject.refused(cause)),
        };
        let generation = self.construct(candidate, None).await?;
        if !self.registry.current().serves(generation.name()) {
            // Nothing works yet that it could break; its routes are compiled when it serves.
            let served = self.put_in_service(&generation, old, awaited).await;
            return served
                .map(|()| generation)
                .map_err(|taken| subject.refused(taken.into()));
        }
        let tried = match self.try_out(&generation, old, vetoes).await {
            Ok(tried) => tried,
            Err(cause) => {
                self.retired.retire(generation);
                return Err(subject.refused(cause));
            }
        };
        let leaving = old.map(|old| self.leaving(old));
        if let Err(taken) = self.put_in_service(&generation, old, awaited).await {
            return Err(subject.refused(taken.into()));
        }
        self.compile_all().await;
        // The chains hold what they need of it now.
        drop(tried);
        if let Some(leaving) = leaving {
            self.hand_state_over(leaving, &generation).await;
        }
        Ok(generation)
    }

    /// Swaps it in, unless another plugin serves one of its HTTP routes by now.
    async fn put_in_service(
        &self,
        generation: &Arc<Generation>,
        old: Option<&Arc<Generation>>,
        awaited: Option<&PluginName>,
    ) -> Result<(), RoutesTaken> {
        let mut checked = Ok(());
        self.swap(|snapshot| {
            checked = table::check(snapshot, &generation.origin().metadata);
            if checked.is_err() {
                return snapshot.clone();
            }
            let next = snapshot.with(Arc::clone(generation), old);
            match awaited {
                Some(name) => next.without_loading(name),
                None => next,
            }
        })
        .await;
        if checked.is_err() {
            self.retired.retire(Arc::clone(generation));
        }
        checked
    }

    /// Parses the live configurations with a generation that does not serve yet.
    async fn try_out(
        &self,
        generation: &Arc<Generation>,
        old: Option<&Arc<Generation>>,
        vetoes: Vetoes,
    ) -> Result<TriedOut, LoadErrorCause> {
        let next = self.registry.current().with(Arc::clone(generation), old);
        let trying = self.compiler.try_out(&next, generation);
        let Ok(mut tried) = tokio::time::timeout(LOAD_TIME, trying).await else {
            return Err(LoadErrorCause::SlowConfiguration(LOAD_TIME.as_secs()));
        };
        for refused in &tried.ignored {
            tracing::warn!(
                plugin = %generation.name(),
                version = %generation.version(),
                route = refused.route,
                reason = %refused.reason,
                "the new version refuses a configuration that is superseded or did not work before"
            );
        }
        if !tried.vetoes.is_empty() && vetoes == Vetoes::Count {
            return Err(LoadErrorCause::Vetoed(std::mem::take(&mut tried.vetoes)));
        }
        Ok(tried)
    }

    /// Puts every chain in line with the snapshot. One that takes too long follows when it is ready.
    pub(super) async fn compile_all(&self) {
        let compiling = self.compiler.compile_all();
        if tokio::time::timeout(LOAD_TIME, compiling).await.is_err() {
            tracing::warn!("chains are still being compiled: some plugin takes its time to parse");
        }
    }
}

/// The HTTP routes for which a try was refused, with who has them.
fn refused_routes(error: &LoadError) -> Vec<RefusedRoute> {
    let taken = error.routes_taken().iter();
    taken
        .map(|taken| RefusedRoute {
            method: taken.route.method.as_ref().map(ToString::to_string),
            route: taken.route.pattern.as_str().to_owned(),
            label: taken.route.label.clone(),
            taken_by: taken.by.clone(),
            reason: taken.to_string(),
        })
        .collect()
}
