//! The secrets: keys, passwords, tokens, and who is told them.

use std::{fs, path::Path};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use catalog_sync::simulator::{App, Key, Role, Simulator, State, Team};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use tokio::task::block_in_place;

use super::canary::Canary;
use crate::{
    broker::Broker,
    daemon::fixture::{app_id, key_id},
    house::House,
    postgres,
};

/// Passwords, each of which is told to one server.
pub(super) const DATABASE_PASSWORD: &str = "Xq7dB1canaryZ0wK4tRn9vLs";
pub(super) const NATS_PASSWORD: &str = "Hy3nA8canaryP6mJ2xUe5bGc";
pub(super) const RABBITMQ_PASSWORD: &str = "Vk9rM4canaryT7sD1fQo6yWi";
pub(super) const WRONG_PASSWORD: &str = "Ew5gN2canaryC8hB3jZu0aXl";

/// Files that are no App Store Connect key.
pub(super) const WRONG_KEYS: [&str; 8] = [
    "certificate.pem",
    "ec_parameters.pem",
    "encrypted.pem",
    "key.p12",
    "openssh.pem",
    "p384.pem",
    "rsa.pem",
    "sec1.pem",
];

fn team(number: usize, role: Role) -> Team {
    Team::new(
        format!("Team {number}"),
        format!("5a1e0000-0000-4000-8000-{number:012}"),
    )
    .with_key(Key::new(key_id(number), role))
    .with_app(
        App::new(
            app_id(number),
            format!("com.example.app{number}"),
            format!("App {number}"),
        )
        .with_in_app_purchases(3)
        .with_groups(1, 2)
        .with_grace_period(),
    )
}

/// Two teams whose keys work, and three whose keys are refused.
pub(super) fn state() -> State {
    let mut revoked = team(3, Role::Admin);
    revoked.keys[0].revoked = true;
    let mut agreement = team(5, Role::Admin);
    agreement.agreement_missing = true;
    let mut bad = Key::new("BADKEY0001", Role::Admin);
    bad.revoked = true;
    State::new()
        .with_team(
            team(1, Role::Admin)
                .with_key(Key::new("NEWKEY0001", Role::Admin))
                .with_key(bad),
        )
        .with_team(team(2, Role::AppManager))
        .with_team(revoked)
        .with_team(team(4, Role::Sales))
        .with_team(agreement)
}

/// A server of one's own, whose database belongs to a role with a password, and its administrator's URL of that database.
pub(super) async fn server_with_password() -> (Broker, String) {
    let (server, url) = block_in_place(postgres::own);
    let mut connection = PgConnection::connect(&url).await.unwrap();
    let hba: String = sqlx::query_scalar("show hba_file")
        .fetch_one(&mut connection)
        .await
        .unwrap();
    for statement in [
        format!("create role worker login password '{DATABASE_PASSWORD}'"),
        "create database catalogs owner worker".to_owned(),
        format!(
            "copy (values ('host all worker 127.0.0.1/32 scram-sha-256'), ('host all all 127.0.0.1/32 trust')) to '{hba}'"
        ),
        "select pg_reload_conf()".to_owned(),
    ] {
        sqlx::raw_sql(AssertSqlSafe(statement))
            .execute(&mut connection)
            .await
            .unwrap();
    }
    let host = url.strip_suffix("/postgres").unwrap();
    (server, format!("{host}/catalogs"))
}

/// Every secret that there was.
pub(super) fn canaries(house: &House) -> Vec<Canary> {
    let mut canaries = vec![
        Canary::new("database password", DATABASE_PASSWORD),
        Canary::new("NATS password", NATS_PASSWORD),
        Canary::new("RabbitMQ password", RABBITMQ_PASSWORD),
        Canary::new("wrong password", WRONG_PASSWORD),
    ];
    canaries.extend(of(&house.simulator, &house.path("master.key")));
    for (fixture, length) in [("sec1.pem", 32), ("p384.pem", 48)] {
        canaries.push(Canary::new(
            fixture,
            from_scalar(&der(&shipped(fixture)), length),
        ));
    }
    let rsa = der(&shipped("rsa.pem"));
    canaries.push(Canary::new("rsa.pem", &rsa[rsa.len() / 2..]));
    canaries
}

/// Private keys, tokens with their signatures, and the master keys in that file.
pub(crate) fn of(simulator: &Simulator, master_keys: &Path) -> Vec<Canary> {
    let mut canaries = Vec::new();
    for key in simulator.state().teams.iter().flat_map(|team| &team.keys) {
        let name = format!("private key {}", key.key_id);
        canaries.push(Canary::new(name, from_scalar(&der(&key.private_key), 32)));
    }
    let master = fs::read_to_string(master_keys).unwrap();
    for line in master.lines().filter(|line| !line.starts_with('#')) {
        let (id, key) = line.split_once(':').unwrap();
        let key = BASE64_STANDARD.decode(key.trim()).unwrap();
        assert_eq!(key.len(), 32);
        canaries.push(Canary::new(format!("master key {id}"), key));
    }
    for (number, token) in simulator.tokens().into_iter().enumerate() {
        let (_, signature) = token.rsplit_once('.').unwrap();
        let signature = Canary::new(format!("signature of token {number}"), signature);
        canaries.push(signature);
        canaries.push(Canary::new(format!("token {number}"), token));
    }
    canaries
}

fn shipped(fixture: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    fs::read_to_string(folder.join(fixture)).unwrap()
}

/// The bytes of a PEM file's last block.
fn der(pem: &str) -> Vec<u8> {
    let body = pem.rsplit("-----BEGIN ").next().unwrap();
    let body: String = body
        .lines()
        .skip(1)
        .take_while(|line| !line.starts_with('-'))
        .collect();
    BASE64_STANDARD.decode(body).unwrap()
}

/// An EC private key from its scalar on: what stands before it is the same in every key and certificate.
fn from_scalar(der: &[u8], length: u8) -> &[u8] {
    let before = [2, 1, 1, 4, length];
    let at = der.windows(5).position(|it| it == before).unwrap();
    &der[at + 5..]
}
