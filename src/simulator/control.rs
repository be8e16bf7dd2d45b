//! The control API under `/_simulator/`: the state, faults, latency, the clock and the record of requests, without a token.
//!
//! Whatever it refuses, it answers `{"error": "..."}` and changes nothing.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, State as Shared};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post, put};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::Error;
use super::fault::Fault;
use super::server::Server;
use super::state::{
    App, GracePeriod, InAppPurchase, Key, State, Subscription, SubscriptionGroup, Team,
};

type Served = Shared<Arc<Server>>;
type Answer = Result<Response, Problem>;

pub(super) fn router() -> Router<Arc<Server>> {
    let app = "/_simulator/apps/{app}";
    let groups = format!("{app}/subscription-groups");
    Router::new()
        .route("/_simulator/state", get(show_state).put(replace_state))
        .route("/_simulator/teams/{team}", post(change_team))
        .route("/_simulator/keys/{key}", post(change_key))
        .route(&format!("{app}/in-app-purchases"), post(put_purchase))
        .route(
            &format!("{app}/in-app-purchases/{{which}}"),
            delete(remove_purchase),
        )
        .route(&groups, post(put_group))
        .route(&format!("{groups}/{{group}}"), delete(remove_group))
        .route(
            &format!("{groups}/{{group}}/subscriptions"),
            post(put_subscription),
        )
        .route(
            &format!("{groups}/{{group}}/subscriptions/{{which}}"),
            delete(remove_subscription),
        )
        .route(
            &format!("{app}/grace-period"),
            put(put_grace_period).delete(remove_grace_period),
        )
        .route(
            "/_simulator/faults",
            get(show_faults).post(add_fault).delete(clear_faults),
        )
        .route("/_simulator/latency", put(set_latency))
        .route("/_simulator/clock", put(set_clock))
        .route("/_simulator/budgets", delete(forget_budgets))
        .route(
            "/_simulator/requests",
            get(show_requests).delete(forget_requests),
        )
        .route("/_simulator/ca.pem", get(show_ca))
        .route(
            "/_simulator/{*rest}",
            get(nowhere).post(nowhere).put(nowhere).delete(nowhere),
        )
        .method_not_allowed_fallback(async || {
            Problem(
                StatusCode::METHOD_NOT_ALLOWED,
                "not this method here".to_owned(),
            )
        })
}

struct Problem(StatusCode, String);

impl Problem {
    fn bad(message: impl Into<String>) -> Self {
        Self(StatusCode::BAD_REQUEST, message.into())
    }

    fn no(what: &str, which: &str) -> Self {
        Self(
            StatusCode::NOT_FOUND,
            format!("there is no {what} `{which}`"),
        )
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        Self::bad(error.to_string())
    }
}

impl From<serde_json::Error> for Problem {
    fn from(error: serde_json::Error) -> Self {
        Self::bad(error.to_string())
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        respond(self.0, &json!({ "error": self.1 }))
    }
}

fn respond(status: StatusCode, body: &impl Serialize) -> Response {
    let body = serde_json::to_string_pretty(body).unwrap_or_default() + "\n";
    (status, [(CONTENT_TYPE, "application/json")], body).into_response()
}

fn shown(body: &impl Serialize) -> Response {
    respond(StatusCode::OK, body)
}

fn parse<T: DeserializeOwned>(body: &str) -> Result<T, Problem> {
    serde_json::from_str(body).map_err(Problem::from)
}

async fn nowhere(Path(rest): Path<String>) -> Problem {
    Problem::no("control path", &rest)
}

async fn show_state(Shared(server): Served) -> Response {
    shown(&*server.state())
}

/// Takes a whole state; a key that is given without its private key keeps the one it had.
async fn replace_state(Shared(server): Served, body: String) -> Answer {
    let mut given: State = parse(&body)?;
    server.try_edit(|state| {
        for key in given
            .teams
            .iter_mut()
            .flat_map(|team| &mut team.keys)
            .filter(|key| key.private_key.is_empty())
        {
            if let Some((_, known)) = state.key(&key.key_id) {
                key.private_key.clone_from(&known.private_key);
            }
        }
        *state = given;
        Ok::<_, Problem>(())
    })?;
    Ok(shown(&*server.state()))
}

async fn change_team(Shared(server): Served, Path(which): Path<String>, body: String) -> Answer {
    server.try_edit(|state| {
        let named = |team: &&mut Team| team.name == which || team.issuer_id == which;
        let team = state
            .teams
            .iter_mut()
            .find(named)
            .ok_or_else(|| Problem::no("team", &which))?;
        *team = merged(team, parse(&body)?)?;
        Ok(shown(team))
    })
}

async fn change_key(Shared(server): Served, Path(which): Path<String>, body: String) -> Answer {
    server.try_edit(|state| {
        let key: &mut Key = state
            .key_mut(&which)
            .ok_or_else(|| Problem::no("key", &which))?;
        *key = merged(key, parse(&body)?)?;
        Ok(shown(key))
    })
}

async fn put_purchase(Shared(server): Served, Path(app): Path<String>, body: String) -> Answer {
    let given: Map<String, Value> = parse(&body)?;
    edit_app_with(&server, &app, |app, id| {
        let is = |purchase: &InAppPurchase| {
            names(
                &given,
                &[("id", &purchase.id), ("product_id", &purchase.product_id)],
            )
        };
        let new = InAppPurchase::new(id, "", "");
        put_row(&mut app.in_app_purchases, &given, is, &new, "product_id")
    })
}

async fn remove_purchase(
    Shared(server): Served,
    Path((app, which)): Path<(String, String)>,
) -> Answer {
    edit_app(&server, &app, |app| {
        let is = |purchase: &InAppPurchase| purchase.id == which || purchase.product_id == which;
        remove_row(&mut app.in_app_purchases, is, "in-app purchase", &which)
    })
}

async fn put_group(Shared(server): Served, Path(app): Path<String>, body: String) -> Answer {
    let given: Map<String, Value> = parse(&body)?;
    edit_app_with(&server, &app, |app, id| {
        let is = |group: &SubscriptionGroup| {
            names(
                &given,
                &[("id", &group.id), ("reference_name", &group.reference_name)],
            )
        };
        put_row(
            &mut app.subscription_groups,
            &given,
            is,
            &SubscriptionGroup::new(id, ""),
            "reference_name",
        )
    })
}

async fn remove_group(
    Shared(server): Served,
    Path((app, which)): Path<(String, String)>,
) -> Answer {
    edit_app(&server, &app, |app| {
        let is = |group: &SubscriptionGroup| group.id == which || group.reference_name == which;
        remove_row(
            &mut app.subscription_groups,
            is,
            "subscription group",
            &which,
        )
    })
}

async fn put_subscription(
    Shared(server): Served,
    Path((app, group)): Path<(String, String)>,
    body: String,
) -> Answer {
    let given: Map<String, Value> = parse(&body)?;
    edit_app_with(&server, &app, |app, id| {
        let is =
            |row: &Subscription| names(&given, &[("id", &row.id), ("product_id", &row.product_id)]);
        let new = Subscription::new(id, "", "");
        put_row(
            &mut group_of(app, &group)?.subscriptions,
            &given,
            is,
            &new,
            "product_id",
        )
    })
}

async fn remove_subscription(
    Shared(server): Served,
    Path((app, group, which)): Path<(String, String, String)>,
) -> Answer {
    edit_app(&server, &app, |app| {
        let is = |subscription: &Subscription| {
            subscription.id == which || subscription.product_id == which
        };
        remove_row(
            &mut group_of(app, &group)?.subscriptions,
            is,
            "subscription",
            &which,
        )
    })
}

async fn put_grace_period(Shared(server): Served, Path(app): Path<String>, body: String) -> Answer {
    edit_app(&server, &app, |app| {
        let known = app.grace_period.clone().unwrap_or_default();
        let grace_period: GracePeriod = merged(&known, parse(&body)?)?;
        Ok(shown(app.grace_period.insert(grace_period)))
    })
}

async fn remove_grace_period(Shared(server): Served, Path(which): Path<String>) -> Answer {
    edit_app(&server, &which, |app| {
        let removed = app
            .grace_period
            .take()
            .ok_or_else(|| Problem::no("grace period of app", &which))?;
        Ok(shown(&removed))
    })
}

async fn show_faults(Shared(server): Served) -> Response {
    shown(&server.faults().all())
}

async fn add_fault(Shared(server): Served, body: String) -> Answer {
    let given: Map<String, Value> = parse(&body)?;
    let known = ["path", "key_id", "after", "times", "kind", "with"];
    if let Some(unknown) = given.keys().find(|name| !known.contains(&name.as_str())) {
        return Err(Problem::bad(format!(
            "unknown field `{unknown}`, expected one of {}",
            known.join(", ")
        )));
    }
    let fault: Fault = serde_json::from_value(Value::Object(given)).map_err(Problem::from)?;
    server.faults().add(fault.clone());
    Ok(shown(&fault))
}

async fn clear_faults(Shared(server): Served) -> Response {
    server.faults().clear();
    shown(&json!([]))
}

#[derive(serde::Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Latency {
    ms: u64,
}

async fn set_latency(Shared(server): Served, body: String) -> Answer {
    let latency: Latency = parse(&body)?;
    server.set_latency(Duration::from_millis(latency.ms));
    Ok(shown(&latency))
}

#[derive(serde::Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct ClockOffset {
    offset_s: i64,
}

async fn set_clock(Shared(server): Served, body: String) -> Answer {
    let clock: ClockOffset = parse(&body)?;
    server.clock.set_offset(clock.offset_s);
    Ok(shown(&clock))
}

async fn forget_budgets(Shared(server): Served) -> Response {
    server.budgets().forget(None);
    shown(&json!({}))
}

async fn show_requests(Shared(server): Served) -> Response {
    shown(&server.journal.requests())
}

async fn forget_requests(Shared(server): Served) -> Response {
    server.journal.forget();
    shown(&json!([]))
}

async fn show_ca(Shared(server): Served) -> Answer {
    match &server.ca_pem {
        Some(pem) => Ok(([(CONTENT_TYPE, "application/x-pem-file")], pem.clone()).into_response()),
        None => Err(Problem::no(
            "certificate: this is plain HTTP, see",
            "--https",
        )),
    }
}

fn edit_app(server: &Server, which: &str, f: impl FnOnce(&mut App) -> Answer) -> Answer {
    edit_app_with(server, which, |app, _| f(app))
}

/// Gives an id that is free too.
fn edit_app_with(server: &Server, which: &str, f: impl FnOnce(&mut App, &str) -> Answer) -> Answer {
    server.try_edit(|state| {
        let free_id = state.free_id();
        let named = |app: &&mut App| app.id == which || app.bundle_id == which;
        let mut apps = state.teams.iter_mut().flat_map(|team| &mut team.apps);
        f(
            apps.find(named).ok_or_else(|| Problem::no("app", which))?,
            &free_id,
        )
    })
}

fn group_of<'a>(app: &'a mut App, which: &str) -> Result<&'a mut SubscriptionGroup, Problem> {
    let named = |group: &&mut SubscriptionGroup| group.id == which || group.reference_name == which;
    app.subscription_groups
        .iter_mut()
        .find(named)
        .ok_or_else(|| Problem::no("subscription group", which))
}

/// Whether the body names this row: by the first of these members that it has.
fn names(given: &Map<String, Value>, members: &[(&str, &str)]) -> bool {
    let named = members
        .iter()
        .find_map(|(member, own)| Some((given.get(*member)?, own)));
    named.is_some_and(|(value, own)| value.as_str() == Some(own))
}

/// Changes the row that the body names, or adds one.
fn put_row<T: Serialize + DeserializeOwned>(
    rows: &mut Vec<T>,
    given: &Map<String, Value>,
    is: impl Fn(&T) -> bool,
    new: &T,
    needed: &str,
) -> Answer {
    if let Some(row) = rows.iter_mut().find(|row| is(row)) {
        *row = merged(row, given.clone())?;
        return Ok(shown(row));
    }
    if given
        .get(needed)
        .and_then(Value::as_str)
        .is_none_or(str::is_empty)
    {
        return Err(Problem::bad(format!(
            "`{needed}` is missing: a new one needs it"
        )));
    }
    let row = merged(new, given.clone())?;
    rows.push(row);
    Ok(respond(StatusCode::CREATED, &rows.last()))
}

fn remove_row<T: Serialize>(
    rows: &mut Vec<T>,
    is: impl Fn(&T) -> bool,
    what: &str,
    which: &str,
) -> Answer {
    let index = rows
        .iter()
        .position(is)
        .ok_or_else(|| Problem::no(what, which))?;
    Ok(shown(&rows.remove(index)))
}

/// The value with these members instead of its own; null takes a member away.
fn merged<T: Serialize + DeserializeOwned>(
    known: &T,
    given: Map<String, Value>,
) -> Result<T, Problem> {
    let mut value = serde_json::to_value(known).map_err(Problem::from)?;
    if let Some(object) = value.as_object_mut() {
        object.extend(given);
        object.retain(|_, member| !member.is_null());
    }
    serde_json::from_value(value).map_err(Problem::from)
}
