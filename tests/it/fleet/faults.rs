//! What is broken, when, and for how long: all of it follows from the seed.

use std::time::Duration;

use super::Size;
use crate::random::Random;

/// What can be broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// SIGKILL of a worker, and another in its place.
    Kill,
    /// SIGSTOP of a worker until its leases are over, and SIGCONT.
    Stop,
    /// SIGTERM of a worker, and another in its place.
    Terminated,
    /// SIGTERM of a worker, and again at once.
    TerminatedTwice,
    /// A transaction of somebody else's that writes to the SQLite file, and stays open.
    Locked,
    /// `kill -9` of the Postgres postmaster, and its start.
    DatabaseKilled,
    /// All sessions of workers ended by Postgres.
    SessionsEnded,
    /// Connections to the database reset.
    DatabaseCut,
    /// Connections to the database that pass nothing on.
    DatabaseSilent,
    /// `kill -9` of the NATS server, and its start with its streams.
    BrokerKilled,
    /// Connections to the broker reset.
    BrokerCut,
    /// Connections to the broker that pass nothing on.
    BrokerSilent,
}

impl Kind {
    /// What can be broken over Postgres and NATS.
    pub(super) const ON_SERVERS: [Self; 11] = [
        Self::Kill,
        Self::Stop,
        Self::Terminated,
        Self::TerminatedTwice,
        Self::DatabaseKilled,
        Self::SessionsEnded,
        Self::DatabaseCut,
        Self::DatabaseSilent,
        Self::BrokerKilled,
        Self::BrokerCut,
        Self::BrokerSilent,
    ];

    /// What can be broken over one SQLite file.
    pub(super) const ON_SQLITE: [Self; 5] = [
        Self::Kill,
        Self::Stop,
        Self::Terminated,
        Self::TerminatedTwice,
        Self::Locked,
    ];

    /// As settings and the diary have it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::Stop => "stop",
            Self::Terminated => "terminated",
            Self::TerminatedTwice => "terminated_twice",
            Self::Locked => "locked",
            Self::DatabaseKilled => "database_killed",
            Self::SessionsEnded => "sessions_ended",
            Self::DatabaseCut => "database_cut",
            Self::DatabaseSilent => "database_silent",
            Self::BrokerKilled => "broker_killed",
            Self::BrokerCut => "broker_cut",
            Self::BrokerSilent => "broker_silent",
        }
    }

    /// Whether one worker is hit, and nobody else.
    pub(super) fn is_of_a_worker(self) -> bool {
        matches!(
            self,
            Self::Kill | Self::Stop | Self::Terminated | Self::TerminatedTwice
        )
    }
}

/// Something that is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) kind: Kind,
    /// Which worker, where it is one.
    pub(super) worker: usize,
    /// How long it lasts, where it lasts.
    pub(super) lasts: Duration,
    /// The pause after it until the next begins.
    pub(super) rest: Duration,
}

/// The faults, one after the other, for ever.
pub(super) struct Plan {
    random: Random,
    kinds: Vec<Kind>,
    /// Those that are still to come before each comes again.
    left: Vec<Kind>,
    workers: usize,
    lease: Duration,
    most_rest: Duration,
}

impl Plan {
    pub(super) fn new(size: &Size) -> Self {
        Self {
            // Apart from the numbers of which requests and edits are made.
            random: Random(size.seed ^ 0xfa17),
            kinds: size.kinds.clone(),
            left: Vec::new(),
            workers: size.workers,
            lease: size.lease,
            most_rest: size.rest,
        }
    }
}

impl Iterator for Plan {
    type Item = Fault;

    fn next(&mut self) -> Option<Fault> {
        let random = &mut self.random;
        if self.left.is_empty() {
            self.left.clone_from(&self.kinds);
        }
        let kind = self.left.swap_remove(random.below(self.left.len()));
        let worker = random.below(self.workers);
        let part = Duration::from_millis(random.next() % 1_500);
        let lasts = match kind {
            Kind::Stop => self.lease + Duration::from_millis(300) + part,
            Kind::DatabaseKilled | Kind::BrokerKilled => part,
            Kind::Locked => Duration::from_millis(500) + part,
            // Now shorter than a lease, now longer.
            Kind::DatabaseSilent | Kind::BrokerSilent => {
                self.lease / 2 + part * 2 + Duration::from_millis(500)
            }
            Kind::Kill
            | Kind::Terminated
            | Kind::TerminatedTwice
            | Kind::SessionsEnded
            | Kind::DatabaseCut
            | Kind::BrokerCut => Duration::ZERO,
        };
        let rest = self.most_rest * u32::try_from(random.between(30, 100)).unwrap() / 100;
        Some(Fault {
            kind,
            worker,
            lasts,
            rest,
        })
    }
}

#[test]
fn a_seed_gives_the_same_faults_again() {
    let plan = |seed| -> Vec<Fault> {
        let size = Size {
            seed,
            ..Size::new(3, 0, &Kind::ON_SERVERS)
        };
        Plan::new(&size).take(300).collect()
    };
    assert_eq!(plan(7), plan(7));
    assert_ne!(plan(7), plan(8));
    let size = Size::new(3, 0, &Kind::ON_SERVERS);
    for kind in &size.kinds {
        assert!(plan(7).iter().any(|fault| fault.kind == *kind), "{kind:?}");
    }
    for fault in plan(7).iter().filter(|it| it.kind == Kind::Stop) {
        assert!(fault.lasts > size.lease, "{fault:?}");
    }
}
