//! Faults: what goes wrong, for which requests, from when and how often.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// Something that goes wrong with certain requests.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fault {
    /// Which requests: a part of the path (`inAppPurchasesV2`; with `$` at the end, the end of the path), a part of the
    /// decoded query when there is a `=` in it (`cursor=`), or both (`subscriptionGroups?cursor=`). Empty: all.
    #[serde(default)]
    pub path: String,
    /// Only requests whose token claims this key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_id: Option<String>,
    /// How many of these requests pass first.
    #[serde(default)]
    pub after: usize,
    /// How many requests are hit; absent: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub times: Option<usize>,
    /// What happens.
    #[serde(flatten)]
    pub kind: FaultKind,
}

/// What goes wrong.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(
    tag = "kind",
    content = "with",
    rename_all = "snake_case",
    deny_unknown_fields
)]
pub enum FaultKind {
    /// An error is answered.
    Status {
        /// The HTTP status.
        status: u16,
        /// The error code, when not the usual one.
        #[serde(default)]
        code: Option<String>,
        /// The `Retry-After` header.
        #[serde(default)]
        retry_after: Option<String>,
        /// The body is an HTML page.
        #[serde(default)]
        html: bool,
        /// There is no body.
        #[serde(default)]
        empty: bool,
    },
    /// The connection is reset without an answer.
    Reset,
    /// The connection ends in the middle of the body.
    CutBody,
    /// The body comes in small pieces.
    SlowDrip {
        /// Bytes in a piece.
        bytes: usize,
        /// The pause before each piece; `every_ms` in JSON.
        #[serde(rename = "every_ms", with = "milliseconds")]
        every: Duration,
    },
    /// No answer ever comes.
    Hang,
    /// Status 200 with an HTML page.
    Html200,
    /// Status 200 with this very body, said to be JSON.
    Body(String),
    /// A redirect to this URL.
    Redirect(String),
    /// `links.next` is this URL.
    NextElsewhere(String),
    /// How the last page says that it is the last.
    NextForm(NextForm),
    /// `links.next` is the page itself.
    SelfNext,
    /// `meta.paging.total` is off by this.
    TotalOff(i64),
    /// No total is told, neither of the page nor of linkages.
    NoTotal,
    /// The totals told by the first page, the second, and so on; the last one goes on.
    TotalPerPage(Vec<u64>),
    /// The next page begins with the last row of this one.
    RepeatRow,
    /// The next page leaves out its first row.
    SkipRow,
    /// The rows of the page come in reverse.
    ReorderedPage,
    /// A linked resource is missing in `included`.
    DropIncluded,
    /// Every resource has one more attribute.
    ExtraAttribute {
        /// Its name.
        name: String,
        /// Its value.
        value: Value,
    },
    /// 401, though the token is good.
    Unauthorized,
    /// 403: the Account Holder has to sign an agreement.
    RequiredAgreement,
    /// Status 200 and a body of this size, streamed without a length.
    HugeBody {
        /// The size of the body.
        bytes: u64,
    },
    /// Status 200 and a gzip body that unpacks to this size or a little more, from under a hundredth of it.
    GzipBomb {
        /// The size when unpacked.
        bytes: u64,
    },
    /// 429, with budget left.
    RateLimited {
        /// The `Retry-After` header.
        #[serde(default)]
        retry_after: Option<String>,
    },
}

/// How the last page says that it is the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NextForm {
    /// Without `next`.
    Absent,
    /// `"next": null`.
    Null,
    /// `"next": ""`.
    Empty,
}

mod milliseconds {
    use super::{Deserialize, Duration};
    use serde::{Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(duration: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u64(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        u64::deserialize(from).map(Duration::from_millis)
    }
}

impl Fault {
    /// A fault that hits every request that `path` matches.
    #[must_use]
    pub fn new(path: impl Into<String>, kind: FaultKind) -> Self {
        Self {
            path: path.into(),
            key_id: None,
            after: 0,
            times: None,
            kind,
        }
    }

    /// Only requests of this key.
    #[must_use]
    pub fn of_key(mut self, key_id: impl Into<String>) -> Self {
        self.key_id = Some(key_id.into());
        self
    }

    /// Lets this many requests pass first.
    #[must_use]
    pub const fn after(mut self, requests: usize) -> Self {
        self.after = requests;
        self
    }

    /// Hits this many requests.
    #[must_use]
    pub const fn times(mut self, requests: usize) -> Self {
        self.times = Some(requests);
        self
    }

    /// Hits one request.
    #[must_use]
    pub const fn once(self) -> Self {
        self.times(1)
    }

    fn matches(&self, path: &str, query: &[(String, String)], key_id: Option<&str>) -> bool {
        if self.key_id.is_some() && self.key_id.as_deref() != key_id {
            return false;
        }
        is_of(&self.path, path, query)
    }
}

/// Whether a request is one of those that are named as in [`Fault::path`].
pub(super) fn is_of(named: &str, path: &str, query: &[(String, String)]) -> bool {
    let (on_path, on_query) = match named.split_once('?') {
        Some(parts) => parts,
        None if named.contains('=') => ("", named),
        None => (named, ""),
    };
    let path_matches = match on_path.strip_suffix('$') {
        Some(end) => path.ends_with(end),
        None => path.contains(on_path),
    };
    path_matches && (on_query.is_empty() || written(query).contains(on_query))
}

impl FaultKind {
    /// A plain error answer with this status.
    #[must_use]
    pub const fn status(status: u16) -> Self {
        Self::Status {
            status,
            code: None,
            retry_after: None,
            html: false,
            empty: false,
        }
    }

    /// Whether it changes the document of a good answer, rather than being an answer of its own.
    const fn is_of_document(&self) -> bool {
        match self {
            Self::NextElsewhere(_)
            | Self::NextForm(_)
            | Self::SelfNext
            | Self::TotalOff(_)
            | Self::NoTotal
            | Self::TotalPerPage(_)
            | Self::RepeatRow
            | Self::SkipRow
            | Self::ReorderedPage
            | Self::DropIncluded
            | Self::ExtraAttribute { .. } => true,
            Self::Status { .. }
            | Self::Reset
            | Self::CutBody
            | Self::SlowDrip { .. }
            | Self::Hang
            | Self::Html200
            | Self::Body(_)
            | Self::Redirect(_)
            | Self::Unauthorized
            | Self::RequiredAgreement
            | Self::HugeBody { .. }
            | Self::GzipBomb { .. }
            | Self::RateLimited { .. } => false,
        }
    }

    /// How many rows too far the next page begins.
    pub(super) const fn drift(&self) -> isize {
        match self {
            Self::RepeatRow => -1,
            Self::SkipRow => 1,
            _ => 0,
        }
    }

    /// Changes a good answer.
    pub(super) fn distort(&self, document: &mut Value) {
        match self {
            Self::NextElsewhere(url) => set_next(document, json!(url)),
            Self::SelfNext => {
                let own = document.pointer("/links/self").cloned();
                set_next(document, own.unwrap_or_default());
            }
            Self::NextForm(form) if document.pointer("/links/next").is_none() => match form {
                NextForm::Absent => {}
                NextForm::Null => set_next(document, Value::Null),
                NextForm::Empty => set_next(document, json!("")),
            },
            Self::TotalOff(by) => {
                if let Some(total) = document.pointer_mut("/meta/paging/total") {
                    *total = json!(total.as_i64().unwrap_or(0).saturating_add(*by));
                }
            }
            Self::NoTotal => remove_totals(document),
            Self::ReorderedPage => {
                if let Some(rows) = document.get_mut("data").and_then(Value::as_array_mut) {
                    rows.reverse();
                }
            }
            Self::DropIncluded => {
                if let Some(included) = document.get_mut("included").and_then(Value::as_array_mut) {
                    included.pop();
                }
            }
            Self::ExtraAttribute { name, value } => {
                for resource in resources(document) {
                    let attributes = resource.entry("attributes").or_insert_with(|| json!({}));
                    if let Some(attributes) = attributes.as_object_mut() {
                        attributes.insert(name.clone(), value.clone());
                    }
                }
            }
            _ => {}
        }
    }

    /// Tells the total of this page (from 0) instead of the true one.
    pub(super) fn distort_total(&self, page: usize, document: &mut Value) {
        let Self::TotalPerPage(totals) = self else {
            return;
        };
        let told = totals.get(page).or(totals.last());
        if let (Some(total), Some(told)) = (document.pointer_mut("/meta/paging/total"), told) {
            *total = json!(told);
        }
    }
}

fn set_next(document: &mut Value, next: Value) {
    // Only a listing has paging.
    if document.get("meta").is_none() {
        return;
    }
    if let Some(links) = document.get_mut("links").and_then(Value::as_object_mut) {
        links.insert("next".to_owned(), next);
    }
}

fn remove_totals(value: &mut Value) {
    match value {
        Value::Object(object) => {
            if let Some(paging) = object.get_mut("paging").and_then(Value::as_object_mut) {
                paging.remove("total");
            }
            object.values_mut().for_each(remove_totals);
        }
        Value::Array(values) => values.iter_mut().for_each(remove_totals),
        _ => {}
    }
}

fn resources(document: &mut Value) -> impl Iterator<Item = &mut Map<String, Value>> {
    let members = document.as_object_mut().into_iter().flat_map(Map::iter_mut);
    members
        .filter(|(name, _)| *name == "data" || *name == "included")
        .flat_map(|(_, member)| match member {
            Value::Array(resources) => resources
                .iter_mut()
                .filter_map(Value::as_object_mut)
                .collect::<Vec<_>>(),
            one => one.as_object_mut().into_iter().collect(),
        })
}

fn written(query: &[(String, String)]) -> String {
    query
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect::<Vec<_>>()
        .join("&")
}

/// The faults in force, with how often each was met.
#[derive(Debug, Default)]
pub(super) struct Faults(Vec<(Fault, usize)>);

/// What hits one request.
#[derive(Debug, Default)]
pub(super) struct Hits {
    /// An answer instead of the good one.
    pub(super) answer: Option<FaultKind>,
    /// Changes to the document of the good one.
    pub(super) document: Vec<FaultKind>,
}

impl Faults {
    pub(super) fn add(&mut self, fault: Fault) {
        self.0.push((fault, 0));
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    pub(super) fn all(&self) -> Vec<Fault> {
        self.0.iter().map(|(fault, _)| fault.clone()).collect()
    }

    /// What hits this request: of the answers the one injected first, and every change to the document.
    pub(super) fn meet(
        &mut self,
        path: &str,
        query: &[(String, String)],
        key_id: Option<&str>,
    ) -> Hits {
        let mut hits = Hits::default();
        for (fault, met) in &mut self.0 {
            let taken = hits.answer.is_some() && !fault.kind.is_of_document();
            if taken || !fault.matches(path, query, key_id) {
                continue;
            }
            *met += 1;
            let due =
                *met > fault.after && fault.times.is_none_or(|times| *met - fault.after <= times);
            if due && fault.kind.is_of_document() {
                hits.document.push(fault.kind.clone());
            } else if due {
                hits.answer = Some(fault.kind.clone());
            }
        }
        hits
    }
}
