//! Tells the service manager how the daemon fares, as `sd_notify(3)` describes.
//!
//! Without a service manager nothing is told. What must hold: the service manager never holds the daemon up, and the watchdog is
//! fed only while every loop goes round, so that a daemon that hangs is started again.

use std::{
    future::pending,
    io,
    os::unix::net::{SocketAddr, UnixDatagram},
    time::Duration,
};

use sd_notify::NotifyState;
use tokio::time::{MissedTickBehavior, interval};

use super::pulse::Pulse;

/// How long a message may wait for a service manager that does not read.
const TOLD_WITHIN: Duration = Duration::from_secs(1);

/// The service manager, if there is one.
#[derive(Clone, Debug)]
pub struct Manager {
    address: Option<SocketAddr>,
    watchdog: Option<Duration>,
}

/// Why the service manager cannot be told.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no such socket.
    #[error("NOTIFY_SOCKET is '{address}'; it must be a path, or a name that begins with '@'")]
    Address {
        /// The variable's value.
        address: String,
        /// What is wrong with it, where it looks like one.
        source: Option<io::Error>,
    },
    /// The time within which the watchdog wants to be fed is not one.
    #[error("WATCHDOG_USEC is '{0}'; it must be a number of microseconds")]
    Watchdog(String),
}

impl Manager {
    /// The service manager that the environment names, and its watchdog if it is meant for the process of this id.
    ///
    /// # Errors
    ///
    /// When what it names is not understood: unnoticed, the service manager would take the daemon for one that never starts.
    pub fn new(
        env: impl IntoIterator<Item = (String, String)>,
        process_id: u32,
    ) -> Result<Self, Error> {
        let (mut address, mut watchdog, mut watched) = (None, None, true);
        for (name, value) in env {
            match name.as_str() {
                _ if value.is_empty() => {}
                "NOTIFY_SOCKET" => address = Some(parse_address(value)?),
                "WATCHDOG_PID" => watched = value == process_id.to_string(),
                "WATCHDOG_USEC" => match value.parse() {
                    Ok(0) | Err(_) => return Err(Error::Watchdog(value)),
                    Ok(microseconds) => watchdog = Some(Duration::from_micros(microseconds)),
                },
                _ => {}
            }
        }
        let watchdog = watchdog.filter(|_| watched && address.is_some());
        Ok(Self { address, watchdog })
    }

    /// Says that the daemon is at work, be it at first or after a reload.
    pub fn ready(&self, status: &str) {
        self.tell(&[NotifyState::Ready, NotifyState::Status(&line(status))]);
    }

    /// Says that the configuration is read again; [`Manager::ready`] must follow.
    pub fn reloading(&self) {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => self.tell(&[NotifyState::Reloading, now]),
            Err(error) => unheard(&error),
        }
    }

    /// Says that the daemon is about to end.
    pub fn stopping(&self, status: &str) {
        self.tell(&[NotifyState::Stopping, NotifyState::Status(&line(status))]);
    }

    /// Says what the daemon is about, for `systemctl status`.
    pub fn status(&self, status: &str) {
        self.tell(&[NotifyState::Status(&line(status))]);
    }

    /// Feeds the watchdog, twice as often as it wants, while every loop goes round. It never ends.
    pub async fn feed_watchdog(&self, pulse: &Pulse) {
        let Some(watchdog) = self.watchdog else {
            return pending().await;
        };
        let mut ticks = interval((watchdog / 2).max(Duration::from_millis(1)));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut hungry = false;
        loop {
            ticks.tick().await;
            let stale = pulse.stale();
            if stale.is_empty() {
                self.tell(&[NotifyState::Watchdog]);
            } else if !hungry {
                let loops: Vec<&str> = stale.iter().map(|(name, _)| *name).collect();
                tracing::error!(
                    event = "daemon.stalled",
                    loops = loops.join(", "),
                    "the service manager will start it again"
                );
            }
            hungry = !stale.is_empty();
        }
    }

    fn tell(&self, states: &[NotifyState<'_>]) {
        if let Some(address) = &self.address
            && let Err(error) = send(address, states)
        {
            unheard(&error);
        }
    }
}

/// By a socket for each message, as the service manager may have been started anew.
fn send(address: &SocketAddr, states: &[NotifyState<'_>]) -> io::Result<()> {
    let lines: Vec<String> = states.iter().map(ToString::to_string).collect();
    let socket = UnixDatagram::unbound()?;
    socket.set_write_timeout(Some(TOLD_WITHIN))?;
    // A datagram goes as a whole or not at all.
    socket.send_to_addr(lines.join("\n").as_bytes(), address)?;
    Ok(())
}

fn unheard(error: &io::Error) {
    tracing::warn!(event = "systemd.unheard", error.sentence = %error, "the service manager was not told");
}

fn parse_address(value: String) -> Result<SocketAddr, Error> {
    let parsed = match (value.strip_prefix('@'), value.starts_with('/')) {
        (Some(name), _) => abstract_address(name),
        (None, true) => SocketAddr::from_pathname(&value),
        (None, false) => {
            return Err(Error::Address {
                address: value,
                source: None,
            });
        }
    };
    parsed.map_err(|source| Error::Address {
        address: value,
        source: Some(source),
    })
}

#[cfg(target_os = "linux")]
fn abstract_address(name: &str) -> io::Result<SocketAddr> {
    use std::os::linux::net::SocketAddrExt as _;

    SocketAddr::from_abstract_name(name)
}

#[cfg(not(target_os = "linux"))]
fn abstract_address(_: &str) -> io::Result<SocketAddr> {
    Err(io::ErrorKind::Unsupported.into())
}

/// A line break would begin a message of its own.
fn line(status: &str) -> String {
    status.replace(['\n', '\r'], " ")
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use tempfile::TempDir;
    use tokio::time::advance;

    use super::*;

    const PROCESS: u32 = 4_711;

    fn manager(env: &[(&str, &str)]) -> Result<Manager, Error> {
        let env = env
            .iter()
            .map(|&(name, value)| (name.to_owned(), value.to_owned()));
        Manager::new(env, PROCESS)
    }

    /// The end of the service manager.
    struct Ear {
        socket: UnixDatagram,
        path: String,
        _folder: TempDir,
    }

    impl Ear {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("notify").to_str().unwrap().to_owned();
            let socket = UnixDatagram::bind(&path).unwrap();
            socket.set_nonblocking(true).unwrap();
            Self {
                socket,
                path,
                _folder: folder,
            }
        }

        /// What it was told since.
        fn told(&self) -> Vec<String> {
            let mut buffer = [0; 1_024];
            std::iter::from_fn(|| {
                let length = self.socket.recv(&mut buffer).ok()?;
                Some(String::from_utf8(buffer[..length].to_vec()).unwrap())
            })
            .collect()
        }
    }

    #[test]
    fn the_service_manager_hears_of_the_daemons_life() {
        let ear = Ear::new();
        let manager = manager(&[("HOME", "/"), ("NOTIFY_SOCKET", &ear.path)]).unwrap();
        manager.ready("12 projects");
        manager.reloading();
        manager.clone().status("one\nREADY=0");
        manager.stopping("3 runs to finish");
        let told = ear.told();
        assert_eq!(told.len(), 4, "{told:?}");
        assert_eq!(told[0], "READY=1\nSTATUS=12 projects");
        let (reloading, now) = told[1].split_once("\nMONOTONIC_USEC=").unwrap();
        assert_eq!(reloading, "RELOADING=1");
        assert!(now.parse::<u64>().unwrap() > 0);
        assert_eq!(told[2], "STATUS=one READY=0");
        assert_eq!(told[3], "STOPPING=1\nSTATUS=3 runs to finish");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_service_manager_may_have_an_abstract_socket() {
        let name = format!("catalog-sync-test-{}", std::process::id());
        let address = abstract_address(&name).unwrap();
        let socket = UnixDatagram::bind_addr(&address).unwrap();
        socket.set_nonblocking(true).unwrap();
        let address = format!("@{name}");
        let manager = manager(&[("NOTIFY_SOCKET", &address)]).unwrap();
        manager.status("here");
        let mut buffer = [0; 64];
        assert_eq!(socket.recv(&mut buffer).unwrap(), b"STATUS=here".len());
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_service_manager_nothing_is_told() {
        let nobody = manager(&[("NOTIFY_SOCKET", ""), ("WATCHDOG_USEC", "1000000")]).unwrap();
        nobody.ready("");
        nobody.reloading();
        nobody.stopping("");
        let pulse = Pulse::default();
        let mut feeding = Box::pin(nobody.feed_watchdog(&pulse));
        assert!((&mut feeding).now_or_never().is_none());
        assert_eq!(nobody.watchdog, None);
    }

    #[test]
    fn a_service_manager_that_went_away_or_does_not_read_is_no_error() {
        let ear = Ear::new();
        let manager = manager(&[("NOTIFY_SOCKET", &ear.path)]).unwrap();
        // Until its queue is full.
        let full = std::iter::repeat_with(|| send(manager.address.as_ref().unwrap(), &[]))
            .take(10_000)
            .find_map(Result::err);
        assert_eq!(full.unwrap().kind(), io::ErrorKind::WouldBlock);
        drop(ear);
        manager.ready("");
    }

    #[tokio::test(start_paused = true)]
    async fn the_watchdog_is_fed_only_while_every_loop_goes_round() {
        let ear = Ear::new();
        let id = PROCESS.to_string();
        let manager = manager(&[
            ("WATCHDOG_PID", &id),
            ("WATCHDOG_USEC", "60000000"),
            ("NOTIFY_SOCKET", &ear.path),
        ])
        .unwrap();
        let pulse = Pulse::default();
        let beat = pulse.register("schedule", Duration::from_secs(45));
        let mut feeding = Box::pin(manager.feed_watchdog(&pulse));
        let mut fed = async |seconds| {
            advance(Duration::from_secs(seconds)).await;
            assert!((&mut feeding).now_or_never().is_none());
            ear.told().len()
        };
        assert_eq!(fed(0).await, 1);
        assert_eq!(fed(29).await, 0);
        assert_eq!(fed(1).await, 1);
        // 60 s of silence.
        assert_eq!(fed(30).await, 0);
        assert_eq!(fed(30).await, 0);
        beat.beat();
        assert_eq!(fed(30).await, 1);
        drop(beat);
        assert_eq!(fed(30).await, 1);
        assert_eq!(fed(30).await, 1);
    }

    #[test]
    fn the_watchdog_of_another_process_is_not_ours() {
        let watchdog = |id: &str| {
            manager(&[
                ("NOTIFY_SOCKET", "/run/notify"),
                ("WATCHDOG_PID", id),
                ("WATCHDOG_USEC", "2000000"),
            ])
            .unwrap()
            .watchdog
        };
        assert_eq!(watchdog("1"), None);
        assert_eq!(watchdog("4711"), Some(Duration::from_secs(2)));
        assert_eq!(watchdog(""), Some(Duration::from_secs(2)));
    }

    #[test]
    fn what_is_not_understood_is_told_with_its_variable() {
        for address in ["vsock:2:1234", "notify", &format!("/{}", "x".repeat(200))] {
            let error = manager(&[("NOTIFY_SOCKET", address)]).unwrap_err();
            assert!(matches!(error, Error::Address { .. }));
            assert!(
                error.to_string().starts_with("NOTIFY_SOCKET is '"),
                "{error}"
            );
        }
        for microseconds in ["0", "1min", "-1"] {
            let error = manager(&[("WATCHDOG_USEC", microseconds)]).unwrap_err();
            assert!(
                error.to_string().starts_with("WATCHDOG_USEC is '"),
                "{error}"
            );
        }
    }
}
