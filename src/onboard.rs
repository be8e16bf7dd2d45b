//! Verifying a key before it is stored: what it sees, which app is meant, and what precisely is wrong with it.

use std::sync::Arc;

use crate::{
    asc::{self, Failure, Meter},
    credential::{Credential, PrivateKey},
    diagnosis::{Code, Diagnosis},
    project::App,
};

/// Which app is meant.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// Its App Store ID.
    pub app_id: Option<String>,
    /// Its bundle id.
    pub bundle_id: Option<String>,
}

/// What verification found.
#[derive(Clone, Debug)]
pub enum Verified {
    /// The key works, and this is the app.
    Chosen {
        /// The app.
        app: App,
        /// Every app that the key sees, by name.
        apps: Vec<App>,
    },
    /// The key works and sees several apps, and none was named.
    Several(Vec<App>),
}

/// Lists the apps that the key sees, takes the only one or the one wanted, and proves that its catalog can be read.
///
/// # Errors
/// What is wrong with the key or the wish, precisely.
pub async fn verify(
    client: &asc::Client,
    credential: Credential,
    wanted: &Wanted,
    meter: &Arc<Meter>,
) -> Result<Verified, Diagnosis> {
    let session = client.session(credential, Arc::clone(meter));
    let key = session.credential();
    let apps = match session.fetch_apps().await {
        Ok(apps) => apps,
        Err(error) => return Err(explain(client, key, &error, meter).await),
    };
    if apps.is_empty() {
        let sentence = format!("No apps are linked to this API key ({key}).");
        return Err(Diagnosis::new(Code::NoApps, sentence));
    }
    let Some(app) = choose(key, &apps, wanted)? else {
        return Ok(Verified::Several(apps));
    };
    if let Err(error) = session.probe_catalog(&app.id).await {
        return Err(error.diagnosis(key));
    }
    Ok(Verified::Chosen { app, apps })
}

/// Says what is wrong with a refused key; tells an individual key that was given with an issuer by trying it without.
async fn explain(
    client: &asc::Client,
    key: &Credential,
    error: &asc::Error,
    meter: &Arc<Meter>,
) -> Diagnosis {
    let diagnosis = error.diagnosis(key);
    if diagnosis.code != Code::NotAuthorized || key.issuer_id.is_none() {
        return diagnosis;
    }
    let alone = Credential {
        key_id: key.key_id.clone(),
        issuer_id: None,
        private_key: PrivateKey::from_der(key.private_key.der()),
    };
    let works_alone = match client.session(alone, Arc::clone(meter)).fetch_apps().await {
        Ok(_) => true,
        Err(error) => matches!(
            error.failure,
            Failure::AgreementMissing | Failure::Forbidden { .. }
        ),
    };
    if works_alone {
        Diagnosis {
            sentence: format!(
                "Key {} is an individual key, and was given with an Issuer ID.",
                key.key_id
            ),
            advice: "Leave the Issuer ID out: an individual key has none.".to_owned(),
            ..diagnosis
        }
    } else {
        diagnosis
    }
}

fn choose(key: &Credential, apps: &[App], wanted: &Wanted) -> Result<Option<App>, Diagnosis> {
    let by_id = |id: &String| apps.iter().find(|app| app.id == *id);
    let by_bundle = |bundle_id: &String| apps.iter().find(|app| app.bundle_id == *bundle_id);
    match (&wanted.app_id, &wanted.bundle_id) {
        (None, None) => Ok(match apps {
            [app] => Some(app.clone()),
            _ => None,
        }),
        (Some(id), None) => by_id(id)
            .cloned()
            .map(Some)
            .ok_or_else(|| not_visible(key, id, apps)),
        (None, Some(bundle_id)) => by_bundle(bundle_id)
            .cloned()
            .map(Some)
            .ok_or_else(|| not_visible(key, bundle_id, apps)),
        (Some(id), Some(bundle_id)) => match (by_id(id), by_bundle(bundle_id)) {
            (Some(app), Some(same)) if app == same => Ok(Some(app.clone())),
            (None, None) => Err(not_visible(key, id, apps)),
            (found_by_id, found_by_bundle) => {
                let named = |app: Option<&App>, what: &str| match app {
                    Some(app) => format!("{what} is {} ({}, {})", app.name, app.id, app.bundle_id),
                    None => format!("{what} is no app that the key sees"),
                };
                let sentence = format!(
                    "The bundle id and the App Store ID name different apps: {}, and {}.",
                    named(found_by_id, &format!("App Store ID {id}")),
                    named(found_by_bundle, &format!("bundle id {bundle_id}"))
                );
                Err(Diagnosis::new(Code::AppMismatch, sentence))
            }
        },
    }
}

/// How many of the apps that a key does see are named.
const NAMED_APPS: usize = 5;

/// Says that the app is not among those that the key sees, which are named, the most similar first.
#[must_use]
pub fn not_visible(key: &Credential, wanted: &str, apps: &[App]) -> Diagnosis {
    let mut nearest: Vec<&App> = apps.iter().collect();
    let likeness = |app: &App| {
        strsim::jaro_winkler(wanted, &app.id).max(strsim::jaro_winkler(wanted, &app.bundle_id))
    };
    nearest.sort_by(|a, b| likeness(b).total_cmp(&likeness(a)));
    let more = nearest.len().saturating_sub(NAMED_APPS);
    let names: Vec<String> = nearest
        .iter()
        .take(NAMED_APPS)
        .map(|app| format!("{} ({}, {})", app.name, app.id, app.bundle_id))
        .chain((more > 0).then(|| format!("and {more} more")))
        .collect();
    let sees = if names.is_empty() {
        "no app at all".to_owned()
    } else {
        names.join(", ")
    };
    Diagnosis::new(
        Code::AppNotVisible,
        format!("App {wanted} is not visible to {key}, which sees {sees}."),
    )
}
