//! App Store Connect: tokens, one authenticated GET, lists read to their end, and the reads that a catalog is made of.
//!
//! What must hold throughout: a listing is complete or an error, and the token goes nowhere but to the origin that the
//! client was built for.

mod body;
pub mod breaker;
mod client;
mod endpoint;
mod error;
mod extent;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod groups;
mod meter;
mod page;
pub mod rate;
mod reach;
mod resource;
mod signer;
mod text;
mod token;
mod wire;

use serde::Deserialize;

use self::{
    body::Room,
    endpoint::Endpoint,
    page::Listing,
    resource::{GracePeriodLink, Resource},
};
pub use self::{
    client::{Client, Options, Session, Terms, Upstream, http_client},
    error::{Astray, Error, Failure, Limit},
    groups::Groups,
    meter::Meter,
    reach::Reached,
    signer::Signer,
    token::SigningError,
};
use crate::{
    catalog::{self, Answer, Entry, Key, Kind, Mark, PageDigest},
    project::App,
};
#[cfg(feature = "simulator")]
pub use wire::InProcess;

/// What is there to see, compared with what was.
#[derive(Debug)]
pub enum Look<T> {
    /// It is as it was.
    Same,
    /// What is there now, and what it is known by, where that says it all.
    Other(T, Option<Mark>),
}

impl<T> Look<T> {
    /// What is there, for who knows nothing of what was.
    fn other(self) -> T {
        match self {
            Self::Other(what, _) => what,
            Self::Same => unreachable!("nothing is as it was to who knows of nothing"),
        }
    }
}

/// An answer with one resource.
#[derive(Deserialize)]
struct Document {
    data: Resource,
    #[serde(default)]
    included: Option<Vec<Resource>>,
}

impl Session {
    /// The apps that the key sees, by name. One request for each 200.
    ///
    /// # Errors
    /// When the list could not be read to its end.
    pub async fn fetch_apps(&self) -> Result<Vec<App>, Error> {
        let listing = self.list(&endpoint::APPS, "", &Room::new()).await?;
        Ok(listing.into_iter().map(Resource::into_app).collect())
    }

    /// The app and its grace period, in one request; in two from a server that leaves the relationship out. An app with none
    /// set has an entry without attributes.
    ///
    /// # Errors
    /// When the app could not be read; [`Failure::NotFound`] when the key does not see it.
    pub async fn fetch_app(&self, app_id: &str) -> Result<(App, Entry), Error> {
        self.look_at_app(app_id, None).await.map(Look::other)
    }

    /// The same, unless what is said of both is as it was.
    ///
    /// # Errors
    /// As of [`Session::fetch_app`].
    pub async fn look_at_app(
        &self,
        app_id: &str,
        known: Option<&Mark>,
    ) -> Result<Look<(App, Entry)>, Error> {
        let url = endpoint::APP.url(self.base_url(), app_id);
        let unexpected = |why| Error::new(url.path(), Failure::Unexpected(why));
        let room = Room::new();
        let decode = |body: Vec<u8>, status| {
            let digest = PageDigest::of(&body);
            let mark = vec![catalog::Page { digest, next: None }];
            if known == Some(&mark) {
                return Ok(None);
            }
            let document = body::decode::<Document>(&body, status, &room)?.document;
            Ok(Some((document, mark)))
        };
        let Some((Document { data, included }, mark)) = self.get_with(&url, &decode).await? else {
            return Ok(Look::Same);
        };
        // What it does not say itself can change while it stays.
        let mut mark = Some(mark);
        if data.kind != endpoint::APP.yields || data.id != app_id {
            return Err(unexpected(format!("it is {} {}", data.kind, data.id)));
        }
        let grace_period = match data.grace_period() {
            GracePeriodLink::Unset => Entry::new(Kind::GracePeriod, app_id),
            GracePeriodLink::Untold => {
                mark = None;
                self.fetch_grace_period(app_id).await?
            }
            GracePeriodLink::Set(id) => {
                let mut included = included.unwrap_or_default().into_iter();
                let resource = included
                    .find(|resource| {
                        resource.kind == endpoint::GRACE_PERIOD.yields && resource.id == id
                    })
                    .ok_or_else(|| {
                        unexpected(format!("grace period {id} is linked and did not come"))
                    })?;
                grace_period_entry(app_id, resource)
            }
        };
        Ok(Look::Other((data.into_app(), grace_period), mark))
    }

    /// The grace period of an app that is known to be visible: there, a 404 means that none is set. One request.
    ///
    /// # Errors
    /// When it could not be read.
    pub async fn fetch_grace_period(&self, app_id: &str) -> Result<Entry, Error> {
        let url = endpoint::GRACE_PERIOD.url(self.base_url(), app_id);
        match self.get::<Document>(&url).await {
            Ok(Document { data, .. }) if data.kind == endpoint::GRACE_PERIOD.yields => {
                Ok(grace_period_entry(app_id, data))
            }
            Ok(Document { data, .. }) => {
                let why = format!("it is {} {}", data.kind, data.id);
                Err(Error::new(url.path(), Failure::Unexpected(why)))
            }
            Err(Error {
                failure: Failure::NotFound,
                ..
            }) => Ok(Entry::new(Kind::GracePeriod, app_id)),
            Err(error) => Err(error),
        }
    }

    /// Every in-app purchase of the app. One request for each 200.
    ///
    /// # Errors
    /// When the list could not be read to its end.
    pub async fn fetch_in_app_purchases(&self, app_id: &str) -> Result<Vec<Entry>, Error> {
        self.look_at_in_app_purchases(app_id, None)
            .await
            .map(Look::other)
    }

    /// The same, unless they are as they were.
    ///
    /// # Errors
    /// As of [`Session::fetch_in_app_purchases`].
    pub async fn look_at_in_app_purchases(
        &self,
        app_id: &str,
        known: Option<&Mark>,
    ) -> Result<Look<Vec<Entry>>, Error> {
        let room = Room::new();
        let endpoint = &endpoint::IN_APP_PURCHASES;
        let read =
            page::read_again_if_torn(|| Box::pin(page::read(self, endpoint, app_id, &room, known)));
        Ok(match read.await? {
            Listing::Same => Look::Same,
            Listing::Other(listed) => {
                let entries = listed.data.into_iter();
                let entries = entries.map(|resource| resource.into_entry(Kind::InAppPurchase));
                Look::Other(entries.collect(), Some(listed.mark))
            }
        })
    }

    /// Asks whether a thing that was not listed is there. One request. The grace period is no thing of its own, and is taken to be
    /// there.
    ///
    /// # Errors
    /// When nothing could be learned.
    pub async fn fetch_answer(&self, key: &Key) -> Result<Answer, Error> {
        let id = key.store_id.as_str();
        let read = match key.kind {
            Kind::InAppPurchase => self.read_one(&endpoint::IN_APP_PURCHASE, id).await,
            Kind::Subscription => self.read_one(&endpoint::SUBSCRIPTION, id).await,
            Kind::SubscriptionGroup => {
                let url = endpoint::SUBSCRIPTION_GROUP_PROBE.url(self.base_url(), id);
                self.get::<serde::de::IgnoredAny>(&url).await.map(drop)
            }
            Kind::GracePeriod => return Ok(Answer::There),
        };
        match read {
            Ok(()) => Ok(Answer::There),
            Err(Error {
                failure: Failure::NotFound,
                ..
            }) => Ok(Answer::Gone),
            Err(error) => Err(error),
        }
    }

    async fn read_one(&self, endpoint: &Endpoint, id: &str) -> Result<(), Error> {
        let url = endpoint.url(self.base_url(), id);
        let Document { data, .. } = self.get(&url).await?;
        if data.kind == endpoint.yields && data.id == id {
            return Ok(());
        }
        let why = format!("it is {} {}", data.kind, data.id);
        Err(Error::new(url.path(), Failure::Unexpected(why)))
    }

    /// Reads one in-app purchase at most: proves that the key's role may read the app's catalog.
    ///
    /// # Errors
    /// When it may not, or the request failed.
    pub async fn probe_catalog(&self, app_id: &str) -> Result<(), Error> {
        let url = endpoint::CATALOG_PROBE.url(self.base_url(), app_id);
        self.get::<serde::de::IgnoredAny>(&url).await.map(drop)
    }

    async fn list(
        &self,
        endpoint: &Endpoint,
        id: &str,
        room: &Room,
    ) -> Result<Vec<Resource>, Error> {
        let listed =
            page::read_again_if_torn(|| Box::pin(page::read_whole(self, endpoint, id, room)))
                .await?;
        Ok(listed.data)
    }
}

/// The path by which a kind is listed, with its version.
#[must_use]
pub fn listing_path(kind: Kind) -> &'static str {
    endpoint::listing(kind)
}

/// There is one for each app, under the app's id whatever its own.
fn grace_period_entry(app_id: &str, resource: Resource) -> Entry {
    Entry {
        key: Entry::new(Kind::GracePeriod, app_id).key,
        ..resource.into_entry(Kind::GracePeriod)
    }
}
