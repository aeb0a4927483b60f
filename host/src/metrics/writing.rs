//! Writes one metric with its series into the exposition.

use std::fmt;

use prometheus_client::{
    encoding::{
        DescriptorEncoder, EncodeCounterValue, EncodeGaugeValue, EncodeLabelSet, NoLabelSet,
    },
    metrics::MetricType,
    registry::Unit,
};

use super::durations::Recorded;

/// What a number means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It only rises, and begins at zero with its process; `_total` is put behind the name.
    Counter,
    /// It is as it is now.
    Gauge,
}

impl Kind {
    fn of_metric(self) -> MetricType {
        match self {
            Self::Counter => MetricType::Counter,
            Self::Gauge => MetricType::Gauge,
        }
    }
}

/// Writes a metric that has labels. Without series, only its name and help are written.
///
/// # Errors
/// There is no room to write to.
pub fn series<L, N>(
    encoder: &mut DescriptorEncoder<'_>,
    kind: Kind,
    (name, help): (&str, &str),
    series: impl IntoIterator<Item = (L, N)>,
) -> fmt::Result
where
    L: EncodeLabelSet,
    N: EncodeCounterValue + EncodeGaugeValue,
{
    let mut metric = encoder.encode_descriptor(name, help, None, kind.of_metric())?;
    for (labels, number) in series {
        let mut one = metric.encode_family(&labels)?;
        match kind {
            Kind::Counter => one.encode_counter::<NoLabelSet, _, f64>(&number, None)?,
            Kind::Gauge => one.encode_gauge(&number)?,
        }
    }
    Ok(())
}

/// Writes a metric without labels.
///
/// # Errors
/// There is no room to write to.
pub fn number(
    encoder: &mut DescriptorEncoder<'_>,
    kind: Kind,
    (name, help): (&str, &str),
    number: u64,
) -> fmt::Result {
    let mut metric = encoder.encode_descriptor(name, help, None, kind.of_metric())?;
    match kind {
        Kind::Counter => metric.encode_counter::<NoLabelSet, _, f64>(&number, None),
        Kind::Gauge => metric.encode_gauge(&number),
    }
}

/// Writes a histogram of durations; `_seconds` is put behind the name.
///
/// # Errors
/// There is no room to write to.
pub fn durations<L: EncodeLabelSet>(
    encoder: &mut DescriptorEncoder<'_>,
    (name, help): (&str, &str),
    series: impl IntoIterator<Item = (L, Recorded)>,
) -> fmt::Result {
    let unit = Some(&Unit::Seconds);
    let mut metric = encoder.encode_descriptor(name, help, unit, MetricType::Histogram)?;
    for (labels, recorded) in series {
        recorded.encode(metric.encode_family(&labels)?)?;
    }
    Ok(())
}
