//! How the daemon ends on a signal, and hears that it shall read its configuration again.
//!
//! The first SIGTERM or SIGINT stops it softly, the end of the grace cuts what still runs, and the second signal ends the
//! process at once. What must hold: nothing holds that up. So signals are heard on a thread of their own, which goes on when every
//! worker of the runtime is blocked, and which waits for no log line that cannot be written.

use std::{
    convert::Infallible,
    future::pending,
    io,
    pin::Pin,
    task::{Context, Poll},
    thread,
    time::Duration,
};

use futures_util::{Stream, StreamExt as _};
use tokio::{
    runtime::{self, Runtime},
    signal::unix::{self, SignalKind, signal},
    sync::oneshot,
    task::spawn_blocking,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::telemetry::ms;

/// How long a log line may take before it is left behind, as when nobody reads the pipe that it goes to.
const LOGGED_WITHIN: Duration = Duration::from_millis(200);

/// The two stages of stopping. Clones are of the same daemon.
#[derive(Clone, Debug, Default)]
pub struct Shutdown {
    /// Take on nothing new, and finish or give back what is in hand.
    pub soft: CancellationToken,
    /// Drop what is in hand.
    pub cut: CancellationToken,
}

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// That the daemon ends.
    Stop(Stop),
    /// That it reads its configuration again: SIGHUP.
    Reload,
}

/// A signal to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// SIGINT: Ctrl-C.
    Interrupt,
    /// SIGTERM.
    Terminate,
}

impl Stop {
    /// The signal's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Interrupt => "SIGINT",
            Self::Terminate => "SIGTERM",
        }
    }

    /// The exit code of a process that it ended at once: 128 and its number.
    #[must_use]
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Interrupt => 130,
            Self::Terminate => 143,
        }
    }
}

/// Why no signals are heard.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system refuses what it takes.
    #[error("signals cannot be handled")]
    Unheard(#[from] io::Error),
}

/// Hears signals from now on, as [`watch`] does, on a thread of its own, until the answer is dropped.
///
/// The answer is the second signal to stop: the process must then end at once with [`Stop::exit_code`], so without dropping the
/// runtime, which would wait for what is blocked (`Runtime::shutdown_background`). None comes in a stop in order. An error in its
/// place means that `reload` panicked, and that signals are heard no more.
///
/// # Errors
///
/// When the operating system gives no thread or takes no handlers.
pub async fn start(
    shutdown: Shutdown,
    grace: Duration,
    reload: impl FnMut() + Send + 'static,
) -> Result<oneshot::Receiver<Stop>, Error> {
    let (started, starts) = oneshot::channel();
    let (mut second, answer) = oneshot::channel();
    let hear_them = move || {
        let (runtime, signals) = match hear() {
            Ok(heard) => heard,
            Err(error) => {
                started.send(Err(error)).ok();
                return;
            }
        };
        if started.send(Ok(())).is_err() {
            return;
        }
        let stop = runtime.block_on(async {
            tokio::select! {
                stop = watch(signals, &shutdown, grace, reload) => Some(stop),
                () = second.closed() => None,
            }
        });
        if let Some(stop) = stop {
            second.send(stop).ok();
        }
        runtime.shutdown_background();
    };
    thread::Builder::new()
        .name("signals".to_owned())
        .spawn(hear_them)?;
    let ended = |_| io::Error::other("the thread for signals ended");
    starts.await.map_err(ended)??;
    Ok(answer)
}

/// Stops the daemon as signals ask, and gives the second that asks for it.
///
/// The first cancels `soft`; so may the daemon itself, and then the next signal is the first. `grace` after `soft` it cancels
/// `cut`. SIGHUP calls `reload`, which must return at once, unless the daemon is stopping.
pub async fn watch(
    mut signals: impl Stream<Item = Signal> + Unpin,
    shutdown: &Shutdown,
    grace: Duration,
    mut reload: impl FnMut(),
) -> Stop {
    let Shutdown { soft, cut } = shutdown;
    let cutting = async {
        soft.cancelled().await;
        sleep(grace).await;
        // First, for the process may end as soon as all is cut.
        log(move || {
            let grace_ms = ms(grace);
            tracing::warn!(
                event = "daemon.cutting",
                grace_ms,
                "what still runs is dropped"
            );
        })
        .await;
        cut.cancel();
        pending::<Infallible>().await
    };
    let stopping = async {
        let mut asked = false;
        loop {
            match signals.next().await {
                Some(Signal::Reload) if soft.is_cancelled() => {}
                Some(Signal::Reload) => reload(),
                Some(Signal::Stop(stop)) if asked => {
                    log(move || {
                        let signal = stop.name();
                        tracing::warn!(event = "daemon.aborted", signal, "ended at once");
                    })
                    .await;
                    return stop;
                }
                Some(Signal::Stop(stop)) => {
                    asked = true;
                    // First, so that the lines come in order.
                    log(move || {
                        let signal = stop.name();
                        tracing::info!(event = "daemon.stopping", signal, "no more work is begun");
                    })
                    .await;
                    soft.cancel();
                }
                // No more will come.
                None => pending().await,
            }
        }
    };
    tokio::select! {
        stop = stopping => stop,
        never = cutting => match never {},
    }
}

/// Writes a line from where it may block for ever, and waits no longer than for a moment.
async fn log(line: impl FnOnce() + Send + 'static) {
    timeout(LOGGED_WITHIN, spawn_blocking(line)).await.ok();
}

/// What signals ask this process for, without end.
#[derive(Debug)]
struct Signals {
    interrupt: unix::Signal,
    terminate: unix::Signal,
    hangup: unix::Signal,
}

/// Takes the signals, with a runtime to hear them on.
fn hear() -> io::Result<(Runtime, Signals)> {
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let entered = runtime.enter();
    let signals = Signals {
        interrupt: signal(SignalKind::interrupt())?,
        terminate: signal(SignalKind::terminate())?,
        hangup: signal(SignalKind::hangup())?,
    };
    drop(entered);
    Ok((runtime, signals))
}

impl Stream for Signals {
    type Item = Signal;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Signal>> {
        let Self {
            interrupt,
            terminate,
            hangup,
        } = &mut *self;
        for (source, signal) in [
            (terminate, Signal::Stop(Stop::Terminate)),
            (interrupt, Signal::Stop(Stop::Interrupt)),
            (hangup, Signal::Reload),
        ] {
            if let Poll::Ready(Some(())) = source.poll_recv(cx) {
                return Poll::Ready(Some(signal));
            }
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc as blocking;

    use futures_util::{FutureExt as _, stream};
    use rustix::process::{self, getpid, kill_process};
    use tokio::{sync::mpsc, time::Instant};

    use super::*;

    const GRACE: Duration = Duration::from_secs(10);
    const PATIENCE: Duration = Duration::from_mins(1);
    const MILLISECOND: Duration = Duration::from_millis(1);

    /// Signals that a test sends.
    fn channel() -> (
        mpsc::UnboundedSender<Signal>,
        impl Stream<Item = Signal> + Unpin,
    ) {
        let (sender, mut receiver) = mpsc::unbounded_channel();
        (sender, stream::poll_fn(move |cx| receiver.poll_recv(cx)))
    }

    async fn within<F: Future>(it: F) -> F::Output {
        timeout(PATIENCE, it).await.expect("it ends")
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_signal_stops_softly_and_the_end_of_the_grace_cuts() {
        let shutdown = Shutdown::default();
        let (sender, signals) = channel();
        let watching = watch(signals, &shutdown, GRACE, || {});
        let story = async {
            sender.send(Signal::Stop(Stop::Terminate)).unwrap();
            shutdown.soft.cancelled().await;
            let stopped_at = Instant::now();
            assert!(!shutdown.cut.is_cancelled());
            shutdown.cut.cancelled().await;
            let grace = stopped_at.elapsed();
            assert!(
                grace >= GRACE && grace <= GRACE + 2 * MILLISECOND,
                "{grace:?}"
            );
        };
        tokio::select! {
            () = story => {}
            stop = watching => panic!("{stop:?} was taken for the second"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_second_signal_ends_it_at_once_before_the_grace_is_over_or_after() {
        for wait in [MILLISECOND, 2 * GRACE] {
            let shutdown = Shutdown::default();
            let (sender, signals) = channel();
            let mut watching = Box::pin(watch(signals, &shutdown, GRACE, || {}));
            sender.send(Signal::Stop(Stop::Interrupt)).unwrap();
            assert!(timeout(wait, &mut watching).await.is_err());
            assert_eq!(shutdown.cut.is_cancelled(), wait > GRACE);
            sender.send(Signal::Stop(Stop::Terminate)).unwrap();
            assert_eq!(within(watching).await, Stop::Terminate);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_reload_stops_nothing_and_is_not_begun_while_stopping() {
        let shutdown = Shutdown::default();
        let (sender, signals) = channel();
        let mut reloads = 0;
        let mut watching = Box::pin(watch(signals, &shutdown, GRACE, || reloads += 1));
        sender.send(Signal::Reload).unwrap();
        sender.send(Signal::Reload).unwrap();
        assert!((&mut watching).now_or_never().is_none());
        assert!(!shutdown.soft.is_cancelled());
        for signal in [
            Signal::Stop(Stop::Terminate),
            Signal::Reload,
            Signal::Stop(Stop::Terminate),
        ] {
            sender.send(signal).unwrap();
        }
        assert_eq!(within(watching).await, Stop::Terminate);
        assert_eq!(reloads, 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_daemon_that_stops_itself_is_cut_too_and_the_next_signal_is_the_first() {
        let shutdown = Shutdown::default();
        let (sender, signals) = channel();
        let mut watching = Box::pin(watch(signals, &shutdown, GRACE, || {}));
        assert!((&mut watching).now_or_never().is_none());
        shutdown.soft.cancel();
        assert!((&mut watching).now_or_never().is_none());
        sender.send(Signal::Stop(Stop::Terminate)).unwrap();
        assert!(timeout(2 * GRACE, &mut watching).await.is_err());
        assert!(shutdown.cut.is_cancelled());
        sender.send(Signal::Stop(Stop::Interrupt)).unwrap();
        assert_eq!(within(watching).await, Stop::Interrupt);
    }

    #[tokio::test]
    async fn a_log_line_that_cannot_be_written_holds_nothing_up() {
        let (release, blocked) = blocking::channel::<()>();
        log(move || {
            blocked.recv().ok();
        })
        .await;
        drop(release);
    }

    #[test]
    fn an_exit_code_is_128_and_the_signals_number() {
        for (stop, kind) in [
            (Stop::Interrupt, SignalKind::interrupt()),
            (Stop::Terminate, SignalKind::terminate()),
        ] {
            assert_eq!(i32::from(stop.exit_code()), 128 + kind.as_raw_value());
        }
    }

    /// This process gets the signals, which its handlers take from then on. No other test of this binary may listen to them.
    #[test]
    fn signals_are_heard_while_the_runtime_is_blocked() {
        let shutdown = Shutdown::default();
        let (reload, reloaded) = blocking::channel();
        let runtime = runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        let heard = start(shutdown.clone(), 1_000 * GRACE, move || {
            reload.send(()).unwrap();
        });
        // Nothing runs on it from then on.
        let second = runtime.block_on(heard).unwrap();
        let send = |signal| kill_process(getpid(), signal).unwrap();
        send(process::Signal::HUP);
        reloaded.recv_timeout(PATIENCE).unwrap();
        send(process::Signal::TERM);
        let since = std::time::Instant::now();
        while !shutdown.soft.is_cancelled() {
            assert!(since.elapsed() < PATIENCE);
            thread::yield_now();
        }
        send(process::Signal::INT);
        assert_eq!(runtime.block_on(within(second)), Ok(Stop::Interrupt));
    }
}
