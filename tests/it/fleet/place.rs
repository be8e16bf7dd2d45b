//! Where a fleet lives: a database with projects, a simulator with their apps, and a broker or none.

use std::{path::Path, sync::Arc, time::Duration};

use catalog_sync::{
    catalog::OwnLimits,
    clock,
    project::{self, Project, ProjectId},
    simulator::{App, Key, Role, Simulator, State, Team},
    store::{self, Store},
    vault::{self, Vault},
};
use tokio::task::block_in_place;

use super::{Size, broker::Broker, diary::Folder, disk::Disk, proxy::Proxy, tables::Tables};
use crate::{broker, house::handed_over, nats, postgres};

/// How long an answer of Apple takes: long enough for kills to hit runs.
const LATENCY: Duration = Duration::from_millis(120);

/// How many projects share each next key, over and over.
const SHARING: [usize; 5] = [1, 1, 1, 2, 3];

/// How far off the servers are: a fault is in the middle of something more often.
const DISTANCE: Duration = Duration::from_millis(2);

/// A server of the fleet's own, and the way that workers have to it.
pub(super) struct Line {
    pub(super) server: broker::Broker,
    pub(super) proxy: Proxy,
}

impl Line {
    async fn to(server: broker::Broker) -> Self {
        let proxy = Proxy::before(server.port, DISTANCE).await;
        Self { server, proxy }
    }
}

pub(super) struct Place {
    pub(super) folder: Folder,
    /// Of the database, around the proxy.
    pub(super) url: String,
    pub(super) store: Arc<dyn Store>,
    pub(super) simulator: Simulator,
    /// By number: the project's id and its app's.
    pub(super) projects: Vec<(String, String)>,
    pub(super) broker: Option<Broker>,
    pub(super) database: Option<Line>,
}

impl Place {
    pub(super) async fn with_postgres_and_nats(size: &Size) -> Self {
        let (nats, (server, url)) = block_in_place(|| (nats::start(""), postgres::own()));
        let broker = Broker {
            line: Line::to(nats).await,
            prefix: "fleet",
        };
        broker.prepare(size).await;
        Self {
            broker: Some(broker),
            database: Some(Line::to(server).await),
            ..Self::new(size, Folder::new(), url).await
        }
    }

    pub(super) async fn with_sqlite(size: &Size) -> Self {
        let folder = Folder::new();
        let url = format!("sqlite:{}", folder.join("catalog.db").display());
        Self::new(size, folder, url).await
    }

    /// None where no file system may be mounted, which it says.
    pub(super) async fn on_a_small_disk(size: &Size) -> Option<(Self, Disk)> {
        let folder = Folder::new();
        let disk = Disk::mount(&folder.join("disk"))?;
        let url = format!("sqlite:{}", folder.join("disk/catalog.db").display());
        Some((Self::new(size, folder, url).await, disk))
    }

    async fn new(size: &Size, folder: Folder, url: String) -> Self {
        let (state, owners) = upstream(size.projects);
        let simulator = Simulator::start(state).await.unwrap();
        simulator.set_latency(LATENCY);
        let store = store::open(&url, &store::Options::default()).await.unwrap();
        store.migrate().await.unwrap();
        let projects = add(store.as_ref(), folder.path(), &simulator.state(), owners).await;
        Self {
            folder,
            url,
            store,
            simulator,
            projects,
            broker: None,
            database: None,
        }
    }

    /// Each project with its key.
    pub(super) fn keys(&self) -> Vec<(String, String)> {
        let state = self.simulator.state();
        let key_of = |app: &str| {
            let mut teams = state.teams.iter();
            let team = teams.find(|team| team.apps.iter().any(|it| it.id == app));
            team.unwrap().keys[0].key_id.clone()
        };
        self.projects
            .iter()
            .map(|(project, app)| (project.clone(), key_of(app)))
            .collect()
    }

    pub(super) async fn tables(&self) -> Tables {
        Tables::open(&self.url).await
    }

    /// What a worker finds in its environment.
    pub(super) fn environment(&self, size: &Size) -> Vec<(&'static str, String)> {
        let lease = size.lease.as_millis();
        let mut variables = vec![
            ("CATALOG_SYNC_STORE__URL", self.url_of_workers()),
            ("CATALOG_SYNC_HEALTH__LISTEN", "127.0.0.1:0".to_owned()),
            (
                "CATALOG_SYNC_APP_STORE__BASE_URL",
                self.simulator.base_url().to_owned(),
            ),
            ("CATALOG_SYNC_SYNC__LEASE_MS", lease.to_string()),
            ("CATALOG_SYNC_SYNC__HEARTBEAT_MS", (lease / 3).to_string()),
            ("CATALOG_SYNC_SCHEDULE__CRON", size.cron.clone()),
            ("CATALOG_SYNC_SCHEDULE__SPREAD_MINUTES", "1".to_owned()),
            // Edits here are many for a minute, and none is an accident.
            ("CATALOG_SYNC_GUARD__REMOVED_PERCENT", "100".to_owned()),
        ];
        if let Some(Broker { line, prefix }) = &self.broker {
            let url = format!("nats://127.0.0.1:{}", line.proxy.port);
            variables.push(("CATALOG_SYNC_NATS__URL", url));
            variables.push(("CATALOG_SYNC_NATS__PREFIX", (*prefix).to_owned()));
        }
        variables
    }

    fn url_of_workers(&self) -> String {
        match &self.database {
            None => self.url.clone(),
            Some(Line { server, proxy }) => {
                let (from, to) = (format!(":{}/", server.port), format!(":{}/", proxy.port));
                self.url.replace(&from, &to)
            }
        }
    }
}

/// Teams with a key each and an app for each project, and the key and app of each project.
fn upstream(projects: usize) -> (State, Vec<(String, String)>) {
    let mut state = State::new();
    let mut owners = Vec::new();
    for (number, apps) in SHARING.iter().cycle().enumerate() {
        let key_id = format!("FLEET{number:05}");
        let issuer_id = format!("5a1e0000-0000-4000-8000-{number:012}");
        let key = Key::new(&key_id, Role::Admin).with_hourly_limit(1_000_000);
        let mut team = Team::new(format!("Team {number}"), issuer_id).with_key(key);
        for _ in 0..(*apps).min(projects - owners.len()) {
            let app_id = (1_000_000 + owners.len()).to_string();
            let bundle_id = format!("com.example.app{app_id}");
            team = team.with_app(
                App::new(&app_id, bundle_id, format!("App {app_id}"))
                    .with_in_app_purchases(4)
                    .with_groups(1, 2)
                    .with_grace_period(),
            );
            owners.push((key_id.clone(), app_id));
        }
        state = state.with_team(team);
        if owners.len() == projects {
            break;
        }
    }
    (state, owners)
}

/// Adds a project for each app, and makes the master key that seals their keys.
async fn add(
    store: &dyn Store,
    folder: &Path,
    state: &State,
    owners: Vec<(String, String)>,
) -> Vec<(String, String)> {
    let key_file = folder.join("master.key");
    vault::create(&key_file, clock::now()).unwrap();
    let vault = Vault::open(&[vault::Source::File(key_file)]).unwrap();
    let mut projects = Vec::new();
    for (number, (key_id, app_id)) in owners.into_iter().enumerate() {
        let app = state.app(&app_id).unwrap();
        let credential = handed_over(state, &key_id);
        let id: ProjectId = format!("p{number:05}").parse().unwrap();
        let project = Project {
            id: id.clone(),
            app: project::App {
                id: app.id.clone(),
                bundle_id: app.bundle_id.clone(),
                name: app.name.clone(),
            },
            key_id: credential.key_id.clone(),
            issuer_id: credential.issuer_id.clone(),
            cron: None,
            guard: OwnLimits::default(),
            paused_at: None,
            created_at: clock::now(),
        };
        let sealed = vault.seal(&id, &credential).unwrap();
        store.add_project(&project, &sealed).await.unwrap();
        projects.push((id.to_string(), app_id));
    }
    projects
}
