//! Reading a list to its end, page by page, or not at all.
//!
//! What must hold: a list is complete or an error. `next` is chosen by the server and is followed on this client's own
//! origin alone. A cursor is an offset in disguise, so a listing that moved while it was read shows as a repeated id or a
//! count that differs from `total`, and is read again.

use futures_util::future::BoxFuture;
use std::collections::HashSet;

use reqwest::Url;
use serde::Deserialize;

use super::{
    client::Session,
    endpoint::Endpoint,
    error::{Error, Failure},
    resource::{Links, Meta, Resource},
    text::quotable,
};

/// A listing of more pages than this is refused: 200,000 things.
const PAGES_LIMIT: usize = 1000;

/// How many things a page may have, which is what every list asks for.
const PAGE: usize = 200;

/// How often a listing that moves is read before giving up.
const READINGS: usize = 3;

/// A complete list, with what was included in its pages.
pub(super) struct Listing {
    pub(super) data: Vec<Resource>,
    pub(super) included: Vec<Resource>,
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
                    reason = why,
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

/// Reads all pages of a list once.
pub(super) async fn read(
    session: &Session,
    endpoint: &Endpoint,
    id: &str,
) -> Result<Listing, Error> {
    let first = endpoint.url(session.base_url(), id);
    let fail = |failure| Error::new(first.path(), failure);
    let torn = |why| Err(fail(Failure::Torn(why)));

    let mut listing = Listing {
        data: Vec::new(),
        included: Vec::new(),
    };
    let mut ids = HashSet::new();
    let mut visited = HashSet::new();
    let mut total = None;
    let mut url = first.clone();
    for _ in 0..PAGES_LIMIT {
        let page: Page = session.get(&url).await?;
        match (total, page.meta.as_ref().and_then(Meta::total)) {
            (Some(before), Some(now)) if before != now => {
                return torn(format!("its total went from {before} to {now}"));
            }
            (_, now) => total = total.or(now),
        }
        for resource in &page.data {
            if resource.kind != endpoint.yields {
                let why = format!("{} {} stands in it", resource.kind, resource.id);
                return Err(fail(Failure::Unexpected(why)));
            }
            if !ids.insert(resource.id.clone()) {
                return torn(format!("{} {} came twice", resource.kind, resource.id));
            }
        }
        let came = page.data.len();
        listing.data.extend(page.data);
        listing.included.extend(page.included.unwrap_or_default());

        let next = page
            .links
            .and_then(|links| links.next)
            .filter(|next| !next.is_empty());
        let Some(next) = next else {
            let meta = page.meta.as_ref();
            if meta.is_some_and(Meta::goes_on) {
                return torn("it says that it goes on, and not where".to_owned());
            }
            // A server that lets fewer come than were asked for, and as many came: nothing says whether that was all.
            if total.is_none()
                && meta
                    .and_then(Meta::limit)
                    .is_some_and(|limit| limit == came && limit < PAGE)
            {
                let why = format!(
                    "{came} came, as many as it lets come at once, and it does not say whether that is all"
                );
                return Err(fail(Failure::Unexpected(why)));
            }
            return match total {
                Some(total) if total != listing.data.len() => {
                    torn(format!("{} of {total} came", listing.data.len()))
                }
                _ => Ok(listing),
            };
        };
        visited.insert(url);
        url = follow(&next, &first).map_err(|why| fail(Failure::Unexpected(why)))?;
        if visited.contains(&url) {
            return Err(fail(Failure::Unexpected(
                "its pages go round in a circle".to_owned(),
            )));
        }
    }
    Err(fail(Failure::Unexpected(format!(
        "it has more than {PAGES_LIMIT} pages"
    ))))
}

/// The URL of a further page: on the origin of the first, under the API's paths, with every parameter of the first that the
/// server left out and none of them twice.
pub(super) fn follow(next: &str, first: &Url) -> Result<Url, String> {
    // The text itself is not repeated in messages: it is whatever the server chose to say.
    let mut url = Url::parse(next)
        .map_err(|error| format!("the link to its next page is not a URL: {error}"))?;
    if url.origin() != first.origin() {
        return Err(format!(
            "the link to its next page leads to another origin, {}, and was not followed",
            quotable(&url.origin().ascii_serialization())
        ));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(
            "the link to its next page carries user information and was not followed".to_owned(),
        );
    }
    if !["/v1/", "/v2/", "/v3/"]
        .iter()
        .any(|prefix| url.path().starts_with(prefix))
    {
        return Err(
            "the link to its next page leads outside the API and was not followed".to_owned(),
        );
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
