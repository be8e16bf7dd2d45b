//! Listeners below HTTP: one that counts who comes, and one that answers with any bytes.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;

/// A listener that nothing of ours is to connect to.
pub(crate) struct Foreign {
    pub(crate) address: SocketAddr,
    counted: Arc<AtomicUsize>,
    controls: AtomicUsize,
    _accepting: JoinSet<()>,
}

impl Foreign {
    /// Listens on this address; none when this machine has no such address.
    pub(crate) async fn at(address: &str) -> Option<Self> {
        let listener = TcpListener::bind(address).await.ok()?;
        let address = listener.local_addr().unwrap();
        let counted = Arc::new(AtomicUsize::new(0));
        let came = Arc::clone(&counted);
        let mut accepting = JoinSet::new();
        accepting.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                came.fetch_add(1, Ordering::SeqCst);
                drop(stream);
            }
        });
        Some(Self {
            address,
            counted,
            controls: AtomicUsize::new(0),
            _accepting: accepting,
        })
    }

    /// How many have connected. Connections are taken in their order, so that this one's own comes after all of them.
    pub(crate) async fn connections(&self) -> usize {
        let mut own = TcpStream::connect(self.address).await.unwrap();
        let ended = own.read(&mut [0]).await;
        assert!(!matches!(ended, Ok(1..)), "it says nothing");
        let controls = 1 + self.controls.fetch_add(1, Ordering::SeqCst);
        self.counted.load(Ordering::SeqCst) - controls
    }
}

/// What a raw server sends upon a request, before it closes the connection.
pub(crate) struct Script {
    pieces: Box<dyn Iterator<Item = Vec<u8>> + Send>,
    pause: Duration,
}

impl Script {
    /// A head, and a body until the connection ends.
    pub(crate) fn answer(
        status: u16,
        headers: &str,
        body: impl IntoIterator<Item = Vec<u8>, IntoIter: Send + 'static>,
    ) -> Self {
        let head = format!("HTTP/1.1 {status} X\r\nconnection: close\r\n{headers}\r\n");
        Self::bytes(std::iter::once(head.into_bytes()).chain(body))
    }

    /// These bytes, whatever they mean.
    pub(crate) fn bytes(pieces: impl Iterator<Item = Vec<u8>> + Send + 'static) -> Self {
        Self {
            pieces: Box::new(pieces),
            pause: Duration::ZERO,
        }
    }

    /// With a pause before each piece.
    pub(crate) fn every(self, pause: Duration) -> Self {
        Self { pause, ..self }
    }
}

/// A server that answers each request by a script.
pub(crate) struct Raw {
    pub(crate) address: SocketAddr,
    heads: Arc<Mutex<Vec<String>>>,
    _accepting: JoinSet<()>,
}

impl Raw {
    /// Over TCP.
    pub(crate) async fn serving(script: impl Fn() -> Script + Send + Sync + 'static) -> Self {
        Self::over(None, script).await
    }

    /// Over TLS when there is an acceptor.
    pub(crate) async fn over(
        tls: Option<TlsAcceptor>,
        script: impl Fn() -> Script + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let heads = Arc::<Mutex<Vec<String>>>::default();
        let seen = Arc::clone(&heads);
        let mut accepting = JoinSet::new();
        accepting.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (tls, seen, script) = (tls.clone(), Arc::clone(&seen), script());
                connections.spawn(async move {
                    match tls {
                        None => answer(stream, &seen, script).await,
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                answer(stream, &seen, script).await;
                            }
                        }
                    }
                });
            }
        });
        Self {
            address,
            heads,
            _accepting: accepting,
        }
    }

    /// The heads of the requests so far.
    pub(crate) fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }
}

/// Until the script or the client's patience ends.
async fn answer(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    seen: &Mutex<Vec<String>>,
    script: Script,
) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let Ok(byte) = stream.read_u8().await else {
            return;
        };
        head.push(byte);
    }
    seen.lock()
        .unwrap()
        .push(String::from_utf8_lossy(&head).into_owned());
    for piece in script.pieces {
        if !script.pause.is_zero() {
            tokio::time::sleep(script.pause).await;
        }
        if stream.write_all(&piece).await.is_err() || stream.flush().await.is_err() {
            return;
        }
    }
    stream.shutdown().await.ok();
}
