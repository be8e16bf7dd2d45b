//! Requests that come in and changes that go out through brokers, whatever dies in between.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use tokio::task::{block_in_place, spawn_blocking};

use super::fixture::{Daemon, SHORT_LEASE, Sql, app_id, house, name, teams};
use crate::{
    broker::Broker,
    house::{Backend, House},
    nats,
    queue::{Listener, Place, Read, on_nats::OnNats, on_rabbitmq::OnRabbitMq, outages},
    rabbitmq,
};

/// A kind of broker.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Nats,
    RabbitMq,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Nats => "nats",
            Self::RabbitMq => "rabbitmq",
        }
    }

    /// A database for each, so that both have their turn.
    fn backend(self) -> Backend {
        match self {
            Self::Nats => Backend::Postgres,
            Self::RabbitMq => Backend::Sqlite,
        }
    }

    /// Names of one's own on the broker that all tests share.
    async fn place(self) -> Place<'static> {
        let shared = move || -> &'static Broker {
            match self {
                Self::Nats => nats::shared(),
                Self::RabbitMq => rabbitmq::shared(),
            }
        };
        self.place_at(spawn_blocking(shared).await.unwrap().port)
    }

    fn place_at(self, port: u16) -> Place<'static> {
        match self {
            Self::Nats => Place::new(&OnNats, port),
            Self::RabbitMq => Place::new(&OnRabbitMq, port),
        }
    }

    fn variables(self, place: &Place<'_>) -> [(String, String); 2] {
        let url = match self {
            Self::Nats => format!("nats://127.0.0.1:{}", place.port),
            Self::RabbitMq => format!("amqp://guest:guest@127.0.0.1:{}", place.port),
        };
        let section = self.name().to_uppercase();
        [
            (format!("CATALOG_SYNC_{section}__URL"), url),
            (
                format!("CATALOG_SYNC_{section}__PREFIX"),
                place.prefix.clone(),
            ),
        ]
    }
}

async fn start(house: &House, places: &[(Kind, &Place<'_>)]) -> Daemon {
    let variables: Vec<_> = places
        .iter()
        .flat_map(|(kind, place)| kind.variables(place))
        .collect();
    let variables: Vec<_> = variables
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .chain(SHORT_LEASE)
        .collect();
    Daemon::start(house, &variables).await
}

fn request(project: &str, reason: &str) -> String {
    json!({ "version": 1, "project": project, "reason": reason }).to_string()
}

/// The next changes until there are that many, repeats left out.
async fn read(listener: &mut dyn Listener, count: usize) -> Vec<Read> {
    let mut ids = BTreeSet::new();
    let mut changes = Vec::new();
    while changes.len() < count {
        let change = listener.next().await;
        if ids.insert(change.id.clone()) {
            changes.push(change);
        }
    }
    changes
}

/// What was read is what the log has, in its order for each project.
async fn assert_is_the_log(changes: &[Read], sql: &mut Sql) {
    for number in 1..=2 {
        let project = name(number);
        let read: Vec<_> = changes
            .iter()
            .filter(|change| change.project == project)
            .map(|change| {
                let body: Value = serde_json::from_slice(&change.body).unwrap();
                assert_eq!(body["project"], project, "{body}");
                assert_eq!(
                    format!(
                        "{}.{}",
                        body["kind"].as_str().unwrap(),
                        body["op"].as_str().unwrap()
                    ),
                    change.topic
                );
                change.id.clone()
            })
            .collect();
        let logged = sql
            .texts(&format!(
                "select cast(run_id as text) || '-' || cast(seq as text) from catalog_changes
                 where project_id = '{project}' order by seq"
            ))
            .await;
        assert_eq!(read, logged);
    }
}

async fn logged(sql: &mut Sql) -> usize {
    let count = sql.number("select count(*) from catalog_changes").await;
    usize::try_from(count).unwrap()
}

fn rename(house: &House, number: usize, new: &str) {
    house.simulator.edit(|state| {
        let app = state.app_mut(&app_id(number)).unwrap();
        for purchase in &mut app.in_app_purchases {
            purchase.name = new.to_owned();
        }
    });
}

macro_rules! on_both_brokers {
    ($($case:ident),+ $(,)?) => {
        mod over_nats {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() { super::$case(super::Kind::Nats).await; })+
        }
        mod over_rabbitmq {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() { super::$case(super::Kind::RabbitMq).await; })+
        }
    };
}

on_both_brokers!(
    a_message_causes_a_run_and_what_is_wrong_goes_to_the_dead_letters,
    an_outage_of_the_broker_loses_nothing,
    a_daemon_that_dies_leaves_no_change_untold,
);

async fn a_message_causes_a_run_and_what_is_wrong_goes_to_the_dead_letters(kind: Kind) {
    let place = kind.place().await;
    let house = house(teams(2), kind.backend()).await;
    let mut daemon = start(&house, &[(kind, &place)]).await;
    let mut sql = Sql::connect(&house).await;
    sql.until_all_is_done().await;
    // It makes what is absent once it is there.
    drop(place.queue().consume().await.unwrap());

    let wrong = [
        request("nobody", "x"),
        "{}".to_owned(),
        "not JSON".to_owned(),
    ];
    let [unknown, empty, broken] = &wrong;
    place
        .send(&[unknown, &request("p1", "by message"), empty, broken])
        .await;
    let done = daemon
        .event_where("sync.finished", |event| event["reason"] == "by message")
        .await;
    assert_eq!(done["project.id"], "p1", "{done}");
    assert_eq!(done["trigger.kind"], "request", "{done}");
    while daemon.so_far("request.refused").len() < wrong.len() {
        let refused = daemon.event("request.refused").await;
        assert_eq!(refused["source"], kind.name(), "{refused}");
    }
    daemon.stop().await;
    assert_eq!(place.left(()).await, 0);
    let mut dead = place.dead().await;
    dead.sort();
    let reasons: Vec<_> = dead.iter().map(|(_, reason, _)| reason.as_str()).collect();
    assert_eq!(dead.len(), wrong.len(), "{reasons:?}");
    for body in &wrong {
        assert!(dead.iter().any(|(it, ..)| it == body.as_bytes()), "{body}");
    }
    assert!(
        reasons.contains(&"there is no project 'nobody'"),
        "{reasons:?}"
    );
    assert_eq!(sql.runs("p1").await, 2);
    assert_eq!(sql.runs("p2").await, 1);
}

async fn an_outage_of_the_broker_loses_nothing(kind: Kind) {
    let (mut broker, place) = outages::own(kind.place_at(0)).await;
    let house = house(teams(2), kind.backend()).await;
    block_in_place(|| broker.kill());

    // It starts without the broker, and works.
    let mut daemon = start(&house, &[(kind, &place)]).await;
    let down = daemon.event("dependency.down").await;
    assert_eq!(down["dependency"], kind.name(), "{down}");
    house.run(&["resync", "--all", "--wait"]).await.expect(0);
    let mut sql = Sql::connect(&house).await;
    sql.until("select count(*) from outbox", 2).await;
    block_in_place(|| broker.restart());
    let up = daemon.event("dependency.up").await;
    assert_eq!(up["dependency"], kind.name(), "{up}");
    let mut listener = place.listen().await;
    let count = logged(&mut sql).await;
    let changes = read(&mut *listener, count).await;
    assert_is_the_log(&changes, &mut sql).await;
    drop(listener);
    sql.until("select count(*) from outbox", 0).await;

    // What the broker has confirmed it has after a crash.
    let [one, other] = [request("p1", "before"), request("p2", "before")];
    place.send(&[&one, &other]).await;
    block_in_place(|| broker.kill());
    rename(&house, 1, "Renamed");
    house.run(&["resync", "p1", "--wait"]).await.expect(0);
    let more = logged(&mut sql).await;
    assert_eq!(more, count + 3);
    block_in_place(|| broker.restart());
    let mut asked = BTreeSet::new();
    while asked.len() < 2 {
        let done = daemon
            .event_where("sync.finished", |event| event["reason"] == "before")
            .await;
        asked.insert(done["project.id"].as_str().unwrap().to_owned());
    }
    sql.until("select count(*) from outbox", 0).await;
    // NATS keeps the earlier ones for a reader that begins anew.
    let mut listener = place.listen().await;
    let last = sql.text("select max(seq) from catalog_changes").await;
    loop {
        let change = listener.next().await;
        if change.id.ends_with(&format!("-{last}")) {
            break;
        }
    }
    daemon.stop().await;
    // What was taken and not acknowledged when the broker died comes again, and is gone in the end.
    while place.left(()).await > 0 {
        let mut daemon = start(&house, &[(kind, &place)]).await;
        daemon
            .event_where("sync.finished", |event| event["reason"] == "before")
            .await;
        daemon.stop().await;
    }
}

async fn a_daemon_that_dies_leaves_no_change_untold(kind: Kind) {
    let place = kind.place().await;
    let house = house(teams(2), kind.backend()).await;
    drop(place.queue().publish().await.unwrap());
    // What is told from now on is kept for the reader, who comes at the end.
    drop(place.listen().await);
    let mut sql = Sql::connect(&house).await;
    for round in 1..=6 {
        rename(&house, 1 + round % 2, &format!("Round {round}"));
        house.run(&["resync", "--all"]).await.expect(0);
        // The right to tell, which a daemon that dies takes with it for half a minute.
        sql.execute("update sinks set lease_token = null, lease_until = null")
            .await;
        let mut daemon = start(&house, &[(kind, &place)]).await;
        daemon.finished("p1", "succeeded").await;
        // Sometimes before the other has ended, and before or after it is told.
        daemon.kill().await;
    }
    sql.execute("update sinks set lease_token = null, lease_until = null")
        .await;
    let daemon = start(&house, &[(kind, &place)]).await;
    sql.until_all_is_done().await;
    sql.until("select count(*) from outbox", 0).await;
    let count = logged(&mut sql).await;
    assert!(count >= 14 + 3, "{count}");
    let mut listener = place.listen().await;
    let changes = read(&mut *listener, count).await;
    assert_is_the_log(&changes, &mut sql).await;
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_brokers_at_once_are_both_heard_and_told() {
    let places = [
        (Kind::Nats, Kind::Nats.place().await),
        (Kind::RabbitMq, Kind::RabbitMq.place().await),
    ];
    let house = house(teams(2), Backend::Sqlite).await;
    for (_, place) in &places {
        drop(place.queue().publish().await.unwrap());
        drop(place.queue().consume().await.unwrap());
        drop(place.listen().await);
    }
    let both: Vec<_> = places.iter().map(|(kind, place)| (*kind, place)).collect();
    let mut daemon = start(&house, &both).await;
    let mut sql = Sql::connect(&house).await;
    sql.until_all_is_done().await;
    for (kind, place) in &places {
        rename(&house, 1, kind.name());
        place.send(&[&request("p1", kind.name())]).await;
        daemon
            .event_where("sync.finished", |event| event["reason"] == kind.name())
            .await;
    }
    let count = logged(&mut sql).await;
    assert_eq!(count, 14 + 6);
    for (_, place) in &places {
        let changes = read(&mut *place.listen().await, count).await;
        assert_is_the_log(&changes, &mut sql).await;
    }
    daemon.stop().await;
}
