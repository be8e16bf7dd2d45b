//! How all projects fare, as it was last read from the database.
//!
//! Nothing is kept from one reading to the next, so that what is mended is gone from the page. What was read too long ago is left
//! out: an old number looks like a good one.

use std::{
    fmt,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use chrono::{DateTime, TimeDelta};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeGaugeValue, EncodeLabelSet, NoLabelSet},
    metrics::MetricType,
};
use tokio::time::Instant;

use crate::{
    clock,
    store::{AGES, Ages, Fleet, KnownMasterKey},
};

/// How many projects there are at most in each series that names them.
pub const MOST_PROJECTS: u32 = 50;

/// What was read longer ago is not shown.
const OLD: Duration = Duration::from_mins(5);

/// What was last read.
#[derive(Debug, Default)]
pub(super) struct Counted(RwLock<Option<Arc<Reading>>>);

#[derive(Debug)]
struct Reading {
    fleet: Fleet,
    master_keys: Vec<KnownMasterKey>,
    read_at: Instant,
}

impl Counted {
    pub(super) fn put(&self, fleet: Fleet, master_keys: Vec<KnownMasterKey>) {
        let reading = Arc::new(Reading {
            fleet,
            master_keys,
            read_at: Instant::now(),
        });
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Some(reading);
    }

    fn last(&self) -> Option<Arc<Reading>> {
        self.0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl Collector for Counted {
    fn encode(&self, encoder: DescriptorEncoder) -> fmt::Result {
        let mut page = Page(encoder);
        let last = self.last();
        let read_at = last.as_ref().map(|last| last.fleet.read_at);
        page.gauge(
            "fleet_read_timestamp_seconds",
            "When all projects were last counted; 0 before the first time",
            &seconds(read_at.unwrap_or_default() - DateTime::UNIX_EPOCH),
        )?;
        match last {
            Some(last) if last.read_at.elapsed() <= OLD => page.fleet(&last),
            Some(_) | None => Ok(()),
        }
    }
}

struct Page<'a>(DescriptorEncoder<'a>);

impl Page<'_> {
    fn fleet(&mut self, reading: &Reading) -> fmt::Result {
        let fleet = &reading.fleet;
        self.gauges(
            "projects",
            "Projects, each in one state",
            [
                ([("state", "fresh")], fleet.fresh),
                ([("state", "stale")], fleet.stale),
                ([("state", "new")], fleet.new),
                ([("state", "paused")], fleet.paused),
            ],
        )?;
        self.gauges(
            "projects_failing",
            "Projects whose last run could not list everything, by its error code",
            fleet
                .failing
                .iter()
                .map(|(code, projects)| ([("code", code.as_str())], *projects)),
        )?;
        self.gauge(
            "projects_held",
            "Projects with removals that are held",
            &fleet.held,
        )?;
        self.gauge(
            "projects_set_aside",
            "Projects that are left alone because their runs lose their workers",
            &fleet.set_aside,
        )?;
        self.gauge(
            "held_removals",
            "Removals that are held",
            &fleet.held_removals,
        )?;
        self.ages(&fleet.ages)?;
        self.projects(fleet)?;
        self.work(fleet)?;
        self.gauges(
            "api_keys",
            "API keys, by the master key that they are sealed with",
            reading
                .master_keys
                .iter()
                .map(|key| ([("master_key", key.id.as_str())], key.api_keys)),
        )?;
        self.gauge(
            "workers",
            "Workers that were heard of within the last minute",
            &(fleet.workers.len() as u64),
        )
    }

    /// The series that name projects.
    fn projects(&mut self, fleet: &Fleet) -> fmt::Result {
        self.gauges(
            "project_staleness_seconds",
            "Age of the last success of the 50 stalest projects that are stale",
            fleet.stalest.iter().map(|it| {
                let labels = [("project", it.project_id.as_str())];
                (labels, seconds(fleet.read_at - it.since))
            }),
        )?;
        self.gauges(
            "project_failing",
            "Projects whose last run could not list everything, 50 at most",
            fleet.failing_projects.iter().map(|it| {
                let code = it.error_code.as_str();
                ([("project", it.project_id.as_str()), ("code", code)], 1_u64)
            }),
        )?;
        self.gauges(
            "project_held",
            "How many removals are held, of 50 projects at most",
            fleet
                .held_projects
                .iter()
                .map(|it| ([("project", it.project_id.as_str())], it.removals)),
        )
    }

    /// What is to be done.
    fn work(&mut self, fleet: &Fleet) -> fmt::Result {
        self.gauge(
            "pending_projects",
            "Projects with a request that waits or is under way",
            &fleet.pending,
        )?;
        self.gauge(
            "oldest_pending_seconds",
            "How long the request has been ready that could have been claimed the longest",
            &since(fleet.ready_since, fleet.read_at),
        )?;
        self.gauge(
            "waiting_for_budget_keys",
            "Keys whose hourly budget is spent down to the reserve",
            &fleet.spent_keys,
        )?;
        self.gauges(
            "outbox_untold",
            "Revisions that a broker was not told of",
            fleet
                .outboxes
                .iter()
                .map(|it| ([("dependency", it.sink.as_str())], it.untold)),
        )?;
        self.gauges(
            "outbox_oldest_seconds",
            "How long ago the first revision was written that a broker was not told of",
            fleet.outboxes.iter().map(|it| {
                let labels = [("dependency", it.sink.as_str())];
                (labels, since(it.oldest_at, fleet.read_at))
            }),
        )
    }

    fn ages(&mut self, ages: &Ages) -> fmt::Result {
        let mut younger = 0;
        let mut buckets = Vec::with_capacity(AGES.len() + 1);
        let bounds = AGES.iter().map(|age| seconds(*age));
        for (bound, up_to) in bounds.zip(ages.up_to) {
            buckets.push((bound, up_to.saturating_sub(younger)));
            younger = up_to;
        }
        buckets.push((f64::INFINITY, ages.projects.saturating_sub(younger)));
        self.0
            .encode_descriptor(
                "staleness_seconds",
                "Age of the last success of projects that are not paused; of one that had none, since it was added.",
                None,
                MetricType::Histogram,
            )?
            .encode_histogram::<NoLabelSet>(
                Duration::from_secs(ages.seconds).as_secs_f64(),
                ages.projects,
                &buckets,
                None,
            )
    }

    fn gauge(&mut self, name: &str, help: &str, value: &impl EncodeGaugeValue) -> fmt::Result {
        self.0
            .encode_descriptor(name, &format!("{help}."), None, MetricType::Gauge)?
            .encode_gauge(value)
    }

    fn gauges<L: EncodeLabelSet, V: EncodeGaugeValue>(
        &mut self,
        name: &str,
        help: &str,
        series: impl IntoIterator<Item = (L, V)>,
    ) -> fmt::Result {
        let help = format!("{help}.");
        let mut encoder = self
            .0
            .encode_descriptor(name, &help, None, MetricType::Gauge)?;
        for (labels, value) in series {
            encoder.encode_family(&labels)?.encode_gauge(&value)?;
        }
        Ok(())
    }
}

/// How long ago that was; 0 when there is no such thing, or clocks differ.
fn since(at: Option<clock::Instant>, now: clock::Instant) -> f64 {
    at.map_or(0.0, |at| seconds(now - at))
}

fn seconds(time: TimeDelta) -> f64 {
    time.to_std().unwrap_or_default().as_secs_f64()
}
