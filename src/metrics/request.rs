//! One request to App Store Connect, counted when it is over, however it ends.

use tokio::time::Instant;

use super::Metrics;

/// The statuses that are told apart, and what stands in their place where no whole answer came. Others count by their class.
pub(super) const STATUSES: [&str; 14] = [
    "200", "400", "401", "403", "404", "408", "429", "500", "502", "503", "504", "timeout", "lost",
    "refused",
];

/// Why no whole answer came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unanswered {
    /// It took too long.
    Timeout,
    /// The connection was lost, or this worker gave the request up.
    Lost,
    /// There was no connection.
    Refused,
}

impl Unanswered {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Lost => "lost",
            Self::Refused => "refused",
        }
    }
}

/// A request that is under way until this is dropped.
#[derive(Debug)]
#[must_use = "a request that drops it counts as over"]
pub struct Sent {
    metrics: Metrics,
    at: Instant,
    status: &'static str,
}

impl Sent {
    pub(super) fn now(metrics: &Metrics) -> Self {
        Self {
            metrics: metrics.clone(),
            at: Instant::now(),
            // Until more is known: whoever waits for it may go away.
            status: Unanswered::Lost.as_str(),
        }
    }

    /// An answer came.
    pub fn answered(&mut self, status: u16) {
        self.status = label(status);
    }

    /// None came, or not all of it.
    pub fn unanswered(&mut self, why: Unanswered) {
        self.status = why.as_str();
    }
}

impl Drop for Sent {
    fn drop(&mut self) {
        let counted = &*self.metrics.0;
        counted
            .requests
            .get_or_create(&[("status", self.status)])
            .inc();
        counted
            .histograms
            .request
            .observe(self.at.elapsed().as_secs_f64());
    }
}

fn label(status: u16) -> &'static str {
    let text = status.to_string();
    let known = STATUSES.into_iter().find(|known| *known == text);
    known.unwrap_or(match status {
        100..200 => "1xx",
        200..300 => "2xx",
        300..400 => "3xx",
        400..500 => "4xx",
        500..600 => "5xx",
        _ => "other",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_that_apple_does_not_send_count_by_their_class() {
        for (status, expected) in [
            (200, "200"),
            (401, "401"),
            (429, "429"),
            (503, "503"),
            (204, "2xx"),
            (302, "3xx"),
            (418, "4xx"),
            (599, "5xx"),
            (103, "1xx"),
            (999, "other"),
        ] {
            assert_eq!(label(status), expected);
        }
    }

    #[tokio::test]
    async fn a_request_counts_once_however_it_ends() {
        let metrics = Metrics::default();
        metrics.request().answered(200);
        let mut torn = metrics.request();
        torn.answered(200);
        torn.unanswered(Unanswered::Timeout);
        drop(torn);
        drop(metrics.request());
        let page = metrics.page();
        for line in [
            r#"catalog_sync_upstream_requests_total{status="200"} 1"#,
            r#"catalog_sync_upstream_requests_total{status="timeout"} 1"#,
            r#"catalog_sync_upstream_requests_total{status="lost"} 1"#,
            r#"catalog_sync_upstream_requests_total{status="refused"} 0"#,
            "catalog_sync_upstream_request_duration_seconds_count 3",
        ] {
            assert!(page.lines().any(|it| it == line), "no {line} in\n{page}");
        }
    }
}
