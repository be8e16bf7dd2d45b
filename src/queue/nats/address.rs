//! A server's address, apart from what it wants to know of us: the library would log both together.

use async_nats::ServerAddr;
use reqwest::Url;
use secrecy::SecretString;

pub(super) enum Login {
    None,
    Token(SecretString),
    Password {
        user: String,
        password: SecretString,
    },
}

/// One server of a URL, and what it wants to know of us.
pub(super) fn parse_server(text: &str) -> Option<(ServerAddr, Login)> {
    let mut url = Url::parse(text).ok()?;
    if !matches!(url.scheme(), "nats" | "tls") || url.host_str().is_none_or(str::is_empty) {
        return None;
    }
    let user = decode(url.username())?;
    let login = match url.password() {
        Some(password) => Login::Password {
            user,
            password: decode(password)?.into(),
        },
        None if user.is_empty() => Login::None,
        None => Login::Token(user.into()),
    };
    url.set_username("").ok()?;
    url.set_password(None).ok()?;
    Some((url.as_str().parse().ok()?, login))
}

/// The text that was percent-encoded.
fn decode(text: &str) -> Option<String> {
    // The one decoder at hand is that of query pairs, to which '+' is a space and '&' an end.
    let pair = format!("text={}", text.replace('+', "%2B").replace('&', "%26"));
    let url = Url::parse(&format!("nats://host?{pair}")).ok()?;
    let (_, decoded) = url.query_pairs().next()?;
    Some(decoded.into_owned())
}
