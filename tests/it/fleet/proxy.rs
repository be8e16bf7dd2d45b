//! A way between workers and a server that can be cut and blocked.
//!
//! Whoever is to be sure of the server goes around it.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    sync::watch,
    task::JoinSet,
    time::sleep,
};

/// A listener before a server on this machine.
pub(super) struct Proxy {
    pub(super) port: u16,
    order: watch::Sender<Order>,
    _tasks: JoinSet<()>,
}

#[derive(Clone, Copy, Default)]
struct Order {
    /// Connections are accepted, and nothing is passed on.
    is_blocked: bool,
    /// How often all connections were cut so far.
    cuts: u64,
}

impl Proxy {
    /// Passes everything on to that port, after this delay each way: a server that is some way off is in the middle of
    /// something more often.
    pub(super) async fn before(server: u16, delay: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (order, orders) = watch::channel(Order::default());
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                connections.spawn(keep(client, server, orders.clone(), delay));
                while connections.try_join_next().is_some() {}
            }
        });
        Self {
            port,
            order,
            _tasks: tasks,
        }
    }

    /// Resets every connection. New ones pass.
    pub(super) fn cut(&self) {
        self.order.send_modify(|order| order.cuts += 1);
    }

    /// Holds everything back from now on, in connections old and new. What was sent is passed on once it is opened.
    pub(super) fn block(&self) {
        self.order.send_modify(|order| order.is_blocked = true);
    }

    /// Lets everything pass again.
    pub(super) fn open(&self) {
        self.order.send_modify(|order| order.is_blocked = false);
    }
}

/// Keeps a connection until either side ends it, or it is cut.
async fn keep(
    mut client: TcpStream,
    server: u16,
    mut orders: watch::Receiver<Order>,
    delay: Duration,
) {
    // However it ends, it is a reset.
    if client.set_zero_linger().is_err() || client.set_nodelay(true).is_err() {
        return;
    }
    let cuts = orders.borrow().cuts;
    let to_be_passed = orders.clone();
    let passing = async move {
        if pass_on(&to_be_passed).await.is_none() {
            return;
        }
        let Ok(mut server) = TcpStream::connect(("127.0.0.1", server)).await else {
            return;
        };
        if server.set_nodelay(true).is_err() {
            return;
        }
        // Halves that end without a word, so that nothing but a reset ends the connection.
        let (from_client, to_client) = client.split();
        let (from_server, to_server) = server.split();
        tokio::select! {
            () = forward(from_client, to_server, &to_be_passed, delay) => {}
            () = forward(from_server, to_client, &to_be_passed, delay) => {}
        }
    };
    tokio::select! {
        () = passing => {}
        _ = orders.wait_for(|order| order.cuts > cuts) => {}
    }
}

/// Waits until something may pass; none when the proxy is gone.
async fn pass_on(orders: &watch::Receiver<Order>) -> Option<()> {
    let mut orders = orders.clone();
    let opened = orders.wait_for(|order| !order.is_blocked).await;
    opened.ok().map(drop)
}

async fn forward(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    orders: &watch::Receiver<Order>,
    delay: Duration,
) {
    let mut bytes = vec![0; 16 << 10];
    while let Ok(read @ 1..) = from.read(&mut bytes).await {
        sleep(delay).await;
        if pass_on(orders).await.is_none() || to.write_all(&bytes[..read]).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::fixture::GENEROUS;
    use tokio::time::timeout;

    /// A server that says back what it hears.
    async fn echo(tasks: &mut JoinSet<()>) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(async move {
                    let (mut from, mut to) = stream.into_split();
                    tokio::io::copy(&mut from, &mut to).await.ok();
                });
            }
        });
        port
    }

    async fn said_back(stream: &mut TcpStream) -> std::io::Result<u8> {
        timeout(GENEROUS, stream.read_u8()).await.unwrap()
    }

    #[tokio::test]
    async fn what_is_sent_passes_is_held_back_and_is_cut() {
        let mut tasks = JoinSet::new();
        let server = echo(&mut tasks).await;
        let proxy = Proxy::before(server, Duration::from_millis(1)).await;
        let mut old = TcpStream::connect(("127.0.0.1", proxy.port)).await.unwrap();
        old.write_u8(1).await.unwrap();
        assert_eq!(said_back(&mut old).await.unwrap(), 1);

        proxy.block();
        let mut new = TcpStream::connect(("127.0.0.1", proxy.port)).await.unwrap();
        for stream in [&mut old, &mut new] {
            stream.write_u8(2).await.unwrap();
            let silence = timeout(Duration::from_millis(50), stream.read_u8()).await;
            assert!(silence.is_err(), "{silence:?}");
        }
        proxy.open();
        assert_eq!(said_back(&mut old).await.unwrap(), 2);
        assert_eq!(said_back(&mut new).await.unwrap(), 2);

        proxy.cut();
        for stream in [&mut old, &mut new] {
            let error = said_back(stream).await.unwrap_err();
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
        }
        let mut newer = TcpStream::connect(("127.0.0.1", proxy.port)).await.unwrap();
        newer.write_u8(3).await.unwrap();
        assert_eq!(said_back(&mut newer).await.unwrap(), 3);
    }
}
