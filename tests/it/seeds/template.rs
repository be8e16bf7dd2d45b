//! What is made once for all stories: an empty database, and a master key.

use std::{path::PathBuf, sync::Arc};

use catalog_sync::{
    clock, store,
    vault::{self, Vault},
};
use tempfile::TempDir;

use super::faulty_store::wait_for;
use crate::store::raw::Raw;

/// It is copied for each story.
pub(super) struct Template {
    folder: TempDir,
    database: Vec<u8>,
    pub(super) vault: Arc<Vault>,
}

impl Template {
    pub(super) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let key_file = folder.path().join("master.key");
        vault::create(&key_file, clock::now()).unwrap();
        let vault = Vault::open(&[vault::Source::File(key_file)]).unwrap();
        let empty = folder.path().join("empty.db");
        let copy = folder.path().join("template.db");
        wait_for(async {
            let url = format!("sqlite:{}", empty.display());
            store::open_migrated(&url, &store::Options::default())
                .await
                .unwrap();
            let mut raw = Raw::connect(&url).await;
            raw.run(&format!("vacuum into '{}'", copy.display())).await;
        });
        Self {
            database: std::fs::read(copy).unwrap(),
            vault: Arc::new(vault),
            folder,
        }
    }

    /// An empty database of its own, in memory where there is such a place.
    pub(super) fn copy(&self) -> (TempDir, PathBuf) {
        let folder = tempfile::tempdir_in("/dev/shm")
            .or_else(|_| tempfile::tempdir_in(self.folder.path()))
            .unwrap();
        let path = folder.path().join("catalog.db");
        std::fs::write(&path, &self.database).unwrap();
        let owner = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(&path, owner).unwrap();
        (folder, path)
    }
}
