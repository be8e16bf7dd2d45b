//! Subscription groups with their subscriptions: most come together, and the groups that were cut are read by themselves.
//!
//! What must hold: what the listing of groups says of a group, its linked subscriptions and their number, is found in what is
//! read of the group; else the listing is torn, and read again.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::{
    Look,
    body::Room,
    client::Session,
    endpoint,
    error::{Error, Failure},
    page::{self, Listing},
    resource::{Linked, Resource},
};
use crate::catalog::{Entry, Kind, Mark};

/// Subscription groups, and the subscriptions in them unless those could not be listed completely.
#[derive(Debug)]
pub struct Groups {
    /// All groups of the app.
    pub groups: Vec<Entry>,
    /// All subscriptions of these groups.
    pub subscriptions: Result<Vec<Entry>, Error>,
}

impl Session {
    /// Every subscription group of the app, and every subscription in them. One request for each 200 groups, and for each
    /// group of which not all subscriptions came with it, one for each 200 of those.
    ///
    /// # Errors
    /// When the list of groups could not be read to its end; a group whose subscriptions could not be listed is told in
    /// [`Groups::subscriptions`].
    pub async fn fetch_groups(&self, app_id: &str) -> Result<Groups, Error> {
        self.look_at_groups(app_id, None).await.map(Look::other)
    }

    /// The same, unless they and their subscriptions are as they were. Those that were cut have no mark.
    ///
    /// # Errors
    /// As of [`Session::fetch_groups`].
    pub async fn look_at_groups(
        &self,
        app_id: &str,
        known: Option<&Mark>,
    ) -> Result<Look<Groups>, Error> {
        page::read_again_if_torn(|| Box::pin(self.read_groups(app_id, known))).await
    }

    async fn read_groups(&self, app_id: &str, known: Option<&Mark>) -> Result<Look<Groups>, Error> {
        let endpoint = &endpoint::SUBSCRIPTION_GROUPS;
        let url = endpoint.url(self.base_url(), app_id);
        let torn = |why| Error::new(url.path(), Failure::Torn(why));
        let room = Room::new();
        let Listing::Other(listing) = page::read(self, endpoint, app_id, &room, known).await?
        else {
            return Ok(Look::Same);
        };
        let mut included: HashMap<String, Resource> = listing
            .included
            .into_iter()
            .filter(|resource| resource.kind == endpoint::SUBSCRIPTIONS.yields)
            .map(|resource| (resource.id.clone(), resource))
            .collect();

        let mut subscriptions = Vec::new();
        let mut cut = Vec::new();
        for group in &listing.data {
            let linked = group.linked_subscriptions();
            if linked.is_whole && linked.ids.iter().all(|id| included.contains_key(*id)) {
                let resources: Vec<_> = linked
                    .ids
                    .iter()
                    .filter_map(|id| included.remove(*id))
                    .collect();
                subscriptions.extend(within(&group.id, resources));
            } else {
                cut.push((group.id.as_str(), linked));
            }
        }
        if cut.is_empty()
            && let Some(id) = included.keys().next()
        {
            return Err(torn(format!("subscription {id} came, and no group has it")));
        }
        let mark = cut.is_empty().then_some(listing.mark);
        // However many groups were cut, their lists share what one may take.
        let room = Room::new();
        let lists: Vec<_> = cut
            .into_iter()
            .map(async |(group, linked)| {
                let resources = self.list(&endpoint::SUBSCRIPTIONS, group, &room).await?;
                match disagreement(&linked, &resources) {
                    None => Ok(within(group, resources)),
                    Some(why) => Err(torn(format!("of group {group}, {why}"))),
                }
            })
            .collect();
        // A list whose pages come one after the other would wait for all of these at each page.
        let paged = stream::iter(lists).buffered(self.at_once_beside_another());
        let subscriptions = match paged.try_collect::<Vec<_>>().await {
            Ok(paged) => {
                subscriptions.extend(paged.into_iter().flatten());
                in_one_group_each(&subscriptions).map_err(torn)?;
                Ok(subscriptions)
            }
            // It was listed a moment ago.
            Err(Error {
                failure: Failure::NotFound,
                endpoint,
                ..
            }) => {
                return Err(torn(format!("a group of it went away ({endpoint})")));
            }
            Err(
                error @ Error {
                    failure: Failure::Torn(_),
                    ..
                },
            ) if error.endpoint == url.path() => return Err(error),
            Err(error) => Err(error),
        };
        let groups = listing
            .data
            .into_iter()
            .map(|group| group.into_entry(Kind::SubscriptionGroup))
            .collect();
        let groups = Groups {
            groups,
            subscriptions,
        };
        Ok(Look::Other(groups, mark))
    }
}

/// What is wrong when a group's own list does not have what was linked to the group.
fn disagreement(linked: &Linked<'_>, listed: &[Resource]) -> Option<String> {
    if let Some(total) = linked.total.filter(|total| *total != listed.len()) {
        return Some(format!("{} of {total} came", listed.len()));
    }
    let ids: BTreeSet<&str> = listed.iter().map(|resource| resource.id.as_str()).collect();
    let missing = linked.ids.iter().find(|id| !ids.contains(**id))?;
    Some(format!("subscription {missing} is linked and did not come"))
}

fn in_one_group_each(subscriptions: &[Entry]) -> Result<(), String> {
    let mut groups = BTreeMap::new();
    for entry in subscriptions {
        let group = entry.parent.as_ref().map_or("none", |id| id.as_str());
        if let Some(other) = groups.insert(&entry.key.store_id, group) {
            return Err(format!(
                "subscription {} came in two groups, {other} and {group}",
                entry.key.store_id
            ));
        }
    }
    Ok(())
}

fn within(group: &str, resources: Vec<Resource>) -> Vec<Entry> {
    resources
        .into_iter()
        .map(|resource| resource.into_entry(Kind::Subscription).within(group))
        .collect()
}
