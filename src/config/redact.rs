//! Hides what is secret in a URL.

use reqwest::Url;

pub(super) const HIDDEN: &str = "***";

/// Parameters in which a driver takes a secret.
const SECRETS: &[&str] = &["password", "sslpassword", "sslkey"];

/// The URL with its password hidden; hidden altogether where it may hold one that cannot be found.
pub(super) fn url(text: &str) -> String {
    if text.starts_with("sqlite:") {
        return text.to_owned();
    }
    let Ok(mut url) = Url::parse(text) else {
        let may_hold_one = text.contains('@') || SECRETS.iter().any(|name| text.contains(name));
        return if may_hold_one { HIDDEN } else { text }.to_owned();
    };
    let has_secret = |url: &Url| url.query_pairs().any(|(name, _)| is_secret(&name));
    if url.password().is_none() && !has_secret(&url) {
        // An '@' that is not the one after a user's name: the password may have broken the URL apart.
        let lost = url.username().is_empty() && text.contains('@');
        return if lost { HIDDEN } else { text }.to_owned();
    }
    if has_secret(&url) {
        let pairs: Vec<(String, String)> = url
            .query_pairs()
            .map(|(name, value)| {
                let hide = is_secret(&name);
                (
                    name.into_owned(),
                    if hide {
                        HIDDEN.into()
                    } else {
                        value.into_owned()
                    },
                )
            })
            .collect();
        url.query_pairs_mut().clear().extend_pairs(pairs);
    }
    if url.password().is_some() && url.set_password(Some(HIDDEN)).is_err() {
        return HIDDEN.to_owned();
    }
    url.into()
}

/// The URLs of a NATS cluster with what is secret hidden: a user who has no password is a token.
pub(super) fn nats(text: &str) -> String {
    let shown = text.split(',').map(|server| {
        let mut server = Url::parse(server.trim()).ok()?;
        if server.password().is_some() {
            server.set_password(Some(HIDDEN)).ok()?;
        } else if !server.username().is_empty() {
            server.set_username(HIDDEN).ok()?;
        }
        Some(server.to_string())
    });
    let shown: Option<Vec<String>> = shown.collect();
    // What is no URL may be one that a password broke apart.
    let lost = if text.contains('@') { HIDDEN } else { text };
    shown.map_or_else(|| lost.to_owned(), |shown| shown.join(","))
}

fn is_secret(name: &str) -> bool {
    SECRETS
        .iter()
        .any(|secret| name.eq_ignore_ascii_case(secret))
}

#[cfg(test)]
mod tests {
    use super::{nats, url};

    #[test]
    fn a_token_of_nats_is_hidden_and_so_is_each_password() {
        for (given, shown) in [
            ("", ""),
            ("nats://a:4222", "nats://a:4222"),
            ("nats://canary@a:4222", "nats://***@a:4222"),
            (
                "nats://me:canary@a, tls://me:canary@b",
                "nats://me:***@a,tls://me:***@b",
            ),
            ("nats://me:can,ary@a", "***"),
            ("canary@a", "***"),
            ("a:4222", "a:4222"),
        ] {
            assert_eq!(nats(given), shown, "{given}");
        }
    }

    #[test]
    fn a_password_is_hidden_and_the_rest_is_shown() {
        for (given, shown) in [
            ("", ""),
            ("sqlite:catalog-sync.db", "sqlite:catalog-sync.db"),
            ("sqlite:///var/lib/a@b.db", "sqlite:///var/lib/a@b.db"),
            ("postgres://db/catalog", "postgres://db/catalog"),
            ("postgres://me@db/catalog", "postgres://me@db/catalog"),
            (
                "postgres://me:canary@db:5432/catalog?sslmode=require",
                "postgres://me:***@db:5432/catalog?sslmode=require",
            ),
            (
                "postgres://db/catalog?user=me&password=canary",
                "postgres://db/catalog?user=me&password=***",
            ),
            (
                "postgres://me:canary@db/catalog?Password=canary",
                "postgres://me:***@db/catalog?Password=***",
            ),
            ("postgres://me:canary/1@db/catalog", "***"),
            ("postgres://me:12/canary@db/catalog", "***"),
            (
                "postgres://me:can@ary@db/catalog",
                "postgres://me:***@db/catalog",
            ),
            ("me:canary@db", "***"),
            ("host=db password=canary", "***"),
            ("http://me:canary@proxy:3128", "http://me:***@proxy:3128/"),
        ] {
            assert_eq!(url(given), shown, "{given}");
            assert!(!url(given).contains("canary"));
        }
    }
}
