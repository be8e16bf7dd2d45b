//! What values must be, beyond their types.
//!
//! A URL is never quoted: it may hold a password.

use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    ops::RangeInclusive,
    path::Path,
};

use reqwest::Url;
use tracing_subscriber::EnvFilter;

use super::{AppStore, Config, Schedule, Traces};
use crate::{catalog::Limits, store::Retention};

/// Which URLs a section takes.
pub(super) struct Scheme {
    /// The key of the file that may hold it.
    pub(super) url_file: &'static str,
    /// What such a URL does.
    pub(super) does: &'static str,
    pub(super) fits: fn(&str) -> bool,
}

pub(super) const STORE: Scheme = Scheme {
    url_file: "store.url_file",
    does: "begins with sqlite: or postgres://",
    fits: is_store_url,
};

pub(super) const NATS: Scheme = Scheme {
    url_file: "nats.url_file",
    does: "begins with nats:// or tls://, such as nats://host:4222",
    fits: is_nats_url,
};

pub(super) const RABBITMQ: Scheme = Scheme {
    url_file: "rabbitmq.url_file",
    does: "begins with amqp:// or amqps://, such as amqp://user:password@host:5672/vhost",
    fits: is_rabbitmq_url,
};

/// A century: what is to be kept for longer is to be kept for ever.
const MOST_DAYS: u32 = 36_500;

/// A rule that is broken, by the values of these keys.
pub(super) struct Broken {
    pub(super) keys: &'static [&'static str],
    pub(super) text: String,
}

pub(super) fn broken_rules(config: &Config) -> Vec<Broken> {
    let Config {
        store,
        vault,
        app_store,
        sync,
        schedule,
        daemon,
        guard,
        retention,
        health,
        nats,
        rabbitmq,
        log,
        traces,
        file: _,
    } = config;
    let mut rules = Rules::default();

    if store.url_file.as_os_str().is_empty() && !is_store_url(&store.url) {
        rules.broken(
            &["store.url"],
            format!("'store.url' must be a URL that {}", STORE.does),
        );
    }
    rules.range(
        &["store.busy_timeout_ms"],
        store.busy_timeout_ms,
        0..=600_000,
    );
    rules.range(
        &["store.max_connections"],
        store.max_connections.into(),
        1..=1_000,
    );

    if vault.master_keys.is_empty() {
        let text = "'vault.master_keys' must name a source, such as [\"file:master.key\"], a file that 'catalog-sync init' makes";
        rules.broken(&["vault.master_keys"], text.to_owned());
    }

    rules.app_store(app_store);

    rules.range(&["sync.concurrency"], count(sync.concurrency), 1..=1_000);
    rules.range(&["sync.lease_ms"], sync.lease_ms, 1_000..=3_600_000);
    rules.range(&["sync.heartbeat_ms"], sync.heartbeat_ms, 100..=3_600_000);
    if sync.heartbeat_ms >= sync.lease_ms.div_ceil(2) {
        let text = format!(
            "'sync.heartbeat_ms' is {}; it must be less than half of 'sync.lease_ms', which is {}",
            sync.heartbeat_ms, sync.lease_ms
        );
        rules.broken(&["sync.heartbeat_ms", "sync.lease_ms"], text);
    }

    rules.schedule(schedule);

    rules.range(
        &["guard.removed_percent"],
        count(guard.removed_percent),
        0..=count(Limits::MOST_PERCENT),
    );

    rules.retention(retention);

    rules.range(&["daemon.poll_ms"], daemon.poll_ms, 50..=60_000);
    rules.range(&["daemon.grace_ms"], daemon.grace_ms, 0..=300_000);

    if !is_listen_address(&health.listen) {
        let text = "'health.listen' must be an address such as 127.0.0.1:9090, or empty for none";
        rules.broken(&["health.listen"], text.to_owned());
    }
    rules.broker(
        &["nats.url", "nats.url_file"],
        (&nats.url, &nats.url_file),
        &NATS,
        cfg!(feature = "nats"),
    );
    rules.prefix(&["nats.prefix"], &nats.prefix);
    rules.broker(
        &["rabbitmq.url", "rabbitmq.url_file"],
        (&rabbitmq.url, &rabbitmq.url_file),
        &RABBITMQ,
        cfg!(feature = "rabbitmq"),
    );
    rules.prefix(&["rabbitmq.prefix"], &rabbitmq.prefix);

    if let Err(error) = EnvFilter::builder().parse(&log.filter) {
        let text = format!(
            "'log.filter' is not understood ({error}); use such as 'info' or 'info,catalog_sync=debug'"
        );
        rules.broken(&["log.filter"], text);
    }

    rules.traces(traces);
    rules.0
}

#[derive(Default)]
struct Rules(Vec<Broken>);

impl Rules {
    fn broken(&mut self, keys: &'static [&'static str], text: String) {
        self.0.push(Broken { keys, text });
    }

    fn broker(
        &mut self,
        keys: &'static [&'static str; 2],
        (url, url_file): (&str, &Path),
        scheme: &Scheme,
        built: bool,
    ) {
        let [key, file_key] = keys;
        let in_file = !url_file.as_os_str().is_empty();
        let set = if in_file { file_key } else { key };
        if !built && (in_file || !url.is_empty()) {
            let (feature, _) = key.split_once('.').unwrap_or((key, ""));
            let text = format!(
                "'{set}' is set, but this catalog-sync was built without the feature '{feature}'"
            );
            self.broken(keys, text);
        } else if !in_file && !url.is_empty() && !(scheme.fits)(url) {
            let text = format!(
                "'{key}' must be a URL that {}, or empty for none",
                scheme.does
            );
            self.broken(keys, text);
        }
    }

    fn traces(&mut self, traces: &Traces) {
        let Traces { endpoint, percent } = traces;
        if !endpoint.is_empty() && !cfg!(feature = "otlp") {
            let text = "'traces.endpoint' is set, but this catalog-sync was built without the feature 'otlp'";
            self.broken(&["traces.endpoint"], text.to_owned());
        } else if !is_collector(endpoint) {
            let text = "'traces.endpoint' must be a URL such as http://localhost:4318, without a user, password or query, or empty for \
                        none";
            self.broken(&["traces.endpoint"], text.to_owned());
        }
        self.range(&["traces.percent"], *percent, 0..=100);
    }

    fn prefix(&mut self, keys: &'static [&'static str; 1], prefix: &str) {
        let fits = (1..=64).contains(&prefix.len())
            && prefix
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'));
        if !fits {
            let [key] = keys;
            let text = format!("'{key}' must be 1 to 64 letters, digits, '_' or '-'");
            self.broken(keys, text);
        }
    }

    fn range(&mut self, keys: &'static [&'static str; 1], value: u64, range: RangeInclusive<u64>) {
        if !range.contains(&value) {
            let [key] = keys;
            let (from, to) = (range.start(), range.end());
            self.broken(
                keys,
                format!("'{key}' is {value}; it must be {from} to {to}"),
            );
        }
    }

    fn retention(&mut self, retention: &Retention) {
        let least = Retention::LEAST_DAYS;
        self.days(
            &["retention.removed_days"],
            retention.removed_days,
            least..=MOST_DAYS,
        );
        self.days(
            &["retention.changes_days"],
            retention.changes_days,
            least..=MOST_DAYS,
        );
        self.days(&["retention.runs_days"], retention.runs_days, 1..=MOST_DAYS);
        self.days(
            &["retention.requests_days"],
            retention.requests_days,
            1..=MOST_DAYS,
        );
    }

    fn days(&mut self, keys: &'static [&'static str; 1], days: u32, range: RangeInclusive<u32>) {
        if days > 0 && !range.contains(&days) {
            let [key] = keys;
            let (from, to) = (range.start(), range.end());
            self.broken(
                keys,
                format!("'{key}' is {days}; it must be {from} to {to}, or 0 for ever"),
            );
        }
    }

    fn app_store(&mut self, app_store: &AppStore) {
        if let Err(what) = check_base_url(&app_store.base_url) {
            self.broken(
                &["app_store.base_url"],
                format!("'app_store.base_url' {what}"),
            );
        }
        if !is_proxy(&app_store.proxy) {
            let text =
                "'app_store.proxy' must be a URL such as http://proxy:3128, or empty for none";
            self.broken(&["app_store.proxy"], text.to_owned());
        }
        self.range(
            &["app_store.connect_timeout_ms"],
            app_store.connect_timeout_ms,
            1..=600_000,
        );
        self.range(
            &["app_store.request_timeout_ms"],
            app_store.request_timeout_ms,
            1..=600_000,
        );
        self.range(
            &["app_store.in_flight_per_key"],
            count(app_store.in_flight_per_key),
            1..=100,
        );
        self.range(
            &["app_store.requests_per_second_per_key"],
            app_store.requests_per_second_per_key.into(),
            1..=1_000,
        );
        self.range(
            &["app_store.burst_per_key"],
            app_store.burst_per_key.into(),
            1..=10_000,
        );
    }

    fn schedule(&mut self, schedule: &Schedule) {
        // Each is tried beside one that is right, so that both are told.
        let with_right_zone = Schedule {
            time_zone: Schedule::default().time_zone,
            ..schedule.clone()
        };
        if let Err(error) = with_right_zone.parse() {
            self.broken(&["schedule.cron"], format!("'schedule.cron': {error}"));
        }
        let with_right_cron = Schedule {
            cron: Schedule::default().cron,
            ..schedule.clone()
        };
        if let Err(error) = with_right_cron.parse() {
            self.broken(
                &["schedule.time_zone"],
                format!("'schedule.time_zone': {error}"),
            );
        }
        self.range(
            &["schedule.spread_minutes"],
            schedule.spread_minutes,
            0..=10_080,
        );
        self.range(
            &["schedule.blocked_minutes"],
            schedule.blocked_minutes,
            1..=10_080,
        );
    }
}

fn count(value: usize) -> u64 {
    u64::try_from(value).unwrap_or(u64::MAX)
}

fn is_store_url(url: &str) -> bool {
    ["sqlite:", "postgres://", "postgresql://"]
        .iter()
        .any(|scheme| {
            url.strip_prefix(scheme)
                .is_some_and(|rest| !rest.is_empty())
        })
}

fn is_nats_url(text: &str) -> bool {
    text.split(',').all(|server| {
        Url::parse(server.trim())
            .is_ok_and(|url| matches!(url.scheme(), "nats" | "tls") && url.has_host())
    })
}

fn is_rabbitmq_url(text: &str) -> bool {
    Url::parse(text).is_ok_and(|url| matches!(url.scheme(), "amqp" | "amqps") && url.has_host())
}

/// The keys' tokens go to this address and no other, so it is scheme, host and port and nothing else.
fn check_base_url(text: &str) -> Result<(), &'static str> {
    let url = Url::parse(text)
        .map_err(|_| "must be a URL such as https://api.appstoreconnect.apple.com")?;
    let host = url.host_str().unwrap_or_default();
    match url.scheme() {
        "https" => {}
        "http" if is_loopback(host) => {}
        "http" => {
            return Err(
                "must begin with https://; http:// is for this machine alone (localhost, 127.0.0.1, [::1])",
            );
        }
        _ => return Err("must begin with https://"),
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("must not hold a user or a password");
    }
    if url.query().is_some() || url.fragment().is_some() || url.path() != "/" {
        return Err("must end after the host and port");
    }
    Ok(())
}

fn is_loopback(host: &str) -> bool {
    let v6 = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    host == "localhost"
        || host.parse().is_ok_and(|ip: Ipv4Addr| ip.is_loopback())
        || v6.is_some_and(|host| host.parse().is_ok_and(|ip: Ipv6Addr| ip.is_loopback()))
}

fn is_proxy(text: &str) -> bool {
    let fits = |url: Url| matches!(url.scheme(), "http" | "https") && url.has_host();
    text.is_empty() || Url::parse(text).is_ok_and(fits)
}

/// Whether it is empty, or what [`Traces::endpoint`] may be. What a URL can have of secrets has no place here.
fn is_collector(text: &str) -> bool {
    let fits = |url: Url| {
        matches!(url.scheme(), "http" | "https")
            && url.has_host()
            && (url.username(), url.password(), url.query(), url.fragment())
                == ("", None, None, None)
    };
    text.is_empty() || Url::parse(text).is_ok_and(fits)
}

/// Whether it is empty, or a host and a port.
fn is_listen_address(text: &str) -> bool {
    let is_name = |host: &str| {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-.".contains(&byte);
        !host.is_empty() && host.bytes().all(fits)
    };
    let is_port =
        |port: &str| port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok();
    text.is_empty()
        || text.parse::<SocketAddr>().is_ok()
        || text
            .rsplit_once(':')
            .is_some_and(|(host, port)| is_name(host) && is_port(port))
}
