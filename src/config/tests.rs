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
            "worker.toml:2: unknown section 'metrics'; the sections are app_store, guard, log, nats, rabbitmq, store, sync, vault",
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
            "the sections are app_store, guard, log, nats, rabbitmq, store, sync, vault",
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
            "[vault]\nmaster_key_file = ''",
            "'catalog-sync init' makes one",
        ),
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
#[cfg(all(feature = "nats", feature = "rabbitmq"))]
fn a_broker_is_named_by_a_url_of_its_own() {
    for (text, expected) in [
        (
            "[nats]\nurl = 'http://me:canary@nats'",
            ":2: 'nats.url' must be a URL that begins with nats:// or tls://",
        ),
        (
            "[nats]\nurl = 'nats://a,me:canary@b'",
            ":2: 'nats.url' must be a URL",
        ),
        (
            "[rabbitmq]\nurl = 'rabbit:canary'",
            ":2: 'rabbitmq.url' must be a URL that begins with amqp:// or amqps://",
        ),
        (
            "[nats]\nprefix = 'catalog.sync'",
            ":2: 'nats.prefix' must be 1 to 64 letters, digits, '_' or '-'",
        ),
        ("[rabbitmq]\nprefix = ''", ":2: 'rabbitmq.prefix' must be"),
    ] {
        let error = parse(text, &[]).unwrap_err();
        assert!(
            error.contains(expected) && !error.contains("canary"),
            "{text}: {error}"
        );
    }
}

/// Whether the brokers are compiled in or not, one of the two tests holds.
#[test]
#[cfg(all(feature = "nats", feature = "rabbitmq"))]
fn a_broker_may_be_named() {
    for text in [
        "[nats]\nurl = 'nats://a:4222, tls://me:pw@b'",
        "[nats]\nurl_file = 'nats.url'\nurl = 'not looked at'",
        "[rabbitmq]\nurl = 'amqps://me:pw@rabbit:5671/vhost'",
        "[rabbitmq]\nurl_file = 'rabbitmq.url'",
    ] {
        parse(text, &[]).unwrap();
    }
}

#[test]
#[cfg(not(any(feature = "nats", feature = "rabbitmq")))]
fn a_broker_that_is_not_compiled_in_cannot_be_named() {
    for (text, expected) in [
        (
            "[nats]\nurl = 'nats://a'",
            "worker.toml:2: 'nats.url' is set, but this catalog-sync was built without the feature 'nats'",
        ),
        (
            "[rabbitmq]\nurl_file = 'x'",
            "worker.toml:2: 'rabbitmq.url_file' is set, but this catalog-sync was built without the feature 'rabbitmq'",
        ),
    ] {
        assert_eq!(parse(text, &[]).unwrap_err(), expected);
    }
}

#[test]
fn what_is_shown_has_no_password_and_can_be_read_again() {
    let text = "[store]\nurl = 'postgres://me:canary@db/x'\n[app_store]\nproxy = 'http://me:canary@proxy:1'\n";
    let mut config = parse(text, &[]).unwrap();
    config.nats.url = "nats://me:canary@a,nats://canary@b".to_owned();
    config.rabbitmq.url = "amqp://me:canary@rabbit".to_owned();
    let shown = config.redacted();
    assert!(
        shown.contains("url = \"postgres://me:***@db/x\""),
        "{shown}"
    );
    for text in [
        &shown,
        &format!(
            "{config:?} {:?} {:?} {:?} {:?}",
            config.store, config.app_store, config.nats, config.rabbitmq
        ),
    ] {
        assert!(!text.contains("canary"), "{text}");
    }
    config.nats.url.clear();
    config.rabbitmq.url.clear();
    assert_eq!(parse(&config.redacted(), &[]).unwrap().sync, config.sync);
    assert_eq!(
        parse(&Config::default().redacted(), &[]).unwrap(),
        Config::default()
    );
}
