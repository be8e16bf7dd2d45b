//! The key that `project add` and `project set-key` are given, and its file.

use std::{
    fs::Metadata,
    io::{self, Read as _},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use clap::Args;
use zeroize::Zeroizing;

use super::output::{Output, YELLOW};
use crate::{
    credential::{self, Credential},
    diagnosis::{Code, Diagnosis},
    onboard::Wanted,
};

/// A key as App Store Connect hands it out, and the app that is meant.
#[derive(Args)]
pub(super) struct KeyArgs {
    /// The Key ID, 10 characters [default: from the file's name]
    #[arg(long)]
    key_id: Option<String>,
    /// The Issuer ID, a UUID; leave it out for an individual key
    #[arg(long)]
    issuer_id: Option<String>,
    /// The .p8 file, or - to read it from standard input
    #[arg(long, value_name = "FILE")]
    private_key: Option<PathBuf>,
    /// The App Store ID of the app, when the key sees several
    #[arg(long)]
    app_id: Option<String>,
    /// The bundle id of the app, when the key sees several
    #[arg(long)]
    bundle_id: Option<String>,
}

/// The largest file that is read as a key.
const KEY_FILE_LIMIT_BYTES: usize = 64 << 10;

impl KeyArgs {
    /// A team key whose file has Apple's name.
    #[cfg(feature = "simulator")]
    pub(super) fn of(issuer_id: String, private_key: PathBuf) -> Self {
        Self {
            key_id: None,
            issuer_id: Some(issuer_id),
            private_key: Some(private_key),
            app_id: None,
            bundle_id: None,
        }
    }

    pub(super) fn read(&self) -> anyhow::Result<Credential> {
        let bytes = self.private_key.as_deref().map(read_key_file).transpose()?;
        let file_name = self
            .private_key
            .as_ref()
            .and_then(|file| file.file_name())
            .and_then(|name| name.to_str());
        let credential = credential::read(credential::Given {
            key_id: self.key_id.as_deref(),
            issuer_id: self.issuer_id.as_deref(),
            private_key: bytes.as_ref().map(|bytes| bytes.as_slice()),
            file_name,
        });
        Ok(credential.map_err(|why| match &self.private_key {
            Some(file) if why.code == Code::KeyUnreadable => Diagnosis {
                sentence: format!("{}: {}", file.display(), why.sentence),
                ..why
            },
            _ => why,
        })?)
    }

    pub(super) fn wanted(&self) -> Wanted {
        Wanted {
            app_id: self.app_id.clone(),
            bundle_id: self.bundle_id.clone(),
        }
    }

    /// Whether there is a key to be read.
    pub(super) fn has_key(&self) -> bool {
        self.private_key.is_some()
    }

    /// Warns of a key file that others can read, now that the key is sealed in the store.
    pub(super) fn warn_of_exposed_file(&self, output: &Output) -> anyhow::Result<()> {
        let Some(file) = &self.private_key else {
            return Ok(());
        };
        let Some(mode) = mode_for_others(file) else {
            return Ok(());
        };
        let shown = file.display();
        tracing::warn!(event = "key_file.exposed", file = %shown, "others can read the key file");
        output.say(format_args!(
            "{YELLOW}warning{YELLOW:#}: others can read {shown} (mode {mode:03o}). The key is stored, sealed, and this file is not needed \
             any more: move it to a safe place, or delete it"
        ))?;
        Ok(())
    }
}

fn read_key_file(file: &Path) -> anyhow::Result<Zeroizing<Vec<u8>>> {
    // Never grown, so that no copy is left behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(KEY_FILE_LIMIT_BYTES + 1));
    let read = if file == Path::new("-") {
        io::stdin()
            .take(KEY_FILE_LIMIT_BYTES as u64 + 1)
            .read_to_end(&mut bytes)
    } else {
        std::fs::File::open(file).and_then(|opened| {
            opened
                .take(KEY_FILE_LIMIT_BYTES as u64 + 1)
                .read_to_end(&mut bytes)
        })
    };
    read.with_context(|| {
        format!(
            "the private key {} cannot be read; if the .p8 is lost, 'catalog-sync explain key_lost' says what to do",
            file.display()
        )
    })?;
    Ok(bytes)
}

/// The permissions of a file that everybody on this machine can read.
fn mode_for_others(file: &Path) -> Option<u32> {
    // What is read from standard input has none, and a file that is gone by now is nobody's.
    let metadata = std::fs::metadata(file).ok().filter(Metadata::is_file)?;
    let mode = metadata.permissions().mode() & 0o777;
    (mode & 0o004 != 0).then_some(mode)
}
