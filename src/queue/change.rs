//! A message out: one row of the change log, with both sides of the change.

use serde::Serialize;
use serde_json::Value;
use uuid::Uuid;

use crate::{
    catalog::{Kind, Op},
    clock::Instant,
    project::ProjectId,
};

/// A change as it is published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The same whenever this change is published, and of no other change.
    pub id: String,
    /// Whose catalog changed.
    pub project: ProjectId,
    /// What sort of thing changed.
    pub kind: Kind,
    /// What happened to it.
    pub op: Op,
    /// The message, in JSON.
    pub body: Vec<u8>,
}

/// A row of the change log.
#[derive(Clone, Debug, Serialize)]
pub struct Logged<'a> {
    /// Its number in the log.
    pub seq: i64,
    /// Whose catalog changed.
    pub project: &'a ProjectId,
    /// The catalog's revision since then.
    pub revision: i64,
    /// The run that found it.
    pub run_id: Uuid,
    /// When that was.
    pub at: Instant,
    /// What sort of thing changed.
    pub kind: Kind,
    /// Apple's id of the thing.
    pub store_id: &'a str,
    /// The product id, where the kind has one.
    pub product_id: Option<&'a str>,
    /// What happened to it.
    pub op: Op,
    /// As it was, where it was there before.
    pub before: Option<&'a Value>,
    /// As it is, where it is still there.
    pub after: Option<&'a Value>,
}

impl Change {
    /// The message that tells of a row of the change log.
    ///
    /// # Panics
    ///
    /// Never: texts, numbers and JSON values are JSON.
    #[must_use]
    pub fn new(logged: &Logged<'_>) -> Self {
        #[derive(Serialize)]
        struct Body<'a> {
            version: u32,
            id: &'a str,
            #[serde(flatten)]
            logged: &'a Logged<'a>,
        }
        let id = format!("{}-{}", logged.run_id, logged.seq);
        let body = Body {
            version: 1,
            id: &id,
            logged,
        };
        let body = serde_json::to_vec(&body).expect("texts, numbers and JSON values are JSON");
        Self {
            id,
            project: logged.project.clone(),
            kind: logged.kind,
            op: logged.op,
            body,
        }
    }

    /// `subscription.updated`: what readers choose by.
    #[must_use]
    pub fn topic(&self) -> String {
        format!("{}.{}", self.kind.as_str(), self.op.as_str())
    }
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_change_is_told_with_both_sides_and_a_stable_id() {
        let logged = Logged {
            seq: 12,
            project: &"acme".parse().unwrap(),
            revision: 7,
            run_id: Uuid::from_u128(1),
            at: DateTime::from_timestamp_millis(1_700_000_000_123).unwrap(),
            kind: Kind::Subscription,
            store_id: "6450000001",
            product_id: Some("com.example.pro"),
            op: Op::Updated,
            before: Some(&json!({"parent": "21", "attributes": {"name": "Pro"}})),
            after: Some(&json!({"parent": "21", "attributes": {"name": "Pro+"}})),
        };
        let change = Change::new(&logged);
        assert_eq!(change, Change::new(&logged));
        assert_eq!(change.id, "00000000-0000-0000-0000-000000000001-12");
        assert_eq!(change.topic(), "subscription.updated");
        insta::assert_snapshot!(String::from_utf8(change.body).unwrap(), @r#"{"version":1,"id":"00000000-0000-0000-0000-000000000001-12","seq":12,"project":"acme","revision":7,"run_id":"00000000-0000-0000-0000-000000000001","at":"2023-11-14T22:13:20.123Z","kind":"subscription","store_id":"6450000001","product_id":"com.example.pro","op":"updated","before":{"attributes":{"name":"Pro"},"parent":"21"},"after":{"attributes":{"name":"Pro+"},"parent":"21"}}"#);
    }
}
