//! `RabbitMQ` brokers for the tests: one for the test binary, and others that a test may kill.
//!
//! Each has an epmd of its own, on a port of its own, so that it can be stopped with it.

use std::sync::LazyLock;

use crate::broker::{Broker, Kind, free_port, program};

/// The broker that all tests share; names keep them apart.
pub(crate) fn shared() -> &'static Broker {
    static BROKER: LazyLock<Broker> = LazyLock::new(start);
    &BROKER
}

/// A broker of one's own.
pub(crate) fn start() -> Broker {
    start_with("")
}

/// A broker of one's own, with these lines beside the usual ones in its configuration.
pub(crate) fn start_with(lines: &str) -> Broker {
    // What is in /usr/sbin wants to be root or the user rabbitmq.
    let server = program(
        "rabbitmq-server",
        &["/usr/lib/rabbitmq/bin"],
        "rabbitmq-server",
    );
    let epmd = program("epmd", &[], "erlang-base");
    let (port, distribution, names) = (free_port(), free_port(), free_port());
    let script = format!(
        r#"
export ERL_EPMD_PORT={names} ERL_EPMD_ADDRESS=127.0.0.1
export RABBITMQ_NODENAME=test{port}@localhost RABBITMQ_DIST_PORT={distribution}
export RABBITMQ_MNESIA_BASE="$folder/mnesia" RABBITMQ_LOG_BASE="$folder/log" RABBITMQ_PID_FILE="$folder/pid"
export RABBITMQ_CONF_ENV_FILE="$folder/none" RABBITMQ_CONFIG_FILE="$folder/rabbitmq.conf" RABBITMQ_ENABLED_PLUGINS_FILE="$folder/plugins"
"{epmd}" -port {names} -address 127.0.0.1 &
epmd=$!
start() {{ rm -f "$folder/pid"; "{server}" & server=$!; }}
kill_hard() {{ [ ! -s "$folder/pid" ] || kill -9 $(cat "$folder/pid") || kill -9 $server; }}
stop_gently() {{ kill $(cat "$folder/pid"); }}
finish() {{ kill $epmd; wait $epmd; }}
"#,
        epmd = epmd.display(),
        server = server.display(),
    );
    let config = format!(
        "listeners.tcp.1 = 127.0.0.1:{port}\nlog.file = false\nlog.console = true\nlog.console.level = info\n{lines}"
    );
    Broker::start(&Kind {
        name: "rabbitmq",
        script,
        ready: "Server startup complete",
        files: &[("rabbitmq.conf", config), ("plugins", "[].".to_owned())],
        port,
    })
}
