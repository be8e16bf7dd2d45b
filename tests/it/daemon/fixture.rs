//! `catalog-sync run` in a house: its log as it comes, signals, its exit, and what stands in the database.

use std::{
    fmt::Write as _,
    os::unix::process::ExitStatusExt as _,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use catalog_sync::simulator::{App, Key, Role, State, Team};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, SqliteConnection};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
    process::{Child, Command},
    sync::{mpsc, watch},
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use crate::{
    events::page::hold,
    house::{Backend, House},
};

/// How long to wait for what comes in milliseconds on a machine that is not busy.
pub(crate) const GENEROUS: Duration = Duration::from_mins(1);

/// How often it is looked whether a row is there.
const BETWEEN_LOOKS: Duration = Duration::from_millis(50);

/// Nothing falls due by itself while a test runs.
const NEVER_DUE: &str = "[schedule]\ncron = \"0 0 1 1 *\"\n";

/// A lease that runs out soon.
pub(crate) const SHORT_LEASE: [(&str, &str); 2] = [
    ("CATALOG_SYNC_SYNC__LEASE_MS", "2000"),
    ("CATALOG_SYNC_SYNC__HEARTBEAT_MS", "500"),
];

/// The id of a project's app.
pub(crate) fn app_id(number: usize) -> String {
    format!("{}", 1_000_000_000 + number)
}

/// The Key ID of a project.
pub(crate) fn key_id(number: usize) -> String {
    format!("SIMULATE{number:02}")
}

/// The name of a project.
pub(crate) fn name(number: usize) -> String {
    format!("p{number}")
}

fn app(number: usize) -> App {
    App::new(
        app_id(number),
        format!("com.example.app{number}"),
        format!("App {number}"),
    )
    .with_in_app_purchases(3)
    .with_groups(1, 2)
    .with_grace_period()
}

fn team(number: usize) -> Team {
    Team::new(
        format!("Team {number}"),
        format!("5a1e0000-0000-4000-8000-{number:012}"),
    )
    .with_key(Key::new(key_id(number), Role::Admin))
}

/// Teams, each with a key and an app.
pub(crate) fn teams(count: usize) -> State {
    (1..=count).fold(State::new(), |state, number| {
        state.with_team(team(number).with_app(app(number)))
    })
}

/// A team with one key and several apps.
pub(crate) fn team_of(apps: usize) -> State {
    State::new().with_team((1..=apps).fold(team(1), |team, number| team.with_app(app(number))))
}

/// A house in which nothing falls due by itself, with the projects `p1`, `p2` and so on, one for each app.
pub(crate) async fn house(state: State, backend: Backend) -> House {
    let house = House::new(state, backend).await;
    house.write("worker.toml", NEVER_DUE);
    add_all(&house).await;
    house
}

/// Adds the projects `p1`, `p2` and so on, one for each app.
pub(crate) async fn add_all(house: &House) {
    let mut number = 0;
    for team in house.simulator.state().teams {
        for app in &team.apps {
            number += 1;
            let key = team.keys[0].file_name();
            let args = [
                "project",
                "add",
                &name(number),
                "--issuer-id",
                &team.issuer_id,
                "--private-key",
                &key,
                "--app-id",
                &app.id,
            ];
            house.run(&args).await.expect(0);
        }
    }
}

/// A daemon.
pub(crate) struct Daemon {
    child: Child,
    lines: mpsc::UnboundedReceiver<String>,
    log: Vec<String>,
    /// Up to which line of the log events were looked for.
    looked_at: usize,
    _reader: JoinSet<()>,
}

impl Daemon {
    /// Starts a daemon with these variables.
    pub(crate) fn spawn(house: &House, variables: &[(&str, &str)]) -> Self {
        let mut command = house.command(&["run"]);
        command
            .env("CATALOG_SYNC_DAEMON__POLL_MS", "100")
            .envs(variables.iter().copied());
        Self::of(command)
    }

    /// The daemon that this command starts.
    pub(crate) fn of(mut command: Command) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let mut stderr = BufReader::new(child.stderr.take().unwrap()).lines();
        let (sender, lines) = mpsc::unbounded_channel();
        let mut reader = JoinSet::new();
        reader.spawn(async move {
            while let Ok(Some(line)) = stderr.next_line().await {
                sender.send(line).ok();
            }
        });
        Self {
            child,
            lines,
            log: Vec::new(),
            looked_at: 0,
            _reader: reader,
        }
    }

    /// Starts a daemon and waits until it is at work.
    pub(crate) async fn start(house: &House, variables: &[(&str, &str)]) -> Self {
        let mut daemon = Self::spawn(house, variables);
        daemon.event("daemon.started").await;
        daemon
    }

    /// The next event of that name.
    pub(crate) async fn event(&mut self, name: &str) -> Value {
        self.event_where(name, |_| true).await
    }

    /// The next event of that name about that project.
    pub(crate) async fn event_of(&mut self, name: &str, project: &str) -> Value {
        self.event_where(name, |event| event["project.id"] == project)
            .await
    }

    /// The next event of that name of which this holds.
    pub(crate) async fn event_where(&mut self, name: &str, is: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + 2 * GENEROUS;
        loop {
            while let Some(line) = self.log.get(self.looked_at) {
                self.looked_at += 1;
                if let Ok(event) = serde_json::from_str::<Value>(line)
                    && event["event"] == name
                    && is(&event)
                {
                    return event;
                }
            }
            match tokio::time::timeout_at(deadline, self.lines.recv()).await {
                Ok(Some(line)) => self.keep(line),
                Ok(None) => panic!("it ended without {name}"),
                Err(late) => panic!("{name} did not come: {late}"),
            }
        }
    }

    /// The next run of a project to end, whose outcome is that.
    pub(crate) async fn finished(&mut self, project: &str, outcome: &str) -> Value {
        let event = self.event_of("sync.finished", project).await;
        assert_eq!(event["outcome"], outcome, "{event}");
        event
    }

    /// The next events of that name in which the field has each of these values, in whatever order they come.
    pub(crate) async fn event_of_each(
        &mut self,
        name: &str,
        field: &str,
        values: &[&str],
    ) -> Vec<Value> {
        let mut left = values.to_vec();
        let mut found = Vec::new();
        while !left.is_empty() {
            let one_of_them = |event: &Value| left.iter().any(|value| event[field] == *value);
            let event = self.event_where(name, one_of_them).await;
            left.retain(|value| event[field] != *value);
            found.push(event);
        }
        found
    }

    /// The events of that name so far.
    pub(crate) fn so_far(&mut self, name: &str) -> Vec<Value> {
        while let Ok(line) = self.lines.try_recv() {
            self.keep(line);
        }
        self.log
            .iter()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok())
            .filter(|event| event["event"] == name)
            .collect()
    }

    /// Its process.
    pub(crate) fn pid(&self) -> Pid {
        let id = i32::try_from(self.child.id().expect("it runs")).unwrap();
        Pid::from_raw(id).unwrap()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    /// Ends it as a crash of the machine does.
    pub(crate) async fn kill(mut self) {
        self.child.start_kill().unwrap();
        self.ended().await;
    }

    /// Asks it to stop, and expects that it does so in order. Gives its log.
    pub(crate) async fn stop(self) -> String {
        self.signal(Signal::TERM);
        let (status, log) = self.exit().await;
        assert_eq!(status.code(), Some(0), "{log}");
        assert!(log.contains("daemon.stopped"), "{log}");
        log
    }

    /// Waits for its end. Gives its log.
    pub(crate) async fn exit(mut self) -> (ExitStatus, String) {
        let status = self.ended().await;
        while let Some(line) = self.lines.recv().await {
            self.keep(line);
        }
        (status, self.log.join("\n"))
    }

    /// The exit code with which it ends, whatever its log.
    pub(crate) async fn exit_code(self) -> i32 {
        let (status, log) = self.exit().await;
        status
            .code()
            .unwrap_or_else(|| panic!("ended by signal {:?}:\n{log}", status.signal()))
    }

    /// Every line is as docs/events.md has it.
    #[track_caller]
    fn keep(&mut self, line: String) {
        hold(&line);
        self.log.push(line);
    }

    async fn ended(&mut self) -> ExitStatus {
        timeout(GENEROUS, self.child.wait())
            .await
            .expect("it does not end")
            .unwrap()
    }
}

/// A test that fails shows what the daemon had to say.
impl Drop for Daemon {
    fn drop(&mut self) {
        while let Ok(line) = self.lines.try_recv() {
            if std::thread::panicking() {
                self.log.push(line);
            } else {
                self.keep(line);
            }
        }
        if std::thread::panicking() {
            println!("the daemon's log:\n{}", self.log.join("\n"));
        }
    }
}

/// A connection to a house's database, as its host has one.
pub(crate) enum Sql {
    Sqlite(SqliteConnection),
    Postgres(PgConnection),
}

macro_rules! on {
    ($self:ident, $connection:ident => $work:expr) => {
        match $self {
            Sql::Sqlite($connection) => $work,
            Sql::Postgres($connection) => $work,
        }
    };
}

impl Sql {
    pub(crate) async fn connect(house: &House) -> Self {
        if house.store_url().starts_with("postgres") {
            let connection = PgConnection::connect(house.store_url()).await;
            Self::Postgres(connection.unwrap())
        } else {
            let file = house.path("catalog-sync.db");
            let options = sqlx::sqlite::SqliteConnectOptions::new()
                .filename(file)
                .busy_timeout(GENEROUS);
            let connection = SqliteConnection::connect_with(&options).await;
            Self::Sqlite(connection.unwrap())
        }
    }

    pub(crate) async fn execute(&mut self, statement: &str) {
        on!(self, connection => {
            let done = sqlx::raw_sql(AssertSqlSafe(statement.to_owned()))
                .execute(connection)
                .await;
            if let Err(error) = done {
                panic!("{statement}: {error}");
            }
        });
    }

    /// The only column of each row, as text.
    pub(crate) async fn texts(&mut self, query: &str) -> Vec<String> {
        let query = format!("with rows(it) as ({query}) select cast(it as text) from rows");
        on!(self, connection => {
            sqlx::query_scalar::<_, Option<String>>(AssertSqlSafe(query.clone()))
                .fetch_all(connection)
                .await
                .unwrap_or_else(|error| panic!("{query}: {error}"))
                .into_iter()
                .map(Option::unwrap_or_default)
                .collect()
        })
    }

    /// The only column of the only row, as text.
    pub(crate) async fn text(&mut self, query: &str) -> String {
        let mut texts = self.texts(query).await;
        assert_eq!(texts.len(), 1, "{query}");
        texts.remove(0)
    }

    /// A count.
    pub(crate) async fn number(&mut self, query: &str) -> i64 {
        self.text(query).await.parse().unwrap()
    }

    /// Waits until the query, which counts, gives that number.
    pub(crate) async fn until(&mut self, query: &str, number: i64) {
        let mut last = None;
        let looking = async {
            while last != Some(number) {
                if last.is_some() {
                    sleep(BETWEEN_LOOKS).await;
                }
                last = Some(self.number(query).await);
            }
        };
        let came = timeout(2 * GENEROUS, looking).await;
        assert!(
            came.is_ok(),
            "{query} does not come to {number}; it is {last:?}"
        );
    }

    /// Waits until nothing that was asked for is left to be done.
    pub(crate) async fn until_all_is_done(&mut self) {
        self.until("select count(*) from pending_syncs", 0).await;
    }

    /// How many runs of the project there were.
    pub(crate) async fn runs(&mut self, project: &str) -> i64 {
        self.number(&format!(
            "select count(*) from sync_runs where project_id = '{project}'"
        ))
        .await
    }

    /// Makes a project's next appointment one that has come, and all others too when none is named.
    pub(crate) async fn make_due(&mut self, project: Option<&str>) {
        let mut statement = "update project_state set next_slot_at = '2026-01-01T00:00:00.000Z', \
             next_due_at = '2026-01-01T00:00:00.000Z'"
            .to_owned();
        if let Some(project) = project {
            write!(statement, " where project_id = '{project}'").unwrap();
        }
        self.execute(&statement).await;
    }

    /// Waits until the tick has dealt with appointments that had come.
    pub(crate) async fn until_none_is_due(&mut self) {
        self.until(
            "select count(*) from project_state
             where set_aside_at is null and (next_due_at is null or next_due_at < '2026-01-02T00:00:00.000Z')",
            0,
        )
        .await;
    }
}

/// Stands between daemons and the simulator, and holds requests until it is opened.
pub(crate) struct Gate {
    held: watch::Sender<bool>,
    arrived: watch::Receiver<usize>,
    _tasks: JoinSet<()>,
}

impl Gate {
    /// Puts a gate, which is open, in front of the house's simulator.
    pub(crate) async fn before(house: &mut House) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base_url = format!("http://{}", listener.local_addr().unwrap());
        house.point_to(&base_url);
        let simulator = house.simulator.address();
        let (held, is_held) = watch::channel(false);
        let (count, arrived) = watch::channel(0);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(simulator).await.unwrap();
                connections.spawn(pass(client, server, is_held.clone(), count.clone()));
            }
        });
        Self {
            held,
            arrived,
            _tasks: tasks,
        }
    }

    /// Holds what comes from now on.
    pub(crate) fn close(&mut self) {
        self.held.send_replace(true);
        self.arrived.mark_unchanged();
    }

    /// Waits until something has come since it was closed, or since the last that was waited for.
    pub(crate) async fn arrival(&mut self) {
        timeout(2 * GENEROUS, self.arrived.changed())
            .await
            .expect("nothing came")
            .unwrap();
    }

    /// Lets everything pass.
    pub(crate) fn open(&self) {
        self.held.send_replace(false);
    }
}

async fn pass(
    client: TcpStream,
    server: TcpStream,
    mut is_held: watch::Receiver<bool>,
    count: watch::Sender<usize>,
) {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let requests = async move {
        let mut bytes = vec![0; 16 << 10];
        while let Ok(read @ 1..) = from_client.read(&mut bytes).await {
            count.send_modify(|so_far| *so_far += 1);
            if is_held.wait_for(|held| !held).await.is_err()
                || to_server.write_all(&bytes[..read]).await.is_err()
            {
                return;
            }
        }
    };
    let answers = tokio::io::copy(&mut from_server, &mut to_client);
    tokio::select! {
        () = requests => {}
        _ = answers => {}
    }
}
