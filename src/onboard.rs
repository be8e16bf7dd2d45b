//! Verifying a key before it is stored: what it sees, which app is meant, and what precisely is wrong with it.

use std::sync::Arc;

use crate::{
    asc::{self, Failure, Meter, Session, Signer, Terms},
    credential::Identity,
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

/// A key that works, and what it sees.
pub struct Visible {
    session: Session,
    apps: Vec<App>,
}

/// Lists the apps that the key sees.
///
/// # Errors
/// What is wrong with the key, precisely.
pub async fn list_apps(
    client: &asc::Client,
    signer: Signer,
    meter: &Arc<Meter>,
) -> Result<Visible, Diagnosis> {
    let session = client.session(signer, Arc::clone(meter), Terms::on_demand());
    match session.fetch_apps().await {
        Err(error) => Err(explain(client, session.signer(), &error, meter).await),
        Ok(apps) if apps.is_empty() => {
            let sentence = format!(
                "No apps are linked to this API key ({}).",
                session.identity()
            );
            Err(Diagnosis::new(Code::NoApps, sentence))
        }
        Ok(apps) => Ok(Visible { session, apps }),
    }
}

impl Visible {
    /// Every app that the key sees, by name; at least one.
    #[must_use]
    pub fn apps(&self) -> &[App] {
        &self.apps
    }

    /// The key, without its secret.
    #[must_use]
    pub fn key(&self) -> String {
        self.session.identity().to_string()
    }

    /// The app wanted, or the only one; none when there are several and none was named.
    ///
    /// # Errors
    /// When the app wanted is not among them, or two are named.
    pub fn choose(&self, wanted: &Wanted) -> Result<Option<App>, Diagnosis> {
        choose(self.session.identity(), &self.apps, wanted).map_err(|why| match why.code {
            Code::AppNotVisible => why.advise(
                "Name one of these; or, if the app is another team's or is hidden from this key, give a key that sees it.",
            ),
            _ => why,
        })
    }

    /// Proves that the app's catalog can be read, with one request.
    ///
    /// # Errors
    /// Why it cannot: most likely the key's role.
    pub async fn prove(&self, app: &App) -> Result<(), Diagnosis> {
        self.session.probe_catalog(&app.id).await.map_err(|error| {
            let why = error.diagnosis(self.session.identity());
            match why.code {
                // It was among the apps a moment ago.
                Code::AppNotVisible => {
                    let sentence = "App Store Connect answered unexpectedly: 404 for a part of an app that it knows.";
                    let Diagnosis { endpoint, apple_error_id, .. } = why;
                    Diagnosis { endpoint, apple_error_id, ..Diagnosis::new(Code::UpstreamUnexpected, sentence) }
                }
                _ => why,
            }
        })
    }
}

/// Says what is wrong with a refused key; tells an individual key that was given with an issuer by trying it without.
async fn explain(
    client: &asc::Client,
    signer: &Signer,
    error: &asc::Error,
    meter: &Arc<Meter>,
) -> Diagnosis {
    let key = signer.identity();
    let diagnosis = error.diagnosis(key);
    if diagnosis.code != Code::NotAuthorized || key.issuer_id.is_none() {
        return diagnosis;
    }
    let works_alone = match client
        .session(
            signer.without_issuer(),
            Arc::clone(meter),
            Terms::on_demand(),
        )
        .fetch_apps()
        .await
    {
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

fn choose(key: &Identity, apps: &[App], wanted: &Wanted) -> Result<Option<App>, Diagnosis> {
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
            .ok_or_else(|| not_visible(key, id, Some(apps))),
        (None, Some(bundle_id)) => by_bundle(bundle_id)
            .cloned()
            .map(Some)
            .ok_or_else(|| not_visible(key, bundle_id, Some(apps))),
        (Some(id), Some(bundle_id)) => match (by_id(id), by_bundle(bundle_id)) {
            (Some(app), Some(same)) if app == same => Ok(Some(app.clone())),
            (None, None) => Err(not_visible(key, id, Some(apps))),
            (found_by_id, found_by_bundle) => {
                let named = |app: Option<&App>, what: &str| match app {
                    Some(app) => format!("{what} is {} ({}, {})", app.name, app.id, app.bundle_id),
                    None => format!("{what} is no app that the key sees"),
                };
                let sentence = format!(
                    "The bundle id and the App Store ID name different apps: {}, and {}.",
                    named(found_by_id, &format!("App Store ID {}", shown(id))),
                    named(found_by_bundle, &format!("bundle id {}", shown(bundle_id)))
                );
                Err(Diagnosis::new(Code::AppMismatch, sentence))
            }
        },
    }
}

/// How many of the apps that a key does see are named.
const NAMED_APPS: usize = 5;

/// Says that the app is not among those that the key sees, which are named where they are known, the most similar first.
#[must_use]
pub fn not_visible(key: &Identity, wanted: &str, apps: Option<&[App]>) -> Diagnosis {
    let likeness = |app: &App| {
        strsim::jaro_winkler(wanted, &app.id).max(strsim::jaro_winkler(wanted, &app.bundle_id))
    };
    let seen = apps.map_or_else(String::new, |apps| {
        let mut nearest: Vec<&App> = apps.iter().collect();
        nearest.sort_by(|a, b| likeness(b).total_cmp(&likeness(a)));
        let names: Vec<String> = nearest
            .iter()
            .take(NAMED_APPS)
            .map(|app| format!("{} ({}, {})", app.name, app.id, app.bundle_id))
            .collect();
        match (names.len(), apps.len().saturating_sub(NAMED_APPS)) {
            (0, _) => ", which sees no app at all".to_owned(),
            (_, 0) => format!(", which sees {}", names.join(", ")),
            (_, more) => format!(", which sees {} and {more} more", names.join(", ")),
        }
    });
    Diagnosis::new(
        Code::AppNotVisible,
        format!("App {} is not visible to {key}{seen}.", shown(wanted)),
    )
}

/// What was given as an app's id, as long as it can be one: a private key that was pasted there is not repeated.
fn shown(id: &str) -> &str {
    let is_number = id.bytes().all(|byte| byte.is_ascii_digit());
    let is_bundle_id = id.contains('.')
        && id
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_'));
    if is_number || is_bundle_id {
        id
    } else {
        "(neither an App Store ID, which is a number, nor a bundle id such as com.example.app)"
    }
}
