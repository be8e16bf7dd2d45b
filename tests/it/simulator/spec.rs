//! Every kind of answer against Apple's own OpenAPI description, where that is at hand.
//!
//! Two things are not in the description and are right all the same, as live answers have them: the `cursor` parameter, and
//! the `data: null` of an unset to-one relationship.

use std::collections::BTreeSet;

use catalog_sync::simulator::{
    APPS, Accepts, ENDPOINTS, Fault, FaultKind, GRACE_PERIODS, IN_APP_PURCHASES, Key, Role,
    SUBSCRIPTION_GROUPS, SUBSCRIPTIONS, Simulator, State,
};
use serde_json::{Value, json};

use super::client::{Answer, Client};

const DESCRIPTION: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../shared/app-store-connect/openapi.json"
);

/// Apple's description, or nothing where it is not at hand.
fn description() -> Option<Value> {
    let Ok(text) = std::fs::read_to_string(DESCRIPTION) else {
        println!("skipped: {DESCRIPTION} is not here");
        return None;
    };
    Some(serde_json::from_str(&text).unwrap())
}

/// What is wrong with a value by a schema, each with its place.
struct Checker<'a> {
    description: &'a Value,
    faults: Vec<String>,
}

impl<'a> Checker<'a> {
    fn faults(description: &'a Value, schema: &'a Value, value: &Value) -> Vec<String> {
        let mut checker = Self {
            description,
            faults: Vec::new(),
        };
        checker.check(schema, value, "$");
        checker.faults
    }

    fn resolve(&self, schema: &'a Value) -> &'a Value {
        match schema["$ref"].as_str() {
            Some(reference) => self
                .description
                .pointer(reference.trim_start_matches('#'))
                .expect(reference),
            None => schema,
        }
    }

    fn fault(&mut self, place: &str, what: impl std::fmt::Display) {
        self.faults.push(format!("{place}: {what}"));
    }

    fn check(&mut self, schema: &'a Value, value: &Value, place: &str) {
        let schema = self.resolve(schema);
        if let Some(choices) = schema["oneOf"].as_array() {
            return self.check_one_of(schema, choices, value, place);
        }
        if schema
            .get("enum")
            .is_some_and(|values| !values.as_array().unwrap().contains(value))
        {
            self.fault(place, format_args!("{value} is not in {}", schema["enum"]));
        }
        let right = match schema["type"].as_str() {
            Some("object") => value.is_object(),
            Some("array") => value.is_array(),
            Some("string") => value.is_string(),
            Some("integer") => value.is_i64() || value.is_u64(),
            Some("boolean") => value.is_boolean(),
            None => true,
            Some(other) => panic!("{place}: a type that this checker does not know: {other}"),
        };
        if !right {
            return self.fault(place, format_args!("{value} is no {}", schema["type"]));
        }
        for (index, item) in value.as_array().into_iter().flatten().enumerate() {
            self.check(&schema["items"], item, &format!("{place}[{index}]"));
        }
        self.check_members(schema, value, place);
    }

    fn check_members(&mut self, schema: &'a Value, value: &Value, place: &str) {
        let Some(members) = value.as_object() else {
            return;
        };
        for needed in schema["required"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
        {
            if !members.contains_key(needed) {
                self.fault(place, format_args!("{needed} is missing"));
            }
        }
        for (name, member) in members {
            let place = format!("{place}.{name}");
            let unset = name == "data" && member.is_null() && place.contains(".relationships.");
            match schema["properties"].get(name) {
                Some(_) if unset => {}
                Some(known) => self.check(known, member, &place),
                None if schema.get("additionalProperties").is_some() => {}
                None => self.fault(&place, "Apple's description does not know it"),
            }
        }
    }

    fn check_one_of(
        &mut self,
        schema: &'a Value,
        choices: &'a [Value],
        value: &Value,
        place: &str,
    ) {
        if let Some(by) = schema["discriminator"]["propertyName"].as_str() {
            let mapping = &schema["discriminator"]["mapping"];
            let Some(reference) = value[by].as_str().and_then(|name| mapping[name].as_str()) else {
                return self.fault(
                    place,
                    format_args!("{by} {} is not in the mapping", value[by]),
                );
            };
            let chosen = choices
                .iter()
                .find(|choice| choice["$ref"] == reference)
                .expect("the mapping names a choice");
            return self.check(chosen, value, place);
        }
        let fitting = choices
            .iter()
            .filter(|choice| Self::faults(self.description, choice, value).is_empty());
        let count = fitting.count();
        if count != 1 {
            self.fault(place, format_args!("{count} of the choices fit"));
        }
    }
}

fn assert_described(description: &Value, template: &str, answer: &Answer) {
    let pointer = format!(
        "/paths/{}/get/responses/{}",
        template.replace('/', "~1"),
        answer.status
    );
    let response = description
        .pointer(&pointer)
        .unwrap_or_else(|| panic!("{template} never answers {}", answer.status));
    let content = response["content"].as_object().unwrap();
    let kind = answer.header("content-type");
    let faults = Checker::faults(
        description,
        &content.get(kind).expect(kind)["schema"],
        &answer.body,
    );
    assert!(
        faults.is_empty(),
        "{template} {}: {faults:#?}",
        answer.status
    );
}

#[test]
fn the_checker_sees_each_kind_of_fault() {
    let description = json!({ "components": { "schemas": {
        "Thing": {
            "type": "object",
            "required": ["id"],
            "properties": {
                "id": { "type": "string" },
                "state": { "type": "string", "enum": ["ON", "OFF"] },
                "level": { "type": "integer" },
                "list": { "type": "array", "items": { "oneOf": [{ "$ref": "#/components/schemas/Thing" }],
                    "discriminator": { "propertyName": "id", "mapping": { "t": "#/components/schemas/Thing" } } } },
                "either": { "oneOf": [{ "type": "string" }, { "type": "boolean" }] },
            },
        },
    } } });
    let schema = json!({ "$ref": "#/components/schemas/Thing" });
    let faults = |value: Value| Checker::faults(&description, &schema, &value).len();
    assert_eq!(
        faults(
            json!({ "id": "t", "state": "ON", "level": 1, "list": [{ "id": "t" }], "either": true })
        ),
        0
    );
    for wrong in [
        json!({}),
        json!([]),
        json!({ "id": 1 }),
        json!({ "id": "t", "state": "UP" }),
        json!({ "id": "t", "state": null }),
        json!({ "id": "t", "level": 1.5 }),
        json!({ "id": "t", "unknown": 1 }),
        json!({ "id": "t", "list": [{ "id": "x" }] }),
        json!({ "id": "t", "list": [{ "id": "t", "level": "1" }] }),
        json!({ "id": "t", "either": 1 }),
    ] {
        assert_eq!(
            faults(wrong.clone()),
            1 + usize::from(wrong["state"].is_null() && wrong.get("state").is_some())
        );
    }
}

#[tokio::test]
async fn every_good_answer_is_as_apple_describes_it() {
    let Some(description) = description() else {
        return;
    };
    let simulator = Simulator::start(State::sample()).await.unwrap();
    let client = Client::of(&simulator);
    let app = simulator.state().teams[0].apps[0].clone();
    let ids = [
        ("/v1/apps", &app.id),
        ("/v2/inAppPurchases", &app.in_app_purchases[0].id),
        ("/v1/subscriptionGroups", &app.subscription_groups[1].id),
        ("/v1/subscriptionG", &app.id),
        (
            "/v1/subscriptions",
            &app.subscription_groups[1].subscriptions[0].id,
        ),
    ];
    let mut asked = BTreeSet::new();
    for endpoint in ENDPOINTS {
        let id = ids
            .iter()
            .find(|(start, _)| endpoint.path.starts_with(start))
            .unwrap()
            .1;
        let path = endpoint.path.replace("{id}", id);
        let mut queries = vec![String::new()];
        // Each parameter alone with each of its values, and then all includes with a page of one row.
        for parameter in endpoint.parameters {
            let values: Vec<String> = match &parameter.accepts {
                Accepts::Any => vec!["x".to_owned()],
                Accepts::Of(values) => values.iter().map(ToString::to_string).collect(),
                Accepts::FieldsOf(kind) => kind.fields().map(str::to_owned).collect(),
                Accepts::UpTo(most) => vec!["1".to_owned(), most.to_string()],
                Accepts::Cursor => vec![],
            };
            queries.extend(
                values
                    .iter()
                    .map(|value| format!("?{}={value}", parameter.name)),
            );
            if parameter.name == "include" {
                let all = values.join(",");
                queries.push(format!("?include={all}"));
                if endpoint
                    .parameters
                    .iter()
                    .any(|parameter| parameter.name == "limit")
                {
                    queries.push(format!("?include={all}&limit=1"));
                }
            }
        }
        for query in queries {
            for answer in client.pages(&format!("{path}{query}")).await {
                assert_described(&description, endpoint.path, &answer);
                let included = answer.body["included"].as_array().into_iter().flatten();
                asked
                    .extend(included.map(|resource| resource["type"].as_str().unwrap().to_owned()));
            }
        }
    }
    assert_eq!(
        asked.into_iter().collect::<Vec<_>>(),
        [
            "subscriptionGracePeriods",
            "subscriptionGroups",
            "subscriptions"
        ]
    );

    simulator.edit(|state| state.teams[0].apps[0].grace_period = None);
    let unset = client
        .good(&format!(
            "/v1/apps/{}?include=subscriptionGracePeriod",
            app.id
        ))
        .await;
    assert_described(&description, "/v1/apps/{id}", &unset);
}

#[tokio::test]
async fn every_error_is_as_apple_describes_it() {
    let Some(description) = description() else {
        return;
    };
    let mut state = State::sample();
    let app = state.teams[0].apps[0].id.clone();
    state.teams[0]
        .keys
        .push(Key::new("DEVELOPER1", Role::Developer));
    state.teams[0]
        .keys
        .push(Key::new("SPENTKEY01", Role::Admin).with_hourly_limit(0));
    let simulator = Simulator::start(state).await.unwrap();
    let list = format!("/v1/apps/{app}/inAppPurchasesV2");
    let admin = Client::of(&simulator);
    let mut errors = vec![
        (400, admin.get(&format!("{list}?limit=999")).await),
        (400, admin.get(&format!("{list}?unknown=1")).await),
        (401, Client::with_token(&simulator, None).get(&list).await),
        (
            403,
            Client::with_key(&simulator, "DEVELOPER1").get(&list).await,
        ),
        (404, admin.get("/v1/apps/9/inAppPurchasesV2").await),
        (
            429,
            Client::with_key(&simulator, "SPENTKEY01").get(&list).await,
        ),
    ];
    simulator.edit(|state| state.teams[0].agreement_missing = true);
    errors.push((403, admin.get(&list).await));
    for (status, answer) in &errors {
        assert_eq!(answer.status, *status);
        assert_described(&description, "/v1/apps/{id}/inAppPurchasesV2", answer);
    }
    // Apple describes no 5xx; they have the same shape.
    simulator.inject(Fault::new("", FaultKind::status(500)));
    let answer = admin.get(&list).await;
    let schema = description
        .pointer("/components/schemas/ErrorResponse")
        .unwrap();
    assert_eq!(
        Checker::faults(&description, schema, &answer.body),
        Vec::<String>::new()
    );
}

#[test]
fn every_parameter_is_in_the_description_with_its_values_and_limit() {
    let Some(description) = description() else {
        return;
    };
    for endpoint in ENDPOINTS {
        let described = description["paths"][endpoint.path]["get"]["parameters"]
            .as_array()
            .expect(endpoint.path);
        for parameter in endpoint.parameters {
            if matches!(parameter.accepts, Accepts::Cursor) {
                continue;
            }
            let place = format!("{} {}", endpoint.path, parameter.name);
            let known = described
                .iter()
                .find(|known| known["name"] == parameter.name)
                .expect(&place);
            let values = |schema: &Value| -> BTreeSet<String> {
                let values = schema["items"]["enum"].as_array().into_iter().flatten();
                values
                    .map(|value| value.as_str().unwrap().to_owned())
                    .collect()
            };
            let schema = &known["schema"];
            match &parameter.accepts {
                Accepts::UpTo(most) => assert_eq!(schema["maximum"], *most, "{place}"),
                Accepts::Any => assert!(values(schema).is_empty(), "{place}"),
                Accepts::FieldsOf(kind) => {
                    let ours: BTreeSet<String> = kind.fields().map(str::to_owned).collect();
                    assert_eq!(ours, values(schema), "{place}");
                }
                Accepts::Of(ours) if parameter.name == "include" => {
                    assert!(
                        ours.iter().all(|value| values(schema).contains(*value)),
                        "{place}"
                    );
                }
                Accepts::Of(ours) => {
                    assert_eq!(
                        ours.iter()
                            .map(ToString::to_string)
                            .collect::<BTreeSet<_>>(),
                        values(schema),
                        "{place}"
                    );
                }
                Accepts::Cursor => {}
            }
        }
    }
}

#[test]
fn every_attribute_and_relationship_is_in_the_description() {
    let Some(description) = description() else {
        return;
    };
    let kinds = [
        (&APPS, "App"),
        (&IN_APP_PURCHASES, "InAppPurchaseV2"),
        (&SUBSCRIPTION_GROUPS, "SubscriptionGroup"),
        (&SUBSCRIPTIONS, "Subscription"),
        (&GRACE_PERIODS, "SubscriptionGracePeriod"),
    ];
    for (kind, schema) in kinds {
        let properties = &description["components"]["schemas"][schema]["properties"];
        let attributes: BTreeSet<&str> = properties["attributes"]["properties"]
            .as_object()
            .unwrap()
            .keys()
            .map(String::as_str)
            .collect();
        assert_eq!(
            kind.attributes.iter().copied().collect::<BTreeSet<_>>(),
            attributes,
            "{schema}"
        );
        let linked: BTreeSet<&str> = properties["relationships"]["properties"]
            .as_object()
            .into_iter()
            .flatten()
            .filter(|(_, relationship)| relationship["properties"].get("links").is_some())
            .map(|(name, _)| name.as_str())
            .collect();
        assert_eq!(
            kind.relationships.iter().copied().collect::<BTreeSet<_>>(),
            linked,
            "{schema}"
        );
        assert_eq!(properties["type"]["enum"], json!([kind.name]));
    }
}
