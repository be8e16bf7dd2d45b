use super::*;

use super::REFERENCE as SHIPPED;

fn parse(text: &str, env: &[(&str, &str)]) -> Result<Config, String> {
    let env = env
        .iter()
        .map(|&(name, value)| (name.to_owned(), value.to_owned()));
    Config::parse(text, Path::new("worker.toml"), env.collect()).map_err(|error| error.to_string())
}

#[test]
fn the_shipped_file_holds_every_key_at_its_default_with_a_comment() {
    assert_eq!(parse(SHIPPED, &[]).unwrap(), Config::default());
    let shipped: toml::Table = SHIPPED.parse().unwrap();
    let defaults = toml::Table::try_from(Config::default()).unwrap();
    assert_eq!(settings::leaves(&shipped), settings::leaves(&defaults));
    let lines: Vec<&str> = SHIPPED.lines().collect();
    for pair in lines.windows(2) {
        let is_key = pair[1].contains(" = ") && !pair[1].starts_with('#');
        assert!(
            !is_key || pair[0].starts_with("# "),
            "'{}' has no comment",
            pair[1]
        );
    }
}

#[test]
fn nothing_at_all_gives_the_defaults() {
    assert_eq!(parse("", &[]).unwrap(), Config::default());
    assert_eq!(parse("[store]\n[log]\n", &[]).unwrap(), Config::default());
}

#[test]
fn the_file_sets_and_the_environment_sets_over_it() {
    let file =
        "[store]\nurl = 'sqlite:a.db'\nmax_connections = 0x10\n[guard]\nremoved_percent = 0\n";
    let config = parse(file, &[]).unwrap();
    assert_eq!(config.store.url, "sqlite:a.db");
    assert_eq!(config.store.max_connections, 16);
    assert_eq!(
        config.guard,
        Limits {
            removed_percent: 0,
            ..Limits::default()
        }
    );

    let env = [
        ("CATALOG_SYNC_STORE__URL", "sqlite:b.db"),
        ("CATALOG_SYNC_STORE__BUSY_TIMEOUT_MS", " 7 "),
        ("CATALOG_SYNC_LOG__FORMAT", "json"),
        ("CATALOG_SYNC_APP_STORE__CA_FILE", ""),
        ("CATALOG_SYNC_CONFIG", "ignored here"),
        ("CATALOG_SYNC_PORT_80_TCP", "tcp://10.0.0.1:80"),
        ("PATH", "/bin"),
        ("STORE__URL", "sqlite:c.db"),
    ];
    let config = parse(file, &env).unwrap();
    assert_eq!(config.store.url, "sqlite:b.db");
    assert_eq!(config.store.max_connections, 16);
    assert_eq!(config.store.busy_timeout_ms, 7);
    assert_eq!(config.log.format, Format::Json);
}

#[test]
fn every_key_can_be_set_by_the_environment() {
    let defaults = settings::leaves(&toml::Table::try_from(Config::default()).unwrap());
    for (path, value) in defaults {
        let name = format!("CATALOG_SYNC_{}", path.replace('.', "__").to_uppercase());
        let text = value
            .as_str()
            .map_or_else(|| value.to_string(), str::to_owned);
        assert_eq!(
            parse("", &[(&name, &text)]).unwrap(),
            Config::default(),
            "{name}"
        );
        if value.is_integer() {
            let error = parse("", &[(&name, "many")]).unwrap_err();
            assert!(
                error.starts_with(&format!("{name}: '{path}' must be a whole number")),
                "{error}"
            );
        }
    }
}

#[test]
fn an_unknown_key_is_told_with_its_place_and_the_nearest() {
    for (text, expected) in [
        (
            "[store]\n\nulr = 1",
            "worker.toml:3: unknown key 'store.ulr'; did you mean 'store.url'?",
        ),
        (
            "store.ulr = 1",
            "worker.toml:1: unknown key 'store.ulr'; did you mean 'store.url'?",
        ),
        (
            "[sync]\nlease-ms = 1",
            "worker.toml:2: unknown key 'sync.lease-ms'; did you mean 'sync.lease_ms'?",
        ),
        (
            "[store]\ntimeout = 1",
            "worker.toml:2: unknown key 'store.timeout'; did you mean 'store.busy_timeout_ms'?",
        ),
        (
            "[vault]\nbase_url = ''",
            "worker.toml:2: unknown key 'vault.base_url'; did you mean 'app_store.base_url'?",
        ),
        (
            "url = ''",
            "worker.toml:1: unknown key 'url'; did you mean 'nats.url'?",
        ),
        (
            "[log]\nrotation = 1",
            "worker.toml:2: unknown key 'log.rotation'; there are 'log.filter', 'log.format'",
        ),
        (
            "[stoer]\nurl = ''",
            "worker.toml:1: unknown section 'stoer'; did you mean 'store'?",
        ),
        (
            "\n[metrics]",
            "worker.toml:2: unknown section 'metrics'; the sections are app_store, daemon, guard, health, log, nats, rabbitmq, retention, schedule, store, sync, traces, vault",
        ),
        (
            "[store.url.x]",
            "worker.toml:1: 'store.url' must be a text in quotes; here it is a table",
        ),
        (
            "store = 1",
            "worker.toml:1: 'store' is a section; write [store] and its keys below",
        ),
    ] {
        assert_eq!(parse(text, &[]).unwrap_err(), expected, "{text}");
    }
}

#[test]
fn an_unknown_variable_is_told_with_the_nearest() {
    for (name, expected) in [
        (
            "CATALOG_SYNC_STORE__ULR",
            "did you mean CATALOG_SYNC_STORE__URL?",
        ),
        (
            "CATALOG_SYNC_STOER__URL",
            "did you mean CATALOG_SYNC_STORE__URL?",
        ),
        (
            "CATALOG_SYNC_STORE_URL",
            "did you mean CATALOG_SYNC_STORE__URL?",
        ),
        (
            "CATALOG_SYNC_SYNC__BASE_URL",
            "did you mean CATALOG_SYNC_APP_STORE__BASE_URL?",
        ),
        (
            "CATALOG_SYNC_LOG__X",
            "there are CATALOG_SYNC_LOG__FILTER, CATALOG_SYNC_LOG__FORMAT",
        ),
        (
            "CATALOG_SYNC_QQ__X",
            "the sections are app_store, daemon, guard, health, log, nats, rabbitmq, retention, schedule, store, sync, traces, vault",
        ),
    ] {
        let error = parse("", &[(name, "1")]).unwrap_err();
        assert_eq!(error, format!("{name}: unknown variable; {expected}"));
    }
}

#[test]
fn a_wrong_value_is_told_with_its_place_and_what_is_expected() {
    for (text, expected) in [
        (
            "[store]\nbusy_timeout_ms = '5s'",
            ":2: 'store.busy_timeout_ms' must be a whole number of 0 or more; here it is a text",
        ),
        (
            "[store]\nbusy_timeout_ms = -1",
            ":2: 'store.busy_timeout_ms' must be a whole number of 0 or more; here it is -1",
        ),
        ("[store]\nbusy_timeout_ms = 1.5", "; here it is a float"),
        (
            "[store]\nurl = 5",
            ":2: 'store.url' must be a text in quotes; here it is an integer",
        ),
        (
            "[store]\nmax_connections = 0",
            ":2: 'store.max_connections' is 0; it must be 1 to 1000",
        ),
        (
            "[store]\nmax_connections = 5000000000",
            ":2: 'store.max_connections': invalid value",
        ),
        (
            "[store]\nurl = 'mysql://me:canary@db'",
            ":2: 'store.url' must be a URL that begins with sqlite: or postgres://",
        ),
        ("[store]\nurl = 'sqlite:'", ":2: 'store.url' must be a URL"),
        (
            "[app_store]\nproxy = 'proxy'",
            ":2: 'app_store.proxy' must be a URL",
        ),
        (
            "[app_store]\nproxy = 'socks5://proxy'",
            "'app_store.proxy' must be a URL",
        ),
        ("[app_store]\nconnect_timeout_ms = 0", "must be 1 to 600000"),
        ("[app_store]\nin_flight_per_key = 0", "must be 1 to 100"),
        ("[app_store]\nburst_per_key = 10001", "must be 1 to 10000"),
        (
            "[app_store]\nrequests_per_second_per_key = 0",
            "must be 1 to 1000",
        ),
        (
            "[sync]\nconcurrency = 0",
            ":2: 'sync.concurrency' is 0; it must be 1 to 1000",
        ),
        ("[sync]\nconcurrency = 1001", "must be 1 to 1000"),
        (
            "[sync]\nheartbeat_ms = 15000",
            ":2: 'sync.heartbeat_ms' is 15000; it must be less than half of 'sync.lease_ms', which is 30000",
        ),
        (
            "[sync]\nlease_ms = 20000",
            ":2: 'sync.heartbeat_ms' is 10000; it must be less than half",
        ),
        (
            "[guard]\nremoved_percent = 101",
            ":2: 'guard.removed_percent' is 101; it must be 0 to 100",
        ),
        (
            "[log]\nfilter = 'a=b=c'",
            ":2: 'log.filter' is not understood",
        ),
        (
            "[log]\nformat = 'xml'",
            ":2: 'log.format': unknown variant 'xml', expected one of 'auto', 'text', 'json'",
        ),
        ("[log\nformat = 'xml'", "worker.toml:1: "),
        ("[log]\n[sync]\n[log]", "worker.toml:3: "),
    ] {
        let error = parse(text, &[]).unwrap_err();
        assert!(
            error.starts_with("worker.toml:") && error.contains(expected),
            "{text}: {error}"
        );
        assert!(
            !error.contains("canary") && error.lines().count() == 1,
            "{error}"
        );
    }
    for (text, env) in [
        (
            "[sync]\nheartbeat_ms = 14999",
            ("CATALOG_SYNC_SYNC__LEASE_MS", "30000"),
        ),
        (
            "[sync]\nconcurrency = 1000",
            ("CATALOG_SYNC_GUARD__REMOVED_PERCENT", "100"),
        ),
        (
            "[log]\nfilter = 'info,catalog_sync=debug,sqlx=off'",
            ("CATALOG_SYNC_STORE__URL", "postgresql://db/x"),
        ),
    ] {
        parse(text, &[env]).unwrap();
    }
}

#[test]
fn what_is_kept_is_kept_for_a_while_or_for_ever() {
    for (key, from) in [
        ("removed_days", 30),
        ("changes_days", 30),
        ("runs_days", 1),
        ("requests_days", 1),
    ] {
        let set = |days: u32| parse(&format!("[retention]\n{key} = {days}"), &[]);
        for days in [0, from, 36_500] {
            set(days).unwrap();
        }
        for days in [from - 1, 36_501].into_iter().filter(|days| *days > 0) {
            let expected = format!(
                "worker.toml:2: 'retention.{key}' is {days}; it must be {from} to 36500, or 0 for ever"
            );
            assert_eq!(set(days).unwrap_err(), expected);
        }
    }
}

#[test]
fn a_wrong_schedule_is_told_with_its_key() {
    for (text, expected) in [
        (
            "[schedule]\ncron = '0 25 * * *'",
            ":2: 'schedule.cron': '0 25 * * *' has '25' for the hour; write 0 to 23, such as ",
        ),
        (
            "[schedule]\ncron = '0 0 * * * *'",
            ":2: 'schedule.cron': '0 0 * * * *' has 6 fields; write five, no seconds",
        ),
        (
            "[schedule]\ncron = '0 0 31 2 *'",
            ":2: 'schedule.cron': '0 0 31 2 *' never comes",
        ),
        (
            "[schedule]\ncron = ''",
            ":2: 'schedule.cron': '' has 0 fields",
        ),
        (
            "[schedule]\ntime_zone = 'Europe/Berlinn'",
            ":2: 'schedule.time_zone': 'Europe/Berlinn' is no time zone; did you mean 'Europe/Berlin'?",
        ),
        (
            "[schedule]\nspread_minutes = 10081",
            ":2: 'schedule.spread_minutes' is 10081; it must be 0 to 10080",
        ),
        (
            "[schedule]\nspread_minutes = 9223372036854775807",
            ":2: 'schedule.spread_minutes' is 9223372036854775807; it must be 0 to 10080",
        ),
        (
            "[schedule]\nblocked_minutes = 0",
            ":2: 'schedule.blocked_minutes' is 0; it must be 1 to 10080",
        ),
        (
            "[schedule]\nblocked_minutes = 10081",
            ":2: 'schedule.blocked_minutes' is 10081; it must be 1 to 10080",
        ),
    ] {
        let error = parse(text, &[]).unwrap_err();
        assert!(
            error.starts_with(&format!("worker.toml{expected}")) && error.lines().count() == 1,
            "{text}: {error}"
        );
    }
    for (text, env) in [
        (
            "[schedule]\ncron = '@daily'\nspread_minutes = 0\nblocked_minutes = 10080",
            ("CATALOG_SYNC_SCHEDULE__TIME_ZONE", "Australia/Lord_Howe"),
        ),
        (
            "[schedule]\ncron = '30 2 * * MON-FRI'\nspread_minutes = 10080",
            ("CATALOG_SYNC_SCHEDULE__BLOCKED_MINUTES", "1"),
        ),
    ] {
        parse(text, &[env]).unwrap();
    }
}

#[test]
fn a_wrong_cron_hides_no_wrong_time_zone() {
    let env = [("CATALOG_SYNC_SCHEDULE__TIME_ZONE", "utc")];
    let error = parse("[schedule]\ncron = '0 * * *'\n", &env).unwrap_err();
    let lines: Vec<&str> = error.lines().collect();
    assert_eq!(lines.len(), 2, "{error}");
    assert!(
        lines[0].starts_with("worker.toml:2: 'schedule.cron': '0 * * *' has 4 fields; write five"),
        "{error}"
    );
    assert_eq!(
        lines[1],
        "CATALOG_SYNC_SCHEDULE__TIME_ZONE: 'schedule.time_zone': 'utc' is no time zone; did you mean 'UTC'?"
    );
}

#[test]
fn the_schedule_of_the_file_is_the_one_in_use() {
    let text = "[schedule]\ncron = '30 2 * * *'\ntime_zone = 'Europe/Berlin'\nspread_minutes = 7\n";
    let used = parse(text, &[]).unwrap().schedule.parse().unwrap();
    let spread = std::time::Duration::from_mins(7);
    let meant = crate::schedule::Schedule::new("30 2 * * *", "Europe/Berlin", spread).unwrap();
    assert_eq!(used, meant);
}

#[test]
fn everything_that_is_wrong_is_told_at_once() {
    let error = parse(
        "[store]\nulr = 1\n[sync]\nconcurrency = 0\n",
        &[("CATALOG_SYNC_LOG__FORMAT", "xml")],
    )
    .unwrap_err();
    let starts: Vec<&str> = error
        .lines()
        .map(|line| line.split(": ").next().unwrap())
        .collect();
    assert_eq!(
        starts,
        ["worker.toml:2", "CATALOG_SYNC_LOG__FORMAT", "worker.toml:4"]
    );
}

#[test]
fn tokens_go_to_https_or_to_this_machine() {
    for url in [
        "https://api.appstoreconnect.apple.com",
        "https://proxy.example:8443/",
        "http://127.0.0.1:8080",
        "http://127.8.9.10",
        "http://[::1]:8080",
        "http://localhost:1",
        "http://LOCALHOST",
    ] {
        parse(&format!("[app_store]\nbase_url = '{url}'"), &[]).unwrap();
    }
    for url in [
        "",
        "api.appstoreconnect.apple.com",
        "http://api.appstoreconnect.apple.com",
        "http://128.0.0.1",
        "http://[::2]",
        "http://localhost.example",
        "http://127.0.0.1.example",
        "http://localhost@example.com",
        "ftp://localhost",
        "https://me:canary@api.appstoreconnect.apple.com",
        "https://canary@api.appstoreconnect.apple.com",
        "https://api.appstoreconnect.apple.com/?canary=1",
        "https://api.appstoreconnect.apple.com/v1",
        "https://api.appstoreconnect.apple.com#x",
    ] {
        let error = parse(&format!("[app_store]\nbase_url = '{url}'"), &[]).unwrap_err();
        assert!(
            error.starts_with("worker.toml:2: 'app_store.base_url' must "),
            "{url}: {error}"
        );
        assert!(!error.contains("canary"), "{error}");
    }
}

#[test]
fn probes_are_answered_on_a_host_and_a_port() {
    for listen in [
        "",
        "127.0.0.1:9090",
        "0.0.0.0:0",
        "[::1]:9090",
        "localhost:65535",
        "probe.example-1.net:80",
    ] {
        let config = parse(&format!("[health]\nlisten = '{listen}'"), &[]).unwrap();
        assert_eq!(config.health.listen, listen);
    }
    for listen in [
        "9090",
        ":9090",
        "127.0.0.1",
        "127.0.0.1:",
        "127.0.0.1:+80",
        "127.0.0.1:65536",
        "::1:9090",
        "http://127.0.0.1:9090",
        "127.0.0.1:9090/livez",
        "a host:80",
    ] {
        let error = parse("", &[("CATALOG_SYNC_HEALTH__LISTEN", listen)]).unwrap_err();
        assert_eq!(
            error,
            "CATALOG_SYNC_HEALTH__LISTEN: 'health.listen' must be an address such as 127.0.0.1:9090, or empty for none",
            "{listen}"
        );
    }
}

#[test]
fn what_is_shown_has_no_password_and_can_be_read_again() {
    let text = "[store]\nurl = 'postgres://me:canary@db/x'\n[app_store]\nproxy = 'http://me:canary@proxy:1'\n";
    let config = parse(text, &[]).unwrap();
    let shown = config.redacted();
    assert!(
        shown.contains("url = \"postgres://me:***@db/x\""),
        "{shown}"
    );
    for text in [
        &shown,
        &format!("{config:?} {:?} {:?}", config.store, config.app_store),
    ] {
        assert!(!text.contains("canary"), "{text}");
    }
    assert_eq!(parse(&shown, &[]).unwrap().sync, config.sync);
    assert_eq!(
        parse(&Config::default().redacted(), &[]).unwrap(),
        Config::default()
    );
}

#[test]
fn sources_of_master_keys_are_read_from_the_file_and_from_a_variable() {
    let config = parse(
        "[vault]\nmaster_keys = ['credential:k', 'file:old.key']",
        &[],
    )
    .unwrap();
    let shown: Vec<_> = config
        .vault
        .master_keys
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(shown, ["credential:k", "file:old.key"]);
    assert_eq!(config.vault.file(), Some(Path::new("old.key")));
    for (text, shown) in [
        (
            "command:unwrap --key a,b",
            &["command:unwrap --key a,b"][..],
        ),
        ("['env:KEYS', 'file:b']", &["env:KEYS", "file:b"]),
    ] {
        let config = parse("", &[("CATALOG_SYNC_VAULT__MASTER_KEYS", text)]).unwrap();
        let read: Vec<_> = config
            .vault
            .master_keys
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(read, shown);
    }
    for (text, expected) in [
        (
            "master_keys = []",
            ":2: 'vault.master_keys' must name a source, such as [\"file:master.key\"]",
        ),
        (
            "master_keys = ['master.key']",
            ":2: 'vault.master_keys': a source of master keys begins with file:, credential:, env: or command:",
        ),
        (
            "master_keys = 'file:master.key'",
            ":2: 'vault.master_keys' must be a list of texts",
        ),
        (
            "master_key_file = 'master.key'",
            ":2: unknown key 'vault.master_key_file'; did you mean 'vault.master_keys'?",
        ),
    ] {
        let error = parse(&format!("[vault]\n{text}"), &[]).unwrap_err();
        assert!(error.contains(expected), "{text}: {error}");
    }
}
