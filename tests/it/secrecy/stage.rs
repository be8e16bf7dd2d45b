//! Where it happens: a house over HTTPS, brokers and a database that ask for passwords, and all that was written there.

use std::{collections::BTreeMap, fs, process::Command};

use lapin::{
    BasicProperties, Connection, ConnectionProperties, ExchangeKind,
    options::{
        BasicPublishOptions, ConfirmSelectOptions, ExchangeDeclareOptions, QueueBindOptions,
        QueueDeclareOptions,
    },
    types::FieldTable,
};
use rustix::process::Pid;
use tokio::task::block_in_place;

use super::{
    canary::Search,
    given::{self, DATABASE_PASSWORD, NATS_PASSWORD, RABBITMQ_PASSWORD, WRONG_PASSWORD},
};
use crate::{
    broker::Broker,
    daemon::fixture::{Daemon, SHORT_LEASE, app_id, key_id},
    house::{Answer, Backend, House},
    nats, postgres, rabbitmq,
};

/// Everything, of every dependency.
const TRACE: &str = "trace,async_nats=trace,h2=trace,hyper=trace,hyper_util=trace,lapin=trace,reqwest=trace,rustls=trace,\
     sqlx=trace,tokio_cron_scheduler=trace,tower=trace";

/// The house, what it depends on, and what was written so far.
pub(super) struct Stage {
    pub(super) house: House,
    nats: Broker,
    rabbitmq: Broker,
    server: Option<Broker>,
    /// By place: where it comes from, and what it is.
    written: Vec<(&'static str, String, Vec<u8>)>,
}

impl Stage {
    /// Sets everything up, with passwords in files. Nothing has been run.
    pub(super) async fn set(backend: Backend) -> Self {
        let (server, url) = match backend {
            Backend::Sqlite => (None, None),
            Backend::Postgres => {
                let (server, url) = given::server_with_password().await;
                (Some(server), Some(url))
            }
        };
        let (nats, rabbitmq) = block_in_place(|| {
            let user = format!("default_user = worker\ndefault_pass = {RABBITMQ_PASSWORD}\n");
            (
                nats::start(&format!("--user worker --pass {NATS_PASSWORD}")),
                rabbitmq::start_with(&user),
            )
        });
        let house = House::over_tls(given::state(), url.as_deref()).await;
        let stage = Self {
            house,
            nats,
            rabbitmq,
            server,
            written: Vec::new(),
        };
        for (file, url) in stage.urls() {
            stage.house.write(file, url);
        }
        stage.house.write("worker.toml", stage.configuration());
        fs::create_dir(stage.house.path("tmp")).unwrap();
        stage
    }

    /// The files with URLs that have passwords.
    fn urls(&self) -> BTreeMap<&'static str, String> {
        let mut urls = BTreeMap::from([
            (
                "nats.url",
                format!("nats://worker:{NATS_PASSWORD}@127.0.0.1:{}", self.nats.port),
            ),
            (
                "rabbitmq.url",
                format!(
                    "amqp://worker:{RABBITMQ_PASSWORD}@127.0.0.1:{}",
                    self.rabbitmq.port
                ),
            ),
        ]);
        if let Some(server) = &self.server {
            urls.insert(
                "database.url",
                format!(
                    "postgres://worker:{DATABASE_PASSWORD}@127.0.0.1:{}/catalogs",
                    server.port
                ),
            );
        }
        urls
    }

    fn configuration(&self) -> String {
        let store = match self.server {
            Some(_) => "[store]\nurl_file = \"database.url\"\n",
            None => "",
        };
        format!(
            "{store}[app_store]\nca_file = \"ca.pem\"\n[schedule]\ncron = \"0 0 1 1 *\"\n[health]\nlisten = \"127.0.0.1:0\"\n\
             [nats]\nurl_file = \"nats.url\"\n[rabbitmq]\nurl_file = \"rabbitmq.url\"\n"
        )
    }

    /// Whether the database is a server.
    pub(super) fn has_server(&self) -> bool {
        self.server.is_some()
    }

    /// What the daemon depends on, by the names under which it tells of them.
    pub(super) fn brokers(&mut self) -> Vec<(&'static str, &mut Broker)> {
        let mut brokers = vec![("nats", &mut self.nats), ("rabbitmq", &mut self.rabbitmq)];
        brokers.extend(self.server.as_mut().map(|server| ("database", server)));
        brokers
    }

    pub(super) fn issuer(&self, team: usize) -> String {
        self.house.simulator.state().teams[team - 1]
            .issuer_id
            .clone()
    }

    pub(super) fn pem(&self, key_id: &str) -> String {
        self.house.simulator.private_key_pem(key_id).unwrap()
    }

    /// Writes a key under another name.
    pub(super) fn copy_key(&self, key_id: &str, file: &str) {
        self.house.write(file, self.pem(key_id));
    }

    /// `project add` with the first key of a team.
    pub(super) async fn add(&mut self, id: &str, team: usize, code: i32) {
        let (issuer, file) = (self.issuer(team), format!("AuthKey_{}.p8", key_id(team)));
        let args = ["project", "add", id, "--issuer-id", &issuer];
        self.run(&[&args[..], &["--private-key", &file]].concat(), code)
            .await;
    }

    /// Runs a command for people, and for machines once more, and keeps what they write.
    pub(super) async fn run(&mut self, args: &[&str], code: i32) {
        self.run_with(args, "", code).await;
    }

    /// The same with this standard input.
    pub(super) async fn run_with(&mut self, args: &[&str], input: &str, code: i32) {
        self.answer(args, input).await.expect(code);
        let args = [args, &["--json"]].concat();
        let again = self.answer(&args, input).await;
        // What adds something adds it once.
        assert!(again.code == code || args.contains(&"add"), "{args:?}");
    }

    /// Runs a command whatever it comes to, and keeps what it writes.
    pub(super) async fn answer(&mut self, args: &[&str], input: &str) -> Answer {
        let temporary = self.house.path("tmp");
        let variables = [
            ("CATALOG_SYNC_LOG__FILTER", TRACE),
            ("TMPDIR", temporary.to_str().unwrap()),
        ];
        let answer = self.house.run_with(args, &variables, input).await;
        let what = args[..args.len().min(3)].join(" ");
        for (stream, text) in [("stdout", &answer.stdout), ("stderr", &answer.stderr)] {
            let name = format!("{stream} of {what}");
            self.written.push(("answers", name, text.clone().into()));
        }
        answer
    }

    /// Starts a daemon that traces everything.
    pub(super) async fn daemon(&self) -> Daemon {
        let temporary = self.house.path("tmp");
        let variables = [
            ("CATALOG_SYNC_LOG__FILTER", TRACE),
            ("CATALOG_SYNC_DAEMON__POLL_MS", "500"),
            ("TMPDIR", temporary.to_str().unwrap()),
        ];
        let variables: Vec<_> = variables.into_iter().chain(SHORT_LEASE).collect();
        Daemon::start(&self.house, &variables).await
    }

    /// Keeps a daemon's log.
    pub(super) fn keep_log(&mut self, log: String) {
        let name = format!("daemon {}", self.written.len());
        self.written.push(("daemon log", name, log.into()));
    }

    /// Whether this stands in any log.
    pub(super) fn is_logged(&self, text: &str) -> bool {
        self.written
            .iter()
            .filter(|(place, ..)| matches!(*place, "answers" | "daemon log"))
            .any(|(_, _, bytes)| String::from_utf8_lossy(bytes).contains(text))
    }

    async fn amqp(&self) -> Connection {
        let url = &self.urls()["rabbitmq.url"];
        Connection::connect(url, ConnectionProperties::default())
            .await
            .unwrap()
    }

    /// A queue that keeps changes, as a reader that is away has one.
    pub(super) async fn prepare_brokers(&self) {
        let connection = self.amqp().await;
        let channel = connection.create_channel().await.unwrap();
        let durable = ExchangeDeclareOptions {
            durable: true,
            ..ExchangeDeclareOptions::default()
        };
        let (exchange, queue) = ("catalog_sync.changes", "reader");
        channel
            .exchange_declare(
                exchange.into(),
                ExchangeKind::Topic,
                durable,
                FieldTable::default(),
            )
            .await
            .unwrap();
        channel
            .queue_declare(
                queue.into(),
                QueueDeclareOptions::durable(),
                FieldTable::default(),
            )
            .await
            .unwrap();
        channel
            .queue_bind(
                queue.into(),
                exchange.into(),
                "#".into(),
                QueueBindOptions::default(),
                FieldTable::default(),
            )
            .await
            .unwrap();
        connection.close(200, "done".into()).await.unwrap();
    }

    /// Sends requests through the broker that the reason names.
    pub(super) async fn send(&self, reason: &str, bodies: &[&str]) {
        if reason == "by nats" {
            let worker = async_nats::ConnectOptions::with_user_and_password(
                "worker".to_owned(),
                NATS_PASSWORD.to_owned(),
            );
            let address = format!("127.0.0.1:{}", self.nats.port);
            let client = worker.connect(address).await.unwrap();
            let context = async_nats::jetstream::new(client);
            for body in bodies {
                let sent = context.publish("catalog_sync.requests", (*body).to_owned().into());
                sent.await.unwrap().await.unwrap();
            }
            return;
        }
        let connection = self.amqp().await;
        let channel = connection.create_channel().await.unwrap();
        channel
            .confirm_select(ConfirmSelectOptions::default())
            .await
            .unwrap();
        for body in bodies {
            let sent = channel.basic_publish(
                "".into(),
                "catalog_sync.requests".into(),
                BasicPublishOptions::default(),
                body.as_bytes(),
                BasicProperties::default().with_delivery_mode(2),
            );
            assert!(sent.await.unwrap().await.unwrap().is_ack());
        }
    }

    /// Changes things upstream, the grace period among them.
    pub(super) fn rename(&self, new: &str) {
        self.house.simulator.edit(|state| {
            let app = state.app_mut(&app_id(1)).unwrap();
            for purchase in &mut app.in_app_purchases {
                purchase.name = new.to_owned();
            }
            let grace_period = app.grace_period.as_mut().unwrap();
            grace_period.opt_in = Some(grace_period.opt_in != Some(true));
        });
    }

    /// Writes a configuration that is wrong in several ways, with a password in it. Gives the one before.
    pub(super) fn break_configuration(&self) -> String {
        let broken = format!(
            "[store]\nurl = \"mysql://worker:{DATABASE_PASSWORD}@127.0.0.1/x\"\n\
             [nats]\nurl = \"http://worker:{NATS_PASSWORD}@127.0.0.1\"\nurl_file = \"nats.url\"\n\
             [rabbitmq]\nurl = \"worker:{RABBITMQ_PASSWORD}\"\n[schedule]\ncron = \"at noon\"\n"
        );
        self.house.write("worker.toml", broken);
        self.configuration()
    }

    /// Puts wrong passwords into the files of URLs. Gives the right ones.
    pub(super) fn spoil_passwords(&self) -> BTreeMap<&'static str, String> {
        let right = self.urls();
        for (file, url) in &right {
            let (_, rest) = url.split_once("worker:").unwrap();
            let (password, _) = rest.split_once('@').unwrap();
            self.house
                .write(file, url.replace(password, WRONG_PASSWORD));
        }
        right
    }

    /// Takes back the right password of one file, if there is such a file.
    pub(super) fn restore_password(&self, right: &BTreeMap<&'static str, String>, file: &str) {
        if let Some(url) = right.get(file) {
            self.house.write(file, url);
        }
    }

    /// Keeps what the system shows of a process to others of the same user.
    pub(super) fn look_at_process(&mut self, id: Pid) {
        let id = id.as_raw_nonzero();
        if cfg!(target_os = "linux") {
            for file in ["environ", "cmdline"] {
                let path = format!("/proc/{id}/{file}");
                let bytes = fs::read(&path).unwrap();
                self.written.push(("process", path, bytes));
            }
        }
    }

    /// Keeps what probes are told.
    pub(super) async fn look_at_probes(&mut self, daemon: &mut Daemon) {
        let listening = daemon.so_far("health.listening").remove(0);
        let address = listening["address"].as_str().unwrap();
        for path in ["livez", "readyz"] {
            let url = format!("http://{address}/{path}");
            let told = reqwest::get(&url).await.unwrap().bytes().await.unwrap();
            self.written.push(("probes", url, told.to_vec()));
        }
    }

    /// Keeps the files of an `SQLite` database as they are at this moment.
    pub(super) fn look_at_files(&mut self, when: &str) {
        for file in [
            "catalog-sync.db",
            "catalog-sync.db-wal",
            "catalog-sync.db-shm",
        ] {
            if let Ok(bytes) = fs::read(self.house.path(file)) {
                let name = format!("{file} {when}");
                self.written.push(("live database", name, bytes));
            }
        }
    }

    /// Shows everything that was written to the search.
    pub(super) fn search(&self, search: &mut Search) {
        for (place, name, bytes) in &self.written {
            search.through(place, name, bytes);
        }
        search.through_folder("working folder", self.house.folder(), |path| {
            let name = path.file_name().unwrap().to_str().unwrap();
            let is_given = |ending: &str| path.extension().is_some_and(|it| it == ending);
            name == "master.key" || is_given("p8") || is_given("url")
        });
        search.through_folder("nats", &self.nats.folder, |_| false);
        let configuration = self.rabbitmq.folder.join("rabbitmq.conf");
        search.through_folder("rabbitmq", &self.rabbitmq.folder, |path| {
            path == configuration
        });
        if let Some(server) = &self.server {
            let url = self.house.store_url().to_owned();
            let dump = block_in_place(|| dump(&url));
            search.through("database dump", "pg_dump", &dump);
            search.through_folder("database files", &server.folder, |_| false);
        }
    }
}

fn dump(url: &str) -> Vec<u8> {
    let output = Command::new(postgres::program("pg_dump"))
        // What is binary is written as hexadecimal digits.
        .args(["--inserts", url])
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    output.stdout
}
