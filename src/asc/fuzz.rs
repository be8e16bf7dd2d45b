//! What must hold of whatever App Store Connect sends, for the fuzz targets `page` and `key`.

use std::collections::{BTreeSet, HashSet};

use reqwest::{StatusCode, Url};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::{
    Document, Signer, body,
    endpoint::{IN_APP_PURCHASES, INCLUDED_SUBSCRIPTIONS},
    error::{ErrorDocument, Limit},
    page::{Page, follow},
    resource::Resource,
    token,
};
use crate::{
    catalog::{Attributes, Kind},
    clock::Instant,
    credential::{Credential, PrivateKey},
};

/// Ids and types have no more characters than this, and quoted text hardly more.
const LONGEST: usize = 200;

/// Reads a body as the client does.
fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    let decoded = body::decode(bytes, StatusCode::OK, &body::Room::new()).ok()?;
    assert!(decoded.memory <= Limit::MEMORY, "{}", decoded.memory);
    Some(decoded.document)
}

/// Reads a body as a page, as a single resource and as an error.
pub(crate) fn page(body: &[u8]) {
    if let Some(page) = decode::<Page>(body) {
        let next = page.links.and_then(|links| links.next);
        if let Some(next) = &next {
            assert_stays_home(next);
        }
        let sent: Vec<Thing> = page.data.into_iter().map(Thing::of).collect();
        let rows: Vec<Value> = sent.iter().map(Thing::as_sent).collect();
        let again = json!({ "data": rows, "links": { "next": next } }).to_string();
        let again: Page = decode(again.as_bytes()).expect("what was read once is read again");
        let again: Vec<Thing> = again.data.into_iter().map(Thing::of).collect();
        assert_eq!(sent, again, "it reads otherwise the second time");
        page.included.into_iter().flatten().for_each(|resource| {
            Thing::of(resource);
        });
    }
    if let Some(Document { data, .. }) = decode::<Document>(body) {
        data.grace_period();
        let app = data.into_app();
        assert_fits_a_line(&app.bundle_id);
        assert_fits_a_line(&app.name);
    }
    let error = ErrorDocument::parse(body);
    for text in [error.id().unwrap_or_default(), error.code(), error.detail()] {
        assert_fits_a_line(&text);
    }
}

/// The text of a token that is signed with this key.
pub(crate) fn token(credential: &Credential, now: Instant) -> String {
    let identity = credential.identity();
    let der = credential.private_key.der().to_vec();
    let open = move || Ok(PrivateKey::from_der(&der).expect("what was taken is taken again"));
    let signer = Signer::new(identity, open).expect("it opens");
    let token = token::mint(&signer, now).expect("a key that was taken signs");
    token.text().to_owned()
}

/// What becomes of a resource.
#[derive(Debug, PartialEq)]
struct Thing {
    kind: String,
    id: String,
    attributes: Attributes,
}

impl Thing {
    fn of(resource: Resource) -> Self {
        for name in [&resource.kind, &resource.id] {
            assert!((1..=LONGEST).contains(&name.chars().count()), "{name:?}");
            assert!(
                !name.contains(|c: char| c.is_control() || c.is_whitespace()),
                "{name:?}"
            );
        }
        let linked = resource.linked_subscriptions();
        assert!(
            !linked.is_whole
                || linked
                    .total
                    .map_or(linked.ids.len() < INCLUDED_SUBSCRIPTIONS, |total| total
                        == linked.ids.len()),
            "{} linked of {:?} are not all",
            linked.ids.len(),
            linked.total
        );
        let kind = resource.kind.clone();
        let entry = resource.into_entry(Kind::InAppPurchase);
        for (name, value) in &entry.attributes {
            assert!(!value.is_null(), "{name:?} is null");
            let text = json!({ name: value }).to_string();
            assert!(!text.contains(r"\u0000"), "{text} holds a NUL");
        }
        Self {
            kind,
            id: entry.key.store_id.to_string(),
            attributes: entry.attributes,
        }
    }

    fn as_sent(&self) -> Value {
        json!({ "type": self.kind, "id": self.id, "attributes": self.attributes })
    }
}

/// A link to a further page is refused, or followed on the origin of the first with its parameters, each of them once.
fn assert_stays_home(next: &str) {
    let base = Url::parse("https://api.appstoreconnect.apple.com").expect("it is a URL");
    let first = IN_APP_PURCHASES.url(&base, "1");
    let Ok(url) = follow(next, &first) else {
        return;
    };
    assert_eq!(url.origin(), first.origin(), "{next:?}");
    assert!(
        url.username().is_empty() && url.password().is_none() && url.fragment().is_none(),
        "{next:?}"
    );
    assert!(
        ["/v1/", "/v2/", "/v3/"]
            .iter()
            .any(|prefix| url.path().starts_with(prefix)),
        "{next:?}"
    );
    let names: Vec<_> = url.query_pairs().map(|(name, _)| name).collect();
    let once: HashSet<_> = names.iter().collect();
    assert_eq!(names.len(), once.len(), "{next:?}");
    let wanted: BTreeSet<_> = first.query_pairs().map(|(name, _)| name).collect();
    assert!(
        wanted.iter().all(|name| names.contains(name)),
        "{next:?} lost a parameter"
    );
    assert_eq!(
        follow(url.as_str(), &first),
        Ok(url.clone()),
        "{next:?} leads elsewhere the second time"
    );
}

fn assert_fits_a_line(text: &str) {
    // What is cut ends in two dots, and what looks like a token is named so.
    assert!(
        text.chars().count() <= LONGEST + "..[token]".len(),
        "{text:?}"
    );
    assert!(!text.contains(char::is_control), "{text:?}");
    assert!(!text.contains("eyJ"), "{text:?}");
}
