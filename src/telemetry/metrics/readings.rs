//! Readings that other parts of the process offer: gauges, counters and histograms that are asked at each scrape.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;

/// All readings, by family.
#[derive(Debug, Default)]
pub(super) struct Readings(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    families: BTreeMap<&'static str, Family>,
    made: u64,
}

#[derive(Clone, Debug)]
struct Family {
    help: &'static str,
    series: Vec<Series>,
}

#[derive(Clone, Debug)]
struct Series {
    number: u64,
    labels: Vec<(&'static str, String)>,
    reading: Reading,
}

/// How the value is read.
#[derive(Clone)]
pub(super) enum Reading {
    Gauge(Arc<dyn Fn() -> f64 + Send + Sync>),
    Counter(Arc<dyn Fn() -> u64 + Send + Sync>),
    Histogram(Arc<dyn Fn() -> Distribution + Send + Sync>),
}

/// The sum of what was observed, and how much of it lies up to each bound and beyond the one before.
pub type Distribution = (f64, Vec<(f64, u64)>);

/// Keeps a reading in the metrics; dropping it takes the reading out.
#[derive(Debug)]
#[must_use = "the reading is taken out when this is dropped"]
pub struct Registration {
    // Weak, since what is read may well hold its own registration.
    readings: Weak<Readings>,
    name: &'static str,
    number: u64,
}

impl Readings {
    pub(super) fn register(
        self: &Arc<Self>,
        name: &'static str,
        help: &'static str,
        labels: &[(&'static str, &str)],
        reading: Reading,
    ) -> Registration {
        let labels: Vec<_> = labels.iter().map(|(key, value)| (*key, (*value).to_owned())).collect();
        let mut inner = self.lock();
        inner.made += 1;
        let number = inner.made;
        let family = inner.families.entry(name).or_insert_with(|| Family { help, series: Vec::new() });
        family.series.retain(|series| series.labels != labels);
        family.series.push(Series { number, labels, reading });
        Registration { readings: Arc::downgrade(self), name, number }
    }

    pub(super) fn encode(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        // A copy, since a reading may take locks under which others register.
        let families = self.lock().families.clone();
        for (name, family) in families {
            family.encode(name, encoder)?;
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Family {
    fn encode(&self, name: &str, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let Some(first) = self.series.first() else { return Ok(()) };
        let metric_type = first.reading.metric_type();
        let mut metric = encoder.encode_descriptor(name, self.help, None, metric_type)?;
        for series in &self.series {
            let mut sample = metric.encode_family(&series.labels)?;
            match &series.reading {
                Reading::Counter(read) => sample.encode_counter::<NoLabelSet, _, f64>(&read(), None)?,
                Reading::Histogram(read) => {
                    let (sum, buckets) = read();
                    let count = buckets.iter().map(|(_, count)| count).sum();
                    sample.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)?;
                }
                Reading::Gauge(read) => {
                    let value = read();
                    if value.is_finite() {
                        sample.encode_gauge(&value)?;
                    }
                }
            }
        }
        Ok(())
    }
}

impl Reading {
    fn metric_type(&self) -> MetricType {
        match self {
            Self::Gauge(_) => MetricType::Gauge,
            Self::Counter(_) => MetricType::Counter,
            Self::Histogram(_) => MetricType::Histogram,
        }
    }
}

impl fmt::Debug for Reading {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.metric_type().as_str())
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let Some(readings) = self.readings.upgrade() else { return };
        let mut inner = readings.lock();
        if let Some(family) = inner.families.get_mut(self.name) {
            family.series.retain(|series| series.number != self.number);
            if family.series.is_empty() {
                inner.families.remove(self.name);
            }
        }
    }
}
