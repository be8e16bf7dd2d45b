//! NATS servers for the tests: one for the test binary, and others that a test may kill.

use std::sync::LazyLock;

use crate::broker::{Broker, Kind, free_port, program};

/// The server that all tests share; names keep them apart.
pub(crate) fn shared() -> &'static Broker {
    static SERVER: LazyLock<Broker> = LazyLock::new(|| start(""));
    &SERVER
}

/// A server of one's own, with these arguments beside the usual ones.
pub(crate) fn start(arguments: &str) -> Broker {
    let program = program("nats-server", &["/usr/sbin"], "nats-server");
    let port = free_port();
    let script = format!(
        r#"
start() {{ "{}" -a 127.0.0.1 -p {port} -js -sd "$folder/data" {arguments} & server=$!; }}
kill_hard() {{ kill -9 $server; }}
stop_gently() {{ kill $server; }}
finish() {{ :; }}
"#,
        program.display()
    );
    Broker::start(&Kind {
        name: "nats",
        script,
        ready: "Server is ready",
        files: &[],
        port,
    })
}
