//! The series of one metric, by the values of its labels.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    sync::{Arc, PoisonError, RwLock},
};

use super::{
    MAX_LABEL_VALUE_BYTES, MetricError,
    series::{Metric, detached, sealed::Sealed},
};
use crate::{
    abi::{MetricArguments, MetricLabel, RResult},
    export::{self, host},
};

/// The series of a metric with `N` labels. Clones are the same metric.
#[derive(Debug, Clone)]
pub struct Family<M, const N: usize>(Arc<Shared<M, N>>);

#[derive(Debug)]
struct Shared<M, const N: usize> {
    name: Box<str>,
    help: Box<str>,
    labels: [Box<str>; N],
    bounds: Arc<[f64]>,
    /// Series by the hash of their values, so that looking one up makes no copies of these. Bounded
    /// by the host, which makes no more than it allows.
    series: RwLock<HashMap<u64, Vec<Labelled<M, N>>>>,
    hasher: RandomState,
}

/// A series, behind its values.
type Labelled<M, const N: usize> = ([Box<str>; N], M);

impl<M: Metric, const N: usize> Default for Family<M, N> {
    /// A metric that nobody sees, until the plugin makes a real one.
    fn default() -> Self {
        Self::of("", "", [""; N], &[])
    }
}

impl<M: Metric, const N: usize> Family<M, N> {
    pub(super) fn new(
        name: &str,
        help: &str,
        labels: [&str; N],
        bounds: &[f64],
    ) -> Result<Self, MetricError> {
        let family = Self::of(name, help, labels, bounds);
        // A mistake shows when the metric is made, and not when it is first counted.
        match N {
            0 => family.with_checked([""; N]).map(drop)?,
            _ => family.0.ask([""; N], true).map(drop)?,
        }
        Ok(family)
    }

    fn of(name: &str, help: &str, labels: [&str; N], bounds: &[f64]) -> Self {
        Self(Arc::new(Shared {
            name: name.into(),
            help: help.into(),
            labels: labels.map(Into::into),
            bounds: bounds.into(),
            series: RwLock::default(),
            hasher: RandomState::new(),
        }))
    }

    /// The series with these values, in the order of the labels. Keep it where you can: finding it
    /// again costs a look into a map. Values are cut after 128 bytes.
    pub fn with(&self, values: [&str; N]) -> M {
        self.with_checked(values).unwrap_or_else(|error| {
            // It was checked when the metric was made, so this is a host without memory of it.
            log::error!("{error}");
            M::on(detached(&self.0.bounds), &self.0.bounds)
        })
    }

    fn with_checked(&self, values: [&str; N]) -> Result<M, MetricError> {
        let values = values.map(cut);
        let hash = self.0.hasher.hash_one(values);
        let is_it = |known: &[Box<str>; N]| known.iter().zip(values).all(|(a, b)| **a == *b);
        {
            let series = self.0.series.read().unwrap_or_else(PoisonError::into_inner);
            let known = series.get(&hash).into_iter().flatten();
            if let Some((_, found)) = known.clone().find(|(known, _)| is_it(known)) {
                return Ok(found.clone());
            }
        }
        let (found, is_overflow) = self.0.ask(values, false)?;
        if !is_overflow {
            let mut series = self
                .0
                .series
                .write()
                .unwrap_or_else(PoisonError::into_inner);
            let known = series.entry(hash).or_default();
            // Somebody else may have asked for it at the same time; it is the same series.
            if !known.iter().any(|(known, _)| is_it(known)) {
                known.push((values.map(Into::into), found.clone()));
            }
        }
        Ok(found)
    }
}

/// A value as the host keeps it, so that no more of them are remembered here than there.
fn cut(value: &str) -> &str {
    let mut end = value.len().min(MAX_LABEL_VALUE_BYTES);
    while !value.is_char_boundary(end) {
        end -= 1;
    }
    &value[..end]
}

impl<M: Metric> Family<M, 0> {
    pub(super) fn into_only(self) -> M {
        self.with([])
    }
}

impl<M: Sealed, const N: usize> Shared<M, N> {
    /// Asks the host for a series; whether it is the one beyond the bound. Without labels only
    /// whether there can be such a metric.
    fn ask(&self, values: [&str; N], only_check: bool) -> Result<(M, bool), MetricError> {
        export::needs_metrics();
        let Some(host) = host() else {
            return Ok((M::on(detached(&self.bounds), &self.bounds), N > 0));
        };
        let labels: [MetricLabel<'_>; N] = std::array::from_fn(|index| MetricLabel {
            name: (*self.labels[index]).into(),
            value: values[index].into(),
        });
        let series = host.metric(MetricArguments {
            kind: M::KIND,
            name: (*self.name).into(),
            help: (*self.help).into(),
            labels: labels.as_slice().into(),
            bounds: self.bounds.as_ref().into(),
            only_check,
        });
        match series {
            RResult::ROk(series) => Ok((M::on(series.cells, &self.bounds), series.is_overflow)),
            RResult::RErr(reason) => Err(MetricError {
                name: self.name.clone().into(),
                reason: reason.into(),
            }),
        }
    }
}
