//! App Store Connect: tokens, one authenticated GET, lists read to their end, and the reads that a catalog is made of.
//!
//! What must hold throughout: a listing is complete or an error, and the token goes nowhere but to the origin that the
//! client was built for.

mod client;
mod endpoint;
mod error;
mod page;
pub mod rate;
mod resource;
mod text;
mod token;

use std::collections::{BTreeMap, HashMap};

use futures_util::future;
use serde::Deserialize;

pub use self::{
    client::{Client, Meter, Options, Session},
    error::{Error, Failure},
    token::SigningError,
};
use self::{
    endpoint::Endpoint,
    resource::{GracePeriodLink, Resource},
};
use crate::{
    catalog::{Entry, Kind},
    project::App,
};

/// Subscription groups, and the subscriptions in them unless those could not be listed completely.
pub struct Groups {
    /// All groups of the app.
    pub groups: Vec<Entry>,
    /// All subscriptions of these groups.
    pub subscriptions: Result<Vec<Entry>, Error>,
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
        let listing = self.list(&endpoint::APPS, "").await?;
        Ok(listing.into_iter().map(Resource::into_app).collect())
    }

    /// The app and its grace period, in one request; in two from a server that leaves the relationship out. An app with none
    /// set has an entry without attributes.
    ///
    /// # Errors
    /// When the app could not be read; [`Failure::NotFound`] when the key does not see it.
    pub async fn fetch_app(&self, app_id: &str) -> Result<(App, Entry), Error> {
        let url = endpoint::APP.url(self.base_url(), app_id);
        let unexpected = |why| Error::new(url.path(), Failure::Unexpected(why));
        let Document { data, included } = self.get(&url).await?;
        if data.kind != endpoint::APP.yields || data.id != app_id {
            return Err(unexpected(format!("it is {} {}", data.kind, data.id)));
        }
        let grace_period = match data.grace_period() {
            GracePeriodLink::Unset => Entry::new(Kind::GracePeriod, app_id),
            GracePeriodLink::Untold => self.fetch_grace_period(app_id).await?,
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
        Ok((data.into_app(), grace_period))
    }

    /// The grace period of an app that is known to be visible: there, a 404 means that none is set.
    async fn fetch_grace_period(&self, app_id: &str) -> Result<Entry, Error> {
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
        let listing = self.list(&endpoint::IN_APP_PURCHASES, app_id).await?;
        Ok(listing
            .into_iter()
            .map(|resource| resource.into_entry(Kind::InAppPurchase))
            .collect())
    }

    /// Every subscription group of the app, and every subscription in them. One request for each 200 groups, and for each
    /// group of which not all subscriptions came with it, one for each 200 of those.
    ///
    /// # Errors
    /// When the list of groups could not be read to its end; a group whose subscriptions could not be listed is told in
    /// [`Groups::subscriptions`].
    pub async fn fetch_groups(&self, app_id: &str) -> Result<Groups, Error> {
        page::read_again_if_torn(async || self.read_groups(app_id).await).await
    }

    /// Reads one in-app purchase at most: proves that the key's role may read the app's catalog.
    ///
    /// # Errors
    /// When it may not, or the request failed.
    pub async fn probe_catalog(&self, app_id: &str) -> Result<(), Error> {
        let url = endpoint::CATALOG_PROBE.url(self.base_url(), app_id);
        self.get::<serde::de::IgnoredAny>(&url).await.map(drop)
    }

    async fn list(&self, endpoint: &Endpoint, id: &str) -> Result<Vec<Resource>, Error> {
        let listing =
            page::read_again_if_torn(async || page::read(self, endpoint, id).await).await?;
        Ok(listing.data)
    }

    async fn read_groups(&self, app_id: &str) -> Result<Groups, Error> {
        let url = endpoint::SUBSCRIPTION_GROUPS.url(self.base_url(), app_id);
        let torn = |why| Error::new(url.path(), Failure::Torn(why));
        let listing = page::read(self, &endpoint::SUBSCRIPTION_GROUPS, app_id).await?;
        let mut included: HashMap<String, Resource> = listing
            .included
            .into_iter()
            .filter(|resource| resource.kind == "subscriptions")
            .map(|resource| (resource.id.clone(), resource))
            .collect();

        let mut seen = BTreeMap::new();
        let mut subscriptions = Vec::new();
        let mut cut = Vec::new();
        for group in &listing.data {
            let whole = group
                .whole_group()
                .filter(|ids| ids.iter().all(|id| included.contains_key(*id)));
            match whole {
                None => cut.push(group.id.as_str()),
                Some(ids) => {
                    let resources: Vec<_> = ids
                        .into_iter()
                        .filter_map(|id| included.remove(id))
                        .collect();
                    subscriptions.extend(within(&group.id, resources));
                }
            }
        }
        if cut.is_empty()
            && let Some(id) = included.keys().next()
        {
            return Err(torn(format!("subscription {id} came, and no group has it")));
        }
        let paged = future::try_join_all(cut.into_iter().map(async |group: &str| {
            let resources = self.list(&endpoint::SUBSCRIPTIONS, group).await?;
            Ok::<_, Error>(within(group, resources))
        }));
        let subscriptions = match paged.await {
            // It was listed a moment ago.
            Err(Error {
                failure: Failure::NotFound,
                endpoint,
                ..
            }) => {
                return Err(torn(format!("a group of it went away ({endpoint})")));
            }
            Err(error) => Err(error),
            Ok(paged) => {
                subscriptions.extend(paged.into_iter().flatten());
                for entry in &subscriptions {
                    if let Some(group) = seen.insert(&entry.key.store_id, &entry.parent) {
                        let why = format!(
                            "subscription {} came in two groups, {} and {}",
                            entry.key.store_id,
                            group.as_ref().map_or("none", |id| id.as_str()),
                            entry.parent.as_ref().map_or("none", |id| id.as_str())
                        );
                        return Err(torn(why));
                    }
                }
                Ok(subscriptions)
            }
        };
        let groups = listing
            .data
            .into_iter()
            .map(|group| group.into_entry(Kind::SubscriptionGroup))
            .collect();
        Ok(Groups {
            groups,
            subscriptions,
        })
    }
}

/// There is one for each app, under the app's id whatever its own.
fn grace_period_entry(app_id: &str, resource: Resource) -> Entry {
    Entry {
        key: Entry::new(Kind::GracePeriod, app_id).key,
        ..resource.into_entry(Kind::GracePeriod)
    }
}

fn within(group: &str, resources: Vec<Resource>) -> Vec<Entry> {
    resources
        .into_iter()
        .map(|resource| resource.into_entry(Kind::Subscription).within(group))
        .collect()
}
