//! Where a worker's catalogs are: a database with a project for each app.

use std::{path::PathBuf, sync::Arc, time::Duration};

use catalog_sync::{
    catalog::OwnLimits,
    clock,
    credential::{self, Given},
    project::{self, Project, ProjectId},
    store::{self, Ask, Store},
    vault::{self, Vault},
};
use clap::ValueEnum;
use tempfile::TempDir;

use super::{
    Size,
    postgres::Postgres,
    upstream::{self, Upstream},
};

#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum Backend {
    Sqlite,
    Postgres,
}

impl Backend {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Sqlite => "SQLite",
            Self::Postgres => "Postgres",
        }
    }
}

pub(crate) struct Place {
    pub(crate) folder: TempDir,
    pub(crate) url: String,
    pub(crate) postgres: Option<Postgres>,
    store: Arc<dyn Store>,
    projects: Vec<ProjectId>,
}

impl Place {
    pub(crate) async fn new(
        backend: Backend,
        size: &Size,
        upstream: &Upstream,
    ) -> anyhow::Result<Self> {
        // On the disk of the build, and not in memory, where /tmp may be.
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
        let postgres = match backend {
            Backend::Sqlite => None,
            Backend::Postgres => Some(Postgres::start()?),
        };
        let url = match &postgres {
            None => format!("sqlite:{}", folder.path().join("catalog.db").display()),
            Some(server) => server.url(),
        };
        let store = store::open(&url, &store::Options::default()).await?;
        store.migrate().await?;
        let mut place = Self {
            folder,
            url,
            postgres,
            store,
            projects: Vec::new(),
        };
        place.add_projects(size, upstream).await?;
        Ok(place)
    }

    pub(crate) fn master_key(&self) -> PathBuf {
        self.folder.path().join("master.key")
    }

    async fn add_projects(&mut self, size: &Size, upstream: &Upstream) -> anyhow::Result<()> {
        vault::create(&self.master_key(), clock::now())?;
        let vault = Vault::open(&[vault::Source::File(self.master_key())])?;
        for number in 0..size.projects {
            let key_id = upstream::key_id(number);
            let pem = std::fs::read(upstream.keys.path().join(format!("AuthKey_{key_id}.p8")))?;
            let credential = credential::read(Given {
                key_id: Some(&key_id),
                issuer_id: Some(&upstream::issuer_id(number)),
                private_key: Some(&pem),
                file_name: None,
            })?;
            let id: ProjectId = format!("p{number:05}").parse()?;
            let project = Project {
                id: id.clone(),
                app: project::App {
                    id: upstream::app_id(number),
                    bundle_id: format!("com.example.app{number}"),
                    name: format!("App {number}"),
                },
                key_id: credential.key_id.clone(),
                issuer_id: credential.issuer_id.clone(),
                cron: None,
                guard: OwnLimits::default(),
                paused_at: None,
                created_at: clock::now(),
            };
            let sealed = vault.seal(&id, &credential)?;
            self.store.add_project(&project, &sealed).await?;
            self.projects.push(id);
        }
        Ok(())
    }

    /// As who asks for a sync of each project.
    pub(crate) async fn ask_for_all(&self) -> anyhow::Result<()> {
        let ask = |project: &ProjectId| Ask {
            project: project.clone(),
            reason: None,
        };
        let asks: Vec<Ask> = self.projects.iter().map(ask).collect();
        let asked = self.store.ask(&asks, clock::now()).await?;
        anyhow::ensure!(asked.unknown.is_empty(), "a project is not there");
        Ok(())
    }

    /// The processor time of the database's own processes. SQLite has none.
    pub(crate) fn cpu(&self) -> anyhow::Result<Duration> {
        self.postgres
            .as_ref()
            .map_or(Ok(Duration::ZERO), Postgres::cpu)
    }
}
