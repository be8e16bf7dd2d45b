//! A message in: which project is to be synced. `{"version":1,"project":"acme"}`, and for logs an `id` and a `reason`.

use std::{collections::BTreeMap, fmt};

use serde::{
    Deserialize, Serialize,
    de::{Deserializer, Error as _, MapAccess, Visitor},
};
use serde_json::Value;

use crate::project::ProjectId;

/// The version of the format.
const VERSION: u64 = 1;

/// The longest message in bytes.
const LONGEST: usize = 64 * 1024;

/// The longest id and reason in characters.
const LONGEST_TEXT: usize = 200;

/// Asks for a sync of one project.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The project.
    pub project: ProjectId,
    /// The sender's name for the message.
    pub id: Option<String>,
    /// Why the sender asks.
    pub reason: Option<String>,
}

/// Why a message is no request, in a sentence.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(String);

impl Request {
    /// Reads a message. Fields that are not known are left to later versions of the sender.
    ///
    /// # Errors
    ///
    /// When it is no request. It never will be one, so it is to be rejected.
    pub fn parse(body: &[u8]) -> Result<Self, Malformed> {
        if body.len() > LONGEST {
            return Err(malformed(format_args!(
                "the message has {} bytes; {LONGEST} are the most",
                body.len()
            )));
        }
        let mut fields = match serde_json::from_slice(body) {
            Ok(Fields(fields)) => fields,
            Err(error) if error.is_data() => return Err(malformed(error)),
            Err(error) => return Err(malformed(format_args!("the message is not JSON: {error}"))),
        };
        match fields.remove("version") {
            Some(version) if version == VERSION => {}
            Some(Value::Number(version)) => {
                return Err(malformed(format_args!(
                    "the message has version {version}; this worker understands version {VERSION}"
                )));
            }
            Some(_) => return Err(malformed("'version' must be a number")),
            None => return Err(malformed("the message has no 'version'; it must be 1")),
        }
        let project = match fields.remove("project") {
            Some(Value::String(project)) => project.parse().map_err(|_| {
                malformed(
                    "'project' is not a project id: use 1 to 64 letters, digits, '.', '_' or '-', beginning with a letter or digit",
                )
            })?,
            Some(_) => return Err(malformed("'project' must be a text")),
            None => return Err(malformed("the message names no 'project'")),
        };
        Ok(Self {
            project,
            id: text(&mut fields, "id")?,
            reason: text(&mut fields, "reason")?,
        })
    }

    /// The message that asks for it.
    ///
    /// # Panics
    ///
    /// Never: texts and a number are JSON.
    #[must_use]
    pub fn to_body(&self) -> Vec<u8> {
        #[derive(Serialize)]
        struct Body<'a> {
            version: u64,
            project: &'a ProjectId,
            #[serde(skip_serializing_if = "Option::is_none")]
            id: &'a Option<String>,
            #[serde(skip_serializing_if = "Option::is_none")]
            reason: &'a Option<String>,
        }
        let Self {
            project,
            id,
            reason,
        } = self;
        let body = Body {
            version: VERSION,
            project,
            id,
            reason,
        };
        serde_json::to_vec(&body).expect("texts and a number are JSON")
    }
}

fn text(fields: &mut BTreeMap<String, Value>, name: &str) -> Result<Option<String>, Malformed> {
    match fields.remove(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if text.chars().count() <= LONGEST_TEXT => Ok(Some(text)),
        Some(Value::String(_)) => Err(malformed(format_args!(
            "'{name}' is longer than {LONGEST_TEXT} characters"
        ))),
        Some(_) => Err(malformed(format_args!("'{name}' must be a text"))),
    }
}

fn malformed(what: impl fmt::Display) -> Malformed {
    Malformed(what.to_string())
}

/// An object of which each key comes once: of two values, a reader could see one and its sender mean the other.
struct Fields(BTreeMap<String, Value>);

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Once;

        impl<'de> Visitor<'de> for Once {
            type Value = Fields;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object such as {\"version\":1,\"project\":\"acme\"}")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
                let mut fields = BTreeMap::new();
                while let Some((key, value)) = map.next_entry::<String, Value>()? {
                    if fields.contains_key(&key) {
                        let shown: String = key.escape_debug().take(40).collect();
                        return Err(A::Error::custom(format_args!(
                            "the key '{shown}' comes twice"
                        )));
                    }
                    fields.insert(key, value);
                }
                Ok(Fields(fields))
            }
        }

        deserializer.deserialize_map(Once)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn refusal(body: &str) -> String {
        Request::parse(body.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn a_request_names_a_project() {
        let request =
            Request::parse(br#" {"project":"acme", "version":1, "priority":{"later":[1]}} "#)
                .unwrap();
        assert_eq!(
            request,
            Request {
                project: "acme".parse().unwrap(),
                id: None,
                reason: None,
            }
        );
        let request = Request::parse(
            br#"{"version":1,"project":"a.b-c_1","id":"m-1","reason":"price changed"}"#,
        )
        .unwrap();
        assert_eq!(request.id.as_deref(), Some("m-1"));
        assert_eq!(request.reason.as_deref(), Some("price changed"));
    }

    #[test]
    fn what_is_no_request_is_refused_with_the_reason() {
        let long = "x".repeat(LONGEST_TEXT + 1);
        for (body, expected) in [
            ("", "the message is not JSON: EOF"),
            ("sync acme", "the message is not JSON: expected"),
            ("{\"version\":1,", "the message is not JSON: EOF"),
            (
                "{\"version\":1,\"project\":\"acme\"} x",
                "not JSON: trailing",
            ),
            (
                "[]",
                "expected an object such as {\"version\":1,\"project\":\"acme\"}",
            ),
            ("\"acme\"", "expected an object such as"),
            ("{\"project\":\"acme\"}", "has no 'version'; it must be 1"),
            (
                "{\"version\":2,\"project\":\"acme\"}",
                "the message has version 2; this worker understands version 1",
            ),
            ("{\"version\":1.5,\"project\":\"acme\"}", "has version 1.5;"),
            (
                "{\"version\":\"1\",\"project\":\"acme\"}",
                "'version' must be a number",
            ),
            ("{\"version\":1}", "the message names no 'project'"),
            ("{\"version\":1,\"project\":7}", "'project' must be a text"),
            (
                "{\"version\":1,\"project\":\"\"}",
                "'project' is not a project id: use",
            ),
            (
                "{\"version\":1,\"project\":\"../acme\"}",
                "'project' is not a project id: use",
            ),
            (
                "{\"version\":1,\"project\":\"acme\",\"project\":\"other\"}",
                "the key 'project' comes twice",
            ),
            (
                "{\"version\":1,\"project\":\"acme\",\"x\":1,\"x\":1}",
                "the key 'x' comes twice",
            ),
            (
                "{\"version\":1,\"project\":\"acme\",\"id\":7}",
                "'id' must be a text",
            ),
            (
                &format!("{{\"version\":1,\"project\":\"acme\",\"reason\":\"{long}\"}}"),
                "'reason' is longer than 200 characters",
            ),
            (
                &format!("{{\"version\":1,\"project\":\"acme\",\"id\":\"{long}\"}}"),
                "'id' is longer than 200 characters",
            ),
        ] {
            let told = refusal(body);
            assert!(told.contains(expected), "{body}: {told}");
        }
        assert!(Request::parse(b"\"\xff\"").is_err());
    }

    #[test]
    fn a_message_of_64_kib_is_the_longest() {
        let padded = |length: usize| {
            let mut body = br#"{"version":1,"project":"acme"}"#.to_vec();
            body.resize(length, b' ');
            Request::parse(&body)
        };
        padded(65_536).unwrap();
        assert_eq!(
            padded(65_537).unwrap_err().to_string(),
            "the message has 65537 bytes; 65536 are the most"
        );
    }

    #[test]
    fn a_message_that_is_nested_without_end_is_refused() {
        let nested = format!("{{\"version\":1,\"x\":{}", "[".repeat(60_000));
        assert!(refusal(&nested).contains("recursion limit"));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let told = Request::parse(&body).map_err(|error| error.to_string());
            prop_assert!(told.is_ok() || told.is_err_and(|told| !told.is_empty()));
        }

        #[test]
        fn nothing_that_is_nearly_a_request_makes_it_panic(
            version in "[0-9.e\"-]{0,4}",
            project in "\\PC{0,70}",
            id in "\\PC{0,8}",
        ) {
            let body = format!("{{\"version\":{version},\"project\":\"{project}\",\"id\":{id}}}");
            if let Ok(request) = Request::parse(body.as_bytes()) {
                prop_assert_eq!(request.project.as_str(), project);
            }
        }

        #[test]
        fn a_request_comes_back_as_it_was_sent(
            project in "[A-Za-z0-9][A-Za-z0-9._-]{0,63}",
            id in proptest::option::of("\\PC{0,200}"),
            reason in proptest::option::of(".{0,200}"),
        ) {
            let request = Request { project: project.parse().unwrap(), id, reason };
            prop_assert_eq!(Request::parse(&request.to_body()), Ok(request));
        }
    }
}
