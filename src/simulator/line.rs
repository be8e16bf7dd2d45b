//! Connections: accepting them, serving them, and breaking them on purpose.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

/// The pause after a failed accept, as when descriptors run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// Accepts connections until it is dropped, which ends them all.
pub(super) async fn accept(listener: TcpListener, tls: Option<TlsAcceptor>, router: Router) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(connection(stream, tls.clone(), router.clone()));
                }
                Err(error) => {
                    tracing::debug!(event = "simulator.not_accepted", error.sentence = %error, "a connection was not accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn connection(stream: TcpStream, tls: Option<TlsAcceptor>, router: Router) {
    // A small answer must not wait for the acknowledgement of the one before.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(event = "simulator.line_unset", error.sentence = %error, "nodelay failed");
    }
    let line = Line::default();
    let wire = Wire {
        stream,
        reset: Arc::clone(&line.reset),
    };
    match tls {
        None => serve(wire, line, router).await,
        Some(tls) => match tls.accept(wire).await {
            Ok(stream) => serve(stream, line, router).await,
            Err(error) => {
                tracing::debug!(event = "simulator.no_tls", error.sentence = %error, "no TLS session");
            }
        },
    }
}

async fn serve<I>(io: I, line: Line, router: Router)
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let router = TowerToHyperService::new(router);
    let of_request = line.clone();
    let service = service_fn(move |mut request: hyper::Request<hyper::body::Incoming>| {
        request.extensions_mut().insert(of_request.clone());
        router.call(request)
    });
    let builder = Builder::new(TokioExecutor::new());
    tokio::select! {
        served = builder.serve_connection(TokioIo::new(io), service) => {
            if let Err(error) = served {
                tracing::debug!(event = "simulator.line_ended", error.sentence = %error, "a connection ended");
            }
        }
        () = line.cut.notified() => {}
    }
}

/// The connection that a request came by.
#[derive(Clone, Debug, Default)]
pub(super) struct Line {
    reset: Arc<AtomicBool>,
    cut: Arc<Notify>,
}

impl Line {
    /// Drops the connection at once; the peer sees a reset.
    pub(super) fn reset(&self) {
        self.reset.store(true, Ordering::SeqCst);
        self.cut.notify_one();
    }

    /// Waits until it was dropped so.
    pub(super) async fn was_cut(&self) {
        self.cut.notified().await;
    }
}

/// A TCP stream that can be closed with a reset instead of a goodbye.
#[derive(Debug)]
struct Wire {
    stream: TcpStream,
    reset: Arc<AtomicBool>,
}

impl Drop for Wire {
    fn drop(&mut self) {
        if self.reset.load(Ordering::SeqCst)
            && let Err(error) = self.stream.set_zero_linger()
        {
            tracing::debug!(event = "simulator.line_unset", error.sentence = %error, "zero linger failed");
        }
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
