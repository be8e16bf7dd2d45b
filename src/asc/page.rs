//! Reading a list to its end, page by page, or not at all.
//!
//! What must hold: a list is complete or an error. `next` is chosen by the server and is followed on this client's own
//! origin alone. A cursor is an offset in disguise, so a listing that moved while it was read shows as a repeated id or a
//! count that differs from `total`, and is read again.

use std::collections::HashSet;

use futures_util::future::BoxFuture;
use reqwest::{StatusCode, Url};
use serde::Deserialize;

use super::{
    body::{self, Decoded, Room},
    client::Session,
    endpoint::Endpoint,
    error::{Astray, Error, Failure, Limit},
    resource::{Links, Meta, Resource},
    text::quotable,
};
use crate::{
    catalog::{self, Mark, PageDigest},
    sabotage::{self, Safeguard},
};

/// How many things a page may have, which is what every list asks for.
const PAGE: usize = 200;

/// A listing of more pages is not known again: what it is known by is read and written with each run.
const MOST_MARKED: usize = 64;

/// How often a listing that moves is read before giving up.
const READINGS: usize = 3;

/// A list that was read to its end.
pub(super) enum Listing {
    /// As it was: page by page what the mark says.
    Same,
    /// As it is now.
    Other(Listed),
}

/// A complete list, with what was included in its pages.
#[derive(Default)]
pub(super) struct Listed {
    pub(super) data: Vec<Resource>,
    pub(super) included: Vec<Resource>,
    /// What it is known by.
    pub(super) mark: Mark,
}

#[derive(Deserialize)]
pub(super) struct Page {
    pub(super) data: Vec<Resource>,
    #[serde(default)]
    pub(super) included: Option<Vec<Resource>>,
    #[serde(default)]
    pub(super) links: Option<Links>,
    #[serde(default)]
    meta: Option<Meta>,
}

/// Reads something up to three times, until it did not move while it was read. The readings are boxed, so that who spawns a run
/// can see that they may move between threads.
pub(super) async fn read_again_if_torn<'a, T>(
    read: impl Fn() -> BoxFuture<'a, Result<T, Error>>,
) -> Result<T, Error> {
    let mut readings = 1;
    loop {
        match read().await {
            Err(Error {
                failure: Failure::Torn(why),
                endpoint,
                ..
            }) if readings < READINGS => {
                tracing::debug!(
                    event = "listing.torn",
                    endpoint,
                    error.sentence = why,
                    "reading it again"
                );
                readings += 1;
            }
            Err(Error {
                failure: Failure::Torn(why),
                endpoint,
                ..
            }) => {
                let why =
                    format!("the listing changed each of the {READINGS} times it was read: {why}");
                return Err(Error::new(&endpoint, Failure::Torn(why)));
            }
            result => return result,
        }
    }
}

/// Reads all pages of a list once. Those that are as they were in the list `known` are decoded only if another is not.
pub(super) async fn read(
    session: &Session,
    endpoint: &Endpoint,
    id: &str,
    room: &Room,
    known: Option<&Mark>,
) -> Result<Listing, Error> {
    let mut taken = 0;
    let result = read_pages(session, endpoint, id, room, known, &mut taken).await;
    if !matches!(result, Ok(Listing::Other(_))) {
        room.give_back(taken);
    }
    result
}

/// The same for who knows of none before.
pub(super) async fn read_whole(
    session: &Session,
    endpoint: &Endpoint,
    id: &str,
    room: &Room,
) -> Result<Listed, Error> {
    match read(session, endpoint, id, room, None).await? {
        Listing::Other(listed) => Ok(listed),
        Listing::Same => unreachable!("nothing is as it was to who knows of nothing"),
    }
}

/// A page as it came.
enum Came {
    Same(Vec<u8>),
    Other(Decoded<Page>),
}

async fn read_pages(
    session: &Session,
    endpoint: &Endpoint,
    id: &str,
    room: &Room,
    known: Option<&Mark>,
    taken: &mut usize,
) -> Result<Listing, Error> {
    let first = endpoint.url(session.base_url(), id);
    let fail = |failure| Error::new(first.path(), failure);
    let mut reading = Reading {
        endpoint,
        first: &first,
        listed: Listed::default(),
        ids: HashSet::new(),
        total: None,
    };
    // Pages that are as they were, until one is not.
    let mut held = Vec::new();
    let mut known = known;
    let mut visited = HashSet::new();
    let mut url = first.clone();
    for number in 0..Limit::PAGES {
        let before = known.and_then(|pages| pages.get(number));
        let decode = |body: Vec<u8>, status| {
            let digest = PageDigest::of(&body);
            if before.is_some_and(|page| page.digest == digest) {
                return if body.len() > room.left() {
                    Err(Failure::OverLimit(Limit::Memory))
                } else {
                    Ok((digest, Came::Same(body)))
                };
            }
            Ok((digest, Came::Other(body::decode(&body, status, room)?)))
        };
        let (digest, came) = session.get_with(&url, &decode).await?;
        let next = match came {
            Came::Same(mut body) => {
                let next = before.and_then(|page| page.next.clone());
                // After the last one nothing can come that differs.
                if next.is_some() {
                    body.shrink_to_fit();
                    *taken += room.take(body.len());
                    held.push(body);
                }
                next
            }
            Came::Other(page) => {
                known = None;
                for body in held.drain(..) {
                    room.give_back(body.len());
                    *taken = taken.saturating_sub(body.len());
                    let page = body::decode(&body, StatusCode::OK, room).map_err(fail)?;
                    *taken += room.take(page.memory);
                    reading.take(page.document)?;
                }
                *taken += room.take(page.memory);
                reading.take(page.document)?
            }
        };
        let next = next
            .map(|next| follow(&next, &first))
            .transpose()
            .map_err(|astray| fail(Failure::Astray(astray)))?;
        reading.listed.mark.push(catalog::Page {
            digest,
            // As a URL, which can be stored whatever stood in the link.
            next: next.as_ref().map(Url::to_string),
        });
        let Some(next) = next else {
            if reading.listed.mark.len() > MOST_MARKED {
                reading.listed.mark.clear();
            }
            return Ok(match known {
                Some(_) => Listing::Same,
                None => Listing::Other(reading.listed),
            });
        };
        visited.insert(url);
        url = next;
        if visited.contains(&url) {
            return Err(fail(Failure::Astray(Astray::Circle)));
        }
    }
    Err(fail(Failure::OverLimit(Limit::Pages)))
}

/// A list while it is read.
struct Reading<'a> {
    endpoint: &'a Endpoint,
    first: &'a Url,
    listed: Listed,
    ids: HashSet<String>,
    total: Option<usize>,
}

impl Reading<'_> {
    /// Takes the next page in, and gives the link to the one after it.
    fn take(&mut self, page: Page) -> Result<Option<String>, Error> {
        let fail = |failure| Error::new(self.first.path(), failure);
        let torn = |why| Err(fail(Failure::Torn(why)));
        match (self.total, page.meta.as_ref().and_then(Meta::total)) {
            (Some(before), Some(now)) if before != now => {
                return torn(format!("its total went from {before} to {now}"));
            }
            (_, now) => self.total = self.total.or(now),
        }
        for resource in &page.data {
            if resource.kind != self.endpoint.yields {
                let why = format!("{} {} stands in it", resource.kind, resource.id);
                return Err(fail(Failure::Unexpected(why)));
            }
            if !self.ids.insert(resource.id.clone()) {
                return torn(format!("{} {} came twice", resource.kind, resource.id));
            }
        }
        let came = page.data.len();
        self.listed.data.extend(page.data);
        self.listed
            .included
            .extend(page.included.unwrap_or_default());

        let next = page
            .links
            .and_then(|links| links.next)
            .filter(|next| !next.is_empty());
        if next.is_some() {
            return Ok(next);
        }
        let meta = page.meta.as_ref();
        if meta.is_some_and(Meta::goes_on) {
            return torn("it says that it goes on, and not where".to_owned());
        }
        // A server that lets fewer come than were asked for, and as many came: nothing says whether that was all.
        if self.total.is_none()
            && meta
                .and_then(Meta::limit)
                .is_some_and(|limit| limit == came && limit < PAGE)
        {
            let why = format!(
                "{came} came, as many as it lets come at once, and it does not say whether that is all"
            );
            return Err(fail(Failure::Unexpected(why)));
        }
        match self.total {
            Some(total) if total != self.listed.data.len() => {
                torn(format!("{} of {total} came", self.listed.data.len()))
            }
            _ => Ok(None),
        }
    }
}

/// The URL of a further page: on the origin of the first, under the API's paths, with every parameter of the first that the
/// server left out and none of them twice.
pub(super) fn follow(next: &str, first: &Url) -> Result<Url, Astray> {
    if next.len() > Astray::LONGEST_LINK {
        return Err(Astray::Long);
    }
    let mut url = Url::parse(next).map_err(|_| Astray::NotUrl)?;
    if url.origin() != first.origin() && !sabotage::is_out(Safeguard::Origin) {
        let origin = url.origin();
        let named = if origin.is_tuple() {
            origin.ascii_serialization()
        } else {
            format!("{}:", url.scheme())
        };
        return Err(Astray::Origin(quotable(&named)));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(Astray::User);
    }
    if !is_of_the_api(url.path()) {
        return Err(Astray::Path);
    }
    let mut names = HashSet::new();
    let pairs: Vec<(String, String)> = url
        .query_pairs()
        .chain(first.query_pairs())
        .filter(|(name, _)| names.insert(name.clone().into_owned()))
        .map(|(name, value)| (name.into_owned(), value.into_owned()))
        .collect();
    url.query_pairs_mut().clear().extend_pairs(pairs);
    url.set_fragment(None);
    Ok(url)
}

/// Steps up were taken when the URL was parsed; a slash in disguise, which a server may take for one, could hide others.
fn is_of_the_api(path: &str) -> bool {
    let disguised = path.to_ascii_lowercase();
    ["/v1/", "/v2/", "/v3/"]
        .iter()
        .any(|prefix| path.starts_with(prefix))
        && !["%2f", "%5c"].iter().any(|slash| disguised.contains(slash))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_next_link_is_followed_on_its_own_origin_alone() {
        let first = Url::parse("https://api.example.com/v1/apps?limit=200").unwrap();
        let refused = [
            "",
            "/v1/apps?cursor=a",
            "//evil.example/v1/apps",
            "apps?cursor=a",
            "http://api.example.com/v1/apps",
            "https://api.example.com:8443/v1/apps",
            "https://evil.example/v1/apps",
            "https://api.example.com.evil.example/v1/apps",
            "https://api.example.com@evil.example/v1/apps",
            "https://user@api.example.com/v1/apps",
            "https://user:pass@api.example.com/v1/apps",
            "https://:pass@api.example.com/v1/apps",
            "https://api.example.com/v9/apps",
            "https://api.example.com/v1",
            "https://api.example.com/v1/../login",
            "https://api.example.com/v1/%2e%2e/login",
            "https://api.example.com/v1/..%2flogin",
            "https://api.example.com/v1/..%5Clogin",
            "https://api.example.com\\@evil.example/v1/apps",
            "ftp://api.example.com/v1/apps",
            "file:///v1/apps",
            "javascript:alert(1)",
            "data:application/json,{}",
            "https://",
            "https://[::1]/v1/apps",
            "https://api.example.com./v1/apps",
        ];
        for next in refused {
            assert!(
                follow(next, &first).is_err(),
                "{next:?} was followed to {:?}",
                follow(next, &first)
            );
        }
        for next in [
            "https://api.example.com/v1/apps?cursor=a",
            "https://API.example.com:443/v1/apps?cursor=a",
            "https://api.example.com/v2/apps?cursor=a",
        ] {
            assert!(follow(next, &first).is_ok(), "{next:?}");
        }
    }

    #[test]
    fn what_the_server_left_out_is_added_and_nothing_is_sent_twice() {
        let first =
            Url::parse("https://h/v1/apps?limit=200&sort=name&fields%5Bapps%5D=name,sku").unwrap();
        let url = follow(
            "https://h/v1/apps?cursor=AB%3D&limit=200&limit=50#x",
            &first,
        )
        .unwrap();
        let pairs: Vec<_> = url.query_pairs().into_owned().collect();
        let expected = [
            ("cursor", "AB="),
            ("limit", "200"),
            ("sort", "name"),
            ("fields[apps]", "name,sku"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(pairs, expected);
    }
}
